//! SQLite: the suite in every way a file can be shared, and what only a file can suffer.

use std::{
    future::poll_fn,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use serde_json::{Value, json};
use sqlx::{
    Connection as _, Row as _,
    sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions},
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tower_mfa::{
    account::User,
    ident::Timestamp,
    store::{
        Batch, Commit, Key, Op, Record, Row, Scan, SqliteStore, Store, StoreError, StoreErrorKind, Version,
        conformance,
    },
};

use super::suite;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mfa.db");
    suite(SqliteStore::open(&path).await.unwrap()).await;
    conformance::applied_is_durable(async || SqliteStore::open(&path).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_handles_on_one_file_keep_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mfa.db");
    let handles = [SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap()];
    suite(InTurn { handles, calls: AtomicUsize::new(0) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_d13_a_pool_of_one_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    suite(SqliteStore::from_pool(pool(&folder, 1).await).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_apps_own_pool_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let app = pool(&folder, 6).await;
    sqlx::query("create table orders (id integer primary key)").execute(&app).await.unwrap();
    suite(SqliteStore::from_pool(app.clone()).await.unwrap()).await;
    sqlx::query("insert into orders values (1)").execute(&app).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_z04_a_schema_made_many_times_at_once_is_made_once() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mfa.db");
        let mut openers = JoinSet::new();
        for n in 0..12 {
            let path = path.clone();
            openers.spawn(async move {
                let store = SqliteStore::open(path).await.unwrap();
                assert_eq!(put(&store, &format!("{n}"), json!(n)).await, Commit::Applied);
            });
        }
        while let Some(opener) = openers.join_next().await {
            opener.unwrap();
        }
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.scan(&Scan::under(Key::new(["k"]))).await.unwrap().len(), 2 * 12);
    }
}

#[tokio::test]
async fn sec_z02_a_schema_newer_than_the_code_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mfa.db");
    drop(SqliteStore::open(&path).await.unwrap());
    let mut file = raw(&path).await;
    // A later release that this one can live with, then one that it can't.
    sqlx::query("insert into mfa_schema values (2, 1, '')").execute(&mut file).await.unwrap();
    assert!(SqliteStore::open(&path).await.is_ok());
    sqlx::query("insert into mfa_schema values (3, 3, '')").execute(&mut file).await.unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Broken);
    assert!(cause(&error).contains("newer"), "{error:?}");
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mfa.db");
    std::fs::write(&path, "not a database, but long enough to be mistaken for the header of one".repeat(50))
        .unwrap();
    assert_eq!(SqliteStore::open(&path).await.unwrap_err().kind(), StoreErrorKind::Broken);
    let nowhere = folder.path().join("secret-folder").join("mfa.db");
    let error = SqliteStore::open(nowhere).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Broken);
    assert!(!format!("{error:?}").contains("secret-folder"), "{error:?}");
}

#[tokio::test]
async fn debug_says_no_path() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("secret-name.db")).await.unwrap();
    assert_eq!(format!("{store:?}"), "SqliteStore(SqlStore { .. })");
}

#[tokio::test]
async fn sec_d12_the_connection_is_set_up_for_power_cuts() {
    let folder = tempfile::tempdir().unwrap();
    let app = pool(&folder, 1).await;
    let store = SqliteStore::from_pool(app.clone()).await.unwrap();
    sqlx::query("pragma synchronous = off").execute(&app).await.unwrap();
    assert_eq!(put(&store, "a", json!(1)).await, Commit::Applied);
    let synchronous: i64 = sqlx::query_scalar("pragma synchronous").fetch_one(&app).await.unwrap();
    let mode: String = sqlx::query_scalar("pragma journal_mode").fetch_one(&app).await.unwrap();
    assert_eq!((synchronous, mode.as_str()), (2, "wal"));
}

#[tokio::test]
async fn sec_d05_a_full_disk_fails_loudly_and_heals_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("app.db"))
        .create_if_missing(true)
        .pragma("max_page_count", "60");
    let app = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
    let store = SqliteStore::from_pool(app).await.unwrap();
    let large = "x".repeat(30_000);
    let mut kept = Vec::new();
    let error = loop {
        let key = format!("{:03}", kept.len());
        match insert(&store, &key, json!(large)).await {
            Ok((_, row)) => kept.push((key, row)),
            Err(error) => break error,
        }
        assert!(kept.len() < 100, "the disk is never full");
    };
    assert_eq!(error.kind(), StoreErrorKind::Broken, "{error:?}");
    // Nothing of the one that failed, all of the others, and reading goes on.
    let found = store.scan(&Scan::under(Key::new(["k"]))).await.unwrap();
    assert_eq!(found.len(), kept.len());
    // A large batch and a small one together: each gets its own answer.
    let (failed, fine) =
        tokio::join!(insert(&store, "x", json!(large)), remove(&store, &kept[0].0, &kept[0].1));
    assert_eq!(failed.unwrap_err().kind(), StoreErrorKind::Broken);
    assert_eq!(fine.unwrap(), Commit::Applied);
    assert_eq!(remove(&store, &kept[1].0, &kept[1].1).await.unwrap(), Commit::Applied);
    assert!(insert(&store, "again", json!(large)).await.is_ok(), "space came back");
}

#[tokio::test]
async fn sec_d02_a_locked_file_is_refused_not_broken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mfa.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let mut other = raw(&path).await;
    sqlx::query("begin immediate").execute(&mut other).await.unwrap();
    let error = insert(&store, "a", json!(1)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused, "{error:?}");
    assert_eq!(store.get(&[key("a")]).await.unwrap(), [None], "reading goes on");
    sqlx::query("rollback").execute(&mut other).await.unwrap();
    assert!(insert(&store, "a", json!(1)).await.is_ok());
}

#[tokio::test]
async fn sec_d13_an_exhausted_pool_is_refused_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let app = pool(&folder, 1).await;
    let store = SqliteStore::from_pool(app.clone()).await.unwrap();
    let held = app.acquire().await.unwrap();
    let start = std::time::Instant::now();
    let (read, write) = (store.get(&[key("a")]).await, insert(&store, "a", json!(1)).await);
    assert_eq!(read.unwrap_err().kind(), StoreErrorKind::Refused);
    assert_eq!(write.unwrap_err().kind(), StoreErrorKind::Refused);
    assert!(start.elapsed() < Duration::from_secs(8));
    drop(held);
    assert!(insert(&store, "a", json!(1)).await.is_ok());
}

#[tokio::test]
async fn sec_d14_an_open_transaction_in_a_pool_is_not_written_into() {
    let folder = tempfile::tempdir().unwrap();
    let app = pool(&folder, 1).await;
    let store = SqliteStore::from_pool(app.clone()).await.unwrap();
    // An app forgets a transaction on a connection it gives back.
    sqlx::query("begin").execute(&app).await.unwrap();
    sqlx::query("create table lost (id integer)").execute(&app).await.unwrap();
    let error = insert(&store, "a", json!(1)).await.unwrap_err();
    assert_ne!(error.kind(), StoreErrorKind::Unknown, "{error:?}");
    assert!(insert(&store, "a", json!(1)).await.is_ok(), "the connection was closed, the next is clean");
    assert_eq!(store.scan(&Scan::under(Key::new(["k"]))).await.unwrap().len(), 1);
}

#[test]
fn a_store_outlives_the_runtime_that_opened_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mfa.db");
    let store =
        tokio::runtime::Runtime::new().unwrap().block_on(async { SqliteStore::open(&path).await.unwrap() });
    for n in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(put(&store, &n.to_string(), json!(n))), Commit::Applied);
        // A runtime that goes away in the middle of a commit.
        runtime.block_on(async {
            let late = put(&store, "late", json!(n));
            let _ = tokio::time::timeout(Duration::from_micros(50), late).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_d09_sec_d14_callers_that_leave_get_nobody_elses_answer() {
    let folder = tempfile::tempdir().unwrap();
    for connections in [1, 3] {
        let store = Arc::new(SqliteStore::from_pool(pool(&folder, connections).await).await.unwrap());
        let mut callers = JoinSet::new();
        for caller in 0..12_u64 {
            let store = Arc::clone(&store);
            callers.spawn(async move {
                let mut rng = caller;
                for round in 0..40 {
                    let name = format!("{connections}-{caller}-{round}");
                    let polls = draw(&mut rng) % 6;
                    let _ = at_most(polls, put(&store, &name, json!(name))).await;
                    let polls = draw(&mut rng) % 6;
                    if let Some(rows) = at_most(polls, store.get(&[key(&name)])).await {
                        let body = rows.unwrap().remove(0).map(|row| row.body);
                        assert!(body.is_none() || body == Some(json!(name)), "{name}: {body:?}");
                    }
                    // Whole or nothing, seen through a read that isn't left.
                    let pair = store.get(&[key(&name), key(&format!("{name}-twin"))]).await.unwrap();
                    assert_eq!(pair[0].is_some(), pair[1].is_some(), "{name}");
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
        assert_eq!(put(&store, &format!("{connections}-end"), json!(1)).await, Commit::Applied);
    }
}

#[tokio::test]
async fn views_are_for_people_and_hold_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mfa.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let user: User = serde_json::from_value(json!({
        "id": "u-1", "primary": true, "logins": [
            {"id": "u-1", "kind": "emailpassword", "tenants": ["public", "acme"], "joined_at": 1_700_000_000_000_i64,
             "verified": true, "email": "a@b.test"},
            {"id": "u-2", "kind": "thirdparty", "tenants": ["public"], "joined_at": 1_600_000_000_000_i64,
             "verified": false, "third_party": {"provider": "github", "subject": "7"}},
        ],
    }))
    .unwrap();
    let secret = json!({"user": "u-1", "hash": "TOPSECRET"});
    for (path, body) in [
        (vec!["user", "u-1"], serde_json::to_value(&user).unwrap()),
        (vec!["user", "u-1", "totp"], json!({"seed": "TOPSECRET"})),
        (vec!["userx", "u-3"], json!({"id": "TOPSECRET"})),
        (vec!["t", "public", "session", "h-1"], secret.clone()),
        (vec!["t", "public", "session", "h-1", "more"], secret.clone()),
        (vec!["t", "acme", "code", "c-1"], secret.clone()),
        (vec!["t", "x", "y", "session", "h-2"], secret.clone()),
        (vec!["t", "x"], secret.clone()),
    ] {
        let expires_at = Some(Timestamp::from_secs(4_102_444_800));
        let mut batch = Batch::new();
        batch.push(Key::new(path), Op::Upsert(Row { version: Version::random().unwrap(), expires_at, body }));
        assert_eq!(store.commit(batch).await.unwrap(), Commit::Applied);
    }
    let mut file = raw(&path).await;
    let mut seen = Vec::new();
    for sql in [
        "select json_array(tenant, handle, user_id, expires_at) from mfa_sessions",
        "select json_array(tenant, id, expires_at) from mfa_codes",
        "select json_array(user_id, is_primary, login_methods, joined_at) from mfa_users",
        "select json_array(user_id, login_id, kind, tenants, is_verified, email, phone, provider, subject, joined_at) \
         from mfa_login_methods order by login_id",
    ] {
        for row in sqlx::query(sql).fetch_all(&mut file).await.unwrap() {
            seen.push(serde_json::from_str::<Value>(row.get(0)).unwrap());
        }
    }
    let far = "2100-01-01T00:00:00Z";
    let wanted = [
        json!(["public", "h-1", "u-1", far]),
        json!(["acme", "c-1", far]),
        json!(["u-1", 1, 2, "2020-09-13T12:26:40Z"]),
        json!([
            "u-1",
            "u-1",
            "emailpassword",
            "[\"public\",\"acme\"]",
            1,
            "a@b.test",
            null,
            null,
            null,
            "2023-11-14T22:13:20Z"
        ]),
        json!([
            "u-1",
            "u-2",
            "thirdparty",
            "[\"public\"]",
            0,
            null,
            null,
            "github",
            "7",
            "2020-09-13T12:26:40Z"
        ]),
    ];
    assert_eq!(seen, wanted);
    for view in ["mfa_sessions", "mfa_codes", "mfa_users", "mfa_login_methods"] {
        let sql = sqlx::AssertSqlSafe(format!("select * from {view}"));
        for row in sqlx::query(sql).fetch_all(&mut file).await.unwrap() {
            for at in 0..row.len() {
                let cell: Option<String> = row.try_get_unchecked(at).unwrap();
                assert!(!cell.unwrap_or_default().contains("TOPSECRET"), "{view}");
            }
        }
    }
}

/// Row D12: race(32, 4 processes).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_d12_four_processes_on_one_file_lose_no_update() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mfa.db");
    let processes: Vec<Child> = (0..4).map(|_| process("increment", &path)).collect();
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    let store = SqliteStore::open(&path).await.unwrap();
    let row = store.get(&[key("counter")]).await.unwrap().remove(0).unwrap();
    assert_eq!(row.body, json!(4 * TASKS * ROUNDS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_d12_what_was_applied_outlives_a_killed_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mfa.db");
    for acknowledged in [1, 25, 120] {
        let mut process = process("append", &path);
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let told: Vec<String> = lines
            .filter_map(|line| Some(line.strip_prefix("applied ")?.to_owned()))
            .take(acknowledged)
            .collect();
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(told.len(), acknowledged);
        let store = SqliteStore::open(&path).await.unwrap();
        for name in told {
            let pair = store.get(&[key(&name), key(&format!("{name}-twin"))]).await.unwrap();
            assert!(pair.iter().all(Option::is_some), "{name} was applied, and is gone");
        }
        // What was under way is whole or nothing.
        for Record { key, .. } in store.scan(&Scan::under(Key::new(["k"]))).await.unwrap() {
            let name = key.as_str().trim_end_matches("-twin");
            let twin = Key::parse(&format!("{name}-twin")).unwrap();
            assert!(
                store.get(&[Key::parse(name).unwrap(), twin]).await.unwrap().iter().all(Option::is_some),
                "{key:?}"
            );
        }
    }
}

/// What the other processes do; nothing when run as a test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_another_process() {
    let (Ok(work), Some(path)) = (std::env::var(WORK), std::env::var_os(FILE)) else { return };
    let store = Arc::new(SqliteStore::open(path).await.unwrap());
    if work == "append" {
        let run = Version::random().unwrap().to_text();
        for n in 0_u64.. {
            let name = format!("{run}-{n}");
            assert_eq!(put(&store, &name, json!(n)).await, Commit::Applied);
            println!("\napplied {name}");
        }
    }
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for _ in 0..ROUNDS {
                increment(&store).await;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}

async fn increment(store: &SqliteStore) {
    loop {
        let old = store.get(&[key("counter")]).await.unwrap().remove(0);
        let n = old.as_ref().map_or(0, |row| row.body.as_u64().unwrap());
        let row = Row { version: Version::random().unwrap(), expires_at: None, body: json!(n + 1) };
        let mut batch = Batch::new();
        batch.push(key("counter"), old.map_or(Op::Insert(row.clone()), |old| Op::Replace(old.version, row)));
        match store.commit(batch).await {
            Ok(Commit::Applied) => return,
            Ok(Commit::Conflict(_)) => {}
            Err(error) => assert_eq!(error.kind(), StoreErrorKind::Refused, "{error:?}"),
        }
    }
}

const WORK: &str = "MFA_STORES_WORK";
const FILE: &str = "MFA_STORES_FILE";
const TASKS: u64 = 8;
const ROUNDS: u64 = 25;

/// This very test binary, once more.
fn process(work: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sqlite::in_another_process", "--nocapture"])
        .env(WORK, work)
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Calls go to one handle and the other.
#[derive(Debug)]
struct InTurn {
    handles: [SqliteStore; 2],
    calls: AtomicUsize,
}

impl InTurn {
    fn next(&self) -> &SqliteStore {
        &self.handles[self.calls.fetch_add(1, Ordering::SeqCst) % 2]
    }
}

impl Store for InTurn {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.next().get(keys).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        self.next().scan(scan).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        self.next().commit(batch).await
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.next().sweep(before).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.next().now().await
    }
}

async fn pool(folder: &TempDir, connections: u32) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(folder.path().join("app.db")).create_if_missing(true);
    SqlitePoolOptions::new().max_connections(connections).connect_with(options).await.unwrap()
}

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.unwrap()
}

fn key(name: &str) -> Key {
    Key::new(["k", name])
}

/// Two records in one batch, each there only with the other.
async fn put(store: &SqliteStore, name: &str, body: Value) -> Commit {
    let mut batch = Batch::new();
    for key in [key(name), key(&format!("{name}-twin"))] {
        batch.push(
            key,
            Op::Upsert(Row { version: Version::random().unwrap(), expires_at: None, body: body.clone() }),
        );
    }
    store.commit(batch).await.unwrap()
}

async fn insert(store: &SqliteStore, name: &str, body: Value) -> Result<(Commit, Row), StoreError> {
    let row = Row { version: Version::random().unwrap(), expires_at: None, body };
    let mut batch = Batch::new();
    batch.push(key(name), Op::Insert(row.clone()));
    Ok((store.commit(batch).await?, row))
}

async fn remove(store: &SqliteStore, name: &str, row: &Row) -> Result<Commit, StoreError> {
    let mut batch = Batch::new();
    batch.push(key(name), Op::Delete(row.version));
    store.commit(batch).await
}

fn cause(error: &StoreError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

/// Asks a future so many times, then drops it.
async fn at_most<F: Future>(mut polls: u64, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    poll_fn(move |context| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}
