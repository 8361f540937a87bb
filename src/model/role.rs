//! Roles of a user in a tenant.

use serde::{Deserialize, Serialize};

use super::{
    Tx,
    change::{self, Change, ChangeKind, Subject},
    keys,
};
use crate::base::{
    error::Error,
    ident::{Role, TenantId, UserId},
};

/// What a user is in a tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Roles {
    pub(crate) roles: Vec<Role>,
}

/// Stages a new set of roles and, if it differs, that the user's sessions are judged anew.
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
    tx.put(key, &after, None).await?;
    change::stage(tx, Subject::User(user.clone()), ChangeKind::JudgeAnew).await.map(Some)
}
