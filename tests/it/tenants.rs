//! Tenants that are kept apart, switched off, deleted and made again.

use std::{collections::BTreeSet, time::Duration};

use axum::{Router, routing::get};
use http::Method;
use serde_json::{Value, json};
use tower_mfa::{
    FactorId, MfaLayer,
    account::TenantRule,
    guard::RequireTenant,
    ident::{Email, ErrorKind, TenantId, UserId},
    store::{Batch, Key, Scan, Store as _},
};

use crate::{
    spy::{ALICE, BOB, ending, handle},
    support::{Answer, Browser, Mode, PASSWORD, TestApp, credentials, send},
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

async fn call(app: &TestApp, browser: &Browser, path: &str, body: Value) -> Answer {
    app.send(browser.request(Method::POST, path, Some(body))).await
}

/// The session's tenant counts at the crate's routes, whatever the path says; routes of the app that serve one tenant
/// refuse sessions of another.
#[tokio::test]
async fn sec_n01_a_session_is_used_in_its_own_tenant_alone() {
    let app = with_tenants(&["north", "south"]).await;
    let (mut alice, _) = signed_up(&app, "north", ALICE).await;
    for path in ["/auth/south", "/auth/north", "/auth"] {
        let body = json!({ "email": ALICE, "shouldTryLinkingWithSessionUser": true });
        let flow = call(&app, &alice, &format!("{path}/signinup/code"), body).await.ok();
        let codes = app.store.codes().await;
        let of = |id: &str| codes.keys().filter(|key| key.as_str().starts_with(&format!("t/{id}/"))).count();
        assert_eq!((of("south"), of("public")), (0, 0), "{path}");
        let again = json!({
            "deviceId": flow["deviceId"], "preAuthSessionId": flow["preAuthSessionId"],
            "shouldTryLinkingWithSessionUser": true,
        });
        call(&app, &alice, &format!("{path}/signinup/code/resend"), again).await.status("OK");
        let code = app.code(ALICE).await;
        let guess = json!({
            "deviceId": flow["deviceId"], "preAuthSessionId": flow["preAuthSessionId"], "userInputCode": code,
            "shouldTryLinkingWithSessionUser": true,
        });
        let done = call(&app, &alice, &format!("{path}/signinup/code/consume"), guess).await;
        assert_eq!(done.status("OK").body["user"]["tenantIds"], json!(["north"]), "{path}");
        alice.keep(&done);
        assert!(handle(&alice).ends_with("_north"));
        app.clock.advance(Duration::from_secs(60));
    }
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

/// What a tenant's own answers are doesn't depend on what happens in another one (promise 14).
#[tokio::test]
async fn sec_n04_what_happens_in_another_tenant_changes_no_answer() {
    let mut runs = Vec::new();
    for busy in [false, true] {
        let app = with_tenants(&["a", "b"]).await;
        if busy {
            for email in [ALICE, BOB] {
                let (mut browser, user) = signed_up(&app, "b", email).await;
                browser.pass_code(email).await;
                app.mfa.roles().grant(&user, &tenant("b"), "admin").await.unwrap();
            }
            let rule = TenantRule::require([FactorId::OTP_EMAIL]);
            app.mfa.tenants().set_rule(&tenant("b"), rule).await.unwrap();
            app.mfa.tenants().set_first_factors(&tenant("b"), Some(vec![FactorId::PASSWORD])).await.unwrap();
            for _ in 0..5 {
                at(&app, "b").post("/auth/signin", credentials(ALICE, "wrong horse 1")).await;
            }
        }
        let mut alice = at(&app, "a");
        let mut seen = Vec::new();
        let answers = [
            alice.post("/auth/signin", credentials(ALICE, PASSWORD)).await,
            alice.sign_up(ALICE).await,
            alice.get("/auth/loginmethods").await,
            alice.info().await,
            alice.get("/api/me").await,
            alice.ask_code(ALICE, true).await,
            at(&app, "a").post("/auth/signup", credentials(ALICE, PASSWORD)).await,
            alice.sign_out().await,
            alice.sign_in(ALICE).await,
            alice.get("/api/me").await,
        ];
        for answer in answers {
            let names: BTreeSet<_> = answer.headers.keys().map(|name| name.as_str().to_owned()).collect();
            seen.push((answer.status, names, blank(answer.body)));
        }
        runs.push(seen);
    }
    assert_eq!(runs[0], runs[1]);
}

/// Without what is random.
fn blank(mut body: Value) -> Value {
    fn each(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let random = ["id", "userId", "recipeUserId", "deviceId", "preAuthSessionId"];
                    if random.contains(&name.as_str()) {
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
#[tokio::test]
async fn sec_n06_what_a_tenant_says_counts_when_a_factor_is_completed() {
    let app = with_tenants(&["north"]).await;
    let north = tenant("north");
    let mut alice = at(&app, "north");
    let flow = alice.ask_code(ALICE, false).await.ok();
    let code = app.code(ALICE).await;
    app.mfa.tenants().set_first_factors(&north, Some(vec![FactorId::PASSWORD])).await.unwrap();
    let refused = alice.enter(&flow, &code, false).await;
    assert!(refused.status != 200 || refused.body["status"] != "OK", "{}", refused.text);
    assert!(alice.access_token().is_none());
    app.mfa.tenants().set_first_factors(&north, None).await.unwrap();
    app.mfa.tenants().require(&north, [FactorId::OTP_EMAIL]).await.unwrap();
    let (mut bob, _) = signed_up(&app, "north", BOB).await;
    assert_eq!(bob.claim()["v"], false);
    bob.get("/api/me").await.is(403);
}

/// What one tenant uses up is its own: another one's codes go out.
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
    for n in 0..40 {
        at(&app, "north").ask_code(&format!("n{n}@shop.example"), false).await.status("OK");
    }
    let sent = (0..40).filter(|n| app.sent_to(&format!("n{n}@shop.example")) > 0).count();
    assert!(sent < 40, "{sent}");
    at(&app, "south").ask_code(BOB, false).await.status("OK");
    app.code(BOB).await;
}
