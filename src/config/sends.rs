//! How many messages may be sent (`spec/security.md` 0.2, rows O27, O28).

use std::time::Duration;

use crate::model::limit::Quota;

/// How many messages with a code or a link may be sent, over all routes that send one. A code that is used gives
/// nothing back.
///
/// Beyond a limit nothing is sent. A session's own user is told so; anybody else gets the answer that they would
/// have got, so that limits tell nobody whose address it is.
///
/// ```
/// use tower_mfa::config::SendLimits;
/// let mut limits = SendLimits::default();
/// limits.in_tenant = Some(5_000); // what a tenant pays for
/// # fn build(builder: tower_mfa::MfaBuilder, limits: SendLimits) -> tower_mfa::MfaBuilder {
/// builder.send_limits(limits)
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendLimits {
    /// Between two messages to one destination. 30 s.
    pub gap: Duration,
    /// To one destination in an hour. 5.
    pub to_destination_in_an_hour: u32,
    /// To one destination in a day. 10.
    pub to_destination_in_a_day: u32,
    /// For one user's sessions, in an hour. 10.
    pub by_user: u32,
    /// For one address, an IPv6 one by its /64, in an hour. 20. Only where the app says who sends a request
    /// ([`MfaBuilder::peer`](crate::MfaBuilder::peer)). Calls beyond it leave nothing in the store.
    pub from_address: u32,
    /// In each tenant, in an hour. Without a limit, as nobody but the app knows how large a tenant is; it is also
    /// what bounds how much strangers can make the store hold where addresses aren't known.
    pub in_tenant: Option<u32>,
    /// By SMS to one range of a thousand numbers, in an hour. 30.
    pub to_range: u32,
    /// From how many codes on, sent by SMS to one country within an hour, it is judged whether people use them. 100.
    /// People need a moment to enter one: an app that begins an hour, or goes on after
    /// [`Sends::resume`](crate::account::Sends::resume), with several a second sets it higher.
    pub judged_from: u32,
    /// The part of them that must be used, in percent: below that nothing more is sent to the country, and the
    /// audit sink hears of it ([`Audited::SendingStopped`](crate::hooks::Audited)). 10.
    pub least_used: u32,
    /// How long nothing is sent there, unless [`Sends::resume`](crate::account::Sends::resume) ends it. 6 h, at
    /// least one: what was sent before counts no more then.
    pub stop: Duration,
}

impl Default for SendLimits {
    fn default() -> Self {
        Self {
            gap: Duration::from_secs(30),
            to_destination_in_an_hour: 5,
            to_destination_in_a_day: 10,
            by_user: 10,
            from_address: 20,
            in_tenant: None,
            to_range: 30,
            judged_from: 100,
            least_used: 10,
            stop: Duration::from_secs(6 * 3600),
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A limit of which every grant is kept.
const MOST: u32 = 1000;

impl SendLimits {
    pub(crate) fn to_destination(&self) -> Vec<Quota> {
        let gap = Some(Quota::new(1, self.gap)).filter(|_| !self.gap.is_zero());
        let rest =
            [Quota::new(self.to_destination_in_an_hour, HOUR), Quota::new(self.to_destination_in_a_day, DAY)];
        gap.into_iter().chain(rest).collect()
    }

    pub(crate) fn hourly(limit: u32) -> Quota {
        Quota::new(limit, HOUR)
    }

    /// What can't be served, a sentence each, for the builder to report.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut ask = |fits: bool, problem: &str| {
            if !fits {
                problems.push(problem.to_owned());
            }
        };
        ask(self.gap <= DAY, "the gap between two messages is a day at most");
        let kept = [
            self.to_destination_in_an_hour,
            self.to_destination_in_a_day,
            self.by_user,
            self.from_address,
            self.to_range,
        ];
        ask(
            kept.iter().all(|limit| (1..=MOST).contains(limit)),
            "a limit of sends to a destination or range, by a user or from an address is 1 to 1000",
        );
        ask(self.in_tenant != Some(0), "a tenant's limit of sends is at least 1");
        ask(self.judged_from > 0, "a country is judged from 1 code on, or more");
        ask(self.least_used <= 100, "the part of codes that must be used is 100 percent at most");
        ask(
            (HOUR..=30 * DAY).contains(&self.stop),
            "sending to a country stops for an hour at least and 30 days at most",
        );
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_cannot_be_kept_are_told() {
        assert_eq!(SendLimits::default().problems(), Vec::<String>::new());
        let bad = SendLimits {
            gap: DAY * 2,
            to_destination_in_an_hour: 0,
            to_destination_in_a_day: 1,
            by_user: 1001,
            from_address: 1,
            in_tenant: Some(0),
            to_range: 1,
            judged_from: 0,
            least_used: 101,
            stop: HOUR / 2,
        };
        assert_eq!(bad.problems().len(), 6);
        let none = SendLimits { gap: Duration::ZERO, ..SendLimits::default() };
        assert_eq!((none.to_destination().len(), SendLimits::default().to_destination().len()), (2, 3));
    }
}
