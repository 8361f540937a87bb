//! A service that makes no sessions: it verifies those of another server by its public keys. First the other one,
//!
//! ```sh
//! cargo run --example quickstart
//! ```
//!
//! then this, in another terminal:
//!
//! ```sh
//! cargo run --features http-client --example resource_server
//! ```
//!
//! `curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:3002/reports`, with an access token of the first. It listens
//! at `PORT`, 3002 if that isn't set.

use std::{env, error::Error, time::Duration};

use axum::{Router, routing::get};
use tower_mfa::{FactorId, MfaLayer, RequireFactors, SessionExtractor, config::ConfigError, layer::Verifier};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A real issuer is reached by TLS: `Verifier::new("https://api.shop.example/auth")?`.
    let issuer = Verifier::plain_http_on_loopback("http://127.0.0.1:3001/auth")?;
    let port: u16 = env::var("PORT").map_or(Ok(3002), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("GET http://{}/reports", listener.local_addr()?);
    axum::serve(listener, reports(issuer)?).await?;
    Ok(())
}

/// Reports for everybody who is fully signed in there; the salaries for whoever gave a code lately.
pub fn reports(issuer: Verifier) -> Result<Router, ConfigError> {
    let lately = RequireFactors::one_of([FactorId::OTP_EMAIL]).max_age(Duration::from_secs(300));
    Ok(Router::new()
        .route("/reports", get(report))
        .route("/salaries", get(report).route_layer(lately))
        .layer(MfaLayer::verify_only(issuer).bearer_challenges().checked()?))
}

async fn report(session: SessionExtractor) -> String {
    format!("the report of {}", session.user_id())
}
