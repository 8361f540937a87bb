//! A store of one's own: a map in memory, and a file in which every batch is one line of JSON. It keeps the
//! whole contract for one process; a busy server would wait for the disk in `tokio::task::spawn_blocking`.
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::{collections::BTreeMap, fmt, path::Path, sync::Mutex, time::SystemTime};

use serde_json::Value;
use tower_mfa::ident::Timestamp;
use tower_mfa::store::{Batch, Commit, Key, Op, Record, Row, Scan, Store, StoreError, Version};

pub(crate) struct FileStore(Mutex<State>);

struct State {
    rows: BTreeMap<Key, Row>,
    /// Gone after a failed write: how the file ends is unknown then, until it is opened anew.
    file: Option<File>,
}

/// A key, and what is there now: version, expiry, body.
type Change = (String, Option<(String, Option<Timestamp>, Value)>);

impl FileStore {
    pub(crate) fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        file.try_lock()?; // one process
        let (mut bytes, mut rows, mut whole) = (Vec::new(), BTreeMap::new(), 0);
        file.read_to_end(&mut bytes)?;
        // A last line that a crash cut short was never applied.
        for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            apply(&mut rows, serde_json::from_slice(line)?).ok_or(io::ErrorKind::InvalidData)?;
            whole += line.len() as u64;
        }
        file.set_len(whole).and_then(|()| file.sync_all())?;
        Ok(Self(Mutex::new(State { rows, file: Some(file) })))
    }

    fn state(&self) -> Result<std::sync::MutexGuard<'_, State>, StoreError> {
        self.0.lock().map_err(|_| StoreError::broken("a writer panicked"))
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileStore") // what is in it is nobody's business
    }
}

impl Store for FileStore {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        let state = self.state()?; // one lock, one snapshot
        Ok(keys.iter().map(|key| state.rows.get(key).cloned()).collect())
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        let state = self.state()?;
        let found = state.rows.iter().filter(|(key, _)| scan.wants(key)).take(scan.limit);
        Ok(found.map(|(key, row)| Record { key: key.clone(), row: row.clone() }).collect())
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        let mut state = self.state()?;
        for (key, op) in batch.ops() {
            let there = state.rows.get(key).map(|row| row.version);
            if op.condition().is_some_and(|wanted| wanted != there) {
                return Ok(Commit::Conflict(key.clone()));
            }
        }
        let row = |row: &Row| (row.version.to_text(), row.expires_at, row.body.clone());
        let change = |(key, op): (&Key, &Op)| Some((key.as_str().to_owned(), op.effect()?.map(row)));
        state.write(batch.ops().filter_map(change).collect()).map(|()| Commit::Applied)
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut state = self.state()?;
        let expired = state.rows.iter().filter(|(_, row)| row.expires_at.is_some_and(|at| at < before));
        let gone: Vec<Change> = expired.take(1000).map(|(key, _)| (key.as_str().to_owned(), None)).collect();
        let count = gone.len() as u64;
        state.write(gone).map(|()| count)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        SystemTime::UNIX_EPOCH.elapsed().map(|since| Timestamp::EPOCH + since).map_err(StoreError::broken)
    }
}

impl State {
    fn write(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut file = self.file.take().ok_or_else(|| StoreError::broken("an earlier write failed"))?;
        let line = serde_json::to_string(&changes).map_err(StoreError::broken)? + "\n";
        // The line may be there although the disk complained: the caller has to look.
        file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).map_err(StoreError::unknown)?;
        self.file = Some(file);
        apply(&mut self.rows, changes).ok_or_else(|| StoreError::broken("not a record"))
    }
}

fn apply(rows: &mut BTreeMap<Key, Row>, changes: Vec<Change>) -> Option<()> {
    for (key, row) in changes {
        let key = Key::parse(&key).ok()?;
        if let Some((version, expires_at, body)) = row {
            rows.insert(key, Row { version: Version::from_text(&version)?, expires_at, body });
        } else {
            rows.remove(&key);
        }
    }
    Some(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = tempfile::NamedTempFile::new()?.into_temp_path();
    let (store, key, mut batch) = (FileStore::open(&path)?, Key::new(["a"]), Batch::new());
    let row = Row { version: Version::random()?, expires_at: None, body: "hello".into() };
    batch.push(key.clone(), Op::Insert(row));
    println!("once: {:?}, twice: {:?}", store.commit(batch.clone()).await?, store.commit(batch).await?);
    drop(store);
    println!("reopened: {:?}", FileStore::open(&path)?.get(&[key]).await?);
    Ok(())
}
