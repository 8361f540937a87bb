//! Who sent a request: what the server put into it, as plain values.

use std::{fmt, net::IpAddr, sync::Arc};

use http::{Extensions, HeaderMap, header};

use crate::policy::RequestFacts;

type Tell = dyn Fn(&Extensions, &HeaderMap) -> Option<IpAddr> + Send + Sync;

/// How the app tells who sent a request; by default it doesn't.
#[derive(Clone, Default)]
pub(crate) struct Peer(Option<Arc<Tell>>);

impl Peer {
    pub(crate) fn new(
        tell: impl Fn(&Extensions, &HeaderMap) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(tell)))
    }

    /// What policies may know of a request.
    pub(crate) fn facts(&self, extensions: &Extensions, headers: &HeaderMap) -> RequestFacts {
        let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        RequestFacts {
            peer: self.0.as_ref().and_then(|tell| tell(extensions, headers)),
            user_agent: agent.map(|text| text.chars().take(256).collect()),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("told", &self.0.is_some()).finish()
    }
}
