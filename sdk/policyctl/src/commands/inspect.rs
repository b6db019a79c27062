//! `policyctl inspect`: what a component is, without a chain.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use frontdesk_policy_bundle::read_file;
use frontdesk_policy_engine::{Engine, Grants, Hook, Inspection, Limits, LoadRequest, OciReference, SnapshotStatus};
use frontdesk_provenance::signature::KEY_BYTES_MAX;
use frontdesk_provenance::{Evidence, PublicKey, TrustPolicy, TrustedKey, evidence};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{Failure, Outcome, Report, Verdict};
use crate::oci::{self, RegistryArguments};
use crate::{subject, words};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The component; in a registry by its digest or a tag.
    #[arg(value_name = "FILE.wasm|oci://…")]
    pub component: String,
    /// A public key: say whether it signed the component.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    #[command(flatten)]
    pub registry: RegistryArguments,
}

#[derive(Serialize)]
struct Inspected<'a> {
    file: String,
    /// The line for chain.toml; of a component in a registry.
    reference: Option<String>,
    signatures: usize,
    /// What lies under the signatures' tag and cannot be read as one.
    skipped: usize,
    /// Whether the key that was given signed it.
    signed: Option<bool>,
    #[serde(flatten)]
    inspection: &'a Inspection,
    snapshot: &'a str,
}

pub fn run(runtime: &tokio::runtime::Runtime, options: &Options) -> Outcome {
    let engine = subject::engine()?;
    let key = options.key.as_deref().map(read_key).transpose()?;
    let found = if oci::is_oci(&options.component) {
        runtime.block_on(in_registry(options))?
    } else {
        in_file(Path::new(&options.component))?
    };
    let inspection = subject::inspect_bytes(&engine, Path::new(&options.component), &found.wasm)?;
    let snapshot = snapshot(&engine, &found.wasm, &inspection);
    let mut text = text(&inspection, &snapshot);
    let signatures = found.evidence.count();
    let signed = key.map(|key| is_signed(key, &found));
    if signatures > 0 || signed.is_some() {
        let by_key = match signed {
            Some(true) => ", one by the given key",
            Some(false) => ", NONE by the given key",
            None => "",
        };
        let _ = writeln!(text, "signed     {}{by_key}", words::count(signatures, "signature", "signatures"));
    }
    if found.skipped > 0 {
        let layers = words::count(found.skipped, "layer", "layers");
        let _ = writeln!(text, "skipped    {layers} under the signatures' tag: no signature, or none that can be read");
    }
    if let Some(reference) = &found.reference {
        let _ = writeln!(text, "\nThe line for chain.toml:\n\ncomponent = \"{reference}\"");
    }
    let verdict = match (&inspection.problem, signed) {
        (Some(_), _) => Verdict::Faulted,
        (None, Some(false)) => Verdict::Different,
        (None, _) => Verdict::Well,
    };
    let report = Inspected {
        file: options.component.clone(),
        reference: found.reference.as_ref().map(ToString::to_string),
        signatures,
        skipped: found.skipped,
        signed,
        inspection: &inspection,
        snapshot: &snapshot,
    };
    Report::new(text, report, verdict)
}

/// A component and the signatures beside it.
struct Found {
    wasm: Vec<u8>,
    evidence: Evidence,
    /// Layers beside the signatures that could not be read.
    skipped: usize,
    reference: Option<OciReference>,
}

fn in_file(file: &Path) -> Result<Found, Failure> {
    let wasm = subject::read_component(file)?;
    let mut beside = file.to_owned().into_os_string();
    beside.push(evidence::SUFFIX);
    let beside = Path::new(&beside);
    let evidence = if beside.is_file() {
        let bytes = read_file(beside, evidence::EVIDENCE_BYTES_MAX).map_err(Failure::input)?;
        Evidence::parse(&bytes).map_err(|problem| Failure::input(format!("{}: {problem}", beside.display())))?
    } else {
        Evidence::default()
    };
    Ok(Found { wasm, evidence, skipped: 0, reference: None })
}

async fn in_registry(options: &Options) -> Result<Found, Failure> {
    let name = oci::name(&options.component)?;
    let registry = options.registry.client()?;
    let reference = registry.resolve(&name).await.map_err(|error| oci::failure(&error))?;
    let pulled = registry.pull(&reference).await.map_err(|error| oci::failure(&error))?;
    let found = registry.signatures(&reference, &pulled.manifest).await.map_err(|error| oci::failure(&error))?;
    let evidence = Evidence::of_registry(found.evidence);
    Ok(Found { wasm: pulled.component, evidence, skipped: found.skipped, reference: Some(reference) })
}

fn read_key(path: &Path) -> Result<PublicKey, Failure> {
    let bytes = read_file(path, KEY_BYTES_MAX).map_err(Failure::input)?;
    PublicKey::from_pem(&String::from_utf8_lossy(&bytes))
        .map_err(|error| Failure::input(format!("{}: {error}", path.display())))
}

/// By the rules of a host that trusts this key alone.
fn is_signed(key: PublicKey, found: &Found) -> bool {
    let key = TrustedKey { name: "given".to_owned(), key, chains: Vec::new(), registries: Vec::new() };
    let policy = TrustPolicy { required: true, chains: Vec::new(), keys: vec![key] };
    // A registry may have more than is kept; what this key made is among what is.
    let kept = policy.merged(&found.wasm, Evidence::default(), found.evidence.clone());
    let evidence = kept.to_bytes().unwrap_or_default();
    policy.check("inspect", "it", &found.wasm, Some(&evidence)).is_ok()
}

/// Whether calls can start from a configured snapshot. Only a component that has its settings can be snapshotted, so this
/// is a trial with none.
fn snapshot(engine: &Engine, wasm: &[u8], inspection: &Inspection) -> String {
    if inspection.problem.is_some() {
        return "cannot be tried".to_owned();
    }
    let hook = inspection.hooks.first().copied().unwrap_or(Hook::Classify);
    let grants = Grants { knowledge: inspection.imports.iter().any(|import| import.kind == "grant") };
    let request = LoadRequest { hook, wasm, settings: &json!({}), limits: Limits::default(), grants };
    match engine.load(request).map(|policy| policy.snapshot().clone()) {
        Ok(SnapshotStatus::Snapshotted) => "yes".to_owned(),
        Ok(SnapshotStatus::NotPossible { reason }) => format!("no: {reason}"),
        Err(_) => "depends on its settings: `policyctl check FILE.wasm --settings FILE` tells".to_owned(),
    }
}

fn text(inspection: &Inspection, snapshot: &str) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<10} {value}");
    };
    if let Some(it) = &inspection.description {
        line("name", it.name.clone());
        line("version", it.version.clone());
        line("summary", words::one_line(&it.summary, 500));
    }
    let hook = |hook: &Hook| format!("{hook} (world `{}`)", hook.world());
    line("hooks", join(inspection.hooks.iter().map(hook)));
    line("digest", format!("sha256:{}", inspection.sha256));
    line("size", words::bytes(inspection.bytes as u64));
    if let Some(it) = inspection.resources {
        let memory = it.memory_bytes_initial.map(|n| format!(", {} at the start", words::bytes(n))).unwrap_or_default();
        let table = it.table_elements_initial.map(|n| format!(", {n} elements")).unwrap_or_default();
        let memories = words::count(it.memories as usize, "memory", "memories");
        let tables = words::count(it.tables as usize, "table", "tables");
        line("resources", format!("{memories}{memory}; {tables}{table}"));
    }
    line("snapshot", snapshot.to_owned());
    for (kind, title) in [("host", "imports"), ("grant", "on grant"), ("wasi", "WASI"), ("refused", "REFUSED")] {
        let names = inspection.imports.iter().filter(|import| import.kind == kind).map(|import| import.name.clone());
        let names = join(names);
        if names != "none" {
            line(title, names);
        }
    }
    line("exports", join(inspection.exports.iter().cloned()));
    if let Some(schema) = &inspection.settings_schema {
        line("settings", String::new());
        out.push_str(&settings(schema));
    }
    if let Some(problem) = &inspection.problem {
        let _ = writeln!(out, "\nThe host would refuse it: {problem}");
    }
    out
}

/// One line for each property of a schema.
fn settings(schema: &Value) -> String {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut out = String::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let kind = match (property["type"].as_str(), property["enum"].as_array()) {
            (_, Some(words)) => words.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "),
            (Some(kind), None) => kind.to_owned(),
            (None, None) => "see the schema".to_owned(),
        };
        let need = match &property["default"] {
            _ if required.contains(&name.as_str()) => "required".to_owned(),
            Value::Null => "optional".to_owned(),
            default => format!("default {}", words::one_line(&default.to_string(), 40)),
        };
        let description = words::one_line(property["description"].as_str().unwrap_or_default(), 200);
        let _ = writeln!(out, "  {name} ({kind}, {need}): {description}");
    }
    out
}

fn join(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
