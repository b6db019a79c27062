//! New policies: every template is built, unit-tested and judged by its own cases, outside the repository.

use std::path::Path;
use std::process::Command;

use crate::support::{command, finish, repository};

/// One build folder for all of them, so that the SDK is compiled once for each target.
fn build_settings(command: &mut Command, target: &Path) {
    // What the repository has locked is there already; nothing else is fetched.
    command.env("CARGO_TARGET_DIR", target).env("CARGO_NET_OFFLINE", "true").env_remove("RUSTFLAGS");
}

#[test]
fn a_new_policy_of_every_hook_builds_and_passes_its_own_cases() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let sdk = repository().join("sdk/rust").display().to_string();
    for hook in ["classify", "tone", "filter", "escalate"] {
        let name = format!("my-{hook}");
        let made = finish(&mut command(folder.path(), &["new", &name, "--hook", hook, "--sdk-path", &sdk])).ended(0);
        assert!(made.contains("as given"), "{made}");
        let crate_dir = folder.path().join(&name);
        std::fs::copy(repository().join("Cargo.lock"), crate_dir.join("Cargo.lock")).unwrap();

        let mut build = command(&crate_dir, &["build", "--json"]);
        build_settings(&mut build, &target);
        let built = finish(&mut build);
        built.ended(0);
        let report = built.json();
        assert!(report["bytes"].as_u64() < Some(1 << 20), "{report:#}");
        assert!(report["imports"].as_array().unwrap().iter().all(|import| import["kind"] != "refused"), "{report:#}");

        let wasm = format!("{name}.wasm");
        let arguments = ["test", &wasm, "--settings", "settings.toml", "--json"];
        let tested = finish(&mut command(&crate_dir, &arguments));
        tested.ended(0);
        assert!(tested.json()["passed"].as_u64() >= Some(2));

        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build_settings(&mut cargo, &target);
        let unit_tests = cargo.args(["test", "--quiet"]).current_dir(&crate_dir).output().unwrap();
        assert!(unit_tests.status.success(), "{}", String::from_utf8_lossy(&unit_tests.stderr));
    }
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let sdk = repository().join("sdk/rust").display().to_string();
    std::fs::create_dir(folder.path().join("taken")).unwrap();
    let taken = finish(&mut command(folder.path(), &["new", "taken", "--hook", "tone", "--sdk-path", &sdk])).ended(2);
    assert!(taken.contains("is there already"), "{taken}");
    assert_eq!(std::fs::read_dir(folder.path().join("taken")).unwrap().count(), 0);
    let wrong = finish(&mut command(folder.path(), &["new", "x", "--hook", "tone", "--sdk-path", "."])).ended(2);
    assert!(wrong.contains("sdk/rust of a Frontdesk checkout"), "{wrong}");
    finish(&mut command(folder.path(), &["new", "Not-A-Name", "--hook", "tone", "--sdk-path", &sdk])).ended(2);
    // The program itself lies in a build folder; whether a checkout is around that depends on the machine.
    let inside = finish(&mut command(&repository().join("sdk"), &["new", "X", "--hook", "tone"])).ended(2);
    assert!(inside.contains("the name is"), "{inside}");
}
