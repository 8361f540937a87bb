//! Every key shape of the crate on one page, with what makes each unique.
//!
//! What a tenant owns begins with `t/<tenant>/` (row N04).
//!
//! | key | record | unique by |
//! |---|---|---|
//! | `user/<user>` | `User` with its login methods | a random id |
//! | `login-of/<login>` | whose login method it is | a random id |
//! | `password/<login>` | the password's hash | its login method |
//! | `required/<user>` | factors the user opted into | its user |
//! | `metadata/<user>` | what the app keeps about the user | its user |
//! | `permissions/<role>` | what a role allows | the role |
//! | `t/<tenant>/login/<kind>/<name>` | who signs in by this name | one login method a kind, name and tenant |
//! | `t/<tenant>/primary/<kind>/<name>` | the primary user of this contact | one primary user a contact and tenant |
//! | `t/<tenant>/holders/<kind>/<name>` | the login methods that have this contact | tenant and contact |
//! | `t/<tenant>/session/<handle>` | `SessionRecord` | a random handle |
//! | `sessions-of/<user>` | the handles of a user's sessions | its user |
//! | `agents-of/<user>` | by what kinds of browser the user signed in, as digests | its user |
//! | `t/<tenant>/role/<user>` | roles of the user there | tenant and user |
//! | `t/<tenant>/code/<challenge>` | a one-time code's challenge | a random device id |
//! | `t/<tenant>/ticket/<digest>` | a ticket, by the digest of what the mail holds | 256 random bits |
//! | `tickets-of/<user>` | generations of a user's tickets | its user |
//! | `t/<tenant>/contact/<purpose>/<name>` | generation of a destination's codes | tenant, purpose, contact |
//! | `tenant/<tenant>` | `Tenant` | its id |
//! | `t/<tenant>/providers` | the tenant's own providers, sealed | its tenant |
//! | `epoch/app`, `epoch/tenant/<t>`, `epoch/user/<u>` | numbers that tokens are measured against | its subject |
//! | `change-head/<lane>`, `change/<lane>/<n>` | the change feed | lane and number, without gaps |
//! | `keyset` | signing keys, sealed | there is one |
//! | `limit/<what>/<subject>` | counters and cool-downs | what and whom |
//! | `queue/<time>-<random>` | a notice to send, sealed | a random id |
//! | `audit/<time>-<random>` | one security decision | a random id |
//! | `op/<random>` | receipt of a batch without audit | a random id |

use super::code::Purpose;
use crate::{
    base::{
        contact::Contact,
        ident::{FactorId, LoginId, Role, SessionHandle, TenantId, UserId},
        time::Timestamp,
    },
    store::{Key, key::sortable},
};

pub(crate) fn user(id: &UserId) -> Key {
    Key::new(["user", id.as_str()])
}

pub(crate) fn login_of(id: &LoginId) -> Key {
    Key::new(["login-of", id.as_str()])
}

pub(crate) fn password(id: &LoginId) -> Key {
    Key::new(["password", id.as_str()])
}

pub(crate) fn required(id: &UserId) -> Key {
    Key::new(["required", id.as_str()])
}

pub(crate) fn metadata(id: &UserId) -> Key {
    Key::new(["metadata", id.as_str()])
}

pub(crate) fn permissions(role: &Role) -> Key {
    Key::new(["permissions", role.as_str()])
}

/// What permissions of roles are under.
pub(crate) fn all_permissions() -> Key {
    Key::new(["permissions"])
}

/// What a tenant owns is under this.
pub(crate) fn of_tenant(tenant: &TenantId) -> Key {
    Key::new(["t", tenant.as_str()])
}

/// Who has a contact in a tenant.
pub(crate) fn holders(tenant: &TenantId, contact: &Contact) -> Key {
    let kind = match contact {
        Contact::Email(_) => "email",
        Contact::Phone(_) => "phone",
    };
    Key::new(["t", tenant.as_str(), "holders", kind, contact.as_str()])
}

/// What names sign in by in a tenant is under this.
pub(crate) fn logins(tenant: &TenantId) -> Key {
    Key::new(["t", tenant.as_str(), "login"])
}

pub(crate) fn login(tenant: &TenantId, kind: &str, name: &str) -> Key {
    Key::new(["t", tenant.as_str(), "login", kind, name])
}

pub(crate) fn primary(tenant: &TenantId, kind: &str, name: &str) -> Key {
    Key::new(["t", tenant.as_str(), "primary", kind, name])
}

pub(crate) fn session(handle: &SessionHandle) -> Key {
    Key::new(["t", handle.tenant().as_str(), "session", handle.as_str()])
}

pub(crate) fn sessions_of(user: &UserId) -> Key {
    Key::new(["sessions-of", user.as_str()])
}

pub(crate) fn agents(user: &UserId) -> Key {
    Key::new(["agents-of", user.as_str()])
}

pub(crate) fn role(tenant: &TenantId, user: &UserId) -> Key {
    Key::new(["t", tenant.as_str(), "role", user.as_str()])
}

pub(crate) fn code(tenant: &TenantId, challenge: &str) -> Key {
    Key::new(["t", tenant.as_str(), "code", challenge])
}

pub(crate) fn ticket(tenant: &TenantId, digest: &str) -> Key {
    Key::new(["t", tenant.as_str(), "ticket", digest])
}

pub(crate) fn tickets_of(user: &UserId) -> Key {
    Key::new(["tickets-of", user.as_str()])
}

/// What is said of the codes of one purpose to one contact.
pub(crate) fn destination(tenant: &TenantId, purpose: Purpose, contact: &Contact) -> Key {
    let purpose = match purpose {
        Purpose::FirstFactor => "first",
        Purpose::SecondFactor => "second",
    };
    Key::new(["t", tenant.as_str(), "contact", purpose, contact.as_str()])
}

pub(crate) fn tenant(id: &TenantId) -> Key {
    Key::new(["tenant", id.as_str()])
}

pub(crate) fn tenants() -> Key {
    Key::new(["tenant"])
}

#[cfg(feature = "third-party")]
pub(crate) fn providers(id: &TenantId) -> Key {
    Key::new(["t", id.as_str(), "providers"])
}

pub(crate) fn app_epoch() -> Key {
    Key::new(["epoch", "app"])
}

pub(crate) fn tenant_epoch(id: &TenantId) -> Key {
    Key::new(["epoch", "tenant", id.as_str()])
}

pub(crate) fn user_epoch(id: &UserId) -> Key {
    Key::new(["epoch", "user", id.as_str()])
}

pub(crate) fn change_heads() -> Key {
    Key::new(["change-head"])
}

pub(crate) fn change_head(lane: u8) -> Key {
    Key::new(["change-head", &format!("{lane:02}")])
}

pub(crate) fn change_lane(lane: u8) -> Key {
    Key::new(["change", &format!("{lane:02}")])
}

pub(crate) fn change(lane: u8, number: u64) -> Key {
    Key::new(["change", &format!("{lane:02}"), &format!("{number:016x}")])
}

pub(crate) fn keyset() -> Key {
    Key::new(["keyset"])
}

/// A user's guesses at one kind of factor, over all sessions, flows, devices and tenants.
pub(crate) fn guesses(user: &UserId, factor: &FactorId) -> Key {
    limit("guess", &format!("user {user} {factor}"))
}

pub(crate) fn limit(what: &str, subject: &str) -> Key {
    Key::new(["limit", what, subject])
}

/// All limits of one kind.
#[cfg(feature = "phone")]
pub(crate) fn limits(what: &str) -> Key {
    Key::new(["limit", what])
}

pub(crate) fn queue(at: Timestamp, random: &str) -> Key {
    Key::new(["queue", &format!("{}-{random}", sortable(at))])
}

pub(crate) fn queued() -> Key {
    Key::new(["queue"])
}

pub(crate) fn audit(at: Timestamp, random: &str) -> Key {
    Key::new(["audit", &format!("{}-{random}", sortable(at))])
}

pub(crate) fn audits() -> Key {
    Key::new(["audit"])
}
