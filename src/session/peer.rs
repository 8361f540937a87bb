//! Who sent a request: what the server put into it, as plain values.

use std::{fmt, net::IpAddr, sync::Arc};

use http::{Extensions, HeaderMap, header};

use self::proxies::TrustedProxies;
use crate::policy::RequestFacts;

pub(crate) mod proxies;

type Tell = dyn Fn(&Extensions, &HeaderMap) -> Option<IpAddr> + Send + Sync;

/// How the app tells who sent a request; by default it doesn't.
#[derive(Clone, Default)]
pub(crate) struct Peer {
    tell: Option<Arc<Tell>>,
    proxies: Option<TrustedProxies>,
}

impl Peer {
    pub(crate) fn told(
        self,
        tell: impl Fn(&Extensions, &HeaderMap) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        Self { tell: Some(Arc::new(tell)), ..self }
    }

    pub(crate) fn behind(self, proxies: TrustedProxies) -> Self {
        Self { proxies: Some(proxies), ..self }
    }

    /// Whether there is an address for the proxies to speak for.
    pub(crate) fn is_whole(&self) -> bool {
        self.tell.is_some() || self.proxies.is_none()
    }

    /// Whether the app says where a connection came from.
    pub(crate) fn is_told(&self) -> bool {
        self.tell.is_some()
    }

    /// What policies may know of a request.
    pub(crate) fn facts(&self, extensions: &Extensions, headers: &HeaderMap) -> RequestFacts {
        let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let told = self.tell.as_ref().and_then(|tell| tell(extensions, headers));
        RequestFacts {
            peer: told.map(|address| match &self.proxies {
                Some(proxies) => proxies.client(address, headers),
                None => address,
            }),
            user_agent: agent.map(|text| text.chars().take(256).collect()),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("told", &self.tell.is_some()).field("proxies", &self.proxies).finish()
    }
}
