//! What becomes of login methods that are proved: they join the session's user, or an account of the same address, or
//! neither. Rows L01, L09, L10, L11 and L13.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, header};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tower_mfa::{
    FactorId, MfaBuilder,
    account::User,
    config::{Countries, EmailVerification, FactorChanges, HttpClient, Passwordless, Secrets},
    factor::{OAuth2Endpoints, Provider, ProviderClient, ThirdParty},
    ident::{BoxError, Email, Secret, TenantId, Timestamp, UserId},
    policy::{Link, LinkContext, LinkPolicy, PolicyError, SecondFactorsOnly},
    store::{AnyStore, Batch, Commit, Key, MemoryStore, Record, Row, Scan, Store, StoreError},
};

use crate::{
    spy::{ALICE, BOB, NUMBER, handle, linking, shop},
    support::{Answer, Browser, Mode, PASSWORD, TestApp, credentials, provider::returned},
};

const PUBLIC: TenantId = TenantId::PUBLIC;
const MALLORY: &str = "mallory@shop.example";

/// Second factors, and one account for one address.
struct OneAccount(Link);

impl LinkPolicy for OneAccount {
    async fn decide(&self, ctx: &LinkContext<'_>) -> Result<Link, PolicyError> {
        match (ctx.session_user, ctx.joins) {
            (None, Some(_)) => Ok(self.0),
            _ => SecondFactorsOnly::new().decide(ctx).await,
        }
    }
}

/// Whatever is asked, it is linked, proved or not.
pub(crate) struct Always;

impl LinkPolicy for Always {
    async fn decide(&self, _: &LinkContext<'_>) -> Result<Link, PolicyError> {
        Ok(Link::Yes)
    }
}

/// A provider whose codes are the names of who comes, and what it says of each.
#[derive(Clone)]
pub(crate) struct Says(Arc<Mutex<BTreeMap<String, Value>>>);

impl Says {
    pub(crate) fn new() -> Self {
        let alice = json!({ "email": ALICE, "email_verified": true });
        let mallory = json!({ "email": ALICE, "email_verified": false });
        let all = [("alice", alice), ("mallory", mallory)].map(|(who, said)| (who.to_owned(), said));
        Self(Arc::new(Mutex::new(BTreeMap::from(all))))
    }

    pub(crate) fn set(&self, who: &str, said: Value) {
        self.0.lock().unwrap().insert(who.to_owned(), said);
    }

    pub(crate) fn settings(&self) -> ThirdParty {
        let at = |path: &str| format!("https://id.example/{path}");
        let endpoints = OAuth2Endpoints::new(at("authorise"), at("token"), at("user"));
        let client = ProviderClient::new("shop", Secret::new("s".to_owned()));
        ThirdParty::new(self.clone())
            .provider(Provider::oauth2("loopback", "Loopback", endpoints, client).without_email())
    }
}

impl HttpClient for Says {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, BoxError> {
        tokio::task::yield_now().await;
        let body = if request.uri().path() == "/token" {
            let form = String::from_utf8(request.body().to_vec())?;
            let code = form.split('&').find_map(|pair| pair.strip_prefix("code=")).unwrap();
            json!({ "access_token": code, "token_type": "Bearer" })
        } else {
            let who = request.headers()[header::AUTHORIZATION].to_str()?.split(' ').nth(1).unwrap();
            let mut said = self.0.lock().unwrap()[who].clone();
            said["sub"] = json!(who);
            said
        };
        Ok(Response::new(Bytes::from(body.to_string())))
    }
}

/// An app of codes, passwords and that provider, which asks for no second factor.
async fn app(policy: impl LinkPolicy, says: &Says) -> TestApp {
    TestApp::with(|b| settings(b, says).linking(policy)).await
}

fn settings(builder: MfaBuilder, says: &Says) -> MfaBuilder {
    builder
        .passwordless(Passwordless::email_or_phone(Countries::all()))
        .third_party(says.settings())
        .factor_changes(FactorChanges::Compat)
}

/// Somebody comes back from the provider.
pub(crate) async fn by_provider(browser: &mut Browser, who: &str, linked: bool) -> Answer {
    let mut body = returned(&json!({}), json!({ "code": who }));
    body["shouldTryLinkingWithSessionUser"] = json!(linked);
    browser.post("/auth/signinup", body).await
}

fn id(body: &Value) -> UserId {
    UserId::parse(body["user"]["id"].as_str().unwrap()).unwrap()
}

fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

#[track_caller]
fn refused(answer: &Answer, status: &str, code: &str) {
    answer.status(status);
    let reason = answer.body["reason"].as_str().unwrap();
    assert!(reason.ends_with(&format!("(ERR_CODE_{code})")), "{reason}");
    assert!(!answer.headers.contains_key("st-access-token"), "no session");
}

async fn load(app: &TestApp, id: &UserId) -> User {
    app.mfa.users().load(id).await.unwrap().unwrap()
}

async fn has_address(app: &TestApp, address: &str) -> Vec<User> {
    app.mfa.users().by_email(&PUBLIC, &email(address)).await.unwrap()
}

#[tokio::test]
async fn one_account_for_a_proved_address() {
    let app = app(OneAccount(Link::IfVerified), &Says::new()).await;
    let mut first = app.browser(Mode::Header);
    let alice = id(&first.by_code(ALICE).await);
    let told = app.outbox.messages().len();
    let mut second = app.browser(Mode::Header);
    let body = by_provider(&mut second, "alice", false).await.ok();
    assert_eq!((id(&body), &body["createdNewRecipeUser"]), (alice.clone(), &json!(true)));
    assert_eq!(body["user"]["loginMethods"].as_array().unwrap().len(), 2);
    assert_eq!(
        second.claim(),
        json!({ "c": { "thirdparty": second.claim()["c"]["thirdparty"] }, "v": true })
    );
    second.get("/api/me").await.is(200);
    second.refresh().await.is(200);
    // What one signs in with has changed: every session of before is over, and the mailbox is told (row S09).
    first.get("/api/me").await.is(401);
    for _ in 0..2000 {
        if app.outbox.messages().len() > told {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert_eq!(app.outbox.messages().len(), told + 1);
    // From then on either is the one account, and nothing is added.
    assert_eq!(id(&by_provider(&mut app.browser(Mode::Header), "alice", false).await.ok()), alice);
    assert_eq!(id(&app.browser(Mode::Header).by_code(ALICE).await), alice);
    assert_eq!(load(&app, &alice).await.logins.len(), 2);
    // A password for that address proves nothing.
    refused(&app.browser(Mode::Header).sign_up(ALICE).await, "SIGN_UP_NOT_ALLOWED", "007");
    app.store.check_users().await;
}

/// An app's rule comes later than its users.
#[tokio::test]
async fn accounts_from_before_become_one_and_what_was_the_others_goes() {
    let (store, secrets, says) = (MemoryStore::new(), Secrets::random().unwrap(), Says::new());
    let before = TestApp::on(shop(), secrets.clone(), store.clone(), |b| settings(b, &says)).await;
    let alice = id(&before.browser(Mode::Header).by_code(ALICE).await);
    before.clock.advance(std::time::Duration::from_secs(60));
    let mut old = before.browser(Mode::Header);
    let other = id(&by_provider(&mut old, "alice", false).await.ok());
    assert_ne!(alice, other);
    before.mfa.roles().grant(&other, &PUBLIC, "editor").await.unwrap();
    let noted = json!({ "plan": "gold" }).as_object().unwrap().clone();
    before.mfa.metadata().merge(&other, noted).await.unwrap();
    before.mfa.factors().opt_in(&other, FactorId::OTP_EMAIL).await.unwrap();
    let clock = before.clock.clone();
    let after = TestApp::on(shop(), secrets.clone(), before.store.clone(), |b| {
        settings(b, &says).linking(OneAccount(Link::IfVerified)).clock(clock.clone())
    })
    .await;
    // Who was there first stays who they are.
    assert_eq!(id(&after.browser(Mode::Header).by_code(ALICE).await), alice);
    assert!(after.mfa.users().load(&other).await.unwrap().is_some());
    let body = by_provider(&mut after.browser(Mode::Header), "alice", false).await.ok();
    assert_eq!((id(&body), &body["createdNewRecipeUser"]), (alice.clone(), &json!(false)));
    assert_eq!(body["user"]["loginMethods"].as_array().unwrap().len(), 2);
    // Nothing of the other account is left but its login method: whom the app asks about it finds nobody.
    old.at(&after).refresh().await.is(401);
    assert!(after.mfa.users().load(&other).await.unwrap().is_none());
    for (key, row) in before.store.dump().await {
        let is_kept = ["epoch/", "audit/", "change"].iter().any(|kept| key.as_str().starts_with(kept));
        let text = format!("{} {}", key.as_str(), row.body);
        // Its login method was named after it.
        let text =
            text.replace(&format!("\"login\":\"{other}\""), "").replace(&format!("login-of/{other}"), "");
        let text =
            text.replace(&format!("\"id\":\"{other}\""), "").replace(&format!("\"user\":\"{alice}\""), "");
        assert!(is_kept || !text.contains(other.as_str()), "{text}");
    }
    assert!(before.store.audited().await.iter().any(|what| what == "user-absorbed"));
    before.store.check_users().await;
}

#[tokio::test]
async fn sec_l01_an_address_that_one_side_did_not_prove_is_refused() {
    for answer in [Link::IfVerified, Link::Yes] {
        let says = Says::new();
        let app = app(OneAccount(answer), &says).await;
        // Classic–federated merge: Mallory was there before Alice, with a password for her address.
        let mut mallory = app.browser(Mode::Header);
        let squatter = id(&mallory.sign_up(ALICE).await.ok());
        let mut alice = app.browser(Mode::Header);
        refused(&by_provider(&mut alice, "alice", false).await, "SIGN_IN_UP_NOT_ALLOWED", "006");
        let seen = app.sent_to(ALICE);
        let flow = alice.ask_code(ALICE, false).await.ok();
        let code = app.code_after(ALICE, seen).await;
        refused(&alice.enter(&flow, &code, false).await, "SIGN_IN_UP_NOT_ALLOWED", "002");
        // It was right, and so it is used up.
        alice.enter(&flow, &code, false).await.status("RESTART_FLOW_ERROR");
        assert_eq!(load(&app, &squatter).await.logins.len(), 1);
        assert_eq!(has_address(&app, ALICE).await.len(), 1);
        // And the other way round: a provider that proves nothing gives nobody Bob's account.
        let bob = id(&app.browser(Mode::Header).by_code(BOB).await);
        says.set("mallory", json!({ "email": BOB, "email_verified": false }));
        let alone = by_provider(&mut app.browser(Mode::Header), "mallory", false).await.ok();
        assert_ne!(id(&alone), bob);
        assert_eq!(load(&app, &bob).await.logins.len(), 1);
        // Once Bob is primary, it gives them nothing at all.
        let mut at_bobs = app.browser(Mode::Header);
        at_bobs.by_code(BOB).await;
        at_bobs.pass_code(NUMBER).await;
        says.set("other", json!({ "email": BOB, "email_verified": "true" }));
        refused(
            &by_provider(&mut app.browser(Mode::Header), "other", false).await,
            "SIGN_IN_UP_NOT_ALLOWED",
            "006",
        );
        refused(
            &by_provider(&mut app.browser(Mode::Header), "mallory", false).await,
            "SIGN_IN_UP_NOT_ALLOWED",
            "004",
        );
        assert_eq!(load(&app, &bob).await.logins.len(), 2);
        app.store.check_users().await;
    }
}

/// Of an address that two have, and neither proved by a password, the one who is let in is who proved theirs.
#[tokio::test]
async fn an_unproved_password_signs_in_no_more_once_the_address_is_somebodys() {
    let (store, secrets, says) = (MemoryStore::new(), Secrets::random().unwrap(), Says::new());
    let before = TestApp::on(shop(), secrets.clone(), store.clone(), |b| settings(b, &says)).await;
    before.browser(Mode::Header).sign_up(ALICE).await.ok();
    by_provider(&mut before.browser(Mode::Header), "mallory", false).await.ok();
    let node = async |policy: OneAccount| {
        TestApp::on(shop(), secrets.clone(), store.clone(), |b| settings(b, &says).linking(policy)).await
    };
    let after = node(OneAccount(Link::IfVerified)).await;
    refused(&after.browser(Mode::Header).sign_in(ALICE).await, "SIGN_IN_NOT_ALLOWED", "008");
    // Where the app joins nothing, nothing is refused either.
    node(OneAccount(Link::No)).await.browser(Mode::Header).sign_in(ALICE).await.ok();
}

/// What somebody does who wants Alice's account, and what Alice does.
#[derive(Clone, Copy, Debug)]
enum Step {
    MalloryProvider,
    MalloryPassword,
    AliceCode,
    AliceProvider,
    /// Alice's own session gets a number.
    AliceNumber,
}

#[test]
fn sec_l01_no_account_is_ever_alices_and_mallorys() {
    use Step::{AliceCode, AliceNumber, AliceProvider, MalloryPassword, MalloryProvider};
    let step = prop_oneof![
        3 => Just(MalloryProvider),
        1 => Just(MalloryPassword),
        3 => Just(AliceCode),
        3 => Just(AliceProvider),
        1 => Just(AliceNumber),
    ];
    let answer = prop_oneof![Just(Link::No), Just(Link::IfVerified), Just(Link::Yes)];
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = |(answer, steps): (Link, Vec<Step>)| {
        runtime.block_on(async {
            let app = app(OneAccount(answer), &Says::new()).await;
            for step in steps {
                let mut browser = app.browser(Mode::Header);
                let answer = match step {
                    MalloryProvider => by_provider(&mut browser, "mallory", false).await,
                    MalloryPassword => browser.sign_up(ALICE).await,
                    AliceProvider => by_provider(&mut browser, "alice", false).await,
                    AliceCode | AliceNumber => {
                        let seen = app.sent_to(ALICE);
                        let flow = browser.ask_code(ALICE, false).await.ok();
                        let code = app.code_after(ALICE, seen).await;
                        browser.enter(&flow, &code, false).await
                    }
                };
                if matches!(step, AliceNumber) && answer.body["status"] == "OK" {
                    browser.pass_code(NUMBER).await;
                }
                // Who is refused has no session; who isn't has one of their own account.
                assert_eq!(browser.access.is_some(), answer.body["status"] == "OK", "{step:?}");
                for user in has_address(&app, ALICE).await {
                    let alices = user.logins.iter().filter(|login| login.verified).count();
                    assert!(alices == 0 || alices == user.logins.len(), "{step:?} {user:?}");
                }
                app.store.check_users().await;
            }
        });
        Ok(())
    };
    TestRunner::new(config).run(&(answer, proptest::collection::vec(step, 1..7)), run).unwrap();
}

/// Who begins a challenge, who uses it, and whose it is then; with an app that asks for no proof of anything.
#[tokio::test]
async fn sec_l09_only_the_session_that_began_it_links_what_it_proves() {
    for began in 0..3 {
        for used in 0..3 {
            let app = app(Always, &Says::new()).await;
            let mut clients = [(); 3].map(|()| app.browser(Mode::Header));
            let users = [id(&clients[1].by_code(ALICE).await), id(&clients[2].by_code(BOB).await)];
            let seen = app.sent_to(NUMBER);
            let flow = clients[began].ask_code(NUMBER, began > 0).await.ok();
            let code = app.code_after(NUMBER, seen).await;
            let answer = clients[used].enter(&flow, &code, used > 0).await;
            answer.status(if began == used { "OK" } else { "RESTART_FLOW_ERROR" });
            for (n, user) in users.iter().enumerate() {
                let linked = began == used && used == n + 1;
                assert_eq!(
                    load(&app, user).await.logins.len(),
                    1 + usize::from(linked),
                    "{began} {used} {n}"
                );
            }
        }
    }
}

#[tokio::test]
async fn sec_l09_without_a_session_or_in_anothers_nothing_unproved_is_linked() {
    let says = Says::new();
    says.set("mallory", json!({ "email": "other@shop.example", "email_verified": false }));
    let app = app(Always, &says).await;
    let [mut alice, mut bob] = [(); 2].map(|()| app.browser(Mode::Header));
    let users = [id(&alice.by_code(ALICE).await), id(&bob.by_code(BOB).await)];
    let lengths =
        async || [load(&app, &users[0]).await.logins.len(), load(&app, &users[1]).await.logins.len()];
    // A session that comes along unasked is none.
    let new = id(&by_provider(&mut alice.clone(), "mallory", false).await.ok());
    assert!(!users.contains(&new));
    assert_eq!(lengths().await, [1, 1]);
    alice.by_code(ALICE).await;
    // A password for an address that nobody proved joins the session that asks for it, and no other one.
    let sign_up = |address: &str| linking(credentials(address, PASSWORD)).unwrap();
    alice.post("/auth/signup", sign_up("alice2@shop.example")).await.ok();
    assert_eq!(lengths().await, [2, 1]);
    assert_eq!(has_address(&app, "alice2@shop.example").await, [load(&app, &users[0]).await]);
    // One that somebody else proved joins nobody without proof: else Bob could have no second factor.
    let mut mallory = app.browser(Mode::Header);
    mallory.by_code(MALLORY).await;
    refused_within(&mallory.post("/auth/signup", sign_up(BOB)).await, "SIGN_UP_NOT_ALLOWED", "015");
    bob.pass_code(NUMBER).await;
    // Nor where nobody asks for it: beside who proved it, an account of its own, until Bob is primary.
    assert_eq!(lengths().await, [2, 2]);
    refused(&app.browser(Mode::Header).sign_up(BOB).await, "SIGN_UP_NOT_ALLOWED", "007");
    says.set("carol", json!({ "email": "carol@shop.example", "email_verified": true }));
    let carol = id(&by_provider(&mut app.browser(Mode::Header), "carol", false).await.ok());
    let alone = id(&app.browser(Mode::Header).sign_up("carol@shop.example").await.ok());
    assert_ne!(alone, carol);
    app.store.check_users().await;
}

#[track_caller]
fn refused_within(answer: &Answer, status: &str, code: &str) {
    refused(answer, status, code);
    assert!(!answer.headers.contains_key("front-token"), "the session stays what it was");
}

#[tokio::test]
async fn sec_l10_what_is_someones_stays_theirs_and_the_session_stays_what_it_was() {
    let says = Says::new();
    let app = app(Always, &says).await;
    // Bob is primary: a password, and codes to a second address.
    let mut bob = app.browser(Mode::Header);
    let bob_id = id(&bob.sign_up(BOB).await.ok());
    let second = "bob2@shop.example";
    bob.pass_code(second).await;
    let mut mallory = app.browser(Mode::Header);
    let mallory_id = id(&by_provider(&mut mallory, "mallory", false).await.ok());
    let before = (load(&app, &bob_id).await, load(&app, &mallory_id).await, handle(&mallory));
    let by_code = async |mallory: &mut Browser, to: &str| {
        let seen = app.sent_to(to);
        let flow = mallory.ask_code(to, true).await.ok();
        mallory.enter(&flow, &app.code_after(to, seen).await, true).await
    };
    // L: Bob's login methods.
    refused_within(&by_code(&mut mallory, second).await, "SIGN_IN_UP_NOT_ALLOWED", "017");
    let sign_in = linking(credentials(BOB, PASSWORD)).unwrap();
    refused_within(&mallory.post("/auth/signin", sign_in).await, "SIGN_IN_NOT_ALLOWED", "010");
    // U comes before A where the app would join the two, and Bob hasn't proved the address himself.
    refused_within(&by_code(&mut mallory, BOB).await, "SIGN_IN_UP_NOT_ALLOWED", "002");
    let sign_up = linking(credentials(second, PASSWORD)).unwrap();
    refused_within(&mallory.post("/auth/signup", sign_up).await, "SIGN_UP_NOT_ALLOWED", "007");
    let after = (load(&app, &bob_id).await, load(&app, &mallory_id).await, handle(&mallory));
    assert_eq!(after, before);
    mallory.get("/api/me").await.is(200);
    mallory.refresh().await.is(200);
    bob.get("/api/me").await.is(200);
    app.store.check_users().await;
}

/// By the default rule: the same conflicts, whatever the app would join.
#[tokio::test]
async fn sec_l10_each_conflict_has_its_number() {
    let says = Says::new();
    let app = app(SecondFactorsOnly::new(), &says).await;
    let mut bob = app.browser(Mode::Header);
    bob.sign_up(BOB).await.ok();
    bob.pass_code("bob2@shop.example").await;
    let mut mallory = app.browser(Mode::Header);
    by_provider(&mut mallory, "mallory", false).await.ok();
    let post = async |mallory: &mut Browser, path: &str, address: &str| {
        mallory.post(path, linking(credentials(address, PASSWORD)).unwrap()).await
    };
    refused_within(&post(&mut mallory, "/auth/signin", BOB).await, "SIGN_IN_NOT_ALLOWED", "010");
    refused_within(
        &post(&mut mallory, "/auth/signup", "bob2@shop.example").await,
        "SIGN_UP_NOT_ALLOWED",
        "015",
    );
    // Nobody's account but its owner's joins by the default: 400, as whatever an app declines.
    let carol = "carol@shop.example";
    app.browser(Mode::Header).sign_up(carol).await.ok();
    post(&mut mallory, "/auth/signin", carol).await.is(400);
    // Alice proves the address that Mallory's provider gave, and gets a second factor: now Mallory can't.
    let mut alice = app.browser(Mode::Header);
    alice.by_code(ALICE).await;
    alice.pass_code(NUMBER).await;
    refused_within(&mallory.ask_code("+36302222242", true).await, "SIGN_IN_UP_NOT_ALLOWED", "019");
    refused_within(&post(&mut mallory, "/auth/signin", carol).await, "SIGN_IN_NOT_ALLOWED", "012");
    refused_within(&post(&mut mallory, "/auth/signup", MALLORY).await, "SIGN_UP_NOT_ALLOWED", "016");
    refused_within(&by_provider(&mut mallory, "alice", true).await, "SIGN_IN_UP_NOT_ALLOWED", "023");
    app.store.check_users().await;
}

#[tokio::test]
async fn with_required_verification_both_must_be_proved() {
    let says = Says::new();
    let policy = SecondFactorsOnly::new().require_verification();
    let app =
        TestApp::with(|b| settings(b, &says).linking(policy).email_verification(EmailVerification::Optional))
            .await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    let flow = alice.ask_code(NUMBER, true).await.ok();
    let code = app.code(NUMBER).await;
    let stopped = alice.enter(&flow, &code, true).await;
    stopped.is(403);
    let reason = json!({ "message": "wrong value", "expectedValue": true, "actualValue": false });
    assert_eq!(stopped.body["claimValidationErrors"], json!([{ "id": "st-ev", "reason": reason }]));
    assert_eq!(load(&app, &app.user(ALICE).await).await.logins.len(), 1);
    // She proves it, and the code is still good.
    let seen = app.sent_to(ALICE);
    alice.post("/auth/user/email/verify/token", json!({})).await.ok();
    let notice = app.notice_after(ALICE, seen).await;
    let link = notice.link().unwrap().expose();
    let token = link.split(['?', '&']).find_map(|part| part.strip_prefix("token=")).unwrap();
    alice.post("/auth/user/email/verify", json!({ "method": "token", "token": token })).await.ok();
    alice.enter(&flow, &code, true).await.ok();
    // What joins must be proved, too: an address of the provider's, or of a password's.
    says.set("mallory", json!({ "email": MALLORY, "email_verified": false }));
    refused_within(&by_provider(&mut alice, "mallory", true).await, "SIGN_IN_UP_NOT_ALLOWED", "020");
    let other = linking(credentials("alice2@shop.example", PASSWORD)).unwrap();
    refused_within(&alice.post("/auth/signup", other).await, "SIGN_UP_NOT_ALLOWED", "013");
    by_provider(&mut alice, "alice", true).await.ok();
    assert_eq!(load(&app, &app.user(ALICE).await).await.logins.len(), 3);
}

/// What a rule does instead of answering: to one of its three questions.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Fails,
    Panics,
}

struct Faulty {
    at: &'static str,
    fault: Fault,
    left: AtomicUsize,
}

impl LinkPolicy for Faulty {
    async fn decide(&self, ctx: &LinkContext<'_>) -> Result<Link, PolicyError> {
        let asked = match (ctx.session_user, ctx.joins) {
            (Some(_), None) => "primary",
            (Some(user), Some(joins)) if user.id == joins.id => "link",
            _ => "join",
        };
        if asked == self.at
            && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
        {
            match self.fault {
                Fault::Fails => return Err(PolicyError::unavailable("told to fail")),
                Fault::Panics => panic!("told to panic"),
            }
        }
        Ok(Link::Yes)
    }
}

#[tokio::test]
async fn sec_l13_a_rule_that_fails_links_nothing() {
    for fault in [Fault::Fails, Fault::Panics] {
        let status = if matches!(fault, Fault::Fails) { 503 } else { 500 };
        for at in ["primary", "link"] {
            let app = app(Faulty { at, fault, left: AtomicUsize::new(2) }, &Says::new()).await;
            let mut alice = app.browser(Mode::Header);
            let user = id(&alice.by_code(ALICE).await);
            // Once where the code is asked for, once where it is used.
            alice.ask_code(NUMBER, true).await.is(status);
            assert_eq!(app.sent_to(NUMBER), 0);
            by_provider(&mut alice, "alice", true).await.is(status);
            assert_eq!(load(&app, &user).await.logins.len(), 1);
            alice.get("/api/me").await.is(200);
            alice.pass_code(NUMBER).await;
            by_provider(&mut alice, "alice", true).await.ok();
            assert_eq!(load(&app, &user).await.logins.len(), 3);
        }
        let app = app(Faulty { at: "join", fault, left: AtomicUsize::new(1) }, &Says::new()).await;
        let user = id(&app.browser(Mode::Header).by_code(ALICE).await);
        let mut second = app.browser(Mode::Header);
        let answer = by_provider(&mut second, "alice", false).await;
        answer.is(status);
        assert!(second.access.is_none());
        assert_eq!((load(&app, &user).await.logins.len(), has_address(&app, ALICE).await.len()), (1, 1));
        assert_eq!(id(&by_provider(&mut second, "alice", false).await.ok()), user);
        assert_eq!(load(&app, &user).await.logins.len(), 2);
    }
}

/// Both have read that nobody is primary, and decided, before either of them writes. The loser is told why: the wire
/// (section 13, S) and the vectors have a code for it, 019, which goes before the row's `RESTART`. A flow that is begun
/// anew would end the same way.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_l11_of_two_who_become_primary_for_one_address_one_does() {
    for round in 0..12u8 {
        let says = Says::new();
        let store = Contended::new(vec![round, 90, 31, 144]);
        let app = TestApp::on(shop(), Secrets::random().unwrap(), store.clone(), |b| {
            settings(b, &says).linking(SecondFactorsOnly::new())
        })
        .await;
        // The same address, twice, and neither is primary.
        let [mut alice, mut other] = [(); 2].map(|()| app.browser(Mode::Header));
        let users =
            [id(&alice.by_code(ALICE).await), id(&by_provider(&mut other, "alice", false).await.ok())];
        let numbers = [format!("+3630111110{}", round % 10), format!("+3630222220{}", round % 10)];
        let mut racers = Vec::new();
        for (mut racer, number) in [alice, other].into_iter().zip(&numbers) {
            let flow = racer.ask_code(number, true).await.ok();
            let code = app.code(number).await;
            racers.push(async move { racer.enter(&flow, &code, true).await });
        }
        store.gather(2);
        let racers: Vec<_> = racers.into_iter().map(tokio::spawn).collect();
        let mut won = Vec::new();
        for racer in racers {
            let answer = racer.await.unwrap();
            if answer.body["status"] != "OK" {
                refused_within(&answer, "SIGN_IN_UP_NOT_ALLOWED", "019");
            }
            won.push(answer.body["status"] == "OK");
        }
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
        assert_eq!(store.met(), 2, "both had decided");
        for (user, won) in users.iter().zip(won) {
            let user = load(&app, user).await;
            assert_eq!((user.primary, user.logins.len()), (won, 1 + usize::from(won)));
        }
        app.store.check_users().await;
    }
}

/// A store as over a network, where others run while it answers, and that says of a few commits that somebody else was
/// faster: by a schedule.
#[derive(Clone, Debug)]
struct Contended {
    inner: AnyStore,
    schedule: Arc<Mutex<(Vec<u8>, usize)>>,
    /// How many commits may still be told that they lost: fewer than a transaction has rounds.
    conflicts: Arc<AtomicUsize>,
    /// Where those meet who are about to write a name to sign in by.
    meeting: Arc<Mutex<Meeting>>,
}

#[derive(Clone, Debug)]
struct Meeting {
    barrier: Arc<Barrier>,
    /// How many are still to come.
    to_come: usize,
    met: Arc<AtomicUsize>,
}

impl Meeting {
    fn of(many: usize) -> Self {
        Self { barrier: Arc::new(Barrier::new(many.max(1))), to_come: many, met: Arc::default() }
    }
}

/// How many meet.
const RACERS: usize = 3;

impl Contended {
    fn new(schedule: Vec<u8>) -> Self {
        let schedule = Arc::new(Mutex::new((schedule, 0)));
        let meeting = Arc::new(Mutex::new(Meeting::of(0)));
        Self { inner: AnyStore::new(MemoryStore::new()), schedule, conflicts: Arc::default(), meeting }
    }

    /// From now on, the first so many who write a name all have decided before any of them writes.
    fn gather(&self, many: usize) {
        *self.meeting.lock().unwrap() = Meeting::of(many);
    }

    /// How many of them met.
    fn met(&self) -> usize {
        self.meeting.lock().unwrap().met.load(Ordering::SeqCst)
    }

    async fn meet(&self, batch: &Batch) {
        let comes = || {
            let mut meeting = self.meeting.lock().unwrap();
            meeting.to_come = meeting.to_come.checked_sub(1)?;
            Some(meeting.clone())
        };
        let is_named = batch.ops().any(|(key, _)| key.as_str().contains("/login/"));
        let Some(meeting) = is_named.then(comes).flatten() else { return };
        // Who waits for another one's turn within the process doesn't come.
        if tokio::time::timeout(Duration::from_secs(20), meeting.barrier.wait()).await.is_ok() {
            meeting.met.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// From now on.
    fn contend(&self) {
        self.conflicts.store(4, Ordering::SeqCst);
    }

    fn is_lost(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.next() > 150 && self.conflicts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }

    fn next(&self) -> u8 {
        let mut schedule = self.schedule.lock().unwrap();
        let (list, at) = &mut *schedule;
        *at += 1;
        list[*at % list.len()]
    }

    async fn way(&self) {
        for _ in 0..self.next() % 4 {
            tokio::task::yield_now().await;
        }
    }
}

impl Store for Contended {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.way().await;
        let rows = self.inner.get(keys).await;
        self.way().await;
        rows
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        self.inner.scan(scan).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        self.way().await;
        self.meet(&batch).await;
        let first = batch.ops().next().map(|(key, _)| key.clone());
        match first.filter(|_| self.is_lost()) {
            Some(key) => Ok(Commit::Conflict(key)),
            None => self.inner.commit(batch).await,
        }
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.inner.sweep(before).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.inner.now().await
    }
}

/// Somebody who does something at the same time as others.
#[derive(Clone, Copy, Debug)]
enum Racer {
    /// Alice's session takes the number.
    Alice,
    /// Another one of hers, at the same time.
    AliceToo,
    /// Bob's session takes the same number.
    Bob,
    /// Somebody signs in or up by the number.
    Stranger,
    /// Alice's session takes the login at the provider.
    AliceProvider,
    /// Bob's session takes the same login.
    BobProvider,
}

fn schedule() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 16..64)
}

#[test]
fn concurrent_links_lose_and_duplicate_no_login() {
    let racers = proptest::sample::subsequence(
        vec![
            Racer::Alice,
            Racer::AliceToo,
            Racer::Bob,
            Racer::Stranger,
            Racer::AliceProvider,
            Racer::BobProvider,
        ],
        2..=6,
    );
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = |(absorbs, racers, schedule): (bool, Vec<Racer>, Vec<u8>)| {
        runtime.block_on(race_for_a_number(absorbs, &racers, schedule));
        Ok(())
    };
    TestRunner::new(config).run(&(any::<bool>(), racers.prop_shuffle(), schedule()), run).unwrap();
}

async fn race_for_a_number(absorbs: bool, racers: &[Racer], schedule: Vec<u8>) {
    let says = Says::new();
    says.set("carol", json!({ "email": "carol@shop.example", "email_verified": true }));
    let store = Contended::new(schedule);
    let app = TestApp::on(shop(), Secrets::random().unwrap(), store.clone(), |b| {
        let b = settings(b, &says);
        if absorbs { b.linking(Always) } else { b }
    })
    .await;
    let (mut alice, mut too, mut bob) =
        (app.browser(Mode::Header), app.browser(Mode::Header), app.browser(Mode::Header));
    let users = [id(&alice.by_code(ALICE).await), id(&bob.by_code(BOB).await)];
    too.by_code(ALICE).await;
    let mut races = Vec::new();
    for racer in racers {
        let (mut browser, linked, provider) = match racer {
            Racer::Alice => (alice.clone(), true, false),
            Racer::AliceToo => (too.clone(), true, false),
            Racer::Bob => (bob.clone(), true, false),
            Racer::Stranger => (app.browser(Mode::Header), false, false),
            Racer::AliceProvider => (alice.clone(), true, true),
            Racer::BobProvider => (bob.clone(), true, true),
        };
        let begun = match provider {
            false => {
                let seen = app.sent_to(NUMBER);
                let flow = browser.ask_code(NUMBER, linked).await.ok();
                Some((flow, app.code_after(NUMBER, seen).await))
            }
            true => None,
        };
        races.push(async move {
            match begun {
                Some((flow, code)) => browser.enter(&flow, &code, linked).await,
                None => by_provider(&mut browser, "carol", linked).await,
            }
        });
    }
    store.contend();
    let answers = join_all(races).await;
    app.store.check_users().await;
    let of = |found: &[User], login: &dyn Fn(&User) -> usize| found.iter().map(login).sum::<usize>();
    let mut found = Vec::new();
    for (key, row) in app.store.dump().await {
        if key.as_str().starts_with("user/") {
            found.push(load(&app, &UserId::parse(row.body["id"].as_str().unwrap()).unwrap()).await);
        }
    }
    // What Alice and Bob had they have still.
    for (id, address) in users.iter().zip([ALICE, BOB]) {
        let user = found.iter().find(|user| user.id == *id).unwrap();
        assert_eq!(count(user, |login| login.email == Some(email(address))), 1);
    }
    // Of each login there is one, if anybody was told so, and it is one of those who were.
    for provider in [false, true] {
        let is = |login: &tower_mfa::account::LoginMethod| match provider {
            true => login.third_party.is_some(),
            false => login.phone.is_some(),
        };
        let told: Vec<UserId> = racers
            .iter()
            .zip(&answers)
            .filter(|(racer, _)| matches!(racer, Racer::AliceProvider | Racer::BobProvider) == provider)
            .filter(|(_, answer)| answer.body["status"] == "OK")
            .map(|(_, answer)| id(&answer.body))
            .collect();
        assert_eq!(of(&found, &|user| count(user, is)), usize::from(!told.is_empty()), "{answers:?}");
        for user in found.iter().filter(|user| count(user, is) > 0) {
            assert!(told.contains(&user.id), "{answers:?}");
        }
    }
}

fn count(user: &User, is: impl Fn(&tower_mfa::account::LoginMethod) -> bool) -> usize {
    user.logins.iter().filter(|login| is(login)).count()
}

#[test]
fn concurrent_sign_ups_by_one_address_make_one_account() {
    let config = ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = |(ways, schedule): (Vec<u8>, Vec<u8>)| {
        runtime.block_on(race_to_sign_up(&ways, schedule));
        Ok(())
    };
    let ways = proptest::collection::vec(0..3u8, 2..5);
    TestRunner::new(config).run(&(ways, schedule()), run).unwrap();
}

/// By codes, and by two providers' logins, which all prove the address.
async fn race_to_sign_up(ways: &[u8], schedule: Vec<u8>) {
    let says = Says::new();
    says.set("again", json!({ "email": ALICE, "email_verified": true }));
    let store = Contended::new(schedule);
    let app = TestApp::on(shop(), Secrets::random().unwrap(), store.clone(), |b| {
        settings(b, &says).linking(OneAccount(Link::IfVerified))
    })
    .await;
    let mut races = Vec::new();
    for way in ways {
        let mut browser = app.browser(Mode::Header);
        let begun = match way {
            0 => {
                let seen = app.sent_to(ALICE);
                let flow = browser.ask_code(ALICE, false).await.ok();
                Some((flow, app.code_after(ALICE, seen).await))
            }
            _ => None,
        };
        races.push(async move {
            match begun {
                Some((flow, code)) => browser.enter(&flow, &code, false).await,
                None => by_provider(&mut browser, if *way == 1 { "alice" } else { "again" }, false).await,
            }
        });
    }
    store.contend();
    let answers = join_all(races).await;
    app.store.check_users().await;
    let users = has_address(&app, ALICE).await;
    assert_eq!(users.len(), 1, "{answers:?}");
    let done = answers.iter().filter(|answer| answer.body["status"] == "OK");
    let ids: Vec<UserId> = done.map(|answer| id(&answer.body)).collect();
    assert!(!ids.is_empty() && ids.iter().all(|id| *id == users[0].id), "{answers:?}");
}

#[test]
fn concurrent_sign_ups_by_one_password_make_one_account() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (n, joins) in [(1, false), (4, true)] {
        runtime.block_on(async {
            let schedule = (0..97u32).map(|at| (at * 53 * n % 251) as u8).collect();
            let store = Contended::new(schedule);
            let app = TestApp::on(shop(), Secrets::random().unwrap(), store.clone(), |b| {
                if joins { b.linking(OneAccount(Link::IfVerified)) } else { b }
            })
            .await;
            let mut browsers = [(); 3].map(|()| app.browser(Mode::Header));
            store.contend();
            store.gather(RACERS);
            let answers = join_all(browsers.iter_mut().map(|browser| browser.sign_up(ALICE))).await;
            let told = |status: &str| answers.iter().filter(|answer| answer.body["status"] == status).count();
            let refused = told("FIELD_ERROR") + told("SIGN_UP_NOT_ALLOWED");
            assert_eq!((told("OK"), refused), (1, 2), "{answers:?}");
            assert_eq!(has_address(&app, ALICE).await.len(), 1);
            app.store.check_users().await;
        });
    }
}

/// Somebody of whom the provider tells no address is known by the provider's name for them alone.
#[tokio::test]
async fn concurrent_sign_ups_without_an_address_make_one_account() {
    let says = Says::new();
    says.set("nobody", json!({}));
    let store = Contended::new(vec![7, 90, 31, 144]);
    let app = TestApp::on(shop(), Secrets::random().unwrap(), store.clone(), |b| settings(b, &says)).await;
    let mut browsers = [(); RACERS].map(|()| app.browser(Mode::Header));
    store.gather(RACERS);
    let answers = join_all(browsers.iter_mut().map(|browser| by_provider(browser, "nobody", false))).await;
    let made = answers.iter().filter(|answer| answer.body["createdNewRecipeUser"] == true).count();
    assert_eq!(made, 1, "{answers:?}");
    let first = id(&answers[0].body);
    assert!(answers.iter().all(|answer| answer.body["status"] == "OK" && id(&answer.body) == first));
    let users = app.store.dump().await.into_keys().filter(|key| key.as_str().starts_with("user/"));
    assert_eq!(users.count(), 1);
    app.store.check_users().await;
}
