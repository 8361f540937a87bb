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
        let (user, tenant) = (ctx.required_for_user().await?, ctx.required_for_tenant().await?);
        let mut union: Vec<FactorId> = Vec::with_capacity(user.len() + tenant.len());
        for factor in user.iter().chain(tenant) {
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::FixedFacts;

    const EMAIL: FactorId = FactorId::OTP_EMAIL;

    fn ask(policy: &impl MfaPolicy, facts: FixedFacts) -> Value {
        let context = PolicyContext::fixed(facts);
        policy.requirements(&context).now_or_never().unwrap().unwrap().to_json()
    }

    fn alice() -> FixedFacts {
        FixedFacts::new("alice")
    }

    #[test]
    fn only_admins() {
        let policy = ForRole::new("admin", EMAIL);
        assert_eq!(ask(&policy, alice().roles(["editor", "admin"])), json!(["otp-email"]));
        assert_eq!(ask(&policy, alice().roles(["administrator"])), json!([]));
    }

    #[test]
    fn only_admins_where_the_tenant_asks() {
        let policy = ForRole::new("admin", EMAIL).where_tenant_asks();
        assert_eq!(ask(&policy, alice().roles(["admin"]).required_for_tenant([EMAIL])), json!(["otp-email"]));
        assert_eq!(ask(&policy, alice().roles(["admin"]).required_for_tenant([FactorId::TOTP])), json!([]));
    }

    #[test]
    fn only_who_opted_in() {
        assert_eq!(ask(&OptIn, alice().required_for_user([EMAIL])), json!([{ "oneOf": ["otp-email"] }]));
        assert_eq!(ask(&OptIn, alice().required_for_tenant([EMAIL])), json!([]));
    }

    #[test]
    fn only_who_opted_in_where_the_tenant_asks() {
        let (policy, asked) = (TenantScoped::new(OptIn), alice().required_for_tenant([EMAIL]));
        let yes = asked.clone().required_for_user([FactorId::TOTP, EMAIL]);
        assert_eq!(
            (ask(&policy, yes), ask(&policy, asked)),
            (json!([{ "oneOf": ["otp-email"] }]), json!([]))
        );
    }

    #[test]
    fn a_group_of_which_nothing_stays_is_dropped() {
        let list =
            json!(["totp", {"oneOf": ["totp", "webauthn"]}, {"allOfInAnyOrder": ["totp", "otp-email"]}]);
        let policy = TenantScoped::new(Everyone::new(Requirements::from_json(&list).unwrap()));
        assert_eq!(
            ask(&policy, alice().required_for_tenant([EMAIL])),
            json!([{ "allOfInAnyOrder": ["otp-email"] }])
        );
        assert_eq!(ask(&policy, alice()), json!([]));
    }

    #[test]
    fn the_tenant_is_read_only_if_there_is_a_demand() {
        let facts = alice();
        assert_eq!(ask(&TenantScoped::new(OptIn), facts.clone()), json!([]));
        assert_eq!(facts.reads(), ["required_for_user"]);
        let facts = alice();
        assert_eq!(ask(&Nobody, facts.clone()), json!([]));
        assert!(facts.reads().is_empty());
    }

    #[test]
    fn one_or_all_of_user_and_tenant() {
        let facts = || alice().required_for_user([EMAIL]).required_for_tenant([FactorId::TOTP, EMAIL]);
        assert_eq!(ask(&UserOrTenant::new(), facts()), json!([{ "oneOf": ["otp-email", "totp"] }]));
        let all = UserOrTenant::new().all_required();
        assert_eq!(ask(&all, facts()), json!([{ "allOfInAnyOrder": ["otp-email", "totp"] }]));
        assert_eq!(ask(&UserOrTenant::new(), alice()), json!([{ "oneOf": [] }]));
    }
}
