//! Every store against the suite, and the suite against stores that are known to be wrong.
#![allow(
    unreachable_pub,
    clippy::assertions_on_result_states,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that fails may panic, and its modules are one binary"
)]

use std::{collections::BTreeSet, sync::Arc};

use tokio::runtime::Builder;
#[cfg(feature = "sqlite")]
use tower_mfa::store::Store;
use tower_mfa::store::{AnyStore, MemoryStore, conformance};

use self::{
    custom_store::FileStore,
    faulty::{FAULTS, Fault, Faulty, Rows},
};

#[allow(dead_code)]
#[path = "../examples/custom_store.rs"]
mod custom_store;
#[path = "stores/faulty.rs"]
mod faulty;
#[cfg(feature = "sqlite")]
#[path = "stores/sqlite.rs"]
mod sqlite;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_store_keeps_the_contract() {
    conformance::all(async || MemoryStore::new()).await;
    let shared = MemoryStore::new();
    conformance::all(async || shared.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_erased_store_keeps_the_contract() {
    let store = AnyStore::new(MemoryStore::new());
    conformance::all(async || store.clone()).await;
    assert_eq!(format!("{store:?}"), "MemoryStore { .. }");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_example_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    conformance::all(async || FileStore::open(&path).unwrap()).await;
    conformance::applied_is_durable(async || FileStore::open(&path).unwrap()).await;
    // A line that a crash cut short is as if it had never been.
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&whole[..], b"[[\"a\",[\""].concat()).unwrap();
    drop(FileStore::open(&path).unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), whole);
}

/// One thread will do: the faulty stores yield where races are wanted.
#[test]
fn sec_d21_each_fault_is_found_by_its_check() {
    for (fault, checks) in FAULTS {
        for name in *checks {
            assert_eq!(rejection(Fault::Nothing, name), None, "{name} refuses a store without a fault");
            let Some(message) = rejection(*fault, name) else { panic!("{name} doesn't find {fault:?}") };
            let line = line(name);
            assert!(message.contains(line), "{name} finds {fault:?}, but doesn't say {line:?}: {message}");
        }
    }
}

#[test]
fn sec_d21_each_check_has_a_fault_to_find() {
    let tested: BTreeSet<_> = FAULTS.iter().flat_map(|(_, checks)| checks.iter().copied()).collect();
    let mut all: BTreeSet<_> = conformance::checks::<Faulty>().iter().map(|check| check.name).collect();
    all.insert("applied_is_durable");
    assert_eq!(tested, all);
}

/// The line of the contract that a check is about, as its messages begin.
fn line(name: &str) -> &'static str {
    let checks = conformance::checks::<Faulty>();
    match checks.iter().find(|check| check.name == name).map(|check| check.line) {
        // The sweeps' checks are of line 5, but a scan that ignores its limit is of line 3.
        Some(line) => line.split_once(',').map_or(line, |(number, _)| number),
        None => "contract 7",
    }
}

/// What a check says against a store with this fault, if anything.
fn rejection(fault: Fault, name: &str) -> Option<String> {
    // Where nothing but a time limit helps, time is made to pass.
    let paused = name == "crossing_batches_do_not_deadlock";
    let runtime = Builder::new_current_thread().enable_all().start_paused(paused).build().unwrap();
    let name = name.to_owned();
    let task = runtime.spawn(async move {
        if name == "applied_is_durable" {
            let disk = Rows::default();
            return conformance::applied_is_durable(async || Faulty::on(fault, Arc::clone(&disk))).await;
        }
        let checks = conformance::checks::<Faulty>();
        let check = checks.iter().find(|check| check.name == name).expect("a check of this name");
        check.run(Arc::new(Faulty::new(fault))).await;
    });
    let panic = runtime.block_on(task).err()?.into_panic();
    Some(match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => (*panic.downcast::<&str>().expect("a message")).to_owned(),
    })
}

/// Runs the whole suite, naming each check, on one store.
#[cfg(feature = "sqlite")]
async fn suite<S: Store>(store: S) {
    let store = Arc::new(store);
    for check in conformance::checks() {
        println!("{check:?}");
        check.run(Arc::clone(&store)).await;
    }
}
