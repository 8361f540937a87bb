//! The session subject's own parts: the store, the keys, the feed, and the steps that need them all.

use std::{
    collections::BTreeSet,
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    claims::AccessClaims,
    cookies::TransferMethod,
    feed::{Feed, FeedCounts},
    jwks::Jwks,
    keyring::{Keys, ReloadGate},
    refresh::{self, Elevation, RefreshKeys, RefreshToken},
    seen::Seen,
    token::{self, Minted, Room},
    transport::Tokens,
    verify::Opened,
};
use crate::{
    base::{
        error::{Error, ErrorKind},
        ident::{FactorId, SessionHandle},
        payload::Payload,
        random,
        secret::Secret,
        task::Tasks,
        time::{self, Clock, Timestamp},
    },
    config::Config,
    model::{
        Db, Staged, Tx,
        audit::{Audited, Event},
        change::{self, ChangeKind, Cursor},
        epoch::Standing,
        keys,
        seal::Sealer,
        session::{self, SessionRecord},
        tenant,
    },
};

/// How far the guarded clock may be from the store's before the node signs nothing (row D07).
const SKEW: u64 = 5_000;
/// A sample of the store's clock that took longer is too vague.
const SLOW: Duration = Duration::from_millis(500);
/// How long the guard may hold the clock before the process should be restarted (row J28).
const HELD: Duration = Duration::from_secs(60);

/// How many different demands that can't be met are told.
const UNMEETABLE: usize = 100;

/// What verifying, minting and ending sessions needs.
pub(crate) struct Kit {
    pub(crate) db: Db,
    pub(crate) tasks: Tasks,
    pub(crate) keys: Keys,
    pub(crate) gate: ReloadGate,
    pub(crate) feed: Feed,
    pub(crate) feed_counts: FeedCounts,
    /// How far the feed was read; held while it is being read, so that readers share one read.
    pub(super) cursor: tokio::sync::Mutex<Cursor>,
    /// Newest first.
    pub(crate) refresh: Vec<RefreshKeys>,
    pub(crate) sealer: Arc<Sealer>,
    /// The first start's records and a signing key are there.
    ready: tokio::sync::OnceCell<()>,
    /// An app's own clock answers for itself: it is not set by the store's.
    own_clock: bool,
    /// The clock was set by the store's once, or is the app's own.
    clock_set: AtomicBool,
    /// How far the clock has been moved; held while it is being set.
    moved: tokio::sync::Mutex<i64>,
    /// The clock is too far from the store's: nothing is signed (row D07).
    skewed: AtomicBool,
    /// How often a successor was delivered again (row R03).
    pub(crate) grace_hits: AtomicU64,
    /// The keys of another issuer, whose sessions are verified here and nothing else.
    pub(crate) foreign: Option<Jwks>,
    pub(crate) config: Arc<Config>,
    pub(crate) issuer: String,
    /// The factors that can be completed within a session.
    pub(crate) usable: Vec<FactorId>,
    /// What is demanded on routes and can't be completed, as far as the log was told.
    unmeetable: Mutex<BTreeSet<String>>,
}

/// A session's row that may go on, as one round read it.
pub(crate) struct Alive {
    pub(crate) row: SessionRecord,
    pub(crate) standing: Standing,
}

impl Kit {
    /// The parts of a process that has loaded nothing yet. `refresh` has the newest keys first; an app's own
    /// clock (`own_clock`) is not set by the store's.
    pub(crate) fn new(
        db: Db,
        config: Arc<Config>,
        sealer: Arc<Sealer>,
        refresh: Vec<RefreshKeys>,
        seen: Seen,
        own_clock: bool,
        usable: Vec<FactorId>,
    ) -> Self {
        Self {
            db,
            tasks: Tasks::new(),
            keys: Keys::new(seen),
            gate: ReloadGate::default(),
            feed: Feed::default(),
            feed_counts: FeedCounts::default(),
            cursor: tokio::sync::Mutex::default(),
            refresh,
            sealer,
            ready: tokio::sync::OnceCell::new(),
            own_clock,
            clock_set: AtomicBool::new(own_clock),
            moved: tokio::sync::Mutex::default(),
            skewed: AtomicBool::new(false),
            grace_hits: AtomicU64::new(0),
            foreign: None,
            issuer: config.app.issuer(),
            config,
            usable,
            unmeetable: Mutex::default(),
        }
    }

    /// The parts of a process that verifies the sessions of another issuer: no store, no secrets.
    pub(crate) fn verifying(
        config: Config,
        jwks: Jwks,
        clock: Arc<dyn Clock>,
        own_clock: bool,
        usable: Vec<FactorId>,
    ) -> Self {
        let (db, config) = (Db::without_store(clock), Arc::new(config));
        let kit = Self::new(db, config, Arc::default(), Vec::new(), Seen::default(), own_clock, usable);
        Self { foreign: Some(jwks), ..kit }
    }

    /// Runs a mutation to its end, whatever becomes of the caller.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.tasks.run(work).await
    }

    /// Makes sure that the first start's records and a signing key are there.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        let prepare = || async {
            self.set_clock().await?;
            tenant::bootstrap(&self.db).await?;
            self.tend_keys().await
        };
        self.ready.get_or_try_init(prepare).await.copied()
    }

    /// Sets the clock by the store's, before anything is judged and once a second from then on: of several
    /// nodes one clock decides (row R18).
    pub(crate) async fn set_clock(&self) -> Result<(), Error> {
        if self.own_clock {
            return Ok(());
        }
        let mut moved = self.moved.lock().await;
        let (asked, clock) = (time::monotonic(), self.db.clock());
        let answered = self.db.store_now().await?;
        let trip = time::monotonic().saturating_duration_since(asked);
        // The answer was given somewhere on the way. One that took long says too little, unless there is none yet.
        if trip > SLOW && self.clock_set.load(Ordering::Relaxed) {
            return Ok(());
        }
        let store = answered + trip / 2;
        let ahead = store.as_millis().saturating_sub(clock.now().as_millis());
        if ahead.unsigned_abs() > 500 {
            clock.follow(ahead);
            *moved = moved.saturating_add(ahead);
        }
        // Whoever sees that it was set sees what it was set to.
        self.clock_set.store(true, Ordering::Release);
        let skewed = moved.unsigned_abs() > SKEW || clock.held() > HELD;
        if !self.skewed.swap(skewed, Ordering::Relaxed) && skewed {
            #[cfg(feature = "tracing")]
            tracing::error!(
                "this node's clock is too far from the store's: it signs nothing until that is mended"
            );
        }
        Ok(())
    }

    pub(crate) fn is_skewed(&self) -> bool {
        self.skewed.load(Ordering::Relaxed)
    }

    /// A node whose clock was never set judges nothing: its feed stays unread.
    pub(super) async fn ensure_clock(&self) -> Result<(), Error> {
        if self.clock_set.load(Ordering::Acquire) { Ok(()) } else { self.set_clock().await }
    }

    /// Tells, and stores nowhere, that a session was kept out of a route for a claim.
    pub(crate) fn mention_refusal(&self, claims: &AccessClaims) {
        let event = Event::new(Audited::AccessRefused, &claims.tenant).user(&claims.user);
        self.db.trail.mention(event.session(&claims.handle), self.db.now());
    }

    /// Tells the log, once, that a route demands what nobody can complete (row P11).
    pub(crate) fn tell_unmeetable(&self, problem: &str) {
        let mut told = self.unmeetable.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < UNMEETABLE && told.insert(problem.to_owned()) {
            #[cfg(feature = "tracing")]
            tracing::error!(%problem, "a guard demands what nobody can complete");
        }
    }

    /// Reads a session's row and the numbers it is measured against.
    ///
    /// # Errors
    /// `SessionEnded` if it is gone, past an end, revoked, or its user or tenant is gone.
    pub(crate) async fn alive(&self, tx: &mut Tx, handle: &SessionHandle) -> Result<Alive, Error> {
        let ended = Error::new(ErrorKind::SessionEnded, "the session is over");
        let Some(row) = tx.get::<SessionRecord>(&keys::session(handle)).await? else { return Err(ended) };
        let standing = Standing::read(tx, &row.tenant, &row.user).await?;
        let dead = standing.revokes(&row.epochs);
        match refresh::ended(&row.lineage, dead, tx.now()) {
            Some(_) => Err(ended),
            None => Ok(Alive { row, standing }),
        }
    }

    /// Whether a session is known to be over; a store that doesn't answer knows nothing.
    pub(crate) async fn is_over(&self, handle: &SessionHandle) -> bool {
        let look = |mut tx: Tx| async move {
            self.alive(&mut tx, handle).await?;
            tx.abandon(())
        };
        self.db.look(look).await.is_err_and(|error| error.kind() == ErrorKind::SessionEnded)
    }

    /// As [`Kit::alive`], for the holder of an access token who wants another one.
    ///
    /// # Errors
    /// Besides, `StaleToken` if the token was minted with an earlier refresh token (rows S02 c, R20).
    pub(crate) async fn held(&self, tx: &mut Tx, claims: &AccessClaims) -> Result<Alive, Error> {
        let alive = self.alive(tx, &claims.handle).await?;
        match refresh::elevation(&alive.row.lineage, &claims.refresh_hash1, tx.now()) {
            Elevation::Elevate => Ok(alive),
            Elevation::Shared | Elevation::Stale => {
                Err(Error::new(ErrorKind::StaleToken, "the access token is of an earlier refresh token"))
            }
        }
    }

    /// Mints an access token from a row. `refresh_hash1` names the refresh token it belongs to,
    /// `anti_csrf` is that token's.
    ///
    /// # Errors
    /// `Unavailable` without a signing key, `Invalid` if the token would not fit a cookie.
    pub(crate) fn mint(
        &self,
        handle: &SessionHandle,
        row: &SessionRecord,
        refresh_hash1: String,
        anti_csrf: Option<String>,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(Arc<AccessClaims>, Minted), Error> {
        let claims = Arc::new(AccessClaims {
            user: row.user.clone(),
            login: row.login.clone(),
            tenant: row.tenant.clone(),
            handle: handle.clone(),
            refresh_hash1,
            anti_csrf,
            issued_at: now.as_secs(),
            not_before: None,
            expires_at: expires_at.as_secs(),
            epochs: row.numbers(),
            ask_at: row.ask_at,
            payload: row.payload.clone().for_token(),
        });
        if self.is_skewed() {
            return Err(Error::unavailable("this node's clock is not the store's"));
        }
        crate::base::failpoint!(blocking "sign.start");
        let keyring = self.keys.current();
        let key = keyring.signing(now).ok_or(Error::unavailable("there is no signing key"))?;
        let room = Room { name: self.config.cookies.access_name_len(), limit: Room::BROWSER };
        let minted = token::mint(&claims, key, &self.issuer, room)?;
        keyring.seen().keep(minted.token.expose().as_bytes(), &claims, key.times().verify_until);
        Ok((claims, minted))
    }

    /// Mints all that goes with a refresh token: what sign-in, refresh and elevation answer.
    pub(crate) fn issue(
        &self,
        row: &SessionRecord,
        token: &RefreshToken,
        method: TransferMethod,
        now: Timestamp,
    ) -> Result<(Opened, Tokens), Error> {
        let end = self.access_end(row, now)?;
        let anti_csrf = self.anti_csrf(token, method);
        let (claims, minted) = self.mint(token.handle(), row, token.hash1(), anti_csrf.clone(), end, now)?;
        let tokens = Tokens {
            refresh: Some((Secret::new(token.text().to_owned()), row.lineage.ends_at())),
            anti_csrf: anti_csrf.map(Secret::new),
            ..Tokens::of_access(minted, method)
        };
        Ok((Opened { claims, method }, tokens))
    }

    /// When a token minted now runs out: its life less up to 5 % (row R17), never past an end of the row.
    fn access_end(&self, row: &SessionRecord, now: Timestamp) -> Result<Timestamp, Error> {
        let life = self.config.lifetimes.access_token;
        let jitter = u32::from_be_bytes(random::bytes()?);
        let shortened = life - life.mul_f64(0.05 * f64::from(jitter) / f64::from(u32::MAX));
        Ok((now + shortened.max(Duration::from_secs(1))).min(row.lineage.ends_at()))
    }

    fn anti_csrf(&self, token: &RefreshToken, method: TransferMethod) -> Option<String> {
        let wanted = self.config.csrf == super::csrf::AntiCsrf::Token && method == TransferMethod::Cookie;
        let keys = self.refresh.first().filter(|_| wanted)?;
        Some(token.anti_csrf(keys))
    }

    /// Merges members into a session's payload and mints the token that says so (row S06: the token's own
    /// claims are never an input).
    pub(crate) async fn patch(&self, opened: &Opened, update: &Payload) -> Result<(Opened, Tokens), Error> {
        let claims = &opened.claims;
        self.db
            .transact(&claims.handle, |mut tx| async move {
                let mut alive = self.held(&mut tx, claims).await?;
                alive.row.payload.merge(update);
                self.stage_renewed(tx, opened, &alive.row).await
            })
            .await
    }

    /// Merges members into the payload of a session that isn't the caller's; its holder sees them at the
    /// next judgement.
    pub(crate) async fn patch_row(&self, handle: &SessionHandle, update: &Payload) -> Result<(), Error> {
        let change = self
            .db
            .transact(handle, |mut tx| async move {
                let mut row = self.alive(&mut tx, handle).await?.row;
                if !row.payload.merge(update) {
                    return tx.abandon(None);
                }
                row.revision += 1;
                session::put(&mut tx, handle, &row).await?;
                let subject = change::Subject::Session(handle.clone());
                let change = change::record(&mut tx, subject, row.revision, ChangeKind::JudgeAnew).await?;
                tx.commit(Some(change))
            })
            .await?;
        self.learn(change.iter());
        Ok(())
    }

    /// Stages a row and mints a token from it that belongs to the refresh token the client has, with the
    /// end of the token it replaces (`spec/wire.md` §4.5).
    pub(crate) async fn stage_renewed(
        &self,
        mut tx: Tx,
        opened: &Opened,
        row: &SessionRecord,
    ) -> Result<Staged<(Opened, Tokens)>, Error> {
        let (old, now) = (&opened.claims, tx.now());
        let end = Timestamp::from_secs(old.expires_at).min(row.lineage.ends_at());
        let (claims, minted) =
            self.mint(&old.handle, row, old.refresh_hash1.clone(), old.anti_csrf.clone(), end, now)?;
        session::put(&mut tx, &old.handle, row).await?;
        let tokens = Tokens::of_access(minted, opened.method);
        tx.commit((Opened { claims, method: opened.method }, tokens))
    }
}

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit").finish_non_exhaustive()
    }
}
