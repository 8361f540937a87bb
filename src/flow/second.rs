//! A factor was proved within a session: one batch with the credential spent, the login linked, `c` and
//! `v`, a new refresh token, and the audit (design, part 5, "The completion of a second factor").

use self::linking::Linking;
use super::{
    Caller, Desk, Refusal,
    admit::{self, Admission, NotAdmitted, Second},
    complete::{Completed, Outcome, ROUNDS, Resolved, Round},
    evaluate::{Subject, Verdicts, apply, renew_roles, session_facts},
    link::NotLinked,
    others, quota,
};
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::{FactorId, TenantId, UserId},
        time::Timestamp,
    },
    claim::{ClaimRef, MfaClaim},
    delivery::Notice,
    factor::{Credential, Proof},
    hooks::{FactorCompleted, Happened},
    model::{
        Staged, Tx,
        audit::{self, Audited, Cause, Event},
        epoch::Standing,
        keys, metadata,
        session::{self, SessionRecord},
        user::{self, Active, LoginKind, NewLogin, Owner},
    },
    policy::{Person, Requirements, SetUpRefused},
    session::{
        AccessClaims, Session,
        kit::Alive,
        refresh::{self, Completing, Elevation},
    },
};

mod linking;

/// A completion that may be: what was read and asked, which its transaction holds against what is there then.
struct Attempt<'a> {
    caller: &'a Caller,
    session: &'a Session,
    claims: &'a AccessClaims,
    proof: &'a Proof,
    at: &'a Standpoint,
    resolved: &'a Resolved,
    linking: &'a Linking,
    /// Of the session as it will be.
    verdicts: Verdicts,
    /// Whether the factor is asked of the user from now on: the app's answer.
    opts_in: bool,
}

/// A session as a second factor's steps see it: read anew, never taken from the token.
pub(crate) struct Standpoint {
    pub(crate) row: SessionRecord,
    pub(crate) standing: Standing,
    pub(crate) user: Active,
    /// The same as policies, destinations and notices see them.
    pub(crate) person: Person,
    /// Evaluated just now.
    pub(crate) claim: MfaClaim,
    pub(crate) requirements: Requirements,
    pub(crate) next: Vec<FactorId>,
    pub(crate) set_up: Vec<FactorId>,
}

impl Standpoint {
    /// Whether a contact is the one that the app names for this user: it is theirs, and nothing of it is stored.
    pub(crate) fn names(&self, contact: &NewLogin) -> bool {
        let own = self.person.user.logins.iter().filter(|login| login.kind == LoginKind::External);
        let (email, phone) = (contact.email.as_ref(), contact.phone.as_ref());
        own.into_iter().any(|login| {
            (email.is_some() && login.email.as_ref() == email)
                || (phone.is_some() && login.phone.as_ref() == phone)
        })
    }

    fn has_of_app(&self, credential: &Credential) -> bool {
        matches!(credential, Credential::Named(new) if new.kind == LoginKind::Passwordless && self.names(new))
    }
}

impl Desk {
    /// Reads where a session stands. An access token of an earlier refresh token is `TRY_REFRESH`, before
    /// anything is charged (row S02 d).
    pub(crate) async fn standpoint(
        &self,
        caller: &Caller,
        claims: &AccessClaims,
    ) -> Result<Standpoint, Error> {
        let (row, standing, user) = self
            .kit
            .db
            .look(|mut tx| async move {
                let Alive { row, standing } = self.completing(&mut tx, claims).await?;
                let gone = Error::new(ErrorKind::SessionEnded, "the session's user is gone");
                let user = user::active(&mut tx, &row.user).await?.ok_or(gone)?;
                tx.abandon((row, standing, user))
            })
            .await?;
        let mut claim = self.claim_of(&row).await?;
        let person = self.person(user.to_user()).await?;
        let requirements = self.asked(caller, claims, &[], &row, &person, &claim).await?.requirements;
        let now = self.kit.db.now();
        claim.evaluate(&requirements, now);
        let next = requirements.next_set(&claim.c, now).map(|next| next.factors).unwrap_or_default();
        let set_up = self.factors.bound((&person.user).into());
        Ok(Standpoint { row, standing, user, person, claim, requirements, next, set_up })
    }

    /// A session in which a factor may be completed by this access token: not by one of an earlier refresh token.
    async fn completing(&self, tx: &mut Tx, claims: &AccessClaims) -> Result<Alive, Error> {
        let alive = self.kit.alive(tx, &claims.handle).await?;
        match refresh::elevation(&alive.row.lineage, &claims.refresh_hash1, tx.now()) {
            Elevation::Stale => {
                Err(Error::new(ErrorKind::StaleToken, "the access token is of an earlier refresh token"))
            }
            Elevation::Elevate | Elevation::Shared => Ok(alive),
        }
    }

    /// The same before anything is tried: an access token that completes nothing costs no attempt, no hash and no code
    /// of a provider's (row S02 d).
    pub(crate) async fn admit_token(&self, caller: &Caller) -> Result<(), Error> {
        let Some(session) = &caller.session else { return Ok(()) };
        let claims = &session.claims();
        self.kit
            .db
            .look(|mut tx| async move {
                self.completing(&mut tx, claims).await?;
                tx.abandon(())
            })
            .await
    }

    /// Asks the policy about a session, and these claims before it.
    async fn asked(
        &self,
        caller: &Caller,
        claims: &AccessClaims,
        fetched: &[ClaimRef],
        row: &SessionRecord,
        person: &Person,
        claim: &MfaClaim,
    ) -> Result<Verdicts, Error> {
        let facts = self.facts(row, Some(person.clone()));
        let subject = Subject {
            facts: &facts,
            session: session_facts(&claims.handle, row, claim),
            completed: &claim.c,
            payload: &row.payload,
            request: Some(caller.request.clone()),
            tenant: &row.tenant,
        };
        self.verdicts(fetched, &subject).await
    }

    /// Whether the session's user may complete, or enrol, this factor by a login method of `owner`.
    pub(crate) fn admit_second(
        &self,
        at: &Standpoint,
        factor: &FactorId,
        owner: Option<&UserId>,
    ) -> Result<Admission, Refusal> {
        let attempt = Second {
            factor,
            session_user: &at.user.id,
            owner,
            claim: &at.claim,
            next: &at.next,
            set_up: &at.set_up,
            changes: self.kit.config.factor_changes,
            now: self.kit.db.now(),
        };
        let next = || at.requirements.next_step(&at.claim.c, attempt.now);
        admit::second(&attempt).map_err(|refused| match refused {
            NotAdmitted::SetUp(reason) => Refusal::mfa(reason, next()),
            NotAdmitted::OtherDestination => Refusal::mfa(SetUpRefused::UseWhatIsSetUp, next()),
            NotAdmitted::StepUp => {
                let fresh = admit::freshened(&self.kit.usable, &at.set_up);
                Refusal::mfa("step_up_required", fresh.next_step(&at.claim.c, attempt.now))
            }
            NotAdmitted::NotAFirstFactor => Refusal::BadInput("this factor can't be used here"),
        })
    }

    /// Completes a factor for the session's user.
    pub(crate) async fn complete(
        &self,
        caller: &Caller,
        session: &Session,
        proof: Proof,
    ) -> Result<Outcome, Refusal> {
        let claims = session.claims();
        let mine = (claims.handle.clone(), claims.user.clone());
        if proof.bound.session.as_ref() != Some(&mine) || proof.bound.tenant != claims.tenant {
            return Ok(Outcome::Lost);
        }
        for _ in 0..ROUNDS {
            let at = self.standpoint(caller, &claims).await?;
            let theirs = at.has_of_app(&proof.credential);
            let credential = if theirs { &Credential::Session } else { &proof.credential };
            let resolved = self.resolve(&claims.tenant, credential).await?;
            if resolved.fresh && resolved.owner.is_some() {
                return Ok(Outcome::Taken);
            }
            let owner = match credential {
                Credential::Session => Some(at.user.id.clone()),
                _ => self.owner_for(&at.user, &resolved),
            };
            // Not only at the start: what was allowed then may be no longer (rows F01, O15).
            let admission = match self.admit_second(&at, &proof.factor, owner.as_ref()) {
                Ok(admission) => admission,
                Err(refusal) => {
                    let event = Event::new(Audited::FactorRefused, &claims.tenant).user(&claims.user);
                    let event = event.session(&claims.handle).factor(&proof.factor);
                    audit::note(&self.kit.db, event.peer(caller.request.peer)).await?;
                    return Err(refusal);
                }
            };
            if admission == Admission::Enrol {
                self.admit_unproved(&at, resolved.new.as_ref())?;
            }
            let linking = self.linking(caller, &at, &resolved).await?;
            let mut after = at.claim.clone();
            after.mark(proof.factor.clone(), proof.at.min(self.kit.db.now()));
            let will_be = would_be(&at.person, owner.as_ref(), &resolved, &claims, self.kit.db.now())?;
            let follow: Vec<ClaimRef> =
                self.claims.iter().filter(|claim| claim.follows_factors()).cloned().collect();
            let verdicts = self.asked(caller, &claims, &follow, &at.row, &will_be, &after).await?;
            let completed = |user| FactorCompleted {
                user,
                tenant: &claims.tenant,
                session: &claims.handle,
                factor: &proof.factor,
                first_factor: false,
                enrolled: admission == Admission::Enrol,
            };
            let opts_in = self.hooks.opts_in(&completed(&at.user)).await?;
            let attempt = Attempt {
                session,
                claims: &claims,
                proof: &proof,
                at: &at,
                resolved: &resolved,
                linking: &linking,
                caller,
                verdicts,
                opts_in,
            };
            let stage = |tx| self.stage_second(tx, &attempt);
            let round = self.kit.db.transact(&claims.handle, stage).await?;
            if let Round::Done(outcome, changes) = round {
                self.kit.learn(&changes);
                if let Outcome::NotLinked(NotLinked::SessionUserUnverified) = &outcome {
                    return Err(self.unproved()?);
                }
                if let Outcome::Done(done) = &outcome {
                    crate::base::failpoint!("elevate.after_commit_before_response");
                    let happened = [Happened::FactorCompleted(completed(&done.user))];
                    self.hooks.tell(&happened, &self.kit.db.trail.counts).await;
                }
                return Ok(outcome);
            }
        }
        Err(Error::unavailable("what is required kept changing").into())
    }

    async fn stage_second(&self, mut tx: Tx, attempt: &Attempt<'_>) -> Result<Staged<Round>, Error> {
        let Attempt { caller, session, claims, proof, at, resolved, linking, .. } = *attempt;
        let (kit, now, tenant) = (&self.kit, tx.now(), &claims.tenant);
        let Alive { mut row, standing } = self.completing(&mut tx, claims).await?;
        if standing.numbers(0) != at.standing.numbers(0) {
            return tx.abandon(Round::Moved);
        }
        let Some(mut user) = user::active(&mut tx, &row.user).await?.filter(|user| *user == at.user) else {
            return tx.abandon(Round::Moved);
        };
        // The policy was asked about this payload, and the link about this owner.
        if row.payload != at.row.payload || owner_now(&mut tx, tenant, resolved).await? != resolved.owner {
            return tx.abandon(Round::Moved);
        }
        if !others::are_same(&mut tx, caller, linking.others.as_ref()).await? {
            return tx.abandon(Round::Moved);
        }
        // For the session as its row is now, and for whose it is now (rows O12, O15).
        let holder = Some((claims.handle.clone(), row.user.clone()));
        if proof.bound.session != holder || proof.bound.tenant != row.tenant {
            return tx.abandon(Round::Done(Outcome::Lost, Vec::new()));
        }
        if !proof.spend.stage(&mut tx).await? {
            return tx.abandon(Round::Done(Outcome::Lost, Vec::new()));
        }
        let linked = match self.stage_link(&mut tx, &mut user, claims, resolved, linking).await? {
            Ok(linked) => linked,
            // They can prove it, and use the code then.
            Err(NotLinked::SessionUserUnverified) => {
                return tx
                    .abandon(Round::Done(Outcome::NotLinked(NotLinked::SessionUserUnverified), Vec::new()));
            }
            Err(not_linked) => {
                // A right code that can't be linked is spent all the same; nothing else changes.
                let event = Event::new(Audited::DestinationRefused, tenant).user(&user.id);
                audit::stage(&mut tx, event.session(&claims.handle).peer(caller.request.peer))?;
                return tx.commit(Round::Done(Outcome::NotLinked(not_linked), Vec::new()));
            }
        };
        let (created, mut changes) = linked;
        if created {
            // A factor was added: every other session of the user ends (row S09).
            self.courier.tell(&mut tx, tenant, &at.person.user, |to| Notice::FactorAdded {
                to,
                factor: proof.factor.clone(),
            })?;
            let (keep, cause) = (Some(&claims.handle), Cause::FactorsChanged);
            changes.push(session::end_of_user(&mut tx, &user.id, keep, cause).await?);
        }
        let numbers = Standing::read(&mut tx, tenant, &user.id).await?.numbers(row.revision);
        let numbers = numbers.ok_or(Error::new(ErrorKind::SessionEnded, "user or tenant are gone"))?;
        let was_half = row.is_half();
        for (key, value) in &attempt.verdicts.claims {
            row.payload.set(key, value.clone());
        }
        let mut claim = MfaClaim::from_payload(&row.payload).unwrap_or_else(|| at.claim.clone());
        // Whatever an app's own check said: never a time that is yet to come (row P12).
        claim.mark(proof.factor.clone(), proof.at.min(now));
        renew_roles(&mut tx, &mut row).await?;
        apply(&mut row, &mut claim, &attempt.verdicts.requirements, numbers, now);
        quota::lift_by_others(&mut tx, &user, &claim.c, &kit.usable, tenant).await?;
        if was_half && !row.is_half() {
            let most = kit.config.max_sessions;
            changes.extend(session::list_as_full(&mut tx, &user.id, &claims.handle, most).await?);
        }
        let from =
            Completing { handle: &claims.handle, user: &user.id, refresh_hash1: &claims.refresh_hash1 };
        let grace = kit.config.lifetimes.refresh_grace;
        let (token, line) = refresh::complete(&row.lineage, &kit.refresh, from, now, grace)?;
        row.lineage = line;
        row.used_at = now;
        let (opened, tokens) = kit.issue(&row, &token, session.opened().method, now)?;
        session::put(&mut tx, &claims.handle, &row).await?;
        Standing::check(&mut tx, tenant, &user.id).await?;
        if attempt.opts_in {
            // After the numbers that the row carries: this session is judged by it like any other one.
            let (_, change) = metadata::edit(&mut tx, &user.id, |list| list.add(None, &proof.factor)).await?;
            if let Some(change) = change {
                changes.push(change);
                let event = Event::new(Audited::OptedIn, tenant).user(&user.id).factor(&proof.factor);
                audit::stage(&mut tx, event.session(&claims.handle))?;
            }
        }
        let what = if created { Audited::FactorLinked } else { Audited::FactorCompleted };
        let event = Event::new(what, tenant).user(&user.id).session(&claims.handle).factor(&proof.factor);
        audit::stage(&mut tx, event.peer(caller.request.peer))?;
        crate::base::failpoint!("otp.consume.before_commit" if proof.spend.is_code());
        crate::base::failpoint!("factor.add.before_commit" if created);
        crate::base::failpoint!("elevate.before_commit");
        let done = Completed { user: user.to_user(), created, met: claim.v, opened, tokens };
        tx.commit(Round::Done(Outcome::Done(Box::new(done)), changes))
    }
}

/// The user as it will be once linked: policies read what is set up then.
fn would_be(
    person: &Person,
    owner: Option<&UserId>,
    resolved: &Resolved,
    claims: &AccessClaims,
    now: Timestamp,
) -> Result<Person, Error> {
    let mut person = person.clone();
    if let (None, Some(new)) = (owner, &resolved.new) {
        person.user.logins.push(user::method(
            now,
            &claims.tenant,
            new,
            crate::base::ident::LoginId::random()?,
        ));
    }
    Ok(person)
}

/// Whose the credential is, as this round reads it.
async fn owner_now(tx: &mut Tx, tenant: &TenantId, resolved: &Resolved) -> Result<Option<Owner>, Error> {
    match (&resolved.new, &resolved.owner) {
        (Some(new), _) => user::owner(tx, tenant, new).await,
        (None, Some(owner)) => tx.get(&keys::login_of(&owner.login)).await,
        (None, None) => Ok(None),
    }
}
