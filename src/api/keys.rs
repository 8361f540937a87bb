//! `GET /jwt/jwks.json`: the public keys, for whoever verifies tokens elsewhere (`spec/wire.md` §2.2).

use http::{
    HeaderValue,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL},
};

use super::{call::Call, reply::Reply};

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
