//! Ends sessions: one, all of a user, all but the caller's own.

use super::{kit::Kit, transport::Tokens, verify::Opened};
use crate::{
    base::{
        error::Error,
        ident::{SessionHandle, TenantId, UserId},
    },
    model::{
        Tx,
        audit::{Audited, Cause, Event},
        keys,
        session::{self, SessionRecord},
    },
};

impl Kit {
    /// Ends a session; one that is over already is no error (row S07). Says whether it was there.
    pub(crate) async fn revoke(&self, handle: &SessionHandle) -> Result<bool, Error> {
        self.revoke_if(handle, |_| true).await
    }

    /// Ends a session of this user. One of another user is answered as one that isn't there (row S16).
    pub(crate) async fn revoke_of(&self, user: &UserId, handle: &SessionHandle) -> Result<bool, Error> {
        self.revoke_if(handle, |row| row.user == *user).await
    }

    async fn revoke_if(
        &self,
        handle: &SessionHandle,
        may: impl Fn(&SessionRecord) -> bool + Send + Sync,
    ) -> Result<bool, Error> {
        let may = &may;
        let change = self
            .db
            .transact(handle, |mut tx| async move {
                let row = tx.get::<SessionRecord>(&keys::session(handle)).await?;
                let Some(row) = row.filter(may) else {
                    return tx.abandon(None);
                };
                let event = Event::new(Audited::SessionRevoked, &row.tenant).cause(Cause::Asked);
                let change = session::end(&mut tx, handle, &row, event).await?;
                crate::base::failpoint!("revoke.before_commit");
                tx.commit(Some(change))
            })
            .await?;
        self.learn(change.iter());
        Ok(change.is_some())
    }

    /// Ends every session of a user by raising a number: no race with a sign-in or refresh under way
    /// (row S08).
    pub(crate) async fn revoke_user(&self, user: &UserId) -> Result<(), Error> {
        let change = self
            .db
            .transact(user, |mut tx| async move {
                let change = session::end_of_user(&mut tx, user, None, Cause::Asked).await?;
                tx.commit(change)
            })
            .await?;
        crate::base::failpoint!("revoke_all.after_epoch");
        self.learn([&change]);
        Ok(())
    }

    /// Ends a user's sessions in one tenant.
    pub(crate) async fn revoke_user_in(&self, user: &UserId, tenant: &TenantId) -> Result<(), Error> {
        let stage = |mut tx: Tx| async move {
            let changes = session::end_in(&mut tx, user, tenant, Cause::Asked).await?;
            tx.commit(changes)
        };
        let changes = self.db.transact(user, stage).await?;
        self.learn(&changes);
        Ok(())
    }

    /// Ends every other session of a session's user. This one goes on under the new number, and so needs a
    /// token that carries it.
    pub(crate) async fn revoke_others(&self, opened: &Opened) -> Result<(Opened, Tokens), Error> {
        let claims = &opened.claims;
        let (renewed, changes) = self
            .db
            .transact(&claims.user, |mut tx| async move {
                let mut row = self.held(&mut tx, claims).await?.row;
                let changes = session::end_others(&mut tx, &claims.handle, &mut row, Cause::Asked).await?;
                let staged = self.stage_renewed(tx, opened, &row).await?;
                Ok(staged.map(|renewed| (renewed, changes)))
            })
            .await?;
        self.learn(&changes);
        Ok(renewed)
    }
}
