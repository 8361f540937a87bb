//! A policy on trial: asked beside the live one, heard by nobody but the log and the counters.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{evaluate::bounded, facts::StoredFacts};
use crate::{
    base::ident::FactorId,
    policy::{AnyPolicy, MfaPolicy as _, PolicyContext, Requirements, list},
};

/// How long it may take: it delays what it is asked beside, and must not by much.
const PATIENCE: Duration = Duration::from_millis(500);

/// The policy, and what came of it.
#[derive(Debug)]
pub(crate) struct Shadow {
    policy: AnyPolicy,
    asked: AtomicU64,
    stopped: AtomicU64,
    passed: AtomicU64,
    failed: AtomicU64,
}

/// What the policy on trial ([`MfaBuilder::shadow`](crate::MfaBuilder::shadow)) would have done, in
/// judgements and not in people: a session is judged several times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShadowCounts {
    /// How often it was asked.
    pub asked: u64,
    /// How often it would have stopped a session that the live policy lets pass.
    pub stopped: u64,
    /// How often it would have let a session pass that the live policy stops.
    pub passed: u64,
    /// How often it failed, took too long, panicked, or named a factor that nobody knows.
    pub failed: u64,
}

impl Shadow {
    pub(crate) fn new(policy: AnyPolicy) -> Self {
        let zero = AtomicU64::default;
        Self { policy, asked: zero(), stopped: zero(), passed: zero(), failed: zero() }
    }

    pub(crate) fn counts(&self) -> ShadowCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ShadowCounts {
            asked: read(&self.asked),
            stopped: read(&self.stopped),
            passed: read(&self.passed),
            failed: read(&self.failed),
        }
    }

    /// Asks it about what the live policy just answered about. After it, not at the same time: what the
    /// live policy waits for must not hang on this one.
    pub(crate) async fn compare(
        &self,
        live: &Requirements,
        ctx: &PolicyContext<'_>,
        facts: &StoredFacts,
        usable: &[FactorId],
        knows: impl Fn(&FactorId) -> bool,
    ) {
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        add(&self.asked);
        // What the tenant lets count narrows it as it narrows the live one.
        let asking = async {
            let demand = self.policy.requirements(ctx).await?;
            let counting = match demand.demands_nothing() {
                true => None,
                false => facts.rule().await?.counting.as_deref(),
            };
            Ok(counting.into_iter().fold(demand, Requirements::counting))
        };
        let demand = match bounded(asking, PATIENCE).await {
            Ok(demand) if list::unknown(&demand, knows).is_none() => demand.among(usable.iter().cloned()),
            _ => {
                add(&self.failed);
                #[cfg(feature = "tracing")]
                tracing::warn!("the shadow policy failed: nothing follows from it");
                return;
            }
        };
        let met = |list: &Requirements| list.next(ctx.completed(), ctx.now()).is_none();
        match (met(live), met(&demand)) {
            (true, false) => {
                add(&self.stopped);
                #[cfg(feature = "tracing")]
                tracing::info!(
                    user = %ctx.session().user,
                    tenant = %ctx.tenant(),
                    demand = %demand.explain(ctx.completed(), ctx.now()),
                    "the shadow policy would stop this session"
                );
            }
            (false, true) => {
                add(&self.passed);
            }
            _ => {}
        }
    }
}
