//! Passwords: sign up and sign in, as first and as second factor.

use std::time::Duration;

use super::{Caller, Desk, Refusal, complete::Outcome, quota::Asked};
use crate::{
    base::{
        contact::{self, Email},
        error::Error,
        ident::FactorId,
    },
    factor::{self, Bound, Credential, password::Password},
    model::{
        audit::{self, Audited, Event},
        keys,
        limit::Quota,
        spend::Spend,
        user::{NewLogin, Owner, PasswordHash},
    },
    store::Key,
};

const QUARTER: Duration = Duration::from_secs(15 * 60);
/// Wrong tries for one name in a tenant; a right one sets them back.
const FOR_NAME: Quota = Quota::new(10, QUARTER);
/// Tries from one address.
const FROM_PEER: Quota = Quota::new(100, QUARTER);

/// What a sign-in came to.
#[derive(Debug)]
pub(crate) enum SignIn {
    Wrong,
    Completed(Outcome),
}

impl Desk {
    /// Signs up: hashes, then makes the user and the session, or gives the session's user a password.
    pub(crate) async fn sign_up_with_password(
        &self,
        caller: &Caller,
        email: &Email,
        password: Password,
    ) -> Result<Outcome, Refusal> {
        if caller.session.is_none() {
            self.admit_first(caller, &FactorId::PASSWORD).await?;
            if contact::is_fake(email) {
                return Ok(Outcome::Taken);
            }
        }
        self.take_try(caller, email).await?;
        let hash = self.passwords.hash(password).await?;
        let new = NewLogin::password(email.clone(), hash);
        self.hand_in(caller, Spend::Nothing, Credential::Fresh(new)).await
    }

    /// Signs in: exactly one hash, whoever it is (row W04).
    pub(crate) async fn sign_in_with_password(
        &self,
        caller: &Caller,
        email: &Email,
        password: Password,
    ) -> Result<SignIn, Refusal> {
        if caller.session.is_none() {
            self.admit_first(caller, &FactorId::PASSWORD).await?;
        }
        let tries = self.take_try(caller, email).await?;
        let name = NewLogin::password(email.clone(), String::new()).key(&caller.tenant);
        let owner: Option<Owner> = self.kit.db.get(&name).await?;
        let owner = owner.filter(|_| caller.session.is_some() || !contact::is_fake(email));
        let stored: Option<PasswordHash> = match &owner {
            Some(owner) => self.kit.db.get(&keys::password(&owner.login)).await?,
            None => None,
        };
        let again = password.clone();
        let verified =
            self.passwords.verify(password, stored.as_ref().map(|stored| stored.hash.as_str())).await?;
        let (Some(owner), Some(stored), true) = (&owner, stored, verified.ok) else {
            self.note_wrong(caller, owner.as_ref(), verified.malformed).await?;
            return Ok(SignIn::Wrong);
        };
        let rehash = match verified.needs_rehash {
            true => Some(self.passwords.hash(again).await?),
            false => None,
        };
        let spend = Spend::Password { login: owner.login.clone(), hash: stored.hash, rehash, tries };
        let outcome = self.hand_in(caller, spend, Credential::Known(owner.clone())).await?;
        Ok(SignIn::Completed(outcome))
    }

    async fn hand_in(
        &self,
        caller: &Caller,
        spend: Spend,
        credential: Credential,
    ) -> Result<Outcome, Refusal> {
        let session = caller.session.as_ref().map(|session| session.claims());
        let bound = Bound {
            tenant: caller.tenant.clone(),
            session: session.map(|claims| (claims.handle.clone(), claims.user.clone())),
        };
        let proof = factor::accepted(FactorId::PASSWORD, self.kit.db.now(), bound, spend, credential);
        match &caller.session {
            Some(session) => self.complete(caller, session, proof).await,
            None => self.sign_in(caller, proof).await,
        }
    }

    /// Reserves a try for this name and from this address, before anything is hashed (row W01).
    async fn take_try(&self, caller: &Caller, email: &Email) -> Result<Option<Key>, Refusal> {
        if !self.kit.config.limits {
            return Ok(None);
        }
        let name = keys::limit("password", &format!("{} {email}", caller.tenant));
        let peer = super::peer_key(&caller.request).map(|peer| keys::limit("password-from", &peer));
        let asked: Vec<Asked> = [(name.clone(), vec![FOR_NAME])]
            .into_iter()
            .chain(peer.map(|peer| (peer, vec![FROM_PEER])))
            .collect();
        self.take_all(name.as_str(), &asked).await?;
        Ok(Some(name))
    }

    async fn note_wrong(&self, caller: &Caller, owner: Option<&Owner>, malformed: bool) -> Result<(), Error> {
        let what = if malformed { Audited::PasswordHashUnreadable } else { Audited::WrongPassword };
        let mut event = Event::new(what, &caller.tenant).factor(&FactorId::PASSWORD);
        if let Some(owner) = owner {
            event = event.user(&owner.user);
        }
        audit::note(&self.kit.db, event.peer(caller.request.peer)).await
    }
}
