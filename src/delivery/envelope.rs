//! What a notice travels in.

use std::time::Duration;

use crate::{
    base::{hash, ident::TenantId, time::Timestamp},
    store::Key,
};

/// What there is to know of a notice beside what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Envelope {
    /// Names the notice, in 32 hexadecimal digits: the same at every try, and no other notice's. An SMTP server
    /// finds it in the `Message-ID`, a provider gets it as idempotency key, so that whoever gets a notice twice can
    /// tell (row V03).
    pub id: String,
    /// What the app is called, and the host of its website: as the builder was told.
    pub app_name: String,
    /// See [`app_name`](Envelope::app_name).
    pub website_host: String,
    /// The tenant it comes from.
    pub tenant: TenantId,
    /// When this try began.
    pub at: Timestamp,
    /// From when it is worth nothing any more.
    pub expires_at: Timestamp,
    /// Which try this is: 1 is the first.
    pub attempt: u32,
}

impl Envelope {
    /// The first try of a notice of a nameless app: for tests, and for queues of the app's own.
    pub fn new(id: &str, tenant: TenantId, at: Timestamp, expires_at: Timestamp) -> Self {
        let (app_name, website_host) = (String::new(), String::new());
        Self { id: id.to_owned(), app_name, website_host, tenant, at, expires_at, attempt: 1 }
    }

    /// What is left until it is worth nothing.
    pub fn time_left(&self) -> Duration {
        self.expires_at.since(self.at)
    }

    /// The name of what is queued under this key. A digest: the key orders the queue by time, which is nobody
    /// else's business.
    pub(super) fn id_of(key: &Key) -> String {
        let mut id = hash::sha256_hex(key.as_str().as_bytes());
        id.truncate(32);
        id
    }
}

#[cfg(test)]
impl Envelope {
    pub(super) fn sample() -> Self {
        let (id, now) = ("0123456789abcdef0123456789abcdef", Timestamp::from_secs(1_700_000_000));
        Self::new(id, TenantId::PUBLIC, now, now + Duration::from_secs(600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::keys;

    #[test]
    fn sec_v03_a_key_has_one_name_and_the_name_tells_no_time() {
        let at = Timestamp::from_secs(1_700_000_000);
        let (one, other) = (keys::queue(at, "a"), keys::queue(at, "b"));
        assert_eq!(Envelope::id_of(&one), Envelope::id_of(&one));
        assert_ne!(Envelope::id_of(&one), Envelope::id_of(&other));
        let id = Envelope::id_of(&one);
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    }

    #[test]
    fn what_is_left_is_never_negative() {
        let envelope = Envelope::sample();
        assert_eq!(envelope.time_left(), Duration::from_secs(600));
        let late = Envelope { at: envelope.expires_at + Duration::from_secs(1), ..envelope };
        assert_eq!(late.time_left(), Duration::ZERO);
    }
}
