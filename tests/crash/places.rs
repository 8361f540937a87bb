//! The places themselves: their names, and that they are where only tests find them.

use std::{collections::BTreeSet, fs, path::Path};

/// `spec/security.md` 18, but for what the crate doesn't do yet, and two that its rows name beside it.
const NAMES: [&str; 26] = [
    "session.create.before_commit",
    "session.create.after_commit",
    "refresh.after_lock",
    "refresh.reuse_detected",
    "refresh.before_commit",
    "refresh.after_commit_before_response",
    "elevate.before_commit",
    "elevate.after_commit_before_response",
    "revoke.before_commit",
    "revoke_all.after_epoch",
    "otp.create.before_commit",
    "otp.create.after_commit",
    "otp.reserve.after_commit",
    "otp.match.before_consume",
    "otp.consume.before_mark",
    "otp.consume.before_commit",
    "factor.add.before_commit",
    "factor.remove.before_commit",
    "policy.eval.start",
    "policy.eval.end",
    "claim.fetch",
    "link.before_commit",
    "outbox.claimed",
    "outbox.sent_before_ack",
    "sign.start",
    "keys.reload",
];
const OF_THE_STORE: [&str; 2] = ["store.acquire", "store.commit.sent"];
/// Row S04.
const OF_CHANCE: [&str; 1] = ["rng.constant"];

fn named(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            named(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for call in text.split("failpoint!(").skip(1) {
                let name = call.trim_start_matches("blocking ").trim_start().strip_prefix('"');
                found.extend(name.and_then(|name| name.split('"').next()).map(str::to_owned));
            }
        }
    }
}

#[test]
fn sec_z03_the_places_have_the_catalogues_names() {
    let mut found = BTreeSet::new();
    named(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let all = NAMES.iter().chain(&OF_THE_STORE).chain(&OF_CHANCE).map(|name| (*name).to_owned());
    assert_eq!(found, all.collect());
}

#[test]
fn sec_z03_an_optimised_build_with_the_hooks_is_refused() {
    // As a unit test, whose dependencies are built already, and without assertions as a release has none.
    let cargo = std::env::var("CARGO").expect("cargo runs the tests");
    let features = ["--offline", "--lib", "--profile", "test", "--features", "full,test-hooks"];
    let output = std::process::Command::new(cargo)
        .arg("rustc")
        .args(features)
        .args(["--", "-C", "debug-assertions=off", "--emit=metadata"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("`test-hooks` is for tests"), "{said}");
}
