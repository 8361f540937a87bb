//! One-time codes: a flow's record and what may happen to it. Secrets are MACs here (row O02); who makes
//! and compares them is `factor/otp.rs`.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Tx, keys, user::LoginMethod};
use crate::base::{
    contact::Contact,
    error::{Error, ParseError},
    hash,
    ident::{FactorId, SessionHandle, TenantId, UserId},
    time::Timestamp,
};

/// Names a flow: base64url of SHA-256 over the device id's bytes (the wire's `preAuthSessionId`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct FlowId(String);

impl FlowId {
    pub(crate) fn of(device: &[u8]) -> Self {
        Self(hash::base64url(&hash::sha256(device)))
    }

    /// # Errors
    /// If the text isn't 32 bytes in canonical base64url.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        match hash::from_base64url(text) {
            Some(raw) if raw.len() == 32 => Ok(Self(text.to_owned())),
            _ => Err(ParseError::new("flow id")),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FlowId {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        Self::parse(&text)
    }
}

impl From<FlowId> for String {
    fn from(id: FlowId) -> Self {
        id.0
    }
}

/// A keyed hash of a code or a link, base64url.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Mac(pub(crate) String);

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What a code is good for (row O11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Purpose {
    FirstFactor,
    SecondFactor,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Form {
    Code,
    Link,
    Both,
}

impl Form {
    /// What a message holds that may complete any of these factors; `None` of none.
    pub(crate) fn completing(factors: &[FactorId]) -> Option<Self> {
        let has = |ids: [FactorId; 2]| factors.iter().any(|factor| ids.contains(factor));
        let code = has([FactorId::OTP_EMAIL, FactorId::OTP_PHONE]);
        let link = has([FactorId::LINK_EMAIL, FactorId::LINK_PHONE]);
        match (code, link) {
            (true, true) => Some(Self::Both),
            (true, false) => Some(Self::Code),
            (false, true) => Some(Self::Link),
            (false, false) => None,
        }
    }

    pub(crate) fn has_code(self) -> bool {
        self != Self::Link
    }

    pub(crate) fn has_link(self) -> bool {
        self != Self::Code
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Live,
    Consumed,
    Voided,
}

/// One message's secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Issue {
    /// Which pepper the MACs were made with (row O03).
    pub(crate) pepper: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<Mac>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<Mac>,
    pub(crate) created_at: Timestamp,
}

/// A flow: one destination, one purpose, at most five guesses, gone after ten minutes.
///
/// At its maximum it stays as a row and takes no more guesses: a right one that was charged in time still
/// counts, and a counter that is gone can't start at zero (row O05).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Code {
    pub(crate) id: FlowId,
    pub(crate) tenant: TenantId,
    pub(crate) purpose: Purpose,
    /// The session that asked, if it was to be used: only that one may spend the code (row O12).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<SessionHandle>,
    /// Whose budget guesses are charged to; with a second factor, who may spend the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<UserId>,
    /// What was asked for; what is completed is [`Code::completes`].
    pub(crate) factor: FactorId,
    pub(crate) contact: Contact,
    pub(crate) form: Form,
    /// The newest two (row O09), the newer one last.
    pub(crate) issues: Vec<Issue>,
    pub(crate) attempts: u32,
    pub(crate) max_attempts: u32,
    pub(crate) resends: u32,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) state: State,
    /// The destination's generation when this flow began: a lower one than today's is void.
    pub(crate) generation: u64,
    /// Made for show: nothing was sent, nothing is ever accepted (rows O24, V10).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) decoy: bool,
}

impl Code {
    /// The newest two are live.
    pub(crate) const LIVE: usize = 2;

    /// Whether guesses can still be charged to it.
    pub(crate) fn is_open(&self, generation: u64) -> bool {
        self.state == State::Live && self.generation == generation && self.attempts < self.max_attempts
    }

    /// The row outlives the code, so that a late guess is told it is late (row O10).
    pub(crate) fn kept_until(&self) -> Timestamp {
        self.expires_at + std::time::Duration::from_secs(900)
    }

    /// At `expires_at` it is over.
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }

    /// Counts a guess, before it is compared (row O04): commit this, then compare.
    pub(crate) fn charge(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Adds a message's secrets; the older of two goes.
    pub(crate) fn add(&mut self, issue: Issue) {
        self.issues.push(issue);
        let surplus = self.issues.len().saturating_sub(Self::LIVE);
        self.issues.drain(..surplus);
    }

    /// Spends the flow on the secret that matched, if that is still one of its own (row O08). The time
    /// doesn't matter: it was judged when the guess was charged (row O10).
    #[must_use]
    pub(crate) fn consume(&mut self, matched: &Mac, generation: u64) -> bool {
        let known = self.issues.iter().any(|issue| {
            [&issue.code, &issue.link]
                .into_iter()
                .flatten()
                .any(|mac| hash::same(mac.0.as_bytes(), matched.0.as_bytes()))
        });
        let spent = known && self.state == State::Live && self.generation == generation && !self.decoy;
        if spent {
            self.state = State::Consumed;
        }
        spent
    }

    /// Whether it is for whom and what the guess was charged to, to the letter (rows O11 to O15).
    pub(crate) fn is_bound_as(&self, charged: &Self) -> bool {
        self.id == charged.id
            && self.tenant == charged.tenant
            && self.purpose == charged.purpose
            && self.session == charged.session
            && self.user == charged.user
            && self.factor == charged.factor
            && self.contact == charged.contact
    }

    /// The factor that a code or a link of this flow completes (wire, 7.5).
    pub(crate) fn completes(&self, by_link: bool) -> FactorId {
        match (&self.contact, by_link) {
            (Contact::Email(_), false) => FactorId::OTP_EMAIL,
            (Contact::Email(_), true) => FactorId::LINK_EMAIL,
            (Contact::Phone(_), false) => FactorId::OTP_PHONE,
            (Contact::Phone(_), true) => FactorId::LINK_PHONE,
        }
    }

    /// All that its messages can complete.
    pub(crate) fn may_complete(&self) -> Vec<FactorId> {
        let forms = [(self.form.has_code(), false), (self.form.has_link(), true)];
        forms.into_iter().filter(|(has, _)| *has).map(|(_, by_link)| self.completes(by_link)).collect()
    }
}

/// A contact's flows of one purpose in one tenant: raising the generation voids all of them at once,
/// when one is consumed (row O08) and when the contact changes hands (row O17).
///
/// No flow lives as long as the record is kept: one that finds none was not voided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Destination {
    pub(crate) generation: u64,
}

impl Destination {
    /// No generation comes twice, though the record is forgotten in between: hence the time.
    pub(crate) fn void_all(&mut self, now: Timestamp) {
        let time = u64::try_from(now.as_millis()).unwrap_or_default();
        self.generation = self.generation.saturating_add(1).max(time);
    }

    /// Today's generation, as a flow has to compare it with its own.
    pub(crate) fn as_met_by(found: Option<Self>, code: &Code) -> u64 {
        found.map_or(code.generation, |found| found.generation)
    }
}

/// How long a generation is kept after its last change: no flow outlives the hour, and without flows the
/// number says nothing.
pub(super) const DESTINATION_LIFE: Duration = Duration::from_secs(3600);

/// Stages that every code under way to what somebody signs in by is void.
pub(crate) async fn void_to(tx: &mut Tx, tenant: &TenantId, login: &LoginMethod) -> Result<(), Error> {
    for contact in login.contacts() {
        for purpose in [Purpose::FirstFactor, Purpose::SecondFactor] {
            let key = keys::destination(tenant, purpose, &contact);
            let mut destination: Destination = tx.get(&key).await?.unwrap_or_default();
            destination.void_all(tx.now());
            tx.put(key, &destination, Some(tx.now() + DESTINATION_LIFE)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(text: &str) -> Issue {
        Issue {
            pepper: "1".to_owned(),
            code: Some(Mac(text.to_owned())),
            link: None,
            created_at: Timestamp::EPOCH,
        }
    }

    fn code() -> Code {
        Code {
            id: FlowId::of(b"device"),
            tenant: TenantId::PUBLIC,
            purpose: Purpose::FirstFactor,
            session: None,
            user: None,
            factor: FactorId::OTP_EMAIL,
            contact: Contact::parse("a@shop.example").unwrap(),
            form: Form::Code,
            issues: vec![issue("one")],
            attempts: 0,
            max_attempts: 5,
            resends: 0,
            created_at: Timestamp::EPOCH,
            expires_at: Timestamp::from_secs(600),
            state: State::Live,
            generation: 3,
            decoy: false,
        }
    }

    #[test]
    fn sec_o08_spent_once() {
        let (mut flow, mac) = (code(), Mac("one".to_owned()));
        assert!(flow.consume(&mac, 3));
        assert!(!flow.consume(&mac, 3));
        assert!(!flow.is_open(3));
    }

    #[test]
    fn sec_o08_a_sibling_voids() {
        let mac = Mac("one".to_owned());
        let mut destination = Destination { generation: 3 };
        destination.void_all(Timestamp::EPOCH);
        assert!(!code().consume(&mac, destination.generation));
        assert!(!code().is_open(destination.generation));
        // Forgotten since: those after it go on, and the next one voids them all the same.
        assert_eq!(Destination::as_met_by(None, &code()), 3);
        let mut forgotten = Destination::default();
        forgotten.void_all(Timestamp::from_millis(3));
        forgotten.void_all(Timestamp::from_millis(3));
        assert_eq!(Destination::as_met_by(Some(forgotten), &code()), 4);
    }

    #[test]
    fn sec_o09_the_newest_two_live() {
        let mut flow = code();
        for text in ["two", "three"] {
            flow.add(issue(text));
        }
        assert_eq!(flow.issues, [issue("two"), issue("three")]);
        assert!(!flow.consume(&Mac("one".to_owned()), 3));
        assert!(flow.consume(&Mac("two".to_owned()), 3));
    }

    #[test]
    fn sec_o04_a_right_code_charged_in_time_still_counts_at_the_maximum() {
        let mut flow = code();
        for _ in 0..5 {
            assert!(flow.is_open(3));
            flow.charge();
        }
        assert!(!flow.is_open(3));
        assert!(flow.consume(&Mac("one".to_owned()), 3));
    }

    #[test]
    fn sec_o24_a_decoy_is_never_spent() {
        let mut flow = Code { decoy: true, ..code() };
        assert!(flow.is_open(3));
        assert!(!flow.consume(&Mac("one".to_owned()), 3));
    }

    #[test]
    fn sec_o15_bound_to_the_letter() {
        let (flow, other) = (code(), UserId::parse("other").unwrap());
        let counted = Code { attempts: 3, issues: Vec::new(), resends: 1, ..flow.clone() };
        assert!(counted.is_bound_as(&flow));
        let handle = SessionHandle::random(&TenantId::PUBLIC).unwrap();
        for moved in [
            Code { id: FlowId::of(b"another"), ..flow.clone() },
            Code { tenant: TenantId::parse("north").unwrap(), ..flow.clone() },
            Code { purpose: Purpose::SecondFactor, ..flow.clone() },
            Code { session: Some(handle), ..flow.clone() },
            Code { user: Some(other), ..flow.clone() },
            Code { factor: FactorId::OTP_PHONE, ..flow.clone() },
            Code { contact: Contact::parse("b@shop.example").unwrap(), ..flow.clone() },
        ] {
            assert!(!moved.is_bound_as(&flow) && !flow.is_bound_as(&moved), "{moved:?}");
        }
    }

    #[test]
    fn stored_form() {
        let flow = code();
        let stored = serde_json::to_value(&flow).unwrap();
        assert_eq!(stored["contact"], "a@shop.example");
        assert_eq!(stored["purpose"], "first-factor");
        assert_eq!(serde_json::from_value::<Code>(stored).unwrap(), flow);
        let shown = format!("{flow:?}");
        assert!(!shown.contains("\"one\"") && !shown.contains("shop"), "{shown}");
    }
}
