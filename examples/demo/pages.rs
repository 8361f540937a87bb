//! The files under `pages/`, the headers they go out with, and whom the server answers at all.

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderValue, StatusCode,
        header::{self, HeaderName},
    },
    middleware::Next,
    response::{IntoResponse as _, Response},
    routing::get,
};

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const DRAWING: &str = "image/svg+xml";

const FILES: [(&str, &str, &str); 23] = [
    ("/", HTML, include_str!("pages/index.html")),
    ("/signup", HTML, include_str!("pages/signup.html")),
    ("/signin", HTML, include_str!("pages/signin.html")),
    ("/code", HTML, include_str!("pages/code.html")),
    // Where the links in messages lead: the website's base path and `/verify`.
    ("/auth/verify", HTML, include_str!("pages/verify.html")),
    ("/forgot", HTML, include_str!("pages/forgot.html")),
    ("/auth/reset-password", HTML, include_str!("pages/reset.html")),
    ("/orders", HTML, include_str!("pages/orders.html")),
    ("/admin", HTML, include_str!("pages/admin.html")),
    ("/settings", HTML, include_str!("pages/settings.html")),
    ("/sessions", HTML, include_str!("pages/sessions.html")),
    ("/dev", HTML, include_str!("pages/dev.html")),
    ("/dev/outbox", HTML, include_str!("pages/outbox.html")),
    ("/style.css", STYLE, include_str!("pages/style.css")),
    ("/app.js", SCRIPT, include_str!("pages/app.js")),
    ("/code.js", SCRIPT, include_str!("pages/code.js")),
    ("/link.js", SCRIPT, include_str!("pages/link.js")),
    ("/reset.js", SCRIPT, include_str!("pages/reset.js")),
    ("/sessions.js", SCRIPT, include_str!("pages/sessions.js")),
    ("/http.js", SCRIPT, include_str!("pages/http.js")),
    ("/ui.js", SCRIPT, include_str!("pages/ui.js")),
    ("/logo.svg", DRAWING, include_str!("pages/logo.svg")),
    ("/harbour.svg", DRAWING, include_str!("pages/harbour.svg")),
];

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// The pages are the same for everybody; their scripts ask the API.
pub fn router() -> Router {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, text)| {
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "no-cache"),
            (header::REFERRER_POLICY, "same-origin"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        ];
        router.route(path, get(move || async move { (headers, text) }))
    })
}

/// Answers for the shop's own names only, and puts the common headers on every answer.
///
/// `/dev` hands out roles and codes: a foreign name that somebody lets point to this machine must not
/// reach it.
pub async fn guard(State(port): State<u16>, request: Request, next: Next) -> Response {
    let names = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let mut response = match names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
        true => next.run(request).await,
        false => (StatusCode::MISDIRECTED_REQUEST, "this shop has another address").into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let resource = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(resource, HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
