//! Signing keys in memory: which one signs now, which ones verify, when to make the next.
//!
//! A key is published at least [`Schedule::lead`] before it first signs (row J07), signs for
//! [`Schedule::rotation`], and goes on verifying for twice the life of an access token. The set is
//! immutable; a change of keys swaps it whole, so a request sees one set from start to end.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    seen::Seen,
    signing::{KeyTimes, SigningAlg, SigningKey},
};
use crate::base::time::Timestamp;

/// How keys follow each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// How long a key signs.
    pub(crate) rotation: Duration,
    /// How long before its first use a key is published: at least the time in which every node reloads.
    pub(crate) lead: Duration,
    /// The longest life of an access token.
    pub(crate) token_life: Duration,
}

impl Schedule {
    pub(crate) const ROTATION: Duration = Duration::from_secs(168 * 3600);
    pub(crate) const LEAD: Duration = Duration::from_secs(60);

    pub(crate) const fn new(token_life: Duration) -> Self {
        Self { rotation: Self::ROTATION, lead: Self::LEAD, token_life }
    }

    /// The times of a key made now that is to sign from `sign_from`.
    pub(crate) fn times(&self, now: Timestamp, sign_from: Timestamp) -> KeyTimes {
        let sign_until = sign_from + self.rotation;
        KeyTimes { created_at: now, sign_from, sign_until, verify_until: self.verify_until(sign_until) }
    }

    /// Until when a key verifies that signs until then.
    pub(crate) fn verify_until(&self, sign_until: Timestamp) -> Timestamp {
        sign_until + self.token_life + self.token_life
    }
}

/// A set of keys as it was at one moment: all of them public keys, or all of them secrets (row J02). Keeps
/// the tokens that it verified.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    /// What new tokens are signed with.
    alg: SigningAlg,
    keys: BTreeMap<String, Arc<SigningKey>>,
    /// The same keys by the header of the tokens they sign.
    headers: Vec<(String, Arc<SigningKey>)>,
    seen: Seen,
    /// Of another issuer, whose tokens may be without what only we write.
    foreign: bool,
}

impl Keyring {
    /// The set for an app that signs by `alg`: keys that don't go with it are left out.
    pub(crate) fn of(alg: SigningAlg, keys: impl IntoIterator<Item = Arc<SigningKey>>) -> Self {
        let keys = keys.into_iter().filter(|key| key.alg().goes_with(alg));
        let keys: BTreeMap<_, _> = keys.map(|key| (key.kid().to_owned(), key)).collect();
        let headers = keys.values().map(|key| (key.header(), Arc::clone(key))).collect();
        Self { alg, keys, headers, seen: Seen::default(), foreign: false }
    }

    /// The set of another issuer: public keys, none of which signs here. Those that are in `known` already are the same
    /// keys still.
    pub(crate) fn foreign(keys: impl IntoIterator<Item = Arc<SigningKey>>, known: &Self) -> Self {
        let same = |key: Arc<SigningKey>| match known.find(key.kid()) {
            Some(old) if old.jwk() == key.jwk() => Arc::clone(old),
            _ => key,
        };
        Self { foreign: true, ..Self::of(SigningAlg::default(), keys.into_iter().map(same)) }
    }

    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// The set for an app that signs by the default algorithm.
    #[cfg(test)]
    pub(crate) fn new(keys: impl IntoIterator<Item = Arc<SigningKey>>) -> Self {
        Self::of(SigningAlg::default(), keys)
    }

    /// The same set without these.
    pub(crate) fn without(&self, kids: &[String]) -> Self {
        Self::of(self.alg, self.keys.values().filter(|key| !kids.iter().any(|kid| kid == key.kid())).cloned())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key of this id, whatever its times.
    pub(crate) fn find(&self, kid: &str) -> Option<&Arc<SigningKey>> {
        self.keys.get(kid)
    }

    /// The key that signs tokens with exactly this header.
    pub(crate) fn by_header(&self, header: &[u8]) -> Option<&Arc<SigningKey>> {
        self.headers.iter().find(|(known, _)| known.as_bytes() == header).map(|(_, key)| key)
    }

    /// The tokens that a key of this set verified.
    #[inline]
    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The key that signs now.
    pub(crate) fn signing(&self, now: Timestamp) -> Option<&Arc<SigningKey>> {
        let keys = self.keys.values().map(|key| ((key.alg(), key.times()), key));
        signer(self.alg, keys, now)
    }

    /// The public keys that verify now or will, as a JWK set (RFC 7517).
    pub(crate) fn jwks(&self, now: Timestamp) -> Value {
        let keys: Vec<Value> =
            self.keys.values().filter(|key| key.verifies(now)).filter_map(|key| key.jwk()).collect();
        json!({ "keys": keys })
    }

    /// How long the JWK set may be cached, in seconds: until the next key is made.
    pub(crate) fn max_age(&self, now: Timestamp, schedule: &Schedule) -> u64 {
        let own = self.keys.values().filter(|key| key.alg() == self.alg);
        match own.map(|key| key.times().sign_until).max() {
            Some(end) => due(end, schedule).since(now).as_secs().max(1),
            None => 60,
        }
    }

    /// Whether both hold the very same keys.
    fn has_same_keys(&self, other: &Self) -> bool {
        self.alg == other.alg
            && self.keys.len() == other.keys.len()
            && self.keys.values().zip(other.keys.values()).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

/// A key's algorithm and times: all that a plan goes by.
pub(crate) type Slot = (SigningAlg, KeyTimes);

/// Of keys that go with `alg`, the one that signs: the newest whose time has come, of `alg` itself if one
/// of them can. So processes that disagree about the algorithm, as they do while a new one is rolled out,
/// each sign with their own and verify each other's.
pub(crate) fn signer<T>(
    alg: SigningAlg,
    keys: impl IntoIterator<Item = (Slot, T)>,
    now: Timestamp,
) -> Option<T> {
    let able = keys.into_iter().filter(|((kind, times), _)| kind.goes_with(alg) && times.may_sign(now));
    able.max_by_key(|((kind, times), _)| (*kind == alg, times.sign_from)).map(|(_, key)| key)
}

/// When the key that is to be made now will sign, if one is to be made. Where none can sign, it signs at
/// once; any other waits until it has been published for [`Schedule::lead`].
pub(crate) fn plan(
    alg: SigningAlg,
    keys: impl IntoIterator<Item = Slot> + Clone,
    now: Timestamp,
    schedule: &Schedule,
) -> Option<Timestamp> {
    if signer(alg, keys.clone().into_iter().map(|slot| (slot, ())), now).is_none() {
        return Some(now);
    }
    let own = keys.into_iter().filter(|(kind, _)| *kind == alg);
    match own.map(|(_, times)| times.sign_until).max() {
        Some(end) if now < due(end, schedule) => None,
        Some(end) => Some(end.max(now + schedule.lead)),
        None => Some(now + schedule.lead),
    }
}

/// The next key is made twice the lead before it is needed, so that a late look still leaves the lead.
fn due(sign_until: Timestamp, schedule: &Schedule) -> Timestamp {
    sign_until - schedule.lead - schedule.lead
}

/// The keys of this process: one set at a time, swapped whole.
#[derive(Debug, Default)]
pub(crate) struct Keys(RwLock<Arc<Keyring>>);

impl Keys {
    /// None yet, and room for so many bytes of verified tokens.
    pub(crate) fn new(seen: Seen) -> Self {
        Self(RwLock::new(Arc::new(Keyring { seen, ..Keyring::default() })))
    }

    /// The set as it is now.
    #[inline]
    pub(crate) fn current(&self) -> Arc<Keyring> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another set in its place, which has verified nothing yet. Who holds the former one keeps it. The
    /// same keys once more change nothing. Says whether it was another.
    pub(crate) fn replace(&self, mut keys: Keyring) -> bool {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let other = !current.has_same_keys(&keys);
        if other {
            keys.seen = current.seen.anew();
            *current = Arc::new(keys);
        }
        other
    }
}

/// May an unknown key id cause a reload? One in 5 s for the process, and not for an id that a reload
/// did not find shortly before (row J06).
#[derive(Debug, Default)]
pub(crate) struct ReloadGate {
    gate: Mutex<Gate>,
    /// Held from reading the store to swapping the set, so that an older reading never takes the place of
    /// a newer one, and one reload is under way at a time.
    pub(crate) loading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Gate {
    /// When the last reload started: failed ones count.
    started: Option<Instant>,
    /// Ids that a reload did not find.
    absent: HashMap<String, Instant>,
}

impl ReloadGate {
    const PAUSE: Duration = Duration::from_secs(5);
    const REMEMBERED: Duration = Duration::from_secs(60);
    const ABSENT: usize = 1024;

    /// If so, the reload counts as started.
    pub(crate) fn may_reload(&self, kid: &str, now: Instant) -> bool {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |at: Instant, limit| now.saturating_duration_since(at) < limit;
        if gate.absent.get(kid).is_some_and(|at| fresh(*at, Self::REMEMBERED)) {
            return false;
        }
        if gate.started.is_some_and(|at| fresh(at, Self::PAUSE)) {
            return false;
        }
        gate.started = Some(now);
        true
    }

    /// A reload that was complete did not find this id.
    pub(crate) fn not_found(&self, kid: &str, now: Instant) {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if gate.absent.len() >= Self::ABSENT {
            gate.absent.retain(|_, at| now.saturating_duration_since(*at) < Self::REMEMBERED);
        }
        // Full of fresh ones: the pause alone holds the flood.
        if gate.absent.len() < Self::ABSENT {
            gate.absent.insert(kid.to_owned(), now);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
