//! One-time codes: begun, sent again, checked. The order is fixed: admit, reserve in a commit of its own,
//! compare in memory, then complete in one batch (rows O04 to O16).

use std::time::Duration;

use super::{
    Caller, Desk, Refusal,
    complete::Outcome,
    link::NotLinked,
    quota::{self, Send},
    second::Standpoint,
};
use crate::{
    base::{
        contact::Contact,
        error::Error,
        ident::{FactorId, TenantId, UserId},
        secret::Secret,
    },
    delivery::Notice,
    factor::{
        self, Bound, Credential,
        otp::{self, Attempt, Begin, Begun, DeviceId, Fresh, Origin, Presented, Refused},
    },
    model::{
        Tx,
        audit::{self, Audited, Event},
        code::{Code, Destination, FlowId, Form, Purpose},
        keys,
        limit::{Exhausted, RetryAfter},
        spend::Spend,
        user::{NewLogin, Owner},
    },
    session::AccessClaims,
    store::Key,
};

/// What a code was begun for, as the caller is told.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) device: DeviceId,
    pub(crate) flow: FlowId,
    /// What was sent.
    pub(crate) form: Form,
}

/// What a guess came to.
#[derive(Debug)]
pub(crate) enum Checked {
    Refused(Refused),
    /// The session's user guesses no more for so long. To anybody else it is `Restart` (row O06).
    Resting(Duration),
    Completed(Outcome),
}

impl Desk {
    /// Begins a flow to a contact, and queues the message.
    pub(crate) async fn begin_code(&self, caller: &Caller, contact: Contact) -> Result<Started, Refusal> {
        let claims = caller.session.as_ref().map(|session| session.claims());
        let (factor, form) = match &claims {
            None => {
                let served = self.kit.config.passwordless.factors_to(&contact);
                let served = self.admit_any(caller, served).await?;
                let form = Form::completing(&served).ok_or(Error::internal("no code and no link"))?;
                (served.into_iter().next().unwrap_or(otp::kind(&contact)), form)
            }
            // Within a session it is a code, whatever begins one (wire, 7.1).
            Some(claims) => {
                let factor = otp::kind(&contact);
                let at = self.standpoint(caller, claims).await?;
                self.admit_destination(caller, &at, claims, &factor, &contact).await?;
                (factor, Form::Code)
            }
        };
        let (claims, contact, factor) = (claims.as_deref(), &contact, &factor);
        let login = &NewLogin::passwordless(contact).key(&caller.tenant);
        let place = &keys::destination(&caller.tenant, purpose(caller), contact);
        #[cfg(feature = "phone")]
        self.watch_toll(contact).await?;
        let begun = self
            .kit
            .db
            .transact((contact.as_str(), factor.as_str()), |mut tx| async move {
                // Read whatever the answer, so that nothing tells (row O24).
                tx.prefetch([login.clone(), place.clone()]).await?;
                let for_show = claims.is_none() && !self.may_be_sent(&mut tx, login).await?;
                let send = self.take_send(&mut tx, caller, contact, for_show).await?;
                if let Send::TooMany(RetryAfter(wait)) = send {
                    return tx.abandon(Err(wait));
                }
                let generation = tx.get::<Destination>(place).await?.unwrap_or_default().generation;
                let Begun { code, device, fresh } = self.otp.begin(
                    Begin {
                        tenant: caller.tenant.clone(),
                        purpose: purpose(caller),
                        session: claims.map(|claims| claims.handle.clone()),
                        user: claims.map(|claims| claims.user.clone()),
                        factor: factor.clone(),
                        contact: contact.clone(),
                        form,
                        generation,
                        decoy: for_show || send != Send::Yes,
                    },
                    tx.now(),
                )?;
                if send == Send::Unkept {
                    return tx.abandon(Ok(Started { device, flow: code.id, form }));
                }
                if send != Send::Undeliverable {
                    self.stage_notice(&mut tx, &code, &fresh)?;
                }
                let key = keys::code(&caller.tenant, code.id.as_str());
                tx.insert_new(key, &code, Some(code.kept_until()))?;
                crate::base::failpoint!("otp.create.before_commit");
                tx.commit(Ok(Started { device, flow: code.id, form }))
            })
            .await?;
        crate::base::failpoint!("otp.create.after_commit");
        self.courier.wake();
        begun.map_err(Refusal::TooMany)
    }

    /// Sends a new code of a flow. `false`: start again.
    pub(crate) async fn resend_code(&self, caller: &Caller, flow: &FlowId) -> Result<bool, Refusal> {
        let claims = caller.session.as_ref().map(|session| session.claims());
        // Who may not begin it may not go on with it either; and an access token of an earlier refresh token asks
        // for nothing.
        let begun: Option<Code> = self.kit.db.get(&keys::code(&caller.tenant, flow.as_str())).await?;
        if begun.as_ref().is_some_and(|code| !self.is_served(code)) {
            return Ok(false);
        }
        let completes = begun.as_ref().map(Code::may_complete).unwrap_or_default();
        self.admit_again(caller, claims.as_deref(), begun.as_ref(), completes).await?;
        #[cfg(feature = "phone")]
        if let Some(begun) = &begun {
            self.watch_toll(&begun.contact).await?;
        }
        let claims = claims.as_deref();
        let sent = self
            .kit
            .db
            .transact(flow.as_str(), |mut tx| async move {
                let key = keys::code(&caller.tenant, flow.as_str());
                let Some(mut code) = tx.get::<Code>(&key).await? else { return tx.abandon(Ok(false)) };
                let place = keys::destination(&caller.tenant, code.purpose, &code.contact);
                let login = NewLogin::passwordless(&code.contact).key(&caller.tenant);
                tx.prefetch([login.clone(), place.clone()]).await?;
                let generation = Destination::as_met_by(tx.get(&place).await?, &code);
                let origin = origin(caller, claims, generation);
                if !otp::may_resend(&code, &origin, self.otp.settings(), tx.now()) {
                    return tx.abandon(Ok(false));
                }
                let for_show = claims.is_none() && !self.may_be_sent(&mut tx, &login).await?;
                match self.take_send(&mut tx, caller, &code.contact, for_show).await? {
                    Send::TooMany(RetryAfter(wait)) => return tx.abandon(Err(wait)),
                    Send::Silent | Send::Unkept | Send::Undeliverable => return tx.abandon(Ok(true)),
                    Send::Yes => {}
                }
                // A flow that was begun too early is for show until now; what wasn't sent then stays worth nothing.
                if code.decoy {
                    code.issues.clear();
                }
                code.decoy = for_show;
                let fresh = self.otp.resend(&mut code, tx.now())?;
                self.stage_notice(&mut tx, &code, &fresh)?;
                tx.put(key, &code, Some(code.kept_until())).await?;
                tx.commit(Ok(true))
            })
            .await?;
        self.courier.wake();
        sent.map_err(Refusal::TooMany)
    }

    /// Whether what was allowed when a flow began still is, for one at least of the factors that it is to complete
    /// now (rows P19, P20).
    async fn admit_again(
        &self,
        caller: &Caller,
        claims: Option<&AccessClaims>,
        code: Option<&Code>,
        completes: Vec<FactorId>,
    ) -> Result<(), Refusal> {
        let Some(claims) = claims else {
            return match code.filter(|code| code.purpose == Purpose::FirstFactor) {
                Some(_) => self.admit_any(caller, completes).await.map(drop),
                None => Ok(()),
            };
        };
        let at = self.standpoint(caller, claims).await?;
        let theirs = code.filter(|code| code.user.as_ref() == Some(&at.user.id));
        match theirs.zip(completes.first()) {
            Some((code, factor)) => self.admit_destination(caller, &at, claims, factor, &code.contact).await,
            None => Ok(()),
        }
    }

    /// Checks a guess and, if it is right, completes the factor.
    pub(crate) async fn check_code(
        &self,
        caller: &Caller,
        flow: &FlowId,
        presented: &Presented,
    ) -> Result<Checked, Refusal> {
        let key = keys::code(&caller.tenant, flow.as_str());
        let restart = Ok(Checked::Refused(Refused::Restart));
        let code = self.kit.db.get::<Code>(&key).await?.filter(|code| self.is_served(code));
        let Some(code) = code else { return restart };
        let factor = code.completes(presented.is_link());
        let claims = caller.session.as_ref().map(|session| session.claims());
        self.admit_again(caller, claims.as_deref(), Some(&code), vec![factor.clone()]).await?;
        let charged = match self.reserve(caller, claims.as_deref(), &key, presented).await? {
            Ok(charged) => charged,
            Err(answer) => return Ok(answer),
        };
        crate::base::failpoint!("otp.reserve.after_commit");
        let Some(matched) = self.otp.compare(&charged, presented) else {
            self.note_wrong_code(caller, &charged, &factor).await?;
            return Ok(Checked::Refused(otp::refuse(Attempt::Compare, &charged, presented)));
        };
        crate::base::failpoint!("otp.match.before_consume");
        let Some(credential) = self.credential(caller, &charged).await? else { return restart };
        // For whom the flow is, not who asks: completing compares the two (rows O12, O13, O15).
        let bound = Bound {
            tenant: charged.tenant.clone(),
            session: charged.session.clone().zip(charged.user.clone()),
        };
        let budget = quota::budget(&charged);
        let spend = Spend::Code { charged: Box::new(charged), budget, matched };
        let proof = factor::accepted(factor, self.kit.db.now(), bound, spend, credential);
        let outcome = match &caller.session {
            Some(session) => self.complete(caller, session, proof).await?,
            None => self.sign_in(caller, proof).await?,
        };
        // Of those who enter the same one at once only who used it up counts (row O28).
        #[cfg(feature = "phone")]
        if matches!(outcome, Outcome::Done(_) | Outcome::NotLinked(_)) {
            self.note_used(&code.contact).await;
        }
        Ok(Checked::Completed(outcome))
    }

    /// Whether its contact still gets codes, by what is allowed now (row N06).
    fn is_served(&self, code: &Code) -> bool {
        self.kit.config.passwordless.serves(&code.contact)
    }

    /// Whose login method a right code is. `None`: nobody's, where nobody signs up.
    async fn credential(&self, caller: &Caller, code: &Code) -> Result<Option<Credential>, Error> {
        let new = NewLogin::passwordless(&code.contact);
        if caller.session.is_some() || self.kit.config.passwordless.signs_up() {
            return Ok(Some(Credential::Named(new)));
        }
        Ok(self.kit.db.get(&new.key(&caller.tenant)).await?.map(Credential::Known))
    }

    async fn note_wrong_code(&self, caller: &Caller, code: &Code, factor: &FactorId) -> Result<(), Error> {
        let mut event = Event::new(Audited::WrongCode, &caller.tenant).factor(factor);
        if let Some(user) = &code.user {
            event = event.user(user);
        }
        if let Some(session) = &code.session {
            event = event.session(session);
        }
        self.note_wrong_guess(caller, code, &quota::budget(code), event.peer(caller.request.peer)).await
    }

    /// Charges a guess, in a commit of its own, before it is compared (rows O04, O06). The flow as charged,
    /// or the answer for a guess that may not be compared.
    async fn reserve(
        &self,
        caller: &Caller,
        claims: Option<&AccessClaims>,
        key: &Key,
        presented: &Presented,
    ) -> Result<Result<Code, Checked>, Error> {
        let restart = || Err(Checked::Refused(Refused::Restart));
        self.kit
            .db
            .transact(key.as_str(), |mut tx| async move {
                let Some(mut code) = tx.get::<Code>(key).await? else {
                    return tx.abandon(restart());
                };
                let place = keys::destination(&caller.tenant, code.purpose, &code.contact);
                let generation = Destination::as_met_by(tx.get(&place).await?, &code);
                let attempt =
                    self.otp.decide(&code, &origin(caller, claims, generation), presented, tx.now());
                if !attempt.is_charged() {
                    return tx.abandon(restart());
                }
                code.charge();
                tx.put(key.clone(), &code, Some(code.kept_until())).await?;
                if attempt.takes_budget()
                    && let Err(exhausted) = quota::charge(&mut tx, &code, caller).await?
                {
                    return tx.commit(Err(match exhausted {
                        Exhausted::Resting(RetryAfter(wait)) if claims.is_some() => Checked::Resting(wait),
                        _ => Checked::Refused(Refused::Restart),
                    }));
                }
                let answer = match attempt {
                    Attempt::Compare => Ok(code),
                    _ => Err(Checked::Refused(otp::refuse(attempt, &code, presented))),
                };
                tx.commit(answer)
            })
            .await
    }

    /// Whether the session's user may use this destination: theirs, or one to enrol (rows O14, O15).
    async fn admit_destination(
        &self,
        caller: &Caller,
        at: &Standpoint,
        claims: &AccessClaims,
        factor: &FactorId,
        contact: &Contact,
    ) -> Result<(), Refusal> {
        let new = NewLogin::passwordless(contact);
        let name = new.key(&TenantId::PUBLIC);
        let named = |login| NewLogin::from(login).key(&TenantId::PUBLIC) == name;
        let theirs = at.names(&new) || at.user.logins.iter().any(named);
        let owner = match theirs {
            true => Some(at.user.id.clone()),
            false => self.kit.db.get::<Owner>(&new.key(&caller.tenant)).await?.map(|owner| owner.user),
        };
        // Whether it is somebody else's is told by the code's completion, not before (row O24).
        let mine: Option<&UserId> = owner.as_ref().filter(|owner| **owner == at.user.id);
        if let Err(refusal) = self.admit_second(at, factor, mine) {
            let event = Event::new(Audited::DestinationRefused, &caller.tenant)
                .user(&claims.user)
                .session(&claims.handle)
                .factor(factor);
            audit::note(&self.kit.db, event.peer(caller.request.peer)).await?;
            return Err(refusal);
        }
        if mine.is_none() {
            self.admit_unproved(at, Some(&new))?;
        }
        if mine.is_none() && !self.admits_contact(caller, at, &new).await? {
            return Err(Refusal::NotLinked(NotLinked::Declined));
        }
        if mine.is_none() && self.is_blocked(at).await? {
            return Err(Refusal::NotLinked(NotLinked::SessionUserBlocked));
        }
        Ok(())
    }

    async fn is_blocked(&self, at: &Standpoint) -> Result<bool, Error> {
        self.kit
            .db
            .look(|mut tx| async move {
                let blocked = self.blocked_by(&mut tx, &at.user).await?;
                tx.abandon(blocked.is_some())
            })
            .await
    }

    fn stage_notice(&self, tx: &mut Tx, code: &Code, fresh: &Fresh) -> Result<(), Error> {
        let notice = Notice::SignInCode {
            to: code.contact.clone(),
            code: fresh.code.clone(),
            link: fresh.link.as_ref().map(|secret| self.link(code, secret)),
            valid_for: fresh.valid_for,
            factor: code.factor.clone(),
            first_factor: code.purpose == Purpose::FirstFactor,
        };
        self.courier.stage(tx, &code.tenant, &notice, code.expires_at, code.decoy)
    }

    /// The page of the website that spends the link: from the configuration alone, with the secret where no
    /// server logs it (rows V08, O21; the wire, 7.2).
    fn link(&self, code: &Code, secret: &Secret<String>) -> Secret<String> {
        let app = &self.kit.config.app;
        let website = app.websites.first().unwrap_or(&app.api);
        Secret::new(format!(
            "{}{}/verify?preAuthSessionId={}&tenantId={}#{}",
            website.as_str(),
            app.website_base_path,
            code.id.as_str(),
            code.tenant,
            secret.expose(),
        ))
    }
}

fn purpose(caller: &Caller) -> Purpose {
    if caller.session.is_some() { Purpose::SecondFactor } else { Purpose::FirstFactor }
}

fn origin<'a>(caller: &'a Caller, claims: Option<&'a AccessClaims>, generation: u64) -> Origin<'a> {
    Origin {
        tenant: &caller.tenant,
        purpose: purpose(caller),
        session: claims.map(|claims| &claims.handle),
        user: claims.map(|claims| &claims.user),
        generation,
    }
}
