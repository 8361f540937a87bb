//! The embedded store: one SQLite file.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Sqlite as Driver, SqlitePool,
    pool::PoolConnection,
    sqlite::{
        SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
    },
};

use self::writer::{Done, Task, Writer};
use super::{
    Batch, Commit, Key, Record, Row, Scan, Store, StoreError, StoreErrorKind,
    sql::{self, Dialect, Failure, Line, Select, SqlStore},
};
use crate::base::time::{self, Timestamp};

mod schema;
mod writer;

/// Keeps records in one SQLite file (row D12).
///
/// A write-ahead log, `synchronous=FULL`, one writer that commits all batches that wait in one
/// transaction, readers beside it. Several processes may share the file; they must run on one machine:
/// SQLite's locks don't work on network file systems. On Linux [`SqliteStore::open`] refuses the known
/// ones; elsewhere, and for a pool of the app's own, nothing checks. Needs a tokio runtime.
///
/// For people and reports there are views: `mfa_users`, `mfa_login_methods`, `mfa_sessions`,
/// `mfa_codes`. They hold no secret; writing to the table behind them is writing behind the crate's back.
///
/// ```
/// # use tower_mfa::store::{SqliteStore, Store};
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("mfa.db");
/// let store = SqliteStore::open(path).await?;
/// assert!(store.now().await?.as_secs() > 1_700_000_000);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SqliteStore(SqlStore<Sqlite>);

impl SqliteStore {
    /// Opens the file, and makes it and its tables if need be.
    ///
    /// # Errors
    /// `Broken` if the file can't be opened, isn't ours, lies on a network file system or was written by
    /// a newer release of the crate; `Refused` if another process kept it locked for 5 s.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        // An absolute path can't be mistaken for `:memory:` or a `file:` address.
        let path = std::path::absolute(path).map_err(StoreError::broken)?;
        if on_network(&path, &std::fs::read_to_string("/proc/self/mounts").unwrap_or_default()) {
            return Err(StoreError::broken("SQLite can't share a file on a network file system"));
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let pool = |size| {
            // Nobody else uses these, and what was left half-done is closed: no need to ask first.
            SqlitePoolOptions::new().max_connections(size).acquire_timeout(QUEUE).test_before_acquire(false)
        };
        // The writer has its own way of waiting for the lock.
        let impatient = options.clone().busy_timeout(Duration::ZERO).journal_mode(SqliteJournalMode::Wal);
        let writer = pool(1).connect_lazy_with(impatient);
        let readers = pool(READERS).connect_lazy_with(options.pragma("query_only", "on"));
        Self::settle(writer, readers, false).await
    }

    /// Lives in a database of the app's own, on the app's connections.
    ///
    /// The file is set to a write-ahead log for good, and a connection that wrote for this store keeps
    /// `synchronous=FULL`. A connection is held for one read or one group of commits, never two at once,
    /// so a pool of one will do. Don't give back connections in which a `BEGIN` of your own is open.
    ///
    /// # Errors
    /// As [`SqliteStore::open`]; also if the database can't have a write-ahead log.
    pub async fn from_pool(pool: SqlitePool) -> Result<Self, StoreError> {
        Self::settle(pool.clone(), pool, true).await
    }

    async fn settle(writer: SqlitePool, readers: SqlitePool, shared: bool) -> Result<Self, StoreError> {
        // Turning the log on takes a lock that SQLite doesn't wait for, so processes that start at once
        // may be turned away: try again for a while.
        let start = time::monotonic();
        loop {
            match prepare(&writer).await {
                Err(error) if error.kind() == StoreErrorKind::Refused && start.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        Ok(Self(SqlStore::new(Sqlite { readers, writer: Arc::new(Writer::new(writer, shared)) })))
    }
}

impl Store for SqliteStore {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.0.get(keys).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        self.0.scan(scan).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        self.0.commit(batch).await
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.0.sweep(before).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.0.now().await
    }
}

#[derive(Clone)]
struct Sqlite {
    readers: SqlitePool,
    writer: Arc<Writer>,
}

impl Dialect for Sqlite {
    async fn read(&self, select: Select) -> Result<Vec<Line>, StoreError> {
        let mut lease = Lease::of(&self.readers).await?;
        let query = match select {
            Select::Keys(keys) => sqlx::query_as(
                "select key, version, expires_at, body from mfa_record \
                 where key in (select value from json_each($1))",
            )
            .bind(keys),
            Select::Range(low, high, limit) => sqlx::query_as(
                "select key, version, expires_at, body from mfa_record \
                 where key >= $1 and key < $2 order by key limit $3",
            )
            .bind(low)
            .bind(high)
            .bind(limit),
        };
        let lines = query.fetch_all(lease.connection()).await.map_err(failure)?;
        lease.done();
        Ok(lines)
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        match self.writer.submit(Task::Batch(batch)).await? {
            Done::Commit(commit) => Ok(commit),
            Done::Swept(_) => Err(StoreError::broken("an answer to another question")),
        }
    }

    async fn sweep(&self, before: i64) -> Result<u64, StoreError> {
        match self.writer.submit(Task::Sweep(before)).await? {
            Done::Swept(count) => Ok(count),
            Done::Commit(_) => Err(StoreError::broken("an answer to another question")),
        }
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        // The database runs in the process, so the system's clock is its clock.
        Ok(time::embedded())
    }
}

/// A connection that goes back to its pool only after its work was done: whatever was dropped or
/// failed half-way is closed (rows D01, D09, D14).
struct Lease {
    connection: PoolConnection<Driver>,
    done: bool,
}

impl Lease {
    async fn of(pool: &SqlitePool) -> Result<Self, Failure> {
        // An app's own pool may wait far longer than a request should (row D13).
        let acquired = tokio::time::timeout(QUEUE, pool.acquire()).await;
        let connection = acquired.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(failure)?;
        if sqlx::Connection::is_in_transaction(&*connection) {
            // Dropping the lease closes it; the next try gets another (row D14).
            drop(Self { connection, done: false });
            return Err(failure(sqlx::Error::BeginFailed));
        }
        Ok(Self { connection, done: false })
    }

    fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.done {
            self.connection.close_on_drop();
        }
    }
}

async fn prepare(writer: &SqlitePool) -> Result<(), StoreError> {
    let mut lease = Lease::of(writer).await?;
    let mode: String = sqlx::query_scalar("pragma journal_mode = wal")
        .fetch_one(lease.connection())
        .await
        .map_err(failure)?;
    if mode != "wal" && mode != "memory" {
        return Err(StoreError::broken("the database can't have a write-ahead log"));
    }
    schema::install(lease.connection()).await?;
    lease.done();
    Ok(())
}

fn failure(error: sqlx::Error) -> Failure {
    Failure::new(sql::kind(&error, false, |code| said(code, false)), error)
}

fn commit_failure(error: sqlx::Error) -> Failure {
    Failure::new(sql::kind(&error, true, |code| said(code, true)), error)
}

/// What a result code means. <https://www.sqlite.org/rescode.html>
fn said(code: &str, committing: bool) -> StoreErrorKind {
    // The low byte is the primary code.
    match code.parse::<i32>().unwrap_or_default() & 0xff {
        // BUSY, LOCKED, NOMEM, INTERRUPT: nothing was done.
        5 | 6 | 7 | 9 => StoreErrorKind::Refused,
        // PERM, READONLY, CORRUPT, FULL, CANTOPEN, TOOBIG, NOTADB: nothing was done, and nothing will be.
        3 | 8 | 11 | 13 | 14 | 18 | 26 => StoreErrorKind::Broken,
        // Anything else in a COMMIT, IOERR above all: the log may hold it, and a recovery may find it.
        _ if committing => StoreErrorKind::Unknown,
        _ => StoreErrorKind::Broken,
    }
}

/// Whether `path` lies on a file system whose locks SQLite can't trust, by Linux's list of mounts.
fn on_network(path: &Path, mounts: &str) -> bool {
    const NETWORK: [&str; 9] =
        ["nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "afs", "fuse.sshfs", "fuse.glusterfs"];
    let folder = path
        .parent()
        .map_or_else(PathBuf::new, |parent| parent.canonicalize().unwrap_or_else(|_| parent.to_path_buf()));
    let mount = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (fields.next()?.replace("\\040", " "), fields.next()?);
        folder.starts_with(&at).then_some((at.len(), kind))
    });
    // The longest mount point counts, and of several at one place the last.
    mount.max_by_key(|(length, _)| *length).is_some_and(|(_, kind)| NETWORK.contains(&kind))
}

/// How long a lock of another process is waited for: less than a flow's time limit for the store.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a connection is waited for (row D13).
const QUEUE: Duration = Duration::from_secs(2);
/// How many reads run at once.
const READERS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_d02_sec_d05_codes_have_kinds() {
        use StoreErrorKind::{Broken, Refused, Unknown};
        // code, before the commit, in the commit
        for (code, before, at) in [
            ("5", Refused, Refused),   // BUSY
            ("261", Refused, Refused), // BUSY_RECOVERY
            ("517", Refused, Refused), // BUSY_SNAPSHOT
            ("6", Refused, Refused),   // LOCKED
            ("13", Broken, Broken),    // FULL
            ("8", Broken, Broken),     // READONLY
            ("1032", Broken, Broken),  // READONLY_DBMOVED
            ("11", Broken, Broken),    // CORRUPT
            ("26", Broken, Broken),    // NOTADB
            ("1034", Broken, Unknown), // IOERR_FSYNC
            ("1", Broken, Unknown),    // ERROR
            ("no", Broken, Unknown),
        ] {
            assert_eq!((said(code, false), said(code, true)), (before, at), "{code}");
        }
    }

    #[test]
    fn sec_d12_network_file_systems_are_refused() {
        let mounts = "/dev/a / ext4 rw 0 0\nserver:/x /none/share nfs4 rw 0 0\n\
                      //pc/y /none/my\\040pc cifs rw 0 0\n/dev/b /none/share/local xfs rw 0 0\n";
        for (path, network) in [
            ("/none/mfa.db", false),
            ("/none/share/mfa.db", true),
            ("/none/sharedby/mfa.db", false),
            ("/none/share/local/mfa.db", false),
            ("/none/my pc/mfa.db", true),
        ] {
            assert_eq!(on_network(Path::new(path), mounts), network, "{path}");
        }
        assert!(!on_network(Path::new("/mfa.db"), ""));
    }
}
