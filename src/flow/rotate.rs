//! Refresh: open, decide, evaluate, sign, then one batch: the rotation, or the end of the session.

use std::{
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use super::{
    Desk,
    evaluate::{Subject, apply, renew_roles, session_facts},
};
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::{SessionHandle, TenantId, UserId},
    },
    claim::MfaClaim,
    hooks::{Happened, TokenTheft},
    model::{
        Seen, Staged, Tx,
        audit::{self, Audited, Cause, Event},
        change::Change,
        epoch::{Epochs, Standing},
        keys,
        session::{self, SessionRecord},
    },
    policy::{RequestFacts, Requirements},
    session::{
        SessionDenied,
        cookies::TransferMethod,
        refresh::{self, End, Refresh, RefreshToken, Reuse},
        transport::Tokens,
    },
};

/// What a refresh came to.
#[derive(Debug)]
pub(crate) enum Refreshed {
    Tokens(Box<Tokens>),
    /// An elevation made another token, which is on its way: 409.
    Superseded,
    /// It is over; the client's tokens go.
    Denied(SessionDenied),
}

enum Round {
    Done(Refreshed, Vec<Change>),
    /// A token was used by two, and it is written that the session is over.
    Stolen(Box<Stolen>, Vec<Change>),
    /// The policy must be asked first.
    Evaluate(Box<SessionRecord>, Standing, Seen),
}

/// What the app is told of a theft.
struct Stolen {
    user: UserId,
    tenant: TenantId,
    token: Cause,
    age: Duration,
}

/// What the app said of a row, and which row and numbers it was asked about.
struct Evaluated {
    row: SessionRecord,
    standing: Standing,
    claim: MfaClaim,
    requirements: Requirements,
}

/// How often the policy is asked before it is given up (row P08).
const ROUNDS: usize = 3;

impl Desk {
    /// Refreshes by tokens of one session, all of them ours by their MAC.
    pub(crate) async fn refresh(
        &self,
        tokens: &[RefreshToken],
        method: TransferMethod,
        request: &RequestFacts,
    ) -> Result<Refreshed, Error> {
        let Some(handle) = tokens.first().map(RefreshToken::handle) else {
            return Ok(Refreshed::Denied(SessionDenied::Unauthorised));
        };
        let mut verdict: Option<Evaluated> = None;
        // What the policy was asked about is written down as it was read; who loses that race reads anew.
        let seen: Mutex<Option<Seen>> = Mutex::default();
        let seen = &seen;
        for asked in 0..=ROUNDS {
            let evaluated = verdict.as_ref();
            let round = self
                .kit
                .db
                .transact(handle, |mut tx| async move {
                    if let Some(seen) = seen.lock().unwrap_or_else(PoisonError::into_inner).take() {
                        tx.go_on(seen);
                    }
                    self.stage_refresh(tx, handle, tokens, method, request, evaluated).await
                })
                .await?;
            match round {
                Round::Done(refreshed, changes) => {
                    crate::base::failpoint!("refresh.after_commit_before_response");
                    self.kit.learn(&changes);
                    return Ok(refreshed);
                }
                Round::Stolen(stolen, changes) => {
                    self.kit.learn(&changes);
                    let Stolen { user, tenant, token, age } = &*stolen;
                    let (token, age, peer) = (*token, *age, request.peer);
                    let theft = TokenTheft { user, tenant, session: handle, peer, token, age };
                    self.hooks.tell(&[Happened::TokenTheft(theft)], &self.kit.db.trail.counts).await;
                    return Ok(Refreshed::Denied(SessionDenied::Theft));
                }
                Round::Evaluate(..) if asked == ROUNDS => break,
                Round::Evaluate(row, standing, read) => {
                    match self.evaluate_row(handle, &row, request).await {
                        Ok((claim, requirements)) => {
                            verdict = Some(Evaluated { row: *row, standing, claim, requirements });
                            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
                        }
                        // User or tenant are gone: the session with them (row R14).
                        Err(error) if error.kind() == ErrorKind::SessionEnded => {
                            self.kit.revoke(handle).await?;
                            return Ok(Refreshed::Denied(SessionDenied::Unauthorised));
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Err(Error::unavailable("what is required kept changing"))
    }

    async fn evaluate_row(
        &self,
        handle: &SessionHandle,
        row: &SessionRecord,
        request: &RequestFacts,
    ) -> Result<(MfaClaim, Requirements), Error> {
        let claim = self.claim_of(row).await?;
        let facts = self.facts(row, None);
        let requirements = self
            .requirements(&Subject {
                facts: &facts,
                session: session_facts(handle, row, &claim),
                completed: &claim.c,
                payload: &row.payload,
                request: Some(request.clone()),
                tenant: &row.tenant,
            })
            .await?;
        Ok((claim, requirements))
    }

    async fn stage_refresh(
        &self,
        mut tx: Tx,
        handle: &SessionHandle,
        tokens: &[RefreshToken],
        method: TransferMethod,
        request: &RequestFacts,
        evaluated: Option<&Evaluated>,
    ) -> Result<Staged<Round>, Error> {
        let (kit, now) = (&self.kit, tx.now());
        let over = |denied| Round::Done(Refreshed::Denied(denied), Vec::new());
        let Some(mut row) = tx.get::<SessionRecord>(&keys::session(handle)).await? else {
            return tx.abandon(over(SessionDenied::Unauthorised));
        };
        crate::base::failpoint!("refresh.after_lock");
        let standing = Standing::read(&mut tx, &row.tenant, &row.user).await?;
        let grace = kit.config.lifetimes.refresh_grace;
        let dead = standing.revokes(&row.epochs);
        let Some((token, decision)) = refresh::decide_any(&row.lineage, dead, tokens, now, grace) else {
            return tx.abandon(over(SessionDenied::Unauthorised));
        };
        match decision {
            Refresh::Superseded => tx.abandon(Round::Done(Refreshed::Superseded, Vec::new())),
            Refresh::Ended(End::PreElevation) => {
                let event = Event::new(Audited::PreElevationReuse, &row.tenant).peer(request.peer);
                self.stage_over(tx, handle, &row, event, SessionDenied::Unauthorised).await
            }
            Refresh::Ended(_) => {
                let event = Event::new(Audited::SessionRevoked, &row.tenant).cause(Cause::Over);
                self.stage_over(tx, handle, &row, event, SessionDenied::Unauthorised).await
            }
            Refresh::Theft(reuse) => {
                crate::base::failpoint!("refresh.reuse_detected");
                let rotated = row.lineage.previous.as_ref().map(|previous| previous.rotated_at);
                let age = rotated.map_or(Duration::ZERO, |at| now.since(at));
                let token = match reuse {
                    Reuse::Recent => Cause::Recent,
                    Reuse::Older => Cause::Older,
                };
                let event = Event::new(Audited::RefreshReuse, &row.tenant).cause(token).age(age);
                let event = event.peer(request.peer);
                let staged = self.stage_over(tx, handle, &row, event, SessionDenied::Theft).await?;
                let stolen = Stolen { user: row.user, tenant: row.tenant, token, age };
                Ok(staged.map(|round| match round {
                    Round::Done(_, changes) => Round::Stolen(Box::new(stolen), changes),
                    other => other,
                }))
            }
            Refresh::Replay => {
                let next = refresh::replay(&row.lineage, &kit.refresh, token)?;
                let (_, tokens) = kit.issue(&row, &next, method, now)?;
                kit.grace_hits.fetch_add(1, Ordering::Relaxed);
                tx.abandon(Round::Done(Refreshed::Tokens(Box::new(tokens)), Vec::new()))
            }
            Refresh::Rotate => {
                let numbers = standing.numbers(row.revision).unwrap_or_default();
                let fresh = evaluated.filter(|evaluated| {
                    evaluated.standing.numbers(row.revision) == Some(numbers)
                        && evaluated.row.payload == row.payload
                });
                // At every refresh, whatever the numbers say: an app's own rule may have changed without them, and is
                // out of date for an access token's life at most (row P06).
                let Some(evaluated) = fresh else {
                    let seen = tx.seen();
                    return tx.abandon(Round::Evaluate(Box::new(row), standing, seen));
                };
                let changes = self.stage_evaluated(&mut tx, handle, &mut row, evaluated, numbers).await?;
                let slides = now + kit.config.lifetimes.refresh_token;
                let (next, line) = refresh::rotate(&row.lineage, &kit.refresh, token, now, slides)?;
                row.lineage = line;
                row.used_at = now;
                let (_, tokens) = kit.issue(&row, &next, method, now)?;
                session::put(&mut tx, handle, &row).await?;
                Standing::check(&mut tx, &row.tenant, &row.user).await?;
                let event = Event::new(Audited::Refreshed, &row.tenant).user(&row.user).session(handle);
                audit::stage(&mut tx, event.peer(request.peer))?;
                crate::base::failpoint!("refresh.before_commit");
                tx.commit(Round::Done(Refreshed::Tokens(Box::new(tokens)), changes))
            }
        }
    }

    /// Brings a row up to date with what the app said of it. A session that has all its factors from now on
    /// may end an older one: the changes say which.
    async fn stage_evaluated(
        &self,
        tx: &mut Tx,
        handle: &SessionHandle,
        row: &mut SessionRecord,
        evaluated: &Evaluated,
        numbers: Epochs,
    ) -> Result<Vec<Change>, Error> {
        let (was_half, now) = (row.is_half(), tx.now());
        let mut claim = MfaClaim::from_payload(&row.payload).unwrap_or_else(|| evaluated.claim.clone());
        renew_roles(tx, row).await?;
        apply(row, &mut claim, &evaluated.requirements, numbers, now);
        if was_half && !row.is_half() {
            return session::list_as_full(tx, &row.user, handle, self.kit.config.max_sessions).await;
        }
        Ok(Vec::new())
    }

    /// Stages that the session is over, in the batch that found out (row R09).
    async fn stage_over(
        &self,
        mut tx: Tx,
        handle: &SessionHandle,
        row: &SessionRecord,
        event: Event,
        denied: SessionDenied,
    ) -> Result<Staged<Round>, Error> {
        let mut changes = vec![session::end(&mut tx, handle, row, event).await?];
        if denied == SessionDenied::Theft && self.kit.config.revoke_all_on_theft {
            changes.push(session::end_of_user(&mut tx, &row.user, None, Cause::Theft).await?);
        }
        tx.commit(Round::Done(Refreshed::Denied(denied), changes))
    }
}

#[cfg(test)]
mod tests;
