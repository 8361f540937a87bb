//! What callers may send, what they are told, and where a code's secrets are never found.

use std::{collections::BTreeSet, time::Duration};

use axum::Router;
use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};
use tower_mfa::{
    api::ApiLayer,
    config::{Countries, FlowType, Passwordless},
    ident::{Email, Phone, Secret, TenantId},
};
#[cfg(feature = "sqlite")]
use tower_mfa::{config::Secrets, store::SqliteStore};

use crate::{
    spy::{ALICE, BOB, Log, NUMBER},
    support::{Answer, Mode, TestApp, wrong},
};

const PUBLIC: TenantId = TenantId::PUBLIC;
const CREATE: &str = "/auth/signinup/code";
const CONSUME: &str = "/auth/signinup/code/consume";

fn either() -> Passwordless {
    Passwordless::email_or_phone(Countries::all())
}

#[tokio::test]
async fn sec_o18_one_destination_as_one_string() {
    let app = TestApp::with(|b| b.passwordless(either())).await;
    let mut client = app.browser(Mode::Header);
    for body in [
        json!({ "email": [ALICE, BOB] }),
        json!({ "email": { "to": ALICE } }),
        json!({ "email": { "$ne": null } }),
        json!({ "email": 1 }),
        json!({ "email": true }),
        json!({ "email": null }),
        json!({ "phoneNumber": [NUMBER] }),
        json!({ "phoneNumber": 36301111142_u64 }),
        json!({ "email": ALICE, "phoneNumber": NUMBER }),
        json!({ "email": ALICE, "phoneNumber": null }),
        json!({ "email": ALICE, "shouldTryLinkingWithSessionUser": "false" }),
        json!({}),
    ] {
        client.post(CREATE, body.clone()).await.is(400);
    }
    for text in [
        format!("{{\"email\":\"{ALICE}\",\"email\":\"{BOB}\"}}"),
        format!("{{\"email\":\"{ALICE}\",\"em\\u0061il\":\"{BOB}\"}}"),
    ] {
        let mut request = client.request(Method::POST, CREATE, Some(json!({})));
        *request.body_mut() = text.into();
        app.send(request).await.is(400);
    }
    // More than one in one string is no mistyped one.
    for text in [
        format!("{ALICE},{BOB}"),
        format!("{ALICE};{BOB}"),
        format!("{ALICE} {BOB}"),
        format!("{ALICE}\r\nBcc: {BOB}"),
        format!("{ALICE}%0aBcc:{BOB}"),
    ] {
        client.post(CREATE, json!({ "email": text })).await.is(400);
        client.post(CREATE, json!({ "phoneNumber": text })).await.status("GENERAL_ERROR");
    }
    for text in [format!("{NUMBER},{NUMBER}"), format!("{NUMBER}\r\n{NUMBER}")] {
        client.post(CREATE, json!({ "phoneNumber": text })).await.is(400);
    }
    for text in [format!("Alice <{ALICE}>"), format!("{ALICE}\0"), "alice".to_owned()] {
        client.post(CREATE, json!({ "email": text })).await.status("GENERAL_ERROR");
    }
    assert_eq!((app.store.queued(), app.store.codes().await.len()), (0, 0));
}

#[tokio::test]
async fn sec_o19_a_code_is_a_short_string_or_nothing_is_charged() {
    let app = TestApp::new().await;
    let mut client = app.browser(Mode::Header);
    let flow = client.ask_code(ALICE, false).await.ok();
    let code = app.code(ALICE).await;
    let ids = json!({ "deviceId": flow["deviceId"], "preAuthSessionId": flow["preAuthSessionId"] });
    let body = |members: Value| {
        let mut body = ids.clone();
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        body
    };
    let before = app.store.codes().await;
    for members in [
        json!({ "userInputCode": code.parse::<u32>().unwrap() }),
        json!({ "userInputCode": [code] }),
        json!({ "userInputCode": [code, "000000"] }),
        json!({ "userInputCode": { "$gt": "" } }),
        json!({ "userInputCode": null }),
        json!({ "userInputCode": true }),
        json!({ "userInputCode": "1".repeat(65) }),
        json!({ "userInputCode": format!("{code}{}", " ".repeat(59)) }),
        json!({ "userInputCode": code, "linkCode": "x" }),
        json!({ "linkCode": code }),
        json!({ "deviceId": [flow["deviceId"]], "userInputCode": code }),
        json!({ "preAuthSessionId": 1, "userInputCode": code }),
        json!({}),
    ] {
        client.post(CONSUME, body(members.clone())).await.is(400);
    }
    client.post(CONSUME, body(json!({ "userInputCode": "1".repeat(1 << 20) }))).await.is(413);
    assert_eq!(app.store.codes().await, before, "nothing is charged");
    // What can't be right is charged like any wrong code, and never compared.
    for (n, text) in (1..).zip(["", "12345", "１２３４５６", &format!("{code}\n")]) {
        let miss = client.enter(&flow, text, false).await;
        miss.status("INCORRECT_USER_INPUT_CODE_ERROR");
        assert_eq!(
            (&miss.body["failedCodeInputAttemptCount"], &miss.body["maximumCodeInputAttempts"]),
            (&json!(n), &json!(5))
        );
    }
    assert_eq!(app.mfa.counters().code_comparisons, 0);
    // The fifth guess, with spaces around it.
    client.enter(&flow, &format!("  {code} "), false).await.ok();
    assert_eq!(app.mfa.counters().code_comparisons, 1);
}

/// Whether a text has these digits by themselves.
fn has_digits(text: &str, code: &str) -> bool {
    text.match_indices(code).any(|(at, _)| {
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        !digit(text[..at].chars().next_back()) && !digit(text[at + code.len()..].chars().next())
    })
}

#[tokio::test]
async fn sec_o21_no_answer_no_log_and_no_record_has_the_code() {
    let (log, _guard) = Log::start();
    let app = TestApp::with(|b| b.passwordless(either().flow(FlowType::UserInputCodeAndMagicLink))).await;
    let mut told: Vec<Answer> = Vec::new();
    let (mut codes, mut links, mut devices) = (Vec::new(), Vec::new(), Vec::new());
    for contact in [ALICE, NUMBER] {
        for mode in [Mode::Cookie, Mode::Header] {
            let mut client = app.browser(mode);
            let seen = app.sent_to(contact);
            let created = client.ask_code(contact, false).await;
            let flow = created.body.clone();
            let names: BTreeSet<&str> = flow.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(names, BTreeSet::from(["deviceId", "flowType", "preAuthSessionId", "status"]));
            let notice = app.notice_after(contact, seen).await;
            devices.push(flow["deviceId"].as_str().unwrap().to_owned());
            let again = client.ask_again(&flow, false).await;
            let newer = app.notice_after(contact, seen + 1).await;
            for notice in [&notice, &newer] {
                codes.push(notice.code().unwrap().expose().clone());
                let link = notice.link().map(Secret::expose).unwrap();
                let (page, secret) = link.split_once('#').unwrap();
                assert!(!page.contains(secret) && !has_digits(page, codes.last().unwrap()));
                links.push(secret.to_owned());
            }
            let code = newer.code().unwrap().expose().clone();
            told.push(client.enter(&flow, &wrong(&code), false).await);
            told.push(client.enter(&flow, &code, false).await);
            told.last().unwrap().status("OK");
            told.extend([again]);
            // Of the answer that has the device by design, the headers.
            told.push(Answer { body: Value::Null, text: String::new(), ..created });
        }
    }
    let records: Vec<String> =
        app.store.dump().await.iter().map(|(key, row)| format!("{} {}", key.as_str(), row.body)).collect();
    let said: Vec<String> =
        told.iter().map(|answer| format!("{:?} {}", answer.headers, answer.text)).collect();
    // Without the time of day, whose fractions are digits too.
    let lines: Vec<String> = log
        .lines("", "")
        .iter()
        .map(|line| line.split_once(' ').map_or("", |(_, rest)| rest).to_owned())
        .collect();
    for text in records.iter().chain(&said).chain(&lines) {
        assert!(codes.iter().all(|code| !has_digits(text, code)), "{text}");
        assert!(links.iter().chain(&devices).all(|secret| !text.contains(secret)), "{text}");
    }
    assert!(records.iter().any(|record| record.contains("/code/")) && !lines.is_empty());
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sec_o02_neither_the_database_nor_its_log_has_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path().join("db")).await.unwrap();
    let app = TestApp::on(crate::spy::shop(), Secrets::random().unwrap(), store, |b| {
        b.passwordless(either().flow(FlowType::UserInputCodeAndMagicLink))
    })
    .await;
    let mut client = app.browser(Mode::Header);
    let mut secrets = Vec::new();
    for seen in 0..3 {
        let flow = client.ask_code(ALICE, false).await.ok();
        let notice = app.notice_after(ALICE, seen).await;
        secrets.push(flow["deviceId"].as_str().unwrap().to_owned());
        secrets.push(notice.link().unwrap().expose().split_once('#').unwrap().1.to_owned());
        // As a value in a record; six digits alone are anywhere.
        secrets.push(format!("\"{}\"", notice.code().unwrap().expose()));
    }
    let mut seen = 0;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        seen += usize::from(memchr::memmem::find(&bytes, b"pepper").is_some());
        for secret in &secrets {
            assert!(memchr::memmem::find(&bytes, secret.as_bytes()).is_none(), "{secret}");
        }
    }
    assert!(seen > 0, "the records are somewhere");
}

/// What asking did to the store: of each batch with a flow in it, the kinds of records; limits only if `limits`.
fn wrote(app: &TestApp, from: usize, limits: bool) -> Vec<Vec<String>> {
    let batches = app.store.written(from).into_iter().map(|keys| {
        let mut kinds: Vec<String> = keys
            .iter()
            .map(|key| {
                let parts: Vec<&str> = key.as_str().split('/').collect();
                match parts[0] {
                    "t" => parts[2].to_owned(),
                    "limit" => format!("limit {}", parts[1]),
                    other => other.to_owned(),
                }
            })
            .filter(|kind| limits || !kind.starts_with("limit"))
            .collect();
        kinds.sort();
        kinds
    });
    batches.filter(|kinds| kinds.iter().any(|kind| kind == "code")).collect()
}

/// An answer, but for what is random in it.
fn shape(answer: &Answer) -> Value {
    let mut body = answer.body.clone();
    for id in ["deviceId", "preAuthSessionId"] {
        let length = body[id].as_str().unwrap().len();
        body[id] = json!(length);
    }
    let headers: Vec<(String, usize)> =
        answer.headers.iter().map(|(name, value)| (name.to_string(), value.len())).collect();
    json!({ "status": answer.status.as_u16(), "body": body, "headers": headers })
}

#[tokio::test]
async fn sec_o24_asking_tells_nobody_who_has_an_account() {
    for signs_up in [true, false] {
        let passwordless = either().flow(FlowType::UserInputCodeAndMagicLink);
        let passwordless = if signs_up { passwordless } else { passwordless.without_sign_up() };
        let app = TestApp::limited(|b| b.passwordless(passwordless)).await;
        let users = app.mfa.users();
        let email = |text: &str| Email::parse(text).unwrap();
        users.create(&PUBLIC, &email("known@shop.example")).await.unwrap();
        let linked = users.create(&PUBLIC, &email("first@shop.example")).await.unwrap();
        users.add_email(&linked.id, &PUBLIC, &email("links@shop.example")).await.unwrap();
        users.add_phone(&linked.id, &PUBLIC, &Phone::parse(NUMBER).unwrap()).await.unwrap();
        let seen = async |contact: &str, limits: bool| {
            let (from, queued) = (app.store.written(0).len(), app.store.queued());
            let hashes = app.mfa.counters().password_hashes;
            let answer = app.browser(Mode::Header).ask_code(contact, false).await;
            assert_eq!(app.mfa.counters().password_hashes, hashes);
            (shape(&answer), wrote(&app, from, limits), app.store.queued() - queued, answer.body)
        };
        let known = seen("known@shop.example", true).await;
        assert_eq!((known.1.len(), known.2), (1, 1));
        for contact in ["links@shop.example", "other@shop.example"] {
            let other = seen(contact, true).await;
            assert_eq!((&other.0, &other.1, other.2), (&known.0, &known.1, known.2), "{contact}");
        }
        let (here, there) = (seen(NUMBER, true).await, seen("+36302222242", true).await);
        assert_eq!((&here.0, here.1, here.2), (&there.0, there.1, there.2));
        // Asked for again at once, over the limit of either.
        let known = seen("nobody@shop.example", false).await;
        for contact in ["known@shop.example", "links@shop.example", "other@shop.example"] {
            let limited = seen(contact, false).await;
            assert_eq!((&limited.0, &limited.1, limited.2), (&known.0, &known.1, known.2), "{contact}");
        }
        // What was not sent looks like any flow, and is never accepted: nobody has its code.
        let mut client = app.browser(Mode::Header);
        for (n, flow) in [&known.3, &there.3].into_iter().enumerate() {
            let compared = app.mfa.counters().code_comparisons;
            let miss = client.enter(flow, "123456", false).await;
            assert_eq!(
                miss.status("INCORRECT_USER_INPUT_CODE_ERROR").body["failedCodeInputAttemptCount"],
                1,
                "{n}"
            );
            assert_eq!(app.mfa.counters().code_comparisons, compared + 1);
        }
        // In one batch for all: to whom and to whom not shows once the last one went.
        app.clock.advance(Duration::from_secs(31));
        app.browser(Mode::Header).ask_code("first@shop.example", false).await.ok();
        app.notice_after("first@shop.example", 0).await;
        let strangers = usize::from(signs_up);
        assert_eq!(
            ["known@shop.example", "links@shop.example", NUMBER, "other@shop.example", "+36302222242"]
                .map(|contact| app.sent_to(contact)),
            [1, 1, 1, strangers, strangers]
        );
    }
}

#[tokio::test]
async fn sec_o29_another_spelling_is_no_other_destination() {
    let app = TestApp::limited(|b| b.passwordless(either())).await;
    let mut client = app.browser(Mode::Header);
    for (spellings, canonical) in [
        ([ALICE, "ALICE@shop.example", "  alice@SHOP.example "], ALICE),
        ([NUMBER, "+36 30 111 1142", "+36 (30) 111-1142"], NUMBER),
    ] {
        for spelling in spellings {
            client.ask_code(spelling.trim(), false).await.ok();
        }
        app.clock.advance(Duration::from_secs(31));
        client.ask_code(canonical, false).await.ok();
        app.notice_after(canonical, 1).await;
        assert_eq!(app.sent_to(canonical), 2, "one of the three, and one half a minute later");
    }
    assert_eq!(app.outbox.messages().len(), 4);
}

#[tokio::test]
async fn sec_o30_mail_goes_to_the_address_that_is_stored() {
    let app = TestApp::new().await;
    let mut alice = app.browser(Mode::Header);
    alice.by_code(ALICE).await;
    for spelling in ["ALICE@SHOP.EXAMPLE", "Alice@shop.example", " alice@shop.example "] {
        let seen = app.sent_to(ALICE);
        alice.ask_code(spelling, false).await.ok();
        assert_eq!(app.notice_after(ALICE, seen).await.to().as_str(), ALICE);
    }
    // Look-alikes are nobody's address.
    for spelling in ["al\u{131}ce@shop.example", "alice@shop.example\u{200b}", "\u{ff41}lice@shop.example"] {
        alice.ask_code(spelling, false).await.status("GENERAL_ERROR");
    }
    let user = app.mfa.users().load(&app.user(ALICE).await).await.unwrap().unwrap();
    let stored: Vec<&str> =
        user.logins.iter().filter_map(|login| Some(login.email.as_ref()?.as_str())).collect();
    assert!(app.outbox.messages().iter().all(|sent| stored.contains(&sent.notice.to().as_str())));
}

/// Row O38: a client that resets the stream right after its guess doesn't get the guess back.
#[tokio::test]
async fn sec_o38_a_guess_counts_though_its_client_is_gone() {
    let app = TestApp::new().await;
    let mut alice = app.browser(Mode::Header);
    let flow = alice.ask_code(ALICE, false).await.ok();
    let code = app.code(ALICE).await;
    let router = Router::new().layer(ApiLayer::new(app.mfa.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(router);
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = hyper_util::rt::TokioIo::new(stream);
        let _ = hyper_util::server::conn::auto::Builder::new(executor).serve_connection(io, service).await;
    });
    let (mut h2, connection) =
        h2::client::handshake(tokio::net::TcpStream::connect(to).await.unwrap()).await.unwrap();
    let connection = tokio::spawn(connection);
    let guess = json!({
        "deviceId": flow["deviceId"],
        "preAuthSessionId": flow["preAuthSessionId"],
        "userInputCode": wrong(&code),
    });
    let attempts =
        async || app.store.codes().await.into_values().next().unwrap().body["attempts"].as_u64().unwrap();
    let mut sent = 0;
    while attempts().await < 5 {
        sent += 1;
        assert!(sent < 2000, "guesses that nobody waits for aren't charged");
        h2 = h2.ready().await.unwrap();
        let uri = format!("http://{to}{CONSUME}");
        let request = Request::post(uri).header("content-type", "application/json").header("rid", "x");
        let (answer, mut body) = h2.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from(guess.to_string()), true).unwrap();
        // Sooner and later: some get as far as the charge, some as far as the comparison.
        for _ in 0..sent % 40 {
            tokio::task::yield_now().await;
        }
        body.send_reset(h2::Reason::CANCEL);
        drop(answer);
    }
    app.mfa.shutdown().await;
    assert!(app.mfa.counters().code_comparisons <= 5);
    let node = app.restarted().await;
    alice.at(&node).enter(&flow, &code, false).await.status("RESTART_FLOW_ERROR");
    connection.abort();
    server.abort();
}
