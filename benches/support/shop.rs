//! An app with the crate in it, signed into once for each way of transfer.

use axum::{Router, body::Body, routing::get};
use http::{HeaderMap, Request, header};
use serde_json::json;
use tower::ServiceExt as _;
use tower_mfa::{
    Mfa, MfaBuilder,
    api::ApiLayer,
    config::{AppInfo, Secrets},
    store::MemoryStore,
};

/// An app and the tokens of its one user.
pub(crate) struct Shop {
    pub(crate) mfa: Mfa,
    /// An access token as a header sends it.
    pub(crate) bearer: String,
    /// The `Cookie` header of the same user's browser, a few other cookies around ours.
    pub(crate) cookies: String,
}

impl Shop {
    /// Builds the app, signs up, and signs in again by cookie.
    pub(crate) async fn open(change: impl FnOnce(MfaBuilder) -> MfaBuilder) -> Self {
        let app = AppInfo::new("Shop", "https://api.shop.test", "https://shop.test").expect("an app");
        let secrets = Secrets::random().expect("secrets");
        let builder = Mfa::builder(app, secrets, MemoryStore::new()).without_passwordless();
        let mfa = change(builder).build().expect("it builds");
        let header = sign(&mfa, "/auth/signup", "header").await;
        let cookie = sign(&mfa, "/auth/signin", "cookie").await;
        let bearer = header.get("st-access-token").expect("a token").to_str().expect("text").to_owned();
        let set = cookie.get_all(header::SET_COOKIE).iter().map(|cookie| cookie.to_str().expect("text"));
        let access = set
            .filter_map(|cookie| cookie.split(';').next())
            .find(|pair| pair.starts_with("sAccessToken="))
            .expect("an access cookie")
            .to_owned();
        let cookies = format!("theme=dark; _ga=GA1.1.1234567890.1234567890; {access}; lang=en-GB");
        Self { mfa, bearer, cookies }
    }

    /// The route that everything here wraps.
    pub(crate) fn routes() -> Router {
        Router::new().route("/orders", get(|| async { "no orders yet" }))
    }
}

/// A request for that route, with the headers that a browser sends anyway.
pub(crate) fn request() -> http::request::Builder {
    Request::get("/orders")
        .header(header::HOST, "api.shop.test")
        .header(header::ACCEPT, "application/json")
        .header(header::ACCEPT_LANGUAGE, "en-GB,en;q=0.9")
        .header(header::USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
}

/// The same with a header token.
pub(crate) fn bearing(token: &str) -> Request<Body> {
    request().header(header::AUTHORIZATION, format!("Bearer {token}")).body(Body::empty()).expect("a request")
}

/// The same with cookies.
pub(crate) fn with_cookies(cookies: &str) -> Request<Body> {
    request().header(header::COOKIE, cookies).body(Body::empty()).expect("a request")
}

async fn sign(mfa: &Mfa, path: &str, mode: &str) -> HeaderMap {
    let body = json!({"formFields": [
        {"id": "email", "value": "buyer@shop.test"},
        {"id": "password", "value": "correct horse 1"},
    ]});
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header("st-auth-mode", mode)
        .header("rid", "emailpassword")
        .body(Body::from(body.to_string()))
        .expect("a request");
    let app = Shop::routes().layer(ApiLayer::new(mfa.clone()));
    let response = app.oneshot(request).await.expect("it never fails");
    assert_eq!(response.status(), 200, "{path}");
    response.headers().clone()
}
