//! Floor 3, sessions: tokens, keys, cookies, and the rules about them. Pure, but for [`keyring::Keys`]
//! and [`feed::Feed`], which hold what others told them.

pub(crate) mod cookies;
pub(crate) mod csrf;
pub(crate) mod feed;
pub(crate) mod keyring;
pub(crate) mod origin;
pub(crate) mod refresh;
pub(crate) mod token;
pub(crate) mod transport;
