//! What users opted into, and what blocks their factors.

use super::Mfa;
use crate::{
    base::{
        error::Error,
        ident::{FactorId, TenantId, UserId},
    },
    flow::quota,
    model::{
        Tx,
        audit::{self, Audited, Event},
        keys,
        metadata::{self, RequiredFactors},
        tenant, user,
    },
};

/// What users opted into, and what blocks their factors: see [`Mfa::factors`].
#[derive(Debug)]
pub struct FactorsOf<'a> {
    pub(super) mfa: &'a Mfa,
}

impl FactorsOf<'_> {
    /// The factors a user opted into everywhere, in the order in which they were added.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn required_for(&self, user: &UserId) -> Result<Vec<FactorId>, Error> {
        Ok(self.load(user).await?.listed(None))
    }

    /// The factors a user opted into as they count in a tenant: those of everywhere, then those of this tenant
    /// alone.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn required_in(&self, user: &UserId, tenant: &TenantId) -> Result<Vec<FactorId>, Error> {
        Ok(self.load(user).await?.within(tenant))
    }

    /// Asks a factor of a user from now on, also of one of the app's own before their first sign-in. Answers the list as
    /// it is then; writes nothing if it was there.
    ///
    /// # Errors
    /// `Invalid` for a factor that nobody knows (row P10); if the store failed. If it is known no more one day, who
    /// opted in is refused with the reason (row P11), until they are opted out.
    pub async fn opt_in(&self, user: &UserId, factor: FactorId) -> Result<Vec<FactorId>, Error> {
        self.known(&factor)?;
        self.edit(user, None, Audited::OptedIn, factor).await
    }

    /// Asks a factor of a user no more; what they opted into in one tenant stays. Answers the list as it is then;
    /// writes nothing if it wasn't there.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn opt_out(&self, user: &UserId, factor: FactorId) -> Result<Vec<FactorId>, Error> {
        self.edit(user, None, Audited::OptedOut, factor).await
    }

    /// As [`FactorsOf::opt_in`], for sessions in one tenant. Answers that tenant's list.
    ///
    /// # Errors
    /// `NotFound` without the tenant; `Invalid` as [`FactorsOf::opt_in`]; if the store failed.
    pub async fn opt_in_within(
        &self,
        user: &UserId,
        tenant: &TenantId,
        factor: FactorId,
    ) -> Result<Vec<FactorId>, Error> {
        self.known(&factor)?;
        self.edit(user, Some(tenant), Audited::OptedIn, factor).await
    }

    /// As [`FactorsOf::opt_out`], for sessions in one tenant; what they opted into everywhere stays. Answers that
    /// tenant's list.
    ///
    /// # Errors
    /// `NotFound` without the tenant; if the store failed.
    pub async fn opt_out_within(
        &self,
        user: &UserId,
        tenant: &TenantId,
        factor: FactorId,
    ) -> Result<Vec<FactorId>, Error> {
        self.edit(user, Some(tenant), Audited::OptedOut, factor).await
    }

    /// Lets a user's codes of this kind be guessed at again, after a hundred wrong ones in a row blocked them: for
    /// administrators, who made sure who asks. The contacts by which the user signs in are meant as well. A rest of
    /// some minutes goes on. Whether there was a block.
    ///
    /// Without it a block ends when the user completes two other factors in a session.
    ///
    /// # Errors
    /// `NotFound` without the user; if the store failed.
    pub async fn unblock(&self, user: &UserId, factor: &FactorId) -> Result<bool, Error> {
        let (user, factor) = (user.clone(), factor.clone());
        self.mfa
            .change(|desk| async move {
                let (user, factor) = (&user, &factor);
                let stage = |mut tx: Tx| async move {
                    let user = user::existing(&mut tx, user).await?;
                    let lifted = quota::lift(&mut tx, &user, factor, &TenantId::PUBLIC).await?;
                    tx.commit(lifted)
                };
                Ok((desk.kit.db.transact(user, stage).await?, Vec::new()))
            })
            .await
    }

    fn known(&self, factor: &FactorId) -> Result<(), Error> {
        match self.mfa.desk.factors.knows(factor) {
            true => Ok(()),
            false => Err(Error::invalid("nobody knows this factor")),
        }
    }

    async fn load(&self, user: &UserId) -> Result<RequiredFactors, Error> {
        Ok(self.mfa.db().get(&keys::required(user)).await?.unwrap_or_default())
    }

    async fn edit(
        &self,
        user: &UserId,
        tenant: Option<&TenantId>,
        what: Audited,
        factor: FactorId,
    ) -> Result<Vec<FactorId>, Error> {
        let (user, tenant) = (user.clone(), tenant.cloned());
        self.mfa
            .change(|desk| async move {
                let (user, tenant, factor) = (&user, tenant.as_ref(), &factor);
                let stage = |mut tx: Tx| async move {
                    if let Some(tenant) = tenant {
                        tenant::joinable(&mut tx, tenant).await?;
                    }
                    let edit = |list: &mut RequiredFactors| match what {
                        Audited::OptedIn => list.add(tenant, factor),
                        _ => list.remove(tenant, factor),
                    };
                    let edited = metadata::edit(&mut tx, user, edit).await?;
                    if edited.1.is_some() {
                        let event = Event::new(what, tenant.unwrap_or(&TenantId::PUBLIC));
                        audit::stage(&mut tx, event.user(user).factor(factor))?;
                    }
                    tx.commit(edited)
                };
                let (list, change) = desk.kit.db.transact(user, stage).await?;
                Ok((list.listed(tenant), change.into_iter().collect()))
            })
            .await
    }
}
