//! What an app's synchronous callbacks do inside of a request: one that panics costs that request alone (row P03).

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
};

use futures_util::FutureExt as _;

use super::refuse::{self, Answer};
use crate::base::error::Error;

/// Runs what calls back into the app. Nothing that it could leave half done outlives it: what was being judged
/// is dropped with the request.
#[inline]
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| panicked())
}

/// The same for what takes longer.
pub(super) async fn contained_async<T>(
    work: impl Future<Output = Result<T, Box<Answer>>>,
) -> Result<T, Box<Answer>> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(refuse::failed(&panicked()).into()))
}

fn panicked() -> Error {
    Error::internal("a callback of the app panicked")
}
