//! The seam through which the crate sends requests of its own.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};

use super::error::BoxError;

#[cfg(feature = "http-client")]
mod reqwest;
#[cfg(feature = "http-client")]
pub use self::reqwest::Reqwest;

/// Sends requests of the crate's own: to a provider of SMS, for one. `Reqwest` (feature `http-client`) is one.
///
/// What an implementation owes (row V11): certificates and host names are verified; no redirect is followed; a body of
/// more than 64 KiB is an error, before it is in memory; connecting takes at most 5 s and all of it 15 s. Nothing
/// of a request is logged, as there are codes and credentials in it.
///
/// ```
/// use bytes::Bytes;
/// use tower_mfa::{config::HttpClient, ident::BoxError};
///
/// /// Takes every message, for a test.
/// struct Created;
///
/// impl HttpClient for Created {
///     async fn send(&self, _request: http::Request<Bytes>) -> Result<http::Response<Bytes>, BoxError> {
///         Ok(http::Response::builder().status(201).body(Bytes::new())?)
///     }
/// }
/// ```
pub trait HttpClient: Send + Sync + 'static {
    /// Sends one request and reads the whole answer.
    ///
    /// # Errors
    /// If there is no answer, or none that may be read; an error status is an answer.
    fn send(&self, request: Request<Bytes>)
    -> impl Future<Output = Result<Response<Bytes>, BoxError>> + Send;
}

/// Any client, chosen at run time.
#[derive(Clone)]
pub(crate) struct AnyHttpClient(Arc<dyn Erased>);

impl AnyHttpClient {
    pub(crate) fn new(client: impl HttpClient) -> Self {
        Self(Arc::new(client))
    }

    pub(crate) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, BoxError> {
        self.0.send_boxed(request).await
    }
}

impl fmt::Debug for AnyHttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyHttpClient").finish_non_exhaustive()
    }
}

type Boxed<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, BoxError>> + Send + 'a>>;

/// The twin of [`HttpClient`] that can be `dyn`.
trait Erased: Send + Sync {
    fn send_boxed(&self, request: Request<Bytes>) -> Boxed<'_>;
}

impl<C: HttpClient> Erased for C {
    fn send_boxed(&self, request: Request<Bytes>) -> Boxed<'_> {
        Box::pin(self.send(request))
    }
}

/// Whether a request may go there: by TLS; or, where `loopback` was chosen, by plain HTTP to this very machine.
pub(crate) fn is_safe(uri: &http::Uri, loopback: bool) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let here = || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let named = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    let safe = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => loopback && here(),
        _ => false,
    };
    safe && named && !host.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_v11_by_tls_or_to_this_machine() {
        for (uri, safe) in [
            ("https://api.twilio.example/x", true),
            ("http://127.0.0.1:1/", true),
            ("http://[::1]:1/", true),
            ("http://localhost:1/", false),
            ("http://api.twilio.example/", false),
            ("http://10.0.0.1/", false),
            ("https://user@api.twilio.example/", false),
            ("ftp://127.0.0.1/", false),
            ("/x", false),
        ] {
            let uri = uri.parse().unwrap();
            assert_eq!(is_safe(&uri, true), safe, "{uri}");
            assert_eq!(is_safe(&uri, false), safe && uri.scheme_str() == Some("https"), "{uri}");
        }
    }
}
