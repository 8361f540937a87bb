//! Claims: what a session's token says about it, and how it is found out.
//!
//! A claim has a key in the payload, a type, and a way to be fetched. A [`ClaimValidator`] looks at the
//! payload alone, so the layer answers most requests without asking anybody; where a claim is missing or
//! too old the validator names it, and the layer fetches it first.
//!
//! ```
//! use futures_util::FutureExt as _;
//! use tower_mfa::{SessionClaim, claim::{ClaimContext, ClaimError}};
//!
//! /// What the user pays for.
//! struct Plan;
//!
//! impl SessionClaim for Plan {
//!     const KEY: &'static str = "plan";
//!     type Value = String;
//!
//!     async fn fetch(&self, ctx: &ClaimContext<'_>) -> Result<Option<String>, ClaimError> {
//!         Ok(Some(if ctx.user().await?.id.as_str() == "rich" { "gold" } else { "free" }.to_owned()))
//!     }
//! }
//! ```

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use self::{
    assurance::{Aal, AalMet, amr},
    builtin::{EmailIsVerified, EmailVerified, Permissions, Roles},
    mfa::{FactorsMet, MfaClaim, MfaSatisfied},
    primitive::{Excludes, HasValue, Includes},
    validator::{ClaimValidator, InvalidClaim},
};
use crate::base::{
    error::{Error, ErrorKind},
    payload::PROTECTED,
    time::Timestamp,
};
pub use crate::policy::{
    CompletedFactors, PolicyContext as ClaimContext, PolicyError as ClaimError,
    PolicyErrorKind as ClaimErrorKind,
};

mod assurance;
mod builtin;
pub(crate) mod mfa;
mod primitive;
pub(crate) mod validator;

/// A value in the session's payload that can be fetched.
pub trait SessionClaim: Send + Sync + 'static {
    /// The member of the payload. Must not begin with `st-`, which the crate's own do.
    const KEY: &'static str;
    /// What it says.
    type Value: Serialize + DeserializeOwned + Send + Sync;
    /// Whether it says something of the completed factors: then, if [every new session gets
    /// it](crate::MfaBuilder::claim), it is fetched anew with each factor that is completed, and leaves with that
    /// very answer.
    const FOLLOWS_FACTORS: bool = false;

    /// Finds it out. `None` leaves the payload as it is.
    ///
    /// # Errors
    /// An error fails the request.
    fn fetch(
        &self,
        ctx: &ClaimContext<'_>,
    ) -> impl Future<Output = Result<Option<Self::Value>, ClaimError>> + Send;
}

/// A value and when it was fetched: how claims stand in the payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamped<T> {
    /// The value.
    pub v: T,
    /// When it was fetched; milliseconds since the epoch.
    pub t: Timestamp,
}

impl<T: Serialize> Stamped<T> {
    pub(crate) fn write(&self) -> Result<Value, Error> {
        serde_json::to_value(self)
            .map_err(|e| Error::with(ErrorKind::Invalid, "a claim's value can't be written as JSON", e))
    }
}

impl<T: DeserializeOwned> Stamped<T> {
    /// Reads a claim in the payload.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        Self::deserialize(value).ok()
    }
}

/// Whether a claim may have this key: not one of those that the crate writes itself (row J26).
///
/// # Errors
/// `Invalid` if not.
pub(crate) fn free_key(key: &str) -> Result<(), Error> {
    match PROTECTED.contains(&key) || mfa::OWN.contains(&key) {
        true => Err(Error::invalid("a claim has the key of something that only the crate writes")),
        false => Ok(()),
    }
}

/// A claim with its type erased: a cheap handle by which validators name what to fetch.
#[derive(Clone)]
pub struct ClaimRef {
    key: &'static str,
    follows_factors: bool,
    claim: Arc<dyn Erased>,
}

impl ClaimRef {
    /// Erases a claim's type.
    pub fn new<C: SessionClaim>(claim: C) -> Self {
        Self { key: C::KEY, follows_factors: C::FOLLOWS_FACTORS, claim: Arc::new(claim) }
    }

    /// The member of the payload.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// Whether a completed factor changes it.
    pub(crate) fn follows_factors(&self) -> bool {
        self.follows_factors
    }

    /// Fetches the claim, as it goes into the payload.
    pub(crate) async fn fetch(&self, ctx: &ClaimContext<'_>) -> Result<Option<Value>, ClaimError> {
        self.claim.fetch_boxed(ctx).await
    }
}

impl fmt::Debug for ClaimRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClaimRef").field(&self.key).finish()
    }
}

type Fetched<'a> = Pin<Box<dyn Future<Output = Result<Option<Value>, ClaimError>> + Send + 'a>>;

trait Erased: Send + Sync {
    fn fetch_boxed<'a>(&'a self, ctx: &'a ClaimContext<'_>) -> Fetched<'a>;
}

impl<C: SessionClaim> Erased for C {
    fn fetch_boxed<'a>(&'a self, ctx: &'a ClaimContext<'_>) -> Fetched<'a> {
        Box::pin(async {
            let Some(v) = self.fetch(ctx).await? else { return Ok(None) };
            Ok(Some(Stamped { v, t: ctx.now() }.write()?))
        })
    }
}
