//! What there is to tell someone, as data: the words are a template's.

use std::{fmt, time::Duration};

use crate::base::{contact::Contact, ident::FactorId, secret::Secret};

/// Something to tell someone.
#[derive(Clone)]
#[non_exhaustive]
pub enum Notice {
    /// A code, a link, or both, to sign in with or to confirm who one is.
    SignInCode {
        /// Where to.
        to: Contact,
        /// The code to type.
        code: Option<Secret<String>>,
        /// The whole link to open.
        link: Option<Secret<String>>,
        /// How long they work.
        valid_for: Duration,
        /// The factor that was asked for.
        factor: FactorId,
        /// Whether it begins a sign-in, or completes one.
        first_factor: bool,
    },
    /// A link to set a new password.
    PasswordReset {
        /// Where to.
        to: Contact,
        /// The whole link to open.
        link: Secret<String>,
        /// How long it works.
        valid_for: Duration,
    },
    /// A link to confirm an address.
    EmailVerification {
        /// Where to.
        to: Contact,
        /// The whole link to open.
        link: Secret<String>,
        /// How long it works.
        valid_for: Duration,
    },
    /// Someone who passed the first factor tried wrong codes (row O35).
    SuspiciousAttempts {
        /// Where to.
        to: Contact,
        /// The factor whose codes were wrong.
        factor: FactorId,
    },
    /// Someone who passed the first factor used up all guesses at the codes of another: for a while, or until an
    /// administrator lifts it, none is accepted, not even a right one.
    CodesUsedUp {
        /// Where to.
        to: Contact,
        /// The factor whose codes are refused now.
        factor: FactorId,
    },
    /// The account can be signed in to in one more way.
    FactorAdded {
        /// Where to.
        to: Contact,
        /// The factor that is new.
        factor: FactorId,
    },
    /// The account can be signed in to in one way less.
    FactorRemoved {
        /// Where to.
        to: Contact,
        /// The factor that is gone.
        factor: FactorId,
    },
    /// The password of the account is another one now.
    PasswordChanged {
        /// Where to.
        to: Contact,
    },
    /// The account has another e-mail address now; the former one is told.
    EmailChanged {
        /// Where to.
        to: Contact,
    },
    /// Somebody signed in by a kind of browser or app that the user never signed in by.
    NewDevice {
        /// Where to.
        to: Contact,
    },
}

impl Notice {
    /// Where it goes.
    pub fn to(&self) -> &Contact {
        match self {
            Self::SignInCode { to, .. }
            | Self::PasswordReset { to, .. }
            | Self::EmailVerification { to, .. }
            | Self::SuspiciousAttempts { to, .. }
            | Self::CodesUsedUp { to, .. }
            | Self::FactorAdded { to, .. }
            | Self::FactorRemoved { to, .. }
            | Self::PasswordChanged { to }
            | Self::EmailChanged { to }
            | Self::NewDevice { to } => to,
        }
    }

    /// The code in it, if it has one.
    pub fn code(&self) -> Option<&Secret<String>> {
        match self {
            Self::SignInCode { code, .. } => code.as_ref(),
            _ => None,
        }
    }

    /// The link in it, if it has one.
    pub fn link(&self) -> Option<&Secret<String>> {
        match self {
            Self::SignInCode { link, .. } => link.as_ref(),
            Self::PasswordReset { link, .. } | Self::EmailVerification { link, .. } => Some(link),
            Self::SuspiciousAttempts { .. }
            | Self::CodesUsedUp { .. }
            | Self::FactorAdded { .. }
            | Self::FactorRemoved { .. }
            | Self::PasswordChanged { .. }
            | Self::EmailChanged { .. }
            | Self::NewDevice { .. } => None,
        }
    }

    /// The factor it is about, if it is about one.
    pub fn factor(&self) -> Option<&FactorId> {
        match self {
            Self::SignInCode { factor, .. }
            | Self::SuspiciousAttempts { factor, .. }
            | Self::CodesUsedUp { factor, .. }
            | Self::FactorAdded { factor, .. }
            | Self::FactorRemoved { factor, .. } => Some(factor),
            Self::PasswordReset { .. }
            | Self::EmailVerification { .. }
            | Self::PasswordChanged { .. }
            | Self::EmailChanged { .. }
            | Self::NewDevice { .. } => None,
        }
    }

    /// A notice that waited says how long its secret works from now on, not how long it did.
    pub(crate) fn shorten(&mut self, left: Duration) {
        if let Self::SignInCode { valid_for, .. }
        | Self::PasswordReset { valid_for, .. }
        | Self::EmailVerification { valid_for, .. } = self
        {
            *valid_for = (*valid_for).min(left);
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::SignInCode { .. } => "SignInCode",
            Self::PasswordReset { .. } => "PasswordReset",
            Self::EmailVerification { .. } => "EmailVerification",
            Self::SuspiciousAttempts { .. } => "SuspiciousAttempts",
            Self::CodesUsedUp { .. } => "CodesUsedUp",
            Self::FactorAdded { .. } => "FactorAdded",
            Self::FactorRemoved { .. } => "FactorRemoved",
            Self::PasswordChanged { .. } => "PasswordChanged",
            Self::EmailChanged { .. } => "EmailChanged",
            Self::NewDevice { .. } => "NewDevice",
        }
    }
}

/// The kind alone: the rest is secret or personal (rows G01, G02).
impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.name()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_that_waited_says_what_is_left() {
        let to = Contact::parse("a@shop.example").unwrap();
        let (link, minute) = (Secret::new("https://shop.example/#x".to_owned()), Duration::from_secs(60));
        let mut notice = Notice::PasswordReset { to, link, valid_for: minute * 10 };
        for (left, want) in [(minute * 20, minute * 10), (minute, minute), (minute * 5, minute)] {
            notice.shorten(left);
            assert!(matches!(notice, Notice::PasswordReset { valid_for, .. } if valid_for == want));
        }
    }
}
