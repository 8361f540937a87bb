//! Three processes on one file: what is decided in one bites in the others within seconds, and who isn't
//! concerned costs them nothing.
//!
//! A process is this test binary once more, told by its environment to serve; it reads commands, one a line, and
//! answers with a line.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use tower_mfa::{
    FactorId,
    account::KeyState,
    config::Secrets,
    ident::{SessionHandle, SystemClock, TenantId, UserId},
    policy::ForRole,
    store::SqliteStore,
};

use crate::{
    spy::{ALICE, BOB, handle, shop},
    support::{Mode, TestApp},
};

const NODE: &str = "MFA_TEST_NODE";
const CAROL: &str = "carol@shop.example";
/// A line that is an answer, among those of the test harness.
const MARK: &str = "@ ";

struct Node {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Node {
    fn start(dir: &Path, name: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(NODE, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (asks, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut node = Self { child, asks, answers: BufReader::new(answers) };
        assert_eq!(node.answer(), "ready");
        node
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.asks, "{command}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the process ended");
            if let Some((_, answer)) = line.trim_end().split_once(MARK) {
                return answer.to_owned();
            }
        }
    }

    fn status(&mut self, token: &str) -> String {
        self.ask(&format!("get {token}"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process does with its commands.
async fn serve(dir: &Path) {
    let store = SqliteStore::open(dir.join("db")).await.unwrap();
    let app = TestApp::on(shop(), Secrets::file(dir.join("key")).unwrap(), store, |b| {
        b.clock(SystemClock::new()).policy(ForRole::new("admin", FactorId::PASSWORD))
    })
    .await;
    while !app.mfa.is_ready() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{MARK}ready");
    loop {
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|read| (read > 0).then_some(line))
        });
        let Some(line) = line.await.unwrap().unwrap() else { return };
        let words: Vec<&str> = line.split_whitespace().collect();
        let get = |token: &str| {
            let mut client = app.browser(Mode::Header);
            client.access = Some(token.to_owned());
            async move { client.get("/api/me").await }
        };
        let answer = match words[..] {
            ["sign-up", email] => {
                let mut client = app.browser(Mode::Header);
                client.by_code(email).await;
                format!("{} {} {}", client.access.clone().unwrap(), handle(&client), app.user(email).await)
            }
            ["get", token] => {
                let answer = get(token).await;
                format!("{} {}", answer.status.as_u16(), answer.body["message"].as_str().unwrap_or("-"))
            }
            // So many requests; how many reads and writes the store saw meanwhile, whoever made them.
            ["get", token, many] => {
                let before = app.store.calls();
                for _ in 0..many.parse().unwrap() {
                    get(token).await.is(200);
                }
                (app.store.calls() - before).to_string()
            }
            ["grant", user] => {
                let user = UserId::parse(user).unwrap();
                app.mfa.roles().grant(&user, &TenantId::PUBLIC, "admin").await.unwrap();
                "done".to_owned()
            }
            ["revoke", handle] => {
                app.mfa.sessions().revoke(&SessionHandle::parse(handle).unwrap()).await.unwrap().to_string()
            }
            ["leaked"] => {
                let keys = app.mfa.keys().list().await.unwrap();
                let signing = keys.iter().find(|key| key.state == KeyState::Signing).unwrap();
                app.mfa.keys().revoke(&signing.kid).await.unwrap();
                "done".to_owned()
            }
            _ => panic!("no command: {line}"),
        };
        println!("{MARK}{answer}");
    }
}

/// Whether this is a process that serves; it ends with its commands.
fn is_node() -> bool {
    let Ok(dir) = env::var(NODE) else { return false };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(serve(Path::new(&dir)));
    true
}

fn three(name: &str) -> (tempfile::TempDir, [Node; 3]) {
    let dir = tempfile::tempdir().unwrap();
    drop(Secrets::file(dir.path().join("key")).unwrap());
    let nodes = [0, 1, 2].map(|_| Node::start(dir.path(), name));
    (dir, nodes)
}

fn until(within: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < within, "{what}: it takes too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_one_process_decides_bites_in_the_others_within_two_seconds() {
    if is_node() {
        return;
    }
    let (_dir, mut nodes) =
        three("processes::what_one_process_decides_bites_in_the_others_within_two_seconds");
    let mut sign_up = |email: &str| -> Vec<String> {
        nodes[0].ask(&format!("sign-up {email}")).split(' ').map(str::to_owned).collect()
    };
    let (alice, bob, carol) = (sign_up(ALICE), sign_up(BOB), sign_up(CAROL));
    for node in &mut nodes {
        for who in [&alice, &bob, &carol] {
            assert_eq!(node.status(&who[0]), "200 -");
        }
    }
    let within = Duration::from_secs(2);
    assert_eq!(nodes[1].ask(&format!("grant {}", alice[2])), "done");
    assert_eq!(nodes[1].status(&alice[0]), "403 invalid claim");
    until(within, "a role", || nodes[0].status(&alice[0]).starts_with("403"));
    until(within, "a role", || nodes[2].status(&alice[0]).starts_with("403"));
    assert_eq!(nodes[2].ask(&format!("revoke {}", bob[1])), "true");
    assert_eq!(nodes[2].status(&bob[0]), "401 unauthorised");
    until(within, "a revocation", || nodes[0].status(&bob[0]).starts_with("401"));
    until(within, "a revocation", || nodes[1].status(&bob[0]).starts_with("401"));
    // Whom nothing touched costs the store nothing. A process looks after its keys every 30 s, so one of two
    // windows may have that one read in it.
    for node in &mut nodes {
        let calls = [0, 1].map(|_| node.ask(&format!("get {} 300", carol[0])).parse::<u64>().unwrap());
        assert!(calls.contains(&0) && calls[0] + calls[1] <= 1, "{calls:?}");
    }
}

#[test]
fn sec_j08_a_leaked_key_is_refused_in_three_processes() {
    if is_node() {
        return;
    }
    let (_dir, mut nodes) = three("processes::sec_j08_a_leaked_key_is_refused_in_three_processes");
    let alice = nodes[0].ask(&format!("sign-up {ALICE}"));
    let token = alice.split(' ').next().unwrap();
    for node in &mut nodes {
        assert_eq!(node.status(token), "200 -");
    }
    assert_eq!(nodes[1].ask("leaked"), "done");
    assert_eq!(nodes[1].status(token), "401 try refresh token");
    for n in [0, 2] {
        until(Duration::from_secs(10), "a leaked key", || nodes[n].status(token) == "401 try refresh token");
    }
    // A session by another key, everywhere.
    let bob = nodes[2].ask(&format!("sign-up {BOB}"));
    for node in &mut nodes {
        until(Duration::from_secs(10), "the next key", || {
            node.status(bob.split(' ').next().unwrap()) == "200 -"
        });
    }
}
