//! A delivery of the app's own: it hands notices, not words, to the company's message service, which has templates and
//! channels of its own. `cargo run --example custom_delivery`.
//!
//! What a delivery owes: it sends to `notice.to()` and nobody else, within 15 s; it says whether another try can help;
//! and it passes the envelope's id on, so that a notice that comes twice arrives once.

use std::{
    collections::BTreeSet,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body};
use http::Request;
use tower::ServiceExt as _;
use tower_mfa::{
    Mfa,
    api::ApiLayer,
    config::{AppInfo, Secrets},
    delivery::{Delivery, DeliveryError, Envelope, Notice},
    ident::Contact,
    store::MemoryStore,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let service = MessageService::default();
    let (mfa, app) = shop(service.clone())?;
    let request = Request::post("/auth/signinup/code")
        .header("content-type", "application/json")
        .body(Body::from(r#"{"email":"alice@shop.example"}"#))?;
    println!("asked for a code: {}", app.oneshot(request).await?.status());
    while mfa.counters().notices_delivered == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for line in service.accepted() {
        println!("the service has: {line}");
    }
    Ok(())
}

/// The company's message service, of which the app is a client: here it keeps what it is told.
#[derive(Clone, Debug, Default)]
pub struct MessageService(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    ids: BTreeSet<String>,
    lines: Vec<String>,
    busy: bool,
}

impl MessageService {
    /// Takes a message once; `Err` if it has no time now.
    fn accept(&self, id: &str, line: String) -> Result<(), &'static str> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.busy {
            return Err("busy");
        }
        if kept.ids.insert(id.to_owned()) {
            kept.lines.push(line);
        }
        Ok(())
    }

    /// What it took.
    pub fn accepted(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }

    /// Lets it refuse for a while.
    pub fn set_busy(&self, busy: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).busy = busy;
    }
}

/// The seam.
#[derive(Debug)]
pub struct ByService(pub MessageService);

impl Delivery for ByService {
    async fn deliver(&self, envelope: &Envelope, notice: &Notice) -> Result<(), DeliveryError> {
        let Contact::Email(to) = notice.to() else {
            return Err(DeliveryError::permanent("the service sends mail alone").with_reason("no SMS"));
        };
        let template = match notice {
            Notice::SignInCode { first_factor: true, .. } => "welcome-back",
            Notice::SignInCode { .. } => "second-step",
            Notice::FactorAdded { .. } | Notice::FactorRemoved { .. } => "account-changed",
            Notice::SuspiciousAttempts { .. } | Notice::CodesUsedUp { .. } | Notice::NewDevice { .. } => {
                "account-alert"
            }
            // There may be more kinds in a later version: better told plainly than not at all.
            _ => "notice",
        };
        let code = notice.code().map_or("none", |code| code.expose());
        let link = notice.link().map_or("none", |link| link.expose());
        let line = format!("{template} for {} of {}, code {code}, link {link}", to.as_str(), envelope.tenant);
        self.0
            .accept(&envelope.id, line)
            .map_err(|why| DeliveryError::temporary(why).with_reason("service busy"))
    }
}

/// The shop.
pub fn shop(service: MessageService) -> Result<(Mfa, Router), Box<dyn Error>> {
    let shop = AppInfo::new("Shop", "http://127.0.0.1:3001", "http://127.0.0.1:3000")?;
    let mfa =
        Mfa::builder(shop, Secrets::random()?, MemoryStore::new()).delivery(ByService(service)).build()?;
    let app = Router::new().layer(ApiLayer::new(mfa.clone()));
    Ok((mfa, app))
}
