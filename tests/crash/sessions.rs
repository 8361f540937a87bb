//! Sessions: refreshed, ended and made while the process fails or dies.

use serde_json::json;

use super::{
    ALICE, Node, by_code,
    client::{Answer, Client, credentials},
    half, place, untouched,
};

/// What a failure must be: 503, and nothing of a session in the answer.
fn unavailable(answer: &Answer) {
    assert_eq!((answer.status, &answer.body["message"]), (503, &json!("temporarily unavailable")));
    assert!(answer.headers.contains_key("retry-after"));
    untouched(answer);
}

fn refresh(client: &Client) -> Option<Answer> {
    client.clone().try_call("POST", "/auth/session/refresh", None)
}

#[test]
fn sec_r03_a_lost_answer_is_given_again_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, mut node) = (dir.path(), Node::start(dir.path()));
    for (at, nth, committed) in [
        ("refresh.after_lock", 1, false),
        ("refresh.before_commit", 1, false),
        ("store.commit.sent", 1, true),
        ("refresh.after_commit_before_response", 1, true),
    ] {
        let alice = by_code(&node, dir, ALICE);
        let answer = node.killed_at(at, nth, || refresh(&alice));
        assert!(answer.is_none(), "{at}: {answer:?}");
        node = Node::start(dir);
        let (mut one, mut other) = (node.adopt(&alice), node.adopt(&alice));
        one.refresh().ok();
        // The first of the two was the rotation itself, unless that was committed before the end.
        assert_eq!(node.state(ALICE)["graceHits"], u64::from(committed), "{at}");
        other.refresh().ok();
        assert_eq!(one.refresh, other.refresh, "the same successor");
        assert_ne!(one.refresh, alice.refresh);
        one.refresh().ok();
        assert_eq!(one.get("/api/me").status, 200, "{at}: no theft");
    }
}

#[test]
fn sec_r03_an_error_after_the_commit_is_a_lost_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, node) = (dir.path(), Node::start(dir.path()));
    let alice = by_code(&node, dir, ALICE);
    for actions in ["return", "panic"] {
        node.arm("refresh.after_commit_before_response", actions);
        let answer = alice.clone().refresh();
        assert_eq!(answer.status, if actions == "return" { 503 } else { 500 });
        untouched(&answer);
    }
    node.arm("refresh.after_commit_before_response", "off");
    let (mut one, mut other) = (alice.clone(), alice.clone());
    one.refresh().ok();
    other.refresh().ok();
    assert_eq!(one.refresh, other.refresh);
    one.refresh().ok();
    assert_eq!(one.get("/api/me").status, 200);
}

#[test]
fn sec_m18_an_outer_timeout_after_the_commit_is_a_lost_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, node) = (dir.path(), Node::start(dir.path()));
    let alice = by_code(&node, dir, ALICE);
    node.arm("refresh.after_commit_before_response", "pause");
    node.client().put("/patience", json!({ "millis": 200 })).ok();
    let answer = alice.clone().refresh();
    assert_eq!(answer.status, 504);
    untouched(&answer);
    node.arm("refresh.after_commit_before_response", "off");
    node.client().put("/patience", json!({ "millis": 0 })).ok();
    let (mut one, mut other) = (alice.clone(), alice.clone());
    one.refresh().ok();
    assert_eq!(node.state(ALICE)["graceHits"], 1, "the rotation was the lost one");
    other.refresh().ok();
    assert_eq!(one.refresh, other.refresh);
    one.refresh().ok();
    assert_eq!(one.get("/api/me").status, 200);
}

#[test]
fn sec_r09_who_dies_over_a_theft_leaves_it_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, mut node) = (dir.path(), Node::start(dir.path()));
    for (at, ended) in [("refresh.reuse_detected", false), ("store.commit.sent", true)] {
        let stolen = by_code(&node, dir, ALICE);
        // Twice on, so that the stolen one is out of any grace.
        let mut alice = stolen.clone();
        alice.refresh().ok();
        alice.refresh().ok();
        let sessions = node.sessions(ALICE);
        let answer = node.killed_at(at, 1, || refresh(&stolen));
        assert!(answer.is_none(), "{at}: {answer:?}");
        node = Node::start(dir);
        assert_eq!(node.sessions(ALICE), sessions - usize::from(ended), "{at}");
        let again = node.adopt(&stolen).refresh();
        let message = if ended { "unauthorised" } else { "token theft detected" };
        assert_eq!((again.status, &again.body["message"]), (401, &json!(message)), "{at}");
        assert_eq!(node.sessions(ALICE), sessions - 1, "{at}: whoever was told so finds no row");
        assert_eq!(node.adopt(&alice).refresh().status, 401, "{at}");
        assert_eq!(node.adopt(&alice).get("/api/checked").status, 401, "{at}");
    }
}

#[test]
fn sec_r16_a_signer_that_fails_leaves_the_line_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, node) = (dir.path(), Node::start(dir.path()));
    let alice = by_code(&node, dir, ALICE);
    node.arm("sign.start", "return");
    for _ in 0..2 {
        unavailable(&alice.clone().refresh());
    }
    node.arm("sign.start", "off");
    let mut alice = alice;
    alice.refresh().ok();
    assert_eq!(node.state(ALICE)["graceHits"], 0, "this was the first rotation");
    assert_eq!(alice.get("/api/me").status, 200);
}

#[test]
fn sec_s12_a_sign_out_that_fails_keeps_session_and_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, mut node) = (dir.path(), Node::start(dir.path()));
    let mut alice = by_code(&node, dir, ALICE);
    node.arm("revoke.before_commit", "return");
    unavailable(&alice.post("/auth/signout", json!({})));
    node.arm("revoke.before_commit", "panic");
    let answer = alice.post("/auth/signout", json!({}));
    assert_eq!(answer.status, 500);
    untouched(&answer);
    node.arm("revoke.before_commit", "off");
    assert_eq!((alice.get("/api/checked").status, node.sessions(ALICE)), (200, 1));

    let dying = alice.clone();
    let answer =
        node.killed_at("revoke.before_commit", 1, || dying.clone().try_call("POST", "/auth/signout", None));
    assert!(answer.is_none(), "{answer:?}");
    node = Node::start(dir);
    let mut alice = node.adopt(&alice);
    assert_eq!((alice.get("/api/checked").status, node.sessions(ALICE)), (200, 1));
    let before = alice.clone();
    assert_eq!(alice.post("/auth/signout", json!({})).ok()["status"], "OK");
    assert_eq!(node.sessions(ALICE), 0);
    assert_eq!(before.clone().refresh().status, 401);
}

#[test]
fn sec_s08_s12_what_was_ended_stays_ended_whoever_dies() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, mut node) = (dir.path(), Node::start(dir.path()));
    for (at, path) in [("store.commit.sent", "/auth/signout"), ("revoke_all.after_epoch", "/revoke")] {
        let alice = by_code(&node, dir, ALICE);
        let (mut asking, body) = (alice.clone(), json!({ "email": ALICE }));
        let method = if path == "/revoke" { "PUT" } else { "POST" };
        node.killed_at(at, 1, || asking.try_call(method, path, Some(body)));
        node = Node::start(dir);
        assert_eq!(node.sessions(ALICE), 0, "{at}");
        assert_eq!(node.adopt(&alice).get("/api/me").status, 401, "{at}");
        assert_eq!(node.adopt(&alice).refresh().status, 401, "{at}");
    }
}

#[test]
fn sec_s19_a_session_that_is_not_written_is_not_there() {
    let (_dir, node) = place();
    let sessions = node.sessions(ALICE);
    for (at, actions, status) in [
        ("session.create.before_commit", "return", 503),
        ("session.create.before_commit", "panic", 500),
        ("store.acquire", "return", 503),
    ] {
        node.arm(at, actions);
        let mut client = node.client();
        let answer = client.post("/auth/signin", credentials(ALICE));
        assert_eq!(answer.status, status, "{at} {actions}");
        untouched(&answer);
        node.arm(at, "off");
        assert_eq!(node.sessions(ALICE), sessions, "{at} {actions}");
    }
    // A handler that changes its session learns it before it answers, and so does the client.
    let mut alice = half(&node);
    for (at, written) in [("sign.start", false), ("store.acquire", false), ("store.commit.sent", true)] {
        node.arm(at, "return");
        let answer = alice.post("/api/write", json!({}));
        assert_eq!(answer.status, 503, "{at}");
        untouched(&answer);
        node.arm(at, "off");
        // A commit whose answer got lost may have happened: it's told as a failure, and safe to do again.
        let again = alice.clone().put("/auth/mfa/info", json!({}));
        assert_eq!(again.status, 200, "{at}");
        assert_eq!(again.headers.contains_key("st-access-token"), written, "{at}");
    }
    assert_eq!(alice.post("/api/write", json!({})).ok()["status"], "OK");
    assert_eq!(alice.get("/api/half").body["n"], 1);
}

#[test]
fn sec_s04_a_name_that_is_always_taken_overwrites_nobody() {
    let (_dir, node) = place();
    node.arm("rng.constant", "return");
    let mut first = half(&node);
    let sessions = node.sessions(ALICE);
    let answer = node.client().post("/auth/signin", credentials(ALICE));
    assert_eq!((answer.status, &answer.body["message"]), (500, &json!("internal error")));
    untouched(&answer);
    node.arm("rng.constant", "off");
    assert_eq!(node.sessions(ALICE), sessions);
    // Whoever has the name keeps it.
    assert_eq!(first.get("/api/half").status, 200);
    first.refresh().ok();
    half(&node);
    assert_eq!(node.sessions(ALICE), sessions + 1);
}
