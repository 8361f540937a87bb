//! Mounting: the extractor's wiring, optional sessions, preflights, guards, claims, CORS, caches.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, routing::get};
use http::{Method, Request, header};
use serde_json::json;
use tower_mfa::{
    FactorId, MfaLayer, RequireFactors, SessionClaim, SessionExtractor,
    claim::{ClaimContext, ClaimError, HasValue, Includes, Roles},
    guard::RequireClaims,
    ident::{Payload, TenantId},
    policy::{Everyone, ForRole},
};

use crate::{
    spy::ALICE,
    support::{Browser, Mode, TestApp, send},
};

async fn signed_in(app: &TestApp) -> Browser {
    let mut alice = app.browser(Mode::Cookie);
    alice.sign_up(ALICE).await.ok();
    alice
}

async fn who(session: Option<SessionExtractor>) -> String {
    session.map_or_else(|| "nobody".to_owned(), |session| session.user_id().to_string())
}

async fn must(session: SessionExtractor) -> String {
    session.user_id().to_string()
}

#[tokio::test]
async fn sec_x10_preflights_pass_and_sec_x11_refusals_are_readable() {
    let app = TestApp::new().await;
    let preflight = Request::options("/api/me")
        .header(header::ORIGIN, "https://shop.test")
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "PUT")
        .body(Body::empty())
        .unwrap();
    let answer = app.send(preflight).await;
    answer.is(200);
    assert_eq!(answer.headers["access-control-allow-origin"], "https://shop.test");
    assert_eq!(answer.headers["access-control-allow-credentials"], "true");
    let mut refused = Request::get("/api/me").body(Body::empty()).unwrap();
    refused.headers_mut().insert(header::ORIGIN, "https://shop.test".parse().unwrap());
    let answer = app.send(refused).await;
    answer.is(401);
    assert_eq!(answer.headers["access-control-allow-origin"], "https://shop.test");
    let exposed = answer.headers["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("front-token") && exposed.contains("st-access-token"), "{exposed}");
    let mut foreign = Request::get("/api/me").body(Body::empty()).unwrap();
    foreign.headers_mut().insert(header::ORIGIN, "https://evil.test".parse().unwrap());
    assert!(!app.send(foreign).await.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn refusals_carry_the_wires_body_and_rfc_9457s_members() {
    let app = TestApp::with(|b| b.policy(Everyone::new(FactorId::OTP_EMAIL))).await;
    let mut alice = signed_in(&app).await;
    let refused = alice.get("/api/me").await;
    refused.is(403);
    for member in ["message", "claimValidationErrors", "type", "title", "status"] {
        assert!(!refused.body[member].is_null(), "{member} in {}", refused.text);
    }
    assert_eq!(refused.body["status"], 403);
    assert!(refused.cookies().is_empty());
    assert_eq!(refused.headers[header::CACHE_CONTROL], "no-store");
    let nobody = app.browser(Mode::Cookie).get("/api/me").await;
    assert_eq!((&nobody.body["message"], &nobody.body["status"]), (&json!("unauthorised"), &json!(401)));
}

#[tokio::test]
async fn guards_ask_for_factors_and_their_age() {
    let badge = FactorId::parse("badge").unwrap();
    let app = TestApp::with(|b| b.custom_factor(badge.clone())).await;
    let mut alice = signed_in(&app).await;
    let fresh = RequireFactors::one_of([FactorId::OTP_EMAIL]).max_age(Duration::from_secs(300));
    let router = Router::new()
        .route("/badge", get(must).route_layer(RequireFactors::one_of([badge])))
        .route("/fresh", get(must).route_layer(fresh))
        .layer(MfaLayer::required(app.mfa.clone()));
    let refused = send(&router, alice.request(Method::GET, "/badge", None)).await;
    refused.is(403);
    assert_eq!(
        refused.body["claimValidationErrors"],
        json!([{"id": "st-mfa", "reason": {"message": "Factor validation failed: badge not completed", "factorId": "badge"}}])
    );
    send(&router, alice.request(Method::GET, "/fresh", None)).await.is(403);
    alice.pass_code(ALICE).await;
    send(&router, alice.request(Method::GET, "/fresh", None)).await.is(200);
    app.clock.advance(Duration::from_secs(301));
    send(&router, alice.request(Method::GET, "/fresh", None)).await.is(403);
    // A guard without the layer around it is an error of the wiring, not a pass.
    let bare = Router::new().route("/x", get(who).route_layer(RequireFactors::one_of([FactorId::TOTP])));
    send(&bare, Request::get("/x").body(Body::empty()).unwrap()).await.is(500);
}

#[tokio::test]
async fn sec_p07_a_granted_role_bites_on_the_next_request() {
    let app = TestApp::with(|b| b.policy(ForRole::new("admin", FactorId::OTP_EMAIL))).await;
    let mut alice = signed_in(&app).await;
    let user = app.user(ALICE).await;
    alice.get("/api/me").await.is(200);
    app.mfa.roles().grant(&user, &TenantId::PUBLIC, "admin").await.unwrap();
    let refused = alice.get("/api/me").await;
    refused.is(403);
    assert_eq!(alice.claim()["v"], false, "the refusal carries the token that says why");
    app.mfa.roles().revoke(&user, &TenantId::PUBLIC, "admin").await.unwrap();
    alice.get("/api/me").await.is(200);
    assert_eq!(alice.claim()["v"], true);
}

/// What the user pays for.
struct Plan;

impl SessionClaim for Plan {
    const KEY: &'static str = "plan";
    type Value = String;

    async fn fetch(&self, _ctx: &ClaimContext<'_>) -> Result<Option<String>, ClaimError> {
        Ok(Some("free".to_owned()))
    }
}

#[tokio::test]
async fn claims_are_fetched_when_asked_for_and_written_by_handlers() {
    let app = TestApp::new().await;
    let mut alice = signed_in(&app).await;
    let upgrade = |session: SessionExtractor| async move {
        session.set_claim(&Plan, "gold".to_owned()).await.unwrap();
        session.claim::<Plan>().unwrap().unwrap()
    };
    let read = |session: SessionExtractor| async move { format!("{:?}", session.claim::<Plan>().unwrap()) };
    let gold = MfaLayer::required(app.mfa.clone()).validate(HasValue::new(Plan, "gold".to_owned()).unwrap());
    let router = Router::new()
        .route("/upgrade", get(upgrade))
        .route("/read", get(read))
        .layer(MfaLayer::required(app.mfa.clone()))
        .merge(Router::new().route("/gold", get(must)).layer(gold));
    assert_eq!(send(&router, alice.request(Method::GET, "/read", None)).await.text, "None");
    let refused = send(&router, alice.request(Method::GET, "/gold", None)).await;
    refused.is(403);
    assert_eq!(refused.body["claimValidationErrors"][0]["reason"]["actualValue"], "free");
    alice.keep(&refused);
    let upgraded = send(&router, alice.request(Method::GET, "/upgrade", None)).await;
    assert_eq!(upgraded.text, "gold");
    assert!(upgraded.headers.contains_key("front-token"));
    alice.keep(&upgraded);
    send(&router, alice.request(Method::GET, "/gold", None)).await.is(200);
    // It outlives a refresh, and can be changed from outside.
    alice.refresh().await.is(200);
    send(&router, alice.request(Method::GET, "/gold", None)).await.is(200);
    let handle = app.mfa.sessions().list(&app.user(ALICE).await).await.unwrap()[0].handle.clone();
    let update = Payload::from_json(json!({"plan": null, "theme": "dark"})).unwrap();
    app.mfa.sessions().merge_payload(&handle, update).await.unwrap();
    let seen = send(&router, alice.request(Method::GET, "/read", None)).await;
    assert_eq!(seen.text, "None");
}

#[tokio::test]
async fn roles_are_a_claim() {
    let app = TestApp::new().await;
    let mut alice = signed_in(&app).await;
    let editors =
        MfaLayer::required(app.mfa.clone()).validate(Includes::new(Roles, "editor").max_age(Duration::ZERO));
    let router = Router::new().route("/edit", get(must)).layer(editors);
    app.clock.advance(Duration::from_secs(1));
    let refused = send(&router, alice.request(Method::GET, "/edit", None)).await;
    refused.is(403);
    assert_eq!(refused.body["claimValidationErrors"][0]["id"], "st-role");
    alice.keep(&refused);
    app.mfa.roles().grant(&app.user(ALICE).await, &TenantId::PUBLIC, "editor").await.unwrap();
    app.clock.advance(Duration::from_secs(1));
    send(&router, alice.request(Method::GET, "/edit", None)).await.is(200);
    let guard = RequireClaims::new([Arc::new(Includes::new(Roles, "editor")) as _]);
    let guarded =
        Router::new().route("/x", get(must).route_layer(guard)).layer(MfaLayer::required(app.mfa.clone()));
    send(&guarded, app.browser(Mode::Cookie).request(Method::GET, "/x", None)).await.is(401);
}

#[tokio::test]
async fn a_mount_that_checks_the_store_sees_a_revoked_session() {
    let app = TestApp::new().await;
    let alice = signed_in(&app).await;
    let router =
        Router::new().route("/x", get(must)).layer(MfaLayer::required(app.mfa.clone()).check_store());
    let before = app.store.calls();
    send(&router, alice.request(Method::GET, "/x", None)).await.is(200);
    assert!(app.store.calls() > before);
    app.store.fail_next(10);
    let failing = send(&router, alice.request(Method::GET, "/x", None)).await;
    app.store.fail_next(0);
    failing.is(503);
    app.mfa.sessions().revoke_all().await.unwrap();
    send(&router, alice.request(Method::GET, "/x", None)).await.is(401);
}
