//! `policyctl test`: tables of cases.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use frontdesk_policy_engine::cases::expect::Problem;
use frontdesk_policy_engine::cases::judge::CallUse;
use frontdesk_policy_engine::cases::{Case, CaseFile, is_case_file};
use serde::Serialize;

use crate::cli::{Failure, Outcome, Report, SubjectOptions, Verdict};
use crate::files::read_cases;
use crate::subject::{self, Subject};
use crate::words;

/// Most files that are taken from a folder.
const FILES_MAX: usize = 1_000;

#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub subject: SubjectOptions,
    /// Files of cases, TOML, JSON or YAML; by default those in the folder `cases` of the chain, or beside the component.
    #[arg(value_name = "CASES")]
    pub cases: Vec<PathBuf>,
    /// Print the cases that fail, and nothing of the others.
    #[arg(long)]
    pub quiet: bool,
}

#[derive(Serialize)]
struct CaseReport {
    file: String,
    name: String,
    hook: &'static str,
    passed: bool,
    problems: Vec<Problem>,
    calls: Vec<CallUse>,
}

#[derive(Serialize)]
struct TestReport {
    subject: PathBuf,
    revision: Option<String>,
    passed: usize,
    failed: usize,
    elapsed_ms: u64,
    cases: Vec<CaseReport>,
}

pub fn run(runtime: &tokio::runtime::Runtime, options: &Options) -> Outcome {
    // Files first: a mistake in them is found without waiting for the compiler.
    let paths = if options.cases.is_empty() { default_files(&options.subject.subject)? } else { options.cases.clone() };
    let files = paths.iter().map(|path| read_cases(path)).collect::<Result<Vec<_>, _>>()?;
    let engine = subject::engine()?;
    let subject = Subject::open(&engine, &options.subject)?;
    let started = Instant::now();
    let mut reports = Vec::new();
    for file in &files {
        for index in 0..file.cases.len() {
            reports.push(runtime.block_on(judge_case(&subject, file, index))?);
        }
    }
    let failed = reports.iter().filter(|report| !report.passed).count();
    let report = TestReport {
        subject: subject.path().to_owned(),
        revision: subject.revision().map(|revision| revision.id().to_string()),
        passed: reports.len() - failed,
        failed,
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        cases: reports,
    };
    let verdict = if failed == 0 { Verdict::Well } else { Verdict::Different };
    Report::new(text(&report, options.quiet), &report, verdict)
}

fn default_files(subject: &Path) -> Result<Vec<PathBuf>, Failure> {
    let base = if subject.is_dir() { subject } else { subject.parent().unwrap_or(Path::new("")) };
    let folder = base.join("cases");
    let none = |why: String| Failure::input(format!("{why}; name files of cases after {}", subject.display()));
    let entries = std::fs::read_dir(&folder).map_err(|error| none(format!("{}: {error}", folder.display())))?;
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| is_case_file(path)).take(FILES_MAX).collect();
    files.sort();
    if files.is_empty() {
        return Err(none(format!("{} holds no .toml, .json, .yaml or .yml file", folder.display())));
    }
    Ok(files)
}

async fn judge_case(subject: &Subject, file: &CaseFile, index: usize) -> Result<CaseReport, Failure> {
    let result = file.judge(index, subject.for_cases()).await.map_err(Failure::input)?;
    Ok(CaseReport {
        file: file.path.clone(),
        name: file.cases.get(index).map(Case::title).unwrap_or_default(),
        hook: result.call.as_str(),
        passed: result.problems.is_empty(),
        problems: result.problems,
        calls: result.judged.calls,
    })
}

fn text(report: &TestReport, is_quiet: bool) -> String {
    let mut out = String::new();
    let mut last = "";
    for case in &report.cases {
        if is_quiet && case.passed {
            continue;
        }
        if last != case.file {
            let _ = writeln!(out, "{}", case.file);
            last = &case.file;
        }
        let (used, limit) =
            case.calls.iter().fold((0, 0), |(used, limit), call| (used + call.fuel_used, limit + call.fuel_limit));
        let mark = if case.passed { "pass" } else { "FAIL" };
        let fuel = format!("fuel {} ({})", words::number(used), words::share(used, limit));
        let _ = writeln!(out, "  {mark} {:<8} {:<70} {fuel}", case.hook, case.name);
        for problem in &case.problems {
            let _ = writeln!(out, "         {}", problem.field);
            let _ = writeln!(out, "           expected {}", words::one_line(&problem.expected, 500));
            let _ = writeln!(out, "           found    {}", words::one_line(&problem.found, 500));
        }
    }
    out.push_str(&budgets(report));
    let _ = writeln!(
        out,
        "\n{}: {} passed, {} failed, {} ms",
        words::count(report.cases.len(), "case", "cases"),
        report.passed,
        report.failed,
        report.elapsed_ms
    );
    out
}

/// The most fuel that each policy used in any case.
fn budgets(report: &TestReport) -> String {
    let mut most: Vec<&CallUse> = Vec::new();
    for call in report.cases.iter().flat_map(|case| &case.calls) {
        match most.iter_mut().find(|known| known.hook == call.hook && known.policy == call.policy) {
            Some(known) if known.fuel_used < call.fuel_used => *known = call,
            Some(_) => {}
            None => most.push(call),
        }
    }
    most.sort_by_key(|call| call.hook);
    let mut out = String::new();
    for call in most {
        let (used, limit) = (words::number(call.fuel_used), words::number(call.fuel_limit));
        let share = words::share(call.fuel_used, call.fuel_limit);
        let _ = writeln!(
            out,
            "\n{:<8} {}: at most {used} of {limit} units of fuel ({share})",
            call.hook.as_str(),
            call.policy
        );
    }
    out
}
