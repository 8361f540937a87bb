//! What a session's user is told of their factors: pure. `/mfa/info` answers with it.

use std::fmt;

use super::{Enrolled, Factors};
use crate::{
    base::{
        contact::Contact,
        distinct,
        ident::{FactorId, LoginId},
        time::Timestamp,
    },
    claim::MfaClaim,
    model::user::{LoginKind, LoginMethod},
    policy::{Explanation, Grace, Requirements, may_set_up},
};

/// What comes next, what is there, what may be set up, and where to.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overview {
    /// Any of these brings the user further; what every refusal says as well.
    pub next: Vec<FactorId>,
    /// The available factors that the user has.
    pub set_up: Vec<FactorId>,
    /// Those for which a credential may be made now (row F01).
    pub allowed: Vec<FactorId>,
    /// E-mail addresses by factor, as they may be shown (row P18).
    pub emails: Vec<(FactorId, Vec<String>)>,
    /// Phone numbers by factor, likewise.
    pub phones: Vec<(FactorId, Vec<String>)>,
    /// What the tenant waits for, and until when.
    pub grace: Option<Grace>,
    /// Why, item by item.
    pub explanation: Explanation,
}

/// How many contacts, not which (row G02).
impl fmt::Debug for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contacts = self.emails.iter().chain(&self.phones);
        let contacts: Vec<_> = contacts.map(|(factor, listed)| (factor, listed.len())).collect();
        f.debug_struct("Overview")
            .field("next", &self.next)
            .field("set_up", &self.set_up)
            .field("allowed", &self.allowed)
            .field("contacts", &contacts)
            .field("grace", &self.grace)
            .field("explanation", &self.explanation)
            .finish()
    }
}

impl Factors {
    /// What a user is told whose session was made by `login` and says `claim`, judged just now by
    /// `requirements`. `None` if that login method is the user's no more: then the session is over.
    pub fn overview(
        &self,
        enrolled: Enrolled<'_>,
        login: &LoginId,
        claim: &MfaClaim,
        requirements: &Requirements,
        now: Timestamp,
    ) -> Option<Overview> {
        let bound = self.bound(enrolled);
        let requirements = requirements.clone().among(self.usable()).for_user_with(&bound);
        let open = requirements.next_set(&claim.c, now).map(|next| next.factors).unwrap_or_default();
        // Where links alone begin a sign-in, the code of their channel is listed once it is asked for.
        let asked = |factor: &FactorId| factor.is_built_in() && open.contains(factor);
        let listed = distinct(self.available().into_iter().chain(self.usable().into_iter().filter(asked)));
        let contacts = self.contacts_for(enrolled.user, login, listed.clone())?;
        let allowed = |factor: &FactorId| may_set_up(claim.v, &open, &bound, factor).is_ok();
        let explanation = requirements.explain(&claim.c, now);
        let seen = Sight {
            all: claim.v,
            open: &open,
            bound: &bound,
            session: enrolled.user.login(login),
            masks: self.masks,
        };
        Some(Overview {
            next: explanation.next.as_ref().map(|next| next.factors.clone()).unwrap_or_default(),
            set_up: listed.iter().filter(|factor| bound.contains(factor)).cloned().collect(),
            allowed: listed.into_iter().filter(allowed).collect(),
            emails: seen.of(contacts.emails),
            phones: seen.of(contacts.phones),
            grace: requirements.grace().cloned(),
            explanation,
        })
    }
}

/// Which contacts are shown. Until the requirements are met only what the person needs now (row P18), and
/// only what they typed into this session in full (decision of the house 15).
struct Sight<'a> {
    all: bool,
    open: &'a [FactorId],
    bound: &'a [FactorId],
    session: Option<&'a LoginMethod>,
    /// The app shows nothing in full.
    masks: bool,
}

impl Sight<'_> {
    fn of<T: Clone + Into<Contact>>(
        &self,
        contacts: Vec<(FactorId, Vec<T>)>,
    ) -> Vec<(FactorId, Vec<String>)> {
        let listed = |(factor, listed): (FactorId, Vec<T>)| {
            let contacts: Vec<Contact> = listed.into_iter().map(Into::into).collect();
            let shown = if self.all || self.needs(&factor) { contacts } else { Vec::new() };
            (factor, shown.iter().map(|contact| self.text(contact)).collect())
        };
        contacts.into_iter().map(listed).collect()
    }

    fn needs(&self, factor: &FactorId) -> bool {
        let enrolling = !self.open.iter().any(|wanted| self.bound.contains(wanted));
        self.open.contains(factor) && (self.bound.contains(factor) || enrolling)
    }

    fn text(&self, contact: &Contact) -> String {
        // What the app said of its own user was typed by nobody.
        let typed = |login: &LoginMethod| match contact {
            _ if login.kind == LoginKind::External => false,
            Contact::Email(email) => login.email.as_ref() == Some(email),
            Contact::Phone(phone) => login.phone.as_ref() == Some(phone),
        };
        match !self.masks && (self.all || self.session.is_some_and(typed)) {
            true => contact.as_str().to_owned(),
            false => contact.masked(),
        }
    }
}
