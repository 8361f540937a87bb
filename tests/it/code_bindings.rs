//! What a code is bound to, over HTTP: purpose, session, user, tenant, destination. Each is read again in the
//! transaction that uses the code up.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tower_mfa::{
    FactorId,
    config::{Countries, Passwordless, Secrets},
    hooks::{FactorCompleted, Hooks},
    ident::{BoxError, Email, TenantId},
    policy::Everyone,
    store::{Batch, Key, MemoryStore, Op, Row, Version},
};

use crate::{
    spy::{ALICE, BOB, everyone, shop},
    support::{Browser, Mode, TestApp, Watched},
};

const PUBLIC: TenantId = TenantId::PUBLIC;
const RESTART: &str = "RESTART_FLOW_ERROR";

/// Asks for a code; the flow and the code.
async fn asked(client: &mut Browser, app: &TestApp, contact: &str, linking: bool) -> (Value, String) {
    let seen = app.sent_to(contact);
    let flow = client.ask_code(contact, linking).await.ok();
    (flow, app.code_after(contact, seen).await)
}

/// The one flow's guesses so far.
async fn attempts(app: &TestApp) -> Value {
    let codes = app.store.codes().await;
    assert_eq!(codes.len(), 1);
    codes.into_values().next().unwrap().body["attempts"].clone()
}

#[tokio::test]
async fn sec_o08_a_code_that_was_used_takes_its_siblings_with_it() {
    let app = TestApp::new().await;
    let (mut one, mut two) = (app.browser(Mode::Header), app.browser(Mode::Header));
    let (first, first_code) = asked(&mut one, &app, ALICE, false).await;
    let (second, second_code) = asked(&mut two, &app, ALICE, false).await;
    // Of another destination, and so untouched.
    let (bobs, bobs_code) = asked(&mut two, &app, BOB, false).await;
    one.enter(&first, &first_code, false).await.ok();
    one.enter(&first, &first_code, false).await.status(RESTART);
    two.enter(&second, &second_code, false).await.status(RESTART);
    two.ask_again(&second, false).await.status(RESTART);
    two.enter(&bobs, &bobs_code, false).await.ok();
}

#[tokio::test]
async fn sec_o11_a_code_is_spent_on_what_it_was_asked_for() {
    // Beginning and completing a sign-in are the purposes there are.
    for (asked_for, spent_on) in [(false, false), (false, true), (true, false), (true, true)] {
        let app = TestApp::new().await;
        let mut client = app.browser(Mode::Header);
        client.by_code(ALICE).await;
        let (flow, code) = asked(&mut client, &app, ALICE, asked_for).await;
        let row = async || open_flow(&app.store).await.1.body["attempts"].clone();
        let answer = client.enter(&flow, &code, spent_on).await;
        if asked_for == spent_on {
            answer.status("OK");
        } else {
            answer.status(RESTART);
            assert_eq!((row().await, app.mfa.counters().code_comparisons), (json!(1), 1), "it is charged");
            for _ in 0..4 {
                client.enter(&flow, &code, spent_on).await.status(RESTART);
            }
            // That used the flow up.
            client.enter(&flow, &code, asked_for).await.status(RESTART);
            assert_eq!((row().await, app.mfa.counters().code_comparisons), (json!(5), 1));
        }
    }
}

#[tokio::test]
async fn sec_o12_three_by_three() {
    let app = everyone().await;
    let (mut a, mut b) = (app.browser(Mode::Header), app.browser(Mode::Header));
    a.sign_up(ALICE).await.ok();
    a.pass_code(ALICE).await;
    b.sign_in(ALICE).await.ok();
    b.pass_code(ALICE).await;
    for made in 0..3 {
        for used in 0..3 {
            let mut clients = [app.browser(Mode::Header), a.clone(), b.clone()];
            let (flow, code) = asked(&mut clients[made], &app, ALICE, made > 0).await;
            let answer = clients[used].enter(&flow, &code, used > 0).await;
            let want = if made == used { "OK" } else { RESTART };
            answer.status(want);
            // The refresh token moves on with each factor that is completed, and the binding with it.
            [_, a, b] = clients;
            if made != used && made > 0 {
                let holder = if made == 1 { &mut a } else { &mut b };
                holder.refresh().await.is(200);
                holder.enter(&flow, &code, true).await.ok();
            }
        }
    }
}

#[tokio::test]
async fn sec_o13_under_another_tenant_there_is_no_such_flow() {
    let app = everyone().await;
    let north = TenantId::parse("north").unwrap();
    app.mfa.tenants().create(&north, None).await.unwrap();
    let mut alice = app.browser(Mode::Header);
    let (flow, code) = asked(&mut alice, &app, ALICE, false).await;
    let mut stranger = app.browser(Mode::Header);
    stranger.tenant = Some("north".to_owned());
    stranger.ask_again(&flow, false).await.status(RESTART);
    for _ in 0..6 {
        stranger.enter(&flow, &code, false).await.status(RESTART);
    }
    assert_eq!((attempts(&app).await, app.mfa.counters().code_comparisons), (json!(0), 0));
    alice.enter(&flow, &code, false).await.ok();
}

type Change = fn(&mut Value);

/// Writes into the flow's record, as another writer would, right before the transaction that uses the code up: the
/// app is asked about an opt-in between the charge and that.
struct Meddler {
    store: Arc<Mutex<Option<Watched>>>,
    change: Change,
    asked: Arc<AtomicUsize>,
}

impl Hooks for Meddler {
    async fn opts_in(&self, _: &FactorCompleted<'_>) -> Result<bool, BoxError> {
        let store = self.store.lock().unwrap().clone();
        if let (Some(store), 0) = (store, self.asked.fetch_add(1, Ordering::SeqCst)) {
            let (key, row) = open_flow(&store).await;
            let mut body = row.body;
            (self.change)(&mut body);
            let mut batch = Batch::new();
            let version = Version::random().unwrap();
            batch.push(key, Op::Upsert(Row { version, expires_at: row.expires_at, body }));
            store.before_next_commit(batch);
        }
        Ok(false)
    }
}

async fn open_flow(store: &Watched) -> (Key, Row) {
    let live = |(_, row): &(Key, Row)| row.body["state"] == "live";
    store.codes().await.into_iter().find(live).unwrap()
}

#[tokio::test]
async fn sec_o15_every_binding_is_read_again_where_the_code_is_used_up() {
    let changes: [(Change, &str); 9] = [
        (|row| row["attempts"] = json!(4), "OK"),
        (|row| row["resends"] = json!(1), "OK"),
        (|row| row["user"] = json!("somebody-else"), RESTART),
        (|row| row["session"] = json!("11111111-2222-4333-8444-555555555555"), RESTART),
        (|row| row["tenant"] = json!("north"), RESTART),
        (|row| row["purpose"] = json!("first-factor"), RESTART),
        (|row| row["factor"] = json!("otp-phone"), RESTART),
        (|row| row["contact"] = json!(BOB), RESTART),
        (|row| row["state"] = json!("voided"), RESTART),
    ];
    for (n, (change, want)) in changes.into_iter().enumerate() {
        let (store, asked_for) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let meddler = Meddler { store: Arc::clone(&store), change, asked: Arc::clone(&asked_for) };
        let app = TestApp::with(|b| b.hooks(meddler)).await;
        let mut alice = app.browser(Mode::Header);
        alice.by_code(ALICE).await;
        let before = app.mfa.users().load(&app.user(ALICE).await).await.unwrap();
        let (flow, code) = asked(&mut alice, &app, ALICE, true).await;
        let claim = alice.claim();
        app.clock.advance(std::time::Duration::from_secs(5));
        *store.lock().unwrap() = Some(app.store.clone());
        alice.enter(&flow, &code, true).await.status(want);
        assert!(asked_for.load(Ordering::SeqCst) > 0);
        assert_eq!(alice.claim() == claim, want == RESTART, "change {n}");
        assert_eq!(app.mfa.users().load(&app.user(ALICE).await).await.unwrap(), before);
    }
}

/// The session's row is another user's by then.
#[tokio::test]
async fn sec_o15_whose_the_session_is_is_read_again_too() {
    let (store, seen): (Arc<Mutex<Option<Watched>>>, _) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
    struct Thief(Arc<Mutex<Option<Watched>>>, Arc<AtomicUsize>);
    impl Hooks for Thief {
        async fn opts_in(&self, _: &FactorCompleted<'_>) -> Result<bool, BoxError> {
            let store = self.0.lock().unwrap().clone();
            if let (Some(store), 0) = (store, self.1.fetch_add(1, Ordering::SeqCst)) {
                let bob = store.dump().await.into_iter().find(|(key, row)| {
                    key.as_str().starts_with("user/") && row.body.to_string().contains(BOB)
                });
                let bob = bob.unwrap().1.body["id"].clone();
                let (key, row) = store.sessions().await.into_iter().next().unwrap();
                let mut body = row.body;
                (body["user"], body["login"]) = (bob.clone(), bob);
                let mut batch = Batch::new();
                let version = Version::random().unwrap();
                batch.push(key, Op::Upsert(Row { version, expires_at: row.expires_at, body }));
                store.before_next_commit(batch);
            }
            Ok(false)
        }
    }
    let app = TestApp::with(|b| b.hooks(Thief(Arc::clone(&store), Arc::clone(&seen)))).await;
    app.mfa.users().create(&PUBLIC, &Email::parse(BOB).unwrap()).await.unwrap();
    let mut alice = app.browser(Mode::Header);
    alice.by_code(ALICE).await;
    let (flow, code) = asked(&mut alice, &app, ALICE, true).await;
    *store.lock().unwrap() = Some(app.store.clone());
    let answer = alice.enter(&flow, &code, true).await;
    assert_ne!(answer.body["status"], "OK", "{}", answer.text);
    assert!(seen.load(Ordering::SeqCst) > 0);
    let row = open_flow(&app.store).await.1;
    assert_eq!(row.body["state"], "live");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_o16_of_enrolments_in_two_sessions_one_wins() {
    let passwordless = || Passwordless::email_or_phone(Countries::all());
    let app =
        TestApp::with(|b| b.passwordless(passwordless()).policy(Everyone::new(FactorId::OTP_PHONE))).await;
    for n in 0..4 {
        let email = format!("alice{n}@shop.example");
        let (mut a, mut b) = (app.browser(Mode::Header), app.browser(Mode::Header));
        a.sign_up(&email).await.ok();
        b.sign_in(&email).await.ok();
        let numbers = [format!("+3630111110{n}"), format!("+3630222220{n}")];
        let (one, first) = asked(&mut a, &app, &numbers[0], true).await;
        let (two, second) = asked(&mut b, &app, &numbers[1], true).await;
        let racer = tokio::spawn(async move { a.enter(&one, &first, true).await });
        let other = b.enter(&two, &second, true).await;
        let answers = [racer.await.unwrap(), other];
        let won: Vec<bool> = answers.iter().map(|answer| answer.body["status"] == "OK").collect();
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{answers:?}");
        let user = app.mfa.users().load(&app.user(&email).await).await.unwrap().unwrap();
        let bound: Vec<&str> =
            user.logins.iter().filter_map(|login| Some(login.phone.as_ref()?.as_str())).collect();
        assert_eq!(bound, [if won[0] { &numbers[0] } else { &numbers[1] }]);
        assert_eq!(app.mfa.sessions().list(&user.id).await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_o17_a_contact_that_is_taken_away_takes_its_codes_with_it() {
    let app = TestApp::new().await;
    // One after the other …
    let email = |text: &str| Email::parse(text).unwrap();
    let alice = app.mfa.users().create(&PUBLIC, &email(ALICE)).await.unwrap();
    let add = async |address: &str| {
        let user = app.mfa.users().add_email(&alice.id, &PUBLIC, &email(address)).await.unwrap();
        user.logins.last().unwrap().id.clone()
    };
    let login = add(BOB).await;
    let mut client = app.browser(Mode::Header);
    let (flow, code) = asked(&mut client, &app, BOB, false).await;
    app.mfa.users().remove_login(&alice.id, &login).await.unwrap();
    client.ask_again(&flow, false).await.status(RESTART);
    client.enter(&flow, &code, false).await.status(RESTART);
    assert_eq!(app.mfa.counters().code_comparisons, 0);
    // … and at once: whoever is first, no session and no user is left of the address.
    for n in 0..16 {
        let address = format!("alice{n}@shop.example");
        let login = add(&address).await;
        let mut client = app.browser(Mode::Header);
        let (flow, code) = asked(&mut client, &app, &address, false).await;
        let mut racer = client.clone();
        let entered = tokio::spawn(async move {
            let answer = racer.enter(&flow, &code, false).await;
            (racer, answer)
        });
        if n % 2 == 0 {
            tokio::task::yield_now().await;
        }
        app.mfa.users().remove_login(&alice.id, &login).await.unwrap();
        let (mut racer, answer) = entered.await.unwrap();
        assert!(["OK", RESTART].contains(&answer.body["status"].as_str().unwrap()), "{}", answer.text);
        racer.get("/api/me").await.is(401);
        assert!(app.mfa.users().by_email(&PUBLIC, &email(&address)).await.unwrap().is_empty());
        assert!(app.mfa.sessions().list(&alice.id).await.unwrap().is_empty());
    }
}

/// Row O03: what was sent under the former root key still works.
#[tokio::test]
async fn sec_o03_codes_outlive_a_change_of_the_root_keys() {
    let store = MemoryStore::new();
    let (mut first, mut second) = ([0; 32], [0; 32]);
    for key in [&mut first, &mut second] {
        aws_lc_rs::rand::fill(key).unwrap();
    }
    let (old, new) = (Secrets::new("old", first).unwrap(), Secrets::new("new", second).unwrap());
    let before = TestApp::on(shop(), old, store.clone(), |b| b).await;
    let clock = before.clock.clone();
    let both = new.and_older("old", first).unwrap();
    let after = TestApp::on(shop(), both, store, |b| b.clock(clock.clone())).await;
    let mut alice = before.browser(Mode::Header);
    let (flow, code) = asked(&mut alice, &before, ALICE, false).await;
    let mut alice = alice.at(&after);
    alice.ask_again(&flow, false).await.ok();
    after.notice_after(ALICE, 0).await;
    alice.enter(&flow, &code, false).await.ok();
}
