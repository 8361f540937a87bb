//! Who has a contact in a tenant: every login method with it, of whatever kind and of whatever user, proved or not.
//! Names say who signs in; this says who is meant by an address, which a third party's login method isn't named by.

use serde::{Deserialize, Serialize};

use super::{LoginMethod, Owner, User};
use crate::{
    base::{
        contact::Contact,
        distinct,
        error::Error,
        ident::{TenantId, UserId},
    },
    model::{Tx, keys},
    store::Key,
};

/// The login methods that have a contact.
#[derive(Default, Serialize, Deserialize)]
struct Holders {
    holders: Vec<Owner>,
}

impl LoginMethod {
    /// The contacts of a login method.
    pub(crate) fn contacts(&self) -> impl Iterator<Item = Contact> {
        let email = self.email.clone().map(Contact::from);
        email.into_iter().chain(self.phone.clone().map(Contact::from))
    }

    /// Whether it has this contact and counts in the tenant.
    pub(crate) fn has_in(&self, contact: &Contact, tenant: &TenantId) -> bool {
        self.tenants.contains(tenant) && self.contacts().any(|own| own == *contact)
    }

    fn places(&self, tenant: &TenantId) -> impl Iterator<Item = Key> {
        self.contacts().map(|contact| keys::holders(tenant, &contact))
    }
}

/// The users who have a contact in a tenant, each once, in the order in which they came by it.
pub(crate) async fn holders(tx: &mut Tx, tenant: &TenantId, contact: &Contact) -> Result<Vec<User>, Error> {
    let list: Holders = tx.get(&keys::holders(tenant, contact)).await?.unwrap_or_default();
    let ids = distinct(list.holders.into_iter().map(|holder| holder.user));
    tx.prefetch(ids.iter().map(keys::user)).await?;
    let mut users = Vec::with_capacity(ids.len());
    for id in &ids {
        let user = super::load(tx, id).await?;
        users.extend(user.filter(|user| user.logins.iter().any(|login| login.has_in(contact, tenant))));
    }
    Ok(users)
}

/// Stages that a login method has its contacts in a tenant, as one of this user's.
pub(super) async fn enter(
    tx: &mut Tx,
    tenant: &TenantId,
    user: &UserId,
    login: &LoginMethod,
) -> Result<(), Error> {
    for key in login.places(tenant) {
        let mut list: Holders = tx.get(&key).await?.unwrap_or_default();
        list.holders.retain(|holder| holder.login != login.id);
        list.holders.push(Owner { user: user.clone(), login: login.id.clone() });
        tx.put(key, &list, None).await?;
    }
    Ok(())
}

/// Stages that a login method has its contacts in a tenant no more.
pub(super) async fn strike(tx: &mut Tx, tenant: &TenantId, login: &LoginMethod) -> Result<(), Error> {
    for key in login.places(tenant) {
        let Some(mut list) = tx.get::<Holders>(&key).await? else { continue };
        list.holders.retain(|holder| holder.login != login.id);
        match list.holders.is_empty() {
            true => tx.delete(key).await?,
            false => tx.put(key, &list, None).await?,
        }
    }
    Ok(())
}
