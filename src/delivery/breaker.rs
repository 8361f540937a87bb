//! A circuit breaker: who failed ten times in a row is left alone for half a minute (row V02).

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::base::time::Timestamp;

const IN_A_ROW: u32 = 10;
const OPEN: Duration = Duration::from_secs(30);

/// Judged by the time that it is handed.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Timestamp>,
}

impl Breaker {
    /// Whether a try may be made. When the rest is over one try is, and until its end no other.
    pub(super) fn admits(&self, now: Timestamp) -> bool {
        let mut state = self.state();
        match state.open_until {
            Some(until) if now < until => false,
            Some(_) => {
                state.open_until = Some(now + OPEN);
                true
            }
            None => true,
        }
    }

    /// Until when nothing is tried, if so.
    pub(super) fn rests_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.state().open_until.filter(|until| now < *until)
    }

    /// A try reached the provider, whatever its answer was.
    pub(super) fn reached(&self) {
        *self.state() = State::default();
    }

    /// A try didn't. Says whether that opened the circuit.
    pub(super) fn failed(&self, now: Timestamp) -> bool {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        let opens = state.failures >= IN_A_ROW;
        if opens {
            state.open_until = Some(now + OPEN);
        }
        opens
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn sec_v02_ten_failures_in_a_row_are_thirty_seconds_of_rest() {
        let breaker = Breaker::default();
        for n in 0..9 {
            assert!(breaker.admits(at(n)) && !breaker.failed(at(n)));
        }
        breaker.reached();
        for n in 0..9 {
            assert!(breaker.admits(at(n)) && !breaker.failed(at(n)), "the count began anew");
        }
        assert!(breaker.failed(at(9)));
        assert_eq!(breaker.rests_until(at(10)), Some(at(39)));
        assert!(!breaker.admits(at(38)));
        // One try finds out, the others wait for what it finds.
        assert!(breaker.admits(at(39)) && !breaker.admits(at(39)));
        assert!(breaker.failed(at(40)) && !breaker.admits(at(69)));
        assert!(breaker.admits(at(70)));
        breaker.reached();
        assert!(breaker.admits(at(70)) && breaker.rests_until(at(70)).is_none());
    }
}
