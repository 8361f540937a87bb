//! What the layer costs a request: bare axum, axum's own price for any layer, ours, and what people use
//! instead. `cargo bench --features full` prints time and instructions, and (`allocations`) allocations; with
//! `-- --test` each case runs once.
//!
//! The cases take turns in many rounds, so that a busy machine hits all alike. A case's time is what one round in
//! ten stays below: whatever else the machine does only ever adds to it.
//! Instructions are counted by callgrind in a second run of this program, where `valgrind` is installed.
//! Where a signature must be checked, the base is bare axum with such a check before it, of a text exactly as long
//! as what the token's signature covers (the token of `jsonwebtoken by hand` is shorter). A second table sets two bases
//! side by side: jsonwebtoken's verifier as an app calls it, and a prepared key, which no check of a new token can
//! save. Both read the signature's text and nothing else of a token.

#![allow(clippy::expect_used, reason = "a bench that can't be set up may panic")]

use std::{
    env,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Builder;

mod support;
use support::{
    BATCH, Case,
    cases::{self, LIBRARY, PREPARED},
};

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let mut cases = cases::all(&runtime);
    let arguments: Vec<String> = env::args().collect();
    if let [_, flag, name, ..] = arguments.as_slice()
        && flag == "--count-instructions"
    {
        count_instructions(&mut cases, name);
        return;
    }
    breathe();
    cases.iter_mut().for_each(Case::check);
    if arguments.iter().any(|argument| argument == "--test") {
        println!("{} cases answered as they should", cases.len());
        return;
    }
    let times = times(&mut cases);
    let instructions: Vec<f64> =
        cases.iter().map(|case| instructions(case.name).unwrap_or(f64::NAN)).collect();
    println!(
        "{:<38} {:>8} {:>8} {:>8} {:>8} {:>8}  against",
        "one request", "ns", "ratio", "+ns", "instr.", "+instr."
    );
    let find = |name: &str| cases.iter().position(|case| case.name == name).expect("a case of that name");
    for (at, case) in cases.iter().enumerate() {
        let base = find(case.base);
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
    println!(
        "\n{:<38} {:>8} {:>8} {:>8} {:>8}",
        "over jsonwebtoken's | a prepared key", "+ns", "+instr.", "+ns", "+instr."
    );
    for (at, case) in cases.iter().enumerate().filter(|(_, case)| case.base == PREPARED) {
        print!("{:<38}", case.name);
        for base in [LIBRARY, PREPARED].map(find) {
            print!(" {:>8.0} {:>8.0}", times[at] - times[base], instructions[at] - instructions[base]);
        }
        println!();
    }
}

const ROUNDS: usize = 300;

/// The background reads the change feed once a second; it needs a moment of its own in between.
fn breathe() {
    thread::sleep(Duration::from_millis(30));
}

fn times(cases: &mut [Case]) -> Vec<f64> {
    let mut all = vec![Vec::with_capacity(ROUNDS); cases.len()];
    let mut last = Instant::now();
    for round in 0..ROUNDS {
        if last.elapsed() > Duration::from_secs(1) {
            eprint!("\r{round} of {ROUNDS} rounds ");
            breathe();
            last = Instant::now();
        }
        for (case, times) in cases.iter_mut().zip(&mut all) {
            let requests = case.requests(BATCH);
            let start = Instant::now();
            case.measured(requests);
            times.push(start.elapsed().as_secs_f64() * 1e9 / BATCH as f64);
        }
    }
    eprint!("\r                           \r");
    let undisturbed = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 10]
    };
    all.into_iter().map(undisturbed).collect()
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
    case.measured(requests);
}
