//! `policyctl check`: loads as the host would.

use std::fmt::Write;

use frontdesk_policy_engine::{Grants, Limits, Policy, SnapshotStatus};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{Outcome, Report, SubjectOptions, Verdict};
use crate::subject::{self, Subject};
use crate::words;

#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub subject: SubjectOptions,
}

#[derive(Serialize)]
struct CheckedPolicy {
    hook: &'static str,
    name: String,
    version: String,
    component_sha256: String,
    settings_sha256: String,
    limits: Limits,
    on_fault: Option<&'static str>,
    grants: Option<Grants>,
    unused_grants: Vec<String>,
    snapshotted: bool,
    /// Why every call has to configure again.
    not_snapshotted_because: Option<String>,
    /// Where the component's own schema refuses the settings that its `configure` accepted.
    schema_problems: Vec<String>,
}

/// Most problems of one schema that are told.
const SCHEMA_PROBLEMS_MAX: usize = 20;

pub fn run(options: &Options) -> Outcome {
    let engine = subject::engine()?;
    let subject = Subject::open(&engine, &options.subject)?;
    let mut out = String::new();
    let (revision, policies): (_, Vec<CheckedPolicy>) = match &subject {
        Subject::Chain { folder, revision } => {
            let _ = writeln!(out, "{} is good: revision {}", folder.display(), revision.id());
            if let Some(description) = &revision.spec().description {
                let _ = writeln!(out, "  {}", words::one_line(description, 200));
            }
            let checked = revision.policies().map(|staged| CheckedPolicy {
                on_fault: Some(staged.on_fault.as_str()),
                grants: Some(staged.grants),
                ..policy(&staged.policy)
            });
            (Some(revision.id().to_string()), checked.collect())
        }
        Subject::Component { file, policies, .. } => {
            let _ = writeln!(out, "{} is good", file.display());
            // What a component on its own is granted is what it wants: a chain decides.
            let alone = |policy: &Policy| CheckedPolicy { unused_grants: Vec::new(), ..self::policy(policy) };
            (None, policies.iter().map(alone).collect())
        }
    };
    for policy in &policies {
        describe(&mut out, policy);
    }
    let fits = policies.iter().all(|policy| policy.schema_problems.is_empty());
    let report = json!({ "subject": subject.path(), "revision": revision, "policies": policies });
    Report::new(out, report, if fits { Verdict::Well } else { Verdict::Different })
}

/// Forms are made from the schema, so settings that `configure` takes and the schema refuses could not be edited there.
fn schema_problems(policy: &Policy) -> Vec<String> {
    let settings: Value = match serde_json::from_str(policy.settings()) {
        Ok(settings) => settings,
        Err(error) => return vec![format!("the settings are no JSON: {error}")],
    };
    match jsonschema::draft202012::new(policy.settings_schema()) {
        Err(error) => vec![format!("not a JSON Schema (draft 2020-12): {error}")],
        Ok(schema) => schema
            .iter_errors(&settings)
            .take(SCHEMA_PROBLEMS_MAX)
            .map(|error| format!("{}: {}", error.instance_path(), words::one_line(&error.to_string(), 300)))
            .collect(),
    }
}

fn policy(policy: &Policy) -> CheckedPolicy {
    let (snapshotted, reason) = match policy.snapshot() {
        SnapshotStatus::Snapshotted => (true, None),
        SnapshotStatus::NotPossible { reason } => (false, Some(reason.clone())),
    };
    CheckedPolicy {
        hook: policy.hook().as_str(),
        name: policy.description().name.clone(),
        version: policy.description().version.clone(),
        component_sha256: policy.component_sha256().to_owned(),
        settings_sha256: policy.settings_sha256().to_owned(),
        limits: policy.limits().clone(),
        on_fault: None,
        grants: None,
        unused_grants: policy.unused_grants().to_vec(),
        snapshotted,
        not_snapshotted_because: reason,
        schema_problems: schema_problems(policy),
    }
}

fn describe(out: &mut String, policy: &CheckedPolicy) {
    let CheckedPolicy { hook, name, version, limits, .. } = policy;
    let fault = policy.on_fault.map(|word| format!("; on a fault: {word}")).unwrap_or_default();
    let _ = writeln!(out, "\n{hook:<9} {name} {version}{fault}");
    let _ = writeln!(out, "  component sha256:{}", policy.component_sha256);
    let _ = writeln!(out, "  settings  sha256:{}", policy.settings_sha256);
    let _ = writeln!(
        out,
        "  limits    fuel {}, {} ms, {} MiB, output {} KiB, {} log lines, {} look-ups of {} ms",
        words::number(limits.fuel),
        limits.deadline_ms,
        limits.memory_mib,
        limits.output_kib,
        limits.log_lines,
        limits.lookups,
        limits.lookup_timeout_ms
    );
    if let Some(grants) = policy.grants {
        let granted = if grants.knowledge { "knowledge" } else { "none" };
        let unused = match policy.unused_grants.as_slice() {
            [] => String::new(),
            unused => format!("; NOT USED: {}; take it from chain.toml", unused.join(", ")),
        };
        let _ = writeln!(out, "  grants    {granted}{unused}");
    }
    match &policy.not_snapshotted_because {
        None => out.push_str("  snapshot  yes: calls start configured\n"),
        Some(reason) => {
            let reason = words::one_line(reason, 300);
            let _ = writeln!(out, "  snapshot  no, every call configures again: {reason}");
        }
    }
    for problem in &policy.schema_problems {
        let _ = writeln!(out, "  SCHEMA    refuses settings that configure accepted: {problem}");
    }
}
