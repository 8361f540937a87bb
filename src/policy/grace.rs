//! What a tenant waits for.

use serde_json::{Value, json};

use crate::base::{ident::FactorId, time::Timestamp};

/// What a tenant will ask of a user from a date on, who has none of it set up yet (see
/// [`TenantRule::enrol_by`](crate::account::TenantRule::enrol_by)). Until then they pass, and are told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grace {
    /// Any of these is to be set up.
    pub factors: Vec<FactorId>,
    /// From then on it is asked for.
    pub until: Timestamp,
}

impl Grace {
    pub(crate) fn to_json(&self) -> Value {
        let factors: Vec<&str> = self.factors.iter().map(FactorId::as_str).collect();
        json!({ "factors": factors, "until": self.until.as_secs() })
    }
}
