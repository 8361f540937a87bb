//! Rows X09 to X11: which pages may read what, and that they can read refusals.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    Router,
    routing::{any, get},
};
use http::Method;
use serde_json::json;
use tower_mfa::{FactorId, MfaLayer, SessionExtractor, api::ApiLayer, config::AppInfo, policy::Everyone};

use crate::{
    spy::{ALICE, Log, SITE, bare, posted, shop, signed_up, with},
    support::{Answer, Mode, PASSWORD, TestApp, credentials, send},
};

const ORIGIN: &str = "access-control-allow-origin";
const ADMIN: &str = "https://admin.shop.test:8443";

fn list(answer: &Answer, name: &str) -> BTreeSet<String> {
    let fields = answer.headers.get_all(name).iter().map(|value| value.to_str().unwrap());
    fields.flat_map(|field| field.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

#[tokio::test]
async fn sec_x09_credentials_are_for_the_listed_origins_alone() {
    // What stands for any origin is no origin, so it can't be configured.
    for any in
        ["*", "https://*", "https://*.shop.test", "null", "", "any", "https://shop.test, https://evil.test"]
    {
        assert!(AppInfo::new("Shop", "https://api.shop.test", any).is_err(), "{any}");
        assert!(shop().also_website(any).is_err(), "{any}");
    }
    let app = TestApp::of(shop().also_website(ADMIN).unwrap(), |b| b).await;
    for origin in [
        SITE,
        ADMIN,
        "https://evil.test",
        "https://shop.test.evil.test",
        "https://shop.test:444",
        "http://shop.test",
        "https://SHOP.test",
        "https://api.shop.test",
        "https://admin.shop.test",
        "null",
        "*",
    ] {
        let listed = [SITE, ADMIN].contains(&origin);
        let preflight = [("access-control-request-method", "POST"), ("origin", origin)];
        for answer in [
            app.send(with(bare("GET", "/api/me"), &[("origin", origin)])).await,
            app.send(with(bare("OPTIONS", "/api/me"), &preflight)).await,
            app.send(with(bare("GET", "/auth/loginmethods"), &[("origin", origin)])).await,
        ] {
            let allowed: Vec<_> = answer.headers.get_all(ORIGIN).iter().collect();
            assert_eq!(allowed, if listed { vec![origin] } else { vec![] }, "{origin}");
            assert!(list(&answer, "vary").contains("origin"), "{origin} {:?}", answer.headers);
            if listed {
                assert_eq!(answer.headers["access-control-allow-credentials"], "true");
            } else {
                assert!(!answer.headers.contains_key("access-control-allow-credentials"), "{origin}");
            }
            for (name, value) in &answer.headers {
                assert!(!name.as_str().starts_with("access-control-") || value != "*", "{name}");
            }
        }
    }
    // The public keys alone are for everybody, and without credentials they are.
    let keys = |origin| with(bare("GET", "/auth/jwt/jwks.json"), &[("origin", origin)]);
    for request in [bare("GET", "/auth/jwt/jwks.json"), keys("https://evil.test"), keys("null")] {
        let answer = app.send(request).await;
        answer.is(200);
        assert_eq!(answer.headers[ORIGIN], "*");
        assert!(!answer.headers.contains_key("access-control-allow-credentials"), "{:?}", answer.headers);
    }
    assert_eq!(app.send(keys(SITE)).await.headers[ORIGIN], SITE);
}

#[tokio::test]
async fn sec_x10_a_preflight_passes_without_a_session_and_a_real_options_does_not() {
    async fn seen(session: Option<SessionExtractor>) -> &'static str {
        if session.is_some() { "somebody" } else { "nobody" }
    }
    let app = TestApp::new().await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let mounts = [
        MfaLayer::required(app.mfa.clone()),
        MfaLayer::required(app.mfa.clone()).check_store().csrf_always(),
        MfaLayer::optional(app.mfa.clone()),
    ];
    for (at, mount) in mounts.into_iter().enumerate() {
        let router: Router = Router::new()
            .route("/bare", any(|| async { "handler" }))
            .route("/seen", any(seen))
            .layer(mount)
            .layer(ApiLayer::new(app.mfa.clone()));
        let asks = [("access-control-request-method", "PUT"), ("origin", SITE)];
        let calls = app.store.calls();
        for path in ["/bare", "/auth/signin"] {
            let answer = send(&router, with(bare("OPTIONS", path), &asks)).await;
            answer.is(if path == "/bare" { 200 } else { 404 });
            assert!(!answer.headers.contains_key("vary") && !answer.headers.contains_key("cache-control"));
        }
        // With cookies, which browsers don't send: untouched all the same, and no session goes in.
        let own = with(alice.request(Method::OPTIONS, "/seen", None), &asks);
        send(&router, own).await.is(500);
        assert_eq!(app.store.calls(), calls);
        // An OPTIONS that asks nobody's permission is a request like any other.
        let strangers = send(&router, bare("OPTIONS", "/seen")).await;
        assert_eq!((strangers.status == 401, strangers.text == "nobody"), (at != 2, at == 2));
        let mine = send(&router, alice.request(Method::OPTIONS, "/seen", None)).await;
        assert_eq!(mine.text, "somebody");
        // Nor is a GET with the header a preflight.
        let odd = send(&router, with(bare("GET", "/seen"), &asks)).await;
        assert_eq!((odd.status == 401, odd.text == "nobody"), (at != 2, at == 2));
    }
}

#[tokio::test]
async fn sec_x11_pages_can_read_every_refusal() {
    let app = TestApp::with(|b| b.policy(Everyone::new(FactorId::OTP_EMAIL))).await;
    let (log, _guard) = Log::start();
    let mut alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let mut seen = BTreeSet::new();
    let mut readable = |answer: &Answer| {
        seen.insert(answer.status.as_u16());
        assert_eq!(answer.headers[ORIGIN], SITE, "{}", answer.status);
        assert_eq!(answer.headers["access-control-allow-credentials"], "true");
        let exposed = list(answer, "access-control-expose-headers");
        for name in ["front-token", "anti-csrf", "st-access-token", "st-refresh-token"] {
            assert!(exposed.contains(name), "{name} {exposed:?}");
        }
    };
    let from = |request| with(request, &[("origin", SITE)]);
    let preflight = [("access-control-request-method", "POST"), ("origin", SITE)];
    app.send(with(bare("OPTIONS", "/auth/signin"), &preflight)).await.is(200);
    readable(&app.send(from(bare("GET", "/api/me"))).await);
    readable(&app.send(from(alice.request(Method::GET, "/api/me", None))).await);
    readable(&app.send(from(posted(&alice, "/auth/signin", Some(json!({}))))).await);
    readable(
        &app.send(from(posted(&alice, "/auth/nowhere/signin", Some(credentials(ALICE, PASSWORD))))).await,
    );
    let text = with(posted(&alice, "/auth/signin", Some(json!({}))), &[("content-type", "text/plain")]);
    readable(&app.send(from(text)).await);
    app.store.fail_next(1000);
    let failing = app.send(from(posted(&alice, "/auth/signout", None))).await;
    app.store.fail_next(0);
    readable(&failing);
    let mut tab = alice.clone();
    alice.pass_code(ALICE).await;
    readable(&app.send(from(posted(&tab, "/auth/session/refresh", None))).await);
    alice.refresh().await.is(200);
    let theft = app.send(from(posted(&tab, "/auth/session/refresh", None))).await;
    assert_eq!(theft.body["message"], "token theft detected");
    readable(&theft);
    tab.keep(&theft);
    app.clock.advance(Duration::from_secs(1));
    readable(&app.send(from(posted(&tab, "/auth/session/refresh", None))).await);
    assert_eq!(Vec::from_iter(seen), [400, 401, 403, 404, 409, 415, 503]);
    assert!(log.lines("WARN", "preflight").is_empty(), "the order is right");
}

/// Whether a preflight of this origin is told about, with these layers.
async fn warned(router: Router, origin: &str, api: bool) -> bool {
    let (log, _guard) = Log::start();
    let path = if api { "/auth/signin" } else { "/page" };
    let asks = [("access-control-request-method", "POST"), ("origin", origin)];
    send(&router, with(bare("OPTIONS", path), &asks)).await;
    let refused = send(&router, with(bare("GET", "/page"), &[("origin", origin)])).await;
    refused.is(401);
    let told = !log.lines("WARN", "mount mfa.cors() outermost").is_empty();
    assert!(!(told && refused.headers.contains_key(ORIGIN)), "a refusal that can be read");
    told
}

#[tokio::test]
async fn sec_x11_layers_in_the_wrong_order_are_told_about() {
    let app = TestApp::new().await;
    let mfa = || app.mfa.clone();
    let page = || Router::new().route("/page", get(|| async {}));
    let right = || page().layer(MfaLayer::required(mfa())).layer(ApiLayer::new(mfa())).layer(mfa().cors());
    let none = || page().layer(MfaLayer::required(mfa())).layer(ApiLayer::new(mfa()));
    let inside = || page().layer(mfa().cors()).layer(MfaLayer::required(mfa())).layer(ApiLayer::new(mfa()));
    let between = || page().layer(MfaLayer::required(mfa())).layer(mfa().cors()).layer(ApiLayer::new(mfa()));
    let told = cfg!(all(debug_assertions, feature = "tracing"));
    for api in [false, true] {
        assert!(!warned(right(), SITE, api).await);
        assert_eq!(warned(none(), SITE, api).await, told);
        assert_eq!(warned(inside(), SITE, api).await, told);
    }
    // Between the two, the routes' own refusals can't be read.
    let (log, _guard) = Log::start();
    let asks = [("access-control-request-method", "POST"), ("origin", SITE)];
    send(&between(), with(bare("OPTIONS", "/auth/signin"), &asks)).await;
    assert_eq!(!log.lines("WARN", "mount mfa.cors() outermost").is_empty(), told);
    // A page that isn't ours, and the API's own, need no CORS.
    assert!(!warned(none(), "https://evil.test", false).await);
    assert!(!warned(none(), "https://api.shop.test", false).await);
    let one = AppInfo::new("Shop", "https://shop.test", SITE).unwrap();
    let one = TestApp::of(one, |b| b).await;
    let own = page().layer(MfaLayer::required(one.mfa.clone()));
    assert!(!warned(own, SITE, false).await);
}
