//! What a mount or a route asks of a payload: pure.

use std::sync::Arc;

use serde_json::Value;

use super::ClaimRef;
use crate::{
    base::{ident::FactorId, payload::Payload, time::Timestamp},
    policy::NextStep,
};

/// Judges a session's payload.
pub trait ClaimValidator: Send + Sync + 'static {
    /// Names the validator in a refusal; usually the claim's key.
    fn id(&self) -> &str;

    /// Judges the payload alone: no I/O, no clock but `now`.
    ///
    /// # Errors
    /// What is wrong, as the client will read it.
    fn validate(&self, payload: &Payload, now: Timestamp) -> Result<(), InvalidClaim>;

    /// The claim to fetch first, if the payload's is missing or too old.
    fn refetch(&self, _payload: &Payload, _now: Timestamp) -> Option<ClaimRef> {
        None
    }

    /// Whether the payload will do as it is: nothing to fetch, nothing wrong. Asked first at each request.
    ///
    /// The default asks the two others. A validator that answers with one look where they need one each must
    /// say `true` only where both would agree: what it lets pass is not looked at again.
    fn satisfied(&self, payload: &Payload, now: Timestamp) -> bool {
        self.refetch(payload, now).is_none() && self.validate(payload, now).is_ok()
    }

    /// The same validator in an app where only these factors can be completed, so that a refusal names no other
    /// as the next step (row P11). Mounts ask once, guards when they refuse.
    ///
    /// The default, `None`, is for one that names no factors. One that asks [`FactorsMet`](super::FactorsMet)
    /// hands the question on.
    fn among(&self, _factors: &[FactorId]) -> Option<Arc<dyn ClaimValidator>> {
        None
    }
}

/// A claim that isn't as a validator wants it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct InvalidClaim {
    /// The validator's id.
    pub id: String,
    /// What the client is told: any JSON, no user data (row P15).
    pub reason: Option<Value>,
    /// What the user is to do next, where a factor is missing.
    pub next: Option<NextStep>,
    /// The assurance level that is asked for, if it is one: a value of `acr`.
    pub acr: Option<&'static str>,
    /// Nothing that the user can do would make the validator content, whatever is next.
    pub(crate) hopeless: bool,
    /// What it demands that can't be completed here, for the log.
    pub(crate) problem: Option<String>,
}

impl InvalidClaim {
    /// A refusal by the validator `id`.
    pub fn new(id: impl Into<String>, reason: impl Into<Option<Value>>) -> Self {
        let (id, reason) = (id.into(), reason.into());
        Self { id, reason, next: None, acr: None, hopeless: false, problem: None }
    }

    /// With what the user is to do next: a refusal tells it beside the reason.
    pub fn with_next(mut self, next: impl Into<Option<NextStep>>) -> Self {
        self.next = next.into();
        self
    }
}

/// Validators in an app where only these factors can be completed, and what of their demands nobody can meet.
pub(crate) fn among(
    validators: &[Arc<dyn ClaimValidator>],
    factors: &[FactorId],
) -> (Vec<Arc<dyn ClaimValidator>>, Vec<String>) {
    let mut problems = Vec::new();
    let told = |validator: &Arc<dyn ClaimValidator>| match validator.among(factors) {
        Some(among) => {
            let lack = among.validate(&Payload::new(), Timestamp::EPOCH).err();
            problems.extend(lack.and_then(|lack| lack.problem));
            among
        }
        None => Arc::clone(validator),
    };
    (validators.iter().map(told).collect(), problems)
}

/// Whether every validator is satisfied with the payload as it is: what most requests are judged by.
pub(crate) fn satisfied(validators: &[Arc<dyn ClaimValidator>], payload: &Payload, now: Timestamp) -> bool {
    validators.iter().all(|validator| validator.satisfied(payload, now))
}

/// Runs every validator; none is skipped because another failed (row P15).
pub(crate) fn enforce(
    validators: &[Arc<dyn ClaimValidator>],
    payload: &Payload,
    now: Timestamp,
) -> Vec<InvalidClaim> {
    validators.iter().filter_map(|validator| validator.validate(payload, now).err()).collect()
}

/// The claims that validators want fetched first, each once. Allocates only if there are any.
pub(crate) fn refetches(
    validators: &[Arc<dyn ClaimValidator>],
    payload: &Payload,
    now: Timestamp,
) -> Vec<ClaimRef> {
    let mut claims: Vec<ClaimRef> = Vec::new();
    for claim in validators.iter().filter_map(|validator| validator.refetch(payload, now)) {
        if !claims.iter().any(|known| known.key() == claim.key()) {
            claims.push(claim);
        }
    }
    claims
}
