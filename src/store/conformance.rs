//! The suite any store runs: at least one check for each line of the [contract](super#the-contract).
//!
//! A check is a plain `async fn` over a store; it panics with the line that was broken. Run them all, or
//! one by one from [`checks`], which tells their names:
//!
//! ```
//! use std::sync::Arc;
//! use tower_mfa::store::{MemoryStore, conformance};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let store = Arc::new(MemoryStore::new());                    // yours
//! for check in conformance::checks() {
//!     println!("{} ({})", check.name, check.line);
//!     check.run(Arc::clone(&store)).await;
//! }
//! # }
//! ```
//!
//! A store that outlives its process runs [`applied_is_durable`] too. Use a multi-threaded runtime, so
//! that races are races. Checks write under keys of their own, so a store may be used again and may hold
//! other records; but the checks of `sweep` sweep everything that expired before 1970-01-01T00:17Z, and
//! no other run may sweep beside them.
//!
//! This module is exempt from semantic versioning: a new check may find an old fault.

// Its way to fail is to panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc
)]

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{sync::Barrier, task::JoinSet, time};

use super::{Batch, Commit, Key, Op, Record, Row, Scan, Store, StoreErrorKind, Version};
use crate::base::time::{Timestamp, embedded};

/// One check of the suite.
#[non_exhaustive]
pub struct Check<S> {
    /// The function's name.
    pub name: &'static str,
    /// The line of the contract it is about.
    pub line: &'static str,
    run: fn(Arc<S>) -> Running,
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<S> Check<S> {
    /// Runs the check.
    ///
    /// # Panics
    /// If the store breaks the contract, fails, or takes longer than two minutes.
    pub async fn run(&self, store: Arc<S>) {
        if time::timeout(Duration::from_secs(120), (self.run)(store)).await.is_err() {
            panic!("{}: {} took longer than two minutes", self.line, self.name);
        }
    }
}

impl<S> fmt::Debug for Check<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("name", &self.name).field("line", &self.line).finish_non_exhaustive()
    }
}

/// Runs every check, each on a store that `make` gives: a new one, or another handle of the same.
///
/// # Panics
/// At the first check that fails.
pub async fn all<S: Store, F, Fut>(make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = S>,
{
    for check in checks() {
        check.run(Arc::new(make().await)).await;
    }
}

/// Every check, in an order in which the first failure tells most.
pub fn checks<S: Store>() -> Vec<Check<S>> {
    macro_rules! list {
        ($($line:ident: $($name:ident)+;)+) => {
            vec![$($(Check { name: stringify!($name), line: $line, run: |store| Box::pin($name(store)) }),+),+]
        };
    }
    list! {
        FAITHFUL: round_trip bodies_come_back_equal expiry_and_version_come_back large_body long_key;
        ATOMIC: insert_needs_absence replace_and_delete_need_the_version upsert_and_remove_need_nothing
            check_guards all_or_nothing a_batch_sent_twice_applies_once deleted_and_made_again_is_another;
        ORDER: keys_compare_as_bytes scan_pages prefixes_do_not_bleed;
        PURE: nothing_is_invented sweep_takes_only_the_expired sweep_takes_at_most_a_thousand;
        CLOCK: the_clock_moves;
        VISIBLE: a_read_after_a_commit_sees_it a_get_is_one_snapshot;
        ATOMIC: one_winner_in_a_race no_update_is_lost check_holds_against_a_concurrent_write
            crossing_batches_do_not_deadlock;
        WHOLE: a_dropped_commit_is_whole_or_nothing;
    }
}

/// Insert, read, replace, delete; answers in the order of the keys asked for.
pub async fn round_trip<S: Store>(store: Arc<S>) {
    let place = Place::new("round_trip");
    let (key, other, row) = (place.key("a"), place.key("b"), row(json!({"n": 1})));
    assert_eq!(rows(&*store, &[]).await, [], "{FAITHFUL}: no keys, no rows");
    assert_eq!(rows(&*store, slice::from_ref(&key)).await, [None], "{FAITHFUL}: a record nobody wrote");
    applied(&*store, [(key.clone(), Op::Insert(row.clone()))], FAITHFUL).await;
    let asked = [key.clone(), other.clone(), key.clone()];
    let answer = [Some(row.clone()), None, Some(row.clone())];
    assert_eq!(rows(&*store, &asked).await, answer, "{FAITHFUL}: one answer for each key, in their order");
    let new = self::row(json!({"n": 2}));
    applied(&*store, [(key.clone(), Op::Replace(row.version, new.clone()))], FAITHFUL).await;
    assert_eq!(
        rows(&*store, slice::from_ref(&key)).await,
        [Some(new.clone())],
        "{FAITHFUL}: after a replacement"
    );
    let listed = scan(&*store, place.all()).await;
    let wanted = [Record { key: key.clone(), row: new.clone() }];
    assert_eq!(listed, wanted, "{FAITHFUL}: a scan gives what a get gives");
    applied(&*store, [(key.clone(), Op::Delete(new.version))], FAITHFUL).await;
    assert_eq!(rows(&*store, &[key]).await, [None], "{FAITHFUL}: after a deletion");
    assert_eq!(scan(&*store, place.all()).await, [], "{FAITHFUL}: a deleted record isn't listed");
    assert_eq!(commit(&*store, []).await, Commit::Applied, "{ATOMIC}: nothing to do is done");
}

/// JSON values of every kind survive.
pub async fn bodies_come_back_equal<S: Store>(store: Arc<S>) {
    let place = Place::new("bodies_come_back_equal");
    let mut bodies = vec![
        json!(null),
        json!(true),
        json!(false),
        json!([]),
        json!({}),
        json!(""),
        json!("null"),
        json!(0),
        json!(-1),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(9_007_199_254_740_993_i64),
        json!(0.1),
        json!(-1.5e-7),
        json!(0.300_000_000_000_000_04),
        json!(1.797_693_134_862_315_7e308),
        json!(5e-324),
        json!("  spaces  "),
        json!("line\r\nline\ttab\u{1}\u{1f}\u{7f}"),
        json!("\"quoted\" 'twice' \\ / $1 %s {}"),
        json!("Straße İı Ǆ ﬃ e\u{301} \u{202e}\u{2028}\u{feff}\u{fffd}\u{ffff}"),
        json!("👩‍👩‍👧‍👦 \u{10ffff}"),
        json!({"": 1, "a.b": 2, "$set": 3, "A": 4, "a": 5, "ä": 6, "__proto__": 7, "'": [null, {"x": [[]]}]}),
        json!("{\"not\": \"parsed\"}"),
        json!([1, "1", 1.5, null, true, [], {}]),
    ];
    let exact = |text: &Value| text.as_f64().is_some_and(|float| float.fract() != 0.0);
    let drawn = std::iter::repeat_with(|| {
        let bits = bits();
        #[expect(clippy::cast_precision_loss)]
        let unit = (bits >> 11) as f64 / (1_u64 << 53) as f64;
        json!(unit * 10_f64.powi(i32::try_from(bits % 30).unwrap() - 20))
    });
    bodies.extend(drawn.filter(exact).take(200));
    let bodies: Vec<_> =
        bodies.into_iter().enumerate().map(|(at, body)| (place.numbered(at), row(body))).collect();
    applied(&*store, bodies.iter().map(|(key, row)| (key.clone(), Op::Insert(row.clone()))), FAITHFUL).await;
    let keys: Vec<_> = bodies.iter().map(|(key, _)| key.clone()).collect();
    for ((_, wanted), found) in bodies.iter().zip(rows(&*store, &keys).await) {
        assert_eq!(found.as_ref(), Some(wanted), "{FAITHFUL}: equal as a JSON value");
    }
    for ((_, wanted), found) in bodies.iter().zip(scan(&*store, place.all()).await) {
        assert_eq!(&found.row, wanted, "{FAITHFUL}: equal as a JSON value, from a scan");
    }
}

/// Times are times of any sign and size, and an expired record is still a record.
pub async fn expiry_and_version_come_back<S: Store>(store: Arc<S>) {
    let place = Place::new("expiry_and_version_come_back");
    let times = [None, Some(i64::MIN), Some(-1), Some(0), Some(1), Some(4_102_444_800_123), Some(i64::MAX)];
    for (at, millis) in times.into_iter().enumerate() {
        let (key, expires_at) = (place.numbered(at), millis.map(Timestamp::from_millis));
        let row = Row { expires_at, ..row(json!(at)) };
        applied(&*store, [(key.clone(), Op::Insert(row.clone()))], FAITHFUL).await;
        assert_eq!(
            rows(&*store, slice::from_ref(&key)).await,
            [Some(row.clone())],
            "{FAITHFUL}: expiry {millis:?}"
        );
        let listed = scan(&*store, place.all()).await;
        let last = Record { key: key.clone(), row: row.clone() };
        assert_eq!(listed.last(), Some(&last), "{FAITHFUL}: expiry {millis:?}, from a scan");
        // Back to no expiry, and on to another: nothing of the earlier state stays.
        let never = self::row(json!(null));
        applied(&*store, [(key.clone(), Op::Replace(row.version, never.clone()))], FAITHFUL).await;
        assert_eq!(
            rows(&*store, slice::from_ref(&key)).await,
            [Some(never)],
            "{FAITHFUL}: no expiry after {millis:?}"
        );
        applied(&*store, [(key.clone(), Op::Upsert(row.clone()))], FAITHFUL).await;
        assert_eq!(rows(&*store, &[key]).await, [Some(row)], "{FAITHFUL}: expiry {millis:?}, written over");
    }
}

/// 64 KiB of text.
pub async fn large_body<S: Store>(store: Arc<S>) {
    let place = Place::new("large_body");
    let text: String = "äß€😀\"\\\n ".chars().cycle().take(24_000).collect();
    let row = row(json!({ "text": text, "ascii": "x".repeat(64 * 1024) }));
    applied(&*store, [(place.key("a"), Op::Insert(row.clone()))], FAITHFUL).await;
    let found = rows(&*store, &[place.key("a")]).await;
    assert!(found == [Some(row)], "{FAITHFUL}: a large body comes back equal");
}

/// Keys of a thousand bytes that differ in the last.
pub async fn long_key<S: Store>(store: Arc<S>) {
    let place = Place::new("long_key");
    let long = |end: &str| place.key(&format!("{}{end}", "k".repeat(1024 - place.root().as_str().len() - 2)));
    let (a, b, c) = (long("a"), long("b"), long("c"));
    assert_eq!(a.as_str().len(), 1024);
    let (one, two) = (row(json!(1)), row(json!(2)));
    applied(&*store, [(a.clone(), Op::Insert(one.clone())), (b.clone(), Op::Insert(two.clone()))], FAITHFUL)
        .await;
    let found = rows(&*store, &[a, b, c]).await;
    assert_eq!(found, [Some(one), Some(two), None], "{FAITHFUL}: long keys are told apart");
}

/// A record that is there can't be inserted.
pub async fn insert_needs_absence<S: Store>(store: Arc<S>) {
    let key = Place::new("insert_needs_absence").key("a");
    let (first, second) = (row(json!(1)), row(json!(2)));
    applied(&*store, [(key.clone(), Op::Insert(first.clone()))], ATOMIC).await;
    conflicts(&*store, [(key.clone(), Op::Insert(second))], &key, "an insert over a record").await;
    conflicts(&*store, [(key.clone(), Op::Insert(first.clone()))], &key, "the same insert again").await;
    assert_eq!(rows(&*store, &[key]).await, [Some(first)], "{ATOMIC}: a refused insert changes nothing");
}

/// A record can only be replaced or deleted at its version.
pub async fn replace_and_delete_need_the_version<S: Store>(store: Arc<S>) {
    let key = Place::new("replace_and_delete_need_the_version").key("a");
    let (first, second, wrong) = (row(json!(1)), row(json!(2)), version());
    let replace = |version| Op::Replace(version, second.clone());
    conflicts(&*store, [(key.clone(), replace(wrong))], &key, "a replacement of nothing").await;
    conflicts(&*store, [(key.clone(), Op::Delete(wrong))], &key, "a deletion of nothing").await;
    assert_eq!(
        rows(&*store, slice::from_ref(&key)).await,
        [None],
        "{ATOMIC}: nothing was replaced by nothing"
    );
    applied(&*store, [(key.clone(), Op::Insert(first.clone()))], ATOMIC).await;
    conflicts(&*store, [(key.clone(), replace(wrong))], &key, "a replacement at another version").await;
    conflicts(&*store, [(key.clone(), Op::Delete(wrong))], &key, "a deletion at another version").await;
    assert_eq!(
        rows(&*store, slice::from_ref(&key)).await,
        [Some(first.clone())],
        "{ATOMIC}: refused, unchanged"
    );
    applied(&*store, [(key.clone(), replace(first.version))], ATOMIC).await;
    conflicts(&*store, [(key.clone(), replace(first.version))], &key, "a replacement at a past version")
        .await;
    conflicts(&*store, [(key.clone(), Op::Delete(first.version))], &key, "a deletion at a past version")
        .await;
    applied(&*store, [(key.clone(), Op::Delete(second.version))], ATOMIC).await;
}

/// These two have no condition.
pub async fn upsert_and_remove_need_nothing<S: Store>(store: Arc<S>) {
    let key = Place::new("upsert_and_remove_need_nothing").key("a");
    let (first, second) = (row(json!(1)), row(json!(2)));
    applied(&*store, [(key.clone(), Op::Remove)], ATOMIC).await;
    applied(&*store, [(key.clone(), Op::Upsert(first.clone()))], ATOMIC).await;
    assert_eq!(
        rows(&*store, slice::from_ref(&key)).await,
        [Some(first)],
        "{ATOMIC}: an upsert where nothing was"
    );
    applied(&*store, [(key.clone(), Op::Upsert(second.clone()))], ATOMIC).await;
    assert_eq!(
        rows(&*store, slice::from_ref(&key)).await,
        [Some(second)],
        "{ATOMIC}: an upsert over a record"
    );
    applied(&*store, [(key.clone(), Op::Remove)], ATOMIC).await;
    assert_eq!(rows(&*store, &[key]).await, [None], "{ATOMIC}: removed");
}

/// A check lets a batch through only if the record is there at the version; it changes nothing itself.
pub async fn check_guards<S: Store>(store: Arc<S>) {
    let place = Place::new("check_guards");
    // The guard before and after what it guards, in key order.
    for (at, (guard, guarded)) in [("a", "b"), ("b", "a")].into_iter().enumerate() {
        let place = Place { root: place.numbered(at).as_str().split('/').map(str::to_owned).collect() };
        let (guard, guarded, wrong) = (place.key(guard), place.key(guarded), version());
        let (held, written) = (row(json!("held")), row(json!("written")));
        let batch =
            |version| [(guard.clone(), Op::Check(version)), (guarded.clone(), Op::Upsert(written.clone()))];
        conflicts(&*store, batch(wrong), &guard, "a check of a record that isn't there").await;
        let asked = [guard.clone(), guarded.clone()];
        assert_eq!(rows(&*store, &asked).await, [None, None], "{ATOMIC}: a failed check stops the batch");
        applied(&*store, [(guard.clone(), Op::Insert(held.clone()))], ATOMIC).await;
        conflicts(&*store, batch(wrong), &guard, "a check of another version").await;
        assert_eq!(
            rows(&*store, &asked).await,
            [Some(held.clone()), None],
            "{ATOMIC}: a failed check stops the batch"
        );
        applied(&*store, batch(held.version), ATOMIC).await;
        let after = [Some(held.clone()), Some(written.clone())];
        assert_eq!(rows(&*store, &asked).await, after, "{ATOMIC}: a check that holds lets the batch through");
        applied(&*store, [(guard.clone(), Op::Check(held.version))], ATOMIC).await;
    }
}

/// One condition that fails, wherever it stands, and nothing of the batch is there.
pub async fn all_or_nothing<S: Store>(store: Arc<S>) {
    let place = Place::new("all_or_nothing");
    let keys: Vec<Key> = (0..6).map(|at| place.numbered(at)).collect();
    let before: Vec<Row> = (0..6).map(|at| row(json!(at))).collect();
    // 0 to 3 are there, 4 and 5 aren't.
    applied(&*store, (0..4).map(|at| (keys[at].clone(), Op::Insert(before[at].clone()))), ATOMIC).await;
    let state = rows(&*store, &keys).await;
    let good = || {
        [
            Op::Replace(before[0].version, row(json!("r"))),
            Op::Delete(before[1].version),
            Op::Upsert(row(json!("u"))),
            Op::Remove,
            Op::Insert(row(json!("i"))),
            Op::Upsert(row(json!("n"))),
        ]
    };
    let bad = |at: usize| -> Vec<Op> {
        let there = [
            Op::Insert(row(json!("x"))),
            Op::Replace(version(), row(json!("x"))),
            Op::Delete(version()),
            Op::Check(version()),
        ];
        let absent = [Op::Replace(version(), row(json!("x"))), Op::Delete(version()), Op::Check(version())];
        if at < 4 { there.to_vec() } else { absent.to_vec() }
    };
    for at in 0..6 {
        for wrong in bad(at) {
            let what = format!("one wrong operation at place {at}: {wrong:?}");
            let mut ops = good();
            ops[at] = wrong;
            conflicts(&*store, keys.iter().cloned().zip(ops), &keys[at], &what).await;
            assert_eq!(rows(&*store, &keys).await, state, "{ATOMIC}: nothing of the batch stays: {what}");
        }
    }
    // Of several that fail, any may be named; and still nothing is there.
    let mut ops = good();
    (ops[1], ops[4]) = (Op::Check(version()), Op::Check(version()));
    match commit(&*store, keys.iter().cloned().zip(ops)).await {
        Commit::Conflict(key) => {
            assert!([&keys[1], &keys[4]].contains(&&key), "{ATOMIC}: {key:?} was as it should")
        }
        Commit::Applied => panic!("{ATOMIC}: two wrong operations were applied"),
    }
    assert_eq!(rows(&*store, &keys).await, state, "{ATOMIC}: nothing of the batch stays");
    applied(&*store, keys.iter().cloned().zip(good()), ATOMIC).await;
    let bodies: Vec<_> = rows(&*store, &keys).await.into_iter().map(|row| row.map(|row| row.body)).collect();
    let wanted = [Some(json!("r")), None, Some(json!("u")), None, Some(json!("i")), Some(json!("n"))];
    assert_eq!(bodies, wanted, "{ATOMIC}: all of the batch is there");
}

/// A batch with a receipt may be sent again after a lost answer.
pub async fn a_batch_sent_twice_applies_once<S: Store>(store: Arc<S>) {
    let place = Place::new("a_batch_sent_twice_applies_once");
    let (receipt, counter) = (place.key("receipt"), place.key("counter"));
    let batch =
        [(receipt.clone(), Op::Insert(row(json!("done")))), (counter.clone(), Op::Upsert(row(json!(1))))];
    applied(&*store, batch.clone(), ATOMIC).await;
    let moved = row(json!(2));
    applied(&*store, [(counter.clone(), Op::Upsert(moved.clone()))], ATOMIC).await;
    conflicts(&*store, batch, &receipt, "a batch that was applied before").await;
    assert_eq!(rows(&*store, &[counter]).await, [Some(moved)], "{ATOMIC}: sent twice, applied once");
}

/// The version of a record that is gone opens nothing, even if another took its place.
pub async fn deleted_and_made_again_is_another<S: Store>(store: Arc<S>) {
    let key = Place::new("deleted_and_made_again_is_another").key("a");
    let (old, new) = (row(json!("same")), row(json!("same")));
    applied(&*store, [(key.clone(), Op::Insert(old.clone()))], ATOMIC).await;
    applied(&*store, [(key.clone(), Op::Delete(old.version))], ATOMIC).await;
    applied(&*store, [(key.clone(), Op::Insert(new.clone()))], ATOMIC).await;
    for op in [Op::Replace(old.version, row(json!("x"))), Op::Delete(old.version), Op::Check(old.version)] {
        conflicts(&*store, [(key.clone(), op)], &key, "the version of a deleted record").await;
    }
    assert_eq!(rows(&*store, &[key]).await, [Some(new)], "{ATOMIC}: versions don't repeat after a deletion");
}

/// No collation but the bytes'.
pub async fn keys_compare_as_bytes<S: Store>(store: Arc<S>) {
    let place = Place::new("keys_compare_as_bytes");
    let segments = [
        "a", "A", "b", "B", "Z", "z", "aa", "Aa", "aA", "a-b", "a_b", "a.b", "a~b", "ab", "a b", "a+b",
        "a:b", "a@b", "0", "9", "10", "-", "_", ".", "~", "@", "+", ":", "%", "ä", "ae", "ß", "ss", "é", "I",
        "ı", "\u{1}",
    ];
    let mut keys: Vec<Key> = segments.iter().map(|segment| place.key(segment)).collect();
    keys.push(place.under(&["a", "b"]));
    keys.push(place.under(&["a", "b", "c"]));
    applied(&*store, keys.iter().map(|key| (key.clone(), Op::Insert(row(json!(key.as_str()))))), ORDER).await;
    keys.sort_by(|a, b| a.as_str().as_bytes().cmp(b.as_str().as_bytes()));
    assert_eq!(listed(&*store, place.all()).await, keys, "{ORDER}: in the order of the bytes");
    for after in &keys {
        let wanted: Vec<_> = keys.iter().filter(|key| *key > after).cloned().collect();
        assert_eq!(
            listed(&*store, place.all().after(after.clone())).await,
            wanted,
            "{ORDER}: greater than {after:?}"
        );
    }
}

/// Pages join without a gap or a repeat.
pub async fn scan_pages<S: Store>(store: Arc<S>) {
    let place = Place::new("scan_pages");
    let keys: Vec<Key> = (0..25).map(|at| place.numbered(at * 2)).collect();
    applied(&*store, keys.iter().map(|key| (key.clone(), Op::Insert(row(json!(1))))), ORDER).await;
    for limit in [1, 7, 10, 24, 25, 26, usize::MAX] {
        let (mut found, mut scan) = (Vec::new(), place.all().limit(limit));
        loop {
            let page = listed(&*store, scan.clone()).await;
            assert!(page.len() <= limit, "{ORDER}: at most {limit}, not {}", page.len());
            let Some(last) = page.last().cloned() else { break };
            found.extend(page);
            assert!(found.len() <= keys.len(), "{ORDER}: pages of {limit} repeat");
            scan = scan.after(last);
        }
        assert_eq!(found, keys, "{ORDER}: pages of {limit} hold everything once, in order");
    }
    assert_eq!(listed(&*store, place.all().limit(0)).await, [], "{ORDER}: none of none");
    // After a key that isn't there, before all, behind all.
    let after = |key: Key| listed(&*store, place.all().after(key));
    assert_eq!(after(place.numbered(7)).await, keys[4..], "{ORDER}: after a key that isn't there");
    assert_eq!(after(Key::new(["+"])).await, keys, "{ORDER}: after a key before the prefix");
    assert_eq!(after(place.root()).await, keys, "{ORDER}: after the prefix itself");
    assert_eq!(after(Key::new(["~"])).await, [], "{ORDER}: after a key behind the prefix");
}

/// A prefix is whole segments, and no character of it is a wildcard.
pub async fn prefixes_do_not_bleed<S: Store>(store: Arc<S>) {
    let place = Place::new("prefixes_do_not_bleed");
    let inside = [["a_b", "1"], ["a_b", "~"], ["a_b", "\u{1}"], ["a_b", "a_b"]];
    let outside: [&[&str]; 11] = [
        &["a_b"],
        &["a_bc", "1"],
        &["axb", "1"],
        &["A_b", "1"],
        &["A_B", "1"],
        &["a_", "1"],
        &["a_b0", "1"],
        &["a_b.", "1"],
        &["a_b "],
        &["a", "a_b", "1"],
        &["a%", "1"],
    ];
    let mut wanted: Vec<Key> = inside.iter().map(|path| place.under(path)).collect();
    let all = wanted.iter().cloned().chain(outside.iter().map(|path| place.under(path)));
    applied(&*store, all.map(|key| (key, Op::Insert(row(json!(1))))), ORDER).await;
    wanted.sort();
    assert_eq!(
        listed(&*store, Scan::under(place.key("a_b"))).await,
        wanted,
        "{ORDER}: strictly under the prefix"
    );
    let one = [place.under(&["a%", "1"])];
    assert_eq!(
        listed(&*store, Scan::under(place.key("a%"))).await,
        one,
        "{ORDER}: a prefix with a percent sign"
    );
}

/// What is there is what was written, and nothing else.
pub async fn nothing_is_invented<S: Store>(store: Arc<S>) {
    let place = Place::new("nothing_is_invented");
    let written: Vec<_> =
        (0..4).map(|at| Record { key: place.numbered(at), row: row(json!({"n": at})) }).collect();
    for Record { key, row } in &written {
        applied(&*store, [(key.clone(), Op::Upsert(row.clone()))], PURE).await;
    }
    // Batches that lose, checks and reads of what isn't there leave no trace.
    let absent = place.numbered(9);
    let lost = [(place.numbered(5), Op::Upsert(row(json!(5)))), (absent.clone(), Op::Check(version()))];
    conflicts(&*store, lost, &absent, "a check of a record that isn't there").await;
    applied(&*store, [(written[0].key.clone(), Op::Check(written[0].row.version))], PURE).await;
    let _ = rows(&*store, &[absent]).await;
    assert_eq!(scan(&*store, place.all()).await, written, "{PURE}: exactly what was written");
}

/// Only what expires before the time, whatever the clock says.
pub async fn sweep_takes_only_the_expired<S: Store>(store: Arc<S>) {
    let place = Place::new("sweep_takes_only_the_expired");
    while sweep(&*store, SWEPT).await > 0 {}
    let times = [
        Some(SWEPT.as_millis() - 1),
        Some(-5),
        Some(0),
        Some(SWEPT.as_millis()),
        Some(SWEPT.as_millis() + 1),
        None,
    ];
    let records: Vec<_> = (0..)
        .zip(times)
        .map(|(at, millis)| {
            let expires_at = millis.map(Timestamp::from_millis);
            Record { key: place.numbered(at), row: Row { expires_at, ..row(json!(at)) } }
        })
        .collect();
    applied(&*store, records.iter().map(|r| (r.key.clone(), Op::Insert(r.row.clone()))), PURE).await;
    assert_eq!(scan(&*store, place.all()).await, records, "{PURE}: expired records are there until a sweep");
    let mut took = 0;
    loop {
        let count = sweep(&*store, SWEPT).await;
        took += count;
        if count == 0 {
            break;
        }
    }
    assert_eq!(
        scan(&*store, place.all()).await,
        records[3..],
        "{PURE}: a sweep takes what expires before the time, only"
    );
    assert_eq!(took, 3, "{PURE}: a sweep says how many it took");
}

/// A sweep is a small piece of work, and says how much it did.
pub async fn sweep_takes_at_most_a_thousand<S: Store>(store: Arc<S>) {
    let place = Place::new("sweep_takes_at_most_a_thousand");
    while sweep(&*store, SWEPT).await > 0 {}
    for part in 0..5 {
        let ops = (0..201).map(|at| {
            let row = Row { expires_at: Some(Timestamp::from_millis(at)), ..row(json!(null)) };
            (place.under(&[&part.to_string(), &at.to_string()]), Op::Insert(row))
        });
        applied(&*store, ops, PURE).await;
    }
    let mut left = listed(&*store, place.all().limit(2000)).await.len();
    assert_eq!(left, 1005, "{ORDER}: a scan's limit is the caller's");
    while left > 0 {
        let took = usize::try_from(sweep(&*store, SWEPT).await).unwrap();
        let now = listed(&*store, place.all().limit(2000)).await.len();
        assert!(took <= 1000, "{PURE}: at most 1000 a sweep, not {took}");
        assert!(took > 0, "{PURE}: a sweep left {left} expired records");
        assert_eq!(now, left - took, "{PURE}: a sweep says how many it took");
        left = now;
    }
}

/// The clock tells the time.
pub async fn the_clock_moves<S: Store>(store: Arc<S>) {
    let now = || async { store.now().await.unwrap_or_else(|error| panic!("{CLOCK}: {error:?}")) };
    let (first, here) = (now().await, embedded());
    let apart = first.since(here).max(here.since(first));
    assert!(apart < Duration::from_secs(300), "{CLOCK}: it is {apart:?} away from this machine's");
    for _ in 0..200 {
        if now().await > first {
            return;
        }
        time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{CLOCK}: it stands still");
}

/// Whoever asks after a commit was applied sees it.
pub async fn a_read_after_a_commit_sees_it<S: Store>(store: Arc<S>) {
    let place = Place::new("a_read_after_a_commit_sees_it");
    let key = place.key("a");
    for n in 0..60 {
        let row = row(json!(n));
        applied(&*store, [(key.clone(), Op::Upsert(row.clone()))], VISIBLE).await;
        let (store, key, all) = (Arc::clone(&store), key.clone(), place.all());
        let reader = async move {
            assert_eq!(rows(&*store, &[key]).await, [Some(row.clone())], "{VISIBLE}: a get after a commit");
            let listed = scan(&*store, all).await;
            assert!(listed.iter().any(|record| record.row == row), "{VISIBLE}: a scan after a commit");
        };
        join(reader).await;
    }
}

/// All rows of one get are of one moment.
pub async fn a_get_is_one_snapshot<S: Store>(store: Arc<S>) {
    let place = Place::new("a_get_is_one_snapshot");
    let keys: Vec<Key> = (0..8).map(|at| place.numbered(at)).collect();
    let all = |n: u32| keys.clone().into_iter().map(move |key| (key, Op::Upsert(row(json!(n)))));
    applied(&*store, all(0), VISIBLE).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for _ in 0..3 {
        let (store, keys, over) = (Arc::clone(&store), keys.clone(), Arc::clone(&over));
        readers.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let seen: Vec<_> =
                    rows(&*store, &keys).await.into_iter().map(|row| row.map(|row| row.body)).collect();
                assert!(
                    seen.windows(2).all(|pair| pair[0] == pair[1]),
                    "{VISIBLE}: one get, two moments: {seen:?}"
                );
                tokio::task::yield_now().await;
            }
        });
    }
    for n in 1..150 {
        applied(&*store, all(n), VISIBLE).await;
        tokio::task::yield_now().await;
    }
    over.store(true, Ordering::SeqCst);
    finish(readers).await;
}

/// Of many that want the same record, one gets it.
pub async fn one_winner_in_a_race<S: Store>(store: Arc<S>) {
    let place = Place::new("one_winner_in_a_race");
    for round in 0..10 {
        let key = place.numbered(round);
        let mut there = None;
        // First they all insert it, then they all replace it, then they all delete it.
        for step in ["insert", "replace", "delete"] {
            let start = Arc::new(Barrier::new(16));
            let mut racers = JoinSet::new();
            for racer in 0..16 {
                let (store, key, start) = (Arc::clone(&store), key.clone(), Arc::clone(&start));
                racers.spawn(async move {
                    let row = row(json!(racer));
                    let op = match (step, there) {
                        ("delete", Some(version)) => Op::Delete(version),
                        (_, Some(version)) => Op::Replace(version, row.clone()),
                        (_, None) => Op::Insert(row.clone()),
                    };
                    start.wait().await;
                    (commit(&*store, [(key, op)]).await == Commit::Applied).then_some(row)
                });
            }
            let winners: Vec<Row> = finish(racers).await.into_iter().flatten().collect();
            assert_eq!(winners.len(), 1, "{ATOMIC}: of 16 that {step} one record, one wins");
            let left = if step == "delete" { None } else { winners.first().cloned() };
            there = left.as_ref().map(|row| row.version);
            assert_eq!(
                rows(&*store, slice::from_ref(&key)).await,
                [left],
                "{ATOMIC}: what the winner left is there"
            );
        }
    }
}

/// Read, change, write back at the version read: every change counts.
pub async fn no_update_is_lost<S: Store>(store: Arc<S>) {
    let key = Place::new("no_update_is_lost").key("a");
    applied(&*store, [(key.clone(), Op::Insert(row(json!(0))))], ATOMIC).await;
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        let (store, key) = (Arc::clone(&store), key.clone());
        writers.spawn(async move {
            for _ in 0..10 {
                loop {
                    let Some(old) = rows(&*store, slice::from_ref(&key)).await.remove(0) else {
                        panic!("{ATOMIC}: a record went away")
                    };
                    let next = row(json!(old.body.as_u64().unwrap() + 1));
                    let mut batch = Batch::new();
                    batch.push(key.clone(), Op::Replace(old.version, next));
                    match store.commit(batch).await {
                        Ok(Commit::Applied) => break,
                        Ok(Commit::Conflict(_)) => {}
                        Err(error) if error.kind() == StoreErrorKind::Refused => {}
                        Err(error) => panic!("{ATOMIC}: a commit failed: {error:?}"),
                    }
                }
            }
        });
    }
    finish(writers).await;
    let last = rows(&*store, &[key]).await.remove(0).map(|row| row.body);
    assert_eq!(last, Some(json!(80)), "{ATOMIC}: no update is lost");
}

/// Two batches that each check what the other writes: one of them comes too late.
pub async fn check_holds_against_a_concurrent_write<S: Store>(store: Arc<S>) {
    let place = Place::new("check_holds_against_a_concurrent_write");
    for round in 0..40 {
        let (a, b) = (place.under(&[&round.to_string(), "a"]), place.under(&[&round.to_string(), "b"]));
        let (in_a, in_b) = (row(json!(0)), row(json!(0)));
        let both = [(a.clone(), Op::Insert(in_a.clone())), (b.clone(), Op::Insert(in_b.clone()))];
        applied(&*store, both, ATOMIC).await;
        let start = Arc::new(Barrier::new(2));
        let mut racers = JoinSet::new();
        for (checked, at, written, from) in
            [(a.clone(), in_a.version, b.clone(), in_b.version), (b, in_b.version, a, in_a.version)]
        {
            let (store, start) = (Arc::clone(&store), Arc::clone(&start));
            racers.spawn(async move {
                let batch = [(checked, Op::Check(at)), (written, Op::Replace(from, row(json!(1))))];
                start.wait().await;
                commit(&*store, batch).await == Commit::Applied
            });
        }
        let won = finish(racers).await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1, "{ATOMIC}: a check holds until its batch is applied");
    }
}

/// Batches over the same records, from all sides, all get through.
pub async fn crossing_batches_do_not_deadlock<S: Store>(store: Arc<S>) {
    let place = Place::new("crossing_batches_do_not_deadlock");
    let keys: Vec<Key> = (0..6).map(|at| place.numbered(at)).collect();
    applied(&*store, keys.iter().map(|key| (key.clone(), Op::Insert(row(json!(0))))), ATOMIC).await;
    let mut writers = JoinSet::new();
    for writer in 0..8_usize {
        let (store, keys) = (Arc::clone(&store), keys.clone());
        writers.spawn(async move {
            for n in 0..20 {
                // Each starts at another key, and every third only checks some of them.
                let mut ops: Vec<_> = (0..4)
                    .map(|at| (keys[(writer + n + at) % 6].clone(), Op::Upsert(row(json!(n)))))
                    .collect();
                if n % 3 == 0 {
                    for (key, op) in ops.iter_mut().step_by(2) {
                        if let Some(row) = rows(&*store, slice::from_ref(key)).await.remove(0) {
                            *op = Op::Check(row.version);
                        }
                    }
                    let _ = commit(&*store, ops).await;
                } else {
                    applied(&*store, ops, ATOMIC).await;
                }
            }
        });
    }
    let all = time::timeout(Duration::from_secs(60), finish(writers)).await;
    assert!(all.is_ok(), "{ATOMIC}: crossing batches wait for each other for ever");
}

/// A caller may leave at any moment.
pub async fn a_dropped_commit_is_whole_or_nothing<S: Store>(store: Arc<S>) {
    let place = Place::new("a_dropped_commit_is_whole_or_nothing");
    let mut rounds = Vec::new();
    for round in 0..80_u64 {
        let keys: Vec<Key> =
            ["a", "b", "c"].iter().map(|end| place.under(&[&round.to_string(), end])).collect();
        let mut batch = Batch::new();
        for key in &keys {
            batch.push(key.clone(), Op::Insert(row(json!(round))));
        }
        // Asked so many times, then perhaps left alone for a moment, then dropped.
        let (mut polls, mut future) = (round % 8, Box::pin(store.commit(batch)));
        let outcome = poll_fn(|context| {
            if polls == 0 {
                return Poll::Ready(None);
            }
            polls -= 1;
            match future.as_mut().poll(context) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending if polls == 0 => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        if outcome.is_none() && round % 3 == 0 {
            time::sleep(Duration::from_millis(bits() % 3)).await;
        }
        drop(future);
        let surely = match outcome {
            Some(Ok(Commit::Applied)) => Some(true),
            Some(Ok(Commit::Conflict(key))) => panic!("{ATOMIC}: a conflict at {key:?}, which nobody wrote"),
            Some(Err(error)) => panic!("{WHOLE}: a commit failed: {error:?}"),
            None => None,
        };
        let there = whole(&*store, &keys).await;
        assert!(there || surely.is_none(), "{WHOLE}: a batch that was applied isn't there");
        rounds.push((keys, surely));
    }
    // A commit that was let go may still be under way; it is over before this one, or soon after.
    applied(&*store, [(place.key("last"), Op::Insert(row(json!("last"))))], WHOLE).await;
    time::sleep(Duration::from_millis(50)).await;
    for (keys, surely) in rounds {
        let there = whole(&*store, &keys).await;
        assert!(there || surely.is_none(), "{WHOLE}: a batch that was applied isn't there");
    }
}

/// What was applied is there after the store was closed and opened again; for stores that outlive their
/// process. `reopen` opens the same place each time.
///
/// # Panics
/// If something is missing, or back.
pub async fn applied_is_durable<S: Store, F, Fut>(reopen: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = S>,
{
    let place = Place::new("applied_is_durable");
    let store = reopen().await;
    let expires_at = Some(Timestamp::from_secs(4_102_444_800));
    let mut records: Vec<Record> = (0..20)
        .map(|at| Record {
            key: place.numbered(at),
            row: Row { expires_at, ..row(json!({"n": at, "t": "äß\n😀"})) },
        })
        .collect();
    for Record { key, row } in &records {
        applied(&store, [(key.clone(), Op::Insert(row.clone()))], DURABLE).await;
    }
    drop(store);
    let store = reopen().await;
    assert_eq!(scan(&store, place.all()).await, records, "{DURABLE}: what was inserted");
    let new = row(json!("new"));
    let gone = records.remove(7);
    let changes = [
        (records[0].key.clone(), Op::Replace(records[0].row.version, new.clone())),
        (gone.key.clone(), Op::Delete(gone.row.version)),
    ];
    applied(&store, changes, DURABLE).await;
    records[0].row = new;
    let lost = [(place.key("x"), Op::Upsert(row(json!(1)))), (gone.key.clone(), Op::Check(gone.row.version))];
    conflicts(&store, lost, &gone.key, "a check of a deleted record").await;
    drop(store);
    let store = reopen().await;
    assert_eq!(scan(&store, place.all()).await, records, "{DURABLE}: what was replaced and deleted");
}

/// Whether all of the records are there, rather than none.
async fn whole<S: Store>(store: &S, keys: &[Key]) -> bool {
    let there = rows(store, keys).await.iter().filter(|row| row.is_some()).count();
    assert!(
        there == 0 || there == keys.len(),
        "{WHOLE}: {there} of {} records of a dropped commit",
        keys.len()
    );
    there > 0
}

async fn rows<S: Store>(store: &S, keys: &[Key]) -> Vec<Option<Row>> {
    let rows = store.get(keys).await.unwrap_or_else(|error| panic!("{VISIBLE}: a get failed: {error:?}"));
    assert_eq!(rows.len(), keys.len(), "{VISIBLE}: one answer a key");
    rows
}

async fn scan<S: Store>(store: &S, scan: Scan) -> Vec<Record> {
    store.scan(&scan).await.unwrap_or_else(|error| panic!("{ORDER}: a scan failed: {error:?}"))
}

async fn listed<S: Store>(store: &S, what: Scan) -> Vec<Key> {
    scan(store, what).await.into_iter().map(|record| record.key).collect()
}

async fn sweep<S: Store>(store: &S, before: Timestamp) -> u64 {
    store.sweep(before).await.unwrap_or_else(|error| panic!("{PURE}: a sweep failed: {error:?}"))
}

async fn commit<S: Store>(store: &S, ops: impl IntoIterator<Item = (Key, Op)>) -> Commit {
    let mut batch = Batch::new();
    ops.into_iter().for_each(|(key, op)| batch.push(key, op));
    store.commit(batch).await.unwrap_or_else(|error| panic!("{ATOMIC}: a commit failed: {error:?}"))
}

async fn applied<S: Store>(store: &S, ops: impl IntoIterator<Item = (Key, Op)>, line: &str) {
    let outcome = commit(store, ops).await;
    assert_eq!(outcome, Commit::Applied, "{line}: a batch whose conditions hold is applied");
}

async fn conflicts<S: Store>(store: &S, ops: impl IntoIterator<Item = (Key, Op)>, key: &Key, what: &str) {
    let outcome = commit(store, ops).await;
    assert_eq!(outcome, Commit::Conflict(key.clone()), "{ATOMIC}: {what} conflicts, and names the key");
}

/// Waits for a task, and fails as it failed.
async fn join<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(task).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn finish<T: 'static>(mut tasks: JoinSet<T>) -> Vec<T> {
    let mut values = Vec::new();
    while let Some(outcome) = tasks.join_next().await {
        match outcome {
            Ok(value) => values.push(value),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    values
}

fn row(body: Value) -> Row {
    Row { version: version(), expires_at: None, body }
}

fn version() -> Version {
    Version::random().expect("randomness")
}

/// 64 random bits.
fn bits() -> u64 {
    u64::from_str_radix(&version().to_text()[..16], 16).unwrap()
}

/// A prefix that no other run uses.
struct Place {
    root: Vec<String>,
}

impl Place {
    fn new(check: &str) -> Self {
        Self { root: vec!["conformance".into(), check.into(), version().to_text()] }
    }

    fn root(&self) -> Key {
        Key::new(&self.root)
    }

    fn all(&self) -> Scan {
        Scan::under(self.root())
    }

    fn key(&self, segment: &str) -> Key {
        self.under(&[segment])
    }

    fn numbered(&self, n: usize) -> Key {
        self.key(&format!("{n:04}"))
    }

    fn under(&self, path: &[&str]) -> Key {
        Key::new(self.root.iter().map(String::as_str).chain(path.iter().copied()))
    }
}

const ATOMIC: &str = "contract 1, a batch is atomic and isolated";
const VISIBLE: &str = "contract 2, what was applied is seen, and one get is one snapshot";
const ORDER: &str = "contract 3, keys compare as bytes, and a scan stays under its prefix";
const FAITHFUL: &str = "contract 4, a body comes back equal, with its version and expiry";
const PURE: &str = "contract 5, a store invents nothing and judges no time";
const WHOLE: &str = "contract 6, a dropped commit is whole or nothing";
const DURABLE: &str = "contract 7, applied means durable";
const CLOCK: &str = "the store's clock moves, and is near";

/// Long ago, so that a sweep takes nobody's live records: 1970-01-01T00:16:40Z.
const SWEPT: Timestamp = Timestamp::from_secs(1000);
