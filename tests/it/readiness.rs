//! Rows M08 and M09: the very service that was polled ready is called, on every path.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use axum::body::Body;
use http::{Method, Request, Response};
use tower::{Layer as _, Service, ServiceExt as _, limit::ConcurrencyLimitLayer};
use tower_mfa::{FactorId, MfaLayer, RequireFactors, api::ApiLayer};

use crate::support::{Mode, TestApp};

/// Panics when called without having been polled ready; a clone is not ready.
#[derive(Debug, Default)]
pub struct Strict {
    ready: bool,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { ready: false }
    }
}

impl Service<Request<Body>> for Strict {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<Body>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been polled ready");
        ready(Ok(Response::new(Body::empty())))
    }
}

#[tokio::test]
async fn sec_m08_the_ready_service_is_called_on_every_path() {
    let app = TestApp::new().await;
    let mut alice = app.browser(Mode::Header);
    alice.sign_up("alice@shop.example").await.ok();
    let mounts = [
        MfaLayer::required(app.mfa.clone()),
        MfaLayer::required(app.mfa.clone()).check_store(),
        MfaLayer::optional(app.mfa.clone()),
    ];
    for mount in mounts {
        let limited = ConcurrencyLimitLayer::new(1).layer(Strict::default());
        let mut service = ApiLayer::new(app.mfa.clone()).layer(mount.layer(limited));
        for _ in 0..3 {
            let request = alice.request(Method::GET, "/x", None);
            let response = service.ready().await.unwrap().call(request).await.unwrap();
            assert_eq!(response.status(), 200);
            let nobody = Request::get("/x").body(Body::empty()).unwrap();
            service.ready().await.unwrap().call(nobody).await.unwrap();
        }
    }
    let mut guarded = MfaLayer::required(app.mfa.clone())
        .layer(RequireFactors::one_of([FactorId::PASSWORD]).layer(Strict::default()));
    for _ in 0..2 {
        let request = alice.request(Method::GET, "/x", None);
        assert_eq!(guarded.ready().await.unwrap().call(request).await.unwrap().status(), 200);
    }
}
