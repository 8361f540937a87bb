//! `POST /user/password/reset/token` and `POST /user/password/reset` (`spec/wire.md` §9.1).

use std::borrow::Cow;

use serde_json::json;

use super::{
    call::Call,
    reply::{NotAllowed, Reply},
    ticket::token,
    wire::{self, BadInput, FieldError},
};
use crate::{
    base::contact::Email,
    factor::password::Password,
    flow::reset::{Asked, Reset},
};

/// No login method is made here.
const NEVER: NotAllowed = NotAllowed { status: "GENERAL_ERROR", codes: [""; 6] };

/// Asks for a link. Nobody learns whether somebody signs in by that address.
pub(super) async fn ask(call: &Call<'_>) -> Reply {
    let email = match field(call, "email") {
        Ok(text) => Email::parse(&text),
        Err(reply) => return reply,
    };
    let Ok(email) = email else { return wrong("email", "Email is invalid".to_owned()) };
    match call.desk.ask_reset(&call.nobody(), &email).await {
        Ok(Asked::Sent) => Reply::ok(wire::status("OK")),
        Ok(Asked::NotAllowed) => Reply::ok(json!({
            "status": "PASSWORD_RESET_NOT_ALLOWED",
            "reason": "A new password can't be set by this address. Please contact support. (ERR_CODE_001)",
        })),
        Err(refusal) => NEVER.refusal(refusal),
    }
}

/// Sets a new password. The fields are judged before the link, so that a weak password doesn't use it up.
pub(super) async fn reset(call: &Call<'_>) -> Reply {
    let token = match token(call) {
        Ok(token) => token,
        Err(bad) => return bad.into(),
    };
    let password = match field(call, "password") {
        Ok(text) => Password::new(text.into_owned()),
        Err(reply) => return reply,
    };
    let Ok(password) = password else { return BadInput("the password is too long").into() };
    if let Err(error) = call.desk.password_settings.rules.check(&password) {
        return wrong("password", error.into_owned());
    }
    match call.desk.reset_password(&call.nobody(), token.as_ref(), password).await {
        Ok(Reset::Done) => Reply::ok(wire::status("OK")),
        Ok(Reset::InvalidTicket) => Reply::ok(wire::status("RESET_PASSWORD_INVALID_TOKEN_ERROR")),
        Ok(Reset::Refused(error)) => wrong("password", error),
        Err(refusal) => NEVER.refusal(refusal),
    }
}

/// The one field of the form.
fn field<'a>(call: &'a Call<'_>, id: &'static str) -> Result<Cow<'a, str>, Reply> {
    let mut sent = call.body.form_fields(&[id])?;
    match sent.pop() {
        Some((_, value)) if !value.is_empty() => Ok(value),
        _ => Err(wrong(id, "Field is not optional".to_owned())),
    }
}

fn wrong(id: &'static str, error: String) -> Reply {
    Reply::ok(wire::field_errors(&[FieldError { id: id.to_owned(), error }]))
}
