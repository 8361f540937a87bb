//! Codes and links: to what, in which form, for whom (`spec/wire.md` §7.1).

use std::{borrow::Cow, fmt, sync::Arc};

#[cfg(feature = "phone")]
use crate::base::{contact::Phone, error::ConfigError, phone};
use crate::base::{
    contact::{self, Contact, Email},
    ident::FactorId,
};

/// What a message holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlowType {
    /// A code to type.
    #[default]
    UserInputCode,
    /// A link to open.
    MagicLink,
    /// Both.
    UserInputCodeAndMagicLink,
}

/// One-time codes and magic links: the contacts they go to, and their form.
///
/// Both may begin a sign-in. Within a session it is always a code: a second factor has to arrive where the first
/// one was given.
///
/// ```
/// use tower_mfa::config::{FlowType, Passwordless};
/// let codes_by_mail = Passwordless::email();
/// let links_for_members = Passwordless::email().flow(FlowType::MagicLink).without_sign_up();
/// ```
#[derive(Clone)]
#[must_use]
pub struct Passwordless {
    email: bool,
    #[cfg(feature = "phone")]
    countries: Option<Countries>,
    flow: FlowType,
    sign_up: bool,
    check_email: Option<Check<Email>>,
    #[cfg(feature = "phone")]
    check_phone: Option<Check<Phone>>,
}

type Check<T> = Arc<dyn Fn(&T) -> Result<(), Cow<'static, str>> + Send + Sync>;

impl Passwordless {
    /// By e-mail.
    pub fn email() -> Self {
        Self { email: true, ..Self::off() }
    }

    /// By SMS, to the mobile numbers of these countries.
    #[cfg(feature = "phone")]
    pub fn phone(countries: Countries) -> Self {
        Self { countries: Some(countries), ..Self::off() }
    }

    /// By either, as the user chooses.
    #[cfg(feature = "phone")]
    pub fn email_or_phone(countries: Countries) -> Self {
        Self { email: true, ..Self::phone(countries) }
    }

    /// Neither: nothing is ever sent.
    pub(crate) fn off() -> Self {
        Self {
            email: false,
            #[cfg(feature = "phone")]
            countries: None,
            flow: FlowType::default(),
            sign_up: true,
            check_email: None,
            #[cfg(feature = "phone")]
            check_phone: None,
        }
    }

    /// What a message that begins a sign-in holds. Default: a code.
    pub fn flow(mut self, flow: FlowType) -> Self {
        self.flow = flow;
        self
    }

    /// Only those sign in who have an account already. To anybody else the answers are the same and nothing is
    /// sent (row O24).
    pub fn without_sign_up(mut self) -> Self {
        self.sign_up = false;
        self
    }

    /// Besides, asks the app about an address, by its canonical form; the error is shown to the user. It can only
    /// refuse: what isn't an address by [`Email`]'s rule never gets here.
    pub fn check_email(
        mut self,
        check: impl Fn(&Email) -> Result<(), Cow<'static, str>> + Send + Sync + 'static,
    ) -> Self {
        self.check_email = Some(Arc::new(check));
        self
    }

    /// Besides, asks the app about a number, by its E.164 form; the error is shown to the user. It can only refuse.
    #[cfg(feature = "phone")]
    pub fn check_phone(
        mut self,
        check: impl Fn(&Phone) -> Result<(), Cow<'static, str>> + Send + Sync + 'static,
    ) -> Self {
        self.check_phone = Some(Arc::new(check));
        self
    }

    /// Whether anything is ever sent.
    pub(crate) fn is_on(&self) -> bool {
        self.email || self.phones()
    }

    /// Whether those without an account get one.
    pub(crate) fn signs_up(&self) -> bool {
        self.sign_up
    }

    /// The factors that this makes, in the order in which they are advertised.
    pub(crate) fn factors(&self) -> Vec<FactorId> {
        let (code, link) = (self.flow != FlowType::MagicLink, self.flow != FlowType::UserInputCode);
        [
            (code && self.email, FactorId::OTP_EMAIL),
            (code && self.phones(), FactorId::OTP_PHONE),
            (link && self.email, FactorId::LINK_EMAIL),
            (link && self.phones(), FactorId::LINK_PHONE),
        ]
        .into_iter()
        .filter_map(|(on, factor)| on.then_some(factor))
        .collect()
    }

    /// Those of them that a message to this contact completes.
    pub(crate) fn factors_to(&self, contact: &Contact) -> Vec<FactorId> {
        let ids = match contact {
            Contact::Email(_) => [FactorId::OTP_EMAIL, FactorId::LINK_EMAIL],
            Contact::Phone(_) => [FactorId::OTP_PHONE, FactorId::LINK_PHONE],
        };
        self.factors().into_iter().filter(|factor| ids.contains(factor)).collect()
    }

    /// Reads an address as it was sent.
    pub(crate) fn read_email(&self, text: &str) -> Result<Contact, Unfit> {
        if !self.email {
            return Err(Unfit::NotServed("codes by e-mail are not switched on: send a phoneNumber"));
        }
        let email = Email::parse(text).ok().filter(|email| !contact::is_fake(email));
        let email = email.ok_or_else(|| Unfit::Invalid("Email is invalid".into()))?;
        self.check_email.as_ref().map_or(Ok(()), |check| check(&email)).map_err(Unfit::Invalid)?;
        Ok(email.into())
    }

    /// Reads a number as it was sent (rows O28, O31).
    #[cfg(feature = "phone")]
    pub(crate) fn read_phone(&self, text: &str) -> Result<Contact, Unfit> {
        let invalid = || Unfit::Invalid("Phone number is invalid".into());
        let Some(countries) = &self.countries else { return Err(NO_PHONES) };
        let phone = Phone::from_typed(text).map_err(|_| invalid())?;
        if !phone.is_mobile() {
            return Err(invalid());
        }
        if !countries.serve(&phone) {
            return Err(Unfit::Invalid("Codes can't be sent to phone numbers of this country".into()));
        }
        self.check_phone.as_ref().map_or(Ok(()), |check| check(&phone)).map_err(Unfit::Invalid)?;
        Ok(phone.into())
    }

    #[cfg(not(feature = "phone"))]
    pub(crate) fn read_phone(&self, _: &str) -> Result<Contact, Unfit> {
        Err(NO_PHONES)
    }

    /// Whether codes go to a contact now: one that was read some time ago, or by another node, may be one of a country
    /// that isn't allowed any more (row N06).
    pub(crate) fn serves(&self, contact: &Contact) -> bool {
        let read = match contact {
            Contact::Email(email) => self.read_email(email.as_str()),
            Contact::Phone(phone) => self.read_phone(phone.as_str()),
        };
        read.is_ok()
    }

    #[cfg(feature = "phone")]
    pub(crate) fn phones(&self) -> bool {
        self.countries.is_some()
    }

    #[cfg(not(feature = "phone"))]
    pub(crate) fn phones(&self) -> bool {
        false
    }
}

const NO_PHONES: Unfit = Unfit::NotServed("codes by SMS are not switched on: send an email");

/// Why nothing is sent there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Not a kind of contact that this app uses.
    NotServed(&'static str),
    /// What the user may be told.
    Invalid(Cow<'static, str>),
}

impl fmt::Debug for Passwordless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwordless").field("factors", &self.factors()).finish_non_exhaustive()
    }
}

/// The countries whose mobile numbers get messages. There is no default: each message costs money, and bots ask
/// for them in ranges that pay their owner (row O28).
#[cfg(feature = "phone")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Countries(Option<Vec<String>>);

#[cfg(feature = "phone")]
impl Countries {
    /// These, each as two capital letters (ISO 3166-1 alpha-2).
    ///
    /// ```
    /// use tower_mfa::config::{Countries, Passwordless};
    /// let codes_by_sms = Passwordless::phone(Countries::only(["DE", "HU"])?);
    /// assert!(Countries::only(["Hungary"]).is_err());
    /// # Ok::<(), tower_mfa::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// Those that are no country, and an empty list.
    pub fn only<'a>(countries: impl IntoIterator<Item = &'a str>) -> Result<Self, ConfigError> {
        let listed: Vec<String> = countries.into_iter().map(str::to_owned).collect();
        let unknown = listed.iter().filter(|letters| !phone::is_country(letters));
        let mut problems: Vec<String> = unknown
            .map(|letters| format!("{letters:?} is no country: name it by two capital letters, as HU"))
            .collect();
        if listed.is_empty() {
            problems.push("the list of countries is empty: then no number gets a code".to_owned());
        }
        ConfigError::all(problems)?;
        Ok(Self(Some(listed)))
    }

    /// Every country there is, the expensive ones as well.
    pub fn all() -> Self {
        Self(None)
    }

    fn serve(&self, phone: &Phone) -> bool {
        let Some(listed) = &self.0 else { return true };
        phone.country().is_some_and(|country| listed.contains(&country))
    }
}

#[cfg(feature = "phone")]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_and_flow_make_the_factors() {
        use FlowType::{MagicLink, UserInputCode, UserInputCodeAndMagicLink};
        let all = Countries::all;
        let table = [
            (Passwordless::off(), UserInputCode, ""),
            (Passwordless::email(), UserInputCode, "otp-email"),
            (Passwordless::email(), MagicLink, "link-email"),
            (Passwordless::email(), UserInputCodeAndMagicLink, "otp-email link-email"),
            (Passwordless::phone(all()), UserInputCode, "otp-phone"),
            (Passwordless::phone(all()), MagicLink, "link-phone"),
            (
                Passwordless::email_or_phone(all()),
                UserInputCodeAndMagicLink,
                "otp-email otp-phone link-email link-phone",
            ),
        ];
        for (passwordless, flow, want) in table {
            let factors = passwordless.flow(flow).factors();
            let ids: Vec<&str> = factors.iter().map(FactorId::as_str).collect();
            assert_eq!(ids.join(" "), want);
        }
    }

    #[test]
    fn sec_o28_only_mobiles_of_the_countries_listed() {
        let here = Passwordless::phone(Countries::only(["HU"]).unwrap());
        let said = |text: &str| here.read_phone(text).map(|contact| contact.as_str().to_owned());
        assert_eq!(said("+36 30 111 1111").unwrap(), "+36301111111");
        for (text, message) in [
            ("+4915112345678", "Codes can't be sent to phone numbers of this country"),
            ("+3612345678", "Phone number is invalid"),
            ("+3690123456", "Phone number is invalid"),
            ("112", "Phone number is invalid"),
        ] {
            assert_eq!(said(text), Err(Unfit::Invalid(message.into())), "{text}");
        }
        Passwordless::phone(Countries::all()).read_phone("+4915112345678").unwrap();
        assert!(matches!(here.read_email("a@shop.example"), Err(Unfit::NotServed(_))));
        assert!(matches!(Passwordless::email().read_phone("+36301111111"), Err(Unfit::NotServed(_))));
        assert_eq!(Countries::only(["hu", "HU", "XX"]).unwrap_err().problems().len(), 2);
        Countries::only([]).unwrap_err();
    }

    #[test]
    fn the_apps_own_checks_refuse_and_never_admit() {
        let members = Passwordless::email_or_phone(Countries::all())
            .check_email(|email| match email.as_str().ends_with("@shop.example") {
                true => Ok(()),
                false => Err("Use your address at the shop".into()),
            })
            .check_phone(|_| Err("Not today".into()));
        members.read_email("A@Shop.Example").unwrap();
        let refused = |text: &'static str| Err(Unfit::Invalid(text.into()));
        assert_eq!(members.read_email("a@else.example"), refused("Use your address at the shop"));
        assert_eq!(members.read_email("a"), refused("Email is invalid"));
        assert_eq!(members.read_phone("+36301111111"), refused("Not today"));
    }
}
