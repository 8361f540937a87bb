//! Roles of a user in a tenant, and what a role allows.

use serde::{Deserialize, Serialize};

use super::{
    Tx,
    change::{self, Change, ChangeKind, Subject},
    keys, tenant,
};
use crate::base::{
    distinct,
    error::Error,
    ident::{Permission, Role, TenantId, UserId},
};

/// What a user is in a tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Roles {
    pub(crate) roles: Vec<Role>,
}

/// What a role allows, in every tenant where somebody has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Allowed {
    pub(crate) permissions: Vec<Permission>,
}

/// What roles allow, each permission once.
pub(crate) async fn permissions_of(tx: &mut Tx, roles: &[Role]) -> Result<Vec<Permission>, Error> {
    tx.prefetch(roles.iter().map(keys::permissions)).await?;
    let mut all = Vec::new();
    for role in roles {
        all.extend(tx.get::<Allowed>(&keys::permissions(role)).await?.unwrap_or_default().permissions);
    }
    Ok(distinct(all))
}

/// Stages what a role allows and, if that differs, that every session is judged anew: who has it isn't listed
/// anywhere.
pub(crate) async fn allow(
    tx: &mut Tx,
    role: &Role,
    permissions: Vec<Permission>,
) -> Result<Option<Change>, Error> {
    let key = keys::permissions(role);
    let before: Allowed = tx.get(&key).await?.unwrap_or_default();
    if before.permissions == permissions {
        return Ok(None);
    }
    match permissions.is_empty() {
        true => tx.delete(key).await?,
        false => tx.put(key, &Allowed { permissions }, None).await?,
    }
    change::stage(tx, Subject::App, ChangeKind::JudgeAnew).await.map(Some)
}

/// The tenants in which a user has roles, whether they sign in there or not.
#[derive(Debug, Default, Serialize, Deserialize)]
struct RolesOf {
    tenants: Vec<TenantId>,
}

/// Stages a new set of roles and, if it differs, that the user's sessions are judged anew.
///
/// # Errors
/// `NotFound` without the tenant: one that is made later under this id begins without roles (row N05).
pub(crate) async fn set(
    tx: &mut Tx,
    tenant: &TenantId,
    user: &UserId,
    edit: impl FnOnce(&mut Vec<Role>),
) -> Result<Option<Change>, Error> {
    let key = keys::role(tenant, user);
    let before: Roles = tx.get(&key).await?.unwrap_or_default();
    let mut after = before.clone();
    edit(&mut after.roles);
    if after == before {
        return Ok(None);
    }
    tenant::joinable(tx, tenant).await?;
    tx.put(key, &after, None).await?;
    let index = keys::roles_of(user);
    let mut of: RolesOf = tx.get(&index).await?.unwrap_or_default();
    if !of.tenants.contains(tenant) {
        of.tenants.push(tenant.clone());
        tx.put(index, &of, None).await?;
    }
    change::stage(tx, Subject::User(user.clone()), ChangeKind::JudgeAnew).await.map(Some)
}

/// Stages that a user has no role anywhere: whoever gets their id has none of them.
pub(crate) async fn remove_all(tx: &mut Tx, user: &UserId) -> Result<(), Error> {
    let index = keys::roles_of(user);
    let of: RolesOf = tx.get(&index).await?.unwrap_or_default();
    of.tenants.iter().for_each(|tenant| tx.remove(keys::role(tenant, user)));
    tx.delete(index).await
}
