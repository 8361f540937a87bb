//! Refusals and failures as answers: the wire's body, and the members of RFC 9457 beside it.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};

use super::MfaBody;
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::FactorId,
        percent_encoded, random,
    },
    claim::InvalidClaim,
    policy::NextStep,
    session::{
        Kit, SessionDenied,
        transport::{self, TokenChange},
    },
};

/// An answer of the crate's own.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    /// Seconds.
    pub(crate) retry_after: Option<u64>,
    /// How the client can authenticate so that it passes.
    pub(crate) challenge: Option<HeaderValue>,
    /// Put into the response's extensions, so that an outer layer sees why without parsing.
    pub(crate) denied: Option<SessionDenied>,
    /// What becomes of the client's tokens, and what is needed to say so.
    pub(crate) change: Option<Box<(TokenChange, Arc<Kit>)>>,
}

/// A status with a fixed text.
pub(crate) fn message(status: StatusCode, message: &'static str) -> Answer {
    Answer::new(status, &json!({ "message": message }))
}

/// A session is missing, over, or lacks something. All but the last are told in fixed words: refusing a
/// stranger costs as little as can be.
pub(crate) fn denied(denied: &SessionDenied) -> Answer {
    let (status, body) = match denied {
        SessionDenied::Unauthorised => (StatusCode::UNAUTHORIZED, Bytes::from_static(UNAUTHORISED)),
        SessionDenied::TryRefresh => (StatusCode::UNAUTHORIZED, Bytes::from_static(TRY_REFRESH)),
        SessionDenied::Theft => (StatusCode::UNAUTHORIZED, Bytes::from_static(THEFT)),
        SessionDenied::InvalidClaims(claims) => {
            let status = StatusCode::FORBIDDEN;
            (status, invalid(status, claims).to_string().into())
        }
    };
    Answer { status, body, retry_after: None, challenge: None, denied: Some(denied.clone()), change: None }
}

/// The same to an API client that sent no token: no error, but a parameter there must be (RFC 6750, section 3).
pub(crate) fn unauthenticated(denied: &SessionDenied) -> Answer {
    let challenge = HeaderValue::from_static("Bearer realm=\"session\"");
    Answer { challenge: Some(challenge), ..self::denied(denied) }
}

/// The same to one that sent a header token: where authenticating again would help, it is told how (RFC 9470,
/// section 3).
pub(crate) fn challenged(denied: &SessionDenied) -> Answer {
    let answer = self::denied(denied);
    let SessionDenied::InvalidClaims(claims) = denied else {
        let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
        return Answer { challenge: Some(challenge), ..answer };
    };
    let Some(challenge) = challenge(claims) else { return answer };
    let status = StatusCode::UNAUTHORIZED;
    let body = invalid(status, claims).to_string().into();
    Answer { status, body, challenge: Some(challenge), ..answer }
}

/// `None` if it wouldn't help: something else is wrong with the session, too, or what is asked for can't be done.
fn challenge(claims: &[InvalidClaim]) -> Option<HeaderValue> {
    let helps = |claim: &InvalidClaim| {
        !claim.hopeless && claim.next.as_ref().is_some_and(|next| !next.is_impossible())
    };
    let first = claims.first().filter(|_| claims.iter().all(helps))?;
    let next = first.next.as_ref()?;
    let why = match first.acr {
        _ if !next.expired.is_empty() => "the authentication is too old",
        Some(_) => "a higher level of authentication is needed",
        None => "a further factor is needed",
    };
    let acr_values = acr_values(first, next);
    let mut text = format!(
        "Bearer error=\"insufficient_user_authentication\", error_description=\"{why}\", \
         acr_values=\"{acr_values}\""
    );
    if let Some(age) = next.max_age {
        text.push_str(&format!(", max_age=\"{}\"", age.as_secs()));
    }
    HeaderValue::try_from(text).ok()
}

/// The level that is asked for, else one value for each factor that is a next step, in their order.
fn acr_values(claim: &InvalidClaim, next: &NextStep) -> String {
    match claim.acr {
        Some(level) => level.to_owned(),
        None => next.factors.iter().map(named).collect::<Vec<_>>().join(" "),
    }
}

/// A factor as a URN (RFC 8141): what can't stand in one is percent-encoded, for an app's own factor may be
/// called anything.
fn named(factor: &FactorId) -> String {
    format!("urn:tower-mfa:factor:{}", percent_encoded(factor.as_str()))
}

const UNAUTHORISED: &[u8] = br#"{"message":"unauthorised","status":401,"title":"There is no session","type":"urn:tower-mfa:unauthorised"}"#;
const TRY_REFRESH: &[u8] = br#"{"message":"try refresh token","status":401,"title":"The access token must be refreshed","type":"urn:tower-mfa:try-refresh"}"#;
const THEFT: &[u8] = br#"{"message":"token theft detected","status":401,"title":"A refresh token was used twice","type":"urn:tower-mfa:token-theft"}"#;

fn invalid(status: StatusCode, claims: &[InvalidClaim]) -> Value {
    let errors = claims.iter().map(|claim| match &claim.reason {
        Some(reason) => json!({ "id": claim.id, "reason": reason }),
        None => json!({ "id": claim.id }),
    });
    let mut body = json!({
        "message": "invalid claim",
        "type": "urn:tower-mfa:invalid-claim",
        "title": "The session lacks what is asked here",
        "status": status.as_u16(),
        "claimValidationErrors": errors.collect::<Value>(),
    });
    if let (Some(members), Some(next)) =
        (body.as_object_mut(), claims.iter().find_map(|claim| claim.next.as_ref()))
    {
        members.extend(problem(next));
    }
    body
}

/// What the user is to do next, as members of RFC 9457: `detail` for people; for programs `next`, and where
/// they apply `expired` (what of it was done too long ago) and `max_age` (seconds).
fn problem(next: &NextStep) -> Vec<(String, Value)> {
    let ids = |factors: &[FactorId]| factors.iter().map(FactorId::as_str).collect::<Value>();
    let mut members = vec![("detail", json!(next.label())), ("next", ids(&next.factors))];
    if !next.expired.is_empty() {
        members.push(("expired", ids(&next.expired)));
    }
    if let Some(age) = next.max_age {
        members.push(("max_age", json!(age.as_secs())));
    }
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The session is good, but no factor was proven lately.
fn step_up() -> Answer {
    let status = StatusCode::FORBIDDEN;
    let body = json!({
        "message": "a factor must be proven again first",
        "type": "urn:tower-mfa:step-up",
        "title": "A factor must be proven again first",
        "status": status.as_u16(),
    });
    Answer::new(status, &body)
}

/// A session that is over is 401 and clears nothing here (row C10), one that proved no factor lately 403, as is what
/// this request or its user may not do; a failure is 503 or 500.
pub(crate) fn error(error: &Error) -> Answer {
    match error.kind() {
        ErrorKind::SessionEnded => denied(&SessionDenied::Unauthorised),
        ErrorKind::StaleToken => denied(&SessionDenied::TryRefresh),
        ErrorKind::StepUp => step_up(),
        ErrorKind::Refused => Answer::new(StatusCode::FORBIDDEN, &json!({ "message": error.to_string() })),
        _ => failed(error),
    }
}

/// Something failed: 503 or 500, logged once, and it clears no cookie (decision of the house 17).
pub(crate) fn failed(error: &Error) -> Answer {
    if error.kind() == ErrorKind::Unavailable {
        #[cfg(feature = "tracing")]
        tracing::warn!(error = %error, cause = cause(error), "temporarily unavailable");
        let answer = message(StatusCode::SERVICE_UNAVAILABLE, "temporarily unavailable");
        return Answer { retry_after: Some(1 + spread()), ..answer };
    }
    let id = random::uuid().unwrap_or_default();
    #[cfg(feature = "tracing")]
    tracing::error!(error = %error, cause = cause(error), %id, "internal error");
    let body = json!({ "message": "internal error", "id": id });
    Answer::new(StatusCode::INTERNAL_SERVER_ERROR, &body)
}

/// Up to two seconds more: whoever was told to come back doesn't all come at once (row R17).
fn spread() -> u64 {
    random::bytes::<1>().map_or(0, |[byte]| u64::from(byte % 3))
}

/// The message of the nearest cause; deeper ones may carry a driver's values, and what JSON says about a
/// record that can't be read repeats the record (row G03).
#[cfg(feature = "tracing")]
fn cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) if cause.is::<serde_json::Error>() => "not of the expected form".to_owned(),
        Some(cause) => cause.to_string().chars().take(256).collect(),
        None => String::new(),
    }
}

impl Answer {
    /// A status and a JSON body, and nothing else.
    pub(crate) fn new(status: StatusCode, body: &Value) -> Self {
        Self {
            status,
            body: body.to_string().into(),
            retry_after: None,
            challenge: None,
            denied: None,
            change: None,
        }
    }

    pub(crate) fn into_response<R>(mut self: Box<Self>) -> Response<MfaBody<R>> {
        let (status, retry_after, challenge) = (self.status, self.retry_after, self.challenge.take());
        let (change, denied) = (self.change.take(), self.denied.take());
        let mut response = Response::new(MfaBody::ours(self));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        transport::no_store_yet(headers);
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some((change, kit)) = change.as_deref() {
            // Tokens are made of letters that can stand in a header.
            let _ = change.write(headers, &kit.config.cookies, kit.db.now());
        }
        if let Some(denied) = denied {
            response.extensions_mut().insert(denied);
        }
        response
    }
}
