//! A user ends sessions of their own: for that a factor must have been proven lately (row S16).

use super::{Desk, admit};
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::SessionHandle,
    },
    model::{keys, user::User},
    session::{Opened, transport::Tokens},
};

impl Desk {
    /// Ends one session of a session's user. Unknown ones and those of others are answered alike: `false`.
    pub(crate) async fn end_own(&self, opened: &Opened, handle: &SessionHandle) -> Result<bool, Error> {
        self.proven_lately(opened).await?;
        self.kit.revoke_of(&opened.claims.user, handle).await
    }

    /// Ends every other session of a session's user.
    pub(crate) async fn end_others(&self, opened: &Opened) -> Result<(Opened, Tokens), Error> {
        self.proven_lately(opened).await?;
        self.kit.revoke_others(opened).await
    }

    /// Whether a factor as strong as the strongest that the user has was proven within five minutes, by the
    /// session's row and not by its token.
    async fn proven_lately(&self, opened: &Opened) -> Result<(), Error> {
        let claims = &opened.claims;
        let row = self.kit.db.look(|mut tx| async move {
            let held = self.kit.held(&mut tx, claims).await?;
            tx.abandon(held.row)
        });
        let row = row.await?;
        let claim = self.claim_of(&row).await?;
        let user = self.kit.db.get::<User>(&keys::user(&row.user)).await?;
        let set_up = user.map(|user| self.factors.bound((&user).into())).unwrap_or_default();
        // Half a sign-in may not do it, however young it is.
        match claim.v && admit::fresh(&claim, &set_up, self.kit.db.now()) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::StepUp, "a factor must be proven again first")),
        }
    }
}
