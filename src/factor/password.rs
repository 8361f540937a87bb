//! Passwords: what is accepted, and Argon2id behind a permit pool.
//!
//! - One check is one hash, whoever asks: a known user, an unknown one, one whose stored hash can't be
//!   read (rows W03, W04).
//! - As many hashes run at once as there are cores; 64 more may wait, 2 s at most, of one tenant 48; any other is
//!   told that the service is busy (row W01). Tenants take turns (row N07). The work holds its permit itself, so a
//!   caller that leaves frees nothing.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use argon2::{Block, Params};
use tokio::task::spawn_blocking;

use self::{
    line::Line,
    stored::{OUTPUT, Stored},
};
use crate::base::{error::Error, ident::TenantId, random, secret::Secret};

mod line;
mod stored;

/// A password as someone typed it: at most 1024 bytes, never cut, never normalised (row W02).
#[derive(Clone, Debug)]
pub(crate) struct Password(Secret<String>);

/// The text is longer than any password may be: refused before any hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Password {
    pub(crate) const MAX: usize = 1024;

    pub(crate) fn new(text: impl Into<Secret<String>>) -> Result<Self, TooLong> {
        let text = text.into();
        if text.expose().len() > Self::MAX { Err(TooLong) } else { Ok(Self(text)) }
    }

    fn as_str(&self) -> &str {
        self.0.expose()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.as_str().is_empty()
    }

    /// For the app's own check alone.
    pub(super) fn secret(&self) -> &Secret<String> {
        &self.0
    }
}

/// What a new password must be like. The default: 8 characters or more, a letter and a digit.
///
/// Asked at sign-up, change and reset, never at sign-in. The limit of 1024 bytes always holds.
///
/// ```
/// use tower_mfa::factor::PasswordRules;
/// let rules = PasswordRules::new(|password| match password.chars().count() {
///     0..12 => Err("Use 12 characters or more".into()),
///     _ => Ok(()),
/// });
/// ```
#[derive(Clone)]
pub struct PasswordRules(Arc<Check>);

type Check = dyn Fn(&str) -> Result<(), Cow<'static, str>> + Send + Sync;

impl PasswordRules {
    /// Rules of the app's own: `Err` carries the text to show beside the field. It must not repeat the
    /// password.
    pub fn new(check: impl Fn(&str) -> Result<(), Cow<'static, str>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }

    /// The text to show beside the field, if the password isn't good enough.
    pub(crate) fn check(&self, password: &Password) -> Result<(), Cow<'static, str>> {
        (self.0)(password.as_str())
    }
}

impl Default for PasswordRules {
    fn default() -> Self {
        Self::new(|password| {
            let text = if password.chars().count() < 8 {
                "Password must have at least 8 characters"
            } else if !password.chars().any(char::is_alphabetic) {
                "Password must contain a letter"
            } else if !password.chars().any(char::is_numeric) {
                "Password must contain a digit"
            } else {
                return Ok(());
            };
            Err(text.into())
        })
    }
}

impl fmt::Debug for PasswordRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordRules").finish_non_exhaustive()
    }
}

/// What one hash costs. The default is OWASP's first choice for Argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PasswordCost {
    pub(crate) memory_kib: u32,
    pub(crate) passes: u32,
    pub(crate) lanes: u32,
}

impl Default for PasswordCost {
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, passes: 2, lanes: 1 }
    }
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Verified {
    /// The password is the one that was stored.
    pub(crate) ok: bool,
    /// It is, and the stored hash has another cost than the configured: store a new one, on condition
    /// that the old one is still there (row W07).
    pub(crate) needs_rehash: bool,
    /// The stored text is no hash that may be computed: an audit event of its own (row W03).
    pub(crate) malformed: bool,
}

/// Hashes and checks passwords. A clone shares the pool.
#[derive(Clone)]
pub(crate) struct PasswordHasher {
    cost: PasswordCost,
    params: Params,
    pool: Arc<Pool>,
}

struct Pool {
    line: Arc<Line>,
    hashes: AtomicU64,
}

impl PasswordHasher {
    /// # Errors
    /// `Invalid` if Argon2 knows no such cost.
    pub(crate) fn new(cost: PasswordCost) -> Result<Self, Error> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::with_pool(cost, cores, QUEUE, PATIENCE)
    }

    fn with_pool(
        cost: PasswordCost,
        permits: usize,
        queue: usize,
        patience: Duration,
    ) -> Result<Self, Error> {
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(OUTPUT))
            .map_err(|_| Error::invalid("no such password cost"))?;
        let line = Arc::new(Line::new(permits, queue, patience));
        Ok(Self { cost, params, pool: Arc::new(Pool { line, hashes: AtomicU64::new(0) }) })
    }

    /// A new hash in PHC form, for somebody in a tenant: `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
    ///
    /// # Errors
    /// `Unavailable` if the pool is full or there is no randomness.
    pub(crate) async fn hash(&self, tenant: &TenantId, password: Password) -> Result<String, Error> {
        let (salt, params): ([u8; 16], _) = (random::bytes()?, self.params.clone());
        let work = move |memory: &mut Vec<Block>| stored::argon2id(&params, &salt, OUTPUT, &password, memory);
        let output = self.run(tenant, work).await?.ok_or_else(no_memory)?;
        stored::phc(&self.params, &salt, &output)
            .ok_or(Error::internal("a password hash could not be written"))
    }

    /// Whether the password is the stored one. `None` is nobody's password: the work is the same.
    ///
    /// # Errors
    /// `Unavailable` if the pool is full.
    pub(crate) async fn verify(
        &self,
        tenant: &TenantId,
        password: Password,
        stored: Option<&str>,
    ) -> Result<Verified, Error> {
        let read = stored.map(|text| Stored::read(text, self.cost));
        let malformed = matches!(read, Some(None));
        let (stored, real) = match read.flatten() {
            Some(stored) => (stored, true),
            None => (Stored::nobodys(&self.params), false),
        };
        let outdated = stored.is_outdated(&self.params);
        let same =
            self.run(tenant, move |memory| stored.is_of(&password, memory)).await?.ok_or_else(no_memory)?;
        let ok = same & real;
        Ok(Verified { ok, needs_rehash: ok && outdated, malformed })
    }

    /// Whether a stored text is a hash that would be computed: of a kind and a cost that are taken (row W03).
    pub(crate) fn computes(&self, stored: &str) -> bool {
        Stored::read(stored, self.cost).is_some()
    }

    /// How many hashes were computed: operators read it, and it shows that nobody is checked for less.
    pub(crate) fn hashes(&self) -> u64 {
        self.pool.hashes.load(Ordering::Relaxed)
    }

    async fn run<T: Send + 'static>(
        &self,
        tenant: &TenantId,
        work: impl FnOnce(&mut Vec<Block>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let pool = Arc::clone(&self.pool);
        let permit = pool.line.enter(tenant).await;
        let permit = permit.ok_or(Error::unavailable("too many passwords are being checked"))?;
        let work = spawn_blocking(move || {
            let mut held = permit;
            pool.hashes.fetch_add(1, Ordering::Relaxed);
            work(&mut held.memory)
        });
        work.await.map_err(|_| Error::internal("a password hash did not end"))
    }
}

fn no_memory() -> Error {
    Error::unavailable("no memory for a password hash")
}

impl fmt::Debug for PasswordHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHasher").field("cost", &self.cost).finish_non_exhaustive()
    }
}

const QUEUE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::timeout;

    use super::*;
    use crate::base::error::ErrorKind;

    const HERE: TenantId = TenantId::PUBLIC;
    const CHEAP: PasswordCost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };

    fn password(text: &str) -> Password {
        Password::new(text.to_owned()).unwrap()
    }

    fn verified(ok: bool, needs_rehash: bool, malformed: bool) -> Verified {
        Verified { ok, needs_rehash, malformed }
    }

    #[tokio::test]
    async fn a_hash_is_checked_by_its_own_cost() {
        let hasher = PasswordHasher::new(PasswordCost::default()).unwrap();
        let stored = hasher.hash(&HERE, password("correct horse 1")).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        let check = async |hasher: &PasswordHasher, text: &str| {
            hasher.verify(&HERE, password(text), Some(&stored)).await.unwrap()
        };
        assert_eq!(check(&hasher, "correct horse 1").await, verified(true, false, false));
        assert_eq!(check(&hasher, "correct horse 2").await, verified(false, false, false));
        let dearer = PasswordHasher::new(PasswordCost { passes: 3, ..PasswordCost::default() }).unwrap();
        assert_eq!(check(&dearer, "correct horse 1").await, verified(true, true, false));
        assert_eq!(check(&dearer, "correct horse 2").await, verified(false, false, false));
    }

    /// A vector of the reference implementation (phc-winner-argon2): that of RFC 9106 has a key and
    /// associated data, which stored hashes don't.
    #[tokio::test]
    async fn the_reference_implementation_agrees() {
        let hasher = PasswordHasher::new(PasswordCost { memory_kib: 65_536, passes: 2, lanes: 1 }).unwrap();
        let stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(hasher.verify(&HERE, password("password"), Some(stored)).await.unwrap().ok);
        assert!(!hasher.verify(&HERE, password("passwore"), Some(stored)).await.unwrap().ok);
    }

    #[tokio::test]
    async fn sec_w04_one_hash_for_known_unknown_and_unreadable() {
        let hasher = PasswordHasher::new(CHEAP).unwrap();
        let stored = hasher.hash(&HERE, password("right")).await.unwrap();
        for (before, (given, text, want)) in (hasher.hashes()..).zip([
            ("right", Some(stored.as_str()), verified(true, false, false)),
            ("wrong", Some(stored.as_str()), verified(false, false, false)),
            ("right", None, verified(false, false, false)),
            ("", None, verified(false, false, false)),
            ("right", Some(""), verified(false, false, true)),
            ("right", Some("not a hash"), verified(false, false, true)),
        ]) {
            assert_eq!(hasher.verify(&HERE, password(given), text).await.unwrap(), want, "{given} {text:?}");
            assert_eq!(hasher.hashes(), before + 1, "{given} {text:?}");
        }
    }

    #[tokio::test]
    async fn sec_w03_hostile_hashes_are_not_computed() {
        let hasher = PasswordHasher::new(CHEAP).unwrap();
        let good = hasher.hash(&HERE, password("right")).await.unwrap();
        let (head, tail) = good.split_once("m=64,t=1,p=1").unwrap();
        let with = |params: &str| format!("{head}{params}{tail}");
        for (params, malformed) in [
            ("m=64,t=1,p=1", false),
            ("m=256,t=4,p=4", false),
            ("m=257,t=1,p=1", true),
            ("m=64,t=5,p=1", true),
            ("m=64,t=1,p=5", true),
            ("m=4294967295,t=1,p=1", true),
            ("m=4194304,t=4294967295,p=16777215", true),
            ("m=4294967296,t=1,p=1", true),
            ("m=0,t=1,p=1", true),
            ("m=64,t=0,p=1", true),
            ("m=64,t=1,p=0", true),
            ("m=16,t=1,p=4", true),
            ("m=-1,t=1,p=1", true),
            ("m=64,t=1,p=1,x=1", true),
        ] {
            let found = hasher.verify(&HERE, password("right"), Some(&with(params))).await.unwrap();
            assert_eq!(found.malformed, malformed, "{params}");
            assert_eq!(found.ok, params == "m=64,t=1,p=1", "{params}");
        }
        let (short, _) = good.rsplit_once('$').unwrap();
        for text in [
            good.replace("argon2id", "argon2d"),
            good.replace("v=19", "v=16"),
            good.replace("$v=19", ""),
            good.replace("$argon2id", "$ärgon2id"),
            format!("{good}$x"),
            format!("{good}ä"),
            short.to_owned(),
            format!("{short}$"),
            format!("{short}$AAAAAAAAAAAAAA"),
            format!("{short}${}", "A".repeat(5000)),
            "$".repeat(200),
            "$2x$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW".to_owned(),
            "$2b$15$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW".to_owned(),
            "$2b$03$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW".to_owned(),
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMU".to_owned(),
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMU!".to_owned(),
        ] {
            let found = hasher.verify(&HERE, password("right"), Some(&text)).await.unwrap();
            assert_eq!(found, verified(false, false, true), "{text}");
        }
    }

    proptest! {
        #[test]
        fn sec_w03_no_text_breaks_the_reader(text in "\\PC{0,80}", params in "[$mtp=0-9,a]{0,40}") {
            let _ = Stored::read(&text, CHEAP);
            let _ = Stored::read(&format!("$argon2id$v=19${params}$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y"), CHEAP);
        }
    }

    #[tokio::test]
    async fn sec_w02_length() {
        Password::new("x".repeat(1024)).unwrap();
        assert_eq!(Password::new("x".repeat(1025)).unwrap_err(), TooLong);
        assert_eq!(Password::new("é".repeat(513)).unwrap_err(), TooLong);
        let hasher = PasswordHasher::new(CHEAP).unwrap();
        // Nothing is cut, neither after 72 bytes nor at a NUL.
        for (long, other) in [
            (format!("{}a", "x".repeat(72)), format!("{}b", "x".repeat(72))),
            (format!("{}a", "x".repeat(1023)), format!("{}b", "x".repeat(1023))),
            ("a\0b".to_owned(), "a\0c".to_owned()),
            ("a".to_owned(), "a\0".to_owned()),
        ] {
            let stored = hasher.hash(&HERE, password(&long)).await.unwrap();
            assert!(hasher.verify(&HERE, password(&long), Some(&stored)).await.unwrap().ok);
            assert!(!hasher.verify(&HERE, password(&other), Some(&stored)).await.unwrap().ok);
        }
    }

    #[tokio::test]
    async fn sec_w01_a_full_house_is_told_so() {
        let slow = PasswordCost { memory_kib: 8 * 1024, passes: 2, lanes: 1 };
        let hasher = PasswordHasher::with_pool(slow, 2, 3, Duration::from_secs(30)).unwrap();
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let hasher = hasher.clone();
                tokio::spawn(async move { hasher.verify(&HERE, password("x"), None).await })
            })
            .collect();
        let (mut served, mut busy) = (0, 0);
        for call in calls {
            match call.await.unwrap() {
                Ok(_) => served += 1,
                Err(error) if error.kind() == ErrorKind::Unavailable => busy += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((served, busy, hasher.hashes()), (5, 45, 5));
        let _ = hasher.verify(&HERE, password("x"), None).await.unwrap();
    }

    #[tokio::test]
    async fn sec_w01_patience_ends() {
        let hasher = PasswordHasher::with_pool(CHEAP, 1, 1, Duration::from_millis(10)).unwrap();
        let held = hasher.pool.line.enter(&HERE).await.unwrap();
        let error = hasher.verify(&HERE, password("x"), None).await.unwrap_err();
        assert_eq!((error.kind(), hasher.hashes()), (ErrorKind::Unavailable, 0));
        drop(held);
        let _ = hasher.verify(&HERE, password("x"), None).await.unwrap();
    }

    #[tokio::test]
    async fn sec_m16_the_work_holds_its_permit_when_the_caller_leaves() {
        let slow = PasswordCost { memory_kib: 16 * 1024, passes: 2, lanes: 1 };
        let hasher = PasswordHasher::with_pool(slow, 1, 0, Duration::from_secs(30)).unwrap();
        let call = hasher.verify(&HERE, password("x"), None);
        // The runtime has one worker: if the work ran on it, this timeout could not fire.
        timeout(Duration::from_millis(5), call).await.unwrap_err();
        assert_eq!(
            hasher.verify(&HERE, password("x"), None).await.unwrap_err().kind(),
            ErrorKind::Unavailable
        );
        while hasher.pool.line.enter(&HERE).await.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let _ = hasher.verify(&HERE, password("x"), None).await.unwrap();
    }

    #[test]
    fn default_rules() {
        let rules = PasswordRules::default();
        for (text, fits) in [
            ("abcdefg1", true),
            ("abcdef1", false),
            ("abcdefgh", false),
            ("12345678", false),
            ("", false),
            ("пароль12", true),
            ("pass word 1", true),
            (&format!("{}1", "x".repeat(1023)), true),
        ] {
            assert_eq!(rules.check(&password(text)).is_ok(), fits, "{text}");
        }
        assert_eq!(format!("{:?}", password("hunter2x")), "Password([redacted])");
    }
}
