//! The handle of the whole: cheap to clone, wires the parts, holds them in one `Arc`.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::task::JoinHandle;

pub use self::{
    factors::FactorsOf,
    keys::{KeyInfo, KeyState, Keys},
    mounts::MountInfo,
    roles::RolesOf,
    sessions::{SessionInfo, Sessions},
    tenants::Tenants,
    users::Users,
};
pub use crate::flow::shadow::ShadowCounts;
use crate::{
    base::{error::Error, time},
    flow::{Desk, shadow::Shadow},
    model::{Db, change::Change},
    session::feed::Freshness,
};

mod factors;
mod keys;
pub(crate) mod mounts;
mod roles;
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
    pub(crate) fn start(desk: Arc<Desk>) -> Self {
        let ticking = tokio::spawn(upkeep::run(Arc::clone(&desk)));
        let sending = tokio::spawn(crate::delivery::worker::run(Arc::clone(&desk.courier)));
        Self { desk, mounts: Arc::default(), _background: Arc::new(Background(vec![ticking, sending])) }
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

    /// What users opted into.
    pub fn factors(&self) -> FactorsOf<'_> {
        FactorsOf { mfa: self }
    }

    /// The keys that sign access tokens.
    pub fn keys(&self) -> Keys<'_> {
        Keys { mfa: self }
    }

    /// Counters since the start, for operators.
    pub fn counters(&self) -> Counters {
        Counters {
            #[cfg(feature = "password")]
            password_hashes: self.desk.passwords.hashes(),
            #[cfg(not(feature = "password"))]
            password_hashes: 0,
            code_comparisons: self.desk.otp.comparisons(),
            refresh_grace_hits: self.desk.kit.grace_hits.load(Ordering::Relaxed),
            shadow: self.desk.shadow.as_ref().map(Shadow::counts).unwrap_or_default(),
        }
    }

    /// Whether this process can do its work: it has a signing key, reads the change feed, and its clock is
    /// the store's. For health checks; what needs more asks on its own and answers 503.
    pub fn is_ready(&self) -> bool {
        let (kit, now) = (&self.desk.kit, self.desk.kit.db.now());
        let reads = kit.feed.freshness(time::monotonic(), now) == Freshness::Fresh;
        reads && !kit.is_skewed() && kit.keys.current().signing(now).is_some()
    }

    /// Takes no new work, and waits for what is under way, at most 30 s.
    pub async fn shutdown(&self) {
        self.desk.kit.tasks.drain(Duration::from_secs(30)).await;
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
}
