//! The examples, run: each as its file has it, driven as a front end would.

#![allow(dead_code, reason = "nobody calls the `main` of an example")]

use axum::Router;
use http::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tower_mfa::{
    FactorId,
    delivery::Outbox,
    ident::{TenantId, Timestamp},
    policy::{CompletedFactors, FixedFacts},
};

use crate::{
    spy::NUMBER,
    support::{Browser, Mode, PASSWORD, TestApp, credentials},
};

#[path = "../../examples/admin_role.rs"]
mod admin_role;
#[path = "../../examples/custom_claim.rs"]
mod custom_claim;
#[path = "../../examples/custom_delivery.rs"]
mod custom_delivery;
#[path = "../../examples/custom_policy.rs"]
mod custom_policy;
#[path = "../../examples/hyper_server.rs"]
mod hyper_server;
#[path = "../../examples/legacy_second_factor.rs"]
pub(crate) mod legacy_second_factor;
#[path = "../../examples/opt_in.rs"]
mod opt_in;
#[cfg(feature = "http-client")]
#[path = "../../examples/resource_server.rs"]
pub(crate) mod resource_server;
#[cfg(feature = "smtp")]
#[path = "../../examples/smtp.rs"]
mod smtp;
#[path = "../../examples/step_up.rs"]
mod step_up;
#[path = "../../examples/tenant_scoped.rs"]
mod tenant_scoped;

const ALICE: &str = "alice@mail.example";
const STAFF: &str = "bob@shop.example";

/// A client of an example.
async fn client(router: Router, outbox: Outbox) -> Browser {
    TestApp::new().await.serving(router, outbox).browser(Mode::Header)
}

#[tokio::test]
async fn admins_complete_a_code_and_nobody_else() {
    let outbox = Outbox::new();
    let (mfa, router) = admin_role::shop(outbox.clone()).unwrap();
    let mut alice = client(router, outbox).await;
    alice.sign_up(ALICE).await.ok();
    assert_eq!(alice.get("/office").await.text, "your own orders");
    let user = alice.payload("sub");
    let user = user.as_str().unwrap().parse().unwrap();
    mfa.roles().grant(&user, &TenantId::PUBLIC, "admin").await.unwrap();
    alice.get("/office").await.is(403);
    alice.pass_code(ALICE).await;
    assert_eq!(alice.get("/office").await.text, "all orders");
}

#[tokio::test]
async fn a_delivery_of_ones_own_hands_over_notices() {
    let service = custom_delivery::MessageService::default();
    let (mfa, router) = custom_delivery::shop(service.clone()).unwrap();
    service.set_busy(true);
    client(router.clone(), Outbox::new()).await.ask_code(ALICE, false).await.ok();
    while mfa.counters().delivery_failures == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(service.accepted().is_empty());
    service.set_busy(false);
    while mfa.counters().notices_delivered == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let accepted = service.accepted();
    assert!(
        accepted.len() == 1 && accepted[0].starts_with("welcome-back for alice@mail.example"),
        "{accepted:?}"
    );
}

#[cfg(feature = "smtp")]
#[tokio::test]
async fn a_code_is_sent_by_mail_in_the_shops_words() {
    let server = crate::support::mail::MailServer::start(json!({})).await;
    let smtp = tower_mfa::delivery::SmtpTransport::dangerous_plaintext(
        "127.0.0.1",
        server.port,
        "Corner Shop <no-reply@shop.example>",
    );
    let (_mfa, router) = smtp::shop(smtp.unwrap()).unwrap();
    client(router, Outbox::new()).await.ask_code(ALICE, false).await.ok();
    let message = server.wait_for("message", 1).await.remove(0);
    let text = message["text"].as_str().unwrap();
    assert!(text.contains("Welcome to the shop around the corner!"), "{text}");
}

#[tokio::test]
async fn a_user_switches_a_code_on_and_off() {
    let outbox = Outbox::new();
    let mut alice = client(opt_in::shop(outbox.clone()).unwrap(), outbox).await;
    alice.sign_up(ALICE).await.ok();
    alice.get("/orders").await.is(200);
    alice.put("/settings/code", json!({})).await.is(204);
    alice.get("/orders").await.is(403);
    alice.call(Method::DELETE, "/settings/code", None).await.is(403);
    alice.pass_code(ALICE).await;
    alice.get("/orders").await.is(200);
    alice.call(Method::DELETE, "/settings/code", None).await.is(204);
    alice.sign_in(ALICE).await.ok();
    alice.get("/orders").await.is(200);
}

#[tokio::test]
async fn admins_are_asked_where_the_tenant_asks() {
    let outbox = Outbox::new();
    let (mfa, router) = tenant_scoped::shop(outbox.clone()).await.unwrap();
    for (tenant, status) in [("public", 200), ("north", 403), ("south", 200)] {
        let mut alice = client(router.clone(), outbox.clone()).await;
        alice.tenant = Some(tenant.to_owned());
        alice.sign_up(ALICE).await.ok();
        alice.get("/office").await.is(200);
        let user = alice.payload("sub").as_str().unwrap().parse().unwrap();
        mfa.roles().grant(&user, &TenantId::parse(tenant).unwrap(), "admin").await.unwrap();
        let answer = alice.get("/office").await;
        answer.is(status);
        assert_eq!(answer.text.contains("set up by then"), tenant == "south", "{}", answer.text);
    }
}

#[tokio::test]
async fn staff_are_asked_by_day_and_everybody_by_night() {
    let facts = FixedFacts::new("alice");
    // 03:00, 05:59:59, 06:00, 19:59:59 and 20:00 UTC, and when the answer must be asked for again.
    let midnight = 1_702_857_600;
    for (second, asked, turns) in [
        (10_800, true, 21_600),
        (21_599, true, 21_600),
        (21_600, false, 72_000),
        (71_999, false, 72_000),
        (72_000, true, 108_000),
    ] {
        let demand = facts
            .clone()
            .at(Timestamp::from_secs(midnight + second))
            .ask(&custom_policy::StaffAndNights)
            .unwrap();
        let expected = tower_mfa::Requirements::none();
        let expected = if asked { FactorId::OTP_EMAIL.into() } else { expected };
        assert_eq!(demand, expected.until(Timestamp::from_secs(midnight + turns)), "{second}");
        assert_eq!(demand.next(&CompletedFactors::new(), Timestamp::EPOCH).is_some(), asked);
    }
    let outbox = Outbox::new();
    let mut bob = client(custom_policy::shop(outbox.clone()).unwrap(), outbox).await;
    bob.sign_up(STAFF).await.ok();
    bob.get("/orders").await.is(403);
    bob.pass_code(STAFF).await;
    bob.get("/orders").await.is(200);
}

#[tokio::test]
async fn the_lounge_is_for_gold() {
    let paying = custom_claim::Subscriptions::default();
    let mut alice = client(custom_claim::shop(paying.clone()).unwrap(), Outbox::new()).await;
    let mut bob = alice.clone();
    alice.sign_up(ALICE).await.ok();
    bob.sign_up(STAFF).await.ok();
    assert_eq!(alice.get("/plan").await.text, "not known yet");
    paying.add(alice.payload("sub").as_str().unwrap().parse().unwrap());
    alice.get("/lounge").await.is(200);
    assert_eq!(alice.get("/plan").await.text, "gold");
    let refused = bob.get("/lounge").await;
    refused.is(403);
    assert_eq!(refused.body["claimValidationErrors"][0]["id"], "plan");
}

#[tokio::test]
async fn closing_an_account_takes_a_fresh_code() {
    let outbox = Outbox::new();
    let mut alice = client(step_up::shop(outbox.clone()).unwrap(), outbox).await;
    alice.sign_up(ALICE).await.ok();
    alice.get("/orders").await.is(200);
    alice.post("/close", json!({})).await.is(403);
    let refused = alice.get("/export").await;
    refused.is(403);
    assert_eq!((&refused.body["next"], &refused.body["max_age"]), (&json!(["otp-email"]), &json!(300)));
    alice.pass_code(ALICE).await;
    alice.get("/export").await.is(200);
    assert!(alice.post("/close", json!({})).await.text.ends_with("is closed"));
}

#[tokio::test]
async fn hyper_serves_the_same_layers() {
    async fn ask(to: std::net::SocketAddr, head: &str, body: &str) -> String {
        let mut connection = TcpStream::connect(to).await.unwrap();
        let request = format!(
            "{head}\r\nhost: 127.0.0.1\r\nconnection: close\r\nrid: session\r\nst-auth-mode: header\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let server = tokio::spawn(hyper_server::serve(listener, Outbox::new()).unwrap());
    let refused = ask(to, "GET /orders HTTP/1.1", "").await;
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    let signed_up = ask(to, "POST /auth/signup HTTP/1.1", &credentials(ALICE, PASSWORD).to_string()).await;
    let token = signed_up.lines().find_map(|line| line.strip_prefix("st-access-token: ")).unwrap();
    let served = ask(to, &format!("GET /orders HTTP/1.1\r\nauthorization: Bearer {token}"), "").await;
    assert!(served.starts_with("HTTP/1.1 200 ") && served.contains("no orders yet, "), "{served}");
    server.abort();
}

#[tokio::test]
async fn a_number_is_asked_once_and_kept() {
    let outbox = Outbox::new();
    let (mfa, router) = legacy_second_factor::shop(outbox.clone()).unwrap();
    let mut alice = client(router, outbox).await;
    alice.sign_up(ALICE).await.ok();
    assert_eq!(alice.get("/my-number").await.body, json!(null));
    alice.get("/orders").await.is(403);
    alice.pass_code(NUMBER).await;
    assert_eq!(alice.payload("2fa-completed")["v"], true);
    assert_eq!(alice.get("/orders").await.text, "no orders yet");
    alice.sign_in(ALICE).await.ok();
    assert_eq!(alice.get("/my-number").await.body, "+***42");
    alice.get("/orders").await.is(403);
    alice.ask_code("+36302222242", true).await.is(403);
    let user = alice.payload("sub").as_str().unwrap().parse().unwrap();
    assert_eq!(mfa.users().load(&user).await.unwrap().unwrap().logins.len(), 2);
}

/// A program that nobody reads to its end teaches nobody.
#[test]
fn each_is_short() {
    for name in [
        "admin_role",
        "custom_claim",
        "custom_policy",
        "hyper_server",
        "legacy_second_factor",
        "opt_in",
        "resource_server",
        "step_up",
        "tenant_scoped",
    ] {
        let path = format!("{}/examples/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        let lines = std::fs::read_to_string(path).unwrap().lines().count();
        assert!(lines < 120, "{name}: {lines}");
    }
}
