//! Codes by e-mail and SMS, and links: how they are made, what a guess may do, how it is compared.
//!
//! The order is fixed (row O04): [`decide`] says whether a guess may be compared; [`Code::charge`] is
//! committed on its own; then [`Otp::compare`] runs, in memory; then [`Code::consume`] goes into the batch
//! of what the code causes. All of it is functions of the record and `now`.

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use zeroize::Zeroizing;

pub(crate) use self::input::{CodeInput, DeviceId, LinkInput, Presented, locate};
use crate::{
    base::{
        contact::Contact,
        error::Error,
        hash,
        ident::{FactorId, SessionHandle, TenantId, UserId},
        random,
        secret::Secret,
        time::Timestamp,
    },
    model::code::{Code, FlowId, Form, Issue, Mac, Purpose, State},
};

mod input;

/// Numbers of section 0.2 that may be configured, within what may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtpSettings {
    pub(crate) digits: u32,
    pub(crate) lifetime: Duration,
    pub(crate) max_attempts: u32,
    pub(crate) max_resends: u32,
}

impl Default for OtpSettings {
    fn default() -> Self {
        Self { digits: 6, lifetime: Duration::from_secs(600), max_attempts: 5, max_resends: 5 }
    }
}

impl OtpSettings {
    /// What can't be served, a sentence each, for the builder to report.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut ask = |fits: bool, problem: &str| {
            if !fits {
                problems.push(problem.to_owned());
            }
        };
        ask((6..=10).contains(&self.digits), "one-time codes need 6 to 10 digits");
        let lifetime = Duration::from_secs(1)..=Duration::from_secs(900);
        ask(lifetime.contains(&self.lifetime), "one-time codes live 1 to 900 seconds");
        ask((1..=10).contains(&self.max_attempts), "a one-time code allows 1 to 10 wrong guesses");
        ask(self.max_resends <= 5, "a one-time code is sent again 5 times at most");
        problems
    }
}

/// The keys that codes are hashed with, by id, outside the store (rows O02, O03). The first makes and
/// checks, the others only check, until the flows made with them are over.
pub(crate) struct Peppers {
    current: String,
    keys: BTreeMap<String, Zeroizing<[u8; 32]>>,
}

impl Peppers {
    pub(crate) fn new(id: impl Into<String>, key: Zeroizing<[u8; 32]>) -> Self {
        let current = id.into();
        Self { keys: BTreeMap::from([(current.clone(), key)]), current }
    }

    /// A key that was current once.
    pub(crate) fn with_old(mut self, id: impl Into<String>, key: Zeroizing<[u8; 32]>) -> Self {
        self.keys.entry(id.into()).or_insert(key);
        self
    }

    fn knows(&self, id: &str) -> bool {
        self.keys.contains_key(id)
    }
}

impl fmt::Debug for Peppers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peppers").field("current", &self.current).finish_non_exhaustive()
    }
}

/// Where a guess comes from (rows O11 to O13), and the generation of its flow's destination as it is now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) purpose: Purpose,
    /// The session, if the request asked to use it.
    pub(crate) session: Option<&'a SessionHandle>,
    /// That session's user.
    pub(crate) user: Option<&'a UserId>,
    pub(crate) generation: u64,
}

/// The factor of a code to this contact.
pub(crate) fn kind(contact: &Contact) -> FactorId {
    match contact {
        Contact::Email(_) => FactorId::OTP_EMAIL,
        Contact::Phone(_) => FactorId::OTP_PHONE,
    }
}

/// What a guess may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Attempt {
    /// Charge it, commit that, compare it.
    Compare,
    /// It can't be right: charge it as if it could, don't compare it.
    Malformed,
    /// Too late: charge it, don't compare it.
    Expired,
    /// Not for this flow: don't compare it.
    Restart {
        /// Whether the flow is charged all the same.
        charge: bool,
    },
}

impl Attempt {
    /// Whether [`Code::charge`] is committed before the answer.
    pub(crate) fn is_charged(self) -> bool {
        self != Self::Restart { charge: false }
    }

    /// Whether the budget of the user and factor kind is charged in the same batch (row O06). Where
    /// nothing can be learnt, nobody's budget is burnt (row O34).
    pub(crate) fn takes_budget(self) -> bool {
        matches!(self, Self::Compare | Self::Malformed)
    }
}

/// Says what a guess may do. Ask again on each round of the commit that charges it.
pub(crate) fn decide(
    code: &Code,
    origin: &Origin<'_>,
    presented: &Presented,
    peppers: &Peppers,
    now: Timestamp,
) -> Attempt {
    if code.tenant != *origin.tenant || !code.is_open(origin.generation) {
        return Attempt::Restart { charge: false };
    }
    if code.purpose != origin.purpose {
        return Attempt::Restart { charge: true };
    }
    if !bound(code, origin) {
        return Attempt::Restart { charge: false };
    }
    if code.is_expired(now) {
        return match presented {
            Presented::Code(_) => Attempt::Expired,
            // A link has no screen that could say "expired" (wire, 7.5).
            Presented::Link(_) => Attempt::Restart { charge: true },
        };
    }
    if !code.issues.iter().any(|issue| peppers.knows(&issue.pepper)) {
        return Attempt::Restart { charge: false };
    }
    match presented.text() {
        Some(_) => Attempt::Compare,
        None => Attempt::Malformed,
    }
}

/// Whether a new message may be made for the flow; if not, the flow is to be restarted.
pub(crate) fn may_resend(code: &Code, origin: &Origin<'_>, settings: &OtpSettings, now: Timestamp) -> bool {
    code.tenant == *origin.tenant
        && code.purpose == origin.purpose
        && bound(code, origin)
        && code.is_open(origin.generation)
        && !code.is_expired(now)
        && code.resends < settings.max_resends
}

fn bound(code: &Code, origin: &Origin<'_>) -> bool {
    let user = code.purpose == Purpose::FirstFactor || code.user.as_ref() == origin.user;
    user && code.session.as_ref() == origin.session
}

/// How a guess is answered that wasn't right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Refused {
    Incorrect { failed: u32, max: u32 },
    Expired { failed: u32, max: u32 },
    Restart,
}

/// The answer to a guess that didn't match, from the flow as it was charged: the last one allowed ends
/// the flow.
pub(crate) fn refuse(attempt: Attempt, charged: &Code, presented: &Presented) -> Refused {
    let (failed, max) = (charged.attempts, charged.max_attempts);
    if failed >= max || presented.is_link() {
        return Refused::Restart;
    }
    match attempt {
        Attempt::Compare | Attempt::Malformed => Refused::Incorrect { failed, max },
        Attempt::Expired => Refused::Expired { failed, max },
        Attempt::Restart { .. } => Refused::Restart,
    }
}

/// What a flow is begun for.
#[derive(Clone, Debug)]
pub(crate) struct Begin {
    pub(crate) tenant: TenantId,
    pub(crate) purpose: Purpose,
    pub(crate) session: Option<SessionHandle>,
    pub(crate) user: Option<UserId>,
    pub(crate) factor: FactorId,
    pub(crate) contact: Contact,
    pub(crate) form: Form,
    /// The destination's, as it is now.
    pub(crate) generation: u64,
    /// Nothing will be sent and nothing ever accepted, though the answers are the same.
    pub(crate) decoy: bool,
}

/// A flow that begins: its record, and what never goes into it.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) code: Code,
    /// For the caller alone.
    pub(crate) device: DeviceId,
    /// For the message alone.
    pub(crate) fresh: Fresh,
}

/// A message's secrets in clear: from here to the sealed queue, and nowhere else.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) code: Option<Secret<String>>,
    /// The link's code, without the link around it.
    pub(crate) link: Option<Secret<String>>,
    pub(crate) valid_for: Duration,
}

/// Makes and compares codes.
#[derive(Debug)]
pub(crate) struct Otp {
    settings: OtpSettings,
    peppers: Peppers,
    comparisons: AtomicU64,
}

impl Otp {
    pub(crate) fn new(settings: OtpSettings, peppers: Peppers) -> Self {
        Self { settings, peppers, comparisons: AtomicU64::new(0) }
    }

    pub(crate) fn settings(&self) -> &OtpSettings {
        &self.settings
    }

    /// Begins a flow.
    ///
    /// # Errors
    /// `Unavailable` if there is no randomness.
    pub(crate) fn begin(&self, begin: Begin, now: Timestamp) -> Result<Begun, Error> {
        let (device, id) = DeviceId::random()?;
        let Begin { tenant, purpose, session, user, factor, contact, form, generation, decoy } = begin;
        let mut code = Code {
            id,
            tenant,
            purpose,
            session,
            user,
            factor,
            contact,
            form,
            issues: Vec::new(),
            attempts: 0,
            max_attempts: self.settings.max_attempts,
            resends: 0,
            created_at: now,
            expires_at: now + self.settings.lifetime,
            state: State::Live,
            generation,
            decoy,
        };
        let fresh = self.issue(&mut code, now)?;
        Ok(Begun { code, device, fresh })
    }

    /// A new message for the flow, where [`may_resend`] allows one. Neither attempts nor expiry change
    /// (row O09).
    ///
    /// # Errors
    /// `Unavailable` if there is no randomness.
    pub(crate) fn resend(&self, code: &mut Code, now: Timestamp) -> Result<Fresh, Error> {
        code.resends = code.resends.saturating_add(1);
        self.issue(code, now)
    }

    /// [`decide`] with the keys at hand.
    pub(crate) fn decide(
        &self,
        code: &Code,
        origin: &Origin<'_>,
        presented: &Presented,
        now: Timestamp,
    ) -> Attempt {
        decide(code, origin, presented, &self.peppers, now)
    }

    /// Holds a guess that was charged against all live secrets, every time (row O20). What matched is for
    /// [`Code::consume`].
    pub(crate) fn compare(&self, code: &Code, presented: &Presented) -> Option<Mac> {
        self.comparisons.fetch_add(1, Ordering::Relaxed);
        let (matched, _) = self.against_all(code, presented);
        matched.filter(|_| !code.decoy)
    }

    /// How many guesses were compared: operators read it, and it shows that budgets hold.
    pub(crate) fn comparisons(&self) -> u64 {
        self.comparisons.load(Ordering::Relaxed)
    }

    /// What matched, and how many were looked at.
    fn against_all(&self, code: &Code, presented: &Presented) -> (Option<Mac>, usize) {
        let (mut matched, mut seen) = (None, 0);
        for issue in &code.issues {
            let (stored, kind) = match presented {
                Presented::Code(_) => (&issue.code, CODE),
                Presented::Link(_) => (&issue.link, LINK),
            };
            let key = self.peppers.keys.get(&issue.pepper);
            let (Some(stored), Some(key), Some(text)) = (stored, key, presented.text()) else {
                continue;
            };
            let given = mac(key, kind, &code.id, text.expose());
            seen += 1;
            if hash::same(given.0.as_bytes(), stored.0.as_bytes()) {
                matched = Some(stored.clone());
            }
        }
        (matched, seen)
    }

    fn issue(&self, code: &mut Code, now: Timestamp) -> Result<Fresh, Error> {
        let Some(key) = self.peppers.keys.get(&self.peppers.current) else {
            return Err(Error::internal("there is no key for one-time codes"));
        };
        let digits = match code.form.has_code() {
            true => Some(Secret::new(random::digits(self.settings.digits)?)),
            false => None,
        };
        let link = match code.form.has_link() {
            true => Some(Secret::new(random::token()?)),
            false => None,
        };
        let issue = Issue {
            pepper: self.peppers.current.clone(),
            code: digits.as_ref().map(|text| mac(key, CODE, &code.id, text.expose())),
            link: link.as_ref().map(|text| mac(key, LINK, &code.id, text.expose())),
            created_at: now,
        };
        code.add(issue);
        Ok(Fresh { code: digits, link, valid_for: code.expires_at.since(now) })
    }
}

const CODE: &[u8] = b"code";
const LINK: &[u8] = b"link";

/// Bound to its flow, so that a MAC says nothing about the same code elsewhere (row O02).
fn mac(key: &[u8; 32], kind: &[u8], flow: &FlowId, text: &str) -> Mac {
    Mac(hash::base64url(&hash::mac(key, &[kind, flow.as_str().as_bytes(), text.as_bytes()])))
}

#[cfg(test)]
mod tests;
