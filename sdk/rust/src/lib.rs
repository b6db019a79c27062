#![doc = include_str!("../README.md")]
//!
//! # Modules, in the order in which a component meets them
//!
//! - [`policy`]: the traits an author implements, one per hook.
//! - [`export`]: the macros that turn an implementation into a component, and the state kept between `configure` and
//!   the hook.
//! - [`settings`]: checks a settings document against the policy's JSON Schema, listing every mistake.
//! - [`types`] and the hook modules [`tone`], [`filter`], [`escalation`]: the contract's records, one shared set.
//! - [`log`] and [`knowledge`]: the host's imports.
//! - [`text`]: folding, words, phrases, links and languages, built for a fresh instance per call.
//! - [`testing`]: builders for turns and dossiers, for unit tests on the author's own machine.

pub mod bindings;
pub mod export;
pub mod knowledge;
pub mod log;
pub mod policy;
pub mod settings;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
pub mod text;

/// The records that more than one hook uses (`types.wit`).
pub mod types {
    pub use crate::bindings::host::frontdesk::policy::types::*;
}

/// The records of the tone hook (`hooks.wit`).
pub mod tone {
    pub use crate::bindings::tone::exports::frontdesk::policy::tone_hook::{Example, Instruction, Plan};
}

/// The records of the filter hook (`hooks.wit`).
pub mod filter {
    pub use crate::bindings::filter::exports::frontdesk::policy::filter_hook::{
        Blocked, Draft, Outcome, Rewritten, Verdict,
    };
}

/// The records of the escalation hook (`hooks.wit`).
pub mod escalation {
    pub use crate::bindings::escalation::exports::frontdesk::policy::escalation_hook::{
        Dossier, Evidence, FilterOutcome, Ticket, Verdict,
    };
}

pub use policy::{Classifier, Description, Escalation, Filter, Policy, SettingError, Tone};

/// What a policy's file usually imports.
pub mod prelude {
    pub use crate::log;
    pub use crate::policy::{Classifier, Description, Escalation, Filter, Policy, SettingError, Tone};
    pub use crate::types::*;
}
