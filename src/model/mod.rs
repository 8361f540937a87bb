//! Floor 2: typed records over the store; every uniqueness and race rule is written here, once.
//!
//! Nothing above this floor calls [`Store`](crate::store::Store), and only [`Db::transact`] commits.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Mutex;

use crate::{
    base::{
        error::{Error, ErrorKind},
        random,
        time::{self, Clock, Timestamp},
    },
    store::{
        AnyStore, Batch, Commit, Key, NoStore, Row, Scan, Store as _, StoreError, StoreErrorKind, Version,
    },
};

pub(crate) use tx::{Seen, Staged, Tx};

pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod change;
pub(crate) mod code;
pub(crate) mod epoch;
pub(crate) mod keys;
pub(crate) mod keyset;
pub(crate) mod limit;
pub(crate) mod metadata;
#[cfg(feature = "third-party")]
pub(crate) mod provider;
pub(crate) mod queue;
pub(crate) mod role;
pub(crate) mod seal;
pub(crate) mod session;
pub(crate) mod spend;
pub(crate) mod tally;
pub(crate) mod tenant;
pub(crate) mod ticket;
#[cfg(feature = "phone")]
pub(crate) mod toll;
mod tx;
pub(crate) mod user;

/// How long one store call may take (`spec`: 5 s, as may all rounds of one transaction together).
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a transaction that lost a race starts anew.
const ROUNDS: usize = 5;
/// How often a new name is drawn when one was taken (row S04).
pub(crate) const TAKEN: usize = 3;
/// How long the receipt of a batch is kept.
const RECEIPT: Duration = Duration::from_secs(3600);
/// Writers of one subject queue at one of so many locks: that helps speed, versions carry correctness.
const STRIPES: usize = 64;

/// The store, with types and time.
#[derive(Clone, Debug)]
pub(crate) struct Db {
    store: AnyStore,
    clock: Arc<dyn Clock>,
    stripes: Arc<[Mutex<()>]>,
    pub(crate) trail: audit::Trail,
    /// How long a change record must stay: the longest access token, plus an hour.
    pub(crate) change_life: Duration,
}

impl Db {
    pub(crate) fn new(
        store: AnyStore,
        clock: Arc<dyn Clock>,
        longest_token: Duration,
        trail: audit::Trail,
    ) -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::new(())).collect();
        Self { store, clock, stripes, trail, change_life: longest_token + RECEIPT }
    }

    /// Of a process that has no store: it only tells the time.
    pub(crate) fn without_store(clock: Arc<dyn Clock>) -> Self {
        let (trail, _nobody_listens) = audit::Trail::new();
        Self::new(AnyStore::new(NoStore), clock, Duration::ZERO, trail)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The same, for whoever read the monotonic clock just now.
    pub(crate) fn now_at(&self, at: Instant) -> Timestamp {
        self.clock.now_at(at)
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Reads one record; an expired one is absent.
    pub(crate) async fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, Error> {
        let rows = self.rows(std::slice::from_ref(key)).await?;
        live(rows.first().and_then(Option::as_ref), self.now()).map(read).transpose()
    }

    /// Reads rows as one snapshot.
    pub(crate) async fn rows(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, Error> {
        crate::base::failpoint!("store.acquire");
        let rows = bounded(self.store.get(keys)).await.map_err(failed)?;
        if rows.len() == keys.len() { Ok(rows) } else { Err(Error::internal("the store answered short")) }
    }

    /// Lists the live records of a scan, with their keys.
    pub(crate) async fn scan<T: DeserializeOwned>(&self, scan: &Scan) -> Result<Vec<(Key, T)>, Error> {
        crate::base::failpoint!("store.acquire");
        let (records, now) = (bounded(self.store.scan(scan)).await.map_err(failed)?, self.now());
        records
            .into_iter()
            .filter(|record| live(Some(&record.row), now).is_some())
            .map(|record| Ok((record.key, read(&record.row)?)))
            .collect()
    }

    /// The store's clock.
    pub(crate) async fn store_now(&self) -> Result<Timestamp, Error> {
        crate::base::failpoint!("store.acquire");
        bounded(self.store.now()).await.map_err(failed)
    }

    /// Takes away what expired more than an hour ago (row D17).
    pub(crate) async fn sweep(&self) -> Result<u64, Error> {
        crate::base::failpoint!("store.acquire");
        bounded(self.store.sweep(self.now() - RECEIPT)).await.map_err(failed)
    }

    /// Reads, decides, stages, commits; a lost race starts the round anew, five times within 5 s.
    ///
    /// No user code runs inside `round`, and what it returns is only good once this returns.
    ///
    /// # Errors
    /// What `round` answers; `Unavailable` if the store fails or the races never end (row D02).
    pub(crate) async fn transact<T, F>(
        &self,
        subject: impl Hash + Send,
        mut round: impl FnMut(Tx) -> F + Send,
    ) -> Result<T, Error>
    where
        T: Send,
        F: Future<Output = Result<Staged<T>, Error>> + Send,
    {
        let start = time::monotonic();
        // Whoever can't even begin in time is told so: a stalled store must not fill the queue.
        let queue = tokio::time::timeout(PATIENCE, self.stripe(&subject).lock());
        let Ok(_queue) = queue.await else { return Err(Error::unavailable("too many wait for one subject")) };
        for lost in 0..ROUNDS {
            if lost > 0 {
                self.pause(lost).await?;
            }
            if start.elapsed() > PATIENCE {
                break;
            }
            let staged = match round(Tx::new(self.clone(), self.now())).await {
                // A name drawn in the round is drawn again, a number in the feed is read again (row S04).
                Err(error) if error.is_taken() && lost < TAKEN => continue,
                staged => staged?,
            };
            let (batch, receipt, told, value) = staged.into_batch(RECEIPT)?;
            if batch.is_empty() || self.commit(batch, &receipt).await? {
                self.trail.tell(told);
                return Ok(value);
            }
        }
        Err(Error::unavailable("a transaction kept losing its race"))
    }

    /// Reads through a round that writes nothing: no queue, no commit.
    ///
    /// # Errors
    /// What `round` answers.
    pub(crate) async fn look<T, F>(&self, round: impl FnOnce(Tx) -> F + Send) -> Result<T, Error>
    where
        F: Future<Output = Result<Staged<T>, Error>> + Send,
    {
        let staged = round(Tx::new(self.clone(), self.now())).await?;
        Ok(staged.into_batch(RECEIPT)?.3)
    }

    /// The keys of a scan, expired or not, with the live records among them.
    pub(crate) async fn scan_raw<T: DeserializeOwned>(
        &self,
        scan: &Scan,
    ) -> Result<Vec<(Key, Option<T>)>, Error> {
        crate::base::failpoint!("store.acquire");
        let (records, now) = (bounded(self.store.scan(scan)).await.map_err(failed)?, self.now());
        records
            .into_iter()
            .map(|record| Ok((record.key, live(Some(&record.row), now).map(read).transpose()?)))
            .collect()
    }

    /// Commits once; `false` if the race was lost. An answer that got lost is looked up by the receipt.
    async fn commit(&self, batch: Batch, receipt: &Key) -> Result<bool, Error> {
        crate::base::failpoint!("store.acquire");
        let mut sent_before = false;
        loop {
            match bounded(self.store.commit(batch.clone())).await {
                Ok(Commit::Applied) => {
                    crate::base::failpoint!("store.commit.sent");
                    return Ok(true);
                }
                Ok(Commit::Conflict(_)) if !sent_before => return Ok(false),
                // Which key a store names first says nothing: the receipt does, if the first copy landed.
                Ok(Commit::Conflict(_)) => {
                    let there =
                        bounded(self.store.get(std::slice::from_ref(receipt))).await.map_err(failed)?;
                    return Ok(matches!(there.first(), Some(Some(_))));
                }
                Err(error) if error.kind() == StoreErrorKind::Unknown => {
                    let there =
                        bounded(self.store.get(std::slice::from_ref(receipt))).await.map_err(failed)?;
                    match (there.first(), sent_before) {
                        (Some(Some(_)), _) => return Ok(true),
                        (_, true) => return Err(failed(error)),
                        (_, false) => sent_before = true,
                    }
                }
                // Surely not applied, such as a busy file: another round may succeed.
                Err(error) if error.kind() == StoreErrorKind::Refused && !sent_before => return Ok(false),
                Err(error) => return Err(failed(error)),
            }
        }
    }

    fn stripe(&self, subject: &impl Hash) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        subject.hash(&mut hasher);
        // The remainder is below STRIPES, which is how many there are.
        &self.stripes[usize::try_from(hasher.finish() % STRIPES as u64).unwrap_or(0)]
    }

    async fn pause(&self, lost: usize) -> Result<(), Error> {
        let [jitter] = random::bytes()?;
        let millis = (u64::from(jitter) * lost as u64) / 16;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Ok(())
    }
}

/// Reads the body of a row as its type (row D20: what can't be read is an error, not a default).
fn read<T: DeserializeOwned>(row: &Row) -> Result<T, Error> {
    T::deserialize(&row.body).map_err(|e| Error::with(ErrorKind::Internal, "a record can't be read", e))
}

fn write<T: Serialize>(body: &T, expires_at: Option<Timestamp>) -> Result<Row, Error> {
    let body = serde_json::to_value(body)
        .map_err(|e| Error::with(ErrorKind::Internal, "a record can't be written", e))?;
    Ok(Row { version: Version::random()?, expires_at, body })
}

/// The row, unless it has expired.
fn live(row: Option<&Row>, now: Timestamp) -> Option<&Row> {
    row.filter(|row| row.expires_at.is_none_or(|end| now < end))
}

async fn bounded<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(StoreError::unknown(elapsed)),
    }
}

fn failed(error: StoreError) -> Error {
    Error::with(ErrorKind::Unavailable, "the store failed", error)
}
