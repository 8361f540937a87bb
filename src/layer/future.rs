//! The layer's future: refused, asking, or running.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::Service;

use super::{MfaBody, Verified, refuse::Answer, sign_in::Carried, verified::Told};
use crate::session::{Kit, Session, transport};

pub(super) type Asking = Pin<Box<dyn Future<Output = Result<Verified, Box<Answer>>> + Send>>;

pin_project! {
    /// The future of [`MfaService`](super::MfaService).
    pub struct MfaFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        // Beside the rest and not in a variant of it: it is large, and would be moved once more into its place.
        #[pin]
        inner: Option<S::Future>,
        rest: Rest<S, B>,
    }
}

/// What is left to do: before the inner future is there, or after it.
enum Rest<S, B> {
    Nothing,
    Refuse(Box<Answer>),
    /// To ask first, then to go on with the request. Boxed, so that the rare state doesn't size the common one.
    Ask(Box<(Asking, S, Request<B>)>),
    /// What the answer's head says beside what the handler says.
    Tell(Told),
}

impl<S, B> MfaFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) fn refused(answer: Box<Answer>) -> Self {
        Self { inner: None, rest: Rest::Refuse(answer) }
    }

    #[inline]
    pub(super) fn running(service: &mut S, request: Request<B>, told: Told) -> Self {
        Self { inner: Some(service.call(request)), rest: Rest::Tell(told) }
    }

    pub(super) fn asking(asking: Asking, ready: S, request: Request<B>) -> Self {
        Self { inner: None, rest: Rest::Ask(Box::new((asking, ready, request))) }
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
            if let Some(inner) = this.inner.as_mut().as_pin_mut() {
                let mut response = ready!(inner.poll(cx))?;
                match mem::replace(this.rest, Rest::Nothing) {
                    Rest::Tell(Told::Session(session)) => write(session, &mut response),
                    Rest::Tell(Told::NoSession(kit)) => write_nobody(&kit, &mut response),
                    _ => {}
                }
                return Poll::Ready(Ok(response.map(MfaBody::inner)));
            }
            if let Rest::Ask(asking) = this.rest {
                let found = ready!(asking.0.as_mut().poll(cx));
                match (found, mem::replace(this.rest, Rest::Nothing)) {
                    (Ok(verified), Rest::Ask(asking)) => {
                        let (_, mut service, mut request) = *asking;
                        let told = verified.told();
                        request.extensions_mut().insert(verified);
                        this.inner.set(Some(service.call(request)));
                        *this.rest = Rest::Tell(told);
                    }
                    (Err(answer), _) => *this.rest = Rest::Refuse(answer),
                    (Ok(_), _) => {}
                }
                continue;
            }
            let Rest::Refuse(answer) = mem::replace(this.rest, Rest::Nothing) else { return Poll::Pending };
            return Poll::Ready(Ok(answer.into_response()));
        }
    }
}

/// One writer, one moment: what the session has to tell the client goes into the head.
fn write<R>(session: Session, response: &mut Response<R>) {
    // A switching connection gets no tokens (row M05).
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let carried = Carried::take(session.kit(), response);
    let headers = response.headers_mut();
    let (kit, change) = session.finish();
    let change = change.filter(|_| !switching);
    if change.is_none() && carried.is_none() && transport::private_if_plain(headers) {
        return;
    }
    drop_foreign(&kit, headers, carried.as_ref());
    // A sign-in of the app's own wrote them; the session that it began is the one that counts.
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
        None => transport::private(headers),
    }
}

/// What an optional mount lets pass depends on the credentials too.
fn write_nobody<R>(kit: &Arc<Kit>, response: &mut Response<R>) {
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let carried = Carried::take(kit, response);
    let headers = response.headers_mut();
    drop_foreign(kit, headers, carried.as_ref());
    match carried.filter(|_| !switching) {
        Some(carried) => carried.write(headers),
        None => transport::vary(headers),
    }
}

/// Cookies by our names that no sign-in of the app's own wrote go (row C12).
fn drop_foreign(kit: &Kit, headers: &mut HeaderMap, carried: Option<&Carried>) {
    if transport::strip_foreign(headers, &kit.config.cookies) > 0 && carried.is_none() {
        #[cfg(feature = "tracing")]
        tracing::error!("a handler set a cookie by a name of the session's: it was dropped");
    }
}
