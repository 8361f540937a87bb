//! What an access token says, and the one reading of it: each member is taken once, straight into its type.

use std::{borrow::Cow, fmt, time::Duration};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Map;

use crate::{
    base::{
        ident::{LoginId, SessionHandle, TenantId, UserId, every, is_hex},
        json,
        payload::Payload,
        time::Timestamp,
    },
    model::epoch::Epochs,
};

/// What a verified access token says.
#[derive(Clone)]
#[cfg_attr(test, derive(PartialEq))]
pub(crate) struct AccessClaims {
    pub(crate) user: UserId,
    pub(crate) login: LoginId,
    pub(crate) tenant: TenantId,
    pub(crate) handle: SessionHandle,
    /// Names the refresh token it was minted with (row S02 c).
    pub(crate) refresh_hash1: String,
    pub(crate) anti_csrf: Option<String>,
    /// Seconds.
    pub(crate) issued_at: i64,
    /// Seconds. Ours have none.
    pub(crate) not_before: Option<i64>,
    /// Seconds.
    pub(crate) expires_at: i64,
    pub(crate) epochs: Epochs,
    /// From when on the policy is to be asked again, if it said so.
    pub(crate) ask_at: Option<Timestamp>,
    pub(crate) payload: Payload,
}

/// For `iat` and `nbf` only.
const LEEWAY: Duration = Duration::from_secs(30);
/// Integers up to here are exact in every reader of JSON.
const EXACT: u64 = 1 << 53;

impl AccessClaims {
    /// Reads the claims from the very bytes that were signed, each of exactly its type (rows J11 to J14).
    /// `None` is the one answer to all that is wrong. Another issuer's (`foreign`) may be without our numbers.
    pub(crate) fn read(text: &[u8], issuer: &str, foreign: bool) -> Option<Self> {
        let mut json = serde_json::Deserializer::from_str(str::from_utf8(text).ok()?);
        let claims = Claims { issuer, foreign }.deserialize(&mut json).ok()?;
        json.end().ok()?;
        Some(claims)
    }

    /// Whether the token is of the past: from `exp` on (row J11).
    pub(crate) fn expired(&self, now: Timestamp) -> bool {
        now >= Timestamp::from_secs(self.expires_at)
    }

    /// Whether the token is of the future, beyond what clocks may differ (row J12).
    pub(crate) fn too_early(&self, now: Timestamp) -> bool {
        let begins = self.not_before.map_or(self.issued_at, |at| at.max(self.issued_at));
        Timestamp::from_secs(begins) > now + LEEWAY
    }
}

struct Claims<'i> {
    issuer: &'i str,
    foreign: bool,
}

/// The members that the crate writes, as far as they were met.
#[derive(Default)]
struct Own {
    user: Option<UserId>,
    login: Option<LoginId>,
    tenant: Option<TenantId>,
    handle: Option<SessionHandle>,
    refresh_hash1: Option<String>,
    parent: Option<()>,
    anti_csrf: Option<Option<String>>,
    issued_at: Option<i64>,
    not_before: Option<i64>,
    expires_at: Option<i64>,
    issuer: Option<()>,
    kind: Option<()>,
    jti: Option<()>,
    version: Option<()>,
    epochs: Option<(Epochs, Option<Timestamp>)>,
}

impl<'de> DeserializeSeed<'de> for Claims<'_> {
    type Value = AccessClaims;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<AccessClaims, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Claims<'_> {
    type Value = AccessClaims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the claims of an access token")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AccessClaims, A::Error> {
        let (mut own, mut payload, mut count) = (Own::default(), Map::new(), 0);
        while let Some(name) = map.next_key_seed(Text)? {
            count += 1;
            if count > json::MEMBERS {
                return Err(A::Error::custom("too many members"));
            }
            match &*name {
                "sub" => once(&mut own.user, parsed(&map.next_value_seed(Text)?, UserId::parse)?)?,
                "rsub" => {
                    let text = map.next_value_seed(Text)?;
                    let same = own.user.as_ref().filter(|user| user.as_str() == text);
                    let login = same.map(|user| Ok(LoginId::only_one_of(user)));
                    once(&mut own.login, login.unwrap_or_else(|| parsed(&text, LoginId::parse))?)?;
                }
                "tId" => once(&mut own.tenant, parsed(&map.next_value_seed(Text)?, TenantId::parse)?)?,
                "sessionHandle" => {
                    once(&mut own.handle, parsed(&map.next_value_seed(Text)?, SessionHandle::parse)?)?;
                }
                "refreshTokenHash1" => {
                    let hash = map.next_value_seed(Text)?;
                    once(&mut own.refresh_hash1, must(is_hash(&hash), hash.into_owned())?)?;
                }
                "parentRefreshTokenHash1" => {
                    let parent = map.next_value_seed(Nullable)?;
                    once(&mut own.parent, must(parent.is_none_or(|parent| is_hash(&parent)), ())?)?;
                }
                "antiCsrfToken" => {
                    once(&mut own.anti_csrf, map.next_value_seed(Nullable)?.map(Cow::into_owned))?;
                }
                "iat" => once(&mut own.issued_at, map.next_value_seed(Integer)?)?,
                "nbf" => once(&mut own.not_before, map.next_value_seed(Integer)?)?,
                "exp" => once(&mut own.expires_at, map.next_value_seed(Integer)?)?,
                "iss" => once(&mut own.issuer, must(map.next_value_seed(Text)? == self.issuer, ())?)?,
                // Other kinds of tokens by the same keys are none of a session (row J13).
                "stt" => once(&mut own.kind, must(map.next_value_seed(Integer)? == 0, ())?)?,
                "aud" => return Err(A::Error::custom("a session's token has no audience")),
                "jti" => once(&mut own.jti, ignored(map.next_value_seed(json::MEMBER)?))?,
                "version" => once(&mut own.version, ignored(map.next_value_seed(json::MEMBER)?))?,
                "ep" => once(&mut own.epochs, map.next_value_seed(Numbers)?)?,
                _ => json::insert(&mut payload, name.into_owned(), map.next_value_seed(json::MEMBER)?)?,
            }
        }
        if self.foreign {
            own.epochs.get_or_insert_default();
        }
        own.whole(Payload::from_members(payload)).ok_or_else(|| A::Error::custom("not a session's claims"))
    }
}

impl Own {
    /// The claims, if none is missing and they agree with each other.
    fn whole(self, payload: Payload) -> Option<AccessClaims> {
        let ((), ()) = (self.issuer?, self.parent?);
        let (epochs, ask_at) = self.epochs?;
        let claims = AccessClaims {
            user: self.user?,
            login: self.login?,
            tenant: self.tenant?,
            handle: self.handle?,
            refresh_hash1: self.refresh_hash1?,
            anti_csrf: self.anti_csrf?,
            issued_at: self.issued_at?,
            not_before: self.not_before,
            expires_at: self.expires_at?,
            epochs,
            ask_at,
            payload,
        };
        let agree = claims.handle.is_of(&claims.tenant) && claims.issued_at <= claims.expires_at;
        agree.then_some(claims)
    }
}

/// A member is there once (row J14).
fn once<T, E: serde::de::Error>(slot: &mut Option<T>, value: T) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom("duplicate member")),
    }
}

fn must<T, E: serde::de::Error>(holds: bool, value: T) -> Result<T, E> {
    if holds { Ok(value) } else { Err(E::custom("not of its form")) }
}

fn parsed<T, F, E: serde::de::Error>(text: &str, parse: impl Fn(&str) -> Result<T, F>) -> Result<T, E> {
    parse(text).map_err(|_| E::custom("not of its form"))
}

fn ignored<T>(_value: T) {}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && every(text, is_hex)
}

/// A string, borrowed where it has no escapes.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// A string or `null`.
struct Nullable;

impl<'de> DeserializeSeed<'de> for Nullable {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Nullable {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        Text.deserialize(deserializer).map(Some)
    }
}

/// A JSON integer from 0 to 2⁵³: no string, no fraction, no exponent (row J11).
struct Integer;

impl<'de> DeserializeSeed<'de> for Integer {
    type Value = i64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<i64, D::Error> {
        deserializer.deserialize_u64(self)
    }
}

impl Visitor<'_> for Integer {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer from 0 to 2^53")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<i64, E> {
        let exact = i64::try_from(number).ok().filter(|_| number <= EXACT);
        exact.ok_or_else(|| E::custom("a number too large"))
    }
}

/// `{"n": [app, tenant, user, session], "ask": milliseconds}`; later versions may say more.
struct Numbers;

impl<'de> DeserializeSeed<'de> for Numbers {
    type Value = (Epochs, Option<Timestamp>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Numbers {
    type Value = (Epochs, Option<Timestamp>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the numbers of a session")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut epochs, mut ask_at, mut more) = (None, None, Map::new());
        while let Some(name) = map.next_key_seed(Text)? {
            match &*name {
                "n" => once(&mut epochs, map.next_value_seed(Four)?)?,
                "ask" => once(&mut ask_at, Timestamp::from_millis(map.next_value()?))?,
                _ if more.len() == json::MEMBERS => return Err(A::Error::custom("too many members")),
                _ => json::insert(&mut more, name.into_owned(), map.next_value_seed(json::MEMBER)?)?,
            }
        }
        Ok((epochs.ok_or_else(|| A::Error::missing_field("n"))?, ask_at))
    }
}

/// Exactly four numbers.
struct Four;

impl<'de> DeserializeSeed<'de> for Four {
    type Value = Epochs;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Epochs, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Four {
    type Value = Epochs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("four numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Epochs, A::Error> {
        let mut next = || seq.next_element::<u64>()?.ok_or_else(|| A::Error::custom("fewer than four"));
        let epochs = Epochs { app: next()?, tenant: next()?, user: next()?, session: next()? };
        match seq.next_element::<IgnoredAny>()? {
            None => Ok(epochs),
            Some(_) => Err(A::Error::custom("more than four")),
        }
    }
}

/// Whose it is and until when; no hash, no token, no value of the payload (row G01).
impl fmt::Debug for AccessClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessClaims")
            .field("user", &self.user)
            .field("tenant", &self.tenant)
            .field("handle", &self.handle)
            .field("issued_at", &self.issued_at)
            .field("expires_at", &self.expires_at)
            .field("epochs", &self.epochs)
            .field("ask_at", &self.ask_at)
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::hash;

    /// Somebody's, issued then.
    pub(crate) fn somebody(now: Timestamp, life: Duration) -> AccessClaims {
        AccessClaims {
            user: UserId::parse("u-1").unwrap(),
            login: LoginId::parse("u-1").unwrap(),
            tenant: TenantId::PUBLIC,
            handle: SessionHandle::parse("11111111-2222-4333-8444-555555555555").unwrap(),
            refresh_hash1: hash::sha256_hex(b"x"),
            anti_csrf: None,
            issued_at: now.as_secs(),
            not_before: None,
            expires_at: (now + life).as_secs(),
            epochs: Epochs::default(),
            ask_at: None,
            payload: Payload::new(),
        }
    }
}
