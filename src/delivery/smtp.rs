//! Mail through an SMTP server (RFC 5321, 8314): TLS before anything is said, one recipient a message.
//!
//! Connections are kept here, not in lettre's own pool: that one takes back a connection whose caller gave up in the
//! middle of a message, and the next message would read the answers to the one before.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use lettre::{
    Address,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{Header, HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, Certificate, TlsParameters},
        commands::{Data, Mail, Rcpt},
        extension::ClientId,
        response::Severity,
    },
};

use super::{DeliveryError, EmailTransport, Envelope, Message};
use crate::base::{
    contact::Email,
    error::{BoxError, ConfigError},
    secret::Secret,
    time,
};

/// How long connecting may take, and a message from the first byte to the last (row V02).
const CONNECT: Duration = Duration::from_secs(5);
const TOTAL: Duration = Duration::from_secs(15);
/// Connections that are kept, and for how long.
const KEPT: usize = 8;
const KEPT_FOR: Duration = Duration::from_secs(30);

/// Sends mail through an SMTP server.
///
/// The connection is encrypted, and the server's certificate is that of the host named here; what isn't gets no
/// message and no credentials. A message goes to one recipient: the canonical address of the notice. Its `Message-ID`
/// is made of [`Envelope::id`], hence the same over all tries.
///
/// A recipient or a message that is refused (a reply code 5xx) is a permanent failure; a server that is down, or doesn't
/// accept the credentials or the sender, a temporary one, since that is the operator's to mend.
///
/// ```
/// use tower_mfa::{
///     config::ConfigError,
///     delivery::{Courier, SmtpTransport},
///     ident::Secret,
/// };
/// # fn courier(password: String) -> Result<Courier, ConfigError> {
/// let smtp = SmtpTransport::relay("smtp.shop.example", "Corner Shop <no-reply@shop.example>")?
///     .credentials("shop", Secret::new(password))?;
/// Ok(Courier::new(smtp))
/// # }
/// # courier("x".to_owned()).unwrap();
/// # assert!(SmtpTransport::relay("smtp.shop.example", "Corner Shop").is_err());
/// ```
#[derive(Clone)]
#[must_use]
pub struct SmtpTransport {
    host: String,
    port: u16,
    tls: Tls,
    from: Mailbox,
    credentials: Option<Credentials>,
    roots: Vec<Certificate>,
    idle: Arc<Mutex<Vec<Idle>>>,
}

#[derive(Clone)]
enum Tls {
    /// From the first byte (RFC 8314).
    Implicit(TlsParameters),
    /// Asked for, and nothing else is said without it.
    Upgraded(TlsParameters),
    No,
}

struct Idle {
    connection: AsyncSmtpConnection,
    since: Instant,
}

impl SmtpTransport {
    /// A server that speaks TLS from the start, on port 465, and the sender: `Corner Shop <no-reply@shop.example>`.
    ///
    /// # Errors
    /// If the sender is no address, or if TLS can't be set up.
    pub fn relay(host: &str, from: &str) -> Result<Self, ConfigError> {
        let tls = Tls::Implicit(parameters(host, &[])?);
        Self::new(host, 465, tls, from)
    }

    /// A server that is asked for TLS by STARTTLS, on port 587. It is required: a server that doesn't offer it, or
    /// whose offer somebody took out on the way, gets nothing.
    ///
    /// # Errors
    /// As [`relay`](SmtpTransport::relay), which is the better choice where the server knows both: what is said before
    /// TLS isn't protected.
    pub fn starttls_relay(host: &str, from: &str) -> Result<Self, ConfigError> {
        let tls = Tls::Upgraded(parameters(host, &[])?);
        Self::new(host, 587, tls, from)
    }

    /// A server without TLS: everybody on the way reads the codes. For a server on the same machine, and for tests.
    ///
    /// # Errors
    /// If the sender is no address.
    pub fn dangerous_plaintext(host: &str, port: u16, from: &str) -> Result<Self, ConfigError> {
        Self::new(host, port, Tls::No, from)
    }

    fn new(host: &str, port: u16, tls: Tls, from: &str) -> Result<Self, ConfigError> {
        let from = sender(from)
            .ok_or_else(|| ConfigError::one("the sender must look like Shop <no-reply@shop.example>"))?;
        let (host, idle) = (host.to_owned(), Arc::default());
        Ok(Self { host, port, tls, from, credentials: None, roots: Vec::new(), idle })
    }

    /// Another port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self.changed()
    }

    /// Who the app is to the server.
    ///
    /// # Errors
    /// Without TLS: credentials don't go where everybody reads them.
    pub fn credentials(mut self, user: &str, password: Secret<String>) -> Result<Self, ConfigError> {
        if matches!(self.tls, Tls::No) {
            return Err(ConfigError::one("credentials for a mail server need TLS"));
        }
        self.credentials = Some(Credentials::new(user.to_owned(), password.expose().clone()));
        Ok(self.changed())
    }

    /// Trusts another root certificate, as PEM, beside the system's: for a private authority.
    ///
    /// # Errors
    /// If it is no certificate.
    pub fn root_certificate(mut self, pem: &[u8]) -> Result<Self, ConfigError> {
        let holds_one = pem.windows(BEGIN.len()).any(|part| part == BEGIN);
        let certificate = Certificate::from_pem(pem).ok().filter(|_| holds_one);
        self.roots.push(certificate.ok_or_else(|| ConfigError::one("not a certificate in PEM form"))?);
        self.tls = match self.tls {
            Tls::Implicit(_) => Tls::Implicit(parameters(&self.host, &self.roots)?),
            Tls::Upgraded(_) => Tls::Upgraded(parameters(&self.host, &self.roots)?),
            Tls::No => Tls::No,
        };
        Ok(self.changed())
    }

    /// A connection that was made otherwise isn't this one's: clones share them.
    fn changed(mut self) -> Self {
        self.idle = Arc::default();
        self
    }

    /// The message as it is sent. Headers are made of the canonical address and of what the crate made (row V07).
    fn compose(&self, envelope: &Envelope, to: Address, message: &Message) -> Result<Vec<u8>, BoxError> {
        let id: String = envelope.id.chars().filter(char::is_ascii_alphanumeric).collect();
        let at = u64::try_from(envelope.at.as_secs()).unwrap_or(0);
        let builder = lettre::Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(&message.subject)
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .date(SystemTime::UNIX_EPOCH + Duration::from_secs(at))
            .header(AutoSubmitted);
        let text = whole_lines(message.text.expose());
        let message = match &message.html {
            Some(html) => {
                builder.multipart(MultiPart::alternative_plain_html(text, whole_lines(html.expose())))?
            }
            None => builder.singlepart(SinglePart::plain(text))?,
        };
        Ok(message.formatted())
    }

    /// A connection that was kept and still answers, or a new one.
    async fn connection(&self) -> Result<AsyncSmtpConnection, DeliveryError> {
        while let Some(idle) = self.kept() {
            let mut connection = idle.connection;
            if connection.test_connected().await {
                return Ok(connection);
            }
        }
        self.connect().await.map_err(|error| temporary("connection", error))
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, lettre::transport::smtp::Error> {
        let (server, hello) = ((self.host.as_str(), self.port), ClientId::default());
        let implicit = match &self.tls {
            Tls::Implicit(tls) => Some(tls.clone()),
            Tls::Upgraded(_) | Tls::No => None,
        };
        let connecting = AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT), &hello, implicit, None);
        let mut connection = connecting.await?;
        if let Tls::Upgraded(tls) = &self.tls {
            connection.starttls(tls.clone(), &hello).await?;
        }
        if let (Some(credentials), true) = (&self.credentials, connection.is_encrypted()) {
            connection.auth(&[Mechanism::Plain, Mechanism::Login], credentials).await?;
        }
        Ok(connection)
    }

    /// Takes one that was kept; those that were for too long go.
    fn kept(&self) -> Option<Idle> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let now = time::monotonic();
        idle.retain(|idle| now.duration_since(idle.since) < KEPT_FOR);
        idle.pop()
    }

    /// Keeps one that has an answer to everything it was asked.
    fn keep(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(Idle { connection, since: time::monotonic() });
        }
    }

    /// Whoever gives up in here drops the connection: it is kept only at the end.
    async fn transfer(&self, to: Address, message: &[u8]) -> Result<(), DeliveryError> {
        let mut connection = self.connection().await?;
        let from = Some(self.from.email.clone());
        // A sender who isn't welcome is the operator's to mend; a recipient or a message isn't.
        connection.command(Mail::new(from, Vec::new())).await.map_err(|error| temporary("sender", error))?;
        connection.command(Rcpt::new(to, Vec::new())).await.map_err(refused)?;
        connection.command(Data).await.map_err(refused)?;
        let response = connection.message(message).await.map_err(refused)?;
        // "Go on" is no answer to a whole message: somebody put lines into what came before TLS.
        if response.code().severity != Severity::PositiveCompletion {
            return Err(DeliveryError::temporary("the server's answers are out of step").with_reason("smtp"));
        }
        self.keep(connection);
        Ok(())
    }
}

impl EmailTransport for SmtpTransport {
    async fn send(&self, envelope: &Envelope, to: &Email, message: &Message) -> Result<(), DeliveryError> {
        let (local, domain) = to.as_str().rsplit_once('@').unwrap_or_default();
        let unfit =
            |error: BoxError| DeliveryError::permanent(error).with_reason("no mail can be made of it");
        let to = Address::new(local, domain).map_err(|error| unfit(error.into()))?;
        let message = Secret::new(self.compose(envelope, to.clone(), message).map_err(unfit)?);
        match tokio::time::timeout(TOTAL, self.transfer(to, message.expose())).await {
            Ok(outcome) => outcome,
            Err(late) => Err(DeliveryError::temporary(late).with_reason("timeout")),
        }
    }
}

/// Host and port alone: the rest is a secret or leads to one.
impl fmt::Debug for SmtpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpTransport")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// `Auto-Submitted: auto-generated` (RFC 3834): no out-of-office notes, please.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, BoxError> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

fn parameters(host: &str, roots: &[Certificate]) -> Result<TlsParameters, ConfigError> {
    let builder = TlsParameters::builder(host.to_owned());
    let builder = roots.iter().cloned().fold(builder, |builder, root| builder.add_root_certificate(root));
    builder.build_rustls().map_err(|error| ConfigError::one(format!("TLS can't be set up: {error}")))
}

/// Every line ended in one way: of a CR alone a server could make what it likes (row V07).
fn whole_lines(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// `Name <address>`, or an address alone.
fn sender(text: &str) -> Option<Mailbox> {
    if text.chars().any(char::is_control) {
        return None;
    }
    let (name, address) = match text.strip_suffix('>') {
        Some(rest) => rest.rsplit_once('<')?,
        None => ("", text),
    };
    let address = Email::parse(address).ok()?;
    let (local, domain) = address.as_str().rsplit_once('@')?;
    let name = name.trim().trim_matches('"');
    let name = (!name.is_empty()).then(|| name.to_owned());
    Some(Mailbox::new(name, Address::new(local, domain).ok()?))
}

fn temporary(what: &str, error: lettre::transport::smtp::Error) -> DeliveryError {
    let reason = reason(what, &error);
    DeliveryError::temporary(error).with_reason(reason)
}

fn refused(error: lettre::transport::smtp::Error) -> DeliveryError {
    let (permanent, reason) = (error.is_permanent(), reason("smtp", &error));
    let error = if permanent { DeliveryError::permanent(error) } else { DeliveryError::temporary(error) };
    error.with_reason(reason)
}

/// What the log may say: never the server's words, which name the recipient.
fn reason(what: &str, error: &lettre::transport::smtp::Error) -> String {
    match error.status() {
        Some(code) => format!("{what}: smtp {code}"),
        None if error.is_tls() || is_garbled(error) => format!("{what}: tls"),
        None if error.is_timeout() => format!("{what}: timeout"),
        None if error.is_client() => format!("{what}: the server lacks what is required"),
        None => what.to_owned(),
    }
}

/// How a handshake that failed comes out of the stream.
fn is_garbled(error: &lettre::transport::smtp::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData) {
            return true;
        }
        source = cause.source();
    }
    false
}

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FROM: &str = "Corner Shop <no-reply@shop.example>";

    fn composed(message: &Message, to: &str) -> String {
        let smtp = SmtpTransport::dangerous_plaintext("127.0.0.1", 25, FROM).unwrap();
        let (local, domain) = to.rsplit_once('@').unwrap();
        let to = Address::new(local, domain).unwrap();
        String::from_utf8(smtp.compose(&Envelope::sample(), to, message).unwrap()).unwrap()
    }

    #[test]
    fn a_message_has_its_headers_once_and_the_same_id_each_time() {
        let message = Message::new("Ihr Code für den Laden", "123456").html("<p>123456</p>");
        let (one, other) = (composed(&message, "a@shop.example"), composed(&message, "a@shop.example"));
        for header in [
            "From: \"Corner Shop\" <no-reply@shop.example>\r\n",
            "To: a@shop.example\r\n",
            "Message-ID: <0123456789abcdef0123456789abcdef@shop.example>\r\n",
            "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n",
            "Auto-Submitted: auto-generated\r\n",
        ] {
            assert_eq!((one.matches(header).count(), other.matches(header).count()), (1, 1), "{header}{one}");
        }
        assert!(one.contains("multipart/alternative") && one.is_ascii());
        assert!(composed(&Message::new("s", "t"), "a@shop.example").contains("text/plain"));
    }

    #[test]
    fn senders_are_read_strictly() {
        for (text, name, address) in [
            ("Shop <no-reply@shop.example>", Some("Shop"), "no-reply@shop.example"),
            ("\"Shop, Inc.\" <a@shop.example>", Some("Shop, Inc."), "a@shop.example"),
            ("a@shop.example", None, "a@shop.example"),
        ] {
            let mailbox = sender(text).unwrap();
            assert_eq!((mailbox.name.as_deref(), mailbox.email.to_string().as_str()), (name, address));
        }
        for text in [
            "",
            "Shop",
            "Shop <>",
            "<a@b.example> x",
            "a@b.example\r\nBcc: c@d.example",
            "S\r\n <a@b.example>",
        ] {
            assert!(sender(text).is_none(), "{text}");
        }
    }

    #[test]
    fn sec_v06_credentials_need_tls() {
        let password = || Secret::new("hunter22".to_owned());
        let plain = SmtpTransport::dangerous_plaintext("127.0.0.1", 25, FROM).unwrap();
        plain.credentials("shop", password()).unwrap_err();
        let smtp = SmtpTransport::relay("smtp.shop.example", FROM).unwrap();
        let smtp = smtp.credentials("shop", password()).unwrap();
        assert_eq!(format!("{smtp:?}"), "SmtpTransport { host: \"smtp.shop.example\", port: 465, .. }");
        for bad in
            [&b""[..], b"no certificate", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"]
        {
            smtp.clone().root_certificate(bad).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn sec_v07_no_text_makes_a_header(subject in "[\\PC\r\n\0]{0,60}", text in "[\\PC\r\n.]{0,200}") {
            let message = composed(&Message::new(subject, text), "alice@shop.example");
            let head = message.split("\r\n\r\n").next().unwrap();
            let names: Vec<&str> = head
                .split("\r\n")
                .filter(|line| !line.starts_with([' ', '\t']))
                .map(|line| line.split(':').next().unwrap())
                .collect();
            let known =
                ["From", "To", "Subject", "Message-ID", "Date", "Auto-Submitted", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"];
            prop_assert!(names.iter().all(|name| known.contains(name)), "{:?}", names);
            prop_assert_eq!(names.iter().filter(|name| **name == "To").count(), 1);
            prop_assert!(head.contains("To: alice@shop.example") && !head.contains('\0'));
            // No line but CRLF ends one: nothing is left for a server to read its own way.
            prop_assert!(!message.replace("\r\n", "").contains(['\r', '\n']));
        }
    }
}
