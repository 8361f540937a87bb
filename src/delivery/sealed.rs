//! A notice as text, to be sealed and queued, and back. The text is as secret as what is in it.

use std::time::Duration;

use serde_json::{Map, Value, json};
use zeroize::Zeroize;

use super::Notice;
use crate::base::{contact::Contact, error::ParseError, ident::FactorId, secret::Secret};

impl Notice {
    /// The text to seal.
    pub(crate) fn to_sealed_form(&self) -> Secret<String> {
        let mut value = json!({
            "kind": self.name(),
            "to": self.to(),
            "code": self.code().map(Secret::expose),
            "link": self.link().map(Secret::expose),
        });
        if let Value::Object(members) = &mut value {
            match self {
                Self::SignInCode { valid_for, factor, first_factor, .. } => {
                    members.insert("validFor".to_owned(), millis(*valid_for));
                    members.insert("factor".to_owned(), json!(factor));
                    members.insert("firstFactor".to_owned(), json!(first_factor));
                }
                Self::PasswordReset { valid_for, .. } | Self::EmailVerification { valid_for, .. } => {
                    members.insert("validFor".to_owned(), millis(*valid_for));
                }
                Self::SuspiciousAttempts { factor, .. }
                | Self::CodesUsedUp { factor, .. }
                | Self::FactorAdded { factor, .. }
                | Self::FactorRemoved { factor, .. } => {
                    members.insert("factor".to_owned(), json!(factor));
                }
                Self::PasswordChanged { .. } | Self::EmailChanged { .. } | Self::NewDevice { .. } => {}
            }
        }
        let sealed = Secret::new(value.to_string());
        wipe(&mut value);
        sealed
    }

    /// Reads the text that was sealed.
    ///
    /// # Errors
    /// If it is none of ours: a newer version of the crate may know more kinds.
    pub(crate) fn from_sealed_form(text: &str) -> Result<Self, ParseError> {
        let broken = || ParseError::new("queued notice");
        let mut value: Value = serde_json::from_str(text).map_err(|_| broken())?;
        let notice = value.as_object().and_then(read);
        wipe(&mut value);
        notice.ok_or_else(broken)
    }
}

fn read(members: &Map<String, Value>) -> Option<Notice> {
    let text = |name: &str| members.get(name)?.as_str();
    let secret = |name: &str| text(name).map(|text| Secret::new(text.to_owned()));
    let valid_for = || members.get("validFor")?.as_u64().map(Duration::from_millis);
    let factor = || FactorId::parse(text("factor")?).ok();
    let to = Contact::parse(text("to")?).ok()?;
    Some(match text("kind")? {
        "SignInCode" => Notice::SignInCode {
            to,
            code: secret("code"),
            link: secret("link"),
            valid_for: valid_for()?,
            factor: factor()?,
            first_factor: members.get("firstFactor")?.as_bool()?,
        },
        "PasswordReset" => Notice::PasswordReset { to, link: secret("link")?, valid_for: valid_for()? },
        "EmailVerification" => {
            Notice::EmailVerification { to, link: secret("link")?, valid_for: valid_for()? }
        }
        "SuspiciousAttempts" => Notice::SuspiciousAttempts { to, factor: factor()? },
        "CodesUsedUp" => Notice::CodesUsedUp { to, factor: factor()? },
        "FactorAdded" => Notice::FactorAdded { to, factor: factor()? },
        "FactorRemoved" => Notice::FactorRemoved { to, factor: factor()? },
        "PasswordChanged" => Notice::PasswordChanged { to },
        "EmailChanged" => Notice::EmailChanged { to },
        "NewDevice" => Notice::NewDevice { to },
        _ => return None,
    })
}

fn millis(duration: Duration) -> Value {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).into()
}

/// Texts in a JSON value aren't wiped by dropping it (row G08).
fn wipe(value: &mut Value) {
    if let Value::Object(members) = value {
        for (_, member) in members.iter_mut() {
            if let Value::String(text) = member {
                text.zeroize();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notices() -> Vec<Notice> {
        let to = Contact::parse("a@shop.example").unwrap();
        let secret = |text: &str| Secret::new(text.to_owned());
        let valid_for = Duration::from_millis(600_001);
        let sign_in =
            |code: Option<&str>, link: Option<&str>, to: &str, first_factor: bool| Notice::SignInCode {
                to: Contact::parse(to).unwrap(),
                code: code.map(secret),
                link: link.map(secret),
                valid_for,
                factor: FactorId::OTP_EMAIL,
                first_factor,
            };
        vec![
            sign_in(Some("012345"), None, "a@shop.example", true),
            sign_in(None, Some("https://shop.example/auth/verify#x\"y"), "a@shop.example", true),
            sign_in(Some("999999"), Some("https://shop.example/"), "+36301111142", false),
            Notice::PasswordReset { to: to.clone(), link: secret("https://shop.example/r"), valid_for },
            Notice::EmailVerification { to: to.clone(), link: secret("https://shop.example/v"), valid_for },
            Notice::SuspiciousAttempts { to: to.clone(), factor: FactorId::TOTP },
            Notice::CodesUsedUp { to: to.clone(), factor: FactorId::TOTP },
            Notice::FactorAdded { to: to.clone(), factor: FactorId::OTP_PHONE },
            Notice::FactorRemoved { to: to.clone(), factor: FactorId::PASSWORD },
            Notice::NewDevice { to },
        ]
    }

    #[test]
    fn sec_v03_what_comes_back_is_what_went_in() {
        for notice in notices() {
            let text = notice.to_sealed_form();
            let back = Notice::from_sealed_form(text.expose()).unwrap();
            assert_eq!(back.to_sealed_form().expose(), text.expose());
            assert_eq!(back.to(), notice.to());
            let exposed = |notice: &Notice| {
                (
                    notice.code().map(|code| code.expose().clone()),
                    notice.link().map(|link| link.expose().clone()),
                )
            };
            assert_eq!(exposed(&back), exposed(&notice));
        }
    }

    #[test]
    fn sec_g01_a_notice_prints_its_kind() {
        for notice in notices() {
            assert_eq!(format!("{notice:?}"), format!("{} {{ .. }}", notice.name()));
        }
    }

    #[test]
    fn strange_texts_are_refused() {
        let whole = notices()[0].to_sealed_form();
        for text in [
            "",
            "{}",
            "[]",
            "null",
            &whole.expose().replace("SignInCode", "Other"),
            &whole.expose().replace("a@shop.example", "nobody"),
            &whole.expose().replace("validFor", "x"),
            &whole.expose().replace("otp-email", "\\u0001"),
            &format!("{}x", whole.expose()),
        ] {
            assert!(Notice::from_sealed_form(text).is_err(), "{text}");
        }
    }
}
