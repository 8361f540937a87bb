//! Providers of a tenant's own beside the app's: whose word counts where, and that one which hangs, or is set otherwise,
//! is nobody else's trouble. Rows L06 and N07.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, header};
use serde_json::{Value, json};
use tower_mfa::{
    account::User,
    config::HttpClient,
    factor::{OAuth2Endpoints, Provider, ProviderClient, ThirdParty},
    ident::{BoxError, Email, Secret, TenantId, UserId},
    policy::{Link, LinkContext, LinkPolicy, PolicyError},
};

use crate::{
    spy::{ALICE, BOB},
    support::{
        Answer, Browser, Mode, TestApp,
        provider::{CALLBACK, returned},
    },
};

const PUBLIC: TenantId = TenantId::PUBLIC;
const EVIL: &str = "alice@mallory.example";

/// Providers by their hosts. A code is the name of whoever comes; one that is silent never answers.
#[derive(Clone, Default)]
struct Hosts(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// By host, what it says of each.
    said: BTreeMap<(String, String), Value>,
    silent: BTreeSet<String>,
    asked: Vec<(String, String)>,
    /// Whether each token request had the client's secret in its header.
    by_header: Vec<bool>,
}

impl Hosts {
    fn set(&self, host: &str, who: &str, email: &str, verified: bool) {
        let said = json!({ "sub": who, "email": email, "email_verified": verified });
        self.0.lock().unwrap().said.insert((host.to_owned(), who.to_owned()), said);
    }

    fn silence(&self, host: &str) {
        self.0.lock().unwrap().silent.insert(host.to_owned());
    }

    fn asked(&self, host: &str, path: &str) -> usize {
        let wanted = (host.to_owned(), path.to_owned());
        self.0.lock().unwrap().asked.iter().filter(|asked| **asked == wanted).count()
    }

    async fn app(&self, providers: impl IntoIterator<Item = Provider>) -> TestApp {
        let settings = providers.into_iter().fold(ThirdParty::new(self.clone()), ThirdParty::provider);
        TestApp::with(|b| b.third_party(settings)).await
    }
}

impl HttpClient for Hosts {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, BoxError> {
        let (host, path) = (request.uri().host().unwrap().to_owned(), request.uri().path().to_owned());
        let silent = {
            let mut known = self.0.lock().unwrap();
            known.asked.push((host.clone(), path.clone()));
            known.silent.contains(&host)
        };
        if silent {
            return std::future::pending().await;
        }
        tokio::task::yield_now().await;
        let at = |path: &str| format!("https://{host}/{path}");
        let body = match path.as_str() {
            "/token" => {
                let is_basic = request.headers().contains_key(header::AUTHORIZATION);
                self.0.lock().unwrap().by_header.push(is_basic);
                let form = String::from_utf8(request.body().to_vec())?;
                let code = form.split('&').find_map(|pair| pair.strip_prefix("code=")).unwrap();
                json!({ "access_token": code, "token_type": "Bearer" })
            }
            "/user" => {
                let who = request.headers()[header::AUTHORIZATION].to_str()?.split(' ').nth(1).unwrap();
                self.0.lock().unwrap().said[&(host, who.to_owned())].clone()
            }
            "/keys" => json!({ "keys": [] }),
            _ => json!({
                "issuer": format!("https://{host}"),
                "authorization_endpoint": at("auth"),
                "token_endpoint": at("token"),
                "jwks_uri": at("keys"),
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }),
        };
        Ok(Response::new(Bytes::from(body.to_string())))
    }
}

fn client() -> ProviderClient {
    ProviderClient::new("shop", Secret::new("a secret of the shop's".to_owned()))
}

/// By OAuth 2: no document is read.
fn oauth2(id: &str, host: &str) -> Provider {
    let at = |path: &str| format!("https://{host}/{path}");
    let (authorise, token, user_info) = (at("auth"), at("token"), at("user"));
    let endpoints = OAuth2Endpoints { authorise, token, user_info, emails: None, s256: false };
    Provider::oauth2(id, "Loopback", endpoints, client())
}

/// By OpenID Connect: a document is read first.
fn oidc(id: &str, host: &str) -> Provider {
    Provider::oidc(id, "Loopback", format!("https://{host}"), client())
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

async fn with_tenant(app: &TestApp, name: &str, providers: Option<Vec<Provider>>) -> TenantId {
    let tenant = tenant(name);
    app.mfa.tenants().create(&tenant, None).await.unwrap();
    app.mfa.tenants().set_providers(&tenant, providers).await.unwrap();
    tenant
}

fn browser(app: &TestApp, tenant: &str) -> Browser {
    let mut browser = app.browser(Mode::Cookie);
    browser.tenant = Some(tenant.to_owned());
    browser
}

async fn come_back(browser: &mut Browser, who: &str, linked: bool) -> Answer {
    let mut body = returned(&json!({}), json!({ "code": who }));
    body["shouldTryLinkingWithSessionUser"] = json!(linked);
    let tenant = browser.tenant.clone().unwrap();
    browser.post(&format!("/auth/{tenant}/signinup"), body).await
}

/// Where to sign in by a provider of a tenant's.
async fn begin(app: &TestApp, tenant: &str, id: &str) -> Answer {
    let query = format!("thirdPartyId={id}&redirectURIOnProviderDashboard={CALLBACK}");
    app.browser(Mode::Cookie).get(&format!("/auth/{tenant}/authorisationurl?{query}")).await
}

fn id(body: &Value) -> UserId {
    UserId::parse(body["user"]["id"].as_str().unwrap()).unwrap()
}

async fn load(app: &TestApp, id: &UserId) -> User {
    app.mfa.users().load(id).await.unwrap().unwrap()
}

fn emails(user: &User) -> Vec<String> {
    user.logins.iter().filter_map(|login| login.email.as_ref()).map(|email| email.as_str().to_owned()).collect()
}

#[tokio::test]
async fn how_a_secret_is_sent_is_each_providers_own_setting() {
    for app_first in [false, true] {
        let hosts = Hosts::default();
        let app = hosts.app([oidc("loopback", "a.example").secret_in_form()]).await;
        with_tenant(&app, "north", Some(vec![oidc("loopback", "a.example")])).await;
        // One document, which says nothing of it.
        let order = if app_first { ["public", "north"] } else { ["north", "public"] };
        for tenant in order {
            come_back(&mut browser(&app, tenant), "alice", false).await;
        }
        assert_eq!(hosts.asked("a.example", "/.well-known/openid-configuration"), 1);
        let by_header: Vec<bool> = order.iter().map(|tenant| *tenant == "north").collect();
        assert_eq!(hosts.0.lock().unwrap().by_header, by_header, "{order:?}");
    }
}
