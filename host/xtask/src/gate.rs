//! `cargo xtask test`: every check. The first that fails ends the run, with its name and how to run it alone.

use std::path::PathBuf;

use anyhow::Result;

use crate::components;
use crate::engines::TestEngines;
use crate::fetch::{self, Need};
use crate::model;
use crate::progress::{self, Progress};
use crate::registry;
use crate::s3;
use crate::workspace::Workspace;

const FORMAT: &[&str] = &["fmt", "--all", "--check"];
const CLIPPY: &[&str] = &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
/// The same packages and kinds of target as the tests, so that Cargo compiles each dependency once.
pub const BUILD: &[&str] = &["build", "--workspace", "--locked", "--bins", "--tests"];

/// What the tests find their ground by, beside the engines' addresses.
pub fn environment(workspace: &Workspace, binaries: PathBuf) -> [(&'static str, PathBuf); 3] {
    [
        ("FRONTDESK_ENGINES_DIR", binaries),
        ("FRONTDESK_COMPONENTS_DIR", components::policies_dir(workspace)),
        ("FRONTDESK_GUESTS_DIR", components::guests_dir(workspace)),
    ]
}

pub fn run(workspace: &Workspace, progress: &Progress, arguments: &[String]) -> Result<()> {
    let cargo = |arguments: &[&str]| progress::run(workspace.cargo().args(arguments));
    let step = |name: &str, arguments: &[&str]| {
        progress.step(name, &format!("cargo {}", arguments.join(" ")), || cargo(arguments))
    };
    // Some tests start engines of their own, so the programs are needed whatever the environment provides.
    let binaries = progress.step("fetch the engines", "cargo xtask fetch", || fetch::engines(Need::BOTH))?;
    let alone = format!("cargo xtask fetch --model {}", model::default_name());
    let model_dir = progress.step("fetch the embedding model", &alone, || model::fetch(model::default_name()))?;
    // Without a registry every other check still runs; the tests that need one fail, and say how to get it.
    let registry = registry::program();
    if let Err(error) = &registry {
        progress.say(&format!("{error:#}"));
    }
    // Without an S3 server every other check still runs; the test that needs it fails, and says how to get it.
    let s3 = s3::server(workspace);
    if let Err(error) = &s3 {
        progress.say(&format!("{error:#}"));
    }
    step("format", FORMAT)?;
    progress.step("compile the policies", "cargo xtask components --guests", || components::build(workspace, true))?;
    step("clippy", CLIPPY)?;
    step("compile the tests", BUILD)?;

    let need = Need::from_environment();
    let frontdesk = workspace.binary("debug", "frontdesk");
    let engines = progress.step("start the engines", "cargo xtask test", || {
        TestEngines::start(workspace, &frontdesk, &binaries, need, true)
    })?;
    let environment = environment(workspace, binaries);
    progress.step("tests", "cargo xtask test -- FILTER", || {
        let mut cargo = workspace.cargo();
        cargo.args(["test", "--workspace", "--locked"]).args(arguments);
        cargo.envs(registry.as_ref().ok().map(|program| (registry::VARIABLE, program)));
        cargo.envs(s3.as_ref().ok().map(|folder| (s3::VARIABLE, folder)));
        cargo
            .env("FRONTDESK_MODEL_DIR", model_dir)
            .envs(environment)
            .envs(engines.variables.iter().map(|(name, value)| (name, value)));
        progress::run(&mut cargo)
    })?;
    drop(engines);
    progress.say(&format!("every check passed; {:.0} s in all", progress.elapsed().as_secs_f64()));
    Ok(())
}
