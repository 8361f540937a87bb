//! Whether a contact signs somebody in: told only where the app said so, and not often (row O25); and whether a code goes
//! there.

use std::time::Duration;

use super::{Desk, Refusal};
use crate::{
    base::{
        error::Error,
        ident::{LoginId, TenantId},
    },
    model::{
        Tx, keys,
        limit::Quota,
        user::{self, Owner},
    },
    policy::RequestFacts,
    store::Key,
};

/// Questions from one address.
const BY_PEER: Quota = Quota::new(10, Duration::from_secs(60));

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
        if config.limits {
            // Those of whom the app knows no address are counted as one.
            let peer = super::peer_key(request).unwrap_or_else(|| "unknown".to_owned());
            let key = keys::limit("exists-from", &peer);
            self.take_all(&peer, &[(key, vec![BY_PEER])]).await?;
        }
        match login {
            Some(login) => Ok(self.kit.db.get::<Owner>(&login).await?.is_some()),
            None => Ok(false),
        }
    }

    /// Whether a code to sign in with goes to this name: whose it is may sign in, and if it is nobody's, somebody may
    /// sign up. Reads the same whoever it is (row O24).
    pub(super) async fn may_be_sent(&self, tx: &mut Tx, name: &Key) -> Result<bool, Error> {
        let owner: Option<Owner> = tx.get(name).await?;
        let nobody = LoginId::random()?.alone();
        let user = user::load(tx, owner.as_ref().map_or(&nobody, |owner| &owner.user)).await?;
        Ok(match user {
            Some(user) => !user.disabled,
            None => self.kit.config.passwordless.signs_up(),
        })
    }
}
