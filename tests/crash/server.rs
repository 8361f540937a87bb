//! The server that is disturbed: the crate on a SQLite file, guarded routes, and what the tests ask it.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use serde_json::{Value, json};

use super::MARK;
use crate::{
    Clock, FactorId, Mfa, MfaLayer, MfaPolicy, PolicyContext, Requirements, SessionExtractor,
    api::ApiLayer,
    claim::{ClaimContext, ClaimError, SessionClaim},
    config::{AppInfo, Secrets},
    delivery::{Delivery, DeliveryError, Envelope, Notice},
    ident::{Email, Payload, SystemClock, TenantId, Timestamp},
    model::{code::Code, keys, queue::Queued},
    policy::PolicyError,
    store::{Key, Scan, SqliteStore},
};

/// Everybody is asked for a code.
struct Everybody;

impl MfaPolicy for Everybody {
    async fn requirements(&self, _ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        Ok(FactorId::OTP_EMAIL.into())
    }
}

struct Plan;

impl SessionClaim for Plan {
    const KEY: &'static str = "plan";
    type Value = String;

    async fn fetch(&self, _ctx: &ClaimContext<'_>) -> Result<Option<String>, ClaimError> {
        Ok(Some("basic".to_owned()))
    }
}

#[derive(Debug)]
struct Ahead(SystemClock, Duration);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.0.now() + self.1
    }
}

/// Writes a line for each message, in a file that outlives the process.
struct Lines(PathBuf);

impl Delivery for Lines {
    async fn deliver(&self, _: &Envelope, notice: &Notice) -> Result<(), DeliveryError> {
        let Some(code) = notice.code() else { return Ok(()) };
        let line = format!("{} {}\n", notice.to().as_str(), code.expose());
        let mut file = OpenOptions::new().create(true).append(true).open(&self.0).unwrap();
        file.write_all(line.as_bytes()).map_err(DeliveryError::temporary)
    }
}

#[derive(Clone)]
struct App {
    mfa: Mfa,
    /// How often a guarded handler ran.
    served: Arc<AtomicU64>,
    /// After how many milliseconds an outer layer gives up on a request; 0 for never.
    patience: Arc<AtomicU64>,
}

/// Serves until the process is killed. The first line says where.
pub(super) async fn serve(dir: &Path, ahead: Duration) {
    let _armed = fail::FailScenario::setup();
    let store = SqliteStore::open(dir.join("db")).await.unwrap();
    let info = AppInfo::new("Shop", "http://localhost:3001", "http://localhost:3000").unwrap();
    let mfa = Mfa::builder(info, Secrets::file(dir.join("key")).unwrap(), store)
        .clock(Ahead(SystemClock::new(), ahead))
        .policy(Everybody)
        .claim(Plan)
        .first_factors([FactorId::PASSWORD, FactorId::OTP_EMAIL])
        .insecure_without_quotas()
        .delivery(Lines(dir.join("sent")))
        .build()
        .unwrap();
    let app = App { mfa, served: Arc::default(), patience: Arc::default() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    say(&listener.local_addr().unwrap().to_string());
    axum::serve(listener, routes(app)).await.unwrap();
}

/// A line to whoever started the process.
fn say(what: &str) {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{MARK}{what}").unwrap();
    stdout.flush().unwrap();
}

fn routes(app: App) -> Router {
    let required = || MfaLayer::required(app.mfa.clone());
    let full = Router::new().route("/api/me", get(me)).route_layer(required());
    let checked = Router::new().route("/api/checked", get(me)).route_layer(required().check_store());
    let half = Router::new()
        .route("/api/half", get(me))
        .route("/api/write", post(write))
        .route_layer(required().without_mfa());
    let controls = Router::new()
        .route("/arm", put(arm))
        .route("/state", get(state))
        .route("/judge", put(judge))
        .route("/revoke", put(revoke))
        .route("/patience", put(patience));
    full.merge(checked)
        .merge(half)
        .merge(controls)
        .layer(ApiLayer::new(app.mfa.clone()))
        .layer(middleware::from_fn_with_state(app.clone(), give_up))
        .with_state(app)
}

async fn give_up(State(app): State<App>, request: Request, next: Next) -> Response {
    let patience = app.patience.load(Ordering::SeqCst);
    if patience == 0 {
        return next.run(request).await;
    }
    match tokio::time::timeout(Duration::from_millis(patience), next.run(request)).await {
        Ok(response) => response,
        Err(_) => StatusCode::GATEWAY_TIMEOUT.into_response(),
    }
}

async fn me(State(app): State<App>, session: SessionExtractor) -> Json<Value> {
    app.served.fetch_add(1, Ordering::SeqCst);
    Json(json!({ "claim": session.payload().member("st-mfa"), "n": session.payload().member("n") }))
}

/// A handler that changes its session, and answers by what it was told of that.
async fn write(session: SessionExtractor) -> Response {
    let update = Payload::from_json(json!({ "n": 1 })).unwrap();
    match session.merge_payload(update).await {
        Ok(()) => Json(json!({ "status": "OK" })).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// `{"place", "actions"}`. `wait N` says when the Nth to come is there, and lets nobody on from then on.
async fn arm(Json(body): Json<Value>) -> Json<Value> {
    let (place, actions) = (body["place"].as_str().unwrap(), body["actions"].as_str().unwrap());
    match actions.strip_prefix("wait ") {
        Some(nth) => {
            let (name, left) = (place.to_owned(), AtomicU32::new(nth.parse().unwrap()));
            let wait = move || {
                let before =
                    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                match before {
                    Ok(left) if left > 1 => return,
                    Ok(_) => say(&name),
                    Err(_) => {}
                }
                loop {
                    std::thread::park();
                }
            };
            fail::cfg_callback(place, wait).unwrap();
        }
        None => fail::cfg(place, actions).unwrap(),
    }
    Json(Value::Null)
}

/// `?email=`: a user's sessions, how many login methods they have, every flow's state, how many messages wait, and what was counted.
async fn state(State(app): State<App>, Query(of): Query<BTreeMap<String, String>>) -> Json<Value> {
    let db = &app.mfa.desk.kit.db;
    let (mut sessions, mut logins) = (Vec::new(), Vec::new());
    for user in
        app.mfa.users().by_email(&TenantId::PUBLIC, &Email::parse(&of["email"]).unwrap()).await.unwrap()
    {
        logins.push(user.logins.len());
        for session in app.mfa.sessions().list(&user.id).await.unwrap() {
            sessions.push(json!({ "handle": session.handle, "half": session.half }));
        }
    }
    let flows: Vec<(Key, Code)> = db.scan(&Scan::under(Key::new(["t", "public", "code"]))).await.unwrap();
    let queued: Vec<(Key, Queued)> = db.scan(&Scan::under(keys::queued())).await.unwrap();
    let flows: BTreeMap<&str, Value> =
        flows.iter().map(|(_, code)| (code.id.as_str(), json!(code.state))).collect();
    Json(json!({
        "sessions": sessions,
        "logins": logins,
        "flows": flows,
        "queued": queued.len(),
        "comparisons": app.mfa.counters().code_comparisons,
        "graceHits": app.mfa.counters().refresh_grace_hits,
        "served": app.served.load(Ordering::SeqCst),
    }))
}

async fn user(app: &App, body: &Value) -> crate::account::User {
    let email = Email::parse(body["email"].as_str().unwrap()).unwrap();
    app.mfa.users().by_email(&TenantId::PUBLIC, &email).await.unwrap().remove(0)
}

/// `{"email"}`: the policy is asked again about the user's sessions.
async fn judge(State(app): State<App>, Json(body): Json<Value>) -> Json<Value> {
    app.mfa.users().judge_anew(&user(&app, &body).await.id).await.unwrap();
    Json(Value::Null)
}

/// `{"email"}`: ends all of the user's sessions.
async fn revoke(State(app): State<App>, Json(body): Json<Value>) -> StatusCode {
    match app.mfa.sessions().revoke_user(&user(&app, &body).await.id).await {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// `{"millis"}`
async fn patience(State(app): State<App>, Json(body): Json<Value>) -> Json<Value> {
    app.patience.store(body["millis"].as_u64().unwrap(), Ordering::SeqCst);
    Json(Value::Null)
}
