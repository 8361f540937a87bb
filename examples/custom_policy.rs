//! A policy of one's own: staff, by their address, complete a code by e-mail; between eight in the evening and six
//! in the morning, everybody does. `cargo run --example custom_policy`, then sign up at
//! `http://127.0.0.1:3001/auth/signup`; codes appear on standard error.

use std::error::Error;

use axum::{Router, routing::get};
use tower_mfa::{
    FactorId, Mfa, MfaLayer, MfaPolicy, PolicyContext, Requirements,
    api::ApiLayer,
    config::{AppInfo, Secrets},
    delivery::Outbox,
    ident::Timestamp,
    policy::PolicyError,
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
    let mfa = Mfa::builder(shop, Secrets::random()?, MemoryStore::new())
        .policy(StaffAndNights)
        .delivery(outbox)
        .build()?;
    Ok(Router::new()
        .route("/orders", get(async || "no orders yet"))
        .layer(MfaLayer::required(mfa.clone()))
        .layer(ApiLayer::new(mfa.clone()))
        .layer(mfa.cors()))
}

/// The rule.
#[derive(Debug)]
pub struct StaffAndNights;

impl MfaPolicy for StaffAndNights {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        // The time is looked at first: it costs nothing, and the user is then read only by day.
        let (night, turns) = night(ctx.now());
        let demand =
            if night || is_staff(ctx).await? { FactorId::OTP_EMAIL.into() } else { Requirements::none() };
        // Nothing reports that night falls, so the answer says until when it holds.
        Ok(demand.until(turns))
    }
}

async fn is_staff(ctx: &PolicyContext<'_>) -> Result<bool, PolicyError> {
    let addresses = ctx.user().await?.logins.iter().filter_map(|login| login.email.as_ref());
    Ok(addresses.into_iter().any(|address| address.as_str().ends_with("@shop.example")))
}

/// Whether it is night (UTC), and when that changes.
fn night(now: Timestamp) -> (bool, Timestamp) {
    const HOUR: i64 = 3600;
    let (midnight, hour) = (now.as_secs() - now.as_secs().rem_euclid(24 * HOUR), now.as_secs() / HOUR % 24);
    let (night, turns) = match hour {
        0..6 => (true, 6),
        6..20 => (false, 20),
        _ => (true, 30),
    };
    (night, Timestamp::from_secs(midnight + turns * HOUR))
}
