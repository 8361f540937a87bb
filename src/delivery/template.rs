//! The words of a message. Pure: a notice in, a text out.
//!
//! Only values that the crate or the configuration made go into a text (row O33): a code, a link, a time,
//! the app's name. What users typed never does.

use std::{fmt, time::Duration};

use super::Notice;
use crate::base::{contact::Contact, ident::TenantId, secret::Secret};

/// Turns notices into words. [`Texts`] are the ones that come with the crate.
pub trait Templates: Send + Sync + 'static {
    /// The message for a notice: a mail for an address, a short text for a number.
    fn message(&self, tenant: &TenantId, notice: &Notice) -> Message;
}

/// What is sent.
#[derive(Clone)]
#[non_exhaustive]
pub struct Message {
    /// The subject of a mail; an SMS has none.
    pub subject: String,
    /// The plain text.
    pub text: Secret<String>,
    /// The same as HTML, for a mail.
    pub html: Option<Secret<String>>,
}

impl Message {
    /// A message of plain text.
    pub fn new(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { subject: subject.into(), text: Secret::new(text.into()), html: None }
    }

    /// With an HTML part, whose values were escaped.
    pub fn html(mut self, html: impl Into<String>) -> Self {
        self.html = Some(Secret::new(html.into()));
        self
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").finish_non_exhaustive()
    }
}

/// The default texts, in English.
///
/// ```
/// use std::time::Duration;
/// use tower_mfa::{
///     FactorId,
///     delivery::{Notice, Templates, Texts},
///     ident::{Contact, Secret, TenantId},
/// };
/// let notice = Notice::SignInCode {
///     to: Contact::parse("alice@shop.example")?,
///     code: Some(Secret::new("123456".to_owned())),
///     link: None,
///     valid_for: Duration::from_secs(600),
///     factor: FactorId::OTP_EMAIL,
///     first_factor: true,
/// };
/// let message = Texts::new("Corner Shop").message(&TenantId::PUBLIC, &notice);
/// assert_eq!(message.subject, "Your code for Corner Shop");
/// assert!(message.text.expose().contains("123456"));
/// assert!(!message.subject.contains("123456"));
/// # Ok::<(), tower_mfa::ident::ParseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Texts {
    app: String,
    host: Option<String>,
}

impl Texts {
    /// Texts that call the app by this name. Control characters are dropped, and what exceeds 64
    /// characters.
    pub fn new(app_name: &str) -> Self {
        let app: String = app_name.chars().filter(|c| !c.is_control()).take(64).collect();
        Self { app: app.trim().to_owned(), host: None }
    }

    /// Ends each SMS that has a code with the line that binds the code to the website's host: phones then
    /// offer it on that site only.
    pub fn website_host(mut self, host: &str) -> Self {
        let fits = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b));
        self.host = fits.then(|| host.to_owned());
        self
    }

    fn words(&self, notice: &Notice) -> Words {
        let app = &self.app;
        match notice {
            Notice::SignInCode { valid_for, first_factor, code, link, .. } => {
                let what = match (code, link) {
                    (Some(_), None) => "code",
                    (None, _) => "link",
                    (Some(_), Some(_)) => "code and link",
                };
                let plural = code.is_some() && link.is_some();
                let goal = if *first_factor { "sign in to" } else { "finish signing in to" };
                let (works, it) = if plural { ("work", "them") } else { ("works", "it") };
                Words {
                    subject: format!("Your {what} for {app}"),
                    lead: format!("Use this {what} to {goal} {app}."),
                    button: "Sign in",
                    validity: Some(format!(
                        "The {what} {works} once, for {}. Never pass {it} on to anyone, not even to us.",
                        spoken(*valid_for)
                    )),
                    end: match first_factor {
                        true => "If you didn't ask for this message, you can ignore it.".to_owned(),
                        false => "If you aren't signing in right now, somebody else may know your \
                                  password: please change it."
                            .to_owned(),
                    },
                }
            }
            Notice::PasswordReset { valid_for, .. } => Words {
                subject: format!("Set a new password for {app}"),
                lead: format!("Open this link to set a new password for {app}."),
                button: "Set a new password",
                validity: Some(format!("The link works once, for {}.", spoken(*valid_for))),
                end: "If you didn't ask for it, ignore this message: your password stays as it is."
                    .to_owned(),
            },
            Notice::EmailVerification { valid_for, .. } => Words {
                subject: format!("Confirm your e-mail address for {app}"),
                lead: format!("Open this link to confirm your e-mail address for {app}."),
                button: "Confirm",
                validity: Some(format!("The link works once, for {}.", spoken(*valid_for))),
                end: "If you have no account there, ignore this message.".to_owned(),
            },
            Notice::SuspiciousAttempts { .. } => Words {
                subject: format!("Wrong codes for your account at {app}"),
                lead: format!(
                    "Somebody got past the first step of signing in to your account at {app}, and then \
                     entered wrong codes several times."
                ),
                button: "",
                validity: None,
                end: "If that wasn't you, somebody may know your password: please change it.".to_owned(),
            },
        }
    }

    fn mail(&self, notice: &Notice) -> Message {
        let words = self.words(notice);
        let code = notice.code().map_or("", |code| code.expose().as_str());
        let link = notice.link().map_or("", |link| link.expose().as_str());
        let paragraphs = [
            "Hello,",
            &words.lead,
            &indented(code),
            &indented(link),
            words.validity.as_deref().unwrap_or_default(),
            &words.end,
            &self.app,
        ];
        let text: Vec<&str> = paragraphs.into_iter().filter(|text| !text.is_empty()).collect();
        let text = text.join("\n\n") + "\n";
        Message::new(&words.subject, text).html(self.html(&words, code, link))
    }

    fn html(&self, words: &Words, code: &str, link: &str) -> String {
        let mut body = format!("<p>Hello,</p><p>{}</p>", escaped(&words.lead));
        if !code.is_empty() {
            body +=
                &format!("<p style=\"font:bold 28px monospace;letter-spacing:4px\">{}</p>", escaped(code));
        }
        if !link.is_empty() {
            let link = escaped(link);
            body += &format!("<p><a href=\"{link}\">{}</a></p><p>{link}</p>", words.button);
        }
        if let Some(validity) = &words.validity {
            body += &format!("<p>{}</p>", escaped(validity));
        }
        body += &format!("<p>{}</p><p>{}</p>", escaped(&words.end), escaped(&self.app));
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title></head>\
             <body style=\"font:16px sans-serif;max-width:34em;margin:2em auto\">{body}</body></html>",
            escaped(&words.subject)
        )
    }

    /// One SMS where there is a code alone: 160 characters that need no other alphabet than GSM 7-bit.
    fn sms(&self, notice: &Notice) -> Message {
        let app = gsm(&self.app);
        let code = notice.code().map(|code| code.expose().as_str());
        let link = notice.link().map(|link| link.expose().as_str());
        let text = match (code, link) {
            (Some(code), None) => {
                let end = match &self.host {
                    Some(host) => format!("\n\n@{host} #{code}"),
                    None => String::new(),
                };
                let said = |app: &str| format!("{code} is your code{app}. Never pass it on to anyone.");
                // A name or a host may be too long for what must fit: the name goes first.
                [said(&format!(" for {app}")) + &end, said("") + &end]
                    .into_iter()
                    .find(|text| text.len() <= SMS)
                    .unwrap_or_else(|| said(""))
            }
            (Some(code), Some(link)) => format!("{code} is your code for {app}. Or open {link}"),
            (None, Some(link)) => format!("Open this link for {app}: {link}"),
            (None, None) => format!("{app}: wrong codes for your account. Not you? Change your password."),
        };
        Message::new("", text)
    }
}

impl Templates for Texts {
    fn message(&self, _tenant: &TenantId, notice: &Notice) -> Message {
        match notice.to() {
            Contact::Email(_) => self.mail(notice),
            Contact::Phone(_) => self.sms(notice),
        }
    }
}

/// The sentences of a mail.
struct Words {
    subject: String,
    lead: String,
    button: &'static str,
    validity: Option<String>,
    end: String,
}

const SMS: usize = 160;

fn indented(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("    {text}") }
}

/// For HTML text and for attributes in double quotes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The characters that ASCII and GSM 7-bit share, one septet each (3GPP TS 23.038); any other is a `?`.
fn gsm(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            ' '..='~' if !"[\\]^`{|}~".contains(c) => c,
            _ => '?',
        })
        .collect()
}

fn spoken(duration: Duration) -> String {
    let secs = duration.as_secs();
    let (count, unit) = match secs {
        0..60 => (secs, "second"),
        // A message that took a moment to leave still says 10 minutes, not 9.
        60..7200 => ((secs + 5) / 60, "minute"),
        _ => (secs / 3600, "hour"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::ident::FactorId;

    const LINK: &str = "https://shop.example/auth/verify?preAuthSessionId=a&tenantId=public#s3cret";

    fn sign_in(to: &str, code: bool, link: bool, first_factor: bool) -> Notice {
        let secret = |text: &str| Secret::new(text.to_owned());
        Notice::SignInCode {
            to: Contact::parse(to).unwrap(),
            code: code.then(|| secret("012345")),
            link: link.then(|| secret(LINK)),
            valid_for: Duration::from_secs(600),
            factor: FactorId::OTP_EMAIL,
            first_factor,
        }
    }

    fn message(texts: &Texts, notice: &Notice) -> (String, String, String) {
        let Message { subject, text, html } = texts.message(&TenantId::PUBLIC, notice);
        (subject, text.expose().clone(), html.map(|html| html.expose().clone()).unwrap_or_default())
    }

    #[test]
    fn a_code_by_mail() {
        let (subject, text, html) = message(&Texts::new("Shop"), &sign_in("a@b.example", true, false, true));
        assert_eq!(subject, "Your code for Shop");
        assert_eq!(
            text,
            "Hello,\n\nUse this code to sign in to Shop.\n\n    012345\n\nThe code works once, for 10 minutes. \
             Never pass it on to anyone, not even to us.\n\nIf you didn't ask for this message, you can ignore \
             it.\n\nShop\n"
        );
        assert!(html.contains(">012345</p>") && html.contains("If you didn&#39;t ask"));
        let (_, text, _) = message(&Texts::new("Shop"), &sign_in("a@b.example", true, false, false));
        assert!(text.contains("finish signing in to Shop") && text.contains("please change it"));
    }

    #[test]
    fn links_and_both_by_mail() {
        let texts = Texts::new("Shop");
        let (_, text, html) = message(&texts, &sign_in("a@b.example", false, true, true));
        assert!(text.contains(&format!("\n\n    {LINK}\n\n")));
        assert!(html.contains("verify?preAuthSessionId=a&amp;tenantId=public#s3cret\">Sign in</a>"));
        let (subject, text, _) = message(&texts, &sign_in("a@b.example", true, true, true));
        assert_eq!(subject, "Your code and link for Shop");
        assert!(text.contains("012345") && text.contains(LINK) && text.contains("work once"));
        let to = Contact::parse("a@b.example").unwrap();
        let link = || Secret::new(LINK.to_owned());
        for (notice, want) in [
            (
                Notice::PasswordReset { to: to.clone(), link: link(), valid_for: Duration::from_secs(3600) },
                "Set a new password for Shop",
            ),
            (
                Notice::EmailVerification {
                    to: to.clone(),
                    link: link(),
                    valid_for: Duration::from_secs(86_400),
                },
                "Confirm your e-mail address for Shop",
            ),
        ] {
            let (subject, text, _) = message(&texts, &notice);
            assert_eq!(subject, want);
            assert!(text.contains(LINK), "{text}");
        }
        let (subject, ..) = message(&texts, &Notice::SuspiciousAttempts { to, factor: FactorId::TOTP });
        assert_eq!(subject, "Wrong codes for your account at Shop");
    }

    #[test]
    fn sec_o33_a_code_by_sms_is_one_message_bound_to_its_site() {
        let texts = Texts::new("Shop").website_host("shop.example");
        let (subject, text, html) = message(&texts, &sign_in("+36301111142", true, false, false));
        assert_eq!(
            text,
            "012345 is your code for Shop. Never pass it on to anyone.\n\n@shop.example #012345"
        );
        assert_eq!((subject.as_str(), html.as_str()), ("", ""));
        for (app, host) in [
            ("x".repeat(64), "h".repeat(200)),
            ("Kávéház ☕ \u{202E}{}~".repeat(9), format!("{}.example", "h".repeat(60))),
            (String::new(), "shop.example".to_owned()),
        ] {
            let texts = Texts::new(&app).website_host(&host);
            let (_, text, _) = message(&texts, &sign_in("+36301111142", true, false, true));
            assert!(
                text.starts_with("012345 is your code") && text.len() <= 160 && text.is_ascii(),
                "{text}"
            );
        }
        for bad in ["", "shop.example/x", "shop.example #1", "shop\nexample"] {
            assert_eq!(Texts::new("Shop").website_host(bad).host, None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn sec_o33_an_app_name_is_only_text(name in "[\\PC\r\n\0<>\"'&]{0,80}") {
            let texts = Texts::new(&name);
            let notice = sign_in("a@b.example", true, true, true);
            let (subject, _, html) = message(&texts, &notice);
            prop_assert!(!subject.chars().any(char::is_control));
            let (_, _, plain) = message(&Texts::new("Shop"), &notice);
            for mark in ['<', '>', '"', '\''] {
                prop_assert_eq!(html.matches(mark).count(), plain.matches(mark).count());
            }
        }
    }

    #[test]
    fn durations_are_spoken() {
        for (secs, want) in [
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (590, "9 minutes"),
            (599, "10 minutes"),
            (600, "10 minutes"),
            (3600, "60 minutes"),
            (7200, "2 hours"),
            (86_400, "24 hours"),
        ] {
            assert_eq!(spoken(Duration::from_secs(secs)), want);
        }
    }
}
