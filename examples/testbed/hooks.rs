//! The hooks under `/test`: for programs that test, served only with `TEST_HOOKS=1`. JSON in and out; 200
//! on success, 404 for what isn't there, 400 for what can't be read. `user` may be an id or an e-mail
//! address.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tower_mfa::{
    FactorId, Mfa,
    account::{LoginKind, LoginMethod, User},
    delivery::Notice,
    ident::{Contact, Email, Role, SessionHandle, TenantId, UserId},
};

use crate::{
    app::failed,
    watched::{Failing, MovedClock, WatchedOutbox, WatchedStore},
};

/// What the hooks reach.
#[derive(Clone)]
pub(crate) struct Hooks {
    pub(crate) mfa: Mfa,
    pub(crate) store: WatchedStore,
    pub(crate) clock: MovedClock,
    pub(crate) outbox: WatchedOutbox,
    pub(crate) failing_policy: Arc<Failing>,
}

pub(crate) fn routes(hooks: Hooks) -> Router {
    Router::new()
        .route("/test/otp", get(otp))
        .route("/test/tenants/{id}", put(tenant))
        .route("/test/users/{user}", get(show))
        .route("/test/users/{user}/roles", put(roles))
        .route("/test/users/{user}/required-factors", put(required_factors))
        .route("/test/users/{user}/tenants", put(tenants))
        .route("/test/sessions/revoke", post(revoke))
        .route("/test/clock", post(clock))
        .route("/test/fail", post(fail))
        .route("/test/counters", get(counters))
        .with_state(hooks)
}

type Answer = Result<Json<Value>, Refused>;

enum Refused {
    BadRequest(&'static str),
    NotFound,
    Failed(tower_mfa::Error),
}

impl From<tower_mfa::Error> for Refused {
    fn from(error: tower_mfa::Error) -> Self {
        Self::Failed(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::BadRequest(message) => (StatusCode::BAD_REQUEST, message),
            Self::NotFound => (StatusCode::NOT_FOUND, "not found"),
            Self::Failed(error) => return failed(error.kind()).into_response(),
        };
        (status, Json(json!({ "message": message }))).into_response()
    }
}

#[derive(Deserialize)]
struct To {
    contact: String,
}

/// Waits until everything is sent that was queued when it was asked: which of it goes to the contact is
/// sealed.
async fn otp(State(hooks): State<Hooks>, Query(To { contact }): Query<To>) -> Answer {
    // A `+` in a query says space, and no contact has one: `?contact=+36…` may be written as it looks.
    let contact = contact.replace(' ', "+");
    let contact = Contact::parse(&contact).map_err(|_| Refused::BadRequest("not a contact"))?;
    let waits = async {
        let Ok(mut waiting) = hooks.store.queue().await else { return };
        while !waiting.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if let Ok(queue) = hooks.store.queue().await {
                waiting.retain(|key| queue.contains(key));
            }
        }
    };
    // After 2 s the last one that was sent will do.
    let _ = tokio::time::timeout(Duration::from_secs(2), waits).await;
    let all = hooks.outbox.kept.messages();
    // Notices without a code or a link are none that anybody waits for here.
    let opens = |notice: &Notice| notice.code().is_some() || notice.link().is_some();
    let sent: Vec<_> =
        all.iter().filter(|sent| *sent.notice.to() == contact && opens(&sent.notice)).collect();
    let count = sent.len();
    let sent = sent.last().ok_or(Refused::NotFound)?;
    Ok(Json(json!({
        "userInputCode": sent.notice.code().map(|code| code.expose()),
        "linkUrl": sent.notice.link().map(|link| link.expose()),
        "count": count,
    })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TenantBody {
    first_factors: Option<Vec<FactorId>>,
    required_secondary_factors: Option<Vec<FactorId>>,
}

async fn tenant(State(hooks): State<Hooks>, Path(id): Path<String>, body: Bytes) -> Answer {
    let id = tenant_id(&id)?;
    let TenantBody { first_factors, required_secondary_factors } = read(&body)?;
    let tenants = hooks.mfa.tenants();
    tenants.create(&id, first_factors.clone()).await?;
    tenants.set_first_factors(&id, first_factors).await?;
    tenants.require(&id, required_secondary_factors.unwrap_or_default()).await?;
    Ok(done())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RolesBody {
    tenant_id: Option<TenantId>,
    roles: Vec<Role>,
}

async fn roles(State(hooks): State<Hooks>, Path(user): Path<String>, body: Bytes) -> Answer {
    let RolesBody { tenant_id, roles } = read(&body)?;
    let user = hooks.user(&user).await?;
    let tenant = tenant_id.unwrap_or(TenantId::PUBLIC);
    hooks.mfa.tenants().load(&tenant).await?.ok_or(Refused::NotFound)?;
    hooks.mfa.roles().set(&user.id, &tenant, roles).await?;
    Ok(done())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FactorsBody {
    #[serde(default)]
    add: Vec<FactorId>,
    #[serde(default)]
    remove: Vec<FactorId>,
}

async fn required_factors(State(hooks): State<Hooks>, Path(user): Path<String>, body: Bytes) -> Answer {
    let FactorsBody { add, remove } = read(&body)?;
    let user = hooks.user(&user).await?;
    for factor in add {
        hooks.mfa.factors().opt_in(&user.id, factor).await?;
    }
    for factor in remove {
        hooks.mfa.factors().opt_out(&user.id, factor).await?;
    }
    Ok(Json(json!({ "required": hooks.mfa.factors().required_for(&user.id).await? })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantsBody {
    add: Vec<TenantId>,
}

async fn tenants(State(hooks): State<Hooks>, Path(user): Path<String>, body: Bytes) -> Answer {
    let TenantsBody { add } = read(&body)?;
    let user = hooks.user(&user).await?;
    hooks.mfa.users().add_to_tenants(&user.id, add).await?;
    Ok(done())
}

/// `{"user", "roles": {tenant: […]}, "requiredFactors": […], "sessions": [{"sessionHandle", "tenantId",
/// "timeCreated", "timeUsed", "half"}]}`
async fn show(State(hooks): State<Hooks>, Path(user): Path<String>) -> Answer {
    let user = hooks.user(&user).await?;
    let mut roles = Map::new();
    for tenant in hooks.mfa.tenants().list().await? {
        let held = hooks.mfa.roles().of(&user.id, &tenant.id).await?;
        if !held.is_empty() {
            roles.insert(tenant.id.to_string(), json!(held));
        }
    }
    let sessions = hooks.mfa.sessions().list(&user.id).await?.into_iter().map(|session| {
        json!({
            "sessionHandle": session.handle,
            "tenantId": session.tenant,
            "timeCreated": session.created_at,
            "timeUsed": session.used_at,
            "half": session.half,
        })
    });
    Ok(Json(json!({
        "user": wire_user(&user),
        "roles": roles,
        "requiredFactors": hooks.mfa.factors().required_for(&user.id).await?,
        "sessions": sessions.collect::<Value>(),
    })))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RevokeBody {
    User {
        user: String,
    },
    Session {
        #[serde(rename = "sessionHandle")]
        handle: String,
    },
}

async fn revoke(State(hooks): State<Hooks>, body: Bytes) -> Answer {
    match read(&body)? {
        RevokeBody::User { user } => {
            let user = hooks.user(&user).await?;
            hooks.mfa.sessions().revoke_user(&user.id).await?;
        }
        RevokeBody::Session { handle } => {
            let handle = SessionHandle::parse(&handle).map_err(|_| Refused::NotFound)?;
            if !hooks.mfa.sessions().revoke(&handle).await? {
                return Err(Refused::NotFound);
            }
        }
    }
    Ok(done())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockBody {
    advance: f64,
}

async fn clock(State(hooks): State<Hooks>, body: Bytes) -> Answer {
    let ClockBody { advance } = read(&body)?;
    let by = Duration::try_from_secs_f64(advance)
        .map_err(|_| Refused::BadRequest("a clock is moved forward, by seconds"))?;
    hooks.clock.advance(by);
    Ok(done())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailBody {
    store: Option<u64>,
    policy: Option<u64>,
}

async fn fail(State(hooks): State<Hooks>, body: Bytes) -> Answer {
    let FailBody { store, policy } = read(&body)?;
    if let Some(calls) = store {
        hooks.store.calls.failing.next(calls);
    }
    if let Some(calls) = policy {
        hooks.failing_policy.next(calls);
    }
    Ok(done())
}

async fn counters(State(hooks): State<Hooks>) -> Answer {
    let (crate_s, calls) = (hooks.mfa.counters(), &hooks.store.calls);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Json(json!({
        "storeGets": count(&calls.gets),
        "storeScans": count(&calls.scans),
        "storeCommits": count(&calls.commits),
        "passwordHashes": crate_s.password_hashes,
        "codeComparisons": crate_s.code_comparisons,
        "sent": count(&hooks.outbox.sent),
    })))
}

impl Hooks {
    /// The user of this id, or the oldest who signs in by this address; in `public` if there is one.
    async fn user(&self, text: &str) -> Result<User, Refused> {
        if let Ok(id) = UserId::parse(text)
            && let Some(user) = self.mfa.users().load(&id).await?
        {
            return Ok(user);
        }
        let email = Email::parse(text).map_err(|_| Refused::NotFound)?;
        let mut tenants: Vec<TenantId> =
            self.mfa.tenants().list().await?.into_iter().map(|tenant| tenant.id).collect();
        tenants.sort_by_key(|tenant| !tenant.is_public());
        for tenant in tenants {
            let found = self.mfa.users().by_email(&tenant, &email).await?;
            if let Some(user) = found.into_iter().min_by_key(User::joined_at) {
                return Ok(user);
            }
        }
        Err(Refused::NotFound)
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|_| Refused::BadRequest("the body isn't what this hook reads"))
}

fn done() -> Json<Value> {
    Json(json!({ "status": "OK" }))
}

fn tenant_id(text: &str) -> Result<TenantId, Refused> {
    TenantId::parse(text).map_err(|_| Refused::BadRequest("not a tenant id"))
}

/// A user as the API's routes write one.
fn wire_user(user: &User) -> Value {
    let logins = &user.logins;
    json!({
        "id": user.id,
        "isPrimaryUser": user.primary,
        "tenantIds": each_once(logins.iter().flat_map(|login| &login.tenants).map(|tenant| json!(tenant))),
        "timeJoined": user.joined_at(),
        "emails": each_once(logins.iter().filter_map(|login| login.email.as_ref()).map(|email| json!(email))),
        "phoneNumbers": each_once(logins.iter().filter_map(|login| login.phone.as_ref()).map(|phone| json!(phone))),
        "thirdParty": logins.iter().filter_map(third_party).collect::<Value>(),
        "webauthn": { "credentialIds": [] },
        "loginMethods": logins.iter().map(wire_login).collect::<Value>(),
    })
}

fn wire_login(login: &LoginMethod) -> Value {
    let recipe = match login.kind {
        LoginKind::EmailPassword => "emailpassword",
        LoginKind::ThirdParty => "thirdparty",
        LoginKind::Passwordless => "passwordless",
        LoginKind::WebAuthn => "webauthn",
        _ => "external",
    };
    let mut wire = Map::new();
    wire.insert("recipeId".into(), json!(recipe));
    wire.insert("recipeUserId".into(), json!(login.id));
    wire.insert("tenantIds".into(), json!(login.tenants));
    wire.insert("timeJoined".into(), json!(login.joined_at));
    wire.insert("verified".into(), json!(login.verified));
    let optional = [
        ("email", login.email.as_ref().map(|email| json!(email))),
        ("phoneNumber", login.phone.as_ref().map(|phone| json!(phone))),
        ("thirdParty", third_party(login)),
    ];
    wire.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    Value::Object(wire)
}

fn third_party(login: &LoginMethod) -> Option<Value> {
    login.third_party.as_ref().map(|id| json!({ "id": id.provider, "userId": id.subject }))
}

fn each_once(values: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut seen: Vec<Value> = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}
