//! The machine that was measured on, and how busy its cores were while something ran.

use std::fs;
use std::process::Command;
use std::time::Instant;

use serde::Serialize;
use sqlx::PgPool;

/// Clock ticks of `/proc` in a second: fixed by the kernel's user interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one has to know to compare figures with those of another machine.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: f64,
    pub kernel: String,
    pub rustc: String,
    /// `release`, or a warning that the figures mean little.
    pub build: &'static str,
    /// Processes that wanted a core in the last minute, before anything was measured.
    pub load_before: f64,
    pub postgres: String,
    pub redis: String,
}

impl Machine {
    pub async fn look(pool: &PgPool, redis_url: &str) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory_kib = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
            .unwrap_or(0.0);
        let load = read("/proc/loadavg").split_whitespace().next().and_then(|load| load.parse().ok());
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: cores(),
            memory_gib: memory_kib / 1_048_576.0,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            rustc: rustc(),
            build: if cfg!(debug_assertions) { "dev (not optimised: the figures mean little)" } else { "release" },
            load_before: load.unwrap_or(0.0),
            postgres: postgres(pool).await.unwrap_or_else(|error| format!("unknown: {error}")),
            redis: redis_version(redis_url).await.unwrap_or_else(|error| format!("unknown: {error}")),
        }
    }

    pub fn render(&self) -> String {
        format!(
            "- cpu: {} ({} cores), memory: {:.1} GiB, load before: {:.2}\n- kernel: {}\n- {}, build: {}\n- Postgres {}\n- {}\n",
            self.cpu,
            self.cores,
            self.memory_gib,
            self.load_before,
            self.kernel,
            self.rustc,
            self.build,
            self.postgres,
            self.redis
        )
    }
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn rustc() -> String {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version").output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "rustc unknown".to_owned(),
    }
}

async fn postgres(pool: &PgPool) -> sqlx::Result<String> {
    sqlx::query_scalar(
        "select format('%s, pgvector %s, fsync %s, synchronous_commit %s, wal_sync_method %s, shared_buffers %s',
                       current_setting('server_version'),
                       coalesce((select default_version from pg_available_extensions where name = 'vector'), 'missing'),
                       current_setting('fsync'), current_setting('synchronous_commit'),
                       current_setting('wal_sync_method'), current_setting('shared_buffers'))",
    )
    .fetch_one(pool)
    .await
}

async fn redis_version(url: &str) -> redis::RedisResult<String> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
    let version = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Ok(match (version("valkey_version:"), version("redis_version:")) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, Some(version)) => format!("Redis {version}"),
        (None, None) => "Redis of unknown version".to_owned(),
    })
}

/// Looks at the clocks of this process and of the machine.
#[derive(Debug)]
pub struct Cores {
    begin: Instant,
    machine: f64,
    process: f64,
}

/// Cores that were busy on average.
#[derive(Debug, Clone, Copy)]
pub struct CoresUsed {
    /// By everything on the machine.
    pub machine: f64,
    /// By this process, with the load generator that runs in it.
    pub process: f64,
}

impl Cores {
    pub fn watch() -> Self {
        Self { begin: Instant::now(), machine: machine_seconds(), process: process_seconds() }
    }

    pub fn used(&self) -> CoresUsed {
        let elapsed = self.begin.elapsed().as_secs_f64().max(0.001);
        CoresUsed {
            machine: (machine_seconds() - self.machine) / elapsed,
            process: (process_seconds() - self.process) / elapsed,
        }
    }
}

/// Processor time of the calling thread so far, in seconds.
pub fn thread_seconds() -> f64 {
    // First field: nanoseconds on a core. Finer than the ticks in `stat`.
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split_whitespace().next().and_then(|field| field.parse::<f64>().ok());
    nanoseconds.unwrap_or(0.0) / 1e9
}

/// Lets [`peak_resident_mib`] begin anew. Where the system does not, the peak is that of the whole life so far.
pub fn forget_peak_memory() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Memory of this process that is in use now.
pub fn resident_mib() -> f64 {
    status_mib("VmRSS:")
}

/// The most that was in use at a time since [`forget_peak_memory`].
pub fn peak_resident_mib() -> f64 {
    status_mib("VmHWM:")
}

fn status_mib(name: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1_024.0
}

fn process_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name may hold blanks; user and system time are the 12th and 13th field after it.
    let fields = text.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>()
        / TICKS_PER_SECOND
}

fn machine_seconds() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // user nice system idle iowait irq softirq steal: all but the two idle ones and what a hypervisor took.
    let busy = fields.enumerate().filter(|(at, _)| matches!(at, 0..=2 | 5 | 6));
    busy.filter_map(|(_, field)| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}
