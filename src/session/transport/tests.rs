use proptest::prelude::*;

use super::*;
use crate::{
    base::{secret::Secret, time::Timestamp},
    session::cookies::{TransferMethods, tests::config},
};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
/// Looks like a token of ours.
const OURS: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsInZlcnNpb24iOiI1Iiwia2lkIjoiZC0xIn0.e30.AA";
const OTHER: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsInZlcnNpb24iOiI1Iiwia2lkIjoiZC0xIn0.e30.BB";
/// A token of the app's own.
const FOREIGN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.AA";

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn with<T>(fields: &[(&'static str, &str)], read: impl FnOnce(Presented<'_>) -> T) -> T {
    read(Presented::read(&headers(fields), &config()).unwrap())
}

/// What decides: `header`, `cookie`, `absent`, `duplicate`, `ambiguous`.
fn decides(access: Access<'_>) -> &'static str {
    match access {
        Access::Absent => "absent",
        Access::Token { method: TransferMethod::Header, .. } => "header",
        Access::Token { method: TransferMethod::Cookie, .. } => "cookie",
        Access::Duplicate => "duplicate",
        Access::Ambiguous => "ambiguous",
    }
}

#[test]
fn sec_j23_a_header_token_of_ours_decides_alone() {
    let bearer = |token: &str| format!("Bearer {token}");
    let cookie = |token: &str| format!("sAccessToken={token}");
    for (header, jar, any, only_cookie, only_header) in [
        (None, None, "absent", "absent", "absent"),
        (None, Some(OURS), "cookie", "cookie", "absent"),
        (None, Some("garbage"), "absent", "absent", "absent"),
        (Some(OURS), None, "header", "absent", "header"),
        (Some(OURS), Some(OTHER), "header", "cookie", "header"),
        (Some(OURS), Some("garbage"), "header", "absent", "header"),
        (Some(FOREIGN), None, "absent", "absent", "absent"),
        (Some(FOREIGN), Some(OURS), "cookie", "cookie", "absent"),
        (Some("garbage"), Some(OURS), "cookie", "cookie", "absent"),
    ] {
        let mut map = HeaderMap::new();
        if let Some(token) = header {
            map.append("authorization", bearer(token).parse().unwrap());
        }
        if let Some(token) = jar {
            map.append("cookie", cookie(token).parse().unwrap());
        }
        for (methods, expected) in [
            (TransferMethods::Any, any),
            (TransferMethods::Cookie, only_cookie),
            (TransferMethods::Header, only_header),
        ] {
            let config = CookieConfig { methods, ..config() };
            let presented = Presented::read(&map, &config).unwrap();
            assert_eq!(decides(presented.access), expected, "{header:?} {jar:?} {methods:?}");
        }
    }
}

#[test]
fn sec_j24_authorization() {
    let shout = format!("BEARER {OURS}");
    for (value, bearer) in [
        (format!("Bearer {OURS}"), Some(OURS)),
        (format!("bearer {OURS}"), Some(OURS)),
        (shout, Some(OURS)),
        (format!("Bearer   {OURS} "), Some(OURS)),
        (format!("Bearer\t{OURS}"), None),
        (format!("Bearer{OURS}"), None),
        ("Bearer a%20b".to_owned(), Some("a%20b")),
        ("Bearer".to_owned(), None),
        ("Bearer ".to_owned(), None),
        ("Beare".to_owned(), None),
        (String::new(), None),
        (format!("Basic {OURS}"), None),
        (format!("Bearer ä{OURS}"), Some("")),
        (format!("Bearer {}", "x".repeat(64 * 1024)), Some("")),
    ] {
        with(&[("authorization", &value)], |presented| match bearer {
            Some("") => assert!(presented.bearer.is_some()),
            expected => assert_eq!(presented.bearer, expected.map(str::as_bytes), "{value}"),
        });
    }
    let bearer = format!("Bearer {OURS}");
    for second in [bearer.as_str(), "Basic x", ""] {
        let fields =
            [("authorization", bearer.as_str()), ("authorization", second), ("cookie", "sAccessToken=x")];
        with(&fields, |presented| assert_eq!(decides(presented.access), "ambiguous", "{second}"));
    }
    let mut map = HeaderMap::new();
    map.insert("authorization", HeaderValue::from_bytes(b"Bearer \xff\xfe").unwrap());
    let config = config();
    let presented = Presented::read(&map, &config).unwrap();
    assert!(decides(presented.access) == "absent" && presented.refresh().is_none());
}

#[test]
fn sec_j22_j25_nothing_else_is_a_token() {
    let fields = [
        ("x-access-token", OURS),
        ("st-access-token", OURS),
        ("front-token", "e30="),
        ("cookie", "sFrontToken=x"),
    ];
    with(&fields, |presented| {
        assert_eq!(decides(presented.access), "absent");
        assert!(presented.refresh().is_none() && !presented.carries(TransferMethod::Cookie));
    });
}

#[test]
fn sec_c03_names_are_bytes() {
    for (field, found) in [
        (format!("sAccessToken={OURS}"), true),
        (format!("a=b;sAccessToken={OURS};c=d"), true),
        (format!("a=b; \t sAccessToken \t= {OURS}\t"), true),
        (format!(";;=;a;sAccessToken={OURS};"), true),
        (format!("saccesstoken={OURS}"), false),
        (format!("s%41ccessToken={OURS}"), false),
        (format!("\u{a0}sAccessToken={OURS}"), false),
        (format!("\u{2000}sAccessToken={OURS}"), false),
        (format!("$Version=1,sAccessToken={OURS}"), false),
        (format!("$sAccessToken={OURS}"), false),
        (format!("sAccessToken=\"{OURS}\""), false),
        (format!("a=\"x;sAccessToken={OURS};\""), true),
        (format!("__Host-sAccessToken={OURS}"), false),
        (format!("sAccessTokenx={OURS}"), false),
        (format!("sAccessToken{OURS}"), false),
    ] {
        with(&[("cookie", &field)], |presented| {
            let expected = if found { "cookie" } else { "absent" };
            assert_eq!(decides(presented.access), expected, "{field}");
        });
    }
}

#[test]
fn sec_c02_with_the_prefix_plain_names_are_not_read() {
    let config = CookieConfig { host_prefix: true, ..config() };
    let plain = headers(&[("cookie", &format!("sAccessToken={OURS}; sRefreshToken=r"))]);
    let presented = Presented::read(&plain, &config).unwrap();
    assert!(decides(presented.access) == "absent" && presented.refresh().is_none());
    let both = headers(&[("cookie", &format!("sAccessToken={OTHER}; __Host-sAccessToken={OURS}"))]);
    assert_eq!(decides(Presented::read(&both, &config).unwrap().access), "cookie");
}

#[test]
fn sec_c04_duplicates() {
    for (fields, expected) in [
        (vec![format!("sAccessToken={OURS}; sAccessToken={OTHER}")], "duplicate"),
        (vec![format!("sAccessToken={OTHER}; sAccessToken={OURS}")], "duplicate"),
        (vec![format!("sAccessToken={OURS}"), format!("sAccessToken={OTHER}")], "duplicate"),
        (vec![format!("sAccessToken={OURS}; sAccessToken=")], "duplicate"),
        (vec![format!("sAccessToken={OURS}; sAccessToken={OTHER}; sAccessToken={OTHER}")], "duplicate"),
        (vec![format!("sAccessToken={OURS}; a=b; sAccessToken={OURS}")], "cookie"),
    ] {
        let fields: Vec<(&'static str, &str)> =
            fields.iter().map(|field| ("cookie", field.as_str())).collect();
        with(&fields, |presented| assert_eq!(decides(presented.access), expected, "{fields:?}"));
    }
    with(&[("cookie", "sRefreshToken=a; sRefreshToken=b"), ("cookie", "sRefreshToken=c")], |presented| {
        assert_eq!(presented.refresh(), Some((vec!["a", "b", "c"], TransferMethod::Cookie)));
    });
}

#[test]
fn sec_r19_the_header_wins_at_the_refresh_route() {
    let fields = [("authorization", "Bearer h"), ("cookie", "sRefreshToken=c")];
    with(&fields, |presented| {
        assert_eq!(presented.refresh(), Some((vec!["h"], TransferMethod::Header)));
        assert!(presented.carries(TransferMethod::Cookie));
    });
    for (methods, values) in [(TransferMethods::Cookie, "c"), (TransferMethods::Header, "h")] {
        let map = headers(&fields);
        let config = CookieConfig { methods, ..config() };
        assert_eq!(Presented::read(&map, &config).unwrap().refresh().unwrap().0, [values]);
    }
}

#[test]
fn sec_m17_cookies_are_bounded_over_all_fields() {
    let list = |n: usize| vec!["a=b"; n].join("; ");
    let read = |fields: &[String]| {
        let mut map = HeaderMap::new();
        for field in fields {
            map.append("cookie", field.parse().unwrap());
        }
        Presented::read(&map, &config()).map(|_| ())
    };
    assert_eq!(read(&[list(200)]), Ok(()));
    assert_eq!(read(&[list(201)]), Err(TooLarge));
    assert_eq!(read(&[list(100), list(101)]), Err(TooLarge));
    assert_eq!(read(&["a=".to_owned() + &"x".repeat(16 * 1024 - 4)]), Ok(()));
    assert_eq!(read(&["a=".to_owned() + &"x".repeat(16 * 1024 - 3)]), Err(TooLarge));
    assert_eq!(read(&["x".repeat(9000), "x".repeat(9000)]), Err(TooLarge));
}

#[test]
fn the_other_headers() {
    with(&[], |request| {
        let none = request.hints();
        assert!(!none.rid && !none.json && none.anti_csrf.is_none() && none.auth_mode.is_none());
        assert!(none.origin.is_none() && none.fetch_site.is_none());
    });
    let fields = [
        ("rid", ""),
        ("anti-csrf", "t"),
        ("st-auth-mode", "cookie"),
        ("origin", "https://a.test"),
        ("sec-fetch-site", "same-site"),
        ("content-type", "Application/JSON ; charset=utf-8"),
    ];
    with(&fields, |request| {
        let all = request.hints();
        assert!(all.rid && all.json);
        assert_eq!((all.anti_csrf, all.auth_mode), (Some("t"), Some(TransferMethod::Cookie)));
        assert_eq!((all.origin, all.fetch_site), (Some("https://a.test"), Some(FetchSite::SameSite)));
    });
    let odd = [
        ("st-auth-mode", "COOKIE"),
        ("origin", "https://a.test"),
        ("origin", "https://a.test"),
        ("sec-fetch-site", "nearby"),
        ("content-type", "application/jsonx"),
    ];
    with(&odd, |request| {
        let odd = request.hints();
        assert!(odd.auth_mode.is_none() && !odd.json);
        assert_eq!((odd.origin, odd.fetch_site), (Some("null"), Some(FetchSite::CrossSite)));
    });
}

fn tokens(method: TransferMethod) -> Tokens {
    Tokens {
        method,
        access: Secret::new("access".into()),
        front: Secret::new("front".into()),
        refresh: Some((Secret::new("refresh".into()), NOW + std::time::Duration::from_secs(86_400))),
        anti_csrf: Some(Secret::new("csrf".into())),
        clear_other: false,
        expire_older: false,
    }
}

fn written(change: TokenChange, config: &CookieConfig) -> Vec<(String, String)> {
    let mut map = HeaderMap::new();
    change.write(&mut map, config, NOW).unwrap();
    listed(&map)
}

/// Name and value of each field, without the four that every change writes.
fn listed(map: &HeaderMap) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = map
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .filter(|(name, _)| {
            !["cache-control", "vary", "access-control-expose-headers"].contains(&name.as_str())
        })
        .collect();
    all.sort();
    all
}

fn pairs_of(list: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all: Vec<_> =
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    all.sort();
    all
}

const ACCESS: &str =
    "sAccessToken=access; HttpOnly; SameSite=Lax; Secure; Path=/; Expires=Wed, 13 Nov 2024 22:13:20 GMT";
const REFRESH: &str = "sRefreshToken=refresh; HttpOnly; SameSite=Lax; Secure; Path=/auth/session/refresh; \
     Expires=Wed, 15 Nov 2023 22:13:20 GMT";
const NO_ACCESS: &str =
    "sAccessToken=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT";
const NO_REFRESH: &str = "sRefreshToken=; HttpOnly; SameSite=Lax; Secure; Path=/auth/session/refresh; Max-Age=0; \
     Expires=Thu, 01 Jan 1970 00:00:00 GMT";

#[test]
fn sec_c14_each_method_in_its_place_only() {
    let cookie = pairs_of(&[
        ("set-cookie", ACCESS),
        ("set-cookie", REFRESH),
        ("front-token", "front"),
        ("anti-csrf", "csrf"),
    ]);
    assert_eq!(written(TokenChange::Set(tokens(TransferMethod::Cookie)), &config()), cookie);
    let header =
        pairs_of(&[("st-access-token", "access"), ("st-refresh-token", "refresh"), ("front-token", "front")]);
    assert_eq!(written(TokenChange::Set(tokens(TransferMethod::Header)), &config()), header);
    let exposing = CookieConfig { expose_access_token: true, ..config() };
    let mut exposed = cookie;
    exposed.push(("st-access-token".into(), "access".into()));
    exposed.sort();
    assert_eq!(written(TokenChange::Set(tokens(TransferMethod::Cookie)), &exposing), exposed);
    let access_only = Tokens { refresh: None, anti_csrf: None, ..tokens(TransferMethod::Cookie) };
    assert_eq!(
        written(TokenChange::Set(access_only), &config()),
        pairs_of(&[("set-cookie", ACCESS), ("front-token", "front")])
    );
}

#[test]
fn sec_c15_the_other_method_is_cleared_along_the_way() {
    let change = |method| TokenChange::Set(Tokens { clear_other: true, anti_csrf: None, ..tokens(method) });
    assert_eq!(
        written(change(TransferMethod::Header), &config()),
        pairs_of(&[
            ("set-cookie", NO_ACCESS),
            ("set-cookie", NO_REFRESH),
            ("st-access-token", "access"),
            ("st-refresh-token", "refresh"),
            ("front-token", "front"),
        ])
    );
    assert_eq!(
        written(change(TransferMethod::Cookie), &config()),
        pairs_of(&[
            ("set-cookie", ACCESS),
            ("set-cookie", REFRESH),
            ("st-access-token", ""),
            ("st-refresh-token", ""),
            ("front-token", "front"),
        ])
    );
}

#[test]
fn sec_c09_clearing() {
    let cookies = [("set-cookie", NO_ACCESS), ("set-cookie", NO_REFRESH)];
    let fields = [("st-access-token", ""), ("st-refresh-token", "")];
    let front = [("front-token", "remove")];
    for (method, expected) in [
        (Some(TransferMethod::Cookie), [&cookies[..], &front].concat()),
        (Some(TransferMethod::Header), [&fields[..], &front].concat()),
        (None, [&cookies[..], &fields, &front].concat()),
    ] {
        assert_eq!(written(TokenChange::Clear(method), &config()), pairs_of(&expected), "{method:?}");
    }
}

#[test]
fn sec_c04_the_older_domain_is_cleared_beside_the_new_tokens() {
    let config =
        CookieConfig { domain: Some(".shop.test".into()), older_domain: Some(String::new()), ..config() };
    let change = TokenChange::Set(Tokens { expire_older: true, ..tokens(TransferMethod::Cookie) });
    let all = written(change, &config);
    let cookies: Vec<&str> =
        all.iter().filter(|(name, _)| name == "set-cookie").map(|(_, value)| value.as_str()).collect();
    assert_eq!(cookies.len(), 4);
    assert!(cookies.contains(&NO_ACCESS) && cookies.contains(&NO_REFRESH));
    assert!(cookies.iter().filter(|cookie| cookie.contains("; Domain=.shop.test")).count() == 2);
}

#[test]
fn a_later_change_replaces_an_earlier_one() {
    let mut map =
        headers(&[("set-cookie", "theirs=1; Path=/"), ("set-cookie", "theirs=2; Domain=shop.test")]);
    TokenChange::Set(tokens(TransferMethod::Cookie)).write(&mut map, &config(), NOW).unwrap();
    let newer =
        Tokens { access: Secret::new("newer".into()), refresh: None, ..tokens(TransferMethod::Cookie) };
    TokenChange::Set(newer).write(&mut map, &config(), NOW).unwrap();
    let newer = ACCESS.replace("=access", "=newer");
    assert_eq!(
        listed(&map),
        pairs_of(&[
            ("set-cookie", "theirs=1; Path=/"),
            ("set-cookie", "theirs=2; Domain=shop.test"),
            ("set-cookie", &newer),
            ("set-cookie", REFRESH),
            ("front-token", "front"),
            ("anti-csrf", "csrf"),
        ])
    );
    TokenChange::Clear(None).write(&mut map, &config(), NOW).unwrap();
    assert_eq!(map.get_all("set-cookie").iter().count(), 4);
    assert!(map.get("anti-csrf").is_none() && map["front-token"] == "remove");
    assert_eq!(map.get_all("vary").iter().count(), 1);
    assert_eq!(map.get_all("access-control-expose-headers").iter().count(), 1);
}

#[test]
fn sec_c11_tokens_are_not_stored() {
    let mut map = headers(&[("cache-control", "public, max-age=3600"), ("vary", "Accept")]);
    TokenChange::Clear(Some(TransferMethod::Header)).write(&mut map, &config(), NOW).unwrap();
    assert_eq!(map.get_all("cache-control").iter().collect::<Vec<_>>(), ["no-store"]);
    assert_eq!(map.get_all("vary").iter().collect::<Vec<_>>(), ["Accept", "Cookie, Authorization"]);
    assert_eq!(map["access-control-expose-headers"], write::EXPOSED);
}

#[test]
fn sec_c12_a_handlers_cookies_by_our_names_go() {
    let mut map = headers(&[
        ("set-cookie", "sAccessToken=evil"),
        ("set-cookie", " sRefreshToken\t=evil; Path=/x"),
        ("set-cookie", "=sAccessToken=evil"),
        ("set-cookie", " = =sAccessToken=evil"),
        ("set-cookie", "theirs=sAccessToken=x"),
        ("set-cookie", "sAccessTokens=x"),
        ("set-cookie", "saccesstoken=x"),
        ("x-other", "1"),
    ]);
    assert_eq!(strip_foreign(&mut map, &config()), 4);
    let kept: Vec<_> = map.get_all("set-cookie").iter().collect();
    assert_eq!(kept, ["theirs=sAccessToken=x", "sAccessTokens=x", "saccesstoken=x"]);
    assert_eq!(strip_foreign(&mut map, &config()), 0);
}

#[test]
fn sec_c07_a_broken_value_is_an_error() {
    for bad in ["a\r\nset-cookie: x=y", "a\nb", "a\0b"] {
        let tokens = Tokens { access: Secret::new(bad.into()), ..tokens(TransferMethod::Header) };
        assert!(TokenChange::Set(tokens).write(&mut HeaderMap::new(), &config(), NOW).is_err(), "{bad:?}");
    }
}

#[test]
fn sec_g01_tokens_are_not_printed() {
    let mut map = HeaderMap::new();
    let change = TokenChange::Set(Tokens { clear_other: true, ..tokens(TransferMethod::Cookie) });
    change.write(&mut map, &config(), NOW).unwrap();
    TokenChange::Set(tokens(TransferMethod::Header)).write(&mut map, &config(), NOW).unwrap();
    let text = format!("{change:?} {map:?}");
    for secret in ["\"access\"", "\"refresh\"", "csrf\"}", "=access", "=refresh", "\"front\""] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a model by the letter of RFC 6265, section 5.2, on bytes.
    #[test]
    fn sec_c03_any_cookie_field(fields in prop::collection::vec("[ \\tsAceToknRfrh=;a\"%$,\u{a0}]{0,60}|(sAccessToken|sRefreshToken|a) ?= ?[ab]{0,2} ?;? ?(sRefreshToken=b)?", 0..4)) {
        let mut map = HeaderMap::new();
        for field in &fields {
            map.append("cookie", HeaderValue::from_bytes(field.as_bytes()).unwrap());
        }
        let config = config();
        let presented = Presented::read(&map, &config).unwrap();
        let model: Vec<(String, String)> = fields
            .iter()
            .flat_map(|field| field.split(';'))
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| {
                let trim = |text: &str| text.trim_matches([' ', '\t']).to_owned();
                (trim(name), trim(value))
            })
            .collect();
        let named = |wanted: &str| -> Vec<&str> {
            model.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str()).collect()
        };
        let values: Vec<&[u8]> = named("sRefreshToken").into_iter().map(str::as_bytes).collect();
        prop_assert_eq!(&presented.cookies(Jar::Refresh), &values);
        let access = named("sAccessToken");
        prop_assert_eq!(presented.carries(TransferMethod::Cookie), !(access.is_empty() && values.is_empty()));
        let differ = access.windows(2).any(|two| two[0] != two[1]);
        prop_assert_eq!(decides(presented.access) == "duplicate", differ);
    }
}
