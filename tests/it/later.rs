//! What comes of codes that are asked for again, entered late, or entered by several at once.

use std::{sync::Arc, time::Duration};

use tokio::sync::Barrier;
use tower_mfa::{
    MfaPolicy,
    config::Passwordless,
    policy::{PolicyContext, PolicyError, Requirements},
};

use crate::{
    spy::{ALICE, BOB, everyone},
    support::{Mode, TestApp, nodes::arrived, wrong},
};

const MINUTE: Duration = Duration::from_secs(60);
const RESTART: &str = "RESTART_FLOW_ERROR";

/// What voids a contact's codes is forgotten an hour later: no code under way may be lost with it, and none come back.
#[tokio::test]
async fn sec_o08_what_was_used_an_hour_ago_voids_nothing_that_was_sent_since() {
    let app = TestApp::new().await;
    app.browser(Mode::Header).by_code(ALICE).await;
    app.clock.advance(55 * MINUTE);
    let (mut one, mut other) = (app.browser(Mode::Header), app.browser(Mode::Header));
    let seen = app.sent_to(ALICE);
    let flow = one.ask_code(ALICE, false).await.ok();
    let code = app.code_after(ALICE, seen).await;
    let sibling = other.ask_code(ALICE, false).await.ok();
    let siblings = app.code_after(ALICE, seen + 1).await;
    app.clock.advance(6 * MINUTE);
    one.ask_again(&flow, false).await.ok();
    one.enter(&flow, &code, false).await.ok();
    // Of one that is used the siblings are void, whenever they were made.
    other.enter(&sibling, &siblings, false).await.status(RESTART);
}

/// Whoever asked too early has a flow for nothing; asking for another code later makes it one that works.
#[tokio::test]
async fn sec_o27_a_flow_begun_too_early_gets_its_code_when_it_is_asked_for_again() {
    let app = TestApp::limited(|builder| builder).await;
    let mut alice = app.browser(Mode::Header);
    alice.ask_code(ALICE, false).await.ok();
    assert_eq!(arrived(&[&app]).await, 1);
    let flow = alice.ask_code(ALICE, false).await.ok();
    alice.ask_again(&flow, false).await.ok();
    assert_eq!(arrived(&[&app]).await, 1);
    app.clock.advance(Duration::from_secs(31));
    alice.ask_again(&flow, false).await.ok();
    let code = app.code_after(ALICE, 1).await;
    alice.enter(&flow, &wrong(&code), false).await.status("INCORRECT_USER_INPUT_CODE_ERROR");
    alice.enter(&flow, &code, false).await.ok();
}

/// Where nobody signs up, the flow of somebody unknown stays for nothing however often it is asked for.
#[tokio::test]
async fn sec_o24_asking_again_sends_nothing_to_those_who_are_nobody() {
    let app = TestApp::limited(|b| b.passwordless(Passwordless::email().without_sign_up())).await;
    let mut nobody = app.browser(Mode::Header);
    let flow = nobody.ask_code(BOB, false).await.ok();
    for _ in 0..3 {
        app.clock.advance(Duration::from_secs(31));
        nobody.ask_again(&flow, false).await.ok();
    }
    assert_eq!((arrived(&[&app]).await, app.store.codes().await.len()), (0, 1));
}

/// Made-up addresses of users who have none are nobody's: whoever owns the domain would get the codes.
#[tokio::test]
async fn sec_o30_no_code_goes_to_an_address_that_was_made_up() {
    let app = TestApp::new().await;
    let mut client = app.browser(Mode::Header);
    for address in ["x@stfakeemail.supertokens.com", "X@Shop.FakeEmail.com"] {
        let answer = client.ask_code(address, false).await;
        assert_eq!(answer.status("GENERAL_ERROR").body["message"], "Email is invalid");
    }
    assert_eq!(app.store.queued(), 0);
}

/// Lets nobody through before five are here.
struct Together(Arc<Barrier>);

impl MfaPolicy for Together {
    async fn requirements(&self, _: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        self.0.wait().await;
        Ok(Requirements::none())
    }
}

/// A code that is entered five times at once was used once: else who pumps SMS needs a fifth of the codes.
#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_o28_a_code_entered_by_five_at_once_is_used_once() {
    use tower_mfa::config::{Countries, SendLimits};
    let mut limits = SendLimits::default();
    (limits.judged_from, limits.least_used) = (6, 50);
    let passwordless = Passwordless::phone(Countries::all());
    let policy = Together(Arc::new(Barrier::new(5)));
    let app = TestApp::limited(|b| b.passwordless(passwordless).send_limits(limits).policy(policy)).await;
    let number = |n: usize| format!("+3630{:04}111", 1000 + n);
    let client = app.browser(Mode::Header);
    let flow = client.clone().ask_code(&number(0), false).await.ok();
    let code = app.code(&number(0)).await;
    let racers = (0..5).map(|_| {
        let (mut racer, flow, code) = (client.clone(), flow.clone(), code.clone());
        tokio::spawn(async move { racer.enter(&flow, &code, false).await.body["status"] == "OK" })
    });
    let mut won = 0;
    for racer in racers.collect::<Vec<_>>() {
        won += usize::from(racer.await.unwrap());
    }
    assert_eq!(won, 1);
    for n in 1..12 {
        client.clone().ask_code(&number(n), false).await.ok();
    }
    // One of six is less than half.
    assert_eq!(arrived(&[&app]).await, 6);
}

/// The fifth wrong code is told as what it is; when guesses rest, that is another notice.
#[tokio::test]
async fn sec_o35_that_codes_are_used_up_is_a_notice_of_its_own() {
    let app = everyone().await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    alice.pass_code(ALICE).await;
    let mut mallory = app.browser(Mode::Header);
    mallory.sign_in(ALICE).await.ok();
    for _ in 0..2 {
        let seen = app.sent_to(ALICE);
        let flow = mallory.ask_code(ALICE, true).await.ok();
        let code = app.code_after(ALICE, seen).await;
        for _ in 0..5 {
            mallory.enter(&flow, &wrong(&code), true).await;
        }
    }
    arrived(&[&app]).await;
    let kinds: Vec<String> = app.outbox.messages().iter().map(|sent| format!("{:?}", sent.notice)).collect();
    let told = |kind: &str| kinds.iter().filter(|told| told.starts_with(kind)).count();
    assert_eq!((told("SuspiciousAttempts"), told("CodesUsedUp")), (1, 1), "{kinds:?}");
}

/// Row O28 by the whole number: in Côte d'Ivoire a mobile's begins with a zero, in Italy a landline's does.
#[tokio::test]
async fn sec_o28_a_zero_that_belongs_to_the_number_is_judged_with_it() {
    use tower_mfa::config::Countries;
    let app =
        TestApp::with(|b| b.passwordless(Passwordless::phone(Countries::only(["CI", "IT"]).unwrap()))).await;
    let mut client = app.browser(Mode::Header);
    client.ask_code("+2250701234567", false).await.ok();
    client.ask_code("+393123456789", false).await.ok();
    let landline = client.ask_code("+3903123456789", false).await;
    assert_eq!(landline.status("GENERAL_ERROR").body["message"], "Phone number is invalid");
    assert_eq!(app.store.queued(), 2);
}

/// Links begin a sign-in, a code is the second factor: the page of the SDKs finds it among what may be set up, and
/// where to it goes.
#[tokio::test]
async fn a_second_factor_by_code_is_listed_where_only_links_begin_a_sign_in() {
    use tower_mfa::{
        FactorId,
        config::{Countries, FlowType},
        policy::Everyone,
    };
    let passwordless = Passwordless::email_or_phone(Countries::all()).flow(FlowType::MagicLink);
    let app =
        TestApp::with(|b| b.passwordless(passwordless).policy(Everyone::new(FactorId::OTP_PHONE))).await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    let info = alice.info().await.ok();
    assert_eq!(info["factors"]["next"], serde_json::json!(["otp-phone"]));
    let listed = |info: &serde_json::Value, list: &str| {
        info["factors"][list].as_array().unwrap().contains(&"otp-phone".into())
    };
    assert!(listed(&info, "allowedToSetup") && !listed(&info, "alreadySetup"), "{info}");
    assert_eq!(info["phoneNumbers"]["otp-phone"], serde_json::json!([]));
    let number = crate::spy::NUMBER;
    let flow = alice.ask_code(number, true).await.ok();
    let code = app.code(number).await;
    alice.enter(&flow, &code, true).await.ok();
    let mut again = app.browser(Mode::Header);
    again.sign_in(ALICE).await.ok();
    let info = again.info().await.ok();
    assert!(listed(&info, "alreadySetup") && !listed(&info, "allowedToSetup"), "{info}");
    assert_eq!(info["phoneNumbers"]["otp-phone"], serde_json::json!(["+***42"]));
}

/// Row G02: neither what a provider said of a recipient nor what `/mfa/info` shows is printed by `Debug`.
#[test]
fn sec_g02_debug_prints_no_contact_of_a_failure_or_an_overview() {
    use tower_mfa::{
        FactorId,
        account::{LoginKind, LoginMethod, User},
        claim::MfaClaim,
        delivery::DeliveryError,
        factor::{Enrolled, Factors},
        ident::{Email, LoginId, Timestamp, UserId},
    };
    let error = DeliveryError::permanent(format!("550 no such user {ALICE}")).with_reason("smtp: smtp 550");
    let shown = format!("{error:?} {error}");
    assert!(shown.contains("smtp 550") && !shown.contains("alice"), "{shown}");
    assert!(error.source().to_string().contains(ALICE));
    let id = LoginId::parse("alice").unwrap();
    let mut login = LoginMethod::new(id.clone(), LoginKind::Passwordless, Timestamp::EPOCH);
    login.email = Some(Email::parse(ALICE).unwrap());
    let alice = User::new(UserId::parse("alice").unwrap(), vec![login]);
    let claim = MfaClaim { v: true, ..MfaClaim::default() };
    let factors = Factors::new([FactorId::OTP_EMAIL]);
    let overview = factors
        .overview(Enrolled::from(&alice), &id, &claim, &Requirements::none(), Timestamp::EPOCH)
        .unwrap();
    assert_eq!(overview.emails[0].1, [ALICE]);
    let shown = format!("{overview:?}");
    assert!(shown.contains("otp-email") && !shown.contains("shop.example"), "{shown}");
}

/// Row V09: what isn't set is no secret that Twilio could sign with, and an account is what it looks like.
#[cfg(feature = "http-client")]
#[test]
fn sec_v09_without_a_token_nothing_is_believed_and_nothing_built() {
    use tower_mfa::{
        config::Reqwest,
        delivery::{HttpSms, SmsSender, TwilioStatus},
        ident::Secret,
    };
    let secret = |text: &str| Secret::new(text.to_owned());
    let params =
        [("MessageSid", "SM1"), ("MessageStatus", "failed")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    // HMAC-SHA1 under no key, as anybody can make it.
    let forged = {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"");
        let signed = b"https://shop.example/smsMessageSidSM1MessageStatusfailed";
        base64::Engine::encode(&base64::prelude::BASE64_STANDARD, aws_lc_rs::hmac::sign(&key, signed))
    };
    assert!(TwilioStatus::verify(&secret(""), "https://shop.example/sms", &params, &forged).is_none());
    let built = |account: &str, token: &str| {
        HttpSms::twilio(Reqwest::new().unwrap(), account, secret(token), SmsSender::number("+1"))
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let account = "AC0123456789abcdef0123456789abcdef";
    built(account, "token").unwrap();
    assert!(built(account, "").unwrap_err().contains("token"));
    for other in ["SK0123456789abcdef0123456789abcdef", "AC0123", "", "AC0123456789abcdef0123456789abcdeg"] {
        assert!(built(other, "token").unwrap_err().contains("looks like AC"), "{other}");
    }
}
