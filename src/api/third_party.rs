//! `GET /authorisationurl`, `POST /signinup` and `POST /callback/apple` (`spec/wire.md` §9.2).

use http::{HeaderValue, StatusCode, header};
use openidconnect::url::Url;
use serde_json::{Map, Value, json};

use super::{
    call::Call,
    reply::{NotAllowed, Reply},
    wire::{self, BadInput, WireUser},
};
use crate::{
    base::{error::Error, hash, json, secret::Secret},
    engine::Mfa,
    factor::{
        Provider,
        third_party::{
            profile::AddressRefused,
            talk::{Returned, Trouble, form},
        },
    },
    flow::{Refusal, complete::Outcome, third_party::ThirdPartySignIn},
    session::origin::Origin,
};

const SIGN_IN_UP: NotAllowed =
    NotAllowed { status: "SIGN_IN_UP_NOT_ALLOWED", codes: ["006", "004", "020", "021", "022", "023"] };
/// The longest query of a redirect.
const QUERY: usize = 8 * 1024;

/// Where the browser goes to sign in.
pub(super) async fn authorisation_url(call: &Call<'_>) -> Reply {
    let (Some(id), Some(redirect)) =
        (call.query("thirdPartyId"), call.query("redirectURIOnProviderDashboard"))
    else {
        return BadInput("the query must name a thirdPartyId and a redirectURIOnProviderDashboard").into();
    };
    let (provider, redirect) = match named(call, &call.tenant, &id, &redirect).await {
        Ok(named) => named,
        Err(reply) => return reply,
    };
    let kind = call.query("clientType");
    match call.desk.begin_third_party(&call.nobody(), &provider, kind.as_deref(), &redirect).await {
        Ok(Ok(begun)) => {
            let mut body = json!({ "status": "OK", "urlWithQueryParams": begun.url });
            if let Some(verifier) = begun.verifier {
                body["pkceCodeVerifier"] = Value::String(verifier);
            }
            Reply::ok(body)
        }
        Ok(Err(trouble)) => troubled(trouble),
        Err(refusal) => SIGN_IN_UP.refusal(refusal),
    }
}

/// What the provider answered, to sign in or up with.
pub(super) async fn sign_in_up(call: &Call<'_>) -> Reply {
    match try_sign_in_up(call).await {
        Ok(reply) | Err(reply) => reply,
    }
}

async fn try_sign_in_up(call: &Call<'_>) -> Result<Reply, Reply> {
    let flag = call.body.try_linking()?;
    let id = call.body.required("thirdPartyId", "the body must name a thirdPartyId")?;
    let kind = call.body.text("clientType")?;
    let caller = call.caller(flag).await.map_err(|refusal| SIGN_IN_UP.refusal(refusal))?;
    let member = |name: &str| call.body.0.get(name).filter(|value| !value.is_null());
    let (provider, returned) = match (member("redirectURIInfo"), member("oAuthTokens")) {
        (Some(Value::Object(info)), None) => {
            let redirect = text(info, "redirectURIOnProviderDashboard")?
                .ok_or(BadInput("redirectURIInfo must name a redirectURIOnProviderDashboard"))?;
            let (provider, redirect) = named(call, &caller.tenant, id, redirect).await?;
            let Some(Value::Object(query)) = info.get("redirectURIQueryParams") else {
                return Err(BadInput("redirectURIInfo must have redirectURIQueryParams").into());
            };
            let Some(code) = text(query, "code")?.filter(|code| !code.is_empty()) else {
                // The user said no, or the provider did.
                return Err(match query.contains_key("error") {
                    true => troubled(Trouble::Refused("the user came back without a code")),
                    false => BadInput("redirectURIQueryParams must have a code").into(),
                });
            };
            let verifier = text(info, "pkceCodeVerifier")?;
            if verifier.is_some_and(|verifier| !(43..=128).contains(&verifier.len())) {
                return Err(BadInput("a pkceCodeVerifier has 43 to 128 letters").into());
            }
            let returned = Returned::Code {
                code: Secret::new(code.to_owned()),
                redirect,
                verifier: verifier.map(|verifier| Secret::new(verifier.to_owned())),
                issuer: text(query, "iss")?.map(str::to_owned),
            };
            (provider, returned)
        }
        (None, Some(Value::Object(tokens))) => {
            let provider = known(call, &caller.tenant, id).await?;
            let token = text(tokens, "id_token")?.filter(|_| provider.takes_id_tokens);
            // Of an access token nobody can say for which app it was issued (row L14).
            let token = token.ok_or(BadInput("tokens of a provider's aren't taken here: send a code"))?;
            (provider, Returned::IdToken(Secret::new(token.to_owned())))
        }
        _ => return Err(BadInput("the body must have either redirectURIInfo or oAuthTokens").into()),
    };
    let done = call.desk.sign_in_with_third_party(&caller, &provider, kind, returned).await;
    Ok(match done.map_err(|refusal| SIGN_IN_UP.refusal(refusal))? {
        ThirdPartySignIn::Trouble(trouble) => troubled(trouble),
        ThirdPartySignIn::NoEmail => Reply::ok(wire::status("NO_EMAIL_GIVEN_BY_PROVIDER")),
        ThirdPartySignIn::AddressRefused(refused) => address_refused(refused),
        ThirdPartySignIn::Completed(Outcome::Done(done)) => Reply::ok(json!({
            "status": "OK",
            "user": WireUser::from(&done.user),
            "createdNewRecipeUser": done.created,
        }))
        .change(done.tokens),
        ThirdPartySignIn::Completed(Outcome::NotLinked(not_linked)) => SIGN_IN_UP.reply(not_linked),
        ThirdPartySignIn::Completed(Outcome::Lost | Outcome::Taken) => {
            Reply::failed(&Error::unavailable("the sign-in lost its race"))
        }
    })
}

/// Apple sends people back by a form post, across sites; the browser's page wants it as a query. Nothing is
/// decided here, and only the app's own pages get it (row L15).
pub(super) fn apple_callback(mfa: &Mfa, content_type: Option<&HeaderValue>, body: &[u8]) -> Reply {
    let is_form = content_type.is_some_and(|value| {
        let essence = value.as_bytes().split(|b| *b == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    });
    if !is_form {
        return Reply::message(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be a form");
    }
    let fields = form(body);
    let page = fields.iter().find(|(name, _)| name == "state").and_then(|(_, state)| page(state));
    let websites = &mfa.desk.kit.config.app.websites;
    let ours = |url: &Url| {
        let origin = Origin::parse(&url.origin().ascii_serialization());
        let bare = url.username().is_empty() && url.password().is_none();
        bare && origin.is_ok_and(|origin| websites.contains(&origin))
    };
    let Some(mut url) = page.filter(ours) else {
        return BadInput("the state names no page of this app").into();
    };
    url.query_pairs_mut().extend_pairs(fields);
    let location = HeaderValue::from_str(url.as_str()).ok();
    match location.filter(|_| url.query().is_some_and(|query| query.len() <= QUERY)) {
        Some(location) => {
            Reply::message(StatusCode::SEE_OTHER, "see other").header(header::LOCATION, location)
        }
        None => BadInput("the form is too long").into(),
    }
}

/// The page that a `state` names: base64 of JSON.
fn page(state: &str) -> Option<Url> {
    let raw = hash::from_base64(state).or_else(|| hash::from_base64url(state))?;
    let state = json::parse_object(&raw).ok()?;
    Url::parse(state.get("frontendRedirectURI")?.as_str()?).ok()
}

/// A provider of the tenant's, and a place where people may come back from it.
async fn named(
    call: &Call<'_>,
    tenant: &crate::ident::TenantId,
    id: &str,
    redirect: &str,
) -> Result<(Provider, Url), Reply> {
    let provider = known(call, tenant, id).await?;
    let url = call.desk.may_return(&provider, redirect);
    let url = url.ok_or(BadInput("the redirectURIOnProviderDashboard isn't one of this app's"))?;
    Ok((provider, url))
}

async fn known(call: &Call<'_>, tenant: &crate::ident::TenantId, id: &str) -> Result<Provider, Reply> {
    call.desk.tenant(tenant).await.map_err(|refusal| SIGN_IN_UP.refusal(refusal))?;
    let provider = call.desk.provider(tenant, id).await;
    let provider = provider.map_err(|error| SIGN_IN_UP.refusal(Refusal::Failed(error)))?;
    provider.ok_or_else(|| BadInput("there is no such provider").into())
}

fn text<'m>(members: &'m Map<String, Value>, name: &str) -> Result<Option<&'m str>, BadInput> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(BadInput("a member that must be a string is something else")),
    }
}

/// Never 401: that would send the SDKs off to refresh a session that has nothing to do with it.
fn troubled(trouble: Trouble) -> Reply {
    Reply::general_error(match trouble {
        Trouble::Down(_) => "The sign-in service can't be reached right now. Please try again in a moment.",
        Trouble::Refused(_) => "The sign-in wasn't completed. Please try again.",
        Trouble::Lacking(what) => return BadInput(what).into(),
    })
}

fn address_refused(refused: AddressRefused) -> Reply {
    let code = match refused {
        AddressRefused::OtherPrimary => "005",
        AddressRefused::TakeOver => "024",
    };
    let text = "Your address at the sign-in service belongs to another account. Please contact support.";
    Reply::ok(json!({ "status": SIGN_IN_UP.status, "reason": format!("{text} (ERR_CODE_{code})") }))
}
