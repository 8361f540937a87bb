//! What a route answers: a status, a JSON body, and what becomes of the client's tokens.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Response, StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};

use super::wire::BadInput;
use crate::{
    base::{counted, error::Error},
    flow::{Refusal, link::NotLinked},
    layer::{
        body::MfaBody,
        refuse::{self, Answer},
    },
    session::{
        Kit, SessionDenied,
        transport::{self, TokenChange},
    },
};

/// An answer of ours.
pub(super) struct Reply {
    answer: Answer,
    change: Option<TokenChange>,
    headers: Vec<(HeaderName, HeaderValue)>,
    written: http::HeaderMap,
}

impl Reply {
    fn new(answer: Answer) -> Self {
        Self { answer, change: None, headers: Vec::new(), written: http::HeaderMap::new() }
    }

    /// 200 with a body.
    pub(super) fn ok(body: Value) -> Self {
        Self::new(Answer::new(StatusCode::OK, &body))
    }

    /// A status with `{"message": …}`, a fixed text.
    pub(super) fn message(status: StatusCode, message: &'static str) -> Self {
        Self::new(refuse::message(status, message))
    }

    pub(super) fn denied(denied: &SessionDenied) -> Self {
        Self::new(refuse::denied(denied))
    }

    pub(super) fn failed(error: &Error) -> Self {
        Self::new(refuse::failed(error))
    }

    /// A text for the end user, which the SDKs show as it is.
    pub(super) fn general_error(message: impl Into<String>) -> Self {
        Self::ok(json!({ "status": "GENERAL_ERROR", "message": message.into() }))
    }

    /// Too many tries, in the form that the SDKs can show.
    pub(super) fn too_many(wait: Duration) -> Self {
        let minutes = counted(wait.as_secs().div_ceil(60).max(1), "minute");
        Self::general_error(format!("Too many attempts. Try again in {minutes}.")).retry_after(wait)
    }

    /// Says when another try is worth it, in whole seconds: not a moment too early (row K06).
    pub(super) fn retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.answer.retry_after = Some(seconds.max(1));
        self
    }

    pub(super) fn superseded() -> Self {
        let mut reply = Self::message(StatusCode::CONFLICT, "superseded, retry");
        reply.answer.retry_after = Some(1);
        reply
    }

    /// What becomes of the client's tokens.
    pub(super) fn change(mut self, change: impl Into<TokenChange>) -> Self {
        self.change = Some(change.into());
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Writes what becomes of the tokens; from here on the answer is ready.
    pub(super) fn finish(mut self, kit: &Kit) -> Self {
        let mut headers = http::HeaderMap::new();
        transport::no_store(&mut headers);
        if let Some(change) = self.change.take()
            && let Err(error) = change.write(&mut headers, &kit.config.cookies, kit.db.now())
        {
            return Self::failed(&error);
        }
        for (name, value) in self.headers.drain(..) {
            headers.insert(name, value);
        }
        self.written = headers;
        self
    }

    pub(super) fn into_response<R>(self) -> Response<MfaBody<R>> {
        let retry_after = self.answer.retry_after;
        let mut response = Box::new(self.answer).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        for name in self.written.keys() {
            response.headers_mut().remove(name);
        }
        for (name, value) in &self.written {
            response.headers_mut().append(name, value.clone());
        }
        response
    }
}

/// N02: unknown, malformed and switched off are one answer.
pub(super) fn no_tenant() -> Reply {
    Reply::message(StatusCode::NOT_FOUND, "there is no such tenant")
}

impl From<BadInput> for Reply {
    fn from(BadInput(message): BadInput) -> Self {
        Self::message(StatusCode::BAD_REQUEST, message)
    }
}

/// How a recipe tells that a login method can't be used (`spec/wire.md` §13).
pub(super) struct NotAllowed {
    pub(super) status: &'static str,
    /// The support codes for U, I, V, L, A and S.
    pub(super) codes: [&'static str; 6],
}

impl NotAllowed {
    pub(super) fn reply(&self, not_linked: NotLinked) -> Reply {
        let [u, i, v, l, a, s] = self.codes;
        let (text, code) = match not_linked {
            NotLinked::SignUp => ("You can't sign up this way. Please contact support.", u),
            NotLinked::SignIn | NotLinked::Disabled => {
                ("You can't sign in this way. Please contact support.", i)
            }
            NotLinked::Unverified => ("Verify your e-mail address first, then try again.", v),
            NotLinked::OtherPrimary => {
                ("This sign-in method belongs to another account. Please contact support.", l)
            }
            NotLinked::ContactTaken => {
                ("This contact belongs to another account. Please contact support.", a)
            }
            NotLinked::SessionUserBlocked => {
                ("Your account can't take another sign-in method. Please contact support.", s)
            }
            // Whose address must be proved first was told so with what the page needs to know.
            NotLinked::Declined | NotLinked::SessionUserUnverified => {
                return Reply::message(
                    StatusCode::BAD_REQUEST,
                    "this sign-in method may not join the account",
                );
            }
        };
        Reply::ok(json!({ "status": self.status, "reason": format!("{text} (ERR_CODE_{code})") }))
    }

    pub(super) fn refusal(&self, refusal: Refusal) -> Reply {
        match refusal {
            Refusal::Denied(denied) => Reply::denied(&denied),
            Refusal::BadInput(message) => Reply::message(StatusCode::BAD_REQUEST, message),
            Refusal::NoTenant => no_tenant(),
            Refusal::TooMany(wait) => Reply::too_many(wait),
            Refusal::NotLinked(not_linked) => self.reply(not_linked),
            Refusal::Failed(error) => Reply::failed(&error),
        }
    }
}
