#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
// Some flows have the routes as their only callers; the full build is checked for dead code.
#![cfg_attr(not(all(feature = "api", feature = "password")), allow(dead_code, unused_imports))]

// Row Z03: failpoints can't get into a server by accident.
#[cfg(all(feature = "test-hooks", not(debug_assertions), not(feature = "i_know_this_is_a_test")))]
compile_error!("`test-hooks` is for tests: an optimised build needs `i_know_this_is_a_test` beside it");

#[cfg(feature = "api")]
pub mod api;
mod base;
mod builder;
pub mod claim;
pub mod config;
pub mod delivery;
mod engine;
#[cfg(feature = "axum")]
pub mod extract;
pub mod factor;
mod flow;
pub mod guard;
pub mod hooks;
pub mod layer;
mod model;
pub mod policy;
pub mod session;
pub mod store;

/// The map of the code, the defaults, the attacks, the changelog.
pub mod _docs {
    #[doc = include_str!("docs/architecture.md")]
    pub mod architecture {}
    #[doc = include_str!("docs/attacks.md")]
    pub mod attacks {}
    #[doc = include_str!("docs/changelog.md")]
    pub mod changelog {}
    #[doc = include_str!("docs/policies.md")]
    pub mod policies {}
    #[doc = include_str!("docs/defaults.md")]
    pub mod defaults {}
}

/// Users and their login methods, tenants, sessions, signing keys: the records a handler may see.
pub mod account {
    #[cfg(feature = "password")]
    pub use crate::engine::PasswordChange;
    #[cfg(feature = "phone")]
    pub use crate::engine::{Sends, StoppedCountry};
    pub use crate::{
        engine::{
            Counters, EmailChange, FactorsOf, KeyInfo, KeyState, Keys, MetadataOf, MountInfo, RolesOf,
            SessionInfo, Sessions, SessionsIn, ShadowCounts, Tenants, Users,
        },
        model::{
            tenant::{Tenant, TenantRule},
            user::{LoginKind, LoginMethod, ThirdPartyId, User},
        },
        policy::app::{AppUser, AppUsers, EmailOf},
    };
}

/// Identifiers, contacts, times and secrets.
pub mod ident {
    pub use crate::base::{
        contact::{Contact, Email, Phone},
        error::{BoxError, ErrorKind, ParseError},
        ident::{FactorId, LoginId, Permission, Role, SessionHandle, TenantId, UserId},
        payload::Payload,
        secret::Secret,
        time::{SystemClock, Timestamp},
    };
}

pub use base::{error::Error, ident::FactorId, time::Clock};
pub use builder::MfaBuilder;
pub use claim::{ClaimValidator, SessionClaim};
pub use engine::Mfa;
#[cfg(feature = "axum")]
pub use extract::SessionExtractor;
pub use guard::RequireFactors;
pub use layer::MfaLayer;
pub use policy::{MfaPolicy, PolicyContext, Requirement, Requirements};
pub use session::Session;
pub use store::Store;

/// Processes that fail or are killed at failpoints: only unit tests have those without another feature.
#[cfg(all(test, unix, feature = "sqlite", feature = "api", feature = "axum", feature = "password"))]
#[path = "../tests/crash/mod.rs"]
mod crash;
