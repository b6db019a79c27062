//! A loaded policy, and how one call of it runs.
//!
//! # One call
//! ```text
//! permit ─> store ─> instance ─┬─ snapshotted: memory is already configured
//!                              └─ not: configure(settings), on its own budget
//!           ─> fuel and deadline of the chain ─> the hook ─> checks of the result ─> store dropped ─> permit back
//! ```
//! Whatever goes wrong on the way becomes a [`Fault`]; nothing of the instance survives. A call that is dropped by its
//! caller half-way (a cancelled task) drops the store and gives everything back, too.
//!
//! The fuel that is reported is the hook's alone. It does not depend on whether the component was snapshotted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Instance, InstancePre, Lift, Lower};

use crate::blame::{Stopped, blame};
use crate::block_on::block_on_until;
use crate::engine::{LOAD_DEADLINE_MS, LOAD_FUEL, PREPARE_DEADLINE_MS, Shared};
use crate::fault::{Called, Fault, FaultKind};
use crate::hook::Hook;
use crate::limits::Limits;
use crate::lookup::CallContext;
use crate::state::CallState;
use crate::types::{
    Classification, Description, Dossier, Draft, EscalationVerdict, FilterVerdict, Passage, Plan, SettingError, Turn,
};
use crate::validate;

/// A policy that was loaded, configured and tried. Cheap to clone; immutable.
#[derive(Clone)]
pub struct Policy {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub shared: Arc<Shared>,
    pub hook: Hook,
    pub description: Description,
    pub settings_schema: serde_json::Value,
    /// Canonical JSON, as the component gets it.
    pub settings: String,
    pub component_sha256: String,
    pub settings_sha256: String,
    pub limits: Limits,
    pub unused_grants: Vec<String>,
    pub snapshot: SnapshotStatus,
    pub program: Program,
}

/// What is instantiated for a call.
pub(crate) struct Program {
    pub pre: InstancePre<CallState>,
    pub exports: Exports,
}

/// Where the functions are.
pub(crate) struct Exports {
    pub describe: ComponentExportIndex,
    pub configure: ComponentExportIndex,
    pub hook: ComponentExportIndex,
}

/// Whether calls start from a snapshot of the configured component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotStatus {
    /// They do: `configure` ran once, when the policy was loaded.
    Snapshotted,
    /// They do not: `configure` runs before every call.
    NotPossible {
        /// Why, in words for the status page.
        reason: String,
    },
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy")
            .field("hook", &self.inner.hook)
            .field("name", &self.inner.description.name)
            .field("version", &self.inner.description.version)
            .field("component_sha256", &self.inner.component_sha256)
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// The hook that the policy serves.
    #[must_use]
    pub fn hook(&self) -> Hook {
        self.inner.hook
    }

    /// What the component says about itself.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.inner.description
    }

    /// The schema of the settings, parsed: a JSON object.
    #[must_use]
    pub fn settings_schema(&self) -> &serde_json::Value {
        &self.inner.settings_schema
    }

    /// The settings in force, as canonical JSON (keys sorted, no spaces).
    #[must_use]
    pub fn settings(&self) -> &str {
        &self.inner.settings
    }

    /// SHA-256 of the component, in hexadecimal.
    #[must_use]
    pub fn component_sha256(&self) -> &str {
        &self.inner.component_sha256
    }

    /// SHA-256 of the canonical settings, in hexadecimal.
    #[must_use]
    pub fn settings_sha256(&self) -> &str {
        &self.inner.settings_sha256
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Grants that the chain gives and the component does not use.
    #[must_use]
    pub fn unused_grants(&self) -> &[String] {
        &self.inner.unused_grants
    }

    /// Whether calls start from a snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &SnapshotStatus {
        &self.inner.snapshot
    }

    /// Calls `classify`. Needs a tokio runtime with time enabled, like every call.
    pub async fn classify(&self, context: &CallContext, turn: &Turn) -> Called<Classification> {
        self.inner.call(Hook::Classify, context, turn, (turn,), validate::classification).await
    }

    /// Calls `compose`.
    pub async fn compose(
        &self,
        context: &CallContext,
        turn: &Turn,
        classification: &Classification,
        passages: &[Passage],
    ) -> Called<Plan> {
        self.inner.call(Hook::Tone, context, turn, (turn, classification, passages), validate::plan).await
    }

    /// Calls `apply`.
    pub async fn apply(
        &self,
        context: &CallContext,
        turn: &Turn,
        draft: &Draft,
        passages: &[Passage],
    ) -> Called<FilterVerdict> {
        let check = |found: &FilterVerdict| validate::filter_verdict(found, draft);
        self.inner.call(Hook::Filter, context, turn, (turn, draft, passages), check).await
    }

    /// Calls `decide`.
    pub async fn decide(&self, context: &CallContext, turn: &Turn, dossier: &Dossier) -> Called<EscalationVerdict> {
        let check = |found: &EscalationVerdict| validate::escalation_verdict(found, dossier);
        self.inner.call(Hook::Escalate, context, turn, (turn, dossier), check).await
    }
}

/// Which clock ends a call that waits.
#[derive(Clone, Copy)]
enum Timer {
    /// tokio's.
    Tokio,
    /// The caller's, around everything.
    Outside,
}

impl Timer {
    async fn bound<F: Future>(self, limit_ms: u32, future: F) -> Result<F::Output, Stopped> {
        match self {
            Self::Tokio => tokio::time::timeout(Duration::from_millis(limit_ms.into()), future)
                .await
                .map_err(|_elapsed| Stopped::TimedOut),
            Self::Outside => Ok(future.await),
        }
    }
}

/// How far a call came: the name of the function that was running, and since when.
struct Stage {
    function: &'static str,
    /// When the call got its instance.
    created: Instant,
    /// When `function` was entered.
    started: Instant,
    /// Zero until the hook is entered.
    fuel_given: u64,
}

impl Stage {
    fn new() -> Self {
        let now = Instant::now();
        Self { function: "instantiate", created: now, started: now, fuel_given: 0 }
    }
}

impl Inner {
    async fn call<P, R>(
        &self,
        hook: Hook,
        context: &CallContext,
        turn: &Turn,
        params: P,
        check: impl FnOnce(&R) -> Result<(), FaultKind>,
    ) -> Called<R>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: Lift + Send + Sync + 'static,
    {
        let wait_ms = self.shared.options.queue_wait_ms;
        let waiting = Instant::now();
        let permit = tokio::time::timeout(Duration::from_millis(wait_ms.into()), self.shared.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            let limits = Limits { deadline_ms: wait_ms, ..self.limits.clone() };
            return self.no_instance(hook, &limits, waiting);
        };
        // `_permit` was declared first and so is dropped last, after the store.
        let mut store = self.shared.load_store(&self.limits);
        let mut stage = Stage::new();
        let outcome =
            self.attempt(Timer::Tokio, &self.limits, &mut store, &mut stage, hook, context, turn, params, check).await;
        self.finish(&self.limits, store, &stage, outcome)
    }

    /// The same on the calling thread, for the canary. Waits are bounded from outside, fuel as in a real call.
    pub fn call_blocking<P, R>(
        &self,
        turn: &Turn,
        params: P,
        check: impl FnOnce(&R) -> Result<(), FaultKind>,
    ) -> Called<R>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: Lift + Send + Sync + 'static,
    {
        // A busy machine must not refuse a good component: the deadline is generous, the fuel is exact.
        let limits = Limits { deadline_ms: LOAD_DEADLINE_MS, ..self.limits.clone() };
        let mut store = self.shared.load_store(&limits);
        let mut stage = Stage::new();
        let until = Instant::now() + Duration::from_millis(u64::from(LOAD_DEADLINE_MS) * 2);
        let outcome = block_on_until(
            until,
            self.attempt(
                Timer::Outside,
                &limits,
                &mut store,
                &mut stage,
                self.hook,
                &CallContext::default(),
                turn,
                params,
                check,
            ),
        )
        .unwrap_or(Err(Stopped::TimedOut));
        self.finish(&limits, store, &stage, outcome)
    }

    #[expect(clippy::too_many_arguments, reason = "one private function holds the order of a call's steps")]
    async fn attempt<P, R>(
        &self,
        timer: Timer,
        limits: &Limits,
        store: &mut Store<CallState>,
        stage: &mut Stage,
        hook: Hook,
        context: &CallContext,
        turn: &Turn,
        params: P,
        check: impl FnOnce(&R) -> Result<(), FaultKind>,
    ) -> Result<R, Stopped>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: Lift + Send + Sync + 'static,
    {
        if hook != self.hook {
            return Err(Stopped::GaveUp(format!("it serves the hook {}, and was asked to {hook}", self.hook)));
        }
        store.set_fuel(LOAD_FUEL).map_err(Stopped::Error)?;
        let instance = timer.bound(PREPARE_DEADLINE_MS, self.prepare(store, stage)).await??;
        stage.function = hook.function();
        stage.started = Instant::now();
        // One more than the limit, so that a call which uses exactly the limit never sees an empty tank.
        stage.fuel_given = limits.fuel + 1;
        store.set_fuel(stage.fuel_given).map_err(Stopped::Error)?;
        store.set_hostcall_fuel(limits.output_bytes());
        let state = store.data_mut();
        state.begin_turn(turn, context.lookup.clone(), limits.lookups);
        state.deadline = far_from_now(limits.deadline_ms);
        let called = timer.bound(limits.deadline_ms, self.call_hook::<P, R>(store, instance, params)).await?;
        let result = called.map_err(Stopped::Error)?.map_err(Stopped::GaveUp)?;
        if store.get_fuel().map_err(Stopped::Error)? == 0 {
            return Err(Stopped::Overspent);
        }
        check(&result).map_err(Stopped::Bad)?;
        Ok(result)
    }

    /// A fresh instance that has its settings.
    async fn prepare(&self, store: &mut Store<CallState>, stage: &mut Stage) -> Result<Instance, Stopped> {
        let instance = self.program.pre.instantiate_async(&mut *store).await.map_err(Stopped::Error)?;
        if self.snapshot != SnapshotStatus::Snapshotted {
            stage.function = "configure";
            stage.started = Instant::now();
            let refused =
                configure(store, instance, &self.program.exports, &self.settings).await.map_err(Stopped::Error)?;
            if let Err(errors) = refused {
                let count = errors.len();
                return Err(Stopped::GaveUp(format!(
                    "it refused settings ({count} errors) that it took when it was loaded: it is not deterministic"
                )));
            }
        }
        Ok(instance)
    }

    async fn call_hook<P, R>(
        &self,
        store: &mut Store<CallState>,
        instance: Instance,
        params: P,
    ) -> wasmtime::Result<Result<R, String>>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: Lift + Send + Sync + 'static,
    {
        let function = instance.get_typed_func::<P, (Result<R, String>,)>(&mut *store, &self.program.exports.hook)?;
        let (result,) = function.call_async(&mut *store, params).await?;
        Ok(result)
    }

    fn finish<R>(
        &self,
        limits: &Limits,
        store: Store<CallState>,
        stage: &Stage,
        outcome: Result<R, Stopped>,
    ) -> Called<R> {
        let elapsed = stage.started.elapsed();
        let left = store.get_fuel().unwrap_or(0);
        let fuel_used = if stage.fuel_given == 0 { 0 } else { (stage.fuel_given - left).min(limits.fuel) };
        let state = store.into_data();
        let result = outcome.map_err(|stopped| {
            let used_ms = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
            self.fault(stage.function, stopped, limits, used_ms, &state.printed())
        });
        Called {
            result,
            fuel_used,
            elapsed_us: u64::try_from(stage.created.elapsed().as_micros()).unwrap_or(u64::MAX),
            memory_bytes: state.limiter.total_bytes,
            logs: state.logs,
            logs_dropped: state.logs_dropped,
            host_answers: state.host_answers,
        }
    }

    fn no_instance<R>(&self, hook: Hook, limits: &Limits, waiting: Instant) -> Called<R> {
        let used_ms = u32::try_from(waiting.elapsed().as_millis()).unwrap_or(u32::MAX);
        Called {
            result: Err(self.fault(hook.function(), Stopped::NoInstance, limits, used_ms, "")),
            fuel_used: 0,
            elapsed_us: 0,
            memory_bytes: 0,
            logs: Vec::new(),
            logs_dropped: 0,
            host_answers: Vec::new(),
        }
    }

    fn fault(&self, function: &str, stopped: Stopped, limits: &Limits, used_ms: u32, printed: &str) -> Fault {
        let blame = blame(stopped, limits, used_ms, printed);
        Fault {
            hook: self.hook,
            policy: self.description.name.clone(),
            version: self.description.version.clone(),
            function: function.to_owned(),
            kind: blame.kind,
            detail: blame.detail,
            guest_frames: blame.guest_frames,
        }
    }
}

/// Calls `lifecycle.configure` on an instance.
pub(crate) async fn configure(
    store: &mut Store<CallState>,
    instance: Instance,
    exports: &Exports,
    settings: &str,
) -> wasmtime::Result<Result<(), Vec<SettingError>>> {
    let function =
        instance.get_typed_func::<(&str,), (Result<(), Vec<SettingError>>,)>(&mut *store, &exports.configure)?;
    let (result,) = function.call_async(&mut *store, (settings,)).await?;
    Ok(result)
}

/// The moment `ms` milliseconds from now.
pub(crate) fn far_from_now(ms: u32) -> Instant {
    Instant::now() + Duration::from_millis(ms.into())
}
