//! The ways to prove who one is: each factor's own rules, as functions of values and `now`.

#[cfg(feature = "password")]
pub use self::password::PasswordRules;

pub(crate) mod otp;
#[cfg(feature = "password")]
pub(crate) mod password;
