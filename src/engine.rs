//! The handle of the whole: cheap to clone, wires the parts, holds them in one `Arc`.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use tokio::task::JoinHandle;

use crate::{
    base::{
        contact::Email,
        error::{Error, ErrorKind},
        ident::{FactorId, Role, SessionHandle, TenantId, UserId},
        payload::Payload,
        time::Clock,
    },
    flow::Desk,
    model::{
        Db,
        change::{self, ChangeKind, Subject},
        keys,
        metadata::{self, RequiredFactors},
        role::{self, Roles},
        session::{SessionRecord, SessionsOf},
        tenant::{self, Tenant},
        user::{self, LoginKind, NewLogin, Owner, User},
    },
    session::Session,
    store::Scan,
};

/// Everything, behind one handle. Made by [`Mfa::builder`](crate::MfaBuilder).
#[derive(Clone)]
pub struct Mfa {
    pub(crate) desk: Arc<Desk>,
    _background: Arc<Background>,
}

/// Tasks that end with the last handle.
struct Background(Vec<JoinHandle<()>>);

impl Drop for Background {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl fmt::Debug for Mfa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mfa").finish_non_exhaustive()
    }
}

/// How often the change feed is read and the store's clock sampled.
const TICK: Duration = Duration::from_secs(1);
/// How often keys are tended and what has expired is swept.
const CHORES: u64 = 30;

impl Mfa {
    pub(crate) fn start(desk: Arc<Desk>, clock: Arc<dyn Clock>) -> Self {
        let ticking = tokio::spawn(tick(Arc::clone(&desk), clock));
        let sending = tokio::spawn(crate::delivery::worker::run(Arc::clone(&desk.courier)));
        Self { desk, _background: Arc::new(Background(vec![ticking, sending])) }
    }

    /// Users and their login methods.
    pub fn users(&self) -> Users<'_> {
        Users { mfa: self }
    }

    /// Sessions.
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions { mfa: self }
    }

    /// Tenants.
    pub fn tenants(&self) -> Tenants<'_> {
        Tenants { mfa: self }
    }

    /// Roles of users in tenants.
    pub fn roles(&self) -> RolesOf<'_> {
        RolesOf { mfa: self }
    }

    /// What users opted into.
    pub fn factors(&self) -> FactorsOf<'_> {
        FactorsOf { mfa: self }
    }

    /// Counters since the start, for operators.
    pub fn counters(&self) -> Counters {
        Counters {
            #[cfg(feature = "password")]
            password_hashes: self.desk.passwords.hashes(),
            #[cfg(not(feature = "password"))]
            password_hashes: 0,
            code_comparisons: self.desk.otp.comparisons(),
        }
    }

    /// Takes no new work, and waits for what is under way, at most 30 s.
    pub async fn shutdown(&self) {
        self.desk.kit.tasks.drain(Duration::from_secs(30)).await;
    }

    fn db(&self) -> &Db {
        &self.desk.kit.db
    }

    /// Runs a mutation to its end, whatever becomes of the caller, and folds in its changes.
    async fn change<T, F>(&self, work: impl FnOnce(Arc<Desk>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<(T, Vec<change::Change>), Error>> + Send + 'static,
    {
        let (desk, work) = (Arc::clone(&self.desk), work(Arc::clone(&self.desk)));
        self.desk
            .kit
            .run(async move {
                desk.kit.ready().await?;
                let (value, changes) = work.await?;
                desk.kit.learn(&changes);
                Ok(value)
            })
            .await
    }
}

async fn tick(desk: Arc<Desk>, clock: Arc<dyn Clock>) {
    let kit = &desk.kit;
    let mut ticks = 0_u64;
    loop {
        let _ = kit.ready().await;
        // A failing read shows in the feed's age, which every request looks at.
        let _ = kit.poll_feed().await;
        if let Ok(store) = kit.db.store_now().await {
            let ahead = store.as_millis().saturating_sub(clock.now().as_millis());
            if ahead.abs() > TICK.as_millis() as i64 {
                clock.follow(ahead);
            }
        }
        if ticks % CHORES == 0 {
            let _ = kit.tend_keys().await;
            let _ = kit.db.sweep().await;
        }
        ticks += 1;
        tokio::time::sleep(TICK).await;
    }
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// How many passwords were hashed.
    pub password_hashes: u64,
    /// How many guesses of one-time codes were compared.
    pub code_comparisons: u64,
}

/// Users and their login methods: see [`Mfa::users`].
#[derive(Debug)]
pub struct Users<'a> {
    mfa: &'a Mfa,
}

impl Users<'_> {
    /// A user with all login methods.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn load(&self, user: &UserId) -> Result<Option<User>, Error> {
        self.mfa.db().get(&keys::user(user)).await
    }

    /// The users who sign in by an e-mail address in a tenant: by password, by code, or by both.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn by_email(&self, tenant: &TenantId, email: &Email) -> Result<Vec<User>, Error> {
        let mut ids = BTreeSet::new();
        for kind in ["emailpassword", "passwordless-email"] {
            if let Some(owner) =
                self.mfa.db().get::<Owner>(&keys::login(tenant, kind, email.as_str())).await?
            {
                ids.insert(owner.user);
            }
        }
        let mut users = Vec::new();
        for id in ids {
            users.extend(self.load(&id).await?);
        }
        Ok(users)
    }

    /// Makes a user who signs in by codes to this address, already proved elsewhere.
    ///
    /// # Errors
    /// `Invalid` if the address signs somebody in already; `NotFound` without the tenant.
    pub async fn create(&self, tenant: &TenantId, email: &Email) -> Result<User, Error> {
        let (tenant, new) = (tenant.clone(), NewLogin::passwordless(&email.clone().into()));
        self.mfa
            .change(|desk| async move {
                let user = desk
                    .kit
                    .db
                    .transact(&tenant, |mut tx| {
                        let (tenant, new) = (&tenant, &new);
                        async move {
                            tx.get::<Tenant>(&keys::tenant(tenant)).await?.ok_or(no_tenant())?;
                            if user::owner(&mut tx, tenant, new).await?.is_some() {
                                return Err(Error::invalid("the address is another user's"));
                            }
                            let user = user::prepare(tenant, new, tx.now())?;
                            user::create(&mut tx, tenant, &user, new).await?;
                            tx.commit(user)
                        }
                    })
                    .await?;
                Ok((user, Vec::new()))
            })
            .await
    }

    /// Gives a user another login method: codes to this address, already proved elsewhere.
    ///
    /// # Errors
    /// `Invalid` if the address is another user's, `NotFound` without the user.
    pub async fn add_email(&self, user: &UserId, tenant: &TenantId, email: &Email) -> Result<User, Error> {
        let (id, tenant) = (user.clone(), tenant.clone());
        let new = NewLogin::passwordless(&email.clone().into());
        self.edit(id, move |mut tx, mut user| {
            let (tenant, new) = (tenant.clone(), new.clone());
            Box::pin(async move {
                let taken = user::owner(&mut tx, &tenant, &new).await?.is_some()
                    || user::primary_of(&mut tx, &tenant, &new).await?.is_some_and(|other| other != user.id);
                if taken {
                    return Err(Error::invalid("the address is another user's"));
                }
                user::add_login(&mut tx, &tenant, &mut user, &new).await?;
                tx.commit((user, Vec::new()))
            })
        })
        .await
    }

    /// Lets all of a user's login methods count in more tenants.
    ///
    /// # Errors
    /// `Invalid` if a name is taken there, `NotFound` without the user or a tenant.
    pub async fn add_to_tenants(
        &self,
        user: &UserId,
        tenants: impl IntoIterator<Item = TenantId>,
    ) -> Result<User, Error> {
        let tenants: Vec<TenantId> = tenants.into_iter().collect();
        self.edit(user.clone(), move |mut tx, mut user| {
            let tenants = tenants.clone();
            Box::pin(async move {
                for tenant in &tenants {
                    tx.get::<Tenant>(&keys::tenant(tenant)).await?.ok_or(no_tenant())?;
                    user::add_to_tenant(&mut tx, &mut user, tenant).await?;
                }
                tx.commit((user, Vec::new()))
            })
        })
        .await
    }

    /// Deletes a user, with everything that is only theirs; every session ends.
    ///
    /// # Errors
    /// `NotFound` without the user.
    pub async fn delete(&self, user: &UserId) -> Result<(), Error> {
        self.edit(user.clone(), |mut tx, user| {
            Box::pin(async move {
                let gone = user::delete(&mut tx, user.clone()).await?;
                tx.commit((user, vec![gone]))
            })
        })
        .await?;
        Ok(())
    }

    /// The app's own rule about a user changed: the next request of each of their sessions asks the policy.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn judge_anew(&self, user: &UserId) -> Result<(), Error> {
        self.edit(user.clone(), |mut tx, user| {
            Box::pin(async move {
                let subject = Subject::User(user.id.clone());
                let change = change::stage(&mut tx, subject, ChangeKind::JudgeAnew).await?;
                tx.commit((user, vec![change]))
            })
        })
        .await?;
        Ok(())
    }

    async fn edit(
        &self,
        id: UserId,
        edit: impl Fn(Txn, User) -> Edited + Send + Sync + 'static,
    ) -> Result<User, Error> {
        self.mfa
            .change(|desk| async move {
                let (id, edit) = (&id, &edit);
                desk.kit
                    .db
                    .transact(id, |mut tx| async move {
                        let no_user = Error::new(ErrorKind::NotFound, "there is no such user");
                        let user = user::load(&mut tx, id).await?.ok_or(no_user)?;
                        edit(tx, user).await
                    })
                    .await
            })
            .await
    }
}

type Txn = crate::model::Tx;
type Edit = Result<crate::model::Staged<(User, Vec<change::Change>)>, Error>;
type Edited = std::pin::Pin<Box<dyn Future<Output = Edit> + Send>>;

/// Sessions: see [`Mfa::sessions`].
#[derive(Debug)]
pub struct Sessions<'a> {
    mfa: &'a Mfa,
}

/// A session, as its user may see it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Names the session.
    pub handle: SessionHandle,
    /// The tenant.
    pub tenant: TenantId,
    /// When it was made.
    pub created_at: crate::base::time::Timestamp,
    /// When it was last refreshed.
    pub used_at: crate::base::time::Timestamp,
    /// Whether it still lacks a factor and never had all.
    pub half: bool,
}

impl Sessions<'_> {
    /// A user's sessions, oldest first.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn list(&self, user: &UserId) -> Result<Vec<SessionInfo>, Error> {
        let db = self.mfa.db();
        let list: SessionsOf = db.get(&keys::sessions_of(user)).await?.unwrap_or_default();
        let mut infos = Vec::with_capacity(list.sessions.len());
        for entry in list.sessions {
            if let Some(row) = db.get::<SessionRecord>(&keys::session(&entry.handle)).await? {
                infos.push(SessionInfo {
                    tenant: row.tenant.clone(),
                    created_at: row.created_at,
                    used_at: row.used_at,
                    half: row.is_half(),
                    handle: entry.handle,
                });
            }
        }
        Ok(infos)
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
        self.mfa.desk.kit.run(async move { kit.revoke_user(&user, None).await }).await
    }

    /// Ends all sessions of a session's user but this one.
    ///
    /// # Errors
    /// If the store failed: sessions may go on.
    pub async fn revoke_others(&self, session: &Session) -> Result<(), Error> {
        let (kit, claims) = (Arc::clone(&self.mfa.desk.kit), session.claims());
        self.mfa.desk.kit.run(async move { kit.revoke_user(&claims.user, Some(&claims.handle)).await }).await
    }

    /// Ends every session there is.
    ///
    /// # Errors
    /// If the store failed: sessions may go on.
    pub async fn revoke_all(&self) -> Result<(), Error> {
        self.mfa
            .change(|desk| async move {
                let stage = |mut tx: Txn| async move {
                    let change = change::stage(&mut tx, Subject::App, ChangeKind::Revoked).await?;
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
        if update.members().any(|(name, _)| name.starts_with("st-")) {
            return Err(Error::invalid("members that begin with st- belong to claims"));
        }
        let (kit, handle) = (Arc::clone(&self.mfa.desk.kit), handle.clone());
        self.mfa.desk.kit.run(async move { kit.patch_row(&handle, &update).await }).await
    }
}

/// Tenants: see [`Mfa::tenants`].
#[derive(Debug)]
pub struct Tenants<'a> {
    mfa: &'a Mfa,
}

impl Tenants<'_> {
    /// A tenant's settings.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn load(&self, tenant: &TenantId) -> Result<Option<Tenant>, Error> {
        self.mfa.db().get(&keys::tenant(tenant)).await
    }

    /// All tenants, at most 1000.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn list(&self) -> Result<Vec<Tenant>, Error> {
        let found: Vec<(_, Tenant)> = self.mfa.db().scan(&Scan::under(keys::tenants())).await?;
        Ok(found.into_iter().map(|(_, tenant)| tenant).collect())
    }

    /// Makes a tenant. `None`: whoever may start a session in the app may start one there; an empty list:
    /// nobody may, until that changes. One that is there stays as it is.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn create(&self, tenant: &TenantId, first: Option<Vec<FactorId>>) -> Result<(), Error> {
        let id = tenant.clone();
        self.mfa
            .change(|desk| async move {
                let (id, first) = (&id, &first);
                let stage = |mut tx: Txn| async move {
                    if tx.get::<Tenant>(&keys::tenant(id)).await?.is_none() {
                        tenant::insert(&mut tx, id, first.clone()).await?;
                    }
                    tx.commit(())
                };
                desk.kit.db.transact(id, stage).await?;
                Ok(((), Vec::new()))
            })
            .await
    }

    /// Says which factors may start a session there; `None` for what the app says.
    ///
    /// # Errors
    /// `NotFound` without the tenant.
    pub async fn first_factors(&self, tenant: &TenantId, first: Option<Vec<FactorId>>) -> Result<(), Error> {
        self.edit(tenant, move |tenant| tenant.first_factors.clone_from(&first)).await
    }

    /// Says which factors the tenant asks for. Live sessions are judged anew.
    ///
    /// # Errors
    /// `NotFound` without the tenant.
    pub async fn require(
        &self,
        tenant: &TenantId,
        factors: impl IntoIterator<Item = FactorId>,
    ) -> Result<(), Error> {
        let factors: Vec<FactorId> = factors.into_iter().collect();
        self.edit(tenant, move |tenant| tenant.required.clone_from(&factors)).await
    }

    async fn edit(
        &self,
        id: &TenantId,
        edit: impl Fn(&mut Tenant) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let id = id.clone();
        self.mfa
            .change(|desk| async move {
                let (id, edit) = (&id, &edit);
                let stage = |mut tx: Txn| async move {
                    let change = tenant::edit(&mut tx, id, edit).await?;
                    tx.commit(change)
                };
                let change = desk.kit.db.transact(id, stage).await?;
                Ok(((), change.into_iter().collect()))
            })
            .await
    }
}

/// Roles of users in tenants: see [`Mfa::roles`].
#[derive(Debug)]
pub struct RolesOf<'a> {
    mfa: &'a Mfa,
}

impl RolesOf<'_> {
    /// A user's roles in a tenant.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn of(&self, user: &UserId, tenant: &TenantId) -> Result<Vec<Role>, Error> {
        Ok(self.mfa.db().get::<Roles>(&keys::role(tenant, user)).await?.unwrap_or_default().roles)
    }

    /// Gives a user a role in a tenant. Their live sessions are judged anew.
    ///
    /// # Errors
    /// `Invalid` if the text is no role.
    pub async fn grant(&self, user: &UserId, tenant: &TenantId, role: &str) -> Result<(), Error> {
        let role = parse_role(role)?;
        self.edit(user, tenant, move |roles| {
            if !roles.contains(&role) {
                roles.push(role.clone());
            }
        })
        .await
    }

    /// Takes a role away. Live sessions are judged anew.
    ///
    /// # Errors
    /// `Invalid` if the text is no role.
    pub async fn revoke(&self, user: &UserId, tenant: &TenantId, role: &str) -> Result<(), Error> {
        let role = parse_role(role)?;
        self.edit(user, tenant, move |roles| roles.retain(|held| *held != role)).await
    }

    /// Gives a user exactly these roles in a tenant. Live sessions are judged anew.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn set(
        &self,
        user: &UserId,
        tenant: &TenantId,
        roles: impl IntoIterator<Item = Role>,
    ) -> Result<(), Error> {
        let wanted: Vec<Role> = roles.into_iter().collect();
        self.edit(user, tenant, move |roles| roles.clone_from(&wanted)).await
    }

    async fn edit(
        &self,
        user: &UserId,
        tenant: &TenantId,
        edit: impl Fn(&mut Vec<Role>) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let (user, tenant) = (user.clone(), tenant.clone());
        self.mfa
            .change(|desk| async move {
                let (user, tenant, edit) = (&user, &tenant, &edit);
                let stage = |mut tx: Txn| async move {
                    let change = role::set(&mut tx, tenant, user, edit).await?;
                    tx.commit(change)
                };
                let change = desk.kit.db.transact(user, stage).await?;
                Ok(((), change.into_iter().collect()))
            })
            .await
    }
}

/// What users opted into: see [`Mfa::factors`].
#[derive(Debug)]
pub struct FactorsOf<'a> {
    mfa: &'a Mfa,
}

impl FactorsOf<'_> {
    /// The factors a user opted into, in the order in which they were added.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn required_for(&self, user: &UserId) -> Result<Vec<FactorId>, Error> {
        let list: RequiredFactors = self.mfa.db().get(&keys::required(user)).await?.unwrap_or_default();
        Ok(list.into_vec())
    }

    /// Asks a factor of a user from now on. Answers the list as it is then; writes nothing if it was there.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn opt_in(&self, user: &UserId, factor: FactorId) -> Result<Vec<FactorId>, Error> {
        self.edit(user, move |list| list.add(&factor)).await
    }

    /// Asks a factor of a user no more. Answers the list as it is then; writes nothing if it wasn't there.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn opt_out(&self, user: &UserId, factor: FactorId) -> Result<Vec<FactorId>, Error> {
        self.edit(user, move |list| list.remove(&factor)).await
    }

    async fn edit(
        &self,
        user: &UserId,
        edit: impl Fn(&mut RequiredFactors) -> bool + Send + Sync + 'static,
    ) -> Result<Vec<FactorId>, Error> {
        let user = user.clone();
        self.mfa
            .change(|desk| async move {
                let (user, edit) = (&user, &edit);
                let stage = |mut tx: Txn| async move {
                    let edited = metadata::edit(&mut tx, user, edit).await?;
                    tx.commit(edited)
                };
                let (list, change) = desk.kit.db.transact(user, stage).await?;
                Ok((list.into_vec(), change.into_iter().collect()))
            })
            .await
    }
}

fn parse_role(text: &str) -> Result<Role, Error> {
    Role::parse(text).map_err(|_| Error::invalid("not a role"))
}

fn no_tenant() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such tenant")
}
