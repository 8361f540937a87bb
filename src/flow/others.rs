//! Others who have the contact of a login method, and the app's rule about what joins whom.

use super::{Caller, Desk, evaluate::guarded, link::Other};
use crate::{
    base::{contact::Contact, error::Error, ident::UserId},
    model::{
        Tx,
        user::{self, NewLogin, User},
    },
    policy::{Link, LinkContext, NewAccount},
};

/// A question to the app's rule.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) session_user: Option<&'a User>,
    pub(super) login: &'a NewLogin,
    pub(super) verified: bool,
    pub(super) owner: Option<&'a UserId>,
    pub(super) joins: Option<&'a User>,
}

/// Who had the contact of a login method when something was decided about it.
pub(super) struct Others {
    contact: Contact,
    /// Those who don't count: whose the login method is, and whom it joins.
    but: Vec<UserId>,
    users: Vec<User>,
}

impl Others {
    /// With what is known of each.
    pub(super) fn each(&self) -> Vec<Other<'_>> {
        self.users.iter().map(|user| Other::new(user, &self.contact)).collect()
    }
}

impl Desk {
    pub(super) async fn ask_rule(&self, caller: &Caller, question: Question<'_>) -> Result<Link, Error> {
        let Question { session_user, login, verified, owner, joins } = question;
        let account = &NewAccount::new(login, verified);
        let ctx = LinkContext { tenant: &caller.tenant, session_user, account, owner, joins };
        guarded(self.linking.ask(&ctx)).await
    }

    /// Who else has the contact of a login method in the caller's tenant. `None`: it has no contact.
    pub(super) async fn others(
        &self,
        caller: &Caller,
        login: &NewLogin,
        but: impl IntoIterator<Item = &UserId>,
    ) -> Result<Option<Others>, Error> {
        let Some(contact) = login.contact() else { return Ok(None) };
        let but: Vec<UserId> = but.into_iter().cloned().collect();
        let (to, without) = (&contact, &but);
        let look = |mut tx: Tx| async move {
            let users = read(&mut tx, caller, to, without).await?;
            tx.abandon(users)
        };
        let users = self.kit.db.look(look).await?;
        Ok(Some(Others { contact, but, users }))
    }
}

/// Whether they are who they were.
pub(super) async fn are_same(tx: &mut Tx, caller: &Caller, others: Option<&Others>) -> Result<bool, Error> {
    match others {
        Some(others) => Ok(read(tx, caller, &others.contact, &others.but).await? == others.users),
        None => Ok(true),
    }
}

async fn read(tx: &mut Tx, caller: &Caller, contact: &Contact, but: &[UserId]) -> Result<Vec<User>, Error> {
    let mut users = user::holders(tx, &caller.tenant, contact).await?;
    users.retain(|user| !but.contains(&user.id));
    Ok(users)
}
