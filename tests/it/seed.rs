//! The scenarios of the first seed document, over HTTP: who is asked for an e-mail code, and what the
//! claim says. Each in cookie mode and in header mode.

use std::time::Duration;

use serde_json::json;
use tower_mfa::{
    FactorId,
    ident::TenantId,
    policy::{ForRole, OptIn, TenantScoped},
};

use crate::{
    spy::ALICE,
    support::{Mode, START, TestApp, wrong},
};

const MODES: [Mode; 2] = [Mode::Cookie, Mode::Header];

fn tenant(id: &str) -> TenantId {
    TenantId::parse(id).unwrap()
}

#[tokio::test]
async fn only_admins_need_a_code() {
    for mode in MODES {
        let app = TestApp::with(|b| b.policy(ForRole::new("admin", FactorId::OTP_EMAIL))).await;
        let mut alice = app.browser(mode);
        alice.sign_up(ALICE).await.ok();
        assert_eq!(alice.claim(), json!({"c": {"emailpassword": START}, "v": true}));
        alice.get("/api/me").await.is(200);
        alice.sign_out().await.ok();
        alice.get("/api/me").await.is(401);

        app.mfa.roles().grant(&app.user(ALICE).await, &TenantId::PUBLIC, "admin").await.unwrap();
        alice.sign_in(ALICE).await.ok();
        assert_eq!(alice.claim(), json!({"c": {"emailpassword": START}, "v": false}));
        let refused = alice.get("/api/me").await;
        refused.is(403);
        assert_eq!(refused.body["message"], "invalid claim");
        assert_eq!(
            refused.body["claimValidationErrors"],
            json!([{"id": "st-mfa", "reason": {"message": "MFA requirement for auth is not satisfied"}}])
        );
        let info = alice.info().await.ok();
        assert_eq!(
            info["factors"],
            json!({"next": ["otp-email"], "alreadySetup": ["emailpassword"], "allowedToSetup": ["otp-email"]})
        );
        assert_eq!(info["emails"]["otp-email"], json!([ALICE]));

        app.clock.advance(Duration::from_secs(60));
        let flow = alice.ask_code(ALICE, true).await.ok();
        assert_eq!(flow["flowType"], "USER_INPUT_CODE");
        let code = app.code(ALICE).await;
        let miss = alice.enter(&flow, &wrong(&code), true).await;
        miss.status("INCORRECT_USER_INPUT_CODE_ERROR");
        assert_eq!(
            (&miss.body["failedCodeInputAttemptCount"], &miss.body["maximumCodeInputAttempts"]),
            (&json!(1), &json!(5))
        );
        let done = alice.enter(&flow, &code, true).await.ok();
        assert_eq!(done["createdNewRecipeUser"], true);
        assert_eq!(done["user"]["loginMethods"].as_array().unwrap().len(), 2);
        assert_eq!(alice.claim(), json!({"c": {"emailpassword": START, "otp-email": START + 60}, "v": true}));
        alice.get("/api/me").await.is(200);
        // The next time the factor is there and can only be used, not set up.
        alice.sign_out().await.ok();
        alice.sign_in(ALICE).await.ok();
        let info = alice.info().await.ok();
        assert_eq!(
            info["factors"],
            json!({"next": ["otp-email"], "alreadySetup": ["emailpassword", "otp-email"], "allowedToSetup": []})
        );
        alice.pass_code(ALICE).await;
        alice.get("/api/me").await.is(200);
    }
}

#[tokio::test]
async fn only_users_who_opted_in_need_a_code() {
    for mode in MODES {
        let app = TestApp::new().await;
        let mut alice = app.browser(mode);
        alice.sign_up(ALICE).await.ok();
        assert_eq!(alice.claim()["v"], true);
        alice.pass_code(ALICE).await;
        let id = app.user(ALICE).await;
        assert_eq!(app.mfa.factors().opt_in(&id, FactorId::OTP_EMAIL).await.unwrap(), [FactorId::OTP_EMAIL]);
        alice.get("/api/me").await.is(200);

        alice.sign_out().await.ok();
        alice.sign_in(ALICE).await.ok();
        assert_eq!(alice.claim()["v"], false);
        alice.get("/api/me").await.is(403);
        alice.pass_code(ALICE).await;
        alice.get("/api/me").await.is(200);

        assert!(app.mfa.factors().opt_out(&id, FactorId::OTP_EMAIL).await.unwrap().is_empty());
        alice.sign_out().await.ok();
        alice.sign_in(ALICE).await.ok();
        assert_eq!(alice.claim()["v"], true);
        alice.get("/api/me").await.is(200);
    }
}

#[tokio::test]
async fn admins_where_the_tenant_asks_for_it() {
    for mode in MODES {
        let admin = ForRole::new("admin", FactorId::OTP_EMAIL);
        let app = TestApp::with(|b| b.policy(TenantScoped::new(admin))).await;
        let (north, south) = (tenant("north"), tenant("south"));
        for id in [&north, &south] {
            app.mfa.tenants().create(id, None).await.unwrap();
        }
        app.mfa.tenants().require(&north, [FactorId::OTP_EMAIL]).await.unwrap();
        let mut alice = app.browser(mode);
        alice.tenant = Some("north".to_owned());
        alice.sign_up(ALICE).await.ok();
        let id = app.user(ALICE).await;
        app.mfa.users().add_to_tenants(&id, [south.clone()]).await.unwrap();
        for id_of in [&north, &south] {
            app.mfa.roles().grant(&id, id_of, "admin").await.unwrap();
        }
        alice.sign_in(ALICE).await.ok();
        assert_eq!(alice.claim()["v"], false, "admin, and the tenant asks");
        alice.pass_code(ALICE).await;
        assert_eq!(alice.get("/api/me").await.body["tenantId"], "north");

        alice.tenant = Some("south".to_owned());
        alice.sign_in(ALICE).await.ok();
        assert_eq!(alice.claim()["v"], true, "admin, but this tenant doesn't ask");
        assert_eq!(alice.get("/api/me").await.body["tenantId"], "south");

        app.mfa.roles().revoke(&id, &north, "admin").await.unwrap();
        alice.tenant = Some("north".to_owned());
        alice.sign_in(ALICE).await.ok();
        assert_eq!(alice.claim()["v"], true, "the tenant asks, but she is admin elsewhere only");
    }
}

#[tokio::test]
async fn opted_in_where_the_tenant_asks_for_it() {
    for mode in MODES {
        let app = TestApp::with(|b| b.policy(TenantScoped::new(OptIn))).await;
        let north = tenant("north");
        app.mfa.tenants().create(&north, None).await.unwrap();
        let mut alice = app.browser(mode);
        alice.sign_up(ALICE).await.ok();
        let id = app.user(ALICE).await;
        app.mfa.users().add_to_tenants(&id, [north.clone()]).await.unwrap();
        app.mfa.factors().opt_in(&id, FactorId::OTP_EMAIL).await.unwrap();
        app.mfa.tenants().require(&north, [FactorId::OTP_EMAIL]).await.unwrap();

        alice.sign_in(ALICE).await.ok();
        assert_eq!(alice.claim()["v"], true, "opted in, but this tenant doesn't ask");
        alice.tenant = Some("north".to_owned());
        alice.sign_in(ALICE).await.ok();
        assert_eq!(alice.claim()["v"], false, "both");
        alice.get("/api/me").await.is(403);
        alice.pass_code(ALICE).await;
        alice.get("/api/me").await.is(200);

        app.mfa.factors().opt_out(&id, FactorId::OTP_EMAIL).await.unwrap();
        alice.sign_in(ALICE).await.ok();
        assert_eq!(alice.claim()["v"], true, "the tenant asks, but she didn't opt in");
    }
}
