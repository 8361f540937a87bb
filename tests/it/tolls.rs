//! SMS pumping (row O28): what kind of number gets a code, how many a range gets, and what happens if nobody enters
//! them. With a clock wound by hand, over HTTP.

use std::time::Duration;

use tower_mfa::{
    Clock as _,
    account::StoppedCountry,
    config::{Countries, Passwordless, Secrets, SendLimits},
    hooks::{AuditEvent, Audited},
    ident::{TenantId, Timestamp},
    store::{MemoryStore, SqliteStore, Store},
};

use crate::{
    spy::{ALICE, shop},
    support::{HandClock, Mode, TestApp, nodes::arrived},
};

const HOUR: Duration = Duration::from_secs(3600);

async fn on(store: impl Store, secrets: Secrets, clock: HandClock, limits: SendLimits) -> TestApp {
    let countries = Countries::only(["HU", "DE"]).unwrap();
    let by_hand = clock.clone();
    let app = TestApp::built(shop(), secrets, store, |builder| {
        builder.passwordless(Passwordless::email_or_phone(countries)).clock(by_hand).send_limits(limits)
    });
    app.await.with_clock(Some(clock))
}

async fn app() -> TestApp {
    on(MemoryStore::new(), Secrets::random().unwrap(), HandClock::new(), SendLimits::default()).await
}

/// The `n`th of Hungarian mobile numbers, each in a range of its own.
fn number(n: usize) -> String {
    format!("+3630{:04}111", 1000 + n)
}

/// Asks for codes that nobody enters.
async fn pump(app: &TestApp, numbers: impl IntoIterator<Item = usize>) {
    for n in numbers {
        app.browser(Mode::Header).ask_code(&number(n), false).await.ok();
    }
}

async fn alerts(app: &TestApp) -> Vec<AuditEvent> {
    let mut trail = app.mfa.audit_trail(Timestamp::EPOCH).await.unwrap();
    trail.retain(|event| [Audited::SendingStopped, Audited::SendingResumed].contains(&event.what));
    trail
}

#[tokio::test]
async fn sec_o28_codes_that_nobody_enters_stop_sending_to_the_country() {
    let app = app().await;
    app.mfa.tenants().create(&TenantId::parse("north").unwrap(), None).await.unwrap();
    // Somebody with a session, before it begins.
    let mut alice = app.browser(Mode::Header);
    alice.by_code(ALICE).await;
    for n in 0..100 {
        let mut bot = app.browser(Mode::Header);
        // In whatever tenant: the bill is one.
        bot.tenant = (n % 2 == 0).then(|| "north".to_owned());
        bot.ask_code(&number(n), false).await.ok();
    }
    assert_eq!(arrived(&[&app]).await, 101);
    assert_eq!(alerts(&app).await, []);
    pump(&app, 100..120).await;
    assert_eq!(arrived(&[&app]).await, 101);
    // Who has a session is told.
    let over = alice.ask_code(&number(200), true).await;
    over.status("GENERAL_ERROR");
    assert_eq!(over.headers["retry-after"], (6 * 3600).to_string());
    // An alert, once.
    let told = alerts(&app).await;
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].what, told[0].country.as_deref()), (Audited::SendingStopped, Some("HU")));
    assert!(told[0].what.is_alarming());
    let stopped: Vec<StoppedCountry> = app.mfa.sends().stopped().await.unwrap();
    assert_eq!(stopped.len(), 1);
    assert_eq!((stopped[0].country.as_str(), stopped[0].until), ("HU", app.clock.now() + 6 * HOUR));
    // Other countries, and mail, go on.
    app.browser(Mode::Header).by_code("+4915112345678").await;
    app.browser(Mode::Header).by_code("bob@shop.example").await;
    // An administrator ends it, and counting begins anew.
    app.clock.advance(Duration::from_secs(1));
    assert!(!app.mfa.sends().resume("DE").await.unwrap());
    assert!(app.mfa.sends().resume("HU").await.unwrap());
    assert!(!app.mfa.sends().resume("HU").await.unwrap());
    let before = arrived(&[&app]).await;
    app.clock.advance(Duration::from_secs(1));
    pump(&app, 300..410).await;
    assert_eq!(arrived(&[&app]).await - before, 100);
    // Else it ends by itself.
    app.clock.advance(6 * HOUR - Duration::from_millis(1));
    pump(&app, [500]).await;
    assert_eq!(arrived(&[&app]).await - before, 100);
    app.clock.advance(Duration::from_millis(1));
    pump(&app, [501]).await;
    assert_eq!(arrived(&[&app]).await - before, 101);
    let told: Vec<_> = alerts(&app).await.into_iter().map(|event| event.what).collect();
    assert_eq!(told, [Audited::SendingStopped, Audited::SendingResumed, Audited::SendingStopped]);
}

#[tokio::test]
async fn sec_o28_where_a_tenth_is_entered_sending_goes_on() {
    for (used, goes_on) in [(9, false), (10, true)] {
        let app = app().await;
        for n in 0..used {
            app.browser(Mode::Header).by_code(&number(n)).await;
        }
        pump(&app, used..100).await;
        pump(&app, [100]).await;
        assert_eq!(arrived(&[&app]).await, if goes_on { 101 } else { 100 }, "{used}");
    }
}

#[tokio::test]
async fn sec_o28_an_hour_is_judged_by_itself() {
    let app = app().await;
    pump(&app, 0..99).await;
    app.clock.advance(HOUR + Duration::from_secs(60));
    pump(&app, 99..198).await;
    pump(&app, [198]).await;
    assert_eq!(arrived(&[&app]).await, 199);
    // Those were a hundred of this hour.
    pump(&app, [199]).await;
    assert_eq!(arrived(&[&app]).await, 199);
}

#[tokio::test]
async fn sec_o28_codes_sent_again_count_and_stop_too() {
    let mut limits = SendLimits::default();
    limits.judged_from = 4;
    let app = on(MemoryStore::new(), Secrets::random().unwrap(), HandClock::new(), limits).await;
    let mut bot = app.browser(Mode::Header);
    let flow = bot.ask_code(&number(0), false).await.ok();
    for _ in 0..5 {
        app.clock.advance(Duration::from_secs(31));
        bot.ask_again(&flow, false).await.ok();
    }
    assert_eq!(arrived(&[&app]).await, 4);
}

#[tokio::test]
async fn sec_o28_a_range_of_a_thousand_numbers_has_its_own_limit() {
    let app = app().await;
    let mut bot = app.browser(Mode::Header);
    let mut answers = Vec::new();
    for n in 0..40 {
        let flow = bot.ask_code(&format!("+36301111{n:03}"), false).await.ok();
        answers.push(flow.as_object().unwrap().keys().cloned().collect::<Vec<_>>());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(arrived(&[&app]).await, 30);
    pump(&app, [0]).await;
    assert_eq!(arrived(&[&app]).await, 31);
    app.clock.advance(HOUR + Duration::from_millis(1));
    bot.ask_code("+36301111999", false).await.ok();
    assert_eq!(arrived(&[&app]).await, 32);
}

#[tokio::test]
async fn sec_o28_only_mobiles_of_the_countries_get_a_code() {
    let app = app().await;
    let mut bot = app.browser(Mode::Header);
    let refused = [
        // Other countries.
        "+12025550143",
        "+447911123456",
        "+8821612345678",
        // Premium, free, landline, short.
        "+36901234567",
        "+3680123456",
        "+3612345678",
        "+4990012345678",
        "+498001234567",
        "+36112",
        "+3617",
    ];
    for number in refused {
        bot.ask_code(number, false).await.status("GENERAL_ERROR");
    }
    bot.ask_code(&number(0), false).await.ok();
    assert_eq!(arrived(&[&app]).await, 1);
}

#[tokio::test]
async fn sec_o28_all_nodes_count_together() {
    let dir = tempfile::tempdir().unwrap();
    let (secrets, clock) = (Secrets::random().unwrap(), HandClock::new());
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let store = SqliteStore::open(dir.path().join("db")).await.unwrap();
        nodes.push(on(store, secrets.clone(), clock.clone(), SendLimits::default()).await);
    }
    for n in 0..130 {
        pump(&nodes[n % 3], [n]).await;
    }
    assert_eq!(arrived(&nodes.iter().collect::<Vec<_>>()).await, 100);
    assert_eq!(alerts(&nodes[0]).await.len(), 1);
}
