//! Is this request's session good, and good enough? Pure; the whole argument in one file.
//!
//! 1. The credential: a header token that is shaped like ours decides alone, else the cookie (row J23).
//! 2. Cross-site request forgery: only a cookie needs the proof (rows X01, X04).
//! 3. The token: signature by a live key, kind, issuer, times (rows J01 to J21).
//! 4. What the change feed said since it was made (design, part 5, last life).
//! 5. The mount's validators, all of them (row P15).

use std::{fmt, sync::Arc};

use super::{
    claims::AccessClaims,
    cookies::TransferMethod,
    csrf::{self, AntiCsrf},
    feed::{Freshness, Verdict},
    keyring::Keyring,
    token::{self, OpenError},
    transport::{Access, Presented},
};
use crate::{
    base::time::Timestamp,
    claim::{ClaimRef, ClaimValidator, InvalidClaim, validator},
    config::Stale,
};

/// Why a request gets no session.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SessionDenied {
    /// No session, or it is over: 401 `unauthorised`.
    Unauthorised,
    /// The session may go on, but not with this token: 401 `try refresh token`.
    TryRefresh,
    /// A refresh token was used again by somebody: 401 `token theft detected`.
    Theft,
    /// The session lacks what is asked here: 403 `invalid claim`.
    InvalidClaims(Vec<InvalidClaim>),
}

/// What a mount asks of a session.
#[derive(Clone)]
pub(crate) struct Demand {
    /// Whether a request without a credential passes, without a session.
    pub(crate) optional: bool,
    pub(crate) validators: Arc<[Arc<dyn ClaimValidator>]>,
    pub(crate) check_store: bool,
    /// Asks for the anti-CSRF proof on safe methods too.
    pub(crate) csrf_always: bool,
    pub(crate) stale: Stale,
    /// The sessions are another issuer's: nothing can be asked here.
    pub(crate) foreign: bool,
}

impl Demand {
    /// A session, and nothing of it: what the endpoints that complete factors ask.
    pub(crate) fn bare() -> Self {
        Self {
            optional: false,
            validators: Arc::from([]),
            check_store: false,
            csrf_always: false,
            stale: Stale::Serve,
            foreign: false,
        }
    }
}

/// What a token is judged against.
pub(crate) struct Evidence<'a> {
    pub(crate) presented: &'a Presented<'a>,
    pub(crate) method: &'a str,
    pub(crate) csrf: AntiCsrf,
    pub(crate) keyring: &'a Keyring,
    pub(crate) issuer: &'a str,
    pub(crate) now: Timestamp,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Judgement {
    Pass(Opened),
    /// No credential where none is needed.
    Anonymous,
    Deny(SessionDenied),
    /// A good session, which lacks what the mount asks.
    Lacks(Opened, Vec<InvalidClaim>),
    /// Something must be read first.
    Ask(Question),
    /// The feed is cut off, and the mount wants no session then.
    Unavailable,
}

/// A token that was verified, and how it came.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) claims: Arc<AccessClaims>,
    pub(crate) method: TransferMethod,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("method", &self.method).finish_non_exhaustive()
    }
}

/// What must be read before the judgement can be made.
#[derive(Debug)]
pub(crate) enum Question {
    /// The key set: the token names a key that isn't known here.
    Keys(String),
    /// The key set of another issuer: there is none, or none to rely on.
    KeySet,
    /// The change feed: its last read is too long ago.
    Feed,
    /// The session's row, and these claims anew.
    Row(Opened, Vec<ClaimRef>),
}

/// Judges a request up to the token itself: steps 1 to 3.
#[inline]
pub(crate) fn open(demand: &Demand, evidence: &Evidence<'_>) -> Judgement {
    let presented = evidence.presented;
    let (text, method) = match presented.access {
        Access::Ambiguous => return Judgement::Deny(SessionDenied::Unauthorised),
        Access::Duplicate => return Judgement::Deny(SessionDenied::TryRefresh),
        Access::Absent if demand.optional => return Judgement::Anonymous,
        Access::Absent => return Judgement::Deny(SessionDenied::Unauthorised),
        Access::Token { text, method } => (text, method),
    };
    let guarded = csrf::needed(evidence.csrf, method, evidence.method, demand.csrf_always);
    if guarded && !csrf::header_proven(evidence.csrf, &presented.hints()) {
        return Judgement::Deny(SessionDenied::TryRefresh);
    }
    let claims = match token::open(text, evidence.keyring, evidence.issuer, evidence.now) {
        Ok(claims) => claims,
        Err(OpenError::NotOurs) if demand.optional => return Judgement::Anonymous,
        Err(OpenError::NotOurs) => return Judgement::Deny(SessionDenied::Unauthorised),
        Err(OpenError::UnknownKey(kid)) => return Judgement::Ask(Question::Keys(kid)),
        Err(OpenError::TryRefresh) => return Judgement::Deny(SessionDenied::TryRefresh),
    };
    if guarded && !csrf::token_proven(evidence.csrf, &presented.hints(), claims.anti_csrf.as_deref()) {
        return Judgement::Deny(SessionDenied::TryRefresh);
    }
    Judgement::Pass(Opened { claims, method })
}

/// Judges an opened token: steps 4 and 5. `verdict` is what the feed says about it; `tried` says that
/// reading the feed was tried just now, so that a mount decides instead of asking again.
#[inline(always)]
pub(crate) fn judge(
    demand: &Demand,
    opened: Opened,
    verdict: Verdict,
    freshness: Freshness,
    tried: bool,
    now: Timestamp,
) -> Judgement {
    let due = opened.claims.ask_at.is_some_and(|at| at <= now);
    if demand.foreign {
        // The issuer asks its policy when the client refreshes; what is missing stays missing here.
        return if due { Judgement::Deny(SessionDenied::TryRefresh) } else { enforce(demand, opened, now) };
    }
    if verdict == Verdict::Revoked {
        return Judgement::Deny(SessionDenied::Unauthorised);
    }
    // A mount that reads the row never depends on the feed.
    if !demand.check_store {
        match (freshness, tried) {
            (Freshness::Fresh, _) => {}
            (_, false) => return Judgement::Ask(Question::Feed),
            (Freshness::Stale, true) if demand.stale == Stale::Serve => {}
            (_, true) => return Judgement::Unavailable,
        }
    }
    let payload = &opened.claims.payload;
    let asks = verdict != Verdict::Current || demand.check_store || due;
    if !asks && validator::satisfied(&demand.validators, payload, now) {
        return Judgement::Pass(opened);
    }
    lacking(demand, opened, asks, now)
}

/// What a session that won't do as it is needs: its row, or a refusal that says what it lacks.
fn lacking(demand: &Demand, opened: Opened, asks: bool, now: Timestamp) -> Judgement {
    let claims = validator::refetches(&demand.validators, &opened.claims.payload, now);
    if asks || !claims.is_empty() {
        return Judgement::Ask(Question::Row(opened, claims));
    }
    enforce(demand, opened, now)
}

/// Step 5 alone, for a session whose row was read just now.
pub(crate) fn enforce(demand: &Demand, opened: Opened, now: Timestamp) -> Judgement {
    let failed = validator::enforce(&demand.validators, &opened.claims.payload, now);
    if failed.is_empty() { Judgement::Pass(opened) } else { Judgement::Lacks(opened, failed) }
}
