//! The store that keeps everything in the process: for tests, and the reference for what the contract means.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound::{Excluded, Included},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Batch, Commit, Key, Record, Row, Scan, Store, StoreError};
use crate::base::time::{self, Clock, Timestamp};

/// Keeps records in memory; gone when the last clone is.
///
/// ```
/// # use tower_mfa::store::{Batch, Commit, Key, MemoryStore, Op, Row, Store, Version};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let key = Key::new(["note", "1"]);
/// let row = Row { version: Version::random()?, expires_at: None, body: "hello".into() };
/// let mut batch = Batch::new();
/// batch.push(key.clone(), Op::Insert(row.clone()));
/// assert_eq!(store.commit(batch.clone()).await?, Commit::Applied);
/// assert_eq!(store.commit(batch).await?, Commit::Conflict(key.clone()));
/// assert_eq!(store.get(&[key]).await?, [Some(row)]);
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct MemoryStore {
    rows: Arc<Mutex<BTreeMap<Key, Row>>>,
    clock: Option<Arc<dyn Clock>>,
}

impl MemoryStore {
    /// An empty store; its clock is the system's.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store with a clock of its own.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { rows: Arc::default(), clock: Some(clock) }
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<Key, Row>> {
        // Nothing panics between two writes of a batch, so a poisoned map is whole.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        let rows = self.rows();
        Ok(keys.iter().map(|key| rows.get(key).cloned()).collect())
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        let (low, high) = scan.range();
        let rows = self.rows();
        let found = rows.range::<str, _>((Included(low.as_str()), Excluded(high.as_str()))).take(scan.limit);
        Ok(found.map(|(key, row)| Record { key: key.clone(), row: row.clone() }).collect())
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        let mut rows = self.rows();
        for (key, op) in batch.ops() {
            let there = rows.get(key).map(|row| row.version);
            if op.condition().is_some_and(|wanted| wanted != there) {
                return Ok(Commit::Conflict(key.clone()));
            }
        }
        for (key, op) in batch.ops() {
            match op.effect() {
                Some(Some(row)) => drop(rows.insert(key.clone(), row.clone())),
                Some(None) => drop(rows.remove(key)),
                None => {}
            }
        }
        Ok(Commit::Applied)
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut left = 1000;
        self.rows().retain(|_, row| {
            let take = left > 0 && row.expires_at.is_some_and(|at| at < before);
            left -= u64::from(take);
            !take
        });
        Ok(1000 - left)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.as_ref().map_or_else(time::embedded, |clock| clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp::from_secs(7)
        }
    }

    #[tokio::test]
    async fn a_clock_of_its_own_is_the_stores_clock() {
        let store = MemoryStore::with_clock(Arc::new(Stopped));
        assert_eq!(store.now().await.unwrap(), Timestamp::from_secs(7));
        assert!(MemoryStore::new().now().await.unwrap() > Timestamp::from_secs(1_700_000_000));
    }
}
