//! Tests of the crate from outside, one binary.

mod seed;
mod support;
mod vectors;
