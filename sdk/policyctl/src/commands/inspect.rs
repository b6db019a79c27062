//! `policyctl inspect`: what a component is, without a chain.

use std::fmt::Write;
use std::path::PathBuf;

use frontdesk_policy_engine::{Engine, Grants, Hook, Inspection, Limits, LoadRequest, SnapshotStatus};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{Outcome, Report, Verdict};
use crate::{subject, words};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The component.
    #[arg(value_name = "FILE.wasm")]
    pub file: PathBuf,
}

#[derive(Serialize)]
struct Inspected<'a> {
    file: String,
    #[serde(flatten)]
    inspection: &'a Inspection,
    snapshot: &'a str,
}

pub fn run(options: &Options) -> Outcome {
    let engine = subject::engine()?;
    let (wasm, inspection) = subject::inspect(&engine, &options.file)?;
    let snapshot = snapshot(&engine, &wasm, &inspection);
    let text = text(&inspection, &snapshot);
    let verdict = if inspection.problem.is_some() { Verdict::Faulted } else { Verdict::Well };
    let file = options.file.display().to_string();
    Report::new(text, Inspected { file, inspection: &inspection, snapshot: &snapshot }, verdict)
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
