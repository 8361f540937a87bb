//! What a session's row keeps.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;

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
