//! A password that was forgotten: the link by mail and what it does (rows L03, L08, O11, O24, S10).

use std::{sync::Arc, time::Duration};

use http::{Method, Request, header};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tower_mfa::{
    FactorId,
    ident::{Email, Phone, TenantId},
    store::Key,
};

use crate::{
    spy::{ALICE, BOB, NUMBER, linking, signed_up},
    support::{Answer, Browser, Mode, PASSWORD, TestApp, credentials, nodes::in_memory},
};

const NEW: &str = "another horse 2";
const OK: &str = "OK";
const INVALID: &str = "RESET_PASSWORD_INVALID_TOKEN_ERROR";

/// Asks for a link, as the SDKs' page does.
async fn ask(app: &TestApp, path: &str, email: &str) -> Answer {
    let body = json!({ "formFields": [{ "id": "email", "value": email }] });
    app.browser(Mode::Header).post(&format!("/auth{path}/user/password/reset/token"), body).await
}

async fn spend(app: &TestApp, path: &str, token: &str, password: &str) -> Answer {
    let body = json!({
        "method": "token",
        "token": token,
        "formFields": [{ "id": "password", "value": password }],
    });
    app.browser(Mode::Header).post(&format!("/auth{path}/user/password/reset"), body).await
}

/// What a link holds.
fn token(link: &str) -> String {
    link.split(['?', '&']).find_map(|part| part.strip_prefix("token=")).unwrap().to_owned()
}

async fn mailed(app: &TestApp, email: &str, seen: usize) -> String {
    app.notice_after(email, seen).await.link().unwrap().expose().clone()
}

/// Asks for a link and waits for it.
async fn ticket(app: &TestApp, email: &str) -> String {
    let seen = app.sent_to(email);
    ask(app, "", email).await.status(OK);
    token(&mailed(app, email, seen).await)
}

#[tokio::test]
async fn sec_s10_a_reset_by_mail_ends_every_session_and_what_is_under_way() {
    for mode in [Mode::Cookie, Mode::Header] {
        let app = TestApp::new().await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        alice.pass_code(ALICE).await;
        let mut other = app.browser(mode);
        other.sign_in(ALICE).await.ok();
        // Under way: a code to sign in with, one within a session, and two more links.
        let (first, second) = (other.clone().ask_code(ALICE, true).await.ok(), app.browser(mode));
        let within = app.code_after(ALICE, 1).await;
        let begun = second.clone().ask_code(ALICE, false).await.ok();
        let code = app.code_after(ALICE, 2).await;
        let (one, two) = (ticket(&app, ALICE).await, ticket(&app, ALICE).await);
        alice.get("/api/me").await.is(200);

        let done = spend(&app, "", &one, NEW).await;
        done.status(OK);
        assert_eq!(done.body, json!({ "status": "OK" }));
        // No session begins, none goes on.
        assert!(done.cookies().is_empty() && !done.headers.contains_key("front-token"));
        for browser in [&mut alice, &mut other] {
            browser.clone().get("/api/me").await.is(401);
            browser.refresh().await.is(401);
        }
        let user = app.user(ALICE).await;
        assert!(app.mfa.sessions().list(&user).await.unwrap().is_empty());
        for token in [&one, &two] {
            spend(&app, "", token, "yet another 3").await.status(INVALID);
        }
        app.browser(mode).enter(&begun, &code, false).await.status("RESTART_FLOW_ERROR");
        other.enter(&first, &within, true).await.is(401);

        app.browser(mode).sign_in(ALICE).await.status("WRONG_CREDENTIALS_ERROR");
        let mut alice = app.browser(mode);
        let signed_in = alice.post("/auth/signin", credentials(ALICE, NEW)).await.ok();
        // The mail proved the address; the code's login method had proved it before, so it stays.
        let verified: Vec<&Value> =
            signed_in["user"]["loginMethods"].as_array().unwrap().iter().map(|l| &l["verified"]).collect();
        assert_eq!(verified, [true, true]);
        let audited = app.store.audited().await;
        for what in ["password-reset-asked", "password-reset", "sessions-revoked"] {
            assert!(audited.contains(&what.to_owned()), "{what}: {audited:?}");
        }
    }
}

#[tokio::test]
async fn a_link_is_as_the_pages_read_it_and_works_for_an_hour() {
    let app = TestApp::new().await;
    signed_up(&app, Mode::Header, ALICE).await;
    ask(&app, "", &format!(" {} ", ALICE.to_uppercase())).await.status(OK);
    let link = mailed(&app, ALICE, 0).await;
    let one = token(&link);
    assert_eq!(link, format!("https://shop.test/auth/reset-password?token={one}&tenantId=public"));
    app.clock.advance(Duration::from_millis(3_600_000 - 1));
    let two = ticket(&app, ALICE).await;
    app.clock.advance(Duration::from_millis(1));
    spend(&app, "", &one, NEW).await.status(INVALID);
    app.clock.advance(Duration::from_millis(3_600_000 - 2));
    spend(&app, "", &two, NEW).await.status(OK);
    // Only a digest of it was ever stored.
    for (key, row) in app.store.dump().await {
        let text = format!("{} {}", key.as_str(), row.body);
        assert!(!text.contains(&one) && !text.contains(&two), "{text}");
    }
}

#[tokio::test]
async fn what_is_malformed_or_weak_uses_nothing_up() {
    let app = TestApp::new().await;
    signed_up(&app, Mode::Header, ALICE).await;
    let token = ticket(&app, ALICE).await;
    let hashes = app.mfa.counters().password_hashes;
    let fields = |id: &str, value: Value| json!([{ "id": id, "value": value }]);
    let weak = |error: &str| json!([{ "id": "password", "error": error }]);
    let whole = json!({ "method": "token", "token": token, "formFields": fields("password", json!(NEW)) });
    let with = |name: &str, value: Value| {
        let mut body = whole.clone();
        body[name] = value;
        body
    };
    let long = "a1".repeat(600);
    for body in [
        with("token", json!(1)),
        with("method", json!("otp")),
        with("method", Value::Null),
        with("formFields", json!({})),
        with("formFields", fields("password", json!(1))),
        with("formFields", fields("email", json!(ALICE))),
        with("formFields", fields("password", json!(long))),
        with("formFields", json!([{ "id": "password", "value": NEW }, { "id": "x", "value": "y" }])),
    ] {
        let mut client = app.browser(Mode::Header);
        client.post("/auth/user/password/reset", body.clone()).await.is(400);
    }
    for (password, error) in [
        ("", "Field is not optional"),
        ("short 1", "Password must have at least 8 characters"),
        ("no digit at all", "Password must contain a digit"),
    ] {
        let answer = spend(&app, "", &token, password).await;
        assert_eq!(answer.status("FIELD_ERROR").body["formFields"], weak(error));
    }
    for wrong in ["", "x", &token[1..], &format!("{}A", &token[1..])] {
        spend(&app, "", wrong, NEW).await.status(INVALID);
    }
    // In another tenant it is nobody's.
    let north = TenantId::parse("north").unwrap();
    app.mfa.tenants().create(&north, None).await.unwrap();
    spend(&app, "/north", &token, NEW).await.status(INVALID);
    spend(&app, "/south", &token, NEW).await.is(404);
    assert_eq!(app.mfa.counters().password_hashes, hashes);
    for (email, error) in [("", "Field is not optional"), ("alice", "Email is invalid")] {
        let answer = ask(&app, "", email).await;
        let told = json!([{ "id": "email", "error": error }]);
        assert_eq!(answer.status("FIELD_ERROR").body["formFields"], told);
    }
    ask(&app, "/south", ALICE).await.is(404);
    // A form of another site is refused before it is read.
    let foreign = Request::builder()
        .method(Method::POST)
        .uri("/auth/user/password/reset")
        .header(header::CONTENT_TYPE, "text/plain")
        .body(axum::body::Body::from(whole.to_string()))
        .unwrap();
    app.send(foreign).await.is(415);
    spend(&app, "", &token, NEW).await.status(OK);
}

/// Row O24 for links: unknown, known, known without a password, not allowed, and over the limit.
#[tokio::test]
async fn sec_o24_l08_asking_for_a_link_does_the_same_for_everybody() {
    let app = TestApp::limited(|b| b).await;
    let users = app.mfa.users();
    for email in [ALICE, BOB] {
        signed_up(&app, Mode::Header, email).await;
    }
    users.create(&TenantId::PUBLIC, &Email::parse("codes@shop.example").unwrap()).await.unwrap();
    // Bob's address isn't proved, and he can be reached otherwise.
    let bob = app.user(BOB).await;
    users.add_phone(&bob, &TenantId::PUBLIC, &Phone::parse(NUMBER).unwrap()).await.unwrap();
    let seen = async |email: &str| {
        let (from, queued) = (app.store.written(0).len(), app.store.queued());
        let hashes = app.mfa.counters().password_hashes;
        let answer = ask(&app, "", email).await;
        assert_eq!(app.mfa.counters().password_hashes, hashes);
        let headers: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
        let wrote: Vec<Vec<String>> = app.store.written(from).iter().map(|keys| kinds(keys)).collect();
        let wrote: Vec<_> = wrote.into_iter().filter(|kinds| kinds.contains(&"ticket".to_owned())).collect();
        ((answer.status, headers, wrote, app.store.queued() - queued), answer.body)
    };
    let (known, body) = seen(ALICE).await;
    assert_eq!((known.2.len(), known.3, body), (1, 1, json!({ "status": "OK" })));
    for email in ["nobody@shop.example", "codes@shop.example", "x@stfakeemail.supertokens.com"] {
        let (other, body) = seen(email).await;
        assert_eq!((&other, body), (&known, json!({ "status": "OK" })), "{email}");
    }
    let (not_allowed, body) = seen(BOB).await;
    assert_eq!(not_allowed, known);
    assert_eq!(body["status"], "PASSWORD_RESET_NOT_ALLOWED");
    let reason = body["reason"].as_str().unwrap();
    assert!(reason.ends_with("(ERR_CODE_001)") && !reason.contains("verif"), "{reason}");
    // The operator's log says what it was.
    assert!(app.store.audited().await.contains(&"password-reset-refused".to_owned()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((app.sent_to(ALICE), app.sent_to(BOB)), (1, 0));
    // Asked for again at once: the quota of the address is the same whoever it is, and says nothing.
    for email in [ALICE, "nobody@shop.example", BOB] {
        let (again, _) = seen(email).await;
        assert_eq!((again.0, again.1, again.3), (known.0, known.1.clone(), known.3), "{email}");
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(app.sent_to(ALICE), 1);
}

/// What a batch wrote, by kind.
fn kinds(keys: &[tower_mfa::store::Key]) -> Vec<String> {
    let kind = |key: &tower_mfa::store::Key| {
        let parts: Vec<&str> = key.as_str().split('/').collect();
        match parts[0] {
            "t" => parts[2].to_owned(),
            "limit" => format!("limit {}", parts[1]),
            other => other.to_owned(),
        }
    };
    let mut kinds: Vec<String> = keys.iter().map(kind).collect();
    kinds.sort();
    kinds
}

/// Row L08: who wrote somebody else's address beside their own means of contact doesn't lose the account to them.
#[tokio::test]
async fn sec_l08_an_unproved_address_resets_only_what_has_no_other_contact() {
    let app = TestApp::new().await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let (user, users) = (app.user(ALICE).await, app.mfa.users());
    users.add_phone(&user, &TenantId::PUBLIC, &Phone::parse(NUMBER).unwrap()).await.unwrap();
    ask(&app, "", ALICE).await.status("PASSWORD_RESET_NOT_ALLOWED");
    // Once the address is proved, by whatever login method, it may.
    alice.sign_in(ALICE).await.ok();
    alice.pass_code(ALICE).await;
    let token = ticket(&app, ALICE).await;
    spend(&app, "", &token, NEW).await.status(OK);
    // The number was added by its owner: it stays.
    assert_eq!(users.load(&user).await.unwrap().unwrap().logins.len(), 3);
}

/// Row L03: a squatter registers Alice's address and adds a number after she asked for the link; nothing of it outlives
/// her reset.
#[tokio::test]
async fn sec_l03_what_a_squatter_added_does_not_survive_the_reset() {
    let app = TestApp::new().await;
    let mut squatter = signed_up(&app, Mode::Header, ALICE).await;
    let (user, users) = (app.user(ALICE).await, app.mfa.users());
    let token = ticket(&app, ALICE).await;
    users.add_phone(&user, &TenantId::PUBLIC, &Phone::parse(NUMBER).unwrap()).await.unwrap();
    squatter.sign_in(ALICE).await.ok();
    spend(&app, "", &token, NEW).await.status(OK);
    squatter.get("/api/me").await.is(401);
    let logins = users.load(&user).await.unwrap().unwrap().logins;
    assert_eq!(logins.len(), 1);
    assert!(logins[0].verified && logins[0].phone.is_none());
    assert_eq!(users.by_phone(&TenantId::PUBLIC, &Phone::parse(NUMBER).unwrap()).await.unwrap(), None);
    // She is told of it.
    let told = |app: &TestApp| {
        let all = app.outbox.messages();
        all.iter().any(|sent| sent.notice.factor() == Some(&FactorId::OTP_PHONE))
    };
    for _ in 0..1000 {
        if told(&app) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("the owner was not told");
}

/// Row O11: what is proved by one kind of secret can't be spent as another.
#[tokio::test]
async fn sec_o11_a_reset_link_is_no_code_and_a_code_no_reset_link() {
    let app = TestApp::new().await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    let reset = ticket(&app, ALICE).await;
    let flow = alice.ask_code(ALICE, true).await.ok();
    let code = app.code_after(ALICE, 1).await;
    for other in [flow["deviceId"].as_str().unwrap(), flow["preAuthSessionId"].as_str().unwrap(), &code] {
        spend(&app, "", other, NEW).await.status(INVALID);
    }
    let mut body = json!({ "preAuthSessionId": flow["preAuthSessionId"], "linkCode": reset });
    body = linking(body).unwrap();
    let answer = alice.post("/auth/signinup/code/consume", body).await;
    assert_ne!(answer.body["status"], "OK", "{}", answer.text);
}

/// Of many who spend one link at once, over several nodes, one sets the password.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_s10_of_two_resets_with_one_link_one_wins() {
    let nodes = in_memory().await;
    signed_up(&nodes[0], Mode::Header, ALICE).await;
    for round in 0..4_usize {
        // Every other time with two links: spending one voids the other.
        let one = ticket(&nodes[0], ALICE).await;
        let two = if round.is_multiple_of(2) { one.clone() } else { ticket(&nodes[0], ALICE).await };
        let start = Arc::new(Barrier::new(4));
        let racers = (0..4).map(|n| {
            let (app, start) = (nodes[n % nodes.len()].clone(), Arc::clone(&start));
            let token = if n.is_multiple_of(2) { one.clone() } else { two.clone() };
            tokio::spawn(async move {
                start.wait().await;
                let password = format!("password {round} of {n}");
                (spend(&app, "", &token, &password).await, password)
            })
        });
        let (mut won, mut lost) = (Vec::new(), 0);
        for racer in racers.collect::<Vec<_>>() {
            let (answer, password) = racer.await.unwrap();
            match answer.body["status"].as_str() {
                Some(OK) => won.push(password),
                Some(INVALID) => lost += 1,
                _ => panic!("{}", answer.text),
            }
        }
        assert_eq!((won.len(), lost), (1, 3), "round {round}");
        let mut alice = nodes[0].browser(Mode::Header);
        alice.post("/auth/signin", credentials(ALICE, &won[0])).await.ok();
    }
}

/// Rows W05, O26: whoever tries passwords at a name in one tenant and another until it rests learns neither whose it is
/// nor where.
#[tokio::test]
async fn sec_w05_o26_a_name_rests_in_all_tenants_whoevers_it_is() {
    let app = TestApp::limited(|b| b).await;
    let south = TenantId::parse("south").unwrap();
    for tenant in [&TenantId::parse("north").unwrap(), &south] {
        app.mfa.tenants().create(tenant, None).await.unwrap();
    }
    let at = |tenant: &str| -> Browser {
        let mut client = app.browser(Mode::Header);
        client.tenant = Some(tenant.to_owned());
        client
    };
    let [both, one, two, nobody] =
        ["both", "one", "two", "nobody"].map(|name| format!("{name}@shop.example"));
    for (tenant, email) in [("north", &both), ("north", &one), ("north", &two), ("south", &two)] {
        at(tenant).sign_up(email).await.ok();
    }
    app.mfa.users().add_to_tenants(&app.user(&both).await, [south]).await.unwrap();
    let wrong = async |tenant: &str, email: &str| {
        let path = format!("/auth/{tenant}/signin");
        app.browser(Mode::Header).post(&path, credentials(email, "wrong horse 1")).await
    };
    for (first, then) in [("north", "south"), ("south", "north")] {
        let mut told = Vec::new();
        for email in [&both, &one, &two, &nobody] {
            let mut seen = Vec::new();
            for tenant in [first; 10].into_iter().chain([then, first, "public"]) {
                let from = app.store.written(0).len();
                let answer = wrong(tenant, email).await;
                let counts = |keys: &Vec<Key>| keys.iter().any(|key| key.as_str().starts_with("limit/"));
                let wrote: Vec<usize> =
                    app.store.written(from).iter().filter(|keys| counts(keys)).map(Vec::len).collect();
                let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
                names.sort_unstable();
                let wait = answer.headers.get(header::RETRY_AFTER).cloned();
                seen.push((answer.status, names, wait, wrote, answer.body));
            }
            let rests = seen.iter().map(|(.., body)| body["status"] == "GENERAL_ERROR");
            assert_eq!(rests.filter(|rests| *rests).count(), 3, "{email} {first}");
            told.push(seen);
        }
        assert!(told.iter().all(|seen| *seen == told[0]), "{first}");
        app.clock.advance(Duration::from_secs(16 * 60));
    }
    // A right one gives tries back, wherever it is tried.
    for tenant in ["north", "south", "north"] {
        for _ in 0..9 {
            wrong(tenant, &both).await.status("WRONG_CREDENTIALS_ERROR");
        }
        at(tenant).sign_in(&both).await.ok();
    }
}

/// Row W05: a reset takes back what was guessed at the old password.
#[tokio::test]
async fn sec_w05_the_budget_is_the_users_and_a_reset_sets_it_back() {
    let app = TestApp::limited(|b| b).await;
    let mut alice = signed_up(&app, Mode::Header, ALICE).await;
    // A second name for the same account.
    let body = linking(credentials("alice.two@shop.example", PASSWORD)).unwrap();
    alice.post("/auth/signup", body).await.ok();
    let wrong = async |email: &str| -> Answer {
        let mut client: Browser = app.browser(Mode::Header);
        client.post("/auth/signin", credentials(email, "wrong horse 1")).await
    };
    for n in 0..10 {
        let email = if n % 2 == 0 { ALICE } else { "alice.two@shop.example" };
        wrong(email).await.status("WRONG_CREDENTIALS_ERROR");
    }
    let hashes = app.mfa.counters().password_hashes;
    for email in [ALICE, "alice.two@shop.example"] {
        wrong(email).await.status("GENERAL_ERROR");
        // Not even by the right one.
        app.browser(Mode::Header).sign_in(email).await.status("GENERAL_ERROR");
    }
    assert_eq!(app.mfa.counters().password_hashes, hashes);
    // Somebody else has a budget of their own, an unknown name as well.
    for n in 0..10 {
        wrong("nobody@shop.example").await.status("WRONG_CREDENTIALS_ERROR");
        assert!(n < 10);
    }
    wrong("nobody@shop.example").await.status("GENERAL_ERROR");
    // A link that her mailbox got opens the door again, with a whole budget, long before the quarter of an hour is over.
    alice.pass_code(ALICE).await;
    app.clock.advance(Duration::from_secs(31));
    let token = ticket(&app, ALICE).await;
    spend(&app, "", &token, NEW).await.status(OK);
    for _ in 0..9 {
        wrong(ALICE).await.status("WRONG_CREDENTIALS_ERROR");
    }
    app.browser(Mode::Header).post("/auth/signin", credentials(ALICE, NEW)).await.ok();
}
