//! The list a policy answers with: requirements in order, and how long the answer holds.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::{
    algebra::{Scope, is_met},
    completed::CompletedFactors,
    explain::NextStep,
    grace::Grace,
    requirement::{Limit, Requirement},
};
use crate::base::{distinct, error::ParseError, ident::FactorId, time::Timestamp};

/// An ordered list of what must be completed, and how long the answer holds.
///
/// The list is walked in order; the first item that leaves something to do decides what comes next. Empty
/// groups demand nothing. An item that can't be met makes the whole list unmeetable at once (row P11).
///
/// ```
/// use tower_mfa::{FactorId, Requirement, Requirements, ident::Timestamp};
/// let list = Requirements::from_iter([
///     Requirement::one_of([FactorId::TOTP, FactorId::OTP_EMAIL]),
///     Requirement::Factor(FactorId::OTP_PHONE),
/// ]);
/// let now = Timestamp::from_secs(1_702_877_939);
/// let mut done = tower_mfa::policy::CompletedFactors::new();
/// done.insert(FactorId::TOTP, now);
/// assert_eq!(list.next(&done, now), Some(&Requirement::Factor(FactorId::OTP_PHONE)));
/// done.insert(FactorId::OTP_PHONE, now);
/// assert_eq!(list.next(&done, now), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    items: Vec<Requirement>,
    max_age: Option<Duration>,
    until: Option<Timestamp>,
    /// What can be completed here, where that is known.
    usable: Option<Arc<[FactorId]>>,
    /// What counts here at all, where a tenant says so.
    counting: Option<Arc<[FactorId]>>,
    /// What the user has set up, where that is known.
    set_up: Option<Arc<[FactorId]>>,
    grace: Option<Grace>,
}

/// What comes next: the item that decides, and the factors that bring it one step further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextSet<'a> {
    /// The first item that isn't met; if one can't be met, that.
    pub requirement: &'a Requirement,
    /// Any of these is a step, in the item's order, each once. None: the item can't be met.
    pub factors: Vec<FactorId>,
}

impl NextSet<'_> {
    /// Whether nothing that the user could do would help (row P11).
    pub fn is_impossible(&self) -> bool {
        self.factors.is_empty()
    }
}

impl Requirements {
    /// Nothing is required.
    pub fn none() -> Self {
        Self::default()
    }

    /// Only completions of at most this age count.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(self.max_age.map_or(age, |own| own.min(age)));
        self
    }

    /// The factor that made the session doesn't count: see [`Requirement::excluding_first_factor`].
    pub fn excluding_first_factor(self) -> Self {
        self.map(|item| Some(item.excluding_first_factor()))
    }

    /// Only factors count that can't be phished: see [`Requirement::phishing_resistant`].
    pub fn phishing_resistant(self) -> Self {
        self.map(|item| Some(item.phishing_resistant()))
    }

    /// Of the factors over one channel one counts, across all items: see
    /// [`Requirement::distinct_channels`].
    pub fn distinct_channels(mut self) -> Self {
        let all = match self.items.len() {
            0 => return self,
            _ => grouped(std::mem::take(&mut self.items)),
        };
        self.items = vec![all.distinct_channels()];
        self
    }

    /// The answer holds until then: the policy is asked again by the first request after it. The earliest
    /// of several holds.
    pub fn until(mut self, at: Timestamp) -> Self {
        self.until = Some(self.until.map_or(at, |until| until.min(at)));
        self
    }

    /// The answer holds for one request: the policy is asked at each, which costs the session's row and
    /// the facts it reads.
    pub fn every_request(self) -> Self {
        self.until(Timestamp::EPOCH)
    }

    /// Only these factors can be completed here: what needs another can't be met, unless it was completed
    /// already. Said twice, those count that are in both.
    pub fn among(mut self, factors: impl IntoIterator<Item = FactorId>) -> Self {
        self.usable = Some(factors.into_iter().filter(|factor| self.is_usable(factor)).collect());
        self
    }

    fn is_usable(&self, factor: &FactorId) -> bool {
        self.usable.as_ref().is_none_or(|usable| usable.contains(factor))
    }

    /// Only these factors count: another that was completed counts for nothing, and what needs it can't be met.
    pub(crate) fn counting(mut self, factors: &[FactorId]) -> Self {
        self.counting = Some(factors.into());
        self
    }

    /// The tenant waits until then; the answer holds no longer.
    pub(crate) fn with_grace(mut self, grace: Grace) -> Self {
        let until = grace.until;
        self.grace = Some(grace);
        self.until(until)
    }

    /// What the tenant will ask for from a date on, if it waits for this user.
    pub fn grace(&self) -> Option<&Grace> {
        self.grace.as_ref()
    }

    /// What the user has set up: [`Requirements::next_step`] keeps to it, as the rule for setting up does.
    pub(crate) fn for_user_with(mut self, set_up: &[FactorId]) -> Self {
        self.set_up = Some(set_up.into());
        self
    }

    /// Both: this list's items, then the other's, each once. The answer holds until the
    /// earlier of the two times.
    ///
    /// ```
    /// use tower_mfa::{FactorId, Requirements};
    /// let one = Requirements::from(FactorId::TOTP);
    /// let both = one.and(Requirements::from(FactorId::OTP_EMAIL)).and(Requirements::from(FactorId::TOTP));
    /// assert_eq!(both.to_json(), serde_json::json!(["totp", "otp-email"]));
    /// ```
    pub fn and(self, other: Requirements) -> Self {
        self.merged(other, |items, others| distinct(items.into_iter().chain(others)))
    }

    /// Either: this list, or the other, as a whole. If one of them demands nothing, nothing is demanded.
    pub fn or(self, other: Requirements) -> Self {
        if self.demands_nothing() || other.demands_nothing() {
            let none = |_, _| Vec::new();
            return self.merged(other, none);
        }
        self.merged(other, |items, others| {
            let choice = [grouped(items), grouped(others)].into_iter().flat_map(|side| match side {
                Requirement::OneOf(items) => items,
                other => vec![other],
            });
            vec![Requirement::OneOf(choice.collect())]
        })
    }

    /// Both, without items that the other list's make needless: a factor within five minutes takes the
    /// place of the same factor within an hour, or of any one of several that it is among.
    ///
    /// ```
    /// use tower_mfa::{FactorId, Requirement, Requirements};
    /// let any = Requirements::from(Requirement::one_of([FactorId::TOTP, FactorId::OTP_EMAIL]));
    /// let strictest = any.strictest(Requirements::from(FactorId::TOTP));
    /// assert_eq!(strictest.to_json(), serde_json::json!(["totp"]));
    /// ```
    pub fn strictest(self, other: Requirements) -> Self {
        self.merged(other, |items, others| {
            let all: Vec<Requirement> = items.into_iter().chain(others).collect();
            let needless = |(at, item): &(usize, &Requirement)| {
                let stricter = |(n, other): (usize, &Requirement)| {
                    n != *at && other.implies(item) && (n < *at || !item.implies(other))
                };
                all.iter().enumerate().any(stricter)
            };
            all.iter().enumerate().filter(|pair| !needless(pair)).map(|(_, item)| item.clone()).collect()
        })
    }

    fn merged(
        self,
        other: Self,
        merge: impl FnOnce(Vec<Requirement>, Vec<Requirement>) -> Vec<Requirement>,
    ) -> Self {
        let until = self.until.into_iter().chain(other.until).min();
        let usable = match (&self.usable, &other.usable) {
            (Some(one), Some(two)) => Some(one.iter().filter(|it| two.contains(it)).cloned().collect()),
            (one, two) => one.clone().or_else(|| two.clone()),
        };
        let items = merge(self.aged(), other.aged());
        Self { items, max_age: None, until, usable, ..Self::default() }
    }

    /// The items, with the list's age on each.
    fn aged(self) -> Vec<Requirement> {
        match self.max_age {
            None => self.items,
            Some(age) => self.items.into_iter().map(|item| item.max_age(age)).collect(),
        }
    }

    /// Whether it asks nothing of anybody: an empty list, or only empty groups.
    pub fn demands_nothing(&self) -> bool {
        self.next_set(&CompletedFactors::new(), Timestamp::EPOCH).is_none()
    }

    /// Until when the answer holds; `None` until something changes. With a maximum age, wherever it is
    /// said, that is at the latest when the next completion that counts now grows too old.
    pub(crate) fn holds_until(&self, done: &CompletedFactors, now: Timestamp) -> Option<Timestamp> {
        let mut lapses: Option<Timestamp> = None;
        self.leaves(&mut |factor, age| {
            let lapse = age.and_then(|age| Some(done.at(factor)? + age)).filter(|lapse| *lapse >= now);
            lapses = lapses.into_iter().chain(lapse).min();
        });
        let lapses = lapses.map(|at| at + Duration::from_millis(1));
        self.until.into_iter().chain(lapses).min()
    }

    /// The items in order.
    pub fn items(&self) -> &[Requirement] {
        &self.items
    }

    /// Every factor that is named, each once.
    pub fn factors(&self) -> Vec<&FactorId> {
        distinct(self.items.iter().flat_map(Requirement::factors))
    }

    /// The factors that are named and can't be completed here, as far as that is known.
    pub(crate) fn unusable(&self) -> impl Iterator<Item = &FactorId> {
        self.factors().into_iter().filter(|factor| !self.is_usable(factor))
    }

    /// Every factor as often as it is named, with the age that holds for it.
    pub(crate) fn leaves<'a>(&'a self, visit: &mut dyn FnMut(&'a FactorId, Option<Duration>)) {
        self.items.iter().for_each(|item| item.leaves(self.max_age, visit));
    }

    /// The first item that isn't met; `None` when all are.
    pub fn next<'a>(&'a self, done: &CompletedFactors, now: Timestamp) -> Option<&'a Requirement> {
        self.next_set(done, now).map(|next| next.requirement)
    }

    /// The first item that isn't met, and the factors that bring it one step further.
    pub fn next_set<'a>(&'a self, done: &CompletedFactors, now: Timestamp) -> Option<NextSet<'a>> {
        let scope = self.scope(done, now);
        let mut first: Option<NextSet<'a>> = None;
        for requirement in &self.items {
            let ways = requirement.ways(&scope);
            if is_met(&ways) {
                continue;
            }
            if ways.is_empty() {
                return Some(NextSet { requirement, factors: Vec::new() });
            }
            let is_step = |factor: &&FactorId| ways.iter().any(|way| way.step.contains(*factor));
            first.get_or_insert_with(|| NextSet {
                requirement,
                factors: requirement.factors().into_iter().filter(is_step).cloned().collect(),
            });
        }
        first
    }

    /// What the user is told to do next: the same for `/mfa/info` and for refusals. `None` when all is met.
    pub fn next_step(&self, done: &CompletedFactors, now: Timestamp) -> Option<NextStep> {
        let mut next = self.next_set(done, now)?;
        if let Some(set_up) = &self.set_up {
            next.factors = super::setup::in_reach(&next.factors, set_up);
        }
        Some(NextStep::of(&next, self.max_age, done))
    }

    pub(crate) fn scope<'a>(&'a self, done: &'a CompletedFactors, now: Timestamp) -> Scope<'a> {
        let scope = Scope::new(done, now, self.usable.as_deref()).counting(self.counting.as_deref());
        match self.max_age {
            Some(age) => scope.within(Limit::MaxAge(age)),
            None => scope,
        }
    }

    /// Reads a list.
    ///
    /// # Errors
    /// As [`Requirement::from_json`], and if it is no array.
    pub fn from_json(value: &Value) -> Result<Self, ParseError> {
        let items = value.as_array().ok_or(ParseError::new("requirement list"))?;
        items.iter().map(Requirement::from_json).collect()
    }

    /// The list in writing. An age of the whole list, and until when it holds, stay behind.
    pub fn to_json(&self) -> Value {
        self.items.iter().map(Requirement::to_json).collect()
    }

    /// The list with each item changed, or left out.
    pub(crate) fn map(mut self, change: impl Fn(Requirement) -> Option<Requirement>) -> Self {
        self.items = self.items.into_iter().filter_map(change).collect();
        self
    }

    /// What stays of it when only some factors may be asked for.
    pub(crate) fn keep(self, wanted: &dyn Fn(&FactorId) -> bool) -> Self {
        self.map(|item| item.keep(wanted))
    }
}

impl Requirement {
    /// Whether whoever meets this meets `other` too. It may say no where a proof would be long.
    fn implies(&self, other: &Self) -> bool {
        match (self, other) {
            _ if self == other => true,
            (_, Self::AllOf(items) | Self::InOrder(items)) => items.iter().all(|item| self.implies(item)),
            (Self::AllOf(items) | Self::InOrder(items), _) => items.iter().any(|item| item.implies(other)),
            (Self::OneOf(items), _) if !items.is_empty() => items.iter().all(|item| item.implies(other)),
            (Self::Limited(Limit::MaxAge(age), inner), Self::Limited(Limit::MaxAge(most), limited)) => {
                age <= most && inner.implies(limited) || inner.implies(other)
            }
            (_, Self::OneOf(items)) if items.is_empty() || items.iter().any(|item| self.implies(item)) => {
                true
            }
            (Self::Limited(limit, inner), Self::Limited(same, limited)) if limit == same => {
                inner.implies(limited)
            }
            (Self::Limited(_, inner), _) => inner.implies(other),
            _ => false,
        }
    }
}

/// One requirement for all of these, in order.
fn grouped(mut items: Vec<Requirement>) -> Requirement {
    match (items.pop(), items.is_empty()) {
        (Some(only), true) => only,
        (Some(last), false) => {
            items.push(last);
            Requirement::InOrder(items)
        }
        (None, _) => Requirement::InOrder(items),
    }
}

impl FromIterator<Requirement> for Requirements {
    fn from_iter<I: IntoIterator<Item = Requirement>>(items: I) -> Self {
        Self { items: items.into_iter().collect(), ..Self::default() }
    }
}

impl From<Requirement> for Requirements {
    fn from(item: Requirement) -> Self {
        Self::from_iter([item])
    }
}

impl From<FactorId> for Requirements {
    fn from(factor: FactorId) -> Self {
        Requirement::Factor(factor).into()
    }
}

/// The first factor of a list that nobody knows: a typo, or a method that isn't enabled (row P10).
pub(crate) fn unknown(requirements: &Requirements, known: impl Fn(&FactorId) -> bool) -> Option<FactorId> {
    requirements.factors().into_iter().find(|factor| !known(factor)).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(items: Value) -> Requirements {
        Requirements::from_json(&items).unwrap()
    }

    #[test]
    fn sec_p10_unknown_factors_are_named() {
        let known = |factor: &FactorId| [FactorId::TOTP, FactorId::OTP_EMAIL].contains(factor);
        for (items, first) in [
            (json!([]), None),
            (json!(["totp", {"oneOf": ["otp-email", "totp"]}, {"allOfInAnyOrder": []}]), None),
            (json!(["otp_email"]), Some("otp_email")),
            (json!(["TOTP"]), Some("TOTP")),
            (json!(["totp", {"oneOf": ["totp", "webauthn"]}, "x"]), Some("webauthn")),
            (json!([{"allOfInAnyOrder": ["totp", " totp"]}]), Some(" totp")),
            (json!([{"kOf": {"k": 1, "of": ["totp", {"inOrder": [{"distinctChannels": "t"}]}]}}]), Some("t")),
        ] {
            let found = unknown(&list(items.clone()), known);
            assert_eq!(found.as_ref().map(FactorId::as_str), first, "{items}");
        }
    }

    #[test]
    fn sec_p13_age_at_the_boundary() {
        let at = Timestamp::from_secs(1_000_000);
        let done = CompletedFactors::from_iter([(FactorId::TOTP, at)]);
        let age = Duration::from_secs(300);
        for list in [
            Requirements::from(FactorId::TOTP).max_age(age),
            Requirement::from(FactorId::TOTP).max_age(age).into(),
            Requirement::one_of([Requirement::all_of([FactorId::TOTP]).max_age(age)]).into(),
            Requirements::from(Requirement::from(FactorId::TOTP).max_age(age)).max_age(age * 2),
            Requirements::from(Requirement::from(FactorId::TOTP).max_age(age * 2)).max_age(age),
        ] {
            let met =
                |offset: i64| list.next(&done, Timestamp::from_millis(at.as_millis() + offset)).is_none();
            assert!(met(0) && met(300_000) && met(-30_000), "{list:?}");
            assert!(!met(300_001) && !met(-30_001), "{list:?}");
            // And that is when the policy is asked again.
            let lapse = Timestamp::from_millis(at.as_millis() + 300_001);
            assert_eq!(list.holds_until(&done, at), Some(lapse), "{list:?}");
        }
    }

    #[test]
    fn an_answer_holds_until_the_first_of_its_ages_runs_out() {
        let at = Timestamp::from_secs;
        let done = CompletedFactors::from_iter([(FactorId::TOTP, at(1000)), (FactorId::OTP_EMAIL, at(1010))]);
        let aged = |factor: FactorId, secs| Requirement::from(factor).max_age(Duration::from_secs(secs));
        let both = Requirement::in_order([aged(FactorId::TOTP, 100), aged(FactorId::OTP_EMAIL, 50)]);
        let list = Requirements::from(both);
        let after = |secs: i64| Some(Timestamp::from_millis(secs * 1000 + 1));
        assert_eq!(list.holds_until(&done, at(1020)), after(1060));
        assert_eq!(list.holds_until(&done, at(1061)), after(1100));
        assert_eq!(list.holds_until(&done, at(1101)), None);
        assert_eq!(list.clone().until(at(1030)).holds_until(&done, at(1020)), Some(at(1030)));
        assert_eq!(list.every_request().holds_until(&done, at(1020)), Some(Timestamp::EPOCH));
    }

    #[test]
    fn lists_are_put_together() {
        const NOTHING: [&str; 0] = [];
        let hour = json!({"maxAge": {"seconds": 3600, "of": "totp"}});
        let minute = json!({"maxAge": {"seconds": 60, "of": "totp"}});
        let any = json!({"oneOf": ["totp", "otp-email"]});
        for (one, two, and, or, strictest) in [
            (json!([]), json!(["totp"]), json!(["totp"]), json!(NOTHING), json!(["totp"])),
            // What demands nothing without being empty.
            (
                json!([{"oneOf": []}]),
                json!(["totp"]),
                json!([{"oneOf": []}, "totp"]),
                json!(NOTHING),
                json!(["totp"]),
            ),
            (
                json!(["totp"]),
                json!(["totp", "otp-email"]),
                json!(["totp", "otp-email"]),
                json!([{"oneOf": ["totp", {"inOrder": ["totp", "otp-email"]}]}]),
                json!(["totp", "otp-email"]),
            ),
            (
                json!([any]),
                json!(["totp"]),
                json!([any, "totp"]),
                json!([{"oneOf": ["totp", "otp-email", "totp"]}]),
                json!(["totp"]),
            ),
            (
                json!([hour]),
                json!([minute, "otp-email"]),
                json!([hour, minute, "otp-email"]),
                json!([{"oneOf": [hour, {"inOrder": [minute, "otp-email"]}]}]),
                json!([minute, "otp-email"]),
            ),
            (
                json!([{"phishingResistant": any}]),
                json!([any, {"kOf": {"k": 2, "of": ["a", "b"]}}]),
                json!([{"phishingResistant": any}, any, {"kOf": {"k": 2, "of": ["a", "b"]}}]),
                json!([{"oneOf": [
                    {"phishingResistant": any},
                    {"inOrder": [any, {"kOf": {"k": 2, "of": ["a", "b"]}}]},
                ]}]),
                json!([{"phishingResistant": any}, {"kOf": {"k": 2, "of": ["a", "b"]}}]),
            ),
        ] {
            let (a, b) = (list(one.clone()), list(two.clone()));
            assert_eq!(a.clone().and(b.clone()).to_json(), and, "{one} and {two}");
            assert_eq!(a.clone().or(b.clone()).to_json(), or, "{one} or {two}");
            assert_eq!(a.strictest(b).to_json(), strictest, "the strictest of {one} and {two}");
        }
        // Ages of whole lists and times go along; what can be completed is what both can.
        let at = Timestamp::from_secs;
        let aged = Requirements::from(FactorId::TOTP).max_age(Duration::from_secs(60)).until(at(9));
        let both = aged.among([FactorId::TOTP]).and(Requirements::from(FactorId::TOTP).until(at(5)));
        assert_eq!(both.to_json(), json!([minute, "totp"]));
        assert_eq!((both.until, both.usable), (Some(at(5)), Some(Arc::from([FactorId::TOTP]))));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 2048, ..Default::default() })]

        /// Each way of putting lists together means what it says, whatever was completed.
        #[test]
        fn put_together_means_what_it_says(
            one in crate::policy::algebra::tests::requirement(),
            two in crate::policy::algebra::tests::requirement(),
            picked in proptest::sample::subsequence(&crate::policy::algebra::tests::FACTORS[..], 0..=8),
        ) {
            let now = Timestamp::from_secs(1_702_877_939);
            let old = |n: usize| now - Duration::from_secs(if n.is_multiple_of(2) { 0 } else { 61 });
            let entry = |(n, text): (usize, &&str)| (FactorId::parse(text).unwrap(), old(n));
            let done: CompletedFactors = picked.iter().enumerate().map(entry).collect();
            let met = |list: &Requirements| list.next(&done, now).is_none();
            let (one, two) = (Requirements::from(one), Requirements::from(two));
            let both = met(&one) && met(&two);
            proptest::prop_assert_eq!(met(&one.clone().and(two.clone())), both);
            proptest::prop_assert_eq!(met(&one.clone().strictest(two.clone())), both);
            proptest::prop_assert_eq!(met(&one.clone().or(two.clone())), met(&one) || met(&two));
        }

        /// A tenant that lets only some factors count never lets anybody pass who wouldn't otherwise, and with
        /// what counts alone it changes nothing.
        #[test]
        fn what_counts_only_ever_asks_for_more(
            list in crate::policy::algebra::tests::requirement(),
            picked in proptest::sample::subsequence(&crate::policy::algebra::tests::FACTORS[..], 0..=8),
            counting in proptest::sample::subsequence(&crate::policy::algebra::tests::FACTORS[..], 0..=8),
        ) {
            let now = Timestamp::from_secs(1_702_877_939);
            let ids = |texts: &[&str]| -> Vec<FactorId> {
                texts.iter().map(|text| FactorId::parse(text).unwrap()).collect()
            };
            let done: CompletedFactors = ids(&picked).into_iter().map(|factor| (factor, now)).collect();
            let list = Requirements::from(list);
            let narrowed = list.clone().counting(&ids(&counting));
            let met = |list: &Requirements| list.next(&done, now).is_none();
            proptest::prop_assert!(met(&list) || !met(&narrowed));
            if picked.iter().all(|factor| counting.contains(factor)) {
                proptest::prop_assert_eq!(met(&list), met(&narrowed));
            }
        }
    }
}
