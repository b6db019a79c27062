//! `cargo xtask faults`, `cargo xtask kills`, `cargo xtask race` and `cargo xtask simulate`: single integration tests at length, with their knobs as options.

use anyhow::Result;

use crate::components;
use crate::engines::TestEngines;
use crate::fetch::{self, Need};
use crate::gate;
use crate::progress::{self, Progress};
use crate::workspace::Workspace;

#[derive(Debug, clap::Args)]
pub struct Faults {
    /// How often every point is died at.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Only this point; the names are in host/server/src/fail_point.rs.
    #[arg(long, value_name = "NAME")]
    point: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct Kills {
    /// Hosts that are killed.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Repeats the chances of an earlier run, which printed it [default: a new one].
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub struct Race {
    /// Takeovers, each against claims that never pause.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(40..=1_000_000))]
    rounds: u32,
}

#[derive(Debug, clap::Args)]
pub struct Simulate {
    /// Simulated hours.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    hours: u32,
    /// Repeats the schedule of an earlier run, which printed it [default: a new one].
    #[arg(long)]
    seed: Option<u64>,
}

pub fn faults(workspace: &Workspace, progress: &Progress, options: &Faults) -> Result<()> {
    let mut knobs = vec![("FRONTDESK_FAULT_ROUNDS", options.rounds.to_string())];
    knobs.extend(options.point.clone().map(|point| ("FRONTDESK_FAULT_POINT", point)));
    run(workspace, progress, "faults::", &knobs)
}

pub fn kills(workspace: &Workspace, progress: &Progress, options: &Kills) -> Result<()> {
    let mut knobs = vec![("FRONTDESK_CRASH_ROUNDS", options.rounds.to_string())];
    knobs.extend(options.seed.map(|seed| ("FRONTDESK_CRASH_SEED", seed.to_string())));
    run(workspace, progress, "crash::", &knobs)
}

pub fn race(workspace: &Workspace, progress: &Progress, options: &Race) -> Result<()> {
    let knobs = [("FRONTDESK_RACE_ROUNDS", options.rounds.to_string())];
    run(workspace, progress, "takeover::no_answer_of_the_machine", &knobs)
}

pub fn simulate(workspace: &Workspace, progress: &Progress, options: &Simulate) -> Result<()> {
    let mut knobs = vec![("FRONTDESK_SIMULATE_HOURS", options.hours.to_string())];
    knobs.extend(options.seed.map(|seed| ("FRONTDESK_SIMULATE_SEED", seed.to_string())));
    run(workspace, progress, "simulation::after", &knobs)
}

/// Runs the integration tests whose names begin so, with their output shown.
fn run(workspace: &Workspace, progress: &Progress, filter: &str, knobs: &[(&str, String)]) -> Result<()> {
    let binaries = progress.step("fetch the engines", "cargo xtask fetch", || fetch::engines(Need::BOTH))?;
    progress.step("compile the policies", "cargo xtask components", || components::build(workspace, false))?;
    // As `cargo xtask test` does, so that neither compiles what the other has.
    let alone = format!("cargo {}", gate::BUILD.join(" "));
    progress.step("compile the tests", &alone, || progress::run(workspace.cargo().args(gate::BUILD)))?;
    let frontdesk = workspace.binary("debug", "frontdesk");
    let engines = progress.step("start the engines", "cargo xtask test", || {
        TestEngines::start(workspace, &frontdesk, &binaries, Need::from_environment(), true)
    })?;
    let outcome = progress.step(filter.trim_end_matches(':'), "cargo xtask test -- FILTER", || {
        let mut cargo = workspace.cargo();
        cargo.args(["test", "--workspace", "--locked", "--test", "it", "--", "--nocapture", filter]);
        cargo
            .envs(gate::environment(workspace, binaries.clone()))
            .envs(knobs.iter().map(|(name, value)| (name, value)));
        cargo.envs(engines.variables.iter().map(|(name, value)| (name, value)));
        progress::run(&mut cargo)
    });
    drop(engines);
    outcome
}
