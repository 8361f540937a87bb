//! What it changes that an address was proved by mail, and how a credential is replaced.

use super::{LoginKind, LoginMethod, NewLogin, PasswordHash, User, holders, make_primary, owner, primary_of};
use crate::{
    base::{
        contact::Email,
        error::{Error, ErrorKind},
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

    /// The login method of this id, if it still has this address and is in the tenant.
    pub(crate) fn holds(&self, id: &LoginId, email: &Email, tenant: &TenantId) -> Option<&LoginMethod> {
        let login = self.login(id)?;
        (login.email.as_ref() == Some(email) && login.tenants.contains(tenant)).then_some(login)
    }
}

/// Stages that a login method's address is proved. Says whether it is the first proof of that address.
pub(crate) async fn prove(tx: &mut Tx, user: &mut User, id: &LoginId) -> Result<bool, Error> {
    let Some(login) = user.login(id) else { return Err(gone()) };
    let first = !user.is_proved(login);
    if let Some(login) = user.logins.iter_mut().find(|login| login.id == *id) {
        login.verified = true;
    }
    tx.put(keys::user(&user.id), user, None).await?;
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

/// Whether a login method of the user may have this address: nobody else has it, in any tenant where it counts
/// (row L07).
pub(crate) async fn may_have(tx: &mut Tx, user: &User, id: &LoginId, email: &Email) -> Result<bool, Error> {
    let Some(login) = user.login(id) else { return Err(gone()) };
    let name = NewLogin { email: Some(email.clone()), ..NewLogin::from(login) };
    for tenant in &login.tenants {
        let taken = owner(tx, tenant, &name).await?.is_some();
        if taken || primary_of(tx, tenant, &name).await?.is_some_and(|other| other != user.id) {
            return Ok(false);
        }
        for kind in
            [NewLogin::password(email.clone(), String::new()), NewLogin::passwordless(&email.clone().into())]
        {
            if owner(tx, tenant, &kind).await?.is_some_and(|other| other.user != user.id) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Stages that a login method has another address, which was just proved: names, claims and codes under way follow.
/// Ask [`may_have`] in the same round.
pub(crate) async fn change_email(
    tx: &mut Tx,
    user: &mut User,
    id: &LoginId,
    email: &Email,
) -> Result<(), Error> {
    let Some(at) = user.logins.iter().position(|login| login.id == *id) else { return Err(gone()) };
    let old = user.logins.remove(at);
    let new = LoginMethod { email: Some(email.clone()), verified: true, ..old.clone() };
    super::removal::unname(tx, &user.id, &old, &user.logins).await?;
    let named = super::Owner { user: user.id.clone(), login: new.id.clone() };
    for tenant in &new.tenants {
        tx.insert(NewLogin::from(&new).key(tenant), &named, None).await?;
        holders::enter(tx, tenant, &user.id, &new).await?;
    }
    user.logins.insert(at, new);
    if user.primary { make_primary(tx, user).await } else { tx.put(keys::user(&user.id), user, None).await }
}

fn gone() -> Error {
    Error::new(ErrorKind::NotFound, "the user has no such login method")
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
        assert_eq!(gone(&user, true), ["phone", "same", "other"]);
        user.logins[0].verified = true;
        // What has the proved address is proved with it.
        assert_eq!(gone(&user, false), ["other"]);
        assert!(user.has_proved(&Email::parse("a@shop.example").unwrap()));
        assert!(!user.has_proved(&Email::parse("b@shop.example").unwrap()));
    }
}
