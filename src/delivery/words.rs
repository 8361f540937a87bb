//! The sentences of the default texts.

use std::time::Duration;

use super::Notice;
use crate::base::{counted, ident::FactorId};

/// The sentences of a message, as plain text: [`Texts`](super::Texts) puts the code and the link between them, makes
/// the text and the HTML part of a mail of them, and escapes them there. An empty one is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Words {
    /// The language of the sentences, as HTML names it: `en`.
    pub language: String,
    /// The subject of a mail.
    pub subject: String,
    /// How it begins.
    pub greeting: String,
    /// What it is about.
    pub lead: String,
    /// What is written on the link.
    pub button: String,
    /// How often and how long the code or link works.
    pub validity: String,
    /// What to do if one didn't ask for it.
    pub end: String,
    /// The app's name, below.
    pub signature: String,
    /// What stands before the code in an SMS. It should fit into 160 characters together with the code and the line
    /// that binds the code to the site: if it doesn't, the default takes its place.
    pub sms_before: String,
    /// What stands behind the code in an SMS.
    pub sms_after: String,
}

/// The default sentences, in English.
pub(super) fn english(app: &str, notice: &Notice) -> Words {
    let words = match notice {
        Notice::SignInCode { valid_for, first_factor, code, link, .. } => {
            sign_in(app, code.is_some(), link.is_some(), *first_factor, *valid_for)
        }
        Notice::PasswordReset { valid_for, .. } => Words {
            subject: format!("Set a new password for {app}"),
            lead: format!("Open this link to set a new password for {app}."),
            button: "Set a new password".to_owned(),
            validity: format!("The link works once, for {}.", spoken(*valid_for)),
            end: "If you didn't ask for it, ignore this message: your password stays as it is.".to_owned(),
            sms_before: format!("Set a new password for {app}:"),
            ..Words::default()
        },
        Notice::EmailVerification { valid_for, .. } => Words {
            subject: format!("Confirm your e-mail address for {app}"),
            lead: format!("Open this link to confirm your e-mail address for {app}."),
            button: "Confirm".to_owned(),
            validity: format!("The link works once, for {}.", spoken(*valid_for)),
            end: "If you have no account there, ignore this message.".to_owned(),
            sms_before: format!("Confirm for {app}:"),
            ..Words::default()
        },
        Notice::SuspiciousAttempts { .. } => Words {
            subject: format!("Wrong codes for your account at {app}"),
            lead: format!(
                "Somebody got past the first step of signing in to your account at {app}, and then entered \
                 wrong codes several times."
            ),
            end: "If that wasn't you, somebody may know your password: please change it.".to_owned(),
            sms_before: format!("{app}: wrong codes for your account. Not you? Change your password."),
            ..Words::default()
        },
        Notice::CodesUsedUp { factor, .. } => Words {
            subject: format!("Too many wrong codes for your account at {app}"),
            lead: format!(
                "Somebody got past the first step of signing in to your account at {app}, and then entered so \
                 many wrong codes that for now none is accepted. It was about {}.",
                spoken_of(factor)
            ),
            end:
                "If that wasn't you, somebody knows your password: please change it. If it was you, wait for \
                  15 minutes; should codes be refused even then, get in touch with us."
                    .to_owned(),
            sms_before: format!(
                "{app}: too many wrong codes for your account. Not you? Change your password."
            ),
            ..Words::default()
        },
        Notice::FactorAdded { factor, .. } => Words {
            subject: format!("A way to sign in was added to your account at {app}"),
            lead: format!("Your account at {app} can now be signed in to with {}.", spoken_of(factor)),
            end: "If that wasn't you, somebody else is in your account: please get in touch with us."
                .to_owned(),
            sms_before: format!("{app}: a way to sign in was added to your account. Not you? Contact us."),
            ..Words::default()
        },
        Notice::FactorRemoved { factor, .. } => Words {
            subject: format!("A way to sign in was removed from your account at {app}"),
            lead: format!("Your account at {app} can no longer be signed in to with {}.", spoken_of(factor)),
            end: "If that wasn't you, somebody else is in your account: please get in touch with us."
                .to_owned(),
            sms_before: format!("{app}: a way to sign in was removed. Not you? Contact us."),
            ..Words::default()
        },
        Notice::PasswordChanged { .. } => Words {
            subject: format!("The password of your account at {app} was changed"),
            lead: format!("Your account at {app} has another password now."),
            end: "If that wasn't you, set a new one at once by this address.".to_owned(),
            sms_before: format!("{app}: your password was changed. Not you? Contact us."),
            ..Words::default()
        },
        Notice::EmailChanged { .. } => Words {
            subject: format!("The e-mail address of your account at {app} was changed"),
            lead: format!("Your account at {app} has another e-mail address now, in the place of this one."),
            end: "If that wasn't you, somebody else is in your account: please get in touch with us."
                .to_owned(),
            sms_before: format!("{app}: your e-mail address was changed. Not you? Contact us."),
            ..Words::default()
        },
        Notice::NewDevice { .. } => Words {
            subject: format!("A new device signed in to your account at {app}"),
            lead: format!(
                "Somebody just signed in to your account at {app}, from a browser or an app that you \
                 haven't used there before."
            ),
            end: "If that wasn't you, please change your password.".to_owned(),
            sms_before: format!("{app}: a new device signed in to your account. Not you? Contact us."),
            ..Words::default()
        },
    };
    Words { language: "en".to_owned(), greeting: "Hello,".to_owned(), signature: app.to_owned(), ..words }
}

fn sign_in(app: &str, code: bool, link: bool, first_factor: bool, valid_for: Duration) -> Words {
    let what = match (code, link) {
        (true, false) => "code",
        (false, _) => "link",
        (true, true) => "code and link",
    };
    let goal = if first_factor { "sign in to" } else { "finish signing in to" };
    let (works, it) = if code && link { ("work", "them") } else { ("works", "it") };
    let (sms_before, sms_after) = match (code, link) {
        (true, false) => (String::new(), format!("is your code for {app}. Never pass it on to anyone.")),
        (true, true) => (String::new(), format!("is your code for {app}. Or open")),
        (false, _) => (format!("Open this link for {app}:"), String::new()),
    };
    Words {
        subject: format!("Your {what} for {app}"),
        lead: format!("Use this {what} to {goal} {app}."),
        button: "Sign in".to_owned(),
        validity: format!(
            "The {what} {works} once, for {}. Never pass {it} on to anyone, not even to us.",
            spoken(valid_for)
        ),
        end: match first_factor {
            true => "If you didn't ask for this message, you can ignore it.".to_owned(),
            false => "If you aren't signing in right now, somebody else may know your password: please \
                      change it."
                .to_owned(),
        },
        sms_before,
        sms_after,
        ..Words::default()
    }
}

fn spoken_of(factor: &FactorId) -> &'static str {
    match factor.as_str() {
        "emailpassword" => "a password",
        "otp-email" => "a code by e-mail",
        "link-email" => "a link by e-mail",
        "otp-phone" => "a code by SMS",
        "link-phone" => "a link by SMS",
        "totp" => "an authenticator app",
        "webauthn" => "a passkey",
        "thirdparty" => "an account elsewhere",
        _ => "something new",
    }
}

fn spoken(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0..60 => counted(secs, "second"),
        // A message that took a moment to leave still says 10 minutes, not 9.
        60..7200 => counted((secs + 5) / 60, "minute"),
        _ => counted(secs / 3600, "hour"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
