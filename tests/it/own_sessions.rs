//! Where a user is signed in: listed, and ended one by one or all others.

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, extract::Path, response::IntoResponse as _, routing::get};
use http::Method;
use serde_json::{Value, json};
use tower_mfa::{
    MfaLayer, SessionExtractor,
    claim::Roles,
    ident::{SessionHandle, TenantId},
};

use crate::{
    spy::{ALICE, BOB, everyone, handle},
    support::{Answer, Browser, Mode, PASSWORD, TestApp, credentials, send},
};

/// A page "where you are signed in", as an app writes it.
fn page(app: &TestApp, layer: MfaLayer) -> Router {
    let mfa = Arc::new(app.mfa.clone());
    let (list, one) = (Arc::clone(&mfa), Arc::clone(&mfa));
    let others = Arc::clone(&mfa);
    let said = |done: Result<Value, tower_mfa::Error>| match done {
        Ok(body) => Json(body).into_response(),
        Err(error) => error.into_response(),
    };
    Router::new()
        .route(
            "/sessions",
            get(move |session: SessionExtractor| async move {
                let infos = list.sessions().list_own(&session).await;
                let row = |info: tower_mfa::account::SessionInfo| {
                    json!({ "handle": info.handle.as_str(), "device": info.device, "used": info.used_at.as_secs() })
                };
                said(infos.map(|infos| infos.into_iter().map(row).collect()))
            }),
        )
        .route(
            "/sessions/end/{handle}",
            get(move |session: SessionExtractor, Path(handle): Path<SessionHandle>| async move {
                said(one.sessions().revoke_own(&session, &handle).await.map(|was| json!({ "was": was })))
            }),
        )
        .route(
            "/sessions/others",
            get(move |session: SessionExtractor| async move {
                said(others.sessions().revoke_others(&session).await.map(|()| json!({})))
            }),
        )
        .layer(layer)
}

async fn ask(router: &Router, browser: &mut Browser, path: &str) -> Answer {
    let answer = send(router, browser.request(Method::GET, path, None)).await;
    browser.keep(&answer);
    answer
}

async fn signed_in(app: &TestApp, email: &str, agent: &str) -> Browser {
    let mut browser = app.browser(Mode::Header);
    let mut request = browser.request(Method::POST, "/auth/signin", Some(credentials(email, PASSWORD)));
    request.headers_mut().insert("user-agent", agent.parse().unwrap());
    let answer = app.send(request).await;
    browser.keep(&answer);
    answer.ok();
    browser.pass_code(email).await;
    browser
}

#[tokio::test]
async fn sec_s16_a_user_ends_their_own_sessions_and_no_others() {
    let app = everyone().await;
    for email in [ALICE, BOB] {
        app.browser(Mode::Header).sign_up(email).await.ok();
    }
    let router = page(&app, MfaLayer::required(app.mfa.clone()));
    let mut alice = signed_in(&app, ALICE, "Chrome/120.0\u{9} (Linux)").await;
    let mut phone = signed_in(&app, ALICE, "Shop/3 (phone)").await;
    let mut bob = signed_in(&app, BOB, "Firefox").await;
    let list = ask(&router, &mut alice, "/sessions").await.body;
    let devices: Vec<&str> =
        list.as_array().unwrap().iter().filter_map(|row| row["device"].as_str()).collect();
    assert_eq!(devices, ["Chrome/120.0 (Linux)", "Shop/3 (phone)"]);
    let with = |browser: &Browser| format!("/sessions/end/{}", handle(browser));
    // Somebody else's, one that never was, one that is over: alike.
    let never = "/sessions/end/00000000-0000-4000-8000-000000000000".to_owned();
    let answers = [ask(&router, &mut alice, &with(&bob)).await, ask(&router, &mut alice, &never).await];
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.body), (200, &json!({ "was": false })));
    }
    assert_eq!(answers[0].headers, answers[1].headers);
    ask(&router, &mut bob, "/sessions").await.is(200);
    assert_eq!(ask(&router, &mut alice, &with(&phone)).await.body, json!({ "was": true }));
    ask(&router, &mut phone, "/sessions").await.is(401);
    assert_eq!(ask(&router, &mut alice, &with(&phone)).await.body, json!({ "was": false }));
    // Their own, this one: the client is told to forget it.
    let own = with(&alice);
    let answer = ask(&router, &mut alice, &own).await;
    assert_eq!(answer.body, json!({ "was": true }));
    assert!(alice.access_token().is_none());
    ask(&router, &mut bob, "/sessions").await.is(200);
}

/// A session that somebody else came by can't put the owner's out: it proves no factor.
#[tokio::test]
async fn sec_s16_ending_others_needs_a_factor_proven_lately() {
    let app = everyone().await;
    app.browser(Mode::Header).sign_up(ALICE).await.ok();
    let router = page(&app, MfaLayer::required(app.mfa.clone()));
    let mut alice = signed_in(&app, ALICE, "Chrome").await;
    let mut other = signed_in(&app, ALICE, "Firefox").await;
    app.clock.advance(Duration::from_secs(301));
    let end = format!("/sessions/end/{}", handle(&other));
    for path in [end.as_str(), "/sessions/others"] {
        let refused = ask(&router, &mut alice, path).await;
        refused.is(403);
        assert_eq!(refused.body["type"], "urn:tower-mfa:step-up");
        ask(&router, &mut other, "/sessions").await.is(200);
    }
    alice.pass_code(ALICE).await;
    ask(&router, &mut alice, "/sessions/others").await.is(200);
    ask(&router, &mut other, "/sessions").await.is(401);
    ask(&router, &mut alice, "/sessions").await.is(200);
}

/// Half a sign-in is none: whoever has a password of somebody's shows up on no page of theirs, themselves included, until
/// they gave the code as well. Who administers the app sees it.
#[tokio::test]
async fn sec_s13_half_a_sign_in_is_listed_to_no_user() {
    let app = everyone().await;
    app.browser(Mode::Header).sign_up(ALICE).await.ok();
    let router = page(&app, MfaLayer::required(app.mfa.clone()).without_mfa());
    let mut phone = signed_in(&app, ALICE, "Shop/3 (phone)").await;
    let mut half = app.browser(Mode::Header);
    half.sign_in(ALICE).await.ok();
    let listed = async |browser: &mut Browser| -> Vec<String> {
        let rows = ask(&router, browser, "/sessions").await.body;
        rows.as_array().unwrap().iter().map(|row| row["handle"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed(&mut phone).await, [handle(&phone)]);
    assert_eq!(listed(&mut half).await, [handle(&phone)]);
    let user = app.user(ALICE).await;
    let sessions = app.mfa.sessions();
    let here = sessions.within(&TenantId::PUBLIC).list(&user).await.unwrap();
    for infos in [sessions.list(&user).await.unwrap(), here] {
        let all: Vec<_> = infos.iter().map(|info| (info.handle.to_string(), info.half)).collect();
        assert_eq!(all, [(handle(&phone), false), (handle(&half), true)]);
    }
    half.pass_code(ALICE).await;
    assert_eq!(listed(&mut phone).await, [handle(&phone), handle(&half)]);
}

/// Half a sign-in is young, and ends nothing.
#[tokio::test]
async fn sec_s16_half_a_sign_in_ends_nothing() {
    let app = everyone().await;
    app.browser(Mode::Header).sign_up(ALICE).await.ok();
    let phone = signed_in(&app, ALICE, "Shop/3 (phone)").await;
    let mut thief = app.browser(Mode::Header);
    thief.sign_in(ALICE).await.ok();
    let router = page(&app, MfaLayer::required(app.mfa.clone()).without_mfa());
    ask(&router, &mut thief, "/sessions/others").await.is(403);
    ask(&router, &mut thief, &format!("/sessions/end/{}", handle(&phone))).await.is(403);
    phone.clone().get("/api/me").await.is(200);
}

/// What was changed before shows at the next request, though the session that goes on has a new number.
#[tokio::test]
async fn sec_p07_ending_the_others_hides_no_change() {
    let app = TestApp::with(|b| b.claim(Roles)).await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    let id = app.user(ALICE).await;
    let roles = |browser: &Browser| browser.payload("st-role")["v"].clone();
    app.mfa.roles().grant(&id, &TenantId::PUBLIC, "admin").await.unwrap();
    alice.get("/api/me").await.is(200);
    assert_eq!(roles(&alice), json!(["admin"]));
    // Between what the layer judged and what the handler does, the role goes.
    let mfa = app.mfa.clone();
    let handler = |session: SessionExtractor| async move {
        mfa.roles().revoke(&session.user_id(), &TenantId::PUBLIC, "admin").await.unwrap();
        mfa.sessions().revoke_others(&session).await.unwrap();
    };
    let router = Router::new().route("/", get(handler)).layer(MfaLayer::required(app.mfa.clone()));
    ask(&router, &mut alice, "/").await.is(200);
    alice.get("/api/me").await.is(200);
    assert_eq!(roles(&alice), json!([]));
}
