//! Phone numbers as people type them, and what the numbering plans say of them (rows O28, O31).

use std::panic;

use phonenumber::{Type, country, metadata::DATABASE};

use super::{contact::Phone, error::ParseError};

/// Longer texts aren't looked at (row O31).
const TEXT: usize = 64;

impl Phone {
    /// Reads a number as a person types it, and keeps its E.164 form: spaces, hyphens, dots, slashes and round
    /// brackets are dropped, and a national prefix in brackets with them (`+44 (0)20 …`).
    ///
    /// It begins with `+` and the code of its country, and must be valid by that country's numbering plan.
    /// Letters, extensions, parameters (RFC 3966) and other digits than ASCII's are refused.
    ///
    /// ```
    /// use tower_mfa::ident::Phone;
    /// assert_eq!(Phone::from_typed(" +36 (30) 111-1142 ")?.as_str(), "+36301111142");
    /// assert!(Phone::from_typed("+36 30 111").is_err());
    /// assert!(Phone::from_typed("+36301111142;ext=5").is_err());
    /// # Ok::<(), tower_mfa::ident::ParseError>(())
    /// ```
    ///
    /// # Errors
    /// If it isn't a valid number by this rule.
    pub fn from_typed(text: &str) -> Result<Self, ParseError> {
        canonical(text).ok_or(ParseError::new("phone number"))
    }

    /// The country whose plan the number belongs to, as two capital letters (ISO 3166-1).
    pub(crate) fn country(&self) -> Option<String> {
        plan(self.as_str())?.country().id().map(|id| id.as_ref().to_owned())
    }

    /// Whether messages reach it as they reach anybody's mobile: no premium, shared-cost, free or company
    /// number, no pager, no landline where the plan tells them apart (row O28).
    pub(crate) fn is_mobile(&self) -> bool {
        let Some(number) = plan(self.as_str()) else { return false };
        // Zeros that belong to the number the library leaves out where it tells the type: a mobile of Côte d'Ivoire
        // begins with one, and so does an Italian landline that would be a mobile without.
        if number.national().zeros() > 0 {
            let mobiles = number.metadata(&DATABASE).and_then(|plan| plan.descriptors().mobile());
            return mobiles.is_some_and(|mobiles| mobiles.is_match(&number.national().to_string()));
        }
        matches!(number.number_type(&DATABASE), Type::Mobile | Type::FixedLineOrMobile)
    }
}

/// Reads the numbering plans, which takes a tenth of a second: at the start, not when the first number comes.
pub(crate) fn load() {
    let _ = plan("+12025550143");
}

/// Whether a country of these two letters has a numbering plan.
pub(crate) fn is_country(letters: &str) -> bool {
    letters.parse::<country::Id>().is_ok()
}

fn canonical(text: &str) -> Option<Phone> {
    let text = text.trim_ascii();
    let shaped = text.len() <= TEXT
        && text.starts_with('+')
        && text.bytes().skip(1).all(|byte| byte.is_ascii_digit() || b" -./()".contains(&byte));
    if !shaped {
        return None;
    }
    let number = plan(text)?;
    let valid = number.is_valid() && number.extension().is_none();
    let written = number.format().mode(phonenumber::Mode::E164).to_string();
    let phone = Phone::parse(&written).ok()?;
    // What was written is read again: a form that isn't its own canonical one is nobody's number (row O29).
    (valid && plan(&written)? == number).then_some(phone)
}

/// What the library makes of a number. It reads text from strangers: a panic of its is "not a number".
fn plan(text: &str) -> Option<phonenumber::PhoneNumber> {
    panic::catch_unwind(|| phonenumber::parse(None, text).ok()).ok().flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sec_o31_one_form_or_none() {
        let table = [
            ("+36301111111", Some("+36301111111")),
            (" +36 30 111 1111 ", Some("+36301111111")),
            ("+36-30-111.1111", Some("+36301111111")),
            ("+36 (30) 111/1111", Some("+36301111111")),
            ("+44 (0)7911 123456", Some("+447911123456")),
            ("+1 202 555 0143", Some("+12025550143")),
            ("+4915112345678", Some("+4915112345678")),
            // Of no country, or not by its plan.
            ("+999301111111", None),
            ("+3630111", None),
            ("+36301111111111", None),
            ("+0301111111", None),
            ("+1 555 0143", None),
            // Not in international form.
            ("06301111111", None),
            ("0036301111111", None),
            ("36301111111", None),
            ("++36301111111", None),
            // More than a number.
            ("tel:+36301111111", None),
            ("+36301111111;ext=5", None),
            ("+36301111111 ext 5", None),
            ("+36301111111x5", None),
            ("+36301111111,,5", None),
            ("+36301111111#5", None),
            ("+1 202 FLOWERS", None),
            ("+36301111111;phone-context=evil.example", None),
            ("+36301111111\n+36302222222", None),
            ("+36301111111 +36302222222", None),
            ("+36301111111\0", None),
            // Other digits, and what can't be seen.
            ("+\u{663}\u{666}301111111", None),
            ("\u{ff0b}36301111111", None),
            ("+3630\u{200b}1111111", None),
            ("+36\u{a0}301111111", None),
            ("", None),
            ("+", None),
            ("alice@shop.example", None),
        ];
        for (text, want) in table {
            let phone = Phone::from_typed(text).ok();
            assert_eq!(phone.as_ref().map(Phone::as_str), want, "{text:?}");
        }
        let long = format!("+36{}301111111", " ".repeat(64));
        Phone::from_typed(&long).unwrap_err();
    }

    #[test]
    fn sec_o28_what_is_no_mobile_is_known() {
        let table = [
            ("+36301111111", "HU", true),
            ("+12025550143", "US", true),
            ("+4915112345678", "DE", true),
            // With a zero that belongs to the number.
            ("+2250701234567", "CI", true),
            ("+3903123456789", "IT", false),
            // A landline, premium, free of charge, shared cost.
            ("+3612345678", "HU", false),
            ("+3690123456", "HU", false),
            ("+18002530000", "US", false),
            ("+19002530000", "US", false),
            ("+448712345678", "GB", false),
        ];
        for (text, country, mobile) in table {
            let phone = Phone::from_typed(text).unwrap();
            assert_eq!((phone.country().as_deref(), phone.is_mobile()), (Some(country), mobile), "{text}");
        }
        assert!(is_country("HU") && is_country("US"));
        assert!(!is_country("hu") && !is_country("XX") && !is_country(""));
    }

    proptest! {
        /// Row O29: what is kept is its own canonical form; and whatever is sent, nothing panics.
        #[test]
        fn sec_o29_a_canonical_number_stays_as_it_is(text in "\\PC{0,70}|\\+[0-9 ()./-]{4,20}|\\+(36|1|44|49)[0-9]{6,11}") {
            if let Ok(phone) = Phone::from_typed(&text) {
                prop_assert_eq!(&Phone::from_typed(phone.as_str()).unwrap(), &phone);
                prop_assert!(Phone::parse(phone.as_str()).is_ok());
            }
        }
    }
}
