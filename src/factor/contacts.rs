//! To which addresses a user may have a code sent, the likeliest first (`spec/mfa.md` §12.1): pure.

use super::proves;
use crate::{
    base::{
        contact::{self, Email},
        ident::{FactorId, LoginId},
    },
    model::user::{LoginMethod, User},
};

/// The e-mail addresses suggested for a factor; element 0 is where screens send without asking.
pub(crate) fn emails(user: &User, session_login: &LoginId, factor: &FactorId) -> Vec<Email> {
    let mut logins: Vec<&LoginMethod> = user.logins.iter().collect();
    logins.sort_by_key(|login| login.joined_at);
    let real = |login: &&&LoginMethod| login.email.as_ref().is_some_and(|email| !contact::is_fake(email));
    let session = user.login(session_login).and_then(|login| login.email.clone());
    let own: Vec<&LoginMethod> = logins.iter().filter(|login| proves(login, factor)).copied().collect();
    if *factor == FactorId::OTP_EMAIL || *factor == FactorId::LINK_EMAIL {
        let bound = once(own.iter().filter_map(|login| login.email.clone()));
        return match bound.len() {
            0 => {
                let known = logins.iter().filter(real).filter_map(|login| login.email.clone());
                let first = session.into_iter().filter(|email| !contact::is_fake(email));
                once(first.chain(known))
            }
            1 => bound,
            _ => to_front(bound, session),
        };
    }
    let pick = |wanted: fn(&LoginMethod, &Email) -> bool, from: &[&LoginMethod]| -> Vec<Email> {
        let fits = |login: &&&LoginMethod| login.email.as_ref().is_some_and(|email| wanted(login, email));
        from.iter().filter(fits).filter_map(|login| login.email.clone()).collect()
    };
    let listed = if own.is_empty() {
        let real = pick(|_, email| !contact::is_fake(email), &logins);
        if real.is_empty() { pick(|_, email| contact::is_fake(email), &logins) } else { real }
    } else {
        let verified = pick(|login, email| login.verified && !contact::is_fake(email), &own);
        let unverified = pick(|login, email| !login.verified && !contact::is_fake(email), &own);
        let fake = pick(|_, email| contact::is_fake(email), &own);
        [verified, unverified, fake].concat()
    };
    let listed = to_front(once(listed.into_iter()), session);
    if listed.is_empty() && *factor == FactorId::PASSWORD {
        return Email::parse(&format!("{session_login}@stfakeemail.supertokens.com")).into_iter().collect();
    }
    listed
}

fn once(emails: impl Iterator<Item = Email>) -> Vec<Email> {
    let mut seen: Vec<Email> = Vec::new();
    for email in emails {
        if !seen.contains(&email) {
            seen.push(email);
        }
    }
    seen
}

fn to_front(mut emails: Vec<Email>, first: Option<Email>) -> Vec<Email> {
    if let Some(at) = first.and_then(|first| emails.iter().position(|email| *email == first)) {
        let first = emails.remove(at);
        emails.insert(0, first);
    }
    emails
}
