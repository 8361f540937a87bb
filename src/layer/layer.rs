//! What a mount asks of sessions, said in methods.

use std::{
    fmt,
    panic::Location,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tower::{Layer, Service};

use super::{MfaService, Verifier};
use crate::{
    claim::{ClaimValidator, MfaSatisfied, SessionClaim, mfa, validator},
    config::{ConfigError, Stale},
    engine::{Mfa, MountInfo},
    policy::RequestFacts,
    session::{Kit, verify::Demand},
};

/// Verifies the session of each request and enforces claim validators.
///
/// A request without a good session is answered here (401, or 403 for a claim), and the inner service
/// isn't called. Layers run outside in: an inner mount can demand more than an outer one, never less, so
/// a looser route has a router of its own.
///
/// axum's `Router::layer` covers the routes and the fallback that are there when it is called, and none that
/// are added or merged in later. [`protect`](MfaLayer::protect) covers whatever the service answers; a handler
/// that takes a [`SessionExtractor`](crate::SessionExtractor) is safe either way: without the layer it is a 500,
/// never anonymous (rows M01, M02).
///
/// No decision is made from a path, but for the crate's own routes (row M06). Make none either: a check of the
/// path's beginning in front of a router or of `NormalizePath` sees `/x/../admin`, `//admin` or `/%61dmin` where
/// the router sees `/admin`. Let the router match, and put the layer behind it.
///
/// What it leaves for handlers is of a private type, so that nothing else vouches for a request (row M07):
///
/// ```compile_fail,E0603
/// fn plant(request: &mut http::Request<()>, forged: tower_mfa::layer::Verified) {
///     request.extensions_mut().insert(forged);
/// }
/// ```
#[derive(Clone)]
#[must_use]
pub struct MfaLayer {
    mount: Arc<Mount>,
}

/// Whose sessions a mount takes, and what it asks of them.
#[derive(Clone)]
pub(super) struct Mount {
    pub(super) kit: Arc<Kit>,
    /// `None`: the sessions are another issuer's.
    pub(super) mfa: Option<Mfa>,
    globals: Arc<[Arc<dyn ClaimValidator>]>,
    /// What was asked of it that it can't do: it lets nobody through.
    pub(super) problem: Option<&'static str>,
    pub(super) demand: Demand,
    /// Whether header tokens get the challenge of RFC 9470.
    pub(super) challenges: bool,
    at: &'static Location<'static>,
    listed: Listed,
}

/// Whether a mount is in the handle's list: a router may apply a layer anew for each request. A mount made from
/// another one isn't listed yet.
#[derive(Default)]
struct Listed(AtomicBool);

impl Clone for Listed {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl MfaLayer {
    /// A session is needed, and every global validator must hold.
    #[track_caller]
    pub fn required(mfa: Mfa) -> Self {
        let (kit, globals) = (Arc::clone(&mfa.desk.kit), Arc::clone(&mfa.desk.validators));
        Self::mount(kit, Some(mfa), globals, Location::caller())
    }

    /// Sessions that another server makes are verified by its public keys, with no store and no call to it at each
    /// request. Signature, expiry, the anti-CSRF proof and validators are judged as everywhere, the one for MFA among
    /// them; guards and step-up inside work.
    ///
    /// Nothing is made here. A claim that isn't in the token is refused rather than fetched; writing to the session is
    /// an error (`Invalid`); what the issuer revoked is refused when the access token has run out, within the hour by
    /// default; and a token whose policy is to be asked again is refused as one to refresh.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use tower_mfa::{FactorId, MfaLayer, RequireFactors, layer::Verifier};
    /// # #[cfg(feature = "http-client")]
    /// # fn main() -> Result<(), tower_mfa::config::ConfigError> {
    /// let issuer = Verifier::new("https://api.shop.example/auth")?;
    /// let app: Router = Router::new()
    ///     .route("/reports", get(|| async { "reports" }))
    ///     .route_layer(RequireFactors::one_of([FactorId::OTP_EMAIL]))
    ///     .layer(MfaLayer::verify_only(issuer).bearer_challenges());
    /// # let _ = app; Ok(()) }
    /// # #[cfg(not(feature = "http-client"))] fn main() {}
    /// ```
    #[track_caller]
    pub fn verify_only(issuer: Verifier) -> Self {
        let globals: Arc<[Arc<dyn ClaimValidator>]> =
            Arc::from([Arc::new(MfaSatisfied::new()) as Arc<dyn ClaimValidator>]);
        let layer = Self::mount(issuer.kit, None, globals, Location::caller());
        layer.demand(|demand| demand.foreign = true).among_usable()
    }

    fn mount(
        kit: Arc<Kit>,
        mfa: Option<Mfa>,
        globals: Arc<[Arc<dyn ClaimValidator>]>,
        at: &'static Location<'static>,
    ) -> Self {
        let demand = Demand { validators: Arc::clone(&globals), ..Demand::bare() };
        let (listed, problem) = (Listed::default(), None);
        Self { mount: Arc::new(Mount { kit, mfa, globals, problem, demand, challenges: false, at, listed }) }
    }

    /// What contradicts itself, before the first request: a mount that asks for what it can't do lets nobody through,
    /// and answers 500.
    ///
    /// # Errors
    /// If a mount that only verifies is to read the store, or to refuse by a change feed that it doesn't have.
    pub fn checked(self) -> Result<Self, ConfigError> {
        match self.mount.problem {
            None => Ok(self),
            Some(problem) => Err(ConfigError::one(problem)),
        }
    }

    fn needs_store(mut self, what: &'static str) -> Self {
        if self.mount.mfa.is_none() {
            #[cfg(feature = "tracing")]
            tracing::error!(at = %self.mount.at, "{what}");
            Arc::make_mut(&mut self.mount).problem = Some(what);
        }
        self
    }

    /// A session if there is one. One that is there must be good: an expired, forged or revoked one is
    /// refused, never taken for none (row M14).
    #[track_caller]
    pub fn optional(mfa: Mfa) -> Self {
        Self::required(mfa).demand(|demand| demand.optional = true)
    }

    /// Lets sessions pass that lack a factor: for pages where factors are completed.
    pub fn without_mfa(self) -> Self {
        self.without_id(mfa::KEY)
    }

    /// Drops the global validators of a claim.
    pub fn without<C: SessionClaim>(self) -> Self {
        self.without_id(C::KEY)
    }

    fn without_id(self, id: &str) -> Self {
        self.change(|all| all.retain(|validator| validator.id() != id))
    }

    /// One more validator.
    pub fn validate(self, validator: impl ClaimValidator) -> Self {
        self.change(|all| all.push(Arc::new(validator)))
    }

    /// Other validators than the global ones, made from them; their order is kept. Prefer the methods that
    /// name what they drop: global ones that are left out are logged as a warning (row P14), and
    /// [`Mfa::mounts`] lists them.
    pub fn validators(
        self,
        change: impl FnOnce(Vec<Arc<dyn ClaimValidator>>) -> Vec<Arc<dyn ClaimValidator>>,
    ) -> Self {
        let before = self.mount.dropped().len();
        let changed = self.change(|all| *all = change(std::mem::take(all)));
        let dropped = changed.mount.dropped();
        if dropped.len() > before {
            #[cfg(feature = "tracing")]
            tracing::warn!(at = %changed.mount.at, ?dropped, "a mount drops global claim validators");
        }
        changed
    }

    fn change(self, change: impl FnOnce(&mut Vec<Arc<dyn ClaimValidator>>)) -> Self {
        self.demand(|demand| {
            let mut all = demand.validators.to_vec();
            change(&mut all);
            demand.validators = all.into();
        })
        .among_usable()
    }

    /// Tells the validators what can be completed here, and the log what nobody can.
    fn among_usable(self) -> Self {
        let usable = &self.mount.kit.usable;
        let (validators, problems) = validator::among(&self.mount.demand.validators, usable);
        for problem in problems {
            #[cfg(feature = "tracing")]
            tracing::error!(at = %self.mount.at, %problem, "a mount demands what nobody can complete");
            #[cfg(not(feature = "tracing"))]
            let _ = problem;
        }
        self.demand(|demand| demand.validators = validators.into())
    }

    fn demand(mut self, change: impl FnOnce(&mut Demand)) -> Self {
        let mount = Arc::make_mut(&mut self.mount);
        mount.listed = Listed::default();
        change(&mut mount.demand);
        self
    }

    /// Reads the session's row at each request: revocation is exact, at the price of a store call.
    pub fn check_store(self) -> Self {
        self.needs_store("a mount that only verifies has no store to check")
            .demand(|demand| demand.check_store = true)
    }

    /// What to do while the change feed is cut off. Default: go on, bounded by the token's life: what was
    /// revoked is refused at the latest [`Lifetimes::access_token`](crate::config::Lifetimes::access_token)
    /// after that. How often that happened is in [`Mfa::counters`].
    pub fn when_stale(self, stale: Stale) -> Self {
        self.needs_store("a mount that only verifies has no change feed")
            .demand(|demand| demand.stale = stale)
    }

    /// Asks for the anti-CSRF proof on safe methods as well.
    pub fn csrf_always(self) -> Self {
        self.demand(|demand| demand.csrf_always = true)
    }

    /// For API clients: a session that came as a header token and lacks a factor gets 401 with the challenge
    /// of RFC 9470, where others get 403. The guards and mounts inside do the same. Without a token the challenge is
    /// `Bearer realm="session"`, with a bad one `Bearer error="invalid_token"` (RFC 6750).
    ///
    /// ```text
    /// WWW-Authenticate: Bearer error="insufficient_user_authentication", error_description="…",
    ///     acr_values="urn:tower-mfa:factor:totp urn:tower-mfa:factor:webauthn", max_age="300"
    /// ```
    ///
    /// `acr_values` names what helps: one value for each factor that is a next step, or the level where a level
    /// is asked for ([`Aal::acr`](crate::claim::Aal::acr)). The body is that of the 403. It stays a 403 where no
    /// authentication would help: a claim of another kind is wrong, or what is asked for can't be completed.
    ///
    /// Not for browsers: their SDKs take any 401 for "refresh", and what comes by a cookie never gets this one.
    pub fn bearer_challenges(mut self) -> Self {
        Arc::make_mut(&mut self.mount).challenges = true;
        self
    }

    /// Covers a whole service, fallback and all: what comes back takes no more routes (row M02).
    ///
    /// ```compile_fail,E0599
    /// fn later(mfa: tower_mfa::Mfa, service: axum::Router) {
    ///     let protected = tower_mfa::MfaLayer::required(mfa).protect(service);
    ///     protected.route("/later", axum::routing::get(|| async {}));
    /// }
    /// ```
    /// ```
    /// fn beside(mfa: tower_mfa::Mfa, service: axum::Router) -> axum::Router {
    ///     let protected = tower_mfa::MfaLayer::required(mfa).protect(service);
    ///     axum::Router::new().route("/open", axum::routing::get(|| async {})).fallback_service(protected)
    /// }
    /// ```
    pub fn protect<S>(self, service: S) -> Protected<S> {
        Protected(self.layer(service))
    }
}

impl Mount {
    /// Who sends a request, for policies. A mount that only verifies asks none.
    pub(super) fn facts<B>(&self, request: &http::Request<B>) -> RequestFacts {
        let facts = |mfa: &Mfa| mfa.desk.peer.facts(request.extensions(), request.headers());
        self.mfa.as_ref().map(facts).unwrap_or_default()
    }

    /// The global validators that it does without.
    fn dropped(&self) -> Vec<String> {
        let kept = |global: &Arc<dyn ClaimValidator>| {
            let same =
                |one: &Arc<dyn ClaimValidator>| std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(global));
            self.demand.validators.iter().any(same)
        };
        let global = self.globals.iter();
        global.filter(|global| !kept(global)).map(|global| global.id().to_owned()).collect()
    }

    fn info(&self) -> MountInfo {
        let Demand { optional, check_store, validators, .. } = &self.demand;
        MountInfo {
            at: self.at,
            optional: *optional,
            check_store: *check_store,
            validators: validators.iter().map(|validator| validator.id().to_owned()).collect(),
            dropped: self.dropped(),
        }
    }
}

impl<S> Layer<S> for MfaLayer {
    type Service = MfaService<S>;

    fn layer(&self, inner: S) -> MfaService<S> {
        if !self.mount.listed.0.load(Ordering::Relaxed) {
            if let Some(mfa) = &self.mount.mfa {
                mfa.mounts.add(self.mount.info());
            }
            self.mount.listed.0.store(true, Ordering::Relaxed);
        }
        MfaService::new(Arc::clone(&self.mount), inner)
    }
}

impl fmt::Debug for MfaLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let demand = &self.mount.demand;
        let ids: Vec<&str> = demand.validators.iter().map(|validator| validator.id()).collect();
        f.debug_struct("MfaLayer").field("optional", &demand.optional).field("validators", &ids).finish()
    }
}

/// A service behind [`MfaLayer::protect`].
#[derive(Clone, Debug)]
pub struct Protected<S>(MfaService<S>);

impl<S, R> Service<R> for Protected<S>
where
    MfaService<S>: Service<R>,
{
    type Response = <MfaService<S> as Service<R>>::Response;
    type Error = <MfaService<S> as Service<R>>::Error;
    type Future = <MfaService<S> as Service<R>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        self.0.call(request)
    }
}
