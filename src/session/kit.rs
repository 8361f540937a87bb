//! The session subject's own parts: the store, the keys, the feed, and the few steps that need them all.

use std::{future::Future, sync::Arc, time::Duration};

use super::{
    Opened, TransferMethod,
    feed::{Feed, Verdict},
    keyring::Keys,
    refresh::RefreshKeys,
    token::{self, AccessClaims, Minted},
    transport::{NewTokens, TokenChange},
};
use crate::{
    base::{
        error::{Error, ErrorKind},
        hash,
        ident::{SessionHandle, UserId},
        payload::Payload,
        random,
        task::Tasks,
        time::{self, Timestamp},
    },
    config::Config,
    model::{
        Db, Staged, Tx,
        audit::{self, Event, What},
        change::{self, ChangeKind, Subject},
        epoch::Standing,
        keys,
        session::{self, SessionRecord},
    },
};

/// What verifying, minting and ending sessions needs.
pub(crate) struct Kit {
    pub(crate) db: Db,
    pub(crate) tasks: Tasks,
    pub(crate) keys: Keys,
    pub(crate) feed: Feed,
    pub(crate) refresh: RefreshKeys,
    pub(crate) config: Arc<Config>,
    pub(crate) issuer: String,
}

/// A session's row that may go on, as one round read it.
pub(crate) struct Alive {
    pub(crate) row: SessionRecord,
    pub(crate) standing: Standing,
}

impl Kit {
    /// Runs a mutation to its end, whatever becomes of the caller.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.tasks.run(work).await
    }

    /// What the feed says of an opened token.
    pub(crate) fn verdict(&self, claims: &AccessClaims, now: Timestamp) -> Verdict {
        self.feed.judge(claims, now)
    }

    /// Reads a session's row and the numbers it is measured against.
    ///
    /// # Errors
    /// `SessionEnded` if it is gone, past an end, revoked, or its user or tenant is gone.
    pub(crate) async fn alive(&self, tx: &mut Tx, handle: &SessionHandle) -> Result<Alive, Error> {
        let ended = Error::new(ErrorKind::SessionEnded, "the session is over");
        let Some(row) = tx.get::<SessionRecord>(&keys::session(handle)).await? else { return Err(ended) };
        let standing = Standing::read(tx, &row.tenant, &row.user).await?;
        if standing.revokes(&row.epochs) || row.ended(tx.now()) { Err(ended) } else { Ok(Alive { row, standing }) }
    }

    /// As [`Kit::alive`], for the holder of an access token.
    ///
    /// # Errors
    /// Besides, `StaleToken` if the token was minted with an earlier refresh token (rows S02 c, R20), but
    /// for the one just elevated from while its successor is unused (S02 d).
    pub(crate) async fn held(&self, tx: &mut Tx, claims: &AccessClaims) -> Result<Alive, Error> {
        let alive = self.alive(tx, &claims.handle).await?;
        let presented = hash::sha256_hex(claims.refresh_hash1.as_bytes());
        match alive.row.lineage.accepts_access(&presented, tx.now(), self.config.lifetimes.refresh_grace) {
            true => Ok(alive),
            false => Err(Error::new(ErrorKind::StaleToken, "the access token is of an earlier refresh token")),
        }
    }

    /// Mints an access token from a row. `refresh_hash1` names the refresh token it belongs to.
    ///
    /// # Errors
    /// `Unavailable` without a signing key, `Invalid` if the token would not fit a cookie.
    pub(crate) fn mint(
        &self,
        handle: &SessionHandle,
        row: &SessionRecord,
        refresh_hash1: &str,
        method: TransferMethod,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(AccessClaims, Minted), Error> {
        let claims = AccessClaims {
            user: row.user.clone(),
            login: row.login.clone(),
            tenant: row.tenant.clone(),
            handle: handle.clone(),
            refresh_hash1: refresh_hash1.to_owned(),
            anti_csrf: self.anti_csrf(handle, refresh_hash1, method),
            issued_at: now.as_secs(),
            expires_at: expires_at.as_secs(),
            epochs: row.numbers(),
            ask_at: row.ask_at,
            payload: row.payload.clone(),
        };
        let keyring = self.keys.current();
        let key = keyring.signing(now).ok_or(Error::unavailable("there is no signing key"))?;
        let minted = token::mint(&claims, key, &self.issuer, self.config.cookies.access_name().len())?;
        Ok((claims, minted))
    }

    /// When a token minted now runs out: its life less up to 5 % (row R17), never past an end of the row.
    pub(crate) fn access_end(&self, row: &SessionRecord, now: Timestamp) -> Result<Timestamp, Error> {
        let life = self.config.lifetimes.access_token;
        let jitter = u32::from_be_bytes(random::bytes()?);
        let shortened = life - life.mul_f64(0.05 * f64::from(jitter) / f64::from(u32::MAX));
        Ok((now + shortened.max(Duration::from_secs(1))).min(row.end()))
    }

    /// The anti-CSRF value bound to a refresh token: derived, so that every answer to one refresh agrees.
    pub(crate) fn anti_csrf(
        &self,
        handle: &SessionHandle,
        refresh_hash1: &str,
        method: TransferMethod,
    ) -> Option<String> {
        let wanted = self.config.csrf.by_token() && method == TransferMethod::Cookie;
        wanted.then(|| self.refresh.anti_csrf(handle.as_str(), refresh_hash1))
    }

    /// Stages that a session is over, and says so in the feed.
    pub(crate) async fn stage_end(
        &self,
        tx: &mut Tx,
        handle: &SessionHandle,
        row: &SessionRecord,
    ) -> Result<change::Change, Error> {
        session::remove(tx, handle, row).await?;
        change::record(tx, Subject::Session(handle.clone()), row.revision + 1, ChangeKind::Revoked).await
    }

    /// Ends a session; one that is over already is no error (row S07).
    pub(crate) async fn revoke(&self, handle: &SessionHandle) -> Result<bool, Error> {
        let change = self
            .db
            .transact(handle, |mut tx| async move {
                let Some(row) = tx.get::<SessionRecord>(&keys::session(handle)).await? else {
                    return tx.abandon(None);
                };
                let change = self.stage_end(&mut tx, handle, &row).await?;
                audit::stage(&mut tx, Event::new(What::SessionRevoked, &row.tenant).user(&row.user).session(handle))?;
                tx.commit(Some(change))
            })
            .await?;
        self.learn(change.iter());
        Ok(change.is_some())
    }

    /// Ends every session of a user by raising a number: one small batch, and no race with a sign-in or
    /// refresh under way (row S08). `keep` goes on under the new number.
    pub(crate) async fn revoke_user(&self, user: &UserId, keep: Option<&SessionHandle>) -> Result<(), Error> {
        let change = self
            .db
            .transact(user, |mut tx| async move {
                let change = change::stage(&mut tx, Subject::User(user.clone()), ChangeKind::Revoked).await?;
                if let Some(handle) = keep
                    && let Some(mut row) = tx.get::<SessionRecord>(&keys::session(handle)).await?
                {
                    row.epochs.user = change.n;
                    session::put(&mut tx, handle, &row).await?;
                }
                session::forget_others(&mut tx, user, keep).await?;
                let tenant = keep.map(SessionHandle::tenant).unwrap_or_default();
                audit::stage(&mut tx, Event::new(What::SessionsRevoked, &tenant).user(user))?;
                tx.commit(change)
            })
            .await?;
        self.learn([&change]);
        Ok(())
    }

    /// Merges members into a session's payload and mints the token that says so (row S06: the token's own
    /// claims are never an input).
    pub(crate) async fn patch(&self, opened: &Opened, update: &Payload) -> Result<(Opened, TokenChange), Error> {
        let claims = &opened.claims;
        self.db
            .transact(&claims.handle, |mut tx| async move {
                let mut alive = self.held(&mut tx, claims).await?;
                alive.row.payload.merge(update);
                self.stage_renewed(tx, opened, alive.row).await
            })
            .await
    }

    /// Stages a row and mints a token from it that belongs to the refresh token the client has, with the
    /// end of the token it replaces (`spec/wire.md` §4.5).
    pub(crate) async fn stage_renewed(
        &self,
        mut tx: Tx,
        opened: &Opened,
        row: SessionRecord,
    ) -> Result<Staged<(Opened, TokenChange)>, Error> {
        let (claims, now) = (&opened.claims, tx.now());
        let end = Timestamp::from_secs(claims.expires_at).min(row.end());
        let (claims, minted) =
            self.mint(&claims.handle, &row, &claims.refresh_hash1, opened.method, end, now)?;
        session::put(&mut tx, &claims.handle, &row).await?;
        let opened = Opened { claims: Arc::new(claims), method: opened.method };
        let change = TokenChange::access(opened.method, minted);
        tx.commit((opened, change))
    }

    /// Folds in what this process itself committed, at once.
    pub(crate) fn learn<'a>(&self, changes: impl IntoIterator<Item = &'a change::Change>) {
        for change in changes {
            self.feed.fold(change, self.db.now());
        }
    }

    /// All that leaves with a new refresh token.
    pub(crate) fn tokens(
        &self,
        row: &SessionRecord,
        claims: &AccessClaims,
        method: TransferMethod,
        minted: Minted,
        refresh: String,
    ) -> TokenChange {
        TokenChange::pair(
            method,
            NewTokens { minted, refresh, refresh_end: row.refresh_end(), anti_csrf: claims.anti_csrf.clone() },
        )
    }
}

impl std::fmt::Debug for Kit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kit").finish_non_exhaustive()
    }
}
