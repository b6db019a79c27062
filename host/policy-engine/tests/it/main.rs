//! The engine against real components: bad ones in every way, and good ones in a chain.
//!
//! The components are built by `cargo xtask components --guests`, not by these tests.

mod chain;
mod faults;
mod limits;
mod loading;
mod locked;
mod lookups;
mod repeat;
mod support;
