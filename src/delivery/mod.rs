//! How messages leave: one seam, typed notices.
//!
//! A [`Delivery`] gets a [`Notice`] with the code or link in it and brings it to its contact, by whatever
//! provider and with whatever text. It is called from the queue, after the commit, never while a request
//! waits; a failed try comes again with the same code. [`Outbox`] is one that keeps what it gets.
//!
//! ```
//! use tower_mfa::delivery::{Delivery, DeliveryError, Notice};
//! use tower_mfa::ident::TenantId;
//!
//! struct MyMailer;
//!
//! impl Delivery for MyMailer {
//!     async fn deliver(&self, _tenant: &TenantId, notice: &Notice) -> Result<(), DeliveryError> {
//!         let Some(email) = notice.to().email() else {
//!             return Err(DeliveryError::permanent("no SMS here"));
//!         };
//!         let _ = (email.as_str(), notice.code().map(|code| code.expose()));
//!         Ok(())
//!     }
//! }
//! ```

use std::{error::Error as StdError, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

pub use self::{
    outbox::{Outbox, Sent},
    template::{Message, Templates, Texts},
};
use crate::base::{
    contact::Contact,
    error::BoxError,
    ident::{FactorId, TenantId},
    secret::Secret,
};

mod outbox;
mod sealed;
mod template;
pub(crate) mod worker;

/// Brings notices to their contacts.
pub trait Delivery: Send + Sync + 'static {
    /// Delivers one notice, to `notice.to()` and nobody else. Called again with the same notice after a
    /// temporary error, or when the process died before it could note a success.
    fn deliver(
        &self,
        tenant: &TenantId,
        notice: &Notice,
    ) -> impl Future<Output = Result<(), DeliveryError>> + Send;
}

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
}

impl Notice {
    /// Where it goes.
    pub fn to(&self) -> &Contact {
        match self {
            Self::SignInCode { to, .. }
            | Self::PasswordReset { to, .. }
            | Self::EmailVerification { to, .. }
            | Self::SuspiciousAttempts { to, .. } => to,
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
            Self::SuspiciousAttempts { .. } => None,
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

    fn name(&self) -> &'static str {
        match self {
            Self::SignInCode { .. } => "SignInCode",
            Self::PasswordReset { .. } => "PasswordReset",
            Self::EmailVerification { .. } => "EmailVerification",
            Self::SuspiciousAttempts { .. } => "SuspiciousAttempts",
        }
    }
}

/// The kind alone: the rest is secret or personal (rows G01, G02).
impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.name()).finish_non_exhaustive()
    }
}

/// A notice was not delivered.
///
/// Any error converts into a temporary one, so `?` just works; like `anyhow`'s, this type is therefore no
/// `std::error::Error` itself.
#[derive(Debug)]
pub struct DeliveryError {
    permanent: bool,
    source: BoxError,
}

impl DeliveryError {
    /// No later try can succeed: the address doesn't exist, the message was refused.
    pub fn permanent(source: impl Into<BoxError>) -> Self {
        Self { permanent: true, source: source.into() }
    }

    /// A later try may succeed.
    pub fn temporary(source: impl Into<BoxError>) -> Self {
        Self { permanent: false, source: source.into() }
    }

    /// Whether no later try can succeed.
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }

    /// What went wrong. It may hold the contact: not for logs that everyone reads.
    pub fn source(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self.source.as_ref()
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.permanent {
            true => "the notice can't be delivered",
            false => "the notice was not delivered",
        })
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for DeliveryError {
    fn from(source: E) -> Self {
        Self::temporary(source)
    }
}

/// Any delivery, chosen at run time; a delivery itself.
#[derive(Clone)]
pub struct AnyDelivery(Arc<dyn Erased>);

impl AnyDelivery {
    /// Erases a delivery's type.
    pub fn new(delivery: impl Delivery) -> Self {
        Self(Arc::new(delivery))
    }
}

impl fmt::Debug for AnyDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyDelivery").finish_non_exhaustive()
    }
}

impl Delivery for AnyDelivery {
    async fn deliver(&self, tenant: &TenantId, notice: &Notice) -> Result<(), DeliveryError> {
        self.0.deliver_boxed(tenant, notice).await
    }
}

type Boxed<'a> = Pin<Box<dyn Future<Output = Result<(), DeliveryError>> + Send + 'a>>;

/// The twin of [`Delivery`] that can be `dyn`; another name, because the same would be ambiguous (E0034).
trait Erased: Send + Sync {
    fn deliver_boxed<'a>(&'a self, tenant: &'a TenantId, notice: &'a Notice) -> Boxed<'a>;
}

impl<D: Delivery> Erased for D {
    fn deliver_boxed<'a>(&'a self, tenant: &'a TenantId, notice: &'a Notice) -> Boxed<'a> {
        Box::pin(self.deliver(tenant, notice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails;

    impl Delivery for Fails {
        async fn deliver(&self, _: &TenantId, notice: &Notice) -> Result<(), DeliveryError> {
            match notice.to() {
                Contact::Email(_) => Err(std::io::Error::other("planted"))?,
                Contact::Phone(_) => Err(DeliveryError::permanent("planted")),
            }
        }
    }

    #[tokio::test]
    async fn errors_convert_and_tell_what_they_are() {
        let delivery = AnyDelivery::new(Fails);
        for (to, permanent) in [("a@shop.example", false), ("+36301111142", true)] {
            let to = Contact::parse(to).unwrap();
            let notice = Notice::SuspiciousAttempts { to, factor: FactorId::TOTP };
            let error = delivery.deliver(&TenantId::PUBLIC, &notice).await.unwrap_err();
            assert_eq!(error.is_permanent(), permanent);
            assert_eq!(error.source().to_string(), "planted");
            assert!(!error.to_string().contains("planted"));
        }
    }

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
