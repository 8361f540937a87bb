//! Addresses that are proved by a link: modes, claim, routes, and what the first proof takes away (rows L02, L03).

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tower_mfa::{
    FactorId,
    config::{Countries, EmailVerification, Passwordless},
    ident::{Phone, TenantId},
    policy::Everyone,
};

use crate::{
    spy::{ALICE, BOB, NUMBER, problems, refresh_token, shop, signed_up},
    support::{Answer, Browser, Mode, PASSWORD, START, TestApp, credentials},
};

const MODES: [Mode; 2] = [Mode::Cookie, Mode::Header];
const INVALID: &str = "EMAIL_VERIFICATION_INVALID_TOKEN_ERROR";
const PUBLIC: TenantId = TenantId::PUBLIC;

async fn verifying(mode: EmailVerification) -> TestApp {
    TestApp::with(|b| b.email_verification(mode)).await
}

async fn ask(client: &mut Browser) -> Answer {
    client.post("/auth/user/email/verify/token", json!({})).await
}

async fn open(client: &mut Browser, token: &str) -> Answer {
    client.post("/auth/user/email/verify", json!({ "method": "token", "token": token })).await
}

async fn is_verified(client: &mut Browser) -> Answer {
    client.get("/auth/user/email/verify").await
}

fn token(link: &str) -> String {
    link.split(['?', '&']).find_map(|part| part.strip_prefix("token=")).unwrap().to_owned()
}

/// Asks for a link and waits for it.
async fn ticket(app: &TestApp, client: &mut Browser, email: &str) -> String {
    let seen = app.sent_to(email);
    ask(client).await.ok();
    token(app.notice_after(email, seen).await.link().unwrap().expose())
}

fn claim(client: &Browser) -> Value {
    client.payload("st-ev")["v"].clone()
}

#[tokio::test]
async fn a_session_waits_for_the_link_where_it_must() {
    for mode in MODES {
        let app = verifying(EmailVerification::Required).await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        assert_eq!(alice.payload("st-ev"), json!({ "v": false, "t": START * 1000 }));
        let refused = alice.get("/api/me").await;
        let reason = json!({ "message": "wrong value", "expectedValue": true, "actualValue": false });
        assert_eq!(
            (refused.status, &refused.body["claimValidationErrors"]),
            (StatusCode::FORBIDDEN, &json!([{ "id": "st-ev", "reason": reason }]))
        );
        assert_eq!(is_verified(&mut alice).await.ok(), json!({ "status": "OK", "isVerified": false }));
        let asked = ask(&mut alice).await.ok();
        assert_eq!(asked, json!({ "status": "OK" }));
        let link = app.notice_after(ALICE, 0).await.link().unwrap().expose().clone();
        let one = token(&link);
        assert_eq!(link, format!("https://shop.test/auth/verify-email?token={one}&tenantId=public"));
        let done = open(&mut alice, &one).await.ok();
        assert_eq!(done, json!({ "status": "OK" }));
        assert_eq!(claim(&alice), true);
        alice.get("/api/me").await.is(200);
        assert_eq!(is_verified(&mut alice).await.ok(), json!({ "status": "OK", "isVerified": true }));
        ask(&mut alice).await.status("EMAIL_ALREADY_VERIFIED_ERROR");
        open(&mut alice, &one).await.status(INVALID);
        let signed_in = app.browser(mode).sign_in(ALICE).await.ok();
        assert_eq!(signed_in["user"]["loginMethods"][0]["verified"], true);
        // From the start, at the next sign-in.
        let mut again = app.browser(mode);
        again.sign_in(ALICE).await.ok();
        assert_eq!(claim(&again), true);
    }
}

#[tokio::test]
async fn the_claim_catches_up_when_the_link_is_opened_elsewhere() {
    for mode in MODES {
        let app = verifying(EmailVerification::Required).await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        let one = ticket(&app, &mut alice, ALICE).await;
        let mut phone = app.browser(mode);
        phone.sign_in(ALICE).await.ok();
        open(&mut phone, &one).await.ok();
        // The first proof ended the other session; a later one sees it at once.
        alice.get("/api/me").await.is(401);
        let app = verifying(EmailVerification::Required).await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        // By a code to the address, as a second factor: proved as well, and the token says so at once.
        alice.pass_code(ALICE).await;
        assert_eq!(claim(&alice), true);
        alice.get("/api/me").await.is(200);
        ask(&mut alice).await.status("EMAIL_ALREADY_VERIFIED_ERROR");
    }
}

/// A claim that says no is asked for anew after ten seconds, by the mount itself, and what it says leaves with the
/// answer.
#[tokio::test]
async fn a_mount_fetches_a_claim_that_says_no() {
    let app = verifying(EmailVerification::Required).await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    for (wait, stamped) in [(10, START), (1, START + 11), (5, START + 11)] {
        app.clock.advance(Duration::from_secs(wait));
        alice.get("/api/me").await.is(403);
        assert_eq!(alice.payload("st-ev"), json!({ "v": false, "t": stamped * 1000 }), "{wait}");
    }
    alice.pass_code(ALICE).await;
    alice.get("/api/me").await.is(200);
}

#[tokio::test]
async fn optional_tells_and_off_is_not_there() {
    let app = verifying(EmailVerification::Optional).await;
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    assert_eq!(claim(&alice), false);
    alice.get("/api/me").await.is(200);
    let one = ticket(&app, &mut alice, ALICE).await;
    open(&mut alice, &one).await.ok();
    assert_eq!(claim(&alice), true);
    // A login method without an address counts as verified, one by code is.
    let app = TestApp::with(|b| {
        b.email_verification(EmailVerification::Required)
            .passwordless(Passwordless::email_or_phone(Countries::all()))
    })
    .await;
    for contact in [NUMBER, BOB] {
        let mut client = app.browser(Mode::Header);
        client.by_code(contact).await;
        assert_eq!(claim(&client), true);
        client.get("/api/me").await.is(200);
        ask(&mut client).await.status("EMAIL_ALREADY_VERIFIED_ERROR");
    }
    // Off: no claim, and the paths are the app's.
    let app = TestApp::new().await;
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    assert_eq!(alice.payload("st-ev"), Value::Null);
    for answer in [ask(&mut alice).await, open(&mut alice, "x").await, is_verified(&mut alice).await] {
        answer.is(404);
    }
    // Without a delivery no link could ever be sent.
    let builder = tower_mfa::Mfa::builder(
        shop(),
        tower_mfa::config::Secrets::random().unwrap(),
        tower_mfa::store::MemoryStore::new(),
    );
    let wrong = builder.without_passwordless().email_verification(EmailVerification::Optional).build();
    assert!(wrong.unwrap_err().problems()[0].contains("delivery"));
    assert!(problems(shop(), |b| b.email_verification(EmailVerification::Required)).is_empty());
}

#[tokio::test]
async fn a_link_is_for_its_address_its_kind_and_a_day() {
    let app = verifying(EmailVerification::Optional).await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let one = ticket(&app, &mut alice, ALICE).await;
    for wrong in ["", "x", &one[1..], &format!("{}A", &one[1..])] {
        open(&mut alice, wrong).await.status(INVALID);
    }
    for body in [json!({ "token": one }), json!({ "method": "token" }), json!({ "method": 1, "token": one })]
    {
        alice.post("/auth/user/email/verify", body).await.is(400);
    }
    // A link to reset the password proves nothing here, and this one sets no password.
    let body = json!({ "formFields": [{ "id": "email", "value": ALICE }] });
    let seen = app.sent_to(ALICE);
    alice.post("/auth/user/password/reset/token", body).await.ok();
    let reset = token(app.notice_after(ALICE, seen).await.link().unwrap().expose());
    open(&mut alice, &reset).await.status(INVALID);
    let body = json!({
        "method": "token",
        "token": one,
        "formFields": [{ "id": "password", "value": "another horse 2" }],
    });
    app.browser(Mode::Header)
        .post("/auth/user/password/reset", body)
        .await
        .status("RESET_PASSWORD_INVALID_TOKEN_ERROR");
    // In another tenant it is nobody's; the session's own tenant doesn't matter to it.
    let north = TenantId::parse("north").unwrap();
    app.mfa.tenants().create(&north, None).await.unwrap();
    let body = json!({ "method": "token", "token": one });
    alice.post("/auth/north/user/email/verify", body.clone()).await.status(INVALID);
    alice.post("/auth/south/user/email/verify", body).await.is(404);
    app.clock.advance(Duration::from_millis(86_400_000 - 1));
    let mut late = app.browser(Mode::Header);
    late.sign_in(ALICE).await.ok();
    let two = ticket(&app, &mut late, ALICE).await;
    app.clock.advance(Duration::from_millis(1));
    open(&mut late, &one).await.status(INVALID);
    open(&mut late, &two).await.ok();
    // Nobody who isn't signed in asks for a link or is told.
    let mut nobody = app.browser(Mode::Header);
    ask(&mut nobody).await.is(401);
    is_verified(&mut nobody).await.is(401);
}

/// Rows L02 and L03: Mallory registers Alice's address, adds a number of hers, keeps sessions and has codes under way;
/// Alice opens the link that comes, without a session of that account.
#[tokio::test]
async fn sec_l02_l03_the_first_proof_takes_what_was_there_before_it() {
    for mode in MODES {
        let app = TestApp::with(|b| {
            b.email_verification(EmailVerification::Optional)
                .passwordless(Passwordless::email_or_phone(Countries::all()))
        })
        .await;
        let mut mallory = signed_up(&app, mode, ALICE).await;
        let (user, users) = (app.user(ALICE).await, app.mfa.users());
        mallory.pass_code(NUMBER).await;
        let mut second = app.browser(mode);
        second.sign_in(ALICE).await.ok();
        // Under way: a code to the number, within a session and to sign in.
        let (seen, mut fourth) = (app.sent_to(NUMBER), app.browser(mode));
        let flow = fourth.ask_code(NUMBER, false).await.ok();
        let code = app.code_after(NUMBER, seen).await;
        let one = ticket(&app, &mut second, ALICE).await;
        let two = ticket(&app, &mut second, ALICE).await;
        // Somebody else's session, Bob's, is none of that account.
        let mut bob = signed_up(&app, mode, BOB).await;
        open(&mut bob, &one).await.ok();
        bob.get("/api/me").await.is(200);

        for session in [&mut mallory, &mut second] {
            session.clone().get("/api/me").await.is(401);
            session.refresh().await.is(401);
        }
        let left = users.load(&user).await.unwrap().unwrap().logins;
        assert_eq!(left.len(), 1, "the number is gone");
        assert!(left[0].verified && left[0].phone.is_none());
        assert_eq!(users.by_phone(&PUBLIC, &Phone::parse(NUMBER).unwrap()).await.unwrap(), None);
        fourth.enter(&flow, &code, false).await.status("RESTART_FLOW_ERROR");
        // Nor does the password work any more, nor the other link.
        app.browser(mode).sign_in(ALICE).await.status("WRONG_CREDENTIALS_ERROR");
        open(&mut app.browser(mode), &two).await.status(INVALID);
        // Alice sets one of her own.
        let body = json!({ "formFields": [{ "id": "email", "value": ALICE }] });
        let seen = app.sent_to(ALICE);
        app.browser(mode).post("/auth/user/password/reset/token", body).await.ok();
        let reset = token(app.notice_after(ALICE, seen).await.link().unwrap().expose());
        let fields = json!([{ "id": "password", "value": "another horse 2" }]);
        let body = json!({ "method": "token", "token": reset, "formFields": fields });
        app.browser(mode).post("/auth/user/password/reset", body).await.ok();
        let mut alice = app.browser(mode);
        alice.post("/auth/signin", credentials(ALICE, "another horse 2")).await.ok();
        alice.get("/api/me").await.is(200);
    }
}

/// Row L02, the other half: whoever opens the link in a session of the account keeps that one, the password and the
/// login methods; every other session ends.
#[tokio::test]
async fn sec_l02_a_session_that_opens_the_link_goes_on() {
    for mode in MODES {
        let app = verifying(EmailVerification::Required).await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        let mut other = app.browser(mode);
        other.sign_in(ALICE).await.ok();
        let one = ticket(&app, &mut alice, ALICE).await;
        let two = ticket(&app, &mut alice, ALICE).await;
        open(&mut alice, &one).await.ok();
        alice.get("/api/me").await.is(200);
        alice.refresh().await.is(200);
        assert_eq!(claim(&alice), true);
        other.clone().get("/api/me").await.is(401);
        other.refresh().await.is(401);
        let mut again = app.browser(mode);
        again.sign_in(ALICE).await.ok();
        // A later proof of the same address takes nothing away from anybody.
        open(&mut app.browser(mode), &two).await.ok();
        for session in [&mut alice, &mut again] {
            session.get("/api/me").await.is(200);
        }
        app.browser(mode).sign_in(ALICE).await.ok();
    }
}

/// A session whose access token ran out is refreshed first: as if there were none, it would lose what it has.
#[tokio::test]
async fn sec_l02_an_expired_session_is_not_taken_for_a_strangers() {
    for mode in MODES {
        let app = verifying(EmailVerification::Optional).await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        let one = ticket(&app, &mut alice, ALICE).await;
        app.clock.advance(Duration::from_secs(3700));
        let answer = open(&mut alice, &one).await;
        assert_eq!((answer.status.as_u16(), &answer.body["message"]), (401, &json!("try refresh token")));
        alice.refresh().await.is(200);
        open(&mut alice, &one).await.ok();
        app.browser(mode).sign_in(ALICE).await.ok();
        alice.get("/api/me").await.is(200);
    }
}

/// Row S02 c: a token from before an elevation gets nothing better here, and uses nothing up.
#[tokio::test]
async fn sec_s02_c_a_token_of_before_an_elevation_is_told_to_refresh() {
    for mode in MODES {
        let app = verifying(EmailVerification::Optional).await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        let one = ticket(&app, &mut alice, ALICE).await;
        let old = alice.clone();
        app.clock.advance(Duration::from_secs(1));
        let mut body = credentials(ALICE, PASSWORD);
        body["shouldTryLinkingWithSessionUser"] = json!(true);
        alice.post("/auth/signin", body).await.ok();
        assert_ne!(refresh_token(&alice), refresh_token(&old));
        alice.refresh().await.is(200);
        for answer in [
            ask(&mut old.clone()).await,
            is_verified(&mut old.clone()).await,
            open(&mut old.clone(), &one).await,
        ] {
            assert_eq!((answer.status.as_u16(), &answer.body["message"]), (401, &json!("try refresh token")));
        }
        open(&mut alice, &one).await.ok();
    }
}

/// The third seed document's order: the first factor's e-mail before the phone.
#[tokio::test]
async fn the_first_factors_email_is_verified_before_the_phone() {
    for mode in MODES {
        let app = TestApp::with(|b| {
            b.email_verification(EmailVerification::Required)
                .passwordless(Passwordless::email_or_phone(Countries::all()))
                .policy(Everyone::new(FactorId::OTP_PHONE))
        })
        .await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        let ids = |answer: &Answer| -> Vec<String> {
            let errors = answer.body["claimValidationErrors"].as_array().unwrap();
            errors.iter().map(|error| error["id"].as_str().unwrap().to_owned()).collect()
        };
        // The page is told both, the e-mail first.
        let refused = alice.get("/api/me").await;
        assert_eq!(
            (refused.status, ids(&refused)),
            (StatusCode::FORBIDDEN, vec!["st-ev".into(), "st-mfa".into()])
        );
        // No number joins an account whose address nobody proved, whatever a page does: nothing is sent.
        let refused = alice.ask_code(NUMBER, true).await;
        assert_eq!((refused.status, ids(&refused)), (StatusCode::FORBIDDEN, vec!["st-ev".to_owned()]));
        assert_eq!(app.sent_to(NUMBER), 0);
        let one = ticket(&app, &mut alice, ALICE).await;
        open(&mut alice, &one).await.ok();
        let refused = alice.get("/api/me").await;
        assert_eq!((refused.status, ids(&refused)), (StatusCode::FORBIDDEN, vec!["st-mfa".to_owned()]));
        alice.pass_code(NUMBER).await;
        alice.get("/api/me").await.is(200);
        // At the next sign-in the number alone is asked for.
        alice.sign_out().await.ok();
        alice.sign_in(ALICE).await.ok();
        assert_eq!(ids(&alice.get("/api/me").await), ["st-mfa"]);
        alice.pass_code(NUMBER).await;
        alice.get("/api/me").await.is(200);
    }
}
