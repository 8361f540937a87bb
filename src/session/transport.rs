//! The one reader and writer of token cookies and token headers.
//!
//! Reading: names and values are bytes, never decoded (row C03); a bearer token that looks like a
//! session's decides alone (row J23); what is not one of ours counts as absent. Writing: values the
//! crate made, marked sensitive, always with `no-store` (row C11).

use std::str;

use memchr::{memchr_iter, memmem::Finder};

use super::{
    cookies::{CookieConfig, Jar, TransferMethod, by_name, cut, next_by_name, trim},
    token,
};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, ORIGIN, UPGRADE},
};

pub(crate) use self::write::{
    FRONT, ST_ACCESS, ST_REFRESH, TokenChange, Tokens, no_store, no_store_yet, private, private_if_plain,
    strip_foreign, vary,
};

mod write;

pub(crate) const ANTI_CSRF: HeaderName = HeaderName::from_static("anti-csrf");
pub(crate) const RID: HeaderName = HeaderName::from_static("rid");
pub(crate) const AUTH_MODE: HeaderName = HeaderName::from_static("st-auth-mode");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a request says about a session, borrowed from its headers. Holds tokens: not printable.
pub(crate) struct Presented<'a> {
    /// The access token that decides.
    pub(crate) access: Access<'a>,
    /// The bearer token as it came, whatever it is. `None` where the server takes no header tokens.
    bearer: Option<&'a [u8]>,
    /// Whether it asks for another protocol, as a WebSocket's does.
    pub(crate) upgrade: bool,
    headers: &'a HeaderMap,
    config: &'a CookieConfig,
}

/// What a request says beside its credentials: who sent it and how. Most requests are judged without.
#[derive(Default)]
pub(crate) struct Hints<'a> {
    pub(crate) rid: bool,
    pub(crate) anti_csrf: Option<&'a str>,
    /// The transfer that the client wants for a new session.
    pub(crate) auth_mode: Option<TransferMethod>,
    /// `null` also stands for one that can't be read or came twice.
    pub(crate) origin: Option<&'a str>,
    pub(crate) fetch_site: Option<FetchSite>,
    /// Whether the body is declared to be JSON.
    pub(crate) json: bool,
}

/// The access token of a request.
#[derive(Clone, Copy, Default)]
pub(crate) enum Access<'a> {
    /// None that looks like ours.
    #[default]
    Absent,
    /// To be opened; it alone decides.
    Token {
        /// The token.
        text: &'a [u8],
        /// How it came.
        method: TransferMethod,
    },
    /// Two access cookies that differ: `TRY_REFRESH` (row C04).
    Duplicate,
    /// Several `Authorization` fields: `UNAUTHORISED` (row J24).
    Ambiguous,
}

/// `Sec-Fetch-Site`. A value that isn't known counts as cross-site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FetchSite {
    SameOrigin,
    SameSite,
    CrossSite,
    /// The person's own doing, such as a bookmark.
    None,
}

/// More cookies than anybody needs: 431 (row M17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

const MOST_COOKIES: usize = 200;
const MOST_BYTES: usize = 16 * 1024;

impl<'a> Presented<'a> {
    /// Reads a request's headers as far as the access token is concerned.
    #[inline(always)]
    pub(crate) fn read(headers: &'a HeaderMap, config: &'a CookieConfig) -> Result<Self, TooLarge> {
        let fields = Fields::of(headers);
        let by_header = config.methods.allow(TransferMethod::Header) && !fields.ambiguous;
        let bearer = fields.authorization.filter(|_| by_header).and_then(bearer_token);
        let access = match bearer.filter(|bearer| token::shaped(bearer)) {
            _ if fields.ambiguous => Access::Ambiguous,
            // It decides alone: what else came isn't looked at (row J23).
            Some(text) => Access::Token { text, method: TransferMethod::Header },
            None => Self::by_cookie(&fields, headers, config)?,
        };
        Ok(Self { access, bearer, upgrade: fields.upgrade, headers, config })
    }

    fn by_cookie(
        fields: &Fields<'a>,
        headers: &'a HeaderMap,
        config: &'a CookieConfig,
    ) -> Result<Access<'a>, TooLarge> {
        let cookie = Cookies::named(Jar::Access, fields, headers, config)?;
        Ok(match cookie.first.filter(|_| config.methods.allow(TransferMethod::Cookie)) {
            Some(_) if cookie.differ => Access::Duplicate,
            Some(text) if token::shaped(text) => Access::Token { text, method: TransferMethod::Cookie },
            _ => Access::Absent,
        })
    }

    /// Every value that came under a cookie's name (row C04).
    fn cookies(&self, jar: Jar) -> Vec<&'a [u8]> {
        let fields = self.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        fields.flat_map(|field| by_name(self.config.finder(jar), field)).collect()
    }

    /// The same request, once for each token that may be the client's: several access cookies are judged one by one
    /// where each of them is to end (row C04).
    pub(crate) fn apart(&self) -> Vec<Self> {
        if !matches!(self.access, Access::Duplicate) {
            return vec![Self { ..*self }];
        }
        let texts = self.cookies(Jar::Access).into_iter().filter(|text| token::shaped(text));
        texts
            .map(|text| Access::Token { text, method: TransferMethod::Cookie })
            .map(|access| Self { access, ..*self })
            .collect()
    }

    /// Reads the rest of what the request says: only where it matters.
    pub(crate) fn hints(&self) -> Hints<'a> {
        Hints::read(self.headers)
    }

    /// The values to look for a refresh token in, and how they came: the header wins (row R19).
    pub(crate) fn refresh(&self) -> Option<(Vec<&'a str>, TransferMethod)> {
        if let Some(bearer) = self.bearer.and_then(|bearer| str::from_utf8(bearer).ok()) {
            return Some((vec![bearer], TransferMethod::Header));
        }
        if !self.config.methods.allow(TransferMethod::Cookie) {
            return None;
        }
        // What is no text is none of ours.
        let values = self.cookies(Jar::Refresh).into_iter().filter_map(|value| str::from_utf8(value).ok());
        let values: Vec<&str> = values.collect();
        (!values.is_empty()).then_some((values, TransferMethod::Cookie))
    }

    /// Whether a bearer token came, whatever it is.
    pub(crate) fn has_bearer(&self) -> bool {
        self.bearer.is_some()
    }

    /// Whether the request carries a token by this method, valid or not: what to clear when a session
    /// goes on by the other.
    pub(crate) fn carries(&self, method: TransferMethod) -> bool {
        match method {
            TransferMethod::Cookie => {
                [Jar::Access, Jar::Refresh].iter().any(|jar| !self.cookies(*jar).is_empty())
            }
            TransferMethod::Header => {
                matches!(self.access, Access::Token { method: TransferMethod::Header, .. })
            }
        }
    }
}

impl<'a> Hints<'a> {
    fn read(headers: &'a HeaderMap) -> Self {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            rid: headers.contains_key(RID),
            anti_csrf: text(&ANTI_CSRF),
            auth_mode: match text(&AUTH_MODE) {
                Some("cookie") => Some(TransferMethod::Cookie),
                Some("header") => Some(TransferMethod::Header),
                _ => None,
            },
            origin: origin(headers),
            fetch_site: headers.get(FETCH_SITE).map(|value| match value.as_bytes() {
                b"same-origin" => FetchSite::SameOrigin,
                b"same-site" => FetchSite::SameSite,
                b"none" => FetchSite::None,
                _ => FetchSite::CrossSite,
            }),
            json: headers.get(CONTENT_TYPE).is_some_and(is_json),
        }
    }
}

/// The fields that a request is judged by, found in one pass: cheaper than a search for each.
#[derive(Default)]
struct Fields<'a> {
    authorization: Option<&'a HeaderValue>,
    /// Whether there are several of them.
    ambiguous: bool,
    cookie: Option<&'a HeaderValue>,
    /// Whether HTTP/2 split the list (RFC 9113, section 8.2.3): all of its fields are one.
    split: bool,
    upgrade: bool,
}

impl<'a> Fields<'a> {
    #[inline]
    fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            if *name == COOKIE {
                fields.split |= fields.cookie.replace(value).is_some();
            } else if *name == AUTHORIZATION {
                fields.ambiguous |= fields.authorization.replace(value).is_some();
            } else if *name == UPGRADE {
                fields.upgrade = true;
            }
        }
        fields
    }
}

/// The cookies of one name among all that came.
#[derive(Default)]
struct Cookies<'a> {
    first: Option<&'a [u8]>,
    differ: bool,
    bytes: usize,
    /// Bytes outside of their values.
    outside: usize,
}

impl<'a> Cookies<'a> {
    fn named(
        jar: Jar,
        fields: &Fields<'a>,
        headers: &'a HeaderMap,
        config: &'a CookieConfig,
    ) -> Result<Self, TooLarge> {
        let (mut cookies, name) = (Self::default(), config.finder(jar));
        match fields.cookie {
            Some(_) if fields.split => cookies.scan_all(name, headers)?,
            Some(field) => cookies.scan(name, field.as_bytes())?,
            None => {}
        }
        // There are no more than that: most lists are too short to be worth counting.
        if cookies.outside > MOST_COOKIES && count(headers) > MOST_COOKIES {
            return Err(TooLarge);
        }
        Ok(cookies)
    }

    fn scan_all(&mut self, name: &Finder<'_>, headers: &'a HeaderMap) -> Result<(), TooLarge> {
        headers.get_all(COOKIE).iter().try_for_each(|field| self.scan(name, field.as_bytes()))
    }

    #[inline(always)]
    fn scan(&mut self, name: &Finder<'_>, field: &'a [u8]) -> Result<(), TooLarge> {
        self.bytes += field.len() + 2;
        if self.bytes > MOST_BYTES {
            return Err(TooLarge);
        }
        // One more than its bytes, for the pair that no semicolon ends.
        self.outside += field.len() + 1;
        let mut from = 0;
        while let Some(value) = next_by_name(name, field, &mut from) {
            self.outside -= value.len();
            self.differ |= self.first.is_some_and(|other| other != value);
            self.first = Some(value);
        }
        Ok(())
    }
}

/// How many cookies came, by the semicolons between them.
fn count(headers: &HeaderMap) -> usize {
    let fields = headers.get_all(COOKIE).iter();
    fields.map(|field| memchr_iter(b';', field.as_bytes()).count() + 1).sum()
}

/// The bearer token of an `Authorization` field, if there is one.
#[inline]
fn bearer_token(field: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = field.as_bytes().split_at_checked("Bearer ".len())?;
    // Nearly all clients write it like this; the longer comparison is for the others.
    let bearer = scheme == b"Bearer " || scheme.eq_ignore_ascii_case(b"Bearer ");
    Some(trim_spaces(token)).filter(|token| bearer && !token.is_empty())
}

fn trim_spaces(mut bytes: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = bytes {
        bytes = rest;
    }
    bytes
}

fn origin(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(ORIGIN).iter();
    let first = fields.next()?;
    let readable = first.to_str().ok().filter(|_| fields.next().is_none());
    Some(readable.unwrap_or("null"))
}

/// `application/json`, with or without parameters.
fn is_json(value: &HeaderValue) -> bool {
    let (essence, _) = cut(value.as_bytes(), b';');
    trim(essence).eq_ignore_ascii_case(b"application/json")
}

#[cfg(test)]
mod tests;
