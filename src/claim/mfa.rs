//! The claim `st-mfa`: which factors were completed in this session, and whether that is enough.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    ClaimContext, ClaimError, ClaimRef, ClaimValidator, CompletedFactors, InvalidClaim, SessionClaim,
};
use crate::{
    base::{
        ident::{FactorId, LoginId},
        payload::Payload,
        time::Timestamp,
    },
    model::user::{LoginKind, User},
    policy::{FirstFactors, Grace, NextSet, NextStep, Requirement, Requirements, brief},
};

/// The key of the claim in the payload.
pub(crate) const KEY: &str = "st-mfa";
/// Beside it, the factor that made the session, where the stamps would say another.
const FIRST: &str = "st-mfa-first";
/// Beside it while it says no: what comes next, so that a refusal can tell without asking anybody.
const NEXT: &str = "st-mfa-next";
/// Beside it while a tenant waits for the user to set something up: what, and until when.
const GRACE: &str = "st-mfa-grace";
/// What no claim of an app's may be called.
pub(super) const OWN: [&str; 4] = [KEY, FIRST, NEXT, GRACE];

/// What the claim says.
///
/// ```
/// use serde_json::json;
/// use tower_mfa::{FactorId, Requirements, claim::MfaClaim, ident::{Payload, Timestamp}};
/// let now = Timestamp::from_secs(1_702_877_939);
/// let mut claim = MfaClaim::default();
/// claim.mark(FactorId::PASSWORD, now);
/// claim.evaluate(&FactorId::OTP_EMAIL.into(), now);
/// assert_eq!(claim.to_json(), json!({"c": {"emailpassword": 1_702_877_939}, "v": false}));
/// claim.mark(FactorId::OTP_EMAIL, now);
/// claim.evaluate(&FactorId::OTP_EMAIL.into(), now);
/// assert!(claim.v);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MfaClaim {
    /// The factors completed in this session.
    pub c: CompletedFactors,
    /// Whether everything that is required was complete when this was last evaluated.
    pub v: bool,
}

impl MfaClaim {
    /// Reads the claim. Whatever isn't exactly `{"c": {…}, "v": bool}` is no claim, and is fetched anew
    /// (row P05).
    pub fn from_payload(payload: &Payload) -> Option<Self> {
        let (c, v) = members(payload)?;
        let first = payload.member(FIRST).and_then(|id| FactorId::parse(id.as_str()?).ok());
        Some(Self { c: CompletedFactors::from_json(c).begun_with(first), v })
    }

    /// The claim of a session that has none, because it is from before MFA: the factor by which its login
    /// method signs in, at the time at which it was made (row P04). Where that leaves a choice, a link is
    /// taken before a code. `None` if the login method is the user's no more, or may not start a session
    /// any more: then the session is over.
    pub fn derive(user: &User, login: &LoginId, first: &FirstFactors, made_at: Timestamp) -> Option<Self> {
        let login = user.login(login)?;
        let candidates: &[FactorId] = match (login.kind, &login.email) {
            (LoginKind::EmailPassword, _) => &[FactorId::PASSWORD],
            (LoginKind::ThirdParty, _) => &[FactorId::THIRD_PARTY],
            (LoginKind::WebAuthn, _) => &[FactorId::WEBAUTHN],
            (LoginKind::Passwordless, Some(_)) => &[FactorId::LINK_EMAIL, FactorId::OTP_EMAIL],
            (LoginKind::Passwordless, None) => &[FactorId::LINK_PHONE, FactorId::OTP_PHONE],
            (LoginKind::External, _) => &[],
        };
        let mut claim = Self::default();
        claim.mark(candidates.iter().find(|factor| first.accepts(factor))?.clone(), made_at);
        Some(claim)
    }

    /// The claim as it stands in the payload.
    pub fn to_json(&self) -> Value {
        json!({ "c": self.c.to_json(), "v": self.v })
    }

    /// Writes the claim, and beside it what it can't say itself: the first factor if need be, and by the
    /// requirements it was evaluated by, what comes next and what the tenant waits for.
    pub(crate) fn write(&self, payload: &mut Payload, requirements: &Requirements, now: Timestamp) {
        payload.set(KEY, self.to_json());
        let beside = [
            (FIRST, self.c.first_beyond_stamps().map(|first| json!(first.as_str()))),
            (NEXT, requirements.next_step(&self.c, now).map(|next| next.to_json())),
            (GRACE, requirements.grace().map(Grace::to_json)),
        ];
        for (name, value) in beside {
            match value {
                Some(value) => payload.set(name, value),
                None => payload.remove(name),
            }
        }
    }

    /// Stamps a factor as completed now.
    pub fn mark(&mut self, factor: FactorId, now: Timestamp) {
        self.c.insert(factor, now);
    }

    /// Sets `v` by what is required now; says whether it flipped.
    pub fn evaluate(&mut self, requirements: &Requirements, now: Timestamp) -> bool {
        let met = requirements.next(&self.c, now).is_none();
        std::mem::replace(&mut self.v, met) != met
    }
}

/// The claim's two members, as they stand in the payload: all that a plain request is judged by.
#[inline(always)]
fn members(payload: &Payload) -> Option<(&Value, bool)> {
    let mut members = payload.member(KEY)?.as_object().filter(|members| members.len() == 2)?.iter();
    match (members.next()?, members.next()?) {
        ((c_name, c @ Value::Object(_)), (v_name, Value::Bool(v))) if c_name == "c" && v_name == "v" => {
            Some((c, *v))
        }
        _ => None,
    }
}

/// The claim's name for validators that want it fetched. Fetching asks the policy, which the crate does
/// where it reads the session's row: there `c` is known.
struct Missing;

impl SessionClaim for Missing {
    const KEY: &'static str = KEY;
    type Value = Value;

    async fn fetch(&self, _ctx: &ClaimContext<'_>) -> Result<Option<Value>, ClaimError> {
        Ok(None)
    }
}

/// Why a list isn't met, in the wire's words for its flat forms. For others the wire has no word; there any
/// one of the factors brings the user further, which is what its `oneOf` says.
fn reason(next: &NextSet<'_>) -> Value {
    let ids: Vec<&str> = next.factors.iter().map(FactorId::as_str).collect();
    let listed = ids.join(", ");
    let flat = |items: &[Requirement]| items.iter().all(|item| matches!(item, Requirement::Factor(_)));
    match next.requirement.bare() {
        Requirement::Factor(factor) if next.is_impossible() => {
            json!({ "message": UNSATISFIABLE, "factorId": factor.as_str() })
        }
        _ if next.is_impossible() => json!({ "message": UNSATISFIABLE }),
        Requirement::Factor(factor) => json!({
            "message": format!("Factor validation failed: {factor} not completed"),
            "factorId": factor.as_str(),
        }),
        Requirement::OneOf(items) if flat(items) => json!({
            "message": format!("None of these factors are complete in the session: {listed}"),
            "oneOf": ids,
        }),
        Requirement::AllOf(items) if flat(items) => json!({
            "message": format!("Some of the factors are not complete in the session: {listed}"),
            "allOfInAnyOrder": ids,
        }),
        _ => json!({
            "message": format!("More factors must be complete in the session, next one of: {listed}"),
            "oneOf": ids,
        }),
    }
}

/// Whether a list is met by what was completed, else what is missing.
pub(super) fn met(
    id: &str,
    list: &Requirements,
    done: &CompletedFactors,
    payload: &Payload,
    now: Timestamp,
) -> Result<(), InvalidClaim> {
    let Some(next) = list.next_set(done, now) else { return Ok(()) };
    let step = demanded_first(payload).or_else(|| list.next_step(done, now));
    let hopeless = next.is_impossible();
    let problem = (hopeless || list.unusable().next().is_some()).then(|| problem(list, &next));
    Err(InvalidClaim { hopeless, problem, ..InvalidClaim::new(id, reason(&next)).with_next(step) })
}

fn problem(list: &Requirements, next: &NextSet<'_>) -> String {
    let mut problem = brief(next.requirement);
    for factor in list.unusable() {
        problem.push_str(&format!("; {factor} isn't installed"));
    }
    problem
}

/// What the policy asks for, while the session isn't fully signed in: until that is done nothing else can be
/// completed (row P20), so every refusal names it, as `/mfa/info` does.
fn demanded_first(payload: &Payload) -> Option<NextStep> {
    payload.member(NEXT).and_then(NextStep::from_json)
}

/// What is to be fetched, if the claim isn't there.
pub(super) fn missing(payload: &Payload) -> Option<ClaimRef> {
    members(payload).is_none().then(|| ClaimRef::new(Missing))
}

/// All requirements for being signed in are met: looks at `v` alone. Every mount has it but those that
/// say [`without_mfa`](crate::MfaLayer::without_mfa).
#[derive(Clone, Debug)]
pub struct MfaSatisfied {
    id: String,
}

impl Default for MfaSatisfied {
    fn default() -> Self {
        Self { id: KEY.to_owned() }
    }
}

impl MfaSatisfied {
    /// The validator, by its usual id.
    pub fn new() -> Self {
        Self::default()
    }

    /// Under another id.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }
}

impl ClaimValidator for MfaSatisfied {
    fn id(&self) -> &str {
        &self.id
    }

    fn validate(&self, payload: &Payload, _now: Timestamp) -> Result<(), InvalidClaim> {
        match members(payload) {
            Some((_, true)) => Ok(()),
            _ => {
                let next = demanded_first(payload);
                let message = match &next {
                    Some(next) if next.is_impossible() => UNSATISFIABLE,
                    _ => "MFA requirement for auth is not satisfied",
                };
                Err(InvalidClaim::new(&self.id, json!({ "message": message })).with_next(next))
            }
        }
    }

    fn refetch(&self, payload: &Payload, _now: Timestamp) -> Option<ClaimRef> {
        missing(payload)
    }

    fn satisfied(&self, payload: &Payload, _now: Timestamp) -> bool {
        members(payload).is_some_and(|(_, met)| met)
    }
}

/// What a user is told of whom the impossible is demanded (row P11).
const UNSATISFIABLE: &str =
    "MFA requirement for auth can't be satisfied: none of the factors that are required is available";

/// This list is met by what was completed in the session, whatever `v` says: step-up for a route.
#[derive(Clone, Debug)]
pub struct FactorsMet {
    id: String,
    list: Requirements,
}

impl FactorsMet {
    /// Asks for a list.
    pub fn new(list: impl Into<Requirements>) -> Self {
        Self { id: KEY.to_owned(), list: list.into() }
    }

    /// Under another id.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// The list.
    pub fn requirements(&self) -> &Requirements {
        &self.list
    }
}

impl ClaimValidator for FactorsMet {
    fn id(&self) -> &str {
        &self.id
    }

    fn validate(&self, payload: &Payload, now: Timestamp) -> Result<(), InvalidClaim> {
        if self.list.items().is_empty() {
            return Ok(());
        }
        let done = MfaClaim::from_payload(payload).map(|claim| claim.c).unwrap_or_default();
        met(&self.id, &self.list, &done, payload, now)
    }

    fn refetch(&self, payload: &Payload, _now: Timestamp) -> Option<ClaimRef> {
        missing(payload)
    }

    fn among(&self, factors: &[FactorId]) -> Option<Arc<dyn ClaimValidator>> {
        let list = self.list.clone().among(factors.iter().cloned());
        (list != self.list).then(|| Arc::new(Self { id: self.id.clone(), list }) as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_p05_a_malformed_claim_satisfies_nothing() {
        for odd in [
            json!(true),
            json!({"v": "true", "c": {}}),
            json!({"v": 1, "c": {}}),
            json!({"v": true, "c": []}),
            json!({"v": true}),
            json!({"c": {}}),
            json!({"v": true, "c": {}, "x": 1}),
            json!(null),
        ] {
            let mut payload = Payload::new();
            payload.set(KEY, odd.clone());
            assert!(MfaSatisfied::new().validate(&payload, Timestamp::EPOCH).is_err(), "{odd}");
            assert!(MfaSatisfied::new().refetch(&payload, Timestamp::EPOCH).is_some(), "{odd}");
            assert!(!MfaSatisfied::new().satisfied(&payload, Timestamp::EPOCH), "{odd}");
        }
    }

    #[test]
    fn the_short_way_passes_only_what_the_long_one_does() {
        let (all, now) = (MfaSatisfied::new(), Timestamp::EPOCH);
        assert!(!all.satisfied(&Payload::new(), now));
        for (claim, passes) in [
            (json!({"c": {}, "v": true}), true),
            (json!({"c": {"totp": 1}, "v": true}), true),
            (json!({"c": {"totp": 1}, "v": false}), false),
        ] {
            let mut payload = Payload::new();
            payload.set(KEY, claim);
            assert_eq!(all.satisfied(&payload, now), passes);
            assert_eq!(all.refetch(&payload, now).is_none() && all.validate(&payload, now).is_ok(), passes);
        }
    }
}
