//! How strongly a session's user was authenticated, in the standards' words: the assurance levels of
//! NIST SP 800-63B-4, and the method references of RFC 8176. Both are worked out from the factors that were
//! completed; nothing of it is stored.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    ClaimRef, ClaimValidator, CompletedFactors, InvalidClaim,
    mfa::{self, MfaClaim},
};
use crate::{
    base::{distinct, ident::FactorId, payload::Payload, time::Timestamp},
    policy::{Requirement, Requirements},
};

/// What one has, and what it is called in `amr`.
const POSSESSIONS: [(FactorId, &[&str]); 4] = [
    (FactorId::TOTP, &["otp"]),
    (FactorId::OTP_PHONE, &["sms"]),
    (FactorId::LINK_PHONE, &["sms"]),
    (FactorId::WEBAUTHN, &["pop", "user"]),
];

/// An authenticator assurance level of NIST SP 800-63B-4, by the profile of this crate: see
/// [`Session::aal`](crate::Session::aal).
///
/// # The profile
///
/// | factor | counts as | NIST SP 800-63B-4 | `amr` |
/// |---|---|---|---|
/// | `emailpassword` | password: what one knows | §3.1.1 | `pwd` |
/// | `totp` | one-time passwords by a device: what one has | §3.1.4 | `otp` |
/// | `otp-phone`, `link-phone` | out of band over the telephone network: what one has, *restricted* | §3.1.3, §3.2.9 | `sms` |
/// | `webauthn` | a key: what one has; both at once if it made the session | §3.1.6, §3.1.7 | `pop`, `user` |
/// | `otp-email`, `link-email` | nothing: e-mail is no out-of-band authenticator | §3.1.3 | none fits |
/// | `thirdparty` | nothing: what another provider checked isn't known here | SP 800-63C-4 | none fits |
/// | an app's own factor | nothing: what it is isn't known here | | none fits |
///
/// *AAL1* (§2.1) is any one factor that counts. *AAL2* (§2.2) is a password and something that one has, or a
/// passkey that made the session. A passkey that came later counts as what one has: only where it stands alone
/// is the user's PIN or finger asked for in any case. *AAL3* (§2.3) asks for a key that can't leave its
/// hardware, which nobody here can tell; it is never said.
///
/// A level says which factors were completed, and nothing else that NIST asks for: how often a user must
/// authenticate again (`.max_age(…)`), how they were enrolled, which authenticators an organisation admits.
///
/// `amr` values: `mfa` (RFC 8176) is added at AAL2; `pop` is registered by the *OpenID Connect Extended
/// Authentication Profile ACR Values 1.0*, for keys of which nobody knows whether hardware holds them.
///
/// # Example
///
/// ```
/// use tower_mfa::{FactorId, claim::{Aal, CompletedFactors}, ident::Timestamp};
/// let at = Timestamp::from_secs(1_702_877_939);
/// let level = |factors: &[FactorId]| {
///     Aal::of(&factors.iter().map(|factor| (factor.clone(), at)).collect::<CompletedFactors>())
/// };
/// assert_eq!(level(&[FactorId::PASSWORD, FactorId::TOTP]), Some(Aal::Two));
/// // E-mail counts for nothing here.
/// assert_eq!(level(&[FactorId::PASSWORD, FactorId::OTP_EMAIL]), Some(Aal::One));
/// assert_eq!(level(&[FactorId::LINK_EMAIL]), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Aal {
    /// One factor that counts.
    One,
    /// Two different ones, or a passkey that made the session.
    Two,
}

impl Aal {
    /// The level that these factors reach; `None` if none of them counts.
    pub fn of(done: &CompletedFactors) -> Option<Self> {
        let knows = done.contains(&FactorId::PASSWORD);
        let has = POSSESSIONS.iter().any(|(factor, _)| done.contains(factor));
        match (knows, has) {
            _ if is_passkeys(done) => Some(Self::Two),
            (true, true) => Some(Self::Two),
            (true, false) | (false, true) => Some(Self::One),
            (false, false) => None,
        }
    }

    /// The level as a value of `acr` (OpenID Connect Core, section 2, which wants a URI): this crate's own
    /// name, because it speaks of factors alone.
    pub fn acr(&self) -> &'static str {
        match self {
            Self::One => "urn:tower-mfa:aal1",
            Self::Two => "urn:tower-mfa:aal2",
        }
    }
}

/// `AAL1`, `AAL2`.
impl fmt::Display for Aal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "AAL1",
            Self::Two => "AAL2",
        })
    }
}

/// The method references of these factors, as RFC 8176 names them, each once: see
/// [`Session::amr`](crate::Session::amr).
pub fn amr(done: &CompletedFactors) -> Vec<&'static str> {
    let knows = done.contains(&FactorId::PASSWORD).then_some("pwd");
    let has = POSSESSIONS.iter().filter(|(factor, _)| done.contains(factor)).flat_map(|(_, amr)| *amr);
    let several = (Aal::of(done) == Some(Aal::Two)).then_some("mfa");
    distinct(knows.into_iter().chain(has.copied()).chain(several))
}

/// Whether a passkey made the session: then it verified the user, too.
fn is_passkeys(done: &CompletedFactors) -> bool {
    done.first() == Some(&FactorId::WEBAUTHN)
}

/// The session's factors reach AAL2. For a mount; for a single route it is
/// [`RequireFactors::aal2`](crate::RequireFactors::aal2).
#[derive(Clone, Debug)]
pub struct AalMet {
    id: String,
    /// Of a session that a passkey made.
    passkeys: Requirements,
    /// Of any other.
    others: Requirements,
}

impl AalMet {
    /// Asks for AAL2.
    pub fn two() -> Self {
        let has = POSSESSIONS.map(|(factor, _)| Requirement::from(factor));
        let both = Requirement::all_of([FactorId::PASSWORD.into(), Requirement::one_of(has)]);
        Self {
            id: mfa::KEY.to_owned(),
            passkeys: Requirement::one_of([FactorId::WEBAUTHN.into(), both.clone()]).into(),
            others: both.into(),
        }
    }

    /// Only completions of at most this age count.
    pub fn max_age(self, age: Duration) -> Self {
        let (passkeys, others) = (self.passkeys.max_age(age), self.others.max_age(age));
        Self { passkeys, others, ..self }
    }

    /// Under another id.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }
}

impl ClaimValidator for AalMet {
    fn id(&self) -> &str {
        &self.id
    }

    fn validate(&self, payload: &Payload, now: Timestamp) -> Result<(), InvalidClaim> {
        let done = MfaClaim::from_payload(payload).map(|claim| claim.c).unwrap_or_default();
        let list = if is_passkeys(&done) { &self.passkeys } else { &self.others };
        mfa::met(&self.id, list, &done, payload, now).map_err(|lack| {
            // That not every factor of the profile is installed is no problem.
            let problem = lack.problem.filter(|_| lack.hopeless);
            InvalidClaim { acr: Some(Aal::Two.acr()), problem, ..lack }
        })
    }

    fn refetch(&self, payload: &Payload, _now: Timestamp) -> Option<ClaimRef> {
        mfa::missing(payload)
    }

    fn among(&self, factors: &[FactorId]) -> Option<Arc<dyn ClaimValidator>> {
        let among = |list: &Requirements| list.clone().among(factors.iter().cloned());
        let (passkeys, others) = (among(&self.passkeys), among(&self.others));
        let same = passkeys == self.passkeys && others == self.others;
        (!same).then(|| Arc::new(Self { id: self.id.clone(), passkeys, others }) as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_702_877_939);

    /// Completed in this order, a second apart, the last one now.
    fn done(text: &str) -> CompletedFactors {
        let ids: Vec<&str> = text.split_whitespace().collect();
        let at = |n: usize| NOW - Duration::from_secs((ids.len() - 1 - n) as u64);
        ids.iter().enumerate().map(|(n, id)| (FactorId::parse(id).unwrap(), at(n))).collect()
    }

    fn payload(done: &CompletedFactors) -> Payload {
        let mut payload = Payload::new();
        MfaClaim { c: done.clone(), v: true }.write(&mut payload, &crate::policy::Requirements::none(), NOW);
        payload
    }

    #[test]
    fn sec_o37_the_profile() {
        for (factors, level, methods) in [
            ("", None, ""),
            ("otp-email", None, ""),
            ("link-email otp-email thirdparty own", None, ""),
            ("emailpassword", Some(Aal::One), "pwd"),
            ("totp", Some(Aal::One), "otp"),
            ("otp-phone", Some(Aal::One), "sms"),
            ("thirdparty totp", Some(Aal::One), "otp"),
            ("own emailpassword", Some(Aal::One), "pwd"),
            // E-mail isn't a second factor, and two things that one has aren't either.
            ("emailpassword otp-email link-email", Some(Aal::One), "pwd"),
            ("totp otp-phone link-phone", Some(Aal::One), "otp sms"),
            ("emailpassword totp", Some(Aal::Two), "pwd otp mfa"),
            ("otp-phone emailpassword", Some(Aal::Two), "pwd sms mfa"),
            ("emailpassword otp-phone link-phone", Some(Aal::Two), "pwd sms mfa"),
            ("emailpassword webauthn", Some(Aal::Two), "pwd pop user mfa"),
            ("otp-email emailpassword totp", Some(Aal::Two), "pwd otp mfa"),
            // A passkey that made the session verified its user; one that came later needn't have.
            ("webauthn", Some(Aal::Two), "pop user mfa"),
            ("webauthn otp-email", Some(Aal::Two), "pop user mfa"),
            ("otp-email webauthn", Some(Aal::One), "pop user"),
        ] {
            let done = done(factors);
            assert_eq!(Aal::of(&done), level, "{factors}");
            assert_eq!(amr(&done).join(" "), methods, "{factors}");
        }
        assert!(Aal::Two > Aal::One);
        assert_eq!((Aal::One.to_string().as_str(), Aal::Two.to_string().as_str()), ("AAL1", "AAL2"));
    }

    #[test]
    fn the_guard_says_what_the_label_says() {
        let ids: Vec<&str> = FactorId::BUILT_IN.iter().map(FactorId::as_str).chain(["own"]).collect();
        for picked in 0..1_usize << ids.len() {
            let mut chosen: Vec<&str> =
                (0..ids.len()).filter(|n| picked >> n & 1 == 1).map(|n| ids[n]).collect();
            // Each of them once as the one that made the session.
            let len = chosen.len();
            for _ in 0..len.max(1) {
                let done = done(&chosen.join(" "));
                let passes = AalMet::two().validate(&payload(&done), NOW).is_ok();
                assert_eq!(passes, Aal::of(&done) == Some(Aal::Two), "{chosen:?}");
                chosen.rotate_left(1.min(len));
            }
        }
    }

    #[test]
    fn what_is_asked_for_next() {
        let age = Duration::from_secs(300);
        for (factors, later, next, expired) in [
            ("otp-email", 0, "emailpassword totp otp-phone link-phone webauthn", ""),
            ("emailpassword", 0, "totp otp-phone link-phone webauthn", ""),
            ("webauthn", 301, "webauthn emailpassword totp otp-phone link-phone", "webauthn"),
            ("otp-email totp", 0, "emailpassword", ""),
            (
                "emailpassword totp",
                301,
                "emailpassword totp otp-phone link-phone webauthn",
                "emailpassword totp",
            ),
        ] {
            let lack = AalMet::two()
                .max_age(age)
                .validate(&payload(&done(factors)), NOW + Duration::from_secs(later));
            let lack = lack.unwrap_err();
            let step = lack.next.unwrap();
            let words = |ids: &[FactorId]| ids.iter().map(FactorId::as_str).collect::<Vec<_>>().join(" ");
            assert_eq!(
                (words(&step.factors).as_str(), words(&step.expired).as_str()),
                (next, expired),
                "{factors}"
            );
            assert_eq!((step.max_age, lack.acr), (Some(age), Some("urn:tower-mfa:aal2")), "{factors}");
        }
        assert!(AalMet::two().refetch(&Payload::new(), NOW).is_some());
        assert!(!AalMet::two().satisfied(&Payload::new(), NOW));
    }
}
