//! temporary
use super::body::MfaBody;
use crate::{base::error::Error, session::SessionDenied};
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    pub(crate) retry_after: Option<u64>,
    pub(crate) denied: Option<SessionDenied>,
}
pub(crate) fn denied(d: &SessionDenied) -> Answer {
    Answer { status: StatusCode::UNAUTHORIZED, body: json!({}), retry_after: None, denied: Some(d.clone()) }
}
pub(crate) fn failed(_e: &Error) -> Answer {
    Answer { status: StatusCode::SERVICE_UNAVAILABLE, body: json!({}), retry_after: Some(1), denied: None }
}
impl Answer {
    pub(crate) fn into_response<R>(self) -> Response<MfaBody<R>> {
        Response::new(MfaBody::ours(Bytes::new()))
    }
}
