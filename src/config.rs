//! What an app says about itself, its root keys, and how long things last: parsed once, then plain fields.

use std::{fmt, fs, io::Write as _, path::Path, time::Duration};

use zeroize::Zeroizing;

#[cfg(feature = "phone")]
pub use self::passwordless::Countries;
pub use self::{
    accounts::EmailVerification,
    passwordless::{FlowType, Passwordless},
    sends::SendLimits,
};
#[cfg(feature = "http-client")]
pub use crate::base::http_client::Reqwest;
pub use crate::base::{error::ConfigError, http_client::HttpClient};
pub use crate::session::{
    cookies::{SameSite, TransferMethod, TransferMethods},
    csrf::AntiCsrf,
    peer::proxies::TrustedProxies,
    signing::SigningAlg,
};
use crate::{
    base::{error::Error, hash, ident::FactorId, random, secret::Secret},
    session::{cookies::CookieConfig, keyring::Schedule, origin::Origin},
};

mod accounts;
pub(crate) mod passwordless;
mod sends;

/// The names under which the world knows the app.
///
/// ```
/// use tower_mfa::config::AppInfo;
/// let app = AppInfo::new("Shop", "https://api.shop.test", "https://shop.test")?;
/// assert_eq!(app.issuer(), "https://api.shop.test/auth");
/// assert!(AppInfo::new("Shop", "api.shop.test", "https://shop.test").is_err());
/// # Ok::<(), tower_mfa::config::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct AppInfo {
    pub(crate) name: String,
    pub(crate) api: Origin,
    pub(crate) websites: Vec<Origin>,
    pub(crate) base_path: String,
    pub(crate) website_base_path: String,
}

impl AppInfo {
    /// The app's name for people, the origin of its API, and the origin of its website.
    ///
    /// # Errors
    /// If a name is empty or an origin isn't `http(s)://host[:port]`.
    pub fn new(name: &str, api: &str, website: &str) -> Result<Self, ConfigError> {
        let origin = |what: &str, text: &str| {
            Origin::parse(text)
                .map_err(|_| format!("the {what} origin must look like https://host or http://host:port"))
        };
        let mut problems = Vec::new();
        if name.is_empty() || name.chars().any(char::is_control) {
            problems.push("the app's name must not be empty or hold control characters".to_owned());
        }
        match (origin("API", api), origin("website", website)) {
            (Ok(api), Ok(website)) => {
                ConfigError::all(problems)?;
                Ok(Self {
                    name: name.to_owned(),
                    api,
                    websites: vec![website],
                    base_path: "/auth".to_owned(),
                    website_base_path: "/auth".to_owned(),
                })
            }
            (api, website) => {
                problems.extend(api.err().into_iter().chain(website.err()));
                Err(ConfigError::all(problems).err().unwrap_or(ConfigError::one("an origin can't be read")))
            }
        }
    }

    /// Serves the API's routes under another path than `/auth`.
    ///
    /// # Errors
    /// If the path isn't `/` followed by letters, digits, `-`, `_`, `.` and single slashes.
    pub fn base_path(mut self, path: &str) -> Result<Self, ConfigError> {
        self.base_path = normal_path(path)?;
        Ok(self)
    }

    /// The website's own path for its sign-in pages, used in links of messages. Default `/auth`.
    ///
    /// # Errors
    /// As [`AppInfo::base_path`].
    pub fn website_base_path(mut self, path: &str) -> Result<Self, ConfigError> {
        self.website_base_path = normal_path(path)?;
        Ok(self)
    }

    /// Lets pages of one more origin use the API.
    ///
    /// # Errors
    /// If it isn't an origin.
    pub fn also_website(mut self, origin: &str) -> Result<Self, ConfigError> {
        let origin = Origin::parse(origin).map_err(|_| {
            ConfigError::one("a website origin must look like https://host or http://host:port")
        })?;
        self.websites.push(origin);
        Ok(self)
    }

    /// The app's name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The issuer of access tokens: the API's origin and base path.
    pub fn issuer(&self) -> String {
        format!("{}{}", self.api.as_str(), self.base_path)
    }
}

fn normal_path(path: &str) -> Result<String, ConfigError> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let segment =
        |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    match path.strip_prefix('/') {
        Some(rest) if rest.split('/').all(segment) => Ok(path.to_owned()),
        _ => Err(ConfigError::one("a base path must look like /auth or /api/auth")),
    }
}

/// The root keys: 256 bits each, by id, kept outside the store. Peppers, seals and MACs are derived from
/// them, so all processes on one store must share them.
///
/// The first key is used for what is made from now on; the others still open what was made under them.
///
/// # Changing the root key
/// While processes are replaced one by one, each must be able to open what any other makes:
/// 1. Make a key and add it as an *older* one everywhere ([`Secrets::and_older`], or a further line of the
///    file). It opens, and seals nothing yet.
/// 2. Put it first everywhere, the former key behind it. Signing keys are sealed anew at once; refresh
///    tokens come under the new key as each is used.
/// 3. Take the former key away once [`Lifetimes::refresh_token`] has passed. Sooner, whoever did not come
///    back since is signed out.
///
/// A key that is taken away while signing keys are still sealed under it leaves the app without keys:
/// every request that needs one is answered 503, [`Mfa::is_ready`](crate::Mfa::is_ready) says so, and
/// putting the key back mends it. If it is lost for good,
/// [`Keys::revoke`](crate::account::Keys::revoke) gets rid of what it sealed.
#[derive(Clone)]
pub struct Secrets {
    keys: Vec<(String, Secret<[u8; 32]>)>,
}

impl Secrets {
    /// From one key. The id is 1 to 32 of `a-z`, `0-9` and `-`, and must never be given to another key.
    ///
    /// # Errors
    /// If the id is none, or the key is all one byte: a placeholder (row Z02).
    pub fn new(id: &str, key: [u8; 32]) -> Result<Self, ConfigError> {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=32).contains(&id.len()) || !id.bytes().all(word) {
            return Err(ConfigError::one("a root key's id must be 1 to 32 of a-z, 0-9 and -"));
        }
        let key = Secret::new(key);
        if key.expose().iter().all(|b| Some(b) == key.expose().first()) {
            return Err(ConfigError::one("the root key is a placeholder: make one from a random source"));
        }
        Ok(Self { keys: vec![(id.to_owned(), key)] })
    }

    /// Adds an older key, which only opens what was made under it.
    ///
    /// # Errors
    /// As [`Secrets::new`], and if the id is taken.
    pub fn and_older(mut self, id: &str, key: [u8; 32]) -> Result<Self, ConfigError> {
        if self.keys.iter().any(|(known, _)| known == id) {
            return Err(ConfigError::one("two root keys have one id"));
        }
        self.keys.extend(Self::new(id, key)?.keys);
        Ok(self)
    }

    /// A key made now, for tests and for apps that keep nothing: every session ends with the process.
    ///
    /// # Errors
    /// If the operating system gives no randomness.
    pub fn random() -> Result<Self, Error> {
        Ok(Self { keys: vec![("random".to_owned(), Secret::new(random::bytes()?))] })
    }

    /// Reads the keys from a file, one a line: an id, a space, 32 bytes as unpadded base64url; the first
    /// line is the key in use. A file that isn't there is made, with one new key, readable by its owner.
    ///
    /// # Errors
    /// If the file can't be read or made, or a line isn't a key.
    pub fn file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let problem = |what: &str| ConfigError::one(format!("the key file {}: {what}", path.display()));
        let text = match fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let key: [u8; 32] = random::bytes().map_err(|e| problem(&e.to_string()))?;
                let line = Zeroizing::new(format!("key-1 {}\n", hash::base64url(&key)));
                match private(path).and_then(|mut file| file.write_all(line.as_bytes())) {
                    Ok(()) => line,
                    // Another process made it a moment earlier.
                    Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                        Zeroizing::new(fs::read_to_string(path).map_err(|e| problem(&e.to_string()))?)
                    }
                    Err(e) => return Err(problem(&e.to_string())),
                }
            }
            Err(e) => return Err(problem(&e.to_string())),
        };
        let mut secrets: Option<Self> = None;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (id, key) = line.trim().split_once(' ').ok_or_else(|| problem("a line is `id key`"))?;
            let key = hash::from_base64url(key.trim())
                .and_then(|raw| <[u8; 32]>::try_from(raw).ok())
                .ok_or_else(|| problem("a key is 32 bytes as unpadded base64url"))?;
            secrets = Some(match secrets {
                None => Self::new(id, key)?,
                Some(secrets) => secrets.and_older(id, key)?,
            });
        }
        secrets.ok_or_else(|| problem("it holds no key"))
    }

    /// For each root key, newest first, its id and the key derived from it for one purpose.
    pub(crate) fn derive(&self, purpose: &str) -> Vec<(String, Zeroizing<[u8; 32]>)> {
        self.keys.iter().map(|(id, key)| (id.clone(), hash::derive(key.expose(), purpose))).collect()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

#[cfg(unix)]
fn private(path: &Path) -> std::io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn private(path: &Path) -> std::io::Result<fs::File> {
    fs::OpenOptions::new().write(true).create_new(true).open(path)
}

/// How long things last. The defaults are those of `_docs::defaults`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Lifetimes {
    /// An access token: the upper bound on how long a revocation can go unnoticed by a process that is
    /// cut off from the store. 3600 s, each token shortened by up to 5 %.
    pub access_token: Duration,
    /// A refresh token, renewed at each use. 100 days.
    pub refresh_token: Duration,
    /// A session, however often it is refreshed. 365 days.
    pub session: Duration,
    /// A session that still lacks a factor. 15 min, not extended by refresh.
    pub half_session: Duration,
    /// How long a refresh token that was just used gets the same answer again. 30 s, at most 300 s.
    pub refresh_grace: Duration,
    /// A one-time code. 600 s, at most 900 s.
    pub code: Duration,
    /// How long a key signs access tokens before the next one does. 168 h, at least 10 min.
    pub signing_key: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self {
            access_token: Duration::from_secs(3600),
            refresh_token: Duration::from_secs(100 * DAY),
            session: Duration::from_secs(365 * DAY),
            half_session: Duration::from_secs(15 * 60),
            refresh_grace: Duration::from_secs(30),
            code: Duration::from_secs(600),
            signing_key: Schedule::ROTATION,
        }
    }
}

/// What guards changes of factors (row F07, decision of the house 12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FactorChanges {
    /// A factor proven in this session within the last five minutes, but for the first enrolment during
    /// sign-in.
    #[default]
    StepUp,
    /// The looser rule of the SDKs' prebuilt screens: requirements met is enough.
    Compat,
}

/// What the mount does while the change feed is cut off (row K02).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stale {
    /// Plain verification goes on, bounded by the token's life.
    #[default]
    Serve,
    /// 503 until the feed is read again.
    Refuse,
}

/// Everything that was configured, checked by `build()`.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) app: AppInfo,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) cookies: CookieConfig,
    pub(crate) csrf: AntiCsrf,
    pub(crate) signing: SigningAlg,
    pub(crate) first_factors: Option<Vec<FactorId>>,
    pub(crate) custom_factors: Vec<FactorId>,
    pub(crate) factor_changes: FactorChanges,
    pub(crate) max_wrong_codes: u32,
    pub(crate) limits: bool,
    pub(crate) send_limits: SendLimits,
    pub(crate) reveal_accounts: bool,
    pub(crate) mask_contacts: bool,
    pub(crate) passwordless: Passwordless,
    pub(crate) email_verification: EmailVerification,
    /// Whether messages reach people: without, no link is ever sent.
    pub(crate) delivers: bool,
    pub(crate) max_sessions: usize,
    pub(crate) revoke_all_on_theft: bool,
}

impl Config {
    /// The defaults for an app.
    pub(crate) fn of(app: AppInfo) -> Self {
        let refresh_path = format!("{}/session/refresh", app.base_path);
        let website = app.websites.first().unwrap_or(&app.api);
        let cookies = CookieConfig::new(&app.api, website, refresh_path);
        Self {
            cookies,
            app,
            lifetimes: Lifetimes::default(),
            csrf: AntiCsrf::default(),
            signing: SigningAlg::default(),
            first_factors: None,
            custom_factors: Vec::new(),
            factor_changes: FactorChanges::default(),
            max_wrong_codes: 5,
            limits: true,
            send_limits: SendLimits::default(),
            reveal_accounts: false,
            mask_contacts: false,
            passwordless: Passwordless::email(),
            email_verification: EmailVerification::Off,
            delivers: false,
            max_sessions: 100,
            revoke_all_on_theft: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_z02_placeholders_and_malformed_keys_are_refused() {
        Secrets::new("k", [0; 32]).unwrap_err();
        Secrets::new("k", [7; 32]).unwrap_err();
        Secrets::new("K.1", *b"0123456789abcdef0123456789abcdef").unwrap_err();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mfa.key");
        let made = Secrets::file(&path).unwrap();
        let read = Secrets::file(&path).unwrap();
        assert!(made.derive("x")[0].1 == read.derive("x")[0].1);
        assert!(!format!("{made:?}").contains(fs::read_to_string(&path).unwrap().split(' ').nth(1).unwrap()));
        fs::write(&path, "key-1 short\n").unwrap();
        assert!(Secrets::file(&path).unwrap_err().to_string().contains("32 bytes"));
        fs::write(&path, "").unwrap();
        Secrets::file(&path).unwrap_err();
    }

    #[test]
    fn base_paths() {
        let app = AppInfo::new("Shop", "http://localhost:3001", "http://localhost:3000").unwrap();
        assert_eq!(app.clone().base_path("/api/auth/").unwrap().base_path, "/api/auth");
        for bad in ["auth", "", "/", "/a//b", "/a b", "/ä"] {
            assert!(app.clone().base_path(bad).is_err(), "{bad}");
        }
        assert_eq!(AppInfo::new("", "x", "y").unwrap_err().problems().len(), 3);
    }
}
