//! What the benches share: the services that are compared, requests for them, and how they are measured.
//!
//! All figures are of one request in process, without sockets.

use std::hint::black_box;

use axum::{Router, body::Body};
use futures_util::FutureExt as _;
use http::{Request, Response};
use tower::Service as _;

pub(crate) mod cases;
pub(crate) mod peers;
pub(crate) mod shop;

/// One case: a service, and the request that is sent to it again and again.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The case that it is compared with.
    pub(crate) base: &'static str,
    router: Router,
    before: Option<Box<dyn Fn()>>,
    request: Box<dyn Fn() -> Request<Body>>,
    status: u16,
}

impl Case {
    pub(crate) fn new(
        (name, base): (&'static str, &'static str),
        router: Router,
        status: u16,
        request: impl Fn() -> Request<Body> + 'static,
    ) -> Self {
        // What `axum::serve` does at its start: routes are made once, not at each request.
        let router = router.with_state(());
        Self { name, base, router, before: None, request: Box::new(request), status }
    }

    /// The same with something done before each request.
    pub(crate) fn after(mut self, before: impl Fn() + 'static) -> Self {
        self.before = Some(Box::new(before));
        self
    }

    pub(crate) fn requests(&self, count: usize) -> Vec<Request<Body>> {
        (0..count).map(|_| (self.request)()).collect()
    }

    /// Sends one request and looks at the answer.
    pub(crate) fn check(&mut self) {
        let response = send(&mut self.router, (self.request)());
        assert_eq!(response.status().as_u16(), self.status, "{}", self.name);
    }

    /// Callgrind counts what happens in here, and nothing else.
    #[inline(never)]
    pub(crate) fn measured(&mut self, requests: Vec<Request<Body>>) {
        for request in requests {
            if let Some(before) = &self.before {
                before();
            }
            black_box(send(&mut self.router, request));
        }
    }
}

/// Nothing that is compared here ever waits.
fn send(router: &mut Router, request: Request<Body>) -> Response<Body> {
    let answer = router.call(request).now_or_never();
    answer.expect("the service answers at once").expect("it never fails")
}

pub(crate) const BATCH: usize = 500;
