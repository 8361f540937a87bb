use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use super::*;
use crate::{
    Clock,
    base::{error::ErrorKind, hash, time},
    config::{AppInfo, Lifetimes, Secrets},
    model::{
        keys,
        keyset::{KeySet, StoredKey},
    },
    session::{
        Kit,
        claims::tests::somebody,
        feed::Freshness,
        signing::SigningKey,
        token::{self, OpenError, Room},
    },
    store::{Batch, Commit, Key, MemoryStore, Record, Row, Scan, Store, StoreError},
};

const START: i64 = 1_700_000_000;
const LIFE: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug)]
struct HandClock(Arc<AtomicI64>);

impl HandClock {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(START * 1000)))
    }

    fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

fn secrets(ids: &[&str]) -> Secrets {
    let key = |id: &str| *hash::sha256(id.as_bytes()).first_chunk::<32>().unwrap();
    let first = Secrets::new(ids[0], key(ids[0])).unwrap();
    ids[1..].iter().fold(first, |secrets, id| secrets.and_older(id, key(id)).unwrap())
}

/// A process whose upkeep is done by hand.
fn node(store: &MemoryStore, clock: &HandClock, secrets: Secrets, alg: SigningAlg) -> Mfa {
    let app = AppInfo::new("Shop", "https://api.shop.test", "https://shop.test").unwrap();
    let lifetimes = Lifetimes { access_token: LIFE, signing_key: HOUR, ..Lifetimes::default() };
    let mfa = Mfa::builder(app, secrets, store.clone())
        .clock(clock.clone())
        .lifetimes(lifetimes)
        .signing(alg)
        .without_passwordless()
        .build()
        .unwrap();
    mfa._background.0.iter().for_each(tokio::task::JoinHandle::abort);
    mfa
}

fn kit(mfa: &Mfa) -> &Kit {
    &mfa.desk.kit
}

fn minted(kit: &Kit, key: &SigningKey, life: Duration) -> String {
    let room = Room { name: 12, limit: 4096 };
    token::mint(&somebody(kit.db.now(), life), key, &kit.issuer, room).unwrap().token.expose().clone()
}

fn opens(kit: &Kit, token: &str) -> Result<(), OpenError> {
    token::open(token.as_bytes(), &kit.keys.current(), &kit.issuer, kit.db.now()).map(|_| ())
}

async fn look(mfa: &Mfa) {
    kit(mfa).poll_feed().await.unwrap();
    kit(mfa).tend_keys().await.unwrap();
}

fn signs_with(mfa: &Mfa) -> String {
    let keyring = kit(mfa).keys.current();
    keyring.signing(kit(mfa).db.now()).unwrap().kid().to_owned()
}

async fn states(mfa: &Mfa) -> Vec<(String, KeyState)> {
    mfa.keys().list().await.unwrap().into_iter().map(|key| (key.kid, key.state)).collect()
}

async fn stored(mfa: &Mfa) -> KeySet {
    kit(mfa).stored_keys().await.unwrap()
}

async fn store_keys(mfa: &Mfa, set: &KeySet) {
    let store = |mut tx: crate::model::Tx| async move {
        tx.put(keys::keyset(), set, None).await?;
        tx.commit(())
    };
    kit(mfa).db.transact("keyset", store).await.unwrap();
}

/// Three processes on one store, 30 days, a new key every hour. Around a publication, a change and a
/// retirement each looks at the store once a minute, at seconds of its own, 60 times as seldom as it does;
/// where nothing happens they look now and then.
#[tokio::test]
async fn sec_j07_thirty_days_of_hourly_rotation_refuse_no_valid_token_and_accept_no_retired_key() {
    let (store, clock) = (MemoryStore::new(), HandClock::new());
    let nodes = [0, 1, 2].map(|_| node(&store, &clock, secrets(&["a"]), SigningAlg::EdDsa));
    for mfa in &nodes {
        look(mfa).await;
    }
    // When a token ends, and the token.
    let mut live: Vec<(Timestamp, String)> = Vec::new();
    // By key: a token that outlives it, and when the key retires.
    let mut keys: BTreeMap<String, (String, Timestamp)> = BTreeMap::new();
    let (mut retired, mut lasted): (Vec<String>, usize) = (Vec::new(), 0);
    let (end, mut step) = (clock.now() + 30 * 24 * HOUR, 0_u64);
    while clock.now() < end {
        let length = match (clock.now().as_secs() - START) % 3600 {
            // The change, the last moments of tokens of that time, the retirement, the publication.
            0..100 | 400..700 | 1160..1260 | 3400.. => Duration::from_secs(20),
            100..400 => Duration::from_secs(300),
            700..1160 => Duration::from_secs(460),
            _ => Duration::from_secs(535),
        };
        clock.advance(length);
        step += 1;
        let (turn, now) = ((step % 3) as usize, clock.now());
        for (n, mfa) in nodes.iter().enumerate() {
            if n == turn || length > Duration::from_secs(20) {
                look(mfa).await;
            }
        }
        // Often around a change of keys, now and then between.
        let signers: Vec<String> = nodes.iter().map(signs_with).collect();
        let changing = signers.iter().any(|kid| *kid != signers[0]) || !keys.contains_key(&signers[turn]);
        if changing || step.is_multiple_of(10) {
            for mfa in &nodes {
                let ring = kit(mfa).keys.current();
                let key = ring.signing(now).unwrap();
                live.push((now + LIFE, minted(kit(mfa), key, LIFE)));
                let lasting = || (minted(kit(mfa), key, 40 * 24 * HOUR), key.times().verify_until);
                keys.entry(key.kid().to_owned()).or_insert_with(lasting);
                let (_, token) = live.last().unwrap();
                for other in &nodes {
                    assert_eq!(opens(kit(other), token), Ok(()), "just made, at step {step}");
                }
            }
        }
        // In their last moments they are still good, on the process whose turn it is.
        let ending = |(end, _): &mut (Timestamp, String)| *end <= now + Duration::from_secs(20);
        for (_, token) in live.extract_if(.., ending).filter(|(end, _)| now < *end) {
            lasted += 1;
            assert_eq!(opens(kit(&nodes[turn]), &token), Ok(()), "about to end, at step {step}");
        }
        let over = |_: &String, (_, until): &mut (String, Timestamp)| *until <= now;
        for (kid, (token, _)) in keys.extract_if(.., over) {
            for mfa in &nodes {
                assert!(opens(kit(mfa), &token).is_err(), "{kid} retired at step {step}");
            }
            retired.push(token);
        }
        if step.is_multiple_of(40) {
            for token in retired.iter().rev().take(3).chain(retired.first()) {
                assert!(opens(kit(&nodes[turn]), token).is_err(), "retired for long, at step {step}");
            }
        }
    }
    assert!((715..=725).contains(&(retired.len() + keys.len())), "{} {}", retired.len(), keys.len());
    assert!(lasted > 2 * 720, "{lasted}");
    assert!(stored(&nodes[0]).await.keys.len() <= 3, "what retired is gone from the store");
}

#[tokio::test]
async fn a_rotation_by_hand_publishes_first_and_retires_the_former_key_soon() {
    let (store, clock) = (MemoryStore::new(), HandClock::new());
    let mfa = node(&store, &clock, secrets(&["a"]), SigningAlg::EdDsa);
    look(&mfa).await;
    let first = signs_with(&mfa);
    let token = minted(kit(&mfa), kit(&mfa).keys.current().find(&first).unwrap(), LIFE);
    let second = mfa.keys().rotate().await.unwrap();
    assert_eq!(mfa.keys().rotate().await.unwrap(), second, "one that waits will do");
    assert_eq!(
        states(&mfa).await,
        [(first.clone(), KeyState::Signing), (second.clone(), KeyState::Published)]
    );
    assert_eq!(kit(&mfa).keys.current().jwks(clock.now())["keys"].as_array().unwrap().len(), 2);
    clock.advance(Duration::from_secs(59));
    assert_eq!(signs_with(&mfa), first);
    clock.advance(Duration::from_secs(1));
    assert_eq!(signs_with(&mfa), second);
    assert_eq!(states(&mfa).await[0], (first.clone(), KeyState::Verifying));
    assert_eq!(opens(kit(&mfa), &token), Ok(()));
    clock.advance(2 * LIFE);
    assert_eq!(states(&mfa).await[0], (first.clone(), KeyState::Retired));
    look(&mfa).await;
    assert_eq!(states(&mfa).await, [(second, KeyState::Signing)]);
}

#[tokio::test]
async fn sec_j08_a_revoked_key_never_comes_back() {
    let (store, clock) = (MemoryStore::new(), HandClock::new());
    let nodes = [0, 1].map(|_| node(&store, &clock, secrets(&["a"]), SigningAlg::EdDsa));
    for mfa in &nodes {
        look(mfa).await;
    }
    let [one, two] = &nodes;
    let leaked = signs_with(one);
    let token = minted(kit(one), kit(one).keys.current().find(&leaked).unwrap(), LIFE);
    let before = stored(one).await;
    let slip = one.keys().revoke("d-1").await.unwrap_err();
    assert_eq!(slip.kind(), ErrorKind::NotFound);
    one.keys().revoke(&leaked).await.unwrap();
    // The clock stands still: the successor's id is another all the same, and it signs at once.
    let next = signs_with(one);
    assert_ne!(next, leaked);
    assert_eq!(states(one).await, [(next.clone(), KeyState::Signing)]);
    assert_eq!(one.keys().revoked().await.unwrap(), std::slice::from_ref(&leaked));
    assert_eq!(opens(kit(one), &token), Err(OpenError::UnknownKey(leaked.clone())));
    assert_eq!(opens(kit(two), &token), Ok(()), "nobody told it yet");
    kit(two).poll_feed().await.unwrap();
    assert_eq!(opens(kit(two), &token), Err(OpenError::UnknownKey(leaked.clone())));
    assert_eq!(signs_with(two), next);
    // Again changes nothing.
    one.keys().revoke(&leaked).await.unwrap();
    assert_eq!(signs_with(one), next);

    // Somebody puts the stored key back.
    let mut tampered = stored(one).await;
    tampered.keys.extend(before.keys);
    store_keys(one, &tampered).await;
    let fresh = node(&store, &clock, secrets(&["a"]), SigningAlg::EdDsa);
    for mfa in [one, two, &fresh] {
        kit(mfa).load_keys().await.unwrap();
        assert_eq!(opens(kit(mfa), &token), Err(OpenError::UnknownKey(leaked.clone())));
        assert_eq!(states(mfa).await, [(next.clone(), KeyState::Signing)]);
    }
    look(two).await;
    assert!(stored(two).await.keys.iter().all(|key| key.kid != leaked), "it is cleared away");
    // Of several, the next in line signs.
    let third = two.keys().rotate().await.unwrap();
    clock.advance(Duration::from_secs(60));
    two.keys().revoke(&third).await.unwrap();
    assert_eq!(states(two).await, [(next, KeyState::Signing)]);
    assert_eq!(two.keys().revoked().await.unwrap(), [leaked, third]);
}

#[tokio::test]
async fn sec_j08_what_was_revoked_goes_even_where_the_rest_cant_be_opened() {
    let (store, clock) = (MemoryStore::new(), HandClock::new());
    let old = node(&store, &clock, secrets(&["a"]), SigningAlg::EdDsa);
    look(&old).await;
    let new = node(&store, &clock, secrets(&["b", "a"]), SigningAlg::EdDsa);
    look(&new).await;
    let leaked = signs_with(&new);
    let token = minted(kit(&old), kit(&old).keys.current().find(&leaked).unwrap(), LIFE);
    new.keys().revoke(&leaked).await.unwrap();
    // The process that lacks the new root key can't open the successor, and says so.
    let error = kit(&old).poll_feed().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("root key"), "{error}");
    assert_eq!(opens(kit(&old), &token), Err(OpenError::UnknownKey(leaked)));
    assert!(!old.is_ready());
}

#[tokio::test]
async fn an_older_root_keys_seals_are_renewed_and_a_lost_one_has_a_way_out() {
    let sealed = |set: &KeySet| -> Vec<String> {
        let id = |key: &StoredKey| key.sealed.split('.').next().unwrap().to_owned();
        set.keys.iter().map(id).collect()
    };
    let (store, clock) = (MemoryStore::new(), HandClock::new());
    let old = node(&store, &clock, secrets(&["a"]), SigningAlg::EdDsa);
    look(&old).await;
    let kid = signs_with(&old);
    let token = minted(kit(&old), kit(&old).keys.current().find(&kid).unwrap(), LIFE);
    assert_eq!(sealed(&stored(&old).await), ["a"]);
    let both = node(&store, &clock, secrets(&["b", "a"]), SigningAlg::EdDsa);
    look(&both).await;
    assert_eq!(sealed(&stored(&both).await), ["b"]);
    assert_eq!((signs_with(&both), opens(kit(&both), &token)), (kid.clone(), Ok(())));
    let new = node(&store, &clock, secrets(&["b"]), SigningAlg::EdDsa);
    look(&new).await;
    assert_eq!((signs_with(&new), opens(kit(&new), &token)), (kid.clone(), Ok(())));

    // Gone before anything was sealed anew: no keys, and no new ones that would hide it.
    let other = node(&store, &clock, secrets(&["c"]), SigningAlg::EdDsa);
    let error = kit(&other).tend_keys().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    other.keys().rotate().await.unwrap_err();
    assert!(kit(&other).keys.current().is_empty() && !other.is_ready());
    assert_eq!(states(&other).await, [(kid.clone(), KeyState::Signing)]);
    // The operator gives up what can't be opened.
    other.keys().revoke(&kid).await.unwrap();
    look(&other).await;
    assert!(other.is_ready() && signs_with(&other) != kid);
}

#[tokio::test]
async fn another_algorithm_takes_over_without_a_break_and_a_secret_at_once() {
    let (store, clock) = (MemoryStore::new(), HandClock::new());
    let with = |alg| node(&store, &clock, secrets(&["a"]), alg);
    let ed = with(SigningAlg::EdDsa);
    look(&ed).await;
    let token = minted(kit(&ed), kit(&ed).keys.current().signing(clock.now()).unwrap(), LIFE);
    let es = with(SigningAlg::Es256);
    look(&es).await;
    look(&ed).await;
    assert_eq!((signs_with(&es), opens(kit(&es), &token)), (signs_with(&ed), Ok(())));
    clock.advance(Duration::from_secs(60));
    assert_ne!(signs_with(&es), signs_with(&ed));
    let later = minted(kit(&es), kit(&es).keys.current().signing(clock.now()).unwrap(), LIFE);
    for mfa in [&ed, &es] {
        look(mfa).await;
        assert_eq!((opens(kit(mfa), &token), opens(kit(mfa), &later)), (Ok(()), Ok(())));
        assert_eq!(stored(mfa).await.keys.len(), 2, "they don't chase each other");
    }
    let hs = with(SigningAlg::Hs256);
    look(&hs).await;
    for token in [&token, &later] {
        assert!(matches!(opens(kit(&hs), token), Err(OpenError::UnknownKey(_))));
    }
    let secret = minted(kit(&hs), kit(&hs).keys.current().signing(clock.now()).unwrap(), LIFE);
    assert_eq!(opens(kit(&hs), &secret), Ok(()));
    assert_eq!(kit(&hs).keys.current().jwks(clock.now()), serde_json::json!({"keys": []}));
    look(&ed).await;
    assert!(matches!(opens(kit(&ed), &secret), Err(OpenError::UnknownKey(_))));
    let published = kit(&ed).keys.current().jwks(clock.now()).to_string();
    assert!(!published.contains(&signs_with(&hs)), "a secret's id isn't published either");
    let of = |alg| mfa_states(&hs, alg);
    assert_eq!(of(SigningAlg::EdDsa).await, [KeyState::Retired]);
    assert_eq!(of(SigningAlg::Hs256).await, [KeyState::Signing]);
}

async fn mfa_states(mfa: &Mfa, alg: SigningAlg) -> Vec<KeyState> {
    let keys = mfa.keys().list().await.unwrap();
    keys.iter().filter(|key| key.alg == alg).map(|key| key.state).collect()
}

/// A store that is slow when it is told to: to read the key set, or to say what time it is.
#[derive(Clone, Debug)]
struct Slow {
    inner: MemoryStore,
    keys: Arc<AtomicI64>,
    clock: Arc<AtomicI64>,
}

impl Slow {
    fn new(inner: &MemoryStore) -> Self {
        Self { inner: inner.clone(), keys: Arc::default(), clock: Arc::default() }
    }

    async fn wait(millis: &AtomicI64) {
        let millis = u64::try_from(millis.swap(0, Ordering::SeqCst)).unwrap();
        if millis > 0 {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }
}

impl Store for Slow {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        if keys == [keys::keyset()] {
            Self::wait(&self.keys).await;
        }
        self.inner.get(keys).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        self.inner.scan(scan).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        self.inner.commit(batch).await
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.inner.sweep(before).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let at = self.inner.now().await;
        Self::wait(&self.clock).await;
        at
    }
}

fn slow_node(store: &Slow, clock: Option<&HandClock>) -> Mfa {
    let app = AppInfo::new("Shop", "https://api.shop.test", "https://shop.test").unwrap();
    let lifetimes = Lifetimes { access_token: LIFE, signing_key: HOUR, ..Lifetimes::default() };
    let builder = Mfa::builder(app, secrets(&["a"]), store.clone()).lifetimes(lifetimes);
    let builder = builder.signing(SigningAlg::EdDsa).without_passwordless();
    let mfa = match clock {
        Some(clock) => builder.clock(clock.clone()),
        None => builder,
    }
    .build();
    let mfa = mfa.unwrap();
    mfa._background.0.iter().for_each(tokio::task::JoinHandle::abort);
    mfa
}

#[tokio::test]
async fn sec_j08_a_read_of_the_feed_that_is_cut_off_loses_no_revocation() {
    let (inner, clock) = (MemoryStore::new(), HandClock::new());
    let one = node(&inner, &clock, secrets(&["a"]), SigningAlg::EdDsa);
    look(&one).await;
    let store = Slow::new(&inner);
    let two = slow_node(&store, Some(&clock));
    look(&two).await;
    let leaked = signs_with(&one);
    let token = minted(kit(&one), kit(&one).keys.current().find(&leaked).unwrap(), LIFE);
    assert_eq!(opens(kit(&two), &token), Ok(()));
    one.keys().revoke(&leaked).await.unwrap();
    // A request reads the feed, and leaves in the midst of it.
    clock.advance(Duration::from_secs(4));
    store.keys.store(4000, Ordering::SeqCst);
    tokio::time::timeout(Duration::from_millis(50), kit(&two).read_feed()).await.unwrap_err();
    kit(&two).poll_feed().await.unwrap();
    assert!(opens(kit(&two), &token).is_err());
}

#[tokio::test]
async fn sec_r18_the_feed_stays_unread_until_the_clock_is_set() {
    let store = Slow::new(&MemoryStore::new());
    let mfa = slow_node(&store, None);
    let soon = Duration::from_millis(200);
    // By a request that asks first, and by the background.
    store.clock.store(3000, Ordering::SeqCst);
    tokio::time::timeout(soon, kit(&mfa).read_feed()).await.unwrap_err();
    store.clock.store(3000, Ordering::SeqCst);
    tokio::time::timeout(soon, kit(&mfa).poll_feed()).await.unwrap_err();
    let freshness = || kit(&mfa).feed.freshness(time::monotonic(), kit(&mfa).db.now());
    assert_eq!(freshness(), Freshness::Never);
    kit(&mfa).read_feed().await.unwrap();
    assert_eq!(freshness(), Freshness::Fresh);
}

#[tokio::test]
async fn sec_r18_a_slow_answer_does_not_set_the_clock_back() {
    let store = Slow::new(&MemoryStore::new());
    let mfa = slow_node(&store, None);
    kit(&mfa).ready().await.unwrap();
    let before = kit(&mfa).db.now();
    store.clock.store(1500, Ordering::SeqCst);
    kit(&mfa).set_clock().await.unwrap();
    let passed = kit(&mfa).db.now().since(before);
    assert!(passed >= Duration::from_millis(1400), "{passed:?}");
}
