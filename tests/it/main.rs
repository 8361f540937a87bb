//! Tests of the crate from outside, one binary.
#![allow(
    unreachable_pub,
    clippy::assertions_on_result_states,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that fails may panic, and its modules are one binary"
)]

mod answers;
mod audit;
mod bad_input;
mod caches;
mod changes;
mod code_bindings;
mod code_values;
mod codes;
mod cookies;
mod cors;
mod cost;
mod credentials;
mod crowds;
mod csrf;
mod demands;
#[cfg(all(feature = "third-party", feature = "http-client"))]
mod disabled;
mod edges;
mod elevation;
mod examples;
mod exists;
mod faults;
#[cfg(all(unix, feature = "sqlite"))]
mod feed;
mod forge;
mod guesses;
#[cfg(all(feature = "third-party", feature = "http-client"))]
mod hijack;
mod holders;
mod hooks;
#[cfg(all(feature = "third-party", feature = "http-client"))]
mod issuers;
mod keys;
mod later;
mod layer;
mod leaving;
mod legacy;
#[cfg(all(feature = "third-party", feature = "http-client"))]
mod linking;
mod links;
#[cfg(feature = "smtp")]
mod mail;
mod mixup;
mod mount;
mod mounting;
#[cfg(feature = "sqlite")]
mod news;
#[cfg(feature = "third-party")]
mod own_providers;
mod own_sessions;
mod own_users;
mod pages;
mod phones;
#[cfg(feature = "sqlite")]
mod processes;
mod quotas;
mod races;
mod readiness;
mod refresh;
mod requirements;
mod resets;
mod roles;
mod rotation;
mod routes;
mod schedules;
mod seed;
mod seen;
mod sessions;
#[cfg(feature = "http-client")]
mod sms;
mod spy;
mod step_up;
mod support;
mod tenant_rules;
mod tenants;
mod theft;
#[cfg(all(feature = "third-party", feature = "http-client"))]
mod third_party;
mod tokens;
#[cfg(feature = "sqlite")]
mod tolls;
mod transfer;
mod vectors;
mod verdicts;
mod verification;
#[cfg(feature = "http-client")]
mod verifier;
mod volatility;
#[cfg(all(feature = "third-party", feature = "http-client"))]
mod wire;
