//! Where people are signed in, for a page of their own: listed, and ended one by one, all others, or all.

use axum::{
    Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    routing::{delete, get},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_mfa::{
    Error, FactorId, Mfa, MfaLayer, Session, SessionExtractor,
    account::{LoginKind, User},
    claim::InvalidClaim,
    ident::{ErrorKind, SessionHandle},
};

use crate::shop::Failure;

/// For people who gave every code that is asked of them.
pub fn router(mfa: &Mfa) -> Router {
    Router::new()
        .route("/api/sessions", get(list).delete(end_many))
        .route("/api/sessions/{handle}", delete(end_one))
        .route_layer(MfaLayer::required(mfa.clone()))
        .with_state(mfa.clone())
}

/// The one that asks first, then the ones used last.
async fn list(State(mfa): State<Mfa>, session: SessionExtractor) -> Result<Json<Value>, Failure> {
    let here = session.handle();
    let mut sessions = mfa.sessions().list_own(&session).await?;
    sessions.sort_by_key(|one| (one.handle != here, std::cmp::Reverse(one.used_at)));
    let rows = sessions.iter().map(|one| {
        json!({
            "id": one.handle.as_str(),
            "here": one.handle == here,
            "branch": one.tenant.as_str(),
            "device": one.device,
            "createdAt": one.created_at.as_secs(),
            "usedAt": one.used_at.as_secs(),
        })
    });
    Ok(Json(json!({ "sessions": rows.collect::<Vec<_>>() })))
}

/// One of the person's own; what isn't there, or is somebody else's, is no error and ends nothing.
async fn end_one(
    State(mfa): State<Mfa>,
    Path(handle): Path<SessionHandle>,
    session: SessionExtractor,
) -> Result<Json<Value>, Failure> {
    match mfa.sessions().revoke_own(&session, &handle).await {
        Ok(ended) => Ok(Json(json!({ "ended": ended }))),
        Err(error) => Err(first(&mfa, &session, error).await?),
    }
}

#[derive(Deserialize)]
struct Which {
    /// This one as well.
    here: bool,
}

async fn end_many(
    State(mfa): State<Mfa>,
    session: SessionExtractor,
    body: Result<Json<Which>, JsonRejection>,
) -> Result<Json<Value>, Failure> {
    let Json(Which { here }) = body?;
    if let Err(error) = mfa.sessions().revoke_others(&session).await {
        return Err(first(&mfa, &session, error).await?);
    }
    if here {
        session.revoke().await?;
    }
    Ok(Json(json!({ "ended": true })))
}

/// Who only has somebody's open browser must not put its owner out: what has to be proven first. That is a code, for
/// people who have a way to get one; others sign in again.
async fn first(mfa: &Mfa, session: &Session, error: Error) -> Result<Failure, Failure> {
    if error.kind() != ErrorKind::StepUp {
        return Ok(error.into());
    }
    let user: User = mfa.users().load(&session.user_id()).await?.ok_or(Failure::Gone)?;
    let code =
        user.logins.iter().find(|login| login.kind == LoginKind::Passwordless).map(|login| {
            match login.phone {
                Some(_) => FactorId::OTP_PHONE,
                None => FactorId::OTP_EMAIL,
            }
        });
    let reason = match code {
        Some(code) => json!({ "message": "prove it's you first", "factorId": code }),
        None => json!("step_up_required"),
    };
    Ok(Failure::Claim(InvalidClaim::new("st-mfa", reason)))
}
