//! The FastAPI service of `peer_fastapi.py`, run as one would deploy it: a worker process per core.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::ground::{APP_SECRET, Ground};
use crate::machine::cores;

/// How to get what the peer needs.
pub const INSTALL: &str = "pip install fastapi \"uvicorn[standard]\" \"sqlalchemy[asyncio]\" \"psycopg[binary]\" (in a venv: \
                           --peer-python VENV/bin/python)";
const VERSIONS: &str = "import fastapi, sqlalchemy.ext.asyncio, uvicorn, psycopg, sys; print(f'FastAPI {fastapi.__version__}, \
                        SQLAlchemy {sqlalchemy.__version__}, uvicorn {uvicorn.__version__}, \
                        Python {sys.version.split()[0]}')";
const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(10);

/// A Python that has everything, and what it has.
#[derive(Debug, Clone)]
pub struct Python {
    program: PathBuf,
    pub versions: String,
}

impl Python {
    /// `None` when something is missing. A Python that was named must have it.
    pub fn find(named: Option<&Path>) -> Result<Option<Self>> {
        let program = named.unwrap_or(Path::new("python3")).to_owned();
        let output = Command::new(&program).args(["-c", VERSIONS]).stdin(Stdio::null()).output();
        match output {
            Ok(output) if output.status.success() => {
                let versions = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                Ok(Some(Self { program, versions }))
            }
            Ok(output) if named.is_some() => {
                let said = String::from_utf8_lossy(&output.stderr);
                bail!("{} lacks a package ({}): {INSTALL}", program.display(), said.lines().last().unwrap_or_default())
            }
            Err(error) if named.is_some() => bail!("{} cannot be run: {error}", program.display()),
            _ => Ok(None),
        }
    }
}

/// The running service; it ends when this is dropped.
#[derive(Debug)]
pub struct Peer {
    process: Child,
    pub address: SocketAddr,
    pub workers: usize,
}

impl Peer {
    /// Starts it with as many workers as cores and, all together, as many connections as the host has.
    pub async fn start(python: &Python, ground: &Ground, connections: u32) -> Result<Self> {
        // Free now; whoever takes it meanwhile makes the start fail, not lie.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let workers = cores();
        let own = (usize::try_from(connections)? / workers).max(1);
        let process = Command::new(&python.program)
            .args(["-m", "uvicorn", "peer_fastapi:app", "--app-dir"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("load"))
            .args(["--host", "127.0.0.1", "--port", &address.port().to_string(), "--workers", &workers.to_string()])
            .args(["--log-level", "warning", "--no-access-log"])
            .env("PEER_APP_SECRET", APP_SECRET)
            .env("PEER_DATABASE_URL", &ground.url)
            .env("PEER_CONNECTIONS", own.to_string())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("{} could not be started", python.program.display()))?;
        let mut peer = Self { process, address, workers };
        peer.wait_until_ready().await?;
        Ok(peer)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        let url = format!("http://{}/healthz", self.address);
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!("the FastAPI service ended with {status} while it started");
            }
            if reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if begin.elapsed() > START_MAX {
                bail!("the FastAPI service did not answer within {} s", START_MAX.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Terminated rather than killed: the parent then ends its workers.
        let asked = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        let begin = Instant::now();
        while asked.is_ok() && begin.elapsed() < STOP_MAX {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
