//! Tests of the crate from outside, one binary.
#![allow(
    unreachable_pub,
    clippy::assertions_on_result_states,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that fails may panic, and its modules are one binary"
)]

mod bad_input;
mod codes;
#[cfg(all(unix, feature = "sqlite"))]
mod feed;
mod layer;
mod mount;
mod readiness;
mod refresh;
mod requirements;
mod roles;
mod seed;
mod support;
mod vectors;
