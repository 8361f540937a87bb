//! Accounts that somebody made, filled or kept a session of before their owner came, and the addresses that they are
//! changed to (rows L02 to L05, L07, L12, W02).

use std::sync::Arc;

use axum::{Json, Router, routing::post};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tower_mfa::{
    FactorId, Mfa, MfaLayer, SessionExtractor,
    account::{LoginKind, LoginMethod, User},
    config::{Countries, EmailVerification, FactorChanges, Passwordless, Secrets},
    ident::{Email, ErrorKind, LoginId, Phone, TenantId, UserId},
    store::MemoryStore,
};

use crate::{
    linking::{Says, by_provider},
    spy::{ALICE, BOB, NUMBER, shop, signed_up},
    support::{Answer, Browser, Mode, PASSWORD, TestApp, credentials, send},
};

const MODES: [Mode; 2] = [Mode::Cookie, Mode::Header];
const PUBLIC: TenantId = TenantId::PUBLIC;
const NEW: &str = "another horse 2";
const NEXT: &str = "alice.next@shop.example";
const INVALID: &str = "EMAIL_VERIFICATION_INVALID_TOKEN_ERROR";

fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

async fn app(says: &Says) -> TestApp {
    TestApp::with(|b| {
        b.email_verification(EmailVerification::Optional)
            .passwordless(Passwordless::email_or_phone(Countries::all()))
            .factor_changes(FactorChanges::Compat)
            .third_party(says.settings())
    })
    .await
}

/// An app's page to change an address.
fn pages(mfa: &Mfa) -> Router {
    let held = mfa.clone();
    let page = move |session: SessionExtractor, Json(body): Json<Value>| {
        let mfa = held.clone();
        async move {
            let login = LoginId::parse(body["login"].as_str().unwrap()).unwrap();
            let changed =
                mfa.users().change_email(&session, &login, &email(body["email"].as_str().unwrap())).await;
            Json(json!(changed.map_or_else(|e| format!("{:?}", e.kind()), |done| format!("{done:?}"))))
        }
    };
    Router::new().route("/account", post(page)).layer(MfaLayer::required(mfa.clone()).without_mfa())
}

async fn change_email(app: &TestApp, client: &mut Browser, login: &LoginMethod, to: &str) -> String {
    let body = json!({ "email": to, "login": login.id.as_str() });
    let request = client.request(http::Method::POST, "/account", Some(body));
    let answer = send(&pages(&app.mfa), request).await;
    client.keep(&answer);
    answer.body.as_str().unwrap_or(&answer.text).to_owned()
}

async fn open(client: &mut Browser, token: &str) -> Answer {
    client.post("/auth/user/email/verify", json!({ "method": "token", "token": token })).await
}

fn token(link: &str) -> String {
    link.split(['?', '&']).find_map(|part| part.strip_prefix("token=")).unwrap().to_owned()
}

async fn mailed(app: &TestApp, to: &str, seen: usize) -> String {
    token(app.notice_after(to, seen).await.link().unwrap().expose())
}

async fn load(app: &TestApp, user: &UserId) -> User {
    app.mfa.users().load(user).await.unwrap().unwrap()
}

fn id(body: &Value) -> UserId {
    UserId::parse(body["user"]["id"].as_str().unwrap()).unwrap()
}

fn login(user: &User, kind: LoginKind) -> LoginMethod {
    user.logins.iter().find(|login| login.kind == kind).unwrap().clone()
}

/// Sets a password by mail, and signs in by it.
async fn reset(app: &TestApp, mode: Mode, password: &str) -> Browser {
    let seen = app.sent_to(ALICE);
    let body = json!({ "formFields": [{ "id": "email", "value": ALICE }] });
    app.browser(mode).post("/auth/user/password/reset/token", body).await.ok();
    let token = mailed(app, ALICE, seen).await;
    let fields = json!([{ "id": "password", "value": password }]);
    let body = json!({ "method": "token", "token": token, "formFields": fields });
    app.browser(mode).post("/auth/user/password/reset", body).await.ok();
    let mut client = app.browser(mode);
    client.post("/auth/signin", credentials(ALICE, password)).await.ok();
    client
}

/// Row L02, by a code: it proves the address for an account of its own, and nothing that Mallory has leads there. What
/// she registered is Alice's as soon as she takes it back by mail.
#[tokio::test]
async fn sec_l02_l03_a_code_proves_an_address_for_nobody_elses_account() {
    for mode in MODES {
        let app = app(&Says::new()).await;
        let mut mallory = signed_up(&app, mode, ALICE).await;
        let trap = app.user(ALICE).await;
        mallory.pass_code(NUMBER).await;
        let mut alice = app.browser(mode);
        let hers = id(&alice.by_code(ALICE).await);
        assert_ne!(hers, trap);
        let left = load(&app, &trap).await;
        assert!(!left.has_proved(&email(ALICE)) && load(&app, &hers).await.logins.len() == 1);
        // Her page can show what nobody proved of an account: the password, not the number.
        let unproved: Vec<LoginKind> = left.unproved().map(|login| login.kind).collect();
        assert_eq!(unproved, [LoginKind::EmailPassword]);
        let told = app.browser(mode).post("/auth/signin", credentials(ALICE, PASSWORD)).await.ok();
        assert_eq!(id(&told), trap, "the password is the old account's alone");
        // The number is another contact, so that account isn't taken back by mail while it has it (row L08).
        let body = json!({ "formFields": [{ "id": "email", "value": ALICE }] });
        app.browser(mode)
            .post("/auth/user/password/reset/token", body)
            .await
            .status("PASSWORD_RESET_NOT_ALLOWED");
        app.mfa.users().remove_login(&trap, &left.logins[1].id).await.unwrap_err();
    }
}

/// Row L02, by a third party that says for the first time that it verified the address: a sign-in takes everything away
/// that was there before it, one within a session of the account ends every other session.
#[tokio::test]
async fn sec_l02_l03_a_third_party_that_verified_the_address_settles_whose_it_is() {
    for within in [false, true] {
        for mode in MODES {
            let says = Says::new();
            let app = app(&says).await;
            let mut mallory = app.browser(mode);
            let user = id(&by_provider(&mut mallory, "mallory", false).await.ok());
            mallory.pass_code(NUMBER).await;
            let (mut second, mut third) = (app.browser(mode), app.browser(mode));
            by_provider(&mut second, "mallory", false).await.ok();
            let login = login(&load(&app, &user).await, LoginKind::ThirdParty);
            // Under way: a code to sign in with, and another address.
            let seen = app.sent_to(NUMBER);
            let flow = third.ask_code(NUMBER, false).await.ok();
            let code = app.code_after(NUMBER, seen).await;
            assert!(!login.verified);
            says.set("mallory", json!({ "email": ALICE, "email_verified": true }));
            let mut alice = if within { mallory.clone() } else { app.browser(mode) };
            by_provider(&mut alice, "mallory", within).await.ok();
            let now = load(&app, &user).await;
            assert!(now.has_proved(&email(ALICE)));
            alice.get("/api/half").await.is(200);
            alice.refresh().await.is(200);
            for session in [&mut second].into_iter().chain((!within).then_some(&mut mallory)) {
                session.clone().get("/api/half").await.is(401);
                session.refresh().await.is(401);
            }
            let number = app.mfa.users().by_phone(&PUBLIC, &Phone::parse(NUMBER).unwrap()).await.unwrap();
            let entered = third.enter(&flow, &code, false).await;
            if within {
                assert_eq!((now.logins.len(), number.map(|user| user.id)), (2, Some(user)));
                entered.ok();
            } else {
                assert_eq!((now.logins.len(), number), (1, None));
                entered.status("RESTART_FLOW_ERROR");
            }
            app.store.check_users().await;
            // Once it is proved, another sign-in takes nothing away.
            by_provider(&mut app.browser(mode), "mallory", false).await.ok();
            alice.get("/api/half").await.is(200);
        }
    }
}

/// Row L04: a recovery without a session cancels a pending change, and so does disabling the account.
#[tokio::test]
async fn sec_l04_a_recovery_cancels_a_pending_change() {
    for how in ["recovery", "disabled"] {
        let app = app(&Says::new()).await;
        let mut mallory = signed_up(&app, Mode::Header, ALICE).await;
        let user = app.user(ALICE).await;
        let password = login(&load(&app, &user).await, LoginKind::EmailPassword);
        assert_eq!(change_email(&app, &mut mallory, &password, NEXT).await, "Asked");
        let change = mailed(&app, NEXT, 0).await;
        if how == "recovery" {
            mallory.post("/auth/user/email/verify/token", json!({})).await.ok();
            let proof = mailed(&app, ALICE, 0).await;
            open(&mut app.browser(Mode::Header), &proof).await.ok();
        } else {
            app.mfa.users().disable(&user).await.unwrap();
            app.mfa.users().enable(&user).await.unwrap();
        }
        // Not even for a session of the owner's: Mallory's mailbox got that link.
        let mut alice = reset(&app, Mode::Header, NEW).await;
        open(&mut alice, &change).await.status(INVALID);
        assert_eq!(load(&app, &user).await.logins[0].email, Some(email(ALICE)), "{how}");
    }
}

/// Row L05: sixteen requests for two addresses at once, over two nodes, then each link opened by several at once: one
/// link works, and the address is the one whose mailbox got it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_l05_sixteen_at_once_never_mix_up_two_addresses() {
    let (store, secrets) = (MemoryStore::new(), Secrets::random().unwrap());
    let node = async |clock: Option<crate::support::HandClock>| {
        let given = clock.clone();
        let node = TestApp::on(shop(), secrets.clone(), store.clone(), move |b| {
            let b = b.email_verification(EmailVerification::Optional);
            match given {
                Some(clock) => b.clock(clock),
                None => b,
            }
        });
        node.await.with_clock(clock)
    };
    let first = node(None).await;
    let second = node(Some(first.clock.clone())).await;
    let nodes = [first, second];
    let mut alice = signed_up(&nodes[0], Mode::Header, ALICE).await;
    let user = nodes[0].user(ALICE).await;
    let password = login(&load(&nodes[0], &user).await, LoginKind::EmailPassword);
    for round in 0..4 {
        let emails = ["a", "b"].map(|who| format!("{who}{round}@shop.example"));
        let before: Vec<usize> = nodes.iter().map(|node| node.outbox.messages().len()).collect();
        let (start, mut racers) = (Arc::new(Barrier::new(16)), Vec::new());
        for n in 0..16 {
            let (app, to, start) = (nodes[n % 2].clone(), emails[n / 2 % 2].clone(), Arc::clone(&start));
            let (mut client, login) = (alice.at(&app), password.clone());
            racers.push(tokio::spawn(async move {
                start.wait().await;
                change_email(&app, &mut client, &login, &to).await
            }));
        }
        let mut asked = 0;
        for racer in racers {
            match racer.await.unwrap().as_str() {
                "Asked" => asked += 1,
                // A store that is raced for may say so.
                told => assert_eq!(told, "Unavailable"),
            }
        }
        assert!(asked > 0);
        // Every link that was mailed, with its mailbox.
        let mut links = Vec::new();
        for _ in 0..2000 {
            links.clear();
            for (node, seen) in nodes.iter().zip(&before) {
                for sent in node.outbox.messages().into_iter().skip(*seen) {
                    let to = sent.notice.to().as_str().to_owned();
                    let mine = emails.contains(&to);
                    links.extend(sent.notice.link().filter(|_| mine).map(|link| (token(link.expose()), to)));
                }
            }
            if links.len() >= asked {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        assert!(links.len() >= asked, "{} {asked}", links.len());
        let (start, mut racers) = (Arc::new(Barrier::new(16)), Vec::new());
        for n in 0..16 {
            let (token, to) = links[n % links.len()].clone();
            let (mut client, start) = (alice.at(&nodes[n % 2]), Arc::clone(&start));
            racers.push(tokio::spawn(async move {
                start.wait().await;
                let answer = open(&mut client, &token).await;
                (answer.body["status"] == "OK", to, client)
            }));
        }
        let mut confirmed = Vec::new();
        for racer in racers {
            let (done, to, client) = racer.await.unwrap();
            if done {
                confirmed.push(to);
                alice = client;
            }
        }
        // With more links than racers the one that works may not have been among them.
        for (token, to) in &links {
            if confirmed.is_empty() && open(&mut alice, token).await.body["status"] == "OK" {
                confirmed.push(to.clone());
            }
        }
        assert_eq!(confirmed.len(), 1, "round {round}");
        let now = load(&nodes[0], &user).await;
        assert_eq!(now.logins[0].email, Some(email(&confirmed[0])), "round {round}");
    }
}

/// Row L07: an address that anybody else has, by whatever login method, is none to change to, unless its owner here
/// proved it already.
#[tokio::test]
async fn sec_l07_somebody_elses_address_is_refused() {
    let says = Says::new();
    says.set("bob", json!({ "email": BOB, "email_verified": false }));
    says.set("next", json!({ "email": NEXT, "email_verified": false }));
    let app = app(&says).await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let user = app.user(ALICE).await;
    by_provider(&mut app.browser(Mode::Header), "bob", false).await.ok();
    let password = login(&load(&app, &user).await, LoginKind::EmailPassword);
    // Nobody signs in by it in his name, and still it is his.
    assert_eq!(change_email(&app, &mut alice, &password, BOB).await, "Asked");
    // One that becomes somebody's before it is confirmed isn't written either.
    assert_eq!(change_email(&app, &mut alice, &password, NEXT).await, "Asked");
    let change = mailed(&app, NEXT, 0).await;
    let other = id(&by_provider(&mut app.browser(Mode::Header), "next", false).await.ok());
    open(&mut alice, &change).await.status(INVALID);
    assert_eq!(app.sent_to(BOB), 0);
    assert_eq!(load(&app, &user).await.logins[0].email, Some(email(ALICE)));
    // She proves it by a code: then she may have it for her password, too, whoever else only says that it is theirs.
    alice.pass_code(NEXT).await;
    let seen = app.sent_to(NEXT);
    assert_eq!(change_email(&app, &mut alice, &password, NEXT).await, "Asked");
    let change = mailed(&app, NEXT, seen).await;
    open(&mut alice, &change).await.ok();
    let now = load(&app, &user).await;
    assert!(now.logins.iter().all(|login| login.email == Some(email(NEXT)) && login.verified));
    assert_eq!(load(&app, &other).await.logins[0].email, Some(email(NEXT)));
    // What is another primary user's stays theirs.
    let (claimed, users) = ("claimed@shop.example", app.mfa.users());
    let third = users.create(&PUBLIC, &email("third@shop.example")).await.unwrap();
    users.add_email(&third.id, &PUBLIC, &email(claimed)).await.unwrap();
    // Nor does whoever only says that an address is theirs become a primary user of it.
    let refused = users.add_email(&other, &PUBLIC, &email("fourth@shop.example")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let seen = app.sent_to(claimed);
    assert_eq!(change_email(&app, &mut alice, &password, claimed).await, "Asked");
    assert_eq!(app.sent_to(claimed), seen);
    app.store.check_users().await;
}

/// Row L12: with a login method end the sessions that it began, and the last one that was proved stays.
#[tokio::test]
async fn sec_l12_a_login_method_goes_with_its_sessions_and_the_last_proved_one_stays() {
    for mode in MODES {
        let app = app(&Says::new()).await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        let (user, users) = (app.user(ALICE).await, app.mfa.users());
        alice.pass_code(NUMBER).await;
        let mut by_number = app.browser(mode);
        by_number.by_code(NUMBER).await;
        let logins = load(&app, &user).await.logins;
        let (password, number) = (&logins[0].id, &logins[1].id);
        // The password's address was never proved: without the number nothing would say whose the account is.
        let refused = users.remove_login(&user, number).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert_eq!(load(&app, &user).await.logins.len(), 2);
        by_number.get("/api/half").await.is(200);
        // Once it is, it may go, and who signed in by it is out.
        let mut alice = app.browser(mode);
        alice.sign_in(ALICE).await.ok();
        alice.pass_code(ALICE).await;
        let mut by_number = app.browser(mode);
        by_number.by_code(NUMBER).await;
        let left = users.remove_login(&user, number).await.unwrap();
        assert_eq!(left.logins.len(), 2);
        by_number.clone().get("/api/half").await.is(401);
        by_number.refresh().await.is(401);
        assert_ne!(id(&app.browser(mode).by_code(NUMBER).await), user, "the number is free again");
        // What the code proved stays proved of the same address when it goes.
        let code = left.logins.iter().find(|login| login.kind == LoginKind::Passwordless).unwrap();
        let left = users.remove_login(&user, &code.id).await.unwrap();
        assert!(left.logins.len() == 1 && left.logins[0].verified);
        let refused = users.remove_login(&user, password).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        app.store.check_users().await;
        app.browser(mode).sign_in(ALICE).await.ok();
    }
}

/// Row L12 where no link proves an address: what begins sign-ins stays if nothing else was proved; a number that only
/// completes them, and was lost, can be taken away.
#[tokio::test]
async fn sec_l12_without_links_the_last_proved_way_to_sign_in_stays_too() {
    let app = TestApp::with(|b| b.passwordless(Passwordless::phone(Countries::all()))).await;
    let (users, tenants) = (app.mfa.users(), app.mfa.tenants());
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    alice.pass_code(NUMBER).await;
    let user = app.user(ALICE).await;
    let logins = load(&app, &user).await.logins;
    let (password, number) = (&logins[0].id, &logins[1].id);
    let north = TenantId::parse("north").unwrap();
    tenants.create(&north, None).await.unwrap();
    users.add_to_tenants(&user, [north.clone()]).await.unwrap();
    // Wherever it begins one, it is a way back, and what is unproved is none.
    for begins_in in [&PUBLIC, &north] {
        for tenant in [&PUBLIC, &north] {
            let first = (tenant != begins_in).then(|| vec![FactorId::PASSWORD]);
            tenants.set_first_factors(tenant, first).await.unwrap();
        }
        let refused = users.remove_login(&user, number).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{begins_in}");
    }
    assert_eq!(load(&app, &user).await.logins.len(), 2);
    alice.get("/api/half").await.is(200);
    tenants.set_first_factors(&north, Some(vec![FactorId::PASSWORD])).await.unwrap();
    assert_eq!(users.remove_login(&user, number).await.unwrap().logins.len(), 1);
    alice.get("/api/half").await.is(401);
    assert!(users.remove_login(&user, password).await.is_err());
    // What isn't proved may go, of course.
    tenants.set_first_factors(&PUBLIC, None).await.unwrap();
    let mut bob = signed_up(&app, Mode::Header, BOB).await;
    bob.pass_code(NUMBER).await;
    let user = app.user(BOB).await;
    let logins = load(&app, &user).await.logins;
    assert_eq!(users.remove_login(&user, &logins[0].id).await.unwrap().logins, logins[1..]);
}

/// By libxcrypt, cost 4.
#[cfg(feature = "bcrypt")]
const BCRYPT: [(&str, &str); 2] = [
    (PASSWORD, "04$abcdefghijklmnopqrstuu..ECdwB5ftHOtfZdMoWOaxWtbxL1ouK"),
    ("Pässwört 12", "04$abcdefghijklmnopqrstuusWPWvxAfFFsDLYiyzTbg08Zts5ilGXe"),
];

/// Row W02: a hash that another system made by bcrypt is checked as that system did, and made anew by Argon2id; what
/// that system didn't look at counts for nothing.
#[cfg(feature = "bcrypt")]
#[tokio::test]
async fn sec_w02_bcrypt_hashes_are_checked_as_they_were_made_and_made_anew() {
    let stored = async |app: &TestApp| {
        let all = app.store.dump().await;
        let row = all.into_iter().find(|(key, _)| key.as_str().starts_with("password/")).unwrap().1;
        row.body["hash"].as_str().unwrap().to_owned()
    };
    let sign_in = async |app: &TestApp, password: &str| {
        let hashes = app.mfa.counters().password_hashes;
        let mut client = app.browser(Mode::Header);
        let answer = client.post("/auth/signin", credentials(ALICE, password)).await;
        (answer.body["status"] == "OK", app.mfa.counters().password_hashes - hashes)
    };
    for version in ["2a", "2b", "2y"] {
        for (password, rest) in BCRYPT {
            let app = TestApp::new().await;
            let (users, hash) = (app.mfa.users(), format!("${version}${rest}"));
            users.import_password_hash(&PUBLIC, &email(ALICE), hash.clone(), true).await.unwrap();
            for wrong in
                [&password[..password.len() - 1], &format!("{password}\0"), &format!("{password}\0x")]
            {
                assert_eq!(sign_in(&app, wrong).await, (false, 1), "{version} {wrong:?}");
            }
            assert_eq!(stored(&app).await, hash, "a wrong one changes nothing");
            // One to check it, one to make it anew.
            assert_eq!(sign_in(&app, password).await, (true, 2), "{version} {password}");
            assert!(stored(&app).await.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
            assert_eq!(sign_in(&app, password).await, (true, 1));
        }
    }
    // Of eighty bytes the other system hashed seventy-two.
    let app = TestApp::new().await;
    let long = "$2b$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i".to_owned();
    app.mfa.users().import_password_hash(&PUBLIC, &email(ALICE), long.clone(), true).await.unwrap();
    for typed in ["x".repeat(80), "x".repeat(73), "x".repeat(71)] {
        assert_eq!(sign_in(&app, &typed).await, (false, 1), "{}", typed.len());
    }
    assert_eq!(stored(&app).await, long);
    assert_eq!(sign_in(&app, &"x".repeat(72)).await, (true, 2));
    // And what it is now counts to its end.
    assert_eq!(sign_in(&app, &"x".repeat(73)).await, (false, 1));
    // Not taken: the flawed kind, too cheap, too dear, cut off, not by its alphabet.
    let right = BCRYPT[0].1;
    for hostile in [
        format!("$2x${right}"),
        format!("$2${right}"),
        format!("$2b${}", right.replace("04$", "03$")),
        format!("$2b${}", right.replace("04$", "15$")),
        format!("$2b${}", right.replace("04$", "31$")),
        format!("$2b${}", &right[..right.len() - 1]),
        format!("$2b${}!", &right[..right.len() - 1]),
        format!("$2b${right}x"),
    ] {
        let refused = app.mfa.users().import_password_hash(&PUBLIC, &email(BOB), hostile.clone(), true).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid, "{hostile}");
    }
}

/// The factors that a page would show are those that are left.
#[tokio::test]
async fn an_owner_is_told_of_what_went() {
    let app = app(&Says::new()).await;
    let mut mallory = signed_up(&app, Mode::Header, ALICE).await;
    mallory.pass_code(NUMBER).await;
    mallory.post("/auth/user/email/verify/token", json!({})).await.ok();
    let proof = mailed(&app, ALICE, 0).await;
    open(&mut app.browser(Mode::Header), &proof).await.ok();
    for _ in 0..2000 {
        let told = app.outbox.messages().into_iter().any(|sent| {
            sent.notice.factor() == Some(&FactorId::OTP_PHONE) && sent.notice.to().as_str() == ALICE
        });
        if told {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    panic!("she was not told");
}
