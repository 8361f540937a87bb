//! How often a request allocates, counted: a program of its own, because counting costs instructions.

#![allow(clippy::expect_used, reason = "a bench that can't be set up may panic")]

use tokio::runtime::Builder;

mod support;
use support::{BATCH, Case, cases};

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let mut cases = cases::all(&runtime);
    cases.iter_mut().for_each(Case::check);
    let counts: Vec<f64> = cases.iter_mut().map(count).collect();
    println!("{:<38} {:>8} {:>8}  against", "allocations of one request", "", "+");
    for (case, count) in cases.iter().zip(&counts) {
        let base = cases.iter().zip(&counts).find(|(other, _)| other.name == case.base);
        let (_, base) = base.expect("a base of that name");
        println!("{:<38} {:>8.1} {:>8.1}  {}", case.name, count, count - base, case.base);
    }
}

fn count(case: &mut Case) -> f64 {
    let requests = case.requests(BATCH);
    let counted = allocation_counter::measure(|| case.measured(requests));
    counted.count_total as f64 / BATCH as f64
}
