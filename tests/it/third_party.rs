//! Sign-in at a real provider on loopback, as OpenID Connect and as plain OAuth 2; rows L06, L14 and L15.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use http::{StatusCode, header};
use serde_json::{Value, json};
use tower_mfa::{
    FactorId, Mfa, MfaBuilder,
    account::LoginKind,
    config::{AppInfo, Reqwest, Secrets},
    delivery::Notice,
    factor::{Provider, ProviderClient, ThirdParty},
    ident::{Email, ErrorKind, Secret, TenantId, UserId},
    policy::{Everyone, Link, LinkContext, LinkPolicy, PolicyError},
    store::MemoryStore,
};

use crate::{
    spy::{ALICE, BOB},
    support::{
        Answer, Browser, HandClock, Mode, TestApp,
        provider::{CALLBACK, ProviderServer, SECRET, at_once, begin, form_post, returned},
    },
};

const PUBLIC: TenantId = TenantId::PUBLIC;

fn now() -> HandClock {
    HandClock::at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64)
}

/// An app with these providers, whose clock says what the provider's says.
async fn app_with(
    providers: impl IntoIterator<Item = Provider>,
    change: impl FnOnce(MfaBuilder) -> MfaBuilder,
) -> TestApp {
    let clock = now();
    let settings = ThirdParty::new(Reqwest::new().unwrap());
    let settings = providers.into_iter().fold(settings, ThirdParty::provider);
    TestApp::with(|b| change(b.clock(clock.clone()).third_party(settings))).await.with_clock(Some(clock))
}

async fn app(provider: Provider) -> TestApp {
    app_with([provider], |b| b).await
}

fn login(body: &Value) -> &Value {
    &body["user"]["loginMethods"][0]
}

fn query(url: &str) -> Vec<(String, String)> {
    let pairs = url.split_once('?').unwrap().1.split('&').map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn somebody_signs_up_and_in_by_openid_connect() {
    for in_id_token in [false, true] {
        let server = ProviderServer::start(json!({ "inIdToken": in_id_token })).await;
        let app = app(server.oidc()).await;
        for mode in [Mode::Cookie, Mode::Header] {
            let mut alice = app.browser(mode);
            let body = server.sign_in(&mut alice, "alice").await.ok();
            assert_eq!(body["createdNewRecipeUser"], json!(mode == Mode::Cookie));
            assert_eq!(body["user"]["thirdParty"], json!([{ "id": "loopback", "userId": "alice" }]));
            assert_eq!(body["user"]["emails"], json!([ALICE]));
            let method = login(&body);
            assert_eq!(
                (&method["recipeId"], &method["verified"], &method["email"], &method["thirdParty"]["userId"]),
                (&json!("thirdparty"), &json!(true), &json!(ALICE), &json!("alice"))
            );
            alice.get("/api/me").await.is(200);
            assert!(alice.claim()["c"]["thirdparty"].is_i64());
        }
        // Of the address it was asked, where the token hadn't it: one document and one set of keys for all of it.
        assert_eq!(server.asked("/me"), if in_id_token { 0 } else { 2 });
        assert_eq!((server.asked("/.well-known/openid-configuration"), server.asked("/jwks")), (1, 1));
    }
}

#[tokio::test]
async fn somebody_signs_up_and_in_by_oauth2() {
    let server = ProviderServer::start(json!({})).await;
    let app = app(server.oauth2()).await;
    for created in [true, false] {
        let mut alice = app.browser(Mode::Cookie);
        let body = server.sign_in(&mut alice, "alice").await.ok();
        assert_eq!(body["createdNewRecipeUser"], json!(created));
        assert_eq!((&login(&body)["verified"], &login(&body)["email"]), (&json!(true), &json!(ALICE)));
        alice.get("/api/me").await.is(200);
    }
    // Nothing of OpenID Connect was used.
    assert_eq!((server.asked("/jwks"), server.asked("/me"), server.asked("/user")), (0, 0, 2));
}

/// Whoever signs in by a provider and nothing else is found by the address that it gave, where they signed up.
#[tokio::test]
async fn who_has_but_a_provider_is_found_by_their_address() {
    let app = TestApp::with(|b| b.third_party(at_once())).await;
    let north = TenantId::parse("north").unwrap();
    app.mfa.tenants().create(&north, None).await.unwrap();
    let mut carol = app.browser(Mode::Cookie);
    carol.tenant = Some("north".to_owned());
    let body = returned(&begin(&mut carol).await.ok(), json!({ "code": "x" }));
    let id = carol.post("/auth/north/signinup", body).await.ok()["user"]["id"].clone();
    let (users, email) = (app.mfa.users(), Email::parse("carol@shop.example").unwrap());
    let found = users.by_email(&north, &email).await.unwrap();
    assert_eq!(found.iter().map(|user| json!(user.id)).collect::<Vec<_>>(), [id]);
    assert_eq!(found[0].logins.iter().map(|login| login.kind).collect::<Vec<_>>(), [LoginKind::ThirdParty]);
    assert!(users.by_email(&PUBLIC, &email).await.unwrap().is_empty());
    assert!(users.by_email(&north, &Email::parse(ALICE).unwrap()).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_url_is_absolute_and_without_state_and_nonce() {
    let server = ProviderServer::start(json!({})).await;
    let provider = server.oidc().scopes(["openid", "email"]).parameter("prompt", "login");
    let app = app(provider).await;
    let begun = begin(&mut app.browser(Mode::Cookie)).await.ok();
    let url = begun["urlWithQueryParams"].as_str().unwrap();
    assert!(url.starts_with(&format!("{}/auth?", server.issuer())), "{url}");
    let mut names: Vec<String> = query(url).into_iter().map(|(name, _)| name).collect();
    names.sort();
    let wanted = [
        "client_id",
        "code_challenge",
        "code_challenge_method",
        "prompt",
        "redirect_uri",
        "response_type",
        "scope",
    ];
    assert_eq!(names, wanted);
    assert!(url.contains("code_challenge_method=S256") && url.contains("scope=openid+email"), "{url}");
}

#[tokio::test]
async fn pkce_is_used_where_it_is_known_forced_or_all_there_is() {
    let knows = ProviderServer::start(json!({})).await;
    let plain = ProviderServer::start(json!({ "plain": true })).await;
    let public = |server: &ProviderServer| {
        Provider::oidc("loopback", "Loopback", server.issuer(), ProviderClient::public("app"))
            .insecure_loopback()
    };
    for (provider, server, used) in [
        (knows.oidc(), &knows, true),
        (plain.oidc(), &plain, false),
        (plain.oidc().force_pkce(), &plain, true),
        (public(&plain), &plain, true),
        (knows.oauth2(), &knows, true),
    ] {
        let app = app(provider).await;
        let mut alice = app.browser(Mode::Cookie);
        let begun = begin(&mut alice).await.ok();
        let url = begun["urlWithQueryParams"].as_str().unwrap();
        assert_eq!((begun.get("pkceCodeVerifier").is_some(), url.contains("code_challenge=")), (used, used));
        // Who leaves the verifier out doesn't get a code exchanged: somebody else may have begun.
        let mut body = server.came_back(&mut alice, "alice").await;
        body["redirectURIInfo"].as_object_mut().unwrap().remove("pkceCodeVerifier");
        let asked = server.asked("/token");
        alice.post("/auth/signinup", body).await.is(if used { 400 } else { 200 });
        assert_eq!(server.asked("/token") - asked, usize::from(!used));
        server.sign_in(&mut app.browser(Mode::Cookie), "alice").await.ok();
    }
}

#[tokio::test]
async fn a_code_counts_once_and_with_its_own_verifier_and_redirect() {
    let server = ProviderServer::start(json!({})).await;
    let app = app(server.oidc()).await;
    let mut alice = app.browser(Mode::Cookie);
    let good = server.came_back(&mut alice, "alice").await;
    let spoiled = |pointer: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(&format!("/redirectURIInfo{pointer}")).unwrap() = value;
        body
    };
    let failed = async |body: Value, what: &str| {
        let mut alice = app.browser(Mode::Cookie);
        let answer = alice.post("/auth/signinup", body).await;
        answer.status("GENERAL_ERROR");
        assert!(
            answer.body["message"].as_str().unwrap().contains("wasn't completed"),
            "{what} {}",
            answer.text
        );
        assert!(alice.jar.is_empty() && app.store.sessions().await.is_empty(), "{what}");
    };
    failed(spoiled("/redirectURIQueryParams/code", json!("another")), "code").await;
    failed(spoiled("/redirectURIQueryParams/iss", json!("https://id.mallory.example")), "issuer").await;
    failed(spoiled("/redirectURIQueryParams", json!({ "error": "access_denied" })), "denied").await;
    // A wrong one uses up the code, at this provider as at others: each try has one of its own.
    let mut other = server.came_back(&mut alice, "alice").await;
    other["redirectURIInfo"]["pkceCodeVerifier"] = json!("x".repeat(43));
    failed(other, "verifier").await;
    let mut other = server.came_back(&mut alice, "alice").await;
    other["redirectURIInfo"]["redirectURIOnProviderDashboard"] = json!("https://shop.test/auth/elsewhere");
    failed(other, "redirect").await;
    alice.post("/auth/signinup", good.clone()).await.ok();
    alice.sign_out().await.ok();
    let again = app.browser(Mode::Cookie).post("/auth/signinup", good).await;
    again.status("GENERAL_ERROR");
}

#[tokio::test]
async fn a_code_that_is_too_old_is_refused() {
    let server = ProviderServer::start(json!({ "ttl": { "AuthorizationCode": 1 } })).await;
    let app = app(server.oidc()).await;
    let mut alice = app.browser(Mode::Cookie);
    let body = server.came_back(&mut alice, "alice").await;
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    alice.post("/auth/signinup", body).await.status("GENERAL_ERROR");
    assert!(app.store.sessions().await.is_empty());
}

#[tokio::test]
async fn what_is_malformed_is_400() {
    let server = ProviderServer::start(json!({})).await;
    let app = app(server.oidc()).await;
    let mut alice = app.browser(Mode::Cookie);
    let ends = |uri: &str| {
        format!("/auth/authorisationurl?thirdPartyId=loopback&redirectURIOnProviderDashboard={uri}")
    };
    for path in [
        "/auth/authorisationurl".to_owned(),
        "/auth/authorisationurl?thirdPartyId=loopback".to_owned(),
        format!("/auth/authorisationurl?thirdPartyId=google&redirectURIOnProviderDashboard={CALLBACK}"),
        format!("{}&clientType=ios", ends(CALLBACK)),
        ends("https://mallory.example/"),
        ends("https://shop.test.mallory.example/"),
        ends("https://alice@shop.test/"),
        ends("http://shop.test/auth"),
        ends("com.example.shop:/callback"),
        ends("/auth/callback"),
    ] {
        alice.get(&path).await.is(400);
    }
    alice.get(&ends("https://api.shop.test/auth/callback/apple")).await.ok();
    let info =
        json!({ "redirectURIOnProviderDashboard": CALLBACK, "redirectURIQueryParams": { "code": "1" } });
    let body = |key: &str, value: Value| json!({ "thirdPartyId": "loopback", key: value });
    for body in [
        json!({}),
        json!({ "thirdPartyId": "loopback" }),
        json!({ "thirdPartyId": "google", "redirectURIInfo": info }),
        json!({ "thirdPartyId": "loopback", "clientType": "ios", "redirectURIInfo": info }),
        json!({ "thirdPartyId": "loopback", "redirectURIInfo": info, "oAuthTokens": {} }),
        body("redirectURIInfo", json!("x")),
        body("redirectURIInfo", json!({ "redirectURIOnProviderDashboard": CALLBACK })),
        body(
            "redirectURIInfo",
            json!({ "redirectURIOnProviderDashboard": CALLBACK, "redirectURIQueryParams": {} }),
        ),
        body(
            "redirectURIInfo",
            json!({ "redirectURIOnProviderDashboard": "https://mallory.example/", "redirectURIQueryParams": { "code": "1" } }),
        ),
        body(
            "redirectURIInfo",
            json!({ "redirectURIOnProviderDashboard": CALLBACK, "redirectURIQueryParams": { "code": "1" }, "pkceCodeVerifier": "short" }),
        ),
    ] {
        alice.post("/auth/signinup", body.clone()).await.is(400);
    }
    assert_eq!(server.asked("/token"), 0);
}

#[tokio::test]
async fn sec_l06_verified_is_literally_true_and_the_subject_is_who_it_is() {
    for in_id_token in [false, true] {
        let accounts = json!({
            "one": { "email": ALICE, "email_verified": "true" },
            "two": { "email": ALICE, "email_verified": false },
            "three": { "email": ALICE, "email_verified": 1 },
            "four": { "email": ALICE },
            "five": { "email": ALICE, "email_verified": true },
        });
        // As the id_token the library itself refuses what is no boolean or text of one.
        let server = ProviderServer::start(json!({ "accounts": accounts, "inIdToken": in_id_token })).await;
        let app = app(server.oidc()).await;
        let mut users = std::collections::BTreeSet::new();
        for (who, verified) in
            [("one", false), ("two", false), ("three", false), ("four", false), ("five", true)]
        {
            if in_id_token && who == "three" {
                server.sign_in(&mut app.browser(Mode::Cookie), who).await.status("GENERAL_ERROR");
                continue;
            }
            let body = server.sign_in(&mut app.browser(Mode::Cookie), who).await.ok();
            assert_eq!(
                (&login(&body)["verified"], &login(&body)["email"]),
                (&json!(verified), &json!(ALICE)),
                "{who}"
            );
            users.insert(body["user"]["id"].as_str().unwrap().to_owned());
        }
        // One address, and each is somebody else.
        assert_eq!(users.len(), if in_id_token { 4 } else { 5 });
    }
    // Unless the app says that it trusts this provider.
    let server =
        ProviderServer::start(json!({ "accounts": { "two": { "email": ALICE, "email_verified": false } } }))
            .await;
    let app = app(server.oauth2().trust_email()).await;
    let body = server.sign_in(&mut app.browser(Mode::Cookie), "two").await.ok();
    assert_eq!(login(&body)["verified"], json!(true));
}

#[tokio::test]
async fn without_an_address_only_where_the_app_wants_none() {
    let server = ProviderServer::start(json!({})).await;
    let strict = app(server.oidc()).await;
    let mut mallory = strict.browser(Mode::Cookie);
    server.sign_in(&mut mallory, "mallory").await.status("NO_EMAIL_GIVEN_BY_PROVIDER");
    assert!(mallory.jar.is_empty() && strict.store.sessions().await.is_empty());
    let loose = app(server.oidc().without_email()).await;
    let body = server.sign_in(&mut loose.browser(Mode::Cookie), "mallory").await.ok();
    assert_eq!((&body["user"]["emails"], login(&body).get("email")), (&json!([]), None));
}

#[tokio::test]
async fn sec_l14_tokens_from_the_body_are_off_and_an_id_token_is_for_us() {
    let server = ProviderServer::start(json!({ "inIdToken": true })).await;
    // What a native app got by itself: it asks the token endpoint as its own client.
    let tokens = async |client: &str, url: &str| {
        let query = server.visit(url, "alice").await;
        let authorization = base64::engine::general_purpose::STANDARD
            .encode(format!("{client}:{}", SECRET.replace(' ', "+").replace('\'', "%27")));
        let body = format!(
            "grant_type=authorization_code&code={}&redirect_uri={CALLBACK}",
            query["code"].as_str().unwrap()
        );
        let request = http::Request::post(format!("{}/token", server.issuer()))
            .header(header::AUTHORIZATION, format!("Basic {authorization}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body.into())
            .unwrap();
        let answer = crate::support::provider::fetch(request).await;
        let tokens: Value = serde_json::from_slice(answer.body()).unwrap();
        assert!(tokens["id_token"].is_string() && tokens["access_token"].is_string(), "{tokens}");
        tokens
    };
    let url = |client: &str| {
        format!(
            "{}/auth?client_id={client}&response_type=code&scope=openid+email&redirect_uri={CALLBACK}",
            server.issuer()
        )
    };
    let (ours, theirs) = (tokens("shop", &url("shop")).await, tokens("other", &url("other")).await);
    let post = async |app: &TestApp, tokens: Value| {
        let mut alice = app.browser(Mode::Cookie);
        let body = json!({ "thirdPartyId": "loopback", "oAuthTokens": tokens });
        let answer = alice.post("/auth/signinup", body).await;
        assert_eq!(alice.jar.is_empty(), answer.body["status"] != "OK");
        answer
    };
    let off = app(server.oidc()).await;
    for tokens in [&ours, &theirs] {
        post(&off, tokens.clone()).await.is(400);
        post(&off, json!({ "access_token": tokens["access_token"] })).await.is(400);
    }
    assert_eq!(server.asked("/me"), 0);
    let on = app(server.oidc().accept_id_tokens()).await;
    // A bare access token never, whosever it is.
    post(&on, json!({ "access_token": ours["access_token"] })).await.is(400);
    post(&on, json!({ "access_token": theirs["access_token"] })).await.is(400);
    post(&on, json!({ "id_token": theirs["id_token"] })).await.status("GENERAL_ERROR");
    // An access token of another app's changes nothing of what our own id_token says.
    let mixed = json!({ "id_token": ours["id_token"], "access_token": theirs["access_token"] });
    let body = post(&on, mixed).await.ok();
    assert_eq!(body["user"]["thirdParty"][0]["userId"], "alice");
    assert_eq!(server.asked("/me"), 0);
    // Not for ever: after five minutes it has expired.
    on.clock.advance(std::time::Duration::from_secs(301));
    post(&on, json!({ "id_token": ours["id_token"] })).await.status("GENERAL_ERROR");
    for bad in [json!(""), json!("a.b.c"), json!(7), Value::Null] {
        let answer = post(&on, json!({ "id_token": bad })).await;
        assert!(answer.status == 400 || answer.body["status"] == "GENERAL_ERROR", "{}", answer.text);
    }
    // OAuth 2 alone signs nothing.
    let plain = app(server.oauth2().accept_id_tokens()).await;
    post(&plain, json!({ "id_token": ours["id_token"] })).await.status("GENERAL_ERROR");
}

#[tokio::test]
async fn sec_l15_the_form_goes_to_pages_of_the_app_alone() {
    let server = ProviderServer::start(json!({})).await;
    let app = app(server.oidc()).await;
    let state = |uri: &str| {
        let text = json!({ "stateId": "7", "frontendRedirectURI": uri }).to_string();
        base64::engine::general_purpose::STANDARD
            .encode(text)
            .replace('+', "%2B")
            .replace('=', "%3D")
            .replace('/', "%2F")
    };
    let post = async |state: String| {
        app.send(form_post("/auth/callback/apple", &format!("code=c%2F1+2&state={state}&user=%7B%7D"))).await
    };
    let answer = post(state("https://shop.test/auth/callback/apple?x=1")).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let location = answer.headers[header::LOCATION].to_str().unwrap();
    let rest = location.strip_prefix("https://shop.test/auth/callback/apple?x=1&").unwrap();
    assert!(rest.starts_with("code=c%2F1+2&state=") && rest.ends_with("&user=%7B%7D"), "{location}");
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    for uri in [
        "https://mallory.example/",
        "https://shop.test.mallory.example/auth",
        "https://shop.test@mallory.example/",
        "https://mallory@shop.test/",
        "http://shop.test/auth",
        "https://shop.test:8443/auth",
        "https://api.shop.test/auth",
        "//mallory.example/",
        "/auth/callback/apple",
        "javascript:alert(1)",
        "data:text/html,x",
        "https:\\\\mallory.example/",
        "",
    ] {
        let answer = post(state(uri)).await;
        answer.is(400);
        assert!(answer.headers.get(header::LOCATION).is_none(), "{uri}");
        assert!(!answer.text.contains("mallory"), "{uri}");
    }
    for state in ["", "x", "bm8ganNvbg%3D%3D", "e30%3D"] {
        let answer = post(state.to_owned()).await;
        answer.is(400);
        assert!(answer.headers.get(header::LOCATION).is_none(), "{state}");
    }
    let mut json = form_post("/auth/callback/apple", "{}");
    json.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    app.send(json).await.is(415);
    let long = format!("state={}&code={}", state("https://shop.test/"), "x".repeat(9000));
    app.send(form_post("/auth/callback/apple", &long)).await.is(400);
    app.send(form_post("/auth/callback/apple", &"x".repeat(17_000))).await.is(413);
}

/// A password user, primary by a second factor, and what a provider may say of their address.
#[tokio::test]
async fn a_new_address_is_taken_over_if_it_is_nobody_elses() {
    let server = ProviderServer::start(json!({})).await;
    let app = app(server.oidc()).await;
    let sign_in = async || server.sign_in(&mut app.browser(Mode::Cookie), "alice").await;
    let first = sign_in().await.ok();
    let id = UserId::parse(first["user"]["id"].as_str().unwrap()).unwrap();
    let says = async |email: &str, verified: bool| {
        server.set_account("alice", json!({ "email": email, "email_verified": verified })).await;
    };
    // Another one, of nobody, verified or not.
    says("alice@new.example", false).await;
    let body = sign_in().await.ok();
    assert_eq!(
        (&body["user"]["emails"], &login(&body)["verified"]),
        (&json!(["alice@new.example"]), &json!(false))
    );
    assert_eq!((&body["user"]["id"], &body["createdNewRecipeUser"]), (&first["user"]["id"], &json!(false)));
    // The same, verified now; what was verified stays so.
    says("alice@new.example", true).await;
    assert_eq!(login(&sign_in().await.ok())["verified"], json!(true));
    says("alice@new.example", false).await;
    assert_eq!(login(&sign_in().await.ok())["verified"], json!(true));
    // An address of a primary user, who isn't this one: not without its being verified.
    app.mfa.users().create(&PUBLIC, &Email::parse(BOB).unwrap()).await.unwrap();
    let bob = app.user(BOB).await;
    app.mfa.users().add_email(&bob, &PUBLIC, &Email::parse("bob@second.example").unwrap()).await.unwrap();
    says(BOB, false).await;
    let refused = sign_in().await;
    refused.status("SIGN_IN_UP_NOT_ALLOWED");
    assert!(refused.body["reason"].as_str().unwrap().ends_with("(ERR_CODE_024)"), "{}", refused.text);
    assert_eq!(
        app.mfa.users().load(&id).await.unwrap().unwrap().logins[0].email,
        Email::parse("alice@new.example").ok()
    );
    // Once she is primary herself, not at all.
    app.mfa.users().add_email(&id, &PUBLIC, &Email::parse("alice@second.example").unwrap()).await.unwrap();
    for verified in [false, true] {
        says(BOB, verified).await;
        let refused = sign_in().await;
        refused.status("SIGN_IN_UP_NOT_ALLOWED");
        assert!(refused.body["reason"].as_str().unwrap().ends_with("(ERR_CODE_005)"), "{}", refused.text);
    }
    // Nor one that somebody else signs in by, unless it is verified.
    app.mfa.users().create(&PUBLIC, &Email::parse("carol@shop.example").unwrap()).await.unwrap();
    says("carol@shop.example", false).await;
    let refused = sign_in().await;
    assert!(refused.body["reason"].as_str().unwrap().ends_with("(ERR_CODE_024)"), "{}", refused.text);
    says("carol@shop.example", true).await;
    sign_in().await.ok();
    // What she gave up is free again.
    let taken = app.mfa.users().add_email(&bob, &PUBLIC, &Email::parse("alice@new.example").unwrap()).await;
    taken.unwrap();
    let audited = app.store.audited().await;
    assert_eq!(audited.iter().filter(|what| *what == "email-changed").count(), 3);
    assert_eq!(audited.iter().filter(|what| *what == "destination-refused").count(), 4);
}

/// As by any other way to another address: whoever had the former one hears of it, and what hung on it is over.
#[tokio::test]
async fn sec_s09_a_provider_changes_an_address_and_other_sessions_end() {
    let server = ProviderServer::start(json!({})).await;
    let app = app(server.oidc()).await;
    let says = async |email: &str, verified: bool| {
        server.set_account("alice", json!({ "email": email, "email_verified": verified })).await;
    };
    let told = |address: &str| {
        let sent = app.outbox.messages().into_iter().map(|sent| sent.notice);
        sent.filter(|notice| matches!(notice, Notice::EmailChanged { to } if to.as_str() == address)).count()
    };
    let heard = async |address: &str| {
        for _ in 0..5000 {
            if told(address) > 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        panic!("nobody told {address}");
    };
    let (mut phone, mut laptop) = (app.browser(Mode::Header), app.browser(Mode::Cookie));
    for browser in [&mut phone, &mut laptop, &mut app.browser(Mode::Cookie)] {
        server.sign_in(browser, "alice").await.ok();
    }
    // Nothing changed so far, and a code is under way.
    phone.get("/api/me").await.is(200);
    let seen = app.sent_to(ALICE);
    let flow = app.browser(Mode::Cookie).ask_code(ALICE, false).await.ok();
    let code = app.code_after(ALICE, seen).await;
    says("alice@new.example", false).await;
    let mut other = app.browser(Mode::Cookie);
    server.sign_in(&mut other, "alice").await.ok();
    for ended in [&mut phone, &mut laptop] {
        ended.get("/api/me").await.is(401);
        assert_ne!(ended.refresh().await.status, 200);
    }
    other.get("/api/me").await.is(200);
    heard(ALICE).await;
    assert_eq!((told(ALICE), told("alice@new.example")), (1, 0));
    let answer = app.browser(Mode::Cookie).enter(&flow, &code, false).await;
    assert_ne!(answer.body["status"], "OK", "{}", answer.text);
    // A session that proves it goes on, the others don't.
    says("alice@newer.example", true).await;
    server.sign_in(&mut phone, "alice").await.ok();
    server.sign_in(&mut laptop, "alice").await.ok();
    phone.get("/api/me").await.is(200);
    says("alice@newest.example", false).await;
    let mut body = server.came_back(&mut laptop, "alice").await;
    body["shouldTryLinkingWithSessionUser"] = json!(true);
    laptop.post("/auth/signinup", body).await.ok();
    laptop.get("/api/me").await.is(200);
    laptop.refresh().await.is(200);
    phone.get("/api/me").await.is(401);
    heard("alice@newer.example").await;
    app.store.check_users().await;
}

#[tokio::test]
async fn within_a_session_it_is_one_more_login_method_of_its_user() {
    let server = ProviderServer::start(json!({})).await;
    let app = app(server.oidc()).await;
    let mut alice = app.browser(Mode::Cookie);
    let user = alice.by_code(ALICE).await["user"]["id"].clone();
    let mut body = server.came_back(&mut alice, "alice").await;
    body["shouldTryLinkingWithSessionUser"] = json!(true);
    let linked = alice.post("/auth/signinup", body).await.ok();
    assert_eq!((&linked["user"]["id"], &linked["createdNewRecipeUser"]), (&user, &json!(true)));
    assert_eq!(linked["user"]["loginMethods"].as_array().unwrap().len(), 2);
    alice.get("/api/me").await.is(200);
    // From then on it is the same user who signs in by it.
    let again = server.sign_in(&mut app.browser(Mode::Cookie), "alice").await.ok();
    assert_eq!(again["user"]["id"], user);
    // And nobody else's: their session stays what it was.
    let mut mallory = app.browser(Mode::Cookie);
    mallory.by_code("mallory@shop.example").await;
    let mut body = server.came_back(&mut mallory, "alice").await;
    body["shouldTryLinkingWithSessionUser"] = json!(true);
    let refused = mallory.post("/auth/signinup", body).await;
    refused.status("SIGN_IN_UP_NOT_ALLOWED");
    assert!(refused.body["reason"].as_str().unwrap().ends_with("(ERR_CODE_021)"), "{}", refused.text);
    mallory.get("/api/me").await.is(200);
    // A contact of another primary user's.
    server.set_account("bob", json!({ "email": ALICE, "email_verified": true })).await;
    let mut body = server.came_back(&mut mallory, "bob").await;
    body["shouldTryLinkingWithSessionUser"] = json!(true);
    let refused = mallory.post("/auth/signinup", body).await;
    assert!(refused.body["reason"].as_str().unwrap().ends_with("(ERR_CODE_022)"), "{}", refused.text);
}

#[tokio::test]
async fn who_has_an_address_is_found_whatever_signs_them_in() {
    let server = ProviderServer::start(json!({})).await;
    let app = app(server.oidc()).await;
    let found = async |address: &str| -> Vec<Vec<LoginKind>> {
        let email = Email::parse(address).unwrap();
        let users = app.mfa.users().by_email(&PUBLIC, &email).await.unwrap();
        users.iter().map(|user| user.logins.iter().map(|login| login.kind).collect()).collect()
    };
    server.sign_in(&mut app.browser(Mode::Cookie), "alice").await.ok();
    app.browser(Mode::Cookie).by_code(ALICE).await;
    assert_eq!(found(ALICE).await, [[LoginKind::ThirdParty], [LoginKind::Passwordless]]);
    // The provider says another address from now on.
    server.set_account("alice", json!({ "email": BOB, "email_verified": true })).await;
    server.sign_in(&mut app.browser(Mode::Cookie), "alice").await.ok();
    assert_eq!(
        (found(ALICE).await, found(BOB).await),
        (vec![vec![LoginKind::Passwordless]], vec![vec![LoginKind::ThirdParty]])
    );
    app.store.check_users().await;
}

/// Links what is verified.
struct Verified;

impl LinkPolicy for Verified {
    async fn decide(&self, _: &LinkContext<'_>) -> Result<Link, PolicyError> {
        Ok(Link::IfVerified)
    }
}

#[tokio::test]
async fn what_cant_be_linked_says_why() {
    let server = ProviderServer::start(json!({})).await;
    let app = app_with([server.oidc()], |b| b.linking(Verified)).await;
    let link = async |browser: &mut Browser, who: &str| {
        let mut body = server.came_back(browser, who).await;
        body["shouldTryLinkingWithSessionUser"] = json!(true);
        browser.post("/auth/signinup", body).await
    };
    let says = |answer: &Answer, code: &str| {
        answer.status("SIGN_IN_UP_NOT_ALLOWED");
        assert!(answer.body["reason"].as_str().unwrap().ends_with(code), "{}", answer.text);
    };
    let mut alice = app.browser(Mode::Cookie);
    alice.by_code(ALICE).await;
    // What the provider doesn't say is verified isn't.
    says(&link(&mut alice, "bob").await, "(ERR_CODE_020)");
    link(&mut alice, "alice").await.ok();
    // Alice is primary now, and her provider says that another's address is hers.
    let mut mallory = app.browser(Mode::Cookie);
    mallory.by_code("mallory@shop.example").await;
    server.set_account("alice", json!({ "email": "mallory@shop.example", "email_verified": true })).await;
    server.sign_in(&mut app.browser(Mode::Cookie), "alice").await.ok();
    server.set_account("bob", json!({ "email": BOB, "email_verified": true })).await;
    says(&link(&mut mallory, "bob").await, "(ERR_CODE_023)");
    mallory.get("/api/me").await.is(200);
}

#[tokio::test]
async fn it_is_a_first_factor_and_others_follow() {
    let server = ProviderServer::start(json!({})).await;
    let app = app_with([server.oidc()], |b| b.policy(Everyone::new(FactorId::OTP_EMAIL))).await;
    let mut alice = app.browser(Mode::Cookie);
    server.sign_in(&mut alice, "alice").await.ok();
    alice.get("/api/me").await.is(403);
    assert_eq!(alice.info().await.ok()["emails"]["otp-email"], json!([ALICE]));
    alice.pass_code(ALICE).await;
    alice.get("/api/me").await.is(200);
    let user = app.mfa.users().load(&app.user(ALICE).await).await.unwrap().unwrap();
    let kinds: Vec<LoginKind> = user.logins.iter().map(|login| login.kind).collect();
    assert_eq!(kinds, [LoginKind::ThirdParty, LoginKind::Passwordless]);
    // Where it isn't listed, it starts nothing.
    app.mfa.tenants().set_first_factors(&PUBLIC, Some(vec![FactorId::OTP_EMAIL])).await.unwrap();
    let mut body = server.came_back(&mut alice, "alice").await;
    body["thirdPartyId"] = json!("loopback");
    app.browser(Mode::Cookie).post("/auth/signinup", body).await.is(401);
    let offered = app.browser(Mode::Cookie).get("/auth/loginmethods").await.ok();
    assert_eq!(offered["thirdParty"], json!({ "enabled": false, "providers": [] }));
}

#[tokio::test]
async fn a_tenant_has_providers_of_its_own_and_their_secrets_are_sealed() {
    let server = ProviderServer::start(json!({})).await;
    let google = Provider::google(ProviderClient::new("1.apps", Secret::new("s".to_owned())));
    let app = app(google).await;
    let north = TenantId::parse("north").unwrap();
    let tenants = app.mfa.tenants();
    assert_eq!(tenants.set_providers(&north, None).await.unwrap_err().kind(), ErrorKind::NotFound);
    tenants.create(&north, None).await.unwrap();
    let mut alice = app.browser(Mode::Cookie);
    alice.tenant = Some("north".to_owned());
    let offered = async |tenant: &str| {
        app.browser(Mode::Cookie).get(&format!("/auth/{tenant}/loginmethods")).await.ok()["thirdParty"]
            .clone()
    };
    let google = json!({ "enabled": true, "providers": [{ "id": "google", "name": "Google" }] });
    assert_eq!((offered("north").await, offered("public").await), (google.clone(), google.clone()));
    begin(&mut alice).await.is(400);
    tenants.set_providers(&north, Some(vec![server.oidc()])).await.unwrap();
    let own = json!({ "enabled": true, "providers": [{ "id": "loopback", "name": "Loopback" }] });
    assert_eq!((offered("north").await, offered("public").await), (own, google.clone()));
    let body = server.sign_in(&mut alice, "alice").await.ok();
    assert_eq!(body["user"]["tenantIds"], json!(["north"]));
    // Not the other way round: what is north's is nobody else's.
    begin(&mut app.browser(Mode::Cookie)).await.is(400);
    for (key, row) in app.store.dump().await {
        let text = row.body.to_string();
        assert!(!text.contains(SECRET) && !text.contains("\"shop\""), "{key:?}");
    }
    // What can't be right isn't taken, nor too much.
    let bad = server.oidc().with_id("No");
    for list in [vec![bad], vec![server.oidc(), server.oidc()], vec![server.oidc(); 51]] {
        assert_eq!(tenants.set_providers(&north, Some(list)).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    tenants.set_providers(&north, Some(Vec::new())).await.unwrap();
    assert_eq!(offered("north").await, json!({ "enabled": true, "providers": [] }));
    tenants.set_providers(&north, None).await.unwrap();
    assert_eq!(offered("north").await, google);
}

#[tokio::test]
async fn a_tenants_providers_come_under_a_new_root_key_as_they_are_read() {
    let (store, info) =
        (MemoryStore::new(), || AppInfo::new("Shop", "https://api.shop.test", "https://shop.test").unwrap());
    let node = async |secrets: Secrets| {
        TestApp::on(info(), secrets, store.clone(), |b| {
            b.third_party(ThirdParty::new(Reqwest::new().unwrap()))
        })
        .await
    };
    let (old, new) = (*b"0123456789abcdef0123456789abcdef", *b"fedcba9876543210fedcba9876543210");
    let first = node(Secrets::new("old", old).unwrap()).await;
    let own = Provider::google(ProviderClient::new("1.apps", Secret::new("s".to_owned())));
    first.mfa.tenants().set_providers(&PUBLIC, Some(vec![own])).await.unwrap();
    let ids = async |app: &TestApp| -> Vec<String> {
        let list = app.mfa.tenants().providers(&PUBLIC).await.unwrap();
        list.iter().map(|provider| provider.id().to_owned()).collect()
    };
    let both = node(Secrets::new("new", new).unwrap().and_older("old", old).unwrap()).await;
    assert_eq!(ids(&both).await, ["google"]);
    let last = node(Secrets::new("new", new).unwrap()).await;
    assert_eq!(ids(&last).await, ["google"]);
    // The former key opens it no more.
    assert_eq!(first.mfa.tenants().providers(&PUBLIC).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn what_cant_be_right_is_told_at_the_start() {
    let client = || ProviderClient::new("shop", Secret::new("s".to_owned()));
    let built = |provider: Provider| {
        let app = AppInfo::new("Shop", "https://api.shop.test", "https://shop.test").unwrap();
        let secrets = Secrets::random().unwrap();
        let settings = ThirdParty::new(Reqwest::new().unwrap()).provider(provider);
        Mfa::builder(app, secrets, MemoryStore::new()).without_passwordless().third_party(settings).build()
    };
    built(Provider::google(client())).unwrap();
    for (provider, problem) in [
        (Provider::google(client()).with_id(""), "must be 1 to 64"),
        (Provider::google(client()).with_name(" "), "a name for people"),
        (Provider::oidc("x", "X", "http://127.0.0.1:1", client()), "https URLs"),
        (Provider::oidc("x", "X", "http://id.example", client()).insecure_loopback(), "https URLs"),
        (
            Provider::oidc("x", "X", "http://localhost.mallory.example", client()).insecure_loopback(),
            "https URLs",
        ),
        (Provider::oidc("x", "X", "http://localhost:1", client()), "https URLs"),
        (Provider::oidc("x", "X", "not a URL", client()), "https URLs"),
        (Provider::oidc("x", "X", "https://id.example?x", client()), "no query"),
        (Provider::google(client()).also_client(client()), "a kind of its own"),
        (Provider::google(ProviderClient::public("")), "client id is empty"),
        (Provider::google(ProviderClient::new("x", Secret::new(String::new()))), "secret is empty"),
        (Provider::apple(ProviderClient::apple("x", "t", "k", Secret::new("x".to_owned()))), "P-256"),
        (Provider::github(client()).fields("id", "/email", None), "JSON pointers"),
        (Provider::google(client()).redirect_uri("/callback"), "absolute"),
    ] {
        let error = built(provider).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[tokio::test]
async fn several_clients_of_one_provider() {
    let server = ProviderServer::start(json!({})).await;
    let provider = server
        .oidc()
        .also_client(ProviderClient::public("app").kind("ios"))
        .redirect_uri("com.example.shop:/callback");
    let app = app(provider).await;
    let mut alice = app.browser(Mode::Header);
    let ask = |uri: &str, more: &str| {
        format!("/auth/authorisationurl?thirdPartyId=loopback&redirectURIOnProviderDashboard={uri}{more}")
    };
    // The page is offered what it can be sent to.
    for (kind, offered) in [("", true), ("?clientType=ios", true), ("?clientType=android", false)] {
        let methods = alice.get(&format!("/auth/loginmethods{kind}")).await.ok();
        let loopback = json!({ "id": "loopback", "name": "Loopback" });
        let listed = if offered { json!([loopback]) } else { json!([]) };
        assert_eq!(methods["thirdParty"], json!({ "enabled": true, "providers": listed }), "{kind}");
        let begun = alice.get(&ask(CALLBACK, &kind.replace('?', "&"))).await;
        assert_eq!(begun.status == 200, offered, "{kind} {}", begun.text);
    }
    let web = alice.get(&ask(CALLBACK, "")).await.ok();
    let ios = alice.get(&ask(CALLBACK, "&clientType=ios")).await.ok();
    assert!(web["urlWithQueryParams"].as_str().unwrap().contains("client_id=shop&"));
    assert!(ios["urlWithQueryParams"].as_str().unwrap().contains("client_id=app&"));
    alice.get(&ask("com.example.shop:/callback", "&clientType=ios")).await.ok();
    alice.get(&ask("com.example.shop:/other", "&clientType=ios")).await.is(400);
    let query = server.visit(ios["urlWithQueryParams"].as_str().unwrap(), "alice").await;
    let mut body = returned(&ios, query);
    body["clientType"] = json!("ios");
    alice.post("/auth/signinup", body).await.ok();
}

#[tokio::test]
async fn one_address_can_sign_in_so_often_only() {
    let server = ProviderServer::start(json!({})).await;
    let settings = ThirdParty::new(Reqwest::new().unwrap()).provider(server.oidc());
    let app = TestApp::limited(|b| {
        b.third_party(settings).peer(|_, _| Some(std::net::IpAddr::from([203, 0, 113, 7])))
    })
    .await;
    let mut alice: Browser = app.browser(Mode::Cookie);
    let begun = json!({ "pkceCodeVerifier": "x".repeat(43) });
    let body = returned(&begun, json!({ "code": "wrong", "iss": server.issuer() }));
    for _ in 0..100 {
        alice.post("/auth/signinup", body.clone()).await.status("GENERAL_ERROR");
    }
    let asked = server.asked("/token");
    assert_eq!(asked, 100);
    let answer = alice.post("/auth/signinup", body).await;
    answer.status("GENERAL_ERROR");
    assert!(
        answer.headers.contains_key(header::RETRY_AFTER) && answer.text.contains("Too many"),
        "{}",
        answer.text
    );
    assert_eq!(server.asked("/token"), asked);
}
