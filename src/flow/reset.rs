//! A password that was forgotten: a link by mail, and the new password that it sets.

use super::{Caller, Desk, Refusal, password::NewPassword, quota::Send};
use crate::{
    base::{
        contact::{self, Contact, Email},
        error::Error,
        ident::LoginId,
    },
    delivery::Notice,
    factor::password::Password,
    model::{
        Staged, Tx,
        audit::{self, Audited, Event},
        change::Change,
        limit::RetryAfter,
        ticket::{self, Kind, Token},
        user::{self, Active, LoginKind, NewLogin, Owner, User},
    },
};

/// What asking for a link came to, as the caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A link is on its way, if anybody signs in by that address.
    Sent,
    /// The address isn't proved, and its user has other contacts (row L08).
    NotAllowed,
}

/// What a link came to.
#[derive(Debug)]
pub(crate) enum Reset {
    Done,
    /// It is nobody's, used up, void or too old.
    InvalidTicket,
    /// The password isn't good enough: the text to show beside the field.
    Refused(String),
}

impl Desk {
    /// Queues a mail with a link to set a new password. Whoever it is, the same is written and queued (row O24).
    pub(crate) async fn ask_reset(&self, caller: &Caller, email: &Email) -> Result<Asked, Refusal> {
        self.tenant(&caller.tenant).await?;
        let nobody = LoginId::random()?;
        let nobody = Owner { user: nobody.alone(), login: nobody };
        let (to, name) = (&Contact::from(email.clone()), NewLogin::password(email.clone(), String::new()));
        let (nobody, name) = (&nobody, &name);
        let asked = self
            .kit
            .db
            .transact(email.as_str(), |mut tx| async move {
                let known = user::owner(&mut tx, &caller.tenant, name).await?;
                let owner = known.as_ref().unwrap_or(nobody);
                // Of somebody who is disabled no more is told than of nobody.
                let user = user::load(&mut tx, &owner.user).await?;
                let disabled = user.as_ref().is_some_and(|user| user.disabled);
                let user = user.and_then(|user| Active::of(user).ok());
                let answer = match user.as_ref().is_none_or(|user| may_reset(user, email)) {
                    true => Asked::Sent,
                    false => Asked::NotAllowed,
                };
                let for_show = user.is_none() || answer == Asked::NotAllowed || contact::is_fake(email);
                let send = self.take_send(&mut tx, caller, to, for_show).await?;
                match send {
                    Send::TooMany(RetryAfter(wait)) => return tx.abandon(Err(wait)),
                    Send::Unkept | Send::Undeliverable => return tx.abandon(Ok(answer)),
                    Send::Yes | Send::Silent => {}
                }
                let for_show = for_show || send != Send::Yes;
                self.stage_ticket(&mut tx, &caller.tenant, Kind::PasswordReset, owner, email, for_show)
                    .await?;
                let what = match answer {
                    Asked::Sent if disabled => Audited::DisabledRefused,
                    Asked::Sent => Audited::PasswordResetAsked,
                    Asked::NotAllowed => Audited::PasswordResetRefused,
                };
                let event = Event::new(what, &caller.tenant).peer(caller.request.peer);
                audit::stage(&mut tx, known.iter().fold(event, |event, owner| event.user(&owner.user)))?;
                tx.commit(Ok(answer))
            })
            .await?;
        self.courier.wake();
        asked.map_err(Refusal::TooMany)
    }

    /// Sets a new password by a link. Hashes nothing for a link that doesn't work.
    pub(crate) async fn reset_password(
        &self,
        caller: &Caller,
        token: Option<&Token>,
        password: Password,
    ) -> Result<Reset, Refusal> {
        self.tenant(&caller.tenant).await?;
        let Some(token) = token else { return Ok(Reset::InvalidTicket) };
        let works = |mut tx: Tx| async move {
            let ticket = ticket::find(&mut tx, &caller.tenant, token, &[Kind::PasswordReset]).await?;
            tx.abandon(ticket.is_some())
        };
        if !self.kit.db.look(works).await? {
            return Ok(Reset::InvalidTicket);
        }
        let hash = match self.new_password(&caller.tenant, password).await? {
            NewPassword::Hash(hash) => hash,
            NewPassword::Refused(text) => return Ok(Reset::Refused(text)),
        };
        let hash = &hash;
        let stage = |tx: Tx| async move { self.stage_reset(tx, caller, token, hash).await };
        let change = self.kit.db.transact(token.expose(), stage).await?;
        let Some(change) = change else { return Ok(Reset::InvalidTicket) };
        self.kit.learn([&change]);
        self.courier.wake();
        Ok(Reset::Done)
    }

    async fn stage_reset(
        &self,
        mut tx: Tx,
        caller: &Caller,
        token: &Token,
        hash: &str,
    ) -> Result<Staged<Option<Change>>, Error> {
        let tenant = &caller.tenant;
        let spent = ticket::spend(&mut tx, tenant, token, &[Kind::PasswordReset]).await?;
        let Some(ticket) = spent else { return tx.abandon(None) };
        let user = user::active(&mut tx, &ticket.user).await?;
        let held = |user: &Active| {
            let login = user.holds(&ticket.login, &ticket.email, tenant);
            login.is_some_and(|login| login.kind == LoginKind::EmailPassword)
        };
        let Some(mut user) = user.filter(held) else { return tx.abandon(None) };
        let first = user::prove(&mut tx, &mut user, &ticket.login).await?;
        user::set_password(&mut tx, &ticket.login, hash).await?;
        let change = self.stage_recovery(&mut tx, tenant, &mut user, &ticket.login, first).await?;
        // Who guessed at the old password guesses at another one now.
        super::password::tries(&user).into_iter().for_each(|key| tx.remove(key));
        self.courier.tell(&mut tx, tenant, &user, |to| Notice::PasswordChanged { to })?;
        let event = Event::new(Audited::PasswordReset, tenant).user(&user.id);
        audit::stage(&mut tx, event.peer(caller.request.peer))?;
        tx.commit(Some(change))
    }
}

/// Whether the mailbox may set a new password: it was proved to be the user's, or the user has nothing else by which
/// to be reached (row L08). Otherwise somebody who wrote another one's address beside their own would lose the account
/// to them.
fn may_reset(user: &User, email: &Email) -> bool {
    let other = |login: &user::LoginMethod| {
        login.phone.is_some() || login.email.as_ref().is_some_and(|other| other != email)
    };
    user.has_proved(email) || !user.logins.iter().any(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{contact::Phone, ident::UserId, time::Timestamp},
        model::user::LoginMethod,
    };

    #[test]
    fn sec_l08_who_may_reset() {
        let (a, b) = ("a@shop.example", "b@shop.example");
        let login = |kind, email: Option<&str>, phone: Option<&str>, verified| {
            let method = LoginMethod::new(LoginId::random().unwrap(), kind, Timestamp::EPOCH);
            let email = email.map(|email| Email::parse(email).unwrap());
            LoginMethod { email, phone: phone.map(|phone| Phone::parse(phone).unwrap()), verified, ..method }
        };
        let password = |verified| login(LoginKind::EmailPassword, Some(a), None, verified);
        let (mail, other) = (LoginKind::Passwordless, LoginKind::ThirdParty);
        let phone = || login(mail, None, Some("+36301111111"), true);
        let table = [
            (vec![password(false)], true),
            (vec![password(true)], true),
            (vec![password(false), phone()], false),
            (vec![password(true), phone()], true),
            (vec![password(false), login(mail, Some(b), None, true)], false),
            // Proved by another login method of the user.
            (vec![password(false), phone(), login(mail, Some(a), None, true)], true),
            (vec![password(false), phone(), login(other, Some(a), None, false)], false),
            (vec![password(false), login(other, None, None, true)], true),
        ];
        for (logins, may) in table {
            let user = User::new(UserId::parse("u").unwrap(), logins);
            assert_eq!(may_reset(&user, &Email::parse(a).unwrap()), may, "{user:?}");
        }
    }
}
