//! The app's hooks: each with its event over HTTP, what is written with a completion, and what becomes of hooks
//! that fail.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use serde_json::{Value, json};
use tower_mfa::{
    FactorId,
    hooks::{Cause, Ended, Ending, FactorCompleted, Hooks, SessionCreated, TokenTheft, UserCreated},
    ident::{BoxError, SessionHandle, TenantId},
    policy::Everyone,
};

use crate::{
    spy::{ALICE, BOB, handle},
    support::{Browser, Mode, TestApp, Watched},
};

/// How a hook goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Fails,
    Panics,
    Hangs,
}

const WAYS: [Wrong; 3] = [Wrong::Fails, Wrong::Panics, Wrong::Hangs];

/// Remembers what it was told, and goes wrong when it is told to.
#[derive(Clone, Default)]
struct Told {
    seen: Arc<Mutex<Vec<String>>>,
    endings: Arc<Mutex<Vec<Ending>>>,
    wrong: Arc<Mutex<Option<Wrong>>>,
    opts_in: bool,
    /// What the store's trail said when a theft was told.
    store: Arc<OnceLock<Watched>>,
}

impl Told {
    async fn note(&self, what: String) -> Result<(), BoxError> {
        self.seen.lock().unwrap().push(what);
        self.go_wrong().await
    }

    async fn go_wrong(&self) -> Result<(), BoxError> {
        let wrong = *self.wrong.lock().unwrap();
        match wrong {
            None => Ok(()),
            Some(Wrong::Fails) => Err("told to fail".into()),
            Some(Wrong::Panics) => panic!("told to panic"),
            Some(Wrong::Hangs) => std::future::pending().await,
        }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// The ends that were told, once there are so many.
    async fn ends(&self, many: usize) -> Vec<Ending> {
        for _ in 0..2000 {
            if self.endings.lock().unwrap().len() >= many {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        std::mem::take(&mut *self.endings.lock().unwrap())
    }
}

impl Hooks for Told {
    async fn opts_in(&self, e: &FactorCompleted<'_>) -> Result<bool, BoxError> {
        assert!(!e.first_factor, "asked about a first factor");
        self.go_wrong().await?;
        Ok(self.opts_in)
    }

    async fn on_user_created(&self, e: &UserCreated<'_>) -> Result<(), BoxError> {
        assert_eq!((e.user.logins.len(), e.tenant), (1, &TenantId::PUBLIC));
        self.note("user".to_owned()).await
    }

    async fn on_session_created(&self, e: &SessionCreated<'_>) -> Result<(), BoxError> {
        self.note(format!("session {} {} complete={}", e.session.as_str(), e.factor, e.complete)).await
    }

    async fn on_factor_completed(&self, e: &FactorCompleted<'_>) -> Result<(), BoxError> {
        let what = format!("factor {} first={} enrolled={}", e.factor, e.first_factor, e.enrolled);
        self.note(what).await
    }

    async fn on_token_theft(&self, e: &TokenTheft<'_>) -> Result<(), BoxError> {
        if let Some(store) = self.store.get() {
            let gone = store.sessions().await.keys().all(|key| !key.as_str().contains(e.session.as_str()));
            let audited = store.audited().await.contains(&"refresh-reuse".to_owned());
            assert!(gone && audited, "told before it was committed");
        }
        self.note(format!("theft {} {:?} {:?} {:?}", e.user, e.token, e.age, e.peer)).await
    }

    async fn on_session_ended(&self, e: &Ending) -> Result<(), BoxError> {
        self.endings.lock().unwrap().push(e.clone());
        self.go_wrong().await
    }
}

async fn app(told: &Told) -> TestApp {
    let hooks = told.clone();
    let app = TestApp::with(|builder| builder.hooks(hooks)).await;
    drop(told.store.set(app.store.clone()));
    app
}

fn one(browser: &Browser) -> SessionHandle {
    SessionHandle::parse(&handle(browser)).unwrap()
}

#[tokio::test]
async fn each_hook_hears_of_its_event() {
    let told = Told::default();
    let app = app(&told).await;
    let mut alice = app.browser(Mode::Cookie);
    alice.sign_up(ALICE).await.ok();
    let session = |browser: &Browser, factor: &str| {
        vec![
            format!("session {} {factor} complete=true", handle(browser)),
            format!("factor {factor} first=true enrolled=false"),
        ]
    };
    let mut expected = session(&alice, "emailpassword");
    expected[1] = "factor emailpassword first=true enrolled=true".to_owned();
    expected.insert(0, "user".to_owned());
    assert_eq!(told.take(), expected);
    // Somebody who is there already.
    let mut laptop = app.browser(Mode::Header);
    laptop.sign_in(ALICE).await.ok();
    assert_eq!(told.take(), session(&laptop, "emailpassword"));
    // What doesn't succeed is nothing that happened.
    app.browser(Mode::Header).post("/auth/signin", crate::support::credentials(ALICE, "wrong")).await;
    assert_eq!(told.take(), Vec::<String>::new());
    // A second factor: new to the user, then known; adding it ends the other sessions.
    assert_eq!(told.ends(0).await, []);
    alice.pass_code(ALICE).await;
    assert_eq!(told.take(), ["factor otp-email first=false enrolled=true"]);
    let ended = told.ends(1).await.remove(0);
    let user = app.user(ALICE).await;
    let but = Some(one(&alice));
    assert_eq!(
        (ended.ended, ended.cause),
        (Ended::OfUser { user: user.clone(), but }, Cause::FactorsChanged)
    );
    alice.pass_code(ALICE).await;
    assert_eq!(told.take(), ["factor otp-email first=false enrolled=false"]);
    // Its ends, each with its reason.
    let ended = |browser: &Browser| Ended::One { user: user.clone(), session: one(browser) };
    let first = ended(&alice);
    alice.sign_in(ALICE).await.ok();
    let second = ended(&alice);
    alice.sign_out().await.ok();
    alice.sign_in(ALICE).await.ok();
    let third = ended(&alice);
    app.mfa.sessions().revoke(&one(&alice)).await.unwrap();
    app.mfa.sessions().revoke_user(&user).await.unwrap();
    app.mfa.sessions().revoke_all().await.unwrap();
    app.mfa.users().delete(&user).await.unwrap();
    let ends: Vec<_> = told.ends(6).await.into_iter().map(|end| (end.ended, end.cause)).collect();
    let all = || Ended::OfUser { user: user.clone(), but: None };
    assert_eq!(
        ends,
        [
            (first, Cause::SignedInAnew),
            (second, Cause::Asked),
            (third, Cause::Asked),
            (all(), Cause::Asked),
            (Ended::All, Cause::Asked),
            (all(), Cause::UserGone),
        ]
    );
    assert_eq!(app.mfa.counters().hooks_failed, 0);
}

#[tokio::test]
async fn sec_s13_a_partial_sign_in_is_told_as_one() {
    let told = Told::default();
    let hooks = told.clone();
    let app = TestApp::with(|b| b.hooks(hooks).policy(Everyone::new(FactorId::OTP_EMAIL))).await;
    let mut half = app.browser(Mode::Cookie);
    half.sign_up(ALICE).await.ok();
    assert!(told.take().iter().any(|what| what.ends_with("emailpassword complete=false")));
    half.pass_code(ALICE).await;
    assert_eq!(told.take(), ["factor otp-email first=false enrolled=true"]);
}

async fn stolen(app: &TestApp) -> (Browser, Browser) {
    let mut alice = app.browser(Mode::Header);
    alice.by_code(ALICE).await;
    let thief = alice.clone();
    alice.refresh().await.is(200);
    app.clock.advance(Duration::from_secs(31));
    (alice, thief)
}

#[tokio::test]
async fn sec_r06_theft_is_told_after_it_is_committed() {
    let peer = std::net::IpAddr::from([192, 0, 2, 7]);
    let told = Told::default();
    let hooks = told.clone();
    let app = TestApp::with(|b| b.hooks(hooks).peer(move |_, _| Some(peer))).await;
    drop(told.store.set(app.store.clone()));
    let (alice, mut thief) = stolen(&app).await;
    told.take();
    // What isn't committed hasn't happened.
    app.store.fail_commits(100);
    thief.clone().refresh().await.is(503);
    app.store.fail_commits(0);
    assert_eq!(told.take(), Vec::<String>::new());
    let user = app.user(ALICE).await;
    let refused = thief.refresh().await;
    assert_eq!((refused.status.as_u16(), &refused.body["message"]), (401, &json!("token theft detected")));
    assert_eq!(told.take(), [format!("theft {user} Recent 31s Some(192.0.2.7)")]);
    let ended = told.ends(1).await.remove(0);
    assert_eq!((ended.ended, ended.cause), (Ended::One { user, session: one(&alice) }, Cause::Theft));
    // Once: who comes next finds no session.
    assert_eq!(alice.clone().refresh().await.body["message"], "unauthorised");
    assert_eq!(told.take(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_goes_wrong_undoes_nothing_and_holds_up_five_seconds_at_most() {
    for wrong in WAYS {
        let told = Told::default();
        let app = app(&told).await;
        *told.wrong.lock().unwrap() = Some(wrong);
        let before = tokio::time::Instant::now();
        let (mut alice, mut thief) = stolen(&app).await;
        let waited = before.elapsed();
        alice.get("/api/me").await.is(200);
        // A user, a session, a factor.
        assert_eq!(app.mfa.counters().hooks_failed, 3, "{wrong:?}");
        let before = tokio::time::Instant::now();
        assert_eq!(thief.refresh().await.body["message"], "token theft detected", "{wrong:?}");
        assert!(app.store.sessions().await.is_empty());
        assert!(app.mfa.counters().hooks_failed >= 4, "{wrong:?}");
        if wrong == Wrong::Hangs {
            assert!((5..7).contains(&waited.as_secs()), "{waited:?}");
            assert!((5..7).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
        }
        // Nobody waits for the last one; it is counted all the same.
        let before = tokio::time::Instant::now();
        app.mfa.sessions().revoke_user(&app.user(ALICE).await).await.unwrap();
        assert!(before.elapsed() < Duration::from_secs(1), "{wrong:?}");
        app.mfa.shutdown().await;
        assert_eq!(app.mfa.counters().hooks_failed, 6, "{wrong:?}");
    }
}

// ------------------------------------------------------------------- what is written with a completion

async fn opted_into(app: &TestApp, email: &str) -> Vec<FactorId> {
    app.mfa.factors().required_for(&app.user(email).await).await.unwrap()
}

#[tokio::test]
async fn opting_in_is_written_with_the_completion() {
    let told = Told { opts_in: true, ..Told::default() };
    let app = app(&told).await;
    let mut alice = app.browser(Mode::Cookie);
    alice.sign_up(ALICE).await.ok();
    let seen = app.sent_to(ALICE);
    let flow = alice.ask_code(ALICE, true).await.ok();
    let code = app.code_after(ALICE, seen).await;
    let batches = app.store.written(0).len();
    alice.enter(&flow, &code, true).await.ok();
    // One batch with the session, the code, the list, and the news of it.
    let user = app.user(ALICE).await;
    let required = format!("required/{user}");
    let with: Vec<_> = app
        .store
        .written(batches)
        .into_iter()
        .filter(|batch| batch.iter().any(|key| key.as_str() == required))
        .collect();
    assert_eq!(with.len(), 1);
    for part in ["/session/", "/code/", "change/", "epoch/user/"] {
        assert!(with[0].iter().any(|key| key.as_str().contains(part)), "{part} {with:?}");
    }
    assert_eq!(opted_into(&app, ALICE).await, [FactorId::OTP_EMAIL]);
    // This session has it; the next one is asked for it; what was opted into isn't written again.
    alice.get("/api/me").await.is(200);
    assert_eq!(alice.claim()["v"], true);
    let mut laptop = app.browser(Mode::Header);
    laptop.sign_in(ALICE).await.ok();
    laptop.get("/api/me").await.is(403);
    let batches = app.store.written(0).len();
    laptop.pass_code(ALICE).await;
    laptop.get("/api/me").await.is(200);
    let again = app.store.written(batches).into_iter().flatten();
    assert!(!again.into_iter().any(|key| key.as_str() == required));
}

/// The list can ask for more than the policy did when the factor was completed: the session that opted in is
/// judged by it like any other one, at its next request.
#[tokio::test]
async fn whoever_opts_in_is_judged_by_it() {
    struct OptedInMeansMore;
    impl tower_mfa::MfaPolicy for OptedInMeansMore {
        async fn requirements(
            &self,
            ctx: &tower_mfa::PolicyContext<'_>,
        ) -> Result<tower_mfa::Requirements, tower_mfa::policy::PolicyError> {
            let opted_in = !ctx.required_for_user().await?.is_empty();
            Ok(if opted_in { FactorId::TOTP.into() } else { tower_mfa::Requirements::none() })
        }
    }
    let told = Told { opts_in: true, ..Told::default() };
    let hooks = told.clone();
    let app = TestApp::with(|b| b.hooks(hooks).policy(OptedInMeansMore)).await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    alice.get("/api/me").await.is(200);
    alice.pass_code(ALICE).await;
    alice.get("/api/me").await.is(403);
}

#[tokio::test]
async fn only_the_sessions_own_user_opts_in() {
    let told = Told { opts_in: true, ..Told::default() };
    let app = app(&told).await;
    // A first factor is no choice.
    let mut bob = app.browser(Mode::Header);
    bob.by_code(BOB).await;
    assert_eq!(opted_into(&app, BOB).await, []);
    // A session that came along and isn't used: the factor is somebody's who signs in.
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    alice.by_code(BOB).await;
    assert_eq!((opted_into(&app, ALICE).await, opted_into(&app, BOB).await), (vec![], vec![]));
    // A login that isn't linked, because it is another's: the code was right, and nobody opted in.
    bob.sign_up("carol@shop.example").await.ok();
    bob.pass_code("carol@shop.example").await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_in(ALICE).await.ok();
    let seen = app.sent_to("carol@shop.example");
    let flow = alice.ask_code("carol@shop.example", true).await;
    if flow.body["status"] == "OK" {
        let code = app.code_after("carol@shop.example", seen).await;
        alice.enter(&flow.body, &code, true).await.status("SIGN_IN_UP_NOT_ALLOWED");
    }
    assert_eq!(opted_into(&app, ALICE).await, []);
    assert_eq!(opted_into(&app, "carol@shop.example").await, [FactorId::OTP_EMAIL]);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_goes_wrong_completes_nothing() {
    for wrong in WAYS {
        let told = Told { opts_in: true, ..Told::default() };
        let app = app(&told).await;
        let mut alice = app.browser(Mode::Header);
        alice.by_code(ALICE).await;
        let seen = app.sent_to(BOB);
        let flow: Value = alice.ask_code(BOB, true).await.body;
        // Who has a destination gets no other: the second address is refused, the first will do.
        let (flow, seen) = match flow["status"] == "OK" {
            true => (flow, seen),
            false => {
                let seen = app.sent_to(ALICE);
                (alice.ask_code(ALICE, true).await.ok(), seen)
            }
        };
        let code = app.code_after(ALICE, seen).await;
        told.take();
        *told.wrong.lock().unwrap() = Some(wrong);
        let rows = app.store.sessions().await;
        let refused = alice.clone().enter(&flow, &code, true).await;
        refused.is(if wrong == Wrong::Panics { 500 } else { 503 });
        assert!(!refused.headers.contains_key("front-token"));
        assert_eq!((app.store.sessions().await, told.take()), (rows, vec![]), "{wrong:?}");
        assert_eq!(opted_into(&app, ALICE).await, []);
        // The code is good yet.
        *told.wrong.lock().unwrap() = None;
        alice.enter(&flow, &code, true).await.ok();
        assert_eq!(opted_into(&app, ALICE).await, [FactorId::OTP_EMAIL], "{wrong:?}");
    }
}
