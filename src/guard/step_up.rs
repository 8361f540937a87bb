//! Step-up: a rule as a type, and the proof that it is met.

use std::{fmt, marker::PhantomData, ops::Deref, sync::Arc};

use super::RequireFactors;
use crate::{
    base::{error::Error, ident::TenantId},
    claim::{ClaimValidator, InvalidClaim, validator},
    layer::{
        Verified,
        contain::contained,
        refuse::{self, Answer},
    },
    session::{Session, SessionDenied},
};

/// A rule with a name: what must have been proven before a handler runs.
///
/// It is a type of the app's, so that a function can say which rule it wants: [`SteppedUp`] of one rule is no
/// proof of another.
pub trait StepUp: 'static {
    /// The rule. Asked for at each request that is guarded by an argument: one that takes long to make is kept
    /// in a [`LazyLock`](std::sync::LazyLock) and cloned.
    fn rule() -> RequireFactors;
}

/// The proof that a session met the rule `R` when the request came: an argument of handlers, and of the
/// functions that they call. Derefs to [`Session`].
///
/// With axum it is an extractor. It refuses as the layer [`RequireFactors`] does, and without
/// [`MfaLayer`](crate::MfaLayer) around it, it is a 500 that says so (row M01). There is no optional one: an
/// argument of the type `Result<SteppedUp<R>, StepUpRejection>` is looked at on purpose. Services without axum
/// ask [`SteppedUp::of`].
///
/// Nobody but the crate makes one:
///
/// ```
/// # use tower_mfa::{FactorId, RequireFactors, Session, guard::{StepUp, SteppedUp}, session::SessionDenied};
/// struct Fresh;
/// impl StepUp for Fresh {
///     fn rule() -> RequireFactors {
///         RequireFactors::one_of([FactorId::TOTP])
///     }
/// }
/// fn pay(proof: SteppedUp<Fresh>) {}
/// fn ask(session: &Session) -> Result<(), SessionDenied> {
///     Ok(pay(SteppedUp::of(session)?))
/// }
/// ```
/// not by its fields,
/// ```compile_fail,E0451
/// # use tower_mfa::{Session, guard::{StepUp, SteppedUp}};
/// fn forge<R: StepUp>(session: Session) -> SteppedUp<R> {
///     SteppedUp { session, rule: std::marker::PhantomData }
/// }
/// ```
/// not from another one,
/// ```compile_fail,E0277
/// # use tower_mfa::guard::{StepUp, SteppedUp};
/// fn twice<R: StepUp>(proof: SteppedUp<R>) -> (SteppedUp<R>, SteppedUp<R>) {
///     (SteppedUp::clone(&proof), proof)
/// }
/// ```
/// not out of nothing,
/// ```compile_fail,E0277
/// # use tower_mfa::guard::{StepUp, SteppedUp};
/// fn default<R: StepUp>() -> SteppedUp<R> {
///     fn of<T: Default>() -> T { T::default() }
///     of()
/// }
/// ```
/// ```compile_fail,E0277
/// # use tower_mfa::guard::{StepUp, SteppedUp};
/// fn read<R: StepUp>() -> SteppedUp<R> {
///     serde_json::from_str("{}").unwrap()
/// }
/// ```
/// and that of another rule isn't it:
/// ```compile_fail,E0308
/// # use tower_mfa::guard::{StepUp, SteppedUp};
/// fn other<R: StepUp, Q: StepUp>(proof: SteppedUp<R>) -> SteppedUp<Q> {
///     proof
/// }
/// ```
#[must_use]
pub struct SteppedUp<R> {
    session: Session,
    rule: PhantomData<fn() -> R>,
}

impl<R: StepUp> SteppedUp<R> {
    /// Asks a session: synchronous, and without a store call.
    ///
    /// # Errors
    /// What the session lacks.
    pub fn of(session: &Session) -> Result<Self, SessionDenied> {
        ask(session, &[R::rule().into_validator()])?;
        Ok(Self { session: session.clone(), rule: PhantomData })
    }

    /// Asks the session that the layer left for a request.
    #[cfg(feature = "axum")]
    pub(crate) fn found(extensions: &http::Extensions) -> Result<Self, Lack> {
        let session = check(extensions, &[R::rule().into_validator()])?.clone();
        Ok(Self { session, rule: PhantomData })
    }
}

impl<R> Deref for SteppedUp<R> {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl<R> fmt::Debug for SteppedUp<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteppedUp").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Why a guard lets nobody through.
#[derive(Debug)]
pub(crate) enum Lack {
    /// No layer ran: the app is wired wrongly (row M01).
    Layer,
    /// A validator panicked (row P03).
    Failed(Error),
    /// The session, or something of it.
    Session {
        denied: SessionDenied,
        /// Whether the client is told by a challenge.
        challenged: bool,
    },
}

impl Lack {
    pub(crate) fn answer(&self) -> Answer {
        match self {
            Self::Layer => refuse::failed(&Error::internal(
                "a guard without MfaLayer around it: add .layer(MfaLayer::required(mfa))",
            )),
            Self::Failed(error) => refuse::failed(error),
            Self::Session { denied: denied @ SessionDenied::Unauthorised, challenged: true } => {
                refuse::unauthenticated(denied)
            }
            Self::Session { denied, challenged: true } => refuse::challenged(denied),
            Self::Session { denied, challenged: false } => refuse::denied(denied),
        }
    }
}

/// Asks validators about the session that the layer found for a request.
pub(crate) fn check<'r>(
    extensions: &'r http::Extensions,
    validators: &[Arc<dyn ClaimValidator>],
) -> Result<&'r Session, Lack> {
    let verified = extensions.get::<Verified>().ok_or(Lack::Layer)?;
    let lack = |denied| Lack::Session { denied, challenged: verified.challenged() };
    let session = verified.session().ok_or_else(|| lack(SessionDenied::Unauthorised))?;
    contained(|| ask(session, validators)).map_err(Lack::Failed)?.map_err(lack)?;
    Ok(session)
}

/// Whether a session belongs to the tenant that a route serves (row N01). No factor helps, so nobody is challenged.
pub(crate) fn in_tenant(session: &Session, tenant: Option<&TenantId>) -> Result<(), Lack> {
    if tenant.is_none_or(|tenant| session.claims().tenant == *tenant) {
        return Ok(());
    }
    session.kit().mention_refusal(&session.claims());
    let other = InvalidClaim::new("tId", serde_json::json!({ "message": "the session is another tenant's" }));
    Err(Lack::Session { denied: SessionDenied::InvalidClaims(vec![other]), challenged: false })
}

fn ask(session: &Session, validators: &[Arc<dyn ClaimValidator>]) -> Result<(), SessionDenied> {
    let (kit, claims) = (session.kit(), session.claims());
    let now = kit.db.now();
    if validator::enforce(validators, &claims.payload, now).is_empty() {
        return Ok(());
    }
    // What can be completed here makes no difference to who passes, only to what the others are told.
    let (validators, _) = validator::among(validators, &kit.usable);
    let failed = validator::enforce(&validators, &claims.payload, now);
    failed.iter().filter_map(|lack| lack.problem.as_deref()).for_each(|problem| kit.tell_unmeetable(problem));
    kit.mention_refusal(&claims);
    Err(SessionDenied::InvalidClaims(failed))
}
