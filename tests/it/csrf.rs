//! Rows X01 to X08 and X12: requests that another site could send.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use axum::{Router, body::Body, routing::any};
use http::{Method, Request};
use serde_json::json;
use tower_mfa::{
    FactorId, MfaLayer, SessionExtractor,
    config::{AntiCsrf, TransferMethods},
    policy::Everyone,
};

use crate::{
    routes::{Wants, everything_with, routes},
    spy::{
        ALICE, BOB, Log, ROUTES, SITE, bare, every_route, linking, posted, refresh_token, signed_up,
        token_headers, token_in, two_sites, with, without,
    },
    support::{
        Browser, Mode, PASSWORD, TestApp, credentials,
        nodes::arrived,
        provider::{AtOnce, returned},
        send,
    },
};

const REFRESH: &str = "/auth/session/refresh";

async fn user(session: SessionExtractor) -> String {
    session.user_id().to_string()
}

fn router(app: &TestApp) -> Router {
    let mount = || MfaLayer::required(app.mfa.clone());
    Router::new()
        .route("/plain", any(user))
        .layer(mount())
        .merge(Router::new().route("/always", any(user)).layer(mount().csrf_always()))
}

fn jar(browser: &Browser) -> String {
    format!("sAccessToken={}", browser.jar["sAccessToken"])
}

/// With a cookie alone: what a page of another site can bring a browser to send.
fn ambient(browser: &Browser, method: &str, path: &str) -> Request<Body> {
    with(bare(method, path), &[("cookie", &jar(browser))])
}

#[tokio::test]
async fn sec_x01_every_method_but_the_safe_ones_needs_the_proof() {
    let app = TestApp::new().await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let bob = signed_up(&app, Mode::Header, BOB).await;
    let router = router(&app);
    let bearer = format!("Bearer {}", bob.access.as_ref().unwrap());
    let safe = ["GET", "HEAD", "OPTIONS", "TRACE"];
    for method in
        ["GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE", "FOO", "get", "Get", "PROPFIND"]
    {
        for path in ["/plain", "/always"] {
            let unproven = send(&router, ambient(&alice, method, path)).await;
            let free = safe.contains(&method) && path == "/plain";
            unproven.is(if free { 200 } else { 401 });
            if !free && method != "HEAD" {
                assert_eq!(unproven.body["message"], "try refresh token", "{method} {path}");
            }
            assert!(token_headers(&unproven).is_empty());
            let proven = with(ambient(&alice, method, path), &[("rid", "x")]);
            send(&router, proven).await.is(200);
            // What isn't sent by itself needs no proof.
            send(&router, with(bare(method, path), &[("authorization", &bearer)])).await.is(200);
        }
    }
}

#[tokio::test]
async fn sec_x01_x02_every_route_of_ours_that_uses_the_session_needs_it_too() {
    let provider = AtOnce::default();
    let app = everything_with(&provider, |b| b.policy(Everyone::new(FactorId::OTP_EMAIL))).await;
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    alice.post("/auth/user/email/verify/token", json!({})).await.ok();
    let token = token_in(app.notice_after(ALICE, 0).await.link().unwrap().expose());
    let flow = alice.ask_code(ALICE, true).await.ok();
    let mut guess = linking(json!({
        "deviceId": flow["deviceId"],
        "preAuthSessionId": flow["preAuthSessionId"],
        "userInputCode": app.code_after(ALICE, 1).await,
    }))
    .unwrap();
    arrived(&[&app]).await;
    let (before, mut used) = ((app.store.commits(), app.mfa.counters().code_comparisons), Vec::new());
    for (method, route, wants, _, body) in routes() {
        // What renews the session has a proof of its own; what only reads needs none.
        if wants == Wants::Nothing || method == "GET" || route == "/session/refresh" {
            continue;
        }
        // With the proof each of them would do something.
        let body = match route {
            "/signinup/code/resend" => flow.clone(),
            "/signinup/code/consume" => guess.clone(),
            "/signin" => credentials(ALICE, PASSWORD),
            "/signup" => credentials(BOB, PASSWORD),
            "/signinup" => returned(&json!({}), json!({ "code": "x" })),
            "/user/email/verify" => json!({ "method": "token", "token": token }),
            _ => body,
        };
        let body =
            if wants == Wants::IfLinking { linking(body) } else { Some(body).filter(|b| !b.is_null()) };
        let request = alice.request(method.parse().unwrap(), &format!("/auth{route}"), body);
        let refused = app.send(without(request, &["rid"])).await;
        refused.is(401);
        assert_eq!(refused.body["message"], "try refresh token", "{route}");
        assert!(token_headers(&refused).is_empty(), "{route}");
        used.push(wants);
    }
    assert!([Wants::Session, Wants::IfLinking, Wants::IfThere].iter().all(|wants| used.contains(wants)));
    // Nothing was sent, guessed, asked of the provider, written or ended; any value of the header will do.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((app.store.commits(), app.mfa.counters().code_comparisons), before);
    assert_eq!(provider.0.load(Ordering::SeqCst), 0);
    guess["x"] = json!(1);
    let request = with(posted(&alice, "/auth/signinup/code/consume", Some(guess)), &[("rid", "")]);
    let done = app.send(request).await;
    alice.keep(&done);
    done.ok();
    // Neither a form nor plain text can carry it: both are answered before anything is looked at.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let form = with(ambient(&alice, "POST", "/auth/signout"), &[("content-type", kind)]);
        let (parts, _) = form.into_parts();
        app.send(Request::from_parts(parts, Body::from("{}"))).await.is(415);
    }
    alice.refresh().await.is(200);
}

#[tokio::test]
async fn sec_x03_the_token_is_bound_to_the_session_and_moves_on_with_it() {
    let app =
        TestApp::with(|b| b.anti_csrf(AntiCsrf::Token).policy(Everyone::new(FactorId::OTP_EMAIL))).await;
    let mut alice = app.browser(Mode::Cookie);
    let mut bob = app.browser(Mode::Cookie);
    let token = |answer: &crate::support::Answer| answer.headers["anti-csrf"].to_str().unwrap().to_owned();
    let first = token(&alice.sign_up(ALICE).await);
    let bobs = token(&bob.sign_up(BOB).await);
    // 128 bits, in letters that stand in a header.
    assert!(
        first.len() == 22 && first.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)),
        "{first}"
    );
    assert_ne!(first, bobs);
    let half = |browser: &Browser, sent: Option<&str>| {
        let request = posted(browser, "/api/half", None);
        match sent {
            Some(sent) => with(request, &[("anti-csrf", sent)]),
            None => request,
        }
    };
    let longer = format!("{first}A");
    for sent in [None, Some(""), Some(&bobs), Some(&first[..21]), Some(longer.as_str())] {
        let refused = app.send(half(&alice, sent)).await;
        refused.is(401);
        assert_eq!(refused.body["message"], "try refresh token", "{sent:?}");
        let refused =
            app.send(with(posted(&alice, REFRESH, None), &[("anti-csrf", sent.unwrap_or("-"))])).await;
        refused.is(401);
        assert_eq!(refused.body["message"], "unauthorised", "{sent:?}");
    }
    app.send(half(&alice, Some(&first))).await.is(200);
    alice.get("/api/half").await.is(200);
    // A refresh brings another one; the former is of no use with the new cookies.
    let refreshed = app.send(with(posted(&alice, REFRESH, None), &[("anti-csrf", &first)])).await;
    refreshed.is(200);
    let (before, second) = (alice.clone(), token(&refreshed));
    alice.keep(&refreshed);
    assert_ne!(second, first);
    app.send(half(&alice, Some(&first))).await.is(401);
    app.send(half(&alice, Some(&second))).await.is(200);
    // The same answer again holds the same one.
    let again = app.send(with(posted(&before, REFRESH, None), &[("anti-csrf", &first)])).await;
    assert_eq!(token(&again), second);
    // So does an elevation.
    let body = json!({ "email": ALICE, "shouldTryLinkingWithSessionUser": true });
    let ask = with(posted(&alice, "/auth/signinup/code", Some(body)), &[("anti-csrf", &second)]);
    let flow = app.send(ask).await.ok();
    let guess = json!({
        "deviceId": flow["deviceId"],
        "preAuthSessionId": flow["preAuthSessionId"],
        "userInputCode": app.code(ALICE).await,
        "shouldTryLinkingWithSessionUser": true,
    });
    let enter = with(posted(&alice, "/auth/signinup/code/consume", Some(guess)), &[("anti-csrf", &second)]);
    let elevated = app.send(enter).await;
    elevated.is(200);
    alice.keep(&elevated);
    let third = token(&elevated);
    assert!(third != second && third != first);
    app.send(half(&alice, Some(&second))).await.is(401);
    app.send(half(&alice, Some(&third))).await.is(200);
    // In header mode there is none, and none is asked for.
    let mut carol = app.browser(Mode::Header);
    let signed_up = carol.sign_up("carol@shop.example").await;
    assert!(!signed_up.headers.contains_key("anti-csrf"));
    app.send(posted(&carol, "/api/half", None)).await.is(200);
}

#[tokio::test]
async fn sec_x04_a_header_beside_the_cookie_exempts_nothing() {
    let app = TestApp::new().await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let mallory = signed_up(&app, Mode::Header, BOB).await;
    let router = router(&app);
    let forged = format!("Bearer {}A", mallory.access.as_ref().unwrap());
    let foreign = "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.AA";
    for authorization in ["Bearer x", "Bearer ", "Basic YTpi", foreign, &forged, "bearer null"] {
        for (method, path) in [("POST", "/plain"), ("DELETE", "/plain"), ("GET", "/always")] {
            let request = with(ambient(&alice, method, path), &[("authorization", authorization)]);
            let refused = send(&router, request).await;
            refused.is(401);
            assert_eq!(refused.body["message"], "try refresh token", "{authorization} {method}");
        }
        let request = with(ambient(&alice, "POST", "/auth/signout"), &[("authorization", authorization)]);
        let refused = app.send(request).await;
        refused.is(401);
        assert!(token_headers(&refused).is_empty(), "{authorization}");
    }
    // A server that takes no header tokens isn't impressed by good ones either.
    let app = TestApp::with(|b| b.transfer(TransferMethods::Cookie)).await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let good = format!("Bearer {}", alice.jar["sAccessToken"]);
    app.send(with(ambient(&alice, "POST", "/api/me"), &[("authorization", &good)])).await.is(401);
    // The session is still there.
    app.send(posted(&alice, "/api/me", None)).await.is(200);
}

#[tokio::test]
async fn sec_x05_a_body_is_json_and_says_so_or_there_is_none() {
    let app = every_route().await;
    for (method, route) in ROUTES.into_iter().filter(|(method, _)| *method != "GET") {
        let request = |kind: Option<&str>, body: &str| {
            let mut request = with(bare(method, &format!("/auth{route}")), &[("rid", "x")]);
            if let Some(kind) = kind {
                request = with(request, &[("content-type", kind)]);
            }
            Request::from_parts(request.into_parts().0, Body::from(body.to_owned()))
        };
        for (kind, taken) in [
            (Some("application/json"), true),
            (Some("Application/JSON; charset=utf-8"), true),
            (Some(" application/json ;x"), true),
            (None, false),
            (Some("text/plain"), false),
            (Some("text/plain; application/json"), false),
            (Some("application/x-www-form-urlencoded"), false),
            (Some("multipart/form-data; boundary=application/json"), false),
            (Some("application/jsonx"), false),
            (Some("application/vnd.api+json"), false),
            (Some("application/json, text/plain"), false),
            (Some(""), false),
        ] {
            let answer = app.send(request(kind, "{}")).await;
            assert_eq!(answer.status != 415, taken, "{route} {kind:?}");
            // An empty body is `{}`, whatever it is called: the same answer as to that.
            let (empty, braces) =
                (app.send(request(kind, "")).await, app.send(request(Some("application/json"), "{}")).await);
            assert_eq!((empty.status, empty.body), (braces.status, braces.body), "{route} {kind:?}");
        }
    }
    // The SDKs refresh and sign out without a body.
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    alice.refresh().await.is(200);
    alice.sign_out().await.ok();
}

#[tokio::test]
async fn sec_x06_a_refused_origin_rotates_nothing_and_is_told_in_short() {
    let app = every_route().await;
    let (log, _guard) = Log::start();
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let long = format!("https://{}.evil.test", "x".repeat(500));
    let before = app.store.calls();
    for origin in [
        "https://shop.test.evil.test",
        "https://shop.test:444",
        "https://shop.test:443",
        "http://shop.test",
        "https://SHOP.test",
        "HTTPS://shop.test",
        "https://shop.test/",
        "https://api.shop.test",
        "https://test",
        "shop.test",
        "null",
        "",
        &long,
    ] {
        for (method, route) in ROUTES.into_iter().filter(|(method, _)| *method != "GET") {
            let request = alice.request(method.parse().unwrap(), &format!("/auth{route}"), None);
            let answer = app.send(with(request, &[("origin", origin)])).await;
            answer.is(400);
            assert!(token_headers(&answer).is_empty(), "{origin} {route}");
            assert!(origin.is_empty() || !answer.text.contains(origin), "{}", answer.text);
        }
    }
    let two = with(posted(&alice, REFRESH, None), &[("origin", SITE)]);
    let mut request = two;
    request.headers_mut().append("origin", SITE.parse().unwrap());
    app.send(request).await.is(400);
    assert_eq!(app.store.calls(), before, "nothing was looked up");
    log.has("WARN", "https://shop.test.evil.test");
    if cfg!(feature = "tracing") {
        let told = log.lines("WARN", "xxxxxxxx");
        let asked = ROUTES.iter().filter(|(method, _)| *method != "GET").count();
        assert!(told.len() == asked && told.iter().all(|line| !line.contains(&"x".repeat(64))), "{told:?}");
    }
    // Reading is for everybody, and a page of ours is let in.
    app.send(with(bare("GET", "/auth/loginmethods"), &[("origin", "https://evil.test")])).await.is(200);
    let refreshed = app.send(with(posted(&alice, REFRESH, None), &[("origin", SITE)])).await;
    refreshed.is(200);
    alice.keep(&refreshed);
    alice.get("/api/me").await.is(200);
}

/// With a session, and without one.
#[tokio::test]
async fn sec_x07_another_site_signs_nobody_in_and_adds_no_factor() {
    let provider = AtOnce::default();
    let app = everything_with(&provider, |b| b).await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let before = (app.store.commits(), app.mfa.counters());
    let (mut refused, mut starts) = (0, 0);
    for (method, route, wants, _, body) in routes() {
        // A provider posts a form to us on purpose, across sites: row L15.
        if method == "GET" || route == "/callback/apple" {
            continue;
        }
        starts += usize::from(wants == Wants::IfLinking);
        let body = match route {
            "/signin" | "/signup" => credentials(ALICE, PASSWORD),
            "/signinup" => returned(&json!({}), json!({ "code": "x" })),
            _ if body.is_null() => json!({}),
            _ => body,
        };
        for (browser, flag) in [(&app.browser(Mode::Cookie), false), (&alice, false), (&alice, true)] {
            let mut body = body.clone();
            body["shouldTryLinkingWithSessionUser"] = json!(flag);
            let request =
                || browser.request(method.parse().unwrap(), &format!("/auth{route}"), Some(body.clone()));
            let sent = |headers: &[(&'static str, &str)]| with(request(), headers);
            let form = without(sent(&[("content-type", "text/plain")]), &["rid"]);
            for (request, status) in [
                (sent(&[("origin", "https://evil.test")]), 400),
                (sent(&[("origin", "null")]), 400),
                (sent(&[("sec-fetch-site", "cross-site")]), 400),
                (sent(&[("sec-fetch-site", "cross-site"), ("origin", SITE)]), 400),
                (sent(&[("sec-fetch-site", "nonsense")]), 400),
                (form, 415),
            ] {
                let answer = app.send(request).await;
                answer.is(status);
                assert!(token_headers(&answer).is_empty(), "{route}");
                refused += 1;
            }
        }
    }
    // Six routes begin a session or add a factor: passwords, codes, third parties.
    assert!(starts == 6 && refused > 6 * 18, "{starts} {refused}");
    assert_eq!((app.store.commits(), app.mfa.counters()), before);
    assert_eq!((app.sent_to(ALICE), provider.0.load(Ordering::SeqCst)), (0, 0));
    for near in ["same-origin", "same-site", "none"] {
        let request = posted(&app.browser(Mode::Cookie), "/auth/signin", Some(credentials(ALICE, PASSWORD)));
        app.send(with(request, &[("sec-fetch-site", near), ("origin", SITE)])).await.ok();
    }
    // Where the website is another site than the API, its pages are cross-site, and still ours.
    let app = TestApp::of(two_sites(), |b| b).await;
    let request = posted(&app.browser(Mode::Cookie), "/auth/signup", Some(credentials(ALICE, PASSWORD)));
    app.send(with(request, &[("sec-fetch-site", "cross-site"), ("origin", SITE)])).await.ok();
}

#[tokio::test]
async fn sec_x08_another_site_can_sign_nobody_out() {
    let app = TestApp::of(two_sites(), |b| b).await;
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let live = format!("sRefreshToken={}", refresh_token(&alice));
    let mut told = BTreeSet::new();
    for (cookie, cookie_is) in [(live.as_str(), "live"), ("sRefreshToken=x", "garbage"), ("a=b", "none")] {
        for (headers, cleared) in [
            (&[][..], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "x")], false),
        ] {
            let request = with(with(bare("POST", REFRESH), headers), &[("cookie", cookie)]);
            let answer = app.send(request).await;
            answer.is(401);
            assert_eq!(answer.body["message"], "unauthorised");
            assert_eq!(answer.cookies().len(), if cleared { 2 } else { 0 }, "{cookie_is} {headers:?}");
            assert_eq!(answer.headers.contains_key("front-token"), cleared, "{cookie_is} {headers:?}");
            told.insert((cookie_is, cleared));
        }
    }
    assert_eq!(told.len(), 6);
    // A first visit from our own page, which is on another site, is told that there is nothing.
    let visit =
        with(bare("POST", REFRESH), &[("sec-fetch-site", "cross-site"), ("origin", SITE), ("rid", "x")]);
    assert_eq!(app.send(visit).await.headers["front-token"], "remove");
    // Nothing was rotated, and nothing ended.
    app.clock.advance(Duration::from_secs(3600));
    alice.refresh().await.is(200);
    alice.get("/api/me").await.is(200);
}

#[tokio::test]
async fn sec_x12_a_methods_override_is_never_read() {
    let app = TestApp::new().await;
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let router = router(&app);
    for (name, value) in [
        ("x-http-method-override", "GET"),
        ("x-http-method", "GET"),
        ("x-method-override", "get"),
        ("x-original-method", "OPTIONS"),
    ] {
        // An unsafe request stays unsafe, and a safe one safe.
        send(&router, with(ambient(&alice, "POST", "/plain"), &[(name, value)])).await.is(401);
        send(&router, with(ambient(&alice, "POST", "/plain?_method=GET"), &[(name, value)])).await.is(401);
        send(&router, with(ambient(&alice, "GET", "/plain?_method=DELETE"), &[(name, "DELETE")]))
            .await
            .is(200);
        // No route of ours is reached by it.
        let refresh =
            with(alice.request(Method::GET, &format!("{REFRESH}?_method=POST"), None), &[(name, "POST")]);
        let answer = app.send(refresh).await;
        assert!(answer.cookies().is_empty(), "{name}");
        let out = with(alice.request(Method::GET, "/auth/signout?_method=POST", None), &[(name, "POST")]);
        app.send(out).await;
        // And none is left by it: a POST is one.
        let body = json!({ "_method": "PUT" });
        let request = with(posted(&alice, "/auth/mfa/info", Some(body)), &[(name, "PUT")]);
        assert!(app.send(request).await.body["factors"].is_null(), "{name}");
        // Nor is a preflight made by it.
        let asks = [(name, "OPTIONS"), ("access-control-request-method", "POST")];
        send(&router, with(bare("POST", "/plain"), &asks)).await.is(401);
    }
    alice.get("/api/me").await.is(200);
    alice.refresh().await.is(200);
}
