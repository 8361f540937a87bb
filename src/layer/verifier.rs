//! Verifying sessions that another server makes: by its public keys, without a store.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::Uri;

use crate::{
    base::{
        error::ConfigError,
        http_client::{self, AnyHttpClient},
        ident::FactorId,
        time::{Clock, SystemClock},
    },
    config::{AntiCsrf, AppInfo, Config, HttpClient},
    session::{
        Kit,
        jwks::{Age, Jwks},
    },
};

/// Another server whose sessions are verified here: another process with `tower-mfa`, or a backend of SuperTokens with
/// its core. See [`MfaLayer::verify_only`](crate::MfaLayer::verify_only).
///
/// Its public keys are fetched from `{issuer}/jwt/jwks.json` at the first request that needs one, then every minute
/// that has requests, and when a token names a key that isn't known: one fetch at a time, one in 5 s at most. While the
/// issuer doesn't answer, the known keys serve for an hour ([`serve_known_keys_for`](Self::serve_known_keys_for)); a
/// process that has none answers 503. A key that the issuer revoked is refused here from the next fetch on.
///
/// A clone is the same verifier, with the same keys. The methods that change something make another one.
///
/// ```
/// # use std::time::Duration;
/// # use tower_mfa::layer::Verifier;
/// # #[cfg(feature = "http-client")]
/// # fn main() -> Result<(), tower_mfa::config::ConfigError> {
/// let verifier = Verifier::new("https://api.shop.example/auth")?
///     .serve_known_keys_for(Duration::from_secs(600));
/// assert_eq!(verifier.counters().fetches, 0); // none before a request needs a key
/// # Ok(()) }
/// # #[cfg(not(feature = "http-client"))] fn main() {}
/// ```
#[derive(Clone)]
#[must_use]
pub struct Verifier {
    settings: Settings,
    pub(super) kit: Arc<Kit>,
}

#[derive(Clone)]
struct Settings {
    app: AppInfo,
    url: Uri,
    /// Whether the keys may come by plain HTTP, from this very machine.
    plain: bool,
    client: AnyHttpClient,
    csrf: AntiCsrf,
    host_prefix: bool,
    factors: Vec<FactorId>,
    clock: Arc<dyn Clock>,
    own_clock: bool,
    bound: Duration,
}

/// How long known keys serve while the issuer doesn't answer.
const BOUND: Duration = Duration::from_secs(3600);

impl Verifier {
    /// Sessions of this issuer: the origin of its API and its base path, as in `https://api.shop.example/auth`. It must
    /// be written as its tokens have it (`iss`): all of another writing are refused as ones to refresh.
    ///
    /// # Errors
    /// If it isn't such an address, by https, or no HTTP client can be made.
    #[cfg(feature = "http-client")]
    pub fn new(issuer: &str) -> Result<Self, ConfigError> {
        Self::with_client(issuer, crate::config::Reqwest::new()?)
    }

    /// The same for an issuer on this very machine that has no TLS, for development and tests:
    /// `http://127.0.0.1:3001/auth`.
    ///
    /// # Errors
    /// If it isn't an address by plain HTTP on a loopback address, or no HTTP client can be made.
    #[cfg(feature = "http-client")]
    pub fn plain_http_on_loopback(issuer: &str) -> Result<Self, ConfigError> {
        Self::of(issuer, AnyHttpClient::new(crate::config::Reqwest::new()?), true)
    }

    /// As `Verifier::new`, with an HTTP client of the app's own.
    ///
    /// # Errors
    /// If the issuer isn't an address by https.
    pub fn with_client(issuer: &str, client: impl HttpClient) -> Result<Self, ConfigError> {
        Self::of(issuer, AnyHttpClient::new(client), false)
    }

    fn of(issuer: &str, client: AnyHttpClient, plain: bool) -> Result<Self, ConfigError> {
        let url = key_set(&format!("{issuer}/jwt/jwks.json"), plain)?;
        let (scheme, host) =
            (url.scheme_str().unwrap_or_default(), url.authority().map_or("", |at| at.as_str()));
        let origin = format!("{scheme}://{host}");
        let app = AppInfo::new("issuer", &origin, &origin)?;
        let app = match issuer.strip_prefix(&origin) {
            Some("") => AppInfo { base_path: String::new(), ..app },
            Some(path) => app.base_path(path)?,
            None => return Err(ConfigError::one("the issuer must be written as it stands in tokens")),
        };
        if app.issuer() != issuer {
            return Err(ConfigError::one("the issuer must be written as it stands in tokens"));
        }
        let settings = Settings {
            app: AppInfo { websites: Vec::new(), ..app },
            url,
            plain,
            client,
            csrf: AntiCsrf::default(),
            host_prefix: false,
            factors: FactorId::BUILT_IN.to_vec(),
            clock: Arc::new(SystemClock::new()),
            own_clock: false,
            bound: BOUND,
        };
        Ok(Self { kit: settings.kit(), settings })
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.settings;
        change(&mut settings);
        Self { kit: settings.kit(), settings }
    }

    /// Fetches the keys from somewhere else than below the issuer.
    ///
    /// # Errors
    /// If it isn't an address by https, or plain HTTP on loopback where the issuer was made so.
    pub fn key_set_at(self, url: &str) -> Result<Self, ConfigError> {
        let url = key_set(url, self.settings.plain)?;
        Ok(self.with(|settings| settings.url = url))
    }

    /// Lets pages of this origin open WebSockets with their cookies. Without one, none may.
    ///
    /// # Errors
    /// If it isn't an origin.
    pub fn website(self, origin: &str) -> Result<Self, ConfigError> {
        let app = self.settings.app.clone().also_website(origin)?;
        Ok(self.with(|settings| settings.app = app))
    }

    /// The issuer's anti-CSRF mode. Default: any `rid` header on requests that a cookie authenticates.
    pub fn anti_csrf(self, mode: AntiCsrf) -> Self {
        self.with(|settings| settings.csrf = mode)
    }

    /// The issuer names its cookies `__Host-…`.
    pub fn host_prefix(self) -> Self {
        self.with(|settings| settings.host_prefix = true)
    }

    /// The issuer has a factor of its own, which guards here may ask for.
    pub fn custom_factor(self, factor: FactorId) -> Self {
        self.with(|settings| settings.factors.push(factor))
    }

    /// How long the known keys serve while the issuer doesn't answer: so long a key that it revoked may go on being
    /// accepted. Default: an hour; at least a minute.
    pub fn serve_known_keys_for(self, bound: Duration) -> Self {
        self.with(|settings| settings.bound = bound)
    }

    /// A clock of the app's own.
    pub fn clock(self, clock: impl Clock) -> Self {
        self.with(|settings| (settings.clock, settings.own_clock) = (Arc::new(clock), true))
    }

    /// What happened since the start, for operators.
    pub fn counters(&self) -> VerifierCounters {
        let Some(jwks) = &self.kit.foreign else { return VerifierCounters::default() };
        VerifierCounters {
            fetches: jwks.counts.fetches.load(Ordering::Relaxed),
            failures: jwks.counts.failures.load(Ordering::Relaxed),
            unknown_keys: jwks.counts.unknown.load(Ordering::Relaxed),
        }
    }

    /// Whether the issuer's keys are known, and may be relied on. For health checks; it fetches nothing.
    pub fn is_ready(&self) -> bool {
        self.kit.foreign.as_ref().is_some_and(|jwks| jwks.age(self.kit.db.now()) != Age::None)
    }
}

impl Settings {
    fn kit(&self) -> Arc<Kit> {
        let mut config = Config::of(self.app.clone());
        (config.csrf, config.cookies.host_prefix) = (self.csrf, self.host_prefix);
        let jwks = Jwks::new(self.url.clone(), self.client.clone(), self.bound);
        let clock = Arc::clone(&self.clock);
        Arc::new(Kit::verifying(config, jwks, clock, self.own_clock, self.factors.clone()))
    }
}

fn key_set(url: &str, plain: bool) -> Result<Uri, ConfigError> {
    let wrong = || match plain {
        true => ConfigError::one("an issuer on loopback looks like http://127.0.0.1:3001/auth"),
        false => ConfigError::one("an issuer looks like https://api.shop.example/auth"),
    };
    let url: Uri = url.parse().map_err(|_| wrong())?;
    let scheme = if plain { "http" } else { "https" };
    let fits = url.scheme_str() == Some(scheme) && http_client::is_safe(&url, plain) && url.query().is_none();
    if fits { Ok(url) } else { Err(wrong()) }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("issuer", &self.kit.issuer).finish_non_exhaustive()
    }
}

/// What a [`Verifier`] counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifierCounters {
    /// How often the key set was fetched.
    pub fetches: u64,
    /// How often that failed, or what came could not be taken.
    pub failures: u64,
    /// Requests whose token named a key that a fetch didn't find, or for which it was too early for one.
    pub unknown_keys: u64,
}
