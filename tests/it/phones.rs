//! Codes to phone numbers, as first and as second factor; what the app itself checks; who may not sign up; contacts
//! that are shown only in part.

use serde_json::json;
use tower_mfa::{
    FactorId,
    config::{Countries, Passwordless},
    delivery::Notice,
    ident::{Email, Phone, TenantId},
    policy::Everyone,
};

use crate::{
    spy::{ALICE, BOB, NUMBER, told},
    support::{Mode, START, TestApp, wrong},
};

const PUBLIC: TenantId = TenantId::PUBLIC;
const OTHER: &str = "+36302222242";

fn either() -> Passwordless {
    Passwordless::email_or_phone(Countries::only(["HU", "US"]).unwrap())
}

#[tokio::test]
async fn a_number_signs_up_and_in_however_it_is_typed() {
    for mode in [Mode::Cookie, Mode::Header] {
        let app = TestApp::with(|b| b.passwordless(Passwordless::phone(Countries::all()))).await;
        let mut alice = app.browser(mode);
        let done = alice.by_code(NUMBER).await;
        assert_eq!(
            (&done["createdNewRecipeUser"], &done["user"]["phoneNumbers"]),
            (&json!(true), &json!([NUMBER]))
        );
        assert_eq!(alice.claim(), json!({ "c": { "otp-phone": START }, "v": true }));
        for typed in ["+36 30 111 1142", " +36-30-111-1142 ", "+36 (30) 111/1142"] {
            let seen = app.sent_to(NUMBER);
            let mut again = app.browser(mode);
            let body = json!({ "phoneNumber": typed });
            let flow = again.post("/auth/signinup/code", body).await.ok();
            let code = app.code_after(NUMBER, seen).await;
            let miss = again.enter(&flow, &wrong(&code), false).await;
            assert_eq!(miss.status("INCORRECT_USER_INPUT_CODE_ERROR").body["failedCodeInputAttemptCount"], 1);
            let back = again.enter(&flow, &code, false).await.ok();
            assert_eq!(
                (&back["createdNewRecipeUser"], &back["user"]["id"]),
                (&json!(false), &done["user"]["id"])
            );
        }
    }
}

#[tokio::test]
async fn what_is_no_number_to_send_to_is_said_and_nothing_is_sent() {
    let app = TestApp::with(|b| b.passwordless(either())).await;
    let mut alice = app.browser(Mode::Header);
    let invalid = "Phone number is invalid";
    for (typed, message) in [
        ("+36301111", invalid),
        ("06301111142", invalid),
        ("0036301111142", invalid),
        ("+3612345678", invalid),
        ("+3690123456", invalid),
        ("+36301111142;ext=5", invalid),
        ("tel:+36301111142", invalid),
        ("+1 202 FLOWERS", invalid),
        ("", invalid),
        ("+4915112345678", "Codes can't be sent to phone numbers of this country"),
    ] {
        let answer = alice.post("/auth/signinup/code", json!({ "phoneNumber": typed })).await;
        assert_eq!(answer.status("GENERAL_ERROR").body["message"], message, "{typed}");
    }
    let answer = alice.post("/auth/signinup/code", json!({ "email": "alice" })).await;
    assert_eq!(answer.status("GENERAL_ERROR").body["message"], "Email is invalid");
    assert_eq!(app.store.queued(), 0);
}

#[tokio::test]
async fn contacts_that_are_not_switched_on_are_400() {
    let table = [(Passwordless::email(), NUMBER), (Passwordless::phone(Countries::all()), ALICE)];
    for (passwordless, contact) in table {
        let app = TestApp::with(|b| b.passwordless(passwordless)).await;
        app.browser(Mode::Header).ask_code(contact, false).await.is(400);
        assert_eq!(app.store.queued(), 0);
    }
}

#[tokio::test]
async fn the_apps_own_checks_are_asked_and_their_words_are_shown() {
    let passwordless = either()
        .check_email(|email| match email.as_str().ends_with("@shop.example") {
            true => Ok(()),
            false => Err("Use your address at the shop".into()),
        })
        .check_phone(|phone| match phone.as_str() == NUMBER {
            true => Ok(()),
            false => Err(format!("We don't know {}", phone.masked()).into()),
        });
    let app = TestApp::with(|b| b.passwordless(passwordless)).await;
    let mut alice = app.browser(Mode::Header);
    for (contact, message) in
        [("alice@else.example", "Use your address at the shop"), (OTHER, "We don't know +***42")]
    {
        let answer = alice.ask_code(contact, false).await;
        assert_eq!(answer.status("GENERAL_ERROR").body["message"], message);
    }
    assert_eq!(app.store.queued(), 0);
    alice.by_code("Alice@Shop.Example").await;
    alice.by_code(NUMBER).await;
}

#[tokio::test]
async fn who_may_not_sign_up_signs_in_all_the_same() {
    let app = TestApp::with(|b| b.passwordless(either().without_sign_up())).await;
    let alice = app.mfa.users().create(&PUBLIC, &Email::parse(ALICE).unwrap()).await.unwrap();
    app.mfa.users().add_phone(&alice.id, &PUBLIC, &Phone::parse(NUMBER).unwrap()).await.unwrap();
    for contact in [ALICE, NUMBER] {
        let mut client = app.browser(Mode::Header);
        assert_eq!(client.by_code(contact).await["user"]["id"], alice.id.as_str());
    }
    // To a stranger everything looks as if, at each step.
    for contact in [BOB, OTHER] {
        let mut client = app.browser(Mode::Header);
        let flow = client.ask_code(contact, false).await.ok();
        assert_eq!(flow.as_object().unwrap().len(), 4);
        client.ask_again(&flow, false).await.ok();
        let miss = client.enter(&flow, "123456", false).await;
        assert_eq!(miss.status("INCORRECT_USER_INPUT_CODE_ERROR").body["failedCodeInputAttemptCount"], 1);
    }
    // What was queued is done with; to the two strangers nothing went.
    let mut last = app.browser(Mode::Header);
    last.by_code(ALICE).await;
    assert_eq!((app.sent_to(BOB), app.sent_to(OTHER)), (0, 0));
    // She was told of her number, and of nothing else.
    let told = app.outbox.messages().into_iter().filter_map(|sent| match sent.notice {
        Notice::FactorAdded { to, factor } => Some((to.as_str().to_owned(), factor)),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [(ALICE.to_owned(), FactorId::OTP_PHONE)]);
    // One who is signed in adds a factor: that is no sign-up.
    let carol = "carol@shop.example";
    app.mfa.users().create(&PUBLIC, &Email::parse(carol).unwrap()).await.unwrap();
    last.by_code(carol).await;
    last.pass_code(OTHER).await;
}

/// Row P18: what is shown before all is complete is masked, and what is sent back stands for the number.
#[tokio::test]
async fn sec_p18_numbers_are_shown_in_part_and_taken_back() {
    for always in [false, true] {
        let app = TestApp::with(|b| {
            let b = b.passwordless(either()).policy(Everyone::new(FactorId::OTP_PHONE));
            if always { b.mask_contacts() } else { b }
        })
        .await;
        let mut alice = app.browser(Mode::Header);
        alice.sign_up(ALICE).await.ok();
        alice.pass_code(NUMBER).await;
        alice.sign_out().await.ok();
        alice.sign_in(ALICE).await.ok();
        let info = alice.info().await.ok();
        assert_eq!(info["phoneNumbers"], json!({ "otp-phone": ["+***42"] }));
        assert!(!info.to_string().contains(NUMBER), "{info}");
        assert_eq!(info["emails"]["otp-email"], json!([]));
        let seen = app.sent_to(NUMBER);
        let flow = alice.ask_code("+***42", true).await.ok();
        let code = app.code_after(NUMBER, seen).await;
        alice.enter(&flow, &code, true).await.ok();
        let shown = if always { "+***42" } else { NUMBER };
        assert_eq!(alice.info().await.ok()["phoneNumbers"]["otp-phone"], json!([shown]));
        // It stands for nobody else's number, and for none without the session.
        let mut bob = app.browser(Mode::Header);
        bob.sign_up(BOB).await.ok();
        for linking in [true, false] {
            let answer = bob.ask_code("+***42", linking).await;
            assert_eq!(answer.status("GENERAL_ERROR").body["message"], "Phone number is invalid");
        }
        assert_eq!(
            alice.ask_code("+***43", true).await.status("GENERAL_ERROR").body["message"],
            "Phone number is invalid"
        );
        // No token has it.
        let told = told(&alice);
        assert!(!told.contains(&NUMBER[1..]) && !told.contains(ALICE), "{told}");
    }
}

#[tokio::test]
async fn sec_o32_a_number_that_somebody_else_confirms_stays_whose_it_is() {
    let app = TestApp::with(|b| b.passwordless(either()).policy(Everyone::new(FactorId::OTP_PHONE))).await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    alice.pass_code(NUMBER).await;
    let before = app.mfa.users().load(&app.user(ALICE).await).await.unwrap();
    // The number has moved on to Bob, who confirms it as his second factor: it isn't, and Alice loses nothing.
    let mut bob = app.browser(Mode::Header);
    bob.sign_up(BOB).await.ok();
    let seen = app.sent_to(NUMBER);
    let flow = bob.ask_code(NUMBER, true).await.ok();
    let code = app.code_after(NUMBER, seen).await;
    let refused = bob.enter(&flow, &code, true).await;
    assert!(
        refused.status("SIGN_IN_UP_NOT_ALLOWED").body["reason"].as_str().unwrap().ends_with("(ERR_CODE_017)")
    );
    assert_eq!(bob.claim()["v"], false);
    assert_eq!(app.mfa.users().load(&app.user(ALICE).await).await.unwrap(), before);
    assert_eq!(app.mfa.users().load(&app.user(BOB).await).await.unwrap().unwrap().logins.len(), 1);
    alice.get("/api/me").await.is(200);
    alice.sign_in(ALICE).await.ok();
    alice.get("/api/me").await.is(403);
    alice.pass_code(NUMBER).await;
    // As a first factor it is one user's: whoever has it now is signed in as who it belongs to, and nobody new.
    let mut phone = app.browser(Mode::Header);
    let done = phone.by_code(NUMBER).await;
    assert_eq!(
        (&done["createdNewRecipeUser"], &done["user"]["id"]),
        (&json!(false), &json!(before.unwrap().id.as_str()))
    );
    assert_eq!(
        app.mfa
            .users()
            .by_phone(&PUBLIC, &Phone::parse(NUMBER).unwrap())
            .await
            .unwrap()
            .unwrap()
            .logins
            .len(),
        2
    );
}
