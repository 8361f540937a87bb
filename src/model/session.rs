//! Sessions: their rows, a user's list of them, and the line of their refresh tokens.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Tx,
    audit::{self, Audited, Cause, Event},
    change::{self, Change, ChangeKind, Subject},
    epoch::Epochs,
    keys,
    user::Active,
};
use crate::base::{
    error::Error,
    ident::{LoginId, SessionHandle, TenantId, UserId},
    payload::Payload,
    time::Timestamp,
};

/// A session's row. The handle is its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    pub(crate) user: UserId,
    pub(crate) login: LoginId,
    pub(crate) tenant: TenantId,
    pub(crate) created_at: Timestamp,
    pub(crate) used_at: Timestamp,
    /// The session's own number: raised when what its tokens say is called in.
    pub(crate) revision: u64,
    /// The other numbers at which it was made or last evaluated.
    pub(crate) epochs: Epochs,
    /// The claims and the app's members.
    pub(crate) payload: Payload,
    pub(crate) lineage: Lineage,
    /// What the client called itself at sign-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<String>,
    /// From when the policy wants to be asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ask_at: Option<Timestamp>,
}

impl SessionRecord {
    /// The numbers that a token minted from this row carries.
    pub(crate) fn numbers(&self) -> Epochs {
        Epochs { session: self.revision, ..self.epochs }
    }

    /// Whether the session lacks a factor and never had all.
    pub(crate) fn is_half(&self) -> bool {
        self.lineage.half_until.is_some()
    }

    /// Whether the requirements were met when they were last evaluated.
    fn is_complete(&self) -> bool {
        self.payload.member("st-mfa").is_some_and(|claim| claim["v"] == true)
    }
}

/// A user's sessions, in one record: so that their number is bounded in the batch that makes one (row
/// S17), and ending all of them needs no search.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SessionsOf {
    pub(crate) sessions: Vec<Listed>,
}

/// One entry of [`SessionsOf`], oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) handle: SessionHandle,
    pub(crate) created_at: Timestamp,
    /// Never signed in fully: such sessions can't push out full ones.
    pub(crate) half: bool,
}

/// How many half-authenticated sessions a user may have (row S17).
const MOST_HALF: usize = 10;

/// Stages a new session (row S04: its handle must be free) of a user who may have one (row W06), and the end of the
/// oldest beyond `most`.
pub(crate) async fn insert(
    tx: &mut Tx,
    _whose: &Active,
    handle: &SessionHandle,
    row: &SessionRecord,
    most: usize,
) -> Result<Vec<Change>, Error> {
    tx.insert(keys::session(handle), row, Some(row.lineage.ends_at())).await?;
    let key = keys::sessions_of(&row.user);
    let mut list: SessionsOf = tx.get(&key).await?.unwrap_or_default();
    let half = row.is_half();
    drop_gone(tx, &mut list).await?;
    list.sessions.push(Listed { handle: handle.clone(), created_at: row.created_at, half });
    let ended = trim(tx, &mut list, handle, half, if half { MOST_HALF } else { most }).await?;
    tx.put(key, &list, None).await?;
    Ok(ended)
}

/// Forgets sessions that ran out: nobody ended them.
async fn drop_gone(tx: &mut Tx, list: &mut SessionsOf) -> Result<(), Error> {
    tx.prefetch(list.sessions.iter().map(|entry| keys::session(&entry.handle))).await?;
    let mut there = Vec::with_capacity(list.sessions.len());
    for entry in std::mem::take(&mut list.sessions) {
        if tx.get::<SessionRecord>(&keys::session(&entry.handle)).await?.is_some() {
            there.push(entry);
        }
    }
    list.sessions = there;
    Ok(())
}

/// Stages the end of the oldest sessions of one kind beyond `most`, but for `keep`.
async fn trim(
    tx: &mut Tx,
    list: &mut SessionsOf,
    keep: &SessionHandle,
    half: bool,
    most: usize,
) -> Result<Vec<Change>, Error> {
    let mut ended = Vec::new();
    while list.sessions.iter().filter(|entry| entry.half == half).count() > most {
        let oldest = |entry: &Listed| entry.half == half && entry.handle != *keep;
        let Some(at) = list.sessions.iter().position(oldest) else { break };
        let oldest = list.sessions.remove(at).handle;
        if let Some(old) = tx.get::<SessionRecord>(&keys::session(&oldest)).await? {
            tx.delete(keys::session(&oldest)).await?;
            let event = Event::new(Audited::SessionRevoked, &old.tenant).user(&old.user).session(&oldest);
            audit::stage(tx, event.cause(Cause::TooMany))?;
            let revision = old.revision + 1;
            ended.push(change::record(tx, Subject::Session(oldest), revision, ChangeKind::Revoked).await?);
        }
    }
    Ok(ended)
}

/// Stages a row that replaces the one read. Whoever writes a row passes here, so this is where the trail
/// hears that a session meets its requirements, or doesn't any more.
pub(crate) async fn put(tx: &mut Tx, handle: &SessionHandle, row: &SessionRecord) -> Result<(), Error> {
    let before: Option<SessionRecord> = tx.get(&keys::session(handle)).await?;
    let what = match (before.is_some_and(|before| before.is_complete()), row.is_complete()) {
        (false, true) => Some(Audited::RequirementsMet),
        (true, false) => Some(Audited::RequirementsUnmet),
        _ => None,
    };
    if let Some(what) = what {
        audit::stage(tx, Event::new(what, &row.tenant).user(&row.user).session(handle))?;
    }
    tx.put(keys::session(handle), row, Some(row.lineage.ends_at())).await
}

/// Stages that a session met its requirements for the first time, and the end of the oldest full one
/// beyond `most`.
pub(crate) async fn list_as_full(
    tx: &mut Tx,
    user: &UserId,
    handle: &SessionHandle,
    most: usize,
) -> Result<Vec<Change>, Error> {
    let key = keys::sessions_of(user);
    let mut list: SessionsOf = tx.get(&key).await?.unwrap_or_default();
    let Some(entry) = list.sessions.iter_mut().find(|entry| entry.handle == *handle) else {
        return Ok(Vec::new());
    };
    entry.half = false;
    let ended = trim(tx, &mut list, handle, false, most).await?;
    tx.put(key, &list, None).await?;
    Ok(ended)
}

/// Stages that a session is gone, and says so in the feed and, by `event`, in the trail.
pub(crate) async fn end(
    tx: &mut Tx,
    handle: &SessionHandle,
    row: &SessionRecord,
    event: Event,
) -> Result<Change, Error> {
    audit::stage(tx, event.user(&row.user).session(handle))?;
    tx.delete(keys::session(handle)).await?;
    let key = keys::sessions_of(&row.user);
    let mut list: SessionsOf = tx.get(&key).await?.unwrap_or_default();
    list.sessions.retain(|entry| entry.handle != *handle);
    tx.put(key, &list, None).await?;
    change::record(tx, Subject::Session(handle.clone()), row.revision + 1, ChangeKind::Revoked).await
}

/// Stages the end of a user's sessions, but for `keep`: the raised number ends them, here their rows go
/// as well, so that what a person sees in a list is so.
pub(crate) async fn end_of_user(
    tx: &mut Tx,
    user: &UserId,
    keep: Option<&SessionHandle>,
    cause: Cause,
) -> Result<Change, Error> {
    let event = Event::new(Audited::SessionsRevoked, &TenantId::PUBLIC).user(user).cause(cause);
    audit::stage(tx, keep.map_or(event.clone(), |kept| event.session(kept)))?;
    let change = change::stage(tx, Subject::User(user.clone()), ChangeKind::Revoked).await?;
    let key = keys::sessions_of(user);
    let mut list: SessionsOf = tx.get(&key).await?.unwrap_or_default();
    for entry in list.sessions.iter().filter(|entry| Some(&entry.handle) != keep) {
        tx.remove(keys::session(&entry.handle));
    }
    list.sessions.retain(|entry| Some(&entry.handle) == keep);
    tx.put(key, &list, None).await?;
    Ok(change)
}

/// Stages the end of a user's sessions in one tenant.
pub(crate) async fn end_in(
    tx: &mut Tx,
    user: &UserId,
    tenant: &TenantId,
    cause: Cause,
) -> Result<Vec<Change>, Error> {
    let list: SessionsOf = tx.get(&keys::sessions_of(user)).await?.unwrap_or_default();
    let there = list.sessions.into_iter().map(|entry| entry.handle).filter(|handle| handle.is_of(tenant));
    let mut ended = Vec::new();
    for handle in there {
        if let Some(row) = tx.get::<SessionRecord>(&keys::session(&handle)).await? {
            let event = Event::new(Audited::SessionRevoked, tenant).cause(cause);
            ended.push(end(tx, &handle, &row, event).await?);
        }
    }
    Ok(ended)
}

/// How many superseded tokens a row remembers; older ones count as reuse.
pub(crate) const SUPERSEDED: usize = 8;

/// The line of a session's refresh tokens: all that `session::refresh::decide` needs to know, and no
/// token, only hashes of hashes (`hash2`; rows R01 to R11, S02).
///
/// Whether a successor was *used* needs no member: using `current` rotates it in the same batch, which
/// makes it `previous` and forgets both the former `previous` and every superseded token.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(PartialEq))]
pub(crate) struct Lineage {
    /// The one token that works.
    pub(crate) current: String,
    /// What `current` was rotated from; none after sign-in and after an elevation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) previous: Option<Previous>,
    /// What elevations since the last rotation put out of use, oldest first: the last one is the token
    /// that `current` was elevated from. Empty unless `current` came from an elevation and is unused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) superseded: Vec<Superseded>,
    /// 256 random bits, base64url: what successors are derived with. Made with the session, never changed.
    pub(crate) salt: String,
    /// The end of a session that has not yet met its requirements; not moved by a refresh, cleared
    /// when they are first met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) half_until: Option<Timestamp>,
    /// The sliding end.
    pub(crate) expires_at: Timestamp,
    /// The end that never moves (row R11).
    pub(crate) absolute_until: Timestamp,
}

/// The token before the current one.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(PartialEq))]
pub(crate) struct Previous {
    pub(crate) hash2: String,
    /// When it was rotated: the grace window starts here.
    pub(crate) rotated_at: Timestamp,
}

/// A token that an elevation put out of use.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(PartialEq))]
pub(crate) struct Superseded {
    pub(crate) hash2: String,
    /// The end of its grace window.
    pub(crate) until: Timestamp,
}

impl Lineage {
    /// The earliest of the three ends: tokens are clamped to it, and at it the session is over.
    pub(crate) fn ends_at(&self) -> Timestamp {
        let end = self.expires_at.min(self.absolute_until);
        self.half_until.map_or(end, |half| end.min(half))
    }
}

/// No hash and no salt (row G01).
impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lineage")
            .field("rotated_at", &self.previous.as_ref().map(|previous| previous.rotated_at))
            .field("superseded", &self.superseded.len())
            .field("half_until", &self.half_until)
            .field("expires_at", &self.expires_at)
            .field("absolute_until", &self.absolute_until)
            .finish_non_exhaustive()
    }
}
