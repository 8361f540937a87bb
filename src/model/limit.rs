//! Limits that decide: so many in a while, and the budget of wrong codes. Kept in the store, so all nodes
//! count together; judged by `now`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;

/// So many in any interval of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) limit: u32,
    pub(crate) window: Duration,
}

impl Quota {
    pub(crate) const fn new(limit: u32, window: Duration) -> Self {
        Self { limit, window }
    }
}

/// Not now: after this long, at the earliest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryAfter(pub(crate) Duration);

/// What was granted lately. One stamp a grant, so no interval ever holds more than the limit (row K03);
/// hence for limits of hundreds, not of millions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// In ascending order.
    granted: Vec<Timestamp>,
}

impl Window {
    /// Takes one, if any interval of length `window` still holds at most `limit`.
    ///
    /// # Errors
    /// How long to wait; nothing was taken.
    #[cfg(test)]
    pub(crate) fn try_take(
        &mut self,
        limit: u32,
        window: Duration,
        now: Timestamp,
    ) -> Result<(), RetryAfter> {
        self.try_take_all(&[Quota { limit, window }], now)
    }

    /// Takes one, if it is within all of the quotas.
    ///
    /// # Errors
    /// How long to wait until it would be; nothing was taken.
    pub(crate) fn try_take_all(&mut self, quotas: &[Quota], now: Timestamp) -> Result<(), RetryAfter> {
        // A clock that was put back doesn't make old grants younger, nor gives them anew.
        let at = self.granted.last().map_or(now, |last| now.max(*last));
        let wait = quotas.iter().filter_map(|quota| self.wait(*quota, at)).max();
        if let Some(until) = wait {
            return Err(RetryAfter(until.since(now)));
        }
        let longest = quotas.iter().map(|quota| quota.window).max().unwrap_or_default();
        self.granted.retain(|stamp| *stamp + longest >= at);
        self.granted.push(at);
        Ok(())
    }

    /// From when the record means nothing, if no quota has a longer window.
    pub(crate) fn expires_at(&self, longest: Duration) -> Timestamp {
        self.granted.last().map_or(Timestamp::EPOCH, |last| *last + longest + TICK)
    }

    /// When the quota would grant again, if it doesn't now. Both ends belong to the interval.
    fn wait(&self, quota: Quota, at: Timestamp) -> Option<Timestamp> {
        let Some(back) = usize::try_from(quota.limit).unwrap_or(usize::MAX).checked_sub(1) else {
            return Some(at + quota.window);
        };
        let oldest = *self.granted.iter().rev().nth(back)?;
        (oldest + quota.window >= at).then(|| oldest + quota.window + TICK)
    }
}

/// Wrong codes of one user and factor kind, or of one destination, over all sessions, flows, devices and
/// tenants (row O06): 10 in 15 min, then 15 min of rest; 100 in a row block the factor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Budget {
    /// Guesses since the last success or rest, at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    guesses: Vec<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rests_until: Option<Timestamp>,
    /// Guesses since the last success.
    #[serde(default)]
    in_a_row: u32,
}

/// No guess is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exhausted {
    /// After a rest there will be.
    Resting(RetryAfter),
    /// Until a recovery, another full factor or an administrator lifts it.
    Blocked,
}

impl Budget {
    pub(crate) const GUESSES: usize = 10;
    pub(crate) const WINDOW: Duration = Duration::from_secs(15 * 60);
    pub(crate) const REST: Duration = Duration::from_secs(15 * 60);
    pub(crate) const IN_A_ROW: u32 = 100;

    /// Takes a guess, before it is compared: commit this in the batch of the flow's own charge.
    ///
    /// # Errors
    /// If there is none; nothing was taken.
    pub(crate) fn reserve(&mut self, now: Timestamp) -> Result<(), Exhausted> {
        if self.is_blocked() {
            return Err(Exhausted::Blocked);
        }
        if let Some(until) = self.rests_until {
            if now <= until {
                return Err(Exhausted::Resting(RetryAfter((until + TICK).since(now))));
            }
            self.rests_until = None;
            self.guesses.clear();
        }
        let at = self.guesses.last().map_or(now, |last| now.max(*last));
        self.guesses.retain(|stamp| *stamp + Self::WINDOW >= at);
        self.guesses.push(at);
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.guesses.len() >= Self::GUESSES {
            self.rests_until = Some(at + Self::REST);
        }
        Ok(())
    }

    /// A code of this factor kind, sent to or made by what is bound to this user, was accepted. Nothing
    /// else resets the budget (row O07).
    pub(crate) fn succeed(&mut self) {
        *self = Self::default();
    }

    /// Whether no rest gives a guess any more.
    pub(crate) fn is_blocked(&self) -> bool {
        self.in_a_row >= Self::IN_A_ROW
    }

    /// Takes the block away, and nothing else: a rest goes on, and what was guessed lately still counts (rows
    /// O07, O34). Whether it was there.
    pub(crate) fn lift(&mut self) -> bool {
        let was = self.is_blocked();
        if was {
            self.in_a_row = 0;
        }
        was
    }

    /// Guesses since the last success: from the fifth on the user is told (row O35).
    #[cfg(test)]
    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// Whether guesses are refused for a while.
    pub(crate) fn is_resting(&self, now: Timestamp) -> bool {
        self.rests_until.is_some_and(|until| now <= until)
    }
}

/// The smallest step of a [`Timestamp`].
const TICK: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn most_in_an_interval(granted: &[i64], window: i64) -> usize {
        granted
            .iter()
            .map(|start| granted.iter().filter(|other| (*start..=start + window).contains(other)).count())
            .max()
            .unwrap_or(0)
    }

    proptest! {
        #[test]
        fn sec_k03_no_interval_holds_more_than_the_limit(
            steps in prop::collection::vec(0_i64..40, 1..200),
            limit in 1_u32..8,
            window in 1_i64..100,
        ) {
            let (mut record, mut now, mut granted) = (Window::default(), 0, Vec::new());
            let length = Duration::from_millis(window as u64);
            for step in steps {
                now += step;
                match record.try_take(limit, length, at(now)) {
                    Ok(()) => granted.push(now),
                    Err(RetryAfter(wait)) => {
                        // The wait is neither too short nor longer than need be.
                        let wait = wait.as_millis() as i64;
                        let mut later = record.clone();
                        prop_assert!(later.try_take(limit, length, at(now + wait - 1)).is_err());
                        prop_assert!(later.try_take(limit, length, at(now + wait)).is_ok());
                    }
                }
            }
            prop_assert!(most_in_an_interval(&granted, window) <= limit as usize);
            prop_assert!(record.granted.len() <= limit as usize);
        }

        #[test]
        fn sec_k03_a_clock_put_back_grants_nothing(
            times in prop::collection::vec(0_i64..100, 1..60),
            limit in 1_u32..5,
        ) {
            let mut record = Window::default();
            let granted = times.iter().filter(|now| record.try_take(limit, Duration::from_millis(100), at(**now)).is_ok());
            prop_assert!(granted.count() <= limit as usize);
        }

        #[test]
        fn sec_o06_never_more_than_ten_in_a_quarter_of_an_hour(
            steps in prop::collection::vec(0_i64..200_000, 1..300),
        ) {
            let (mut budget, mut now, mut granted) = (Budget::default(), 0, Vec::new());
            for step in steps {
                now += step;
                if budget.reserve(at(now)).is_ok() {
                    granted.push(now);
                }
                prop_assert!(budget.guesses.len() <= Budget::GUESSES);
            }
            prop_assert!(most_in_an_interval(&granted, 15 * 60 * 1000) <= 10);
            prop_assert!(granted.len() <= 100);
        }

        /// Row O07: the budget is a function of the history of this record alone, and only a success
        /// ever gives back.
        #[test]
        fn sec_o07_only_success_resets(steps in prop::collection::vec((0_i64..2_000_000, prop::bool::weighted(0.05)), 1..300)) {
            let (mut budget, mut now, mut row) = (Budget::default(), 0, 0);
            for (step, success) in steps {
                now += step;
                match budget.reserve(at(now)) {
                    Ok(()) if success => {
                        budget.succeed();
                        row = 0;
                    }
                    Ok(()) => row += 1,
                    Err(Exhausted::Blocked) => prop_assert_eq!(row, 100),
                    Err(Exhausted::Resting(_)) => prop_assert!(row < 100),
                }
                prop_assert_eq!(budget.in_a_row(), row);
            }
        }
    }

    #[test]
    fn several_quotas_hold_together() {
        let secs = Duration::from_secs;
        let quotas = [Quota::new(1, secs(30)), Quota::new(5, secs(3600)), Quota::new(10, secs(86_400))];
        let mut record = Window::default();
        let mut take = |now: i64| record.try_take_all(&quotas, Timestamp::from_secs(now));
        assert_eq!(take(0), Ok(()));
        assert_eq!(take(30), Err(RetryAfter(Duration::from_millis(1))));
        for now in [31, 62, 93, 124] {
            assert_eq!(take(now), Ok(()));
        }
        assert_eq!(take(200), Err(RetryAfter(secs(3400) + TICK)));
        for now in [3601, 3632, 3663, 3694, 3725] {
            assert_eq!(take(now), Ok(()));
        }
        assert_eq!(take(10_000), Err(RetryAfter(secs(76_400) + TICK)));
        assert_eq!(take(86_401), Ok(()));
        assert_eq!(record.granted.len(), 10);
        assert_eq!(record.expires_at(secs(86_400)), Timestamp::from_millis(172_801_001));
        assert!(Window::default().try_take(0, secs(1), Timestamp::EPOCH).is_err());
    }

    #[test]
    fn sec_o06_ten_then_a_rest_then_ten_and_a_block_after_a_hundred() {
        let (mut budget, quarter) = (Budget::default(), 15 * 60 * 1000);
        let mut now = 0;
        for round in 1..=10 {
            for _ in 0..10 {
                assert_eq!(budget.reserve(at(now)), Ok(()));
            }
            let refused = budget.reserve(at(now));
            if round == 10 {
                assert_eq!(refused, Err(Exhausted::Blocked));
                assert_eq!(budget.reserve(Timestamp::MAX), Err(Exhausted::Blocked));
                break;
            }
            assert_eq!(refused, Err(Exhausted::Resting(RetryAfter(Budget::REST + TICK))));
            assert!(budget.is_resting(at(now + quarter)));
            assert!(budget.reserve(at(now + quarter)).is_err());
            now += quarter + 1;
            assert!(!budget.is_resting(at(now)));
        }
        budget.succeed();
        assert_eq!(budget.reserve(at(now)), Ok(()));
        let stored = serde_json::to_value(&budget).unwrap();
        assert_eq!(serde_json::from_value::<Budget>(stored).unwrap(), budget);
    }

    #[test]
    fn sec_o34_a_lifted_block_gives_no_guess_before_its_time() {
        let (mut budget, mut now, mut guesses) = (Budget::default(), 0, 0);
        while !budget.is_blocked() {
            assert!(!budget.lift());
            match budget.reserve(at(now)) {
                Ok(()) => guesses += 1,
                Err(_) => now += 1000,
            }
        }
        assert_eq!(guesses, 100);
        assert!(budget.lift());
        assert!(matches!(budget.reserve(at(now)), Err(Exhausted::Resting(_))));
        now += 15 * 60 * 1000 + 1;
        for _ in 0..10 {
            assert_eq!(budget.reserve(at(now)), Ok(()));
        }
        assert!(budget.reserve(at(now)).is_err());
        assert_eq!(budget.in_a_row(), 10);
    }

    #[test]
    fn sec_o07_the_tenth_guess_may_be_right() {
        let mut budget = Budget::default();
        for _ in 0..10 {
            budget.reserve(at(0)).unwrap();
        }
        budget.succeed();
        assert_eq!(budget.reserve(at(0)), Ok(()));
        assert_eq!(budget.in_a_row(), 1);
    }
}
