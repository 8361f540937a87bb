//! What the crate tells the app: [`Hooks`] for the app's own doing, [`AuditEvent`] for whoever watches.
//!
//! | | what it is for | when | if it fails |
//! |---|---|---|---|
//! | [`Hooks::opts_in`] | a question: is this completed factor asked of its user from now on? | before the commit of the completion; the answer is written *with* it | nothing is completed: 503 |
//! | [`Hooks::on_user_created`], [`on_session_created`](Hooks::on_session_created), [`on_factor_completed`](Hooks::on_factor_completed), [`on_token_theft`](Hooks::on_token_theft), [`on_suspicious_attempts`](Hooks::on_suspicious_attempts) | the app's own follow-up | after the commit, before the answer, which waits for at most 5 s | it is counted and logged, and what happened stays so |
//! | [`Hooks::on_session_ended`] | closing sockets, clearing caches | after the commit, beside the requests; nobody waits | the same |
//! | [`AuditSink::record`] | a trail outside of the store, alarms | after the commit, beside the requests; nobody waits | the same; the trail in the store has the event |
//!
//! A hook is called in the process where it happened, once; a process that dies between the commit and the hook
//! doesn't call it. What must not get lost belongs into the batch of its cause, as [`Hooks::opts_in`] does it,
//! or is read from [`Mfa::audit_trail`](crate::Mfa::audit_trail). No hook runs while the crate holds a lock or
//! has a transaction open.
//!
//! A user who enters a code by e-mail while signed in is asked for one at each sign-in from then on:
//!
//! ```
//! use tower_mfa::{
//!     FactorId,
//!     hooks::{FactorCompleted, Hooks, SessionCreated},
//!     ident::BoxError,
//! };
//!
//! struct Shop;
//!
//! impl Hooks for Shop {
//!     async fn opts_in(&self, e: &FactorCompleted<'_>) -> Result<bool, BoxError> {
//!         Ok(*e.factor == FactorId::OTP_EMAIL)
//!     }
//!
//!     async fn on_session_created(&self, e: &SessionCreated<'_>) -> Result<(), BoxError> {
//!         println!("{} signed in{}", e.user.id, if e.complete { "" } else { ", in part" });
//!         Ok(())
//!     }
//! }
//! # fn build(builder: tower_mfa::MfaBuilder) -> tower_mfa::MfaBuilder {
//! builder.hooks(Shop)
//! # }
//! ```

use std::{
    fmt,
    future::{Future, ready},
    net::IpAddr,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt as _;

pub use self::audit::AuditSink;
#[cfg(feature = "tracing")]
pub use self::audit::TracingSink;
pub(crate) use self::audit::{AnySink, listen};
pub use self::form::Form;
pub use crate::model::audit::{AuditEvent, Audited, Cause, Ended, Ending};
use crate::{
    base::{
        error::{BoxError, Error},
        ident::{FactorId, SessionHandle, TenantId, UserId},
    },
    model::{audit::Counts, user::User},
};

mod audit;
mod form;

/// How long hooks may hold up an answer, all that are due together; and one that nobody waits for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the app does when something happened. Every method has a default that does nothing.
pub trait Hooks: Send + Sync + 'static {
    /// Whether a factor that is being completed is asked of its user at every sign-in from now on, as by
    /// [`FactorsOf::opt_in`](crate::account::FactorsOf::opt_in).
    ///
    /// Asked before the commit, and the answer is written in the batch of the completion: both are there or
    /// neither. Only for a factor that is completed *within* a session, for that session's own user: neither for
    /// a first factor nor for one whose login could not be linked. It may be asked more than once, as the
    /// completion is tried anew if something moved, so it must not do anything.
    ///
    /// # Errors
    /// Nothing is completed and the code isn't used up: the client is answered 503. So it is after 5 s, and after
    /// a panic (500).
    fn opts_in(&self, _e: &FactorCompleted<'_>) -> impl Future<Output = Result<bool, BoxError>> + Send {
        ready(Ok(false))
    }

    /// Somebody signed up.
    ///
    /// # Errors
    /// Counted and logged; the user stays. Do what must not be missed in [`Hooks::on_session_created`] as well.
    fn on_user_created(&self, _e: &UserCreated<'_>) -> impl Future<Output = Result<(), BoxError>> + Send {
        ready(Ok(()))
    }

    /// A session began, perhaps half of one: see [`SessionCreated::complete`] (row S13).
    ///
    /// # Errors
    /// Counted and logged; the session stays.
    fn on_session_created(
        &self,
        _e: &SessionCreated<'_>,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        ready(Ok(()))
    }

    /// A factor was completed, as a first one or within a session.
    ///
    /// # Errors
    /// Counted and logged; the factor stays completed.
    fn on_factor_completed(
        &self,
        _e: &FactorCompleted<'_>,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        ready(Ok(()))
    }

    /// A refresh token was used by two, and its session has ended (row R06).
    ///
    /// # Errors
    /// Counted and logged; the session is over.
    fn on_token_theft(&self, _e: &TokenTheft<'_>) -> impl Future<Output = Result<(), BoxError>> + Send {
        ready(Ok(()))
    }

    /// Somebody who passed the first factor entered five wrong codes in a row, or so many that guesses rest now (row
    /// O35). The user is told by mail already.
    ///
    /// # Errors
    /// Counted and logged.
    fn on_suspicious_attempts(
        &self,
        _e: &SuspiciousAttempts<'_>,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        ready(Ok(()))
    }

    /// Sessions ended: by a sign-out, a revocation, theft, a change of factors, or for another one. Not those
    /// whose time ran out unnoticed.
    ///
    /// Called one after the other, beside the requests. 4096 may wait; what finds no room is counted and left out.
    ///
    /// # Errors
    /// Counted and logged.
    fn on_session_ended(&self, _e: &Ending) -> impl Future<Output = Result<(), BoxError>> + Send {
        ready(Ok(()))
    }
}

/// Somebody signed up.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct UserCreated<'a> {
    /// The user, with the login method that was made.
    pub user: &'a User,
    /// Where.
    pub tenant: &'a TenantId,
    /// What the sign-up form held beside e-mail and password.
    pub form: &'a Form,
}

/// A session began.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SessionCreated<'a> {
    /// Whose it is.
    pub user: &'a User,
    /// Where.
    pub tenant: &'a TenantId,
    /// Names the session; grants nothing.
    pub session: &'a SessionHandle,
    /// What it was started with.
    pub factor: &'a FactorId,
    /// Whether everything that is required is complete. `false`: somebody who passed one factor may not be who
    /// they say, which is worth a message to the user.
    pub complete: bool,
    /// Who sent the request, by the app's own reckoning.
    pub peer: Option<IpAddr>,
}

/// A factor was completed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FactorCompleted<'a> {
    /// The session's user.
    pub user: &'a User,
    /// Where.
    pub tenant: &'a TenantId,
    /// Names the session; grants nothing.
    pub session: &'a SessionHandle,
    /// What was completed.
    pub factor: &'a FactorId,
    /// Whether it started the session.
    pub first_factor: bool,
    /// Whether the user didn't have it set up before: this was its enrolment.
    pub enrolled: bool,
}

/// A refresh token was used by two.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TokenTheft<'a> {
    /// Whose session it was.
    pub user: &'a UserId,
    /// Where.
    pub tenant: &'a TenantId,
    /// The session, which is over.
    pub session: &'a SessionHandle,
    /// Who used the token again, by the app's own reckoning: the thief, or the owner after the thief.
    pub peer: Option<IpAddr>,
    /// Which token it was: [`Cause::Recent`] or [`Cause::Older`].
    pub token: Cause,
    /// How old it is at least: since another one took its place.
    pub age: Duration,
}

/// Somebody who passed the first factor tries codes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SuspiciousAttempts<'a> {
    /// Whose account it is.
    pub user: &'a UserId,
    /// Where.
    pub tenant: &'a TenantId,
    /// The factor whose codes were wrong.
    pub factor: &'a FactorId,
    /// Whether guesses are refused for a while now.
    pub resting: bool,
    /// Who sent the request, by the app's own reckoning.
    pub peer: Option<IpAddr>,
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Happened<'a> {
    UserCreated(UserCreated<'a>),
    SessionCreated(SessionCreated<'a>),
    FactorCompleted(FactorCompleted<'a>),
    TokenTheft(TokenTheft<'a>),
    SessionEnded(&'a Ending),
    SuspiciousAttempts(SuspiciousAttempts<'a>),
}

impl Happened<'_> {
    #[cfg(feature = "tracing")]
    fn name(&self) -> &'static str {
        match self {
            Self::UserCreated(_) => "on_user_created",
            Self::SessionCreated(_) => "on_session_created",
            Self::FactorCompleted(_) => "on_factor_completed",
            Self::TokenTheft(_) => "on_token_theft",
            Self::SessionEnded(_) => "on_session_ended",
            Self::SuspiciousAttempts(_) => "on_suspicious_attempts",
        }
    }
}

/// The app's hooks, called within their bounds.
#[derive(Clone)]
pub(crate) struct AnyHooks(Arc<dyn Erased>);

impl AnyHooks {
    pub(crate) fn new(hooks: impl Hooks) -> Self {
        Self(Arc::new(hooks))
    }

    /// Asks before a completion. What fails, hangs or panics fails it.
    pub(crate) async fn opts_in(&self, e: &FactorCompleted<'_>) -> Result<bool, Error> {
        let asked = AssertUnwindSafe(async { self.0.opts_in_boxed(e).await }).catch_unwind();
        match tokio::time::timeout(PATIENCE, asked).await {
            Err(_) => Err(Error::unavailable("a hook took too long")),
            Ok(Err(_)) => Err(Error::internal("a hook panicked")),
            Ok(Ok(Err(source))) => {
                Err(Error::with(crate::base::error::ErrorKind::Unavailable, "a hook failed", source))
            }
            Ok(Ok(Ok(answer))) => Ok(answer),
        }
    }

    /// Tells what is committed: one after the other, all within the same bound, whatever becomes of each.
    pub(crate) async fn tell(&self, happened: &[Happened<'_>], counts: &Counts) {
        let mut told = 0;
        let all = async {
            for one in happened {
                let telling = AssertUnwindSafe(async { self.0.tell_boxed(one).await });
                let outcome = telling.catch_unwind().await;
                told += 1;
                if !matches!(outcome, Ok(Ok(()))) {
                    failed(one, counts);
                }
            }
        };
        let _late = tokio::time::timeout(PATIENCE, all).await;
        for one in happened.iter().skip(told) {
            failed(one, counts);
        }
    }
}

impl fmt::Debug for AnyHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyHooks").finish_non_exhaustive()
    }
}

/// The hooks of an app that has none.
#[derive(Debug)]
pub(crate) struct NoHooks;

impl Hooks for NoHooks {}

/// Tells ends of sessions until the last handle is gone.
pub(crate) async fn attend(
    hooks: AnyHooks,
    counts: Arc<Counts>,
    mut endings: tokio::sync::mpsc::Receiver<Ending>,
) {
    while let Some(ending) = endings.recv().await {
        hooks.tell(&[Happened::SessionEnded(&ending)], &counts).await;
        counts.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The app's error isn't logged: nobody but the app knows what is in it.
fn failed(_one: &Happened<'_>, counts: &Counts) {
    counts.hooks_failed.fetch_add(1, Ordering::Relaxed);
    #[cfg(feature = "tracing")]
    tracing::error!(hook = _one.name(), "a hook failed: what it was told of stays as it is");
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send + 'a>>;

/// The twin of [`Hooks`] that can be `dyn`.
trait Erased: Send + Sync {
    fn opts_in_boxed<'a>(&'a self, e: &'a FactorCompleted<'a>) -> Boxed<'a, bool>;
    fn tell_boxed<'a>(&'a self, happened: &'a Happened<'a>) -> Boxed<'a, ()>;
}

impl<H: Hooks> Erased for H {
    fn opts_in_boxed<'a>(&'a self, e: &'a FactorCompleted<'a>) -> Boxed<'a, bool> {
        Box::pin(self.opts_in(e))
    }

    fn tell_boxed<'a>(&'a self, happened: &'a Happened<'a>) -> Boxed<'a, ()> {
        match happened {
            Happened::UserCreated(e) => Box::pin(self.on_user_created(e)),
            Happened::SessionCreated(e) => Box::pin(self.on_session_created(e)),
            Happened::FactorCompleted(e) => Box::pin(self.on_factor_completed(e)),
            Happened::TokenTheft(e) => Box::pin(self.on_token_theft(e)),
            Happened::SessionEnded(e) => Box::pin(self.on_session_ended(e)),
            Happened::SuspiciousAttempts(e) => Box::pin(self.on_suspicious_attempts(e)),
        }
    }
}
