//! Long jobs from the command line: begun, watched with a bar (on a terminal), looked up.

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use uuid::Uuid;

use super::knowledge::say_json;
use super::{AdminClient, Failure, Outcome, Remote, complain, one_line, say};

const POLL: Duration = Duration::from_millis(300);
/// Answers that may be missing in a row: a host that restarts takes the job up again.
const SILENCES_MAX: u32 = 200;

#[derive(Debug, Args)]
pub struct Website {
    /// The site, or one of its sitemaps.
    #[arg(value_name = "ADDRESS")]
    site: String,
    /// For this Page only; by default every Page of the host may use it.
    #[arg(long, value_name = "PAGE_ID")]
    page: Option<String>,
    /// Language (ISO 639-1); by default it is detected per passage.
    #[arg(long)]
    language: Option<String>,
    /// A label; may be given several times.
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// At most so many pages; the host has a limit of its own (website.pages_max).
    #[arg(long)]
    pages_max: Option<u32>,
    /// Delete documents of pages that the site does not list any more.
    #[arg(long)]
    prune: bool,
    /// Do not wait for the end.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    remote: Remote,
}

pub async fn website(options: &Website) -> Outcome {
    let client = AdminClient::new(&options.remote)?;
    let body = json!({
        "url": options.site, "page_id": options.page, "language": options.language, "labels": options.labels,
        "pages_max": options.pages_max, "prune": options.prune,
    });
    let job = client.post_json(&["knowledge", "websites"], &body).await?;
    if options.no_wait {
        return say(&format!("queued     {}", job["job_id"].as_str().unwrap_or_default()));
    }
    let result = wait(&client, &job, &options.site).await?;
    for (outcome, pages) in result["pages"].as_object().into_iter().flatten() {
        say(&format!("{outcome:<13} {pages:>6} pages"))?;
    }
    if let Some(limit) = result["limit"].as_str() {
        complain(&format!("the limit of {limit} was reached; what is beyond was not read"));
    }
    say(&format!(
        "`frontdesk knowledge jobs {}` says what came of each page",
        job["job_id"].as_str().unwrap_or_default()
    ))
}

/// Waits for a job's end and gives its result. On a terminal a bar shows how far it is.
pub async fn wait(client: &AdminClient, job: &Value, what: &str) -> Result<Value, Failure> {
    let id =
        job["job_id"].as_str().ok_or_else(|| Failure::failed("the host gave no job; is it of another version?"))?;
    // Drawn on standard error, and only when that is a terminal.
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_prefix(one_line(what, 40));
    let mut silences = 0;
    let ended = loop {
        match client.get(&["knowledge", "jobs", id], &[]).await {
            Ok(answer) => {
                silences = 0;
                let job = &answer["job"];
                bar.set_length(job["total"].as_u64().unwrap_or_default());
                bar.set_position(job["done"].as_u64().unwrap_or_default());
                bar.set_message(one_line(job["stage"].as_str().unwrap_or_default(), 20));
                if !matches!(job["state"].as_str(), Some("queued" | "running")) {
                    break answer;
                }
            }
            Err(failure) => {
                silences += 1;
                if silences > SILENCES_MAX {
                    bar.finish_and_clear();
                    return Err(failure);
                }
            }
        }
        tokio::time::sleep(POLL).await;
    };
    bar.finish_and_clear();
    let job = &ended["job"];
    match job["state"].as_str() {
        Some("done") => Ok(job["result"].clone()),
        Some("cancelled") => Err(Failure::failed("it was cancelled")),
        _ => Err(Failure::failed(job["error"].as_str().unwrap_or("it failed, and the host does not say why"))),
    }
}

/// One job, or the newest ones.
pub async fn show(client: &AdminClient, id: Option<Uuid>, as_json: bool) -> Outcome {
    let Some(id) = id else {
        let answer = client.get(&["knowledge", "jobs"], &[]).await?;
        if as_json {
            return say_json(&answer);
        }
        return answer["jobs"].as_array().into_iter().flatten().try_for_each(|job| say(&line(job)));
    };
    let answer = client.get(&["knowledge", "jobs", &id.to_string()], &[]).await?;
    if as_json {
        return say_json(&answer);
    }
    say(&line(&answer["job"]))?;
    answer["pages"].as_array().into_iter().flatten().try_for_each(|page| {
        let field = |key: &str, max| one_line(page[key].as_str().unwrap_or_default(), max);
        say(&format!("  {:<13} {}  {}", field("outcome", 13), field("url", 120), field("note", 160)))
    })
}

fn line(job: &Value) -> String {
    let field = |key: &str, max| one_line(job[key].as_str().unwrap_or_default(), max);
    format!(
        "{}  {:<9} {:<9} {}/{}  {}  {}",
        field("id", 36),
        field("state", 9),
        field("stage", 9),
        job["done"],
        job["total"],
        field("source", 80),
        field("error", 200),
    )
}
