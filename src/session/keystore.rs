//! Keeps the key set in memory and the one in the store in step.

use std::sync::Arc;

use super::{
    keyring::{self, KeyTimes, Keyring, Schedule, SigningAlg, SigningKey},
    kit::Kit,
};
use crate::{
    base::{
        error::Error,
        time::{self, Timestamp},
    },
    model::{
        change::{self, ChangeKind, Subject},
        keys,
        keyset::{KeySet, StoredKey},
    },
};

impl Kit {
    /// Makes the keys that are due, drops those of which no token can live, and loads the rest.
    pub(crate) async fn tend_keys(&self) -> Result<(), Error> {
        let stored: KeySet = self.db.get(&keys::keyset()).await?.unwrap_or_default();
        let ring = self.unseal(&stored)?;
        let plan = keyring::plan(&ring, self.db.now(), &self.schedule());
        self.keys.replace(ring);
        if plan.is_nothing() {
            return Ok(());
        }
        let (stored, change) = self
            .db
            .transact("keyset", |mut tx| async move {
                let now = tx.now();
                let mut stored: KeySet = tx.get(&keys::keyset()).await?.unwrap_or_default();
                let plan = keyring::plan(&self.unseal(&stored)?, now, &self.schedule());
                if plan.is_nothing() {
                    return tx.abandon((stored, None));
                }
                stored.keys.retain(|key| !plan.drop.contains(&key.kid));
                if let Some(sign_from) = plan.make {
                    stored.keys.push(self.make_key(now, sign_from)?);
                }
                tx.put(keys::keyset(), &stored, None).await?;
                let change = change::stage(&mut tx, Subject::App, ChangeKind::Keys).await?;
                tx.commit((stored, Some(change)))
            })
            .await?;
        self.keys.replace(self.unseal(&stored)?);
        self.learn(change.iter());
        Ok(())
    }

    /// Loads the keys because a token names one that isn't known: at most once in 5 s (row J06). Says
    /// whether it is known now.
    pub(crate) async fn reload_keys(&self, kid: &str) -> Result<bool, Error> {
        if !self.gate.may_reload(kid, time::monotonic()) {
            return Ok(false);
        }
        self.load_keys().await?;
        let found = self.keys.current().find(kid).is_some();
        if !found {
            self.gate.not_found(kid, time::monotonic());
        }
        Ok(found)
    }

    /// Loads the keys as they are stored.
    pub(crate) async fn load_keys(&self) -> Result<(), Error> {
        let stored: KeySet = self.db.get(&keys::keyset()).await?.unwrap_or_default();
        self.keys.replace(self.unseal(&stored)?);
        Ok(())
    }

    pub(crate) fn schedule(&self) -> Schedule {
        Schedule::new(self.config.lifetimes.access_token)
    }

    fn make_key(&self, now: Timestamp, sign_from: Timestamp) -> Result<StoredKey, Error> {
        let times = self.schedule().times(now, sign_from);
        let key = SigningKey::generate(SigningAlg::Rs256, times)?;
        Ok(StoredKey {
            kid: key.kid().to_owned(),
            alg: key.alg().name().to_owned(),
            sealed: self.sealer.seal(&keys::keyset(), &key.export()?)?,
            created_at: times.created_at,
            sign_from: times.sign_from,
            sign_until: times.sign_until,
            verify_until: times.verify_until,
        })
    }

    fn unseal(&self, stored: &KeySet) -> Result<Keyring, Error> {
        let known = self.keys.current();
        let keys = stored.keys.iter().filter(|key| !stored.revoked.contains(&key.kid)).map(|key| {
            // A key's material never changes: what is in memory needs no second opening.
            if let Some(key) = known.find(&key.kid) {
                return Ok(Arc::clone(key));
            }
            let alg =
                SigningAlg::from_name(&key.alg).ok_or(Error::internal("a stored key is of no known kind"))?;
            let pkcs8 = self.sealer.open(&keys::keyset(), &key.sealed)?;
            let times = KeyTimes {
                created_at: key.created_at,
                sign_from: key.sign_from,
                sign_until: key.sign_until,
                verify_until: key.verify_until,
            };
            SigningKey::import(&key.kid, alg, &pkcs8, times).map(Arc::new)
        });
        Ok(Keyring::new(keys.collect::<Result<Vec<_>, Error>>()?))
    }
}
