//! What goes with a user, or with one of their login methods.

use super::{LoginMethod, NewLogin, PrimaryOf, User, holders, no_login};
use crate::{
    base::{
        error::Error,
        ident::{FactorId, LoginId, TenantId, UserId},
    },
    model::{
        Tx,
        audit::{self, Audited, Cause, Event},
        change::Change,
        code, keys, role, session,
    },
    store::Key,
};

/// Stages that a user is gone, with all that is only the user's: sessions and codes, too (row S10).
pub(crate) async fn delete(tx: &mut Tx, user: User) -> Result<Change, Error> {
    let gone = forget(tx, &user, Audited::UserDeleted).await?;
    for login in &user.logins {
        unstage_login(tx, &user.id, login, &[]).await?;
    }
    Ok(gone)
}

/// Stages that nothing is left of a user but their login methods.
pub(super) async fn forget(tx: &mut Tx, user: &User, what: Audited) -> Result<Change, Error> {
    let gone = session::end_of_user(tx, &user.id, None, Cause::UserGone).await?;
    audit::stage(tx, Event::new(what, &TenantId::PUBLIC).user(&user.id))?;
    tx.remove(keys::sessions_of(&user.id));
    tx.remove(keys::agents(&user.id));
    tx.remove(keys::tickets_of(&user.id));
    role::remove_all(tx, &user.id).await?;
    tx.remove(keys::required(&user.id));
    tx.remove(keys::metadata(&user.id));
    FactorId::BUILT_IN.iter().for_each(|factor| tx.remove(keys::guesses(&user.id, factor)));
    tx.delete(keys::user(&user.id)).await?;
    Ok(gone)
}

/// Stages that a user loses a login method, with its names, its codes under way and its credential. What it proved stays
/// proved of those that have the same address.
///
/// # Errors
/// `NotFound` if it isn't the user's, `Invalid` if it is the last one, or, if a proved one `must_stay`, the last one that
/// was proved (row L12).
pub(crate) async fn remove_login(
    tx: &mut Tx,
    user: &mut User,
    id: &LoginId,
    must_stay: bool,
) -> Result<(), Error> {
    let at = user.logins.iter().position(|login| login.id == *id).ok_or_else(no_login)?;
    if user.logins.len() == 1 {
        return Err(Error::invalid("a user keeps one login method: delete the user instead"));
    }
    let was_proved = user.logins.get(at).is_some_and(|login| user.is_proved(login));
    let login = user.logins.remove(at);
    let inherits = |kept: &&mut LoginMethod| {
        login.verified && !kept.verified && kept.email.is_some() && kept.email == login.email
    };
    for kept in user.logins.iter_mut().filter(inherits) {
        kept.verified = true;
        for tenant in &kept.tenants {
            holders::enter(tx, tenant, &user.id, kept).await?;
        }
    }
    if must_stay && was_proved && !user.logins.iter().any(|kept| user.is_proved(kept)) {
        return Err(Error::invalid("a user keeps one login method that was proved"));
    }
    unstage_login(tx, &user.id, &login, &user.logins).await?;
    for tenant in login.tenants.iter().filter(|tenant| !user.is_in(tenant)) {
        tx.remove(keys::role(tenant, &user.id));
    }
    tx.put(keys::user(&user.id), user, None).await
}

/// Stages that nobody signs in by a login method.
async fn unstage_login(
    tx: &mut Tx,
    user: &UserId,
    login: &LoginMethod,
    kept: &[LoginMethod],
) -> Result<(), Error> {
    unname(tx, user, login, kept).await?;
    tx.remove(keys::login_of(&login.id));
    tx.remove(keys::password(&login.id));
    Ok(())
}

/// Stages that a login method's names lead nowhere, that it has no contact any more, and that codes to it are void. A
/// contact that one of the methods `kept` has stays claimed.
pub(super) async fn unname(
    tx: &mut Tx,
    user: &UserId,
    login: &LoginMethod,
    kept: &[LoginMethod],
) -> Result<(), Error> {
    for tenant in &login.tenants {
        unstage_name(tx, user, login, kept, tenant).await?;
    }
    Ok(())
}

pub(super) async fn unstage_name(
    tx: &mut Tx,
    user: &UserId,
    login: &LoginMethod,
    kept: &[LoginMethod],
    tenant: &TenantId,
) -> Result<(), Error> {
    let names = NewLogin::from(login);
    code::void_to(tx, tenant, login).await?;
    tx.remove(names.key(tenant));
    holders::strike(tx, tenant, login).await?;
    let still = kept.iter().filter(|other| other.tenants.contains(tenant));
    let still: Vec<Key> = still.flat_map(|other| NewLogin::from(other).primary_keys(tenant)).collect();
    for key in names.primary_keys(tenant).into_iter().filter(|key| !still.contains(key)) {
        if tx.get::<PrimaryOf>(&key).await?.is_some_and(|owner| owner.user == *user) {
            tx.delete(key).await?;
        }
    }
    Ok(())
}
