//! Rows R06 to R10, R12, R14 over HTTP: who is a thief, who isn't, and what ends with it.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use tower_mfa::{
    Clock as _, Store as _,
    store::{Batch, Key, Op, Row},
};

use crate::{
    spy::ALICE,
    support::{Answer, Browser, Mode, TestApp},
};

const BOTH: [Mode; 2] = [Mode::Cookie, Mode::Header];

async fn signed_in(app: &TestApp, mode: Mode) -> Browser {
    let mut alice = app.browser(mode);
    alice.by_code(ALICE).await;
    alice
}

fn wait(app: &TestApp, seconds: u64) {
    app.clock.advance(Duration::from_secs(seconds));
}

fn is(answer: &Answer, message: &str) {
    answer.is(401);
    assert_eq!(answer.body["message"], message);
    assert_eq!(answer.headers["front-token"], "remove");
}

const THEFT: &str = "token theft detected";
const GONE: &str = "unauthorised";

#[tokio::test]
async fn sec_r06_r09_whoever_is_told_of_theft_the_row_is_gone() {
    for mode in BOTH {
        let app = TestApp::new().await;
        let mut alice = signed_in(&app, mode).await;
        let mut thief = alice.clone();
        alice.refresh().await.is(200);
        wait(&app, 31);
        // The row can't be written: nobody is told of theft, and nothing has happened.
        let rows = app.store.sessions().await;
        app.store.fail_commits(100);
        for _ in 0..2 {
            let undecided = thief.clone().refresh().await;
            undecided.is(503);
            assert!(undecided.cookies().is_empty() && !undecided.headers.contains_key("front-token"));
        }
        app.store.fail_commits(0);
        assert_eq!(app.store.sessions().await, rows);
        assert!(!app.store.audited().await.contains(&"refresh-reuse".to_owned()));
        // The next presentation finds out again, and its one batch ends the session and says so.
        let batches = app.store.written(0).len();
        is(&thief.refresh().await, THEFT);
        let batch = app.store.written(batches).remove(0);
        let wrote = |part: &str| batch.iter().any(|key| key.as_str().contains(part));
        assert!(wrote("/session/") && wrote("audit/") && wrote("change/"), "{batch:?}");
        assert!(app.store.sessions().await.is_empty());
        assert_eq!(app.store.audited().await.last().unwrap(), "refresh-reuse");
        is(&alice.refresh().await, GONE);
        alice.get("/api/me").await.is(401);
    }
}

#[tokio::test]
async fn sec_r07_every_earlier_token_is_theft_inside_the_window_of_a_younger_one() {
    for generations in 2..6 {
        let app = TestApp::new().await;
        let mut alice = signed_in(&app, Mode::Header).await;
        let mut thief = alice.clone();
        for _ in 0..generations {
            alice.refresh().await.is(200);
        }
        is(&thief.refresh().await, THEFT);
        is(&alice.refresh().await, GONE);
    }
}

#[tokio::test]
async fn sec_r08_whoever_comes_second_ends_it_for_both() {
    for mode in BOTH {
        for thief_first in [true, false] {
            let app = TestApp::new().await;
            let mut alice = signed_in(&app, mode).await;
            let mut thief = alice.clone();
            let (first, second) = match thief_first {
                true => (&mut thief, &mut alice),
                false => (&mut alice, &mut thief),
            };
            first.refresh().await.is(200);
            wait(&app, 3600);
            // The first may have gone on for long.
            first.refresh().await.is(200);
            wait(&app, 31);
            is(&second.refresh().await, THEFT);
            is(&first.refresh().await, GONE);
            first.get("/api/me").await.is(401);
        }
    }
}

#[tokio::test]
async fn sec_r06_the_trail_says_what_was_used_again_by_whom_and_how_late() {
    for (kind, generations) in [("recent", 1), ("older", 2)] {
        let peer = std::net::IpAddr::from([192, 0, 2, 7]);
        let app = TestApp::with(|builder| builder.peer(move |_, _| Some(peer))).await;
        let mut alice = signed_in(&app, Mode::Header).await;
        let mut thief = alice.clone();
        for _ in 0..generations {
            alice.refresh().await.is(200);
        }
        wait(&app, 40);
        is(&thief.refresh().await, THEFT);
        let dump = app.store.dump().await;
        let event = dump.values().map(|row| &row.body).find(|body| body["what"] == "refresh-reuse").unwrap();
        assert_eq!(
            (&event["kind"], &event["ip"], &event["age"]),
            (&json!(kind), &json!(peer), &json!(40_000))
        );
        assert!(event["session"].is_string() && event["user"].is_string());
    }
}

#[tokio::test]
async fn sec_r08_all_of_the_users_sessions_end_where_that_is_wanted() {
    for all in [false, true] {
        let app = TestApp::with(|b| if all { b.revoke_all_on_theft() } else { b }).await;
        let mut phone = signed_in(&app, Mode::Header).await;
        let mut laptop = app.browser(Mode::Cookie);
        laptop.by_code(ALICE).await;
        let mut thief = phone.clone();
        phone.refresh().await.is(200);
        phone.refresh().await.is(200);
        is(&thief.refresh().await, THEFT);
        let left = if all { 401 } else { 200 };
        laptop.get("/api/me").await.is(left);
        laptop.refresh().await.is(left);
    }
}

#[tokio::test]
async fn sec_r10_what_happens_to_one_device_leaves_the_other_alone() {
    let app = TestApp::new().await;
    let mut phone = signed_in(&app, Mode::Header).await;
    for event in ["rotation", "theft", "sign-out", "lost elevation", "revoked", "expiry"] {
        let mut laptop = app.browser(Mode::Cookie);
        laptop.by_code(ALICE).await;
        let handle = |of: &Browser| of.payload("sessionHandle").as_str().unwrap().to_owned();
        let (handle_of_phone, handle_of_laptop) = (handle(&phone), handle(&laptop));
        let row = |rows: &BTreeMap<Key, Row>, handle: &str| {
            rows.iter().find(|(key, _)| key.as_str().contains(handle)).map(|(_, row)| row.clone())
        };
        let before = row(&app.store.sessions().await, &handle_of_phone);
        assert!(before.is_some(), "{event}");
        let mut copy = laptop.clone();
        match event {
            "rotation" => drop(laptop.refresh().await.is(200)),
            "theft" => {
                laptop.refresh().await.is(200);
                laptop.refresh().await.is(200);
                is(&copy.refresh().await, THEFT);
            }
            "expiry" => {
                // The phone is used on the way, the laptop isn't. Each time a node has just started, for
                // its signing keys.
                for _ in 0..2 {
                    wait(&app, 51 * 24 * 3600);
                    phone = phone.at(&app.restarted().await);
                    phone.refresh().await.is(200);
                }
                is(&laptop.refresh().await, GONE);
                phone.get("/api/me").await.is(200);
                continue;
            }
            "sign-out" => drop(laptop.sign_out().await.ok()),
            "lost elevation" => {
                laptop.pass_code(ALICE).await;
                wait(&app, 31);
                is(&copy.refresh().await, GONE);
            }
            _ => {
                let user = app.user(ALICE).await;
                let all = app.mfa.sessions().list(&user).await.unwrap();
                let one = all.iter().find(|one| one.handle.as_str() == handle_of_laptop).unwrap();
                app.mfa.sessions().revoke(&one.handle).await.unwrap();
            }
        }
        let rows = app.store.sessions().await;
        assert_eq!(row(&rows, &handle_of_phone), before, "{event}");
        assert_eq!(row(&rows, &handle_of_laptop).is_some(), event == "rotation", "{event}");
        phone.get("/api/me").await.is(200);
        phone.refresh().await.is(200);
    }
}

#[tokio::test]
async fn sec_r12_what_was_never_issued_costs_nothing_and_ends_nothing() {
    for mode in BOTH {
        let app = TestApp::new().await;
        let mut alice = signed_in(&app, mode).await;
        let (real, access) = (alice.refresh_token().unwrap().clone(), alice.access_token().unwrap().clone());
        let mut ended = app.browser(mode);
        ended.by_code("bob@shop.example").await;
        let revoked = ended.clone();
        ended.sign_out().await.ok();
        let other_app = TestApp::new().await;
        let foreign = signed_in(&other_app, mode).await.refresh_token().unwrap().clone();
        let part = |n: usize| real.split('.').nth(n).unwrap();
        let guess = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let garbage = [
            "x".to_owned(),
            access,
            real[..real.len() - 1].to_owned(),
            foreign,
            format!("1.{}.{}.{guess}.{guess}", part(1), part(2)),
            format!("1.{}.{}.{guess}.{}", part(1), part(2), part(4)),
            format!("1.{}.{}.{}.{guess}", part(1), part(2), part(3)),
        ];
        // Without any token the answer is the same.
        let nothing = app.browser(mode).refresh().await;
        is(&nothing, GONE);
        let rows = app.store.sessions().await;
        let as_seen = |answer: &Answer| {
            let cleared: Vec<String> = answer.cookies().into_iter().map(str::to_owned).collect();
            (answer.status, answer.body.clone(), answer.headers.clone(), cleared)
        };
        for token in garbage {
            let mut stranger = app.browser(mode);
            match mode {
                Mode::Cookie => drop(stranger.jar.insert("sRefreshToken".to_owned(), token.clone())),
                Mode::Header => stranger.refresh = Some(token.clone()),
            }
            let calls = app.store.calls();
            let answer = stranger.refresh().await;
            assert_eq!(as_seen(&answer), as_seen(&nothing), "{token}");
            assert_eq!(app.store.calls(), calls, "{token} is looked up");
        }
        // One that was issued, for a session that is gone: one read.
        let calls = app.store.calls();
        assert_eq!(as_seen(&revoked.clone().refresh().await), as_seen(&nothing));
        assert!(app.store.calls() - calls <= 1);
        assert_eq!(app.store.sessions().await, rows);
        alice.refresh().await.is(200);
    }
}

#[tokio::test]
async fn sec_r14_without_its_user_a_session_is_over() {
    for mode in BOTH {
        let app = TestApp::new().await;
        let mut alice = signed_in(&app, mode).await;
        let user = app.user(ALICE).await;
        app.mfa.users().delete(&user).await.unwrap();
        is(&alice.refresh().await, GONE);
        assert!(app.store.sessions().await.is_empty());
    }
}

/// The user or the tenant goes while a refresh is under way, between its reads and its commit.
#[tokio::test]
async fn sec_r14_user_and_tenant_are_read_in_the_transaction() {
    for subject in ["user", "tenant"] {
        let app = TestApp::new().await;
        let mut alice = signed_in(&app, Mode::Header).await;
        let id = match subject {
            "user" => app.user(ALICE).await.as_str().to_owned(),
            _ => "public".to_owned(),
        };
        let mut gone = Batch::new();
        gone.push(Key::new(["epoch", subject, &id]), Op::Remove);
        app.store.before_next_commit(gone);
        is(&alice.refresh().await, GONE);
        assert!(app.store.sessions().await.is_empty());
    }
}

/// Row S02 b: the answer to an elevation was lost, and the window is over.
#[tokio::test]
async fn sec_s02_b_a_lost_elevation_ends_the_session_and_is_no_theft() {
    for mode in BOTH {
        let app = TestApp::new().await;
        let mut alice = signed_in(&app, mode).await;
        let mut old = alice.clone();
        alice.pass_code(ALICE).await;
        wait(&app, 30);
        old.clone().refresh().await.is(409);
        app.clock.advance(Duration::from_millis(1));
        is(&old.refresh().await, GONE);
        assert!(app.store.sessions().await.is_empty());
        assert_eq!(app.store.audited().await.last().unwrap(), "pre-elevation-reuse");
        is(&alice.refresh().await, GONE);
        assert!(app.store.now().await.unwrap() > app.clock.now());
    }
}
