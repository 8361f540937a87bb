//! What a commit asks of a store.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use super::Key;
use crate::base::{error::Error, hash, random, time::Timestamp};

/// Names one state of one record. Drawn at random by the crate, so no store counts, and a record that
/// was deleted and made again can't be mistaken for the old one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(u128);

impl Version {
    /// A new version, drawn from the operating system's randomness. The crate draws those in its
    /// batches; a store never does. Public for tests of stores.
    ///
    /// # Errors
    /// If the operating system gives no randomness.
    pub fn random() -> Result<Self, Error> {
        random::bytes().map(|raw| Self(u128::from_be_bytes(raw)))
    }

    /// The text form: 32 lower-case hexadecimal digits.
    pub fn to_text(self) -> String {
        hash::hex(&self.0.to_be_bytes())
    }

    /// Reads the text form; `None` if it isn't one.
    pub fn from_text(text: &str) -> Option<Self> {
        if text.len() != 32 || text.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// One state of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Names this state.
    pub version: Version,
    /// From when a sweep may take the record. A store never judges by it.
    pub expires_at: Option<Timestamp>,
    /// What is kept.
    pub body: Value,
}

/// A record: a key and its row.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Where it is.
    pub key: Key,
    /// What is there.
    pub row: Row,
}

/// What a batch does at one key.
///
/// Exhaustive on purpose: a store that doesn't know an operation must not compile.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Writes a record that must not be there yet.
    Insert(Row),
    /// Writes over a record that must be there at this version.
    Replace(Version, Row),
    /// Writes whatever was there.
    Upsert(Row),
    /// Takes away a record that must be there at this version.
    Delete(Version),
    /// Takes away whatever was there, if anything.
    Remove,
    /// Writes nothing; the record must be there at this version.
    Check(Version),
}

impl Op {
    /// What the record must be before the batch: `None` if anything will do, `Some(None)` absent.
    pub fn condition(&self) -> Option<Option<Version>> {
        match self {
            Self::Insert(_) => Some(None),
            Self::Replace(version, _) | Self::Delete(version) | Self::Check(version) => Some(Some(*version)),
            Self::Upsert(_) | Self::Remove => None,
        }
    }

    /// What the record is after the batch: `None` if untouched, `Some(None)` gone.
    pub fn effect(&self) -> Option<Option<&Row>> {
        match self {
            Self::Insert(row) | Self::Replace(_, row) | Self::Upsert(row) => Some(Some(row)),
            Self::Delete(_) | Self::Remove => Some(None),
            Self::Check(_) => None,
        }
    }
}

/// At most one operation a key, in key order: stores that lock as they go lock in one order, and so
/// can't deadlock each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    ops: BTreeMap<Key, Op>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what happens at `key`, in place of what was said before.
    pub fn push(&mut self, key: Key, op: Op) {
        self.ops.insert(key, op);
    }

    /// What was said about `key`.
    pub fn op(&self, key: &Key) -> Option<&Op> {
        self.ops.get(key)
    }

    /// The operations in key order.
    pub fn ops(&self) -> impl ExactSizeIterator<Item = (&Key, &Op)> {
        self.ops.iter()
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_one_text() {
        let version = Version::random().unwrap();
        assert_eq!(Version::from_text(&version.to_text()), Some(version));
        assert_ne!(version, Version::random().unwrap());
        for bad in ["", "0", &"0".repeat(33), &"A".repeat(32), &format!("+{}", "0".repeat(31))] {
            assert_eq!(Version::from_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_batch_keeps_the_last_word_on_a_key_and_goes_in_key_order() {
        let mut batch = Batch::new();
        assert!(batch.is_empty());
        batch.push(Key::new(["b"]), Op::Remove);
        batch.push(Key::new(["a"]), Op::Remove);
        let version = Version::random().unwrap();
        batch.push(Key::new(["b"]), Op::Check(version));
        let ops: Vec<_> = batch.ops().map(|(key, op)| (key.as_str(), op.clone())).collect();
        assert_eq!(ops, [("a", Op::Remove), ("b", Op::Check(version))]);
        assert_eq!(batch.op(&Key::new(["b"])), Some(&Op::Check(version)));
    }
}
