//! Guards for single routes: synchronous, over what the layer found, with no store call.
//!
//! A guard is a layer around a route, or the type of a handler's argument. As an argument it is a
//! [`SteppedUp`], which nobody but the crate makes: a function that takes one can't be called by a route that
//! forgot to ask.
//!
//! ```
//! # use axum::{Router, routing::post};
//! # use tower_mfa::{Mfa, MfaLayer, config::{AppInfo, Secrets}, store::MemoryStore};
//! use std::time::Duration;
//! use tower_mfa::{
//!     FactorId, RequireFactors,
//!     guard::{StepUp, SteppedUp},
//! };
//!
//! /// A code by e-mail within the last five minutes.
//! struct Fresh;
//!
//! impl StepUp for Fresh {
//!     fn rule() -> RequireFactors {
//!         RequireFactors::one_of([FactorId::OTP_EMAIL]).max_age(Duration::from_secs(300))
//!     }
//! }
//!
//! # #[cfg(feature = "axum")]
//! async fn close_account(proof: SteppedUp<Fresh>) -> String {
//!     close(&proof)
//! }
//!
//! fn close(proof: &SteppedUp<Fresh>) -> String {
//!     format!("{} is closed", proof.user_id())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let shop = AppInfo::new("Shop", "https://api.shop.test", "https://shop.test")?;
//! # let mfa = Mfa::builder(shop, Secrets::random()?, MemoryStore::new()).without_passwordless().build()?;
//! # #[cfg(feature = "axum")] {
//! let app: Router = Router::new()
//!     .route("/close", post(close_account))
//!     // The same as a layer, around any service.
//!     .route("/export", post(|| async { "everything" }).route_layer(RequireFactors::step_up::<Fresh>()))
//!     .layer(MfaLayer::required(mfa));
//! # let _ = app; }
//! # Ok(()) }
//! ```

use std::{fmt, sync::Arc, time::Duration};

use tower::Layer;

#[cfg(feature = "axum")]
pub(crate) use self::step_up::Lack;
pub use self::{
    service::{GuardFuture, Guarded},
    step_up::{StepUp, SteppedUp},
};
use crate::{
    base::ident::TenantId,
    claim::{AalMet, ClaimValidator, FactorsMet},
    policy::{Requirement, Requirements},
};

mod service;
mod step_up;

/// Lets a request pass whose session completed these factors.
///
/// Around a route it is a layer; as the rule of a [`StepUp`] it is what an argument of a handler proves. Both
/// refuse alike: 403 with the wire's body, and in the same object the members of RFC 9457, `type`, `title`
/// and `detail`, what to do `next`, what of it was `expired`, and the `max_age` in seconds. A mount may answer
/// API clients by [`bearer_challenges`](crate::MfaLayer::bearer_challenges) instead.
#[derive(Clone, Debug)]
#[must_use]
pub struct RequireFactors {
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    Factors(Requirements),
    Level(AalMet),
}

impl RequireFactors {
    /// Any one of these.
    pub fn one_of(items: impl IntoIterator<Item = impl Into<Requirement>>) -> Self {
        let mut items: Vec<Requirement> = items.into_iter().map(Into::into).collect();
        match (items.pop(), items.is_empty()) {
            (Some(only), true) => Self::list(only),
            (last, _) => Self::list(Requirement::one_of(items.into_iter().chain(last))),
        }
    }

    /// All of these, in any order.
    pub fn all_of(items: impl IntoIterator<Item = impl Into<Requirement>>) -> Self {
        Self::list(Requirement::all_of(items))
    }

    /// Any requirement, or a whole list in order.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use tower_mfa::{FactorId, RequireFactors, Requirement};
    /// // A factor other than the one that the user signed in with, within the hour.
    /// let second = Requirement::one_of([FactorId::PASSWORD, FactorId::OTP_EMAIL, FactorId::TOTP]);
    /// let guard = RequireFactors::list(second.excluding_first_factor()).max_age(Duration::from_secs(3600));
    /// ```
    pub fn list(list: impl Into<Requirements>) -> Self {
        Self { rule: Rule::Factors(list.into()) }
    }

    /// The assurance level AAL2 of NIST SP 800-63B-4, by the profile that [`Aal`](crate::claim::Aal)
    /// describes: a password and something that one has, or a passkey that made the session. E-mail counts
    /// for nothing.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_mfa::RequireFactors;
    /// // NIST recommends to authenticate again within a day at that level (section 2.2.3).
    /// let guard = RequireFactors::aal2().max_age(Duration::from_secs(24 * 3600));
    /// ```
    pub fn aal2() -> Self {
        Self { rule: Rule::Level(AalMet::two()) }
    }

    /// The rule of a step-up, as a layer.
    pub fn step_up<R: StepUp>() -> Self {
        R::rule()
    }

    /// Completed at most so long ago.
    pub fn max_age(self, age: Duration) -> Self {
        let rule = match self.rule {
            Rule::Factors(list) => Rule::Factors(list.max_age(age)),
            Rule::Level(level) => Rule::Level(level.max_age(age)),
        };
        Self { rule }
    }

    fn into_validator(self) -> Arc<dyn ClaimValidator> {
        match self.rule {
            Rule::Factors(list) => Arc::new(FactorsMet::new(list)),
            Rule::Level(level) => Arc::new(level),
        }
    }
}

impl<S> Layer<S> for RequireFactors {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        #[cfg(feature = "tracing")]
        if matches!(&self.rule, Rule::Factors(list) if list.demands_nothing()) {
            tracing::warn!("a guard demands nothing: every session passes");
        }
        Guarded::new(inner, Arc::from([self.clone().into_validator()]))
    }
}

/// Lets a request pass whose session's claims satisfy these validators.
#[derive(Clone)]
#[must_use]
pub struct RequireClaims {
    validators: Arc<[Arc<dyn ClaimValidator>]>,
}

impl RequireClaims {
    /// All of these. A claim that isn't in the token is refused: let the layer's
    /// [`validate`](crate::MfaLayer::validate) fetch it.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use tower_mfa::{SessionClaim, claim::{ClaimContext, ClaimError, HasValue}, guard::RequireClaims};
    /// # struct Staff;
    /// # impl SessionClaim for Staff {
    /// #     const KEY: &'static str = "staff";
    /// #     type Value = bool;
    /// #     async fn fetch(&self, _: &ClaimContext<'_>) -> Result<Option<bool>, ClaimError> { Ok(None) }
    /// # }
    /// let staff = RequireClaims::new([Arc::new(HasValue::new(Staff, true)?)]);
    /// # Ok::<(), tower_mfa::Error>(())
    /// ```
    pub fn new<const N: usize>(validators: [Arc<dyn ClaimValidator>; N]) -> Self {
        Self { validators: Arc::from(validators) }
    }
}

/// Lets a request pass whose session belongs to this tenant: for routes that serve one of several (row N01). A session
/// of another one is refused with 403 and the invalid claim `tId`.
///
/// ```
/// # use axum::{Router, routing::get};
/// # use tower_mfa::{guard::RequireTenant, ident::TenantId};
/// # fn routes(north: TenantId) -> Router {
/// Router::new().route("/north/orders", get(|| async { "orders" }).route_layer(RequireTenant::new(north)))
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RequireTenant {
    tenant: TenantId,
}

impl RequireTenant {
    /// Sessions of this tenant alone.
    pub fn new(tenant: TenantId) -> Self {
        Self { tenant }
    }
}

impl<S> Layer<S> for RequireTenant {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded::new(inner, Arc::from([])).within(self.tenant.clone())
    }
}

impl fmt::Debug for RequireClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.validators.iter().map(|validator| validator.id().to_owned());
        f.debug_list().entries(ids).finish()
    }
}

impl<S> Layer<S> for RequireClaims {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded::new(inner, Arc::clone(&self.validators))
    }
}
