//! What signed-in users change themselves, what comes from elsewhere, and what an app asks of a password and of the
//! form it comes with (rows L04, L05, L07, S09, W01 to W07).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Params, Version as Argon2Version,
    password_hash::{PasswordHasher as _, phc::PasswordHash},
};
use axum::{Json, Router, routing::post};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tower_mfa::{
    FactorId, Mfa, MfaLayer, SessionExtractor,
    account::{EmailChange, PasswordChange},
    config::{EmailVerification, FactorChanges},
    factor::{BreachedPasswords, FormField},
    hooks::{Hooks, UserCreated},
    ident::{BoxError, Email, ErrorKind, LoginId, Secret, TenantId},
    store::{Batch, Key, Op, Row, Version},
};

use crate::{
    spy::{ALICE, BOB, linking, problems, refresh_token, shop, signed_up},
    support::{Answer, Browser, Mode, PASSWORD, TestApp, Watched, credentials, nodes::in_memory, send},
};

const MODES: [Mode; 2] = [Mode::Cookie, Mode::Header];
const PUBLIC: TenantId = TenantId::PUBLIC;
const NEW: &str = "another horse 2";
const NEXT: &str = "alice.next@shop.example";

/// An app's page for its account: the body says what is wanted.
fn pages(mfa: &Mfa) -> Router {
    let held = mfa.clone();
    let page = move |session: SessionExtractor, Json(body): Json<Value>| {
        let mfa = held.clone();
        async move {
            let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
            let users = mfa.users();
            let told = match body["email"].as_str() {
                Some(email) => {
                    let login = LoginId::parse(&text("login")).unwrap();
                    let changed = users.change_email(&session, &login, &Email::parse(email).unwrap()).await;
                    changed.map(|changed| format!("{changed:?}"))
                }
                None => {
                    let changed = users.change_password(&session, text("current"), text("new")).await;
                    changed.map(|changed| format!("{changed:?}"))
                }
            };
            Json(json!(told.unwrap_or_else(|error| format!("{:?}", error.kind()))))
        }
    };
    Router::new().route("/account", post(page)).layer(MfaLayer::required(mfa.clone()).without_mfa())
}

async fn says(app: &TestApp, client: &mut Browser, body: Value) -> String {
    let request = client.request(http::Method::POST, "/account", Some(body));
    let answer = send(&pages(&app.mfa), request).await;
    client.keep(&answer);
    answer.body.as_str().unwrap_or(&answer.text).to_owned()
}

async fn change(app: &TestApp, client: &mut Browser, current: &str, new: &str) -> String {
    says(app, client, json!({ "current": current, "new": new })).await
}

async fn change_email(app: &TestApp, client: &mut Browser, email: &str) -> String {
    let user = app.mfa.users().load(&app.user(ALICE).await).await.unwrap().unwrap();
    says(app, client, json!({ "email": email, "login": user.logins[0].id.as_str() })).await
}

async fn open(client: &mut Browser, token: &str) -> Answer {
    client.post("/auth/user/email/verify", json!({ "method": "token", "token": token })).await
}

async fn signs_in(app: &TestApp, email: &str, password: &str) -> bool {
    let mut client = app.browser(Mode::Header);
    client.post("/auth/signin", credentials(email, password)).await.body["status"] == "OK"
}

async fn link(app: &TestApp, email: &str, seen: usize) -> String {
    let link = app.notice_after(email, seen).await.link().unwrap().expose().clone();
    link.split(['?', '&']).find_map(|part| part.strip_prefix("token=")).unwrap().to_owned()
}

#[tokio::test]
async fn sec_s09_a_changed_password_ends_every_other_session_and_rotates_this_one() {
    for mode in MODES {
        let app = TestApp::new().await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        let mut other = app.browser(mode);
        other.sign_in(ALICE).await.ok();
        // A link that is on its way does nothing any more.
        let body = json!({ "formFields": [{ "id": "email", "value": ALICE }] });
        app.browser(mode).post("/auth/user/password/reset/token", body).await.ok();
        let reset = link(&app, ALICE, 0).await;
        let mut before = alice.clone();
        assert_eq!(change(&app, &mut alice, PASSWORD, NEW).await, "Changed");
        alice.get("/api/me").await.is(200);
        assert_ne!(refresh_token(&alice), refresh_token(&before));
        other.clone().get("/api/me").await.is(401);
        other.refresh().await.is(401);
        // The tokens of before are superseded, as after a completed factor.
        before.refresh().await.is(409);
        alice.refresh().await.is(200);
        alice.get("/api/me").await.is(200);
        assert!(!signs_in(&app, ALICE, PASSWORD).await && signs_in(&app, ALICE, NEW).await);
        let body = json!({
            "method": "token",
            "token": reset,
            "formFields": [{ "id": "password", "value": "yet another 3" }],
        });
        app.browser(mode)
            .post("/auth/user/password/reset", body)
            .await
            .status("RESET_PASSWORD_INVALID_TOKEN_ERROR");
        assert!(app.store.audited().await.contains(&"password-changed".to_owned()));
    }
}

#[tokio::test]
async fn a_change_is_refused_with_its_reason() {
    let app = TestApp::limited(|b| b).await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    assert_eq!(change(&app, &mut alice, "wrong horse 1", NEW).await, "WrongPassword");
    let weak = change(&app, &mut alice, PASSWORD, "short 1").await;
    assert_eq!(weak, "NotGoodEnough(\"Password must have at least 8 characters\")");
    assert_eq!(change(&app, &mut alice, PASSWORD, &"a1".repeat(600)).await, "Invalid");
    assert!(signs_in(&app, ALICE, PASSWORD).await);
    let mut codes = app.browser(Mode::Header);
    codes.by_code(BOB).await;
    assert_eq!(change(&app, &mut codes, PASSWORD, NEW).await, "NotFound");
}

/// Decision 12: the current password counts as proved, so a session that lacks a factor may not, and one that has all
/// may at any time.
#[tokio::test]
async fn a_change_needs_all_factors() {
    use tower_mfa::policy::Everyone;
    let app = TestApp::with(|b| {
        b.policy(Everyone::new(FactorId::OTP_EMAIL)).email_verification(EmailVerification::Optional)
    })
    .await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    assert_eq!(change(&app, &mut alice, PASSWORD, NEW).await, "StepUp");
    assert_eq!(change_email(&app, &mut alice, NEXT).await, "StepUp");
    alice.pass_code(ALICE).await;
    app.clock.advance(Duration::from_secs(301));
    // Of the address nothing is proved by asking for another one.
    assert_eq!(change_email(&app, &mut alice, NEXT).await, "StepUp");
    assert_eq!(change(&app, &mut alice, PASSWORD, NEW).await, "Changed");
    alice.pass_code(ALICE).await;
    assert_eq!(change_email(&app, &mut alice, NEXT).await, "Asked");
    let app = TestApp::with(|b| {
        b.factor_changes(FactorChanges::Compat).email_verification(EmailVerification::Optional)
    })
    .await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    app.clock.advance(Duration::from_secs(301));
    assert_eq!(change_email(&app, &mut alice, NEXT).await, "Asked");
}

/// Row W06: ten wrong ones lock every door to a password alike, and each door counts.
#[tokio::test]
async fn sec_w06_every_door_to_a_password_is_locked_alike() {
    type Door = (&'static str, fn(&TestApp, Browser, &'static str) -> Opens);
    type Opens = std::pin::Pin<Box<dyn Future<Output = String> + Send>>;
    let doors: [Door; 3] = [
        ("first", |app, _, password| {
            let mut client = app.browser(Mode::Header);
            Box::pin(async move {
                let answer = client.post("/auth/signin", credentials(ALICE, password)).await;
                answer.body["status"].as_str().unwrap().to_owned()
            })
        }),
        ("second", |_, mut client, password| {
            Box::pin(async move {
                let body = linking(credentials(ALICE, password)).unwrap();
                let answer = client.post("/auth/signin", body).await;
                answer.body["status"].as_str().unwrap().to_owned()
            })
        }),
        ("change", |app, mut client, password| {
            let app = app.clone();
            Box::pin(async move { change(&app, &mut client, password, NEW).await })
        }),
    ];
    for (by, fill) in doors {
        let app = TestApp::limited(|b| b).await;
        let alice = signed_up(&app, Mode::Header, ALICE).await;
        for n in 0..10 {
            let told = fill(&app, alice.clone(), "wrong horse 1").await;
            assert!(["WRONG_CREDENTIALS_ERROR", "WrongPassword"].contains(&told.as_str()), "{by} {n} {told}");
        }
        let hashes = app.mfa.counters().password_hashes;
        for (door, open) in doors {
            for password in ["wrong horse 1", PASSWORD] {
                let told = open(&app, alice.clone(), password).await;
                let locked = told == "GENERAL_ERROR" || told.starts_with("TooManyTries(");
                assert!(locked, "{door} after {by}: {told}");
            }
        }
        assert_eq!(app.mfa.counters().password_hashes, hashes, "nothing was compared");
        // After the quarter of an hour each opens again.
        app.clock.advance(Duration::from_secs(16 * 60));
        assert!(signs_in(&app, ALICE, PASSWORD).await);
    }
}

/// Row W07: of changes of one password at once, one wins, and the password is that one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_w07_of_two_changes_at_once_one_wins() {
    let nodes = in_memory().await;
    let alice = signed_up(&nodes[0], Mode::Header, ALICE).await;
    let start = Arc::new(Barrier::new(4));
    let racers = (0..4).map(|n| {
        let (app, start) = (nodes[n % nodes.len()].clone(), Arc::clone(&start));
        let mut client = alice.at(&app);
        tokio::spawn(async move {
            start.wait().await;
            let new = format!("password of {n}");
            (change(&app, &mut client, PASSWORD, &new).await, new)
        })
    });
    let mut won = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            (told, new) if told == "Changed" => won.push(new),
            // The token of before, or the password of before.
            (told, _) => assert!(["StaleToken", "WrongPassword"].contains(&told.as_str()), "{told}"),
        }
    }
    assert_eq!(won.len(), 1);
    assert!(signs_in(&nodes[0], ALICE, &won[0]).await);
}

/// A hash as another system made it.
fn hashed(password: &str, memory_kib: u32, passes: u32) -> String {
    let params = Params::new(memory_kib, passes, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Argon2Version::V0x13, params);
    argon2.hash_password_with_salt(password.as_bytes(), b"saltsaltsaltsalt").unwrap().to_string()
}

async fn stored(app: &TestApp) -> String {
    let all = app.store.dump().await;
    let row = all.into_iter().find(|(key, _)| key.as_str().starts_with("password/")).unwrap().1;
    row.body["hash"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn sec_w03_w07_a_hash_from_elsewhere_is_taken_within_bounds_and_made_anew() {
    let app = TestApp::new().await;
    let (users, email) = (app.mfa.users(), Email::parse(ALICE).unwrap());
    // A password of over 72 bytes counts to its end, wherever it was hashed (row W02).
    let long = format!("{}1", "long horse ".repeat(20));
    let import = |hash: String| users.import_password_hash(&PUBLIC, &email, hash, true);
    for hostile in [
        hashed(&long, 4 * 19 * 1024 + 1, 2),
        hashed(&long, 1024, 9),
        hashed(&long, 1024, 1).replace("argon2id", "argon2d"),
        "$2b$12$abcdefghijklmnopqrstuuVyY0g0bF1nQ3F4m5k6l7m8n9o0p1q2r".to_owned(),
        "correct horse 1".to_owned(),
        String::new(),
    ] {
        assert_eq!(import(hostile.clone()).await.unwrap_err().kind(), ErrorKind::Invalid, "{hostile}");
    }
    let old = hashed(&long, 8 * 1024, 1);
    let user = import(old.clone()).await.unwrap();
    assert!(user.logins[0].verified);
    assert_eq!(import(old.clone()).await.unwrap_err().kind(), ErrorKind::Invalid);
    let nowhere = TenantId::parse("nowhere").unwrap();
    let refused = users.import_password_hash(&nowhere, &email, old.clone(), true).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(stored(&app).await, old);
    assert!(!signs_in(&app, ALICE, &long[..72]).await && !signs_in(&app, ALICE, &long[1..]).await);
    assert_eq!(stored(&app).await, old, "a wrong one changes nothing");
    assert!(signs_in(&app, ALICE, &long).await);
    let new = stored(&app).await;
    assert!(new.contains("m=19456,t=2,p=1") && PasswordHash::new(&new).is_ok(), "{new}");
    assert!(signs_in(&app, ALICE, &long).await);
    assert_eq!(stored(&app).await, new, "once is enough");
}

/// Another writer's batch: a login method's password by this hash.
fn rehashed(login: &LoginId, hash: &str) -> Batch {
    let mut batch = Batch::new();
    let row = Row { version: Version::random().unwrap(), expires_at: None, body: json!({ "hash": hash }) };
    batch.push(Key::new(["password", login.as_str()]), Op::Upsert(row));
    batch
}

/// Row W07: a password that is changed between the comparison and the hash made anew stays what it was changed to.
#[tokio::test]
async fn sec_w07_a_change_wins_over_a_hash_made_anew() {
    let app = TestApp::new().await;
    let (users, email) = (app.mfa.users(), Email::parse(ALICE).unwrap());
    let user =
        users.import_password_hash(&PUBLIC, &email, hashed(PASSWORD, 8 * 1024, 1), true).await.unwrap();
    let changed = hashed(NEW, 8 * 1024, 1);
    app.store.before_next_commit(rehashed(&user.logins[0].id, &changed));
    assert!(!signs_in(&app, ALICE, PASSWORD).await, "it was compared with a password that isn't any more");
    assert_eq!(stored(&app).await, changed);
    assert!(app.mfa.sessions().list(&user.id).await.unwrap().is_empty());
    assert!(signs_in(&app, ALICE, NEW).await);
}

/// Lets another writer be faster than a change whose current password was compared already.
#[derive(Clone, Default)]
struct Meanwhile(Arc<Mutex<Option<(Watched, Batch)>>>);

impl BreachedPasswords for Meanwhile {
    async fn is_breached(&self, _: &Secret<String>) -> Result<bool, BoxError> {
        if let Some((store, batch)) = self.0.lock().unwrap().take() {
            store.before_next_commit(batch);
        }
        Ok(false)
    }
}

/// Row W07: what was compared is what is replaced. A hash made anew in between is compared in its turn, and so is
/// another password: to whoever knows only the one before, it is a wrong one.
#[tokio::test]
async fn sec_w07_a_change_replaces_the_hash_that_it_compared() {
    for (between, told, works) in
        [(PASSWORD, "Changed", NEW), ("third horse 3", "WrongPassword", "third horse 3")]
    {
        let meanwhile = Meanwhile::default();
        let hook = meanwhile.clone();
        let app = TestApp::with(|b| b.breached_passwords(hook)).await;
        let mut alice = signed_up(&app, Mode::Header, ALICE).await;
        let user = app.mfa.users().load(&app.user(ALICE).await).await.unwrap().unwrap();
        let batch = rehashed(&user.logins[0].id, &hashed(between, 8 * 1024, 1));
        *meanwhile.0.lock().unwrap() = Some((app.store.clone(), batch));
        let compared = app.mfa.counters().password_hashes;
        assert_eq!(change(&app, &mut alice, PASSWORD, NEW).await, told);
        assert!(meanwhile.0.lock().unwrap().is_none());
        // Each of the two was compared; a new one was made for the first, and for the second only if it matched.
        let hashes = if told == "Changed" { 4 } else { 3 };
        assert_eq!(app.mfa.counters().password_hashes - compared, hashes);
        for password in [PASSWORD, NEW, "third horse 3"] {
            assert_eq!(signs_in(&app, ALICE, password).await, password == works, "{between}: {password}");
        }
    }
}

/// What an app asks of new passwords.
#[derive(Clone, Default)]
struct Leaks {
    asked: Arc<AtomicU64>,
    fails: Arc<Mutex<Option<&'static str>>>,
}

impl BreachedPasswords for Leaks {
    async fn is_breached(&self, password: &Secret<String>) -> Result<bool, BoxError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let fails = *self.fails.lock().unwrap();
        match fails {
            Some("hang") => std::future::pending().await,
            Some("panic") => panic!("planted"),
            Some(why) => Err(why.into()),
            None => Ok(password.expose().starts_with("leaked")),
        }
    }
}

#[tokio::test]
async fn breached_passwords_are_refused_and_a_list_that_fails_lets_none_pass() {
    let leaks = Leaks::default();
    let list = leaks.clone();
    let app = TestApp::with(|b| b.breached_passwords(list)).await;
    let told =
        json!([{ "id": "password", "error": "This password is known from a leak. Choose another one." }]);
    let mut alice = app.browser(Mode::Header);
    let refused = alice.post("/auth/signup", credentials(ALICE, "leaked horse 1")).await;
    assert_eq!(refused.status("FIELD_ERROR").body["formFields"], told);
    alice.sign_up(ALICE).await.ok();
    let asked = leaks.asked.load(Ordering::SeqCst);
    // Never at sign-in, nor for one that the rules refuse.
    alice.sign_in(ALICE).await.ok();
    change(&app, &mut alice, PASSWORD, "short 1").await;
    assert_eq!(leaks.asked.load(Ordering::SeqCst), asked);
    assert!(change(&app, &mut alice, PASSWORD, "leaked horse 1").await.starts_with("NotGoodEnough("));
    let body = json!({ "formFields": [{ "id": "email", "value": ALICE }] });
    app.browser(Mode::Header).post("/auth/user/password/reset/token", body).await.ok();
    let token = link(&app, ALICE, 0).await;
    let reset = |password: &str| {
        let fields = json!([{ "id": "password", "value": password }]);
        json!({ "method": "token", "token": token, "formFields": fields })
    };
    let refused = alice.clone().post("/auth/user/password/reset", reset("leaked horse 1")).await;
    assert_eq!(refused.status("FIELD_ERROR").body["formFields"], told);
    for fails in ["out of order", "panic"] {
        *leaks.fails.lock().unwrap() = Some(fails);
        let mut bob = app.browser(Mode::Header);
        bob.sign_up(BOB).await.is(503);
        assert_eq!(change(&app, &mut alice, PASSWORD, NEW).await, "Unavailable");
        alice.clone().post("/auth/user/password/reset", reset(NEW)).await.is(503);
    }
    *leaks.fails.lock().unwrap() = None;
    // The link wasn't used up by any of it.
    alice.post("/auth/user/password/reset", reset(NEW)).await.ok();
    assert!(signs_in(&app, ALICE, NEW).await);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_leaks_that_hangs_is_given_up() {
    let leaks = Leaks { fails: Arc::new(Mutex::new(Some("hang"))), ..Leaks::default() };
    let app = TestApp::with(|b| b.breached_passwords(leaks)).await;
    let mut alice = app.browser(Mode::Header);
    tokio::time::timeout(Duration::from_secs(6), alice.sign_up(ALICE)).await.unwrap().is(503);
}

/// Name and age, as they were sent.
type Fields = (Option<String>, Option<String>);

#[derive(Clone, Default)]
struct Registered(Arc<Mutex<Vec<Fields>>>);

impl Hooks for Registered {
    async fn on_user_created(&self, e: &UserCreated<'_>) -> Result<(), BoxError> {
        let value = |id: &str| e.form.get(id).map(str::to_owned);
        self.0.lock().unwrap().push((value("name"), value("age")));
        assert!(e.form.get("password").is_none() && !format!("{:?}", e.form).contains("Alice"));
        Ok(())
    }
}

#[tokio::test]
async fn the_apps_own_fields_are_judged_and_handed_on() {
    let registered = Registered::default();
    let hooks = registered.clone();
    let app = TestApp::with(|b| {
        let age = FormField::new("age").optional().check(|age| match age.parse::<u8>() {
            Ok(18..) => Ok(()),
            _ => Err("You must be 18 or older".into()),
        });
        b.sign_up_field(FormField::new("name")).sign_up_field(age).hooks(hooks)
    })
    .await;
    let form = |email: &str, more: &[(&str, Value)]| {
        let mut body = credentials(email, PASSWORD);
        for (id, value) in more {
            body["formFields"].as_array_mut().unwrap().push(json!({ "id": id, "value": value }));
        }
        body
    };
    let mut client = app.browser(Mode::Header);
    let (name, age) = (|v: &str| ("name", json!(v)), |v: &str| ("age", json!(v)));
    for (more, id, error) in [
        (vec![], "name", "Field is not optional"),
        (vec![name(""), age("20")], "name", "Field is not optional"),
        (vec![name("Alice"), age("17")], "age", "You must be 18 or older"),
        (vec![name("Alice"), age("x")], "age", "You must be 18 or older"),
    ] {
        let refused = client.post("/auth/signup", form(ALICE, &more)).await;
        let told = json!([{ "id": id, "error": error }]);
        assert_eq!(refused.status("FIELD_ERROR").body["formFields"], told);
    }
    // Everything that is wrong is told at once, in the order of the form.
    let body = json!({ "formFields": [{ "id": "email", "value": "alice" }, { "id": "age", "value": "1" }] });
    let refused = client.post("/auth/signup", body).await;
    let ids: Vec<&Value> = refused.status("FIELD_ERROR").body["formFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| &field["id"])
        .collect();
    assert_eq!(ids, ["email", "password", "name", "age"]);
    for more in [
        vec![name("Alice"), age("20"), ("more", json!("x"))],
        vec![name("Alice"), ("other", json!("x"))],
        vec![name("Alice"), name("Alice")],
    ] {
        client.post("/auth/signup", form(ALICE, &more)).await.is(400);
    }
    let mut bare = form(ALICE, &[]);
    bare["formFields"].as_array_mut().unwrap().push(json!({ "id": "name" }));
    client.post("/auth/signup", bare).await.is(400);
    // What isn't text is judged and handed on as JSON.
    for (more, id) in [
        (vec![("name", json!(null)), ("age", json!(20))], "name"),
        (vec![name("Alice"), ("age", json!(17))], "age"),
        (vec![name("Alice"), ("age", json!([20]))], "age"),
    ] {
        let refused = client.post("/auth/signup", form(ALICE, &more)).await;
        assert_eq!(refused.status("FIELD_ERROR").body["formFields"][0]["id"], id);
    }
    let carol = [("name", json!({ "first": "Carol" })), ("age", json!(20))];
    client.post("/auth/signup", form("carol@shop.example", &carol)).await.ok();
    let dave = [("name", json!(true)), ("age", json!(null))];
    client.post("/auth/signup", form("dave@shop.example", &dave)).await.ok();
    client.post("/auth/signup", form(ALICE, &[name("Alice"), age("20")])).await.ok();
    client.post("/auth/signup", form(BOB, &[name("Bob"), age("")])).await.ok();
    // Signing in has the two fields alone.
    client.post("/auth/signin", form(ALICE, &[name("Alice")])).await.is(400);
    client.sign_in(ALICE).await.ok();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        *registered.0.lock().unwrap(),
        [
            (text("{\"first\":\"Carol\"}"), text("20")),
            (text("true"), text("")),
            (text("Alice"), text("20")),
            (text("Bob"), text("")),
        ]
    );
    for wrong in ["email", "password", ""] {
        assert_eq!(problems(shop(), |b| b.sign_up_field(FormField::new(wrong))).len(), 1, "{wrong}");
    }
    let twice =
        |b: tower_mfa::MfaBuilder| b.sign_up_field(FormField::new("a")).sign_up_field(FormField::new("a"));
    assert_eq!(problems(shop(), twice).len(), 1);
}

async fn verifying() -> TestApp {
    TestApp::with(|b| b.email_verification(EmailVerification::Optional)).await
}

#[tokio::test]
async fn sec_s09_l07_another_address_counts_once_its_mailbox_says_so() {
    for mode in MODES {
        let app = verifying().await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        let mut other = app.browser(mode);
        other.sign_in(ALICE).await.ok();
        assert_eq!(change_email(&app, &mut alice, ALICE).await, "Invalid");
        assert_eq!(change_email(&app, &mut alice, NEXT).await, "Asked");
        let token = link(&app, NEXT, 0).await;
        // Until then nothing has changed.
        assert!(signs_in(&app, ALICE, PASSWORD).await && !signs_in(&app, NEXT, PASSWORD).await);
        // The mailbox alone doesn't get hold of the account, nor does another account's session.
        let mut bob = signed_up(&app, mode, BOB).await;
        for stranger in [&mut app.browser(mode), &mut bob] {
            open(stranger, &token).await.status("EMAIL_VERIFICATION_INVALID_TOKEN_ERROR");
        }
        let before = alice.clone();
        open(&mut alice, &token).await.ok();
        assert_ne!(refresh_token(&alice), refresh_token(&before));
        alice.get("/api/me").await.is(200);
        assert_eq!(alice.payload("st-ev")["v"], true);
        other.clone().get("/api/me").await.is(401);
        alice.refresh().await.is(200);
        assert!(!signs_in(&app, ALICE, PASSWORD).await && signs_in(&app, NEXT, PASSWORD).await);
        // Whoever wants the former address may have it.
        signed_up(&app, mode, ALICE).await;
        let audited = app.store.audited().await;
        for what in ["email-change-asked", "email-changed"] {
            assert!(audited.contains(&what.to_owned()), "{what}");
        }
    }
    // To somebody's address no mail goes, and that isn't told; nor does a link work that was sent before it was theirs.
    let app = verifying().await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    signed_up(&app, Mode::Header, BOB).await;
    assert_eq!(change_email(&app, &mut alice, BOB).await, "Asked");
    assert_eq!(change_email(&app, &mut alice, NEXT).await, "Asked");
    let token = link(&app, NEXT, 0).await;
    signed_up(&app, Mode::Header, NEXT).await;
    open(&mut alice, &token).await.status("EMAIL_VERIFICATION_INVALID_TOKEN_ERROR");
    assert_eq!(app.sent_to(BOB), 0);
    assert!(signs_in(&app, ALICE, PASSWORD).await);
}

/// Row L04: at most one change is pending; another one, a reset and a recovery cancel it.
#[tokio::test]
async fn sec_l04_a_pending_change_is_cancelled() {
    let app = verifying().await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let later = "alice.later@shop.example";
    for email in [NEXT, later] {
        assert_eq!(change_email(&app, &mut alice, email).await, "Asked");
    }
    let (first, second) = (link(&app, NEXT, 0).await, link(&app, later, 0).await);
    open(&mut alice, &first).await.status("EMAIL_VERIFICATION_INVALID_TOKEN_ERROR");
    // A reset of the password, by the address that the account has.
    let body = json!({ "formFields": [{ "id": "email", "value": ALICE }] });
    app.browser(Mode::Header).post("/auth/user/password/reset/token", body).await.ok();
    let reset = link(&app, ALICE, 0).await;
    let fields = json!([{ "id": "password", "value": NEW }]);
    let body = json!({ "method": "token", "token": reset, "formFields": fields });
    app.browser(Mode::Header).post("/auth/user/password/reset", body).await.ok();
    let mut alice = app.browser(Mode::Header);
    alice.post("/auth/signin", credentials(ALICE, NEW)).await.ok();
    open(&mut alice, &second).await.status("EMAIL_VERIFICATION_INVALID_TOKEN_ERROR");
    assert!(signs_in(&app, ALICE, NEW).await && !signs_in(&app, later, NEW).await);
}

/// Row L05: of changes that are asked for and confirmed at once, the address is always the one whose mailbox got the
/// link that was opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_l05_the_address_is_the_one_that_got_the_link() {
    let app = verifying().await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let user = app.user(ALICE).await;
    let login = app.mfa.users().load(&user).await.unwrap().unwrap().logins[0].id.clone();
    let mut now = ALICE.to_owned();
    for round in 0..16 {
        let emails = ["a", "b"].map(|who| format!("{who}{round}@shop.example"));
        let (start, mut racers) = (Arc::new(Barrier::new(2)), Vec::new());
        for email in emails.clone() {
            let (app, start, mut client) = (app.clone(), Arc::clone(&start), alice.clone());
            let body = json!({ "email": email, "login": login.as_str() });
            racers.push(tokio::spawn(async move {
                start.wait().await;
                assert_eq!(says(&app, &mut client, body).await, "Asked");
                (link(&app, &email, 0).await, email)
            }));
        }
        let mut links = Vec::new();
        for racer in racers {
            links.push(racer.await.unwrap());
        }
        let (start, mut racers) = (Arc::new(Barrier::new(2)), Vec::new());
        for (token, email) in links {
            let (start, mut client) = (Arc::clone(&start), alice.clone());
            racers.push(tokio::spawn(async move {
                start.wait().await;
                let answer = open(&mut client, &token).await;
                (answer.body["status"] == "OK", email, client)
            }));
        }
        let mut opened = Vec::new();
        for racer in racers {
            let (done, email, client) = racer.await.unwrap();
            if done {
                opened.push(email);
                alice = client;
            }
        }
        // The later of the two requests holds; which one that was is nobody's to say.
        assert_eq!(opened.len(), 1, "round {round}");
        now.clone_from(&opened[0]);
        let user = app.mfa.users().load(&user).await.unwrap().unwrap();
        assert_eq!(user.logins[0].email.as_ref().unwrap().as_str(), now, "round {round}");
    }
    assert!(signs_in(&app, &now, PASSWORD).await && !signs_in(&app, ALICE, PASSWORD).await);
}

#[test]
fn what_came_of_a_change_must_be_looked_at() {
    // The names that apps match on.
    assert_eq!(format!("{:?} {:?}", PasswordChange::Changed, EmailChange::Asked), "Changed Asked");
}
