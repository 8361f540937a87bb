//! What it changes that an address was proved by mail, and how a credential is replaced.

use super::{Active, LoginKind, LoginMethod, PasswordHash, User, holders, no_login};
use crate::{
    base::{
        contact::Email,
        error::Error,
        ident::{LoginId, TenantId},
    },
    model::{Tx, code, keys},
};

impl User {
    /// Whether the user proved that an address is theirs, by any of their login methods.
    pub fn has_proved(&self, email: &Email) -> bool {
        self.logins.iter().any(|login| login.verified && login.email.as_ref() == Some(email))
    }

    /// Whether what a login method claims was proved: one without an e-mail address claims none.
    pub fn is_proved(&self, login: &LoginMethod) -> bool {
        login.verified || login.email.as_ref().is_none_or(|email| self.has_proved(email))
    }

    /// The login methods whose address nobody proved: what somebody else may have added. A page for the account shows them
    /// to its owner; none of them outlives that the owner takes the account back by mail (row L03).
    ///
    /// ```
    /// use tower_mfa::account::{LoginKind, LoginMethod, User};
    /// # use tower_mfa::ident::{Email, LoginId, Timestamp, UserId};
    /// # let mut typed = LoginMethod::new(LoginId::parse("typed")?, LoginKind::EmailPassword, Timestamp::EPOCH);
    /// # typed.email = Some(Email::parse("alice@shop.example")?);
    /// typed.verified = false;
    /// let alice = User::new(UserId::parse("alice")?, vec![typed]);
    /// assert_eq!(alice.unproved().count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unproved(&self) -> impl Iterator<Item = &LoginMethod> {
        self.logins.iter().filter(|login| !self.is_proved(login))
    }

    /// The login method of this id, if it still has this address and is in the tenant.
    pub(crate) fn holds(&self, id: &LoginId, email: &Email, tenant: &TenantId) -> Option<&LoginMethod> {
        let login = self.login(id)?;
        (login.email.as_ref() == Some(email) && login.tenants.contains(tenant)).then_some(login)
    }
}

/// Stages that a login method's address is proved. Says whether it is the first proof of that address.
pub(crate) async fn prove(tx: &mut Tx, user: &mut Active, id: &LoginId) -> Result<bool, Error> {
    let Some(login) = user.login(id) else { return Err(no_login()) };
    let first = !user.is_proved(login);
    let proved = LoginMethod { verified: true, ..login.clone() };
    for tenant in &proved.tenants {
        holders::enter(tx, tenant, &user.id, &proved).await?;
    }
    if let Some(login) = user.logins.iter_mut().find(|login| login.id == *id) {
        *login = proved;
    }
    tx.put(keys::user(&user.id), &**user, None).await?;
    Ok(first)
}

/// Which login methods don't survive that the user's mailbox took the account back by `proved` (row L03): those
/// that nobody proved; and, at the first proof of the address, all that were there before it, because whoever
/// registered somebody else's address may have added them. A user of the app's own is the app's to judge.
pub(crate) fn doubtful(user: &User, proved: &LoginId, first: bool) -> Vec<LoginId> {
    let doubtful = |login: &&LoginMethod| {
        login.id != *proved && login.kind != LoginKind::External && (first || !user.is_proved(login))
    };
    user.logins.iter().filter(doubtful).map(|login| login.id.clone()).collect()
}

/// Stages another password for a login method.
pub(crate) async fn set_password(tx: &mut Tx, login: &LoginId, hash: &str) -> Result<(), Error> {
    tx.put(keys::password(login), &PasswordHash { hash: hash.to_owned() }, None).await
}

/// Stages that every code under way to what the user signs in by is void (row S10).
pub(crate) async fn void_codes(tx: &mut Tx, user: &User) -> Result<(), Error> {
    for login in &user.logins {
        for tenant in &login.tenants {
            code::void_to(tx, tenant, login).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ident::UserId, time::Timestamp};

    fn login(id: &str, kind: LoginKind, email: Option<&str>, verified: bool) -> LoginMethod {
        let method = LoginMethod::new(LoginId::parse(id).unwrap(), kind, Timestamp::EPOCH);
        LoginMethod { email: email.map(|email| Email::parse(email).unwrap()), verified, ..method }
    }

    #[test]
    fn sec_l03_what_somebody_else_may_have_added_does_not_survive() {
        let (a, b) = (Some("a@shop.example"), Some("b@shop.example"));
        let logins = vec![
            login("mine", LoginKind::EmailPassword, a, false),
            login("phone", LoginKind::Passwordless, None, true),
            login("same", LoginKind::ThirdParty, a, false),
            login("other", LoginKind::EmailPassword, b, false),
            login("app", LoginKind::External, None, true),
        ];
        let mut user = User::new(UserId::parse("u").unwrap(), logins);
        let mine = LoginId::parse("mine").unwrap();
        let gone = |user: &User, first| -> Vec<String> {
            doubtful(user, &mine, first).iter().map(ToString::to_string).collect()
        };
        let unproved = |user: &User| user.unproved().map(|login| login.id.to_string()).collect::<Vec<_>>();
        assert_eq!(unproved(&user), ["mine", "same", "other"]);
        assert_eq!(gone(&user, true), ["phone", "same", "other"]);
        user.logins[0].verified = true;
        // What has the proved address is proved with it.
        assert_eq!(gone(&user, false), ["other"]);
        assert_eq!(unproved(&user), ["other"]);
        assert!(user.has_proved(&Email::parse("a@shop.example").unwrap()));
        assert!(!user.has_proved(&Email::parse("b@shop.example").unwrap()));
    }
}
