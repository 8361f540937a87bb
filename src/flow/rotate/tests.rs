//! Whole schedules over the rules and the rows that the flows use, without store and network.

use std::{num::NonZero, sync::LazyLock, thread, time::Duration};

use self::schedule::{Limits, Said, Service, Standing, Tally};
use crate::{
    base::{
        ident::{FactorId, LoginId, SessionHandle, TenantId, UserId},
        payload::Payload,
        time::Timestamp,
    },
    claim::MfaClaim,
    config::Lifetimes,
    flow::evaluate,
    model::{
        epoch::Epochs,
        session::{Lineage, SessionRecord},
    },
    policy::Requirements,
    session::refresh::{self, Completing, Elevation, Refresh, RefreshKeys, RefreshToken},
};

#[path = "../../../tests/it/support/schedule.rs"]
mod schedule;

static KEYS: LazyLock<[RefreshKeys; 1]> = LazyLock::new(|| [RefreshKeys::derive(&[7; 32])]);
const START: Timestamp = Timestamp::from_secs(1_700_000_000);

/// A refresh token with its hash, and when the access token that came with it runs out.
#[derive(Clone)]
struct Pair {
    token: RefreshToken,
    hash2: String,
    access_until: Timestamp,
}

/// One session's row, and the functions that judge and change it.
struct Rules {
    lives: Lifetimes,
    begun: Timestamp,
    now: Timestamp,
    row: Option<SessionRecord>,
    /// Whether the session lacks a factor at first.
    half: bool,
}

impl Rules {
    fn new() -> Self {
        Self { lives: Lifetimes::default(), begun: START, now: START, row: None, half: false }
    }

    /// With the token that is current now: its hash is what the row has.
    fn pair(&self, line: &Lineage, token: RefreshToken) -> Pair {
        let access_until = (self.now + self.lives.access_token).min(line.ends_at());
        Pair { token, hash2: line.current.clone(), access_until }
    }

    fn decide(&self, line: &Lineage, pair: &Pair) -> Refresh {
        refresh::decide(line, false, &pair.hash2, self.now, self.lives.refresh_grace)
    }

    /// Writes the line, and answers with its token.
    fn put(&mut self, token: RefreshToken, line: Lineage) -> Said<Pair> {
        let pair = self.pair(&line, token);
        if let Some(row) = &mut self.row {
            row.lineage = line;
        }
        Said::Token(pair)
    }
}

impl Service for Rules {
    type Pair = Pair;

    fn begin(&mut self, setting: u32) -> Pair {
        self.half = setting >> 16 & 3 == 0;
        let handle = SessionHandle::random(&TenantId::PUBLIC).unwrap();
        let user = UserId::parse("alice").unwrap();
        let token = RefreshToken::random(handle, user.clone(), &KEYS[0]).unwrap();
        self.begun = self.now;
        let (lives, now) = (&self.lives, self.now);
        let row = SessionRecord {
            login: LoginId::parse("alice").unwrap(),
            user,
            tenant: TenantId::PUBLIC,
            created_at: now,
            used_at: now,
            revision: 1,
            epochs: Epochs::default(),
            payload: Payload::new(),
            lineage: Lineage {
                current: token.hash2(),
                previous: None,
                superseded: Vec::new(),
                salt: setting.to_string(),
                half_until: self.half.then_some(now + lives.half_session),
                expires_at: now + lives.refresh_token,
                absolute_until: now + lives.session,
            },
            agent: None,
            ask_at: None,
        };
        let pair = self.pair(&row.lineage, token);
        self.row = Some(row);
        pair
    }

    fn limits(&self) -> Limits {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap();
        Limits {
            grace: millis(self.lives.refresh_grace),
            sliding: millis(self.lives.refresh_token),
            absolute: millis(self.lives.session),
            half: self.half.then_some(millis(self.lives.half_session)),
        }
    }

    fn wait(&mut self, by: i64) {
        self.now = Timestamp::from_millis(self.now.as_millis() + by);
    }

    fn refresh(&mut self, pair: &Pair) -> Said<Pair> {
        let Some(row) = &self.row else { return Said::Unauthorised };
        match self.decide(&row.lineage, pair) {
            Refresh::Rotate => {
                let slides = self.now + self.lives.refresh_token;
                let (token, line) =
                    refresh::rotate(&row.lineage, &*KEYS, &pair.token, self.now, slides).unwrap();
                self.put(token, line)
            }
            Refresh::Replay => {
                let token = refresh::replay(&row.lineage, &*KEYS, &pair.token).unwrap();
                Said::Token(self.pair(&row.lineage, token))
            }
            Refresh::Superseded => Said::Superseded,
            Refresh::Ended(_) => {
                self.row = None;
                Said::Unauthorised
            }
            Refresh::Theft(_) => {
                self.row = None;
                Said::Theft
            }
        }
    }

    fn complete(&mut self, pair: &Pair) -> Said<Pair> {
        if self.now >= pair.access_until {
            return Said::TryRefresh;
        }
        let (now, grace) = (self.now, self.lives.refresh_grace);
        let alive = |row: &&mut SessionRecord| refresh::ended(&row.lineage, false, now).is_none();
        let Some(row) = self.row.as_mut().filter(alive) else { return Said::Unauthorised };
        let refresh_hash1 = &pair.token.hash1();
        if refresh::elevation(&row.lineage, refresh_hash1, now) == Elevation::Stale {
            return Said::TryRefresh;
        }
        let mut claim = MfaClaim::from_payload(&row.payload).unwrap_or_default();
        claim.mark(FactorId::OTP_EMAIL, now);
        evaluate::apply(row, &mut claim, &Requirements::none(), Epochs::default(), now);
        let by = Completing { handle: pair.token.handle(), user: pair.token.user(), refresh_hash1 };
        let (token, line) = refresh::complete(&row.lineage, &*KEYS, by, now, grace).unwrap();
        self.put(token, line)
    }

    fn same_refresh_token(one: &Pair, other: &Pair) -> bool {
        one.token.text() == other.token.text()
    }

    fn access_until(&self, pair: &Pair) -> i64 {
        pair.access_until.as_millis() - self.begun.as_millis()
    }

    fn standing(&self, pair: &Pair) -> Option<Standing> {
        let row = self.row.as_ref()?;
        let refresh = self.decide(&row.lineage, pair);
        Some(Standing {
            rotates: refresh == Refresh::Rotate,
            replays: refresh == Refresh::Replay,
            on_line: refresh::on_line(&row.lineage, &pair.token.hash1()),
        })
    }
}

#[test]
fn sec_r02_r08_s02_kept_schedules() {
    schedule::run_kept(&mut Rules::new());
}

/// The property of refreshing: rows R02 to R08, R11, R20 and S02 as the module `schedule` has them.
#[test]
fn sec_r02_r03_r04_r05_r06_r07_r08_r20_s02_any_schedule_is_answered_as_the_rows_say() {
    let (seed, threads) = (schedule::seed(), thread::available_parallelism().map_or(2, NonZero::get));
    let count = 100_000_usize;
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let run = |n: usize| {
            let seed = seed.wrapping_add(n as u64);
            scope.spawn(move || schedule::run_many(&mut Rules::new(), seed, count.div_ceil(threads)))
        };
        for run in (0..threads).map(run).collect::<Vec<_>>() {
            tally += run.join().unwrap();
        }
    });
    // All of it was tried, and often.
    let often = [tally.honest, tally.thieves, tally.rotations, tally.replays, tally.elevations, tally.shared];
    let less = [tally.superseded, tally.thefts, tally.ends, tally.stale, tally.lost, tally.asked_again];
    assert!(often.into_iter().all(|n| n > 10_000) && less.into_iter().all(|n| n > 5_000), "{tally:?}");
    assert!(tally.gave_up < tally.honest / 5, "{tally:?}");
    println!("{tally:?}");
}
