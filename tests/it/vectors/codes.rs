//! Vectors about codes that are asked for, and about the older second factor that was made by hand: a boolean
//! claim, and a number that is the user's from the first success on. Over HTTP, for the rules are about what is
//! sent.
//!
//! Where row O14 says no and a vector yes, the row wins: see [`DESTINATION_BOUND`].

use std::time::Duration;

use axum::{Router, routing::post};
use serde_json::{Value, json};
use tower_mfa::{
    ClaimValidator, FactorId, MfaBuilder, MfaLayer, Requirements, SessionClaim, SessionExtractor,
    api::ApiLayer,
    claim::{ClaimContext, ClaimError, HasValue},
    config::{Countries, FactorChanges, FlowType, Passwordless},
    delivery::Notice,
    ident::{Contact, Email, Payload, Phone, TenantId},
    policy::Everyone,
};

use super::{NOW, array, each, ids, list, payload, session::block_on, verdict};
use crate::{
    spy::{ALICE, BOB, handle},
    support::{Answer, Browser, HandClock, Mode, START, TestApp},
};

/// Cases in which a second number is sent a code though the user has one. Row O14: never, whatever was completed;
/// who has lost a number has it removed first.
const DESTINATION_BOUND: [&str; 2] = [
    "nothing required and phone bound: another phone may be added",
    "mfa completed: another phone may be added",
];

#[test]
fn send_code() {
    each("send_code", |case| block_on(sent(case)));
}

async fn sent(case: &Value) {
    let (input, expected) = (&case["input"], &case["expected"]);
    let requirements = requirements(&input["requirements"]);
    let first = input["firstFactors"].is_array().then(|| ids(&input["firstFactors"]));
    let flow = flow(&input["passwordless"]["flowType"]);
    assert_eq!(input["passwordless"]["contactMethod"], "EMAIL_OR_PHONE");
    let app = app(flow, requirements, |b| match first {
        Some(first) => b.first_factors(first),
        None => b,
    })
    .await;
    for other in array(&input["otherUsers"]) {
        let email = Email::parse(BOB).unwrap();
        let bob = app.mfa.users().create(&TenantId::PUBLIC, &email).await.unwrap();
        let phone = phone(&other["account"]["phoneNumber"]);
        let bob = app.mfa.users().add_phone(&bob.id, &TenantId::PUBLIC, &phone).await.unwrap();
        assert_eq!(other["primary"], bob.primary);
    }
    let mut client = app.browser(Mode::Header);
    let within = input.get("sessionUser").is_some();
    if within {
        let linked: Vec<&str> = array(&input["sessionUser"]["linkedFactors"]).map(contact).collect();
        signed_in(&app, &mut client, &linked).await;
        if input["claim"]["c"].get("otp-phone").is_some() {
            client.pass_code(linked[0]).await;
        }
        assert_eq!(client.claim()["v"], input["claim"]["v"]);
        let ids = |claim: &Value| Vec::from_iter(claim["c"].as_object().unwrap().keys().cloned());
        assert_eq!(ids(&client.claim()), ids(&input["claim"]));
    }
    let to = contact(input);
    let (seen, queued) = (app.sent_to(to), app.store.queued());
    let answer = client.ask_code(to, within).await;
    if DESTINATION_BOUND.contains(&case["name"].as_str().unwrap()) {
        assert_eq!(expected["status"], "OK");
        assert_eq!(answer.body["claimValidationErrors"], use_what_is_set_up());
        answer.is(403);
        assert_eq!(app.store.queued(), queued);
        return;
    }
    if let Some(error) = expected.get("error") {
        answer.is(error["httpStatus"].as_u64().unwrap() as u16);
        match error.get("claimValidationErrors") {
            Some(errors) => assert_eq!(answer.body["claimValidationErrors"], *errors),
            None => assert_eq!(answer.body["message"], "unauthorised"),
        }
        assert_eq!(app.store.queued(), queued, "nothing is sent");
        assert!(expected["message"].is_null());
        return;
    }
    assert_eq!(answer.body["flowType"], expected["flowType"]);
    answer.ok();
    let message = &expected["message"];
    let Notice::SignInCode { to: sent_to, code, link, first_factor, .. } = app.notice_after(to, seen).await
    else {
        panic!("another notice")
    };
    let channel = if sent_to.phone().is_some() { "sms" } else { "email" };
    let ours = json!({
        "channel": channel,
        "to": sent_to.as_str(),
        "containsCode": code.is_some(),
        "containsLink": link.is_some(),
        "isFirstFactor": first_factor,
    });
    assert_eq!(ours, *message);
    assert_eq!(app.store.queued(), queued + 1);
}

/// An app of addresses and numbers that asks everybody for these.
async fn app(
    flow: FlowType,
    requirements: Requirements,
    change: impl FnOnce(MfaBuilder) -> MfaBuilder,
) -> TestApp {
    TestApp::with(|b| {
        let passwordless = Passwordless::email_or_phone(Countries::all()).flow(flow);
        change(
            b.passwordless(passwordless)
                .policy(Everyone::new(requirements))
                // As the other server has it: no fresh proof is asked for.
                .factor_changes(FactorChanges::Compat),
        )
    })
    .await
}

/// Somebody with a password, and with these contacts beside it, who has just typed the password.
async fn signed_in(app: &TestApp, client: &mut Browser, linked: &[&str]) {
    client.sign_up(ALICE).await.ok();
    if linked.is_empty() {
        return;
    }
    let user = app.user(ALICE).await;
    for contact in linked {
        match Contact::parse(contact).unwrap() {
            Contact::Email(email) => app.mfa.users().add_email(&user, &TenantId::PUBLIC, &email).await,
            Contact::Phone(phone) => app.mfa.users().add_phone(&user, &TenantId::PUBLIC, &phone).await,
        }
        .unwrap();
    }
    client.sign_in(ALICE).await.ok();
}

/// The older second factor's claim, as the other server's guide has it: what is fetched is always `false`.
struct SecondFactor;

impl SessionClaim for SecondFactor {
    const KEY: &'static str = "2fa-completed";
    type Value = bool;

    async fn fetch(&self, _: &ClaimContext<'_>) -> Result<Option<bool>, ClaimError> {
        Ok(Some(false))
    }
}

#[test]
fn legacy_2fa() {
    each("legacy_2fa", |case| match case["input"]["test"].as_str().unwrap() {
        "build" => block_on(built(case)),
        "set" => block_on(set(case)),
        "validator" => validator(case),
        "send-code" => block_on(bound(case)),
        other => panic!("no test {other}"),
    });
}

async fn built(case: &Value) {
    let app = TestApp::with(|b| b.claim(SecondFactor)).await;
    let mut alice = app.browser(Mode::Header);
    alice.by_code(ALICE).await;
    assert_eq!(json!({ SecondFactor::KEY: alice.payload(SecondFactor::KEY) }), case["expected"]["payload"]);
}

async fn set(case: &Value) {
    let (input, expected) = (&case["input"], &case["expected"]["payload"]);
    let made_at = input["payload"][SecondFactor::KEY]["t"].as_i64().unwrap() / 1000;
    let clock = HandClock::at(made_at);
    let app = TestApp::with(|b| b.claim(SecondFactor).clock(clock.clone())).await;
    let complete = async |session: SessionExtractor| session.set_claim(&SecondFactor, true).await;
    let router = Router::new()
        .route("/complete", post(complete))
        .layer(MfaLayer::required(app.mfa.clone()))
        .layer(ApiLayer::new(app.mfa.clone()));
    let mut alice = app.browser(Mode::Header);
    alice.by_code(ALICE).await;
    let before = alice.front.clone().unwrap()["up"].clone();
    assert_eq!(before[SecondFactor::KEY], input["payload"][SecondFactor::KEY]);
    clock.advance(Duration::from_secs((START - made_at) as u64));
    let mut alice = alice.at(&app.clone().serving(router, app.outbox.clone()));
    assert_eq!(input["value"], true);
    alice.post("/complete", json!({})).await.is(200);
    assert_eq!(alice.payload(SecondFactor::KEY), expected[SecondFactor::KEY]);
    assert_eq!((alice.payload("sub"), alice.claim()), (before["sub"].clone(), before["st-mfa"].clone()));
}

fn validator(case: &Value) {
    let (input, expected) = (&case["input"], &case["expected"]);
    let mut validator = match input["validator"].as_str().unwrap() {
        "isTrue" => HasValue::is_true(SecondFactor),
        "isFalse" => HasValue::is_false(SecondFactor),
        other => panic!("no validator {other}"),
    };
    if let Some(id) = input["id"].as_str() {
        validator = validator.id(id);
    }
    if let Some(age) = input["maxAgeInSeconds"].as_u64() {
        validator = validator.max_age(Duration::from_secs(age));
    }
    let payload = payload(input["payload"].clone());
    let refetch = validator.refetch(&payload, NOW);
    assert!(refetch.as_ref().is_none_or(|claim| claim.key() == SecondFactor::KEY));
    let id = ClaimValidator::id(&validator);
    assert_eq!(
        json!({ "id": id, "shouldRefetch": refetch.is_some(), "result": verdict(&validator, &payload) }),
        *expected
    );
}

/// Which number is the user's: the store says it, not what a session's payload had once (tag `stale-binding`).
async fn bound(case: &Value) {
    let input = &case["input"];
    let app =
        app(FlowType::UserInputCode, FactorId::OTP_PHONE.into(), |b| b.first_factors([FactorId::PASSWORD]))
            .await;
    let mut client = app.browser(Mode::Header);
    let within = !input["session"].is_null();
    if within {
        let linked: Vec<&str> = input["metadataPhoneNumber"].as_str().into_iter().collect();
        signed_in(&app, &mut client, &linked).await;
        let noted = &input["session"]["payloadPhoneNumber"];
        if !noted.is_null() {
            let (note, session) = (json!({ "phoneNumber": noted }), handle(&client).parse().unwrap());
            let note = Payload::from_json(note).unwrap();
            app.mfa.sessions().merge_payload(&session, note).await.unwrap();
            client.info().await.ok();
        }
        assert_eq!(client.payload("phoneNumber"), *noted);
    }
    let to = contact(&input["requested"]);
    let (seen, queued) = (app.sent_to(to), app.store.queued());
    let stale = case["divergence"] == "stale-binding";
    let decision = if stale { "refuse" } else { case["expected"]["decision"].as_str().unwrap() };
    let answer = client.ask_code(to, within).await;
    match decision {
        "send" => {
            answer.ok();
            assert_eq!(app.notice_after(to, seen).await.to().as_str(), to);
        }
        "refuse" => {
            answer.is(403);
            assert_eq!(answer.body["claimValidationErrors"], use_what_is_set_up());
        }
        "unauthorised" => {
            answer.is(401);
            client.ask_code(to, true).await.is(401);
        }
        other => panic!("no decision {other}"),
    }
    assert_eq!(app.store.queued() - queued, usize::from(decision == "send"));
}

/// Where the other server sends what we don't, and the other way round.
pub(super) async fn divergence(input: &Value) -> Value {
    let flow = match input.get("flowType") {
        Some(text) => flow(text),
        None => FlowType::UserInputCode,
    };
    let app =
        app(flow, requirements(&input["requirements"]), |b| b.first_factors([FactorId::PASSWORD])).await;
    let mut client = app.browser(Mode::Header);
    let to = match input.get("tenantId") {
        // The number counts in one tenant of the user's, the session is in another one.
        Some(here) => {
            let tenant = |id: &Value| TenantId::parse(id.as_str().unwrap()).unwrap();
            let linked = &input["linked"];
            let home = tenant(&linked["tenantIds"][0]);
            let tenants: Vec<TenantId> = array(&input["userTenants"]).map(tenant).collect();
            for tenant in &tenants {
                app.mfa.tenants().create(tenant, None).await.unwrap();
            }
            client.tenant = Some(home.to_string());
            client.sign_up(ALICE).await.ok();
            let user = app.user(ALICE).await;
            app.mfa.users().add_to_tenants(&user, tenants).await.unwrap();
            app.mfa.users().add_phone(&user, &home, &phone(&linked["phoneNumber"])).await.unwrap();
            client.tenant = Some(tenant(here).to_string());
            client.sign_in(ALICE).await.ok();
            contact(input)
        }
        None => {
            signed_in(&app, &mut client, &[input["boundPhone"].as_str().unwrap()]).await;
            input["requestedPhone"].as_str().unwrap()
        }
    };
    let queued = app.store.queued();
    let Answer { status, body, .. } = client.ask_code(to, true).await;
    let sent = app.store.queued() - queued;
    match status.as_u16() {
        200 => json!({ "status": body["status"], "sent": sent }),
        status => json!({
            "httpStatus": status,
            "claimValidationErrors": body["claimValidationErrors"],
            "sent": sent,
        }),
    }
}

fn use_what_is_set_up() -> Value {
    let reason = "Completed factors in the session does not satisfy the MFA requirements for auth";
    json!([{ "id": "st-mfa", "reason": reason }])
}

fn requirements(value: &Value) -> Requirements {
    if value.is_null() { Requirements::none() } else { list(value) }
}

fn flow(value: &Value) -> FlowType {
    match value.as_str().unwrap() {
        "USER_INPUT_CODE" => FlowType::UserInputCode,
        "MAGIC_LINK" => FlowType::MagicLink,
        "USER_INPUT_CODE_AND_MAGIC_LINK" => FlowType::UserInputCodeAndMagicLink,
        other => panic!("no flow {other}"),
    }
}

fn contact(value: &Value) -> &str {
    value["email"].as_str().or_else(|| value["phoneNumber"].as_str()).expect("a contact")
}

fn phone(value: &Value) -> Phone {
    Phone::parse(value.as_str().unwrap()).unwrap()
}
