//! Counts of what is too many for a stamp each: by slots of time, in lanes, so that no record is written by
//! everybody.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limit::{Quota, RetryAfter};
use crate::base::time::Timestamp;

/// A window is counted in so many slots.
const SLOTS: i64 = 60;

/// How many there were, by slots of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Slot and count, in ascending order.
    slots: Vec<(i64, u32)>,
}

impl Tally {
    /// Counts one.
    pub(crate) fn add(&mut self, window: Duration, now: Timestamp) {
        let (oldest, slot) = (oldest(window, now), slot(window, now));
        self.slots.retain(|(at, _)| *at >= oldest);
        match self.slots.binary_search_by_key(&slot, |(at, _)| *at) {
            Ok(place) => {
                if let Some((_, count)) = self.slots.get_mut(place) {
                    *count = count.saturating_add(1);
                }
            }
            Err(place) => self.slots.insert(place, (slot, 1)),
        }
    }

    /// How many there were within the window that ends now: none too few, and at most those of one slot too
    /// many. What a clock that was put back left in the future counts.
    pub(crate) fn within(&self, window: Duration, now: Timestamp) -> u64 {
        let oldest = oldest(window, now);
        self.slots.iter().filter(|(at, _)| *at >= oldest).map(|(_, count)| u64::from(*count)).sum()
    }

    /// When the first of what counts now does so no more.
    fn wait(&self, window: Duration, now: Timestamp) -> RetryAfter {
        let oldest = oldest(window, now);
        let first = self.slots.iter().map(|(at, _)| *at).find(|at| *at >= oldest).unwrap_or(oldest);
        let end = Timestamp::from_millis(first.saturating_add(1).saturating_mul(length(window))) + window;
        RetryAfter(end.since(now))
    }
}

/// Of each lane of a quota: takes one from the first that has room, beginning with `from`; its number.
///
/// The lanes' shares add up to the quota and each holds by itself, so together they hold, whoever writes which at
/// the same time.
///
/// # Errors
/// How long to wait until a lane has room; nothing was taken.
pub(crate) fn take(
    lanes: &mut [Tally],
    quota: Quota,
    from: usize,
    now: Timestamp,
) -> Result<usize, RetryAfter> {
    let many = lanes.len();
    let mut least: Option<RetryAfter> = None;
    for lane in (0..many).map(|n| (from % many + n) % many) {
        let share = share(quota.limit, lane, many);
        let Some(tally) = lanes.get_mut(lane).filter(|_| share > 0) else { continue };
        if tally.within(quota.window, now) < share {
            tally.add(quota.window, now);
            return Ok(lane);
        }
        let wait = tally.wait(quota.window, now);
        least = Some(least.map_or(wait, |least| RetryAfter(least.0.min(wait.0))));
    }
    Err(least.unwrap_or(RetryAfter(quota.window)))
}

/// How many lanes a quota has: few grants need none to themselves.
pub(crate) fn lanes(limit: u32) -> usize {
    usize::try_from(limit / 16).unwrap_or(LANES).clamp(1, LANES)
}

/// The most lanes there are.
pub(crate) const LANES: usize = 8;

fn share(limit: u32, lane: usize, lanes: usize) -> u64 {
    let (limit, lane, lanes) = (u64::from(limit), lane as u64, (lanes as u64).max(1));
    limit / lanes + u64::from(lane < limit % lanes)
}

fn length(window: Duration) -> i64 {
    i64::try_from(window.as_millis()).unwrap_or(i64::MAX).div_euclid(SLOTS).max(1)
}

fn slot(window: Duration, at: Timestamp) -> i64 {
    at.as_millis().div_euclid(length(window))
}

fn oldest(window: Duration, now: Timestamp) -> i64 {
    slot(window, now - window)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    proptest! {
        /// Row K03, for counts: any interval of the window's length has at most the quota, however many lanes.
        #[test]
        fn sec_k03_no_interval_holds_more_than_the_lanes_grant(
            steps in prop::collection::vec((0_i64..400, 0_usize..8), 1..200),
            limit in 1_u32..40,
            many in 1_usize..8,
        ) {
            let (window, mut now, mut granted) = (Duration::from_millis(1200), 0, Vec::new());
            let mut lanes = vec![Tally::default(); many];
            for (step, from) in steps {
                now += step;
                match take(&mut lanes, Quota::new(limit, window), from, at(now)) {
                    Ok(_) => granted.push(now),
                    // Whoever waits as long as told gets one.
                    Err(RetryAfter(wait)) => {
                        let later = at(now) + wait;
                        prop_assert!(take(&mut lanes.clone(), Quota::new(limit, window), from, later).is_ok());
                    }
                }
            }
            for start in &granted {
                let within = granted.iter().filter(|other| (*start..=start + 1200).contains(other)).count();
                prop_assert!(within <= limit as usize, "{within} of {limit}");
            }
            prop_assert!(lanes.iter().all(|lane| lane.slots.len() <= SLOTS as usize + 2));
        }
    }

    #[test]
    fn all_of_a_quota_is_to_be_had() {
        for (limit, many) in [(1, 1), (15, 1), (16, 1), (32, 2), (100, 6), (1000, 8), (u32::MAX, 8)] {
            assert_eq!(lanes(limit), many, "{limit}");
            let shares: u64 = (0..many).map(|lane| share(limit, lane, many)).sum();
            assert_eq!(shares, u64::from(limit));
        }
        let mut lanes = vec![Tally::default(); lanes(100)];
        let quota = Quota::new(100, HOUR);
        for n in 0..100 {
            take(&mut lanes, quota, n * 7, at(0)).unwrap();
        }
        take(&mut lanes, quota, 0, at(0)).unwrap_err();
    }

    #[test]
    fn what_is_over_counts_no_more() {
        let mut tally = Tally::default();
        tally.add(HOUR, at(0));
        tally.add(HOUR, at(30_000));
        tally.add(HOUR, at(90_000));
        let stored = serde_json::to_value(&tally).unwrap();
        assert_eq!(serde_json::from_value::<Tally>(stored).unwrap(), tally);
        for (now, count) in [(90_000, 3), (3_600_000, 3), (3_659_999, 3), (3_660_000, 1), (3_720_000, 0)] {
            assert_eq!(tally.within(HOUR, at(now)), count, "{now}");
        }
        // A clock put back gives nothing anew.
        assert_eq!(tally.within(HOUR, at(-7_200_000)), 3);
    }
}
