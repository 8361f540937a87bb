//! Who may sign in: the one way to an account that every door takes.

use std::ops::{Deref, DerefMut};

use super::{User, load, void_codes};
use crate::{
    base::{
        error::Error,
        ident::{TenantId, UserId},
    },
    model::{
        Tx,
        audit::{self, Audited, Cause, Event},
        change::Change,
        keys, session,
        ticket::{self, Kind},
    },
};

/// A user who isn't disabled. Without one no session begins, no factor is completed, no link from a mail is spent,
/// whatever way somebody came (row W06).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Active(User);

/// The user is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disabled;

impl Active {
    pub(crate) fn of(user: User) -> Result<Self, Disabled> {
        if user.disabled { Err(Disabled) } else { Ok(Self(user)) }
    }

    /// The same, as everything else knows it.
    pub(crate) fn to_user(&self) -> User {
        self.0.clone()
    }
}

impl Deref for Active {
    type Target = User;

    fn deref(&self) -> &User {
        &self.0
    }
}

impl DerefMut for Active {
    fn deref_mut(&mut self) -> &mut User {
        &mut self.0
    }
}

/// Loads a user who may sign in: `None` if there is none, or if they are disabled.
pub(crate) async fn active(tx: &mut Tx, id: &UserId) -> Result<Option<Active>, Error> {
    Ok(load(tx, id).await?.and_then(|user| Active::of(user).ok()))
}

/// Stages that a user is disabled: every session ends, and what is under way to them by mail or SMS is void (row S10).
pub(crate) async fn disable(tx: &mut Tx, user: &mut User) -> Result<Change, Error> {
    user.disabled = true;
    tx.put(keys::user(&user.id), user, None).await?;
    void_codes(tx, user).await?;
    ticket::void(tx, &user.id, &Kind::ALL).await?;
    audit::stage(tx, Event::new(Audited::UserDisabled, &TenantId::PUBLIC).user(&user.id))?;
    session::end_of_user(tx, &user.id, None, Cause::Disabled).await
}

/// Stages that a user may sign in again. What ended stays ended.
pub(crate) async fn enable(tx: &mut Tx, user: &mut User) -> Result<(), Error> {
    user.disabled = false;
    audit::stage(tx, Event::new(Audited::UserEnabled, &TenantId::PUBLIC).user(&user.id))?;
    tx.put(keys::user(&user.id), user, None).await
}
