//! The claim `st-role` follows the roles: whichever way a session catches up with a change, its token says
//! what is true then.

use axum::{Json, Router, routing::get};
use http::Method;
use serde_json::{Map, Value, json};
use tower_mfa::{
    MfaLayer, SessionExtractor,
    claim::{Includes, Permissions, Roles},
    ident::{ErrorKind, Permission, Role, TenantId},
};

use crate::{
    spy::told,
    support::{Browser, Mode, TestApp, send},
};

const EMAIL: &str = "alice@shop.example";

async fn signed_up() -> (TestApp, Browser) {
    let app = TestApp::with(|builder| builder.claim(Roles)).await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(EMAIL).await.ok();
    assert_eq!(roles(&alice), json!([]));
    (app, alice)
}

fn roles(browser: &Browser) -> Value {
    browser.front.as_ref().map(|front| front["up"]["st-role"]["v"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn a_role_granted_and_taken_away_shows_at_the_next_request() {
    let (app, mut alice) = signed_up().await;
    let id = app.user(EMAIL).await;
    app.mfa.roles().grant(&id, &TenantId::PUBLIC, "admin").await.unwrap();
    alice.get("/api/me").await.is(200);
    assert_eq!(roles(&alice), json!(["admin"]));
    app.mfa.roles().revoke(&id, &TenantId::PUBLIC, "admin").await.unwrap();
    alice.get("/api/me").await.is(200);
    assert_eq!(roles(&alice), json!([]));
}

#[tokio::test]
async fn a_refresh_catches_up_with_the_roles() {
    let (app, mut alice) = signed_up().await;
    let id = app.user(EMAIL).await;
    app.mfa.roles().grant(&id, &TenantId::PUBLIC, "admin").await.unwrap();
    alice.refresh().await.is(200);
    assert_eq!(roles(&alice), json!(["admin"]));
}

#[tokio::test]
async fn a_second_factor_catches_up_with_the_roles() {
    let (app, mut alice) = signed_up().await;
    let id = app.user(EMAIL).await;
    let flow = alice.ask_code(EMAIL, true).await.ok();
    let code = app.code(EMAIL).await;
    app.mfa.roles().grant(&id, &TenantId::PUBLIC, "admin").await.unwrap();
    alice.enter(&flow, &code, true).await.ok();
    assert_eq!(roles(&alice), json!(["admin"]));
}

#[tokio::test]
async fn factor_info_catches_up_with_the_roles() {
    let (app, mut alice) = signed_up().await;
    let id = app.user(EMAIL).await;
    app.mfa.roles().grant(&id, &TenantId::PUBLIC, "admin").await.unwrap();
    alice.info().await.ok();
    assert_eq!(roles(&alice), json!(["admin"]));
}

/// What a role allows shows in every tenant where somebody has it, at the next request.
#[tokio::test]
async fn what_a_role_allows_is_a_claim() {
    let (editor, read) = (Role::parse("editor").unwrap(), |text| Permission::parse(text).unwrap());
    let app = TestApp::with(|b| {
        b.claim(Roles).claim(Permissions).policy(tower_mfa::policy::UserOrTenant::default())
    })
    .await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(EMAIL).await.ok();
    let said = |browser: &Browser| browser.payload("st-perm")["v"].clone();
    assert_eq!(said(&alice), json!([]));
    let id = app.user(EMAIL).await;
    app.mfa.roles().allow(&editor, ["posts:write", "posts:read", "posts:write"].map(read)).await.unwrap();
    app.mfa.roles().grant(&id, &TenantId::PUBLIC, "editor").await.unwrap();
    app.mfa.roles().grant(&id, &TenantId::PUBLIC, "nothing").await.unwrap();
    let guarded = Router::new()
        .route("/posts", get(|| async { "posts" }))
        .layer(MfaLayer::required(app.mfa.clone()).validate(Includes::new(Permissions, "posts:write")));
    let ask = |browser: &Browser| send(&guarded, browser.request(Method::GET, "/posts", None));
    let answer = ask(&alice).await;
    alice.keep(&answer);
    answer.is(200);
    assert_eq!(said(&alice), json!(["posts:write", "posts:read"]));
    assert_eq!(app.mfa.roles().list().await.unwrap().len(), 1);
    app.mfa.roles().allow(&editor, [read("posts:read")]).await.unwrap();
    let refused = ask(&alice).await;
    alice.keep(&refused);
    refused.is(403);
    alice.refresh().await.is(200);
    assert_eq!(said(&alice), json!(["posts:read"]));
    app.mfa.roles().allow(&editor, []).await.unwrap();
    assert!(app.mfa.roles().list().await.unwrap().is_empty());
    alice.get("/api/me").await.is(200);
    assert_eq!(said(&alice), json!([]));
}

/// What an app keeps about its users, behind routes of its own.
#[tokio::test]
async fn what_is_kept_about_a_user_is_the_apps_own() {
    let app = TestApp::new().await;
    let (read, write) = (app.mfa.clone(), app.mfa.clone());
    let show = |session: SessionExtractor| async move {
        Json(Value::Object(read.metadata().of(&session.user_id()).await.unwrap()))
    };
    let change = |session: SessionExtractor, Json(update): Json<Map<String, Value>>| async move {
        Json(Value::Object(write.metadata().merge(&session.user_id(), update).await.unwrap()))
    };
    let router =
        Router::new().route("/profile", get(show).put(change)).layer(MfaLayer::required(app.mfa.clone()));
    let ask = async |client: &Browser, method: Method, body: Option<Value>| {
        let answer = send(&router, client.request(method, "/profile", body)).await;
        answer.is(200);
        answer.body
    };
    let (mut alice, mut bob) = (app.browser(Mode::Header), app.browser(Mode::Cookie));
    alice.sign_up(EMAIL).await.ok();
    bob.sign_up("bob@shop.example").await.ok();
    assert_eq!(ask(&alice, Method::GET, None).await, json!({}));
    let first = json!({ "name": "Alice", "address": { "town": "Pécs" }, "old": 1 });
    assert_eq!(ask(&alice, Method::PUT, Some(first.clone())).await, first);
    // Members are replaced whole, and `null` takes one away.
    let second = json!({ "address": { "street": "Fő utca" }, "old": null });
    let kept = json!({ "name": "Alice", "address": { "street": "Fő utca" } });
    assert_eq!(ask(&alice, Method::PUT, Some(second)).await, kept);
    // It is the user's, in whatever session, and nobody else's; no token says it.
    let mut phone = app.browser(Mode::Header);
    phone.sign_in(EMAIL).await.ok();
    assert_eq!(ask(&phone, Method::GET, None).await, kept);
    assert_eq!(ask(&bob, Method::GET, None).await, json!({}));
    assert!(!told(&phone).contains("Alice") && phone.payload("name").is_null());
}

/// Two that change what is kept about a user at once both find their change in it.
#[tokio::test]
async fn what_is_kept_about_a_user_loses_no_change() {
    let app = TestApp::new().await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(EMAIL).await.ok();
    let id = app.user(EMAIL).await;
    let members = |value: Value| value.as_object().unwrap().clone();
    let all = (0..32).map(|n| {
        let (mfa, id) = (app.mfa.clone(), id.clone());
        tokio::spawn(async move {
            let update = members(json!({ (format!("k{n}")): n }));
            mfa.metadata().merge(&id, update).await.unwrap();
            mfa.metadata()
                .edit(&id, |all| {
                    let count = all.get("count").and_then(Value::as_i64).unwrap_or(0);
                    all.insert("count".to_owned(), json!(count + 1));
                })
                .await
                .unwrap();
        })
    });
    for task in all.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let kept = app.mfa.metadata().of(&id).await.unwrap();
    assert_eq!((kept.len(), &kept["count"]), (33, &json!(32)));
    let kept = app.mfa.metadata().merge(&id, members(json!({ "k0": null, "count": null }))).await.unwrap();
    assert_eq!(kept.len(), 31);
    // It has nothing of the crate's own, is bounded, and goes with the user.
    let large = members(json!({ "large": "x".repeat(64 * 1024) }));
    let refused = app.mfa.metadata().merge(&id, large).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(app.mfa.metadata().of(&id).await.unwrap(), kept);
    app.mfa.factors().opt_in(&id, tower_mfa::FactorId::OTP_EMAIL).await.unwrap();
    assert_eq!(app.mfa.metadata().of(&id).await.unwrap(), kept);
    app.mfa.users().delete(&id).await.unwrap();
    assert!(app.mfa.metadata().of(&id).await.unwrap().is_empty());
    let gone = app.mfa.metadata().merge(&id, members(json!({ "a": 1 }))).await;
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::NotFound);
}
