//! Users and their login methods.

use serde::{Deserialize, Serialize};

use crate::base::{
    contact::{Email, Phone},
    ident::{LoginId, TenantId, UserId},
    time::Timestamp,
};

/// One person: one or more login methods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct User {
    /// The user's id; the id of the first login method while nothing was linked.
    pub id: UserId,
    /// Whether other login methods may be linked to this one. A user with several is always primary.
    pub primary: bool,
    /// The login methods, in the order in which they joined.
    pub logins: Vec<LoginMethod>,
}

/// One credential record of a user: what the wire calls a *recipe user*.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LoginMethod {
    /// The login method's own id.
    pub id: LoginId,
    /// What kind of credential.
    pub kind: LoginKind,
    /// The tenants in which it counts.
    pub tenants: Vec<TenantId>,
    /// When it was made.
    pub joined_at: Timestamp,
    /// Whether the contact was proved.
    pub verified: bool,
    /// The e-mail address, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// The phone number, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<Phone>,
    /// The provider's name for the user, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub third_party: Option<ThirdPartyId>,
}

/// The kinds of login method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LoginKind {
    /// A password.
    EmailPassword,
    /// A third party's sign-in.
    ThirdParty,
    /// Codes and links by e-mail or SMS.
    Passwordless,
    /// A passkey.
    WebAuthn,
    /// A user of the app itself, whose credential the crate never sees.
    External,
}

/// Who a user is at a third party (row L06: the key is provider and subject, never the e-mail).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ThirdPartyId {
    /// The provider's id.
    pub provider: String,
    /// The provider's id for the user.
    pub subject: String,
}

impl User {
    /// The login method of this id, if the user has it.
    pub fn login(&self, id: &LoginId) -> Option<&LoginMethod> {
        self.logins.iter().find(|login| login.id == *id)
    }

    /// When the user's first login method was made.
    pub fn joined_at(&self) -> Timestamp {
        self.logins.iter().map(|login| login.joined_at).min().unwrap_or_default()
    }

    /// Whether any login method counts in the tenant.
    pub fn is_in(&self, tenant: &TenantId) -> bool {
        self.logins.iter().any(|login| login.tenants.contains(tenant))
    }
}
