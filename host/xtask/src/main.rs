//! `cargo xtask …`: builds, runs and checks everything in this repository.
//!
//! | command | what it does |
//! |---|---|
//! | `up` | the whole of Frontdesk on this machine, with a simulated Messenger in front of it |
//! | `test` | every check, in the order in which they fail fastest; what CI runs |
//! | `faults` | lets the host die at each of its fail points, and looks at what its successor makes of it |
//! | `kills` | `kill -9` at random moments under traffic: nothing acknowledged is lost, nothing is answered twice |
//! | `race` | takeovers against claims on a real Postgres: nothing of the machine's is claimed after a takeover |
//! | `simulate` | hours of seeded traffic and trouble in seconds |
//! | `load` | signed deliveries at a rate to what `up` runs: how long the acknowledgements take, and what is lost |
//! | `bench` | the benchmark, on engines of its own |
//! | `eval` | retrieval, refusals and sorting on data that others made, beside BM25 and plain vector search |
//! | `fetch` | Postgres with pgvector, Valkey, and the tests' OCI registry, into the cache; with `--model` an embedding model |
//! | `components` | the first-party policies, compiled to WASM components |
//!
//! This crate depends on little, so that it compiles in seconds: it is the first thing that a newcomer waits for. It knows the
//! repository's layout and the programs' command lines, and no other crate of the workspace.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program speaks through them")]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod components;
mod conversation;
mod demo;
mod engines;
mod fetch;
mod gate;
mod http;
mod load;
mod model;
mod process;
mod progress;
mod registry;
mod s3;
mod trial;
mod up;
mod workspace;

use progress::Progress;
use workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Builds, runs and checks everything in this repository"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build and start Frontdesk with a simulated Messenger; with --message, send one message and show what came of it.
    Up(up::Options),
    /// Run every check: format, lints, unit and integration tests.
    Test {
        /// Passed to `cargo test`, such as a filter.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Let a real host die at each step's boundary in turn; its successor must finish everything, once.
    Faults(trial::Faults),
    /// Kill the host at random moments under traffic, again and again: nothing acknowledged is lost, nothing is answered twice.
    Kills(trial::Kills),
    /// Let takeovers meet claims, thousands of times; no answer of the machine may be claimed after a takeover has committed.
    Race(trial::Race),
    /// Live through hours of seeded traffic and trouble in seconds; everything must add up afterwards.
    Simulate(trial::Simulate),
    /// Send signed deliveries at a rate to a running `cargo xtask up`; report the time to the 200 and what was lost.
    Load(load::Options),
    /// Measure acknowledgement, policies, turns and retrieval against bare floors.
    Bench {
        /// Passed to the benchmark.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure retrieval, refusals and sorting on data that others made: `cargo xtask eval --data PATH`.
    Eval {
        /// Passed to `frontdesk-bench eval`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Put Postgres with pgvector, and Valkey, into the cache, and an OCI registry for the tests; prints the engines'
    /// folder.
    Fetch {
        /// Put this embedding model there instead, and print the setting that uses it [default: multilingual-e5-small].
        #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = model::default_name())]
        model: Option<String>,
    },
    /// Compile the first-party policies to WASM components in policies/components.
    Components {
        /// Also compile the badly behaved components that the tests use, into target/guests.
        #[arg(long)]
        guests: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if process::interrupted() => {
            eprintln!("stopped");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    process::listen_for_signals()?;
    let workspace = Workspace::find()?;
    let progress = Progress::begin();
    match task {
        Task::Up(options) => up::run(&workspace, &progress, &options),
        Task::Test { arguments } => gate::run(&workspace, &progress, &arguments),
        Task::Faults(options) => trial::faults(&workspace, &progress, &options),
        Task::Kills(options) => trial::kills(&workspace, &progress, &options),
        Task::Race(options) => trial::race(&workspace, &progress, &options),
        Task::Simulate(options) => trial::simulate(&workspace, &progress, &options),
        Task::Load(options) => load::run(&workspace, &progress, &options),
        Task::Bench { arguments } => bench::run(&workspace, &progress, &arguments),
        Task::Eval { arguments } => bench::eval(&workspace, &progress, &arguments),
        Task::Fetch { model: Some(name) } => {
            let alone = format!("cargo xtask fetch --model {name}");
            let folder = progress.step("fetch the model", &alone, || model::fetch(&name))?;
            print!("{}", model::setting(&folder)?);
            Ok(())
        }
        Task::Fetch { model: None } => {
            let folder =
                progress.step("fetch the engines", "cargo xtask fetch", || fetch::engines(fetch::Need::BOTH))?;
            let registry = progress.step("fetch the registry", "cargo xtask fetch", registry::program);
            println!("{}", folder.display());
            // The host itself does not need it, so the engines are there even when it could not be had.
            registry.map(drop)
        }
        Task::Components { guests } => {
            progress.step("compile the policies", "cargo xtask components", || components::build(&workspace, guests))
        }
    }
}
