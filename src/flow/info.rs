//! What `/mfa/info` answers: what comes next, what is there, what may be set up, and where to.

use super::{Caller, Desk};
use crate::{
    base::error::{Error, ErrorKind},
    factor::{Enrolled, Overview},
    session::Session,
};

impl Desk {
    /// Judges the session anew, writes what changed, and says what comes next. Every refusal says that as
    /// well: the payload has it from the same evaluation.
    pub(crate) async fn info(&self, caller: &Caller, session: &Session) -> Result<Overview, Error> {
        let (opened, tokens, _) = self.reassess(&session.opened(), &[], true, &caller.request).await?;
        if let Some(tokens) = tokens {
            session.replace(opened, tokens.into());
        }
        let at = self.standpoint(caller, &session.claims()).await?;
        let (enrolled, now) = (Enrolled::from(&at.person.user), self.kit.db.now());
        let overview = self.factors.overview(enrolled, &at.row.login, &at.claim, &at.requirements, now);
        overview
            .ok_or(Error::new(ErrorKind::SessionEnded, "the session's login method is its user's no more"))
    }
}
