//! Floor 2: typed records over the store.

pub(crate) mod change;
pub(crate) mod epoch;
pub(crate) mod session;
pub(crate) mod user;
