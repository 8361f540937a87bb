//! Should a login method join a user? The app's rule, and the default.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use super::PolicyError;
use crate::{
    base::{
        contact::{Email, Phone},
        ident::{TenantId, UserId},
    },
    model::user::{LoginKind, NewLogin, ThirdPartyId, User},
};

/// Decides which login methods become one user: SuperTokens' `shouldDoAutomaticAccountLinking`.
///
/// It is asked three things, told apart by whom the login method would join ([`LinkContext::joins`]):
///
/// | `session_user` | `joins` | May … |
/// |---|---|---|
/// | somebody | nobody | … the session's user have several login methods? Asked while they have one; `account` is that one. |
/// | somebody | the same | … the login method that was proved within the session join its user? |
/// | nobody, or somebody | another | … it join whoever has the same address or number already? |
///
/// Only the session's user is ever joined without proof. Who signs in or up without a session joins another account
/// only if the address is proved on both sides, so [`Link::Yes`] counts as [`Link::IfVerified`] there; and where the
/// answer isn't [`Link::No`], an address that somebody else has and one of the two didn't prove is refused (rows L01 and
/// L09).
///
/// An address counts as proved by a third party's word. Of a provider of a tenant's own it is that tenant's word
/// ([`NewAccount::third_party`] says whose): a rule that takes it lets the tenant into the account of whoever has the
/// address and is in that tenant.
///
/// Second factors alone are linked unless an app says otherwise: see [`SecondFactorsOnly`]. An app that also wants one
/// account an address, whatever signs in by it:
///
/// ```
/// use tower_mfa::policy::{Link, LinkContext, LinkPolicy, PolicyError, SecondFactorsOnly};
///
/// struct OneAccountAnAddress;
///
/// impl LinkPolicy for OneAccountAnAddress {
///     async fn decide(&self, ctx: &LinkContext<'_>) -> Result<Link, PolicyError> {
///         match (ctx.session_user, ctx.joins) {
///             (None, Some(_)) => Ok(Link::IfVerified),
///             _ => SecondFactorsOnly::new().decide(ctx).await,
///         }
///     }
/// }
/// # fn build(builder: tower_mfa::MfaBuilder) -> tower_mfa::MfaBuilder {
/// builder.linking(OneAccountAnAddress)
/// # }
/// ```
///
/// When an account that exists joins another one ([`LinkContext::owner`] says whose the login method is), its login
/// method is all that is kept: its sessions, roles, opt-ins and metadata go, and the counts of its wrong guesses. An app
/// that keeps data under the id of that account answers [`Link::No`], or moves it.
pub trait LinkPolicy: Send + Sync + 'static {
    /// Decides. Asked only where nothing forbids it.
    ///
    /// # Errors
    /// An error fails the request: nothing is linked, and nobody is signed in (row L13).
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
    /// The login method that is asked about.
    pub account: &'a NewAccount,
    /// Whose it is already, if anybody's.
    pub owner: Option<&'a UserId>,
    /// Whom it would join. Nobody: it is the session user's own, who would become primary.
    pub joins: Option<&'a User>,
}

/// A login method that a [`LinkPolicy`] is asked about.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewAccount {
    /// What kind.
    pub kind: LoginKind,
    /// Its e-mail address, if it has one.
    pub email: Option<Email>,
    /// Its phone number, if it has one.
    pub phone: Option<Phone>,
    /// Whether the contact was proved: by it, or by another login method of the session's user.
    pub verified: bool,
    /// Who it is at a third party, if that is its kind, and whose provider says so: what a tenant's own provider says
    /// of an address is the tenant's word.
    pub third_party: Option<ThirdPartyId>,
}

impl NewAccount {
    pub(crate) fn new(login: &NewLogin, verified: bool) -> Self {
        let (email, phone) = (login.email.clone(), login.phone.clone());
        Self { kind: login.kind, email, phone, verified, third_party: login.third_party.clone() }
    }
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
///
/// A login method that is another account's joins by an app's own rule alone.
#[derive(Clone, Copy, Debug)]
pub struct SecondFactorsOnly {
    proved: Link,
}

impl SecondFactorsOnly {
    /// Without asking that addresses are proved: a password and an address that nobody confirmed may get a second
    /// factor.
    pub fn new() -> Self {
        Self { proved: Link::Yes }
    }

    /// With required verification: the address that the session's user signed up by must be proved before a second login
    /// method joins it, and that one's, too. Who hasn't proved theirs is sent to do so (403 for the claim `st-ev`): see
    /// [`EmailVerification`](crate::config::EmailVerification).
    ///
    /// ```
    /// # fn build(builder: tower_mfa::MfaBuilder) -> tower_mfa::MfaBuilder {
    /// use tower_mfa::{config::EmailVerification, policy::SecondFactorsOnly};
    ///
    /// builder
    ///     .email_verification(EmailVerification::Optional)
    ///     .linking(SecondFactorsOnly::new().require_verification())
    /// # }
    /// ```
    pub fn require_verification(self) -> Self {
        Self { proved: Link::IfVerified }
    }
}

impl Default for SecondFactorsOnly {
    fn default() -> Self {
        Self::new()
    }
}

impl LinkPolicy for SecondFactorsOnly {
    async fn decide(&self, ctx: &LinkContext<'_>) -> Result<Link, PolicyError> {
        let Some(user) = ctx.session_user else { return Ok(Link::No) };
        let theirs = ctx.owner.is_none_or(|owner| *owner == user.id);
        let mine = ctx.joins.is_none_or(|joins| joins.id == user.id);
        Ok(if theirs && mine { self.proved } else { Link::No })
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
