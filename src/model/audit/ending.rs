//! Which sessions ended, and why: what the app's hook is told of an event.

use super::Cause;
use crate::base::{
    ident::{SessionHandle, UserId},
    time::Timestamp,
};

/// Sessions that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ending {
    /// When.
    pub at: Timestamp,
    /// Which.
    pub ended: Ended,
    /// Why.
    pub cause: Cause,
}

/// Which sessions ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// One.
    One {
        /// Whose it was.
        user: UserId,
        /// Which it was.
        session: SessionHandle,
    },
    /// Every session of a user, but perhaps for one.
    OfUser {
        /// Whose they were.
        user: UserId,
        /// The one that goes on.
        but: Option<SessionHandle>,
    },
    /// Every session there was.
    All,
}

impl Ended {
    pub(super) fn of_one(user: Option<UserId>, session: Option<SessionHandle>) -> Option<Self> {
        Some(Self::One { user: user?, session: session? })
    }
}
