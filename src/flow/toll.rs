//! SMS pumping: what is counted of a country, when sending there stops, and what ends that (row O28). It is counted
//! over all tenants: the bill is the app's.

use super::{Desk, quota::after};
use crate::{
    base::{contact::Contact, error::Error, ident::TenantId, random, time::Timestamp},
    model::{
        Tx,
        audit::{self, Audited, Event},
        keys,
        tally::LANES,
        toll::{self, Stop, Traffic},
    },
    store::{Key, Scan},
};

/// How the country of a number is called: by its two letters, or by its first digits where the plan has no country.
/// `None` for mail.
fn country(contact: &Contact) -> Option<String> {
    let phone = contact.phone()?;
    let digits = || phone.as_str().get(..4).unwrap_or_default().to_owned();
    Some(phone.country().unwrap_or_else(digits))
}

fn stop_of(country: &str) -> Key {
    keys::limit("sms-stop", country)
}

fn lane_of(country: &str, lane: usize) -> Key {
    keys::limit("sms-count", &format!("{country} {lane}"))
}

fn lanes(country: &str) -> Vec<Key> {
    (0..LANES).map(|lane| lane_of(country, lane)).collect()
}

/// Any lane: which one doesn't matter, and many write.
fn any_lane(country: &str) -> Result<Key, Error> {
    let [byte] = random::bytes()?;
    Ok(lane_of(country, usize::from(byte) % LANES))
}

/// What a message by SMS reads and writes of its country.
pub(super) struct Toll {
    stop: Key,
    lane: Key,
}

impl Toll {
    /// `None` for mail.
    pub(super) fn of(contact: &Contact) -> Result<Option<Self>, Error> {
        let toll = |country: String| Ok(Self { stop: stop_of(&country), lane: any_lane(&country)? });
        country(contact).map(toll).transpose()
    }

    /// To be read with other things.
    pub(super) fn keys(&self) -> [Key; 2] {
        [self.stop.clone(), self.lane.clone()]
    }

    /// Until when nothing is sent there.
    pub(super) async fn stopped(&self, tx: &mut Tx) -> Result<Option<Timestamp>, Error> {
        Ok(tx.get::<Stop>(&self.stop).await?.map(|stop| stop.until))
    }

    /// Counts a message, in the batch that queues it; one for show is written down as if it were, and isn't.
    pub(super) async fn count_sent(self, tx: &mut Tx, for_show: bool) -> Result<(), Error> {
        let one: fn(&mut Traffic, Timestamp) = if for_show { |_, _| {} } else { Traffic::sent };
        count(tx, self.lane, one).await
    }
}

async fn count(tx: &mut Tx, lane: Key, one: fn(&mut Traffic, Timestamp)) -> Result<(), Error> {
    let now = tx.now();
    let mut traffic: Traffic = tx.get(&lane).await?.unwrap_or_default();
    one(&mut traffic, now);
    tx.put(lane, &traffic, Some(after(now, toll::WINDOW))).await
}

impl Desk {
    /// Before a message is asked for: stops sending to its country if codes sent there aren't used. Messages asked
    /// for at the same time may still go out.
    pub(super) async fn watch_toll(&self, contact: &Contact) -> Result<(), Error> {
        let Some(country) = &country(contact).filter(|_| self.kit.config.limits) else { return Ok(()) };
        let limits = &self.kit.config.send_limits;
        let pumped = self
            .kit
            .db
            .look(|mut tx| async move {
                let (stop, keys) = (stop_of(country), lanes(country));
                tx.prefetch(keys.iter().cloned().chain([stop.clone()])).await?;
                if tx.get::<Stop>(&stop).await?.is_some() {
                    return tx.abandon(false);
                }
                let mut lanes = Vec::new();
                for key in &keys {
                    lanes.extend(tx.get::<Traffic>(key).await?);
                }
                let now = tx.now();
                tx.abandon(toll::is_pumped(&lanes, limits.judged_from, limits.least_used, now))
            })
            .await?;
        if pumped { self.stop_sending(country).await } else { Ok(()) }
    }

    async fn stop_sending(&self, country: &str) -> Result<(), Error> {
        let stop_for = self.kit.config.send_limits.stop;
        let stopped = self
            .kit
            .db
            .transact(country, |mut tx| async move {
                let key = stop_of(country);
                if tx.get::<Stop>(&key).await?.is_some() {
                    return tx.abandon(false);
                }
                let until = tx.now() + stop_for;
                tx.put(key, &Stop { until }, Some(until)).await?;
                let event = Event::new(Audited::SendingStopped, &TenantId::PUBLIC);
                audit::stage(&mut tx, event.country(country))?;
                tx.commit(true)
            })
            .await?;
        #[cfg(feature = "tracing")]
        if stopped {
            tracing::error!(
                country,
                seconds = stop_for.as_secs(),
                "codes sent by SMS to this country are not used: nothing more is sent there for now"
            );
        }
        let _ = stopped;
        Ok(())
    }

    /// A code came to somebody who entered it. In a commit of its own: nobody's sign-in fails for a count.
    pub(super) async fn note_used(&self, contact: &Contact) {
        let Some(country) = &country(contact).filter(|_| self.kit.config.limits) else { return };
        let counted = self
            .kit
            .db
            .transact(contact.as_str(), |mut tx| async move {
                count(&mut tx, any_lane(country)?, Traffic::used).await?;
                tx.commit(())
            })
            .await;
        #[cfg(feature = "tracing")]
        if let Err(error) = &counted {
            tracing::warn!(%error, "a code that was used could not be counted");
        }
        let _ = counted;
    }

    /// The countries to which nothing is sent now, and until when.
    pub(crate) async fn stopped_countries(&self) -> Result<Vec<(String, Timestamp)>, Error> {
        let found: Vec<(Key, Stop)> = self.kit.db.scan(&Scan::under(keys::limits("sms-stop"))).await?;
        Ok(found.into_iter().map(|(key, stop)| (key.last(), stop.until)).collect())
    }

    /// Sends to a country again, and counts anew. Whether it had stopped.
    pub(crate) async fn resume_sending(&self, country: &str) -> Result<bool, Error> {
        self.kit
            .db
            .transact(country, |mut tx| async move {
                let (stop, keys) = (stop_of(country), lanes(country));
                tx.prefetch(keys.iter().cloned().chain([stop.clone()])).await?;
                if tx.get::<Stop>(&stop).await?.is_none() {
                    return tx.abandon(false);
                }
                for key in keys.into_iter().chain([stop]) {
                    tx.delete(key).await?;
                }
                let event = Event::new(Audited::SendingResumed, &TenantId::PUBLIC);
                audit::stage(&mut tx, event.country(country))?;
                tx.commit(true)
            })
            .await
    }
}
