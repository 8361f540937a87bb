//! Pages that people open: where they are sent in place of a refusal that only a script can read.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
    uri::PathAndQuery,
};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::MfaBody;
use crate::{base::percent_encoded, config::ConfigError, session::SessionDenied};

const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// A longer address isn't remembered: browsers and proxies have bounds of their own.
const LONGEST: usize = 1024;

/// Sends people whose page is refused to a page of the app's that can mend it: 303 in place of 401 or 403.
///
/// For apps that make their pages on the server. A script reads a refusal and knows what to do; a person who opens a
/// page an hour later, or with a factor missing, would see JSON. It goes around the whole app, once:
///
/// ```
/// # use axum::{Router, response::Html, routing::get};
/// # use tower_mfa::{Mfa, MfaLayer, api::ApiLayer, layer::PageRedirect};
/// # fn app(mfa: Mfa) -> Result<Router, tower_mfa::config::ConfigError> {
/// let pages = Router::new()
///     .route("/orders", get(async || "your orders"))
///     .layer(MfaLayer::required(mfa.clone()))
///     .route("/continue", get(async || Html("…")));
/// Ok(pages.layer((PageRedirect::to("/continue")?, ApiLayer::new(mfa))))
/// # }
/// ```
///
/// The page is to refresh the session by `POST /auth/session/refresh`, ask for what is missing, or lead to the sign-in;
/// `examples/existing_app/code.html` does. Where the person wanted to go is in `redirectToPath`, as the prebuilt screens
/// of the SuperTokens SDKs read it: a path of this app with its query. Whoever goes there by script should check that it
/// still is one (`new URL(path, location.origin).origin === location.origin`), as anybody can write such a link.
///
/// A page is what a browser navigates to (`Sec-Fetch-Mode: navigate`; where a browser doesn't say, what accepts
/// `text/html`) by GET. Other requests get the refusal as ever: scripts, API clients, forms that are posted. So does the
/// page itself, in case it lies behind a mount.
#[derive(Clone)]
#[must_use]
pub struct PageRedirect {
    page: Arc<PathAndQuery>,
}

impl PageRedirect {
    /// To this page: a path of this app, such as `/continue`, perhaps with a query.
    ///
    /// # Errors
    /// If it isn't a path from the root.
    pub fn to(page: &str) -> Result<Self, ConfigError> {
        match page.parse::<PathAndQuery>() {
            Ok(path) if is_local(page) => Ok(Self { page: Arc::new(path) }),
            _ => Err(ConfigError::one("PageRedirect::to takes a path from the root, such as /continue")),
        }
    }

    /// Where somebody is sent who opens this address.
    fn location(&self, uri: &Uri) -> Option<HeaderValue> {
        if uri.path() == self.page.path() {
            return None;
        }
        let mut location = self.page.to_string();
        let wanted = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if is_local(wanted) && wanted.len() <= LONGEST {
            location.push(if self.page.query().is_some() { '&' } else { '?' });
            location.push_str("redirectToPath=");
            location.push_str(&percent_encoded(wanted));
        }
        HeaderValue::try_from(location).ok()
    }
}

impl fmt::Debug for PageRedirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PageRedirect").field(&self.page).finish()
    }
}

/// Whether a browser reads it as a path here, and not as another host.
fn is_local(path: &str) -> bool {
    path.starts_with('/') && !path.starts_with("//") && !path.contains('\\')
}

/// Whether a person opens a page.
fn is_page<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.method() == Method::GET
        && match headers.get(FETCH_MODE) {
            Some(mode) => mode == "navigate",
            None => headers
                .get_all(ACCEPT)
                .iter()
                .filter_map(|accepted| accepted.to_str().ok())
                .flat_map(|accepted| accepted.split(','))
                .any(|kind| kind.split(';').next().unwrap_or_default().trim() == "text/html"),
        }
}

impl<S> Layer<S> for PageRedirect {
    type Service = PageRedirectService<S>;

    fn layer(&self, inner: S) -> PageRedirectService<S> {
        PageRedirectService { layer: self.clone(), inner }
    }
}

/// What [`PageRedirect`] makes of a service.
#[derive(Clone, Debug)]
pub struct PageRedirectService<S> {
    layer: PageRedirect,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for PageRedirectService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Response = Response<MfaBody<R>>;
    type Error = S::Error;
    type Future = PageRedirectFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> PageRedirectFuture<S::Future> {
        let location = if is_page(&request) { self.layer.location(request.uri()) } else { None };
        PageRedirectFuture { inner: self.inner.call(request), location }
    }
}

pin_project! {
    /// The future of [`PageRedirectService`].
    pub struct PageRedirectFuture<F> {
        #[pin]
        inner: F,
        location: Option<HeaderValue>,
    }
}

impl<F> fmt::Debug for PageRedirectFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageRedirectFuture").finish_non_exhaustive()
    }
}

impl<F, R, E> Future for PageRedirectFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<MfaBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        // A handler's own 401 or 403 carries no such mark, and stays.
        let refused = response.extensions().get::<SessionDenied>().is_some();
        let Some(location) = this.location.take().filter(|_| refused) else {
            return Poll::Ready(Ok(response.map(MfaBody::inner)));
        };
        let mut response = response.map(|_| MfaBody::default());
        *response.status_mut() = StatusCode::SEE_OTHER;
        let headers = response.headers_mut();
        headers.remove(CONTENT_TYPE);
        headers.remove(CONTENT_LENGTH);
        headers.insert(LOCATION, location);
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_people_are_sent() {
        let to = |page: &str, uri: &str| {
            let location = PageRedirect::to(page).unwrap().location(&uri.parse().unwrap());
            location.map(|location| location.to_str().unwrap().to_owned())
        };
        let long = format!("/{}", "x".repeat(LONGEST));
        for (page, uri, location) in [
            ("/continue", "/", Some("/continue?redirectToPath=%2F")),
            ("/continue", "/a?b=c&d=%20", Some("/continue?redirectToPath=%2Fa%3Fb%3Dc%26d%3D%2520")),
            ("/continue?by=page", "/a", Some("/continue?by=page&redirectToPath=%2Fa")),
            ("/continue", "https://shop.example/a?b", Some("/continue?redirectToPath=%2Fa%3Fb")),
            // What a browser would take for another host is forgotten, and so is what is too long.
            ("/continue", "//evil.example/a", Some("/continue")),
            ("/continue", &long, Some("/continue")),
            // The page itself.
            ("/continue", "/continue", None),
            ("/continue?by=page", "/continue?redirectToPath=%2F", None),
        ] {
            assert_eq!(to(page, uri).as_deref(), location, "{page} {uri}");
        }
        for page in ["", "continue", "//evil.example", "https://evil.example/", "/\\evil.example", "/a b"] {
            assert!(PageRedirect::to(page).is_err(), "{page}");
        }
    }

    #[test]
    fn what_is_a_page() {
        for (method, mode, accept, page) in [
            (Method::GET, Some("navigate"), None, true),
            (Method::GET, Some("navigate"), Some("*/*"), true),
            (Method::POST, Some("navigate"), Some("text/html"), false),
            (Method::HEAD, Some("navigate"), Some("text/html"), false),
            (Method::GET, Some("cors"), Some("text/html"), false),
            (Method::GET, Some("no-cors"), Some("text/html"), false),
            (Method::GET, None, Some("application/xhtml+xml, text/html;q=0.9"), true),
            (Method::GET, None, Some("text/html"), true),
            (Method::GET, None, Some("*/*"), false),
            (Method::GET, None, Some("text/htmlx"), false),
            (Method::GET, None, None, false),
        ] {
            let mut request = Request::builder().method(method.clone());
            for (name, value) in [(FETCH_MODE, mode), (ACCEPT, accept)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            assert_eq!(is_page(&request.body(()).unwrap()), page, "{method} {mode:?} {accept:?}");
        }
    }
}
