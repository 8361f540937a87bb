//! Codes by real mail. First the server, a local one that prints what it gets:
//!
//! ```sh
//! npm --prefix tests/servers ci && npm --prefix tests/servers run mail
//! ```
//!
//! then this, in another terminal:
//!
//! ```sh
//! cargo run --features smtp --example smtp
//! ```
//!
//! It asks its own route for a code, as a browser would, and the message appears at the server. For a provider of mail, see
//! the two lines in [`smtp`].

use std::{error::Error, time::Duration};

use axum::{Router, body::Body};
use http::Request;
use tower::ServiceExt as _;
use tower_mfa::{
    Mfa,
    api::ApiLayer,
    config::{AppInfo, ConfigError, Secrets},
    delivery::{Courier, Notice, SmtpTransport, Texts},
    store::MemoryStore,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mfa, app) = shop(smtp()?)?;
    let request = Request::post("/auth/signinup/code")
        .header("content-type", "application/json")
        .body(Body::from(r#"{"email":"alice@shop.example"}"#))?;
    // The answer is here before the message has left.
    let answer = app.oneshot(request).await?;
    println!("asked for a code: {}", answer.status());
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let counters = mfa.counters();
        if counters.notices_delivered > 0 {
            println!("the mail server has the message");
            return Ok(());
        }
        if counters.delivery_failures > 0 {
            return Err("the message was not sent: does the mail server of the first command run?".into());
        }
    }
    Err("the mail server doesn't answer".into())
}

/// How mail leaves. With a provider it is these two lines:
///
/// ```ignore
/// let smtp = SmtpTransport::relay("smtp.provider.example", "Corner Shop <no-reply@shop.example>")?
///     .credentials("shop", Secret::new(std::env::var("SMTP_PASSWORD")?))?;
/// ```
fn smtp() -> Result<SmtpTransport, ConfigError> {
    SmtpTransport::dangerous_plaintext("127.0.0.1", 2525, "Corner Shop <no-reply@shop.example>")
}

/// The shop: codes by mail as a first factor, in the shop's own words.
pub fn shop(smtp: SmtpTransport) -> Result<(Mfa, Router), Box<dyn Error>> {
    let texts = Texts::new("Corner Shop").reword(|_tenant, notice, words| {
        if let Notice::SignInCode { first_factor: true, .. } = notice {
            words.greeting = "Welcome to the shop around the corner!".to_owned();
        }
    });
    let shop = AppInfo::new("Corner Shop", "http://127.0.0.1:3001", "http://127.0.0.1:3000")?;
    let mfa = Mfa::builder(shop, Secrets::random()?, MemoryStore::new())
        .delivery(Courier::new(smtp).templates(texts))
        .build()?;
    let app = Router::new().layer(ApiLayer::new(mfa.clone()));
    Ok((mfa, app))
}
