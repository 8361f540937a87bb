//! The policies that come with the crate.

use super::{Declared, MfaPolicy, PolicyContext, PolicyError, Requirement, Requirements};
use crate::base::{distinct, ident::FactorId};

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

    fn list(&self, factors: Vec<FactorId>) -> Requirements {
        if self.all { Requirement::all_of(factors) } else { Requirement::one_of(factors) }.into()
    }
}

impl MfaPolicy for UserOrTenant {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        let (user, tenant) = (ctx.required_for_user().await?, ctx.required_for_tenant().await?);
        Ok(self.list(distinct(user.iter().chain(tenant).cloned())))
    }

    fn declares(&self, tenant: Option<&[FactorId]>) -> Declared {
        match tenant {
            Some(asked) if !asked.is_empty() => Declared::at_least(self.list(asked.to_vec())),
            _ => Declared::unknown(),
        }
        .hearing_opt_ins()
    }
}

/// Asks of users in a role, in the session's tenant, and of nobody else.
///
/// **Alone it is the whole policy**: what users opted into and what tenants ask for isn't looked at, not
/// even for users without the role. `build()` logs a warning then. Where users may switch a factor on for
/// themselves, say so:
///
/// ```
/// use tower_mfa::{FactorId, policy::{Compose as _, ForRole, OptIn, UserOrTenant}};
/// let admins_and_opt_ins = ForRole::new("admin", FactorId::TOTP).and(OptIn);
/// let admins_and_the_default = ForRole::new("admin", FactorId::TOTP).and(UserOrTenant::new());
/// ```
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

    fn declares(&self, _tenant: Option<&[FactorId]>) -> Declared {
        Declared::only(self.demand.clone()).not_hearing_opt_ins()
    }
}

/// Asks what the user opted into: any one of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct OptIn;

impl MfaPolicy for OptIn {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        let mine = ctx.required_for_user().await?;
        Ok(if mine.is_empty() { Requirements::none() } else { Requirement::one_of(mine.to_vec()).into() })
    }

    fn declares(&self, _tenant: Option<&[FactorId]>) -> Declared {
        Declared::unknown().hearing_opt_ins()
    }
}

/// Asks what the session's tenant asks for: any one of it. Beside another policy it only ever adds.
///
/// ```
/// use tower_mfa::{FactorId, policy::{Compose as _, ForRole, TenantAsks}};
/// let admins_and_whom_the_tenant_means = ForRole::new("admin", FactorId::OTP_EMAIL).and(TenantAsks);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TenantAsks;

impl MfaPolicy for TenantAsks {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        Ok(Requirement::one_of(ctx.required_for_tenant().await?.to_vec()).into())
    }

    fn declares(&self, tenant: Option<&[FactorId]>) -> Declared {
        match tenant {
            Some(asked) if !asked.is_empty() => Declared::only(Requirement::one_of(asked.to_vec())),
            Some(_) => Declared::nothing(),
            None => Declared::unknown(),
        }
    }
}

/// Another policy, narrowed to what the session's tenant asks for as well.
///
/// Of each demand only the factors stay that the tenant lists; a demand of which none stays is dropped.
/// An alternative that would lose a part is dropped for one that stays whole, and of *so many of several*
/// no more are asked than stay.
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
        if demand.demands_nothing() {
            return Ok(demand);
        }
        let asked = ctx.required_for_tenant().await?;
        Ok(demand.keep(&|factor| asked.contains(factor)))
    }

    fn declares(&self, tenant: Option<&[FactorId]>) -> Declared {
        let declared = self.inner.declares(tenant);
        match tenant {
            Some(asked) => declared.map(|list| list.keep(&|factor| asked.contains(factor))),
            None => declared,
        }
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

    fn declares(&self, _tenant: Option<&[FactorId]>) -> Declared {
        Declared::only(self.0.clone())
    }
}

/// Asks nothing of anybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl MfaPolicy for Nobody {
    async fn requirements(&self, _ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        Ok(Requirements::none())
    }

    fn declares(&self, _tenant: Option<&[FactorId]>) -> Declared {
        Declared::nothing()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::{Compose as _, FixedFacts};

    const EMAIL: FactorId = FactorId::OTP_EMAIL;

    fn ask(policy: &impl MfaPolicy, facts: FixedFacts) -> Value {
        let context = PolicyContext::fixed(facts);
        policy.requirements(&context).now_or_never().unwrap().unwrap().to_json()
    }

    fn alice() -> FixedFacts {
        FixedFacts::new("alice")
    }

    #[test]
    fn what_the_tenant_asks() {
        assert_eq!(ask(&TenantAsks, alice()), json!([{"oneOf": []}]));
        let policy = ForRole::new("admin", EMAIL).and(TenantAsks);
        let asked = || alice().required_for_tenant([FactorId::TOTP, FactorId::OTP_PHONE]);
        assert_eq!(ask(&policy, asked()), json!([{"oneOf": ["totp", "otp-phone"]}]));
        let both = json!(["otp-email", {"oneOf": ["totp", "otp-phone"]}]);
        assert_eq!(ask(&policy, asked().roles(["admin"])), both);
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
