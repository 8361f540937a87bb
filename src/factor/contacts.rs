//! To which addresses and numbers a user may have a code sent, the likeliest first (`spec/mfa.md` §12): pure.

use super::{Factors, proves};
use crate::{
    base::{
        contact::{self, Contact, Email, Phone},
        distinct,
        ident::{FactorId, LoginId},
    },
    model::user::{LoginMethod, User},
};

/// What is suggested for each available factor; element 0 is where screens send without asking.
///
/// In full: for whom it may be shown is decided by [`Overview`](super::Overview).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contacts {
    /// E-mail addresses, by factor.
    pub emails: Vec<(FactorId, Vec<Email>)>,
    /// Phone numbers, by factor.
    pub phones: Vec<(FactorId, Vec<Phone>)>,
}

impl Contacts {
    /// Those of them to which codes and links go, by factor: not the address that is a password's name.
    pub(crate) fn destinations(self) -> impl Iterator<Item = (FactorId, Vec<Contact>)> {
        let by_mail = |(factor, _): &(FactorId, _)| is_by_mail(factor);
        let emails = self.emails.into_iter().filter(by_mail);
        let emails = emails.map(|(factor, list)| (factor, list.into_iter().map(Contact::from).collect()));
        let phones = self.phones.into_iter();
        emails.chain(phones.map(|(factor, list)| (factor, list.into_iter().map(Contact::from).collect())))
    }
}

fn is_by_mail(factor: &FactorId) -> bool {
    [FactorId::OTP_EMAIL, FactorId::LINK_EMAIL].contains(factor)
}

impl Factors {
    /// What is suggested to a user whose session was made by `login`. `None` if that login method is the
    /// user's no more: then the session is over.
    pub fn contacts(&self, user: &User, login: &LoginId) -> Option<Contacts> {
        self.contacts_for(user, login, self.available())
    }

    /// What is suggested for these factors.
    pub(super) fn contacts_for(
        &self,
        user: &User,
        login: &LoginId,
        factors: Vec<FactorId>,
    ) -> Option<Contacts> {
        let session = user.login(login)?;
        let mut contacts = Contacts::default();
        for factor in factors {
            if [FactorId::OTP_PHONE, FactorId::LINK_PHONE].contains(&factor) {
                let phones = phones(user, session, &factor);
                contacts.phones.push((factor, phones));
            } else if factor != FactorId::TOTP {
                let emails = emails(user, session, &factor);
                contacts.emails.push((factor, emails));
            }
        }
        Some(contacts)
    }
}

fn emails(user: &User, session: &LoginMethod, factor: &FactorId) -> Vec<Email> {
    let logins = oldest_first(user);
    let real = |login: &&&LoginMethod| login.email.as_ref().is_some_and(|email| !contact::is_fake(email));
    let own: Vec<&LoginMethod> = logins.iter().filter(|login| proves(login, factor)).copied().collect();
    if is_by_mail(factor) {
        let bound = own.iter().filter_map(|login| login.email.clone());
        let known = logins.iter().filter(real).filter_map(|login| login.email.clone());
        let sessions = session.email.clone().filter(|email| !contact::is_fake(email));
        return destinations(bound, known, sessions);
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
    let listed = to_front(distinct(listed), session.email.as_ref());
    if listed.is_empty() && *factor == FactorId::PASSWORD {
        return Email::parse(&format!("{}@stfakeemail.supertokens.com", session.id)).into_iter().collect();
    }
    listed
}

fn phones(user: &User, session: &LoginMethod, factor: &FactorId) -> Vec<Phone> {
    let logins = oldest_first(user);
    let bound = logins.iter().filter(|login| proves(login, factor)).filter_map(|login| login.phone.clone());
    let known = logins.iter().filter_map(|login| login.phone.clone());
    destinations(bound, known, session.phone.clone())
}

/// Where something is sent: what is bound, so that no second login method is made; else what is known.
fn destinations<T: PartialEq>(
    bound: impl Iterator<Item = T>,
    known: impl Iterator<Item = T>,
    session: Option<T>,
) -> Vec<T> {
    let bound = distinct(bound);
    match bound.is_empty() {
        true => distinct(session.into_iter().chain(known)),
        false => to_front(bound, session.as_ref()),
    }
}

/// Those that joined at once stay in their order.
fn oldest_first(user: &User) -> Vec<&LoginMethod> {
    let mut logins: Vec<&LoginMethod> = user.logins.iter().collect();
    logins.sort_by_key(|login| login.joined_at);
    logins
}

fn to_front<T: PartialEq>(mut contacts: Vec<T>, first: Option<&T>) -> Vec<T> {
    if let Some(at) = first.and_then(|first| contacts.iter().position(|contact| contact == first)) {
        let first = contacts.remove(at);
        contacts.insert(0, first);
    }
    contacts
}
