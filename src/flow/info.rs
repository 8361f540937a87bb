//! What `/mfa/info` answers: what comes next, what is there, what may be set up, and where to.

use super::{Caller, Desk, second::Standpoint};
use crate::{
    base::{contact::Email, error::Error, ident::FactorId},
    factor::contacts,
    policy::{Explanation, may_set_up},
    session::Session,
};

/// The answer; contacts as they may be shown.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) next: Vec<FactorId>,
    pub(crate) set_up: Vec<FactorId>,
    pub(crate) allowed: Vec<FactorId>,
    pub(crate) emails: Vec<(FactorId, Vec<String>)>,
    /// Why, item by item.
    pub(crate) explanation: Explanation,
}

impl Desk {
    /// Judges the session anew, writes what changed, and says what comes next.
    pub(crate) async fn info(&self, caller: &Caller, session: &Session) -> Result<Info, Error> {
        let (opened, tokens, _) = self.reassess(&session.opened(), &[], true, &caller.request).await?;
        if let Some(tokens) = tokens {
            session.replace(opened, tokens.into());
        }
        let at = self.standpoint(caller, &session.claims()).await?;
        let available = self.factors.secondary();
        let allowed: Vec<FactorId> = available
            .iter()
            .filter(|factor| may_set_up(at.claim.v, &at.next, &at.set_up, factor).is_ok())
            .cloned()
            .collect();
        // What every refusal says as well: the payload has it from the same evaluation.
        let explanation = at.requirements.explain(&at.claim.c, self.kit.db.now());
        let next = explanation.next.as_ref().map(|next| next.factors.clone()).unwrap_or_default();
        let emails = available.iter().map(|factor| (factor.clone(), emails(&at, factor))).collect();
        let set_up = at.set_up.iter().filter(|factor| self.factors.has(factor)).cloned().collect();
        Ok(Info { next, set_up, allowed, emails, explanation })
    }
}

/// Until the requirements are met only what the person needs now is shown (row P18), and only what they
/// typed into this session in full (decision of the house 15).
fn emails(at: &Standpoint, factor: &FactorId) -> Vec<String> {
    let listed = contacts::emails(&at.user, &at.row.login, factor);
    if at.claim.v {
        return listed.iter().map(ToString::to_string).collect();
    }
    let enrolling = !at.next.iter().any(|wanted| at.set_up.contains(wanted));
    if !at.next.contains(factor) || !(at.set_up.contains(factor) || enrolling) {
        return Vec::new();
    }
    let typed = at.user.login(&at.row.login).and_then(|login| login.email.clone());
    let show = |email: &Email| match Some(email) == typed.as_ref() {
        true => email.to_string(),
        false => email.masked(),
    };
    listed.iter().map(show).collect()
}
