//! Access tokens over HTTP: what is no session, however it is signed (rows J01 to J26).

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use axum::{Json, Router, body::Body, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Method, Request, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_mfa::{
    MfaLayer, SessionClaim, SessionExtractor,
    claim::{ClaimContext, ClaimError, HasValue},
    config::{Secrets, SigningAlg},
    ident::{ErrorKind, Payload, Timestamp},
    store::{Batch, Commit, Key, MemoryStore, Record, Row, Scan, Store, StoreError},
};

use crate::{
    forge::{Forge, decoded, encoded, info, try_refresh, unauthorised},
    spy::ALICE,
    support::{Mode, START, TestApp, send},
};

const NONES: [&str; 12] =
    ["none", "None", "nOnE", "NONE", "noNe", "NoNe", "none ", " none", "", "n", "null", "nonE"];

fn get(path: &str) -> http::request::Builder {
    Request::builder().method(Method::GET).uri(path)
}

fn empty(request: http::request::Builder) -> Request<Body> {
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn sec_j01_alg_none_in_every_spelling() {
    let forge = Forge::new().await;
    let before = forge.app.store.calls();
    let payload = forge.payload();
    let mut headers: Vec<String> = NONES.iter().map(|none| forge.header().replace("RS256", none)).collect();
    headers.push(forge.header().replace(r#""alg":"RS256","#, ""));
    headers.push(forge.header().replace("\"RS256\"", "null"));
    for header in headers {
        let text = format!("{}.{}", encoded(&header), encoded(&payload));
        // Empty, arbitrary, and the app's own.
        for signature in [String::new(), "AA".to_owned(), encoded([7; 256]), encoded(forge.signature(&text))]
        {
            forge.refused(&format!("{text}.{signature}"), &header).await;
        }
    }
    assert_eq!(forge.app.store.calls(), before);
    forge.bearer(forge.access()).await.is(200);
}

#[tokio::test]
async fn sec_j02_a_public_key_is_no_secret() {
    for alg in [SigningAlg::Rs256, SigningAlg::Es256, SigningAlg::EdDsa] {
        let forge = Forge::with(|b| b.signing(alg)).await;
        let document = forge.jwks().await;
        let jwk = &document["keys"][0];
        let part = |name: &str| decoded(jwk[name].as_str().unwrap());
        let (spki, raw) = match alg {
            SigningAlg::Rs256 => {
                let key = der(0x30, &[integer(&part("n")), integer(&part("e"))].concat());
                let oid = der(0x30, b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00");
                let bits = der(0x03, &[&[0], &key[..]].concat());
                (der(0x30, &[oid, bits].concat()), key)
            }
            SigningAlg::Es256 => {
                let point = [vec![4], part("x"), part("y")].concat();
                let oids = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
                let bits = der(0x03, &[&[0], &point[..]].concat());
                (der(0x30, &[der(0x30, oids), bits].concat()), point)
            }
            _ => {
                let bits = der(0x03, &[vec![0], part("x")].concat());
                (der(0x30, &[der(0x30, b"\x06\x03\x2b\x65\x70"), bits].concat()), part("x"))
            }
        };
        let lines: Vec<String> = STANDARD
            .encode(&spki)
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8(line.to_vec()).unwrap())
            .collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
        let header = forge.header().replace(&forge.alg, "HS256");
        let text = format!("{}.{}", encoded(header), encoded(forge.payload()));
        for (what, secret) in [
            ("PEM", pem.clone().into_bytes()),
            ("PEM without its last line end", pem.trim_end().as_bytes().to_vec()),
            ("PEM after whitespace", format!(" \n\t{pem}").into_bytes()),
            ("DER", spki),
            ("the bare key", raw),
            ("JWK", jwk.to_string().into_bytes()),
            ("the JWK set", document.to_string().into_bytes()),
            ("nothing", Vec::new()),
        ] {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), text.as_bytes());
            forge.refused(&format!("{text}.{}", encoded(tag)), &format!("{alg:?} {what}")).await;
        }
    }
    // A secret isn't published, and no public key's algorithm works with it.
    let forge = Forge::with(|b| b.signing(SigningAlg::Hs256)).await;
    assert_eq!(forge.jwks().await, json!({"keys": []}));
    for alg in ["RS256", "ES256", "EdDSA", "HS384", "HS512", "none"] {
        forge.refused(&forge.signed(forge.header().replace("HS256", alg), forge.payload()), alg).await;
    }
    forge.bearer(&forge.signed(forge.header(), forge.payload())).await.is(200);
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = match content.len() {
        short @ ..128 => vec![short as u8],
        long @ ..256 => vec![0x81, long as u8],
        long => vec![0x82, (long >> 8) as u8, long as u8],
    };
    [vec![tag], length, content.to_vec()].concat()
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    der(0x02, &if bytes[0] >= 0x80 { [&[0], bytes].concat() } else { bytes.to_vec() })
}

#[tokio::test]
async fn every_algorithm_carries_a_session_from_sign_up_to_refresh() {
    for alg in [SigningAlg::Rs256, SigningAlg::EdDsa, SigningAlg::Es256, SigningAlg::Hs256] {
        let app = TestApp::with(|b| b.signing(alg)).await;
        for mode in [Mode::Header, Mode::Cookie] {
            let mut alice = app.browser(mode);
            alice.sign_up(&format!("{mode:?}@shop.example")).await.ok();
            alice.get("/api/me").await.is(200);
            alice.refresh().await.is(200);
            alice.get("/api/me").await.is(200);
            alice.sign_out().await.ok();
        }
    }
}

#[tokio::test]
async fn sec_j04_keys_in_the_header_are_not_looked_at_and_nothing_is_fetched() {
    let forge = Forge::new().await;
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let url = format!("http://{}/key", trap.local_addr().unwrap());
    let jwk = forge.jwks().await["keys"][0].clone();
    for member in [
        format!(r#""jwk":{jwk}"#),
        r#""jwk":null"#.to_owned(),
        format!(r#""jku":"{url}""#),
        format!(r#""x5u":"{url}""#),
        r#""x5c":["MIIB"]"#.to_owned(),
        r#""x5c":[]"#.to_owned(),
        r#""x5t":"AAAA""#.to_owned(),
        r#""x5t#S256":"AAAA""#.to_owned(),
    ] {
        let header = forge.header_with(&member);
        forge.refused(&forge.signed(&header, forge.payload()), &member).await;
        // In the place of a member that must be there, too.
        for (name, _) in [("kid", 0), ("alg", 0)] {
            let value = if name == "kid" { &forge.kid } else { &forge.alg };
            let header = header.replacen(&format!(r#""{name}":"{value}""#), r#""x":1"#, 1);
            forge.refused(&forge.signed(&header, forge.payload()), &header).await;
        }
    }
    assert_eq!(trap.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "something was fetched");
}

#[tokio::test]
async fn sec_j05_key_ids_are_plain_and_only_looked_up_in_memory() {
    let forge = Forge::new().await;
    let before = forge.app.store.calls();
    let (kid, payload) = (format!("\"{}\"", forge.kid), forge.payload());
    for other in [
        r#""../../dev/null""#,
        r#""/dev/null""#,
        r#""' OR 1=1--""#,
        r#""d-1;drop table records""#,
        &format!(r#""{}\u0000""#, forge.kid),
        &format!(r#""{}\r\n""#, forge.kid),
        &format!(r#""{} ""#, forge.kid),
        &format!(r#""{}%00""#, forge.kid),
        r#""ключ""#,
        r#""""#,
        "1",
        &format!("[{kid}]"),
        &format!("{{\"kid\":{kid}}}"),
        "null",
        "true",
        &format!("\"{}\"", "k".repeat(65)),
        &format!("\"{}\"", "k".repeat(900)),
    ] {
        let header = forge.header().replace(&kid, other);
        assert_ne!(header, forge.header());
        forge.refused(&forge.signed(header, &payload), other).await;
    }
    let huge = forge.header().replace(&kid, &format!("\"{}\"", "k".repeat(10_000)));
    try_refresh(&forge.bearer(&forge.signed(huge, &payload)).await, "10 kB");
    let missing = forge.header().replace(&format!(r#","kid":{kid}"#), "");
    forge.refused(&forge.signed(missing, &payload), "missing").await;
    assert_eq!(forge.app.store.calls(), before, "none of them is worth a reload");
}

/// A store that counts who reads the keys, and fails or dawdles when it is told to.
#[derive(Clone, Debug)]
struct KeyStore {
    inner: MemoryStore,
    state: Arc<KeyState>,
}

#[derive(Debug, Default)]
struct KeyState {
    reads: AtomicU64,
    reading: AtomicU64,
    most: AtomicU64,
    /// 0 up, 1 down, else how many milliseconds it takes.
    mode: AtomicU64,
}

impl Store for KeyStore {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        if !keys.contains(&Key::new(["keyset"])) {
            return self.inner.get(keys).await;
        }
        let state = &self.state;
        state.reads.fetch_add(1, Ordering::SeqCst);
        state.most.fetch_max(state.reading.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let mode = state.mode.load(Ordering::SeqCst);
        if mode > 1 {
            tokio::time::sleep(Duration::from_millis(mode)).await;
        }
        state.reading.fetch_sub(1, Ordering::SeqCst);
        if mode == 1 { Err(StoreError::refused("down")) } else { self.inner.get(keys).await }
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        self.inner.scan(scan).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        self.inner.commit(batch).await
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.inner.sweep(before).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.inner.now().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_j06_a_flood_of_unknown_keys_reads_the_store_once_in_five_seconds() {
    for (what, mode) in [("up", 0), ("down", 1), ("slow", 4000)] {
        let state = Arc::new(KeyState::default());
        let store = KeyStore { inner: MemoryStore::new(), state: Arc::clone(&state) };
        let app = TestApp::on(info(), Secrets::random().unwrap(), store, |builder| builder).await;
        let mut alice = app.browser(Mode::Header);
        alice.sign_up(ALICE).await.ok();
        let access = alice.access.clone().unwrap();
        let payload = access.split('.').nth(1).unwrap().to_owned();
        state.mode.store(mode, Ordering::SeqCst);
        state.reads.store(0, Ordering::SeqCst);
        let start = Instant::now();
        let mut flood = tokio::task::JoinSet::new();
        for worker in 0..8_u32 {
            let (app, access, payload) = (app.clone(), access.clone(), payload.clone());
            flood.spawn(async move {
                let mut other = 0;
                for n in 0..10_000 / 8 {
                    let kid = format!("d-{worker}-{n}");
                    let header = format!(r#"{{"alg":"RS256","typ":"JWT","version":"5","kid":"{kid}"}}"#);
                    let token = format!("{}.{payload}.{}", encoded(header), encoded([7; 256]));
                    let bearer = |token: &str| {
                        empty(get("/api/me").header(header::AUTHORIZATION, format!("Bearer {token}")))
                    };
                    let answer = app.send(bearer(&token)).await;
                    match answer.status.as_u16() {
                        401 => try_refresh(&answer, &kid),
                        // Whoever found the store down says so.
                        503 => other += 1,
                        status => panic!("{status}"),
                    }
                    if n % 50 == 0 {
                        app.send(bearer(&access)).await.is(200);
                    }
                }
                other
            });
        }
        // Meanwhile valid tokens don't wait for anything.
        if mode > 1 {
            while state.reading.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            alice.get("/api/me").await.is(200);
            assert_eq!(state.reading.load(Ordering::SeqCst), 1, "the reload is still under way");
        }
        let failed: u64 = flood.join_all().await.into_iter().sum();
        let elapsed = start.elapsed().as_secs();
        let reads = state.reads.load(Ordering::SeqCst);
        // Upkeep reads them as well, every 30 s.
        assert!((1..=2 + elapsed / 5 + elapsed / 30).contains(&reads), "{what}: {reads} in {elapsed} s");
        assert_eq!(state.most.load(Ordering::SeqCst), 1, "{what}: one at a time");
        // Whoever found it down was told so, and nobody else.
        assert!(if mode == 1 { (1..=reads).contains(&failed) } else { failed == 0 }, "{what}: {failed}");
        alice.get("/api/me").await.is(200);
    }
}

#[tokio::test]
async fn sec_j09_no_extension_is_understood() {
    let forge = Forge::new().await;
    for members in [
        r#""crit":["b64"]"#,
        r#""crit":["b64"],"b64":true"#,
        r#""crit":["exp"]"#,
        r#""crit":["exp"],"exp":9999999999"#,
        r#""crit":["kid"]"#,
        r#""crit":[]"#,
        r#""crit":"x""#,
        r#""crit":null"#,
        r#""crit":["urn:example:x"],"urn:example:x":1"#,
        r#""\u0063rit":["b64"]"#,
    ] {
        forge.refused(&forge.signed(forge.header_with(members), forge.payload()), members).await;
    }
}

#[tokio::test]
async fn sec_j10_other_shapes_of_jose() {
    let forge = Forge::new().await;
    let token = forge.access().to_owned();
    let parts: Vec<&str> = token.split('.').collect();
    for shape in [
        format!("{}..{}", parts[0], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]) + ".",
        format!("{token}.{}.{}", parts[1], parts[2]),
        format!("{token}."),
        format!("{token}.{}", parts[2]),
    ] {
        forge.refused(&shape, &shape).await;
    }
    for members in [
        r#""b64":false"#,
        r#""b64":true"#,
        r#""zip":"DEF""#,
        r#""cty":"JWT""#,
        r#""enc":"A128GCM""#,
        r#""epk":{}"#,
        r#""p2c":1"#,
    ] {
        forge.refused(&forge.signed(forge.header_with(members), forge.payload()), members).await;
    }
    // A nested one, and one whose payload isn't encoded.
    forge.refused(&forge.signed(forge.header(), &token), "nested").await;
    let bare = format!("{}.{}", parts[0], "x");
    forge.refused(&format!("{bare}.{}", encoded(forge.signature(&bare))), "no base64").await;
    // As JSON it doesn't even look like one.
    let (flat, general) = (
        json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}),
        json!({"payload": parts[1], "signatures": [{"protected": parts[0], "signature": parts[2]}]}),
    );
    for shape in [flat, general] {
        unauthorised(&forge.bearer(&shape.to_string()).await, "JSON");
    }
}

#[tokio::test]
async fn sec_j11_j12_times_are_integers_in_bounds() {
    let forge = Forge::new().await;
    for (name, value) in [
        ("exp", None),
        ("exp", Some("\"9999999999\"")),
        ("exp", Some("\"never\"")),
        ("exp", Some("9999999999.5")),
        ("exp", Some("9.9e9")),
        ("exp", Some("-1")),
        ("exp", Some("9007199254740993")),
        ("exp", Some("1e400")),
        ("exp", Some("NaN")),
        ("exp", Some("[9999999999]")),
        ("exp", Some("null")),
        ("exp", Some(&START.to_string())),
        ("nbf", Some("\"9999999999\"")),
        ("nbf", Some("\"1\"")),
        ("nbf", Some("null")),
        ("nbf", Some(&(START + 31).to_string())),
        ("iat", None),
        ("iat", Some("\"1\"")),
        ("iat", Some(&(START + 600).to_string())),
        ("iat", Some(&(START + 31).to_string())),
    ] {
        let token = forge.signed(forge.header(), forge.with_claim(name, value));
        forge.refused(&token, &format!("{name} {value:?}")).await;
    }
    for (name, value) in [("exp", START + 1), ("nbf", START + 30), ("iat", START + 30)] {
        let token = forge.signed(forge.header(), forge.with_claim(name, Some(&value.to_string())));
        forge.bearer(&token).await.is(200);
    }
}

#[tokio::test]
async fn sec_j13_each_kind_of_token_is_good_for_one_thing() {
    let forge = Forge::new().await;
    // What the same key could sign for other ends.
    for (name, value) in [
        ("iss", Some("\"https://api.other.test/auth\"")),
        ("iss", Some("\"https://api.shop.test/auth/\"")),
        ("iss", Some("\" https://api.shop.test/auth\"")),
        ("iss", None),
        ("aud", Some("\"shop\"")),
        ("aud", Some("null")),
        ("stt", Some("1")),
        ("stt", Some("\"0\"")),
        ("stt", Some("null")),
        ("sub", None),
        ("tId", Some("\"other\"")),
        ("sessionHandle", None),
        ("refreshTokenHash1", None),
        ("ep", None),
    ] {
        let token = forge.signed(forge.header(), forge.with_claim(name, value));
        forge.refused(&token, &format!("{name} {value:?}")).await;
    }
    let reset =
        json!({"email": ALICE, "exp": START + 3600, "iat": START, "iss": "https://api.shop.test/auth"});
    forge.refused(&forge.signed(forge.header(), reset.to_string()), "a reset token").await;
    for foreign in [
        format!(r#"{{"alg":"RS256","typ":"JWT","kid":"{}"}}"#, forge.kid),
        format!(r#"{{"alg":"RS256","typ":"at+jwt","version":"5","kid":"{}"}}"#, forge.kid),
        format!(r#"{{"alg":"RS256","kid":"{}"}}"#, forge.kid),
    ] {
        // Not of a session's structure: as if it were not there (row J23).
        unauthorised(&forge.bearer(&forge.signed(&foreign, forge.payload())).await, &foreign);
    }
    // What the app really gives out, each at each door: only the diagonal passes.
    let (access, refresh) = (forge.access().to_owned(), forge.alice.refresh.clone().unwrap());
    let flow = forge.app.browser(Mode::Header).ask_code("bob@shop.example", false).await.ok();
    let kinds = [
        ("access", access),
        ("device", flow["deviceId"].as_str().unwrap().to_owned()),
        ("flow", flow["preAuthSessionId"].as_str().unwrap().to_owned()),
        ("front", encoded(forge.alice.front.as_ref().unwrap().to_string())),
        ("refresh", refresh),
    ];
    for (kind, token) in &kinds {
        let status = forge.bearer(token).await.status.as_u16();
        assert_eq!(status == 200, *kind == "access", "{kind} as access token: {status}");
        let mut other = forge.app.browser(Mode::Header);
        other.refresh = Some(token.clone());
        let status = other.refresh().await.status.as_u16();
        assert_eq!(status == 200, *kind == "refresh", "{kind} as refresh token: {status}");
    }
}

#[tokio::test]
async fn sec_j14_no_member_twice() {
    let forge = Forge::new().await;
    let (head, payload) = (forge.header(), forge.payload());
    let alg = r#""alg":"RS256""#;
    let kid = format!(r#""kid":"{}""#, forge.kid);
    for header in [
        head.replace(alg, &format!(r#""alg":"none",{alg}"#)),
        head.replace(alg, &format!(r#"{alg},{alg}"#)),
        head.replace(alg, &format!(r#"{alg},"\u0061lg":"none""#)),
        head.replace(&kid, &format!(r#""kid":"d-1",{kid}"#)),
        head.replace(&kid, &format!(r#"{kid},"k\u0069d":"d-1""#)),
    ] {
        assert_ne!(header, head);
        forge.refused(&forge.signed(&header, &payload), &header).await;
    }
    for member in [
        r#""sub":"attacker""#,
        r#""\u0073ub":"attacker""#,
        r#""exp":9999999999"#,
        r#""st-mfa":{"c":{},"v":true}"#,
        r#""st\u002dmfa":{"c":{},"v":true}"#,
        r#""x":{"y":1,"y":2}"#,
        r#""x":{"y":1,"\u0079":2}"#,
        r#""x":[{"y":1,"y":2}]"#,
    ] {
        let before = payload.replacen('{', &format!("{{{member},"), 1);
        let after = format!("{},{member}}}", &payload[..payload.len() - 1]);
        for twice in [before, after] {
            forge.refused(&forge.signed(&head, &twice), member).await;
        }
    }
}

#[tokio::test]
async fn sec_j15_j16_long_deep_and_wide_tokens() {
    let forge = Forge::new().await;
    let before = forge.app.store.calls();
    let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    let wide: Vec<String> = (0..400).map(|n| format!("\"{n}\":0")).collect();
    for token in
        ["x".repeat(1 << 20), ".".repeat(1_000_000), format!("{}{}", forge.access(), "A".repeat(8192))]
    {
        try_refresh(&forge.bearer(&token).await, "too long");
    }
    for value in [deep(17), deep(2000), format!("{{{}}}", wide.join(",")), "9".repeat(4000)] {
        let token = forge.signed(forge.header(), forge.with_claim("x", Some(&value)));
        assert!(token.len() <= 8192);
        try_refresh(&forge.bearer(&token).await, &value[..20]);
    }
    // Dots below the bound are no token at all.
    unauthorised(&forge.bearer(&".".repeat(8000)).await, "dots");
    assert_eq!(forge.app.store.calls(), before);
}

#[tokio::test]
async fn sec_j17_one_token_has_one_spelling() {
    let forge = Forge::new().await;
    let token = forge.access().to_owned();
    for other in [
        format!("{token}="),
        format!("{token}=="),
        format!("{token}."),
        format!("{token}A"),
        token.replacen('.', "=.", 1),
        token.replacen('.', "%2e", 1),
        token.replacen("eyJ", "eyK", 1),
    ] {
        assert_eq!(forge.bearer(&other).await.status, 401, "{other}");
    }
    // 256 bytes leave four spare bits in the last letter.
    let spare: Vec<char> =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars().collect();
    for letter in spare {
        let other = format!("{}{letter}", &token[..token.len() - 1]);
        if other != token {
            forge.refused(&other, "spare bits").await;
        }
    }
}

#[tokio::test]
async fn sec_j18_tricks_with_text() {
    let forge = Forge::new().await;
    let (head, payload) = (forge.header(), forge.payload());
    let user = forge.app.user(ALICE).await;
    let bytes = |text: &[u8]| forge.signed(&head, text);
    for (what, text) in [
        ("BOM", [b"\xef\xbb\xbf", payload.as_bytes()].concat()),
        ("trailing text", [payload.as_bytes(), b"x"].concat()),
        ("trailing value", [payload.as_bytes(), b"{}"].concat()),
        ("trailing NUL", [payload.as_bytes(), b"\0"].concat()),
        ("lone surrogate", payload.replace(user.as_str(), "\\ud800").into_bytes()),
        ("NUL in the user", payload.replace(user.as_str(), &format!("{user}\\u0000")).into_bytes()),
        ("homoglyph", payload.replace("\"sub\"", "\"\u{455}ub\"").into_bytes()),
        ("wide letters", payload.replace("\"exp\"", "\"\u{ff45}xp\"").into_bytes()),
        (
            "invalid UTF-8",
            payload.replace(user.as_str(), "?").bytes().map(|b| if b == b'?' { 0xff } else { b }).collect(),
        ),
        ("UTF-16", payload.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ("single quotes", payload.replace('"', "'").into_bytes()),
        ("a comment", format!("/**/{payload}").into_bytes()),
    ] {
        forge.refused(&bytes(&text), what).await;
    }
    // Names are bytes: nothing is trimmed or folded. Such users are others, of whom nothing is known.
    for (name, value) in [("tId", "\" public\""), ("tId", "\"Public\""), ("tId", "\"public \"")] {
        let token = forge.signed(&head, forge.with_claim(name, Some(value)));
        forge.refused(&token, value).await;
    }
}

#[tokio::test]
async fn sec_j21_what_an_unverified_token_says_changes_nothing() {
    let forge = Forge::new().await;
    let before = forge.app.store.calls();
    let text = |header: &str, payload: &str| {
        format!("{}.{}.{}", encoded(header), encoded(payload), encoded([7; 256]))
    };
    let mut answers = Vec::new();
    for (name, value) in [
        ("sub", Some("\"someone\"")),
        ("tId", Some("\"other\"")),
        ("exp", Some("1")),
        ("exp", Some("9999999999")),
        ("sessionHandle", None),
        ("st-mfa", Some("{\"c\":{},\"v\":true}")),
        ("transfer", Some("\"cookie\"")),
        ("iss", Some("\"x\"")),
    ] {
        answers.push(forge.bearer(&text(&forge.header(), &forge.with_claim(name, value))).await);
    }
    for payload in ["", "{", "[]", "null", "\u{0}"] {
        let token = text(&forge.header(), &format!("{payload} "));
        answers.push(forge.bearer(&token).await);
    }
    for version in ["3", "4", "6"] {
        let header = forge.header().replace(r#""version":"5""#, &format!(r#""version":"{version}""#));
        answers.push(forge.bearer(&text(&header, &forge.payload())).await);
    }
    for answer in &answers {
        try_refresh(answer, "unverified");
        assert_eq!((&answer.headers, &answer.text), (&answers[0].headers, &answers[0].text));
    }
    assert_eq!(forge.app.store.calls(), before);
}

#[tokio::test]
async fn sec_j22_a_token_in_another_place_is_no_token() {
    let forge = Forge::new().await;
    let token = forge.access();
    let nothing = forge.app.send(empty(get("/api/me"))).await;
    unauthorised(&nothing, "nothing");
    let form = Request::post("/api/me")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(format!("access_token={token}")))
        .unwrap();
    let json = Request::post("/api/me")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(json!({"access_token": token}).to_string()))
        .unwrap();
    for request in [
        empty(get(&format!("/api/me?access_token={token}"))),
        empty(get(&format!("/api/me?token={token}&st-access-token={token}"))),
        empty(get("/api/me").header("x-access-token", token)),
        empty(get("/api/me").header("st-access-token", token)),
        empty(get("/api/me").header("proxy-authorization", format!("Bearer {token}"))),
        empty(
            get("/api/me").header(header::COOKIE, format!("access_token={token}; st-access-token={token}")),
        ),
        empty(get("/api/me").header(header::AUTHORIZATION, token)),
        empty(get("/api/me").header(header::AUTHORIZATION, format!("Basic {token}"))),
        form,
        json,
    ] {
        let answer = forge.app.send(request).await;
        assert_eq!((answer.status, &answer.text), (nothing.status, &nothing.text));
    }
}

#[tokio::test]
async fn sec_j23_one_credential_decides_alone() {
    let forge = Forge::new().await;
    let mut bob = forge.app.browser(Mode::Cookie);
    bob.sign_up("bob@shop.example").await.ok();
    let cookie = bob.jar["sAccessToken"].clone();
    let spoilt = |token: &str| format!("{}{}", &token[..token.len() - 342], encoded([7; 256]));
    let foreign = format!("{}.{}.{}", encoded(r#"{"alg":"RS256"}"#), encoded("{}"), encoded([7; 256]));
    let alice = forge.access().to_owned();
    let (a, b) = (forge.app.user(ALICE).await, forge.app.user("bob@shop.example").await);
    let (a, b) = (Some(a.as_str()), Some(b.as_str()));
    let (no, again) = (Err("unauthorised"), Err("try refresh token"));
    for (bearer, jar, expected) in [
        (None, None, no),
        (None, Some(cookie.clone()), Ok(b)),
        (None, Some(spoilt(&cookie)), again),
        (Some(alice.clone()), None, Ok(a)),
        (Some(alice.clone()), Some(cookie.clone()), Ok(a)),
        (Some(alice.clone()), Some(spoilt(&cookie)), Ok(a)),
        (Some(spoilt(&alice)), None, again),
        (Some(spoilt(&alice)), Some(cookie.clone()), again),
        (Some(spoilt(&alice)), Some(spoilt(&cookie)), again),
        (Some(foreign.clone()), None, no),
        (Some(foreign.clone()), Some(cookie.clone()), Ok(b)),
        (Some(foreign.clone()), Some(spoilt(&cookie)), again),
    ] {
        let mut request = get("/api/me").header("rid", "x");
        if let Some(token) = &bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(token) = &jar {
            request = request.header(header::COOKIE, format!("sAccessToken={token}"));
        }
        let answer = forge.app.send(empty(request)).await;
        let got = match answer.status.as_u16() {
            200 => Ok(answer.body["userId"].as_str()),
            _ => Err(answer.body["message"].as_str().unwrap()),
        };
        assert_eq!(got, expected, "{:.20?} {:.20?}", bearer, jar);
    }
    // The cookie decides by its own rule: a header that is none of ours proves nothing.
    let request = Request::post("/api/me")
        .header(header::AUTHORIZATION, format!("Bearer {foreign}"))
        .header(header::COOKIE, format!("sAccessToken={cookie}"));
    try_refresh(&forge.app.send(empty(request)).await, "no proof against forgery");
}

#[tokio::test]
async fn sec_j24_several_fields_refresh_nothing() {
    let app = TestApp::new().await;
    let mut alice = app.browser(Mode::Cookie);
    alice.sign_up("alice@shop.example").await.ok();
    let before = app.store.sessions().await;
    let mut request = alice.request(Method::POST, "/auth/session/refresh", None);
    for field in ["Bearer x", "Bearer y"] {
        request.headers_mut().append(header::AUTHORIZATION, field.parse().unwrap());
    }
    let answer = app.send(request).await;
    unauthorised(&answer, "two fields");
    assert!(answer.cookies().is_empty() && !answer.headers.contains_key("front-token"));
    assert_eq!(app.store.sessions().await, before);
    alice.refresh().await.is(200);
}

/// A claim with a key of the crate's own.
struct Taken<const WHICH: usize>;

impl<const WHICH: usize> SessionClaim for Taken<WHICH> {
    const KEY: &'static str = ["version", "sub", "st-mfa"][WHICH];
    type Value = String;

    async fn fetch(&self, _: &ClaimContext<'_>) -> Result<Option<String>, ClaimError> {
        Ok(Some("paid".to_owned()))
    }
}

async fn takes<const WHICH: usize>() {
    for cached in [true, false] {
        let app = TestApp::with(|b| if cached { b } else { b.without_token_cache() }).await;
        let mut alice = app.browser(Mode::Header);
        alice.sign_up("alice@shop.example").await.ok();
        let (row, payload) = (app.store.sessions().await, alice.front.clone());
        let kinds = |session: SessionExtractor| async move {
            let set = session.set_claim(&Taken::<WHICH>, "paid".to_owned()).await.unwrap_err().kind();
            let removed = session.remove_claim(&Taken::<WHICH>).await.unwrap_err().kind();
            assert_eq!((set, removed), (ErrorKind::Invalid, ErrorKind::Invalid));
        };
        let asks = HasValue::new(Taken::<WHICH>, "paid".to_owned()).unwrap();
        let router = Router::new().route("/set", post(kinds)).layer(MfaLayer::required(app.mfa.clone()));
        let asking = Router::new()
            .route("/ask", post(|| async {}))
            .layer(MfaLayer::required(app.mfa.clone()).without_mfa().validate(asks));
        send(&router, alice.request(Method::POST, "/set", None)).await.is(200);
        // A validator can't have it fetched either: the app is wired wrongly, and says so.
        let asked = send(&asking, alice.request(Method::POST, "/ask", None)).await;
        // Nobody fetches the MFA claim but the policy, so there it stays as it is, and isn't what is asked for.
        assert_eq!(asked.status, if Taken::<WHICH>::KEY == "st-mfa" { 403 } else { 500 }, "{}", asked.text);
        assert_eq!((app.store.sessions().await, &alice.front), (row, &payload));
    }
}

#[tokio::test]
async fn sec_j26_no_claim_takes_a_key_of_the_crates_own() {
    takes::<0>().await;
    takes::<1>().await;
    takes::<2>().await;
}

#[tokio::test]
async fn sec_j24_the_authorization_field() {
    let forge = Forge::new().await;
    let token = forge.access().to_owned();
    let long = format!("Bearer {}", "x".repeat(64 * 1024));
    for (value, status) in [
        (format!("Bearer {token}").into_bytes(), 200),
        (format!("bearer {token}").into_bytes(), 200),
        (format!("bEaReR {token}").into_bytes(), 200),
        (format!("Bearer   {token} ").into_bytes(), 200),
        (format!("Bearer\t{token}").into_bytes(), 401),
        (format!("Bearer{token}").into_bytes(), 401),
        (format!("Bearer {}", token.replace('.', "%2E")).into_bytes(), 401),
        (format!("Bearer \"{token}\"").into_bytes(), 401),
        (format!("Bearer {token}, Bearer {token}").into_bytes(), 401),
        ([b"Bearer \xff\xfe", token.as_bytes()].concat(), 401),
        (format!("Bearer ä{token}").into_bytes(), 401),
        (b"Bearer".to_vec(), 401),
        (b"".to_vec(), 401),
        (long.into_bytes(), 401),
    ] {
        let what = String::from_utf8_lossy(&value[..value.len().min(40)]).into_owned();
        let answer = forge.app.send(empty(get("/api/me").header(header::AUTHORIZATION, value))).await;
        assert_eq!(answer.status.as_u16(), status, "{what}");
        assert!(answer.cookies().is_empty());
    }
    // More than one: nobody chooses among them.
    for second in [format!("Bearer {token}"), "Basic x".to_owned(), String::new()] {
        let request = get("/api/me")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::AUTHORIZATION, &second);
        unauthorised(&forge.app.send(empty(request)).await, &second);
    }
}

#[tokio::test]
async fn sec_j25_the_front_token_is_never_read() {
    let forge = Forge::new().await;
    let mut front = forge.alice.front.clone().unwrap();
    front["uid"] = "someone".into();
    front["ate"] = json!(9_999_999_999_999_u64);
    front["up"]["sub"] = "someone".into();
    front["up"]["st-mfa"] = json!({"c": {}, "v": false});
    let front = STANDARD.encode(front.to_string());
    let with = |bearer: bool| {
        let request = get("/api/me")
            .header("front-token", &front)
            .header(header::COOKIE, format!("sFrontToken={front}"));
        empty(match bearer {
            true => request.header(header::AUTHORIZATION, format!("Bearer {}", forge.access())),
            false => request,
        })
    };
    unauthorised(&forge.app.send(with(false)).await, "alone");
    let answer = forge.app.send(with(true)).await;
    answer.is(200);
    assert_eq!(answer.body["userId"], forge.app.user(ALICE).await.as_str());
    assert_eq!(answer.body["claim"]["v"], true);
}

#[tokio::test]
async fn sec_j26_no_payload_of_an_app_names_what_the_crate_writes() {
    let forge = Forge::new().await;
    // A careless app that writes whatever a client sends.
    async fn write(session: SessionExtractor, Json(body): Json<Value>) -> String {
        let payload = match Payload::from_json(body) {
            Ok(payload) => payload,
            Err(error) => {
                return format!("{:?} {}", error.kind(), std::error::Error::source(&error).unwrap());
            }
        };
        match session.merge_payload(payload).await {
            Ok(()) => "written".to_owned(),
            Err(error) => format!("{:?} st-", error.kind()),
        }
    }
    let router: Router =
        Router::new().route("/", post(write)).layer(MfaLayer::required(forge.app.mfa.clone()));
    let send = async |body: Value| {
        let request = Request::post("/")
            .header(header::AUTHORIZATION, format!("Bearer {}", forge.access()))
            .header(header::CONTENT_TYPE, "application/json");
        let response =
            router.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
        let token = response.headers().get("st-access-token").is_some();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (String::from_utf8(body.to_vec()).unwrap(), token)
    };
    let commits = || forge.app.store.counts.commits.load(Ordering::SeqCst);
    let before = commits();
    for name in [
        "sub",
        "iss",
        "aud",
        "exp",
        "iat",
        "nbf",
        "sessionHandle",
        "refreshTokenHash1",
        "parentRefreshTokenHash1",
        "antiCsrfToken",
        "rsub",
        "tId",
        "stt",
        "ep",
    ] {
        for value in [json!("x"), Value::Null] {
            let (answer, token) = send(json!({ name: value, "good": 1 })).await;
            assert_eq!(answer, format!("{:?} {name}", ErrorKind::Invalid));
            assert!(!token);
        }
    }
    for name in ["st-mfa", "st-ev", "st-role"] {
        let (answer, token) = send(json!({ name: {"c": {}, "v": true}, "good": 1 })).await;
        assert_eq!((answer.as_str(), token), ("Invalid st-", false), "{name}");
    }
    assert_eq!(commits(), before, "nothing is stored");
    assert_eq!(send(json!({"good": 1})).await, ("written".to_owned(), true));
}
