//! Who else says who somebody is.

use super::MfaBuilder;
use crate::factor::ThirdParty;

impl MfaBuilder {
    /// Lets people sign in by a third party. Default: nobody may.
    pub fn third_party(mut self, settings: ThirdParty) -> Self {
        self.third_party = Some(settings);
        self
    }
}
