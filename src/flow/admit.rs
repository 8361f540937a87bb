//! May this attempt proceed, and as what? Pure: facts in, an admission or a refusal out.

use std::time::Duration;

use crate::{
    base::{
        ident::{FactorId, UserId},
        time::Timestamp,
    },
    claim::mfa::MfaClaim,
    config::FactorChanges,
    policy::{FirstFactors, SetUpRefused, may_set_up},
};

/// How recently a factor must have been proven to change factors (decision of the house 12).
pub(crate) const FRESH: Duration = Duration::from_secs(300);

/// What an attempt may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may start a session.
    First,
    /// It completes a factor that the session's user has.
    Complete,
    /// It gives the session's user a login method they don't have yet.
    Enrol,
}

/// Why an attempt may not proceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAdmitted {
    /// The factor may not start a session here (row P19).
    NotAFirstFactor,
    /// Not a factor that is asked for now (row P20), or the set-up rule says no (rows F01, F02).
    SetUp(SetUpRefused),
    /// The user has another destination for this kind of factor (row O14).
    OtherDestination,
    /// Requirements are met, but no factor was proven lately (row F07).
    StepUp,
}

/// A first factor: whether it may start a session in the tenant.
pub(crate) fn first(factor: &FactorId, allowed: &FirstFactors) -> Result<Admission, NotAdmitted> {
    if allowed.accepts(factor) { Ok(Admission::First) } else { Err(NotAdmitted::NotAFirstFactor) }
}

/// What is known of a second factor's attempt. `claim` was evaluated just now, never trusted from a token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Second<'a> {
    pub(crate) factor: &'a FactorId,
    pub(crate) session_user: &'a UserId,
    /// Whose login method the credential is, if anybody's.
    pub(crate) owner: Option<&'a UserId>,
    pub(crate) claim: &'a MfaClaim,
    pub(crate) next: &'a [FactorId],
    pub(crate) set_up: &'a [FactorId],
    pub(crate) changes: FactorChanges,
    pub(crate) now: Timestamp,
}

/// A second factor: completion of what the user has, or enrolment of what they don't have.
pub(crate) fn second(attempt: &Second<'_>) -> Result<Admission, NotAdmitted> {
    let Second { factor, claim, next, set_up, .. } = *attempt;
    if attempt.owner == Some(attempt.session_user) {
        // A half-authenticated session attempts what is asked for now and nothing else.
        return match claim.v || next.contains(factor) {
            true => Ok(Admission::Complete),
            false => Err(NotAdmitted::SetUp(SetUpRefused::NotNext)),
        };
    }
    may_set_up(claim.v, next, set_up, factor).map_err(NotAdmitted::SetUp)?;
    if set_up.contains(factor) && is_destination(factor) {
        return Err(NotAdmitted::OtherDestination);
    }
    if claim.v && attempt.changes == FactorChanges::StepUp && !fresh(claim, set_up, attempt.now) {
        return Err(NotAdmitted::StepUp);
    }
    Ok(Admission::Enrol)
}

/// Whether a factor at least as strong as the strongest that is set up was proven in this session within
/// the last five minutes.
pub(crate) fn fresh(claim: &MfaClaim, set_up: &[FactorId], now: Timestamp) -> bool {
    let asked = set_up.iter().map(strength).max().unwrap_or(0);
    let recent = |at: Timestamp| at <= now && now.since(at) <= FRESH;
    claim.c.iter().any(|(factor, at)| recent(at) && strength(factor) >= asked)
}

/// Factors whose credential is a place to which something is sent.
fn is_destination(factor: &FactorId) -> bool {
    [FactorId::OTP_EMAIL, FactorId::OTP_PHONE, FactorId::LINK_EMAIL, FactorId::LINK_PHONE].contains(factor)
}

/// Coarse strength: something sent or remembered, an authenticator app, a passkey. An app's own factor
/// counts as something remembered.
fn strength(factor: &FactorId) -> u8 {
    match () {
        () if *factor == FactorId::WEBAUTHN => 2,
        () if *factor == FactorId::TOTP => 1,
        () => 0,
    }
}
