//! A delivery that keeps what it gets: for tests, and for working without a mail server.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Delivery, DeliveryError, Envelope, Notice};
use crate::base::{contact::Contact, ident::TenantId, secret::Secret};

/// Keeps the newest 10 000 notices; a clone shares them. Not for production: nothing is sent, and codes
/// stay in memory.
///
/// ```
/// use tower_mfa::{delivery::Outbox, ident::Contact};
/// let outbox = Outbox::new();
/// let delivery = outbox.clone(); // goes to the builder
/// let alice = Contact::parse("alice@shop.example")?;
/// assert!(outbox.last_to(&alice).is_none());
/// # let _ = delivery;
/// # Ok::<(), tower_mfa::ident::ParseError>(())
/// ```
#[derive(Clone)]
pub struct Outbox {
    kept: Arc<Mutex<VecDeque<Sent>>>,
    prints: bool,
}

/// A notice that was delivered to an [`Outbox`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sent {
    /// Its [`Envelope::id`]: the same if it came twice.
    pub id: String,
    /// The tenant it came from.
    pub tenant: TenantId,
    /// The notice.
    pub notice: Notice,
}

impl Outbox {
    /// Keeps notices and says nothing.
    pub fn new() -> Self {
        Self { kept: Arc::default(), prints: false }
    }

    /// Besides, writes each code and link to standard error: for a developer at a terminal, and for
    /// nothing else.
    pub fn printing() -> Self {
        Self { prints: true, ..Self::new() }
    }

    /// What is kept, oldest first.
    pub fn messages(&self) -> Vec<Sent> {
        self.kept().iter().cloned().collect()
    }

    /// The newest one to a contact.
    pub fn last_to(&self, contact: &Contact) -> Option<Sent> {
        self.kept().iter().rev().find(|sent| sent.notice.to() == contact).cloned()
    }

    /// How many of those kept went to a contact.
    pub fn count_to(&self, contact: &Contact) -> usize {
        self.kept().iter().filter(|sent| sent.notice.to() == contact).count()
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Sent>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("kept", &self.kept().len()).finish_non_exhaustive()
    }
}

impl Delivery for Outbox {
    async fn deliver(&self, envelope: &Envelope, notice: &Notice) -> Result<(), DeliveryError> {
        if self.prints {
            // A terminal that went away is no reason to fail.
            let _ = writeln!(io::stderr(), "{}", line(notice));
        }
        let mut kept = self.kept();
        if kept.len() >= LIMIT {
            kept.pop_front();
        }
        kept.push_back(Sent {
            id: envelope.id.clone(),
            tenant: envelope.tenant.clone(),
            notice: notice.clone(),
        });
        Ok(())
    }
}

fn line(notice: &Notice) -> String {
    let part = |name: &str, secret: Option<&Secret<String>>| match secret {
        Some(text) => format!(" {name} {}", text.expose()),
        None => String::new(),
    };
    format!("to {}:{}{}", notice.to(), part("code", notice.code()), part("link", notice.link()))
}

const LIMIT: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::ident::FactorId;

    fn notice(to: &str, code: &str) -> Notice {
        Notice::SignInCode {
            to: Contact::parse(to).unwrap(),
            code: Some(Secret::new(code.to_owned())),
            link: None,
            valid_for: Duration::from_secs(600),
            factor: FactorId::OTP_EMAIL,
            first_factor: true,
        }
    }

    #[tokio::test]
    async fn keeps_by_contact_and_is_bounded() {
        let (outbox, envelope) = (Outbox::new(), Envelope::sample());
        let (alice, bob) =
            (Contact::parse("a@shop.example").unwrap(), Contact::parse("b@shop.example").unwrap());
        for (to, code) in [("a@shop.example", "1"), ("b@shop.example", "2"), ("A@shop.example", "3")] {
            outbox.clone().deliver(&envelope, &notice(to, code)).await.unwrap();
        }
        assert_eq!((outbox.count_to(&alice), outbox.count_to(&bob)), (2, 1));
        assert_eq!(outbox.last_to(&alice).unwrap().notice.code().unwrap().expose(), "3");
        assert_eq!(outbox.messages().len(), 3);
        for n in 0..LIMIT {
            outbox.deliver(&envelope, &notice("c@shop.example", &n.to_string())).await.unwrap();
        }
        assert_eq!((outbox.messages().len(), outbox.count_to(&alice)), (LIMIT, 0));
    }

    #[test]
    fn sec_g01_prints_only_when_told_to() {
        assert!(!Outbox::new().prints && !Outbox::default().prints && Outbox::printing().prints);
        assert_eq!(line(&notice("a@shop.example", "123456")), "to a@shop.example: code 123456");
        assert_eq!(format!("{:?}", Outbox::new()), "Outbox { kept: 0, .. }");
    }
}
