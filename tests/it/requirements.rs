//! Requirements and policies over HTTP: nested ones, what refusals and `/mfa/info` say of them, those that
//! nobody can meet, and policies on trial.

use std::time::Duration;

use axum::{Router, body::Body, routing::get};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_mfa::{
    FactorId, Mfa, MfaLayer, MfaPolicy, PolicyContext, RequireFactors, Requirement, Requirements,
    SessionExtractor,
    config::{AppInfo, Secrets},
    delivery::Outbox,
    ident::TenantId,
    policy::{AnyPolicy, Compose as _, Declared, Everyone, ForRole, OptIn, PolicyError},
    store::MemoryStore,
};

use crate::support::{Browser, Mode, TestApp};

const ALICE: &str = "alice@shop.example";
const EMAIL: FactorId = FactorId::OTP_EMAIL;
const PASSWORD: FactorId = FactorId::PASSWORD;
const TOTP: FactorId = FactorId::TOTP;

/// A policy of an app's own, which says nothing of itself at the start.
pub struct Own(Requirements);

impl MfaPolicy for Own {
    async fn requirements(&self, _ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        Ok(self.0.clone())
    }
}

pub fn own(items: Value) -> Own {
    Own(Requirements::from_json(&items).unwrap())
}

async fn signed_up(app: &TestApp) -> Browser {
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    alice
}

/// Refused, with the same next step as `/mfa/info` names.
async fn refused(alice: &mut Browser) -> (Value, Value) {
    let info = alice.info().await.ok();
    let refused = alice.get("/api/me").await;
    refused.is(403);
    assert_eq!(refused.body["message"], "invalid claim");
    assert_eq!(refused.body["type"], "urn:tower-mfa:invalid-claim");
    assert_eq!(refused.body["next"], info["factors"]["next"], "one next step");
    (refused.body, info)
}

#[tokio::test]
async fn a_nested_demand_is_met_step_by_step() {
    // The factor that made the session and another one, over another channel.
    let two = Requirement::k_of(2, [PASSWORD, EMAIL]).distinct_channels();
    let second = Requirement::one_of([PASSWORD, EMAIL]).excluding_first_factor();
    let policy = Everyone::new(Requirement::one_of([Requirement::all_of([two]), second]));
    let app = TestApp::with(|b| b.policy(policy)).await;
    let mut alice = signed_up(&app).await;
    let (body, info) = refused(&mut alice).await;
    assert_eq!(body["next"], json!(["otp-email"]));
    assert_eq!(body["detail"], "needed next: a code by e-mail");
    assert_eq!(
        body["claimValidationErrors"],
        json!([{ "id": "st-mfa", "reason": { "message": "MFA requirement for auth is not satisfied" } }])
    );
    let why = &info["explanation"][0];
    assert_eq!((&why["state"], &why["factors"]), (&json!("missing"), &json!(["emailpassword", "otp-email"])));
    assert_eq!(why["parts"][1]["parts"][0]["state"], "impossible", "the first factor doesn't count: {why}");
    alice.pass_code(ALICE).await;
    alice.get("/api/me").await.is(200);
    let info = alice.info().await.ok();
    assert_eq!(
        (&info["explanation"][0]["state"], &info["factors"]["next"]),
        (&json!("satisfied"), &json!([]))
    );
}

#[tokio::test]
async fn the_first_factor_is_the_one_that_made_the_session() {
    let second = Requirement::one_of([PASSWORD, EMAIL]).excluding_first_factor();
    let app = TestApp::with(|b| b.policy(Everyone::new(second))).await;
    let mut alice = signed_up(&app).await;
    alice.pass_code(ALICE).await;
    // By e-mail first: the code doesn't count now, and both come within one second.
    let mut alice = app.browser(Mode::Header);
    let flow = alice.ask_code(ALICE, false).await.ok();
    let code = app.code_after(ALICE, 1).await;
    alice.enter(&flow, &code, false).await.ok();
    assert_eq!(refused(&mut alice).await.0["next"], json!(["emailpassword"]));
}

#[tokio::test]
async fn an_age_within_a_demand_runs_out() {
    let fresh = Requirement::all_of([Requirement::from(EMAIL).max_age(Duration::from_secs(600))]);
    let app = TestApp::with(|b| b.policy(Everyone::new(fresh))).await;
    let mut alice = signed_up(&app).await;
    alice.pass_code(ALICE).await;
    alice.get("/api/me").await.is(200);
    app.clock.advance(Duration::from_secs(600));
    alice.get("/api/me").await.is(200);
    app.clock.advance(Duration::from_secs(1));
    let late = alice.get("/api/me").await;
    late.is(403);
    assert_eq!(
        (&late.body["next"], &late.body["expired"], &late.body["max_age"], &late.body["detail"]),
        (
            &json!(["otp-email"]),
            &json!(["otp-email"]),
            &json!(600),
            &json!("needed next: a code by e-mail, at most 10 minutes old"),
        )
    );
    let (_, info) = refused(&mut alice).await;
    assert_eq!(info["explanation"][0]["state"], "expired");
    alice.pass_code(ALICE).await;
    alice.get("/api/me").await.is(200);
}

#[tokio::test]
async fn a_route_says_what_it_lacks() {
    let own = FactorId::parse("own").unwrap();
    let app = TestApp::with(|b| b.custom_factor(own.clone())).await;
    let mut alice = signed_up(&app).await;
    let fresh = RequireFactors::one_of([EMAIL]).max_age(Duration::from_secs(300));
    let nested = RequireFactors::list(Requirement::k_of(2, [PASSWORD, EMAIL, own]));
    let never = RequireFactors::list(Requirement::from(PASSWORD).phishing_resistant());
    async fn handler(_: SessionExtractor) {}
    let router = Router::new()
        .route("/fresh", get(handler).route_layer(fresh))
        .route("/nested", get(handler).route_layer(nested))
        .route("/never", get(handler).route_layer(never))
        .layer(MfaLayer::required(app.mfa.clone()));
    let send = async |request: Request<Body>| -> (u16, Value) {
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    };
    let ask = async |alice: &Browser, path| send(alice.request(Method::GET, path, None)).await;
    let reason = |body: &Value| body["claimValidationErrors"][0]["reason"].clone();

    let (status, body) = ask(&alice, "/nested").await;
    assert_eq!((status, &body["next"]), (403, &json!(["otp-email", "own"])));
    assert_eq!(
        reason(&body),
        json!({
            "message": "More factors must be complete in the session, next one of: otp-email, own",
            "oneOf": ["otp-email", "own"],
        })
    );
    let (status, body) = ask(&alice, "/never").await;
    assert_eq!((status, &body["next"]), (403, &json!([])));
    assert!(reason(&body)["message"].as_str().unwrap().contains("can't be satisfied"), "{body}");
    let (status, body) = ask(&alice, "/fresh").await;
    assert_eq!((status, body.get("expired"), &body["max_age"]), (403, None, &json!(300)));
    alice.pass_code(ALICE).await;
    assert_eq!(ask(&alice, "/fresh").await.0, 200);
    assert_eq!(ask(&alice, "/nested").await.0, 200);
    app.clock.advance(Duration::from_secs(301));
    let (status, body) = ask(&alice, "/fresh").await;
    assert_eq!(
        (status, &body["expired"], &body["next"]),
        (403, &json!(["otp-email"]), &json!(["otp-email"]))
    );
    assert_eq!(
        reason(&body),
        json!({ "message": "Factor validation failed: otp-email not completed", "factorId": "otp-email" })
    );
}

#[tokio::test]
async fn sec_p11_an_impossible_demand_is_said_and_lets_nobody_through() {
    for items in [
        json!(["totp"]),
        json!([{"oneOf": ["totp", "webauthn"]}]),
        // All of them, one of which is impossible: at once, not after the other one.
        json!([{"allOfInAnyOrder": ["otp-email", "totp"]}]),
        json!(["otp-email", "totp"]),
        json!([{"excludingFirstFactor": "emailpassword"}]),
    ] {
        let app = TestApp::with(|b| b.policy(own(items.clone()))).await;
        let mut alice = signed_up(&app).await;
        let (body, info) = refused(&mut alice).await;
        assert_eq!(body["next"], json!([]), "{items}");
        let said = body["claimValidationErrors"][0]["reason"]["message"].as_str().unwrap().to_owned();
        assert!(said.contains("can't be satisfied"), "{items}: {said}");
        assert_eq!(info["factors"]["allowedToSetup"], json!([]), "{items}");
        let states: Vec<&str> =
            info["explanation"].as_array().unwrap().iter().map(|it| it["state"].as_str().unwrap()).collect();
        assert_eq!(states.last(), Some(&"impossible"), "{items}");
        // Whoever knows the password enrols nothing into it either (row F01).
        let refused = alice.ask_code(ALICE, true).await;
        refused.is(403);
        assert_eq!(app.sent_to(ALICE), 0, "{items}");
    }
    // An alternative that is impossible is left out.
    let app = TestApp::with(|b| b.policy(own(json!([{"oneOf": ["totp", "otp-email"]}])))).await;
    let mut alice = signed_up(&app).await;
    assert_eq!(refused(&mut alice).await.0["next"], json!(["otp-email"]));
    alice.pass_code(ALICE).await;
    alice.get("/api/me").await.is(200);
}

/// Whoever is refused, by whatever, is told the one next step: by mounts, by routes that would set up or
/// complete something else, and by `/mfa/info`, in whichever order they are asked.
#[tokio::test]
async fn every_refusal_and_mfa_info_name_the_same_next_step() {
    let gate = FactorId::parse("gate").unwrap();
    let (mut refused, mut by_routes) = (0, 0);
    for items in [
        json!(["otp-email", "gate"]),
        json!(["totp"]),
        json!([{"oneOf": ["totp", "otp-email"]}, {"oneOf": ["gate", "emailpassword"]}]),
        json!([{"allOfInAnyOrder": ["gate", "otp-email", "emailpassword"]}]),
        json!([{"inOrder": ["gate", {"oneOf": ["otp-email", "emailpassword"]}]}]),
        json!([{"kOf": {"k": 3, "of": ["emailpassword", "gate", "otp-email"]}}]),
        json!([{"maxAge": {"seconds": 60, "of": {"allOfInAnyOrder": ["emailpassword", "otp-email"]}}}]),
        json!([{"excludingFirstFactor": {"oneOf": ["emailpassword", "otp-email"]}}]),
        json!([{"distinctChannels": {"kOf": {"k": 2, "of": ["otp-email", "emailpassword", "link-email"]}}}]),
        json!([{"phishingResistant": {"oneOf": ["webauthn", "otp-email"]}}]),
    ] {
        for by_code in [false, true] {
            let app = TestApp::with(|b| b.custom_factor(gate.clone()).policy(own(items.clone()))).await;
            let mut alice = app.browser(Mode::Header);
            if by_code {
                alice.by_code(ALICE).await;
            } else {
                alice.sign_up(ALICE).await.ok();
            }
            for late in [false, true] {
                app.clock.advance(Duration::from_secs(if late { 61 } else { 0 }));
                let mut answers = vec![alice.get("/api/me").await, alice.post("/api/me", json!({})).await];
                answers.push(alice.ask_code("another@shop.example", true).await);
                let info = alice.info().await.ok();
                answers.push(alice.get("/api/me").await);
                alice.refresh().await.is(200);
                answers.push(alice.get("/api/me").await);
                let what = format!("{items} by code: {by_code}, late: {late}");
                by_routes += usize::from(answers[2].status == 403);
                if answers[2].status != 403 {
                    // Setting up is what comes next.
                    answers.remove(2).ok();
                    assert!(
                        info["factors"]["next"].as_array().unwrap().contains(&json!("otp-email")),
                        "{what}"
                    );
                }
                for answer in answers {
                    assert_eq!(answer.status, 403, "{what}: {}", answer.text);
                    assert_eq!(answer.body["next"], info["factors"]["next"], "{what}");
                    assert!(answer.body["detail"].is_string(), "{what}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 100 && by_routes > 20, "{refused} {by_routes}");
}

/// A policy of an app's own that says what it may demand.
struct Says(Requirements);

impl MfaPolicy for Says {
    async fn requirements(&self, _ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        Ok(self.0.clone())
    }

    fn declares(&self, _tenant: Option<&[FactorId]>) -> Declared {
        Declared::only(self.0.clone())
    }
}

#[tokio::test]
async fn an_apps_own_factor_is_a_next_step() {
    let gate = FactorId::parse("gate").unwrap();
    let both = Requirement::one_of([gate.clone(), EMAIL]);
    let app = TestApp::with(|b| b.custom_factor(gate).policy(Everyone::new(both))).await;
    let mut alice = signed_up(&app).await;
    assert_eq!(refused(&mut alice).await.0["next"], json!(["gate", "otp-email"]));
    // Once she has an address, that and the app's own are what she can go on with.
    alice.pass_code(ALICE).await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_in(ALICE).await.ok();
    assert_eq!(refused(&mut alice).await.0["next"], json!(["gate", "otp-email"]));
}

/// The problems that `build()` finds.
fn problems(policy: impl MfaPolicy, first: &[FactorId]) -> Vec<String> {
    let app = AppInfo::new("Shop", "https://api.shop.test", "https://shop.test").unwrap();
    let built = Mfa::builder(app, Secrets::random().unwrap(), MemoryStore::new())
        .delivery(Outbox::new())
        .first_factors(first.to_vec())
        .policy(policy)
        .build();
    built.err().map(|error| error.problems().to_vec()).unwrap_or_default()
}

#[tokio::test]
async fn sec_p10_the_start_fails_for_a_demand_that_nobody_can_meet() {
    let second = || Requirement::from(EMAIL).excluding_first_factor();
    let cases: Vec<(AnyPolicy, Vec<FactorId>, Option<&str>)> = vec![
        (AnyPolicy::new(Everyone::new(TOTP)), vec![PASSWORD], Some("the factor totp, which isn't installed")),
        (AnyPolicy::new(OptIn.and(ForRole::new("admin", TOTP))), vec![PASSWORD], Some("totp")),
        (
            AnyPolicy::new(ForRole::new("admin", FactorId::parse("otp_email").unwrap())),
            vec![PASSWORD],
            Some("otp_email, which nobody knows"),
        ),
        (AnyPolicy::new(Everyone::new(second())), vec![PASSWORD], None),
        (AnyPolicy::new(Everyone::new(second())), vec![PASSWORD, EMAIL], Some("who signs in with otp-email")),
        (AnyPolicy::new(own(json!(["totp"]))), vec![PASSWORD], None),
        // An app's own, which says so of itself.
        (AnyPolicy::new(Says(TOTP.into())), vec![PASSWORD], Some("the factor totp, which isn't installed")),
        (AnyPolicy::new(Says(EMAIL.into())), vec![PASSWORD], None),
    ];
    for (policy, first, expected) in cases {
        let found = problems(policy, &first);
        assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
        assert!(found.iter().all(|problem| problem.contains(expected.unwrap())), "{found:?}");
    }
}

#[tokio::test]
async fn sec_p10_a_tenants_rule_that_nobody_can_meet_is_refused() {
    let scoped = ForRole::new("admin", Requirement::one_of([PASSWORD, EMAIL]).excluding_first_factor());
    let app = TestApp::with(|b| b.policy(scoped.where_tenant_asks())).await;
    let north = TenantId::parse("north").unwrap();
    let tenants = app.mfa.tenants();
    tenants.create(&north, None).await.unwrap();
    for (rule, cause) in [
        (vec![PASSWORD, EMAIL], None),
        (vec![TOTP, EMAIL], Some("totp, which isn't installed")),
        // Of the two only this one would stay, and some sign in with it.
        (vec![EMAIL], Some("who signs in with otp-email")),
        (vec![], None),
    ] {
        let before = tenants.load(&north).await.unwrap().unwrap().rule.required;
        let answer = tenants.require(&north, rule.clone()).await;
        let stored = tenants.load(&north).await.unwrap().unwrap().rule.required;
        match (answer, cause) {
            (Ok(()), None) => assert_eq!(stored, rule),
            (Err(error), Some(cause)) => {
                assert_eq!(error.kind(), tower_mfa::ident::ErrorKind::Invalid);
                let said = std::error::Error::source(&error).unwrap().to_string();
                assert!(said.contains(cause), "{said}");
                assert_eq!(stored, before);
            }
            (answer, _) => panic!("{rule:?}: {answer:?}"),
        }
    }
    // Where nobody signs in with it, it may be asked for.
    tenants.set_first_factors(&north, Some(vec![PASSWORD])).await.unwrap();
    tenants.require(&north, [EMAIL]).await.unwrap();
    // And then nobody may: whoever did would be stuck.
    for first in [Some(vec![PASSWORD, EMAIL]), Some(vec![EMAIL]), None] {
        let error = tenants.set_first_factors(&north, first).await.unwrap_err();
        assert_eq!(error.kind(), tower_mfa::ident::ErrorKind::Invalid);
        let said = std::error::Error::source(&error).unwrap().to_string();
        assert!(said.contains("who signs in with otp-email"), "{said}");
        let stored = tenants.load(&north).await.unwrap().unwrap().first_factors;
        assert_eq!(stored, Some(vec![PASSWORD]));
    }
    tenants.set_first_factors(&north, Some(Vec::new())).await.unwrap();
}

struct Hanging;

impl MfaPolicy for Hanging {
    async fn requirements(&self, _ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        std::future::pending().await
    }
}

struct Panicking;

impl MfaPolicy for Panicking {
    async fn requirements(&self, _ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        panic!("on trial")
    }
}

#[tokio::test]
async fn a_policy_on_trial_counts_and_changes_nothing() {
    // (whether it would stop her, whether it fails)
    for (shadow, stops, fails) in [
        (AnyPolicy::new(Everyone::new(EMAIL)), true, false),
        (AnyPolicy::new(OptIn), false, false),
        // What nobody can meet is no contradiction of the live configuration.
        (AnyPolicy::new(Everyone::new(TOTP)), true, false),
        (AnyPolicy::new(Hanging), false, true),
        (AnyPolicy::new(Panicking), false, true),
        (AnyPolicy::new(Everyone::new(FactorId::parse("typo").unwrap())), false, true),
    ] {
        let app = TestApp::with(|b| b.shadow(shadow)).await;
        let mut alice = signed_up(&app).await;
        alice.get("/api/me").await.is(200);
        assert_eq!(alice.claim()["v"], true);
        let counts = app.mfa.counters().shadow;
        assert!(counts.asked >= 1);
        let all = |yes: bool| if yes { counts.asked } else { 0 };
        assert_eq!((counts.stopped, counts.failed, counts.passed), (all(stops), all(fails), 0));
    }
    // The other way round.
    let app = TestApp::with(|b| b.policy(Everyone::new(EMAIL)).shadow(OptIn)).await;
    let mut alice = signed_up(&app).await;
    alice.get("/api/me").await.is(403);
    let counts = app.mfa.counters().shadow;
    assert_eq!((counts.stopped, counts.passed), (0, counts.asked));
    assert_eq!(TestApp::new().await.mfa.counters().shadow, Default::default());
}
