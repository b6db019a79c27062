//! `frontdesk-bench`: measures Frontdesk beside bare floors, in one run, on one machine.
//!
//! `cargo xtask bench` builds it optimised, provides Postgres and Redis with fsync on, and passes arguments on. The figures
//! are for people: nothing here fails because a machine is slow. It fails when something was lost or did not work.
//!
//! - [`ack`]: signed deliveries answered after a durable commit.
//! - [`policy`]: one call on a fresh instance, and a whole chain.
//! - [`turn`]: from a stored message to its call of the Send API.
//! - [`retrieval`]: searches in many passages, and what the index misses.
//! - [`ingest`]: documents on their way in, and the memory that takes.
//! - [`swap`]: from a saved settings file to the revision that serves.
//!
//!
//! `frontdesk-bench load` ([`load`]) sends to a host that runs already, at a rate, and reports how long the acknowledgements took
//! and what was lost. `frontdesk-bench eval` ([`eval`]) measures answers on data that others made.
//!
//! Around them: [`ground`] (database, hosts), [`generator`] (deliveries over HTTP), [`graph_stub`] (Meta's side),
//! [`peer`] (the FastAPI service), [`machine`] and [`table`].

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program speaks through them")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

mod ack;
mod corpus;
mod eval;
mod generator;
mod graph_stub;
mod ground;
mod ingest;
mod load;
mod machine;
mod peer;
mod policy;
mod retrieval;
mod swap;
mod table;
mod turn;

use ground::Ground;
use machine::Machine;
use table::Findings;

#[derive(Debug, Clone, Parser)]
#[command(name = "frontdesk-bench", about = "Measures Frontdesk beside bare floors in the same run")]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// Measure only this; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<Measure>,
    /// Shorter runs and fewer passages: shows that everything works, not what the machine can do.
    #[arg(long)]
    quick: bool,
    /// Also write the results as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds of each loaded run [default: 10, quick: 3].
    #[arg(long)]
    seconds: Option<u64>,
    /// Connections that deliver at once. Meta keeps many; with few of them, all wait for the disk most of the time.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    connections: u16,
    /// Customers that write in a second while policies are swapped. More than the machine carries only shows that it is too slow.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    turns_per_s: u32,
    /// A Python that has the peer's packages, such as one of a virtual environment.
    #[arg(long, value_name = "PATH")]
    peer_python: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Send signed deliveries to a running host at a rate; fails when something that was acknowledged is not stored.
    Load(load::Options),
    /// Measure retrieval, refusals and sorting on data that others made.
    Eval(eval::Options),
}

impl Options {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.quick { 3 } else { 10 }).clamp(1, 3_600))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Measure {
    Ack,
    Policy,
    Turn,
    Retrieval,
    Ingest,
    Swap,
}

impl Measure {
    async fn run(self, options: &Options) -> Result<Findings> {
        match self {
            Self::Ack => ack::measure(options).await,
            Self::Policy => policy::measure(options).await,
            Self::Turn => turn::measure(options).await,
            Self::Retrieval => retrieval::measure(options).await,
            Self::Ingest => ingest::measure(options).await,
            Self::Swap => swap::measure(options).await,
        }
    }
}

/// Everything, as `--json` writes it.
#[derive(Debug, Serialize)]
struct Report {
    /// Version of this form.
    version: u32,
    machine: Machine,
    quick: bool,
    findings: Vec<(Measure, Findings)>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::try_from_env("FRONTDESK_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let run = || -> Result<bool> { tokio::runtime::Runtime::new()?.block_on(measure_until_stopped(&options)) };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A signal drops what runs, and with it its database and its processes.
async fn measure_until_stopped(options: &Options) -> Result<bool> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        result = run_command(options) => result,
        _ = terminate.recv() => anyhow::bail!("stopped by SIGTERM"),
        _ = interrupt.recv() => anyhow::bail!("stopped"),
    }
}

async fn run_command(options: &Options) -> Result<bool> {
    match &options.command {
        Some(Command::Load(options)) => load::run(options).await,
        Some(Command::Eval(options)) => {
            ground::probe_reader().await?;
            eval::run(options).await
        }
        None => {
            ground::probe_reader().await?;
            measure_all(options).await
        }
    }
}

/// False: something failed or was lost.
async fn measure_all(options: &Options) -> Result<bool> {
    let machine = {
        let ground = Ground::new().await?;
        Machine::look(&ground.pool, &ground::variable("REDIS_URL")?).await
    };
    println!("{}", machine.render());
    let wanted = if options.only.is_empty() { Measure::value_variants() } else { &options.only };
    let mut findings = Vec::new();
    for measure in wanted {
        let begin = Instant::now();
        eprintln!("measuring {measure:?} …");
        let found = measure.run(options).await.unwrap_or_else(|error| Findings {
            failures: vec![format!("the measure did not work: {error:#}")],
            ..Findings::default()
        });
        eprintln!("measured {measure:?} in {:.1} s", begin.elapsed().as_secs_f64());
        println!("{}", table::render(&found.rows));
        found.notes.iter().for_each(|note| println!("- {note}"));
        found.failures.iter().for_each(|failure| println!("- FAILED: {failure}"));
        println!();
        findings.push((*measure, found));
    }
    let good = findings.iter().all(|(_, found)| found.failures.is_empty());
    if let Some(file) = &options.json {
        let report = Report { version: 1, machine, quick: options.quick, findings };
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, json).with_context(|| format!("{} could not be written", file.display()))?;
    }
    Ok(good)
}
