//! Values that must not be printed, compared carelessly or left in memory (rows G01, G08, G09).

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use super::hash;

/// A value that prints as `[redacted]`, is wiped when dropped, and has no `==`.
///
/// Reading it is a method whose name is easy to search for.
///
/// ```
/// use tower_mfa::ident::Secret;
/// let code = Secret::new("123456".to_owned());
/// assert_eq!(format!("{code:?}"), "[redacted]");
/// assert_eq!(code.expose(), "123456");
/// ```
#[derive(Clone)]
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes charge of a value.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself: keep it out of logs and answers.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize + AsRef<[u8]>> Secret<T> {
    /// Whether both are equal, in constant time.
    pub fn same(&self, other: &[u8]) -> bool {
        hash::same((*self.0).as_ref(), other)
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
