//! Admins need a second factor, but only in tenants that ask for it; and a tenant that asks may give its people a
//! week. `cargo run --example tenant_scoped`, then sign up at `http://127.0.0.1:3001/auth/<tenant>/signup`.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use axum::{Router, routing::get};
use tower_mfa::{
    FactorId, Mfa, MfaLayer, SessionExtractor,
    account::TenantRule,
    api::ApiLayer,
    config::{AppInfo, Secrets},
    delivery::Outbox,
    ident::{TenantId, Timestamp},
    policy::ForRole,
    store::MemoryStore,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (_, app) = shop(Outbox::printing()).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3001").await?;
    axum::serve(listener, app).await?;
    Ok(())
}

/// A shop of three tenants: `public` asks nothing, `north` asks at once, and `south` a week from now.
pub async fn shop(outbox: Outbox) -> Result<(Mfa, Router), Box<dyn Error>> {
    let shop = AppInfo::new("Shop", "http://127.0.0.1:3001", "http://127.0.0.1:3000")?;
    let mfa = Mfa::builder(shop, Secrets::random()?, MemoryStore::new())
        .policy(ForRole::new("admin", FactorId::OTP_EMAIL).where_tenant_asks())
        .delivery(outbox)
        .build()?;
    let week = Duration::from_secs(7 * 86_400);
    let in_a_week = Timestamp::EPOCH + SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + week;
    let asks = TenantRule::require([FactorId::OTP_EMAIL]);
    for (tenant, rule) in [("north", asks.clone()), ("south", asks.enrol_by(in_a_week))] {
        let tenant = TenantId::parse(tenant)?;
        mfa.tenants().create(&tenant, None).await?;
        mfa.tenants().set_rule(&tenant, rule).await?;
    }
    let app = Router::new()
        .route("/office", get(office))
        .layer(MfaLayer::required(mfa.clone()))
        .layer(ApiLayer::new(mfa.clone()))
        .layer(mfa.cors());
    Ok((mfa, app))
}

async fn office(session: SessionExtractor) -> String {
    let due = session.payload().member("st-mfa-grace").map(|grace| format!("; set up by then: {grace}"));
    format!("the office of {}{}", session.tenant_id(), due.unwrap_or_default())
}
