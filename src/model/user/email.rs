//! A login method's address changes.

use super::{NewLogin, PrimaryOf, User, holders, make_primary};
use crate::{
    base::{contact::Email, error::Error, ident::LoginId},
    model::{Tx, keys},
    store::Key,
};

/// Stages that a login method of a user has this address from now on. A primary user gives the old one up,
/// unless another of its login methods has it, and claims the new one, which must be nobody else's.
pub(crate) async fn set(
    tx: &mut Tx,
    user: &mut User,
    login: &LoginId,
    email: Email,
    verified: bool,
) -> Result<(), Error> {
    let claimed = |user: &User| -> Vec<Key> {
        let of = |login: &super::LoginMethod| {
            let name = NewLogin::from(login);
            login.tenants.iter().flat_map(|tenant| name.primary_keys(tenant)).collect::<Vec<_>>()
        };
        user.logins.iter().flat_map(of).collect()
    };
    let before = claimed(user);
    let Some(login) = user.logins.iter_mut().find(|known| known.id == *login) else {
        return Err(Error::internal("the login method isn't the user's"));
    };
    for tenant in &login.tenants {
        holders::strike(tx, tenant, login).await?;
    }
    (login.email, login.verified) = (Some(email), verified);
    for tenant in &login.tenants {
        holders::enter(tx, tenant, &user.id, login).await?;
    }
    if !user.primary {
        return tx.put(keys::user(&user.id), user, None).await;
    }
    let after = claimed(user);
    for key in before.into_iter().filter(|key| !after.contains(key)) {
        if tx.get::<PrimaryOf>(&key).await?.is_some_and(|owner| owner.user == user.id) {
            tx.delete(key).await?;
        }
    }
    make_primary(tx, user).await
}
