//! The session as an argument of a handler, and the proof of a step-up.

use std::{fmt, ops::Deref};

use axum_core::{
    body::Body,
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};

use crate::{
    base::error::Error,
    guard::{Lack, StepUp, SteppedUp},
    layer::{Verified, refuse},
    session::{Session, SessionDenied},
};

/// The session that [`MfaLayer`](crate::MfaLayer) verified. Derefs to [`Session`].
///
/// `Option<SessionExtractor>` is `None` for an anonymous request under
/// [`MfaLayer::optional`](crate::MfaLayer::optional); without the layer both are a 500 that says so.
#[derive(Clone, Debug)]
pub struct SessionExtractor(Session);

impl SessionExtractor {
    /// The session itself, to keep or to hand on.
    pub fn into_inner(self) -> Session {
        self.0
    }
}

impl Deref for SessionExtractor {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

/// Why there is no session to extract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionRejection {
    /// No [`MfaLayer`](crate::MfaLayer) ran: the app is wired wrongly (row M01).
    NoLayer,
    /// The mount takes requests without a session, and this one has none.
    NoSession,
}

impl SessionRejection {
    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoLayer => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoSession => StatusCode::UNAUTHORIZED,
        }
    }
}

impl fmt::Display for SessionRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoLayer => {
                "SessionExtractor without MfaLayer around it: add .layer(MfaLayer::required(mfa))"
            }
            Self::NoSession => "there is no session",
        })
    }
}

impl std::error::Error for SessionRejection {}

impl IntoResponse for SessionRejection {
    fn into_response(self) -> Response {
        let answer = match self {
            Self::NoLayer => refuse::failed(&Error::internal(
                "SessionExtractor without MfaLayer around it: add .layer(MfaLayer::required(mfa))",
            )),
            Self::NoSession => refuse::denied(&SessionDenied::Unauthorised),
        };
        Box::new(answer).into_response::<Body>().map(Body::new)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SessionExtractor {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, SessionRejection> {
        let verified = parts.extensions.get::<Verified>().ok_or(SessionRejection::NoLayer)?;
        verified.session().cloned().map(Self).ok_or(SessionRejection::NoSession)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for SessionExtractor {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, SessionRejection> {
        let verified = parts.extensions.get::<Verified>().ok_or(SessionRejection::NoLayer)?;
        Ok(verified.session().cloned().map(Self))
    }
}

/// A handler may end with it: 503 if the store or something of the app's didn't answer, 401 if the session is over
/// or its token stale, 403 if a factor must be proven again first, another site sent the request or the user is
/// disabled, else 500, logged. What the user could mend is the app's to say: see [`Error::kind`].
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Box::new(refuse::error(&self)).into_response::<Body>().map(Body::new)
    }
}

/// Why there is no proof of a step-up to extract.
#[derive(Debug)]
pub struct StepUpRejection(Lack);

impl StepUpRejection {
    /// What the session lacks; `None` if no [`MfaLayer`](crate::MfaLayer) ran.
    pub fn denied(&self) -> Option<&SessionDenied> {
        match &self.0 {
            Lack::Layer | Lack::Failed(_) => None,
            Lack::Session { denied, .. } => Some(denied),
        }
    }
}

impl fmt::Display for StepUpRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.denied() {
            None if matches!(self.0, Lack::Failed(_)) => "a validator panicked",
            None => "SteppedUp without MfaLayer around it: add .layer(MfaLayer::required(mfa))",
            Some(SessionDenied::InvalidClaims(_)) => "the session lacks what is asked here",
            Some(_) => "there is no session",
        })
    }
}

impl std::error::Error for StepUpRejection {}

impl IntoResponse for StepUpRejection {
    fn into_response(self) -> Response {
        Box::new(self.0.answer()).into_response::<Body>().map(Body::new)
    }
}

impl<R: StepUp, S: Send + Sync> FromRequestParts<S> for SteppedUp<R> {
    type Rejection = StepUpRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, StepUpRejection> {
        Self::found(&parts.extensions).map_err(StepUpRejection)
    }
}
