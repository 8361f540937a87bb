//! Who hashes now, and who waits for it: one tenant after the other, so that one with many sign-ins keeps nobody else's
//! waiting (row N07).

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use argon2::Block;
use tokio::{
    sync::oneshot::{self, Receiver, Sender},
    time::timeout,
};

use crate::base::ident::TenantId;

/// So many hash at once, so many more wait. Those of one tenant never take all places to wait.
pub(super) struct Line {
    permits: usize,
    places: usize,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Permits that are out. While one is free, nobody waits.
    out: usize,
    /// Who waits, by tenant, each tenant's in the order in which they came: the first one of the first tenant is next.
    /// A tenant that is here has somebody who waits.
    waiting: VecDeque<(TenantId, VecDeque<Sender<Permit>>)>,
}

/// Leave to hash, and the memory for it. Whoever is next gets both when it is dropped: however many wait, there is no
/// more memory in use than there are permits, and an allocator has nothing to break into pieces (row W01).
pub(super) struct Permit {
    line: Option<Arc<Line>>,
    pub(super) memory: Vec<Block>,
}

enum Place {
    Now(Permit),
    Later(Receiver<Permit>),
}

impl Line {
    pub(super) fn new(permits: usize, places: usize, patience: Duration) -> Self {
        Self { permits, places, patience, state: Mutex::default() }
    }

    /// Waits for a permit. `None`: too many wait already, or it took too long.
    pub(super) async fn enter(self: &Arc<Self>, tenant: &TenantId) -> Option<Permit> {
        match self.stand(tenant)? {
            Place::Now(permit) => Some(permit),
            Place::Later(called) => timeout(self.patience, called).await.ok()?.ok(),
        }
    }

    fn stand(self: &Arc<Self>, tenant: &TenantId) -> Option<Place> {
        let mut state = self.state();
        if state.out < self.permits {
            state.out += 1;
            let permit = Permit { line: Some(Arc::clone(self)), memory: Vec::new() };
            return Some(Place::Now(permit));
        }
        state.forget_who_left();
        let all: usize = state.waiting.iter().map(|(_, line)| line.len()).sum();
        // A quarter is always left to others.
        let share = self.places - self.places / 4;
        let own = state.waiting.iter_mut().find(|(id, _)| id == tenant);
        if all >= self.places || own.as_ref().is_some_and(|(_, line)| line.len() >= share) {
            return None;
        }
        let (turn, called) = oneshot::channel();
        match own {
            Some((_, line)) => line.push_back(turn),
            None => state.waiting.push_back((tenant.clone(), VecDeque::from([turn]))),
        }
        Some(Place::Later(called))
    }

    /// Hands a permit on to whoever is next, or takes it back.
    fn pass_on(self: Arc<Self>, memory: Vec<Block>) {
        let mut permit = Permit { line: Some(Arc::clone(&self)), memory };
        loop {
            let turn = {
                let mut state = self.state();
                let turn = state.next();
                if turn.is_none() {
                    state.out -= 1;
                }
                turn
            };
            let Some(turn) = turn else {
                permit.line = None;
                return;
            };
            // Whoever left meanwhile gives it back.
            match turn.send(permit) {
                Ok(()) => return,
                Err(back) => permit = back,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> Option<Sender<Permit>> {
        let (tenant, mut line) = self.waiting.pop_front()?;
        let turn = line.pop_front();
        if !line.is_empty() {
            self.waiting.push_back((tenant, line));
        }
        turn
    }

    fn forget_who_left(&mut self) {
        for (_, line) in &mut self.waiting {
            line.retain(|turn| !turn.is_closed());
        }
        self.waiting.retain(|(_, line)| !line.is_empty());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            line.pass_on(mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: &str) -> TenantId {
        TenantId::parse(id).unwrap()
    }

    /// Everybody in the line, from its head.
    fn waits(line: &Line) -> Vec<String> {
        let state = line.state();
        state.waiting.iter().flat_map(|(id, line)| vec![id.to_string(); line.len()]).collect()
    }

    fn line(permits: usize, places: usize) -> Arc<Line> {
        Arc::new(Line::new(permits, places, Duration::from_secs(30)))
    }

    fn later(line: &Arc<Line>, tenant: &TenantId) -> Option<Receiver<Permit>> {
        match line.stand(tenant) {
            Some(Place::Later(called)) => Some(called),
            Some(Place::Now(_)) => panic!("nobody hashes"),
            None => None,
        }
    }

    #[test]
    fn sec_n07_no_tenant_takes_every_place_and_each_has_its_turn() {
        let (line, loud, quiet) = (line(1, 64), tenant("loud"), tenant("quiet"));
        let Some(Place::Now(mut hashing)) = line.stand(&loud) else { panic!("nobody hashes yet") };
        let mut louds: VecDeque<_> = (0..1000).filter_map(|_| later(&line, &loud)).collect();
        assert_eq!(louds.len(), 48);
        let mut quiets: VecDeque<_> = (0..1000).filter_map(|_| later(&line, &quiet)).collect();
        assert_eq!(quiets.len(), 16, "what is left to others");
        // However many were there before, the other tenant is served every other time.
        let mut served = String::new();
        for _ in 0..20 {
            drop(hashing);
            let take = |line: &mut VecDeque<Receiver<Permit>>| line.front_mut().unwrap().try_recv().ok();
            hashing = match (take(&mut louds), take(&mut quiets)) {
                (Some(permit), None) => {
                    louds.pop_front();
                    served.push('l');
                    permit
                }
                (None, Some(permit)) => {
                    quiets.pop_front();
                    served.push('q');
                    permit
                }
                (both, _) => panic!("{}", both.is_some()),
            };
        }
        assert_eq!(served, "lq".repeat(10));
        // Alone again, a tenant has every permit there is.
        drop((quiets, hashing));
        let mut left = 0;
        while let Some(mut next) = louds.pop_front() {
            drop(next.try_recv().unwrap());
            left += 1;
        }
        assert_eq!((left, waits(&line).len(), line.state().out), (38, 0, 0));
    }

    #[test]
    fn who_left_takes_no_place_and_keeps_no_permit() {
        let (line, a, b) = (line(1, 4), tenant("a"), tenant("b"));
        let Some(Place::Now(hashing)) = line.stand(&a) else { panic!("nobody hashes yet") };
        let first = (later(&line, &a), later(&line, &a), later(&line, &a));
        assert!(first.2.is_some() && later(&line, &a).is_none());
        drop(first);
        let (mut one, two) = (later(&line, &a).unwrap(), later(&line, &b).unwrap());
        assert_eq!(waits(&line), ["a", "b"]);
        drop(two);
        drop(hashing);
        // It lies ready for the one; dropped unseen it goes on to nobody.
        let mut three = later(&line, &b).unwrap();
        assert!(three.try_recv().is_err());
        one.close();
        drop(one);
        drop(three.try_recv().unwrap());
        assert_eq!(line.state().out, 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn permits_are_never_lost() {
        let line = Arc::new(Line::new(3, 64, Duration::from_millis(2)));
        let callers = (0..400_u64).map(|n| {
            let (line, tenant) = (Arc::clone(&line), tenant(&format!("t{}", n % 7)));
            tokio::spawn(async move {
                let Some(_permit) = line.enter(&tenant).await else { return };
                assert!(line.state().out <= 3);
                tokio::time::sleep(Duration::from_micros(n % 13 * 200)).await;
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        assert_eq!(line.state().out, 0);
        assert!(line.enter(&tenant("a")).await.is_some());
    }
}
