//! `policyctl replay`: recorded decisions, judged again.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use frontdesk_policy_engine::{Difference, Level, Replayed, replay};
use serde::Serialize;

use crate::cli::{Outcome, Report, Verdict};
use crate::records::Records;
use crate::{subject, words};

/// Most records whose differences are kept.
const SHOWN_MAX: usize = 1_000;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Decision records, one JSON document a line, as `policyctl export` writes them.
    #[arg(long, value_name = "FILE.jsonl")]
    pub records: PathBuf,
    /// The chain to judge them with.
    #[arg(long, value_name = "DIR")]
    pub chain: PathBuf,
    /// At most so many records are read.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub limit: usize,
}

#[derive(Serialize)]
struct DifferentRecord {
    line: usize,
    turn_id: String,
    level: Level,
    recorded_revision: Option<String>,
    differences: Vec<Difference>,
}

#[derive(Default, Serialize)]
struct ReplayReport {
    chain: PathBuf,
    revision: String,
    records: usize,
    /// Records whose verdicts are equal to the byte.
    equal: usize,
    different: usize,
    /// Records by level.
    levels: BTreeMap<&'static str, usize>,
    /// Records of the very revision that is staged.
    same_revision: usize,
    faults: usize,
    /// Fuel of all calls: what was recorded, and now.
    fuel_recorded: u64,
    fuel_replayed: u64,
    /// The first records that differ, bounded.
    details: Vec<DifferentRecord>,
}

pub fn run(runtime: &tokio::runtime::Runtime, options: &Options) -> Outcome {
    let records = Records::open(&options.records, options.limit)?;
    let engine = subject::engine()?;
    let revision = subject::stage(&engine, &options.chain)?;
    let mut report =
        ReplayReport { chain: options.chain.clone(), revision: revision.id().to_string(), ..ReplayReport::default() };
    for record in records {
        let record = record?;
        let replayed = runtime.block_on(replay(&revision, &record.recorded));
        let differences = replayed.differences(&record.recorded);
        report.count(&replayed, &record.recorded, differences.is_empty());
        let is_equal = differences.is_empty() && replayed.level == Level::Exact;
        if !is_equal && report.details.len() < SHOWN_MAX {
            report.details.push(DifferentRecord {
                line: record.line,
                turn_id: record.turn_id,
                level: replayed.level,
                recorded_revision: record.recorded.revision_id(),
                differences,
            });
        }
    }
    let verdict = if report.different == 0 { Verdict::Well } else { Verdict::Different };
    Report::new(text(&report), &report, verdict)
}

impl ReplayReport {
    fn count(&mut self, replayed: &Replayed, recorded: &frontdesk_policy_engine::RecordedTurn, is_equal: bool) {
        self.records += 1;
        *self.levels.entry(replayed.level.as_str()).or_default() += 1;
        self.same_revision += usize::from(recorded.revision_id().as_ref() == Some(&self.revision));
        self.faults += usize::from(replayed.calls().iter().any(|(_, _, is_fault)| *is_fault));
        self.fuel_replayed += replayed.calls().iter().map(|(_, fuel, _)| fuel).sum::<u64>();
        self.fuel_recorded += recorded.fuel_used();
        if is_equal && replayed.level == Level::Exact {
            self.equal += 1;
        } else {
            self.different += 1;
        }
    }
}

fn text(report: &ReplayReport) -> String {
    let mut out = String::new();
    for record in &report.details {
        let from = record.recorded_revision.as_deref().map_or("unknown", |id| id.get(..12).unwrap_or(id));
        let _ = writeln!(
            out,
            "line {}, turn {} ({}; recorded by revision {from})",
            record.line,
            record.turn_id,
            record.level.as_str()
        );
        for difference in &record.differences {
            let hook = match difference.filter {
                Some(place) => format!("filter {}", place + 1),
                None => difference.hook.to_string(),
            };
            let value = |value: &serde_json::Value| words::one_line(&value.to_string(), 160);
            let path = if difference.path.is_empty() { "the whole verdict" } else { &difference.path };
            let _ = writeln!(out, "  {hook} {path}");
            let _ = writeln!(out, "    recorded {}", value(&difference.recorded));
            let _ = writeln!(out, "    now      {}", value(&difference.replayed));
        }
        match record.level {
            Level::Exact => {}
            Level::DraftWouldDiffer => {
                out.push_str("  The draft would differ: the model would be told something else. The recorded draft was judged.\n");
            }
            Level::NoDraftRecorded => {
                out.push_str(
                    "  It would be answered now, and the record holds no draft: only the classifier was asked.\n",
                );
            }
        }
    }
    if report.different > report.details.len() {
        let _ = writeln!(out, "… and {} more", report.different - report.details.len());
    }
    let _ = writeln!(out, "\nrevision {} on {}", report.revision, words::count(report.records, "record", "records"));
    let _ = writeln!(out, "  equal to the byte   {}", report.equal);
    let _ = writeln!(out, "  different           {}", report.different);
    for (level, count) in &report.levels {
        let _ = writeln!(out, "  {level:<19} {count}");
    }
    let _ = writeln!(out, "  of this revision    {}", report.same_revision);
    let _ = writeln!(out, "  with a fault        {}", report.faults);
    let (before, now) = (words::number(report.fuel_recorded), words::number(report.fuel_replayed));
    let _ = writeln!(out, "  fuel                {before} recorded, {now} now");
    out
}
