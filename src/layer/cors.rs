//! CORS for the configured origins: outermost, so that refusals are readable too (rows X09, X11).

use http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::engine::Mfa;

const SENT: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    HeaderName::from_static("rid"),
    HeaderName::from_static("fdi-version"),
    HeaderName::from_static("anti-csrf"),
    HeaderName::from_static("st-auth-mode"),
];
const EXPOSED: [HeaderName; 4] = [
    HeaderName::from_static("front-token"),
    HeaderName::from_static("anti-csrf"),
    HeaderName::from_static("st-access-token"),
    HeaderName::from_static("st-refresh-token"),
];

impl Mfa {
    /// A CORS layer for the configured websites, with credentials. Mount it outermost.
    pub fn cors(&self) -> CorsLayer {
        self.cors_with([])
    }

    /// The same, for pages that send further headers to the app's own routes.
    pub fn cors_with(&self, headers: impl IntoIterator<Item = HeaderName>) -> CorsLayer {
        let websites = &self.desk.kit.config.app.websites;
        let origins = websites.iter().filter_map(|origin| HeaderValue::from_str(origin.as_str()).ok());
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_credentials(true)
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
