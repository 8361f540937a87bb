//! Rows P01 to P08: what asks the policy, what of it fails, and when it is asked again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use http::Method;
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use tower_mfa::{
    ClaimValidator, FactorId, Mfa, MfaLayer, MfaPolicy, PolicyContext, RequireFactors, Requirement,
    Requirements, SessionClaim, SessionExtractor,
    claim::{ClaimContext, ClaimError, HasValue, InvalidClaim, MfaSatisfied},
    config::Secrets,
    guard::RequireClaims,
    ident::{Payload, TenantId, Timestamp},
    policy::{Compose as _, Everyone, ForRole, Link, LinkContext, LinkPolicy, PolicyError, UserOrTenant},
    store::{AnyStore, Batch, Commit, Key, MemoryStore, Op, Record, Row, Scan, Store, StoreError, Version},
};

use crate::{
    spy::{ALICE, BOB, Log, linking, shop, signed_up, token_headers},
    support::{Answer, Browser, Mode, PASSWORD, START, TestApp, credentials, send},
};

const EMAIL: FactorId = FactorId::OTP_EMAIL;
const PUBLIC: TenantId = TenantId::PUBLIC;

/// What a policy does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    Fine,
    Fails,
    Hangs,
    Panics,
    NamesNobody,
    MisreadsItsConfig,
}

/// Asks everybody for a code by e-mail, having looked at every fact there is; or does something else.
#[derive(Clone)]
pub struct Moody(pub Arc<AtomicU8>);

impl Moody {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    pub fn be(&self, mood: Mood) {
        self.0.store(mood as u8, Ordering::SeqCst);
    }

    async fn act<T>(&self, fine: T) -> Result<T, PolicyError> {
        match self.0.load(Ordering::SeqCst) {
            n if n == Mood::Fails as u8 => Err(PolicyError::unavailable("told to fail")),
            n if n == Mood::Hangs as u8 => std::future::pending().await,
            n if n == Mood::Panics as u8 => panic!("told to panic"),
            _ => Ok(fine),
        }
    }
}

impl MfaPolicy for Moody {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        ctx.user().await?;
        ctx.roles().await?;
        ctx.required_for_user().await?;
        ctx.required_for_tenant().await?;
        self.act(()).await?;
        Ok(match self.0.load(Ordering::SeqCst) {
            // Though the other one is done.
            n if n == Mood::NamesNobody as u8 => {
                Requirement::one_of([FactorId::PASSWORD, FactorId::parse("otp_email").unwrap()]).into()
            }
            n if n == Mood::MisreadsItsConfig as u8 => {
                Requirements::from_json(&json!([{"oneOf": [], "allOfInAnyOrder": []}]))?
            }
            _ => EMAIL.into(),
        })
    }
}

/// A claim in the same mood.
struct Plan(Moody);

impl SessionClaim for Plan {
    const KEY: &'static str = "plan";
    type Value = String;

    async fn fetch(&self, _: &ClaimContext<'_>) -> Result<Option<String>, ClaimError> {
        self.0.act(Some("gold".to_owned())).await
    }
}

struct Joining(Moody);

impl LinkPolicy for Joining {
    async fn decide(&self, _: &LinkContext<'_>) -> Result<Link, PolicyError> {
        self.0.act(Link::Yes).await
    }
}

/// A store of which nobody can read what lies under a prefix.
#[derive(Clone, Debug)]
struct Torn {
    inner: AnyStore,
    hidden: Arc<Mutex<Option<Key>>>,
}

impl Torn {
    fn new(inner: impl Store) -> Self {
        Self { inner: AnyStore::new(inner), hidden: Arc::default() }
    }

    fn hide(&self, prefix: Option<Key>) {
        *self.hidden.lock().unwrap() = prefix;
    }
}

impl Store for Torn {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        let hides = |prefix: &Key| keys.iter().any(|key| key.is_under(prefix) || key == prefix);
        if self.hidden.lock().unwrap().as_ref().is_some_and(hides) {
            return Err(StoreError::broken("told to fail"));
        }
        self.inner.get(keys).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        self.inner.scan(scan).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        self.inner.commit(batch).await
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.inner.sweep(before).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.inner.now().await
    }
}

/// Another writer's hand in a session's row.
pub async fn edit_session(app: &TestApp, edit: impl FnOnce(&mut Value)) {
    let (key, row) = app.store.sessions().await.into_iter().next().unwrap();
    let mut body = row.body;
    edit(&mut body);
    let mut batch = Batch::new();
    let row = Row { version: Version::random().unwrap(), expires_at: row.expires_at, body };
    batch.push(key, Op::Upsert(row));
    assert_eq!(app.store.commit(batch).await.unwrap(), Commit::Applied);
}

/// An app in all of whose ways somebody asks the policy.
struct Place {
    app: TestApp,
    policy: Moody,
    torn: Torn,
    /// Behind mounts of each kind.
    router: Router,
    served: Arc<AtomicUsize>,
}

impl Place {
    async fn new() -> Self {
        let (policy, torn) = (Moody::new(), Torn::new(MemoryStore::new()));
        let (asked, claim, link) = (policy.clone(), Plan(policy.clone()), Joining(policy.clone()));
        let app = TestApp::on(shop(), Secrets::random().unwrap(), torn.clone(), |b| {
            b.policy(asked).claim(claim).linking(link)
        })
        .await;
        let served = Arc::new(AtomicUsize::new(0));
        let count = |served: &Arc<AtomicUsize>| {
            let served = Arc::clone(served);
            get(move || async move { served.fetch_add(1, Ordering::SeqCst).to_string() })
        };
        let gold = HasValue::new(Plan(policy.clone()), "gold".to_owned()).unwrap().max_age(Duration::ZERO);
        let mounts = [
            ("/required", MfaLayer::required(app.mfa.clone())),
            ("/half", MfaLayer::required(app.mfa.clone()).without_mfa()),
            ("/optional", MfaLayer::optional(app.mfa.clone()).without_mfa()),
            ("/exact", MfaLayer::required(app.mfa.clone()).without_mfa().check_store()),
            ("/gold", MfaLayer::required(app.mfa.clone()).without_mfa().validate(gold)),
        ];
        let router = mounts.into_iter().fold(Router::new(), |router, (path, mount)| {
            router.merge(Router::new().route(path, count(&served)).layer(mount))
        });
        Self { app, policy, torn, router, served }
    }

    /// Somebody who lacks the code, and a code for them; they are to be judged anew.
    async fn half(&self, mode: Mode) -> (Browser, Value, String) {
        let mut alice = self.app.browser(mode);
        alice.by_code(ALICE).await;
        let again = linking(credentials(ALICE, PASSWORD)).unwrap();
        alice.post("/auth/signup", again).await.ok();
        let mut alice = self.app.browser(mode);
        alice.sign_in(ALICE).await.ok();
        let seen = self.app.sent_to(ALICE);
        let flow = alice.ask_code(ALICE, true).await.ok();
        let code = self.app.code_after(ALICE, seen).await;
        self.app.mfa.users().judge_anew(&self.app.user(ALICE).await).await.unwrap();
        (alice, flow, code)
    }

    /// What each way says, by name.
    async fn each_way(&self, alice: &Browser, flow: &Value, code: &str) -> Vec<(&'static str, Answer)> {
        let app = &self.app;
        let mut said = Vec::new();
        for path in ["/required", "/half", "/optional", "/exact", "/gold"] {
            said.push((path, send(&self.router, alice.request(Method::GET, path, None)).await));
        }
        said.push(("info", alice.clone().info().await));
        said.push(("ask", alice.clone().ask_code(ALICE, true).await));
        said.push(("enter", alice.clone().enter(flow, code, true).await));
        said.push(("refresh", alice.clone().refresh().await));
        said.push(("sign in", app.browser(alice.mode).sign_in(ALICE).await));
        said
    }

    /// All records, but for messages on their way.
    async fn kept(&self) -> BTreeMap<Key, Row> {
        let hidden = self.torn.hidden.lock().unwrap().take();
        let records = self.app.store.dump().await;
        self.torn.hide(hidden);
        records.into_iter().filter(|(key, _)| !key.as_str().starts_with("queue/")).collect()
    }

    /// Every way is refused in this way, and nothing is there that wasn't.
    async fn all_refuse(&self, alice: &Browser, flow: &Value, code: &str, status: u16, case: &str) {
        let (rows, served) = (self.kept().await, self.served.load(Ordering::SeqCst));
        for (way, answer) in self.each_way(alice, flow, code).await {
            assert_eq!(answer.status.as_u16(), status, "{case} {way} {}", answer.text);
            let message = if status == 503 { "temporarily unavailable" } else { "internal error" };
            assert_eq!(answer.body["message"], message, "{case} {way}");
            assert_eq!(answer.headers.contains_key("retry-after"), status == 503, "{case} {way}");
            assert!(token_headers(&answer).is_empty(), "{case} {way} {:?}", answer.headers);
        }
        assert_eq!(self.served.load(Ordering::SeqCst), served, "{case}: a handler ran");
        self.torn.hide(None);
        assert_eq!(self.kept().await, rows, "{case}");
        for row in self.app.store.sessions().await.values() {
            let claim = &row.body["payload"]["st-mfa"];
            assert!(claim["v"] == false || claim["c"]["otp-email"].is_number(), "{claim}");
        }
    }
}

#[tokio::test]
async fn sec_p01_whatever_an_evaluation_needs_fails_the_request_and_leaves_nothing() {
    let user = |id: &str| ["user", id].map(str::to_owned);
    for mode in [Mode::Cookie, Mode::Header] {
        for dependency in ["policy", "user", "role", "tenant", "required"] {
            let place = Place::new().await;
            let (alice, flow, code) = place.half(mode).await;
            let id = place.app.user(ALICE).await.to_string();
            match dependency {
                "policy" => place.policy.be(Mood::Fails),
                "user" => place.torn.hide(Some(Key::new(user(&id).iter().map(String::as_str)))),
                "role" => place.torn.hide(Some(Key::new(["t", "public", "role"]))),
                "tenant" => place.torn.hide(Some(Key::new(["tenant"]))),
                _ => place.torn.hide(Some(Key::new(["required"]))),
            }
            let (log, _guard) = Log::start();
            place.all_refuse(&alice, &flow, &code, 503, dependency).await;
            log.has("ERROR", "what a session must have can't be told");
            for line in log.lines("ERROR", "what a session must have can't be told") {
                let id = line.split("id=\"").nth(1).or_else(|| line.split("id=").nth(1)).unwrap();
                assert_eq!(id.split(['"', ' ']).next().unwrap().len(), 36, "{line}");
                assert!(!line.contains("told to fail") && !line.contains('@'), "{line}");
            }
            // Nothing was used up: the same code still counts.
            place.policy.be(Mood::Fine);
            let mut alice = alice;
            assert_eq!(alice.get("/api/me").await.status, 403);
            alice.enter(&flow, &code, true).await.ok();
            alice.get("/api/me").await.is(200);
        }
    }
}

#[tokio::test]
async fn sec_p01_a_linking_rule_that_fails_lets_nothing_join() {
    let place = Place::new().await;
    let mut alice = place.app.browser(Mode::Header);
    place.policy.be(Mood::Fine);
    alice.sign_up(ALICE).await.ok();
    let flow = alice.ask_code(ALICE, true).await.ok();
    let code = place.app.code(ALICE).await;
    for (mood, status) in [(Mood::Fails, 503), (Mood::Panics, 500)] {
        place.policy.be(mood);
        alice.enter(&flow, &code, true).await.is(status);
    }
    place.policy.be(Mood::Fine);
    let user = place.app.mfa.users().load(&place.app.user(ALICE).await).await.unwrap().unwrap();
    assert_eq!(user.logins.len(), 1);
    assert_eq!(alice.info().await.ok()["factors"]["next"], json!(["otp-email"]));
}

#[tokio::test(start_paused = true)]
async fn sec_p02_what_hangs_is_left_after_five_seconds() {
    let place = Place::new().await;
    let (alice, flow, code) = place.half(Mode::Cookie).await;
    place.policy.be(Mood::Hangs);
    let rows = place.app.store.sessions().await;
    for path in ["/required", "/half", "/optional", "/exact", "/gold"] {
        let start = tokio::time::Instant::now();
        let answer = send(&place.router, alice.request(Method::GET, path, None)).await;
        answer.is(503);
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(5) && took < Duration::from_millis(5500), "{path} {took:?}");
    }
    let start = tokio::time::Instant::now();
    place.all_refuse(&alice, &flow, &code, 503, "hangs").await;
    // Ten ways.
    assert!(start.elapsed() < Duration::from_secs(55), "{:?}", start.elapsed());
    assert_eq!(place.served.load(Ordering::SeqCst), 0);
    assert_eq!(place.app.store.sessions().await, rows);
    place.policy.be(Mood::Fine);
    let mut alice = alice;
    alice.enter(&flow, &code, true).await.ok();
    alice.get("/api/me").await.is(200);
}

#[tokio::test]
async fn sec_p03_a_panic_costs_one_request() {
    let place = Place::new().await;
    let (mut alice, flow, code) = place.half(Mode::Header).await;
    let mut bob = place.app.browser(Mode::Header);
    bob.by_code(BOB).await;
    place.policy.be(Mood::Panics);
    let (log, _guard) = Log::start();
    place.all_refuse(&alice, &flow, &code, 500, "panics").await;
    for (_, answer) in place.each_way(&alice, &flow, &code).await {
        let id = answer.body["id"].as_str().unwrap();
        assert_eq!(id.len(), 36);
        log.has("ERROR", id);
        assert!(!answer.text.contains("told to panic"), "{}", answer.text);
    }
    place.policy.be(Mood::Fine);
    // Nobody else has anything of it, and neither has she.
    for n in 0..1000 {
        match n % 2 {
            0 => send(&place.router, bob.request(Method::GET, "/required", None)).await.is(200),
            _ => send(&place.router, alice.request(Method::GET, "/required", None)).await.is(403),
        };
    }
    alice.enter(&flow, &code, true).await.ok();
    alice.get("/api/me").await.is(200);
}

/// Panics while it is told to, and lets everybody pass otherwise.
struct Nervous(Arc<AtomicBool>);

impl ClaimValidator for Nervous {
    fn id(&self) -> &str {
        "nervous"
    }

    fn validate(&self, _: &Payload, _: Timestamp) -> Result<(), InvalidClaim> {
        assert!(!self.0.load(Ordering::SeqCst), "told to panic");
        Ok(())
    }
}

#[tokio::test]
async fn sec_p03_validators_and_the_peers_reader_are_contained_too() {
    let (bad, worse) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&worse);
    let app = TestApp::with(|b| {
        b.peer(move |_, _| {
            assert!(!told.load(Ordering::SeqCst), "told to panic");
            None
        })
    })
    .await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let nervous = || Nervous(Arc::clone(&bad));
    let guard = RequireClaims::new([Arc::new(nervous()) as _]);
    let router: Router = Router::new()
        .route("/guard", get(|| async {}).route_layer(guard))
        .layer(MfaLayer::required(app.mfa.clone()))
        .merge(
            Router::new()
                .route("/mount", get(|| async {}))
                .layer(MfaLayer::required(app.mfa.clone()).validate(nervous())),
        )
        .merge(
            Router::new()
                .route("/exact", get(|| async {}))
                .layer(MfaLayer::required(app.mfa.clone()).check_store().validate(nervous())),
        );
    let ask = async |path: &str| send(&router, alice.request(Method::GET, path, None)).await;
    bad.store(true, Ordering::SeqCst);
    for path in ["/guard", "/mount", "/exact"] {
        let answer = ask(path).await;
        answer.is(500);
        assert_eq!(answer.body["message"], "internal error", "{path}");
    }
    bad.store(false, Ordering::SeqCst);
    worse.store(true, Ordering::SeqCst);
    // It is read where the store is asked, and by the routes.
    ask("/exact").await.is(500);
    ask("/mount").await.is(200);
    alice.clone().info().await.is(500);
    worse.store(false, Ordering::SeqCst);
    for _ in 0..300 {
        for path in ["/guard", "/mount", "/exact"] {
            ask(path).await.is(200);
        }
    }
}

/// A router that writes something into the session, and so mints a token from its row as it is.
fn noting(mfa: &Mfa) -> Router {
    let note = |session: SessionExtractor| async move {
        session.merge_payload(Payload::from_json(json!({ "note": 1 })).unwrap()).await.unwrap();
    };
    Router::new().route("/note", get(note)).layer(MfaLayer::required(mfa.clone()).without_mfa())
}

/// The claim is gone from row and token, as in a session from before MFA; or is something else.
async fn with_claim(app: &TestApp, alice: &mut Browser, claim: Option<Value>) {
    edit_session(app, |row| {
        let payload = row["payload"].as_object_mut().unwrap();
        match &claim {
            Some(claim) => payload.insert("st-mfa".to_owned(), claim.clone()),
            None => payload.remove("st-mfa"),
        };
        payload.remove("note");
    })
    .await;
    let noted = send(&noting(&app.mfa), alice.request(Method::GET, "/note", None)).await;
    noted.is(200);
    alice.keep(&noted);
    assert_eq!(alice.claim(), claim.unwrap_or_default());
}

#[tokio::test]
async fn sec_p04_a_session_without_the_claim_gets_it_by_the_login_that_made_it() {
    for (method, derived) in [("password", "emailpassword"), ("code", "otp-email")] {
        // Whichever way it is missed: at a mount, by the info route, at a refresh, by a completion.
        for first in ["mount", "info", "refresh", "complete"] {
            let wanted = if method == "password" { EMAIL } else { FactorId::PASSWORD };
            let policy = Everyone::new(wanted.clone());
            let app = TestApp::with(|b| b.policy(policy)).await;
            let mut alice = app.browser(Mode::Header);
            match method {
                "password" => drop(alice.sign_up(ALICE).await.ok()),
                _ => drop(alice.by_code(ALICE).await),
            }
            app.clock.advance(Duration::from_millis(100_750));
            with_claim(&app, &mut alice, None).await;
            match first {
                "mount" => drop(alice.get("/api/me").await.is(403)),
                "info" => {
                    let info = alice.info().await.ok();
                    assert_eq!(info["factors"]["next"], json!([wanted.as_str()]));
                }
                "refresh" => drop(alice.refresh().await.is(200)),
                _ if method == "password" => drop(alice.pass_code(ALICE).await),
                _ => drop(
                    alice.post("/auth/signup", linking(credentials(ALICE, PASSWORD)).unwrap()).await.ok(),
                ),
            }
            let whole = first == "complete";
            let mut c = json!({ derived: START });
            if whole {
                c[wanted.as_str()] = json!(START + 100);
            }
            let claim = json!({ "c": c, "v": whole });
            assert_eq!(alice.claim(), claim, "{method} {first}");
            let row = app.store.sessions().await.into_values().next().unwrap();
            assert_eq!(row.body["payload"]["st-mfa"], claim, "{method} {first}");
            alice.get("/api/me").await.is(if whole { 200 } else { 403 });
        }
    }
}

#[tokio::test]
async fn sec_p04_without_a_first_factor_one_signs_in_again() {
    for first in ["mount", "info", "refresh", "complete"] {
        let app = TestApp::with(|b| b.policy(Everyone::new(EMAIL))).await;
        let mut alice = signed_up(&app, Mode::Header, ALICE).await;
        let flow = alice.ask_code(ALICE, true).await.ok();
        let code = app.code(ALICE).await;
        with_claim(&app, &mut alice, None).await;
        app.mfa.tenants().set_first_factors(&PUBLIC, Some(vec![EMAIL])).await.unwrap();
        let refused = match first {
            "mount" => alice.get("/api/me").await,
            "info" => alice.info().await,
            "refresh" => alice.refresh().await,
            _ => alice.enter(&flow, &code, true).await,
        };
        refused.is(401);
        assert_eq!(refused.body["message"], "unauthorised", "{first}");
    }
}

/// JSON of any kind, often near to a claim.
fn any_claim() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        (-9.0e9..9.0e9).prop_map(|n: f64| json!(n)),
        "[a-z]{0,4}".prop_map(|text| json!(text)),
        Just(json!("true")),
        Just(json!({})),
    ];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        let name = prop_oneof![Just("c".to_owned()), Just("v".to_owned()), "[a-z-]{1,5}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..3).prop_map(|map| json!(map)),
        ]
    });
    let near = (value.clone(), prop_oneof![any::<bool>().prop_map(|v| json!(v)), value.clone()])
        .prop_map(|(c, v)| json!({ "c": c, "v": v }));
    prop_oneof![value, near]
}

#[test]
fn sec_p05_only_one_form_satisfies_whatever_json_there_is() {
    let satisfied = |claim: &Value| {
        let members = claim.as_object();
        members.is_some_and(|it| it.len() == 2)
            && claim["c"].is_object()
            && claim.get("v") == Some(&Value::Bool(true))
    };
    let seen = AtomicUsize::new(0);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 8192, failure_persistence: None, ..Default::default() });
    runner
        .run(&any_claim(), |claim| {
            let payload = Payload::from_json(json!({ "st-mfa": claim })).unwrap();
            let (all, now) = (MfaSatisfied::new(), Timestamp::EPOCH);
            let good = satisfied(&claim);
            seen.fetch_add(usize::from(good), Ordering::Relaxed);
            prop_assert_eq!(all.validate(&payload, now).is_ok(), good, "{}", claim);
            prop_assert_eq!(all.satisfied(&payload, now), good, "{}", claim);
            // What isn't a claim is fetched anew, and a claim is not.
            let typed = claim.as_object().is_some_and(|it| it.len() == 2)
                && claim["c"].is_object()
                && claim.get("v").is_some_and(Value::is_boolean);
            prop_assert_eq!(all.refetch(&payload, now).is_none(), typed, "{}", claim);
            Ok(())
        })
        .unwrap();
    assert!(seen.into_inner() > 50, "hardly any was good");
}

#[tokio::test]
async fn sec_p05_what_is_no_claim_is_found_out_anew() {
    let odd = [
        json!(true),
        json!({"v": "true", "c": {}}),
        json!({"v": 1, "c": {}}),
        json!({"v": true, "c": []}),
        json!({"v": true}),
        json!({"v": true, "c": {}, "x": 1}),
        json!(null),
    ];
    let app = TestApp::with(|b| b.policy(ForRole::new("admin", EMAIL))).await;
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    for claim in odd {
        // Where nothing is asked it becomes a claim that says so.
        with_claim(&app, &mut alice, Some(claim.clone()).filter(|claim| !claim.is_null())).await;
        alice.get("/api/me").await.is(200);
        assert_eq!(alice.claim(), json!({ "c": { "emailpassword": START }, "v": true }), "{claim}");
    }
    let user = app.user(ALICE).await;
    app.mfa.roles().grant(&user, &PUBLIC, "admin").await.unwrap();
    alice.get("/api/me").await.is(403);
    for claim in [json!(true), json!({"v": true, "c": []}), json!({"v": true, "c": {}, "x": 1})] {
        with_claim(&app, &mut alice, Some(claim)).await;
        alice.get("/api/me").await.is(403);
        assert_eq!(alice.claim(), json!({ "c": { "emailpassword": START }, "v": false }));
    }
}

/// A rule of the app's own that nothing in the store knows of.
#[derive(Clone)]
struct Flag(Arc<AtomicBool>);

impl MfaPolicy for Flag {
    async fn requirements(&self, _: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        Ok(if self.0.load(Ordering::SeqCst) { EMAIL.into() } else { Requirements::none() })
    }
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// What is asked of the one user, and what their session was last found to be.
#[derive(Debug)]
struct Model {
    role: bool,
    tenant: bool,
    opted: bool,
    flag: bool,
    done: bool,
    v: bool,
}

impl Model {
    fn judged(&mut self) -> bool {
        self.v = self.done || !(self.role || self.tenant || self.opted || self.flag);
        self.v
    }
}

#[tokio::test]
async fn sec_p06_v_is_what_the_last_judgement_had_to_say() {
    let flag = Flag(Arc::default());
    let policy = UserOrTenant::new().and(ForRole::new("admin", EMAIL)).and(flag.clone());
    let app = TestApp::with(|b| b.policy(policy)).await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let user = app.user(ALICE).await;
    let exact: Router = Router::new()
        .route("/", get(|_: SessionExtractor| async {}))
        .layer(MfaLayer::required(app.mfa.clone()).check_store());
    let mut model = Model { role: false, tenant: false, opted: false, flag: false, done: false, v: true };
    let mut dice = Dice(6);
    let (mut silent, mut stops, mut seen) = (0, 0, [0; 2]);
    for step in 0..400 {
        let mut told = true;
        // Off more often than on, so that each of them alone is what stops her.
        let on = dice.roll(4) == 0;
        match dice.roll(7) {
            0 => {
                told = std::mem::replace(&mut model.role, on) != on;
                let roles = app.mfa.roles();
                match on {
                    true => roles.grant(&user, &PUBLIC, "admin").await.unwrap(),
                    false => roles.revoke(&user, &PUBLIC, "admin").await.unwrap(),
                }
            }
            1 => {
                told = std::mem::replace(&mut model.tenant, on) != on;
                let asked = if on { vec![EMAIL] } else { Vec::new() };
                app.mfa.tenants().require(&PUBLIC, asked).await.unwrap();
            }
            2 => {
                told = std::mem::replace(&mut model.opted, on) != on;
                let factors = app.mfa.factors();
                drop(match on {
                    true => factors.opt_in(&user, EMAIL).await.unwrap(),
                    false => factors.opt_out(&user, EMAIL).await.unwrap(),
                });
            }
            3 => {
                model.flag = on;
                flag.0.store(on, Ordering::SeqCst);
                app.mfa.users().judge_anew(&user).await.unwrap();
            }
            // Nobody is told of this one.
            4 => {
                model.flag = !model.flag;
                flag.0.store(model.flag, Ordering::SeqCst);
                told = false;
            }
            5 => {
                alice.pass_code(ALICE).await;
                model.done = true;
                assert_eq!(alice.claim()["v"], model.judged(), "step {step} {model:?}");
            }
            _ => {
                alice = app.browser(Mode::Header);
                alice.sign_in(ALICE).await.ok();
                model.done = false;
                assert_eq!(alice.claim()["v"], model.judged(), "step {step} {model:?}");
            }
        }
        let (before, by) = (model.v, dice.roll(4));
        match by {
            0 => drop(alice.refresh().await.is(200)),
            1 => drop(alice.info().await.ok()),
            by => {
                // What nobody was told of is seen with the next change that is told.
                let passes = if told { model.judged() } else { model.v };
                silent += usize::from(!told);
                stops += usize::from(!passes);
                let expected = if passes { 200 } else { 403 };
                match by {
                    2 => drop(alice.get("/api/me").await.is(expected)),
                    _ => {
                        let answer = send(&exact, alice.request(Method::GET, "/", None)).await;
                        answer.is(expected);
                        alice.keep(&answer);
                    }
                }
                continue;
            }
        }
        assert_eq!(alice.claim()["v"], model.judged(), "step {step} {model:?}");
        seen[by] += usize::from(!told && model.v != before);
    }
    assert!(silent > 5 && stops > 20 && seen[0] > 1 && seen[1] > 1, "{silent} {stops} {seen:?}");
    let said = include_str!("../../src/docs/defaults.md");
    assert!(said.contains("at most an access token's life"), "the bound is said");
}

#[tokio::test]
async fn sec_p07_what_changes_the_demand_raises_a_number_in_the_same_batch() {
    let app = TestApp::new().await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let (user, mfa) = (app.user(ALICE).await, &app.mfa);
    let check = async |what: &str, from: usize, record: &str, epoch: &str| {
        let batches = app.store.written(from);
        let writes = |keys: &[Key], prefix: &str| keys.iter().any(|key| key.as_str().starts_with(prefix));
        let wrote: Vec<_> = batches.iter().filter(|keys| writes(keys, record)).collect();
        assert!(!wrote.is_empty(), "{what} wrote no {record}");
        for keys in wrote {
            assert!(writes(keys, epoch) && writes(keys, "change"), "{what}: {keys:?}");
        }
    };
    let at = || app.store.written(0).len();
    let (role, of_user) = (format!("t/public/role/{user}"), format!("epoch/user/{user}"));
    for step in ["grant", "set", "revoke"] {
        let from = at();
        match step {
            "grant" => mfa.roles().grant(&user, &PUBLIC, "admin").await.unwrap(),
            "set" => mfa.roles().set(&user, &PUBLIC, []).await.unwrap(),
            _ => {
                mfa.roles().grant(&user, &PUBLIC, "admin").await.unwrap();
                mfa.roles().revoke(&user, &PUBLIC, "admin").await.unwrap();
            }
        }
        check(step, from, &role, &of_user).await;
    }
    let from = at();
    mfa.tenants().require(&PUBLIC, [EMAIL]).await.unwrap();
    check("require", from, "tenant/public", "epoch/tenant/public").await;
    let from = at();
    mfa.factors().opt_in(&user, EMAIL).await.unwrap();
    check("opt in", from, &format!("required/{user}"), &of_user).await;
    let from = at();
    mfa.factors().opt_out(&user, EMAIL).await.unwrap();
    check("opt out", from, &format!("required/{user}"), &of_user).await;
    // What one has of factors.
    let from = at();
    alice.pass_code(ALICE).await;
    check("a factor", from, &format!("user/{user}"), &of_user).await;
    let from = at();
    let other = tower_mfa::ident::Email::parse("other@shop.example").unwrap();
    mfa.users().add_email(&user, &PUBLIC, &other).await.unwrap();
    check("an address", from, &format!("user/{user}"), &of_user).await;
    // And what the app alone knows, by one call.
    let from = at();
    mfa.users().judge_anew(&user).await.unwrap();
    check("the app's own", from, &of_user, &of_user).await;
}

/// Lets the tenant's rule change right after it answered, so many times.
#[derive(Clone)]
struct Racing {
    mfa: Arc<OnceLock<Mfa>>,
    left: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
}

impl MfaPolicy for Racing {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        let answer = UserOrTenant::new().requirements(ctx).await?;
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.left.load(Ordering::SeqCst) > 0 {
            let left = self.left.fetch_sub(1, Ordering::SeqCst);
            let mfa = self.mfa.get().unwrap();
            let asked = if left.is_multiple_of(2) { vec![] } else { vec![EMAIL] };
            mfa.tenants().require(ctx.tenant(), asked).await?;
        }
        Ok(answer)
    }
}

#[tokio::test]
async fn sec_p08_what_changes_between_evaluation_and_commit_is_seen() {
    for how in ["complete", "sign in", "refresh", "judged anew"] {
        let racing = Racing { mfa: Arc::default(), left: Arc::default(), asked: Arc::default() };
        let app = TestApp::with(|b| b.policy(racing.clone())).await;
        racing.mfa.set(app.mfa.clone()).ok().unwrap();
        let mut alice = signed_up(&app, Mode::Header, ALICE).await;
        let user = app.user(ALICE).await;
        let run = async |alice: &mut Browser| match how {
            "complete" => alice.post("/auth/signin", linking(credentials(ALICE, PASSWORD)).unwrap()).await,
            "sign in" => {
                *alice = app.browser(Mode::Header);
                alice.sign_in(ALICE).await
            }
            "refresh" => alice.refresh().await,
            _ => {
                app.mfa.users().judge_anew(&user).await.unwrap();
                alice.get("/api/me").await
            }
        };
        // Nothing was asked when the policy was; the e-mail code is when it is written down.
        racing.left.store(1, Ordering::SeqCst);
        let answer = run(&mut alice).await;
        if how == "complete" {
            // What was allowed a moment ago is not next now: nothing is written of it.
            answer.is(403);
            assert_eq!(alice.claim()["c"], json!({ "emailpassword": START }));
            alice.refresh().await.is(200);
        } else {
            answer.is(if how == "judged anew" { 403 } else { 200 });
        }
        assert_eq!(alice.claim()["v"], false, "{how}");
        app.mfa.tenants().require(&PUBLIC, []).await.unwrap();
        alice.refresh().await.is(200);
        assert_eq!(alice.claim()["v"], true);
        // It never stands still: three tries, and nothing.
        let before = (app.store.sessions().await, alice.clone());
        racing.left.store(u64::MAX, Ordering::SeqCst);
        racing.asked.store(0, Ordering::SeqCst);
        run(&mut alice).await.is(503);
        let asked = racing.asked.load(Ordering::SeqCst);
        // A completion asks twice a round: as it is, and as it would be.
        let most = if how == "complete" { 6 } else { 3 };
        assert!((2..=most).contains(&asked), "{how} {asked}");
        assert_eq!(app.store.sessions().await, before.0, "{how}");
        racing.left.store(0, Ordering::SeqCst);
        before.1.clone().refresh().await.is(200);
    }
}

#[tokio::test]
async fn sec_p10_what_nobody_knows_is_never_passed_over_at_run_time() {
    for mood in [Mood::NamesNobody, Mood::MisreadsItsConfig] {
        let place = Place::new().await;
        let (alice, flow, code) = place.half(Mode::Cookie).await;
        place.policy.be(mood);
        // The claim `plan` doesn't hang on it.
        let (rows, served) = (place.kept().await, place.served.load(Ordering::SeqCst));
        for (way, answer) in place.each_way(&alice, &flow, &code).await {
            answer.is(503);
            assert!(token_headers(&answer).is_empty(), "{mood:?} {way}");
        }
        assert_eq!(place.served.load(Ordering::SeqCst), served);
        assert_eq!(place.kept().await, rows, "{mood:?}");
    }
}

#[tokio::test]
async fn sec_p13_the_first_factors_age_counts_to_the_millisecond() {
    let app = TestApp::new().await;
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let fresh = RequireFactors::one_of([FactorId::PASSWORD]).max_age(Duration::from_secs(300));
    let router: Router = Router::new()
        .route("/", get(|| async {}).route_layer(fresh))
        .layer(MfaLayer::required(app.mfa.clone()));
    let ask = async |alice: &Browser| send(&router, alice.request(Method::GET, "/", None)).await;
    for (by, status) in [(0, 200), (299_999, 200), (1, 200), (1, 403)] {
        app.clock.advance(Duration::from_millis(by));
        ask(&alice).await.is(status);
    }
    // Proved again, it is young again; the stamp is whole seconds, and the clock is one ms behind one.
    let again = linking(credentials(ALICE, PASSWORD)).unwrap();
    alice.post("/auth/signin", again).await.ok();
    for (by, status) in [(0, 200), (299_999, 200), (1, 403)] {
        app.clock.advance(Duration::from_millis(by));
        ask(&alice).await.is(status);
    }
    // And as a policy's own demand.
    let aged = Requirement::from(FactorId::PASSWORD).max_age(Duration::from_secs(60));
    let app = TestApp::with(|b| b.policy(Everyone::new(aged))).await;
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    for (by, status) in [(0, 200), (60_000, 200), (1, 403)] {
        app.clock.advance(Duration::from_millis(by));
        alice.get("/api/me").await.is(status);
    }
}
