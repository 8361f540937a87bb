//! `GET /jwt/jwks.json` and `GET /.well-known/openid-configuration`: the public keys and where they are, for whoever
//! verifies tokens elsewhere (`spec/wire.md` §2.2).

use http::{
    HeaderValue,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL},
};
use serde_json::{Value, json};

use super::{call::Call, reply::Reply};
use crate::base::distinct;

/// The keys that verify now, and the one that will sign next.
pub(super) fn jwks(call: &Call<'_>) -> Reply {
    let (kit, now) = (call.kit(), call.kit().db.now());
    let keyring = kit.keys.current();
    let age = keyring.max_age(now, &kit.schedule());
    let reply =
        Reply::ok(keyring.jwks(now)).header(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    match HeaderValue::from_str(&format!("max-age={age}, must-revalidate")) {
        Ok(value) => reply.header(CACHE_CONTROL, value),
        Err(_) => reply,
    }
}

/// Who issues the tokens, and where the keys are: what a service needs to verify them. There is no endpoint for OAuth
/// clients, so none is named and no response type is.
pub(super) fn openid_configuration(call: &Call<'_>) -> Reply {
    let kit = call.kit();
    let jwks = kit.keys.current().jwks(kit.db.now());
    let keys = jwks["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let algorithms = distinct(keys.iter().filter_map(|key| key["alg"].as_str()));
    let issuer = kit.issuer.as_str();
    Reply::ok(json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/jwt/jwks.json"),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
        "response_types_supported": Vec::<Value>::new(),
    }))
    .header(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))
}
