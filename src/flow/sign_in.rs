//! A first factor was proved: one batch with the credential spent, the user made if need be, the session,
//! the one left behind ended, and the audit.

use self::joining::Joining;
use super::{
    Caller, Desk, Refusal, admit,
    complete::{Completed, Outcome, ROUNDS, Resolved, Round},
    evaluate::{Subject, Verdicts, apply},
    facts::StoredFacts,
    link::NotLinked,
    others::{self, Others},
};
use crate::{
    base::{
        distinct,
        error::{Error, ErrorKind},
        ident::{FactorId, LoginId, SessionHandle},
        payload::Payload,
    },
    claim::MfaClaim,
    delivery::Notice,
    factor::Proof,
    hooks::{FactorCompleted, Happened, SessionCreated, UserCreated},
    model::{
        Staged, TAKEN, Tx, agents,
        audit::{self, Audited, Cause, Event},
        change::Change,
        epoch::Standing,
        keys,
        session::{self, Lineage, SessionRecord},
        user::{self, Active, Disabled, NewLogin},
    },
    policy::{Person, SessionFacts},
    session::{
        Session, SessionDenied,
        refresh::{self, RefreshToken},
    },
};

mod joining;

/// The one who signs in, as prepared outside of the transaction.
struct Candidate {
    user: Active,
    /// The same as policies and notices see them.
    person: Person,
    login: LoginId,
    /// Made in the batch, if nobody has the name by then.
    new: Option<NewLogin>,
    /// Who else had its contact, where that matters.
    others: Option<Others>,
    /// Where it goes, if not to a user of its own. Then `user` is who they are together.
    joining: Option<Joining>,
}

impl Desk {
    /// Whether a factor may start a session in the caller's tenant (row P19).
    pub(crate) async fn admit_first(&self, caller: &Caller, factor: &FactorId) -> Result<(), Refusal> {
        self.admit_any(caller, vec![factor.clone()]).await.map(drop)
    }

    /// Which of these factors may start a session in the caller's tenant: at least one.
    pub(crate) async fn admit_any(
        &self,
        caller: &Caller,
        mut factors: Vec<FactorId>,
    ) -> Result<Vec<FactorId>, Refusal> {
        let tenant = self.tenant(&caller.tenant).await?;
        let allowed = self.first_factors(&tenant);
        let unlisted = self.kit.config.first_factors.is_none() && tenant.first_factors.is_none();
        factors.retain(|factor| match (&self.own_users, caller.vouched) {
            (None, _) => admit::first(factor, &allowed).is_ok(),
            (Some(_), vouched) => vouched && (unlisted || admit::first(factor, &allowed).is_ok()),
        });
        match factors.is_empty() {
            false => Ok(factors),
            true if caller.left_behind.is_empty() => Err(Refusal::Denied(SessionDenied::Unauthorised)),
            true => Err(Refusal::BadInput("this factor can't start a session here")),
        }
    }

    /// Starts a session.
    pub(crate) async fn sign_in(&self, caller: &Caller, proof: Proof) -> Result<Outcome, Refusal> {
        if proof.bound.session.is_some() || proof.bound.tenant != caller.tenant {
            return Ok(Outcome::Lost);
        }
        let (mut moved, mut taken) = (0, 0);
        while moved < ROUNDS {
            let resolved = self.resolve(&caller.tenant, &proof.credential).await?;
            if resolved.fresh && resolved.owner.is_some() {
                return Ok(Outcome::Taken);
            }
            let known = resolved.owner.as_ref().map(|owner| owner.user.clone());
            let Some(candidate) = self.candidate(caller, resolved).await? else { return Ok(Outcome::Lost) };
            let candidate = match candidate {
                Ok(candidate) => self.beside_others(caller, candidate).await?,
                Err(Disabled) => Err(NotLinked::Disabled),
            };
            let candidate = match candidate {
                Ok(candidate) => candidate,
                Err(refused) => return self.refuse(caller, &proof, known.as_ref(), refused).await,
            };
            let before = self.standing(caller, &candidate).await?;
            // Read at completion, not only at the start, and after the numbers that stand for it (rows F22,
            // N06).
            self.admit_first(caller, &proof.factor).await?;
            let handle = SessionHandle::random(&caller.tenant)?;
            let mut claim = MfaClaim::default();
            claim.mark(proof.factor.clone(), proof.at);
            let person = Some(candidate.person.clone());
            let facts = StoredFacts::new(self, &candidate.user.id, &caller.tenant, person);
            let payload = Payload::new();
            let subject = Subject {
                facts: &facts,
                session: SessionFacts {
                    handle: handle.clone(),
                    user: candidate.user.id.clone(),
                    login: candidate.login.clone(),
                    created_at: proof.at,
                    first_factor: Some(proof.factor.clone()),
                },
                completed: &claim.c,
                payload: &payload,
                request: Some(caller.request.clone()),
                tenant: &caller.tenant,
            };
            let verdicts = self.verdicts(&self.claims, &subject).await?;
            let (candidate, verdicts, claim, proof_ref) = (&candidate, &verdicts, &claim, &proof);
            let (before, handle) = (&before, &handle);
            let round = self
                .kit
                .db
                .transact(&candidate.user.id, |tx| async move {
                    self.stage_sign_in(tx, caller, proof_ref, candidate, before, handle, claim, verdicts)
                        .await
                })
                .await;
            match round {
                Ok(Round::Done(outcome, changes)) => {
                    self.kit.learn(&changes);
                    if let Outcome::Done(done) = &outcome {
                        crate::base::failpoint!("session.create.after_commit");
                        self.tell_signed_in(caller, &proof, handle, done).await;
                    }
                    return Ok(outcome);
                }
                Ok(Round::Moved) => moved += 1,
                // Another handle, another id (row S04).
                Err(error) if error.is_taken() && taken < TAKEN => taken += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::unavailable("what is required kept changing").into())
    }

    /// Tells the app's hooks, once it is committed.
    async fn tell_signed_in(
        &self,
        caller: &Caller,
        proof: &Proof,
        session: &SessionHandle,
        done: &Completed,
    ) {
        let (user, tenant, factor) = (&done.user, &caller.tenant, &proof.factor);
        let (complete, peer, enrolled) = (done.met, caller.request.peer, done.created);
        // Who joined an account isn't one that was made.
        let alone = enrolled && user.logins.len() == 1;
        let created = Happened::UserCreated(UserCreated { user, tenant, form: &caller.form });
        let happened = [
            Happened::SessionCreated(SessionCreated { user, tenant, session, factor, complete, peer }),
            Happened::FactorCompleted(FactorCompleted {
                user,
                tenant,
                session,
                factor,
                first_factor: true,
                enrolled,
            }),
        ];
        let all: Vec<Happened<'_>> = alone.then_some(created).into_iter().chain(happened).collect();
        self.hooks.tell(&all, &self.kit.db.trail.counts).await;
    }

    async fn candidate(
        &self,
        caller: &Caller,
        resolved: Resolved,
    ) -> Result<Option<Result<Candidate, Disabled>>, Error> {
        let found = match (resolved.owner, resolved.new) {
            (Some(owner), _) => self.user(&owner).await?.map(|user| (user, owner.login, None)),
            (None, Some(new)) => {
                let user = user::prepare(&caller.tenant, &new, self.kit.db.now())?;
                let login = user.logins.first().map(|login| login.id.clone());
                login.map(|login| (user, login, Some(new)))
            }
            (None, None) => None,
        };
        let Some((user, login, new)) = found else { return Ok(None) };
        let Ok(user) = Active::of(user) else { return Ok(Some(Err(Disabled))) };
        let person = self.person(user.to_user()).await?;
        Ok(Some(Ok(Candidate { user, person, login, new, others: None, joining: None })))
    }

    async fn standing(&self, caller: &Caller, candidate: &Candidate) -> Result<Standing, Error> {
        self.kit
            .db
            .look(|mut tx| async move {
                let standing = Standing::read(&mut tx, &caller.tenant, &candidate.user.id).await?;
                tx.abandon(standing)
            })
            .await
    }

    #[allow(clippy::too_many_arguments, reason = "the values of one round, each of its own type")]
    async fn stage_sign_in(
        &self,
        mut tx: Tx,
        caller: &Caller,
        proof: &Proof,
        candidate: &Candidate,
        before: &Standing,
        handle: &SessionHandle,
        claim: &MfaClaim,
        verdicts: &Verdicts,
    ) -> Result<Staged<Round>, Error> {
        let (kit, tenant, user, now) = (&self.kit, &caller.tenant, &candidate.user, tx.now());
        let standing = Standing::read(&mut tx, tenant, &user.id).await?;
        // Each of the three by itself: a user who is yet to be made has no number.
        if standing != *before || standing.tenant.is_none() {
            return tx.abandon(Round::Moved);
        }
        if !others::are_same(&mut tx, caller, candidate.others.as_ref()).await? {
            return tx.abandon(Round::Moved);
        }
        if !proof.spend.stage(&mut tx).await? {
            return tx.abandon(Round::Done(Outcome::Lost, Vec::new()));
        }
        let mut changes = Vec::new();
        let joined = match (&candidate.joining, &candidate.new) {
            (Some(joining), _) => {
                let staged = self.stage_joining(&mut tx, caller, proof, candidate, joining).await?;
                let Some((joined, ended)) = staged else { return tx.abandon(Round::Moved) };
                changes.extend(ended);
                Some(joined)
            }
            (None, Some(new)) if user::owner(&mut tx, tenant, new).await?.is_some() => {
                return tx.abandon(Round::Moved);
            }
            (None, Some(new)) => {
                user::create(&mut tx, tenant, user, new).await?;
                let event = Event::new(Audited::UserCreated, tenant).user(&user.id).factor(&proof.factor);
                audit::stage(&mut tx, event.peer(caller.request.peer))?;
                None
            }
            // Not only at the start: they may have been disabled since (row W06).
            (None, None) if user::active(&mut tx, &user.id).await?.as_ref() != Some(user) => {
                return tx.abandon(Round::Moved);
            }
            (None, None) => None,
        };
        let user = joined.as_ref().unwrap_or(user);
        let numbers = Standing::read(&mut tx, tenant, &user.id).await?.numbers(1);
        let numbers = numbers.ok_or(Error::new(ErrorKind::SessionEnded, "user or tenant are gone"))?;
        let keys_now = kit.refresh.first().ok_or(Error::internal("there is no root key"))?;
        let token = RefreshToken::random(handle.clone(), user.id.clone(), keys_now)?;
        let lives = &kit.config.lifetimes;
        let mut row = SessionRecord {
            user: user.id.clone(),
            login: candidate.login.clone(),
            tenant: tenant.clone(),
            created_at: now,
            used_at: now,
            revision: 1,
            epochs: numbers,
            payload: Payload::new(),
            agent: caller.request.user_agent.as_deref().map(agents::shown),
            lineage: Lineage {
                current: token.hash2(),
                previous: None,
                superseded: Vec::new(),
                salt: refresh::salt()?,
                half_until: Some(now + lives.half_session),
                expires_at: (now + lives.refresh_token).min(now + lives.session),
                absolute_until: now + lives.session,
            },
            ask_at: None,
        };
        for (key, value) in &verdicts.claims {
            row.payload.set(key, value.clone());
        }
        apply(&mut row, &mut claim.clone(), &verdicts.requirements, numbers, now);
        let (opened, mut tokens) = kit.issue(&row, &token, caller.method, now)?;
        (tokens.clear_other, tokens.expire_older) = (caller.clear_other, caller.expire_older);
        changes.extend(session::insert(&mut tx, user, handle, &row, kit.config.max_sessions).await?);
        changes.extend(end_left_behind(&mut tx, caller).await?);
        Standing::check(&mut tx, tenant, &user.id).await?;
        let what = if row.is_half() { Audited::PartlySignedIn } else { Audited::SignedIn };
        let event = Event::new(what, tenant).user(&user.id).session(handle).factor(&proof.factor);
        audit::stage(&mut tx, event.peer(caller.request.peer))?;
        if agents::note(&mut tx, &user.id, caller.request.user_agent.as_deref()).await? {
            let event = Event::new(Audited::NewDevice, tenant).user(&user.id).session(handle);
            audit::stage(&mut tx, event.peer(caller.request.peer))?;
            self.courier.tell(&mut tx, tenant, &candidate.person.user, |to| Notice::NewDevice { to })?;
        }
        let (created, met) = (candidate.new.is_some(), !row.is_half());
        crate::base::failpoint!("otp.consume.before_commit" if proof.spend.is_code());
        crate::base::failpoint!("session.create.before_commit");
        let done = Completed { user: user.to_user(), created, met, opened, tokens };
        tx.commit(Round::Done(Outcome::Done(Box::new(done)), changes))
    }
}

/// A session that came along and wasn't used ends with the sign-in (row S01).
async fn end_left_behind(tx: &mut Tx, caller: &Caller) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    // Two tokens may be of one session.
    for handle in distinct(caller.left_behind.iter().map(Session::handle)) {
        if let Some(row) = tx.get::<SessionRecord>(&keys::session(&handle)).await? {
            let event = Event::new(Audited::SessionRevoked, &row.tenant).cause(Cause::SignedInAnew);
            changes.push(session::end(tx, &handle, &row, event).await?);
        }
    }
    Ok(changes)
}
