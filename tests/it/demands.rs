//! Rows P09 to P20: what a demand may look like, what is told of it, and in which order it is met.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use base64::Engine as _;
use http::{Method, Request};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use tower_mfa::{
    ClaimValidator, FactorId, Mfa, MfaLayer, MfaPolicy, PolicyContext, RequireFactors, Requirement,
    Requirements, SessionExtractor,
    claim::{Includes, InvalidClaim, MfaSatisfied, Roles},
    config::Secrets,
    delivery::Outbox,
    ident::{Email, Payload, TenantId, Timestamp, UserId},
    policy::{CompletedFactors, Everyone, PolicyError},
    store::{AnyStore, MemoryStore},
};

use crate::{
    requirements::own,
    spy::{ALICE, BOB, Log, linking, posted, shop, signed_up, token_headers},
    support::{Browser, Mode, PASSWORD, START, TestApp, credentials, send, wrong},
    verdicts::edit_session,
};

const EMAIL: FactorId = FactorId::OTP_EMAIL;
const PUBLIC: TenantId = TenantId::PUBLIC;
const NOW: Timestamp = Timestamp::from_secs(START);

/// Which factors a flat list asks for next, told without the crate.
fn reference(list: &Value, done: &BTreeSet<String>) -> Option<Vec<String>> {
    let ids = |group: &Value| -> Vec<String> {
        group.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    for item in list.as_array().unwrap() {
        let open = match item {
            Value::String(id) if done.contains(id) => continue,
            Value::String(id) => vec![id.clone()],
            group if group["oneOf"].is_array() => {
                let of = ids(&group["oneOf"]);
                if of.is_empty() || of.iter().any(|id| done.contains(id)) {
                    continue;
                }
                of
            }
            group => {
                let left: Vec<String> =
                    ids(&group["allOfInAnyOrder"]).into_iter().filter(|id| !done.contains(id)).collect();
                if left.is_empty() {
                    continue;
                }
                left
            }
        };
        let mut once = Vec::new();
        open.into_iter().for_each(|id| {
            if !once.contains(&id) {
                once.push(id);
            }
        });
        return Some(once);
    }
    None
}

#[test]
fn sec_p09_flat_lists_mean_what_the_reference_says() {
    let id = || prop::sample::select(vec!["totp", "otp-email", "otp-phone", "emailpassword"]);
    let item = prop_oneof![
        id().prop_map(|id| json!(id)),
        prop::collection::vec(id(), 0..4).prop_map(|of| json!({ "oneOf": of })),
        prop::collection::vec(id(), 0..4).prop_map(|of| json!({ "allOfInAnyOrder": of })),
    ];
    let done = prop::collection::btree_set(id().prop_map(str::to_owned), 0..4);
    let cases = (prop::collection::vec(item, 0..4).prop_map(Value::from), done);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 4096, failure_persistence: None, ..Default::default() });
    runner
        .run(&cases, |(list, done)| {
            let read = Requirements::from_json(&list).unwrap();
            let completed: CompletedFactors =
                done.iter().map(|id| (FactorId::parse(id).unwrap(), NOW)).collect();
            let next = read.next_set(&completed, NOW);
            let ids = next.map(|next| next.factors.iter().map(ToString::to_string).collect::<BTreeSet<_>>());
            let expected = reference(&list, &done).map(BTreeSet::from_iter);
            prop_assert_eq!(ids, expected, "{} {:?}", list, done);
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn sec_p09_what_is_empty_asks_nothing_and_what_is_odd_is_no_list() {
    for items in [json!([]), json!([{"oneOf": []}]), json!([{"allOfInAnyOrder": []}, {"oneOf": []}])] {
        let app = TestApp::with(|b| b.policy(own(items.clone()))).await;
        let mut alice = app.browser(Mode::Header);
        alice.by_code(ALICE).await;
        alice.get("/api/me").await.is(200);
        assert_eq!(alice.claim()["v"], true, "{items}");
    }
    // What an app reads from its configuration never becomes a policy.
    for items in [
        json!({}),
        json!([{}]),
        json!([{"anyOf": ["totp"]}]),
        json!([{"oneof": ["totp"]}]),
        json!([{"oneOf": ["totp"], "allOfInAnyOrder": ["totp"]}]),
        json!([{"oneOf": "totp"}]),
        json!(["totp", {"oneOf": [], "x": 1}]),
        json!([null]),
    ] {
        assert!(Requirements::from_json(&items).is_err(), "{items}");
    }
    // A group that asks nothing among some that do is a slip, more likely than not.
    let empty = || Requirement::one_of(Vec::<FactorId>::new());
    for (list, told) in [
        (Requirements::from_iter([EMAIL.into(), empty()]), 1),
        (Requirements::from_iter([empty(), Requirement::all_of([EMAIL])]), 1),
        (Requirements::from(empty()), 0),
        (Requirements::from(EMAIL), 0),
    ] {
        let (log, _guard) = Log::start();
        let builder = Mfa::builder(shop(), Secrets::random().unwrap(), MemoryStore::new());
        let built = builder.delivery(Outbox::new()).policy(Everyone::new(list)).build();
        assert!(built.is_ok());
        let lines = log.lines("WARN", "an empty group among others");
        assert!(lines.len() == told || !cfg!(feature = "tracing"), "{lines:?}");
    }
}

#[tokio::test]
async fn sec_p10_a_first_factor_or_a_rule_by_a_wrong_name_is_told_before_anybody_comes() {
    let id = |text: &str| FactorId::parse(text).unwrap();
    for name in ["otp_email", "OTP-EMAIL", "Totp", "otp-emai", "totp", "webauthn", "otp-phone", "thirdparty"]
    {
        let build = |change: fn(tower_mfa::MfaBuilder, FactorId) -> tower_mfa::MfaBuilder| {
            let builder = Mfa::builder(shop(), Secrets::random().unwrap(), MemoryStore::new());
            change(builder.delivery(Outbox::new()), id(name)).build()
        };
        let problems = [
            build(|b, id| b.policy(Everyone::new(id))),
            build(|b, id| b.policy(Everyone::new(Requirement::one_of([EMAIL, id])))),
            build(|b, id| b.first_factors([FactorId::PASSWORD, id])),
        ];
        for problem in problems {
            assert!(problem.unwrap_err().to_string().contains(name), "{name}");
        }
        let app = TestApp::new().await;
        app.mfa.tenants().require(&PUBLIC, [id(name)]).await.unwrap_err();
    }
    let known = Mfa::builder(shop(), Secrets::random().unwrap(), MemoryStore::new())
        .delivery(Outbox::new())
        .custom_factor(id("otp_email"))
        .policy(Everyone::new(id("otp_email")));
    known.build().unwrap();
}

#[tokio::test]
async fn sec_p11_it_is_logged_once_however_many_are_stuck() {
    let app = TestApp::with(|b| b.policy(own(json!([{"allOfInAnyOrder": ["otp-email", "totp"]}])))).await;
    let (log, _guard) = Log::start();
    for email in [ALICE, BOB, ALICE] {
        let mut browser = app.browser(Mode::Header);
        match browser.sign_up(email).await.body["status"].as_str() {
            Some("OK") => {}
            _ => drop(browser.sign_in(email).await.ok()),
        }
        for _ in 0..3 {
            let refused = browser.get("/api/me").await;
            refused.is(403);
            let reason = refused.body["claimValidationErrors"][0]["reason"]["message"].as_str().unwrap();
            assert!(reason.contains("can't be satisfied"), "{reason}");
            let info = browser.info().await.ok();
            assert_eq!(info["factors"]["next"], json!([]));
            browser.refresh().await.is(200);
        }
    }
    let lines = log.lines("ERROR", "nobody here can complete");
    assert!(lines.len() == 1 || !cfg!(feature = "tracing"), "{lines:?}");
}

#[test]
fn sec_p12_a_completion_is_a_whole_number_that_is_not_negative() {
    let value = prop_oneof![
        any::<i64>().prop_map(|n| json!(n)),
        (0_i64..2_000_000_000).prop_map(|n| json!(n)),
        (-1_000_i64..0).prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        (0_i64..2_000_000_000).prop_map(|n| json!(n as f64)),
        (0_i64..2_000_000_000).prop_map(|n| json!(n.to_string())),
        any::<bool>().prop_map(|b| json!(b)),
        Just(json!(null)),
        Just(json!([1])),
        Just(json!({ "t": 1 })),
    ];
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 4096, failure_persistence: None, ..Default::default() });
    let ahead = -40_i64..40;
    runner
        .run(&(value, ahead), |(value, ahead)| {
            let done = CompletedFactors::from_json(&json!({ "totp": value }));
            let whole = value.as_i64().is_some_and(|n| n >= 0);
            prop_assert_eq!(done.contains(&FactorId::TOTP), whole, "{}", value);
            // Milliseconds of another writer are the same moment.
            if let Some(at) = done.at(&FactorId::TOTP) {
                let said = value.as_i64().unwrap();
                let seconds = if said > 100_000_000_000 { said / 1000 } else { said };
                prop_assert_eq!(at, Timestamp::from_secs(seconds));
            }
            // However long an age is asked: what is yet to come by more than 30 s has none.
            let at = NOW + Duration::from_secs(100);
            let at = Timestamp::from_secs(at.as_secs() + ahead);
            let now = NOW + Duration::from_secs(100);
            let done = CompletedFactors::from_iter([(FactorId::TOTP, at)]);
            let within = done.within(&FactorId::TOTP, Duration::from_secs(35), now);
            prop_assert_eq!(within, (-35..=30).contains(&ahead), "{}", ahead);
            prop_assert!(done.contains(&FactorId::TOTP));
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn sec_p12_stamps_are_never_later_than_the_clock() {
    let app = TestApp::new().await;
    app.clock.advance(Duration::from_millis(999));
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let stamps = |alice: &Browser| -> Vec<i64> {
        alice.claim()["c"].as_object().unwrap().values().map(|stamp| stamp.as_i64().unwrap()).collect()
    };
    assert_eq!(stamps(&alice), [START]);
    app.clock.advance(Duration::from_secs(5));
    alice.pass_code(ALICE).await;
    assert_eq!(stamps(&alice), [START, START + 5]);
    // One that somehow is: a completion, but of no age.
    let fresh = RequireFactors::one_of([EMAIL]).max_age(Duration::from_secs(3600));
    let note = |session: SessionExtractor| async move {
        session.merge_payload(Payload::from_json(json!({ "note": 1 })).unwrap()).await.unwrap();
    };
    let router: Router = Router::new()
        .route("/fresh", get(|| async {}).route_layer(fresh))
        .route("/ever", get(|| async {}).route_layer(RequireFactors::one_of([EMAIL])))
        .route("/note", get(note))
        .layer(MfaLayer::required(app.mfa.clone()));
    for (ahead, status) in [(30, 200), (31, 403), (-3599, 200), (-3600, 403)] {
        edit_session(&app, |row| row["payload"]["st-mfa"]["c"]["otp-email"] = json!(START + 5 + ahead)).await;
        let noted = send(&router, alice.request(Method::GET, "/note", None)).await;
        alice.keep(&noted);
        let ask = async |path| send(&router, alice.request(Method::GET, path, None)).await;
        ask("/ever").await.is(200);
        // The clock stands at 5.999 s.
        ask("/fresh").await.is(status);
    }
}

/// Says no, and that it was asked.
struct No(&'static str, Arc<AtomicUsize>);

impl ClaimValidator for No {
    fn id(&self) -> &str {
        self.0
    }

    fn validate(&self, _: &Payload, _: Timestamp) -> Result<(), InvalidClaim> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Err(InvalidClaim::new(self.0, None))
    }
}

#[tokio::test]
async fn sec_p14_what_a_mount_does_without_is_named_and_seen() {
    let app = TestApp::with(|b| b.validator(No("paid", Arc::default()))).await;
    let (mfa, before) = (app.mfa.clone(), app.mfa.mounts());
    // The test's own two, and what of them is less.
    assert_eq!(
        before.iter().map(|mount| mount.dropped.clone()).collect::<Vec<_>>(),
        [vec!["st-mfa".to_owned()], vec![]]
    );
    let (log, _guard) = Log::start();
    let apply = |layer: MfaLayer| drop(Router::<()>::new().route("/", get(|| async {})).layer(layer));
    for _ in 0..3 {
        apply(MfaLayer::required(mfa.clone()));
        apply(MfaLayer::optional(mfa.clone()).without_mfa().check_store());
        apply(MfaLayer::required(mfa.clone()).without::<Roles>().without_mfa());
    }
    assert!(log.lines("WARN", "drops global").is_empty());
    // A closure that gives back fewer, or others in their place.
    let swap = || -> Arc<dyn ClaimValidator> { Arc::new(MfaSatisfied::new()) };
    let layer = MfaLayer::required(mfa.clone()).validators(|all| all.into_iter().skip(1).collect());
    apply(layer.clone());
    let swapped = MfaLayer::required(mfa.clone()).validators(|_| vec![swap(), swap()]);
    apply(swapped);
    let same = MfaLayer::required(mfa.clone()).validators(|all| all.into_iter().chain([swap()]).collect());
    apply(same);
    let warned = log.lines("WARN", "drops global");
    assert!(warned.len() == 2 || !cfg!(feature = "tracing"), "{warned:?}");
    // Requests tell nothing again.
    let router: Router = Router::new().route("/", get(|| async {})).layer(layer);
    let request = || Request::builder().uri("/").body(axum::body::Body::empty()).unwrap();
    send(&router, request()).await.is(401);
    send(&router, request()).await.is(401);
    assert_eq!(log.lines("WARN", "drops global").len(), warned.len());
    let lines: Vec<String> = mfa
        .mounts()
        .iter()
        .filter(|mount| !before.contains(mount))
        .map(|mount| {
            assert!(mount.at.file().ends_with("demands.rs"), "{mount}");
            mount.to_string().split_once(": ").unwrap().1.to_owned()
        })
        .collect();
    assert_eq!(
        lines,
        [
            "session required, asks paid, st-mfa",
            "session optional, reads the store, asks paid, without st-mfa",
            "session required, asks paid, without st-mfa",
            "session required, asks st-mfa, without paid",
            "session required, asks st-mfa, st-mfa, without paid, st-mfa",
            "session required, asks paid, st-mfa, st-mfa",
        ]
    );
}

#[tokio::test]
async fn sec_p15_every_validator_is_asked_and_each_is_told_by_its_id() {
    let asked: Arc<AtomicUsize> = Arc::default();
    let count = Arc::clone(&asked);
    let app = TestApp::with(|b| {
        b.policy(Everyone::new(EMAIL))
            .validator(No("first", Arc::clone(&count)))
            .validator(No("second", Arc::clone(&count)))
    })
    .await;
    let alice = signed_up(&app, Mode::Header, ALICE).await;
    let layer = MfaLayer::required(app.mfa.clone())
        .validate(No("third", Arc::clone(&asked)))
        .validate(Includes::new(Roles, "editor"));
    let router: Router = Router::new().route("/", get(|| async {})).layer(layer);
    for _ in 0..2 {
        let refused = send(&router, alice.request(Method::GET, "/", None)).await;
        refused.is(403);
        let errors = refused.body["claimValidationErrors"].as_array().unwrap();
        let ids: Vec<&str> = errors.iter().map(|error| error["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["first", "second", "st-mfa", "third", "st-role"]);
        // Of the user nothing is said.
        for canary in ["alice", app.user(ALICE).await.as_str(), "shop.example"] {
            assert!(!refused.text.contains(canary), "{}", refused.text);
        }
        assert!(asked.swap(0, Ordering::SeqCst) >= 3);
    }
}

#[tokio::test]
async fn sec_p16_nothing_an_app_or_a_client_writes_reaches_the_list() {
    let app = TestApp::new().await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let (user, mfa) = (app.user(ALICE).await, app.mfa.clone());
    mfa.factors().opt_in(&user, EMAIL).await.unwrap();
    let writes_it =
        |keys: &[tower_mfa::store::Key]| keys.iter().any(|key| key.as_str().starts_with("required/"));
    assert_eq!(app.store.written(0).iter().filter(|keys| writes_it(keys)).count(), 1);
    let planted = json!({
        "required": [], "requiredSecondaryFactors": [], "factors": [],
        "_supertokens": { "requiredSecondaryFactors": ["totp"] },
    });
    let plant = {
        let planted = planted.clone();
        move |session: SessionExtractor| async move {
            session.merge_payload(Payload::from_json(planted).unwrap()).await.unwrap();
            for name in ["st-required", "st-mfa", "st-mfa-next"] {
                let update = Payload::from_json(json!({ name: { "v": true, "c": {} } })).unwrap();
                session.merge_payload(update).await.unwrap_err();
            }
        }
    };
    let router: Router =
        Router::new().route("/plant", get(plant)).layer(MfaLayer::required(mfa.clone()).without_mfa());
    let noted = send(&router, alice.request(Method::GET, "/plant", None)).await;
    noted.is(200);
    alice.keep(&noted);
    let handle = mfa.sessions().list(&user).await.unwrap()[0].handle.clone();
    mfa.sessions().merge_payload(&handle, Payload::from_json(planted.clone()).unwrap()).await.unwrap();
    // A body that says it is as good as one that doesn't.
    let mut body = planted;
    body["factors"] = json!(["emailpassword"]);
    alice.put("/auth/mfa/info", body).await.ok();
    assert_eq!(app.store.written(0).iter().filter(|keys| writes_it(keys)).count(), 1);
    assert_eq!(mfa.factors().required_for(&user).await.unwrap(), [EMAIL]);
    alice.get("/api/me").await.is(403);
}

async fn on_every_store(test: impl AsyncFn(AnyStore)) {
    test(AnyStore::new(MemoryStore::new())).await;
    #[cfg(feature = "sqlite")]
    {
        let dir = tempfile::tempdir().unwrap();
        let store = tower_mfa::store::SqliteStore::open(dir.path().join("db")).await.unwrap();
        test(AnyStore::new(store)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_p17_two_who_add_at_once_both_have_added() {
    on_every_store(async |store| {
        let one = TestApp::on(shop(), Secrets::random().unwrap(), store, |b| b).await;
        let two = one.restarted().await;
        for round in 0..20 {
            let user = UserId::parse(&format!("user-{round}")).unwrap();
            let factors = [EMAIL, FactorId::TOTP, FactorId::WEBAUTHN, FactorId::OTP_PHONE];
            let adding = factors.clone().into_iter().zip([&one, &two, &one, &two]).map(|(factor, node)| {
                let (mfa, user) = (node.mfa.clone(), user.clone());
                tokio::spawn(async move { mfa.factors().opt_in(&user, factor).await.unwrap() })
            });
            for added in adding.collect::<Vec<_>>() {
                added.await.unwrap();
            }
            let listed: BTreeSet<FactorId> =
                one.mfa.factors().required_for(&user).await.unwrap().into_iter().collect();
            assert_eq!(listed, factors.clone().into(), "round {round}");
            // Adding what is there, while another one is taken away.
            let (a, b) = tokio::join!(async { one.mfa.factors().opt_out(&user, EMAIL).await }, async {
                two.mfa.factors().opt_in(&user, FactorId::TOTP).await
            },);
            a.unwrap();
            b.unwrap();
            let left = two.mfa.factors().required_for(&user).await.unwrap();
            assert_eq!((left.len(), left.contains(&EMAIL)), (3, false), "round {round}");
        }
    })
    .await;
}

/// Everything that tokens say, decoded: header and cookie parts, and what the browser is shown.
fn told_by_tokens(browser: &Browser) -> String {
    let token = browser.access_token().unwrap();
    let decode = |part: &str| {
        let raw = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
        String::from_utf8_lossy(&raw).into_owned()
    };
    let parts: Vec<String> = token.split('.').map(decode).collect();
    format!("{} {} {:?}", parts.join(" "), browser.front.clone().unwrap_or_default(), browser.jar)
}

#[tokio::test]
async fn sec_p18_tokens_hold_no_contact_and_info_only_what_is_needed_now() {
    const OTHER: &str = "anna@stash.example";
    for mode in [Mode::Cookie, Mode::Header] {
        let on: Arc<AtomicBool> = Arc::default();
        let policy = Switched(Arc::clone(&on), Requirement::from(EMAIL));
        let app = TestApp::with(|b| b.policy(policy)).await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        let hides = |browser: &Browser| {
            for canary in ["alice@", "anna@", "shop.example", "stash.example"] {
                assert!(!told_by_tokens(browser).contains(canary), "{}", told_by_tokens(browser));
            }
        };
        hides(&alice);
        on.store(true, Ordering::SeqCst);
        alice.refresh().await.is(200);
        // Nothing of the set is set up: what she could use is suggested, in full where she typed it.
        let info = alice.info().await.ok();
        assert_eq!(info["emails"], json!({ "emailpassword": [], "otp-email": [ALICE] }));
        alice.pass_code(OTHER).await;
        hides(&alice);
        let info = alice.info().await.ok();
        assert_eq!(info["emails"], json!({ "emailpassword": [ALICE], "otp-email": [OTHER] }));
        // Later: where codes go is bound, and she didn't type it now.
        let mut alice = app.browser(mode);
        alice.sign_in(ALICE).await.ok();
        hides(&alice);
        let info = alice.info().await.ok();
        assert_eq!(info["emails"], json!({ "emailpassword": [], "otp-email": ["a***@s***.example"] }));
        assert!(!info.to_string().contains("anna"));
        let refused = alice.get("/api/me").await;
        refused.is(403);
        assert!(!refused.text.contains('@'), "{}", refused.text);
        // What was shown stands for what is bound, though her other address looks the same.
        alice.pass_by(&app, "a***@s***.example", OTHER).await;
        hides(&alice);
        alice.get("/api/me").await.is(200);
        assert_eq!(app.sent_to(ALICE), 0);
    }
}

#[tokio::test]
async fn sec_p18_an_app_may_show_nothing_in_full() {
    let app = TestApp::with(|b| b.policy(Everyone::new(EMAIL)).mask_contacts()).await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let masked = "a***@s***.example";
    let info = alice.info().await.ok();
    assert_eq!(info["emails"]["otp-email"], json!([masked]));
    alice.pass_by(&app, masked, ALICE).await;
    let info = alice.info().await.ok();
    assert_eq!(info["emails"], json!({ "emailpassword": [masked], "otp-email": [masked] }));
    // Nobody else's mask is a name.
    let mut bob = app.browser(Mode::Header);
    bob.sign_up(BOB).await.ok();
    bob.ask_code(masked, true).await.status("GENERAL_ERROR");
    app.browser(Mode::Header).ask_code(masked, false).await.status("GENERAL_ERROR");
}

impl Browser {
    /// Passes the code that is asked for by one text and arrives at an address.
    async fn pass_by(&mut self, app: &TestApp, text: &str, email: &str) {
        let seen = app.sent_to(email);
        let flow = self.ask_code(text, true).await.ok();
        let code = app.code_after(email, seen).await;
        self.enter(&flow, &code, true).await.ok();
    }
}

#[tokio::test]
async fn sec_p19_a_method_outside_of_the_list_is_refused_before_it_is_looked_at() {
    let north = TenantId::parse("north").unwrap();
    for mode in [Mode::Cookie, Mode::Header] {
        // The app allows both; in one tenant only codes begin a session, in another only passwords.
        let app = TestApp::new().await;
        let mut alice = app.browser(mode);
        alice.tenant = Some("north".to_owned());
        app.mfa.tenants().create(&north, None).await.unwrap();
        alice.sign_up(ALICE).await.ok();
        let user = app.mfa.users().by_email(&north, &Email::parse(ALICE).unwrap()).await.unwrap().remove(0);
        let mut by_code = alice.clone();
        let flow = by_code.ask_code(ALICE, false).await.ok();
        let code = app.code(ALICE).await;
        let counted = || {
            let counters = app.mfa.counters();
            (counters.password_hashes, counters.code_comparisons, app.sent_to(ALICE), app.sent_to(BOB))
        };
        let nobody = app.browser(mode);
        for (allowed, refused) in [
            (EMAIL, vec!["/signin", "/signup"]),
            (FactorId::PASSWORD, vec!["/signinup/code", "/signinup/code/resend", "/signinup/code/consume"]),
        ] {
            app.mfa.tenants().set_first_factors(&north, Some(vec![allowed])).await.unwrap();
            let rows = app.store.sessions().await;
            for route in refused {
                for (who, status) in [(&nobody, 401), (&alice, 400)] {
                    for right in [true, false] {
                        let password = if right { PASSWORD } else { "wrong pass 1" };
                        let body = match route {
                            "/signin" => credentials(ALICE, password),
                            "/signup" => credentials(BOB, PASSWORD),
                            "/signinup/code" => json!({ "email": if right { ALICE } else { BOB } }),
                            _ => json!({
                                "deviceId": flow["deviceId"],
                                "preAuthSessionId": flow["preAuthSessionId"],
                                "userInputCode": if right { code.clone() } else { wrong(&code) },
                            }),
                        };
                        let before = counted();
                        let path = format!("/auth/north{route}");
                        let answer = app.send(posted(who, &path, Some(body))).await;
                        assert_eq!(answer.status.as_u16(), status, "{route} {right} {}", answer.text);
                        if status == 401 {
                            assert_eq!(answer.body["message"], "unauthorised");
                        }
                        assert!(token_headers(&answer).is_empty(), "{route} {:?}", answer.headers);
                        assert_eq!(counted(), before, "{route}: nothing was checked or sent");
                    }
                }
            }
            assert_eq!(app.store.sessions().await, rows);
        }
        assert_eq!(user.logins.len(), 1);
    }
}

/// Asks this while it is on, and nothing otherwise.
struct Switched(Arc<AtomicBool>, Requirement);

impl MfaPolicy for Switched {
    async fn requirements(&self, _: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        Ok(if self.0.load(Ordering::SeqCst) { self.1.clone().into() } else { Requirements::none() })
    }
}

#[tokio::test]
async fn sec_p20_a_half_session_goes_in_order_and_a_full_one_as_it_likes() {
    let on: Arc<AtomicBool> = Arc::default();
    // First the password, then a code that is young; who signs in by a code has an old one then.
    let young = Requirement::from(EMAIL).max_age(Duration::from_secs(60));
    let order = Requirement::in_order([Requirement::from(FactorId::PASSWORD), young]);
    let app = TestApp::with(|b| b.policy(Switched(Arc::clone(&on), order))).await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    alice.pass_code(ALICE).await;
    // In whatever order a full one completes them, it is written down.
    let again = |alice: &Browser| posted(alice, "/auth/signin", linking(credentials(ALICE, PASSWORD)));
    app.clock.advance(Duration::from_secs(10));
    alice.pass_code(ALICE).await;
    app.clock.advance(Duration::from_secs(10));
    let answer = app.send(again(&alice)).await;
    alice.keep(&answer);
    assert_eq!(alice.claim()["c"], json!({ "emailpassword": START + 20, "otp-email": START + 10 }));
    on.store(true, Ordering::SeqCst);
    for round in 0..4 {
        let mut alice = app.browser(Mode::Header);
        on.store(false, Ordering::SeqCst);
        alice.by_code(ALICE).await;
        // While nothing was asked a code was begun.
        let seen = app.sent_to(ALICE);
        let begun = alice.ask_code(ALICE, true).await.ok();
        app.code_after(ALICE, seen).await;
        on.store(true, Ordering::SeqCst);
        app.clock.advance(Duration::from_secs(61));
        assert_eq!(alice.info().await.ok()["factors"]["next"], json!(["emailpassword"]), "{round}");
        // Not the code's turn: it is neither sent nor taken, and no time is written.
        let before = alice.claim()["c"].clone();
        for (path, body) in [
            ("/auth/signinup/code/resend", json!({})),
            ("/auth/signinup/code/consume", json!({ "userInputCode": wrong("123456") })),
        ] {
            let mut body = linking(body).unwrap();
            body["deviceId"] = begun["deviceId"].clone();
            body["preAuthSessionId"] = begun["preAuthSessionId"].clone();
            let (sent, compared) = (app.sent_to(ALICE), app.mfa.counters().code_comparisons);
            app.send(posted(&alice, path, Some(body))).await.is(403);
            assert_eq!((app.sent_to(ALICE), app.mfa.counters().code_comparisons), (sent, compared));
        }
        for _ in 0..round {
            let sent = app.sent_to(ALICE);
            let refused = alice.ask_code(ALICE, true).await;
            refused.is(403);
            assert_eq!(app.sent_to(ALICE), sent);
            let reason = &refused.body["claimValidationErrors"][0]["reason"];
            assert!(reason.to_string().contains("not in the next set"), "{reason}");
        }
        alice.info().await.ok();
        assert_eq!(alice.claim()["c"], before);
        let answer = app.send(again(&alice)).await;
        answer.is(200);
        alice.keep(&answer);
        assert_eq!(alice.claim()["v"], false);
        assert_eq!(alice.info().await.ok()["factors"]["next"], json!(["otp-email"]));
        // And now it isn't the password's.
        app.send(again(&alice)).await.is(403);
        alice.pass_code(ALICE).await;
        assert_eq!(alice.claim()["v"], true);
        // A full one proves the first of them again.
        let answer = app.send(again(&alice)).await;
        answer.is(200);
    }
}
