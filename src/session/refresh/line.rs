//! The line's steps, each a function of the line as it was: what the flows write, and what the tests of
//! whole schedules run.

use std::time::Duration;

use super::{RefreshKeys, RefreshToken, child, elevated, hash2_of, is, redeliver};
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::{SessionHandle, UserId},
        time::Timestamp,
    },
    model::session::{Lineage, Previous, SUPERSEDED, Superseded},
};

/// Uses the current token: what follows it, and the line from then on (row R02). `keys` are the newest
/// first.
///
/// # Errors
/// If there is no key.
pub(crate) fn rotate(
    lineage: &Lineage,
    keys: &[RefreshKeys],
    presented: &RefreshToken,
    now: Timestamp,
    slides_to: Timestamp,
) -> Result<(RefreshToken, Lineage), Error> {
    let newest = keys.first().ok_or(Error::internal("there is no root key"))?;
    let next = child(newest, &lineage.salt, presented);
    let line = rotated(lineage, &next, now, slides_to);
    Ok((next, line))
}

/// Delivers again what followed the token before the current one (row R03).
///
/// # Errors
/// `Unavailable` if the key that made it is gone.
pub(crate) fn replay(
    lineage: &Lineage,
    keys: &[RefreshKeys],
    presented: &RefreshToken,
) -> Result<RefreshToken, Error> {
    redeliver(keys, lineage, |keys| child(keys, &lineage.salt, presented))
        .ok_or(Error::unavailable("the successor's root key is gone"))
}

/// Who completes a factor, and with which access token.
#[derive(Clone, Copy)]
pub(crate) struct Completing<'a> {
    pub(crate) handle: &'a SessionHandle,
    /// Whose the session is from now on.
    pub(crate) user: &'a UserId,
    /// What the access token says of its refresh token.
    pub(crate) refresh_hash1: &'a str,
}

/// A completed factor: the token that goes out, and the line from then on (row S02 a, d).
///
/// # Errors
/// `StaleToken` if the access token is too old, or the shared successor can't be made again.
pub(crate) fn complete(
    lineage: &Lineage,
    keys: &[RefreshKeys],
    by: Completing<'_>,
    now: Timestamp,
    grace: Duration,
) -> Result<(RefreshToken, Lineage), Error> {
    let Completing { handle, user, refresh_hash1 } = by;
    let successor = |keys: &RefreshKeys| elevated(keys, &lineage.salt, handle, user, refresh_hash1);
    let stale = |why| Error::new(ErrorKind::StaleToken, why);
    match elevation(lineage, refresh_hash1, now) {
        Elevation::Elevate => {
            let next = keys.first().map(successor).ok_or(Error::internal("there is no root key"))?;
            let line = raised(lineage, &next, now, grace);
            Ok((next, line))
        }
        Elevation::Shared => {
            let again = redeliver(keys, lineage, successor);
            Ok((again.ok_or(stale("the successor can't be made again"))?, lineage.clone()))
        }
        Elevation::Stale => Err(stale("the access token is of an earlier refresh token")),
    }
}

/// What a completed factor does to the line, given the hash in the caller's access token (row S02).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Elevation {
    /// Make the successor of that token current.
    Elevate,
    /// Another completion from the same access token did: the same successor, no change of the line.
    Shared,
    /// The access token is too old: `TRY_REFRESH`, before an attempt is reserved.
    Stale,
}

/// Judges the access token that a completion comes with.
pub(crate) fn elevation(lineage: &Lineage, hash1: &str, now: Timestamp) -> Elevation {
    let hash2 = hash2_of(hash1);
    if is(&lineage.current, &hash2) {
        return Elevation::Elevate;
    }
    match lineage.superseded.last() {
        Some(from) if is(&from.hash2, &hash2) && now <= from.until => Elevation::Shared,
        _ => Elevation::Stale,
    }
}

/// Whether an access token that names this hash was minted on the session's line, not on a dead branch
/// (row R20): asked where the row is read on each request.
pub(crate) fn on_line(lineage: &Lineage, hash1: &str) -> bool {
    let hash2 = hash2_of(hash1);
    let previous = lineage.previous.iter().map(|previous| &previous.hash2);
    let superseded = lineage.superseded.iter().map(|superseded| &superseded.hash2);
    [&lineage.current].into_iter().chain(previous).chain(superseded).any(|known| is(known, &hash2))
}

/// The line after a rotation (row R02). `slides_to` is the new sliding end.
pub(crate) fn rotated(
    lineage: &Lineage,
    next: &RefreshToken,
    now: Timestamp,
    slides_to: Timestamp,
) -> Lineage {
    Lineage {
        current: next.hash2(),
        previous: Some(Previous { hash2: lineage.current.clone(), rotated_at: now }),
        superseded: Vec::new(),
        expires_at: slides_to.min(lineage.absolute_until),
        ..lineage.clone()
    }
}

/// The line after an elevation: no earlier token yields one again (row S02 a). One before the current
/// that is still in its window stays there, as superseded.
pub(crate) fn raised(lineage: &Lineage, next: &RefreshToken, now: Timestamp, grace: Duration) -> Lineage {
    let mut superseded = lineage.superseded.clone();
    if let Some(previous) = &lineage.previous {
        let until = previous.rotated_at + grace;
        if now <= until {
            superseded.push(Superseded { hash2: previous.hash2.clone(), until });
        }
    }
    superseded.push(Superseded { hash2: lineage.current.clone(), until: now + grace });
    let forgotten = superseded.len().saturating_sub(SUPERSEDED);
    superseded.drain(..forgotten);
    Lineage { current: next.hash2(), previous: None, superseded, ..lineage.clone() }
}
