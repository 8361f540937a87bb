//! What is counted before it is allowed: guesses by user and factor, messages by destination, user, address and
//! tenant.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use serde_json::{Value, json};
use tower_mfa::{
    FactorId, Mfa, MfaBuilder,
    config::{Countries, Passwordless, Secrets, SendLimits, TrustedProxies},
    delivery::Outbox,
    ident::{Email, TenantId},
    store::MemoryStore,
};

use crate::{
    spy::{ALICE, BOB, NUMBER, everyone, from_header, shop},
    support::{Answer, Browser, Mode, TestApp, nodes::arrived, wrong},
};

const QUARTER: Duration = Duration::from_secs(15 * 60);
const HOUR: Duration = Duration::from_secs(3600);
const MILLI: Duration = Duration::from_millis(1);

/// Asks for a code from somewhere.
async fn ask_from(app: &TestApp, headers: &[(&'static str, &str)], contact: &str) -> Answer {
    let mut request = app.browser(Mode::Header).request(
        http::Method::POST,
        "/auth/signinup/code",
        Some(json!({ "email": contact })),
    );
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    app.send(request).await
}

/// What an answer shows: status, header names, body without ids.
fn shape(answer: &Answer) -> (u16, BTreeSet<String>, Value) {
    let mut body = answer.body.clone();
    for id in ["deviceId", "preAuthSessionId"] {
        if let Some(member) = body.get_mut(id) {
            *member = json!(member.as_str().unwrap().len());
        }
    }
    (answer.status.as_u16(), answer.headers.keys().map(ToString::to_string).collect(), body)
}

/// Alice, who has a password and a code by e-mail, in a session that lacks nothing.
async fn enrolled(app: &TestApp) -> Browser {
    let mut alice = app.browser(Mode::Header);
    alice.sign_up(ALICE).await.ok();
    alice.pass_code(ALICE).await;
    alice
}

/// Guesses wrong ten times, then waits until guessing would be allowed again. The last answer.
async fn ten_wrong(app: &TestApp, browser: &mut Browser, linking: bool) -> Answer {
    let mut last = None;
    for _ in 0..2 {
        let flow = browser.ask_code(ALICE, linking).await.ok();
        for _ in 0..5 {
            last = Some(browser.enter(&flow, "nonono", linking).await);
        }
    }
    app.clock.advance(QUARTER + MILLI);
    if linking {
        browser.refresh().await;
    }
    last.unwrap()
}

async fn right_code(app: &TestApp, browser: &mut Browser, linking: bool) -> Answer {
    let seen = app.sent_to(ALICE);
    let flow = browser.ask_code(ALICE, linking).await.ok();
    let code = app.code_after(ALICE, seen).await;
    browser.enter(&flow, &code, linking).await
}

#[tokio::test]
async fn sec_o06_a_thousand_flows_in_many_sessions_give_ten_guesses() {
    let app = everyone().await;
    let mut sessions = vec![app.browser(Mode::Header)];
    sessions[0].sign_up(ALICE).await.ok();
    for mode in [Mode::Cookie, Mode::Header] {
        let mut another = app.browser(mode);
        another.sign_in(ALICE).await.ok();
        sessions.push(another);
    }
    for n in 0..1000 {
        let session = &mut sessions[n % 3];
        let flow = session.ask_code(ALICE, true).await.ok();
        for _ in 0..5 {
            let miss = session.enter(&flow, "000000", true).await;
            assert_ne!(miss.body["status"], "OK");
        }
    }
    assert_eq!(app.mfa.counters().code_comparisons, 10);
}

#[tokio::test]
async fn sec_o06_without_a_user_the_destination_is_counted_over_all_tenants() {
    let app = TestApp::new().await;
    app.mfa.tenants().create(&TenantId::parse("north").unwrap(), None).await.unwrap();
    for n in 0..12 {
        let mut stranger = app.browser(Mode::Header);
        stranger.tenant = (n % 2 == 0).then(|| "north".to_owned());
        let flow = stranger.ask_code(ALICE, false).await.ok();
        for _ in 0..5 {
            stranger.enter(&flow, "000000", false).await;
        }
    }
    assert_eq!(app.mfa.counters().code_comparisons, 10);
    // Another destination is another one's.
    let mut bob = app.browser(Mode::Header);
    let flow = bob.ask_code(BOB, false).await.ok();
    bob.enter(&flow, &wrong(&app.code(BOB).await), false).await.status("INCORRECT_USER_INPUT_CODE_ERROR");
}

#[tokio::test]
async fn sec_o06_the_sessions_own_user_is_told_how_long() {
    let app = TestApp::new().await;
    let mut alice = enrolled(&app).await;
    for linking in [true, false] {
        let mut browser = if linking { alice.clone() } else { app.browser(Mode::Header) };
        for _ in 0..2 {
            let flow = browser.ask_code(ALICE, linking).await.ok();
            for _ in 0..5 {
                let miss = browser.enter(&flow, "000000", linking).await;
                assert!(miss.headers.get("retry-after").is_none(), "{}", miss.text);
            }
        }
        let over = right_code(&app, &mut browser, linking).await;
        over.status("RESTART_FLOW_ERROR");
        assert_eq!(over.body, json!({ "status": "RESTART_FLOW_ERROR" }));
        let told = over.headers.get("retry-after").map(|value| value.to_str().unwrap());
        // Rounded up: the rest is over a millisecond after the quarter.
        assert_eq!(told, linking.then_some("901"));
        assert!(over.cookies().is_empty() && over.headers.get("front-token").is_none());
    }
    app.clock.advance(Duration::from_secs(901));
    right_code(&app, &mut alice, true).await.ok();
}

#[tokio::test]
async fn sec_o07_only_a_right_code_of_that_kind_by_that_user_gives_guesses_back() {
    let app = TestApp::new().await;
    let mut alice = enrolled(&app).await;
    let mut nine = 0;
    while nine < 9 {
        let flow = alice.ask_code(ALICE, true).await.ok();
        for _ in 0..(9 - nine).min(4) {
            alice.enter(&flow, "000000", true).await.status("INCORRECT_USER_INPUT_CODE_ERROR");
            nine += 1;
        }
    }
    // A password, somebody else's code, a code to the address as a first factor: none of them.
    app.browser(Mode::Header).sign_in(ALICE).await.ok();
    app.browser(Mode::Header).by_code(BOB).await;
    app.browser(Mode::Header).by_code(ALICE).await;
    let flow = alice.ask_code(ALICE, true).await.ok();
    alice.enter(&flow, "000000", true).await.status("INCORRECT_USER_INPUT_CODE_ERROR");
    right_code(&app, &mut alice, true).await.status("RESTART_FLOW_ERROR");
    app.clock.advance(QUARTER + MILLI);
    right_code(&app, &mut alice, true).await.ok();
    // That one does.
    for _ in 0..2 {
        let flow = alice.ask_code(ALICE, true).await.ok();
        for _ in 0..4 {
            alice.enter(&flow, "000000", true).await.status("INCORRECT_USER_INPUT_CODE_ERROR");
        }
    }
}

#[tokio::test]
async fn sec_o26_a_rest_and_a_limit_are_the_same_for_those_who_are_nobody() {
    for sign_up in [false, true] {
        let app = TestApp::limited(|builder| match sign_up {
            true => builder,
            false => builder.passwordless(Passwordless::email().without_sign_up()),
        })
        .await;
        app.mfa.users().create(&TenantId::PUBLIC, &Email::parse(ALICE).unwrap()).await.unwrap();
        let mut seen: [Vec<_>; 2] = Default::default();
        for _ in 0..8 {
            for (seen, contact) in seen.iter_mut().zip([ALICE, BOB]) {
                let mut stranger = app.browser(Mode::Cookie);
                let flow = stranger.ask_code(contact, false).await;
                seen.push(shape(&flow));
                for _ in 0..3 {
                    seen.push(shape(&stranger.enter(&flow.body, "nonono", false).await));
                }
                let again = stranger.ask_again(&flow.body, false).await;
                seen.push(shape(&again));
            }
            app.clock.advance(Duration::from_secs(31));
        }
        assert_eq!(seen[0], seen[1]);
        // The rest was reached, by both.
        let restarts = seen[0].iter().filter(|(.., body)| body["status"] == "RESTART_FLOW_ERROR").count();
        assert!(restarts >= 10, "{restarts}");
    }
}

#[tokio::test]
async fn sec_o27_all_routes_share_the_limits_and_success_gives_nothing_back() {
    let app = TestApp::limited(|builder| builder).await;
    let mut alice = app.browser(Mode::Header);
    let flow = alice.ask_code(ALICE, false).await.ok();
    let code = app.code(ALICE).await;
    // Both at once are over the limit, and answered as ever.
    let usual = shape(&alice.ask_code(BOB, false).await);
    assert_eq!(shape(&alice.ask_code(ALICE, false).await), usual);
    alice.ask_again(&flow, false).await.ok();
    alice.enter(&flow, &code, false).await.ok();
    // In the session its own user is told.
    let over = alice.ask_code(ALICE, true).await;
    over.status("GENERAL_ERROR");
    assert_eq!(over.body["message"], "Too many attempts. Try again in 1 minute.");
    assert_eq!(over.headers["retry-after"], "31");
    assert_eq!(arrived(&[&app]).await, 2);
    // Five an hour, ten a day.
    let mut nobody = app.browser(Mode::Header);
    for _ in 0..30 {
        app.clock.advance(Duration::from_secs(31));
        nobody.ask_code(ALICE, false).await.ok();
    }
    assert_eq!(arrived(&[&app]).await, 6);
    for _ in 0..30 {
        app.clock.advance(HOUR / 2);
        nobody.ask_code(ALICE, false).await.ok();
    }
    assert_eq!(app.sent_to(ALICE), 10);
}

#[tokio::test]
async fn sec_o27_a_user_has_ten_an_hour_to_whatever_destination() {
    let app = TestApp::limited(|builder| builder).await;
    let mut alice = app.browser(Mode::Header);
    alice.by_code(ALICE).await;
    alice.sign_out().await.ok();
    app.clock.advance(HOUR + MILLI);
    let mut alice = app.browser(Mode::Header);
    alice.sign_up("alice@work.example").await.ok();
    for n in 0..12 {
        let answer = alice.ask_code(&format!("alice{n}@work.example"), true).await;
        answer.status(if n < 10 { "OK" } else { "GENERAL_ERROR" });
    }
    assert_eq!(arrived(&[&app]).await, 11);
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_o27_three_nodes_at_once_send_no_more_than_the_limit() {
    use tower_mfa::store::SqliteStore;
    let dir = tempfile::tempdir().unwrap();
    let (secrets, clock) = (Secrets::random().unwrap(), crate::support::HandClock::new());
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let store = SqliteStore::open(dir.path().join("db")).await.unwrap();
        let mut limits = SendLimits::default();
        limits.in_tenant = Some(33);
        let by_hand = clock.clone();
        let node = TestApp::built(shop(), secrets.clone(), store, |builder| {
            from_header(builder).clock(by_hand).send_limits(limits)
        });
        nodes.push(node.await.with_clock(Some(clock.clone())));
    }
    let all: Vec<&TestApp> = nodes.iter().collect();
    let race = async |address: &'static [&'static str], contacts: usize| {
        let tasks: Vec<_> = (0..64)
            .map(|n| {
                let node = nodes[n % 3].clone();
                tokio::spawn(async move {
                    let contact = format!("alice{}@work.example", n % contacts);
                    let from = address[n % address.len()];
                    ask_from(&node, &[("x-from", from)], &contact).await
                })
            })
            .collect();
        let mut granted = 0;
        for task in tasks {
            let answer = task.await.unwrap();
            // Who lost every race is told to come again.
            match answer.status.as_u16() {
                503 => {}
                _ => granted += usize::from(answer.ok()["status"] == "OK"),
            }
        }
        assert!(granted > 0);
        // Whoever comes once the crowd is gone gets what was left, to the last.
        for n in 0..contacts.max(2) {
            let contact = format!("late{n}@work.example");
            let contact = if contacts == 1 { "alice0@work.example" } else { &contact };
            ask_from(&nodes[n % 3], &[("x-from", address[n % address.len()])], contact).await.ok();
        }
    };
    // To one destination: one in half a minute.
    race(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"], 1).await;
    assert_eq!(arrived(&all).await, 1);
    // From one address: twenty an hour.
    clock.advance(2 * HOUR);
    race(&["192.0.2.5"], 64).await;
    assert_eq!(arrived(&all).await - 1, 20);
    // In one tenant: thirty-three an hour.
    clock.advance(2 * HOUR);
    race(&["192.0.2.6", "192.0.2.7", "192.0.2.8", "192.0.2.9"], 64).await;
    assert_eq!(arrived(&all).await - 1 - 20, 33);
}

#[tokio::test]
async fn sec_k05_whoever_asks_too_often_leaves_nothing_in_the_store() {
    for by_address in [true, false] {
        let app = TestApp::limited(|builder| {
            let mut limits = SendLimits::default();
            limits.in_tenant = (!by_address).then_some(20);
            from_header(builder).send_limits(limits)
        })
        .await;
        let before = app.store.written(0).len();
        let usual = shape(&ask_from(&app, &[("x-from", "192.0.2.1")], ALICE).await);
        for n in 0..500 {
            let from = if by_address { "192.0.2.1".to_owned() } else { format!("198.51.100.{}", n % 250) };
            // To one destination as to many.
            let contact = format!("alice{}@work.example", if n % 2 == 0 { 0 } else { n });
            let answer = ask_from(&app, &[("x-from", &from)], &contact).await;
            assert_eq!(shape(&answer), usual, "{n}");
        }
        arrived(&[&app]).await;
        let kept = app.store.dump().await;
        let count = |part: &str| kept.keys().filter(|key| key.as_str().contains(part)).count();
        assert!((2..=20).contains(&count("/code/")), "{}", count("/code/"));
        assert!(count("limit/") <= 4 * 20, "{}", count("limit/"));
        // A batch each, and three for each message on its way.
        let written = app.store.written(before).len();
        assert!(written <= 4 * 20, "{written}");
        // And all of it ends.
        app.clock.advance(24 * HOUR + HOUR);
        let end = tower_mfa::Clock::now(&app.clock);
        let left: Vec<_> = kept
            .iter()
            .filter(|(_, row)| row.expires_at.is_none_or(|at| at > end))
            .map(|(key, _)| key)
            .collect();
        let other = |key: &&&tower_mfa::store::Key| {
            ["code/", "limit/", "queue/", "op/"].iter().any(|part| key.as_str().contains(part))
        };
        assert_eq!(left.iter().filter(other).count(), 0, "{left:?}");
    }
}

#[tokio::test]
async fn sec_k02_without_the_store_nothing_is_guessed_and_nothing_sent() {
    let app = TestApp::limited(|builder| builder).await;
    let mut alice = app.browser(Mode::Cookie);
    alice.by_code(ALICE).await;
    let mut nobody = app.browser(Mode::Header);
    let flow = nobody.ask_code(BOB, false).await.ok();
    let (code, before) = (app.code(BOB).await, app.mfa.counters().code_comparisons);
    let sent = arrived(&[&app]).await;
    app.clock.advance(Duration::from_secs(31));
    for reads in [true, false] {
        let fail = |calls| if reads { app.store.fail_next(calls) } else { app.store.fail_commits(calls) };
        for step in 0..3 {
            fail(1000);
            let refused = match step {
                0 => nobody.ask_code("carol@shop.example", false).await,
                1 => nobody.ask_again(&flow, false).await,
                _ => nobody.enter(&flow, &code, false).await,
            };
            refused.is(503);
            assert_eq!(refused.body["message"], "temporarily unavailable");
            assert!(refused.headers.contains_key("retry-after") && refused.cookies().is_empty());
            // A token is as good as before.
            alice.get("/api/me").await.is(200);
            fail(0);
        }
    }
    assert_eq!(app.mfa.counters().code_comparisons, before);
    assert_eq!(arrived(&[&app]).await, sent);
    nobody.enter(&flow, &code, false).await.ok();
}

#[tokio::test]
async fn sec_k06_too_many_says_when_and_nothing_else() {
    let app = TestApp::limited(from_header).await;
    let mut alice = app.browser(Mode::Cookie);
    alice.by_code(ALICE).await;
    for (millis, seconds) in [(0, "31"), (1, "30"), (1000, "29"), (28_000, "1")] {
        app.clock.advance(Duration::from_millis(millis));
        let over = alice.ask_code(ALICE, true).await;
        over.status("GENERAL_ERROR");
        assert_eq!(over.headers["retry-after"], seconds, "{millis}");
        assert!(over.cookies().is_empty() && over.headers.get("front-token").is_none());
    }
    // A second later it is time.
    app.clock.advance(Duration::from_millis(1000));
    alice.ask_code(ALICE, true).await.ok();
}

#[tokio::test]
async fn sec_o34_who_has_no_session_cannot_touch_a_second_factor() {
    let app = TestApp::new().await;
    let mut alice = enrolled(&app).await;
    let mut mallory = app.browser(Mode::Header);
    for _ in 0..10 {
        ten_wrong(&app, &mut mallory, false).await;
    }
    // A code that begins a sign-in is blocked, for a stranger's guesses; nothing else is.
    right_code(&app, &mut app.browser(Mode::Header), false).await.status("RESTART_FLOW_ERROR");
    alice.refresh().await;
    right_code(&app, &mut alice, true).await.ok();
    app.browser(Mode::Header).sign_in(ALICE).await.ok();
    let audited = app.store.audited().await;
    assert_eq!(audited.iter().filter(|what| *what == "factor-blocked").count(), 1);
    assert!(app.mfa.factors().unblock(&app.user(ALICE).await, &FactorId::OTP_EMAIL).await.unwrap());
    right_code(&app, &mut app.browser(Mode::Header), false).await.ok();
}

#[tokio::test]
async fn sec_o34_a_rest_ends_by_itself_and_a_block_by_an_administrator() {
    let app = TestApp::new().await;
    let mut alice = enrolled(&app).await;
    let user = app.user(ALICE).await;
    for round in 1..=10 {
        ten_wrong(&app, &mut alice, true).await.status("RESTART_FLOW_ERROR");
        // One for the enrolment; "nonono" is never compared, and counts all the same.
        assert_eq!(app.mfa.counters().code_comparisons, 1, "{round}");
    }
    // Whatever time passes, no code is accepted, and nobody is told to wait.
    app.clock.advance(95 * 24 * HOUR);
    let audited = app.store.audited().await;
    let app = app.restarted().await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_in(ALICE).await.ok();
    let refused = right_code(&app, &mut alice, true).await;
    refused.status("RESTART_FLOW_ERROR");
    assert!(refused.headers.get("retry-after").is_none());
    // Another factor goes on as ever, and lifts nothing by itself.
    let mut other = app.browser(Mode::Header);
    other.sign_in(ALICE).await.ok();
    right_code(&app, &mut other, true).await.status("RESTART_FLOW_ERROR");
    assert!(!app.mfa.factors().unblock(&user, &FactorId::OTP_PHONE).await.unwrap());
    assert!(app.mfa.factors().unblock(&user, &FactorId::OTP_EMAIL).await.unwrap());
    assert!(!app.mfa.factors().unblock(&user, &FactorId::OTP_EMAIL).await.unwrap());
    right_code(&app, &mut other, true).await.ok();
    let audited = [audited, app.store.audited().await].concat();
    for (what, times) in [("factor-blocked", 1), ("factor-unblocked", 1), ("locked-out", 9)] {
        assert_eq!(audited.iter().filter(|seen| *seen == what).count(), times, "{what}");
    }
    // Nothing of it is left behind by a user who goes.
    let kept = async || {
        let keys = app.store.dump().await.into_keys();
        keys.filter(|key| key.as_str().starts_with("limit/guess/")).count()
    };
    ten_wrong(&app, &mut other, true).await;
    assert_eq!(kept().await, 1);
    app.mfa.users().delete(&user).await.unwrap();
    assert_eq!(kept().await, 0);
}

#[tokio::test]
async fn sec_o34_two_other_factors_lift_a_block() {
    let app =
        TestApp::with(|builder| builder.passwordless(Passwordless::email_or_phone(Countries::all()))).await;
    let mut alice = enrolled(&app).await;
    alice.pass_code(NUMBER).await;
    for _ in 0..10 {
        ten_wrong(&app, &mut alice, true).await;
    }
    alice.refresh().await;
    right_code(&app, &mut alice, true).await.status("RESTART_FLOW_ERROR");
    let mut other = app.browser(Mode::Header);
    other.sign_in(ALICE).await.ok();
    right_code(&app, &mut other, true).await.status("RESTART_FLOW_ERROR");
    // Password and phone, in one session: that is Alice.
    other.pass_code(NUMBER).await;
    right_code(&app, &mut other, true).await.ok();
    assert!(app.store.audited().await.contains(&"factor-unblocked".to_owned()));
}

#[tokio::test]
async fn sec_o36_no_header_makes_another_address() {
    // How many of thirty messages are sent, from one connection whose header says something else each time.
    let sent = async |connection: &str, forwarded: &dyn Fn(usize) -> String, trusted: Option<&str>| {
        let app = TestApp::limited(|builder| {
            let builder = from_header(builder);
            match trusted {
                Some(trusted) => builder.trusted_proxies(TrustedProxies::new([trusted]).unwrap()),
                None => builder,
            }
        })
        .await;
        for n in 0..30 {
            let headers = [("x-from", connection), ("x-forwarded-for", &forwarded(n))];
            ask_from(&app, &headers, &format!("alice{n}@work.example")).await.ok();
        }
        arrived(&[&app]).await
    };
    let rotated = |n: usize| format!("198.51.100.{n}");
    assert_eq!(sent("192.0.2.1", &rotated, None).await, 20);
    assert_eq!(sent("192.0.2.1", &rotated, Some("10.0.0.0/8")).await, 20);
    // Behind a proxy, what the client put in front counts as little.
    assert_eq!(sent("10.0.0.1", &|n| format!("198.51.100.{n}, 192.0.2.1"), Some("10.0.0.0/8")).await, 20);
    assert_eq!(sent("10.0.0.1", &rotated, Some("10.0.0.0/8")).await, 30);
    // An IPv6 address is counted by its /64.
    assert_eq!(sent("10.0.0.1", &|n| format!("2001:db8::{n:x}"), Some("10.0.0.0/8")).await, 20);
    assert_eq!(sent("10.0.0.1", &|n| format!("2001:db8:0:{n:x}::1"), Some("10.0.0.0/8")).await, 30);
}

#[tokio::test]
async fn sec_o36_proxies_need_to_know_the_connection() {
    let proxies = || TrustedProxies::new(["10.0.0.0/8"]).unwrap();
    let build = |change: fn(MfaBuilder) -> MfaBuilder| {
        let builder = Mfa::builder(shop(), Secrets::random().unwrap(), MemoryStore::new());
        change(builder.delivery(Outbox::new()).trusted_proxies(proxies())).build()
    };
    let told = build(|builder| builder).unwrap_err();
    assert!(told.to_string().contains("add .peer(..)"), "{told}");
    build(|builder| builder.peer(|_, _| Some(IpAddr::from([10, 0, 0, 1])))).unwrap();
    let mut limits = SendLimits::default();
    limits.by_user = 0;
    let builder = Mfa::builder(shop(), Secrets::random().unwrap(), MemoryStore::new());
    let told = builder.delivery(Outbox::new()).send_limits(limits).build().unwrap_err();
    assert!(told.to_string().contains("1 to 1000"), "{told}");
}
