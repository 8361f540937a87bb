//! Messages by SMS that are sent no more.

use super::Mfa;
use crate::base::{error::Error, time::Timestamp};

/// What is sent by SMS: see [`Mfa::sends`].
#[derive(Debug)]
pub struct Sends<'a> {
    pub(super) mfa: &'a Mfa,
}

/// A country to which nothing is sent by SMS now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoppedCountry {
    /// Two capital letters (ISO 3166-1); for numbers of no country, `+` and their first three digits.
    pub country: String,
    /// When it ends by itself.
    pub until: Timestamp,
}

impl Sends<'_> {
    /// The countries to which nothing is sent now, because codes sent there weren't used: see
    /// [`SendLimits::least_used`](crate::config::SendLimits).
    ///
    /// # Errors
    /// If the store failed.
    pub async fn stopped(&self) -> Result<Vec<StoppedCountry>, Error> {
        let stopped = self.mfa.desk.stopped_countries().await?;
        Ok(stopped.into_iter().map(|(country, until)| StoppedCountry { country, until }).collect())
    }

    /// Sends to a country again before its time, in all processes; what was sent and used is counted anew. Whether
    /// it had stopped.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn resume(&self, country: &str) -> Result<bool, Error> {
        let country = country.to_owned();
        self.mfa.change(|desk| async move { Ok((desk.resume_sending(&country).await?, Vec::new())) }).await
    }
}
