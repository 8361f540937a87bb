//! The claims of a session that belong to the app and to the crate's claim types.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::error::{Error, ErrorKind};

/// Members of an access token that the crate writes itself (row J26). An app's payload can't name them.
pub(crate) const PROTECTED: [&str; 16] = [
    "sub",
    "rsub",
    "tId",
    "sessionHandle",
    "refreshTokenHash1",
    "parentRefreshTokenHash1",
    "antiCsrfToken",
    "iat",
    "exp",
    "iss",
    "aud",
    "nbf",
    "jti",
    "stt",
    "ep",
    "version",
];

/// The access token's payload without the crate's own members: what claims and handlers read.
///
/// ```
/// use serde_json::json;
/// use tower_mfa::ident::Payload;
/// let payload = Payload::from_json(json!({"plan": "paid"}))?;
/// assert_eq!(payload.member("plan"), Some(&json!("paid")));
/// assert!(Payload::from_json(json!({"sub": "someone else"})).is_err());
/// # Ok::<(), tower_mfa::Error>(())
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Payload(Map<String, Value>);

impl Payload {
    /// An empty payload.
    pub fn new() -> Self {
        Self::default()
    }

    /// From a JSON object.
    ///
    /// # Errors
    /// `Invalid` if the value is no object or names a member that the crate writes itself.
    pub fn from_json(value: Value) -> Result<Self, Error> {
        let Value::Object(members) = value else {
            return Err(Error::invalid("a payload is a JSON object"));
        };
        check(&members)?;
        Ok(Self(members))
    }

    /// From an opened token, whose protected members were taken out.
    pub(crate) fn from_members(mut members: Map<String, Value>) -> Self {
        members.retain(|name, _| !PROTECTED.contains(&name.as_str()));
        Self(members)
    }

    /// One member.
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The members in order of their names.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Merges `update`: each member replaces the one of its name, `null` removes it. Returns whether
    /// anything changed.
    pub(crate) fn merge(&mut self, update: &Payload) -> bool {
        let mut changed = false;
        for (name, value) in &update.0 {
            changed |= if value.is_null() {
                self.0.remove(name).is_some()
            } else {
                self.0.insert(name.clone(), value.clone()).as_ref() != Some(value)
            };
        }
        changed
    }

    /// As a token can carry it: without members that the crate writes itself, whatever put them there.
    pub(crate) fn for_token(self) -> Self {
        Self::from_members(self.0)
    }

    /// Sets one member without asking whether it is protected: for the crate's own claims.
    pub(crate) fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// Removes one member.
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }
}

fn check(members: &Map<String, Value>) -> Result<(), Error> {
    match PROTECTED.into_iter().find(|name| members.contains_key(*name)) {
        // The name is the source: a constant of ours, whatever was typed.
        Some(name) => Err(Error::with(
            ErrorKind::Invalid,
            "the payload names a member that only the crate writes",
            name,
        )),
        None => Ok(()),
    }
}

/// Names only: values may be anything an app keeps there.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sec_j26_protected_members_are_refused_by_name() {
        for name in PROTECTED {
            assert!(Payload::from_json(json!({ name: 1 })).is_err(), "{name}");
        }
    }

    #[test]
    fn null_removes() {
        let mut payload = Payload::from_json(json!({"a": 1, "b": 2})).unwrap();
        assert!(payload.merge(&Payload::from_json(json!({"a": null, "c": 3})).unwrap()));
        assert_eq!(payload, Payload::from_json(json!({"b": 2, "c": 3})).unwrap());
        assert!(!payload.merge(&Payload::from_json(json!({"a": null, "c": 3})).unwrap()));
    }
}
