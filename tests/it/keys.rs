//! Signing keys and root keys over HTTP: emergencies, restarts, and a change of either.

use std::time::{Duration, Instant};

use serde_json::Value;
use tower_mfa::{
    FactorId, MfaBuilder,
    account::KeyState,
    config::{AntiCsrf, Secrets, SigningAlg},
    ident::{ErrorKind, SystemClock},
    policy::Everyone,
    store::{Batch, Commit, Key, MemoryStore, Op, Row, Store, Version},
};

use crate::{
    forge::{decoded, info, try_refresh},
    spy::{ALICE, refresh_token},
    support::{Browser, HandClock, Mode, TestApp},
};

const A: [u8; 32] = *b"the first root key, for tests \x01\x02";
const B: [u8; 32] = *b"the second root key, for tests\x03\x04";

/// The same client at another process.
fn at(app: &TestApp, client: &Browser) -> Browser {
    let mut moved = app.browser(client.mode);
    moved.jar.clone_from(&client.jar);
    (moved.access, moved.refresh) = (client.access.clone(), client.refresh.clone());
    moved.front.clone_from(&client.front);
    moved
}

fn access(client: &Browser) -> String {
    client.access.clone().or_else(|| client.jar.get("sAccessToken").cloned()).unwrap()
}

fn kid(client: &Browser) -> String {
    let header: Value = serde_json::from_slice(&decoded(access(client).split('.').next().unwrap())).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

async fn keyset(store: &impl Store) -> Value {
    store.get(&[Key::new(["keyset"])]).await.unwrap().remove(0).unwrap().body
}

async fn put_keyset(store: &impl Store, body: Value) {
    let mut batch = Batch::new();
    let row = Row { version: Version::random().unwrap(), expires_at: None, body };
    batch.push(Key::new(["keyset"]), Op::Upsert(row));
    assert_eq!(store.commit(batch).await.unwrap(), Commit::Applied);
}

async fn leak(store: impl Store + Clone) {
    let secrets = Secrets::random().unwrap();
    let process = || TestApp::on(info(), secrets.clone(), store.clone(), |b| b.clock(SystemClock::new()));
    let apps = [process().await, process().await, process().await];
    let mut alice = apps[0].browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    for app in &apps {
        at(app, &alice).get("/api/me").await.is(200);
    }
    let (leaked, before) = (kid(&alice), keyset(&store).await);
    let called = Instant::now();
    apps[1].mfa.keys().revoke(&leaked).await.unwrap();
    try_refresh(&at(&apps[1], &alice).get("/api/me").await, "where it was revoked, at once");
    for app in [&apps[0], &apps[2]] {
        while at(app, &alice).get("/api/me").await.status == 200 {
            assert!(called.elapsed() < Duration::from_secs(10), "a revoked key is still accepted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        try_refresh(&at(app, &alice).get("/api/me").await, "elsewhere");
    }
    // The session goes on under another key, everywhere.
    let mut later = at(&apps[2], &alice);
    later.refresh().await.is(200);
    assert_ne!(kid(&later), leaked);
    for app in &apps {
        at(app, &later).get("/api/me").await.is(200);
    }
    let jwks = apps[0].browser(Mode::Header).get("/auth/jwt/jwks.json").await.body.to_string();
    assert!(!jwks.contains(&leaked) && jwks.contains(&kid(&later)), "{jwks}");
    // Whoever can write the store puts the key back, and starts a process.
    let mut tampered = keyset(&store).await;
    tampered["keys"].as_array_mut().unwrap().extend(before["keys"].as_array().unwrap().clone());
    put_keyset(&store, tampered).await;
    let fresh = process().await;
    for app in apps.iter().chain([&fresh]) {
        try_refresh(&at(app, &alice).get("/api/me").await, "put back");
        at(app, &later).get("/api/me").await.is(200);
    }
    let slip = fresh.mfa.keys().revoke("no-such-key").await.unwrap_err();
    assert_eq!(slip.kind(), ErrorKind::NotFound);
    assert_eq!(fresh.mfa.keys().revoked().await.unwrap(), [leaked]);
}

#[tokio::test]
async fn sec_j08_a_leaked_key_is_refused_by_every_process_within_seconds() {
    leak(MemoryStore::new()).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sec_j08_a_leaked_key_is_refused_by_every_process_on_one_file() {
    let dir = tempfile::tempdir().unwrap();
    leak(tower_mfa::store::SqliteStore::open(dir.path().join("db")).await.unwrap()).await;
}

#[tokio::test]
async fn sec_j07_a_rotation_under_load_refuses_nobody() {
    let (store, secrets, clock) = (MemoryStore::new(), Secrets::random().unwrap(), HandClock::new());
    let process = || TestApp::on(info(), secrets.clone(), store.clone(), |b| b.clock(clock.clone()));
    let apps = [process().await, process().await];
    let mut alice = apps[0].browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    let (first, next) = (kid(&alice), apps[0].mfa.keys().rotate().await.unwrap());
    let mut seen = Vec::new();
    // Every process learns the key from the feed, within 2 s; a minute later it signs.
    for step in 0..8 {
        tokio::time::sleep(Duration::from_millis(if step == 0 { 2500 } else { 0 })).await;
        for app in &apps {
            let mut client = at(app, &alice);
            client.get("/api/me").await.is(200);
            client.refresh().await.is(200);
            for other in &apps {
                at(other, &client).get("/api/me").await.is(200);
            }
            seen.push(kid(&client));
            alice = at(&apps[0], &client);
        }
        clock.advance(Duration::from_secs(10));
    }
    let changed = seen.iter().position(|kid| *kid == next).unwrap();
    assert!(
        seen[..changed].iter().all(|kid| *kid == first) && seen[changed..].iter().all(|kid| *kid == next)
    );
    assert_eq!(changed, 12, "at 60 s");
}

#[tokio::test]
async fn another_algorithm_after_a_restart() {
    let (store, secrets, clock) = (MemoryStore::new(), Secrets::random().unwrap(), HandClock::new());
    let process = |alg| {
        let clock = clock.clone();
        TestApp::on(info(), secrets.clone(), store.clone(), move |b| b.clock(clock).signing(alg))
    };
    let rs = process(SigningAlg::Rs256).await;
    let mut alice = rs.browser(Mode::Cookie);
    alice.sign_up(ALICE).await.ok();
    // Among public keys nobody notices.
    let ed = process(SigningAlg::EdDsa).await;
    let mut alice = at(&ed, &alice);
    alice.get("/api/me").await.is(200);
    clock.advance(Duration::from_secs(60));
    alice.refresh().await.is(200);
    alice.get("/api/me").await.is(200);
    let info = ed.mfa.keys().list().await.unwrap();
    let states: Vec<_> = info.iter().map(|key| (key.alg, key.state)).collect();
    assert_eq!(states, [(SigningAlg::Rs256, KeyState::Verifying), (SigningAlg::EdDsa, KeyState::Signing)]);
    // To a secret, and back: everybody refreshes once.
    for alg in [SigningAlg::Hs256, SigningAlg::Es256] {
        let app = process(alg).await;
        alice = at(&app, &alice);
        try_refresh(&alice.get("/api/me").await, "no bridge");
        alice.refresh().await.is(200);
        alice.get("/api/me").await.is(200);
        let published = app.browser(Mode::Header).get("/auth/jwt/jwks.json").await.body;
        assert_eq!(published["keys"].as_array().unwrap().is_empty(), alg == SigningAlg::Hs256);
    }
}

#[tokio::test]
async fn the_root_key_changes_under_a_running_app() {
    for csrf in [AntiCsrf::default(), AntiCsrf::Token] {
        let (store, clock) = (MemoryStore::new(), HandClock::new());
        let process = |secrets: Secrets| {
            let change = |b: MfaBuilder| {
                b.clock(clock.clone()).policy(Everyone::new(FactorId::OTP_EMAIL)).anti_csrf(csrf)
            };
            TestApp::on(info(), secrets, store.clone(), change)
        };
        let a = || Secrets::new("a", A).unwrap();
        let both = || Secrets::new("b", B).unwrap().and_older("a", A).unwrap();
        let old = process(a()).await;
        let mode = if csrf == AntiCsrf::Token { Mode::Header } else { Mode::Cookie };
        let mut alice = old.browser(mode);
        alice.sign_up(ALICE).await.ok();
        let flow = alice.ask_code(ALICE, true).await.ok();
        let code = old.code(ALICE).await;
        assert!(keyset(&store).await["keys"][0]["sealed"].as_str().unwrap().starts_with("a."));

        // Everything that was made under the first is good under the second.
        let new = process(both()).await;
        let before = kid(&alice);
        let mut alice = at(&new, &alice);
        alice.get("/api/half").await.is(200);
        alice.enter(&flow, &code, true).await.ok();
        alice.get("/api/me").await.is(200);
        let mut lost = alice.clone();
        alice.refresh().await.is(200);
        lost.refresh().await.is(200);
        assert_eq!((access(&lost).is_empty(), kid(&alice)), (false, before), "the signing key went on");
        assert_eq!(refresh_token(&lost), refresh_token(&alice), "one successor");
        alice.get("/api/me").await.is(200);
        // The signing keys are under the second by now, so the first may go.
        assert!(keyset(&store).await["keys"][0]["sealed"].as_str().unwrap().starts_with("b."));
        let last = process(Secrets::new("b", B).unwrap()).await;
        let mut alice = at(&last, &alice);
        alice.get("/api/me").await.is(200);
        alice.refresh().await.is(200);
        alice.get("/api/me").await.is(200);
        alice.sign_out().await.ok();
        alice.sign_in(ALICE).await.ok();
    }
}

#[tokio::test]
async fn a_root_key_that_is_missing_is_a_failure_and_no_stranger() {
    let (store, clock) = (MemoryStore::new(), HandClock::new());
    let old =
        TestApp::on(info(), Secrets::new("a", A).unwrap(), store.clone(), |b| b.clock(clock.clone())).await;
    let mut alice = old.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    let lost = |id: &'static str| {
        let secrets = Secrets::new(id, B).unwrap();
        let mfa = tower_mfa::Mfa::builder(info(), secrets, store.clone()).clock(clock.clone());
        mfa.without_passwordless().build().unwrap()
    };
    // Another key, by a name of its own and, a slip, by the same.
    for mfa in [lost("b"), lost("a")] {
        let error = mfa.tenants().create(&"north".parse().unwrap(), None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(!mfa.is_ready());
        let router = axum::Router::new()
            .route(
                "/who",
                axum::routing::get(
                    async |who: Option<tower_mfa::SessionExtractor>| {
                        if who.is_some() { "somebody" } else { "nobody" }
                    },
                ),
            )
            .layer(tower_mfa::MfaLayer::optional(mfa.clone()))
            .layer(tower_mfa::api::ApiLayer::new(mfa.clone()));
        for (method, path) in
            [("GET", "/who"), ("GET", "/who"), ("POST", "/auth/session/refresh"), ("POST", "/auth/signin")]
        {
            let body = if path.ends_with("signin") {
                Some(crate::support::credentials(ALICE, crate::support::PASSWORD))
            } else {
                None
            };
            let request = alice.request(method.parse().unwrap(), path, body);
            let response = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
            assert_eq!(response.status(), 503, "{method} {path}");
            assert!(
                response.headers().contains_key("retry-after")
                    && !response.headers().contains_key("front-token")
            );
        }
        // What was sealed under it can be given up, by somebody who knows that it is gone.
        let keys = mfa.keys().list().await.unwrap();
        assert!(keys.iter().any(|key| key.state == KeyState::Signing));
    }
    // Nothing was overwritten: with the key back, all is well.
    let back = TestApp::on(info(), Secrets::new("a", A).unwrap(), store, |b| b.clock(clock.clone())).await;
    at(&back, &alice).get("/api/me").await.is(200);
    assert!(back.mfa.keys().revoked().await.unwrap().is_empty());
}
