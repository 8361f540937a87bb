//! What is asked of the addresses that people register with.

/// Whether addresses are proved by a link. An address to which a code by e-mail went and was entered is proved by that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EmailVerification {
    /// There are no such links, no routes for them, and no claim.
    #[default]
    Off,
    /// Links are sent when they are asked for, and sessions carry the claim
    /// [`EmailVerified`](crate::claim::EmailVerified): what it is good for is the app's to say.
    Optional,
    /// Besides, every mount asks for [`EmailIsVerified`](crate::claim::EmailIsVerified), before the factors: see
    /// [`MfaLayer::without`](crate::MfaLayer::without) for those that don't.
    Required,
}
