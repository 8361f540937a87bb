//! A password gets everybody in; closing the account takes a code by e-mail from the last five minutes. `cargo run
//! --example step_up`, then sign up at `http://127.0.0.1:3001/auth/signup`; codes appear on standard error.

use std::{error::Error, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use tower_mfa::{
    FactorId, Mfa, MfaLayer, RequireFactors, SessionExtractor,
    api::ApiLayer,
    config::{AppInfo, Secrets},
    delivery::Outbox,
    guard::{StepUp, SteppedUp},
    policy::Nobody,
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
        Mfa::builder(shop, Secrets::random()?, MemoryStore::new()).policy(Nobody).delivery(outbox).build()?;
    Ok(Router::new()
        .route("/orders", get(orders))
        // As an argument of the handler …
        .route("/close", post(close_account))
        // … or as a layer around a route.
        .route("/export", get(async || "everything").route_layer(RequireFactors::step_up::<Fresh>()))
        .layer(MfaLayer::required(mfa.clone()))
        .layer(ApiLayer::new(mfa.clone()))
        .layer(mfa.cors()))
}

/// A code by e-mail within the last five minutes.
struct Fresh;

impl StepUp for Fresh {
    fn rule() -> RequireFactors {
        RequireFactors::one_of([FactorId::OTP_EMAIL]).max_age(Duration::from_secs(300))
    }
}

async fn orders(session: SessionExtractor) -> String {
    format!("no orders yet, {}", session.user_id())
}

async fn close_account(proof: SteppedUp<Fresh>) -> String {
    close(&proof)
}

/// Takes the proof, which only the crate makes: no route that forgot to ask can call it.
fn close(proof: &SteppedUp<Fresh>) -> String {
    format!("the account of {} is closed", proof.user_id())
}
