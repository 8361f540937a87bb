//! Roles of users in tenants.

use super::Mfa;
use crate::{
    base::{
        error::Error,
        ident::{Role, TenantId, UserId},
    },
    model::{
        Tx,
        audit::{self, Audited, Event},
        keys,
        role::{self, Roles},
    },
};

/// Roles of users in tenants: see [`Mfa::roles`].
#[derive(Debug)]
pub struct RolesOf<'a> {
    pub(super) mfa: &'a Mfa,
}

impl RolesOf<'_> {
    /// A user's roles in a tenant.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn of(&self, user: &UserId, tenant: &TenantId) -> Result<Vec<Role>, Error> {
        Ok(self.mfa.db().get::<Roles>(&keys::role(tenant, user)).await?.unwrap_or_default().roles)
    }

    /// Gives a user a role in a tenant. Their live sessions are judged anew.
    ///
    /// # Errors
    /// `Invalid` if the text is no role.
    pub async fn grant(&self, user: &UserId, tenant: &TenantId, role: &str) -> Result<(), Error> {
        let role = parse_role(role)?;
        self.edit(user, tenant, move |roles| {
            if !roles.contains(&role) {
                roles.push(role.clone());
            }
        })
        .await
    }

    /// Takes a role away. Live sessions are judged anew.
    ///
    /// # Errors
    /// `Invalid` if the text is no role.
    pub async fn revoke(&self, user: &UserId, tenant: &TenantId, role: &str) -> Result<(), Error> {
        let role = parse_role(role)?;
        self.edit(user, tenant, move |roles| roles.retain(|held| *held != role)).await
    }

    /// Gives a user exactly these roles in a tenant. Live sessions are judged anew.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn set(
        &self,
        user: &UserId,
        tenant: &TenantId,
        roles: impl IntoIterator<Item = Role>,
    ) -> Result<(), Error> {
        let wanted: Vec<Role> = roles.into_iter().collect();
        self.edit(user, tenant, move |roles| roles.clone_from(&wanted)).await
    }

    async fn edit(
        &self,
        user: &UserId,
        tenant: &TenantId,
        edit: impl Fn(&mut Vec<Role>) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let (user, tenant) = (user.clone(), tenant.clone());
        self.mfa
            .change(|desk| async move {
                let (user, tenant, edit) = (&user, &tenant, &edit);
                let stage = |mut tx: Tx| async move {
                    let change = role::set(&mut tx, tenant, user, edit).await?;
                    if change.is_some() {
                        audit::stage(&mut tx, Event::new(Audited::RolesChanged, tenant).user(user))?;
                    }
                    tx.commit(change)
                };
                let change = desk.kit.db.transact(user, stage).await?;
                Ok(((), change.into_iter().collect()))
            })
            .await
    }
}

fn parse_role(text: &str) -> Result<Role, Error> {
    Role::parse(text).map_err(|_| Error::invalid("not a role"))
}
