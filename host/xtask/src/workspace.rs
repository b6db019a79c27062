//! Where things are: the repository, Cargo's target folder, and the folder for what a run leaves behind.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};

/// The user that the engines run as when this runs as root; the same as in the server.
const UNPRIVILEGED_ID: u32 = 65534;

#[derive(Debug)]
pub struct Workspace {
    /// The repository's top folder.
    pub root: PathBuf,
    /// Cargo's target folder, wherever the environment or the settings put it.
    pub target: PathBuf,
}

impl Workspace {
    pub fn find() -> Result<Workspace> {
        // Cargo tells a program that it runs where its manifest is; a copied binary still knows where it was built.
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest).join("../..");
        let root = root.canonicalize().with_context(|| format!("the repository {} is not there", root.display()))?;
        let output = cargo()
            .args(["metadata", "--locked", "--no-deps", "--format-version", "1"])
            .current_dir(&root)
            .stderr(Stdio::inherit())
            .output()
            .context("cargo could not be run; install Rust with rustup")?;
        if !output.status.success() {
            bail!("`cargo metadata` failed in {}", root.display());
        }
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("`cargo metadata` gave no JSON")?;
        let target =
            metadata["target_directory"].as_str().ok_or_else(|| anyhow!("`cargo metadata` names no target folder"))?;
        Ok(Workspace { root, target: PathBuf::from(target) })
    }

    /// `cargo` in the repository.
    pub fn cargo(&self) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root);
        command
    }

    /// A program that a build made.
    pub fn binary(&self, profile: &str, name: &str) -> PathBuf {
        self.target.join(profile).join(name)
    }

    /// The folder for demo data and test engines: `.frontdesk` in the repository; or, for root, when the engines' user could not get
    /// there, a folder of this repository's own under /var/lib.
    pub fn state_dir(&self) -> PathBuf {
        let inside = self.root.join(".frontdesk");
        if !is_root() || unprivileged_may_enter(&self.root) {
            return inside;
        }
        let digest = Sha256::digest(self.root.as_os_str().as_encoded_bytes());
        Path::new("/var/lib/frontdesk").join(&hex::encode(digest)[..12])
    }
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

pub fn is_root() -> bool {
    #[expect(unsafe_code, reason = "geteuid takes nothing, always succeeds, and has no form in std")]
    let uid = unsafe { libc::geteuid() };
    uid == 0
}

/// Whether the engines' user can pass through every folder on the way to `path`, by their permission bits.
pub fn unprivileged_may_enter(path: &Path) -> bool {
    path.ancestors().filter(|folder| !folder.as_os_str().is_empty()).all(|folder| {
        let needed = |data: &std::fs::Metadata| match (data.uid(), data.gid()) {
            (UNPRIVILEGED_ID, _) => 0o100,
            (_, UNPRIVILEGED_ID) => 0o010,
            _ => 0o001,
        };
        folder.metadata().is_ok_and(|data| data.mode() & needed(&data) != 0)
    })
}

/// The program `name` on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

pub fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.mode() & 0o111 != 0)
}

/// A variable of the environment that is set to something.
pub fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| value != OsStr::new(""))
}
