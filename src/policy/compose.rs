//! Policies put together from policies.
//!
//! Each combination stays lazy: it asks a policy, and reads a fact, only where the answer may depend on it.
//! An answer holds until the earliest of the times that its parts named.
//!
//! # What it costs
//! A policy is asked on events: a session is made, a factor is completed, a token is refreshed after a
//! change, `/mfa/info` is called, or the change feed brought news of the user, the tenant or a role. Between
//! those a request costs no call of the store. An answer that holds *until an instant* is asked for again by
//! the first request after it; [`Compose::every_request`] asks at every request. Asking costs the session's
//! row, and of the facts those that the policy reads, each once: roles, what the user opted into, what the
//! tenant asks for, and the user (for what is set up as well) are one read each. Where something is demanded,
//! the tenant is read in any case: it may let only some factors count.

use std::{fmt, future::Future};

use super::{Declared, MfaPolicy, PolicyContext, PolicyError, Requirements, setup::only_set_up};
use crate::base::ident::{FactorId, TenantId};

/// Ways to put policies together; every policy has them.
///
/// ```
/// use tower_mfa::{FactorId, policy::{Compose as _, FixedFacts, ForRole, OptIn}};
/// // Admins need an authenticator app; what anybody switched on for themselves holds as well.
/// let policy = ForRole::new("admin", FactorId::TOTP).and(OptIn);
/// let bob = FixedFacts::new("bob");
/// assert!(bob.ask(&policy)?.demands_nothing());
/// let opted_in = bob.required_for_user([FactorId::OTP_EMAIL]);
/// assert_eq!(opted_in.ask(&policy)?.factors(), [&FactorId::OTP_EMAIL]);
/// let admin = opted_in.roles(["admin"]);
/// assert_eq!(admin.ask(&policy)?.factors(), [&FactorId::TOTP, &FactorId::OTP_EMAIL]);
/// # Ok::<(), tower_mfa::policy::PolicyError>(())
/// ```
pub trait Compose: MfaPolicy + Sized {
    /// Both: this policy's demand, then the other's. Both are always asked.
    fn and<P: MfaPolicy>(self, other: P) -> And<Self, P> {
        And(self, other)
    }

    /// Either demand is enough. The other isn't asked where this one demands nothing: then nothing is
    /// demanded. So it loosens; for two rules that must both hold, take [`Compose::and`].
    fn or<P: MfaPolicy>(self, other: P) -> Or<Self, P> {
        Or(self, other)
    }

    /// This policy where the condition holds, and nothing elsewhere. Where it doesn't, nothing of this
    /// policy is read.
    ///
    /// The condition is an `async` function or closure over the context, or a type that implements
    /// [`Condition`]. A condition that looks at what no change reports (the time, the request, something
    /// outside) is asked on events only, unless [`Compose::every_request`] follows.
    ///
    /// ```
    /// use tower_mfa::{FactorId, PolicyContext, policy::{Compose as _, Everyone, PolicyError}};
    /// let staff = Everyone::new(FactorId::OTP_EMAIL).when(async |ctx: &PolicyContext<'_>| {
    ///     Ok(ctx.user().await?.logins.iter().any(|login| {
    ///         login.email.as_ref().is_some_and(|email| email.as_str().ends_with("@shop.example"))
    ///     }))
    /// });
    /// async fn paid(ctx: &PolicyContext<'_>) -> Result<bool, PolicyError> {
    ///     Ok(ctx.payload().member("plan").is_some())
    /// }
    /// let both = Everyone::new(FactorId::OTP_EMAIL).when(paid).and(staff);
    /// ```
    fn when<F: for<'a> Condition<'a>>(self, condition: F) -> When<Self, F> {
        When(self, condition)
    }

    /// All of both, in this order, without what the stricter demand makes needless: see
    /// [`Requirements::strictest`]. Both are always asked.
    fn strictest<P: MfaPolicy>(self, other: P) -> Strictest<Self, P> {
        Strictest(self, other)
    }

    /// This policy in one tenant, and nothing elsewhere. Elsewhere nothing of it is read.
    fn for_tenant(self, tenant: TenantId) -> ForTenant<Self> {
        ForTenant(self, tenant)
    }

    /// Of this policy's demand what the user has set up. What is set up is read only if there is a demand.
    ///
    /// **A user who has set up nothing of it is asked nothing**, and goes on with the first factor alone:
    /// this protects those who enrolled, and makes nobody enrol. An alternative that is set up only in part
    /// is dropped for one that is set up as a whole. What is set up and can't count in this session, such as the
    /// factor that made it under [`Requirement::excluding_first_factor`](super::Requirement::excluding_first_factor),
    /// is as if it weren't.
    fn only_set_up(self) -> OnlySetUp<Self> {
        OnlySetUp(self)
    }

    /// Asks at every request: for what no change reports. Each request then costs the session's row and
    /// the facts that this policy reads.
    fn every_request(self) -> EveryRequest<Self> {
        EveryRequest(self)
    }
}

impl<P: MfaPolicy> Compose for P {}

/// Whether a policy is asked: see [`Compose::when`].
///
/// Functions and closures of the right form implement it. One that needs values of its own is a type:
///
/// ```
/// use tower_mfa::{PolicyContext, policy::{Condition, PolicyError}};
/// struct Holds { role: String }
/// impl<'a> Condition<'a> for Holds {
///     async fn holds(&self, ctx: &'a PolicyContext<'a>) -> Result<bool, PolicyError> {
///         Ok(ctx.roles().await?.iter().any(|role| role.as_str() == self.role))
///     }
/// }
/// ```
pub trait Condition<'a>: Send + Sync + 'static {
    /// Whether it holds.
    ///
    /// # Errors
    /// An error fails the request, as a policy's does; it never means "nothing is required".
    fn holds(&self, ctx: &'a PolicyContext<'a>) -> impl Future<Output = Result<bool, PolicyError>> + Send;
}

impl<'a, F, A> Condition<'a> for F
where
    F: Fn(&'a PolicyContext<'a>) -> A + Send + Sync + 'static,
    A: Future<Output = Result<bool, PolicyError>> + Send + 'a,
{
    fn holds(&self, ctx: &'a PolicyContext<'a>) -> impl Future<Output = Result<bool, PolicyError>> + Send {
        self(ctx)
    }
}

/// See [`Compose::and`].
#[derive(Clone, Copy, Debug)]
pub struct And<A, B>(A, B);

impl<A: MfaPolicy, B: MfaPolicy> MfaPolicy for And<A, B> {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        Ok(self.0.requirements(ctx).await?.and(self.1.requirements(ctx).await?))
    }

    fn declares(&self, tenant: Option<&[FactorId]>) -> Declared {
        self.0.declares(tenant).and(self.1.declares(tenant))
    }
}

/// See [`Compose::or`].
#[derive(Clone, Copy, Debug)]
pub struct Or<A, B>(A, B);

impl<A: MfaPolicy, B: MfaPolicy> MfaPolicy for Or<A, B> {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        let one = self.0.requirements(ctx).await?;
        if one.demands_nothing() {
            return Ok(one);
        }
        Ok(one.or(self.1.requirements(ctx).await?))
    }

    fn declares(&self, tenant: Option<&[FactorId]>) -> Declared {
        self.0.declares(tenant).or(self.1.declares(tenant))
    }
}

/// See [`Compose::when`].
#[derive(Clone, Copy)]
pub struct When<P, F>(P, F);

impl<P: MfaPolicy, F: for<'a> Condition<'a>> MfaPolicy for When<P, F> {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        match self.1.holds(ctx).await? {
            true => self.0.requirements(ctx).await,
            false => Ok(Requirements::none()),
        }
    }

    fn declares(&self, tenant: Option<&[FactorId]>) -> Declared {
        self.0.declares(tenant)
    }
}

impl<P: fmt::Debug, F> fmt::Debug for When<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("When").field(&self.0).finish_non_exhaustive()
    }
}

/// See [`Compose::strictest`].
#[derive(Clone, Copy, Debug)]
pub struct Strictest<A, B>(A, B);

impl<A: MfaPolicy, B: MfaPolicy> MfaPolicy for Strictest<A, B> {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        Ok(self.0.requirements(ctx).await?.strictest(self.1.requirements(ctx).await?))
    }

    fn declares(&self, tenant: Option<&[FactorId]>) -> Declared {
        self.0.declares(tenant).and(self.1.declares(tenant))
    }
}

/// See [`Compose::for_tenant`].
#[derive(Clone, Debug)]
pub struct ForTenant<P>(P, TenantId);

impl<P: MfaPolicy> MfaPolicy for ForTenant<P> {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        match *ctx.tenant() == self.1 {
            true => self.0.requirements(ctx).await,
            false => Ok(Requirements::none()),
        }
    }

    fn declares(&self, tenant: Option<&[FactorId]>) -> Declared {
        self.0.declares(tenant)
    }
}

/// See [`Compose::only_set_up`].
#[derive(Clone, Copy, Debug)]
pub struct OnlySetUp<P>(P);

impl<P: MfaPolicy> MfaPolicy for OnlySetUp<P> {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        let demand = self.0.requirements(ctx).await?;
        if demand.demands_nothing() {
            return Ok(demand);
        }
        let set_up = ctx.factors_set_up().await?;
        Ok(only_set_up(demand, set_up, ctx.completed(), ctx.now()))
    }

    /// What stays is up to what users have, so no list is promised whole.
    fn declares(&self, tenant: Option<&[FactorId]>) -> Declared {
        self.0.declares(tenant).and(Declared::unknown())
    }
}

/// See [`Compose::every_request`].
#[derive(Clone, Copy, Debug)]
pub struct EveryRequest<P>(P);

impl<P: MfaPolicy> MfaPolicy for EveryRequest<P> {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        Ok(self.0.requirements(ctx).await?.every_request())
    }

    fn declares(&self, tenant: Option<&[FactorId]>) -> Declared {
        self.0.declares(tenant)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        base::time::Timestamp,
        policy::{
            AnyPolicy, CompletedFactors, Everyone, FixedFacts, ForRole, Nobody, OptIn, PolicyErrorKind,
            Requirement, UserOrTenant,
        },
    };

    const EMAIL: FactorId = FactorId::OTP_EMAIL;
    const TOTP: FactorId = FactorId::TOTP;

    fn alice() -> FixedFacts {
        FixedFacts::new("alice").required_for_user([EMAIL]).required_for_tenant([TOTP]).set_up([EMAIL])
    }

    fn answer(policy: &impl MfaPolicy, facts: FixedFacts) -> Requirements {
        policy.requirements(&PolicyContext::fixed(facts)).now_or_never().unwrap().unwrap()
    }

    /// What each combination demands of Alice, and what it reads for that.
    #[test]
    fn what_is_demanded_and_what_is_read() {
        let admin = || ForRole::new("admin", TOTP);
        let north = || TenantId::parse("north").unwrap();
        async fn no(_: &PolicyContext<'_>) -> Result<bool, PolicyError> {
            Ok(false)
        }
        async fn opted_in(ctx: &PolicyContext<'_>) -> Result<bool, PolicyError> {
            Ok(!ctx.required_for_user().await?.is_empty())
        }
        let one = |id: &str| json!([{ "oneOf": [id] }]);
        let cases: Vec<(&str, AnyPolicy, Value, &[&str])> = vec![
            ("and", AnyPolicy::new(admin().and(OptIn)), one("otp-email"), &["roles", "required_for_user"]),
            ("and nothing", AnyPolicy::new(Nobody.and(OptIn)), one("otp-email"), &["required_for_user"]),
            // The first demands nothing: the second isn't asked.
            ("or, loose first", AnyPolicy::new(admin().or(OptIn)), json!([]), &["roles"]),
            (
                "or, loose second",
                AnyPolicy::new(OptIn.or(admin())),
                json!([]),
                &["required_for_user", "roles"],
            ),
            (
                "or",
                AnyPolicy::new(OptIn.or(Everyone::new(TOTP))),
                json!([{ "oneOf": ["otp-email", "totp"] }]),
                &["required_for_user"],
            ),
            ("when not", AnyPolicy::new(OptIn.when(no)), json!([]), &[]),
            (
                "when",
                AnyPolicy::new(admin().and(Everyone::new(EMAIL)).when(opted_in)),
                json!(["otp-email"]),
                &["required_for_user", "roles"],
            ),
            (
                "strictest",
                AnyPolicy::new(OptIn.strictest(Everyone::new(EMAIL))),
                one("otp-email"),
                &["required_for_user"],
            ),
            ("elsewhere", AnyPolicy::new(OptIn.for_tenant(north())), json!([]), &[]),
            (
                "there",
                AnyPolicy::new(OptIn.for_tenant(TenantId::PUBLIC)),
                one("otp-email"),
                &["required_for_user"],
            ),
            (
                "only what is set up",
                AnyPolicy::new(UserOrTenant::new().only_set_up()),
                one("otp-email"),
                &["required_for_user", "required_for_tenant", "factors_set_up"],
            ),
            (
                "none of it set up",
                AnyPolicy::new(Everyone::new(TOTP).only_set_up()),
                json!([]),
                &["factors_set_up"],
            ),
            ("nothing to set up", AnyPolicy::new(admin().only_set_up()), json!([]), &["roles"]),
            (
                "scoped",
                AnyPolicy::new(admin().and(OptIn).for_tenant(north()).and(admin().where_tenant_asks())),
                json!([]),
                &["roles"],
            ),
            (
                "every request",
                AnyPolicy::new(OptIn.every_request()),
                one("otp-email"),
                &["required_for_user"],
            ),
        ];
        for (name, policy, expected, reads) in cases {
            let facts = alice();
            assert_eq!(answer(&policy, facts.clone()).to_json(), expected, "{name}");
            assert_eq!(facts.reads(), reads, "{name}");
        }
        assert_eq!(
            answer(&admin().and(OptIn), alice().roles(["admin"])).to_json(),
            json!(["totp", { "oneOf": ["otp-email"] }])
        );
    }

    /// A policy whose answer holds until then.
    struct Until(Requirements, i64);

    impl MfaPolicy for Until {
        async fn requirements(&self, _ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
            Ok(self.0.clone().until(Timestamp::from_secs(self.1)))
        }
    }

    #[test]
    fn the_earliest_end_holds() {
        async fn yes(_: &PolicyContext<'_>) -> Result<bool, PolicyError> {
            Ok(true)
        }
        let until = |at| Until(TOTP.into(), at);
        let loose = |at| Until(Requirements::none(), at);
        let asks: Vec<(&str, AnyPolicy, Option<i64>)> = vec![
            ("and", AnyPolicy::new(until(9).and(until(5))), Some(5)),
            ("and always", AnyPolicy::new(OptIn.and(until(5))), Some(5)),
            ("or", AnyPolicy::new(until(5).or(until(9))), Some(5)),
            // The second wasn't asked: its end is none of this answer's.
            ("or, loose first", AnyPolicy::new(loose(9).or(until(5))), Some(9)),
            ("or, loose second", AnyPolicy::new(until(9).or(loose(5))), Some(5)),
            ("strictest", AnyPolicy::new(until(9).strictest(until(5))), Some(5)),
            ("when", AnyPolicy::new(until(5).when(yes)), Some(5)),
            ("only what is set up", AnyPolicy::new(until(5).only_set_up()), Some(5)),
            ("where the tenant asks", AnyPolicy::new(super::super::TenantScoped::new(until(5))), Some(5)),
            ("for a tenant", AnyPolicy::new(until(5).for_tenant(TenantId::PUBLIC)), Some(5)),
            ("every request", AnyPolicy::new(until(5).every_request().and(until(9))), Some(0)),
            ("no end", AnyPolicy::new(OptIn.and(Everyone::new(TOTP))), None),
        ];
        for (name, policy, end) in asks {
            let held = answer(&policy, alice()).holds_until(&CompletedFactors::new(), Timestamp::EPOCH);
            assert_eq!(held, end.map(Timestamp::from_secs), "{name}");
        }
    }

    /// A policy that fails: no combination makes "nothing is required" of it (row P01).
    struct Broken;

    impl MfaPolicy for Broken {
        async fn requirements(&self, _ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
            Err(PolicyError::misconfigured("broken"))
        }
    }

    #[test]
    fn sec_p01_a_failure_stays_one() {
        async fn broken(_: &PolicyContext<'_>) -> Result<bool, PolicyError> {
            Err(PolicyError::misconfigured("broken"))
        }
        let asked = || Everyone::new(TOTP);
        for policy in [
            AnyPolicy::new(Broken.and(Nobody)),
            AnyPolicy::new(Nobody.and(Broken)),
            AnyPolicy::new(Broken.or(Nobody)),
            AnyPolicy::new(asked().or(Broken)),
            AnyPolicy::new(asked().when(broken)),
            AnyPolicy::new(asked().strictest(Broken)),
            AnyPolicy::new(Broken.only_set_up()),
            AnyPolicy::new(Broken.every_request()),
            AnyPolicy::new(Broken.for_tenant(TenantId::PUBLIC)),
        ] {
            let answer = policy.requirements(&PolicyContext::fixed(alice())).now_or_never().unwrap();
            assert_eq!(answer.unwrap_err().kind(), PolicyErrorKind::Misconfigured);
        }
    }

    /// The default is a policy like any other: an app's own may ask it and change its answer.
    #[test]
    fn the_default_is_called_from_an_override() {
        struct DefaultButTotpForAdmins(UserOrTenant);

        impl MfaPolicy for DefaultButTotpForAdmins {
            async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
                let default = self.0.requirements(ctx).await?;
                let admin = ctx.roles().await?.iter().any(|role| role.as_str() == "admin");
                Ok(if admin { default.and(Requirement::Factor(TOTP).into()) } else { default })
            }
        }
        let policy = DefaultButTotpForAdmins(UserOrTenant::new());
        let any = json!({ "oneOf": ["otp-email", "totp"] });
        assert_eq!(answer(&policy, alice()).to_json(), json!([any]));
        assert_eq!(answer(&policy, alice().roles(["admin"])).to_json(), json!([any, "totp"]));
    }
}
