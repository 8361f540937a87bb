//! Who somebody is at a third party.

use serde::{Deserialize, Serialize};

use crate::{base::ident::TenantId, store::Key};

/// Who a user is at a third party (row L06: the key is whose provider, its id and the subject, never the e-mail).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ThirdPartyId {
    /// The provider's id.
    pub provider: String,
    /// The provider's id for the user.
    pub subject: String,
    /// The tenant whose own provider it is; `None`: it is one of the app's. What a tenant's provider calls somebody is
    /// nobody whom the app's provider, or another tenant's, of the same id calls so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
}

impl ThirdPartyId {
    /// The name by which a login method is found.
    pub(super) fn name(&self) -> String {
        let whose = self.tenant.iter().map(TenantId::as_str);
        Key::new([self.provider.as_str(), &self.subject].into_iter().chain(whose)).as_str().to_owned()
    }
}
