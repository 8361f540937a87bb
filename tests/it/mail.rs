//! Mail through a real server on loopback, and through servers that lie.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use tower_mfa::{
    config::ConfigError,
    delivery::{Courier, DeliveryError, EmailTransport as _, Envelope, Message, SmtpTransport},
    hooks::{Audited, Cause},
    ident::{Email, Secret, TenantId, Timestamp},
};

use crate::{
    spy::{ALICE, everyone},
    support::{
        Browser, Mode, TestApp,
        mail::{Authority, MailServer},
    },
};

const FROM: &str = "Corner Shop <no-reply@shop.example>";

fn envelope() -> Envelope {
    let now = Timestamp::from_secs(1_700_000_000);
    let id = "0123456789abcdef0123456789abcdef";
    Envelope::new(id, TenantId::PUBLIC, now, now + Duration::from_secs(600))
}

async fn send(smtp: &SmtpTransport, to: &str) -> Result<(), DeliveryError> {
    let message = Message::new("Hello", "123456\n.\n..two dots").html("<p>123456</p>");
    smtp.send(&envelope(), &Email::parse(to).unwrap(), &message).await
}

fn login(smtp: SmtpTransport, password: &str) -> Result<SmtpTransport, ConfigError> {
    smtp.credentials("shop", Secret::new(password.to_owned()))
}

/// The text of a part, as its reader sees it.
fn decoded(text: &str) -> String {
    text.replace("=\r\n", "").replace("=3D", "=")
}

fn message_id(message: &Value) -> &str {
    let text = message["text"].as_str().unwrap();
    text.lines().find_map(|line| line.strip_prefix("Message-ID: ")).unwrap()
}

#[tokio::test]
async fn sec_v06_implicit_tls_and_starttls_both_carry_credentials_and_a_message() {
    let authority = Authority::new();
    for tls in ["implicit", "starttls"] {
        let server =
            MailServer::with_tls(&authority, tls, json!({ "user": "shop", "password": "p4ss" })).await;
        let smtp = match tls {
            "implicit" => SmtpTransport::relay("localhost", FROM),
            _ => SmtpTransport::starttls_relay("localhost", FROM),
        };
        let smtp = smtp.unwrap().port(server.port).root_certificate(authority.pem().as_bytes()).unwrap();
        let right = login(smtp.clone(), "p4ss").unwrap();
        for _ in 0..3 {
            send(&right, ALICE).await.unwrap();
        }
        let messages = server.wait_for("message", 3).await;
        for message in &messages {
            assert_eq!((&message["secure"], &message["to"]), (&json!(true), &json!([ALICE])), "{tls}");
            assert_eq!(message["from"], "no-reply@shop.example");
            let text = message["text"].as_str().unwrap();
            assert!(decoded(text).contains("123456\r\n.\r\n..two dots"), "{text}");
        }
        // One connection, and one log-in, for all of them.
        let auths = server.events("auth");
        assert_eq!((server.events("connect").len(), auths.len()), (1, 1));
        assert_eq!((&auths[0]["secure"], &auths[0]["right"]), (&json!(true), &json!(true)));
        // Wrong credentials are the operator's to mend.
        let error = send(&login(smtp, "other").unwrap(), ALICE).await.unwrap_err();
        assert_eq!((error.is_permanent(), error.reason()), (false, Some("connection: smtp 535")));
    }
}

#[tokio::test]
async fn sec_v06_a_certificate_of_another_host_or_of_nobody_gets_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    for tls in ["implicit", "starttls"] {
        for (issuer, host) in [(&authority, "mail.other.example"), (&other, "localhost")] {
            let settings = json!({ "user": "shop", "password": "p4ss", "host": host });
            let server = MailServer::with_tls(issuer, tls, settings).await;
            let smtp = match tls {
                "implicit" => SmtpTransport::relay("localhost", FROM),
                _ => SmtpTransport::starttls_relay("localhost", FROM),
            };
            let smtp = smtp.unwrap().port(server.port).root_certificate(authority.pem().as_bytes()).unwrap();
            let error = send(&login(smtp, "p4ss").unwrap(), ALICE).await.unwrap_err();
            assert_eq!(
                (error.is_permanent(), error.reason()),
                (false, Some("connection: tls")),
                "{tls} {host}"
            );
            assert!(server.events("auth").is_empty() && server.events("message").is_empty());
        }
    }
}

/// A server of a few scripted answers; what it was told.
async fn scripted(answers: &'static [&'static str]) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut told = Vec::new();
        for answer in answers {
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.read_until(b'\n', &mut told).await.unwrap();
        }
        // Whatever else is said.
        let _ = tokio::time::timeout(Duration::from_millis(500), stream.read_to_end(&mut told)).await;
        String::from_utf8_lossy(&told).into_owned()
    });
    (port, task)
}

#[tokio::test]
async fn sec_v06_without_its_starttls_a_server_hears_a_greeting_and_nothing_else() {
    // The offer is taken out on the way, or its answer.
    for answers in [
        &["220 mail\r\n", "250-mail\r\n250 AUTH PLAIN LOGIN\r\n"][..],
        &["220 mail\r\n", "250-mail\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n", "454 not now\r\n"],
        // It goes on in plain text, with an answer at hand.
        &["220 mail\r\n", "250-mail\r\n250 STARTTLS\r\n", "220 go\r\n250-mail\r\n250 AUTH PLAIN\r\n"],
    ] {
        let (port, told) = scripted(answers).await;
        let smtp = SmtpTransport::starttls_relay("localhost", FROM).unwrap().port(port);
        let error = send(&login(smtp, "p4ss").unwrap(), ALICE).await.unwrap_err();
        assert!(!error.is_permanent());
        let told = told.await.unwrap();
        for word in ["AUTH", "MAIL", "RCPT", "shop", "alice", "c2hvcA", "p4ss"] {
            assert!(!told.contains(word), "{told}");
        }
    }
}

#[tokio::test]
async fn refusals_of_a_recipient_are_permanent_and_busy_ones_are_not() {
    for (code, permanent) in [(550, true), (552, true), (451, false)] {
        let server = MailServer::start(json!({ "refuse": code })).await;
        let smtp = SmtpTransport::dangerous_plaintext("127.0.0.1", server.port, FROM).unwrap();
        let error = send(&smtp, ALICE).await.unwrap_err();
        assert_eq!(error.is_permanent(), permanent, "{code}");
        assert_eq!(error.reason(), Some(format!("smtp: smtp {code}").as_str()));
        assert!(server.events("message").is_empty());
    }
    // Nobody is there.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let smtp = SmtpTransport::dangerous_plaintext("127.0.0.1", port, FROM).unwrap();
    assert!(!send(&smtp, ALICE).await.unwrap_err().is_permanent());
}

#[tokio::test]
async fn sec_v07_one_recipient_the_canonical_address_whatever_the_request_spelt() {
    let server = MailServer::start(json!({})).await;
    let app = by_mail(&server).await;
    let mut browser = app.browser(Mode::Header);
    // This server shows domains as people read them; the header has them as they are sent.
    for (spelt, canonical, shown) in [
        (" Alice@SHOP.example ", "alice@shop.example", "alice@shop.example"),
        ("zoe+x@BÜCHER.example", "zoe+x@xn--bcher-kva.example", "zoe+x@bücher.example"),
        ("o'neil=a@shop.example", "o'neil=a@shop.example", "o'neil=a@shop.example"),
    ] {
        let seen = server.events("rcpt").len();
        browser.post("/auth/signinup/code", json!({ "email": spelt })).await.ok();
        let asked = server.wait_for("rcpt", seen + 1).await;
        let message = server.wait_for("message", seen + 1).await.pop().unwrap();
        assert_eq!(asked[seen]["to"], shown);
        assert_eq!((asked.len(), &message["to"]), (seen + 1, &json!([shown])));
        assert!(message["text"].as_str().unwrap().contains(&format!("\r\nTo: {canonical}\r\n")));
        assert!(asked[seen]["args"].as_object().is_none_or(serde_json::Map::is_empty));
    }
    for spelt in [
        "a@shop.example\r\nRCPT TO:<mallory@shop.example>",
        "a@shop.example> ORCPT=rfc822;mallory@shop.example",
        "\"mallory@evil.example\"@shop.example",
        "<a@shop.example>",
        "a@shop.example,mallory@shop.example",
        "a b@shop.example",
        ".a@shop.example",
    ] {
        let answer = browser.post("/auth/signinup/code", json!({ "email": spelt })).await;
        assert_ne!(answer.body["status"], "OK", "{spelt}");
    }
    app.mfa.shutdown().await;
    assert_eq!(server.events("rcpt").len(), 3);
}

async fn by_mail(server: &MailServer) -> TestApp {
    let smtp = SmtpTransport::dangerous_plaintext("127.0.0.1", server.port, FROM).unwrap();
    TestApp::with(|builder| builder.delivery(Courier::new(smtp))).await
}

/// The code of a mail to a person.
fn code_of(message: &Value) -> String {
    let text = message["text"].as_str().unwrap();
    text.lines().find_map(|line| line.strip_prefix("    ")).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_code_arrives_by_mail_and_signs_in() {
    let server = MailServer::start(json!({})).await;
    let app = by_mail(&server).await;
    let mut alice: Browser = app.browser(Mode::Cookie);
    let flow = alice.ask_code(ALICE, false).await.ok();
    let message = server.wait_for("message", 1).await.remove(0);
    let text = message["text"].as_str().unwrap();
    assert!(text.contains("Subject: Your code for Shop") && text.contains("text/html"), "{text}");
    alice.enter(&flow, &code_of(&message), false).await.ok();
    alice.get("/api/me").await.is(200);
}

#[tokio::test]
async fn sec_v03_a_server_that_takes_a_message_and_hangs_up_gets_the_same_one_again() {
    let server = MailServer::start(json!({ "cut": 1 })).await;
    let app = by_mail(&server).await;
    let mut alice = app.browser(Mode::Cookie);
    let flow = alice.ask_code(ALICE, false).await.ok();
    server.wait_for("message", 1).await;
    while server.events("message").len() < 2 {
        app.clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let messages = server.events("message");
    assert_eq!(message_id(&messages[0]), message_id(&messages[1]));
    assert_eq!(code_of(&messages[0]), code_of(&messages[1]));
    alice.enter(&flow, &code_of(&messages[1]), false).await.ok();
    // Another notice has another name.
    let mut bob = app.browser(Mode::Cookie);
    bob.ask_code("bob@shop.example", false).await.ok();
    let other = server.wait_for("message", 3).await.remove(2);
    assert_ne!(message_id(&other), message_id(&messages[0]));
}

/// A server that takes connections and never says a word; who came.
async fn silent() -> (u16, tokio::sync::mpsc::UnboundedReceiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (came, who) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = came.send(stream);
        }
    });
    (port, who)
}

/// Rows V01 and O24: with a server that sleeps, the answer is there before the server has said anything, and is the same
/// for an address that is known and one that isn't.
#[tokio::test]
async fn sec_v01_o24_nobody_waits_for_a_mail_server_that_sleeps() {
    let (port, mut came) = silent().await;
    let smtp = SmtpTransport::dangerous_plaintext("127.0.0.1", port, FROM).unwrap();
    let app = TestApp::with(|builder| builder.delivery(Courier::new(smtp))).await;
    let known = Email::parse("known@shop.example").unwrap();
    app.mfa.users().create(&TenantId::PUBLIC, &known).await.unwrap();
    let mut answers = Vec::new();
    let mut held = Vec::new();
    for email in ["known@shop.example", "unknown@shop.example"] {
        let batches = app.store.written(0).len();
        let mut browser = app.browser(Mode::Header);
        let answer = browser.post("/auth/signinup/code", json!({ "email": email })).await;
        // What the answer took: the same batches, each of as many records, one of them a notice to send.
        let written = app.store.written(batches);
        // The answer is here; the server has the connection now, or will, and says nothing. No transaction is open: the
        // store takes another one.
        held.push(came.recv().await.unwrap());
        assert_eq!(app.mfa.counters().notices_delivered, 0);
        app.mfa.users().judge_anew(&app.user("known@shop.example").await).await.unwrap();
        let mut names: Vec<String> = answer.headers.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        let mut members: Vec<String> = answer.body.as_object().unwrap().keys().cloned().collect();
        members.sort();
        let sizes: Vec<usize> = written.iter().map(Vec::len).collect();
        let queued = written.iter().flatten().filter(|key| key.as_str().starts_with("queue/")).count();
        assert!(queued >= 1);
        answers.push((answer.status, names, members, answer.body["status"].clone(), sizes[0]));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].3, "OK");
}

#[tokio::test]
async fn sec_v02_what_a_server_refuses_is_told_to_operators_and_to_nobody_else() {
    let server = MailServer::start(json!({ "refuse": 550 })).await;
    let app = by_mail(&server).await;
    let mut alice = app.browser(Mode::Header);
    let answer = alice.ask_code(ALICE, false).await.ok();
    let refused = server.wait_for("rcpt", 1).await;
    assert_eq!(refused.len(), 1);
    for _ in 0..5000 {
        if app.mfa.counters().notices_failed == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let trail = app.mfa.audit_trail(Timestamp::EPOCH).await.unwrap();
    let event = trail.iter().find(|event| event.what == Audited::DeliveryFailed).unwrap();
    assert_eq!(event.cause, Some(Cause::Refused));
    // The flow goes on as if nothing had happened: the code stays valid, a guess is a guess.
    let guess = alice.enter(&answer, "000000", false).await;
    guess.status("INCORRECT_USER_INPUT_CODE_ERROR");
}

/// Row V08: the `Host` of a request is nothing to a message.
#[tokio::test]
async fn sec_v08_a_message_takes_nothing_from_the_requests_host() {
    let server = MailServer::start(json!({})).await;
    let app = by_mail(&server).await;
    for (name, value) in
        [("host", "evil.example"), ("x-forwarded-host", "evil.example"), ("forwarded", "host=evil.example")]
    {
        let seen = server.events("message").len();
        let browser = app.browser(Mode::Header);
        let body = json!({ "email": ALICE });
        let mut request = browser.request(http::Method::POST, "/auth/signinup/code", Some(body));
        request.headers_mut().insert(name, value.parse().unwrap());
        app.send(request).await.ok();
        let message = server.wait_for("message", seen + 1).await.pop().unwrap();
        assert!(!message["text"].as_str().unwrap().contains("evil"), "{name}");
    }
}

/// Rows O35 and S09: five wrong codes, and a factor that was added, are mail to the address that was proved.
#[tokio::test]
async fn sec_o35_the_user_hears_of_wrong_codes() {
    let app = everyone().await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    alice.pass_code(ALICE).await;
    let mut mallory = app.browser(Mode::Header);
    mallory.sign_in(ALICE).await.ok();
    let told = |app: &TestApp| {
        let told: Vec<String> =
            app.outbox.messages().iter().map(|sent| format!("{:?}", sent.notice)).collect();
        let wrong = ["SuspiciousAttempts", "CodesUsedUp"];
        told.into_iter().filter(|told| wrong.iter().any(|kind| told.starts_with(kind))).count()
    };
    for round in 0..2 {
        let seen = app.sent_to(ALICE);
        let flow = mallory.ask_code(ALICE, true).await.ok();
        let code = app.code_after(ALICE, seen).await;
        for n in 0..5 {
            mallory.enter(&flow, &crate::support::wrong(&code), true).await;
            let events = app.store.audited().await;
            let events = events.iter().filter(|what| *what == "suspicious-attempts").count();
            assert_eq!(events, round + usize::from(n == 4), "guess {n} of flow {round}");
        }
    }
    for _ in 0..5000 {
        if told(&app) == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(told(&app), 2);
}
