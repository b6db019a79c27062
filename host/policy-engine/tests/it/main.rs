//! The engine against real components: bad ones in every way, and good ones in a chain.
//!
//! The components are built by `cargo xtask components --guests`, not by these tests.

#![expect(clippy::expect_used, clippy::panic, reason = "in a test, a failed expectation is the message")]

mod chain;
mod chain_limits;
mod faults;
mod hostile;
mod limits;
mod loading;
mod locked;
mod lookups;
mod repeat;
mod support;
