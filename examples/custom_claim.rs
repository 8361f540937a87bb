//! A claim of one's own: what a user pays for, fetched when it is missing or ten minutes old, and asked for by a
//! route. `cargo run --example custom_claim`, then sign up at `http://127.0.0.1:3001/auth/signup`.

use std::{
    collections::BTreeSet,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, routing::get};
use tower_mfa::{
    Mfa, MfaLayer, SessionClaim, SessionExtractor,
    api::ApiLayer,
    claim::{ClaimContext, ClaimError, HasValue},
    config::{AppInfo, Secrets},
    ident::UserId,
    policy::Nobody,
    store::MemoryStore,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let app = shop(Subscriptions::default())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3001").await?;
    axum::serve(listener, app).await?;
    Ok(())
}

/// The shop.
pub fn shop(subscriptions: Subscriptions) -> Result<Router, Box<dyn Error>> {
    let shop = AppInfo::new("Shop", "http://127.0.0.1:3001", "http://127.0.0.1:3000")?;
    let mfa = Mfa::builder(shop, Secrets::random()?, MemoryStore::new())
        .policy(Nobody)
        .without_passwordless()
        .build()?;
    let gold = HasValue::new(Plan(subscriptions), "gold".to_owned())?.max_age(Duration::from_secs(600));
    let lounge = Router::new()
        .route("/lounge", get(async || "welcome to the lounge"))
        .layer(MfaLayer::required(mfa.clone()).validate(gold));
    Ok(Router::new()
        .route("/plan", get(plan))
        .layer(MfaLayer::required(mfa.clone()))
        .merge(lounge)
        .layer(ApiLayer::new(mfa.clone()))
        .layer(mfa.cors()))
}

/// The app's own table of who pays.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions(Arc<Mutex<BTreeSet<UserId>>>);

impl Subscriptions {
    /// From now on this user pays.
    pub fn add(&self, user: UserId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(user);
    }

    fn has(&self, user: &UserId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(user)
    }
}

/// What a user pays for.
struct Plan(Subscriptions);

impl SessionClaim for Plan {
    const KEY: &'static str = "plan";
    type Value = String;

    async fn fetch(&self, ctx: &ClaimContext<'_>) -> Result<Option<String>, ClaimError> {
        Ok(Some(if self.0.has(&ctx.session().user) { "gold" } else { "free" }.to_owned()))
    }
}

/// Read from the token: no store is asked.
async fn plan(session: SessionExtractor) -> Result<String, tower_mfa::Error> {
    Ok(session.claim::<Plan>()?.unwrap_or_else(|| "not known yet".to_owned()))
}
