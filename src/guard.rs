//! Guards for single routes: synchronous, over what the layer found.
//!
//! ```
//! use tower_mfa::{FactorId, RequireFactors};
//! let totp = RequireFactors::one_of([FactorId::TOTP]).max_age(std::time::Duration::from_secs(300));
//! ```

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::{
    base::{error::Error, ident::FactorId},
    claim::{ClaimValidator, FactorsMet, validator},
    layer::{
        MfaBody, Verified,
        contain::contained,
        refuse::{self, Answer},
    },
    policy::{Requirement, Requirements},
    session::SessionDenied,
};

/// Lets a request pass whose session completed these factors.
#[derive(Clone, Debug)]
#[must_use]
pub struct RequireFactors {
    list: Requirements,
}

impl RequireFactors {
    /// Any one of these.
    pub fn one_of(factors: impl IntoIterator<Item = FactorId>) -> Self {
        let mut factors: Vec<FactorId> = factors.into_iter().collect();
        let item = match (factors.pop(), factors.is_empty()) {
            (Some(only), true) => Requirement::Factor(only),
            (Some(last), false) => {
                factors.push(last);
                Requirement::one_of(factors)
            }
            (None, _) => Requirement::one_of(factors),
        };
        Self { list: item.into() }
    }

    /// All of these, in any order.
    pub fn all_of(factors: impl IntoIterator<Item = FactorId>) -> Self {
        Self { list: Requirement::all_of(factors).into() }
    }

    /// A whole list, in order.
    pub fn list(list: impl Into<Requirements>) -> Self {
        Self { list: list.into() }
    }

    /// Completed at most so long ago.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.list = self.list.max_age(age);
        self
    }
}

impl<S> Layer<S> for RequireFactors {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, validators: Arc::from([Arc::new(FactorsMet::new(self.list.clone())) as _]) }
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

impl fmt::Debug for RequireClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.validators.iter().map(|validator| validator.id().to_owned());
        f.debug_list().entries(ids).finish()
    }
}

impl<S> Layer<S> for RequireClaims {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, validators: Arc::clone(&self.validators) }
    }
}

/// A service behind a guard.
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    validators: Arc<[Arc<dyn ClaimValidator>]>,
}

impl<S> fmt::Debug for Guarded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Response = Response<MfaBody<R>>;
    type Error = S::Error;
    type Future = GuardFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> GuardFuture<S::Future> {
        let state = match check(&request, &self.validators) {
            Ok(()) => State::Running { inner: self.inner.call(request) },
            Err(answer) => State::Refused { answer: Some(answer) },
        };
        GuardFuture { state }
    }
}

fn check<B>(request: &Request<B>, validators: &[Arc<dyn ClaimValidator>]) -> Result<(), Box<Answer>> {
    let Some(verified) = request.extensions().get::<Verified>() else {
        let wiring =
            Error::internal("a guard without MfaLayer around it: add .layer(MfaLayer::required(mfa))");
        return Err(Box::new(refuse::failed(&wiring)));
    };
    let Some(session) = &verified.session else {
        return Err(Box::new(refuse::denied(&SessionDenied::Unauthorised)));
    };
    let now = session.kit().db.now();
    let failed = contained(|| validator::enforce(validators, &session.claims().payload, now))?;
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Box::new(refuse::denied(&SessionDenied::InvalidClaims(failed)))),
    }
}

pin_project! {
    /// The future of [`Guarded`].
    pub struct GuardFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Refused { answer: Option<Box<Answer>> },
        Running { #[pin] inner: F },
    }
}

impl<F> fmt::Debug for GuardFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardFuture").finish_non_exhaustive()
    }
}

impl<F, R, E> Future for GuardFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<MfaBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Running { inner } => Poll::Ready(Ok(ready!(inner.poll(cx))?.map(MfaBody::inner))),
            StateProj::Refused { answer } => match answer.take() {
                Some(answer) => Poll::Ready(Ok(answer.into_response())),
                None => Poll::Pending,
            },
        }
    }
}
