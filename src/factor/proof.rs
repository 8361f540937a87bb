//! What an accepted credential leaves behind: a value that can't be forged, copied or used twice.

use std::fmt;

use crate::{
    base::{
        ident::{FactorId, SessionHandle, TenantId, UserId},
        time::Timestamp,
    },
    model::{
        spend::Spend,
        user::{NewLogin, Owner},
    },
};

/// A credential was accepted, for one session or for the start of one. Nothing is complete until the
/// proof was handed in and that call has returned.
#[must_use]
pub struct Proof {
    pub(crate) factor: FactorId,
    pub(crate) at: Timestamp,
    pub(crate) bound: Bound,
    pub(crate) spend: Spend,
    pub(crate) credential: Credential,
}

/// For whom a proof counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bound {
    pub(crate) tenant: TenantId,
    /// `None`: for the start of a session.
    pub(crate) session: Option<(SessionHandle, UserId)>,
}

/// What was proved.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// A login method that exists.
    Known(Owner),
    /// A name that signs in, or up if nobody has it yet.
    Named(NewLogin),
    /// A name that must be nobody's yet.
    Fresh(NewLogin),
    /// Nothing of its own: the session's user passed an app's own check.
    Session,
}

impl Proof {
    /// The factor that was proved.
    pub fn factor(&self) -> &FactorId {
        &self.factor
    }
}

/// A factor's check accepted a credential.
pub(crate) fn accepted(
    factor: FactorId,
    at: Timestamp,
    bound: Bound,
    spend: Spend,
    credential: Credential,
) -> Proof {
    Proof { factor, at, bound, spend, credential }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof").field("factor", &self.factor).finish_non_exhaustive()
    }
}

/// Where an app vouches for what the crate didn't see. Easy to search for, on purpose.
pub mod danger {
    use super::{Bound, Credential, FactorId, Proof, Spend, Timestamp};
    use crate::session::Session;

    /// The session's user passed the app's own check of `factor`, now. Whoever calls this answers for it.
    pub fn assert_proof(factor: FactorId, session: &Session, now: Timestamp) -> Proof {
        let bound =
            Bound { tenant: session.tenant_id(), session: Some((session.handle(), session.user_id())) };
        super::accepted(factor, now, bound, Spend::Nothing, Credential::Session)
    }
}
