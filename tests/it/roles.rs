//! The claim `st-role` follows the roles: whichever way a session catches up with a change, its token says
//! what is true then.

use serde_json::{Value, json};
use tower_mfa::{claim::Roles, ident::TenantId};

use crate::support::{Browser, Mode, TestApp};

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
