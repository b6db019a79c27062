//! Brings the S3 server that the object store is tested against: moto, installed by pip into the cache.
//!
//! Its packages and versions are in `tests/peers/s3-requirements.txt`. It is a peer of tests alone, and runs on loopback
//! only while one does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::fetch;
use crate::workspace::{Workspace, variable};

/// Names the folder of the server's packages; the tests read it.
pub const VARIABLE: &str = "FRONTDESK_S3_SERVER_DIR";
const HOW: &str = "install Python 3.10 or later with pip (Debian: apt-get install python3-pip), or name a folder into which \
                   `pip install --target` has put tests/peers/s3-requirements.txt in FRONTDESK_S3_SERVER_DIR";

/// The folder that holds the server's packages.
pub fn server(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(folder) = variable(VARIABLE).map(PathBuf::from) {
        ensure!(is_complete(&folder), "{VARIABLE} names {}, which holds no moto", folder.display());
        return Ok(folder);
    }
    installed(&workspace.root.join("tests/peers/s3-requirements.txt"))
        .with_context(|| format!("there is no S3 server for the tests; {HOW}"))
}

fn installed(requirements: &Path) -> Result<PathBuf> {
    let pins = fs::read(requirements).with_context(|| format!("{} cannot be read", requirements.display()))?;
    let name = format!("s3-server-{}-{}", std::env::consts::ARCH, &hex::encode(Sha256::digest(&pins))[..16]);
    let folder = fetch::cache_dir()?.join(&name);
    if is_complete(&folder) {
        return Ok(folder);
    }
    let work = folder.with_extension(format!("{}.new", std::process::id()));
    fetch::remove_dir(&work)?;
    let made = install(requirements, &work);
    if let Err(error) = made {
        fetch::remove_dir(&work)?;
        return Err(error);
    }
    if folder.exists() && !is_complete(&folder) {
        fetch::remove_dir(&folder)?;
    }
    // Another process may have put the same in place meanwhile.
    if fs::rename(&work, &folder).is_err() {
        fetch::remove_dir(&work)?;
    }
    ensure!(is_complete(&folder), "{} could not be put in place", folder.display());
    Ok(folder)
}

fn install(requirements: &Path, work: &Path) -> Result<()> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--no-deps"]);
    pip.args(["--only-binary=:all:", "--target"]).arg(work).arg("-r").arg(requirements);
    let output = pip.stdin(Stdio::null()).output().context("python3 could not be started")?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rev().find(|line| line.contains("ERROR")).unwrap_or("no message").trim();
    bail!("pip failed: {last}");
}

fn is_complete(folder: &Path) -> bool {
    ["moto/server.py", "flask/__init__.py", "flask_cors/__init__.py"].iter().all(|file| folder.join(file).is_file())
}
