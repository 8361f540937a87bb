//! Step-up: rows S02 and S03, what completing a factor in a session does to the tokens there were before; in
//! the modules below, what guards ask for and how they refuse.

use std::{sync::atomic::Ordering, time::Duration};

use axum::{Router, routing::post};
use serde_json::{Value, json};
use tower_mfa::{FactorId, MfaLayer, SessionExtractor, config::AntiCsrf, policy::Everyone};

use crate::{
    routes::{Wants, everything_with, routes},
    spy::{
        ALICE, NUMBER, handle, linking, posted, refresh_token, signed_up, token_headers, token_in, watched,
        with,
    },
    support::{
        Answer, Browser, Mode, PASSWORD, TestApp, credentials,
        provider::{AtOnce, returned},
        send, wrong,
    },
};

mod challenges;
mod guards;

const MODES: [Mode; 2] = [Mode::Cookie, Mode::Header];

fn guess(flow: &Value, code: &str) -> Value {
    json!({ "deviceId": flow["deviceId"], "preAuthSessionId": flow["preAuthSessionId"], "userInputCode": code })
}

#[tokio::test]
async fn sec_s02_ages_of_tokens_by_endpoint() {
    const AGAIN: &str = "try refresh token";
    for mode in MODES {
        let provider = AtOnce::default();
        let app = everything_with(&provider, |b| b.policy(Everyone::new(FactorId::OTP_PHONE))).await;
        let exact: Router = Router::new()
            .route("/exact", post(|_: SessionExtractor| async {}))
            .layer(MfaLayer::required(app.mfa.clone()).check_store().without_mfa());
        signed_up(&app, mode, ALICE).await.pass_code(NUMBER).await;
        let mut alice = app.browser(mode);
        alice.sign_in(ALICE).await.ok();
        let before = alice.clone();
        let flow = alice.ask_code(NUMBER, true).await.ok();
        let code = app.code_after(NUMBER, 1).await;
        alice.enter(&flow, &code, true).await.ok();
        let raised = alice.clone();
        // Minted with the token that the elevation replaced: its claims stay as they were.
        let mut old = before.clone();
        assert_eq!(old.get("/api/me").await.body["message"], "invalid claim");
        old.get("/api/half").await.is(200);
        assert_eq!(old.claim()["v"], false);
        // It mints nothing better: not by the info route, not by a store check.
        let info = old.info().await;
        assert!(info.body["message"] == AGAIN && token_headers(&info).is_empty(), "{}", info.text);
        let checked = send(&exact, posted(&old, "/exact", None)).await;
        assert!(checked.body["message"] == AGAIN && token_headers(&checked).is_empty(), "{}", checked.text);
        // Asking for a code mints nothing, and what a completion gives is the shared successor.
        let seen = app.sent_to(NUMBER);
        let flow = old.ask_code(NUMBER, true).await.ok();
        let code = app.code_after(NUMBER, seen).await;
        old.enter(&flow, &code, true).await.ok();
        assert_eq!(refresh_token(&old), refresh_token(&raised));
        // One further on, the first one completes nothing, and no attempt is charged for it.
        let mut tab = raised.clone();
        let live_flow = tab.ask_code(NUMBER, true).await.ok();
        let live_code = app.code_after(NUMBER, seen + 1).await;
        tab.post("/auth/user/email/verify/token", json!({})).await.ok();
        let token = token_in(app.notice_after(ALICE, 0).await.link().unwrap().expose());
        let opened = json!({ "method": "token", "token": token });
        alice = raised.clone();
        alice.refresh().await.is(200);
        let counted = || {
            let counters = app.mfa.counters();
            (counters.code_comparisons, counters.password_hashes, provider.0.load(Ordering::SeqCst))
        };
        let (unspent, stale) = (counted(), before.clone());
        let mut asked = Vec::new();
        for (method, route, wants, _, body) in routes() {
            // Whoever refreshes shows no access token, and whoever signs out may (row S12).
            if wants == Wants::Nothing || ["/session/refresh", "/signout"].contains(&route) {
                continue;
            }
            let bodies = match route {
                "/signinup/code" => vec![json!({ "phoneNumber": NUMBER })],
                "/signinup/code/resend" => vec![guess(&live_flow, "")],
                "/signinup/code/consume" => {
                    vec![guess(&live_flow, &wrong(&live_code)), guess(&live_flow, &live_code)]
                }
                "/signin" => vec![credentials(ALICE, "wrong horse 1"), credentials(ALICE, PASSWORD)],
                "/signup" => vec![credentials("new@shop.example", PASSWORD)],
                "/signinup" => vec![returned(&json!({}), json!({ "code": "x" }))],
                "/user/email/verify" if method == "POST" => vec![opened.clone()],
                _ => vec![body],
            };
            for body in bodies {
                let body = if wants == Wants::IfLinking {
                    linking(body)
                } else {
                    Some(body).filter(|b| !b.is_null())
                };
                let request = stale.request(method.parse().unwrap(), &format!("/auth{route}"), body);
                let answer = app.send(request).await;
                let told = (answer.status.as_u16(), &answer.body["message"]);
                assert_eq!(told, (401, &json!(AGAIN)), "{method} {route}: {}", answer.text);
                assert!(token_headers(&answer).is_empty(), "{method} {route}");
                asked.push(route);
            }
        }
        assert!(asked.contains(&"/signinup") && asked.contains(&"/user/email/verify"), "{asked:?}");
        assert_eq!(counted(), unspent);
        assert_eq!((app.sent_to(NUMBER), app.sent_to(ALICE)), (seen + 2, 1));
        // The flow is as it was: the live token's first wrong guess is the first that counts.
        let miss = alice.enter(&live_flow, &wrong(&live_code), true).await;
        miss.status("INCORRECT_USER_INPUT_CODE_ERROR");
        assert_eq!(miss.body["failedCodeInputAttemptCount"], 1);
        alice.enter(&live_flow, &live_code, true).await.ok();
        alice.get("/api/me").await.is(200);
        // And so is the link.
        alice.post("/auth/user/email/verify", opened).await.ok();
        assert_eq!(alice.payload("st-ev")["v"], true);
    }
}

#[tokio::test]
async fn sec_s02_a_lost_elevation_costs_the_session_and_is_no_theft() {
    for mode in MODES {
        let (app, spy) = watched().await;
        signed_up(&app, mode, ALICE).await.pass_code(ALICE).await;
        let mut alice = app.browser(mode);
        alice.sign_in(ALICE).await.ok();
        let (mut lost, first) = (alice.clone(), refresh_token(&alice));
        // The answer never arrives.
        alice.pass_code(ALICE).await;
        assert_ne!(refresh_token(&alice), first);
        for secs in [0, 29] {
            app.clock.advance(Duration::from_secs(secs));
            let superseded = lost.refresh().await;
            superseded.is(409);
            assert!(token_headers(&superseded).is_empty());
        }
        app.clock.advance(Duration::from_secs(2));
        let over = lost.refresh().await;
        over.is(401);
        assert_eq!(over.body["message"], "unauthorised");
        assert_eq!(over.headers["front-token"], "remove");
        assert!(spy.audited().await.contains(&"pre-elevation-reuse".to_owned()));
        alice.refresh().await.is(401);
        alice.get("/api/me").await.is(401);
        assert!(!spy.audited().await.contains(&"refresh-reuse".to_owned()));
    }
}

#[tokio::test]
async fn sec_s02_s03_proving_a_factor_again_renews_every_token() {
    let app = TestApp::with(|b| b.anti_csrf(AntiCsrf::Token)).await;
    let mut alice = app.browser(Mode::Cookie);
    let csrf = |answer: &Answer| answer.headers["anti-csrf"].to_str().unwrap().to_owned();
    let first = csrf(&alice.sign_up(ALICE).await);
    let before = alice.clone();
    let request = posted(&alice, "/auth/signin", linking(credentials(ALICE, PASSWORD)));
    app.clock.advance(Duration::from_secs(60));
    let answer = app.send(with(request, &[("anti-csrf", &first)])).await;
    answer.is(200);
    alice.keep(&answer);
    assert_ne!(csrf(&answer), first);
    for name in ["sAccessToken", "sRefreshToken"] {
        assert_ne!(alice.jar[name], before.jar[name], "{name}");
    }
    assert_eq!(handle(&alice), handle(&before));
    let done = |browser: &Browser| browser.claim()["c"]["emailpassword"].as_i64().unwrap();
    assert_eq!(done(&alice), done(&before) + 60);
}

#[tokio::test]
async fn sec_s03_a_step_up_in_a_full_session_is_an_elevation() {
    for mode in MODES {
        let app = TestApp::new().await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        alice.get("/api/me").await.is(200);
        for proof in ["password", "code"] {
            let (mut before, old) = (alice.clone(), refresh_token(&alice));
            match proof {
                "password" => {
                    let body = linking(credentials(ALICE, PASSWORD)).unwrap();
                    alice.post("/auth/signin", body).await.ok();
                }
                _ => drop(alice.pass_code(ALICE).await),
            }
            assert_ne!(refresh_token(&alice), old, "{proof}");
            before.refresh().await.is(409);
            before.info().await.is(401);
            alice.refresh().await.is(200);
            alice.get("/api/me").await.is(200);
        }
        // And whoever used the new one already calls the old one stolen.
        let mut thief = alice.clone();
        alice.pass_code(ALICE).await;
        alice.refresh().await.is(200);
        assert_eq!(thief.refresh().await.body["message"], "token theft detected");
        alice.refresh().await.is(401);
        // Signing in anew while signed in is another session, and the end of the first.
        alice.sign_in(ALICE).await.ok();
        let mut first = alice.clone();
        alice.sign_in(ALICE).await.ok();
        assert_ne!(handle(&alice), handle(&first));
        first.get("/api/me").await.is(401);
        first.refresh().await.is(401);
        alice.refresh().await.is(200);
    }
}
