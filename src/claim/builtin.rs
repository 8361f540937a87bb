//! The claims that come with the crate, beside `st-mfa`.

use std::time::Duration;

use super::{
    ClaimContext, ClaimError, ClaimRef, ClaimValidator, HasValue, InvalidClaim, SessionClaim, Stamped,
};
use crate::base::{payload::Payload, time::Timestamp};

/// `st-role`: the user's roles in the session's tenant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Roles;

impl SessionClaim for Roles {
    const KEY: &'static str = "st-role";
    type Value = Vec<String>;

    async fn fetch(&self, ctx: &ClaimContext<'_>) -> Result<Option<Vec<String>>, ClaimError> {
        Ok(Some(ctx.roles().await?.iter().map(ToString::to_string).collect()))
    }
}

/// `st-perm`: what the user's roles in the session's tenant allow. A validator asks for one:
/// `Includes::new(Permissions, "orders:write")`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Permissions;

impl SessionClaim for Permissions {
    const KEY: &'static str = "st-perm";
    type Value = Vec<String>;

    async fn fetch(&self, ctx: &ClaimContext<'_>) -> Result<Option<Vec<String>>, ClaimError> {
        Ok(Some(ctx.permissions().await?.iter().map(ToString::to_string).collect()))
    }
}

/// `st-ev`: whether the e-mail of the session's login method was proved, by it or by another login method of the
/// user; true if it has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmailVerified;

impl SessionClaim for EmailVerified {
    const KEY: &'static str = "st-ev";
    type Value = bool;
    /// A code by e-mail proves the address that it went to.
    const FOLLOWS_FACTORS: bool = true;

    async fn fetch(&self, ctx: &ClaimContext<'_>) -> Result<Option<bool>, ClaimError> {
        let user = ctx.user().await?;
        Ok(user.login(&ctx.session().login).map(|login| user.is_proved(login)))
    }
}

/// Asks that the session's e-mail address was proved: [`EmailVerified`] is true. Fetched anew when it is missing, and
/// when it is false and over 10 s old, for the link may have been opened elsewhere.
///
/// ```
/// # use axum::{Router, routing::get};
/// # use tower_mfa::{Mfa, MfaLayer, claim::EmailIsVerified};
/// fn routes(mfa: Mfa) -> Router {
///     let reviews = MfaLayer::required(mfa).validate(EmailIsVerified::new());
///     Router::new().route("/reviews", get(|| async { "yours" })).layer(reviews)
/// }
/// ```
#[derive(Debug)]
pub struct EmailIsVerified(HasValue<EmailVerified>);

impl EmailIsVerified {
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Asks for a proved address.
    pub fn new() -> Self {
        Self(HasValue::is_true(EmailVerified))
    }

    /// Fetches the claim anew when it is older than this, whatever it says. There is no limit by default.
    pub fn max_age(self, age: Duration) -> Self {
        Self(self.0.max_age(age))
    }
}

impl Default for EmailIsVerified {
    fn default() -> Self {
        Self::new()
    }
}

impl ClaimValidator for EmailIsVerified {
    fn id(&self) -> &str {
        EmailVerified::KEY
    }

    fn validate(&self, payload: &Payload, now: Timestamp) -> Result<(), InvalidClaim> {
        self.0.validate(payload, now)
    }

    fn refetch(&self, payload: &Payload, now: Timestamp) -> Option<ClaimRef> {
        let told = payload.member(EmailVerified::KEY).and_then(Stamped::<bool>::read);
        let old = told.is_some_and(|told| !told.v && told.t + Self::PATIENCE < now);
        if old { Some(ClaimRef::new(EmailVerified)) } else { self.0.refetch(payload, now) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_false_claim_is_fetched_anew_after_ten_seconds() {
        let (now, asks) = (Timestamp::from_secs(1_000), EmailIsVerified::new());
        let payload = |v: bool, ago: i64| {
            let mut payload = Payload::new();
            payload.set("st-ev", json!({ "v": v, "t": now.as_millis() - ago }));
            payload
        };
        for (payload, refetch, passes) in [
            (Payload::new(), true, false),
            (payload(true, 0), false, true),
            (payload(true, 1_000_000_000), false, true),
            (payload(false, 10_000), false, false),
            (payload(false, 10_001), true, false),
        ] {
            assert_eq!(asks.refetch(&payload, now).is_some(), refetch, "{payload:?}");
            assert_eq!(asks.validate(&payload, now).is_ok(), passes, "{payload:?}");
            assert_eq!(asks.satisfied(&payload, now), passes && !refetch);
        }
        let reason = asks.validate(&payload(false, 0), now).unwrap_err().reason.unwrap();
        assert_eq!(reason, json!({ "message": "wrong value", "expectedValue": true, "actualValue": false }));
        assert_eq!(asks.id(), "st-ev");
    }
}
