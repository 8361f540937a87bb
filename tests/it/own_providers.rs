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
    ident::{BoxError, Email, ErrorKind, Secret, TenantId, UserId},
    policy::{Link, LinkContext, LinkPolicy, PolicyError},
};

use crate::{
    spy::{ALICE, BOB},
    support::{
        Answer, Browser, Mode, TestApp,
        provider::{CALLBACK, returned},
    },
    tenants::deletion,
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
    let endpoints = OAuth2Endpoints::new(at("auth"), at("token"), at("user"));
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
    user.logins
        .iter()
        .filter_map(|login| login.email.as_ref())
        .map(|email| email.as_str().to_owned())
        .collect()
}

#[tokio::test]
async fn sec_l06_a_tenants_own_provider_says_nothing_of_the_apps_users() {
    let hosts = Hosts::default();
    let app = hosts.app([oauth2("loopback", "a.example")]).await;
    hosts.set("a.example", "alice", ALICE, true);
    let alice = id(&come_back(&mut browser(&app, "public"), "alice", false).await.ok());
    let north = with_tenant(&app, "north", None).await;
    app.mfa.users().add_to_tenants(&alice, [north.clone()]).await.unwrap();
    // By the app's provider she is herself there.
    assert_eq!(id(&come_back(&mut browser(&app, "north"), "alice", false).await.ok()), alice);
    // By the tenant's own of the same id it is somebody else, whatever it says of whom.
    app.mfa.tenants().set_providers(&north, Some(vec![oauth2("loopback", "b.example")])).await.unwrap();
    hosts.set("b.example", "alice", EVIL, true);
    let mallory = come_back(&mut browser(&app, "north"), "alice", false).await.ok();
    assert_ne!(id(&mallory), alice);
    assert_eq!(mallory["createdNewRecipeUser"], json!(true));
    assert_eq!(mallory["user"]["thirdParty"], json!([{ "id": "loopback", "userId": "alice" }]));
    assert_eq!(emails(&load(&app, &alice).await), [ALICE]);
    // They stay two, each by its own.
    let again = come_back(&mut browser(&app, "north"), "alice", false).await.ok();
    assert_eq!((id(&again), &again["createdNewRecipeUser"]), (id(&mallory), &json!(false)));
    assert_eq!(id(&come_back(&mut browser(&app, "public"), "alice", false).await.ok()), alice);
    // Nor does another tenant's provider say anything of this one's, even of somebody who is in both.
    let south = with_tenant(&app, "south", Some(vec![oauth2("loopback", "c.example")])).await;
    app.mfa.users().add_to_tenants(&id(&mallory), [south]).await.unwrap();
    hosts.set("c.example", "alice", "alice@south.example", true);
    assert_ne!(id(&come_back(&mut browser(&app, "south"), "alice", false).await.ok()), id(&mallory));
    // The app's again: Alice's it is.
    app.mfa.tenants().set_providers(&north, None).await.unwrap();
    assert_eq!(id(&come_back(&mut browser(&app, "north"), "alice", false).await.ok()), alice);
    app.store.check_users().await;
}

#[tokio::test]
async fn sec_l06_a_tenants_own_provider_changes_addresses_in_that_tenant_alone() {
    let hosts = Hosts::default();
    let app = hosts.app([]).await;
    with_tenant(&app, "north", Some(vec![oauth2("loopback", "b.example")])).await;
    hosts.set("b.example", "bob", BOB, true);
    let bob = id(&come_back(&mut browser(&app, "north"), "bob", false).await.ok());
    hosts.set("b.example", "bob", "bob@north.example", true);
    come_back(&mut browser(&app, "north"), "bob", false).await.ok();
    assert_eq!(emails(&load(&app, &bob).await), ["bob@north.example"]);
    // Once he is elsewhere as well, his address there is not the tenant's to say.
    app.mfa.users().add_to_tenants(&bob, [PUBLIC]).await.unwrap();
    hosts.set("b.example", "bob", EVIL, true);
    let body = come_back(&mut browser(&app, "north"), "bob", false).await.ok();
    assert_eq!(id(&body), bob);
    assert_eq!(emails(&load(&app, &bob).await), ["bob@north.example"]);
    app.store.check_users().await;
}

/// One account for a proved address, by whatever the app itself trusts.
struct OfTheApp;

impl LinkPolicy for OfTheApp {
    async fn decide(&self, ctx: &LinkContext<'_>) -> Result<Link, PolicyError> {
        let of_tenant = ctx.account.third_party.as_ref().is_some_and(|it| it.tenant.is_some());
        Ok(if of_tenant { Link::No } else { Link::IfVerified })
    }
}

#[tokio::test]
async fn a_rule_about_linking_knows_whose_provider_it_is() {
    let hosts = Hosts::default();
    let settings = ThirdParty::new(hosts.clone()).provider(oauth2("loopback", "a.example"));
    let app = TestApp::with(|b| b.third_party(settings).linking(OfTheApp)).await;
    hosts.set("a.example", "alice", ALICE, true);
    hosts.set("b.example", "mallory", ALICE, true);
    let north = with_tenant(&app, "north", Some(vec![oauth2("loopback", "b.example")])).await;
    let address = Email::parse(ALICE).unwrap();
    let alice = app.mfa.users().create(&PUBLIC, &address).await.unwrap();
    app.mfa.users().add_to_tenants(&alice.id, [north]).await.unwrap();
    let mallory = come_back(&mut browser(&app, "north"), "mallory", false).await.ok();
    assert_ne!(id(&mallory), alice.id);
    assert_eq!(id(&come_back(&mut browser(&app, "public"), "alice", false).await.ok()), alice.id);
}

/// Within a session of Alice's, too, the tenant's provider's Alice is somebody new.
#[tokio::test]
async fn sec_l06_within_a_session_it_is_not_hers_already() {
    let hosts = Hosts::default();
    let app = hosts.app([oauth2("loopback", "a.example")]).await;
    hosts.set("a.example", "alice", ALICE, true);
    let alice = id(&come_back(&mut browser(&app, "public"), "alice", false).await.ok());
    let north = with_tenant(&app, "north", Some(vec![oauth2("loopback", "b.example")])).await;
    app.mfa.users().add_email(&alice, &PUBLIC, &Email::parse(ALICE).unwrap()).await.unwrap();
    app.mfa.users().add_to_tenants(&alice, [north]).await.unwrap();
    let mut at_north = browser(&app, "north");
    assert_eq!(id(&at_north.by_code(ALICE).await), alice);
    hosts.set("b.example", "alice", EVIL, true);
    // It isn't taken for the login method that she has: it is one more.
    let body = come_back(&mut at_north, "alice", true).await.ok();
    assert_eq!((id(&body), &body["createdNewRecipeUser"]), (alice.clone(), &json!(true)));
    let before = load(&app, &alice).await;
    let names = before.logins.iter().filter_map(|login| login.third_party.as_ref());
    let tenants: Vec<Option<TenantId>> = names.map(|name| name.tenant.clone()).collect();
    assert_eq!(tenants, [None, Some(tenant("north"))]);
    // Nor does it change from then on what is sent to her, who is elsewhere, too.
    hosts.set("b.example", "alice", "alice@another.example", true);
    assert_eq!(id(&come_back(&mut browser(&app, "north"), "alice", false).await.ok()), alice);
    assert_eq!(emails(&load(&app, &alice).await), emails(&before));
    app.store.check_users().await;
}

/// A deletion that stopped half way: nothing comes to the tenant any more that the rest of it might pass by.
#[tokio::test]
async fn sec_n05_a_tenant_that_is_being_deleted_gets_no_providers() {
    let app = Hosts::default().app([oauth2("loopback", "a.example")]).await;
    let (own, tenants) = (|| vec![oauth2("own", "b.example")], app.mfa.tenants());
    for before in [None, Some(own())] {
        let north = with_tenant(&app, "north", before).await;
        app.mfa.users().create(&north, &Email::parse(BOB).unwrap()).await.unwrap();
        app.store.fail_commits_after(Some(1));
        assert_eq!(tenants.delete(&north).await.unwrap_err().kind(), ErrorKind::Unavailable);
        app.store.fail_commits_after(None);
        let left = app.store.dump().await;
        for providers in [Some(own()), Some(Vec::new()), None] {
            let refused = tenants.set_providers(&north, providers).await;
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
        }
        assert_eq!(app.store.dump().await, left);
        tenants.delete(&north).await.unwrap();
        let refused = tenants.set_providers(&north, Some(own())).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
        // Made again it has those of the app, whatever the former one had or is given as its deletion begins.
        tenants.create(&north, None).await.unwrap();
        app.store.before_next_commit(deletion(&app, &north).await);
        let refused = tenants.set_providers(&north, Some(own())).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
        let offered = tenants.providers(&north).await.unwrap();
        assert_eq!(offered.iter().map(Provider::id).collect::<Vec<_>>(), ["loopback"]);
        tenants.delete(&north).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn sec_n07_one_silent_provider_leaves_room_for_all_others() {
    let hosts = Hosts::default();
    hosts.silence("silent.example");
    let providers = [oidc("slow", "silent.example"), oidc("good", "good.example")];
    let app = hosts.app(providers).await;
    with_tenant(&app, "north", Some((0..5).map(|n| oidc(&format!("p{n}"), "silent.example")).collect()))
        .await;
    with_tenant(&app, "south", Some(vec![oidc("good", "good.example")])).await;
    let from = tokio::time::Instant::now();
    let waiting: Vec<_> = (0..128)
        .map(|n| {
            let app = app.clone();
            // Those of one tenant count together, and each of the app's by itself.
            tokio::spawn(async move {
                let first = begin(&app, "north", &format!("p{}", n % 5)).await;
                (first, begin(&app, "public", "slow").await)
            })
        })
        .collect();
    for _ in 0..2000 {
        tokio::task::yield_now().await;
    }
    begin(&app, "south", "good").await.ok();
    begin(&app, "public", "good").await.ok();
    app.browser(Mode::Cookie).by_code(ALICE).await;
    assert!(from.elapsed() < Duration::from_secs(1), "{:?}", from.elapsed());
    for one in join_all(waiting).await {
        let (first, second) = one.unwrap();
        first.status("GENERAL_ERROR");
        second.status("GENERAL_ERROR");
    }
    // Seats are given back.
    begin(&app, "south", "good").await.ok();
}

#[tokio::test(start_paused = true)]
async fn sec_n07_a_document_that_is_kept_serves_all_but_the_one_who_reads_it_again() {
    let hosts = Hosts::default();
    let app = hosts.app([oidc("good", "good.example")]).await;
    let document = || hosts.asked("good.example", "/.well-known/openid-configuration");
    begin(&app, "public", "good").await.ok();
    assert_eq!(document(), 1);
    app.clock.advance(Duration::from_secs(3600));
    hosts.silence("good.example");
    let reads = {
        let app = app.clone();
        tokio::spawn(async move { begin(&app, "public", "good").await })
    };
    while document() < 2 {
        tokio::task::yield_now().await;
    }
    let from = tokio::time::Instant::now();
    for _ in 0..5 {
        begin(&app, "public", "good").await.ok();
    }
    assert!(from.elapsed() < Duration::from_secs(1), "{:?}", from.elapsed());
    assert_eq!(document(), 2);
    // Whoever reads waits for as long as a provider may take, and has the one that is kept then.
    reads.await.unwrap().ok();
}

#[tokio::test]
async fn sec_n07_asking_where_to_go_has_a_quota() {
    let hosts = Hosts::default();
    let settings = ThirdParty::new(hosts.clone()).provider(oidc("good", "good.example"));
    let peer = std::net::IpAddr::from([203, 0, 113, 7]);
    let app = TestApp::limited(|b| b.third_party(settings).peer(move |_, _| Some(peer))).await;
    for _ in 0..300 {
        begin(&app, "public", "good").await.ok();
    }
    let answer = begin(&app, "public", "good").await;
    answer.status("GENERAL_ERROR");
    assert!(answer.headers.contains_key(header::RETRY_AFTER), "{}", answer.text);
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
