//! What is compared.

use axum::{Extension, Router, body::Body};
use http::Request;
use tokio::runtime::Runtime;
use tower_mfa::{MfaBuilder, MfaLayer};

use super::{
    Case, peers,
    shop::{Shop, bearing, request, with_cookies},
};

const BARE: &str = "bare axum";
const BARE_HEADER: &str = "bare axum, header token";
const BARE_COOKIE: &str = "bare axum, cookies";
/// Bare axum after an RS256 check by jsonwebtoken.
pub(crate) const LIBRARY: &str = "bare axum, jsonwebtoken's verifier";
/// The same by a prepared key.
pub(crate) const PREPARED: &str = "bare axum, a prepared key";

/// Every case, each with the bare one that gets the same request.
pub(crate) fn all(runtime: &Runtime) -> Vec<Case> {
    let warm = runtime.block_on(Shop::open(|builder| builder));
    let cold = runtime.block_on(Shop::open(MfaBuilder::without_token_cache));
    let (by_hand, hand_token) = peers::by_hand();
    let (sessions, session_cookie) = runtime.block_on(peers::tower_sessions());
    let bare = Shop::routes();
    let layered = |shop: &Shop| Shop::routes().layer(MfaLayer::required(shop.mfa.clone()));
    let (keeping, checking) = (layered(&warm), layered(&cold));
    let any_layer = Shop::routes().layer(Extension(String::new()));
    let nobody = || request().body(Body::empty()).expect("a request");
    let (by_library, prepared) = peers::signature_alone(&cold.bearer);
    // The bases check as much text as each case's token has.
    assert_eq!(cold.bearer.len(), warm.bearer.len(), "tokens of one length");
    let (forged, foreign) = (forged(&warm.bearer), foreign(&warm.bearer));
    vec![
        Case::new((BARE, BARE), bare.clone(), 200, nobody),
        with((BARE_HEADER, BARE), &bare, 200, &warm.bearer, bearing),
        with((BARE_COOKIE, BARE), &bare, 200, &warm.cookies, with_cookies),
        with((LIBRARY, BARE_HEADER), &bare, 200, &warm.bearer, bearing).after(by_library),
        with((PREPARED, BARE_HEADER), &bare, 200, &warm.bearer, bearing).after(prepared),
        with(("any layer with an extension", BARE_HEADER), &any_layer, 200, &warm.bearer, bearing),
        with(("layered, warm, header", BARE_HEADER), &keeping, 200, &warm.bearer, bearing),
        with(("layered, warm, cookie", BARE_COOKIE), &keeping, 200, &warm.cookies, with_cookies),
        with(("layered, cold, header", PREPARED), &checking, 200, &cold.bearer, bearing),
        with(("layered, cold, cookie", PREPARED), &checking, 200, &cold.cookies, with_cookies),
        Case::new(("refused: no token", BARE), keeping.clone(), 401, nobody),
        with(("refused: forged", PREPARED), &keeping, 401, &forged, bearing),
        with(("refused: no such key", BARE_HEADER), &keeping, 401, &foreign, bearing),
        with(("jsonwebtoken by hand", PREPARED), &by_hand, 200, &hand_token, bearing),
        with(("tower-sessions, memory store", BARE_COOKIE), &sessions, 200, &session_cookie, with_cookies),
    ]
}

fn with(
    name_and_base: (&'static str, &'static str),
    router: &Router,
    status: u16,
    credential: &str,
    request: fn(&str) -> Request<Body>,
) -> Case {
    let credential = credential.to_owned();
    Case::new(name_and_base, router.clone(), status, move || request(&credential))
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
