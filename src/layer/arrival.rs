//! Who asks, by what came with a request: shared by the routes and by whoever signs in from a handler of the app's.

use http::request::Parts;

use crate::{
    base::{error::Error, ident::TenantId},
    flow::{Caller, Desk, Refusal},
    hooks::Form,
    policy::RequestFacts,
    session::{
        Opened, Session, SessionDenied,
        cookies::TransferMethod,
        csrf::{self, AntiCsrf},
        token,
        transport::{Access, FetchSite, Presented},
        verify::{self, Demand, Evidence, Judgement, Question},
    },
};

/// A request's head, read but not judged.
#[derive(Clone, Copy)]
pub(crate) struct Arrival<'a> {
    pub(crate) desk: &'a Desk,
    pub(crate) presented: &'a Presented<'a>,
    pub(crate) parts: &'a Parts,
    /// The proof that a session's cookie needs.
    pub(crate) csrf: AntiCsrf,
}

impl Arrival<'_> {
    /// Whether another site sent it (rows X06, X07). Operators hear of it.
    pub(crate) fn is_foreign(&self) -> bool {
        let (api, websites) = (&self.desk.kit.config.app.api, &self.desk.kit.config.app.websites);
        let same_site = websites.iter().all(|website| api.same_site(website));
        let hints = self.presented.hints();
        let foreign =
            csrf::is_unsafe(self.parts.method.as_str()) && !csrf::origin_allowed(&hints, websites, same_site);
        #[cfg(feature = "tracing")]
        if foreign {
            let origin: String = hints.origin.unwrap_or_default().chars().take(64).collect();
            tracing::warn!(?origin, "a request that another site sent was refused");
        }
        foreign
    }

    /// Whether another site sent it, and which one isn't said.
    pub(super) fn is_nameless(&self) -> bool {
        let hints = self.presented.hints();
        let cross_site = hints.fetch_site == Some(FetchSite::CrossSite);
        csrf::is_unsafe(self.parts.method.as_str()) && cross_site && hints.origin.is_none()
    }

    pub(crate) fn request(&self) -> RequestFacts {
        self.desk.peer.facts(&self.parts.extensions, &self.parts.headers)
    }

    /// The session that came along. No validators: the factors are completed here.
    pub(crate) async fn session(&self) -> Result<Session, Refusal> {
        let (kit, demand) = (&self.desk.kit, Demand::bare());
        for tried in [false, true] {
            let evidence = Evidence {
                presented: self.presented,
                method: self.parts.method.as_str(),
                csrf: self.csrf,
                keyring: &kit.keys.current(),
                issuer: &kit.issuer,
                now: kit.db.now(),
            };
            match verify::open(&demand, &evidence) {
                // Every step reads the session's row and its numbers: the feed is not asked.
                Judgement::Pass(opened) => return Ok(Session::new(kit, opened)),
                Judgement::Ask(Question::Keys(kid)) if !tried => {
                    if !kit.reload_keys(&kid).await? {
                        return Err(Refusal::Denied(SessionDenied::TryRefresh));
                    }
                }
                Judgement::Deny(denied) => return Err(Refusal::Denied(denied)),
                _ => break,
            }
        }
        Err(Refusal::Denied(SessionDenied::TryRefresh))
    }

    /// Who asks. With the flag the session is required and its tenant counts; without it the session isn't
    /// used, and ends if another one begins.
    pub(crate) async fn caller(&self, tenant: &TenantId, try_linking: bool) -> Result<Caller, Refusal> {
        let (session, left_behind) = match try_linking {
            true => (Some(self.session().await?), Vec::new()),
            false => (None, self.left_behind().await?),
        };
        let tenant = session.as_ref().map_or_else(|| tenant.clone(), Session::tenant_id);
        let caller = Caller { session, left_behind, ..self.nobody(&tenant) };
        let method = caller.method;
        Ok(self.by(caller, method))
    }

    /// Who asks where no session is read and none begins.
    pub(crate) fn nobody(&self, tenant: &TenantId) -> Caller {
        Caller {
            tenant: tenant.clone(),
            session: None,
            left_behind: Vec::new(),
            vouched: false,
            method: self.desk.kit.config.cookies.methods.choose(self.presented.hints().auth_mode),
            clear_other: false,
            expire_older: false,
            request: self.request(),
            form: Form::default(),
        }
    }

    /// The same caller, who gets tokens by this way.
    pub(crate) fn by(&self, caller: Caller, method: TransferMethod) -> Caller {
        let clear_other = self.presented.carries(method.other());
        let expire_older = matches!(self.presented.access, Access::Duplicate);
        Caller { method, clear_other, expire_older, ..caller }
    }

    /// The sessions that came along unasked; one that isn't good is as if there were none. Of several cookies by one
    /// name any may be the one that the client went on with (row C04): each counts.
    pub(super) async fn left_behind(&self) -> Result<Vec<Session>, Error> {
        let mut sessions = Vec::new();
        for presented in &self.presented.apart() {
            let one = Arrival { presented, ..*self };
            match one.session().await {
                Ok(session) => sessions.push(session),
                Err(Refusal::Failed(error)) => return Err(error),
                Err(_) => sessions.extend(one.expired()),
            }
        }
        Ok(sessions)
    }

    /// A session whose access token ran out: the refresh cookie doesn't reach this route, so the token is
    /// what names it (as at sign-out, row S12).
    fn expired(&self) -> Option<Session> {
        let (kit, presented) = (&self.desk.kit, self.presented);
        let Access::Token { text, method } = presented.access else { return None };
        let guarded = csrf::needed(self.csrf, method, self.parts.method.as_str(), false);
        let claims = token::open_expired(text, &kit.keys.current(), &kit.issuer, kit.db.now()).ok()?;
        let proven = csrf::proven(self.csrf, &presented.hints(), claims.anti_csrf.as_deref());
        (proven || !guarded).then(|| Session::new(kit, Opened { claims, method }))
    }
}
