//! `POST /signin` and `POST /signup` (`spec/wire.md` §9.1).

use serde_json::json;

use super::{
    call::Call,
    reply::{NotAllowed, Reply},
    wire::{self, BadInput, FieldError, WireUser},
};
use crate::{
    base::{contact::Email, error::Error},
    factor::password::Password,
    flow::{
        complete::{Completed, Outcome},
        password::{SignIn, SignUp},
    },
};

const SIGN_IN: NotAllowed = NotAllowed { status: "SIGN_IN_NOT_ALLOWED", codes: ["009", "010", "011", "012"] };
const SIGN_UP: NotAllowed = NotAllowed { status: "SIGN_UP_NOT_ALLOWED", codes: ["013", "014", "015", "016"] };

/// Signs in.
pub(super) async fn sign_in(call: &Call<'_>) -> Reply {
    let (flag, email, password) = match fields(call, false) {
        Ok(fields) => fields,
        Err(reply) => return reply,
    };
    let caller = match call.caller(flag).await {
        Ok(caller) => caller,
        Err(refusal) => return SIGN_IN.refusal(refusal),
    };
    match call.desk.sign_in_with_password(&caller, &email, password).await {
        Ok(SignIn::Wrong | SignIn::Completed(Outcome::Lost | Outcome::Taken)) => {
            Reply::ok(wire::status("WRONG_CREDENTIALS_ERROR"))
        }
        Ok(SignIn::Completed(Outcome::NotLinked(not_linked))) => SIGN_IN.reply(not_linked),
        Ok(SignIn::Completed(Outcome::Done(done))) => done_with(*done),
        Err(refusal) => SIGN_IN.refusal(refusal),
    }
}

/// Signs up.
pub(super) async fn sign_up(call: &Call<'_>) -> Reply {
    let (flag, email, password) = match fields(call, true) {
        Ok(fields) => fields,
        Err(reply) => return reply,
    };
    let caller = match call.caller(flag).await {
        Ok(caller) => caller,
        Err(refusal) => return SIGN_UP.refusal(refusal),
    };
    match call.desk.sign_up_with_password(&caller, &email, password).await {
        Ok(SignUp::Refused(error)) => {
            Reply::ok(wire::field_errors(&[FieldError { id: "password", error }]))
        }
        Ok(SignUp::Completed(Outcome::Taken)) => {
            let error = "This e-mail address is taken. Sign in instead.".to_owned();
            Reply::ok(wire::field_errors(&[FieldError { id: "email", error }]))
        }
        Ok(SignUp::Completed(Outcome::NotLinked(not_linked))) => SIGN_UP.reply(not_linked),
        Ok(SignUp::Completed(Outcome::Done(done))) => done_with(*done),
        Ok(SignUp::Completed(Outcome::Lost)) => {
            Reply::failed(&Error::unavailable("the sign-up lost its race"))
        }
        Err(refusal) => SIGN_UP.refusal(refusal),
    }
}

fn done_with(done: Completed) -> Reply {
    Reply::ok(json!({ "status": "OK", "user": WireUser::from(&done.user) })).change(done.tokens)
}

/// The two fields. Malformed is 400; what a person can mend is `FIELD_ERROR`. Signing in judges the
/// address alone: what a password must be like is nothing to somebody who has one.
fn fields(call: &Call<'_>, sign_up: bool) -> Result<(bool, Email, Password), Reply> {
    let flag = call.body.try_linking()?;
    let sent = call.body.form_fields(&["email", "password"])?;
    let value = |id: &str| sent.iter().find(|(known, _)| *known == id).map(|(_, value)| *value);
    let mut errors = Vec::new();
    let mut present = |id: &'static str| match value(id) {
        Some(value) if !value.is_empty() => Some(value),
        _ => {
            errors.push(FieldError { id, error: "Field is not optional".to_owned() });
            None
        }
    };
    let (email, password) = (present("email"), present("password"));
    let (Some(email), Some(password)) = (email, password) else {
        return Err(Reply::ok(wire::field_errors(&errors)));
    };
    let password =
        Password::new(password.to_owned()).map_err(|_| Reply::from(BadInput("the password is too long")))?;
    let email = Email::parse(email);
    if email.is_err() {
        errors.push(FieldError { id: "email", error: "Email is invalid".to_owned() });
    }
    if sign_up && let Err(error) = call.desk.password_settings.rules.check(&password) {
        errors.push(FieldError { id: "password", error: error.into_owned() });
    }
    match email {
        Ok(email) if errors.is_empty() => Ok((flag, email, password)),
        _ => Err(Reply::ok(wire::field_errors(&errors))),
    }
}
