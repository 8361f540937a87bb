//! Users who are disabled: no door is open to them, whatever was begun before, and none tells more than it must (rows
//! C10, O24, R14, S10, W04, W06).

use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, Version as Argon2Version};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tower_mfa::{
    FactorId,
    config::{EmailVerification, FactorChanges, FlowType, Passwordless},
    ident::{Email, ErrorKind, TenantId, UserId},
    store::{Key, Row},
};

use crate::{
    linking::{Always, Says, by_provider},
    spy::{ALICE, BOB, ending, linking, signed_up},
    support::{Browser, Mode, PASSWORD, TestApp, credentials},
};

const MODES: [Mode; 2] = [Mode::Cookie, Mode::Header];
const PUBLIC: TenantId = TenantId::PUBLIC;
const NEW: &str = "another horse 2";

/// Every way to be somebody, or to go on being them.
const DOORS: [&str; 14] = [
    "password",
    "code",
    "link",
    "third party",
    "the app's own",
    "request",
    "info",
    "refresh",
    "second factor by code",
    "second factor by password",
    "second factor by third party",
    "reset",
    "verification",
    "ask for verification",
];

/// Alice, by all her login methods, with something begun at every door.
struct Scene {
    app: TestApp,
    user: UserId,
    alice: Browser,
    flow: Value,
    code: String,
    link: String,
    within: Value,
    code_within: String,
    reset: String,
    verification: String,
}

fn token(link: &str) -> String {
    link.split(['?', '&']).find_map(|part| part.strip_prefix("token=")).unwrap().to_owned()
}

fn fields(password: &str, token: &str) -> Value {
    json!({ "method": "token", "token": token, "formFields": [{ "id": "password", "value": password }] })
}

async fn mailed(app: &TestApp, seen: usize) -> String {
    token(app.notice_after(ALICE, seen).await.link().unwrap().expose())
}

impl Scene {
    async fn new(mode: Mode) -> Self {
        let app = TestApp::with(|b| {
            b.email_verification(EmailVerification::Optional)
                .passwordless(Passwordless::email().flow(FlowType::UserInputCodeAndMagicLink))
                .factor_changes(FactorChanges::Compat)
                .third_party(Says::new().settings())
        })
        .await;
        let mut alice = signed_up(&app, mode, ALICE).await;
        let user = app.user(ALICE).await;
        alice.post("/auth/user/email/verify/token", json!({})).await.ok();
        let verification = mailed(&app, 0).await;
        let seen = app.sent_to(ALICE);
        let flow = alice.ask_code(ALICE, true).await.ok();
        let code = app.code_after(ALICE, seen).await;
        alice.enter(&flow, &code, true).await.ok();
        by_provider(&mut alice, "alice", true).await.ok();
        let seen = app.sent_to(ALICE);
        let flow = app.browser(mode).ask_code(ALICE, false).await.ok();
        let notice = app.notice_after(ALICE, seen).await;
        let (code, link) = (notice.code().unwrap().expose(), notice.link().unwrap().expose());
        let within = alice.ask_code(ALICE, true).await.ok();
        let code_within = app.code_after(ALICE, seen + 1).await;
        let body = json!({ "formFields": [{ "id": "email", "value": ALICE }] });
        app.browser(mode).post("/auth/user/password/reset/token", body).await.ok();
        let reset = mailed(&app, seen + 2).await;
        let (code, link) = (code.clone(), link.clone());
        Self { app, user, alice, flow, code, link, within, code_within, reset, verification }
    }

    /// Whether a door opens, as it does for the user whom it is about.
    async fn opens(&self, door: &str) -> bool {
        let (mut nobody, mut alice) = (self.app.browser(self.alice.mode), self.alice.clone());
        let answer = match door {
            "password" => nobody.sign_in(ALICE).await,
            "code" => nobody.enter(&self.flow, &self.code, false).await,
            "link" => nobody.open(&self.link, false).await,
            "third party" => by_provider(&mut nobody, "alice", false).await,
            "the app's own" => {
                let (parts, ()) = Request::get("/").body(()).unwrap().into_parts();
                return match self.app.mfa.sign_in(&parts, &self.user, &PUBLIC, FactorId::PASSWORD).await {
                    // Of an id that was hers somebody new is made.
                    Ok((session, _tokens)) => {
                        let user = self.app.mfa.users().load(&session.user_id()).await.unwrap().unwrap();
                        user.logins.iter().any(|login| login.email.is_some())
                    }
                    Err(error) => {
                        let stored = self.app.mfa.users().load(&self.user).await.unwrap();
                        let disabled = stored.is_some_and(|user| user.disabled);
                        let kind = if disabled { ErrorKind::Refused } else { ErrorKind::Invalid };
                        assert_eq!(error.kind(), kind);
                        false
                    }
                };
            }
            "request" => return alice.get("/api/half").await.status == 200,
            "info" => alice.info().await,
            "refresh" => return alice.refresh().await.status == 200,
            "second factor by code" => alice.enter(&self.within, &self.code_within, true).await,
            "second factor by password" => {
                alice.post("/auth/signin", linking(credentials(ALICE, PASSWORD)).unwrap()).await
            }
            "second factor by third party" => by_provider(&mut alice, "alice", true).await,
            "reset" => nobody.post("/auth/user/password/reset", fields(NEW, &self.reset)).await,
            "verification" => {
                let body = json!({ "method": "token", "token": self.verification });
                nobody.post("/auth/user/email/verify", body).await
            }
            "ask for verification" => {
                let answer = alice.post("/auth/user/email/verify/token", json!({})).await;
                return answer.body["status"] == "EMAIL_ALREADY_VERIFIED_ERROR";
            }
            other => panic!("{other}"),
        };
        let opened = answer.status == StatusCode::OK && answer.body["status"] == "OK";
        // Whoever signs up by what was hers is somebody else.
        let other = |id: &str| id != self.user.as_str();
        opened && !answer.body["user"]["id"].as_str().is_some_and(other)
    }
}

/// Row W06: every door by every state. What was begun while it was open is held against what is when it is completed.
#[tokio::test]
async fn sec_w06_no_door_is_left_open() {
    for door in DOORS {
        assert!(Scene::new(Mode::Header).await.opens(door).await, "{door} is no door");
    }
    for mode in MODES {
        for state in ["disabled", "disabled and enabled", "deleted", "left"] {
            let scene = Scene::new(mode).await;
            let users = scene.app.mfa.users();
            match state {
                "disabled" => assert!(users.disable(&scene.user).await.unwrap().disabled),
                "disabled and enabled" => {
                    users.disable(&scene.user).await.unwrap();
                    assert!(!users.enable(&scene.user).await.unwrap().disabled);
                }
                "deleted" => users.delete(&scene.user).await.unwrap(),
                _ => drop(users.remove_from_tenant(&scene.user, &PUBLIC).await.unwrap()),
            }
            // What was begun before is over for good; what can be begun anew can be by whoever may sign in.
            let anew = ["password", "third party", "the app's own"];
            for door in DOORS {
                let open = state == "disabled and enabled" && anew.contains(&door);
                assert_eq!(scene.opens(door).await, open, "{door}: {state}");
            }
        }
    }
}

/// Row W06, between start and completion: somebody is disabled after everything was read and right before it is
/// written.
#[tokio::test]
async fn sec_w06_a_lock_that_comes_between_counts() {
    let doors = [
        "password",
        "code",
        "link",
        "third party",
        "the app's own",
        "second factor by code",
        "second factor by password",
        "reset",
        "verification",
    ];
    for door in doors {
        let scene = Scene::new(Mode::Header).await;
        // What disabling does to the records that a sign-in reads, and to no code or link.
        let disabling = ending(&scene.app, ["user", scene.user.as_str()], json!({ "disabled": true }));
        scene.app.store.before_next_commit(disabling.await);
        // A guess is charged in a commit of its own: the door is shut by then.
        assert!(!scene.opens(door).await, "{door}");
        let rows = scene.app.store.dump().await;
        let sessions = rows.iter().filter(|(key, _)| key.as_str().contains("/session/")).count();
        assert_eq!(sessions, 1, "{door}: none was begun");
    }
}

/// Row W04: one hash whoever it is, and one answer.
#[tokio::test]
async fn sec_w04_disabled_users_cost_one_hash_and_are_told_nothing() {
    let app = TestApp::new().await;
    signed_up(&app, Mode::Header, ALICE).await;
    let users = app.mfa.users();
    let email = Email::parse("codes@shop.example").unwrap();
    users.create(&PUBLIC, &email).await.unwrap();
    // One whose hash would be made anew, as a second one.
    let params = Params::new(8 * 1024, 1, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Argon2Version::V0x13, params);
    let old = argon2.hash_password_with_salt(PASSWORD.as_bytes(), b"saltsaltsaltsalt").unwrap().to_string();
    let bob = users.import_password_hash(&PUBLIC, &Email::parse(BOB).unwrap(), old, true).await.unwrap();
    for user in [app.user(ALICE).await, bob.id] {
        users.disable(&user).await.unwrap();
    }
    let mut told = Vec::new();
    for (email, password) in [
        ("nobody@shop.example", PASSWORD),
        ("codes@shop.example", PASSWORD),
        (ALICE, "wrong horse 1"),
        (ALICE, PASSWORD),
        (BOB, "wrong horse 1"),
        (BOB, PASSWORD),
    ] {
        let hashes = app.mfa.counters().password_hashes;
        let mut client = app.browser(Mode::Header);
        let answer = client.post("/auth/signin", credentials(email, password)).await;
        assert_eq!(app.mfa.counters().password_hashes, hashes + 1, "{email} {password}");
        let headers: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
        told.push((answer.status, headers, answer.text));
    }
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    assert!(told[0].2.contains("WRONG_CREDENTIALS_ERROR"));
    // Operators see that somebody knew the password.
    let audited = app.store.audited().await;
    assert_eq!(audited.iter().filter(|what| *what == "disabled-refused").count(), 2);
}

/// Rows S10, R14 and C10: with the account goes every session, and what is under way; the refresh route clears the
/// client's tokens, and no other one does.
#[tokio::test]
async fn sec_s10_r14_c10_disabling_ends_every_session() {
    for mode in MODES {
        let scene = Scene::new(mode).await;
        let (app, users) = (&scene.app, scene.app.mfa.users());
        let mut other = app.browser(mode);
        other.sign_in(ALICE).await.ok();
        let mut bob = signed_up(app, mode, BOB).await;
        users.disable(&scene.user).await.unwrap();
        assert!(app.mfa.sessions().list(&scene.user).await.unwrap().is_empty());
        let rows = app.store.dump().await;
        let of_alice = |row: &Row| row.body["user"] == scene.user.as_str();
        assert!(!rows.iter().any(|(key, row)| key.as_str().contains("/session/") && of_alice(row)));
        for client in [scene.alice.clone(), other] {
            let mut client = client;
            for path in ["/api/me", "/auth/user/email/verify"] {
                let refused = client.clone().get(path).await;
                refused.is(401);
                assert!(crate::spy::token_headers(&refused).is_empty(), "{path}");
            }
            let refused = client.refresh().await;
            assert_eq!((refused.status.as_u16(), &refused.body["message"]), (401, &json!("unauthorised")));
            assert!(client.access_token().is_none() && client.refresh_token().is_none());
        }
        bob.get("/api/me").await.is(200);
        // Enabled again, what was mailed before is worth nothing, and a new link works.
        users.enable(&scene.user).await.unwrap();
        for door in ["code", "link", "reset", "verification"] {
            assert!(!scene.opens(door).await, "{door}");
        }
        app.browser(mode).sign_in(ALICE).await.ok();
        let audited = app.store.audited().await;
        for what in ["user-disabled", "user-enabled", "sessions-revoked"] {
            assert!(audited.contains(&what.to_owned()), "{what}");
        }
    }
}

/// Row O24: codes and links for somebody who is disabled look like any others, and are sent to nobody.
#[tokio::test]
async fn sec_o24_asking_for_a_code_tells_nothing_of_a_disabled_user() {
    for signs_up in [true, false] {
        let passwordless = || match signs_up {
            true => Passwordless::email(),
            false => Passwordless::email().without_sign_up(),
        };
        let app = TestApp::limited(|b| b.passwordless(passwordless())).await;
        let users = app.mfa.users();
        for email in [ALICE, BOB] {
            users.create(&PUBLIC, &Email::parse(email).unwrap()).await.unwrap();
        }
        users.disable(&app.user(BOB).await).await.unwrap();
        let mut seen = Vec::new();
        for email in [ALICE, BOB] {
            let (from, queued) = (app.store.written(0).len(), app.store.queued());
            let answer = app.browser(Mode::Header).ask_code(email, false).await;
            let names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
            let members: Vec<String> = answer.body.as_object().unwrap().keys().cloned().collect();
            let wrote: Vec<Vec<String>> = app.store.written(from).iter().map(|keys| kinds(keys)).collect();
            let wrote: Vec<_> =
                wrote.into_iter().filter(|kinds| kinds.contains(&"code".to_owned())).collect();
            seen.push((answer.status, names, members, wrote, app.store.queued() - queued));
            // Sent again, it is the same.
            app.clock.advance(std::time::Duration::from_secs(31));
            app.browser(Mode::Header).ask_again(&answer.body, false).await.ok();
        }
        assert_eq!(seen[0], seen[1]);
        assert_eq!((seen[0].3.len(), seen[0].4), (1, 1), "one code, one message");
        app.code_after(ALICE, 1).await;
        assert_eq!(app.sent_to(BOB), 0, "signs up: {signs_up}");
    }
    // The link to set a password, too: see the answers of everybody else in `resets`.
    let app = TestApp::new().await;
    signed_up(&app, Mode::Header, ALICE).await;
    app.mfa.users().disable(&app.user(ALICE).await).await.unwrap();
    let body = json!({ "formFields": [{ "id": "email", "value": ALICE }] });
    app.browser(Mode::Header).post("/auth/user/password/reset/token", body).await.ok();
    assert!(app.store.audited().await.contains(&"disabled-refused".to_owned()));
    signed_up(&app, Mode::Header, BOB).await;
    let body = json!({ "formFields": [{ "id": "email", "value": BOB }] });
    app.browser(Mode::Header).post("/auth/user/password/reset/token", body).await.ok();
    app.notice_after(BOB, 0).await;
    assert_eq!(app.sent_to(ALICE), 0);
}

fn kinds(keys: &[Key]) -> Vec<String> {
    let kind = |key: &Key| {
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

/// Whoever proved who they are is told that they can't sign in; and nobody gets out of such an account by proving its
/// address within another one.
#[tokio::test]
async fn who_proved_it_is_told_and_stays_out() {
    // Of a rule that would let everything join.
    let app = TestApp::with(|b| {
        b.third_party(Says::new().settings()).linking(Always).factor_changes(FactorChanges::Compat)
    })
    .await;
    let users = app.mfa.users();
    by_provider(&mut app.browser(Mode::Header), "alice", false).await.ok();
    users.disable(&app.user(ALICE).await).await.unwrap();
    let refused = by_provider(&mut app.browser(Mode::Header), "alice", false).await;
    refused.status("SIGN_IN_UP_NOT_ALLOWED");
    assert!(refused.body["reason"].as_str().unwrap().ends_with("(ERR_CODE_004)"), "{}", refused.text);
    assert!(crate::spy::token_headers(&refused).is_empty());
    let mut bob = signed_up(&app, Mode::Header, BOB).await;
    let refused = by_provider(&mut bob, "alice", true).await;
    assert_ne!(refused.body["status"], "OK", "{}", refused.text);
    let codes = users.create(&PUBLIC, &Email::parse("codes@shop.example").unwrap()).await.unwrap();
    users.disable(&codes.id).await.unwrap();
    let flow = bob.ask_code("codes@shop.example", true).await.ok();
    let code = app.code("codes@shop.example").await;
    let refused = bob.enter(&flow, &code, true).await;
    refused.status("SIGN_IN_UP_NOT_ALLOWED");
    assert!(refused.body["reason"].as_str().unwrap().ends_with("(ERR_CODE_017)"), "{}", refused.text);
    assert!(users.load(&codes.id).await.unwrap().unwrap().disabled);
    assert_eq!(users.load(&app.user(BOB).await).await.unwrap().unwrap().logins.len(), 1);
    let nobody = UserId::parse("nobody").unwrap();
    assert_eq!(users.disable(&nobody).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(users.enable(&nobody).await.unwrap_err().kind(), ErrorKind::NotFound);
}
