//! Failpoints and what holds at them: real processes on one SQLite file that fail, wait or are killed (SIGKILL) at
//! a named place (`spec/security.md` 18), and what is found afterwards.
//!
//! These are unit tests, for only those have the failpoints without another feature: `cargo test --features full`
//! runs them. A server is this test binary once more, told by its environment to serve; each place is armed over
//! HTTP.
#![allow(
    clippy::assertions_on_result_states,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that fails may panic"
)]

use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use self::client::{Answer, Client, credentials, guess};

#[path = "../support/client.rs"]
mod client;
mod codes;
mod faults;
mod places;
mod server;
mod sessions;

const ALICE: &str = "alice@shop.example";
/// Tells this binary to serve, and where its files are.
const NODE: &str = "MFA_TEST_CRASH_NODE";
/// How many seconds its clock is ahead.
const AHEAD: &str = "MFA_TEST_CRASH_AHEAD";
/// A line that says something, among those of the test harness.
const MARK: &str = "@ ";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves until it is killed, if this is a process that was told to.
#[test]
fn node() {
    let Ok(dir) = std::env::var(NODE) else { return };
    let ahead = std::env::var(AHEAD).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(server::serve(Path::new(&dir), Duration::from_secs(ahead)));
}

/// A server process.
struct Node {
    child: Child,
    address: SocketAddr,
    said: mpsc::Receiver<String>,
}

impl Node {
    fn start(dir: &Path) -> Self {
        Self::with(dir, 0, &[])
    }

    /// With its clock ahead, and places armed from the start.
    fn with(dir: &Path, ahead: u64, places: &[&str]) -> Self {
        let armed: Vec<String> = places.iter().map(|place| format!("fp:{place}")).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::node", "--exact", "--nocapture"])
            .env(NODE, dir)
            .env(AHEAD, ahead.to_string())
            .env("FAILPOINTS", armed.join(";"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, line)) = line.split_once(MARK) {
                    let _ = say.send(line.to_owned());
                }
            }
        });
        let mut node = Self { child, address: (Ipv4Addr::LOCALHOST, 0).into(), said };
        node.address = node.said.recv_timeout(PATIENCE).expect("the server starts").parse().unwrap();
        node
    }

    fn client(&self) -> Client {
        Client::to(self.address)
    }

    /// A client of another process, before this one.
    fn adopt(&self, client: &Client) -> Client {
        Client { address: self.address, ..client.clone() }
    }

    /// Says what happens at a place from now on, in the words of the crate `fail`; `off` for nothing.
    fn arm(&self, place: &str, actions: &str) {
        let body = json!({ "place": format!("fp:{place}"), "actions": actions });
        self.client().put("/arm", body).ok();
    }

    /// Kills the process where the `nth` to come there has reached a place, which `ask` leads to. The answer, if
    /// there was one before.
    fn killed_at(
        mut self,
        place: &str,
        nth: u32,
        ask: impl FnOnce() -> Option<Answer> + Send,
    ) -> Option<Answer> {
        self.arm(place, &format!("wait {nth}"));
        std::thread::scope(|scope| {
            let asking = scope.spawn(ask);
            let reached = self.said.recv_timeout(PATIENCE);
            self.kill();
            let answer = asking.join().unwrap();
            let told = answer.as_ref().map(|answer| (answer.status, &answer.body));
            assert_eq!(reached.as_deref(), Ok(&*format!("fp:{place}")), "{place} wasn't reached: {told:?}");
            answer
        })
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What is stored, and what was counted.
    fn state(&self, email: &str) -> Value {
        self.client().get(&format!("/state?email={email}")).ok()
    }

    /// How a flow stands: `live`, `consumed`, `voided`, or null.
    fn flow(&self, flow: &Value) -> Value {
        let flow = flow["preAuthSessionId"].as_str().unwrap();
        self.state(ALICE)["flows"][flow].clone()
    }

    /// How many sessions a user has.
    fn sessions(&self, email: &str) -> usize {
        self.state(email)["sessions"].as_array().unwrap().len()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was sent to an address, by whichever process: codes, oldest first.
fn sent(dir: &Path, email: &str) -> Vec<String> {
    let lines = std::fs::read_to_string(dir.join("sent")).unwrap_or_default();
    let to = lines.lines().filter_map(|line| line.split_once(' ')).filter(|(to, _)| *to == email);
    to.map(|(_, code)| code.to_owned()).collect()
}

/// The code sent to an address after `before` others, and nothing waits to be sent any more.
fn code_after(node: &Node, dir: &Path, email: &str, before: usize) -> String {
    until("a code", || sent(dir, email).len() > before && node.state(email)["queued"] == 0);
    sent(dir, email).pop().unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}: it takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Alice has signed up, and passes the second factor whenever she is asked for it.
fn place() -> (tempfile::TempDir, Node) {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    let mut alice = node.client();
    alice.sign_up(ALICE);
    let flow = alice.ask_code(ALICE, true).ok();
    let code = code_after(&node, dir.path(), ALICE, 0);
    assert_eq!(alice.enter(&flow, &code, true).ok()["status"], "OK");
    assert_eq!(alice.get("/api/me").status, 200);
    (dir, node)
}

/// Signs Alice in by password: a session that lacks the second factor.
fn half(node: &Node) -> Client {
    let mut alice = node.client();
    assert_eq!(alice.post("/auth/signin", credentials(ALICE)).ok()["status"], "OK");
    assert_eq!((alice.get("/api/half").status, alice.get("/api/me").status), (200, 403));
    alice
}

/// A flow for Alice's second factor, with its code.
fn asked(node: &Node, dir: &Path, alice: &mut Client) -> (Value, String) {
    let before = sent(dir, ALICE).len();
    let flow = alice.ask_code(ALICE, true).ok();
    (flow, code_after(node, dir, ALICE, before))
}

/// Signs somebody in by a code as first factor.
fn by_code(node: &Node, dir: &Path, email: &str) -> Client {
    let (mut client, before) = (node.client(), sent(dir, email).len());
    let flow = client.ask_code(email, false).ok();
    let code = code_after(node, dir, email, before);
    assert_eq!(client.enter(&flow, &code, false).ok()["status"], "OK");
    client
}

/// No token is given, and none taken away.
fn untouched(answer: &Answer) {
    for name in ["set-cookie", "front-token", "st-access-token", "st-refresh-token", "anti-csrf"] {
        assert!(!answer.headers.contains_key(name), "{name} {:?}", answer.headers);
    }
}

/// Enters a code as second factor; the process may not live to answer.
fn enter(client: &Client, flow: &Value, code: &str) -> Option<Answer> {
    client.clone().try_call("POST", "/auth/signinup/code/consume", Some(guess(flow, code, true)))
}
