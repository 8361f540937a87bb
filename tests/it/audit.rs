//! What the audit sink hears: every kind of event over HTTP, nothing secret, and never at anybody's cost.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, routing::get};
use serde_json::json;
use tower_mfa::{
    FactorId, MfaLayer, RequireFactors, SessionExtractor,
    account::{EmailChange, PasswordChange},
    config::{EmailVerification, Secrets},
    hooks::{AuditEvent, AuditSink, Audited},
    ident::{BoxError, Email, Phone, TenantId, Timestamp},
    policy::ForRole,
    store::{Batch, Key, MemoryStore, Op, Row, Store as _, Version},
};

use crate::{
    spy::{ALICE, BOB, Log, handle, shop},
    support::{Browser, Mode, PASSWORD, TestApp, credentials, send, wrong},
};

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<AuditEvent>>>);

impl AuditSink for Heard {
    async fn record(&self, event: &AuditEvent) -> Result<(), BoxError> {
        self.0.lock().unwrap().push(event.clone());
        Ok(())
    }
}

impl Heard {
    fn all(&self) -> Vec<AuditEvent> {
        self.0.lock().unwrap().clone()
    }
}

/// As it is written, for sets.
fn name(what: Audited) -> String {
    serde_json::to_value(what).unwrap().as_str().unwrap().to_owned()
}

const KINDS: [&str; 40] = [
    "email-change-asked",
    "email-changed",
    "email-verified",
    "password-changed",
    "password-reset",
    "password-reset-asked",
    "password-reset-refused",
    "tenant-deleted",
    "delivery-failed",
    "new-device",
    "suspicious-attempts",
    "access-refused",
    "destination-refused",
    "factor-completed",
    "factor-linked",
    "factor-refused",
    "key-revoked",
    "keys-rotated",
    "locked-out",
    "login-added",
    "login-removed",
    "opted-in",
    "opted-out",
    "partly-signed-in",
    "password-hash-unreadable",
    "pre-elevation-reuse",
    "refresh-reuse",
    "refreshed",
    "requirements-met",
    "requirements-unmet",
    "roles-changed",
    "session-revoked",
    "sessions-revoked",
    "signed-in",
    "tenant-changed",
    "tenant-created",
    "user-created",
    "user-deleted",
    "wrong-code",
    "wrong-password",
];

/// Everything that is secret or personal and was used on the way.
#[derive(Default)]
struct Secret(BTreeSet<String>);

impl Secret {
    fn keep(&mut self, browser: &Browser) {
        self.0.extend(browser.access_token().cloned());
        self.0.extend(browser.refresh_token().cloned());
        self.0.insert(handle(browser));
    }
}

/// Links by mail, and what a user changes within a session.
async fn links_and_changes(app: &TestApp, secrets: &mut Secret) {
    const CAROL: [&str; 4] =
        ["carol@shop.example", "carol.next@shop.example", "another horse 2", "yet another 3"];
    let [email, next, second, third] = CAROL;
    secrets.0.extend(CAROL.map(str::to_owned));
    let mut carol = app.browser(Mode::Header);
    carol.sign_up(email).await.ok();
    let user = app.user(email).await;
    let login = app.mfa.users().load(&user).await.unwrap().unwrap().logins[0].id.clone();
    let mfa = app.mfa.clone();
    let changes = move |session: SessionExtractor| {
        let (mfa, login) = (mfa.clone(), login.clone());
        async move {
            let users = mfa.users();
            assert_eq!(
                users.change_password(&session, PASSWORD.to_owned(), second.to_owned()).await.unwrap(),
                PasswordChange::Changed
            );
            let next = Email::parse(next).unwrap();
            assert_eq!(users.change_email(&session, &login, &next).await.unwrap(), EmailChange::Asked);
        }
    };
    let page = Router::new().route("/", get(changes)).layer(MfaLayer::required(app.mfa.clone()));
    let link = async |to: &str, seen: usize| {
        let link = app.notice_after(to, seen).await.link().unwrap().expose().clone();
        link.split(['?', '&']).find_map(|part| part.strip_prefix("token=")).unwrap().to_owned()
    };
    carol.post("/auth/user/email/verify/token", json!({})).await.ok();
    let prove = link(email, 0).await;
    carol.post("/auth/user/email/verify", json!({ "method": "token", "token": prove })).await.ok();
    let answer = send(&page, carol.request(http::Method::GET, "/", None)).await;
    answer.is(200);
    carol.keep(&answer);
    let change = link(next, 0).await;
    carol.post("/auth/user/email/verify", json!({ "method": "token", "token": change })).await.ok();
    let ask = |email: &str| json!({ "formFields": [{ "id": "email", "value": email }] });
    carol.post("/auth/user/password/reset/token", ask(next)).await.ok();
    let reset = link(next, 1).await;
    let fields = json!([{ "id": "password", "value": third }]);
    let body = json!({ "method": "token", "token": reset, "formFields": fields });
    carol.post("/auth/user/password/reset", body).await.ok();
    // Somebody whose address isn't proved, and who can be reached otherwise.
    let dave = "dave@shop.example";
    secrets.0.extend([dave.to_owned(), prove, change, reset]);
    carol.sign_up(dave).await.ok();
    let number = Phone::parse("+36301111142").unwrap();
    app.mfa.users().add_phone(&app.user(dave).await, &TenantId::PUBLIC, &number).await.unwrap();
    let refused = carol.post("/auth/user/password/reset/token", ask(dave)).await;
    refused.status("PASSWORD_RESET_NOT_ALLOWED");
}

#[tokio::test]
async fn sec_g07_every_kind_of_event_is_told_and_kept_and_holds_no_secret() {
    let (heard, store, public) = (Heard::default(), MemoryStore::new(), TenantId::PUBLIC);
    let sink = heard.clone();
    let peer = std::net::IpAddr::from([192, 0, 2, 7]);
    let app = TestApp::on(shop(), Secrets::random().unwrap(), store.clone(), |b| {
        b.audit(sink)
            .peer(move |_, _| Some(peer))
            .policy(ForRole::new("admin", FactorId::OTP_EMAIL))
            .email_verification(EmailVerification::Optional)
    })
    .await;
    let mut secrets = Secret(BTreeSet::from([ALICE, BOB, PASSWORD].map(str::to_owned)));
    let (mfa, north) = (&app.mfa, TenantId::parse("north").unwrap());

    // Users, tenants, roles, keys.
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    secrets.keep(&alice);
    let user = app.user(ALICE).await;
    mfa.tenants().create(&north, None).await.unwrap();
    mfa.tenants().require(&north, [FactorId::OTP_EMAIL]).await.unwrap();
    let south = TenantId::parse("south").unwrap();
    mfa.tenants().create(&south, None).await.unwrap();
    mfa.tenants().delete(&south).await.unwrap();
    mfa.keys().rotate().await.unwrap();
    app.browser(Mode::Header).post("/auth/signin", credentials(ALICE, "Wr0ng password")).await;

    // From met to unmet to met, refused on the way, and by a guard.
    mfa.roles().grant(&user, &public, "admin").await.unwrap();
    alice.get("/api/me").await.is(403);
    let guarded = Router::new()
        .route("/totp", get(|| async {}).route_layer(RequireFactors::one_of([FactorId::TOTP])))
        .layer(MfaLayer::required(mfa.clone()).without_mfa());
    let refusals = |all: &[AuditEvent]| all.iter().filter(|e| e.what == Audited::AccessRefused).count();
    mfa.sessions().list(&user).await.unwrap();
    send(&guarded, alice.request(http::Method::GET, "/totp", None)).await.is(403);
    let mut half = app.browser(Mode::Header);
    half.sign_in(ALICE).await.ok();
    // A right password of somebody else's, as a second factor: proved, and not to be used.
    let mut bob = app.browser(Mode::Header);
    bob.sign_up(BOB).await.ok();
    let mut body = credentials(BOB, PASSWORD);
    body["shouldTryLinkingWithSessionUser"] = json!(true);
    half.post("/auth/signin", body).await.is(403);
    let seen = app.sent_to(ALICE);
    let flow = alice.ask_code(ALICE, true).await.ok();
    let code = app.code_after(ALICE, seen).await;
    alice.enter(&flow, &wrong(&code), true).await.status("INCORRECT_USER_INPUT_CODE_ERROR");
    alice.enter(&flow, &code, true).await.ok();
    secrets.0.insert(code);
    alice.ask_code(BOB, true).await.is(403);
    alice.pass_code(ALICE).await;
    mfa.factors().opt_in(&user, FactorId::OTP_EMAIL).await.unwrap();
    mfa.factors().opt_out(&user, FactorId::OTP_EMAIL).await.unwrap();
    secrets.keep(&alice);

    // A refresh; a lost elevation; theft; more guesses than are allowed.
    alice.refresh().await.is(200);
    let mut before = alice.clone();
    alice.pass_code(ALICE).await;
    app.clock.advance(Duration::from_secs(31));
    before.refresh().await.is(401);
    bob.sign_in(BOB).await.ok();
    let mut thief = bob.clone();
    bob.refresh().await.is(200);
    app.clock.advance(Duration::from_secs(31));
    thief.refresh().await.is(401);
    bob.sign_in(BOB).await.ok();
    for _ in 0..3 {
        let seen = app.sent_to(BOB);
        let flow = bob.ask_code(BOB, true).await.ok();
        let code = app.code_after(BOB, seen).await;
        for _ in 0..4 {
            bob.enter(&flow, &wrong(&code), true).await;
        }
    }
    bob.sign_out().await.ok();

    // Accounts; a hash that nobody can read.
    let bob_id = app.user(BOB).await;
    let with = mfa.users().add_email(&bob_id, &public, &Email::parse(BOB).unwrap()).await.unwrap();
    mfa.users().remove_login(&bob_id, &with.logins[1].id).await.unwrap();
    let key = Key::new(["password", with.logins[0].id.as_str()]);
    let row = Row { version: Version::random().unwrap(), expires_at: None, body: json!({ "hash": "$what" }) };
    let mut batch = Batch::new();
    batch.push(key, Op::Upsert(row));
    assert_eq!(store.commit(batch).await.unwrap(), tower_mfa::store::Commit::Applied);
    bob.sign_in(BOB).await;
    mfa.users().delete(&bob_id).await.unwrap();
    let leaked = mfa.keys().list().await.unwrap().remove(0).kid;
    mfa.keys().revoke(&leaked).await.unwrap();

    links_and_changes(&app, &mut secrets).await;

    // A browser that is new, and an SMS that didn't arrive.
    let mut body = app.browser(Mode::Header).request(
        http::Method::POST,
        "/auth/signin",
        Some(credentials(ALICE, PASSWORD)),
    );
    body.headers_mut().insert("user-agent", "Firefox".parse().unwrap());
    app.send(body).await.ok();
    mfa.sms_status(&crate::support::failed_sms()).await.unwrap();

    mfa.shutdown().await;
    let all = heard.all();
    let kinds: BTreeSet<String> = all.iter().map(|event| name(event.what)).collect();
    assert_eq!(
        kinds,
        KINDS.map(str::to_owned).into(),
        "{:?}",
        all.iter().map(|e| e.what).collect::<Vec<_>>()
    );
    assert!(refusals(&all) >= 2, "the layer's and the guard's");
    // Each but a mere refusal is in the trail, and nothing else is.
    let mut kept: Vec<AuditEvent> =
        all.iter().filter(|e| e.what != Audited::AccessRefused).cloned().collect();
    let mut trail = mfa.audit_trail(Timestamp::EPOCH).await.unwrap();
    let order = |e: &AuditEvent| format!("{:?}", (e.at, e.what, &e.user, &e.session, &e.cause, &e.tenant));
    kept.sort_by_key(order);
    trail.sort_by_key(order);
    assert_eq!(kept, trail);
    let late = mfa.audit_trail(trail.last().unwrap().at + Duration::from_secs(1)).await.unwrap();
    assert_eq!(late, []);
    // Who, where from, and what it was; nothing that could be used.
    let theft = all.iter().find(|event| event.what == Audited::RefreshReuse).unwrap();
    assert_eq!((theft.ip, theft.age), (Some(peer), Some(Duration::from_secs(31))));
    assert!(theft.user.is_some() && theft.session.as_ref().is_some_and(|digest| digest.len() == 64));
    for event in &all {
        let text = format!("{event:?} {}", serde_json::to_string(event).unwrap());
        for secret in &secrets.0 {
            assert!(!text.contains(secret.as_str()), "{secret} in {text}");
        }
    }
    assert_eq!((mfa.counters().audit_dropped, mfa.counters().audit_failed), (0, 0));
}

#[tokio::test]
async fn what_isnt_committed_isnt_told() {
    let heard = Heard::default();
    let sink = heard.clone();
    let app = TestApp::with(|b| b.audit(sink)).await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    app.store.fail_commits(100);
    alice.clone().refresh().await.is(503);
    alice.clone().sign_out().await.is(503);
    app.store.fail_commits(0);
    // A round that is lost to a rival is told once, when it is committed.
    let user = app.user(ALICE).await;
    let mut rival = Batch::new();
    let row = Row { version: Version::random().unwrap(), expires_at: None, body: json!({ "roles": ["x"] }) };
    rival.push(Key::new(["t", "public", "role", user.as_str()]), Op::Upsert(row));
    app.store.before_next_commit(rival);
    app.mfa.roles().grant(&user, &TenantId::PUBLIC, "admin").await.unwrap();
    app.mfa.shutdown().await;
    let told: Vec<String> = heard.all().iter().map(|event| name(event.what)).collect();
    assert_eq!(told, ["user-created", "signed-in", "roles-changed"]);
}

/// A sink that never answers, or answers badly.
struct Bad {
    how: &'static str,
}

impl AuditSink for Bad {
    async fn record(&self, _: &AuditEvent) -> Result<(), BoxError> {
        match self.how {
            "hangs" => std::future::pending().await,
            "panics" => panic!("told to panic"),
            _ => Err("told to fail".into()),
        }
    }
}

#[tokio::test]
async fn a_bad_sink_holds_up_nobody_and_is_counted() {
    for how in ["hangs", "panics", "fails"] {
        let app = TestApp::with(|b| b.audit(Bad { how })).await;
        let started = std::time::Instant::now();
        let mut alice = app.browser(Mode::Header);
        alice.by_code(ALICE).await;
        alice.refresh().await.is(200);
        alice.get("/api/me").await.is(200);
        assert!(started.elapsed() < Duration::from_secs(4), "{how}: {:?}", started.elapsed());
        let user = app.user(ALICE).await;
        if how == "hangs" {
            // More than may wait: the queue is full, the rest is left out, and nobody notices.
            for n in 0..4200 {
                let roles = [["admin", "editor"][n % 2].parse().unwrap()];
                app.mfa.roles().set(&user, &TenantId::PUBLIC, roles).await.unwrap();
            }
            let counters = app.mfa.counters();
            assert!((50..200).contains(&counters.audit_dropped), "{counters:?}");
            alice.refresh().await.is(200);
            assert_eq!(app.mfa.audit_trail(Timestamp::EPOCH).await.unwrap().len(), 1000, "the trail has all");
        } else {
            app.mfa.shutdown().await;
            assert_eq!(app.mfa.counters().audit_failed, 3, "{how}");
        }
    }
}

#[tokio::test]
async fn without_a_sink_events_are_logged() {
    let (log, _guard) = Log::start();
    let app = TestApp::new().await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    app.browser(Mode::Header).post("/auth/signin", credentials(ALICE, "Wr0ng password")).await;
    alice.refresh().await.is(200);
    app.mfa.shutdown().await;
    log.has("INFO", "tower_mfa::audit");
    log.has("INFO", "SignedIn");
    log.has("WARN", "WrongPassword");
    log.has("DEBUG", "Refreshed");
    assert_eq!(log.lines("", ALICE), Vec::<String>::new());
}
