//! Keys that sign access tokens, and what verifies their signatures.
//!
//! Material and algorithm are one value, made together and never taken apart: no key can be used with
//! another's algorithm, and an HMAC over a public key can't be written down (rows J02, J03).

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    hmac::{self, HMAC_SHA256},
    rsa::{self, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaPublicKeyComponents,
    },
};
use jsonwebtoken::{Algorithm, DecodingKey, crypto::aws_lc::DEFAULT_PROVIDER};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use self::weak::{guessable, strong};
use crate::base::{error::Error, hash, random, time::Timestamp};

/// How access tokens are signed.
///
/// Another algorithm may be chosen at any time. Among the first three the keys in use go on verifying,
/// and the new one is published before it signs: nobody notices. Between them and [`Hs256`](Self::Hs256)
/// there is no such bridge, because a secret and a public key never stand in one set (row J02): the access
/// tokens in use then answer `try refresh token`, and clients refresh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SigningAlg {
    /// RSA PKCS#1 v1.5 with SHA-256, 2048 bits: what the SDKs' server-side parts accept.
    #[default]
    Rs256,
    /// Ed25519 (RFC 8037): short tokens, quick to sign.
    EdDsa,
    /// ECDSA on P-256 with SHA-256: short tokens.
    Es256,
    /// HMAC with SHA-256 and a secret of 256 random bits that the crate makes. Only processes that share
    /// the root keys can verify; the JWK set stays empty.
    Hs256,
}

impl SigningAlg {
    const ALL: [Self; 4] = [Self::Rs256, Self::EdDsa, Self::Es256, Self::Hs256];

    /// The registered name (RFC 7518, section 3.1; RFC 8037, section 3.1).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Hs256 => "HS256",
        }
    }

    /// By exactly its registered name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.name() == name)
    }

    /// Whether keys of the two may verify side by side: public keys with public keys, secrets with secrets.
    pub(crate) fn goes_with(self, other: Self) -> bool {
        (self == Self::Hs256) == (other == Self::Hs256)
    }
}

/// When a key may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyTimes {
    pub(crate) created_at: Timestamp,
    /// Not before this, so that every node knows it.
    pub(crate) sign_from: Timestamp,
    /// The next key takes over here.
    pub(crate) sign_until: Timestamp,
    /// From here on nothing it signed is accepted.
    pub(crate) verify_until: Timestamp,
}

impl KeyTimes {
    pub(crate) fn verifies(&self, now: Timestamp) -> bool {
        now < self.verify_until
    }

    /// Past its time, while its successor isn't ready, a key may sign for one more token life: half
    /// of the time that is left until nothing of it is accepted.
    pub(crate) fn may_sign(&self, now: Timestamp) -> bool {
        let late = self.verify_until.since(self.sign_until) / 2;
        self.sign_from <= now && now < self.sign_until + late
    }
}

/// One key: its id, its times, and what signs and verifies.
pub(crate) struct SigningKey {
    kid: String,
    times: KeyTimes,
    pair: Arc<Pair>,
}

impl SigningKey {
    /// Makes a key.
    ///
    /// # Errors
    /// If the library could not make one.
    pub(crate) fn generate(kid: String, alg: SigningAlg, times: KeyTimes) -> Result<Self, Error> {
        let failed = |_| Error::unavailable("no signing key could be made");
        let pair = match alg {
            SigningAlg::Rs256 => Pair::rs256(rsa::KeyPair::generate(KeySize::Rsa2048).map_err(failed)?)?,
            SigningAlg::EdDsa => Pair::ed_dsa(Ed25519KeyPair::generate().map_err(failed)?)?,
            SigningAlg::Es256 => {
                Pair::es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?)?
            }
            SigningAlg::Hs256 => Pair::hs256(&*Zeroizing::new(random::bytes::<32>()?))?,
        };
        Ok(Self { kid, times, pair: Arc::new(pair) })
    }

    /// Takes in a key as [`SigningKey::export`] gave it.
    ///
    /// # Errors
    /// If it is no such key, if it is weak (rows J19, J20), or if `kid` could not stand in a token.
    pub(crate) fn import(
        kid: &str,
        alg: SigningAlg,
        material: &[u8],
        times: KeyTimes,
    ) -> Result<Self, Error> {
        if !is_kid(kid) {
            return Err(Error::internal("a signing key has an unusable id"));
        }
        let pair = match alg {
            SigningAlg::Rs256 => Pair::rs256(rsa::KeyPair::from_pkcs8(material).map_err(|_| unreadable())?)?,
            SigningAlg::EdDsa => {
                Pair::ed_dsa(Ed25519KeyPair::from_pkcs8(material).map_err(|_| unreadable())?)?
            }
            SigningAlg::Es256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, material);
                Pair::es256(pair.map_err(|_| unreadable())?)?
            }
            SigningAlg::Hs256 => Pair::hs256(material)?,
        };
        Ok(Self { kid: kid.to_owned(), times, pair: Arc::new(pair) })
    }

    /// The private part, to be sealed and stored: PKCS#8 DER, or the secret's bytes.
    ///
    /// # Errors
    /// If the library refuses.
    pub(crate) fn export(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let failed = |_| Error::internal("a signing key can't be written");
        Ok(Zeroizing::new(match &self.pair.private {
            Private::Rs256(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                der.as_ref().to_vec()
            }
            Private::EdDsa(pair) => pair.to_pkcs8().map_err(failed)?.as_ref().to_vec(),
            Private::Es256(pair) => pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
            Private::Hs256(_, secret) => secret.to_vec(),
            Private::Elsewhere => return Err(Error::internal("a public key has no private part")),
        }))
    }

    /// Another issuer's public key: it verifies for as long as it is in the set, and signs nothing.
    pub(crate) fn foreign(kid: String, public: VerifyingKey) -> Self {
        let times = KeyTimes {
            created_at: Timestamp::EPOCH,
            sign_from: Timestamp::MAX,
            sign_until: Timestamp::MAX,
            verify_until: Timestamp::MAX,
        };
        Self { kid, times, pair: Arc::new(Pair { private: Private::Elsewhere, public }) }
    }

    /// The same key at other times.
    pub(crate) fn at(&self, times: KeyTimes) -> Self {
        Self { kid: self.kid.clone(), times, pair: Arc::clone(&self.pair) }
    }

    /// Signs.
    ///
    /// # Errors
    /// If the library refuses: nothing that depends on the signature may be committed (row R16).
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |_| Error::unavailable("signing failed");
        Ok(match &self.pair.private {
            Private::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random::source(), message, &mut signature).map_err(failed)?;
                signature
            }
            Private::EdDsa(pair) => pair.try_sign(message).map_err(failed)?.as_ref().to_vec(),
            Private::Es256(pair) => pair.sign(&random::source(), message).map_err(failed)?.as_ref().to_vec(),
            Private::Hs256(key, _) => hmac::sign(key, message).as_ref().to_vec(),
            Private::Elsewhere => return Err(Error::internal("a public key signs nothing")),
        })
    }

    /// Whether this key made the signature.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.pair.public.verify(message, signature)
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    pub(crate) fn alg(&self) -> SigningAlg {
        self.pair.public.alg()
    }

    /// The header of every token that this key signs, encoded.
    pub(crate) fn header(&self) -> String {
        let (alg, kid) = (self.alg().name(), &self.kid);
        hash::base64url(format!(r#"{{"alg":"{alg}","typ":"JWT","version":"5","kid":"{kid}"}}"#).as_bytes())
    }

    pub(crate) fn times(&self) -> KeyTimes {
        self.times
    }

    /// Whether tokens it signed may still be accepted.
    pub(crate) fn verifies(&self, now: Timestamp) -> bool {
        self.times.verifies(now)
    }

    /// The public part (RFC 7517); a secret has none.
    pub(crate) fn jwk(&self) -> Option<Value> {
        let (kid, alg) = (&self.kid, self.alg().name());
        Some(match &self.pair.public {
            VerifyingKey::Rs256 { n, e, .. } => {
                json!({"kty": "RSA", "kid": kid, "n": n, "e": e, "alg": alg, "use": "sig"})
            }
            VerifyingKey::EdDsa { x, .. } => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x, "alg": alg, "use": "sig"})
            }
            VerifyingKey::Es256 { x, y, .. } => {
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y, "alg": alg, "use": "sig"})
            }
            VerifyingKey::Hs256(_) => return None,
        })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("alg", &self.alg())
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}

/// Whether a text may be a key's id (row J05).
pub(crate) fn is_kid(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Both halves of one key.
struct Pair {
    private: Private,
    public: VerifyingKey,
}

/// What signs, prepared once.
enum Private {
    Rs256(Box<rsa::KeyPair>),
    EdDsa(Ed25519KeyPair),
    Es256(EcdsaKeyPair),
    Hs256(Box<hmac::Key>, Zeroizing<Vec<u8>>),
    /// Another server has it.
    Elsewhere,
}

impl Pair {
    fn rs256(pair: rsa::KeyPair) -> Result<Self, Error> {
        let parts = DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key;
        let (n, e) = parts(pair.public_key().as_ref()).map_err(|_| unreadable())?;
        Ok(Self { public: VerifyingKey::rs256(&n, &e)?, private: Private::Rs256(Box::new(pair)) })
    }

    fn ed_dsa(pair: Ed25519KeyPair) -> Result<Self, Error> {
        Ok(Self { public: VerifyingKey::ed_dsa(pair.public_key().as_ref())?, private: Private::EdDsa(pair) })
    }

    fn es256(pair: EcdsaKeyPair) -> Result<Self, Error> {
        Ok(Self { public: VerifyingKey::es256(pair.public_key().as_ref())?, private: Private::Es256(pair) })
    }

    fn hs256(secret: &[u8]) -> Result<Self, Error> {
        let public = VerifyingKey::hs256(secret)?;
        let key = Box::new(hmac::Key::new(HMAC_SHA256, secret));
        Ok(Self { public, private: Private::Hs256(key, Zeroizing::new(secret.to_vec())) })
    }
}

/// What verifies: a key together with the one algorithm it is for.
pub(crate) enum VerifyingKey {
    Rs256 { key: ParsedPublicKey, n: String, e: String },
    EdDsa { key: DecodingKey, x: String },
    Es256 { key: DecodingKey, x: String, y: String },
    Hs256(Box<hmac::Key>),
}

impl VerifyingKey {
    /// From modulus and exponent, big-endian without leading zeros.
    ///
    /// # Errors
    /// If the key is weak (row J19), or no key at all.
    pub(crate) fn rs256(n: &[u8], e: &[u8]) -> Result<Self, Error> {
        if !strong(n, e) {
            return Err(weak());
        }
        let key = RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
        let key = key.map_err(|_| unreadable())?;
        Ok(Self::Rs256 { key, n: hash::base64url(n), e: hash::base64url(e) })
    }

    /// From the 32 bytes of a public key.
    ///
    /// # Errors
    /// If there are not 32.
    pub(crate) fn ed_dsa(x: &[u8]) -> Result<Self, Error> {
        if x.len() != 32 {
            return Err(unreadable());
        }
        Ok(Self::EdDsa { key: DecodingKey::from_ed_der(x), x: hash::base64url(x) })
    }

    /// From an uncompressed point.
    ///
    /// # Errors
    /// If it isn't on P-256.
    pub(crate) fn es256(point: &[u8]) -> Result<Self, Error> {
        let halves = point.strip_prefix(&[4]).filter(|halves| halves.len() == 64);
        let (x, y) = halves.and_then(|halves| halves.split_at_checked(32)).ok_or_else(unreadable)?;
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| unreadable())?;
        Ok(Self::Es256 { key: DecodingKey::from_ec_der(point), x: hash::base64url(x), y: hash::base64url(y) })
    }

    /// From a secret.
    ///
    /// # Errors
    /// If it isn't what 256 random bits look like (row J20).
    pub(crate) fn hs256(secret: &[u8]) -> Result<Self, Error> {
        if guessable(secret) {
            return Err(weak());
        }
        Ok(Self::Hs256(Box::new(hmac::Key::new(HMAC_SHA256, secret))))
    }

    pub(crate) fn alg(&self) -> SigningAlg {
        match self {
            Self::Rs256 { .. } => SigningAlg::Rs256,
            Self::EdDsa { .. } => SigningAlg::EdDsa,
            Self::Es256 { .. } => SigningAlg::Es256,
            Self::Hs256(_) => SigningAlg::Hs256,
        }
    }

    /// Whether the key's holder made the signature.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            // jsonwebtoken's would build the key anew at each use, a tenth of the whole check.
            Self::Rs256 { key, .. } => key.verify_sig(message, signature).is_ok(),
            Self::EdDsa { key, .. } => provided(Algorithm::EdDSA, key, message, signature),
            Self::Es256 { key, .. } => provided(Algorithm::ES256, key, message, signature),
            // jsonwebtoken's would prepare the secret at each use, which alone takes more memory than a
            // bad token may cost (row J15).
            Self::Hs256(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }
}

/// jsonwebtoken's verifier. The process-wide default provider may be another, or none: ours is named.
fn provided(alg: Algorithm, key: &DecodingKey, message: &[u8], signature: &[u8]) -> bool {
    (DEFAULT_PROVIDER.verifier_factory)(&alg, key)
        .is_ok_and(|verifier| verifier.verify(message, &signature.to_vec()).is_ok())
}

fn unreadable() -> Error {
    Error::internal("a signing key can't be read")
}

fn weak() -> Error {
    Error::internal("a signing key is too weak")
}

mod weak;

#[cfg(test)]
pub(crate) mod tests;
