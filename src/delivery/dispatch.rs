//! The queue and whom it feeds: a notice is leased, delivered, and taken away, retried with the same text, or given
//! up (rows V01 to V04). When that happens is the worker's.

use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::sync::{Notify, watch};

use super::{
    AnyDelivery, Delivery as _, DeliveryError, Envelope, Notice, breaker::Breaker, pending::Pending,
};
use crate::{
    base::{
        contact::Contact,
        error::Error,
        ident::{FactorId, TenantId},
        random,
        secret::Secret,
        time::Timestamp,
    },
    model::{
        Db, Tx,
        audit::{self, Audited, Cause, Event},
        keys,
        queue::{Channel, Failed, Queued, Take},
        seal::Sealer,
    },
    store::{Key, Scan},
};

/// How long a delivery may take (row V02).
const PATIENCE: Duration = Duration::from_secs(15);
/// What one look takes along of what is due; the next one takes the rest.
const MOST_DUE: usize = 4096;
const PAGE: usize = 1000;

/// The queue and whom it feeds.
pub(crate) struct Dispatch {
    pub(super) db: Db,
    sealer: Arc<Sealer>,
    delivery: AnyDelivery,
    /// The app's name and its website's host, for the texts.
    app: (String, String),
    pub(super) wake: Notify,
    pub(super) state: watch::Sender<State>,
    /// Names this process among those that share the queue.
    name: String,
    pending: Pending,
    mail: Breaker,
    sms: Breaker,
    pub(crate) counts: Counts,
}

/// What became of notices since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) delivered: AtomicU64,
    /// Tries that failed.
    pub(crate) failed_tries: AtomicU64,
    /// Given up.
    pub(crate) given_up: AtomicU64,
    pub(crate) under_way: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Working,
    Closing,
    Closed,
}

/// What a look at the queue found.
pub(super) struct Look {
    pub(super) due: Vec<Key>,
    /// When something will be due.
    pub(super) next: Option<Timestamp>,
}

impl Dispatch {
    /// # Errors
    /// If the operating system gives no randomness.
    pub(crate) fn new(
        db: Db,
        sealer: Arc<Sealer>,
        delivery: AnyDelivery,
        app: (String, String),
    ) -> Result<Self, Error> {
        Ok(Self {
            db,
            sealer,
            delivery,
            app,
            wake: Notify::new(),
            state: watch::Sender::new(State::Working),
            name: random::token()?,
            pending: Pending::default(),
            mail: Breaker::default(),
            sms: Breaker::default(),
            counts: Counts::default(),
        })
    }

    /// Stages a notice, sealed, in the batch of what it tells; [`Dispatch::wake`] after the commit. One for show
    /// is a blank of the same length, so that its batch looks the same, and goes nowhere (row O24).
    pub(crate) fn stage(
        &self,
        tx: &mut Tx,
        tenant: &TenantId,
        notice: &Notice,
        end: Timestamp,
        for_show: bool,
    ) -> Result<(), Error> {
        let key = keys::queue(tx.now(), &random::token()?);
        let text = notice.to_sealed_form();
        let text = if for_show { Secret::new(" ".repeat(text.expose().len())) } else { text };
        let sealed = self.sealer.seal(&key, text.expose().as_bytes())?;
        let channel = match notice.to() {
            Contact::Email(_) => Channel::Mail,
            Contact::Phone(_) => Channel::Sms,
        };
        let queued = Queued::new(tenant.clone(), &self.name, sealed, channel, tx.now(), end);
        self.pending.added(tenant);
        tx.insert_new(key, &queued, Some(queued.kept_until()))
    }

    /// There is something to send.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Whether no more may wait for a tenant (row V10).
    pub(crate) fn is_full(&self, tenant: &TenantId) -> bool {
        self.pending.is_full(tenant)
    }

    /// How many notices wait, as far as this process knows.
    pub(crate) fn waiting(&self) -> u64 {
        self.pending.waiting()
    }

    /// Begins nothing any more, waits for what is under way, and gives back the rest (row Z01).
    pub(crate) async fn close(&self, patience: Duration) {
        self.state.send_if_modified(|state| {
            let works = *state == State::Working;
            if works {
                *state = State::Closing;
            }
            works
        });
        let mut state = self.state.subscribe();
        let _late = tokio::time::timeout(patience, state.wait_for(|state| *state == State::Closed)).await;
    }

    /// Looks through what was queued after a time, or through everything, page by page.
    pub(super) async fn look(&self, since: Option<Timestamp>, known: &HashSet<Key>) -> Result<Look, Error> {
        let (now, mark) = (self.db.now(), self.pending.mark());
        let mut look = Look { due: Vec::new(), next: None };
        let mut found: HashMap<TenantId, u64> = HashMap::new();
        let mut scan = Scan::under(keys::queued()).limit(PAGE);
        if let Some(since) = since {
            scan = scan.after(keys::queue(since, ""));
        }
        loop {
            let page: Vec<(Key, Option<Queued>)> = self.db.scan_raw(&scan).await?;
            let (length, last) = (page.len(), page.last().map(|(key, _)| key.clone()));
            for (key, queued) in page {
                let Some(queued) = queued else { continue };
                *found.entry(queued.tenant.clone()).or_default() += 1;
                let rests = self.breaker(queued.channel).rests_until(now);
                let begins = if queued.is_due(&self.name, now) { rests } else { Some(queued.lease_until) };
                match begins {
                    Some(then) => look.next = Some(look.next.map_or(then, |next| next.min(then))),
                    None if look.due.len() < MOST_DUE && !known.contains(&key) => look.due.push(key),
                    None => {}
                }
            }
            match last {
                Some(last) if length >= PAGE => scan = scan.after(last),
                _ => break,
            }
        }
        if since.is_none() {
            self.pending.found(mark, found);
        }
        Ok(look)
    }

    /// Tries one notice, if it is still there and due. Says when to try it again, if so.
    pub(super) async fn send(&self, key: &Key) -> Result<Option<Timestamp>, Error> {
        let Some(queued) = self.lease(key).await? else { return Ok(None) };
        crate::base::failpoint!("outbox.claimed");
        let plain = self.sealer.open(key, &queued.sealed)?;
        let text = std::str::from_utf8(&plain).map_err(|_| Error::internal("a notice can't be read"))?;
        if text.trim().is_empty() {
            return self.settle(key, queued.tries, None, None).await;
        }
        let mut notice =
            Notice::from_sealed_form(text).map_err(|_| Error::internal("a notice can't be read"))?;
        let now = self.db.now();
        notice.shorten(queued.expires_at.since(now));
        let envelope = Envelope {
            id: Envelope::id_of(key),
            app_name: self.app.0.clone(),
            website_host: self.app.1.clone(),
            tenant: queued.tenant.clone(),
            at: now,
            expires_at: queued.expires_at,
            attempt: queued.tries,
        };
        let delivering = AssertUnwindSafe(async { self.delivery.deliver(&envelope, &notice).await });
        let outcome = match tokio::time::timeout(PATIENCE, delivering.catch_unwind()).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(DeliveryError::temporary("it panicked").with_reason("panic")),
            Err(late) => Err(DeliveryError::temporary(late).with_reason("timeout")),
        };
        crate::base::failpoint!("outbox.sent_before_ack");
        self.note(&queued, notice.name(), &outcome);
        let failed = outcome.err().map(|error| error.is_permanent());
        self.settle(key, queued.tries, failed, notice.factor()).await
    }

    /// Counts and logs how a try ended. Not the error itself: it may hold the contact.
    fn note(&self, queued: &Queued, _what: &str, outcome: &Result<(), DeliveryError>) {
        let breaker = self.breaker(queued.channel);
        let Err(error) = outcome else {
            self.counts.delivered.fetch_add(1, Ordering::Relaxed);
            return breaker.reached();
        };
        self.counts.failed_tries.fetch_add(1, Ordering::Relaxed);
        #[cfg(feature = "tracing")]
        tracing::warn!(
            what = _what,
            channel = ?queued.channel,
            tenant = queued.tenant.as_str(),
            attempt = queued.tries,
            permanent = error.is_permanent(),
            reason = error.reason(),
            "a notice was not delivered"
        );
        if error.is_permanent() {
            breaker.reached();
        } else if breaker.failed(self.db.now()) {
            #[cfg(feature = "tracing")]
            tracing::error!(channel = ?queued.channel, "deliveries keep failing: none for 30 s");
        }
    }

    /// Takes the notice for as long as a delivery may last; `None` if somebody else has it, or if none is to be
    /// tried now.
    async fn lease(&self, key: &Key) -> Result<Option<Queued>, Error> {
        self.db
            .transact(key.as_str(), |mut tx| async move {
                let Some(mut queued) = tx.get::<Queued>(key).await? else { return tx.abandon(None) };
                let breaker = self.breaker(queued.channel);
                match queued.take(&self.name, tx.now()) {
                    Take::Leased if !breaker.admits(tx.now()) => tx.abandon(None),
                    Take::Leased => {
                        tx.put(key.clone(), &queued, Some(queued.kept_until())).await?;
                        tx.commit(Some(queued))
                    }
                    Take::Later(_) => tx.abandon(None),
                    Take::GiveUp => {
                        self.give_up(&mut tx, key, &queued, None, false).await?;
                        tx.commit(None)
                    }
                }
            })
            .await
    }

    /// Sent, or not: `Some(permanent)`. If another process has it by now, only a success says something.
    async fn settle(
        &self,
        key: &Key,
        tries: u32,
        failed: Option<bool>,
        factor: Option<&FactorId>,
    ) -> Result<Option<Timestamp>, Error> {
        self.db
            .transact(key.as_str(), |mut tx| async move {
                let Some(mut queued) = tx.get::<Queued>(key).await? else { return tx.abandon(None) };
                let Some(permanent) = failed else {
                    self.pending.taken(&queued.tenant);
                    tx.delete(key.clone()).await?;
                    return tx.commit(None);
                };
                if queued.tries != tries {
                    return tx.abandon(None);
                }
                match queued.fail(permanent, tx.now()) {
                    Failed::RetryAt(then) => {
                        tx.put(key.clone(), &queued, Some(queued.kept_until())).await?;
                        tx.commit(Some(then))
                    }
                    Failed::GiveUp => {
                        self.give_up(&mut tx, key, &queued, factor, permanent).await?;
                        tx.commit(None)
                    }
                }
            })
            .await
    }

    /// Stages that a notice is gone undelivered, and that operators hear of it.
    async fn give_up(
        &self,
        tx: &mut Tx,
        key: &Key,
        queued: &Queued,
        factor: Option<&FactorId>,
        permanent: bool,
    ) -> Result<(), Error> {
        let cause = match (permanent, queued.tries >= Queued::TRIES) {
            (true, _) => Cause::Refused,
            (false, true) => Cause::TriedOften,
            (false, false) => Cause::TooLate,
        };
        let mut event = Event::new(Audited::DeliveryFailed, &queued.tenant).cause(cause);
        if let Some(factor) = factor {
            event = event.factor(factor);
        }
        self.pending.taken(&queued.tenant);
        self.counts.given_up.fetch_add(1, Ordering::Relaxed);
        tx.delete(key.clone()).await?;
        audit::stage(tx, event)
    }

    /// Gives back what this process was to send and didn't begin with.
    pub(super) async fn give_back(&self) -> Result<(), Error> {
        let mut scan = Scan::under(keys::queued()).limit(PAGE);
        loop {
            let page: Vec<(Key, Option<Queued>)> = self.db.scan_raw(&scan).await?;
            let (length, last) = (page.len(), page.last().map(|(key, _)| key.clone()));
            for (key, queued) in page {
                if !queued.is_some_and(|mut queued| queued.give_back(&self.name, self.db.now())) {
                    continue;
                }
                let key = &key;
                self.db
                    .transact(key.as_str(), |mut tx| async move {
                        let Some(mut queued) = tx.get::<Queued>(key).await? else { return tx.abandon(()) };
                        if !queued.give_back(&self.name, tx.now()) {
                            return tx.abandon(());
                        }
                        tx.put(key.clone(), &queued, Some(queued.kept_until())).await?;
                        tx.commit(())
                    })
                    .await?;
            }
            match last {
                Some(last) if length >= PAGE => scan = scan.after(last),
                _ => return Ok(()),
            }
        }
    }

    fn breaker(&self, channel: Channel) -> &Breaker {
        match channel {
            Channel::Mail => &self.mail,
            Channel::Sms => &self.sms,
        }
    }
}

impl std::fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatch").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
