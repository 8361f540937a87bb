//! Sends what the queue holds: leased, retried with the same text, given up at its end (rows V01 to V04).

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::{AnyDelivery, Delivery as _, Notice};
use crate::{
    base::{error::Error, ident::TenantId, random, secret::Secret, time::Timestamp},
    model::{
        Db, Tx, keys,
        queue::{Failed, Queued, Take},
        seal::Sealer,
    },
    store::{Key, Scan},
};

/// How long a delivery may take (row V02).
const PATIENCE: Duration = Duration::from_secs(15);
/// How often the queue is looked through for what other processes left behind.
const ROUND: Duration = Duration::from_secs(5);

/// The queue and whom it feeds.
pub(crate) struct Courier {
    db: Db,
    sealer: Arc<Sealer>,
    delivery: AnyDelivery,
    wake: Notify,
    /// Names this process among those that share the queue.
    name: String,
}

impl Courier {
    /// # Errors
    /// If the operating system gives no randomness.
    pub(crate) fn new(db: Db, sealer: Arc<Sealer>, delivery: AnyDelivery) -> Result<Self, Error> {
        Ok(Self { db, sealer, delivery, wake: Notify::new(), name: random::token()? })
    }

    /// Stages a notice, sealed, in the batch of what it tells; [`Courier::wake`] after the commit. One for show is
    /// a blank of the same length, so that its batch looks the same, and goes nowhere (row O24).
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
        let queued = Queued::new(tenant.clone(), &self.name, sealed, tx.now(), end);
        tx.insert_new(key, &queued, Some(end))
    }

    /// There is something to send.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Sends everything that is due. Says whether there was anything.
    async fn round(self: &Arc<Self>) -> Result<bool, Error> {
        let due: Vec<(Key, Queued)> = self.db.scan(&Scan::under(keys::queued())).await?;
        let now = self.db.now();
        let mut sending = tokio::task::JoinSet::new();
        for (key, _) in due.into_iter().filter(|(_, queued)| queued.is_due(&self.name, now)) {
            let courier = Arc::clone(self);
            sending.spawn(async move { courier.send(&key).await });
        }
        let any = !sending.is_empty();
        while sending.join_next().await.is_some() {}
        Ok(any)
    }

    async fn send(&self, key: &Key) -> Result<(), Error> {
        let Some(queued) = self.lease(key).await? else { return Ok(()) };
        crate::base::failpoint!("outbox.claimed");
        let plain = self.sealer.open(key, &queued.sealed)?;
        let text = std::str::from_utf8(&plain).map_err(|_| Error::internal("a notice can't be read"))?;
        if text.trim().is_empty() {
            return self.settle(key, None).await;
        }
        let mut notice =
            Notice::from_sealed_form(text).map_err(|_| Error::internal("a notice can't be read"))?;
        notice.shorten(queued.expires_at.since(self.db.now()));
        let outcome = tokio::time::timeout(PATIENCE, self.delivery.deliver(&queued.tenant, &notice)).await;
        crate::base::failpoint!("outbox.sent_before_ack");
        let permanent = match outcome {
            Ok(Ok(())) => return self.settle(key, None).await,
            Ok(Err(error)) => error.is_permanent(),
            Err(_) => false,
        };
        self.settle(key, Some(permanent)).await
    }

    /// Takes the notice for as long as a delivery may last; `None` if somebody else has it.
    async fn lease(&self, key: &Key) -> Result<Option<Queued>, Error> {
        self.db
            .transact(key.as_str(), |mut tx| async move {
                let Some(mut queued) = tx.get::<Queued>(key).await? else { return tx.abandon(None) };
                match queued.take(&self.name, tx.now()) {
                    Take::Leased => {
                        tx.put(key.clone(), &queued, Some(queued.expires_at)).await?;
                        tx.commit(Some(queued))
                    }
                    Take::Later(_) => tx.abandon(None),
                    Take::GiveUp => {
                        tx.delete(key.clone()).await?;
                        tx.commit(None)
                    }
                }
            })
            .await
    }

    /// Sent, or not: `Some(permanent)`.
    async fn settle(&self, key: &Key, failed: Option<bool>) -> Result<(), Error> {
        self.db
            .transact(key.as_str(), |mut tx| async move {
                let Some(mut queued) = tx.get::<Queued>(key).await? else { return tx.abandon(()) };
                match failed.map(|permanent| queued.fail(permanent, tx.now())) {
                    Some(Failed::RetryAt(_)) => {
                        tx.put(key.clone(), &queued, Some(queued.expires_at)).await?;
                    }
                    Some(Failed::GiveUp) | None => tx.delete(key.clone()).await?,
                }
                tx.commit(())
            })
            .await
    }
}

impl std::fmt::Debug for Courier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Courier").finish_non_exhaustive()
    }
}

/// Sends until the last handle is gone.
pub(crate) async fn run(courier: Arc<Courier>) {
    loop {
        // What failed is tried again in the next round.
        let _ = courier.round().await;
        let _ = tokio::time::timeout(ROUND, courier.wake.notified()).await;
    }
}
