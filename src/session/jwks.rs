//! The key set of another issuer, fetched over HTTP: what a process goes by that verifies and signs nothing (row J30).
//!
//! One fetch is under way at a time and one begins in [`PAUSE`], however many requests ask for a key that isn't known
//! (row J06). A set is fetched anew when it is [`FRESH`] old; meanwhile, and for as long as the issuer doesn't answer,
//! the known keys serve, up to the bound that was configured. A document that can't be taken whole changes nothing.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header::ACCEPT};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::{
    keyring::Keyring,
    kit::Kit,
    signing::{SigningAlg, SigningKey, VerifyingKey, is_kid},
};
use crate::base::{error::Error, hash, http_client::AnyHttpClient, json, time::Timestamp};

/// After a fetch has begun none begins for so long, failed ones counted.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);
/// From then on a set is fetched anew, beside the requests.
pub(crate) const FRESH: Duration = Duration::from_secs(60);
/// How long an answer may take, and how long it may be.
const PATIENCE: Duration = Duration::from_secs(3);
const LONGEST: usize = 64 * 1024;
/// Keys in a set.
const MOST: usize = 64;
/// How long an id that a fetch did not find is passed over, and how many are remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
const ABSENT: usize = 1024;
/// What only a private or a secret key has (RFC 7518, section 6).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Where the keys of an issuer come from.
pub(crate) struct Jwks {
    url: Uri,
    client: AnyHttpClient,
    /// How long known keys serve while the issuer doesn't answer.
    bound: Duration,
    gate: Mutex<Gate>,
    /// Counts the fetches that have ended.
    ended: watch::Sender<u64>,
    pub(crate) counts: Counts,
}

#[derive(Default)]
struct Gate {
    under_way: bool,
    /// When the last fetch began.
    began: Option<Timestamp>,
    /// When the set in use was fetched.
    fetched: Option<Timestamp>,
    /// How many fetches were complete.
    complete: u64,
    /// Ids that a complete fetch did not find.
    absent: HashMap<String, Timestamp>,
}

/// What happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) fetches: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) unknown: AtomicU64,
}

/// What a set is worth now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// In use.
    Fresh,
    /// In use, and to be fetched anew beside.
    Due,
    /// None, or of no use any more.
    None,
}

impl Jwks {
    pub(crate) fn new(url: Uri, client: AnyHttpClient, bound: Duration) -> Self {
        let (gate, counts) = (Mutex::default(), Counts::default());
        Self { url, client, bound, gate, ended: watch::channel(0).0, counts }
    }

    /// What the set is worth.
    pub(crate) fn age(&self, now: Timestamp) -> Age {
        match self.gate().fetched.map(|at| now.since(at)) {
            Some(age) if age < FRESH => Age::Fresh,
            Some(age) if age <= self.bound.max(FRESH) => Age::Due,
            _ => Age::None,
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a fetch, joins the one that is under way, or is told that it is too early for one.
    fn begin(&self, kid: Option<&str>, now: Timestamp) -> Begin {
        let mut gate = self.gate();
        let recent = |at: Timestamp, limit| now.since(at) < limit;
        if kid.and_then(|kid| gate.absent.get(kid)).is_some_and(|at| recent(*at, REMEMBERED)) {
            return Begin::TooEarly;
        }
        if gate.under_way {
            return Begin::Join(self.ended.subscribe());
        }
        if gate.began.is_some_and(|at| recent(at, PAUSE)) {
            return Begin::TooEarly;
        }
        (gate.under_way, gate.began) = (true, Some(now));
        self.counts.fetches.fetch_add(1, Ordering::Relaxed);
        Begin::Now
    }

    fn end(&self, fetched: Option<Timestamp>) {
        let mut gate = self.gate();
        gate.under_way = false;
        match fetched {
            Some(at) => {
                gate.fetched = Some(at);
                gate.complete += 1;
            }
            None => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.ended.send_modify(|count| *count += 1);
    }

    /// A key isn't known. If a fetch was complete since `before` of them were, it is remembered that it isn't there.
    fn not_found(&self, kid: &str, before: u64, now: Timestamp) {
        self.counts.unknown.fetch_add(1, Ordering::Relaxed);
        let mut gate = self.gate();
        if gate.complete == before {
            return;
        }
        if gate.absent.len() >= ABSENT {
            gate.absent.retain(|_, at| now.since(*at) < REMEMBERED);
        }
        // Full of fresh ones: the pause alone holds the flood.
        if gate.absent.len() < ABSENT {
            gate.absent.insert(kid.to_owned(), now);
        }
    }

    async fn fetch(&self) -> Result<Vec<Arc<SigningKey>>, Error> {
        let request = Request::get(self.url.clone()).header(ACCEPT, "application/json");
        let request =
            request.body(Bytes::new()).map_err(|_| Error::internal("the key set has no address"))?;
        let late = || Error::unavailable("the issuer's key set took too long");
        let sent = tokio::time::timeout(PATIENCE, self.client.send(request)).await.map_err(|_| late())?;
        let failed =
            |e| Error::with(crate::base::error::ErrorKind::Unavailable, "the key set can't be fetched", e);
        let answer = sent.map_err(failed)?;
        let refused = Error::unavailable("the issuer's key set can't be taken");
        // A redirect is no answer, wherever it leads.
        if answer.status() != StatusCode::OK || answer.body().len() > LONGEST {
            return Err(refused);
        }
        read(answer.body()).ok_or(refused)
    }
}

enum Begin {
    Now,
    Join(watch::Receiver<u64>),
    TooEarly,
}

impl Kit {
    /// Whether the issuer's keys can be relied on; where they should be fetched anew, that begins beside.
    pub(crate) fn has_foreign_keys(self: &Arc<Self>, jwks: &Jwks, now: Timestamp) -> bool {
        let age = jwks.age(now);
        if age == Age::Due && matches!(jwks.begin(None, now), Begin::Now) {
            self.spawn_fetch();
        }
        age != Age::None
    }

    /// Fetches the issuer's keys, for a key that isn't known or because there are none; waits for the fetch that is
    /// under way, and does nothing if it is too early for one.
    pub(crate) async fn fetch_keys(self: &Arc<Self>, kid: Option<&str>) {
        let Some(jwks) = &self.foreign else { return };
        let before = jwks.gate().complete;
        let ended = match jwks.begin(kid, self.db.now()) {
            Begin::TooEarly => None,
            Begin::Join(ended) => Some(ended),
            Begin::Now => {
                // In a task of its own: whoever leaves takes nothing from those that wait.
                let ended = jwks.ended.subscribe();
                self.spawn_fetch();
                Some(ended)
            }
        };
        if let Some(mut ended) = ended {
            let _ = ended.changed().await;
        }
        if let Some(kid) = kid.filter(|kid| self.keys.current().find(kid).is_none()) {
            jwks.not_found(kid, before, self.db.now());
        }
    }

    fn spawn_fetch(self: &Arc<Self>) {
        let fetch = Fetch { kit: Arc::clone(self), fetched: None };
        tokio::spawn(fetch.run());
    }
}

/// A fetch that is under way, and over when this is dropped: a client that panics, or a runtime that stops, has fetched
/// nothing and holds nobody up.
struct Fetch {
    kit: Arc<Kit>,
    fetched: Option<Timestamp>,
}

impl Fetch {
    async fn run(mut self) {
        let kit = Arc::clone(&self.kit);
        let Some(jwks) = &kit.foreign else { return };
        match jwks.fetch().await {
            Ok(keys) => {
                kit.keys.replace(Keyring::foreign(keys, &kit.keys.current()));
                self.fetched = Some(kit.db.now());
            }
            Err(error) => {
                #[cfg(feature = "tracing")]
                tracing::warn!(%error, "the issuer's keys could not be fetched: the known ones stay");
                #[cfg(not(feature = "tracing"))]
                let _ = error;
            }
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if let Some(jwks) = &self.kit.foreign {
            jwks.end(self.fetched);
        }
    }
}

/// The keys of a document, if it can be taken: it has at least one that verifies, and no id twice. What isn't a public
/// key for signatures of a kind that is known is passed over, a secret or private key above all.
fn read(document: &[u8]) -> Option<Vec<Arc<SigningKey>>> {
    let document = json::parse_object(document).ok()?;
    let listed = document.get("keys")?.as_array().filter(|keys| keys.len() <= MOST)?;
    let (mut keys, mut ids) = (Vec::new(), BTreeSet::new());
    for entry in listed {
        let entry = entry.as_object()?;
        if let Some(kid) = entry.get("kid").and_then(Value::as_str)
            && !ids.insert(kid)
        {
            return None;
        }
        keys.extend(key(entry).map(Arc::new));
    }
    (!keys.is_empty()).then_some(keys)
}

fn key(entry: &Map<String, Value>) -> Option<SigningKey> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    let bytes = |name: &str| hash::from_base64url(text(name)?.as_bytes());
    if PRIVATE.iter().any(|name| entry.contains_key(*name)) {
        return None;
    }
    let kid = text("kid").filter(|kid| is_kid(kid))?;
    if entry.get("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let public = match (text("kty")?, text("crv")) {
        ("RSA", None) => VerifyingKey::rs256(&bytes("n")?, &bytes("e")?),
        ("EC", Some("P-256")) => VerifyingKey::es256(&[vec![4], bytes("x")?, bytes("y")?].concat()),
        ("OKP", Some("Ed25519")) => VerifyingKey::ed_dsa(&bytes("x")?),
        _ => return None,
    };
    let public = public.ok()?;
    // Where the document names no algorithm, the kind of key has but one here (row J03).
    let fits =
        entry.get("alg").is_none_or(|alg| alg.as_str().and_then(SigningAlg::from_name) == Some(public.alg()));
    fits.then(|| SigningKey::foreign(kid.to_owned(), public))
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwks").finish_non_exhaustive()
    }
}
