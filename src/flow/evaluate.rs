//! Asks the policy and the claims, and writes what they say into the session.

use std::{future::Future, panic::AssertUnwindSafe, sync::atomic::Ordering, time::Duration};

use futures_util::FutureExt as _;
use serde_json::Value;

use super::{Desk, facts::StoredFacts};
use crate::{
    base::{
        error::{BoxError, Error, ErrorKind},
        ident::{FactorId, SessionHandle, TenantId},
        payload::Payload,
        time::Timestamp,
    },
    claim::{ClaimRef, MfaClaim, Permissions, Roles, SessionClaim as _, Stamped, free_key, mfa},
    model::{
        Tx,
        epoch::{Epochs, Standing},
        keys, role,
        session::{self, SessionRecord},
        tenant::Tenant,
        user::User,
    },
    policy::{
        CompletedFactors, Known, Lazy, MfaPolicy as _, Person, PolicyContext, PolicyError, PolicyErrorKind,
        RequestFacts, Requirements, SessionFacts, list,
    },
    session::{AccessClaims, Opened, refresh, transport::Tokens},
};

/// How long an app's callback may take (row P02).
const PATIENCE: Duration = Duration::from_secs(5);
/// How often requirements may move under an evaluation before it gives up (row P08).
const ROUNDS: usize = 3;

/// What a session looks like to policies and claims.
#[derive(Clone)]
pub(crate) struct Subject<'a> {
    pub(crate) facts: &'a StoredFacts,
    pub(crate) session: SessionFacts,
    pub(crate) completed: &'a CompletedFactors,
    pub(crate) payload: &'a Payload,
    pub(crate) request: Option<RequestFacts>,
    pub(crate) tenant: &'a TenantId,
}

impl Subject<'_> {
    fn context(&self, now: Timestamp) -> PolicyContext<'_> {
        PolicyContext {
            known: Known {
                tenant: self.tenant.clone(),
                completed: self.completed.clone(),
                payload: self.payload.clone(),
                now,
                session: self.session.clone(),
                request: self.request.clone(),
            },
            facts: Lazy::Lent(self.facts),
        }
    }
}

/// What the app says of a session: its requirements, and claims by key.
pub(crate) struct Verdicts {
    pub(crate) requirements: Requirements,
    pub(crate) claims: Vec<(&'static str, Value)>,
}

impl Desk {
    /// Asks the policy; what fails, hangs or panics fails the request (rows P01 to P03, P10). Where
    /// something is open, what the user has set up is read too: it decides what they are told to do next.
    pub(crate) async fn requirements(&self, subject: &Subject<'_>) -> Result<Requirements, Error> {
        self.demanded(subject).await.inspect_err(|error| tell(error, &subject.session, subject.tenant))
    }

    async fn demanded(&self, subject: &Subject<'_>) -> Result<Requirements, Error> {
        let ctx = subject.context(self.kit.db.now());
        crate::base::failpoint!("policy.eval.start");
        let requirements = guarded(self.policy.requirements(&ctx)).await?;
        crate::base::failpoint!("policy.eval.end");
        // What was stored while it was known stays a demand, one that can't be met (row P11).
        let knows = |factor: &FactorId| self.factors.knows(factor) || subject.facts.names(factor);
        if list::unknown(&requirements, knows).is_some() {
            return Err(Error::unavailable("the policy names a factor that nobody knows"));
        }
        let usable = &self.kit.usable;
        let mut requirements = requirements.among(usable.iter().cloned());
        if let Some(grace) = subject.facts.grace() {
            requirements = requirements.with_grace(grace.clone());
        }
        // A tenant's list of what counts matters only where something is asked.
        if !requirements.demands_nothing() {
            let rule = subject.facts.rule().await.map_err(|e| translate(e.into()))?;
            if let Some(counting) = &rule.counting {
                requirements = requirements.counting(counting);
            }
        }
        if let Some(shadow) = &self.shadow {
            shadow.compare(&requirements, &ctx, subject.facts, usable, knows).await;
        }
        let Some(next) = requirements.next_set(subject.completed, ctx.now()) else {
            return Ok(requirements);
        };
        if next.is_impossible() && !self.told_impossible.swap(true, Ordering::Relaxed) {
            #[cfg(feature = "tracing")]
            tracing::error!(
                demand = %requirements.explain(subject.completed, ctx.now()),
                "a session must complete factors that nobody here can complete: check the policy"
            );
        }
        let set_up = ctx.factors_set_up().await.map_err(|e| translate(e.into()))?;
        Ok(requirements.for_user_with(set_up))
    }

    /// What the app says of a session: the claims first, for a policy may read them in the payload.
    pub(super) async fn verdicts(
        &self,
        claims: &[ClaimRef],
        subject: &Subject<'_>,
    ) -> Result<Verdicts, Error> {
        let claims = self.fetch(claims, subject).await?;
        let mut payload = subject.payload.clone();
        for (key, value) in &claims {
            payload.set(key, value.clone());
        }
        let requirements = self.requirements(&Subject { payload: &payload, ..subject.clone() }).await?;
        Ok(Verdicts { requirements, claims })
    }

    /// Fetches claims.
    async fn fetch(
        &self,
        claims: &[ClaimRef],
        subject: &Subject<'_>,
    ) -> Result<Vec<(&'static str, Value)>, Error> {
        let ctx = subject.context(self.kit.db.now());
        let mut fetched = Vec::with_capacity(claims.len());
        for claim in claims.iter().filter(|claim| claim.key() != mfa::KEY) {
            free_key(claim.key())
                .map_err(|_| Error::internal("a claim has a key that is the crate's own"))?;
            crate::base::failpoint!("claim.fetch");
            let value = guarded(claim.fetch(&ctx)).await;
            if let Some(value) = value.inspect_err(|error| tell(error, &subject.session, subject.tenant))? {
                fetched.push((claim.key(), value));
            }
        }
        Ok(fetched)
    }

    /// Facts about the user of a session.
    pub(crate) fn facts(&self, row: &SessionRecord, person: Option<Person>) -> StoredFacts {
        StoredFacts::new(self, &row.user, &row.tenant, person)
    }

    /// The claim as the row has it, or derived from the login method that made the session (row P04).
    pub(crate) async fn claim_of(&self, row: &SessionRecord) -> Result<MfaClaim, Error> {
        if let Some(claim) = MfaClaim::from_payload(&row.payload) {
            return Ok(claim);
        }
        let ended = || Error::new(ErrorKind::SessionEnded, "the session's first factor can't be told");
        let user: User = self.kit.db.get(&keys::user(&row.user)).await?.ok_or_else(ended)?;
        let tenant: Tenant = self.kit.db.get(&keys::tenant(&row.tenant)).await?.ok_or_else(ended)?;
        MfaClaim::derive(&user, &row.login, &self.first_factors(&tenant), row.created_at).ok_or_else(ended)
    }

    /// Reads a session's row, judges again what was called in, and mints a token if that changed
    /// anything. `refetch` are claims wanted anew; `anew` asks the policy whatever the numbers say.
    ///
    /// # Errors
    /// `SessionEnded`, `StaleToken`, or why an answer can't be had.
    pub(crate) async fn reassess(
        &self,
        opened: &Opened,
        refetch: &[ClaimRef],
        anew: bool,
        request: &RequestFacts,
    ) -> Result<(Opened, Option<Tokens>, Requirements), Error> {
        for _ in 0..ROUNDS {
            let claims = &opened.claims;
            let (row, standing) = self.look(claims).await?;
            let now = self.kit.db.now();
            let due = row.ask_at.is_some_and(|at| at <= now) || standing.outdates(&row.epochs);
            let current = row.payload == claims.payload && row.numbers() == claims.epochs;
            if !anew && !due && refetch.is_empty() && current {
                return Ok((opened.clone(), None, Requirements::none()));
            }
            let claim = self.claim_of(&row).await?;
            let facts = self.facts(&row, None);
            let subject = Subject {
                facts: &facts,
                session: session_facts(&claims.handle, &row, &claim),
                completed: &claim.c,
                payload: &row.payload,
                request: Some(request.clone()),
                tenant: &row.tenant,
            };
            let verdicts = self.verdicts(refetch, &subject).await?;
            if let Some((opened, tokens)) = self.settle(opened, &row, &standing, &claim, &verdicts).await? {
                return Ok((opened, tokens, verdicts.requirements));
            }
        }
        Err(Error::unavailable("what is required kept changing"))
    }

    /// Reads the row for somebody who holds an access token of the session's line (row R20).
    async fn look(&self, claims: &AccessClaims) -> Result<(SessionRecord, Standing), Error> {
        self.kit
            .db
            .transact(&claims.handle, |mut tx| async move {
                let alive = self.kit.alive(&mut tx, &claims.handle).await?;
                if !refresh::on_line(&alive.row.lineage, &claims.refresh_hash1) {
                    return Err(Error::new(ErrorKind::StaleToken, "the access token is of a dead branch"));
                }
                tx.abandon((alive.row, alive.standing))
            })
            .await
    }

    /// Writes what was found out, if user and tenant still stand as they did; `None` if they moved.
    async fn settle(
        &self,
        opened: &Opened,
        seen: &SessionRecord,
        before: &Standing,
        derived: &MfaClaim,
        verdicts: &Verdicts,
    ) -> Result<Option<(Opened, Option<Tokens>)>, Error> {
        let (kit, claims) = (&self.kit, &opened.claims);
        kit.db
            .transact(&claims.handle, |mut tx| async move {
                let alive = kit.held(&mut tx, claims).await?;
                let mut row = alive.row;
                // The policy was asked about this payload.
                if row.payload != seen.payload {
                    return tx.abandon(None);
                }
                let numbers = alive.standing.numbers(row.revision);
                let Some(numbers) = numbers.filter(|_| before.numbers(row.revision) == numbers) else {
                    return tx.abandon(None);
                };
                let was = row.clone();
                for (key, value) in &verdicts.claims {
                    row.payload.set(key, value.clone());
                }
                let mut claim = MfaClaim::from_payload(&row.payload).unwrap_or_else(|| derived.clone());
                renew_roles(&mut tx, &mut row).await?;
                apply(&mut row, &mut claim, &verdicts.requirements, numbers, tx.now());
                let same_row = was.payload == row.payload
                    && was.epochs == row.epochs
                    && was.ask_at == row.ask_at
                    && was.lineage.half_until == row.lineage.half_until;
                let same_token = row.payload == claims.payload && row.numbers() == claims.epochs;
                if same_row && same_token {
                    return tx.abandon(Some((opened.clone(), None, Vec::new())));
                }
                Standing::check(&mut tx, &row.tenant, &row.user).await?;
                let mut ended = Vec::new();
                if was.is_half() && !row.is_half() {
                    let most = kit.config.max_sessions;
                    ended = session::list_as_full(&mut tx, &row.user, &claims.handle, most).await?;
                }
                let staged = kit.stage_renewed(tx, opened, &row).await?;
                Ok(staged.map(|(opened, tokens)| Some((opened, Some(tokens), ended))))
            })
            .await
            .map(|settled| {
                settled.map(|(opened, tokens, ended)| {
                    kit.learn(&ended);
                    (opened, tokens)
                })
            })
    }
}

/// Evaluates a claim and writes it into a row, with the numbers at which that was done. A session that
/// meets its requirements once is half no more; a later `false` blocks routes but ends nothing.
pub(crate) fn apply(
    row: &mut SessionRecord,
    claim: &mut MfaClaim,
    requirements: &Requirements,
    numbers: Epochs,
    now: Timestamp,
) {
    claim.evaluate(requirements, now);
    claim.write(&mut row.payload, requirements, now);
    row.epochs = Epochs { session: row.epochs.session, ..numbers };
    row.ask_at = requirements.holds_until(&claim.c, now);
    if claim.v {
        row.lineage.half_until = None;
    }
}

/// Keeps `st-role` and `st-perm`, where they are there, true for a row that catches up with what happened to its
/// user: from then on nothing would say that it is old, and a role that was taken away would go on.
pub(super) async fn renew_roles(tx: &mut Tx, row: &mut SessionRecord) -> Result<(), Error> {
    let has = |key: &str| row.payload.member(key).is_some();
    let (roles, permissions) = (has(Roles::KEY), has(Permissions::KEY));
    if !roles && !permissions {
        return Ok(());
    }
    let held: role::Roles = tx.get(&keys::role(&row.tenant, &row.user)).await?.unwrap_or_default();
    if permissions {
        let allowed = role::permissions_of(tx, &held.roles).await?;
        renew(row, Permissions::KEY, &allowed, tx.now())?;
    }
    if roles {
        renew(row, Roles::KEY, &held.roles, tx.now())?;
    }
    Ok(())
}

fn renew(row: &mut SessionRecord, key: &str, held: &[impl ToString], now: Timestamp) -> Result<(), Error> {
    let said = row.payload.member(key).and_then(Stamped::<Vec<String>>::read).map(|stamped| stamped.v);
    let held: Vec<String> = held.iter().map(ToString::to_string).collect();
    if said.as_ref() != Some(&held) {
        row.payload.set(key, Stamped { v: held, t: now }.write()?);
    }
    Ok(())
}

pub(crate) fn session_facts(handle: &SessionHandle, row: &SessionRecord, claim: &MfaClaim) -> SessionFacts {
    SessionFacts {
        handle: handle.clone(),
        user: row.user.clone(),
        login: row.login.clone(),
        created_at: row.created_at,
        first_factor: claim.c.first().cloned(),
    }
}

/// An evaluation failed: a line of its own, with an id and whose it was (row P01). What the caller is answered
/// says none of it.
fn tell(error: &Error, session: &SessionFacts, tenant: &TenantId) {
    if error.kind() != ErrorKind::SessionEnded {
        #[cfg(feature = "tracing")]
        tracing::error!(
            %error,
            id = crate::base::random::uuid().unwrap_or_default(),
            session = %session.handle,
            user = %session.user,
            %tenant,
            "what a session must have can't be told: it gets nothing"
        );
    }
    #[cfg(not(feature = "tracing"))]
    let _ = (session, tenant);
}

/// Runs an app's callback: bounded, panic-proof, and with its failure told apart.
pub(super) async fn guarded<T>(callback: impl Future<Output = Result<T, PolicyError>>) -> Result<T, Error> {
    bounded(callback, PATIENCE).await
}

pub(super) async fn bounded<T>(
    callback: impl Future<Output = Result<T, PolicyError>>,
    patience: Duration,
) -> Result<T, Error> {
    let caught = AssertUnwindSafe(callback).catch_unwind();
    match tokio::time::timeout(patience, caught).await {
        Err(_) => Err(Error::unavailable("a callback of the app took too long")),
        Ok(Err(_)) => Err(Error::internal("a callback of the app panicked")),
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(error))) => Err(translate(error)),
    }
}

fn translate(error: PolicyError) -> Error {
    let (kind, source): (PolicyErrorKind, BoxError) = error.into_parts();
    match kind {
        PolicyErrorKind::Unauthorised => {
            Error::with(ErrorKind::SessionEnded, "user or tenant are gone", source)
        }
        PolicyErrorKind::Unavailable => {
            Error::with(ErrorKind::Unavailable, "a policy or claim failed", source)
        }
        PolicyErrorKind::Misconfigured => {
            Error::with(ErrorKind::Internal, "a policy or claim is wrong", source)
        }
    }
}
