//! What tenants ask as data: what counts there, by when to set something up, and what users opted into in one
//! tenant only.

use std::time::Duration;

use serde_json::{Value, json};
use tower_mfa::{
    FactorId, Requirement,
    account::TenantRule,
    ident::{ErrorKind, TenantId, Timestamp},
    policy::{AnyPolicy, Compose as _, Everyone, ForRole, TenantAsks, UserOrTenant},
};

use crate::support::{Browser, Mode, START, TestApp};

const ALICE: &str = "alice@shop.example";
const BOB: &str = "bob@shop.example";
const EMAIL: FactorId = FactorId::OTP_EMAIL;
const PASSWORD: FactorId = FactorId::PASSWORD;
const DAY: Duration = Duration::from_secs(86_400);

fn public() -> TenantId {
    TenantId::PUBLIC
}

async fn signed_up(app: &TestApp, email: &str) -> Browser {
    let mut browser = app.browser(Mode::Header);
    browser.sign_up(email).await.ok();
    browser
}

/// What the token and `/mfa/info` say of a grace, which is the same.
async fn told(browser: &mut Browser) -> Value {
    let info = browser.info().await.ok();
    let said = info.get("grace").cloned().unwrap_or_default();
    assert_eq!(browser.payload("st-mfa-grace"), said);
    said
}

#[tokio::test]
async fn until_the_date_whoever_has_nothing_set_up_passes_and_is_told() {
    let until = Timestamp::from_secs(START) + 2 * DAY;
    for policy in
        [AnyPolicy::new(UserOrTenant::new()), AnyPolicy::new(ForRole::new("x", EMAIL).and(TenantAsks))]
    {
        let app = TestApp::with(|b| b.policy(policy)).await;
        app.mfa.tenants().set_rule(&public(), TenantRule::require([EMAIL]).enrol_by(until)).await.unwrap();
        let (mut alice, mut bob) = (signed_up(&app, ALICE).await, signed_up(&app, BOB).await);
        alice.get("/api/me").await.is(200);
        let grace = json!({ "factors": ["otp-email"], "until": until.as_secs() });
        assert_eq!(told(&mut alice).await, grace);
        // A plain request costs no more for it.
        let calls = app.store.calls();
        alice.get("/api/me").await.is(200);
        assert_eq!(app.store.calls(), calls);
        // Whoever sets it up is asked for it from then on.
        bob.pass_code(BOB).await;
        assert_eq!(told(&mut bob).await, Value::Null);
        let mut bob = app.browser(Mode::Header);
        bob.sign_in(BOB).await.ok();
        bob.get("/api/me").await.is(403);
        // To the very end.
        app.clock.advance(2 * DAY - Duration::from_millis(1));
        alice.refresh().await.is(200);
        alice.get("/api/me").await.is(200);
        assert_eq!(told(&mut alice).await, grace);
        // And then the token that was good is not.
        app.clock.advance(Duration::from_millis(1));
        let refused = alice.get("/api/me").await;
        refused.is(403);
        assert_eq!(refused.body["next"], json!(["otp-email"]));
        alice.refresh().await.is(200);
        assert_eq!(told(&mut alice).await, Value::Null);
        alice.pass_code(ALICE).await;
        alice.get("/api/me").await.is(200);
    }
}

#[tokio::test]
async fn a_grace_is_no_way_past_what_the_app_demands() {
    let until = Timestamp::from_secs(START) + DAY;
    let app = TestApp::with(|b| b.policy(Everyone::new(EMAIL).and(TenantAsks))).await;
    app.mfa.tenants().set_rule(&public(), TenantRule::require([EMAIL]).enrol_by(until)).await.unwrap();
    let mut alice = signed_up(&app, ALICE).await;
    alice.get("/api/me").await.is(403);
}

#[tokio::test]
async fn only_what_a_tenant_lets_count_counts_there() {
    let either = Requirement::one_of([PASSWORD, EMAIL]);
    let app = TestApp::with(|b| b.policy(Everyone::new(either))).await;
    let tenants = app.mfa.tenants();
    let mut alice = signed_up(&app, ALICE).await;
    alice.get("/api/me").await.is(200);
    tenants.set_rule(&public(), TenantRule::default().counting_only([EMAIL])).await.unwrap();
    // The live session hears of it at once.
    let refused = alice.get("/api/me").await;
    refused.is(403);
    assert_eq!(
        (&refused.body["next"], &alice.info().await.ok()["factors"]["next"]),
        (&json!(["otp-email"]), &json!(["otp-email"]))
    );
    alice.pass_code(ALICE).await;
    alice.get("/api/me").await.is(200);
    // Nobody is asked for anything where nothing is demanded.
    tenants.set_rule(&public(), TenantRule::default()).await.unwrap();
    let mut bob = signed_up(&app, BOB).await;
    bob.get("/api/me").await.is(200);
}

#[tokio::test]
async fn sec_p10_a_rule_that_contradicts_itself_or_the_policy_is_refused() {
    let app = TestApp::with(|b| b.policy(Everyone::new(EMAIL))).await;
    let tenants = app.mfa.tenants();
    let before = TenantRule::require([EMAIL]).counting_only([EMAIL, PASSWORD]);
    tenants.set_rule(&public(), before.clone()).await.unwrap();
    for rule in [
        TenantRule::require([EMAIL]).counting_only([PASSWORD]),
        TenantRule::default().counting_only([]),
        TenantRule::default().counting_only([PASSWORD]),
        TenantRule::default().counting_only([EMAIL, FactorId::parse("otp_email").unwrap()]),
        TenantRule::require([FactorId::TOTP]),
    ] {
        let error = tenants.set_rule(&public(), rule.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{rule:?}");
    }
    assert_eq!(tenants.load(&public()).await.unwrap().unwrap().rule, before);
    let nowhere = TenantId::parse("nowhere").unwrap();
    let error = tenants.set_rule(&nowhere, before).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_is_opted_into_in_one_tenant_counts_there_alone() {
    let app = TestApp::new().await;
    let (factors, north) = (app.mfa.factors(), TenantId::parse("north").unwrap());
    let mut alice = signed_up(&app, ALICE).await;
    let id = app.user(ALICE).await;
    let unknown = factors.opt_in_within(&id, &north, EMAIL).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    app.mfa.tenants().create(&north, None).await.unwrap();
    assert_eq!(factors.opt_in_within(&id, &north, EMAIL).await.unwrap(), [EMAIL]);
    alice.get("/api/me").await.is(200);
    assert_eq!(factors.opt_in_within(&id, &public(), EMAIL).await.unwrap(), [EMAIL]);
    alice.get("/api/me").await.is(403);
    // Each is taken back where it was said.
    assert_eq!(factors.opt_out(&id, EMAIL).await.unwrap(), []);
    alice.get("/api/me").await.is(403);
    assert_eq!(factors.opt_in(&id, FactorId::OTP_PHONE).await.unwrap(), [FactorId::OTP_PHONE]);
    assert_eq!(factors.required_in(&id, &public()).await.unwrap(), [FactorId::OTP_PHONE, EMAIL]);
    assert_eq!(factors.required_for(&id).await.unwrap(), [FactorId::OTP_PHONE]);
    factors.opt_out(&id, FactorId::OTP_PHONE).await.unwrap();
    assert_eq!(factors.opt_out_within(&id, &public(), EMAIL).await.unwrap(), []);
    alice.get("/api/me").await.is(200);
    assert_eq!(factors.required_in(&id, &north).await.unwrap(), [EMAIL]);
}
