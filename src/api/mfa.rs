//! `PUT /mfa/info` (`spec/wire.md` §6.3).

use serde_json::{Map, Value, json};

use super::{
    call::Call,
    reply::{NotAllowed, Reply},
};
use crate::{base::ident::FactorId, flow::Refusal, session::Session};

/// No login method is made here, so no code of §13 is ever sent.
const NEVER: NotAllowed = NotAllowed { status: "GENERAL_ERROR", codes: [""; 6] };

/// What comes next.
pub(super) async fn info(call: &Call<'_>) -> Reply {
    answer(call).await.unwrap_or_else(|refusal| NEVER.refusal(refusal))
}

async fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    let caller = call.caller(true).await?;
    let Some(session) = &caller.session else { return Err(Refusal::BadInput("a session is needed")) };
    let info = call.desk.info(&caller, session).await?;
    let ids = |factors: &[FactorId]| factors.iter().map(FactorId::as_str).collect::<Vec<&str>>().into();
    let by_factor = |contacts: &[(FactorId, Vec<String>)]| -> Value {
        contacts
            .iter()
            .map(|(factor, listed)| (factor.to_string(), json!(listed)))
            .collect::<Map<_, _>>()
            .into()
    };
    let (next, set_up, allowed): (Value, Value, Value) =
        (ids(&info.next), ids(&info.set_up), ids(&info.allowed));
    let mut body = json!({
        "status": "OK",
        "factors": { "next": next, "alreadySetup": set_up, "allowedToSetup": allowed },
        "emails": by_factor(&info.emails),
        "phoneNumbers": by_factor(&info.phones),
        // Beyond the wire: clients that don't know it pass over it.
        "explanation": info.explanation.to_json(),
    });
    if let (Some(members), Some(grace)) = (body.as_object_mut(), &info.grace) {
        members.insert("grace".to_owned(), grace.to_json());
    }
    let reply = Reply::ok(body);
    Ok(with_change(reply, session))
}

/// What the session has to tell the client leaves with the answer.
pub(super) fn with_change(reply: Reply, session: &Session) -> Reply {
    match session.clone().finish().1 {
        Some(change) => reply.change(*change),
        None => reply,
    }
}
