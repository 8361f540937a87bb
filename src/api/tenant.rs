//! `GET /loginmethods` and the `…/exists` routes (`spec/wire.md` §9.4, §7.6).

use serde_json::json;

use super::{
    call::Call,
    reply::{self, Reply},
    route::Endpoint,
};
use crate::{
    base::{contact::Email, ident::FactorId},
    flow::Refusal,
    model::{keys, user::NewLogin},
};

/// What a tenant's sign-in page offers.
pub(super) async fn login_methods(call: &Call<'_>) -> Reply {
    let tenant = match call.desk.tenant(&call.tenant).await {
        Ok(tenant) => tenant,
        Err(Refusal::Failed(error)) => return Reply::failed(&error),
        Err(_) => return reply::no_tenant(),
    };
    let first = call.desk.first_factors(&tenant);
    // Without a client of that kind nobody could be sent there.
    #[cfg(feature = "third-party")]
    let providers = match (call.desk.providers(&call.tenant).await, call.query("clientType")) {
        (Ok(list), kind) => list
            .iter()
            .filter(|one| one.client(kind.as_deref()).is_some())
            .map(|one| json!({ "id": one.id(), "name": one.name() }))
            .collect(),
        (Err(error), _) => return Reply::failed(&error),
    };
    #[cfg(not(feature = "third-party"))]
    let providers: Vec<serde_json::Value> = Vec::new();
    // The app's own users sign in at the app: no method of the crate's starts a session, whatever the app vouches for.
    let own = call.desk.own_users.is_some();
    let served = |factor: &&FactorId| !own || !factor.is_built_in();
    let listed: Vec<&FactorId> = first.listed().iter().filter(served).collect();
    let ours = |factor: &FactorId| listed.contains(&factor);
    let passwordless = [FactorId::OTP_EMAIL, FactorId::OTP_PHONE, FactorId::LINK_EMAIL, FactorId::LINK_PHONE];
    let third_party = ours(&FactorId::THIRD_PARTY);
    Reply::ok(json!({
        "status": "OK",
        "emailPassword": { "enabled": ours(&FactorId::PASSWORD) },
        "thirdParty": { "enabled": third_party, "providers": if third_party { providers } else { Vec::new() } },
        "passwordless": { "enabled": passwordless.iter().any(ours) },
        "webauthn": { "enabled": ours(&FactorId::WEBAUTHN) },
        "firstFactors": listed.iter().map(|factor| factor.as_str()).collect::<Vec<_>>(),
    }))
}

/// The recipes that sign in by code: the one of today, and the one that older SDKs combined with third parties.
const BY_CODE: [&str; 2] = ["passwordless", "thirdpartypasswordless"];

/// Whether a contact signs somebody in. `false` for everybody, unless the app said otherwise (row O25).
pub(super) async fn exists(endpoint: Endpoint, call: &Call<'_>) -> Reply {
    let by_code = match endpoint {
        Endpoint::CodeExists => true,
        Endpoint::OldExists => {
            call.parts.headers.get("rid").is_some_and(|rid| BY_CODE.iter().any(|one| rid == one))
        }
        _ => false,
    };
    let login = match (endpoint, call.query("email"), call.query("phoneNumber")) {
        (Endpoint::PhoneExists, _, Some(text)) => {
            let phone = call.kit().config.passwordless.read_phone(&text).ok();
            phone.map(|phone| NewLogin::passwordless(&phone).key(&call.tenant))
        }
        (Endpoint::PhoneExists, ..) => {
            return super::wire::BadInput("the query must name a phoneNumber").into();
        }
        (_, Some(text), _) => {
            let kind = if by_code { "passwordless-email" } else { "emailpassword" };
            Email::parse(&text).ok().map(|email| keys::login(&call.tenant, kind, email.as_str()))
        }
        _ => return super::wire::BadInput("the query must name an email").into(),
    };
    match call.desk.exists(&call.tenant, &call.request(), login).await {
        Ok(exists) => Reply::ok(json!({ "status": "OK", "exists": exists })),
        Err(Refusal::Failed(error)) => Reply::failed(&error),
        Err(Refusal::TooMany(wait)) => Reply::too_many(wait),
        Err(_) => reply::no_tenant(),
    }
}
