//! Issuers that mean no good, that change their keys, that are slow or down.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use axum::{Router, extract::Request, response::Response};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_mfa::{
    config::{HttpClient, Reqwest},
    factor::{OAuth2Endpoints, Provider, ProviderClient, ThirdParty},
    ident::{BoxError, Secret, Timestamp},
};

use crate::{
    spy::ALICE,
    support::{
        Answer, HandClock, Mode, START, TestApp,
        provider::{begin, returned},
    },
};

const SECRET: &str = "a secret of the shop's";

/// Signs what it is told to.
struct Signer {
    pair: EcdsaKeyPair,
    kid: String,
}

impl Signer {
    fn new(kid: &str) -> Self {
        Self { pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(), kid: kid.to_owned() }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid, "x": x, "y": y })
    }

    fn sign(&self, claims: &Value) -> String {
        let message = message(&json!({ "alg": "ES256", "kid": self.kid }), &claims.to_string());
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64.encode(signature))
    }
}

fn message(header: &Value, claims: &str) -> String {
    format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims))
}

/// An issuer on loopback that answers whatever a test wants.
#[derive(Clone)]
struct Issuer {
    url: String,
    pages: Arc<Mutex<BTreeMap<String, (u16, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Issuer {
    async fn new(signer: &Signer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Self { url, pages: Arc::default(), asked: Arc::default() };
        let (pages, asked) = (Arc::clone(&issuer.pages), Arc::clone(&issuer.asked));
        let router = Router::new().fallback(move |request: Request| {
            let path = request.uri().path().to_owned();
            asked.lock().unwrap().push(path.clone());
            let (status, body) = pages.lock().unwrap().get(&path).cloned().unwrap_or((404, String::new()));
            async move {
                // Whoever asks at the same time comes before the answer.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let answer = Response::builder().status(status).header("content-type", "application/json");
                answer.header("location", "/elsewhere").body(axum::body::Body::from(body)).unwrap()
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        issuer.says("/.well-known/openid-configuration", issuer.document());
        issuer.says("/keys", json!({ "keys": [signer.jwk()] }));
        issuer.says("/me", json!({ "sub": "alice", "email": ALICE, "email_verified": true }));
        issuer.signs(signer.sign(&issuer.claims()));
        issuer
    }

    fn document(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.url);
        json!({
            "issuer": self.url,
            "authorization_endpoint": at("/auth"),
            "token_endpoint": at("/token"),
            "userinfo_endpoint": at("/me"),
            "jwks_uri": at("/keys"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
        })
    }

    /// Of Alice, for the shop, now.
    fn claims(&self) -> Value {
        json!({
            "iss": self.url,
            "aud": "shop",
            "sub": "alice",
            "email": ALICE,
            "email_verified": true,
            "iat": START,
            "exp": START + 300,
        })
    }

    fn with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value,
        }
        claims
    }

    fn answers(&self, path: &str, status: u16, body: impl Into<String>) {
        self.pages.lock().unwrap().insert(path.to_owned(), (status, body.into()));
    }

    fn says(&self, path: &str, body: Value) {
        self.answers(path, 200, body.to_string());
    }

    fn signs(&self, id_token: String) {
        self.says("/token", json!({ "access_token": "a", "token_type": "Bearer", "id_token": id_token }));
    }

    fn asked(&self, path: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == path).count()
    }

    fn documents(&self) -> usize {
        self.asked("/.well-known/openid-configuration")
    }

    fn provider(&self) -> Provider {
        let client = ProviderClient::new("shop", Secret::new(SECRET.to_owned()));
        Provider::oidc("loopback", "Loopback", &self.url, client).insecure_loopback()
    }

    async fn app(&self) -> TestApp {
        app(Reqwest::new().unwrap(), self.provider()).await
    }
}

async fn app(client: impl HttpClient, provider: Provider) -> TestApp {
    TestApp::with(|b| b.third_party(ThirdParty::new(client).provider(provider))).await
}

async fn sign_in(app: &TestApp) -> Answer {
    let mut alice = app.browser(Mode::Cookie);
    let answer = alice.post("/auth/signinup", returned(&json!({}), json!({ "code": "c" }))).await;
    // Whatever goes wrong there has nothing to do with a session.
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(alice.jar.is_empty(), answer.body["status"] != "OK", "{}", answer.text);
    answer
}

fn down(answer: &Answer, what: &str) {
    assert_eq!(answer.body["status"], "GENERAL_ERROR", "{what}: {}", answer.text);
    assert!(answer.body["message"].as_str().unwrap().contains("can't be reached"), "{what}: {}", answer.text);
}

fn refused(answer: &Answer, what: &str) {
    assert_eq!(answer.body["status"], "GENERAL_ERROR", "{what}: {}", answer.text);
    assert!(answer.body["message"].as_str().unwrap().contains("wasn't completed"), "{what}: {}", answer.text);
}

#[tokio::test]
async fn an_id_token_holds_or_nobody_is_signed_in() {
    let signer = Signer::new("one");
    let issuer = Issuer::new(&signer).await;
    let app = issuer.app().await;
    sign_in(&app).await.ok();
    let impostor = Signer::new("one");
    let claims = issuer.claims();
    let shared = |key: &[u8]| {
        let message = message(&json!({ "alg": "HS256", "kid": "one" }), &claims.to_string());
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
        format!("{message}.{}", BASE64.encode(mac))
    };
    let good = signer.sign(&claims);
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    let other = signer.sign(&issuer.with("sub", json!("mallory")));
    let mixed = format!("{}.{}", other.rsplit_once('.').unwrap().0, good.rsplit_once('.').unwrap().1);
    let twice = message(
        &json!({ "alg": "ES256", "kid": "one" }),
        &claims.to_string().replacen('{', "{\"sub\":\"mallory\",", 1),
    );
    let twice = format!(
        "{twice}.{}",
        BASE64.encode(signer.pair.sign(&SystemRandom::new(), twice.as_bytes()).unwrap())
    );
    for (what, token) in [
        ("another key", impostor.sign(&claims)),
        ("no signature", format!("{}.", message(&json!({ "alg": "none" }), &claims.to_string()))),
        ("a signature cut off", format!("{unsigned}.")),
        ("another's signature", mixed),
        ("the client secret as key", shared(SECRET.as_bytes())),
        ("the public key as secret", shared(signer.pair.public_key().as_ref())),
        ("another issuer", signer.sign(&issuer.with("iss", json!("https://id.mallory.example")))),
        ("no issuer", signer.sign(&issuer.with("iss", Value::Null))),
        ("another app", signer.sign(&issuer.with("aud", json!("other")))),
        ("another app as well", signer.sign(&issuer.with("aud", json!(["shop", "other"])))),
        ("no audience", signer.sign(&issuer.with("aud", Value::Null))),
        ("for another party", signer.sign(&issuer.with("azp", json!("other")))),
        ("over", signer.sign(&issuer.with("exp", json!(START)))),
        ("without end", signer.sign(&issuer.with("exp", Value::Null))),
        ("of tomorrow", signer.sign(&issuer.with("iat", json!(START + 301)))),
        ("of nobody", signer.sign(&issuer.with("sub", Value::Null))),
        ("two subjects", twice),
    ] {
        issuer.signs(token);
        let answer = sign_in(&app).await;
        assert_eq!(answer.body["status"], "GENERAL_ERROR", "{what}: {}", answer.text);
    }
    for subject in [json!(""), json!("x".repeat(256)), json!("a\u{0}b")] {
        issuer.signs(signer.sign(&issuer.with("sub", subject.clone())));
        down(&sign_in(&app).await, &subject.to_string());
    }
    for (what, tokens) in [
        ("none", json!({ "access_token": "a", "token_type": "Bearer" })),
        ("no JWT", json!({ "access_token": "a", "token_type": "Bearer", "id_token": "x" })),
        ("no tokens", json!({ "id_token": good })),
    ] {
        issuer.says("/token", tokens);
        let answer = sign_in(&app).await;
        assert_eq!(answer.body["status"], "GENERAL_ERROR", "{what}: {}", answer.text);
    }
    // What the user info says of somebody else isn't used; what was signed stands.
    issuer.signs(signer.sign(&issuer.with("email", Value::Null)));
    issuer.says("/me", json!({ "sub": "mallory", "email": ALICE, "email_verified": true }));
    refused(&sign_in(&app).await, "another's user info");
    issuer.says("/me", json!({ "email": ALICE, "email_verified": true }));
    refused(&sign_in(&app).await, "nobody's user info");
    assert_eq!(app.store.sessions().await.len(), 1);
    issuer.signs(good);
    sign_in(&app).await.ok();
}

/// Google issues what an Android app gets to the Android client, for the web client.
#[tokio::test]
async fn sec_l14_an_id_token_may_be_issued_to_another_client_of_the_apps_own() {
    let signer = Signer::new("one");
    let issuer = Issuer::new(&signer).await;
    let provider =
        issuer.provider().also_client(ProviderClient::public("android").kind("android")).accept_id_tokens();
    let app = app(Reqwest::new().unwrap(), provider).await;
    let post = async |claims: Value, kind: Value| {
        let tokens = json!({ "id_token": signer.sign(&claims) });
        let mut body = json!({ "thirdPartyId": "loopback", "oAuthTokens": tokens });
        if !kind.is_null() {
            body["clientType"] = kind;
        }
        app.browser(Mode::Cookie).post("/auth/signinup", body).await
    };
    post(issuer.with("azp", json!("android")), Value::Null).await.ok();
    post(issuer.with("azp", json!("shop")), Value::Null).await.ok();
    for (azp, kind) in
        [(json!("other"), Value::Null), (json!(7), Value::Null), (json!("shop"), json!("android"))]
    {
        refused(&post(issuer.with("azp", azp.clone()), kind).await, &azp.to_string());
    }
    let mut several = issuer.with("azp", json!("android"));
    several["aud"] = json!(["shop", "other"]);
    refused(&post(several, Value::Null).await, "for another app as well");
}

#[tokio::test]
async fn a_provider_that_always_says_who_answers_must_have_said_so() {
    let signer = Signer::new("one");
    let issuer = Issuer::new(&signer).await;
    let by = async |app: &TestApp, iss: Option<&str>| {
        let mut query = json!({ "code": "c" });
        if let Some(iss) = iss {
            query["iss"] = json!(iss);
        }
        app.browser(Mode::Cookie).post("/auth/signinup", returned(&json!({}), query)).await
    };
    let silent = issuer.app().await;
    by(&silent, None).await.ok();
    let mut document = issuer.document();
    document["authorization_response_iss_parameter_supported"] = json!(true);
    issuer.says("/.well-known/openid-configuration", document);
    let asked = issuer.asked("/token");
    let app = issuer.app().await;
    refused(&by(&app, None).await, "nobody");
    refused(&by(&app, Some("https://id.mallory.example")).await, "somebody else");
    assert_eq!(issuer.asked("/token"), asked);
    by(&app, Some(&issuer.url)).await.ok();
}

#[tokio::test]
async fn a_document_is_followed_where_it_may_be() {
    let signer = Signer::new("one");
    let issuer = Issuer::new(&signer).await;
    let document = "/.well-known/openid-configuration";
    let with = |name: &str, value: Value| {
        let mut document = issuer.document();
        document[name] = value;
        document.to_string()
    };
    for (what, status, body) in [
        ("another issuer", 200, with("issuer", json!("https://id.mallory.example"))),
        ("plain http", 200, with("token_endpoint", json!("http://id.example/token"))),
        ("an inner host", 200, with("jwks_uri", json!("http://10.0.0.1/keys"))),
        ("credentials", 200, with("userinfo_endpoint", json!("https://alice@id.example/me"))),
        ("a file", 200, with("authorization_endpoint", json!("file:///etc/passwd"))),
        ("no token endpoint", 200, with("token_endpoint", Value::Null)),
        ("keys that aren't there", 200, with("jwks_uri", json!(format!("{}/nothing", issuer.url)))),
        ("no JSON", 200, "<html>".to_owned()),
        ("500", 500, issuer.document().to_string()),
        ("404", 404, String::new()),
        ("a redirect", 302, String::new()),
        ("too long", 200, format!("{}{}", issuer.document(), " ".repeat(70_000))),
    ] {
        issuer.answers(document, status, body);
        let app = issuer.app().await;
        down(&begin(&mut app.browser(Mode::Cookie)).await, what);
        down(&sign_in(&app).await, what);
    }
    assert_eq!((issuer.asked("/token"), issuer.asked("/elsewhere")), (0, 0));
    // Loopback is nothing that a document may name unless the provider was set so.
    let provider =
        Provider::oidc("loopback", "Loopback", "https://id.example", ProviderClient::public("shop"));
    let mut says = issuer.document();
    says["issuer"] = json!("https://id.example");
    let app = app(Fixed(says.to_string()), provider).await;
    down(&begin(&mut app.browser(Mode::Cookie)).await, "loopback");
}

/// By name: what it means is settled by the app, and only loopback is meant.
#[tokio::test]
async fn localhost_is_this_machine_by_its_address() {
    let signer = Signer::new("one");
    let mut issuer = Issuer::new(&signer).await;
    issuer.url = issuer.url.replace("127.0.0.1", "localhost");
    issuer.says("/.well-known/openid-configuration", issuer.document());
    issuer.signs(signer.sign(&issuer.claims()));
    let app = issuer.app().await;
    sign_in(&app).await.ok();
    let begun = begin(&mut app.browser(Mode::Cookie)).await.ok();
    assert!(begun["urlWithQueryParams"].as_str().unwrap().starts_with("http://localhost:"), "{begun}");
}

/// Says the same to everybody.
struct Fixed(String);

impl HttpClient for Fixed {
    async fn send(&self, _: http::Request<Bytes>) -> Result<http::Response<Bytes>, BoxError> {
        Ok(http::Response::new(Bytes::from(self.0.clone())))
    }
}

#[tokio::test]
async fn what_the_token_endpoint_answers() {
    let issuer = Issuer::new(&Signer::new("one")).await;
    let app = issuer.app().await;
    for (status, body, is_down) in [
        (400, json!({ "error": "invalid_grant" }).to_string(), false),
        (200, json!({ "error": "bad_verification_code" }).to_string(), false),
        (401, json!({ "error": "invalid_client" }).to_string(), true),
        (400, json!({ "error": "unauthorized_client" }).to_string(), true),
        (500, String::new(), true),
        (502, "<html>".to_owned(), true),
        (200, "<html>".to_owned(), true),
        (302, String::new(), true),
        (200, "{}".to_owned(), true),
        (200, " ".repeat(70_000), true),
    ] {
        issuer.answers("/token", status, body.clone());
        let answer = sign_in(&app).await;
        if is_down { down(&answer, &body) } else { refused(&answer, &body) }
    }
    assert_eq!(issuer.asked("/elsewhere"), 0);
    assert!(app.store.sessions().await.is_empty());
}

#[tokio::test]
async fn keys_are_read_again_once_a_minute_at_most() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let issuer = Issuer::new(&old).await;
    let app = issuer.app().await;
    sign_in(&app).await.ok();
    assert_eq!(issuer.asked("/keys"), 1);
    // The issuer changed its keys a moment later: for a minute that looks like somebody's own.
    issuer.says("/keys", json!({ "keys": [new.jwk()] }));
    let later = |seconds: i64| {
        let mut claims = issuer.with("iat", json!(START + seconds));
        claims["exp"] = json!(START + seconds + 300);
        claims
    };
    issuer.signs(new.sign(&later(60)));
    for _ in 0..5 {
        refused(&sign_in(&app).await, "unknown key");
    }
    assert_eq!(issuer.asked("/keys"), 1);
    app.clock.advance(Duration::from_secs(60));
    sign_in(&app).await.ok();
    sign_in(&app).await.ok();
    assert_eq!(issuer.asked("/keys"), 2);
    // Keys that nobody ever had don't make it ask for each.
    for n in 0..20 {
        issuer.signs(Signer::new(&format!("key-{n}")).sign(&later(60)));
        refused(&sign_in(&app).await, "nobody's key");
    }
    assert_eq!(issuer.asked("/keys"), 2);
    app.clock.advance(Duration::from_secs(3600));
    issuer.signs(new.sign(&later(3660)));
    sign_in(&app).await.ok();
    assert_eq!((issuer.asked("/keys"), issuer.documents()), (3, 3));
}

#[tokio::test]
async fn many_at_once_read_it_once_and_a_day_long_it_may_be_down() {
    let issuer = Issuer::new(&Signer::new("one")).await;
    let app = issuer.app().await;
    let crowd = async || {
        let asks = (0..20).map(|_| {
            let mut alice = app.browser(Mode::Cookie);
            async move { begin(&mut alice).await }
        });
        futures_util::future::join_all(asks).await
    };
    issuer.answers("/.well-known/openid-configuration", 503, "");
    for answer in crowd().await {
        down(&answer, "down");
    }
    assert_eq!(issuer.documents(), 1);
    issuer.says("/.well-known/openid-configuration", issuer.document());
    down(&begin(&mut app.browser(Mode::Cookie)).await, "it rests");
    app.clock.advance(Duration::from_secs(5));
    for answer in crowd().await {
        answer.ok();
    }
    assert_eq!(issuer.documents(), 2);
    // What it said stays good while it is down, for a day.
    issuer.answers("/.well-known/openid-configuration", 503, "");
    app.clock.advance(Duration::from_secs(3600));
    for answer in crowd().await {
        answer.ok();
    }
    assert_eq!(issuer.documents(), 3);
    app.clock.advance(Duration::from_secs(23 * 3600));
    for answer in crowd().await {
        down(&answer, "a day later");
    }
    assert_eq!(issuer.documents(), 4);
}

/// Never answers.
#[derive(Clone, Default)]
struct Silent(Arc<Mutex<usize>>);

impl HttpClient for Silent {
    async fn send(&self, _: http::Request<Bytes>) -> Result<http::Response<Bytes>, BoxError> {
        *self.0.lock().unwrap() += 1;
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn who_never_answers_is_waited_for_ten_seconds_and_by_so_many() {
    let client = ProviderClient::new("shop", Secret::new(SECRET.to_owned()));
    let at = |path: &str| format!("https://id.example/{path}");
    let endpoints = OAuth2Endpoints::new(at("authorise"), at("token"), at("user"));
    let silent = Silent::default();
    let app = app(silent.clone(), Provider::oauth2("loopback", "Loopback", endpoints, client)).await;
    let from = tokio::time::Instant::now();
    let crowd: Vec<_> = (0..32)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move { sign_in(&app).await })
        })
        .collect();
    while *silent.0.lock().unwrap() < 32 {
        tokio::task::yield_now().await;
    }
    // There is room for so many; others are told at once, and whoever signs in otherwise is served.
    down(&sign_in(&app).await, "full");
    app.browser(Mode::Cookie).by_code(ALICE).await;
    assert_eq!(*silent.0.lock().unwrap(), 32);
    for one in crowd {
        down(&one.await.unwrap(), "silent");
    }
    let waited = from.elapsed();
    assert!(waited >= Duration::from_secs(10) && waited < Duration::from_secs(12), "{waited:?}");
}

#[tokio::test]
async fn times_are_judged_by_the_apps_clock() {
    let signer = Signer::new("one");
    let issuer = Issuer::new(&signer).await;
    let clock = HandClock::at(START + 299);
    let settings = ThirdParty::new(Reqwest::new().unwrap()).provider(issuer.provider());
    let app = TestApp::with(|b| b.clock(clock.clone()).third_party(settings)).await;
    sign_in(&app).await.ok();
    clock.advance(Duration::from_secs(1));
    refused(&sign_in(&app).await, "over");
    assert_eq!(tower_mfa::Clock::now(&clock), Timestamp::from_secs(START + 300));
}
