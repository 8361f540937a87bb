//! What an accepted credential uses up; staged anew in each round, in the batch of its effect.

use std::time::Duration;

use super::{
    Tx,
    code::{Code, DESTINATION_LIFE, Destination, Mac},
    keys,
    limit::Budget,
    user::PasswordHash,
};
use crate::{
    base::{error::Error, ident::LoginId},
    store::Key,
};

/// What is used up, not at which version: a parallel wrong guess, which only counts, can't void it.
#[derive(Clone)]
pub(crate) enum Spend {
    /// Nothing of the store's.
    Nothing,
    /// The password's hash must still be the one that was compared; `rehash` takes its place.
    Password {
        login: LoginId,
        hash: String,
        rehash: Option<String>,
        /// The counts of wrong tries that a right one sets back.
        tries: Vec<Key>,
    },
    /// This code of this challenge, with all other live codes of the destination.
    Code {
        /// As it was when the guess was charged: it must be bound to the same still.
        charged: Box<Code>,
        /// The budget of wrong guesses that a right one sets back (row O07).
        budget: Key,
        matched: Mac,
    },
}

impl Spend {
    #[cfg(any(test, feature = "test-hooks"))]
    pub(crate) fn is_code(&self) -> bool {
        matches!(self, Self::Code { .. })
    }

    /// Stages it. `false`: the credential is gone, the race was lost.
    pub(crate) async fn stage(&self, tx: &mut Tx) -> Result<bool, Error> {
        match self {
            Self::Nothing => Ok(true),
            Self::Password { login, hash, rehash, tries } => {
                let key = keys::password(login);
                match tx.get::<PasswordHash>(&key).await? {
                    Some(stored) if stored.hash == *hash => {}
                    _ => return Ok(false),
                }
                match rehash {
                    Some(hash) => tx.put(key, &PasswordHash { hash: hash.clone() }, None).await?,
                    None => tx.check(key).await?,
                }
                tries.iter().for_each(|key| tx.remove(key.clone()));
                Ok(true)
            }
            Self::Code { charged, budget, matched } => {
                let challenge = keys::code(&charged.tenant, charged.id.as_str());
                let destination = keys::destination(&charged.tenant, charged.purpose, &charged.contact);
                tx.prefetch([challenge.clone(), destination.clone(), budget.clone()]).await?;
                let Some(mut code) = tx.get::<Code>(&challenge).await? else { return Ok(false) };
                let found: Option<Destination> = tx.get(&destination).await?;
                let generation = Destination::as_met_by(found, &code);
                if !code.is_bound_as(charged) || !code.consume(matched, generation) {
                    return Ok(false);
                }
                let mut siblings = found.unwrap_or_default();
                siblings.void_all(tx.now());
                tx.put(challenge, &code, Some(code.kept_until())).await?;
                tx.put(destination, &siblings, Some(tx.now() + DESTINATION_LIFE)).await?;
                if let Some(mut guesses) = tx.get::<Budget>(budget).await? {
                    guesses.succeed();
                    let end = tx.now() + Duration::from_secs(24 * 3600);
                    tx.put(budget.clone(), &guesses, Some(end)).await?;
                }
                crate::base::failpoint!("otp.consume.before_mark");
                Ok(true)
            }
        }
    }
}
