//! What lets a program look into the server and disturb it: a store that counts and fails, a policy that
//! fails, a clock that is moved, a delivery that counts.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use tower_mfa::{
    Clock, MfaPolicy, PolicyContext, Requirements,
    delivery::{Delivery, DeliveryError, Envelope, Notice, Outbox},
    ident::{SystemClock, Timestamp},
    policy::{AnyPolicy, PolicyError},
    store::{AnyStore, Batch, Commit, Key, Record, Row, Scan, Store, StoreError},
};

/// A number that a program sets, and calls count down.
#[derive(Debug, Default)]
pub(crate) struct Failing(AtomicU64);

impl Failing {
    /// The next `calls` fail; none for 0.
    pub(crate) fn next(&self, calls: u64) {
        self.0.store(calls, Ordering::SeqCst);
    }

    fn now(&self) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

/// A store that counts its calls and fails when told to.
#[derive(Clone, Debug)]
pub(crate) struct WatchedStore {
    inner: AnyStore,
    pub(crate) calls: Arc<Calls>,
}

/// The calls since the start.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) gets: AtomicU64,
    pub(crate) scans: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) failing: Failing,
}

impl WatchedStore {
    pub(crate) fn new(inner: AnyStore) -> Self {
        Self { inner, calls: Arc::default() }
    }

    /// The notices that wait to be sent, uncounted.
    pub(crate) async fn queue(&self) -> Result<BTreeSet<Key>, StoreError> {
        let queue = self.inner.scan(&Scan::under(Key::new(["queue"]))).await?;
        Ok(queue.into_iter().map(|record| record.key).collect())
    }

    fn call(&self, counter: &AtomicU64) -> Result<(), StoreError> {
        counter.fetch_add(1, Ordering::Relaxed);
        if self.calls.failing.now() { Err(StoreError::refused("told to fail")) } else { Ok(()) }
    }
}

impl Store for WatchedStore {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.call(&self.calls.gets)?;
        self.inner.get(keys).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        self.call(&self.calls.scans)?;
        self.inner.scan(scan).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        self.call(&self.calls.commits)?;
        self.inner.commit(batch).await
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.inner.sweep(before).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.inner.now().await
    }
}

/// A policy that fails when told to.
pub(crate) struct WatchedPolicy {
    pub(crate) inner: AnyPolicy,
    pub(crate) failing: Arc<Failing>,
}

impl MfaPolicy for WatchedPolicy {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        if self.failing.now() {
            return Err(PolicyError::unavailable("told to fail"));
        }
        self.inner.requirements(ctx).await
    }
}

/// The system's clock, moved forward.
#[derive(Clone, Debug, Default)]
pub(crate) struct MovedClock {
    system: Arc<SystemClock>,
    ahead: Arc<AtomicI64>,
}

impl MovedClock {
    pub(crate) fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let moved = |ahead: i64| Some(ahead.saturating_add(millis));
        let _ = self.ahead.fetch_update(Ordering::SeqCst, Ordering::SeqCst, moved);
    }
}

impl Clock for MovedClock {
    fn now(&self) -> Timestamp {
        let now = self.system.now().as_millis();
        Timestamp::from_millis(now.saturating_add(self.ahead.load(Ordering::SeqCst)))
    }
}

/// An outbox that counts what it gets.
#[derive(Clone, Default)]
pub(crate) struct WatchedOutbox {
    pub(crate) kept: Outbox,
    pub(crate) sent: Arc<AtomicU64>,
}

impl Delivery for WatchedOutbox {
    async fn deliver(&self, envelope: &Envelope, notice: &Notice) -> Result<(), DeliveryError> {
        self.kept.deliver(envelope, notice).await?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
