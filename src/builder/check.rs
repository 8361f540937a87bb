//! What a configuration contradicts, told all at once.

use std::{collections::BTreeSet, time::Duration};

use super::MfaBuilder;
use crate::{
    base::ident::FactorId,
    claim::free_key,
    config::Config,
    factor::{Factors, otp::OtpSettings},
    policy::{AnyPolicy, FirstFactors, MfaPolicy as _, check_reachable},
};

impl MfaBuilder {
    /// The factors that the crate itself brings, as built and configured.
    pub(super) fn installed(&self) -> Vec<FactorId> {
        let mut installed = Vec::new();
        if cfg!(feature = "password") && self.own_users.is_none() {
            installed.push(FactorId::PASSWORD);
        }
        #[cfg(feature = "third-party")]
        if self.third_party.is_some() {
            installed.push(FactorId::THIRD_PARTY);
        }
        installed.extend(self.config.passwordless.factors());
        installed
    }

    /// What the policy demands, of what it says of itself, that nobody can complete (rows P10, P11).
    pub(super) fn unreachable(&self, factors: &Factors) -> Vec<String> {
        let app = self.config.first_factors.as_deref();
        let first = match self.own_users {
            Some(_) => FirstFactors::vouched(app, None),
            None => FirstFactors::new(&factors.first(), app, None),
        };
        let check = |policy: &AnyPolicy| check_reachable(policy, &factors.usable(), first.listed(), None);
        for warning in self.policy.declares(None).warnings() {
            #[cfg(feature = "tracing")]
            tracing::warn!("{warning}");
            #[cfg(not(feature = "tracing"))]
            let _ = warning;
        }
        #[cfg(feature = "tracing")]
        if let Some(Err(problems)) = self.shadow.as_ref().map(check) {
            tracing::warn!(%problems, "the shadow policy demands what can't be met");
        }
        check(&self.policy).err().map(|wrong| wrong.problems().to_vec()).unwrap_or_default()
    }

    /// One sentence for each contradiction.
    pub(super) fn problems(&self, installed: &[FactorId]) -> Vec<String> {
        let config = &self.config;
        let mut problems = config.cookies.check(config.csrf, &config.app.api, &config.app.websites);
        problems.extend(otp_settings(config).problems());
        problems.extend(config.send_limits.problems());
        #[cfg(feature = "third-party")]
        if let Some(settings) = &self.third_party {
            problems.extend(crate::factor::third_party::problems(&settings.providers));
        }
        problems.extend(self.account_problems());
        let own_alone = |listed: &Vec<FactorId>| !listed.iter().any(FactorId::is_built_in);
        if self.own_users.is_none() && config.first_factors.as_ref().is_some_and(own_alone) {
            #[cfg(feature = "tracing")]
            tracing::warn!(
                "only factors of the app's own may start a session: no route of the crate signs in"
            );
        }
        let mut ask = |fits: bool, problem: &str| {
            if !fits {
                problems.push(problem.to_owned());
            }
        };
        ask(
            tokio::runtime::Handle::try_current().is_ok(),
            "build() needs a tokio runtime for the background work: call it inside one",
        );
        ask(
            !config.passwordless.is_on() || self.delivery.is_some(),
            "one-time codes need a delivery: add .delivery(..) or .without_passwordless()",
        );
        ask(
            !config.reveal_accounts || !config.limits || self.peer.is_told(),
            "reveal_accounts needs to know who asks, so that nobody asks often: add .peer(..)",
        );
        ask(self.peer.is_whole(), "trusted proxies need to know where a connection came from: add .peer(..)");
        let lives = &config.lifetimes;
        ask(lives.refresh_grace <= Duration::from_secs(300), "the refresh grace is 300 s at most");
        ask(
            lives.access_token >= Duration::from_secs(1) && lives.access_token <= lives.session,
            "an access token lives at least a second and at most as long as a session",
        );
        ask(lives.signing_key >= Duration::from_secs(600), "a signing key signs for at least 10 minutes");
        for claim in self.claims.iter().filter(|claim| free_key(claim.key()).is_err()) {
            ask(false, &format!("the claim key {} is the crate's own: choose another", claim.key()));
        }
        ask(config.max_sessions > 0, "a user may have at least one session");
        if let Some(listed) = &config.first_factors {
            ask(!listed.is_empty(), "the list of first factors is empty: leave it out, or name one");
            let once: BTreeSet<_> = listed.iter().collect();
            ask(once.len() == listed.len(), "a first factor is listed twice");
            let served = FirstFactors::new(installed, Some(listed), None);
            let served = |factor: &&FactorId| self.own_users.is_some() || served.accepts(factor);
            for factor in listed.iter().filter(|factor| !served(factor)) {
                ask(false, &format!("the first factor {factor} isn't installed"));
            }
            let custom =
                |factor: &&FactorId| !factor.is_built_in() && !config.custom_factors.contains(factor);
            for factor in listed.iter().filter(custom) {
                ask(
                    false,
                    &format!("nobody knows the first factor {factor}: add .custom_factor(..) if it is yours"),
                );
            }
        }
        problems
    }
}

/// What the configuration says of one-time codes.
pub(super) fn otp_settings(config: &Config) -> OtpSettings {
    OtpSettings {
        lifetime: config.lifetimes.code,
        max_attempts: config.max_wrong_codes,
        ..OtpSettings::default()
    }
}
