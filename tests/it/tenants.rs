//! Tenants that are kept apart, switched off, deleted and made again.

use std::{collections::BTreeMap, pin::Pin};

use axum::{Router, routing::get};
use http::Method;
use serde_json::{Value, json};
use tower_mfa::{
    FactorId, MfaLayer,
    account::TenantRule,
    config::{Countries, Passwordless},
    guard::RequireTenant,
    ident::{Email, ErrorKind, TenantId, UserId},
    store::{Batch, Key, Scan, Store as _},
};

use crate::{
    routes::{Wants, everything, routes},
    spy::{ALICE, BOB, NUMBER, ending, handle, linking, token_in},
    support::{
        Answer, Browser, Mode, PASSWORD, TestApp, credentials,
        nodes::{arrived, begun},
        provider::returned,
        send,
    },
};

const PUBLIC: TenantId = TenantId::PUBLIC;

fn tenant(id: &str) -> TenantId {
    TenantId::parse(id).unwrap()
}

async fn with_tenants(ids: &[&str]) -> TestApp {
    let app = TestApp::new().await;
    for id in ids {
        app.mfa.tenants().create(&tenant(id), None).await.unwrap();
    }
    app
}

fn at(app: &TestApp, id: &str) -> Browser {
    let mut browser = app.browser(Mode::Header);
    browser.tenant = Some(id.to_owned());
    browser
}

async fn signed_up(app: &TestApp, id: &str, email: &str) -> (Browser, UserId) {
    let mut browser = at(app, id);
    let user = browser.sign_up(email).await.ok()["user"]["id"].as_str().unwrap().to_owned();
    (browser, UserId::parse(&user).unwrap())
}

/// The session's tenant counts at the crate's routes, whatever the path says: at each of them that uses a session.
#[tokio::test]
async fn sec_n01_a_session_is_used_in_its_own_tenant_alone() {
    for place in ["/auth/south", "/auth/nowhere", "/auth/north", "/auth"] {
        let app = everything().await;
        for id in ["north", "south"] {
            app.mfa.tenants().create(&tenant(id), None).await.unwrap();
        }
        let (mut alice, user) = signed_up(&app, "north", ALICE).await;
        let first = handle(&alice);
        let (mut flow, mut link) = (Value::Null, None);
        for (method, route, wants, _, body) in routes() {
            if wants == Wants::Nothing || route == "/signout" {
                continue;
            }
            let body = match route {
                "/signinup/code" => json!({ "phoneNumber": NUMBER }),
                "/signinup/code/resend" => flow.clone(),
                "/signinup/code/consume" => {
                    let code = app.code_after(NUMBER, 1).await;
                    let mut guess = flow.clone();
                    guess["userInputCode"] = json!(code);
                    guess
                }
                "/signin" => credentials(ALICE, PASSWORD),
                "/signup" => credentials("alice@work.example", PASSWORD),
                "/signinup" => returned(&json!({}), json!({ "code": "x" })),
                "/user/email/verify" if method == "POST" => {
                    json!({ "method": "token", "token": link.take().unwrap() })
                }
                _ => body,
            };
            let body =
                if wants == Wants::IfLinking { linking(body) } else { Some(body).filter(|b| !b.is_null()) };
            let ask = |place: &str| {
                alice.request(method.parse().unwrap(), &format!("{place}{route}"), body.clone())
            };
            let mut answer = app.send(ask(place)).await;
            // A link says itself of which tenant it is, and whoever opens it needs no session: elsewhere it is none,
            // and not used up.
            if wants == Wants::IfThere && !place.ends_with("/north") {
                assert!(
                    answer.status == 404 || answer.body["status"] != "OK",
                    "{place}{route} {}",
                    answer.text
                );
                answer = app.send(ask("/auth/north")).await;
            }
            answer.is(200);
            assert!(
                route == "/session/refresh" || answer.body["status"] == "OK",
                "{place}{route} {}",
                answer.text
            );
            alice.keep(&answer);
            match route {
                "/signinup/code" => flow = answer.body.clone(),
                "/user/email/verify/token" => {
                    let notice = app.notice_after(ALICE, 0).await;
                    link = Some(token_in(notice.link().unwrap().expose()));
                }
                _ => {}
            }
            assert_eq!(
                (handle(&alice), alice.payload("tId")),
                (first.clone(), json!("north")),
                "{place}{route}"
            );
            let kept = app.store.dump().await;
            let foreign = kept
                .keys()
                .map(Key::as_str)
                .filter(|key| key.starts_with("t/") && !key.starts_with("t/north/"));
            assert_eq!(foreign.collect::<Vec<_>>(), Vec::<&str>::new(), "{place}{route}");
        }
        // Each of the three that add a login method added it where the session is.
        let user = app.mfa.users().load(&user).await.unwrap().unwrap();
        assert_eq!(user.logins.len(), 4, "{user:?}");
        assert!(user.logins.iter().all(|login| login.tenants == [tenant("north")]), "{user:?}");
        let out = alice.request(Method::POST, &format!("{place}/signout"), None);
        app.send(out).await.status("OK");
        alice.refresh().await.is(401);
    }
}

/// Routes of the app that serve one tenant refuse sessions of another.
#[tokio::test]
async fn sec_n01_a_route_of_one_tenant_refuses_sessions_of_another() {
    let app = with_tenants(&["north", "south"]).await;
    let (alice, _) = signed_up(&app, "north", ALICE).await;
    let route = |id: &str| get(|| async { "theirs" }).route_layer(RequireTenant::new(tenant(id)));
    let router = Router::new()
        .route("/north", route("north"))
        .route("/south", route("south"))
        .layer(MfaLayer::required(app.mfa.clone()));
    let ask = |path: &'static str| send(&router, alice.request(Method::GET, path, None));
    ask("/north").await.is(200);
    let refused = ask("/south").await;
    refused.is(403);
    assert_eq!(refused.body["claimValidationErrors"][0]["id"], "tId");
    assert!(!refused.headers.contains_key("www-authenticate"));
}

#[tokio::test]
async fn sec_n02_a_tenant_that_is_switched_off_answers_as_one_that_isnt_there() {
    let app = with_tenants(&["north"]).await;
    let (mut alice, user) = signed_up(&app, "north", ALICE).await;
    app.mfa.tenants().disable(&tenant("north")).await.unwrap();
    alice.get("/api/half").await.is(401);
    assert!(alice.refresh_token().is_some());
    alice.refresh().await.is(401);
    let (off, nowhere) = (at(&app, "north"), at(&app, "nowhere"));
    for (path, body) in [
        ("/signin", credentials(ALICE, PASSWORD)),
        ("/signup", credentials(BOB, PASSWORD)),
        ("/signinup/code", json!({ "email": ALICE })),
    ] {
        let answers = [("north", &off), ("nowhere", &nowhere)].map(|(id, browser)| {
            let path = format!("/auth/{id}{path}");
            app.send(browser.request(Method::POST, &path, Some(body.clone())))
        });
        let [off, nowhere] = answers;
        let (off, nowhere) = (off.await, nowhere.await);
        off.is(404);
        assert_eq!((off.status, &off.body, &off.headers), (nowhere.status, &nowhere.body, &nowhere.headers));
    }
    assert!(app.mfa.sessions().list(&user).await.unwrap().is_empty());
    // Switched on again it is as it was, without the sessions.
    app.mfa.tenants().enable(&tenant("north")).await.unwrap();
    let mut again = at(&app, "north");
    again.sign_in(ALICE).await.ok();
    again.get("/api/half").await.is(200);
    alice.refresh().await.is(401);
}

/// An administrator of one tenant reaches no session of another.
#[tokio::test]
async fn sec_n03_a_handle_of_another_tenant_is_none() {
    let app = with_tenants(&["north", "south"]).await;
    let (mut alice, user) = signed_up(&app, "north", ALICE).await;
    app.mfa.users().add_to_tenants(&user, [tenant("south")]).await.unwrap();
    let mut there = at(&app, "south");
    there.sign_in(ALICE).await.ok();
    let sessions = app.mfa.sessions();
    let (north, south) = (sessions.within(&tenant("north")), sessions.within(&tenant("south")));
    let of = |infos: Vec<tower_mfa::account::SessionInfo>| -> Vec<String> {
        infos.iter().map(|info| info.handle.as_str().to_owned()).collect()
    };
    assert_eq!(of(north.list(&user).await.unwrap()), [handle(&alice)]);
    assert_eq!(of(south.list(&user).await.unwrap()), [handle(&there)]);
    let theirs = handle(&there).parse().unwrap();
    assert!(!north.revoke(&theirs).await.unwrap());
    there.get("/api/half").await.is(200);
    north.revoke_user(&user).await.unwrap();
    alice.get("/api/half").await.is(401);
    there.get("/api/half").await.is(200);
    let mut alice = at(&app, "north");
    alice.sign_in(ALICE).await.ok();
    north.revoke_all().await.unwrap();
    alice.get("/api/half").await.is(401);
    there.get("/api/half").await.is(200);
    assert!(south.revoke(&theirs).await.unwrap());
    there.get("/api/half").await.is(401);
    for bad in
        ["x", "00000000-0000-4000-8000-000000000000_a_b", "00000000-0000-4000-8000-000000000000_public"]
    {
        assert!(bad.parse::<tower_mfa::ident::SessionHandle>().is_err(), "{bad}");
    }
}

/// What somebody in tenant `a` is answered, while in tenant `b` these people do what they do.
async fn seen_beside(limited: bool, busy: &[&str]) -> Vec<(u16, BTreeMap<String, Value>, Value)> {
    let app = if limited { TestApp::limited(|b| b).await } else { TestApp::new().await };
    for id in ["a", "b"] {
        app.mfa.tenants().create(&tenant(id), None).await.unwrap();
    }
    for email in busy {
        let (mut browser, user) = signed_up(&app, "b", email).await;
        browser.pass_code(email).await;
        app.mfa.roles().grant(&user, &tenant("b"), "admin").await.unwrap();
    }
    if let Some(email) = busy.first() {
        let rule = TenantRule::require([FactorId::OTP_EMAIL]);
        app.mfa.tenants().set_rule(&tenant("b"), rule).await.unwrap();
        app.mfa.tenants().set_first_factors(&tenant("b"), Some(vec![FactorId::PASSWORD])).await.unwrap();
        for _ in 0..5 {
            at(&app, "b").post("/auth/b/signin", credentials(email, "wrong horse 1")).await;
        }
    }
    let mut alice = at(&app, "a");
    let answers = [
        alice.sign_in(ALICE).await,
        alice.sign_up(ALICE).await,
        alice.get("/auth/a/loginmethods").await,
        alice.info().await,
        alice.get("/api/me").await,
        alice.ask_code(ALICE, true).await,
        at(&app, "a").sign_up(ALICE).await,
        alice.refresh().await,
        alice.sign_out().await,
        alice.sign_in(ALICE).await,
        alice.get("/api/me").await,
    ];
    answers.into_iter().map(bare).collect()
}

/// What a tenant's own answers are doesn't depend on what happens in another one (promise 14): not their status, their
/// headers or their bodies, to the letter, but for what is random.
#[tokio::test]
async fn sec_n04_what_happens_in_another_tenant_changes_no_answer() {
    assert_eq!(seen_beside(false, &[]).await, seen_beside(false, &[ALICE, BOB]).await);
}

/// With the limits that apps have as well. What is shared on purpose is a mailbox: how much goes to one is counted over
/// all tenants (row O27), and that is all that somebody with the same address notices.
#[tokio::test]
async fn sec_n04_limits_are_a_tenants_own_but_for_those_of_a_mailbox() {
    let quiet = seen_beside(true, &[]).await;
    assert_eq!(quiet, seen_beside(true, &["carol@shop.example", "dave@shop.example"]).await);
    let same = seen_beside(true, &[ALICE, BOB]).await;
    let differ: Vec<usize> = (0..quiet.len()).filter(|at| quiet[*at] != same[*at]).collect();
    assert_eq!(differ, [5], "{:?}", same[5]);
    assert_eq!((&quiet[5].2["status"], &same[5].2["status"]), (&json!("OK"), &json!("GENERAL_ERROR")));
}

/// Without what is random: ids, and of tokens all but what the front end reads of them.
fn bare(answer: Answer) -> (u16, BTreeMap<String, Value>, Value) {
    use base64::Engine as _;
    let mut headers = BTreeMap::new();
    for (name, value) in &answer.headers {
        let value = match (name.as_str(), value.to_str().unwrap()) {
            ("st-access-token" | "st-refresh-token", token) => json!(!token.is_empty()),
            ("front-token", "remove") => json!("remove"),
            ("front-token", token) => {
                let raw = base64::engine::general_purpose::STANDARD.decode(token).unwrap();
                blank(serde_json::from_slice(&raw).unwrap())
            }
            (_, value) => json!(value),
        };
        let all = headers.entry(name.as_str().to_owned()).or_insert_with(|| json!([]));
        all.as_array_mut().unwrap().push(value);
    }
    (answer.status.as_u16(), headers, blank(answer.body))
}

/// Each member that is random; how long a token lives is, a little.
fn blank(mut body: Value) -> Value {
    const RANDOM: [&str; 12] = [
        "id",
        "userId",
        "recipeUserId",
        "deviceId",
        "preAuthSessionId",
        "uid",
        "sub",
        "rsub",
        "sessionHandle",
        "refreshTokenHash1",
        "ate",
        "exp",
    ];
    fn each(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    if RANDOM.contains(&name.as_str()) {
                        *value = json!("random");
                    } else {
                        each(value);
                    }
                }
            }
            Value::Array(list) => list.iter_mut().for_each(each),
            _ => {}
        }
    }
    each(&mut body);
    body
}

#[tokio::test]
async fn sec_n05_who_leaves_a_tenant_has_nothing_there() {
    let app = with_tenants(&["north"]).await;
    let (mut alice, user) = signed_up(&app, "north", ALICE).await;
    app.mfa.users().add_to_tenants(&user, [PUBLIC]).await.unwrap();
    let mut here = app.browser(Mode::Header);
    here.sign_in(ALICE).await.ok();
    app.mfa.roles().grant(&user, &tenant("north"), "admin").await.unwrap();
    app.mfa.roles().grant(&user, &PUBLIC, "editor").await.unwrap();
    app.mfa.factors().opt_in_within(&user, &tenant("north"), FactorId::OTP_EMAIL).await.unwrap();
    let flow = alice.ask_code(ALICE, true).await.ok();
    let code = app.code(ALICE).await;
    let mut waiting = at(&app, "north");
    let seen = app.sent_to(ALICE);
    let begun = waiting.ask_code(ALICE, false).await.ok();
    let first = app.code_after(ALICE, seen).await;
    app.mfa.users().remove_from_tenant(&user, &tenant("north")).await.unwrap();
    alice.get("/api/half").await.is(401);
    alice.enter(&flow, &code, true).await.is(401);
    waiting.enter(&begun, &first, false).await.status("RESTART_FLOW_ERROR");
    alice.refresh().await.is(401);
    at(&app, "north").sign_in(ALICE).await.status("WRONG_CREDENTIALS_ERROR");
    assert!(app.mfa.roles().of(&user, &tenant("north")).await.unwrap().is_empty());
    assert!(app.mfa.factors().required_in(&user, &tenant("north")).await.unwrap().is_empty());
    // The other tenant sees nothing of it.
    here.get("/api/me").await.is(200);
    assert_eq!(app.mfa.roles().of(&user, &PUBLIC).await.unwrap().len(), 1);
    let left = app.mfa.users().load(&user).await.unwrap().unwrap();
    assert!(left.is_in(&PUBLIC) && !left.is_in(&tenant("north")));
    // The name is free for somebody else.
    signed_up(&app, "north", ALICE).await;
    app.mfa.users().remove_from_tenant(&user, &tenant("north")).await.unwrap();
}

/// Roles are their user's and their tenant's: whoever gets the id of either begins without.
#[tokio::test]
async fn sec_n05_a_role_outlives_neither_its_user_nor_its_tenant() {
    let app = with_tenants(&["north"]).await;
    let (north, roles) = (tenant("north"), app.mfa.roles());
    let (_, user) = signed_up(&app, "public", ALICE).await;
    // Where a user has a role they need not be.
    roles.grant(&user, &north, "admin").await.unwrap();
    app.mfa.users().remove_from_tenant(&user, &north).await.unwrap();
    assert!(roles.of(&user, &north).await.unwrap().is_empty());
    roles.grant(&user, &north, "admin").await.unwrap();
    roles.grant(&user, &PUBLIC, "editor").await.unwrap();
    app.mfa.users().delete(&user).await.unwrap();
    for tenant in [&north, &PUBLIC] {
        assert!(roles.of(&user, tenant).await.unwrap().is_empty());
    }
    let left = app.store.dump().await.into_keys().filter(|key| key.as_str().starts_with("roles-of/"));
    assert_eq!(left.count(), 0);
    app.mfa.tenants().delete(&north).await.unwrap();
    let refused = roles.grant(&user, &north, "admin").await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn sec_n05_a_tenant_made_again_is_another_one() {
    let app = with_tenants(&["north"]).await;
    let north = tenant("north");
    let mut theirs = Vec::new();
    for n in 0..45 {
        let email = format!("n{n}@shop.example");
        let user = app.mfa.users().create(&north, &Email::parse(&email).unwrap()).await.unwrap();
        app.mfa.roles().grant(&user.id, &north, "admin").await.unwrap();
        theirs.push(user.id);
    }
    let (mut alice, user) = signed_up(&app, "north", ALICE).await;
    app.mfa.users().add_to_tenants(&user, [PUBLIC]).await.unwrap();
    let flow = at(&app, "north").ask_code(ALICE, false).await.ok();
    let code = app.code(ALICE).await;
    app.mfa.tenants().delete(&north).await.unwrap();
    assert!(app.mfa.tenants().load(&north).await.unwrap().is_none());
    // All that is left of it are its users, the number that its tokens are measured against, and the trail.
    let left: Vec<String> = app.store.dump().await.into_keys().map(|key| key.as_str().to_owned()).collect();
    assert!(!left.iter().any(|key| key.starts_with("t/north/") || key == "tenant/north"), "{left:?}");
    alice.get("/api/half").await.is(401);
    at(&app, "north").sign_in(ALICE).await.is(404);

    app.mfa.tenants().create(&north, None).await.unwrap();
    alice.get("/api/half").await.is(401);
    alice.refresh().await.is(401);
    let mut again = at(&app, "north");
    again.sign_in(ALICE).await.status("WRONG_CREDENTIALS_ERROR");
    again.enter(&flow, &code, false).await.status("RESTART_FLOW_ERROR");
    assert!(app.mfa.roles().of(&theirs[0], &north).await.unwrap().is_empty());
    assert!(app.mfa.users().load(&theirs[0]).await.unwrap().unwrap().logins[0].tenants.is_empty());
    // Who signs up in it is in, on a node that starts now as well, where the token of before is as dead.
    let (mut bob, _) = signed_up(&app, "north", BOB).await;
    let late = app.restarted().await;
    for node in [&app, &late] {
        bob.at(node).get("/api/half").await.is(200);
        alice.at(node).get("/api/half").await.is(401);
    }
    bob.refresh().await.is(200);
    // In the other tenant nothing happened.
    app.browser(Mode::Header).sign_in(ALICE).await.ok();
}

/// A process that dies while it deletes leaves the tenant switched off, and the next call goes on.
#[tokio::test]
async fn sec_n05_a_deletion_that_failed_goes_on() {
    let app = with_tenants(&["north"]).await;
    let north = tenant("north");
    for n in 0..45 {
        let email = Email::parse(&format!("n{n}@shop.example")).unwrap();
        app.mfa.users().create(&north, &email).await.unwrap();
    }
    let names = || async {
        let scan = Scan::under(Key::new(["t", "north", "login"]));
        app.store.scan(&scan).await.unwrap().len()
    };
    app.store.fail_commits_after(Some(2));
    let failed = app.mfa.tenants().delete(&north).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
    app.store.fail_commits_after(None);
    assert_eq!(names().await, 25);
    at(&app, "north").sign_up(ALICE).await.is(404);
    let late = Email::parse("late@shop.example").unwrap();
    let refused = app.mfa.users().create(&north, &late).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(app.mfa.tenants().enable(&north).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(app.mfa.tenants().create(&north, None).await.unwrap_err().kind(), ErrorKind::Invalid);
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$".to_owned() + &"A".repeat(43);
    let refused = app.mfa.users().import_password_hash(&north, &late, hash, true).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    app.mfa.tenants().delete(&north).await.unwrap();
    assert_eq!(names().await, 0);
    assert_eq!(app.mfa.tenants().delete(&north).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(app.mfa.tenants().delete(&PUBLIC).await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// What the beginning of a deletion writes: for another process that begins it right before a commit.
pub(crate) async fn deletion(app: &TestApp, tenant: &TenantId) -> Batch {
    ending(app, ["tenant", tenant.as_str()], json!({ "enabled": false, "leaving": true })).await
}

/// Nobody comes in once it has begun, however late they read the tenant: the deletion may be past where they'd be.
#[tokio::test]
async fn sec_n05_nobody_comes_in_once_a_deletion_has_begun() {
    for by in ["create", "add to", "sign up", "code"] {
        let app = with_tenants(&["north"]).await;
        let north = tenant("north");
        let (_, alice) = signed_up(&app, "public", ALICE).await;
        let (users, bob) = (app.mfa.users(), Email::parse(BOB).unwrap());
        let flow = at(&app, "north").ask_code(BOB, false).await.ok();
        let code = app.code(BOB).await;
        app.store.before_next_commit(deletion(&app, &north).await);
        let (mut visitor, none) = (at(&app, "north"), ErrorKind::NotFound);
        match by {
            "create" => assert_eq!(users.create(&north, &bob).await.unwrap_err().kind(), none),
            "add to" => assert_eq!(users.add_to_tenants(&alice, [north]).await.unwrap_err().kind(), none),
            "sign up" => drop(visitor.sign_up(BOB).await.is(404)),
            _ => drop(visitor.enter(&flow, &code, false).await.is(404)),
        }
        let names =
            app.store.dump().await.into_keys().filter(|key| key.as_str().starts_with("t/north/login/"));
        assert_eq!(names.count(), 0, "{by}");
    }
}

/// Which factors may start a session, and which are asked for, is read when a code is entered, not when it was sent.
/// `racing`: another node changes it right before the session is written.
#[tokio::test]
async fn sec_n06_what_a_tenant_says_counts_when_a_factor_is_completed() {
    let either = || Passwordless::email_or_phone(Countries::all());
    for racing in [false, true] {
        let app = TestApp::with(|b| b.passwordless(either())).await;
        let (other, north) = (app.beside(|b| b.passwordless(either())).await, tenant("north"));
        other.mfa.tenants().create(&north, None).await.unwrap();
        let change = async |work: Pin<Box<dyn Future<Output = ()> + Send>>| match racing {
            true => app.store.before_commit_of("/session/", work),
            false => work.await,
        };
        let first = |first: Option<Vec<FactorId>>| {
            let (mfa, north) = (other.mfa.clone(), north.clone());
            Box::pin(async move { mfa.tenants().set_first_factors(&north, first).await.unwrap() })
        };
        let require = |factors: Vec<FactorId>| {
            let (mfa, north) = (other.mfa.clone(), north.clone());
            Box::pin(async move { mfa.tenants().require(&north, factors).await.unwrap() })
        };
        let nodes = [app.clone(), other.clone()];
        let mut alice = at(&app, "north");
        let (flow, code) = begun(&nodes, &mut alice, ALICE, false).await;
        change(first(Some(vec![FactorId::PASSWORD]))).await;
        alice.enter(&flow, &code, false).await.is(401);
        assert!(alice.access_token().is_none() && !app.store.has_rival());
        assert!(app.store.sessions().await.is_empty());
        first(None).await;
        // What is asked for from then on this session lacks; what is asked for no more it doesn't.
        for (required, met) in [(vec![FactorId::PASSWORD], false), (vec![], true)] {
            let (flow, code) = begun(&nodes, &mut alice, ALICE, false).await;
            change(require(required)).await;
            alice.enter(&flow, &code, false).await.ok();
            assert!(!app.store.has_rival());
            assert_eq!(alice.claim()["v"], met, "{racing}");
            alice.get("/api/me").await.is(if met { 200 } else { 403 });
        }
        // A second factor as well: the code was all that was asked for, and now it isn't asked for at all.
        let (mut bob, _) = signed_up(&app, "north", BOB).await;
        require(vec![FactorId::OTP_EMAIL]).await;
        bob.refresh().await.is(200);
        let (flow, code) = begun(&nodes, &mut bob, BOB, true).await;
        change(require(vec![FactorId::OTP_PHONE])).await;
        let refused = bob.enter(&flow, &code, true).await;
        refused.is(403);
        assert_eq!(refused.body["claimValidationErrors"][0]["id"], "st-mfa");
        assert!(!app.store.has_rival());
        assert_eq!(bob.claim()["v"], false);
        bob.get("/api/me").await.is(403);
        require(vec![FactorId::OTP_EMAIL]).await;
        bob.enter(&flow, &code, true).await.ok();
        bob.get("/api/me").await.is(200);
    }
}

/// A code that was sent while its country was allowed is worth nothing where it isn't any more, and no other one is
/// sent; nor does a node complete what it doesn't serve at all.
#[tokio::test]
async fn sec_n06_the_countries_count_when_a_code_is_entered() {
    let countries =
        |list: &[&'static str]| Passwordless::email_or_phone(Countries::only(list.iter().copied()).unwrap());
    let wide = TestApp::with(|b| b.passwordless(countries(&["HU", "DE"]))).await;
    let narrow = wide.beside(|b| b.passwordless(countries(&["HU"]))).await;
    let nodes = [wide.clone(), narrow, wide.beside(|b| b.passwordless(Passwordless::email())).await];
    let all: Vec<&TestApp> = nodes.iter().collect();
    for (second, german, number) in
        [(false, "+4915112345678", NUMBER), (true, "+4915112345679", "+36301111143")]
    {
        let (mut alice, mut bob) = (wide.browser(Mode::Header), wide.browser(Mode::Header));
        if second {
            for (browser, email) in [(&mut alice, ALICE), (&mut bob, BOB)] {
                let (flow, code) = begun(&nodes, browser, email, false).await;
                browser.enter(&flow, &code, false).await.ok();
            }
        }
        let (flow, code) = begun(&nodes, &mut alice, german, second).await;
        let before = (arrived(&all).await, wide.store.commits());
        for elsewhere in &nodes[1..] {
            let mut there = alice.at(elsewhere);
            there.enter(&flow, &code, second).await.status("RESTART_FLOW_ERROR");
            there.ask_again(&flow, second).await.status("RESTART_FLOW_ERROR");
            assert_eq!(there.access_token(), alice.access_token());
        }
        // Nothing was charged, sent or used up.
        assert_eq!((arrived(&all).await, wide.store.commits()), before);
        alice.enter(&flow, &code, second).await.ok();
        // One of a country that is allowed everywhere completes everywhere.
        let (flow, code) = begun(&nodes, &mut bob, number, second).await;
        bob.at(&nodes[1]).enter(&flow, &code, second).await.ok();
    }
}

/// What one tenant uses up is its own: another one's codes go out, as many as it has.
#[tokio::test]
async fn sec_n07_a_tenant_at_its_limit_takes_nothing_from_others() {
    let app = TestApp::limited(|b| {
        let mut limits = tower_mfa::config::SendLimits::default();
        limits.in_tenant = Some(3);
        b.send_limits(limits)
    })
    .await;
    for id in ["north", "south"] {
        app.mfa.tenants().create(&tenant(id), None).await.unwrap();
    }
    let email = |id: &str, n: usize| format!("{id}{n}@shop.example");
    for (id, sent) in [("north", 3), ("south", 6)] {
        for n in 0..40 {
            at(&app, id).ask_code(&email(id, n), false).await.status("OK");
        }
        assert_eq!(arrived(&[&app]).await, sent, "{id}");
    }
    // Those who came first.
    for (id, n) in [("north", 2), ("south", 2)] {
        assert_eq!((app.sent_to(&email(id, n)), app.sent_to(&email(id, n + 1))), (1, 0), "{id}");
    }
}
