//! Identifiers, each a type of its own, built by parsing and compared as bytes (rows J18, N02).

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    error::{Error, ParseError},
    random,
};

/// A string that is an identifier: parsing, reading, serialising, in one place.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident($repr:ty), $what:literal, $check:path, $own:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($repr);

        impl $name {
            /// Reads the text form.
            ///
            /// # Errors
            /// If the text breaks the rule stated on the type.
            pub fn parse(text: &str) -> Result<Self, ParseError> {
                if $check(text) { Ok(Self($own(text))) } else { Err(ParseError::new($what)) }
            }

            /// The text form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                Self::parse(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(D::Error::custom)
            }
        }
    };
}

identifier! {
    /// A user: one person, one or more login methods. 1 to 128 bytes, no control characters.
    ///
    /// The crate makes version 4 UUIDs; an app that has users of its own uses their ids.
    UserId(Arc<str>), "user id", opaque, Arc::from
}

identifier! {
    /// A login method of a user (the wire's *recipe user id*). Same form as [`UserId`].
    LoginId(Arc<str>), "login id", opaque, Arc::from
}

identifier! {
    /// A tenant: 1 to 64 of `a-z`, `0-9` and `-` (row N02).
    TenantId(Cow<'static, str>), "tenant id", tenant, known_tenant
}

identifier! {
    /// A session: a version 4 UUID, followed by `_` and the tenant unless that is `public`.
    SessionHandle(Arc<str>), "session handle", handle, Arc::from
}

identifier! {
    /// A factor: one of the eight of the wire, or an app's own. At most 64 bytes, no control characters.
    ///
    /// It is opaque: never trimmed, never folded. An odd one, even the empty one, can be demanded and is
    /// then simply never completed; ids that no method offers are reported where they are configured.
    FactorId(Cow<'static, str>), "factor id", factor, owned
}

identifier! {
    /// A role of a user in a tenant. 1 to 128 bytes, no control characters.
    Role(Arc<str>), "role", opaque, Arc::from
}

identifier! {
    /// What a role allows, by the app's own name for it: `orders:read`. 1 to 128 bytes, no control characters.
    Permission(Arc<str>), "permission", opaque, Arc::from
}

impl LoginId {
    /// # Errors
    /// If the operating system gives no randomness.
    pub(crate) fn random() -> Result<Self, Error> {
        Ok(Self(random::uuid()?.into()))
    }

    /// The login of a user that is linked to no other: both carry one id.
    pub(crate) fn only_one_of(user: &UserId) -> Self {
        Self(Arc::clone(&user.0))
    }

    /// The user that this login is while it is linked to no other: both carry one id.
    pub(crate) fn alone(&self) -> UserId {
        UserId(Arc::clone(&self.0))
    }
}

impl TenantId {
    /// The tenant that exists from the start.
    pub const PUBLIC: Self = Self(Cow::Borrowed("public"));

    /// Whether this is [`TenantId::PUBLIC`].
    pub fn is_public(&self) -> bool {
        *self == Self::PUBLIC
    }
}

impl Default for TenantId {
    fn default() -> Self {
        Self::PUBLIC
    }
}

impl SessionHandle {
    /// # Errors
    /// If the operating system gives no randomness.
    pub(crate) fn random(tenant: &TenantId) -> Result<Self, Error> {
        let mut text = random::uuid()?;
        if !tenant.is_public() {
            text.push('_');
            text.push_str(tenant.as_str());
        }
        Ok(Self(text.into()))
    }

    /// Whether the session belongs to this tenant.
    pub(crate) fn is_of(&self, tenant: &TenantId) -> bool {
        self.own_tenant().unwrap_or(TenantId::PUBLIC.as_str()) == tenant.as_str()
    }

    /// The tenant the session belongs to.
    pub fn tenant(&self) -> TenantId {
        self.own_tenant().map_or(TenantId::PUBLIC, |tenant| TenantId(owned(tenant)))
    }

    /// The tenant as the text names it: none if it is [`TenantId::PUBLIC`].
    fn own_tenant(&self) -> Option<&str> {
        self.0.get(UUID + 1..)
    }
}

impl FactorId {
    /// A password.
    pub const PASSWORD: Self = Self(Cow::Borrowed("emailpassword"));
    /// A third party's sign-in (OpenID Connect, OAuth 2).
    pub const THIRD_PARTY: Self = Self(Cow::Borrowed("thirdparty"));
    /// A code by e-mail.
    pub const OTP_EMAIL: Self = Self(Cow::Borrowed("otp-email"));
    /// A code by SMS.
    pub const OTP_PHONE: Self = Self(Cow::Borrowed("otp-phone"));
    /// A link by e-mail.
    pub const LINK_EMAIL: Self = Self(Cow::Borrowed("link-email"));
    /// A link by SMS.
    pub const LINK_PHONE: Self = Self(Cow::Borrowed("link-phone"));
    /// An authenticator app (RFC 6238).
    pub const TOTP: Self = Self(Cow::Borrowed("totp"));
    /// A passkey (WebAuthn).
    pub const WEBAUTHN: Self = Self(Cow::Borrowed("webauthn"));

    /// The eight ids that the wire knows, in its order.
    pub const BUILT_IN: [Self; 8] = [
        Self::PASSWORD,
        Self::THIRD_PARTY,
        Self::OTP_EMAIL,
        Self::OTP_PHONE,
        Self::LINK_EMAIL,
        Self::LINK_PHONE,
        Self::TOTP,
        Self::WEBAUTHN,
    ];

    /// Whether the wire knows this id; any other is an app's own factor.
    pub fn is_built_in(&self) -> bool {
        Self::BUILT_IN.contains(self)
    }
}

impl Role {
    /// The role that the built-in examples ask for.
    pub fn admin() -> Self {
        Self("admin".into())
    }
}

fn owned(text: &str) -> Cow<'static, str> {
    Cow::Owned(text.to_owned())
}

/// Most tokens are of the tenant whose name is known.
fn known_tenant(text: &str) -> Cow<'static, str> {
    if text == TenantId::PUBLIC.as_str() { TenantId::PUBLIC.0 } else { owned(text) }
}

fn opaque(text: &str) -> bool {
    (1..=128).contains(&text.len()) && !has_control(text)
}

/// Most texts are plain ASCII, which is told without decoding them.
fn has_control(text: &str) -> bool {
    !every(text, |b| matches!(b, b' '..=b'~')) && text.chars().any(char::is_control)
}

/// Whether all bytes pass. Looks at every one of them, so that the compiler can take many at a time.
pub(crate) fn every(text: &str, pass: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(true, |so_far, byte| so_far & pass(byte))
}

fn tenant(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn factor(text: &str) -> bool {
    text.len() <= 64 && !has_control(text)
}

/// Length of a UUID's text form.
const UUID: usize = 36;

fn handle(text: &str) -> bool {
    let Some((uuid, rest)) = text.split_at_checked(UUID) else { return false };
    uuid4(uuid) && (rest.is_empty() || rest.strip_prefix('_').is_some_and(|id| tenant(id) && id != "public"))
}

/// Whether a text of that length is a UUID of version 4.
fn uuid4(text: &str) -> bool {
    // `h` stands for a hexadecimal digit.
    let form = b"hhhhhhhh-hhhh-4hhh-hhhh-hhhhhhhhhhhh";
    text.bytes()
        .zip(form)
        .fold(true, |so_far, (byte, form)| so_far & if *form == b'h' { is_hex(byte) } else { byte == *form })
}

/// Lower case.
pub(crate) fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_are_lower_case_words() {
        for good in ["public", "a", "t-1", &"x".repeat(64)] {
            assert!(TenantId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a_b", "a.b", "..", "a/b", "ä", "a b", &"x".repeat(65)] {
            assert!(TenantId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn handles_carry_their_tenant() {
        let shop = TenantId::parse("shop-1").unwrap();
        let handle = SessionHandle::random(&shop).unwrap();
        assert_eq!(SessionHandle::parse(handle.as_str()).unwrap().tenant(), shop);
        assert_eq!(SessionHandle::random(&TenantId::PUBLIC).unwrap().tenant(), TenantId::PUBLIC);
        for bad in [
            "",
            "x",
            "00000000-0000-4000-8000-00000000000",
            "00000000-0000-4000-8000-000000000000_",
            "00000000-0000-4000-8000-000000000000_public",
            "00000000-0000-4000-8000-000000000000_a_b",
            "00000000-0000-1000-8000-000000000000",
            "00000000-0000-4000-8000-00000000000A",
            "00000000-0000-4000-80000-00000000000",
            "00000000-0000-4000-8000-00000000-000",
            "00000000-00004-000-8000-000000000000",
            "00000000-0000-4000-8000-00000000000g",
            "00000000-0000-4000-8000-0000000000000",
            "00000000-0000-4000-8000-000000000000-shop",
            "00000000-0000-4000-8000-00000000000ä",
        ] {
            assert!(SessionHandle::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn factor_ids_compare_as_bytes() {
        assert_eq!(FactorId::parse("otp-email").unwrap(), FactorId::OTP_EMAIL);
        assert_ne!(FactorId::parse("OTP-email").unwrap(), FactorId::OTP_EMAIL);
        assert_ne!(FactorId::parse(" otp-email").unwrap(), FactorId::OTP_EMAIL);
        for odd in ["", " ", "фактор-1", "constructor"] {
            assert_eq!(FactorId::parse(odd).unwrap().as_str(), odd);
        }
        for bad in ["a\nb", "\u{7f}", &"x".repeat(65)] {
            assert!(FactorId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
