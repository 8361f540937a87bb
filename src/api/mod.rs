//! The routes under the base path: what the SuperTokens browser SDKs speak.
//!
//! [`ApiLayer`] answers requests to its own routes and hands everything else to the inner service untouched. Mount it
//! outside of [`MfaLayer`](crate::MfaLayer), and CORS outside of both.
//!
//! Answers are those of FDI 4.2, whatever version a client names. `rid` counts only at `/signup/email/exists`, which
//! two recipes shared once: it asks for users with codes if it is `passwordless` or, as SDKs said that combined
//! recipes, `thirdpartypasswordless`; by any other name, `thirdpartyemailpassword` among them, for users with a
//! password. A login method is `emailpassword`, `thirdparty` or `passwordless`, never by a combined name; a factor is
//! one of [`FactorId`](crate::FactorId)'s.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use self::{
    call::Call,
    reply::Reply,
    route::{Endpoint, Route},
};
use crate::{
    base::error::BoxError,
    engine::Mfa,
    layer::{body::MfaBody, cors},
};

mod call;
mod keys;
mod mfa;
#[cfg(feature = "password")]
mod password;
mod passwordless;
mod reply;
#[cfg(feature = "password")]
mod reset;
mod route;
mod session;
mod tenant;
#[cfg(feature = "third-party")]
mod third_party;
mod ticket;
mod verification;
mod wire;

/// The longest request body (row M10), and how long it may take to arrive.
const BODY: usize = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves the crate's own routes in front of a service.
///
/// A route is a method and a path. Any other request goes to the inner service, and its answer is the client's: so does
/// `GET /auth/signin`, where only `POST` is a route, and a route that the app doesn't have. The app may serve these
/// itself, so the layer says neither 404 nor 405 in its place.
#[derive(Clone, Debug)]
#[must_use]
pub struct ApiLayer {
    mfa: Mfa,
}

impl ApiLayer {
    /// Serves the routes of `mfa`.
    pub fn new(mfa: Mfa) -> Self {
        Self { mfa }
    }
}

impl<S> Layer<S> for ApiLayer {
    type Service = ApiService<S>;

    fn layer(&self, inner: S) -> ApiService<S> {
        ApiService { mfa: self.mfa.clone(), inner }
    }
}

/// What [`ApiLayer`] makes of a service.
#[derive(Clone)]
pub struct ApiService<S> {
    mfa: Mfa,
    inner: S,
}

impl<S> fmt::Debug for ApiService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiService").finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for ApiService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
{
    type Response = Response<MfaBody<R>>;
    type Error = S::Error;
    type Future = ApiFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> ApiFuture<S::Future> {
        cors::check_order(&self.mfa.desk.kit, &request);
        let base = &self.mfa.desk.kit.config.app.base_path;
        let state = match route::find(base, request.method(), request.uri().path()) {
            Route::Ours(endpoint, _) if !endpoint.is_served(&self.mfa.desk.kit.config) => {
                State::Inner { future: self.inner.call(request) }
            }
            Route::Inner => State::Inner { future: self.inner.call(request) },
            Route::NoTenant => State::Ours { future: Box::pin(std::future::ready(reply::no_tenant())) },
            Route::Ours(endpoint, tenant) => {
                let (parts, body) = request.into_parts();
                let mfa = self.mfa.clone();
                let future = async move {
                    match read(endpoint, &parts, body).await {
                        Ok(body) => serve(mfa, endpoint, tenant, parts, body).await,
                        Err(reply) => reply,
                    }
                };
                State::Ours { future: Box::pin(future) }
            }
        };
        ApiFuture { state }
    }
}

pin_project! {
    /// The future of [`ApiService`].
    pub struct ApiFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Inner { #[pin] future: F },
        Ours { future: Pin<Box<dyn Future<Output = Reply> + Send>> },
    }
}

impl<F> fmt::Debug for ApiFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiFuture").finish_non_exhaustive()
    }
}

impl<F, R, E> Future for ApiFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<MfaBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Inner { future } => {
                let response = ready!(future.poll(cx))?;
                Poll::Ready(Ok(response.map(MfaBody::inner)))
            }
            StateProj::Ours { future } => Poll::Ready(Ok(ready!(future.as_mut().poll(cx)).into_response())),
        }
    }
}

/// Reads the body within its bounds (row M10).
async fn read<B>(endpoint: Endpoint, parts: &Parts, body: B) -> Result<Bytes, Reply>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let collected = tokio::time::timeout(PATIENCE, Limited::new(body, BODY).collect()).await;
    let bytes = match collected {
        Err(_) => return Err(Reply::message(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(Reply::message(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"));
        }
        Ok(Err(_)) => return Err(Reply::message(StatusCode::BAD_REQUEST, "the body could not be read")),
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    // A form or a text body needs no preflight, so a foreign page could send one (row X05).
    let json = parts.headers.get(http::header::CONTENT_TYPE).is_some_and(|value| {
        let essence = value.as_bytes().split(|b| *b == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    });
    if !bytes.is_empty() && !json && endpoint != Endpoint::AppleCallback {
        return Err(Reply::message(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json"));
    }
    Ok(bytes)
}

/// From here on the work runs to its end, whatever becomes of the caller (row M12).
async fn serve(
    mfa: Mfa,
    endpoint: Endpoint,
    tenant: crate::ident::TenantId,
    parts: Parts,
    body: Bytes,
) -> Reply {
    let kit = mfa.desk.kit.clone();
    #[cfg(feature = "third-party")]
    if endpoint == Endpoint::AppleCallback {
        let kind = parts.headers.get(http::header::CONTENT_TYPE);
        return third_party::apple_callback(&mfa, kind, &body).finish(&kit);
    }
    let work = async move {
        mfa.desk.kit.ready().await?;
        Ok(match Call::new(&mfa, tenant, &parts, &body) {
            Ok(call) => dispatch(endpoint, &call).await,
            Err(reply) => reply,
        })
    };
    kit.clone().run(work).await.unwrap_or_else(|error| Reply::failed(&error)).finish(&kit)
}

async fn dispatch(endpoint: Endpoint, call: &Call<'_>) -> Reply {
    match endpoint {
        Endpoint::Refresh => session::refresh(call).await,
        Endpoint::SignOut => session::sign_out(call).await,
        Endpoint::MfaInfo => mfa::info(call).await,
        Endpoint::CreateCode => passwordless::create(call).await,
        Endpoint::ResendCode => passwordless::resend(call).await,
        Endpoint::ConsumeCode => passwordless::consume(call).await,
        #[cfg(feature = "password")]
        Endpoint::SignIn => password::sign_in(call).await,
        #[cfg(feature = "password")]
        Endpoint::SignUp => password::sign_up(call).await,
        #[cfg(feature = "password")]
        Endpoint::AskReset => reset::ask(call).await,
        #[cfg(feature = "password")]
        Endpoint::Reset => reset::reset(call).await,
        // None of these is served without its feature.
        #[cfg(not(feature = "password"))]
        Endpoint::SignIn | Endpoint::SignUp | Endpoint::AskReset | Endpoint::Reset => reply::no_tenant(),
        Endpoint::AskVerification => verification::ask(call).await,
        Endpoint::Verify => verification::verify(call).await,
        Endpoint::IsVerified => verification::is_verified(call).await,
        Endpoint::PasswordExists | Endpoint::CodeExists | Endpoint::PhoneExists | Endpoint::OldExists => {
            tenant::exists(endpoint, call).await
        }
        #[cfg(feature = "third-party")]
        Endpoint::AuthorisationUrl => third_party::authorisation_url(call).await,
        #[cfg(feature = "third-party")]
        Endpoint::ThirdPartySignInUp => third_party::sign_in_up(call).await,
        // It never comes here: a form of another site's is read before the rest is.
        Endpoint::AppleCallback => reply::no_tenant(),
        #[cfg(not(feature = "third-party"))]
        Endpoint::AuthorisationUrl | Endpoint::ThirdPartySignInUp => reply::no_tenant(),
        Endpoint::LoginMethods => tenant::login_methods(call).await,
        Endpoint::Jwks => keys::jwks(call),
        Endpoint::OpenIdConfiguration => keys::openid_configuration(call),
    }
}
