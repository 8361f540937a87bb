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

    /// The time now, for a caller who read the monotonic clock just now: a clock that goes by it needn't read
    /// it once more. The default asks [`Clock::now`].
    fn now_at(&self, _at: Instant) -> Timestamp {
        self.now()
    }

    /// Tells how far the store's clock is ahead of this one. The default ignores it.
    fn follow(&self, _offset_millis: i64) {}

    /// How far the clock had to be held up against the system's, zero for one that can't tell.
    fn held(&self) -> Duration {
        Duration::ZERO
    }
}

/// The system's clock, guarded (row J28): it follows the wall clock forward; when that falls more
/// than 5 s behind, it goes on from its own maximum at the speed of the monotonic clock.
///
/// The wall clock is looked at ten times a second at most; in between, the monotonic clock counts.
pub struct SystemClock {
    start: Instant,
    /// What this clock is ahead of the monotonic one, which counts the milliseconds since the start.
    lead: AtomicI64,
    /// The last look at the wall clock.
    looked: AtomicI64,
    guard: Mutex<Guard>,
    offset: AtomicI64,
    held: AtomicI64,
}

/// What the wall clock is expected to be ahead of the monotonic one, and when that was settled.
struct Guard {
    lead: i64,
    at: i64,
}

/// How far the wall clock may fall behind before the guard takes over, in milliseconds.
const SLACK: i64 = 5_000;
/// How long the monotonic clock counts alone, in milliseconds.
const ALONE: i64 = 100;

impl SystemClock {
    /// Starts from the wall clock as it is.
    pub fn new() -> Self {
        Self::starting(wall(), Instant::now())
    }

    fn starting(wall: i64, start: Instant) -> Self {
        Self {
            start,
            lead: AtomicI64::new(wall),
            looked: AtomicI64::new(0),
            guard: Mutex::new(Guard { lead: wall, at: 0 }),
            offset: AtomicI64::new(0),
            held: AtomicI64::new(0),
        }
    }

    #[inline]
    fn guarded(&self, at: Instant, wall: impl FnOnce() -> i64) -> i64 {
        let elapsed = at.saturating_duration_since(self.start);
        // What a process can live through fits by far: plain arithmetic will do.
        let elapsed = elapsed.as_secs().cast_signed() * 1000 + i64::from(elapsed.subsec_millis());
        if elapsed - self.looked.load(Ordering::Relaxed) >= ALONE {
            self.look(wall, elapsed);
        }
        self.lead.load(Ordering::Relaxed).saturating_add(elapsed)
    }

    #[cold]
    #[inline(never)]
    fn look(&self, wall: impl FnOnce() -> i64, elapsed: i64) {
        let wall = wall();
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = guard.lead.saturating_add(elapsed);
        let behind = expected.saturating_sub(wall);
        // Slow drift is forgiven at 0.1 %, so that two honest clocks never part for good.
        let forgiven = behind.clamp(0, elapsed.saturating_sub(guard.at).max(0) / 1000);
        if behind <= 0 || forgiven > 0 {
            *guard = Guard { lead: guard.lead.saturating_sub(behind.min(forgiven)), at: elapsed };
        }
        let held = if behind > SLACK { behind } else { 0 };
        let shown = if held > 0 { expected } else { wall };
        self.held.store(held, Ordering::Relaxed);
        self.lead.store(shown.saturating_sub(elapsed), Ordering::Relaxed);
        self.looked.store(elapsed, Ordering::Relaxed);
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
        self.now_at(monotonic())
    }

    fn now_at(&self, at: Instant) -> Timestamp {
        let guarded = self.guarded(at, wall);
        Timestamp(guarded.saturating_add(self.offset.load(Ordering::Relaxed)))
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

/// A point on the runtime's own clock, by which it sleeps.
pub(crate) fn of_runtime() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

fn wall() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => -millis(before.duration()),
    }
}

fn millis(duration: Duration) -> i64 {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds.saturating_mul(1000).saturating_add(i64::from(duration.subsec_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_j28_the_guard_never_stands_still_and_never_goes_back() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let base = 1_700_000_000_000;
        let clock = SystemClock::starting(base, start);
        assert_eq!(clock.guarded(at(10), || base + 10_000), base + 10_000);
        // An hour back: from here on the monotonic clock counts.
        assert_eq!(clock.guarded(at(20), || base + 20_000 - 3_600_000), base + 20_000);
        assert!(clock.held() > Duration::from_secs(3500));
        assert!(clock.guarded(at(30), || base + 30_000 - 3_600_000) >= base + 29_990);
        // Forward is followed, and small steps back are the wall clock's own business.
        assert_eq!(clock.guarded(at(40), || base + 90_000), base + 90_000);
        assert_eq!(clock.guarded(at(41), || base + 89_000), base + 89_000);
        assert_eq!(clock.held(), Duration::ZERO);
    }

    /// Between two looks the clock goes on; a jump of the wall clock, either way, is seen at the next one.
    #[test]
    fn sec_j28_a_jump_is_seen_within_a_tenth_of_a_second() {
        let (start, base) = (Instant::now(), 1_700_000_000_000);
        let at = |millis: u64| start + Duration::from_millis(millis);
        for (jump, seen, after) in [(3_600_000, 3_600_000, 3_600_000), (-2_000, -2_000, 0), (-6_000, 0, 0)] {
            let clock = SystemClock::starting(base, start);
            assert_eq!(clock.guarded(at(99), || unreachable!()), base + 99);
            assert_eq!(clock.guarded(at(100), || base + 100 + jump), base + 100 + seen, "{jump}");
            assert_eq!(clock.guarded(at(150), || unreachable!()), base + 150 + seen, "{jump}");
            assert_eq!(clock.guarded(at(200), || base + 200), base + 200 + after, "{jump}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MAX + Duration::from_secs(1), Timestamp::MAX);
        assert_eq!(Timestamp::from_millis(-1).as_secs(), -1);
        assert_eq!(Timestamp::from_millis(i64::MIN) - Duration::MAX, Timestamp::from_millis(i64::MIN));
    }
}
