//! Tokens whose signature was checked already: a verified token isn't verified twice (design, part 8.2).
//!
//! An entry says one thing only: *this very text* was signed by a key of *this very set*, and says these
//! claims. It is found by the end of the text, which the signature makes unforeseeable, and counts only if
//! the whole text is equal. Expiry, revocation, CSRF and validators are judged at every request, by who
//! asks. Nothing that failed is kept; a set of keys that is replaced takes its tokens along.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use quick_cache::{DefaultHashBuilder, Weighter, sync::Cache};

use super::claims::AccessClaims;
use crate::base::time::Timestamp;

/// The verified tokens of one set of keys, bounded in bytes.
pub(crate) struct Seen {
    /// Bytes of memory, about; zero keeps nothing.
    room: u64,
    /// Made when there is something to keep.
    cache: OnceLock<Cache<Tail, Entry, Bytes, DefaultHashBuilder>>,
}

/// The last 16 letters of a token.
type Tail = u128;

#[derive(Clone)]
struct Entry {
    token: Arc<[u8]>,
    claims: Arc<AccessClaims>,
    /// From then on the key verifies nothing.
    until: Timestamp,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Tail, Entry> for Bytes {
    fn weight(&self, _: &Tail, entry: &Entry) -> u64 {
        weight(&entry.token)
    }
}

/// What an entry takes, rather more than less: the text, and the claims parsed from it, which take a few
/// times as much.
fn weight(token: &[u8]) -> u64 {
    512 + 4 * token.len() as u64
}

impl Seen {
    /// What a process keeps unless it is told otherwise.
    pub(crate) const ROOM: u64 = 32 * 1024 * 1024;

    pub(crate) fn new(room: u64) -> Self {
        Self { room, cache: OnceLock::new() }
    }

    /// An empty one of the same size.
    pub(crate) fn anew(&self) -> Self {
        Self::new(self.room)
    }

    /// The claims of a token whose signature was checked, if its key still counts.
    #[inline]
    pub(crate) fn find(&self, token: &[u8], now: Timestamp) -> Option<Arc<AccessClaims>> {
        let entry = self.cache.get()?.get(&tail(token)?)?;
        (*entry.token == *token && now < entry.until).then_some(entry.claims)
    }

    /// Keeps a token whose signature was checked, or made, just now.
    pub(crate) fn keep(&self, token: &[u8], claims: &Arc<AccessClaims>, until: Timestamp) {
        let Some(tail) = tail(token).filter(|_| self.room >= weight(token)) else { return };
        let entry = Entry { token: token.into(), claims: Arc::clone(claims), until };
        let usual = usize::try_from(self.room / 4096).unwrap_or(usize::MAX);
        let make = || Cache::with(usual, self.room, Bytes, DefaultHashBuilder::default(), Default::default());
        self.cache.get_or_init(make).insert(tail, entry);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.cache.get().map_or(0, Cache::len)
    }
}

#[inline]
fn tail(token: &[u8]) -> Option<Tail> {
    token.last_chunk().copied().map(u128::from_le_bytes)
}

impl Default for Seen {
    fn default() -> Self {
        Self::new(Self::ROOM)
    }
}

/// How much may be kept, not of whom.
impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").field("room", &self.room).finish_non_exhaustive()
    }
}
