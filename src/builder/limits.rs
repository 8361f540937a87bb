//! How often and how many.

use super::MfaBuilder;
use crate::config::SendLimits;

impl MfaBuilder {
    /// How many wrong codes end a flow. Default 5.
    pub fn max_wrong_codes(mut self, most: u32) -> Self {
        self.config.max_wrong_codes = most;
        self
    }

    /// How many messages may be sent: to whom, by whom, from where.
    pub fn send_limits(mut self, limits: SendLimits) -> Self {
        self.config.send_limits = limits;
        self
    }

    /// Lifts the quotas of sends and sign-ins, never the budgets of wrong codes: for load tests. With them goes all
    /// that stands against SMS pumping but the list of countries, so never where messages cost money.
    pub fn insecure_without_quotas(mut self) -> Self {
        self.config.limits = false;
        self
    }

    /// How many sessions a user may have; the oldest ends for a new one. Default 100.
    pub fn max_sessions(mut self, most: usize) -> Self {
        self.config.max_sessions = most;
        self
    }
}
