//! The queue with its worker, on a clock that jumps to whatever is waited for.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize},
};

use tokio::{task::JoinHandle, time::Instant};

use super::*;
use crate::{
    base::{secret::Secret, time::Clock},
    delivery::{Delivery, worker},
    model::audit::{AuditEvent, Trail},
    store::{AnyStore, MemoryStore},
};

const START: i64 = 1_700_000_000;

/// The time that tokio's own clock says.
#[derive(Clone, Debug)]
struct Waiting(Instant);

impl Clock for Waiting {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(START) + self.0.elapsed()
    }
}

/// What the provider does with a notice.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Takes,
    Fails,
    Refuses,
    Hangs,
    Panics,
}

type Plan = dyn Fn(&Envelope, &Notice) -> Does + Send + Sync;

/// A provider that writes down every try.
#[derive(Clone)]
struct Provider {
    does: Arc<Plan>,
    tries: Arc<Mutex<Vec<(String, String, i64)>>>,
    at_once: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Provider {
    fn new(does: impl Fn(&Envelope, &Notice) -> Does + Send + Sync + 'static) -> Self {
        Self { does: Arc::new(does), tries: Arc::default(), at_once: Arc::default(), most: Arc::default() }
    }

    /// Id, code and second of each try.
    fn tries(&self) -> Vec<(String, String, i64)> {
        self.tries.lock().unwrap().clone()
    }

    fn seconds(&self) -> Vec<i64> {
        self.tries().into_iter().map(|(_, _, second)| second).collect()
    }
}

impl Delivery for Provider {
    async fn deliver(&self, envelope: &Envelope, notice: &Notice) -> Result<(), DeliveryError> {
        struct Left<'a>(&'a AtomicUsize);
        impl Drop for Left<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        let _left = Left(&self.at_once);
        self.most.fetch_max(now, Ordering::SeqCst);
        let code = notice.code().map(|code| code.expose().clone()).unwrap_or_default();
        let second = envelope.at.as_secs() - START;
        self.tries.lock().unwrap().push((envelope.id.clone(), code, second));
        match (self.does)(envelope, notice) {
            Does::Takes => Ok(()),
            Does::Fails => Err(DeliveryError::temporary("planted").with_reason("planted")),
            Does::Refuses => Err(DeliveryError::permanent("planted")),
            Does::Panics => panic!("planted"),
            Does::Hangs => std::future::pending().await,
        }
    }
}

/// One process of several on one store.
struct Node {
    dispatch: Arc<Dispatch>,
    task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct World {
    db: Db,
    sealer: Arc<Sealer>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(Waiting(Instant::now()));
        let db = Db::new(AnyStore::new(MemoryStore::new()), clock, Duration::from_secs(3600), Trail::new().0);
        Self { db, sealer: Arc::new(Sealer::new([("1", &[7; 32])]).unwrap()) }
    }

    fn idle(&self, provider: &Provider) -> Arc<Dispatch> {
        let names = ("Shop".to_owned(), "shop.example".to_owned());
        let delivery = AnyDelivery::new(provider.clone());
        Arc::new(Dispatch::new(self.db.clone(), Arc::clone(&self.sealer), delivery, names).unwrap())
    }

    fn node(&self, provider: &Provider) -> Node {
        let dispatch = self.idle(provider);
        let task = tokio::spawn(worker::run(Arc::clone(&dispatch)));
        Node { dispatch, task }
    }

    async fn queue(&self, dispatch: &Dispatch, to: &str, code: &str, lives: u64) {
        let notice = &Notice::SignInCode {
            to: Contact::parse(to).unwrap(),
            code: Some(Secret::new(code.to_owned())),
            link: None,
            valid_for: Duration::from_secs(lives),
            factor: FactorId::OTP_EMAIL,
            first_factor: true,
        };
        self.db
            .transact(code, |mut tx| async move {
                let end = tx.now() + Duration::from_secs(lives);
                dispatch.stage(&mut tx, &TenantId::PUBLIC, notice, end, false)?;
                tx.commit(())
            })
            .await
            .unwrap();
        dispatch.wake();
    }

    async fn left(&self) -> usize {
        let (mut scan, mut left) = (Scan::under(keys::queued()), 0);
        loop {
            let page: Vec<(Key, Queued)> = self.db.scan(&scan).await.unwrap();
            left += page.len();
            match page.last() {
                Some((key, _)) => scan = scan.after(key.clone()),
                None => return left,
            }
        }
    }

    async fn trail(&self) -> Vec<AuditEvent> {
        audit::since(&self.db, Timestamp::EPOCH).await.unwrap()
    }
}

async fn pass(secs: u64) {
    tokio::time::sleep(Duration::from_secs(secs)).await;
}

#[tokio::test(start_paused = true)]
async fn sec_v02_v03_five_tries_of_one_notice_then_operators_hear() {
    let (world, provider) = (World::new(), Provider::new(|_, _| Does::Fails));
    let node = world.node(&provider);
    world.queue(&node.dispatch, "a@shop.example", "123456", 600).await;
    pass(300).await;
    assert_eq!(provider.seconds(), [0, 2, 10, 42, 170]);
    let tries = provider.tries();
    assert!(tries.iter().all(|(id, code, _)| *id == tries[0].0 && code == "123456"));
    assert_eq!(world.left().await, 0);
    let events = world.trail().await;
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!((event.what, event.cause), (Audited::DeliveryFailed, Some(Cause::TriedOften)));
    assert_eq!((event.factor.clone(), event.what.is_alarming()), (Some(FactorId::OTP_EMAIL), true));
    assert_eq!(node.dispatch.counts.given_up.load(Ordering::SeqCst), 1);
    assert_eq!(node.dispatch.counts.failed_tries.load(Ordering::SeqCst), 5);
}

#[tokio::test(start_paused = true)]
async fn sec_v02_what_is_refused_or_too_late_is_given_up_at_once() {
    let (world, provider) = (World::new(), Provider::new(|_, _| Does::Refuses));
    let node = world.node(&provider);
    world.queue(&node.dispatch, "a@shop.example", "1", 600).await;
    pass(1).await;
    assert_eq!((world.left().await, world.trail().await[0].cause), (0, Some(Cause::Refused)));
    drop(node);
    // Nobody was there to try it.
    let (world, provider) = (World::new(), Provider::new(|_, _| Does::Takes));
    world.queue(&world.idle(&provider), "a@shop.example", "1", 60).await;
    pass(61).await;
    let _node = world.node(&provider);
    pass(1).await;
    assert_eq!((world.left().await, provider.tries().len()), (0, 0));
    assert_eq!(world.trail().await[0].cause, Some(Cause::TooLate));
}

#[tokio::test(start_paused = true)]
async fn sec_v02_ten_failures_in_a_row_open_the_circuit_of_one_channel() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let provider = Provider::new(move |_, notice| match notice.to() {
        Contact::Email(_) if is_down.load(Ordering::SeqCst) => Does::Fails,
        _ => Does::Takes,
    });
    let world = World::new();
    let node = world.node(&provider);
    for n in 0..10 {
        world.queue(&node.dispatch, "a@shop.example", &n.to_string(), 600).await;
    }
    pass(1).await;
    assert_eq!(provider.tries().len(), 10);
    // A new one waits without losing a try; an SMS doesn't.
    world.queue(&node.dispatch, "a@shop.example", "late", 600).await;
    world.queue(&node.dispatch, "+36301111142", "sms", 600).await;
    pass(28).await;
    assert_eq!(provider.tries().len(), 11);
    assert_eq!(provider.tries()[10].1, "sms");
    down.store(false, Ordering::SeqCst);
    pass(3).await;
    assert_eq!(world.left().await, 0, "all went as soon as one try was taken");
    assert!(provider.seconds()[11..].iter().all(|second| *second >= 30));
    assert!(world.trail().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn sec_v01_k07_nobody_waits_for_the_slowest_and_the_tries_are_bounded() {
    let provider = Provider::new(|_, notice| match notice.code().map(|code| code.expose().as_str()) {
        Some("slow") => Does::Hangs,
        _ => Does::Takes,
    });
    let world = World::new();
    let node = world.node(&provider);
    for _ in 0..40 {
        world.queue(&node.dispatch, "slow@shop.example", "slow", 600).await;
    }
    world.queue(&node.dispatch, "a@shop.example", "quick", 600).await;
    pass(1).await;
    assert!(provider.tries().iter().any(|(_, code, second)| code == "quick" && *second == 0));
    for _ in 0..100 {
        world.queue(&node.dispatch, "slow@shop.example", "slow", 600).await;
    }
    pass(10).await;
    assert_eq!(provider.most.load(Ordering::SeqCst), 64);
    assert_eq!(node.dispatch.counts.under_way.load(Ordering::SeqCst), 64);
}

#[tokio::test(start_paused = true)]
async fn sec_v01_a_backlog_of_pages_is_delivered_each_once() {
    let (world, provider) = (World::new(), Provider::new(|_, _| Does::Takes));
    let idle = world.idle(&provider);
    for n in 0..2500 {
        world.queue(&idle, "a@shop.example", &n.to_string(), 600).await;
    }
    let node = world.node(&provider);
    // What another process made is its own for 30 s.
    pass(29).await;
    assert_eq!((provider.tries().len(), node.dispatch.waiting()), (0, 2500));
    pass(10).await;
    let mut ids: Vec<String> = provider.tries().into_iter().map(|(id, ..)| id).collect();
    assert_eq!(ids.len(), 2500);
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), world.left().await), (2500, 0));
    pass(6).await;
    assert_eq!(node.dispatch.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn sec_v04_another_process_goes_on_with_the_same_notice() {
    let (world, hanging) = (World::new(), Provider::new(|_, _| Does::Hangs));
    let provider = Provider::new(|_, _| Does::Takes);
    let other = world.node(&provider);
    let node = world.node(&hanging);
    world.queue(&node.dispatch, "a@shop.example", "123456", 600).await;
    pass(3).await;
    // It dies with the notice in its hands.
    drop(node);
    pass(40).await;
    let (first, second) = (hanging.tries(), provider.tries());
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!((&first[0].0, &first[0].1), (&second[0].0, &second[0].1));
    assert!((30..=35).contains(&second[0].2), "{second:?}");
    assert_eq!(world.left().await, 0);
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn sec_v04_closing_waits_for_what_is_under_way_and_gives_back_the_rest() {
    let (world, hanging) = (World::new(), Provider::new(|_, _| Does::Hangs));
    let node = world.node(&hanging);
    for n in 0..70 {
        world.queue(&node.dispatch, "a@shop.example", &n.to_string(), 600).await;
    }
    pass(1).await;
    assert_eq!(hanging.tries().len(), 64);
    let begun = world.db.now();
    node.dispatch.close(Duration::from_secs(30)).await;
    assert_eq!(world.db.now().since(begun), Duration::from_secs(14), "a try ends after 15 s");
    // What wasn't begun is anybody's now, what was is tried again when its time has come.
    let provider = Provider::new(|_, _| Does::Takes);
    let _other = world.node(&provider);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(provider.tries().len(), 6);
    pass(5).await;
    assert_eq!((provider.tries().len(), world.left().await), (70, 0));
    node.dispatch.close(Duration::from_secs(30)).await;
}

#[tokio::test(start_paused = true)]
async fn sec_v03_a_try_that_panics_or_hangs_comes_again() {
    let provider = Provider::new(|envelope, _| match envelope.attempt {
        1 => Does::Panics,
        2 => Does::Hangs,
        _ => Does::Takes,
    });
    let world = World::new();
    let node = world.node(&provider);
    world.queue(&node.dispatch, "a@shop.example", "123456", 600).await;
    pass(60).await;
    // 15 s until the second one is given up, and 8 s of rest.
    assert_eq!(provider.seconds(), [0, 2, 25]);
    assert_eq!((world.left().await, node.dispatch.counts.delivered.load(Ordering::SeqCst)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn sec_v05_what_waits_is_sealed_and_gone_when_it_was_sent() {
    let (world, provider) = (World::new(), Provider::new(|_, _| Does::Takes));
    let idle = world.idle(&provider);
    world.queue(&idle, "alice@shop.example", "135790", 600).await;
    let rows: Vec<(Key, serde_json::Value)> = world.db.scan(&Scan::under(keys::queued())).await.unwrap();
    let text = format!("{rows:?}");
    assert!(rows.len() == 1 && !text.contains("135790") && !text.contains("alice"), "{text}");
    let _node = world.node(&provider);
    pass(40).await;
    assert_eq!((world.left().await, provider.tries()[0].1.as_str()), (0, "135790"));
}
