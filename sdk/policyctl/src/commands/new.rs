//! `policyctl new`: a crate from a template.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use frontdesk_policy_engine::Hook;
use serde_json::json;

use crate::cli::{Failure, Outcome, Report, Verdict};

/// Longest name: the contract's limit for the name in a description.
const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Name of the policy, of its crate, and of the folder that is made: lower-case letters, digits and dashes.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The hook that it serves.
    #[arg(long, value_name = "HOOK")]
    pub hook: TemplateHook,
    /// The language it is written in.
    #[arg(long, value_name = "LANGUAGE", default_value = "rust")]
    pub lang: Language,
    /// Folder of the SDK (sdk/rust of a Frontdesk checkout); by default that of the checkout around this folder or
    /// around policyctl itself.
    #[arg(long, value_name = "PATH")]
    pub sdk_path: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Language {
    Rust,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum TemplateHook {
    Classify,
    Tone,
    Filter,
    Escalate,
}

/// The files that depend on the hook.
struct Template {
    hook: Hook,
    lib: &'static str,
    schema: &'static str,
    settings: &'static str,
    cases: &'static str,
}

macro_rules! template {
    ($hook:expr, $folder:literal) => {
        Template {
            hook: $hook,
            lib: include_str!(concat!("../../../templates/rust/", $folder, "/lib.rs.in")),
            schema: include_str!(concat!("../../../templates/rust/", $folder, "/settings.schema.json")),
            settings: include_str!(concat!("../../../templates/rust/", $folder, "/settings.toml")),
            cases: include_str!(concat!("../../../templates/rust/", $folder, "/cases.toml")),
        }
    };
}

const CARGO_TOML: &str = include_str!("../../../templates/rust/Cargo.toml.in");
const README: &str = include_str!("../../../templates/rust/README.md.in");
const IGNORED: &str = "/target/\n/*.wasm\n";

impl TemplateHook {
    fn template(self) -> Template {
        match self {
            Self::Classify => template!(Hook::Classify, "classify"),
            Self::Tone => template!(Hook::Tone, "tone"),
            Self::Filter => template!(Hook::Filter, "filter"),
            Self::Escalate => template!(Hook::Escalate, "escalate"),
        }
    }
}

pub fn run(options: &Options) -> Outcome {
    let Language::Rust = options.lang;
    check_name(&options.name)?;
    let (sdk, found) = sdk(options.sdk_path.as_deref())?;
    let template = options.hook.template();
    let folder = PathBuf::from(&options.name);
    if folder.exists() {
        return Err(Failure::input(format!("{} is there already; choose another name", folder.display())));
    }
    let fill = |text: &str| fill(text, &options.name, &sdk, template.hook);
    let cases = format!("cases/{}.toml", template.hook);
    let files = [
        ("Cargo.toml", fill(CARGO_TOML)),
        ("README.md", fill(README)),
        (".gitignore", IGNORED.to_owned()),
        ("settings.schema.json", fill(template.schema)),
        ("settings.toml", fill(template.settings)),
        ("src/lib.rs", fill(template.lib)),
        (cases.as_str(), fill(template.cases)),
    ];
    for (name, content) in &files {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(&folder);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, content))
            .map_err(|error| Failure::file(&path, "written", &error))?;
    }
    let mut out = String::new();
    let _ = writeln!(out, "{} is a new policy for the hook `{}`:", folder.display(), template.hook);
    for (name, _) in &files {
        let _ = writeln!(out, "  {name}");
    }
    let _ = writeln!(out, "It uses the SDK in {} ({found}).", sdk.display());
    let _ = writeln!(out, "Next: cd {} && policyctl build; its README goes on from there.", options.name);
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    Report::new(out, json!({ "folder": folder, "hook": template.hook, "sdk": sdk, "files": names }), Verdict::Well)
}

fn check_name(name: &str) -> Result<(), Failure> {
    let fits = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && !name.contains("--")
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits {
        return Ok(());
    }
    Err(Failure::input(format!(
        "the name is {name:?}, expected at most {NAME_BYTES_MAX} lower-case letters, digits and single dashes, a letter first, \
         such as classify-returns"
    )))
}

/// The SDK's folder, and how it was found.
fn sdk(given: Option<&Path>) -> Result<(PathBuf, &'static str), Failure> {
    let whole = |folder: &Path| folder.canonicalize().ok().filter(|folder| is_sdk(folder));
    if let Some(given) = given {
        let problem = || {
            Failure::input(format!(
                "--sdk-path is {}, and that is not the SDK: expected the folder sdk/rust of a Frontdesk checkout",
                given.display()
            ))
        };
        return Ok((whole(given).ok_or_else(problem)?, "as given"));
    }
    let around = |start: Option<PathBuf>| {
        let start = start?;
        start.ancestors().find_map(|folder| whole(&folder.join("sdk/rust")))
    };
    if let Some(folder) = around(std::env::current_dir().ok()) {
        return Ok((folder, "of the checkout around this folder"));
    }
    if let Some(folder) = around(std::env::current_exe().ok()) {
        return Ok((folder, "of the checkout that policyctl was built in"));
    }
    Err(Failure::input("there is no Frontdesk checkout around this folder; give --sdk-path CHECKOUT/sdk/rust"))
}

fn is_sdk(folder: &Path) -> bool {
    std::fs::read_to_string(folder.join("Cargo.toml"))
        .is_ok_and(|text| text.contains("name = \"frontdesk-policy-sdk\""))
}

fn fill(text: &str, name: &str, sdk: &Path, hook: Hook) -> String {
    let type_name: String = name
        .split('-')
        .filter_map(|word| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
        })
        .collect();
    text.replace("@NAME@", name)
        .replace("@TYPE@", &type_name)
        .replace("@HOOK@", hook.as_str())
        .replace("@WORLD@", hook.world())
        .replace("@ON_FAULT@", hook.fault_action().as_str())
        .replace("@SDK@", &slashed(sdk))
        .replace("@CHECKOUT@", &sdk.ancestors().nth(2).map_or_else(|| "CHECKOUT".to_owned(), slashed))
}

fn slashed(path: &Path) -> String {
    path.display().to_string().replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_a_description_may_have() {
        for name in ["a", "classify-returns", "x2"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "2x", "Classify", "a_b", "a-", "a--b", "../x", "a b", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn nothing_of_a_template_is_left_unfilled() {
        for hook in [TemplateHook::Classify, TemplateHook::Tone, TemplateHook::Filter, TemplateHook::Escalate] {
            let template = hook.template();
            for text in [CARGO_TOML, README, template.lib, template.schema, template.settings, template.cases] {
                let filled = fill(text, "my-policy", Path::new("/checkout/sdk/rust"), template.hook);
                for place in ["@N", "@T", "@H", "@C", "@S", "@W", "@O"] {
                    assert!(!filled.contains(place), "{place}: {filled}");
                }
            }
            assert!(fill(template.lib, "my-policy", Path::new("/sdk"), template.hook).contains("MyPolicy"));
        }
    }
}
