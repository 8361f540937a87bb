//! A factor was proved within a session: one batch with the credential spent, the login linked, `c` and
//! `v`, a new refresh token, and the audit (design, part 5, "The completion of a second factor").

use super::{
    Caller, Desk, Refusal,
    admit::{self, Admission, NotAdmitted, Second},
    complete::{Completed, Outcome, ROUNDS, Resolved, Round, named},
    evaluate::{Subject, apply, guarded, renew_roles, session_facts},
    facts::StoredFacts,
    link::{self, Claimants, LinkPlan, NotLinked},
};
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::{FactorId, TenantId, UserId},
        time::Timestamp,
    },
    claim::MfaClaim,
    factor::{Credential, Proof},
    model::{
        Staged, Tx,
        audit::{self, Event, What},
        change::Change,
        epoch::Standing,
        keys,
        session::{self, SessionRecord},
        user::{self, NewLogin, Owner, User},
    },
    policy::{Link, LinkContext, NewAccount, Requirements},
    session::{
        AccessClaims, Session,
        refresh::{self, Completing, Elevation},
    },
};

/// A session as a second factor's steps see it: read anew, never taken from the token.
pub(crate) struct Standpoint {
    pub(crate) row: SessionRecord,
    pub(crate) standing: Standing,
    pub(crate) user: User,
    /// Evaluated just now.
    pub(crate) claim: MfaClaim,
    pub(crate) requirements: Requirements,
    pub(crate) next: Vec<FactorId>,
    pub(crate) set_up: Vec<FactorId>,
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
                let alive = self.kit.alive(&mut tx, &claims.handle).await?;
                let (row, standing) = (alive.row, alive.standing);
                if refresh::elevation(&row.lineage, &claims.refresh_hash1, tx.now()) == Elevation::Stale {
                    return Err(Error::new(
                        ErrorKind::StaleToken,
                        "the access token is of an earlier refresh token",
                    ));
                }
                let gone = Error::new(ErrorKind::SessionEnded, "the session's user is gone");
                let user = user::load(&mut tx, &row.user).await?.ok_or(gone)?;
                tx.abandon((row, standing, user))
            })
            .await?;
        let mut claim = self.claim_of(&row).await?;
        let requirements = self.asked(caller, claims, &row, &user, &claim).await?;
        let now = self.kit.db.now();
        claim.evaluate(&requirements, now);
        let next = requirements.next_set(&claim.c, now).map(|next| next.factors).unwrap_or_default();
        let set_up = self.factors.bound((&user).into());
        Ok(Standpoint { row, standing, user, claim, requirements, next, set_up })
    }

    /// Asks the policy about a session.
    async fn asked(
        &self,
        caller: &Caller,
        claims: &AccessClaims,
        row: &SessionRecord,
        user: &User,
        claim: &MfaClaim,
    ) -> Result<Requirements, Error> {
        let facts = StoredFacts::new(&self.kit.db, &self.factors, &row.user, &row.tenant, Some(user.clone()));
        self.requirements(&Subject {
            facts: &facts,
            session: session_facts(claims, row, claim),
            completed: &claim.c,
            payload: &row.payload,
            request: Some(caller.request.clone()),
            tenant: &row.tenant,
        })
        .await
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
        admit::second(&attempt).map_err(|refused| match refused {
            NotAdmitted::SetUp(reason) => Refusal::mfa(reason),
            NotAdmitted::OtherDestination => Refusal::mfa(crate::policy::SetUpRefused::UseWhatIsSetUp),
            NotAdmitted::StepUp => Refusal::mfa("step_up_required"),
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
            let resolved = self.resolve(&claims.tenant, &proof.credential).await?;
            if resolved.fresh && resolved.owner.is_some() {
                return Ok(Outcome::Taken);
            }
            let owner = match &proof.credential {
                Credential::Session => Some(at.user.id.clone()),
                _ => self.owner_for(&at.user, &resolved),
            };
            // Not only at the start: what was allowed then may be no longer (rows F01, O15).
            self.admit_second(&at, &proof.factor, owner.as_ref())?;
            let linking = self.linking(caller, &at.user, &resolved).await?;
            let mut after = at.claim.clone();
            after.mark(proof.factor.clone(), proof.at);
            let will_be = would_be(&at.user, owner.as_ref(), &resolved, &claims, self.kit.db.now())?;
            let requirements = self.asked(caller, &claims, &at.row, &will_be, &after).await?;
            let (at, resolved, requirements, proof_ref, claims_ref) =
                (&at, &resolved, &requirements, &proof, &*claims);
            let round = self
                .kit
                .db
                .transact(&claims.handle, |tx| async move {
                    self.stage_second(tx, session, claims_ref, proof_ref, at, resolved, linking, requirements)
                        .await
                })
                .await?;
            if let Round::Done(outcome, changes) = round {
                self.kit.learn(&changes);
                return Ok(outcome);
            }
        }
        Err(Error::unavailable("what is required kept changing").into())
    }

    /// Whose the credential is. A contact that the session's user proved in another tenant is theirs here
    /// as well (`spec/mfa.md` §13.4).
    fn owner_for(&self, user: &User, resolved: &Resolved) -> Option<UserId> {
        let elsewhere = resolved.new.as_ref().is_some_and(|new| has_name(user, new));
        let owner = resolved.owner.as_ref().map(|owner| owner.user.clone());
        owner.or_else(|| elsewhere.then(|| user.id.clone()))
    }

    async fn linking(&self, caller: &Caller, user: &User, resolved: &Resolved) -> Result<Link, Error> {
        let Some(new) = &resolved.new else { return Ok(Link::Yes) };
        let account = NewAccount {
            kind: new.kind,
            email: new.email.clone(),
            phone: new.phone.clone(),
            verified: new.verified,
        };
        let ctx = LinkContext {
            tenant: &caller.tenant,
            session_user: Some(user),
            account: &account,
            owner: resolved.owner.as_ref().map(|owner| &owner.user),
        };
        guarded(self.linking.ask(&ctx)).await
    }

    #[allow(clippy::too_many_arguments, reason = "the values of one round, each of its own type")]
    async fn stage_second(
        &self,
        mut tx: Tx,
        session: &Session,
        claims: &AccessClaims,
        proof: &Proof,
        at: &Standpoint,
        resolved: &Resolved,
        linking: Link,
        requirements: &Requirements,
    ) -> Result<Staged<Round>, Error> {
        let (kit, now, tenant) = (&self.kit, tx.now(), &claims.tenant);
        let alive = kit.alive(&mut tx, &claims.handle).await?;
        let mut row = alive.row;
        if refresh::elevation(&row.lineage, &claims.refresh_hash1, now) == Elevation::Stale {
            return Err(Error::new(ErrorKind::StaleToken, "the access token is of an earlier refresh token"));
        }
        if alive.standing.numbers(0) != at.standing.numbers(0) {
            return tx.abandon(Round::Moved);
        }
        let Some(mut user) = user::load(&mut tx, &row.user).await?.filter(|user| *user == at.user) else {
            return tx.abandon(Round::Moved);
        };
        // The policy was asked about this payload, and the link about this owner.
        if row.payload != at.row.payload || owner_now(&mut tx, tenant, resolved).await? != resolved.owner {
            return tx.abandon(Round::Moved);
        }
        if !proof.spend.stage(&mut tx).await? {
            return tx.abandon(Round::Done(Outcome::Lost, Vec::new()));
        }
        let linked = match self.stage_link(&mut tx, &mut user, claims, resolved, linking).await? {
            Ok(linked) => linked,
            Err(not_linked) => {
                // A right code that can't be linked is spent all the same; nothing else changes.
                audit::stage(
                    &mut tx,
                    Event::new(What::DestinationRefused, tenant).user(&user.id).session(&claims.handle),
                )?;
                return tx.commit(Round::Done(Outcome::NotLinked(not_linked), Vec::new()));
            }
        };
        let (created, mut changes) = linked;
        if created {
            // A factor was added: every other session of the user ends (row S09).
            changes.push(session::end_of_user(&mut tx, &user.id, Some(&claims.handle)).await?);
        }
        let numbers = Standing::read(&mut tx, tenant, &user.id).await?.numbers(row.revision);
        let numbers = numbers.ok_or(Error::new(ErrorKind::SessionEnded, "user or tenant are gone"))?;
        let was_half = row.is_half();
        let mut claim = MfaClaim::from_payload(&row.payload).unwrap_or_else(|| at.claim.clone());
        // Whatever an app's own check said: never a time that is yet to come (row P12).
        claim.mark(proof.factor.clone(), proof.at.min(now));
        renew_roles(&mut tx, &mut row).await?;
        apply(&mut row, &mut claim, requirements, numbers, now);
        if was_half && !row.is_half() {
            let most = kit.config.max_sessions;
            changes.extend(session::list_as_full(&mut tx, &user.id, &claims.handle, most).await?);
        }
        let by = Completing { handle: &claims.handle, user: &user.id, refresh_hash1: &claims.refresh_hash1 };
        let grace = kit.config.lifetimes.refresh_grace;
        let (token, line) = refresh::complete(&row.lineage, &kit.refresh, by, now, grace)?;
        row.lineage = line;
        row.used_at = now;
        let (_opened, tokens) = kit.issue(&row, &token, session.opened().method, now)?;
        session::put(&mut tx, &claims.handle, &row).await?;
        Standing::check(&mut tx, tenant, &user.id).await?;
        let what = if created { What::FactorLinked } else { What::FactorCompleted };
        let event = Event::new(what, tenant).user(&user.id).session(&claims.handle).factor(&proof.factor);
        audit::stage(&mut tx, event)?;
        let done = Completed { user, created, tokens };
        tx.commit(Round::Done(Outcome::Done(Box::new(done)), changes))
    }

    /// Stages what the plan says about login methods. Says whether one was added.
    async fn stage_link(
        &self,
        tx: &mut Tx,
        user: &mut User,
        claims: &AccessClaims,
        resolved: &Resolved,
        linking: Link,
    ) -> Result<Result<(bool, Vec<Change>), NotLinked>, Error> {
        let tenant = &claims.tenant;
        let owner = &resolved.owner;
        let other = match owner.as_ref().filter(|owner| owner.user != user.id) {
            Some(owner) => user::load(tx, &owner.user).await?,
            None => None,
        };
        let new = match (&resolved.new, &other, owner) {
            (Some(new), ..) => Some(new.clone()),
            (None, Some(other), Some(owner)) => named(other, &owner.login),
            _ => None,
        };
        let Some(new) = new else { return Ok(Ok((false, Vec::new()))) };
        if owner.is_none() && has_name(user, &new) {
            // Proved in another tenant: from now on it counts here as well.
            if user::is_taken_in(tx, user, tenant).await? {
                return Ok(Err(NotLinked::ContactTaken));
            }
            user::add_to_tenant(tx, user, tenant).await?;
            return Ok(Ok((false, Vec::new())));
        }
        let contact_of = user::primary_of(tx, tenant, &new).await?;
        let session_contact_of = self.blocked_by(tx, user, tenant).await?;
        let owned =
            owner.as_ref().map(|owner| (&owner.user, other.as_ref().is_some_and(|other| other.primary)));
        let plan = link::decide(&Claimants {
            session_user: &user.id,
            session_user_primary: user.primary,
            session_contact_of: session_contact_of.as_ref(),
            owner: owned,
            contact_of: contact_of.as_ref(),
            verified: new.verified,
            answer: linking,
        });
        match (plan, other) {
            (Err(not_linked), _) => Ok(Err(not_linked)),
            (Ok(LinkPlan::Keep), _) => Ok(Ok((false, Vec::new()))),
            (Ok(LinkPlan::Absorb), Some(other)) => Ok(Ok((true, user::absorb(tx, user, other).await?))),
            (Ok(LinkPlan::Add | LinkPlan::Absorb), _) => {
                user::add_login(tx, tenant, user, &new).await?;
                Ok(Ok((true, Vec::new())))
            }
        }
    }

    /// The primary user of one of the user's own contacts, if that is somebody else.
    pub(super) async fn blocked_by(
        &self,
        tx: &mut Tx,
        user: &User,
        tenant: &TenantId,
    ) -> Result<Option<UserId>, Error> {
        for login in user.logins.iter().filter(|_| !user.primary) {
            let owner = user::primary_of(tx, tenant, &NewLogin::from(login)).await?;
            if let Some(other) = owner.filter(|owner| *owner != user.id) {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }
}

/// The user as it will be once linked: policies read what is set up then.
fn would_be(
    user: &User,
    owner: Option<&UserId>,
    resolved: &Resolved,
    claims: &AccessClaims,
    now: Timestamp,
) -> Result<User, Error> {
    let mut user = user.clone();
    if let (None, Some(new)) = (owner, &resolved.new) {
        user.logins.push(user::method(now, &claims.tenant, new, crate::base::ident::LoginId::random()?));
    }
    Ok(user)
}

/// Whose the credential is, as this round reads it.
async fn owner_now(tx: &mut Tx, tenant: &TenantId, resolved: &Resolved) -> Result<Option<Owner>, Error> {
    match (&resolved.new, &resolved.owner) {
        (Some(new), _) => user::owner(tx, tenant, new).await,
        (None, Some(owner)) => tx.get(&keys::login_of(&owner.login)).await,
        (None, None) => Ok(None),
    }
}

/// Whether one of the user's login methods has this name, in whatever tenant.
fn has_name(user: &User, new: &NewLogin) -> bool {
    let tenant = TenantId::PUBLIC;
    user.logins.iter().any(|login| NewLogin::from(login).key(&tenant) == new.key(&tenant))
}
