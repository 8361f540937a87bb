//! The change feed: "number n of X: revoked / judge anew", numbered without gaps in sixteen lanes, in the
//! batch of the change itself (design, part 5, last life). No time decides here, only numbers.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::{Deserialize, Serialize};

use super::{Db, Tx, epoch, keys};
use crate::{
    base::{
        error::Error,
        ident::{SessionHandle, TenantId, UserId},
        time::Timestamp,
    },
    store::Scan,
};

/// How many lanes there are: writers of different subjects seldom meet.
const LANES: u64 = 16;

/// One change that reaches live sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) subject: Subject,
    /// The subject's number from which on a token is unaffected.
    pub(crate) n: u64,
    pub(crate) kind: ChangeKind,
    pub(crate) at: Timestamp,
}

/// Whose sessions a change touches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    App,
    Tenant(TenantId),
    User(UserId),
    Session(SessionHandle),
}

/// What a change does to tokens of lower number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ChangeKind {
    /// They are dead.
    Revoked,
    /// Their claims are asked for again.
    JudgeAnew,
    /// The signing keys changed: read them again.
    Keys,
}

#[derive(Default, Serialize, Deserialize)]
struct Head {
    n: u64,
}

/// Stages a change of `subject`: its number raised, the feed's record, the lane's head moved by one.
pub(crate) async fn stage(tx: &mut Tx, subject: Subject, kind: ChangeKind) -> Result<Change, Error> {
    let n = epoch::raise(tx, &subject, kind).await?;
    record(tx, subject, n, kind).await
}

/// Stages the feed's record of a change whose number is known: a session's revision.
pub(crate) async fn record(tx: &mut Tx, subject: Subject, n: u64, kind: ChangeKind) -> Result<Change, Error> {
    let lane = lane(&subject);
    let head = tx.get::<Head>(&keys::change_head(lane)).await?.unwrap_or_default().n + 1;
    let change = Change { subject, n, kind, at: tx.now() };
    let end = tx.now() + tx.change_life();
    tx.put(keys::change_head(lane), &Head { n: head }, None).await?;
    // Not looked up: if another writer took the number since the head was read, the commit must lose its
    // race and try again, not fail.
    tx.insert_new(keys::change(lane, head), &change, Some(end))?;
    Ok(change)
}

/// How far a process has read, or how far there is to read, lane by lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor(BTreeMap<u8, u64>);

impl Cursor {
    /// Whether the heads went back: a backup was restored, and what was folded before no longer counts.
    pub(crate) fn is_beyond(&self, heads: &Self) -> bool {
        self.0.iter().any(|(lane, &read)| heads.0.get(lane).copied().unwrap_or(0) < read)
    }
}

/// How far there is to read: one scan.
pub(crate) async fn heads(db: &Db) -> Result<Cursor, Error> {
    let heads: Vec<(_, Head)> = db.scan(&Scan::under(keys::change_heads())).await?;
    Ok(Cursor(heads.into_iter().filter_map(|(key, head)| Some((key.last().parse().ok()?, head.n))).collect()))
}

/// Reads what follows `from`, a page of each lane that moved at a time, so that no more than a page is in memory
/// however much there is. Answers how far it got.
pub(crate) async fn read(
    db: &Db,
    from: &Cursor,
    heads: Cursor,
    mut fold: impl FnMut(&[Change]) + Send,
) -> Result<Cursor, Error> {
    let mut reached = heads.clone();
    for (lane, head) in heads.0 {
        let mut read = from.0.get(&lane).copied().unwrap_or(0);
        while read < head {
            let scan = Scan::under(keys::change_lane(lane)).after(keys::change(lane, read));
            // Expired records are still in the way of live ones: a page ends by its keys.
            let page: Vec<(_, Option<Change>)> = db.scan_raw(&scan).await?;
            let Some((last, _)) = page.last() else { break };
            read = u64::from_str_radix(&last.last(), 16).unwrap_or(head);
            let changes: Vec<Change> = page.into_iter().filter_map(|(_, change)| change).collect();
            fold(&changes);
        }
        // A lane that was appended to since the heads were read is ahead of its head: say so.
        let reached = reached.0.entry(lane).or_default();
        *reached = (*reached).max(read);
    }
    Ok(reached)
}

fn lane(subject: &Subject) -> u8 {
    // DefaultHasher::new is the same in every process of one build; a lane is only a place to queue, so
    // two builds that disagree still number each lane without gaps.
    let mut hasher = DefaultHasher::new();
    subject.hash(&mut hasher);
    u8::try_from(hasher.finish() % LANES).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        base::time::SystemClock,
        model::audit::Trail,
        store::{AnyStore, MemoryStore},
    };

    /// However much there is to read, a page of it is in memory, each change once, and nothing is left out.
    #[tokio::test]
    async fn sec_k04_the_feed_is_read_by_the_page() {
        let store = AnyStore::new(MemoryStore::new());
        let db = Db::new(store, Arc::new(SystemClock::new()), Duration::from_secs(3600), Trail::new().0);
        let user = UserId::parse("alice").unwrap();
        let subject = || Subject::User(user.clone());
        for _ in 0..2345 {
            let stage = |mut tx: Tx| async move {
                let change = stage(&mut tx, subject(), ChangeKind::JudgeAnew).await?;
                tx.commit(change)
            };
            db.transact("alice", stage).await.unwrap();
        }
        let (mut pages, mut numbers) = (Vec::new(), Vec::new());
        let fold = |page: &[Change]| {
            pages.push(page.len());
            numbers.extend(page.iter().map(|change| change.n));
        };
        let heads = heads(&db).await.unwrap();
        let reached = read(&db, &Cursor::default(), heads.clone(), fold).await.unwrap();
        assert_eq!(pages, [1000, 1000, 345]);
        assert_eq!(numbers, (1..=2345).collect::<Vec<_>>());
        assert!(!reached.is_beyond(&heads));
        read(&db, &reached, heads, |_| panic!("there is nothing new")).await.unwrap();
    }
}
