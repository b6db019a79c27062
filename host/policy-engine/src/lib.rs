//! Runs policies: WebAssembly components that judge the steps of a turn.
//!
//! A policy is loaded once and called on a fresh instance every time, within limits, without any access to the world, so
//! that the same call gives the same bytes on every machine. This crate does no I/O, reads no clock but to measure how
//! long something took, and knows nothing of Messenger, databases or queues; server, command line and tests share it, so
//! that what passes in one passes in all.
//!
//! In the order in which a policy meets them:
//! - [`chain`]: `chain.toml`, and the files it asks for; [`oci`]: names of components in a registry.
//! - [`revision`]: a chain that was loaded as a whole, named by its content.
//! - [`engine`]: the runtime, its pool of instances, its clock tick.
//! - [`load`]: from bytes to a policy, or a refusal that says what to do.
//! - [`policy`]: a loaded policy and its calls.
//! - [`lookup`]: what a policy may ask the host for.
//! - [`fault`]: what comes back.
//! - [`assembly`]: what a turn makes of its verdicts, from the plan to the end.
//! - [`replay`]: a recorded turn, judged again by another revision.
//! - [`cases`]: turns written by hand, with what must come of them.
//! - [`gate`]: what must hold before a revision serves; [`rollout`]: how it comes into service.
//! - [`compare`]: how far two texts are apart.
//! - [`tripwire`]: when a revision that judges real turns is taken out by itself.
//! - [`limits`], [`hook`], [`types`]: the vocabulary.

pub mod assembly;
pub mod cases;
pub mod chain;
pub mod compare;
pub mod engine;
pub mod fault;
mod function_cache;
pub mod gate;
pub mod hook;
pub mod limits;
pub mod load;
pub mod lookup;
pub mod oci;
pub mod policy;
pub mod replay;
pub mod revision;
pub mod rollout;
pub mod tripwire;
pub mod types;

#[doc(hidden)]
pub mod bench_support;
mod blame;
mod block_on;
mod host;
mod sample;
mod schema;
mod snapshot;
mod state;
mod validate;

pub use assembly::{ConcludedTicket, Conclusion};
pub use chain::{Bundle, ChainError, ChainSpec, ComponentRef, FileKind, PolicySpec, SettingsSource, WantedFile};
pub use compare::edit_distance;
pub use engine::{ArtifactCache, Engine, EngineError, EngineOptions, PoolUse};
pub use fault::{Called, Fault, FaultKind, HostAnswer, LogLine, SearchAnswer};
pub use hook::{FaultAction, Hook};
pub use limits::{LimitError, Limits};
pub use load::{
    Grants, InspectedImport, InspectedResources, Inspection, LoadError, LoadRequest, canonical_json, sha256_hex,
};
pub use lookup::{CallContext, KnowledgeLookup, LookupFuture, RecordedLookup};
pub use oci::{OciName, OciReference};
pub use policy::{Policy, SnapshotStatus};
pub use replay::{Difference, Level, RecordedCitation, RecordedTurn, Replayed, TurnCalls, replay};
pub use revision::{
    FilterResult, FilterRun, FilterStep, Manifest, PolicyManifest, Revision, RevisionId, StageError, StageProblem,
    StagedPolicy,
};
pub use tripwire::{Counts, Trip, Tripwire, TurnCount, Window};
