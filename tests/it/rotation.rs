//! Rows R01 to R03, R11, R13 and R15 to R20 over HTTP: what a refresh keeps, costs, needs and leaves alone.

use std::{collections::BTreeSet, time::Duration};

use http::{HeaderValue, Method, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_mfa::{
    Clock as _, FactorId, MfaLayer, Store as _,
    claim::Roles,
    config::{AntiCsrf, AppInfo, Lifetimes, Secrets},
    ident::TenantId,
    policy::ForRole,
};

use crate::{
    spy::{ALICE, BOB, refresh_token},
    support::{Browser, Mode, TestApp},
};

const REFRESH: &str = "/auth/session/refresh";
const HOUR: Duration = Duration::from_secs(3600);

async fn signed_in(app: &TestApp, mode: Mode) -> Browser {
    let mut alice = app.browser(mode);
    alice.by_code(ALICE).await;
    alice
}

/// The tokens of a session through refreshes and completions, the current one last.
async fn tokens_of_a_life(app: &TestApp, alice: &mut Browser) -> Vec<String> {
    let mut tokens = vec![refresh_token(alice)];
    for elevates in [false, false, true, false, true] {
        match elevates {
            true => drop(alice.pass_code(ALICE).await),
            false => drop(alice.refresh().await.is(200)),
        }
        tokens.push(refresh_token(alice));
        app.clock.advance(Duration::from_secs(40));
    }
    assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len(), tokens.len());
    tokens
}

/// What of a token would be worth stealing, in every form that a store may give it.
fn secrets_of(token: &str) -> Vec<Vec<u8>> {
    use base64::Engine as _;
    let secret = token.split('.').nth(3).unwrap();
    let raw = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(secret).unwrap();
    let standard = base64::engine::general_purpose::STANDARD.encode(&raw);
    let mac = token.split('.').nth(4).unwrap();
    // Whoever had the first hash could mint no token, but the crate never stores it.
    let texts = [secret.to_owned(), standard, hex(&raw), mac.to_owned(), hash1(token)];
    texts.into_iter().map(String::into_bytes).chain([raw]).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(text: &str) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref())
}

fn hash1(token: &str) -> String {
    sha256(token)
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn no_secret_in(haystack: &[u8], tokens: &[String]) {
    for token in tokens {
        for secret in secrets_of(token) {
            assert!(!holds(haystack, &secret), "a secret of a refresh token is stored");
        }
    }
    // The search finds what is there.
    let stored = sha256(&hash1(tokens.last().unwrap()));
    assert!(holds(haystack, stored.as_bytes()));
}

#[tokio::test]
async fn sec_r01_a_dump_of_the_store_holds_no_refresh_token() {
    for mode in [Mode::Cookie, Mode::Header] {
        let app = TestApp::new().await;
        let mut alice = signed_in(&app, mode).await;
        let tokens = tokens_of_a_life(&app, &mut alice).await;
        let dump: String = app
            .store
            .dump()
            .await
            .into_iter()
            .map(|(key, row)| format!("{} {} {:?}\n", key.as_str(), row.body, row.version))
            .collect();
        no_secret_in(dump.as_bytes(), &tokens);
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sec_r01_the_database_file_holds_no_refresh_token() {
    let dir = tempfile::tempdir().unwrap();
    let store = tower_mfa::store::SqliteStore::open(dir.path().join("db")).await.unwrap();
    let app = TestApp::on(shop(), Secrets::random().unwrap(), store, |b| b).await;
    let mut alice = signed_in(&app, Mode::Header).await;
    let tokens = tokens_of_a_life(&app, &mut alice).await;
    let files = std::fs::read_dir(dir.path()).unwrap();
    let bytes: Vec<u8> = files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    no_secret_in(&bytes, &tokens);
}

fn shop() -> AppInfo {
    AppInfo::new("Shop", "https://api.shop.test", "https://shop.test").unwrap()
}

#[tokio::test]
async fn sec_r02_no_token_leaves_before_its_commit() {
    for mode in [Mode::Cookie, Mode::Header] {
        let app = TestApp::new().await;
        let mut alice = signed_in(&app, mode).await;
        let (first, rows) = (refresh_token(&alice), app.store.sessions().await);
        app.store.fail_commits(100);
        let failed = alice.refresh().await;
        app.store.fail_commits(0);
        failed.is(503);
        assert!(failed.cookies().is_empty() && !failed.headers.contains_key("st-refresh-token"));
        assert!(!failed.headers.contains_key("front-token"));
        assert_eq!((app.store.sessions().await, refresh_token(&alice)), (rows, first.clone()));
        let batches = app.store.written(0).len();
        alice.refresh().await.is(200);
        assert_ne!(refresh_token(&alice), first);
        // The rotation is one batch.
        assert_eq!(app.store.written(batches).len(), 1);
    }
}

#[tokio::test]
async fn sec_r03_a_lost_answer_is_given_again_and_nothing_is_written() {
    for mode in [Mode::Cookie, Mode::Header] {
        let app = TestApp::new().await;
        let mut alice = signed_in(&app, mode).await;
        let lost = alice.clone().refresh().await;
        let (rows, commits) = (app.store.sessions().await, app.store.commits());
        app.clock.advance(Duration::from_secs(30));
        let again = alice.refresh().await;
        let sent = |answer: &crate::support::Answer| {
            let cookie = answer.cookies().into_iter().find(|cookie| cookie.starts_with("sRefreshToken="));
            let header = answer.headers.get("st-refresh-token").map(|token| token.to_str().unwrap());
            // In a cookie the end is part of it.
            cookie.or(header).unwrap().to_owned()
        };
        assert_eq!(sent(&again), sent(&lost));
        assert_eq!((app.store.sessions().await, app.store.commits()), (rows, commits));
        // The access token is a fresh one.
        let fresh = app.clock.now().as_secs();
        assert_eq!(alice.payload("iat"), json!(fresh));
        alice.get("/api/me").await.is(200);
        assert_eq!(app.mfa.counters().refresh_grace_hits, 1);
        // Once it was used, the earlier one is reuse.
        alice.refresh().await.is(200);
        assert_eq!(app.mfa.counters().refresh_grace_hits, 1);
    }
}

#[tokio::test]
async fn sec_r11_a_session_ends_when_it_is_not_refreshed_and_at_the_latest_at_its_own_end() {
    let mut lives = Lifetimes::default();
    (lives.refresh_token, lives.session) = (24 * HOUR, 120 * HOUR);
    let app = TestApp::with(|b| b.lifetimes(lives)).await;
    let mut left = signed_in(&app, Mode::Cookie).await;
    let mut used = signed_in(&app, Mode::Cookie).await;
    let end = app.clock.now() + 120 * HOUR;
    for hour in 1..120 {
        app.clock.advance(HOUR);
        used.refresh().await.is(200);
        let until = used.front.as_ref().unwrap()["ate"].as_i64().unwrap();
        assert!(until <= end.as_millis(), "an access token outlives its session");
        if hour == 24 {
            gone(&app, &mut left, 1).await;
        }
    }
    app.clock.advance(HOUR - Duration::from_millis(1));
    used.clone().refresh().await.is(200);
    app.clock.advance(Duration::from_millis(1));
    gone(&app, &mut used, 0).await;
}

/// It is `UNAUTHORISED` with clearing, and no row of it stays.
async fn gone(app: &TestApp, browser: &mut Browser, others: usize) {
    let answer = browser.refresh().await;
    answer.is(401);
    assert_eq!((&answer.body["message"], answer.cookies().len()), (&json!("unauthorised"), 2));
    assert!(browser.jar.is_empty() && browser.front.is_none());
    let user = app.user(ALICE).await;
    assert_eq!(app.mfa.sessions().list(&user).await.unwrap().len(), others);
    // What the upkeep does once in a while.
    app.store.sweep(app.clock.now() + Duration::from_millis(1)).await.unwrap();
    assert_eq!(app.store.sessions().await.len(), others);
}

#[tokio::test]
async fn sec_r13_a_refresh_by_cookie_needs_the_proof() {
    for csrf in [AntiCsrf::CustomHeader, AntiCsrf::Token] {
        let app = TestApp::with(|b| b.anti_csrf(csrf)).await;
        let mut alice = app.browser(Mode::Cookie);
        let flow = alice.ask_code(ALICE, false).await.ok();
        let code = app.code(ALICE).await;
        let signed_in = alice.enter(&flow, &code, false).await;
        let proof = signed_in.headers.get("anti-csrf").cloned();
        assert_eq!(proof.is_some(), csrf == AntiCsrf::Token);
        let refresh = |with: Option<&HeaderValue>, site: Option<&'static str>| {
            let mut request = alice.request(Method::POST, REFRESH, None);
            request.headers_mut().remove("rid");
            match (csrf, with) {
                (AntiCsrf::Token, Some(proof)) => {
                    request.headers_mut().insert("anti-csrf", proof.clone());
                }
                (_, Some(_)) => drop(request.headers_mut().insert("rid", HeaderValue::from_static("x"))),
                (_, None) => {}
            }
            if let Some(site) = site {
                request.headers_mut().insert("sec-fetch-site", HeaderValue::from_static(site));
            }
            app.send(request)
        };
        let wrong = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA");
        let (rows, commits) = (app.store.sessions().await, app.store.commits());
        let mut unproven = vec![(None, None, true), (None, Some("none"), false)];
        if csrf == AntiCsrf::Token {
            unproven.push((Some(&wrong), None, true));
        }
        for (with, site, clears) in unproven {
            let refused = refresh(with, site).await;
            refused.is(401);
            assert_eq!(refused.body["message"], "unauthorised", "{csrf:?} {site:?}");
            assert_eq!(!refused.cookies().is_empty(), clears, "{csrf:?} {site:?}");
            assert_eq!((&app.store.sessions().await, app.store.commits()), (&rows, commits));
        }
        let rotated = refresh(proof.as_ref().or(Some(&wrong)), None).await;
        rotated.is(200);
        // The next proof is another one (row X03).
        assert!(proof.is_none() || rotated.headers.get("anti-csrf") != proof.as_ref());
    }
}

#[tokio::test]
async fn sec_r15_the_new_token_says_what_is_true_now() {
    for mode in [Mode::Cookie, Mode::Header] {
        let app = TestApp::with(|b| b.claim(Roles).policy(ForRole::new("admin", FactorId::PASSWORD))).await;
        let (mut alice, public) = (signed_in(&app, mode).await, TenantId::PUBLIC);
        let (user, old) = (app.user(ALICE).await, alice.clone());
        let says = |alice: &Browser| (alice.payload("st-role")["v"].clone(), alice.claim()["v"].clone());
        assert_eq!(says(&alice), (json!([]), json!(true)));
        app.mfa.roles().grant(&user, &public, "admin").await.unwrap();
        alice.refresh().await.is(200);
        assert_eq!(says(&alice), (json!(["admin"]), json!(false)));
        alice.get("/api/me").await.is(403);
        app.mfa.roles().revoke(&user, &public, "admin").await.unwrap();
        // An access token from before comes along: it is no input.
        if let Some(access) = old.jar.get("sAccessToken") {
            alice.jar.insert("sAccessToken".to_owned(), access.clone());
        }
        alice.refresh().await.is(200);
        assert_eq!(says(&alice), (json!([]), json!(true)));
        // The stored payload, changed from elsewhere, goes into the token; the token's doesn't.
        let handle = app.mfa.sessions().list(&user).await.unwrap()[0].handle.clone();
        let update = tower_mfa::ident::Payload::from_json(json!({ "plan": "gold" })).unwrap();
        app.mfa.sessions().merge_payload(&handle, update).await.unwrap();
        assert_eq!(alice.payload("plan"), Value::Null);
        alice.refresh().await.is(200);
        assert_eq!(alice.payload("plan"), "gold");
    }
}

#[tokio::test]
async fn sec_r15_a_new_requirement_shows_at_the_next_refresh() {
    let app = TestApp::new().await;
    let mut alice = signed_in(&app, Mode::Header).await;
    app.mfa.tenants().require(&TenantId::PUBLIC, [FactorId::PASSWORD]).await.unwrap();
    alice.refresh().await.is(200);
    assert_eq!(alice.claim()["v"], false);
    app.mfa.tenants().require(&TenantId::PUBLIC, []).await.unwrap();
    alice.refresh().await.is(200);
    assert_eq!(alice.claim()["v"], true);
}

#[tokio::test]
async fn sec_r16_without_a_signing_key_nothing_is_rotated() {
    for mode in [Mode::Cookie, Mode::Header] {
        let app = TestApp::new().await;
        let mut alice = signed_in(&app, mode).await;
        let first = refresh_token(&alice);
        // The key's week is over, and no upkeep has made the next one yet.
        app.clock.advance(171 * HOUR);
        let (rows, commits) = (app.store.sessions().await, app.store.commits());
        for _ in 0..2 {
            let refused = alice.refresh().await;
            refused.is(503);
            assert!(refused.headers.contains_key("retry-after") && refused.cookies().is_empty());
            assert!(!refused.headers.contains_key("front-token"));
        }
        assert_eq!((app.store.sessions().await, app.store.commits()), (rows, commits));
        // A node that starts makes it; the same token refreshes there, once.
        let mut alice = alice.at(&app.restarted().await);
        alice.refresh().await.is(200);
        assert_ne!(refresh_token(&alice), first);
        alice.get("/api/me").await.is(200);
    }
}

#[tokio::test]
async fn sec_r17_a_refresh_is_three_calls_and_its_token_is_shortened_by_chance() {
    // What a policy wants to know of the user comes on top, once a fact.
    let app = TestApp::new().await;
    let mut alice = signed_in(&app, Mode::Header).await;
    let calls = app.store.calls();
    alice.refresh().await.is(200);
    assert_eq!(app.store.calls() - calls, 3 + 2, "what user and tenant ask for");
    let app = TestApp::with(|b| b.policy(tower_mfa::policy::Nobody)).await;
    let mut alice = signed_in(&app, Mode::Header).await;
    let mut lives = BTreeSet::new();
    for _ in 0..60 {
        let (calls, commits) = (app.store.calls(), app.store.commits());
        let retry = alice.clone();
        alice.refresh().await.is(200);
        assert!(app.store.calls() - calls <= 3, "{} calls", app.store.calls() - calls);
        assert_eq!(app.store.commits() - commits, 1);
        let (calls, commits) = (app.store.calls(), app.store.commits());
        retry.clone().refresh().await.is(200);
        assert!(app.store.calls() - calls <= 2 && app.store.commits() == commits);
        let (from, to) = (alice.payload("iat").as_i64().unwrap(), alice.payload("exp").as_i64().unwrap());
        lives.insert(to - from);
    }
    assert!(lives.iter().all(|life| (3420..=3600).contains(life)), "{lives:?}");
    assert!(lives.len() > 20, "no jitter: {lives:?}");
    // Who is told to come back comes at different times.
    let mut waits = BTreeSet::new();
    for _ in 0..60 {
        app.store.fail_next(100);
        let busy = alice.refresh().await;
        app.store.fail_next(0);
        busy.is(503);
        waits.insert(busy.headers["retry-after"].to_str().unwrap().to_owned());
    }
    assert_eq!(waits.iter().collect::<Vec<_>>(), ["1", "2", "3"]);
}

#[tokio::test]
async fn sec_r19_the_header_wins_over_a_cookie_of_another_session() {
    let app = TestApp::new().await;
    let mut alice = signed_in(&app, Mode::Header).await;
    let mut bob = app.browser(Mode::Cookie);
    bob.by_code(BOB).await;
    let (first, bobs) = (alice.clone(), bob.clone());
    alice.jar = bob.jar.clone();
    let both = alice.refresh().await;
    both.is(200);
    assert_ne!(alice.refresh, first.refresh);
    // The cookies are cleared, not replaced, and their session stays as it is.
    assert!(alice.jar.is_empty() && both.cookies().len() == 2, "{:?}", both.cookies());
    assert_eq!(alice.payload("sub"), first.payload("sub"));
    bob.refresh().await.is(200);
    // An access token in the header is garbage, whatever cookie is there.
    let (rows, mut mixed) = (app.store.sessions().await, bob.clone());
    mixed.refresh.clone_from(&alice.access);
    let refused = mixed.refresh().await;
    refused.is(401);
    assert_eq!((&refused.body["message"], refused.cookies().len()), (&json!("unauthorised"), 2));
    assert_eq!(app.store.sessions().await, rows);
    assert_ne!(bob.jar, bobs.jar);
    bob.refresh().await.is(200);
    alice.refresh().await.is(200);
}

#[tokio::test]
async fn sec_r20_an_access_token_of_a_dead_branch_promotes_nothing() {
    let app = TestApp::new().await;
    let mut alice = signed_in(&app, Mode::Header).await;
    let checked = axum::Router::new()
        .route("/checked", axum::routing::get(|| async {}))
        .layer(MfaLayer::required(app.mfa.clone()).check_store());
    let ask = |browser: &Browser| {
        let request = browser.request(Method::GET, "/checked", None);
        let router = checked.clone();
        async move { router.oneshot(request).await.unwrap().status().as_u16() }
    };
    let first = alice.clone();
    assert_eq!(ask(&first).await, 200);
    alice.refresh().await.is(200);
    // Its answer may still be on the way.
    assert_eq!(ask(&first).await, 200);
    alice.refresh().await.is(200);
    let rows = app.store.sessions().await;
    let mut request = first.request(Method::GET, "/checked", None);
    request.headers_mut().remove(header::COOKIE);
    let dead = checked.clone().oneshot(request).await.unwrap();
    assert_eq!(dead.status(), 401);
    assert!(!dead.headers().contains_key("st-access-token") && !dead.headers().contains_key("front-token"));
    let body = axum::body::to_bytes(axum::body::Body::new(dead.into_body()), 4096).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["message"], "try refresh token");
    assert_eq!(app.store.sessions().await, rows);
    assert_eq!(ask(&alice).await, 200);
    alice.refresh().await.is(200);
}
