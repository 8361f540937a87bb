//! Apple's client secret: a token that the app signs itself, for each request.

use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    base::{error::Error, hash, secret::Secret, time::Timestamp},
    session::signing::{KeyTimes, SigningAlg, SigningKey},
};

const AUDIENCE: &str = "https://appleid.apple.com";
/// Seconds. Apple allows half a year; one exchange takes a moment.
const LIFE: i64 = 300;

/// The key in a file `AuthKey_….p8`: PKCS#8 in PEM.
pub(super) fn key(pem: &Secret<String>) -> Option<SigningKey> {
    let body = pem.expose().split("-----BEGIN PRIVATE KEY-----").nth(1)?;
    let body = body.split("-----END PRIVATE KEY-----").next()?;
    let text: Zeroizing<String> = Zeroizing::new(body.split_whitespace().collect());
    let der = Zeroizing::new(hash::from_base64(&text)?);
    // Whoever signs says when; the key's own times are of no account here.
    let at = Timestamp::EPOCH;
    let times = KeyTimes { created_at: at, sign_from: at, sign_until: at, verify_until: at };
    SigningKey::import("apple", SigningAlg::Es256, &der, times).ok()
}

/// A secret for the client, good for five minutes.
pub(super) fn secret(
    client: &str,
    team: &str,
    key_id: &str,
    pem: &Secret<String>,
    now: Timestamp,
) -> Result<Secret<String>, Error> {
    let key = key(pem).ok_or(Error::invalid("Apple's private key can't be read"))?;
    let header = json!({ "alg": "ES256", "kid": key_id });
    let (iat, exp) = (now.as_secs(), now.as_secs() + LIFE);
    let claims = json!({ "iss": team, "iat": iat, "exp": exp, "aud": AUDIENCE, "sub": client });
    let part = |value: &serde_json::Value| hash::base64url(value.to_string().as_bytes());
    let message = format!("{}.{}", part(&header), part(&claims));
    let signature = key.sign(message.as_bytes())?;
    Ok(Secret::new(format!("{message}.{}", hash::base64url(&signature))))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    };

    use super::*;

    #[test]
    fn the_secret_is_signed_by_the_downloaded_key() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let text = hash::base64(pair.to_pkcs8v1().unwrap().as_ref());
        let (one, two) = text.split_at(64);
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{one}\n{two}\n-----END PRIVATE KEY-----\n");
        let now = Timestamp::from_secs(1_702_877_939);
        let secret = secret("com.example.shop", "TEAM123456", "KEY1234567", &Secret::new(pem), now).unwrap();
        let (message, signature) = secret.expose().rsplit_once('.').unwrap();
        let signature = hash::from_base64url(signature).unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref());
        public.verify(message.as_bytes(), &signature).unwrap();
        let parts: Vec<serde_json::Value> = message
            .split('.')
            .map(|part| serde_json::from_slice(&hash::from_base64url(part).unwrap()).unwrap())
            .collect();
        assert_eq!(parts[0], json!({ "alg": "ES256", "kid": "KEY1234567" }));
        let claims = json!({
            "iss": "TEAM123456",
            "iat": 1_702_877_939,
            "exp": 1_702_878_239,
            "aud": "https://appleid.apple.com",
            "sub": "com.example.shop",
        });
        assert_eq!(parts[1], claims);
        for broken in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"] {
            assert!(key(&Secret::new(broken.to_owned())).is_none(), "{broken}");
        }
    }
}
