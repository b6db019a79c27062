//! `frontdesk engines`: the engines alone, for tests, for a look with `psql`, and for other programs that want them.

use std::io::{self, Write};
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use super::error::EnginesError;
use super::folder::{folder_error, write_private};
use super::{Durability, Engines, EnginesConfig, Which};

/// Runs the embedded Postgres and Valkey until it is told to stop (SIGTERM, SIGINT).
#[derive(Debug, clap::Args)]
pub struct EnginesCommand {
    /// Folder with bin/postgres, bin/initdb and bin/valkey-server, such as `cargo xtask fetch` makes.
    #[arg(long, value_name = "DIR")]
    pub binaries: PathBuf,
    /// The private data folder; created when missing.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Do not wait for the disk. For tests: a power failure may leave the data unreadable.
    #[arg(long)]
    pub fast: bool,
    /// Which engines to run.
    #[arg(long, value_enum, default_value_t)]
    pub which: Which,
    /// Write the lines DATABASE_URL=… and REDIS_URL=… to this file (mode 0600) when the engines answer.
    #[arg(long, value_name = "FILE")]
    pub print_env: Option<PathBuf>,
}

/// Starts the engines, writes their URLs to the file asked for, prints the line `ready`, and runs until SIGTERM or SIGINT. The
/// file is removed on the way out.
///
/// # Errors
/// See [`EnginesError`].
pub async fn run_engines_command(options: EnginesCommand) -> Result<(), EnginesError> {
    let EnginesCommand { binaries, data, fast, which, print_env } = options;
    // Registered before the start, so that a signal during it is not lost and does not kill the host without its tidying up.
    let listen = |kind| signal(kind).map_err(|source| EnginesError::Thread { engine: "signals", source });
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;

    let durability = if fast { Durability::Fast } else { Durability::Durable };
    let config = EnginesConfig { binaries_dir: binaries, data_dir: data, durability };
    let engines = tokio::select! {
        started = Engines::start(config, which) => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    if let Some(path) = &print_env {
        write_private(path, &engines.endpoints().to_env_file(), false)?;
    }
    let mut out = io::stdout();
    // Whoever started this may have closed the pipe; the file says the same.
    let _ = writeln!(out, "ready").and_then(|()| out.flush());

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    if let Some(path) = &print_env {
        std::fs::remove_file(path).map_err(|source| folder_error("removed", path, source))?;
    }
    engines.shutdown().await;
    Ok(())
}
