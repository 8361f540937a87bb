//! One request to a route: what came with it, and the session it uses.

use bytes::Bytes;
use http::{StatusCode, request::Parts};
use serde_json::Map;

use super::{reply::Reply, wire::Body};
use crate::{
    base::{ident::TenantId, json},
    engine::Mfa,
    flow::{Caller, Desk, Refusal},
    layer::arrival::Arrival,
    policy::RequestFacts,
    session::{Kit, Session, transport::Presented},
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
        if (Arrival { desk, presented: &presented, parts, csrf: desk.kit.config.csrf }).is_foreign() {
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
        self.arrival().request()
    }

    /// One parameter of the query, decoded.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        let query = self.parts.uri.query()?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            (key == name).then(|| decode(value))?
        })
    }

    /// Who asks. With the flag the session is required and its tenant counts; without it the session isn't
    /// used, and ends if another one begins.
    pub(super) async fn caller(&self, try_linking: bool) -> Result<Caller, Refusal> {
        self.arrival().caller(&self.tenant, try_linking).await
    }

    /// The session that came along.
    pub(super) async fn session(&self) -> Result<Session, Refusal> {
        self.arrival().session().await
    }

    /// Who asks where no session is read and none begins.
    pub(super) fn nobody(&self) -> Caller {
        self.arrival().nobody(&self.tenant)
    }

    fn arrival(&self) -> Arrival<'_> {
        let csrf = self.desk.kit.config.csrf;
        Arrival { desk: self.desk, presented: &self.presented, parts: self.parts, csrf }
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
