//! What completing a factor has in common, as a first one ([`super::sign_in`]) and as a second
//! ([`super::second`]): who the credential is, and what is answered.

use super::{Desk, link::NotLinked};
use crate::{
    base::{
        error::Error,
        ident::{LoginId, TenantId, UserId},
    },
    factor::Credential,
    model::{
        Db, keys,
        user::{NewLogin, Owner, User},
    },
    policy::Person,
    session::{Opened, transport::Tokens},
};

/// How often requirements may move under a completion before it gives up (row P08).
pub(super) const ROUNDS: usize = 3;

/// What a completion came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done(Box<Completed>),
    /// The credential was used up by somebody else, or changed: start again (row O08).
    Lost,
    /// The name that was to be new signs somebody in already.
    Taken,
    NotLinked(NotLinked),
}

/// A factor was completed: the session, the user as it is now, and what leaves with the answer.
#[derive(Debug)]
pub(crate) struct Completed {
    pub(crate) user: User,
    /// Whether a login method was made.
    pub(crate) created: bool,
    /// Whether everything that is required is complete.
    pub(crate) met: bool,
    /// The token that was minted, and all that leaves with it.
    pub(crate) opened: Opened,
    pub(crate) tokens: Tokens,
}

/// One round of a completion.
pub(super) enum Round {
    Done(Outcome, Vec<crate::model::change::Change>),
    /// Requirements, user or tenant are not what they were: ask again.
    Moved,
}

/// Whose login method a credential is, as it was read before the transaction.
pub(super) struct Resolved {
    pub(super) owner: Option<Owner>,
    /// The credential as a name: what would be made if it is nobody's.
    pub(super) new: Option<NewLogin>,
    /// It must be nobody's.
    pub(super) fresh: bool,
}

impl Desk {
    /// Finds out whose credential it is.
    pub(super) async fn resolve(
        &self,
        tenant: &TenantId,
        credential: &Credential,
    ) -> Result<Resolved, Error> {
        let db: &Db = &self.kit.db;
        Ok(match credential {
            Credential::Known(owner) => Resolved { owner: Some(owner.clone()), new: None, fresh: false },
            Credential::Session => Resolved { owner: None, new: None, fresh: false },
            Credential::Named(new) | Credential::Fresh(new) => Resolved {
                owner: db.get(&new.key(tenant)).await?,
                new: Some(new.clone()),
                fresh: matches!(credential, Credential::Fresh(_)),
            },
        })
    }

    /// Somebody, as destinations and notices see them.
    pub(crate) async fn person_of(&self, id: &UserId) -> Result<Option<Person>, Error> {
        match self.kit.db.get(&keys::user(id)).await? {
            Some(user) => self.person(user).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn user(&self, owner: &Owner) -> Result<Option<User>, Error> {
        self.kit.db.get(&keys::user(&owner.user)).await
    }
}

/// The login method of a user as a name.
pub(super) fn named(user: &User, login: &LoginId) -> Option<NewLogin> {
    user.login(login).map(NewLogin::from)
}
