//! What mounts there are: who reads it sees which of them ask for less (row P14).

use std::{
    collections::BTreeSet,
    fmt,
    panic::Location,
    sync::{Mutex, PoisonError},
};

use super::Mfa;

/// A mount of [`MfaLayer`](crate::MfaLayer): see [`Mfa::mounts`].
///
/// Its `Display` is one line, for a start's log or a snapshot in a test of the app's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct MountInfo {
    /// Where in the app's source it was made.
    pub at: &'static Location<'static>,
    /// Whether it lets requests without a session pass.
    pub optional: bool,
    /// Whether it reads the session's row at each request.
    pub check_store: bool,
    /// The ids of its claim validators, in order.
    pub validators: Vec<String>,
    /// The ids of the global validators that it does without: `st-mfa` where MFA isn't asked.
    pub dropped: Vec<String>,
}

impl fmt::Display for MountInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |ids: &[String]| if ids.is_empty() { "nothing".to_owned() } else { ids.join(", ") };
        let session = if self.optional { "optional" } else { "required" };
        let exact = if self.check_store { ", reads the store" } else { "" };
        write!(f, "{}: session {session}{exact}, asks {}", self.at, list(&self.validators))?;
        if self.dropped.is_empty() { Ok(()) } else { write!(f, ", without {}", list(&self.dropped)) }
    }
}

/// The mounts so far, each once however often it was applied.
#[derive(Debug, Default)]
pub(crate) struct Mounts(Mutex<BTreeSet<MountInfo>>);

impl Mounts {
    pub(crate) fn add(&self, mount: MountInfo) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(mount);
    }
}

impl Mfa {
    /// The mounts that were applied to a service so far, in the order of the source: which of them ask for a
    /// session, by which claim validators, and what they do without. A router has no list of its layers, so a
    /// test of the app's can hold this one against what was meant.
    ///
    /// ```
    /// # use tower::Layer as _;
    /// # use tower_mfa::{Mfa, MfaLayer, config::{AppInfo, Secrets}, store::MemoryStore};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let app = AppInfo::new("Shop", "https://api.shop.example", "https://shop.example")?;
    /// # let mfa = Mfa::builder(app, Secrets::random()?, MemoryStore::new()).without_passwordless().build()?;
    /// let service = MfaLayer::required(mfa.clone()).without_mfa().layer("a service");
    /// let mounts = mfa.mounts();
    /// assert_eq!(mounts[0].dropped, ["st-mfa"]);
    /// assert!(mounts[0].to_string().ends_with("session required, asks nothing, without st-mfa"));
    /// # Ok(()) }
    /// ```
    pub fn mounts(&self) -> Vec<MountInfo> {
        self.mounts.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
