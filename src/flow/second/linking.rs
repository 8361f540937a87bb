//! Whose the login method is that was proved, and what becomes of it.

use crate::{
    base::{
        error::Error,
        ident::{TenantId, UserId},
    },
    flow::{
        Caller, Desk,
        complete::{Resolved, named},
        evaluate::guarded,
        link::{self, Claimants, LinkPlan, NotLinked},
    },
    model::{
        Tx,
        change::Change,
        user::{self, NewLogin, User},
    },
    policy::{Link, LinkContext, NewAccount},
    session::AccessClaims,
};

impl Desk {
    /// Whose the credential is. A contact that the session's user proved in another tenant is theirs here
    /// as well (`spec/mfa.md` §13.4).
    pub(super) fn owner_for(&self, user: &User, resolved: &Resolved) -> Option<UserId> {
        let elsewhere = resolved.new.as_ref().is_some_and(|new| has_name(user, new));
        let owner = resolved.owner.as_ref().map(|owner| owner.user.clone());
        owner.or_else(|| elsewhere.then(|| user.id.clone()))
    }

    pub(super) async fn linking(
        &self,
        caller: &Caller,
        user: &User,
        resolved: &Resolved,
    ) -> Result<Link, Error> {
        let Some(new) = &resolved.new else { return Ok(Link::Yes) };
        let account = NewAccount {
            kind: new.kind,
            email: new.email.clone(),
            phone: new.phone.clone(),
            verified: new.verified,
        };
        let ctx = LinkContext {
            tenant: &caller.tenant,
            session_user: Some(user),
            account: &account,
            owner: resolved.owner.as_ref().map(|owner| &owner.user),
        };
        guarded(self.linking.ask(&ctx)).await
    }

    /// Stages what the plan says about login methods. Says whether one was added.
    pub(super) async fn stage_link(
        &self,
        tx: &mut Tx,
        user: &mut User,
        claims: &AccessClaims,
        resolved: &Resolved,
        linking: Link,
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
        let contact_of = user::primary_of(tx, tenant, &new).await?;
        let session_contact_of = self.blocked_by(tx, user, tenant).await?;
        let owned =
            owner.as_ref().map(|owner| (&owner.user, other.as_ref().is_some_and(|other| other.primary)));
        let plan = link::decide(&Claimants {
            session_user: &user.id,
            session_user_primary: user.primary,
            session_contact_of: session_contact_of.as_ref(),
            owner: owned,
            contact_of: contact_of.as_ref(),
            verified: new.verified,
            answer: linking,
        });
        crate::base::failpoint!("link.before_commit" if matches!(plan, Ok(LinkPlan::Absorb | LinkPlan::Add)));
        match (plan, other) {
            (Err(not_linked), _) => Ok(Err(not_linked)),
            (Ok(LinkPlan::Keep), _) => Ok(Ok((false, Vec::new()))),
            (Ok(LinkPlan::Absorb), Some(other)) => Ok(Ok((true, user::absorb(tx, user, other).await?))),
            (Ok(LinkPlan::Add | LinkPlan::Absorb), _) => {
                user::add_login(tx, tenant, user, &new).await?;
                Ok(Ok((true, Vec::new())))
            }
        }
    }

    /// The primary user of one of the user's own contacts, if that is somebody else.
    pub(in crate::flow) async fn blocked_by(
        &self,
        tx: &mut Tx,
        user: &User,
        tenant: &TenantId,
    ) -> Result<Option<UserId>, Error> {
        for login in user.logins.iter().filter(|_| !user.primary) {
            let owner = user::primary_of(tx, tenant, &NewLogin::from(login)).await?;
            if let Some(other) = owner.filter(|owner| *owner != user.id) {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }
}

/// Whether one of the user's login methods has this name, in whatever tenant.
fn has_name(user: &User, new: &NewLogin) -> bool {
    let tenant = TenantId::PUBLIC;
    user.logins.iter().any(|login| NewLogin::from(login).key(&tenant) == new.key(&tenant))
}
