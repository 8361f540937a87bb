//! How messages leave: one seam, typed notices.
//!
//! A [`Delivery`] gets a [`Notice`] with the code or link in it and brings it to its contact, by whatever
//! provider and with whatever text. It is called from the queue, after the commit, never while a request
//! waits; a failed try comes again with the same code, and with the same [`Envelope::id`].
//!
//! | | |
//! |---|---|
//! | [`Courier`] | words by [`Templates`], mail by an [`EmailTransport`], SMS by an [`SmsTransport`], a second provider |
//! | `SmtpTransport` (feature `smtp`) | mail through an SMTP server |
//! | [`HttpSms`] | SMS through Twilio, or through a signed request to a service of yours |
//! | [`Outbox`] | keeps what it gets: for tests and local work |
//!
//! Anything else is a `Delivery` of the app's own:
//!
//! ```
//! use tower_mfa::delivery::{Delivery, DeliveryError, Envelope, Notice};
//!
//! struct MyMailer;
//!
//! impl Delivery for MyMailer {
//!     async fn deliver(&self, envelope: &Envelope, notice: &Notice) -> Result<(), DeliveryError> {
//!         let Some(email) = notice.to().email() else {
//!             return Err(DeliveryError::permanent("no SMS here"));
//!         };
//!         let _ = (&envelope.id, email.as_str(), notice.code().map(|code| code.expose()));
//!         Ok(())
//!     }
//! }
//! ```

use std::{fmt, future::Future, pin::Pin, sync::Arc};

#[cfg(feature = "smtp")]
pub use self::smtp::SmtpTransport;
pub use self::{
    courier::{Courier, EmailTransport, SmsTransport},
    envelope::Envelope,
    error::DeliveryError,
    notice::Notice,
    outbox::{Outbox, Sent},
    sms::{HttpSms, SmsSender},
    template::{Message, Templates, Texts},
    twilio::{SmsStatus, TwilioStatus},
    words::Words,
};

mod breaker;
mod courier;
pub(crate) mod dispatch;
mod envelope;
mod error;
mod notice;
mod outbox;
mod pending;
mod sealed;
mod sms;
#[cfg(feature = "smtp")]
mod smtp;
pub(crate) mod telling;
mod template;
mod twilio;
mod words;
pub(crate) mod worker;

/// Brings notices to their contacts.
pub trait Delivery: Send + Sync + 'static {
    /// Delivers one notice, to `notice.to()` and nobody else. Called again with the same notice and the same
    /// [`Envelope::id`] after a temporary error, or when the process died before it could note a success. A try
    /// may take 15 s.
    ///
    /// # Errors
    /// If it wasn't delivered; a permanent error ends the tries.
    fn deliver(
        &self,
        envelope: &Envelope,
        notice: &Notice,
    ) -> impl Future<Output = Result<(), DeliveryError>> + Send;
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
    async fn deliver(&self, envelope: &Envelope, notice: &Notice) -> Result<(), DeliveryError> {
        self.0.deliver_boxed(envelope, notice).await
    }
}

type Boxed<'a> = Pin<Box<dyn Future<Output = Result<(), DeliveryError>> + Send + 'a>>;

/// The twin of [`Delivery`] that can be `dyn`; another name, because the same would be ambiguous (E0034).
trait Erased: Send + Sync {
    fn deliver_boxed<'a>(&'a self, envelope: &'a Envelope, notice: &'a Notice) -> Boxed<'a>;
}

impl<D: Delivery> Erased for D {
    fn deliver_boxed<'a>(&'a self, envelope: &'a Envelope, notice: &'a Notice) -> Boxed<'a> {
        Box::pin(self.deliver(envelope, notice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{contact::Contact, ident::FactorId};

    struct Fails;

    impl Delivery for Fails {
        async fn deliver(&self, _: &Envelope, notice: &Notice) -> Result<(), DeliveryError> {
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
            let error = delivery.deliver(&Envelope::sample(), &notice).await.unwrap_err();
            assert_eq!(error.is_permanent(), permanent);
            assert_eq!(error.source().to_string(), "planted");
            assert!(!error.to_string().contains("planted"));
            assert_eq!(error.with_reason("550").reason(), Some("550"));
        }
    }
}
