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
    cache: OnceLock<Cache<Tail, Arc<Entry>, Bytes, DefaultHashBuilder>>,
}

/// The last 16 letters of a token.
type Tail = u128;

struct Entry {
    token: Box<[u8]>,
    claims: Arc<AccessClaims>,
    /// From then on the key verifies nothing.
    until: Timestamp,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Tail, Arc<Entry>> for Bytes {
    fn weight(&self, _: &Tail, entry: &Arc<Entry>) -> u64 {
        weight(&entry.token)
    }
}

/// About what an entry takes: the text, and the claims parsed from it, which take a few times as much.
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
    #[inline(always)]
    pub(crate) fn find(&self, token: &[u8], now: Timestamp) -> Option<Arc<AccessClaims>> {
        let entry = self.cache.get()?.get(&tail(token)?)?;
        (*entry.token == *token && now < entry.until).then(|| Arc::clone(&entry.claims))
    }

    /// Keeps a token whose signature was checked, or made, just now.
    pub(crate) fn keep(&self, token: &[u8], claims: &Arc<AccessClaims>, until: Timestamp) {
        let Some(tail) = tail(token).filter(|_| self.room >= weight(token)) else { return };
        let entry = Entry { token: token.into(), claims: Arc::clone(claims), until };
        let usual = usize::try_from(self.room / 4096).unwrap_or(usize::MAX);
        let make = || Cache::with(usual, self.room, Bytes, DefaultHashBuilder::default(), Default::default());
        self.cache.get_or_init(make).insert(tail, Arc::new(entry));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::session::claims::tests::somebody;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
    const LATER: Timestamp = Timestamp::from_secs(1_700_003_600);

    fn claims() -> Arc<AccessClaims> {
        Arc::new(somebody(NOW, Duration::from_secs(3600)))
    }

    fn token(n: usize) -> Vec<u8> {
        format!("header.payload-{n:06}.signature-{n:020}").into_bytes()
    }

    #[test]
    fn sec_s15_only_the_very_same_text_is_found_and_only_while_its_key_counts() {
        let seen = Seen::default();
        assert!(seen.find(&token(1), NOW).is_none());
        seen.keep(&token(1), &claims(), LATER);
        assert!(seen.find(&token(1), NOW).is_some());
        assert!(seen.find(&token(2), NOW).is_none());
        // The same end and another text before it: every other byte counts.
        for at in 0..token(1).len() {
            let mut other = token(1);
            other[at] ^= 1;
            assert!(seen.find(&other, NOW).is_none(), "{at}");
        }
        assert!(seen.find(&token(1), LATER).is_none());
        assert!(seen.anew().find(&token(1), NOW).is_none());
        assert!(seen.find(b"short", NOW).is_none());
    }

    #[test]
    fn sec_s15_it_is_bounded_and_can_be_off() {
        let room = 40 * weight(&token(0));
        let (seen, none) = (Seen::new(room), Seen::new(0));
        for n in 0..1000 {
            seen.keep(&token(n), &claims(), LATER);
            none.keep(&token(n), &claims(), LATER);
        }
        let kept = (0..1000).filter(|n| seen.find(&token(*n), NOW).is_some()).count();
        assert!((1..=40).contains(&kept), "{kept}");
        assert!(none.find(&token(999), NOW).is_none());
    }
}
