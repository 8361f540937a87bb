//! What goes on beside the requests: the change feed is read, the clock set by the store's, keys tended,
//! and what has expired swept.

use std::{sync::Arc, time::Duration};

use crate::flow::Desk;

/// How often the feed is read and the store's clock sampled.
const TICK: Duration = Duration::from_secs(1);
/// Every so many ticks the rarer chores.
const CHORES: u64 = 30;
const SWEEPS: usize = 20;

/// Runs until it is aborted.
pub(super) async fn run(desk: Arc<Desk>) {
    let mut ticks = 0_u64;
    loop {
        // A failing step shows where it matters: in the feed's age, in a missing key, in the next round.
        let kit = &desk.kit;
        let _ = kit.ready().await;
        let _ = kit.poll_feed().await;
        let _ = kit.set_clock().await;
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
