//! `POST /signin` and `POST /signup` (`spec/wire.md` §9.1).

use serde_json::json;

use super::{
    call::Call,
    reply::{NotAllowed, Reply},
    wire::{self, BadInput, FieldError, WireUser},
};
use crate::{
    base::{contact::Email, error::Error},
    factor::{FormField, password::Password},
    flow::{
        Caller,
        complete::{Completed, Outcome},
        link::NotLinked,
        password::{SignIn, SignUp},
    },
    hooks::Form,
};

const SIGN_IN: NotAllowed =
    NotAllowed { status: "SIGN_IN_NOT_ALLOWED", codes: ["007", "008", "009", "010", "011", "012"] };
const SIGN_UP: NotAllowed =
    NotAllowed { status: "SIGN_UP_NOT_ALLOWED", codes: ["007", "008", "013", "014", "015", "016"] };

/// Signs in.
pub(super) async fn sign_in(call: &Call<'_>) -> Reply {
    let Typed { flag, email, password, .. } = match fields(call, false) {
        Ok(typed) => typed,
        Err(reply) => return reply,
    };
    let caller = match call.caller(flag).await {
        Ok(caller) => caller,
        Err(refusal) => return SIGN_IN.refusal(refusal),
    };
    match call.desk.sign_in_with_password(&caller, &email, password).await {
        // Nobody learns by a password that an account is disabled (row W04).
        Ok(
            SignIn::Wrong
            | SignIn::Completed(Outcome::Lost | Outcome::Taken | Outcome::NotLinked(NotLinked::Disabled)),
        ) => Reply::ok(wire::status("WRONG_CREDENTIALS_ERROR")),
        Ok(SignIn::Completed(Outcome::NotLinked(not_linked))) => SIGN_IN.reply(not_linked),
        Ok(SignIn::Completed(Outcome::Done(done))) => done_with(*done),
        Err(refusal) => SIGN_IN.refusal(refusal),
    }
}

/// Signs up.
pub(super) async fn sign_up(call: &Call<'_>) -> Reply {
    let Typed { flag, email, password, form } = match fields(call, true) {
        Ok(typed) => typed,
        Err(reply) => return reply,
    };
    let caller = match call.caller(flag).await {
        Ok(caller) => Caller { form, ..caller },
        Err(refusal) => return SIGN_UP.refusal(refusal),
    };
    match call.desk.sign_up_with_password(&caller, &email, password).await {
        Ok(SignUp::Refused(error)) => {
            Reply::ok(wire::field_errors(&[FieldError { id: "password".to_owned(), error }]))
        }
        Ok(SignUp::Completed(Outcome::Taken)) => {
            let error = "This e-mail address is taken. Sign in instead.".to_owned();
            Reply::ok(wire::field_errors(&[FieldError { id: "email".to_owned(), error }]))
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

/// What was typed, read.
struct Typed {
    flag: bool,
    email: Email,
    password: Password,
    form: Form,
}

/// Reads the form: e-mail and password, at sign-up the app's own fields behind them. Malformed is 400; what a person can
/// mend is `FIELD_ERROR`, all of it at once. Signing in judges the address alone: what a password must be like is
/// nothing to somebody who has one.
fn fields(call: &Call<'_>, sign_up: bool) -> Result<Typed, Reply> {
    let settings = &call.desk.password_settings;
    let own: &[FormField] = if sign_up { &settings.fields } else { &[] };
    let flag = call.body.try_linking()?;
    let allowed: Vec<&str> =
        ["email", "password"].into_iter().chain(own.iter().map(|field| field.id.as_str())).collect();
    let sent = call.body.form_fields(&allowed)?;
    let value =
        |id: &str| sent.iter().find(|(known, _)| *known == id).map_or("", |(_, value)| value.as_ref());
    let (email, password) = (value("email"), value("password"));
    let long = || Reply::from(BadInput("the password is too long"));
    let password = Password::new(password.to_owned()).map_err(|_| long())?;
    let read = Email::parse(email);
    let missing = || "Field is not optional".to_owned();
    let mut errors = Vec::new();
    let mut wrong = |id: &str, error: String| errors.push(FieldError { id: id.to_owned(), error });
    match &read {
        _ if email.is_empty() => wrong("email", missing()),
        Err(_) => wrong("email", "Email is invalid".to_owned()),
        Ok(_) => {}
    }
    if password.is_empty() {
        wrong("password", missing());
    } else if sign_up && let Err(error) = settings.rules.check(&password) {
        wrong("password", error.into_owned());
    }
    for field in own {
        if let Err(error) = field.judge(value(&field.id)) {
            wrong(&field.id, error.into_owned());
        }
    }
    let own = sent.iter().filter(|(id, _)| !["email", "password"].contains(id));
    let form = Form::new(own.map(|(id, value)| ((*id).to_owned(), value.to_string())).collect());
    match read {
        Ok(email) if errors.is_empty() => Ok(Typed { flag, email, password, form }),
        _ => Err(Reply::ok(wire::field_errors(&errors))),
    }
}
