//! Judges a request, then forwards, refuses or asks (design, part 5, "A request to a guarded route").

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body;
use tower::Service;

use super::{
    MfaBody, MfaFuture, Mount, Verified,
    contain::{contained, contained_async},
    cors,
    future::Asking,
    refuse::{self, Answer},
    verified::Told,
};
use crate::{
    base::{
        error::Error,
        time::{self, Timestamp},
    },
    claim::{ClaimRef, validator},
    flow::Desk,
    policy::RequestFacts,
    session::{
        Opened, Session, SessionDenied,
        cookies::TransferMethod,
        csrf,
        feed::{Freshness, Verdict},
        transport::{Presented, TokenChange},
        verify::{self, Demand, Evidence, Judgement, Question},
    },
};

/// How long a request waits for the change feed while it is cut off.
const FEED_PATIENCE: Duration = Duration::from_secs(1);

/// What [`MfaLayer`](super::MfaLayer) makes of a service.
#[derive(Clone)]
pub struct MfaService<S> {
    mount: Arc<Mount>,
    inner: S,
}

impl<S> MfaService<S> {
    pub(super) fn new(mount: Arc<Mount>, inner: S) -> Self {
        Self { mount, inner }
    }
}

impl<S> fmt::Debug for MfaService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MfaService").finish_non_exhaustive()
    }
}

/// What came of a judgement: what goes on with the request, or the answer in its place.
type Found = Result<Verified, Box<Answer>>;

enum Step {
    Found(Found),
    Ask(Question),
}

impl<S, B, R> Service<Request<B>> for MfaService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: Body<Data = Bytes>,
{
    type Response = Response<MfaBody<R>>;
    type Error = S::Error;
    type Future = MfaFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // Not inlined: what it makes is large, and would be moved about in whoever calls it.
    #[inline(never)]
    fn call(&mut self, mut request: Request<B>) -> MfaFuture<S, B> {
        let desk = &self.mount.mfa.desk;
        if cors::is_preflight(&request) {
            cors::check_order(&self.mount.mfa, &request);
            // No session goes in: the extractor of a real OPTIONS handler fails closed (row X10).
            request.extensions_mut().remove::<Verified>();
            return MfaFuture::running(&mut self.inner, request, Told::Nothing);
        }
        let head = Head {
            desk,
            mount: &self.mount,
            method: request.method(),
            headers: request.headers(),
            outer: Verified::of_outer(&desk.kit, request.extensions()),
        };
        match contained(|| head.judge(false)) {
            Ok(Step::Found(Ok(verified))) => {
                let told = verified.told();
                request.extensions_mut().insert(verified);
                MfaFuture::running(&mut self.inner, request, told)
            }
            Ok(Step::Found(Err(answer))) => MfaFuture::refused(answer),
            Err(error) => MfaFuture::refused(refuse::failed(&error).into()),
            Ok(Step::Ask(question)) => {
                let facts = match contained(|| desk.peer.facts(request.extensions(), request.headers())) {
                    Ok(facts) => facts,
                    Err(error) => return MfaFuture::refused(refuse::failed(&error).into()),
                };
                let asking = asking(Arc::clone(&self.mount), &head, question, facts);
                // The service that was polled goes into the future; a clone stays, to be polled anew
                // (row M08).
                let clone = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, clone);
                MfaFuture::asking(asking, ready, request)
            }
        }
    }
}

/// Reads what is missing and judges again, with copies of what is needed for it: the request isn't held across
/// an await. A function of its own, so that the common way keeps a small frame.
#[inline(never)]
fn asking(mount: Arc<Mount>, head: &Head<'_>, question: Question, facts: RequestFacts) -> Asking {
    let (method, headers, outer) = (head.method.clone(), head.headers.clone(), head.outer.cloned());
    Box::pin(async move {
        let (desk, mount, outer) = (&mount.mfa.desk, &*mount, outer.as_ref());
        let head = Head { desk, mount, method: &method, headers: &headers, outer };
        contained_async(head.ask(question, &facts)).await
    })
}

/// A request's head, and who judges it.
struct Head<'a> {
    desk: &'a Arc<Desk>,
    mount: &'a Mount,
    method: &'a Method,
    headers: &'a HeaderMap,
    outer: Option<&'a Verified>,
}

impl Head<'_> {
    fn demand(&self) -> &Demand {
        &self.mount.demand
    }

    fn challenges(&self) -> bool {
        self.mount.challenges || self.outer.is_some_and(|outer| outer.challenges)
    }

    /// The refusal, as the client that sent this request is to read it.
    fn denied(&self, denied: &SessionDenied) -> Answer {
        let by_header = || {
            let presented = Presented::read(self.headers, &self.desk.kit.config.cookies);
            presented.is_ok_and(|presented| presented.access.method() == Some(TransferMethod::Header))
        };
        match self.challenges() && by_header() {
            true => refuse::challenged(denied),
            false => refuse::denied(denied),
        }
    }

    fn judge(&self, tried: bool) -> Step {
        let kit = &self.desk.kit;
        let Ok(presented) = Presented::read(self.headers, &kit.config.cookies) else {
            let (status, text) = (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "there are too many cookies");
            return Step::Found(Err(refuse::message(status, text).into()));
        };
        let at = time::monotonic();
        let now = kit.db.now_at(at);
        let judgement = match self.outer.and_then(|outer| Some((outer, outer.session()?))) {
            Some((outer, session)) => self.judge_again(&presented, outer, session, tried, (at, now)),
            None => match self.open(&presented, now) {
                Judgement::Pass(opened) if self.is_foreign_socket(&presented, &opened) => {
                    let text = "this origin may not open a connection";
                    return Step::Found(Err(refuse::message(StatusCode::BAD_REQUEST, text).into()));
                }
                Judgement::Pass(opened) => {
                    let heard = kit.verdict(&opened.claims, at, now);
                    self.weigh(opened, heard, tried, now)
                }
                other => other,
            },
        };
        match judgement {
            Judgement::Ask(question) => Step::Ask(question),
            other => Step::Found(self.settle(other, false, tried)),
        }
    }

    fn open(&self, presented: &Presented<'_>, now: Timestamp) -> Judgement {
        let kit = &self.desk.kit;
        let evidence = Evidence {
            presented,
            method: self.method.as_str(),
            csrf: kit.config.csrf,
            keyring: &kit.keys.current(),
            issuer: &kit.issuer,
            now,
        };
        verify::open(self.demand(), &evidence)
    }

    /// An inner mount takes the outer one's token as verified, and asks for whatever it wants beyond.
    fn judge_again(
        &self,
        presented: &Presented<'_>,
        outer: &Verified,
        session: &Session,
        tried: bool,
        (at, now): (Instant, Timestamp),
    ) -> Judgement {
        let (kit, demand, opened) = (&self.desk.kit, self.demand(), session.opened());
        let mode = kit.config.csrf;
        let guarded = csrf::needed(mode, opened.method, self.method.as_str(), demand.csrf_always);
        if guarded && !csrf::proven(mode, &presented.hints(), opened.claims.anti_csrf.as_deref()) {
            return Judgement::Deny(SessionDenied::TryRefresh);
        }
        let (verdict, freshness) = kit.verdict(&opened.claims, at, now);
        if !outer.row_read {
            return self.weigh(opened, (verdict, freshness), tried || outer.feed_tried, now);
        }
        // The row was read for this very request: only claims that nobody wanted yet are left to fetch.
        let claims = validator::refetches(&demand.validators, &opened.claims.payload, now);
        match verdict {
            Verdict::Revoked => Judgement::Deny(SessionDenied::Unauthorised),
            Verdict::JudgeAnew => Judgement::Ask(Question::Row(opened, claims)),
            _ if !claims.is_empty() => Judgement::Ask(Question::Row(opened, claims)),
            _ => verify::enforce(demand, opened, now),
        }
    }

    /// Judges an opened token by what the feed says. What is decided without a feed to rely on is counted.
    #[inline(always)]
    fn weigh(
        &self,
        opened: Opened,
        (verdict, freshness): (Verdict, Freshness),
        tried: bool,
        now: Timestamp,
    ) -> Judgement {
        let judgement = verify::judge(self.demand(), opened, verdict, freshness, tried, now);
        if tried && freshness != Freshness::Fresh && !self.demand().check_store {
            let counts = &self.desk.kit.feed_counts;
            match judgement {
                Judgement::Unavailable => counts.refused_stale.fetch_add(1, Ordering::Relaxed),
                Judgement::Deny(_) => 0,
                _ => counts.served_stale.fetch_add(1, Ordering::Relaxed),
            };
        }
        judgement
    }

    /// A foreign page could open a socket with the cookie (row M05).
    fn is_foreign_socket(&self, presented: &Presented<'_>, opened: &Opened) -> bool {
        let from_us = || {
            let (websites, hints) = (&self.desk.kit.config.app.websites, presented.hints());
            hints.origin.is_some() && csrf::origin_allowed(&hints, websites, false)
        };
        opened.method == TransferMethod::Cookie && presented.upgrade && !from_us()
    }

    #[inline]
    fn settle(&self, judgement: Judgement, row_read: bool, feed_tried: bool) -> Found {
        let found = match judgement {
            // The handle that the outer mount gave out goes on: what it has to tell is told once.
            Judgement::Pass(opened) => Ok(match self.outer.and_then(Verified::session) {
                Some(session) => session.clone(),
                None => Session::new(&self.desk.kit, opened),
            }),
            Judgement::Anonymous => Err(Arc::clone(&self.desk.kit)),
            Judgement::Deny(denied) => return Err(self.denied(&denied).into()),
            other => return Err(self.refused(other)),
        };
        Ok(Verified {
            found,
            row_read: row_read || self.outer.is_some_and(|outer| outer.row_read),
            feed_tried: feed_tried || self.outer.is_some_and(|outer| outer.feed_tried),
            nested: self.outer.is_some(),
            challenges: self.challenges(),
        })
    }

    /// The answer to what neither passed nor is denied in fixed words.
    fn refused(&self, judgement: Judgement) -> Box<Answer> {
        match judgement {
            Judgement::Lacks(opened, failed) => {
                self.desk.kit.mention_refusal(&opened.claims);
                self.denied(&SessionDenied::InvalidClaims(failed)).into()
            }
            _ => refuse::failed(&Error::unavailable("the session can't be judged now")).into(),
        }
    }

    /// Reads what is missing, and judges again. At most the keys, the feed and the row, once each.
    async fn ask(&self, mut question: Question, facts: &RequestFacts) -> Found {
        let (mut loaded, mut tried) = (false, false);
        loop {
            match question {
                Question::Keys(_) if loaded => return Err(refuse::denied(&SessionDenied::TryRefresh).into()),
                Question::Keys(kid) => {
                    self.load(&kid).await.map_err(|error| refuse::failed(&error))?;
                    loaded = true;
                }
                Question::Feed if tried => return self.settle(Judgement::Unavailable, false, tried),
                // A read that fails, or takes long while others wait for it, leaves the feed as it was: the
                // mount decides (row K02).
                Question::Feed => {
                    let _ = tokio::time::timeout(FEED_PATIENCE, self.desk.kit.read_feed()).await;
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
        let kit = &self.desk.kit;
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
        let kit = &self.desk.kit;
        let anew = kit.verdict(&opened.claims, time::monotonic(), kit.db.now()).0 == Verdict::JudgeAnew;
        let work = {
            let (desk, opened, facts) = (Arc::clone(self.desk), opened.clone(), facts.clone());
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
