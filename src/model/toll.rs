//! SMS pumping: numbers of a range that pays its owner get codes which nobody enters (row O28). Codes sent and
//! codes used are counted by country, and of too few used follows a stop.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tally::Tally;
use crate::base::time::Timestamp;

/// Over how long it is judged.
pub(crate) const WINDOW: Duration = Duration::from_secs(3600);

/// A lane of a country's counts. Which lane one is counted in doesn't matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    sent: Tally,
    used: Tally,
}

impl Traffic {
    pub(crate) fn sent(&mut self, now: Timestamp) {
        self.sent.add(WINDOW, now);
    }

    pub(crate) fn used(&mut self, now: Timestamp) {
        self.used.add(WINDOW, now);
    }
}

/// Whether so few codes are used that people can't be who asked for them: less than `percent` in a hundred, of
/// `least` or more.
pub(crate) fn is_pumped<'a>(
    lanes: impl IntoIterator<Item = &'a Traffic>,
    least: u32,
    percent: u32,
    now: Timestamp,
) -> bool {
    let (mut sent, mut used) = (0_u64, 0_u64);
    for lane in lanes {
        sent = sent.saturating_add(lane.sent.within(WINDOW, now));
        used = used.saturating_add(lane.used.within(WINDOW, now));
    }
    sent >= u64::from(least) && used.saturating_mul(100) < sent.saturating_mul(percent.into())
}

/// Nothing is sent to the country until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stop {
    pub(crate) until: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn sec_o28_fewer_than_a_tenth_of_a_hundred() {
        // Sent, used, whether that is pumping.
        let table = [
            (0, 0, false),
            (99, 0, false),
            (100, 0, true),
            (100, 9, true),
            (100, 10, false),
            (101, 10, true),
            (110, 11, false),
            (1000, 99, true),
            (1000, 100, false),
        ];
        for (sent, used, pumped) in table {
            let mut lanes = vec![Traffic::default(); 3];
            (0..sent).for_each(|n| lanes[n % 3].sent(at(n as i64)));
            (0..used).for_each(|n| lanes[(n + 1) % 3].used(at(n as i64)));
            assert_eq!(is_pumped(&lanes, 100, 10, at(1000)), pumped, "{sent} {used}");
            // An hour later, and a minute for the slot, it is as if nothing was sent.
            assert!(!is_pumped(&lanes, 100, 10, at(3600 + 1000 + 60)));
        }
    }

    #[test]
    fn sec_o28_what_was_used_long_ago_excuses_nothing() {
        let mut lane = Traffic::default();
        (0..1000).for_each(|_| lane.used(at(0)));
        (0..100).for_each(|_| lane.sent(at(3700)));
        assert!(is_pumped([&lane], 100, 10, at(3700)));
        let stored = serde_json::to_value(&lane).unwrap();
        assert_eq!(serde_json::from_value::<Traffic>(stored).unwrap(), lane);
    }
}
