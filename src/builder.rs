//! Optional parts as methods; `build()` reports every contradiction at once, before the first request.

use std::{fmt, net::IpAddr, sync::Arc};

use crate::{
    base::{
        error::ConfigError,
        ident::FactorId,
        time::{Clock, SystemClock},
    },
    claim::{ClaimRef, ClaimValidator, MfaSatisfied, SessionClaim, validator},
    config::{
        AntiCsrf, AppInfo, Config, FactorChanges, Lifetimes, Passwordless, SameSite, Secrets, SigningAlg,
        TransferMethods, TrustedProxies,
    },
    delivery::{AnyDelivery, Delivery, dispatch::Dispatch},
    engine::Mfa,
    factor::{
        Factors,
        otp::{Otp, Peppers},
    },
    flow::{Desk, shadow::Shadow},
    hooks::{AnyHooks, AnySink, AuditSink, Hooks, NoHooks},
    model::{Db, audit::Trail, seal::Sealer},
    policy::{
        AnyAppUsers, AnyLinkPolicy, AnyPolicy, AppUsers, LinkPolicy, MfaPolicy, SecondFactorsOnly,
        UserOrTenant,
    },
    session::{Kit, cookies, peer::Peer, refresh::RefreshKeys, seen::Seen},
    store::{AnyStore, Store},
};

mod accounts;
mod check;
mod limits;
#[cfg(feature = "third-party")]
mod third_party;

/// Collects the parts of an [`Mfa`]. Required things are arguments, optional things are methods.
#[must_use]
pub struct MfaBuilder {
    config: Config,
    secrets: Secrets,
    store: AnyStore,
    clock: Arc<dyn Clock>,
    own_clock: bool,
    policy: AnyPolicy,
    shadow: Option<AnyPolicy>,
    linking: AnyLinkPolicy,
    own_users: Option<AnyAppUsers>,
    delivery: Option<AnyDelivery>,
    claims: Vec<ClaimRef>,
    validators: Vec<Arc<dyn ClaimValidator>>,
    peer: Peer,
    hooks: AnyHooks,
    sink: AnySink,
    seen: Seen,
    #[cfg(feature = "password")]
    passwords: crate::factor::form::PasswordSettings,
    #[cfg(feature = "third-party")]
    third_party: Option<crate::factor::ThirdParty>,
}

impl Mfa {
    /// Starts from what must be there: who the app is, its root keys, its store.
    pub fn builder(app: AppInfo, secrets: Secrets, store: impl Store) -> MfaBuilder {
        MfaBuilder {
            config: Config::of(app),
            secrets,
            store: AnyStore::new(store),
            clock: Arc::new(SystemClock::new()),
            own_clock: false,
            policy: AnyPolicy::new(UserOrTenant::new()),
            shadow: None,
            linking: AnyLinkPolicy::new(SecondFactorsOnly::new()),
            own_users: None,
            delivery: None,
            claims: Vec::new(),
            validators: Vec::new(),
            peer: Peer::default(),
            hooks: AnyHooks::new(NoHooks),
            sink: AnySink::default(),
            seen: Seen::default(),
            #[cfg(feature = "password")]
            passwords: Default::default(),
            #[cfg(feature = "third-party")]
            third_party: None,
        }
    }
}

impl MfaBuilder {
    /// Which factors may start a session, in the order in which they are advertised. Default: every one
    /// that is installed. A tenant's own list takes its place.
    ///
    /// One of the app's own may be among them: the client is told of it, and signing in with it is the app's part.
    /// No route of the crate does, so that a list of such factors alone is warned about at the start.
    pub fn first_factors(mut self, factors: impl IntoIterator<Item = FactorId>) -> Self {
        self.config.first_factors = Some(factors.into_iter().collect());
        self
    }

    /// Who must complete what. Default: [`UserOrTenant`], any *one* of what user and tenant ask for.
    pub fn policy(mut self, policy: impl MfaPolicy) -> Self {
        self.policy = AnyPolicy::new(policy);
        self
    }

    /// A policy on trial: it is asked after the live one, about the same session, and changes nothing. Whom
    /// it would stop is logged, and counted in [`Counters`](crate::account::Counters). It costs the facts
    /// that it reads and the live policy didn't; it may take half a second, and its failure is only counted.
    pub fn shadow(mut self, policy: impl MfaPolicy) -> Self {
        self.shadow = Some(AnyPolicy::new(policy));
        self
    }

    /// What the app does when something happened, and whether a completed factor is asked for from then on: see
    /// [`hooks`](crate::hooks).
    pub fn hooks(mut self, hooks: impl Hooks) -> Self {
        self.hooks = AnyHooks::new(hooks);
        self
    }

    /// Who hears of every security decision. Default: `tracing`, under the target `tower_mfa::audit`.
    pub fn audit(mut self, sink: impl AuditSink) -> Self {
        self.sink = AnySink::new(sink);
        self
    }

    /// Which login methods join a user, or one another. Default: [`SecondFactorsOnly`].
    pub fn linking(mut self, policy: impl LinkPolicy) -> Self {
        self.linking = AnyLinkPolicy::new(policy);
        self
    }

    /// The app has users of its own, in a table of its own, and checks their first factor itself: they sign in by
    /// [`Mfa::sign_in`] alone, and no route of the crate starts a session or makes a user, nor does `/loginmethods` name a
    /// factor of the crate's, whatever [`MfaBuilder::first_factors`] lists for the app to vouch for. `users` says what the
    /// app knows of them: where their codes go, and what policies read.
    ///
    /// A password is the app's own factor then: it is completed again, for a step-up, by [`Mfa::complete`] after the
    /// app's own check.
    pub fn own_users(mut self, users: impl AppUsers) -> Self {
        self.own_users = Some(AnyAppUsers::new(users));
        self
    }

    /// How messages reach people. Required while codes by e-mail are on.
    pub fn delivery(mut self, delivery: impl Delivery) -> Self {
        self.delivery = Some(AnyDelivery::new(delivery));
        self
    }

    /// Where one-time codes and magic links go, and in which form. Default: codes by e-mail.
    pub fn passwordless(mut self, passwordless: Passwordless) -> Self {
        self.config.passwordless = passwordless;
        self
    }

    /// Turns one-time codes and magic links off.
    pub fn without_passwordless(mut self) -> Self {
        self.config.passwordless = Passwordless::off();
        self
    }

    /// Lets policies name a factor of the app's own, and [`Mfa::complete`] complete it.
    ///
    /// Before it is taken away again, those who opted into it have to be opted out, and tenants asked no more: what
    /// is stored stays a demand, and one that nobody can meet stops its users (row P11).
    pub fn custom_factor(mut self, factor: FactorId) -> Self {
        self.config.custom_factors.push(factor);
        self
    }

    /// A claim that every new session gets.
    pub fn claim<C: SessionClaim>(mut self, claim: C) -> Self {
        self.claims.push(ClaimRef::new(claim));
        self
    }

    /// A validator that every mount enforces, beside the one for MFA.
    pub fn validator(mut self, validator: impl ClaimValidator) -> Self {
        self.validators.push(Arc::new(validator));
        self
    }

    /// How long things last.
    pub fn lifetimes(mut self, lifetimes: Lifetimes) -> Self {
        self.config.lifetimes = lifetimes;
        self
    }

    /// The anti-CSRF mode. Default: any `rid` header on requests that a cookie authenticates.
    pub fn anti_csrf(mut self, mode: AntiCsrf) -> Self {
        self.config.csrf = mode;
        self
    }

    /// How access tokens are signed. Default: RS256, which the SDKs' server-side parts want. What a change
    /// does to live sessions: see [`SigningAlg`].
    pub fn signing(mut self, alg: SigningAlg) -> Self {
        self.config.signing = alg;
        self
    }

    /// Which ways of transfer the server takes part in. Default: both, the client chooses.
    pub fn transfer(mut self, methods: TransferMethods) -> Self {
        self.config.cookies.methods = methods;
        self
    }

    /// The cookies' `Domain`. Default: none, host-only cookies.
    pub fn cookie_domain(mut self, domain: &str) -> Self {
        self.config.cookies.domain = Some(cookies::normal_domain(domain));
        self
    }

    /// The `Domain` of cookies set in former times; empty for host-only ones.
    pub fn older_cookie_domain(mut self, domain: &str) -> Self {
        self.config.cookies.older_domain = Some(cookies::normal_domain(domain));
        self
    }

    /// The cookies' `SameSite`. Default: `Lax`, or `None` if API and website are two sites.
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.config.cookies.same_site = same_site;
        self
    }

    /// Names the cookies `__Host-…`, which no sibling domain can plant (row C02). Recommended.
    pub fn host_prefix(mut self) -> Self {
        self.config.cookies.host_prefix = true;
        self
    }

    /// In cookie mode, sends the access token in a header as well.
    pub fn expose_access_token(mut self) -> Self {
        self.config.cookies.expose_access_token = true;
        self
    }

    /// Whether the `…/exists` routes tell who is registered. Default: no; they answer `false`. Whoever may ask
    /// learns whose customers you have; to make that slow, it needs [`MfaBuilder::peer`].
    pub fn reveal_accounts(mut self, reveal: bool) -> Self {
        self.config.reveal_accounts = reveal;
        self
    }

    /// Shows addresses only in part, whoever asks and whatever they completed: `a***@s***.example`. What is
    /// sent back by the session's own user stands for the address (row P18).
    pub fn mask_contacts(mut self) -> Self {
        self.config.mask_contacts = true;
        self
    }

    /// What guards changes of factors. Default: a factor proven within the last five minutes.
    pub fn factor_changes(mut self, rule: FactorChanges) -> Self {
        self.config.factor_changes = rule;
        self
    }

    /// A refresh token that is used by two ends every session of its user, not that one alone (row R08).
    pub fn revoke_all_on_theft(mut self) -> Self {
        self.config.revoke_all_on_theft = true;
        self
    }

    /// Who sends a request: the address that its connection came from, from what the server put into the
    /// extensions. Never from a header, which anybody can send; behind proxies see
    /// [`MfaBuilder::trusted_proxies`] (row O36). Limits count an IPv6 address by its /64.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// # #[derive(Clone)] struct ConnectInfo<T>(T);
    /// # fn build(builder: tower_mfa::MfaBuilder) -> tower_mfa::MfaBuilder {
    /// // With axum: what `into_make_service_with_connect_info::<SocketAddr>()` puts there.
    /// builder.peer(|extensions, _| Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip()))
    /// # }
    /// ```
    pub fn peer(
        mut self,
        peer: impl Fn(&http::Extensions, &http::HeaderMap) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.peer = self.peer.told(peer);
        self
    }

    /// The proxies in front of the app: for a connection from one of them, who sends a request is read from
    /// `X-Forwarded-For`. Needs [`MfaBuilder::peer`], which says where the connection came from.
    pub fn trusted_proxies(mut self, proxies: TrustedProxies) -> Self {
        self.peer = self.peer.behind(proxies);
        self
    }

    /// How much memory the cache of verified tokens may take, in bytes. Default: 32 MiB, some ten thousand
    /// sessions.
    ///
    /// Only the signature of a token in the cache isn't checked again: whether it has expired or was revoked,
    /// and what a mount asks of it, is judged at every request.
    pub fn token_cache(mut self, bytes: u64) -> Self {
        self.seen = Seen::new(bytes);
        self
    }

    /// Checks the signature of each token at each request.
    pub fn without_token_cache(self) -> Self {
        self.token_cache(0)
    }

    /// A clock of the app's own, which answers for itself: neither guarded nor set by the store's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self.own_clock = true;
        self
    }

    /// Checks everything, wires the parts, and starts the background work.
    ///
    /// # Errors
    /// Everything that contradicts itself, in one error.
    pub fn build(mut self) -> Result<Mfa, ConfigError> {
        self.config.delivers = self.delivery.is_some();
        self.add_verification();
        let installed = self.installed();
        let own = self.own_users.is_some().then_some(FactorId::PASSWORD);
        let custom = self.config.custom_factors.iter().cloned().chain(own);
        let mut factors = Factors::new(installed.clone()).with_custom(custom);
        if self.config.mask_contacts {
            factors = factors.masking_contacts();
        }
        let mut problems = self.problems(&installed);
        problems.extend(self.unreachable(&factors));
        let (mut validators, unmeetable) = validator::among(&self.validators, &factors.usable());
        problems.extend(unmeetable.iter().map(|problem| format!("nobody can meet a validator: {problem}")));
        ConfigError::all(problems)?;
        #[cfg(feature = "phone")]
        if self.config.passwordless.phones() {
            crate::base::phone::load();
        }
        let wrong = |e: crate::Error| ConfigError::one(e.to_string());
        let config = Arc::new(self.config);
        let seal = self.secrets.derive("seal");
        let sealer = Sealer::new(seal.iter().map(|(id, key)| (id.as_str(), &**key))).map_err(wrong)?;
        let sealer = Arc::new(sealer);
        let mut peppers = self.secrets.derive("one-time code pepper").into_iter();
        let (id, key) = peppers.next().ok_or_else(|| ConfigError::one("there is no root key"))?;
        let peppers = peppers.fold(Peppers::new(id, key), |all, (id, key)| all.with_old(id, key));
        let refresh =
            self.secrets.derive("refresh").iter().map(|(_, key)| RefreshKeys::derive(key)).collect();
        let (trail, inbox) = Trail::new();
        let db = Db::new(self.store, Arc::clone(&self.clock), config.lifetimes.access_token, trail);
        // Without delivery there are no codes either: nothing is ever staged.
        let delivery = self.delivery.unwrap_or_else(|| AnyDelivery::new(crate::delivery::Outbox::new()));
        let (clock, seals) = (self.own_clock, Arc::clone(&sealer));
        let website = config.app.websites.first().map_or("", |website| website.host());
        let names = (config.app.name.clone(), website.to_owned());
        let kit =
            Kit::new(db.clone(), Arc::clone(&config), seals, refresh, self.seen, clock, factors.usable());
        validators.push(Arc::new(MfaSatisfied::new()));
        let desk = Desk {
            kit: Arc::new(kit),
            policy: self.policy,
            shadow: self.shadow.map(Shadow::new),
            told_impossible: std::sync::atomic::AtomicBool::new(false),
            linking: self.linking,
            own_users: self.own_users,
            claims: self.claims,
            validators: validators.into(),
            factors: Arc::new(factors),
            otp: Otp::new(check::otp_settings(&config), peppers),
            courier: Arc::new(Dispatch::new(db, sealer, delivery, names).map_err(wrong)?),
            peer: self.peer,
            hooks: self.hooks,
            #[cfg(feature = "password")]
            passwords: crate::factor::password::PasswordHasher::new(Default::default()).map_err(wrong)?,
            #[cfg(feature = "password")]
            password_settings: self.passwords,
            #[cfg(feature = "third-party")]
            third_party: self.third_party.map(crate::factor::third_party::Talk::new),
        };
        Ok(Mfa::start(Arc::new(desk), inbox, self.sink))
    }
}

impl fmt::Debug for MfaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MfaBuilder").field("app", &self.config.app).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    //! Row R18: of nodes whose clocks disagree, the store's clock decides.

    use std::{
        future::Ready,
        sync::atomic::{AtomicI64, Ordering},
        time::Duration,
    };

    use http::{Request, Response, StatusCode};
    use http_body_util::{BodyExt as _, Empty, Full};
    use tower::{Layer as _, Service, ServiceExt as _};

    use super::*;
    use crate::{
        api::ApiLayer,
        base::{
            contact::Email,
            ident::{SessionHandle, TenantId, UserId},
            payload::Payload,
            time::Timestamp,
        },
        claim::MfaClaim,
        model::{
            epoch::Standing,
            keys,
            session::{self, Lineage, SessionRecord},
        },
        session::refresh::RefreshToken,
        store::{Batch, Commit, Key, MemoryStore, Record, Row, Scan, StoreError},
    };

    /// A node's clock: the true time, wrong by so much, and as it was set.
    #[derive(Clone, Debug)]
    struct Node {
        truth: Arc<AtomicI64>,
        wrong_by: i64,
        set_by: Arc<AtomicI64>,
        /// How far the guard holds it up, in seconds.
        held: u64,
    }

    impl Node {
        fn wrong_by(seconds: i64, truth: &Arc<AtomicI64>) -> Self {
            Self { truth: Arc::clone(truth), wrong_by: seconds * 1000, set_by: Arc::default(), held: 0 }
        }
    }

    impl Clock for Node {
        fn now(&self) -> Timestamp {
            let set_by = self.set_by.load(Ordering::SeqCst);
            Timestamp::from_millis(self.truth.load(Ordering::SeqCst) + self.wrong_by + set_by)
        }

        fn follow(&self, offset: i64) {
            self.set_by.fetch_add(offset, Ordering::SeqCst);
        }

        fn held(&self) -> Duration {
            Duration::from_secs(self.held)
        }
    }

    /// Reading the feed takes a while, as on a first start under load: requests come before the first round of
    /// the upkeep is over.
    #[derive(Clone, Debug)]
    struct Slow(MemoryStore);

    impl Store for Slow {
        async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
            self.0.get(keys).await
        }

        async fn scan(&self, scan: &Scan) -> Result<Vec<Record>, StoreError> {
            tokio::time::sleep(Duration::from_millis(300)).await;
            self.0.scan(scan).await
        }

        async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
            self.0.commit(batch).await
        }

        async fn sweep(&self, before: Timestamp) -> Result<u64, StoreError> {
            self.0.sweep(before).await
        }

        async fn now(&self) -> Result<Timestamp, StoreError> {
            self.0.now().await
        }
    }

    /// Nodes on one store.
    struct Nodes {
        truth: Arc<AtomicI64>,
        secrets: Secrets,
        store: Slow,
    }

    impl Nodes {
        fn new() -> Self {
            let truth = Arc::new(AtomicI64::new(1_700_000_000_000));
            let store = Slow(MemoryStore::with_clock(Arc::new(Node::wrong_by(0, &truth))));
            Self { truth, secrets: Secrets::random().unwrap(), store }
        }

        /// A node that has just started.
        fn node(&self, wrong_by: i64) -> Mfa {
            self.by(Node::wrong_by(wrong_by, &self.truth))
        }

        fn by(&self, clock: Node) -> Mfa {
            let app = AppInfo::new("Shop", "https://api.shop.test", "https://shop.test").unwrap();
            let mut builder =
                Mfa::builder(app, self.secrets.clone(), self.store.clone()).without_passwordless();
            // As the system's clock is: set by the store's.
            builder.clock = Arc::new(clock);
            builder.build().unwrap()
        }

        fn wait(&self, millis: i64) {
            self.truth.fetch_add(millis, Ordering::SeqCst);
        }
    }

    /// A session's first refresh token.
    async fn begin(mfa: &Mfa) -> String {
        let email = Email::parse("alice@shop.example").unwrap();
        let user = match mfa.users().by_email(&TenantId::PUBLIC, &email).await.unwrap().into_iter().next() {
            Some(user) => user,
            None => mfa.users().create(&TenantId::PUBLIC, &email).await.unwrap(),
        };
        let (kit, login) = (&mfa.desk.kit, user.logins[0].id.clone());
        let handle = SessionHandle::random(&TenantId::PUBLIC).unwrap();
        let token = RefreshToken::random(handle.clone(), user.id.clone(), &kit.refresh[0]).unwrap();
        let (handle, user, current): (_, &UserId, _) = (&handle, &user.id, &token.hash2());
        let (lives, login) = (&kit.config.lifetimes, &login);
        let inserted = kit.db.transact(user, |mut tx| async move {
            let (now, tenant) = (tx.now(), TenantId::PUBLIC);
            let (mut payload, mut claim) = (Payload::new(), MfaClaim { v: true, ..MfaClaim::default() });
            claim.mark(FactorId::PASSWORD, now);
            claim.write(&mut payload, &crate::policy::Requirements::none(), Timestamp::EPOCH);
            let row = SessionRecord {
                user: user.clone(),
                login: login.clone(),
                tenant: tenant.clone(),
                created_at: now,
                used_at: now,
                revision: 1,
                epochs: Standing::read(&mut tx, &tenant, user).await?.numbers(0).unwrap(),
                payload,
                lineage: Lineage {
                    current: current.clone(),
                    previous: None,
                    superseded: Vec::new(),
                    salt: "salt".to_owned(),
                    half_until: None,
                    expires_at: now + lives.refresh_token,
                    absolute_until: now + lives.session,
                },
                agent: None,
                ask_at: None,
            };
            let whose = crate::model::user::active(&mut tx, user).await?.unwrap();
            session::insert(&mut tx, &whose, handle, &row, 100).await?;
            tx.commit(())
        });
        inserted.await.unwrap();
        token.text().to_owned()
    }

    /// The inner service is not meant.
    async fn refresh(mfa: &Mfa, token: &str) -> (StatusCode, String, Option<String>) {
        let nobody = tower::service_fn(
            |_: Request<Empty<bytes::Bytes>>| -> Ready<Result<_, std::convert::Infallible>> {
                std::future::ready(Ok(Response::new(Full::<bytes::Bytes>::default())))
            },
        );
        let mut service = ApiLayer::new(mfa.clone()).layer(nobody);
        let request = Request::post("/auth/session/refresh")
            .header("authorization", format!("Bearer {token}"))
            .body(Empty::new())
            .unwrap();
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        let next = response.headers().get("st-refresh-token").map(|next| next.to_str().unwrap().to_owned());
        let (status, body) = (response.status(), response.into_body().collect().await.unwrap().to_bytes());
        (status, String::from_utf8(body.to_vec()).unwrap(), next)
    }

    #[tokio::test]
    async fn sec_r18_the_window_is_judged_by_the_stores_clock() {
        let nodes = Nodes::new();
        let right = nodes.node(0);
        // Seconds apart, two nodes give one answer within the window and one verdict after it.
        for (one, other) in [(-3, 3), (3, -3)] {
            let first = begin(&right).await;
            let (status, _, second) = refresh(&nodes.node(one), &first).await;
            assert_eq!(status, 200);
            nodes.wait(30_000);
            assert_eq!(refresh(&nodes.node(other), &first).await.2, second);
            nodes.wait(1_000);
            let (_, caught, _) = refresh(&nodes.node(other), &first).await;
            assert!(caught.contains("token theft detected"), "{caught}");
        }
        // Ten minutes away a node gives nothing out, but it is neither wrong about the window.
        for wrong_by in [-600, 600] {
            let first = begin(&right).await;
            let (_, _, second) = refresh(&right, &first).await;
            let second = second.unwrap();
            for token in [&first, &second] {
                nodes.wait(10_000);
                let (status, body, next) = refresh(&nodes.node(wrong_by), token).await;
                assert_eq!((status, next), (StatusCode::SERVICE_UNAVAILABLE, None), "{wrong_by} {body}");
            }
            assert_eq!(refresh(&right, &first).await.2.as_ref(), Some(&second));
            nodes.wait(11_000);
            let (_, caught, _) = refresh(&nodes.node(wrong_by), &first).await;
            assert!(caught.contains("token theft detected"), "{wrong_by} {caught}");
            let row =
                right.desk.kit.db.get::<SessionRecord>(&keys::session(&handle_of(&first))).await.unwrap();
            assert!(row.is_none());
        }
    }

    /// Row J28: the wall clock fell back, and the guard goes on alone. A minute is too much for that.
    #[tokio::test]
    async fn sec_j28_a_node_whose_clock_is_held_for_over_a_minute_is_not_ready() {
        let nodes = Nodes::new();
        for (held, ready) in [(0, true), (60, true), (61, false)] {
            let mfa = nodes.by(Node { held, ..Node::wrong_by(0, &nodes.truth) });
            mfa.desk.kit.ready().await.unwrap();
            mfa.desk.kit.poll_feed().await.unwrap();
            assert_eq!(mfa.is_ready(), ready, "{held}");
        }
    }

    fn handle_of(token: &str) -> SessionHandle {
        SessionHandle::parse(token.split('.').nth(1).unwrap()).unwrap()
    }
}
