//! Admins complete a code by e-mail, beside their password; nobody else is asked. `cargo run --example admin_role`,
//! then sign up at `http://127.0.0.1:3001/auth/signup`, as a SuperTokens front end does; codes appear on standard error.

use std::error::Error;

use axum::{Router, extract::State, routing::get};
use tower_mfa::{
    FactorId, Mfa, MfaLayer, SessionExtractor,
    api::ApiLayer,
    config::{AppInfo, Secrets},
    delivery::Outbox,
    policy::{Compose as _, ForRole, OptIn},
    store::MemoryStore,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (_, app) = shop(Outbox::printing())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3001").await?;
    axum::serve(listener, app).await?;
    Ok(())
}

/// The shop, and the handle that grants roles.
pub fn shop(outbox: Outbox) -> Result<(Mfa, Router), Box<dyn Error>> {
    let shop = AppInfo::new("Shop", "http://127.0.0.1:3001", "http://127.0.0.1:3000")?;
    let mfa = Mfa::builder(shop, Secrets::random()?, MemoryStore::new())
        // What users switched on for themselves holds as well: a role's rule alone would drop it.
        .policy(ForRole::new("admin", FactorId::OTP_EMAIL).and(OptIn))
        .delivery(outbox)
        .build()?;
    let app = Router::new()
        .route("/office", get(office))
        .layer(MfaLayer::required(mfa.clone()))
        .layer(ApiLayer::new(mfa.clone()))
        .layer(mfa.cors())
        .with_state(mfa.clone());
    Ok((mfa, app))
}

/// Whoever gets here has completed what is asked of them. Whether they are an admin is another question.
async fn office(State(mfa): State<Mfa>, session: SessionExtractor) -> Result<String, tower_mfa::Error> {
    let roles = mfa.roles().of(&session.user_id(), &session.tenant_id()).await?;
    let is_admin = roles.iter().any(|role| role.as_str() == "admin");
    Ok(if is_admin { "all orders" } else { "your own orders" }.to_owned())
}
