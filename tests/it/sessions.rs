//! Rows S01, S07, S12, S13 and S15: what a session is from its beginning to its end.

use std::time::Duration;

use axum::{Router, routing::post};
use http::Method;
use serde_json::{Value, json};
use tower_mfa::{MfaLayer, SessionExtractor, ident::Payload, store::MemoryStore};

use crate::{
    spy::{
        ALICE, BOB, SetCookie, bare, everyone, handle, linking, posted, refresh_token, shop, signed_up,
        token_headers, watched, with, without,
    },
    support::{Answer, Mode, PASSWORD, TestApp, credentials, send},
};

const MODES: [Mode; 2] = [Mode::Cookie, Mode::Header];

async fn note(session: SessionExtractor) {
    session.merge_payload(Payload::from_json(json!({ "note": "mine" })).unwrap()).await.unwrap();
}

#[tokio::test]
async fn sec_s01_a_sign_in_takes_nothing_over_from_what_was_there() {
    for mode in MODES {
        let app = TestApp::new().await;
        // Mallory's own session, planted into Alice's browser, with something in it.
        let mut mallory = signed_up(&app, mode, BOB).await;
        let router: Router =
            Router::new().route("/note", post(note)).layer(MfaLayer::required(app.mfa.clone()));
        mallory.keep(&send(&router, posted(&mallory, "/note", None)).await);
        mallory.get("/api/me").await.is(200);
        let mut alice = signed_up(&app, mode, ALICE).await;
        alice.sign_out().await.ok();
        for (name, sign_in) in [("password", true), ("code", false)] {
            let mut planted = mallory.clone();
            let handle_before = handle(&planted);
            let tokens = (
                refresh_token(&planted),
                planted.access.clone().or(planted.jar.get("sAccessToken").cloned()),
            );
            if sign_in {
                // What a client asks for by name is nothing to us.
                let mut body = credentials(ALICE, PASSWORD);
                body["sessionHandle"] = json!(handle_before);
                planted.post("/auth/signin", body).await.is(200);
            } else {
                let seen = app.sent_to(ALICE);
                let flow = planted.ask_code(ALICE, false).await.ok();
                let code = app.code_after(ALICE, seen).await;
                planted.enter(&flow, &code, false).await.ok();
            }
            let up = planted.front.as_ref().unwrap()["up"].clone();
            assert!(handle(&planted) != handle_before && up["note"].is_null(), "{name}: {up}");
            let now = (
                refresh_token(&planted),
                planted.access.clone().or(planted.jar.get("sAccessToken").cloned()),
            );
            assert!(now.0 != tokens.0 && now.1 != tokens.1, "{name}");
            assert_ne!(up["sub"], mallory.front.as_ref().unwrap()["up"]["sub"], "{name}");
            // What was planted is over for whoever planted it.
            mallory.get("/api/me").await.is(401);
            mallory.refresh().await.is(401);
            planted.get("/api/me").await.is(200);
            mallory = app.browser(mode);
            mallory.sign_in(BOB).await.ok();
        }
        // A token that isn't good is as if there were none, and no wish of the client's names a handle.
        let mut odd = app.browser(Mode::Header);
        odd.access = Some("x".to_owned());
        odd.sign_in(ALICE).await.ok();
    }
}

#[tokio::test]
async fn sec_s01_a_foreign_page_ends_nobodys_session_by_signing_in() {
    let app = TestApp::new().await;
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    signed_up(&app, Mode::Cookie, BOB).await;
    // Without the proof the cookie is not used, and so it doesn't end.
    let request = posted(&alice, "/auth/signin", Some(credentials(BOB, PASSWORD)));
    app.send(without(request, &["rid"])).await.ok();
    alice.get("/api/me").await.is(200);
    alice.refresh().await.is(200);
}

#[tokio::test]
async fn sec_s07_a_revoked_session_is_over_everywhere() {
    let store = MemoryStore::new();
    let secrets = tower_mfa::config::Secrets::random().unwrap();
    let here = TestApp::on(shop(), secrets.clone(), store.clone(), |b| b).await;
    // Another process on the same store, at the same time.
    let there = TestApp::on(shop(), secrets, store, |b| b.clock(here.clock.clone())).await;
    let on = |app: &TestApp, layer: MfaLayer| -> Router {
        let _ = app;
        Router::new().route("/", post(|_: SessionExtractor| async {})).layer(layer)
    };
    let exact = on(&there, MfaLayer::required(there.mfa.clone()).check_store());
    let plain = on(&there, MfaLayer::required(there.mfa.clone()));
    for mode in MODES {
        let email = if mode == Mode::Cookie { ALICE } else { BOB };
        let mut alice = signed_up(&here, mode, email).await;
        let user = here.user(email).await;
        let mut other = here.browser(mode);
        other.sign_in(email).await.ok();
        send(&exact, posted(&alice, "/", None)).await.is(200);
        send(&plain, posted(&alice, "/", None)).await.is(200);
        let mine = here.mfa.sessions().list(&user).await.unwrap()[0].handle.clone();
        assert_eq!(mine.as_str(), handle(&alice));
        assert!(here.mfa.sessions().revoke(&mine).await.unwrap());
        // At once: the refresh on any node, the mount that asks the store, and this process.
        assert_eq!(send(&exact, posted(&alice, "/", None)).await.body["message"], "unauthorised");
        alice.clone().get("/api/me").await.is(401);
        there.send(posted(&alice, "/auth/session/refresh", None)).await.is(401);
        here.send(posted(&alice, "/auth/session/refresh", None)).await.is(401);
        // By the feed, which is read every second.
        let start = std::time::Instant::now();
        while send(&plain, posted(&alice, "/", None)).await.status == 200 {
            assert!(start.elapsed() < Duration::from_secs(5), "the feed did not tell");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Twice is fine, here and there, and by somebody who never was there.
        assert!(!here.mfa.sessions().revoke(&mine).await.unwrap());
        assert!(!there.mfa.sessions().revoke(&mine).await.unwrap());
        // Nobody else's session went with it.
        other.get("/api/me").await.is(200);
        other.refresh().await.is(200);
        alice.refresh().await.is(401);
        // By its own handler as well: the answer clears, and the same handler may do it again.
        let quit = |session: SessionExtractor| async move {
            session.revoke().await.unwrap();
            session.revoke().await.unwrap();
        };
        let router: Router = Router::new().route("/", post(quit)).layer(MfaLayer::required(here.mfa.clone()));
        let answer = send(&router, posted(&other, "/", None)).await;
        answer.is(200);
        assert_eq!(answer.headers["front-token"], "remove");
        other.refresh().await.is(401);
    }
}

#[tokio::test]
async fn sec_s12_sign_out_ends_what_the_token_names() {
    for mode in MODES {
        let app = TestApp::new().await;
        let clears = |answer: &Answer| {
            assert_eq!(answer.body, json!({"status": "OK"}));
            assert_eq!(answer.headers["front-token"], "remove");
            let cookies = SetCookie::of(answer);
            match mode {
                Mode::Cookie => assert!(cookies.len() == 2 && cookies.iter().all(SetCookie::clears)),
                Mode::Header => assert_eq!(answer.headers["st-refresh-token"], ""),
            }
        };
        let alice = signed_up(&app, mode, ALICE).await;
        let out = || posted(&alice, "/auth/signout", None);
        // Twice, and with a row that is gone.
        clears(&app.send(out()).await);
        clears(&app.send(out()).await);
        app.mfa.users().delete(&app.user(ALICE).await).await.unwrap();
        clears(&app.send(out()).await);
        // An expired token ends the session: its refresh token is no use any more.
        let mut alice = signed_up(&app, mode, ALICE).await;
        let mut copy = alice.clone();
        app.clock.advance(Duration::from_secs(24 * 3600));
        alice.get("/api/me").await.is(401);
        clears(&alice.sign_out().await);
        copy.refresh().await.is(401);
        assert!(app.mfa.sessions().list(&app.user(ALICE).await).await.unwrap().is_empty());
        // Nothing, garbage, forged, another app's.
        alice.sign_in(ALICE).await.ok();
        let bearer = |token: &str| {
            with(bare("POST", "/auth/signout"), &[("authorization", &format!("Bearer {token}"))])
        };
        let good = alice.access.clone().unwrap_or_else(|| alice.jar["sAccessToken"].clone());
        let strangers = signed_up(&TestApp::new().await, Mode::Header, ALICE).await.access.unwrap();
        for (request, message) in [
            (bare("POST", "/auth/signout"), "unauthorised"),
            (bearer("x"), "unauthorised"),
            (bearer(&format!("{good}A")), "try refresh token"),
            (bearer(&good.replacen('.', ".e30", 1)), "try refresh token"),
            (bearer(&strangers), "try refresh token"),
        ] {
            let answer = app.send(request).await;
            answer.is(401);
            assert_eq!(answer.body["message"], message);
            assert!(token_headers(&answer).is_empty());
        }
        // A store that fails keeps the cookies, so the client can try again.
        app.store.fail_next(1000);
        let failing = app.send(posted(&alice, "/auth/signout", None)).await;
        app.store.fail_next(0);
        failing.is(503);
        assert!(token_headers(&failing).is_empty());
        alice.get("/api/me").await.is(200);
        // The proof is asked for.
        let unproven = app.send(without(posted(&alice, "/auth/signout", None), &["rid"])).await;
        unproven.is(if mode == Mode::Cookie { 401 } else { 200 });
        alice.refresh().await.is(if mode == Mode::Cookie { 200 } else { 401 });
    }
}

#[tokio::test]
async fn sec_s13_where_a_half_session_gets() {
    for mode in MODES {
        let (app, spy) = watched().await;
        signed_up(&app, mode, ALICE).await.pass_code(ALICE).await;
        let strict: Router = Router::new()
            .route("/", post(|_: SessionExtractor| async {}))
            .layer(MfaLayer::required(app.mfa.clone()).check_store());
        let optional: Router = Router::new()
            .route("/", post(|_: Option<SessionExtractor>| async {}))
            .layer(MfaLayer::optional(app.mfa.clone()));
        let mut half = app.browser(mode);
        half.sign_in(ALICE).await.ok();
        for router in [&strict, &optional] {
            let refused = send(router, posted(&half, "/", None)).await;
            refused.is(403);
            assert_eq!(refused.body["claimValidationErrors"][0]["id"], "st-mfa");
        }
        let seen = app.sent_to(ALICE);
        let other = json!({ "email": "elsewhere@shop.example" });
        for (method, path, body, status) in [
            (Method::GET, "/api/me", None, 403),
            (Method::POST, "/api/me", None, 403),
            (Method::GET, "/api/half", None, 200),
            (Method::PUT, "/auth/mfa/info", None, 200),
            (Method::POST, "/auth/signinup/code", linking(json!({ "email": ALICE })), 200),
            // A destination, a password, or a factor that isn't asked for: not by half a sign-in.
            (Method::POST, "/auth/signinup/code", linking(other), 403),
            (Method::POST, "/auth/signup", linking(credentials("new@shop.example", PASSWORD)), 403),
            (Method::POST, "/auth/signin", linking(credentials(ALICE, PASSWORD)), 403),
            (Method::POST, "/auth/session/refresh", None, 200),
            (Method::GET, "/auth/loginmethods", None, 200),
            (Method::POST, "/auth/signout", None, 200),
        ] {
            let answer = app.send(half.request(method, path, body)).await;
            assert_eq!(answer.status.as_u16(), status, "{path} {}", answer.text);
            if status == 403 {
                assert_eq!(answer.body["claimValidationErrors"][0]["id"], "st-mfa", "{path}");
                assert!(token_headers(&answer).is_empty(), "{path}");
            }
        }
        assert_eq!(app.sent_to("elsewhere@shop.example"), 0);
        assert_eq!(app.code_after(ALICE, seen).await.len(), 6);
        // It is told apart from a sign-in, in the list and in the trail.
        half.sign_in(ALICE).await.ok();
        let listed = app.mfa.sessions().list(&app.user(ALICE).await).await.unwrap();
        assert_eq!(listed.iter().map(|session| session.half).collect::<Vec<_>>(), [false, true]);
        let audited = spy.audited().await;
        assert!(audited.contains(&"partly-signed-in".to_owned()), "{audited:?}");
        assert!(!audited.contains(&"signed-in".to_owned()), "{audited:?}");
    }
}

#[tokio::test]
async fn sec_s13_a_half_session_ends_whatever_is_done_with_it() {
    let app = everyone().await;
    for mode in MODES {
        let email = if mode == Mode::Cookie { ALICE } else { BOB };
        let mut half = signed_up(&app, mode, email).await;
        for _ in 0..14 {
            app.clock.advance(Duration::from_secs(60));
            half.refresh().await.is(200);
            half.get("/api/half").await.is(200);
        }
        app.clock.advance(Duration::from_secs(59));
        half.get("/api/half").await.is(200);
        app.clock.advance(Duration::from_secs(1));
        // The token can't outlive it.
        assert_eq!(half.get("/api/half").await.body["message"], "try refresh token");
        assert_eq!(half.refresh().await.body["message"], "unauthorised");
        // In time, it is one no more.
        let mut full = app.browser(mode);
        full.sign_in(email).await.ok();
        full.pass_code(email).await;
        app.clock.advance(Duration::from_secs(3000));
        full.get("/api/me").await.is(200);
        full.refresh().await.is(200);
    }
}

#[tokio::test]
async fn sec_s15_the_first_answer_never_says_that_all_is_done() {
    for mode in MODES {
        let app = everyone().await;
        signed_up(&app, mode, ALICE).await.pass_code(ALICE).await;
        let mut answers = Vec::new();
        for (n, email) in ["a@shop.example", "b@shop.example"].into_iter().enumerate() {
            let mut browser = app.browser(mode);
            answers.push((browser.sign_up(email).await, browser.claim()));
            answers.push((browser.sign_in(email).await, browser.claim()));
            answers.push((browser.refresh().await, browser.claim()));
            let mut alice = app.browser(mode);
            // A full session that came along lends nothing.
            if n == 1 {
                alice.sign_in(ALICE).await.ok();
                alice.pass_code(ALICE).await;
                assert_eq!(alice.claim()["v"], true);
            }
            answers.push((alice.sign_in(ALICE).await, alice.claim()));
        }
        for (answer, claim) in answers {
            answer.is(200);
            assert_eq!(claim["v"], false, "{claim}");
            assert_eq!(claim["c"].as_object().unwrap().len(), 1, "{claim}");
            assert!(!answer.text.contains("\"v\":true"), "{}", answer.text);
            // What the token says is what the hint says.
            let token = answer.headers.get("st-access-token").map(|token| token.to_str().unwrap().to_owned());
            let token = token.unwrap_or_else(|| SetCookie::of(&answer)[0].value.clone());
            use base64::Engine as _;
            let payload =
                base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap());
            let payload: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
            assert_eq!(payload["st-mfa"], claim);
        }
    }
}
