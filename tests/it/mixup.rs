//! Row S18: however requests interleave, and whoever leaves early, each answer names its own user.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::body::Body;
use http::{HeaderMap, Request, Response};
use serde_json::json;
use tower::{Layer as _, Service, ServiceExt as _};
use tower_mfa::{MfaLayer, Session, config::Secrets, ident::Payload, store::MemoryStore};

use crate::{
    spy::{Spy, bare, shop, with},
    support::{Mode, TestApp},
};

const USERS: usize = 1000;
/// How many requests there are at least, however long they take: ten seconds on two cores without optimisation, and no
/// machine is too slow for them. The row's million is `MFA_REQUESTS=1000000`.
const REQUESTS: u64 = 100_000;
const TASKS: u64 = 32;

/// Random numbers that can be repeated: xorshift.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// A user's name, and a request that only they could send.
struct Who {
    id: String,
    handle: String,
    request: Vec<(&'static str, String)>,
}

/// Names the session's user; yields now and then, and writes now and then, so that others come in between.
async fn name(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let session = Session::from_extensions(request.extensions()).unwrap();
    let id = session.user_id();
    if request.headers().contains_key("x-yield") {
        tokio::task::yield_now().await;
    }
    if request.headers().contains_key("x-write") {
        let note = Payload::from_json(json!({ "note": id.as_str() })).unwrap();
        session.merge_payload(note).await.unwrap();
    }
    assert_eq!(session.user_id(), id);
    if request.headers().contains_key("x-keep") {
        keep(session.clone());
    }
    let mut response = Response::new(Body::from(id.to_string()));
    let handle = session.handle().as_str().parse().unwrap();
    response.headers_mut().insert("x-handle", handle);
    Ok(response)
}

/// Sessions that handlers keep beyond their answers, and whose they were: a few at a time, each looked at again
/// when it makes room for another.
fn keep(session: Session) {
    static KEPT: Mutex<VecDeque<(Session, String, String)>> = Mutex::new(VecDeque::new());
    let (id, handle) = (session.user_id().to_string(), session.handle().to_string());
    let mut kept = KEPT.lock().unwrap();
    kept.push_back((session, id, handle));
    if kept.len() > 300 {
        let (session, id, handle) = kept.pop_front().unwrap();
        assert_eq!((session.user_id().to_string(), session.handle().to_string()), (id, handle));
    }
}

async fn users(app: &TestApp) -> Vec<Who> {
    let mut all = Vec::with_capacity(USERS);
    // By codes: a password each would take a hash each.
    for n in 0..USERS {
        let mode = if n % 2 == 0 { Mode::Cookie } else { Mode::Header };
        let (mut browser, email) = (app.browser(mode), format!("user-{n}@shop.example"));
        let flow = browser.ask_code(&email, false).await.ok();
        let code = app.code(&email).await;
        browser.enter(&flow, &code, false).await.ok();
        let up = &browser.front.as_ref().unwrap()["up"];
        let text = |name: &str| up[name].as_str().unwrap().to_owned();
        let request = match mode {
            Mode::Cookie => ("cookie", format!("sAccessToken={}", browser.jar["sAccessToken"])),
            Mode::Header => ("authorization", format!("Bearer {}", browser.access.as_ref().unwrap())),
        };
        all.push(Who { id: text("sub"), handle: text("sessionHandle"), request: vec![request] });
    }
    all
}

type Read = Pin<Box<dyn Future<Output = (HeaderMap, String)> + Send>>;

/// An answer's headers and text, once there is one.
fn read<R>(answer: impl Future<Output = Result<Response<R>, Infallible>> + Send + 'static) -> Read
where
    R: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    R::Error: std::fmt::Debug,
{
    use http_body_util::BodyExt as _;
    Box::pin(async move {
        let (parts, body) = answer.await.unwrap().into_parts();
        let body = Box::pin(body).collect().await.unwrap().to_bytes();
        (parts.headers, String::from_utf8(body.to_vec()).unwrap())
    })
}

/// What an answer's new access token says, if there is one.
fn token_of(headers: &HeaderMap) -> Option<serde_json::Value> {
    use base64::Engine as _;
    let front = headers.get("front-token")?;
    let raw = base64::engine::general_purpose::STANDARD.decode(front.as_bytes()).unwrap();
    Some(serde_json::from_slice(&raw).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn sec_s18_every_answer_names_its_own_user() {
    let spy = Spy::new(MemoryStore::new());
    let app = TestApp::on(shop(), Secrets::random().unwrap(), spy.clone(), |b| b).await;
    let users = Arc::new(users(&app).await);
    let requests = std::env::var("MFA_REQUESTS").map_or(REQUESTS, |requests| requests.parse().unwrap());
    assert!(requests >= REQUESTS, "fewer than {REQUESTS} show nothing");
    let plain = MfaLayer::required(app.mfa.clone()).layer(tower::service_fn(name));
    let exact = MfaLayer::required(app.mfa.clone()).check_store().layer(tower::service_fn(name));
    let nested = MfaLayer::optional(app.mfa.clone()).layer(plain.clone());
    let (sent, left, start) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Instant::now());
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (users, sent, left) = (Arc::clone(&users), Arc::clone(&sent), Arc::clone(&left));
            let (mut plain, mut exact, mut nested) = (plain.clone(), exact.clone(), nested.clone());
            tokio::spawn(async move {
                let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (task + 1));
                while sent.fetch_add(1, Ordering::Relaxed) < requests {
                    let who = &users[dice.roll(USERS as u64) as usize];
                    let headers: Vec<(&'static str, &str)> =
                        who.request.iter().map(|(name, value)| (*name, value.as_str())).collect();
                    let mut request = with(bare("GET", "/"), &headers);
                    if dice.roll(4) == 0 {
                        request = with(request, &[("x-yield", "1")]);
                    }
                    if dice.roll(3) == 0 {
                        request = with(request, &[("x-keep", "1")]);
                    }
                    let writes = dice.roll(200) == 0;
                    if writes {
                        request = with(request, &[("x-write", "1")]);
                    }
                    let answer = match dice.roll(100) {
                        0 => read(exact.ready().await.unwrap().call(request)),
                        1 => read(nested.ready().await.unwrap().call(request)),
                        _ => read(plain.ready().await.unwrap().call(request)),
                    };
                    // Some leave: before the first poll, or after a few.
                    let patience = dice.roll(20);
                    let answer = if patience < 3 {
                        let mut answer = answer;
                        let mut polls = patience;
                        let found = std::future::poll_fn(|cx| {
                            if polls == 0 {
                                return std::task::Poll::Ready(None);
                            }
                            polls -= 1;
                            match answer.as_mut().poll(cx) {
                                std::task::Poll::Ready(found) => std::task::Poll::Ready(Some(found)),
                                std::task::Poll::Pending => {
                                    cx.waker().wake_by_ref();
                                    std::task::Poll::Pending
                                }
                            }
                        });
                        match found.await {
                            Some(found) => found,
                            None => {
                                left.fetch_add(1, Ordering::Relaxed);
                                continue;
                            }
                        }
                    } else {
                        answer.await
                    };
                    let (parts, text) = answer;
                    assert_eq!(text, who.id);
                    assert_eq!(parts["x-handle"], who.handle.as_str());
                    if let Some(front) = token_of(&parts) {
                        assert_eq!(
                            (&front["uid"], &front["up"]["sessionHandle"]),
                            (&json!(who.id), &json!(who.handle))
                        );
                        assert!(front["up"]["note"].is_null() || front["up"]["note"] == json!(who.id));
                    }
                    assert!(!writes || parts.contains_key("front-token"));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (sent, left) = (sent.load(Ordering::Relaxed) - TASKS, left.load(Ordering::Relaxed));
    println!("{sent} requests of {USERS} users in {:?}, {left} left early", start.elapsed());
    assert_eq!(sent, requests);
    assert!(left > sent / 50, "{sent} {left}");
    // Nobody's row holds another's note.
    let mut noted = 0;
    for (_, row) in spy.records(&["t", "public", "session"]).await {
        let note = &row["payload"]["note"];
        assert!(note.is_null() || *note == row["user"], "{row}");
        noted += usize::from(!note.is_null());
    }
    assert!(noted > 0);
}
