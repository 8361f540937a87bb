//! Answers: tokens into cookies and headers, and what caches may keep.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, Entry, SET_COOKIE, VARY},
};

use super::{
    super::{
        cookies::{CookieConfig, Jar, TransferMethod, cut, pairs, trim},
        token::Minted,
    },
    ANTI_CSRF,
};
use crate::base::{error::Error, secret::Secret, time::Timestamp};

pub(crate) const ST_ACCESS: HeaderName = HeaderName::from_static("st-access-token");
pub(crate) const ST_REFRESH: HeaderName = HeaderName::from_static("st-refresh-token");
pub(crate) const FRONT: HeaderName = HeaderName::from_static("front-token");
pub(super) const EXPOSED: HeaderValue =
    HeaderValue::from_static("front-token, anti-csrf, st-access-token, st-refresh-token");
const VARIES: HeaderValue = HeaderValue::from_static("Cookie, Authorization");

/// What an answer does to the client's tokens.
#[derive(Debug)]
#[must_use]
pub(crate) enum TokenChange {
    /// New tokens.
    Set(Tokens),
    /// None any more, by one method or by both.
    Clear(Option<TransferMethod>),
    /// None any more, on the older domain neither: several cookies by one name came (row C04).
    ClearEverywhere,
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

impl From<Tokens> for TokenChange {
    fn from(tokens: Tokens) -> Self {
        Self::Set(tokens)
    }
}

impl TokenChange {
    /// This change, after an earlier one that was not sent: the refresh token that came with that one, and what it
    /// has to clear, still have to reach the client.
    pub(crate) fn after(mut self, earlier: Self) -> Self {
        if let (Self::Set(tokens), Self::Set(earlier)) = (&mut self, earlier)
            && tokens.refresh.is_none()
            && tokens.method == earlier.method
        {
            tokens.refresh = earlier.refresh;
            tokens.anti_csrf = earlier.anti_csrf;
            tokens.clear_other |= earlier.clear_other;
            tokens.expire_older |= earlier.expire_older;
        }
        self
    }

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
            Self::ClearEverywhere => {
                clear_older(headers, config)?;
                return Self::Clear(None).write(headers, config, now);
            }
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
    /// An access token and its hint, and nothing else.
    pub(crate) fn of_access(minted: Minted, method: TransferMethod) -> Self {
        Self {
            method,
            access: minted.token,
            front: Secret::new(minted.front),
            refresh: None,
            anti_csrf: None,
            clear_other: false,
            expire_older: false,
        }
    }

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
            clear_older(headers, config)?;
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

/// The same for an answer that has no fields of the kind yet, which needn't be looked for.
pub(crate) fn no_store_yet(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, VARIES);
}

/// A protected answer is nobody else's and nobody keeps it (row C11), unless the handler is stricter still.
/// What isn't stored needn't say what it varies with (RFC 9111, section 4.1).
pub(crate) fn private(headers: &mut HeaderMap) {
    let strict = headers
        .get(CACHE_CONTROL)
        .is_some_and(|value| value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("no-store")));
    if !strict {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    }
}

/// The same for an answer in which the handler said nothing about cookies or caching: most of them. One look
/// at its few names is cheaper than a search for each of ours. Says whether it was such an answer.
#[inline]
pub(crate) fn private_if_plain(headers: &mut HeaderMap) -> bool {
    let ours = |name: &HeaderName| *name == SET_COOKIE || *name == CACHE_CONTROL;
    let plain = !headers.keys().any(ours);
    if plain {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    }
    plain
}

/// Says that the answer depends on the credentials.
pub(crate) fn vary(headers: &mut HeaderMap) {
    match headers.entry(VARY) {
        Entry::Vacant(field) => {
            field.insert(VARIES);
        }
        Entry::Occupied(mut fields) => {
            if !fields.iter().any(|value| *value == VARIES) {
                fields.append(VARIES);
            }
        }
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

/// Those of the older domain, if there is one.
fn clear_older(headers: &mut HeaderMap, config: &CookieConfig) -> Result<(), Error> {
    let cookies = [Jar::Access, Jar::Refresh].into_iter().filter_map(|jar| config.clear_older(jar));
    cookies.into_iter().try_for_each(|cookie| put_cookie(headers, cookie))
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
