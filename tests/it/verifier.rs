//! Sessions of another issuer: verified by the keys that it serves over HTTP, without a store.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize, PublicKeyComponents},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    response::Response,
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::stream;
use http::{Method, Request, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_mfa::{
    FactorId, MfaBuilder, MfaLayer, RequireFactors, SessionClaim, SessionExtractor,
    claim::{ClaimContext, ClaimError, HasValue},
    config::{AntiCsrf, AppInfo, SigningAlg, Stale},
    ident::Payload,
    layer::Verifier,
    policy::Everyone,
};

use crate::{
    spy::{ALICE, BOB},
    support::{Answer, Browser, HandClock, Mode, START, TestApp, send},
};

/// What the issuer's key set is at the moment.
#[derive(Clone)]
enum KeySet {
    Served,
    Down,
    Never,
    /// A byte now and then, for ever.
    Drips,
    Moved(String),
    Other(Bytes),
}

/// An issuer on loopback, whose key set can fail, and is counted.
#[derive(Clone)]
struct Issuer {
    app: TestApp,
    keys: Arc<Mutex<KeySet>>,
    fetched: Arc<AtomicUsize>,
    url: String,
}

impl Issuer {
    async fn new() -> Self {
        Self::with(|b| b.policy(Everyone::new(FactorId::OTP_EMAIL))).await
    }

    async fn with(change: impl FnOnce(MfaBuilder) -> MfaBuilder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let info = AppInfo::new("Shop", &origin, &origin).unwrap();
        let app = TestApp::of(info, |b| change(b.signing(SigningAlg::EdDsa))).await;
        let url = format!("{origin}/auth");
        let issuer = Self { app, keys: Arc::new(Mutex::new(KeySet::Served)), fetched: Arc::default(), url };
        let router = Router::new()
            .route("/auth/jwt/jwks.json", get(key_set))
            .with_state(issuer.clone())
            .fallback_service(issuer.app.router());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        issuer
    }

    fn set(&self, keys: KeySet) {
        *self.keys.lock().unwrap() = keys;
    }

    fn fetched(&self) -> usize {
        self.fetched.load(Ordering::SeqCst)
    }

    fn clock(&self) -> &HandClock {
        &self.app.clock
    }

    fn verifier(&self) -> Verifier {
        Verifier::plain_http_on_loopback(&self.url).unwrap().clock(self.clock().clone())
    }

    /// Somebody who signed in there, and completed the code.
    async fn full(&self, mode: Mode, email: &str) -> Browser {
        let mut client = self.app.browser(mode);
        client.sign_up(email).await.ok();
        client.pass_code(email).await;
        client
    }
}

async fn key_set(State(issuer): State<Issuer>) -> Response {
    issuer.fetched.fetch_add(1, Ordering::SeqCst);
    let keys = issuer.keys.lock().unwrap().clone();
    match keys {
        KeySet::Served => {
            let request = Request::get("/auth/jwt/jwks.json").body(Body::empty()).unwrap();
            Response::new(Body::from(issuer.app.send(request).await.text))
        }
        KeySet::Down => Response::builder().status(503).body(Body::empty()).unwrap(),
        KeySet::Never => std::future::pending().await,
        KeySet::Drips => Response::new(Body::from_stream(stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
        }))),
        KeySet::Moved(to) => {
            Response::builder().status(302).header("location", to).body(Body::empty()).unwrap()
        }
        KeySet::Other(document) => Response::new(Body::from(document)),
    }
}

struct Plan;

impl SessionClaim for Plan {
    const KEY: &'static str = "plan";
    type Value = String;

    async fn fetch(&self, _: &ClaimContext<'_>) -> Result<Option<String>, ClaimError> {
        Ok(Some("gold".to_owned()))
    }
}

async fn who(session: SessionExtractor) -> String {
    format!("{} in {}", session.user_id(), session.tenant_id())
}

/// Every way to write, and what comes of it.
async fn writes(session: SessionExtractor) -> String {
    let note = Payload::from_json(json!({ "note": 1 })).unwrap();
    let all = [
        session.set_claim(&Plan, "gold".to_owned()).await,
        session.remove_claim(&Plan).await,
        session.merge_payload(note).await,
        session.revoke().await,
    ];
    all.map(|done| done.map_or_else(|error| format!("{:?}", error.kind()), |()| "done".to_owned())).join(" ")
}

fn resource(layer: MfaLayer) -> Router {
    let fresh = RequireFactors::one_of([FactorId::OTP_EMAIL]).max_age(Duration::from_secs(300));
    Router::new()
        .route("/who", get(who).post(who))
        .route("/writes", get(writes))
        .route("/fresh", get(who).route_layer(fresh))
        .route("/totp", get(who).route_layer(RequireFactors::one_of([FactorId::TOTP])))
        .layer(layer)
}

async fn ask(router: &Router, client: &Browser, path: &str) -> Answer {
    send(router, client.request(Method::GET, path, None)).await
}

async fn status(router: &Router, client: &Browser) -> u16 {
    ask(router, client, "/who").await.status.as_u16()
}

async fn bearer(router: &Router, token: &str) -> Answer {
    let request = Request::get("/who").header("authorization", format!("Bearer {token}"));
    send(router, request.body(Body::empty()).unwrap()).await
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token of the right shape whose key nobody has.
fn unknown(n: usize) -> String {
    let head = json!({ "alg": "EdDSA", "typ": "JWT", "version": "5", "kid": format!("d-{n}") });
    format!("{}.{}.{}", encoded(&head), encoded(&json!({ "sub": "x" })), URL_SAFE_NO_PAD.encode([7; 64]))
}

#[tokio::test]
async fn another_towers_sessions_are_verified_by_its_keys_alone() {
    let issuer = Issuer::new().await;
    let verifier = issuer.verifier();
    let router = resource(MfaLayer::verify_only(verifier.clone()));
    assert!(!verifier.is_ready());
    for (n, mode) in [Mode::Cookie, Mode::Header].into_iter().enumerate() {
        let email = [ALICE, BOB][n];
        let mut client = issuer.app.browser(mode);
        client.sign_up(email).await.ok();
        let half = ask(&router, &client, "/who").await;
        assert_eq!((half.status.as_u16(), &half.body["message"]), (403, &json!("invalid claim")), "{mode:?}");
        client.pass_code(email).await;
        for _ in 0..50 {
            let user = client.payload("sub");
            assert_eq!(
                ask(&router, &client, "/who").await.text,
                format!("{} in public", user.as_str().unwrap())
            );
        }
        ask(&router, &client, "/fresh").await.is(200);
        ask(&router, &client, "/totp").await.is(403);
        // What may change something by a cookie needs its proof; a header token doesn't.
        let mut post = client.request(Method::POST, "/who", None);
        assert_eq!(send(&router, post).await.status, 200);
        post = client.request(Method::POST, "/who", None);
        post.headers_mut().remove("rid");
        assert_eq!(send(&router, post).await.status, if mode == Mode::Cookie { 401 } else { 200 });
        assert_eq!(ask(&router, &client, "/writes").await.text, "Invalid Invalid Invalid Invalid");
    }
    assert_eq!((issuer.fetched(), verifier.counters().fetches, verifier.counters().failures), (1, 1, 0));
    assert!(verifier.is_ready());
    // Nobody, and nonsense.
    let nobody = Request::get("/who").body(Body::empty()).unwrap();
    assert_eq!(send(&router, nobody).await.status, 401);
    assert_eq!(bearer(&router, "not.a.token").await.status, 401);
    // It ends with the token.
    let alice = issuer.full(Mode::Header, "carol@shop.example").await;
    issuer.clock().advance(Duration::from_secs(3700));
    let over = ask(&router, &alice, "/who").await;
    assert_eq!((over.status.as_u16(), &over.body["message"]), (401, &json!("try refresh token")));
}

#[tokio::test]
async fn a_factor_that_is_too_old_is_refused_and_api_clients_are_challenged() {
    let issuer = Issuer::new().await;
    let plain = resource(MfaLayer::verify_only(issuer.verifier()));
    let api = resource(MfaLayer::verify_only(issuer.verifier()).bearer_challenges());
    let (header, cookie) = (issuer.full(Mode::Header, ALICE).await, issuer.full(Mode::Cookie, BOB).await);
    issuer.clock().advance(Duration::from_secs(400));
    for (router, client, status) in [(&plain, &header, 403), (&api, &header, 401), (&api, &cookie, 403)] {
        let refused = ask(router, client, "/fresh").await;
        assert_eq!((refused.status.as_u16(), &refused.body["next"]), (status, &json!(["otp-email"])));
        let challenge = refused.headers.get(header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap());
        assert_eq!(challenge.is_some(), status == 401);
        if let Some(challenge) = challenge {
            assert!(challenge.contains("insufficient_user_authentication"), "{challenge}");
            assert!(challenge.contains("urn:tower-mfa:factor:otp-email\", max_age=\"300\""), "{challenge}");
        }
    }
    // The mount's own refusal is told in the same way.
    let mut half = issuer.app.browser(Mode::Header);
    half.sign_up("carol@shop.example").await.ok();
    ask(&api, &half, "/who").await.is(401);
    ask(&plain, &half, "/who").await.is(403);
    // So is a token that is missing, or bad (RFC 6750).
    issuer.clock().advance(Duration::from_secs(3700));
    let stranger = issuer.app.browser(Mode::Header);
    for (router, client, challenge) in [
        (&api, &stranger, Some("Bearer realm=\"session\"")),
        (&api, &header, Some("Bearer error=\"invalid_token\"")),
        (&api, &cookie, None),
        (&plain, &stranger, None),
        (&plain, &header, None),
    ] {
        let refused = ask(router, client, "/who").await;
        let told = refused.headers.get(header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap());
        assert_eq!((refused.status.as_u16(), told), (401, challenge));
    }
}

async fn revoke_all(issuer: &Issuer) {
    for key in issuer.app.mfa.keys().list().await.unwrap() {
        issuer.app.mfa.keys().revoke(&key.kid).await.unwrap();
    }
}

#[tokio::test]
async fn sec_j07_j08_keys_that_change_are_followed() {
    let issuer = Issuer::new().await;
    let router = resource(MfaLayer::verify_only(issuer.verifier()));
    let old = issuer.full(Mode::Header, ALICE).await;
    assert_eq!(status(&router, &old).await, 200);
    // A rotation: the next key signs a minute later, and both verify.
    issuer.app.mfa.keys().rotate().await.unwrap();
    issuer.clock().advance(Duration::from_secs(61));
    let new = issuer.full(Mode::Header, BOB).await;
    for _ in 0..20 {
        assert_eq!((status(&router, &new).await, status(&router, &old).await), (200, 200));
    }
    assert_eq!(issuer.fetched(), 2);
    // An emergency: the keys are revoked. The first token of the next one brings the news.
    revoke_all(&issuer).await;
    issuer.clock().advance(Duration::from_secs(6));
    let next = issuer.full(Mode::Header, "carol@shop.example").await;
    assert_eq!(status(&router, &next).await, 200);
    assert_eq!((status(&router, &new).await, issuer.fetched()), (401, 3));
    // And where no other token comes, the set's age does.
    revoke_all(&issuer).await;
    issuer.clock().advance(Duration::from_secs(60));
    let mut seen = Vec::new();
    for _ in 0..500 {
        seen.push(status(&router, &next).await);
        if seen.last() == Some(&401) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!((seen.first(), seen.last(), issuer.fetched()), (Some(&200), Some(&401), 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_j06_j30_a_flood_of_unknown_keys_causes_one_fetch() {
    for keys in [KeySet::Served, KeySet::Down, KeySet::Never] {
        let issuer = Issuer::new().await;
        let verifier = issuer.verifier();
        let router = resource(MfaLayer::verify_only(verifier.clone()));
        let alice = issuer.full(Mode::Header, ALICE).await;
        assert_eq!(status(&router, &alice).await, 200);
        issuer.clock().advance(Duration::from_secs(6));
        issuer.set(keys);
        let flood = (0..8).map(|lane| {
            let router = router.clone();
            tokio::spawn(async move {
                for n in 0..250 {
                    assert_eq!(bearer(&router, &unknown(lane * 250 + n)).await.status, 401);
                }
            })
        });
        let flood: Vec<_> = flood.collect();
        // Good tokens pass meanwhile, and wait for nobody.
        for _ in 0..100 {
            assert_eq!(status(&router, &alice).await, 200);
        }
        for lane in flood {
            lane.await.unwrap();
        }
        assert_eq!(issuer.fetched(), 2);
        let counters = verifier.counters();
        assert_eq!((counters.fetches, counters.unknown_keys), (2, 2000), "{counters:?}");
        issuer.clock().advance(Duration::from_secs(6));
        bearer(&router, &unknown(9000)).await.is(401);
        bearer(&router, &unknown(9000)).await.is(401);
        assert_eq!(issuer.fetched(), 3);
    }
}

#[tokio::test]
async fn an_issuer_that_is_down_is_bridged_but_not_for_ever() {
    let issuer = Issuer::new().await;
    let verifier = issuer.verifier().serve_known_keys_for(Duration::from_secs(600));
    let router = resource(MfaLayer::verify_only(verifier.clone()));
    let alice = issuer.full(Mode::Header, ALICE).await;
    issuer.set(KeySet::Down);
    // At the start there is nothing to go by: nobody is refused as a stranger, and nobody passes.
    for _ in 0..20 {
        let answer = ask(&router, &alice, "/who").await;
        assert_eq!(answer.status, 503);
        assert!(
            answer.headers.contains_key(header::RETRY_AFTER) && !answer.headers.contains_key("front-token")
        );
    }
    assert_eq!((issuer.fetched(), verifier.is_ready()), (1, false));
    // Who has no token is a stranger all the same, and costs no fetch.
    assert_eq!(send(&router, Request::get("/who").body(Body::empty()).unwrap()).await.status, 401);
    issuer.set(KeySet::Served);
    issuer.clock().advance(Duration::from_secs(5));
    assert_eq!(status(&router, &alice).await, 200);
    issuer.set(KeySet::Down);
    for _ in 0..9 {
        issuer.clock().advance(Duration::from_secs(61));
        assert_eq!(status(&router, &alice).await, 200);
    }
    issuer.clock().advance(Duration::from_secs(61));
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(status(&router, &alice).await, 503);
    issuer.clock().advance(Duration::from_secs(6));
    issuer.set(KeySet::Served);
    assert_eq!(status(&router, &alice).await, 200);
}

/// A runtime that stops takes its fetch with it, and the next one begins another.
#[tokio::test]
async fn sec_j30_a_fetch_that_is_dropped_holds_nobody_up() {
    let issuer = Issuer::new().await;
    let alice = issuer.full(Mode::Header, ALICE).await;
    issuer.set(KeySet::Never);
    let router = resource(MfaLayer::verify_only(issuer.verifier()));
    let (asked, shared) = (router.clone(), alice.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let early = tokio::time::timeout(Duration::from_millis(200), status(&asked, &shared)).await;
            assert!(early.is_err(), "nothing is known yet");
        });
    })
    .join()
    .unwrap();
    issuer.set(KeySet::Served);
    issuer.clock().advance(Duration::from_secs(6));
    let late = tokio::time::timeout(Duration::from_secs(20), status(&router, &alice)).await;
    assert_eq!(late.unwrap(), 200);
}

#[tokio::test]
async fn sec_j30_a_document_that_cant_be_taken_changes_nothing() {
    let issuer = Issuer::new().await;
    let router = resource(MfaLayer::verify_only(issuer.verifier()));
    let alice = issuer.full(Mode::Header, ALICE).await;
    assert_eq!(status(&router, &alice).await, 200);
    let served: Value = {
        let request = Request::get("/auth/jwt/jwks.json").body(Body::empty()).unwrap();
        issuer.app.send(request).await.body
    };
    let key = served["keys"][0].clone();
    let changed = |name: &str, value: Value| {
        let mut key = key.clone();
        key[name] = value;
        key
    };
    let twice = json!({ "keys": [key, changed("x", json!(URL_SAFE_NO_PAD.encode([9; 32])))] }).to_string();
    let elsewhere = Issuer::new().await;
    for (what, keys) in [
        ("too long", KeySet::Other(vec![b' '; 70 * 1024].into())),
        ("far too long", KeySet::Other(vec![b'x'; 100 << 20].into())),
        ("moved", KeySet::Moved(format!("{}/jwt/jwks.json", elsewhere.url))),
        ("one id twice", KeySet::Other(twice.into())),
        ("a member twice", KeySet::Other(r#"{"keys":[],"keys":[]}"#.into())),
        ("no JSON", KeySet::Other("<html>".into())),
        ("no keys", KeySet::Other(r#"{"keys":[]}"#.into())),
        ("no list", KeySet::Other(r#"{"keys":{}}"#.into())),
        (
            "a secret",
            KeySet::Other(json!({ "keys": [{ "kty": "oct", "kid": "a", "k": "AAAA" }] }).to_string().into()),
        ),
        ("a private key", KeySet::Other(json!({ "keys": [changed("d", json!("AAAA"))] }).to_string().into())),
        ("another use", KeySet::Other(json!({ "keys": [changed("use", json!("enc"))] }).to_string().into())),
        (
            "another algorithm",
            KeySet::Other(json!({ "keys": [changed("alg", json!("HS256"))] }).to_string().into()),
        ),
        ("an odd id", KeySet::Other(json!({ "keys": [changed("kid", json!("../x"))] }).to_string().into())),
        ("never", KeySet::Never),
        ("drop by drop", KeySet::Drips),
    ] {
        let before = issuer.fetched();
        issuer.set(keys);
        issuer.clock().advance(Duration::from_secs(7));
        let answer = tokio::time::timeout(Duration::from_secs(7), bearer(&router, &unknown(before))).await;
        answer.unwrap_or_else(|_| panic!("{what}: the fetch has no end")).is(401);
        assert_eq!(issuer.fetched(), before + 1, "{what}");
        assert_eq!(status(&router, &alice).await, 200, "{what}");
        issuer.set(KeySet::Served);
    }
    assert_eq!(elsewhere.fetched(), 0, "a redirect was followed");
    // What is odd in a set that is good otherwise is passed over: the good key stands.
    let mixed =
        json!({ "keys": [{ "kty": "oct", "kid": "a", "k": "AAAA" }, { "kty": "EC", "crv": "P-521" }, key] });
    issuer.set(KeySet::Other(mixed.to_string().into()));
    issuer.clock().advance(Duration::from_secs(7));
    let fresh = resource(MfaLayer::verify_only(issuer.verifier()));
    assert_eq!(status(&fresh, &alice).await, 200);
}

#[tokio::test]
async fn sec_j30_only_https_or_loopback_by_name() {
    for bad in [
        "http://api.shop.example/auth",
        "http://127.0.0.1:3001/auth",
        "https://user@api.shop.example/auth",
        "https://api.shop.example/auth/",
        "https://API.shop.example/auth",
        "https://api.shop.example/auth?x",
        "ftp://api.shop.example/auth",
        "api.shop.example",
        "",
    ] {
        assert!(Verifier::new(bad).is_err(), "{bad}");
    }
    for good in
        ["https://api.shop.example/auth", "https://api.shop.example:8443/a/b", "https://api.shop.example"]
    {
        assert!(Verifier::new(good).is_ok(), "{good}");
    }
    for bad in ["http://localhost:3001/auth", "http://10.0.0.1/auth", "https://127.0.0.1:3001/auth"] {
        assert!(Verifier::plain_http_on_loopback(bad).is_err(), "{bad}");
    }
    let verifier = Verifier::new("https://api.shop.example/auth").unwrap();
    assert!(verifier.clone().key_set_at("http://127.0.0.1:1/keys").is_err());
    assert!(verifier.key_set_at("https://core.shop.example/keys.json").is_ok());
}

#[tokio::test]
async fn what_needs_a_store_is_a_config_error_and_lets_nobody_through() {
    let issuer = Issuer::new().await;
    let alice = issuer.full(Mode::Header, ALICE).await;
    assert!(MfaLayer::verify_only(issuer.verifier()).checked().is_ok());
    for layer in [
        MfaLayer::verify_only(issuer.verifier()).check_store(),
        MfaLayer::verify_only(issuer.verifier()).when_stale(Stale::Refuse),
    ] {
        assert_eq!(status(&resource(layer.clone()), &alice).await, 500);
        assert!(layer.checked().unwrap_err().to_string().contains("only verifies"));
    }
    assert!(MfaLayer::required(issuer.app.mfa.clone()).check_store().checked().is_ok());
}

#[tokio::test]
async fn a_claim_that_isnt_there_is_refused_and_never_fetched() {
    let issuer = Issuer::new().await;
    let layer = || MfaLayer::verify_only(issuer.verifier());
    let alice = issuer.full(Mode::Header, ALICE).await;
    let gold = resource(layer().validate(HasValue::new(Plan, "gold".to_owned()).unwrap()));
    let refused = ask(&gold, &alice, "/who").await;
    assert_eq!(
        (refused.status.as_u16(), &refused.body["claimValidationErrors"][0]["id"]),
        (403, &json!("plan"))
    );
    let mut half = issuer.app.browser(Mode::Header);
    half.sign_up(BOB).await.ok();
    assert_eq!(status(&resource(layer()), &half).await, 403);
    assert_eq!(status(&resource(layer().without_mfa()), &half).await, 200);
}

#[tokio::test]
async fn the_anti_csrf_token_is_proven_by_token_and_header() {
    let issuer = Issuer::with(|b| b.anti_csrf(AntiCsrf::Token)).await;
    let router = resource(MfaLayer::verify_only(issuer.verifier().anti_csrf(AntiCsrf::Token)));
    let mut alice = issuer.app.browser(Mode::Cookie);
    let flow = alice.ask_code(ALICE, false).await.ok();
    let answer = alice.enter(&flow, &issuer.app.code(ALICE).await, false).await;
    let proof = answer.headers["anti-csrf"].clone();
    for (sent, expected) in [(None, 401), (Some("forged".parse().unwrap()), 401), (Some(proof), 200)] {
        let mut post = alice.request(Method::POST, "/who", None);
        sent.map(|proof| post.headers_mut().insert("anti-csrf", proof));
        assert_eq!(send(&router, post).await.status, expected);
    }
}

#[tokio::test]
async fn sec_m15_two_issuers_never_take_each_others_tokens() {
    let (one, other) = (Issuer::new().await, Issuer::new().await);
    let router = resource(MfaLayer::verify_only(one.verifier()));
    let (alice, mallory) = (one.full(Mode::Header, ALICE).await, other.full(Mode::Header, ALICE).await);
    assert_eq!((status(&router, &alice).await, status(&router, &mallory).await), (200, 401));
    // Not even by the same keys: the token says whose it is.
    let keys = other.url.clone() + "/jwt/jwks.json";
    let router = resource(MfaLayer::verify_only(one.verifier().key_set_at(&keys).unwrap()));
    assert_eq!(status(&router, &mallory).await, 401);
}

/// A core of SuperTokens, as far as its tokens show: a static key, its own order of members, none of ours.
struct Core {
    key: RsaKeyPair,
    issuer: Issuer,
}

impl Core {
    async fn new() -> Self {
        let (key, issuer) = (RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), Issuer::new().await);
        let parts: PublicKeyComponents<Vec<u8>> = key.public_key().into();
        let document = json!({ "keys": [{
            "kty": "RSA",
            "kid": "s-2de612a5-a5ba-413e-9216-4c43e2e78c86",
            "n": URL_SAFE_NO_PAD.encode(parts.n),
            "e": URL_SAFE_NO_PAD.encode(parts.e),
            "alg": "RS256",
            "use": "sig",
            "x5c": [],
        }] });
        issuer.set(KeySet::Other(document.to_string().into()));
        Self { key, issuer }
    }

    fn payload(&self) -> Value {
        json!({
            "iat": START,
            "exp": START + 3600,
            "sub": "ef2c0f5c-6b1c-4e0f-9d2f-d3c1f5a0b7aa",
            "tId": "public",
            "rsub": "ef2c0f5c-6b1c-4e0f-9d2f-d3c1f5a0b7aa",
            "sessionHandle": "c1ff2eb8-1c92-4c4f-8f0e-4d1ab9b0c6b9",
            "refreshTokenHash1": "a".repeat(64),
            "parentRefreshTokenHash1": null,
            "antiCsrfToken": null,
            "iss": self.issuer.url,
            "st-mfa": { "c": { "emailpassword": START, "otp-email": START }, "v": true },
            "st-role": { "v": ["admin"], "t": START * 1000 },
        })
    }

    fn sign(&self, payload: &Value) -> String {
        let head = json!({ "kid": "s-2de612a5-a5ba-413e-9216-4c43e2e78c86", "typ": "JWT", "version": "5", "alg": "RS256" });
        let text = format!("{}.{}", encoded(&head), encoded(payload));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[tokio::test]
async fn sec_j13_a_core_of_supertokens_is_told_by_its_tokens_shape() {
    let core = Core::new().await;
    let router = resource(MfaLayer::verify_only(core.issuer.verifier()));
    let good = core.payload();
    let changed = |name: &str, value: Value| {
        let mut payload = good.clone();
        payload[name] = value;
        core.sign(&payload)
    };
    let passed = bearer(&router, &core.sign(&good)).await;
    assert_eq!((passed.status.as_u16(), passed.text.ends_with(" in public")), (200, true), "{}", passed.text);
    bearer(&router, &changed("stt", json!(0))).await.is(200);
    for (name, value, expected) in [
        ("stt", json!(1), 401),
        ("aud", json!("api"), 401),
        ("iss", json!("https://other.example/auth"), 401),
        ("exp", json!(START), 401),
        ("exp", json!("9999999999"), 401),
        ("iat", json!(START + 600), 401),
        ("tId", json!("north"), 401),
        ("ep", json!({ "n": [1] }), 401),
        ("st-mfa", json!({ "c": { "emailpassword": START }, "v": false }), 403),
        ("st-mfa", Value::Null, 403),
    ] {
        assert_eq!(bearer(&router, &changed(name, value.clone())).await.status, expected, "{name} {value}");
    }
    let mut lacking = good.clone();
    lacking.as_object_mut().unwrap().remove("st-mfa");
    bearer(&router, &core.sign(&lacking)).await.is(403);
}

#[tokio::test]
async fn the_example_of_a_resource_server_runs() {
    let issuer = Issuer::new().await;
    let router = crate::examples::resource_server::reports(issuer.verifier()).unwrap();
    let alice = issuer.full(Mode::Header, ALICE).await;
    assert!(ask(&router, &alice, "/reports").await.text.starts_with("the report of "));
    ask(&router, &alice, "/salaries").await.is(200);
    issuer.clock().advance(Duration::from_secs(301));
    ask(&router, &alice, "/reports").await.is(200);
    ask(&router, &alice, "/salaries").await.is(401);
}
