//! The application behind the crate: its parts, and the routes that browser tests ask.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{ConnectInfo, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tower_mfa::{
    FactorId, Mfa, MfaLayer, RequireFactors, Requirement, SessionExtractor,
    api::ApiLayer,
    claim::EmailVerified,
    config::ConfigError,
    ident::{ErrorKind, TenantId},
    store::{AnyStore, MemoryStore, SqliteStore},
};

use crate::{
    hooks::{self, Hooks},
    settings::{Settings, StoreKind, Wrong},
    watched::{Failing, MovedClock, WatchedOutbox, WatchedPolicy, WatchedStore},
};

/// What ends the start, or the server.
pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// The server, ready to be served.
pub(crate) struct App {
    pub(crate) mfa: Mfa,
    pub(crate) router: Router,
}

impl App {
    /// Opens the store, wires everything, and makes the tenant `public`.
    pub(crate) async fn start(settings: Settings) -> Result<Self, Failed> {
        let info = settings.app_info()?;
        let store = match &settings.store {
            StoreKind::Memory => AnyStore::new(MemoryStore::new()),
            StoreKind::Sqlite(file) => AnyStore::new(SqliteStore::open(file).await.map_err(unopened)?),
        };
        let (store, clock, outbox) =
            (WatchedStore::new(store), MovedClock::default(), WatchedOutbox::default());
        let failing = Arc::new(Failing::default());
        let mut builder = Mfa::builder(info, settings.secrets, store.clone())
            .clock(clock.clone())
            .delivery(outbox.clone())
            .policy(WatchedPolicy { inner: settings.policy, failing: Arc::clone(&failing) })
            .first_factors(settings.first_factors)
            .passwordless(settings.passwordless)
            .lifetimes(settings.lifetimes)
            .max_wrong_codes(settings.max_wrong_codes)
            .factor_changes(settings.factor_changes)
            .email_verification(settings.email_verification)
            .peer(|extensions, _| {
                extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip())
            });
        if let Some(providers) = settings.providers {
            builder = builder.third_party(providers);
        }
        if !settings.limits {
            builder = builder.insecure_without_quotas();
        }
        let mfa = builder.build().map_err(|error| contradiction(&error))?;
        mfa.tenants().create(&TenantId::PUBLIC, None).await?;

        let mut router = routes(&mfa, settings.fresh);
        if settings.hooks {
            let hooks = Hooks { mfa: mfa.clone(), store, clock, outbox, failing_policy: failing };
            router = router.merge(hooks::routes(hooks));
        }
        let router = router.layer(ApiLayer::new(mfa.clone())).layer(mfa.cors());
        Ok(Self { mfa, router })
    }
}

/// What may complete a session: a link only begins one.
const SECOND: [FactorId; 3] = [FactorId::PASSWORD, FactorId::OTP_EMAIL, FactorId::OTP_PHONE];

fn unopened(error: impl std::error::Error) -> Wrong {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    Wrong::new("STORE", format!("{error}{cause}"))
}

/// What each variable can say alone was checked before: only the two origins can contradict each other.
fn contradiction(error: &ConfigError) -> Wrong {
    Wrong::new(
        "WEBSITE_ORIGIN and API_ORIGIN, FIRST_FACTORS and PASSWORDLESS, or PROVIDERS",
        error.problems().join("; "),
    )
}

fn routes(mfa: &Mfa, age: Duration) -> Router {
    let required = || MfaLayer::required(mfa.clone());
    let totp = get(me).layer(RequireFactors::one_of([FactorId::TOTP]));
    let second = Requirement::one_of(SECOND).excluding_first_factor();
    let fresh = get(me).layer(RequireFactors::list(second).max_age(age));
    let full = Router::new()
        .route("/api/me", get(me))
        .route("/api/totp-only", totp)
        .route("/api/fresh", fresh)
        .route("/api/admin", get(admin).with_state(mfa.clone()))
        .route_layer(required());
    // No claim checks at all.
    let half = Router::new()
        .route("/api/half", get(me))
        .route_layer(required().without_mfa().without::<EmailVerified>());
    let anyone = MfaLayer::optional(mfa.clone()).without_mfa().without::<EmailVerified>();
    let public = Router::new().route("/api/public", get(who)).route_layer(anyone);
    Router::new().route("/health", get(health)).merge(full).merge(half).merge(public)
}

async fn health() -> Json<Value> {
    Json(json!({ "status": "OK" }))
}

async fn me(session: SessionExtractor) -> Json<Value> {
    Json(json!({
        "userId": session.user_id(),
        "tenantId": session.tenant_id(),
        "claim": session.payload().member("st-mfa"),
    }))
}

async fn who(session: Option<SessionExtractor>) -> Json<Value> {
    Json(json!({ "userId": session.map(|session| session.user_id()) }))
}

/// Asks the store each time: a role that was taken away doesn't live on in a token.
async fn admin(State(mfa): State<Mfa>, session: SessionExtractor) -> Response {
    match mfa.roles().of(&session.user_id(), &session.tenant_id()).await {
        Ok(roles) if roles.iter().any(|role| role.as_str() == "admin") => me(session).await.into_response(),
        Ok(roles) => {
            let reason =
                json!({ "message": "wrong value", "expectedToInclude": "admin", "actualValue": roles });
            let body = json!({
                "message": "invalid claim",
                "claimValidationErrors": [{ "id": "st-role", "reason": reason }],
            });
            (StatusCode::FORBIDDEN, Json(body)).into_response()
        }
        Err(error) => failed(error.kind()).into_response(),
    }
}

/// A failure of the crate, as an answer.
pub(crate) fn failed(kind: ErrorKind) -> (StatusCode, Json<Value>) {
    let (status, message) = match kind {
        ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "temporarily unavailable"),
        ErrorKind::NotFound => (StatusCode::NOT_FOUND, "not found"),
        ErrorKind::Invalid => (StatusCode::BAD_REQUEST, "that can't be done"),
        ErrorKind::SessionEnded => (StatusCode::NOT_FOUND, "not found"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
    };
    (status, Json(json!({ "message": message })))
}
