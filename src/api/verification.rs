//! `POST /user/email/verify/token`, `POST` and `GET /user/email/verify` (`spec/wire.md` §9.3).

use serde_json::json;

use super::{
    call::Call,
    mfa::with_change,
    reply::{NotAllowed, Reply},
    ticket::token,
    wire,
};
use crate::{
    flow::{Refusal, verification::Asked},
    session::SessionDenied,
};

/// No login method is made here.
const NEVER: NotAllowed = NotAllowed { status: "GENERAL_ERROR", codes: [""; 6] };

/// Asks for a link to the address of the session's login method.
pub(super) async fn ask(call: &Call<'_>) -> Reply {
    asked(call).await.unwrap_or_else(|refusal| NEVER.refusal(refusal))
}

async fn asked(call: &Call<'_>) -> Result<Reply, Refusal> {
    let caller = call.caller(true).await?;
    let Some(session) = &caller.session else { return Err(Refusal::BadInput("a session is needed")) };
    let status = match call.desk.ask_verification(&caller, session).await? {
        Asked::Sent => "OK",
        Asked::Already => "EMAIL_ALREADY_VERIFIED_ERROR",
    };
    Ok(with_change(Reply::ok(wire::status(status)), session))
}

/// Opens a link. A session that came along counts; one that could be refreshed is asked to be, because without it
/// the first proof of an address takes everything away that isn't its owner's.
pub(super) async fn verify(call: &Call<'_>) -> Reply {
    let token = match token(call) {
        Ok(token) => token,
        Err(bad) => return bad.into(),
    };
    let session = match call.session().await {
        Ok(session) => Some(session),
        Err(Refusal::Denied(SessionDenied::Unauthorised)) => None,
        Err(refusal) => return NEVER.refusal(refusal),
    };
    match call.desk.verify_email(&call.nobody(), session.as_ref(), token.as_ref()).await {
        Ok(true) => {
            let reply = Reply::ok(wire::status("OK"));
            session.iter().fold(reply, with_change)
        }
        Ok(false) => Reply::ok(wire::status("EMAIL_VERIFICATION_INVALID_TOKEN_ERROR")),
        Err(refusal) => NEVER.refusal(refusal),
    }
}

/// Whether the address is proved, written into the session as well.
pub(super) async fn is_verified(call: &Call<'_>) -> Reply {
    told(call).await.unwrap_or_else(|refusal| NEVER.refusal(refusal))
}

async fn told(call: &Call<'_>) -> Result<Reply, Refusal> {
    let caller = call.caller(true).await?;
    let Some(session) = &caller.session else { return Err(Refusal::BadInput("a session is needed")) };
    let verified = call.desk.tell_verified(&caller, session).await?;
    Ok(with_change(Reply::ok(json!({ "status": "OK", "isVerified": verified })), session))
}
