//! Tenants: who may start a session there, and what else is asked.

use serde::{Deserialize, Serialize};

use super::{
    Db, Tx,
    change::{self, Change, ChangeKind, Subject},
    epoch, keys,
};
use crate::base::{
    error::{Error, ErrorKind},
    ident::{FactorId, TenantId},
    time::Timestamp,
};

/// A tenant's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tenant {
    /// The tenant's id.
    pub id: TenantId,
    /// The factors that may start a session. `None`: the app's list counts. Empty: nobody can sign in.
    pub first_factors: Option<Vec<FactorId>>,
    /// The factors that the tenant asks for beside the first.
    pub required: Vec<FactorId>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Makes the tenant `public` and the app's own numbers, once (an app's first start).
pub(crate) async fn bootstrap(db: &Db) -> Result<(), Error> {
    db.transact("tenant", |mut tx| async move {
        if tx.get::<Tenant>(&keys::tenant(&TenantId::PUBLIC)).await?.is_some() {
            return tx.commit(());
        }
        epoch::found(&mut tx, keys::app_epoch()).await?;
        insert(&mut tx, &TenantId::PUBLIC, None).await?;
        tx.commit(())
    })
    .await
}

/// Stages a new tenant.
pub(crate) async fn insert(
    tx: &mut Tx,
    id: &TenantId,
    first_factors: Option<Vec<FactorId>>,
) -> Result<(), Error> {
    let tenant = Tenant { id: id.clone(), first_factors, required: Vec::new(), created_at: tx.now() };
    epoch::found(tx, keys::tenant_epoch(id)).await?;
    tx.insert(keys::tenant(id), &tenant, None).await
}

/// Stages new settings and, if they differ, that the tenant's sessions are judged anew.
pub(crate) async fn edit(
    tx: &mut Tx,
    id: &TenantId,
    edit: impl FnOnce(&mut Tenant),
) -> Result<Option<Change>, Error> {
    let key = keys::tenant(id);
    let before: Tenant =
        tx.get(&key).await?.ok_or(Error::new(ErrorKind::NotFound, "there is no such tenant"))?;
    let mut after = before.clone();
    edit(&mut after);
    if after == before {
        return Ok(None);
    }
    tx.put(key, &after, None).await?;
    change::stage(tx, Subject::Tenant(id.clone()), ChangeKind::JudgeAnew).await.map(Some)
}
