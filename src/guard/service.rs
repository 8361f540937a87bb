//! The service behind a guard: asks, then calls or refuses.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::Service;

use super::step_up::{check, in_tenant};
use crate::{
    base::ident::TenantId,
    claim::ClaimValidator,
    layer::{MfaBody, refuse::Answer},
};

/// A service behind a guard.
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    validators: Arc<[Arc<dyn ClaimValidator>]>,
    tenant: Option<TenantId>,
}

impl<S> Guarded<S> {
    pub(super) fn new(inner: S, validators: Arc<[Arc<dyn ClaimValidator>]>) -> Self {
        Self { inner, validators, tenant: None }
    }

    pub(super) fn within(self, tenant: TenantId) -> Self {
        Self { tenant: Some(tenant), ..self }
    }
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
        let session = check(request.extensions(), &self.validators);
        let lack = session.and_then(|session| in_tenant(session, self.tenant.as_ref())).err();
        let state = match lack {
            None => State::Running { inner: self.inner.call(request) },
            Some(lack) => State::Refused { answer: Some(Box::new(lack.answer())) },
        };
        GuardFuture { state }
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
