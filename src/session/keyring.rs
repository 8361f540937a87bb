//! Signing keys in memory: which one signs now, which ones verify, when to make the next.
//!
//! A key is published at least [`Schedule::lead`] before it first signs (row J07), signs for
//! [`Schedule::rotation`], and goes on verifying for twice the life of an access token. The set is
//! immutable; a change of keys swaps it whole, so a request sees one set from start to end.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use jsonwebtoken::{Algorithm, DecodingKey, crypto::aws_lc::DEFAULT_PROVIDER};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::seen::Seen;
use crate::base::{error::Error, hash, random, time::Timestamp};

/// How access tokens are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum SigningAlg {
    /// RSA PKCS#1 v1.5 with SHA-256, 2048 bits: what the SDKs' server-side parts accept.
    #[default]
    Rs256,
}

impl SigningAlg {
    /// The registered name (RFC 7518, section 3.1).
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
        }
    }

    /// By exactly its registered name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Rs256].into_iter().find(|alg| alg.name() == name)
    }

    fn verifier(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
        }
    }
}

/// How keys follow each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// How long a key signs.
    pub(crate) rotation: Duration,
    /// How long before its first use a key is published: at least the time in which every node reloads.
    pub(crate) lead: Duration,
    /// The longest life of an access token.
    pub(crate) token_life: Duration,
}

impl Schedule {
    pub(crate) const ROTATION: Duration = Duration::from_secs(168 * 3600);
    pub(crate) const LEAD: Duration = Duration::from_secs(60);

    pub(crate) const fn new(token_life: Duration) -> Self {
        Self { rotation: Self::ROTATION, lead: Self::LEAD, token_life }
    }

    /// The times of a key made now that is to sign from `sign_from`.
    pub(crate) fn times(&self, now: Timestamp, sign_from: Timestamp) -> KeyTimes {
        let sign_until = sign_from + self.rotation;
        KeyTimes {
            created_at: now,
            sign_from,
            sign_until,
            verify_until: sign_until + self.token_life + self.token_life,
        }
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

/// One key. Its material and its algorithm are one value, so no key can be used with another's (row J02).
pub(crate) struct SigningKey {
    kid: String,
    times: KeyTimes,
    material: Material,
}

enum Material {
    Rs256 { pair: Box<KeyPair>, public: DecodingKey, n: String, e: String },
}

impl SigningKey {
    /// Makes a key whose id is `d-` and the milliseconds of its making.
    ///
    /// # Errors
    /// If the library could not make one.
    pub(crate) fn generate(alg: SigningAlg, times: KeyTimes) -> Result<Self, Error> {
        let kid = format!("d-{}", times.created_at.as_millis());
        match alg {
            SigningAlg::Rs256 => {
                let pair = KeyPair::generate(KeySize::Rsa2048)
                    .map_err(|_| Error::unavailable("no signing key could be made"))?;
                Self::from_pair(kid, times, pair)
            }
        }
    }

    /// Takes in a key as [`SigningKey::export`] gave it.
    ///
    /// # Errors
    /// If it is no such key, if it is weak (row J19), or if `kid` could not stand in a token.
    pub(crate) fn import(kid: &str, alg: SigningAlg, pkcs8: &[u8], times: KeyTimes) -> Result<Self, Error> {
        if !is_kid(kid) {
            return Err(Error::internal("a signing key has an unusable id"));
        }
        match alg {
            SigningAlg::Rs256 => {
                let pair =
                    KeyPair::from_pkcs8(pkcs8).map_err(|_| Error::internal("a signing key can't be read"))?;
                Self::from_pair(kid.to_owned(), times, pair)
            }
        }
    }

    fn from_pair(kid: String, times: KeyTimes, pair: KeyPair) -> Result<Self, Error> {
        let parts = DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key;
        let (n, e) =
            parts(pair.public_key().as_ref()).map_err(|_| Error::internal("a signing key can't be read"))?;
        if !strong(&n, &e) {
            return Err(Error::internal("a signing key is too weak"));
        }
        let public = DecodingKey::from_rsa_raw_components(&n, &e);
        let (n, e) = (hash::base64url(&n), hash::base64url(&e));
        Ok(Self { kid, times, material: Material::Rs256 { pair: Box::new(pair), public, n, e } })
    }

    /// The private key as PKCS#8 DER, to be sealed and stored.
    ///
    /// # Errors
    /// If the library refuses.
    pub(crate) fn export(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        match &self.material {
            Material::Rs256 { pair, .. } => {
                let der: Pkcs8V1Der<'_> =
                    pair.as_der().map_err(|_| Error::internal("a signing key can't be written"))?;
                Ok(Zeroizing::new(der.as_ref().to_vec()))
            }
        }
    }

    /// Signs.
    ///
    /// # Errors
    /// If the library refuses: nothing that depends on the signature may be committed (row R16).
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match &self.material {
            Material::Rs256 { pair, .. } => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random::source(), message, &mut signature)
                    .map_err(|_| Error::unavailable("signing failed"))?;
                Ok(signature)
            }
        }
    }

    /// Whether this key made the signature.
    pub(crate) fn verify(&self, message: &[u8], signature: &Vec<u8>) -> bool {
        let Material::Rs256 { public, .. } = &self.material;
        // The process-wide default provider may be another, or none: name ours.
        (DEFAULT_PROVIDER.verifier_factory)(&self.alg().verifier(), public)
            .is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// The header of every token that this key signs, encoded.
    pub(crate) fn header(&self) -> String {
        let (alg, kid) = (self.alg().name(), &self.kid);
        hash::base64url(format!(r#"{{"alg":"{alg}","typ":"JWT","version":"5","kid":"{kid}"}}"#).as_bytes())
    }

    pub(crate) fn alg(&self) -> SigningAlg {
        match self.material {
            Material::Rs256 { .. } => SigningAlg::Rs256,
        }
    }

    #[cfg(test)]
    pub(crate) fn times(&self) -> KeyTimes {
        self.times
    }

    /// Whether tokens it signed may still be accepted.
    pub(crate) fn verifies(&self, now: Timestamp) -> bool {
        now < self.times.verify_until
    }

    /// When that ends.
    pub(crate) fn verify_until(&self) -> Timestamp {
        self.times.verify_until
    }

    /// The public part (RFC 7517).
    pub(crate) fn jwk(&self) -> Value {
        match &self.material {
            Material::Rs256 { n, e, .. } => {
                json!({"kty": "RSA", "kid": self.kid, "n": n, "e": e, "alg": self.alg().name(), "use": "sig"})
            }
        }
    }

    /// Past its time, while its successor isn't ready, a key may sign for one more token life: half
    /// of the time that is left until nothing of it is accepted.
    fn may_sign(&self, now: Timestamp) -> bool {
        let late = self.times.verify_until.since(self.times.sign_until) / 2;
        self.times.sign_from <= now && now < self.times.sign_until + late
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}

/// Whether a text may be a key's id (row J05).
pub(crate) fn is_kid(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// At least 2048 bits and an exponent of at least 65537; both big-endian without leading zeros (row J19).
fn strong(n: &[u8], e: &[u8]) -> bool {
    let long = n.len() > 256 || (n.len() == 256 && n.first().is_some_and(|byte| *byte >= 0x80));
    let exponent = e.iter().fold(0_u64, |sum, byte| sum.saturating_mul(256).saturating_add(u64::from(*byte)));
    long && exponent >= 65537
}

/// A set of keys as it was at one moment, and the tokens it verified.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    keys: BTreeMap<String, Arc<SigningKey>>,
    /// The same keys by the header of the tokens they sign.
    headers: Vec<(String, Arc<SigningKey>)>,
    seen: Seen,
}

impl Keyring {
    pub(crate) fn new(keys: impl IntoIterator<Item = Arc<SigningKey>>) -> Self {
        let keys: BTreeMap<_, _> = keys.into_iter().map(|key| (key.kid.clone(), key)).collect();
        let headers = keys.values().map(|key| (key.header(), Arc::clone(key))).collect();
        Self { keys, headers, seen: Seen::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key of this id, whatever its times.
    pub(crate) fn find(&self, kid: &str) -> Option<&Arc<SigningKey>> {
        self.keys.get(kid)
    }

    /// The key that signs tokens with exactly this header.
    pub(crate) fn by_header(&self, header: &[u8]) -> Option<&Arc<SigningKey>> {
        self.headers.iter().find(|(known, _)| known.as_bytes() == header).map(|(_, key)| key)
    }

    /// The tokens that a key of this set verified.
    #[inline]
    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Whether both hold the very same keys.
    fn is(&self, other: &Self) -> bool {
        self.keys.len() == other.keys.len()
            && self.keys.values().zip(other.keys.values()).all(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// The key that signs now: the newest whose time has come.
    pub(crate) fn signing(&self, now: Timestamp) -> Option<&Arc<SigningKey>> {
        self.keys.values().filter(|key| key.may_sign(now)).max_by_key(|key| key.times.sign_from)
    }

    /// The public keys that verify now or will, as a JWK set (RFC 7517).
    pub(crate) fn jwks(&self, now: Timestamp) -> Value {
        let keys: Vec<Value> =
            self.keys.values().filter(|key| key.verifies(now)).map(|key| key.jwk()).collect();
        json!({ "keys": keys })
    }

    /// How long the JWK set may be cached, in seconds: until the next key is made.
    pub(crate) fn max_age(&self, now: Timestamp, schedule: &Schedule) -> u64 {
        match self.last_signing_end() {
            Some(end) => due(end, schedule).since(now).as_secs().max(1),
            None => 60,
        }
    }

    fn last_signing_end(&self) -> Option<Timestamp> {
        self.keys.values().map(|key| key.times.sign_until).max()
    }
}

/// What the set of keys needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyPlan {
    /// Make a key that signs from then on.
    pub(crate) make: Option<Timestamp>,
    /// Keys of which no token can live.
    pub(crate) drop: Vec<String>,
}

impl KeyPlan {
    pub(crate) fn is_nothing(&self) -> bool {
        self.make.is_none() && self.drop.is_empty()
    }
}

/// What to do about the keys now. A first key signs at once, for nobody can sign without it; any other
/// waits until it has been published for [`Schedule::lead`].
pub(crate) fn plan(keys: &Keyring, now: Timestamp, schedule: &Schedule) -> KeyPlan {
    let make = match keys.last_signing_end() {
        _ if !keys.keys.values().any(|key| key.verifies(now)) => Some(now),
        Some(end) if due(end, schedule) <= now => Some(end.max(now + schedule.lead)),
        _ => None,
    };
    let drop = keys.keys.values().filter(|key| !key.verifies(now)).map(|key| key.kid.clone()).collect();
    KeyPlan { make, drop }
}

/// The next key is made twice the lead before it is needed, so that a late look still leaves the lead.
fn due(sign_until: Timestamp, schedule: &Schedule) -> Timestamp {
    sign_until - schedule.lead - schedule.lead
}

/// The keys of this process: one set at a time, swapped whole.
#[derive(Debug, Default)]
pub(crate) struct Keys(RwLock<Arc<Keyring>>);

impl Keys {
    /// None yet, and room for so many bytes of verified tokens.
    pub(crate) fn new(seen: Seen) -> Self {
        Self(RwLock::new(Arc::new(Keyring { seen, ..Keyring::default() })))
    }

    /// The set as it is now.
    #[inline]
    pub(crate) fn current(&self) -> Arc<Keyring> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another set in its place, which has verified nothing yet. Who holds the former one keeps it. The
    /// same keys once more change nothing.
    pub(crate) fn replace(&self, mut keys: Keyring) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !current.is(&keys) {
            keys.seen = current.seen.anew();
            *current = Arc::new(keys);
        }
    }
}

/// May an unknown key id cause a reload? One in 5 s for the process, and not for an id that a reload
/// did not find shortly before (row J06).
#[derive(Debug, Default)]
pub(crate) struct ReloadGate(Mutex<Gate>);

#[derive(Debug, Default)]
struct Gate {
    /// When the last reload started: failed ones count.
    started: Option<Instant>,
    /// Ids that a reload did not find.
    absent: HashMap<String, Instant>,
}

impl ReloadGate {
    const PAUSE: Duration = Duration::from_secs(5);
    const REMEMBERED: Duration = Duration::from_secs(60);
    const ABSENT: usize = 1024;

    /// If so, the reload counts as started.
    pub(crate) fn may_reload(&self, kid: &str, now: Instant) -> bool {
        let mut gate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |at: Instant, limit| now.saturating_duration_since(at) < limit;
        if gate.absent.get(kid).is_some_and(|at| fresh(*at, Self::REMEMBERED)) {
            return false;
        }
        if gate.started.is_some_and(|at| fresh(at, Self::PAUSE)) {
            return false;
        }
        gate.started = Some(now);
        true
    }

    /// A reload that was complete did not find this id.
    pub(crate) fn not_found(&self, kid: &str, now: Instant) {
        let mut gate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if gate.absent.len() >= Self::ABSENT {
            gate.absent.retain(|_, at| now.saturating_duration_since(*at) < Self::REMEMBERED);
        }
        // Full of fresh ones: the pause alone holds the flood.
        if gate.absent.len() < Self::ABSENT {
            gate.absent.insert(kid.to_owned(), now);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_700_000_000 + secs)
    }

    /// Keys take long to make: all tests share a few.
    pub(crate) fn pkcs8(which: usize) -> Vec<u8> {
        static MADE: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
        let made = MADE.get_or_init(|| {
            (0..2)
                .map(|_| {
                    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
                    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
                    der.as_ref().to_vec()
                })
                .collect()
        });
        made[which].clone()
    }

    pub(crate) fn key(kid: &str, which: usize, times: KeyTimes) -> Arc<SigningKey> {
        Arc::new(SigningKey::import(kid, SigningAlg::Rs256, &pkcs8(which), times).unwrap())
    }

    fn hourly() -> Schedule {
        Schedule { rotation: HOUR, lead: Duration::from_secs(60), token_life: Duration::from_secs(600) }
    }

    #[test]
    fn signs_and_comes_back_from_storage() {
        let times = Schedule::new(HOUR).times(at(0), at(60));
        let key = SigningKey::generate(SigningAlg::Rs256, times).unwrap();
        assert_eq!(key.kid(), "d-1700000000000");
        let again = SigningKey::import(key.kid(), key.alg(), &key.export().unwrap(), times).unwrap();
        let signature = again.sign(b"text").unwrap();
        assert!(key.verify(b"text", &signature) && !key.verify(b"texT", &signature));
        assert!(!key.verify(b"text", &Vec::new()));
        let jwk = key.jwk();
        assert_eq!(jwk, again.jwk());
        assert_eq!((jwk["kty"].as_str(), jwk["e"].as_str()), (Some("RSA"), Some("AQAB")));
        assert_eq!(jwk["n"].as_str().unwrap().len(), 342);
        assert_eq!(jwk.as_object().unwrap().len(), 6);
        assert!(!format!("{key:?}").contains(jwk["n"].as_str().unwrap()));
    }

    #[test]
    fn sec_j19_weak_keys_are_refused_at_load() {
        let times = hourly().times(at(0), at(0));
        for (what, text) in [("exponent 3", WEAK_EXPONENT), ("1024 bits", WEAK_MODULUS)] {
            let der = hash::from_base64(text).unwrap();
            assert!(SigningKey::import("k", SigningAlg::Rs256, &der, times).is_err(), "{what}");
        }
        let long = |first| [vec![first], vec![0xff; 255]].concat();
        for (n, e, good) in [
            (long(0x80), vec![1, 0, 1], true),
            (long(0x7f), vec![1, 0, 1], false),
            (vec![0xff; 255], vec![1, 0, 1], false),
            (vec![1; 257], vec![1, 0, 1], true),
            (long(0xff), vec![1, 0, 0], false),
            (long(0xff), vec![3], false),
            (long(0xff), vec![], false),
            (long(0xff), vec![1; 12], true),
        ] {
            assert_eq!(strong(&n, &e), good, "{} {e:?}", n.len());
        }
        for kid in ["", "a b", "../x", &"k".repeat(65)] {
            assert!(SigningKey::import(kid, SigningAlg::Rs256, &pkcs8(0), times).is_err(), "{kid}");
        }
    }

    #[test]
    fn sec_j06_one_reload_in_five_seconds_whatever_comes() {
        let (gate, start) = (ReloadGate::default(), Instant::now());
        let mut reloads = 0;
        for n in 0..10_000_u64 {
            // 10 000 requests over 20 s; every reload finds nothing.
            let now = start + Duration::from_millis(2 * n);
            if gate.may_reload(&format!("k{n}"), now) {
                reloads += 1;
                gate.not_found(&format!("k{n}"), now);
            }
        }
        assert_eq!(reloads, 4);
        // An id that was not found causes none for a minute.
        let later = start + Duration::from_secs(30);
        gate.not_found("gone", later);
        assert!(!gate.may_reload("gone", later + Duration::from_secs(59)));
        assert!(gate.may_reload("gone", later + Duration::from_secs(60)));
        for n in 0..5_000 {
            gate.not_found(&format!("x{n}"), later);
        }
        assert_eq!(gate.0.lock().unwrap().absent.len(), ReloadGate::ABSENT);
    }

    #[test]
    fn sec_j07_rotation_rejects_no_valid_token_and_accepts_no_retired_key() {
        // Three nodes reload once a minute at different seconds; the store rotates every hour for 30 days.
        let schedule = hourly();
        let mut store: Vec<Arc<SigningKey>> = Vec::new();
        let mut nodes = [Keyring::default(), Keyring::default(), Keyring::default()];
        // By key: when the last token that it signed expires.
        let mut tokens: BTreeMap<String, Timestamp> = BTreeMap::new();
        let mut used: BTreeMap<String, Timestamp> = BTreeMap::new();
        let mut made = 0_usize;
        for second in (0..30 * 24 * 3600).step_by(20) {
            let now = at(second);
            if second % 60 == 0 {
                let plan = plan(&Keyring::new(store.iter().cloned()), now, &schedule);
                store.retain(|key| !plan.drop.contains(&key.kid));
                if let Some(from) = plan.make {
                    made += 1;
                    store.push(key(&format!("k{made}"), made % 2, schedule.times(now, from)));
                }
            }
            for (n, node) in nodes.iter_mut().enumerate() {
                if second % 60 == 20 * n as i64 || second == 0 {
                    *node = Keyring::new(store.iter().cloned());
                }
            }
            for node in &nodes {
                let key = node.signing(now).expect("some key signs at any time");
                tokens.insert(key.kid.clone(), now + schedule.token_life);
                used.insert(key.kid.clone(), now);
            }
            tokens.retain(|_, exp| now < *exp);
            for kid in tokens.keys() {
                for node in &nodes {
                    assert!(node.find(kid).is_some_and(|key| key.verifies(now)), "{kid} at {second}");
                }
            }
            for node in &nodes {
                for key in node.keys.values().filter(|key| key.verifies(now)) {
                    // No key outlives its use by more than two token lives and a rotation.
                    let last = used.get(&key.kid).copied().unwrap_or(now);
                    assert!(now.since(last) < HOUR + 2 * schedule.token_life + schedule.lead);
                }
            }
        }
        assert!((715..=725).contains(&made), "{made}");
    }

    #[test]
    fn the_plan() {
        let schedule = hourly();
        let ring = |times: &[KeyTimes]| {
            Keyring::new(times.iter().enumerate().map(|(n, times)| key(&format!("k{n}"), 0, *times)))
        };
        let first = schedule.times(at(0), at(0));
        assert_eq!(plan(&ring(&[]), at(5), &schedule), KeyPlan { make: Some(at(5)), drop: vec![] });
        assert!(plan(&ring(&[first]), at(3479), &schedule).is_nothing());
        assert_eq!(plan(&ring(&[first]), at(3480), &schedule).make, Some(at(3600)));
        // Late: the lead is kept, the old key bridges it.
        let late = plan(&ring(&[first]), at(3590), &schedule);
        assert_eq!(late.make, Some(at(3650)));
        let both = ring(&[first, schedule.times(at(3590), at(3650))]);
        assert_eq!(both.signing(at(3649)).unwrap().kid(), "k0");
        assert_eq!(both.signing(at(3650)).unwrap().kid(), "k1");
        assert!(plan(&both, at(3700), &schedule).is_nothing());
        // Nobody looked for a day: the old key is dead, a new one signs at once.
        let slept = plan(&ring(&[first]), at(86_400), &schedule);
        assert_eq!(slept, KeyPlan { make: Some(at(86_400)), drop: vec!["k0".to_owned()] });
        assert!(ring(&[first]).signing(at(4200)).is_none(), "a token must not outlive its key");
        assert_eq!(ring(&[first]).max_age(at(0), &schedule), 3480);
        assert_eq!(ring(&[first]).max_age(at(3599), &schedule), 1);
        assert_eq!(ring(&[]).max_age(at(0), &schedule), 60);
        assert_eq!(ring(&[first]).jwks(at(4799))["keys"].as_array().unwrap().len(), 1);
        assert_eq!(ring(&[first]).jwks(at(4800)), json!({"keys": []}));
    }

    #[test]
    fn sec_j08_a_key_that_was_taken_out_is_gone_with_the_swap() {
        let keys = Keys::default();
        let times = hourly().times(at(0), at(0));
        keys.replace(Keyring::new([key("k1", 0, times), key("k2", 1, times)]));
        let held = keys.current();
        keys.replace(Keyring::new([key("k2", 1, times)]));
        assert!(keys.current().find("k1").is_none() && keys.current().find("k2").is_some());
        assert!(held.find("k1").is_some(), "a request sees one set from start to end");
    }

    // Made for this test, used nowhere else.
    const WEAK_EXPONENT: &str = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQCyog9+FZJ0XCg2rI93DBibbDzOlCb/8j2rAdYeNgBriFo3daBobq1+mDi1TL+TCtwoyL5S9BLwrRJD4BojBuB22YPG9U4U+ekSoLBHlqGAP0TKN1Ygfx625Eq+6HWj9oOCaLTLi3OrO2JMDU/OQLhGFnEdM340sdGtmRIuIgvzp4Z0nXSFK5uU8oqpaHsnNKtPfyG3P+pET1PBSwjvVaEtDxclhELx5SfdPTWyLE7ZBRJeVeBGQHev3CYzMl9lex7w3etZ3Vfz8kZRdIltEED+I4JRKJAuyHHGkJI6HxfLNSCqFvoNx9ldFtKvAabqO5S7WYAT6kOQ8gMv2I1rH+DLAgEDAoIBAHcWtP65DE2SxXnIX6SyuxJIKIm4Gf/208dWjr7OqvJa5s+jwEWfHlRleyOIf7dcksXbKYyit0seDC1AEWyvQE87rS9ONA378LcVytpka6rU2IbPjsBUvySYMdSa+Rf5rQGbIzJc98d87DKziomAetlkS2jM/s3L4R5mDB7BXU0ZOukfIYJgB+Zl+IyjUgClHzF+DIevThLpf0ICi0IuNkQDWVnQ6HAmuPSi7alRosGEtBl1jVTHLIKt/Ov6W18SojhqKtS46yMR69KyATukWYEmrMivTwzaThsAcxTzdlWzyvsjH36E6LKEsgzNE+vNXpjtXPPZwyU3I5a2DA8r9CsCgYEA7biGOxXBH+fqsq4GDOIIz8a70/TSxLmhKTjREHXbrcpVcUELHaRF9jlKMOEdkqWPQKxxE3ruS2nKC1Wgcdqv0zPertZrlcGafV/6SjjheWrq/JbetHLqIFpSPGoX+h5hL3KuZqDJupfs5kGoPyNmFlh33FGJXpIM0nF6a6MAa+sCgYEAwF5ohyvab9Nu4yhtc0Q0LL6GOvbmMG5P66V2J5Y0ofy0n92/yKVlHDT+oFMUSBEuw4u0eMwnaYINH3uaZHwvWGhf/ERcYX285zVvPVq4QVF+go1C5SiW3EO9qTCZ7CxGQL6z5C82wbli4VolyeUhcH19mFSaQEcSe1xND7FdhqECgYEAnnsEJ2PWFUVHIclZXewF39nSjU3h2HvAxiXgtaPnyTGOS4CyE8LZTtDcIJYTtxkKKx2gt6dJh5vcB45q9pHKjM0/HzmdDoERqOqm3CXrpkdHUw8/IvdGwDw20vFlUWmWH6HJmcCGfGVImYEa1MJEDuWlPYuw6bazNvZRnRdVnUcCgYEAgD7wWh08Soz0l3BI94LNcymu0fnuyvQ1R8OkGmQjFqh4apPVMG5DaCNUauINhWDJ17J4UIgaRlazalJm7agfkEWVUtg9llPTRM5KKOclgOD/AbOB7hsPPYJ+cMsRSB2EKynNQsokgSZB65FuhpjA9aj+ZY28KtoMUj2ItSDpBGsCgYEAuKcnHin4UmQdxFT3dUI2CsE4tH6a1CUsDebViF3lEIQUwG890bS/7/UKAa1latmO48rXw1LXMKS67++h1s6METukRMrrnqshBp2Nk/QM4i/ur4LYeUL4mspNIuDaHyx0PcjLeB6RXGwGlLuzWcIWwRhnSOguWo7mTo+4TsBhib4=";
    const WEAK_MODULUS: &str = "MIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJcAgEAAoGBALHCWKwhMWxg+/cOmpc3rN1oQj7v2vgtE6wXcjex4jrTHa1rMHxq6iPEzPK0/jexG7r8/Bl67q8iW44NCNJB9FasQzFrldzmEP1IHG8UVsBe/ykB1Y57R2+dQOT3Bx67YwvdAZMbsokUGeuhCy52O6wJTq9iystJd9cJqkXbeMTPAgMBAAECgYB/jxw8oTErOcl196fdvdkxpOBs84gpsYc9ZjHTX7YdSmQwjwvjLIHKmy4LOPB4nIJuw55Q1pOzX69dl2LuJuAjpByTU+mhJZKcP5Suwz7fQxvlzWn5o6IbRJrU2Mnhh3+V3dK1p3DMGXbw1zaEUFduOTERhxOlABZsQrc2UwiVAQJBANbeoWMyHZ/pb8B478rYG7SwbFFHDe8yV4bXI+UUeRMthi5yDGUxt0ZnZs6gtzwJ+nke3wXAUO5HcSRRflI/G4ECQQDTySvoo2Le0T94QBp4Jwn9X611C2xvj2MdvrD51FNKSB7XjVijg5T17JlJ2UJDaUjT7zI9xzwOsKCiqXZHw0hPAkEAj6o9iCCbFC+1q6Bw3FSQeci4M8PpejRTt3Gjq2h756m5nNZemU6bdzRt1dw5h6g4U8GjZqoGsrsL2Dew2XcegQJANY2dKMqH6cgHwKSVDOTyRbu35OzqkpszeQYLQmFKXnI2OlNnopFXTYhyipYBh4JMBCtsDOsgaKaJOBiZ7DOZSQJAcNVOoXDY+kgDXTMLAwU3aSw5PY7J/j78MlHMASNHugpzyb5r6Ea/3SejkYUU3A5Jz8kyoRp06aIMOYxHvpdzMQ==";
}
