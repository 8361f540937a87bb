//! The second factor that apps once made by hand: a password, then a code to the phone, and a claim
//! `2fa-completed` that routes ask for. `cargo run --features full --example legacy_second_factor`, then sign up at
//! `http://127.0.0.1:3001/auth/signup`; codes appear on standard error.
//!
//! What was written by hand is the crate's here. The number is the user's from the first right code on, and from
//! then on no other one gets a code; the session goes on; which number it is stands in the store, never in a token.

use std::error::Error;

use axum::{Json, Router, extract::State, routing::get};
use tower_mfa::{
    FactorId, Mfa, MfaLayer, SessionClaim, SessionExtractor,
    api::ApiLayer,
    claim::{ClaimContext, ClaimError, HasValue},
    config::{AppInfo, Countries, Passwordless, Secrets},
    delivery::Outbox,
    policy::Everyone,
    store::MemoryStore,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (_, app) = shop(Outbox::printing())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3001").await?;
    axum::serve(listener, app).await?;
    Ok(())
}

/// The shop.
pub fn shop(outbox: Outbox) -> Result<(Mfa, Router), Box<dyn Error>> {
    let shop = AppInfo::new("Shop", "http://127.0.0.1:3001", "http://127.0.0.1:3000")?;
    let mfa = Mfa::builder(shop, Secrets::random()?, MemoryStore::new())
        .first_factors([FactorId::PASSWORD])
        .passwordless(Passwordless::phone(Countries::only(["HU"])?))
        .policy(Everyone::new(FactorId::OTP_PHONE))
        .claim(SecondFactor)
        .delivery(outbox)
        .build()?;
    // The layer asks by itself for what the policy wants; the validator is what older routes had.
    let guarded = MfaLayer::required(mfa.clone()).validate(HasValue::is_true(SecondFactor));
    let half = Router::new()
        .route("/my-number", get(my_number))
        .layer(MfaLayer::required(mfa.clone()).without_mfa())
        .with_state(mfa.clone());
    let app = Router::new()
        .route("/orders", get(async || "no orders yet"))
        .layer(guarded)
        .merge(half)
        .layer(ApiLayer::new(mfa.clone()))
        .layer(mfa.cors());
    Ok((mfa, app))
}

/// Whether this session has completed the code to the phone. By hand it was fetched as `false`, and whoever fetched
/// it again lost the second factor; here it says what is so.
#[derive(Debug)]
pub struct SecondFactor;

impl SessionClaim for SecondFactor {
    const KEY: &'static str = "2fa-completed";
    type Value = bool;
    // So that the very answer to a right code says `true`.
    const FOLLOWS_FACTORS: bool = true;

    async fn fetch(&self, ctx: &ClaimContext<'_>) -> Result<Option<bool>, ClaimError> {
        Ok(Some(ctx.completed().contains(&FactorId::OTP_PHONE)))
    }
}

/// Before the second factor, too: so the page asks for the number only once. What is answered is masked, and the
/// page sends it back as it is to get a code.
async fn my_number(
    State(mfa): State<Mfa>,
    session: SessionExtractor,
) -> Result<Json<Option<String>>, tower_mfa::Error> {
    let contacts = mfa.users().masked_contacts(&session).await?;
    Ok(Json(contacts.into_iter().flat_map(|(_, numbers)| numbers).next()))
}
