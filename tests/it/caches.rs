//! Rows C11 and C12: what caches may keep, and whose cookies an answer carries.

use std::collections::BTreeSet;

use axum::{Router, response::IntoResponse, routing::get};
use http::{HeaderMap, Method, header};
use serde_json::json;
use tower_mfa::{MfaLayer, SessionExtractor, ident::Payload};

use crate::{
    spy::{ALICE, BOB, Log, ROUTES, every_route, signed_up, token_headers, with},
    support::{Answer, Mode, PASSWORD, TestApp, credentials, send},
};

#[tokio::test]
async fn sec_c11_no_auth_answer_is_kept_by_a_cache() {
    let app = every_route().await;
    let alice = signed_up(&app, Mode::Cookie, ALICE).await;
    let vary = |answer: &Answer| -> BTreeSet<String> {
        let fields = answer.headers.get_all(header::VARY).iter().map(|value| value.to_str().unwrap());
        fields.flat_map(|field| field.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
    };
    for (method, route) in ROUTES {
        for tenant in ["", "/public", "/nowhere"] {
            for browser in [&alice, &app.browser(Mode::Header)] {
                let path = format!("/auth{tenant}{route}?email=a@b.example&phoneNumber=%2B36301111142");
                let body = (method != "GET").then(|| credentials(ALICE, PASSWORD));
                let answer = app.send(browser.request(method.parse().unwrap(), &path, body)).await;
                let control = answer.headers[header::CACHE_CONTROL].to_str().unwrap();
                // Public keys are the one thing that is meant to be kept.
                let keys = route.ends_with("jwks.json");
                assert!(control == "no-store" || keys && control.starts_with("max-age="), "{path} {control}");
                assert_eq!(answer.headers.get_all(header::CACHE_CONTROL).iter().count(), 1, "{path}");
                let vary = vary(&answer);
                assert!(vary.contains("cookie") && vary.contains("authorization"), "{path} {vary:?}");
            }
        }
    }
}

async fn public(session: Option<SessionExtractor>, headers: HeaderMap) -> impl IntoResponse {
    if headers.contains_key("x-note") {
        let note = Payload::from_json(json!({ "note": 1 })).unwrap();
        session.as_deref().unwrap().merge_payload(note).await.unwrap();
    }
    if headers.contains_key("x-revoke") {
        session.as_deref().unwrap().revoke().await.unwrap();
    }
    [(header::CACHE_CONTROL, "public, max-age=3600"), (header::VARY, "Accept-Encoding")]
}

#[tokio::test]
async fn sec_c11_what_a_handler_lets_caches_keep_is_overruled() {
    let app = TestApp::new().await;
    for mode in [Mode::Cookie, Mode::Header] {
        let mut alice = app.browser(mode);
        let email = if mode == Mode::Cookie { ALICE } else { BOB };
        alice.sign_up(email).await.ok();
        for layer in [MfaLayer::required(app.mfa.clone()), MfaLayer::optional(app.mfa.clone())] {
            alice.sign_in(email).await.ok();
            let router: Router = Router::new().route("/page", get(public)).layer(layer);
            for (extra, control) in
                [("x-nothing", "private, no-store"), ("x-note", "no-store"), ("x-revoke", "no-store")]
            {
                let request = with(alice.request(Method::GET, "/page", None), &[(extra, "1")]);
                let answer = send(&router, request).await;
                answer.is(200);
                let said = answer.headers.get_all(header::CACHE_CONTROL).iter().collect::<Vec<_>>();
                assert_eq!(said, [control], "{mode:?} {extra}");
                let vary: Vec<_> = answer.headers.get_all(header::VARY).iter().collect();
                // What isn't stored needs no `Vary`; where tokens change it is asked for.
                let expected = ["Accept-Encoding", "Cookie, Authorization"];
                assert_eq!(vary, expected[..if extra == "x-nothing" { 1 } else { 2 }], "{mode:?} {extra}");
                assert_eq!(token_headers(&answer).is_empty(), extra == "x-nothing");
            }
        }
    }
}

#[tokio::test]
async fn sec_c12_a_handlers_cookie_by_our_name_goes_and_is_told() {
    async fn planting(session: Option<SessionExtractor>) -> impl IntoResponse {
        if let Some(session) = session {
            session.merge_payload(Payload::from_json(json!({ "note": 1 })).unwrap()).await.unwrap();
        }
        let mut headers = HeaderMap::new();
        for cookie in [
            "first=1; Path=/",
            "sAccessToken=planted; Path=/",
            "sRefreshToken=planted; Domain=shop.test",
            " sAccessToken\t=planted",
            "=sAccessToken=planted",
            "__Host-sAccessToken=planted; Secure; Path=/",
            "last=1",
            "last=2; Path=/x",
        ] {
            headers.append(header::SET_COOKIE, cookie.parse().unwrap());
        }
        headers
    }
    for prefix in [false, true] {
        let app = TestApp::with(|b| if prefix { b.host_prefix() } else { b }).await;
        let alice = signed_up(&app, Mode::Cookie, ALICE).await;
        let layer = MfaLayer::optional(app.mfa.clone());
        let router: Router = Router::new().route("/page", get(planting)).layer(layer);
        for browser in [&alice, &app.browser(Mode::Cookie)] {
            let (log, _guard) = Log::start();
            let answer = send(&router, browser.request(Method::GET, "/page", None)).await;
            let cookies = answer.cookies();
            let ours = if prefix { "__Host-sAccessToken=" } else { "sAccessToken=" };
            let planted: Vec<_> = cookies.iter().filter(|cookie| cookie.contains("planted")).collect();
            // By the other names they are the app's own affair.
            assert_eq!(planted.len(), if prefix { 4 } else { 1 }, "{cookies:?}");
            assert!(planted.iter().all(|cookie| !cookie.starts_with(ours)), "{cookies:?}");
            let set = cookies.iter().filter(|cookie| cookie.starts_with(ours)).count();
            assert_eq!(set, usize::from(!browser.jar.is_empty()), "{cookies:?}");
            for own in ["first=1; Path=/", "last=1", "last=2; Path=/x"] {
                assert!(cookies.contains(&own), "{cookies:?}");
            }
            log.has("ERROR", "a handler set a cookie by a name of the session's");
        }
    }
}
