//! Rows M12, M13, M16 and M18: callers that leave, handlers that panic, work that takes long, answers that come
//! too late.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use axum::{Router, extract::Path, routing::get};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::ServiceExt as _;
use tower_mfa::{
    FactorId, MfaLayer, SessionClaim, SessionExtractor,
    account::{KeyState, TenantRule},
    claim::{ClaimContext, ClaimError},
    config::{EmailVerification, Secrets, SigningAlg},
    factor::danger::assert_proof,
    ident::{Email, Payload, Permission, Phone, Role, SessionHandle, TenantId, Timestamp, UserId},
    store::{AnyStore, Batch, Commit, Key, MemoryStore, Record, Row, Scan, Store, StoreError},
};

use crate::{
    spy::{ALICE, BOB, linking, refresh_token, shop, signed_up},
    support::{Browser, Mode, PASSWORD, START, TestApp, credentials, send},
};

const PUBLIC: TenantId = TenantId::PUBLIC;
const CAROL: &str = "carol@shop.example";
/// Nobody's password.
const HASH: &str =
    "$argon2id$v=19$m=8192,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$U3VwcG9zZSB0aGF0IHRoaXMgaXMgb25lLCB5ZXM";

fn address(email: &str) -> Value {
    json!({ "formFields": [{ "id": "email", "value": email }] })
}

/// As over a network: others run while it answers. It may keep the answer to one commit to itself.
#[derive(Clone, Debug)]
struct Remote {
    inner: AnyStore,
    keeps: Arc<AtomicBool>,
    release: Arc<Notify>,
}

impl Remote {
    fn new(inner: impl Store) -> Self {
        Self { inner: AnyStore::new(inner), keeps: Arc::default(), release: Arc::default() }
    }

    async fn way(&self) {
        for _ in 0..2 {
            tokio::task::yield_now().await;
        }
    }
}

impl Store for Remote {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.way().await;
        let rows = self.inner.get(keys).await;
        self.way().await;
        rows
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        self.way().await;
        self.inner.scan(scan).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        self.way().await;
        let commit = self.inner.commit(batch).await;
        self.way().await;
        if self.keeps.swap(false, Ordering::SeqCst) {
            self.release.notified().await;
        }
        commit
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.inner.sweep(before).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.inner.now().await
    }
}

struct Plan;

impl SessionClaim for Plan {
    const KEY: &'static str = "plan";
    type Value = String;

    async fn fetch(&self, _: &ClaimContext<'_>) -> Result<Option<String>, ClaimError> {
        Ok(Some("gold".to_owned()))
    }
}

/// Everything that something can be done to.
struct Scene {
    app: TestApp,
    alice: Browser,
    carol: Browser,
    /// The token of a link.
    mailed: String,
    user: UserId,
    handle: SessionHandle,
    kid: String,
    router: Router,
    flow: Value,
    code: String,
    north: TenantId,
    other: Email,
}

impl Scene {
    /// Carol, who has a password, and what was mailed to her, are there for those who need them: a password takes
    /// its time.
    async fn new(doing: &str) -> Self {
        let store = Remote::new(MemoryStore::new());
        let app = TestApp::on(shop(), Secrets::random().unwrap(), store, |b| {
            providers::third_party(b.signing(SigningAlg::EdDsa))
                .email_verification(EmailVerification::Optional)
        })
        .await;
        let mut alice = app.browser(Mode::Header);
        alice.by_code(ALICE).await;
        let flow = alice.ask_code(ALICE, true).await.ok();
        let code = app.code_after(ALICE, 1).await;
        let north = TenantId::parse("north").unwrap();
        app.mfa.tenants().create(&north, None).await.unwrap();
        let user = app.user(ALICE).await;
        app.mfa.roles().grant(&user, &PUBLIC, "editor").await.unwrap();
        app.mfa.factors().opt_in(&user, FactorId::OTP_EMAIL).await.unwrap();
        alice.refresh().await.is(200);
        let keys = app.mfa.keys().list().await.unwrap();
        let kid = keys.iter().find(|key| key.state == KeyState::Signing).unwrap().kid.clone();
        let handle = app.mfa.sessions().list(&user).await.unwrap().remove(0).handle;
        let mfa = app.mfa.clone();
        let inside = move |session: SessionExtractor, Path(what): Path<String>| {
            let mfa = mfa.clone();
            async move {
                let done = match what.as_str() {
                    "merge" => session.merge_payload(Payload::from_json(json!({ "note": 1 })).unwrap()).await,
                    "claim" => session.set_claim(&Plan, "gold".to_owned()).await,
                    "unclaim" => session.remove_claim(&Plan).await,
                    "revoke" => session.revoke().await,
                    "ended" => {
                        let _ = tokio::time::timeout(Duration::from_millis(1), session.ended()).await;
                        Ok(())
                    }
                    "complete" => {
                        let now = Timestamp::from_secs(START);
                        mfa.complete(&session, assert_proof(FactorId::OTP_EMAIL, &session, now)).await
                    }
                    "password" => {
                        let new = "another horse 2".to_owned();
                        mfa.users().change_password(&session, PASSWORD.to_owned(), new).await.map(drop)
                    }
                    "email" => {
                        let user = mfa.users().load(&session.user_id()).await.unwrap().unwrap();
                        let next = Email::parse("next@shop.example").unwrap();
                        let login = &user.logins[0].id;
                        mfa.users().change_email(&session, login, &next).await.map(drop)
                    }
                    "contacts" => mfa.users().masked_contacts(&session).await.map(drop),
                    "list" => mfa.sessions().list_own(&session).await.map(drop),
                    "own" => {
                        let other = "00000000-0000-4000-8000-000000000000".parse().unwrap();
                        mfa.sessions().revoke_own(&session, &other).await.map(drop)
                    }
                    "others" => mfa.sessions().revoke_others(&session).await,
                    _ => Ok(()),
                };
                done.map_or(StatusCode::SERVICE_UNAVAILABLE, |()| StatusCode::OK)
            }
        };
        let router = Router::new()
            .route("/in/{what}", get(inside.clone()))
            .layer(MfaLayer::required(app.mfa.clone()))
            .merge(
                Router::new()
                    .route("/exact/{what}", get(inside))
                    .layer(MfaLayer::required(app.mfa.clone()).check_store()),
            );
        let other = Email::parse("other@shop.example").unwrap();
        let mut carol = app.browser(Mode::Header);
        let mut mailed = String::new();
        let (resets, verifies) = (doing.contains("/reset"), doing.contains("/verify"));
        if resets {
            app.mfa
                .users()
                .import_password_hash(&PUBLIC, &Email::parse(CAROL).unwrap(), HASH.to_owned(), true)
                .await
                .unwrap();
        } else if verifies || doing.contains("change_") {
            carol.sign_up(CAROL).await.ok();
        }
        if doing.ends_with("/reset") {
            carol.post("/auth/user/password/reset/token", address(CAROL)).await.ok();
        } else if doing.ends_with("/verify") {
            carol.post("/auth/user/email/verify/token", json!({})).await.ok();
        }
        if doing.ends_with("/reset") || doing.ends_with("/verify") {
            let link = app.notice_after(CAROL, 0).await.link().unwrap().expose().clone();
            let token = link.split(['?', '&']).find_map(|part| part.strip_prefix("token="));
            mailed.push_str(token.unwrap());
        }
        // Messages that are on their way arrive first.
        tokio::time::sleep(Duration::from_millis(5)).await;
        Self { app, alice, carol, mailed, user, handle, kid, router, flow, code, north, other }
    }

    async fn over(&self, path: &str) {
        let request = self.alice.request(Method::GET, path, None);
        self.router.clone().oneshot(request).await.unwrap();
    }

    async fn signs_in(&self) {
        let (parts, ()) = http::Request::post("/login").body(()).unwrap().into_parts();
        let own = UserId::parse("1").unwrap();
        let _ = self.app.mfa.sign_in(&parts, &own, &PUBLIC, FactorId::OTP_EMAIL).await;
    }

    async fn signs_out(&self) {
        let (parts, _) = self.alice.request(Method::POST, "/logout", None).into_parts();
        let _ = self.app.mfa.sign_out(&parts).await;
    }

    async fn carol_over(&self, path: &str) {
        let request = self.carol.request(Method::GET, path, None);
        self.router.clone().oneshot(request).await.unwrap();
    }

    async fn carol_asks(&self, method: Method, path: &str, body: Value) {
        self.carol.clone().call(method, path, Some(body)).await;
    }

    /// What the page of a link posts.
    fn opened(&self) -> Value {
        let fields = json!([{ "id": "password", "value": "another horse 2" }]);
        json!({ "method": "token", "token": self.mailed, "formFields": fields })
    }

    async fn asks(&self, method: Method, path: &str, body: Value) {
        self.alice.clone().call(method, path, Some(body)).await;
    }

    fn guess(&self) -> Value {
        json!({
            "deviceId": self.flow["deviceId"],
            "preAuthSessionId": self.flow["preAuthSessionId"],
            "userInputCode": self.code,
            "shouldTryLinkingWithSessionUser": true,
        })
    }

    /// What was written from a moment on: of each batch the kinds of records. Messages go out by themselves.
    async fn sms_failed(&self) -> Result<(), tower_mfa::Error> {
        let status = crate::support::failed_sms();
        self.app.mfa.sms_status(&status).await
    }

    fn wrote(&self, from: usize) -> Vec<Vec<String>> {
        let kind = |key: &Key| -> String {
            let is_name =
                |part: &&str| part.len() <= 16 && part.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            key.as_str()
                .split('/')
                .map(|part| if is_name(&part) { part } else { "*" })
                .collect::<Vec<_>>()
                .join("/")
        };
        let batches = self.app.store.written(from).into_iter().map(|keys| {
            let mut kinds: Vec<String> = keys.iter().map(kind).collect();
            kinds.sort();
            // Two subjects' changes may be in one lane.
            kinds.dedup();
            kinds
        });
        // Sending is the queue's own, at its own time.
        let own = |kind: &String| kind.starts_with("queue/") || kind.starts_with("op/");
        batches.filter(|kinds| !kinds.iter().all(own)).collect()
    }
}

#[cfg(all(feature = "third-party", feature = "http-client"))]
mod providers {
    use http::Method;
    use serde_json::json;
    use tower_mfa::{MfaBuilder, factor::Provider, factor::ProviderClient};

    use super::Scene;
    use crate::support::provider::{CALLBACK, at_once, returned};

    pub(super) fn third_party(builder: MfaBuilder) -> MfaBuilder {
        builder.third_party(at_once())
    }

    pub(super) async fn providers(s: &Scene) {
        s.app.mfa.tenants().providers(&s.north).await.unwrap();
    }

    pub(super) async fn set_providers(s: &Scene) {
        let own = Provider::google(ProviderClient::public("north"));
        s.app.mfa.tenants().set_providers(&s.north, Some(vec![own])).await.unwrap();
    }

    pub(super) async fn begin(s: &Scene) {
        let query = format!("thirdPartyId=loopback&redirectURIOnProviderDashboard={CALLBACK}");
        s.asks(Method::GET, &format!("/auth/authorisationurl?{query}"), json!({})).await;
    }

    pub(super) async fn end(s: &Scene) {
        s.asks(Method::POST, "/auth/signinup", returned(&json!({}), json!({ "code": "c" }))).await;
    }
}

#[cfg(not(all(feature = "third-party", feature = "http-client")))]
mod providers {
    use super::Scene;

    pub(super) fn third_party(builder: tower_mfa::MfaBuilder) -> tower_mfa::MfaBuilder {
        builder
    }

    pub(super) async fn providers(_: &Scene) {}
    pub(super) async fn set_providers(_: &Scene) {}
    pub(super) async fn begin(_: &Scene) {}
    pub(super) async fn end(_: &Scene) {}
}

type Work<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;
type Doing = fn(&Scene) -> Work<'_>;

/// Every asynchronous function that the crate offers, and its routes.
fn everything() -> Vec<(&'static str, Doing)> {
    macro_rules! list {
        ($($name:literal: |$scene:ident| $work:expr;)*) => {
            vec![$(($name, {
                fn run($scene: &Scene) -> Work<'_> {
                    Box::pin(async move { let _ = $work.await; })
                }
                run as Doing
            })),*]
        };
    }
    list! {
        "Users::load": |s| s.app.mfa.users().load(&s.user);
        "Users::by_email": |s| s.app.mfa.users().by_email(&PUBLIC, &s.other);
        "Users::create": |s| s.app.mfa.users().create(&PUBLIC, &s.other);
        "Users::add_email": |s| s.app.mfa.users().add_email(&s.user, &PUBLIC, &s.other);
        "Users::by_phone": |s| s.app.mfa.users().by_phone(&PUBLIC, &Phone::parse("+36301111111").unwrap());
        "Users::add_phone":
            |s| s.app.mfa.users().add_phone(&s.user, &PUBLIC, &Phone::parse("+36301111111").unwrap());
        "Users::masked_contacts": |s| s.over("/in/contacts");
        "Users::add_to_tenants": |s| s.app.mfa.users().add_to_tenants(&s.user, [s.north.clone()]);
        "Users::remove_login": |s| async {
            let user = s.app.mfa.users().load(&s.user).await.unwrap().unwrap();
            s.app.mfa.users().remove_login(&s.user, &user.logins[0].id).await
        };
        "Users::disable": |s| s.app.mfa.users().disable(&s.user);
        "Users::enable": |s| s.app.mfa.users().enable(&s.user);
        "Users::remove_from_tenant": |s| s.app.mfa.users().remove_from_tenant(&s.user, &PUBLIC);
        "Users::delete": |s| s.app.mfa.users().delete(&s.user);
        "Users::change_password": |s| s.carol_over("/in/password");
        "Users::change_email": |s| s.carol_over("/in/email");
        "Users::import_password_hash": |s| async {
            s.app.mfa.users().import_password_hash(&PUBLIC, &s.other, HASH.to_owned(), true).await
        };
        "Users::judge_anew": |s| s.app.mfa.users().judge_anew(&s.user);
        "Sessions::list": |s| s.app.mfa.sessions().list(&s.user);
        "Sessions::list_own": |s| s.over("/in/list");
        "Sessions::revoke": |s| s.app.mfa.sessions().revoke(&s.handle);
        "Sessions::revoke_user": |s| s.app.mfa.sessions().revoke_user(&s.user);
        "Sessions::revoke_all": |s| s.app.mfa.sessions().revoke_all();
        "Sessions::merge_payload":
            |s| s.app.mfa.sessions().merge_payload(&s.handle, Payload::from_json(json!({ "a": 1 })).unwrap());
        "Sessions::revoke_others": |s| s.over("/in/others");
        "Sessions::revoke_own": |s| s.over("/in/own");
        "SessionsIn::list": |s| s.app.mfa.sessions().within(&PUBLIC).list(&s.user);
        "SessionsIn::revoke": |s| s.app.mfa.sessions().within(&PUBLIC).revoke(&s.handle);
        "SessionsIn::revoke_user": |s| s.app.mfa.sessions().within(&PUBLIC).revoke_user(&s.user);
        "SessionsIn::revoke_all": |s| s.app.mfa.sessions().within(&PUBLIC).revoke_all();
        "Tenants::load": |s| s.app.mfa.tenants().load(&s.north);
        "Tenants::list": |s| s.app.mfa.tenants().list();
        "Tenants::create": |s| async { s.app.mfa.tenants().create(&TenantId::parse("south").unwrap(), None).await };
        "Tenants::set_first_factors": |s| s.app.mfa.tenants().set_first_factors(&s.north, Some(vec![FactorId::PASSWORD]));
        "Tenants::require": |s| s.app.mfa.tenants().require(&s.north, [FactorId::OTP_EMAIL]);
        "Tenants::set_rule": |s| s.app.mfa.tenants().set_rule(&s.north, TenantRule::require([FactorId::OTP_EMAIL]));
        "Tenants::disable": |s| s.app.mfa.tenants().disable(&s.north);
        "Tenants::enable": |s| s.app.mfa.tenants().enable(&s.north);
        "Tenants::delete": |s| s.app.mfa.tenants().delete(&s.north);
        "MetadataOf::of": |s| s.app.mfa.metadata().of(&s.user);
        "MetadataOf::merge": |s| s.app.mfa.metadata().merge(&s.user, json!({ "a": 1 }).as_object().unwrap().clone());
        "MetadataOf::edit": |s| s.app.mfa.metadata().edit(&s.user, |all| { all.insert("a".into(), json!(2)); });
        "RolesOf::allow": |s| s.app.mfa.roles().allow(&Role::admin(), [Permission::parse("a").unwrap()]);
        "RolesOf::allowed": |s| s.app.mfa.roles().allowed(&Role::admin());
        "RolesOf::list": |s| s.app.mfa.roles().list();
        "Tenants::providers": |s| providers::providers(s);
        "Tenants::set_providers": |s| providers::set_providers(s);
        "RolesOf::of": |s| s.app.mfa.roles().of(&s.user, &PUBLIC);
        "RolesOf::grant": |s| s.app.mfa.roles().grant(&s.user, &PUBLIC, "admin");
        "RolesOf::revoke": |s| s.app.mfa.roles().revoke(&s.user, &PUBLIC, "editor");
        "RolesOf::set": |s| s.app.mfa.roles().set(&s.user, &PUBLIC, []);
        "FactorsOf::required_for": |s| s.app.mfa.factors().required_for(&s.user);
        "FactorsOf::required_in": |s| s.app.mfa.factors().required_in(&s.user, &s.north);
        "FactorsOf::opt_in_within": |s| s.app.mfa.factors().opt_in_within(&s.user, &s.north, FactorId::TOTP);
        "FactorsOf::opt_out_within": |s| s.app.mfa.factors().opt_out_within(&s.user, &PUBLIC, FactorId::OTP_EMAIL);
        "FactorsOf::opt_in": |s| s.app.mfa.factors().opt_in(&s.user, FactorId::TOTP);
        "FactorsOf::opt_out": |s| s.app.mfa.factors().opt_out(&s.user, FactorId::OTP_EMAIL);
        "FactorsOf::unblock": |s| s.app.mfa.factors().unblock(&s.user, &FactorId::OTP_EMAIL);
        "Sends::stopped": |s| s.app.mfa.sends().stopped();
        "Sends::resume": |s| s.app.mfa.sends().resume("HU");
        "Keys::list": |s| s.app.mfa.keys().list();
        "Keys::revoked": |s| s.app.mfa.keys().revoked();
        "Keys::rotate": |s| s.app.mfa.keys().rotate();
        "Keys::revoke": |s| s.app.mfa.keys().revoke(&s.kid);
        "Mfa::complete": |s| s.over("/in/complete");
        "Mfa::sign_in": |s| s.signs_in();
        "Mfa::sign_out": |s| s.signs_out();
        "Mfa::audit_trail": |s| s.app.mfa.audit_trail(Timestamp::EPOCH);
        "Mfa::sms_status": |s| s.sms_failed();
        "Mfa::shutdown": |s| s.app.mfa.shutdown();
        "Session::merge_payload": |s| s.over("/in/merge");
        "Session::set_claim": |s| s.over("/in/claim");
        "Session::remove_claim": |s| s.over("/exact/unclaim");
        "Session::revoke": |s| s.over("/in/revoke");
        "Session::ended": |s| s.over("/in/ended");
        "MfaLayer": |s| s.over("/exact/nothing");
        "POST /session/refresh": |s| s.asks(Method::POST, "/auth/session/refresh", json!({}));
        "POST /signout": |s| s.asks(Method::POST, "/auth/signout", json!({}));
        "PUT /mfa/info": |s| s.asks(Method::PUT, "/auth/mfa/info", json!({}));
        "POST /signinup/code": |s| s.asks(Method::POST, "/auth/signinup/code", json!({ "email": BOB }));
        "POST /signinup/code/resend": |s| s.asks(Method::POST, "/auth/signinup/code/resend", s.guess());
        "POST /signinup/code/consume": |s| s.asks(Method::POST, "/auth/signinup/code/consume", s.guess());
        "POST /signup": |s| s.asks(Method::POST, "/auth/signup", credentials(BOB, PASSWORD));
        "POST /user/password/reset/token": |s| s.asks(
            Method::POST,
            "/auth/user/password/reset/token",
            address(CAROL),
        );
        "POST /user/password/reset": |s| s.carol_asks(Method::POST, "/auth/user/password/reset", s.opened());
        "POST /user/email/verify/token": |s| s.carol_asks(Method::POST, "/auth/user/email/verify/token", json!({}));
        "POST /user/email/verify": |s| s.carol_asks(Method::POST, "/auth/user/email/verify", s.opened());
        "GET /user/email/verify": |s| s.carol_asks(Method::GET, "/auth/user/email/verify", json!({}));
        "POST /signin": |s| s.asks(Method::POST, "/auth/signin", credentials(ALICE, PASSWORD));
        "GET /authorisationurl": |s| providers::begin(s);
        "POST /signinup": |s| providers::end(s);
        "GET /loginmethods": |s| s.asks(Method::GET, "/auth/loginmethods", json!({}));
        "GET /jwt/jwks.json": |s| s.asks(Method::GET, "/auth/jwt/jwks.json", json!({}));
    }
}

/// Asks so many times, with others running in between, then leaves. Says how often it took to the end.
async fn asked(work: &mut Work<'_>, times: usize) -> Option<usize> {
    let mut cx = Context::from_waker(Waker::noop());
    for n in 1..=times {
        if let Poll::Ready(()) = work.as_mut().poll(&mut cx) {
            return Some(n);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test]
async fn sec_m12_whoever_leaves_at_whatever_moment_leaves_nothing_half_done() {
    // Beyond this only a password's hash is waited for.
    const MOST: usize = 60;
    let (mut moments, mut whole) = (0, 0);
    for (name, run) in everything() {
        let scene = Scene::new(name).await;
        let from = scene.app.store.written(0).len();
        let mut work = run(&scene);
        let polls = asked(&mut work, usize::MAX).await.unwrap();
        drop(work);
        let done = scene.wrote(from);
        for times in 0..polls.min(MOST) {
            let scene = Scene::new(name).await;
            let from = scene.app.store.written(0).len();
            let mut work = run(&scene);
            // What waits for the clock may end sooner than the first time.
            if asked(&mut work, times).await.is_some() {
                break;
            }
            drop(work);
            // What is under way comes to its end, or never began.
            scene.app.mfa.shutdown().await;
            let wrote = scene.wrote(from);
            assert!(
                wrote.is_empty() || wrote == done,
                "{name} left after {times} of {polls}:\n{wrote:?}\n{done:?}"
            );
            moments += 1;
            whole += usize::from(!wrote.is_empty());
            // And this process knows what it wrote.
            let ends = ["Sessions::revoke", "Sessions::revoke_user", "Sessions::revoke_all", "Users::delete"];
            if ends.contains(&name) || name == "Session::revoke" || name == "POST /signout" {
                let answer = scene.alice.clone().get("/api/me").await;
                answer.is(if wrote.is_empty() { 200 } else { 401 });
            }
        }
    }
    assert!(moments > 300 && whole > 150, "{moments} {whole}");
}

/// Every public `async fn` of the crate's is in the list above; those of stores have a suite of their own.
#[test]
fn sec_m12_no_function_is_left_out() {
    let listed = include_str!("leaving.rs");
    let mut missing = Vec::new();
    let mut count = 0;
    let source = [
        ("Users", include_str!("../../src/engine/users.rs")),
        ("Users", include_str!("../../src/engine/credentials.rs")),
        ("Sessions", include_str!("../../src/engine/sessions.rs")),
        ("Tenants", include_str!("../../src/engine/tenants.rs")),
        ("RolesOf", include_str!("../../src/engine/roles.rs")),
        ("FactorsOf", include_str!("../../src/engine/factors.rs")),
        ("Sends", include_str!("../../src/engine/sends.rs")),
        ("Keys", include_str!("../../src/engine/keys.rs")),
        ("Mfa", include_str!("../../src/engine.rs")),
        ("Session", include_str!("../../src/session/mod.rs")),
    ];
    for (of, text) in source {
        for rest in text.split("pub async fn ").skip(1) {
            let name = rest.split(['(', '<']).next().unwrap();
            count += 1;
            if !listed.contains(&format!("\"{of}::{name}\"")) {
                missing.push(format!("{of}::{name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
    assert!(count > 30);
}

#[tokio::test]
async fn sec_m13_a_handler_that_panics_takes_nothing_with_it() {
    let app = TestApp::new().await;
    for mode in [Mode::Cookie, Mode::Header] {
        let email = if mode == Mode::Cookie { ALICE } else { BOB };
        let mut alice = signed_up(&app, mode, email).await;
        let panics = |session: SessionExtractor, Path(n): Path<u32>| async move {
            // It holds on to the session, and has written something.
            let held = session.clone();
            let update = Payload::from_json(json!({ "round": n })).unwrap();
            session.merge_payload(update).await.unwrap();
            assert!(held.payload().members().count() > 100, "told to panic");
        };
        let router: Router = Router::new()
            .route("/panic/{n}", get(panics))
            .route("/fine", get(|_: SessionExtractor| async {}))
            .layer(MfaLayer::required(app.mfa.clone()))
            .layer(MfaLayer::optional(app.mfa.clone()));
        // The feed is read by the clock, whatever else happens.
        let counters = || {
            let mut counters = app.mfa.counters();
            counters.feed_reads = 0;
            counters
        };
        let before = counters();
        for n in 0..50 {
            let (mount, request) = (router.clone(), alice.request(Method::GET, &format!("/panic/{n}"), None));
            let connection = tokio::spawn(async move { send(&mount, request).await });
            assert!(connection.await.unwrap_err().is_panic());
            send(&router, alice.request(Method::GET, "/fine", None)).await.is(200);
        }
        assert_eq!(counters(), before);
        // What was committed stays, though nobody was told.
        alice.refresh().await.is(200);
        assert_eq!(alice.payload("round"), json!(49));
        alice.pass_code(email).await;
        assert!(app.store.audited().await.contains(&"factor-linked".to_owned()));
    }
}

#[tokio::test]
async fn sec_m16_one_worker_serves_others_while_a_hundred_sign_in() {
    #[cfg(feature = "sqlite")]
    let dir = tempfile::tempdir().unwrap();
    #[cfg(feature = "sqlite")]
    let store = tower_mfa::store::SqliteStore::open(dir.path().join("db")).await.unwrap();
    #[cfg(not(feature = "sqlite"))]
    let store = MemoryStore::new();
    let app = TestApp::on(shop(), Secrets::random().unwrap(), store, |b| b).await;
    signed_up(&app, Mode::Header, ALICE).await;
    let health: Router =
        Router::new().route("/health", get(|| async {})).layer(MfaLayer::optional(app.mfa.clone()));
    let mut slowest = Vec::new();
    // A machine that is busy with other things gets another chance.
    for _ in 0..4 {
        let hashes = app.mfa.counters().password_hashes;
        let sign_ins: Vec<_> = (0..100)
            .map(|_| {
                let mut browser = app.browser(Mode::Header);
                tokio::spawn(async move {
                    // Who finds the queue full comes again.
                    while browser.sign_in(ALICE).await.status != 200 {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                })
            })
            .collect();
        let mut waits = Vec::new();
        while sign_ins.iter().any(|sign_in| !sign_in.is_finished()) {
            let router = health.clone();
            tokio::time::sleep(Duration::from_millis(2)).await;
            let start = Instant::now();
            let asked = tokio::spawn(async move { send(&router, crate::spy::bare("GET", "/health")).await });
            asked.await.unwrap().is(200);
            waits.push(start.elapsed());
        }
        for sign_in in sign_ins {
            sign_in.await.unwrap();
        }
        assert!(app.mfa.counters().password_hashes >= hashes + 100);
        assert!(waits.len() > 20, "{}", waits.len());
        waits.sort();
        // One in fifty may be the machine's.
        slowest.push(waits[waits.len() * 49 / 50]);
        if slowest.last().is_some_and(|wait| *wait < Duration::from_millis(50)) {
            return;
        }
    }
    panic!("others wait: {slowest:?}");
}

/// The 19 MiB that a hash works on are never the worker's own.
#[test]
fn sec_m16_no_hash_is_computed_on_the_worker() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut hashes = 0;
    let used = allocation_counter::measure(|| {
        hashes = runtime.block_on(async {
            let app = TestApp::new().await;
            signed_up(&app, Mode::Header, ALICE).await;
            let sign_ins = (0..16).map(|_| async { app.browser(Mode::Header).sign_in(ALICE).await.ok() });
            futures_util::future::join_all(sign_ins).await;
            app.mfa.counters().password_hashes
        });
    });
    assert_eq!(hashes, 17);
    assert!(used.bytes_max < 16 * 1024 * 1024, "{used:?}");
}

#[tokio::test(start_paused = true)]
async fn sec_m18_an_answer_that_an_outer_timeout_cuts_off_is_a_lost_one() {
    for mode in [Mode::Cookie, Mode::Header] {
        let store = Remote::new(MemoryStore::new());
        let secrets = Secrets::random().unwrap();
        let app = TestApp::on(shop(), secrets, store.clone(), |b| b).await;
        let mut alice = app.browser(mode);
        alice.by_code(ALICE).await;
        let second = Duration::from_secs(1);
        // A refresh: written, and not told.
        let before = alice.clone();
        store.keeps.store(true, Ordering::SeqCst);
        tokio::time::timeout(second, before.clone().refresh()).await.unwrap_err();
        assert!(!store.keeps.load(Ordering::SeqCst), "it was committed");
        store.release.notify_one();
        app.clock.advance(Duration::from_secs(29));
        let (mut one, mut other) = (before.clone(), before.clone());
        let hits = app.mfa.counters().refresh_grace_hits;
        one.refresh().await.is(200);
        other.refresh().await.is(200);
        assert_eq!(refresh_token(&one), refresh_token(&other), "the successor that was written");
        assert_ne!(refresh_token(&one), refresh_token(&before));
        assert_eq!(app.mfa.counters().refresh_grace_hits, hits + 2);
        one.refresh().await.is(200);
        assert!(!app.store.audited().await.contains(&"refresh-reuse".to_owned()));
        // Afterwards it is what reuse always is.
        app.clock.advance(Duration::from_secs(31));
        assert_eq!(before.clone().refresh().await.body["message"], "token theft detected");

        // A token that was made for a plain request: the next one makes another.
        let mut alice = app.browser(mode);
        alice.by_code(ALICE).await;
        app.mfa.users().judge_anew(&app.user(ALICE).await).await.unwrap();
        store.keeps.store(true, Ordering::SeqCst);
        tokio::time::timeout(second, alice.clone().get("/api/me")).await.unwrap_err();
        store.release.notify_one();
        alice.get("/api/me").await.is(200);
        alice.refresh().await.is(200);

        // A completion: done again from the same access token it gives the tokens that were written.
        let sent = app.sent_to(ALICE);
        let flow = alice.ask_code(ALICE, true).await.ok();
        let code = app.code_after(ALICE, sent).await;
        let before = alice.clone();
        let again = linking(credentials(ALICE, PASSWORD)).unwrap();
        store.keeps.store(true, Ordering::SeqCst);
        tokio::time::timeout(second, before.clone().post("/auth/signup", again)).await.unwrap_err();
        store.release.notify_one();
        assert_eq!(before.clone().refresh().await.status, 409, "superseded, not stolen");
        let mut before = before;
        before.enter(&flow, &code, true).await.ok();
        assert!(before.claim()["c"]["emailpassword"].is_number(), "{}", before.claim());
        before.refresh().await.is(200);
        before.get("/api/me").await.is(200);
    }
}
