//! The client that comes with the crate.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};

use super::{HttpClient, is_safe};
use crate::base::error::{BoxError, ConfigError};

const CONNECT: Duration = Duration::from_secs(5);
const TOTAL: Duration = Duration::from_secs(15);
const LONGEST: usize = 64 * 1024;

/// A client by reqwest, as [`HttpClient`] wants it: https, or http to the loopback address; no redirects, answers of
/// at most 64 KiB, 5 s to connect and 15 s in all. Certificates are verified as the system does it.
#[derive(Clone)]
pub struct Reqwest(reqwest::Client);

impl Reqwest {
    /// A client with connections of its own.
    ///
    /// # Errors
    /// If TLS can't be set up.
    pub fn new() -> Result<Self, ConfigError> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(CONNECT)
            .timeout(TOTAL)
            .build();
        client.map(Self).map_err(|error| ConfigError::one(format!("no HTTP client can be made: {error}")))
    }
}

impl HttpClient for Reqwest {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, BoxError> {
        if !is_safe(request.uri(), true) {
            return Err("requests go by https, or to the loopback address".into());
        }
        // The URL may name an account: it stays out of the error.
        let sent = self.0.execute(request.try_into().map_err(reqwest::Error::without_url)?).await;
        let mut answer = sent.map_err(reqwest::Error::without_url)?;
        let mut response = Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            headers.extend(answer.headers().clone());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
            if body.len().saturating_add(chunk.len()) > LONGEST {
                return Err("the answer is longer than 64 KiB".into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(response.body(body.freeze())?)
    }
}

impl fmt::Debug for Reqwest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reqwest").finish_non_exhaustive()
    }
}
