//! Where people are sent whose page is refused.

use std::time::Duration;

use axum::{Router, routing::get};
use http::{Method, StatusCode, header};
use tower_mfa::{
    FactorId, Mfa, MfaLayer, RequireFactors, SessionExtractor, api::ApiLayer, layer::PageRedirect,
};

use crate::{
    spy::{ALICE, signed_up},
    support::{Answer, Browser, Mode, TestApp},
};

fn routes(mfa: &Mfa) -> Router {
    let user = async |session: SessionExtractor| session.user_id().to_string();
    let vault = get(user).route_layer(RequireFactors::one_of([FactorId::OTP_EMAIL]));
    Router::new()
        .route("/orders", get(user).post(user))
        .route("/vault", vault)
        .route("/own", get(async || (StatusCode::FORBIDDEN, "not yours")))
        .route("/continue", get(user))
        .layer(MfaLayer::required(mfa.clone()))
        .route("/checked", get(user).layer(MfaLayer::required(mfa.clone()).check_store()))
        .route("/extracted", get(user).layer(MfaLayer::optional(mfa.clone())))
        .layer((PageRedirect::to("/continue").unwrap(), ApiLayer::new(mfa.clone())))
}

async fn open(
    app: &TestApp,
    browser: &mut Browser,
    method: Method,
    path: &str,
    mode: &'static str,
) -> Answer {
    let mut request = browser.request(method, path, None);
    request.headers_mut().insert("sec-fetch-mode", mode.parse().unwrap());
    let answer = app.send(request).await;
    browser.keep(&answer);
    answer
}

async fn page(app: &TestApp, browser: &mut Browser, path: &str) -> Answer {
    open(app, browser, Method::GET, path, "navigate").await
}

fn leads(answer: &Answer, to: &str) {
    assert_eq!(answer.status, 303, "{}", answer.text);
    assert_eq!((answer.headers[header::LOCATION].to_str().unwrap(), &*answer.text), (to, ""));
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    assert!(!answer.headers.contains_key(header::CONTENT_TYPE));
}

#[tokio::test]
async fn a_person_is_sent_on_and_a_script_is_told_why() {
    for mode in [Mode::Cookie, Mode::Header] {
        let app = TestApp::new().await;
        let (router, outbox) = (routes(&app.mfa), app.outbox.clone());
        let app = app.serving(router, outbox);
        let mut stranger = app.browser(mode);
        for path in ["/orders", "/extracted"] {
            let to = format!("/continue?redirectToPath=%2F{}", &path[1..]);
            leads(&page(&app, &mut stranger, path).await, &to);
            open(&app, &mut stranger, Method::GET, path, "cors").await.is(401);
        }
        leads(
            &page(&app, &mut stranger, "/orders?of=1").await,
            "/continue?redirectToPath=%2Forders%3Fof%3D1",
        );
        // A form that is posted would be lost; the page itself would be led to itself.
        open(&app, &mut stranger, Method::POST, "/orders", "navigate").await.is(401);
        page(&app, &mut stranger, "/continue").await.is(401);

        let mut alice = signed_up(&app, mode, ALICE).await;
        let user = page(&app, &mut alice, "/orders").await;
        assert_eq!((user.status.as_u16(), &user.text), (200, &app.user(ALICE).await.to_string()));
        leads(&page(&app, &mut alice, "/vault").await, "/continue?redirectToPath=%2Fvault");
        open(&app, &mut alice, Method::GET, "/vault", "cors").await.is(403);
        // What the app itself refuses, and what failed, is no matter of the session's.
        let own = page(&app, &mut alice, "/own").await;
        assert_eq!((own.status.as_u16(), &*own.text), (403, "not yours"));
        app.store.fail_next(1);
        page(&app, &mut alice, "/checked").await.is(503);
        app.store.fail_next(0);

        app.clock.advance(Duration::from_secs(3601));
        leads(&page(&app, &mut alice, "/orders").await, "/continue?redirectToPath=%2Forders");
        alice.refresh().await.is(200);
        page(&app, &mut alice, "/orders").await.is(200);
    }
}
