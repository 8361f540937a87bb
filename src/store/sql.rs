//! What the SQL stores share: the shape of a read, rows back into records, and what a failure means.

use std::{collections::HashMap, error::Error as StdError, fmt, future::Future, sync::Arc};

use super::{Batch, Commit, Key, Record, Row, Scan, Store, StoreError, StoreErrorKind, Version};
use crate::base::time::Timestamp;

/// A store in one SQL table of records; `D` says what the databases do differently.
#[derive(Clone)]
pub(crate) struct SqlStore<D> {
    dialect: D,
}

/// One database. Crate-private, so nobody else's SQL can claim to be this store.
pub(crate) trait Dialect: Send + Sync + 'static {
    /// Runs one reading statement, hence on one snapshot.
    fn read(&self, select: Select) -> impl Future<Output = Result<Vec<Line>, StoreError>> + Send;

    /// Applies all of a batch or nothing of it.
    fn commit(&self, batch: Batch) -> impl Future<Output = Result<Commit, StoreError>> + Send;

    /// Takes away at most 1000 records that expire before a time in milliseconds.
    fn sweep(&self, before: i64) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// The database's clock.
    fn now(&self) -> impl Future<Output = Result<Timestamp, StoreError>> + Send;
}

/// What to read.
pub(crate) enum Select {
    /// The records at these keys: a JSON array of texts, so that any number is one parameter.
    Keys(String),
    /// The records from one text to before another, in order, at most so many.
    Range(String, String, i64),
}

/// A row of the table as it is: key, version, expiry, body.
pub(crate) type Line = (String, String, Option<i64>, String);

impl<D: Dialect> SqlStore<D> {
    pub(crate) fn new(dialect: D) -> Self {
        Self { dialect }
    }
}

impl<D> fmt::Debug for SqlStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Where the database is may hold a password or say more than a log should.
        f.debug_struct("SqlStore").finish_non_exhaustive()
    }
}

impl<D: Dialect> Store for SqlStore<D> {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: Vec<&str> = keys.iter().map(Key::as_str).collect();
        let wanted = serde_json::to_string(&wanted).map_err(StoreError::broken)?;
        let mut found = HashMap::new();
        for line in self.dialect.read(Select::Keys(wanted)).await? {
            let Record { key, row } = record(line)?;
            found.insert(key, row);
        }
        // Answers are matched by the key they carry, never by their place (row D09).
        let rows: Vec<_> = keys.iter().map(|key| found.get(key).cloned()).collect();
        found.retain(|key, _| !keys.contains(key));
        if found.is_empty() { Ok(rows) } else { Err(StoreError::broken("an answer to another question")) }
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        let (low, high) = scan.range();
        let limit = i64::try_from(scan.limit).unwrap_or(i64::MAX);
        self.dialect.read(Select::Range(low, high, limit)).await?.into_iter().map(record).collect()
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        self.dialect.commit(batch).await
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.dialect.sweep(before.as_millis()).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.dialect.now().await
    }
}

/// A row as the table keeps it: version, expiry, body.
pub(crate) fn columns(row: &Row) -> (String, Option<i64>, String) {
    (row.version.to_text(), row.expires_at.map(Timestamp::as_millis), row.body.to_string())
}

fn record((key, version, expires_at, body): Line) -> Result<Record, StoreError> {
    Ok(Record {
        key: Key::parse(&key).map_err(StoreError::broken)?,
        row: Row {
            version: Version::from_text(&version).ok_or_else(|| StoreError::broken("not a version"))?,
            expires_at: expires_at.map(Timestamp::from_millis),
            body: serde_json::from_str(&body).map_err(StoreError::broken)?,
        },
    })
}

/// One failure that several callers are told of.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: StoreErrorKind,
    source: Arc<dyn StdError + Send + Sync>,
}

impl Failure {
    pub(crate) fn new(kind: StoreErrorKind, source: sqlx::Error) -> Self {
        Self { kind, source: Arc::new(source) }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self { kind: failure.kind, source: failure.source.into() }
    }
}

/// What a failure of the driver means; `database` judges what the database itself said.
pub(crate) fn kind(
    error: &sqlx::Error,
    committing: bool,
    database: impl Fn(&str) -> StoreErrorKind,
) -> StoreErrorKind {
    match error {
        sqlx::Error::Database(said) => database(said.code().as_deref().unwrap_or_default()),
        // The question or its answer was lost on the way. Only a COMMIT that got through leaves a trace.
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed if committing => {
            StoreErrorKind::Unknown
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed
        | sqlx::Error::InvalidSavePointStatement
        | sqlx::Error::PoolTimedOut => StoreErrorKind::Refused,
        _ => StoreErrorKind::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_d03_only_a_commit_in_flight_is_unknown() {
        let lost = || sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        let never = |_: &str| StoreErrorKind::Broken;
        for error in [lost(), sqlx::Error::WorkerCrashed] {
            assert_eq!(kind(&error, true, never), StoreErrorKind::Unknown);
            assert_eq!(kind(&error, false, never), StoreErrorKind::Refused);
        }
        assert_eq!(kind(&sqlx::Error::PoolTimedOut, false, never), StoreErrorKind::Refused);
        assert_eq!(kind(&sqlx::Error::PoolClosed, false, never), StoreErrorKind::Broken);
    }

    #[test]
    fn rows_that_cannot_be_read_are_broken() {
        let version = "0".repeat(32);
        let line = |key: &str, version: &str, body: &str| (key.into(), version.into(), None, body.into());
        record(line("a/b", &version, "{}")).unwrap();
        for bad in [line("a b", &version, "{}"), line("a", "7", "{}"), line("a", &version, "{")] {
            assert_eq!(record(bad).unwrap_err().kind(), StoreErrorKind::Broken);
        }
    }
}
