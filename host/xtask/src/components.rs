//! Compiles the policies to WASM components and puts them where the host looks for them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::interrupted;
use crate::progress;
use crate::workspace::{Workspace, on_path};

const TARGET: &str = "wasm32-wasip2";
const PROFILE: &str = "component";
const POLICIES: [&str; 4] = ["classify-rules", "tone-brand", "filter-safety", "escalate-default"];
const GUESTS: [&str; 3] = ["guest-misbehaving", "guest-obedient", "guest-wrong-world"];

/// The folder of the first-party components.
pub fn policies_dir(workspace: &Workspace) -> PathBuf {
    workspace.root.join("policies/components")
}

/// The folder of the badly behaved ones.
pub fn guests_dir(workspace: &Workspace) -> PathBuf {
    workspace.target.join("guests")
}

pub fn build(workspace: &Workspace, guests: bool) -> Result<()> {
    require_target(workspace)?;
    let guests: &[&str] = if guests { &GUESTS } else { &[] };
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--profile", PROFILE, "--target", TARGET]);
    for package in POLICIES.iter().chain(guests) {
        cargo.args(["-p", package]);
    }
    progress::run(&mut cargo)?;
    let built = workspace.target.join(TARGET).join(PROFILE);
    for (packages, folder) in [(&POLICIES[..], policies_dir(workspace)), (guests, guests_dir(workspace))] {
        for package in packages {
            // Cargo names a library's file with underscores; the chain names the component as its package.
            let from = built.join(package.replace('-', "_")).with_extension("wasm");
            publish(&from, &folder.join(package).with_extension("wasm"))?;
        }
    }
    Ok(())
}

/// Puts a file in place as a whole, and only when its content is new: a running host reloads what changes.
fn publish(from: &Path, to: &Path) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("the build left no {}", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == content) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{} could not be made", folder.display()))?;
    }
    // The host looks at names that end in .wasm; this one does not until it is whole.
    let fresh = to.with_extension(format!("wasm.{}.new", std::process::id()));
    fs::write(&fresh, content).with_context(|| format!("{} could not be written", fresh.display()))?;
    fs::rename(&fresh, to).with_context(|| format!("{} could not be put in place", to.display()))
}

fn require_target(workspace: &Workspace) -> Result<()> {
    if has_target(workspace) {
        return Ok(());
    }
    if on_path("rustup").is_none() {
        bail!(
            "Rust's target {TARGET} is missing, and so is rustup to add it: install Rust with rustup, or add the target's std"
        );
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]).current_dir(&workspace.root);
    progress::run(&mut rustup).with_context(|| format!("Rust's target {TARGET} could not be added"))?;
    if !has_target(workspace) && !interrupted() {
        bail!(
            "rustup added {TARGET}, but to another toolchain than the one in use: check `rustup show` and RUSTUP_TOOLCHAIN"
        );
    }
    Ok(())
}

fn has_target(workspace: &Workspace) -> bool {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--print", "target-libdir", "--target", TARGET]).current_dir(&workspace.root).stderr(Stdio::null());
    let Ok(output) = rustc.output() else { return false };
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    // An empty folder is what a removed target leaves.
    output.status.success() && fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_replaced_only_when_it_changed() {
        let folder = std::env::temp_dir().join(format!("frontdesk-components-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (from, to) = (folder.join("a_b.wasm"), folder.join("out/a-b.wasm"));
        assert!(publish(&from, &to).unwrap_err().to_string().contains("a_b.wasm"));
        fs::write(&from, "one").unwrap();
        publish(&from, &to).unwrap();
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
        let first = inode(&to);
        publish(&from, &to).unwrap();
        assert_eq!(inode(&to), first, "the same content leaves the file alone");
        fs::write(&from, "two").unwrap();
        publish(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
        assert_eq!(fs::read_dir(folder.join("out")).unwrap().count(), 1, "nothing unfinished is left");
        fs::remove_dir_all(&folder).unwrap();
    }
}
