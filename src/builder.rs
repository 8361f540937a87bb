//! Optional parts as methods; `build()` reports every contradiction at once, before the first request.

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc, time::Duration};

use crate::{
    base::{
        error::ConfigError,
        ident::FactorId,
        task::Tasks,
        time::{Clock, SystemClock},
    },
    claim::{ClaimRef, ClaimValidator, MfaSatisfied, SessionClaim},
    config::{AntiCsrf, AppInfo, Config, FactorChanges, Lifetimes, SameSite, Secrets, TransferMethods},
    delivery::{AnyDelivery, Delivery, worker::Courier},
    engine::Mfa,
    factor::{
        Factors,
        otp::{Otp, OtpSettings, Peppers},
    },
    flow::{Desk, shadow::Shadow},
    model::{Db, seal::Sealer},
    policy::{
        AnyLinkPolicy, AnyPolicy, FirstFactors, LinkPolicy, MfaPolicy, SecondFactorsOnly, UserOrTenant,
        check_reachable,
    },
    session::{Kit, cookies::CookieConfig, peer::Peer, refresh::RefreshKeys},
    store::{AnyStore, Store},
};

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
    delivery: Option<AnyDelivery>,
    claims: Vec<ClaimRef>,
    validators: Vec<Arc<dyn ClaimValidator>>,
    peer: Peer,
    #[cfg(feature = "password")]
    password_rules: crate::factor::PasswordRules,
}

impl Mfa {
    /// Starts from what must be there: who the app is, its root keys, its store.
    pub fn builder(app: AppInfo, secrets: Secrets, store: impl Store) -> MfaBuilder {
        let refresh_path = format!("{}/session/refresh", app.base_path);
        let cookies = CookieConfig::new(&app.api, &first(&app), refresh_path);
        MfaBuilder {
            config: Config {
                cookies,
                app,
                lifetimes: Lifetimes::default(),
                csrf: AntiCsrf::default(),
                first_factors: None,
                custom_factors: Vec::new(),
                factor_changes: FactorChanges::default(),
                max_wrong_codes: 5,
                limits: true,
                reveal_accounts: false,
                email_codes: true,
                max_sessions: 100,
            },
            secrets,
            store: AnyStore::new(store),
            clock: Arc::new(SystemClock::new()),
            own_clock: false,
            policy: AnyPolicy::new(UserOrTenant::new()),
            shadow: None,
            linking: AnyLinkPolicy::new(SecondFactorsOnly),
            delivery: None,
            claims: Vec::new(),
            validators: Vec::new(),
            peer: Peer::default(),
            #[cfg(feature = "password")]
            password_rules: crate::factor::PasswordRules::default(),
        }
    }
}

fn first(app: &AppInfo) -> crate::session::origin::Origin {
    app.websites.first().unwrap_or(&app.api).clone()
}

impl MfaBuilder {
    /// Which factors may start a session, in the order in which they are advertised. Default: every one
    /// that is installed. A tenant's own list takes its place.
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

    /// Which login methods join a user. Default: [`SecondFactorsOnly`].
    pub fn linking(mut self, policy: impl LinkPolicy) -> Self {
        self.linking = AnyLinkPolicy::new(policy);
        self
    }

    /// How messages reach people. Required while codes by e-mail are on.
    pub fn delivery(mut self, delivery: impl Delivery) -> Self {
        self.delivery = Some(AnyDelivery::new(delivery));
        self
    }

    /// Turns codes by e-mail off.
    pub fn without_email_codes(mut self) -> Self {
        self.config.email_codes = false;
        self
    }

    /// Lets policies name a factor of the app's own.
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

    /// Which ways of transfer the server takes part in. Default: both, the client chooses.
    pub fn transfer(mut self, methods: TransferMethods) -> Self {
        self.config.cookies.methods = methods;
        self
    }

    /// The cookies' `Domain`. Default: none, host-only cookies.
    pub fn cookie_domain(mut self, domain: &str) -> Self {
        self.config.cookies.domain = Some(crate::session::cookies::normal_domain(domain));
        self
    }

    /// The `Domain` of cookies set in former times; empty for host-only ones.
    pub fn older_cookie_domain(mut self, domain: &str) -> Self {
        self.config.cookies.older_domain = Some(crate::session::cookies::normal_domain(domain));
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

    /// Whether the `…/exists` routes tell who is registered. Default: no; they answer `false`.
    pub fn reveal_accounts(mut self, reveal: bool) -> Self {
        self.config.reveal_accounts = reveal;
        self
    }

    /// What guards changes of factors. Default: a factor proven within the last five minutes.
    pub fn factor_changes(mut self, rule: FactorChanges) -> Self {
        self.config.factor_changes = rule;
        self
    }

    /// How many wrong codes end a flow. Default 5.
    pub fn max_wrong_codes(mut self, most: u32) -> Self {
        self.config.max_wrong_codes = most;
        self
    }

    /// Lifts the quotas of sends and sign-ins, never the budgets of wrong codes: for load tests.
    pub fn insecure_without_quotas(mut self) -> Self {
        self.config.limits = false;
        self
    }

    /// How many sessions a user may have; the oldest ends for a new one. Default 100.
    pub fn max_sessions(mut self, most: usize) -> Self {
        self.config.max_sessions = most;
        self
    }

    /// What a password must be.
    #[cfg(feature = "password")]
    pub fn password_rules(mut self, rules: crate::factor::PasswordRules) -> Self {
        self.password_rules = rules;
        self
    }

    /// Who sends a request: from what the server put into its extensions (row O36: never from a header
    /// that anybody can send, unless a trusted proxy wrote it).
    pub fn peer(
        mut self,
        peer: impl Fn(&http::Extensions, &http::HeaderMap) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.peer = Peer::new(peer);
        self
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
    pub fn build(self) -> Result<Mfa, ConfigError> {
        let installed = self.installed();
        let factors = Factors::new(installed.clone(), self.config.custom_factors.clone());
        let mut problems = self.problems(&installed);
        problems.extend(self.unreachable(&factors));
        ConfigError::all(problems)?;
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
        let db = Db::new(self.store, Arc::clone(&self.clock), config.lifetimes.access_token);
        // Without delivery there are no codes either: nothing is ever staged.
        let delivery = self.delivery.unwrap_or_else(|| AnyDelivery::new(crate::delivery::Outbox::new()));
        let kit = Arc::new(Kit {
            tasks: Tasks::new(),
            keys: crate::session::keyring::Keys::default(),
            gate: crate::session::keyring::ReloadGate::default(),
            feed: crate::session::feed::Feed::default(),
            cursor: tokio::sync::Mutex::default(),
            refresh,
            sealer: Arc::clone(&sealer),
            ready: tokio::sync::OnceCell::new(),
            skewed: std::sync::atomic::AtomicBool::new(false),
            issuer: config.app.issuer(),
            config: Arc::clone(&config),
            db: db.clone(),
        });
        let mut validators = self.validators;
        validators.push(Arc::new(MfaSatisfied::new()));
        let desk = Desk {
            kit,
            policy: self.policy,
            shadow: self.shadow.map(Shadow::new),
            told_impossible: std::sync::atomic::AtomicBool::new(false),
            linking: self.linking,
            claims: self.claims,
            validators: validators.into(),
            factors: Arc::new(factors),
            otp: Otp::new(otp_settings(&config), peppers),
            courier: Arc::new(Courier::new(db, sealer, delivery).map_err(wrong)?),
            peer: self.peer,
            #[cfg(feature = "password")]
            passwords: crate::factor::password::PasswordHasher::new(Default::default()).map_err(wrong)?,
            #[cfg(feature = "password")]
            password_rules: self.password_rules,
        };
        Ok(Mfa::start(Arc::new(desk), self.clock, self.own_clock))
    }

    fn installed(&self) -> Vec<FactorId> {
        let mut installed = Vec::new();
        if cfg!(feature = "password") {
            installed.push(FactorId::PASSWORD);
        }
        if self.config.email_codes {
            installed.push(FactorId::OTP_EMAIL);
        }
        installed
    }

    /// What the policy demands, of what it says of itself, that nobody can complete (rows P10, P11).
    fn unreachable(&self, factors: &Factors) -> Vec<String> {
        let first = FirstFactors::new(&factors.first(), self.config.first_factors.as_deref(), None);
        let check = |policy: &AnyPolicy| check_reachable(policy, &factors.usable(), first.listed(), None);
        #[cfg(feature = "tracing")]
        {
            for warning in self.policy.declares(None).warnings() {
                tracing::warn!("{warning}");
            }
            if let Some(Err(problems)) = self.shadow.as_ref().map(check) {
                tracing::warn!(%problems, "the shadow policy demands what can't be met");
            }
        }
        check(&self.policy).err().map(|wrong| wrong.problems().to_vec()).unwrap_or_default()
    }

    fn problems(&self, installed: &[FactorId]) -> Vec<String> {
        let config = &self.config;
        let mut problems = config.cookies.check(config.csrf, &config.app.api, &config.app.websites);
        problems.extend(otp_settings(config).problems());
        let mut ask = |fits: bool, problem: &str| {
            if !fits {
                problems.push(problem.to_owned());
            }
        };
        ask(
            tokio::runtime::Handle::try_current().is_ok(),
            "build() needs a tokio runtime for the background work: call it inside one",
        );
        ask(
            !config.email_codes || self.delivery.is_some(),
            "codes by e-mail need a delivery: add .delivery(..) or .without_email_codes()",
        );
        let lives = &config.lifetimes;
        ask(lives.refresh_grace <= Duration::from_secs(300), "the refresh grace is 300 s at most");
        ask(
            lives.access_token >= Duration::from_secs(1) && lives.access_token <= lives.session,
            "an access token lives at least a second and at most as long as a session",
        );
        ask(config.max_sessions > 0, "a user may have at least one session");
        if let Some(listed) = &config.first_factors {
            ask(!listed.is_empty(), "the list of first factors is empty: leave it out, or name one");
            let once: BTreeSet<_> = listed.iter().collect();
            ask(once.len() == listed.len(), "a first factor is listed twice");
            let served = FirstFactors::new(installed, Some(listed), None);
            for factor in listed.iter().filter(|factor| !served.accepts(factor)) {
                ask(false, &format!("the first factor {factor} isn't installed"));
            }
            let custom =
                |factor: &&FactorId| !factor.is_built_in() && !config.custom_factors.contains(factor);
            for factor in listed.iter().filter(custom) {
                ask(
                    false,
                    &format!("nobody knows the first factor {factor}: add .custom_factor(..) if it is yours"),
                );
            }
        }
        problems
    }
}

fn otp_settings(config: &Config) -> OtpSettings {
    OtpSettings {
        lifetime: config.lifetimes.code,
        max_attempts: config.max_wrong_codes,
        ..OtpSettings::default()
    }
}

impl fmt::Debug for MfaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MfaBuilder").field("app", &self.config.app).finish_non_exhaustive()
    }
}
