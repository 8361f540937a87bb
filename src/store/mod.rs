//! The one trait a store author writes, and the stores that come with the crate.
//!
//! A store keeps [`Record`]s by [`Key`]. It knows no user and no session, judges no time and invents
//! nothing; everything else is written once, above it.
//!
//! | store | feature | for |
//! |---|---|---|
//! | [`MemoryStore`] | none | tests; one process that may forget |
//! | `SqliteStore` | `sqlite` | one machine, any number of processes |
//! | [`AnyStore`] | none | a choice at run time |
//!
//! # The contract
//!
//! 1. A batch is atomic and isolated: its conditions hold together and its writes appear together, or
//!    nothing changes and the answer is [`Commit::Conflict`] with a key that wasn't as the batch said.
//! 2. A `get` or `scan` that starts after a `commit` was applied sees it, in any process: no replicas
//!    behind the back. One `get` is one snapshot.
//! 3. Keys compare as bytes. `scan` returns the keys strictly under a prefix, in order, after a key, at
//!    most `limit`.
//! 4. A body comes back equal as a JSON value, with its version and its expiry.
//! 5. A store invents nothing: no versions, no defaults, no time in its records. It judges no time
//!    either: an expired record is a record until a `sweep` takes it, and a `sweep` takes no other.
//! 6. Dropping a `commit` future leaves all of the batch or none of it, and its connection is closed,
//!    not used again.
//! 7. Applied means durable: what a crash can take back was not applied.
//!
//! A [`StoreError`] says what is known. [`StoreErrorKind::Refused`]: surely not applied, a later try may
//! succeed. [`StoreErrorKind::Unknown`]: sent, but no answer came; the crate looks for the batch's
//! receipt and sends the same batch again if it isn't there. [`StoreErrorKind::Broken`]: no retry helps.
//! When in doubt between the first two, say `Unknown`.
//!
//! # How to write a store
//!
//! Five methods. This is a whole one, which keeps its promises except for the seventh; for one that
//! keeps that too, in a file, see `examples/custom_store.rs`.
//!
//! ```
//! use std::{collections::BTreeMap, sync::Mutex, time::{SystemTime, UNIX_EPOCH}};
//! use tower_mfa::{ident::Timestamp, store::{Batch, Commit, Key, Op, Record, Row, Scan, Store, StoreError, Version}};
//!
//! #[derive(Debug, Default)]
//! struct MapStore(Mutex<BTreeMap<Key, Row>>);
//!
//! impl Store for MapStore {
//!     async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
//!         let rows = self.0.lock().map_err(|_| StoreError::broken("poisoned"))?;   // one lock: one snapshot
//!         Ok(keys.iter().map(|key| rows.get(key).cloned()).collect())
//!     }
//!
//!     async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
//!         let rows = self.0.lock().map_err(|_| StoreError::broken("poisoned"))?;
//!         let found = rows.iter().filter(|(key, _)| scan.wants(key)).take(scan.limit);
//!         Ok(found.map(|(key, row)| Record { key: key.clone(), row: row.clone() }).collect())
//!     }
//!
//!     async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
//!         let mut rows = self.0.lock().map_err(|_| StoreError::broken("poisoned"))?;
//!         for (key, op) in batch.ops() {
//!             let there = rows.get(key).map(|row| row.version);
//!             if op.condition().is_some_and(|wanted| wanted != there) {
//!                 return Ok(Commit::Conflict(key.clone()));
//!             }
//!         }
//!         for (key, op) in batch.ops() {
//!             match op {
//!                 Op::Insert(row) | Op::Replace(_, row) | Op::Upsert(row) => drop(rows.insert(key.clone(), row.clone())),
//!                 Op::Delete(_) | Op::Remove => drop(rows.remove(key)),
//!                 Op::Check(_) => {}
//!             }
//!         }
//!         Ok(Commit::Applied)
//!     }
//!
//!     async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
//!         let mut rows = self.0.lock().map_err(|_| StoreError::broken("poisoned"))?;
//!         let expired = rows.iter().filter(|(_, row)| row.expires_at.is_some_and(|at| at < before));
//!         let expired: Vec<Key> = expired.map(|(key, _)| key.clone()).take(1000).collect();
//!         expired.iter().for_each(|key| drop(rows.remove(key)));
//!         Ok(expired.len() as u64)
//!     }
//!
//!     async fn now(&self) -> Result<Timestamp, StoreError> {
//!         let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(StoreError::broken)?;
//!         Ok(Timestamp::EPOCH + since)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MapStore::default();
//! let key = Key::new(["greeting"]);
//! let row = Row { version: Version::random()?, expires_at: None, body: "hello".into() };
//! let mut batch = Batch::new();
//! batch.push(key.clone(), Op::Insert(row.clone()));
//! assert_eq!(store.commit(batch.clone()).await?, Commit::Applied);
//! assert_eq!(store.commit(batch).await?, Commit::Conflict(key.clone()));
//! assert_eq!(store.get(&[key]).await?, [Some(row)]);
//! # Ok(()) }
//! ```
//!
//! Then run the suite, `store::conformance` (feature `conformance`): it has a check for each line of the
//! contract, races included. A store that fails one isn't a store.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

pub(crate) use self::none::NoStore;
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteStore;
pub use self::{
    batch::{Batch, Op, Record, Row, Version},
    key::{Key, Scan},
    memory::MemoryStore,
};
use crate::base::{error::BoxError, time::Timestamp};

mod batch;
#[cfg(feature = "conformance")]
pub mod conformance;
pub(crate) mod key;
mod memory;
mod none;
#[cfg(feature = "sqlite")]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

/// Where records are kept. The contract, and a whole store, are in the [module's docs](self).
///
/// Implementors write `async fn`; the futures must be `Send`.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Reads the rows at `keys`, in their order, as one snapshot (lines 2, 4).
    ///
    /// # Errors
    /// If the store failed; an absent record is `None`.
    fn get(&self, keys: &[Key]) -> impl Future<Output = Result<Vec<Option<Row>>, StoreError>> + Send;

    /// Lists the records strictly under a prefix, in key order (lines 2, 3).
    ///
    /// # Errors
    /// If the store failed.
    fn scan(&self, scan: &Scan) -> impl Future<Output = Result<Vec<Record>, StoreError>> + Send;

    /// Applies all of a batch, durably, or nothing of it (lines 1, 6, 7).
    ///
    /// # Errors
    /// If the store failed; its kind says whether the batch may have been applied.
    fn commit(&self, batch: Batch) -> impl Future<Output = Result<Commit, StoreError>> + Send;

    /// Takes away records whose `expires_at` is before `before`, at most 1000; says how many (row D17).
    /// May run in any number of processes at once.
    ///
    /// # Errors
    /// If the store failed.
    fn sweep(&self, before: Timestamp) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// The store's clock: what all processes that share the store can agree on.
    ///
    /// # Errors
    /// If the store failed.
    fn now(&self) -> impl Future<Output = Result<Timestamp, StoreError>> + Send;
}

/// What became of a batch. A lost race is an answer, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Commit {
    /// All of it was applied, durably.
    Applied,
    /// Nothing was applied: this key was not as the batch said.
    Conflict(Key),
}

/// A store failed.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    source: BoxError,
}

/// What is known about the operation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Surely not applied; a later try may succeed.
    Refused,
    /// Sent, but no answer came: it may have been applied.
    Unknown,
    /// No retry helps: a full disk, a newer schema, a record that can't be read.
    Broken,
}

impl StoreError {
    /// Surely not applied; a later try may succeed.
    pub fn refused(source: impl Into<BoxError>) -> Self {
        Self { kind: StoreErrorKind::Refused, source: source.into() }
    }

    /// Sent, but no answer came.
    pub fn unknown(source: impl Into<BoxError>) -> Self {
        Self { kind: StoreErrorKind::Unknown, source: source.into() }
    }

    /// No retry helps.
    pub fn broken(source: impl Into<BoxError>) -> Self {
        Self { kind: StoreErrorKind::Broken, source: source.into() }
    }

    /// What is known about the operation.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Refused => "the store refused",
            StoreErrorKind::Unknown => "the store did not answer",
            StoreErrorKind::Broken => "the store is broken",
        })
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.source.as_ref())
    }
}

/// Any store, chosen at run time; a store itself.
#[derive(Clone)]
pub struct AnyStore(Arc<dyn Erased>);

impl AnyStore {
    /// Erases a store's type.
    pub fn new(store: impl Store) -> Self {
        Self(Arc::new(store))
    }
}

impl fmt::Debug for AnyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Store for AnyStore {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.0.get_boxed(keys).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        self.0.scan_boxed(scan).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        self.0.commit_boxed(batch).await
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.0.sweep_boxed(before).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.0.now_boxed().await
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The twin of [`Store`] that can be `dyn`; other names, because the same would be ambiguous (E0034).
trait Erased: fmt::Debug + Send + Sync {
    fn get_boxed<'a>(&'a self, keys: &'a [Key]) -> Boxed<'a, Vec<Option<Row>>>;
    fn scan_boxed<'a>(&'a self, scan: &'a Scan) -> Boxed<'a, Vec<Record>>;
    fn commit_boxed(&self, batch: Batch) -> Boxed<'_, Commit>;
    fn sweep_boxed(&self, before: Timestamp) -> Boxed<'_, u64>;
    fn now_boxed(&self) -> Boxed<'_, Timestamp>;
}

impl<S: Store> Erased for S {
    fn get_boxed<'a>(&'a self, keys: &'a [Key]) -> Boxed<'a, Vec<Option<Row>>> {
        Box::pin(self.get(keys))
    }

    fn scan_boxed<'a>(&'a self, scan: &'a Scan) -> Boxed<'a, Vec<Record>> {
        Box::pin(self.scan(scan))
    }

    fn commit_boxed(&self, batch: Batch) -> Boxed<'_, Commit> {
        Box::pin(self.commit(batch))
    }

    fn sweep_boxed(&self, before: Timestamp) -> Boxed<'_, u64> {
        Box::pin(self.sweep(before))
    }

    fn now_boxed(&self) -> Boxed<'_, Timestamp> {
        Box::pin(self.now())
    }
}
