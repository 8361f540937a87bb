//! CORS for the configured origins: outermost, so that refusals are readable too (rows X09, X11).

use http::{HeaderName, HeaderValue, Method, Request, header};
use tower_http::cors::{AllowCredentials, AllowOrigin, CorsLayer};

use crate::{
    engine::Mfa,
    session::{
        Kit,
        transport::{ANTI_CSRF, AUTH_MODE, FRONT, RID, ST_ACCESS, ST_REFRESH},
    },
};

const SENT: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    RID,
    HeaderName::from_static("fdi-version"),
    ANTI_CSRF,
    AUTH_MODE,
];
const EXPOSED: [HeaderName; 4] = [FRONT, ANTI_CSRF, ST_ACCESS, ST_REFRESH];

impl Mfa {
    /// A CORS layer for the configured websites, with credentials. Mount it outermost: browsers don't let a
    /// page read a refusal without its headers.
    ///
    /// It answers the origins of [`AppInfo`](crate::config::AppInfo) and no others. There is no way to ask
    /// for any origin, or for whichever asks: neither is an origin.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use tower_mfa::{Mfa, MfaLayer, api::ApiLayer, config::{AppInfo, Secrets}, store::MemoryStore};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let shop = AppInfo::new("Shop", "https://api.shop.test", "https://shop.test")?
    ///     .also_website("https://admin.shop.test")?;
    /// # let mfa = Mfa::builder(shop, Secrets::random()?, MemoryStore::new()).without_passwordless().build()?;
    /// let app: Router = Router::new()
    ///     .route("/orders", get(|| async { "orders" }))
    ///     .layer(MfaLayer::required(mfa.clone()))
    ///     .layer(ApiLayer::new(mfa.clone()))
    ///     .layer(mfa.cors());
    /// # let _ = app;
    /// assert!(AppInfo::new("Shop", "https://api.shop.test", "*").is_err());
    /// # Ok(()) }
    /// ```
    pub fn cors(&self) -> CorsLayer {
        self.cors_with([])
    }

    /// The same, for pages that send further headers to the app's own routes.
    pub fn cors_with(&self, headers: impl IntoIterator<Item = HeaderName>) -> CorsLayer {
        let websites = &self.desk.kit.config.app.websites;
        let origins = websites.iter().filter_map(|origin| HeaderValue::from_str(origin.as_str()).ok());
        let origins: Vec<HeaderValue> = origins.collect();
        let listed = origins.clone();
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            // Said to nobody else: the public keys are for any origin, and never with credentials (row X09).
            .allow_credentials(AllowCredentials::predicate(move |origin, _| listed.contains(origin)))
            .allow_methods([
                Method::GET,
                Method::POST,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
                Method::OPTIONS,
            ])
            .allow_headers(SENT.into_iter().chain(headers).collect::<Vec<_>>())
            .expose_headers(EXPOSED)
    }
}

pub(super) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Warns, in debug builds, that the layers are in the wrong order (row X11): CORS answers preflights itself,
/// so one that comes this far says that refusals leave without its headers.
pub(crate) fn check_order<B>(kit: &Kit, request: &Request<B>) {
    #[cfg(all(debug_assertions, feature = "tracing"))]
    {
        let app = &kit.config.app;
        let asks = request.headers().get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        let theirs = |origin: &str| app.websites.iter().any(|website| website.as_str() == origin);
        if is_preflight(request) && asks.is_some_and(|origin| theirs(origin) && origin != app.api.as_str()) {
            tracing::warn!(
                "a preflight got past CORS: mount mfa.cors() outermost, or pages can't read refusals"
            );
        }
    }
    #[cfg(not(all(debug_assertions, feature = "tracing")))]
    let _ = (kit, request);
}
