//! One session of a user goes on alone, under a new refresh token (row S09).

use super::Desk;
use crate::{
    base::error::Error,
    model::{
        Tx,
        audit::Cause,
        change::Change,
        session::{self, SessionRecord},
    },
    session::{
        Opened,
        refresh::{self, Completing},
        transport::Tokens,
    },
};

impl Desk {
    /// Stages that every other session of the user ends, and that this one, whose row [`Kit::held`] read in this round,
    /// goes on under tokens that nobody has who knew the ones of before (rows S02, S09).
    ///
    /// [`Kit::held`]: crate::session::Kit::held
    pub(super) async fn keep_alone(
        &self,
        tx: &mut Tx,
        opened: &Opened,
        mut row: SessionRecord,
    ) -> Result<((Opened, Tokens), Vec<Change>), Error> {
        let (kit, claims, now) = (&self.kit, &opened.claims, tx.now());
        let changes = session::end_others(tx, &claims.handle, &mut row, Cause::FactorsChanged).await?;
        let from =
            Completing { handle: &claims.handle, user: &row.user, refresh_hash1: &claims.refresh_hash1 };
        let grace = kit.config.lifetimes.refresh_grace;
        let (token, line) = refresh::complete(&row.lineage, &kit.refresh, from, now, grace)?;
        row.lineage = line;
        row.used_at = now;
        let issued = kit.issue(&row, &token, opened.method, now)?;
        session::put(tx, &claims.handle, &row).await?;
        Ok((issued, changes))
    }
}
