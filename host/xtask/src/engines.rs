//! Engines for the tests and the benchmark: started once, on a folder of their own, gone afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::fetch::Need;
use crate::process::{Background, is_alive};
use crate::workspace::Workspace;

/// The first start makes a cluster.
const READY_DEADLINE: Duration = Duration::from_secs(120);

/// Engines that run until this is dropped; their folder goes with them.
#[derive(Debug)]
pub struct TestEngines {
    /// `DATABASE_URL` and `REDIS_URL` as far as these engines provide them.
    pub variables: Vec<(String, String)>,
    // Before the folder: the engines must be gone when it is removed.
    process: Option<Background>,
    folder: PathBuf,
}

impl TestEngines {
    /// Starts what the environment does not provide. `fast` forgoes the disk's confirmations.
    pub fn start(
        workspace: &Workspace,
        frontdesk: &Path,
        binaries: &Path,
        need: Need,
        fast: bool,
    ) -> Result<TestEngines> {
        let state = workspace.state_dir();
        fs::create_dir_all(&state).with_context(|| format!("{} could not be made", state.display()))?;
        remove_abandoned(&state);
        let folder = state.join(format!("engines-{}", std::process::id()));
        let mut engines = TestEngines { variables: Vec::new(), process: None, folder };
        if !need.any() {
            return Ok(engines);
        }
        let (log, env_file) = (state.join("engines.log"), state.join(format!("engines-{}.env", std::process::id())));
        let mut command = Command::new(frontdesk);
        command.arg("engines").arg("--binaries").arg(binaries).arg("--data").arg(&engines.folder);
        command.arg("--print-env").arg(&env_file).args([
            "--which",
            match need {
                Need { valkey: false, .. } => "postgres",
                Need { postgres: false, .. } => "valkey",
                _ => "both",
            },
        ]);
        if fast {
            command.arg("--fast");
        }
        let process = engines.process.insert(Background::start("frontdesk engines", command, &log)?);
        process.wait_until(READY_DEADLINE, "start the engines", || env_file.exists())?;
        let text = fs::read_to_string(&env_file)?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        engines.variables = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(engines)
    }
}

impl Drop for TestEngines {
    fn drop(&mut self) {
        self.process = None;
        if self.folder.exists() {
            // What stays is removed by the next run.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Removes the folders of runs that were killed.
fn remove_abandoned(state: &Path) {
    for entry in fs::read_dir(state).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid =
            name.to_str().and_then(|name| name.strip_prefix("engines-")?.trim_end_matches(".env").parse::<u32>().ok());
        if pid.is_some_and(|pid| !is_alive(pid)) {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}
