//! The audit trail: one event a security decision, in the batch of its effect (row G07); also the receipt
//! by which a commit whose answer got lost is looked up. What is committed is told, by [`Trail`].

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::ending::{Ended, Ending};
pub(crate) use self::trail::{Counts, Inbox, Trail};
use super::{Db, Tx, keys};
use crate::{
    base::{
        error::Error,
        hash,
        ident::{FactorId, SessionHandle, TenantId, UserId},
        random,
        time::Timestamp,
    },
    store::Scan,
};

mod ending;
mod trail;

/// How long an event is kept.
const KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// One security decision: what was decided, about whom, and when. Without secrets: no token, no code, no
/// contact, and of a session's handle a digest alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditEvent {
    /// By the clock that decides.
    pub at: Timestamp,
    /// What was decided.
    pub what: Audited,
    /// The tenant it happened in; `public` for what concerns the app or a user in all tenants.
    pub tenant: TenantId,
    /// The user it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// The session it is about: SHA-256 of its handle, in hexadecimal digits. The trail must not hand out
    /// sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The factor it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<FactorId>,
    /// Which of several cases it was.
    #[serde(default, rename = "kind", skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The country it is about: two capital letters; for numbers of no country, `+` and their first three digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Who sent the request, by the app's own reckoning ([`MfaBuilder::peer`](crate::MfaBuilder::peer)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// How old what was used again is at least: since another one took its place.
    #[serde(default, with = "millis", skip_serializing_if = "Option::is_none")]
    pub age: Option<Duration>,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Audited {
    /// A user was made.
    UserCreated,
    /// A user was deleted, with everything that was only theirs.
    UserDeleted,
    /// A user became part of another one: their login method went there, and everything else that was theirs is gone.
    UserAbsorbed,
    /// An administrator disabled a user: every session of theirs ended.
    UserDisabled,
    /// An administrator lets a user sign in again.
    UserEnabled,
    /// Somebody proved to be a user who is disabled, or asked for a link as one: nothing came of it.
    DisabledRefused,
    /// A session began that has all that is required.
    SignedIn,
    /// A session began with a first factor, where more is asked for (row S13).
    PartlySignedIn,
    /// A factor that the user had was completed in a session.
    FactorCompleted,
    /// A factor that is new to the user was completed in a session: their account can do more now.
    FactorLinked,
    /// A login method was added from outside of a session.
    LoginAdded,
    /// A login method was taken away.
    LoginRemoved,
    /// A code was wrong.
    WrongCode,
    /// A password was wrong, or nobody signs in by that name.
    WrongPassword,
    /// Too many wrong codes: the user's guesses of this factor rest.
    LockedOut,
    /// A hundred wrong codes without a right one: guesses of this factor are refused until that is lifted. Without
    /// a user if it was about a contact that began a sign-in.
    FactorBlocked,
    /// Such a block was lifted: by an administrator, or because its user completed two other factors.
    FactorUnblocked,
    /// Codes sent by SMS to a country weren't used: nothing more is sent there for a while. Look at it at once:
    /// either somebody makes money by asking for codes, or messages there arrive nowhere.
    SendingStopped,
    /// An administrator lets messages to a country be sent again.
    SendingResumed,
    /// The user is told that somebody tries codes in their account: five were wrong, or their guesses rest (row O35).
    SuspiciousAttempts,
    /// Somebody signed in by a kind of browser or app that the user hadn't signed in by before.
    NewDevice,
    /// A message was not delivered and won't be: no later try can succeed, there were five, or it is too late for it
    /// (row V02).
    DeliveryFailed,
    /// A session's user may not have a code sent there, or not use it.
    DestinationRefused,
    /// What was proved is right and may not be used by this session now.
    FactorRefused,
    /// A session met what is required of it; it didn't before.
    RequirementsMet,
    /// A session doesn't meet what is required of it any more.
    RequirementsUnmet,
    /// A session was kept out of a route for a claim. Told to the sink, never stored: anybody with half a
    /// session could fill the store.
    AccessRefused,
    /// New tokens were given for a refresh token.
    Refreshed,
    /// A refresh token was used by two: the session is over.
    RefreshReuse,
    /// A refresh token of before an elevation came too late: the session is over.
    PreElevationReuse,
    /// One session ended.
    SessionRevoked,
    /// All sessions of a user ended, or all but one; without a user: all there were.
    SessionsRevoked,
    /// A user's roles in a tenant changed.
    RolesChanged,
    /// A tenant was made.
    TenantCreated,
    /// What a tenant asks for changed, or whether it serves anybody.
    TenantChanged,
    /// A tenant was deleted, with everything that was only its.
    TenantDeleted,
    /// A factor is asked of a user from now on.
    OptedIn,
    /// A factor is asked of a user no more.
    OptedOut,
    /// A link to set a new password was asked for; without a user if nobody signs in by that name.
    PasswordResetAsked,
    /// Such a link was refused: the address isn't proved, and its user has other contacts (row L08).
    PasswordResetRefused,
    /// A password was set by such a link. Every session of the user ended.
    PasswordReset,
    /// A user changed their password within a session. Every other one ended.
    PasswordChanged,
    /// An address was proved by a link.
    EmailVerified,
    /// A user asked for another address; nothing changes until it is proved.
    EmailChangeAsked,
    /// A login method has another address, which was proved.
    EmailChanged,
    /// A stored password hash can't be read.
    PasswordHashUnreadable,
    /// A signing key was published that will take over.
    KeysRotated,
    /// A signing key was taken out for ever.
    KeyRevoked,
}

impl Audited {
    /// Whether somebody was wrong, caught or locked out, or something is broken: what an operator wants to see
    /// first. Not that a session lacks a claim, as every other one does between two factors.
    pub fn is_alarming(self) -> bool {
        matches!(
            self,
            Self::WrongCode
                | Self::WrongPassword
                | Self::LockedOut
                | Self::FactorBlocked
                | Self::SendingStopped
                | Self::SuspiciousAttempts
                | Self::DeliveryFailed
                | Self::DestinationRefused
                | Self::FactorRefused
                | Self::DisabledRefused
                | Self::RefreshReuse
                | Self::PreElevationReuse
                | Self::PasswordHashUnreadable
                | Self::PasswordResetRefused
                | Self::KeyRevoked
        )
    }
}

/// Why: which of several cases an event, or the end of a session, was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cause {
    /// The refresh token before the current one was used again.
    Recent,
    /// An earlier refresh token was used again.
    Older,
    /// Somebody asked for it: a sign-out, the app, an administrator.
    Asked,
    /// A refresh token was used by two.
    Theft,
    /// The answer to an elevation was lost.
    LostElevation,
    /// Its time was over, or its user or tenant is gone.
    Over,
    /// Another session began in the same browser.
    SignedInAnew,
    /// The user had more sessions than are allowed.
    TooMany,
    /// What the user signs in with changed (row S09).
    FactorsChanged,
    /// The account was taken into another one, or deleted.
    UserGone,
    /// The account was disabled.
    Disabled,
    /// The provider said that no later try can succeed.
    Refused,
    /// It was tried five times.
    TriedOften,
    /// It came to its end before it could be delivered.
    TooLate,
}

/// An event as it is being put together.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    record: AuditEvent,
    /// The session itself: for the app's hook, never for the trail.
    handle: Option<SessionHandle>,
}

impl Event {
    pub(crate) fn new(what: Audited, tenant: &TenantId) -> Self {
        let (at, tenant) = (Timestamp::EPOCH, tenant.clone());
        let (user, session, factor, cause) = (None, None, None, None);
        let (country, ip, age) = (None, None, None);
        let record = AuditEvent { at, what, tenant, user, session, factor, cause, country, ip, age };
        Self { record, handle: None }
    }

    pub(crate) fn user(mut self, user: &UserId) -> Self {
        self.record.user = Some(user.clone());
        self
    }

    pub(crate) fn session(mut self, handle: &SessionHandle) -> Self {
        self.record.session = Some(hash::sha256_hex(handle.as_str().as_bytes()));
        self.handle = Some(handle.clone());
        self
    }

    pub(crate) fn cause(mut self, cause: Cause) -> Self {
        self.record.cause = Some(cause);
        self
    }

    #[cfg(feature = "phone")]
    pub(crate) fn country(mut self, country: &str) -> Self {
        self.record.country = Some(country.to_owned());
        self
    }

    pub(crate) fn peer(mut self, ip: Option<IpAddr>) -> Self {
        self.record.ip = ip;
        self
    }

    /// How long after another one took its place a credential was used again.
    pub(crate) fn age(mut self, age: Duration) -> Self {
        self.record.age = Some(age);
        self
    }

    pub(crate) fn factor(mut self, factor: &FactorId) -> Self {
        self.record.factor = Some(factor.clone());
        self
    }

    /// The end of sessions that this event is, if it is one.
    fn ending(&self) -> Option<Ending> {
        let (what, user, handle) = (self.record.what, self.record.user.clone(), self.handle.clone());
        let (ended, cause) = match what {
            Audited::SessionRevoked => (Ended::of_one(user, handle)?, self.record.cause?),
            Audited::RefreshReuse => (Ended::of_one(user, handle)?, Cause::Theft),
            Audited::PreElevationReuse => (Ended::of_one(user, handle)?, Cause::LostElevation),
            Audited::SessionsRevoked => {
                let ended = match user {
                    Some(user) => Ended::OfUser { user, but: handle },
                    None => Ended::All,
                };
                (ended, self.record.cause?)
            }
            _ => return None,
        };
        Some(Ending { at: self.record.at, ended, cause })
    }
}

/// Stages an event, which is from now on the batch's receipt.
pub(crate) fn stage(tx: &mut Tx, mut event: Event) -> Result<(), Error> {
    event.record.at = tx.now();
    let key = keys::audit(event.record.at, &random::token()?);
    tx.insert_new(key.clone(), &event.record, Some(event.record.at + KEPT))?;
    tx.set_receipt(key, event);
    Ok(())
}

/// Writes an event that has no other effect.
pub(crate) async fn note(db: &Db, event: Event) -> Result<(), Error> {
    let event = &event;
    db.transact(db.now().as_millis(), |mut tx| async move {
        stage(&mut tx, event.clone())?;
        tx.commit(())
    })
    .await
}

/// The trail from a time on, oldest first; at most 1000 events.
pub(crate) async fn since(db: &Db, time: Timestamp) -> Result<Vec<AuditEvent>, Error> {
    let scan = Scan::under(keys::audits()).after(keys::audit(time, ""));
    Ok(db.scan(&scan).await?.into_iter().map(|(_, event)| event).collect())
}

/// Whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(age: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match age {
            Some(age) => to.serialize_u64(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::{trail::WAITING, *};

    fn handle() -> SessionHandle {
        SessionHandle::parse("00000000-0000-4000-8000-000000000000").unwrap()
    }

    fn refused() -> Event {
        Event::new(Audited::AccessRefused, &TenantId::PUBLIC)
    }

    #[test]
    fn sec_g07_a_record_reads_back_and_holds_no_handle() {
        let event = Event::new(Audited::RefreshReuse, &TenantId::PUBLIC)
            .user(&UserId::parse("alice").unwrap())
            .session(&handle())
            .factor(&FactorId::TOTP)
            .cause(Cause::Recent)
            .peer(Some(IpAddr::from([192, 0, 2, 7])))
            .age(Duration::from_millis(40_001));
        let text = serde_json::to_string(&event.record).unwrap();
        assert!(!text.contains(handle().as_str()), "{text}");
        assert!(!format!("{:?}", event.record).contains(handle().as_str()));
        assert_eq!(serde_json::from_str::<AuditEvent>(&text).unwrap(), event.record);
        let bare = serde_json::to_string(&refused().record).unwrap();
        assert_eq!(bare, r#"{"at":0,"what":"access-refused","tenant":"public"}"#);
        assert_eq!(serde_json::from_str::<AuditEvent>(&bare).unwrap(), refused().record);
    }

    #[test]
    fn what_is_stored_nowhere_gives_way() {
        let (trail, mut inbox) = Trail::new();
        for _ in 0..2 * WAITING {
            trail.mention(refused(), Timestamp::EPOCH);
        }
        let dropped = || trail.counts.dropped.load(Ordering::Relaxed);
        assert_eq!(dropped(), (2 * WAITING - WAITING / 2) as u64);
        // There is room for what counts, until that fills the queue itself.
        trail.tell(vec![Event::new(Audited::SignedIn, &TenantId::PUBLIC); WAITING / 2]);
        assert_eq!(dropped(), (2 * WAITING - WAITING / 2) as u64);
        trail.tell(vec![Event::new(Audited::SignedIn, &TenantId::PUBLIC); 3]);
        assert_eq!(dropped(), (2 * WAITING - WAITING / 2 + 3) as u64);
        assert_eq!(trail.counts.waiting.load(Ordering::SeqCst), WAITING as u64);
        let mut got = 0;
        while inbox.events.try_recv().is_ok() {
            got += 1;
        }
        assert_eq!(got, WAITING);
    }
}
