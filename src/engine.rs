//! The handle of the whole: cheap to clone, wires the parts, holds them in one `Arc`.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;

#[cfg(feature = "phone")]
pub use self::sends::{Sends, StoppedCountry};
pub use self::{
    factors::FactorsOf,
    keys::{KeyInfo, KeyState, Keys},
    metadata::MetadataOf,
    mounts::MountInfo,
    roles::RolesOf,
    sessions::{SessionInfo, Sessions, SessionsIn},
    tenants::Tenants,
    users::Users,
};
#[cfg(feature = "password")]
pub use crate::flow::change::PasswordChange;
pub use crate::flow::{change::EmailChange, shadow::ShadowCounts};
use crate::{
    base::{
        error::Error,
        ident::{FactorId, TenantId},
        time::{self, Timestamp},
    },
    delivery::{SmsStatus, TwilioStatus},
    factor::Proof,
    flow::{Desk, shadow::Shadow},
    hooks::{self, AnySink, AuditEvent},
    model::{
        Db,
        audit::{self, Audited, Cause, Event, Inbox},
        change::Change,
    },
    session::{Session, feed::Freshness},
};

mod complete;
mod credentials;
mod factors;
mod keys;
mod metadata;
pub(crate) mod mounts;
mod roles;
#[cfg(feature = "phone")]
mod sends;
mod sessions;
mod tenants;
mod upkeep;
mod users;

/// Everything, behind one handle. Made by [`Mfa::builder`](crate::MfaBuilder).
#[derive(Clone)]
pub struct Mfa {
    pub(crate) desk: Arc<Desk>,
    pub(crate) mounts: Arc<mounts::Mounts>,
    _background: Arc<Background>,
}

/// Tasks that end with the last handle.
struct Background(Vec<JoinHandle<()>>);

impl Drop for Background {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl fmt::Debug for Mfa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mfa").finish_non_exhaustive()
    }
}

impl Mfa {
    pub(crate) fn start(desk: Arc<Desk>, inbox: Inbox, sink: AnySink) -> Self {
        let ticking = tokio::spawn(upkeep::run(Arc::clone(&desk)));
        let sending = tokio::spawn(crate::delivery::worker::run(Arc::clone(&desk.courier)));
        let counts = || Arc::clone(&desk.kit.db.trail.counts);
        let listening = tokio::spawn(hooks::listen(sink, counts(), inbox.events));
        let attending = tokio::spawn(hooks::attend(desk.hooks.clone(), counts(), inbox.endings));
        let tasks = vec![ticking, sending, listening, attending];
        Self { desk, mounts: Arc::default(), _background: Arc::new(Background(tasks)) }
    }

    /// Users and their login methods.
    pub fn users(&self) -> Users<'_> {
        Users { mfa: self }
    }

    /// Sessions.
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions { mfa: self }
    }

    /// Tenants.
    pub fn tenants(&self) -> Tenants<'_> {
        Tenants { mfa: self }
    }

    /// Roles of users in tenants.
    pub fn roles(&self) -> RolesOf<'_> {
        RolesOf { mfa: self }
    }

    /// What the app keeps about users.
    pub fn metadata(&self) -> MetadataOf<'_> {
        MetadataOf { mfa: self }
    }

    /// What users opted into.
    pub fn factors(&self) -> FactorsOf<'_> {
        FactorsOf { mfa: self }
    }

    /// Messages by SMS that are sent no more.
    #[cfg(feature = "phone")]
    pub fn sends(&self) -> Sends<'_> {
        Sends { mfa: self }
    }

    /// The keys that sign access tokens.
    pub fn keys(&self) -> Keys<'_> {
        Keys { mfa: self }
    }

    /// Completes a factor of the app's own for a session's user: see
    /// [`custom_factor`](crate::MfaBuilder::custom_factor) and [`danger::assert_proof`](crate::factor::danger).
    /// Nothing is complete until this has returned. The session goes on under new tokens, which leave with the
    /// response (row S03).
    ///
    /// # Errors
    /// `Invalid` for a factor that can't be completed here, a proof made for another session, a factor that isn't
    /// asked for now (row P20), or if the response's head was sent; `SessionEnded`, `StaleToken`, `Unavailable` as
    /// [`Session::set_claim`](crate::Session::set_claim). Nothing is completed then.
    pub async fn complete(&self, session: &Session, proof: Proof) -> Result<(), Error> {
        complete::complete(self, session, proof).await
    }

    /// The audit trail from a time on, oldest first, at most 1000 events: what every process on the store
    /// decided, as it was written with its effect, for 90 days. To go on, ask from the last event's time on; events of
    /// that very time come again.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn audit_trail(&self, since: Timestamp) -> Result<Vec<AuditEvent>, Error> {
        audit::since(self.db(), since).await
    }

    /// Counters since the start, for operators.
    pub fn counters(&self) -> Counters {
        let (kit, count) = (&self.desk.kit, |counter: &AtomicU64| counter.load(Ordering::Relaxed));
        let told = &kit.db.trail.counts;
        Counters {
            #[cfg(feature = "password")]
            password_hashes: self.desk.passwords.hashes(),
            #[cfg(not(feature = "password"))]
            password_hashes: 0,
            code_comparisons: self.desk.otp.comparisons(),
            shadow: self.desk.shadow.as_ref().map(Shadow::counts).unwrap_or_default(),
            refresh_grace_hits: count(&kit.grace_hits),
            audit_dropped: count(&told.dropped),
            audit_failed: count(&told.failed),
            hooks_failed: count(&told.hooks_failed),
            notices_delivered: count(&self.desk.courier.counts.delivered),
            notices_failed: count(&self.desk.courier.counts.given_up),
            delivery_failures: count(&self.desk.courier.counts.failed_tries),
            deliveries_under_way: count(&self.desk.courier.counts.under_way),
            notices_waiting: self.desk.courier.waiting(),
            feed_reads: count(&kit.feed_counts.reads),
            feed_failures: count(&kit.feed_counts.failures),
            served_stale: count(&kit.feed_counts.served_stale),
            refused_stale: count(&kit.feed_counts.refused_stale),
            feed_overruns: count(&kit.feed_counts.overruns),
            feed_subjects: kit.feed.len() as u64,
        }
    }

    /// Whether this process can do its work: it has a signing key, reads the change feed, and its clock is
    /// the store's. For health checks; what needs more asks on its own and answers 503.
    pub fn is_ready(&self) -> bool {
        let (kit, now) = (&self.desk.kit, self.desk.kit.db.now());
        let reads = kit.feed.freshness(time::monotonic(), now) == Freshness::Fresh;
        reads && !kit.is_skewed() && kit.keys.current().signing(now).is_some()
    }

    /// Takes no new work, and waits for what is under way, messages included, and for the audit sink and the hooks to
    /// hear of it, at most 30 s each. Messages that weren't begun are left to other processes, or to the next start.
    pub async fn shutdown(&self) {
        let patience = Duration::from_secs(30);
        self.desk.kit.tasks.drain(patience).await;
        self.desk.courier.close(patience).await;
        let told = async {
            while self.db().trail.counts.waiting.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _late = tokio::time::timeout(patience, told).await;
    }

    /// Tells operators what a provider said of an SMS: one that failed is an audit event. Nothing else comes of it
    /// (row V09).
    ///
    /// # Errors
    /// If the store failed.
    pub async fn sms_status(&self, status: &TwilioStatus) -> Result<(), Error> {
        if status.status != SmsStatus::Failed {
            return Ok(());
        }
        #[cfg(feature = "tracing")]
        tracing::warn!(message = status.message, code = status.error_code, "an SMS was not delivered");
        let event = Event::new(Audited::DeliveryFailed, &TenantId::PUBLIC).cause(Cause::Refused);
        let event = event.factor(&FactorId::OTP_PHONE);
        self.change(|desk| async move {
            audit::note(&desk.kit.db, event).await?;
            Ok(((), Vec::new()))
        })
        .await
    }

    fn db(&self) -> &Db {
        &self.desk.kit.db
    }

    /// Runs a mutation to its end, whatever becomes of the caller, and folds in its changes.
    async fn change<T, F>(&self, work: impl FnOnce(Arc<Desk>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<(T, Vec<Change>), Error>> + Send + 'static,
    {
        let (desk, work) = (Arc::clone(&self.desk), work(Arc::clone(&self.desk)));
        self.desk
            .kit
            .run(async move {
                desk.kit.ready().await?;
                let (value, changes) = work.await?;
                desk.kit.learn(&changes);
                Ok(value)
            })
            .await
    }
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// How many passwords were hashed.
    pub password_hashes: u64,
    /// How many guesses of one-time codes were compared.
    pub code_comparisons: u64,
    /// How often a refresh token that was just used got the same successor again: lost answers, and tabs that
    /// refresh at once.
    pub refresh_grace_hits: u64,
    /// What the policy on trial would have done.
    pub shadow: ShadowCounts,
    /// How many audit events the sink didn't hear of because too many waited. The store's trail has them.
    pub audit_dropped: u64,
    /// How often the audit sink failed, took over 5 s or panicked.
    pub audit_failed: u64,
    /// How often a hook did after the commit, or an end of a session found no room among those that waited.
    pub hooks_failed: u64,
    /// Messages that were delivered.
    pub notices_delivered: u64,
    /// Messages that were given up: each is an audit event as well.
    pub notices_failed: u64,
    /// Tries to deliver one that failed.
    pub delivery_failures: u64,
    /// Tries under way now, at most 64.
    pub deliveries_under_way: u64,
    /// Messages that wait, of every process, as of the last look at the queue.
    pub notices_waiting: u64,
    /// How often the change feed was read completely.
    pub feed_reads: u64,
    /// How often it could not be read.
    pub feed_failures: u64,
    /// Requests that were let through while it couldn't be read: mounts that say
    /// [`Stale::Serve`](crate::config::Stale::Serve), the default.
    pub served_stale: u64,
    /// Requests that were answered 503 because it couldn't be read: mounts that say
    /// [`Stale::Refuse`](crate::config::Stale::Refuse), and all before it was read once.
    pub refused_stale: u64,
    /// Changes that found no room in memory: for as long as tokens live that they may concern, the store is asked
    /// for every session.
    pub feed_overruns: u64,
    /// Subjects whose changes are kept in memory now, at most 100000.
    pub feed_subjects: u64,
}
