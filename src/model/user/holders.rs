//! Who has a contact in a tenant: every login method with it, of whatever kind and of whatever user, proved or not.
//! Names say who signs in; this says who is meant by an address, which a third party's login method isn't named by.
//!
//! Whoever owns many accounts at a provider that proves nothing can claim one address by each of them. Only so many of
//! these are listed: that there are others is known then, and a login method is listed once it is proved.

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

/// Where a contact has so many login methods, no further one is listed before it is proved.
const CROWDED: usize = 64;

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

/// Stages that a login method has its contacts in a tenant, as one of this user's. Once more when it is proved.
pub(super) async fn enter(
    tx: &mut Tx,
    tenant: &TenantId,
    user: &UserId,
    login: &LoginMethod,
) -> Result<(), Error> {
    for key in login.places(tenant) {
        let mut list: Holders = tx.get(&key).await?.unwrap_or_default();
        let holder = Owner { user: user.clone(), login: login.id.clone() };
        let crowded = list.holders.len() >= CROWDED;
        match list.holders.iter_mut().find(|holder| holder.login == login.id) {
            Some(listed) => *listed = holder,
            None if crowded && !login.verified => continue,
            None => list.holders.push(holder),
        }
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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        base::{contact::Email, ident::LoginId, time::SystemClock},
        model::{
            Db,
            audit::Trail,
            user::{Active, NewLogin, ThirdPartyId, add_login, create, method, prepare, prove, remove_login},
        },
        store::{AnyStore, MemoryStore},
    };

    fn login(provider: &str, email: &Email, subject: usize, verified: bool) -> NewLogin {
        let id = ThirdPartyId { provider: provider.to_owned(), subject: subject.to_string(), tenant: None };
        NewLogin::third_party(id, Some(email.clone()), verified)
    }

    async fn sign_up(db: &Db, email: &Email, subject: usize) -> User {
        let new = &login("p", email, subject, false);
        let user = prepare(&TenantId::PUBLIC, new, db.now()).unwrap();
        let made = &user;
        let stage = |mut tx: Tx| async move {
            create(&mut tx, &TenantId::PUBLIC, made, new).await?;
            tx.commit(())
        };
        db.transact("sign-up", stage).await.unwrap();
        user
    }

    async fn listed(db: &Db, email: &Email) -> Vec<User> {
        let contact = &Contact::from(email.clone());
        let look = |mut tx: Tx| async move {
            let users = holders(&mut tx, &TenantId::PUBLIC, contact).await?;
            tx.abandon(users)
        };
        db.look(look).await.unwrap()
    }

    #[tokio::test]
    async fn a_crowd_that_proves_nothing_makes_no_longer_list_and_hides_nobody_who_proves() {
        let store = AnyStore::new(MemoryStore::new());
        let db = Db::new(store, Arc::new(SystemClock::new()), Duration::from_secs(3600), Trail::new().0);
        let email = Email::parse("alice@shop.example").unwrap();
        let mut users = Vec::new();
        for subject in 0..CROWDED + 3 {
            users.push(sign_up(&db, &email, subject).await);
        }
        assert_eq!(listed(&db, &email).await, users[..CROWDED]);
        let alice = users.last().unwrap();
        let stage = |mut tx: Tx| async move {
            let mut user = Active::of(alice.clone()).unwrap();
            let first = prove(&mut tx, &mut user, &alice.logins[0].id).await?;
            tx.commit(first)
        };
        assert!(db.transact("proof", stage).await.unwrap());
        let now = listed(&db, &email).await;
        assert_eq!((now.len(), &now[CROWDED].id), (CROWDED + 1, &alice.id));
        assert!(now[CROWDED].has_proved(&email));
    }

    /// A login method that takes over another one's proof is as good as proved.
    #[tokio::test]
    async fn who_loses_the_login_that_proved_an_address_is_not_lost_in_a_crowd() {
        let store = AnyStore::new(MemoryStore::new());
        let db = Db::new(store, Arc::new(SystemClock::new()), Duration::from_secs(3600), Trail::new().0);
        let email = Email::parse("alice@shop.example").unwrap();
        for subject in 0..CROWDED {
            sign_up(&db, &email, subject).await;
        }
        let alice = &sign_up(&db, &email, CROWDED).await;
        let (new, tenant) = (&login("q", &email, 0, true), &TenantId::PUBLIC);
        let proved = &method(db.now(), tenant, new, LoginId::random().unwrap());
        let add = |mut tx: Tx| async move {
            let mut user = alice.clone();
            add_login(&mut tx, tenant, &mut user, proved.clone(), new).await?;
            tx.commit(user)
        };
        let user = &db.transact("add", add).await.unwrap();
        assert_eq!(listed(&db, &email).await.len(), CROWDED + 1);
        let remove = |mut tx: Tx| async move {
            let mut user = user.clone();
            remove_login(&mut tx, &mut user, &proved.id, true).await?;
            tx.commit(user)
        };
        let kept = db.transact("remove", remove).await.unwrap();
        assert!(kept.logins.len() == 1 && kept.has_proved(&email));
        assert!(listed(&db, &email).await.contains(&kept));
    }
}
