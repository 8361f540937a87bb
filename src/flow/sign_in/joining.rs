//! Somebody signs in or up, and others have the same contact: whether that may be, and whether they become one.

use super::Candidate;
use crate::{
    base::{error::Error, ident::UserId},
    delivery::Notice,
    factor::Proof,
    flow::{
        Caller, Desk, Refusal,
        complete::Outcome,
        link::{self, NotLinked},
        others::Question,
    },
    model::{
        Tx,
        audit::{self, Audited, Cause, Event},
        change::Change,
        session,
        user::{self, Active, NewLogin, User},
    },
    policy::Link,
};

/// The account that somebody joins by signing in or up.
pub(super) struct Joining {
    /// The account as it was.
    into: Active,
    /// Theirs until now, if they had one.
    absorbed: Option<Active>,
}

impl Desk {
    /// What others with the same contact make of a candidate. An account that is primary is nobody's to join, and who
    /// signs in to it has nothing to prove.
    pub(super) async fn beside_others(
        &self,
        caller: &Caller,
        candidate: Candidate,
    ) -> Result<Result<Candidate, NotLinked>, Error> {
        let me = &candidate.user;
        let stored = || me.login(&candidate.login).map(NewLogin::from);
        let Some(login) = candidate.new.clone().or_else(stored).filter(|_| !me.primary) else {
            return Ok(Ok(candidate));
        };
        let known = candidate.new.is_none().then_some(&**me);
        let Some(others) = self.others(caller, &login, [&me.id]).await? else { return Ok(Ok(candidate)) };
        let each = others.each();
        let Some(principal) = link::principal(&each) else {
            return Ok(Ok(Candidate { others: Some(others), ..candidate }));
        };
        let verified = login.verified;
        let (owner, joins) = (known.map(|me| &me.id), Some(principal.user));
        let question = Question { session_user: None, login: &login, verified, owner, joins };
        if self.ask_rule(caller, question).await? == Link::No {
            return Ok(Ok(Candidate { others: Some(others), ..candidate }));
        }
        // Whoever proved their own address signs in whatever others say (`spec/wire.md` §13).
        if !(link::beside(verified, &each) || known.is_some() && verified) {
            return Ok(Err(if known.is_some() { NotLinked::SignIn } else { NotLinked::SignUp }));
        }
        if !link::joins(verified, known, principal) || !self.is_free(principal.user, me).await? {
            return Ok(Ok(Candidate { others: Some(others), ..candidate }));
        }
        // No other way leads around an account that is disabled.
        let Ok(into) = Active::of(principal.user.clone()) else { return Ok(Err(NotLinked::Disabled)) };
        let joining = Joining { absorbed: known.is_some().then(|| me.clone()), into: into.clone() };
        let (mut user, more) = (into, me.logins.clone());
        user.logins.extend(more);
        user.primary = true;
        let person = self.person(user.to_user()).await?;
        Ok(Ok(Candidate { user, person, others: Some(others), joining: Some(joining), ..candidate }))
    }

    /// Whether no third user claims what the two have, in any tenant.
    async fn is_free(&self, into: &User, me: &User) -> Result<bool, Error> {
        let look = |mut tx: Tx| async move {
            let free = is_free(&mut tx, into, me).await?;
            tx.abandon(free)
        };
        self.kit.db.look(look).await
    }

    /// Stages that the candidate's login method joins an account. `None`: it isn't what it was.
    pub(super) async fn stage_joining(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        proof: &Proof,
        candidate: &Candidate,
        joining: &Joining,
    ) -> Result<Option<(Active, Vec<Change>)>, Error> {
        let (tenant, Joining { into, absorbed }) = (&caller.tenant, joining);
        let is_there = async |tx: &mut Tx, user: &Active| -> Result<bool, Error> {
            Ok(user::active(tx, &user.id).await?.as_ref() == Some(user))
        };
        if !is_there(tx, into).await? || !is_free(tx, into, &candidate.user).await? {
            return Ok(None);
        }
        let mut user = into.clone();
        let factor = proof.factor.clone();
        self.courier.tell(tx, tenant, into, |to| Notice::FactorAdded { to, factor: factor.clone() })?;
        // What the account is signed in to by changes: every session of before ends (row S09).
        let mut ended = vec![session::end_of_user(tx, &into.id, None, Cause::FactorsChanged).await?];
        match (absorbed, &candidate.new) {
            (Some(other), _) => {
                if !is_there(tx, other).await? {
                    return Ok(None);
                }
                ended.push(user::absorb(tx, &mut user, other.to_user()).await?);
            }
            (None, Some(new)) => {
                let Some(login) = candidate.user.login(&candidate.login) else { return Ok(None) };
                if user::owner(tx, tenant, new).await?.is_some() {
                    return Ok(None);
                }
                user::add_login(tx, tenant, &mut user, login.clone(), new).await?;
            }
            (None, None) => return Ok(None),
        }
        crate::base::failpoint!("link.before_commit");
        let event = Event::new(Audited::FactorLinked, tenant).user(&user.id).factor(&proof.factor);
        audit::stage(tx, event.peer(caller.request.peer))?;
        Ok(Some((user, ended)))
    }

    /// Refuses somebody who proved who they are: what they proved it by is spent, and nothing else changes.
    pub(super) async fn refuse(
        &self,
        caller: &Caller,
        proof: &Proof,
        owner: Option<&UserId>,
        refused: NotLinked,
    ) -> Result<Outcome, Refusal> {
        let stage = |mut tx: Tx| async move {
            if !proof.spend.stage(&mut tx).await? {
                return tx.abandon(Outcome::Lost);
            }
            let what = match refused {
                NotLinked::Disabled => Audited::DisabledRefused,
                _ => Audited::DestinationRefused,
            };
            let mut event = Event::new(what, &caller.tenant).factor(&proof.factor);
            if let Some(owner) = owner {
                event = event.user(owner);
            }
            audit::stage(&mut tx, event.peer(caller.request.peer))?;
            tx.commit(Outcome::NotLinked(refused))
        };
        Ok(self.kit.db.transact(&caller.tenant, stage).await?)
    }
}

async fn is_free(tx: &mut Tx, into: &User, me: &User) -> Result<bool, Error> {
    for user in [into, me] {
        if user::claimed_by_other(tx, &into.id, &user.logins).await?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}
