//! The README's lines as a whole program: `cargo run --example quickstart`, then sign up at
//! `http://127.0.0.1:3001/auth/signup`, as a SuperTokens front end does. Codes appear on standard error.

use std::error::Error;

// README begin
use axum::{Router, routing::get};
use tower_mfa::{
    FactorId, Mfa, MfaLayer, RequireFactors, SessionExtractor,
    api::ApiLayer,
    config::{AppInfo, Secrets},
    delivery::Outbox,
    policy::ForRole,
    store::MemoryStore,
};
// README end

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // README begin
    let shop = AppInfo::new("Shop", "http://127.0.0.1:3001", "http://127.0.0.1:3000")?;
    let mfa = Mfa::builder(shop, Secrets::random()?, MemoryStore::new())
        .policy(ForRole::new("admin", FactorId::OTP_EMAIL))
        .delivery(Outbox::printing())
        .build()?;
    let app = Router::new()
        .route("/orders", get(orders))
        .route("/account", get(account).route_layer(RequireFactors::one_of([FactorId::OTP_EMAIL])))
        .layer(MfaLayer::required(mfa.clone()))
        .layer(ApiLayer::new(mfa.clone()))
        .layer(mfa.cors());
    // README end
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3001").await?;
    eprintln!("http://127.0.0.1:3001");
    axum::serve(listener, app).await?;
    Ok(())
}

async fn orders(session: SessionExtractor) -> String {
    format!("no orders yet, {}", session.user_id().as_str())
}

async fn account(session: SessionExtractor) -> String {
    format!("you proved {} factors", session.completed_factors().iter().count())
}
