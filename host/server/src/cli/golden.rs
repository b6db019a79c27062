//! `frontdesk golden`: what the Page should answer, asked of a running host.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{AdminClient, Failure, Outcome, Remote, one_line, say};
use crate::db::golden::Run as StoredRun;
use crate::golden::{Comparison, GoldenFile, Report, html};

/// Runs in the picture of the score over time.
const RUNS_SHOWN: &str = "100";

#[derive(Debug, Subcommand)]
pub enum GoldenCommand {
    /// Ask the questions of a file; exit code 1 when one is not answered as it should be.
    Run(Run),
    /// List the newest runs.
    List {
        #[arg(long, value_name = "PAGE_ID")]
        page: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show what changed from one run to another.
    Compare {
        before: Uuid,
        after: Uuid,
        #[command(flatten)]
        remote: Remote,
    },
}

#[derive(Debug, Args)]
pub struct Run {
    /// Golden questions (TOML).
    file: PathBuf,
    /// Ask as customers of this Page; by default the first.
    #[arg(long, value_name = "PAGE_ID")]
    page: Option<String>,
    /// Also write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write it as an HTML page, with the score over time.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Compare with this earlier run; by default the newest before this one.
    #[arg(long, value_name = "RUN_ID")]
    before: Option<Uuid>,
    /// Print every question, not only those that went wrong.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    remote: Remote,
}

pub async fn run(command: GoldenCommand) -> Outcome {
    match command {
        GoldenCommand::Run(options) => run_file(options).await,
        GoldenCommand::List { page, remote } => {
            for run in runs(&AdminClient::new(&remote)?, page.as_deref()).await? {
                say(&format!(
                    "{}  {}  {:>4} of {:<4}  {:<9}  {}",
                    run.id,
                    run.at.format("%Y-%m-%d %H:%M"),
                    run.passed,
                    run.passed + run.failed,
                    run.occasion,
                    one_line(&run.subject, 60)
                ))?;
            }
            Ok(())
        }
        GoldenCommand::Compare { before, after, remote } => {
            let comparison = compared(&AdminClient::new(&remote)?, before, after).await?;
            show_comparison(&comparison)
        }
    }
}

async fn run_file(options: Run) -> Outcome {
    let path = &options.file;
    let text = std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    // Mistakes in the file are told without a host.
    GoldenFile::parse(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let client = AdminClient::new(&options.remote)?;
    let earlier = runs(&client, options.page.as_deref()).await?;
    let body = json!({ "goldens": text, "page_id": options.page });
    let answer = client.post_json(&["golden", "runs"], &body).await?;
    let report: Report = read(answer["report"].clone())?;
    let of_page = earlier.iter().find(|run| run.page_id == report.page_id).map(|run| run.id);
    let comparison = match options.before.or(of_page) {
        Some(before) => Some(compared(&client, before, report.id).await?),
        None => None,
    };
    for case in report.cases.iter().filter(|case| options.all || !case.passed()) {
        let mark = if case.passed() { "ok    " } else { "FAILED" };
        say(&format!("{mark}  {}  [{}]  {}", one_line(&case.name, 80), case.route, one_line(&case.reply, 100)))?;
        for problem in &case.problems {
            say(&format!("        {}", one_line(problem, 200)))?;
        }
    }
    if let Some(comparison) = &comparison {
        show_comparison(comparison)?;
    }
    say(&format!(
        "{} of {} as expected ({:.1} %), run {}",
        report.passed(),
        report.cases.len(),
        report.score() * 100.0,
        report.id
    ))?;
    if let Some(file) = &options.json {
        write(file, &serde_json::to_string_pretty(&report).unwrap_or_default())?;
    }
    if let Some(file) = &options.html {
        let runs = runs(&client, Some(&report.page_id)).await?;
        write(file, &html::page(&report, &runs, comparison.as_ref()))?;
    }
    if report.failed() > 0 { Err(Failure::Shown) } else { Ok(()) }
}

async fn runs(client: &AdminClient, page: Option<&str>) -> Result<Vec<StoredRun>, Failure> {
    let mut query = vec![("limit", RUNS_SHOWN)];
    query.extend(page.map(|page| ("page_id", page)));
    let mut answer = client.get(&["golden", "runs"], &query).await?;
    read(answer["runs"].take())
}

async fn compared(client: &AdminClient, before: Uuid, after: Uuid) -> Result<Comparison, Failure> {
    let (before, after) = (before.to_string(), after.to_string());
    let mut answer = client.get(&["golden", "runs", &after], &[("before", &before)]).await?;
    read(answer["comparison"].take())
}

fn read<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer)
        .map_err(|error| Failure::failed(format!("the host's answer is not as expected: {error}")))
}

fn write(file: &Path, text: &str) -> Outcome {
    std::fs::write(file, text)
        .map_err(|error| Failure::failed(format!("{} cannot be written: {error}", file.display())))
}

fn show_comparison(comparison: &Comparison) -> Outcome {
    for (mark, list) in [
        ("worse   ", &comparison.regressed),
        ("better  ", &comparison.mended),
        ("reworded", &comparison.reworded),
        ("new     ", &comparison.added),
        ("gone    ", &comparison.removed),
    ] {
        for item in list {
            say(&format!("{mark}  {}", one_line(item, 200)))?;
        }
    }
    Ok(())
}
