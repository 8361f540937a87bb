//! The crate's own failure, and what went wrong while building.

use std::{error::Error as StdError, fmt};

/// Any cause, boxed: what callbacks of an app may return.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Something failed: a store, a policy, a claim, a delivery, or the crate itself.
///
/// Opaque on purpose: read [`Error::kind`] to decide, [`StdError::source`] to log. A message never
/// holds a secret or text that a caller of the API supplied.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: &'static str,
    source: Option<BoxError>,
}

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Something the crate needs did not answer, or was too busy: try again later (503).
    Unavailable,
    /// A fault of the crate, of its configuration or of a callback (500).
    Internal,
    /// The session is over: its row is gone, or its user or tenant is (401).
    SessionEnded,
    /// The session goes on, but this access token is too old for what was asked (401, refresh).
    StaleToken,
    /// The caller asked for something that is never allowed, such as writing a protected claim.
    Invalid,
    /// What the call names does not exist.
    NotFound,
    /// A factor must be proven again first: none was within the last five minutes (403).
    StepUp,
    /// Not for this request or this user: another site sent it, or the user is disabled (403).
    Refused,
}

const TAKEN: &str = "a new record's name is taken";

impl Error {
    pub(crate) const fn new(kind: ErrorKind, message: &'static str) -> Self {
        Self { kind, message, source: None }
    }

    pub(crate) fn with(kind: ErrorKind, message: &'static str, source: impl Into<BoxError>) -> Self {
        Self { kind, message, source: Some(source.into()) }
    }

    pub(crate) const fn unavailable(message: &'static str) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    pub(crate) const fn internal(message: &'static str) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// A record of the name that a new one was to have is there already.
    pub(crate) const fn taken() -> Self {
        Self::internal(TAKEN)
    }

    /// Whether another name may help (row S04).
    pub(crate) fn is_taken(&self) -> bool {
        self.message == TAKEN
    }

    pub(crate) const fn invalid(message: &'static str) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// A text that is not what its type asks for: an identifier, an address, a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}")]
pub struct ParseError {
    what: &'static str,
}

impl ParseError {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what }
    }
}

/// Everything that contradicts itself in a configuration, reported at once by `build()`.
#[derive(Debug)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    pub(crate) fn one(problem: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()] }
    }

    pub(crate) fn all(problems: Vec<String>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }

    /// One sentence a problem, each saying what to change.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration can't be served: ")?;
        f.write_str(&self.problems.join("; "))
    }
}

impl StdError for ConfigError {}
