//! A user becomes part of another one.

use super::{NewLogin, Owner, User, holders, make_primary, removal::forget};
use crate::{
    base::error::Error,
    model::{Tx, audit::Audited, change::Change, keys},
};

/// Stages that another user's login methods join `user`. The other user is gone with it, and all that was theirs:
/// sessions, roles, opt-ins, metadata, counts of wrong guesses. Of nothing of it can be told that it fits the account
/// which is joined.
pub(crate) async fn absorb(tx: &mut Tx, user: &mut User, other: User) -> Result<Change, Error> {
    let gone = forget(tx, &other, Audited::UserAbsorbed).await?;
    for login in other.logins {
        let owner = Owner { user: user.id.clone(), login: login.id.clone() };
        for tenant in &login.tenants {
            tx.put(NewLogin::from(&login).key(tenant), &owner, None).await?;
            holders::enter(tx, tenant, &user.id, &login).await?;
        }
        tx.put(keys::login_of(&login.id), &owner, None).await?;
        user.logins.push(login);
    }
    make_primary(tx, user).await?;
    Ok(gone)
}
