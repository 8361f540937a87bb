//! Tests of the crate from outside, one binary.

mod codes;
#[cfg(all(unix, feature = "sqlite"))]
mod feed;
mod layer;
mod refresh;
mod seed;
mod support;
mod vectors;
