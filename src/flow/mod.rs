//! Floor 4: the only place where several subjects meet. Async code gathers facts, calls a pure decision,
//! and writes the plan in one batch.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use self::link::NotLinked;
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::TenantId,
    },
    claim::{ClaimRef, ClaimValidator, InvalidClaim},
    config::EmailVerification,
    delivery::dispatch::Dispatch,
    factor::{self, Factors, otp::Otp},
    hooks::{AnyHooks, Form},
    model::{Tx, keys, tenant::Tenant, user::LoginMethod},
    policy::{AnyAppUsers, AnyLinkPolicy, AnyPolicy, FirstFactors, NextStep, RequestFacts},
    session::{Kit, Session, SessionDenied, cookies::TransferMethod, peer::Peer},
};

pub(crate) mod admit;
pub(crate) mod change;
pub(crate) mod code;
pub(crate) mod complete;
pub(crate) mod ending;
pub(crate) mod evaluate;
pub(crate) mod exists;
pub(crate) mod external;
pub(crate) mod facts;
pub(crate) mod info;
mod keep;
pub(crate) mod link;
mod others;
#[cfg(feature = "password")]
pub(crate) mod password;
pub(crate) mod quota;
mod recovery;
#[cfg(feature = "password")]
pub(crate) mod reset;
pub(crate) mod rotate;
pub(crate) mod second;
pub(crate) mod shadow;
pub(crate) mod sign_in;
mod suspicious;
#[cfg(feature = "third-party")]
pub(crate) mod third_party;
mod ticket;
#[cfg(feature = "phone")]
mod toll;
pub(crate) mod verification;

/// The parts every step needs. Behind one `Arc`, so that a step may outlive its caller.
pub(crate) struct Desk {
    pub(crate) kit: Arc<Kit>,
    pub(crate) policy: AnyPolicy,
    /// A policy on trial.
    pub(crate) shadow: Option<shadow::Shadow>,
    /// Whether the log says that the policy demands the impossible: once is enough (row P11).
    pub(crate) told_impossible: AtomicBool,
    pub(crate) linking: AnyLinkPolicy,
    /// Where the app keeps its users, if it has its own: then no route of ours starts a session.
    pub(crate) own_users: Option<AnyAppUsers>,
    /// Fetched when a session is made.
    pub(crate) claims: Vec<ClaimRef>,
    /// What every mount enforces unless it says otherwise.
    pub(crate) validators: Arc<[Arc<dyn ClaimValidator>]>,
    pub(crate) factors: Arc<Factors>,
    pub(crate) otp: Otp,
    pub(crate) courier: Arc<Dispatch>,
    pub(crate) peer: Peer,
    pub(crate) hooks: AnyHooks,
    #[cfg(feature = "password")]
    pub(crate) passwords: crate::factor::password::PasswordHasher,
    #[cfg(feature = "password")]
    pub(crate) password_settings: crate::factor::form::PasswordSettings,
    /// Speaks to providers, if there are any.
    #[cfg(feature = "third-party")]
    pub(crate) third_party: Option<crate::factor::third_party::Talk>,
}

/// Who is asking, and how an answer would reach them.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The tenant: the session's if one is used, else the path's.
    pub(crate) tenant: TenantId,
    /// The session, if the request asked to use it.
    pub(crate) session: Option<Session>,
    /// Sessions that came along unasked: they end when another one begins (row S01).
    pub(crate) left_behind: Vec<Session>,
    /// Whether the app itself asks, and answers for what was proved: no route does.
    pub(crate) vouched: bool,
    /// How tokens of a new session travel.
    pub(crate) method: TransferMethod,
    /// Whether the request also carries tokens of the other method.
    pub(crate) clear_other: bool,
    /// Whether several cookies came by one name, of which some may be of the older domain (row C04).
    pub(crate) expire_older: bool,
    pub(crate) request: RequestFacts,
    /// What a sign-up form held beside e-mail and password.
    pub(crate) form: Form,
}

/// Why a step was not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    Denied(SessionDenied),
    BadInput(&'static str),
    NoTenant,
    TooMany(Duration),
    NotLinked(NotLinked),
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::SessionEnded => Self::Denied(SessionDenied::Unauthorised),
            ErrorKind::StaleToken => Self::Denied(SessionDenied::TryRefresh),
            _ => Self::Failed(error),
        }
    }
}

impl Refusal {
    /// A refusal of the claim `st-mfa`, for a reason that is a bare string (`spec/mfa.md` §10), and what the
    /// user is to do instead.
    pub(crate) fn mfa(reason: impl ToString, next: Option<NextStep>) -> Self {
        let reason = serde_json::Value::String(reason.to_string());
        let invalid = InvalidClaim::new("st-mfa", reason).with_next(next);
        Self::Denied(SessionDenied::InvalidClaims(vec![invalid]))
    }
}

/// By what a request's address is counted: an IPv6 one by its /64 (row O36).
pub(super) fn peer_key(request: &RequestFacts) -> Option<String> {
    Some(match request.peer?.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    })
}

impl Desk {
    /// The tenant, or N02's answer.
    pub(crate) async fn tenant(&self, id: &TenantId) -> Result<Tenant, Refusal> {
        let tenant = self.kit.db.get::<Tenant>(&keys::tenant(id)).await?;
        tenant.filter(|tenant| tenant.enabled).ok_or(Refusal::NoTenant)
    }

    /// The factors that may start a session in a tenant.
    pub(crate) fn first_factors(&self, tenant: &Tenant) -> FirstFactors {
        let app = self.kit.config.first_factors.as_deref();
        match self.own_users {
            Some(_) => FirstFactors::vouched(app, tenant.first_factors.as_deref()),
            None => FirstFactors::new(&self.factors.first(), app, tenant.first_factors.as_deref()),
        }
    }

    /// Whether the last proved login method of a user must stay, if it is this one (row L12). Where no link proves an
    /// address, people have an unproved one and a phone that only completes their sign-ins: if that is lost, it is
    /// taken away. What begins a sign-in, in any tenant where it counts, is another matter.
    pub(crate) async fn last_proved_stays(&self, tx: &mut Tx, login: &LoginMethod) -> Result<bool, Error> {
        if self.kit.config.email_verification != EmailVerification::Off {
            return Ok(true);
        }
        for tenant in &login.tenants {
            let tenant: Option<Tenant> = tx.get(&keys::tenant(tenant)).await?;
            let first = tenant.map(|tenant| self.first_factors(&tenant));
            if first.is_some_and(|first| first.listed().iter().any(|factor| factor::proves(login, factor))) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}
