//! The ways to prove who one is: each factor's own rules, as functions of values and `now`.

pub(crate) use self::proof::{Bound, Credential, accepted};
#[cfg(feature = "third-party")]
pub use self::third_party::{OAuth2Endpoints, Provider, ProviderClient, ThirdParty};
pub use self::{
    contacts::Contacts,
    overview::Overview,
    proof::{Proof, danger},
};
#[cfg(feature = "password")]
pub use self::{
    form::{BreachedPasswords, FormField},
    password::PasswordRules,
};
use crate::{
    base::{contact, distinct, ident::FactorId},
    model::user::{LoginKind, LoginMethod, User},
};

mod contacts;
#[cfg(feature = "password")]
pub(crate) mod form;
pub(crate) mod otp;
mod overview;
#[cfg(feature = "password")]
pub(crate) mod password;
mod proof;
#[cfg(feature = "third-party")]
pub(crate) mod third_party;

/// The factors of an app, in the order in which they were installed: what of them a user has, and what of
/// them can be done at all. Plain values in, plain values out.
///
/// ```
/// use tower_mfa::{
///     FactorId,
///     account::{LoginKind, LoginMethod, User},
///     factor::{Device, Enrolled, Factors},
///     ident::{LoginId, Timestamp, UserId},
/// };
/// let factors = Factors::new([FactorId::PASSWORD, FactorId::TOTP, FactorId::THIRD_PARTY]);
/// let login = LoginMethod::new(LoginId::parse("alice")?, LoginKind::EmailPassword, Timestamp::EPOCH);
/// let alice = User::new(UserId::parse("alice")?, vec![login]);
/// assert_eq!(factors.available(), [FactorId::PASSWORD, FactorId::TOTP]);
/// assert_eq!(factors.set_up(Enrolled::from(&alice)), [FactorId::PASSWORD]);
/// let devices = [Device::new("phone", true)];
/// assert_eq!(factors.set_up(Enrolled { user: &alice, devices: &devices }), factors.available());
/// # Ok::<(), tower_mfa::ident::ParseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Factors {
    installed: Vec<FactorId>,
    custom: Vec<FactorId>,
    masks: bool,
}

/// What a user can prove something with.
#[derive(Clone, Copy, Debug)]
pub struct Enrolled<'a> {
    /// The user, with login methods.
    pub user: &'a User,
    /// Their authenticator apps.
    pub devices: &'a [Device],
}

/// An authenticator app of a user's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// What the user calls it.
    pub name: String,
    /// Whether a code of it was checked once: before that it counts for nothing.
    pub verified: bool,
}

impl Device {
    /// A device by this name.
    pub fn new(name: impl Into<String>, verified: bool) -> Self {
        Self { name: name.into(), verified }
    }
}

/// Without authenticator apps.
impl<'a> From<&'a User> for Enrolled<'a> {
    fn from(user: &'a User) -> Self {
        Self { user, devices: &[] }
    }
}

impl Factors {
    /// Of these factors.
    pub fn new(installed: impl IntoIterator<Item = FactorId>) -> Self {
        Self { installed: installed.into_iter().collect(), custom: Vec::new(), masks: false }
    }

    /// With factors of the app's own, which the app itself checks.
    pub fn with_custom(mut self, custom: impl IntoIterator<Item = FactorId>) -> Self {
        self.custom.extend(custom);
        self
    }

    /// Shows contacts only in part, whatever was completed.
    pub fn masking_contacts(mut self) -> Self {
        self.masks = true;
        self
    }

    /// The ids that may start a session where neither tenant nor app has a list.
    pub(crate) fn first(&self) -> Vec<FactorId> {
        self.installed.iter().filter(|id| **id != FactorId::TOTP).cloned().collect()
    }

    /// The ids that may be completed within a session. A third party's sign-in only starts one.
    pub fn available(&self) -> Vec<FactorId> {
        self.installed.iter().filter(|id| **id != FactorId::THIRD_PARTY).cloned().collect()
    }

    /// The ids that can be completed within a session at all: what is available, and the app's own. To a contact
    /// it is always a code there, whatever begins a sign-in (wire, 7.1).
    pub fn usable(&self) -> Vec<FactorId> {
        distinct(self.available().into_iter().map(in_session).chain(self.custom.iter().cloned()))
    }

    /// Whether a policy may name it (row P10).
    pub(crate) fn knows(&self, factor: &FactorId) -> bool {
        factor.is_built_in() || self.custom.contains(factor)
    }

    /// The available factors for which a user has a credential.
    pub fn set_up(&self, enrolled: Enrolled<'_>) -> Vec<FactorId> {
        let bound = self.bound(enrolled);
        self.available().into_iter().filter(|id| bound.contains(id)).collect()
    }

    /// What must be used once it is there: [`Factors::set_up`], and every other id of a contact's channel,
    /// whatever flow is switched on. A contact that was proved is bound however it was proved.
    pub(crate) fn bound(&self, enrolled: Enrolled<'_>) -> Vec<FactorId> {
        let mut ids: Vec<FactorId> = Vec::new();
        for id in self.available().into_iter().flat_map(channel) {
            let has = || match () {
                () if id == FactorId::TOTP => enrolled.devices.iter().any(|device| device.verified),
                () => enrolled.user.logins.iter().any(|login| proves(login, &id)),
            };
            if !ids.contains(&id) && has() {
                ids.push(id);
            }
        }
        ids
    }
}

/// What a second factor over the channel of this one is.
pub(crate) fn in_session(id: FactorId) -> FactorId {
    match () {
        () if id == FactorId::LINK_EMAIL => FactorId::OTP_EMAIL,
        () if id == FactorId::LINK_PHONE => FactorId::OTP_PHONE,
        () => id,
    }
}

/// A factor, and the other one over its channel.
fn channel(id: FactorId) -> Vec<FactorId> {
    let twin = match () {
        () if id == FactorId::OTP_EMAIL => Some(FactorId::LINK_EMAIL),
        () if id == FactorId::LINK_EMAIL => Some(FactorId::OTP_EMAIL),
        () if id == FactorId::OTP_PHONE => Some(FactorId::LINK_PHONE),
        () if id == FactorId::LINK_PHONE => Some(FactorId::OTP_PHONE),
        () => None,
    };
    [id].into_iter().chain(twin).collect()
}

/// Whether a login method is a credential for a factor.
pub(crate) fn proves(login: &LoginMethod, factor: &FactorId) -> bool {
    let email = || login.email.as_ref().is_some_and(|email| !contact::is_fake(email));
    match login.kind {
        LoginKind::EmailPassword => *factor == FactorId::PASSWORD,
        LoginKind::ThirdParty => *factor == FactorId::THIRD_PARTY,
        LoginKind::WebAuthn => *factor == FactorId::WEBAUTHN,
        // Of the app's own, what the app says where codes go.
        LoginKind::Passwordless | LoginKind::External => match () {
            () if *factor == FactorId::OTP_EMAIL || *factor == FactorId::LINK_EMAIL => email(),
            () if *factor == FactorId::OTP_PHONE || *factor == FactorId::LINK_PHONE => login.phone.is_some(),
            () => false,
        },
    }
}
