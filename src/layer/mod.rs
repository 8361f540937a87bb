//! The layer: verifies the session of a request, enforces the mount's validators, and hands the session on.

pub use self::{
    body::MfaBody,
    future::MfaFuture,
    layer::{MfaLayer, Protected},
    pages::{PageRedirect, PageRedirectFuture, PageRedirectService},
    service::MfaService,
    sign_in::Tokens,
    verifier::{Verifier, VerifierCounters},
};

use self::layer::Mount;
pub(crate) use self::verified::Verified;

pub(crate) mod arrival;
pub(crate) mod body;
pub(crate) mod contain;
pub(crate) mod cors;
mod future;
#[allow(clippy::module_inception, reason = "one file a role: layer, service, future, body")]
mod layer;
mod pages;
pub(crate) mod refuse;
mod service;
pub(crate) mod sign_in;
mod verified;
mod verifier;
