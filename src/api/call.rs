//! One request to a route: what came with it, and the session it uses.

use bytes::Bytes;
use http::{StatusCode, request::Parts};
use serde_json::Map;

use super::{reply::Reply, wire::Body};
use crate::{
    base::{error::Error, ident::TenantId, json},
    engine::Mfa,
    flow::{Caller, Desk, Refusal},
    hooks::Form,
    policy::RequestFacts,
    session::{
        Kit, Session, SessionDenied, csrf, token,
        transport::{Access, Presented},
        verify::{self, Demand, Evidence, Judgement, Opened, Question},
    },
};

/// A request, read but not judged.
pub(super) struct Call<'a> {
    pub(super) desk: &'a Desk,
    pub(super) tenant: TenantId,
    pub(super) presented: Presented<'a>,
    pub(super) parts: &'a Parts,
    pub(super) body: Body,
}

impl<'a> Call<'a> {
    /// Reads headers and body; refuses what another site sent (rows X06, X07).
    pub(super) fn new(mfa: &'a Mfa, tenant: TenantId, parts: &'a Parts, body: &Bytes) -> Result<Self, Reply> {
        let desk: &Desk = &mfa.desk;
        let config = &desk.kit.config;
        let Ok(presented) = Presented::read(&parts.headers, &config.cookies) else {
            return Err(Reply::message(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "there are too many cookies",
            ));
        };
        let (api, websites) = (&config.app.api, &config.app.websites);
        let same_site = websites.iter().all(|website| api.same_site(website));
        let unsafe_method = csrf::is_unsafe(parts.method.as_str());
        let hints = presented.hints();
        if unsafe_method && !csrf::origin_allowed(&hints, websites, same_site) {
            #[cfg(feature = "tracing")]
            {
                let origin: String = hints.origin.unwrap_or_default().chars().take(64).collect();
                tracing::warn!(?origin, "a request that another site sent was refused");
            }
            return Err(Reply::message(StatusCode::BAD_REQUEST, "this origin may not use the API"));
        }
        let body = match body.is_empty() {
            true => Map::new(),
            false => json::parse_object(body)
                .map_err(|_| Reply::message(StatusCode::BAD_REQUEST, "the body must be one JSON object"))?,
        };
        Ok(Self { desk, tenant, presented, parts, body: Body(body) })
    }

    pub(super) fn kit(&self) -> &Kit {
        &self.desk.kit
    }

    pub(super) fn request(&self) -> RequestFacts {
        self.desk.peer.facts(&self.parts.extensions, &self.parts.headers)
    }

    /// One parameter of the query, decoded.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        let query = self.parts.uri.query()?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            (key == name).then(|| decode(value))?
        })
    }

    /// The session that came along. No validators: the factors are completed here.
    pub(super) async fn session(&self) -> Result<Session, Refusal> {
        let demand = Demand::bare();
        for tried in [false, true] {
            let keyring = self.kit().keys.current();
            let now = self.kit().db.now();
            let evidence = Evidence {
                presented: &self.presented,
                method: self.parts.method.as_str(),
                csrf: self.kit().config.csrf,
                keyring: &keyring,
                issuer: &self.kit().issuer,
                now,
            };
            match verify::open(&demand, &evidence) {
                // Every step reads the session's row and its numbers: the feed is not asked.
                Judgement::Pass(opened) => return Ok(Session::new(&self.desk.kit, opened)),
                Judgement::Ask(Question::Keys(kid)) if !tried => {
                    if !self.kit().reload_keys(&kid).await? {
                        return Err(Refusal::Denied(SessionDenied::TryRefresh));
                    }
                }
                Judgement::Deny(denied) => return Err(Refusal::Denied(denied)),
                _ => break,
            }
        }
        Err(Refusal::Denied(SessionDenied::TryRefresh))
    }

    /// Who asks. With the flag the session is required and its tenant counts; without it the session isn't
    /// used, and ends if another one begins.
    pub(super) async fn caller(&self, try_linking: bool) -> Result<Caller, Refusal> {
        let (session, left_behind) = match try_linking {
            true => (Some(self.session().await?), None),
            false => (None, self.left_behind().await?),
        };
        let method = self.kit().config.cookies.methods.choose(self.presented.hints().auth_mode);
        Ok(Caller {
            tenant: session.as_ref().map_or_else(|| self.tenant.clone(), Session::tenant_id),
            clear_other: self.presented.carries(method.other()),
            session,
            left_behind,
            method,
            request: self.request(),
            form: Form::default(),
        })
    }

    /// Who asks where no session is read and none begins.
    pub(super) fn nobody(&self) -> Caller {
        Caller {
            tenant: self.tenant.clone(),
            session: None,
            left_behind: None,
            method: self.kit().config.cookies.methods.choose(self.presented.hints().auth_mode),
            clear_other: false,
            request: self.request(),
            form: Form::default(),
        }
    }

    /// A session that came along unasked; one that isn't good is as if there were none.
    async fn left_behind(&self) -> Result<Option<Session>, Error> {
        match self.session().await {
            Ok(session) => Ok(Some(session)),
            Err(Refusal::Failed(error)) => Err(error),
            Err(_) => Ok(self.expired()),
        }
    }

    /// A session whose access token ran out: the refresh cookie doesn't reach this route, so the token is
    /// what names it (as at sign-out, row S12).
    fn expired(&self) -> Option<Session> {
        let (kit, presented) = (&self.desk.kit, &self.presented);
        let Access::Token { text, method } = presented.access else { return None };
        let guarded = csrf::needed(kit.config.csrf, method, self.parts.method.as_str(), false);
        let claims = token::open_expired(text, &kit.keys.current(), &kit.issuer, kit.db.now()).ok()?;
        let proven = csrf::proven(kit.config.csrf, &presented.hints(), claims.anti_csrf.as_deref());
        (proven || !guarded).then(|| Session::new(kit, Opened { claims, method }))
    }
}

/// Percent-decoding of a query's value; `None` if it isn't UTF-8 or is cut off.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}
