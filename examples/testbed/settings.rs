//! The environment, read once. What can't be served is an error that names its variable.

use std::{ffi::OsString, fmt, ops::RangeInclusive, path::PathBuf, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;
use tower_mfa::{
    FactorId, Requirement, Requirements,
    config::{
        AppInfo, Countries, EmailVerification, FactorChanges, FlowType, Lifetimes, Passwordless, Reqwest,
        Secrets,
    },
    factor::{Provider, ProviderClient, ThirdParty},
    ident::Secret,
    policy::{AnyPolicy, ForRole, MfaPolicy, Nobody, PolicyContext, PolicyError, UserOrTenant},
};

/// The factors that the build has.
const FACTORS: [FactorId; 6] = [
    FactorId::PASSWORD,
    FactorId::THIRD_PARTY,
    FactorId::OTP_EMAIL,
    FactorId::OTP_PHONE,
    FactorId::LINK_EMAIL,
    FactorId::LINK_PHONE,
];

/// What the environment asks for.
pub(crate) struct Settings {
    /// `PORT`
    pub(crate) port: u16,
    /// `STORE`
    pub(crate) store: StoreKind,
    /// `SECRET`
    pub(crate) secrets: Secrets,
    /// `ACCESS_TOKEN_TTL`, `OTP_TTL`, `HALF_SESSION_TTL`
    pub(crate) lifetimes: Lifetimes,
    /// `MAX_WRONG_CODES`
    pub(crate) max_wrong_codes: u32,
    /// `LIMITS`
    pub(crate) limits: bool,
    /// `FIRST_FACTORS`
    pub(crate) first_factors: Vec<FactorId>,
    /// `PROVIDERS`
    pub(crate) providers: Option<ThirdParty>,
    /// `PASSWORDLESS`
    pub(crate) passwordless: Passwordless,
    /// `MFA_POLICY` or `MFA_REQUIREMENTS`
    pub(crate) policy: AnyPolicy,
    /// `EMAIL_VERIFICATION`
    pub(crate) email_verification: EmailVerification,
    /// `STEP_UP_FOR_FACTOR_CHANGES`
    pub(crate) factor_changes: FactorChanges,
    /// `FRESH_SECONDS`
    pub(crate) fresh: Duration,
    /// `TEST_HOOKS`
    pub(crate) hooks: bool,
    website: String,
    api: Option<String>,
}

/// Where records are kept.
#[derive(Debug, PartialEq)]
pub(crate) enum StoreKind {
    /// In this process, until it ends.
    Memory,
    /// In a file.
    Sqlite(PathBuf),
}

/// A variable whose value can't be served.
#[derive(Debug)]
pub(crate) struct Wrong {
    name: &'static str,
    why: String,
}

impl Wrong {
    pub(crate) fn new(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, why: why.into() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.why)
    }
}

impl std::error::Error for Wrong {}

impl Settings {
    /// Reads the variables, each through `look`.
    pub(crate) fn from_env(look: impl Fn(&'static str) -> Option<OsString>) -> Result<Self, Wrong> {
        let env = Env(&look);
        let store = store(env.text("STORE")?)?;
        let mut lifetimes = Lifetimes::default();
        let year = lifetimes.session.as_secs();
        lifetimes.access_token = env.seconds("ACCESS_TOKEN_TTL", 3600, 1..=year)?;
        lifetimes.code = env.seconds("OTP_TTL", 600, 1..=900)?;
        lifetimes.half_session = env.seconds("HALF_SESSION_TTL", 900, 1..=year)?;
        let providers = providers(env.text("PROVIDERS")?.as_deref())?;
        let (website, api) = (env.text("WEBSITE_ORIGIN")?, env.text("API_ORIGIN")?);
        for (name, origin) in [("WEBSITE_ORIGIN", &website), ("API_ORIGIN", &api)] {
            if let Some(origin) = origin {
                AppInfo::new("Testbed", origin, origin)
                    .map_err(|_| Wrong::new(name, "an origin looks like http://localhost:3000"))?;
            }
        }
        let loose = env.choice("STEP_UP_FOR_FACTOR_CHANGES", &["on", "off"])? == "off";
        Ok(Self {
            port: u16::try_from(env.number("PORT", 3001, 0..=65535)?).unwrap_or(0),
            secrets: secrets(env.text("SECRET")?, &store, env.text("STORE")?)?,
            store,
            lifetimes,
            max_wrong_codes: u32::try_from(env.number("MAX_WRONG_CODES", 5, 1..=10)?).unwrap_or(5),
            limits: env.choice("LIMITS", &["on", "off"])? == "on",
            first_factors: first_factors(env.text("FIRST_FACTORS")?, providers.is_some())?,
            providers,
            passwordless: passwordless(env.text("PASSWORDLESS")?.as_deref())?,
            policy: policy(env.text("MFA_POLICY")?.as_deref(), env.text("MFA_REQUIREMENTS")?.as_deref())?,
            email_verification: match env.choice("EMAIL_VERIFICATION", &["off", "optional", "required"])? {
                "required" => EmailVerification::Required,
                "optional" => EmailVerification::Optional,
                _ => EmailVerification::Off,
            },
            factor_changes: if loose { FactorChanges::Compat } else { FactorChanges::StepUp },
            fresh: env.seconds("FRESH_SECONDS", 300, 1..=year)?,
            // Anything but `1` must not serve the hooks, and doesn't.
            hooks: env.text("TEST_HOOKS")?.as_deref() == Some("1"),
            website: website.unwrap_or_else(|| "http://localhost:3000".to_owned()),
            api,
        })
    }

    /// The names under which the world knows this server.
    pub(crate) fn app_info(&self) -> Result<AppInfo, Wrong> {
        let api = self.api.clone().unwrap_or_else(|| format!("http://localhost:{}", self.port));
        AppInfo::new("Testbed", &api, &self.website)
            .map_err(|error| Wrong::new("API_ORIGIN", error.to_string()))
    }
}

struct Env<'a>(&'a dyn Fn(&'static str) -> Option<OsString>);

impl Env<'_> {
    fn text(&self, name: &'static str) -> Result<Option<String>, Wrong> {
        let unicode = |value: OsString| value.into_string().map_err(|_| Wrong::new(name, "it isn't UTF-8"));
        (self.0)(name).map(unicode).transpose()
    }

    fn number(&self, name: &'static str, default: u64, fits: RangeInclusive<u64>) -> Result<u64, Wrong> {
        let Some(text) = self.text(name)? else { return Ok(default) };
        let found = text.parse().ok().filter(|number| fits.contains(number));
        found.ok_or_else(|| {
            Wrong::new(name, format!("a whole number from {} to {} is wanted", fits.start(), fits.end()))
        })
    }

    fn seconds(
        &self,
        name: &'static str,
        default: u64,
        fits: RangeInclusive<u64>,
    ) -> Result<Duration, Wrong> {
        self.number(name, default, fits).map(Duration::from_secs)
    }

    /// One of these words; the first is the default.
    fn choice(&self, name: &'static str, words: &[&'static str]) -> Result<&'static str, Wrong> {
        let found = match self.text(name)? {
            Some(text) => words.iter().find(|word| **word == text),
            None => words.first(),
        };
        found.copied().ok_or_else(|| Wrong::new(name, format!("only {} can be served", words.join(", "))))
    }
}

fn store(text: Option<String>) -> Result<StoreKind, Wrong> {
    match text.as_deref() {
        None | Some("memory") => Ok(StoreKind::Memory),
        Some(text) => match text.strip_prefix("sqlite:") {
            Some(file) if !file.is_empty() => Ok(StoreKind::Sqlite(file.into())),
            _ => Err(Wrong::new("STORE", "only memory and sqlite:FILE can be served")),
        },
    }
}

/// From `SECRET`, else from the name of the store: this is a server for tests.
fn secrets(secret: Option<String>, store: &StoreKind, name: Option<String>) -> Result<Secrets, Wrong> {
    let text = match (secret, store) {
        (Some(secret), _) if secret.is_empty() => return Err(Wrong::new("SECRET", "it is empty")),
        (Some(secret), _) => secret,
        (None, StoreKind::Memory) => {
            return Secrets::random().map_err(|error| Wrong::new("SECRET", error.to_string()));
        }
        (None, StoreKind::Sqlite(_)) => format!("testbed {}", name.unwrap_or_default()),
    };
    let hash = digest(&SHA256, text.as_bytes());
    let key = <[u8; 32]>::try_from(hash.as_ref()).map_err(|error| Wrong::new("SECRET", error.to_string()))?;
    Secrets::new("testbed", key).map_err(|error| Wrong::new("SECRET", error.to_string()))
}

fn passwordless(text: Option<&str>) -> Result<Passwordless, Wrong> {
    let wrong = || {
        let why = "EMAIL, PHONE or EMAIL_OR_PHONE is wanted, a comma, and USER_INPUT_CODE, MAGIC_LINK or \
                   USER_INPUT_CODE_AND_MAGIC_LINK";
        Wrong::new("PASSWORDLESS", why)
    };
    let (contact, flow) =
        text.unwrap_or("EMAIL_OR_PHONE,USER_INPUT_CODE").split_once(',').ok_or_else(wrong)?;
    // Every country: nothing is ever sent from here.
    let passwordless = match contact {
        "EMAIL" => Passwordless::email(),
        "PHONE" => Passwordless::phone(Countries::all()),
        "EMAIL_OR_PHONE" => Passwordless::email_or_phone(Countries::all()),
        _ => return Err(wrong()),
    };
    Ok(passwordless.flow(match flow {
        "USER_INPUT_CODE" => FlowType::UserInputCode,
        "MAGIC_LINK" => FlowType::MagicLink,
        "USER_INPUT_CODE_AND_MAGIC_LINK" => FlowType::UserInputCodeAndMagicLink,
        _ => return Err(wrong()),
    }))
}

/// OpenID providers of all tenants. Plain HTTP is for those on this machine.
fn providers(text: Option<&str>) -> Result<Option<ThirdParty>, Wrong> {
    const NAME: &str = "PROVIDERS";
    let Some(text) = text else { return Ok(None) };
    let why = r#"a JSON list of {"id","issuer","clientId","clientSecret"} is wanted"#;
    let list: Vec<Value> = serde_json::from_str(text).map_err(|_| Wrong::new(NAME, why))?;
    let client = Reqwest::new().map_err(|error| Wrong::new(NAME, error.to_string()))?;
    let mut settings = ThirdParty::new(client);
    for item in list {
        let member = |name: &str| item[name].as_str().ok_or(Wrong::new(NAME, why));
        let (id, issuer) = (member("id")?, member("issuer")?);
        let secret = Secret::new(member("clientSecret")?.to_owned());
        let provider = Provider::oidc(id, id, issuer, ProviderClient::new(member("clientId")?, secret));
        settings = settings.provider(match issuer.starts_with("http:") {
            true => provider.insecure_loopback(),
            false => provider,
        });
    }
    Ok(Some(settings))
}

fn first_factors(text: Option<String>, providers: bool) -> Result<Vec<FactorId>, Wrong> {
    const NAME: &str = "FIRST_FACTORS";
    let Some(text) = text else { return Ok(vec![FactorId::PASSWORD]) };
    let mut factors = Vec::new();
    for id in text.split(',').map(str::trim) {
        let there = |factor: &FactorId| *factor != FactorId::THIRD_PARTY || providers;
        let served = FACTORS.into_iter().find(|factor| factor.as_str() == id).filter(there);
        let factor = served.ok_or_else(|| {
            Wrong::new(
                NAME,
                "only emailpassword, thirdparty (with PROVIDERS), otp-email, otp-phone, link-email and link-phone can be served yet",
            )
        })?;
        if factors.contains(&factor) {
            return Err(Wrong::new(NAME, "a factor is listed twice"));
        }
        factors.push(factor);
    }
    Ok(factors)
}

fn policy(name: Option<&str>, requirements: Option<&str>) -> Result<AnyPolicy, Wrong> {
    let admins = ForRole::new("admin", FactorId::OTP_EMAIL);
    let policy = match name.unwrap_or("default") {
        "default" => AnyPolicy::new(UserOrTenant::new()),
        "all-required" => AnyPolicy::new(UserOrTenant::new().all_required()),
        "admin-only" => AnyPolicy::new(admins),
        "admin-and-tenant" => AnyPolicy::new(admins.where_tenant_asks()),
        "opt-in-and-tenant" => AnyPolicy::new(OptInAndTenant),
        "everyone-totp" => AnyPolicy::new(Whatever(FactorId::TOTP.into())),
        "nobody" => AnyPolicy::new(Nobody),
        _ => return Err(Wrong::new("MFA_POLICY", "there is no such policy")),
    };
    let Some(text) = requirements else { return Ok(policy) };
    let list = serde_json::from_str(text).ok().and_then(|json| Requirements::from_json(&json).ok());
    let list = list.ok_or_else(|| Wrong::new("MFA_REQUIREMENTS", "a JSON list of requirements is wanted"))?;
    Ok(AnyPolicy::new(Whatever(list)))
}

/// Asks this of everybody, installed or not: it says nothing of itself, so the start doesn't check it, and
/// the tests see what becomes of users of whom the impossible is demanded.
struct Whatever(Requirements);

impl MfaPolicy for Whatever {
    async fn requirements(&self, _ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        Ok(self.0.clone())
    }
}

/// A code by e-mail, if the user opted into it and the tenant asks for it. A policy of an app's own.
struct OptInAndTenant;

impl MfaPolicy for OptInAndTenant {
    async fn requirements(&self, ctx: &PolicyContext<'_>) -> Result<Requirements, PolicyError> {
        const EMAIL: FactorId = FactorId::OTP_EMAIL;
        let asked = ctx.required_for_user().await?.contains(&EMAIL)
            && ctx.required_for_tenant().await?.contains(&EMAIL);
        Ok(if asked { Requirement::Factor(EMAIL).into() } else { Requirements::none() })
    }
}
