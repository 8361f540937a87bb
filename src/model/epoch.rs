//! Numbered records for the app, a tenant, a user: what tokens are measured against (design, part 5, last life).

/// The numbers that a token carries: lower than *revoked* is dead, lower than *judge anew* is asked again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epochs {
    pub(crate) app: u64,
    pub(crate) tenant: u64,
    pub(crate) user: u64,
    pub(crate) session: u64,
}
