//! How many notices of each tenant wait (row V10). A count in memory: what the last look at the queue found, and
//! what this process added and took away since. A counter in the store would be written by every send.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::base::ident::TenantId;

/// More don't wait for a tenant.
pub(super) const MOST: u64 = 10_000;

#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<HashMap<TenantId, Count>>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    found: u64,
    added: u64,
    taken: u64,
}

/// What had been added and taken away when a look began.
pub(super) struct Mark(HashMap<TenantId, Count>);

impl Pending {
    pub(super) fn added(&self, tenant: &TenantId) {
        let mut counts = self.counts();
        let count = counts.entry(tenant.clone()).or_default();
        count.added = count.added.saturating_add(1);
    }

    pub(super) fn taken(&self, tenant: &TenantId) {
        let mut counts = self.counts();
        let count = counts.entry(tenant.clone()).or_default();
        count.taken = count.taken.saturating_add(1);
    }

    pub(super) fn is_full(&self, tenant: &TenantId) -> bool {
        self.counts().get(tenant).is_some_and(|count| count.waiting() >= MOST)
    }

    /// How many wait, of all tenants.
    pub(super) fn waiting(&self) -> u64 {
        self.counts().values().map(|count| count.waiting()).sum()
    }

    /// A look at the whole queue begins.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.counts().clone())
    }

    /// It ended, and found so many.
    pub(super) fn found(&self, mark: Mark, found: HashMap<TenantId, u64>) {
        let mut counts = self.counts();
        for (tenant, count) in counts.iter_mut() {
            let before = mark.0.get(tenant).copied().unwrap_or_default();
            count.found = 0;
            count.added = count.added.saturating_sub(before.added);
            count.taken = count.taken.saturating_sub(before.taken);
        }
        for (tenant, found) in found {
            counts.entry(tenant).or_default().found = found;
        }
        counts.retain(|_, count| count.found > 0 || count.added > 0 || count.taken > 0);
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<TenantId, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    fn waiting(self) -> u64 {
        self.found.saturating_add(self.added).saturating_sub(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_v10_counts_what_was_found_and_what_happened_since() {
        let (pending, here) = (Pending::default(), TenantId::PUBLIC);
        let there: TenantId = "there".parse().unwrap();
        for _ in 0..MOST - 1 {
            pending.added(&here);
        }
        assert!(!pending.is_full(&here));
        pending.added(&here);
        assert!(pending.is_full(&here) && !pending.is_full(&there));
        pending.taken(&here);
        assert!(!pending.is_full(&here));
        // What is added while the queue is looked through counts on top of what is found.
        let mark = pending.mark();
        pending.added(&here);
        pending.found(mark, HashMap::from([(here.clone(), MOST - 1), (there.clone(), 3)]));
        assert!(pending.is_full(&here));
        assert_eq!(pending.waiting(), MOST + 3);
        let mark = pending.mark();
        pending.found(mark, HashMap::new());
        assert_eq!((pending.waiting(), pending.counts().len()), (0, 0));
    }
}
