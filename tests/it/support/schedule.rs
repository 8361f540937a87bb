//! Schedules of one client with up to six racers, an unreliable network and sometimes a thief; what the rows
//! say must be answered; and a world in which a service answers the same schedules. The crate's own tests
//! run them over the bare rules, the HTTP tests over the whole stack.
//!
//! A schedule is a list of words, so that one that failed can be cut down and kept: see [`run_kept`].
//!
//! # Which client is honest
//!
//! 1. A request is handled, or lost, within the window after its token went out of use.
//! 2. Whoever is left with a token that is out of use (the answer got lost, or an older one came last) asks
//!    again within the window.
//! 3. Nobody uses a newer token before that, nor while a request or an answer with an older one is on its way.
//! 4. Where the answer to a completed factor got lost, the factor is completed again from the same access
//!    token within the window. Where that can't be, the client gives up: rows R06 and S02 b say how that ends.
//!    Fewer than eight factors are completed in one window.
//!
//! With a window of 30 s and an hour between refreshes the third follows from the first two.
//! Every other client is as good as a thief: what it is told is compared with the rows all the same.

#![allow(unreachable_pub, reason = "two binaries share this file as a private module")]

use std::{
    collections::hash_map::RandomState,
    fmt::Write as _,
    fs::{self, OpenOptions},
    hash::{BuildHasher as _, Hasher as _},
    io::Write as _,
    ops::AddAssign,
};

/// What a service says to a presented token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<T> {
    Token(T),
    Superseded,
    Theft,
    Unauthorised,
    TryRefresh,
}

impl<T> Said<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Said<U> {
        match self {
            Self::Token(token) => Said::Token(change(token)),
            Self::Superseded => Said::Superseded,
            Self::Theft => Said::Theft,
            Self::Unauthorised => Said::Unauthorised,
            Self::TryRefresh => Said::TryRefresh,
        }
    }
}

/// How long things last, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub grace: i64,
    pub sliding: i64,
    pub absolute: i64,
    /// Of a session that lacks a factor until the first completion.
    pub half: Option<i64>,
}

/// Where a token stands, without presenting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub rotates: bool,
    pub replays: bool,
    /// Whether access tokens that name it are of the living line.
    pub on_line: bool,
}

/// What is under test: one session at a time.
pub trait Service {
    /// A refresh token and an access token that was made with it.
    type Pair: Clone;

    /// Begins a session. The service takes what it chooses by chance from bits 16 and up of `setting`.
    fn begin(&mut self, setting: u32) -> Self::Pair;
    fn limits(&self) -> Limits;
    fn wait(&mut self, millis: i64);
    fn refresh(&mut self, pair: &Self::Pair) -> Said<Self::Pair>;
    /// Completes a factor by the pair's access token.
    fn complete(&mut self, pair: &Self::Pair) -> Said<Self::Pair>;
    fn same_refresh_token(one: &Self::Pair, other: &Self::Pair) -> bool;
    /// When the access token runs out, in milliseconds since the session began.
    fn access_until(&self, pair: &Self::Pair) -> i64;
    /// Where the service can tell.
    fn standing(&self, _pair: &Self::Pair) -> Option<Standing> {
        None
    }
}

// ------------------------------------------------------------------------------------------- the reference

/// The session as rows R02 to R11 and S02 tell it: the whole history, token by token.
struct Reference {
    limits: Limits,
    now: i64,
    over: bool,
    expires: i64,
    half: Option<i64>,
    /// One entry a token, in the order of issue: when and how it went out of use.
    line: Vec<Option<Gone>>,
}

#[derive(Clone, Copy, Debug)]
struct Gone {
    at: i64,
    elevated: bool,
}

enum Place {
    Current,
    /// Rotated, and its successor unused; the window's end.
    Before(i64),
    /// Put out of use by a completion, and nothing newer used; the window's end.
    Waiting(i64),
    Old,
}

/// As many superseded tokens are remembered.
const REMEMBERED: usize = 8;

impl Reference {
    fn new(limits: Limits) -> Self {
        let expires = limits.sliding.min(limits.absolute);
        Self { limits, now: 0, over: false, expires, half: limits.half, line: vec![None] }
    }

    fn last(&self) -> usize {
        self.line.len() - 1
    }

    fn ended(&self) -> bool {
        let half = self.half.is_some_and(|half| self.now >= half);
        self.over || half || self.now >= self.expires || self.now >= self.limits.absolute
    }

    fn elevated(&self, at: usize) -> bool {
        self.line[at].is_some_and(|gone| gone.elevated)
    }

    fn place(&self, at: usize) -> Place {
        let last = self.last();
        let Some(gone) = self.line[at] else { return Place::Current };
        let until = gone.at + self.limits.grace;
        if !gone.elevated && at + 1 == last {
            return Place::Before(until);
        }
        let all_elevated = |mut range: std::ops::Range<usize>| range.all(|n| self.elevated(n));
        // One before the current that was still in its window when a factor was completed waits as well.
        let caught = !gone.elevated && self.line[at + 1].is_some_and(|next| next.at <= until);
        let waits = all_elevated(at..last) || (caught && all_elevated(at + 1..last));
        if waits && last - at <= REMEMBERED { Place::Waiting(until) } else { Place::Old }
    }

    fn refresh(&mut self, at: usize) -> Said<usize> {
        if self.ended() {
            self.over = true;
            return Said::Unauthorised;
        }
        match self.place(at) {
            Place::Current => {
                self.expires = (self.now + self.limits.sliding).min(self.limits.absolute);
                self.succeed(false)
            }
            Place::Before(until) if self.now <= until => Said::Token(self.last()),
            Place::Waiting(until) if self.now <= until => Said::Superseded,
            Place::Waiting(_) => {
                self.over = true;
                Said::Unauthorised
            }
            Place::Before(_) | Place::Old => {
                self.over = true;
                Said::Theft
            }
        }
    }

    fn complete(&mut self, at: usize, access_until: i64) -> Said<usize> {
        if self.now >= access_until {
            return Said::TryRefresh;
        }
        if self.ended() {
            return Said::Unauthorised;
        }
        match self.place(at) {
            Place::Current => {
                self.half = None;
                self.succeed(true)
            }
            Place::Waiting(until) if at + 1 == self.last() && self.elevated(at) && self.now <= until => {
                Said::Token(self.last())
            }
            _ => Said::TryRefresh,
        }
    }

    fn succeed(&mut self, elevated: bool) -> Said<usize> {
        let last = self.last();
        self.line[last] = Some(Gone { at: self.now, elevated });
        self.line.push(None);
        Said::Token(self.last())
    }

    /// Rules 1 and 3 of an honest client, for a token that is presented now.
    fn in_time(&self, at: usize) -> bool {
        let newer_used = self.line[at + 1..].iter().flatten().any(|gone| !gone.elevated);
        let in_window = self.line[at].is_none_or(|gone| self.now <= gone.at + self.limits.grace);
        !newer_used && in_window && self.last() - at <= REMEMBERED
    }

    fn standing(&self, at: usize) -> Standing {
        let place = self.place(at);
        let replays = matches!(place, Place::Before(until) if self.now <= until);
        let on_line = !matches!(place, Place::Old);
        Standing { rotates: matches!(place, Place::Current), replays, on_line }
    }
}

// ------------------------------------------------------------------------------------------------ the world

/// Whoever holds tokens: the jar that tabs share, a process's own copy, or the thief.
#[derive(Clone)]
struct Held<P> {
    pair: P,
    at: usize,
}

struct Request<P> {
    from: usize,
    held: Held<P>,
    completes: bool,
}

struct Reply<P> {
    to: usize,
    held: Held<P>,
}

/// How often what happened, so that a run can be known to have tried it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub honest: u64,
    pub thieves: u64,
    pub rotations: u64,
    pub replays: u64,
    pub elevations: u64,
    pub shared: u64,
    pub superseded: u64,
    pub thefts: u64,
    pub ends: u64,
    pub stale: u64,
    pub lost: u64,
    pub asked_again: u64,
    pub gave_up: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.honest += more.honest;
        self.thieves += more.thieves;
        self.rotations += more.rotations;
        self.replays += more.replays;
        self.elevations += more.elevations;
        self.shared += more.shared;
        self.superseded += more.superseded;
        self.thefts += more.thefts;
        self.ends += more.ends;
        self.stale += more.stale;
        self.lost += more.lost;
        self.asked_again += more.asked_again;
        self.gave_up += more.gave_up;
    }
}

type Checked<T = ()> = Result<T, String>;

macro_rules! must {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

struct World<'s, S: Service> {
    service: &'s mut S,
    rows: Reference,
    /// The first pair of each token, in the order of issue.
    issued: Vec<S::Pair>,
    honest: bool,
    /// The racers' holders: one jar, or own copies.
    racers: Vec<usize>,
    holders: Vec<Option<Held<S::Pair>>>,
    thief: Option<Held<S::Pair>>,
    requests: Vec<Request<S::Pair>>,
    replies: Vec<Reply<S::Pair>>,
    tally: Tally,
}

/// Runs a schedule. `Err` says which promise was broken.
pub fn run<S: Service>(service: &mut S, words: &[u32]) -> Checked<Tally> {
    let Some((setting, steps)) = words.split_first() else { return Ok(Tally::default()) };
    let pair = service.begin(*setting);
    let rows = Reference::new(service.limits());
    let own_copies = (setting >> 8) as u8;
    let racers: Vec<usize> = (0..6).map(|n| if own_copies >> n & 1 == 1 { n + 1 } else { 0 }).collect();
    let first = Held { pair: pair.clone(), at: 0 };
    let mut world = World {
        service,
        rows,
        issued: vec![pair],
        // Half of the schedules are honest; a thief comes to a quarter, honest client or not.
        honest: setting & 1 == 0,
        racers: racers[..1 + (setting >> 4 & 7) as usize % 6].to_vec(),
        holders: vec![Some(first.clone()); 7],
        thief: (setting >> 1 & 3 == 3).then_some(first),
        requests: Vec::new(),
        replies: Vec::new(),
        tally: Tally::default(),
    };
    for holder in 1..7 {
        if !world.racers.contains(&holder) {
            world.holders[holder] = None;
        }
    }
    if !world.racers.contains(&0) {
        world.holders[0] = None;
    }
    match world.thief {
        Some(_) => world.tally.thieves += 1,
        None => world.tally.honest += u64::from(world.honest),
    }
    for step in steps {
        world.step(*step)?;
    }
    world.end(*setting)?;
    Ok(world.tally)
}

impl<S: Service> World<'_, S> {
    fn step(&mut self, word: u32) -> Checked {
        let (a, b, c) = ((word >> 5 & 0xff) as usize, (word >> 13 & 0xff) as usize, i64::from(word >> 21));
        let Limits { grace, sliding, absolute, .. } = self.rows.limits;
        match word & 31 {
            0..=8 => self.send(a, false),
            9..=15 => self.handle(a, b % 8 == 0)?,
            16..=20 => self.deliver(a, b % 8 == 0),
            21 if b % 2 == 0 && !self.requests.is_empty() => {
                let at = a % self.requests.len();
                self.requests.remove(at);
                self.tally.lost += 1;
            }
            21 if !self.replies.is_empty() => {
                let at = a % self.replies.len();
                self.replies.remove(at);
                self.tally.lost += 1;
            }
            22..=24 => self.wait(2 * c)?,
            25 | 26 => self.wait([grace - 1, grace, grace + 1, grace / 2, 1, 2 * grace][a % 6])?,
            27 if b % 16 == 0 => self.wait([sliding - 1, sliding, sliding + 1, absolute][a % 4])?,
            27 => self.wait(sliding / 4 * (c + 1) / 2048)?,
            28 | 29 => self.send(a, true),
            30 if self.thief.is_some() => {
                let at = a % self.issued.len();
                self.thief = Some(Held { pair: self.issued[at].clone(), at });
            }
            31 if self.thief.is_some() => self.steal()?,
            _ => self.send(a, false),
        }
        Ok(())
    }

    fn send(&mut self, racer: usize, completes: bool) {
        let from = self.racers[racer % self.racers.len()];
        if let Some(held) = self.holders[from].clone().filter(|_| self.requests.len() < 6) {
            self.requests.push(Request { from, held, completes });
        }
    }

    /// A request arrives; one that is doubled arrives once more, later.
    fn handle(&mut self, which: usize, doubled: bool) -> Checked {
        if self.requests.is_empty() {
            return Ok(());
        }
        let which = which % self.requests.len();
        let Request { from, held, completes } = self.requests.remove(which);
        if doubled {
            self.requests.push(Request { from, held: held.clone(), completes });
        }
        if self.honest && !self.rows.in_time(held.at) {
            self.tally.lost += 1;
            return Ok(());
        }
        let said = match completes {
            true => self.complete(&held)?,
            false => {
                if self.honest && held.at == self.rows.last() {
                    self.let_others_catch_up(held.at)?;
                }
                self.refresh(&held)?
            }
        };
        if let Said::Token(held) = said {
            self.replies.push(Reply { to: from, held });
        }
        Ok(())
    }

    /// An answer arrives: the last one to arrive is what a jar keeps, whichever was sent last.
    fn deliver(&mut self, which: usize, doubled: bool) {
        if self.replies.is_empty() {
            return;
        }
        let which = which % self.replies.len();
        let Reply { to, held } = self.replies.remove(which);
        if self.honest && !self.rows.in_time(held.at) {
            self.tally.lost += 1;
            return;
        }
        if doubled {
            self.replies.push(Reply { to, held: held.clone() });
        }
        // Who gave up stays out.
        if self.holders[to].is_some() {
            self.holders[to] = Some(held);
        }
    }

    fn wait(&mut self, millis: i64) -> Checked {
        if self.honest {
            for holder in 0..self.holders.len() {
                let Some(held) = &self.holders[holder] else { continue };
                let window = self.rows.line[held.at].map(|gone| gone.at + self.rows.limits.grace);
                if window.is_some_and(|until| until < self.rows.now + millis) {
                    self.ask_again(holder)?;
                }
            }
        }
        self.rows.now += millis;
        self.service.wait(millis);
        Ok(())
    }

    /// Rule 3: before a token is used, whoever has an older one asks again, and what is under way is lost.
    fn let_others_catch_up(&mut self, used: usize) -> Checked {
        let under_way = self.requests.len() + self.replies.len();
        self.requests.retain(|request| request.held.at >= used);
        self.replies.retain(|reply| reply.held.at >= used);
        self.tally.lost += (under_way - self.requests.len() - self.replies.len()) as u64;
        for holder in 0..self.holders.len() {
            if self.holders[holder].as_ref().is_some_and(|held| held.at < used) {
                self.ask_again(holder)?;
            }
        }
        Ok(())
    }

    /// Rules 2 and 4.
    fn ask_again(&mut self, holder: usize) -> Checked {
        let Some(held) = self.holders[holder].clone() else { return Ok(()) };
        self.tally.asked_again += 1;
        let mut said = self.refresh(&held)?;
        if said.is_superseded() {
            said = self.complete(&held)?;
        }
        self.holders[holder] = match said {
            Said::Token(held) => Some(held),
            _ => {
                self.tally.gave_up += u64::from(!self.rows.ended());
                None
            }
        };
        Ok(())
    }

    /// The thief refreshes with what was stolen, and goes on with what comes of it.
    fn steal(&mut self) -> Checked {
        let Some(held) = self.thief.clone() else { return Ok(()) };
        if let Said::Token(next) = self.refresh(&held)? {
            self.thief = Some(next);
        }
        Ok(())
    }

    /// Presents a refresh token, and checks what is said.
    fn refresh(&mut self, held: &Held<S::Pair>) -> Checked<Said<Held<S::Pair>>> {
        let (at, now, gone) = (held.at, self.rows.now, self.rows.line[held.at]);
        let (tokens, alive) = (self.issued.len(), !self.rows.ended());
        let expected = self.rows.refresh(at);
        let said = self.service.refresh(&held.pair);
        let said = self.compare("refresh", at, said, expected)?;
        match said {
            Said::Token(ref next) => {
                must!(alive, "a session that is over goes on, by token {at}");
                // Nothing works longer than the window after it went out of use, and nothing at all that
                // a completed factor put out of use.
                let in_window =
                    gone.is_none_or(|gone| !gone.elevated && now <= gone.at + self.rows.limits.grace);
                must!(in_window, "token {at} works too long");
                let rotated = next.at == tokens;
                self.tally.rotations += u64::from(rotated);
                self.tally.replays += u64::from(!rotated);
            }
            Said::Superseded => self.tally.superseded += 1,
            Said::Theft => {
                must!(!self.honest || self.thief.is_some(), "an honest client is a thief, by token {at}");
                self.tally.thefts += 1;
            }
            Said::Unauthorised => {
                let honest = self.honest && self.thief.is_none();
                must!(!honest || !alive, "an honest client's session ended early, by token {at}");
                self.tally.ends += 1;
            }
            Said::TryRefresh => return Err(format!("a refresh is told to refresh, by token {at}")),
        }
        Ok(said)
    }

    /// Completes a factor, and checks what is said.
    fn complete(&mut self, held: &Held<S::Pair>) -> Checked<Said<Held<S::Pair>>> {
        let tokens = self.issued.len();
        let expected = self.rows.complete(held.at, self.service.access_until(&held.pair));
        let said = self.service.complete(&held.pair);
        let said = self.compare("completion", held.at, said, expected)?;
        match said {
            Said::Token(ref next) if next.at == tokens => self.tally.elevations += 1,
            Said::Token(_) => self.tally.shared += 1,
            Said::TryRefresh => self.tally.stale += 1,
            _ => {}
        }
        Ok(said)
    }

    /// What is said must be what the rows say; a token, the very one.
    fn compare(
        &mut self,
        what: &str,
        at: usize,
        said: Said<S::Pair>,
        expected: Said<usize>,
    ) -> Checked<Said<Held<S::Pair>>> {
        let class = said.class();
        must!(class == expected.class(), "{what} by token {at}: {class:?} instead of {expected:?}");
        let Said::Token(next) = expected else { return Ok(said.map(|pair| Held { pair, at })) };
        let Said::Token(pair) = said else { return Err("a token was expected".to_owned()) };
        match self.issued.get(next) {
            Some(known) => {
                let same = S::same_refresh_token(known, &pair);
                must!(same, "{what} by token {at}: the line forks after token {next}");
            }
            None => {
                let known = self.issued.iter().any(|known| S::same_refresh_token(known, &pair));
                must!(!known, "{what} by token {at}: an old token instead of a new one");
                self.issued.push(pair.clone());
            }
        }
        Ok(Said::Token(Held { pair, at: next }))
    }

    /// What must hold whatever has happened.
    fn end(&mut self, setting: u32) -> Checked {
        self.one_live_branch()?;
        if self.honest && self.thief.is_none() {
            self.everybody_goes_on(setting)?;
        }
        if self.thief.is_some() {
            self.the_theft_shows(setting >> 7 & 1 == 1)?;
        }
        if self.rows.over {
            // For everybody, whatever they hold.
            for at in self.issued.len().saturating_sub(3)..self.issued.len() {
                let held = Held { pair: self.issued[at].clone(), at };
                must!(self.refresh(&held)?.is_unauthorised(), "token {at} outlives its session");
                must!(!self.complete(&held)?.is_token(), "token {at} completes a factor of no session");
            }
        }
        Ok(())
    }

    fn one_live_branch(&self) -> Checked {
        if self.rows.ended() {
            return Ok(());
        }
        let (mut live, mut told) = (0, 0);
        for (at, pair) in self.issued.iter().enumerate() {
            let Some(standing) = self.service.standing(pair) else { continue };
            let expected = self.rows.standing(at);
            must!(standing == expected, "token {at} is {standing:?} instead of {expected:?}");
            told += 1;
            live += usize::from(standing.rotates);
        }
        must!(told == 0 || live == 1, "{live} live branches");
        Ok(())
    }

    /// Rows R04, R05: the answers that are under way arrive in some order, or not at all; then everybody asks
    /// once more, and gets the one token that lives.
    fn everybody_goes_on(&mut self, order: u32) -> Checked {
        let mut order = order as usize;
        while !self.replies.is_empty() {
            order = order.rotate_right(5) ^ self.replies.len();
            match order % 4 {
                0 => drop(self.replies.pop()),
                _ => self.deliver(order >> 3, false),
            }
        }
        for holder in 0..self.holders.len() {
            let Some(held) = self.holders[holder].clone() else { continue };
            let lost_elevation = self.rows.line[held.at..].iter().flatten().any(|gone| gone.elevated);
            if held.at < self.rows.last() {
                self.ask_again(holder)?;
            }
            let goes_on = self.holders[holder].as_ref().map(|held| held.at) == Some(self.rows.last());
            must!(goes_on || lost_elevation || self.rows.ended(), "holder {holder} can't go on");
        }
        if let Some(held) = self.holders.iter().flatten().next().cloned().filter(|_| !self.rows.ended()) {
            must!(self.refresh(&held)?.is_token(), "the live token {} does not refresh", held.at);
        }
        Ok(())
    }

    /// Rows R06 to R08: of owner and thief, further apart than the window, the second to come ends the session
    /// for both, whoever it is.
    fn the_theft_shows(&mut self, owner_first: bool) -> Checked {
        self.requests.clear();
        self.replies.clear();
        let (owner, thief) = (self.holders.iter().flatten().next().cloned(), self.thief.clone());
        let (Some(owner), Some(thief)) = (owner, thief) else { return Ok(()) };
        self.honest = false;
        for held in if owner_first { [&owner, &thief] } else { [&thief, &owner] } {
            self.wait(self.rows.limits.grace + 1)?;
            let said = self.refresh(held)?;
            must!(said.is_token() || self.rows.over, "neither goes on nor is over");
        }
        must!(self.rows.over, "owner and thief both go on");
        Ok(())
    }
}

impl<T> Said<T> {
    fn is_token(&self) -> bool {
        matches!(self, Self::Token(_))
    }

    fn is_superseded(&self) -> bool {
        matches!(self, Self::Superseded)
    }

    fn is_unauthorised(&self) -> bool {
        matches!(self, Self::Unauthorised)
    }

    fn class(&self) -> Said<()> {
        match self {
            Self::Token(_) => Said::Token(()),
            Self::Superseded => Said::Superseded,
            Self::Theft => Said::Theft,
            Self::Unauthorised => Said::Unauthorised,
            Self::TryRefresh => Said::TryRefresh,
        }
    }
}

// --------------------------------------------------------------------------------- generating and keeping

/// Where schedules that failed once are kept, one a line; they run before any other.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schedules.txt");

/// A stream of words (SplitMix64).
#[derive(Clone, Copy, Debug)]
pub struct Words(u64);

impl Words {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) as u32
    }

    /// A schedule.
    pub fn schedule(&mut self) -> Vec<u32> {
        let steps = 8 + self.next() % 33;
        (0..=steps).map(|_| self.next()).collect()
    }
}

/// The seed of a run: `MFA_SEED`, or another one each time.
pub fn seed() -> u64 {
    match std::env::var("MFA_SEED") {
        Ok(seed) => seed.parse().expect("MFA_SEED must be a number"),
        Err(_) => RandomState::new().build_hasher().finish(),
    }
}

/// Runs what is kept.
pub fn run_kept<S: Service>(service: &mut S) {
    let text = fs::read_to_string(KEPT).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let words: Vec<u32> = line.split(' ').map(|word| u32::from_str_radix(word, 16).unwrap()).collect();
        run_one(service, &words, None);
    }
}

/// Runs schedules of a seed.
pub fn run_many<S: Service>(service: &mut S, seed: u64, count: usize) -> Tally {
    let (mut words, mut tally) = (Words::new(seed), Tally::default());
    for _ in 0..count {
        tally += run_one(service, &words.schedule(), Some(seed));
    }
    tally
}

/// Runs one; a failure is cut down, told and, if it is new, kept.
fn run_one<S: Service>(service: &mut S, words: &[u32], seed: Option<u64>) -> Tally {
    // A panic in the service is not cut down, but told.
    let told = TellOnPanic(words);
    let outcome = run(service, words);
    std::mem::forget(told);
    let mut broken = match outcome {
        Ok(tally) => return tally,
        Err(broken) => broken,
    };
    let mut words = words.to_vec();
    let mut at = words.len();
    while at > 1 {
        at -= 1;
        let mut shorter = words.clone();
        shorter.remove(at);
        if let Err(still) = run(service, &shorter) {
            (words, broken) = (shorter, still);
            at = words.len();
        }
    }
    if seed.is_some() {
        let mut kept = OpenOptions::new().append(true).open(KEPT).unwrap();
        writeln!(kept, "# {broken}\n{}", line(&words)).unwrap();
    }
    panic!("{broken}\nseed {seed:?}, schedule {}", line(&words));
}

struct TellOnPanic<'w>(&'w [u32]);

impl Drop for TellOnPanic<'_> {
    fn drop(&mut self) {
        eprintln!("schedule {}", line(self.0));
    }
}

fn line(words: &[u32]) -> String {
    words.iter().fold(String::new(), |mut text, word| {
        let space = if text.is_empty() { "" } else { " " };
        write!(text, "{space}{word:08x}").unwrap();
        text
    })
}
