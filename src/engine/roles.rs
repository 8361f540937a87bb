//! Roles of users in tenants, and what roles allow.

use super::Mfa;
use crate::{
    base::{
        distinct,
        error::Error,
        ident::{Permission, Role, TenantId, UserId},
    },
    model::{
        Tx,
        audit::{self, Audited, Event},
        keys,
        role::{self, Allowed, Roles},
    },
    store::Scan,
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

    /// Gives a user a role in a tenant. Their live sessions are judged anew. The user need not be there yet: one of the
    /// app's own may have roles before their first sign-in, which counts them.
    ///
    /// # Errors
    /// `Invalid` if the text is no role, `NotFound` without the tenant.
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
    /// `Invalid` if the text is no role, `NotFound` without the tenant.
    pub async fn revoke(&self, user: &UserId, tenant: &TenantId, role: &str) -> Result<(), Error> {
        let role = parse_role(role)?;
        self.edit(user, tenant, move |roles| roles.retain(|held| *held != role)).await
    }

    /// Gives a user exactly these roles in a tenant, also before their first sign-in. Live sessions are judged anew.
    ///
    /// # Errors
    /// `NotFound` without the tenant; if the store failed.
    pub async fn set(
        &self,
        user: &UserId,
        tenant: &TenantId,
        roles: impl IntoIterator<Item = Role>,
    ) -> Result<(), Error> {
        let wanted: Vec<Role> = roles.into_iter().collect();
        self.edit(user, tenant, move |roles| roles.clone_from(&wanted)).await
    }

    /// Says what a role allows, in place of what it allowed before, in every tenant where somebody has it: nothing, if
    /// the list is empty. Every live session is judged anew. See [`Permissions`](crate::claim::Permissions).
    ///
    /// ```
    /// # use tower_mfa::{Mfa, ident::{Permission, Role}};
    /// # async fn set_up(mfa: &Mfa) -> Result<(), Box<dyn std::error::Error>> {
    /// let orders = [Permission::parse("orders:read")?, Permission::parse("orders:write")?];
    /// mfa.roles().allow(&Role::admin(), orders).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the store failed.
    pub async fn allow(
        &self,
        role: &Role,
        permissions: impl IntoIterator<Item = Permission>,
    ) -> Result<(), Error> {
        let (role, permissions) = (role.clone(), distinct(permissions));
        self.mfa
            .change(|desk| async move {
                let (role, permissions) = (&role, &permissions);
                let stage = |mut tx: Tx| async move {
                    let change = role::allow(&mut tx, role, permissions.clone()).await?;
                    if change.is_some() {
                        audit::stage(&mut tx, Event::new(Audited::RolesChanged, &TenantId::PUBLIC))?;
                    }
                    tx.commit(change)
                };
                let change = desk.kit.db.transact(role, stage).await?;
                Ok(((), change.into_iter().collect()))
            })
            .await
    }

    /// What a role allows.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn allowed(&self, role: &Role) -> Result<Vec<Permission>, Error> {
        Ok(self.mfa.db().get::<Allowed>(&keys::permissions(role)).await?.unwrap_or_default().permissions)
    }

    /// The roles that allow something, at most 1000.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn list(&self) -> Result<Vec<(Role, Vec<Permission>)>, Error> {
        let found: Vec<(_, Allowed)> = self.mfa.db().scan(&Scan::under(keys::all_permissions())).await?;
        let roles =
            found.into_iter().map(|(key, allowed)| Ok((parse_role(&key.last())?, allowed.permissions)));
        roles.collect()
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
