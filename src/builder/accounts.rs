//! How people register, and what is asked of their addresses and passwords.

use std::sync::Arc;

use super::MfaBuilder;
#[cfg(feature = "password")]
use crate::factor::{BreachedPasswords, FormField, PasswordRules};
use crate::{
    claim::{ClaimRef, EmailIsVerified, EmailVerified, SessionClaim as _},
    config::EmailVerification,
};

impl MfaBuilder {
    /// Whether addresses are proved by a link. Default: not at all; what a code by e-mail proved is proved.
    pub fn email_verification(mut self, mode: EmailVerification) -> Self {
        self.config.email_verification = mode;
        self
    }

    /// What a password must be.
    #[cfg(feature = "password")]
    pub fn password_rules(mut self, rules: PasswordRules) -> Self {
        self.passwords.rules = rules;
        self
    }

    /// One more field of the sign-up form.
    #[cfg(feature = "password")]
    pub fn sign_up_field(mut self, field: FormField) -> Self {
        self.passwords.fields.push(field);
        self
    }

    /// Asks whether a new password is known from a leak.
    #[cfg(feature = "password")]
    pub fn breached_passwords(mut self, breached: impl BreachedPasswords) -> Self {
        self.passwords.ask_breached(breached);
        self
    }

    /// The claim and its validator, as the mode says; the validator stands before the others, in the order in which
    /// the SDKs' pages go.
    pub(super) fn add_verification(&mut self) {
        let mode = self.config.email_verification;
        if mode != EmailVerification::Off && !self.claims.iter().any(|c| c.key() == EmailVerified::KEY) {
            self.claims.push(ClaimRef::new(EmailVerified));
        }
        if mode == EmailVerification::Required {
            self.validators.insert(0, Arc::new(EmailIsVerified::new()));
        }
    }

    /// What of it contradicts itself.
    pub(super) fn account_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.config.email_verification != EmailVerification::Off && self.delivery.is_none() {
            problems.push("links that verify addresses need a delivery: add .delivery(..)".to_owned());
        }
        #[cfg(feature = "password")]
        for (at, field) in self.passwords.fields.iter().enumerate() {
            let id = &field.id;
            let known = self.passwords.fields.iter().take(at).any(|other| other.id == *id);
            if known || ["email", "password"].contains(&id.as_str()) {
                problems.push(format!("two fields of the sign-up form are called {id}"));
            }
            if id.is_empty() || id.len() > 64 {
                problems.push("a field of the sign-up form needs a name of 1 to 64 bytes".to_owned());
            }
        }
        problems
    }
}
