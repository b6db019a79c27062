//! `policyctl diff`: what changes from one chain to another, on recorded decisions.

use std::collections::BTreeMap;
use std::fmt::Write;

use frontdesk_policy_engine::{Conclusion, Level, Replayed, edit_distance, replay};
use serde::Serialize;

use crate::cli::{Outcome, RemoteOptions, Report, Verdict};
use crate::records::Record;
use crate::source::{self, RecordOptions, RecordSource};
use crate::{subject, words};

/// Pairs that are shown.
const SAMPLES_MAX: usize = 20;
/// Kinds of changed reasons that are shown.
const REASONS_MAX: usize = 20;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The chain before: a folder, or a revision that the host has stored (its id, or the first digits).
    #[arg(value_name = "DIR_A|REVISION_A")]
    pub before: String,
    /// The chain after, likewise.
    #[arg(value_name = "DIR_B|REVISION_B")]
    pub after: String,
    #[command(flatten)]
    pub records: RecordOptions,
    /// The chain's name on the host, for revisions and --last.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub chain: String,
    /// At most so many records are read.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub limit: usize,
    #[command(flatten)]
    pub remote: RemoteOptions,
}

/// How often one thing became another.
#[derive(Serialize)]
pub(crate) struct Transition {
    pub from: String,
    pub to: String,
    pub count: usize,
}

#[derive(Serialize)]
struct Sample {
    line: usize,
    turn_id: String,
    question: String,
    level: Level,
    before: Conclusion,
    after: Conclusion,
    /// Changed characters of the text, as a share of the longer one.
    distance: f64,
}

#[derive(Serialize)]
struct DiffReport {
    before: String,
    after: String,
    records: usize,
    changed: usize,
    /// Records for which one of the two would have told the drafting model something else than was recorded.
    draft_would_differ: usize,
    /// Records that one of the two would answer and for which no draft is recorded.
    no_draft_recorded: usize,
    routes: Vec<Transition>,
    outcomes: Vec<Transition>,
    reasons: Vec<Transition>,
    texts_changed: usize,
    /// Of the changed texts.
    distance_median: f64,
    distance_max: f64,
    samples: Vec<Sample>,
}

#[derive(Default)]
struct Counted {
    records: usize,
    changed: usize,
    draft_would_differ: usize,
    no_draft_recorded: usize,
    routes: BTreeMap<(String, String), usize>,
    outcomes: BTreeMap<(String, String), usize>,
    reasons: BTreeMap<(String, String), usize>,
    distances: Vec<f64>,
    samples: Vec<Sample>,
}

pub fn run(runtime: &tokio::runtime::Runtime, options: &Options) -> Outcome {
    let Options { remote, chain, .. } = options;
    let mut records = RecordSource::open(&options.records, chain, options.limit, remote)?;
    let engine = subject::engine()?;
    let before = runtime.block_on(source::revision(&engine, &options.before, chain, remote))?;
    let after = runtime.block_on(source::revision(&engine, &options.after, chain, remote))?;
    let mut counted = Counted::default();
    while let Some(record) = runtime.block_on(records.next())? {
        let one = runtime.block_on(replay(&before, &record.recorded));
        let other = runtime.block_on(replay(&after, &record.recorded));
        counted.add(&record, one, other);
    }
    let report = counted.report(before.id().to_string(), after.id().to_string());
    let verdict = if report.changed == 0 { Verdict::Well } else { Verdict::Different };
    Report::new(text(&report), &report, verdict)
}

impl Counted {
    fn add(&mut self, record: &Record, before: Replayed, after: Replayed) {
        let level = before.level.max(after.level);
        self.records += 1;
        self.draft_would_differ += usize::from(level == Level::DraftWouldDiffer);
        self.no_draft_recorded += usize::from(level == Level::NoDraftRecorded);
        let (mut one, mut other) = (before.conclusion, after.conclusion);
        if level == Level::NoDraftRecorded {
            // What would have come of the draft is unknown; only the routes can be compared.
            for (conclusion, level) in [(&mut one, before.level), (&mut other, after.level)] {
                if level == Level::NoDraftRecorded {
                    "unknown".clone_into(&mut conclusion.outcome);
                    (conclusion.text, conclusion.ticket) = (None, None);
                }
            }
        }
        let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        *self.routes.entry(pair(&one.route, &other.route)).or_default() += 1;
        *self.outcomes.entry(pair(&one.outcome, &other.outcome)).or_default() += 1;
        if one == other {
            return;
        }
        self.changed += 1;
        if one.reason != other.reason {
            *self.reasons.entry(pair(&one.reason, &other.reason)).or_default() += 1;
        }
        let mut distance = 0.0;
        if one.text != other.text {
            distance =
                edit_distance(one.text.as_deref().unwrap_or_default(), other.text.as_deref().unwrap_or_default());
            self.distances.push(distance);
        }
        let question = record.recorded.turn.messages.iter().map(|message| message.text.as_str()).collect::<Vec<_>>();
        let question = words::one_line(&question.join(" / "), 300);
        let (line, turn_id) = (record.line, record.turn_id.clone());
        self.samples.push(Sample { line, turn_id, question, level, before: one, after: other, distance });
        // The gravest changes are kept; a bounded surplus saves sorting after every record.
        if self.samples.len() > SAMPLES_MAX * 10 {
            self.keep_gravest();
        }
    }

    fn keep_gravest(&mut self) {
        let grade = |sample: &Sample| {
            let (one, other) = (&sample.before, &sample.after);
            (one.route != other.route, one.outcome != other.outcome, one.ticket != other.ticket)
        };
        self.samples
            .sort_by(|a, b| grade(b).cmp(&grade(a)).then(b.distance.total_cmp(&a.distance)).then(a.line.cmp(&b.line)));
        self.samples.truncate(SAMPLES_MAX);
    }

    fn report(mut self, before: String, after: String) -> DiffReport {
        self.keep_gravest();
        self.distances.sort_by(f64::total_cmp);
        DiffReport {
            before,
            after,
            records: self.records,
            changed: self.changed,
            draft_would_differ: self.draft_would_differ,
            no_draft_recorded: self.no_draft_recorded,
            routes: transitions(self.routes, usize::MAX),
            outcomes: transitions(self.outcomes, usize::MAX),
            reasons: transitions(self.reasons, REASONS_MAX),
            texts_changed: self.distances.len(),
            distance_median: self.distances.get(self.distances.len() / 2).copied().unwrap_or_default(),
            distance_max: self.distances.last().copied().unwrap_or_default(),
            samples: self.samples,
        }
    }
}

fn transitions(counted: BTreeMap<(String, String), usize>, most: usize) -> Vec<Transition> {
    let mut list: Vec<Transition> =
        counted.into_iter().map(|((from, to), count)| Transition { from, to, count }).collect();
    list.sort_by_key(|transition| std::cmp::Reverse(transition.count));
    list.truncate(most);
    list
}

fn text(report: &DiffReport) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "before  revision {}", report.before);
    let _ = writeln!(out, "after   revision {}", report.after);
    let records = words::count(report.records, "record", "records");
    let _ = writeln!(out, "{records}: {} would end differently", report.changed);
    if report.draft_would_differ > 0 {
        let _ =
            writeln!(out, "  For {}, the draft would differ; the recorded one was judged.", report.draft_would_differ);
    }
    if report.no_draft_recorded > 0 {
        let _ =
            writeln!(out, "  For {}, no draft is recorded; only the routes were compared.", report.no_draft_recorded);
    }
    for (title, list) in [("Routes", &report.routes), ("Outcomes", &report.outcomes)] {
        out.push_str(&matrix(title, list));
    }
    if !report.reasons.is_empty() {
        out.push_str("\nReasons that changed most often\n");
        for Transition { from, to, count } in &report.reasons {
            let _ =
                writeln!(out, "  {count:>6}  {}\n       -> {}", words::one_line(from, 120), words::one_line(to, 120));
        }
    }
    let _ = writeln!(
        out,
        "\nTexts: {} changed; of those, changed characters: median {:.0} %, most {:.0} %",
        report.texts_changed,
        report.distance_median * 100.0,
        report.distance_max * 100.0
    );
    for sample in &report.samples {
        let _ = writeln!(
            out,
            "\nline {}, turn {} ({}): {}",
            sample.line,
            sample.turn_id,
            sample.level.as_str(),
            sample.question
        );
        for (title, end) in [("before", &sample.before), ("after ", &sample.after)] {
            let said = end.text.as_deref().map_or("nothing".to_owned(), |text| words::one_line(text, 200));
            let reason = words::one_line(&end.reason, 120);
            let _ = writeln!(out, "  {title} {} -> {} ({reason}): {said}", end.route, end.outcome);
        }
    }
    out
}

/// Rows are before, columns after.
pub(crate) fn matrix(title: &str, list: &[Transition]) -> String {
    let mut names: Vec<&str> = list.iter().flat_map(|it| [it.from.as_str(), it.to.as_str()]).collect();
    names.sort_unstable();
    names.dedup();
    let count = |from: &str, to: &str| list.iter().find(|it| it.from == from && it.to == to).map_or(0, |it| it.count);
    let mut out = format!("\n{title} (rows before, columns after)\n  {:<12}", "");
    for name in &names {
        let _ = write!(out, " {name:>11}");
    }
    for from in &names {
        let _ = write!(out, "\n  {from:<12}");
        for to in &names {
            let cell = match count(from, to) {
                0 => "·".to_owned(),
                n => words::number(n as u64),
            };
            let _ = write!(out, " {cell:>11}");
        }
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_has_a_row_and_a_column_for_each_name() {
        let list = transitions(
            BTreeMap::from([(("answer".into(), "human".into()), 3), (("spam".into(), "spam".into()), 1_234)]),
            usize::MAX,
        );
        let found = matrix("Routes", &list);
        assert_eq!(found.lines().count(), 6, "{found}");
        assert!(found.contains("1,234") && found.contains('·'), "{found}");
    }
}
