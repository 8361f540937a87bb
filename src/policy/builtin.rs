//! The policies that come with the crate.

use super::{MfaPolicy, PolicyContext, PolicyError, Requirement, Requirements};
use crate::base::ident::FactorId;

/// The default: any *one* of what the user opted into and what the tenant asks for.
///
/// One is enough, even if the user asked for one factor and the tenant for another, and a first factor
/// that is among them counts. That is what the SuperTokens SDKs' server does; if the tenant's demand must
/// hold for everybody, use [`UserOrTenant::all_required`].
#[derive(Clone, Copy, Debug, Default)]
pub struct UserOrTenant {
    all: bool,
}

impl UserOrTenant {
    /// Any one of the two lists.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every factor of both lists.
    pub fn all_required(mut self) -> Self {
        self.all = true;
        self
    }
}

impl MfaPolicy for UserOrTenant {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        let mut union = ctx.required_for_user().await?.to_vec();
        for factor in ctx.required_for_tenant().await? {
            if !union.contains(factor) {
                union.push(factor.clone());
            }
        }
        Ok(if self.all { Requirement::AllOf(union) } else { Requirement::OneOf(union) }.into())
    }
}

/// Asks of users in a role, in the session's tenant, and of nobody else. It replaces the default: what
/// users opted into and tenants ask for isn't looked at.
#[derive(Clone, Debug)]
pub struct ForRole {
    role: String,
    demand: Requirements,
}

impl ForRole {
    /// Users with this role complete `demand`.
    pub fn new(role: impl Into<String>, demand: impl Into<Requirements>) -> Self {
        Self { role: role.into(), demand: demand.into() }
    }

    /// Only where the tenant asks for it: see [`TenantScoped`].
    pub fn where_tenant_asks(self) -> TenantScoped<Self> {
        TenantScoped::new(self)
    }
}

impl MfaPolicy for ForRole {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        let holds = ctx.roles().await?.iter().any(|role| role.as_str() == self.role);
        Ok(if holds { self.demand.clone() } else { Requirements::none() })
    }
}

/// Asks what the user opted into: any one of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct OptIn;

impl MfaPolicy for OptIn {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        let mine = ctx.required_for_user().await?;
        Ok(if mine.is_empty() { Requirements::none() } else { Requirement::OneOf(mine.to_vec()).into() })
    }
}

/// Another policy, narrowed to what the session's tenant asks for as well.
///
/// Of each demand only the factors stay that the tenant lists; a demand of which none stays is dropped.
/// The tenant is only read if there is a demand at all.
///
/// ```
/// use tower_mfa::{FactorId, policy::{ForRole, OptIn, TenantScoped}};
/// let admins_where_asked = TenantScoped::new(ForRole::new("admin", FactorId::OTP_EMAIL));
/// let opted_in_where_asked = TenantScoped::new(OptIn);
/// ```
#[derive(Clone, Debug)]
pub struct TenantScoped<P> {
    inner: P,
}

impl<P: MfaPolicy> TenantScoped<P> {
    /// Narrows `inner`.
    pub fn new(inner: P) -> Self {
        Self { inner }
    }
}

impl<P: MfaPolicy> MfaPolicy for TenantScoped<P> {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        let demand = self.inner.requirements(ctx).await?;
        if demand.items().is_empty() {
            return Ok(demand);
        }
        let asked = ctx.required_for_tenant().await?;
        let keep =
            |factors: Vec<FactorId>| factors.into_iter().filter(|f| asked.contains(f)).collect::<Vec<_>>();
        let some = |factors: Vec<FactorId>| Some(factors).filter(|factors| !factors.is_empty());
        Ok(demand.map(|item| match item {
            Requirement::Factor(factor) => asked.contains(&factor).then_some(Requirement::Factor(factor)),
            Requirement::OneOf(factors) => some(keep(factors)).map(Requirement::OneOf),
            Requirement::AllOf(factors) => some(keep(factors)).map(Requirement::AllOf),
        }))
    }
}

/// Asks the same of everybody.
#[derive(Clone, Debug)]
pub struct Everyone(Requirements);

impl Everyone {
    /// Everybody completes `demand`.
    pub fn new(demand: impl Into<Requirements>) -> Self {
        Self(demand.into())
    }
}

impl MfaPolicy for Everyone {
    async fn requirements(&self, _ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        Ok(self.0.clone())
    }
}

/// Asks nothing of anybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl MfaPolicy for Nobody {
    async fn requirements(&self, _ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        Ok(Requirements::none())
    }
}
