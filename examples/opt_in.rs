//! Users switch a second factor on and off for themselves. `cargo run --example opt_in`, then sign up at
//! `http://127.0.0.1:3001/auth/signup`, as a SuperTokens front end does; codes appear on standard error.

use std::error::Error;

use axum::{
    Router,
    extract::State,
    routing::{get, put},
};
use http::StatusCode;
use tower_mfa::{
    FactorId, Mfa, MfaLayer, SessionExtractor,
    api::ApiLayer,
    config::{AppInfo, Secrets},
    delivery::Outbox,
    policy::OptIn,
    store::MemoryStore,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let app = shop(Outbox::printing())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3001").await?;
    axum::serve(listener, app).await?;
    Ok(())
}

/// The shop.
pub fn shop(outbox: Outbox) -> Result<Router, Box<dyn Error>> {
    let shop = AppInfo::new("Shop", "http://127.0.0.1:3001", "http://127.0.0.1:3000")?;
    let mfa =
        Mfa::builder(shop, Secrets::random()?, MemoryStore::new()).policy(OptIn).delivery(outbox).build()?;
    Ok(Router::new()
        .route("/orders", get(async || "no orders yet"))
        .route("/settings/code", put(switch_on).delete(switch_off))
        // Nobody switches anything off who hasn't completed what is on.
        .layer(MfaLayer::required(mfa.clone()))
        .layer(ApiLayer::new(mfa.clone()))
        .layer(mfa.cors())
        .with_state(mfa))
}

/// From the next request on, in every session of this user.
async fn switch_on(
    State(mfa): State<Mfa>,
    session: SessionExtractor,
) -> Result<StatusCode, tower_mfa::Error> {
    mfa.factors().opt_in(&session.user_id(), FactorId::OTP_EMAIL).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn switch_off(
    State(mfa): State<Mfa>,
    session: SessionExtractor,
) -> Result<StatusCode, tower_mfa::Error> {
    mfa.factors().opt_out(&session.user_id(), FactorId::OTP_EMAIL).await?;
    Ok(StatusCode::NO_CONTENT)
}
