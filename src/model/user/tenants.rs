//! The tenants in which a user's login methods count: more of them, or fewer.

use super::{NewLogin, Owner, User, holders, make_primary, owner, primary_of, removal::unstage_name};
use crate::{
    base::{error::Error, ident::TenantId},
    model::{
        Tx,
        audit::Cause,
        change::{self, Change, ChangeKind, Subject},
        keys, metadata, session,
    },
};

/// Whether a name or a contact of the user is somebody else's in a tenant.
pub(crate) async fn is_taken_in(tx: &mut Tx, user: &User, tenant: &TenantId) -> Result<bool, Error> {
    for login in user.logins.iter().filter(|login| !login.tenants.contains(tenant)) {
        let name = NewLogin::from(login);
        let other = owner(tx, tenant, &name).await?.map(|owner| owner.user);
        let primary = primary_of(tx, tenant, &name).await?;
        if other.into_iter().chain(primary).any(|id| id != user.id) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Stages that all of a user's login methods count in another tenant as well, of several by one name the first one.
///
/// # Errors
/// `Invalid` if one of the names is somebody else's there.
pub(crate) async fn add_to_tenant(tx: &mut Tx, user: &mut User, tenant: &TenantId) -> Result<(), Error> {
    if is_taken_in(tx, user, tenant).await? {
        return Err(Error::invalid("a login name or contact of the user is taken in that tenant"));
    }
    for at in 0..user.logins.len() {
        let Some(login) = user.logins.get_mut(at) else { continue };
        let name = NewLogin::from(&*login);
        if login.tenants.contains(tenant) || owner(tx, tenant, &name).await?.is_some() {
            continue;
        }
        login.tenants.push(tenant.clone());
        let named = Owner { user: user.id.clone(), login: login.id.clone() };
        tx.insert(name.key(tenant), &named, None).await?;
        holders::enter(tx, tenant, &user.id, login).await?;
    }
    if user.primary { make_primary(tx, user).await } else { tx.put(keys::user(&user.id), user, None).await }
}

/// Stages that a user leaves a tenant, with all that is theirs only there: names, codes under way, roles, opt-ins,
/// sessions (row N05). Their login methods stay, and may count in other tenants.
pub(crate) async fn leave(tx: &mut Tx, user: &mut User, tenant: &TenantId) -> Result<Vec<Change>, Error> {
    if !user.is_in(tenant) {
        return Ok(Vec::new());
    }
    for login in user.logins.iter().filter(|login| login.tenants.contains(tenant)) {
        unstage_name(tx, &user.id, login, &[], tenant).await?;
    }
    for login in &mut user.logins {
        login.tenants.retain(|other| other != tenant);
    }
    tx.put(keys::user(&user.id), user, None).await?;
    tx.remove(keys::role(tenant, &user.id));
    let mut changes = session::end_in(tx, &user.id, tenant, Cause::UserGone).await?;
    let (_, opted) = metadata::edit(tx, &user.id, |list| list.forget(tenant)).await?;
    // Whatever is under way there, such as a sign-in, read the user as they were: it must look again.
    changes.push(match opted {
        Some(change) => change,
        None => change::stage(tx, Subject::User(user.id.clone()), ChangeKind::JudgeAnew).await?,
    });
    Ok(changes)
}
