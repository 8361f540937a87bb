//! Judges a request, then forwards, refuses or asks (design, part 5, "A request to a guarded route").

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{ACCESS_CONTROL_REQUEST_METHOD, UPGRADE},
};
use http_body::Body;
use tower::Service;

use super::{
    MfaBody, MfaFuture,
    refuse::{self, Answer},
};
use crate::{
    base::error::{Error, ErrorKind},
    engine::Mfa,
    flow::Desk,
    policy::RequestFacts,
    session::{
        Opened, Session, SessionDenied,
        cookies::TransferMethod,
        csrf,
        feed::Verdict,
        transport::{Presented, TokenChange},
        verify::{self, Demand, Evidence, Judgement, Question},
    },
};

/// What [`MfaLayer`](super::MfaLayer) makes of a service.
#[derive(Clone)]
pub struct MfaService<S> {
    mfa: Mfa,
    demand: Demand,
    inner: S,
}

impl<S> MfaService<S> {
    pub(super) fn new(mfa: Mfa, demand: Demand, inner: S) -> Self {
        Self { mfa, demand, inner }
    }
}

impl<S> fmt::Debug for MfaService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MfaService").finish_non_exhaustive()
    }
}

/// What the layer leaves in a request's extensions: that it ran, for which handle, and what it found.
/// Private, so that nothing else can put one there, and overwritten by each layer (row M07).
#[derive(Clone)]
pub(crate) struct Verified {
    desk: Arc<Desk>,
    pub(crate) session: Option<Session>,
}

/// A judgement that the request can be answered with.
enum Found {
    Session(Option<Session>),
    Refused(Box<Answer>),
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

    fn call(&mut self, mut request: Request<B>) -> MfaFuture<S, B> {
        let desk = &self.mfa.desk;
        if is_preflight(&request) {
            // No session goes in: the extractor of a real OPTIONS handler fails closed (row X10).
            request.extensions_mut().remove::<Verified>();
            return MfaFuture::running(self.inner.call(request), None, None);
        }
        match judge(desk, &self.demand, &request) {
            Verdicts::Found(Found::Session(session)) => {
                insert(desk, &mut request, session.clone());
                MfaFuture::running(self.inner.call(request), session, Some(Arc::clone(desk)))
            }
            Verdicts::Found(Found::Refused(answer)) => MfaFuture::refused(*answer),
            Verdicts::Ask(question) => {
                let (desk, demand) = (Arc::clone(desk), self.demand.clone());
                let facts = desk.peer.facts(request.extensions(), request.headers());
                // What is needed to judge again, without holding the request across an await.
                let retry = Retry { method: request.method().clone(), headers: request.headers().clone() };
                let asking = Box::pin(async move {
                    let found = ask(&desk, &demand, question, &retry, &facts).await;
                    match found {
                        Found::Session(session) => Ok(session),
                        Found::Refused(answer) => Err(*answer),
                    }
                });
                // The service that was polled goes into the future; a clone stays, to be polled anew
                // (row M08).
                let clone = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, clone);
                MfaFuture::asking(asking, ready, request, Arc::clone(&self.mfa.desk))
            }
        }
    }
}

enum Verdicts {
    Found(Found),
    Ask(Question),
}

/// Puts what was found into the request.
pub(super) fn insert<B>(desk: &Arc<Desk>, request: &mut Request<B>, session: Option<Session>) {
    request.extensions_mut().insert(Verified { desk: Arc::clone(desk), session });
}

fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn judge<B>(desk: &Arc<Desk>, demand: &Demand, request: &Request<B>) -> Verdicts {
    // The same handle mounted twice verifies once (row M15); another one's finding is never trusted.
    if let Some(Verified { session: Some(session), .. }) =
        request.extensions().get::<Verified>().filter(|outer| Arc::ptr_eq(&outer.desk, desk))
    {
        let session = session.clone();
        return match verify::enforce(demand, session.opened(), desk.kit.db.now()) {
            Judgement::Pass(_) => Verdicts::Found(Found::Session(Some(session))),
            other => Verdicts::Found(settle(desk, other)),
        };
    }
    judge_headers(desk, demand, request.method(), request.headers(), false)
}

fn judge_headers(
    desk: &Arc<Desk>,
    demand: &Demand,
    method: &Method,
    headers: &HeaderMap,
    tried: bool,
) -> Verdicts {
    let kit = &desk.kit;
    let refused = |answer: Answer| Verdicts::Found(Found::Refused(Box::new(answer)));
    let Ok(presented) = Presented::read(headers, &kit.config.cookies) else {
        return refused(refuse::message(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "there are too many cookies",
        ));
    };
    let (keyring, now) = (kit.keys.current(), kit.db.now());
    let evidence = Evidence {
        presented: &presented,
        method: method.as_str(),
        csrf: kit.config.csrf,
        keyring: &keyring,
        issuer: &kit.issuer,
        now,
    };
    let judgement = match verify::open(demand, &evidence) {
        Judgement::Pass(opened) => {
            // A foreign page could open a socket with the cookie (row M05).
            let by_cookie = opened.method == TransferMethod::Cookie && headers.contains_key(UPGRADE);
            let from_us = presented.origin.is_some()
                && csrf::origin_allowed(&presented, &kit.config.app.websites, false);
            if by_cookie && !from_us {
                return refused(refuse::message(
                    StatusCode::BAD_REQUEST,
                    "this origin may not open a connection",
                ));
            }
            let (verdict, freshness) = kit.verdict(&opened.claims, now);
            verify::judge(demand, opened, verdict, freshness, tried, now)
        }
        other => other,
    };
    match judgement {
        Judgement::Ask(question) => Verdicts::Ask(question),
        other => Verdicts::Found(settle(desk, other)),
    }
}

fn settle(desk: &Arc<Desk>, judgement: Judgement) -> Found {
    match judgement {
        Judgement::Pass(opened) => Found::Session(Some(Session::new(&desk.kit, opened))),
        Judgement::Anonymous => Found::Session(None),
        Judgement::Deny(denied) => Found::Refused(Box::new(refuse::denied(&denied))),
        Judgement::Unavailable | Judgement::Ask(_) => {
            Found::Refused(Box::new(refuse::failed(&Error::unavailable("the session can't be judged now"))))
        }
    }
}

/// A request's head, kept to judge it again.
struct Retry {
    method: Method,
    headers: HeaderMap,
}

/// Reads what is missing, and judges again. At most the keys, the feed and the row, once each.
async fn ask(
    desk: &Arc<Desk>,
    demand: &Demand,
    question: Question,
    head: &Retry,
    facts: &RequestFacts,
) -> Found {
    let kit = &desk.kit;
    let mut question = question;
    let (mut loaded, mut tried) = (false, false);
    loop {
        match question {
            Question::Keys(kid) => match kit.reload_keys(&kid).await {
                Ok(true) if !loaded => loaded = true,
                Ok(_) => return Found::Refused(Box::new(refuse::denied(&SessionDenied::TryRefresh))),
                Err(error) => return Found::Refused(Box::new(refuse::failed(&error))),
            },
            Question::Feed if tried => return settle(desk, Judgement::Unavailable),
            // A read that fails leaves the feed as it was: the mount decides.
            Question::Feed => {
                let _ = kit.read_feed().await;
                tried = true;
            }
            Question::Row(opened, claims) => {
                let anew = kit.verdict(&opened.claims, kit.db.now()).0 == Verdict::JudgeAnew;
                return reassess(desk, demand, &opened, &claims, anew, facts).await;
            }
        }
        match judge_headers(desk, demand, &head.method, &head.headers, tried) {
            Verdicts::Found(found) => return found,
            Verdicts::Ask(next) => question = next,
        }
    }
}

async fn reassess(
    desk: &Arc<Desk>,
    demand: &Demand,
    opened: &Opened,
    claims: &[crate::claim::ClaimRef],
    anew: bool,
    facts: &RequestFacts,
) -> Found {
    let kit = &desk.kit;
    let work = {
        let (desk, opened, claims, facts) =
            (Arc::clone(desk), opened.clone(), claims.to_vec(), facts.clone());
        async move { desk.reassess(&opened, &claims, anew, &facts).await }
    };
    let (opened, tokens, _) = match kit.run(work).await {
        Ok(answer) => answer,
        Err(error) => return Found::Refused(Box::new(translate(&error))),
    };
    let session = match verify::enforce(demand, opened.clone(), kit.db.now()) {
        Judgement::Pass(opened) => Session::new(kit, opened),
        other => {
            let Found::Refused(mut answer) = settle(desk, other) else {
                return settle(desk, Judgement::Unavailable);
            };
            // The refusal carries what was found out, so that the client reads why.
            if let Some(tokens) = tokens {
                answer.change = Some((TokenChange::from(tokens), Arc::clone(kit)));
            }
            return Found::Refused(answer);
        }
    };
    if let Some(tokens) = tokens {
        session.set_change(tokens.into());
    }
    Found::Session(Some(session))
}

/// A session that is over is 401 and clears nothing here (row C10); a failure is 503 or 500.
fn translate(error: &Error) -> Answer {
    match error.kind() {
        ErrorKind::SessionEnded => refuse::denied(&SessionDenied::Unauthorised),
        ErrorKind::StaleToken => refuse::denied(&SessionDenied::TryRefresh),
        _ => refuse::failed(error),
    }
}
