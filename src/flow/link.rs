//! What a proved login method does to users: within a session it joins the session's user, without one it may join
//! an account of the same contact. Pure: who owns what in, a plan out.

use crate::{
    base::{contact::Contact, ident::UserId, time::Timestamp},
    model::user::User,
    policy::Link,
};

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

/// Why a login method can't be used (`spec/wire.md` §13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotLinked {
    /// U: somebody has its contact, and one of the two didn't prove it; so nobody signs up by it.
    SignUp,
    /// I: the same at a sign-in.
    SignIn,
    /// I: the account is disabled.
    Disabled,
    /// L: it belongs to another primary user.
    OtherPrimary,
    /// A: its e-mail or phone belongs to another primary user.
    ContactTaken,
    /// S: the session's user can't become primary, because another primary user owns its contact.
    SessionUserBlocked,
    /// V: linking asks for a verified contact, and this one isn't.
    Unverified,
    /// The session's user must prove their address before anything joins them.
    SessionUserUnverified,
    /// The app's rule says no.
    Declined,
}

/// Who owns what, as one round of the transaction read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimants<'a> {
    pub(crate) session_user: &'a UserId,
    pub(crate) session_user_primary: bool,
    /// Whether the session's login method claims nothing that wasn't proved.
    pub(crate) session_user_proved: bool,
    /// The primary user of one of the session user's own contacts, if that is somebody else.
    pub(crate) session_contact_of: Option<&'a UserId>,
    /// Whose login method it is, and whether that user is primary.
    pub(crate) owner: Option<(&'a UserId, bool)>,
    /// The primary user of the login method's contact.
    pub(crate) contact_of: Option<&'a UserId>,
    /// Whether anybody else proved that contact.
    pub(crate) proved_by_other: bool,
    /// Whether its contact was proved, by it or by the session's user.
    pub(crate) verified: bool,
    /// Whether others let it in beside them, where the app joins accounts of one contact.
    pub(crate) beside_others: bool,
    /// What the app's rule said of the session's user becoming primary.
    pub(crate) primary: Link,
    /// What it said of the login method joining them.
    pub(crate) answer: Link,
}

/// Decides, in the order of `spec/mfa.md` §14.2 and 14.3: the session's user, who the login is, whose its contact is,
/// what the app says.
pub(crate) fn decide(claimants: &Claimants<'_>) -> Result<LinkPlan, NotLinked> {
    let me = claimants.session_user;
    if claimants.owner.is_some_and(|(owner, _)| owner == me) {
        return Ok(LinkPlan::Keep);
    }
    if !claimants.session_user_primary {
        match claimants.primary {
            Link::No => return Err(NotLinked::Declined),
            Link::IfVerified if !claimants.session_user_proved => {
                return Err(NotLinked::SessionUserUnverified);
            }
            _ if claimants.session_contact_of.is_some_and(|user| user != me) => {
                return Err(NotLinked::SessionUserBlocked);
            }
            _ => {}
        }
    }
    let plan = match claimants.owner {
        Some(_) if !claimants.beside_others => return Err(NotLinked::SignIn),
        None if !claimants.beside_others => return Err(NotLinked::SignUp),
        Some((_, true)) => return Err(NotLinked::OtherPrimary),
        Some((_, false)) => LinkPlan::Absorb,
        None => LinkPlan::Add,
    };
    // What somebody else proved isn't claimed without proof: else they could have no second factor of their own.
    let hijacked = claimants.proved_by_other && !claimants.verified;
    if hijacked || claimants.contact_of.is_some_and(|user| user != me) {
        return Err(NotLinked::ContactTaken);
    }
    match claimants.answer {
        Link::No => Err(NotLinked::Declined),
        Link::IfVerified if !claimants.verified => Err(NotLinked::Unverified),
        _ => Ok(plan),
    }
}

/// Somebody with the contact of a login method that isn't theirs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Other<'a> {
    pub(crate) user: &'a User,
    /// Whether they proved the contact.
    pub(crate) proved: bool,
}

impl<'a> Other<'a> {
    pub(crate) fn new(user: &'a User, contact: &Contact) -> Self {
        Self { user, proved: has_proved(user, contact) }
    }
}

/// Whether a user proved that a contact is theirs, by any of their login methods.
pub(crate) fn has_proved(user: &User, contact: &Contact) -> bool {
    user.logins.iter().any(|login| login.verified && login.contacts().any(|own| own == *contact))
}

/// Whom a login method would join: the primary one, or else who came first.
pub(crate) fn principal<'a>(others: &[Other<'a>]) -> Option<Other<'a>> {
    let first = || others.iter().min_by_key(|other| since(other.user));
    others.iter().find(|other| other.user.primary).or_else(first).copied()
}

/// Whether a login method, with its contact proved or not, may come beside others who have the contact (`spec/wire.md`
/// §13, "in short").
pub(crate) fn beside(verified: bool, others: &[Other<'_>]) -> bool {
    match others.iter().any(|other| other.user.primary) {
        true => verified && others.iter().all(|other| other.proved || !other.user.primary),
        false => others.iter().all(|other| other.proved),
    }
}

/// Whether who signs in or up joins the principal: only if the contact was proved on both sides (row L01), and not if
/// they were there before somebody who isn't primary. `me`: whose the login method is, if anybody's.
pub(crate) fn joins(verified: bool, me: Option<&User>, principal: Other<'_>) -> bool {
    let came_first = me.is_some_and(|me| since(me) < since(principal.user));
    verified && principal.proved && (principal.user.primary || !came_first)
}

/// Who came first: of two at the same moment it must be one, too.
fn since(user: &User) -> (Timestamp, &UserId) {
    (user.joined_at(), &user.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{contact::Email, ident::LoginId},
        model::user::{LoginKind, LoginMethod},
    };

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    #[test]
    fn sec_l10_whose_login_is_it() {
        let (me, other) = (user("me"), user("other"));
        let nobody = Claimants {
            session_user: &me,
            session_user_primary: false,
            session_user_proved: true,
            session_contact_of: None,
            owner: None,
            contact_of: None,
            proved_by_other: false,
            verified: true,
            beside_others: true,
            primary: Link::Yes,
            answer: Link::Yes,
        };
        let conflict = Claimants { session_contact_of: Some(&other), ..nobody };
        let (unproved, alone) = (
            Claimants { session_user_proved: false, ..nobody },
            Claimants { beside_others: false, contact_of: Some(&other), ..nobody },
        );
        let table = [
            (nobody, Ok(LinkPlan::Add)),
            (Claimants { owner: Some((&me, true)), answer: Link::No, ..nobody }, Ok(LinkPlan::Keep)),
            (Claimants { owner: Some((&me, false)), primary: Link::No, ..nobody }, Ok(LinkPlan::Keep)),
            (Claimants { owner: Some((&other, true)), ..nobody }, Err(NotLinked::OtherPrimary)),
            (Claimants { owner: Some((&other, false)), ..nobody }, Ok(LinkPlan::Absorb)),
            (Claimants { contact_of: Some(&other), ..nobody }, Err(NotLinked::ContactTaken)),
            (Claimants { contact_of: Some(&me), ..nobody }, Ok(LinkPlan::Add)),
            (Claimants { proved_by_other: true, ..nobody }, Ok(LinkPlan::Add)),
            (Claimants { proved_by_other: true, verified: false, ..nobody }, Err(NotLinked::ContactTaken)),
            (conflict, Err(NotLinked::SessionUserBlocked)),
            (Claimants { session_user_primary: true, ..conflict }, Ok(LinkPlan::Add)),
            (Claimants { answer: Link::No, ..nobody }, Err(NotLinked::Declined)),
            (Claimants { answer: Link::IfVerified, ..nobody }, Ok(LinkPlan::Add)),
            (Claimants { answer: Link::IfVerified, verified: false, ..nobody }, Err(NotLinked::Unverified)),
            // Whether the session's user becomes primary is asked first, and only of one who isn't.
            (Claimants { primary: Link::No, ..conflict }, Err(NotLinked::Declined)),
            (Claimants { primary: Link::No, session_user_primary: true, ..nobody }, Ok(LinkPlan::Add)),
            (unproved, Ok(LinkPlan::Add)),
            (Claimants { primary: Link::IfVerified, ..nobody }, Ok(LinkPlan::Add)),
            (Claimants { primary: Link::IfVerified, ..unproved }, Err(NotLinked::SessionUserUnverified)),
            (
                Claimants { primary: Link::IfVerified, session_user_primary: true, ..unproved },
                Ok(LinkPlan::Add),
            ),
            (alone, Err(NotLinked::SignUp)),
            (Claimants { owner: Some((&other, false)), ..alone }, Err(NotLinked::SignIn)),
        ];
        for (claimants, expected) in table {
            assert_eq!(decide(&claimants), expected, "{claimants:?}");
        }
    }

    /// Somebody with the address, since some second.
    fn somebody(id: &str, primary: bool, proved: bool, since: i64) -> User {
        let login = LoginId::parse(id).unwrap();
        let login = LoginMethod::new(login, LoginKind::EmailPassword, Timestamp::from_secs(since));
        let email = Some(Email::parse("a@shop.example").unwrap());
        let logins = vec![LoginMethod { email, verified: proved, ..login }];
        User { primary, ..User::new(user(id), logins) }
    }

    #[test]
    fn sec_l01_only_what_was_proved_on_both_sides_joins() {
        let contact = Contact::parse("a@shop.example").unwrap();
        let (primary, settled) = (somebody("p", true, true, 9), somebody("s", false, true, 5));
        let (claimed, squatter) = (somebody("c", true, false, 1), somebody("q", false, false, 2));
        let other = |user| Other::new(user, &contact);
        // Who the others are, whether a proved and an unproved one may come beside them, and whom they'd join.
        for (users, proved, unproved, whom) in [
            (vec![&settled], true, true, "s"),
            (vec![&squatter], false, false, "q"),
            (vec![&settled, &squatter], false, false, "q"),
            (vec![&settled, &primary], true, false, "p"),
            (vec![&squatter, &primary], true, false, "p"),
            (vec![&claimed], false, false, "c"),
            (vec![&claimed, &settled], false, false, "c"),
        ] {
            let others: Vec<Other<'_>> = users.iter().copied().map(other).collect();
            assert_eq!((beside(true, &others), beside(false, &others)), (proved, unproved), "{users:?}");
            let principal = principal(&others).unwrap();
            assert_eq!(principal.user.id.as_str(), whom);
            assert!(!joins(false, None, principal));
            assert_eq!(joins(true, None, principal), principal.proved);
        }
        assert!(principal(&[]).is_none() && beside(false, &[]));
        // Of two who aren't primary the later one joins the earlier one, and of two at once just one.
        let (earlier, later, twin) =
            (somebody("e", false, true, 4), somebody("l", false, true, 6), somebody("t", false, true, 5));
        assert!(joins(true, Some(&later), other(&settled)) && !joins(true, Some(&earlier), other(&settled)));
        assert_ne!(joins(true, Some(&twin), other(&settled)), joins(true, Some(&settled), other(&twin)));
        assert!(joins(true, Some(&earlier), other(&primary)));
    }
}
