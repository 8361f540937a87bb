//! What the HTTP tests share: an app, a client that keeps cookies, a clock wound by hand, and a store
//! that counts and fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, body::Body, routing::get};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::{Service, ServiceExt as _};
use tower_mfa::{
    Clock, Mfa, MfaBuilder, MfaLayer, SessionExtractor,
    api::ApiLayer,
    config::{AppInfo, Secrets},
    delivery::{Notice, Outbox},
    ident::{Contact, Email, TenantId, Timestamp, UserId},
    store::{AnyStore, Batch, Commit, Key, MemoryStore, Record, Row, Scan, Store, StoreError},
};

pub mod accounts;
#[cfg(feature = "smtp")]
pub mod mail;
pub mod nodes;
#[cfg(feature = "third-party")]
pub mod provider;
pub mod schedule;
#[cfg(any(feature = "smtp", feature = "third-party"))]
pub mod servers;

pub const START: i64 = 1_702_877_939;
pub const PASSWORD: &str = "correct horse 1";

/// A clock that moves when it is told to.
#[derive(Clone, Debug)]
pub struct HandClock(Arc<AtomicI64>);

impl HandClock {
    pub fn new() -> Self {
        Self::at(START)
    }

    pub fn at(second: i64) -> Self {
        Self(Arc::new(AtomicI64::new(second * 1000)))
    }

    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A store that counts its calls, remembers what was written, and fails when it is told to.
#[derive(Clone, Debug)]
pub struct Watched {
    inner: AnyStore,
    pub counts: Arc<Counts>,
    /// The keys that each applied batch wrote or deleted.
    written: Arc<Mutex<Vec<Vec<Key>>>>,
    rival: Arc<Mutex<Option<Rival>>>,
}

/// What another writer does right before the next commit, or before the next one that writes such a key.
enum Rival {
    Batch(Batch),
    Work(&'static str, Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl Rival {
    fn is_due(&self, batch: &Batch) -> bool {
        match self {
            Self::Batch(_) => true,
            Self::Work(part, _) => batch.ops().any(|(key, _)| key.as_str().contains(part)),
        }
    }
}

impl fmt::Debug for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rival").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
pub struct Counts {
    pub gets: AtomicU64,
    pub scans: AtomicU64,
    pub commits: AtomicU64,
    pub failing: AtomicU64,
    pub failing_commits: AtomicU64,
    /// At which commit from the first on they fail, if ever.
    pub failing_from: AtomicU64,
}

impl Watched {
    pub fn new(inner: impl Store) -> Self {
        Self {
            inner: AnyStore::new(inner),
            counts: Arc::default(),
            written: Arc::default(),
            rival: Arc::default(),
        }
    }

    /// Reads and writes so far; the change feed's scans and the upkeep's are not among them.
    pub fn calls(&self) -> u64 {
        self.counts.gets.load(Ordering::SeqCst) + self.counts.commits.load(Ordering::SeqCst)
    }

    pub fn fail_next(&self, calls: u64) {
        self.counts.failing.store(calls, Ordering::SeqCst);
    }

    pub fn fail_commits(&self, commits: u64) {
        self.counts.failing_commits.store(commits, Ordering::SeqCst);
    }

    /// Lets so many more commits pass, and none after that; `None` lets all pass again.
    pub fn fail_commits_after(&self, commits: Option<u64>) {
        let from = commits.map_or(0, |commits| self.commits() + commits + 1);
        self.counts.failing_from.store(from, Ordering::SeqCst);
    }

    /// Lets another writer be faster than the next commit.
    pub fn before_next_commit(&self, batch: Batch) {
        *self.rival.lock().unwrap() = Some(Rival::Batch(batch));
    }

    /// Lets somebody on another node be faster than the next commit that writes a key with this in it.
    pub fn before_commit_of(&self, part: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        *self.rival.lock().unwrap() = Some(Rival::Work(part, Box::pin(work)));
    }

    /// Whether somebody still waits to be faster.
    pub fn has_rival(&self) -> bool {
        self.rival.lock().unwrap().is_some()
    }

    pub fn commits(&self) -> u64 {
        self.counts.commits.load(Ordering::SeqCst)
    }

    /// The keys that the applied batches wrote, a list for each, from the `from`th batch on.
    pub fn written(&self, from: usize) -> Vec<Vec<Key>> {
        self.written.lock().unwrap()[from..].to_vec()
    }

    /// How many messages were queued so far, those for show among them.
    pub fn queued(&self) -> usize {
        let keys: BTreeSet<Key> = self.written(0).into_iter().flatten().collect();
        keys.iter().filter(|key| key.as_str().starts_with("queue/")).count()
    }

    /// The rows of one-time codes.
    pub async fn codes(&self) -> BTreeMap<Key, Row> {
        let is_code = |key: &Key| key.as_str().contains("/code/");
        self.dump().await.into_iter().filter(|(key, _)| is_code(key)).collect()
    }

    /// Every record there is, the store's own form.
    pub async fn dump(&self) -> BTreeMap<Key, Row> {
        let keys: BTreeSet<Key> = self.written(0).into_iter().flatten().collect();
        let keys: Vec<Key> = keys.into_iter().collect();
        let rows = self.inner.get(&keys).await.unwrap();
        keys.into_iter().zip(rows).filter_map(|(key, row)| Some((key, row?))).collect()
    }

    /// The rows of sessions.
    pub async fn sessions(&self) -> BTreeMap<Key, Row> {
        let is_session = |key: &Key| key.as_str().contains("/session/");
        self.dump().await.into_iter().filter(|(key, _)| is_session(key)).collect()
    }

    /// What was audited, oldest first.
    pub async fn audited(&self) -> Vec<String> {
        let audits = self.dump().await.into_iter().filter(|(key, _)| key.as_str().starts_with("audit/"));
        let mut events: Vec<(i64, String)> = audits
            .map(|(_, row)| {
                let (at, what) = (row.body["at"].as_i64(), row.body["what"].as_str());
                (at.unwrap(), what.unwrap().to_owned())
            })
            .collect();
        events.sort_by_key(|(at, _)| *at);
        events.into_iter().map(|(_, what)| what).collect()
    }

    fn may_fail(&self) -> Result<(), StoreError> {
        fails(&self.counts.failing)
    }
}

impl Store for Watched {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.counts.gets.fetch_add(1, Ordering::SeqCst);
        self.may_fail()?;
        self.inner.get(keys).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        self.counts.scans.fetch_add(1, Ordering::SeqCst);
        self.may_fail()?;
        self.inner.scan(scan).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        let nth = self.counts.commits.fetch_add(1, Ordering::SeqCst) + 1;
        self.may_fail()?;
        let from = self.counts.failing_from.load(Ordering::SeqCst);
        if from > 0 && nth >= from {
            return Err(StoreError::refused("told to fail"));
        }
        fails(&self.counts.failing_commits)?;
        let rival = self.rival.lock().unwrap().take_if(|rival| rival.is_due(&batch));
        match rival {
            Some(Rival::Batch(rival)) => assert_eq!(self.inner.commit(rival).await?, Commit::Applied),
            Some(Rival::Work(_, work)) => work.await,
            None => {}
        }
        let effects = batch.ops().filter(|(_, op)| op.effect().is_some());
        let keys: Vec<Key> = effects.map(|(key, _)| key.clone()).collect();
        let commit = self.inner.commit(batch).await?;
        if commit == Commit::Applied {
            self.written.lock().unwrap().push(keys);
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

fn fails(left: &AtomicU64) -> Result<(), StoreError> {
    match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) {
        Ok(_) => Err(StoreError::refused("told to fail")),
        Err(_) => Ok(()),
    }
}

/// Sends a request to a service and reads the answer.
pub async fn send<S, R>(service: &S, request: Request<Body>) -> Answer
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible> + Clone,
    R: http_body::Body<Data = bytes::Bytes>,
    R::Error: std::fmt::Debug,
{
    let (parts, body) = service.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        text: String::from_utf8_lossy(&body).into_owned(),
    }
}

/// An app with the crate in front of it.
#[derive(Clone)]
pub struct TestApp {
    pub mfa: Mfa,
    pub outbox: Outbox,
    pub clock: HandClock,
    pub store: Watched,
    app: AppInfo,
    secrets: Secrets,
    router: Router,
}

impl TestApp {
    pub async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    /// The usual app, with something changed.
    pub async fn with(change: impl FnOnce(MfaBuilder) -> MfaBuilder) -> Self {
        let app = AppInfo::new("Shop", "https://api.shop.test", "https://shop.test").unwrap();
        Self::of(app, change).await
    }

    pub async fn of(app: AppInfo, change: impl FnOnce(MfaBuilder) -> MfaBuilder) -> Self {
        Self::on(app, Secrets::random().unwrap(), MemoryStore::new(), change).await
    }

    /// The usual app on another store.
    pub async fn on(
        app: AppInfo,
        secrets: Secrets,
        store: impl Store,
        change: impl FnOnce(MfaBuilder) -> MfaBuilder,
    ) -> Self {
        Self::built(app, secrets, store, |b| change(b.insecure_without_quotas())).await
    }

    /// The usual app, with the quotas that apps have.
    pub async fn limited(change: impl FnOnce(MfaBuilder) -> MfaBuilder) -> Self {
        let app = AppInfo::new("Shop", "https://api.shop.test", "https://shop.test").unwrap();
        Self::built(app, Secrets::random().unwrap(), MemoryStore::new(), change).await
    }

    /// The usual app on another store, with the quotas that apps have.
    pub async fn built(
        app: AppInfo,
        secrets: Secrets,
        store: impl Store,
        change: impl FnOnce(MfaBuilder) -> MfaBuilder,
    ) -> Self {
        let (outbox, clock) = (Outbox::new(), HandClock::new());
        let store = Watched::new(store);
        let builder = Mfa::builder(app.clone(), secrets.clone(), store.clone())
            .clock(clock.clone())
            .delivery(outbox.clone());
        let mfa = change(builder).build().unwrap();
        // The first call makes the first start's records.
        mfa.tenants().create(&TenantId::PUBLIC, None).await.unwrap();
        let half = Router::new()
            .route("/api/half", get(me).post(me))
            .layer(MfaLayer::required(mfa.clone()).without_mfa());
        let router = Router::new()
            .route("/api/me", get(me).post(me))
            .layer(MfaLayer::required(mfa.clone()))
            .merge(half)
            .layer(ApiLayer::new(mfa.clone()))
            .layer(mfa.cors());
        Self { mfa, outbox, clock, store, app, secrets, router }
    }

    /// Another node of the same app, which starts now.
    pub async fn restarted(&self) -> Self {
        self.beside(|b| b).await
    }

    /// Another node of the same app, with settings of its own.
    pub async fn beside(&self, change: impl FnOnce(MfaBuilder) -> MfaBuilder) -> Self {
        let (clock, store) = (self.clock.clone(), self.store.clone());
        let build = move |b: MfaBuilder| change(b.clock(clock));
        let node = Self::on(self.app.clone(), self.secrets.clone(), store, build).await;
        node.with_clock(Some(self.clock.clone()))
    }

    /// Whose clock another one gave it.
    pub fn with_clock(self, clock: Option<HandClock>) -> Self {
        Self { clock: clock.unwrap_or(self.clock), ..self }
    }

    /// Another app's routes in the place of these, for the same clients.
    pub fn serving(self, router: Router, outbox: Outbox) -> Self {
        Self { router, outbox, ..self }
    }

    /// Its routes, to be served.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    pub fn browser(&self, mode: Mode) -> Browser {
        Browser {
            app: self.clone(),
            mode,
            jar: BTreeMap::new(),
            access: None,
            refresh: None,
            front: None,
            tenant: None,
        }
    }

    /// Sends a request as it is.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        send(&self.router, request).await
    }

    /// The last code sent to an address or a number, once it is there.
    pub async fn code(&self, contact: &str) -> String {
        self.code_after(contact, 0).await
    }

    /// The last code, once more than `seen` messages were sent that hold one or a link.
    pub async fn code_after(&self, contact: &str, seen: usize) -> String {
        self.notice_after(contact, seen).await.code().unwrap().expose().clone()
    }

    /// The last notice with a code or a link, once more than `seen` were sent.
    pub async fn notice_after(&self, contact: &str, seen: usize) -> Notice {
        for _ in 0..5000 {
            let mut sent = self.challenges_to(contact);
            if sent.len() > seen {
                return sent.pop().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("no message to {contact}");
    }

    /// How many messages with a code or a link were sent; notices of other kinds don't count.
    pub fn sent_to(&self, contact: &str) -> usize {
        self.challenges_to(contact).len()
    }

    fn challenges_to(&self, contact: &str) -> Vec<Notice> {
        let contact = Contact::parse(contact).unwrap();
        let sent = self.outbox.messages().into_iter().map(|sent| sent.notice);
        sent.filter(|notice| *notice.to() == contact && (notice.code().is_some() || notice.link().is_some()))
            .collect()
    }

    pub async fn user(&self, email: &str) -> UserId {
        let email = Email::parse(email).unwrap();
        for tenant in self.mfa.tenants().list().await.unwrap() {
            if let Some(user) = self.mfa.users().by_email(&tenant.id, &email).await.unwrap().first() {
                return user.id.clone();
            }
        }
        panic!("nobody signs in by that address");
    }
}

async fn me(session: SessionExtractor) -> Json<Value> {
    Json(json!({
        "userId": session.user_id().as_str(),
        "tenantId": session.tenant_id().as_str(),
        "claim": session.payload().member("st-mfa"),
    }))
}

/// How a client carries its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Cookie,
    Header,
}

/// A client as the SDKs behave: it keeps cookies or header tokens, and sends what they send.
#[derive(Clone)]
pub struct Browser {
    app: TestApp,
    pub mode: Mode,
    pub jar: BTreeMap<String, String>,
    pub access: Option<String>,
    pub refresh: Option<String>,
    pub front: Option<Value>,
    pub tenant: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Answer {
    pub fn ok(self) -> Value {
        assert_eq!((self.status, &self.body["status"]), (StatusCode::OK, &json!("OK")), "{}", self.text);
        self.body
    }

    pub fn status(&self, status: &str) -> &Self {
        assert_eq!((self.status, &self.body["status"]), (StatusCode::OK, &json!(status)), "{}", self.text);
        self
    }

    pub fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    pub fn cookies(&self) -> Vec<&str> {
        self.headers.get_all(header::SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect()
    }
}

impl Browser {
    /// The same client, talking to another node.
    pub fn at(&self, app: &TestApp) -> Self {
        Self { app: app.clone(), ..self.clone() }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn put(&mut self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// The refresh token that the client holds.
    pub fn refresh_token(&self) -> Option<&String> {
        self.refresh.as_ref().or_else(|| self.jar.get("sRefreshToken"))
    }

    /// The access token that the client holds.
    pub fn access_token(&self) -> Option<&String> {
        self.access.as_ref().or_else(|| self.jar.get("sAccessToken"))
    }

    /// A member of the access token's payload, as the client sees it.
    pub fn payload(&self, name: &str) -> Value {
        self.front.as_ref().map(|front| front["up"][name].clone()).unwrap_or_default()
    }

    /// A request with what the client holds.
    pub fn request(&self, method: Method, path: &str, body: Option<Value>) -> Request<Body> {
        let refreshing = path.ends_with("/session/refresh");
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("rid", "anti-csrf")
            .header("fdi-version", "3.1,4.0,4.1,4.2")
            .header("st-auth-mode", if self.mode == Mode::Cookie { "cookie" } else { "header" });
        let cookies: Vec<String> = self
            .jar
            .iter()
            .filter(|(name, _)| refreshing || !name.ends_with("sRefreshToken"))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !cookies.is_empty() {
            request = request.header(header::COOKIE, cookies.join("; "));
        }
        let bearer = if refreshing { &self.refresh } else { &self.access };
        if let Some(token) = bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        match body {
            Some(body) => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_string()))
                .unwrap(),
            None => request.body(Body::empty()).unwrap(),
        }
    }

    pub async fn call(&mut self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.request(method, path, body);
        let answer = self.app.send(request).await;
        self.keep(&answer);
        answer
    }

    /// Takes in what an answer does to the tokens.
    pub fn keep(&mut self, answer: &Answer) {
        for cookie in answer.cookies() {
            let (name, rest) = cookie.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if value.is_empty() {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
        for (name, slot) in [("st-access-token", &mut self.access), ("st-refresh-token", &mut self.refresh)] {
            if let Some(value) = answer.headers.get(name) {
                let value = value.to_str().unwrap();
                *slot = (!value.is_empty()).then(|| value.to_owned());
            }
        }
        if let Some(front) = answer.headers.get("front-token") {
            self.front = match front.to_str().unwrap() {
                "remove" => {
                    (self.access, self.refresh) = (None, None);
                    None
                }
                text => Some(decode_front(text)),
            };
        }
    }

    fn path(&self, route: &str) -> String {
        match &self.tenant {
            Some(tenant) => format!("/auth/{tenant}{route}"),
            None => format!("/auth{route}"),
        }
    }

    /// The claim as the client sees it.
    pub fn claim(&self) -> Value {
        self.front.as_ref().map(|front| front["up"]["st-mfa"].clone()).unwrap_or_default()
    }

    pub async fn sign_up(&mut self, email: &str) -> Answer {
        let path = self.path("/signup");
        self.post(&path, credentials(email, PASSWORD)).await
    }

    /// Signs in, or up, by a code: a password takes a second, on purpose.
    pub async fn by_code(&mut self, email: &str) -> Value {
        let seen = self.app.sent_to(email);
        let flow = self.ask_code(email, false).await.ok();
        let code = self.app.code_after(email, seen).await;
        self.enter(&flow, &code, false).await.ok()
    }

    pub async fn sign_in(&mut self, email: &str) -> Answer {
        let path = self.path("/signin");
        self.post(&path, credentials(email, PASSWORD)).await
    }

    pub async fn refresh(&mut self) -> Answer {
        self.call(Method::POST, "/auth/session/refresh", None).await
    }

    pub async fn sign_out(&mut self) -> Answer {
        self.call(Method::POST, "/auth/signout", None).await
    }

    pub async fn info(&mut self) -> Answer {
        self.put("/auth/mfa/info", json!({})).await
    }

    /// Asks for a code to an address or a number; `linking` as a second factor.
    pub async fn ask_code(&mut self, contact: &str, linking: bool) -> Answer {
        let path = self.path("/signinup/code");
        let kind = if contact.starts_with('+') { "phoneNumber" } else { "email" };
        self.post(&path, json!({ (kind): contact, "shouldTryLinkingWithSessionUser": linking })).await
    }

    /// Asks for another code of a flow.
    pub async fn ask_again(&mut self, flow: &Value, linking: bool) -> Answer {
        let path = self.path("/signinup/code/resend");
        let body = json!({
            "deviceId": flow["deviceId"],
            "preAuthSessionId": flow["preAuthSessionId"],
            "shouldTryLinkingWithSessionUser": linking,
        });
        self.post(&path, body).await
    }

    /// Opens a link: the website's page posts what is in it.
    pub async fn open(&mut self, link: &str, linking: bool) -> Answer {
        let (page, code) = link.split_once('#').unwrap();
        let flow = page.split(['?', '&']).find_map(|part| part.strip_prefix("preAuthSessionId=")).unwrap();
        let path = self.path("/signinup/code/consume");
        let body = json!({
            "preAuthSessionId": flow,
            "linkCode": code,
            "shouldTryLinkingWithSessionUser": linking,
        });
        self.post(&path, body).await
    }

    /// Enters a code for a flow.
    pub async fn enter(&mut self, flow: &Value, code: &str, linking: bool) -> Answer {
        let path = self.path("/signinup/code/consume");
        let body = json!({
            "deviceId": flow["deviceId"],
            "preAuthSessionId": flow["preAuthSessionId"],
            "userInputCode": code,
            "shouldTryLinkingWithSessionUser": linking,
        });
        self.post(&path, body).await
    }

    /// Passes the e-mail code as second factor.
    pub async fn pass_code(&mut self, email: &str) -> Value {
        let seen = self.app.sent_to(email);
        let flow = self.ask_code(email, true).await.ok();
        let code = self.app.code_after(email, seen).await;
        self.enter(&flow, &code, true).await.ok()
    }
}

pub fn credentials(email: &str, password: &str) -> Value {
    json!({ "formFields": [{ "id": "email", "value": email }, { "id": "password", "value": password }] })
}

/// What Twilio says of an SMS that failed, signed.
pub fn failed_sms() -> tower_mfa::delivery::TwilioStatus {
    use aws_lc_rs::hmac;
    use base64::Engine as _;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let params = [pair("MessageSid", "SM1"), pair("MessageStatus", "failed")];
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"t0ken");
    let mac = hmac::sign(&key, b"https://shop.test/smsMessageSidSM1MessageStatusfailed");
    let signature = base64::engine::general_purpose::STANDARD.encode(mac);
    let token = tower_mfa::ident::Secret::new("t0ken".to_owned());
    tower_mfa::delivery::TwilioStatus::verify(&token, "https://shop.test/sms", &params, &signature).unwrap()
}

/// A code that is certainly not this one.
pub fn wrong(code: &str) -> String {
    let last = if code.ends_with('0') { '1' } else { '0' };
    format!("{}{last}", &code[..code.len() - 1])
}

fn decode_front(text: &str) -> Value {
    use base64::Engine as _;
    let raw = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    serde_json::from_slice(&raw).unwrap()
}
