//! `policyctl build`: from a crate to a component.
//!
//! The profile is given on Cargo's command line, so that a policy is compiled the same way wherever its crate is: small,
//! fast, and with the names of its functions, so that a fault can name one.

use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{Failure, Outcome, Report, Verdict};
use crate::{subject, words};

const TARGET: &str = "wasm32-wasip2";
const PROFILE: [&str; 6] = [
    "profile.component.inherits=\"release\"",
    "profile.component.opt-level=3",
    "profile.component.lto=\"fat\"",
    "profile.component.codegen-units=1",
    "profile.component.panic=\"abort\"",
    "profile.component.strip=\"debuginfo\"",
];
const MANIFEST_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Folder of the policy's Cargo.toml.
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Where to put the component; by default into that folder, named as the package.
    #[arg(long, value_name = "FILE.wasm")]
    pub output: Option<PathBuf>,
}

pub fn run(options: &Options) -> Outcome {
    let package = package_name(&options.dir)?;
    require_target(&options.dir)?;
    let built = compile(&options.dir)?;
    let output = options.output.clone().unwrap_or_else(|| options.dir.join(&package).with_extension("wasm"));
    publish(&built, &output)?;
    let engine = subject::engine()?;
    let (_, inspection) = subject::inspect(&engine, &output)?;
    let imports: Vec<&str> = inspection.imports.iter().map(|import| import.name.as_str()).collect();
    let mut out = String::new();
    let _ = writeln!(out, "{}", output.display());
    let _ = writeln!(out, "  size     {}", words::bytes(inspection.bytes as u64));
    let _ = writeln!(out, "  digest   sha256:{}", inspection.sha256);
    let _ = writeln!(out, "  imports  {}", if imports.is_empty() { "none".to_owned() } else { imports.join(", ") });
    if let Some(problem) = &inspection.problem {
        let _ = writeln!(out, "\nThe host would refuse it: {problem}");
    }
    let verdict = if inspection.problem.is_some() { Verdict::Faulted } else { Verdict::Well };
    let json = json!({
        "output": output, "bytes": inspection.bytes, "sha256": inspection.sha256,
        "imports": inspection.imports, "problem": inspection.problem,
    });
    Report::new(out, json, verdict)
}

/// A policy's manifest: of its name only.
#[derive(Deserialize)]
struct Manifest {
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    name: String,
}

fn package_name(dir: &Path) -> Result<String, Failure> {
    let path = dir.join("Cargo.toml");
    let bytes = frontdesk_policy_bundle::read_file(&path, MANIFEST_BYTES_MAX).map_err(Failure::input)?;
    let problem = |problem: String| Failure::input(format!("{}: {problem}", path.display()));
    let text = String::from_utf8(bytes).map_err(|error| problem(error.to_string()))?;
    let manifest: Manifest = toml::from_str(&text).map_err(|error| problem(error.to_string()))?;
    Ok(manifest.package.name)
}

fn tool(variable: &str, name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::var_os(variable).unwrap_or_else(|| name.into()));
    command.current_dir(dir);
    command
}

/// An empty folder is what a removed target leaves.
fn require_target(dir: &Path) -> Result<(), Failure> {
    let output = tool("RUSTC", "rustc", dir)
        .args(["--print", "target-libdir", "--target", TARGET])
        .stderr(Stdio::null())
        .output()
        .map_err(|error| Failure::input(format!("rustc cannot be started ({error}); install Rust with rustup")))?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let is_there = std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
    if output.status.success() && is_there {
        return Ok(());
    }
    Err(Failure::input(format!("Rust's target {TARGET} is not installed; run: rustup target add {TARGET}")))
}

/// Runs Cargo and returns the path of the component it made of this crate.
fn compile(dir: &Path) -> Result<PathBuf, Failure> {
    let mut cargo = tool("CARGO", "cargo", dir);
    cargo.args(["build", "--profile", "component", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    for line in PROFILE {
        cargo.args(["--config", line]);
    }
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::input(format!("cargo cannot be started ({error}); install Rust with rustup")))?;
    let manifest = dir.join("Cargo.toml").canonicalize().ok();
    let mut built = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let message: Value = serde_json::from_str(&line).unwrap_or_default();
            let is_ours = message["reason"] == "compiler-artifact"
                && message["manifest_path"].as_str().map(PathBuf::from) == manifest;
            let names = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
            if let Some(name) = names.into_iter().find(|name| is_ours && name.ends_with(".wasm")) {
                built = Some(PathBuf::from(name));
            }
        }
    }
    let status = child.wait().map_err(|error| Failure::input(format!("cargo cannot be waited for: {error}")))?;
    if !status.success() {
        return Err(Failure::refused("the policy does not compile; cargo said why"));
    }
    built.ok_or_else(|| {
        Failure::input(format!(
            "{} made no component: add to it\n\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]\n",
            dir.join("Cargo.toml").display()
        ))
    })
}

/// Puts the component in place as a whole, and only when it is new: a host that watches the folder reloads what changes.
fn publish(from: &Path, to: &Path) -> Result<(), Failure> {
    let content = std::fs::read(from).map_err(|error| Failure::file(from, "read", &error))?;
    if std::fs::read(to).is_ok_and(|present| present == content) {
        return Ok(());
    }
    // The host looks at names that end in .wasm; this one does not until it is whole.
    let fresh = to.with_extension(format!("wasm.{}.new", std::process::id()));
    std::fs::write(&fresh, content)
        .and_then(|()| std::fs::rename(&fresh, to))
        .map_err(|error| Failure::file(to, "written", &error))
}
