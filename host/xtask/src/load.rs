//! `cargo xtask load`: signed deliveries at a rate to the Frontdesk that `cargo xtask up` runs.

use std::process::Command;

use anyhow::Result;

use crate::demo::PAGE_ID;
use crate::progress::{self, Progress};
use crate::up;
use crate::workspace::Workspace;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Deliveries a second; 0: as fast as they are answered.
    #[arg(long, default_value = "100")]
    rate: String,
    #[arg(long, default_value = "10")]
    seconds: String,
    /// Messages in one delivery.
    #[arg(long, default_value = "1")]
    batch: String,
    /// Connections that deliver at once.
    #[arg(long, default_value = "64")]
    connections: String,
    /// Where `cargo xtask up` listens.
    #[arg(long, default_value = "127.0.0.1:8080")]
    address: String,
}

pub fn run(workspace: &Workspace, progress: &Progress, options: &Options) -> Result<()> {
    let alone = format!("cargo {}", up::BUILD.join(" "));
    progress.step("compile the load command", &alone, || progress::run(workspace.cargo().args(up::BUILD)))?;
    let secrets = workspace.state_dir().join("secrets");
    progress.step("load", "cargo xtask load", || {
        let mut load = Command::new(workspace.binary("debug", "frontdesk-bench"));
        load.args(["load", "--rate", &options.rate, "--seconds", &options.seconds, "--batch", &options.batch]);
        load.args(["--connections", &options.connections, "--address", &options.address, "--page", PAGE_ID]);
        load.arg("--app-secret-file").arg(secrets.join("app-secret"));
        load.arg("--admin-token-file").arg(secrets.join("admin-token"));
        progress::run(&mut load)
    })
}
