//! The rows of the security catalogue and their tests: `tests/security_rows.toml` says what is shown, and
//! each row that is has a test whose name carries its id.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails may panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The groups, and how many rows each has in the catalogue.
const GROUPS: [(&str, usize); 12] = [
    ("J", 30),
    ("C", 15),
    ("R", 20),
    ("S", 19),
    ("X", 12),
    ("P", 20),
    ("M", 18),
    ("O", 38),
    ("V", 11),
    ("L", 15),
    ("N", 7),
    ("W", 7),
];
/// What a row can wait for.
const KINDS: [&str; 6] = ["fp", "kill", "sim", "loom", "fuzz", "capability"];
/// How many entries wait. The list can't grow unseen: whoever adds one says so here.
const WAITING: usize = 32;

/// A row's line.
#[derive(Debug, Default, PartialEq)]
struct Row {
    /// Nothing of it is shown.
    whole: bool,
    /// Kind, and what is waited for.
    waiting: Vec<(String, String)>,
}

/// Reads the file: TOML of one table a group and one line a row, and nothing else. What is odd is answered as
/// a breach.
fn read(text: &str) -> (BTreeMap<String, Row>, Vec<String>) {
    let (mut rows, mut breaches, mut group) = (BTreeMap::new(), Vec::new(), String::new());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            group = name.to_owned();
            continue;
        }
        let Some((id, list)) = line.split_once(" = [") else {
            breaches.push(format!("not a row: {line}"));
            continue;
        };
        let Some(list) = list.strip_suffix(']') else {
            breaches.push(format!("not a list: {line}"));
            continue;
        };
        let mut row = Row::default();
        for entry in
            list.split("\", \"").map(|entry| entry.trim_matches('"')).filter(|entry| !entry.is_empty())
        {
            match entry.split_once(": ") {
                None if entry == "whole" => row.whole = true,
                Some((kind, what)) if KINDS.contains(&kind) && what.len() > 3 => {
                    row.waiting.push((kind.to_owned(), what.to_owned()));
                }
                _ => breaches.push(format!("{id}: {entry} names no kind and what is waited for")),
            }
        }
        if row.whole && row.waiting.is_empty() {
            breaches.push(format!("{id}: waits whole, for nothing"));
        }
        if !id.starts_with(&group) || group.is_empty() {
            breaches.push(format!("{id}: not in its group"));
        }
        if rows.insert(id.to_owned(), row).is_some() {
            breaches.push(format!("{id}: twice"));
        }
    }
    (rows, breaches)
}

/// Ids that the catalogue has, as `J01`.
fn catalogue() -> BTreeSet<String> {
    GROUPS.iter().flat_map(|(group, rows)| (1..=*rows).map(move |n| format!("{group}{n:02}"))).collect()
}

/// The ids that names of tests carry: `sec_r11_r14_x` carries two.
fn tested(source: &str) -> BTreeSet<String> {
    let names = source.split("fn sec_").skip(1);
    let words = names.flat_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        rest[..end].split('_')
    });
    let ids = words.filter(|word| {
        word.len() == 3
            && word.starts_with(|c: char| c.is_ascii_lowercase())
            && word[1..].parse::<u8>().is_ok()
    });
    ids.map(str::to_ascii_uppercase).collect()
}

fn breaches(rows: &BTreeMap<String, Row>, tested: &BTreeSet<String>) -> Vec<String> {
    let mut breaches: Vec<String> = catalogue()
        .into_iter()
        .filter(|id| !rows.contains_key(id))
        .map(|id| format!("{id}: no row"))
        .collect();
    for (id, row) in rows {
        match (catalogue().contains(id), row.whole, tested.contains(id)) {
            (false, ..) => breaches.push(format!("{id}: not in the catalogue")),
            (_, true, true) => breaches.push(format!("{id}: waits whole and has a test")),
            (_, false, false) => breaches.push(format!("{id}: no test carries it")),
            _ => {}
        }
    }
    breaches
}

fn waiting(rows: &BTreeMap<String, Row>) -> usize {
    rows.values().map(|row| row.waiting.len()).sum()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The lines below a folder that begin a test of a row; not of this file, whose planted names are none.
fn source(dir: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&source(&path));
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests/rows.rs") {
            // Tidy's own planted ids are in strings; a test's name is at the beginning of a line.
            let file = fs::read_to_string(&path).unwrap();
            let names = |line: &&str| {
                let line = line.trim_start();
                line.starts_with("fn sec_") || line.starts_with("async fn sec_")
            };
            file.lines().filter(names).for_each(|line| {
                text.push_str(line);
                text.push('\n');
            });
        }
    }
    text
}

#[test]
fn every_row_has_its_test_or_waits_for_something_named() {
    let (rows, odd) = read(&fs::read_to_string(root().join("tests/security_rows.toml")).unwrap());
    let tested = tested(&(source(&root().join("src")) + &source(&root().join("tests"))));
    assert!(tested.len() > 100, "only {} ids were found", tested.len());
    assert_eq!(odd, Vec::<String>::new());
    let found = breaches(&rows, &tested);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    assert_eq!(waiting(&rows), WAITING, "entries that wait: say here if the list was meant to change");
}

#[test]
fn the_list_is_read_right() {
    let planted = "# a comment\n[J]\nJ01 = []\nJ02 = [\"whole\", \"capability: verify-only mode\"]\n\n[S]\n\
        S01 = [\"fp: failpoints (a, b)\", \"sim: simulation\"]\n";
    let (rows, odd) = read(planted);
    assert_eq!(odd, Vec::<String>::new());
    assert!(rows["J01"] == Row::default() && rows["J02"].whole && !rows["S01"].whole);
    assert_eq!(rows["S01"].waiting[0], ("fp".to_owned(), "failpoints (a, b)".to_owned()));
    assert_eq!(waiting(&rows), 3);
    for (odd, why) in [
        ("[J]\nJ01 = [\"whole\"]", "J01: waits whole, for nothing"),
        ("[J]\nJ01 = [\"later\"]", "J01: later names no kind and what is waited for"),
        ("[J]\nJ01 = [\"some: thing else\"]", "J01: some: thing else names no kind and what is waited for"),
        ("[J]\nJ01 = [\"fuzz: \"]", "J01: fuzz:  names no kind and what is waited for"),
        ("[J]\nJ01 = []\nJ01 = []", "J01: twice"),
        ("[J]\nS01 = []", "S01: not in its group"),
        ("J01 = []", "J01: not in its group"),
        ("[J]\nJ01", "not a row: J01"),
        ("[J]\nJ01 = [", "not a list: J01 = ["),
    ] {
        assert_eq!(read(odd).1, [why], "{odd}");
    }
}

#[test]
fn names_carry_ids() {
    let source = "fn sec_r11_r14_ends_come_first() {\nasync fn sec_s02_b_x()\nfn sec_d02_sec_d05_codes(";
    assert_eq!(tested(source), ["D02", "D05", "R11", "R14", "S02"].map(str::to_owned).into());
    assert_eq!(catalogue().len(), 212);
    let (mut rows, _) = read("[J]\nJ01 = []\nJ02 = [\"whole\", \"fp: failpoints\"]\nJ03 = []\nJ31 = []");
    let tested = ["J01", "J02"].map(str::to_owned).into();
    let found = breaches(&rows, &tested);
    assert!(found.contains(&"C01: no row".to_owned()) && !found.contains(&"J01: no row".to_owned()));
    rows.retain(|id, _| id.starts_with('J'));
    let rest: Vec<_> = found.into_iter().filter(|breach| !breach.ends_with("no row")).collect();
    assert_eq!(
        rest,
        ["J02: waits whole and has a test", "J03: no test carries it", "J31: not in the catalogue"]
    );
}
