//! What one round of a transaction read, and what it wants written.

use std::{collections::BTreeMap, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use super::{Db, audit::Event, live, read, write};
use crate::{
    base::{error::Error, random, time::Timestamp},
    store::{Batch, Key, Op, Row},
};

/// One round: reads are remembered with their versions, writes are conditioned on what was read.
pub(crate) struct Tx {
    db: Db,
    now: Timestamp,
    seen: BTreeMap<Key, Option<Row>>,
    batch: Batch,
    receipt: Option<Key>,
    /// What the trail says once this is committed.
    told: Vec<Event>,
}

/// What a round read, for one that goes on where it stopped.
#[derive(Clone)]
pub(crate) struct Seen(BTreeMap<Key, Option<Row>>);

/// A round that has decided: what to write, and what to answer once it is written.
#[must_use]
pub(crate) struct Staged<T> {
    tx: Tx,
    value: T,
}

impl Tx {
    pub(super) fn new(db: Db, now: Timestamp) -> Self {
        Self { db, now, seen: BTreeMap::new(), batch: Batch::new(), receipt: None, told: Vec::new() }
    }

    /// The time by which this round is judged.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// What was read so far.
    pub(crate) fn seen(&self) -> Seen {
        Seen(self.seen.clone())
    }

    /// Goes on with what an earlier round read. Its writes hold only if that is still so.
    pub(crate) fn go_on(&mut self, Seen(seen): Seen) {
        self.seen.extend(seen);
    }

    pub(crate) fn change_life(&self) -> Duration {
        self.db.change_life
    }

    /// Reads several records ahead, as one snapshot, so that later [`Tx::get`]s cost no call.
    pub(crate) async fn prefetch(&mut self, keys: impl IntoIterator<Item = Key>) -> Result<(), Error> {
        let keys: Vec<Key> = keys.into_iter().filter(|key| !self.seen.contains_key(key)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let rows = self.db.rows(&keys).await?;
        self.seen.extend(keys.into_iter().zip(rows));
        Ok(())
    }

    /// Reads a record: what this round staged for it, else what the store has; an expired one is absent.
    pub(crate) async fn get<T: DeserializeOwned>(&mut self, key: &Key) -> Result<Option<T>, Error> {
        if let Some(effect) = self.batch.op(key).and_then(Op::effect) {
            return effect.map(read).transpose();
        }
        self.prefetch([key.clone()]).await?;
        live(self.seen.get(key).and_then(Option::as_ref), self.now).map(read).transpose()
    }

    /// Writes a record, on condition that it still is as this round read it.
    pub(crate) async fn put<T: Serialize>(
        &mut self,
        key: Key,
        body: &T,
        expires_at: Option<Timestamp>,
    ) -> Result<(), Error> {
        let row = write(body, expires_at)?;
        self.prefetch([key.clone()]).await?;
        let op = match self.seen.get(&key).and_then(Option::as_ref) {
            Some(old) => Op::Replace(old.version, row),
            None => Op::Insert(row),
        };
        self.batch.push(key, op);
        Ok(())
    }

    /// Writes a record that must not be there: the race for a name is decided by the store (row D16).
    /// An expired record is in nobody's way.
    pub(crate) async fn insert<T: Serialize>(
        &mut self,
        key: Key,
        body: &T,
        expires_at: Option<Timestamp>,
    ) -> Result<(), Error> {
        self.prefetch([key.clone()]).await?;
        match live(self.seen.get(&key).and_then(Option::as_ref), self.now) {
            Some(_) => Err(Error::taken()),
            None => self.put(key, body, expires_at).await,
        }
    }

    /// Writes a record under a name that only a lost race can find taken, without reading first.
    pub(crate) fn insert_new<T: Serialize>(
        &mut self,
        key: Key,
        body: &T,
        expires_at: Option<Timestamp>,
    ) -> Result<(), Error> {
        self.batch.push(key, Op::Insert(write(body, expires_at)?));
        Ok(())
    }

    /// Takes a record away, on condition that it still is as this round read it.
    pub(crate) async fn delete(&mut self, key: Key) -> Result<(), Error> {
        self.prefetch([key.clone()]).await?;
        if let Some(old) = self.seen.get(&key).and_then(Option::as_ref) {
            let version = old.version;
            self.batch.push(key, Op::Delete(version));
        }
        Ok(())
    }

    /// Takes an index record away, whatever it says.
    pub(crate) fn remove(&mut self, key: Key) {
        self.batch.push(key, Op::Remove);
    }

    /// Lets the commit hold only if the record still is as this round read it.
    pub(crate) async fn check(&mut self, key: Key) -> Result<(), Error> {
        if self.batch.op(&key).is_some() {
            return Ok(());
        }
        self.prefetch([key.clone()]).await?;
        if let Some(old) = self.seen.get(&key).and_then(Option::as_ref) {
            let version = old.version;
            self.batch.push(key, Op::Check(version));
        }
        Ok(())
    }

    /// Names the record of an event, already staged by [`Tx::insert_new`], by which a lost answer is looked
    /// up.
    pub(super) fn set_receipt(&mut self, key: Key, event: Event) {
        self.receipt = Some(key);
        self.told.push(event);
    }

    /// The round has decided.
    pub(crate) fn commit<T>(self, value: T) -> Result<Staged<T>, Error> {
        Ok(Staged { tx: self, value })
    }

    /// The round has decided to write nothing, whatever it staged.
    pub(crate) fn abandon<T>(mut self, value: T) -> Result<Staged<T>, Error> {
        self.batch = Batch::new();
        self.told.clear();
        self.commit(value)
    }
}

impl<T> Staged<T> {
    /// The same writes with another answer.
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Staged<U> {
        Staged { tx: self.tx, value: change(self.value) }
    }

    /// The batch with its receipt, and what to tell once it is committed.
    pub(super) fn into_batch(self, keep: Duration) -> Result<(Batch, Key, Vec<Event>, T), Error> {
        let Self { mut tx, value } = self;
        let receipt = match tx.receipt.take() {
            Some(key) => key,
            None => Key::new(["op", &random::token()?]),
        };
        if !tx.batch.is_empty() && tx.batch.op(&receipt).is_none() {
            tx.batch.push(receipt.clone(), Op::Insert(write(&true, Some(tx.now + keep))?));
        }
        Ok((tx.batch, receipt, tx.told, value))
    }
}
