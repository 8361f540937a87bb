//! Row O25: whether somebody has an account is told by no route, unless the app says so; then not often.

use http::Method;
use serde_json::json;
use tower_mfa::{
    MfaBuilder,
    config::{Countries, Passwordless},
    ident::{Email, Phone, TenantId},
};

use crate::{
    spy::{ALICE, NUMBER, from_header, with},
    support::{Answer, Mode, TestApp},
};

/// An app in which Alice signs in by codes to an address and to a number; a header says who asks.
async fn app(change: impl FnOnce(MfaBuilder) -> MfaBuilder) -> TestApp {
    let passwordless = Passwordless::email_or_phone(Countries::all());
    let app = TestApp::limited(|b| change(from_header(b).passwordless(passwordless))).await;
    let alice = app.mfa.users().create(&TenantId::PUBLIC, &Email::parse(ALICE).unwrap()).await.unwrap();
    let phone = Phone::parse(NUMBER).unwrap();
    app.mfa.users().add_phone(&alice.id, &TenantId::PUBLIC, &phone).await.unwrap();
    app
}

async fn ask(app: &TestApp, peer: &str, query: &str) -> Answer {
    let request = app.browser(Mode::Header).request(Method::GET, &format!("/auth{query}"), None);
    app.send(with(request, &[("x-from", peer)])).await
}

const EMAIL: &str = "/passwordless/email/exists?email=";
const PHONE: &str = "/passwordless/phonenumber/exists?phoneNumber=";

#[tokio::test]
async fn sec_o25_nobody_is_told_by_default() {
    let app = app(|b| b).await;
    for n in 0..20 {
        for query in
            [format!("{EMAIL}{ALICE}"), format!("{PHONE}%2B36301111142"), format!("{EMAIL}n{n}@x.test")]
        {
            let answer = ask(&app, "192.0.2.1", &query).await;
            assert_eq!(answer.body, json!({ "status": "OK", "exists": false }), "{query}");
        }
    }
}

#[tokio::test]
async fn sec_o25_told_on_purpose_ten_times_a_minute() {
    let app = app(|b| b.reveal_accounts(true)).await;
    let table = [
        (format!("{EMAIL}Alice%40Shop.example"), true),
        (format!("{EMAIL}bob@shop.example"), false),
        (format!("{EMAIL}nonsense"), false),
        (format!("/emailpassword/email/exists?email={ALICE}"), false),
        (format!("{PHONE}%2B36301111142"), true),
        (format!("{PHONE}%2B36%2030%20111%201142"), true),
        (format!("{PHONE}%2B36302222222"), false),
        (format!("{PHONE}nonsense"), false),
        ("/signup/phonenumber/exists?phoneNumber=%2B36301111142".to_owned(), true),
    ];
    for (query, exists) in &table {
        let answer = ask(&app, "192.0.2.1", query).await;
        assert_eq!(answer.body, json!({ "status": "OK", "exists": exists }), "{query}");
    }
    ask(&app, "192.0.2.1", "/passwordless/phonenumber/exists").await.is(400);
    // The tenth was the last one, whatever it asks about; others still may.
    ask(&app, "192.0.2.1", &table[0].0).await.ok();
    for (query, _) in &table {
        let late = ask(&app, "192.0.2.1", query).await;
        late.status("GENERAL_ERROR");
        assert!(late.headers.contains_key("retry-after") && late.body.get("exists").is_none());
    }
    ask(&app, "192.0.2.2", &table[0].0).await.ok();
    // An IPv6 address counts by its network.
    for n in 0..10 {
        ask(&app, &format!("2001:db8:1:2::{n}"), &table[0].0).await.ok();
    }
    ask(&app, "2001:db8:1:2:ffff::1", &table[0].0).await.status("GENERAL_ERROR");
    ask(&app, "2001:db8:1:3::1", &table[0].0).await.ok();
    app.clock.advance(std::time::Duration::from_millis(60_001));
    ask(&app, "192.0.2.1", &table[0].0).await.ok();
}

#[tokio::test]
async fn sec_o25_telling_needs_to_know_who_asks() {
    let told = |limits: bool| {
        let app = crate::spy::shop();
        let store = tower_mfa::store::MemoryStore::new();
        let secrets = tower_mfa::config::Secrets::random().unwrap();
        let builder = tower_mfa::Mfa::builder(app, secrets, store)
            .delivery(tower_mfa::delivery::Outbox::new())
            .reveal_accounts(true);
        if limits { builder } else { builder.insecure_without_quotas() }.build()
    };
    let refused = told(true).unwrap_err().to_string();
    assert!(refused.contains("reveal_accounts") && refused.contains(".peer("), "{refused}");
    told(false).unwrap();
    // Those of whom the app knows no address share one count.
    let app = app(|b| b.reveal_accounts(true)).await;
    for n in 0..11 {
        let request = app.browser(Mode::Header).request(Method::GET, &format!("/auth{EMAIL}{ALICE}"), None);
        app.send(request).await.status(if n < 10 { "OK" } else { "GENERAL_ERROR" });
    }
    ask(&app, "192.0.2.1", &format!("{EMAIL}{ALICE}")).await.ok();
}
