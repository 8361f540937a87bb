//! Security notices: what a user is told of their own account, in the batch of what happened.

use std::time::Duration;

use super::{Notice, dispatch::Dispatch};
use crate::{
    base::{
        contact::Contact,
        error::Error,
        ident::{FactorId, TenantId},
    },
    model::{
        Tx,
        user::{LoginKind, LoginMethod, User},
    },
};

/// How long such a notice is worth sending.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// To no more addresses than these.
const ADDRESSES: usize = 3;

impl Dispatch {
    /// Stages a notice to each address that a user has proved. Pass the user as it was *before* a factor was added or
    /// removed: whoever adds an address must not be the only one to hear of it. The next look at the queue sends it.
    pub(crate) fn tell(
        &self,
        tx: &mut Tx,
        tenant: &TenantId,
        user: &User,
        notice: impl Fn(Contact) -> Notice,
    ) -> Result<(), Error> {
        for to in proved(user) {
            self.stage(tx, tenant, &notice(to), tx.now() + LIFE, false)?;
        }
        Ok(())
    }
}

fn proved(user: &User) -> Vec<Contact> {
    let verified = user.logins.iter().filter(|login| login.verified);
    let mut contacts: Vec<Contact> =
        verified.filter_map(|login| login.email.clone()).map(Contact::from).collect();
    let mut seen = std::collections::BTreeSet::new();
    contacts.retain(|contact| seen.insert(contact.clone()));
    contacts.truncate(ADDRESSES);
    contacts
}

/// The factor that a login method is for, as people know it; none for a user of the app's own.
pub(crate) fn factor_of(login: &LoginMethod) -> Option<FactorId> {
    match login.kind {
        LoginKind::EmailPassword => Some(FactorId::PASSWORD),
        LoginKind::ThirdParty => Some(FactorId::THIRD_PARTY),
        LoginKind::WebAuthn => Some(FactorId::WEBAUTHN),
        LoginKind::Passwordless if login.phone.is_some() => Some(FactorId::OTP_PHONE),
        LoginKind::Passwordless => Some(FactorId::OTP_EMAIL),
        LoginKind::External => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{
        contact::Email,
        ident::{LoginId, UserId},
        time::Timestamp,
    };

    #[test]
    fn sec_o35_only_proved_addresses_are_told_and_each_once() {
        let login = |id: &str, email: Option<&str>, verified: bool| {
            let id = LoginId::parse(id).unwrap();
            let method = LoginMethod::new(id, LoginKind::Passwordless, Timestamp::EPOCH);
            let email = email.map(|email| Email::parse(email).unwrap());
            LoginMethod { email, verified, ..method }
        };
        let logins = vec![
            login("1", Some("a@shop.example"), true),
            login("2", Some("b@shop.example"), false),
            login("3", Some("a@shop.example"), true),
            login("4", None, true),
            login("5", Some("c@shop.example"), true),
            login("6", Some("d@shop.example"), true),
            login("7", Some("e@shop.example"), true),
        ];
        let user = User::new(UserId::parse("1").unwrap(), logins);
        let told: Vec<String> = proved(&user).iter().map(|to| to.as_str().to_owned()).collect();
        assert_eq!(told, ["a@shop.example", "c@shop.example", "d@shop.example"]);
    }
}
