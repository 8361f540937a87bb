//! Requirement lists and their evaluation: pure.
//!
//! A list is walked in order; the first item that leaves something to do decides what comes next. An item
//! is a factor, one of several, or all of several; empty groups demand nothing (`spec`: vectors).

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

use crate::base::{error::ParseError, ident::FactorId, time::Timestamp};

/// The factors completed in a session, each with the time, in whole seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompletedFactors(BTreeMap<FactorId, Timestamp>);

/// Stamps above this are milliseconds, as the reference writes them in one place.
const MILLIS: i64 = 100_000_000_000;
/// A stamp may be this far ahead of the clock before it fails every age check (row P12).
const AHEAD: Duration = Duration::from_secs(30);

impl CompletedFactors {
    /// Nothing completed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the member `c` of the claim. Only a non-negative integer is a completion (rows P05, P12);
    /// anything else is as if it weren't there.
    pub fn from_json(value: &Value) -> Self {
        let entries = value.as_object().into_iter().flatten().filter_map(|(id, stamp)| {
            let stamp = stamp.as_u64().and_then(|stamp| i64::try_from(stamp).ok())?;
            let at =
                if stamp > MILLIS { Timestamp::from_secs(stamp / 1000) } else { Timestamp::from_secs(stamp) };
            Some((FactorId::parse(id).ok()?, at))
        });
        Self(entries.collect())
    }

    /// The member `c` of the claim: whole seconds.
    pub fn to_json(&self) -> Value {
        Value::Object(
            self.0.iter().map(|(id, at)| (id.to_string(), json!(at.as_secs()))).collect::<Map<_, _>>(),
        )
    }

    /// Stamps a factor as completed now, in whole seconds.
    pub fn insert(&mut self, factor: FactorId, now: Timestamp) {
        self.0.insert(factor, Timestamp::from_secs(now.as_secs()));
    }

    /// Whether the factor was completed, whenever.
    pub fn contains(&self, factor: &FactorId) -> bool {
        self.0.contains_key(factor)
    }

    /// When the factor was completed last.
    pub fn at(&self, factor: &FactorId) -> Option<Timestamp> {
        self.0.get(factor).copied()
    }

    /// Whether the factor was completed within the last `age` (row P13).
    pub fn within(&self, factor: &FactorId, age: Duration, now: Timestamp) -> bool {
        self.at(factor).is_some_and(|at| at <= now + AHEAD && now.since(at) <= age)
    }

    /// The factors and their times.
    pub fn iter(&self) -> impl Iterator<Item = (&FactorId, Timestamp)> {
        self.0.iter().map(|(factor, at)| (factor, *at))
    }

    /// The factor that was completed first: the one that made the session.
    pub(crate) fn first(&self) -> Option<&FactorId> {
        self.0.iter().min_by_key(|(_, at)| **at).map(|(factor, _)| factor)
    }
}

impl FromIterator<(FactorId, Timestamp)> for CompletedFactors {
    fn from_iter<I: IntoIterator<Item = (FactorId, Timestamp)>>(entries: I) -> Self {
        let mut completed = Self::new();
        for (factor, at) in entries {
            completed.insert(factor, at);
        }
        completed
    }
}

/// One item of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Requirement {
    /// This factor.
    Factor(FactorId),
    /// Any one of these; none demand nothing.
    OneOf(Vec<FactorId>),
    /// All of these, in any order.
    AllOf(Vec<FactorId>),
}

impl Requirement {
    /// Any one of these.
    pub fn one_of(factors: impl IntoIterator<Item = FactorId>) -> Self {
        Self::OneOf(factors.into_iter().collect())
    }

    /// All of these, in any order.
    pub fn all_of(factors: impl IntoIterator<Item = FactorId>) -> Self {
        Self::AllOf(factors.into_iter().collect())
    }

    /// The factors it names.
    pub fn factors(&self) -> &[FactorId] {
        match self {
            Self::Factor(factor) => std::slice::from_ref(factor),
            Self::OneOf(factors) | Self::AllOf(factors) => factors,
        }
    }

    /// What is left to do, each factor once; empty when it is met.
    fn open(&self, met: impl Fn(&FactorId) -> bool) -> Vec<FactorId> {
        let open: Vec<&FactorId> = match self {
            Self::OneOf(factors) if factors.iter().any(&met) => Vec::new(),
            Self::OneOf(factors) => factors.iter().collect(),
            Self::Factor(_) | Self::AllOf(_) => self.factors().iter().filter(|factor| !met(factor)).collect(),
        };
        let mut once: Vec<FactorId> = Vec::with_capacity(open.len());
        for factor in open {
            if !once.contains(factor) {
                once.push(factor.clone());
            }
        }
        once
    }

    /// Reads an item of the wire: a factor id, `{"oneOf": […]}` or `{"allOfInAnyOrder": […]}`.
    ///
    /// # Errors
    /// If it says two things at once, nothing known, or names something that is no factor id (row P09).
    pub fn from_json(value: &Value) -> Result<Self, ParseError> {
        const WRONG: ParseError = ParseError::new("requirement");
        match value {
            Value::String(id) => FactorId::parse(id).map(Self::Factor),
            Value::Object(members) => {
                let mut members = members.iter();
                let (Some((name, Value::Array(ids))), None) = (members.next(), members.next()) else {
                    return Err(WRONG);
                };
                let ids = ids
                    .iter()
                    .map(|id| id.as_str().ok_or(WRONG).and_then(FactorId::parse))
                    .collect::<Result<_, _>>()?;
                match name.as_str() {
                    "oneOf" => Ok(Self::OneOf(ids)),
                    "allOfInAnyOrder" => Ok(Self::AllOf(ids)),
                    _ => Err(WRONG),
                }
            }
            _ => Err(WRONG),
        }
    }

    /// The item as the wire writes it.
    pub fn to_json(&self) -> Value {
        fn ids(factors: &[FactorId]) -> Vec<&str> {
            factors.iter().map(FactorId::as_str).collect()
        }
        match self {
            Self::Factor(factor) => json!(factor.as_str()),
            Self::OneOf(factors) => json!({ "oneOf": ids(factors) }),
            Self::AllOf(factors) => json!({ "allOfInAnyOrder": ids(factors) }),
        }
    }
}

/// An ordered list of what must be completed, and how long the answer holds.
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
}

/// What comes next: the item that decides, and the factors of it that are still open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextSet<'a> {
    /// The first item that isn't met.
    pub requirement: &'a Requirement,
    /// What is left of it, in its order, each once.
    pub factors: Vec<FactorId>,
}

impl Requirements {
    /// Nothing is required.
    pub fn none() -> Self {
        Self::default()
    }

    /// Only completions of at most this age count.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// The answer holds until then: the policy is asked again by the first request after it.
    pub fn until(mut self, at: Timestamp) -> Self {
        self.until = Some(self.until.map_or(at, |until| until.min(at)));
        self
    }

    /// The answer holds for one request: the policy is asked at each, which costs the session's row and
    /// the facts it reads.
    pub fn every_request(self) -> Self {
        self.until(Timestamp::EPOCH)
    }

    /// Until when the answer holds; `None` until something changes. With a maximum age that is at the
    /// latest when the next completion that counts now grows too old.
    pub(crate) fn holds_until(&self, done: &CompletedFactors, now: Timestamp) -> Option<Timestamp> {
        let lapses = self.max_age.and_then(|age| {
            let counted = self.factors().into_iter().filter_map(|factor| done.at(factor));
            counted.map(|at| at + age).filter(|lapse| *lapse >= now).min()
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
        let mut named: Vec<&FactorId> = Vec::new();
        for factor in self.items.iter().flat_map(Requirement::factors) {
            if !named.contains(&factor) {
                named.push(factor);
            }
        }
        named
    }

    /// The first item that isn't met; `None` when all are.
    pub fn next<'a>(&'a self, done: &CompletedFactors, now: Timestamp) -> Option<&'a Requirement> {
        self.next_set(done, now).map(|next| next.requirement)
    }

    /// The first item that isn't met, and what is left of it.
    pub fn next_set<'a>(&'a self, done: &CompletedFactors, now: Timestamp) -> Option<NextSet<'a>> {
        let met = |factor: &FactorId| match self.max_age {
            Some(age) => done.within(factor, age, now),
            None => done.contains(factor),
        };
        self.items.iter().find_map(|requirement| {
            let factors = requirement.open(met);
            (!factors.is_empty()).then_some(NextSet { requirement, factors })
        })
    }

    /// Reads a list of the wire.
    ///
    /// # Errors
    /// As [`Requirement::from_json`], and if it is no array.
    pub fn from_json(value: &Value) -> Result<Self, ParseError> {
        let items = value.as_array().ok_or(ParseError::new("requirement list"))?;
        items.iter().map(Requirement::from_json).collect()
    }

    /// The list as the wire writes it.
    pub fn to_json(&self) -> Value {
        self.items.iter().map(Requirement::to_json).collect()
    }

    /// The list with each item changed, or left out.
    pub(crate) fn map(mut self, change: impl Fn(Requirement) -> Option<Requirement>) -> Self {
        self.items = self.items.into_iter().filter_map(change).collect();
        self
    }
}

impl FromIterator<Requirement> for Requirements {
    fn from_iter<I: IntoIterator<Item = Requirement>>(items: I) -> Self {
        Self { items: items.into_iter().collect(), max_age: None, until: None }
    }
}

impl From<Requirement> for Requirements {
    fn from(item: Requirement) -> Self {
        Self::from_iter([item])
    }
}

impl From<FactorId> for Requirement {
    fn from(factor: FactorId) -> Self {
        Self::Factor(factor)
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
    use super::*;

    #[test]
    fn sec_p10_unknown_factors_are_named() {
        let known = |factor: &FactorId| [FactorId::TOTP, FactorId::OTP_EMAIL].contains(factor);
        for (list, first) in [
            (json!([]), None),
            (json!(["totp", {"oneOf": ["otp-email", "totp"]}, {"allOfInAnyOrder": []}]), None),
            (json!(["otp_email"]), Some("otp_email")),
            (json!(["TOTP"]), Some("TOTP")),
            (json!(["totp", {"oneOf": ["totp", "webauthn"]}, "x"]), Some("webauthn")),
            (json!([{"allOfInAnyOrder": ["totp", " totp"]}]), Some(" totp")),
        ] {
            let found = unknown(&Requirements::from_json(&list).unwrap(), known);
            assert_eq!(found.as_ref().map(FactorId::as_str), first, "{list}");
        }
    }

    #[test]
    fn sec_p09_odd_items_are_refused() {
        for bad in [
            json!({}),
            json!({"anyOf": ["totp"]}),
            json!({"oneOf": ["totp"], "allOfInAnyOrder": []}),
            json!({"oneOf": "totp"}),
            json!({"oneOf": [1]}),
            json!(["totp"]),
            json!(null),
            json!("totp\n"),
            json!("x".repeat(65)),
        ] {
            assert!(Requirement::from_json(&bad).is_err(), "{bad}");
        }
        let list = json!(["totp", {"oneOf": []}, {"allOfInAnyOrder": ["a", "b"]}]);
        assert_eq!(Requirements::from_json(&list).unwrap().to_json(), list);
    }

    #[test]
    fn sec_p12_only_whole_seconds_complete() {
        let odd = json!({"a": null, "b": "1", "c": -1, "d": 1.5, "e": true, "f": [], "g": 0, "h": 1_702_877_939_342_u64});
        let read = CompletedFactors::from_json(&odd);
        assert_eq!(read.to_json(), json!({"g": 0, "h": 1_702_877_939}));
        assert_eq!(CompletedFactors::from_json(&json!([1])), CompletedFactors::new());
    }

    #[test]
    fn sec_p13_age_at_the_boundary() {
        let at = Timestamp::from_secs(1_000_000);
        let done = CompletedFactors::from_iter([(FactorId::TOTP, at)]);
        let list = Requirements::from(FactorId::TOTP).max_age(Duration::from_secs(300));
        let met = |offset: i64| list.next(&done, Timestamp::from_millis(at.as_millis() + offset)).is_none();
        assert!(met(0) && met(300_000) && met(-30_000));
        assert!(!met(300_001) && !met(-30_001));
    }
}
