//! One requirement: a factor, or others put together. Its shape, its builders, and how it is written.
//!
//! What a requirement still needs is worked out in `algebra.rs`; lists of them are in `list.rs`.
//!
//! # Written as JSON
//! The wire knows three forms, flat: a factor id, `{"oneOf": […]}` and `{"allOfInAnyOrder": […]}`. The
//! other forms are this crate's own, each an object of one member, so that nothing can say two things:
//!
//! | form | is |
//! |---|---|
//! | `{"oneOf": [item, …]}`, `{"allOfInAnyOrder": [item, …]}` | as on the wire, with items in items |
//! | `{"inOrder": [item, …]}` | all of them, one after the other |
//! | `{"kOf": {"k": 2, "of": [item, …]}}` | any two of them |
//! | `{"maxAge": {"seconds": 300, "of": item}}` | completed at most so long ago |
//! | `{"excludingFirstFactor": item}` | the factor that made the session doesn't count |
//! | `{"distinctChannels": item}` | of the factors over one channel one counts |
//! | `{"phishingResistant": item}` | only factors count that can't be phished |

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::base::{distinct, error::ParseError, ident::FactorId};

/// What must be completed: a factor, or requirements put together.
///
/// ```
/// use std::time::Duration;
/// use tower_mfa::{FactorId, Requirement, Requirements, ident::Timestamp, policy::CompletedFactors};
/// // A passkey, or any two of three within the hour, of which no two go to the same mailbox.
/// let two = Requirement::k_of(2, [FactorId::TOTP, FactorId::OTP_EMAIL, FactorId::LINK_EMAIL]);
/// let strong = Requirement::one_of([
///     Requirement::from(FactorId::WEBAUTHN),
///     two.distinct_channels().max_age(Duration::from_secs(3600)),
/// ]);
/// let (list, now) = (Requirements::from(strong), Timestamp::from_secs(1_702_877_939));
/// let mut done = CompletedFactors::new();
/// done.insert(FactorId::OTP_EMAIL, now);
/// // A link to the mailbox that just got a code brings nothing.
/// assert_eq!(list.next_set(&done, now).unwrap().factors, [FactorId::WEBAUTHN, FactorId::TOTP]);
/// done.insert(FactorId::TOTP, now);
/// assert!(list.next_set(&done, now).is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Requirement {
    /// This factor.
    Factor(FactorId),
    /// Any one of these; none demand nothing.
    OneOf(Vec<Requirement>),
    /// All of these, in any order; none demand nothing.
    AllOf(Vec<Requirement>),
    /// All of these, one after the other: the order in which they are asked for, not one in which they must
    /// have been completed.
    InOrder(Vec<Requirement>),
    /// So many of these. Fewer alternatives than that can't be met.
    KOf(usize, Vec<Requirement>),
    /// A requirement that looks at part of what was completed.
    Limited(Limit, Box<Requirement>),
}

/// What counts for the requirement it stands around, and for all within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Only what was completed at most so long ago.
    MaxAge(Duration),
    /// Not the factor that made the session; under [`Limit::DistinctChannels`] nothing over its channel.
    ExcludingFirstFactor,
    /// Of the factors over one channel (a code and a link to one mailbox, or to one phone), one.
    DistinctChannels,
    /// Only factors that can't be phished: `webauthn`.
    PhishingResistant,
}

impl Requirement {
    /// Any one of these.
    pub fn one_of(items: impl IntoIterator<Item = impl Into<Requirement>>) -> Self {
        Self::OneOf(items.into_iter().map(Into::into).collect())
    }

    /// All of these, in any order.
    pub fn all_of(items: impl IntoIterator<Item = impl Into<Requirement>>) -> Self {
        Self::AllOf(items.into_iter().map(Into::into).collect())
    }

    /// All of these, one after the other.
    pub fn in_order(items: impl IntoIterator<Item = impl Into<Requirement>>) -> Self {
        Self::InOrder(items.into_iter().map(Into::into).collect())
    }

    /// Any `k` of these.
    pub fn k_of(k: usize, items: impl IntoIterator<Item = impl Into<Requirement>>) -> Self {
        Self::KOf(k, items.into_iter().map(Into::into).collect())
    }

    /// Only completions of at most this age count. Within another, the shorter one holds. Completions are stamped in
    /// whole seconds, rounded down, so that a second of it may be over at once: a policy's is two at least.
    pub fn max_age(self, age: Duration) -> Self {
        self.limited(Limit::MaxAge(age))
    }

    /// The factor that made the session doesn't count.
    pub fn excluding_first_factor(self) -> Self {
        self.limited(Limit::ExcludingFirstFactor)
    }

    /// Of the factors over one channel one counts: `otp-email` and `link-email`, `otp-phone` and
    /// `link-phone`. With [`Requirement::excluding_first_factor`] the first factor's channel is used up.
    pub fn distinct_channels(self) -> Self {
        self.limited(Limit::DistinctChannels)
    }

    /// Only factors count that can't be phished: passkeys.
    pub fn phishing_resistant(self) -> Self {
        self.limited(Limit::PhishingResistant)
    }

    pub(crate) fn limited(self, limit: Limit) -> Self {
        Self::Limited(limit, Box::new(self))
    }

    /// The factors it names, each once, in order.
    pub fn factors(&self) -> Vec<&FactorId> {
        let mut named: Vec<&FactorId> = Vec::new();
        self.leaves(None, &mut |factor, _| named.push(factor));
        distinct(named)
    }

    /// Every factor that is named, with the age that holds for it.
    pub(crate) fn leaves<'a>(
        &'a self,
        age: Option<Duration>,
        visit: &mut dyn FnMut(&'a FactorId, Option<Duration>),
    ) {
        match self {
            Self::Factor(factor) => visit(factor, age),
            Self::Limited(Limit::MaxAge(own), inner) => inner.leaves(Some(shorter(age, *own)), visit),
            Self::Limited(_, inner) => inner.leaves(age, visit),
            Self::OneOf(items) | Self::AllOf(items) | Self::InOrder(items) | Self::KOf(_, items) => {
                items.iter().for_each(|item| item.leaves(age, visit));
            }
        }
    }

    /// The requirement without its limits.
    pub(crate) fn bare(&self) -> &Self {
        match self {
            Self::Limited(_, inner) => inner.bare(),
            other => other,
        }
    }

    /// What stays of it when only some factors may be asked for; `None` if nothing does.
    ///
    /// All of several becomes all of those that stay. Where there is a choice, alternatives that stay whole
    /// are the choice; only if none does (or fewer than are asked for) those count that lost a part.
    pub(crate) fn keep(self, wanted: &dyn Fn(&FactorId) -> bool) -> Option<Self> {
        self.kept(wanted).map(|(kept, _)| kept)
    }

    /// What stays, and whether it asks for less than before.
    fn kept(self, wanted: &dyn Fn(&FactorId) -> bool) -> Option<(Self, bool)> {
        let every = |items: Vec<Self>| {
            let before = items.len();
            let kept: Vec<(Self, bool)> = items.into_iter().filter_map(|item| item.kept(wanted)).collect();
            let less = kept.len() < before || kept.iter().any(|(_, less)| *less);
            (!kept.is_empty()).then(|| (kept.into_iter().map(|(item, _)| item).collect::<Vec<_>>(), less))
        };
        let some = |k: usize, items: Vec<Self>| {
            let kept: Vec<(Self, bool)> = items.into_iter().filter_map(|item| item.kept(wanted)).collect();
            let whole: Vec<Self> =
                kept.iter().filter(|(_, less)| !less).map(|(item, _)| item.clone()).collect();
            let less = whole.len() < k;
            let items = if less { kept.into_iter().map(|(item, _)| item).collect() } else { whole };
            (!items.is_empty()).then_some((items, less))
        };
        match self {
            Self::Factor(factor) => wanted(&factor).then_some((Self::Factor(factor), false)),
            Self::OneOf(items) => some(1, items).map(|(items, less)| (Self::OneOf(items), less)),
            Self::KOf(k, items) => {
                some(k, items).map(|(items, less)| (Self::KOf(k.min(items.len()), items), less))
            }
            Self::AllOf(items) => every(items).map(|(items, less)| (Self::AllOf(items), less)),
            Self::InOrder(items) => every(items).map(|(items, less)| (Self::InOrder(items), less)),
            Self::Limited(limit, inner) => inner.kept(wanted).map(|(it, less)| (it.limited(limit), less)),
        }
    }

    /// Reads an item: a form of the wire or one of this crate's own, see the module `requirement`.
    ///
    /// # Errors
    /// If it says two things at once, nothing known, or names something that is no factor id (row P09).
    pub fn from_json(value: &Value) -> Result<Self, ParseError> {
        match value {
            Value::String(id) => FactorId::parse(id).map(Self::Factor),
            Value::Object(members) => {
                let mut members = members.iter();
                let (Some((name, value)), None) = (members.next(), members.next()) else {
                    return Err(WRONG);
                };
                Ok(match name.as_str() {
                    "oneOf" => Self::OneOf(items(value)?),
                    "allOfInAnyOrder" => Self::AllOf(items(value)?),
                    "inOrder" => Self::InOrder(items(value)?),
                    "kOf" => {
                        let (k, of) = pair(value, "k")?;
                        Self::KOf(usize::try_from(k).map_err(|_| WRONG)?, items(of)?)
                    }
                    "maxAge" => {
                        let (seconds, of) = pair(value, "seconds")?;
                        Self::from_json(of)?.max_age(Duration::from_secs(seconds))
                    }
                    "excludingFirstFactor" => Self::from_json(value)?.excluding_first_factor(),
                    "distinctChannels" => Self::from_json(value)?.distinct_channels(),
                    "phishingResistant" => Self::from_json(value)?.phishing_resistant(),
                    _ => return Err(WRONG),
                })
            }
            _ => Err(WRONG),
        }
    }

    /// The item in writing; ages in whole seconds, rounded down.
    pub fn to_json(&self) -> Value {
        let all = |items: &[Self]| -> Value { items.iter().map(Self::to_json).collect() };
        match self {
            Self::Factor(factor) => json!(factor.as_str()),
            Self::OneOf(items) => json!({ "oneOf": all(items) }),
            Self::AllOf(items) => json!({ "allOfInAnyOrder": all(items) }),
            Self::InOrder(items) => json!({ "inOrder": all(items) }),
            Self::KOf(k, items) => json!({ "kOf": { "k": k, "of": all(items) } }),
            Self::Limited(limit, inner) => {
                let inner = inner.to_json();
                match limit {
                    Limit::MaxAge(age) => json!({ "maxAge": { "seconds": age.as_secs(), "of": inner } }),
                    Limit::ExcludingFirstFactor => json!({ "excludingFirstFactor": inner }),
                    Limit::DistinctChannels => json!({ "distinctChannels": inner }),
                    Limit::PhishingResistant => json!({ "phishingResistant": inner }),
                }
            }
        }
    }
}

impl From<FactorId> for Requirement {
    fn from(factor: FactorId) -> Self {
        Self::Factor(factor)
    }
}

/// The shorter of two ages, where one may be missing.
pub(crate) fn shorter(age: Option<Duration>, other: Duration) -> Duration {
    age.map_or(other, |age| age.min(other))
}

const WRONG: ParseError = ParseError::new("requirement");

fn items(value: &Value) -> Result<Vec<Requirement>, ParseError> {
    value.as_array().ok_or(WRONG)?.iter().map(Requirement::from_json).collect()
}

/// A number by this name, and what it is about: two members, no more.
fn pair<'a>(value: &'a Value, number: &str) -> Result<(u64, &'a Value), ParseError> {
    let members: &Map<String, Value> = value.as_object().filter(|members| members.len() == 2).ok_or(WRONG)?;
    let number = members.get(number).and_then(Value::as_u64).ok_or(WRONG)?;
    Ok((number, members.get("of").ok_or(WRONG)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_p09_odd_items_are_refused() {
        for bad in [
            json!({}),
            json!({"anyOf": ["totp"]}),
            json!({"oneOf": ["totp"], "allOfInAnyOrder": []}),
            json!({"oneOf": "totp"}),
            json!({"oneOf": [1]}),
            json!({"oneOf": [{}]}),
            json!({"oneOf": [{"oneOf": [], "inOrder": []}]}),
            json!({"kOf": ["totp"]}),
            json!({"kOf": {"k": 1}}),
            json!({"kOf": {"k": -1, "of": []}}),
            json!({"kOf": {"k": 1.5, "of": []}}),
            json!({"kOf": {"k": 1, "of": [], "max": 2}}),
            json!({"k": 1, "of": ["totp"]}),
            json!({"maxAge": {"seconds": "300", "of": "totp"}}),
            json!({"maxAge": 300, "oneOf": ["totp"]}),
            json!({"distinctChannels": ["totp"]}),
            json!(["totp"]),
            json!(null),
            json!("totp\n"),
            json!("x".repeat(65)),
        ] {
            assert!(Requirement::from_json(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_read_is_written() {
        for item in [
            json!("totp"),
            json!({"oneOf": []}),
            json!({"allOfInAnyOrder": ["a", "b"]}),
            json!({"oneOf": ["a", {"allOfInAnyOrder": ["b", {"inOrder": ["c", "d"]}]}]}),
            json!({"kOf": {"k": 2, "of": ["a", "b", {"oneOf": ["c"]}]}}),
            json!({"maxAge": {"seconds": 300, "of": {"excludingFirstFactor": {"oneOf": ["a"]}}}}),
            json!({"distinctChannels": {"phishingResistant": "webauthn"}}),
        ] {
            assert_eq!(Requirement::from_json(&item).unwrap().to_json(), item);
        }
    }

    /// What may be asked for is `a`, `b`, `c`.
    #[test]
    fn what_stays_of_a_requirement() {
        let wanted = |factor: &FactorId| ["a", "b", "c"].contains(&factor.as_str());
        for (before, after) in [
            (json!("a"), json!("a")),
            (json!("x"), json!(null)),
            (json!({"oneOf": []}), json!(null)),
            (json!({"oneOf": ["x", "a"]}), json!({"oneOf": ["a"]})),
            (json!({"allOfInAnyOrder": ["x", "a"]}), json!({"allOfInAnyOrder": ["a"]})),
            (json!({"inOrder": ["x", {"oneOf": ["y"]}]}), json!(null)),
            // Whole alternatives before those that lost something: `a` alone isn't enough.
            (json!({"oneOf": [{"allOfInAnyOrder": ["a", "x"]}, "b"]}), json!({"oneOf": ["b"]})),
            (
                json!({"oneOf": [{"allOfInAnyOrder": ["a", "x"]}, "y"]}),
                json!({"oneOf": [{"allOfInAnyOrder": ["a"]}]}),
            ),
            // A smaller choice is no less.
            (
                json!({"oneOf": [{"oneOf": ["a", "x"]}, {"inOrder": ["b", "x"]}]}),
                json!({"oneOf": [{"oneOf": ["a"]}]}),
            ),
            (json!({"kOf": {"k": 2, "of": ["a", "x", "b"]}}), json!({"kOf": {"k": 2, "of": ["a", "b"]}})),
            (json!({"kOf": {"k": 2, "of": ["a", "x", "y"]}}), json!({"kOf": {"k": 1, "of": ["a"]}})),
            (
                json!({"maxAge": {"seconds": 9, "of": {"oneOf": ["a", "x"]}}}),
                json!({"maxAge": {"seconds": 9, "of": {"oneOf": ["a"]}}}),
            ),
        ] {
            let kept = Requirement::from_json(&before).unwrap().keep(&wanted);
            assert_eq!(kept.map_or(Value::Null, |kept| kept.to_json()), after, "{before}");
        }
    }
}
