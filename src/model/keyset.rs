//! The signing keys as they are stored: sealed, in one record, so that processes agree on one plan.

use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;

/// All keys that sign or verify, and the ids that never may again (row J08).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct KeySet {
    pub(crate) keys: Vec<StoredKey>,
    /// For ever, so without a bound: an id is short, and each cost somebody a call.
    #[serde(default)]
    pub(crate) revoked: Vec<String>,
}

impl KeySet {
    pub(crate) fn is_revoked(&self, kid: &str) -> bool {
        self.revoked.iter().any(|revoked| revoked == kid)
    }

    /// The keys that may be used at all.
    pub(crate) fn usable(&self) -> impl Iterator<Item = &StoredKey> + Clone {
        self.keys.iter().filter(|key| !self.is_revoked(&key.kid))
    }

    /// An id that no key has or had: `d-` and the milliseconds of its making, or the next that is free.
    pub(crate) fn free_kid(&self, now: Timestamp) -> String {
        let taken = |kid: &String| self.is_revoked(kid) || self.keys.iter().any(|key| key.kid == *kid);
        let mut millis = now.as_millis();
        loop {
            let kid = format!("d-{millis}");
            if !taken(&kid) {
                return kid;
            }
            millis = millis.saturating_add(1);
        }
    }
}

/// One key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredKey {
    pub(crate) kid: String,
    pub(crate) alg: String,
    /// PKCS#8, or a secret's bytes, sealed under a root key.
    pub(crate) sealed: String,
    pub(crate) created_at: Timestamp,
    pub(crate) sign_from: Timestamp,
    pub(crate) sign_until: Timestamp,
    pub(crate) verify_until: Timestamp,
}
