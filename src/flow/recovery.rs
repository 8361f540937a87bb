//! A mailbox takes an account back: what goes with it when an address is proved by somebody without a session.

use super::Desk;
use crate::{
    base::{
        error::Error,
        ident::{LoginId, SessionHandle, TenantId, UserId},
    },
    delivery::{Notice, telling::factor_of},
    model::{
        Tx,
        audit::{self, Audited, Cause, Event},
        change::Change,
        keys,
        session::{self, SessionRecord},
        ticket,
        user::{self, User},
    },
};

impl Desk {
    /// Stages what the first proof of an address takes away: it settles whose the account is. The session that proves it
    /// goes on, `held`, and every other one ends; where none does, whoever made the account may be somebody else, and
    /// nothing that they know or hold outlives it: sessions, codes under way, login methods, the password (rows L02,
    /// L03).
    pub(super) async fn stage_first_proof(
        &self,
        tx: &mut Tx,
        tenant: &TenantId,
        user: &mut User,
        proved: &LoginId,
        held: Option<(&SessionHandle, &mut SessionRecord)>,
    ) -> Result<Vec<Change>, Error> {
        if held.is_some() {
            return end_others(tx, &user.id, held).await;
        }
        tx.remove(keys::password(proved));
        Ok(vec![self.stage_recovery(tx, tenant, user, proved, true).await?])
    }

    /// Stages that the owner of a proved address has the account: every session ends, codes and tickets under way are
    /// void, a pending change of the address with them, and login methods that somebody else may have added are gone;
    /// the owner is told of each (rows L02, L03, L04, S10). `first`: the address was never proved before.
    pub(super) async fn stage_recovery(
        &self,
        tx: &mut Tx,
        tenant: &TenantId,
        user: &mut User,
        proved: &LoginId,
        first: bool,
    ) -> Result<Change, Error> {
        user::void_codes(tx, user).await?;
        for id in user::doubtful(user, proved, first) {
            let factor = user.login(&id).and_then(factor_of);
            user::remove_login(tx, user, &id, true).await?;
            let event = Event::new(Audited::LoginRemoved, tenant).user(&user.id);
            let Some(factor) = factor else {
                audit::stage(tx, event)?;
                continue;
            };
            audit::stage(tx, event.factor(&factor))?;
            self.courier.tell(tx, tenant, user, |to| Notice::FactorRemoved { to, factor: factor.clone() })?;
        }
        ticket::void(tx, &user.id, &ticket::Kind::ALL).await?;
        session::end_of_user(tx, &user.id, None, Cause::FactorsChanged).await
    }
}

/// Stages that no session of a user goes on but the one that is `held` (row S09).
pub(super) async fn end_others(
    tx: &mut Tx,
    user: &UserId,
    held: Option<(&SessionHandle, &mut SessionRecord)>,
) -> Result<Vec<Change>, Error> {
    match held {
        Some((handle, row)) => session::end_others(tx, handle, row, Cause::FactorsChanged).await,
        None => Ok(vec![session::end_of_user(tx, user, None, Cause::FactorsChanged).await?]),
    }
}
