//! Refresh over HTTP: rotation, the grace window, theft, elevation, and the first visit.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tower_mfa::{FactorId, policy::Everyone};

use crate::{
    spy::ALICE,
    support::{Browser, Mode, TestApp},
};

const REFRESH: &str = "/auth/session/refresh";

async fn signed_in(app: &TestApp, mode: Mode) -> Browser {
    let mut alice = app.browser(mode);
    alice.sign_up(ALICE).await.ok();
    alice
}

fn token(browser: &Browser) -> String {
    browser.refresh.clone().or_else(|| browser.jar.get("sRefreshToken").cloned()).unwrap()
}

#[tokio::test]
async fn sec_r12_a_first_visit_and_garbage_get_the_same_answer() {
    let app = TestApp::new().await;
    let mut visitor = app.browser(Mode::Cookie);
    let nothing = visitor.refresh().await;
    nothing.is(401);
    assert_eq!(nothing.body["message"], "unauthorised");
    assert_eq!(nothing.headers["front-token"], "remove");
    let mut guesser = app.browser(Mode::Header);
    for garbage in ["x", "1.2.3.4.5", &"a".repeat(600)] {
        guesser.refresh = Some(garbage.to_owned());
        let answer = guesser.refresh().await;
        assert_eq!((answer.status, &answer.body), (nothing.status, &nothing.body), "{garbage}");
        assert_eq!(answer.headers["front-token"], "remove");
    }
}

#[tokio::test]
async fn sec_r02_rotation_and_r03_the_same_successor_within_the_window() {
    for mode in [Mode::Cookie, Mode::Header] {
        let app = TestApp::new().await;
        let mut alice = signed_in(&app, mode).await;
        let (mut slow, first) = (alice.clone(), token(&alice));
        alice.refresh().await.is(200);
        let second = token(&alice);
        assert_ne!(first, second);
        slow.refresh().await.is(200);
        assert_eq!(token(&slow), second, "a lost answer is delivered again, not forked");
        alice.get("/api/me").await.is(200);
        alice.refresh().await.is(200);
    }
}

#[tokio::test]
async fn sec_r06_reuse_after_the_window_ends_the_session_for_everyone() {
    let app = TestApp::new().await;
    let mut alice = signed_in(&app, Mode::Cookie).await;
    let mut thief = alice.clone();
    alice.refresh().await.is(200);
    app.clock.advance(Duration::from_secs(31));
    let caught = thief.refresh().await;
    caught.is(401);
    assert_eq!(caught.body["message"], "token theft detected");
    assert_eq!(caught.cookies().len(), 2);
    alice.refresh().await.is(401);
    alice.get("/api/me").await.is(401);
}

#[tokio::test]
async fn sec_r07_an_older_ancestor_is_theft_at_any_time() {
    let app = TestApp::new().await;
    let mut alice = signed_in(&app, Mode::Header).await;
    let mut thief = alice.clone();
    alice.refresh().await.is(200);
    alice.refresh().await.is(200);
    assert_eq!(thief.refresh().await.body["message"], "token theft detected");
    alice.refresh().await.is(401);
}

#[tokio::test]
async fn sec_s02_elevation_supersedes_the_earlier_refresh_token() {
    for mode in [Mode::Cookie, Mode::Header] {
        let app = TestApp::with(|b| b.policy(Everyone::new(FactorId::OTP_EMAIL))).await;
        let mut alice = signed_in(&app, mode).await;
        alice.pass_code(ALICE).await;
        alice.sign_out().await.ok();
        alice.sign_in(ALICE).await.ok();
        let mut other_tab = alice.clone();
        let before = token(&alice);
        alice.pass_code(ALICE).await;
        assert_ne!(before, token(&alice));
        // (b) within the window, the new one unused: 409, nothing cleared.
        let superseded = other_tab.refresh().await;
        superseded.is(409);
        assert_eq!(superseded.body["message"], "superseded, retry");
        assert_eq!(superseded.headers["retry-after"], "1");
        assert!(superseded.cookies().is_empty() && !superseded.headers.contains_key("front-token"));
        // (c) the earlier access token mints nothing better.
        let mut stale = other_tab.clone();
        assert_eq!(stale.info().await.body["message"], "try refresh token");
        // (b) once the new one was used: theft.
        alice.refresh().await.is(200);
        assert_eq!(other_tab.refresh().await.body["message"], "token theft detected");
        alice.refresh().await.is(401);
    }
}

#[tokio::test]
async fn sec_s13_a_session_that_lacks_a_factor_ends_after_15_minutes() {
    let app = TestApp::with(|b| b.policy(Everyone::new(FactorId::OTP_EMAIL))).await;
    let mut alice = signed_in(&app, Mode::Header).await;
    alice.get("/api/half").await.is(200);
    alice.get("/api/me").await.is(403);
    app.clock.advance(Duration::from_secs(14 * 60));
    alice.refresh().await.is(200);
    app.clock.advance(Duration::from_secs(61));
    let ended = alice.refresh().await;
    ended.is(401);
    assert_eq!(ended.headers["front-token"], "remove");
}

#[tokio::test]
async fn sec_s12_sign_out_works_with_an_expired_token_and_twice() {
    let app = TestApp::new().await;
    let mut alice = signed_in(&app, Mode::Cookie).await;
    let mut copy = alice.clone();
    app.clock.advance(Duration::from_secs(3700));
    assert_eq!(alice.get("/api/me").await.body["message"], "try refresh token");
    alice.sign_out().await.ok();
    assert!(alice.jar.is_empty());
    copy.refresh().await.is(401);
    let mut again = app.browser(Mode::Cookie);
    again.sign_out().await.is(401);
}

#[tokio::test]
async fn sec_s08_revoking_all_of_a_user_is_seen_at_once() {
    let app = TestApp::new().await;
    let mut one = signed_in(&app, Mode::Cookie).await;
    let mut two = app.browser(Mode::Header);
    two.sign_in(ALICE).await.ok();
    let user = app.user(ALICE).await;
    assert_eq!(app.mfa.sessions().list(&user).await.unwrap().len(), 2);
    app.mfa.sessions().revoke_user(&user).await.unwrap();
    for browser in [&mut one, &mut two] {
        browser.get("/api/me").await.is(401);
        browser.refresh().await.is(401);
    }
    assert!(app.mfa.sessions().list(&user).await.unwrap().is_empty());
}

#[tokio::test]
async fn sec_x01_a_cookie_needs_the_proof_and_a_header_token_does_not() {
    let app = TestApp::new().await;
    let alice = signed_in(&app, Mode::Cookie).await;
    let mut request = alice.request(Method::POST, "/api/me", Some(json!({})));
    request.headers_mut().remove("rid");
    let refused = app.send(request).await;
    refused.is(401);
    assert_eq!(refused.body["message"], "try refresh token");
    let mut request = alice.request(Method::POST, REFRESH, None);
    request.headers_mut().remove("rid");
    app.send(request).await.is(401);
    let mut bearer = app.browser(Mode::Header);
    bearer.sign_in(ALICE).await.ok();
    let mut request = bearer.request(Method::POST, "/api/me", Some(json!({})));
    request.headers_mut().remove("rid");
    app.send(request).await.is(200);
}

#[tokio::test]
async fn the_verified_path_makes_no_store_call() {
    let app = TestApp::new().await;
    let mut alice = signed_in(&app, Mode::Cookie).await;
    alice.get("/api/me").await.is(200);
    let before = app.store.calls();
    for _ in 0..20 {
        alice.get("/api/me").await.is(200);
    }
    assert_eq!(app.store.calls(), before);
}

#[tokio::test]
async fn sec_d01_a_failing_store_is_503_and_clears_nothing() {
    let app = TestApp::new().await;
    let mut alice = signed_in(&app, Mode::Cookie).await;
    let jar = alice.jar.clone();
    for (method, path) in
        [(Method::POST, REFRESH), (Method::POST, "/auth/signout"), (Method::PUT, "/auth/mfa/info")]
    {
        app.store.fail_next(50);
        let answer = alice.call(method, path, None).await;
        app.store.fail_next(0);
        answer.is(503);
        assert_eq!(answer.body["message"], "temporarily unavailable", "{path}");
        assert!(answer.headers.contains_key("retry-after"), "{path}");
    }
    assert_eq!(alice.jar, jar);
    alice.refresh().await.is(200);
    alice.get("/api/me").await.is(200);
}

#[tokio::test]
async fn sec_s09_adding_a_factor_ends_every_other_session() {
    let app = TestApp::new().await;
    let mut alice = signed_in(&app, Mode::Cookie).await;
    let mut phone = app.browser(Mode::Header);
    phone.sign_in(ALICE).await.ok();
    alice.pass_code(ALICE).await;
    alice.get("/api/me").await.is(200);
    phone.get("/api/me").await.is(401);
    phone.refresh().await.is(401);
    alice.refresh().await.is(200);
}

#[tokio::test]
async fn sec_s01_a_sign_in_ends_the_session_it_leaves_behind() {
    let app = TestApp::new().await;
    let mut alice = signed_in(&app, Mode::Cookie).await;
    let mut before = alice.clone();
    alice.sign_in(ALICE).await.ok();
    assert_ne!(
        before.front.as_ref().unwrap()["up"]["sessionHandle"],
        alice.front.as_ref().unwrap()["up"]["sessionHandle"]
    );
    before.get("/api/me").await.is(401);
    alice.get("/api/me").await.is(200);
}

#[tokio::test]
async fn sec_s01_a_session_with_an_expired_token_is_left_behind_too() {
    let app = TestApp::new().await;
    let mut alice = signed_in(&app, Mode::Cookie).await;
    let mut before = alice.clone();
    app.clock.advance(Duration::from_secs(3700));
    alice.sign_in(ALICE).await.ok();
    before.refresh().await.is(401);
    alice.get("/api/me").await.is(200);
}

#[tokio::test]
async fn sec_s17_only_so_many_sessions_and_half_ones_push_out_no_full_one() {
    let app = TestApp::with(|b| b.max_sessions(2).policy(Everyone::new(FactorId::OTP_EMAIL))).await;
    let mut first = signed_in(&app, Mode::Header).await;
    first.pass_code(ALICE).await;
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut other = app.browser(Mode::Header);
        other.sign_in(ALICE).await.ok();
        first.get("/api/me").await.is(200);
        others.push(other);
    }
    for other in &mut others {
        other.pass_code(ALICE).await;
    }
    // The third full session ended the first.
    first.get("/api/me").await.is(401);
    for other in &mut others {
        other.get("/api/me").await.is(200);
    }
}

#[tokio::test]
async fn revoking_the_others_keeps_this_one() {
    let app = TestApp::new().await;
    let alice = signed_in(&app, Mode::Header).await;
    let mut other = app.browser(Mode::Header);
    other.sign_in(ALICE).await.ok();
    let mfa = app.mfa.clone();
    let only_me = move |session: tower_mfa::SessionExtractor| async move {
        mfa.sessions().revoke_others(&session).await.unwrap();
    };
    let router = axum::Router::new()
        .route("/only-me", axum::routing::post(only_me))
        .layer(tower_mfa::MfaLayer::required(app.mfa.clone()));
    let request = alice.request(Method::POST, "/only-me", Some(json!({})));
    let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
    assert_eq!(response.status(), 200);
    let access = response.headers()["st-access-token"].to_str().unwrap().to_owned();
    let mut alice = alice;
    alice.access = Some(access);
    alice.get("/api/me").await.is(200);
    alice.refresh().await.is(200);
    other.get("/api/me").await.is(401);
    other.refresh().await.is(401);
}

#[tokio::test]
async fn sec_s05_two_factors_at_once_share_one_successor() {
    let app = TestApp::with(|b| b.policy(Everyone::new(FactorId::OTP_EMAIL))).await;
    let mut alice = signed_in(&app, Mode::Header).await;
    alice.pass_code(ALICE).await;
    alice.sign_out().await.ok();
    alice.sign_in(ALICE).await.ok();
    let mut tab = alice.clone();
    let seen = app.sent_to(ALICE);
    let flow = alice.ask_code(ALICE, true).await.ok();
    let code = app.code_after(ALICE, seen).await;
    alice.enter(&flow, &code, true).await.ok();
    // The other tab, from the same access token, completes the password again.
    let mut body = crate::support::credentials(ALICE, crate::support::PASSWORD);
    body["shouldTryLinkingWithSessionUser"] = json!(true);
    tab.post("/auth/signin", body).await.ok();
    assert_eq!(token(&alice), token(&tab));
    let done = tab.claim();
    assert!(done["c"]["otp-email"].is_i64() && done["c"]["emailpassword"].is_i64(), "{done}");
    tab.refresh().await.is(200);
}
