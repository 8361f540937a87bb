//! The words of a message. Pure: a notice in, a text out.
//!
//! Only values that the crate or the configuration made go into a text (row O33): a code, a link, a time,
//! the app's name and the app's own sentences. What users typed never does.

use std::{fmt, sync::Arc};

use super::{Notice, Words, words::english};
use crate::base::{contact::Contact, ident::TenantId, secret::Secret};

/// Turns notices into words. [`Texts`] are the ones that come with the crate.
/// A closure is one, too: [`Texts::reword`] does for other words, a closure or a type for another form.
pub trait Templates: Send + Sync + 'static {
    /// The message for a notice: a mail for an address, a short text for a number.
    fn message(&self, tenant: &TenantId, notice: &Notice) -> Message;
}

impl<F: Fn(&TenantId, &Notice) -> Message + Send + Sync + 'static> Templates for F {
    fn message(&self, tenant: &TenantId, notice: &Notice) -> Message {
        self(tenant, notice)
    }
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

/// The texts that come with the crate: English, or the app's own sentences in the same form.
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
///
/// // Other words for one notice, another language for one tenant; the rest stays as it is.
/// let texts = Texts::new("Corner Shop").reword(|tenant, notice, words| {
///     if let (Notice::SignInCode { .. }, "berlin") = (notice, tenant.as_str()) {
///         words.language = "de".to_owned();
///         words.subject = "Ihr Code für den Laden".to_owned();
///         words.lead = "Mit diesem Code melden Sie sich an:".to_owned();
///     }
/// });
/// let berlin: TenantId = "berlin".parse()?;
/// assert_eq!(texts.message(&berlin, &notice).subject, "Ihr Code für den Laden");
/// assert_eq!(texts.message(&TenantId::PUBLIC, &notice).subject, "Your code for Corner Shop");
/// # Ok::<(), tower_mfa::ident::ParseError>(())
/// ```
#[derive(Clone)]
pub struct Texts {
    app: String,
    host: Option<String>,
    reword: Option<Arc<Reword>>,
}

type Reword = dyn Fn(&TenantId, &Notice, &mut Words) + Send + Sync;

impl Texts {
    /// Texts that call the app by this name. Control characters are dropped, and what exceeds 64
    /// characters.
    pub fn new(app_name: &str) -> Self {
        let app: String = app_name.chars().filter(|c| !c.is_control()).take(64).collect();
        Self { app: app.trim().to_owned(), host: None, reword: None }
    }

    /// Ends each SMS that has a code with the line that binds the code to the website's host: phones then
    /// offer it on that site only.
    pub fn website_host(mut self, host: &str) -> Self {
        let fits = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b));
        self.host = fits.then(|| host.to_owned());
        self
    }

    /// Other words: the closure changes the sentences that it wants to, by tenant and by notice. It has no say in
    /// where the code and the link stand, nor in how they are escaped.
    pub fn reword(mut self, reword: impl Fn(&TenantId, &Notice, &mut Words) + Send + Sync + 'static) -> Self {
        self.reword = Some(Arc::new(reword));
        self
    }

    fn mail(&self, words: &Words, notice: &Notice) -> Message {
        let code = notice.code().map_or("", |code| code.expose().as_str());
        let link = notice.link().map_or("", |link| link.expose().as_str());
        let paragraphs = [
            &words.greeting,
            &words.lead,
            &indented(code),
            &indented(link),
            &words.validity,
            &words.end,
            &words.signature,
        ];
        let text: Vec<&str> =
            paragraphs.into_iter().filter(|text| !text.is_empty()).map(String::as_str).collect();
        let text = text.join("\n\n") + "\n";
        // One line: a header has no other.
        let subject: String = words.subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Message::new(&subject, text).html(html(words, &subject, code, link))
    }

    /// One SMS where there is a code alone: 160 characters of the GSM alphabet.
    fn sms(&self, words: &Words, notice: &Notice) -> Message {
        let code = notice.code().map_or("", |code| code.expose().as_str());
        let link = notice.link().map_or("", |link| link.expose().as_str());
        let said = |words: &Words| {
            let parts = [&gsm(&words.sms_before), code, &gsm(&words.sms_after), link];
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            parts.join(" ")
        };
        if code.is_empty() || !link.is_empty() {
            return Message::new("", said(words));
        }
        let end = match &self.host {
            Some(host) => format!("\n\n@{host} #{code}"),
            None => String::new(),
        };
        // Words, a name or a host may be too long for what must fit: the words go first, then the name.
        let plain = format!("{code} is your code. Never pass it on to anyone.");
        let tries = [said(words) + &end, said(&english(&self.app, notice)) + &end, plain.clone() + &end];
        let fits = tries.into_iter().find(|text| text.chars().count() <= SMS);
        Message::new("", fits.unwrap_or(plain))
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Texts").field("app", &self.app).field("host", &self.host).finish_non_exhaustive()
    }
}

impl Templates for Texts {
    fn message(&self, tenant: &TenantId, notice: &Notice) -> Message {
        let mut words = english(&self.app, notice);
        if let Some(reword) = &self.reword {
            reword(tenant, notice, &mut words);
        }
        match notice.to() {
            Contact::Email(_) => self.mail(&words, notice),
            Contact::Phone(_) => self.sms(&words, notice),
        }
    }
}

fn html(words: &Words, subject: &str, code: &str, link: &str) -> String {
    let paragraph = |text: &str| match text {
        "" => String::new(),
        text => format!("<p>{}</p>", escaped(text)),
    };
    let mut body = paragraph(&words.greeting) + &paragraph(&words.lead);
    if !code.is_empty() {
        body += &format!("<p style=\"font:bold 28px monospace;letter-spacing:4px\">{}</p>", escaped(code));
    }
    if !link.is_empty() {
        let link = escaped(link);
        body += &format!("<p><a href=\"{link}\">{}</a></p><p>{link}</p>", escaped(&words.button));
    }
    body += &[&words.validity, &words.end, &words.signature].map(|text| paragraph(text)).concat();
    format!(
        "<!doctype html><html lang=\"{}\"><head><meta charset=\"utf-8\"><title>{}</title></head>\
         <body style=\"font:16px sans-serif;max-width:34em;margin:2em auto\">{body}</body></html>",
        escaped(&words.language),
        escaped(subject)
    )
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

/// The characters of the GSM alphabet that take one septet (3GPP TS 23.038) and stand in a sentence; any other is
/// a `?`. No line ends, so that nothing but the crate's own line can bind a code to a site.
fn gsm(text: &str) -> String {
    const BEYOND_ASCII: &str = "£¥èéùìòÇØøÅåΔΦΓΛΩΠΨΣΘΞÆæßÉ¤¡ÄÖÑÜ§¿äöñüà";
    text.chars()
        .map(|c| match c {
            ' '..='~' if !"[\\]^`{|}~".contains(c) => c,
            c if BEYOND_ASCII.contains(c) => c,
            _ => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let factor = FactorId::OTP_PHONE;
        for (notice, want) in [
            (
                Notice::SuspiciousAttempts { to: to.clone(), factor: factor.clone() },
                "Wrong codes for your account at Shop",
            ),
            (
                Notice::CodesUsedUp { to: to.clone(), factor: factor.clone() },
                "Too many wrong codes for your account at Shop",
            ),
            (
                Notice::FactorAdded { to: to.clone(), factor: factor.clone() },
                "A way to sign in was added to your account at Shop",
            ),
            (
                Notice::FactorRemoved { to: to.clone(), factor },
                "A way to sign in was removed from your account at Shop",
            ),
            (Notice::PasswordChanged { to: to.clone() }, "The password of your account at Shop was changed"),
            (
                Notice::EmailChanged { to: to.clone() },
                "The e-mail address of your account at Shop was changed",
            ),
            (Notice::NewDevice { to }, "A new device signed in to your account at Shop"),
        ] {
            let (subject, text, html) = message(&texts, &notice);
            assert_eq!(subject, want);
            assert!(text.contains("If that wasn't you") && html.contains("If that wasn&#39;t you"));
        }
    }

    fn in_alphabet(text: &str) -> bool {
        text.chars().all(|c| c == '\n' || gsm(&c.to_string()) == c.to_string())
    }

    #[test]
    fn words_are_the_apps_to_choose_and_the_form_is_not() {
        let texts = Texts::new("Shop").website_host("shop.example").reword(|tenant, _, words| {
            if tenant.as_str() == "berlin" {
                words.language = "de\"><script>".to_owned();
                words.subject = "Ihr Code\r\nBcc: mallory@shop.example".to_owned();
                words.lead = "Für <Sie>:".to_owned();
                words.sms_after = "ist Ihr Code für Köln. @evil.example #000000\n@evil.example #1".to_owned();
            }
        });
        let berlin: TenantId = "berlin".parse().unwrap();
        let mail = texts.message(&berlin, &sign_in("a@b.example", true, false, true));
        assert_eq!(mail.subject, "Ihr Code  Bcc: mallory@shop.example");
        let html = mail.html.unwrap();
        assert!(html.expose().contains("<p>Für &lt;Sie&gt;:</p>") && !html.expose().contains("<script>"));
        assert!(mail.text.expose().contains("Für <Sie>:") && mail.text.expose().contains("012345"));
        let sms = texts.message(&berlin, &sign_in("+36301111142", true, false, true));
        assert_eq!(
            sms.text.expose(),
            "012345 ist Ihr Code für Köln. @evil.example #000000?@evil.example #1\n\n@shop.example #012345"
        );
        let others = message(&texts, &sign_in("a@b.example", true, false, true));
        assert_eq!(others, message(&Texts::new("Shop"), &sign_in("a@b.example", true, false, true)));
        let closure = |_: &TenantId, notice: &Notice| Message::new("own", format!("{notice:?}"));
        let own = closure.message(&berlin, &sign_in("a@b.example", true, false, true));
        assert_eq!((own.subject.as_str(), own.html.is_none()), ("own", true));
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
                text.starts_with("012345 is your code") && text.chars().count() <= 160 && in_alphabet(&text),
                "{text}"
            );
        }
        for bad in ["", "shop.example/x", "shop.example #1", "shop\nexample"] {
            assert_eq!(Texts::new("Shop").website_host(bad).host, None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn sec_o33_an_sms_is_one_whatever_the_words(
            name in "\\PC{0,80}",
            before in "[\\PC\r\n]{0,200}",
            after in "[\\PC\r\n]{0,200}",
            host in "[a-z0-9.:-]{1,80}",
        ) {
            let texts = Texts::new(&name).website_host(&host).reword(move |_, _, words| {
                words.sms_before = before.clone();
                words.sms_after = after.clone();
            });
            let (_, text, _) = message(&texts, &sign_in("+36301111142", true, false, true));
            prop_assert!(text.chars().count() <= 160 && in_alphabet(&text), "{}", text);
            prop_assert!(text.contains("012345"));
            // The last line binds the code to the site, and no other line does.
            let ends = format!("\n\n@{host} #012345");
            prop_assert_eq!(text.strip_suffix(&ends).map(|rest| rest.contains('\n')), Some(false));
        }

        #[test]
        fn sec_o33_an_app_name_is_only_text(name in "[\\PC\r\n\0<>\"'&]{0,80}") {
            // A name that is nothing leaves its line out.
            let texts = Texts::new(&format!("S{name}"));
            let notice = sign_in("a@b.example", true, true, true);
            let (subject, _, html) = message(&texts, &notice);
            prop_assert!(!subject.chars().any(char::is_control));
            let (_, _, plain) = message(&Texts::new("Shop"), &notice);
            for mark in ['<', '>', '"', '\''] {
                prop_assert_eq!(html.matches(mark).count(), plain.matches(mark).count());
            }
        }
    }
}
