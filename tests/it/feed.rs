//! The change feed across processes: no change is lost, however long a commit takes.

use std::{
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tower_mfa::{
    FactorId, Mfa, Store,
    config::{AppInfo, Secrets},
    delivery::Outbox,
    ident::{SystemClock, TenantId, Timestamp, UserId},
    policy::ForRole,
    store::{Batch, Commit, Key, Record, Row, Scan, SqliteStore, StoreError},
};

use crate::{
    spy::ALICE,
    support::{Mode, TestApp},
};

const CHILD: &str = "MFA_TEST_FEED_CHILD";

fn app() -> AppInfo {
    AppInfo::new("Shop", "https://api.shop.test", "https://shop.test").unwrap()
}

/// A store whose process stops itself between staging and the first commit that grants a role.
#[derive(Debug)]
struct Stopping(SqliteStore);

impl Store for Stopping {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.0.get(keys).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        self.0.scan(scan).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        if batch.ops().any(|(key, _)| key.as_str().contains("/role/")) {
            // Once only: after it was continued the commit goes on, and a retry doesn't stop again.
            static STOPPED: std::sync::Once = std::sync::Once::new();
            STOPPED.call_once(|| {
                let pid = std::process::id().to_string();
                assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
                // The signal goes to some thread, and may reach this one late on a busy machine.
                std::thread::sleep(Duration::from_secs(1));
            });
        }
        self.0.commit(batch).await
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.0.sweep(before).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.0.now().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_change_is_lost_while_a_process_is_stopped_before_its_commit() {
    if let Ok(dir) = env::var(CHILD) {
        return grant_in_child(Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let secrets = Secrets::file(dir.path().join("key")).unwrap();
    let store = SqliteStore::open(dir.path().join("db")).await.unwrap();
    let parent = TestApp::on(app(), secrets, store, |b| {
        b.clock(SystemClock::new()).policy(ForRole::new("admin", FactorId::OTP_EMAIL))
    })
    .await;
    let mut alice = parent.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    alice.get("/api/me").await.is(200);
    let user = parent.user(ALICE).await;
    fs::write(dir.path().join("user"), user.as_str()).unwrap();

    let name = "feed::no_change_is_lost_while_a_process_is_stopped_before_its_commit";
    let child = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Reaped(child);
    await_stopped(&mut child.0).await;
    // While the child is stopped, the same user's lane moves on, and is read.
    parent.mfa.roles().grant(&user, &TenantId::PUBLIC, "editor").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    alice.get("/api/me").await.is(200);
    assert!(Command::new("kill").args(["-CONT", &child.0.id().to_string()]).status().unwrap().success());
    let status = tokio::task::spawn_blocking(move || child.0.wait().unwrap()).await.unwrap();
    assert!(status.success());
    let start = Instant::now();
    while alice.get("/api/me").await.status != 403 {
        assert!(start.elapsed() < Duration::from_secs(2), "the grant was lost");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let roles = parent.mfa.roles().of(&user, &TenantId::PUBLIC).await.unwrap();
    assert_eq!(roles.iter().map(|role| role.as_str()).collect::<Vec<_>>(), ["editor", "admin"]);
}

/// A child that doesn't outlive the test, stopped or not.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn grant_in_child(dir: &Path) {
    let secrets = Secrets::file(dir.join("key")).unwrap();
    let store = Stopping(SqliteStore::open(dir.join("db")).await.unwrap());
    let mfa = Mfa::builder(app(), secrets, store).delivery(Outbox::new()).build().unwrap();
    // A process stopped in the middle of its upkeep's work on the file would hold a lock. The first round
    // writes, and there is one every second: this is in between.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let user = UserId::parse(&fs::read_to_string(dir.join("user")).unwrap()).unwrap();
    mfa.roles().grant(&user, &TenantId::PUBLIC, "admin").await.unwrap();
}

/// Waits until the child has stopped itself.
async fn await_stopped(child: &mut Child) {
    let start = Instant::now();
    loop {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if state == Some('T') {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "the child ended instead of stopping");
        assert!(start.elapsed() < Duration::from_secs(20), "the child did not stop");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
