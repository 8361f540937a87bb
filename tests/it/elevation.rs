//! Row S02 as a table: how old an access or refresh token is, and what each endpoint says to it.

use std::time::Duration;

use axum::{Router, routing::post};
use http::{Method, StatusCode};
use serde_json::json;
use tower::ServiceExt as _;
use tower_mfa::{MfaLayer, SessionExtractor};

use crate::{
    spy::ALICE,
    support::{Answer, Browser, Mode, TestApp, wrong},
};

/// How old a client's tokens are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Age {
    Current,
    /// Another one was made by a refresh, and is unused.
    BeforeRotation,
    /// Another one was made by a completion, and is unused.
    BeforeElevation,
    /// As before, and the window is over.
    LongBeforeElevation,
    /// Two completions ago.
    TwoElevations,
    /// The one made by the completion was used.
    ElevationUsed,
}

const AGES: [Age; 6] = [
    Age::Current,
    Age::BeforeRotation,
    Age::BeforeElevation,
    Age::LongBeforeElevation,
    Age::TwoElevations,
    Age::ElevationUsed,
];

/// A client with tokens of an age, and the one with the session's newest.
async fn aged(app: &TestApp, mode: Mode, age: Age) -> (Browser, Browser) {
    let mut newest = app.browser(mode);
    newest.by_code(ALICE).await;
    // Both factors' times differ from now on.
    app.clock.advance(Duration::from_secs(2));
    let old = newest.clone();
    match age {
        Age::Current => {}
        Age::BeforeRotation => drop(newest.refresh().await.is(200)),
        Age::BeforeElevation => drop(newest.pass_code(ALICE).await),
        Age::LongBeforeElevation => {
            newest.pass_code(ALICE).await;
            app.clock.advance(Duration::from_secs(31));
        }
        Age::TwoElevations => {
            newest.pass_code(ALICE).await;
            newest.pass_code(ALICE).await;
        }
        Age::ElevationUsed => {
            newest.pass_code(ALICE).await;
            newest.refresh().await.is(200);
        }
    }
    (old, newest)
}

/// What an answer comes to.
fn class(answer: &Answer) -> &str {
    match answer.status {
        StatusCode::OK => "ok",
        StatusCode::CONFLICT => "superseded",
        _ => answer.body["message"].as_str().unwrap(),
    }
}

const OK: &str = "ok";
const AGAIN: &str = "try refresh token";

#[tokio::test]
async fn sec_s02_c_no_endpoint_makes_an_older_access_token_better() {
    let app = TestApp::new().await;
    let merge = |session: SessionExtractor| async move {
        let update = tower_mfa::ident::Payload::from_json(json!({ "plan": "gold" })).unwrap();
        session.merge_payload(update).await.map_err(|error| match error.kind() {
            tower_mfa::ident::ErrorKind::StaleToken => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        })
    };
    let guarded = Router::new().route("/merge", post(merge)).layer(MfaLayer::required(app.mfa.clone()));
    for mode in [Mode::Cookie, Mode::Header] {
        for age in AGES {
            // Completions are asked in a test of their own.
            for endpoint in ["/api/me", "/auth/mfa/info", "/merge", "/auth/signout"] {
                let (mut old, mut newest) = aged(&app, mode, age).await;
                let (before, rows) = (old.clone(), app.store.sessions().await);
                let current = age == Age::Current;
                let said = match endpoint {
                    "/merge" => {
                        let request = old.request(Method::POST, endpoint, None);
                        let response = guarded.clone().oneshot(request).await.unwrap();
                        let renewed = response.headers().contains_key("front-token");
                        assert_eq!(renewed, current, "{mode:?} {age:?}");
                        if response.status() == 200 { OK } else { AGAIN }.to_owned()
                    }
                    "/auth/mfa/info" => class(&old.info().await).to_owned(),
                    "/auth/signout" => class(&old.sign_out().await).to_owned(),
                    _ => class(&old.get(endpoint).await).to_owned(),
                };
                let expected = match endpoint {
                    // It says what it said, until its end; and any of them ends the session (row S12).
                    "/api/me" | "/auth/signout" => OK,
                    _ if current => OK,
                    _ => AGAIN,
                };
                assert_eq!(said, expected, "{mode:?} {age:?} {endpoint}");
                if endpoint == "/auth/signout" {
                    newest.refresh().await.is(401);
                } else if !current {
                    assert_eq!(old.access_token(), before.access_token(), "{mode:?} {age:?} {endpoint}");
                    assert_eq!(app.store.sessions().await, rows, "{mode:?} {age:?} {endpoint}");
                    newest.refresh().await.is(200);
                }
            }
        }
    }
}

#[tokio::test]
async fn sec_s02_d_a_completion_shares_the_successor_or_is_told_to_refresh_before_it_is_charged() {
    let app = TestApp::new().await;
    for mode in [Mode::Cookie, Mode::Header] {
        for age in AGES {
            let (mut old, mut newest) = aged(&app, mode, age).await;
            let (shares, rows) = (age == Age::BeforeElevation, app.store.sessions().await);
            let expected = if age == Age::Current || shares { OK } else { AGAIN };
            let seen = app.sent_to(ALICE);
            assert_eq!(class(&old.ask_code(ALICE, true).await), expected, "{mode:?} {age:?}");
            if expected == AGAIN {
                // Not even a message, and a guess by it costs nothing.
                let flow = newest.ask_code(ALICE, true).await.ok();
                let code = app.code_after(ALICE, seen).await;
                assert_eq!(app.sent_to(ALICE), seen + 1);
                let compared = app.mfa.counters().code_comparisons;
                for guess in [wrong(&code), code.clone()] {
                    assert_eq!(class(&old.enter(&flow, &guess, true).await), AGAIN, "{mode:?} {age:?}");
                }
                assert_eq!(app.mfa.counters().code_comparisons, compared);
                assert_eq!(app.store.sessions().await, rows);
                let miss = newest.enter(&flow, &wrong(&code), true).await;
                assert_eq!(miss.body["failedCodeInputAttemptCount"], 1, "{mode:?} {age:?}");
                newest.enter(&flow, &code, true).await.ok();
                continue;
            }
            let (was, then) = (newest.refresh_token().cloned(), newest.claim());
            app.clock.advance(Duration::from_secs(1));
            old.pass_code(ALICE).await;
            assert_eq!(old.refresh_token() == was.as_ref(), shares, "{mode:?} {age:?}");
            assert!(old.claim()["c"]["otp-email"].as_i64() > then["c"]["otp-email"].as_i64());
            // Whichever of the two answers came last, the client goes on.
            let mut last = if shares { newest } else { old.clone() };
            last.refresh().await.is(200);
            if shares {
                old.refresh().await.is(200);
                assert_eq!(old.refresh_token(), last.refresh_token());
            }
        }
    }
}

#[tokio::test]
async fn sec_s02_a_b_an_earlier_refresh_token_never_yields_one_again() {
    let app = TestApp::new().await;
    for mode in [Mode::Cookie, Mode::Header] {
        for age in AGES {
            let (mut old, mut newest) = aged(&app, mode, age).await;
            let first = (old.refresh_token().cloned(), old.access_token().cloned());
            let answer = old.refresh().await;
            let (expected, lives) = match age {
                Age::Current | Age::BeforeRotation => (OK, true),
                Age::BeforeElevation | Age::TwoElevations => ("superseded", true),
                Age::LongBeforeElevation => ("unauthorised", false),
                Age::ElevationUsed => ("token theft detected", false),
            };
            assert_eq!(class(&answer), expected, "{mode:?} {age:?}");
            match expected {
                OK => assert_ne!(old.refresh_token(), first.0.as_ref()),
                // An honest second tab keeps what it has, and asks again.
                "superseded" => assert_eq!(
                    (old.refresh_token(), old.access_token()),
                    (first.0.as_ref(), first.1.as_ref())
                ),
                _ => assert_eq!(old.refresh_token(), None, "{mode:?} {age:?}"),
            }
            let next = if age == Age::Current { &mut old } else { &mut newest };
            assert_eq!(next.refresh().await.status == StatusCode::OK, lives, "{mode:?} {age:?}");
        }
    }
}

/// Everything that goes with the refresh token is new as well.
#[tokio::test]
async fn sec_s02_a_a_completion_renews_all_tokens() {
    use tower_mfa::config::AntiCsrf;
    let app = TestApp::with(|b| b.anti_csrf(AntiCsrf::Token)).await;
    let mut alice = app.browser(Mode::Cookie);
    let flow = alice.ask_code(ALICE, false).await.ok();
    let code = app.code(ALICE).await;
    let first = alice.enter(&flow, &code, false).await;
    let proof = first.headers["anti-csrf"].clone();
    let before = alice.clone();
    let with = |browser: &Browser, path: &str, body, proof: &http::HeaderValue| {
        let mut request = browser.request(Method::POST, path, Some(body));
        request.headers_mut().insert("anti-csrf", proof.clone());
        request
    };
    let body = json!({ "email": ALICE, "shouldTryLinkingWithSessionUser": true });
    let flow = app.send(with(&alice, "/auth/signinup/code", body, &proof)).await.ok();
    let body = json!({
        "deviceId": flow["deviceId"],
        "preAuthSessionId": flow["preAuthSessionId"],
        "userInputCode": app.code_after(ALICE, 1).await,
        "shouldTryLinkingWithSessionUser": true,
    });
    let done = app.send(with(&alice, "/auth/signinup/code/consume", body, &proof)).await;
    alice.keep(&done);
    assert_ne!(done.headers["anti-csrf"], proof);
    assert_ne!(alice.refresh_token(), before.refresh_token());
    assert_ne!(alice.access_token(), before.access_token());
    // The old proof doesn't go with the new tokens.
    app.send(with(&alice, "/api/me", json!({}), &proof)).await.is(401);
    app.send(with(&alice, "/api/me", json!({}), &done.headers["anti-csrf"])).await.is(200);
}
