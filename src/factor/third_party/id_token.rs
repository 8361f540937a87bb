//! Whether an `id_token` holds. Pure: the token, the keys and `now` in, what it says out.

use chrono::DateTime;
use openidconnect::{
    ClaimsVerificationError, ClientId, IdTokenVerifier, Nonce, SignatureVerificationError, core::CoreIdToken,
};
use serde_json::{Map, Value};

use super::{Provider, ProviderClient, place::Signer};
use crate::base::{hash, json, time::Timestamp};

/// How far ahead a provider's clock may be, in seconds.
const AHEAD: i64 = 300;

/// Why one doesn't hold.
pub(super) enum Bad {
    /// None of the keys is the token's.
    Key,
    Token(&'static str),
}

/// What an `id_token` says, if it holds: signature, issuer, audience, times. It is for the client that the request
/// means, and may have been issued to another one of the app's own at the same provider: what an Android app gets from
/// Google is for the web client.
pub(super) fn verify(
    signer: &Signer,
    provider: &Provider,
    client: &ProviderClient,
    token: &CoreIdToken,
    now: Timestamp,
) -> Result<Map<String, Value>, Bad> {
    let id = ClientId::new(client.id.clone());
    let clock = move || DateTime::from_timestamp(now.as_secs(), 0).unwrap_or_default();
    let verifier = IdTokenVerifier::new_public_client(id, signer.issuer.clone(), signer.keys.clone())
        .set_allowed_algs(signer.algs.clone())
        .set_time_fn(clock)
        .set_issue_time_verifier_fn(move |issued| match issued.timestamp() <= now.as_secs() + AHEAD {
            true => Ok(()),
            false => Err("issued in the future".to_owned()),
        });
    // No nonce was issued: state and code are bound to the browser, by it and by PKCE (`spec/wire.md` §9.2).
    let any = |_: Option<&Nonce>| Ok(());
    token.claims(&verifier, any).map_err(|error| match error {
        ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey) => Bad::Key,
        ClaimsVerificationError::Expired(_) => Bad::Token("an id_token isn't valid now"),
        ClaimsVerificationError::InvalidAudience(_) => Bad::Token("an id_token is for another app"),
        ClaimsVerificationError::InvalidIssuer(_) => Bad::Token("an id_token is another provider's"),
        _ => Bad::Token("an id_token doesn't hold"),
    })?;
    // What was verified, as it was written: types are judged by who reads it.
    let text = token.to_string();
    let said = text.split('.').nth(1).and_then(hash::from_base64url);
    let said = said.and_then(|raw| json::parse_object(&raw).ok()).ok_or(Bad::Token("it can't be read"))?;
    let ours = |party: &Value| provider.clients.iter().any(|client| party.as_str() == Some(&client.id));
    match said.get("azp") {
        Some(party) if !ours(party) => Err(Bad::Token("an id_token is for another app")),
        _ => Ok(said),
    }
}
