//! The one trait a store author writes, and the stores that come with the crate.
//!
//! A store keeps [`Record`]s by [`Key`]. It knows no user and no session, judges no time and invents
//! nothing; everything else is written once, above it.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

pub use self::{
    batch::{Batch, Op, Record, Row, Version},
    key::{Key, Scan},
};
use crate::base::{error::BoxError, time::Timestamp};

mod batch;
pub(crate) mod key;

/// Where records are kept.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Reads the rows at `keys`, in their order, as one snapshot.
    fn get(&self, keys: &[Key]) -> impl Future<Output = Result<Vec<Option<Row>>, StoreError>> + Send;

    /// Lists records.
    fn scan(&self, scan: &Scan) -> impl Future<Output = Result<Vec<Record>, StoreError>> + Send;

    /// Applies all of a batch or nothing of it.
    fn commit(&self, batch: Batch) -> impl Future<Output = Result<Commit, StoreError>> + Send;

    /// Takes away records whose `expires_at` is before `before`, at most 1000; says how many.
    fn sweep(&self, before: Timestamp) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// The store's clock.
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
