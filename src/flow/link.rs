//! What a second factor's login does to the session's user. Pure: who owns what in, a plan out.

use crate::{base::ident::UserId, policy::Link};

/// What is written about login methods when a factor is completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkPlan {
    /// The login method is the session user's already.
    Keep,
    /// A new login method joins the session's user.
    Add,
    /// Another user, who has this login method alone, becomes part of the session's user.
    Absorb,
}

/// Why the login method can't join the session's user (`spec/wire.md` §13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotLinked {
    /// L: it belongs to another primary user.
    OtherPrimary,
    /// A: its e-mail or phone belongs to another primary user.
    ContactTaken,
    /// S: the session's user can't become primary, because another primary user owns its contact.
    SessionUserBlocked,
    /// V: linking asks for a verified contact, and this one isn't.
    Unverified,
    /// The app's rule says no.
    Declined,
}

/// Who owns what, as one round of the transaction read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimants<'a> {
    pub(crate) session_user: &'a UserId,
    pub(crate) session_user_primary: bool,
    /// The primary user of one of the session user's own contacts, if that is somebody else.
    pub(crate) session_contact_of: Option<&'a UserId>,
    /// Whose login method it is, and whether that user is primary.
    pub(crate) owner: Option<(&'a UserId, bool)>,
    /// The primary user of the login method's contact.
    pub(crate) contact_of: Option<&'a UserId>,
    pub(crate) verified: bool,
    /// What the app's rule said.
    pub(crate) answer: Link,
}

/// Decides, in the order of §13: who the login is, then whose its contact is, then what the app says.
pub(crate) fn decide(claimants: &Claimants<'_>) -> Result<LinkPlan, NotLinked> {
    let me = claimants.session_user;
    let plan = match claimants.owner {
        Some((owner, _)) if owner == me => return Ok(LinkPlan::Keep),
        Some((_, true)) => return Err(NotLinked::OtherPrimary),
        Some((_, false)) => LinkPlan::Absorb,
        None => LinkPlan::Add,
    };
    if !claimants.session_user_primary && claimants.session_contact_of.is_some_and(|user| user != me) {
        return Err(NotLinked::SessionUserBlocked);
    }
    if claimants.contact_of.is_some_and(|user| user != me) {
        return Err(NotLinked::ContactTaken);
    }
    match claimants.answer {
        Link::No => Err(NotLinked::Declined),
        Link::IfVerified if !claimants.verified => Err(NotLinked::Unverified),
        _ => Ok(plan),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    #[test]
    fn sec_l10_whose_login_is_it() {
        let (me, other) = (user("me"), user("other"));
        let nobody = Claimants {
            session_user: &me,
            session_user_primary: false,
            session_contact_of: None,
            owner: None,
            contact_of: None,
            verified: true,
            answer: Link::Yes,
        };
        let table = [
            (nobody, Ok(LinkPlan::Add)),
            (Claimants { owner: Some((&me, true)), answer: Link::No, ..nobody }, Ok(LinkPlan::Keep)),
            (Claimants { owner: Some((&other, true)), ..nobody }, Err(NotLinked::OtherPrimary)),
            (Claimants { owner: Some((&other, false)), ..nobody }, Ok(LinkPlan::Absorb)),
            (Claimants { contact_of: Some(&other), ..nobody }, Err(NotLinked::ContactTaken)),
            (Claimants { contact_of: Some(&me), ..nobody }, Ok(LinkPlan::Add)),
            (Claimants { session_contact_of: Some(&other), ..nobody }, Err(NotLinked::SessionUserBlocked)),
            (
                Claimants { session_contact_of: Some(&other), session_user_primary: true, ..nobody },
                Ok(LinkPlan::Add),
            ),
            (Claimants { answer: Link::No, ..nobody }, Err(NotLinked::Declined)),
            (Claimants { answer: Link::IfVerified, ..nobody }, Ok(LinkPlan::Add)),
            (Claimants { answer: Link::IfVerified, verified: false, ..nobody }, Err(NotLinked::Unverified)),
        ];
        for (claimants, expected) in table {
            assert_eq!(decide(&claimants), expected, "{claimants:?}");
        }
    }
}
