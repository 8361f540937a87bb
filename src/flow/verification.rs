//! Addresses are proved by a link: asked for, opened, and written into the claim `st-ev`.

use super::{Caller, Desk, Refusal, quota::Send, second::Standpoint};
use crate::{
    base::{
        contact::Contact,
        error::{Error, ErrorKind},
        payload::Payload,
    },
    claim::{ClaimRef, ClaimValidator as _, EmailIsVerified, EmailVerified, SessionClaim as _, Stamped},
    config::EmailVerification,
    model::{
        Staged, Tx,
        audit::{self, Audited, Event},
        change::Change,
        limit::RetryAfter,
        session::SessionRecord,
        ticket::{self, Kind, Ticket, Token},
        user::{self, Active, NewLogin, Owner, User},
    },
    session::{Opened, Session, SessionDenied, transport::Tokens},
};

/// What asking for a link came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Sent,
    /// The address is proved, or the login method has none.
    Already,
}

/// A link was opened: the tokens of the session that came along, and what nodes must learn.
struct Proved {
    tokens: Option<(Opened, Tokens)>,
    changes: Vec<Change>,
}

impl Desk {
    /// Sends a link to the address of the session's login method, unless it is proved.
    pub(crate) async fn ask_verification(
        &self,
        caller: &Caller,
        session: &Session,
    ) -> Result<Asked, Refusal> {
        let claims = session.claims();
        let claims = &claims;
        let asked = self
            .kit
            .db
            .transact(&claims.user, |mut tx| async move {
                let row = self.kit.held(&mut tx, claims).await?.row;
                let user = user::load(&mut tx, &row.user).await?.ok_or_else(gone)?;
                let login = user.login(&row.login).ok_or_else(gone)?;
                let Some(email) = login.email.as_ref().filter(|_| !user.is_proved(login)) else {
                    return tx.abandon(Ok(Asked::Already));
                };
                let owner = Owner { user: user.id.clone(), login: login.id.clone() };
                match self.take_send(&mut tx, caller, &Contact::from(email.clone()), false).await? {
                    Send::TooMany(RetryAfter(wait)) => return tx.abandon(Err(wait)),
                    Send::Silent | Send::Unkept | Send::Undeliverable => {
                        return tx.abandon(Ok(Asked::Sent));
                    }
                    Send::Yes => {}
                }
                self.stage_ticket(&mut tx, &row.tenant, Kind::EmailVerification, &owner, email, false)
                    .await?;
                tx.commit(Ok(Asked::Sent))
            })
            .await?;
        self.courier.wake();
        let asked = asked.map_err(Refusal::TooMany)?;
        if asked == Asked::Already {
            self.tell_verified(caller, session).await?;
        }
        Ok(asked)
    }

    /// Whether the address of the session's login method is proved. The claim is written into the session, which goes
    /// on under a token that says so.
    pub(crate) async fn tell_verified(&self, caller: &Caller, session: &Session) -> Result<bool, Error> {
        let claim = [ClaimRef::new(EmailVerified)];
        let (opened, tokens, _) = self.reassess(&session.opened(), &claim, false, &caller.request).await?;
        if let Some(tokens) = tokens {
            session.replace(opened, tokens.into());
        }
        session.claim::<EmailVerified>()?.ok_or_else(gone)
    }

    /// Proves an address by a link. `false`: the link doesn't work.
    pub(crate) async fn verify_email(
        &self,
        caller: &Caller,
        session: Option<&Session>,
        token: Option<&Token>,
    ) -> Result<bool, Refusal> {
        self.tenant(&caller.tenant).await?;
        let Some(token) = token else { return Ok(false) };
        let opened = session.map(Session::opened);
        let opened = opened.as_ref();
        let stage = |tx: Tx| async move { self.stage_verification(tx, caller, opened, token).await };
        let Some(proved) = self.kit.db.transact(token.expose(), stage).await? else { return Ok(false) };
        self.kit.learn(&proved.changes);
        self.courier.wake();
        if let (Some(session), Some((opened, tokens))) = (session, proved.tokens) {
            session.replace(opened, tokens.into());
        }
        Ok(true)
    }

    async fn stage_verification(
        &self,
        mut tx: Tx,
        caller: &Caller,
        opened: Option<&Opened>,
        token: &Token,
    ) -> Result<Staged<Option<Proved>>, Error> {
        let kinds = [Kind::EmailVerification, Kind::EmailChange];
        let spent = ticket::spend(&mut tx, &caller.tenant, token, &kinds).await?;
        let Some(ticket) = spent else { return tx.abandon(None) };
        let Some(user) = user::active(&mut tx, &ticket.user).await? else { return tx.abandon(None) };
        let held = match opened.filter(|opened| opened.claims.user == user.id) {
            Some(opened) => self.held_by(&mut tx, opened).await?.map(|row| (opened, row)),
            None => None,
        };
        match (ticket.kind, held) {
            (Kind::EmailChange, Some((opened, row))) => {
                self.stage_changed_email(tx, caller, user, &ticket, opened, row).await
            }
            // Whoever owns the new mailbox alone must not get hold of the account, nor it of them.
            (Kind::EmailChange, None) => tx.abandon(None),
            (_, held) if user.holds(&ticket.login, &ticket.email, &caller.tenant).is_some() => {
                self.stage_proof(tx, caller, user, &ticket, held).await
            }
            _ => tx.abandon(None),
        }
    }

    /// An address is proved by a link; the first time it settles whose the account is.
    async fn stage_proof(
        &self,
        mut tx: Tx,
        caller: &Caller,
        mut user: Active,
        ticket: &Ticket,
        mut held: Option<(&Opened, SessionRecord)>,
    ) -> Result<Staged<Option<Proved>>, Error> {
        let tenant = &caller.tenant;
        let first = user::prove(&mut tx, &mut user, &ticket.login).await?;
        let mut changes = Vec::new();
        if first {
            let held = held.as_mut().map(|(opened, row)| (&opened.claims.handle, row));
            changes.push(self.stage_first_proof(&mut tx, tenant, &mut user, &ticket.login, held).await?);
        }
        let event = Event::new(Audited::EmailVerified, tenant).user(&user.id).peer(caller.request.peer);
        let Some((opened, mut row)) = held else {
            audit::stage(&mut tx, event)?;
            return tx.commit(Some(Proved { tokens: None, changes }));
        };
        audit::stage(&mut tx, event.session(&opened.claims.handle))?;
        self.write_verified(&tx, &mut row, &user)?;
        let staged = self.kit.stage_renewed(tx, opened, &row).await?;
        Ok(staged.map(|renewed| Some(Proved { tokens: Some(renewed), changes })))
    }

    /// A login method has the new address from now on, as the exact one that the mail went to (row L05). The session
    /// that opened the link goes on under a new refresh token, every other one ends (row S09).
    async fn stage_changed_email(
        &self,
        mut tx: Tx,
        caller: &Caller,
        mut user: Active,
        ticket: &Ticket,
        opened: &Opened,
        mut row: SessionRecord,
    ) -> Result<Staged<Option<Proved>>, Error> {
        let tenant = &caller.tenant;
        // Not only when it was asked for: somebody may have signed up by it since (row L07).
        if user.login(&ticket.login).is_none()
            || !user::may_have(&mut tx, &user, &ticket.login, &ticket.email).await?
        {
            return tx.abandon(None);
        }
        let before = user.clone();
        user::set_email(&mut tx, &mut user, &ticket.login, &ticket.email, true).await?;
        ticket::void(&mut tx, &user.id, &Kind::ALL).await?;
        self.courier.tell(&mut tx, tenant, &before, |to| crate::delivery::Notice::EmailChanged { to })?;
        let event = Event::new(Audited::EmailChanged, tenant).user(&user.id);
        audit::stage(&mut tx, event.session(&opened.claims.handle).peer(caller.request.peer))?;
        self.write_verified(&tx, &mut row, &user)?;
        let (tokens, change) = self.keep_alone(&mut tx, opened, row).await?;
        tx.commit(Some(Proved { tokens: Some(tokens), changes: vec![change] }))
    }

    /// Where addresses must be proved, nothing joins an account before its own address is: who registered somebody
    /// else's can't add a number to it (row L03). What proves the address itself may come.
    pub(super) fn admit_unproved(&self, at: &Standpoint, new: Option<&NewLogin>) -> Result<(), Refusal> {
        let Some(login) = at.user.login(&at.row.login) else { return Err(gone().into()) };
        let proves = new.is_some_and(|new| new.verified && new.email == login.email);
        let required = self.kit.config.email_verification == EmailVerification::Required;
        if !required || at.user.is_proved(login) || proves { Ok(()) } else { Err(self.unproved()?) }
    }

    /// The refusal of somebody who must prove their address first: by it a page knows where to send them.
    pub(super) fn unproved(&self) -> Result<Refusal, Error> {
        let asked = EmailIsVerified::new();
        let mut payload = Payload::new();
        payload.set(EmailVerified::KEY, Stamped { v: false, t: self.kit.db.now() }.write()?);
        let invalid = asked.validate(&payload, self.kit.db.now()).err();
        Ok(Refusal::Denied(SessionDenied::InvalidClaims(invalid.into_iter().collect())))
    }

    /// The row of a session whose holder opened a link; `None` if it is over.
    pub(super) async fn held_by(&self, tx: &mut Tx, opened: &Opened) -> Result<Option<SessionRecord>, Error> {
        match self.kit.held(tx, &opened.claims).await {
            Ok(alive) => Ok(Some(alive.row)),
            Err(error) if error.kind() == ErrorKind::SessionEnded => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the claim into a row, where the app has it.
    fn write_verified(&self, tx: &Tx, row: &mut SessionRecord, user: &User) -> Result<(), Error> {
        let known = self.claims.iter().any(|claim| claim.key() == EmailVerified::KEY);
        if let Some(login) = user.login(&row.login).filter(|_| known) {
            let value = Stamped { v: user.is_proved(login), t: tx.now() }.write()?;
            row.payload.set(EmailVerified::KEY, value);
        }
        Ok(())
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::SessionEnded, "the session's user or login method is gone")
}
