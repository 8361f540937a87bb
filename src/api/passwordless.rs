//! The routes of one-time codes (`spec/wire.md` §7).

use serde_json::json;

use super::{
    call::Call,
    reply::{NotAllowed, Reply},
    wire::{self, BadInput, WireUser},
};
use crate::{
    base::contact::Contact,
    config::passwordless::Unfit,
    factor::otp::{self, CodeInput, LinkInput, Presented, Refused},
    flow::{Caller, code::Checked, complete::Outcome},
    model::code::Form,
};

const NOT_ALLOWED: NotAllowed =
    // A code proves its contact: V can't be, and has no number.
    NotAllowed { status: "SIGN_IN_UP_NOT_ALLOWED", codes: ["002", "003", "002", "017", "018", "019"] };

/// `POST /signinup/code`.
pub(super) async fn create(call: &Call<'_>) -> Reply {
    let (flag, asked) = match destination(call) {
        Ok(asked) => asked,
        Err(bad) => return bad.into(),
    };
    let caller = match call.caller(flag).await {
        Ok(caller) => caller,
        Err(refusal) => return NOT_ALLOWED.refusal(refusal),
    };
    let contact = match contact(call, &caller, &asked).await {
        Ok(contact) => contact,
        Err(reply) => return reply,
    };
    match call.desk.begin_code(&caller, contact).await {
        Ok(started) => Reply::ok(json!({
            "status": "OK",
            "deviceId": started.device.expose(),
            "preAuthSessionId": started.flow.as_str(),
            "flowType": flow_type(started.form),
        })),
        Err(refusal) => NOT_ALLOWED.refusal(refusal),
    }
}

/// `POST /signinup/code/resend`.
pub(super) async fn resend(call: &Call<'_>) -> Reply {
    let ids = || -> Result<_, BadInput> {
        let flag = call.body.try_linking()?;
        let device = call.body.required("deviceId", "deviceId must be a string")?;
        let flow = call.body.required("preAuthSessionId", "preAuthSessionId must be a string")?;
        Ok((flag, device, flow))
    };
    let (flag, device, flow) = match ids() {
        Ok(ids) => ids,
        Err(bad) => return bad.into(),
    };
    let caller = match call.caller(flag).await {
        Ok(caller) => caller,
        Err(refusal) => return NOT_ALLOWED.refusal(refusal),
    };
    // Empty ids are legal: the client's storage was cleared.
    let Some(flow) = otp::locate(flow, Some(device)) else {
        return Reply::ok(wire::status("RESTART_FLOW_ERROR"));
    };
    match call.desk.resend_code(&caller, &flow).await {
        Ok(true) => Reply::ok(wire::status("OK")),
        Ok(false) => Reply::ok(wire::status("RESTART_FLOW_ERROR")),
        Err(refusal) => NOT_ALLOWED.refusal(refusal),
    }
}

/// `POST /signinup/code/consume`.
pub(super) async fn consume(call: &Call<'_>) -> Reply {
    let (flag, flow, device, presented) = match guess(call) {
        Ok(guess) => guess,
        Err(bad) => return bad.into(),
    };
    let caller = match call.caller(flag).await {
        Ok(caller) => caller,
        Err(refusal) => return NOT_ALLOWED.refusal(refusal),
    };
    let restart = || Reply::ok(wire::status("RESTART_FLOW_ERROR"));
    let Some(flow) = otp::locate(flow, device) else { return restart() };
    let counted = |status: &str, failed: u32, max: u32| {
        Reply::ok(json!({
            "status": status,
            "failedCodeInputAttemptCount": failed,
            "maximumCodeInputAttempts": max,
        }))
    };
    match call.desk.check_code(&caller, &flow, &presented).await {
        Ok(Checked::Refused(Refused::Incorrect { failed, max })) => {
            counted("INCORRECT_USER_INPUT_CODE_ERROR", failed, max)
        }
        Ok(Checked::Refused(Refused::Expired { failed, max })) => {
            counted("EXPIRED_USER_INPUT_CODE_ERROR", failed, max)
        }
        Ok(Checked::Refused(Refused::Restart) | Checked::Completed(Outcome::Lost | Outcome::Taken)) => {
            restart()
        }
        Ok(Checked::Resting(wait)) => restart().retry_after(wait),
        Ok(Checked::Completed(Outcome::NotLinked(not_linked))) => NOT_ALLOWED.reply(not_linked),
        Ok(Checked::Completed(Outcome::Done(done))) => Reply::ok(json!({
            "status": "OK",
            "createdNewRecipeUser": done.created,
            "user": WireUser::from(&done.user),
        }))
        .change(done.tokens),
        Err(refusal) => NOT_ALLOWED.refusal(refusal),
    }
}

/// A contact as it was sent.
enum Asked<'a> {
    Email(&'a str),
    Phone(&'a str),
}

fn flow_type(form: Form) -> &'static str {
    match form {
        Form::Code => "USER_INPUT_CODE",
        Form::Link => "MAGIC_LINK",
        Form::Both => "USER_INPUT_CODE_AND_MAGIC_LINK",
    }
}

/// The flag and the one contact of the body (row O18).
fn destination<'a>(call: &'a Call<'_>) -> Result<(bool, Asked<'a>), BadInput> {
    let flag = call.body.try_linking()?;
    match (call.body.text("email")?, call.body.text("phoneNumber")?) {
        (Some(email), None) if email.matches('@').count() > 1 => Err(BadInput("send one email")),
        (None, Some(phone)) if phone.matches('+').count() > 1 => Err(BadInput("send one phoneNumber")),
        (Some(email), None) => Ok((flag, Asked::Email(email))),
        (None, Some(phone)) => Ok((flag, Asked::Phone(phone))),
        _ => Err(BadInput("send exactly one of email and phoneNumber")),
    }
}

/// The contact. A masked one, sent back by the session's own user, stands for the one that they proved (decision
/// of the house 15).
async fn contact(call: &Call<'_>, caller: &Caller, asked: &Asked<'_>) -> Result<Contact, Reply> {
    let passwordless = &call.kit().config.passwordless;
    let read = |text: &str| match asked {
        Asked::Email(_) => passwordless.read_email(text),
        Asked::Phone(_) => passwordless.read_phone(text),
    };
    let (Asked::Email(text) | Asked::Phone(text)) = asked;
    let message = match read(text) {
        Ok(contact) => return Ok(contact),
        Err(Unfit::NotServed(why)) => return Err(BadInput(why).into()),
        Err(Unfit::Invalid(message)) => message,
    };
    let invalid = || Reply::general_error(message.as_ref());
    let Some(session) = &caller.session else { return Err(invalid()) };
    let person = call.desk.person_of(&session.user_id()).await;
    let person = person.map_err(|error| NOT_ALLOWED.refusal(error.into()))?;
    let listed = person.and_then(|who| call.desk.factors.contacts(&who.user, &session.login_id()));
    let mut own = listed.unwrap_or_default().destinations().flat_map(|(_, contacts)| contacts);
    // Of several that look alike the one that `/mfa/info` lists first. It is read as well: what was proved once may
    // be a number that gets no codes any more (row O28), or a contact of the other kind.
    let meant = own.find(|contact| contact.masked() == text.trim());
    meant.filter(|contact| read(contact.as_str()).is_ok()).ok_or_else(invalid)
}

type Guess<'a> = (bool, &'a str, Option<&'a str>, Presented);

/// A link code, or a device and a code typed by hand; anything else is malformed (row O19).
fn guess<'a>(call: &'a Call<'_>) -> Result<Guess<'a>, BadInput> {
    let flag = call.body.try_linking()?;
    let flow = call.body.required("preAuthSessionId", "preAuthSessionId must be a string")?;
    let (device, code, link) =
        (call.body.text("deviceId")?, call.body.text("userInputCode")?, call.body.text("linkCode")?);
    let too_long = |_| BadInput("the code is too long");
    match (device, code, link) {
        (None, None, Some(link)) => {
            Ok((flag, flow, None, Presented::Link(LinkInput::parse(link).map_err(too_long)?)))
        }
        (Some(device), Some(code), None) => {
            let digits = call.desk.otp.settings().digits;
            let code = CodeInput::parse(code, digits).map_err(too_long)?;
            Ok((flag, flow, Some(device), Presented::Code(code)))
        }
        _ => Err(BadInput("send linkCode, or deviceId and userInputCode")),
    }
}
