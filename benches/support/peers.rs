//! What people use instead: a middleware by hand around `jsonwebtoken`, and `tower-sessions`.

use std::sync::Arc;

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaPublicKeyComponents},
};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, StatusCode, header};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, crypto::aws_lc::DEFAULT_PROVIDER};
use serde::Deserialize;
use tower::ServiceExt as _;
use tower_sessions::{MemoryStore, Session, SessionManagerLayer};

use super::shop::Shop;

#[derive(Clone, Deserialize)]
#[allow(dead_code, reason = "read from the token as an app would, then only handed on")]
struct Claims {
    sub: String,
    exp: u64,
    role: String,
}

struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

/// The shop behind thirty lines that check an RS256 token, and a token for them.
pub(crate) fn by_hand() -> (Router, String) {
    let _ = DEFAULT_PROVIDER.install_default();
    let header = r#"{"alg":"RS256","typ":"JWT"}"#;
    let claims = r#"{"sub":"buyer","exp":4000000000,"role":"customer"}"#;
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let (n, e, signature) = signed(message.as_bytes());
    let key = DecodingKey::from_rsa_raw_components(&n, &e);
    let verifier = Arc::new(Verifier { key, validation: Validation::new(Algorithm::RS256) });
    let routes = Shop::routes().layer(middleware::from_fn_with_state(verifier, check));
    (routes, format!("{message}.{signature}"))
}

async fn check(State(verifier): State<Arc<Verifier>>, mut request: Request, next: Next) -> Response {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer "));
    let decode = |token| jsonwebtoken::decode::<Claims>(token, &verifier.key, &verifier.validation).ok();
    match token.and_then(decode) {
        Some(data) => {
            request.extensions_mut().insert(data.claims);
            next.run(request).await
        }
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

/// Two checks of one signature of as much text as this token's, each from the signature's text on: by jsonwebtoken as
/// an app calls it, and by a key that was prepared before.
pub(crate) fn signature_alone(token: &str) -> (impl Fn() + use<>, impl Fn() + use<>) {
    let _ = DEFAULT_PROVIDER.install_default();
    let (message, _) = token.rsplit_once('.').expect("three segments");
    let message: Arc<[u8]> = message.as_bytes().into();
    let (n, e, signature) = signed(&message);
    let signature: Arc<str> = signature.into();
    let key = DecodingKey::from_rsa_raw_components(&n, &e);
    let (text, letters) = (Arc::clone(&message), Arc::clone(&signature));
    let by_library = move || {
        let good = jsonwebtoken::crypto::verify(&letters, &text, &key, Algorithm::RS256);
        assert!(good.expect("a check"), "a good signature");
    };
    let key = RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
    let key = key.expect("a public key");
    let prepared = move || {
        let signature = URL_SAFE_NO_PAD.decode(&*signature).expect("base64url");
        key.verify_sig(&message, &signature).expect("a good signature");
    };
    (by_library, prepared)
}

/// The modulus and exponent of a new key, and its RS256 signature of a message as tokens carry it.
fn signed(message: &[u8]) -> (Vec<u8>, Vec<u8>, String) {
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let parts = DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key;
    let (n, e) = parts(pair.public_key().as_ref()).expect("its numbers");
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).expect("a signature");
    (n, e, URL_SAFE_NO_PAD.encode(signature))
}

/// The shop behind `tower-sessions` with its memory store, whose handler reads one value, and the cookie of
/// a session that has it.
pub(crate) async fn tower_sessions() -> (Router, String) {
    let sessions = SessionManagerLayer::new(MemoryStore::default());
    let routes = Router::new()
        .route(
            "/orders",
            get(|session: Session| async move {
                let user: Option<String> = session.get("user").await.expect("memory answers");
                user.map_or("nobody", |_| "no orders yet")
            }),
        )
        .route(
            "/sign-in",
            post(|session: Session| async move {
                session.insert("user", "buyer").await.expect("memory takes it");
            }),
        )
        .layer(sessions);
    let request = Request::post("/sign-in").body(Body::empty()).expect("a request");
    let response = routes.clone().oneshot(request).await.expect("it never fails");
    let cookie = cookie(response.headers());
    (routes, cookie)
}

fn cookie(headers: &HeaderMap) -> String {
    let value = headers.get(header::SET_COOKIE).expect("a cookie").to_str().expect("text");
    value.split(';').next().expect("a pair").to_owned()
}
