//! What a signed-in user changes about how they sign in: the password, the address.

use std::time::Duration;

#[cfg(feature = "password")]
use super::password::{self, NewPassword};
use super::{Caller, Desk, Refusal, admit, complete::ROUNDS, quota::Send, second::Standpoint};
use crate::{
    base::{
        contact::{self, Contact, Email},
        error::Error,
        ident::{FactorId, LoginId},
    },
    config::{EmailVerification, FactorChanges},
    model::{
        Tx,
        audit::{self, Audited, Event},
        limit::RetryAfter,
        ticket::{self, Kind},
        user::{self, LoginKind, Owner},
    },
    session::Session,
};
#[cfg(feature = "password")]
use crate::{
    delivery::Notice,
    factor::password::Password,
    model::{keys, user::PasswordHash},
};

/// What changing a password came to.
#[cfg(feature = "password")]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub enum PasswordChange {
    /// It is another one now. Every other session of the user has ended, and this one goes on under new tokens.
    Changed,
    /// The current password isn't that.
    WrongPassword,
    /// The new one isn't good enough: the text to show beside the field.
    NotGoodEnough(String),
    /// There were too many wrong ones: none is compared for so long.
    TooManyTries(Duration),
    /// Something is asked for first: what the session lacks, or a factor as strong as the strongest one that the user
    /// has, within the last five minutes.
    StepUp,
}

/// What asking for another address came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub enum EmailChange {
    /// A link is on its way to the new address, unless somebody else has it: that isn't told.
    Asked,
    /// Too many messages were sent: none is for so long.
    TooManySends(Duration),
    /// Something is asked for first, as in a change of the password.
    StepUp,
}

impl Desk {
    /// Changes the password of a session's user, who knows the current one (row S09).
    #[cfg(feature = "password")]
    pub(crate) async fn change_password(
        &self,
        caller: &Caller,
        session: &Session,
        current: Password,
        new: Password,
    ) -> Result<PasswordChange, Refusal> {
        let claims = session.claims();
        for _ in 0..ROUNDS {
            let at = self.standpoint(caller, &claims).await?;
            let mine = |login: &&user::LoginMethod| login.kind == LoginKind::EmailPassword;
            // The one that the session was made by, or the only one that there is.
            let by = at.user.login(&at.row.login).filter(mine);
            let login = by.or_else(|| at.user.logins.iter().find(mine)).ok_or_else(user::no_login)?;
            let Some(email) = &login.email else { return Err(user::no_login().into()) };
            if !self.may_change(&at, Some(&FactorId::PASSWORD)) {
                return Ok(PasswordChange::StepUp);
            }
            let owner = Owner { user: at.user.id.clone(), login: login.id.clone() };
            let reserved = match self.take_try(caller, Some(&owner.user), email).await {
                Ok(reserved) => reserved,
                Err(Refusal::TooMany(wait)) => return Ok(PasswordChange::TooManyTries(wait)),
                Err(refusal) => return Err(refusal),
            };
            let compared = self.compare_password(caller, Some(&owner), current.clone(), &reserved).await?;
            let Some((stored, _)) = compared else { return Ok(PasswordChange::WrongPassword) };
            let hash = match self.new_password(&caller.tenant, new.clone()).await? {
                NewPassword::Hash(hash) => hash,
                NewPassword::Refused(text) => return Ok(PasswordChange::NotGoodEnough(text)),
            };
            let (opened, owner, stored, hash) = (&session.opened(), &owner, &stored, &hash);
            let stage = |mut tx: Tx| async move {
                let row = self.kit.held(&mut tx, &opened.claims).await?.row;
                let user = user::active(&mut tx, &owner.user).await?;
                let now: Option<PasswordHash> = tx.get(&keys::password(&owner.login)).await?;
                // Another change, or a hash made anew at a sign-in, came between: compare once more (row W07).
                let same = now.is_some_and(|now| now.hash == stored.hash);
                let Some(user) = user.filter(|user| same && user.login(&owner.login).is_some()) else {
                    return tx.abandon(None);
                };
                user::set_password(&mut tx, &owner.login, hash).await?;
                ticket::void(&mut tx, &user.id, &[Kind::PasswordReset]).await?;
                password::tries(&user).into_iter().for_each(|key| tx.remove(key));
                self.courier.tell(&mut tx, &row.tenant, &user, |to| Notice::PasswordChanged { to })?;
                let event = Event::new(Audited::PasswordChanged, &row.tenant).user(&user.id);
                audit::stage(&mut tx, event.session(&opened.claims.handle).peer(caller.request.peer))?;
                let kept = self.keep_alone(&mut tx, opened, row).await?;
                tx.commit(Some(kept))
            };
            if let Some(((opened, tokens), changes)) = self.kit.db.transact(&claims.user, stage).await? {
                self.kit.learn(&changes);
                self.courier.wake();
                session.replace(opened, tokens.into());
                return Ok(PasswordChange::Changed);
            }
        }
        Err(Error::unavailable("the password kept changing").into())
    }

    /// Sends a link to the address that a login method is to have. Nothing changes until it is opened, in a session of
    /// the same user; a later request, a reset and a recovery void it (rows L04, L05, L07).
    pub(crate) async fn ask_email_change(
        &self,
        caller: &Caller,
        session: &Session,
        login: &LoginId,
        email: &Email,
    ) -> Result<EmailChange, Refusal> {
        if self.kit.config.email_verification == EmailVerification::Off {
            return Err(Error::invalid("links that verify addresses are off").into());
        }
        let claims = session.claims();
        let at = self.standpoint(caller, &claims).await?;
        let has = at.user.login(login).ok_or_else(user::no_login)?;
        let ours = matches!(has.kind, LoginKind::EmailPassword | LoginKind::Passwordless);
        if !ours || has.email.as_ref().is_none_or(|now| now == email) {
            return Err(Error::invalid("this login method can't have that address").into());
        }
        if !self.may_change(&at, None) {
            return Ok(EmailChange::StepUp);
        }
        let (claims, owner) = (&claims, Owner { user: at.user.id.clone(), login: login.clone() });
        let (owner, to) = (&owner, &Contact::from(email.clone()));
        let stage = |mut tx: Tx| async move {
            let row = self.kit.held(&mut tx, claims).await?.row;
            let Some(user) = user::active(&mut tx, &owner.user).await? else { return Err(user::no_login()) };
            let free = user::may_have(&mut tx, &user, &owner.login, email).await?;
            let for_show = !free || contact::is_fake(email);
            let send = self.take_send(&mut tx, caller, to, for_show).await?;
            if let Send::TooMany(RetryAfter(wait)) = send {
                return tx.abandon(EmailChange::TooManySends(wait));
            }
            ticket::void(&mut tx, &user.id, &[Kind::EmailChange]).await?;
            self.stage_ticket(&mut tx, &row.tenant, Kind::EmailChange, owner, email, for_show).await?;
            let event = Event::new(Audited::EmailChangeAsked, &row.tenant).user(&user.id);
            audit::stage(&mut tx, event.session(&claims.handle).peer(caller.request.peer))?;
            tx.commit(EmailChange::Asked)
        };
        let asked = self.kit.db.transact(&claims.user, stage).await?;
        self.courier.wake();
        Ok(asked)
    }

    /// Whether a session may change what its user signs in with: it has all that is required, and proved something
    /// lately (decision of the house 12). `proving` is what this very request proves.
    fn may_change(&self, at: &Standpoint, proving: Option<&FactorId>) -> bool {
        let (mut claim, now) = (at.claim.clone(), self.kit.db.now());
        if let Some(factor) = proving {
            claim.mark(factor.clone(), now);
        }
        let fresh = self.kit.config.factor_changes == FactorChanges::Compat;
        at.claim.v && (fresh || admit::fresh(&claim, &at.set_up, now))
    }
}
