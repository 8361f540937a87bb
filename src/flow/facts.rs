//! Lazy, remembered facts about a user and a tenant; they feed the policy, the claims and the admission.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::{
    base::{
        error::ErrorKind,
        ident::{FactorId, Role, TenantId, UserId},
    },
    factor::Factors,
    model::{Db, keys, metadata::RequiredFactors, role::Roles, tenant::Tenant, user::User},
    policy::{Boxed, Facts, FactsError},
};

/// Facts from the store, each read when first asked for and then kept.
pub(crate) struct StoredFacts {
    db: Db,
    factors: Arc<Factors>,
    user_id: UserId,
    tenant_id: TenantId,
    user: OnceCell<User>,
    roles: OnceCell<Vec<Role>>,
    set_up: OnceCell<Vec<FactorId>>,
    for_user: OnceCell<Vec<FactorId>>,
    for_tenant: OnceCell<Vec<FactorId>>,
}

impl StoredFacts {
    /// Facts about a user in a tenant. `user` is given where it is known already, or is about to be made:
    /// then nothing else is stored about it either, and nothing is read.
    pub(crate) fn new(
        db: &Db,
        factors: &Arc<Factors>,
        user_id: &UserId,
        tenant: &TenantId,
        user: Option<User>,
    ) -> Self {
        Self {
            db: db.clone(),
            factors: Arc::clone(factors),
            user_id: user_id.clone(),
            tenant_id: tenant.clone(),
            user: OnceCell::new_with(user),
            roles: OnceCell::new(),
            set_up: OnceCell::new(),
            for_user: OnceCell::new(),
            for_tenant: OnceCell::new(),
        }
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        key: crate::store::Key,
    ) -> Result<Option<T>, FactsError> {
        self.db.get(&key).await.map_err(|e| match e.kind() {
            ErrorKind::SessionEnded => FactsError::unauthorised(e),
            _ => FactsError::unavailable(e),
        })
    }

    async fn load_user(&self) -> Result<&User, FactsError> {
        self.user
            .get_or_try_init(|| async {
                let user = self.read(keys::user(&self.user_id)).await?;
                user.ok_or_else(|| FactsError::unauthorised("the user is gone"))
            })
            .await
    }
}

impl Facts for StoredFacts {
    fn user(&self) -> Boxed<'_, &User> {
        Box::pin(self.load_user())
    }

    fn roles(&self) -> Boxed<'_, &[Role]> {
        Box::pin(async {
            let roles = self
                .roles
                .get_or_try_init(|| async {
                    let key = keys::role(&self.tenant_id, &self.user_id);
                    Ok(self.read::<Roles>(key).await?.unwrap_or_default().roles)
                })
                .await?;
            Ok(roles.as_slice())
        })
    }

    fn factors_set_up(&self) -> Boxed<'_, &[FactorId]> {
        Box::pin(async {
            let set_up = self
                .set_up
                .get_or_try_init(|| async { Ok(self.factors.bound(self.load_user().await?.into())) })
                .await?;
            Ok(set_up.as_slice())
        })
    }

    fn required_for_user(&self) -> Boxed<'_, &[FactorId]> {
        Box::pin(async {
            let required = self
                .for_user
                .get_or_try_init(|| async {
                    let key = keys::required(&self.user_id);
                    Ok(self.read::<RequiredFactors>(key).await?.unwrap_or_default().into_vec())
                })
                .await?;
            Ok(required.as_slice())
        })
    }

    fn required_for_tenant(&self) -> Boxed<'_, &[FactorId]> {
        Box::pin(async {
            let required = self
                .for_tenant
                .get_or_try_init(|| async {
                    let tenant = self.read::<Tenant>(keys::tenant(&self.tenant_id)).await?;
                    tenant.map(|t| t.required).ok_or_else(|| FactsError::unauthorised("the tenant is gone"))
                })
                .await?;
            Ok(required.as_slice())
        })
    }
}
