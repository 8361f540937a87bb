//! A real provider beside the test, `tests/servers/provider.mjs`, and a browser that goes there and comes back.

#[cfg(feature = "http-client")]
use std::collections::BTreeMap;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
#[cfg(feature = "http-client")]
use http::{Method, header};
use http::{Request, Response};
use serde_json::{Value, json};
#[cfg(feature = "http-client")]
use tower_mfa::config::Reqwest;
use tower_mfa::{
    config::HttpClient,
    factor::{OAuth2Endpoints, Provider, ProviderClient, ThirdParty},
    ident::{BoxError, Secret},
};

#[cfg(feature = "http-client")]
use super::servers::Server;
use super::{Answer, Browser};

/// A provider that answers at once, whatever it is asked: Carol is who comes. It counts what it is asked.
#[derive(Clone, Default)]
pub struct AtOnce(pub Arc<AtomicUsize>);

impl HttpClient for AtOnce {
    async fn send(&self, _: Request<Bytes>) -> Result<Response<Bytes>, BoxError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let tokens = json!({ "access_token": "a", "token_type": "Bearer" });
        let mut said = json!({ "sub": "carol", "email": "carol@shop.example", "email_verified": true });
        said.as_object_mut().unwrap().extend(tokens.as_object().unwrap().clone());
        Ok(Response::new(Bytes::from(said.to_string())))
    }
}

/// An app's settings with it.
pub fn at_once() -> ThirdParty {
    AtOnce::default().settings()
}

impl AtOnce {
    pub fn settings(&self) -> ThirdParty {
        let at = |path: &str| format!("https://id.example/{path}");
        let endpoints = OAuth2Endpoints::new(at("authorise"), at("token"), at("user"));
        let client = ProviderClient::new("shop", Secret::new(SECRET.to_owned()));
        ThirdParty::new(self.clone()).provider(Provider::oauth2("loopback", "Loopback", endpoints, client))
    }
}

/// Where people come back to: a page of the app's website.
pub const CALLBACK: &str = "https://shop.test/auth/callback/loopback";
pub const SECRET: &str = "a secret of the shop's";

/// A provider in a process of its own, which ends with this.
#[cfg(feature = "http-client")]
pub struct ProviderServer(Server);

#[cfg(feature = "http-client")]
impl ProviderServer {
    /// With the clients `shop`, `other` and, without a secret, `app`.
    pub async fn start(mut settings: Value) -> Self {
        settings["port"] = json!(0);
        let client =
            |id: &str| json!({ "client_id": id, "client_secret": SECRET, "redirect_uris": [CALLBACK] });
        settings["clients"] = json!([client("shop"), client("other"), {
            "client_id": "app",
            "redirect_uris": [CALLBACK],
            "token_endpoint_auth_method": "none",
        }]);
        if settings.get("accounts").is_none() {
            settings["accounts"] = json!({
                "alice": { "email": "alice@shop.example", "email_verified": true },
                "bob": { "email": "bob@shop.example", "email_verified": "true" },
                "mallory": {},
            });
        }
        Self(Server::start("provider.mjs", &settings).await)
    }

    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.0.port)
    }

    /// By OpenID Connect.
    pub fn oidc(&self) -> Provider {
        let client = ProviderClient::new("shop", Secret::new(SECRET.to_owned()));
        Provider::oidc("loopback", "Loopback", self.issuer(), client).insecure_loopback()
    }

    /// The same by OAuth 2 alone.
    pub fn oauth2(&self) -> Provider {
        let at = |path: &str| format!("{}{path}", self.issuer());
        let endpoints = OAuth2Endpoints::new(at("/auth"), at("/token"), at("/user")).with_s256();
        let client = ProviderClient::new("shop", Secret::new(SECRET.to_owned()));
        Provider::oauth2("loopback", "Loopback", endpoints, client)
            .scopes(["email"])
            .fields("/id", "/email", Some("/email_verified"))
            .insecure_loopback()
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.0.told.lock().unwrap().iter().filter(|event| event["path"] == path).count()
    }

    /// Changes what it says of somebody.
    pub async fn set_account(&self, id: &str, claims: Value) {
        let request = Request::put(format!("{}/accounts/{id}", self.issuer()));
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let body = Bytes::from(claims.to_string());
        assert_eq!(fetch(request.body(body).unwrap()).await.status(), 200);
    }

    /// Somebody signs in there, from a URL that the app gave: the query with which they come back.
    pub async fn visit(&self, url: &str, who: &str) -> Value {
        let mut cookies = BTreeMap::new();
        let mut next = format!("{url}&state=of-the-browser&login_hint={who}");
        for _ in 0..10 {
            let jar: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let request = Request::get(&next).header(header::COOKIE, jar.join("; "));
            let answer = fetch(request.body(Bytes::new()).unwrap()).await;
            for cookie in answer.headers().get_all(header::SET_COOKIE) {
                let (name, value) =
                    cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
                cookies.insert(name.to_owned(), value.to_owned());
            }
            let location = answer.headers().get(header::LOCATION);
            let text = || String::from_utf8_lossy(answer.body()).into_owned();
            let location = location.unwrap_or_else(|| panic!("{}", text())).to_str().unwrap();
            if let Some(query) = location.strip_prefix(CALLBACK) {
                let pairs = query.trim_start_matches('?').split('&').filter_map(|pair| pair.split_once('='));
                return pairs
                    .map(|(name, value)| {
                        (name.to_owned(), json!(value.replace("%3A", ":").replace("%2F", "/")))
                    })
                    .collect();
            }
            next = if location.starts_with('/') {
                format!("{}{location}", self.issuer())
            } else {
                location.to_owned()
            };
        }
        panic!("it never ends");
    }

    /// Somebody signs in at the provider from the app's own URL: the body of `POST /signinup`.
    pub async fn came_back(&self, browser: &mut Browser, who: &str) -> Value {
        let begun = begin(browser).await.ok();
        let query = self.visit(begun["urlWithQueryParams"].as_str().unwrap(), who).await;
        assert_eq!(query["state"], "of-the-browser");
        returned(&begun, query)
    }

    /// The whole of it.
    pub async fn sign_in(&self, browser: &mut Browser, who: &str) -> Answer {
        let body = self.came_back(browser, who).await;
        browser.post(&path(browser, "/signinup"), body).await
    }
}

fn path(browser: &Browser, route: &str) -> String {
    browser.tenant.as_ref().map_or_else(|| format!("/auth{route}"), |tenant| format!("/auth/{tenant}{route}"))
}

/// Asks where to go.
pub async fn begin(browser: &mut Browser) -> Answer {
    let query = format!("thirdPartyId=loopback&redirectURIOnProviderDashboard={CALLBACK}");
    browser.get(&format!("{}?{query}", path(browser, "/authorisationurl"))).await
}

/// What the SDK posts once somebody is back.
pub fn returned(begun: &Value, query: Value) -> Value {
    let mut info = json!({ "redirectURIOnProviderDashboard": CALLBACK, "redirectURIQueryParams": query });
    if let Some(verifier) = begun.get("pkceCodeVerifier") {
        info["pkceCodeVerifier"] = verifier.clone();
    }
    json!({ "thirdPartyId": "loopback", "redirectURIInfo": info, "shouldTryLinkingWithSessionUser": false })
}

/// Sends a request, and follows nothing.
#[cfg(feature = "http-client")]
pub async fn fetch(request: Request<Bytes>) -> Response<Bytes> {
    Reqwest::new().unwrap().send(request).await.unwrap()
}

/// A form that a foreign page posts.
#[cfg(feature = "http-client")]
pub fn form_post(path: &str, body: &str) -> Request<axum::body::Body> {
    Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::ORIGIN, "https://appleid.apple.com")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(axum::body::Body::from(body.to_owned()))
        .unwrap()
}
