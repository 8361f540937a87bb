//! Rows S04 to S06, S08 and S17: many at once, on every store there is.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{Router, extract::Path, routing::post};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tower_mfa::{
    FactorId, MfaBuilder, MfaLayer, SessionExtractor,
    config::Secrets,
    ident::{Email, Payload, TenantId, UserId},
    policy::Everyone,
    store::{AnyStore, Key, MemoryStore, Op},
};

use crate::{
    spy::{ALICE, Spy, posted, refresh_token, shop, signed_up},
    support::{Answer, Browser, Mode, PASSWORD, TestApp, credentials, send},
};

const CONSUME: &str = "/auth/signinup/code/consume";

/// An app on each kind of store; the second value keeps a file alive.
async fn on_every_store(
    change: fn(MfaBuilder) -> MfaBuilder,
) -> Vec<(TestApp, Spy, Option<tempfile::TempDir>)> {
    let mut stores = vec![(AnyStore::new(MemoryStore::new()), None)];
    #[cfg(feature = "sqlite")]
    {
        let dir = tempfile::tempdir().unwrap();
        let store = tower_mfa::store::SqliteStore::open(dir.path().join("db")).await.unwrap();
        stores.push((AnyStore::new(store), Some(dir)));
    }
    let mut apps = Vec::new();
    for (store, dir) in stores {
        let spy = Spy::new(store);
        let app = TestApp::on(shop(), Secrets::random().unwrap(), spy.clone(), change).await;
        apps.push((app, spy, dir));
    }
    apps
}

/// Runs all of them at once, from one moment on.
async fn at_once<T: Send + 'static>(tasks: Vec<impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    let start = Arc::new(Barrier::new(tasks.len()));
    let tasks: Vec<_> = tasks
        .into_iter()
        .map(|task| {
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                task.await
            })
        })
        .collect();
    let mut done = Vec::with_capacity(tasks.len());
    for task in tasks {
        done.push(task.await.unwrap());
    }
    done
}

fn email(n: usize) -> String {
    format!("alice-{n}@shop.example")
}

/// A user with so many addresses to get codes at: codes take no hash, and those of one address don't void
/// those of another.
async fn with_addresses(app: &TestApp, addresses: usize) -> UserId {
    let public = TenantId::PUBLIC;
    let parse = |n| Email::parse(&email(n)).unwrap();
    let user = app.mfa.users().create(&public, &parse(0)).await.unwrap().id;
    for n in 1..addresses {
        app.mfa.users().add_email(&user, &public, &parse(n)).await.unwrap();
    }
    user
}

/// What a browser sends to sign in by a code to one of the addresses.
async fn code_for(app: &TestApp, n: usize, browser: &mut Browser, linking: bool) -> Value {
    let seen = app.sent_to(&email(n));
    let flow = browser.ask_code(&email(n), linking).await.ok();
    json!({
        "deviceId": flow["deviceId"],
        "preAuthSessionId": flow["preAuthSessionId"],
        "userInputCode": app.code_after(&email(n), seen).await,
        "shouldTryLinkingWithSessionUser": linking,
    })
}

/// Sign-ins that only wait to be sent.
async fn sign_ins(app: &TestApp, from: usize, to: usize) -> Vec<(Browser, Value)> {
    let mut all = Vec::new();
    for n in from..to {
        let mut browser = app.browser(Mode::Header);
        let body = code_for(app, n, &mut browser, false).await;
        all.push((browser, body));
    }
    all
}

/// Sends one of them.
async fn sign_in((mut browser, body): (Browser, Value)) -> Browser {
    browser.post(CONSUME, body).await.ok();
    browser
}

fn linking(mut body: Value) -> Value {
    body["shouldTryLinkingWithSessionUser"] = json!(true);
    body
}

#[tokio::test]
async fn sec_s04_a_taken_name_is_drawn_anew_three_times() {
    for (app, spy, _dir) in on_every_store(|b| b).await {
        // A session's handle, and a user's id.
        for (at, prefix) in [["t", "public", "session"].as_slice(), &["user"]].into_iter().enumerate() {
            for taken in 0..=5 {
                let email = format!("user-{at}-{taken}@shop.example");
                let commits = spy.log().await.len();
                spy.take_names(Key::new(prefix), taken);
                let mut browser = app.browser(Mode::Cookie);
                let answer = browser.sign_up(&email).await;
                let names = spy.taken();
                spy.take_names(Key::new(prefix), 0);
                if taken <= 3 {
                    answer.is(200);
                    assert_eq!(names.len(), taken);
                    browser.get("/api/me").await.is(200);
                    browser.refresh().await.is(200);
                } else {
                    answer.is(500);
                    assert_eq!(answer.body["message"], "internal error");
                    assert!(answer.cookies().is_empty());
                    assert_eq!(names.len(), 4, "the first and three more");
                    assert_eq!(spy.log().await.len(), commits, "nothing was written");
                }
                // Whoever has the name keeps it.
                let log = spy.log().await;
                let written: BTreeSet<&str> = log.iter().flatten().map(|(key, _)| key.as_str()).collect();
                assert!(names.iter().all(|name| !written.contains(name.as_str())), "{names:?}");
            }
        }
        // Everything that is made under a name of its own is inserted, never written over.
        for (key, op) in spy.log().await.iter().flatten() {
            let fresh = matches!(op, Op::Insert(_));
            let own = key.starts_with("op/") || key.starts_with("audit/") || key.starts_with("login-of/");
            assert!(fresh || !own, "{key} {op:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sec_s05_all_factors_survive_and_share_one_successor() {
    for (app, _spy, _dir) in on_every_store(|b| b).await {
        let mut alice = app.browser(Mode::Header);
        with_addresses(&app, 8).await;
        alice = sign_in((alice.clone(), code_for(&app, 0, &mut alice, false).await)).await;
        alice.post("/auth/signup", linking(credentials(ALICE, PASSWORD))).await.ok();
        for racers in 2..=8 {
            app.clock.advance(Duration::from_secs(60));
            let before = alice.claim();
            let mut proofs = vec![("/auth/signin", linking(credentials(ALICE, PASSWORD)))];
            for n in 1..racers {
                proofs.push((CONSUME, code_for(&app, n, &mut alice, true).await));
            }
            let tasks = proofs.into_iter().map(|(path, body)| {
                let mut tab = alice.clone();
                async move {
                    // Whoever keeps losing is told to come back in a second, and does (here: at once).
                    let mut answer = tab.post(path, body.clone()).await;
                    for _ in 0..3 {
                        if answer.status == 503 {
                            answer = tab.post(path, body.clone()).await;
                        }
                    }
                    (answer, tab)
                }
            });
            let done: Vec<(Answer, Browser)> = at_once(tasks.collect()).await;
            for (answer, _) in &done {
                assert_eq!(
                    (answer.status.as_u16(), &answer.body["status"]),
                    (200, &json!("OK")),
                    "{}",
                    answer.text
                );
            }
            let tokens: BTreeSet<String> = done.iter().map(|(_, tab)| refresh_token(tab)).collect();
            assert_eq!(tokens.len(), 1, "{racers} racers");
            assert_ne!(tokens.first().unwrap(), &refresh_token(&alice));
            // Whichever answer the browser kept last: the row has both factors, each at its new time.
            alice = done.into_iter().nth(racers / 2).unwrap().1;
            alice.refresh().await.is(200);
            for factor in ["emailpassword", "otp-email"] {
                let times = [&before, &alice.claim()].map(|claim| claim["c"][factor].as_i64().unwrap());
                assert!(times[1] > times[0], "{factor} {times:?}");
            }
            alice.get("/api/me").await.is(200);
        }
    }
}

async fn put(
    Path((name, value)): Path<(String, i64)>,
    session: SessionExtractor,
) -> Result<(), (StatusCode, String)> {
    let update = Payload::from_json(json!({ name: value })).unwrap();
    session
        .merge_payload(update)
        .await
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn sec_s06_patches_of_disjoint_members_all_survive() {
    for (app, _spy, _dir) in on_every_store(|b| b).await {
        let mut alice = signed_up(&app, Mode::Header, ALICE).await;
        let router: Router =
            Router::new().route("/put/{name}/{value}", post(put)).layer(MfaLayer::required(app.mfa.clone()));
        for round in 0..10 {
            // Two, then more, from one and the same access token.
            let racers = if round < 8 { 2 } else { 4 };
            let tasks = (0..racers).map(|n| {
                let request = posted(&alice, &format!("/put/m{n}/{}", 100 * round + n), None);
                let router = router.clone();
                async move { send(&router, request).await }
            });
            let answers = at_once(tasks.collect()).await;
            for answer in &answers {
                answer.is(200);
            }
            alice.refresh().await.is(200);
            let up = &alice.front.as_ref().unwrap()["up"];
            for n in 0..racers {
                assert_eq!(up[format!("m{n}")], 100 * round + n, "{up}");
            }
        }
    }
}

#[tokio::test]
async fn sec_s06_an_old_token_writes_nothing_back() {
    for (app, _spy, _dir) in on_every_store(|b| b.policy(Everyone::new(FactorId::OTP_EMAIL))).await {
        let mut alice = signed_up(&app, Mode::Header, ALICE).await;
        alice.pass_code(ALICE).await;
        let router: Router =
            Router::new().route("/put/{name}/{value}", post(put)).layer(MfaLayer::required(app.mfa.clone()));
        let old = alice.clone();
        app.clock.advance(Duration::from_secs(60));
        alice.keep(&send(&router, posted(&alice, "/put/a/1", None)).await);
        alice.keep(&send(&router, posted(&alice, "/put/b/2", None)).await);
        // The old token knows neither, and says that `c` is what is new.
        let mut late = old.clone();
        late.keep(&send(&router, posted(&old, "/put/c/3", None)).await);
        let members = |browser: &Browser| {
            let up = browser.front.as_ref().unwrap()["up"].clone();
            ["a", "b", "c"].map(|name| up[name].as_i64())
        };
        assert_eq!(members(&late), [Some(1), Some(2), Some(3)]);
        // However often it is written anew, it ends when it would have: only a refresh gives a later end.
        let end = |browser: &Browser| browser.front.as_ref().unwrap()["ate"].as_i64().unwrap();
        assert_eq!((end(&alice), end(&late)), (end(&old), end(&old)));
        alice.refresh().await.is(200);
        assert_eq!(members(&alice), [Some(1), Some(2), Some(3)]);
        // What the old token says of the factors is no input either.
        app.clock.advance(Duration::from_secs(60));
        let proven = alice.clone();
        alice.pass_code(ALICE).await;
        let newest = alice.claim();
        let answer = send(&router, posted(&proven, "/put/d/4", None)).await;
        answer.is(500);
        alice.refresh().await.is(200);
        assert_eq!(alice.claim(), newest);
        assert!(alice.front.as_ref().unwrap()["up"]["d"].is_null());
    }
}

enum Did {
    Revoked,
    SignedIn(Browser),
    Refreshed(Browser),
}

#[tokio::test(flavor = "multi_thread")]
async fn sec_s08_whoever_survives_was_made_after_the_revocation() {
    for (app, spy, _dir) in on_every_store(|b| b).await {
        let user = with_addresses(&app, 32).await;
        let epoch = format!("epoch/user/{}", user.as_str());
        let (mut dead, mut alive) = (0, 0);
        for round in 0..6 {
            // Some are there already, and refresh while it happens.
            let mut tasks: Vec<std::pin::Pin<Box<dyn Future<Output = Did> + Send>>> = Vec::new();
            for there in sign_ins(&app, 0, 4).await {
                let mut browser = sign_in(there).await;
                tasks.push(Box::pin(async move {
                    browser.refresh().await;
                    Did::Refreshed(browser)
                }));
            }
            for waiting in sign_ins(&app, 0, 32).await {
                tasks.push(Box::pin(async move { Did::SignedIn(sign_in(waiting).await) }));
            }
            // In the midst of it: once so many batches were taken.
            let from = spy.log().await.len();
            let (mfa, id, seen) = (app.mfa.clone(), user.clone(), spy.clone());
            tasks.push(Box::pin(async move {
                while seen.taken_batches() < from + 10 * round {
                    tokio::task::yield_now().await;
                }
                mfa.sessions().revoke_user(&id).await.unwrap();
                Did::Revoked
            }));
            let done = at_once(tasks).await;
            let log = spy.log().await;
            let writes = |batch: &[(String, Op)], key: &str| {
                batch.iter().any(|(name, op)| name == key && matches!(op, Op::Insert(_) | Op::Replace(..)))
            };
            let revoked: Vec<usize> = (from..log.len()).filter(|at| writes(&log[*at], &epoch)).collect();
            assert_eq!(revoked.len(), 1, "one revocation");
            for did in done {
                let (mut browser, made_before) = match did {
                    Did::Revoked => continue,
                    Did::Refreshed(browser) => (browser, true),
                    Did::SignedIn(browser) => {
                        let handle = browser.front.as_ref().unwrap()["up"]["sessionHandle"].clone();
                        let key = format!("t/public/session/{}", handle.as_str().unwrap());
                        let made = (from..log.len()).find(|at| writes(&log[*at], &key)).unwrap();
                        (browser, made < revoked[0])
                    }
                };
                let status = if made_before { 401 } else { 200 };
                browser.get("/api/me").await.is(status);
                browser.refresh().await.is(status);
                *(if made_before { &mut dead } else { &mut alive }) += 1;
            }
            // What is listed is what lives.
            let listed = app.mfa.sessions().list(&user).await.unwrap().len();
            app.mfa.sessions().revoke_user(&user).await.unwrap();
            assert!(listed <= 32);
        }
        assert!(dead > 24 && alive > 0, "{dead} {alive}");
        assert_eq!(dead + alive, 6 * 36);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sec_s17_never_more_sessions_than_the_maximum() {
    let policy = |b: MfaBuilder| b.max_sessions(5).policy(Everyone::new(FactorId::PASSWORD));
    for (app, spy, _dir) in on_every_store(policy).await {
        let user = with_addresses(&app, 24).await;
        let listed = || async {
            let all = app.mfa.sessions().list(&user).await.unwrap();
            let half = all.iter().filter(|session| session.half).count();
            (half, all.len() - half)
        };
        let mut first = sign_in(sign_ins(&app, 0, 1).await.remove(0)).await;
        first.post("/auth/signup", linking(credentials(ALICE, PASSWORD))).await.ok();
        assert_eq!(listed().await, (0, 1));
        // Whoever has one factor can begin as many as they like: the owner stays.
        let waiting = sign_ins(&app, 0, 24).await;
        let halves = at_once(waiting.into_iter().map(sign_in).collect()).await;
        assert_eq!(listed().await, (10, 1));
        first.get("/api/me").await.is(200);
        first.refresh().await.is(200);
        let mut live = Vec::new();
        for mut half in halves {
            if half.refresh().await.status == 200 {
                live.push(half);
            }
        }
        assert_eq!(live.len(), 10, "the others are over");
        assert_eq!(spy.records(&["t", "public", "session"]).await.len(), 11);
        // As they are completed, the oldest full ones end for them; never are there more.
        for half in &mut live {
            half.post("/auth/signin", linking(credentials(ALICE, PASSWORD))).await.ok();
            assert!(listed().await.1 <= 5);
        }
        assert_eq!(listed().await, (0, 5));
        first.refresh().await.is(401);
        let mut serves = 0;
        for browser in &mut live {
            let lives = browser.get("/api/me").await.status == 200;
            assert_eq!(browser.refresh().await.status == 200, lives);
            serves += usize::from(lives);
        }
        assert_eq!(serves, 5);
    }
    // And where one factor is all there is, at once: the oldest end, inside the batch that makes one.
    for (app, spy, _dir) in on_every_store(|b| b.max_sessions(5)).await {
        let user = with_addresses(&app, 24).await;
        let mut first = sign_in(sign_ins(&app, 0, 1).await.remove(0)).await;
        let from = spy.log().await.len();
        let waiting = sign_ins(&app, 0, 24).await;
        let mut all = at_once(waiting.into_iter().map(sign_in).collect()).await;
        assert_eq!(app.mfa.sessions().list(&user).await.unwrap().len(), 5);
        for batch in &spy.log().await[from..] {
            let of = format!("sessions-of/{}", user.as_str());
            for (_, op) in batch.iter().filter(|(key, _)| *key == of) {
                let row = op.effect().flatten().unwrap();
                assert!(row.body["sessions"].as_array().unwrap().len() <= 5);
            }
        }
        let mut live = 0;
        for browser in &mut all {
            let serves = browser.get("/api/me").await.status == 200;
            assert_eq!(browser.refresh().await.status == 200, serves);
            live += usize::from(serves);
        }
        assert_eq!(live, 5);
        first.refresh().await.is(401);
    }
}
