//! Places where a test makes the crate fail, wait or die (row Z03). Only builds for tests have them; in any
//! other one they leave nothing behind, no code and no name.
//!
//! What happens at a place is said by the crate `fail`, in `FAILPOINTS` or by its API, under the place's name
//! with `fp:` before it: `return` fails it (`UNAVAILABLE`), `sleep(ms)` delays, `panic` panics, `pause` waits until
//! it is told otherwise, and a callback may do anything, such as abort the process.

#[cfg(any(test, feature = "test-hooks"))]
use super::error::Error;

/// A place by its name, as `spec/security.md` 18 has it. Fails the async function that it is in; with `blocking`
/// a plain one; with `if` only where that holds; with `=>` it ends the function with that value.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(any(test, feature = "test-hooks"))]
        $crate::base::failpoint::reach(concat!("fp:", $name)).await?;
    };
    ($name:literal if $holds:expr) => {
        #[cfg(any(test, feature = "test-hooks"))]
        if $holds {
            $crate::base::failpoint::reach(concat!("fp:", $name)).await?;
        }
    };
    (blocking $name:literal) => {
        #[cfg(any(test, feature = "test-hooks"))]
        $crate::base::failpoint::act(concat!("fp:", $name))?;
    };
    (blocking $name:literal => $value:expr) => {
        #[cfg(any(test, feature = "test-hooks"))]
        if $crate::base::failpoint::act(concat!("fp:", $name)).is_err() {
            return $value;
        }
    };
}
pub(crate) use failpoint;

/// Does what was said for a place, without holding up the runtime meanwhile.
#[cfg(any(test, feature = "test-hooks"))]
pub(crate) async fn reach(name: &'static str) -> Result<(), Error> {
    if !fail::list().iter().any(|(set, _)| set == name) {
        return Ok(());
    }
    match tokio::task::spawn_blocking(move || act(name)).await {
        Ok(outcome) => outcome,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::unavailable("the runtime ends")),
        },
    }
}

/// Does what was said for a place.
#[cfg(any(test, feature = "test-hooks"))]
pub(crate) fn act(name: &'static str) -> Result<(), Error> {
    fail::fail_point!(name, |_| Err(Error::unavailable("told to fail")));
    Ok(())
}
