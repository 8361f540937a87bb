//! What the change feed said, in memory: is this session revoked, must it be judged anew? (Design,
//! part 5, last life.)
//!
//! Numbers decide, never times: a token carries what the app's, the tenant's, the user's and the
//! session's numbers were when it was minted, and a change names the first number it does not concern.
//! Times only say when an entry can be forgotten, and whether the reading of the feed can be relied on.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic::AtomicU64},
    time::{Duration, Instant},
};

use crate::{
    base::{
        ident::{SessionHandle, TenantId, UserId},
        time::Timestamp,
    },
    model::{
        change::{Change, ChangeKind, Subject},
        epoch::Epochs,
    },
};

/// A token, as far as the feed can say something of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbered<'a> {
    pub(crate) numbers: &'a Epochs,
    pub(crate) user: &'a UserId,
    pub(crate) tenant: &'a TenantId,
    pub(crate) session: &'a SessionHandle,
}

/// What the feed says of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Verdict {
    /// Nothing against it.
    Current,
    /// Dead; no refresh helps.
    Revoked,
    /// Its claims are out of date.
    JudgeAnew,
    /// More changed than is kept here: the store must be asked (row K04).
    AskStore,
}

/// Whether the feed's silence means anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Freshness {
    /// Read completely, not long ago.
    Fresh,
    /// The last complete read began too long ago.
    Stale,
    /// This process never read it.
    Never,
}

/// The last complete read may have begun this long ago.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(3);
/// Most subjects kept, beside the app (row K04).
pub(crate) const MOST: usize = 100_000;
/// Clocks differ: entries stay this much longer than the tokens they concern.
const MARGIN: Duration = Duration::from_secs(60);

/// What became of reading the feed, since the start.
#[derive(Debug, Default)]
pub(crate) struct FeedCounts {
    pub(crate) reads: AtomicU64,
    pub(crate) failures: AtomicU64,
    /// Requests that were judged by a feed too old to be relied on.
    pub(crate) served_stale: AtomicU64,
    /// Requests that were refused because of it.
    pub(crate) refused_stale: AtomicU64,
    /// Changes that found no room (row K04).
    pub(crate) overruns: AtomicU64,
}

/// The feed as this process knows it.
#[derive(Default)]
pub(crate) struct Feed(RwLock<Known>);

#[derive(Default)]
struct Known {
    app: Marks,
    tenants: HashMap<TenantId, Marks>,
    users: HashMap<UserId, Marks>,
    sessions: HashMap<SessionHandle, Marks>,
    /// Every entry of the three maps by the end of its use.
    ends: BTreeSet<(Timestamp, Subject)>,
    /// Changes that found no room concern tokens until then.
    lost_until: Option<Timestamp>,
    /// Until when the last complete read can be relied on.
    relied: Option<(Instant, Timestamp)>,
}

/// Tokens with a number lower than these are concerned.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    revoked: u64,
    anew: u64,
    /// No token that is concerned lives longer.
    until: Timestamp,
}

/// The feed as it is read from its beginning.
#[derive(Default)]
pub(crate) struct Anew(Known);

impl Anew {
    /// As [`Feed::fold`].
    pub(crate) fn fold(&mut self, change: &Change, token_life: Duration, now: Timestamp) -> bool {
        self.0.fold(change, token_life, now)
    }
}

impl Feed {
    /// Takes in one change; again does no harm. `token_life` is that of the longest access token. `false`: it
    /// found no room, and the store is asked instead.
    pub(crate) fn fold(&self, change: &Change, token_life: Duration, now: Timestamp) -> bool {
        let mut known = self.write();
        known.forget(now);
        known.fold(change, token_life, now)
    }

    /// Starts over with what was read from the beginning: nothing that was known before is kept.
    pub(crate) fn take_over(&self, anew: Anew) {
        let mut known = self.write();
        let relied = known.relied;
        *known = Known { relied, ..anew.0 };
    }

    /// What is known against a token with these numbers, and how far silence can be relied on.
    #[inline(always)]
    pub(crate) fn judge(
        &self,
        token: &Numbered<'_>,
        instant: Instant,
        now: Timestamp,
    ) -> (Verdict, Freshness) {
        let known = self.read();
        (known.verdict(token, now), known.freshness(instant, now))
    }

    /// A complete read of the feed that *began* then has been folded in.
    pub(crate) fn was_read(&self, began: Instant, began_at: Timestamp) {
        let mut known = self.write();
        known.forget(began_at);
        // Two reads may overlap and end in any order: the later beginning counts.
        let until = (began + STALE_AFTER, began_at + STALE_AFTER);
        if known.relied.is_none_or(|(last, _)| last <= until.0) {
            known.relied = Some(until);
        }
    }

    /// How far the feed's silence can be relied on.
    #[inline]
    pub(crate) fn freshness(&self, instant: Instant, now: Timestamp) -> Freshness {
        self.read().freshness(instant, now)
    }

    /// How many subjects are kept.
    pub(crate) fn len(&self) -> usize {
        self.read().ends.len()
    }

    /// Whether the store is being asked because there was no room for all that changed.
    #[cfg(test)]
    pub(crate) fn is_overrun(&self, now: Timestamp) -> bool {
        self.read().lost_until.is_some_and(|until| now <= until)
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    #[inline(always)]
    fn verdict(&self, token: &Numbered<'_>, now: Timestamp) -> Verdict {
        let numbers = token.numbers;
        let (mut revoked, mut anew) = (numbers.app < self.app.revoked, numbers.app < self.app.anew);
        if !self.ends.is_empty() {
            let marks = [
                (self.tenants.get(token.tenant), numbers.tenant),
                (self.users.get(token.user), numbers.user),
                (self.sessions.get(token.session), numbers.session),
            ];
            for (marks, number) in marks {
                revoked |= marks.is_some_and(|marks| number < marks.revoked);
                anew |= marks.is_some_and(|marks| number < marks.anew);
            }
        }
        if revoked {
            Verdict::Revoked
        } else if self.lost_until.is_some_and(|until| now <= until) {
            Verdict::AskStore
        } else if anew {
            Verdict::JudgeAnew
        } else {
            Verdict::Current
        }
    }

    /// The monotonic clock may have slept with the machine and the wall clock may have been set: whichever
    /// says more counts.
    #[inline(always)]
    fn freshness(&self, instant: Instant, now: Timestamp) -> Freshness {
        match self.relied {
            None => Freshness::Never,
            Some((until, until_at)) if instant > until || now > until_at => Freshness::Stale,
            Some(_) => Freshness::Fresh,
        }
    }

    fn fold(&mut self, change: &Change, token_life: Duration, now: Timestamp) -> bool {
        // A stamp behind our clock must not end an entry early.
        let until = change.at.max(now) + token_life + MARGIN;
        let full = self.ends.len() >= MOST;
        let marks = match &change.subject {
            Subject::App => Some(&mut self.app),
            Subject::Tenant(id) => slot(&mut self.tenants, id, full),
            Subject::User(id) => slot(&mut self.users, id, full),
            Subject::Session(id) => slot(&mut self.sessions, id, full),
        };
        let Some(marks) = marks else {
            self.lost_until = self.lost_until.max(Some(until));
            return false;
        };
        match change.kind {
            ChangeKind::Revoked => marks.revoked = marks.revoked.max(change.n),
            ChangeKind::JudgeAnew => marks.anew = marks.anew.max(change.n),
            // No token is concerned: whoever reads the feed reads the keys.
            ChangeKind::Keys => {}
        }
        let (former, until) = (marks.until, until.max(marks.until));
        marks.until = until;
        // The app's is one entry and stays: its numbers are right for ever.
        if change.subject != Subject::App {
            self.ends.remove(&(former, change.subject.clone()));
            self.ends.insert((until, change.subject.clone()));
        }
        true
    }

    /// Drops what can concern no token any more.
    fn forget(&mut self, now: Timestamp) {
        while self.ends.first().is_some_and(|(until, _)| *until < now) {
            match self.ends.pop_first() {
                Some((_, Subject::Tenant(id))) => drop(self.tenants.remove(&id)),
                Some((_, Subject::User(id))) => drop(self.users.remove(&id)),
                Some((_, Subject::Session(id))) => drop(self.sessions.remove(&id)),
                Some((_, Subject::App)) | None => {}
            }
        }
        self.lost_until = self.lost_until.filter(|until| now <= *until);
    }
}

/// How much is known, not of whom.
impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("subjects", &self.len()).finish_non_exhaustive()
    }
}

fn slot<'m, K: Clone + Eq + std::hash::Hash>(
    map: &'m mut HashMap<K, Marks>,
    id: &K,
    full: bool,
) -> Option<&'m mut Marks> {
    if full { map.get_mut(id) } else { Some(map.entry(id.clone()).or_default()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIFE: Duration = Duration::from_secs(3600);
    const START: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn tenant(id: &str) -> TenantId {
        TenantId::parse(id).unwrap()
    }

    fn handle(n: u64) -> SessionHandle {
        SessionHandle::parse(&format!("00000000-0000-4000-8000-{n:012x}")).unwrap()
    }

    fn change(subject: Subject, n: u64, kind: ChangeKind) -> Change {
        Change { subject, n, kind, at: START }
    }

    fn numbers(app: u64, tenant: u64, user: u64, session: u64) -> Epochs {
        Epochs { app, tenant, user, session }
    }

    fn verdict(feed: &Feed, epochs: Epochs, now: Timestamp) -> Verdict {
        let (user, tenant, session) = (&user("u"), &tenant("t"), &handle(1));
        feed.judge(&Numbered { numbers: &epochs, user, tenant, session }, Instant::now(), now).0
    }

    #[test]
    fn sec_s08_lower_than_the_number_is_concerned() {
        use ChangeKind::{JudgeAnew, Revoked};
        for (subject, below, at) in [
            (Subject::App, numbers(4, 9, 9, 9), numbers(5, 0, 0, 0)),
            (Subject::Tenant(tenant("t")), numbers(9, 4, 9, 9), numbers(0, 5, 0, 0)),
            (Subject::User(user("u")), numbers(9, 9, 4, 9), numbers(0, 0, 5, 0)),
            (Subject::Session(handle(1)), numbers(9, 9, 9, 4), numbers(0, 0, 0, 5)),
        ] {
            for (kind, expected) in [(Revoked, Verdict::Revoked), (JudgeAnew, Verdict::JudgeAnew)] {
                let feed = Feed::default();
                feed.fold(&change(subject.clone(), 5, kind), LIFE, START);
                // An older change that comes late, and one that comes twice, move nothing back.
                feed.fold(&change(subject.clone(), 3, kind), LIFE, START);
                feed.fold(&change(subject.clone(), 5, kind), LIFE, START);
                assert_eq!(verdict(&feed, below, START), expected, "{subject:?}");
                assert_eq!(verdict(&feed, at, START), Verdict::Current, "{subject:?}");
            }
        }
        let feed = Feed::default();
        for subject in [Subject::Tenant(tenant("x")), Subject::User(user("x")), Subject::Session(handle(2))] {
            feed.fold(&change(subject, 5, Revoked), LIFE, START);
        }
        assert_eq!(verdict(&feed, numbers(0, 0, 0, 0), START), Verdict::Current);
        // Both at once: revoked wins.
        feed.fold(&change(Subject::User(user("u")), 5, JudgeAnew), LIFE, START);
        feed.fold(&change(Subject::Tenant(tenant("t")), 5, Revoked), LIFE, START);
        assert_eq!(verdict(&feed, numbers(0, 0, 0, 0), START), Verdict::Revoked);
        assert_eq!(verdict(&feed, numbers(0, 5, 0, 0), START), Verdict::JudgeAnew);
    }

    #[test]
    fn entries_go_with_the_tokens_they_concern() {
        let feed = Feed::default();
        feed.fold(&change(Subject::User(user("u")), 5, ChangeKind::Revoked), LIFE, START);
        let end = START + LIFE + MARGIN;
        let touch = |now| feed.fold(&change(Subject::App, 0, ChangeKind::Revoked), LIFE, now);
        touch(end);
        assert_eq!((feed.len(), verdict(&feed, numbers(0, 0, 4, 0), end)), (1, Verdict::Revoked));
        touch(end + Duration::from_millis(1));
        assert_eq!(feed.len(), 0);
        // A stamp from a clock that is behind doesn't shorten it, one ahead lengthens it.
        let late = START + 5 * LIFE;
        feed.fold(&change(Subject::User(user("u")), 5, ChangeKind::Revoked), LIFE, late);
        touch(late + LIFE);
        assert_eq!(feed.len(), 1);
        // Renewed, it lives on, as one entry.
        feed.fold(&change(Subject::User(user("u")), 6, ChangeKind::JudgeAnew), LIFE, late + LIFE);
        touch(late + LIFE + LIFE);
        assert_eq!((feed.len(), verdict(&feed, numbers(0, 0, 4, 0), late)), (1, Verdict::Revoked));
    }

    #[test]
    fn sec_k04_beyond_the_bound_the_store_is_asked_until_enough_fell_out() {
        let feed = Feed::default();
        for n in 0..MOST as u64 {
            feed.fold(&change(Subject::Session(handle(n)), 5, ChangeKind::Revoked), LIFE, START);
        }
        assert_eq!((feed.len(), feed.is_overrun(START)), (MOST, false));
        assert_eq!(verdict(&feed, numbers(0, 0, 0, 5), START), Verdict::Current);
        let later = START + Duration::from_secs(60);
        feed.fold(&change(Subject::User(user("y")), 5, ChangeKind::Revoked), LIFE, later);
        assert_eq!((feed.len(), feed.is_overrun(later)), (MOST, true));
        // What is known stays known, what is not is asked.
        assert_eq!(verdict(&feed, numbers(0, 0, 0, 4), later), Verdict::Revoked);
        assert_eq!(verdict(&feed, numbers(0, 0, 0, 5), later), Verdict::AskStore);
        feed.fold(&change(Subject::Session(handle(1)), 9, ChangeKind::Revoked), LIFE, later);
        feed.fold(&change(Subject::App, 2, ChangeKind::Revoked), LIFE, later);
        assert_eq!(verdict(&feed, numbers(2, 0, 0, 8), later), Verdict::Revoked);
        assert_eq!(verdict(&feed, numbers(1, 0, 0, 9), later), Verdict::Revoked);
        let end = later + LIFE + MARGIN;
        assert_eq!(verdict(&feed, numbers(2, 0, 0, 9), end), Verdict::AskStore);
        assert_eq!(verdict(&feed, numbers(2, 0, 0, 9), end + Duration::from_millis(1)), Verdict::Current);
        feed.fold(&change(Subject::App, 2, ChangeKind::Revoked), LIFE, end + Duration::from_millis(1));
        assert_eq!((feed.len(), feed.is_overrun(end)), (0, false));
    }

    #[test]
    fn sec_k02_stale_by_whichever_clock_says_more() {
        let (feed, instant) = (Feed::default(), Instant::now());
        let secs = Duration::from_millis;
        assert_eq!(feed.freshness(instant, START), Freshness::Never);
        feed.was_read(instant, START);
        for (monotonic, wall, expected) in [
            (0, 0, Freshness::Fresh),
            (3000, 3000, Freshness::Fresh),
            (3001, 0, Freshness::Stale),
            (0, 3001, Freshness::Stale),
            (1, 7_200_000, Freshness::Stale),
        ] {
            assert_eq!(feed.freshness(instant + secs(monotonic), START + secs(wall)), expected);
        }
        // A wall clock set back says nothing; an older read that ends later changes nothing.
        assert_eq!(feed.freshness(instant + secs(1), START - LIFE), Freshness::Fresh);
        feed.was_read(instant + secs(2000), START + secs(2000));
        feed.was_read(instant + secs(1000), START + secs(1000));
        assert_eq!(feed.freshness(instant + secs(4500), START + secs(4500)), Freshness::Fresh);
        // Starting over forgets changes, not that a read was made.
        feed.fold(&change(Subject::User(user("u")), 5, ChangeKind::Revoked), LIFE, START);
        let mut anew = Anew::default();
        anew.fold(&change(Subject::App, 3, ChangeKind::JudgeAnew), LIFE, START);
        feed.take_over(anew);
        assert_eq!(feed.freshness(instant + secs(4500), START + secs(4500)), Freshness::Fresh);
        assert_eq!(verdict(&feed, numbers(2, 0, 0, 0), START), Verdict::JudgeAnew);
        assert_eq!(verdict(&feed, numbers(3, 0, 0, 0), START), Verdict::Current);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// Any order of the changes, repeated or not, gives the verdict of the highest numbers.
        #[test]
        fn order_does_not_matter(
            changes in prop::collection::vec((0..4_u8, 0..6_u64, any::<bool>()), 0..20),
            token in prop::array::uniform4(0..6_u64),
        ) {
            let feed = Feed::default();
            let (mut revoked, mut anew) = ([0; 4], [0; 4]);
            for (subject, n, revokes) in changes {
                let (which, subject) = match subject {
                    0 => (0, Subject::App),
                    1 => (1, Subject::Tenant(tenant("t"))),
                    2 => (2, Subject::User(user("u"))),
                    _ => (3, Subject::Session(handle(1))),
                };
                let (kind, marks) = if revokes {
                    (ChangeKind::Revoked, &mut revoked)
                } else {
                    (ChangeKind::JudgeAnew, &mut anew)
                };
                marks[which] = n.max(marks[which]);
                feed.fold(&change(subject, n, kind), LIFE, START);
            }
            let below = |marks: [u64; 4]| (0..4).any(|at| token[at] < marks[at]);
            let expected = match () {
                () if below(revoked) => Verdict::Revoked,
                () if below(anew) => Verdict::JudgeAnew,
                () => Verdict::Current,
            };
            let [app, tenant, user, session] = token;
            prop_assert_eq!(verdict(&feed, numbers(app, tenant, user, session), START), expected);
        }
    }
}
