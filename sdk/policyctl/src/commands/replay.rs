//! `policyctl replay`: recorded decisions, judged again.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use frontdesk_policy_engine::{Difference, Engine, Level, Replayed, Revision, replay, sha256_hex};
use serde::Serialize;

use super::redraft::Redraft;
use crate::admin::AdminClient;
use crate::cli::{Failure, Outcome, RemoteOptions, Report, Verdict};
use crate::source::{self, RecordOptions, RecordSource};
use crate::{subject, words};

/// Most records whose differences are kept.
const SHOWN_MAX: usize = 1_000;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// One decision of the host: the turn's id, or the id of a message that it read or sent.
    #[arg(value_name = "DECISION", conflicts_with_all = ["records", "last"], required_unless_present_any = ["records", "last"])]
    pub decision: Option<String>,
    /// Decision records, one JSON document a line, as `policyctl export` writes them.
    #[arg(long, visible_alias = "file", value_name = "FILE.jsonl", conflicts_with = "last")]
    pub records: Option<PathBuf>,
    /// The host's decisions of so long, such as 7d, 12h or 30m.
    #[arg(long, value_name = "TIME", value_parser = source::span)]
    pub last: Option<TimeDelta>,
    /// What judges them: a chain's folder, a revision that the host has stored (its id, or the first digits), or a
    /// component in the place of the one of the same name in the revision that decided: a .wasm file, or
    /// sha256:DIGEST of one that the host has stored.
    #[arg(long = "with", value_name = "DIR|REVISION|FILE.wasm|sha256:DIGEST")]
    pub with: String,
    /// The chain's name on the host.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub chain: String,
    /// The Page of the decision's message; by default all Pages of the host are tried.
    #[arg(long, value_name = "PAGE_ID")]
    pub page: Option<String>,
    /// At most so many records are read.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub limit: usize,
    /// Let the host draft again with its model, for what the candidate would tell it, and show what would come of that draft.
    /// Not exact, and no part of the verdict: a model may write something else each time.
    #[arg(long, requires = "decision")]
    pub redraft: bool,
    /// Who asks for the draft, for the host's audit log.
    #[arg(long = "as", value_name = "NAME", env = "USER", default_value = "policyctl")]
    pub actor: String,
    #[command(flatten)]
    pub remote: RemoteOptions,
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
    with: String,
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
    /// What would come of a new draft; only where it was asked for. It counts for nothing above.
    #[serde(skip_serializing_if = "Option::is_none")]
    redraft: Option<Redraft>,
}

pub fn run(runtime: &tokio::runtime::Runtime, options: &Options) -> Outcome {
    let engine = subject::engine()?;
    let Options { remote, chain: chain_name, with, .. } = options;
    let mut one = None;
    let mut records = match &options.decision {
        Some(id) => {
            let client = AdminClient::new(remote)?;
            one = Some(runtime.block_on(source::record_of(&client, id, options.page.as_deref()))?);
            None
        }
        None => {
            let from = RecordOptions { records: options.records.clone(), last: options.last };
            Some(RecordSource::open(&from, chain_name, options.limit, remote)?)
        }
    };
    let digest = with.strip_prefix("sha256:").map(str::to_ascii_lowercase);
    let revision = if digest.is_some() || with.ends_with(".wasm") {
        let decided = one.as_ref().and_then(|record| record.recorded.revision_id());
        let decided = decided.ok_or_else(|| {
            Failure::input("--with a component is for one DECISION: it takes the place of a component in its revision")
        })?;
        let chain = one.as_ref().map_or(chain_name.as_str(), |record| record.recorded.chain.as_str());
        let wasm = match &digest {
            Some(digest) => runtime.block_on(source::component(digest, remote))?,
            None => subject::read_component(Path::new(with))?,
        };
        runtime.block_on(with_component(&engine, Path::new(with), wasm, &decided, chain, remote))?
    } else {
        runtime.block_on(source::revision(&engine, with, chain_name, remote))?
    };
    let mut report =
        ReplayReport { with: with.clone(), revision: revision.id().to_string(), ..ReplayReport::default() };
    loop {
        let next = match &mut records {
            Some(records) => runtime.block_on(records.next())?,
            None => one.take(),
        };
        let Some(record) = next else { break };
        let replayed = runtime.block_on(replay(&revision, &record.recorded));
        let differences = replayed.differences(&record.recorded);
        report.count(&replayed, &record.recorded, differences.is_empty());
        let is_equal = differences.is_empty() && replayed.level == Level::Exact;
        if options.redraft {
            let client = AdminClient::new(remote)?;
            let asked = Redraft::ask(&client, &options.actor, &revision, &record, &replayed);
            report.redraft = Some(runtime.block_on(asked)?);
        }
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

/// The revision that decided, with one of its components replaced by another of the same name.
async fn with_component(
    engine: &Engine,
    file: &Path,
    wasm: Vec<u8>,
    decided: &str,
    chain: &str,
    remote: &RemoteOptions,
) -> Result<Revision, Failure> {
    let inspection = subject::inspect_bytes(engine, file, &wasm)?;
    let Some(name) = inspection.description.map(|description| description.name) else {
        let problem = inspection.problem.unwrap_or_default();
        return Err(Failure::refused(format!("{} cannot be asked for its name: {problem}", file.display())));
    };
    let mut bundle = source::bundle(decided, chain, remote).await?;
    let before = engine.stage(&bundle).map_err(Failure::refused)?;
    let named = before.manifest().policies.iter().zip(&before.spec().policies);
    let keys: Vec<String> =
        named.filter(|(manifest, _)| manifest.name == name).map(|(_, policy)| policy.component.file_key()).collect();
    if keys.is_empty() {
        let names: Vec<&str> = before.manifest().policies.iter().map(|policy| policy.name.as_str()).collect();
        return Err(Failure::input(format!(
            "{} is called {}, and the revision that decided has no policy of that name; it has {}",
            file.display(),
            name,
            names.join(", ")
        )));
    }
    for key in keys {
        // A chain that names the component by its digest names the new one now.
        let renamed = match key.strip_prefix("sha256:") {
            Some(digest) => {
                let fresh = sha256_hex(&wasm);
                bundle.chain_toml = bundle.chain_toml.replace(digest, &fresh);
                bundle.files.remove(&key);
                format!("sha256:{fresh}")
            }
            None => key,
        };
        bundle.files.insert(renamed, wasm.clone());
    }
    engine.stage(&bundle).map_err(|error| Failure::refused(format!("{}: {error}", file.display())))
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
    if let Some(redraft) = &report.redraft {
        out.push_str(&redraft.text());
    }
    out
}
