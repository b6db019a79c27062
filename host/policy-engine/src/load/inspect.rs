//! What can be known about a component before it gets settings, a place in a chain, or a grant.

use serde::Serialize;
use wasmtime::component::Component;

use super::candidate::Candidate;
use super::{Grants, LoadError, check_bytes, sha256_hex};
use crate::engine::{Engine, Shared};
use crate::hook::Hook;
use crate::host::{Import, interface_name, judge_import};
use crate::limits::Limits;
use crate::snapshot;
use crate::types::Description;
use std::sync::Arc;

/// A page of linear memory, in bytes.
const PAGE_BYTES: u64 = 64 << 10;

/// A component from outside.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// SHA-256, in hexadecimal.
    pub sha256: String,
    /// Its size.
    pub bytes: usize,
    /// The hooks that it serves.
    pub hooks: Vec<Hook>,
    /// What it imports.
    pub imports: Vec<InspectedImport>,
    /// What it exports.
    pub exports: Vec<String>,
    /// Memories and tables; absent when the compiler cannot tell.
    pub resources: Option<InspectedResources>,
    /// What it says about itself; absent when it cannot be asked.
    pub description: Option<Description>,
    /// The schema of its settings, parsed.
    pub settings_schema: Option<serde_json::Value>,
    /// Why it would be refused whatever its settings are; absent when it would not.
    pub problem: Option<String>,
}

/// An import of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedImport {
    /// Its name, such as `wasi:io/poll@0.2.6`.
    pub name: String,
    /// `host`, `wasi`, `grant` (linked when the chain grants it) or `refused`.
    pub kind: &'static str,
}

/// What one instance reserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedResources {
    /// Linear memories.
    pub memories: u32,
    /// Bytes that the largest memory begins with.
    pub memory_bytes_initial: Option<u64>,
    /// Tables.
    pub tables: u32,
    /// Elements that the largest table begins with.
    pub table_elements_initial: Option<u64>,
}

impl Engine {
    /// Looks at a component without settings. Blocks like [`Engine::load`].
    ///
    /// # Errors
    /// What is not a component at all, or does not compile. Everything else that speaks against it is
    /// [`Inspection::problem`].
    pub fn inspect(&self, wasm: &[u8]) -> Result<Inspection, LoadError> {
        check_bytes(wasm)?;
        let shared = &self.shared;
        let compiled = shared.compile(wasm);
        let component = compiled.map_err(|error| LoadError::Compile { reason: format!("{error:#}") })?;
        let mut inspection = look_at(shared, &component, wasm);
        let asked = self.ask(&component, wasm, &inspection);
        match asked {
            Ok((description, schema)) => {
                inspection.description = Some(description);
                inspection.settings_schema = Some(schema);
            }
            Err(problem) => inspection.problem = Some(problem.to_string()),
        }
        Ok(inspection)
    }

    /// Checks it for the first hook that it serves, and lets it describe itself.
    fn ask(
        &self,
        component: &Component,
        wasm: &[u8],
        inspection: &Inspection,
    ) -> Result<(Description, serde_json::Value), LoadError> {
        let hook = inspection.hooks.first().copied().unwrap_or(Hook::Classify);
        let knowledge = inspection.imports.iter().any(|import| import.kind == "grant");
        let candidate = Candidate {
            shared: &self.shared,
            hook,
            wasm,
            settings: "{}",
            limits: &Limits::default(),
            grants: Grants { knowledge },
        };
        let (program, _) = candidate.check(component)?;
        candidate.describe(&program)
    }
}

fn look_at(shared: &Arc<Shared>, component: &Component, wasm: &[u8]) -> Inspection {
    let engine = &shared.wasmtime;
    let names = component.component_type();
    let has = |interface: &str| component.get_export_index(None, interface_name(interface).as_str()).is_some();
    Inspection {
        sha256: sha256_hex(wasm),
        bytes: wasm.len(),
        hooks: Hook::ALL.into_iter().filter(|hook| has(hook.interface())).collect(),
        imports: names.imports(engine).map(|(name, _)| import(name)).collect(),
        exports: names
            .exports(engine)
            .map(|(name, _)| name.to_owned())
            .filter(|name| name != snapshot::ACCESS)
            .collect(),
        resources: component.resources_required().map(|needed| InspectedResources {
            memories: needed.num_memories,
            memory_bytes_initial: needed.max_initial_memory_size.map(|pages| pages.saturating_mul(PAGE_BYTES)),
            tables: needed.num_tables,
            table_elements_initial: needed.max_initial_table_size,
        }),
        description: None,
        settings_schema: None,
        problem: None,
    }
}

fn import(name: &str) -> InspectedImport {
    let kind = match judge_import(name) {
        Import::Allowed if name.starts_with("wasi:") => "wasi",
        Import::Allowed => "host",
        Import::Knowledge => "grant",
        Import::OtherVersion | Import::Unknown => "refused",
    };
    InspectedImport { name: name.to_owned(), kind }
}
