//! The access token: a JWS whose layout the browser SDKs know ("version 5"), made and opened.
//!
//! Opening runs in one order, and nothing but `alg` and `kid` counts before the signature was checked
//! (row J21): length, three segments, canonical base64url, a header of exactly four members, the key's
//! own algorithm, signature, then the claims from the very bytes that were signed.

use std::{fmt, sync::Arc};

use memchr::memchr;
use serde_json::{Map, Value, json};

use super::{
    claims::AccessClaims,
    cookies::cut,
    keyring::Keyring,
    signing::{SigningAlg, SigningKey, is_kid},
};
use crate::{
    base::{error::Error, hash, json, payload::PROTECTED, secret::Secret, time::Timestamp},
    model::epoch::Epochs,
};

/// A token and the hint about it that scripts may read.
pub(crate) struct Minted {
    pub(crate) token: Secret<String>,
    pub(crate) front: String,
}

/// What a browser keeps of a token: the cookie's name counts (row C06).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Length of the longest name under which the token is kept.
    pub(crate) name: usize,
    /// Bytes for name and value.
    pub(crate) limit: usize,
}

impl Room {
    /// What browsers take (RFC 6265bis, section 5.6).
    pub(crate) const BROWSER: usize = 4096;
}

/// Why no token was made. The one that is in use stays valid.
#[derive(Debug)]
pub(crate) enum MintError {
    /// A browser would drop it (row C06).
    TooLarge,
    /// The payload is too deep or too wide to be read again (row J16).
    Unreadable,
    /// The key could not sign.
    Signing(Error),
}

impl From<MintError> for Error {
    fn from(error: MintError) -> Self {
        match error {
            MintError::TooLarge => Error::invalid("the session's payload is too large for a cookie"),
            MintError::Unreadable => {
                Error::invalid("the session's payload is too deep or has too many members")
            }
            MintError::Signing(error) => error,
        }
    }
}

/// Why a text opened to no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// Not one of our tokens: as if it were not there.
    NotOurs,
    /// One of ours by its looks, but not to be accepted: `TRY_REFRESH`.
    TryRefresh,
    /// Its key isn't known here; once more after a reload, if [`super::keyring::ReloadGate`] allows one.
    UnknownKey(String),
}

/// Longest token that is looked at (row J15).
const LONGEST: usize = 8 * 1024;
const LONGEST_HEADER: usize = 1024;
/// With room to spare for an RSA key of 4096 bits.
const LONGEST_SIGNATURE: usize = 1024;
/// What every header that we write starts with, encoded: for RS256, EdDSA, ES256 and HS256.
const OURS: [&[u8; 64]; 4] = [
    b"eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsInZlcnNpb24iOiI1Iiwia2lkIjoi",
    b"eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCIsInZlcnNpb24iOiI1Iiwia2lkIjoi",
    b"eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCIsInZlcnNpb24iOiI1Iiwia2lkIjoi",
    b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsInZlcnNpb24iOiI1Iiwia2lkIjoi",
];

/// Makes a token.
pub(crate) fn mint(
    claims: &AccessClaims,
    key: &SigningKey,
    issuer: &str,
    room: Room,
) -> Result<Minted, MintError> {
    let payload = serialise(claims, issuer);
    json::parse_object(payload.as_bytes()).map_err(|_| MintError::Unreadable)?;
    let front = front_token(claims, &payload);
    let mut token = key.header();
    token.push('.');
    token.push_str(&hash::base64url(payload.as_bytes()));
    let signature = key.sign(token.as_bytes()).map_err(MintError::Signing)?;
    token.push('.');
    token.push_str(&hash::base64url(&signature));
    // The browser's copy of the front token is a cookie as well.
    if token.len() + room.name > room.limit || front.len() + "sFrontToken".len() > room.limit {
        return Err(MintError::TooLarge);
    }
    Ok(Minted { token: Secret::new(token), front })
}

/// The claims as JSON text. It goes into token and front token as it is: the SDKs compare the two.
fn serialise(claims: &AccessClaims, issuer: &str) -> String {
    let Epochs { app, tenant, user, session } = claims.epochs;
    let mut ep = Map::new();
    ep.insert("n".to_owned(), json!([app, tenant, user, session]));
    if let Some(ask_at) = claims.ask_at {
        ep.insert("ask".to_owned(), json!(ask_at));
    }
    let own = [
        ("iat", json!(claims.issued_at)),
        ("exp", json!(claims.expires_at)),
        ("sub", json!(claims.user.as_str())),
        ("tId", json!(claims.tenant.as_str())),
        ("rsub", json!(claims.login.as_str())),
        ("sessionHandle", json!(claims.handle.as_str())),
        ("refreshTokenHash1", json!(claims.refresh_hash1)),
        ("parentRefreshTokenHash1", Value::Null),
        ("antiCsrfToken", json!(claims.anti_csrf)),
        ("iss", json!(issuer)),
        ("ep", Value::Object(ep)),
    ];
    let mut text = String::from("{");
    for (name, value) in own.iter().map(|(name, value)| (*name, value)).chain(
        // A payload can't name these; if it ever did, the token would be one that nobody can open.
        claims.payload.members().filter(|(name, _)| !PROTECTED.contains(name)),
    ) {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&Value::from(name).to_string());
        text.push(':');
        text.push_str(&value.to_string());
    }
    text.push('}');
    text
}

/// Standard base64 of `{uid, ate, up}` (wire, section 2.4).
fn front_token(claims: &AccessClaims, payload: &str) -> String {
    let uid = Value::from(claims.user.as_str());
    let ate = claims.expires_at.saturating_mul(1000);
    hash::base64(format!(r#"{{"uid":{uid},"ate":{ate},"up":{payload}}}"#).as_bytes())
}

/// Whether a text looks like one of our tokens, whoever made it: then it decides alone (row J23). The
/// answer is all that leaves this function; nothing in the text is trusted.
///
/// It goes by the header, whose `version` no other JWT has: an app's own tokens are left alone, and a
/// token of ours with a spoilt payload is refused rather than passed over. So is what is too long to
/// be looked at (row J15).
#[inline]
pub(crate) fn shaped(token: &[u8]) -> bool {
    let start = token.first_chunk::<64>();
    token.len() > LONGEST || start.is_some_and(|start| OURS.contains(&start)) || claims_to_be_ours(token)
}

/// The same of a token that isn't written as we write it.
fn claims_to_be_ours(token: &[u8]) -> bool {
    let (header, Some(rest)) = cut(token, b'.') else { return false };
    if memchr(b'.', rest).is_none() {
        return false;
    }
    // Read leniently: a header that the strict reader refuses may still claim to be ours.
    hash::from_base64url(header)
        .and_then(|header| serde_json::from_slice::<Value>(&header).ok())
        .is_some_and(|header| header.as_object().is_some_and(looks_ours))
}

fn looks_ours(header: &Map<String, Value>) -> bool {
    let version = header.get("version").and_then(Value::as_str).and_then(|text| text.parse::<u32>().ok());
    header.get("typ").and_then(Value::as_str) == Some("JWT") && version.is_some_and(|version| version >= 3)
}

/// Opens a token that must be valid now. One whose signature was checked before is not checked again.
#[inline(always)]
pub(crate) fn open(
    token: &[u8],
    keys: &Keyring,
    issuer: &str,
    now: Timestamp,
) -> Result<Arc<AccessClaims>, OpenError> {
    let claims = open_expired(token, keys, issuer, now)?;
    if claims.expired(now) { Err(OpenError::TryRefresh) } else { Ok(claims) }
}

/// Opens a token that may have expired: it still names the session that a sign-out ends (row S12).
#[inline(always)]
pub(crate) fn open_expired(
    token: &[u8],
    keys: &Keyring,
    issuer: &str,
    now: Timestamp,
) -> Result<Arc<AccessClaims>, OpenError> {
    let claims = match keys.seen().find(token, now) {
        Some(claims) => claims,
        None => verify(token, keys, issuer, now)?,
    };
    if claims.too_early(now) { Err(OpenError::TryRefresh) } else { Ok(claims) }
}

/// Checks the signature, then reads the claims.
fn verify(
    token: &[u8],
    keys: &Keyring,
    issuer: &str,
    now: Timestamp,
) -> Result<Arc<AccessClaims>, OpenError> {
    if token.len() > LONGEST {
        return Err(OpenError::TryRefresh);
    }
    let refusal = || if shaped(token) { OpenError::TryRefresh } else { OpenError::NotOurs };
    let parts = split(token).ok_or_else(refusal)?;
    let key = match keys.by_header(parts.header) {
        // As good as read: the text was written from the key's own `kid` and `alg`, which reading gives back.
        Some(key) => key,
        // Not as we write it: read it, to tell an unknown key from nonsense.
        None => {
            let (kid, alg) = read_header(parts.header).ok_or_else(refusal)?;
            let key = keys.find(&kid).ok_or(OpenError::UnknownKey(kid))?;
            if key.alg() == alg { key } else { return Err(OpenError::TryRefresh) }
        }
    };
    let mut buffer = [0; LONGEST_SIGNATURE];
    let signature = hash::base64url_into(parts.signature, &mut buffer).ok_or(OpenError::TryRefresh)?;
    if !key.verifies(now) || !key.verify(parts.signed, signature) {
        return Err(OpenError::TryRefresh);
    }
    // From here on the text is one that a holder of the key wrote.
    let claims = hash::from_base64url(parts.payload)
        .and_then(|text| AccessClaims::read(&text, issuer, keys.is_foreign()));
    let claims = Arc::new(claims.ok_or(OpenError::TryRefresh)?);
    keys.seen().keep(token, &claims, key.times().verify_until);
    Ok(claims)
}

struct Parts<'a> {
    header: &'a [u8],
    payload: &'a [u8],
    /// Header and payload with the dot between them: what is signed.
    signed: &'a [u8],
    signature: &'a [u8],
}

/// Exactly three segments, none empty (row J10).
fn split(token: &[u8]) -> Option<Parts<'_>> {
    let (header, rest) = cut(token, b'.');
    let (payload, signature) = cut(rest?, b'.');
    let signed = token.get(..header.len() + 1 + payload.len())?;
    // A further dot is no letter of base64url.
    let signature = signature.filter(|text| ![header, payload, text].iter().any(|part| part.is_empty()))?;
    Some(Parts { header, payload, signed, signature })
}

/// The key's id and the algorithm. A header holds four members and no other: no extension is understood
/// (row J09), and no key, link or certificate in it is looked at (rows J04, J10).
fn read_header(segment: &[u8]) -> Option<(String, SigningAlg)> {
    if segment.len() > LONGEST_HEADER.div_ceil(3) * 4 {
        return None;
    }
    let bytes = hash::from_base64url(segment).filter(|bytes| bytes.len() <= LONGEST_HEADER)?;
    let header = json::parse_object(&bytes).ok()?;
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    let known = header.len() == 4 && text("typ")? == "JWT" && text("version")? == "5";
    let kid = text("kid").filter(|kid| is_kid(kid))?;
    known.then_some((kid.to_owned(), SigningAlg::from_name(text("alg")?)?))
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Minted([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        base::payload::Payload,
        session::{
            claims::tests::somebody,
            keyring::{Schedule, tests::key},
        },
    };

    type Opened = Result<Arc<AccessClaims>, OpenError>;

    fn open(token: &str, keys: &Keyring, issuer: &str, now: Timestamp) -> Opened {
        super::open(token.as_bytes(), keys, issuer, now)
    }

    fn open_expired(token: &str, keys: &Keyring, issuer: &str, now: Timestamp) -> Opened {
        super::open_expired(token.as_bytes(), keys, issuer, now)
    }

    fn shaped(token: &str) -> bool {
        super::shaped(token.as_bytes())
    }

    const ISSUER: &str = "https://api.example.com/auth";
    const HANDLE: &str = "11111111-2222-4333-8444-555555555555";
    const ROOM: Room = Room { name: 12, limit: 4096 };
    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn signer() -> Arc<SigningKey> {
        key("d-1", 0, Schedule::new(Duration::from_secs(3600)).times(NOW, NOW))
    }

    fn ring() -> Keyring {
        Keyring::new([signer()])
    }

    fn claims() -> AccessClaims {
        AccessClaims {
            anti_csrf: Some("csrf".to_owned()),
            epochs: Epochs { app: 1, tenant: 2, user: 3, session: 4 },
            ask_at: Some(Timestamp::from_millis(1_700_000_900_123)),
            payload: Payload::from_json(
                json!({"name": "Zoë", "st-mfa": {"c": {"otp-email": 1}, "v": false}}),
            )
            .unwrap(),
            ..somebody(NOW, Duration::from_secs(3600))
        }
    }

    fn minted() -> String {
        mint(&claims(), &signer(), ISSUER, ROOM).unwrap().token.expose().clone()
    }

    const HEADER: &str = r#"{"alg":"RS256","typ":"JWT","version":"5","kid":"d-1"}"#;

    /// A token of these parts, signed by the real key whatever the header says.
    fn signed(header: &str, payload: &str) -> String {
        let text = format!("{}.{}", hash::base64url(header.as_bytes()), hash::base64url(payload.as_bytes()));
        let signature = signer().sign(text.as_bytes()).unwrap();
        format!("{text}.{}", hash::base64url(&signature))
    }

    /// The valid payload with one member replaced, or taken out, as raw text.
    fn with(name: &str, value: Option<&str>) -> String {
        let text = serialise(&claims(), ISSUER);
        let members = json::parse_object(text.as_bytes()).unwrap();
        let mut parts: Vec<String> = members
            .iter()
            .filter(|(known, _)| *known != name)
            .map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())))
            .collect();
        parts.extend(value.map(|value| format!("{}:{value}", Value::from(name))));
        format!("{{{}}}", parts.join(","))
    }

    fn opened(token: &str) -> Result<AccessClaims, OpenError> {
        open(token, &ring(), ISSUER, NOW).map(Arc::unwrap_or_clone)
    }

    fn refused(token: &str, what: &str) {
        assert_eq!(opened(token), Err(OpenError::TryRefresh), "{what}");
        assert!(shaped(token), "{what}");
    }

    #[test]
    fn layout() {
        let token = minted();
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(hash::from_base64url(parts[0]).unwrap(), HEADER.as_bytes());
        let payload = String::from_utf8(hash::from_base64url(parts[1]).unwrap()).unwrap();
        assert_eq!(
            payload,
            format!(
                r#"{{"iat":1700000000,"exp":1700003600,"sub":"u-1","tId":"public","rsub":"u-1","sessionHandle":"{HANDLE}","refreshTokenHash1":"{}","parentRefreshTokenHash1":null,"antiCsrfToken":"csrf","iss":"{ISSUER}","ep":{{"ask":1700000900123,"n":[1,2,3,4]}},"name":"Zoë","st-mfa":{{"c":{{"otp-email":1}},"v":false}}}}"#,
                hash::sha256_hex(b"x")
            )
        );
        assert_eq!(opened(&token).unwrap(), claims());
        let plain = AccessClaims { anti_csrf: None, ask_at: None, payload: Payload::new(), ..claims() };
        let token = mint(&plain, &signer(), ISSUER, ROOM).unwrap().token;
        assert_eq!(opened(token.expose()).unwrap(), plain);
        assert!(token.expose().as_bytes().starts_with(OURS[0]));
    }

    #[test]
    fn front_token_holds_the_same_text() {
        let minted = mint(&claims(), &signer(), ISSUER, ROOM).unwrap();
        let front = String::from_utf8(hash::from_base64(&minted.front).unwrap()).unwrap();
        let payload = hash::from_base64url(minted.token.expose().split('.').nth(1).unwrap()).unwrap();
        let payload = String::from_utf8(payload).unwrap();
        assert_eq!(front, format!(r#"{{"uid":"u-1","ate":1700003600000,"up":{payload}}}"#));
    }

    #[test]
    fn front_token_vector() {
        let payload = r#"{"iat":1700000000,"exp":1700003600,"sub":"u-1","tId":"public","rsub":"u-1","sessionHandle":"h-1","refreshTokenHash1":"00","parentRefreshTokenHash1":null,"antiCsrfToken":null,"iss":"https://api.example.com/auth","st-mfa":{"c":{"otp-email":1700000000},"v":false},"name":"Zoë"}"#;
        let front = front_token(&claims(), payload);
        assert!(front.starts_with("eyJ1aWQiOiJ1LTEiLCJhdGUiOjE3MDAwMDM2MDAwMDAsInVwIjp7Imlh"));
        assert!(front.ends_with("Ilpvw6sifX0=") && front.len() == 420);
    }

    #[test]
    fn sec_j01_j03_only_the_keys_own_algorithm() {
        let payload = serialise(&claims(), ISSUER);
        for alg in [
            "none", "None", "nOnE", "NONE", "", " RS256", "rs256", "RS384", "RS512", "PS256", "ES256",
            "HS256", "EdDSA",
        ] {
            let header = HEADER.replace("RS256", alg);
            refused(&signed(&header, &payload), alg);
            let text =
                format!("{}.{}", hash::base64url(header.as_bytes()), hash::base64url(payload.as_bytes()));
            assert!(opened(&format!("{text}.")).is_err(), "{alg}, empty signature");
            refused(&format!("{text}.AA"), alg);
        }
        for header in [
            r#"{"typ":"JWT","version":"5","kid":"d-1"}"#,
            r#"{"alg":null,"typ":"JWT","version":"5","kid":"d-1"}"#,
            r#"{"alg":["RS256"],"typ":"JWT","version":"5","kid":"d-1"}"#,
        ] {
            refused(&signed(header, &payload), header);
        }
        // The kind of an unknown algorithm is settled before its key is looked for.
        let header = HEADER.replace("RS256", "none").replace("d-1", "d-2");
        refused(&signed(&header, &payload), "none with an unknown key");
    }

    #[test]
    fn sec_j02_no_hmac_over_the_public_key() {
        let payload = serialise(&claims(), ISSUER);
        let header = HEADER.replace("RS256", "HS256");
        let text = format!("{}.{}", hash::base64url(header.as_bytes()), hash::base64url(payload.as_bytes()));
        let jwk = signer().jwk().unwrap();
        let n = hash::from_base64url(jwk["n"].as_str().unwrap()).unwrap();
        let jwk = jwk.to_string();
        for secret in [jwk.as_bytes(), &n, b""] {
            let hmac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
            let tag = aws_lc_rs::hmac::sign(&hmac, text.as_bytes());
            refused(&format!("{text}.{}", hash::base64url(tag.as_ref())), "hmac");
        }
    }

    #[test]
    fn sec_j04_j09_j10_no_extension_is_understood() {
        let payload = serialise(&claims(), ISSUER);
        for extra in [
            r#""jwk":{}"#,
            r#""jku":"https://evil.com""#,
            r#""x5u":"https://evil.com""#,
            r#""x5c":[]"#,
            r#""x5t":"a""#,
            r#""x5t#S256":"a""#,
            r#""crit":["b64"]"#,
            r#""crit":["exp"],"exp":1"#,
            r#""crit":[]"#,
            r#""crit":"x""#,
            r#""b64":false"#,
            r#""zip":"DEF""#,
            r#""cty":"JWT""#,
            r#""enc":"A128GCM""#,
            r#""x":1"#,
        ] {
            refused(&signed(&HEADER.replace('}', &format!(",{extra}}}")), &payload), extra);
        }
        let token = minted();
        let parts: Vec<&str> = token.split('.').collect();
        for shape in [
            format!("{}..{}", parts[0], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{token}.{}.{}", parts[1], parts[2]),
            format!("{token}."),
        ] {
            refused(&shape, &shape);
        }
        for foreign in
            [format!(".{}.{}", parts[1], parts[2]), parts[0].to_owned() + "x", "..".into(), String::new()]
        {
            assert!(opened(&foreign).is_err(), "{foreign}");
        }
        let json = json!({"payload": parts[1], "protected": parts[0], "signature": parts[2]}).to_string();
        assert_eq!(opened(&json), Err(OpenError::NotOurs));
    }

    #[test]
    fn sec_j05_key_ids_are_plain() {
        let payload = serialise(&claims(), ISSUER);
        let long = format!("\"{}\"", "k".repeat(65));
        for kid in [
            r#""../../dev/null""#,
            r#""' OR 1=1--""#,
            r#""d-1\u0000""#,
            r#""d-1\r\n""#,
            r#""""#,
            "1",
            "[\"d-1\"]",
            "null",
            &long,
            r#""d-1 ""#,
        ] {
            refused(&signed(&HEADER.replace("\"d-1\"", kid), &payload), kid);
        }
        let huge = format!("\"{}\"", "k".repeat(10_000));
        refused(&signed(&HEADER.replace("\"d-1\"", &huge), &payload), "10 kB");
        refused(&signed(r#"{"alg":"RS256","typ":"JWT","version":"5"}"#, &payload), "missing");
        let unknown = signed(&HEADER.replace("d-1", "d-2"), &payload);
        assert_eq!(opened(&unknown), Err(OpenError::UnknownKey("d-2".to_owned())));
    }

    #[test]
    fn sec_j03_a_header_that_is_known_by_its_text_says_what_it_says_when_read() {
        for alg in [SigningAlg::Rs256, SigningAlg::EdDsa, SigningAlg::Es256, SigningAlg::Hs256] {
            let key = Arc::new(SigningKey::generate("d-1".to_owned(), alg, signer().times()).unwrap());
            let ring = Keyring::of(alg, [Arc::clone(&key)]);
            let text = key.header();
            assert_eq!(read_header(text.as_bytes()), Some(("d-1".to_owned(), alg)));
            assert!(Arc::ptr_eq(ring.by_header(text.as_bytes()).unwrap(), &key));
            for other in [&text[1..], &text[..text.len() - 1], "", &format!("{text}A")] {
                assert!(ring.by_header(other.as_bytes()).is_none(), "{other}");
            }
            for at in 0..text.len() {
                let mut other = text.clone().into_bytes();
                other[at] = if other[at] == b'A' { b'B' } else { b'A' };
                assert!(ring.by_header(&other).is_none(), "{at}");
            }
        }
    }

    #[test]
    fn sec_j03_a_header_spelt_otherwise_is_read_and_gets_the_same_answers() {
        let payload = serialise(&claims(), ISSUER);
        for header in [
            r#"{"kid":"d-1","version":"5","typ":"JWT","alg":"RS256"}"#.to_owned(),
            HEADER.replace(',', ", "),
            format!(" {HEADER}\n"),
            HEADER.replace("d-1", r"\u0064-1"),
        ] {
            let segment = hash::base64url(header.as_bytes());
            assert!(ring().by_header(segment.as_bytes()).is_none(), "{header}");
            let token = signed(&header, &payload);
            assert_eq!(opened(&token), Ok(claims()), "{header}");
            let (text, _) = token.rsplit_once('.').unwrap();
            refused(&format!("{text}.{}", minted().rsplit_once('.').unwrap().1), &header);
            refused(&signed(&header.replace("RS256", "ES256"), &payload), &header);
            let end = signer().times().verify_until;
            assert_eq!(open_expired(&token, &ring(), ISSUER, end), Err(OpenError::TryRefresh), "{header}");
        }
    }

    #[test]
    fn sec_j03_a_header_of_one_key_takes_no_signature_of_another() {
        let (one, two) = (signer(), key("d-2", 1, signer().times()));
        let ring = Keyring::new([Arc::clone(&one), Arc::clone(&two)]);
        let payload = hash::base64url(serialise(&claims(), ISSUER).as_bytes());
        for header in [&one, &two] {
            for hand in [&one, &two] {
                let text = format!("{}.{payload}", header.header());
                let token = format!("{text}.{}", hash::base64url(&hand.sign(text.as_bytes()).unwrap()));
                let answer = open(&token, &ring, ISSUER, NOW).map(Arc::unwrap_or_clone);
                let right =
                    if header.kid() == hand.kid() { Ok(claims()) } else { Err(OpenError::TryRefresh) };
                assert_eq!(answer, right, "{} by {}", header.kid(), hand.kid());
            }
        }
    }

    #[test]
    fn a_key_that_only_verifies_is_known_by_its_header_too() {
        let old = signer();
        let late = old.times().verify_until - Duration::from_secs(1);
        let until = old.times().sign_until;
        let next = key("d-2", 1, Schedule::new(Duration::from_secs(3600)).times(until, until));
        let ring = Keyring::new([Arc::clone(&old), Arc::clone(&next)]);
        assert_eq!(ring.signing(late).unwrap().kid(), "d-2");
        for key in [&old, &next] {
            assert!(Arc::ptr_eq(ring.by_header(key.header().as_bytes()).unwrap(), key));
        }
        let last = AccessClaims { issued_at: late.as_secs(), expires_at: late.as_secs() + 1, ..claims() };
        let token = mint(&last, &old, ISSUER, ROOM).unwrap().token;
        assert_eq!(open(token.expose(), &ring, ISSUER, late).map(Arc::unwrap_or_clone), Ok(last));
    }

    #[test]
    fn sec_j07_a_retired_key_verifies_nothing() {
        let end = signer().times().verify_until;
        let late = AccessClaims { expires_at: end.as_secs() + 10, ..claims() };
        let token = mint(&late, &signer(), ISSUER, ROOM).unwrap().token;
        // A set that has seen the token knows no better than one that hasn't.
        let (seen, anew) = (ring(), ring());
        for _ in 0..2 {
            open(token.expose(), &seen, ISSUER, end - Duration::from_millis(1)).unwrap();
        }
        for ring in [&seen, &anew] {
            assert_eq!(open(token.expose(), ring, ISSUER, end), Err(OpenError::TryRefresh));
            assert_eq!(open_expired(token.expose(), ring, ISSUER, end), Err(OpenError::TryRefresh));
        }
    }

    #[test]
    fn sec_j11_expiry_is_an_integer_and_equal_is_expired() {
        for (exp, valid) in [
            (Some("1700000001"), true),
            (Some("9007199254740992"), true),
            (Some("1700000000"), false),
            (Some("9007199254740993"), false),
            (Some("18446744073709551616"), false),
            (Some("1e10"), false),
            (Some("1700003600.5"), false),
            (Some("1700003600.0"), false),
            (Some("1e400"), false),
            (Some("NaN"), false),
            (Some("-1"), false),
            (Some("-0"), false),
            (Some("\"9999999999\""), false),
            (Some("\"never\""), false),
            (Some("[1700003600]"), false),
            (Some("null"), false),
            (Some("true"), false),
            (None, false),
        ] {
            let token = signed(HEADER, &with("exp", exp));
            assert_eq!(opened(&token).is_ok(), valid, "{exp:?}");
            if !valid {
                refused(&token, "exp");
            }
        }
        let token = minted();
        let end = Timestamp::from_secs(1_700_003_600);
        open(&token, &ring(), ISSUER, end - Duration::from_millis(1)).unwrap();
        assert_eq!(open(&token, &ring(), ISSUER, end), Err(OpenError::TryRefresh));
    }

    #[test]
    fn sec_s12_sign_out_takes_an_expired_token_and_no_other() {
        let later = NOW + Duration::from_secs(7200);
        assert_eq!(*open_expired(&minted(), &ring(), ISSUER, later).unwrap(), claims());
        for (name, value) in
            [("exp", None), ("exp", Some("\"1\"")), ("iss", Some("\"x\"")), ("stt", Some("1"))]
        {
            let token = signed(HEADER, &with(name, value));
            assert_eq!(open_expired(&token, &ring(), ISSUER, later), Err(OpenError::TryRefresh), "{name}");
        }
        let mut forged = minted();
        forged.replace_range(forged.len() - 6..forged.len() - 5, "A");
        forged.replace_range(forged.len() - 7..forged.len() - 6, "B");
        assert_eq!(open_expired(&forged, &ring(), ISSUER, later), Err(OpenError::TryRefresh));
    }

    #[test]
    fn sec_j12_not_from_the_future() {
        for (name, value, valid) in [
            ("iat", Some("1700000030"), true),
            ("iat", Some("1700000031"), false),
            ("iat", Some("1700000600"), false),
            ("iat", Some("\"1700000000\""), false),
            ("iat", None, false),
            ("iat", Some("1700003601"), false),
            ("nbf", Some("1700000030"), true),
            ("nbf", Some("1700000031"), false),
            ("nbf", Some("\"1700009999\""), false),
            ("nbf", Some("\"1\""), false),
            ("nbf", Some("null"), false),
            ("nbf", Some("1.5"), false),
        ] {
            assert_eq!(opened(&signed(HEADER, &with(name, value))).is_ok(), valid, "{name} {value:?}");
        }
        // Made after its own end, each of the two within bounds.
        let issued = |secs: &str| {
            let payload = with("iat", Some(secs)).replace("1700003600", "1700000010");
            opened(&signed(HEADER, &payload)).is_ok()
        };
        assert!(issued("1700000010") && !issued("1700000011"));
    }

    #[test]
    fn sec_j13_only_session_tokens_of_this_issuer() {
        for (name, value, valid) in [
            ("stt", Some("0"), true),
            ("stt", Some("1"), false),
            ("stt", Some("0.0"), false),
            ("stt", Some("\"0\""), false),
            ("stt", Some("null"), false),
            ("iss", Some("\"https://api.example.com/auth/\""), false),
            ("iss", Some("[\"https://api.example.com/auth\"]"), false),
            ("iss", None, false),
            ("aud", Some("\"x\""), false),
            ("sub", None, false),
            ("sub", Some("1"), false),
            ("sub", Some("\"\""), false),
            ("sub", Some("\"a\\u0000b\""), false),
            ("rsub", None, false),
            ("tId", None, false),
            ("tId", Some("\"other\""), false),
            ("sessionHandle", None, false),
            ("sessionHandle", Some("\"h\""), false),
            ("refreshTokenHash1", Some("\"00\""), false),
            ("refreshTokenHash1", None, false),
            ("parentRefreshTokenHash1", None, false),
            ("parentRefreshTokenHash1", Some("1"), false),
            ("antiCsrfToken", None, false),
            ("antiCsrfToken", Some("false"), false),
            ("ep", None, false),
            ("ep", Some("{\"n\":[1,2,3]}"), false),
            ("ep", Some("{\"n\":[1,2,3,4,5]}"), false),
            ("ep", Some("{\"n\":[1,2,3,-4]}"), false),
            ("ep", Some("{\"n\":[1,2,3,\"4\"]}"), false),
            ("ep", Some("{\"n\":[1,2,3,4],\"ask\":\"1\"}"), false),
            ("ep", Some("{\"n\":[1,2,3,4],\"ask\":null}"), false),
            ("ep", Some("[1,2,3,4]"), false),
        ] {
            let token = signed(HEADER, &with(name, value));
            assert_eq!(opened(&token).is_ok(), valid, "{name} {value:?}");
            assert!(shaped(&token), "{name} {value:?}");
        }
        for header in [
            HEADER.replace("\"5\"", "\"4\""),
            HEADER.replace("\"5\"", "\"6\""),
            HEADER.replace("\"5\"", "\"05\""),
        ] {
            refused(&signed(&header, &serialise(&claims(), ISSUER)), &header);
        }
        for foreign in [
            r#"{"alg":"RS256","typ":"JWT","kid":"d-1"}"#,
            r#"{"alg":"RS256","typ":"JWT","version":5,"kid":"d-1"}"#,
            r#"{"alg":"RS256","typ":"at+jwt","version":"5","kid":"d-1"}"#,
        ] {
            let token = signed(foreign, &serialise(&claims(), ISSUER));
            assert_eq!(opened(&token), Err(OpenError::NotOurs), "{foreign}");
        }
    }

    #[test]
    fn sec_j14_no_member_twice() {
        let payload = serialise(&claims(), ISSUER);
        for twice in [
            payload.replace(r#""sub":"u-1""#, r#""sub":"victim","sub":"u-1""#),
            payload.replace(r#""sub":"u-1""#, r#""sub":"victim","\u0073ub":"u-1""#),
            payload.replace(r#""exp":"#, r#""exp":9999999999,"exp":"#),
            payload.replace(r#""v":false"#, r#""v":true,"v":false"#),
        ] {
            refused(&signed(HEADER, &twice), &twice);
        }
        for header in [
            HEADER.replace(r#""alg":"RS256""#, r#""alg":"none","alg":"RS256""#),
            HEADER.replace(r#""kid":"d-1""#, r#""kid":"d-2","k\u0069d":"d-1""#),
        ] {
            refused(&signed(&header, &payload), &header);
        }
    }

    #[test]
    fn sec_j15_length_comes_first() {
        for (token, ours) in [
            ("x".repeat(1 << 20), true),
            (".".repeat(1_000_000), true),
            (".".repeat(8192), false),
            ("x".repeat(8192), false),
            ("x".repeat(8193), true),
        ] {
            assert_eq!(shaped(&token), ours, "{}", token.len());
            let answer = if ours { OpenError::TryRefresh } else { OpenError::NotOurs };
            assert_eq!(opened(&token), Err(answer));
        }
        let wide = HEADER.replace("\"5\"", &format!("\"5\"{}", " ".repeat(1024)));
        refused(&signed(&wide, &serialise(&claims(), ISSUER)), "header beyond 1 KiB");
    }

    #[test]
    fn sec_j16_deep_and_wide_payloads_are_neither_read_nor_made() {
        let deep = format!("{}1{}", "[".repeat(17), "]".repeat(17));
        refused(&signed(HEADER, &with("x", Some(&deep))), "deep");
        let mut nested = json!(1);
        for _ in 0..16 {
            nested = json!([nested]);
        }
        let payload = Payload::from_json(json!({ "x": nested })).unwrap();
        let broken = mint(&AccessClaims { payload, ..claims() }, &signer(), ISSUER, ROOM);
        assert!(matches!(broken, Err(MintError::Unreadable)));
    }

    #[test]
    fn sec_j17_one_spelling() {
        let token = minted();
        for other in [
            format!("{token}="),
            format!("{token}=="),
            format!(" {token}"),
            format!("{token}\n"),
            token.replacen('.', "=.", 1),
            token.replacen('.', "\n.", 1),
        ] {
            assert!(opened(&other).is_err(), "{other}");
        }
        // Every edit of a byte is noticed: the spare bits of the last letters, too.
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ ";
        let ends: Vec<usize> = token.match_indices('.').map(|(at, _)| at).chain([token.len()]).collect();
        for at in ends.iter().flat_map(|end| [end.saturating_sub(1), end.saturating_sub(2)]) {
            for letter in letters.iter().filter(|letter| token.as_bytes()[at] != **letter) {
                let mut bytes = token.clone().into_bytes();
                bytes[at] = *letter;
                assert!(opened(&String::from_utf8(bytes).unwrap()).is_err(), "{at} {letter}");
            }
        }
    }

    #[test]
    fn sec_j18_text_tricks() {
        let payload = serialise(&claims(), ISSUER);
        for trick in [
            format!("\u{feff}{payload}"),
            format!("{payload}x"),
            format!("{payload}{{}}"),
            payload.replace("u-1", "\\ud800"),
        ] {
            refused(&signed(HEADER, &trick), &trick);
        }
        let text = [hash::base64url(HEADER.as_bytes()), hash::base64url(b"{\"sub\":\"\xff\"}")].join(".");
        let signature = hash::base64url(&signer().sign(text.as_bytes()).unwrap());
        refused(&format!("{text}.{signature}"), "invalid UTF-8");
    }

    #[test]
    fn sec_j19_signatures() {
        let token = minted();
        let (text, signature) = token.rsplit_once('.').unwrap();
        let signature = hash::from_base64url(signature).unwrap();
        let zeros = vec![0; signature.len()];
        for bad in [&signature[1..], &signature[..255], &[&signature[..], &[0]].concat(), &zeros, &[0]] {
            refused(&format!("{text}.{}", hash::base64url(bad)), "signature");
        }
        // Longer than that of any key, in a token that isn't too long.
        for length in [LONGEST_SIGNATURE, LONGEST_SIGNATURE + 1, 2 * LONGEST_SIGNATURE] {
            let long = format!("{text}.{}", hash::base64url(&vec![1; length]));
            assert!(long.len() < LONGEST);
            refused(&long, "a long signature");
        }
        let other = key("d-1", 1, signer().times());
        assert_eq!(open(&token, &Keyring::new([other]), ISSUER, NOW), Err(OpenError::TryRefresh));
    }

    #[test]
    fn sec_c06_too_large_for_a_browser_is_an_error() {
        let size = |n: usize| AccessClaims {
            payload: Payload::from_json(json!({"x": "y".repeat(n)})).unwrap(),
            ..claims()
        };
        let make = |n, room| mint(&size(n), &signer(), ISSUER, room);
        let sizes: Vec<usize> = (0..4096).collect();
        let largest = sizes.partition_point(|n| make(*n, ROOM).is_ok()) - 1;
        let (fits, room) = (make(largest, ROOM).unwrap(), ROOM.limit - ROOM.name);
        assert!(fits.token.expose().len() <= room && fits.front.len() + 11 <= 4096);
        assert!(matches!(make(largest + 3, ROOM), Err(MintError::TooLarge)));
        // The exact boundary, for both.
        for n in [0, 1, 2] {
            let made = make(n, ROOM).unwrap();
            let (token, front) = (made.token.expose().len() + 12, made.front.len() + 11);
            let limit = token.max(front);
            make(n, Room { name: 12, limit }).unwrap();
            assert!(matches!(make(n, Room { name: 12, limit: limit - 1 }), Err(MintError::TooLarge)));
        }
    }

    #[test]
    fn sec_g01_debug_holds_no_secret() {
        let text = format!("{:?} {:?}", claims(), mint(&claims(), &signer(), ISSUER, ROOM).unwrap());
        for secret in ["csrf", &claims().refresh_hash1, "Zoë", "eyJ"] {
            assert!(!text.contains(secret), "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (1_699_999_000_u64..1_700_005_000).prop_map(Value::from),
            "[a-z0-9]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(Value::from))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn sec_j11_j12_accepted_iff_the_predicate_says_so(
            exp in any_json(), iat in any_json(), nbf in prop::option::of(any_json()),
        ) {
            let int = |value: &Value| value.as_u64().filter(|n| *n <= 1 << 53);
            let now = 1_700_000_000;
            let expected = match (int(&exp), int(&iat), nbf.as_ref().map(int)) {
                (Some(exp), Some(iat), nbf) => {
                    now < exp && iat <= now + 30 && iat <= exp
                        && nbf.is_none_or(|nbf| nbf.is_some_and(|nbf| nbf <= now + 30))
                }
                _ => false,
            };
            let mut members = json::parse_object(serialise(&claims(), ISSUER).as_bytes()).unwrap();
            members.insert("exp".into(), exp);
            members.insert("iat".into(), iat);
            if let Some(nbf) = nbf {
                members.insert("nbf".into(), nbf);
            }
            let token = signed(HEADER, &Value::Object(members).to_string());
            prop_assert_eq!(opened(&token).is_ok(), expected);
        }

        #[test]
        fn promise_17_no_text_makes_it_panic(token in "[A-Za-z0-9_.=-]{0,200}|\\PC{0,60}", tail in "[A-Za-z0-9_.-]{0,80}") {
            let _ = opened(&token);
            let ours = format!("{}{tail}", str::from_utf8(OURS[0]).unwrap());
            prop_assert!(opened(&ours).is_err());
        }
    }
}
