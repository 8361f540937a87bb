//! Step-up: rows S02 and S03, what completing a factor in a session does to the tokens there were before; in
//! the modules below, what guards ask for and how they refuse.

use std::time::Duration;

use axum::{Router, routing::post};
use http::Method;
use serde_json::{Value, json};
use tower_mfa::{MfaLayer, SessionExtractor, config::AntiCsrf};

use crate::{
    spy::{ALICE, everyone, handle, linking, posted, refresh_token, signed_up, token_headers, watched, with},
    support::{Answer, Browser, Mode, PASSWORD, TestApp, credentials, send, wrong},
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
        let app = everyone().await;
        let exact: Router = Router::new()
            .route("/exact", post(|_: SessionExtractor| async {}))
            .layer(MfaLayer::required(app.mfa.clone()).check_store().without_mfa());
        signed_up(&app, mode, ALICE).await.pass_code(ALICE).await;
        let mut alice = app.browser(mode);
        alice.sign_in(ALICE).await.ok();
        let before = alice.clone();
        let flow = alice.ask_code(ALICE, true).await.ok();
        let code = app.code_after(ALICE, 1).await;
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
        let seen = app.sent_to(ALICE);
        let flow = old.ask_code(ALICE, true).await.ok();
        let code = app.code_after(ALICE, seen).await;
        old.enter(&flow, &code, true).await.ok();
        assert_eq!(refresh_token(&old), refresh_token(&raised));
        // One further on, the first one completes nothing, and no attempt is charged for it.
        let mut tab = raised.clone();
        let live_flow = tab.ask_code(ALICE, true).await.ok();
        let live_code = app.code_after(ALICE, seen + 1).await;
        alice = raised.clone();
        alice.refresh().await.is(200);
        let comparisons = app.mfa.counters().code_comparisons;
        let stale = before.clone();
        for (method, path, body) in [
            (Method::PUT, "/auth/mfa/info", Some(json!({}))),
            (Method::POST, "/auth/signinup/code", linking(json!({ "email": ALICE }))),
            (Method::POST, "/auth/signinup/code/resend", linking(guess(&live_flow, ""))),
            (Method::POST, "/auth/signinup/code/consume", linking(guess(&live_flow, &wrong(&live_code)))),
            (Method::POST, "/auth/signinup/code/consume", linking(guess(&live_flow, &live_code))),
            (Method::POST, "/auth/signin", linking(credentials(ALICE, PASSWORD))),
            (Method::POST, "/auth/signup", linking(credentials("new@shop.example", PASSWORD))),
        ] {
            let answer = app.send(stale.request(method, path, body)).await;
            assert_eq!((answer.status.as_u16(), &answer.body["message"]), (401, &json!(AGAIN)), "{path}");
            assert!(token_headers(&answer).is_empty(), "{path}");
        }
        assert_eq!(app.mfa.counters().code_comparisons, comparisons);
        assert_eq!(app.sent_to(ALICE), seen + 2);
        // The flow is as it was: the live token's first wrong guess is the first that counts.
        let miss = alice.enter(&live_flow, &wrong(&live_code), true).await;
        miss.status("INCORRECT_USER_INPUT_CODE_ERROR");
        assert_eq!(miss.body["failedCodeInputAttemptCount"], 1);
        alice.enter(&live_flow, &live_code, true).await.ok();
        alice.get("/api/me").await.is(200);
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
