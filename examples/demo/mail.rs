//! A delivery of the shop's own: nothing is sent, the newest messages, mails and SMS, are shown under `/dev/outbox`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use tower_mfa::{
    Clock as _,
    delivery::{Delivery, DeliveryError, Notice, Templates as _, Texts},
    ident::{Contact, SystemClock, TenantId},
};

/// Where messages end up. A clone shares them.
#[derive(Clone)]
pub struct Mailbox {
    kept: Arc<Mutex<VecDeque<Sent>>>,
    texts: Texts,
}

#[derive(Clone, Serialize)]
pub struct Sent {
    by: &'static str,
    to: String,
    /// Empty for an SMS.
    subject: String,
    text: String,
    code: Option<String>,
    link: Option<String>,
    at: i64,
}

impl Mailbox {
    pub fn new(shop: &str) -> Self {
        Self { kept: Arc::default(), texts: Texts::new(shop) }
    }

    /// The newest messages, newest first.
    pub fn newest(&self) -> Vec<Sent> {
        self.kept().iter().rev().cloned().collect()
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Sent>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delivery for Mailbox {
    async fn deliver(&self, tenant: &TenantId, notice: &Notice) -> Result<(), DeliveryError> {
        let message = self.texts.message(tenant, notice);
        let sent = Sent {
            by: match notice.to() {
                Contact::Email(_) => "email",
                Contact::Phone(_) => "sms",
            },
            to: notice.to().as_str().to_owned(),
            subject: message.subject,
            text: message.text.expose().clone(),
            code: notice.code().map(|code| code.expose().clone()),
            link: notice.link().map(|link| link.expose().clone()),
            at: SystemClock::new().now().as_secs(),
        };
        let mut kept = self.kept();
        kept.push_back(sent);
        while kept.len() > LIMIT {
            kept.pop_front();
        }
        Ok(())
    }
}

const LIMIT: usize = 50;
