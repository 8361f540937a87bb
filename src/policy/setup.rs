//! May a factor be set up now? Pure.
//!
//! The attack it stops: somebody knows Alice's password, signs in as far as that goes, and instead of
//! passing her second factor enrols one of their own. So before the requirements are met a credential may
//! only be made if it is wanted *right now* and nothing that is wanted right now exists already (rows F01,
//! F02, O14). The next set is compared as a whole: with an e-mail known, `oneOf(otp-email, otp-phone)`
//! can't be met with somebody else's phone.

use std::fmt;

use super::{CompletedFactors, Requirement, Requirements};
use crate::base::{ident::FactorId, time::Timestamp};

/// Why a factor may not be set up now. The texts are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetUpRefused {
    /// Something that is wanted now is set up already: that must be used.
    UseWhatIsSetUp,
    /// The factor isn't wanted now.
    NotNext,
}

impl fmt::Display for SetUpRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UseWhatIsSetUp => {
                "Completed factors in the session does not satisfy the MFA requirements for auth"
            }
            Self::NotNext => "Not allowed to setup factor that is not in the next set of unsatisfied factors",
        })
    }
}

impl std::error::Error for SetUpRefused {}

/// Decides. `satisfied` says that all requirements are met; `next` is the set of factors that are open,
/// `set_up` what the user has.
///
/// # Errors
/// Why not.
pub fn may_set_up(
    satisfied: bool,
    next: &[FactorId],
    set_up: &[FactorId],
    factor: &FactorId,
) -> Result<(), SetUpRefused> {
    match () {
        () if satisfied => Ok(()),
        () if next.iter().any(|wanted| set_up.contains(wanted)) => Err(SetUpRefused::UseWhatIsSetUp),
        // Nothing is next where what is required can't be met here: then nobody enrols into it either.
        () if !next.contains(factor) => Err(SetUpRefused::NotNext),
        () => Ok(()),
    }
}

/// What stays of a list when only what the user has set up is asked for, and of that only what this session can
/// do: a factor that can't count here, such as the one that made it, is as if it weren't set up.
pub(crate) fn only_set_up(
    list: Requirements,
    set_up: &[FactorId],
    done: &CompletedFactors,
    now: Timestamp,
) -> Requirements {
    let whole = list.clone();
    let scope = whole.scope(done, now);
    let possible = |item: &Requirement| !item.ways(&scope).is_empty();
    list.map(|item| {
        let kept = item.clone().keep(&|factor| set_up.contains(factor))?;
        // What nobody could meet stays so, and is said.
        if possible(&kept) || !possible(&item) {
            return Some(kept);
        }
        let alone = |factor: &FactorId| item.clone().keep(&|other| other == factor);
        let single: Vec<Requirement> =
            kept.factors().into_iter().filter_map(alone).filter(|single| possible(single)).collect();
        (!single.is_empty()).then_some(Requirement::OneOf(single))
    })
}

/// Of what is next, what the user can go on with: what is set up, or, if nothing of it is, what may be set
/// up by the rule above. An app's own factor is passed by the app's own means.
pub(crate) fn in_reach(next: &[FactorId], set_up: &[FactorId]) -> Vec<FactorId> {
    let has = |factor: &FactorId| set_up.contains(factor) || !factor.is_built_in();
    match next.iter().any(|factor| set_up.contains(factor)) {
        true => next.iter().filter(|factor| has(factor)).cloned().collect(),
        false => next.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::{SetUpRefused::*, *};

    const TOTP: FactorId = FactorId::TOTP;
    const EMAIL: FactorId = FactorId::OTP_EMAIL;
    const PHONE: FactorId = FactorId::OTP_PHONE;

    /// Every satisfied × next set × set-up list × factor, against the rule in other words.
    #[test]
    fn sec_f01_truth_table() {
        let all = [TOTP, EMAIL, PHONE];
        let subset = |bits: usize| -> Vec<FactorId> {
            all.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, id)| id.clone()).collect()
        };
        let mut allowed = 0;
        for satisfied in [true, false] {
            for (next, set_up) in (0..8).flat_map(|next| (0..8).map(move |set_up| (next, set_up))) {
                for (at, factor) in all.iter().enumerate() {
                    let answer = may_set_up(satisfied, &subset(next), &subset(set_up), factor);
                    let expected = match (satisfied, next & set_up, next >> at & 1) {
                        (true, ..) => Ok(()),
                        (false, 1.., _) => Err(UseWhatIsSetUp),
                        (false, 0, 0) => Err(NotNext),
                        (false, 0, _) => Ok(()),
                    };
                    assert_eq!(answer, expected, "{satisfied} {next:b} {set_up:b} {factor}");
                    allowed += usize::from(answer.is_ok());
                }
            }
        }
        // All 192 when satisfied; none with nothing next; per factor, a next set of one, two or three that
        // has it leaves 4, 2 (twice) or 1 set-up lists that touch none of it.
        assert_eq!(allowed, 192 + 3 * (4 + 2 + 2 + 1));
    }

    #[test]
    fn sec_f01_a_second_factor_of_ones_own_is_refused() {
        for (next, set_up, factor, answer) in [
            // Nothing is there yet: the first enrolment.
            (vec![TOTP], vec![], TOTP, Ok(())),
            (vec![EMAIL, PHONE], vec![TOTP], PHONE, Ok(())),
            // What is wanted is there: it must be used, not replaced and not avoided.
            (vec![TOTP], vec![TOTP], TOTP, Err(UseWhatIsSetUp)),
            (vec![TOTP], vec![TOTP], EMAIL, Err(UseWhatIsSetUp)),
            (vec![EMAIL, PHONE], vec![EMAIL], PHONE, Err(UseWhatIsSetUp)),
        ] {
            assert_eq!(may_set_up(false, &next, &set_up, &factor), answer, "{next:?} {set_up:?} {factor}");
        }
    }

    #[test]
    fn sec_f02_only_what_is_next() {
        // First totp or e-mail, then the phone, which the user has: a new phone can't come first.
        let next = [TOTP, EMAIL];
        assert_eq!(may_set_up(false, &next, &[PHONE], &PHONE), Err(NotNext));
        assert_eq!(may_set_up(false, &next, &[PHONE], &TOTP), Ok(()));
        // After that the phone is next, and must be used.
        assert_eq!(may_set_up(false, &[PHONE], &[PHONE, TOTP], &PHONE), Err(UseWhatIsSetUp));
        assert_eq!(may_set_up(false, &[PHONE], &[PHONE, TOTP], &EMAIL), Err(UseWhatIsSetUp));
        assert_eq!(may_set_up(true, &[], &[PHONE, TOTP], &PHONE), Ok(()));
    }
}
