//! Rows R04, R09, S02 d and S05 in truth: many requests at once, over several nodes on one store.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::StatusCode;
use serde_json::json;
use tokio::sync::Barrier;

#[cfg(feature = "sqlite")]
use crate::support::nodes::on_sqlite;
use crate::{
    spy::ALICE,
    support::{
        Answer, Browser, Mode, PASSWORD, TestApp, credentials,
        nodes::{NODES, begun, in_memory},
    },
};

const RACERS: usize = 64;

/// How many rounds a race is run; as many as wanted with `MFA_ROUNDS`.
fn rounds(usual: usize) -> usize {
    std::env::var("MFA_ROUNDS").map_or(usual, |rounds| rounds.parse().unwrap())
}

/// Sends refreshes with what the client holds, all at once, over all nodes.
async fn all_at_once(nodes: &[TestApp], client: &Browser, racers: usize) -> Vec<(Browser, Answer)> {
    let start = Arc::new(Barrier::new(racers));
    let racers = (0..racers).map(|n| {
        let (mut racer, start) = (client.at(&nodes[n % nodes.len()]), Arc::clone(&start));
        tokio::spawn(async move {
            start.wait().await;
            let answer = racer.refresh().await;
            (racer, answer)
        })
    });
    let mut answers = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        answers.push(racer.await.unwrap());
    }
    answers
}

/// How many batches wrote a session's row.
fn session_writes(nodes: &[TestApp]) -> usize {
    let batches = nodes.iter().flat_map(|node| node.store.written(0));
    batches.filter(|keys| keys.iter().any(|key| key.as_str().contains("/session/"))).count()
}

async fn one_successor_for_all(nodes: &[TestApp], rounds: usize) {
    let mut alice = nodes[0].browser(Mode::Header);
    alice.by_code(ALICE).await;
    for round in 0..rounds {
        let writes = session_writes(nodes);
        let answers = all_at_once(nodes, &alice, RACERS).await;
        for (_, answer) in &answers {
            answer.is(200);
        }
        let tokens: BTreeSet<&String> =
            answers.iter().map(|(racer, _)| racer.refresh_token().unwrap()).collect();
        assert_eq!(tokens.len(), 1, "round {round}");
        assert!(!tokens.contains(alice.refresh_token().unwrap()));
        assert_eq!(session_writes(nodes) - writes, 1, "round {round}: one rotation");
        // Whichever answer came last, it goes on from there.
        alice = answers[round % RACERS].0.clone();
    }
    alice.get("/api/me").await.is(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_r04_many_refreshes_at_once_get_one_successor_in_memory() {
    one_successor_for_all(&in_memory().await, rounds(200)).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_r04_many_refreshes_at_once_get_one_successor_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    one_successor_for_all(&on_sqlite(dir.path()).await, rounds(60)).await;
}

async fn one_end_for_all(nodes: &[TestApp]) {
    for _ in 0..5 {
        let mut alice = nodes[0].browser(Mode::Header);
        alice.by_code(ALICE).await;
        let thief = alice.clone();
        alice.refresh().await.is(200);
        nodes[0].clock.advance(Duration::from_secs(31));
        let writes = session_writes(nodes);
        let answers = all_at_once(nodes, &thief, RACERS).await;
        let told = |message| answers.iter().filter(|(_, answer)| answer.body["message"] == message).count();
        assert_eq!(told("token theft detected"), 1, "the rest finds no session");
        let others: Vec<_> =
            answers.iter().map(|(_, answer)| answer).filter(|answer| answer.status != 401).collect();
        assert_eq!(told("unauthorised"), RACERS - 1, "{others:?}");
        assert_eq!(session_writes(nodes) - writes, 1);
        for node in nodes {
            alice.at(node).refresh().await.is(401);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_r09_of_many_presentations_one_ends_the_session() {
    one_end_for_all(&in_memory().await).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_r09_of_many_presentations_one_ends_the_session_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    one_end_for_all(&on_sqlite(dir.path()).await).await;
}

/// Completions of two factors from one access token, with refreshes of the same client in between.
async fn factors_at_once(nodes: &[TestApp], rounds: usize) {
    let mut alice = nodes[0].browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    alice.pass_code(ALICE).await;
    for round in 0..rounds {
        let before = alice.claim();
        // Both factors get a later time than they have.
        nodes[0].clock.advance(Duration::from_secs(40));
        let (flow, code) = begun(nodes, &mut alice, ALICE, true).await;
        let start = Arc::new(Barrier::new(3));
        let by_password = |node: usize| {
            let (mut tab, start) = (alice.at(&nodes[node]), Arc::clone(&start));
            let mut body = credentials(ALICE, PASSWORD);
            body["shouldTryLinkingWithSessionUser"] = json!(true);
            tokio::spawn(async move {
                start.wait().await;
                let answer = tab.post("/auth/signin", body).await;
                (tab, answer)
            })
        };
        let by_code = {
            let (mut tab, start) = (alice.at(&nodes[round % NODES]), Arc::clone(&start));
            let (flow, code) = (flow.clone(), code.clone());
            tokio::spawn(async move {
                start.wait().await;
                let answer = tab.enter(&flow, &code, true).await;
                (tab, answer)
            })
        };
        let mut tabs = Vec::new();
        for tab in [by_password(1), by_password(2), by_code] {
            let (tab, answer) = tab.await.unwrap();
            assert_eq!((answer.status, &answer.body["status"]), (StatusCode::OK, &json!("OK")));
            tabs.push(tab);
        }
        let tokens: BTreeSet<_> = tabs.iter().map(|tab| tab.refresh_token().unwrap()).collect();
        assert_eq!(tokens.len(), 1, "one successor for all");
        // The last answer to arrive is what stays, and it refreshes; nothing was lost.
        alice = tabs[round % 3].clone();
        alice.refresh().await.is(200);
        for factor in ["emailpassword", "otp-email"] {
            let (was, is) = (&before["c"][factor], &alice.claim()["c"][factor]);
            assert!(is.as_i64() > was.as_i64(), "{factor} was lost: {before} {}", alice.claim());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_s02_d_s05_factors_at_once_share_one_successor_and_all_count() {
    factors_at_once(&in_memory().await, 3).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_s02_d_s05_factors_at_once_share_one_successor_and_all_count_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    factors_at_once(&on_sqlite(dir.path()).await, 2).await;
}
