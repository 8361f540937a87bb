//! How long a policy's answer holds, and what asking costs: store calls, counted. The change feed's own scans
//! and the upkeep are not among them.

use std::time::Duration;

use tower_mfa::{
    FactorId, MfaPolicy, PolicyContext, Requirement, Requirements,
    ident::{TenantId, Timestamp},
    policy::{
        AnyPolicy, Compose as _, Everyone, ForRole, Nobody, OptIn, PolicyError, TenantScoped, UserOrTenant,
    },
};

use crate::{
    spy::{ALICE, Log},
    support::{Browser, Mode, START, TestApp},
};

const EMAIL: FactorId = FactorId::OTP_EMAIL;
const PASSWORD: FactorId = FactorId::PASSWORD;

async fn asked_by(policy: impl MfaPolicy) -> (TestApp, Browser) {
    let app = TestApp::with(|b| b.policy(policy)).await;
    let mut alice = app.browser(Mode::Header);
    alice.by_code(ALICE).await;
    (app, alice)
}

/// The store calls of one more request, which passes.
async fn calls(app: &TestApp, alice: &mut Browser) -> u64 {
    let before = app.store.calls();
    alice.get("/api/me").await.is(200);
    app.store.calls() - before
}

async fn yes(_: &PolicyContext<'_>) -> Result<bool, PolicyError> {
    Ok(true)
}

async fn no(_: &PolicyContext<'_>) -> Result<bool, PolicyError> {
    Ok(false)
}

/// Reads the user: what they can prove, and who they are.
async fn known(ctx: &PolicyContext<'_>) -> Result<bool, PolicyError> {
    Ok(ctx.factors_set_up().await?.contains(&EMAIL) && ctx.user().await?.logins.len() == 1)
}

/// What a policy costs that is asked at every request: the session's row, and each fact that its answer
/// depends on, once, whatever it is put together from; where something is demanded, the tenant's rule is among
/// them, for it says what counts.
#[tokio::test]
async fn each_fact_is_read_where_the_answer_depends_on_it_and_once() {
    let (app, mut alice) = asked_by(Nobody.every_request()).await;
    calls(&app, &mut alice).await;
    let row = calls(&app, &mut alice).await;
    let admin = || ForRole::new("admin", EMAIL);
    let done = || Everyone::new(EMAIL);
    let north = || TenantId::parse("north").unwrap();
    let cases: Vec<(&str, AnyPolicy, u64)> = vec![
        ("nothing, but of the tenant what counts", AnyPolicy::new(done()), 1),
        ("roles", AnyPolicy::new(admin()), 1),
        ("opt-ins", AnyPolicy::new(OptIn), 1),
        ("the default", AnyPolicy::new(UserOrTenant::new()), 2),
        ("all required", AnyPolicy::new(UserOrTenant::new().all_required()), 2),
        ("and", AnyPolicy::new(admin().and(OptIn)), 2),
        ("the same fact twice", AnyPolicy::new(admin().and(ForRole::new("owner", EMAIL)).and(admin())), 1),
        ("or, nothing first", AnyPolicy::new(admin().or(UserOrTenant::new())), 1),
        ("or, something first", AnyPolicy::new(done().or(UserOrTenant::new())), 2),
        ("strictest", AnyPolicy::new(admin().strictest(OptIn)), 2),
        ("when", AnyPolicy::new(UserOrTenant::new().when(yes)), 2),
        ("when not", AnyPolicy::new(UserOrTenant::new().when(no)), 0),
        ("when, by the user", AnyPolicy::new(done().when(known)), 2),
        ("here", AnyPolicy::new(OptIn.for_tenant(TenantId::PUBLIC)), 1),
        ("elsewhere", AnyPolicy::new(OptIn.for_tenant(north())), 0),
        ("only what is set up, of something", AnyPolicy::new(done().only_set_up()), 2),
        ("only what is set up, of nothing", AnyPolicy::new(OptIn.only_set_up()), 1),
        ("scoped, something", AnyPolicy::new(TenantScoped::new(done())), 1),
        ("scoped, nothing", AnyPolicy::new(TenantScoped::new(OptIn)), 1),
        (
            "all together",
            AnyPolicy::new(
                admin().or(OptIn).and(done().when(known).only_set_up()).strictest(OptIn.for_tenant(north())),
            ),
            3,
        ),
    ];
    for (name, policy, facts) in cases {
        let (app, mut alice) = asked_by(policy.every_request()).await;
        calls(&app, &mut alice).await;
        let commits = app.store.commits();
        for _ in 0..2 {
            assert_eq!(calls(&app, &mut alice).await, row + facts, "{name}");
        }
        assert_eq!(app.store.commits(), commits, "{name}: nothing changed, nothing is written");
    }
}

#[tokio::test]
async fn on_events_a_policy_costs_nothing_between_them() {
    let (app, mut alice) = asked_by(ForRole::new("admin", EMAIL).and(UserOrTenant::new())).await;
    let user = app.user(ALICE).await;
    calls(&app, &mut alice).await;
    app.clock.advance(Duration::from_secs(1000));
    for _ in 0..3 {
        assert_eq!(calls(&app, &mut alice).await, 0);
    }
    // An event: asked once, and not again.
    app.mfa.roles().grant(&user, &TenantId::PUBLIC, "admin").await.unwrap();
    assert!(calls(&app, &mut alice).await > 0);
    assert_eq!(calls(&app, &mut alice).await, 0);
    app.mfa.factors().opt_in(&user, EMAIL).await.unwrap();
    assert!(calls(&app, &mut alice).await > 0);
    assert_eq!(calls(&app, &mut alice).await, 0);
}

/// Something is demanded from an instant on, and until it the answer holds: a grace period.
struct From(Timestamp, Requirement);

impl MfaPolicy for From {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        Ok(match ctx.now() < self.0 {
            true => Requirements::none().until(self.0),
            false => self.1.clone().into(),
        })
    }
}

#[tokio::test]
async fn until_an_instant_a_policy_costs_nothing_and_then_is_asked_once() {
    let instant = Timestamp::from_secs(START + 600);
    let (app, mut alice) = asked_by(From(instant, EMAIL.into())).await;
    calls(&app, &mut alice).await;
    for seconds in [300, 299] {
        app.clock.advance(Duration::from_secs(seconds));
        assert_eq!(calls(&app, &mut alice).await, 0);
    }
    app.clock.advance(Duration::from_secs(1));
    // The answer is new, the verdict isn't: she came by that factor.
    assert!(calls(&app, &mut alice).await > 0);
    assert_eq!(calls(&app, &mut alice).await, 0);
    // And where it bites, it does at that very request.
    let (app, mut alice) = asked_by(From(instant, PASSWORD.into())).await;
    app.clock.advance(Duration::from_millis(599_999));
    alice.get("/api/me").await.is(200);
    app.clock.advance(Duration::from_millis(1));
    let refused = alice.get("/api/me").await;
    refused.is(403);
    assert_eq!(refused.body["next"], serde_json::json!(["emailpassword"]));
}

/// A door that is open or shut, which no change reports.
#[derive(Clone, Default)]
struct Door(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl MfaPolicy for Door {
    async fn requirements(&self, _ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        let shut = self.0.load(std::sync::atomic::Ordering::SeqCst);
        Ok(if shut { PASSWORD.into() } else { Requirements::none() })
    }
}

#[tokio::test]
async fn what_no_change_reports_is_noticed_by_asking_at_every_request() {
    let door = Door::default();
    let (_, mut alice) = asked_by(door.clone().every_request()).await;
    for shut in [false, true, true, false, true] {
        door.0.store(shut, std::sync::atomic::Ordering::SeqCst);
        alice.get("/api/me").await.is(if shut { 403 } else { 200 });
    }
    // On events alone it isn't.
    let door = Door::default();
    let (app, mut alice) = asked_by(door.clone()).await;
    door.0.store(true, std::sync::atomic::Ordering::SeqCst);
    alice.get("/api/me").await.is(200);
    app.mfa.users().judge_anew(&app.user(ALICE).await).await.unwrap();
    alice.get("/api/me").await.is(403);
}

#[tokio::test]
async fn a_role_rule_that_stands_alone_is_logged_at_the_start() {
    const SAYS: &str = "what users opt into isn't asked";
    let role = || ForRole::new("admin", EMAIL);
    for (policy, said) in [
        (AnyPolicy::new(role()), true),
        (AnyPolicy::new(role().or(OptIn)), true),
        (AnyPolicy::new(role().and(OptIn)), false),
        (AnyPolicy::new(UserOrTenant::new()), false),
    ] {
        let (log, _guard) = Log::start();
        TestApp::with(|b| b.policy(policy)).await;
        let lines = log.lines("WARN", SAYS).len();
        assert_eq!(lines, usize::from(said && cfg!(feature = "tracing")));
    }
}
