//! One-time codes and their messages, whenever the process dies.

use serde_json::{Value, json};

use super::{
    ALICE, Node, asked, by_code,
    client::{Client, guess, wrong},
    code_after, enter, half, place, sent, until,
};

/// Where a process may die while it takes a right code, the how many that comes there, and whether code and
/// session were committed by then. The first commit is the charge of the guess.
const AROUND: [(&str, u32, bool); 5] = [
    ("otp.reserve.after_commit", 1, false),
    ("otp.match.before_consume", 1, false),
    ("otp.consume.before_mark", 1, false),
    ("otp.consume.before_commit", 1, false),
    ("store.commit.sent", 1, false),
];

#[test]
fn sec_o08_a_kill_around_the_commit_leaves_code_and_session_both_or_neither() {
    let (dir, mut node) = place();
    let dir = dir.path();
    let after = [
        ("elevate.before_commit", 1, false),
        ("store.commit.sent", 2, true),
        ("elevate.after_commit_before_response", 1, true),
    ];
    for (at, nth, committed) in AROUND.into_iter().chain(after) {
        let mut alice = half(&node);
        let (flow, code) = asked(&node, dir, &mut alice);
        let before = halves(&node);
        let answer = node.killed_at(at, nth, || enter(&alice, &flow, &code));
        assert!(answer.is_none(), "{at}: {answer:?}");

        node = Node::start(dir);
        let spent = node.flow(&flow) == "consumed";
        assert_eq!((spent, before - halves(&node)), (committed, usize::from(committed)), "{at} {nth}");
        let mut alice = node.adopt(&alice);
        let again = alice.enter(&flow, &code, true);
        if committed {
            assert_eq!(again.ok()["status"], "RESTART_FLOW_ERROR", "{at}");
        } else {
            assert_eq!(again.ok()["status"], "OK", "{at}");
            assert_eq!(alice.get("/api/me").status, 200, "{at}");
            assert_eq!(alice.enter(&flow, &code, true).ok()["status"], "RESTART_FLOW_ERROR", "{at}");
        }
        assert_eq!((node.flow(&flow), before - halves(&node)), (json!("consumed"), 1), "{at}");
    }
}

/// How many sessions of Alice lack a factor.
fn halves(node: &Node) -> usize {
    let state = node.state(ALICE);
    state["sessions"].as_array().unwrap().iter().filter(|session| session["half"] == true).count()
}

#[test]
fn sec_o08_a_kill_while_a_code_makes_a_session_leaves_both_or_neither() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, mut node) = (dir.path(), Node::start(dir.path()));
    let after = [
        ("session.create.before_commit", 1, false),
        ("store.commit.sent", 2, true),
        ("session.create.after_commit", 1, true),
    ];
    for (n, (at, nth, committed)) in AROUND.into_iter().chain(after).enumerate() {
        let email = format!("user{n}@shop.example");
        let (mut client, flow, code) = first(&node, dir, &email);
        let body = guess(&flow, &code, false);
        let consume = || client.try_call("POST", "/auth/signinup/code/consume", Some(body));
        let answer = node.killed_at(at, nth, consume);
        assert!(answer.is_none(), "{at}: {answer:?}");

        node = Node::start(dir);
        assert_eq!(
            (node.flow(&flow) == "consumed", node.sessions(&email)),
            (committed, usize::from(committed)),
            "{at}"
        );
        let again = node.client().enter(&flow, &code, false).ok();
        let expected = if committed { "RESTART_FLOW_ERROR" } else { "OK" };
        assert_eq!(again["status"], expected, "{at}");
        assert_eq!(node.client().enter(&flow, &code, false).ok()["status"], "RESTART_FLOW_ERROR", "{at}");
        assert_eq!((node.flow(&flow), node.sessions(&email)), (json!("consumed"), 1), "{at}");
    }
}

/// A flow of a first factor, with its code.
fn first(node: &Node, dir: &std::path::Path, email: &str) -> (Client, Value, String) {
    let mut client = node.client();
    let flow = client.ask_code(email, false).ok();
    let code = code_after(node, dir, email, 0);
    (client, flow, code)
}

#[test]
fn sec_o08_a_kill_at_any_moment_leaves_both_or_neither() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, mut node) = (dir.path(), Node::start(dir.path()));
    // The first one signs up and in undisturbed, so that the rounds differ in the moment alone.
    by_code(&node, dir, "zero@shop.example");
    for round in 1..=10 {
        let email = format!("user{round}@shop.example");
        let (client, flow, code) = first(&node, dir, &email);
        let body = guess(&flow, &code, false);
        let mut asking = client.clone();
        let call =
            std::thread::spawn(move || asking.try_call("POST", "/auth/signinup/code/consume", Some(body)));
        // From the first charge to the last byte: some die before, some in the middle, some after the commit.
        std::thread::sleep(std::time::Duration::from_millis(4 * round - 3));
        node.kill();
        let answered = call.join().unwrap().is_some_and(|answer| answer.body["status"] == "OK");
        node = Node::start(dir);
        let (spent, sessions) = (node.flow(&flow) == "consumed", node.sessions(&email));
        assert_eq!(sessions, usize::from(spent), "round {round}");
        assert!(!answered || spent, "round {round}: what was answered is kept");
        let again = node.client().enter(&flow, &code, false).ok();
        assert_eq!(again["status"] == "OK", !spent, "round {round}: {again}");
        assert_eq!(node.sessions(&email), 1);
    }
}

#[test]
fn sec_o04_a_crash_gives_no_guess_back() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, mut node) = (dir.path(), Node::start(dir.path()));
    let (_, flow, code) = first(&node, dir, ALICE);
    for n in 0..5 {
        let mut client = node.client();
        let body = guess(&flow, &wrong(&code, n), false);
        let consume = || client.try_call("POST", "/auth/signinup/code/consume", Some(body));
        node.killed_at("otp.reserve.after_commit", 1, consume);
        node = Node::start(dir);
    }
    assert_eq!(node.client().enter(&flow, &code, false).ok()["status"], "RESTART_FLOW_ERROR");
    assert_eq!((node.state(ALICE)["comparisons"].clone(), node.sessions(ALICE)), (json!(0), 0));
}

#[test]
fn sec_v01_a_code_and_its_message_are_committed_together() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, mut ahead) = (dir.path(), 0);
    for (n, (at, kept)) in
        [("otp.create.before_commit", 0), ("otp.create.after_commit", 1)].iter().enumerate()
    {
        let (node, email) = (Node::with(dir, ahead, &[]), format!("user{n}@shop.example"));
        let mut client = node.client();
        let body = json!({ "email": email });
        node.killed_at(at, 1, || client.try_call("POST", "/auth/signinup/code", Some(body)));
        // The one who made it is gone: another one sends it when the lease is over.
        ahead += 31;
        let node = Node::with(dir, ahead, &[]);
        let flows = node.state(ALICE)["flows"].as_object().unwrap().len();
        until("the queue", || node.state(ALICE)["queued"] == 0);
        assert_eq!((flows, sent(dir, &email).len()), (*kept, *kept), "{at}");
    }
}

#[test]
fn sec_v03_v04_a_workers_death_loses_no_message_and_costs_one_duplicate_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, mut ahead) = (dir.path(), 0);
    for (n, (at, by_then)) in [("outbox.claimed", 0), ("outbox.sent_before_ack", 1)].into_iter().enumerate() {
        let (node, email) = (Node::with(dir, ahead, &[]), format!("user{n}@shop.example"));
        let mut client = node.client();
        let body = json!({ "email": email });
        let mut flow = Value::Null;
        let ask = || {
            let answer = client.try_call("POST", "/auth/signinup/code", Some(body))?;
            flow = answer.body.clone();
            Some(answer)
        };
        // The answer doesn't wait for the message (row V01).
        let answer = node.killed_at(at, 1, ask);
        assert_eq!(answer.map(|answer| answer.status), Some(200), "{at}");
        assert_eq!(sent(dir, &email).len(), by_then, "{at}");
        // Its lease is somebody's yet: nobody sends it twice while its holder may be at it.
        let early = Node::with(dir, ahead, &[]);
        assert_eq!(early.state(ALICE)["queued"], 1);
        drop(early);
        assert_eq!(sent(dir, &email).len(), by_then, "{at}");
        ahead += 31;
        let node = Node::with(dir, ahead, &[]);
        until("the queue", || node.state(ALICE)["queued"] == 0);
        let codes = sent(dir, &email);
        assert_eq!(codes.len(), by_then + 1, "{at}");
        assert!(codes.iter().all(|code| *code == codes[0]), "never another code");
        assert_eq!(node.client().enter(&flow, &codes[0], false).ok()["status"], "OK");
    }
}
