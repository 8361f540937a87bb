//! The store of a process that has none: every call fails.

use super::{Batch, Commit, Key, Record, Row, Scan, Store, StoreError};
use crate::base::time::Timestamp;

/// What a process that only verifies has in a store's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoStore;

fn none<T>() -> Result<T, StoreError> {
    Err(StoreError::refused("there is no store: sessions are only verified here"))
}

impl Store for NoStore {
    async fn get(&self, _keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        none()
    }

    async fn scan(&self, _scan: &Scan) -> Result<Vec<Record>, StoreError> {
        none()
    }

    async fn commit(&self, _batch: Batch) -> Result<Commit, StoreError> {
        none()
    }

    async fn sweep(&self, _before: Timestamp) -> Result<u64, StoreError> {
        none()
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        none()
    }
}
