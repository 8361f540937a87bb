//! What the layer costs a request: bare axum, axum's own price for any layer, ours, and what people use
//! instead. `cargo bench --features full` prints time and instructions, and (`allocations`) allocations; with
//! `-- --test` each case runs once.
//!
//! Times are the middle of many rounds, in which the cases take turns so that a busy machine hits all alike.
//! Instructions are counted by callgrind in a second run of this program, where `valgrind` is installed. The
//! signature is timed alone as well, because no check of a new token can save it.

#![allow(clippy::expect_used, reason = "a bench that can't be set up may panic")]

use std::{
    env,
    process::Command,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto::aws_lc::DEFAULT_PROVIDER};
use tokio::runtime::Builder;

mod support;
use support::{BATCH, Case, cases, measured};

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    // The background reads the change feed once a second; it needs a moment of its own in between.
    let breathe = || std::thread::sleep(Duration::from_millis(30));
    if run(cases::all(&runtime), 300, breathe) {
        println!("an RS256 signature checked alone: {:.0} ns", alone(200, signature_alone()));
    }
}

/// Measures all cases and prints them side by side; says whether it did. `between` lets background work go
/// on. With `--test` each case runs once.
fn run(mut cases: Vec<Case>, rounds: usize, between: impl Fn()) -> bool {
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
fn alone(rounds: usize, mut what: impl FnMut()) -> f64 {
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

/// Checks a token's signature and nothing else: what no check of a new token can save.
fn signature_alone() -> impl FnMut() {
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let parts = DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key;
    let (n, e) = parts(pair.public_key().as_ref()).expect("its numbers");
    let message = vec![b'x'; 700];
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &message, &mut signature).expect("a signature");
    let (key, signature) = (DecodingKey::from_rsa_raw_components(&n, &e), URL_SAFE_NO_PAD.encode(signature));
    move || {
        let good = jsonwebtoken::crypto::verify(&signature, &message, &key, Algorithm::RS256);
        assert!(good.expect("it can be checked"));
    }
}
