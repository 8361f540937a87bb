//! Lazy, remembered facts about a user and a tenant; they feed the policy, the claims and the admission.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::{Desk, external};
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::{FactorId, Permission, Role, TenantId, UserId},
    },
    factor::Factors,
    model::{
        Db, Tx, keys,
        metadata::RequiredFactors,
        role::{self, Roles},
        tenant::{Tenant, TenantRule},
        user::User,
    },
    policy::{AnyAppUsers, AppUser, Boxed, Facts, FactsError, Grace, Person},
};

/// Facts from the store, each read when first asked for and then kept.
pub(crate) struct StoredFacts {
    db: Db,
    factors: Arc<Factors>,
    own_users: Option<AnyAppUsers>,
    user_id: UserId,
    tenant_id: TenantId,
    person: OnceCell<Person>,
    roles: OnceCell<Vec<Role>>,
    permissions: OnceCell<Vec<Permission>>,
    set_up: OnceCell<Vec<FactorId>>,
    for_user: OnceCell<Vec<FactorId>>,
    tenant: OnceCell<Tenant>,
    for_tenant: OnceCell<(Vec<FactorId>, Option<Grace>)>,
}

impl StoredFacts {
    /// Facts about a user in a tenant. `person` is given where it is known already, or is about to be made:
    /// then nothing else is stored about it either, and nothing is read.
    pub(super) fn new(desk: &Desk, user_id: &UserId, tenant: &TenantId, person: Option<Person>) -> Self {
        Self {
            db: desk.kit.db.clone(),
            factors: Arc::clone(&desk.factors),
            own_users: desk.own_users.clone(),
            user_id: user_id.clone(),
            tenant_id: tenant.clone(),
            person: OnceCell::new_with(person),
            roles: OnceCell::new(),
            permissions: OnceCell::new(),
            set_up: OnceCell::new(),
            for_user: OnceCell::new(),
            tenant: OnceCell::new(),
            for_tenant: OnceCell::new(),
        }
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        key: crate::store::Key,
    ) -> Result<Option<T>, FactsError> {
        self.db.get(&key).await.map_err(told)
    }

    /// What the tenant asks of its sessions.
    pub(crate) async fn rule(&self) -> Result<&TenantRule, FactsError> {
        let tenant = self
            .tenant
            .get_or_try_init(|| async {
                let tenant = self.read(keys::tenant(&self.tenant_id)).await?;
                tenant.ok_or_else(|| FactsError::unauthorised("the tenant is gone"))
            })
            .await?;
        Ok(&tenant.rule)
    }

    /// What the tenant waits for, if somebody asked what it asks for.
    pub(crate) fn grace(&self) -> Option<&Grace> {
        self.for_tenant.get().and_then(|(_, grace)| grace.as_ref())
    }

    /// Whether what was read of the user's opt-ins or the tenant's rule asks for this factor.
    pub(crate) fn names(&self, factor: &FactorId) -> bool {
        let for_user = self.for_user.get().into_iter().flatten();
        let for_tenant = self.tenant.get().into_iter().flat_map(|tenant| &tenant.rule.required);
        for_user.chain(for_tenant).any(|named| named == factor)
    }

    /// What the tenant asks for now; of a user who has none of it set up, only from a date on.
    async fn demanded(&self) -> Result<(Vec<FactorId>, Option<Grace>), FactsError> {
        let rule = self.rule().await?;
        let until = rule.enrol_by.filter(|until| self.db.now() < *until && !rule.required.is_empty());
        if let Some(until) = until {
            let set_up = self.factors_set_up().await?;
            if !rule.required.iter().any(|factor| set_up.contains(factor)) {
                return Ok((Vec::new(), Some(Grace { factors: rule.required.clone(), until })));
            }
        }
        Ok((rule.required.clone(), None))
    }

    async fn load(&self) -> Result<&Person, FactsError> {
        self.person
            .get_or_try_init(|| async {
                let user = self.read::<User>(keys::user(&self.user_id)).await?;
                let user = user.ok_or_else(|| FactsError::unauthorised("the user is gone"))?;
                external::person(self.own_users.as_ref(), user).await.map_err(told)
            })
            .await
    }
}

fn told(error: Error) -> FactsError {
    match error.kind() {
        ErrorKind::SessionEnded => FactsError::unauthorised(error),
        _ => FactsError::unavailable(error),
    }
}

impl Facts for StoredFacts {
    fn user(&self) -> Boxed<'_, &User> {
        Box::pin(async { Ok(&self.load().await?.user) })
    }

    fn app_user(&self) -> Boxed<'_, Option<&AppUser>> {
        Box::pin(async { Ok(self.load().await?.app.as_ref()) })
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

    fn permissions(&self) -> Boxed<'_, &[Permission]> {
        Box::pin(async {
            let permissions = self
                .permissions
                .get_or_try_init(|| async {
                    let roles = self.roles().await?;
                    let look = |mut tx: Tx| async move {
                        let permissions = role::permissions_of(&mut tx, roles).await?;
                        tx.abandon(permissions)
                    };
                    self.db.look(look).await.map_err(FactsError::unavailable)
                })
                .await?;
            Ok(permissions.as_slice())
        })
    }

    fn factors_set_up(&self) -> Boxed<'_, &[FactorId]> {
        Box::pin(async {
            let set_up = self
                .set_up
                .get_or_try_init(|| async { Ok(self.factors.bound((&self.load().await?.user).into())) })
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
                    Ok(self.read::<RequiredFactors>(key).await?.unwrap_or_default().within(&self.tenant_id))
                })
                .await?;
            Ok(required.as_slice())
        })
    }

    fn required_for_tenant(&self) -> Boxed<'_, &[FactorId]> {
        Box::pin(async {
            let (required, _) = self.for_tenant.get_or_try_init(|| self.demanded()).await?;
            Ok(required.as_slice())
        })
    }
}
