//! From bytes to a policy that can be called, or a refusal that says what to do.
//!
//! The steps, each with its own error: the bytes are a component (not a core module, not machine code) → its imports
//! are on the list, and granted → it exports the lifecycle and the expected hook → it fits into the pool → its types are
//! the contract's → it describes itself → it takes the settings → one call on a fixed turn gives a valid result.
//!
//! Nothing that is refused leaves a trace in the engine.

mod candidate;
mod error;
mod inspect;

use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wasmtime::Engine as Wasmtime;

use crate::engine::Engine;
use crate::hook::Hook;
use crate::limits::Limits;
use crate::policy::{Inner, Policy};
use crate::types::{EscalationVerdict, FilterVerdict};
use crate::{sample, validate};

pub(crate) use candidate::link;
use candidate::{Candidate, Tried};
pub use error::LoadError;
pub use inspect::{InspectedImport, InspectedResources, Inspection};

/// Largest component, in bytes: an interpreter with its libraries has 20 MiB.
pub const COMPONENT_BYTES_MAX: usize = 64 << 20;
/// Largest settings document as canonical JSON, in bytes.
pub const SETTINGS_BYTES_MAX: usize = 1 << 20;

/// What a chain allows a component beyond the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// Whether it may look things up in the Page's knowledge.
    pub knowledge: bool,
}

/// What is to be loaded.
#[derive(Clone, Debug)]
pub struct LoadRequest<'a> {
    /// The hook that the component must serve.
    pub hook: Hook,
    /// The component's bytes.
    pub wasm: &'a [u8],
    /// Its settings.
    pub settings: &'a serde_json::Value,
    /// Limits of each call.
    pub limits: Limits,
    /// What it is granted.
    pub grants: Grants,
}

impl Engine {
    /// Loads a component: compiles, checks, configures and tries it. Blocks for as long as the compiler needs, which is
    /// seconds for large components: call it where blocking is allowed (`spawn_blocking`).
    ///
    /// # Errors
    /// [`LoadError`]; the engine is as before.
    pub fn load(&self, request: LoadRequest<'_>) -> Result<Policy, LoadError> {
        let LoadRequest { hook, wasm, settings, limits, grants } = request;
        let limits = limits.checked()?;
        let settings = canonical_json(settings);
        at_most("settings", settings.len(), SETTINGS_BYTES_MAX)?;
        check_bytes(wasm)?;
        let shared = &self.shared;
        let candidate = Candidate { shared, hook, wasm, settings: &settings, limits: &limits, grants };
        let Tried { program, snapshot, description, settings_schema, unused_grants } = candidate.try_out()?;
        let policy = Policy {
            inner: Arc::new(Inner {
                shared: Arc::clone(shared),
                hook,
                description,
                settings_schema,
                component_sha256: sha256_hex(wasm),
                settings_sha256: sha256_hex(settings.as_bytes()),
                settings,
                limits,
                unused_grants,
                snapshot,
                program,
            }),
        };
        canary(&policy)?;
        Ok(policy)
    }
}

fn at_most(what: &'static str, bytes: usize, most: usize) -> Result<(), LoadError> {
    if bytes > most { Err(LoadError::TooLarge { what, bytes, most }) } else { Ok(()) }
}

fn check_bytes(wasm: &[u8]) -> Result<(), LoadError> {
    at_most("component", wasm.len(), COMPONENT_BYTES_MAX)?;
    if Wasmtime::detect_precompiled(wasm).is_some() {
        return Err(LoadError::Precompiled);
    }
    // Preamble: magic, then a version and a layer of 16 bits each; layer 0 is a core module, layer 1 a component.
    match wasm {
        [0, b'a', b's', b'm', _, _, 0, 0, ..] => Err(LoadError::CoreModule),
        [0, b'a', b's', b'm', _, _, _, _, ..] => Ok(()),
        _ => Err(LoadError::NotWasm { bytes: wasm.len() }),
    }
}

/// One call on a fixed turn: what faults here would fault on customers.
fn canary(policy: &Policy) -> Result<(), LoadError> {
    let inner = &policy.inner;
    let _loading = inner.shared.loading.lock().unwrap_or_else(PoisonError::into_inner);
    let turn = &sample::turn();
    let passages = sample::passages();
    let passages = passages.as_slice();
    let result = match inner.hook {
        Hook::Classify => inner.call_blocking(turn, (turn,), validate::classification).result.map(drop),
        Hook::Tone => {
            let params = (turn, &sample::classification(), passages);
            inner.call_blocking(turn, params, validate::plan).result.map(drop)
        }
        Hook::Filter => {
            let draft = &sample::draft();
            let check = |found: &FilterVerdict| validate::filter_verdict(found, draft);
            inner.call_blocking(turn, (turn, draft, passages), check).result.map(drop)
        }
        Hook::Escalate => {
            let dossier = &sample::dossier();
            let check = |found: &EscalationVerdict| validate::escalation_verdict(found, dossier);
            inner.call_blocking(turn, (turn, dossier), check).result.map(drop)
        }
    };
    result.map_err(|fault| LoadError::Canary(Box::new(fault)))
}

/// JSON with sorted keys and no spaces: equal settings are equal bytes, whoever wrote them.
#[must_use]
pub fn canonical_json(value: &serde_json::Value) -> String {
    use serde_json::Value;
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| key.as_str());
                Value::Object(entries.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
            }
            Value::Array(list) => Value::Array(list.iter().map(sorted).collect()),
            other => other.clone(),
        }
    }
    sorted(value).to_string()
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
