//! Points in time, and the one place that reads a clock.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time: milliseconds since the Unix epoch, UTC (row D19). Arithmetic saturates.
///
/// ```
/// use std::time::Duration;
/// use tower_mfa::ident::Timestamp;
/// let start = Timestamp::from_secs(1_702_877_939);
/// let end = start + Duration::from_secs(60);
/// assert_eq!(end.as_secs(), 1_702_877_999);
/// assert_eq!(end.since(start), Duration::from_secs(60));
/// assert_eq!(start.since(end), Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);
    /// Later than any other.
    pub const MAX: Self = Self(i64::MAX);

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From whole seconds since the epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// How long ago `earlier` was; zero if it is yet to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer).map(Self)
    }
}

/// What time it is. The crate reads a clock at its edge, once a request; every rule gets the answer.
///
/// [`SystemClock`] is the default. An app or a test that brings its own answers for it: neither the
/// guard against jumps nor the store's offset is applied (decision of the house: one clock decides).
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Tells how far the store's clock is ahead of this one. The default ignores it.
    fn follow(&self, _offset_millis: i64) {}

    /// How far the clock had to be held up against the system's, zero for one that can't tell.
    fn held(&self) -> Duration {
        Duration::ZERO
    }
}

/// The system's clock, guarded (row J28): it follows the wall clock forward; when that falls more
/// than 5 s behind, it goes on from its own maximum at the speed of the monotonic clock.
pub struct SystemClock {
    anchor: Mutex<Anchor>,
    offset: AtomicI64,
    held: AtomicI64,
}

struct Anchor {
    wall: i64,
    at: Instant,
}

/// How far the wall clock may fall behind before the guard takes over.
const SLACK: i64 = 5_000;

impl SystemClock {
    /// Starts from the wall clock as it is.
    pub fn new() -> Self {
        Self {
            anchor: Mutex::new(Anchor { wall: wall(), at: Instant::now() }),
            offset: AtomicI64::new(0),
            held: AtomicI64::new(0),
        }
    }

    fn guarded(&self, wall: i64, at: Instant) -> i64 {
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = millis(at.saturating_duration_since(anchor.at));
        let expected = anchor.wall.saturating_add(elapsed);
        let behind = expected.saturating_sub(wall);
        // Slow drift is forgiven at 0.1 %, so that two honest clocks never part for good.
        let forgiven = behind.clamp(0, elapsed / 1000);
        if behind <= 0 {
            *anchor = Anchor { wall, at };
        } else if forgiven > 0 {
            *anchor = Anchor { wall: expected - forgiven, at };
        }
        let held = if behind > SLACK { behind } else { 0 };
        self.held.store(held, Ordering::Relaxed);
        if held > 0 { expected } else { wall }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SystemClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemClock").finish_non_exhaustive()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.guarded(wall(), Instant::now()).saturating_add(self.offset.load(Ordering::Relaxed)))
    }

    fn follow(&self, offset_millis: i64) {
        self.offset.fetch_add(offset_millis, Ordering::Relaxed);
    }

    fn held(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.held.load(Ordering::Relaxed)).unwrap_or(0))
    }
}

/// What an embedded store answers for its own clock: the system's, guarded as well (row R18), so that a
/// jump of the wall clock can't come in by the store's door.
pub(crate) fn embedded() -> Timestamp {
    static CLOCK: LazyLock<SystemClock> = LazyLock::new(SystemClock::new);
    CLOCK.now()
}

/// A point on the monotonic clock, to measure how long something took or is ago.
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

fn wall() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => -millis(before.duration()),
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_j28_the_guard_never_stands_still_and_never_goes_back() {
        let clock = SystemClock::new();
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let base = 1_700_000_000_000;
        *clock.anchor.lock().unwrap() = Anchor { wall: base, at: start };
        assert_eq!(clock.guarded(base + 10_000, at(10)), base + 10_000);
        // An hour back: from here on the monotonic clock counts.
        assert_eq!(clock.guarded(base + 20_000 - 3_600_000, at(20)), base + 20_000);
        assert!(clock.held() > Duration::from_secs(3500));
        assert!(clock.guarded(base + 30_000 - 3_600_000, at(30)) >= base + 29_990);
        // Forward is followed, and small steps back are the wall clock's own business.
        assert_eq!(clock.guarded(base + 90_000, at(40)), base + 90_000);
        assert_eq!(clock.guarded(base + 88_000, at(40)), base + 88_000);
        assert_eq!(clock.held(), Duration::ZERO);
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MAX + Duration::from_secs(1), Timestamp::MAX);
        assert_eq!(Timestamp::from_millis(-1).as_secs(), -1);
        assert_eq!(Timestamp::from_millis(i64::MIN) - Duration::MAX, Timestamp::from_millis(i64::MIN));
    }
}
