//! The signing keys as they are stored: sealed, in one record, so that processes agree on one plan.

use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;

/// All keys that sign or verify, and the ids that never may again (row J08).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct KeySet {
    pub(crate) keys: Vec<StoredKey>,
    #[serde(default)]
    pub(crate) revoked: Vec<String>,
}

/// One key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredKey {
    pub(crate) kid: String,
    pub(crate) alg: String,
    /// PKCS#8, sealed under the root key.
    pub(crate) sealed: String,
    pub(crate) created_at: Timestamp,
    pub(crate) sign_from: Timestamp,
    pub(crate) sign_until: Timestamp,
    pub(crate) verify_until: Timestamp,
}
