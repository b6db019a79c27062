//! `policyctl` as people run it: the program, with real components, chains, and a host that answers.
//!
//! The components are built by `cargo xtask components --guests`, not by these tests; only the templates are.

mod chains;
mod components;
mod remote;
mod replay;
mod support;
mod templates;
