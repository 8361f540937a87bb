//! SMS over HTTP: Twilio's API, or a signed request to a service of the app's own.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use serde_json::{Value, json};

use super::{DeliveryError, Envelope, Message, SmsTransport};
use crate::base::{
    contact::Phone,
    error::ConfigError,
    hash,
    http_client::{AnyHttpClient, HttpClient, is_safe},
    percent_encoded,
    secret::Secret,
};

/// How long a provider may take, whatever the client allows (row V02).
const TOTAL: Duration = Duration::from_secs(15);
const TWILIO: &str = "https://api.twilio.com";

/// Sends SMS through a provider's HTTP interface.
///
/// A refusal (4xx) is a permanent failure, but for 401, which is the operator's to mend, 408 and 429; anything else that
/// isn't a success is a temporary one.
///
/// ```
/// # #[cfg(feature = "http-client")] {
/// use tower_mfa::{
///     config::{ConfigError, Reqwest},
///     delivery::{Courier, HttpSms, SmsSender},
///     ident::Secret,
/// };
/// # fn courier(token: String) -> Result<Courier, ConfigError> {
/// let from = SmsSender::number("+15005550006");
/// let sms = HttpSms::twilio(Reqwest::new()?, "AC00000000000000000000000000000000", Secret::new(token), from)?;
/// Ok(Courier::sms_only(sms))
/// # }
/// # courier("x".to_owned()).unwrap();
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct HttpSms {
    client: AnyHttpClient,
    url: Uri,
    provider: Provider,
}

#[derive(Clone)]
enum Provider {
    Twilio { account: String, token: Secret<String>, from: SmsSender, callback: Option<String> },
    Webhook { secret: Secret<String> },
}

/// Whom an SMS comes from, at Twilio.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SmsSender {
    /// A number in E.164 form, a short code, or an alphanumeric sender.
    Number(String),
    /// A messaging service, which chooses the number (`MG…`).
    Service(String),
}

impl SmsSender {
    /// A number in E.164 form, a short code, or an alphanumeric sender.
    pub fn number(number: &str) -> Self {
        Self::Number(number.to_owned())
    }

    /// A messaging service, by its id.
    pub fn service(id: &str) -> Self {
        Self::Service(id.to_owned())
    }
}

impl HttpSms {
    /// Twilio's Messages API, for an account (`AC…`) with its token. A message that Twilio can't hand over before
    /// its code has expired is dropped there (`ValidityPeriod`).
    ///
    /// Twilio knows no idempotency key: if the answer to a request is lost, the next try sends the same text again.
    ///
    /// # Errors
    /// If the account isn't one, or the token is empty.
    pub fn twilio(
        client: impl HttpClient,
        account: &str,
        token: Secret<String>,
        from: SmsSender,
    ) -> Result<Self, ConfigError> {
        let sid = account.strip_prefix("AC").unwrap_or_default();
        if sid.len() != 32 || !sid.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ConfigError::one("a Twilio account looks like AC and 32 hexadecimal digits"));
        }
        if token.expose().is_empty() {
            return Err(ConfigError::one("a Twilio account's token is empty: is it set?"));
        }
        let url = twilio_url(TWILIO, account)?;
        let provider = Provider::Twilio { account: account.to_owned(), token, from, callback: None };
        Ok(Self { client: AnyHttpClient::new(client), url, provider })
    }

    /// Where Twilio tells what became of a message: see [`TwilioStatus`](super::TwilioStatus).
    pub fn status_callback(mut self, url: &str) -> Self {
        if let Provider::Twilio { callback, .. } = &mut self.provider {
            *callback = Some(url.to_owned());
        }
        self
    }

    /// A stand-in for Twilio on this machine, such as `http://127.0.0.1:9000`: for tests.
    ///
    /// # Errors
    /// If it is neither https nor http on the loopback address.
    pub fn dangerous_loopback(mut self, base: &str) -> Result<Self, ConfigError> {
        if let Provider::Twilio { account, .. } = &self.provider {
            self.url = twilio_url(base, account)?;
        }
        Ok(self)
    }

    /// A service of the app's own: a `POST` to `url` of `{"id", "tenant", "to", "text", "expiresAt"}`, with the headers
    /// `webhook-id` (also as `idempotency-key`; the same at every try), `webhook-timestamp` (seconds) and
    /// `webhook-signature`: `v1,` and the base64 of HMAC-SHA-256 under the secret over `id.timestamp.body`. The service
    /// checks the signature, refuses timestamps that are minutes old, and answers 2xx once it has the message.
    ///
    /// # Errors
    /// If the URL is neither https nor http on the loopback address, or the secret is shorter than 32 bytes.
    pub fn webhook(client: impl HttpClient, url: &str, secret: Secret<String>) -> Result<Self, ConfigError> {
        let url = safe(url)?;
        if secret.expose().len() < 32 {
            return Err(ConfigError::one("a webhook's secret has at least 32 bytes"));
        }
        Ok(Self { client: AnyHttpClient::new(client), url, provider: Provider::Webhook { secret } })
    }

    fn request(&self, envelope: &Envelope, to: &Phone, text: &str) -> http::Result<Request<Bytes>> {
        let request = Request::post(self.url.clone());
        match &self.provider {
            Provider::Twilio { account, token, from, callback } => {
                let basic = Secret::new(format!("{account}:{}", token.expose()));
                let basic = Secret::new(format!("Basic {}", hash::base64(basic.expose().as_bytes())));
                let mut form = vec![("To", to.as_str().to_owned()), ("Body", text.to_owned())];
                form.push(match from {
                    SmsSender::Number(number) => ("From", number.clone()),
                    SmsSender::Service(id) => ("MessagingServiceSid", id.clone()),
                });
                let valid = envelope.time_left().as_secs().clamp(1, 36_000);
                form.push(("ValidityPeriod", valid.to_string()));
                form.extend(callback.iter().map(|url| ("StatusCallback", url.clone())));
                let mut basic = http::HeaderValue::try_from(basic.expose())?;
                basic.set_sensitive(true);
                request
                    .header(header::AUTHORIZATION, basic)
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(Bytes::from(urlencoded(&form)))
            }
            Provider::Webhook { secret } => {
                let body = json!({
                    "id": envelope.id,
                    "tenant": envelope.tenant.as_str(),
                    "to": to.as_str(),
                    "text": text,
                    "expiresAt": envelope.expires_at.as_secs(),
                })
                .to_string();
                let at = envelope.at.as_secs();
                let signed = Secret::new(format!("{}.{at}.{body}", envelope.id));
                let mac = hash::hmac_sha256(secret.expose().as_bytes(), signed.expose().as_bytes());
                request
                    .header(header::CONTENT_TYPE, "application/json")
                    .header("idempotency-key", &envelope.id)
                    .header("webhook-id", &envelope.id)
                    .header("webhook-timestamp", at)
                    .header("webhook-signature", format!("v1,{}", hash::base64(&mac)))
                    .body(Bytes::from(body))
            }
        }
    }

    /// What an answer means (row V02).
    fn judge(&self, answer: &Response<Bytes>) -> Result<(), DeliveryError> {
        let status = answer.status();
        let taken = match &self.provider {
            Provider::Twilio { .. } => status == StatusCode::CREATED,
            Provider::Webhook { .. } => status.is_success(),
        };
        if taken {
            return Ok(());
        }
        let retry = [StatusCode::UNAUTHORIZED, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
        let refused = "the provider refused the message";
        let error = match status.is_client_error() && !retry.contains(&status) {
            true => DeliveryError::permanent(refused),
            false => DeliveryError::temporary(refused),
        };
        Err(error.with_reason(match self.error_code(answer) {
            Some(code) => format!("sms: http {}, code {code}", status.as_u16()),
            None => format!("sms: http {}", status.as_u16()),
        }))
    }

    /// Twilio's own number for what is wrong. Its words are left out: they name the number.
    fn error_code(&self, answer: &Response<Bytes>) -> Option<u64> {
        match &self.provider {
            Provider::Twilio { .. } => {
                serde_json::from_slice::<Value>(answer.body()).ok()?.get("code")?.as_u64()
            }
            Provider::Webhook { .. } => None,
        }
    }
}

impl SmsTransport for HttpSms {
    async fn send(&self, envelope: &Envelope, to: &Phone, message: &Message) -> Result<(), DeliveryError> {
        let request = self.request(envelope, to, message.text.expose()).map_err(|error| {
            DeliveryError::permanent(error).with_reason("sms: no request can be made of it")
        })?;
        match tokio::time::timeout(TOTAL, self.client.send(request)).await {
            Ok(Ok(answer)) => self.judge(&answer),
            Ok(Err(error)) => Err(DeliveryError::temporary(error).with_reason("sms: no answer")),
            Err(late) => Err(DeliveryError::temporary(late).with_reason("sms: timeout")),
        }
    }
}

/// The place alone: the rest is a secret.
impl fmt::Debug for HttpSms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSms").field("host", &self.url.host()).finish_non_exhaustive()
    }
}

fn twilio_url(base: &str, account: &str) -> Result<Uri, ConfigError> {
    safe(&format!("{base}/2010-04-01/Accounts/{account}/Messages.json"))
}

fn safe(url: &str) -> Result<Uri, ConfigError> {
    let url: Option<Uri> = url.parse().ok();
    url.filter(|url| is_safe(url, true))
        .ok_or_else(|| ConfigError::one("a provider's URL is https, or http on the loopback address"))
}

/// `application/x-www-form-urlencoded`.
fn urlencoded(form: &[(&str, String)]) -> String {
    let pairs: Vec<String> =
        form.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
    pairs.join("&")
}
