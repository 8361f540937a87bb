//! When the queue is looked through, and how many notices are under way at once.
//!
//! One task looks, and hands what is due to at most [`AT_ONCE`] others (row K07), so that nobody waits for the
//! slowest. It looks when something was queued, when something falls due, and every five seconds for what other
//! processes left behind.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use super::dispatch::{Dispatch, State};
use crate::{
    base::time::{self, Timestamp},
    store::Key,
};

/// How often everything is looked through.
const ROUND: Duration = Duration::from_secs(5);
/// What is looked through when something was queued: no transaction takes longer.
const RECENT: Duration = Duration::from_secs(15);
/// Deliveries under way at once.
const AT_ONCE: usize = 64;

/// What is being sent, and what is to be sent next.
#[derive(Default)]
struct Hands {
    sending: JoinSet<(Key, Option<Timestamp>)>,
    next: VecDeque<Key>,
    /// Both, by name.
    known: HashSet<Key>,
}

impl Hands {
    fn take(&mut self, due: Vec<Key>) {
        for key in due {
            if self.known.insert(key.clone()) {
                self.next.push_back(key);
            }
        }
    }

    fn fill(&mut self, dispatch: &Arc<Dispatch>) {
        while self.sending.len() < AT_ONCE {
            let Some(key) = self.next.pop_front() else { break };
            let dispatch = Arc::clone(dispatch);
            self.sending.spawn(async move {
                // What the store didn't take is found again when its lease has ended.
                let again = dispatch.send(&key).await.unwrap_or_default();
                (key, again)
            });
        }
        dispatch.counts.under_way.store(self.sending.len() as u64, Ordering::Relaxed);
    }
}

/// Sends until it is told to close, or the last handle is gone.
pub(crate) async fn run(dispatch: Arc<Dispatch>) {
    let (mut hands, mut state) = (Hands::default(), dispatch.state.subscribe());
    let (mut look_at, mut woken) = (time::of_runtime(), false);
    loop {
        let now = time::of_runtime();
        let due = now >= look_at;
        // Whoever has enough at hand needn't look for more.
        if due || (woken && hands.next.len() < AT_ONCE) {
            woken = false;
            let since = (!due).then(|| dispatch.db.now() - RECENT);
            let look = dispatch.look(since, &hands.known).await;
            if due {
                // What failed is tried again in the next round.
                look_at = now + ROUND;
            }
            if let Ok(look) = look {
                look_at = sooner(look_at, look.next, &dispatch);
                hands.take(look.due);
            }
        }
        hands.fill(&dispatch);
        tokio::select! {
            () = dispatch.wake.notified() => woken = true,
            Some(done) = hands.sending.join_next() => match done {
                Ok((key, again)) => {
                    hands.known.remove(&key);
                    look_at = sooner(look_at, again, &dispatch);
                }
                // Nothing panics but what is caught; a key that stayed known would never be sent again.
                Err(_) => hands.known = hands.next.iter().cloned().collect(),
            },
            () = tokio::time::sleep_until(look_at) => {}
            _ = state.wait_for(|state| *state != State::Working) => break,
        }
    }
    while hands.sending.join_next().await.is_some() {}
    dispatch.counts.under_way.store(0, Ordering::Relaxed);
    // What can't be given back is found by the others when its lease has ended.
    let _ = dispatch.give_back().await;
    dispatch.state.send_replace(State::Closed);
}

/// When to look, given that something falls due.
fn sooner(look_at: Instant, due: Option<Timestamp>, dispatch: &Dispatch) -> Instant {
    let Some(due) = due else { return look_at };
    let wait = due.since(dispatch.db.now()).max(Duration::from_millis(10));
    look_at.min(time::of_runtime() + wait)
}
