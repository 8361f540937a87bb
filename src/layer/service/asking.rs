//! What a judgement lacks is read, once each: keys, the feed, the row.

use std::{sync::Arc, time::Duration};

use super::{Found, Head, Step, Verified};
use crate::{
    base::{error::Error, time},
    claim::ClaimRef,
    layer::refuse,
    policy::RequestFacts,
    session::{
        Opened, SessionDenied,
        feed::Verdict,
        transport::TokenChange,
        verify::{self, Judgement, Question},
    },
};

/// How long a request waits for the change feed while it is cut off.
const FEED_PATIENCE: Duration = Duration::from_secs(1);

impl Head<'_> {
    /// Reads what is missing, and judges again. At most the keys, the feed and the row, once each.
    pub(super) async fn ask(&self, mut question: Question, facts: &RequestFacts) -> Found {
        let (mut loaded, mut tried) = (false, false);
        loop {
            match question {
                Question::Keys(_) if loaded => return Err(refuse::denied(&SessionDenied::TryRefresh).into()),
                Question::Keys(kid) => {
                    self.load(&kid).await.map_err(|error| refuse::failed(&error))?;
                    loaded = true;
                }
                Question::KeySet if loaded => {
                    return Err(refuse::failed(&Error::unavailable("the issuer's keys aren't known")).into());
                }
                Question::KeySet => {
                    self.kit.fetch_keys(None).await;
                    loaded = true;
                }
                Question::Feed if tried => return self.settle(Judgement::Unavailable, false, tried),
                // A read that fails, or takes long while others wait for it, leaves the feed as it was: the
                // mount decides (row K02).
                Question::Feed => {
                    let _ = tokio::time::timeout(FEED_PATIENCE, self.kit.read_feed()).await;
                    tried = true;
                }
                Question::Row(opened, claims) => {
                    return self.reassess(&opened, claims, facts, tried).await;
                }
            }
            match self.judge(tried) {
                Step::Found(found) => return found,
                Step::Ask(next) => question = next,
            }
        }
    }

    /// Loads the keys, if a load is due. A process that has none yet can't say that a token is bad.
    async fn load(&self, kid: &str) -> Result<(), Error> {
        let kit = self.kit;
        if kit.foreign.is_some() {
            kit.fetch_keys(Some(kid)).await;
            return Ok(());
        }
        match kit.reload_keys(kid).await? {
            false if kit.keys.current().is_empty() => Err(Error::unavailable("there are no keys yet")),
            _ => Ok(()),
        }
    }

    async fn reassess(
        &self,
        opened: &Opened,
        claims: Vec<ClaimRef>,
        facts: &RequestFacts,
        tried: bool,
    ) -> Found {
        let kit = self.kit;
        let anew = kit.verdict(&opened.claims, time::monotonic(), kit.db.now()).0 == Verdict::JudgeAnew;
        let work = {
            let Some(mfa) = &self.mount.mfa else { return self.settle(Judgement::Unavailable, false, tried) };
            let (desk, opened, facts) = (Arc::clone(&mfa.desk), opened.clone(), facts.clone());
            async move { desk.reassess(&opened, &claims, anew, &facts).await }
        };
        let (opened, tokens, _) = kit.run(work).await.map_err(|error| refuse::error(&error))?;
        let judgement = verify::enforce(self.demand(), opened.clone(), kit.db.now());
        let outer = self.outer.and_then(Verified::session);
        if let Some(session) = outer {
            // The outer mount sends the tokens, with a refusal too.
            if let Some(tokens) = tokens {
                session.replace(opened, tokens.into());
            }
            return self.settle(judgement, true, tried);
        }
        let mut found = self.settle(judgement, true, tried);
        match (&mut found, tokens) {
            (Ok(Verified { found: Ok(session), .. }), Some(tokens)) => {
                session.set_change(tokens.into());
            }
            // The refusal carries what was found out, so that the client reads why.
            (Err(answer), Some(tokens)) => {
                answer.change = Some(Box::new((TokenChange::from(tokens), Arc::clone(kit))));
            }
            _ => {}
        }
        found
    }
}
