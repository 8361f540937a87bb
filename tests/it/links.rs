//! Links that begin a sign-in: by themselves and beside a code, by mail and by SMS.

use http::Method;
use serde_json::{Value, json};
use tower_mfa::{
    FactorId,
    config::{Countries, FlowType, Passwordless},
    ident::Secret,
    policy::Everyone,
};

use crate::{
    spy::{ALICE, NUMBER},
    support::{Mode, START, TestApp},
};

async fn by(flow: FlowType) -> TestApp {
    TestApp::with(|b| b.passwordless(Passwordless::email_or_phone(Countries::all()).flow(flow))).await
}

/// The last link, once more than `seen` messages were sent.
async fn link(app: &TestApp, contact: &str, seen: usize) -> String {
    app.notice_after(contact, seen).await.link().map(Secret::expose).unwrap().clone()
}

#[tokio::test]
async fn a_link_signs_up_and_in() {
    let app = by(FlowType::MagicLink).await;
    for (contact, factor) in [(ALICE, "link-email"), (NUMBER, "link-phone")] {
        for (mode, created) in [(Mode::Cookie, true), (Mode::Header, false)] {
            let mut alice = app.browser(mode);
            let seen = app.sent_to(contact);
            let flow = alice.ask_code(contact, false).await.ok();
            assert_eq!(flow["flowType"], "MAGIC_LINK");
            let link = link(&app, contact, seen).await;
            assert!(app.notice_after(contact, seen).await.code().is_none());
            // The page of the website, with the secret where no server sees it.
            let page = "https://shop.test/auth/verify?preAuthSessionId=";
            let flow = flow["preAuthSessionId"].as_str().unwrap();
            assert_eq!(link.split_once('#').unwrap().0, format!("{page}{flow}&tenantId=public"));
            let done = alice.open(&link, false).await.ok();
            assert_eq!(done["createdNewRecipeUser"], created);
            assert_eq!(alice.claim(), json!({ "c": { (factor): START }, "v": true }));
            alice.get("/api/me").await.is(200);
            alice.open(&link, false).await.status("RESTART_FLOW_ERROR");
        }
    }
}

#[tokio::test]
async fn of_a_code_and_a_link_either_signs_in_and_both_are_used_up() {
    let app = by(FlowType::UserInputCodeAndMagicLink).await;
    for by_link in [true, false] {
        let mut alice = app.browser(Mode::Header);
        let seen = app.sent_to(ALICE);
        let flow = alice.ask_code(ALICE, false).await.ok();
        assert_eq!(flow["flowType"], "USER_INPUT_CODE_AND_MAGIC_LINK");
        let (code, link) = (app.code_after(ALICE, seen).await, link(&app, ALICE, seen).await);
        let factor = if by_link { "link-email" } else { "otp-email" };
        match by_link {
            true => alice.open(&link, false).await.ok(),
            false => alice.enter(&flow, &code, false).await.ok(),
        };
        assert_eq!(alice.claim()["c"], json!({ (factor): START }));
        alice.enter(&flow, &code, false).await.status("RESTART_FLOW_ERROR");
        alice.open(&link, false).await.status("RESTART_FLOW_ERROR");
    }
}

#[tokio::test]
async fn only_what_the_tenant_lets_begin_a_session_is_sent() {
    let app = by(FlowType::UserInputCodeAndMagicLink).await;
    let public = tower_mfa::ident::TenantId::PUBLIC;
    let mut alice = app.browser(Mode::Header);
    for (first, flow, code, link) in [
        (FactorId::LINK_EMAIL, "MAGIC_LINK", false, true),
        (FactorId::OTP_EMAIL, "USER_INPUT_CODE", true, false),
    ] {
        app.mfa.tenants().set_first_factors(&public, Some(vec![first])).await.unwrap();
        let seen = app.sent_to(ALICE);
        assert_eq!(alice.ask_code(ALICE, false).await.ok()["flowType"], flow);
        let notice = app.notice_after(ALICE, seen).await;
        assert_eq!((notice.code().is_some(), notice.link().is_some()), (code, link));
        alice.ask_code(NUMBER, false).await.is(401);
    }
    // Read again when it is used: a link that is under way while the list changes begins no session.
    app.mfa.tenants().set_first_factors(&public, None).await.unwrap();
    let seen = app.sent_to(ALICE);
    let flow = alice.ask_code(ALICE, false).await.ok();
    let (sent, code) = (link(&app, ALICE, seen).await, app.code_after(ALICE, seen).await);
    app.mfa.tenants().set_first_factors(&public, Some(vec![FactorId::OTP_EMAIL])).await.unwrap();
    alice.open(&sent, false).await.is(401);
    alice.enter(&flow, &code, false).await.ok();
}

#[tokio::test]
async fn within_a_session_it_is_always_a_code() {
    for flow in [FlowType::MagicLink, FlowType::UserInputCodeAndMagicLink] {
        for (contact, factor) in [(ALICE, FactorId::OTP_EMAIL), (NUMBER, FactorId::OTP_PHONE)] {
            let passwordless = Passwordless::email_or_phone(Countries::all()).flow(flow);
            let policy = Everyone::new(factor.clone());
            let app = TestApp::with(|b| b.passwordless(passwordless).policy(policy)).await;
            let mut alice = app.browser(Mode::Header);
            alice.sign_up(ALICE).await.ok();
            let begun = alice.ask_code(contact, true).await.ok();
            assert_eq!(begun["flowType"], "USER_INPUT_CODE");
            assert!(app.notice_after(contact, 0).await.link().is_none());
            // Sent again it is one, too.
            alice.ask_again(&begun, true).await.ok();
            let notice = app.notice_after(contact, 1).await;
            assert!(notice.link().is_none());
            alice.enter(&begun, notice.code().unwrap().expose(), true).await.ok();
            assert_eq!(alice.claim()["v"], true);
            assert!(alice.claim()["c"].get(factor.as_str()).is_some());
        }
    }
}

#[tokio::test]
async fn a_link_that_is_sent_again_is_another_one_and_the_newest_two_work() {
    let app = by(FlowType::MagicLink).await;
    let mut alice = app.browser(Mode::Header);
    let flow = alice.ask_code(ALICE, false).await.ok();
    let mut links = vec![link(&app, ALICE, 0).await];
    for seen in 1..=2 {
        alice.ask_again(&flow, false).await.ok();
        links.push(link(&app, ALICE, seen).await);
    }
    alice.open(&links[0], false).await.status("RESTART_FLOW_ERROR");
    alice.open(&links[1], false).await.ok();
}

#[tokio::test]
async fn sec_o22_fetching_a_link_uses_nothing_up() {
    let app = by(FlowType::MagicLink).await;
    let mut alice = app.browser(Mode::Header);
    alice.ask_code(ALICE, false).await.ok();
    let sent = link(&app, ALICE, 0).await;
    let before = app.store.codes().await;
    let (page, code) = sent.split_once('#').unwrap();
    let query = page.split_once('?').unwrap().1;
    let mut scanner = app.browser(Mode::Cookie);
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        for path in ["/auth/verify", "/auth/signinup/code/consume", "/auth/public/signinup/code/consume"] {
            for secret in ["", "&linkCode="] {
                let secret = if secret.is_empty() { String::new() } else { format!("{secret}{code}") };
                let answer = scanner.call(method.clone(), &format!("{path}?{query}{secret}"), None).await;
                assert!(answer.cookies().is_empty() && answer.body["status"] != "OK", "{}", answer.text);
            }
        }
    }
    assert_eq!(app.store.codes().await, before);
    assert_eq!(app.mfa.counters().code_comparisons, 0);
    alice.open(&sent, false).await.ok();
}

#[tokio::test]
async fn sec_o23_whoever_opens_a_link_is_who_signs_in() {
    let app = by(FlowType::UserInputCodeAndMagicLink).await;
    let (mut mallory, mut alice) = (app.browser(Mode::Header), app.browser(Mode::Header));
    let flow: Value = mallory.ask_code(ALICE, false).await.ok();
    let sent = link(&app, ALICE, 0).await;
    // Without the flow it belongs to, a link's secret is nothing; nor is it a code.
    let (page, secret) = sent.split_once('#').unwrap();
    let theirs = mallory.ask_code("mallory@shop.example", false).await.ok();
    let swapped = page
        .replace(flow["preAuthSessionId"].as_str().unwrap(), theirs["preAuthSessionId"].as_str().unwrap());
    mallory.open(&format!("{swapped}#{secret}"), false).await.status("RESTART_FLOW_ERROR");
    mallory.enter(&flow, secret, false).await.status("INCORRECT_USER_INPUT_CODE_ERROR");
    // Opened on Alice's device it signs Alice's device in; the one that asked for it gets nothing.
    alice.open(&sent, false).await.ok();
    alice.get("/api/me").await.is(200);
    mallory.open(&sent, false).await.status("RESTART_FLOW_ERROR");
    mallory.get("/api/me").await.is(401);
    assert_eq!(app.store.sessions().await.len(), 1);
    // And within a session no link is taken, though it be the user's own.
    let seen = app.sent_to(ALICE);
    mallory.ask_code(ALICE, false).await.ok();
    alice.open(&link(&app, ALICE, seen).await, true).await.status("RESTART_FLOW_ERROR");
}
