//! Stores that break the contract, one way each, so that the suite is known to bite (row D21).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use serde_json::{Value, json};
use tokio::task::yield_now;
use tower_mfa::{
    ident::Timestamp,
    store::{Batch, Commit, Key, Op, Record, Row, Scan, Store, StoreError, Version},
};

macro_rules! faults {
    ($($fault:ident => $($check:ident)+;)+) => {
        /// What is wrong with a store.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault { Nothing, $($fault),+ }

        /// Each fault, and the checks that must find it.
        pub const FAULTS: &[(Fault, &[&str])] = &[$((Fault::$fault, &[$(stringify!($check)),+])),+];
    };
}

faults! {
    AnswersInKeyOrder => round_trip;
    DeletedAreListed => round_trip;
    FloatsAreShort => bodies_come_back_equal;
    TextIsTrimmed => bodies_come_back_equal;
    NullIsAbsent => bodies_come_back_equal;
    ExpiryInSeconds => expiry_and_version_come_back;
    ExpiredIsAbsent => expiry_and_version_come_back sweep_takes_only_the_expired;
    ExpiryStays => expiry_and_version_come_back;
    BodiesAreCut => large_body;
    KeysAreCut => long_key;
    InsertOverwrites => insert_needs_absence all_or_nothing one_winner_in_a_race;
    ReplaceIgnoresVersion => replace_and_delete_need_the_version no_update_is_lost;
    ReplaceInserts => replace_and_delete_need_the_version;
    DeleteIgnoresVersion => replace_and_delete_need_the_version all_or_nothing;
    DeleteOfNothing => replace_and_delete_need_the_version;
    UpsertNeedsARecord => upsert_and_remove_need_nothing;
    RemoveNeedsARecord => upsert_and_remove_need_nothing;
    CheckIsIgnored => check_guards all_or_nothing check_holds_against_a_concurrent_write;
    CheckPassesWhenAbsent => check_guards;
    AppliesAsItGoes => all_or_nothing check_guards;
    ConflictNamesAnotherKey => all_or_nothing;
    SameInsertIsFine => a_batch_sent_twice_applies_once insert_needs_absence;
    DeletedVersionsCount => deleted_and_made_again_is_another;
    CaseIsFolded => keys_compare_as_bytes;
    SymbolsSortLast => keys_compare_as_bytes;
    AfterIsInclusive => scan_pages;
    LimitIsIgnored => scan_pages;
    PagesOfTen => scan_pages;
    PrefixIsText => prefixes_do_not_bleed;
    PrefixIsListed => prefixes_do_not_bleed;
    PrefixIsAPattern => prefixes_do_not_bleed;
    WritesAMark => nothing_is_invented;
    CheckTouches => nothing_is_invented check_guards;
    SweepTakesTheTime => sweep_takes_only_the_expired;
    SweepTakesTheEternal => sweep_takes_only_the_expired;
    SweepAsksItsClock => sweep_takes_only_the_expired;
    SweepMiscounts => sweep_takes_only_the_expired sweep_takes_at_most_a_thousand;
    SweepHasNoLimit => sweep_takes_at_most_a_thousand;
    SweepStops => sweep_takes_at_most_a_thousand;
    ClockStands => the_clock_moves;
    ClockIsWrong => the_clock_moves;
    ReadsAReplica => a_read_after_a_commit_sees_it;
    GetsOneByOne => a_get_is_one_snapshot;
    LooksThenWrites => one_winner_in_a_race no_update_is_lost;
    CheckIsNotHeld => check_holds_against_a_concurrent_write;
    LocksAsItGoes => crossing_batches_do_not_deadlock;
    WritesOneByOne => a_dropped_commit_is_whole_or_nothing a_get_is_one_snapshot;
    Forgets => applied_is_durable;
    BringsBack => applied_is_durable;
}

/// A store in memory with one fault. It yields where a real one waits, so that races happen on one thread.
#[derive(Debug)]
pub struct Faulty {
    fault: Fault,
    rows: Rows,
    /// What was there before the last commit.
    replica: Rows,
    /// Versions of deleted records.
    ghosts: Mutex<Vec<(Key, Version)>>,
    locks: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    commits: AtomicUsize,
}

pub type Rows = Arc<Mutex<BTreeMap<Key, Row>>>;

impl Faulty {
    pub fn new(fault: Fault) -> Self {
        Self::on(fault, Rows::default())
    }

    /// A store that keeps its records in `disk`.
    pub fn on(fault: Fault, disk: Rows) -> Self {
        match fault {
            Fault::Forgets => disk.lock().unwrap().clear(),
            Fault::BringsBack if !disk.lock().unwrap().is_empty() => {
                let back =
                    disk.lock().unwrap().iter().next().map(|(key, row)| (key.last_but("0007"), row.clone()));
                disk.lock().unwrap().extend(back);
            }
            _ => {}
        }
        let (replica, ghosts, locks, commits) = Default::default();
        Self { fault, rows: disk, replica, ghosts, locks, commits }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn key(&self, key: &Key) -> Key {
        let text = key.as_str();
        if self.is(Fault::KeysAreCut) && text.len() > 1000 {
            Key::parse(&text[..1000]).unwrap()
        } else {
            key.clone()
        }
    }

    fn read(&self, key: &Key) -> Option<Row> {
        let source = if self.is(Fault::ReadsAReplica) { &self.replica } else { &self.rows };
        let mut row = source.lock().unwrap().get(&self.key(key)).cloned()?;
        if self.is(Fault::ExpiredIsAbsent) && row.expires_at.is_some_and(|at| at < wall()) {
            return None;
        }
        if self.is(Fault::NullIsAbsent) && row.body.is_null() {
            return None;
        }
        if self.is(Fault::ExpiryInSeconds) {
            row.expires_at = row.expires_at.map(|at| Timestamp::from_secs(at.as_secs()));
        }
        row.body = self.body(row.body);
        Some(row)
    }

    fn body(&self, body: Value) -> Value {
        match body {
            Value::Number(number) if self.is(Fault::FloatsAreShort) && number.is_f64() => {
                json!(f64::from(number.as_f64().unwrap() as f32))
            }
            Value::String(text) if self.is(Fault::TextIsTrimmed) => json!(text.trim()),
            Value::String(text) if self.is(Fault::BodiesAreCut) && text.len() > 65_535 => {
                json!(text[..65_535])
            }
            Value::Object(members) => {
                members.into_iter().map(|(name, value)| (name, self.body(value))).collect()
            }
            other => other,
        }
    }

    fn condition(&self, rows: &BTreeMap<Key, Row>, key: &Key, op: &Op) -> bool {
        let there = rows.get(key).map(|row| row.version);
        let ghost = |version: &Version| {
            self.is(Fault::DeletedVersionsCount)
                && there.is_some()
                && self.ghosts.lock().unwrap().contains(&(key.clone(), *version))
        };
        match op {
            Op::Insert(_) if self.is(Fault::InsertOverwrites) => true,
            Op::Insert(row) if self.is(Fault::SameInsertIsFine) && there == Some(row.version) => true,
            Op::Replace(..) if self.is(Fault::ReplaceIgnoresVersion) => there.is_some(),
            Op::Replace(..) if self.is(Fault::ReplaceInserts) && there.is_none() => true,
            Op::Delete(_) if self.is(Fault::DeleteIgnoresVersion) => there.is_some(),
            Op::Delete(_) if self.is(Fault::DeleteOfNothing) && there.is_none() => true,
            Op::Upsert(_) if self.is(Fault::UpsertNeedsARecord) => there.is_some(),
            Op::Remove if self.is(Fault::RemoveNeedsARecord) => there.is_some(),
            Op::Check(_) if self.is(Fault::CheckIsIgnored) => true,
            Op::Check(_) if self.is(Fault::CheckPassesWhenAbsent) && there.is_none() => true,
            Op::Replace(version, _) | Op::Delete(version) | Op::Check(version) if ghost(version) => true,
            _ => op.condition().is_none_or(|wanted| wanted == there),
        }
    }

    fn apply(&self, rows: &mut BTreeMap<Key, Row>, key: Key, op: &Op) {
        match op.effect() {
            Some(Some(row)) => {
                let mut row = row.clone();
                if self.is(Fault::ExpiryStays) && row.expires_at.is_none() {
                    row.expires_at = rows.get(&key).and_then(|row| row.expires_at);
                }
                if self.is(Fault::WritesAMark) && key.as_str().ends_with("0003") {
                    rows.insert(key.last_but("mark"), row.clone());
                }
                rows.insert(key, row);
            }
            Some(None) => {
                if let Some(row) = rows.remove(&key) {
                    self.ghosts.lock().unwrap().push((key, row.version));
                }
            }
            None => {
                if let Some(row) = rows.get_mut(&key).filter(|_| self.is(Fault::CheckTouches)) {
                    row.version = Version::random().unwrap();
                }
            }
        }
    }

    /// Locks record by record, every second batch from behind.
    async fn lock(&self, batch: &Batch) -> Vec<tokio::sync::OwnedMutexGuard<()>> {
        let mut held = Vec::new();
        if self.is(Fault::LocksAsItGoes) {
            let mut keys: Vec<Key> = batch.ops().map(|(key, _)| key.clone()).collect();
            if self.commits.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                keys.reverse();
            }
            for key in keys {
                let lock = Arc::clone(self.locks.lock().unwrap().entry(key).or_default());
                held.push(lock.lock_owned().await);
                yield_now().await;
            }
        }
        held
    }
}

impl Store for Faulty {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        yield_now().await;
        let mut found = Vec::new();
        for key in keys {
            if self.is(Fault::GetsOneByOne) {
                yield_now().await;
            }
            found.push((key, self.read(key)));
        }
        if self.is(Fault::AnswersInKeyOrder) {
            found.sort_by_key(|(key, _)| *key);
        }
        Ok(found.into_iter().map(|(_, row)| row).collect())
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        yield_now().await;
        let prefix = scan.prefix.as_str();
        let pattern = |key: &str| {
            let (key, prefix) = (key.as_bytes(), format!("{prefix}/"));
            key.len() >= prefix.len()
                && prefix.bytes().zip(key).all(|(want, got)| want == b'_' || want == *got)
        };
        let wanted = |key: &Key| {
            let under = match self.fault {
                Fault::PrefixIsText => key.as_str().starts_with(prefix) && *key != scan.prefix,
                Fault::PrefixIsListed => key.is_under(&scan.prefix) || *key == scan.prefix,
                Fault::PrefixIsAPattern => pattern(key.as_str()),
                _ => key.is_under(&scan.prefix),
            };
            let after = scan.after.as_ref().is_none_or(|after| {
                if self.is(Fault::AfterIsInclusive) { key >= after } else { key > after }
            });
            under && after
        };
        let limit = match self.fault {
            Fault::LimitIsIgnored => 1000,
            Fault::PagesOfTen => scan.limit.min(10).max(usize::from(scan.after.is_none())),
            _ => scan.limit,
        };
        let keys: Vec<Key> = self.rows.lock().unwrap().keys().filter(|key| wanted(key)).cloned().collect();
        let record = |key: Key| self.read(&key).map(|row| Record { key, row });
        let mut found: Vec<Record> = keys.into_iter().filter_map(record).collect();
        match self.fault {
            Fault::CaseIsFolded => found.sort_by_key(|record| record.key.as_str().to_lowercase()),
            Fault::SymbolsSortLast => found.sort_by_key(|record| {
                let rank = |c: char| (!c.is_alphanumeric() && c != '/', c);
                record.key.as_str().chars().map(rank).collect::<Vec<_>>()
            }),
            Fault::DeletedAreListed => {
                let ghosts = self.ghosts.lock().unwrap();
                let ghosts = ghosts.iter().filter(|(key, _)| wanted(key));
                found.extend(ghosts.map(|(key, version)| Record { key: key.clone(), row: tomb(*version) }));
            }
            _ => {}
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        yield_now().await;
        let _held = self.lock(&batch).await;
        let refused = |rows: &BTreeMap<Key, Row>, which: fn(&Op) -> bool| {
            let mut ops = batch.ops().filter(|(_, op)| which(op));
            ops.find(|(key, op)| !self.condition(rows, &self.key(key), op)).map(|(key, _)| key.clone())
        };
        let conflict = |key: Key| {
            let first = batch.ops().next().map(|(key, _)| key.clone());
            Commit::Conflict(if self.is(Fault::ConflictNamesAnotherKey) { first.unwrap() } else { key })
        };
        match self.fault {
            Fault::AppliesAsItGoes => {
                for (key, op) in batch.ops() {
                    let mut rows = self.rows.lock().unwrap();
                    if !self.condition(&rows, key, op) {
                        return Ok(conflict(key.clone()));
                    }
                    self.apply(&mut rows, key.clone(), op);
                }
                return Ok(Commit::Applied);
            }
            Fault::LooksThenWrites | Fault::WritesOneByOne => {
                let looked = refused(&self.rows.lock().unwrap(), |_| true);
                if let Some(key) = looked {
                    return Ok(conflict(key));
                }
                yield_now().await;
                for (key, op) in batch.ops() {
                    self.apply(&mut self.rows.lock().unwrap(), key.clone(), op);
                    if self.is(Fault::WritesOneByOne) {
                        yield_now().await;
                    }
                }
                return Ok(Commit::Applied);
            }
            Fault::CheckIsNotHeld => {
                let looked = refused(&self.rows.lock().unwrap(), |op| matches!(op, Op::Check(_)));
                if let Some(key) = looked {
                    return Ok(conflict(key));
                }
                yield_now().await;
            }
            _ => {}
        }
        let mut rows = self.rows.lock().unwrap();
        let which: fn(&Op) -> bool =
            if self.is(Fault::CheckIsNotHeld) { |op| !matches!(op, Op::Check(_)) } else { |_| true };
        if let Some(key) = refused(&rows, which) {
            return Ok(conflict(key));
        }
        self.replica.lock().unwrap().clone_from(&rows);
        batch.ops().for_each(|(key, op)| self.apply(&mut rows, self.key(key), op));
        Ok(Commit::Applied)
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        yield_now().await;
        let before = if self.is(Fault::SweepAsksItsClock) { wall() } else { before };
        let expired = |row: &Row| match (row.expires_at, self.fault) {
            (None, Fault::SweepTakesTheEternal) => true,
            (Some(at), Fault::SweepTakesTheTime) => at <= before,
            (at, _) => at.is_some_and(|at| at < before),
        };
        let mut rows = self.rows.lock().unwrap();
        let limit = if self.is(Fault::SweepHasNoLimit) { usize::MAX } else { 1000 };
        let all: Vec<Key> = rows.iter().filter(|(_, row)| expired(row)).map(|(key, _)| key.clone()).collect();
        if self.is(Fault::SweepStops) && all.len() < 1000 {
            return Ok(0);
        }
        let taken = all.into_iter().take(limit).filter(|key| rows.remove(key).is_some()).count() as u64;
        Ok(if self.is(Fault::SweepMiscounts) { taken.min(1) } else { taken })
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(match self.fault {
            Fault::ClockStands => Timestamp::from_secs(wall().as_secs() / 100 * 100),
            Fault::ClockIsWrong => Timestamp::from_millis(wall().as_secs()),
            _ => wall(),
        })
    }
}

trait LastBut {
    fn last_but(&self, segment: &str) -> Key;
}

impl LastBut for Key {
    /// The key beside this one.
    fn last_but(&self, segment: &str) -> Key {
        let parent = self.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
        Key::parse(&format!("{parent}/{segment}")).unwrap()
    }
}

fn tomb(version: Version) -> Row {
    Row { version, expires_at: None, body: Value::Null }
}

fn wall() -> Timestamp {
    Timestamp::EPOCH + SystemTime::UNIX_EPOCH.elapsed().unwrap()
}
