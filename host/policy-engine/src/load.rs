//! From bytes to a policy that can be called, or a refusal that says what to do.
//!
//! The steps, each with its own error: the bytes are a component (not a core module, not machine code) → its imports
//! are on the list, and granted → it exports the lifecycle and the expected hook → it fits into the pool → its types are
//! the contract's → it describes itself → it takes the settings → one call on a fixed turn gives a valid result.
//!
//! Nothing that is refused leaves a trace in the engine.

mod inspect;

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, ComponentNamedList, Instance, InstancePre, Lift, Lower};
use wasmtime::{Engine as Wasmtime, Store};

use crate::blame::{Stopped, blame};
use crate::block_on::block_on_until;
use crate::engine::{Engine, LOAD_DEADLINE_MS, LOAD_FUEL, MEMORIES_MAX, Shared, TABLES_MAX, load_limits};
use crate::fault::{Fault, FaultKind};
use crate::hook::Hook;
use crate::host::{Import, PACKAGE, interface_name, judge_import};
use crate::limits::{LimitError, Limits};
use crate::policy::{Exports, Inner, Policy, Program, SnapshotStatus, configure};
use crate::state::CallState;
use crate::types::{Classification, Description, EscalationVerdict, FilterVerdict, Plan, SettingError};
use crate::{sample, snapshot, validate};

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

/// Why a component was not loaded. Each text says what was found, what was expected and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not WebAssembly at all.
    #[error(
        "this is not a WebAssembly component: it has {bytes} bytes and does not begin with the magic number `\\0asm`"
    )]
    NotWasm {
        /// How many bytes there were.
        bytes: usize,
    },
    /// A core module.
    #[error(
        "this is a core WebAssembly module, not a component: build it for the target wasm32-wasip2, or wrap it with \
         `wasm-tools component new`"
    )]
    CoreModule,
    /// Machine code.
    #[error(
        "this is a precompiled artefact (machine code), which is never accepted from outside: give the .wasm file it \
         was made from"
    )]
    Precompiled,
    /// Too large.
    #[error("the {what} has {bytes} bytes; at most {most} are accepted")]
    TooLarge {
        /// `component` or `settings`.
        what: &'static str,
        /// What was found.
        bytes: usize,
        /// What is allowed.
        most: usize,
    },
    /// The compiler refused it.
    #[error("the component does not compile: {reason}")]
    Compile {
        /// What the compiler said.
        reason: String,
    },
    /// An import that no policy gets.
    #[error(
        "the component imports `{import}`, which the host does not offer. A policy may import `frontdesk:policy/log`, \
         `frontdesk:policy/knowledge` (when granted) and WASI 0.2 without HTTP: remove what needs this import, or hand the \
         data over in the settings"
    )]
    ImportNotAllowed {
        /// The import's name.
        import: String,
    },
    /// Built against a contract that this host does not serve.
    #[error(
        "the component was built against `{import}`, and this host serves frontdesk:policy@0.1: rebuild it with the \
         contract in wit/policy/0.1.0"
    )]
    OtherContract {
        /// The import's or export's name.
        import: String,
    },
    /// An import that this chain does not grant.
    #[error(
        "the component imports `frontdesk:policy/{grant}`, which the chain does not grant it. If it may have it, add to \
         its [[policy]] in chain.toml:\n\n[policy.grants]\n{grant} = true\n"
    )]
    GrantMissing {
        /// The grant's name in `chain.toml`.
        grant: &'static str,
    },
    /// A policy for another hook.
    #[error("the component serves {}, and was to serve the hook `{expected}`: {}", found_hooks(found), world_hint(*expected, found))]
    WrongWorld {
        /// The hook it was to serve.
        expected: Hook,
        /// The hooks it does serve.
        found: Vec<Hook>,
    },
    /// Not a policy.
    #[error(
        "the component is no policy: it does not export `frontdesk:policy/lifecycle@0.1.0`. It exports: {}",
        listed(exports)
    )]
    NotAPolicy {
        /// What it exports.
        exports: Vec<String>,
    },
    /// More memories or tables than an instance may have.
    #[error("the component needs {found} {what}, and an instance may have {most}: link its modules into one")]
    TooManyResources {
        /// `memories` or `tables`.
        what: &'static str,
        /// What it needs.
        found: u32,
        /// What there is.
        most: u32,
    },
    /// Types that differ from the contract's.
    #[error("the component does not fit the contract frontdesk:policy@0.1.0: {reason}")]
    Contract {
        /// What differs.
        reason: String,
    },
    /// A limit out of range.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// `describe` faulted, or its instance could not be made.
    #[error("the component cannot describe itself: {0}. {detail}", detail = .0.detail)]
    Describe(Box<Fault>),
    /// `describe` breaks a rule.
    #[error("the component's description is not valid: {field}: {problem}")]
    BadDescription {
        /// Which field.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// `configure` faulted.
    #[error("the component failed while it took its settings: {0}. {detail}", detail = .0.detail)]
    Configure(Box<Fault>),
    /// `configure` refused.
    #[error("the component refuses its settings:{}", setting_lines(errors))]
    Refused {
        /// What is wrong, field by field.
        errors: Vec<SettingError>,
    },
    /// The trial call faulted.
    #[error("the component fails on a sample turn: {0}. {detail}", detail = .0.detail)]
    Canary(Box<Fault>),
}

/// Most exports that a message lists.
const LISTED_MAX: usize = 16;
/// Longest name of an import or export in a message, in bytes: names are the component's own words.
const NAME_BYTES_MAX: usize = 120;

fn listed(names: &[String]) -> String {
    let first = names.iter().take(LISTED_MAX).map(|name| shortened(name)).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "nothing".to_owned(),
        count if count > LISTED_MAX => format!("{first} and {} more", count - LISTED_MAX),
        _ => first,
    }
}

fn shortened(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    format!("{}…", &name[..name.floor_char_boundary(NAME_BYTES_MAX)])
}

fn found_hooks(found: &[Hook]) -> String {
    match found {
        [] => "no hook".to_owned(),
        [one] => format!("the hook `{one}` (world `{}`)", one.world()),
        many => format!("the hooks {}", many.iter().map(|hook| format!("`{hook}`")).collect::<Vec<_>>().join(", ")),
    }
}

fn world_hint(expected: Hook, found: &[Hook]) -> String {
    match found.first() {
        Some(found) => {
            format!("write hook = \"{found}\" in chain.toml, or build it for the world `{}`", expected.world())
        }
        None => format!("build it for the world `{}`", expected.world()),
    }
}

fn setting_lines(errors: &[SettingError]) -> String {
    let line = |error: &SettingError| {
        let place = if error.path.is_empty() { "(the whole document)" } else { &error.path };
        format!("\n  {place}: {}", error.message)
    };
    errors.iter().map(line).collect()
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
        // One component at a time is loaded: the pool has room for that beside all calls, and a compiler is enough.
        let _loading = shared.loading.lock().unwrap_or_else(PoisonError::into_inner);
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
struct Candidate<'a> {
    shared: &'a Arc<Shared>,
    hook: Hook,
    wasm: &'a [u8],
    settings: &'a str,
    limits: &'a Limits,
    grants: Grants,
}

/// A candidate that described itself and took its settings.
struct Tried {
    program: Program,
    snapshot: SnapshotStatus,
    description: Description,
    settings_schema: serde_json::Value,
    unused_grants: Vec<String>,
}

impl Candidate<'_> {
    /// Three ways to the same end: the snapshot that is in the cache, a new snapshot, or the component as it is.
    fn try_out(&self) -> Result<Tried, LoadError> {
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
        settings_taken(self.run(&program, "configure", Some(&description), async |store, instance| {
            Ok(configure(store, instance, &program.exports, self.settings).await?)
        }))?;
        let snapshot = SnapshotStatus::NotPossible { reason };
        Ok(Tried { program, snapshot, description, settings_schema, unused_grants })
    }

    /// Everything that can be known without running it.
    fn check(&self, component: &Component) -> Result<(Program, Vec<String>), LoadError> {
        let engine = &self.shared.wasmtime;
        let unused_grants = check_imports(engine, component, self.grants)?;
        check_exports(engine, component, self.hook)?;
        check_resources(component)?;
        Ok((link(self.shared, component, self.hook)?, unused_grants))
    }

    fn describe(&self, program: &Program) -> Result<(Description, serde_json::Value), LoadError> {
        let described = self.run(program, "describe", None, async |store, instance| {
            // Here and only here the types of all three functions are compared with the contract's.
            check_types(store, instance, self.hook, &program.exports)?;
            let function = instance.get_typed_func::<(), (Description,)>(&mut *store, &program.exports.describe)?;
            Ok(function.call_async(&mut *store, ()).await?.0)
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

/// One call on a fixed turn: what faults here would fault on customers.
fn canary(policy: &Policy) -> Result<(), LoadError> {
    let inner = &policy.inner;
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
