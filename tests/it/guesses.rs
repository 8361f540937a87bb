//! Rows O04, O05 and O08 in truth: many guesses at once, over three nodes on one store.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::sync::Barrier;
use tower_mfa::{
    Store,
    ident::Timestamp,
    store::{Batch, Commit, Key, Op},
};

#[cfg(feature = "sqlite")]
use crate::support::nodes::on_sqlite;
use crate::{
    spy::ALICE,
    support::{
        Browser, Mode, START, TestApp,
        nodes::{arrived, begun, in_memory},
    },
};

const RACERS: usize = 64;

/// All at once, over all nodes: the answers' statuses.
async fn all_at_once(
    nodes: &[TestApp],
    client: &Browser,
    flow: &Value,
    guesses: Vec<String>,
    linking: bool,
) -> Vec<String> {
    let start = Arc::new(Barrier::new(guesses.len()));
    let racers = guesses.into_iter().enumerate().map(|(n, guess)| {
        let (mut racer, flow, start) = (client.at(&nodes[n % nodes.len()]), flow.clone(), Arc::clone(&start));
        tokio::spawn(async move {
            start.wait().await;
            let answer = racer.enter(&flow, &guess, linking).await;
            answer.body["status"].as_str().unwrap_or(&answer.status.as_u16().to_string()).to_owned()
        })
    });
    let mut answers = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        answers.push(racer.await.unwrap());
    }
    answers
}

fn others(code: &str, many: usize) -> Vec<String> {
    let code: usize = code.parse().unwrap();
    (1..=many).map(|n| format!("{:06}", (code + n) % 1_000_000)).collect()
}

fn compared(nodes: &[TestApp]) -> u64 {
    nodes.iter().map(|node| node.mfa.counters().code_comparisons).sum()
}

/// Of 64 distinct wrong codes five are compared, and the right one comes too late.
async fn five_comparisons(nodes: &[TestApp]) {
    for linking in [false, true] {
        let mut client = nodes[0].browser(Mode::Header);
        let contact = format!("alice-{linking}@shop.example");
        if linking {
            let (flow, code) = begun(nodes, &mut client, &contact, false).await;
            client.enter(&flow, &code, false).await.ok();
        }
        let (flow, code) = begun(nodes, &mut client, &contact, linking).await;
        let before = compared(nodes);
        let answers = all_at_once(nodes, &client, &flow, others(&code, RACERS), linking).await;
        assert_eq!(compared(nodes) - before, 5);
        let count = |status: &str| answers.iter().filter(|answer| *answer == status).count();
        assert_eq!(count("INCORRECT_USER_INPUT_CODE_ERROR"), 4, "{answers:?}");
        assert_eq!(count("RESTART_FLOW_ERROR"), RACERS - 4, "{answers:?}");
        client.enter(&flow, &code, linking).await.status("RESTART_FLOW_ERROR");
        assert_eq!(compared(nodes) - before, 5);
    }
}

/// Of 64 right ones one signs in.
async fn one_wins(nodes: &[TestApp]) {
    for linking in [false, true] {
        let mut client = nodes[0].browser(Mode::Header);
        let contact = format!("bob-{linking}@shop.example");
        if linking {
            let (flow, code) = begun(nodes, &mut client, &contact, false).await;
            client.enter(&flow, &code, false).await.ok();
        }
        let (flow, code) = begun(nodes, &mut client, &contact, linking).await;
        let before = compared(nodes);
        let answers = all_at_once(nodes, &client, &flow, vec![code; RACERS], linking).await;
        assert_eq!(answers.iter().filter(|answer| *answer == "OK").count(), 1, "{answers:?}");
        assert!((1..=5).contains(&(compared(nodes) - before)));
        let user = nodes[0].user(&contact).await;
        assert_eq!(nodes[0].mfa.sessions().list(&user).await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_o04_five_of_many_guesses_are_compared() {
    five_comparisons(&in_memory().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_o08_one_of_many_right_answers_wins() {
    one_wins(&in_memory().await).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_o04_sec_o08_on_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = on_sqlite(dir.path()).await;
    five_comparisons(&nodes).await;
    one_wins(&nodes).await;
}

/// Row O05: the count stands in the flow's record, and with that gone there is no flow, whatever else is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_o05_without_the_record_there_is_no_flow_and_no_fresh_count() {
    for round in 0..8_u64 {
        let nodes = in_memory().await;
        let mut client = nodes[0].browser(Mode::Header);
        let (flow, code) = begun(&nodes, &mut client, ALICE, false).await;
        let (key, _) = nodes[0].store.codes().await.into_iter().next().unwrap();
        let (resender, asked) = (client.at(&nodes[1]), flow.clone());
        let resends = tokio::spawn(async move {
            let mut resender = resender;
            for _ in 0..8 {
                resender.ask_again(&asked, false).await;
            }
        });
        let (node, gone) = (nodes[2].clone(), key.clone());
        let sweeps = tokio::spawn(async move {
            for n in 0..8 {
                // What has not expired stays, however often it is swept.
                node.store.sweep(Timestamp::from_secs(START)).await.unwrap();
                if n == 4 {
                    tokio::time::sleep(Duration::from_micros(200 * round)).await;
                    take_away(&node, &gone).await;
                }
                tokio::task::yield_now().await;
            }
        });
        let answers = all_at_once(&nodes, &client, &flow, others(&code, 32), false).await;
        resends.await.unwrap();
        sweeps.await.unwrap();
        assert!(compared(&nodes) <= 5, "{answers:?}");
        assert!(!answers.iter().any(|answer| answer == "OK"));
        // Nobody made it anew.
        assert!(nodes[0].store.codes().await.is_empty() && nodes[1].store.codes().await.is_empty());
        client.ask_again(&flow, false).await.status("RESTART_FLOW_ERROR");
        client.enter(&flow, &code, false).await.status("RESTART_FLOW_ERROR");
    }
}

/// Row O05, without luck: the record goes right before the charge, or the new code, is written.
#[tokio::test]
async fn sec_o05_a_record_that_goes_meanwhile_is_not_made_anew() {
    let app = TestApp::new().await;
    for guesses in [true, false] {
        let (mut client, seen) = (app.browser(Mode::Header), app.sent_to(ALICE));
        let flow = client.ask_code(ALICE, false).await.ok();
        let code = app.code_after(ALICE, seen).await;
        arrived(&[&app]).await;
        let (key, _) = app.store.codes().await.into_iter().next().unwrap();
        let mut gone = Batch::new();
        gone.push(key, Op::Remove);
        app.store.before_next_commit(gone);
        let answer = match guesses {
            true => client.enter(&flow, &code, false).await,
            false => client.ask_again(&flow, false).await,
        };
        answer.status("RESTART_FLOW_ERROR");
        assert!(app.store.codes().await.is_empty());
        client.enter(&flow, &code, false).await.status("RESTART_FLOW_ERROR");
    }
    assert_eq!((app.mfa.counters().code_comparisons, arrived(&[&app]).await), (0, 2));
}

async fn take_away(node: &TestApp, key: &Key) {
    let mut batch = Batch::new();
    batch.push(key.clone(), Op::Remove);
    assert_eq!(node.store.commit(batch).await.unwrap(), Commit::Applied);
}
