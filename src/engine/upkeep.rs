//! What goes on beside the requests: the change feed is read, the clock set by the store's, keys tended,
//! and what has expired swept.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{base::time::Clock, flow::Desk};

/// How often the feed is read and the store's clock sampled.
const TICK: Duration = Duration::from_secs(1);
/// Every so many ticks the rarer chores.
const CHORES: u64 = 30;
const SWEEPS: usize = 20;
/// How far the guarded clock may be from the store's before the node signs nothing (row D07).
const SKEW: u64 = 5_000;
/// How long the guard may hold the clock before the process should be restarted (row J28).
const HELD: Duration = Duration::from_secs(60);

/// Runs until it is aborted. An app's own clock answers for itself and is left alone.
pub(super) async fn run(desk: Arc<Desk>, clock: Arc<dyn Clock>, own_clock: bool) {
    let mut ticks = 0_u64;
    // How far the clock has been moved already.
    let mut moved = 0_i64;
    loop {
        // A failing step shows where it matters: in the feed's age, in a missing key, in the next round.
        let kit = &desk.kit;
        let _ = kit.ready().await;
        let _ = kit.poll_feed().await;
        if !own_clock && let Ok(store) = kit.db.store_now().await {
            let ahead = store.as_millis().saturating_sub(clock.now().as_millis());
            if ahead.unsigned_abs() > 500 {
                clock.follow(ahead);
                moved = moved.saturating_add(ahead);
            }
            let skewed = moved.unsigned_abs() > SKEW || clock.held() > HELD;
            if kit.skewed.swap(skewed, Ordering::Relaxed) != skewed && skewed {
                #[cfg(feature = "tracing")]
                tracing::error!(
                    "this node's clock is too far from the store's: it signs nothing until that is mended"
                );
            }
        }
        if ticks.is_multiple_of(CHORES) {
            let _tended = kit.tend_keys().await;
            #[cfg(feature = "tracing")]
            if let Err(error) = _tended {
                tracing::error!(%error, "the signing keys can't be tended");
            }
            // A thousand at a time, while there are so many.
            for _ in 0..SWEEPS {
                if kit.db.sweep().await.unwrap_or(0) < 1000 {
                    break;
                }
            }
        }
        ticks = ticks.wrapping_add(1);
        tokio::time::sleep(TICK).await;
    }
}
