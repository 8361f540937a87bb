//! Tests of the crate from outside, one binary.

mod codes;
#[cfg(all(unix, feature = "sqlite"))]
mod feed;
mod refresh;
mod seed;
mod support;
mod vectors;
