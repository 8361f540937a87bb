//! The schedules of `support::schedule` through the whole stack: cookies or headers, routes, flows, rows.

use std::{thread, time::Duration};

use http::StatusCode;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tower_mfa::config::Lifetimes;

use crate::support::{
    Answer, Browser, Mode, START, TestApp,
    schedule::{self, Limits, Said, Service, Tally},
};

const HOUR: Duration = Duration::from_secs(3600);

/// How many schedules are run; more with `MFA_SCHEDULES`.
const COUNT: usize = 2000;

fn lives() -> Lifetimes {
    let mut lives = Lifetimes::default();
    (lives.access_token, lives.refresh_token, lives.session) = (HOUR, 2 * HOUR, 5 * HOUR);
    lives
}

/// An app, and one session at a time of one user each.
struct Stack {
    runtime: Runtime,
    app: TestApp,
    begun: i64,
    sessions: usize,
}

impl Stack {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let app = runtime.block_on(fresh());
        Self { runtime, app, begun: 0, sessions: 0 }
    }

    fn email(&self) -> String {
        format!("user{}@shop.example", self.sessions)
    }

    fn now(&self) -> i64 {
        tower_mfa::Clock::now(&self.app.clock).as_millis()
    }
}

async fn fresh() -> TestApp {
    TestApp::with(|b| b.lifetimes(lives())).await
}

impl Service for Stack {
    type Pair = Browser;

    fn begin(&mut self, setting: u32) -> Browser {
        // A signing key lasts for a week, and is not tended by a clock that jumps.
        if self.now() > (START + 100 * 3600) * 1000 {
            self.app = self.runtime.block_on(fresh());
        }
        self.sessions += 1;
        self.begun = self.now();
        let mut browser = self.app.browser(if setting >> 16 & 1 == 0 { Mode::Cookie } else { Mode::Header });
        let email = self.email();
        self.runtime.block_on(browser.by_code(&email));
        browser
    }

    fn limits(&self) -> Limits {
        let (lives, millis) = (lives(), |life: Duration| life.as_millis() as i64);
        Limits {
            grace: millis(lives.refresh_grace),
            sliding: millis(lives.refresh_token),
            absolute: millis(lives.session),
            half: None,
        }
    }

    fn wait(&mut self, millis: i64) {
        self.app.clock.advance(Duration::from_millis(millis as u64));
    }

    fn refresh(&mut self, browser: &Browser) -> Said<Browser> {
        let mut browser = browser.clone();
        let answer = self.runtime.block_on(browser.refresh());
        said(answer, browser)
    }

    fn complete(&mut self, browser: &Browser) -> Said<Browser> {
        let (mut browser, email) = (browser.clone(), self.email());
        self.runtime.block_on(async {
            let seen = self.app.sent_to(&email);
            let asked = browser.ask_code(&email, true).await;
            if asked.status != StatusCode::OK {
                return said(asked, browser);
            }
            let (flow, code) = (asked.ok(), self.app.code_after(&email, seen).await);
            let entered = browser.enter(&flow, &code, true).await;
            if entered.status == StatusCode::OK {
                entered.status("OK");
            }
            said(entered, browser)
        })
    }

    fn same_refresh_token(one: &Browser, other: &Browser) -> bool {
        one.refresh_token() == other.refresh_token()
    }

    fn access_until(&self, browser: &Browser) -> i64 {
        browser.front.as_ref().unwrap()["ate"].as_i64().unwrap() - self.begun
    }
}

/// What an answer says, in status, body and tokens.
fn said(answer: Answer, browser: Browser) -> Said<Browser> {
    let untouched = answer.cookies().is_empty() && !answer.headers.contains_key("front-token");
    let cleared = answer.headers.get("front-token").is_some_and(|front| front == "remove");
    let message = answer.body["message"].as_str().unwrap_or_default();
    match (answer.status.as_u16(), message) {
        (200, "") => {
            assert!(answer.body["status"] == "OK" || answer.body == Value::Object(Default::default()));
            assert!(browser.front.is_some() && browser.refresh_token().is_some());
            Said::Token(browser)
        }
        (409, "superseded, retry") if untouched && answer.headers["retry-after"] == "1" => Said::Superseded,
        (401, "token theft detected") if cleared => Said::Theft,
        // Only the refresh route clears.
        (401, "unauthorised") if cleared || untouched => Said::Unauthorised,
        (401, "try refresh token") if untouched => Said::TryRefresh,
        _ => panic!("{answer:?}"),
    }
}

#[test]
fn sec_r02_r08_s02_kept_schedules() {
    schedule::run_kept(&mut Stack::new());
}

#[test]
fn sec_r02_r03_r04_r05_r06_r07_r08_r11_s02_any_schedule_is_answered_as_the_rows_say() {
    let count = std::env::var("MFA_SCHEDULES").map_or(COUNT, |count| count.parse().unwrap());
    let seed = schedule::seed();
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let run = |n: u64| {
            scope.spawn(move || schedule::run_many(&mut Stack::new(), seed.wrapping_add(n), count / 2))
        };
        for run in (0..2).map(run).collect::<Vec<_>>() {
            tally += run.join().unwrap();
        }
    });
    let tried = [tally.rotations, tally.replays, tally.elevations, tally.shared, tally.superseded];
    let and = [tally.honest, tally.thieves, tally.thefts, tally.ends, tally.stale, tally.asked_again];
    assert!(tried.into_iter().chain(and).all(|n| n > count as u64 / 20), "{tally:?}");
    println!("{tally:?}");
}
