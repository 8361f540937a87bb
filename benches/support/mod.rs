//! What the benches share: the services that are compared, requests for them, and how they are measured.
//!
//! All figures are of one request in process, without sockets: time (the middle of many rounds, the cases
//! taking turns so that a busy machine hits all alike) and, where `valgrind` is installed, instructions
//! (counted by callgrind in a second run of the same program).

use std::{
    env,
    hint::black_box,
    process::Command,
    time::{Duration, Instant},
};

use axum::{Router, body::Body};
use futures_util::FutureExt as _;
use http::{Request, Response};
use tower::Service as _;

pub(crate) mod cases;
pub(crate) mod peers;
pub(crate) mod shop;

/// One case: a service, and the request that is sent to it again and again.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The case that it is compared with.
    pub(crate) base: &'static str,
    pub(crate) router: Router,
    request: Box<dyn Fn() -> Request<Body>>,
    status: u16,
}

impl Case {
    pub(crate) fn new(
        (name, base): (&'static str, &'static str),
        router: Router,
        status: u16,
        request: impl Fn() -> Request<Body> + 'static,
    ) -> Self {
        // What `axum::serve` does at its start: routes are made once, not at each request.
        let router = router.with_state(());
        Self { name, base, router, request: Box::new(request), status }
    }

    pub(crate) fn requests(&self, count: usize) -> Vec<Request<Body>> {
        (0..count).map(|_| (self.request)()).collect()
    }

    /// Sends one request and looks at the answer.
    pub(crate) fn check(&mut self) {
        let response = send(&mut self.router, (self.request)());
        assert_eq!(response.status().as_u16(), self.status, "{}", self.name);
    }
}

/// Callgrind counts what happens in here, and nothing else.
#[inline(never)]
pub(crate) fn measured(router: &mut Router, requests: Vec<Request<Body>>) {
    for request in requests {
        black_box(send(router, request));
    }
}

/// Nothing that is compared here ever waits.
fn send(router: &mut Router, request: Request<Body>) -> Response<Body> {
    let answer = router.call(request).now_or_never();
    answer.expect("the service answers at once").expect("it never fails")
}

pub(crate) const BATCH: usize = 500;

/// Measures all cases and prints them side by side; says whether it did. `between` lets background work go
/// on. With `--test` each case runs once.
pub(crate) fn run(mut cases: Vec<Case>, rounds: usize, between: impl Fn()) -> bool {
    let arguments: Vec<String> = env::args().collect();
    if let [_, flag, name, ..] = arguments.as_slice()
        && flag == "--count-instructions"
    {
        count_instructions(&mut cases, name);
        return false;
    }
    between();
    cases.iter_mut().for_each(Case::check);
    if arguments.iter().any(|argument| argument == "--test") {
        println!("{} cases answered as they should", cases.len());
        return false;
    }
    let times = times(&mut cases, rounds, &between);
    let instructions: Vec<f64> =
        cases.iter().map(|case| instructions(case.name).unwrap_or(f64::NAN)).collect();
    println!(
        "{:<38} {:>8} {:>8} {:>8} {:>8} {:>8}  against",
        "one request", "ns", "ratio", "+ns", "instr.", "+instr."
    );
    for (at, case) in cases.iter().enumerate() {
        let base = cases.iter().position(|other| other.name == case.base).expect("a base of that name");
        println!(
            "{:<38} {:>8.0} {:>7.2}x {:>8.0} {:>8.0} {:>8.0}  {}",
            case.name,
            times[at],
            times[at] / times[base],
            times[at] - times[base],
            instructions[at],
            instructions[at] - instructions[base],
            case.base,
        );
    }
    true
}

fn times(cases: &mut [Case], rounds: usize, between: &impl Fn()) -> Vec<f64> {
    let mut all = vec![Vec::with_capacity(rounds); cases.len()];
    let mut last = Instant::now();
    for round in 0..rounds {
        if last.elapsed() > Duration::from_secs(1) {
            eprint!("\r{round} of {rounds} rounds ");
            between();
            last = Instant::now();
        }
        for (case, times) in cases.iter_mut().zip(&mut all) {
            let requests = case.requests(BATCH);
            let start = Instant::now();
            measured(&mut case.router, requests);
            times.push(start.elapsed().as_secs_f64() * 1e9 / BATCH as f64);
        }
    }
    eprint!("\r                           \r");
    let middle = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    all.into_iter().map(middle).collect()
}

/// The middle time of something that is done alone, in nanoseconds.
pub(crate) fn alone(rounds: usize, mut what: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            (0..50).for_each(|_| what());
            start.elapsed().as_secs_f64() * 1e9 / 50.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Runs this program again under callgrind for one case.
fn instructions(name: &str) -> Option<f64> {
    let program = env::current_exe().ok()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*measured*"])
        .arg(program)
        .args(["--count-instructions", name])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let total = text.lines().find_map(|line| line.split_once("Collected : "))?.1;
    Some(total.trim().parse::<f64>().ok()? / BATCH as f64)
}

fn count_instructions(cases: &mut [Case], name: &str) {
    let case = cases.iter_mut().find(|case| case.name == name).expect("a case of that name");
    // Warm, but not counted: the collector looks at `measured` alone.
    for _ in 0..20 {
        case.check();
    }
    let requests = case.requests(BATCH);
    measured(&mut case.router, requests);
}
