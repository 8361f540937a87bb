//! The handle of the whole: cheap to clone, wires the parts, holds them in one `Arc`.

use std::{fmt, sync::Arc, time::Duration};

use tokio::task::JoinHandle;

pub use self::{
    factors::FactorsOf,
    roles::RolesOf,
    sessions::{SessionInfo, Sessions},
    tenants::Tenants,
    users::Users,
};
use crate::{
    base::{error::Error, time::Clock},
    flow::Desk,
    model::{Db, change::Change},
};

mod factors;
mod roles;
mod sessions;
mod tenants;
mod users;

/// Everything, behind one handle. Made by [`Mfa::builder`](crate::MfaBuilder).
#[derive(Clone)]
pub struct Mfa {
    pub(crate) desk: Arc<Desk>,
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

/// How often the change feed is read and the store's clock sampled.
const TICK: Duration = Duration::from_secs(1);
/// How often keys are tended and what has expired is swept.
const CHORES: u64 = 30;

impl Mfa {
    pub(crate) fn start(desk: Arc<Desk>, clock: Arc<dyn Clock>) -> Self {
        let ticking = tokio::spawn(tick(Arc::clone(&desk), clock));
        let sending = tokio::spawn(crate::delivery::worker::run(Arc::clone(&desk.courier)));
        Self { desk, _background: Arc::new(Background(vec![ticking, sending])) }
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

    /// Counters since the start, for operators.
    pub fn counters(&self) -> Counters {
        Counters {
            #[cfg(feature = "password")]
            password_hashes: self.desk.passwords.hashes(),
            #[cfg(not(feature = "password"))]
            password_hashes: 0,
            code_comparisons: self.desk.otp.comparisons(),
        }
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

async fn tick(desk: Arc<Desk>, clock: Arc<dyn Clock>) {
    let kit = &desk.kit;
    let mut ticks = 0_u64;
    loop {
        let _ = kit.ready().await;
        // A failing read shows in the feed's age, which every request looks at.
        let _ = kit.poll_feed().await;
        if let Ok(store) = kit.db.store_now().await {
            let ahead = store.as_millis().saturating_sub(clock.now().as_millis());
            if ahead.abs() > TICK.as_millis() as i64 {
                clock.follow(ahead);
            }
        }
        if ticks.is_multiple_of(CHORES) {
            let _ = kit.tend_keys().await;
            let _ = kit.db.sweep().await;
        }
        ticks += 1;
        tokio::time::sleep(TICK).await;
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
}
