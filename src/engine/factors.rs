//! What users opted into.

use super::Mfa;
use crate::{
    base::{
        error::Error,
        ident::{FactorId, TenantId, UserId},
    },
    model::{
        Tx,
        audit::{self, Audited, Event},
        keys,
        metadata::{self, RequiredFactors},
    },
};

/// What users opted into: see [`Mfa::factors`].
#[derive(Debug)]
pub struct FactorsOf<'a> {
    pub(super) mfa: &'a Mfa,
}

impl FactorsOf<'_> {
    /// The factors a user opted into, in the order in which they were added.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn required_for(&self, user: &UserId) -> Result<Vec<FactorId>, Error> {
        let list: RequiredFactors = self.mfa.db().get(&keys::required(user)).await?.unwrap_or_default();
        Ok(list.into_vec())
    }

    /// Asks a factor of a user from now on. Answers the list as it is then; writes nothing if it was there.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn opt_in(&self, user: &UserId, factor: FactorId) -> Result<Vec<FactorId>, Error> {
        self.edit(user, Audited::OptedIn, factor, RequiredFactors::add).await
    }

    /// Asks a factor of a user no more. Answers the list as it is then; writes nothing if it wasn't there.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn opt_out(&self, user: &UserId, factor: FactorId) -> Result<Vec<FactorId>, Error> {
        self.edit(user, Audited::OptedOut, factor, RequiredFactors::remove).await
    }

    async fn edit(
        &self,
        user: &UserId,
        what: Audited,
        factor: FactorId,
        edit: fn(&mut RequiredFactors, &FactorId) -> bool,
    ) -> Result<Vec<FactorId>, Error> {
        let user = user.clone();
        self.mfa
            .change(|desk| async move {
                let (user, factor) = (&user, &factor);
                let stage = |mut tx: Tx| async move {
                    let edited = metadata::edit(&mut tx, user, |list| edit(list, factor)).await?;
                    if edited.1.is_some() {
                        let event = Event::new(what, &TenantId::PUBLIC).user(user).factor(factor);
                        audit::stage(&mut tx, event)?;
                    }
                    tx.commit(edited)
                };
                let (list, change) = desk.kit.db.transact(user, stage).await?;
                Ok((list.into_vec(), change.into_iter().collect()))
            })
            .await
    }
}
