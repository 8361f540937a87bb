//! Judges a request, then forwards, refuses or asks (design, part 5, "A request to a guarded route").

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Instant,
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
    claim::validator,
    policy::RequestFacts,
    session::{
        Kit, Opened, Session, SessionDenied,
        cookies::TransferMethod,
        csrf,
        feed::{Freshness, Verdict},
        transport::{Access, Presented},
        verify::{self, Demand, Evidence, Judgement, Question},
    },
};

mod asking;

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
        let kit = &self.mount.kit;
        if cors::is_preflight(&request) {
            cors::check_order(kit, &request);
            // No session goes in: the extractor of a real OPTIONS handler fails closed (row X10).
            request.extensions_mut().remove::<Verified>();
            return MfaFuture::running(&mut self.inner, request, Told::Nothing);
        }
        let head = Head {
            kit,
            mount: &self.mount,
            method: request.method(),
            headers: request.headers(),
            outer: Verified::of_outer(kit, request.extensions()),
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
                let facts = match contained(|| self.mount.facts(&request)) {
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
        let (kit, mount, outer) = (&mount.kit, &*mount, outer.as_ref());
        let head = Head { kit, mount, method: &method, headers: &headers, outer };
        contained_async(head.ask(question, &facts)).await
    })
}

/// A request's head, and who judges it.
struct Head<'a> {
    kit: &'a Arc<Kit>,
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
        if !self.challenges() {
            return refuse::denied(denied);
        }
        let Ok(presented) = Presented::read(self.headers, &self.kit.config.cookies) else {
            return refuse::denied(denied);
        };
        match presented.access {
            Access::Token { method: TransferMethod::Header, .. } | Access::Ambiguous => {
                refuse::challenged(denied)
            }
            Access::Absent if presented.has_bearer() => refuse::challenged(denied),
            Access::Absent => refuse::unauthenticated(denied),
            _ => refuse::denied(denied),
        }
    }

    fn judge(&self, tried: bool) -> Step {
        if let Some(problem) = self.mount.problem {
            return Step::Found(Err(refuse::failed(&Error::internal(problem)).into()));
        }
        let kit = self.kit;
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
        let kit = self.kit;
        if let (Some(jwks), Access::Token { .. }) = (&kit.foreign, presented.access)
            && !kit.has_foreign_keys(jwks, now)
        {
            return Judgement::Ask(Question::KeySet);
        }
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
        let (kit, demand, opened) = (self.kit, self.demand(), session.opened());
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
            let counts = &self.kit.feed_counts;
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
            let (websites, hints) = (&self.kit.config.app.websites, presented.hints());
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
                None => Session::new(self.kit, opened),
            }),
            Judgement::Anonymous => Err(Arc::clone(self.kit)),
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
                self.kit.mention_refusal(&opened.claims);
                self.denied(&SessionDenied::InvalidClaims(failed)).into()
            }
            _ => refuse::failed(&Error::unavailable("the session can't be judged now")).into(),
        }
    }
}
