//! The mount itself: readiness, wiring, methods, nesting, and what answers may carry.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Body, response::IntoResponse, routing::get};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};
use tower::{Layer as _, Service, ServiceExt as _};
use tower_mfa::{
    FactorId, MfaLayer, RequireFactors, Session, SessionClaim, SessionExtractor,
    claim::{ClaimContext, ClaimError, HasValue},
    config::{AppInfo, Secrets, Stale},
    guard::RequireClaims,
    ident::{Payload, Timestamp},
    policy::Everyone,
    session::SessionDenied,
    store::{Batch, Commit, Key, MemoryStore, Record, Row, Scan, Store, StoreError},
};

use crate::{
    readiness::Strict,
    spy::{ALICE, with},
    support::{Answer, Browser, Mode, TestApp, send},
};

async fn signed_in(app: &TestApp, mode: Mode) -> Browser {
    let mut alice = app.browser(mode);
    alice.sign_up(ALICE).await.ok();
    alice
}

fn bare(method: Method, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
}

async fn user(session: SessionExtractor) -> String {
    session.user_id().to_string()
}

async fn who(session: Option<SessionExtractor>) -> String {
    session.map_or("nobody".to_owned(), |session| session.user_id().to_string())
}

async fn note(session: SessionExtractor) -> Result<StatusCode, StatusCode> {
    let update = Payload::from_json(json!({ "note": 1 })).unwrap();
    session.merge_payload(update).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(StatusCode::OK)
}

/// What the user pays for; counts how often it was asked.
#[derive(Clone, Default)]
struct Plan(Arc<AtomicU64>);

impl SessionClaim for Plan {
    const KEY: &'static str = "plan";
    type Value = String;

    async fn fetch(&self, _ctx: &ClaimContext<'_>) -> Result<Option<String>, ClaimError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Some("gold".to_owned()))
    }
}

#[tokio::test]
async fn sec_m01_without_the_layer_it_is_500_and_never_anonymous() {
    let app = TestApp::new().await;
    let alice = signed_in(&app, Mode::Cookie).await;
    let router: Router = Router::new()
        .route("/user", get(user))
        .route("/who", get(who))
        .route("/guard", get(|| async {}).route_layer(RequireFactors::one_of([FactorId::TOTP])));
    for path in ["/user", "/who", "/guard"] {
        for request in [bare(Method::GET, path), alice.request(Method::GET, path, None)] {
            let answer = send(&router, request).await;
            answer.is(500);
            assert_eq!(answer.body["message"], "internal error");
            assert_eq!(answer.body["id"].as_str().unwrap().len(), 36, "{}", answer.text);
        }
    }
    let told = tower_mfa::extract::SessionRejection::NoLayer.to_string();
    assert!(told.contains("MfaLayer"), "{told}");
}

#[tokio::test]
async fn sec_m02_m03_a_protected_service_shows_nothing_before_the_session() {
    let app = TestApp::new().await;
    let alice = signed_in(&app, Mode::Cookie).await;
    let router: Router =
        Router::new().route("/user", get(user)).fallback(|| async { (StatusCode::NOT_FOUND, "nothing") });
    let protected = MfaLayer::required(app.mfa.clone()).protect(router);
    for (method, path, status) in
        [(Method::GET, "/user", 200), (Method::GET, "/none", 404), (Method::DELETE, "/user", 405)]
    {
        send(&protected, bare(method.clone(), path)).await.is(401);
        send(&protected, alice.request(method, path, None)).await.is(status);
    }
}

#[tokio::test]
async fn sec_m06_no_spelling_of_a_path_gets_past() {
    let app = TestApp::new().await;
    let router: Router = Router::new()
        .route("/admin/x", get(user))
        .layer(MfaLayer::required(app.mfa.clone()))
        .route("/open", get(|| async {}));
    let parts = ["/admin", "/Admin", "//admin", "/./admin", "/open/../admin", "/%61dmin", "/admin;a=b"];
    let ends = ["/x", "//x", "/x/", "/./x", "/%78", "%2fx", "/x;a", "/%2e%2e/x", "/x%00", "/x?open"];
    for path in parts.iter().flat_map(|part| ends.iter().map(move |end| format!("{part}{end}"))) {
        let answer = send(&router, bare(Method::GET, &path)).await;
        assert!(matches!(answer.status.as_u16(), 401 | 404), "{path} {}", answer.status);
    }
}

#[tokio::test]
async fn sec_m04_x10_methods_and_preflights() {
    let app = TestApp::new().await;
    let alice = signed_in(&app, Mode::Cookie).await;
    let router: Router = Router::new()
        .route("/user", get(user).options(user))
        .route("/seen", get(|| async {}).options(|| async { "handler" }))
        .layer(MfaLayer::required(app.mfa.clone()));
    let (get, head) = (
        send(&router, alice.request(Method::GET, "/user", None)).await,
        send(&router, alice.request(Method::HEAD, "/user", None)).await,
    );
    get.is(200);
    head.is(200);
    assert_eq!(get.headers.get_all(header::CACHE_CONTROL).iter().count(), 1);
    assert_eq!(get.headers[header::CACHE_CONTROL], head.headers[header::CACHE_CONTROL]);
    for method in ["GET", "HEAD", "OPTIONS", "POST", "FOO"] {
        send(&router, bare(method.parse().unwrap(), "/user")).await.is(401);
    }
    send(&router, alice.request(Method::OPTIONS, "/user", None)).await.is(200);
    let preflight = |path| {
        let asks = [("access-control-request-method", "POST"), ("origin", "https://shop.test")];
        with(bare(Method::OPTIONS, path), &asks)
    };
    let passed = send(&router, preflight("/seen")).await;
    assert_eq!((passed.status, passed.text.as_str()), (StatusCode::OK, "handler"));
    assert!(!passed.headers.contains_key(header::VARY));
    // A handler that wants a session gets none from a preflight, whoever sends it.
    send(&router, preflight("/user")).await.is(500);
    let mut own = preflight("/user");
    own.headers_mut().extend(alice.request(Method::OPTIONS, "/user", None).headers().clone());
    send(&router, own).await.is(500);
}

#[tokio::test]
async fn sec_m05_a_socket_needs_our_origin_and_carries_no_tokens() {
    async fn socket(session: SessionExtractor) -> impl IntoResponse {
        note(session).await.unwrap();
        StatusCode::SWITCHING_PROTOCOLS
    }
    let app = TestApp::new().await;
    let router: Router =
        Router::new().route("/ws", get(socket)).layer(MfaLayer::optional(app.mfa.clone()).without_mfa());
    let alice = signed_in(&app, Mode::Cookie).await;
    let upgrade = |browser: &Browser, origin: Option<&str>| {
        let request = with(
            browser.request(Method::GET, "/ws", None),
            &[("connection", "Upgrade"), ("upgrade", "websocket")],
        );
        match origin {
            Some(origin) => with(request, &[("origin", origin)]),
            None => request,
        }
    };
    for origin in [None, Some("https://evil.test"), Some("null"), Some("https://shop.test.evil.test")] {
        let refused = send(&router, upgrade(&alice, origin)).await;
        refused.is(400);
        assert!(!refused.text.contains("evil"), "{}", refused.text);
    }
    let opened = send(&router, upgrade(&alice, Some("https://shop.test"))).await;
    opened.is(101);
    assert!(opened.cookies().is_empty() && !opened.headers.contains_key("front-token"));
    let mut native = app.browser(Mode::Header);
    native.sign_in(ALICE).await.ok();
    let opened = send(&router, upgrade(&native, None)).await;
    opened.is(101);
    assert!(!opened.headers.contains_key("st-access-token"));
}

#[tokio::test]
async fn sec_m07_m15_nobody_else_can_vouch_for_a_request() {
    let (one, two) = (TestApp::new().await, TestApp::new().await);
    let (alice, bob) = (signed_in(&one, Mode::Cookie).await, signed_in(&two, Mode::Cookie).await);
    let router: Router = Router::new()
        .route("/user", get(user))
        .layer(MfaLayer::required(two.mfa.clone()))
        .layer(MfaLayer::optional(one.mfa.clone()));
    for browser in [&alice, &bob] {
        send(&router, browser.request(Method::GET, "/user", None)).await.is(401);
    }
    // What an earlier hop left is overwritten: here the session of another request.
    let (sent, mut kept) = tokio::sync::mpsc::unbounded_channel();
    let thief = Router::<()>::new()
        .route(
            "/user",
            get(move |request: axum::extract::Request| async move {
                let _ = sent.send(request.extensions().clone());
            }),
        )
        .layer(MfaLayer::required(one.mfa.clone()));
    send(&thief, alice.request(Method::GET, "/user", None)).await.is(200);
    let stolen = kept.recv().await.unwrap();
    let router: Router = Router::new().route("/who", get(who)).layer(MfaLayer::optional(two.mfa.clone()));
    let mut request =
        with(bare(Method::GET, "/who"), &[("x-user-id", "alice"), ("x-middleware-subrequest", "1")]);
    *request.extensions_mut() = stolen;
    assert_eq!(send(&router, request).await.text, "nobody");
}

#[tokio::test]
async fn sec_m14_optional_means_no_credential_and_nothing_else() {
    let app = TestApp::with(|builder| builder.policy(Everyone::new(FactorId::OTP_EMAIL))).await;
    let alice = signed_in(&app, Mode::Cookie).await;
    let router: Router = Router::new()
        .route("/loose", get(who).post(who))
        .layer(MfaLayer::optional(app.mfa.clone()).without_mfa())
        .merge(Router::new().route("/strict", get(who)).layer(MfaLayer::optional(app.mfa.clone())));
    let me = app.user(ALICE).await.to_string();
    let token = alice.jar["sAccessToken"].clone();
    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    let cookie = |value: &str| format!("sAccessToken={value}");
    let jar = |value: &str| vec![("cookie", cookie(value))];
    for (case, headers, status, text) in [
        ("nothing", vec![], 200, "nobody"),
        ("garbage cookie", jar("x"), 200, "nobody"),
        ("garbage bearer", vec![("authorization", "Bearer x".to_owned())], 200, "nobody"),
        ("another scheme", vec![("authorization", "Basic YTpi".to_owned())], 200, "nobody"),
        ("good", jar(&token), 200, me.as_str()),
        (
            "garbage bearer beside it",
            [jar(&token), vec![("authorization", "Bearer x".to_owned())]].concat(),
            200,
            me.as_str(),
        ),
        ("forged", jar(&forged), 401, "try refresh token"),
        ("forged bearer", vec![("authorization", format!("Bearer {forged}"))], 401, "try refresh token"),
        (
            "two that differ",
            vec![("cookie", format!("{}; {}", cookie(&token), cookie(&forged)))],
            401,
            "try refresh token",
        ),
    ] {
        let mut request = bare(Method::GET, "/loose");
        for (name, value) in headers {
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let answer = send(&router, request).await;
        let said = answer.body["message"].as_str().unwrap_or(&answer.text);
        assert_eq!((answer.status.as_u16(), said), (status, text), "{case}");
    }
    send(&router, bare(Method::GET, "/strict")).await.is(200);
    send(&router, alice.request(Method::GET, "/strict", None)).await.is(403);
    // An exemption only by the credential that was used (row X04).
    let mut request = alice.request(Method::POST, "/loose", None);
    request.headers_mut().remove("rid");
    request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer x"));
    send(&router, request).await.is(401);
    app.clock.advance(Duration::from_secs(3601));
    let expired = send(&router, alice.request(Method::GET, "/loose", None)).await;
    assert_eq!((expired.status.as_u16(), &expired.body["message"]), (401, &json!("try refresh token")));
}

#[tokio::test]
async fn sec_m15_the_same_handle_twice_writes_once_and_asks_more() {
    let app = TestApp::new().await;
    let plan = Plan::default();
    let mount = || MfaLayer::required(app.mfa.clone());
    let gold = HasValue::new(plan.clone(), "gold".to_owned()).unwrap();
    let router: Router = Router::new()
        .route("/note", get(note))
        .layer(mount())
        .merge(Router::new().route("/exact", get(user)).layer(mount().check_store()))
        .merge(Router::new().route("/proof", get(user)).layer(mount().csrf_always()))
        .merge(Router::new().route("/gold", get(user)).layer(mount().validate(gold)))
        .layer(mount());
    for mode in [Mode::Cookie, Mode::Header] {
        let mut alice = app.browser(mode);
        let email = if mode == Mode::Cookie { ALICE } else { "bob@shop.example" };
        alice.sign_up(email).await.ok();
        let noted = send(&router, alice.request(Method::GET, "/note", None)).await;
        noted.is(200);
        let sent = match mode {
            Mode::Cookie => {
                noted.cookies().iter().filter(|cookie| cookie.starts_with("sAccessToken=")).count()
            }
            Mode::Header => noted.headers.get_all("st-access-token").iter().count(),
        };
        assert_eq!(sent, 1, "{mode:?} {:?}", noted.headers);
        alice.keep(&noted);
        assert_eq!(alice.front.as_ref().unwrap()["up"]["note"], 1);

        // The inner mount's own demands count, one by one.
        let before = app.store.calls();
        send(&router, alice.request(Method::GET, "/exact", None)).await.is(200);
        assert!(app.store.calls() > before, "the row was read");
        let mut unproven = alice.request(Method::GET, "/proof", None);
        unproven.headers_mut().remove("rid");
        send(&router, unproven).await.is(if mode == Mode::Cookie { 401 } else { 200 });
        send(&router, alice.request(Method::GET, "/proof", None)).await.is(200);
        let asked = plan.0.load(Ordering::SeqCst);
        let fetched = send(&router, alice.request(Method::GET, "/gold", None)).await;
        fetched.is(200);
        alice.keep(&fetched);
        assert_eq!(alice.front.as_ref().unwrap()["up"]["plan"]["v"], "gold");
        send(&router, alice.request(Method::GET, "/gold", None)).await.is(200);
        assert_eq!(plan.0.load(Ordering::SeqCst), asked + 1);
    }
}

#[tokio::test]
async fn a_row_is_read_once_however_many_mounts_want_it() {
    let app = TestApp::new().await;
    let alice = signed_in(&app, Mode::Cookie).await;
    let exact = || MfaLayer::required(app.mfa.clone()).check_store();
    let once: Router = Router::new().route("/user", get(user)).layer(exact());
    let twice: Router = Router::new().route("/user", get(user)).layer(exact()).layer(exact());
    let mut calls = Vec::new();
    for router in [once, twice] {
        let before = app.store.calls();
        send(&router, alice.request(Method::GET, "/user", None)).await.is(200);
        calls.push(app.store.calls() - before);
    }
    assert_eq!(calls[0], calls[1]);
}

#[tokio::test]
async fn sec_c10_refusals_say_exactly_this_and_touch_no_cookie() {
    let badge = FactorId::parse("badge").unwrap();
    let policy = Everyone::new(FactorId::OTP_EMAIL);
    let app = TestApp::with(|builder| builder.policy(policy).custom_factor(badge.clone())).await;
    let alice = signed_in(&app, Mode::Cookie).await;
    let plan = HasValue::new(Plan::default(), "silver".to_owned()).unwrap();
    let router: Router =
        Router::new().route("/user", get(user).post(user)).layer(MfaLayer::required(app.mfa.clone())).merge(
            Router::new()
                .route("/badge", get(user).route_layer(RequireFactors::one_of([badge])))
                .route("/plan", get(user).route_layer(RequireClaims::new([Arc::new(plan)])))
                .layer(MfaLayer::required(app.mfa.clone()).without_mfa()),
        );
    let problem = |status: u16, kind: &str, title: &str, message: &str| json!({ "message": message, "type": format!("urn:tower-mfa:{kind}"), "title": title, "status": status });
    let claim = |errors: Value, next: Option<(&str, &str)>| {
        let title = "The session lacks what is asked here";
        let mut body = problem(403, "invalid-claim", title, "invalid claim");
        body["claimValidationErrors"] = errors;
        if let Some((factor, label)) = next {
            body["next"] = json!([factor]);
            body["detail"] = json!(format!("needed next: {label}"));
        }
        body
    };
    let mut unproven = alice.request(Method::POST, "/user", None);
    unproven.headers_mut().remove("rid");
    let none = problem(401, "unauthorised", "There is no session", "unauthorised");
    let again = problem(401, "try-refresh", "The access token must be refreshed", "try refresh token");
    let mfa = claim(
        json!([{ "id": "st-mfa", "reason": { "message": "MFA requirement for auth is not satisfied" } }]),
        Some(("otp-email", "a code by e-mail")),
    );
    let badge = claim(
        json!([{
            "id": "st-mfa",
            "reason": { "message": "Factor validation failed: badge not completed", "factorId": "badge" },
        }]),
        // What she can do next is what the policy asks for.
        Some(("otp-email", "a code by e-mail")),
    );
    let silver = claim(
        json!([{
            "id": "plan", "reason": { "message": "value does not exist", "expectedValue": "silver" },
        }]),
        None,
    );
    for (request, body) in [
        (bare(Method::GET, "/user"), none),
        (unproven, again),
        (alice.request(Method::GET, "/user", None), mfa),
        (alice.request(Method::GET, "/badge", None), badge),
        (alice.request(Method::GET, "/plan", None), silver),
    ] {
        let answer = send(&router, request).await;
        assert_eq!(answer.body, body);
        assert_eq!(json!(answer.status.as_u16()), body["status"]);
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
        harmless(&answer);
    }
    // An outer layer reads why without parsing.
    let mut seen = MfaLayer::required(app.mfa.clone()).layer(Strict::default());
    let response = seen.ready().await.unwrap().call(bare(Method::GET, "/")).await.unwrap();
    assert_eq!(response.extensions().get::<SessionDenied>(), Some(&SessionDenied::Unauthorised));
    // Ended, too many cookies, failing.
    let exact: Router =
        Router::new().route("/", get(user)).layer(MfaLayer::required(app.mfa.clone()).check_store());
    app.store.fail_next(50);
    let failing = send(&exact, alice.request(Method::GET, "/", None)).await;
    app.store.fail_next(0);
    assert_eq!(failing.body["message"], "temporarily unavailable");
    assert!(failing.headers.contains_key(header::RETRY_AFTER));
    failing.is(503);
    harmless(&failing);
    let crowd = (0..201).map(|n| format!("c{n}=1")).collect::<Vec<_>>().join("; ");
    let crowded = send(&exact, with(bare(Method::GET, "/"), &[("cookie", &crowd)])).await;
    crowded.is(431);
    harmless(&crowded);
    app.mfa.sessions().revoke_user(&app.user(ALICE).await).await.unwrap();
    let ended = send(&exact, alice.request(Method::GET, "/", None)).await;
    assert_eq!((ended.status.as_u16(), &ended.body["message"]), (401, &json!("unauthorised")));
    harmless(&ended);
}

/// Nothing that changes what a client holds, and nothing that a cache may keep.
fn harmless(answer: &Answer) {
    assert!(answer.cookies().is_empty(), "{:?}", answer.headers);
    for name in ["front-token", "st-access-token", "st-refresh-token", "anti-csrf"] {
        assert!(!answer.headers.contains_key(name), "{name}");
    }
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
}

#[tokio::test]
async fn sec_c11_c12_the_handlers_own_headers() {
    async fn public() -> impl IntoResponse {
        ([(header::CACHE_CONTROL, "public, max-age=3600"), (header::SET_COOKIE, "theme=dark")], "page")
    }
    async fn noted(session: SessionExtractor) -> impl IntoResponse {
        note(session).await.unwrap();
        public().await
    }
    async fn planted() -> impl IntoResponse {
        let mut headers = HeaderMap::new();
        for cookie in ["sAccessToken=mine; Path=/", " sRefreshToken =mine", "theme=dark"] {
            headers.append(header::SET_COOKIE, cookie.parse().unwrap());
        }
        headers
    }
    let app = TestApp::new().await;
    let alice = signed_in(&app, Mode::Cookie).await;
    let router: Router = Router::new()
        .route("/page", get(public))
        .route("/strict", get(|| async { [(header::CACHE_CONTROL, "no-store, max-age=0")] }))
        .route("/noted", get(noted))
        .route("/planted", get(planted))
        .layer(MfaLayer::optional(app.mfa.clone()));
    let cached = |answer: &Answer| {
        let vary =
            answer.headers.get_all(header::VARY).iter().map(|value| value.to_str().unwrap().to_owned());
        (answer.headers[header::CACHE_CONTROL].to_str().unwrap().to_owned(), vary.collect::<Vec<_>>())
    };
    for (request, control, varies) in [
        (bare(Method::GET, "/page"), "public, max-age=3600", true),
        (alice.request(Method::GET, "/page", None), "private, no-store", false),
        (alice.request(Method::GET, "/strict", None), "no-store, max-age=0", false),
        (alice.request(Method::GET, "/noted", None), "no-store", true),
    ] {
        let path = request.uri().to_string();
        let vary = if varies { vec!["Cookie, Authorization".to_owned()] } else { Vec::new() };
        assert_eq!(cached(&send(&router, request).await), (control.to_owned(), vary), "{path}");
    }
    let noted = send(&router, alice.request(Method::GET, "/noted", None)).await;
    let names: Vec<&str> = noted.cookies().iter().map(|cookie| cookie.split('=').next().unwrap()).collect();
    assert!(names.contains(&"theme") && names.contains(&"sAccessToken"), "{names:?}");
    for request in [bare(Method::GET, "/planted"), alice.request(Method::GET, "/planted", None)] {
        assert_eq!(send(&router, request).await.cookies(), ["theme=dark"]);
    }
}

#[tokio::test]
async fn what_changed_is_judged_anew_once_and_reaches_the_client() {
    let app = TestApp::new().await;
    let mut alice = signed_in(&app, Mode::Cookie).await;
    alice.get("/api/me").await.is(200);
    app.mfa.users().judge_anew(&app.user(ALICE).await).await.unwrap();
    let judged = alice.get("/api/me").await;
    judged.is(200);
    assert_eq!(judged.cookies().len(), 1, "{:?}", judged.headers);
    let before = app.store.calls();
    assert!(alice.get("/api/me").await.cookies().is_empty());
    assert_eq!(app.store.calls(), before);
    // A refusal that was found out just now tells the client what its claim is.
    app.mfa.tenants().require(&Default::default(), [FactorId::OTP_EMAIL]).await.unwrap();
    let refused = alice.get("/api/me").await;
    refused.is(403);
    assert_eq!(alice.claim()["v"], false);
    assert!(refused.cookies().iter().all(|cookie| !cookie.contains("1970")), "{:?}", refused.cookies());
}

#[tokio::test]
async fn services_without_axum_read_the_session_too() {
    let app = TestApp::new().await;
    let alice = signed_in(&app, Mode::Header).await;
    let plain = tower::service_fn(|request: Request<Body>| async move {
        let user =
            Session::from_extensions(request.extensions()).map(|session| session.user_id().to_string());
        Ok::<_, Infallible>(Response::new(Body::from(user.unwrap_or_default())))
    });
    let service = MfaLayer::optional(app.mfa.clone()).layer(plain);
    assert_eq!(send(&service, bare(Method::GET, "/")).await.text, "");
    let me = app.user(ALICE).await.to_string();
    assert_eq!(send(&service, alice.request(Method::GET, "/", None)).await.text, me);
}

/// A store whose reads never answer while it is told to hang.
#[derive(Clone, Debug)]
struct Hanging {
    inner: MemoryStore,
    hangs: Arc<AtomicBool>,
}

impl Hanging {
    async fn wait(&self) {
        // As over a network: others run meanwhile.
        tokio::task::yield_now().await;
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

impl Store for Hanging {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.wait().await;
        self.inner.get(keys).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        self.wait().await;
        self.inner.scan(scan).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        self.inner.commit(batch).await
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.inner.sweep(before).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.inner.now().await
    }
}

#[tokio::test]
async fn sec_k02_a_store_that_hangs_delays_nobody_for_long() {
    let hangs = Arc::new(AtomicBool::new(false));
    let store = Hanging { inner: MemoryStore::new(), hangs: Arc::clone(&hangs) };
    let info = AppInfo::new("Shop", "https://api.shop.test", "https://shop.test").unwrap();
    let app = TestApp::on(info, Secrets::random().unwrap(), store, |builder| builder).await;
    let alice = signed_in(&app, Mode::Cookie).await;
    let serve: Router = Router::new().route("/", get(user)).layer(MfaLayer::required(app.mfa.clone()));
    let refuse: Router = Router::new()
        .route("/", get(user))
        .layer(MfaLayer::required(app.mfa.clone()).when_stale(Stale::Refuse));
    hangs.store(true, Ordering::SeqCst);
    app.clock.advance(Duration::from_secs(10));
    let start = Instant::now();
    let all = (0..20).map(|n| {
        let (router, status) = if n % 2 == 0 { (&serve, 200) } else { (&refuse, 503) };
        let request = alice.request(Method::GET, "/", None);
        async move {
            send(router, request).await.is(status);
        }
    });
    futures_util::future::join_all(all).await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    hangs.store(false, Ordering::SeqCst);
    send(&refuse, alice.request(Method::GET, "/", None)).await.is(200);
}

#[tokio::test]
async fn sec_j06_a_process_that_starts_calls_no_token_bad() {
    let (store, secrets) = (MemoryStore::new(), Secrets::random().unwrap());
    let info = || AppInfo::new("Shop", "https://api.shop.test", "https://shop.test").unwrap();
    let first = TestApp::on(info(), secrets.clone(), store.clone(), |builder| builder).await;
    let alice = signed_in(&first, Mode::Cookie).await;
    let slow = Hanging { inner: store, hangs: Arc::default() };
    let second = tower_mfa::Mfa::builder(info(), secrets, slow)
        .clock(first.clock.clone())
        .without_passwordless()
        .build()
        .unwrap();
    let router: Router = Router::new().route("/", get(user)).layer(MfaLayer::required(second));
    // All of them ask for the key at once, before anything was loaded: nobody is told to refresh.
    let all = (0..10).map(|_| send(&router, alice.request(Method::GET, "/", None)));
    let mut served = 0;
    for answer in futures_util::future::join_all(all).await {
        assert!(matches!(answer.status.as_u16(), 200 | 503), "{}", answer.text);
        served += usize::from(answer.status == StatusCode::OK);
    }
    assert!(served > 0);
}
