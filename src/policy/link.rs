//! Should a login method join a user? The app's rule, and the default.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use super::PolicyError;
use crate::{
    base::{
        contact::{Email, Phone},
        ident::{TenantId, UserId},
    },
    model::user::{LoginKind, User},
};

/// Decides whether the login method somebody just proved joins the session's user.
pub trait LinkPolicy: Send + Sync + 'static {
    /// Decides. Asked only where nothing forbids it.
    ///
    /// # Errors
    /// An error fails the request: nothing is linked (row L13).
    fn decide(&self, ctx: &LinkContext<'_>) -> impl Future<Output = Result<Link, PolicyError>> + Send;
}

/// What a [`LinkPolicy`] may look at.
#[derive(Debug)]
#[non_exhaustive]
pub struct LinkContext<'a> {
    /// The tenant.
    pub tenant: &'a TenantId,
    /// The user of the session, if there is one.
    pub session_user: Option<&'a User>,
    /// What was proved.
    pub account: &'a NewAccount,
    /// Whose it is already, if anybody's.
    pub owner: Option<&'a UserId>,
}

/// A login method that was proved and belongs to no session yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewAccount {
    /// What kind.
    pub kind: LoginKind,
    /// Its e-mail address, if it has one.
    pub email: Option<Email>,
    /// Its phone number, if it has one.
    pub phone: Option<Phone>,
    /// Whether the contact was proved.
    pub verified: bool,
}

/// A [`LinkPolicy`]'s answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Link {
    /// It stays by itself.
    No,
    /// It joins.
    Yes,
    /// It joins if its contact was proved.
    IfVerified,
}

/// The default: a login method joins only a session's user, and only if it is nobody's or theirs. That is
/// what a second factor needs, and no more.
#[derive(Clone, Copy, Debug, Default)]
pub struct SecondFactorsOnly;

impl LinkPolicy for SecondFactorsOnly {
    async fn decide(&self, ctx: &LinkContext<'_>) -> Result<Link, PolicyError> {
        Ok(match (ctx.session_user, ctx.owner) {
            (Some(_), None) => Link::Yes,
            (Some(user), Some(owner)) if user.id == *owner => Link::Yes,
            _ => Link::No,
        })
    }
}

/// Any link policy, chosen at run time.
#[derive(Clone)]
pub(crate) struct AnyLinkPolicy(Arc<dyn Erased>);

impl AnyLinkPolicy {
    pub(crate) fn new(policy: impl LinkPolicy) -> Self {
        Self(Arc::new(policy))
    }

    pub(crate) async fn ask(&self, ctx: &LinkContext<'_>) -> Result<Link, PolicyError> {
        self.0.decide_boxed(ctx).await
    }
}

impl fmt::Debug for AnyLinkPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyLinkPolicy")
    }
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Link, PolicyError>> + Send + 'a>>;

trait Erased: Send + Sync {
    fn decide_boxed<'a>(&'a self, ctx: &'a LinkContext<'_>) -> Answer<'a>;
}

impl<P: LinkPolicy> Erased for P {
    fn decide_boxed<'a>(&'a self, ctx: &'a LinkContext<'_>) -> Answer<'a> {
        Box::pin(self.decide(ctx))
    }
}
