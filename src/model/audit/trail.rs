//! Where events go once their batch is committed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc;

use super::{AuditEvent, Ending, Event};
use crate::base::time::Timestamp;

/// Events that wait for the app's sink, and ends of sessions that wait for its hook.
pub(super) const WAITING: usize = 4096;

/// Where events go once their batch is committed: into bounded queues, so that whoever listens slowly holds
/// nothing up. What finds no room is counted; the trail in the store has it all the same.
#[derive(Clone, Debug)]
pub(crate) struct Trail {
    events: mpsc::Sender<AuditEvent>,
    endings: mpsc::Sender<Ending>,
    pub(crate) counts: Arc<Counts>,
}

/// The other ends of a [`Trail`]'s queues.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) events: mpsc::Receiver<AuditEvent>,
    pub(crate) endings: mpsc::Receiver<Ending>,
}

/// What became of what was told.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Found no room.
    pub(crate) dropped: AtomicU64,
    /// The sink failed, took too long or panicked.
    pub(crate) failed: AtomicU64,
    /// A hook did, or an end of a session found no room.
    pub(crate) hooks_failed: AtomicU64,
    /// On its way.
    pub(crate) waiting: AtomicU64,
}

impl Trail {
    pub(crate) fn new() -> (Self, Inbox) {
        let (events, of_events) = mpsc::channel(WAITING);
        let (endings, of_endings) = mpsc::channel(WAITING);
        let trail = Self { events, endings, counts: Arc::default() };
        (trail, Inbox { events: of_events, endings: of_endings })
    }

    /// Tells what a batch that is committed decided.
    pub(in crate::model) fn tell(&self, told: Vec<Event>) {
        for event in told {
            if let Some(ending) = event.ending() {
                self.queue(&self.endings, ending, &self.counts.hooks_failed);
            }
            self.queue(&self.events, event.record, &self.counts.dropped);
        }
    }

    /// Tells what is stored nowhere. It gives way to what is: a flood of it fills no more than half of the
    /// queue.
    pub(crate) fn mention(&self, mut event: Event, now: Timestamp) {
        event.record.at = now;
        match self.events.capacity() > WAITING / 2 {
            true => self.queue(&self.events, event.record, &self.counts.dropped),
            false => drop(self.counts.dropped.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn queue<T>(&self, queue: &mpsc::Sender<T>, told: T, dropped: &AtomicU64) {
        self.counts.waiting.fetch_add(1, Ordering::SeqCst);
        if queue.try_send(told).is_err() {
            self.counts.waiting.fetch_sub(1, Ordering::SeqCst);
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
