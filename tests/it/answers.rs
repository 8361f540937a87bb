//! Rows C10 and C14: what failing answers leave alone, and where tokens appear.

use std::{collections::BTreeSet, time::Duration};

use axum::Router;
use http::{Method, Request, header};
use serde_json::{Value, json};
use tower_mfa::{
    FactorId, Mfa, MfaPolicy, PolicyContext, Requirements,
    api::ApiLayer,
    config::{EmailVerification, Secrets},
    delivery::Outbox,
    ident::{Email, Payload, TenantId},
    policy::{Everyone, PolicyError},
    store::MemoryStore,
};

use crate::{
    spy::{
        ALICE, BOB, Log, ROUTES, bare, posted, refresh_token, shop, signed_up, token_headers, with, without,
    },
    support::{Answer, Browser, Mode, PASSWORD, TestApp, credentials, send, wrong},
};

const REFRESH: &str = "/auth/session/refresh";

/// What a failing answer of a route other than refresh may say, beside CORS.
const PLAIN: [&str; 5] = ["content-type", "content-length", "cache-control", "vary", "retry-after"];

#[track_caller]
fn keeps_the_cookies(answer: &Answer, what: &str) {
    let said: BTreeSet<&str> = answer.headers.keys().map(|name| name.as_str()).collect();
    let odd: Vec<_> =
        said.iter().filter(|name| !PLAIN.contains(name) && !name.starts_with("access-control-")).collect();
    assert!(odd.is_empty(), "{what}: {odd:?} in {} {}", answer.status, answer.text);
    assert!(token_headers(answer).is_empty(), "{what}");
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store", "{what}");
}

/// A request to each route but refresh that would do something, as a page of ours sends it.
fn requests(browser: &Browser, flow: &Value) -> Vec<(String, Request<axum::body::Body>)> {
    let linking = |mut body: Value| {
        body["shouldTryLinkingWithSessionUser"] = json!(true);
        Some(body)
    };
    let ids = json!({ "deviceId": flow["deviceId"], "preAuthSessionId": flow["preAuthSessionId"] });
    let mut guess = ids.clone();
    guess["userInputCode"] = json!("000000");
    let all = [
        (Method::POST, "/auth/signout", None),
        (Method::PUT, "/auth/mfa/info", Some(json!({}))),
        (Method::POST, "/auth/signinup/code", linking(json!({ "email": ALICE }))),
        (Method::POST, "/auth/signinup/code/resend", linking(ids)),
        (Method::POST, "/auth/signinup/code/consume", linking(guess)),
        (Method::POST, "/auth/signin", linking(credentials(ALICE, "not the password 1"))),
        (Method::POST, "/auth/signup", linking(credentials(BOB, PASSWORD))),
        (Method::POST, "/auth/user/password/reset/token", Some(an_address())),
        (Method::POST, "/auth/user/password/reset", Some(a_reset())),
        (Method::POST, "/auth/user/email/verify/token", Some(json!({}))),
        (Method::POST, "/auth/user/email/verify", Some(a_ticket())),
        (Method::POST, "/auth/signinup", linking(a_third_party())),
        (Method::GET, "/api/me", None),
        (Method::POST, "/api/me", None),
        (Method::GET, "/api/half", None),
    ];
    all.into_iter()
        .map(|(method, path, body)| (format!("{method} {path}"), browser.request(method, path, body)))
        .collect()
}

fn an_address() -> Value {
    json!({ "formFields": [{ "id": "email", "value": ALICE }] })
}

/// One that nobody made.
fn a_ticket() -> Value {
    json!({ "method": "token", "token": "x" })
}

fn a_reset() -> Value {
    let mut reset = a_ticket();
    reset["formFields"] = json!([{ "id": "password", "value": PASSWORD }]);
    reset
}

/// Whom no tenant has.
fn a_third_party() -> Value {
    let back =
        json!({ "redirectURIOnProviderDashboard": "https://shop.test/", "redirectURIQueryParams": {} });
    json!({ "thirdPartyId": "nobody", "redirectURIInfo": back })
}

#[tokio::test]
async fn sec_c10_whatever_the_credential_no_failing_answer_takes_a_cookie_away() {
    let gate = FactorId::parse("gate").unwrap();
    let app = TestApp::with(|b| {
        b.custom_factor(gate.clone())
            .policy(Everyone::new(gate))
            .email_verification(EmailVerification::Optional)
    })
    .await;
    let mut failing = 0;
    for (n, state) in
        ["none", "garbage", "forged", "expired", "revoked", "deleted", "unproven", "two", "stale", "half"]
            .into_iter()
            .enumerate()
    {
        let email = format!("user-{n}@shop.example");
        let mut alice = signed_in_by_code(&app, &email).await;
        let other = json!({ "email": email, "shouldTryLinkingWithSessionUser": true });
        let flow = alice.post("/auth/signinup/code", other).await;
        let good = alice.jar["sAccessToken"].clone();
        match state {
            "none" => alice.jar.clear(),
            "garbage" => drop(alice.jar.insert("sAccessToken".to_owned(), "x".to_owned())),
            "forged" => drop(alice.jar.insert("sAccessToken".to_owned(), format!("{good}A"))),
            "expired" => app.clock.advance(Duration::from_secs(3700)),
            "revoked" => app.mfa.sessions().revoke_user(&app.user(&email).await).await.unwrap(),
            "deleted" => app.mfa.users().delete(&app.user(&email).await).await.unwrap(),
            "stale" => {
                let mut tab = alice.clone();
                tab.refresh().await.is(200);
                tab.refresh().await.is(200);
            }
            _ => {}
        }
        // Signing out comes last: it may succeed.
        for (what, mut request) in requests(&alice, &flow.body).into_iter().rev() {
            if state == "unproven" {
                request = without(request, &["rid"]);
            }
            if state == "two" {
                request = with(request, &[("cookie", &format!("sAccessToken={good}; sAccessToken=x"))]);
            }
            let answer = app.send(request).await;
            let fine = answer.body["status"] == "OK" || what.contains("/api/");
            if answer.status == 200 && fine {
                continue;
            }
            failing += 1;
            keeps_the_cookies(&answer, &format!("{state} {what}"));
        }
    }
    // Of a hundred, few succeed: signing out, and what a half session may do.
    assert!(failing >= 80, "{failing}");
}

/// A session by a code, which takes no hash.
async fn signed_in_by_code(app: &TestApp, email: &str) -> Browser {
    let mut browser = app.browser(Mode::Cookie);
    let flow = browser.ask_code(email, false).await.ok();
    browser.enter(&flow, &app.code(email).await, false).await.ok();
    browser
}

/// Panics when it is asked about a session that has a payload member by this name.
struct Panicking;

impl MfaPolicy for Panicking {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        assert!(ctx.payload().member("trap").is_none(), "the trap");
        Ok(Requirements::none())
    }
}

#[tokio::test]
async fn sec_c10_every_other_refusal_too() {
    let gate = FactorId::parse("gate").unwrap();
    let app =
        TestApp::with(|b| b.custom_factor(gate.clone()).email_verification(EmailVerification::Optional))
            .await;
    app.mfa.tenants().create(&TenantId::parse("closed").unwrap(), Some(Vec::new())).await.unwrap();
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let json = |body: Value| Some(body);
    let large = json!({ "a": "x".repeat(17 * 1024) });
    let mut seen = BTreeSet::new();
    let mut check = |answer: Answer, status: u16, what: &str| {
        answer.is(status);
        keeps_the_cookies(&answer, what);
        seen.insert(status);
    };
    let flow = alice.ask_code(ALICE, true).await.ok();
    let cookies = (0..300).map(|n| format!("c{n}=1")).collect::<Vec<_>>().join("; ");
    for (method, route) in ROUTES.into_iter().skip(1).filter(|(method, _)| *method != "GET") {
        let (method, path): (Method, _) = (method.parse().unwrap(), format!("/auth{route}"));
        let request = |body| alice.request(method.clone(), &path, body);
        check(app.send(request(json(json!([])))).await, 400, &path);
        check(app.send(with(request(None), &[("origin", "https://evil.test")])).await, 400, &path);
        check(app.send(with(request(json(json!({}))), &[("content-type", "text/plain")])).await, 415, &path);
        check(app.send(request(json(large.clone()))).await, 413, &path);
        check(app.send(with(request(None), &[("cookie", &cookies)])).await, 431, &path);
        let elsewhere = format!("/auth/nowhere{route}");
        let of_the_session = ["/signout", "/mfa/info", "/user/email/verify/token"];
        if !of_the_session.contains(&route) && !route.contains("code/") {
            let body = match route {
                "/signin" | "/signup" => credentials(ALICE, PASSWORD),
                "/user/password/reset/token" => an_address(),
                "/user/password/reset" => a_reset(),
                "/user/email/verify" => a_ticket(),
                "/signinup" => a_third_party(),
                _ => json!({ "email": ALICE }),
            };
            check(app.send(alice.request(method.clone(), &elsewhere, json(body))).await, 404, &elsewhere);
        }
        app.store.fail_next(1000);
        let failing = requests(&alice, &flow).into_iter().find(|(what, _)| what.ends_with(&path));
        let answer = app.send(failing.unwrap().1).await;
        app.store.fail_next(0);
        check(answer, 503, &path);
    }
    // A factor that can't start a session here: with a session beside it, and without one.
    for browser in [&alice, &app.browser(Mode::Cookie)] {
        let status = if browser.jar.is_empty() { 401 } else { 400 };
        let request = posted(browser, "/auth/closed/signin", json(credentials(ALICE, PASSWORD)));
        check(app.send(request).await, status, "closed");
    }
    // What is said with 200: wrong, expired, over, malformed by a person, belongs to somebody else.
    let flow = alice.ask_code(ALICE, false).await.ok();
    let code = app.code_after(ALICE, 1).await;
    check(alice.enter(&flow, &wrong(&code), false).await, 200, "a wrong code");
    app.clock.advance(Duration::from_secs(601));
    let late = alice.enter(&flow, &code, false).await;
    late.status("EXPIRED_USER_INPUT_CODE_ERROR");
    check(late, 200, "a late code");
    check(alice.enter(&json!({"deviceId": "", "preAuthSessionId": ""}), "1", false).await, 200, "no flow");
    for (path, body, status) in [
        ("/auth/signin", credentials(ALICE, "wrong 1"), "WRONG_CREDENTIALS_ERROR"),
        ("/auth/signin", credentials("x", "y"), "FIELD_ERROR"),
        ("/auth/signup", credentials(ALICE, PASSWORD), "FIELD_ERROR"),
        ("/auth/signinup/code", json!({"email": "x"}), "GENERAL_ERROR"),
    ] {
        let answer = alice.post(path, body).await;
        answer.status(status);
        check(answer, 200, path);
    }
    let public = TenantId::PUBLIC;
    let other = app.mfa.users().create(&public, &Email::parse(BOB).unwrap()).await.unwrap();
    app.mfa.users().add_email(&other.id, &public, &Email::parse("b@shop.example").unwrap()).await.unwrap();
    alice.sign_in(ALICE).await.ok();
    let flow = alice.ask_code(BOB, true).await.ok();
    let taken = alice.enter(&flow, &app.code(BOB).await, true).await;
    taken.status("SIGN_IN_UP_NOT_ALLOWED");
    check(taken, 200, "somebody else's");
    // 403, from a mount and from a route; 500, from a policy that panics; too many tries.
    app.mfa.tenants().require(&public, [gate]).await.unwrap();
    let half = signed_in(&app).await;
    check(app.send(half.request(Method::GET, "/api/me", None)).await, 403, "a mount");
    let enrol = json(json!({ "email": "c@shop.example", "shouldTryLinkingWithSessionUser": true }));
    check(app.send(posted(&half, "/auth/signinup/code", enrol)).await, 403, "a route");
    let app = TestApp::with(|b| b.policy(Panicking)).await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let trap = Payload::from_json(json!({ "trap": 1 })).unwrap();
    let handle = app.mfa.sessions().list(&app.user(ALICE).await).await.unwrap()[0].handle.clone();
    app.mfa.sessions().merge_payload(&handle, trap).await.unwrap();
    check(app.send(alice.request(Method::GET, "/api/me", None)).await, 500, "a policy");
    check(app.send(alice.request(Method::PUT, "/auth/mfa/info", None)).await, 500, "a policy");
    let builder = Mfa::builder(shop(), Secrets::random().unwrap(), MemoryStore::new());
    let limited = builder.delivery(Outbox::new()).build().unwrap();
    let limited: Router = Router::new().layer(ApiLayer::new(limited));
    let mut alice = app.browser(Mode::Cookie);
    alice.keep(&send(&limited, posted(&alice, "/auth/signup", json(credentials(ALICE, PASSWORD)))).await);
    let ask = || json(json!({ "email": ALICE, "shouldTryLinkingWithSessionUser": true }));
    send(&limited, posted(&alice, "/auth/signinup/code", ask())).await.ok();
    let many = send(&limited, posted(&alice, "/auth/signinup/code", ask())).await;
    many.status("GENERAL_ERROR");
    assert!(many.headers.contains_key("retry-after"));
    check(many, 200, "too many");
    assert_eq!(Vec::from_iter(seen), [200, 400, 401, 403, 404, 413, 415, 431, 500, 503]);
}

async fn signed_in(app: &TestApp) -> Browser {
    let mut alice = app.browser(Mode::Cookie);
    alice.sign_in(ALICE).await.ok();
    alice
}

#[tokio::test]
async fn sec_c10_refresh_clears_where_the_session_is_over_and_nowhere_else() {
    let app = TestApp::with(|b| b.policy(Everyone::new(FactorId::OTP_EMAIL))).await;
    let clears = |answer: &Answer| {
        let (cookies, front) = (answer.cookies().len(), answer.headers.get("front-token"));
        match (cookies, front.map(|front| front == "remove")) {
            (2, Some(true)) => true,
            (0, None) => false,
            other => panic!("{other:?}"),
        }
    };
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    alice.pass_code(ALICE).await;
    alice.sign_in(ALICE).await.ok();
    let mut tab = alice.clone();
    alice.pass_code(ALICE).await;
    // Lost a race to an elevation, failing, malformed, foreign, two sessions at once.
    let superseded = tab.refresh().await;
    superseded.is(409);
    assert!(!clears(&superseded));
    app.store.fail_next(1000);
    let failing = alice.refresh().await;
    app.store.fail_next(0);
    failing.is(503);
    assert!(!clears(&failing));
    let request = |headers: &[(&'static str, &str)]| with(posted(&alice, REFRESH, None), headers);
    let other = signed_up(&app, Mode::Cookie, BOB).await;
    let two = format!("sRefreshToken={}; sRefreshToken={}", refresh_token(&alice), refresh_token(&other));
    for (request, status) in [
        (posted(&alice, REFRESH, Some(json!([]))), 400),
        (request(&[("origin", "https://evil.test")]), 400),
        (request(&[("sec-fetch-site", "cross-site")]), 400),
        (request(&[("cookie", &two)]), 401),
    ] {
        let answer = app.send(request).await;
        answer.is(status);
        assert!(!clears(&answer), "{status}");
    }
    // Nothing, garbage, no proof though nothing says that another site sent it, over, theft.
    let nothing = app.browser(Mode::Cookie).refresh().await;
    let garbage = app.send(request(&[("cookie", "sRefreshToken=x")])).await;
    let unproven = app.send(without(posted(&alice, REFRESH, None), &["rid"])).await;
    let mut ended = signed_in(&app).await;
    app.mfa
        .sessions()
        .revoke(&app.mfa.sessions().list(&app.user(ALICE).await).await.unwrap()[1].handle)
        .await
        .unwrap();
    let ended = ended.refresh().await;
    let mut thief = alice.clone();
    alice.refresh().await.is(200);
    app.clock.advance(Duration::from_secs(31));
    let theft = thief.refresh().await;
    assert_eq!(theft.body["message"], "token theft detected");
    for answer in [nothing, garbage, unproven, ended, theft] {
        answer.is(401);
        assert!(clears(&answer), "{}", answer.text);
    }
}

#[tokio::test]
async fn sec_c14_tokens_are_in_their_cookie_and_nowhere_else() {
    for exposed in [false, true] {
        let app = TestApp::with(|b| if exposed { b.expose_access_token() } else { b }).await;
        let (log, _guard) = Log::start();
        let mut alice = app.browser(Mode::Cookie);
        let mut answers = vec![alice.sign_up(ALICE).await];
        let (mut access, mut refresh) = (BTreeSet::new(), BTreeSet::new());
        let mut keep = |browser: &mut Browser| {
            // An SDK in cookie mode keeps no copy, and so sends none.
            browser.access = None;
            access.extend(browser.jar.get("sAccessToken").cloned());
            refresh.extend(browser.jar.get("sRefreshToken").cloned());
        };
        keep(&mut alice);
        let flow = alice.ask_code(ALICE, true).await.ok();
        answers.push(alice.enter(&flow, &app.code(ALICE).await, true).await);
        keep(&mut alice);
        answers.push(alice.info().await);
        app.mfa.users().judge_anew(&app.user(ALICE).await).await.unwrap();
        answers.push(alice.get("/api/me").await);
        keep(&mut alice);
        answers.push(alice.refresh().await);
        keep(&mut alice);
        answers.push(alice.clone().refresh().await);
        answers.push(alice.sign_in(ALICE).await);
        keep(&mut alice);
        answers.push(alice.sign_out().await);
        assert!(access.len() >= 5 && refresh.len() >= 4, "{} {}", access.len(), refresh.len());
        for answer in &answers {
            for (name, value) in &answer.headers {
                let value = value.to_str().unwrap();
                let holds =
                    |tokens: &BTreeSet<String>| tokens.iter().any(|token| value.contains(token.as_str()));
                let place = match name.as_str() {
                    "set-cookie" if value.starts_with("sAccessToken=") => "access",
                    "set-cookie" if value.starts_with("sRefreshToken=") => "refresh",
                    "st-access-token" if exposed => "access",
                    _ => "none",
                };
                assert!(!holds(&access) || place == "access", "{name}");
                assert!(!holds(&refresh) || place == "refresh", "{name}");
            }
            assert!(
                !access.iter().chain(&refresh).any(|token| answer.text.contains(token)),
                "{}",
                answer.text
            );
            assert!(exposed || !answer.headers.contains_key("st-access-token"));
            assert!(!answer.headers.contains_key("st-refresh-token"));
        }
        assert_eq!(answers[0].headers.contains_key("st-access-token"), exposed);
        for token in access.iter().chain(&refresh) {
            assert!(log.lines("", token).is_empty());
        }
    }
    // The other way round, headers come without cookies.
    let app = TestApp::new().await;
    let mut bob = app.browser(Mode::Header);
    for answer in [bob.sign_up(BOB).await, bob.refresh().await, bob.sign_out().await] {
        assert!(answer.cookies().is_empty() && answer.headers.contains_key("st-access-token"));
        assert!(!answer.text.contains("eyJ"), "{}", answer.text);
    }
    app.send(bare("GET", "/api/me")).await.is(401);
}
