//! What a verified request costs in allocations, counted: `benches/` prints the same with time and instructions.

use axum::{Router, body::Body, routing::get};
use futures_util::FutureExt as _;
use http::{Method, Request};
use tower::Service;
use tower_mfa::{MfaBuilder, MfaLayer};

use crate::{
    spy::ALICE,
    support::{Browser, Mode, TestApp},
};

/// axum's own for any layer that puts something into a request and wraps the body, as long as nobody called
/// `with_state`, which saves two.
const AXUMS_OWN: u64 = 6;
/// The most that checking a token's signature and reading its claims may add, axum's own included.
const MOST_COLD: u64 = 22;

fn orders() -> Router {
    Router::new().route("/orders", get(|| async { "no orders yet" }))
}

/// Allocations of one request, once everything is warm.
fn count(mut router: Router, request: impl Fn() -> Request<Body>) -> u64 {
    let mut send = |request: Request<Body>| {
        let answer = Service::<Request<Body>>::call(&mut router, request).now_or_never();
        assert_eq!(answer.expect("it answers at once").unwrap().status().as_u16(), 200);
    };
    (0..3).for_each(|_| send(request()));
    let next = request();
    allocation_counter::measure(|| send(next)).count_total
}

async fn added(mode: Mode, change: impl FnOnce(MfaBuilder) -> MfaBuilder) -> u64 {
    let app = TestApp::with(change).await;
    let mut alice: Browser = app.browser(mode);
    alice.sign_up(ALICE).await.ok();
    let request = || alice.request(Method::GET, "/orders", None);
    let layered = count(orders().layer(MfaLayer::required(app.mfa.clone())), request);
    layered - count(orders(), request)
}

#[tokio::test]
async fn a_kept_token_allocates_nothing_of_ours() {
    for mode in [Mode::Cookie, Mode::Header] {
        assert_eq!(added(mode, |builder| builder).await, AXUMS_OWN, "{mode:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_checked_allocates_a_known_few() {
    for mode in [Mode::Cookie, Mode::Header] {
        let added = added(mode, MfaBuilder::without_token_cache).await;
        assert!(added <= MOST_COLD, "{mode:?} {added}");
    }
}
