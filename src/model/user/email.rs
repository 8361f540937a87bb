//! A login method's address changes.

use super::{
    LoginMethod, NewLogin, Owner, User, holders, make_primary, no_login, owner, primary_of, removal::unname,
};
use crate::{
    base::{
        contact::{Contact, Email},
        error::Error,
        ident::LoginId,
    },
    model::{Tx, keys},
};

/// Whether a login method of the user may have this address, in every tenant where it counts: nobody signs in by it
/// that way, no other primary user claims it, and, unless the user has proved it already, nobody else has it at all
/// (row L07).
pub(crate) async fn may_have(tx: &mut Tx, user: &User, id: &LoginId, email: &Email) -> Result<bool, Error> {
    let Some(login) = user.login(id) else { return Err(no_login()) };
    let name = NewLogin { email: Some(email.clone()), ..NewLogin::from(login) };
    for tenant in &login.tenants {
        let taken = owner(tx, tenant, &name).await?.is_some();
        if taken || primary_of(tx, tenant, &name).await?.is_some_and(|other| other != user.id) {
            return Ok(false);
        }
        let have = holders::holders(tx, tenant, &Contact::from(email.clone())).await?;
        if !user.has_proved(email) && have.iter().any(|other| other.id != user.id) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Stages that a login method has another address from now on, proved or not: its names, the claims of a primary user,
/// who is found by the address, and the codes under way follow. Ask in the same round whether it may have it.
pub(crate) async fn set_email(
    tx: &mut Tx,
    user: &mut User,
    id: &LoginId,
    email: &Email,
    verified: bool,
) -> Result<(), Error> {
    let Some(at) = user.logins.iter().position(|login| login.id == *id) else { return Err(no_login()) };
    let old = user.logins.remove(at);
    let new = LoginMethod { email: Some(email.clone()), verified, ..old.clone() };
    unname(tx, &user.id, &old, &user.logins).await?;
    let named = Owner { user: user.id.clone(), login: new.id.clone() };
    for tenant in &new.tenants {
        let name = NewLogin::from(&new).key(tenant);
        // Of a third party's the address is no name: what was just taken away is put back.
        match name == NewLogin::from(&old).key(tenant) {
            true => tx.put(name, &named, None).await?,
            false => tx.insert(name, &named, None).await?,
        }
        holders::enter(tx, tenant, &user.id, &new).await?;
    }
    user.logins.insert(at, new);
    if user.primary { make_primary(tx, user).await } else { tx.put(keys::user(&user.id), user, None).await }
}
