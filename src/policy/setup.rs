//! May a factor be set up now? Pure.
//!
//! The attack it stops: somebody knows Alice's password, signs in as far as that goes, and instead of
//! passing her second factor enrols one of their own. So before the requirements are met a credential may
//! only be made if it is wanted *right now* and nothing that is wanted right now exists already (rows F01,
//! F02, O14). The next set is compared as a whole: with an e-mail known, `oneOf(otp-email, otp-phone)`
//! can't be met with somebody else's phone.

use std::fmt;

use crate::base::ident::FactorId;

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
        () if !next.is_empty() && !next.contains(factor) => Err(SetUpRefused::NotNext),
        () => Ok(()),
    }
}
