//! Whether a contact signs somebody in: told only where the app said so, and not often (row O25).

use std::time::Duration;

use super::{Desk, Refusal};
use crate::{
    base::ident::TenantId,
    model::{
        keys,
        limit::{Quota, RetryAfter, Window},
        user::Owner,
    },
    policy::RequestFacts,
    store::Key,
};

const MINUTE: Duration = Duration::from_secs(60);
const BY_PEER: [Quota; 1] = [Quota::new(10, MINUTE)];

impl Desk {
    /// Whether `login` is anybody's in the tenant; `None` isn't even a contact. Always `false`, and free, unless
    /// the app reveals accounts.
    pub(crate) async fn exists(
        &self,
        tenant: &TenantId,
        request: &RequestFacts,
        login: Option<Key>,
    ) -> Result<bool, Refusal> {
        self.tenant(tenant).await?;
        let config = &self.kit.config;
        if !config.reveal_accounts {
            return Ok(false);
        }
        if let Some(peer) = super::peer_key(request).filter(|_| config.limits) {
            let key = &keys::limit("exists-from", &peer);
            let taken = self
                .kit
                .db
                .transact(key.as_str(), |mut tx| async move {
                    let mut window: Window = tx.get(key).await?.unwrap_or_default();
                    if let Err(wait) = window.try_take_all(&BY_PEER, tx.now()) {
                        return tx.abandon(Err(wait));
                    }
                    tx.put(key.clone(), &window, Some(window.expires_at(MINUTE))).await?;
                    tx.commit(Ok(()))
                })
                .await?;
            taken.map_err(|RetryAfter(wait)| Refusal::TooMany(wait))?;
        }
        match login {
            Some(login) => Ok(self.kit.db.get::<Owner>(&login).await?.is_some()),
            None => Ok(false),
        }
    }
}
