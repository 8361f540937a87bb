//! Passwords: sign up and sign in, as first and as second factor.

use std::time::Duration;

use super::{Caller, Desk, Refusal, complete::Outcome, quota::Asked};
use crate::{
    base::{
        contact::{self, Email},
        error::Error,
        ident::{FactorId, TenantId, UserId},
    },
    factor::{
        self, Bound, Credential,
        password::{Password, Verified},
    },
    model::{
        audit::{self, Audited, Event},
        keys,
        limit::Quota,
        spend::Spend,
        user::{LoginKind, NewLogin, Owner, PasswordHash, User},
    },
    store::Key,
};

const QUARTER: Duration = Duration::from_secs(15 * 60);
/// Wrong tries at a name, in all tenants together and whoever's it is or nobody's (row O26); and at a user's passwords, by
/// whatever name. A right one, or a reset by mail, sets them back (row W05).
const WRONG: Quota = Quota::new(10, QUARTER);
/// Sign-ups by a name, which are no guesses.
const SIGN_UPS: Quota = Quota::new(10, QUARTER);
/// Tries from one address.
const FROM_PEER: Quota = Quota::new(100, QUARTER);

/// What a sign-in came to.
#[derive(Debug)]
pub(crate) enum SignIn {
    Wrong,
    Completed(Outcome),
}

/// What a sign-up came to.
#[derive(Debug)]
pub(crate) enum SignUp {
    /// The password isn't good enough: the text to show beside the field.
    Refused(String),
    Completed(Outcome),
}

/// What a password that is to be stored came to.
#[derive(Debug)]
pub(crate) enum NewPassword {
    Hash(String),
    /// It isn't good enough: the text to show beside the field.
    Refused(String),
}

/// A try that was reserved: without one no password is compared, on whatever way it came (row W06).
pub(super) struct Try {
    /// What a right one sets back.
    pub(super) counted: Vec<Key>,
}

/// Where tries at a user's passwords are counted.
pub(super) fn tries(user: &User) -> Vec<Key> {
    let by_password = user.logins.iter().filter(|login| login.kind == LoginKind::EmailPassword);
    let names = by_password.filter_map(|login| login.email.as_ref()).map(at_name);
    names.chain([at_user(&user.id)]).collect()
}

fn at_name(email: &Email) -> Key {
    keys::limit("password", &format!("name {email}"))
}

fn at_user(user: &UserId) -> Key {
    keys::limit("password", &format!("user {user}"))
}

impl Desk {
    /// Signs up: hashes, then makes the user and the session, or gives the session's user a password.
    pub(crate) async fn sign_up_with_password(
        &self,
        caller: &Caller,
        email: &Email,
        password: Password,
    ) -> Result<SignUp, Refusal> {
        self.admit_token(caller).await?;
        if caller.session.is_none() {
            self.admit_first(caller, &FactorId::PASSWORD).await?;
            if contact::is_fake(email) {
                return Ok(SignUp::Completed(Outcome::Taken));
            }
        }
        let name = keys::limit("sign-up", &format!("{} {email}", caller.tenant));
        self.take_tries(caller, vec![name], SIGN_UPS).await?;
        let hash = match self.new_password(&caller.tenant, password).await? {
            NewPassword::Hash(hash) => hash,
            NewPassword::Refused(text) => return Ok(SignUp::Refused(text)),
        };
        let new = NewLogin::password(email.clone(), hash);
        Ok(SignUp::Completed(self.hand_in(caller, Spend::Nothing, Credential::Fresh(new)).await?))
    }

    /// Judges and hashes a password that is to be stored.
    pub(super) async fn new_password(
        &self,
        tenant: &TenantId,
        password: Password,
    ) -> Result<NewPassword, Error> {
        if let Err(text) = self.password_settings.judge(&password).await? {
            return Ok(NewPassword::Refused(text.into_owned()));
        }
        Ok(NewPassword::Hash(self.passwords.hash(tenant, password).await?))
    }

    /// Compares a password with the stored one. What isn't right is written down.
    pub(super) async fn compare_password(
        &self,
        caller: &Caller,
        owner: Option<&Owner>,
        password: Password,
        _reserved: &Try,
    ) -> Result<Option<(PasswordHash, Verified)>, Error> {
        let stored: Option<PasswordHash> = match owner {
            Some(owner) => self.kit.db.get(&keys::password(&owner.login)).await?,
            None => None,
        };
        let hash = stored.as_ref().map(|stored| stored.hash.as_str());
        let verified = self.passwords.verify(&caller.tenant, password, hash).await?;
        match stored.filter(|_| verified.ok) {
            Some(stored) => Ok(Some((stored, verified))),
            None => {
                self.note_wrong(caller, owner, verified.malformed).await?;
                Ok(None)
            }
        }
    }

    /// Signs in: exactly one hash, whoever it is (row W04).
    pub(crate) async fn sign_in_with_password(
        &self,
        caller: &Caller,
        email: &Email,
        password: Password,
    ) -> Result<SignIn, Refusal> {
        self.admit_token(caller).await?;
        if caller.session.is_none() {
            self.admit_first(caller, &FactorId::PASSWORD).await?;
        }
        let name = NewLogin::password(email.clone(), String::new()).key(&caller.tenant);
        let owner: Option<Owner> = self.kit.db.get(&name).await?;
        let owner = owner.filter(|_| caller.session.is_some() || !contact::is_fake(email));
        let reserved = self.take_try(caller, owner.as_ref().map(|owner| &owner.user), email).await?;
        let again = password.clone();
        let compared = self.compare_password(caller, owner.as_ref(), password, &reserved).await?;
        let (Some(owner), Some((stored, verified))) = (&owner, compared) else {
            return Ok(SignIn::Wrong);
        };
        let tries = reserved.counted;
        // For somebody who is disabled it takes no longer (row W04).
        let rehash = match verified.needs_rehash {
            true if self.user(owner).await?.is_some_and(|user| user.disabled) => None,
            true => Some(self.passwords.hash(&caller.tenant, again).await?),
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

    /// Reserves a try at this name, and at the user whose it is, before anything is hashed (row W01).
    pub(super) async fn take_try(
        &self,
        caller: &Caller,
        user: Option<&UserId>,
        email: &Email,
    ) -> Result<Try, Refusal> {
        // Of nobody as much is written (row O24).
        let nobody = || keys::limit("password", &format!("nobody {email}"));
        let counted = vec![user.map_or_else(nobody, at_user), at_name(email)];
        self.take_tries(caller, counted, WRONG).await
    }

    /// Takes one of each, and one from the caller's address.
    async fn take_tries(&self, caller: &Caller, counted: Vec<Key>, quota: Quota) -> Result<Try, Refusal> {
        if !self.kit.config.limits {
            return Ok(Try { counted: Vec::new() });
        }
        let peer = super::peer_key(&caller.request).map(|peer| keys::limit("password-from", &peer));
        let asked = counted.iter().map(|key| (key.clone(), vec![quota]));
        let asked: Vec<Asked> = asked.chain(peer.map(|peer| (peer, vec![FROM_PEER]))).collect();
        self.take_all(counted.first().map_or("", Key::as_str), &asked).await?;
        Ok(Try { counted })
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
