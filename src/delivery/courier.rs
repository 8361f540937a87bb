//! The delivery that most apps take: words by templates, one transport for mail, one for SMS, and a second provider.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use super::{
    AnyDelivery, Delivery, DeliveryError, Envelope, Message, Notice, Templates, Texts, breaker::Breaker,
};
use crate::base::contact::{Contact, Email, Phone};

/// How long a provider may take (row V02); and if another one stands by, so that both fit into a try.
const PATIENCE: Duration = Duration::from_secs(15);
const SHARED: Duration = Duration::from_secs(10);

/// Sends mail.
pub trait EmailTransport: Send + Sync + 'static {
    /// Sends one message to one address, under the envelope's id.
    ///
    /// # Errors
    /// If it wasn't sent; permanent if no later try can succeed.
    fn send(
        &self,
        envelope: &Envelope,
        to: &Email,
        message: &Message,
    ) -> impl Future<Output = Result<(), DeliveryError>> + Send;
}

/// Sends SMS.
pub trait SmsTransport: Send + Sync + 'static {
    /// Sends one message to one number, under the envelope's id.
    ///
    /// # Errors
    /// If it wasn't sent; permanent if no later try can succeed.
    fn send(
        &self,
        envelope: &Envelope,
        to: &Phone,
        message: &Message,
    ) -> impl Future<Output = Result<(), DeliveryError>> + Send;
}

/// Puts notices into words and sends them: see the [module's docs](super).
///
/// A provider that fails ten times in a row is left alone for 30 s. With a [`fallback`](Courier::fallback), what the
/// first provider doesn't take goes to the second within the same try.
///
/// ```
/// use tower_mfa::{
///     delivery::{Courier, DeliveryError, EmailTransport, Envelope, Message, Texts},
///     ident::Email,
/// };
///
/// struct Pigeons;
///
/// impl EmailTransport for Pigeons {
///     async fn send(&self, envelope: &Envelope, to: &Email, message: &Message) -> Result<(), DeliveryError> {
///         println!("{} to {}: {}", envelope.id, to.as_str(), message.subject);
///         Ok(())
///     }
/// }
///
/// let courier = Courier::new(Pigeons).templates(Texts::new("Corner Shop"));
/// # let _ = courier;
/// ```
#[derive(Clone)]
#[must_use]
pub struct Courier {
    email: Option<Arc<dyn ErasedEmail>>,
    sms: Option<Arc<dyn ErasedSms>>,
    templates: Option<Arc<dyn Templates>>,
    fallback: Option<AnyDelivery>,
    breakers: Arc<[Breaker; 2]>,
}

impl Courier {
    /// A courier for mail.
    pub fn new(email: impl EmailTransport) -> Self {
        Self { email: Some(Arc::new(email)), ..Self::empty() }
    }

    /// A courier for SMS alone.
    pub fn sms_only(sms: impl SmsTransport) -> Self {
        Self { sms: Some(Arc::new(sms)), ..Self::empty() }
    }

    /// SMS as well.
    pub fn sms(mut self, sms: impl SmsTransport) -> Self {
        self.sms = Some(Arc::new(sms));
        self
    }

    /// The words. Default: [`Texts`] that call the app by its name and bind codes by SMS to its website.
    pub fn templates(mut self, templates: impl Templates) -> Self {
        self.templates = Some(Arc::new(templates));
        self
    }

    /// A second provider, most often another courier: it gets what this one couldn't deliver, at once. The first
    /// one may then take 10 s instead of 15.
    pub fn fallback(mut self, second: impl Delivery) -> Self {
        self.fallback = Some(AnyDelivery::new(second));
        self
    }

    fn empty() -> Self {
        Self { email: None, sms: None, templates: None, fallback: None, breakers: Arc::default() }
    }

    async fn first(&self, envelope: &Envelope, notice: &Notice) -> Result<(), DeliveryError> {
        let message = match &self.templates {
            Some(templates) => templates.message(&envelope.tenant, notice),
            None => Texts::new(&envelope.app_name)
                .website_host(&envelope.website_host)
                .message(&envelope.tenant, notice),
        };
        let [mail, sms] = &*self.breakers;
        let (breaker, sending) = match (notice.to(), &self.email, &self.sms) {
            (Contact::Email(to), Some(email), _) => (mail, email.send_boxed(envelope, to, &message)),
            (Contact::Phone(to), _, Some(transport)) => (sms, transport.send_boxed(envelope, to, &message)),
            (Contact::Email(_), None, _) => return Err(missing("no transport for mail")),
            (Contact::Phone(_), _, None) => return Err(missing("no transport for SMS")),
        };
        // Without another provider the queue itself waits: it rests by the same rule.
        if self.fallback.is_some() && !breaker.admits(envelope.at) {
            return Err(DeliveryError::temporary("the circuit is open").with_reason("circuit open"));
        }
        let patience = if self.fallback.is_some() { SHARED } else { PATIENCE };
        let outcome = match tokio::time::timeout(patience, sending).await {
            Ok(outcome) => outcome,
            Err(late) => Err(DeliveryError::temporary(late).with_reason("timeout")),
        };
        match &outcome {
            Err(error) if !error.is_permanent() => drop(breaker.failed(envelope.at)),
            _ => breaker.reached(),
        }
        outcome
    }
}

fn missing(what: &'static str) -> DeliveryError {
    DeliveryError::permanent(what).with_reason(what)
}

impl Delivery for Courier {
    async fn deliver(&self, envelope: &Envelope, notice: &Notice) -> Result<(), DeliveryError> {
        let Err(first) = self.first(envelope, notice).await else { return Ok(()) };
        let Some(fallback) = &self.fallback else { return Err(first) };
        match fallback.deliver(envelope, notice).await {
            // Only both of them can say that it is in vain.
            Err(second) if second.is_permanent() && !first.is_permanent() => Err(first),
            outcome => outcome,
        }
    }
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Courier")
            .field("email", &self.email.is_some())
            .field("sms", &self.sms.is_some())
            .field("fallback", &self.fallback.is_some())
            .finish_non_exhaustive()
    }
}

type Boxed<'a> = Pin<Box<dyn Future<Output = Result<(), DeliveryError>> + Send + 'a>>;

/// The twin of [`EmailTransport`] that can be `dyn`.
trait ErasedEmail: Send + Sync {
    fn send_boxed<'a>(&'a self, envelope: &'a Envelope, to: &'a Email, message: &'a Message) -> Boxed<'a>;
}

impl<T: EmailTransport> ErasedEmail for T {
    fn send_boxed<'a>(&'a self, envelope: &'a Envelope, to: &'a Email, message: &'a Message) -> Boxed<'a> {
        Box::pin(self.send(envelope, to, message))
    }
}

/// The twin of [`SmsTransport`] that can be `dyn`.
trait ErasedSms: Send + Sync {
    fn send_boxed<'a>(&'a self, envelope: &'a Envelope, to: &'a Phone, message: &'a Message) -> Boxed<'a>;
}

impl<T: SmsTransport> ErasedSms for T {
    fn send_boxed<'a>(&'a self, envelope: &'a Envelope, to: &'a Phone, message: &'a Message) -> Boxed<'a> {
        Box::pin(self.send(envelope, to, message))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::base::ident::FactorId;

    /// Counts its calls and fails as it is told.
    #[derive(Clone, Default)]
    struct Provider {
        calls: Arc<AtomicU32>,
        fails: Option<bool>,
        hangs: bool,
    }

    impl Provider {
        fn failing(permanent: bool) -> Self {
            Self { fails: Some(permanent), ..Self::default() }
        }

        fn calls(&self) -> u32 {
            self.calls.load(Ordering::SeqCst)
        }

        async fn answer(&self) -> Result<(), DeliveryError> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            if self.hangs {
                std::future::pending::<()>().await;
            }
            match self.fails {
                None => Ok(()),
                Some(true) => Err(DeliveryError::permanent("planted")),
                Some(false) => Err(DeliveryError::temporary("planted")),
            }
        }
    }

    impl EmailTransport for Provider {
        async fn send(&self, _: &Envelope, _: &Email, _: &Message) -> Result<(), DeliveryError> {
            self.answer().await
        }
    }

    impl SmsTransport for Provider {
        async fn send(&self, _: &Envelope, _: &Phone, _: &Message) -> Result<(), DeliveryError> {
            self.answer().await
        }
    }

    fn notice(to: &str) -> Notice {
        Notice::SuspiciousAttempts { to: Contact::parse(to).unwrap(), factor: FactorId::TOTP }
    }

    const ALICE: &str = "a@shop.example";
    const PHONE: &str = "+36301111142";

    #[tokio::test]
    async fn each_contact_has_its_transport() {
        let (mail, sms, envelope) = (Provider::default(), Provider::default(), Envelope::sample());
        let both = Courier::new(mail.clone()).sms(sms.clone());
        both.deliver(&envelope, &notice(ALICE)).await.unwrap();
        both.deliver(&envelope, &notice(PHONE)).await.unwrap();
        assert_eq!((mail.calls(), sms.calls()), (1, 1));
        let error = Courier::new(mail.clone()).deliver(&envelope, &notice(PHONE)).await.unwrap_err();
        assert!(error.is_permanent() && error.reason() == Some("no transport for SMS"));
        let error = Courier::sms_only(sms).deliver(&envelope, &notice(ALICE)).await.unwrap_err();
        assert!(error.is_permanent() && mail.calls() == 1);
    }

    #[tokio::test(start_paused = true)]
    async fn sec_v02_a_second_provider_takes_over_within_the_try() {
        let envelope = Envelope::sample();
        let hanging = || Provider { hangs: true, ..Provider::default() };
        for first in [Provider::failing(false), Provider::failing(true), hanging()] {
            let second = Provider::default();
            let courier = Courier::new(first.clone()).fallback(Courier::new(second.clone()));
            courier.deliver(&envelope, &notice(ALICE)).await.unwrap();
            assert_eq!((first.calls(), second.calls()), (1, 1));
        }
        let error = Courier::new(hanging()).deliver(&envelope, &notice(ALICE)).await.unwrap_err();
        assert_eq!((error.is_permanent(), error.reason()), (false, Some("timeout")));
        // It is in vain only if both say so.
        for (one, other) in [(false, false), (false, true), (true, false), (true, true)] {
            let second = Courier::new(Provider::failing(other));
            let courier = Courier::new(Provider::failing(one)).fallback(second);
            let error = courier.deliver(&envelope, &notice(ALICE)).await.unwrap_err();
            assert_eq!(error.is_permanent(), one && other, "{one} {other}");
        }
    }

    #[tokio::test]
    async fn sec_v02_a_provider_that_keeps_failing_is_left_alone() {
        let (mail, sms, second) = (Provider::failing(false), Provider::default(), Provider::default());
        let spare = Courier::new(second.clone()).sms(second.clone());
        let courier = Courier::new(mail.clone()).sms(sms.clone()).fallback(spare);
        let mut envelope = Envelope::sample();
        for _ in 0..15 {
            courier.deliver(&envelope, &notice(ALICE)).await.unwrap();
        }
        assert_eq!((mail.calls(), second.calls()), (10, 15));
        // The other transport is none the worse for it.
        courier.deliver(&envelope, &notice(PHONE)).await.unwrap();
        assert_eq!((sms.calls(), second.calls()), (1, 15));
        envelope.at = envelope.at + Duration::from_secs(30);
        courier.deliver(&envelope, &notice(ALICE)).await.unwrap();
        assert_eq!((mail.calls(), second.calls()), (11, 16));
        // A refusal is an answer: whoever gives it is there.
        let refusing = Provider::failing(true);
        let courier = Courier::new(refusing.clone()).fallback(Courier::new(Provider::default()));
        for _ in 0..15 {
            courier.deliver(&envelope, &notice(ALICE)).await.unwrap();
        }
        assert_eq!(refusing.calls(), 15);
    }
}
