//! What the host keeps for one instance: limits in force, what was logged and asked, and a locked-down WASI.
//!
//! One `CallState` lives inside one store and dies with it. WASI is linked because the standard libraries of Rust, C and
//! Python expect it, and gives nothing away: no files, arguments or environment, no sockets, clocks that stand still at the
//! turn's time, random numbers that follow from the turn's id. The context behind it is made when the component first
//! asks for it, because most calls never do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use wasmtime::ResourceLimiter;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult, subscribe};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::fault::{HostAnswer, LogLine};
use crate::limits::Limits;
use crate::lookup::KnowledgeLookup;
use crate::types::Turn;

/// Seed of the random numbers that `configure` sees: the same for every component and turn, because what it computes is
/// snapshotted.
const CONFIGURE_SEED: &str = "configure";
/// Most host resources (streams, pollables) that an instance may hold at once.
const RESOURCES_MAX: usize = 256;
/// Most random bytes in one call.
const RANDOM_BYTES_MAX: u64 = 64 << 10;
/// How much of the end of standard output and error is kept.
const PRINTED_BYTES_MAX: usize = 2_048;

/// The state of one instance.
pub(crate) struct CallState {
    /// Memory and table limits, consulted by wasmtime on every growth.
    pub limiter: MemoryLimiter,
    /// Past this moment the component is interrupted.
    pub deadline: Instant,
    /// Kept log lines, at most `log_lines_max`.
    pub logs: Vec<LogLine>,
    /// Log lines beyond that.
    pub logs_dropped: u32,
    /// The limit of `logs`.
    pub log_lines_max: usize,
    /// Answers given to the component.
    pub host_answers: Vec<HostAnswer>,
    /// Look-ups still allowed.
    pub lookups_left: u32,
    /// Time of one look-up.
    pub lookup_timeout_ms: u32,
    /// Who answers them.
    pub lookup: Option<Arc<dyn KnowledgeLookup>>,
    printed: Arc<Mutex<Vec<u8>>>,
    now_ms: u64,
    random: SeededRandom,
    wasi: Option<Box<WasiCtx>>,
    table: ResourceTable,
}

impl CallState {
    /// The state of a fresh instance that no turn has reached yet: clocks at zero, no look-ups.
    pub fn new(limits: &Limits, deadline: Instant) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Self {
            limiter: MemoryLimiter { limit_bytes: limits.memory_bytes(), total_bytes: 0 },
            deadline,
            logs: Vec::new(),
            logs_dropped: 0,
            log_lines_max: limits.log_lines as usize,
            host_answers: Vec::new(),
            lookups_left: 0,
            lookup_timeout_ms: limits.lookup_timeout_ms,
            lookup: None,
            printed: Arc::default(),
            now_ms: 0,
            random: SeededRandom::new(CONFIGURE_SEED),
            wasi: None,
            table,
        }
    }

    /// Between `configure`, which must depend on nothing, and the hook, which depends on the turn: moves the clocks,
    /// restarts the random numbers, forgets what was logged, printed and asked.
    pub fn begin_turn(&mut self, turn: &Turn, lookup: Option<Arc<dyn KnowledgeLookup>>, lookups: u32) {
        self.random = SeededRandom::new(&turn.id);
        self.now_ms = turn.now_ms;
        self.lookup = lookup;
        self.lookups_left = lookups;
        self.logs.clear();
        self.logs_dropped = 0;
        self.host_answers.clear();
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether the component holds a resource of the host's, such as an open stream.
    pub fn holds_resources(&self) -> bool {
        !self.table.is_empty()
    }

    /// The end of what the component printed, which is where a panic's message stands.
    pub fn printed(&self) -> String {
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&printed).trim().to_owned()
    }
}

/// Bounds the sum of an instance's memories.
#[derive(Debug)]
pub(crate) struct MemoryLimiter {
    limit_bytes: u64,
    /// Sum over all memories of the instance.
    pub total_bytes: u64,
}

/// A refused growth, told apart from other traps by its type.
#[derive(Debug, thiserror::Error)]
#[error("the component wanted {wanted_bytes} bytes of memory, the limit is {limit_bytes}")]
pub(crate) struct MemoryRefused {
    pub limit_bytes: u64,
    pub wanted_bytes: u64,
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let wanted_bytes = self.total_bytes.saturating_add((desired as u64).saturating_sub(current as u64));
        if wanted_bytes > self.limit_bytes {
            // A trap rather than a failed `memory.grow`: an allocator that gives up aborts without saying why.
            return Err(MemoryRefused { limit_bytes: self.limit_bytes, wanted_bytes }.into());
        }
        self.total_bytes = wanted_bytes;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= crate::engine::TABLE_ELEMENTS_MAX)
    }
}

/// SHA-256 in counter mode over a seed: the same numbers on every machine and in every version of the host.
#[derive(Debug)]
struct SeededRandom {
    seed: [u8; 32],
    counter: u64,
    block: [u8; 32],
    used: usize,
}

impl SeededRandom {
    fn new(seed: &str) -> Self {
        Self { seed: Sha256::digest(seed.as_bytes()).into(), counter: 0, block: [0; 32], used: 32 }
    }

    fn byte(&mut self) -> u8 {
        if self.used == self.block.len() {
            let mut hash = Sha256::new();
            hash.update(self.seed);
            hash.update(self.counter.to_le_bytes());
            self.block = hash.finalize().into();
            self.counter += 1;
            self.used = 0;
        }
        let byte = self.block[self.used];
        self.used += 1;
        byte
    }

    fn bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        if len > RANDOM_BYTES_MAX {
            wasmtime::bail!("{len} random bytes were asked for at once; at most {RANDOM_BYTES_MAX} are given");
        }
        Ok((0..len).map(|_| self.byte()).collect())
    }

    fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| (number << 8) | u64::from(self.byte()))
    }
}

impl random::Host for CallState {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random.bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random.number())
    }
}

impl insecure::Host for CallState {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random.bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random.number())
    }
}

impl insecure_seed::Host for CallState {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.random.number(), self.random.number()))
    }
}

impl wall_clock::Host for CallState {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let nanoseconds = u32::try_from(self.now_ms % 1_000).unwrap_or(0) * 1_000_000;
        Ok(wall_clock::Datetime { seconds: self.now_ms / 1_000, nanoseconds })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: 1_000_000 })
    }
}

impl monotonic_clock::Host for CallState {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.now_ms.saturating_mul(1_000_000))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1_000_000)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let now = self.now_ms.saturating_mul(1_000_000);
        monotonic_clock::Host::subscribe_duration(self, when.saturating_sub(now))
    }

    fn subscribe_duration(&mut self, duration_ns: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let timer = self.table.push(StoppedTimer { over: duration_ns == 0 })?;
        subscribe(&mut self.table, timer)
    }
}

/// A timer of a clock that stands still: over at once, or never. Who waits for one that is never over is ended by the
/// deadline, and holds no thread meanwhile.
struct StoppedTimer {
    over: bool,
}

#[wasmtime_wasi::async_trait]
impl Pollable for StoppedTimer {
    async fn ready(&mut self) {
        if !self.over {
            std::future::pending::<()>().await;
        }
    }
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let printed = &self.printed;
        let ctx = self.wasi.get_or_insert_with(|| {
            let mut builder = WasiCtx::builder();
            builder
                .stdout(Printed(Arc::clone(printed)))
                .stderr(Printed(Arc::clone(printed)))
                .allow_tcp(false)
                .allow_udp(false)
                .allow_ip_name_lookup(false)
                .max_random_size(RANDOM_BYTES_MAX);
            Box::new(builder.build())
        });
        WasiCtxView { ctx, table: &mut self.table }
    }
}

/// Standard output and error: swallows everything, keeps the end.
#[derive(Clone)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for this form, and the engine links none of it.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Printed {
    async fn ready(&mut self) {}
}

impl OutputStream for Printed {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = bytes.len().saturating_sub(PRINTED_BYTES_MAX);
        kept.extend_from_slice(&bytes[tail..]);
        let surplus = kept.len().saturating_sub(PRINTED_BYTES_MAX);
        kept.drain(..surplus);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(4_096)
    }
}
