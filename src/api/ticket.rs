//! What a page posts that was opened by a link.

use super::{call::Call, wire::BadInput};
use crate::model::ticket::Token;

/// The token of a link; `Ok(None)` if no ticket can have it.
pub(super) fn token(call: &Call<'_>) -> Result<Option<Token>, BadInput> {
    match call.body.text("method")? {
        Some("token") => Ok(Token::parse(call.body.required("token", "the token is missing")?)),
        _ => Err(BadInput("the method must be token")),
    }
}
