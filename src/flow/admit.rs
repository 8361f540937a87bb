//! May this attempt proceed, and as what? Pure: facts in, an admission or a refusal out.

use std::time::Duration;

use crate::{
    base::{
        ident::{FactorId, UserId},
        time::Timestamp,
    },
    claim::mfa::MfaClaim,
    config::FactorChanges,
    policy::{FirstFactors, Requirement, Requirements, SetUpRefused, may_set_up},
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
    let asked = strongest(set_up);
    let recent = |at: Timestamp| at <= now && now.since(at) <= FRESH;
    claim.c.iter().any(|(factor, at)| recent(at) && strength(factor) >= asked)
}

/// What a session that isn't [`fresh`] can do about it: any of the factors that are strong enough, again. Of an
/// app's own only the app knows who has it.
pub(crate) fn freshened(usable: &[FactorId], set_up: &[FactorId]) -> Requirements {
    let asked = strongest(set_up);
    let has = |factor: &&FactorId| set_up.contains(factor) || !factor.is_built_in();
    let able = usable.iter().filter(has).filter(|factor| strength(factor) >= asked);
    Requirements::from(Requirement::one_of(able.cloned())).max_age(FRESH)
}

fn strongest(set_up: &[FactorId]) -> u8 {
    set_up.iter().map(strength).max().unwrap_or(0)
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_702_877_939);
    const SET_UP: NotAdmitted = NotAdmitted::SetUp(SetUpRefused::UseWhatIsSetUp);
    const NOT_NEXT: NotAdmitted = NotAdmitted::SetUp(SetUpRefused::NotNext);

    fn claim(v: bool, done: &[(FactorId, i64)]) -> MfaClaim {
        let at = |ago: i64| Timestamp::from_secs(NOW.as_secs() - ago);
        MfaClaim { c: done.iter().map(|(factor, ago)| (factor.clone(), at(*ago))).collect(), v }
    }

    /// What comes of an attempt at the e-mail code.
    fn attempt(
        owner: Option<&str>,
        claim: &MfaClaim,
        next: &[FactorId],
        set_up: &[FactorId],
        changes: FactorChanges,
    ) -> Result<Admission, NotAdmitted> {
        let (me, owner) = (UserId::parse("me").unwrap(), owner.map(|id| UserId::parse(id).unwrap()));
        second(&Second {
            factor: &FactorId::OTP_EMAIL,
            session_user: &me,
            owner: owner.as_ref(),
            claim,
            next,
            set_up,
            changes,
            now: NOW,
        })
    }

    #[test]
    fn sec_p20_a_half_session_completes_what_is_asked_for_now() {
        let half = claim(false, &[(FactorId::PASSWORD, 0)]);
        let full = claim(true, &[(FactorId::PASSWORD, 0)]);
        let (step, both) = (FactorChanges::StepUp, [FactorId::PASSWORD, FactorId::OTP_EMAIL]);
        assert_eq!(attempt(Some("me"), &half, &[FactorId::OTP_EMAIL], &both, step), Ok(Admission::Complete));
        assert_eq!(attempt(Some("me"), &half, &[FactorId::TOTP], &both, step), Err(NOT_NEXT));
        assert_eq!(attempt(Some("me"), &full, &[], &both, step), Ok(Admission::Complete));
    }

    #[test]
    fn sec_f01_a_half_session_enrols_only_what_is_wanted_and_lacking() {
        let half = claim(false, &[(FactorId::PASSWORD, 0)]);
        let step = FactorChanges::StepUp;
        let (password, both) = ([FactorId::PASSWORD], [FactorId::PASSWORD, FactorId::OTP_EMAIL]);
        let wanted = [FactorId::OTP_EMAIL];
        assert_eq!(attempt(None, &half, &wanted, &password, step), Ok(Admission::Enrol));
        assert_eq!(attempt(None, &half, &wanted, &both, step), Err(SET_UP));
        assert_eq!(attempt(Some("other"), &half, &wanted, &both, step), Err(SET_UP));
        assert_eq!(attempt(None, &half, &[FactorId::TOTP], &password, step), Err(NOT_NEXT));
    }

    #[test]
    fn sec_o14_whoever_has_a_destination_gets_no_other() {
        let full = claim(true, &[(FactorId::OTP_EMAIL, 0)]);
        let both = [FactorId::PASSWORD, FactorId::OTP_EMAIL];
        for changes in [FactorChanges::StepUp, FactorChanges::Compat] {
            assert_eq!(attempt(None, &full, &[], &both, changes), Err(NotAdmitted::OtherDestination));
        }
    }

    #[test]
    fn sec_f07_enrolling_later_needs_a_fresh_proof() {
        let password = [FactorId::PASSWORD];
        let at = |ago| claim(true, &[(FactorId::PASSWORD, ago)]);
        let enrol = |ago, changes| attempt(None, &at(ago), &[], &password, changes);
        assert_eq!(enrol(300, FactorChanges::StepUp), Ok(Admission::Enrol));
        assert_eq!(enrol(301, FactorChanges::StepUp), Err(NotAdmitted::StepUp));
        assert_eq!(enrol(-1, FactorChanges::StepUp), Err(NotAdmitted::StepUp));
        assert_eq!(enrol(301, FactorChanges::Compat), Ok(Admission::Enrol));
        // Who has an authenticator app must prove that, not the password.
        let strong = [FactorId::PASSWORD, FactorId::TOTP];
        let step = FactorChanges::StepUp;
        assert_eq!(attempt(None, &at(0), &[], &strong, step), Err(NotAdmitted::StepUp));
        let both = claim(true, &[(FactorId::PASSWORD, 900), (FactorId::TOTP, 10)]);
        assert_eq!(attempt(None, &both, &[], &strong, step), Ok(Admission::Enrol));
    }
}
