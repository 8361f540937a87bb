//! Where a policy meets the rest: factors of the app's own, claims that it reads, lists that name what nobody has,
//! rules that move while they are asked, dates that come while tokens live.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Extension, Path},
    routing::post,
};
use http::StatusCode;
use serde_json::json;
use tower_mfa::{
    FactorId, Mfa, MfaLayer, MfaPolicy, PolicyContext, Requirement, Requirements, SessionClaim,
    SessionExtractor,
    account::{LoginKind, TenantRule},
    claim::{ClaimContext, ClaimError},
    factor::danger::assert_proof,
    ident::{ErrorKind, Payload, TenantId, Timestamp},
    policy::{Compose as _, Everyone, OptIn, PolicyError, TenantAsks, TenantScoped},
};

use crate::{
    spy::{ALICE, Log, signed_up},
    support::{Browser, Mode, START, TestApp, send},
};

const EMAIL: FactorId = FactorId::OTP_EMAIL;
const PASSWORD: FactorId = FactorId::PASSWORD;
const DAY: Duration = Duration::from_secs(86_400);

fn public() -> TenantId {
    TenantId::PUBLIC
}

fn badge() -> FactorId {
    FactorId::parse("badge").unwrap()
}

/// Passes a factor by the app's own word, so many seconds ahead of the clock.
async fn vouch(
    Extension(mfa): Extension<Mfa>,
    Path((factor, ahead)): Path<(String, u64)>,
    session: SessionExtractor,
) -> (StatusCode, String) {
    let now = Timestamp::from_secs(START) + Duration::from_secs(ahead);
    let proof = assert_proof(FactorId::parse(&factor).unwrap(), &session, now);
    match mfa.complete(&session, proof).await {
        Ok(()) => (StatusCode::OK, session.has_completed(&badge()).to_string()),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{:?}", error.kind())),
    }
}

fn vouching(app: &TestApp) -> Router {
    Router::new()
        .route("/vouch/{factor}/{ahead}", post(vouch))
        .layer(MfaLayer::required(app.mfa.clone()).without_mfa())
        .layer(Extension(app.mfa.clone()))
}

#[tokio::test]
async fn an_apps_own_factor_is_completed_by_its_word_and_under_the_same_rules() {
    for mode in [Mode::Cookie, Mode::Header] {
        let list = Requirement::in_order([badge(), EMAIL]);
        let app = TestApp::with(|b| b.custom_factor(badge()).policy(Everyone::new(list))).await;
        let router = vouching(&app);
        let mut alice = signed_up(&app, mode, ALICE).await;
        let before = alice.refresh_token().cloned();
        // Not asked for yet, not known, not installed, never completed within a session.
        for wrong in ["otp-email", "bagde", "totp", "thirdparty"] {
            let path = format!("/vouch/{wrong}/0");
            let answer = send(&router, alice.request(http::Method::POST, &path, None)).await;
            assert_eq!((answer.status.as_u16(), &*answer.text), (400, "Invalid"), "{wrong}");
            assert!(answer.headers.get("front-token").is_none());
        }
        // A stamp is never later than now (row P12), and tokens change with the level (row S03).
        let answer = send(&router, alice.request(http::Method::POST, "/vouch/badge/9999", None)).await;
        assert_eq!((answer.status.as_u16(), &*answer.text), (200, "true"));
        alice.keep(&answer);
        assert_ne!(alice.refresh_token().cloned(), before);
        assert_eq!(alice.claim()["c"]["badge"], json!(START));
        let refused = alice.get("/api/me").await;
        refused.is(403);
        let info = alice.info().await.ok();
        assert_eq!(
            (&refused.body["next"], &info["factors"]["next"]),
            (&json!(["otp-email"]), &json!(["otp-email"]))
        );
        alice.pass_code(ALICE).await;
        alice.get("/api/me").await.is(200);
        alice.refresh().await.is(200);
    }
}

#[tokio::test]
async fn sec_p20_out_of_order_a_half_session_is_refused_and_a_full_one_is_recorded() {
    let app = TestApp::with(|b| b.custom_factor(badge()).policy(Everyone::new(EMAIL))).await;
    let router = vouching(&app);
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let vouch = |alice: &Browser| alice.request(http::Method::POST, "/vouch/badge/0", None);
    send(&router, vouch(&alice)).await.is(400);
    alice.pass_code(ALICE).await;
    alice.keep(send(&router, vouch(&alice)).await.is(200));
    assert_eq!(
        alice.claim(),
        json!({ "c": { "badge": START, "emailpassword": START, "otp-email": START }, "v": true })
    );
    alice.get("/api/me").await.is(200);
}

#[tokio::test]
async fn sec_s02_a_proof_counts_for_the_session_that_it_was_made_for() {
    let app = TestApp::with(|b| b.custom_factor(badge()).policy(Everyone::new(badge()))).await;
    let other = TestApp::with(|b| b.custom_factor(badge()).policy(Everyone::new(badge()))).await;
    let (alice, bob) =
        (signed_up(&app, Mode::Header, ALICE).await, signed_up(&app, Mode::Header, "bob@shop.example").await);
    let kept: Arc<std::sync::Mutex<Option<tower_mfa::Session>>> = Arc::default();
    let (slot, mfa, others) = (Arc::clone(&kept), app.mfa.clone(), other.mfa.clone());
    let swap = move |session: SessionExtractor| async move {
        let Some(first) = slot.lock().unwrap().replace((*session).clone()) else { return "kept" };
        let proof = || assert_proof(badge(), &first, Timestamp::from_secs(START));
        assert_eq!(mfa.complete(&session, proof()).await.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(others.complete(&first, proof()).await.unwrap_err().kind(), ErrorKind::Invalid);
        // The head of that session's response was sent.
        assert_eq!(mfa.complete(&first, proof()).await.unwrap_err().kind(), ErrorKind::Invalid);
        "refused"
    };
    let router: Router =
        Router::new().route("/swap", post(swap)).layer(MfaLayer::required(app.mfa.clone()).without_mfa());
    for (browser, said) in [(&alice, "kept"), (&bob, "refused")] {
        assert_eq!(send(&router, browser.request(http::Method::POST, "/swap", None)).await.text, said);
    }
    for mut browser in [alice, bob] {
        browser.get("/api/me").await.is(403);
    }
}

struct Plan;

impl SessionClaim for Plan {
    const KEY: &'static str = "plan";
    type Value = String;

    async fn fetch(&self, _: &ClaimContext<'_>) -> Result<Option<String>, ClaimError> {
        Ok(Some("gold".to_owned()))
    }
}

struct WhoPays;

impl MfaPolicy for WhoPays {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        let pays = ctx.payload().member("plan").is_some();
        Ok(if pays { EMAIL.into() } else { Requirements::none() })
    }
}

#[tokio::test]
async fn a_policy_reads_the_claims_of_the_session_that_begins() {
    let app = TestApp::with(|b| b.policy(WhoPays).claim(Plan)).await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    assert_eq!(alice.claim()["v"], false);
    let refused = alice.get("/api/me").await;
    refused.is(403);
    assert_eq!(refused.body["next"], json!(["otp-email"]));
}

#[tokio::test]
async fn a_payload_that_changes_bites_where_it_is_told() {
    let app = TestApp::with(|b| b.policy(WhoPays)).await;
    let gold = || Payload::from_json(json!({ "plan": "gold" })).unwrap();
    // From outside it is told by itself.
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let id = app.user(ALICE).await;
    let handle = app.mfa.sessions().list(&id).await.unwrap().remove(0).handle;
    app.mfa.sessions().merge_payload(&handle, gold()).await.unwrap();
    alice.get("/api/me").await.is(403);
    // From inside by the app.
    let bob = "bob@shop.example";
    let mut bob = signed_up(&app, Mode::Header, bob).await;
    let buys = move |Extension(mfa): Extension<Mfa>, session: SessionExtractor| async move {
        session.merge_payload(gold()).await.unwrap();
        mfa.users().judge_anew(&session.user_id()).await.unwrap();
    };
    let router: Router = Router::new()
        .route("/buy", post(buys))
        .layer(MfaLayer::required(app.mfa.clone()))
        .layer(Extension(app.mfa.clone()));
    let answer = send(&router, bob.request(http::Method::POST, "/buy", None)).await;
    bob.keep(answer.is(200));
    bob.get("/api/me").await.is(403);
}

#[tokio::test]
async fn sec_p10_nobody_opts_into_a_factor_that_nobody_knows() {
    let app = TestApp::with(|b| b.policy(OptIn).custom_factor(badge())).await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let (id, factors) = (app.user(ALICE).await, app.mfa.factors());
    let typo = || FactorId::parse("otp_email").unwrap();
    assert_eq!(factors.opt_in(&id, typo()).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(factors.opt_in_within(&id, &public(), typo()).await.unwrap_err().kind(), ErrorKind::Invalid);
    alice.get("/api/me").await.is(200);
    assert_eq!(factors.opt_in(&id, badge()).await.unwrap(), [badge()]);
    alice.get("/api/me").await.is(403);
    // What isn't there can always be taken away.
    assert_eq!(factors.opt_out(&id, typo()).await.unwrap(), [badge()]);
}

/// An opt-in and a tenant's rule outlive the factor that they name.
#[tokio::test]
async fn sec_p11_what_was_asked_before_its_factor_was_removed_lets_nobody_pass_and_says_so() {
    for by_tenant in [false, true] {
        let app = TestApp::with(|b| b.custom_factor(badge())).await;
        let alice = signed_up(&app, Mode::Header, ALICE).await;
        let (id, factors, tenants) = (app.user(ALICE).await, app.mfa.factors(), app.mfa.tenants());
        match by_tenant {
            true => tenants.require(&public(), [badge()]).await.unwrap(),
            false => drop(factors.opt_in(&id, badge()).await.unwrap()),
        }
        let (log, _guard) = Log::start();
        // The same store, and nobody who knows a badge.
        let node = app.restarted().await;
        let mut alice = alice.at(&node);
        for _ in 0..2 {
            let refused = alice.get("/api/me").await;
            refused.is(403);
            let said = refused.body["claimValidationErrors"][0]["reason"]["message"].as_str().unwrap();
            assert!(said.contains("can't be satisfied"), "{said}");
            assert_eq!(refused.body["next"], json!([]));
        }
        assert_eq!(alice.info().await.ok()["factors"]["next"], json!([]));
        assert_eq!(log.lines("ERROR", "badge").len(), 1);
        let mut again = node.browser(Mode::Header);
        again.sign_in(ALICE).await.ok();
        again.get("/api/me").await.is(403);
        // It can be taken back there, and not be asked for again.
        match by_tenant {
            true => {
                node.mfa.tenants().require(&public(), [badge()]).await.unwrap_err();
                node.mfa.tenants().set_rule(&public(), TenantRule::default()).await.unwrap();
            }
            false => {
                node.mfa.factors().opt_in(&id, badge()).await.unwrap_err();
                node.mfa.factors().opt_out(&id, badge()).await.unwrap();
            }
        }
        again.get("/api/me").await.is(200);
    }
}

/// Each is fine with what was there before, and both together would leave whoever signs in by a code stuck.
#[tokio::test]
async fn sec_p11_two_changes_of_a_tenant_at_once_are_checked_as_they_are_committed() {
    let asks =
        TenantScoped::new(Everyone::new(Requirement::one_of([EMAIL, PASSWORD]).excluding_first_factor()));
    let app = TestApp::with(|b| b.policy(asks).first_factors([PASSWORD])).await;
    let (tenants, public) = (app.mfa.tenants(), public());
    let (rule, first) = tokio::join!(
        tenants.require(&public, [EMAIL]),
        tenants.set_first_factors(&public, Some(vec![EMAIL]))
    );
    let kinds: Vec<ErrorKind> =
        [rule, first].into_iter().filter_map(|done| Some(done.err()?.kind())).collect();
    assert_eq!(kinds, [ErrorKind::Invalid]);
}

#[tokio::test]
async fn sec_p11_a_new_tenants_first_factors_are_checked_as_later_ones_are() {
    let policy = Everyone::new(Requirement::from(EMAIL).excluding_first_factor());
    let app = TestApp::with(|b| b.policy(policy).first_factors(vec![PASSWORD])).await;
    let (tenants, north) = (app.mfa.tenants(), TenantId::parse("north").unwrap());
    let refused = tenants.create(&north, Some(vec![EMAIL])).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(tenants.load(&north).await.unwrap().is_none());
    for first in [None, Some(vec![]), Some(vec![PASSWORD])] {
        tenants.create(&north, first).await.unwrap();
    }
}

#[tokio::test]
async fn sec_p11_only_what_is_set_up_and_the_first_factor_lock_nobody_out() {
    let either = Requirement::one_of([PASSWORD, EMAIL]).excluding_first_factor();
    let two = Requirement::k_of(2, [PASSWORD, EMAIL, badge()]).excluding_first_factor();
    for list in [either, two] {
        let app = TestApp::with(|b| b.custom_factor(badge()).policy(Everyone::new(list).only_set_up())).await;
        let mut alice = signed_up(&app, Mode::Header, ALICE).await;
        alice.get("/api/me").await.is(200);
        alice.pass_code(ALICE).await;
        // Whoever has something else is asked for it.
        let mut alice = app.browser(Mode::Header);
        alice.sign_in(ALICE).await.ok();
        let refused = alice.get("/api/me").await;
        refused.is(403);
        assert_eq!(refused.body["next"], json!(["otp-email"]));
        alice.pass_code(ALICE).await;
        alice.get("/api/me").await.is(200);
        let mut alice = app.browser(Mode::Header);
        alice.by_code(ALICE).await;
        let refused = alice.get("/api/me").await;
        refused.is(403);
        assert_eq!(refused.body["next"], json!(["emailpassword"]));
    }
}

#[tokio::test]
async fn a_policy_on_trial_is_narrowed_by_the_tenant_as_the_live_one() {
    let until = Timestamp::from_secs(START) + DAY;
    let policy = || Everyone::new(Requirement::one_of([PASSWORD, EMAIL])).and(TenantAsks);
    for rule in [TenantRule::require([EMAIL]).enrol_by(until), TenantRule::default().counting_only([EMAIL])] {
        let app = TestApp::with(|b| b.policy(policy()).shadow(policy())).await;
        app.mfa.tenants().set_rule(&public(), rule).await.unwrap();
        let mut alice = signed_up(&app, Mode::Header, ALICE).await;
        alice.info().await.ok();
        let counts = app.mfa.counters().shadow;
        assert!(counts.asked > 0);
        assert_eq!((counts.stopped, counts.passed, counts.failed), (0, 0, 0));
    }
}

/// Changes the tenant's rule while it is being asked, once.
struct Moving(Arc<OnceLock<Mfa>>, AtomicBool);

impl MfaPolicy for Moving {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        let list = TenantAsks.requirements(ctx).await?;
        if let Some(mfa) = self.0.get()
            && !self.1.swap(true, Ordering::SeqCst)
        {
            mfa.tenants().require(&public(), [EMAIL]).await?;
        }
        Ok(list)
    }
}

#[tokio::test]
async fn sec_p08_a_rule_that_moves_while_it_is_asked_counts_as_it_is_at_the_commit() {
    let handle = Arc::new(OnceLock::new());
    let app = TestApp::with(|b| b.policy(Moving(Arc::clone(&handle), AtomicBool::new(false)))).await;
    handle.set(app.mfa.clone()).unwrap();
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    assert_eq!(alice.claim()["v"], false);
    alice.get("/api/me").await.is(403);
}

#[tokio::test]
async fn a_date_to_enrol_by_is_moved_undone_and_reached_on_every_node() {
    let start = Timestamp::from_secs(START);
    let (until, rule) = (start + Duration::from_secs(600), |at| TenantRule::require([EMAIL]).enrol_by(at));
    let app = TestApp::new().await;
    let node = app.restarted().await;
    let tenants = app.mfa.tenants();
    tenants.set_rule(&public(), rule(Timestamp::MAX)).await.unwrap();
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    alice.get("/api/me").await.is(200);
    alice.info().await.ok();
    tenants.set_rule(&public(), rule(start)).await.unwrap();
    alice.get("/api/me").await.is(403);
    tenants.set_rule(&public(), rule(until)).await.unwrap();
    alice.get("/api/me").await.is(200);
    // Whoever took part and leaves again waits as before; until then nothing goes around it.
    alice.pass_code(ALICE).await;
    let mut other = app.browser(Mode::Header);
    other.sign_in(ALICE).await.ok();
    other.get("/api/me").await.is(403);
    let id = app.user(ALICE).await;
    let logins = app.mfa.users().load(&id).await.unwrap().unwrap().logins;
    let code = logins.iter().find(|login| login.kind == LoginKind::Passwordless).unwrap();
    app.mfa.users().remove_login(&id, &code.id).await.unwrap();
    for mut ended in [alice, other] {
        ended.get("/api/me").await.is(401);
    }
    let mut alice = app.browser(Mode::Header);
    alice.sign_in(ALICE).await.ok();
    // To the millisecond, with a token from before, on both nodes.
    app.clock.advance(Duration::from_millis(599_999));
    for at in [&app, &node] {
        alice.at(at).get("/api/me").await.is(200);
    }
    app.clock.advance(Duration::from_millis(1));
    for at in [&app, &node] {
        alice.at(at).get("/api/me").await.is(403);
    }
}
