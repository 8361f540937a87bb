//! The keys that sign access tokens: what there is, and what an operator can do about them.

use std::sync::Arc;

use super::Mfa;
use crate::{
    base::{error::Error, time::Timestamp},
    config::SigningAlg,
    session::{keyring, keystore::slot},
};

/// The keys that sign access tokens: see [`Mfa::keys`]. They follow each other by themselves, every
/// [`Lifetimes::signing_key`](crate::config::Lifetimes::signing_key); this is for whoever can't wait.
///
/// ```
/// # async fn leaked(mfa: &tower_mfa::Mfa) -> Result<(), tower_mfa::Error> {
/// use tower_mfa::account::KeyState;
/// for key in mfa.keys().list().await?.iter().filter(|key| key.state == KeyState::Signing) {
///     mfa.keys().revoke(&key.kid).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Keys<'a> {
    pub(super) mfa: &'a Mfa,
}

/// A signing key, without its material.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyInfo {
    /// Its id, as tokens and the JWK set name it.
    pub kid: String,
    /// What it signs by.
    pub alg: SigningAlg,
    /// What it does now.
    pub state: KeyState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it begins to sign.
    pub sign_from: Timestamp,
    /// When the next one takes over.
    pub sign_until: Timestamp,
    /// From when on nothing that it signed is accepted.
    pub verify_until: Timestamp,
}

/// What a signing key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// It is known and verifies; it will sign once every process has had time to learn it.
    Published,
    /// New tokens are signed with it.
    Signing,
    /// Tokens that it signed are accepted; it signs no more.
    Verifying,
    /// Nothing that it signed is accepted: its time is over, or the app signs by an algorithm that it does
    /// not go with (see [`SigningAlg`]).
    Retired,
}

impl Keys<'_> {
    /// The keys as they are stored, the oldest first. The first one is made when a new app is first used, so
    /// right after `build()` there may be none; `Mfa::is_ready` says when there is.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn list(&self) -> Result<Vec<KeyInfo>, Error> {
        let kit = &self.mfa.desk.kit;
        let (stored, now, alg) = (kit.stored_keys().await?, kit.db.now(), kit.config.signing);
        let keys = stored.usable().map(|key| Ok((slot(key)?, key))).collect::<Result<Vec<_>, Error>>()?;
        let signer = keyring::signer(alg, keys.iter().copied(), now).map(|key| key.kid.as_str());
        let state = |kid: &str, (kind, times): keyring::Slot| match () {
            () if !kind.goes_with(alg) || !times.verifies(now) => KeyState::Retired,
            () if signer == Some(kid) => KeyState::Signing,
            () if now < times.sign_from => KeyState::Published,
            () => KeyState::Verifying,
        };
        Ok(keys
            .iter()
            .map(|((alg, times), key)| KeyInfo {
                kid: key.kid.clone(),
                alg: *alg,
                state: state(&key.kid, (*alg, *times)),
                created_at: times.created_at,
                sign_from: times.sign_from,
                sign_until: times.sign_until,
                verify_until: times.verify_until,
            })
            .collect())
    }

    /// The ids of keys that were revoked. They are kept for ever: none of them can come back.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn revoked(&self) -> Result<Vec<String>, Error> {
        Ok(self.mfa.desk.kit.stored_keys().await?.revoked)
    }

    /// Publishes a key that takes over in a minute, once every process knows it; live tokens stay good. If
    /// one waits to take over already, that will do. Where no key signs yet, it takes over at once. Answers its id.
    ///
    /// # Errors
    /// If the store failed, or the stored keys can't be opened.
    pub async fn rotate(&self) -> Result<String, Error> {
        let kit = Arc::clone(&self.mfa.desk.kit);
        self.mfa.desk.kit.run(async move { kit.rotate_keys().await }).await
    }

    /// Takes a key out for ever, because somebody else may have it: every process stops accepting what it
    /// signed within 2 s (row J08). Its tokens are answered `try refresh token`; a refresh gives one by
    /// another key, which is made at once if none may sign yet. A second call changes nothing.
    ///
    /// Services elsewhere that verify by the JWK set go on until they fetch it again: tell them.
    ///
    /// # Errors
    /// `NotFound` if no key has this id, `Unavailable` if the store failed: nothing was revoked then.
    pub async fn revoke(&self, kid: &str) -> Result<(), Error> {
        let (kit, kid) = (Arc::clone(&self.mfa.desk.kit), kid.to_owned());
        self.mfa.desk.kit.run(async move { kit.revoke_key(&kid).await }).await
    }
}

#[cfg(test)]
mod tests;
