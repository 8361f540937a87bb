//! Refusals and failures as answers: the wire's body, and the members of RFC 9457 beside it.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::{Value, json};

use super::MfaBody;
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::FactorId,
        random,
    },
    policy::NextStep,
    session::{
        Kit, SessionDenied,
        transport::{self, TokenChange},
    },
};

/// An answer of the crate's own.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    /// Seconds.
    pub(crate) retry_after: Option<u64>,
    /// Put into the response's extensions, so that an outer layer sees why without parsing.
    pub(crate) denied: Option<SessionDenied>,
    /// What becomes of the client's tokens, and what is needed to say so.
    pub(crate) change: Option<(TokenChange, Arc<Kit>)>,
}

/// A status with a fixed text.
pub(crate) fn message(status: StatusCode, message: &'static str) -> Answer {
    Answer { status, body: json!({ "message": message }), retry_after: None, denied: None, change: None }
}

/// A session is missing, over, or lacks something.
pub(crate) fn denied(denied: &SessionDenied) -> Answer {
    let (status, kind, title, message) = match denied {
        SessionDenied::Unauthorised => {
            (StatusCode::UNAUTHORIZED, "unauthorised", "There is no session", "unauthorised")
        }
        SessionDenied::TryRefresh => (
            StatusCode::UNAUTHORIZED,
            "try-refresh",
            "The access token must be refreshed",
            "try refresh token",
        ),
        SessionDenied::Theft => (
            StatusCode::UNAUTHORIZED,
            "token-theft",
            "A refresh token was used twice",
            "token theft detected",
        ),
        SessionDenied::InvalidClaims(_) => {
            (StatusCode::FORBIDDEN, "invalid-claim", "The session lacks what is asked here", "invalid claim")
        }
    };
    let mut body = json!({
        "message": message,
        "type": format!("urn:tower-mfa:{kind}"),
        "title": title,
        "status": status.as_u16(),
    });
    if let SessionDenied::InvalidClaims(claims) = denied {
        let errors = claims.iter().map(|claim| match &claim.reason {
            Some(reason) => json!({ "id": claim.id, "reason": reason }),
            None => json!({ "id": claim.id }),
        });
        if let Some(members) = body.as_object_mut() {
            members.insert("claimValidationErrors".to_owned(), errors.collect());
            if let Some(next) = claims.iter().find_map(|claim| claim.next.as_ref()) {
                members.extend(problem(next));
            }
        }
    }
    Answer { status, body, retry_after: None, denied: Some(denied.clone()), change: None }
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

/// Something failed: 503 or 500, logged once, and it clears no cookie (decision of the house 17).
pub(crate) fn failed(error: &Error) -> Answer {
    if error.kind() == ErrorKind::Unavailable {
        #[cfg(feature = "tracing")]
        tracing::warn!(error = %error, cause = cause(error), "temporarily unavailable");
        let body = json!({ "message": "temporarily unavailable" });
        let (status, retry_after) = (StatusCode::SERVICE_UNAVAILABLE, Some(1));
        return Answer { status, body, retry_after, denied: None, change: None };
    }
    let id = random::uuid().unwrap_or_default();
    #[cfg(feature = "tracing")]
    tracing::error!(error = %error, cause = cause(error), %id, "internal error");
    Answer {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        body: json!({ "message": "internal error", "id": id }),
        retry_after: None,
        denied: None,
        change: None,
    }
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
    pub(crate) fn into_response<R>(self) -> Response<MfaBody<R>> {
        let mut response = Response::new(MfaBody::ours(Bytes::from(self.body.to_string())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        transport::no_store(headers);
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some((change, kit)) = &self.change {
            // Tokens are made of letters that can stand in a header.
            let _ = change.write(headers, &kit.config.cookies, kit.db.now());
        }
        if let Some(denied) = self.denied {
            response.extensions_mut().insert(denied);
        }
        response
    }
}
