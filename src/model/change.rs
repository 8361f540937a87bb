//! The change feed's records: what happened to the sessions of whom (design, part 5, last life).

use serde::{Deserialize, Serialize};

use crate::base::{
    ident::{SessionHandle, TenantId, UserId},
    time::Timestamp,
};

/// One change: tokens that carry a lower number than `n` for `subject` are revoked, or judged anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// Whose number was raised.
    pub(crate) subject: Subject,
    /// The number it was raised to: the first one that the change does not concern.
    pub(crate) n: u64,
    /// What becomes of tokens with a lower one.
    pub(crate) kind: ChangeKind,
    /// When, by the store's clock.
    pub(crate) at: Timestamp,
}

/// Whose sessions a change concerns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    /// Everyone's.
    App,
    /// Those in a tenant.
    Tenant(TenantId),
    /// Those of a user.
    User(UserId),
    /// One session.
    Session(SessionHandle),
}

/// What becomes of the tokens a change concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChangeKind {
    /// Dead; no refresh helps.
    Revoked,
    /// Its claims are out of date: ask the policy again.
    JudgeAnew,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stored_form() {
        let change =
            |subject| Change { subject, n: 7, kind: ChangeKind::JudgeAnew, at: Timestamp::from_millis(5) };
        let handle = "00000000-0000-4000-8000-000000000000";
        for (subject, stored) in [
            (Subject::App, json!("app")),
            (Subject::Tenant(TenantId::PUBLIC), json!({"tenant": "public"})),
            (Subject::User(UserId::parse("u").unwrap()), json!({"user": "u"})),
            (Subject::Session(SessionHandle::parse(handle).unwrap()), json!({"session": handle})),
        ] {
            let stored = json!({"subject": stored, "n": 7, "kind": "judge_anew", "at": 5});
            assert_eq!(serde_json::to_value(change(subject.clone())).unwrap(), stored);
            assert_eq!(serde_json::from_value::<Change>(stored).unwrap(), change(subject));
        }
    }
}
