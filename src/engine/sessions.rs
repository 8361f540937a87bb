//! Sessions, by handle and by user.

use std::sync::Arc;

pub use self::within::SessionsIn;
use super::Mfa;
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::{SessionHandle, TenantId, UserId},
        payload::Payload,
        time::Timestamp,
    },
    model::{
        Tx,
        audit::{self, Audited, Cause, Event},
        change::{self, ChangeKind, Subject},
        keys,
        session::{Listed, SessionsOf},
    },
    session::{Session, of_app},
};

mod within;

/// Sessions: see [`Mfa::sessions`].
///
/// What is ended here can't be refreshed from the moment the call returns, on any node. An access token that
/// is out already is refused at once by this process and by every mount with
/// [`check_store`](crate::MfaLayer::check_store), on another node when it next reads the change feed, which
/// is every second; a node that is cut off from the store takes it until it runs out, at most
/// [`Lifetimes::access_token`](crate::config::Lifetimes::access_token) after the call, unless its mount
/// says [`Stale::Refuse`](crate::config::Stale::Refuse) (row S11).
#[derive(Debug)]
pub struct Sessions<'a> {
    pub(super) mfa: &'a Mfa,
}

/// A session, as it may be shown.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Names the session.
    pub handle: SessionHandle,
    /// The tenant.
    pub tenant: TenantId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last refreshed.
    pub used_at: Timestamp,
    /// What the browser or app called itself at sign-in, at most 256 characters: its own word, no proof of anything.
    /// Escape it where it is shown.
    pub device: Option<String>,
    /// Whether it still lacks a factor and never had all.
    pub half: bool,
}

impl Sessions<'_> {
    /// Those of one tenant, and no others: for an administrator of that tenant (row N03).
    pub fn within(&self, tenant: &TenantId) -> SessionsIn<'_> {
        SessionsIn { mfa: self.mfa, tenant: tenant.clone() }
    }

    /// A user's sessions, oldest first, for an administrator: those that still lack a factor are among them. What a
    /// user is shown is [`Sessions::list_own`].
    ///
    /// # Errors
    /// If the store failed.
    pub async fn list(&self, user: &UserId) -> Result<Vec<SessionInfo>, Error> {
        let db = self.mfa.db();
        let list: SessionsOf = db.get(&keys::sessions_of(user)).await?.unwrap_or_default();
        let mut infos = Vec::with_capacity(list.sessions.len());
        for Listed { handle, .. } in list.sessions {
            let alive = db
                .look(|mut tx| async {
                    let alive = self.mfa.desk.kit.alive(&mut tx, &handle).await?;
                    tx.abandon(alive.row)
                })
                .await;
            match alive {
                Ok(row) => infos.push(SessionInfo {
                    tenant: row.tenant.clone(),
                    created_at: row.created_at,
                    used_at: row.used_at,
                    half: row.is_half(),
                    device: row.agent,
                    handle,
                }),
                Err(error) if error.kind() == ErrorKind::SessionEnded => {}
                Err(error) => return Err(error),
            }
        }
        Ok(infos)
    }

    /// Where a session's user is signed in, oldest first, for a page that tells them. Half a sign-in is none: a session
    /// that never had all its factors isn't listed (row S13). The trail has it, and
    /// [`SessionCreated::complete`](crate::hooks::SessionCreated::complete) tells it apart.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn list_own(&self, session: &Session) -> Result<Vec<SessionInfo>, Error> {
        let mut infos = self.list(&session.user_id()).await?;
        infos.retain(|info| !info.half);
        Ok(infos)
    }

    /// Ends one of the sessions of a session's user, by the handle that [`Sessions::list_own`] told: what a page "where
    /// you are signed in" calls. Says whether it was one of theirs: a handle of somebody else's session is answered
    /// as one that isn't there (row S16).
    ///
    /// A guard on the route that asks for a fresh factor,
    /// [`RequireFactors::max_age`](crate::RequireFactors::max_age), tells the client what to do first.
    ///
    /// # Errors
    /// `StepUp` unless a factor as strong as the strongest that the user has was proven in this session within five
    /// minutes; as [`Session::set_claim`](crate::Session::set_claim).
    pub async fn revoke_own(&self, session: &Session, handle: &SessionHandle) -> Result<bool, Error> {
        let (desk, opened, handle) = (Arc::clone(&self.mfa.desk), session.opened(), handle.clone());
        if opened.claims.handle == handle {
            session.revoke().await?;
            return Ok(true);
        }
        self.mfa.desk.kit.run(async move { desk.end_own(&opened, &handle).await }).await
    }

    /// Ends a session, on every node; one that is over already is no error. Says whether it was there.
    ///
    /// # Errors
    /// If the store failed: the session may go on.
    pub async fn revoke(&self, handle: &SessionHandle) -> Result<bool, Error> {
        let (kit, handle) = (Arc::clone(&self.mfa.desk.kit), handle.clone());
        self.mfa.desk.kit.run(async move { kit.revoke(&handle).await }).await
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// If the store failed: sessions may go on.
    pub async fn revoke_user(&self, user: &UserId) -> Result<(), Error> {
        let (kit, user) = (Arc::clone(&self.mfa.desk.kit), user.clone());
        self.mfa.desk.kit.run(async move { kit.revoke_user(&user).await }).await
    }

    /// Ends all sessions of a session's user but this one, which goes on under a new access token.
    ///
    /// # Errors
    /// `StepUp` unless a factor as strong as the strongest that the user has was proven in this session within five
    /// minutes (row S16); `SessionEnded` if this one is over, `StaleToken` if a newer refresh token exists, `Invalid` if the
    /// response's head was sent, `Unavailable` if the store failed: sessions may go on.
    pub async fn revoke_others(&self, session: &Session) -> Result<(), Error> {
        session.still_writable()?;
        let (desk, opened) = (Arc::clone(&self.mfa.desk), session.opened());
        let renewed = self.mfa.desk.kit.run(async move { desk.end_others(&opened).await }).await?;
        session.replace(renewed.0, renewed.1.into());
        Ok(())
    }

    /// Ends every session there is.
    ///
    /// # Errors
    /// If the store failed: sessions may go on.
    pub async fn revoke_all(&self) -> Result<(), Error> {
        self.mfa
            .change(|desk| async move {
                let stage = |mut tx: Tx| async move {
                    let change = change::stage(&mut tx, Subject::App, ChangeKind::Revoked).await?;
                    let event = Event::new(Audited::SessionsRevoked, &TenantId::PUBLIC);
                    audit::stage(&mut tx, event.cause(Cause::Asked))?;
                    tx.commit(change)
                };
                let change = desk.kit.db.transact("app", stage).await?;
                Ok(((), vec![change]))
            })
            .await
    }

    /// Merges members into the payload of a session; its holder sees them at the next request.
    ///
    /// # Errors
    /// `SessionEnded` if it is over, `Invalid` for members that claims own.
    pub async fn merge_payload(&self, handle: &SessionHandle, update: Payload) -> Result<(), Error> {
        of_app(&update)?;
        let (kit, handle) = (Arc::clone(&self.mfa.desk.kit), handle.clone());
        self.mfa.desk.kit.run(async move { kit.patch_row(&handle, &update).await }).await
    }
}
