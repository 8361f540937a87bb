//! Tenants and what they ask for.

use super::Mfa;
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::{FactorId, TenantId},
        time::Timestamp,
    },
    flow::Desk,
    model::{
        Tx,
        audit::{self, Audited, Event},
        change::Change,
        keys,
        tenant::{self, Tenant, TenantRule},
    },
    policy::{
        AnyPolicy, Declared, Everyone, MfaPolicy, PolicyContext, PolicyError, Requirement, Requirements,
        check_reachable,
    },
    store::Scan,
};

mod leaving;

/// Tenants: see [`Mfa::tenants`].
#[derive(Debug)]
pub struct Tenants<'a> {
    pub(super) mfa: &'a Mfa,
}

impl Tenants<'_> {
    /// A tenant's settings.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn load(&self, tenant: &TenantId) -> Result<Option<Tenant>, Error> {
        self.mfa.db().get(&keys::tenant(tenant)).await
    }

    /// All tenants, at most 1000.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn list(&self) -> Result<Vec<Tenant>, Error> {
        let found: Vec<(_, Tenant)> = self.mfa.db().scan(&Scan::under(keys::tenants())).await?;
        Ok(found.into_iter().map(|(_, tenant)| tenant).collect())
    }

    /// Makes a tenant. `None`: whoever may start a session in the app may start one there; an empty list:
    /// nobody may, until that changes. One that is there stays as it is.
    ///
    /// # Errors
    /// `Invalid` as [`Tenants::set_first_factors`], and while one of this id is being deleted; if the store failed.
    pub async fn create(&self, tenant: &TenantId, first: Option<Vec<FactorId>>) -> Result<(), Error> {
        // The app's own list was checked by `build()`.
        if first.is_some() {
            check(&self.mfa.desk, &Tenant::new(tenant, first.clone(), Timestamp::EPOCH))?;
        }
        let id = tenant.clone();
        self.mfa
            .change(|desk| async move {
                let (id, first) = (&id, &first);
                let stage = |mut tx: Tx| async move {
                    match tx.get::<Tenant>(&keys::tenant(id)).await? {
                        Some(tenant) if tenant.leaving => return Err(tenant::leaving()),
                        Some(_) => {}
                        None => {
                            tenant::insert(&mut tx, id, first.clone()).await?;
                            audit::stage(&mut tx, Event::new(Audited::TenantCreated, id))?;
                        }
                    }
                    tx.commit(())
                };
                desk.kit.db.transact(id, stage).await?;
                Ok(((), Vec::new()))
            })
            .await
    }

    /// Says which factors may start a session there; `None` for what the app says.
    ///
    /// # Errors
    /// `NotFound` without the tenant. `Invalid` if somebody who starts with one of them could never do what is
    /// demanded of them (row P11); the cause says of whom what.
    pub async fn set_first_factors(
        &self,
        tenant: &TenantId,
        first: Option<Vec<FactorId>>,
    ) -> Result<(), Error> {
        self.edit(tenant, move |desk, tenant| {
            tenant.first_factors.clone_from(&first);
            check(desk, tenant)
        })
        .await
    }

    /// Says which factors the tenant asks for, from now on, of everybody: [`Tenants::set_rule`] with nothing else.
    ///
    /// # Errors
    /// As [`Tenants::set_rule`].
    pub async fn require(
        &self,
        tenant: &TenantId,
        factors: impl IntoIterator<Item = FactorId>,
    ) -> Result<(), Error> {
        self.set_rule(tenant, TenantRule::require(factors)).await
    }

    /// Says what the tenant asks of its sessions, in place of what it asked before. Live sessions are judged anew.
    ///
    /// # Errors
    /// `NotFound` without the tenant. `Invalid` if nobody there could do what is asked: a factor isn't
    /// installed (row P10), it doesn't count there, or the policy makes a demand of it that can't be met; the
    /// cause says which.
    pub async fn set_rule(&self, tenant: &TenantId, rule: TenantRule) -> Result<(), Error> {
        self.edit(tenant, move |desk, tenant| {
            tenant.rule.clone_from(&rule);
            // Nothing asked is always fine.
            if rule == TenantRule::default() { Ok(()) } else { check(desk, tenant) }
        })
        .await
    }

    /// The providers that a tenant offers: its own, or those of the app.
    ///
    /// # Errors
    /// If the store failed, or the tenant's own were sealed under a root key that is gone.
    #[cfg(feature = "third-party")]
    pub async fn providers(&self, tenant: &TenantId) -> Result<Vec<crate::factor::Provider>, Error> {
        self.mfa.desk.providers(tenant).await
    }

    /// Gives a tenant providers of its own, in the place of the app's; `None`: those of the app again; an empty
    /// list: none. They are stored sealed, with their secrets, and come under a new root key when they are read next:
    /// read them ([`Tenants::providers`]) before the former key is taken away.
    ///
    /// Whom they call somebody is the tenant's matter: a provider of its own is another one than the app's, or another
    /// tenant's, of the same id, even at the same issuer, because what it says of whom is for the tenant to set. Whoever
    /// signed in there by the app's is somebody new to it, unless they add it within a session; where the tenant goes
    /// back to the app's, they are who they were. The addresses of somebody who is in other tenants, too, aren't theirs to
    /// change.
    ///
    /// # Errors
    /// `NotFound` without the tenant. `Invalid` if there are more than 50, if something can't be right with one of
    /// them (the cause says what), or if the app has no [`ThirdParty`](crate::factor::ThirdParty) to speak with.
    #[cfg(feature = "third-party")]
    pub async fn set_providers(
        &self,
        tenant: &TenantId,
        providers: Option<Vec<crate::factor::Provider>>,
    ) -> Result<(), Error> {
        let id = tenant.clone();
        self.mfa
            .change(|desk| async move { desk.set_providers(&id, providers).await.map(|()| ((), Vec::new())) })
            .await
    }

    /// Changes what the store has at that time, and checks it as it will stand.
    async fn edit(
        &self,
        id: &TenantId,
        edit: impl Fn(&Desk, &mut Tenant) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let id = id.clone();
        self.mfa.change(|desk| async move { Ok(((), edited(&desk, &id, edit).await?)) }).await
    }
}

/// [`Tenants::edit`] within a mutation that may go on after it.
async fn edited(
    desk: &Desk,
    id: &TenantId,
    edit: impl Fn(&Desk, &mut Tenant) -> Result<(), Error> + Send + Sync,
) -> Result<Vec<Change>, Error> {
    let edit = &edit;
    let stage = |mut tx: Tx| async move {
        let change = tenant::edit(&mut tx, id, |tenant| edit(desk, tenant)).await?;
        if change.is_some() {
            audit::stage(&mut tx, Event::new(Audited::TenantChanged, id))?;
        }
        tx.commit(change)
    };
    Ok(desk.kit.db.transact(id, stage).await?.into_iter().collect())
}

/// Whether what would be demanded in a tenant of these settings can be done there.
fn check(desk: &Desk, tenant: &Tenant) -> Result<(), Error> {
    let (usable, first, rule) = (&desk.kit.usable, desk.first_factors(tenant), &tenant.rule);
    if let Some(counting) = &rule.counting
        && (counting.is_empty() || !rule.required.iter().all(|factor| counting.contains(factor)))
    {
        return Err(Error::invalid("what the tenant asks for isn't among what counts there"));
    }
    let reach = |policy: &AnyPolicy| {
        let narrowed = Narrowed { policy: policy.clone(), rule: rule.clone() };
        check_reachable(&narrowed, usable, first.listed(), Some(&rule.required))
    };
    // Whatever the policy makes of the rule, a factor that nobody has is a slip.
    let listed = rule.required.iter().chain(rule.counting.iter().flatten()).cloned();
    let named = AnyPolicy::new(Everyone::new(Requirement::one_of(listed)));
    let wrong = |e| Error::with(ErrorKind::Invalid, "what is demanded in the tenant can't be done", e);
    reach(&named).and_then(|_| reach(&desk.policy)).map(drop).map_err(wrong)
}

/// A policy where only some factors count, as far as it can say what it demands.
struct Narrowed {
    policy: AnyPolicy,
    rule: TenantRule,
}

impl MfaPolicy for Narrowed {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        self.policy.requirements(ctx).await.map(|list| self.narrow(list))
    }

    fn declares(&self, tenant: Option<&[FactorId]>) -> Declared {
        self.policy.declares(tenant).map(|list| self.narrow(list))
    }
}

impl Narrowed {
    fn narrow(&self, list: Requirements) -> Requirements {
        match &self.rule.counting {
            Some(counting) => list.counting(counting),
            None => list,
        }
    }
}
