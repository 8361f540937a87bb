//! The ways to prove who one is: each factor's own rules, as functions of values and `now`.

#[cfg(feature = "password")]
pub use self::password::PasswordRules;
pub(crate) use self::proof::{Bound, Credential, accepted};
pub use self::proof::{Proof, danger};
use crate::{
    base::{contact, ident::FactorId},
    model::user::{LoginKind, LoginMethod, User},
};

pub(crate) mod contacts;
pub(crate) mod otp;
#[cfg(feature = "password")]
pub(crate) mod password;
mod proof;

/// The factors that are installed, in the order in which they were.
#[derive(Clone, Debug)]
pub(crate) struct Factors {
    installed: Vec<FactorId>,
    custom: Vec<FactorId>,
}

impl Factors {
    pub(crate) fn new(installed: Vec<FactorId>, custom: Vec<FactorId>) -> Self {
        Self { installed, custom }
    }

    /// The ids that may start a session where neither tenant nor app has a list.
    pub(crate) fn first(&self) -> Vec<FactorId> {
        self.installed.iter().filter(|id| **id != FactorId::TOTP).cloned().collect()
    }

    /// The ids that may be completed in a session.
    pub(crate) fn secondary(&self) -> &[FactorId] {
        &self.installed
    }

    /// The ids that can be completed at all: what is installed, and the app's own.
    pub(crate) fn usable(&self) -> Vec<FactorId> {
        self.installed.iter().chain(&self.custom).cloned().collect()
    }

    pub(crate) fn has(&self, factor: &FactorId) -> bool {
        self.installed.contains(factor)
    }

    /// Whether a policy may name it (row P10).
    pub(crate) fn knows(&self, factor: &FactorId) -> bool {
        factor.is_built_in() || self.custom.contains(factor)
    }

    /// The factors for which a user has a credential, in the order of installation. A contact that was
    /// proved counts for every id of its channel, whatever flow is switched on.
    pub(crate) fn set_up(&self, user: &User) -> Vec<FactorId> {
        let channel = |id: &FactorId| match () {
            () if *id == FactorId::OTP_EMAIL => vec![FactorId::OTP_EMAIL, FactorId::LINK_EMAIL],
            () if *id == FactorId::OTP_PHONE => vec![FactorId::OTP_PHONE, FactorId::LINK_PHONE],
            () => vec![id.clone()],
        };
        let mut ids: Vec<FactorId> = Vec::new();
        for id in self.installed.iter().flat_map(channel) {
            if !ids.contains(&id) && user.logins.iter().any(|login| proves(login, &id)) {
                ids.push(id);
            }
        }
        ids
    }
}

/// Whether a login method is a credential for a factor.
pub(crate) fn proves(login: &LoginMethod, factor: &FactorId) -> bool {
    let email = || login.email.as_ref().is_some_and(|email| !contact::is_fake(email));
    match login.kind {
        LoginKind::EmailPassword => *factor == FactorId::PASSWORD,
        LoginKind::ThirdParty => *factor == FactorId::THIRD_PARTY,
        LoginKind::WebAuthn => *factor == FactorId::WEBAUTHN,
        LoginKind::Passwordless => match () {
            () if *factor == FactorId::OTP_EMAIL || *factor == FactorId::LINK_EMAIL => email(),
            () if *factor == FactorId::OTP_PHONE || *factor == FactorId::LINK_PHONE => login.phone.is_some(),
            () => false,
        },
        LoginKind::External => false,
    }
}
