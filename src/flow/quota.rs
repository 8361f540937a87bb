//! How many messages may be sent, to whom, by whom, from where (rows O27, O28); and whose wrong guesses count
//! together, and what lifts a block (rows O06, O34). Quotas of other things are taken here as well.

use std::{collections::BTreeSet, time::Duration};

#[cfg(feature = "phone")]
use super::toll::Toll;
use super::{Caller, Desk, Refusal};
use crate::{
    base::{
        contact::Contact,
        error::Error,
        ident::{FactorId, TenantId},
        random,
        time::Timestamp,
    },
    config::SendLimits,
    factor,
    model::{
        Tx,
        audit::{self, Audited, Event},
        code::Code,
        keys,
        limit::{Budget, Exhausted, Quota, RetryAfter, Window},
        tally::{self, Tally},
        user::User,
    },
    policy::CompletedFactors,
    store::Key,
};

/// How long a budget of guesses is kept after the last one.
const BUDGET_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Whether a send may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Send {
    Yes,
    /// Too many to that destination: answered and stored as if it had, for callers without a session (rows O24,
    /// O27).
    Silent,
    /// The caller asks too often: answered likewise, and nothing is stored, so that nobody fills the store (row
    /// K05). It tells nothing about the destination.
    Unkept,
    /// Too much waits to be sent: answered likewise, and stored as what is never delivered (row V10).
    Undeliverable,
    TooMany(RetryAfter),
}

/// A record of grants, and what they must keep to.
pub(super) type Asked = (Key, Vec<Quota>);

impl Desk {
    /// Takes one of each, or none, in a batch of its own.
    pub(super) async fn take_all(&self, subject: &str, asked: &[Asked]) -> Result<(), Refusal> {
        let taken = self
            .kit
            .db
            .transact(subject, |mut tx| async move {
                match take_each(&mut tx, asked).await? {
                    Ok(()) => tx.commit(Ok(())),
                    Err(wait) => tx.abandon(Err(wait)),
                }
            })
            .await?;
        taken.map_err(|RetryAfter(wait)| Refusal::TooMany(wait))
    }

    /// Reserves a send, in the batch of the code. `for_show`: nothing will be sent, though limits are the same (row
    /// O26).
    pub(super) async fn take_send(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        contact: &Contact,
        for_show: bool,
    ) -> Result<Send, Error> {
        let send = self.take_quotas(tx, caller, contact, for_show).await?;
        // Whoever has no session is told nothing of how much waits.
        Ok(match send {
            Send::Yes if !self.courier.is_full(&caller.tenant) => Send::Yes,
            Send::Yes if caller.session.is_none() => Send::Undeliverable,
            Send::Yes => Send::TooMany(RetryAfter(Duration::from_secs(60))),
            refused => refused,
        })
    }

    async fn take_quotas(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        contact: &Contact,
        for_show: bool,
    ) -> Result<Send, Error> {
        if !self.kit.config.limits {
            return Ok(Send::Yes);
        }
        let limits = &self.kit.config.send_limits;
        let refused = |wait, stranger| if caller.session.is_some() { Send::TooMany(wait) } else { stranger };
        let (asker, target) = (asker(caller, limits), target(contact, limits));
        let lanes = tenant_lanes(&caller.tenant, limits);
        let all = asker.iter().chain(&target).map(|(key, _)| key.clone());
        #[cfg(feature = "phone")]
        let toll = Toll::of(contact)?;
        #[cfg(feature = "phone")]
        let all = all.chain(toll.iter().flat_map(Toll::keys));
        tx.prefetch(all.chain(lanes.iter().cloned())).await?;
        if let Err(wait) = take_each(tx, &asker).await? {
            return Ok(refused(wait, Send::Unkept));
        }
        if let Some(limit) = limits.in_tenant
            && let Err(wait) = take_lane(tx, &lanes, SendLimits::hourly(limit)).await?
        {
            return Ok(refused(wait, Send::Unkept));
        }
        #[cfg(feature = "phone")]
        if let Some(toll) = &toll
            && let Some(until) = toll.stopped(tx).await?
        {
            return Ok(refused(RetryAfter(until.since(tx.now())), Send::Silent));
        }
        let (taken, kept) = if for_show { target.split_at(1) } else { (&target[..], &target[..0]) };
        if let Err(wait) = take_each(tx, taken).await? {
            return Ok(refused(wait, Send::Silent));
        }
        // What goes nowhere takes nothing of what others share, but writes the same (row O24).
        for (key, quotas) in kept {
            let window: Window = tx.get(key).await?.unwrap_or_default();
            tx.put(key.clone(), &window, Some(tx.now() + longest(quotas))).await?;
        }
        #[cfg(feature = "phone")]
        if let Some(toll) = toll {
            toll.count_sent(tx, for_show).await?;
        }
        Ok(Send::Yes)
    }
}

/// Who asks: the session's user, and the address.
fn asker(caller: &Caller, limits: &SendLimits) -> Vec<Asked> {
    let user = caller.session.as_ref().map(|session| {
        let key = keys::limit("send-by", session.user_id().as_str());
        (key, vec![SendLimits::hourly(limits.by_user)])
    });
    let address = super::peer_key(&caller.request).map(|address| {
        let key = keys::limit("send-from", &address);
        (key, vec![SendLimits::hourly(limits.from_address)])
    });
    user.into_iter().chain(address).collect()
}

/// To whom: the destination, and the range of a number.
fn target(contact: &Contact, limits: &SendLimits) -> Vec<Asked> {
    let to = (keys::limit("send-to", contact.as_str()), limits.to_destination());
    let range = contact.phone().map(|phone| {
        let digits = phone.as_str();
        let range = digits.get(..digits.len().saturating_sub(3)).unwrap_or_default();
        (keys::limit("send-range", range), vec![SendLimits::hourly(limits.to_range)])
    });
    [to].into_iter().chain(range).collect()
}

fn tenant_lanes(tenant: &TenantId, limits: &SendLimits) -> Vec<Key> {
    let lanes = limits.in_tenant.map_or(0, tally::lanes);
    (0..lanes).map(|lane| keys::limit("send-in", &format!("{tenant} {lane}"))).collect()
}

fn longest(quotas: &[Quota]) -> Duration {
    quotas.iter().map(|quota| quota.window).max().unwrap_or_default()
}

/// Takes one of each, or none.
async fn take_each(tx: &mut Tx, asked: &[Asked]) -> Result<Result<(), RetryAfter>, Error> {
    tx.prefetch(asked.iter().map(|(key, _)| key.clone())).await?;
    let mut taken = Vec::new();
    for (key, quotas) in asked {
        let mut window: Window = tx.get(key).await?.unwrap_or_default();
        if let Err(wait) = window.try_take_all(quotas, tx.now()) {
            return Ok(Err(wait));
        }
        taken.push((key, window.expires_at(longest(quotas)), window));
    }
    for (key, end, window) in taken {
        tx.put(key.clone(), &window, Some(end)).await?;
    }
    Ok(Ok(()))
}

async fn take_lane(tx: &mut Tx, keys: &[Key], quota: Quota) -> Result<Result<(), RetryAfter>, Error> {
    let mut lanes = Vec::new();
    for key in keys {
        lanes.push(tx.get::<Tally>(key).await?.unwrap_or_default());
    }
    // Another one at each try, so that two who met don't meet again.
    let [from] = random::bytes()?;
    let lane = match tally::take(&mut lanes, quota, usize::from(from), tx.now()) {
        Ok(lane) => lane,
        Err(wait) => return Ok(Err(wait)),
    };
    if let (Some(key), Some(tally)) = (keys.get(lane), lanes.get(lane)) {
        tx.put(key.clone(), tally, Some(after(tx.now(), quota.window))).await?;
    }
    Ok(Ok(()))
}

/// When counts of a window mean nothing any more.
pub(super) fn after(now: Timestamp, window: Duration) -> Timestamp {
    now + window + window / 30
}

/// Whose guesses count together.
pub(super) fn budget(code: &Code) -> Key {
    match &code.user {
        Some(user) => keys::guesses(user, &code.factor),
        None => guesses_at(&code.contact),
    }
}

/// Until when a budget is remembered. A user's blocked one has no end: no time lifts a block (row O34). A contact's has,
/// for nobody may be there who could have it lifted.
pub(super) fn kept_until(guesses: &Budget, code: &Code, now: Timestamp) -> Option<Timestamp> {
    let held = guesses.is_blocked() && code.user.is_some();
    (!held).then(|| now + BUDGET_LIFE)
}

/// Takes a guess from its budget, before it is compared. In a flow made for show as well: there is nothing to guess,
/// but a rest must tell no more about one contact than about another (row O26).
pub(super) async fn charge(
    tx: &mut Tx,
    code: &Code,
    caller: &Caller,
) -> Result<Result<(), Exhausted>, Error> {
    let key = budget(code);
    let mut guesses: Budget = tx.get(&key).await?.unwrap_or_default();
    if let Err(exhausted) = guesses.reserve(tx.now()) {
        return Ok(Err(exhausted));
    }
    let until = kept_until(&guesses, code, tx.now());
    tx.put(key, &guesses, until).await?;
    let what = match () {
        () if guesses.is_blocked() => Some(Audited::FactorBlocked),
        () if guesses.is_resting(tx.now()) && code.user.is_some() => Some(Audited::LockedOut),
        () => None,
    };
    if let Some(what) = what {
        let event = Event::new(what, &caller.tenant).factor(&code.factor).peer(caller.request.peer);
        audit::stage(tx, code.user.iter().fold(event, |event, user| event.user(user)))?;
    }
    Ok(Ok(()))
}

/// Where no user is known, a destination's. The unauthenticated can't touch a user's (row O34); whether anybody
/// signs in by it makes no difference (row O26).
fn guesses_at(contact: &Contact) -> Key {
    keys::limit("guess", &format!("contact {}", contact.as_str()))
}

/// Every budget that holds a factor of a user up: theirs, and those of the contacts that they sign in by.
fn budgets(user: &User, factor: &FactorId) -> Vec<Key> {
    let kind = factor::in_session(factor.clone());
    let emails = user.logins.iter().filter_map(|login| login.email.clone()).map(Contact::from);
    let phones = user.logins.iter().filter_map(|login| login.phone.clone()).map(Contact::from);
    let contacts = emails.chain(phones).filter(|contact| factor::otp::kind(contact) == kind);
    let keys: BTreeSet<Key> = contacts.map(|contact| guesses_at(&contact)).collect();
    [keys::guesses(&user.id, &kind)].into_iter().chain(keys).collect()
}

/// Lifts the block of a factor, and nothing else. Whether there was one.
pub(crate) async fn lift(
    tx: &mut Tx,
    user: &User,
    factor: &FactorId,
    tenant: &TenantId,
) -> Result<bool, Error> {
    let budgets = budgets(user, factor);
    tx.prefetch(budgets.iter().cloned()).await?;
    let mut lifted = false;
    for key in budgets {
        let Some(mut guesses) = tx.get::<Budget>(&key).await? else { continue };
        if guesses.lift() {
            tx.put(key, &guesses, Some(tx.now() + BUDGET_LIFE)).await?;
            lifted = true;
        }
    }
    if lifted {
        audit::stage(tx, Event::new(Audited::FactorUnblocked, tenant).user(&user.id).factor(factor))?;
    }
    Ok(lifted)
}

/// Lifts the blocks of the factors beside which the session completed two others: by these its user is known well
/// enough (row O34). A password alone lifts nothing: who guesses at a second factor has it.
pub(super) async fn lift_by_others(
    tx: &mut Tx,
    user: &User,
    completed: &CompletedFactors,
    usable: &[FactorId],
    tenant: &TenantId,
) -> Result<(), Error> {
    for factor in liftable(completed).into_iter().filter(|factor| usable.contains(factor)) {
        lift(tx, user, &factor, tenant).await?;
    }
    Ok(())
}

fn liftable(completed: &CompletedFactors) -> Vec<FactorId> {
    let kinds: BTreeSet<FactorId> =
        completed.iter().map(|(factor, _)| factor::in_session(factor.clone())).collect();
    let others = |factor: &FactorId| kinds.iter().filter(|kind| *kind != factor).count();
    [FactorId::OTP_EMAIL, FactorId::OTP_PHONE].into_iter().filter(|factor| others(factor) >= 2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_o34_two_other_factors_lift_a_block() {
        let table: [(&[FactorId], &[FactorId]); 8] = [
            (&[], &[]),
            (&[FactorId::PASSWORD], &[]),
            (&[FactorId::OTP_EMAIL], &[]),
            (&[FactorId::PASSWORD, FactorId::OTP_EMAIL], &[FactorId::OTP_PHONE]),
            (&[FactorId::PASSWORD, FactorId::OTP_PHONE], &[FactorId::OTP_EMAIL]),
            (&[FactorId::PASSWORD, FactorId::TOTP], &[FactorId::OTP_EMAIL, FactorId::OTP_PHONE]),
            // Two over one channel are one.
            (&[FactorId::LINK_EMAIL, FactorId::OTP_EMAIL], &[]),
            (&[FactorId::LINK_PHONE, FactorId::PASSWORD], &[FactorId::OTP_EMAIL]),
        ];
        for (completed, lifts) in table {
            let completed: CompletedFactors =
                completed.iter().map(|factor| (factor.clone(), Timestamp::EPOCH)).collect();
            assert_eq!(liftable(&completed), lifts, "{completed:?}");
        }
    }
}
