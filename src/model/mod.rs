//! Floor 2: typed records over the store.

pub(crate) mod code;
pub(crate) mod epoch;
pub(crate) mod limit;
pub(crate) mod queue;
pub(crate) mod user;
