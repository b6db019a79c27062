//! `policyctl status`: what each chain and replica runs, and what was refused.

use std::fmt::Write;

use serde_json::Value;

use super::moves::{canary_share, gate};
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
    let is_well = |chain: &Value| {
        !chain["revision"].is_null() && ["rejected", "problem"].iter().all(|field| chain[field].is_null())
    };
    let is_well = chains.iter().all(is_well) && live(&answer).all(|replica| replica["problem"].is_null());
    let verdict = if is_well { Verdict::Well } else { Verdict::Different };
    Report::new(text(&answer), &answer, verdict)
}

fn live(answer: &Value) -> impl Iterator<Item = &Value> {
    answer["replicas"].as_array().into_iter().flatten().filter(|replica| replica["is_live"] == true)
}

fn said(value: &Value) -> String {
    words::one_line(value.as_str().unwrap_or("?"), 500)
}

fn short(value: &Value) -> String {
    let id = said(value);
    id.get(..12).unwrap_or(&id).to_owned()
}

fn text(answer: &Value) -> String {
    let mut out = format!("replica {}\n", said(&answer["replica"]));
    for chain in answer["chains"].as_array().into_iter().flatten() {
        out.push_str(&of_chain(answer, chain));
    }
    let revisions = answer["revisions"].as_array().map_or(&[][..], Vec::as_slice);
    if !revisions.is_empty() {
        out.push_str("\nLatest revisions\n");
    }
    for row in revisions.iter().take(TRANSITIONS_MAX) {
        let [chain, state, since, by] =
            ["chain", "state", "state_since", "published_by"].map(|field| said(&row[field]));
        let _ = writeln!(out, "  {chain} {} {state} since {since}, published by {by}", short(&row["revision"]));
        if row["gate"]["passed"] == false || row["gate"]["warnings"].as_array().is_some_and(|list| !list.is_empty()) {
            out.push_str(&gate(&row["gate"], "    "));
        }
    }
    let transitions = answer["transitions"].as_array().map_or(&[][..], Vec::as_slice);
    if !transitions.is_empty() {
        out.push_str("\nLatest changes\n");
    }
    for change in transitions.iter().take(TRANSITIONS_MAX) {
        let revision =
            change["revision"].as_str().map_or(String::new(), |_| format!(" {}", short(&change["revision"])));
        let [at, chain, state, actor] = ["at", "chain", "state", "actor"].map(|field| said(&change[field]));
        let reason = words::one_line(change["reason"].as_str().unwrap_or_default(), 400);
        let _ = writeln!(out, "  {at} {chain} {state}{revision} by {actor}: {reason}");
    }
    out
}

fn of_chain(answer: &Value, chain: &Value) -> String {
    let name = said(&chain["chain"]);
    let mut out = format!("\nchain {name}\n");
    match chain["revision"].as_str() {
        Some(revision) => {
            let origin = match chain["origin"].as_str() {
                Some("last-good") => "; the LAST GOOD one, because the folder cannot be used",
                Some("api") => "; by a person's or rule's word",
                _ => "",
            };
            let _ = writeln!(out, "  serves revision {revision} since {}{origin}", said(&chain["since"]));
        }
        None => out.push_str("  serves NOTHING: its turns go to people\n"),
    }
    for policy in chain["policies"].as_array().into_iter().flatten() {
        let digest = short(&policy["component_sha256"]);
        let [hook, name, version, snapshot] = ["hook", "name", "version", "snapshot"].map(|field| said(&policy[field]));
        let _ = writeln!(out, "  {hook:<9} {name} {version} (sha256:{digest}…), {snapshot}");
        let unused: Vec<&str> =
            policy["unused_grants"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !unused.is_empty() {
            let _ = writeln!(out, "            grants that it does not use: {}", unused.join(", "));
        }
    }
    if !chain["canary"].is_null() {
        let rollout = answer["rollouts"].as_array().into_iter().flatten().find(|row| row["chain"] == chain["chain"]);
        let share = rollout.map(canary_share).unwrap_or_default();
        let (revision, since) = (said(&chain["canary"]["revision"]), said(&chain["canary"]["since"]));
        let _ = writeln!(out, "  canary    {revision} since {since}: {share}");
    }
    if !chain["shadow"].is_null() {
        let (revision, since) = (said(&chain["shadow"]["revision"]), said(&chain["shadow"]["since"]));
        let _ = writeln!(out, "  shadow    {revision} since {since}");
    }
    if !chain["previous"].is_null() {
        let _ = writeln!(out, "  stands by {}", said(&chain["previous"]));
    }
    let rejected = &chain["rejected"];
    if !rejected.is_null() {
        let name = rejected["code"].as_str().map(|_| format!(" ({})", said(&rejected["code"]))).unwrap_or_default();
        let _ = writeln!(out, "  REFUSED a candidate at {}{name}:", said(&rejected["at"]));
        let reason = rejected["reason"].as_str().unwrap_or_default();
        let _ = writeln!(out, "{}", words::indented(reason, "    "));
    }
    for (title, field) in [("PROBLEM:", "problem"), ("folder:", "folder")] {
        if let Some(problem) = chain[field].as_str() {
            let _ = writeln!(out, "  {title}\n{}", words::indented(problem, "    "));
        }
    }
    for replica in live(answer).filter(|replica| replica["chain"] == chain["chain"]) {
        let runs = match replica["active"].as_str() {
            Some(_) => format!("{} since {}", short(&replica["active"]), said(&replica["active_since"])),
            None => "NOTHING".to_owned(),
        };
        let _ = writeln!(out, "  replica {} runs {runs}", said(&replica["replica"]));
        if let Some(problem) = replica["problem"].as_str() {
            let _ = writeln!(out, "{}", words::indented(problem, "    "));
        }
    }
    out
}
