//! Who somebody is, by what their provider says. Pure.

use serde_json::{Map, Value};

use super::Provider;
use crate::base::contact::{self, Email};

/// The longest subject: OpenID Connect allows 255 letters (Core, section 2).
const SUBJECT: usize = 255;

/// Who somebody is at a provider.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Profile {
    pub(crate) subject: String,
    pub(crate) email: Option<Email>,
    pub(crate) verified: bool,
}

/// Reads what a provider says. `None` if it doesn't say who it is. An address that can't be one counts as none.
pub(crate) fn read(provider: &Provider, said: Map<String, Value>) -> Option<Profile> {
    let said = Value::Object(said);
    let subject = match said.pointer(&provider.fields.subject)? {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_u64() => number.to_string(),
        _ => return None,
    };
    if subject.is_empty() || subject.len() > SUBJECT || subject.chars().any(char::is_control) {
        return None;
    }
    let email = said.pointer(&provider.fields.email).and_then(Value::as_str);
    let email = email.and_then(|text| Email::parse(text).ok()).filter(|email| !contact::is_fake(email));
    // Literally `true`: a text that says so is none (row L06).
    let says = |pointer: &String| said.pointer(pointer) == Some(&Value::Bool(true));
    let verified = provider.trusts_email || provider.fields.verified.as_ref().is_some_and(says);
    Some(Profile { verified: verified && email.is_some(), subject, email })
}

/// Why a provider's new address for a user can't be theirs here (`spec/wire.md` §13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressRefused {
    /// It belongs to another primary user.
    OtherPrimary,
    /// It isn't verified, and somebody else has it: whoever entered it at the provider might get at theirs.
    TakeOver,
}

/// Whether a user takes over the address that the provider says they have now. `others`: whether another primary
/// user, and whether anybody else at all, has it.
pub(crate) fn may_change(
    primary: bool,
    verified: bool,
    other_primary: bool,
    anybody: bool,
) -> Result<(), AddressRefused> {
    if primary && other_primary {
        return Err(AddressRefused::OtherPrimary);
    }
    if !verified && (other_primary || (primary && anybody)) {
        return Err(AddressRefused::TakeOver);
    }
    Ok(())
}
