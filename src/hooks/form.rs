//! What a sign-up form held beside e-mail and password.

use std::fmt;

/// The app's own fields of a sign-up form, as they were sent: see
/// [`sign_up_field`](crate::MfaBuilder::sign_up_field).
#[derive(Clone, Default)]
pub struct Form(Vec<(String, String)>);

impl Form {
    pub(crate) fn new(fields: Vec<(String, String)>) -> Self {
        Self(fields)
    }

    /// What was sent in a field; `None` if it was left out.
    pub fn get(&self, id: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == id).map(|(_, value)| value.as_str())
    }
}

/// The names alone: what people write is personal data (row G02).
impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}
