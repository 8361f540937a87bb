//! Wrong codes of somebody who passed the first factor: the user, the app and operators hear of it (row O35).

use super::{Caller, Desk, quota::kept_until};
use crate::{
    base::error::Error,
    delivery::Notice,
    hooks::{Happened, SuspiciousAttempts},
    model::{
        audit::{self, Audited, Event},
        code::{Code, Purpose},
        limit::Budget,
    },
    store::Key,
};

impl Desk {
    /// Writes down that a code was wrong; at the fifth in a row, and when guesses rest, in the same batch that the user
    /// is told.
    pub(super) async fn note_wrong_guess(
        &self,
        caller: &Caller,
        code: &Code,
        budget: &Key,
        wrong: Event,
    ) -> Result<(), Error> {
        let (wrong, second) = (&wrong, code.purpose == Purpose::SecondFactor && !code.decoy);
        let person = match code.user.as_ref().filter(|_| second) {
            Some(id) => self.person_of(id).await?,
            None => None,
        };
        let person = person.as_ref();
        let told = self
            .kit
            .db
            .transact(budget.as_str(), |mut tx| async move {
                audit::stage(&mut tx, wrong.clone())?;
                let Some(id) = code.user.as_ref().filter(|_| second) else { return tx.commit(None) };
                let mut guesses: Budget = tx.get(budget).await?.unwrap_or_default();
                if !guesses.tell() {
                    return tx.commit(None);
                }
                let now = tx.now();
                tx.put(budget.clone(), &guesses, kept_until(&guesses, code, now)).await?;
                let event = Event::new(Audited::SuspiciousAttempts, &caller.tenant).user(id);
                audit::stage(&mut tx, event.factor(&code.factor).peer(caller.request.peer))?;
                if let Some(person) = person {
                    let factor = || code.factor.clone();
                    let notice = |to| match guesses.is_resting(now) {
                        true => Notice::CodesUsedUp { to, factor: factor() },
                        false => Notice::SuspiciousAttempts { to, factor: factor() },
                    };
                    self.courier.tell(&mut tx, &caller.tenant, &person.user, notice)?;
                }
                tx.commit(Some(guesses.is_resting(now)))
            })
            .await?;
        let (Some(resting), Some(user)) = (told, &code.user) else { return Ok(()) };
        self.courier.wake();
        let (tenant, factor, peer) = (&caller.tenant, &code.factor, caller.request.peer);
        let attempts = SuspiciousAttempts { user, tenant, factor, resting, peer };
        self.hooks.tell(&[Happened::SuspiciousAttempts(attempts)], &self.kit.db.trail.counts).await;
        Ok(())
    }
}
