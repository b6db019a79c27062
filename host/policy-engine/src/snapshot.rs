//! A component that wakes up configured.
//!
//! What `configure` computes (compiled patterns, lexicons) is the same for every call, so it is computed once: the
//! component is instrumented so that its memories and globals can be read, configured, and read; what was read becomes
//! the initial content of an ordinary component, which is then compiled. A fresh instance of that starts from a
//! copy-on-write image, at the price of an unconfigured one.
//!
//! Not every component allows it. One whose tables change while it runs cannot be read that way, nor one that holds a
//! resource of the host's across `configure` (the resource would be gone). Such a component stays as it is, is configured
//! before every call, and its status says why.

use std::panic::{AssertUnwindSafe, catch_unwind};

use wasmtime::Store;
use wasmtime::component::{Component, ComponentNamedList, Instance, Lift, WasmList};
use wasmtime_wizer::{ComponentContext, ComponentInstanceState, Wizer};

use crate::engine::{LOAD_FUEL, MEMORY_BYTES_MAX, Shared};
use crate::policy::far_from_now;
use crate::state::CallState;

/// Time for reading an instance's memories, in milliseconds.
const READ_DEADLINE_MS: u32 = 30_000;
/// Name of the instance that instrumentation adds to a component's exports.
pub(crate) const ACCESS: &str = "wasmtime:wizer/access";

/// A component that can be read.
pub(crate) struct Readable<'a> {
    context: ComponentContext<'a>,
    /// To be configured, then given to [`Readable::read`].
    pub component: Component,
}

/// Key of the compiled snapshot of a component with its settings.
fn key(shared: &Shared, wasm: &[u8], settings: &str) -> String {
    shared.cache_key("snapshot", &[wasm, settings.as_bytes()])
}

/// The snapshot that an earlier load left in the cache.
pub(crate) fn cached(shared: &Shared, wasm: &[u8], settings: &str) -> Option<Component> {
    if !shared.options.snapshots {
        return None;
    }
    let cache = shared.options.cache.as_ref()?;
    cache.get(&key(shared, wasm, settings)).and_then(|artifact| shared.deserialize(&artifact))
}

/// Makes a component readable, or says why it cannot be.
pub(crate) fn readable<'a>(shared: &Shared, wasm: &'a [u8]) -> Result<Readable<'a>, String> {
    if !shared.options.snapshots {
        return Err("snapshots are switched off".to_owned());
    }
    let (context, instrumented) = guarded(|| Wizer::new().instrument_component(wasm))?;
    let component = shared.compile(&instrumented).map_err(|error| format!("{error:#}"))?;
    Ok(Readable { context, component })
}

impl Readable<'_> {
    /// Reads a configured instance; the result is an ordinary component that starts in that state.
    pub async fn read(&self, store: &mut Store<CallState>, instance: Instance) -> Result<Vec<u8>, String> {
        if store.data().holds_resources() {
            return Err("it holds a resource of the host's after `configure`, most likely the stream that it printed to: log instead"
                .to_owned());
        }
        store.data_mut().deadline = far_from_now(READ_DEADLINE_MS);
        store.set_hostcall_fuel(MEMORY_BYTES_MAX * 2);
        store.set_fuel(LOAD_FUEL).map_err(|error| format!("{error:#}"))?;
        let mut reader = Reader { store, instance, failed: None };
        let snapshot = Wizer::new().snapshot_component(&self.context, &mut reader).await;
        if let Some(error) = reader.failed {
            return Err(format!("its state cannot be read: {error:#}"));
        }
        snapshot.map_err(|error| format!("{error:#}"))
    }
}

/// Compiles what was read, and leaves it in the cache for the next load of the same component with the same settings.
pub(crate) fn compile(shared: &Shared, snapshot: &[u8], wasm: &[u8], settings: &str) -> Result<Component, String> {
    let component = Component::from_binary(&shared.wasmtime, snapshot).map_err(|error| format!("{error:#}"))?;
    if let Some(cache) = &shared.options.cache
        && let Ok(artifact) = component.serialize()
    {
        cache.put(&key(shared, wasm, settings), &artifact);
    }
    Ok(component)
}

/// Runs the snapshot tool on bytes from outside: where it panics, the component just stays as it is.
pub(crate) fn guarded<T>(work: impl FnOnce() -> wasmtime::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| format!("{error:#}")),
        Err(_) => Err("the snapshot tool does not understand it".to_owned()),
    }
}

/// Reads memories and globals through the functions that instrumentation added.
struct Reader<'a> {
    store: &'a mut Store<CallState>,
    instance: Instance,
    /// The trait has no way to report an error; the first one is kept here, and the snapshot thrown away.
    failed: Option<wasmtime::Error>,
}

impl Reader<'_> {
    async fn call<R>(&mut self, instance: &str, function: &str) -> Option<R>
    where
        (R,): ComponentNamedList + Lift,
        R: Send + Sync + 'static,
    {
        match self.try_call::<R>(instance, function).await {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed.get_or_insert(error);
                None
            }
        }
    }

    async fn try_call<R>(&mut self, instance: &str, function: &str) -> wasmtime::Result<R>
    where
        (R,): ComponentNamedList + Lift,
        R: Send + Sync + 'static,
    {
        let missing = || wasmtime::format_err!("the accessor {instance}.{function} is missing");
        let outer = self.instance.get_export_index(&mut *self.store, None, instance).ok_or_else(missing)?;
        let inner = self.instance.get_export_index(&mut *self.store, Some(&outer), function).ok_or_else(missing)?;
        let accessor = self.instance.get_typed_func::<(), (R,)>(&mut *self.store, &inner)?;
        Ok(accessor.call_async(&mut *self.store, ()).await?.0)
    }
}

impl ComponentInstanceState for Reader<'_> {
    async fn call_func_ret_list_u8(&mut self, instance: &str, func: &str, contents: impl FnOnce(&[u8]) + Send) {
        match self.call::<WasmList<u8>>(instance, func).await {
            Some(list) => contents(list.as_le_slice(&*self.store)),
            None => contents(&[]),
        }
    }

    async fn call_func_ret_s32(&mut self, instance: &str, func: &str) -> i32 {
        self.call(instance, func).await.unwrap_or_default()
    }

    async fn call_func_ret_s64(&mut self, instance: &str, func: &str) -> i64 {
        self.call(instance, func).await.unwrap_or_default()
    }

    async fn call_func_ret_f32(&mut self, instance: &str, func: &str) -> u32 {
        self.call::<f32>(instance, func).await.unwrap_or_default().to_bits()
    }

    async fn call_func_ret_f64(&mut self, instance: &str, func: &str) -> u64 {
        self.call::<f64>(instance, func).await.unwrap_or_default().to_bits()
    }
}
