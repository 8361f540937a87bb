//! tower-mfa
#![forbid(unsafe_code)]
mod base;
pub mod store;
/// ids
pub mod ident {
    pub use crate::base::{
        error::ParseError,
        ident::*,
        payload::Payload,
        secret::Secret,
        time::{SystemClock, Timestamp},
    };
}
pub use base::{error::Error, time::Clock};
