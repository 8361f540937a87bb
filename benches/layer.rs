//! What the layer costs a request: bare axum, axum's own price for any layer, ours, and what people use
//! instead. `cargo bench --features full` prints time, instructions and (`allocations`) allocations; with
//! `-- --test` each case runs once.
//!
//! The signature is timed alone as well, because no check of a new token can save it.

use std::time::Duration;

use tokio::runtime::Builder;

mod support;
use support::{alone, cases, peers, run};

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    // The background reads the change feed once a second; it needs a moment of its own in between.
    let breathe = || std::thread::sleep(Duration::from_millis(30));
    if run(cases::all(&runtime), 300, breathe) {
        println!("an RS256 signature checked alone: {:.0} ns", alone(200, peers::signature_alone()));
    }
}
