//! `policyctl` as people run it: the program, with real components, chains, and a host that answers.
//!
//! The components are built by `cargo xtask components --guests`, not by these tests; only the templates are.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test, a failed expectation is the message"
)]

mod chains;
mod components;
mod registry;
mod remote;
mod replay;
mod support;
mod templates;
