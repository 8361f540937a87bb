//! Which factors may start a session in a tenant: pure (`spec/mfa.md` §4).

use crate::base::ident::FactorId;

/// The factors that may start a session, in the order in which they are advertised.
///
/// Three sources, the first that is there wins, lists are never merged: the tenant's, the app's, every
/// method that is enabled. Then an id counts if a method that is enabled offers it, or if it is an app's
/// own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstFactors {
    listed: Vec<FactorId>,
}

impl FirstFactors {
    /// Decides. `enabled` are the ids that the enabled methods offer as first factors.
    pub fn new(enabled: &[FactorId], app: Option<&[FactorId]>, tenant: Option<&[FactorId]>) -> Self {
        let chosen = tenant.or(app).unwrap_or(enabled);
        let counts = |id: &&FactorId| enabled.contains(id) || !id.is_built_in();
        Self { listed: chosen.iter().filter(counts).cloned().collect() }
    }

    /// Of an app that has its own users: no method of the crate's starts a session, and the app vouches for
    /// whatever it names. The list is the tenant's, or the app's, or empty.
    pub(crate) fn vouched(app: Option<&[FactorId]>, tenant: Option<&[FactorId]>) -> Self {
        Self { listed: tenant.or(app).unwrap_or_default().to_vec() }
    }

    /// The list, as it is advertised.
    pub fn listed(&self) -> &[FactorId] {
        &self.listed
    }

    /// Whether a session may start with this factor.
    pub fn accepts(&self, factor: &FactorId) -> bool {
        self.listed.contains(factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_list_that_is_there_wins() {
        let list = |text: &str| -> Vec<FactorId> {
            text.split_whitespace().map(|id| FactorId::parse(id).unwrap()).collect()
        };
        for (app, tenant, expected) in [
            (None, None, "emailpassword otp-email"),
            (Some("otp-email"), None, "otp-email"),
            (Some("otp-email"), Some("emailpassword"), "emailpassword"),
            (None, Some(""), ""),
            (Some("otp-email"), Some(""), ""),
            (Some("thirdparty emailpassword"), None, "emailpassword"),
            (None, Some("totp"), ""),
            (Some("sso otp-email"), None, "sso otp-email"),
            (Some("sso"), Some("otp-email"), "otp-email"),
        ] {
            let (app_list, tenant_list) = (app.map(list), tenant.map(list));
            let enabled = list("emailpassword otp-email");
            let first = FirstFactors::new(&enabled, app_list.as_deref(), tenant_list.as_deref());
            assert_eq!(first.listed(), list(expected), "{app:?} {tenant:?}");
            for id in list("emailpassword otp-email thirdparty totp sso") {
                assert_eq!(first.accepts(&id), list(expected).contains(&id), "{app:?} {tenant:?} {id}");
            }
        }
    }
}
