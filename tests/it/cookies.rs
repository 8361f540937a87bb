//! Rows C01 to C09 and C15: the session cookies, set, read and taken back.

use std::time::Duration;

use axum::{Router, extract::Query, routing::post};
use base64::Engine as _;
use http::{HeaderValue, Method};
use serde_json::json;
use tower_mfa::{
    MfaLayer, SessionExtractor,
    config::{AntiCsrf, AppInfo, SameSite},
    ident::{ErrorKind, Payload},
};

use crate::{
    spy::{
        ALICE, BOB, Log, SetCookie, bare, posted, problems, refresh_token, shop, signed_up, token_headers,
        two_sites, with,
    },
    support::{Answer, Browser, Mode, PASSWORD, TestApp, credentials, send},
};

const REFRESH: &str = "/auth/session/refresh";

/// Everything that sets or takes back tokens, once.
async fn full_flow(app: &TestApp, base: &str) -> Vec<Answer> {
    let mut alice = app.browser(Mode::Cookie);
    let sign_up = alice.post(&format!("{base}/signup"), credentials(ALICE, PASSWORD)).await;
    let body = json!({ "email": ALICE, "shouldTryLinkingWithSessionUser": true });
    let flow = alice.post(&format!("{base}/signinup/code"), body).await.ok();
    let entered = alice
        .post(
            &format!("{base}/signinup/code/consume"),
            json!({
                "deviceId": flow["deviceId"],
                "preAuthSessionId": flow["preAuthSessionId"],
                "userInputCode": app.code(ALICE).await,
                "shouldTryLinkingWithSessionUser": true,
            }),
        )
        .await;
    app.mfa.users().judge_anew(&app.user(ALICE).await).await.unwrap();
    let judged = alice.get("/api/me").await;
    let refreshed = alice.call(Method::POST, &format!("{base}/session/refresh"), None).await;
    let signed_out = alice.call(Method::POST, &format!("{base}/signout"), None).await;
    let gone = alice.call(Method::POST, &format!("{base}/session/refresh"), None).await;
    let all = vec![sign_up, entered, judged, refreshed, signed_out, gone];
    for (answer, status) in all.iter().zip([200, 200, 200, 200, 200, 401]) {
        answer.is(status);
    }
    all
}

#[tokio::test]
async fn sec_c01_every_cookie_of_a_full_flow() {
    let local = || AppInfo::new("Shop", "http://localhost:3001", "http://127.0.0.1:3000").unwrap();
    let elsewhere = || shop().base_path("/api/v1").unwrap();
    for (app, base, same_site, secure, domain) in [
        (TestApp::new().await, "/auth", "Lax", true, None),
        (TestApp::with(|b| b.same_site(SameSite::Strict)).await, "/auth", "Strict", true, None),
        (TestApp::of(two_sites(), |b| b).await, "/auth", "None", true, None),
        (TestApp::of(local(), |b| b).await, "/auth", "Lax", false, None),
        (TestApp::of(elsewhere(), |b| b).await, "/api/v1", "Lax", true, None),
        (TestApp::with(|b| b.cookie_domain("shop.test")).await, "/auth", "Lax", true, Some("shop.test")),
    ] {
        let answers = full_flow(&app, base).await;
        let cookies: Vec<SetCookie> = answers.iter().flat_map(SetCookie::of).collect();
        let named = |name: &str| cookies.iter().filter(|cookie| cookie.name == name).count();
        assert_eq!((named("sAccessToken"), named("sRefreshToken")), (6, 5), "{cookies:?}");
        for cookie in &cookies {
            let path = match cookie.name.as_str() {
                "sAccessToken" => "/".to_owned(),
                _ => format!("{base}/session/refresh"),
            };
            assert_eq!(cookie.attribute("httponly"), Some(""), "{cookie:?}");
            assert_eq!(cookie.attribute("samesite"), Some(same_site), "{cookie:?}");
            assert_eq!(cookie.attribute("secure").is_some(), secure, "{cookie:?}");
            assert_eq!(cookie.attribute("path"), Some(path.as_str()), "{cookie:?}");
            assert_eq!(cookie.attribute("domain"), domain, "{cookie:?}");
            assert!(cookie.attribute("expires").is_some(), "{cookie:?}");
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
            assert!(cookie.value.bytes().all(plain), "{cookie:?}");
        }
    }
    // Without `Secure` on loopback only, and on loopback on both sides.
    for (api, website) in [
        ("http://api.shop.test", "http://shop.test"),
        ("http://localhost:3001", "http://shop.test"),
        ("http://10.0.0.7", "http://localhost:3000"),
    ] {
        let found = problems(AppInfo::new("Shop", api, website).unwrap(), |b| b);
        assert!(found.iter().any(|problem| problem.contains("Secure")), "{api} {website} {found:?}");
    }
}

#[tokio::test]
async fn sec_c02_with_the_prefix_the_plain_names_are_never_read() {
    let app = TestApp::with(|b| b.host_prefix()).await;
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let set: Vec<&String> = alice.jar.keys().collect();
    assert_eq!(set, ["__Host-sAccessToken", "__Host-sRefreshToken"]);
    for cookie in
        full_flow(&TestApp::with(|b| b.host_prefix()).await, "/auth").await.iter().flat_map(SetCookie::of)
    {
        assert!(cookie.name.starts_with("__Host-s"), "{cookie:?}");
        assert_eq!((cookie.attribute("path"), cookie.attribute("domain")), (Some("/"), None), "{cookie:?}");
        assert!(cookie.attribute("secure").is_some(), "{cookie:?}");
    }
    alice.get("/api/me").await.is(200);
    // A sibling can plant the plain names, and that does nothing: neither alone nor beside the good ones.
    let mallory = signed_up(&app, Mode::Cookie, BOB).await;
    let planted = |browser: &Browser| {
        let [access, refresh] =
            ["__Host-sAccessToken", "__Host-sRefreshToken"].map(|name| browser.jar[name].clone());
        format!("sAccessToken={access}; sRefreshToken={refresh}")
    };
    app.send(with(bare("GET", "/api/me"), &[("cookie", &planted(&mallory))])).await.is(401);
    app.send(with(bare("POST", REFRESH), &[("cookie", &planted(&mallory)), ("rid", "x")])).await.is(401);
    let both = format!("{}; __Host-sAccessToken={}", planted(&mallory), alice.jar["__Host-sAccessToken"]);
    let me = app.send(with(bare("GET", "/api/me"), &[("cookie", &both)])).await;
    assert_eq!(me.body["userId"], app.user(ALICE).await.to_string());
    alice.refresh().await.is(200);
    // The other way round: a server without the prefix doesn't know the prefixed names.
    let plain = TestApp::new().await;
    let bob = signed_up(&plain, Mode::Cookie, BOB).await;
    let prefixed = format!("__Host-sAccessToken={}", bob.jar["sAccessToken"]);
    plain.send(with(bare("GET", "/api/me"), &[("cookie", &prefixed)])).await.is(401);
    assert!(!problems(shop(), |b| b.host_prefix().cookie_domain("shop.test")).is_empty());
    let local = AppInfo::new("Shop", "http://localhost:3001", "http://localhost:3000").unwrap();
    assert!(!problems(local, |b| b.host_prefix()).is_empty());
}

#[tokio::test]
async fn sec_c03_names_and_values_are_bytes() {
    let app = TestApp::new().await;
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let token = alice.jar["sAccessToken"].clone();
    let encoded = token.replacen('.', "%2E", 1);
    for (field, found) in [
        (format!("sAccessToken={token}"), true),
        (format!("\t sAccessToken \t= {token} \t"), true),
        (format!("a=b;sAccessToken={token};;=;c"), true),
        (format!("a=\"x;sAccessToken={token};\""), true),
        (format!("sAccess%54oken={token}"), false),
        (format!("__%48ost-sAccessToken={token}"), false),
        (format!("\u{a0}sAccessToken={token}"), false),
        (format!("\u{2000}sAccessToken={token}"), false),
        (format!("\u{b}sAccessToken={token}"), false),
        (format!("$Version=1,sAccessToken={token}"), false),
        (format!("$sAccessToken={token}"), false),
        (format!("SACCESSTOKEN={token}"), false),
        (format!("saccesstoken={token}"), false),
        (format!("sAccessToken=\"{token}\""), false),
        (format!("sAccessToken={encoded}"), false),
        (format!("sAccessToken==;{token}"), false),
    ] {
        let mut request = bare("GET", "/api/me");
        // A vertical tab can't stand in a header at all.
        let Ok(value) = HeaderValue::from_bytes(field.as_bytes()) else { continue };
        request.headers_mut().insert("cookie", value);
        app.send(request).await.is(if found { 200 } else { 401 });
    }
    // `$Version` beside the cookie is a cookie like any other.
    let both = format!("$Version=1; sAccessToken={token}; $Path=/x");
    app.send(with(bare("GET", "/api/me"), &[("cookie", &both)])).await.is(200);
    let quoted = format!("sRefreshToken=\"{}\"", alice.jar["sRefreshToken"]);
    app.send(with(bare("POST", REFRESH), &[("cookie", &quoted), ("rid", "x")])).await.is(401);
    alice.refresh().await.is(200);
}

#[tokio::test]
async fn sec_c04_access_cookies_that_differ_are_try_refresh() {
    let app = TestApp::new().await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let bob = signed_up(&app, Mode::Cookie, BOB).await;
    let (one, two) = (&alice.jar["sAccessToken"], &bob.jar["sAccessToken"]);
    for (values, status) in [
        ([one.as_str(), two.as_str()], 401),
        ([two, one], 401),
        (["garbage", one], 401),
        ([one, "garbage"], 401),
        ([one, ""], 401),
        ([one, one], 200),
    ] {
        let jar = values.map(|value| format!("sAccessToken={value}")).join("; ");
        let answer = app.send(with(bare("GET", "/api/me"), &[("cookie", &jar)])).await;
        answer.is(status);
        if status == 401 {
            assert_eq!(answer.body["message"], "try refresh token");
            assert!(token_headers(&answer).is_empty(), "{:?}", answer.headers);
        }
    }
}

#[tokio::test]
async fn sec_c04_refresh_cookies_of_one_session_are_refreshed() {
    let refresh = |values: &[&str]| {
        let jar: Vec<String> = values.iter().map(|value| format!("sRefreshToken={value}")).collect();
        with(bare("POST", REFRESH), &[("cookie", &jar.join("; ")), ("rid", "x")])
    };
    // Garbage beside the live one, and an older one beside it, in both orders.
    for older_first in [true, false] {
        let app = TestApp::new().await;
        let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
        for garbage in ["garbage", "1.2.3.4.5", ""] {
            let live = refresh_token(&alice);
            let values = if older_first { [garbage, &live] } else { [&live, garbage] };
            let answer = app.send(refresh(&values)).await;
            answer.is(200);
            assert_eq!(answer.cookies().len(), 2, "{:?}", answer.cookies());
            alice.keep(&answer);
            assert_ne!(refresh_token(&alice), live);
        }
        let older = refresh_token(&alice);
        alice.refresh().await.is(200);
        app.clock.advance(Duration::from_secs(3600));
        let live = refresh_token(&alice);
        let values = if older_first { [older.as_str(), &live] } else { [live.as_str(), &older] };
        let answer = app.send(refresh(&values)).await;
        answer.is(200);
        alice.keep(&answer);
        assert_ne!(refresh_token(&alice), live, "it was the live one that counted");
        alice.get("/api/me").await.is(200);
        alice.refresh().await.is(200);
        // The older one alone is reuse all the same.
        app.clock.advance(Duration::from_secs(3600));
        assert_eq!(app.send(refresh(&[&older, &older])).await.body["message"], "token theft detected");
    }
}

#[tokio::test]
async fn sec_c04_refresh_cookies_of_two_sessions_rotate_and_clear_nothing() {
    let app = TestApp::new().await;
    let (log, _guard) = Log::start();
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let mut bob = signed_up(&app, Mode::Cookie, BOB).await;
    let (one, two) = (refresh_token(&alice), refresh_token(&bob));
    let before = app.store.counts.commits.load(std::sync::atomic::Ordering::SeqCst);
    for (at, values) in [[&one, &two], [&two, &one]].into_iter().enumerate() {
        let jar = values.map(|value| format!("sRefreshToken={value}")).join("; ");
        let answer = app.send(with(bare("POST", REFRESH), &[("cookie", &jar), ("rid", "x")])).await;
        answer.is(401);
        assert_eq!(answer.body["message"], "unauthorised");
        assert!(token_headers(&answer).is_empty(), "{:?}", answer.headers);
        if cfg!(feature = "tracing") {
            assert_eq!(log.lines("WARN", "several sessions").len(), at + 1);
        }
    }
    assert_eq!(app.store.counts.commits.load(std::sync::atomic::Ordering::SeqCst), before);
    assert!(log.lines("", &one).is_empty() && log.lines("", &two).is_empty());
    // Long after any window of grace, each of them still is the live one.
    app.clock.advance(Duration::from_secs(3600));
    alice.refresh().await.is(200);
    bob.refresh().await.is(200);
}

#[tokio::test]
async fn sec_c04_the_older_domain_is_expired_in_the_same_answer() {
    let app = TestApp::with(|b| b.cookie_domain("shop.test").older_cookie_domain("")).await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let jar = format!("sRefreshToken=garbage; sRefreshToken={}", refresh_token(&alice));
    let answer = app.send(with(bare("POST", REFRESH), &[("cookie", &jar), ("rid", "x")])).await;
    answer.is(200);
    let cookies = SetCookie::of(&answer);
    let (set, cleared): (Vec<_>, Vec<_>) = cookies.iter().partition(|cookie| !cookie.clears());
    assert_eq!((set.len(), cleared.len()), (2, 2), "{cookies:?}");
    assert!(set.iter().all(|cookie| cookie.attribute("domain") == Some("shop.test")), "{cookies:?}");
    assert!(cleared.iter().all(|cookie| cookie.attribute("domain").is_none()), "{cookies:?}");
    assert_ne!(answer.headers["front-token"], "remove");
    // One cookie alone leaves the older domain in peace.
    let mut alice = alice;
    alice.jar = set.iter().map(|cookie| (cookie.name.clone(), cookie.value.clone())).collect();
    let answer = alice.refresh().await;
    assert_eq!((answer.status.as_u16(), answer.cookies().len()), (200, 2));
}

#[tokio::test]
async fn sec_c05_c07_c08_what_cant_be_served_is_refused_at_the_start() {
    let suffix = AppInfo::new("Shop", "https://shop.co.uk", "https://shop.co.uk").unwrap();
    let pages = AppInfo::new("Shop", "https://shop.github.io", "https://shop.github.io").unwrap();
    let address = AppInfo::new("Shop", "https://192.0.2.7", "https://192.0.2.7").unwrap();
    for (app, domain) in [
        (suffix, "co.uk"),
        (pages, "github.io"),
        (address, "192.0.2.7"),
        (shop(), "test"),
        (shop(), "other.test"),
        (shop(), "shop.test\r\nSet-Cookie: a=b"),
        (shop(), "shop.test; Path=/x"),
        (shop(), "shop.test\0"),
    ] {
        assert!(!problems(app.clone(), |b| b.cookie_domain(domain)).is_empty(), "{domain:?}");
        assert!(
            domain == "other.test" || !problems(app, |b| b.older_cookie_domain(domain)).is_empty(),
            "{domain:?}"
        );
    }
    for path in ["/a\r\nb", "/a\nb", "/a\0", "/a;b", "/a b", "/a,b", "/auth/../x"] {
        assert!(shop().base_path(path).is_err() || path.contains(".."), "{path:?}");
    }
    for name in ["Sh\r\nop", "Sh\0op", "\n"] {
        assert!(AppInfo::new(name, "https://api.shop.test", "https://shop.test").is_err(), "{name:?}");
    }
    for origin in
        ["https://shop.test\r\nx", "https://shop.test;x", "https://sh op.test", "https://shop.test/a"]
    {
        assert!(AppInfo::new("Shop", "https://api.shop.test", origin).is_err(), "{origin:?}");
        assert!(shop().also_website(origin).is_err(), "{origin:?}");
    }
    // `SameSite=None` needs `Secure` and a proof.
    let local = || AppInfo::new("Shop", "http://localhost:3001", "http://localhost:3000").unwrap();
    assert!(problems(two_sites(), |b| b).is_empty());
    assert!(problems(two_sites(), |b| b.anti_csrf(AntiCsrf::Token)).is_empty());
    assert!(!problems(two_sites(), |b| b.anti_csrf(AntiCsrf::None)).is_empty());
    assert!(!problems(shop(), |b| b.same_site(SameSite::None).anti_csrf(AntiCsrf::None)).is_empty());
    assert!(problems(shop(), |b| b.anti_csrf(AntiCsrf::None)).is_empty());
    assert!(!problems(local(), |b| b.same_site(SameSite::None)).is_empty());
}

#[tokio::test]
async fn sec_c05_the_refresh_cookies_path_is_the_mounted_route() {
    for base in ["/auth", "/api/v1", "/a.b/c"] {
        let app = TestApp::of(shop().base_path(base).unwrap(), |b| b).await;
        let mut alice = app.browser(Mode::Cookie);
        let signed_up = alice.post(&format!("{base}/signup"), credentials(ALICE, PASSWORD)).await;
        let cookies = SetCookie::of(&signed_up);
        let path =
            cookies.iter().find(|cookie| cookie.name == "sRefreshToken").unwrap().attributes["path"].clone();
        assert_eq!(path, format!("{base}/session/refresh"));
        let refresh = |path: &str| {
            let jar = format!("sRefreshToken={}", refresh_token(&alice));
            with(bare("POST", path), &[("cookie", &jar), ("rid", "x")])
        };
        // Beside it there is no route of ours, so nothing is gained by a path that also matches.
        let beside = app.send(refresh(&format!("{path}X"))).await;
        assert!(beside.cookies().is_empty() && beside.status == 401, "{:?}", beside.headers);
        app.send(refresh(&path)).await.is(200);
    }
}

/// Merges a member of `n` letters into the payload, and says what came of it.
async fn blob(Query(size): Query<Vec<(String, usize)>>, session: SessionExtractor) -> String {
    let update = Payload::from_json(json!({ "blob": "x".repeat(size[0].1) })).unwrap();
    match session.merge_payload(update).await {
        Ok(()) => "fits".to_owned(),
        Err(error) if error.kind() == ErrorKind::Invalid => "too large".to_owned(),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn sec_c06_a_payload_too_large_for_a_browser_changes_nothing() {
    for (mode, app) in [
        (Mode::Cookie, TestApp::new().await),
        (Mode::Cookie, TestApp::with(|b| b.host_prefix()).await),
        (Mode::Header, TestApp::new().await),
    ] {
        let mut alice = signed_up(&app, mode, ALICE).await;
        let router: Router =
            Router::new().route("/blob", post(blob)).layer(MfaLayer::required(app.mfa.clone()));
        let ask = |alice: &Browser, n: usize| {
            let request = posted(alice, &format!("/blob?n={n}"), None);
            send(&router, request)
        };
        let (mut fits, mut over) = (0, 4096);
        while over - fits > 1 {
            let middle = (fits + over) / 2;
            match ask(&alice, middle).await.text.as_str() {
                "fits" => fits = middle,
                _ => over = middle,
            }
        }
        // The exact boundary: what fits is within 4096 with its name, one letter more would not be.
        let kept = ask(&alice, fits).await;
        alice.keep(&kept);
        let cookie = alice.jar.iter().find(|(name, _)| name.ends_with("sAccessToken"));
        let cookie = cookie.map(|(name, value)| (name.clone(), value.clone()));
        let (name, token) = cookie.unwrap_or_else(|| (String::new(), alice.access.clone().unwrap()));
        // In header mode the SDKs keep it in a cookie of theirs, which is what counts if its name is longer.
        let name = name.len().max("st-access-token".len());
        let front = kept.headers["front-token"].len() + "sFrontToken".len();
        let payload = token.split('.').nth(1).unwrap();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap().len();
        let length = |bytes: usize| (bytes * 4).div_ceil(3);
        let size = |more: usize| name + token.len() - payload.len() + length(bytes + more);
        assert_eq!(length(bytes), payload.len());
        assert!(size(0) <= 4096 && front <= 4096, "{} {front}", size(0));
        assert!(size(1) > 4096, "{mode:?} {fits} {} {} {front}", size(0), size(1));
        // Any size: it fits exactly up to that; what doesn't fit leaves row and token as they were.
        let mut n = 7;
        for _ in 0..40 {
            n = (n * 1103 + 12345) % 6000;
            let answer = ask(&alice, n).await;
            assert_eq!(answer.text, if n <= fits { "fits" } else { "too large" }, "{n}");
            assert_eq!(answer.headers.contains_key("front-token"), n <= fits, "{n}");
            alice.keep(&answer);
        }
        alice.keep(&ask(&alice, 5).await);
        assert_eq!(ask(&alice, fits + 1).await.text, "too large");
        alice.get("/api/me").await.is(200);
        alice.refresh().await.is(200);
        assert_eq!(alice.front.as_ref().unwrap()["up"]["blob"], "xxxxx");
    }
}

#[tokio::test]
async fn sec_c07_nothing_that_was_sent_reaches_a_header() {
    async fn note(session: SessionExtractor) {
        let hostile = "a\r\nSet-Cookie: evil=1; Domain=x\0\u{85}";
        let update = Payload::from_json(json!({ "note": hostile, "x\r\ny;z": 1 })).unwrap();
        session.merge_payload(update).await.unwrap();
    }
    let app = TestApp::new().await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let router: Router = Router::new().route("/note", post(note)).layer(MfaLayer::required(app.mfa.clone()));
    let answer = send(&router, posted(&alice, "/note", None)).await;
    answer.is(200);
    for (name, value) in &answer.headers {
        assert!(!value.as_bytes().iter().any(|b| b.is_ascii_control()), "{name}");
        assert!(!value.to_str().unwrap().contains("evil"), "{name}");
    }
    assert_eq!(answer.cookies().len(), 1);
    let mut alice = alice;
    alice.keep(&answer);
    assert_eq!(alice.front.as_ref().unwrap()["up"]["x\r\ny;z"], 1);
    alice.get("/api/me").await.is(200);
    // Nor do tenants: they are named by letters, digits and dashes.
    for tenant in ["a%0d%0ab", "a%00", "a;b", "a%3bb"] {
        let answer = app.send(bare("POST", &format!("/auth/{tenant}/signin"))).await;
        answer.is(404);
        assert!(!answer.text.contains(tenant), "{}", answer.text);
    }
}
