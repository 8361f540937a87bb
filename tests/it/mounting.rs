//! Rows M01 to M11, M14, M15 and M17: what a mount is, wherever and however it is put.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    response::IntoResponse,
    routing::get,
};
use futures_util::{FutureExt as _, StreamExt as _};
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::{Layer as _, Service, ServiceExt as _, buffer::BufferLayer, limit::ConcurrencyLimitLayer};
use tower_mfa::{
    FactorId, MfaLayer, RequireFactors, Session, SessionClaim, SessionExtractor,
    api::ApiLayer,
    claim::{ClaimContext, ClaimError, HasValue},
    config::{AppInfo, Secrets},
    guard::RequireClaims,
    ident::{ErrorKind, Payload, TenantId},
    policy::ForRole,
    store::MemoryStore,
};

use crate::{
    readiness::Strict,
    spy::{ALICE, BOB, Log, ROUTES, bare, every_route, handle, posted, shop, signed_up, token_headers, with},
    support::{Answer, Mode, TestApp, send},
};

async fn user(session: SessionExtractor) -> String {
    session.user_id().to_string()
}

async fn who(session: Option<SessionExtractor>) -> String {
    session.map_or("nobody".to_owned(), |session| session.user_id().to_string())
}

async fn note(session: &Session) -> Result<(), tower_mfa::Error> {
    session.merge_payload(Payload::from_json(json!({ "note": 1 })).unwrap()).await
}

struct Plan;

impl SessionClaim for Plan {
    const KEY: &'static str = "plan";
    type Value = String;

    async fn fetch(&self, _: &ClaimContext<'_>) -> Result<Option<String>, ClaimError> {
        Ok(None)
    }
}

#[tokio::test]
async fn sec_m01_whatever_wants_a_session_says_which_layer_is_missing() {
    let app = TestApp::new().await;
    let alice = signed_up(&app, Mode::Header, ALICE).await;
    let gold = HasValue::new(Plan, "gold".to_owned()).unwrap();
    let router: Router = Router::new()
        .route("/user", get(user))
        .route("/who", get(who))
        .route("/factors", get(|| async {}).route_layer(RequireFactors::one_of([FactorId::PASSWORD])))
        .route("/claims", get(|| async {}).route_layer(RequireClaims::new([Arc::new(gold) as _])))
        // Of another app's layer nothing is taken either: it is not theirs to say.
        .fallback(who);
    for path in ["/user", "/who", "/factors", "/claims", "/other"] {
        for request in [bare("GET", path), alice.request(Method::GET, path, None)] {
            let (log, _guard) = Log::start();
            let answer = send(&router, request).await;
            answer.is(500);
            assert_eq!(answer.body["message"], "internal error", "{path}");
            let id = answer.body["id"].as_str().unwrap();
            log.has("ERROR", "MfaLayer");
            log.has("ERROR", id);
            assert!(token_headers(&answer).is_empty());
        }
    }
}

#[tokio::test]
async fn sec_m02_what_comes_after_the_layer_is_open_but_never_somebodys() {
    let app = TestApp::new().await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let secret = || get(|| async { "secret" });
    // What axum does: the guard is not over what comes later, so a handler must ask for the session.
    let layered: Router = Router::new()
        .route("/early", secret())
        .layer(MfaLayer::required(app.mfa.clone()))
        .route("/late", get(user))
        .merge(Router::new().route("/merged", get(who)))
        .fallback(user);
    send(&layered, bare("GET", "/early")).await.is(401);
    for path in ["/late", "/merged", "/else"] {
        for request in [bare("GET", path), alice.request(Method::GET, path, None)] {
            send(&layered, request).await.is(500);
        }
    }
    // What is protected is so as a whole: routes, those merged or nested, both fallbacks.
    let inner: Router = Router::new()
        .route("/early", secret())
        .merge(Router::new().route("/merged", secret()))
        .nest("/nested", Router::new().route("/x", secret()).fallback(|| async { "secret" }))
        .fallback(|| async { "secret" });
    let protected = MfaLayer::required(app.mfa.clone()).protect(inner);
    let all: Router = Router::new().route("/open", get(|| async {})).fallback_service(protected);
    send(&all, bare("GET", "/open")).await.is(200);
    for path in ["/early", "/merged", "/nested/x", "/nested/y", "/nested", "/else", "/"] {
        for method in ["GET", "POST", "DELETE", "FOO"] {
            let answer = send(&all, bare(method, path)).await;
            answer.is(401);
            assert!(!answer.text.contains("secret"), "{method} {path}");
        }
        assert!(send(&all, alice.request(Method::GET, path, None)).await.text.contains("secret"), "{path}");
    }
}

#[tokio::test]
async fn sec_m03_who_isnt_in_learns_no_paths_and_no_methods() {
    let app = TestApp::new().await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let router: Router =
        Router::new().route("/user", get(user)).nest("/a", Router::new().route("/b", get(user)));
    let protected = MfaLayer::required(app.mfa.clone()).protect(router);
    for path in ["/user", "/a/b", "/a/c", "/a", "/none", "/none/at/all"] {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"] {
            let outside = send(&protected, bare(method, path)).await;
            outside.is(401);
            assert!(!outside.headers.contains_key(header::ALLOW), "{method} {path}");
            let there = ["/user", "/a/b"].contains(&path);
            let inside = send(&protected, alice.request(method.parse().unwrap(), path, None)).await;
            inside.is(match method {
                _ if !there => 404,
                "GET" | "HEAD" => 200,
                _ => 405,
            });
            assert_eq!(inside.headers.contains_key(header::ALLOW), inside.status == 405);
        }
    }
}

#[tokio::test]
async fn sec_m04_head_is_answered_as_get_is_and_options_is_not_free() {
    let app = TestApp::with(|b| b.policy(ForRole::new("admin", FactorId::OTP_EMAIL))).await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let bob = signed_up(&app, Mode::Cookie, BOB).await;
    app.mfa.roles().grant(&app.user(BOB).await, &TenantId::PUBLIC, "admin").await.unwrap();
    let router: Router = Router::new()
        .route("/user", get(user).options(user))
        .layer(MfaLayer::required(app.mfa.clone()))
        .merge(
            Router::new()
                .route("/exact", get(user).options(user))
                .layer(MfaLayer::required(app.mfa.clone()).check_store()),
        );
    let seen = |answer: &Answer| -> Vec<(String, String)> {
        let names =
            answer.headers.iter().filter(|(name, _)| *name != header::DATE && *name != header::RETRY_AFTER);
        let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            // Tokens are new each time.
            let value = value.to_str().unwrap().split('=').next().unwrap();
            (name.to_string(), if name == "front-token" { String::new() } else { value.to_owned() })
        };
        names.map(pair).collect()
    };
    let mut expired = alice.clone();
    let token = expired.jar["sAccessToken"].clone();
    expired.jar.insert("sAccessToken".to_owned(), format!("{}AAAA", &token[..token.len() - 4]));
    let nobody = app.browser(Mode::Cookie);
    for (browser, status, path) in [
        (&nobody, 401, "/user"),
        (&expired, 401, "/user"),
        (&bob, 403, "/user"),
        (&alice, 200, "/user"),
        (&alice, 200, "/exact"),
        (&alice, 503, "/exact"),
    ] {
        let ask = async |method: &str| {
            app.store.fail_next(if status == 503 { 1000 } else { 0 });
            let answer = send(&router, browser.request(method.parse().unwrap(), path, None)).await;
            app.store.fail_next(0);
            answer
        };
        let got = ask("GET").await;
        let headed = ask("HEAD").await;
        got.is(status);
        headed.is(status);
        assert_eq!(seen(&headed), seen(&got), "{status} {path}");
        // No preflight: it is asked like any other.
        ask("OPTIONS").await.is(status);
    }
}

#[tokio::test]
async fn sec_m05_only_our_own_pages_open_a_socket_with_a_cookie() {
    let app = TestApp::new().await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let socket = || async { StatusCode::SWITCHING_PROTOCOLS };
    for mount in [
        MfaLayer::required(app.mfa.clone()),
        MfaLayer::optional(app.mfa.clone()),
        MfaLayer::required(app.mfa.clone()).check_store(),
    ] {
        let router: Router = Router::new().route("/ws", get(socket)).layer(mount);
        for upgrade in ["websocket", "WebSocket", "h2c", "anything"] {
            for (origin, status) in [
                (None, 400),
                (Some("https://evil.test"), 400),
                (Some("https://api.shop.test.evil.test"), 400),
                (Some("http://shop.test"), 400),
                (Some("null"), 400),
                (Some(""), 400),
                (Some("https://shop.test"), 101),
            ] {
                let request = alice.request(Method::GET, "/ws", None);
                let mut request = with(request, &[("connection", "Upgrade"), ("upgrade", upgrade)]);
                if let Some(origin) = origin {
                    request = with(request, &[("origin", origin)]);
                }
                let answer = send(&router, request).await;
                answer.is(status);
                assert!(token_headers(&answer).is_empty(), "{origin:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sec_m05_an_open_connection_learns_that_its_session_is_over() {
    for how in [
        "revoked",
        "user's sessions",
        "all",
        "on another node",
        "deleted",
        "signed out",
        "expires",
        "goes on",
    ] {
        let app = TestApp::new().await;
        let node = app.restarted().await;
        let mut alice = app.browser(Mode::Header);
        alice.by_code(ALICE).await;
        let user = app.user(ALICE).await;
        let kept: Arc<Mutex<Option<Session>>> = Arc::default();
        let slot = Arc::clone(&kept);
        let open = move |session: SessionExtractor| async move {
            *slot.lock().unwrap() = Some(session.into_inner());
            StatusCode::SWITCHING_PROTOCOLS
        };
        let router: Router = Router::new().route("/ws", get(open)).layer(MfaLayer::required(app.mfa.clone()));
        send(&router, alice.request(Method::GET, "/ws", None)).await.is(101);
        let session = kept.lock().unwrap().take().unwrap();
        let ended = tokio::spawn(async move { session.ended().await });
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!ended.is_finished(), "{how}");
        let (sessions, other) = (app.mfa.sessions(), node.mfa.sessions());
        match how {
            "revoked" => assert!(sessions.revoke(&session_of(&app).await).await.unwrap()),
            "user's sessions" => sessions.revoke_user(&user).await.unwrap(),
            "all" => sessions.revoke_all().await.unwrap(),
            "on another node" => other.revoke_user(&user).await.unwrap(),
            "deleted" => app.mfa.users().delete(&user).await.unwrap(),
            "signed out" => drop(alice.sign_out().await.ok()),
            "expires" => app.clock.advance(Duration::from_secs(3601)),
            // Neither a new token nor a change that is judged anew ends it.
            _ => {
                alice.refresh().await.is(200);
                app.mfa.roles().grant(&user, &TenantId::PUBLIC, "admin").await.unwrap();
            }
        }
        let done = tokio::time::timeout(Duration::from_secs(60), ended).await;
        assert_eq!(done.is_ok(), how != "goes on", "{how}");
    }
}

async fn session_of(app: &TestApp) -> tower_mfa::ident::SessionHandle {
    app.mfa.sessions().list(&app.user(ALICE).await).await.unwrap().remove(0).handle
}

#[tokio::test]
async fn sec_m06_two_hundred_spellings_and_more() {
    let app = TestApp::new().await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let secret = || get(|| async { "secret" });
    let router: Router = Router::new()
        .route("/admin/x", secret())
        .layer(MfaLayer::required(app.mfa.clone()))
        .route("/open", get(|| async { "open" }));
    let inner: Router = Router::new().route("/admin/x", secret()).fallback(|| async { "secret" });
    let protected = MfaLayer::required(app.mfa.clone()).protect(inner);
    let starts = [
        "/admin",
        "/Admin",
        "/ADMIN",
        "//admin",
        "///admin",
        "/./admin",
        "/open/../admin",
        "/%61dmin",
        "/%2561dmin",
        "/admin;a=b",
        "/admin.",
        "/admin%20",
        "/%2e/admin",
        "/x/%2e%2e/admin",
        "/admin%2f",
        "/auth/../admin",
    ];
    let ends = [
        "/x",
        "//x",
        "/x/",
        "/./x",
        "/%78",
        "%2fx",
        "%2Fx",
        "/x;a=b",
        "/%2e%2e/admin/x",
        "/x%00",
        "/x?open",
        "/x?/open",
        "/x#open",
        "/x/.",
        "/x/..",
        "/x%2f..%2fopen",
    ];
    let mut tried = 0;
    for path in starts.iter().flat_map(|start| ends.iter().map(move |end| format!("{start}{end}"))) {
        let Ok(uri) = path.parse::<http::Uri>() else { continue };
        tried += 1;
        for method in ["GET", "HEAD"] {
            let request = || Request::builder().method(method).uri(uri.clone()).body(Body::empty()).unwrap();
            let answer = send(&router, request()).await;
            assert!(matches!(answer.status.as_u16(), 401 | 404), "{path} {}", answer.status);
            assert!(!answer.text.contains("secret"), "{path}");
            send(&protected, request()).await.is(401);
        }
    }
    assert!(tried >= 200, "{tried}");
    assert_eq!(send(&router, alice.request(Method::GET, "/admin/x", None)).await.text, "secret");
}

#[tokio::test]
async fn sec_m07_no_header_and_no_extension_stands_for_a_session() {
    #[derive(Clone)]
    #[allow(dead_code, reason = "it is never read: that is the point")]
    struct Verified {
        session: Option<Session>,
    }
    let app = TestApp::new().await;
    let alice = signed_up(&app, Mode::Header, ALICE).await;
    let other = TestApp::new().await;
    let mut stranger = other.browser(Mode::Header);
    stranger.sign_up(BOB).await.ok();
    // A session that is real, of another app, as a look-alike.
    let kept: Arc<Mutex<Option<Session>>> = Arc::default();
    let slot = Arc::clone(&kept);
    let keep =
        move |session: SessionExtractor| async move { *slot.lock().unwrap() = Some(session.into_inner()) };
    let thief: Router = Router::new().route("/", get(keep)).layer(MfaLayer::required(other.mfa.clone()));
    send(&thief, stranger.request(Method::GET, "/", None)).await.is(200);
    let session = kept.lock().unwrap().clone();
    let strict: Router = Router::new().route("/", get(user)).layer(MfaLayer::required(app.mfa.clone()));
    let loose: Router = Router::new().route("/", get(who)).layer(MfaLayer::optional(app.mfa.clone()));
    let unlayered: Router = Router::new().route("/", get(who));
    let names = [
        "x-user-id",
        "x-user",
        "x-forwarded-user",
        "remote-user",
        "x-remote-user",
        "x-authenticated-user",
        "x-middleware-subrequest",
        "x-middleware-rewrite",
        "x-original-url",
        "x-rewrite-url",
        "x-session",
        "x-internal",
        "x-mfa",
        "x-mfa-verified",
        "st-verified",
        "st-session",
        "front-token",
        "x-http-method-override",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "x-skip-auth",
    ];
    for value in ["1", "true", ALICE, app.user(ALICE).await.as_str(), "middleware:middleware", "OPTIONS"] {
        let dressed = || {
            let mut request = bare("GET", "/");
            for name in names {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
            request.extensions_mut().insert(Verified { session: session.clone() });
            request.extensions_mut().insert(session.clone());
            request.extensions_mut().insert(session.clone().unwrap());
            request
        };
        send(&strict, dressed()).await.is(401);
        assert_eq!(send(&loose, dressed()).await.text, "nobody");
        send(&unlayered, dressed()).await.is(500);
    }
    // An inner mount of the same handle asks what it asks, whatever an outer one found.
    let nested: Router = Router::new()
        .route("/", get(user))
        .layer(MfaLayer::required(app.mfa.clone()).check_store())
        .layer(MfaLayer::optional(app.mfa.clone()).without_mfa());
    send(&nested, alice.request(Method::GET, "/", None)).await.is(200);
    send(&nested, bare("GET", "/")).await.is(401);
    app.mfa.sessions().revoke_all().await.unwrap();
    send(&nested, alice.request(Method::GET, "/", None)).await.is(401);
}

#[tokio::test]
async fn sec_m08_behind_a_buffer_and_a_limit_too() {
    let app = TestApp::new().await;
    let alice = signed_up(&app, Mode::Header, ALICE).await;
    let mounts = [
        MfaLayer::required(app.mfa.clone()),
        MfaLayer::required(app.mfa.clone()).check_store(),
        MfaLayer::optional(app.mfa.clone()),
    ];
    for mount in mounts {
        let limited = ConcurrencyLimitLayer::new(1).layer(Strict::default());
        let buffered = BufferLayer::new(1).layer(limited);
        let guarded = RequireFactors::one_of([FactorId::PASSWORD]).layer(buffered);
        let twice = mount.layer(mount.layer(guarded));
        let mut service = ApiLayer::new(app.mfa.clone()).layer(mount.protect(twice));
        for _ in 0..5 {
            let request = alice.request(Method::GET, "/x", None);
            let response = service.ready().await.unwrap().call(request).await.unwrap();
            assert_eq!(response.status(), 200);
            // A service that is asked, refused, and asked again.
            service.ready().await.unwrap().call(bare("GET", "/x")).await.unwrap();
        }
        // A request that waits for the store holds the one permit, and loses none when it leaves.
        app.mfa.users().judge_anew(&app.user(ALICE).await).await.unwrap();
        let request = alice.request(Method::GET, "/x", None);
        drop(service.ready().await.unwrap().call(request));
        let request = alice.request(Method::GET, "/x", None);
        let response = service.ready().await.unwrap().call(request);
        assert_eq!(
            tokio::time::timeout(Duration::from_secs(5), response).await.unwrap().unwrap().status(),
            200
        );
    }
}

/// Ready, or not, or broken, as it is told; counts what it is asked.
#[derive(Clone, Default)]
struct Busy {
    broken: Arc<AtomicBool>,
    free: Arc<AtomicBool>,
    polled: Arc<AtomicUsize>,
    called: Arc<AtomicUsize>,
}

impl Service<Request<Body>> for Busy {
    type Response = Response<Body>;
    type Error = &'static str;
    type Future = std::future::Ready<Result<Response<Body>, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        self.polled.fetch_add(1, Ordering::SeqCst);
        match (self.broken.load(Ordering::SeqCst), self.free.load(Ordering::SeqCst)) {
            (true, _) => Poll::Ready(Err("broken")),
            (_, true) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        self.called.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(Response::new(Body::empty())))
    }
}

#[tokio::test]
async fn sec_m09_back_pressure_and_errors_go_through_before_any_work() {
    let app = TestApp::new().await;
    let alice = signed_up(&app, Mode::Header, ALICE).await;
    app.mfa.users().judge_anew(&app.user(ALICE).await).await.unwrap();
    let busy = Busy::default();
    let guarded = RequireFactors::one_of([FactorId::PASSWORD]).layer(busy.clone());
    let exact = MfaLayer::required(app.mfa.clone()).check_store().layer(guarded);
    let protected = MfaLayer::required(app.mfa.clone()).protect(exact);
    let mut service = ApiLayer::new(app.mfa.clone()).layer(protected);
    let before = app.store.calls();
    for n in 1..=20 {
        assert!(service.ready().now_or_never().is_none(), "it isn't ready, and says so");
        assert_eq!(busy.polled.load(Ordering::SeqCst), n, "asked each time, once");
    }
    assert_eq!((app.store.calls(), busy.called.load(Ordering::SeqCst)), (before, 0));
    busy.broken.store(true, Ordering::SeqCst);
    assert_eq!(service.ready().await.err(), Some("broken"));
    assert_eq!(app.store.calls(), before);
    busy.broken.store(false, Ordering::SeqCst);
    busy.free.store(true, Ordering::SeqCst);
    let response = service.ready().await.unwrap().call(alice.request(Method::GET, "/", None)).await.unwrap();
    assert_eq!((response.status(), busy.called.load(Ordering::SeqCst)), (StatusCode::OK, 1));
    assert!(app.store.calls() > before);
}

/// A body of so many frames; counts what was taken, and may take its time before each.
struct Dripping {
    frames: usize,
    size: usize,
    pause: Option<Duration>,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    taken: Arc<AtomicUsize>,
}

impl Dripping {
    fn new(frames: usize, size: usize, pause: Option<Duration>) -> (Self, Arc<AtomicUsize>) {
        let taken: Arc<AtomicUsize> = Arc::default();
        (Self { frames, size, pause, sleep: None, taken: Arc::clone(&taken) }, taken)
    }
}

impl http_body::Body for Dripping {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(pause) = self.pause {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            std::task::ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        if self.frames == 0 {
            return Poll::Ready(None);
        }
        self.frames -= 1;
        self.taken.fetch_add(self.size, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b' '; self.size])))))
    }
}

#[tokio::test(start_paused = true)]
async fn sec_m10_a_body_is_bounded_in_length_and_in_time() {
    let app = every_route().await;
    let mut alice = app.browser(Mode::Header);
    alice.by_code(ALICE).await;
    for (method, route) in ROUTES.into_iter().filter(|(method, _)| *method != "GET") {
        let request = |body: Body| {
            let (mut parts, _) =
                alice.request(method.parse().unwrap(), &format!("/auth{route}"), None).into_parts();
            parts.headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
            Request::from_parts(parts, body)
        };
        // Endless: no more than the bound is taken, and a frame.
        let (body, taken) = Dripping::new(usize::MAX, 1024, None);
        let calls = app.store.calls();
        let answer = app.send(request(Body::new(body))).await;
        assert_eq!(app.store.calls(), calls, "{route}: nothing was asked before the body was there");
        answer.is(413);
        assert!(taken.load(Ordering::SeqCst) <= 17 * 1024, "{route} {taken:?}");
        let (body, _) = Dripping::new(1, 16 * 1024 + 1, None);
        app.send(request(Body::new(body))).await.is(413);
        // Slow, though never still.
        let (body, taken) = Dripping::new(usize::MAX, 1, Some(Duration::from_millis(700)));
        let start = tokio::time::Instant::now();
        let answer = app.send(request(Body::new(body))).await;
        answer.is(408);
        assert_eq!(start.elapsed().as_secs(), 10, "{route}");
        assert!(taken.load(Ordering::SeqCst) <= 15);
        assert!(token_headers(&answer).is_empty());
        // And one that never comes at all.
        let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>());
        app.send(request(never)).await.is(408);
    }
    // The longest that is taken is read.
    let (body, _) = Dripping::new(16, 1024, Some(Duration::from_millis(500)));
    let (mut parts, _) = alice.request(Method::POST, "/auth/signinup/code", None).into_parts();
    parts.headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    app.send(Request::from_parts(parts, Body::new(body))).await.is(400);
}

#[tokio::test]
async fn sec_m10_sessions_are_read_without_the_body() {
    let app = TestApp::new().await;
    let alice = signed_up(&app, Mode::Header, ALICE).await;
    let layer = || MfaLayer::required(app.mfa.clone());
    let router: Router = Router::new()
        .route("/user", get(user).post(user))
        .route("/who", get(who).post(who))
        .route_layer(RequireFactors::one_of([FactorId::PASSWORD]))
        .layer(layer().check_store())
        .layer(layer());
    for path in ["/user", "/who"] {
        for sent in [&alice, &app.browser(Mode::Header)] {
            let (parts, _) = posted(sent, path, None).into_parts();
            let (body, taken) = Dripping::new(usize::MAX, 1, None);
            send(&router, Request::from_parts(parts, Body::new(body))).await;
            assert_eq!(taken.load(Ordering::SeqCst), 0, "{path}");
        }
    }
}

#[tokio::test]
async fn sec_m11_what_comes_after_the_head_is_an_error_that_says_so() {
    let app = TestApp::new().await;
    for mode in [Mode::Cookie, Mode::Header] {
        let email = if mode == Mode::Cookie { ALICE } else { BOB };
        let alice = signed_up(&app, mode, email).await;
        // A stream of events: the first change is in time, later ones are not.
        let events = |session: SessionExtractor| async move {
            let session = session.into_inner();
            note(&session).await.unwrap();
            let stream = futures_util::stream::iter(0..4).then(move |n| {
                let session = session.clone();
                async move {
                    let late = match n {
                        0 => note(&session).await,
                        1 => session.set_claim(&Plan, "gold".to_owned()).await,
                        2 => session.remove_claim(&Plan).await,
                        _ => session.revoke().await,
                    };
                    let error = late.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Invalid);
                    Ok::<_, Infallible>(Bytes::from(format!("data: {error}\n\n")))
                }
            });
            ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(stream)).into_response()
        };
        let router: Router = Router::new().route("/", get(events)).layer(MfaLayer::required(app.mfa.clone()));
        let request = alice.request(Method::GET, "/", None);
        let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
        // The tokens are in the head, before the body was asked for anything.
        assert!(parts.headers.contains_key("front-token"));
        let rows = app.store.sessions().await;
        let text = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(text.matches("the response's head was sent already").count(), 4, "{text}");
        assert_eq!(app.store.sessions().await, rows, "nothing was written that nobody would learn");
        send(&router, alice.request(Method::GET, "/", None)).await.is(200);
    }
}

#[tokio::test]
async fn sec_m15_apps_that_share_everything_but_a_name_share_no_session() {
    let (secrets, store) = (Secrets::random().unwrap(), MemoryStore::new());
    let one = TestApp::on(shop(), secrets.clone(), store.clone(), |b| b).await;
    let named = |api: &str, base: Option<&str>| {
        let app = AppInfo::new("Shop", api, "https://shop.test").unwrap();
        match base {
            Some(base) => app.base_path(base).unwrap(),
            None => app,
        }
    };
    for mode in [Mode::Cookie, Mode::Header] {
        let email = if mode == Mode::Cookie { ALICE } else { BOB };
        let alice = signed_up(&one, mode, email).await;
        for other in [
            // Another issuer on the same records and root keys; other root keys; other records.
            TestApp::on(named("https://other.shop.test", None), secrets.clone(), store.clone(), |b| b).await,
            TestApp::on(
                named("https://api.shop.test", Some("/login")),
                secrets.clone(),
                store.clone(),
                |b| b,
            )
            .await,
            TestApp::on(shop(), secrets.clone(), MemoryStore::new(), |b| b).await,
            TestApp::on(shop(), Secrets::random().unwrap(), MemoryStore::new(), |b| b).await,
        ] {
            let mut there = alice.at(&other);
            let refused = there.get("/api/me").await;
            refused.is(401);
            // Both in one process, one around the other.
            for (inner, outer) in [(&one, &other), (&other, &one)] {
                let router: Router = Router::new()
                    .route("/", get(user))
                    .layer(MfaLayer::required(inner.mfa.clone()))
                    .layer(MfaLayer::optional(outer.mfa.clone()));
                send(&router, alice.request(Method::GET, "/", None)).await.is(401);
            }
        }
        let mut alice = alice;
        alice.get("/api/me").await.is(200);
    }
}

#[tokio::test]
async fn sec_m15_one_rotation_of_tokens_however_often_it_is_mounted() {
    let app = TestApp::new().await;
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let me = |session: SessionExtractor| async move { Json(json!(session.handle().as_str())) };
    let layer = || MfaLayer::required(app.mfa.clone());
    let router: Router =
        Router::new().route("/", get(me)).layer(layer()).layer(layer().check_store()).layer(layer());
    app.mfa.users().judge_anew(&app.user(ALICE).await).await.unwrap();
    let commits = app.store.commits();
    let answer = send(&router, alice.request(Method::GET, "/", None)).await;
    answer.is(200);
    assert_eq!(app.store.commits(), commits + 1, "one judgement, one token");
    let names: Vec<&str> = answer.cookies().iter().map(|cookie| cookie.split('=').next().unwrap()).collect();
    assert_eq!(names, ["sAccessToken"]);
    assert_eq!(answer.headers.get_all("front-token").iter().count(), 1);
    alice.keep(&answer);
    assert_eq!(answer.body, Value::from(handle(&alice)));
}

#[tokio::test]
async fn sec_m17_cookies_in_several_fields_are_one_list() {
    let app = every_route().await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let router: Router =
        Router::new().route("/", get(user).post(user)).layer(MfaLayer::required(app.mfa.clone()));
    let (access, refresh) = (&alice.jar["sAccessToken"], &alice.jar["sRefreshToken"]);
    let request = |fields: &[String], path: &str, method: &str| {
        let mut request = with(bare(method, path), &[("rid", "anti-csrf")]);
        for field in fields {
            request.headers_mut().append(header::COOKIE, field.parse().unwrap());
        }
        request
    };
    let ours = format!("sAccessToken={access}");
    let many = |n: usize| (0..n).map(|n| format!("c{n}=1")).collect::<Vec<_>>();
    // As HTTP/2 splits them (RFC 9113, section 8.2.3), wherever ours is among them.
    for fields in [
        vec![ours.clone()],
        vec!["theme=dark".to_owned(), ours.clone(), "a=b; c=d".to_owned()],
        vec![format!("a=b; {ours}"), "sIdRefreshToken=x".to_owned()],
        [many(199), vec![ours.clone()]].concat(),
        [vec![ours.clone()], many(199)].concat(),
    ] {
        send(&router, request(&fields, "/", "GET")).await.is(200);
    }
    // Two that differ, in fields of their own.
    let two = [ours.clone(), "sAccessToken=other".to_owned()];
    assert_eq!(send(&router, request(&two, "/", "GET")).await.body["message"], "try refresh token");
    let long = format!("pad={}", "x".repeat(16 * 1024));
    let halves = vec![format!("pad={}", "x".repeat(8 * 1024)), format!("more={}", "x".repeat(8 * 1024))];
    for fields in [
        [many(200), vec![ours.clone()]].concat(),
        [vec![ours.clone()], many(200)].concat(),
        vec![ours.clone(), long],
        [halves, vec![ours.clone()]].concat(),
        many(16_000),
    ] {
        let answer = send(&router, request(&fields, "/", "GET")).await;
        answer.is(431);
        assert!(token_headers(&answer).is_empty());
        for (method, route) in ROUTES {
            let answer = app.send(request(&fields, &format!("/auth{route}"), method)).await;
            answer.is(431);
            assert!(token_headers(&answer).is_empty(), "{route}");
        }
    }
    let split = [many(50), vec![format!("sRefreshToken={refresh}"), ours]].concat();
    app.send(request(&split, "/auth/session/refresh", "POST")).await.is(200);
}
