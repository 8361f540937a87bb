//! What a requirement still needs: pure.
//!
//! One recursive function, [`Requirement::ways`], works out every way in which a requirement can still be
//! met, each with the factors it needs (`open`) and those of them that may be done now (`step`). All
//! questions are answered from that: it is met if a way needs nothing, impossible if there is no way, and
//! what comes next is the steps of all ways. A way that needs all that another needs, and more, is dropped:
//! what only it asks for brings nothing.

use std::{collections::BTreeSet, time::Duration};

use super::{
    completed::CompletedFactors,
    requirement::{Limit, Requirement, shorter},
};
use crate::base::{ident::FactorId, time::Timestamp};

/// A way to meet a requirement. Its own factors only: what is done already is in neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Way<'a> {
    pub(crate) open: BTreeSet<&'a FactorId>,
    pub(crate) step: BTreeSet<&'a FactorId>,
}

/// What counts where a requirement stands.
#[derive(Clone, Debug)]
pub(crate) struct Scope<'a> {
    done: &'a CompletedFactors,
    now: Timestamp,
    /// The factors that can be completed at all, if that is known.
    usable: Option<&'a [FactorId]>,
    /// The factors that count at all, if a tenant says so.
    counting: Option<&'a [FactorId]>,
    age: Option<Duration>,
    ageless: bool,
    not_first: bool,
    distinct: bool,
    resistant: bool,
    /// Another factor stands for the channel of these.
    banned: Vec<&'a FactorId>,
}

/// More ways than this are not followed: a list that has more is absurd. Those that need least stay, so
/// that what is met is met, and there is always a next step.
const MOST_WAYS: usize = 128;

impl<'a> Scope<'a> {
    pub(crate) fn new(done: &'a CompletedFactors, now: Timestamp, usable: Option<&'a [FactorId]>) -> Self {
        Self {
            done,
            now,
            usable,
            counting: None,
            age: None,
            ageless: false,
            not_first: false,
            distinct: false,
            resistant: false,
            banned: Vec::new(),
        }
    }

    /// Where only these count, done or not.
    pub(crate) fn counting(self, factors: Option<&'a [FactorId]>) -> Self {
        Self { counting: factors, ..self }
    }

    /// As if nothing grew old: tells *expired* from *missing*.
    pub(crate) fn ageless(&self) -> Self {
        Self { ageless: true, ..self.clone() }
    }

    /// Within a limit. The choice among channels is [`Scope::choices`].
    pub(crate) fn within(&self, limit: Limit) -> Self {
        let mut scope = self.clone();
        match limit {
            Limit::MaxAge(age) => scope.age = Some(shorter(scope.age, age)),
            Limit::ExcludingFirstFactor => scope.not_first = true,
            Limit::DistinctChannels => scope.distinct = true,
            Limit::PhishingResistant => scope.resistant = true,
        }
        scope
    }

    /// One scope for each choice of one factor a channel, of those that are named.
    fn choices(&self, named: &[&'a FactorId]) -> Vec<Self> {
        let mut scopes = vec![self.within(Limit::DistinctChannels)];
        let channels: BTreeSet<&str> = named.iter().map(|factor| channel(factor)).collect();
        for over in channels {
            let rivals = || named.iter().copied().filter(|factor| channel(factor) == over);
            if rivals().count() > 1 {
                let split = |scope: Self| {
                    rivals().map(move |chosen| {
                        let mut scope = scope.clone();
                        scope.banned.extend(rivals().filter(|factor| *factor != chosen));
                        scope
                    })
                };
                scopes = scopes.into_iter().flat_map(split).collect();
            }
        }
        scopes
    }

    fn is_firsts(&self, factor: &FactorId) -> bool {
        let same = |first: &FactorId| first == factor || self.distinct && channel(first) == channel(factor);
        self.done.first().is_some_and(same)
    }

    fn factor(&self, factor: &'a FactorId) -> Vec<Way<'a>> {
        let barred = self.banned.contains(&factor)
            || self.counting.is_some_and(|counting| !counting.contains(factor))
            || self.resistant && !is_phishing_resistant(factor)
            || self.not_first && self.is_firsts(factor);
        let done = match self.age {
            Some(age) if !self.ageless => self.done.within(factor, age, self.now),
            _ => self.done.contains(factor),
        };
        match () {
            () if barred => Vec::new(),
            () if done => vec![Way::default()],
            () if self.usable.is_some_and(|usable| !usable.contains(factor)) => Vec::new(),
            () => {
                let only = BTreeSet::from([factor]);
                vec![Way { open: only.clone(), step: only }]
            }
        }
    }
}

impl Requirement {
    /// Every way in which it can still be met, but for those that need more than another.
    pub(crate) fn ways<'a>(&'a self, scope: &Scope<'a>) -> Vec<Way<'a>> {
        let all = |items: &'a [Self], in_order: bool| {
            let none = vec![Way::default()];
            items.iter().fold(none, |ways, item| crossed(&ways, &item.ways(scope), in_order))
        };
        match self {
            Self::Factor(factor) => scope.factor(factor),
            Self::OneOf(items) if items.is_empty() => vec![Way::default()],
            Self::OneOf(items) => chosen(1, items, scope),
            Self::KOf(k, items) => chosen(*k, items, scope),
            Self::AllOf(items) => all(items, false),
            Self::InOrder(items) => all(items, true),
            Self::Limited(Limit::DistinctChannels, inner) => {
                least(scope.choices(&inner.factors()).iter().flat_map(|scope| inner.ways(scope)).collect())
            }
            Self::Limited(limit, inner) => inner.ways(&scope.within(*limit)),
        }
    }
}

/// Whether a way needs nothing more.
pub(crate) fn is_met(ways: &[Way<'_>]) -> bool {
    ways.iter().any(|way| way.open.is_empty())
}

/// Any `k` of the items.
fn chosen<'a>(k: usize, items: &'a [Requirement], scope: &Scope<'a>) -> Vec<Way<'a>> {
    if k > items.len() {
        return Vec::new();
    }
    // At each place: the ways to have met that many of the items seen so far.
    let mut by_count = vec![Vec::new(); k + 1];
    if let Some(none) = by_count.first_mut() {
        none.push(Way::default());
    }
    for item in items {
        let ways = item.ways(scope);
        for n in (1..=k).rev() {
            let more = by_count.get(n - 1).map(|fewer| crossed(fewer, &ways, false)).unwrap_or_default();
            if let Some(place) = by_count.get_mut(n) {
                place.extend(more);
                *place = least(std::mem::take(place));
            }
        }
    }
    by_count.pop().unwrap_or_default()
}

/// One of these and one of those. In order, those have their turn when these need nothing.
fn crossed<'a>(these: &[Way<'a>], those: &[Way<'a>], in_order: bool) -> Vec<Way<'a>> {
    let both = |one: &Way<'a>, other: &Way<'a>| Way {
        open: &one.open | &other.open,
        step: if in_order && !one.open.is_empty() { one.step.clone() } else { &one.step | &other.step },
    };
    least(these.iter().flat_map(|one| those.iter().map(move |other| both(one, other))).collect())
}

/// Without the ways that need more than another.
fn least(mut ways: Vec<Way<'_>>) -> Vec<Way<'_>> {
    ways.sort_by_key(|way| way.open.len());
    let mut kept: Vec<Way<'_>> = Vec::new();
    for way in ways {
        let more = |least: &Way<'_>| least.open.len() < way.open.len() && least.open.is_subset(&way.open);
        if kept.len() < MOST_WAYS && !kept.iter().any(|least| more(least) || *least == way) {
            kept.push(way);
        }
    }
    kept
}

/// What a factor runs over. A code and a link to one place are one channel, called by the code's id; any other
/// factor is its own.
fn channel(factor: &FactorId) -> &str {
    match () {
        () if [FactorId::OTP_EMAIL, FactorId::LINK_EMAIL].contains(factor) => "otp-email",
        () if [FactorId::OTP_PHONE, FactorId::LINK_PHONE].contains(factor) => "otp-phone",
        () => factor.as_str(),
    }
}

/// Whether a page that looks like ours gets nothing out of it.
fn is_phishing_resistant(factor: &FactorId) -> bool {
    *factor == FactorId::WEBAUTHN
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::Requirements;

    const NOW: Timestamp = Timestamp::from_secs(1_702_877_939);

    fn id(text: &str) -> FactorId {
        FactorId::parse(text).unwrap()
    }

    /// Completed in this order, a second apart, the last one ten seconds ago.
    fn done(text: &str) -> CompletedFactors {
        let ids: Vec<&str> = text.split_whitespace().collect();
        let at = |n: usize| NOW - Duration::from_secs((ids.len() - n) as u64 + 9);
        ids.iter().enumerate().map(|(n, text)| (id(text), at(n))).collect()
    }

    /// What comes next: the factors, `impossible`, or `-` when it is met.
    fn next(item: &Value, completed: &str) -> String {
        let list = Requirements::from_json(&json!([item])).unwrap();
        let done = done(completed);
        match list.next_set(&done, NOW) {
            None => "-".to_owned(),
            Some(next) if next.is_impossible() => "impossible".to_owned(),
            Some(next) => next.factors.iter().map(FactorId::as_str).collect::<Vec<_>>().join(" "),
        }
    }

    #[test]
    fn what_comes_next() {
        for (item, steps) in [
            // Alternatives that take several steps.
            (
                json!({"oneOf": [{"allOfInAnyOrder": ["a", "b"]}, "c"]}),
                vec![("", "a b c"), ("a", "b c"), ("b x", "a c"), ("a b", "-"), ("c", "-")],
            ),
            (
                json!({"oneOf": [{"inOrder": ["a", "b"]}, {"inOrder": ["c", "d"]}]}),
                vec![("", "a c"), ("b", "a c"), ("c", "a d"), ("a b", "-")],
            ),
            // Both orders are open.
            (
                json!({"oneOf": [{"inOrder": ["a", "b"]}, {"inOrder": ["b", "a"]}]}),
                vec![("", "a b"), ("a", "b")],
            ),
            // `b` does alone: `a` brings nothing.
            (json!({"oneOf": [{"allOfInAnyOrder": ["a", "b"]}, "b"]}), vec![("", "b"), ("a", "b")]),
            (
                json!({"allOfInAnyOrder": ["a", {"oneOf": ["b", "c"]}]}),
                vec![("", "a b c"), ("b", "a"), ("a", "b c"), ("a c", "-")],
            ),
            (
                json!({"inOrder": [{"oneOf": ["a", "b"]}, {"oneOf": ["b", "c"]}]}),
                vec![("", "a b"), ("a", "b c"), ("b", "-"), ("c", "a b")],
            ),
            (json!({"oneOf": [{"oneOf": []}, "a"]}), vec![("", "-")]),
            // So many of several.
            (
                json!({"kOf": {"k": 2, "of": ["a", "b", "c"]}}),
                vec![("", "a b c"), ("b", "a c"), ("c a", "-")],
            ),
            (json!({"kOf": {"k": 0, "of": ["a"]}}), vec![("", "-")]),
            (json!({"kOf": {"k": 2, "of": ["a"]}}), vec![("", "impossible"), ("a", "impossible")]),
            (json!({"kOf": {"k": 1, "of": []}}), vec![("", "impossible")]),
            (
                json!({"kOf": {"k": 2, "of": [{"allOfInAnyOrder": ["a", "b"]}, "c", "d"]}}),
                vec![("", "a b c d"), ("c", "a b d"), ("a", "b c d"), ("a b", "c d"), ("a b d", "-")],
            ),
            // The same one twice is one.
            (json!({"kOf": {"k": 2, "of": ["a", "a", "b"]}}), vec![("", "a"), ("a", "-")]),
            // The factor that made the session.
            (
                json!({"excludingFirstFactor": {"oneOf": ["a", "b"]}}),
                vec![("", "a b"), ("a", "b"), ("a b", "-"), ("b", "a"), ("x", "a b"), ("x a", "-")],
            ),
            (json!({"excludingFirstFactor": "a"}), vec![("a", "impossible"), ("b", "a"), ("b a", "-")]),
            (
                json!({"oneOf": [{"excludingFirstFactor": "a"}, {"allOfInAnyOrder": ["a", "b"]}]}),
                vec![("a", "b"), ("a b", "-"), ("b", "a"), ("b a", "-")],
            ),
            // Channels.
            (
                json!({"distinctChannels": {"kOf": {"k": 2, "of": ["otp-email", "link-email", "totp"]}}}),
                vec![
                    ("", "otp-email link-email totp"),
                    ("otp-email", "totp"),
                    ("otp-email link-email", "totp"),
                    ("totp", "otp-email link-email"),
                    ("otp-email totp", "-"),
                ],
            ),
            (
                json!({"distinctChannels": {"allOfInAnyOrder": ["otp-phone", "link-phone"]}}),
                vec![("", "impossible"), ("otp-phone link-phone", "impossible")],
            ),
            // An app's own factor is a channel of its own, whatever it is called.
            (
                json!({"distinctChannels": {"allOfInAnyOrder": ["otp-phone", "phone"]}}),
                vec![("", "otp-phone phone"), ("phone", "otp-phone"), ("phone otp-phone", "-")],
            ),
            // The way out of one channel is the other one's.
            (
                json!({"distinctChannels": {"inOrder": [{"oneOf": ["otp-email", "totp"]}, "link-email"]}}),
                vec![("", "totp"), ("otp-email", "totp"), ("totp", "link-email"), ("link-email", "totp")],
            ),
            (
                json!({"distinctChannels": {"inOrder": [{"oneOf": ["otp-email", "link-email"]}, "totp"]}}),
                vec![("", "otp-email link-email"), ("otp-email", "totp")],
            ),
            (
                json!({"distinctChannels": {"excludingFirstFactor": {"oneOf": ["link-email", "totp"]}}}),
                vec![
                    ("otp-email", "totp"),
                    ("otp-email link-email", "totp"),
                    ("emailpassword link-email", "-"),
                ],
            ),
            (
                json!({"excludingFirstFactor": {"distinctChannels": {"oneOf": ["link-email", "totp"]}}}),
                vec![("otp-email", "totp")],
            ),
            (json!({"excludingFirstFactor": "link-email"}), vec![("otp-email", "link-email")]),
            // What can't be phished.
            (
                json!({"phishingResistant": {"oneOf": ["totp", "webauthn"]}}),
                vec![("", "webauthn"), ("totp", "webauthn"), ("webauthn", "-")],
            ),
            (json!({"phishingResistant": {"oneOf": ["totp", "custom"]}}), vec![("totp", "impossible")]),
            // An alternative that is impossible is no alternative; a part that is makes the whole so.
            (
                json!({"oneOf": [{"kOf": {"k": 2, "of": ["a"]}}, {"allOfInAnyOrder": ["a", "b"]}]}),
                vec![("", "a b"), ("a", "b")],
            ),
            (
                json!({"allOfInAnyOrder": ["a", {"phishingResistant": "totp"}]}),
                vec![("", "impossible"), ("a", "impossible")],
            ),
            (json!({"inOrder": ["a", {"kOf": {"k": 1, "of": []}}]}), vec![("", "impossible")]),
            // Ages; what was done was done ten seconds ago and more.
            (
                json!({"allOfInAnyOrder": ["a", {"maxAge": {"seconds": 10, "of": "b"}}]}),
                vec![("a b", "-"), ("b a", "b")],
            ),
            (
                json!({"maxAge": {"seconds": 60, "of": {"maxAge": {"seconds": 9, "of": "a"}}}}),
                vec![("a", "a")],
            ),
            (
                json!({"maxAge": {"seconds": 9, "of": {"maxAge": {"seconds": 60, "of": "a"}}}}),
                vec![("a", "a")],
            ),
        ] {
            for (completed, expected) in steps {
                assert_eq!(next(&item, completed), expected, "{item} after {completed:?}");
            }
        }
    }

    #[test]
    fn a_list_is_impossible_as_soon_as_one_of_its_items_is() {
        let list = json!(["a", {"kOf": {"k": 2, "of": ["b"]}}]);
        let list = Requirements::from_json(&list).unwrap();
        let next = list.next_set(&CompletedFactors::new(), NOW).map(|next| (next.requirement, next.factors));
        assert_eq!(next, Some((&list.items()[1], Vec::new())));
    }

    #[test]
    fn what_cant_be_completed_here_is_no_step() {
        let list = |items: Value| Requirements::from_json(&items).unwrap().among([id("a"), id("b")]);
        let next = |list: &Requirements, done: &str| list.next_set(&self::done(done), NOW).unwrap().factors;
        let choice = list(json!([{"oneOf": [{"allOfInAnyOrder": ["a", "x"]}, "b"]}]));
        assert_eq!(next(&choice, ""), [id("b")]);
        assert!(next(&list(json!([{"allOfInAnyOrder": ["a", "x"]}])), "").is_empty(), "row P11: at once");
        // What was completed counts, wherever that was.
        assert_eq!(next(&list(json!([{"allOfInAnyOrder": ["a", "x"]}])), "x"), [id("a")]);
        assert_eq!(next(&list(json!(["a"])).among([id("b")]), ""), []);
    }

    #[test]
    fn absurd_lists_are_answered() {
        let many: Vec<String> = (0..16).map(|n| format!("f{n}")).collect();
        let choice = |k: usize| json!({"kOf": {"k": k, "of": many}});
        let list = Requirements::from_json(&json!([choice(8)])).unwrap();
        let mut done = CompletedFactors::new();
        let mut steps = 0;
        while let Some(next) = list.next_set(&done, NOW) {
            done.insert(next.factors.last().expect("a step").clone(), NOW);
            steps += 1;
        }
        assert_eq!(steps, 8);
    }

    pub(crate) const FACTORS: [&str; 8] =
        ["emailpassword", "otp-email", "link-email", "otp-phone", "link-phone", "totp", "webauthn", "own"];

    /// Any requirement over these factors.
    pub(crate) fn requirement() -> impl Strategy<Value = Requirement> {
        let factor = prop::sample::select(&FACTORS[..]).prop_map(|text| Requirement::Factor(id(text)));
        // Two over different channels: rare by chance.
        let two = prop::sample::subsequence(&FACTORS[..], 2..=4)
            .prop_map(|picked| Requirement::k_of(2, picked.into_iter().map(id)).distinct_channels());
        prop_oneof![8 => factor, 1 => two].prop_recursive(3, 12, 4, |inner| {
            let items = prop::collection::vec(inner.clone(), 0..4);
            prop_oneof![
                3 => items.clone().prop_map(Requirement::OneOf),
                3 => items.clone().prop_map(Requirement::AllOf),
                2 => items.clone().prop_map(Requirement::InOrder),
                2 => (0..3_usize, items).prop_map(|(k, items)| Requirement::KOf(k, items)),
                1 => inner.clone().prop_map(|item| item.max_age(Duration::from_secs(60))),
                1 => inner.clone().prop_map(Requirement::excluding_first_factor),
                1 => inner.clone().prop_map(Requirement::distinct_channels),
                1 => inner.prop_map(Requirement::phishing_resistant),
            ]
        })
    }

    /// The rule in other words, without looking for what is next: does what was completed meet it?
    fn meets(item: &Requirement, done: &[&str], first: Option<&str>, flags: (bool, bool)) -> bool {
        let (not_first, distinct) = flags;
        match item {
            Requirement::Factor(factor) => {
                let same = |first: &str| {
                    first == factor.as_str() || distinct && channel(&id(first)) == channel(factor)
                };
                done.contains(&factor.as_str()) && !(not_first && first.is_some_and(same))
            }
            Requirement::OneOf(items) => {
                items.is_empty() || items.iter().any(|item| meets(item, done, first, flags))
            }
            Requirement::AllOf(items) | Requirement::InOrder(items) => {
                items.iter().all(|item| meets(item, done, first, flags))
            }
            Requirement::KOf(k, items) => {
                items.iter().filter(|item| meets(item, done, first, flags)).count() >= *k
            }
            Requirement::Limited(Limit::MaxAge(_), inner) => meets(inner, done, first, flags),
            Requirement::Limited(Limit::ExcludingFirstFactor, inner) => {
                meets(inner, done, first, (true, distinct))
            }
            Requirement::Limited(Limit::PhishingResistant, inner) => {
                let strong: Vec<&str> = done.iter().copied().filter(|text| *text == "webauthn").collect();
                meets(inner, &strong, first, flags)
            }
            Requirement::Limited(Limit::DistinctChannels, inner) => {
                ["otp-email", "link-email"].iter().any(|no_mail| {
                    ["otp-phone", "link-phone"].iter().any(|no_call| {
                        let some: Vec<&str> =
                            done.iter().copied().filter(|text| text != no_mail && text != no_call).collect();
                        meets(inner, &some, first, (not_first, true))
                    })
                })
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

        #[test]
        fn met_means_what_it_says(item in requirement(), picked in prop::sample::subsequence(&FACTORS[..], 0..=8)) {
            let done: CompletedFactors = picked.iter().map(|text| (id(text), NOW)).collect();
            let first = done.first().map(FactorId::as_str);
            let list = Requirements::from(item.clone());
            prop_assert_eq!(list.next_set(&done, NOW).is_none(), meets(&item, &picked, first, (false, false)));
        }

        /// Nothing that is offered is done or counts for nothing: each step leads to a state that needs less.
        #[test]
        fn every_step_brings_further(item in requirement(), picked in prop::sample::subsequence(&FACTORS[..], 1..=8)) {
            let mut done: CompletedFactors = picked.iter().map(|text| (id(text), NOW - Duration::from_secs(61))).collect();
            let scope = Scope::new(&done, NOW, None);
            let ways = item.ways(&scope);
            let list = Requirements::from(item.clone());
            let Some(next) = list.next_set(&done, NOW) else {
                return Ok(());
            };
            prop_assert_eq!(next.is_impossible(), ways.is_empty());
            for step in next.factors {
                let way = ways.iter().find(|way| way.step.contains(&step)).expect("a way of this step");
                let left: BTreeSet<FactorId> = way.open.iter().filter(|open| ***open != step).map(|open| (*open).clone()).collect();
                let mut then = done.clone();
                then.insert(step.clone(), NOW);
                let after = Requirements::from(item.clone());
                // What was left of that way, or less, is left now.
                let met = after.next_set(&then, NOW).is_none();
                prop_assert!(met || !left.is_empty(), "{} brought nothing", step);
                let scope = Scope::new(&then, NOW, None);
                let fewer = |way: &Way<'_>| way.open.iter().all(|open| left.contains(*open));
                prop_assert!(item.ways(&scope).iter().any(fewer), "{} brought nothing", step);
            }
            // And all of them together are reached from anywhere.
            let mut steps = 0;
            while let Some(next) = list.next_set(&done, NOW).filter(|next| !next.is_impossible()) {
                done.insert(next.factors[0].clone(), NOW);
                steps += 1;
                prop_assert!(steps <= FACTORS.len());
            }
        }
    }
}
