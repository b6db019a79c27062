//! Brings the OCI registry that the tests run against: Distribution (`docker-registry`), one program.
//!
//! In this order: the program that FRONTDESK_REGISTRY_PROGRAM names; one on PATH; the cache; Debian's package, downloaded by
//! apt (which checks it against the archive's signature) into the cache and unpacked there, so that nothing is
//! installed and no root is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::fetch;
use crate::workspace::{is_executable, on_path, variable};

/// Names the program; the tests read it.
pub const VARIABLE: &str = "FRONTDESK_REGISTRY_PROGRAM";
const PACKAGE: &str = "docker-registry";
const HOW: &str = "install Debian's docker-registry, or put CNCF Distribution's `registry` on PATH, or name its program in \
                   FRONTDESK_REGISTRY_PROGRAM";

/// The registry's program.
pub fn program() -> Result<PathBuf> {
    if let Some(program) = variable(VARIABLE).map(PathBuf::from) {
        ensure!(is_executable(&program), "{VARIABLE} names {}, which is no program", program.display());
        return Ok(program);
    }
    let names = [PACKAGE, "registry"];
    if let Some(program) = names.iter().filter_map(|name| on_path(name)).find(|program| is_distribution(program)) {
        return Ok(program);
    }
    packaged().with_context(|| format!("there is no OCI registry for the tests; {HOW}"))
}

/// Debian's package in the cache.
fn packaged() -> Result<PathBuf> {
    let folder = fetch::cache_dir()?.join(format!("{PACKAGE}-{}", std::env::consts::ARCH));
    let program = folder.join("usr/bin").join(PACKAGE);
    if is_executable(&program) && is_distribution(&program) {
        return Ok(program);
    }
    ensure!(on_path("apt-get").is_some(), "this machine has no apt-get");
    let work = folder.with_extension(format!("{}.new", std::process::id()));
    fetch::remove_dir(&work)?;
    fs::create_dir_all(&work)?;
    let made = unpack(&work);
    if let Err(error) = made {
        fetch::remove_dir(&work)?;
        return Err(error);
    }
    fetch::remove_dir(&folder)?;
    // Another process may have put the same in place meanwhile.
    if fs::rename(&work, &folder).is_err() {
        fetch::remove_dir(&work)?;
    }
    ensure!(is_distribution(&program), "the packaged {} does not run on this machine", program.display());
    Ok(program)
}

fn unpack(work: &Path) -> Result<()> {
    // The machine's own package lists first; where there are none, lists of our own.
    if let Err(first) = download(work, &[]) {
        let lists = work.join("lists");
        let cache = work.join("archives");
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(cache.join("partial"))?;
        let options = [
            format!("-oDir::State::lists={}", lists.display()),
            format!("-oDir::Cache={}", cache.display()),
            "-oDebug::NoLocking=true".to_owned(),
        ];
        let mut update = Command::new("apt-get");
        run(update.args(&options).args(["update", "-qq"]).current_dir(work))
            .and_then(|()| download(work, &options))
            .with_context(|| format!("apt-get could not download it ({first:#})"))?;
        fetch::remove_dir(&lists)?;
        fetch::remove_dir(&cache)?;
    }
    let package = fs::read_dir(work)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get downloaded no package")?;
    run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(work))?;
    fs::remove_file(package)?;
    Ok(())
}

fn download(work: &Path, options: &[String]) -> Result<()> {
    run(Command::new("apt-get").args(options).args(["download", "-qq", PACKAGE]).current_dir(work))
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{name} could not be started"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message").trim();
    bail!("{name} failed: {last}");
}

/// Whether a program says that it is Distribution; `registry` is a common word.
fn is_distribution(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    output.is_ok_and(|output| {
        let words = String::from_utf8_lossy(&output.stdout);
        output.status.success() && words.contains("/distribution")
    })
}
