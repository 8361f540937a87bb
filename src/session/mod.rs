//! Sessions: what handlers hold, and the tokens, cookies and rules behind it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;

use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::{FactorId, LoginId, SessionHandle, TenantId, UserId},
        payload::Payload,
        time::{self, Timestamp},
    },
    claim::{Aal, CompletedFactors, MfaClaim, SessionClaim, Stamped, amr, free_key},
};

use self::feed::Verdict;
pub use self::verify::SessionDenied;
pub(crate) use self::{claims::AccessClaims, kit::Kit, verify::Opened};

pub(crate) mod claims;
pub(crate) mod cookies;
pub(crate) mod csrf;
pub(crate) mod feed;
pub(crate) mod jwks;
pub(crate) mod keyring;
pub(crate) mod keystore;
pub(crate) mod kit;
mod news;
pub(crate) mod origin;
pub(crate) mod peer;
pub(crate) mod refresh;
mod revoke;
pub(crate) mod seen;
pub(crate) mod signing;
mod spare;
pub(crate) mod token;
pub(crate) mod transport;
pub(crate) mod verify;

/// How often somebody who waits for a session's end looks.
const ROUND: Duration = Duration::from_secs(1);

/// A verified session, as a handler holds it: cheap to clone, free to read, written through the store.
///
/// What a handler changes reaches the client with the response: the layer sends the new token. A change
/// after the response's head was sent is an error that says so.
///
/// Nobody but the crate makes one, and it holds what was read from the very bytes whose signature was
/// checked (row J21):
///
/// ```
/// let nobody = tower_mfa::Session::from_extensions(&http::Extensions::new());
/// assert!(nobody.is_none());
/// ```
/// ```compile_fail,E0451
/// fn forge(one: tower_mfa::Session) -> tower_mfa::Session {
///     tower_mfa::Session { ..one }
/// }
/// ```
/// ```compile_fail,E0624
/// let make = tower_mfa::Session::new;
/// ```
/// ```compile_fail,E0277
/// let session: tower_mfa::Session = serde_json::from_str("{}").unwrap();
/// ```
/// ```compile_fail,E0603
/// fn read(claims: tower_mfa::session::AccessClaims) {}
/// ```
#[derive(Clone)]
pub struct Session {
    kit: Arc<Kit>,
    state: Arc<Mutex<State>>,
}

struct State {
    opened: Opened,
    /// What the response must tell the client; `None` inside once the head was sent.
    change: Change,
}

/// What has to be sent with the response.
#[derive(Debug, Default)]
enum Change {
    #[default]
    Nothing,
    Tokens(Box<transport::TokenChange>),
    /// The head was sent: nothing can follow it (row M11).
    Sent,
}

impl Session {
    #[inline]
    pub(crate) fn new(kit: &Arc<Kit>, opened: Opened) -> Self {
        let state = spare::take(State { opened, change: Change::Nothing });
        Self { kit: Arc::clone(kit), state }
    }

    /// The user: the primary user's id if logins were linked.
    pub fn user_id(&self) -> UserId {
        self.claims().user.clone()
    }

    /// The login method that made the session.
    pub fn login_id(&self) -> LoginId {
        self.claims().login.clone()
    }

    /// The tenant the session belongs to.
    pub fn tenant_id(&self) -> TenantId {
        self.claims().tenant.clone()
    }

    /// The session's handle: names it towards the store; grants nothing.
    pub fn handle(&self) -> SessionHandle {
        self.claims().handle.clone()
    }

    /// When the access token runs out; the client refreshes then.
    pub fn expires_at(&self) -> Timestamp {
        Timestamp::from_secs(self.claims().expires_at)
    }

    /// The payload of the access token: the app's members and the claims.
    pub fn payload(&self) -> Payload {
        self.claims().payload.clone()
    }

    /// The factors completed in this session, each with its time.
    pub fn completed_factors(&self) -> CompletedFactors {
        self.mfa().map(|claim| claim.c).unwrap_or_default()
    }

    /// Whether a factor was completed in this session.
    pub fn has_completed(&self, factor: &FactorId) -> bool {
        self.completed_factors().contains(factor)
    }

    /// The assurance level that the completed factors reach, in NIST's terms; `None` if none of them counts.
    /// [`Aal`] says which do.
    pub fn aal(&self) -> Option<Aal> {
        Aal::of(&self.completed_factors())
    }

    /// The level as a value of `acr`, for a token that the app makes for others.
    pub fn acr(&self) -> Option<&'static str> {
        self.aal().map(|level| level.acr())
    }

    /// How the user was authenticated, as values of `amr` (RFC 8176); [`Aal`] has the table.
    pub fn amr(&self) -> Vec<&'static str> {
        amr(&self.completed_factors())
    }

    pub(crate) fn mfa(&self) -> Option<MfaClaim> {
        MfaClaim::from_payload(&self.claims().payload)
    }

    /// Reads a claim from the token; `None` if it isn't there.
    ///
    /// # Errors
    /// If the claim is there but isn't of its type.
    pub fn claim<C: SessionClaim>(&self) -> Result<Option<C::Value>, Error> {
        let claims = self.claims();
        let Some(value) = claims.payload.member(C::KEY) else { return Ok(None) };
        let wrong = Error::internal("a claim in the token isn't of its type");
        Stamped::<C::Value>::read(value).map(|stamped| Some(stamped.v)).ok_or(wrong)
    }

    /// Writes a claim: into the session's row, and into a new access token that leaves with the response.
    ///
    /// # Errors
    /// `SessionEnded` if the session is over, `StaleToken` if a newer refresh token exists, `Invalid` if
    /// the token would no longer fit a cookie or the response's head was sent, `Unavailable` if the store
    /// failed. `Invalid` as well if the claim's key is one of those that the crate writes itself (row J26).
    /// Nothing is written then.
    pub async fn set_claim<C: SessionClaim>(&self, _claim: &C, value: C::Value) -> Result<(), Error> {
        free_key(C::KEY)?;
        let now = self.kit.db.now();
        let value = Stamped { v: value, t: now }.write()?;
        let mut update = Payload::new();
        update.set(C::KEY, value);
        self.update(update).await
    }

    /// Removes a claim.
    ///
    /// # Errors
    /// As [`Session::set_claim`].
    pub async fn remove_claim<C: SessionClaim>(&self, _claim: &C) -> Result<(), Error> {
        free_key(C::KEY)?;
        let mut update = Payload::new();
        update.set(C::KEY, Value::Null);
        self.update(update).await
    }

    /// Merges members into the payload; `null` removes one. The policy isn't asked because of it: where it reads
    /// the payload, call [`Users::judge_anew`](crate::account::Users::judge_anew) as well.
    ///
    /// # Errors
    /// As [`Session::set_claim`], and `Invalid` for members that claims own.
    pub async fn merge_payload(&self, update: Payload) -> Result<(), Error> {
        of_app(&update)?;
        self.update(update).await
    }

    /// Ends the session, on every node; the response clears the client's tokens.
    ///
    /// # Errors
    /// `Unavailable` if the store failed: the session may go on.
    pub async fn revoke(&self) -> Result<(), Error> {
        let (kit, opened) = (Arc::clone(&self.kit), self.opened());
        self.still_writable()?;
        kit.clone().run(async move { kit.revoke(&opened.claims.handle).await }).await?;
        self.set_change(transport::TokenChange::Clear(Some(self.opened().method)));
        Ok(())
    }

    /// Waits until the session is over, or the access token that the request came with has run out: for
    /// whoever keeps a connection open, a WebSocket or an event stream, to close it then (row M05).
    ///
    /// ```
    /// # async fn serve() {}
    /// # async fn socket(session: tower_mfa::Session) {
    /// tokio::select! {
    ///     () = serve() => {}
    ///     () = session.ended() => {} // close the connection; the client refreshes and comes again
    /// }
    /// # }
    /// ```
    ///
    /// A revocation is noticed about a second after this process read it in the change feed. What the feed alone
    /// can't tell is asked of the store, once a minute.
    pub async fn ended(&self) {
        let mut rounds = 0_u32;
        loop {
            let (claims, now) = (self.claims(), self.kit.db.now());
            if self.expires_at() <= now {
                return;
            }
            let over = match self.kit.verdict(&claims, time::monotonic(), now).0 {
                Verdict::Revoked => true,
                Verdict::Current => false,
                _ => rounds.is_multiple_of(60) && self.kit.is_over(&claims.handle).await,
            };
            if over {
                return;
            }
            tokio::time::sleep(ROUND).await;
            rounds = rounds.wrapping_add(1);
        }
    }

    async fn update(&self, update: Payload) -> Result<(), Error> {
        self.still_writable()?;
        let (kit, opened) = (Arc::clone(&self.kit), self.opened());
        let (opened, tokens) = kit.clone().run(async move { kit.patch(&opened, &update).await }).await?;
        self.replace(opened, tokens.into());
        Ok(())
    }

    pub(crate) fn kit(&self) -> &Arc<Kit> {
        &self.kit
    }

    pub(crate) fn opened(&self) -> Opened {
        self.state().opened.clone()
    }

    pub(crate) fn claims(&self) -> Arc<AccessClaims> {
        Arc::clone(&self.state().opened.claims)
    }

    /// The session goes on under a new token.
    pub(crate) fn replace(&self, opened: Opened, change: transport::TokenChange) {
        self.state().opened = opened;
        self.set_change(change);
    }

    pub(crate) fn set_change(&self, change: transport::TokenChange) {
        let mut state = self.state();
        state.change = match std::mem::take(&mut state.change) {
            Change::Sent => Change::Sent,
            Change::Nothing => Change::Tokens(Box::new(change)),
            Change::Tokens(earlier) => Change::Tokens(Box::new(change.after(*earlier))),
        };
    }

    /// What the response must carry, and whose it is; from now on nothing can be added. The memory of a session
    /// that nobody kept serves another request.
    #[inline]
    pub(crate) fn finish(self) -> (Arc<Kit>, Option<Box<transport::TokenChange>>) {
        let Self { kit, mut state } = self;
        let change = match Arc::get_mut(&mut state) {
            Some(alone) => {
                let alone = alone.get_mut().unwrap_or_else(PoisonError::into_inner);
                let change = std::mem::take(&mut alone.change);
                spare::put(state);
                change
            }
            None => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::replace(&mut state.change, Change::Sent)
            }
        };
        match change {
            Change::Tokens(change) => (kit, Some(change)),
            Change::Nothing | Change::Sent => (kit, None),
        }
    }

    pub(crate) fn still_writable(&self) -> Result<(), Error> {
        if self.kit.foreign.is_some() {
            return Err(Error::invalid("sessions of another issuer are only verified here"));
        }
        match self.state().change {
            Change::Sent => Err(Error::new(ErrorKind::Invalid, "the response's head was sent already")),
            _ => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses members that claims own.
pub(crate) fn of_app(update: &Payload) -> Result<(), Error> {
    match update.members().any(|(name, _)| name.starts_with("st-")) {
        true => Err(Error::invalid("members that begin with st- belong to claims")),
        false => Ok(()),
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("tenant", &self.tenant_id()).finish_non_exhaustive()
    }
}
