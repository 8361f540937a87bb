//! Tenants: who may start a session there, and what else is asked.

use serde::{Deserialize, Serialize};

use super::{
    Db, Tx,
    audit::{self, Audited, Event},
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
    /// What the tenant asks of its sessions.
    #[serde(flatten)]
    pub rule: TenantRule,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether anybody can sign in there. Switched off, it answers as one that doesn't exist (row N02).
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub enabled: bool,
    /// It is being deleted: nobody is added any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) leaving: bool,
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_true(enabled: &bool) -> bool {
    *enabled
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_false(leaving: &bool) -> bool {
    !*leaving
}

impl Tenant {
    /// One with nothing said of it.
    pub(crate) fn new(id: &TenantId, first_factors: Option<Vec<FactorId>>, created_at: Timestamp) -> Self {
        let (id, rule) = (id.clone(), TenantRule::default());
        Self { id, first_factors, rule, created_at, enabled: true, leaving: false }
    }
}

/// What a tenant asks of its sessions, as data. What a demand means is the policy's to say: see
/// [`UserOrTenant`](crate::policy::UserOrTenant), the default, [`TenantAsks`](crate::policy::TenantAsks), which
/// only ever adds, and [`TenantScoped`](crate::policy::TenantScoped).
///
/// ```
/// use std::time::Duration;
/// use tower_mfa::{FactorId, account::TenantRule, ident::Timestamp};
/// # let today = Timestamp::from_secs(1_702_877_939);
/// let rule = TenantRule::require([FactorId::TOTP, FactorId::OTP_EMAIL])
///     .counting_only([FactorId::TOTP, FactorId::OTP_EMAIL, FactorId::WEBAUTHN])
///     .enrol_by(today + Duration::from_secs(14 * 86_400));
/// assert_eq!(rule.required.len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TenantRule {
    /// The factors that the tenant asks for.
    pub required: Vec<FactorId>,
    /// The factors that count there; `None` for all. Whatever else a session completed counts for nothing in
    /// what the policy and the tenant demand, so this can only ask for more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counting: Option<Vec<FactorId>>,
    /// Until when a user who has none of the required factors set up passes without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrol_by: Option<Timestamp>,
}

impl TenantRule {
    /// Asks for factors.
    pub fn require(factors: impl IntoIterator<Item = FactorId>) -> Self {
        Self { required: factors.into_iter().collect(), ..Self::default() }
    }

    /// Lets only these factors count.
    pub fn counting_only(mut self, factors: impl IntoIterator<Item = FactorId>) -> Self {
        self.counting = Some(factors.into_iter().collect());
        self
    }

    /// Waits until then for users who have none of the required factors set up: they pass, and `/mfa/info` and
    /// the token's `st-mfa-grace` tell them. Whoever has one set up completes it from the start.
    pub fn enrol_by(mut self, at: Timestamp) -> Self {
        self.enrol_by = Some(at);
        self
    }
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
    let tenant = Tenant::new(id, first_factors, tx.now());
    epoch::found(tx, keys::tenant_epoch(id)).await?;
    tx.insert(keys::tenant(id), &tenant, None).await
}

/// Reads a tenant to which somebody is to be added, so that the batch holds only while it stays.
pub(crate) async fn joinable(tx: &mut Tx, id: &TenantId) -> Result<(), Error> {
    let there = tx.get::<Tenant>(&keys::tenant(id)).await?.is_some_and(|tenant| !tenant.leaving);
    if !there {
        return Err(no_tenant());
    }
    tx.check(keys::tenant(id)).await
}

pub(crate) fn no_tenant() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such tenant")
}

pub(crate) fn leaving() -> Error {
    Error::invalid("the tenant is being deleted")
}

/// Stages new settings, unless `edit` objects, and, if they differ, that the tenant's sessions are judged anew;
/// that they are over, if it was switched off.
pub(crate) async fn edit(
    tx: &mut Tx,
    id: &TenantId,
    edit: impl FnOnce(&mut Tenant) -> Result<(), Error>,
) -> Result<Option<Change>, Error> {
    let key = keys::tenant(id);
    let before: Tenant = tx.get(&key).await?.ok_or(no_tenant())?;
    let mut after = before.clone();
    edit(&mut after)?;
    if after == before {
        return Ok(None);
    }
    let kind = if before.enabled && !after.enabled { ChangeKind::Revoked } else { ChangeKind::JudgeAnew };
    tx.put(key, &after, None).await?;
    change::stage(tx, Subject::Tenant(id.clone()), kind).await.map(Some)
}

/// Stages that a tenant is gone, after all that it owned. Its number stays: whoever makes another one of that id
/// goes on counting, and no token of the old one lives again (row N05).
pub(crate) async fn remove(tx: &mut Tx, id: &TenantId) -> Result<Option<Change>, Error> {
    let key = keys::tenant(id);
    if tx.get::<Tenant>(&key).await?.is_none() {
        return Ok(None);
    }
    tx.delete(key).await?;
    audit::stage(tx, Event::new(Audited::TenantDeleted, id))?;
    change::stage(tx, Subject::Tenant(id.clone()), ChangeKind::Revoked).await.map(Some)
}
