//! Validators over claims that are one value or a list (`spec/wire.md` §5.3, §5.4).

use std::{marker::PhantomData, time::Duration};

use serde_json::{Map, Value, json};

use super::{ClaimRef, ClaimValidator, InvalidClaim, SessionClaim, Stamped};
use crate::base::{payload::Payload, time::Timestamp};

/// What is common to the validators of one claim.
struct Over<C> {
    id: String,
    claim: ClaimRef,
    max_age: Option<Duration>,
    _claim: PhantomData<fn() -> C>,
}

impl<C: SessionClaim> Over<C> {
    fn new(claim: C) -> Self {
        Self { id: C::KEY.to_owned(), claim: ClaimRef::new(claim), max_age: None, _claim: PhantomData }
    }

    fn value(&self, payload: &Payload) -> Option<Stamped<Value>> {
        payload.member(C::KEY).and_then(Stamped::read)
    }

    fn refetch(&self, payload: &Payload, now: Timestamp) -> Option<ClaimRef> {
        let due = self.value(payload).is_none_or(|stamped| self.is_old(&stamped, now));
        due.then(|| self.claim.clone())
    }

    fn is_old(&self, stamped: &Stamped<Value>, now: Timestamp) -> bool {
        self.max_age.is_some_and(|age| stamped.t + age < now)
    }

    /// The three reasons: absent, too old, wrong. `expected` names what was wanted.
    fn judge(
        &self,
        payload: &Payload,
        now: Timestamp,
        expected: (&str, Value),
        holds: impl FnOnce(&Value) -> bool,
    ) -> Result<(), InvalidClaim> {
        let mut reason = Map::new();
        let Some(stamped) = self.value(payload) else {
            reason.insert("message".to_owned(), json!("value does not exist"));
            reason.insert(expected.0.to_owned(), expected.1);
            return Err(InvalidClaim::new(&self.id, Value::Object(reason)));
        };
        if let (true, Some(age)) = (self.is_old(&stamped, now), self.max_age) {
            reason.insert("message".to_owned(), json!("expired"));
            reason.insert("ageInSeconds".to_owned(), json!(now.since(stamped.t).as_secs()));
            reason.insert("maxAgeInSeconds".to_owned(), json!(age.as_secs()));
            return Err(InvalidClaim::new(&self.id, Value::Object(reason)));
        }
        if holds(&stamped.v) {
            return Ok(());
        }
        reason.insert("message".to_owned(), json!("wrong value"));
        reason.insert(expected.0.to_owned(), expected.1);
        reason.insert("actualValue".to_owned(), stamped.v);
        Err(InvalidClaim::new(&self.id, Value::Object(reason)))
    }
}

macro_rules! options {
    ($name:ident) => {
        impl<C: SessionClaim> $name<C> {
            /// Under another id than the claim's key.
            pub fn id(mut self, id: impl Into<String>) -> Self {
                self.over.id = id.into();
                self
            }

            /// Fetches the claim anew when it is older than this. There is no limit by default.
            pub fn max_age(mut self, age: Duration) -> Self {
                self.over.max_age = Some(age);
                self
            }
        }

        impl<C> std::fmt::Debug for $name<C> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).field("id", &self.over.id).finish_non_exhaustive()
            }
        }
    };
}

/// The claim is this value.
pub struct HasValue<C> {
    over: Over<C>,
    value: Value,
}

options!(HasValue);

impl<C: SessionClaim> HasValue<C> {
    /// `claim` must be `value`.
    ///
    /// # Errors
    /// If the value can't be written as JSON.
    pub fn new(claim: C, value: C::Value) -> Result<Self, crate::Error> {
        let stamped = Stamped { v: value, t: Timestamp::EPOCH }.write()?;
        Ok(Self { over: Over::new(claim), value: stamped.get("v").cloned().unwrap_or_default() })
    }
}

impl<C: SessionClaim<Value = bool>> HasValue<C> {
    /// `claim` must be true.
    pub fn is_true(claim: C) -> Self {
        Self { over: Over::new(claim), value: Value::Bool(true) }
    }

    /// `claim` must be false.
    pub fn is_false(claim: C) -> Self {
        Self { over: Over::new(claim), value: Value::Bool(false) }
    }
}

impl<C: SessionClaim> ClaimValidator for HasValue<C> {
    fn id(&self) -> &str {
        &self.over.id
    }

    fn validate(&self, payload: &Payload, now: Timestamp) -> Result<(), InvalidClaim> {
        let expected = ("expectedValue", self.value.clone());
        self.over.judge(payload, now, expected, |actual| *actual == self.value)
    }

    fn refetch(&self, payload: &Payload, now: Timestamp) -> Option<ClaimRef> {
        self.over.refetch(payload, now)
    }
}

/// The claim, a list, has these entries: all of them, or at least one.
pub struct Includes<C> {
    over: Over<C>,
    wanted: Vec<String>,
    how: How,
}

#[derive(Clone, Copy)]
enum How {
    One,
    All,
    Any,
}

options!(Includes);

impl<C: SessionClaim> Includes<C> {
    /// The list has this entry.
    pub fn new(claim: C, entry: impl Into<String>) -> Self {
        Self { over: Over::new(claim), wanted: vec![entry.into()], how: How::One }
    }

    /// The list has all of these.
    pub fn all<S: Into<String>>(claim: C, entries: impl IntoIterator<Item = S>) -> Self {
        Self { over: Over::new(claim), wanted: entries.into_iter().map(Into::into).collect(), how: How::All }
    }

    /// The list has at least one of these.
    pub fn any<S: Into<String>>(claim: C, entries: impl IntoIterator<Item = S>) -> Self {
        Self { over: Over::new(claim), wanted: entries.into_iter().map(Into::into).collect(), how: How::Any }
    }
}

impl<C: SessionClaim> ClaimValidator for Includes<C> {
    fn id(&self) -> &str {
        &self.over.id
    }

    fn validate(&self, payload: &Payload, now: Timestamp) -> Result<(), InvalidClaim> {
        let name = match self.how {
            How::One | How::All => "expectedToInclude",
            How::Any => "expectedToIncludeAtLeastOneOf",
        };
        self.over.judge(payload, now, (name, listed(&self.wanted, self.how)), |actual| match self.how {
            How::One | How::All => self.wanted.iter().all(|entry| holds(actual, entry)),
            How::Any => self.wanted.iter().any(|entry| holds(actual, entry)),
        })
    }

    fn refetch(&self, payload: &Payload, now: Timestamp) -> Option<ClaimRef> {
        self.over.refetch(payload, now)
    }
}

/// The claim, a list, has none of these entries.
pub struct Excludes<C> {
    over: Over<C>,
    unwanted: Vec<String>,
    how: How,
}

options!(Excludes);

impl<C: SessionClaim> Excludes<C> {
    /// The list lacks this entry.
    pub fn new(claim: C, entry: impl Into<String>) -> Self {
        Self { over: Over::new(claim), unwanted: vec![entry.into()], how: How::One }
    }

    /// The list lacks all of these.
    pub fn all<S: Into<String>>(claim: C, entries: impl IntoIterator<Item = S>) -> Self {
        let unwanted = entries.into_iter().map(Into::into).collect();
        Self { over: Over::new(claim), unwanted, how: How::All }
    }
}

impl<C: SessionClaim> ClaimValidator for Excludes<C> {
    fn id(&self) -> &str {
        &self.over.id
    }

    fn validate(&self, payload: &Payload, now: Timestamp) -> Result<(), InvalidClaim> {
        let expected = ("expectedToNotInclude", listed(&self.unwanted, self.how));
        self.over.judge(payload, now, expected, |actual| {
            actual.is_array() && !self.unwanted.iter().any(|entry| holds(actual, entry))
        })
    }

    fn refetch(&self, payload: &Payload, now: Timestamp) -> Option<ClaimRef> {
        self.over.refetch(payload, now)
    }
}

fn listed(entries: &[String], how: How) -> Value {
    match (how, entries.first()) {
        (How::One, Some(entry)) => json!(entry),
        _ => json!(entries),
    }
}

fn holds(list: &Value, entry: &str) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|value| value.as_str() == Some(entry)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::{EmailVerified, Roles};

    fn payload(key: &str, v: Value, t: i64) -> Payload {
        let mut payload = Payload::new();
        payload.set(key, json!({ "v": v, "t": t }));
        payload
    }

    fn reason(validator: &dyn ClaimValidator, payload: &Payload, now: i64) -> Option<Value> {
        validator.validate(payload, Timestamp::from_millis(now)).err().and_then(|invalid| invalid.reason)
    }

    #[test]
    fn reasons_are_the_wires() {
        let verified = HasValue::is_true(EmailVerified).max_age(Duration::from_secs(10));
        assert_eq!(
            reason(&verified, &Payload::new(), 0),
            Some(json!({"message": "value does not exist", "expectedValue": true}))
        );
        assert_eq!(reason(&verified, &payload("st-ev", json!(true), 0), 10_000), None);
        assert_eq!(
            reason(&verified, &payload("st-ev", json!(true), 0), 12_500),
            Some(json!({"message": "expired", "ageInSeconds": 12, "maxAgeInSeconds": 10}))
        );
        assert_eq!(
            reason(&verified, &payload("st-ev", json!(false), 0), 0),
            Some(json!({"message": "wrong value", "expectedValue": true, "actualValue": false}))
        );
        let roles = payload("st-role", json!(["a", "b"]), 0);
        assert_eq!(reason(&Includes::new(Roles, "a"), &roles, 0), None);
        assert_eq!(
            reason(&Includes::new(Roles, "c"), &roles, 0),
            Some(json!({"message": "wrong value", "expectedToInclude": "c", "actualValue": ["a", "b"]}))
        );
        assert_eq!(
            reason(&Includes::all(Roles, ["a", "c"]), &roles, 0),
            Some(
                json!({"message": "wrong value", "expectedToInclude": ["a", "c"], "actualValue": ["a", "b"]})
            )
        );
        assert_eq!(
            reason(&Includes::any(Roles, ["x"]), &roles, 0),
            Some(
                json!({"message": "wrong value", "expectedToIncludeAtLeastOneOf": ["x"], "actualValue": ["a", "b"]})
            )
        );
        assert_eq!(
            reason(&Excludes::new(Roles, "a"), &roles, 0),
            Some(json!({"message": "wrong value", "expectedToNotInclude": "a", "actualValue": ["a", "b"]}))
        );
        assert_eq!(reason(&Excludes::all(Roles, ["x", "y"]), &roles, 0), None);
        // A list that is no list includes nothing and excludes nothing.
        let odd = payload("st-role", json!("admin"), 0);
        assert!(reason(&Includes::new(Roles, "admin"), &odd, 0).is_some());
        assert!(reason(&Excludes::new(Roles, "admin"), &odd, 0).is_some());
    }
}
