//! `policyctl shadow-report`: what a chain's shadow would have changed for the turns that customers wrote.

use std::fmt::Write;

use serde::Deserialize;

use super::diff::{Transition, matrix};
use crate::admin::AdminClient;
use crate::cli::{Failure, Outcome, RemoteOptions, Report, Verdict};
use crate::words;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The chain.
    #[arg(value_name = "CHAIN", default_value = "default")]
    pub chain: String,
    /// The shadow revision; without it the present one, or else the one that judged last.
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
    /// Sample turns that are shown.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub samples: u32,
    #[command(flatten)]
    pub remote: RemoteOptions,
}

#[derive(Deserialize)]
struct Change {
    from: String,
    to: String,
    turns: usize,
}

impl From<Change> for Transition {
    fn from(change: Change) -> Self {
        Self { from: change.from, to: change.to, count: change.turns }
    }
}

#[derive(Deserialize)]
struct Totals {
    turns: usize,
    first_at: Option<String>,
    last_at: Option<String>,
    changed: usize,
    draft_would_differ: usize,
    no_draft_recorded: usize,
    texts_changed: usize,
    distance_median: Option<f64>,
    distance_max: Option<f64>,
    fuel_ratio_median: Option<f64>,
    fuel_ratio_p99: Option<f64>,
}

#[derive(Deserialize)]
struct Sample {
    turn_id: String,
    level: String,
    route_before: String,
    route_after: String,
    outcome_before: String,
    outcome_after: String,
    reason_before: String,
    reason_after: String,
    fault_after: Option<String>,
}

#[derive(Deserialize)]
struct ShadowReport {
    chain: String,
    active: Option<String>,
    shadow: String,
    is_present: bool,
    totals: Totals,
    routes: Vec<Change>,
    outcomes: Vec<Change>,
    reasons: Vec<Change>,
    faults: Vec<Change>,
    samples: Vec<Sample>,
}

pub async fn run(options: &Options) -> Outcome {
    let client = AdminClient::new(&options.remote)?;
    let mut query = vec![("limit", options.samples.clamp(1, 200).to_string())];
    query.extend(options.revision.iter().map(|revision| ("revision", revision.clone())));
    let answer = client.find(&["policies", &options.chain, "shadow"], &query).await?.ok_or_else(|| {
        Failure::input(format!("chain {} has no shadow, and none has judged a turn of it lately", options.chain))
    })?;
    let report: ShadowReport = serde_json::from_value(answer.clone())
        .map_err(|error| Failure::unreachable(format!("the host's report has another form: {error}")))?;
    let verdict = match (report.faults.iter().any(|fault| fault.to != "none"), report.totals.changed) {
        (true, _) => Verdict::Faulted,
        (false, 0) => Verdict::Well,
        (false, _) => Verdict::Different,
    };
    Report::new(text(report), &answer, verdict)
}

fn text(report: ShadowReport) -> String {
    let ShadowReport { chain, active, shadow, is_present, totals, .. } = report;
    let mut out = format!("chain {}\n", words::one_line(&chain, 64));
    let _ = writeln!(out, "  active  revision {}", words::one_line(active.as_deref().unwrap_or("none"), 64));
    let gone = if is_present { "" } else { ", which is the shadow no more" };
    let _ = writeln!(out, "  shadow  revision {}{gone}", words::one_line(&shadow, 64));
    let turns = words::count(totals.turns, "turn", "turns");
    let _ = writeln!(out, "{turns} judged by both: {} would have ended differently", totals.changed);
    if let (Some(first), Some(last)) = (&totals.first_at, &totals.last_at) {
        let _ = writeln!(out, "  from {} to {}", words::one_line(first, 40), words::one_line(last, 40));
    }
    if totals.draft_would_differ > 0 {
        let _ =
            writeln!(out, "  For {}, the draft would differ; the recorded one was judged.", totals.draft_would_differ);
    }
    if totals.no_draft_recorded > 0 {
        let _ = writeln!(
            out,
            "  For {}, there was no draft to judge; only the routes are known.",
            totals.no_draft_recorded
        );
    }
    let list = |changes: Vec<Change>| changes.into_iter().map(Transition::from).collect::<Vec<_>>();
    for (title, changes) in [("Routes", report.routes), ("Outcomes", report.outcomes)] {
        out.push_str(&matrix(title, &list(changes)));
    }
    for (title, none, changes) in
        [("Reasons of tickets that changed", "no ticket", report.reasons), ("Faults", "no fault", report.faults)]
    {
        if changes.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n{title}");
        let named = |name: &str| match name {
            "" | "none" => none.to_owned(),
            name => words::one_line(name, 80),
        };
        for change in changes {
            let _ = writeln!(out, "  {:>6}  {} -> {}", change.turns, named(&change.from), named(&change.to));
        }
    }
    let percent = |share: Option<f64>| share.unwrap_or_default() * 100.0;
    let (median, most) = (percent(totals.distance_median), percent(totals.distance_max));
    let _ = writeln!(
        out,
        "\nTexts: {} changed; of those, changed characters: median {median:.0} %, most {most:.0} %",
        totals.texts_changed
    );
    if let (Some(median), Some(p99)) = (totals.fuel_ratio_median, totals.fuel_ratio_p99) {
        let _ = writeln!(out, "Fuel: {median:.2} times the active revision's (median), {p99:.2} (99th percentile)");
    }
    if !report.samples.is_empty() {
        out.push_str("\nTurns that would have ended differently, newest first (`policyctl explain` shows one)\n");
    }
    for sample in report.samples {
        let [id, level] = [&sample.turn_id, &sample.level].map(|text| words::one_line(text, 40));
        let end = |route: &str, outcome: &str, reason: &str| {
            let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
            words::one_line(&format!("{route}/{outcome}{reason}"), 100)
        };
        let before = end(&sample.route_before, &sample.outcome_before, &sample.reason_before);
        let after = end(&sample.route_after, &sample.outcome_after, &sample.reason_after);
        let fault =
            sample.fault_after.map(|fault| format!(", fault {}", words::one_line(&fault, 60))).unwrap_or_default();
        let _ = writeln!(out, "  {id} ({level}): {before} -> {after}{fault}");
    }
    out
}
