//! What the layer costs a request: bare axum, axum's own price for any layer, ours, and what people use
//! instead. `cargo bench --features full --bench layer`; with `-- --test` each case runs once.
//!
//! The signature is timed alone as well, because no check of a new token can save it.

use std::time::Duration;

use axum::{Extension, Router, body::Body};
use http::Request;
use tokio::runtime::Builder;
use tower_mfa::{MfaBuilder, MfaLayer};

mod support;
use support::{
    Case, alone, peers, run,
    shop::{Shop, bearing, request, with_cookies},
};

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let warm = runtime.block_on(Shop::open(|builder| builder));
    let cold = runtime.block_on(Shop::open(MfaBuilder::without_token_cache));
    let (by_hand, hand_token) = peers::by_hand();
    let (sessions, session_cookie) = runtime.block_on(peers::tower_sessions());
    let layered = |shop: &Shop| Shop::routes().layer(MfaLayer::required(shop.mfa.clone()));
    let signed = layered(&warm);
    let unsigned = layered(&cold);
    let any_layer = Shop::routes().layer(Extension(7_u32));
    let nobody = || request().body(Body::empty()).expect("a request");
    let cases = vec![
        case("bare axum", Shop::routes(), 200, nobody),
        case("any layer that inserts an extension", any_layer, 200, nobody),
        with("layered, warm, header", &signed, 200, &warm.bearer, bearing),
        with("layered, warm, cookie", &signed, 200, &warm.cookies, with_cookies),
        with("layered, cold, header", &unsigned, 200, &cold.bearer, bearing),
        with("layered, cold, cookie", &unsigned, 200, &cold.cookies, with_cookies),
        case("refused: no token", signed.clone(), 401, nobody),
        with("refused: forged", &signed, 401, &forged(&warm.bearer), bearing),
        with("refused: no such key", &signed, 401, &foreign(&warm.bearer), bearing),
        with("jsonwebtoken by hand", &by_hand, 200, &hand_token, bearing),
        with("tower-sessions, memory store", &sessions, 200, &session_cookie, with_cookies),
    ];
    // The background reads the change feed once a second; it needs a moment of its own in between.
    let breathe = || std::thread::sleep(Duration::from_millis(30));
    if run(cases, 400, breathe).is_some() {
        println!("an RS256 signature checked alone: {:.0} ns", alone(200, peers::signature_alone()));
    }
    drop(runtime);
}

fn case(
    name: &'static str,
    router: Router,
    status: u16,
    request: impl Fn() -> Request<Body> + 'static,
) -> Case {
    Case::new(name, router, status, request)
}

fn with(
    name: &'static str,
    router: &Router,
    status: u16,
    credential: &str,
    request: fn(&str) -> Request<Body>,
) -> Case {
    let credential = credential.to_owned();
    Case::new(name, router.clone(), status, move || request(&credential))
}

/// A token of ours whose signature somebody changed.
fn forged(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').expect("three segments");
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{signed}.{first}{}", &signature[1..])
}

/// A token whose header names a key that isn't there.
fn foreign(token: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let (_, rest) = token.split_once('.').expect("three segments");
    let header = r#"{"alg":"RS256","typ":"JWT","version":"5","kid":"d-1600000000000"}"#;
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header))
}
