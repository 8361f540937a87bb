//! Row R18: of nodes whose clocks disagree, the store's clock decides.

use std::{
    future::Ready,
    sync::atomic::{AtomicI64, Ordering},
};

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use tower::{Layer as _, Service, ServiceExt as _};

use super::*;
use crate::{
    api::ApiLayer,
    base::{
        contact::Email,
        ident::{SessionHandle, TenantId, UserId},
        payload::Payload,
        time::Timestamp,
    },
    claim::MfaClaim,
    model::{
        epoch::Standing,
        keys,
        session::{self, Lineage, SessionRecord},
    },
    session::refresh::RefreshToken,
    store::{Batch, Commit, Key, MemoryStore, Record, Row, Scan, StoreError},
};

/// A node's clock: the true time, wrong by so much, and as it was set.
#[derive(Clone, Debug)]
struct Node {
    truth: Arc<AtomicI64>,
    wrong_by: i64,
    set_by: Arc<AtomicI64>,
}

impl Node {
    fn wrong_by(seconds: i64, truth: &Arc<AtomicI64>) -> Self {
        Self { truth: Arc::clone(truth), wrong_by: seconds * 1000, set_by: Arc::default() }
    }
}

impl Clock for Node {
    fn now(&self) -> Timestamp {
        let set_by = self.set_by.load(Ordering::SeqCst);
        Timestamp::from_millis(self.truth.load(Ordering::SeqCst) + self.wrong_by + set_by)
    }

    fn follow(&self, offset: i64) {
        self.set_by.fetch_add(offset, Ordering::SeqCst);
    }
}

/// Reading the feed takes a while, as on a first start under load: requests come before the first round of
/// the upkeep is over.
#[derive(Clone, Debug)]
struct Slow(MemoryStore);

impl Store for Slow {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.0.get(keys).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.0.scan(scan).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        self.0.commit(batch).await
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.0.sweep(before).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.0.now().await
    }
}

/// Nodes on one store.
struct Nodes {
    truth: Arc<AtomicI64>,
    secrets: Secrets,
    store: Slow,
}

impl Nodes {
    fn new() -> Self {
        let truth = Arc::new(AtomicI64::new(1_700_000_000_000));
        let store = Slow(MemoryStore::with_clock(Arc::new(Node::wrong_by(0, &truth))));
        Self { truth, secrets: Secrets::random().unwrap(), store }
    }

    /// A node that has just started.
    fn node(&self, wrong_by: i64) -> Mfa {
        let app = AppInfo::new("Shop", "https://api.shop.test", "https://shop.test").unwrap();
        let mut builder = Mfa::builder(app, self.secrets.clone(), self.store.clone()).without_email_codes();
        // As the system's clock is: set by the store's.
        builder.clock = Arc::new(Node::wrong_by(wrong_by, &self.truth));
        builder.build().unwrap()
    }

    fn wait(&self, millis: i64) {
        self.truth.fetch_add(millis, Ordering::SeqCst);
    }
}

/// A session's first refresh token.
async fn begin(mfa: &Mfa) -> String {
    let email = Email::parse("alice@shop.example").unwrap();
    let user = match mfa.users().by_email(&TenantId::PUBLIC, &email).await.unwrap().into_iter().next() {
        Some(user) => user,
        None => mfa.users().create(&TenantId::PUBLIC, &email).await.unwrap(),
    };
    let (kit, login) = (&mfa.desk.kit, user.logins[0].id.clone());
    let handle = SessionHandle::random(&TenantId::PUBLIC).unwrap();
    let token = RefreshToken::random(handle.clone(), user.id.clone(), &kit.refresh[0]).unwrap();
    let (handle, user, current): (_, &UserId, _) = (&handle, &user.id, &token.hash2());
    let (lives, login) = (&kit.config.lifetimes, &login);
    let inserted = kit.db.transact(user, |mut tx| async move {
        let (now, tenant) = (tx.now(), TenantId::PUBLIC);
        let (mut payload, mut claim) = (Payload::new(), MfaClaim { v: true, ..MfaClaim::default() });
        claim.mark(FactorId::PASSWORD, now);
        claim.write(&mut payload);
        let row = SessionRecord {
            user: user.clone(),
            login: login.clone(),
            tenant: tenant.clone(),
            created_at: now,
            used_at: now,
            revision: 1,
            epochs: Standing::read(&mut tx, &tenant, user).await?.numbers(0).unwrap(),
            payload,
            lineage: Lineage {
                current: current.clone(),
                previous: None,
                superseded: Vec::new(),
                salt: "salt".to_owned(),
                half_until: None,
                expires_at: now + lives.refresh_token,
                absolute_until: now + lives.session,
            },
            ask_at: None,
        };
        session::insert(&mut tx, handle, &row, 100).await?;
        tx.commit(())
    });
    inserted.await.unwrap();
    token.text().to_owned()
}

/// The inner service is not meant.
async fn refresh(mfa: &Mfa, token: &str) -> (StatusCode, String, Option<String>) {
    let nobody =
        tower::service_fn(|_: Request<Empty<bytes::Bytes>>| -> Ready<Result<_, std::convert::Infallible>> {
            std::future::ready(Ok(Response::new(Full::<bytes::Bytes>::default())))
        });
    let mut service = ApiLayer::new(mfa.clone()).layer(nobody);
    let request = Request::post("/auth/session/refresh")
        .header("authorization", format!("Bearer {token}"))
        .body(Empty::new())
        .unwrap();
    let response = service.ready().await.unwrap().call(request).await.unwrap();
    let next = response.headers().get("st-refresh-token").map(|next| next.to_str().unwrap().to_owned());
    let (status, body) = (response.status(), response.into_body().collect().await.unwrap().to_bytes());
    (status, String::from_utf8(body.to_vec()).unwrap(), next)
}

#[tokio::test]
async fn sec_r18_the_window_is_judged_by_the_stores_clock() {
    let nodes = Nodes::new();
    let right = nodes.node(0);
    // Seconds apart, two nodes give one answer within the window and one verdict after it.
    for (one, other) in [(-3, 3), (3, -3)] {
        let first = begin(&right).await;
        let (status, _, second) = refresh(&nodes.node(one), &first).await;
        assert_eq!(status, 200);
        nodes.wait(30_000);
        assert_eq!(refresh(&nodes.node(other), &first).await.2, second);
        nodes.wait(1_000);
        let (_, caught, _) = refresh(&nodes.node(other), &first).await;
        assert!(caught.contains("token theft detected"), "{caught}");
    }
    // Ten minutes away a node gives nothing out, but it is neither wrong about the window.
    for wrong_by in [-600, 600] {
        let first = begin(&right).await;
        let (_, _, second) = refresh(&right, &first).await;
        let second = second.unwrap();
        for token in [&first, &second] {
            nodes.wait(10_000);
            let (status, body, next) = refresh(&nodes.node(wrong_by), token).await;
            assert_eq!((status, next), (StatusCode::SERVICE_UNAVAILABLE, None), "{wrong_by} {body}");
        }
        assert_eq!(refresh(&right, &first).await.2.as_ref(), Some(&second));
        nodes.wait(11_000);
        let (_, caught, _) = refresh(&nodes.node(wrong_by), &first).await;
        assert!(caught.contains("token theft detected"), "{wrong_by} {caught}");
        let row = right.desk.kit.db.get::<SessionRecord>(&keys::session(&handle_of(&first))).await.unwrap();
        assert!(row.is_none());
    }
}

fn handle_of(token: &str) -> SessionHandle {
    SessionHandle::parse(token.split('.').nth(1).unwrap()).unwrap()
}
