//! What Twilio tells of a message that it took (row V09).

use crate::base::{hash, secret::Secret};

/// What became of an SMS, from a request that Twilio signed. It says that, and can do nothing else: there is no way from
/// here to a code, a session or a user. [`Mfa::sms_status`](crate::Mfa::sms_status) tells operators.
///
/// ```
/// use tower_mfa::{delivery::TwilioStatus, ident::Secret};
///
/// let token = Secret::new("12345".to_owned());
/// let params = [("MessageSid".to_owned(), "SM1".to_owned()), ("MessageStatus".to_owned(), "sent".to_owned())];
/// let forged = TwilioStatus::verify(&token, "https://shop.example/sms", &params, "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
/// assert!(forged.is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TwilioStatus {
    /// Twilio's id of the message.
    pub message: String,
    /// What became of it.
    pub status: SmsStatus,
    /// Twilio's number for what went wrong.
    pub error_code: Option<u32>,
}

/// What became of an SMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SmsStatus {
    /// On its way.
    UnderWay,
    /// The phone has it.
    Delivered,
    /// It won't arrive.
    Failed,
}

impl TwilioStatus {
    /// Reads a status callback: the URL as Twilio was told it, query included, the form's parameters in any order, and
    /// the header `X-Twilio-Signature`. `None` if the signature isn't the account's, or if it is no status.
    pub fn verify(
        token: &Secret<String>,
        url: &str,
        params: &[(String, String)],
        signature: &str,
    ) -> Option<Self> {
        let mut sorted: Vec<&(String, String)> = params.iter().collect();
        sorted.sort();
        let signed = sorted.iter().fold(url.to_owned(), |all, (name, value)| all + name + value);
        let mac = hash::base64(&hash::hmac_sha1(token.expose().as_bytes(), signed.as_bytes()));
        // A token that isn't set is everybody's.
        if token.expose().is_empty() || !hash::same(mac.as_bytes(), signature.as_bytes()) {
            return None;
        }
        let one = |wanted: &str| {
            let mut values = params.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value);
            values.next().filter(|_| values.next().is_none())
        };
        let status = match one("MessageStatus")?.as_str() {
            "delivered" | "read" => SmsStatus::Delivered,
            "undelivered" | "failed" | "canceled" => SmsStatus::Failed,
            _ => SmsStatus::UnderWay,
        };
        let message: String =
            one("MessageSid")?.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        Some(Self { message, status, error_code: one("ErrorCode").and_then(|code| code.parse().ok()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn sec_v09_twilios_own_example_verifies() {
        // The example of Twilio's documentation of request validation: no status, but its signature is right.
        let params = pairs(&[
            ("CallSid", "CA1234567890ABCDE"),
            ("Caller", "+14158675309"),
            ("Digits", "1234"),
            ("From", "+14158675309"),
            ("To", "+18005551212"),
        ]);
        let mut sorted = params.clone();
        sorted.sort();
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
        let signed = sorted.iter().fold(url.to_owned(), |all, (name, value)| all + name + value);
        assert_eq!(
            hash::base64(&hash::hmac_sha1(b"12345", signed.as_bytes())),
            "RSOYDt4T1cUTdK1PDd93/VVr8B8="
        );
        let token = Secret::new("12345".to_owned());
        assert!(TwilioStatus::verify(&token, url, &params, "RSOYDt4T1cUTdK1PDd93/VVr8B8=").is_none());
    }

    #[test]
    fn sec_v09_only_what_is_signed_is_read() {
        let (token, url) = (Secret::new("s3cret".to_owned()), "https://shop.example/sms");
        let sign = |params: &[(String, String)]| {
            let mut sorted = params.to_vec();
            sorted.sort();
            let signed = sorted.iter().fold(url.to_owned(), |all, (name, value)| all + name + value);
            hash::base64(&hash::hmac_sha1(b"s3cret", signed.as_bytes()))
        };
        let params =
            pairs(&[("MessageStatus", "undelivered"), ("MessageSid", "SM1\n"), ("ErrorCode", "30003")]);
        let signature = sign(&params);
        let read = TwilioStatus::verify(&token, url, &params, &signature).unwrap();
        assert_eq!(
            (read.message.as_str(), read.status, read.error_code),
            ("SM1", SmsStatus::Failed, Some(30003))
        );
        for (name, status) in [("sent", SmsStatus::UnderWay), ("delivered", SmsStatus::Delivered)] {
            let params = pairs(&[("MessageSid", "SM1"), ("MessageStatus", name)]);
            assert_eq!(TwilioStatus::verify(&token, url, &params, &sign(&params)).unwrap().status, status);
        }
        let mut changed = params.clone();
        changed[0].1 = "delivered".to_owned();
        assert!(TwilioStatus::verify(&token, url, &changed, &signature).is_none());
        assert!(TwilioStatus::verify(&token, "https://shop.example/other", &params, &signature).is_none());
        assert!(TwilioStatus::verify(&Secret::new("other".to_owned()), url, &params, &signature).is_none());
        assert!(TwilioStatus::verify(&token, url, &params, "").is_none());
        let twice = pairs(&[("MessageSid", "SM1"), ("MessageStatus", "sent"), ("MessageStatus", "failed")]);
        assert!(TwilioStatus::verify(&token, url, &twice, &sign(&twice)).is_none());
    }
}
