//! A component on its way in: checked by what it imports and exports, linked, asked to describe itself, configured, and
//! snapshotted where that is possible.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::component::{Component, ComponentNamedList, Instance, InstancePre, Lift, Lower};
use wasmtime::{Engine as Wasmtime, Store};

use super::error::shortened;
use super::{Grants, LoadError};
use crate::blame::{Stopped, blame};
use crate::block_on::block_on_until;
use crate::engine::{LOAD_DEADLINE_MS, LOAD_FUEL, MEMORIES_MAX, Shared, TABLES_MAX, load_limits};
use crate::fault::{Fault, FaultKind};
use crate::hook::Hook;
use crate::host::{Import, PACKAGE, interface_name, judge_import};
use crate::limits::Limits;
use crate::policy::{Exports, Program, SnapshotStatus, configure};
use crate::state::CallState;
use crate::types::{Classification, Description, EscalationVerdict, FilterVerdict, Plan, SettingError};
use crate::{snapshot, validate};

/// Checks the imports by name; returns the grants that are not used.
fn check_imports(engine: &Wasmtime, component: &Component, grants: Grants) -> Result<Vec<String>, LoadError> {
    let mut wants_knowledge = false;
    for (name, _) in component.component_type().imports(engine) {
        match judge_import(name) {
            Import::Allowed => {}
            Import::Knowledge => wants_knowledge = true,
            Import::OtherVersion => return Err(LoadError::OtherContract { import: shortened(name) }),
            Import::Unknown => return Err(LoadError::ImportNotAllowed { import: shortened(name) }),
        }
    }
    match (wants_knowledge, grants.knowledge) {
        (true, false) => Err(LoadError::GrantMissing { grant: "knowledge" }),
        (false, true) => Ok(vec!["knowledge".to_owned()]),
        _ => Ok(Vec::new()),
    }
}

fn check_exports(engine: &Wasmtime, component: &Component, expected: Hook) -> Result<(), LoadError> {
    let names = component.component_type();
    let names = names.exports(engine).map(|(name, _)| name.to_owned());
    let exports: Vec<String> = names.filter(|name| name != snapshot::ACCESS).collect();
    let has = |interface: &str| component.get_export_index(None, interface_name(interface).as_str()).is_some();
    if !has("lifecycle") {
        let other = exports.iter().find(|name| name.starts_with(PACKAGE));
        return Err(match other {
            Some(import) if !import.contains("@0.1.") => LoadError::OtherContract { import: shortened(import) },
            _ => LoadError::NotAPolicy { exports },
        });
    }
    if !has(expected.interface()) {
        let found = Hook::ALL.into_iter().filter(|hook| has(hook.interface())).collect();
        return Err(LoadError::WrongWorld { expected, found });
    }
    Ok(())
}

fn check_resources(component: &Component) -> Result<(), LoadError> {
    // `None` means that the component instantiates modules given from outside, which its imports rule out.
    let Some(needed) = component.resources_required() else {
        return Ok(());
    };
    for (what, found, most) in
        [("memories", needed.num_memories, MEMORIES_MAX), ("tables", needed.num_tables, TABLES_MAX)]
    {
        if found > most {
            return Err(LoadError::TooManyResources { what, found, most });
        }
    }
    Ok(())
}

/// Links a component and finds its functions.
pub(crate) fn link(shared: &Shared, component: &Component, hook: Hook) -> Result<Program, LoadError> {
    let contract = |error: wasmtime::Error| LoadError::Contract { reason: format!("{error:#}") };
    let pre: InstancePre<CallState> = shared.linker.instantiate_pre(component).map_err(contract)?;
    let find = |interface: &str, function: &str| {
        component
            .get_export_index(None, interface_name(interface).as_str())
            .and_then(|instance| component.get_export_index(Some(&instance), function))
            .ok_or_else(|| LoadError::Contract { reason: format!("the function {interface}.{function} is missing") })
    };
    let exports = Exports {
        describe: find("lifecycle", "describe")?,
        configure: find("lifecycle", "configure")?,
        hook: find(hook.interface(), hook.function())?,
    };
    Ok(Program { pre, exports })
}

/// A component that is being loaded.
pub(super) struct Candidate<'a> {
    pub shared: &'a Arc<Shared>,
    pub hook: Hook,
    pub wasm: &'a [u8],
    pub settings: &'a str,
    pub limits: &'a Limits,
    pub grants: Grants,
}

/// A candidate that described itself and took its settings.
pub(super) struct Tried {
    pub program: Program,
    pub snapshot: SnapshotStatus,
    pub description: Description,
    pub settings_schema: serde_json::Value,
    pub unused_grants: Vec<String>,
}

impl Candidate<'_> {
    /// Three ways to the same end: the snapshot that is in the cache, a new snapshot, or the component as it is.
    pub fn try_out(&self) -> Result<Tried, LoadError> {
        if let Some(component) = snapshot::cached(self.shared, self.wasm, self.settings) {
            let (program, unused_grants) = self.check(&component)?;
            let (description, settings_schema) = self.describe(&program)?;
            let snapshot = SnapshotStatus::Snapshotted;
            return Ok(Tried { program, snapshot, description, settings_schema, unused_grants });
        }
        let readable = match snapshot::readable(self.shared, self.wasm) {
            Ok(readable) => readable,
            Err(reason) => return self.try_plain(reason),
        };
        let (program, unused_grants) = self.check(&readable.component)?;
        let (description, settings_schema) = self.describe(&program)?;
        let taken = snapshot::guarded(|| {
            Ok(self.run(&program, "configure", Some(&description), async |store, instance| {
                if let Err(errors) = configure(store, instance, &program.exports, self.settings).await? {
                    return Ok(Err(errors));
                }
                Ok(Ok(readable.read(store, instance).await))
            }))
        });
        let bytes = match taken {
            Ok(taken) => settings_taken(taken)?,
            Err(reason) => Err(reason),
        };
        match bytes.and_then(|bytes| snapshot::compile(self.shared, &bytes, self.wasm, self.settings)) {
            Ok(component) => {
                let program = link(self.shared, &component, self.hook)?;
                same_description(&description, &self.describe(&program)?.0)?;
                let snapshot = SnapshotStatus::Snapshotted;
                Ok(Tried { program, snapshot, description, settings_schema, unused_grants })
            }
            Err(reason) => self.try_plain(reason),
        }
    }

    fn try_plain(&self, reason: String) -> Result<Tried, LoadError> {
        let compiled = self.shared.compile(self.wasm);
        let component = compiled.map_err(|error| LoadError::Compile { reason: format!("{error:#}") })?;
        let (program, unused_grants) = self.check(&component)?;
        let (description, settings_schema) = self.describe(&program)?;
        let again = settings_taken(self.run(&program, "configure", Some(&description), async |store, instance| {
            if let Err(errors) = configure(store, instance, &program.exports, self.settings).await? {
                return Ok(Err(errors));
            }
            store.set_fuel(LOAD_FUEL)?;
            Ok(Ok(ask(store, instance, &program.exports).await?))
        }))?;
        same_description(&description, &again)?;
        let snapshot = SnapshotStatus::NotPossible { reason };
        Ok(Tried { program, snapshot, description, settings_schema, unused_grants })
    }

    /// Everything that can be known without running it.
    pub fn check(&self, component: &Component) -> Result<(Program, Vec<String>), LoadError> {
        let engine = &self.shared.wasmtime;
        let unused_grants = check_imports(engine, component, self.grants)?;
        check_exports(engine, component, self.hook)?;
        check_resources(component)?;
        Ok((link(self.shared, component, self.hook)?, unused_grants))
    }

    pub fn describe(&self, program: &Program) -> Result<(Description, serde_json::Value), LoadError> {
        let described = self.run(program, "describe", None, async |store, instance| {
            // Here and only here the types of all three functions are compared with the contract's.
            check_types(store, instance, self.hook, &program.exports)?;
            Ok(ask(store, instance, &program.exports).await?)
        });
        let description = described.map_err(|refusal| match refusal {
            Refusal::Type(reason) => LoadError::Contract { reason },
            Refusal::Fault(fault) => LoadError::Describe(fault),
        })?;
        match validate::description(&description) {
            Ok(schema) => Ok((description, schema)),
            Err(FaultKind::BadOutput { field, problem }) => Err(LoadError::BadDescription { field, problem }),
            Err(other) => {
                Err(LoadError::BadDescription { field: "description".to_owned(), problem: other.to_string() })
            }
        }
    }

    /// Runs something on a fresh instance, under the limits of loading.
    fn run<R>(
        &self,
        program: &Program,
        function: &'static str,
        description: Option<&Description>,
        body: impl AsyncFnOnce(&mut Store<CallState>, Instance) -> Result<R, RunError>,
    ) -> Result<R, Refusal> {
        // One at a time: the pool has room for that beside all calls. Compiling needs no room, and a component that takes long to
        // compile must not hold up another, such as the one that a rollback wants.
        let _loading = self.shared.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = load_limits(self.limits);
        let mut store = self.shared.load_store(self.limits);
        let started = Instant::now();
        let until = started + Duration::from_millis(LOAD_DEADLINE_MS.into());
        let mut stage = "instantiate";
        let outcome = block_on_until(until, async {
            store.set_fuel(LOAD_FUEL)?;
            let instance = program.pre.instantiate_async(&mut store).await?;
            stage = function;
            body(&mut store, instance).await
        });
        let stopped = match outcome {
            Some(Ok(result)) => return Ok(result),
            Some(Err(RunError::Type(error))) => return Err(Refusal::Type(format!("{error:#}"))),
            Some(Err(RunError::Run(error))) => Stopped::Error(error),
            None => Stopped::TimedOut,
        };
        let used_ms = u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX);
        let blame = blame(stopped, &limits, used_ms, &store.into_data().printed());
        Err(Refusal::Fault(Box::new(Fault {
            hook: self.hook,
            policy: description.map(|it| it.name.clone()).unwrap_or_default(),
            version: description.map(|it| it.version.clone()).unwrap_or_default(),
            function: stage.to_owned(),
            kind: blame.kind,
            detail: blame.detail,
            guest_frames: blame.guest_frames,
        })))
    }
}

/// Calls `lifecycle.describe` on an instance.
async fn ask(store: &mut Store<CallState>, instance: Instance, exports: &Exports) -> wasmtime::Result<Description> {
    let function = instance.get_typed_func::<(), (Description,)>(&mut *store, &exports.describe)?;
    Ok(function.call_async(&mut *store, ()).await?.0)
}

/// A revision is named by what its components say of themselves, before and after they have their settings alike.
fn same_description(before: &Description, after: &Description) -> Result<(), LoadError> {
    if before == after {
        return Ok(());
    }
    let problem = "another one once the component has its settings; it must always be the same".to_owned();
    Err(LoadError::BadDescription { field: "description".to_owned(), problem })
}

/// What became of `configure`, as an error of loading.
fn settings_taken<T>(taken: Result<Result<T, Vec<SettingError>>, Refusal>) -> Result<T, LoadError> {
    match taken {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(mut errors)) => {
            validate::setting_errors(&mut errors);
            Err(LoadError::Refused { errors })
        }
        Err(Refusal::Type(reason)) => Err(LoadError::Contract { reason }),
        Err(Refusal::Fault(fault)) => Err(LoadError::Configure(fault)),
    }
}

/// Why a body did not finish: the component's types, or what it did.
enum RunError {
    Type(wasmtime::Error),
    Run(wasmtime::Error),
}

impl From<wasmtime::Error> for RunError {
    fn from(error: wasmtime::Error) -> Self {
        Self::Run(error)
    }
}

enum Refusal {
    Type(String),
    Fault(Box<Fault>),
}

/// Compares the types of the component's functions with the contract's.
fn check_types(
    store: &mut Store<CallState>,
    instance: Instance,
    hook: Hook,
    exports: &Exports,
) -> Result<(), RunError> {
    fn check<P, R>(
        store: &mut Store<CallState>,
        instance: Instance,
        index: &wasmtime::component::ComponentExportIndex,
    ) -> Result<(), RunError>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        instance.get_typed_func::<P, R>(&mut *store, index).map(drop).map_err(RunError::Type)
    }
    use crate::types::{Dossier, Draft, Passage, Turn};
    check::<(), (Description,)>(store, instance, &exports.describe)?;
    check::<(&str,), (Result<(), Vec<SettingError>>,)>(store, instance, &exports.configure)?;
    match hook {
        Hook::Classify => check::<(&Turn,), (Result<Classification, String>,)>(store, instance, &exports.hook),
        Hook::Tone => {
            check::<(&Turn, &Classification, &[Passage]), (Result<Plan, String>,)>(store, instance, &exports.hook)
        }
        Hook::Filter => {
            check::<(&Turn, &Draft, &[Passage]), (Result<FilterVerdict, String>,)>(store, instance, &exports.hook)
        }
        Hook::Escalate => {
            check::<(&Turn, &Dossier), (Result<EscalationVerdict, String>,)>(store, instance, &exports.hook)
        }
    }
}
