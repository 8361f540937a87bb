//! The second seed document as a story: a password, then a code to the phone; a boolean claim; the number saved
//! after the first success and asked only once. And Mallory, who knows Alice's password.

use std::time::Duration;

use serde_json::{Value, json};
use tower_mfa::{
    FactorId, MfaBuilder,
    claim::HasValue,
    config::{Countries, Passwordless},
    ident::{Phone, TenantId},
    policy::Everyone,
};

use crate::{
    examples::legacy_second_factor::SecondFactor,
    spy::{ALICE, NUMBER, handle, told},
    support::{Browser, Mode, TestApp},
};

const PUBLIC: TenantId = TenantId::PUBLIC;
const OTHER: &str = "+36302222242";
const MALLORY: &str = "mallory@shop.example";
const MODES: [Mode; 2] = [Mode::Cookie, Mode::Header];

fn by_hand(builder: MfaBuilder) -> MfaBuilder {
    builder
        .first_factors([FactorId::PASSWORD])
        .passwordless(Passwordless::phone(Countries::only(["HU"]).unwrap()))
        .policy(Everyone::new(FactorId::OTP_PHONE))
        .claim(SecondFactor)
        .validator(HasValue::is_true(SecondFactor))
}

#[cfg(all(feature = "third-party", feature = "http-client"))]
mod social {
    //! The same with a social login first, as the seed has them both.

    use std::time::{SystemTime, UNIX_EPOCH};

    use tower_mfa::{account::LoginKind, config::Reqwest, factor::ThirdParty};

    use super::*;
    use crate::support::{HandClock, provider::ProviderServer};

    #[tokio::test]
    async fn the_story_with_a_social_login_first() {
        let server = ProviderServer::start(json!({})).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let clock = HandClock::at(now as i64);
        let settings = ThirdParty::new(Reqwest::new().unwrap()).provider(server.oidc());
        let app = TestApp::with(|b| {
            by_hand(b)
                .first_factors([FactorId::THIRD_PARTY, FactorId::PASSWORD])
                .third_party(settings)
                .clock(clock.clone())
        })
        .await
        .with_clock(Some(clock));
        for mode in MODES {
            let mut alice = app.browser(mode);
            server.sign_in(&mut alice, "alice").await.ok();
            assert_eq!((done(&alice), &alice.claim()["v"]), (json!(false), &json!(false)));
            assert!(alice.claim()["c"]["thirdparty"].is_i64());
            alice.get("/api/me").await.is(403);
            // The number is typed at the first sign-in alone; afterwards it is known, and sent back masked.
            let known = alice.info().await.ok()["phoneNumbers"]["otp-phone"].clone();
            let number = if mode == MODES[0] {
                assert_eq!(known, json!([]));
                NUMBER.to_owned()
            } else {
                assert_eq!(known, json!(["+***42"]));
                known[0].as_str().unwrap().to_owned()
            };
            let (seen, before) = (app.sent_to(NUMBER), handle(&alice));
            let flow = alice.ask_code(&number, true).await.ok();
            alice.enter(&flow, &app.code_after(NUMBER, seen).await, true).await.ok();
            assert_eq!(
                (handle(&alice), done(&alice), &alice.claim()["v"]),
                (before, json!(true), &json!(true))
            );
            alice.get("/api/me").await.is(200);
            no_number_in_tokens(&alice);
            let user = app.mfa.users().load(&app.user(ALICE).await).await.unwrap().unwrap();
            let kinds: Vec<LoginKind> = user.logins.iter().map(|login| login.kind).collect();
            assert_eq!(kinds, [LoginKind::ThirdParty, LoginKind::Passwordless]);
            // Whoever gets hold of the social login gets no code to a number of their own, nor another way in.
            let mut mallory = app.browser(Mode::Header);
            server.sign_in(&mut mallory, "alice").await.ok();
            let answer = mallory.ask_code(OTHER, true).await;
            assert_eq!(
                (answer.is(403).body["claimValidationErrors"].clone(), app.sent_to(OTHER)),
                (refused(), 0)
            );
            mallory.get("/api/me").await.is(403);
        }
        // A password for the same address is somebody else's account: there is no session in which it was joined.
        let mut other = app.browser(Mode::Header);
        other.sign_up(ALICE).await.ok();
        let refused = other.ask_code(NUMBER, true).await;
        // The address is Alice's, who is primary by now.
        refused.status("SIGN_IN_UP_NOT_ALLOWED");
        assert!(refused.body["reason"].as_str().unwrap().ends_with("(ERR_CODE_019)"), "{}", refused.text);
        assert_eq!(
            app.mfa
                .users()
                .by_email(&PUBLIC, &tower_mfa::ident::Email::parse(ALICE).unwrap())
                .await
                .unwrap()
                .len(),
            2
        );
        app.store.check_users().await;
    }
}

async fn shop() -> TestApp {
    TestApp::with(by_hand).await
}

/// Alice, with her number, signed in by password alone.
async fn half_alice(app: &TestApp) -> Browser {
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    alice.pass_code(NUMBER).await;
    alice.sign_out().await.ok();
    alice.sign_in(ALICE).await.ok();
    alice
}

/// The numbers of Alice's login methods.
async fn numbers(app: &TestApp) -> Vec<String> {
    let user = app.mfa.users().load(&app.user(ALICE).await).await.unwrap().unwrap();
    user.logins
        .iter()
        .filter_map(|login| login.phone.as_ref())
        .map(|phone| phone.as_str().to_owned())
        .collect()
}

fn done(browser: &Browser) -> Value {
    browser.payload("2fa-completed")["v"].clone()
}

fn refused() -> Value {
    let reason = "Completed factors in the session does not satisfy the MFA requirements for auth";
    json!([{ "id": "st-mfa", "reason": reason }])
}

#[tokio::test]
async fn the_story() {
    for mode in MODES {
        let app = shop().await;
        let mut alice = app.browser(mode);
        alice.sign_up(ALICE).await.ok();
        assert_eq!((done(&alice), &alice.claim()["v"]), (json!(false), &json!(false)));
        let stopped = alice.get("/api/me").await;
        stopped.is(403);
        let wrong = json!({ "message": "wrong value", "expectedValue": true, "actualValue": false });
        assert_eq!(
            stopped.body["claimValidationErrors"][0],
            json!({ "id": "2fa-completed", "reason": wrong })
        );
        assert_eq!(alice.info().await.ok()["phoneNumbers"]["otp-phone"], json!([]));

        // The number is typed once. It is hers when the code was right, not before.
        let flow = alice.ask_code(NUMBER, true).await.ok();
        assert_eq!(flow["flowType"], "USER_INPUT_CODE");
        assert!(numbers(&app).await.is_empty());
        let (before, code) = (handle(&alice), app.code(NUMBER).await);
        alice.enter(&flow, &code, true).await.ok();
        assert_eq!(numbers(&app).await, [NUMBER]);
        // The same session, and no other one; the very answer says that it is complete.
        assert_eq!((handle(&alice), app.store.sessions().await.len()), (before, 1));
        assert_eq!((done(&alice), &alice.claim()["v"]), (json!(true), &json!(true)));
        alice.get("/api/me").await.is(200);

        // The next time nobody asks for it: what is shown is masked, and sent back as it is.
        alice.sign_out().await.ok();
        alice.sign_in(ALICE).await.ok();
        assert_eq!(done(&alice), false);
        alice.get("/api/me").await.is(403);
        let info = alice.info().await.ok();
        let shown = info["phoneNumbers"]["otp-phone"][0].as_str().unwrap().to_owned();
        assert_eq!(shown, "+***42");
        let seen = app.sent_to(NUMBER);
        let flow = alice.ask_code(&shown, true).await.ok();
        let code = app.code_after(NUMBER, seen).await;
        alice.enter(&flow, &code, true).await.ok();
        alice.get("/api/me").await.is(200);
        assert_eq!(numbers(&app).await, [NUMBER]);
        no_number_in_tokens(&alice);
    }
}

/// Row P18: neither in the access token nor in what the front end reads.
fn no_number_in_tokens(browser: &Browser) {
    let told = told(browser);
    assert!(told.contains("2fa-completed"));
    assert!(!told.contains(&NUMBER[1..]), "{told}");
}

#[tokio::test]
async fn a_changed_number_is_refused_before_anything_is_sent() {
    let app = shop().await;
    let mut alice = half_alice(&app).await;
    let queued = app.store.queued();
    let answer = alice.ask_code(OTHER, true).await;
    answer.is(403);
    assert_eq!(answer.body["claimValidationErrors"], refused());
    // Nor once the second factor is complete: what is bound is never written over.
    alice.pass_code(NUMBER).await;
    let answer = alice.ask_code(OTHER, true).await;
    answer.is(403);
    assert_eq!(answer.body["claimValidationErrors"], refused());
    assert_eq!((app.store.queued(), numbers(&app).await), (queued + 1, vec![NUMBER.to_owned()]));
    assert_eq!(app.store.audited().await.iter().filter(|what| *what == "destination-refused").count(), 2);
    // Equality is of numbers, not of texts.
    let seen = app.sent_to(NUMBER);
    let flow = alice.ask_code("+36 (30) 111-1142", true).await.ok();
    alice.enter(&flow, &app.code_after(NUMBER, seen).await, true).await.ok();
    // Whoever lost the number has it taken away, and gives another one at the next sign-in.
    let user = app.mfa.users().load(&app.user(ALICE).await).await.unwrap().unwrap();
    let lost = user.logins.iter().find(|login| login.phone.is_some()).unwrap();
    app.mfa.users().remove_login(&user.id, &lost.id).await.unwrap();
    alice.sign_in(ALICE).await.ok();
    alice.pass_code(OTHER).await;
    assert_eq!(numbers(&app).await, [OTHER]);
}

#[tokio::test]
async fn sec_o14_mallory_with_the_password_gets_no_code_to_her_own_number() {
    let app = shop().await;
    let mut mallory = half_alice(&app).await;
    let queued = app.store.queued();
    for number in [OTHER, "+36 30 222 2242", "+36301111143"] {
        let answer = mallory.ask_code(number, true).await;
        answer.is(403);
        assert_eq!(answer.body["claimValidationErrors"], refused());
    }
    // Nor as if she had no session, nor to an address.
    mallory.at(&app).ask_code(OTHER, false).await.is(400);
    app.browser(Mode::Header).ask_code(OTHER, false).await.is(401);
    mallory.ask_code(MALLORY, true).await.is(400);
    assert_eq!((app.store.queued(), app.sent_to(OTHER)), (queued, 0));
    assert_eq!((done(&mallory), numbers(&app).await), (json!(false), vec![NUMBER.to_owned()]));
    mallory.get("/api/me").await.is(403);
}

#[tokio::test]
async fn sec_o15_mallorys_own_flow_is_no_use_in_alices_session() {
    let app = shop().await;
    let mut as_alice = half_alice(&app).await;
    let mut mallory = app.browser(Mode::Header);
    mallory.sign_up(MALLORY).await.ok();
    let flow = mallory.ask_code(OTHER, true).await.ok();
    let code = app.code(OTHER).await;
    let compared = app.mfa.counters().code_comparisons;
    as_alice.enter(&flow, &code, true).await.status("RESTART_FLOW_ERROR");
    as_alice.enter(&flow, &code, false).await.status("RESTART_FLOW_ERROR");
    as_alice.ask_again(&flow, true).await.status("RESTART_FLOW_ERROR");
    as_alice.get("/api/me").await.is(403);
    assert_eq!(app.mfa.counters().code_comparisons, compared);
    assert_eq!((done(&as_alice), numbers(&app).await), (json!(false), vec![NUMBER.to_owned()]));
    let other = Phone::parse(OTHER).unwrap();
    assert_eq!(app.mfa.users().by_phone(&PUBLIC, &other).await.unwrap(), None);
    // It is hers, and works for her.
    mallory.enter(&flow, &code, true).await.ok();
    let owner = app.mfa.users().by_phone(&PUBLIC, &other).await.unwrap().unwrap();
    assert_eq!(owner.id, app.user(MALLORY).await);
    // Now that the number is bound to Mallory, it is none the more Alice's.
    as_alice.ask_code(OTHER, true).await.is(403);
    assert_eq!(numbers(&app).await, [NUMBER]);
}

/// By hand the number was read from the payload, and a session from before had none: no check for all its life.
#[tokio::test]
async fn a_session_from_before_the_number_is_over_and_the_store_is_what_counts() {
    let app = shop().await;
    let mut before = app.browser(Mode::Header);
    before.sign_up(ALICE).await.ok();
    let mut alice = app.browser(Mode::Header);
    alice.sign_in(ALICE).await.ok();
    alice.pass_code(NUMBER).await;
    let queued = app.store.queued();
    before.ask_code(OTHER, true).await.is(401);
    assert_eq!(app.store.queued(), queued);
}

/// By hand whoever fetched the claim again lost the second factor.
#[tokio::test]
async fn fetching_the_claim_again_undoes_nothing() {
    let app = TestApp::with(|b| {
        by_hand(b).validator(HasValue::is_true(SecondFactor).max_age(Duration::from_secs(60)).id("young"))
    })
    .await;
    let mut alice = half_alice(&app).await;
    alice.pass_code(NUMBER).await;
    let stamp = alice.payload("2fa-completed")["t"].as_i64().unwrap();
    app.clock.advance(Duration::from_secs(61));
    alice.get("/api/me").await.is(200);
    assert_eq!(alice.payload("2fa-completed"), json!({ "v": true, "t": stamp + 61_000 }));
}
