//! What was completed in a session, and when.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

use crate::base::{ident::FactorId, time::Timestamp};

/// The factors completed in a session, each with the time, in whole seconds.
///
/// The first of them made the session: the one with the earliest stamp, or, where stamps don't tell (two
/// within one second, or the first proved again later), the one that was remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompletedFactors {
    stamps: BTreeMap<FactorId, Timestamp>,
    /// Only where the stamps alone would say another.
    first: Option<FactorId>,
}

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
        Self { stamps: entries.collect(), first: None }
    }

    /// The member `c` of the claim: whole seconds.
    pub fn to_json(&self) -> Value {
        Value::Object(
            self.stamps.iter().map(|(id, at)| (id.to_string(), json!(at.as_secs()))).collect::<Map<_, _>>(),
        )
    }

    /// Stamps a factor as completed now, in whole seconds.
    pub fn insert(&mut self, factor: FactorId, now: Timestamp) {
        let first = self.first().cloned();
        self.stamps.insert(factor, Timestamp::from_secs(now.as_secs()));
        if first.is_some() && self.earliest() != first.as_ref() {
            self.first = first;
        }
    }

    /// Whether the factor was completed, whenever.
    pub fn contains(&self, factor: &FactorId) -> bool {
        self.stamps.contains_key(factor)
    }

    /// When the factor was completed last.
    pub fn at(&self, factor: &FactorId) -> Option<Timestamp> {
        self.stamps.get(factor).copied()
    }

    /// Whether the factor was completed within the last `age` (row P13).
    pub fn within(&self, factor: &FactorId, age: Duration, now: Timestamp) -> bool {
        self.at(factor).is_some_and(|at| at <= now + AHEAD && now.since(at) <= age)
    }

    /// The factors and their times.
    pub fn iter(&self) -> impl Iterator<Item = (&FactorId, Timestamp)> {
        self.stamps.iter().map(|(factor, at)| (factor, *at))
    }

    /// The factor that was completed first: the one that made the session.
    pub fn first(&self) -> Option<&FactorId> {
        self.first.as_ref().or_else(|| self.earliest())
    }

    /// The first factor, where the stamps alone would say another.
    pub(crate) fn first_beyond_stamps(&self) -> Option<&FactorId> {
        self.first.as_ref()
    }

    /// With the first factor as it was remembered; one that isn't among the completed ones is nothing.
    pub(crate) fn begun_with(mut self, first: Option<FactorId>) -> Self {
        self.first = first.filter(|first| self.contains(first) && self.earliest() != Some(first));
        self
    }

    fn earliest(&self) -> Option<&FactorId> {
        self.stamps.iter().min_by_key(|(_, at)| **at).map(|(factor, _)| factor)
    }
}

impl FromIterator<(FactorId, Timestamp)> for CompletedFactors {
    fn from_iter<I: IntoIterator<Item = (FactorId, Timestamp)>>(entries: I) -> Self {
        let whole = |(factor, at): (FactorId, Timestamp)| (factor, Timestamp::from_secs(at.as_secs()));
        Self { stamps: entries.into_iter().map(whole).collect(), first: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_p12_only_whole_seconds_complete() {
        let odd = json!({"a": null, "b": "1", "c": -1, "d": 1.5, "e": true, "f": [], "g": 0, "h": 1_702_877_939_342_u64});
        let read = CompletedFactors::from_json(&odd);
        assert_eq!(read.to_json(), json!({"g": 0, "h": 1_702_877_939}));
        assert_eq!(CompletedFactors::from_json(&json!([1])), CompletedFactors::new());
    }

    #[test]
    fn the_first_factor_stays_the_first() {
        let at = Timestamp::from_secs;
        let (password, email, totp) = (FactorId::PASSWORD, FactorId::OTP_EMAIL, FactorId::TOTP);
        // In order; the first proved again; two within one second, against the order of their names.
        for (proofs, first, told) in [
            (vec![(&password, 10), (&email, 20)], &password, None),
            (vec![(&password, 10), (&email, 20), (&password, 30)], &password, Some(&password)),
            (vec![(&email, 10), (&password, 10)], &email, Some(&email)),
            (vec![(&email, 10), (&password, 10), (&totp, 10), (&email, 40)], &email, Some(&email)),
            (vec![(&password, 10), (&password, 30), (&email, 40)], &password, None),
        ] {
            let mut done = CompletedFactors::new();
            for (factor, secs) in &proofs {
                done.insert((*factor).clone(), at(*secs));
            }
            assert_eq!((done.first(), done.first_beyond_stamps()), (Some(first), told), "{proofs:?}");
            let read = CompletedFactors::from_json(&done.to_json()).begun_with(told.cloned());
            assert_eq!(read, done, "{proofs:?}");
        }
        let done = CompletedFactors::from_iter([(password.clone(), at(10)), (email, at(20))]);
        assert_eq!(done.begun_with(Some(totp)).first(), Some(&password), "what wasn't completed isn't first");
    }
}
