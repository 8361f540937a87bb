//! One-time codes over HTTP: budgets, bindings, single use, and whose address it may be.

use std::time::Duration;

use serde_json::{Value, json};
use tower_mfa::ident::{Email, TenantId};

use crate::{
    spy::{ALICE, everyone},
    support::{Browser, Mode, TestApp, wrong},
};

const MALLORY: &str = "mallory@shop.example";

async fn enrolled(app: &TestApp) -> Browser {
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    alice.pass_code(ALICE).await;
    alice
}

#[tokio::test]
async fn a_code_is_a_first_factor_too() {
    for mode in [Mode::Cookie, Mode::Header] {
        let app = TestApp::new().await;
        let mut alice = app.browser(mode);
        let flow = alice.ask_code(ALICE, false).await.ok();
        let done = alice.enter(&flow, &app.code(ALICE).await, false).await.ok();
        assert_eq!(done["createdNewRecipeUser"], true);
        alice.get("/api/me").await.is(200);
        alice.sign_out().await.ok();
        let flow = alice.ask_code(ALICE, false).await.ok();
        let code = app.code_after(ALICE, 1).await;
        let done = alice.enter(&flow, &code, false).await.ok();
        assert_eq!(done["createdNewRecipeUser"], false);
    }
}

#[tokio::test]
async fn sec_o04_the_fifth_wrong_code_ends_the_flow() {
    let app = everyone().await;
    let mut alice = app.browser(Mode::Cookie);
    alice.sign_up(ALICE).await.ok();
    let flow = alice.ask_code(ALICE, true).await.ok();
    let code = app.code(ALICE).await;
    for n in 1..=4 {
        let miss = alice.enter(&flow, &wrong(&code), true).await;
        miss.status("INCORRECT_USER_INPUT_CODE_ERROR");
        assert_eq!(miss.body["failedCodeInputAttemptCount"], n);
    }
    alice.enter(&flow, &wrong(&code), true).await.status("RESTART_FLOW_ERROR");
    alice.enter(&flow, &code, true).await.status("RESTART_FLOW_ERROR");
    assert_eq!(app.mfa.counters().code_comparisons, 5);
}

#[tokio::test]
async fn sec_o04_parallel_guesses_get_no_more_than_the_budget() {
    let app = everyone().await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    let flow = alice.ask_code(ALICE, true).await.ok();
    let code = app.code(ALICE).await;
    let guesses = (0..64).map(|n| {
        let (mut alice, flow) = (alice.clone(), flow.clone());
        let guess = format!("{:06}", (code.parse::<u32>().unwrap() + 1 + n) % 1_000_000);
        tokio::spawn(async move { alice.enter(&flow, &guess, true).await.body["status"].clone() })
    });
    for guess in guesses.collect::<Vec<_>>() {
        assert_ne!(guess.await.unwrap(), json!("OK"));
    }
    assert!(app.mfa.counters().code_comparisons <= 5);
    alice.enter(&flow, &code, true).await.status("RESTART_FLOW_ERROR");
}

#[tokio::test]
async fn sec_o08_of_many_right_answers_one_wins() {
    let app = everyone().await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    let flow = alice.ask_code(ALICE, true).await.ok();
    let code = app.code(ALICE).await;
    let tries: Vec<_> = (0..5)
        .map(|_| {
            let (mut alice, flow, code) = (alice.clone(), flow.clone(), code.clone());
            tokio::spawn(async move { alice.enter(&flow, &code, true).await.body["status"].clone() })
        })
        .collect();
    let mut won = 0;
    for attempt in tries {
        won += usize::from(attempt.await.unwrap() == json!("OK"));
    }
    assert_eq!(won, 1);
    alice.enter(&flow, &code, true).await;
}

#[tokio::test]
async fn sec_o06_the_budget_outlives_flows() {
    let app = everyone().await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    for _ in 0..5 {
        let seen = app.sent_to(ALICE);
        let flow = alice.ask_code(ALICE, true).await.ok();
        let code = app.code_after(ALICE, seen).await;
        for _ in 0..4 {
            alice.enter(&flow, &wrong(&code), true).await;
        }
    }
    assert_eq!(app.mfa.counters().code_comparisons, 10);
}

#[tokio::test]
async fn sec_o12_a_code_belongs_to_the_session_that_asked() {
    let app = everyone().await;
    let mut alice = enrolled(&app).await;
    let seen = app.sent_to(ALICE);
    let flow = alice.ask_code(ALICE, true).await.ok();
    let code = app.code_after(ALICE, seen).await;
    let mut other = app.browser(Mode::Header);
    other.sign_in(ALICE).await.ok();
    let mut nobody = app.browser(Mode::Header);
    other.enter(&flow, &code, true).await.status("RESTART_FLOW_ERROR");
    nobody.enter(&flow, &code, false).await.status("RESTART_FLOW_ERROR");
    alice.enter(&flow, &code, true).await.ok();
    // And one asked for without a session is not for a session.
    let seen = app.sent_to(MALLORY);
    let mut fresh = app.browser(Mode::Header);
    let flow = fresh.ask_code(MALLORY, false).await.ok();
    let code = app.code_after(MALLORY, seen).await;
    other.enter(&flow, &code, true).await.status("RESTART_FLOW_ERROR");
}

#[tokio::test]
async fn sec_o13_a_code_belongs_to_its_tenant() {
    let app = TestApp::new().await;
    app.mfa.tenants().create(&TenantId::parse("north").unwrap(), None).await.unwrap();
    let mut alice = app.browser(Mode::Header);
    let flow = alice.ask_code(ALICE, false).await.ok();
    let code = app.code(ALICE).await;
    alice.tenant = Some("north".to_owned());
    alice.enter(&flow, &code, false).await.status("RESTART_FLOW_ERROR");
    alice.tenant = None;
    alice.enter(&flow, &code, false).await.ok();
}

#[tokio::test]
async fn sec_o14_a_stranger_with_the_password_gets_no_code_to_their_own_address() {
    let app = everyone().await;
    enrolled(&app).await;
    let mut mallory = app.browser(Mode::Header);
    mallory.sign_in(ALICE).await.ok();
    let refused = mallory.ask_code(MALLORY, true).await;
    refused.is(403);
    assert_eq!(
        refused.body["claimValidationErrors"],
        json!([{
            "id": "st-mfa",
            "reason": "Completed factors in the session does not satisfy the MFA requirements for auth",
        }])
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(app.sent_to(MALLORY), 0);
}

#[tokio::test]
async fn sec_o15_a_flow_of_her_own_is_no_use_in_his_session() {
    let app = everyone().await;
    enrolled(&app).await;
    let mut mallory = app.browser(Mode::Header);
    mallory.sign_up(MALLORY).await.ok();
    let flow = mallory.ask_code(MALLORY, true).await.ok();
    let code = app.code(MALLORY).await;
    let mut as_alice = app.browser(Mode::Header);
    as_alice.sign_in(ALICE).await.ok();
    as_alice.enter(&flow, &code, true).await.status("RESTART_FLOW_ERROR");
    assert_eq!(as_alice.claim()["v"], false);
    let user = app.mfa.users().load(&app.user(ALICE).await).await.unwrap().unwrap();
    assert!(user.logins.iter().all(|login| login.email.as_ref().unwrap().as_str() == ALICE));
}

#[tokio::test]
async fn sec_o16_of_two_enrolments_the_first_wins() {
    let app = everyone().await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    let mut tab = alice.clone();
    let one = alice.ask_code(ALICE, true).await.ok();
    let two = tab.ask_code("alice@work.example", true).await.ok();
    let (first, second) = (app.code(ALICE).await, app.code("alice@work.example").await);
    alice.enter(&one, &first, true).await.ok();
    let late = tab.enter(&two, &second, true).await;
    assert_ne!(late.body["status"], json!("OK"), "{}", late.text);
    let user = app.mfa.users().load(&app.user(ALICE).await).await.unwrap().unwrap();
    assert_eq!(user.logins.len(), 2);
}

#[tokio::test]
async fn an_address_of_somebody_else_is_not_linked() {
    let app = everyone().await;
    // Mallory's user is primary: code 017.
    let mut mallory = app.browser(Mode::Header);
    mallory.sign_up("m@shop.example").await.ok();
    mallory.pass_code(MALLORY).await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    let seen = app.sent_to(MALLORY);
    let flow = alice.ask_code(MALLORY, true).await.ok();
    let refused = alice.enter(&flow, &app.code_after(MALLORY, seen).await, true).await;
    refused.status("SIGN_IN_UP_NOT_ALLOWED");
    assert!(refused.body["reason"].as_str().unwrap().ends_with("(ERR_CODE_017)"), "{}", refused.text);
    // The password's address of a primary user: code 018.
    let flow = alice.ask_code("m@shop.example", true).await.ok();
    let refused = alice.enter(&flow, &app.code("m@shop.example").await, true).await;
    assert!(refused.body["reason"].as_str().unwrap().ends_with("(ERR_CODE_018)"), "{}", refused.text);
    assert_eq!(alice.claim()["v"], false);
}

#[tokio::test]
async fn the_session_user_may_be_blocked() {
    // Alice's own address belongs to another primary user: code 019, before anything is sent.
    let app = everyone().await;
    let public = TenantId::PUBLIC;
    let other = app.mfa.users().create(&public, &Email::parse(ALICE).unwrap()).await.unwrap();
    app.mfa
        .users()
        .add_email(&other.id, &public, &Email::parse("second@shop.example").unwrap())
        .await
        .unwrap();
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    let refused = alice.ask_code("alice@work.example", true).await;
    refused.status("SIGN_IN_UP_NOT_ALLOWED");
    assert!(refused.body["reason"].as_str().unwrap().ends_with("(ERR_CODE_019)"), "{}", refused.text);
    assert_eq!(app.sent_to("alice@work.example"), 0);
}

#[tokio::test]
async fn sec_o09_a_resend_keeps_two_codes_and_the_count() {
    let app = TestApp::new().await;
    let mut alice = app.browser(Mode::Cookie);
    let flow = alice.ask_code(ALICE, false).await.ok();
    let first = app.code(ALICE).await;
    alice.enter(&flow, &wrong(&first), false).await;
    let again = json!({"deviceId": flow["deviceId"], "preAuthSessionId": flow["preAuthSessionId"]});
    let resend = "/auth/signinup/code/resend";
    alice.post(resend, again.clone()).await.ok();
    let second = app.code_after(ALICE, 1).await;
    alice.post(resend, again.clone()).await.ok();
    let third = app.code_after(ALICE, 2).await;
    if first != second && first != third {
        let miss = alice.enter(&flow, &first, false).await;
        miss.status("INCORRECT_USER_INPUT_CODE_ERROR");
        assert_eq!(miss.body["failedCodeInputAttemptCount"], 2);
    }
    alice.enter(&flow, &second, false).await.ok();
    alice.post(resend, json!({"deviceId": "", "preAuthSessionId": ""})).await.status("RESTART_FLOW_ERROR");
}

#[tokio::test]
async fn sec_o10_an_expired_code_counts_as_an_attempt() {
    let app = TestApp::new().await;
    let mut alice = app.browser(Mode::Cookie);
    let flow: Value = alice.ask_code(ALICE, false).await.ok();
    let code = app.code(ALICE).await;
    app.clock.advance(Duration::from_millis(600_000));
    let late = alice.enter(&flow, &code, false).await;
    late.status("EXPIRED_USER_INPUT_CODE_ERROR");
    assert_eq!(late.body["failedCodeInputAttemptCount"], 1);
    assert_eq!(app.mfa.counters().code_comparisons, 0);
}

#[tokio::test]
async fn masked_addresses_stand_for_the_enrolled_one() {
    let app = everyone().await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    alice.pass_code("alice@work.example").await;
    alice.sign_out().await.ok();
    alice.sign_in(ALICE).await.ok();
    let info = alice.info().await.ok();
    let shown = info["emails"]["otp-email"][0].as_str().unwrap().to_owned();
    assert_ne!(shown, "alice@work.example");
    assert!(!info.to_string().contains("alice@work.example"), "{info}");
    let seen = app.sent_to("alice@work.example");
    let flow = alice.ask_code(&shown, true).await.ok();
    let code = app.code_after("alice@work.example", seen).await;
    alice.enter(&flow, &code, true).await.ok();
    assert_eq!(alice.info().await.ok()["emails"]["otp-email"], json!(["alice@work.example"]));
}
