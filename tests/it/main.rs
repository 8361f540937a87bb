//! Tests of the crate from outside, one binary.

mod bad_input;
mod codes;
#[cfg(all(unix, feature = "sqlite"))]
mod feed;
mod mount;
mod readiness;
mod refresh;
mod roles;
mod seed;
mod support;
mod vectors;
