//! What the security rows look with: a store that fails, collides and remembers the order of commits;
//! cookies as a browser keeps them; what was logged.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::body::Body;
use base64::Engine as _;
use http::{Method, Request};
use serde_json::{Value, json};
use tower_mfa::{
    FactorId, Mfa, MfaBuilder,
    config::{AppInfo, EmailVerification, Secrets},
    delivery::Outbox,
    ident::Timestamp,
    policy::Everyone,
    store::{AnyStore, Batch, Commit, Key, MemoryStore, Op, Record, Row, Scan, Store, StoreError, Version},
};

use crate::support::{Answer, Browser, Mode, TestApp};

pub const ALICE: &str = "alice@shop.example";
pub const BOB: &str = "bob@shop.example";
/// A mobile number.
pub const NUMBER: &str = "+36301111142";
pub const SITE: &str = "https://shop.test";

/// The routes that the SDKs call, below the base path; [`every_route`] serves them all.
pub const ROUTES: [(&str, &str); 25] = [
    ("POST", "/session/refresh"),
    ("POST", "/signout"),
    ("PUT", "/mfa/info"),
    ("POST", "/signinup/code"),
    ("POST", "/signinup/code/resend"),
    ("POST", "/signinup/code/consume"),
    ("POST", "/signin"),
    ("POST", "/signup"),
    ("POST", "/user/password/reset/token"),
    ("POST", "/user/password/reset"),
    ("POST", "/user/email/verify/token"),
    ("POST", "/user/email/verify"),
    ("GET", "/user/email/verify"),
    ("GET", "/authorisationurl"),
    ("POST", "/signinup"),
    ("GET", "/emailpassword/email/exists"),
    ("GET", "/passwordless/email/exists"),
    ("GET", "/passwordless/phonenumber/exists"),
    ("GET", "/passwordless/phoneNumber/exists"),
    ("GET", "/signup/email/exists"),
    ("GET", "/signup/phonenumber/exists"),
    ("GET", "/signup/phoneNumber/exists"),
    ("GET", "/loginmethods"),
    ("GET", "/jwt/jwks.json"),
    ("GET", "/.well-known/openid-configuration"),
];

/// An app that serves all of [`ROUTES`].
pub async fn every_route() -> TestApp {
    TestApp::with(|b| b.email_verification(EmailVerification::Optional)).await
}

pub fn shop() -> AppInfo {
    AppInfo::new("Shop", "https://api.shop.test", SITE).unwrap()
}

/// An app whose API and website are two sites: its cookies are `SameSite=None`.
pub fn two_sites() -> AppInfo {
    AppInfo::new("Shop", "https://api.other.test", SITE).unwrap()
}

/// An app that asks everybody for a code by e-mail.
pub async fn everyone() -> TestApp {
    TestApp::with(|b| b.policy(Everyone::new(FactorId::OTP_EMAIL))).await
}

/// The same, on a store that can be looked into.
pub async fn watched() -> (TestApp, Spy) {
    let (spy, secrets) = (Spy::new(MemoryStore::new()), Secrets::random().unwrap());
    let app =
        TestApp::on(shop(), secrets, spy.clone(), |b| b.policy(Everyone::new(FactorId::OTP_EMAIL))).await;
    (app, spy)
}

/// Who sends a request is the address that a test puts into a header which no proxy wrote.
pub fn from_header(builder: MfaBuilder) -> MfaBuilder {
    builder.peer(|_, headers: &http::HeaderMap| headers.get("x-from")?.to_str().ok()?.parse().ok())
}

pub async fn signed_up(app: &TestApp, mode: Mode, email: &str) -> Browser {
    let mut browser = app.browser(mode);
    browser.sign_up(email).await.ok();
    browser
}

/// What the access token says, and what the front end reads.
pub fn told(browser: &Browser) -> String {
    let payload = browser.access_token().unwrap().split('.').nth(1).unwrap();
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    format!("{}{}", String::from_utf8(payload).unwrap(), browser.front.as_ref().unwrap())
}

/// The refresh token that a browser holds.
pub fn refresh_token(browser: &Browser) -> String {
    browser.refresh_token().unwrap().clone()
}

/// The handle of a browser's session.
pub fn handle(browser: &Browser) -> String {
    browser.front.as_ref().unwrap()["up"]["sessionHandle"].as_str().unwrap().to_owned()
}

/// The same body for somebody who completes a further factor.
pub fn linking(mut body: Value) -> Option<Value> {
    body["shouldTryLinkingWithSessionUser"] = json!(true);
    Some(body)
}

/// What can't be served about a configuration.
pub fn problems(app: AppInfo, change: impl FnOnce(MfaBuilder) -> MfaBuilder) -> Vec<String> {
    let builder = Mfa::builder(app, Secrets::random().unwrap(), MemoryStore::new()).delivery(Outbox::new());
    change(builder).build().err().map(|error| error.problems().to_vec()).unwrap_or_default()
}

/// What it writes that a user or a tenant comes to an end, with all sessions there: `set` in the record, and a new
/// number in its epoch. For another process that does it right before a commit.
pub async fn ending(app: &TestApp, [kind, id]: [&str; 2], set: Value) -> Batch {
    let (rows, mut batch) = (app.store.dump().await, Batch::new());
    let epoch = Key::new(["epoch", kind, id]);
    let n = rows[&epoch].body["n"].as_u64().unwrap() + 1;
    for (key, set) in [(Key::new([kind, id]), set), (epoch, json!({ "n": n, "revoked": n }))] {
        let mut row = rows[&key].clone();
        let seen = std::mem::replace(&mut row.version, Version::random().unwrap());
        row.body.as_object_mut().unwrap().extend(set.as_object().unwrap().clone());
        batch.push(key, Op::Replace(seen, row));
    }
    batch
}

/// The token that a mailed link holds.
pub fn token_in(link: &str) -> String {
    link.split(['?', '&']).find_map(|part| part.strip_prefix("token=")).unwrap().to_owned()
}

pub fn bare(method: &str, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
}

/// With these headers in place of those of the same name.
pub fn with(mut request: Request<Body>, headers: &[(&'static str, &str)]) -> Request<Body> {
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

pub fn without(mut request: Request<Body>, headers: &[&str]) -> Request<Body> {
    for name in headers {
        request.headers_mut().remove(*name);
    }
    request
}

pub fn posted(browser: &Browser, path: &str, body: Option<Value>) -> Request<Body> {
    browser.request(Method::POST, path, body)
}

/// What an answer says to a client about its tokens, by header.
pub fn token_headers(answer: &Answer) -> Vec<String> {
    let names = ["set-cookie", "front-token", "st-access-token", "st-refresh-token", "anti-csrf"];
    names.iter().filter(|name| answer.headers.contains_key(**name)).map(|name| (*name).to_owned()).collect()
}

/// What one `Set-Cookie` field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetCookie {
    pub name: String,
    pub value: String,
    /// Names in lower case; empty for a flag.
    pub attributes: BTreeMap<String, String>,
}

impl SetCookie {
    pub fn of(answer: &Answer) -> Vec<Self> {
        answer.cookies().into_iter().map(Self::parse).collect()
    }

    pub fn parse(field: &str) -> Self {
        let mut parts = field.split(';');
        let (name, value) = parts.next().unwrap().split_once('=').unwrap();
        let attributes = parts.map(|part| {
            let (name, value) = part.trim().split_once('=').unwrap_or((part.trim(), ""));
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Self { name: name.to_owned(), value: value.to_owned(), attributes: attributes.collect() }
    }

    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    pub fn clears(&self) -> bool {
        let past = "Thu, 01 Jan 1970 00:00:00 GMT";
        self.attribute("max-age") == Some("0") && self.attribute("expires") == Some(past)
    }
}

/// Cookies as a browser keeps them (RFC 6265bis, section 5.7): one for each name, domain and path, and a
/// removal hits only the one of the same three.
#[derive(Clone, Debug, Default)]
pub struct Jar(BTreeMap<(String, Option<String>, String), SetCookie>);

impl Jar {
    pub fn keep(&mut self, answer: &Answer) {
        for cookie in SetCookie::of(answer) {
            let (domain, path) = (cookie.attribute("domain"), cookie.attribute("path").unwrap_or("/"));
            let secure = cookie.attribute("secure").is_some();
            if cookie.name.starts_with("__Host-") && !(secure && domain.is_none() && path == "/") {
                continue;
            }
            if cookie.attribute("samesite") == Some("None") && !secure {
                continue;
            }
            let domain = domain.map(|domain| domain.trim_start_matches('.').to_owned());
            let id = (cookie.name.clone(), domain, path.to_owned());
            if cookie.clears() {
                self.0.remove(&id);
            } else {
                self.0.insert(id, cookie);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// What was logged on this thread while it lives.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn start() -> (Self, impl Sized) {
        use tracing_subscriber::util::SubscriberInitExt as _;
        // With a subscriber that stays, a place that logs for the first time on one thread isn't taken for one that
        // nobody listens to just while another thread begins to.
        static LISTENING: std::sync::Once = std::sync::Once::new();
        LISTENING.call_once(|| tracing_subscriber::registry().init());
        let log = Self::default();
        let writer = log.clone();
        let level = tracing_subscriber::filter::LevelFilter::TRACE;
        let subscriber = tracing_subscriber::fmt().with_max_level(level).with_writer(move || writer.clone());
        (log, subscriber.finish().set_default())
    }

    /// The lines of a level that contain a text. Without the feature nothing is logged.
    pub fn lines(&self, level: &str, text: &str) -> Vec<String> {
        let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let hits = all.lines().filter(|line| line.contains(level) && line.contains(text));
        hits.map(str::to_owned).collect()
    }

    #[track_caller]
    pub fn has(&self, level: &str, text: &str) {
        let found = !self.lines(level, text).is_empty();
        assert!(found || !cfg!(feature = "tracing"), "no {level} {text} in {:?}", self.lines("", ""));
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A store that remembers which batches it took, in order, and fails or collides when it is told to.
#[derive(Clone, Debug)]
pub struct Spy {
    inner: AnyStore,
    state: Arc<SpyState>,
}

#[derive(Debug, Default)]
struct SpyState {
    /// Held across a commit and its entry in the log.
    order: tokio::sync::Mutex<Vec<Vec<(String, Op)>>>,
    applied: AtomicU64,
    /// Calls that may still succeed; `u64::MAX` is for ever.
    left: AtomicU64,
    /// Keys under this prefix are taken, so many of them.
    taken: Mutex<(Option<Key>, usize, BTreeSet<Key>)>,
}

impl Spy {
    pub fn new(inner: impl Store) -> Self {
        let state = SpyState { left: AtomicU64::new(u64::MAX), ..SpyState::default() };
        Self { inner: AnyStore::new(inner), state: Arc::new(state) }
    }

    /// Everything fails after so many calls; `u64::MAX` ends that.
    pub fn fail_after(&self, calls: u64) {
        self.state.left.store(calls, Ordering::SeqCst);
    }

    /// The first so many different names that are looked up under a prefix are taken.
    pub fn take_names(&self, prefix: Key, names: usize) {
        *self.state.taken.lock().unwrap() = (Some(prefix), names, BTreeSet::new());
    }

    /// The names that were called taken.
    pub fn taken(&self) -> BTreeSet<Key> {
        self.state.taken.lock().unwrap().2.clone()
    }

    /// How many batches were applied.
    pub fn taken_batches(&self) -> usize {
        self.state.applied.load(Ordering::SeqCst) as usize
    }

    /// Every batch that was applied, in order.
    pub async fn log(&self) -> Vec<Vec<(String, Op)>> {
        self.state.order.lock().await.clone()
    }

    /// The records under a prefix, as they are now.
    pub async fn records(&self, prefix: &[&str]) -> Vec<(String, Value)> {
        let found = self.inner.scan(&Scan::under(Key::new(prefix))).await.unwrap();
        found.into_iter().map(|record| (record.key.as_str().to_owned(), record.row.body)).collect()
    }

    /// The kinds of events in the audit trail, oldest first.
    pub async fn audited(&self) -> Vec<String> {
        let events = self.records(&["audit"]).await;
        events.into_iter().map(|(_, event)| event["what"].as_str().unwrap().to_owned()).collect()
    }

    fn may_fail(&self) -> Result<(), StoreError> {
        let less = |left: u64| if left == u64::MAX { Some(left) } else { left.checked_sub(1) };
        match self.state.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => Ok(()),
            Err(_) => Err(StoreError::broken("told to fail")),
        }
    }

    fn is_taken(&self, key: &Key) -> bool {
        let mut taken = self.state.taken.lock().unwrap();
        let (Some(prefix), most, names) = &mut *taken else { return false };
        if key.is_under(prefix) && names.len() < *most {
            names.insert(key.clone());
        }
        names.contains(key)
    }
}

impl Store for Spy {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.may_fail()?;
        let mut rows = self.inner.get(keys).await?;
        for (key, row) in keys.iter().zip(&mut rows) {
            if self.is_taken(key) {
                let version = Version::random().unwrap();
                *row = Some(Row { version, expires_at: None, body: json!({"somebody": "else's"}) });
            }
        }
        Ok(rows)
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        self.may_fail()?;
        self.inner.scan(scan).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        self.may_fail()?;
        let mut log = self.state.order.lock().await;
        let ops = batch.ops().map(|(key, op)| (key.as_str().to_owned(), op.clone())).collect();
        let commit = self.inner.commit(batch).await?;
        if commit == Commit::Applied {
            log.push(ops);
            self.state.applied.fetch_add(1, Ordering::SeqCst);
        }
        Ok(commit)
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.inner.sweep(before).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.inner.now().await
    }
}
