//! The floor that calls are measured against: the same component on the bare runtime, without this crate's limits,
//! checks and records. For benchmarks only; no stable interface.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker};
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

use crate::block_on::block_on_until;
use crate::engine::{Engine, LOAD_FUEL};
use crate::hook::Hook;
use crate::limits::Limits;
use crate::policy::{Policy, configure};
use crate::state::CallState;
use crate::types::{Classification, Description, Turn};
use crate::{host, load, sample, snapshot};

/// A component that exports the classifier's hook, on a bare engine: pooling and copy-on-write, no fuel, no epochs.
pub struct Bare {
    engine: wasmtime::Engine,
    pre: InstancePre<CallState>,
    describe: ComponentExportIndex,
    classify: Option<ComponentExportIndex>,
}

impl std::fmt::Debug for Bare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bare").finish_non_exhaustive()
    }
}

impl Bare {
    /// Compiles `wasm` for the bare engine.
    ///
    /// # Errors
    /// What wasmtime says, as text.
    pub fn new(wasm: &[u8]) -> Result<Self, String> {
        Self::compile(wasm).map_err(|error| format!("{error:#}"))
    }

    fn compile(wasm: &[u8]) -> wasmtime::Result<Self> {
        let mut pool = PoolingAllocationConfig::new();
        pool.max_memory_size(128 << 20).linear_memory_keep_resident(128 << 10);
        let mut config = Config::new();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = wasmtime::Engine::new(&config)?;
        let component = Component::from_binary(&engine, wasm)?;
        let mut linker = Linker::new(&engine);
        host::link(&mut linker)?;
        let pre = linker.instantiate_pre(&component)?;
        let find = |interface: &str, function: &str| {
            let instance = component.get_export_index(None, host::interface_name(interface).as_str())?;
            component.get_export_index(Some(&instance), function)
        };
        let describe = find("lifecycle", "describe")
            .ok_or_else(|| wasmtime::format_err!("the component exports no lifecycle.describe"))?;
        let classify = find(Hook::Classify.interface(), Hook::Classify.function());
        Ok(Self { engine, pre, describe, classify })
    }

    /// One fresh instance and one call of `describe`, the smallest export: how long it took.
    ///
    /// # Errors
    /// What wasmtime says, as text.
    pub async fn instantiate_and_describe(&self) -> Result<Duration, String> {
        let started = Instant::now();
        let mut store = self.store();
        let run = async {
            let instance = self.pre.instantiate_async(&mut store).await?;
            let function = instance.get_typed_func::<(), (Description,)>(&mut store, &self.describe)?;
            function.call_async(&mut store, ()).await
        };
        run.await.map_err(|error: wasmtime::Error| format!("{error:#}"))?;
        drop(store);
        Ok(started.elapsed())
    }

    /// One fresh instance, not configured, and one call of `classify`: how long it took.
    ///
    /// # Errors
    /// What wasmtime says, or that the component is no classifier, as text.
    pub async fn instantiate_and_classify(&self, turn: &Turn) -> Result<Duration, String> {
        let Some(classify) = &self.classify else {
            return Err("the component is no classifier".to_owned());
        };
        let started = Instant::now();
        let mut store = self.store();
        let run = async {
            let instance = self.pre.instantiate_async(&mut store).await?;
            let function =
                instance.get_typed_func::<(&Turn,), (Result<Classification, String>,)>(&mut store, classify)?;
            function.call_async(&mut store, (turn,)).await
        };
        let (verdict,) = run.await.map_err(|error: wasmtime::Error| format!("{error:#}"))?;
        verdict?;
        drop(store);
        Ok(started.elapsed())
    }

    fn store(&self) -> Store<CallState> {
        Store::new(&self.engine, CallState::new(&Limits::default(), Instant::now()))
    }
}

/// The component that an engine runs in calls, as bytes: `wasm` after it took `settings`.
///
/// # Errors
/// Why it cannot be snapshotted, as text.
pub fn snapshot_bytes(
    engine: &Engine,
    hook: Hook,
    wasm: &[u8],
    settings: &serde_json::Value,
) -> Result<Vec<u8>, String> {
    let shared = &engine.shared;
    let readable = snapshot::readable(shared, wasm)?;
    let program = load::link(shared, &readable.component, hook).map_err(|error| error.to_string())?;
    let settings = load::canonical_json(settings);
    let _loading = shared.loading.lock().unwrap_or_else(PoisonError::into_inner);
    let mut store = shared.load_store(&Limits::default());
    let work = async {
        store.set_fuel(LOAD_FUEL)?;
        let instance = program.pre.instantiate_async(&mut store).await?;
        let refused = configure(&mut store, instance, &program.exports, &settings).await?.is_err();
        if refused {
            wasmtime::bail!("the component refuses its settings");
        }
        Ok(readable.read(&mut store, instance).await)
    };
    match block_on_until(Instant::now() + Duration::from_secs(60), work) {
        Some(Ok(bytes)) => bytes,
        Some(Err(error)) => Err(format!("{error:#}")),
        None => Err("it took longer than a minute".to_owned()),
    }
}

/// The turn on which every candidate is tried.
#[must_use]
pub fn sample_turn() -> Turn {
    sample::turn()
}

/// How long one call of a classifier takes on the engine, all told.
pub async fn engine_classify(policy: &Policy, turn: &Turn) -> Duration {
    let started = Instant::now();
    drop(policy.classify(&crate::lookup::CallContext::default(), turn).await);
    started.elapsed()
}
