//! A tenant is switched off and on, or goes for good.

use super::{Tenants, edited};
use crate::{
    base::{error::Error, ident::TenantId},
    flow::Desk,
    model::{
        Tx, keys, tenant,
        user::{self, Owner},
    },
    store::{Key, Scan},
};

/// How many users, and how many other records, go in one batch.
const USERS: usize = 20;
const RECORDS: usize = 200;

impl Tenants<'_> {
    /// Switches a tenant off: its sessions end, and its routes answer as those of a tenant that doesn't exist (row
    /// N02). Its users, roles and settings stay.
    ///
    /// # Errors
    /// `NotFound` without the tenant.
    pub async fn disable(&self, tenant: &TenantId) -> Result<(), Error> {
        self.edit(tenant, |_, tenant| {
            tenant.enabled = false;
            Ok(())
        })
        .await
    }

    /// Switches a tenant on again. Sessions of before stay over.
    ///
    /// # Errors
    /// `NotFound` without the tenant; `Invalid` while it is being deleted.
    pub async fn enable(&self, tenant: &TenantId) -> Result<(), Error> {
        self.edit(tenant, |_, tenant| {
            tenant.enabled = !tenant.leaving;
            if tenant.enabled { Ok(()) } else { Err(tenant::leaving()) }
        })
        .await
    }

    /// Deletes a tenant with everything that is only its: sessions, names to sign in by, codes under way, roles,
    /// opt-ins. Users stay, with their login methods in other tenants, if they have any.
    ///
    /// The sessions end first, in one batch with which nobody signs in any more. What many users had there goes batch
    /// by batch after that: if the process ends meanwhile, the tenant stays switched off, and the same call goes on. A
    /// tenant made again under this id is another one: no token, code or role of the old one counts there (row N05).
    ///
    /// # Errors
    /// `NotFound` without the tenant, `Invalid` for `public`, which every app has; if the store failed: call again.
    pub async fn delete(&self, tenant: &TenantId) -> Result<(), Error> {
        if tenant.is_public() {
            return Err(Error::invalid("every app has the tenant public: disable it instead"));
        }
        let tenant = tenant.clone();
        self.mfa
            .change(|desk| async move {
                let leaving = edited(&desk, &tenant, |_, tenant| {
                    (tenant.enabled, tenant.leaving) = (false, true);
                    Ok(())
                });
                // Here the sessions are over at once, however long the rest takes.
                desk.kit.learn(&leaving.await?);
                empty(&desk, &tenant).await?;
                let tenant = &tenant;
                let stage = |mut tx: Tx| async move {
                    let change = tenant::remove(&mut tx, tenant).await?;
                    tx.commit(change)
                };
                let gone = desk.kit.db.transact(tenant, stage).await?;
                Ok(((), gone.into_iter().collect()))
            })
            .await
    }
}

/// Takes away what a tenant owns, page by page: its users' names first, for with them goes what users have of it
/// elsewhere.
async fn empty(desk: &Desk, tenant: &TenantId) -> Result<(), Error> {
    let db = &desk.kit.db;
    loop {
        let scan = Scan::under(keys::logins(tenant)).limit(USERS);
        let page: Vec<(Key, Option<Owner>)> = db.scan_raw(&scan).await?;
        if page.is_empty() {
            break;
        }
        let page = &page;
        let stage = |mut tx: Tx| async move {
            let mut changes = Vec::new();
            for (key, owner) in page {
                let user = match owner {
                    Some(owner) => user::load(&mut tx, &owner.user).await?,
                    None => None,
                };
                if let Some(mut user) = user {
                    changes.extend(user::leave(&mut tx, &mut user, tenant).await?);
                }
                // Whoever it named: one that stayed would be found again for ever.
                tx.remove(key.clone());
            }
            tx.commit(changes)
        };
        desk.kit.learn(&db.transact(tenant, stage).await?);
    }
    loop {
        let scan = Scan::under(keys::of_tenant(tenant)).limit(RECORDS);
        let page: Vec<(Key, Option<serde_json::Value>)> = db.scan_raw(&scan).await?;
        if page.is_empty() {
            return Ok(());
        }
        let page = &page;
        let stage = |mut tx: Tx| async move {
            page.iter().for_each(|(key, _)| tx.remove(key.clone()));
            tx.commit(())
        };
        db.transact(tenant, stage).await?;
    }
}
