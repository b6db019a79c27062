//! `chain.toml`: which policies judge, in which order, with which settings, limits and grants, and what a fault means.
//!
//! ```toml
//! version = 1
//! description = "The default chain"        # optional
//!
//! [[policy]]                               # one each of classify, tone, escalate; 0 to 16 of filter, in order
//! hook = "classify"                        # classify | tone | filter | escalate
//! component = "../components/rules.wasm"   # relative to the chain's folder, "sha256:<64 hexadecimal digits>" of one
//!                                          # that is stored, or "oci://registry/repository@sha256:<manifest digest>"
//! settings = "rules.toml"                  # optional: a TOML or JSON file beside it, or a table [policy.settings]
//! on_fault = "human"                       # classify, escalate: human; tone: default-prompt; filter: hold
//! [policy.limits]                          # optional, each field too; see `Limits` for defaults and ranges
//! fuel = 50_000_000
//! [policy.grants]                          # optional; nothing is granted by default
//! knowledge = false
//!
//! [gate]                                   # optional: what must hold before it serves; see [`crate::gate`]
//! [rollout]                                # optional: what a changed folder does; see [`crate::rollout`]
//! [tripwire]                               # optional: when it is taken out by itself; see [`crate::tripwire`]
//! ```
//!
//! Parsing does no I/O. [`ChainSpec::wanted_files`] says which files to read; a [`Bundle`] carries them to
//! [`Engine::stage`](crate::Engine::stage).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::gate::GateSpec;
use crate::hook::{FaultAction, Hook};
use crate::limits::Limits;
use crate::load::Grants;
use crate::oci::{OCI_SCHEME, OciReference};
use crate::rollout::{RawRollout, RolloutSpec};
use crate::tripwire::Tripwire;

/// The version of the file format.
pub const CHAIN_VERSION: u32 = 1;
/// Largest `chain.toml`, in bytes.
pub const CHAIN_BYTES_MAX: usize = 256 << 10;
/// Most filters of a chain.
pub const FILTERS_MAX: usize = 16;
/// Added to a component's name, gives the name of its signatures: an optional file beside it.
pub const SIGNATURE_SUFFIX: &str = ".sig";
/// Largest file of signatures, in bytes.
pub const SIGNATURE_BYTES_MAX: usize = 1 << 20;

/// A chain and the files it wants, as the caller has read them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// The text of `chain.toml`.
    pub chain_toml: String,
    /// Contents by the name that [`WantedFile::path`] gives, word for word; signatures by their component's name with
    /// [`SIGNATURE_SUFFIX`] added.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The chain's golden cases, by their path in its folder. Staging does not look at them, and they are no part of the
    /// revision's id: they say what the chain should do, not what it does.
    pub cases: BTreeMap<String, String>,
}

/// A file that a chain wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WantedFile {
    /// The key in [`Bundle::files`]: a path relative to the chain's folder, `sha256:<digest>`, or an `oci://` reference.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
}

impl WantedFile {
    /// Whether it lies in the chain's folder, and not in a store or a registry.
    #[must_use]
    pub fn is_in_folder(&self) -> bool {
        !self.path.starts_with("sha256:") && !self.path.starts_with(OCI_SCHEME)
    }
}

/// What a wanted file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// A component, at most [`COMPONENT_BYTES_MAX`](crate::load::COMPONENT_BYTES_MAX).
    Component,
    /// Settings, at most [`SETTINGS_BYTES_MAX`](crate::load::SETTINGS_BYTES_MAX).
    Settings,
}

/// A parsed chain.
#[derive(Clone, Debug, PartialEq)]
pub struct ChainSpec {
    /// What the chain is for.
    pub description: Option<String>,
    /// Its policies in the order in which a turn meets them: classify, tone, filters as written, escalate.
    pub policies: Vec<PolicySpec>,
    /// What must hold before it serves.
    pub gate: GateSpec,
    /// What a changed folder does.
    pub rollout: RolloutSpec,
    /// When a revision of this chain is taken out by itself.
    pub tripwire: Tripwire,
}

/// One `[[policy]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySpec {
    /// Its place in the file, from 1.
    pub number: usize,
    /// The hook it serves.
    pub hook: Hook,
    /// Its component.
    pub component: ComponentRef,
    /// Its settings.
    pub settings: SettingsSource,
    /// What a fault means.
    pub on_fault: FaultAction,
    /// Limits of each call, within their ranges.
    pub limits: Limits,
    /// What it is granted.
    pub grants: Grants,
}

/// Where a component comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComponentRef {
    /// A path relative to the chain's folder.
    File(String),
    /// The lower-case hexadecimal SHA-256 of its bytes.
    Sha256(String),
    /// A registry, and the digest of the manifest there.
    Oci(OciReference),
}

impl ComponentRef {
    /// The key in [`Bundle::files`].
    #[must_use]
    pub fn file_key(&self) -> String {
        match self {
            Self::File(path) => path.clone(),
            Self::Sha256(digest) => format!("sha256:{digest}"),
            Self::Oci(reference) => reference.to_string(),
        }
    }
}

/// Where settings come from.
#[derive(Clone, Debug, PartialEq)]
pub enum SettingsSource {
    /// There are none: the component gets `{}`.
    Empty,
    /// A path relative to the chain's folder, ending in `.toml` or `.json`.
    File(String),
    /// Written in the chain.
    Inline(Value),
}

/// Why a `chain.toml` was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Not TOML, or not of this shape.
    #[error("chain.toml cannot be read: {reason}")]
    Syntax {
        /// What the parser said, with line and column.
        reason: String,
    },
    /// Too large.
    #[error("chain.toml has {bytes} bytes; at most {most} are read")]
    TooLarge {
        /// What was found.
        bytes: usize,
        /// What is allowed.
        most: usize,
    },
    /// Another version of the format.
    #[error("chain.toml says version = {found}; this host reads version = {CHAIN_VERSION}")]
    Version {
        /// What was found.
        found: u32,
    },
    /// Too few or too many policies for a hook.
    #[error("chain.toml has {found} policies with hook = \"{hook}\"; it must have {expected}")]
    Count {
        /// The hook.
        hook: Hook,
        /// How many there are.
        found: usize,
        /// How many there must be.
        expected: &'static str,
    },
    /// A field of `[gate]`, `[rollout]` or `[tripwire]` with a value that makes no sense.
    #[error("chain.toml, [{table}], {field}: {problem}")]
    Table {
        /// The table.
        table: &'static str,
        /// The field.
        field: &'static str,
        /// What was found, and what is expected.
        problem: String,
    },
    /// A field with a value that makes no sense.
    #[error("chain.toml, policy {number} (hook `{hook}`), {field}: {problem}")]
    Field {
        /// The policy's place in the file, from 1.
        number: usize,
        /// Its hook.
        hook: Hook,
        /// The field.
        field: &'static str,
        /// What was found, and what is expected.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChain {
    version: u32,
    description: Option<String>,
    #[serde(default)]
    policy: Vec<RawPolicy>,
    #[serde(default)]
    gate: GateSpec,
    rollout: Option<RawRollout>,
    #[serde(default)]
    tripwire: Tripwire,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    hook: Hook,
    component: String,
    settings: Option<RawSettings>,
    on_fault: FaultAction,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    grants: Grants,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "settings must be the name of a file, or a table [policy.settings]")]
enum RawSettings {
    File(String),
    Inline(toml::Table),
}

impl ChainSpec {
    /// Parses the text of a `chain.toml`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str) -> Result<Self, ChainError> {
        if text.len() > CHAIN_BYTES_MAX {
            return Err(ChainError::TooLarge { bytes: text.len(), most: CHAIN_BYTES_MAX });
        }
        let syntax = |error: toml::de::Error| ChainError::Syntax { reason: error.to_string() };
        // The version first: a later format would fail on its new fields with a text that helps nobody.
        let table: toml::Table = text.parse().map_err(syntax)?;
        if let Some(version) = table.get("version").and_then(toml::Value::as_integer)
            && version != i64::from(CHAIN_VERSION)
        {
            return Err(ChainError::Version { found: u32::try_from(version).unwrap_or(0) });
        }
        let raw: RawChain = toml::from_str(text).map_err(syntax)?;
        if raw.version != CHAIN_VERSION {
            return Err(ChainError::Version { found: raw.version });
        }
        let table = |table| move |(field, problem)| ChainError::Table { table, field, problem };
        raw.gate.check().map_err(table("gate"))?;
        let rollout = raw.rollout.map(RawRollout::checked).transpose().map_err(table("rollout"))?.unwrap_or_default();
        let tripwire = raw.tripwire.checked().map_err(|error| ChainError::Table {
            table: "tripwire",
            field: error.field,
            problem: format!("{} was given, expected {} to {}", error.found, error.least, error.most),
        })?;
        let mut policies = Vec::with_capacity(raw.policy.len());
        for (i, policy) in raw.policy.into_iter().enumerate() {
            policies.push(policy.checked(i + 1)?);
        }
        for hook in Hook::ALL {
            let found = policies.iter().filter(|policy| policy.hook == hook).count();
            let (fits, expected) = match hook {
                Hook::Filter => (found <= FILTERS_MAX, "at most 16"),
                _ => (found == 1, "exactly one"),
            };
            if !fits {
                return Err(ChainError::Count { hook, found, expected });
            }
        }
        // Stable: filters keep the order of the file.
        policies.sort_by_key(|policy| policy.hook);
        Ok(Self { description: raw.description, policies, gate: raw.gate, rollout, tripwire })
    }

    /// The files that staging needs, each once, sorted.
    #[must_use]
    pub fn wanted_files(&self) -> Vec<WantedFile> {
        let mut files = Vec::new();
        for policy in &self.policies {
            files.push(WantedFile { path: policy.component.file_key(), kind: FileKind::Component });
            if let SettingsSource::File(path) = &policy.settings {
                files.push(WantedFile { path: path.clone(), kind: FileKind::Settings });
            }
        }
        files.sort();
        files.dedup();
        files
    }
}

impl RawPolicy {
    fn checked(self, number: usize) -> Result<PolicySpec, ChainError> {
        let hook = self.hook;
        let field = |field: &'static str, problem: String| ChainError::Field { number, hook, field, problem };
        let component = component_ref(self.component).map_err(|problem| field("component", problem))?;
        let settings = match self.settings {
            None => SettingsSource::Empty,
            Some(RawSettings::File(path)) => {
                relative(&path).map_err(|problem| field("settings", problem))?;
                if !(path.ends_with(".toml") || path.ends_with(".json")) {
                    return Err(field("settings", format!("`{path}` must end in .toml or .json")));
                }
                SettingsSource::File(path)
            }
            Some(RawSettings::Inline(table)) => {
                SettingsSource::Inline(json_table(&table).map_err(|problem| field("settings", problem))?)
            }
        };
        if self.on_fault != hook.fault_action() {
            let problem = format!(
                "`{}` is not possible here; for this hook write on_fault = \"{}\"",
                self.on_fault,
                hook.fault_action()
            );
            return Err(field("on_fault", problem));
        }
        let limits = self.limits.checked().map_err(|error| field("limits", error.to_string()))?;
        Ok(PolicySpec { number, hook, component, settings, on_fault: self.on_fault, limits, grants: self.grants })
    }
}

fn component_ref(text: String) -> Result<ComponentRef, String> {
    if text.starts_with(OCI_SCHEME) {
        return OciReference::parse(&text).map(ComponentRef::Oci);
    }
    match text.strip_prefix("sha256:") {
        None => {
            relative(&text)?;
            Ok(ComponentRef::File(text))
        }
        Some(digest) if digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => {
            Ok(ComponentRef::Sha256(digest.to_owned()))
        }
        Some(digest) => Err(format!("`sha256:{digest}` must have 64 lower-case hexadecimal digits")),
    }
}

/// Paths stay relative, so that a folder can be moved, published and unpacked elsewhere.
fn relative(path: &str) -> Result<(), String> {
    if path.is_empty() || path.len() > 500 {
        return Err(format!("a path of {} bytes; 1 to 500 are expected", path.len()));
    }
    if path.starts_with('/') || path.contains('\\') || path.contains('\0') || path.contains(':') {
        return Err(format!(
            "`{}` must be a path relative to the chain's folder, with forward slashes",
            path.escape_debug()
        ));
    }
    Ok(())
}

/// Reads settings: TOML or JSON by the file's name.
///
/// # Errors
/// What is wrong, with line and column where there are any.
pub fn settings_from_file(path: &str, bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))?;
    if path.ends_with(".json") {
        return serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"));
    }
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| format!("not TOML: {error}"))?;
    json_table(&table)
}

/// TOML as JSON: dates and times become their text, numbers must be finite.
fn json_table(table: &toml::Table) -> Result<Value, String> {
    table
        .iter()
        .map(|(key, value)| Ok((key.clone(), json_value(key, value)?)))
        .collect::<Result<_, _>>()
        .map(Value::Object)
}

fn json_value(key: &str, value: &toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => Value::String(text.clone()),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(*number)
            .map(Value::Number)
            .ok_or_else(|| format!("`{key}` is {number}; JSON has finite numbers only"))?,
        toml::Value::Boolean(flag) => Value::Bool(*flag),
        toml::Value::Datetime(moment) => Value::String(moment.to_string()),
        toml::Value::Array(list) => {
            Value::Array(list.iter().map(|value| json_value(key, value)).collect::<Result<_, _>>()?)
        }
        toml::Value::Table(table) => json_table(table)?,
    })
}
