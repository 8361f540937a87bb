//! `POST /session/refresh` and `POST /signout` (`spec/wire.md` §4, §11).

use serde_json::json;

use super::{call::Call, reply::Reply, wire};
use crate::{
    flow::rotate::Refreshed,
    session::{
        SessionDenied, csrf,
        refresh::{self, Offered},
        token::{self, OpenError},
        transport::{Access, TokenChange},
    },
};

/// Refresh: new tokens for old, or the end.
pub(super) async fn refresh(call: &Call<'_>) -> Reply {
    let (kit, presented) = (call.kit(), &call.presented);
    let (websites, hints) = (&kit.config.app.websites, presented.hints());
    let kept = || Reply::denied(&SessionDenied::Unauthorised);
    let gone = || kept().change(TokenChange::Clear(None));
    // A page of another site must not sign people out, whatever it sends or leaves out (row X08).
    let nothing = || if csrf::is_ours(&hints, websites) { gone() } else { kept() };
    // Of several credentials none is to be preferred (row J24).
    if matches!(presented.access, Access::Ambiguous) {
        return kept();
    }
    // The SDKs' first visit: 401 and `front-token: remove`, never anything else.
    let Some((values, method)) = presented.refresh() else { return nothing() };
    let tokens = match refresh::offered(&values, &kit.refresh) {
        Offered::Nothing => return nothing(),
        Offered::Several => {
            #[cfg(feature = "tracing")]
            tracing::warn!("refresh tokens of several sessions came at once: nothing was refreshed");
            return kept();
        }
        Offered::Session(tokens) => tokens,
    };
    // The proof may have been made under an older root key, for any of the tokens (row C04).
    let proven = tokens.iter().any(|token| {
        kit.refresh.iter().any(|keys| {
            let bound = token.anti_csrf(keys);
            csrf::refresh_proven(kit.config.csrf, method, &hints, websites, Some(&bound))
        })
    });
    if !proven {
        return match csrf::may_clear(&hints, websites) {
            true => gone(),
            false => kept(),
        };
    }
    match call.desk.refresh(&tokens, method, &call.request()).await {
        Ok(Refreshed::Tokens(mut tokens)) => {
            tokens.clear_other = presented.carries(method.other());
            tokens.expire_older = values.len() > 1;
            Reply::ok(json!({})).change(*tokens)
        }
        Ok(Refreshed::Superseded) => Reply::superseded(),
        Ok(Refreshed::Denied(denied)) => Reply::denied(&denied).change(TokenChange::Clear(None)),
        Err(error) => Reply::failed(&error),
    }
}

/// Sign-out: an expired token still names its session, and ends it (row S12).
pub(super) async fn sign_out(call: &Call<'_>) -> Reply {
    let (kit, presented) = (call.kit(), &call.presented);
    let (text, method) = match presented.access {
        Access::Token { text, method } => (text, method),
        Access::Duplicate => return Reply::denied(&SessionDenied::TryRefresh),
        Access::Absent | Access::Ambiguous => return Reply::denied(&SessionDenied::Unauthorised),
    };
    let again = || Reply::denied(&SessionDenied::TryRefresh);
    let guarded = csrf::needed(kit.config.csrf, method, call.parts.method.as_str(), false);
    if guarded && !csrf::header_proven(kit.config.csrf, &presented.hints()) {
        return again();
    }
    let mut opened = token::open_expired(text, &kit.keys.current(), &kit.issuer, kit.db.now());
    if let Err(OpenError::UnknownKey(kid)) = &opened {
        match kit.reload_keys(kid).await {
            Ok(_) => opened = token::open_expired(text, &kit.keys.current(), &kit.issuer, kit.db.now()),
            Err(error) => return Reply::failed(&error),
        }
    }
    let claims = match opened {
        Ok(claims) => claims,
        Err(OpenError::NotOurs) => return Reply::denied(&SessionDenied::Unauthorised),
        Err(_) => return again(),
    };
    if guarded && !csrf::token_proven(kit.config.csrf, &presented.hints(), claims.anti_csrf.as_deref()) {
        return again();
    }
    // A token of the other method that came along goes, too: nothing of a session may stay (row C09).
    let gone = Some(method).filter(|method| !presented.carries(method.other()));
    match kit.revoke(&claims.handle).await {
        Ok(_) => Reply::ok(wire::status("OK")).change(TokenChange::Clear(gone)),
        Err(error) => Reply::failed(&error),
    }
}
