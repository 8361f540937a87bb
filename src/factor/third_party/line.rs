//! The way to a provider: by https (or to this machine, where the provider was set so), 10 s and 64 KiB at most.

use std::{future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use http::header;
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};

use super::{may_ask, talk::Trouble};
use crate::base::http_client::AnyHttpClient;

const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST: usize = 64 * 1024;

/// The way to a provider, as the library wants it.
pub(super) struct Line {
    pub(super) http: AnyHttpClient,
    pub(super) loopback: bool,
}

impl<'c> AsyncHttpClient<'c> for Line {
    type Error = Trouble;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Trouble>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.ask(request))
    }
}

impl Line {
    pub(super) async fn ask(&self, request: HttpRequest) -> Result<HttpResponse, Trouble> {
        let (mut parts, body) = request.into_parts();
        if !may_ask(&parts.uri, self.loopback) {
            return Err(Trouble::down("an address may not be asked"));
        }
        // A name can be anybody's: what it means is settled here.
        if let (Some(uri), Some(authority)) = (by_address(&parts.uri), parts.uri.authority()) {
            let host = header::HeaderValue::from_str(authority.as_str());
            parts.headers.insert(header::HOST, host.map_err(|_| Trouble::down("it has no host"))?);
            parts.uri = uri;
        }
        // GitHub answers nobody without a name.
        parts.headers.insert(header::USER_AGENT, header::HeaderValue::from_static("tower-mfa"));
        let sent = self.http.send(http::Request::from_parts(parts, Bytes::from(body)));
        let answer = match tokio::time::timeout(PATIENCE, sent).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => return Err(Trouble::down("it can't be reached")),
            Err(_) => return Err(Trouble::down("it took too long")),
        };
        if answer.body().len() > LONGEST {
            return Err(Trouble::down("its answer is too long"));
        }
        Ok(answer.map(|body| body.to_vec()))
    }
}

/// What is asked for `http://localhost`: this machine, by its address.
pub(super) fn by_address(uri: &http::Uri) -> Option<http::Uri> {
    let port = uri.authority()?.as_str().strip_prefix("localhost")?;
    if uri.scheme_str() != Some("http") || !(port.is_empty() || port.starts_with(':')) {
        return None;
    }
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(format!("127.0.0.1{port}").parse().ok()?);
    http::Uri::from_parts(parts).ok()
}
