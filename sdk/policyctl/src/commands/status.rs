//! `policyctl status`: which revision serves each chain, and what was refused.

use std::fmt::Write;

use serde_json::Value;

use crate::admin::AdminClient;
use crate::cli::{Outcome, RemoteOptions, Report, Verdict};
use crate::words;

/// Changes of state that are shown.
const TRANSITIONS_MAX: usize = 10;

#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub remote: RemoteOptions,
}

pub async fn run(options: &Options) -> Outcome {
    let client = AdminClient::new(&options.remote)?;
    let answer = client.get(&["policies"], &[("limit", TRANSITIONS_MAX.to_string())]).await?;
    let chains = answer["chains"].as_array().map_or(&[][..], Vec::as_slice);
    let is_well = chains.iter().all(|chain| chain["rejected"].is_null() && !chain["revision"].is_null());
    let verdict = if is_well { Verdict::Well } else { Verdict::Different };
    Report::new(text(&answer), &answer, verdict)
}

fn text(answer: &Value) -> String {
    let said = |value: &Value| words::one_line(value.as_str().unwrap_or("?"), 500);
    let mut out = format!("replica {}\n", said(&answer["replica"]));
    for chain in answer["chains"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "\nchain {}", said(&chain["chain"]));
        match chain["revision"].as_str() {
            Some(revision) => {
                let origin = match chain["origin"].as_str() {
                    Some("last-good") => "; the LAST GOOD one, because the folder cannot be used",
                    _ => "",
                };
                let _ = writeln!(out, "  serves revision {revision} since {}{origin}", said(&chain["since"]));
            }
            None => out.push_str("  serves NOTHING: its turns go to people\n"),
        }
        for policy in chain["policies"].as_array().into_iter().flatten() {
            let digest = policy["component_sha256"].as_str().unwrap_or_default();
            let [hook, name, version, snapshot] =
                ["hook", "name", "version", "snapshot"].map(|field| said(&policy[field]));
            let digest = digest.get(..12).unwrap_or(digest);
            let _ = writeln!(out, "  {hook:<9} {name} {version} (sha256:{digest}…), {snapshot}");
            let unused: Vec<&str> =
                policy["unused_grants"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            if !unused.is_empty() {
                let _ = writeln!(out, "            grants that it does not use: {}", unused.join(", "));
            }
        }
        let rejected = &chain["rejected"];
        if !rejected.is_null() {
            let _ = writeln!(out, "  REFUSED a candidate at {}:", said(&rejected["at"]));
            let reason = rejected["reason"].as_str().unwrap_or_default();
            let _ = writeln!(out, "{}", words::indented(reason, "    "));
        }
    }
    let transitions = answer["transitions"].as_array().map_or(&[][..], Vec::as_slice);
    if !transitions.is_empty() {
        out.push_str("\nLatest changes\n");
    }
    for change in transitions.iter().take(TRANSITIONS_MAX) {
        let revision =
            change["revision"].as_str().map_or(String::new(), |id| format!(" {}", id.get(..12).unwrap_or(id)));
        let [at, chain, state, actor] = ["at", "chain", "state", "actor"].map(|field| said(&change[field]));
        let reason = words::one_line(change["reason"].as_str().unwrap_or_default(), 160);
        let _ = writeln!(out, "  {at} {chain} {state}{revision} by {actor}: {reason}");
    }
    out
}
