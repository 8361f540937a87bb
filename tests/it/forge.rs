//! An attacker who holds the root key, and so the app's own signing key: what such tokens can't do, nobody's
//! can. It opens the stored key by the documented construction, with the crypto library alone.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf, hmac,
    rand::SystemRandom,
    rsa::KeyPair,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Method, Request, header};
use serde_json::Value;
use tower_mfa::{
    MfaBuilder,
    config::{AppInfo, Secrets},
    store::{Key, MemoryStore, Store},
};

use crate::{
    spy::ALICE,
    support::{Answer, Browser, Mode, TestApp},
};

const ROOT: [u8; 32] = *b"\x01a root key that is for tests\x02\x03\x04";

pub fn info() -> AppInfo {
    AppInfo::new("Shop", "https://api.shop.test", "https://shop.test").unwrap()
}

pub fn encoded(data: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(data)
}

pub fn decoded(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// An app whose key the tests hold, and Alice, signed in with header tokens.
pub struct Forge {
    pub app: TestApp,
    pub alice: Browser,
    pub kid: String,
    pub alg: String,
    material: Vec<u8>,
}

impl Forge {
    pub async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    pub async fn with(change: impl FnOnce(MfaBuilder) -> MfaBuilder) -> Self {
        let (store, secrets) = (MemoryStore::new(), Secrets::new("root", ROOT).unwrap());
        let app = TestApp::on(info(), secrets, store.clone(), change).await;
        let mut alice = app.browser(Mode::Header);
        alice.sign_up(ALICE).await.ok();
        let record = store.get(&[Key::new(["keyset"])]).await.unwrap().remove(0).unwrap();
        let key = &record.body["keys"][0];
        let text = |name: &str| key[name].as_str().unwrap().to_owned();
        Self { app, alice, kid: text("kid"), alg: text("alg"), material: opened(&text("sealed")) }
    }

    pub fn access(&self) -> &str {
        self.alice.access.as_deref().unwrap()
    }

    /// The header that the app writes.
    pub fn header(&self) -> String {
        String::from_utf8(decoded(self.access().split('.').next().unwrap())).unwrap()
    }

    /// The payload of Alice's token.
    pub fn payload(&self) -> String {
        String::from_utf8(decoded(self.access().split('.').nth(1).unwrap())).unwrap()
    }

    /// A token of these parts with a good signature by the app's key.
    pub fn signed(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        let text = format!("{}.{}", encoded(header), encoded(payload));
        format!("{text}.{}", encoded(self.signature(&text)))
    }

    pub fn signature(&self, text: &str) -> Vec<u8> {
        let (message, rng) = (text.as_bytes(), SystemRandom::new());
        match self.alg.as_str() {
            "RS256" => {
                let pair = KeyPair::from_pkcs8(&self.material).unwrap();
                let mut signature = vec![0; 256];
                pair.sign(&RSA_PKCS1_SHA256, &rng, message, &mut signature).unwrap();
                signature
            }
            "ES256" => {
                let pair =
                    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.material).unwrap();
                pair.sign(&rng, message).unwrap().as_ref().to_vec()
            }
            "EdDSA" => Ed25519KeyPair::from_pkcs8(&self.material).unwrap().sign(message).as_ref().to_vec(),
            "HS256" => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.material), message).as_ref().to_vec()
            }
            other => panic!("{other}"),
        }
    }

    /// The payload with one member replaced, or taken out.
    pub fn with_claim(&self, name: &str, value: Option<&str>) -> String {
        let members: serde_json::Map<String, Value> = serde_json::from_str(&self.payload()).unwrap();
        let others = members.iter().filter(|(known, _)| *known != name);
        let mut parts: Vec<String> = others.map(|(name, value)| format!("\"{name}\":{value}")).collect();
        parts.extend(value.map(|value| format!("\"{name}\":{value}")));
        format!("{{{}}}", parts.join(","))
    }

    /// The header with further members.
    pub fn header_with(&self, members: &str) -> String {
        format!("{},{members}}}", self.header().trim_end_matches('}'))
    }

    /// A guarded request with this as bearer token.
    pub async fn bearer(&self, token: &str) -> Answer {
        let request = Request::get("/api/me").header(header::AUTHORIZATION, format!("Bearer {token}"));
        self.app.send(request.body(axum::body::Body::empty()).unwrap()).await
    }

    /// The same with this as cookie.
    pub async fn cookie(&self, token: &str) -> Answer {
        let request = Request::get("/api/me")
            .header("rid", "x")
            .header(header::COOKIE, format!("sAccessToken={token}"));
        self.app.send(request.body(axum::body::Body::empty()).unwrap()).await
    }

    /// Says `try refresh token`, by both ways of transfer, and touches no token.
    pub async fn refused(&self, token: &str, what: &str) {
        try_refresh(&self.bearer(token).await, what);
        // A cookie's value ends at what isn't of a cookie.
        if token.bytes().all(|b| b.is_ascii_graphic() && !b"\",;\\".contains(&b)) && token.len() < 4000 {
            try_refresh(&self.cookie(token).await, what);
        }
    }

    pub async fn jwks(&self) -> Value {
        let request = Request::builder().method(Method::GET).uri("/auth/jwt/jwks.json");
        self.app.send(request.body(axum::body::Body::empty()).unwrap()).await.body
    }
}

pub fn try_refresh(answer: &Answer, what: &str) {
    assert_eq!(
        (answer.status.as_u16(), answer.body["message"].as_str()),
        (401, Some("try refresh token")),
        "{what}"
    );
    assert!(answer.cookies().is_empty() && !answer.headers.contains_key("front-token"), "{what}");
}

pub fn unauthorised(answer: &Answer, what: &str) {
    assert_eq!(
        (answer.status.as_u16(), answer.body["message"].as_str()),
        (401, Some("unauthorised")),
        "{what}"
    );
    assert!(answer.cookies().is_empty() && !answer.headers.contains_key("front-token"), "{what}");
}

/// Opens `<root id>.<nonce>.<sealed>`.
fn opened(sealed: &str) -> Vec<u8> {
    struct Len;
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            32
        }
    }
    let mut key = [0; 32];
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tower-mfa");
    salt.extract(&ROOT).expand(&[b"seal"], Len).unwrap().fill(&mut key).unwrap();
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
    let parts: Vec<&str> = sealed.split('.').collect();
    let nonce = Nonce::try_assume_unique_for_key(&decoded(parts[1])).unwrap();
    let aad = Aad::from(format!("{}\n{}", parts[0], Key::new(["keyset"]).as_str()).into_bytes());
    let mut text = decoded(parts[2]);
    cipher.open_in_place(nonce, aad, &mut text).unwrap().to_vec()
}
