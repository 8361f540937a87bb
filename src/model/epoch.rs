//! Numbered records for the app, a tenant, a user: what their tokens are measured against (design, part
//! 5, last life). Revoking and judging anew compare numbers, never times.

use serde::{Deserialize, Serialize};

use super::{
    Tx,
    change::{ChangeKind, Subject},
    keys,
};
use crate::{
    base::{
        error::Error,
        ident::{TenantId, UserId},
    },
    store::Key,
};

/// The numbers that a token carries: lower than *revoked* is dead, lower than *judge anew* is asked again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Epochs {
    pub(crate) app: u64,
    pub(crate) tenant: u64,
    pub(crate) user: u64,
    pub(crate) session: u64,
}

/// One subject's number, and the last at which its sessions were revoked or must be judged anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    pub(crate) n: u64,
    pub(crate) revoked: u64,
    pub(crate) judge: u64,
}

/// The three records that decide about a session beside its own row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) app: Epoch,
    /// `None`: the tenant is gone.
    pub(crate) tenant: Option<Epoch>,
    /// `None`: the user is gone.
    pub(crate) user: Option<Epoch>,
}

impl Standing {
    /// The keys of the three, in the order that [`Standing::of`] takes them.
    pub(crate) fn keys(tenant: &TenantId, user: &UserId) -> [Key; 3] {
        [keys::app_epoch(), keys::tenant_epoch(tenant), keys::user_epoch(user)]
    }

    /// Reads the three through a transaction.
    pub(crate) async fn read(tx: &mut Tx, tenant: &TenantId, user: &UserId) -> Result<Self, Error> {
        let [app, of_tenant, of_user] = Self::keys(tenant, user);
        tx.prefetch([app.clone(), of_tenant.clone(), of_user.clone()]).await?;
        Ok(Self {
            app: tx.get(&app).await?.unwrap_or_default(),
            tenant: tx.get(&of_tenant).await?,
            user: tx.get(&of_user).await?,
        })
    }

    /// Lets the transaction hold only if none of the three moved.
    pub(crate) async fn check(tx: &mut Tx, tenant: &TenantId, user: &UserId) -> Result<(), Error> {
        for key in Self::keys(tenant, user) {
            tx.check(key).await?;
        }
        Ok(())
    }

    /// The numbers a token made now carries; `None` if tenant or user is gone.
    pub(crate) fn numbers(&self, session: u64) -> Option<Epochs> {
        Some(Epochs { app: self.app.n, tenant: self.tenant?.n, user: self.user?.n, session })
    }

    /// Whether a session that was made or last judged at these numbers is dead.
    pub(crate) fn revokes(&self, epochs: &Epochs) -> bool {
        let dead = |epoch: Option<Epoch>, n: u64| epoch.is_none_or(|epoch| n < epoch.revoked);
        dead(Some(self.app), epochs.app) || dead(self.tenant, epochs.tenant) || dead(self.user, epochs.user)
    }

    /// Whether what was evaluated at these numbers must be evaluated again.
    pub(crate) fn outdates(&self, epochs: &Epochs) -> bool {
        let old = |epoch: Option<Epoch>, n: u64| epoch.is_none_or(|epoch| n < epoch.judge);
        old(Some(self.app), epochs.app) || old(self.tenant, epochs.tenant) || old(self.user, epochs.user)
    }
}

/// Raises a subject's number and says from which number on tokens are unaffected. A session has none
/// here: its row's revision is its number.
pub(super) async fn raise(tx: &mut Tx, subject: &Subject, kind: ChangeKind) -> Result<u64, Error> {
    let key = match subject {
        Subject::App => keys::app_epoch(),
        Subject::Tenant(tenant) => keys::tenant_epoch(tenant),
        Subject::User(user) => keys::user_epoch(user),
        Subject::Session(_) => return Err(Error::internal("a session's number is its row's revision")),
    };
    let mut epoch: Epoch = tx.get(&key).await?.unwrap_or_default();
    epoch.n += 1;
    match kind {
        ChangeKind::Revoked => epoch.revoked = epoch.n,
        ChangeKind::JudgeAnew => epoch.judge = epoch.n,
        ChangeKind::Keys => {}
    }
    tx.put(key, &epoch, None).await?;
    Ok(epoch.n)
}

/// Makes a subject's record if there is none; a subject made again under an old id goes on counting, with
/// everything before it dead (row N05).
pub(super) async fn found(tx: &mut Tx, key: Key) -> Result<(), Error> {
    let epoch = match tx.get::<Epoch>(&key).await? {
        None => Epoch { n: 1, revoked: 0, judge: 0 },
        Some(old) => Epoch { n: old.n + 1, revoked: old.n + 1, judge: old.n + 1 },
    };
    tx.put(key, &epoch, None).await
}
