//! The one reader and writer of token cookies and token headers.
//!
//! Reading: names and values are bytes, never decoded (row C03); a bearer token that looks like a
//! session's decides alone (row J23); what is not one of ours counts as absent. Writing: values the
//! crate made, marked sensitive, always with `no-store` (row C11).

use std::str;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCESS_CONTROL_EXPOSE_HEADERS, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, ORIGIN,
        SET_COOKIE, VARY,
    },
};

use super::{
    cookies::{CookieConfig, Jar, TransferMethod, cut, pairs, trim, values},
    token,
};
use crate::base::{error::Error, secret::Secret, time::Timestamp};

const ST_ACCESS: HeaderName = HeaderName::from_static("st-access-token");
const ST_REFRESH: HeaderName = HeaderName::from_static("st-refresh-token");
const FRONT: HeaderName = HeaderName::from_static("front-token");
const ANTI_CSRF: HeaderName = HeaderName::from_static("anti-csrf");
const RID: HeaderName = HeaderName::from_static("rid");
const AUTH_MODE: HeaderName = HeaderName::from_static("st-auth-mode");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const EXPOSED: HeaderValue =
    HeaderValue::from_static("front-token, anti-csrf, st-access-token, st-refresh-token");
const VARIES: HeaderValue = HeaderValue::from_static("Cookie, Authorization");

/// What a request says about a session, borrowed from its headers. Holds tokens: not printable.
pub(crate) struct Presented<'a> {
    /// The access token that decides.
    pub(crate) access: Access<'a>,
    /// The bearer token as it came, whatever it is. `None` where the server takes no header tokens.
    bearer: Option<&'a [u8]>,
    /// Whether a cookie by the access token's name came along.
    access_cookie: bool,
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
    pub(crate) fn read(headers: &'a HeaderMap, config: &'a CookieConfig) -> Result<Self, TooLarge> {
        let (bearer, ambiguous) = authorization(headers);
        let bearer = bearer.filter(|_| config.methods.allow(TransferMethod::Header));
        let cookie = Cookies::named(Jar::Access, headers, config)?;
        let by_cookie = config.methods.allow(TransferMethod::Cookie);
        let access = match bearer.filter(|bearer| token::shaped(bearer)) {
            _ if ambiguous => Access::Ambiguous,
            Some(text) => Access::Token { text, method: TransferMethod::Header },
            None if by_cookie && cookie.differ => Access::Duplicate,
            None => match cookie.first.filter(|text| by_cookie && token::shaped(text)) {
                Some(text) => Access::Token { text, method: TransferMethod::Cookie },
                None => Access::Absent,
            },
        };
        Ok(Self { access, bearer, access_cookie: cookie.first.is_some(), headers, config })
    }

    /// Every value that came under the refresh cookie's name (row C04).
    fn refresh_cookies(&self) -> Vec<&'a [u8]> {
        let fields = self.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        fields.flat_map(|field| values(self.config.finder(Jar::Refresh), field)).collect()
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
        let values = self.refresh_cookies().into_iter().filter_map(|value| str::from_utf8(value).ok());
        let values: Vec<&str> = values.collect();
        (!values.is_empty()).then_some((values, TransferMethod::Cookie))
    }

    /// Whether the request carries a token by this method, valid or not: what to clear when a session
    /// goes on by the other.
    pub(crate) fn carries(&self, method: TransferMethod) -> bool {
        match method {
            TransferMethod::Cookie => self.access_cookie || !self.refresh_cookies().is_empty(),
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
        self.count += 1 + semicolons(field);
        if self.count > MOST_COOKIES {
            return Err(TooLarge);
        }
        for value in values(config.finder(jar), field) {
            self.differ |= self.first.is_some_and(|other| other != value);
            self.first = Some(value);
        }
        Ok(())
    }
}

/// In pieces that a byte can count, which compilers turn into a few wide instructions.
fn semicolons(field: &[u8]) -> usize {
    let count = |piece: &[u8]| piece.iter().map(|byte| u8::from(*byte == b';')).sum::<u8>();
    field.chunks(255).map(|piece| usize::from(count(piece))).sum()
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

/// What an answer does to the client's tokens.
#[derive(Debug)]
#[must_use]
pub(crate) enum TokenChange {
    /// New tokens.
    Set(Tokens),
    /// None any more, by one method or by both.
    Clear(Option<TransferMethod>),
}

/// New tokens for a client.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) method: TransferMethod,
    pub(crate) access: Secret<String>,
    /// Always with a new access token, never alone: the SDKs set their clock by it.
    pub(crate) front: Secret<String>,
    /// The refresh token and its end.
    pub(crate) refresh: Option<(Secret<String>, Timestamp)>,
    /// Only in cookie mode, where the mode asks for it.
    pub(crate) anti_csrf: Option<Secret<String>>,
    /// Whether to clear the other method, which the request used before.
    pub(crate) clear_other: bool,
    /// Whether to expire the cookies on the older domain, which got in the way (row C04).
    pub(crate) expire_older: bool,
}

impl TokenChange {
    /// Writes it into an answer's headers. A later change replaces what an earlier one wrote.
    ///
    /// # Errors
    /// If a value can't stand in a header, which configuration checks and token formats rule out (row C07).
    pub(crate) fn write(
        &self,
        headers: &mut HeaderMap,
        config: &CookieConfig,
        now: Timestamp,
    ) -> Result<(), Error> {
        match self {
            Self::Set(tokens) => tokens.write(headers, config, now)?,
            Self::Clear(method) => {
                if *method != Some(TransferMethod::Header) {
                    clear_cookies(headers, config)?;
                }
                if *method != Some(TransferMethod::Cookie) {
                    clear_headers(headers);
                }
                headers.remove(ANTI_CSRF);
                headers.insert(FRONT, HeaderValue::from_static("remove"));
            }
        }
        expose(headers);
        no_store(headers);
        Ok(())
    }
}

impl Tokens {
    fn write(&self, headers: &mut HeaderMap, config: &CookieConfig, now: Timestamp) -> Result<(), Error> {
        let access = self.access.expose();
        match self.method {
            TransferMethod::Cookie => {
                if self.clear_other {
                    clear_headers(headers);
                }
                put_cookie(headers, config.set(Jar::Access, access, now, now))?;
                if let Some((refresh, end)) = &self.refresh {
                    put_cookie(headers, config.set(Jar::Refresh, refresh.expose(), *end, now))?;
                }
                if config.expose_access_token {
                    headers.insert(ST_ACCESS, sensitive(access)?);
                }
                if let Some(token) = &self.anti_csrf {
                    headers.insert(ANTI_CSRF, sensitive(token.expose())?);
                }
            }
            TransferMethod::Header => {
                if self.clear_other {
                    clear_cookies(headers, config)?;
                }
                headers.insert(ST_ACCESS, sensitive(access)?);
                if let Some((refresh, _)) = &self.refresh {
                    headers.insert(ST_REFRESH, sensitive(refresh.expose())?);
                }
            }
        }
        if self.expire_older {
            for cookie in [Jar::Access, Jar::Refresh].into_iter().filter_map(|jar| config.clear_older(jar)) {
                put_cookie(headers, cookie)?;
            }
        }
        headers.insert(FRONT, sensitive(self.front.expose())?);
        Ok(())
    }
}

/// Takes away cookies by our names that the app's handler set, and says how many there were: to be
/// called before anything of ours is written (row C12).
pub(crate) fn strip_foreign(headers: &mut HeaderMap, config: &CookieConfig) -> usize {
    let ours = [config.name(Jar::Access).as_bytes(), config.name(Jar::Refresh).as_bytes()];
    retain_cookies(headers, |name, _| !ours.contains(&name))
}

/// Marks an answer as not to be stored (row C11): for all that carry tokens, and all of an auth endpoint.
pub(crate) fn no_store(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    vary(headers);
}

/// A protected answer is nobody else's and nobody keeps it (row C11), unless the handler is stricter still.
pub(crate) fn private(headers: &mut HeaderMap) {
    let strict = headers
        .get(CACHE_CONTROL)
        .is_some_and(|value| value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("no-store")));
    if !strict {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    }
    vary(headers);
}

/// The same for an answer in which the handler said nothing about cookies or caching: most of them. One look
/// at its few names is cheaper than a search for each of ours. Says whether it was such an answer.
#[inline]
pub(crate) fn private_if_plain(headers: &mut HeaderMap) -> bool {
    let ours = |name: &HeaderName| *name == SET_COOKIE || *name == CACHE_CONTROL || *name == VARY;
    let plain = !headers.keys().any(ours);
    if plain {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        headers.insert(VARY, VARIES);
    }
    plain
}

/// Says that the answer depends on the credentials.
pub(crate) fn vary(headers: &mut HeaderMap) {
    if !headers.get_all(VARY).iter().any(|value| *value == VARIES) {
        headers.append(VARY, VARIES);
    }
}

fn expose(headers: &mut HeaderMap) {
    if !headers.get_all(ACCESS_CONTROL_EXPOSE_HEADERS).iter().any(|value| *value == EXPOSED) {
        headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}

fn clear_cookies(headers: &mut HeaderMap, config: &CookieConfig) -> Result<(), Error> {
    put_cookie(headers, config.clear(Jar::Access))?;
    put_cookie(headers, config.clear(Jar::Refresh))
}

fn clear_headers(headers: &mut HeaderMap) {
    headers.insert(ST_ACCESS, HeaderValue::from_static(""));
    headers.insert(ST_REFRESH, HeaderValue::from_static(""));
}

/// Appends a cookie in place of an earlier one of the same name and domain: paths don't vary.
fn put_cookie(headers: &mut HeaderMap, cookie: String) -> Result<(), Error> {
    let value = sensitive(&cookie)?;
    let (name, domain) = identity(value.as_bytes());
    retain_cookies(headers, |other, other_domain| other != name || other_domain != domain);
    headers.append(SET_COOKIE, value);
    Ok(())
}

/// Keeps the `Set-Cookie` fields whose name and domain pass; says how many did not.
fn retain_cookies(headers: &mut HeaderMap, keep: impl Fn(&[u8], Option<&[u8]>) -> bool) -> usize {
    if !headers.contains_key(SET_COOKIE) {
        return 0;
    }
    let all: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    let kept: Vec<HeaderValue> = all
        .iter()
        .filter(|value| {
            let (name, domain) = identity(value.as_bytes());
            keep(name, domain)
        })
        .cloned()
        .collect();
    let gone = all.len() - kept.len();
    if gone > 0 {
        headers.remove(SET_COOKIE);
        for value in kept {
            headers.append(SET_COOKIE, value);
        }
    }
    gone
}

/// Under which name a browser will send a cookie back, and its domain.
fn identity(set_cookie: &[u8]) -> (&[u8], Option<&[u8]>) {
    let (pair, attributes) = cut(set_cookie, b';');
    // A nameless cookie comes back as its bare value, so `=a=b` is `a`.
    let mut pair = trim(pair);
    while let [b'=', rest @ ..] = pair {
        pair = trim(rest);
    }
    let (name, _) = cut(pair, b'=');
    let domain = attributes.and_then(|attributes| {
        pairs(attributes).find(|(name, _)| name.eq_ignore_ascii_case(b"domain")).map(|(_, domain)| domain)
    });
    (trim(name), domain)
}

/// A value that HTTP stacks don't print and don't index (row G01).
fn sensitive(text: &str) -> Result<HeaderValue, Error> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| Error::internal("a token can't stand in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
