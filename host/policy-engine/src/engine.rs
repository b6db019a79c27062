//! The engine: one wasmtime, its pool of instances, and the clock tick that interrupts what runs too long.
//!
//! # Structures
//! - **The pool** holds the memories, tables and stacks of all instances. It refuses when it is full, so a semaphore
//!   of the same size stands in front of it and makes calls wait, for a bounded time.
//! - **The ticker** is a thread that advances the epoch every [`TICK_MS`]. It holds the engine weakly and ends with it.
//!   At each tick a running component yields its thread to other tasks, or is interrupted when its time is up.
//! - **The artefact cache** is the caller's: this crate does no I/O.
//! - **The function cache** ([`crate::function_cache`]) keeps the code of single functions in memory: other settings, same functions.
//!
//! # Invariants
//! - A store serves one call and is dropped, whatever came of it: after a trap a store is dead anyway, and a fresh
//!   instance is what the contract promises.
//! - A permit is given back after the store is dropped, never before; otherwise the pool could be full.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, Store, UpdateDeadline};

use crate::function_cache::FunctionCache;
use crate::host;
use crate::limits::Limits;
use crate::state::CallState;

/// How often a running component looks at the clock, in milliseconds.
pub(crate) const TICK_MS: u64 = 5;
/// Most elements of a table; the pool's slots are this large.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 20_000;
/// Most memories of one component: a QuickJS component has three.
pub(crate) const MEMORIES_MAX: u32 = 3;
/// Most tables of one component.
pub(crate) const TABLES_MAX: u32 = 40;
/// Core instances and tables per component instance that the pool provides for. A component with more does not compile: it
/// would take the places of others.
const CORE_INSTANCES_PER_INSTANCE: u32 = 40;
/// Instances beside those of calls: one that is being loaded, one that is being snapshotted.
const LOAD_INSTANCES: u32 = 2;
/// The largest memory of one instance, and the pool's slot size. [`Limits::checked`] allows no more.
pub(crate) const MEMORY_BYTES_MAX: usize = 128 << 20;

/// Compiled components, kept by the caller. The engine compiles when there is none.
///
/// # Trust
/// What `get` returns is mapped as machine code and executed. An implementation must return only what `put` was given
/// under the same key, from a place that nobody else can write (a folder with mode 0700, owned by the process's user).
/// It must notice bytes that were damaged: the engine does not in general.
pub trait ArtifactCache: Send + Sync {
    /// The artefact, if there is one. `key` is 1 to 200 characters of `[0-9a-z-]`.
    fn get(&self, key: &str) -> Option<Vec<u8>>;
    /// Keeps an artefact; failing to do so is the implementation's to report.
    fn put(&self, key: &str, artifact: &[u8]);
}

/// How an engine is made.
#[derive(Clone)]
pub struct EngineOptions {
    /// Calls that run at once; more wait. Each reserves address space (some 12 GiB), not memory. 1 to 512, default 64.
    pub max_concurrent_calls: u32,
    /// How long a call waits for a free instance before it ends with a `deadline` fault, in milliseconds. Default 2,000.
    pub queue_wait_ms: u32,
    /// Whether one compilation may use all cores. Off by default: a large component would starve the calls.
    pub parallel_compilation: bool,
    /// Whether configured components are snapshotted. On by default.
    pub snapshots: bool,
    /// Where compiled components are kept.
    pub cache: Option<Arc<dyn ArtifactCache>>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            max_concurrent_calls: 64,
            queue_wait_ms: 2_000,
            parallel_compilation: false,
            snapshots: true,
            cache: None,
        }
    }
}

impl std::fmt::Debug for EngineOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineOptions")
            .field("max_concurrent_calls", &self.max_concurrent_calls)
            .field("queue_wait_ms", &self.queue_wait_ms)
            .field("parallel_compilation", &self.parallel_compilation)
            .field("snapshots", &self.snapshots)
            .field("cache", &self.cache.is_some())
            .finish()
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// An option outside its range.
    #[error("max_concurrent_calls is {found}; it must be between 1 and 512")]
    MaxConcurrentCalls {
        /// What was found.
        found: u32,
    },
    /// The runtime refused, most often because address space is limited (`ulimit -v`).
    #[error(
        "the WebAssembly runtime could not start: {reason}. It reserves address space for {max_concurrent_calls} \
         instances: lower max_concurrent_calls, or lift the process's limit of virtual memory"
    )]
    Runtime {
        /// What wasmtime said.
        reason: String,
        /// The option in force.
        max_concurrent_calls: u32,
    },
    /// The ticker thread could not be started.
    #[error("the thread that interrupts long-running components could not be started")]
    Ticker {
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// How much of the pool is in use; for metrics, and for tests that everything was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Live component instances.
    pub component_instances: u64,
    /// Live core instances.
    pub core_instances: u64,
    /// Live linear memories.
    pub memories: usize,
    /// Live tables.
    pub tables: usize,
    /// Live stacks.
    pub stacks: usize,
    /// Calls that could start at once.
    pub free_calls: usize,
}

/// Runs policies. Cheap to clone; one per process is meant.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// What all policies of an engine share.
pub(crate) struct Shared {
    pub wasmtime: wasmtime::Engine,
    pub linker: Linker<CallState>,
    pub permits: Semaphore,
    /// Held while a component that is being loaded runs: the pool provides for one such.
    pub loading: Mutex<()>,
    pub options: EngineOptions,
    /// Part of every cache key: artefacts of another wasmtime or configuration must not meet.
    compatibility: String,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts an engine and its ticker thread, which ends when the last clone and policy are gone.
    ///
    /// # Errors
    /// An option out of range, or a machine that does not give the address space.
    pub fn new(options: EngineOptions) -> Result<Self, EngineError> {
        let max_concurrent_calls = options.max_concurrent_calls;
        if !(1..=512).contains(&max_concurrent_calls) {
            return Err(EngineError::MaxConcurrentCalls { found: max_concurrent_calls });
        }
        let refused =
            |error: wasmtime::Error| EngineError::Runtime { reason: format!("{error:#}"), max_concurrent_calls };
        let mut config = config(&options);
        config.enable_incremental_compilation(Arc::new(FunctionCache::default())).map_err(refused)?;
        let wasmtime = wasmtime::Engine::new(&config).map_err(refused)?;
        let mut linker = Linker::new(&wasmtime);
        host::link(&mut linker).map_err(refused)?;
        start_ticker(&wasmtime)?;
        let compatibility = compatibility(&wasmtime);
        let permits = Semaphore::new(max_concurrent_calls as usize);
        Ok(Self {
            shared: Arc::new(Shared { wasmtime, linker, permits, loading: Mutex::new(()), options, compatibility }),
        })
    }

    /// What is in use now.
    #[must_use]
    pub fn pool_use(&self) -> PoolUse {
        let free_calls = self.shared.permits.available_permits();
        match self.shared.wasmtime.pooling_allocator_metrics() {
            Some(metrics) => PoolUse {
                component_instances: metrics.component_instances(),
                core_instances: metrics.core_instances(),
                memories: metrics.memories(),
                tables: metrics.tables(),
                stacks: metrics.stacks(),
                free_calls,
            },
            None => {
                PoolUse { component_instances: 0, core_instances: 0, memories: 0, tables: 0, stacks: 0, free_calls }
            }
        }
    }
}

impl Shared {
    /// A store for one instance. The epoch makes it yield at every tick until its deadline, then interrupts it.
    pub fn store(&self, state: CallState, output_bytes_max: usize) -> Store<CallState> {
        let mut store = Store::new(&self.wasmtime, state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(output_bytes_max);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store| {
            Ok(if Instant::now() >= store.data().deadline {
                UpdateDeadline::Interrupt
            } else {
                // tokio's own yield lets timers and sockets have their turn, too; waking at once would starve them.
                UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
            })
        });
        store
    }

    /// A store for an instance that is to be configured first.
    pub fn load_store(&self, limits: &Limits) -> Store<CallState> {
        let limits = load_limits(limits);
        let deadline = Instant::now() + Duration::from_millis(limits.deadline_ms.into());
        self.store(CallState::new(&limits, deadline), limits.output_bytes())
    }

    /// Compiles `wasm`, or takes what the cache has of it.
    pub fn compile(&self, wasm: &[u8]) -> wasmtime::Result<Component> {
        let Some(cache) = &self.options.cache else {
            return Component::from_binary(&self.wasmtime, wasm);
        };
        let key = self.cache_key("component", &[wasm]);
        if let Some(component) = cache.get(&key).and_then(|artifact| self.deserialize(&artifact)) {
            return Ok(component);
        }
        let component = Component::from_binary(&self.wasmtime, wasm)?;
        if let Ok(artifact) = component.serialize() {
            cache.put(&key, &artifact);
        }
        Ok(component)
    }

    /// Key of an artefact: what it is, what it was made from, and by which engine.
    pub fn cache_key(&self, what: &str, parts: &[&[u8]]) -> String {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        format!("{what}-{}-{}", hex::encode(hash.finalize()), self.compatibility)
    }

    /// Takes an artefact from the cache; one of another engine is refused by wasmtime and then compiled anew.
    pub fn deserialize(&self, artifact: &[u8]) -> Option<Component> {
        #[expect(
            unsafe_code,
            reason = "the artefact is machine code; ArtifactCache's contract says where it comes from"
        )]
        // SAFETY: `ArtifactCache` promises to return only what `Component::serialize` gave it.
        let component = unsafe { Component::deserialize(&self.wasmtime, artifact) };
        match component {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(%error, "a compiled component in the cache does not fit this engine; compiling anew");
                None
            }
        }
    }
}

fn config(options: &EngineOptions) -> Config {
    let instances = options.max_concurrent_calls + LOAD_INSTANCES;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances * CORE_INSTANCES_PER_INSTANCE)
        .total_memories(instances * MEMORIES_MAX)
        .total_tables(instances * CORE_INSTANCES_PER_INSTANCE)
        .total_stacks(instances)
        .max_core_instances_per_component(CORE_INSTANCES_PER_INSTANCE)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(8)
        .max_memory_size(MEMORY_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        // Room for the metadata of interpreters; address space only.
        .max_component_instance_size(8 << 20)
        .max_core_instance_size(4 << 20)
        // With the kernel's help only touched pages are reset, and keeping many resident is the fastest there is;
        // without it (before Linux 6.7) resetting them all would cost more than giving them back.
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(if PoolingAllocationConfig::is_pagemap_scan_available() {
            2 << 20
        } else {
            128 << 10
        })
        .table_keep_resident(64 << 10);

    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_init_cow(true)
        .consume_fuel(true)
        .epoch_interruption(true)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16))
        .parallel_compilation(options.parallel_compilation)
        // The same bits on every machine: a replay compares results byte for byte.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        // None is any use to a policy; all are more to get wrong.
        .wasm_memory64(false)
        .wasm_threads(false)
        .wasm_exceptions(false)
        .wasm_gc(false);
    config
}

fn start_ticker(engine: &wasmtime::Engine) -> Result<(), EngineError> {
    let engine = engine.weak();
    std::thread::Builder::new()
        .name("policy-ticker".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(TICK_MS));
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
            }
        })
        .map(drop)
        .map_err(|source| EngineError::Ticker { source })
}

/// A stable name of everything that must agree between the compiler of an artefact and its user.
fn compatibility(engine: &wasmtime::Engine) -> String {
    struct Feed(Sha256);
    impl std::hash::Hasher for Feed {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut feed = Feed(Sha256::new());
    std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut feed);
    hex::encode(&feed.0.finalize()[..16])
}

/// Limits of `describe` and `configure`, which no chain sets; memory and log lines are the chain's.
pub(crate) fn load_limits(limits: &Limits) -> Limits {
    Limits { fuel: LOAD_FUEL, deadline_ms: LOAD_DEADLINE_MS, output_kib: LOAD_OUTPUT_KIB, lookups: 0, ..limits.clone() }
}

/// Fuel of `describe` and `configure`, each: compiling a few hundred patterns takes a tenth of it.
pub(crate) const LOAD_FUEL: u64 = 3_000_000_000;
/// Wall-clock time of `describe` and `configure`, each, in milliseconds, when a component is loaded. Far above what
/// [`LOAD_FUEL`] takes on a slow and busy machine: it ends what sleeps, and must not refuse what is only kept waiting.
pub(crate) const LOAD_DEADLINE_MS: u32 = 10_000;
/// The same where a component that could not be snapshotted is configured before a call: a customer waits.
pub(crate) const PREPARE_DEADLINE_MS: u32 = 5_000;
/// What a component may hand over at once while it is loaded, in KiB: schemas are larger than verdicts.
const LOAD_OUTPUT_KIB: u32 = 1_024;
