//! The one reader and writer of token cookies and token headers.
//!
//! Reading: names and values are bytes, never decoded (row C03); a bearer token that looks like a
//! session's decides alone (row J23); what is not one of ours counts as absent. Writing: values the
//! crate made, marked sensitive, always with `no-store` (row C11).

use std::str;

use super::{
    cookies::{CookieConfig, Jar, TransferMethod, by_name, cut, trim},
    token,
};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, ORIGIN},
};

pub(crate) use self::write::{
    FRONT, ST_ACCESS, ST_REFRESH, TokenChange, Tokens, no_store, private, private_if_plain, strip_foreign,
    vary,
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

impl Access<'_> {
    /// How the token came that decides.
    pub(crate) fn method(&self) -> Option<TransferMethod> {
        match self {
            Self::Token { method, .. } => Some(*method),
            _ => None,
        }
    }
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
    pub(crate) fn read(headers: &'a HeaderMap, config: &'a CookieConfig) -> Result<Self, TooLarge> {
        let (bearer, ambiguous) = authorization(headers);
        let bearer = bearer.filter(|_| config.methods.allow(TransferMethod::Header));
        let access = match bearer.filter(|bearer| token::shaped(bearer)) {
            _ if ambiguous => Access::Ambiguous,
            // It decides alone: what else came isn't looked at (row J23).
            Some(text) => Access::Token { text, method: TransferMethod::Header },
            None => Self::by_cookie(headers, config)?,
        };
        Ok(Self { access, bearer, headers, config })
    }

    fn by_cookie(headers: &'a HeaderMap, config: &'a CookieConfig) -> Result<Access<'a>, TooLarge> {
        let cookie = Cookies::named(Jar::Access, headers, config)?;
        Ok(match cookie.first.filter(|_| config.methods.allow(TransferMethod::Cookie)) {
            Some(_) if cookie.differ => Access::Duplicate,
            Some(text) if token::shaped(text) => Access::Token { text, method: TransferMethod::Cookie },
            _ => Access::Absent,
        })
    }

    /// Every value that came under a cookie's name (row C04).
    fn cookies(&self, jar: Jar) -> Vec<&'a [u8]> {
        let fields = self.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        fields.flat_map(|field| by_name(self.config.name(jar), field)).flatten().collect()
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

/// The cookies of one name among all that came.
#[derive(Default)]
struct Cookies<'a> {
    first: Option<&'a [u8]>,
    differ: bool,
    count: usize,
    bytes: usize,
}

impl<'a> Cookies<'a> {
    fn named(jar: Jar, headers: &'a HeaderMap, config: &'a CookieConfig) -> Result<Self, TooLarge> {
        let mut cookies = Self::default();
        if !has_repeats(headers) {
            headers.get(COOKIE).map_or(Ok(()), |field| cookies.scan(jar, field.as_bytes(), config))?;
            return Ok(cookies);
        }
        // HTTP/2 may split the field (RFC 9113, section 8.2.3): all of them are one list.
        for field in headers.get_all(COOKIE) {
            cookies.scan(jar, field.as_bytes(), config)?;
        }
        Ok(cookies)
    }

    fn scan(&mut self, jar: Jar, field: &'a [u8], config: &'a CookieConfig) -> Result<(), TooLarge> {
        self.bytes += field.len() + 2;
        if self.bytes > MOST_BYTES {
            return Err(TooLarge);
        }
        for value in by_name(config.name(jar), field) {
            self.count += 1;
            if self.count > MOST_COOKIES {
                return Err(TooLarge);
            }
            if let Some(value) = value {
                self.differ |= self.first.is_some_and(|other| other != value);
                self.first = Some(value);
            }
        }
        Ok(())
    }
}

/// Whether some name has several fields: most requests have none, and then one look a name is enough.
#[inline]
fn has_repeats(headers: &HeaderMap) -> bool {
    headers.len() > headers.keys_len()
}

/// The bearer token, if there is one, and whether there are several fields.
#[inline]
fn authorization(headers: &HeaderMap) -> (Option<&[u8]>, bool) {
    let Some(first) = headers.get(AUTHORIZATION) else { return (None, false) };
    if has_repeats(headers) && headers.get_all(AUTHORIZATION).iter().nth(1).is_some() {
        return (None, true);
    }
    let bearer = first.as_bytes().split_at_checked("Bearer ".len()).and_then(|(scheme, token)| {
        let token = trim_spaces(token);
        (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
    });
    (bearer, false)
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
