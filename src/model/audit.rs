//! The audit trail: one event a security decision, in the batch of its effect (row G07); also the receipt
//! by which a commit whose answer got lost is looked up.

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Tx, keys};
use crate::base::{
    error::Error,
    hash,
    ident::{FactorId, SessionHandle, TenantId, UserId},
    random,
    time::Timestamp,
};

/// How long an event is kept.
const KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// One security decision.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) at: Timestamp,
    pub(crate) what: What,
    pub(crate) tenant: TenantId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<UserId>,
    /// A digest of the handle: the trail must not hand out sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) factor: Option<FactorId>,
    /// Which of several cases it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    /// Who sent the request, by the app's own reckoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ip: Option<IpAddr>,
    /// How old what was used again is at least, in milliseconds: since another one took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) age: Option<u64>,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    SignedIn,
    /// With a first factor, where more is asked for (row S13).
    PartlySignedIn,
    FactorCompleted,
    FactorLinked,
    WrongCode,
    WrongPassword,
    DestinationRefused,
    Refreshed,
    RefreshReuse,
    PreElevationReuse,
    SessionRevoked,
    SessionsRevoked,
    PasswordHashUnreadable,
    KeysRotated,
    KeyRevoked,
}

impl Event {
    pub(crate) fn new(what: What, tenant: &TenantId) -> Self {
        let tenant = tenant.clone();
        let (user, session, factor, kind, ip, age) = (None, None, None, None, None, None);
        Self { at: Timestamp::EPOCH, what, tenant, user, session, factor, kind, ip, age }
    }

    pub(crate) fn user(mut self, user: &UserId) -> Self {
        self.user = Some(user.clone());
        self
    }

    pub(crate) fn session(mut self, handle: &SessionHandle) -> Self {
        self.session = Some(hash::sha256_hex(handle.as_str().as_bytes()));
        self
    }

    /// A credential that was used again: which, by whom, and how long after another one took its place.
    pub(crate) fn reuse(mut self, kind: &str, ip: Option<IpAddr>, age: Duration) -> Self {
        (self.kind, self.ip) = (Some(kind.to_owned()), ip);
        self.age = u64::try_from(age.as_millis()).ok();
        self
    }

    pub(crate) fn factor(mut self, factor: &FactorId) -> Self {
        self.factor = Some(factor.clone());
        self
    }
}

/// Stages an event, which is from now on the batch's receipt.
pub(crate) fn stage(tx: &mut Tx, mut event: Event) -> Result<(), Error> {
    event.at = tx.now();
    let key = keys::audit(event.at, &random::token()?);
    tx.insert_new(key.clone(), &event, Some(event.at + KEPT))?;
    tx.set_receipt(key);
    Ok(())
}
