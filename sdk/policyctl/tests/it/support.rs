//! Runs the program, and finds what it is run on.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// What the program said.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The document that `--json` prints.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Everything it said, once it ended as expected.
    pub fn ended(&self, code: i32) -> String {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        format!("{}\n{}", self.out, self.err)
    }
}

pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_policyctl"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    for variable in ["FRONTDESK_URL", "FRONTDESK_ADMIN_TOKEN", "FRONTDESK_ADMIN_TOKEN_FILE"] {
        command.env_remove(variable);
    }
    // What one test compiled, the others need not.
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

pub fn finish(command: &mut Command) -> Ran {
    let output = command.output().expect("policyctl starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code().expect("no signal"), out: text(output.stdout), err: text(output.stderr) }
}

pub fn policyctl(arguments: &[&str]) -> Ran {
    finish(&mut command(&repository(), arguments))
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

fn folder_of(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| repository().join(default), PathBuf::from)
}

/// The file of a badly behaved component.
pub fn guest(name: &str) -> String {
    let path = folder_of("FRONTDESK_GUESTS_DIR", "target/guests").join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is missing; run `cargo xtask components --guests` first", path.display());
    path.display().to_string()
}

/// The file of a first-party component.
pub fn component(name: &str) -> String {
    let path = folder_of("FRONTDESK_COMPONENTS_DIR", "policies/components").join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is missing; run `cargo xtask components` first", path.display());
    path.display().to_string()
}

/// A copy of the default chain that may be changed, with its components.
pub struct Chains {
    root: TempDir,
}

impl Chains {
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let chains = Self { root };
        copy(&repository().join("policies/default"), &chains.dir());
        let components = chains.root.path().join("components");
        std::fs::create_dir_all(&components).expect("a folder");
        for name in ["classify-rules", "tone-brand", "filter-safety", "escalate-default"] {
            std::fs::copy(component(name), components.join(format!("{name}.wasm"))).expect("a component");
        }
        chains
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn dir(&self) -> PathBuf {
        self.root.path().join("default")
    }

    pub fn text(&self) -> String {
        self.dir().display().to_string()
    }

    /// Replaces a part of a file that is there.
    pub fn change(&self, file: &str, from: &str, to: &str) {
        let path = self.dir().join(file);
        let text = std::fs::read_to_string(&path).expect("a text");
        assert!(text.contains(from), "{file} does not hold {from:?}");
        std::fs::write(path, text.replacen(from, to, 1)).expect("written");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
