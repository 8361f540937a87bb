//! Keeps the key set in memory and the one in the store in step.

use std::sync::Arc;

use super::{
    keyring::{self, Keyring, Schedule, Slot},
    kit::Kit,
    signing::{KeyTimes, SigningAlg, SigningKey},
};
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::TenantId,
        time::{self, Timestamp},
    },
    model::{
        audit::{self, Audited, Event},
        change::{self, ChangeKind, Subject},
        keys,
        keyset::{KeySet, StoredKey},
    },
};

/// What an edit of the stored set came to.
enum Edit {
    Nothing,
    /// The same keys, sealed anew: no process has to reload.
    Resealed,
    /// Other keys: every process reloads. With what the audit trail says, where somebody decided it.
    Changed(Option<Audited>),
}

impl Kit {
    /// Makes the keys that are due, drops those of which no token can live, seals anew what an older root
    /// key sealed, and loads the set.
    pub(crate) async fn tend_keys(&self) -> Result<(), Error> {
        let (stored, now) = (self.load_keys().await?, self.db.now());
        if self.is_tended(&stored, now)? {
            return Ok(());
        }
        self.edit_keys(|stored, now| {
            let (count, stale) = (stored.keys.len(), self.has_stale_seals(stored));
            let live = |key: &StoredKey| !stored.revoked.contains(&key.kid) && now < key.verify_until;
            stored.keys.retain(live);
            if stale {
                self.reseal(stored)?;
            }
            let mut changed = stored.keys.len() < count;
            if let Some(sign_from) = self.plan(stored, now)? {
                stored.keys.push(self.make_key(stored, now, sign_from)?);
                changed = true;
            }
            let edit = match (changed, stale) {
                (true, _) => Edit::Changed(None),
                (false, true) => Edit::Resealed,
                (false, false) => Edit::Nothing,
            };
            Ok(((), edit))
        })
        .await
    }

    /// Publishes a key that takes over as soon as every process knows it. One that waits to take over
    /// already is as good. Answers its id.
    pub(crate) async fn rotate_keys(&self) -> Result<String, Error> {
        // What can't be opened here must not get a successor that hides it.
        self.load_keys().await?;
        let (alg, schedule) = (self.config.signing, self.schedule());
        self.edit_keys(|stored, now| {
            let waits = |key: &&StoredKey| key.alg == alg.name() && now < key.sign_from;
            if let Some(next) = stored.usable().find(waits) {
                return Ok((next.kid.clone(), Edit::Nothing));
            }
            let from = match self.plan(stored, now)? {
                Some(from) if from <= now => now,
                _ => now + schedule.lead,
            };
            let next = self.make_key(stored, now, from)?;
            for key in stored.keys.iter_mut().filter(|key| key.alg == alg.name() && from < key.sign_until) {
                key.sign_until = from;
                key.verify_until = schedule.verify_until(from).min(key.verify_until);
            }
            let kid = next.kid.clone();
            stored.keys.push(next);
            Ok((kid, Edit::Changed(Some(Audited::KeysRotated))))
        })
        .await
    }

    /// Takes a key out for ever, and makes one that signs at once if no other can (row J08). Needs no key
    /// to be opened: one whose root key is lost is got rid of like this.
    ///
    /// # Errors
    /// `NotFound` if no key has this id, so that a slip of the pen doesn't pass for a revocation.
    pub(crate) async fn revoke_key(&self, kid: &str) -> Result<(), Error> {
        self.edit_keys(|stored, now| {
            let known = stored.keys.iter().any(|key| key.kid == kid);
            match (stored.is_revoked(kid), known) {
                (true, false) => return Ok(((), Edit::Nothing)),
                (false, false) => {
                    return Err(Error::new(ErrorKind::NotFound, "there is no such signing key"));
                }
                (true, true) => {}
                (false, true) => stored.revoked.push(kid.to_owned()),
            }
            stored.keys.retain(|key| key.kid != kid);
            if let Some(from) = self.plan(stored, now)?.filter(|from| *from <= now) {
                stored.keys.push(self.make_key(stored, now, from)?);
            }
            Ok(((), Edit::Changed(Some(Audited::KeyRevoked))))
        })
        .await
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

    /// Loads the keys that are stored, and answers them as they are there.
    pub(crate) async fn load_keys(&self) -> Result<KeySet, Error> {
        let _loading = self.gate.loading.lock().await;
        crate::base::failpoint!("keys.reload");
        let stored = self.stored_keys().await?;
        match self.unseal(&stored) {
            Ok(ring) => {
                self.keys.replace(ring);
                Ok(stored)
            }
            // What was revoked goes all the same.
            Err(error) => {
                self.keys.replace(self.keys.current().without(&stored.revoked));
                Err(error)
            }
        }
    }

    /// The keys as they are stored, of which some may not be for this process to open.
    pub(crate) async fn stored_keys(&self) -> Result<KeySet, Error> {
        Ok(self.db.get(&keys::keyset()).await?.unwrap_or_default())
    }

    pub(crate) fn schedule(&self) -> Schedule {
        let lives = &self.config.lifetimes;
        Schedule { rotation: lives.signing_key, ..Schedule::new(lives.access_token) }
    }

    /// Changes the stored set in one batch, tells every process, and loads what came out.
    async fn edit_keys<T: Send>(
        &self,
        edit: impl Fn(&mut KeySet, Timestamp) -> Result<(T, Edit), Error> + Send + Sync,
    ) -> Result<T, Error> {
        let edit = &edit;
        let (value, change, edited) = self
            .db
            .transact("keyset", |mut tx| async move {
                let mut stored: KeySet = tx.get(&keys::keyset()).await?.unwrap_or_default();
                let (value, edit) = edit(&mut stored, tx.now())?;
                if matches!(edit, Edit::Nothing) {
                    return tx.abandon((value, None, false));
                }
                tx.put(keys::keyset(), &stored, None).await?;
                let Edit::Changed(what) = edit else { return tx.commit((value, None, true)) };
                let change = change::stage(&mut tx, Subject::App, ChangeKind::Keys).await?;
                if let Some(what) = what {
                    audit::stage(&mut tx, Event::new(what, &TenantId::PUBLIC))?;
                }
                tx.commit((value, Some(change), true))
            })
            .await?;
        if edited {
            // It is done; a set that can't be loaded here shows in readiness, and at the next look.
            let _ = self.load_keys().await;
        }
        self.learn(change.iter());
        Ok(value)
    }

    fn is_tended(&self, stored: &KeySet, now: Timestamp) -> Result<bool, Error> {
        let over = |key: &StoredKey| now >= key.verify_until || stored.is_revoked(&key.kid);
        let drops = stored.keys.iter().any(over);
        Ok(!drops && !self.has_stale_seals(stored) && self.plan(stored, now)?.is_none())
    }

    fn plan(&self, stored: &KeySet, now: Timestamp) -> Result<Option<Timestamp>, Error> {
        let slots = stored.usable().map(slot).collect::<Result<Vec<_>, _>>()?;
        Ok(keyring::plan(self.config.signing, slots, now, &self.schedule()))
    }

    fn make_key(&self, stored: &KeySet, now: Timestamp, sign_from: Timestamp) -> Result<StoredKey, Error> {
        let times = self.schedule().times(now, sign_from);
        let key = SigningKey::generate(stored.free_kid(now), self.config.signing, times)?;
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

    fn has_stale_seals(&self, stored: &KeySet) -> bool {
        stored.usable().any(|key| !self.sealer.is_newest(&key.sealed))
    }

    /// Seals under the newest root key what an older one sealed, so that the older one can be given up.
    fn reseal(&self, stored: &mut KeySet) -> Result<(), Error> {
        for key in stored.keys.iter_mut().filter(|key| !self.sealer.is_newest(&key.sealed)) {
            key.sealed =
                self.sealer.seal(&keys::keyset(), &self.sealer.open(&keys::keyset(), &key.sealed)?)?;
        }
        Ok(())
    }

    fn unseal(&self, stored: &KeySet) -> Result<Keyring, Error> {
        let (known, alg) = (self.keys.current(), self.config.signing);
        let mut ring = Vec::with_capacity(stored.keys.len());
        for key in stored.usable() {
            let (kind, times) = slot(key)?;
            if !kind.goes_with(alg) {
                continue;
            }
            // A key's material never changes: what is in memory needs no second opening.
            ring.push(match known.find(&key.kid).filter(|known| known.alg() == kind) {
                Some(known) if known.times() == times => Arc::clone(known),
                Some(known) => Arc::new(known.at(times)),
                None => {
                    let material = self.sealer.open(&keys::keyset(), &key.sealed)?;
                    Arc::new(SigningKey::import(&key.kid, kind, &material, times)?)
                }
            });
        }
        Ok(Keyring::of(alg, ring))
    }
}

/// What a stored key's plan goes by.
pub(crate) fn slot(key: &StoredKey) -> Result<Slot, Error> {
    let alg = SigningAlg::from_name(&key.alg).ok_or(Error::internal("a stored key is of no known kind"))?;
    let StoredKey { created_at, sign_from, sign_until, verify_until, .. } = *key;
    Ok((alg, KeyTimes { created_at, sign_from, sign_until, verify_until }))
}
