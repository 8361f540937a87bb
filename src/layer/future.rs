//! The layer's future: refused, asking, or running.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::Service;

use super::{MfaBody, Verified, refuse::Answer, sign_in::Carried};
use crate::session::{Kit, Session, transport};

type Asking = Pin<Box<dyn Future<Output = Result<Verified, Box<Answer>>> + Send>>;

pin_project! {
    /// The future of [`MfaService`](super::MfaService).
    pub struct MfaFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, F> {
        Refused { answer: Option<Box<Answer>> },
        // Boxed whole, so that the rare state doesn't size the common one.
        Asking { asking: Asking, rest: Option<Box<(S, Request<B>)>> },
        Running { #[pin] inner: F, verified: Option<Verified> },
    }
}

impl<S, B> MfaFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) fn refused(answer: Box<Answer>) -> Self {
        Self { state: State::Refused { answer: Some(answer) } }
    }

    pub(super) fn running(inner: S::Future, verified: Option<Verified>) -> Self {
        Self { state: State::Running { inner, verified } }
    }

    pub(super) fn asking(asking: Asking, ready: S, request: Request<B>) -> Self {
        Self { state: State::Asking { asking, rest: Some(Box::new((ready, request))) } }
    }
}

impl<S, B> fmt::Debug for MfaFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MfaFuture").finish_non_exhaustive()
    }
}

impl<S, B, R> Future for MfaFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<MfaBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Refused { answer } => {
                    let Some(answer) = answer.take() else { return Poll::Pending };
                    return Poll::Ready(Ok(answer.into_response()));
                }
                StateProj::Asking { asking, rest } => {
                    let found = ready!(asking.as_mut().poll(cx));
                    let next = match (found, rest.take()) {
                        (Err(answer), _) => State::Refused { answer: Some(answer) },
                        (Ok(verified), Some(rest)) => {
                            let (mut service, mut request) = *rest;
                            request.extensions_mut().insert(verified.clone());
                            let inner = service.call(request);
                            State::Running { inner, verified: Some(verified) }
                        }
                        (Ok(_), None) => return Poll::Pending,
                    };
                    this.state.set(next);
                }
                StateProj::Running { inner, verified } => {
                    let mut response = ready!(inner.poll(cx))?;
                    if let Some((kit, session)) = verified.take().and_then(Verified::writer) {
                        write(&kit, session, &mut response);
                    }
                    return Poll::Ready(Ok(response.map(MfaBody::inner)));
                }
            }
        }
    }
}

/// One writer, one moment: what the session has to tell the client goes into the head.
fn write<R>(kit: &Arc<Kit>, session: Option<Session>, response: &mut Response<R>) {
    // A switching connection gets no tokens (row M05).
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let carried = Carried::take(kit, response);
    let headers = response.headers_mut();
    let known = session.is_some();
    let change = session.and_then(Session::finish).filter(|_| !switching);
    if known && change.is_none() && carried.is_none() && transport::private_if_plain(headers) {
        return;
    }
    // A sign-in of the app's own wrote them; the session that it began is the one that counts.
    if transport::strip_foreign(headers, &kit.config.cookies) > 0 && carried.is_none() {
        #[cfg(feature = "tracing")]
        tracing::error!("a handler set a cookie by a name of the session's: it was dropped");
    }
    if let Some(carried) = carried.filter(|_| !switching) {
        return carried.write(headers);
    }
    match change {
        Some(change) => {
            if change.write(headers, &kit.config.cookies, kit.db.now()).is_err() {
                #[cfg(feature = "tracing")]
                tracing::error!("a token can't stand in a header: nothing was sent to the client");
            }
        }
        None if known => transport::private(headers),
        // What an optional mount lets pass depends on the credentials too.
        None => transport::vary(headers),
    }
}
