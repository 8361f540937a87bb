//! The change feed between two handles on one file: whatever changes what a session may do is written in one batch
//! with the news of it, and bites in the other one at the next request; who isn't concerned asks nobody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tower_mfa::{
    FactorId, Mfa, MfaBuilder, MfaPolicy, PolicyContext, Requirements,
    account::User,
    config::{Secrets, Stale},
    hooks::{FactorCompleted, Hooks},
    ident::{BoxError, Email, Payload, SessionHandle, TenantId},
    policy::PolicyError,
    store::{MemoryStore, SqliteStore},
};

use crate::{
    spy::{ALICE, BOB, Spy, handle, shop},
    support::{Browser, Mode, TestApp, send},
};

/// Everything that the feed carries decides: roles, the tenant's list, the user's, and something of the app's.
#[derive(Clone, Default)]
struct Everything(Arc<AtomicBool>);

impl MfaPolicy for Everything {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        let asked = ctx.roles().await?.iter().any(|role| role.as_str() == "admin")
            || !ctx.required_for_tenant().await?.is_empty()
            || !ctx.required_for_user().await?.is_empty()
            || self.0.load(Ordering::SeqCst);
        Ok(if asked { gate().into() } else { Requirements::none() })
    }
}

/// A factor of the app's own, which nobody completes here.
fn gate() -> FactorId {
    FactorId::parse("gate").unwrap()
}

struct OptsIn;

impl Hooks for OptsIn {
    async fn opts_in(&self, _: &FactorCompleted<'_>) -> Result<bool, BoxError> {
        Ok(true)
    }
}

/// Two handles, as two processes have them.
struct Two {
    here: TestApp,
    there: TestApp,
    spy: Spy,
    rule: Everything,
    _dir: tempfile::TempDir,
}

impl Two {
    async fn start() -> Self {
        let (dir, secrets, rule) =
            (tempfile::tempdir().unwrap(), Secrets::random().unwrap(), Everything::default());
        let file = dir.path().join("db");
        let spy = Spy::new(SqliteStore::open(&file).await.unwrap());
        let policy = rule.clone();
        let here = TestApp::on(shop(), secrets.clone(), spy.clone(), |b| {
            b.policy(policy).hooks(OptsIn).custom_factor(gate())
        })
        .await;
        let (policy, clock) = (rule.clone(), here.clock.clone());
        let there = TestApp::on(shop(), secrets, SqliteStore::open(&file).await.unwrap(), |b| {
            b.policy(policy).clock(clock).custom_factor(gate())
        })
        .await;
        Self { here, there, spy, rule, _dir: dir }
    }

    fn mfa(&self) -> &Mfa {
        &self.here.mfa
    }

    /// The other handle reads the feed: what it read last is too old.
    fn let_read(&self) {
        self.here.clock.advance(Duration::from_secs(4));
    }

    async fn status_there(&self, browser: &Browser) -> u16 {
        browser.at(&self.there).get("/api/me").await.status.as_u16()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Grant,
    TakeAway,
    SetRoles,
    Require,
    RequireNothing,
    FirstFactors,
    OptIn,
    OptOut,
    OptInWithAFactor,
    AppsRule,
    Payload,
    RemovedFactor,
    AddedFactor,
    AddedFactorWithin,
    One,
    SignOut,
    Theft,
    AnotherSignIn,
    OthersOf,
    User,
    Deleted,
    All,
}

use What::*;

/// What is changed, the record it changes, and what the session's next request is answered elsewhere.
const CHANGES: [(What, &str, u16); 22] = [
    (Grant, "/role/", 403),
    (TakeAway, "/role/", 200),
    (SetRoles, "/role/", 403),
    (Require, "tenant/public", 403),
    (RequireNothing, "tenant/public", 200),
    (FirstFactors, "tenant/public", 200),
    (OptIn, "required/", 403),
    (OptOut, "required/", 200),
    (OptInWithAFactor, "required/", 403),
    (AppsRule, "epoch/user/", 403),
    (Payload, "/session/", 200),
    (RemovedFactor, "login-of/", 401),
    (AddedFactor, "login-of/", 401),
    (AddedFactorWithin, "login-of/", 401),
    (One, "/session/", 401),
    (SignOut, "/session/", 401),
    (Theft, "/session/", 401),
    (AnotherSignIn, "/session/", 401),
    (OthersOf, "epoch/user/", 401),
    (User, "epoch/user/", 401),
    (Deleted, "user/", 401),
    (All, "epoch/app", 401),
];

async fn change(two: &Two, what: What, session: &mut Browser, user: &User) {
    let (mfa, public, id) = (two.mfa(), TenantId::PUBLIC, &user.id);
    let handle = SessionHandle::parse(&handle(session)).unwrap();
    let email = user.logins[0].email.clone().unwrap();
    match what {
        Grant => mfa.roles().grant(id, &public, "admin").await.unwrap(),
        TakeAway => mfa.roles().revoke(id, &public, "admin").await.unwrap(),
        SetRoles => mfa.roles().set(id, &public, ["admin".parse().unwrap()]).await.unwrap(),
        Require => mfa.tenants().require(&public, [gate()]).await.unwrap(),
        RequireNothing => mfa.tenants().require(&public, []).await.unwrap(),
        FirstFactors => {
            mfa.tenants()
                .set_first_factors(&public, Some(vec![FactorId::OTP_EMAIL, FactorId::PASSWORD]))
                .await
                .unwrap();
        }
        OptIn => drop(mfa.factors().opt_in(id, gate()).await.unwrap()),
        OptOut => drop(mfa.factors().opt_out(id, gate()).await.unwrap()),
        // In another session of the same user, who knows the factor already.
        OptInWithAFactor => {
            let mut other = two.here.browser(Mode::Header);
            other.by_code(email.as_str()).await;
            other.pass_code(email.as_str()).await;
        }
        AppsRule => {
            two.rule.0.store(true, Ordering::SeqCst);
            mfa.users().judge_anew(id).await.unwrap();
        }
        Payload => {
            let plan = Payload::from_json(json!({ "plan": "gold" })).unwrap();
            mfa.sessions().merge_payload(&handle, plan).await.unwrap();
        }
        RemovedFactor => drop(mfa.users().remove_login(id, &user.logins[1].id).await.unwrap()),
        AddedFactor => {
            let new = Email::parse(&format!("more-{}", email.as_str())).unwrap();
            drop(mfa.users().add_email(id, &public, &new).await.unwrap());
        }
        AddedFactorWithin => {
            let mut other = two.here.browser(Mode::Header);
            other.by_code(email.as_str()).await;
            let mut body = crate::support::credentials(email.as_str(), crate::support::PASSWORD);
            body["shouldTryLinkingWithSessionUser"] = json!(true);
            other.post("/auth/signup", body).await.ok();
        }
        One => assert!(mfa.sessions().revoke(&handle).await.unwrap()),
        SignOut => drop(session.sign_out().await.ok()),
        Theft => {
            let mut thief = session.clone();
            session.clone().refresh().await.is(200);
            two.here.clock.advance(Duration::from_secs(31));
            thief.refresh().await.is(401);
        }
        AnotherSignIn => drop(session.clone().by_code(BOB).await),
        OthersOf => {
            let mut other = two.here.browser(Mode::Header);
            other.by_code(email.as_str()).await;
            let path = axum::Router::new()
                .route("/others", axum::routing::get(others))
                .layer(tower_mfa::MfaLayer::required(mfa.clone()))
                .layer(axum::Extension(mfa.clone()));
            send(&path, other.request(http::Method::GET, "/others", None)).await.is(200);
        }
        User => mfa.sessions().revoke_user(id).await.unwrap(),
        Deleted => mfa.users().delete(id).await.unwrap(),
        All => mfa.sessions().revoke_all().await.unwrap(),
    }
}

async fn others(axum::Extension(mfa): axum::Extension<Mfa>, session: tower_mfa::SessionExtractor) {
    mfa.sessions().revoke_others(&session).await.unwrap();
}

#[tokio::test]
async fn sec_p07_whatever_changes_is_one_batch_with_its_news_and_bites_elsewhere() {
    let two = Two::start().await;
    for (n, (what, record, expected)) in CHANGES.into_iter().enumerate() {
        let (email, public) = (format!("user{n}@shop.example"), TenantId::PUBLIC);
        let mut session = two.here.browser(Mode::Header);
        session.by_code(&email).await;
        let mut user = two.mfa().users().load(&two.here.user(&email).await).await.unwrap().unwrap();
        // What there must be before it can be changed.
        match what {
            TakeAway => two.mfa().roles().grant(&user.id, &public, "admin").await.unwrap(),
            RequireNothing => two.mfa().tenants().require(&public, [gate()]).await.unwrap(),
            OptOut => drop(two.mfa().factors().opt_in(&user.id, gate()).await.unwrap()),
            RemovedFactor => {
                let more = Email::parse(&format!("old-{email}")).unwrap();
                user = two.mfa().users().add_email(&user.id, &public, &more).await.unwrap();
                session.by_code(&email).await;
            }
            _ => {}
        }
        let stays = !matches!(what, TakeAway | RequireNothing | OptOut);
        two.let_read();
        assert_eq!(two.status_there(&session).await, if stays { 200 } else { 403 }, "{what:?}, before");
        let batches = two.spy.log().await.len();
        change(&two, what, &mut session.clone(), &user).await;
        // In one batch: the record, the raised number or the row, the feed's record, its head.
        let log = two.spy.log().await;
        let whole = log[batches..].iter().any(|batch| {
            let touches = |part: &str| batch.iter().any(|(key, _)| key.contains(part));
            touches(record) && touches("change/") && touches("change-head/")
        });
        assert!(
            whole,
            "{what:?}: {:?}",
            log[batches..].iter().flatten().map(|(key, _)| key).collect::<Vec<_>>()
        );
        two.let_read();
        assert_eq!(two.status_there(&session).await, expected, "{what:?}");
        if what == Payload {
            let mut there = session.at(&two.there);
            there.get("/api/me").await.is(200);
            assert_eq!(there.payload("plan"), "gold");
        }
        // As it was, for the next one.
        match what {
            Require => two.mfa().tenants().require(&public, []).await.unwrap(),
            AppsRule => two.rule.0.store(false, Ordering::SeqCst),
            _ => {}
        }
    }
}

#[tokio::test]
async fn whom_a_change_doesnt_concern_asks_nobody() {
    let two = Two::start().await;
    let (mut alice, mut bob) = (two.here.browser(Mode::Header), two.here.browser(Mode::Header));
    alice.by_code(ALICE).await;
    bob.by_code(BOB).await;
    let (user, north) = (two.here.user(ALICE).await, TenantId::parse("north").unwrap());
    two.mfa().tenants().create(&north, None).await.unwrap();
    let mut bob_there = bob.at(&two.there);
    bob_there.get("/api/me").await.is(200);
    for n in 0..4 {
        two.mfa().roles().set(&user, &TenantId::PUBLIC, [format!("r{n}").parse().unwrap()]).await.unwrap();
        two.mfa().tenants().require(&north, (n % 2 == 0).then(gate)).await.unwrap();
        two.let_read();
        let before = (two.here.store.calls(), two.there.store.calls());
        for _ in 0..50 {
            bob.get("/api/me").await.is(200);
            bob_there.get("/api/me").await.is(200);
        }
        assert_eq!((two.here.store.calls(), two.there.store.calls()), before);
        // Alice is asked about once on each side, and then no more.
        let mut there = alice.at(&two.there);
        there.get("/api/me").await.is(200);
        let before = two.there.store.calls();
        assert!(before > 0);
        for _ in 0..50 {
            there.get("/api/me").await.is(200);
        }
        assert_eq!(two.there.store.calls(), before);
        alice = there.at(&two.here);
    }
}

/// Another handle on a store that can be cut off from it.
async fn cut_off(change: fn(MfaBuilder) -> MfaBuilder) -> (TestApp, TestApp, Spy) {
    let (store, secrets) = (MemoryStore::new(), Secrets::random().unwrap());
    let here = TestApp::on(shop(), secrets.clone(), store.clone(), change).await;
    let (spy, clock) = (Spy::new(store), here.clock.clone());
    let there = TestApp::on(shop(), secrets, spy.clone(), move |b| change(b).clock(clock)).await;
    (here, there, spy)
}

#[tokio::test]
async fn a_feed_that_cant_be_read_is_a_choice_and_is_counted() {
    let (here, there, spy) = cut_off(|b| b).await;
    let mut alice = here.browser(Mode::Header);
    alice.by_code(ALICE).await;
    let mount = |stale| {
        axum::Router::new()
            .route("/", axum::routing::get(|| async {}))
            .layer(tower_mfa::MfaLayer::required(there.mfa.clone()).when_stale(stale))
    };
    let (serve, refuse) = (mount(Stale::Serve), mount(Stale::Refuse));
    let ask = |router: &axum::Router| {
        let (router, request) = (router.clone(), alice.request(http::Method::GET, "/", None));
        async move { send(&router, request).await.status.as_u16() }
    };
    assert_eq!((ask(&serve).await, ask(&refuse).await), (200, 200));
    let before = there.mfa.counters();
    assert!(before.feed_reads > 0);
    assert_eq!((before.feed_failures, before.served_stale, before.refused_stale), (0, 0, 0));
    spy.fail_after(0);
    here.clock.advance(Duration::from_secs(4));
    for _ in 0..3 {
        assert_eq!((ask(&serve).await, ask(&refuse).await), (200, 503));
    }
    let cut = there.mfa.counters();
    assert_eq!((cut.served_stale, cut.refused_stale), (3, 3));
    assert!(cut.feed_failures >= 1, "{cut:?}");
    assert!(!there.mfa.is_ready());
    spy.fail_after(u64::MAX);
    assert_eq!((ask(&serve).await, ask(&refuse).await), (200, 200));
    let back = there.mfa.counters();
    assert_eq!((back.served_stale, back.refused_stale), (3, 3));
    assert!(back.feed_reads > cut.feed_reads);
}
