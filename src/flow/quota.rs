//! How many messages may be sent: to whom, by whom, from where.

use std::time::Duration;

use super::{Caller, Desk};
use crate::{
    base::{contact::Contact, error::Error},
    model::{
        Tx, keys,
        limit::{Quota, RetryAfter, Window},
    },
};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
/// Sends a destination (`spec/security.md` 0.2).
const TO_DESTINATION: [Quota; 3] = [
    Quota::new(1, Duration::from_secs(30)),
    Quota::new(5, Duration::from_secs(HOUR)),
    Quota::new(10, Duration::from_secs(24 * HOUR)),
];
const BY_USER: [Quota; 1] = [Quota::new(10, Duration::from_secs(HOUR))];
const BY_PEER: [Quota; 1] = [Quota::new(20, Duration::from_secs(HOUR))];

/// Whether a send may happen.
pub(super) enum Send {
    Yes,
    /// Answered as if it had, to callers without a session (row O27).
    Silent,
    TooMany(RetryAfter),
}

impl Desk {
    /// Reserves a send, in the batch of the code (row O27).
    pub(super) async fn take_send(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        contact: &Contact,
    ) -> Result<Send, Error> {
        if !self.kit.config.limits {
            return Ok(Send::Yes);
        }
        let mut asked = vec![("send-to", contact.as_str().to_owned(), &TO_DESTINATION[..])];
        if let Some(session) = &caller.session {
            asked.push(("send-by", session.user_id().to_string(), &BY_USER[..]));
        }
        if let Some(peer) = super::peer_key(&caller.request) {
            asked.push(("send-from", peer, &BY_PEER[..]));
        }
        for (what, subject, quotas) in asked {
            let key = keys::limit(what, &subject);
            let mut window: Window = tx.get(&key).await?.unwrap_or_default();
            if let Err(wait) = window.try_take_all(quotas, tx.now()) {
                return Ok(if caller.session.is_some() { Send::TooMany(wait) } else { Send::Silent });
            }
            let longest = quotas.iter().map(|quota| quota.window).max().unwrap_or_default();
            tx.put(key, &window, Some(window.expires_at(longest))).await?;
        }
        Ok(Send::Yes)
    }
}
