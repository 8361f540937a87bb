//! Sessions of one tenant.

use std::sync::Arc;

use super::{Mfa, SessionInfo};
use crate::{
    base::{
        error::Error,
        ident::{SessionHandle, TenantId, UserId},
    },
    model::{
        Tx,
        audit::{self, Audited, Cause, Event},
        change::{self, ChangeKind, Subject},
    },
};

/// The sessions of one tenant: see [`Sessions::within`](super::Sessions::within). What belongs to another tenant isn't
/// there.
#[derive(Debug)]
pub struct SessionsIn<'a> {
    pub(super) mfa: &'a Mfa,
    pub(super) tenant: TenantId,
}

impl SessionsIn<'_> {
    /// A user's sessions there, oldest first.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn list(&self, user: &UserId) -> Result<Vec<SessionInfo>, Error> {
        let mut list = self.mfa.sessions().list(user).await?;
        list.retain(|info| info.tenant == self.tenant);
        Ok(list)
    }

    /// Ends a session. Says whether it was there: one of another tenant isn't.
    ///
    /// # Errors
    /// If the store failed: the session may go on.
    pub async fn revoke(&self, handle: &SessionHandle) -> Result<bool, Error> {
        match handle.is_of(&self.tenant) {
            true => self.mfa.sessions().revoke(handle).await,
            false => Ok(false),
        }
    }

    /// Ends a user's sessions there.
    ///
    /// # Errors
    /// If the store failed: sessions may go on.
    pub async fn revoke_user(&self, user: &UserId) -> Result<(), Error> {
        let (kit, user, tenant) = (Arc::clone(&self.mfa.desk.kit), user.clone(), self.tenant.clone());
        self.mfa.desk.kit.run(async move { kit.revoke_user_in(&user, &tenant).await }).await
    }

    /// Ends every session there is in the tenant.
    ///
    /// # Errors
    /// If the store failed: sessions may go on.
    pub async fn revoke_all(&self) -> Result<(), Error> {
        let tenant = self.tenant.clone();
        self.mfa
            .change(|desk| async move {
                let tenant = &tenant;
                let stage = |mut tx: Tx| async move {
                    let subject = Subject::Tenant(tenant.clone());
                    let change = change::stage(&mut tx, subject, ChangeKind::Revoked).await?;
                    audit::stage(&mut tx, Event::new(Audited::SessionsRevoked, tenant).cause(Cause::Asked))?;
                    tx.commit(change)
                };
                let change = desk.kit.db.transact(tenant, stage).await?;
                Ok(((), vec![change]))
            })
            .await
    }
}
