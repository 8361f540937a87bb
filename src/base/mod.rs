//! Floor 0: the words everything else is written in. Knows no store, no user record, no HTTP but for one seam.

pub(crate) mod contact;
pub(crate) mod error;
pub(crate) mod hash;
pub(crate) mod http_client;
pub(crate) mod ident;
pub(crate) mod json;
pub(crate) mod payload;
pub(crate) mod random;
pub(crate) mod secret;
pub(crate) mod task;
pub(crate) mod time;
