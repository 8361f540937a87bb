//! Why a session isn't enough, item by item: for people, for programs, and for logs.
//!
//! It holds factor ids and fixed text, nothing that a user wrote, so that it may be shown and logged.

use std::{fmt, time::Duration};

use serde_json::{Value, json};

use super::{
    algebra::{Scope, is_met},
    completed::CompletedFactors,
    list::{NextSet, Requirements},
    requirement::{Limit, Requirement, shorter},
};
use crate::base::{counted, ident::FactorId, time::Timestamp};

/// What of a list is met and what isn't, item by item.
///
/// ```
/// use tower_mfa::{FactorId, Requirement, Requirements, ident::Timestamp, policy::{CompletedFactors, State}};
/// let list = Requirements::from_iter([
///     FactorId::PASSWORD.into(),
///     Requirement::one_of([FactorId::TOTP, FactorId::WEBAUTHN]),
/// ]);
/// let now = Timestamp::from_secs(1_702_877_939);
/// let mut done = CompletedFactors::new();
/// done.insert(FactorId::PASSWORD, now);
/// let why = list.explain(&done, now);
/// assert_eq!((why.items[0].state, why.items[1].state), (State::Satisfied, State::Missing));
/// assert_eq!(why.items[1].label, "one of: a code from an authenticator app; a passkey");
/// assert_eq!(why.to_string(), "emailpassword: satisfied, one of (totp, webauthn): missing");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The list's items, in order.
    pub items: Vec<Explained>,
    /// What the user is to do next; `None` if all is met.
    pub next: Option<NextStep>,
}

/// One item, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explained {
    /// For people, in English.
    pub label: String,
    /// How it stands.
    pub state: State,
    /// The factors it names.
    pub factors: Vec<FactorId>,
    /// At most so old, if it says so.
    pub max_age: Option<Duration>,
    /// What it is put together from; empty for a single factor.
    pub parts: Vec<Explained>,
    /// The same by factor ids, for logs.
    brief: String,
}

/// How an item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Nothing is left to do.
    Satisfied,
    /// Something is.
    Missing,
    /// Everything was done, but too long ago.
    Expired,
    /// Nothing that this user can do here would meet it.
    Impossible,
}

/// What the user is to do next: any one of the factors brings them a step further.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NextStep {
    /// Any of these. None: nothing helps (row P11).
    pub factors: Vec<FactorId>,
    /// Those of them that were completed too long ago.
    pub expired: Vec<FactorId>,
    /// How recent a completion must be, if that matters: the shortest age that holds for one of them.
    pub max_age: Option<Duration>,
}

impl Requirements {
    /// Explains how the list stands.
    pub fn explain(&self, done: &CompletedFactors, now: Timestamp) -> Explanation {
        let scope = self.scope(done, now);
        Explanation {
            items: self.items().iter().map(|item| Explained::of(item, &scope)).collect(),
            next: self.next_step(done, now),
        }
    }
}

impl Explanation {
    /// Whether nothing that the user can do would help (row P11).
    pub fn is_impossible(&self) -> bool {
        self.next.as_ref().is_some_and(NextStep::is_impossible)
    }

    /// The items as JSON, for clients: `label`, `state`, `factors`, and where they apply `maxAge` (seconds)
    /// and `parts`.
    pub fn to_json(&self) -> Value {
        self.items.iter().map(Explained::to_json).collect()
    }
}

/// For logs: factor ids and states.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.items.is_empty() {
            return f.write_str("nothing is required");
        }
        for (n, item) in self.items.iter().enumerate() {
            write!(f, "{}{}: {}", if n > 0 { ", " } else { "" }, item.brief, item.state)?;
        }
        Ok(())
    }
}

impl Explained {
    fn of<'a>(item: &'a Requirement, scope: &Scope<'a>) -> Self {
        let ways = item.ways(scope);
        let state = match () {
            () if is_met(&ways) => State::Satisfied,
            () if ways.is_empty() => State::Impossible,
            () if is_met(&item.ways(&scope.ageless())) => State::Expired,
            () => State::Missing,
        };
        let (mut scope, mut max_age) = (scope.clone(), None);
        let mut bare = item;
        while let Requirement::Limited(limit, inner) = bare {
            scope = scope.within(*limit);
            if let Limit::MaxAge(age) = limit {
                max_age = Some(shorter(max_age, *age));
            }
            bare = inner;
        }
        let parts = match bare {
            Requirement::OneOf(items)
            | Requirement::AllOf(items)
            | Requirement::InOrder(items)
            | Requirement::KOf(_, items) => items.iter().map(|part| Self::of(part, &scope)).collect(),
            _ => Vec::new(),
        };
        Self {
            label: written(item, &Style::PEOPLE),
            state,
            factors: item.factors().into_iter().cloned().collect(),
            max_age,
            parts,
            brief: brief(item),
        }
    }

    fn to_json(&self) -> Value {
        let factors: Vec<&str> = self.factors.iter().map(FactorId::as_str).collect();
        let mut item = json!({ "label": self.label, "state": self.state.as_str(), "factors": factors });
        if let Some(members) = item.as_object_mut() {
            if let Some(age) = self.max_age {
                members.insert("maxAge".to_owned(), json!(age.as_secs()));
            }
            if !self.parts.is_empty() {
                members.insert("parts".to_owned(), self.parts.iter().map(Self::to_json).collect());
            }
        }
        item
    }
}

impl State {
    /// `satisfied`, `missing`, `expired`, `impossible`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Satisfied => "satisfied",
            Self::Missing => "missing",
            Self::Expired => "expired",
            Self::Impossible => "impossible",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl NextStep {
    pub(crate) fn of(next: &NextSet<'_>, list_age: Option<Duration>, done: &CompletedFactors) -> Self {
        let mut max_age = None;
        next.requirement.leaves(list_age, &mut |factor, age| {
            if let Some(age) = age.filter(|_| next.factors.contains(factor)) {
                max_age = Some(shorter(max_age, age));
            }
        });
        let factors = next.factors.clone();
        let expired = factors.iter().filter(|factor| done.contains(factor)).cloned().collect();
        Self { factors, expired, max_age }
    }

    /// Whether nothing that the user can do would help (row P11).
    pub fn is_impossible(&self) -> bool {
        self.factors.is_empty()
    }

    /// For people, in English.
    pub fn label(&self) -> String {
        let one = |factor: &FactorId| written(&Requirement::Factor(factor.clone()), &Style::PEOPLE);
        let names: Vec<String> = self.factors.iter().map(one).collect();
        let age = self.max_age.map(|age| format!(", at most {} old", span(age))).unwrap_or_default();
        match names.as_slice() {
            [] => "what is required here can't be completed".to_owned(),
            [only] => format!("needed next: {only}{age}"),
            several => format!("needed next, one of: {}{age}", several.join("; ")),
        }
    }

    /// As it stands in a session's payload.
    pub(crate) fn to_json(&self) -> Value {
        let ids = |factors: &[FactorId]| factors.iter().map(FactorId::as_str).collect::<Value>();
        let mut value = json!({ "next": ids(&self.factors) });
        if let Some(members) = value.as_object_mut() {
            if !self.expired.is_empty() {
                members.insert("expired".to_owned(), ids(&self.expired));
            }
            if let Some(age) = self.max_age {
                members.insert("maxAge".to_owned(), json!(age.as_secs()));
            }
        }
        value
    }

    /// From a session's payload; `None` for anything that isn't of this form.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let members = value.as_object()?;
        let ids = |list: &Value| -> Option<Vec<FactorId>> {
            list.as_array()?.iter().map(|id| FactorId::parse(id.as_str()?).ok()).collect()
        };
        Some(Self {
            factors: ids(members.get("next")?)?,
            expired: members.get("expired").map_or(Some(Vec::new()), ids)?,
            max_age: members.get("maxAge").and_then(Value::as_u64).map(Duration::from_secs),
        })
    }
}

/// A requirement by its factor ids, for logs and messages of configuration.
pub(crate) fn brief(item: &Requirement) -> String {
    written(item, &Style::LOGS)
}

/// How a requirement is put into words.
struct Style {
    factor: fn(&FactorId) -> String,
    open: &'static str,
    between: &'static str,
    close: &'static str,
}

impl Style {
    const PEOPLE: Self = Self { factor: named, open: ": ", between: "; ", close: "" };
    const LOGS: Self = Self { factor: ToString::to_string, open: " (", between: ", ", close: ")" };
}

fn written(item: &Requirement, style: &Style) -> String {
    let all = |head: &str, items: &[Requirement]| {
        // A group within a group needs its bounds, whatever the style.
        let part = |part: &Requirement| match part.bare() {
            Requirement::Factor(_) => written(part, style),
            _ if style.close.is_empty() => format!("({})", written(part, style)),
            _ => written(part, style),
        };
        let parts: Vec<String> = items.iter().map(part).collect();
        format!("{head}{}{}{}", style.open, parts.join(style.between), style.close)
    };
    match item {
        Requirement::Factor(factor) => (style.factor)(factor),
        Requirement::OneOf(items) | Requirement::AllOf(items) | Requirement::InOrder(items)
            if items.is_empty() =>
        {
            "nothing".to_owned()
        }
        Requirement::OneOf(items) => all("one of", items),
        Requirement::AllOf(items) => all("all of", items),
        Requirement::InOrder(items) => all("one after the other", items),
        Requirement::KOf(k, items) => all(&format!("any {k} of"), items),
        Requirement::Limited(limit, inner) => {
            let inner = written(inner, style);
            match limit {
                Limit::MaxAge(age) => format!("{inner}, at most {} old", span(*age)),
                Limit::ExcludingFirstFactor => format!("{inner}, other than the factor signed in with"),
                Limit::DistinctChannels => format!("{inner}, each over another channel"),
                Limit::PhishingResistant => format!("{inner}, if it can't be phished"),
            }
        }
    }
}

/// A factor for people. The id of an app's own factor is the app's text.
fn named(factor: &FactorId) -> String {
    match () {
        () if *factor == FactorId::PASSWORD => "the password".to_owned(),
        () if *factor == FactorId::THIRD_PARTY => "a sign-in with another provider".to_owned(),
        () if *factor == FactorId::OTP_EMAIL => "a code by e-mail".to_owned(),
        () if *factor == FactorId::OTP_PHONE => "a code by phone".to_owned(),
        () if *factor == FactorId::LINK_EMAIL => "a link by e-mail".to_owned(),
        () if *factor == FactorId::LINK_PHONE => "a link by phone".to_owned(),
        () if *factor == FactorId::TOTP => "a code from an authenticator app".to_owned(),
        () if *factor == FactorId::WEBAUTHN => "a passkey".to_owned(),
        () => format!("the factor {factor}"),
    }
}

fn span(age: Duration) -> String {
    match age.as_secs() {
        secs if secs > 0 && secs % 3600 == 0 => counted(secs / 3600, "hour"),
        secs if secs > 0 && secs % 60 == 0 => counted(secs / 60, "minute"),
        secs => counted(secs, "second"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_702_877_939);

    fn ids(text: &str) -> Vec<FactorId> {
        text.split_whitespace().map(|id| FactorId::parse(id).unwrap()).collect()
    }

    /// `emailpassword` made the session an hour ago, `otp-email` followed a minute ago.
    fn done() -> CompletedFactors {
        let ago = |secs| NOW - Duration::from_secs(secs);
        CompletedFactors::from_iter([(FactorId::PASSWORD, ago(3600)), (FactorId::OTP_EMAIL, ago(60))])
    }

    #[test]
    fn item_by_item() {
        for (item, state, label, brief) in [
            (json!("otp-email"), "satisfied", "a code by e-mail", "otp-email"),
            (json!("own"), "missing", "the factor own", "own"),
            (json!({"oneOf": []}), "satisfied", "nothing", "nothing"),
            (
                json!({"maxAge": {"seconds": 300, "of": "emailpassword"}}),
                "expired",
                "the password, at most 5 minutes old",
                "emailpassword, at most 5 minutes old",
            ),
            (
                json!({"maxAge": {"seconds": 1, "of": {"allOfInAnyOrder": ["emailpassword", "totp"]}}}),
                "missing",
                "all of: the password; a code from an authenticator app, at most 1 second old",
                "all of (emailpassword, totp), at most 1 second old",
            ),
            (
                json!({"excludingFirstFactor": "emailpassword"}),
                "impossible",
                "the password, other than the factor signed in with",
                "emailpassword, other than the factor signed in with",
            ),
            (
                json!({"kOf": {"k": 2, "of": ["totp", {"inOrder": ["webauthn", "otp-phone"]}]}}),
                "missing",
                "any 2 of: a code from an authenticator app; (one after the other: a passkey; a code by phone)",
                "any 2 of (totp, one after the other (webauthn, otp-phone))",
            ),
            (
                json!({"distinctChannels": {"allOfInAnyOrder": ["otp-email", "link-email"]}}),
                "impossible",
                "all of: a code by e-mail; a link by e-mail, each over another channel",
                "all of (otp-email, link-email), each over another channel",
            ),
            (
                json!({"phishingResistant": {"oneOf": ["otp-email", "webauthn"]}}),
                "missing",
                "one of: a code by e-mail; a passkey, if it can't be phished",
                "one of (otp-email, webauthn), if it can't be phished",
            ),
        ] {
            let why = Requirements::from_json(&json!([item])).unwrap().explain(&done(), NOW);
            let it = &why.items[0];
            assert_eq!((it.state.as_str(), it.label.as_str()), (state, label), "{item}");
            assert_eq!(why.to_string(), format!("{brief}: {state}"), "{item}");
        }
        let nothing = Requirements::none().explain(&done(), NOW);
        assert_eq!((nothing.to_string().as_str(), nothing.next), ("nothing is required", None));
    }

    #[test]
    fn parts_are_explained_as_their_limits_leave_them() {
        let item = json!({"maxAge": {"seconds": 300, "of": {"allOfInAnyOrder": [
            "emailpassword",
            {"oneOf": ["otp-email", {"phishingResistant": "totp"}]},
        ]}}});
        let why = Requirements::from_json(&json!([item])).unwrap().explain(&done(), NOW);
        assert_eq!(
            why.to_json(),
            json!([{
                "label": "all of: the password; (one of: a code by e-mail; a code from an authenticator app, \
                          if it can't be phished), at most 5 minutes old",
                "state": "expired",
                "factors": ["emailpassword", "otp-email", "totp"],
                "maxAge": 300,
                "parts": [
                    { "label": "the password", "state": "expired", "factors": ["emailpassword"] },
                    {
                        "label": "one of: a code by e-mail; a code from an authenticator app, if it can't be phished",
                        "state": "satisfied",
                        "factors": ["otp-email", "totp"],
                        "parts": [
                            { "label": "a code by e-mail", "state": "satisfied", "factors": ["otp-email"] },
                            {
                                "label": "a code from an authenticator app, if it can't be phished",
                                "state": "impossible",
                                "factors": ["totp"],
                            },
                        ],
                    },
                ],
            }])
        );
        assert_eq!(
            why.next,
            Some(NextStep {
                factors: ids("emailpassword"),
                expired: ids("emailpassword"),
                max_age: Some(Duration::from_secs(300)),
            })
        );
    }

    #[test]
    fn the_next_step_keeps_to_what_the_user_has() {
        let list = |items: Value| Requirements::from_json(&items).unwrap();
        let any = list(json!([{"oneOf": ["totp", "otp-phone", "own"]}]));
        let step = |list: &Requirements| list.next_step(&done(), NOW).unwrap();
        assert_eq!(step(&any).factors, ids("totp otp-phone own"));
        assert_eq!(step(&any.clone().for_user_with(&[])).factors, ids("totp otp-phone own"));
        // What is set up must be used; an app's own factor has nothing to set up here.
        assert_eq!(step(&any.for_user_with(&ids("otp-phone"))).factors, ids("otp-phone own"));
        let none = step(&list(json!([{"kOf": {"k": 2, "of": ["totp"]}}])));
        assert!(none.is_impossible());
        assert_eq!(none.label(), "what is required here can't be completed");
        let two = list(json!([{"oneOf": ["totp", "webauthn"]}])).max_age(Duration::from_secs(7200));
        assert_eq!(
            step(&two).label(),
            "needed next, one of: a code from an authenticator app; a passkey, at most 2 hours old"
        );
        for step in [step(&two), none, step(&list(json!(["emailpassword"])).max_age(Duration::from_secs(9)))]
        {
            assert_eq!(NextStep::from_json(&step.to_json()), Some(step));
        }
        for odd in [
            json!([]),
            json!({}),
            json!({"next": "totp"}),
            json!({"next": [1]}),
            json!({"next": [], "expired": 1}),
        ] {
            assert_eq!(NextStep::from_json(&odd), None, "{odd}");
        }
    }
}
