//! Why a notice was not delivered, and whether trying again helps.

use std::{borrow::Cow, error::Error as StdError, fmt};

use crate::base::error::BoxError;

/// A notice was not delivered.
///
/// Any error converts into a temporary one, so `?` just works; like `anyhow`'s, this type is therefore no
/// `std::error::Error` itself.
pub struct DeliveryError {
    permanent: bool,
    source: BoxError,
    reason: Option<Cow<'static, str>>,
}

impl DeliveryError {
    /// No later try can succeed: the address doesn't exist, the message was refused.
    pub fn permanent(source: impl Into<BoxError>) -> Self {
        Self { permanent: true, source: source.into(), reason: None }
    }

    /// A later try may succeed.
    pub fn temporary(source: impl Into<BoxError>) -> Self {
        Self { permanent: false, source: source.into(), reason: None }
    }

    /// Says in a few words what the log may say: a reply code, a kind of failure; no contact, no secret.
    pub fn with_reason(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// What the log may say.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Whether no later try can succeed.
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }

    /// What went wrong. It may hold the contact: not for logs that everyone reads.
    pub fn source(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self.source.as_ref()
    }
}

/// Without the source, which may hold the contact (row G02).
impl fmt::Debug for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryError")
            .field("permanent", &self.permanent)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.permanent {
            true => "the notice can't be delivered",
            false => "the notice was not delivered",
        })
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for DeliveryError {
    fn from(source: E) -> Self {
        Self::temporary(source)
    }
}
