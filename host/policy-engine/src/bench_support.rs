//! The floor that calls are measured against: the same component on the bare runtime, without this crate's limits,
//! checks and records. For benchmarks only; no stable interface.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use wasmtime::component::{Component, ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Linker, Lower};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

use crate::block_on::block_on_until;
use crate::engine::{Engine, LOAD_FUEL, MEMORY_BYTES_MAX};
use crate::hook::Hook;
use crate::limits::Limits;
use crate::policy::configure;
use crate::state::CallState;
use crate::types::{
    Classification, Description, Dossier, Draft, EscalationVerdict, FilterVerdict, Passage, Plan, Turn,
};
use crate::{host, load, snapshot};

/// A policy's component on a bare engine: pooling and copy-on-write, no fuel, no epochs. Each call is made on a fresh
/// instance and gives how long that took, from the store's creation to its end.
pub struct Bare {
    engine: wasmtime::Engine,
    pre: InstancePre<CallState>,
    describe: ComponentExportIndex,
    hook: ComponentExportIndex,
}

impl std::fmt::Debug for Bare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bare").finish_non_exhaustive()
    }
}

impl Bare {
    /// Compiles `wasm`, a policy for `hook`, for the bare engine.
    ///
    /// # Errors
    /// What wasmtime says, as text.
    pub fn new(hook: Hook, wasm: &[u8]) -> Result<Self, String> {
        Self::compile(hook, wasm).map_err(|error| format!("{error:#}"))
    }

    fn compile(hook: Hook, wasm: &[u8]) -> wasmtime::Result<Self> {
        let mut pool = PoolingAllocationConfig::new();
        // How the engine resets memories, so that the floor lacks only what the engine adds to it.
        pool.max_memory_size(MEMORY_BYTES_MAX).pagemap_scan(Enabled::Auto);
        let scans = PoolingAllocationConfig::is_pagemap_scan_available();
        pool.linear_memory_keep_resident(if scans { 2 << 20 } else { 128 << 10 }).table_keep_resident(64 << 10);
        let mut config = Config::new();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = wasmtime::Engine::new(&config)?;
        let component = Component::from_binary(&engine, wasm)?;
        let mut linker = Linker::new(&engine);
        host::link(&mut linker)?;
        let pre = linker.instantiate_pre(&component)?;
        let find = |interface: &str, function: &str| {
            let instance = component.get_export_index(None, host::interface_name(interface).as_str());
            instance
                .and_then(|instance| component.get_export_index(Some(&instance), function))
                .ok_or_else(|| wasmtime::format_err!("the component exports no {interface}.{function}"))
        };
        let describe = find("lifecycle", "describe")?;
        let hook = find(hook.interface(), hook.function())?;
        Ok(Self { engine, pre, describe, hook })
    }

    /// Calls `describe`, the smallest export.
    ///
    /// # Errors
    /// What wasmtime says, as text.
    pub async fn describe(&self) -> Result<Duration, String> {
        self.fresh::<(), Description>(&self.describe, ()).await.map(|(took, _)| took)
    }

    /// Calls `classify`.
    ///
    /// # Errors
    /// What wasmtime or the component says, as text; so with all hooks.
    pub async fn classify(&self, turn: &Turn) -> Result<Duration, String> {
        self.judged::<_, Classification>((turn,)).await
    }

    /// Calls `compose`.
    ///
    /// # Errors
    /// See [`Bare::classify`].
    pub async fn compose(
        &self,
        turn: &Turn,
        classification: &Classification,
        passages: &[Passage],
    ) -> Result<Duration, String> {
        self.judged::<_, Plan>((turn, classification, passages)).await
    }

    /// Calls `apply`.
    ///
    /// # Errors
    /// See [`Bare::classify`].
    pub async fn apply(&self, turn: &Turn, draft: &Draft, passages: &[Passage]) -> Result<Duration, String> {
        self.judged::<_, FilterVerdict>((turn, draft, passages)).await
    }

    /// Calls `decide`.
    ///
    /// # Errors
    /// See [`Bare::classify`].
    pub async fn decide(&self, turn: &Turn, dossier: &Dossier) -> Result<Duration, String> {
        self.judged::<_, EscalationVerdict>((turn, dossier)).await
    }

    async fn judged<P, R>(&self, params: P) -> Result<Duration, String>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: Lift + Send + Sync + 'static,
    {
        let (took, verdict) = self.fresh::<P, Result<R, String>>(&self.hook, params).await?;
        verdict.map(|_| took)
    }

    async fn fresh<P, R>(&self, export: &ComponentExportIndex, params: P) -> Result<(Duration, R), String>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: Lift + Send + Sync + 'static,
    {
        let started = Instant::now();
        let mut store = self.store();
        let run = async {
            let instance = self.pre.instantiate_async(&mut store).await?;
            let function = instance.get_typed_func::<P, (R,)>(&mut store, export)?;
            function.call_async(&mut store, params).await
        };
        let (result,) = run.await.map_err(|error: wasmtime::Error| format!("{error:#}"))?;
        drop(store);
        Ok((started.elapsed(), result))
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
