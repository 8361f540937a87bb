//! Floor 2: typed records over the store.

pub(crate) mod epoch;
pub(crate) mod user;
