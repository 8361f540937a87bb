//! Who must complete which factors: the trait an app implements, and what it may read.
//!
//! A policy answers with [`Requirements`], an ordered list; the rest is arithmetic on that list and on
//! what a session has completed. Facts are lazy: a policy that looks at the tenant alone loads no user.
//! A policy that fails, fails the request; it never means "nothing is required".
//!
//! Requirements nest ([`Requirement`]), policies are put together ([`Compose`]), and how a session stands is
//! explained item by item ([`Requirements::explain`]). What a policy can say of itself without a user is
//! checked at the start ([`check_reachable`]).
//!
//! ```
//! use tower_mfa::{
//!     FactorId, MfaPolicy, PolicyContext, Requirements,
//!     policy::{FixedFacts, PolicyError},
//! };
//!
//! struct AdminsOnly;
//!
//! impl MfaPolicy for AdminsOnly {
//!     async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
//!         let admin = ctx.roles().await?.iter().any(|role| role.as_str() == "admin");
//!         Ok(if admin { FactorId::OTP_EMAIL.into() } else { Requirements::none() })
//!     }
//! }
//!
//! // A test of a policy needs no store and no runtime.
//! let admin = FixedFacts::new("alice").roles(["admin"]);
//! assert_eq!(admin.ask(&AdminsOnly)?, FactorId::OTP_EMAIL.into());
//! assert!(FixedFacts::new("bob").ask(&AdminsOnly)?.demands_nothing());
//! # Ok::<(), PolicyError>(())
//! ```

use std::{fmt, future::Future, net::IpAddr, pin::Pin, sync::Arc};

use crate::base::{
    error::BoxError,
    ident::{FactorId, LoginId, Permission, Role, SessionHandle, TenantId, UserId},
    payload::Payload,
    time::Timestamp,
};
use crate::model::user::User;

pub(crate) use self::{
    app::{AnyAppUsers, AppUser, AppUsers, Person},
    explain::brief,
    link::AnyLinkPolicy,
};
pub use self::{
    builtin::{Everyone, ForRole, Nobody, OptIn, TenantAsks, TenantScoped, UserOrTenant},
    completed::CompletedFactors,
    compose::{And, Compose, Condition, EveryRequest, ForTenant, OnlySetUp, Or, Strictest, When},
    explain::{Explained, Explanation, NextStep, State},
    first::FirstFactors,
    fixed::FixedFacts,
    grace::Grace,
    link::{Link, LinkContext, LinkPolicy, NewAccount, SecondFactorsOnly},
    list::{NextSet, Requirements},
    reach::{Declared, Reach, Unreachable, check_reachable},
    requirement::{Limit, Requirement},
    setup::{SetUpRefused, may_set_up},
};

mod algebra;
pub(crate) mod app;
mod builtin;
mod completed;
mod compose;
mod explain;
mod first;
mod fixed;
mod grace;
mod link;
pub(crate) mod list;
mod reach;
mod requirement;
pub(crate) mod setup;

/// Decides, per user and tenant, which factors must be complete before a session is fully signed in.
pub trait MfaPolicy: Send + Sync + 'static {
    /// What must be complete before the session counts as fully signed in.
    ///
    /// # Errors
    /// An error fails the request: 503, or 401 where the user or tenant is gone.
    fn requirements(
        &self,
        ctx: &PolicyContext<'_>,
    ) -> impl Future<Output = Result<Requirements, PolicyError>> + Send;

    /// What it may demand, as far as it can say without a user: checked by `build()`, and with the factors
    /// that a tenant asks for (`tenant`) when a tenant's rule is set. The default knows nothing; then a
    /// user of whom the impossible is demanded is told so at run time (row P11).
    fn declares(&self, _tenant: Option<&[FactorId]>) -> Declared {
        Declared::unknown()
    }
}

/// What a policy may look at. A context and not a list of parameters, so that facts can be added.
pub struct PolicyContext<'a> {
    pub(crate) known: Known,
    pub(crate) facts: Lazy<'a>,
}

/// What is known without asking anybody.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) tenant: TenantId,
    pub(crate) completed: CompletedFactors,
    pub(crate) payload: Payload,
    pub(crate) now: Timestamp,
    pub(crate) session: SessionFacts,
    pub(crate) request: Option<RequestFacts>,
}

/// Facts that are loaded when asked for: the crate's, or a test's own.
pub(crate) enum Lazy<'a> {
    Lent(&'a dyn Facts),
    Own(Box<dyn Facts>),
}

impl PolicyContext<'_> {
    /// The tenant of the session.
    pub fn tenant(&self) -> &TenantId {
        &self.known.tenant
    }

    /// The factors completed in this session, the one just proven among them.
    pub fn completed(&self) -> &CompletedFactors {
        &self.known.completed
    }

    /// The session's payload: the app's own members, such as a plan.
    pub fn payload(&self) -> &Payload {
        &self.known.payload
    }

    /// The time by which this is judged.
    pub fn now(&self) -> Timestamp {
        self.known.now
    }

    /// The session itself.
    pub fn session(&self) -> &SessionFacts {
        &self.known.session
    }

    /// The request; `None` where the policy is asked outside of one.
    pub fn request(&self) -> Option<&RequestFacts> {
        self.known.request.as_ref()
    }

    /// The user with all login methods; loaded when first asked for.
    ///
    /// # Errors
    /// If the user is gone, or the store failed.
    pub async fn user(&self) -> Result<&User, FactsError> {
        self.facts().user().await
    }

    /// What the app says of the user; `None` unless [`MfaBuilder::own_users`](crate::MfaBuilder::own_users) is set
    /// and the user signs in by the app.
    ///
    /// # Errors
    /// If the user is gone, here or in the app, or one of the two could not be asked.
    pub async fn app_user(&self) -> Result<Option<&AppUser>, FactsError> {
        self.facts().app_user().await
    }

    /// The user's roles in the session's tenant.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn roles(&self) -> Result<&[Role], FactsError> {
        self.facts().roles().await
    }

    /// What the user's roles in the session's tenant allow.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn permissions(&self) -> Result<&[Permission], FactsError> {
        self.facts().permissions().await
    }

    /// The factors for which the user has a credential.
    ///
    /// # Errors
    /// If the user is gone, or the store failed.
    pub async fn factors_set_up(&self) -> Result<&[FactorId], FactsError> {
        self.facts().factors_set_up().await
    }

    /// The factors the user opted into, everywhere or in the session's tenant.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn required_for_user(&self) -> Result<&[FactorId], FactsError> {
        self.facts().required_for_user().await
    }

    /// The factors the tenant asks for. None while it waits for a user who has none of them set up.
    ///
    /// # Errors
    /// If the tenant is gone, or the store failed.
    pub async fn required_for_tenant(&self) -> Result<&[FactorId], FactsError> {
        self.facts().required_for_tenant().await
    }

    pub(crate) fn facts(&self) -> &dyn Facts {
        match &self.facts {
            Lazy::Lent(facts) => *facts,
            Lazy::Own(facts) => facts.as_ref(),
        }
    }
}

impl fmt::Debug for PolicyContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyContext").field("tenant", &self.known.tenant).finish_non_exhaustive()
    }
}

/// A session, as far as policies and claims may read it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionFacts {
    /// The session's handle.
    pub handle: SessionHandle,
    /// The user.
    pub user: UserId,
    /// The login method that made the session.
    pub login: LoginId,
    /// When it was made.
    pub created_at: Timestamp,
    /// The factor that made it, if that is known.
    pub first_factor: Option<FactorId>,
}

/// A request, as far as policies may read it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RequestFacts {
    /// Who sent it, by the app's own reckoning.
    pub peer: Option<IpAddr>,
    /// What the client calls itself.
    pub user_agent: Option<String>,
}

/// A lazy fact can't be had.
#[derive(Debug, thiserror::Error)]
#[error("a fact about the session can't be had")]
pub struct FactsError {
    kind: PolicyErrorKind,
    #[source]
    source: BoxError,
}

impl FactsError {
    /// The user or the tenant is gone: 401.
    pub(crate) fn unauthorised(source: impl Into<BoxError>) -> Self {
        Self { kind: PolicyErrorKind::Unauthorised, source: source.into() }
    }

    /// The store failed: 503.
    pub(crate) fn unavailable(source: impl Into<BoxError>) -> Self {
        Self { kind: PolicyErrorKind::Unavailable, source: source.into() }
    }
}

/// A policy failed. Any error converts into it by `?`, as unavailable; it is therefore, by design, no
/// `std::error::Error` itself.
pub struct PolicyError {
    kind: PolicyErrorKind,
    source: BoxError,
}

/// What a failing policy means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyErrorKind {
    /// User or tenant are gone: 401.
    Unauthorised,
    /// Something the policy needs did not answer: 503.
    Unavailable,
    /// The policy itself is wrong: 500.
    Misconfigured,
}

impl PolicyError {
    /// User or tenant are gone.
    pub fn unauthorised(source: impl Into<BoxError>) -> Self {
        Self { kind: PolicyErrorKind::Unauthorised, source: source.into() }
    }

    /// Something the policy needs did not answer.
    pub fn unavailable(source: impl Into<BoxError>) -> Self {
        Self { kind: PolicyErrorKind::Unavailable, source: source.into() }
    }

    /// The policy itself is wrong.
    pub fn misconfigured(source: impl Into<BoxError>) -> Self {
        Self { kind: PolicyErrorKind::Misconfigured, source: source.into() }
    }

    /// What it means for the request.
    pub fn kind(&self) -> PolicyErrorKind {
        self.kind
    }

    pub(crate) fn into_parts(self) -> (PolicyErrorKind, BoxError) {
        (self.kind, self.source)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for PolicyError {
    fn from(error: E) -> Self {
        let source: BoxError = Box::new(error);
        let kind =
            source.downcast_ref::<FactsError>().map_or(PolicyErrorKind::Unavailable, |facts| facts.kind);
        Self { kind, source }
    }
}

impl fmt::Debug for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyError").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the policy failed")
    }
}

pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, FactsError>> + Send + 'a>>;

/// The lazy facts. Whoever implements it remembers what it loaded.
pub(crate) trait Facts: Send + Sync {
    fn user(&self) -> Boxed<'_, &User>;
    fn app_user(&self) -> Boxed<'_, Option<&AppUser>>;
    fn roles(&self) -> Boxed<'_, &[Role]>;
    fn permissions(&self) -> Boxed<'_, &[Permission]>;
    fn factors_set_up(&self) -> Boxed<'_, &[FactorId]>;
    fn required_for_user(&self) -> Boxed<'_, &[FactorId]>;
    fn required_for_tenant(&self) -> Boxed<'_, &[FactorId]>;
}

/// Any policy, chosen at run time; a policy itself.
#[derive(Clone)]
pub struct AnyPolicy(Arc<dyn Erased>);

impl AnyPolicy {
    /// Erases a policy's type.
    pub fn new(policy: impl MfaPolicy) -> Self {
        Self(Arc::new(policy))
    }
}

impl MfaPolicy for AnyPolicy {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        self.0.requirements_boxed(ctx).await
    }

    fn declares(&self, tenant: Option<&[FactorId]>) -> Declared {
        self.0.declared(tenant)
    }
}

impl fmt::Debug for AnyPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyPolicy")
    }
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Requirements, PolicyError>> + Send + 'a>>;

/// The twin of [`MfaPolicy`] that can be `dyn`; another name, because the same would be ambiguous.
trait Erased: Send + Sync {
    fn requirements_boxed<'a>(&'a self, ctx: &'a PolicyContext<'_>) -> Answer<'a>;
    fn declared(&self, tenant: Option<&[FactorId]>) -> Declared;
}

impl<P: MfaPolicy> Erased for P {
    fn requirements_boxed<'a>(&'a self, ctx: &'a PolicyContext<'_>) -> Answer<'a> {
        Box::pin(self.requirements(ctx))
    }

    fn declared(&self, tenant: Option<&[FactorId]>) -> Declared {
        self.declares(tenant)
    }
}
