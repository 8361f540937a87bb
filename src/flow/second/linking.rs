//! Whose the login method is that was proved, and what becomes of it.

use super::Standpoint;
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::{LoginId, TenantId, UserId},
    },
    flow::{
        Caller, Desk,
        complete::{Resolved, named},
        link::{self, Claimants, LinkPlan, NotLinked},
        others::{Others, Question},
    },
    model::{
        Tx,
        change::Change,
        user::{self, NewLogin, User},
    },
    policy::Link,
    session::AccessClaims,
};

/// What the app's rule said of a login method that was proved within a session, and of whom it knew then.
pub(super) struct Linking {
    /// Of the session's user becoming primary.
    primary: Link,
    /// Of the login method joining them.
    joins: Link,
    /// Whether the session's login method claims nothing that wasn't proved.
    session_user_proved: bool,
    /// Whether the contact of the other login method was proved.
    verified: bool,
    /// Who else has that contact, where it matters.
    pub(super) others: Option<Others>,
    /// Whether they let it in beside them.
    beside_others: bool,
    /// Whether any of them proved it.
    proved_by_other: bool,
}

impl Linking {
    /// Nothing is asked about what the user has already.
    const NOT_ASKED: Self = Self {
        primary: Link::Yes,
        joins: Link::Yes,
        session_user_proved: true,
        verified: true,
        others: None,
        beside_others: true,
        proved_by_other: false,
    };
}

impl Desk {
    /// Whose the credential is. A contact that the session's user proved in another tenant is theirs here
    /// as well (`spec/mfa.md` §13.4).
    pub(super) fn owner_for(&self, user: &User, resolved: &Resolved) -> Option<UserId> {
        let elsewhere = resolved.new.as_ref().is_some_and(|new| has_name(user, new));
        let owner = resolved.owner.as_ref().map(|owner| owner.user.clone());
        owner.or_else(|| elsewhere.then(|| user.id.clone()))
    }

    /// Asks the app's rule, in the order of `spec/mfa.md` §14.2.
    pub(super) async fn linking(
        &self,
        caller: &Caller,
        at: &Standpoint,
        resolved: &Resolved,
    ) -> Result<Linking, Error> {
        let user = &at.user;
        if self.owner_for(user, resolved).is_some_and(|owner| owner == user.id) {
            return Ok(Linking::NOT_ASKED);
        }
        let holder = match &resolved.owner {
            Some(owner) => self.user(owner).await?.map(|other| (other, &owner.login)),
            None => None,
        };
        let stored = || holder.as_ref().and_then(|(other, login)| named(other, login));
        let Some(login) = resolved.new.clone().or_else(stored) else { return Ok(Linking::NOT_ASKED) };
        let contact = login.contact();
        let verified = login.verified || contact.is_some_and(|contact| link::has_proved(user, &contact));
        let owner = holder.as_ref().map(|(other, _)| &other.id);
        let (primary, session_user_proved) = self.may_be_primary(caller, at).await?;
        let mut linking = Linking { primary, session_user_proved, verified, ..Linking::NOT_ASKED };
        if primary == Link::No {
            return Ok(linking);
        }
        let question =
            Question { session_user: Some(user), login: &login, verified, owner, joins: Some(user) };
        linking.joins = self.ask_rule(caller, question).await?;
        // The rule about signing up, and about signing in by what nobody proved yet (§14.3).
        if holder.as_ref().is_none_or(|(other, _)| !other.primary && !verified) {
            let others = self.others(caller, &login, [Some(&user.id), owner].into_iter().flatten()).await?;
            let each = others.as_ref().map(Others::each).unwrap_or_default();
            if let Some(principal) = link::principal(&each) {
                let question = Question { joins: Some(principal.user), ..question };
                let wanted = self.ask_rule(caller, question).await? != Link::No;
                linking.beside_others = !wanted || link::beside(verified, &each);
            }
            linking.proved_by_other = each.iter().any(|other| other.proved);
            linking.others = others;
        }
        Ok(linking)
    }

    /// What the app's rule says of the session's user getting several login methods, and whether the one they have
    /// claims nothing that wasn't proved.
    async fn may_be_primary(&self, caller: &Caller, at: &Standpoint) -> Result<(Link, bool), Error> {
        let user = &at.user;
        if user.primary {
            return Ok((Link::Yes, true));
        }
        let gone = Error::new(ErrorKind::SessionEnded, "the session's login method is gone");
        let login = user.login(&at.row.login).ok_or(gone)?;
        let (name, verified) = (NewLogin::from(login), user.is_proved(login));
        let owner = Some(&user.id);
        let question = Question { session_user: Some(user), login: &name, verified, owner, joins: None };
        Ok((self.ask_rule(caller, question).await?, verified))
    }

    /// Whether the app's rule lets a contact that is yet to be proved join the session's user: no message is sent in
    /// vain. Whose it is already isn't said, so that the answer doesn't tell (row O24).
    pub(in crate::flow) async fn admits_contact(
        &self,
        caller: &Caller,
        at: &Standpoint,
        login: &NewLogin,
    ) -> Result<bool, Error> {
        if self.may_be_primary(caller, at).await?.0 == Link::No {
            return Ok(false);
        }
        let user: Option<&User> = Some(&at.user);
        let question = Question { session_user: user, login, verified: true, owner: None, joins: user };
        Ok(self.ask_rule(caller, question).await? != Link::No)
    }

    /// Stages what the plan says about login methods. Says whether one was added.
    pub(super) async fn stage_link(
        &self,
        tx: &mut Tx,
        user: &mut User,
        claims: &AccessClaims,
        resolved: &Resolved,
        linking: &Linking,
    ) -> Result<Result<(bool, Vec<Change>), NotLinked>, Error> {
        let tenant = &claims.tenant;
        let owner = &resolved.owner;
        let other = match owner.as_ref().filter(|owner| owner.user != user.id) {
            Some(owner) => user::load(tx, &owner.user).await?,
            None => None,
        };
        let new = match (&resolved.new, &other, owner) {
            (Some(new), ..) => Some(new.clone()),
            (None, Some(other), Some(owner)) => named(other, &owner.login),
            _ => None,
        };
        let Some(new) = new else { return Ok(Ok((false, Vec::new()))) };
        if owner.is_none() && has_name(user, &new) {
            // Proved in another tenant: from now on it counts here as well.
            if user::is_taken_in(tx, user, tenant).await? {
                return Ok(Err(NotLinked::ContactTaken));
            }
            user::add_to_tenant(tx, user, tenant).await?;
            return Ok(Ok((false, Vec::new())));
        }
        let contact_of = match &other {
            Some(other) => user::claimed_by_other(tx, &user.id, &other.logins).await?,
            None => user::primary_of(tx, tenant, &new).await?,
        };
        let session_contact_of = self.blocked_by(tx, user).await?;
        // Nobody gets out of an account that is disabled by joining another one.
        let kept = |other: &User| other.primary || other.disabled;
        let owned = owner.as_ref().map(|owner| (&owner.user, other.as_ref().is_some_and(kept)));
        let plan = link::decide(&Claimants {
            session_user: &user.id,
            session_user_primary: user.primary,
            session_user_proved: linking.session_user_proved,
            session_contact_of: session_contact_of.as_ref(),
            owner: owned,
            contact_of: contact_of.as_ref(),
            proved_by_other: linking.proved_by_other,
            verified: linking.verified,
            beside_others: linking.beside_others,
            primary: linking.primary,
            answer: linking.joins,
        });
        crate::base::failpoint!("link.before_commit" if matches!(plan, Ok(LinkPlan::Absorb | LinkPlan::Add)));
        match (plan, other) {
            (Err(not_linked), _) => Ok(Err(not_linked)),
            (Ok(LinkPlan::Keep), _) => Ok(Ok((false, Vec::new()))),
            (Ok(LinkPlan::Absorb), Some(other)) => Ok(Ok((true, vec![user::absorb(tx, user, other).await?]))),
            (Ok(LinkPlan::Add | LinkPlan::Absorb), _) => {
                let login = user::method(tx.now(), tenant, &new, LoginId::random()?);
                user::add_login(tx, tenant, user, login, &new).await?;
                Ok(Ok((true, Vec::new())))
            }
        }
    }

    /// The primary user of one of the user's own contacts, if that is somebody else.
    pub(in crate::flow) async fn blocked_by(
        &self,
        tx: &mut Tx,
        user: &User,
    ) -> Result<Option<UserId>, Error> {
        if user.primary { Ok(None) } else { user::claimed_by_other(tx, &user.id, &user.logins).await }
    }
}

/// Whether one of the user's login methods has this name, in whatever tenant.
fn has_name(user: &User, new: &NewLogin) -> bool {
    let tenant = TenantId::PUBLIC;
    user.logins.iter().any(|login| NewLogin::from(login).key(&tenant) == new.key(&tenant))
}
