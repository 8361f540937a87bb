//! The claims that come with the crate, beside `st-mfa`.

use super::{ClaimContext, ClaimError, SessionClaim};

/// `st-role`: the user's roles in the session's tenant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Roles;

impl SessionClaim for Roles {
    const KEY: &'static str = "st-role";
    type Value = Vec<String>;

    async fn fetch(&self, ctx: &ClaimContext<'_>) -> Result<Option<Vec<String>>, ClaimError> {
        Ok(Some(ctx.roles().await?.iter().map(ToString::to_string).collect()))
    }
}

/// `st-perm`: what the user's roles in the session's tenant allow. A validator asks for one:
/// `Includes::new(Permissions, "orders:write")`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Permissions;

impl SessionClaim for Permissions {
    const KEY: &'static str = "st-perm";
    type Value = Vec<String>;

    async fn fetch(&self, ctx: &ClaimContext<'_>) -> Result<Option<Vec<String>>, ClaimError> {
        Ok(Some(ctx.permissions().await?.iter().map(ToString::to_string).collect()))
    }
}

/// `st-ev`: whether the e-mail of the session's login method was proved; true if it has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmailVerified;

impl SessionClaim for EmailVerified {
    const KEY: &'static str = "st-ev";
    type Value = bool;

    async fn fetch(&self, ctx: &ClaimContext<'_>) -> Result<Option<bool>, ClaimError> {
        let user = ctx.user().await?;
        Ok(user.login(&ctx.session().login).map(|login| login.email.is_none() || login.verified))
    }
}
