//! How many wait for providers at once. One that is slow holds up its own people: each provider of the app's has seats of
//! its own, and so has each tenant, for all of its own providers together; those of tenants take none from the app's.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::Provider;
use crate::base::ident::TenantId;

/// How many requests of the app's users may be under way at once at one provider of the app's, or at those of a tenant.
const EACH: usize = 32;
/// And at all of the app's; as many again at those of all tenants.
const ALL: usize = 128;

/// Those that are taken, by whose they are.
#[derive(Default)]
pub(super) struct Seats(Mutex<HashMap<Whose, usize>>);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Whose {
    /// A provider of the app's.
    App(String),
    /// Whatever a tenant has of its own.
    Tenant(TenantId),
}

/// One of them, until it is dropped.
pub(super) struct Seat<'s> {
    seats: &'s Seats,
    whose: Whose,
}

impl Seats {
    /// A seat at this provider, if there is one left.
    pub(super) fn take(&self, provider: &Provider) -> Option<Seat<'_>> {
        let whose = match &provider.tenant {
            Some(tenant) => Whose::Tenant(tenant.clone()),
            None => Whose::App(provider.id.clone()),
        };
        let mut taken = self.taken();
        let kind = std::mem::discriminant(&whose);
        let all: usize =
            taken.iter().filter(|(who, _)| std::mem::discriminant(*who) == kind).map(|(_, n)| n).sum();
        if all >= ALL || taken.get(&whose).is_some_and(|n| *n >= EACH) {
            return None;
        }
        *taken.entry(whose.clone()).or_default() += 1;
        Some(Seat { seats: self, whose })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Whose, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        let left = taken.get(&self.whose).map_or(0, |n| n.saturating_sub(1));
        match left {
            0 => drop(taken.remove(&self.whose)),
            left => drop(taken.insert(self.whose.clone(), left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::ProviderClient;

    fn provider(id: &str, tenant: Option<&str>) -> Provider {
        let provider = Provider::oidc(id, "X", "https://id.example", ProviderClient::public("shop"));
        Provider { tenant: tenant.map(|tenant| TenantId::parse(tenant).unwrap()), ..provider }
    }

    #[test]
    fn sec_n07_each_has_its_share_and_gives_it_back() {
        let seats = Seats::default();
        let take = |id: &str, tenant: Option<&str>| -> Vec<Seat<'_>> {
            std::iter::from_fn(|| seats.take(&provider(id, tenant))).collect()
        };
        let apps: Vec<Vec<Seat<'_>>> = (0..5).map(|n| take(&format!("p{n}"), None)).collect();
        assert_eq!(apps.iter().map(Vec::len).collect::<Vec<_>>(), [32, 32, 32, 32, 0]);
        // Those of one tenant count together, and apart from the app's of the same id.
        let tenants = [("p0", "a"), ("p1", "a"), ("p0", "b"), ("p0", "c"), ("p0", "d"), ("p0", "e")];
        let theirs: Vec<Vec<Seat<'_>>> = tenants.iter().map(|(id, tenant)| take(id, Some(tenant))).collect();
        assert_eq!(theirs.iter().map(Vec::len).collect::<Vec<_>>(), [32, 0, 32, 32, 32, 0]);
        drop((apps, theirs));
        assert!(seats.taken().is_empty());
        assert_eq!(take("p0", None).len(), 32);
    }
}
