//! The session cookies: names, attributes, and what a configuration may say about them.

use std::{fmt, sync::LazyLock};

use cookie::{
    Cookie,
    time::{Duration as Span, OffsetDateTime},
};
use memchr::{memchr, memmem::Finder};

use super::{
    csrf::AntiCsrf,
    origin::{self, Origin},
};
use crate::base::time::Timestamp;

/// How tokens travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferMethod {
    /// In cookies that scripts can't read.
    Cookie,
    /// In headers; the client keeps the tokens.
    Header,
}

impl TransferMethod {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Cookie => Self::Header,
            Self::Header => Self::Cookie,
        }
    }
}

/// Which ways of transfer a server takes part in (row C15).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferMethods {
    /// Both; the client chooses when a session is made, and names no choice for headers.
    #[default]
    Any,
    /// Cookies only: tokens in `Authorization` are ignored.
    Cookie,
    /// Headers only: cookies are ignored.
    Header,
}

impl TransferMethods {
    pub(crate) fn allow(self, method: TransferMethod) -> bool {
        match self {
            Self::Any => true,
            Self::Cookie => method == TransferMethod::Cookie,
            Self::Header => method == TransferMethod::Header,
        }
    }

    /// The method of a new session, given what the client asked for (wire, section 2.5).
    pub(crate) fn choose(self, asked: Option<TransferMethod>) -> TransferMethod {
        match self {
            Self::Any => asked.unwrap_or(TransferMethod::Header),
            Self::Cookie => TransferMethod::Cookie,
            Self::Header => TransferMethod::Header,
        }
    }
}

/// The cookies' `SameSite` attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SameSite {
    /// Sent on same-site requests and on navigations to the site.
    Lax,
    /// Sent on same-site requests only.
    Strict,
    /// Sent always: needs `Secure` and an anti-CSRF mode.
    None,
}

impl SameSite {
    /// What the API's and the website's origins call for: `None` if they are two sites, else `Lax`.
    pub(crate) fn between(api: &Origin, website: &Origin) -> Self {
        if api.same_site(website) { Self::Lax } else { Self::None }
    }
}

/// How the session cookies are made. Set and cleared from the same values, so that a removal hits
/// exactly what was set (row C09).
#[derive(Clone, Debug)]
pub(crate) struct CookieConfig {
    /// `Path` of the access token.
    pub(crate) access_path: String,
    /// `Path` of the refresh token: the mounted refresh route, exactly.
    pub(crate) refresh_path: String,
    /// `Domain`, in the form of [`normal_domain`]; none for host-only cookies.
    pub(crate) domain: Option<String>,
    /// The `Domain` of cookies set in former times, expired where they get in the way; empty for host-only ones.
    pub(crate) older_domain: Option<String>,
    pub(crate) secure: bool,
    pub(crate) same_site: SameSite,
    /// Names start with `__Host-`, paths are `/` (row C02).
    pub(crate) host_prefix: bool,
    /// In cookie mode the access token is sent in a header as well (row C14).
    pub(crate) expose_access_token: bool,
    pub(crate) methods: TransferMethods,
}

/// In the order of [`Jar`].
const NAMES: [&str; 2] = ["sAccessToken", "sRefreshToken"];
const HOST_NAMES: [&str; 2] = ["__Host-sAccessToken", "__Host-sRefreshToken"];

/// What finds them in a field.
static FINDERS: LazyLock<[Finder<'static>; 2]> = LazyLock::new(|| NAMES.map(Finder::new));
static HOST_FINDERS: LazyLock<[Finder<'static>; 2]> = LazyLock::new(|| HOST_NAMES.map(Finder::new));

/// Which of the two cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Jar {
    Access,
    Refresh,
}

impl Jar {
    /// This one's of two things.
    fn of<T>(self, [access, refresh]: &[T; 2]) -> &T {
        match self {
            Self::Access => access,
            Self::Refresh => refresh,
        }
    }
}

/// A year: the token's own expiry rules, an expired one still says that a refresh may help.
const ACCESS_DAYS: i64 = 365;
/// What browsers cut to (row C13).
const LONGEST_DAYS: i64 = 400;

impl CookieConfig {
    /// The defaults for these origins and this refresh route.
    pub(crate) fn new(api: &Origin, website: &Origin, refresh_path: impl Into<String>) -> Self {
        Self {
            access_path: "/".to_owned(),
            refresh_path: refresh_path.into(),
            domain: None,
            older_domain: None,
            secure: api.is_https(),
            same_site: SameSite::between(api, website),
            host_prefix: false,
            expose_access_token: false,
            methods: TransferMethods::default(),
        }
    }

    pub(crate) fn name(&self, jar: Jar) -> &'static str {
        jar.of::<&str>(if self.host_prefix { &HOST_NAMES } else { &NAMES })
    }

    pub(crate) fn finder(&self, jar: Jar) -> &'static Finder<'static> {
        jar.of(if self.host_prefix { &HOST_FINDERS } else { &FINDERS })
    }

    /// The `Path` in force.
    pub(crate) fn path(&self, jar: Jar) -> &str {
        match jar {
            _ if self.host_prefix => "/",
            Jar::Access => &self.access_path,
            Jar::Refresh => &self.refresh_path,
        }
    }

    /// The longest name under which a browser will keep an access token: of the cookie, and of the one
    /// that the SDKs write by script in header mode (row C06).
    pub(crate) fn access_name_len(&self) -> usize {
        self.name(Jar::Access).len().max("st-access-token".len())
    }

    /// A `Set-Cookie` value. `expires_at` is for the refresh token; the access cookie lives a year.
    pub(crate) fn set(&self, jar: Jar, value: &str, expires_at: Timestamp, now: Timestamp) -> String {
        let day = 86_400;
        let now = now.as_secs();
        let wanted = match jar {
            Jar::Access => now.saturating_add(ACCESS_DAYS * day),
            Jar::Refresh => expires_at.as_secs(),
        };
        let latest = now.saturating_add(LONGEST_DAYS * day);
        self.build(jar, value, self.domain.as_deref(), wanted.min(latest).max(0), None)
    }

    /// A `Set-Cookie` value that removes what [`CookieConfig::set`] set.
    pub(crate) fn clear(&self, jar: Jar) -> String {
        self.build(jar, "", self.domain.as_deref(), 0, Some(0))
    }

    /// The same for the older domain, if there is one.
    pub(crate) fn clear_older(&self, jar: Jar) -> Option<String> {
        let domain = self.older_domain.as_deref()?;
        Some(self.build(jar, "", Some(domain).filter(|domain| !domain.is_empty()), 0, Some(0)))
    }

    fn build(
        &self,
        jar: Jar,
        value: &str,
        domain: Option<&str>,
        expires: i64,
        max_age: Option<i64>,
    ) -> String {
        let mut cookie = Cookie::new(self.name(jar), value);
        cookie.set_http_only(true);
        cookie.set_secure(self.secure);
        cookie.set_same_site(match self.same_site {
            SameSite::Lax => cookie::SameSite::Lax,
            SameSite::Strict => cookie::SameSite::Strict,
            SameSite::None => cookie::SameSite::None,
        });
        cookie.set_path(self.path(jar));
        match domain {
            // The builder takes one leading dot away, and the wire keeps it.
            Some(domain) if domain.starts_with('.') => cookie.set_domain(format!(".{domain}")),
            Some(domain) => cookie.set_domain(domain),
            None => {}
        }
        if let Some(seconds) = max_age {
            cookie.set_max_age(Span::seconds(seconds));
        }
        // Beyond the year 9999 there is no such date: a session cookie is the nearest thing.
        if let Ok(at) = OffsetDateTime::from_unix_timestamp(expires) {
            cookie.set_expires(at);
        }
        cookie.to_string()
    }

    /// What contradicts itself or would leave sessions open: one sentence each (rows C01, C02, C05, C07, C08).
    pub(crate) fn check(&self, mode: AntiCsrf, api: &Origin, websites: &[Origin]) -> Vec<String> {
        let mut problems = Vec::new();
        let mut say = |bad: bool, problem: &dyn fmt::Display| {
            if bad {
                problems.push(problem.to_string());
            }
        };
        let local = api.is_loopback() && websites.iter().all(Origin::is_loopback);
        say(!self.secure && !local, &"session cookies may lack `Secure` only while every origin is loopback");
        say(
            self.same_site == SameSite::None && !self.secure,
            &"`SameSite=None` needs `Secure`: serve the API by https, or put both sides on one site",
        );
        say(
            self.same_site == SameSite::None && mode == AntiCsrf::None,
            &"`SameSite=None` needs an anti-CSRF mode",
        );
        say(
            self.host_prefix && self.domain.is_some(),
            &"a cookie domain and the `__Host-` prefix exclude each other",
        );
        say(self.host_prefix && !self.secure, &"the `__Host-` prefix needs `Secure`");
        for path in [&self.access_path, &self.refresh_path] {
            let plain =
                path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b';' && b != b',');
            say(!plain, &"a cookie path starts with `/` and has no space, `;`, `,` or control character");
        }
        say(
            self.refresh_path.len() > 1 && self.refresh_path.ends_with('/'),
            &"the refresh cookie's path is the refresh route, without a `/` at its end",
        );
        for (domain, current) in [(self.domain.as_deref(), true), (self.older_domain.as_deref(), false)] {
            let Some(domain) = domain.filter(|domain| current || !domain.is_empty()) else { continue };
            let bare = domain.strip_prefix('.').unwrap_or(domain);
            let named = !bare.is_empty()
                && bare.split('.').all(|label| !label.is_empty())
                && bare
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
            say(!named, &"a cookie domain is a lower-case host name, without scheme, port or path");
            say(origin::is_address(bare), &"a cookie domain can't be an IP address");
            say(named && psl::suffix_str(bare) == Some(bare), &"a cookie domain can't be a public suffix");
            let covers =
                api.host() == bare || api.host().strip_suffix(bare).is_some_and(|front| front.ends_with('.'));
            say(named && current && !covers, &"the cookie domain doesn't cover the API's host");
        }
        let dotless = |domain: &Option<String>| {
            domain.as_deref().map(|domain| domain.strip_prefix('.').unwrap_or(domain).to_owned())
        };
        let same = match (dotless(&self.domain), dotless(&self.older_domain)) {
            (Some(domain), Some(older)) => domain == older,
            (None, Some(older)) => older.is_empty(),
            (_, None) => false,
        };
        say(same, &"the older cookie domain is the current one");
        problems
    }
}

/// A cookie domain as people write it, in the one form that is used: lower case, without scheme, port
/// and path; a leading dot stays.
pub(crate) fn normal_domain(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    let host = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
    let host = host.split(['/', '?', '#']).next().unwrap_or_default();
    match host.rsplit_once(':') {
        Some((front, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            front.to_owned()
        }
        _ => host.to_owned(),
    }
}

/// Names and values as bytes, without the spaces and tabs around them (RFC 6265, section 5.2; row C03).
pub(crate) fn pairs(field: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = Some(field);
    std::iter::from_fn(move || {
        let list = rest?;
        let (pair, tail) = cut(list, b';');
        rest = tail;
        Some(pair)
    })
    .filter_map(|pair| match cut(pair, b'=') {
        (name, Some(value)) => Some((trim(name), trim(value))),
        (_, None) => None,
    })
}

/// The values that a `Cookie` field has under one name.
pub(crate) fn by_name<'a>(name: &Finder<'_>, field: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut from = 0;
    std::iter::from_fn(move || next_by_name(name, field, &mut from))
}

/// The first of them from there on, and where to go on: names compare as bytes, without the blanks around them
/// (row C03). The search is for the name, so that other cookies cost little, however many they are.
#[inline(always)]
pub(crate) fn next_by_name<'a>(name: &Finder<'_>, field: &'a [u8], from: &mut usize) -> Option<&'a [u8]> {
    loop {
        let at = *from + name.find(field.get(*from..)?)?;
        let (before, found) = field.split_at_checked(at)?;
        let after = found.get(name.needle().len()..)?;
        *from = field.len() - after.len();
        // Only at a pair's beginning, and in front of its sign of equality, is it a name.
        if let None | Some(b';') = trim_end(before).last()
            && let Some(value) = after.strip_prefix(b"=").or_else(|| trim_start(after).strip_prefix(b"="))
        {
            let (value, tail) = cut(value, b';');
            *from = tail.map_or(field.len(), |tail| field.len() - tail.len());
            return Some(trim(value));
        }
    }
}

/// What comes before the first such byte, and what comes after it, if there is one.
pub(crate) fn cut(bytes: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match memchr(at, bytes).and_then(|at| bytes.split_at_checked(at)) {
        Some((head, [_, tail @ ..])) => (head, Some(tail)),
        _ => (bytes, None),
    }
}

/// Without the spaces and tabs in front; no other byte is blank (row C03).
fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// Without the spaces and tabs at the end.
fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Without the spaces and tabs at both ends; no other byte is blank (row C03).
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    trim_end(trim_start(bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn config() -> CookieConfig {
        CookieConfig::new(
            &origin("https://api.shop.test"),
            &origin("https://shop.test"),
            "/auth/session/refresh",
        )
    }

    fn origin(text: &str) -> Origin {
        Origin::parse(text).unwrap()
    }

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    #[test]
    fn sec_c01_attributes() {
        let config = config();
        assert_eq!(
            config.set(Jar::Access, "v", NOW, NOW),
            "sAccessToken=v; HttpOnly; SameSite=Lax; Secure; Path=/; Expires=Wed, 13 Nov 2024 22:13:20 GMT"
        );
        assert_eq!(
            config.set(Jar::Refresh, "v", Timestamp::from_secs(1_700_086_400), NOW),
            "sRefreshToken=v; HttpOnly; SameSite=Lax; Secure; Path=/auth/session/refresh; \
             Expires=Wed, 15 Nov 2023 22:13:20 GMT"
        );
        let dotted = CookieConfig { domain: Some(".shop.test".into()), same_site: SameSite::None, ..config };
        assert_eq!(
            dotted.set(Jar::Access, "v", NOW, NOW),
            "sAccessToken=v; HttpOnly; SameSite=None; Secure; Path=/; Domain=.shop.test; \
             Expires=Wed, 13 Nov 2024 22:13:20 GMT"
        );
        let plain = CookieConfig { secure: false, same_site: SameSite::Strict, ..dotted };
        assert!(!plain.set(Jar::Access, "v", NOW, NOW).contains("Secure"));
    }

    #[test]
    fn sec_c02_host_prefix() {
        let config = CookieConfig { host_prefix: true, access_path: "/api".into(), ..config() };
        for jar in [Jar::Access, Jar::Refresh] {
            let set = config.set(jar, "v", NOW, NOW);
            assert!(set.starts_with("__Host-s") && set.contains("; Secure; Path=/; Expires="), "{set}");
        }
        let api = origin("https://api.shop.test");
        assert_eq!(config.check(AntiCsrf::None, &api, &[]), [""; 0]);
        for broken in [
            CookieConfig { domain: Some("shop.test".into()), ..config.clone() },
            CookieConfig { secure: false, ..config.clone() },
        ] {
            assert!(!broken.check(AntiCsrf::CustomHeader, &api, &[]).is_empty());
        }
    }

    #[test]
    fn sec_c05_c07_domains_and_paths() {
        let api = origin("https://api.shop.co.uk");
        let with = |domain: &str| CookieConfig { domain: Some(domain.to_owned()), ..config() };
        for good in ["shop.co.uk", ".shop.co.uk", "api.shop.co.uk"] {
            assert_eq!(with(good).check(AntiCsrf::CustomHeader, &api, &[]), [""; 0], "{good}");
        }
        for bad in [
            "co.uk",
            ".co.uk",
            "uk",
            "localhost",
            "10.0.0.1",
            "",
            ".",
            "..shop.co.uk",
            "shop.co.uk;x",
            "shop.co.uk\r\n",
            "Shop.co.uk",
            "https://shop.co.uk",
            "shop.co.uk:443",
            "other.co.uk",
            "hop.co.uk",
            "xapi.shop.co.uk",
        ] {
            assert!(!with(bad).check(AntiCsrf::CustomHeader, &api, &[]).is_empty(), "{bad:?}");
        }
        let github = origin("https://a.github.io");
        assert!(!with("github.io").check(AntiCsrf::CustomHeader, &github, &[]).is_empty());
        for bad in ["", "auth", "/a;b", "/a b", "/a\r\nb", "/a\0", "/a,b", "/ä", "/auth/session/refresh/"] {
            let broken = CookieConfig { refresh_path: bad.to_owned(), ..config() };
            assert!(!broken.check(AntiCsrf::CustomHeader, &api, &[]).is_empty(), "{bad:?}");
        }
        for (older, fine) in [("", false), ("shop.co.uk", true), ("co.uk", false)] {
            let config = CookieConfig { older_domain: Some(older.to_owned()), ..config() };
            assert_eq!(config.check(AntiCsrf::CustomHeader, &api, &[]).is_empty(), fine, "{older}");
        }
        let moved = CookieConfig { older_domain: Some(String::new()), ..with("shop.co.uk") };
        assert_eq!(moved.check(AntiCsrf::CustomHeader, &api, &[]), [""; 0]);
    }

    #[test]
    fn sec_c08_same_site_none_needs_secure_and_a_csrf_mode() {
        let (api, website) = (origin("https://api.shop.test"), origin("https://else.test"));
        let config = CookieConfig::new(&api, &website, "/auth/session/refresh");
        assert_eq!(config.same_site, SameSite::None);
        assert!(config.check(AntiCsrf::CustomHeader, &api, std::slice::from_ref(&website)).is_empty());
        assert_eq!(config.check(AntiCsrf::None, &api, std::slice::from_ref(&website)).len(), 1);
        let bare = CookieConfig { secure: false, ..config };
        assert_eq!(bare.check(AntiCsrf::Token, &api, &[website]).len(), 2);
    }

    #[test]
    fn sec_c01_secure_is_off_on_loopback_only() {
        let local = origin("http://localhost:3001");
        let config = CookieConfig::new(&local, &origin("http://localhost:3000"), "/auth/session/refresh");
        assert!(!config.secure);
        assert_eq!(config.check(AntiCsrf::CustomHeader, &local, &[origin("http://localhost:3000")]), [""; 0]);
        assert!(!config.check(AntiCsrf::CustomHeader, &local, &[origin("http://shop.test")]).is_empty());
        let open = origin("http://shop.test");
        assert!(!CookieConfig::new(&open, &open, "/r").check(AntiCsrf::CustomHeader, &open, &[]).is_empty());
    }

    #[test]
    fn sec_c09_clearing_differs_in_value_and_time_only() {
        let all = [
            config(),
            CookieConfig { host_prefix: true, ..config() },
            CookieConfig { domain: Some(".shop.test".into()), same_site: SameSite::None, ..config() },
        ];
        for config in all {
            for jar in [Jar::Access, Jar::Refresh] {
                let set = config.set(jar, "", NOW, NOW);
                let (same, _) = set.split_once("; Expires=").unwrap();
                let removal = format!("{same}; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT");
                assert_eq!(config.clear(jar), removal);
            }
        }
        let moved =
            CookieConfig { older_domain: Some(String::new()), domain: Some("shop.test".into()), ..config() };
        assert!(!moved.clear_older(Jar::Refresh).unwrap().contains("Domain"));
        assert_eq!(config().clear_older(Jar::Access), None);
    }

    #[test]
    fn sec_c13_expiry_is_clamped() {
        let config = config();
        for now in [i64::MIN, -1, 0, 1_700_000_000_000, 253_402_300_800_000, i64::MAX] {
            for end in [i64::MIN, 0, 1_700_000_000_000, i64::MAX] {
                let (now, end) = (Timestamp::from_millis(now), Timestamp::from_millis(end));
                config.set(Jar::Refresh, "v", end, now);
                config.set(Jar::Access, "v", end, now);
            }
        }
        let far = config.set(Jar::Refresh, "v", Timestamp::MAX, NOW);
        assert!(far.ends_with("Expires=Wed, 18 Dec 2024 22:13:20 GMT"), "{far}");
        let past = config.set(Jar::Refresh, "v", Timestamp::from_millis(-5_000_000), NOW);
        assert!(past.ends_with("Expires=Thu, 01 Jan 1970 00:00:00 GMT"), "{past}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the clock and the end: a date that browsers read, within 400 days, and no earlier than 1970.
        #[test]
        fn sec_c13_any_time_gives_a_date_within_400_days(
            now in prop_oneof![any::<i64>(), -5_000_000..300_000_000_000_000_i64],
            ahead in prop_oneof![any::<i64>(), -100_000_000..50_000_000_000_i64],
        ) {
            let end = Timestamp::from_millis(now.saturating_add(ahead));
            let now = Timestamp::from_millis(now);
            for jar in [Jar::Access, Jar::Refresh] {
                let text = config().set(jar, "v", end, now);
                let cookie = Cookie::parse(text.clone()).unwrap();
                prop_assert_eq!((cookie.name(), cookie.value()), (config().name(jar), "v"));
                prop_assert!(cookie.http_only() == Some(true) && cookie.secure() == Some(true), "{}", text);
                let latest = now.as_secs().saturating_add(400 * 86_400).max(0);
                match cookie.expires_datetime() {
                    Some(at) => {
                        prop_assert!((0..=latest).contains(&at.unix_timestamp()), "{}", text);
                        prop_assert!(at.year() <= 9999);
                    }
                    // Later than any date: gone with the browser's session.
                    None => prop_assert!(latest > 253_402_300_799 || jar == Jar::Access, "{}", text),
                }
                let wanted = end.as_secs();
                if jar == Jar::Refresh && (0..=latest.min(253_402_300_799)).contains(&wanted) {
                    prop_assert_eq!(cookie.expires_datetime().map(OffsetDateTime::unix_timestamp), Some(wanted));
                }
            }
        }
    }

    #[test]
    fn sec_c15_the_server_decides_the_method() {
        use TransferMethod::{Cookie, Header};
        for (methods, asked, chosen) in [
            (TransferMethods::Any, None, Header),
            (TransferMethods::Any, Some(Cookie), Cookie),
            (TransferMethods::Any, Some(Header), Header),
            (TransferMethods::Cookie, Some(Header), Cookie),
            (TransferMethods::Cookie, None, Cookie),
            (TransferMethods::Header, Some(Cookie), Header),
        ] {
            assert_eq!(methods.choose(asked), chosen, "{methods:?} {asked:?}");
        }
    }

    #[test]
    fn domains_are_written_in_many_ways() {
        for (text, domain) in [
            ("Shop.test", "shop.test"),
            (".shop.test", ".shop.test"),
            ("https://Shop.test:443/x", "shop.test"),
            (" shop.test ", "shop.test"),
            ("", ""),
        ] {
            assert_eq!(normal_domain(text), domain);
        }
    }
}
