//! Notices to send: a transactional outbox. A notice is committed with what it is about (row V01); one node
//! at a time holds a lease on it and sends; a node that dies leaves a lease that ends (row V04).

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::base::{ident::TenantId, time::Timestamp};

/// A notice that waits, sealed (row V05): every try sends the same code (row V03).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Queued {
    pub(crate) tenant: TenantId,
    /// The process that made it, and sends it unless its lease ends first.
    pub(crate) maker: String,
    /// The sealed text of `Notice::to_sealed_form`.
    pub(crate) sealed: String,
    /// By what it leaves: what can be told of it without opening it.
    #[serde(default)]
    pub(crate) channel: Channel,
    pub(crate) created_at: Timestamp,
    /// Until then it is someone's, or it waits for its next try.
    pub(crate) lease_until: Timestamp,
    /// Tries that were begun.
    pub(crate) tries: u32,
    /// When what it carries is worth nothing any more.
    pub(crate) expires_at: Timestamp,
}

/// By what a notice leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Channel {
    #[default]
    Mail,
    Sms,
}

/// What a worker finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Take {
    /// Now leased: commit that, then send.
    Leased,
    /// Someone else's, or its time hasn't come: look again then.
    Later(Timestamp),
    /// Too old, or tried too often: delete it and say that delivery failed.
    GiveUp,
}

/// What follows a try that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Failed {
    /// To be taken again from then on: commit that.
    RetryAt(Timestamp),
    /// Delete it and say that delivery failed.
    GiveUp,
}

impl Queued {
    /// Longer than a try may take (15 s, row V02), so a lease ends only when its holder did.
    pub(crate) const LEASE: Duration = Duration::from_secs(30);
    pub(crate) const TRIES: u32 = 5;

    /// A new one, leased to the process `maker`.
    pub(crate) fn new(
        tenant: TenantId,
        maker: &str,
        sealed: String,
        channel: Channel,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Self {
        let (maker, lease_until) = (maker.to_owned(), now + Self::LEASE);
        Self { tenant, maker, sealed, channel, created_at: now, lease_until, tries: 0, expires_at }
    }

    /// The record outlives what it carries, so that whoever gives it up can say so.
    pub(crate) fn kept_until(&self) -> Timestamp {
        self.expires_at + Duration::from_secs(900)
    }

    /// Whether the process `taker` may lease it: its maker at once, others when it was left.
    pub(crate) fn is_due(&self, taker: &str, now: Timestamp) -> bool {
        now >= self.lease_until || (self.tries == 0 && self.maker == taker)
    }

    /// Leases it to the process `taker`, if it is due and still worth a try.
    pub(crate) fn take(&mut self, taker: &str, now: Timestamp) -> Take {
        if !self.is_due(taker, now) {
            return Take::Later(self.lease_until);
        }
        if now >= self.expires_at || self.tries >= Self::TRIES {
            return Take::GiveUp;
        }
        self.tries = self.tries.saturating_add(1);
        self.lease_until = now + Self::LEASE;
        Take::Leased
    }

    /// Its maker leaves and didn't begin with it: anybody may take it now. `false` if there is nothing to give back.
    #[must_use]
    pub(crate) fn give_back(&mut self, maker: &str, now: Timestamp) -> bool {
        let waits = self.maker == maker && self.tries == 0 && self.lease_until > now;
        if waits {
            self.lease_until = now;
        }
        waits
    }

    /// Puts it back after a try that failed, unless another would be in vain.
    pub(crate) fn fail(&mut self, permanent: bool, now: Timestamp) -> Failed {
        let next = now + backoff(self.tries);
        if permanent || self.tries >= Self::TRIES || next >= self.expires_at {
            return Failed::GiveUp;
        }
        self.lease_until = next;
        Failed::RetryAt(next)
    }
}

/// The lines around it say enough; the text is long, and sealed for a reason.
impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queued")
            .field("tenant", &self.tenant)
            .field("lease_until", &self.lease_until)
            .field("tries", &self.tries)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// 2, 8, 32, 128 seconds.
fn backoff(tries: u32) -> Duration {
    Duration::from_secs(2_u64.saturating_mul(4_u64.saturating_pow(tries.saturating_sub(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn queued() -> Queued {
        Queued::new(TenantId::PUBLIC, "me", "sealed".to_owned(), Channel::Mail, at(0), at(600))
    }

    #[test]
    fn sec_v02_five_tries_with_backoff() {
        let (mut entry, mut now) = (queued(), 0);
        for wait in [2, 8, 32, 128] {
            assert_eq!(entry.take("me", at(now)), Take::Leased);
            assert_eq!(entry.fail(false, at(now)), Failed::RetryAt(at(now + wait)));
            assert_eq!(entry.take("me", at(now + wait - 1)), Take::Later(at(now + wait)));
            now += wait;
        }
        assert_eq!(entry.take("me", at(now)), Take::Leased);
        assert_eq!(entry.fail(false, at(now)), Failed::GiveUp);
    }

    #[test]
    fn sec_v02_not_past_expiry_and_not_in_vain() {
        let mut entry = queued();
        assert_eq!(entry.take("me", at(599)), Take::Leased);
        assert_eq!(entry.fail(false, at(599)), Failed::GiveUp);
        assert_eq!(queued().take("me", at(600)), Take::GiveUp);
        let mut entry = queued();
        assert_eq!(entry.take("me", at(0)), Take::Leased);
        assert_eq!(entry.fail(true, at(1)), Failed::GiveUp);
    }

    #[test]
    fn sec_v04_a_dead_workers_lease_ends() {
        let mut entry = queued();
        assert_eq!(entry.take("me", at(0)), Take::Leased);
        assert_eq!(entry.take("me", at(29)), Take::Later(at(30)));
        assert_eq!(entry.take("me", at(30)), Take::Leased);
        for now in [60, 90, 120] {
            assert_eq!(entry.take("me", at(now)), Take::Leased);
        }
        // Five workers died with it: perhaps it kills them.
        assert_eq!(entry.take("me", at(150)), Take::GiveUp);
        let stored = serde_json::to_value(&entry).unwrap();
        assert_eq!(serde_json::from_value::<Queued>(stored).unwrap(), entry);
        assert!(!format!("{entry:?}").contains("sealed"));
    }

    #[test]
    fn sec_v04_others_step_in_only_when_the_makers_lease_ended() {
        assert_eq!(queued().take("you", at(29)), Take::Later(at(30)));
        assert_eq!(queued().take("you", at(30)), Take::Leased);
        let mut entry = queued();
        assert_eq!(entry.take("me", at(29)), Take::Leased);
        assert_eq!(entry.take("you", at(58)), Take::Later(at(59)));
    }

    #[test]
    fn sec_v04_who_leaves_gives_back_what_was_not_begun() {
        let mut entry = queued();
        assert!(!entry.give_back("you", at(1)) && entry.give_back("me", at(1)));
        assert_eq!(entry.take("you", at(1)), Take::Leased);
        assert!(!entry.give_back("me", at(2)), "it was begun");
    }
}
