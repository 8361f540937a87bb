//! The one writer: whatever waits is committed in one transaction (decision 7).
//!
//! SQLite writes one transaction at a time and waits for the disk at its end. So callers queue their
//! work and one of them starts the writer, a task that no caller's leaving stops; while the disk is
//! busy the next group gathers. The task ends when nothing waits, so no runtime is ever needed for
//! longer than a commit lasts.
//!
//! A statement costs two switches between threads, far more than its work. So a group is decided in
//! memory, batch by batch, against the versions that one statement read under the write lock; three
//! statements write what came out. A batch that loses takes nothing along, as if it had a savepoint.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem, slice,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::{Connection as _, SqlitePool, sqlite::SqliteConnection};
use tokio::{runtime::Handle, sync::oneshot};

use super::{Failure, Lease, PATIENCE, QUEUE, commit_failure, failure};
use crate::{
    base::{random, time},
    store::{Batch, Commit, Key, Row, StoreError, StoreErrorKind, Version, sql},
};

/// Work for the writer.
pub(super) enum Task {
    Batch(Batch),
    /// Take away what expires before this.
    Sweep(i64),
}

/// What became of it.
pub(super) enum Done {
    Commit(Commit),
    Swept(u64),
}

pub(super) struct Writer {
    pool: SqlitePool,
    /// Whether the connections are the app's, hence not set up by us.
    shared: bool,
    queue: Mutex<Queue>,
    /// When another process last had the write lock as we wanted it.
    met: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Work>,
    /// Whether a writer is under way.
    busy: bool,
}

struct Work {
    task: Task,
    reply: oneshot::Sender<Result<Done, StoreError>>,
}

impl Writer {
    pub(super) fn new(pool: SqlitePool, shared: bool) -> Self {
        Self { pool, shared, queue: Mutex::default(), met: Mutex::default() }
    }

    /// Queues `task` and waits for its end. Dropped before the writer took it, it's never done;
    /// dropped later, it's done as if nothing had happened.
    pub(super) async fn submit(self: &Arc<Self>, task: Task) -> Result<Done, StoreError> {
        let runtime = Handle::try_current().map_err(StoreError::broken)?;
        let (reply, answer) = oneshot::channel();
        let start = {
            let mut queue = self.queue();
            if queue.waiting.len() >= WAITING {
                return Err(StoreError::refused("too many commits are waiting"));
            }
            queue.waiting.push_back(Work { task, reply });
            !mem::replace(&mut queue.busy, true)
        };
        if start {
            runtime.spawn(Turn { writer: Arc::clone(self), over: false }.run());
        }
        answer.await.unwrap_or_else(|_| Err(StoreError::unknown("the writer was stopped")))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, lease: &mut Option<Lease>, group: Vec<Work>) {
        match self.attempt(lease, &group).await {
            Ok(answers) => {
                for (work, answer) in group.into_iter().zip(answers) {
                    // Whoever left doesn't want to know.
                    let _ = work.reply.send(Ok(answer));
                }
            }
            // One that is too large for the disk must not take the others along.
            Err(failure) if failure.kind == StoreErrorKind::Broken && group.len() > 1 => {
                for work in group {
                    let answer = match self.attempt(lease, slice::from_ref(&work)).await {
                        Ok(mut answers) => answers.pop().ok_or_else(|| StoreError::broken("no answer")),
                        Err(failure) => Err(failure.into()),
                    };
                    let _ = work.reply.send(answer);
                }
            }
            Err(failure) => {
                for work in group {
                    let _ = work.reply.send(Err(failure.clone().into()));
                }
            }
        }
    }

    /// One transaction: all of the group was decided and applied, or (unless the failure is `Unknown`)
    /// none of it.
    async fn attempt(&self, lease: &mut Option<Lease>, group: &[Work]) -> Result<Vec<Done>, Failure> {
        let start = time::monotonic();
        let mut held = loop {
            if let Some(held) = lease.take() {
                break held;
            }
            match Lease::of(&self.pool).await {
                Ok(held) => break held,
                // Even opening the file meets others: whoever closes it as the last tidies up.
                Err(failure) => self.wait(failure, start, QUEUE).await?,
            }
        };
        if self.shared {
            let full = sqlx::query("pragma synchronous = full");
            full.execute(held.connection()).await.map_err(failure)?;
        }
        let start = time::monotonic();
        let mut tx = loop {
            match held.connection().begin_with("begin immediate").await {
                Ok(tx) => break tx,
                Err(error) => self.wait(failure(error), start, PATIENCE).await?,
            }
        };
        let before = versions(&mut tx, group).await.map_err(failure)?;
        let mut plan = Plan { before, after: BTreeMap::new() };
        let mut answers = Vec::with_capacity(group.len());
        for work in group {
            answers.push(match &work.task {
                Task::Batch(batch) => Done::Commit(plan.add(batch)),
                Task::Sweep(_) => Done::Swept(0),
            });
        }
        plan.write(&mut tx).await.map_err(failure)?;
        for (work, answer) in group.iter().zip(&mut answers) {
            if let Task::Sweep(before) = work.task {
                let query = sqlx::query(SWEEP).bind(before);
                *answer = Done::Swept(query.execute(&mut *tx).await.map_err(failure)?.rows_affected());
            }
        }
        tx.commit().await.map_err(commit_failure)?;
        if self.shared {
            // The app's reads may be waiting for this very connection.
            held.done();
        } else {
            *lease = Some(held);
        }
        Ok(answers)
    }

    /// Waits before the lock is asked for again. SQLite's own way of waiting sleeps longer and longer,
    /// so that a busy process keeps the others out; asking often gives each a chance.
    async fn wait(&self, failure: Failure, start: Instant, patience: Duration) -> Result<(), Failure> {
        if failure.kind != StoreErrorKind::Refused || start.elapsed() >= patience {
            return Err(failure);
        }
        *self.met() = Some(time::monotonic());
        tokio::time::sleep(pause()).await;
        Ok(())
    }

    /// Lets others have the lock, if there were any within the last second.
    async fn give_way(&self) {
        let met = *self.met();
        if met.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            tokio::time::sleep(pause()).await;
        }
    }

    fn met(&self) -> MutexGuard<'_, Option<Instant>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a group comes to: what its keys hold at its start and at its end.
#[derive(Default)]
struct Plan<'a> {
    before: HashMap<String, Version>,
    after: BTreeMap<&'a str, Option<&'a Row>>,
}

impl<'a> Plan<'a> {
    /// Decides the next batch, after those before it.
    fn add(&mut self, batch: &'a Batch) -> Commit {
        for (key, op) in batch.ops() {
            if op.condition().is_some_and(|wanted| wanted != self.version(key)) {
                return Commit::Conflict(key.clone());
            }
        }
        let effects = batch.ops().filter_map(|(key, op)| Some((key.as_str(), op.effect()?)));
        self.after.extend(effects);
        Commit::Applied
    }

    fn version(&self, key: &Key) -> Option<Version> {
        match self.after.get(key.as_str()) {
            Some(row) => row.map(|row| row.version),
            None => self.before.get(key.as_str()).copied(),
        }
    }

    /// The rows to insert, to write over, to take away: each an array, the version that was there second.
    fn changes(&self) -> [Vec<Value>; 3] {
        let mut changes = [const { Vec::new() }; 3];
        let [insert, replace, delete] = &mut changes;
        for (key, row) in &self.after {
            let old = self.before.get(*key).map(|version| version.to_text());
            match (old, row.map(sql::columns)) {
                (None, Some((new, expires_at, body))) => insert.push(json!([key, new, expires_at, body])),
                (Some(old), Some((new, expires_at, body))) => {
                    replace.push(json!([key, old, new, expires_at, body]))
                }
                (Some(old), None) => delete.push(json!([key, old])),
                (None, None) => {}
            }
        }
        changes
    }

    /// Writes the changes, on condition that the records still are what was read (row D16): the lock
    /// says they are; should it ever lie, nothing is committed.
    async fn write(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        for (sql, rows) in [INSERT, REPLACE, DELETE].into_iter().zip(self.changes()) {
            let wanted = rows.len();
            if wanted == 0 {
                continue;
            }
            let query = sqlx::query(sql).bind(Value::from(rows).to_string());
            let touched = query.execute(&mut *connection).await?.rows_affected();
            if usize::try_from(touched) != Ok(wanted) {
                return Err(sqlx::Error::Protocol("a record changed under the write lock".into()));
            }
        }
        Ok(())
    }
}

/// The versions of all records that the group names.
async fn versions(
    connection: &mut SqliteConnection,
    group: &[Work],
) -> Result<HashMap<String, Version>, sqlx::Error> {
    let batches = group.iter().filter_map(|work| match &work.task {
        Task::Batch(batch) => Some(batch),
        Task::Sweep(_) => None,
    });
    let keys: Value = batches.flat_map(|batch| batch.ops().map(|(key, _)| key.as_str())).collect();
    let query =
        sqlx::query_as("select key, version from mfa_record where key in (select value from json_each($1))");
    let rows: Vec<(String, String)> = query.bind(keys.to_string()).fetch_all(connection).await?;
    let read = |(key, text): (String, String)| Version::from_text(&text).map(|version| (key, version));
    rows.into_iter()
        .map(read)
        .collect::<Option<_>>()
        .ok_or_else(|| sqlx::Error::Decode("not a version".into()))
}

/// One to three milliseconds: long enough for a commit, and not the same for everyone.
fn pause() -> Duration {
    let [byte] = random::bytes().unwrap_or([128]);
    Duration::from_micros(1000 + u64::from(byte) * 8)
}

/// The writer's turn. However it ends, the next commit can start another.
struct Turn {
    writer: Arc<Writer>,
    over: bool,
}

impl Turn {
    async fn run(mut self) {
        let mut lease = None;
        while let Some(group) = self.next() {
            if !group.is_empty() {
                self.writer.write(&mut lease, group).await;
                self.writer.give_way().await;
            }
        }
        if let Some(lease) = lease {
            lease.done();
        }
    }

    /// The next group; `None` ends the turn. Work whose caller left is left undone.
    fn next(&mut self) -> Option<Vec<Work>> {
        let mut queue = self.writer.queue();
        let size = queue.waiting.len().min(GROUP);
        let group = queue.waiting.drain(..size).filter(|work| !work.reply.is_closed()).collect();
        queue.busy = size > 0;
        self.over = size == 0;
        (size > 0).then_some(group)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        // The runtime went away. What it was writing is unknown; what still waits was never begun.
        let waiting = {
            let mut queue = self.writer.queue();
            queue.busy = false;
            mem::take(&mut queue.waiting)
        };
        for work in waiting {
            let _ = work.reply.send(Err(StoreError::refused("the writer was stopped")));
        }
    }
}

/// How much is committed at once: a failed disk fails no more than this.
const GROUP: usize = 256;
/// How much may wait.
const WAITING: usize = 4096;

const INSERT: &str = "insert into mfa_record (key, version, expires_at, body) \
                      select value ->> 0, value ->> 1, value ->> 2, value ->> 3 from json_each($1)";
const REPLACE: &str = "update mfa_record set version = change.value ->> 2, expires_at = change.value ->> 3, \
                       body = change.value ->> 4 \
                       from json_each($1) as change \
                       where mfa_record.key = change.value ->> 0 and version = change.value ->> 1";
const DELETE: &str = "delete from mfa_record where (key, version) in \
                      (select value ->> 0, value ->> 1 from json_each($1))";
const SWEEP: &str = "delete from mfa_record where key in \
                     (select key from mfa_record where expires_at < $1 order by expires_at limit 1000)";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{MemoryStore, Op, Record, Scan, Store as _};

    proptest! {
        /// A group comes to what its batches come to one by one.
        #[test]
        fn a_group_is_its_batches_in_turn(
            batches in prop::collection::vec(prop::collection::btree_map(0_usize..4, (0_u8..6, 0_usize..6), 1..4), 1..12),
            start in prop::collection::vec(any::<bool>(), 4),
        ) {
            let versions: Vec<Version> = (0..6).map(|_| Version::random().unwrap()).collect();
            let row = |at: usize| Row { version: versions[at], expires_at: None, body: json!(at) };
            let key = |at: usize| Key::new(["k", &at.to_string()]);
            let batch = |ops: Vec<(usize, Op)>| {
                let mut batch = Batch::new();
                ops.into_iter().for_each(|(at, op)| batch.push(key(at), op));
                batch
            };
            let reference = MemoryStore::new();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let there: Vec<usize> = (0..4).filter(|at| start[*at]).collect();
            let first = there.iter().map(|at| (*at, Op::Insert(row(*at)))).collect();
            prop_assert_eq!(runtime.block_on(reference.commit(batch(first))).unwrap(), Commit::Applied);
            let before: HashMap<_, _> =
                there.iter().map(|at| (key(*at).as_str().to_owned(), versions[*at])).collect();
            let batches: Vec<Batch> = batches
                .into_iter()
                .map(|ops| {
                    let op = |(at, (kind, version)): (usize, (u8, usize))| {
                        let (old, new) = (versions[version], row((version + 1) % 6));
                        let op = match kind {
                            0 => Op::Insert(new),
                            1 => Op::Replace(old, new),
                            2 => Op::Upsert(new),
                            3 => Op::Delete(old),
                            4 => Op::Remove,
                            _ => Op::Check(old),
                        };
                        (at, op)
                    };
                    batch(ops.into_iter().map(op).collect())
                })
                .collect();

            let mut plan = Plan { before: before.clone(), after: BTreeMap::new() };
            for batch in &batches {
                prop_assert_eq!(plan.add(batch), runtime.block_on(reference.commit(batch.clone())).unwrap());
            }
            // The changes, applied to what was there, give what the reference holds.
            let mut now: BTreeMap<String, String> =
                before.iter().map(|(key, version)| (key.clone(), version.to_text())).collect();
            let [insert, replace, delete] = plan.changes();
            let text = |row: &Value, at: usize| row[at].as_str().unwrap().to_owned();
            for row in insert {
                prop_assert_eq!(now.insert(text(&row, 0), text(&row, 1)), None);
            }
            for row in replace {
                prop_assert_eq!(now.insert(text(&row, 0), text(&row, 2)), Some(text(&row, 1)));
            }
            for row in delete {
                prop_assert_eq!(now.remove(&text(&row, 0)), Some(text(&row, 1)));
            }
            let held = runtime.block_on(reference.scan(&Scan::under(Key::new(["k"])))).unwrap();
            let held: BTreeMap<String, String> =
                held.into_iter().map(|Record { key, row }| (key.as_str().to_owned(), row.version.to_text())).collect();
            prop_assert_eq!(now, held);
        }
    }
}
