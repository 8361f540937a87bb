//! Rows S09 to S11: what a change of factors, of an account, or a revocation does to sessions, and when.

use std::time::Duration;

use axum::{Router, routing::get};
use http::Method;
use serde_json::{Value, json};
use tower_mfa::{
    FactorId, MfaLayer, SessionExtractor,
    config::{Lifetimes, Secrets, Stale},
    ident::{Email, TenantId},
    policy::{Everyone, Link, LinkContext, LinkPolicy, PolicyError},
    store::MemoryStore,
};

use crate::{
    spy::{ALICE, BOB, Spy, posted, refresh_token, shop, signed_up},
    support::{Browser, Mode, PASSWORD, TestApp, credentials, send},
};

const MODES: [Mode; 2] = [Mode::Cookie, Mode::Header];

fn linking(mut body: Value) -> Value {
    body["shouldTryLinkingWithSessionUser"] = json!(true);
    body
}

async fn signed_in(app: &TestApp, mode: Mode) -> Browser {
    let mut browser = app.browser(mode);
    browser.sign_in(ALICE).await.ok();
    browser
}

/// Signs in by a code.
async fn by_code(app: &TestApp, mode: Mode, email: &str) -> Browser {
    let mut browser = app.browser(mode);
    let seen = app.sent_to(email);
    let flow = browser.ask_code(email, false).await.ok();
    let code = app.code_after(email, seen).await;
    browser.enter(&flow, &code, false).await.ok();
    browser
}

async fn is_over(browser: &mut Browser) {
    assert_eq!(browser.get("/api/me").await.body["message"], "unauthorised");
    let refused = browser.refresh().await;
    refused.is(401);
    assert_eq!(refused.headers["front-token"], "remove");
}

#[tokio::test]
async fn sec_s09_a_factor_that_is_added_ends_the_others_and_renews_this_one() {
    for mode in MODES {
        let app = TestApp::new().await;
        // A code to somebody who has a password; a password to somebody who has codes.
        for kind in ["code", "password"] {
            let email = format!("{kind}@shop.example");
            let mut mine = match kind {
                "code" => signed_up(&app, mode, &email).await,
                _ => by_code(&app, mode, &email).await,
            };
            let mut others = Vec::new();
            for _ in 0..3 {
                others.push(match kind {
                    "code" => {
                        let mut other = app.browser(mode);
                        other.sign_in(&email).await.ok();
                        other
                    }
                    _ => by_code(&app, mode, &email).await,
                });
            }
            let (mut before, token) = (mine.clone(), refresh_token(&mine));
            match kind {
                "code" => drop(mine.pass_code(&email).await),
                _ => drop(mine.post("/auth/signup", linking(credentials(&email, PASSWORD))).await.ok()),
            }
            assert_ne!(refresh_token(&mine), token, "{kind}");
            for other in &mut others {
                is_over(other).await;
            }
            assert_eq!(app.mfa.sessions().list(&app.user(&email).await).await.unwrap().len(), 1);
            // The earlier tokens of this one are out of use, too.
            before.refresh().await.is(409);
            mine.get("/api/me").await.is(200);
            mine.refresh().await.is(200);
            mine.get("/api/me").await.is(200);
            // Proving again what is there adds nothing, and so ends nobody.
            let mut other = app.browser(mode);
            other.sign_in(&email).await.ok();
            mine.pass_code(&email).await;
            other.get("/api/me").await.is(200);
        }
    }
}

/// Lets whatever was proved join.
struct Join;

impl LinkPolicy for Join {
    async fn decide(&self, _: &LinkContext<'_>) -> Result<Link, PolicyError> {
        Ok(Link::Yes)
    }
}

#[tokio::test]
async fn sec_s09_an_account_that_is_taken_in_loses_its_sessions() {
    for mode in MODES {
        let app = TestApp::with(|b| b.linking(Join)).await;
        let mut bob = by_code(&app, mode, BOB).await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        let mut other = signed_in(&app, mode).await;
        alice.pass_code(BOB).await;
        let user = app.mfa.users().load(&app.user(ALICE).await).await.unwrap().unwrap();
        assert_eq!(user.logins.len(), 2);
        is_over(&mut bob).await;
        is_over(&mut other).await;
        alice.get("/api/me").await.is(200);
        alice.refresh().await.is(200);
    }
}

#[tokio::test]
async fn sec_s09_an_address_added_from_outside_ends_every_session() {
    for mode in MODES {
        let app = TestApp::new().await;
        let mut sessions = [signed_up(&app, mode, ALICE).await, signed_in(&app, mode).await];
        let (user, public) = (app.user(ALICE).await, TenantId::PUBLIC);
        app.mfa.users().add_email(&user, &public, &Email::parse(BOB).unwrap()).await.unwrap();
        for session in &mut sessions {
            is_over(session).await;
        }
        assert!(app.mfa.sessions().list(&user).await.unwrap().is_empty());
        let mut alice = signed_in(&app, mode).await;
        alice.get("/api/me").await.is(200);
        // What adds no factor ends nobody.
        app.mfa.tenants().create(&TenantId::parse("north").unwrap(), None).await.unwrap();
        app.mfa.users().add_to_tenants(&user, [TenantId::parse("north").unwrap()]).await.unwrap();
        app.mfa.factors().opt_in(&user, FactorId::PASSWORD).await.unwrap();
        app.mfa.roles().grant(&user, &public, "admin").await.unwrap();
        alice.get("/api/me").await.is(200);
    }
}

#[tokio::test]
async fn sec_s10_a_deleted_user_leaves_nothing_that_works() {
    for mode in MODES {
        let spy = Spy::new(MemoryStore::new());
        let app = TestApp::on(shop(), Secrets::random().unwrap(), spy.clone(), |b| {
            b.policy(Everyone::new(FactorId::OTP_EMAIL))
        })
        .await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        alice.pass_code(ALICE).await;
        let mut half = signed_in(&app, mode).await;
        let user = app.user(ALICE).await;
        // Codes under way, as first and as second factor.
        let seen = app.sent_to(ALICE);
        let second = half.ask_code(ALICE, true).await.ok();
        let second_code = app.code_after(ALICE, seen).await;
        let mut nobody = app.browser(mode);
        let first = nobody.ask_code(ALICE, false).await.ok();
        let first_code = app.code_after(ALICE, seen + 1).await;
        let commits = spy.log().await.len();
        app.mfa.users().delete(&user).await.unwrap();
        // One batch: the user, the sessions, the number that kills their tokens, the codes.
        let log = spy.log().await;
        assert_eq!(log.len(), commits + 1);
        let keys: Vec<&str> = log[commits].iter().map(|(key, _)| key.as_str()).collect();
        let touched = |what: &str| keys.iter().filter(|key| key.contains(what)).count();
        assert_eq!(
            (touched("t/public/session/"), touched("sessions-of/"), touched("epoch/user/")),
            (2, 1, 1)
        );
        assert_eq!((touched("/contact/"), touched("user/")), (2, 2), "{keys:?}");
        for session in [&mut alice, &mut half] {
            is_over(session).await;
        }
        half.enter(&second, &second_code, true).await.is(401);
        nobody.enter(&first, &first_code, false).await.status("RESTART_FLOW_ERROR");
        assert!(app.mfa.sessions().list(&user).await.unwrap().is_empty());
        assert!(spy.records(&["t", "public", "session"]).await.is_empty());
        assert!(spy.records(&["sessions-of"]).await.is_empty());
        nobody.sign_in(ALICE).await.status("WRONG_CREDENTIALS_ERROR");
        // Who signs up by the name again is somebody else.
        let mut anew = signed_up(&app, mode, ALICE).await;
        assert_ne!(app.user(ALICE).await, user);
        anew.pass_code(ALICE).await;
        anew.get("/api/me").await.is(200);
        is_over(&mut alice).await;
    }
}

/// A process, and another one on the same store whose view of it can be cut off.
async fn two(change: fn(tower_mfa::MfaBuilder) -> tower_mfa::MfaBuilder) -> (TestApp, TestApp, Spy) {
    let (store, secrets) = (MemoryStore::new(), Secrets::random().unwrap());
    let here = TestApp::on(shop(), secrets.clone(), store.clone(), change).await;
    let spy = Spy::new(store);
    let clock = here.clock.clone();
    let there = TestApp::on(shop(), secrets, spy.clone(), move |b| change(b).clock(clock)).await;
    (here, there, spy)
}

fn page(layer: MfaLayer) -> Router {
    Router::new().route("/", get(|_: SessionExtractor| async {})).layer(layer)
}

#[tokio::test]
async fn sec_s11_cut_off_from_the_store_a_revoked_token_lives_no_longer_than_its_life() {
    for life in [300, 3600, 7200] {
        let (here, there, spy) = match life {
            300 => two(|b| b.lifetimes(lifetimes(300))).await,
            7200 => two(|b| b.lifetimes(lifetimes(7200))).await,
            _ => two(|b| b).await,
        };
        let plain = page(MfaLayer::required(there.mfa.clone()));
        let refuse = page(MfaLayer::required(there.mfa.clone()).when_stale(Stale::Refuse));
        let exact = page(MfaLayer::required(there.mfa.clone()).check_store());
        let mut alice = signed_up(&here, Mode::Header, ALICE).await;
        let ask = |router: &Router, alice: &Browser| {
            let (router, request) = (router.clone(), alice.request(Method::GET, "/", None));
            async move { send(&router, request).await }
        };
        for router in [&plain, &refuse, &exact] {
            ask(router, &alice).await.is(200);
        }
        spy.fail_after(0);
        // A token as young as can be at the moment of the revocation.
        alice.refresh().await.is(200);
        here.mfa.sessions().revoke_user(&here.user(ALICE).await).await.unwrap();
        let (mut served, step) = (0, 30);
        for elapsed in (0..=life).step_by(step) {
            let answer = ask(&plain, &alice).await;
            match answer.status.as_u16() {
                200 => served = elapsed,
                401 => assert_eq!(answer.body["message"], "try refresh token", "{elapsed}"),
                other => panic!("{other} after {elapsed} s"),
            }
            assert!(elapsed != life || answer.status == 401, "{life} s later it still works");
            // A mount that asks the store, or wants the feed, serves nobody meanwhile.
            if elapsed > 0 && elapsed % (life / 3) < step {
                ask(&exact, &alice).await.is(if served == elapsed { 503 } else { 401 });
                ask(&refuse, &alice).await.is(if served == elapsed { 503 } else { 401 });
            }
            here.clock.advance(Duration::from_secs(step as u64));
        }
        assert!(served >= life * 9 / 10, "the test saw it served: {served}");
        // With the store back, everybody knows at once.
        spy.fail_after(u64::MAX);
        let mut again = here.browser(Mode::Header);
        again.sign_in(ALICE).await.ok();
        ask(&exact, &again).await.is(200);
    }
}

fn lifetimes(access: u64) -> Lifetimes {
    let mut lifetimes = Lifetimes::default();
    lifetimes.access_token = Duration::from_secs(access);
    lifetimes
}

#[tokio::test]
async fn sec_s11_who_reads_the_feed_knows_at_the_next_read() {
    let (here, there, _) = two(|b| b).await;
    let (plain, exact) = (
        page(MfaLayer::required(there.mfa.clone())),
        page(MfaLayer::required(there.mfa.clone()).check_store()),
    );
    let alice = signed_up(&here, Mode::Cookie, ALICE).await;
    let request = || alice.request(Method::GET, "/", None);
    send(&plain, request()).await.is(200);
    here.mfa.sessions().revoke_user(&here.user(ALICE).await).await.unwrap();
    // Exact, whatever this process has heard.
    send(&exact, request()).await.is(401);
    // What was read too long ago isn't relied on: the feed is read first.
    here.clock.advance(Duration::from_secs(4));
    send(&plain, request()).await.is(401);
    // One mount's exactness doesn't depend on another's: after a positive answer the next is asked anew.
    let bob = signed_up(&here, Mode::Cookie, BOB).await;
    let request = || bob.request(Method::GET, "/", None);
    for _ in 0..3 {
        let before = there.store.calls();
        send(&exact, request()).await.is(200);
        assert!(there.store.calls() > before, "a verdict was kept");
    }
    here.mfa.sessions().revoke_user(&here.user(BOB).await).await.unwrap();
    send(&exact, request()).await.is(401);
    there.send(posted(&bob, "/auth/session/refresh", None)).await.is(401);
}
