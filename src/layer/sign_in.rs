//! Signing in from a handler of the app's, after a check of its own: a session, and the tokens for the client. And
//! out again.

use std::{fmt, sync::Arc};

use http::{Extensions, HeaderMap, Response, request::Parts};

use super::arrival::Arrival;
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::{FactorId, TenantId, UserId},
    },
    engine::Mfa,
    flow::{Caller, Refusal, complete::Outcome, link::NotLinked},
    session::{
        Kit, Session,
        cookies::TransferMethod,
        csrf::AntiCsrf,
        transport::{self, Access, Presented, TokenChange},
    },
};

impl Mfa {
    /// Starts a session for a user whom the app has just checked by a first factor of its own. The session may lack
    /// further factors, as the policy says: mounts refuse it until they are completed by the SDKs' routes.
    ///
    /// `user` is the app's own id. What the crate stores of a user of the app's own is an account with one external
    /// login, made at the first sign-in; many first sign-ins at once make one. It counts in every tenant that is named
    /// here. A session that came with the request ends, whosever it was, and nothing of it goes on (row S01).
    ///
    /// The [`Tokens`] must reach the client with the answer: with axum `(tokens, body)`, elsewhere
    /// [`Tokens::write`]. They travel as the request asked by `st-auth-mode`; where it says nothing, by cookies if a
    /// browser sent it, and in headers else.
    ///
    /// A page with `Referrer-Policy: no-referrer` sends its forms with `Origin: null`, which is no website's: let the
    /// pages with such a form have another policy, `same-origin` for one.
    ///
    /// ```
    /// # use axum::response::IntoResponse;
    /// # use http::request::Parts;
    /// # use tower_mfa::{FactorId, Mfa, ident::{TenantId, UserId}};
    /// # fn check(name: &str, password: &str) -> Option<UserId> { None }
    /// async fn sign_in(mfa: Mfa, parts: Parts) -> Result<impl IntoResponse, tower_mfa::Error> {
    ///     let Some(user) = check("alice", "her password") else { return Ok("wrong".into_response()) };
    ///     let (_session, tokens) = mfa.sign_in(&parts, &user, &TenantId::PUBLIC, FactorId::PASSWORD).await?;
    ///     Ok((tokens, "welcome").into_response())
    /// }
    /// ```
    ///
    /// # Errors
    /// `Refused` if another site sent the request by an unsafe method (row X07) or the user is disabled; `Invalid` if
    /// the factor may not start a session in the tenant, if the user is one of the crate's own in other tenants only,
    /// or if more cookies came than anybody needs; `NotFound` without the tenant; `SessionEnded` if
    /// [`AppUsers`](crate::account::AppUsers) knows nobody by this id; `Unavailable` if it, the policy or the store
    /// failed. Nobody is signed in then.
    pub async fn sign_in(
        &self,
        parts: &Parts,
        user: &UserId,
        tenant: &TenantId,
        factor: FactorId,
    ) -> Result<(Session, Tokens), Error> {
        let (desk, user) = (Arc::clone(&self.desk), user.clone());
        desk.kit.ready().await?;
        let caller = caller(self, parts, tenant).await?;
        let (kit, work) = (Arc::clone(&desk.kit), async move {
            desk.sign_in_own(&caller, &user, factor).await.map_err(refused)
        });
        match kit.run(work).await? {
            Outcome::Done(done) => {
                let session = Session::new(&kit, done.opened);
                session.set_change(done.tokens.into());
                Ok((session.clone(), Tokens(Fate::Of(session))))
            }
            Outcome::NotLinked(NotLinked::Disabled) => Err(disabled()),
            Outcome::Lost | Outcome::Taken | Outcome::NotLinked(_) => {
                Err(Error::unavailable("the sign-in lost its race"))
            }
        }
    }

    /// Ends the session that came with the request, also one whose access token ran out: for a handler of the app's
    /// that signs out, such as a plain form's, which can't prove itself to a mount by a header. Let it take a POST: any
    /// page could make a browser send a GET. Without a session nothing ends, and what the client still sends goes all
    /// the same. Of several access cookies, as a changed cookie domain leaves them, each one's session ends.
    ///
    /// The [`Tokens`] tell the client, as those of [`Mfa::sign_in`] do.
    ///
    /// ```
    /// # use axum::response::{IntoResponse, Redirect};
    /// # use http::request::Parts;
    /// # use tower_mfa::Mfa;
    /// async fn sign_out(mfa: Mfa, parts: Parts) -> Result<impl IntoResponse, tower_mfa::Error> {
    ///     Ok((mfa.sign_out(&parts).await?, Redirect::to("/")))
    /// }
    /// ```
    ///
    /// # Errors
    /// `Refused` if another site sent the request by an unsafe method (row X07); `Invalid` with more cookies than
    /// anybody needs; `Unavailable` if the store failed: the session may go on.
    pub async fn sign_out(&self, parts: &Parts) -> Result<Tokens, Error> {
        let kit = &self.desk.kit;
        kit.ready().await?;
        let presented = &presented(self, parts)?;
        let arrival = arrival(self, presented, parts)?;
        for session in arrival.left_behind().await? {
            session.revoke().await?;
        }
        let ways = [TransferMethod::Cookie, TransferMethod::Header];
        let held: Vec<_> = ways.into_iter().filter(|way| presented.carries(*way)).collect();
        let gone = match held[..] {
            _ if matches!(presented.access, Access::Duplicate) => Some(TokenChange::ClearEverywhere),
            [] => None,
            [way] => Some(TokenChange::Clear(Some(way))),
            _ => Some(TokenChange::Clear(None)),
        };
        Ok(Tokens(Fate::Gone(Arc::clone(kit), gone)))
    }
}

fn presented<'a>(mfa: &'a Mfa, parts: &'a Parts) -> Result<Presented<'a>, Error> {
    let presented = Presented::read(&parts.headers, &mfa.desk.kit.config.cookies);
    presented.map_err(|_| Error::invalid("there are too many cookies"))
}

/// A form can't add the header that proves a cookie's request to a mount: that no other site sent it is the proof. So a
/// page of another site must be one of ours by its origin.
fn arrival<'a>(mfa: &'a Mfa, presented: &'a Presented<'a>, parts: &'a Parts) -> Result<Arrival<'a>, Error> {
    let arrival = Arrival { desk: &mfa.desk, presented, parts, csrf: AntiCsrf::None };
    match arrival.is_foreign() || arrival.is_nameless() {
        true => Err(Error::new(ErrorKind::Refused, "another site sent this request")),
        false => Ok(arrival),
    }
}

async fn caller(mfa: &Mfa, parts: &Parts, tenant: &TenantId) -> Result<Caller, Error> {
    let presented = &presented(mfa, parts)?;
    let arrival = arrival(mfa, presented, parts)?;
    let caller = arrival.caller(tenant, false).await.map_err(refused)?;
    let hints = presented.hints();
    // A form can't add a header; what only browsers send tells them from other clients.
    let browser = hints.origin.is_some() || hints.fetch_site.is_some();
    let asked = hints.auth_mode.or(browser.then_some(TransferMethod::Cookie));
    let methods = mfa.desk.kit.config.cookies.methods;
    Ok(Caller { vouched: true, ..arrival.by(caller, methods.choose(asked)) })
}

fn disabled() -> Error {
    Error::new(ErrorKind::Refused, "the user is disabled")
}

fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Failed(error) => error,
        Refusal::NoTenant => Error::new(ErrorKind::NotFound, "there is no such tenant"),
        Refusal::TooMany(_) => Error::unavailable("too many attempts"),
        Refusal::Denied(_) => Error::new(ErrorKind::SessionEnded, "the user is gone"),
        Refusal::NotLinked(NotLinked::Disabled) => disabled(),
        Refusal::BadInput(_) | Refusal::NotLinked(_) => {
            Error::invalid("this factor can't start a session here")
        }
    }
}

/// The tokens of a session that has just begun, or that the client has none any more: they must reach it with the
/// answer.
///
/// With axum they are a part of a response, `(tokens, body)`; elsewhere see [`Tokens::write`]. What is written to the
/// session until then, such as a claim, goes with them. It makes no difference whether the handler lies inside of an
/// [`MfaLayer`](crate::MfaLayer) or not.
#[must_use = "the client knows of no session, or of no end of one, without its tokens"]
pub struct Tokens(Fate);

/// Whose they are.
enum Fate {
    /// Of a session that began.
    Of(Session),
    /// Of none any more.
    Gone(Arc<Kit>, Option<TokenChange>),
}

impl Tokens {
    /// Puts them into an answer: cookies, or headers for the client to keep, and what caches and scripts need to know.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use http::{Response, request::Parts};
    /// # use http_body_util::Full;
    /// # use tower_mfa::{FactorId, Mfa, ident::{TenantId, UserId}};
    /// # async fn handle(mfa: Mfa, parts: Parts, user: UserId) -> Result<Response<Full<Bytes>>, tower_mfa::Error> {
    /// let (_, tokens) = mfa.sign_in(&parts, &user, &TenantId::PUBLIC, FactorId::PASSWORD).await?;
    /// let mut response = Response::new(Full::from("welcome"));
    /// tokens.write(&mut response);
    /// # Ok(response) }
    /// ```
    pub fn write<B>(self, response: &mut Response<B>) {
        let carried = self.carried();
        carried.write(response.headers_mut());
        response.extensions_mut().insert(carried);
    }

    /// What becomes of the client's tokens is decided now.
    fn carried(self) -> Carried {
        Carried(Arc::new(match self.0 {
            Fate::Of(session) => session.finish(),
            Fate::Gone(kit, change) => (kit, change.map(Box::new)),
        }))
    }
}

#[cfg(feature = "axum")]
impl axum_core::response::IntoResponseParts for Tokens {
    type Error = std::convert::Infallible;

    fn into_response_parts(
        self,
        mut parts: axum_core::response::ResponseParts,
    ) -> Result<axum_core::response::ResponseParts, Self::Error> {
        let carried = self.carried();
        carried.write(parts.headers_mut());
        parts.extensions_mut().insert(carried);
        Ok(parts)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// Tokens in a response that a handler of the app's wrote: a mount around it takes away cookies by our names
/// (row C12), and writes these in their place.
#[derive(Clone)]
pub(super) struct Carried(Arc<(Arc<Kit>, Option<Box<TokenChange>>)>);

impl Carried {
    /// Those of this handle, if a handler left any.
    #[inline(always)]
    pub(super) fn take<B>(kit: &Arc<Kit>, response: &mut Response<B>) -> Option<Self> {
        if response.extensions().is_empty() {
            return None;
        }
        Self::search(kit, response.extensions_mut())
    }

    fn search(kit: &Arc<Kit>, extensions: &mut Extensions) -> Option<Self> {
        let ours = extensions.get::<Self>().is_some_and(|carried| Arc::ptr_eq(&carried.0.0, kit));
        ours.then(|| extensions.remove())?
    }

    pub(super) fn write(&self, headers: &mut HeaderMap) {
        let (kit, change) = &*self.0;
        let Some(change) = change else { return transport::no_store(headers) };
        if change.write(headers, &kit.config.cookies, kit.db.now()).is_err() {
            #[cfg(feature = "tracing")]
            tracing::error!("a token can't stand in a header: nothing was sent to the client");
        }
    }
}
