//! Rows S12 and S19: a store that fails in the middle of something, and handlers that do.

use std::sync::{Arc, Mutex};

use axum::{Router, routing::post};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tower_mfa::{
    MfaLayer, Session, SessionExtractor,
    ident::{ErrorKind, Payload},
};

use crate::{
    spy::{ALICE, BOB, Spy, linking, posted, refresh_token, signed_up, token_headers, watched},
    support::{Answer, Browser, Mode, PASSWORD, TestApp, credentials, send, wrong},
};

const MODES: [Mode; 2] = [Mode::Cookie, Mode::Header];

fn guess(flow: &Value, code: &str) -> Value {
    json!({ "deviceId": flow["deviceId"], "preAuthSessionId": flow["preAuthSessionId"], "userInputCode": code })
}

/// Sends the same request while the store fails at its first call, its second, and so on; each failure is
/// 503 and takes no token away. Answers the first success, and how many failures there were.
async fn at_every_call(
    app: &TestApp,
    spy: &Spy,
    browser: &Browser,
    what: (Method, &str, Option<Value>),
) -> (Answer, u64) {
    let (method, path, body) = what;
    for calls in 0..200 {
        spy.fail_after(calls);
        let answer = app.send(browser.request(method.clone(), path, body.clone())).await;
        spy.fail_after(u64::MAX);
        if answer.status != 503 {
            assert_eq!(answer.status, 200, "{path} {}", answer.text);
            return (answer, calls);
        }
        assert_eq!(answer.body, json!({"message": "temporarily unavailable"}), "{path}");
        assert!(answer.headers.contains_key("retry-after"), "{path}");
        assert!(token_headers(&answer).is_empty(), "{path} after {calls}: {:?}", answer.headers);
    }
    panic!("{path} never came to its end")
}

#[tokio::test]
async fn sec_s12_s19_whatever_call_fails_the_answer_is_503_and_the_cookies_stay() {
    for mode in MODES {
        let (app, spy) = watched().await;
        let mut alice = app.browser(mode);
        let mut steps = Vec::new();
        // A password takes a hash each time, so it is tried in one mode.
        if mode == Mode::Cookie {
            let sign_up = (Method::POST, "/auth/signup", Some(credentials(ALICE, PASSWORD)));
            let (answer, calls) = at_every_call(&app, &spy, &alice, sign_up).await;
            assert_eq!(answer.body["status"], "OK", "what failed left no half a user");
            steps.push(calls);
            alice.keep(&answer);
        } else {
            alice.sign_up(ALICE).await.ok();
        }
        let create = (Method::POST, "/auth/signinup/code", linking(json!({ "email": ALICE })));
        let (answer, calls) = at_every_call(&app, &spy, &alice, create).await;
        steps.push(calls);
        let (flow, code) = (answer.ok(), app.code(ALICE).await);
        // Wrong guesses are charged before they are compared; a failure in between is none that is free.
        let miss = (Method::POST, "/auth/signinup/code/consume", linking(guess(&flow, &wrong(&code))));
        let (answer, _) = at_every_call(&app, &spy, &alice, miss).await;
        answer.status("INCORRECT_USER_INPUT_CODE_ERROR");
        let counted = answer.body["failedCodeInputAttemptCount"].as_u64().unwrap();
        assert!(counted >= app.mfa.counters().code_comparisons, "{counted}");
        let info = (Method::PUT, "/auth/mfa/info", None);
        let (answer, calls) = at_every_call(&app, &spy, &alice, info).await;
        steps.push(calls);
        alice.keep(&answer);
        let flow = alice.ask_code(ALICE, true).await.ok();
        let code = app.code_after(ALICE, 1).await;
        let before = refresh_token(&alice);
        // A right code, too, is used up by the commit that has its effect.
        let mut attempts = 0;
        let entered = loop {
            spy.fail_after(4 + attempts);
            let body = linking(guess(&flow, &code));
            let answer = app.send(posted(&alice, "/auth/signinup/code/consume", body)).await;
            spy.fail_after(u64::MAX);
            match answer.status.as_u16() {
                503 => assert!(token_headers(&answer).is_empty()),
                _ => break answer,
            }
            alice.get("/api/half").await.is(200);
            attempts += 4;
        };
        assert!(attempts > 0, "some of them failed");
        match entered.body["status"].as_str().unwrap() {
            "OK" => alice.keep(&entered),
            // Charged at each try, as it must be.
            _ => drop(alice.pass_code(ALICE).await),
        }
        assert_ne!(refresh_token(&alice), before);
        alice.get("/api/me").await.is(200);
        let refresh = (Method::POST, "/auth/session/refresh", None);
        let (answer, calls) = at_every_call(&app, &spy, &alice, refresh).await;
        steps.push(calls);
        alice.keep(&answer);
        alice.get("/api/me").await.is(200);
        if mode == Mode::Cookie {
            let sign_in = (Method::POST, "/auth/signin", Some(credentials(ALICE, PASSWORD)));
            let (_, calls) = at_every_call(&app, &spy, &app.browser(mode), sign_in).await;
            steps.push(calls);
        }
        // The session goes on until it is truly over.
        let out = (Method::POST, "/auth/signout", None);
        let (answer, calls) = at_every_call(&app, &spy, &alice, out).await;
        steps.push(calls);
        assert_eq!(answer.headers["front-token"], "remove");
        alice.get("/api/me").await.is(401);
        alice.refresh().await.is(401);
        assert!(steps.iter().all(|calls| *calls >= 2), "{steps:?}");
    }
}

#[tokio::test]
async fn sec_s19_a_handler_learns_that_its_write_failed_and_so_does_the_client() {
    async fn note(session: SessionExtractor) -> Result<&'static str, StatusCode> {
        let update = Payload::from_json(json!({ "note": 1 })).unwrap();
        match session.merge_payload(update).await {
            Ok(()) => Ok("noted"),
            Err(error) if error.kind() == ErrorKind::Unavailable => Err(StatusCode::SERVICE_UNAVAILABLE),
            Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
    for mode in MODES {
        let (app, spy) = watched().await;
        let alice = signed_up(&app, mode, ALICE).await;
        let router: Router =
            Router::new().route("/note", post(note)).layer(MfaLayer::required(app.mfa.clone()).without_mfa());
        let mut failures = 0;
        let noted = loop {
            spy.fail_after(failures);
            let answer = send(&router, posted(&alice, "/note", None)).await;
            spy.fail_after(u64::MAX);
            if answer.status == 200 {
                break answer;
            }
            answer.is(503);
            assert!(token_headers(&answer).is_empty(), "{:?}", answer.headers);
            let rows = spy.records(&["t", "public", "session"]).await;
            assert!(rows.iter().all(|(_, row)| row["payload"]["note"].is_null()));
            failures += 1;
        };
        assert!(failures >= 2);
        // What the answer says was committed before it was sent.
        assert_eq!(noted.text, "noted");
        let rows = spy.records(&["t", "public", "session"]).await;
        assert_eq!(rows[0].1["payload"]["note"], 1);
        assert!(noted.headers.contains_key("front-token"));
    }
}

#[tokio::test]
async fn sec_s19_a_5xx_undoes_nothing() {
    async fn broken(headers: HeaderMap, session: SessionExtractor) -> StatusCode {
        if headers.contains_key("x-revoke") {
            session.revoke().await.unwrap();
        } else {
            session.merge_payload(Payload::from_json(json!({ "note": 1 })).unwrap()).await.unwrap();
        }
        StatusCode::INTERNAL_SERVER_ERROR
    }
    for mode in MODES {
        let (app, spy) = watched().await;
        let email = if mode == Mode::Cookie { ALICE } else { BOB };
        let mut alice = signed_up(&app, mode, email).await;
        let router: Router =
            Router::new().route("/", post(broken)).layer(MfaLayer::required(app.mfa.clone()).without_mfa());
        let noted = send(&router, posted(&alice, "/", None)).await;
        noted.is(500);
        alice.keep(&noted);
        assert_eq!(alice.front.as_ref().unwrap()["up"]["note"], 1);
        alice.refresh().await.is(200);
        assert_eq!(alice.front.as_ref().unwrap()["up"]["note"], 1);
        let mut request = posted(&alice, "/", None);
        request.headers_mut().insert("x-revoke", "1".parse().unwrap());
        let mut copy = alice.clone();
        let revoked = send(&router, request).await;
        revoked.is(500);
        assert_eq!(revoked.headers["front-token"], "remove");
        copy.get("/api/half").await.is(401);
        copy.refresh().await.is(401);
        assert!(spy.audited().await.contains(&"session-revoked".to_owned()));
    }
}

#[tokio::test]
async fn sec_s19_nothing_is_written_once_the_head_was_sent() {
    let (app, spy) = watched().await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let kept: Arc<Mutex<Option<Session>>> = Arc::default();
    let slot = Arc::clone(&kept);
    let keep = move |session: SessionExtractor| {
        let slot = Arc::clone(&slot);
        async move {
            *slot.lock().unwrap() = Some(session.into_inner());
        }
    };
    let router: Router =
        Router::new().route("/", post(keep)).layer(MfaLayer::required(app.mfa.clone()).without_mfa());
    send(&router, posted(&alice, "/", None)).await.is(200);
    let session = kept.lock().unwrap().take().unwrap();
    let commits = spy.log().await.len();
    let late = session.merge_payload(Payload::from_json(json!({ "note": 1 })).unwrap()).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(session.revoke().await.unwrap_err().kind(), ErrorKind::Invalid);
    let others = app.mfa.sessions().revoke_others(&session).await;
    assert_eq!(others.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(spy.log().await.len(), commits);
}
