//! `cargo xtask bench` and `cargo xtask eval`: the benchmark and the evaluation, optimised, on durable engines of their own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::components;
use crate::engines::TestEngines;
use crate::fetch::{self, Need};
use crate::model;
use crate::progress::{self, Progress};
use crate::workspace::Workspace;

const BUILD: &[&str] = &["build", "--release", "--locked", "-p", "frontdesk-server", "-p", "frontdesk-tests", "--bins"];

/// The evaluation: the same program on the same kind of engines, with the embedding model.
pub fn eval(workspace: &Workspace, progress: &Progress, arguments: &[String]) -> Result<()> {
    let alone = format!("cargo xtask fetch --model {}", model::default_name());
    let model_dir = progress.step("fetch the embedding model", &alone, || model::fetch(model::default_name()))?;
    let arguments: Vec<String> = std::iter::once("eval".to_owned()).chain(arguments.iter().cloned()).collect();
    run_with(workspace, progress, &arguments, &[("FRONTDESK_MODEL_DIR", model_dir)])
}

pub fn run(workspace: &Workspace, progress: &Progress, arguments: &[String]) -> Result<()> {
    run_with(workspace, progress, arguments, &[])
}

fn run_with(
    workspace: &Workspace,
    progress: &Progress,
    arguments: &[String],
    variables: &[(&str, PathBuf)],
) -> Result<()> {
    let binaries = progress.step("fetch the engines", "cargo xtask fetch", || fetch::engines(Need::BOTH))?;
    progress.step("compile the policies", "cargo xtask components", || components::build(workspace, false))?;
    let alone = format!("cargo {}", BUILD.join(" "));
    progress.step("compile the benchmark", &alone, || progress::run(workspace.cargo().args(BUILD)))?;
    let frontdesk = workspace.binary("release", "frontdesk");
    let engines = progress.step("start the engines", "cargo xtask bench", || {
        // With fsync, as in service: a durable acknowledgement is what is measured.
        TestEngines::start(workspace, &frontdesk, &binaries, Need::from_environment(), false)
    })?;
    let outcome = progress.step("benchmark", "cargo xtask bench", || {
        // Not through `cargo run`: a signal to this process alone must reach the benchmark, which then cleans up.
        let mut bench = Command::new(workspace.binary("release", "frontdesk-bench"));
        bench.args(arguments).current_dir(&workspace.root);
        bench.envs(engines.variables.iter().map(|(name, value)| (name, value)));
        bench.envs(variables.iter().map(|(name, value)| (name, value)));
        progress::run(&mut bench)
    });
    drop(engines);
    outcome
}
