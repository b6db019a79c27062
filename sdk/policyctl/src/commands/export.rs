//! `policyctl export`: decision records from a host into a file, for `replay` and `diff`.
//!
//! The file holds customers' words: it is made readable by its owner only.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::admin::AdminClient;
use crate::cli::{Failure, Outcome, RemoteOptions, Report, Verdict};
use crate::source::PAGE;
use crate::words;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The file to write, one JSON document a line; it must not be there yet.
    #[arg(long, value_name = "FILE.jsonl")]
    pub output: PathBuf,
    /// Only turns decided after this time, in milliseconds since 1970.
    #[arg(long, value_name = "MS")]
    pub after_ms: Option<i64>,
    /// Only turns of this chain.
    #[arg(long, value_name = "NAME")]
    pub chain: Option<String>,
    /// At most so many records, the oldest first.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub limit: usize,
    #[command(flatten)]
    pub remote: RemoteOptions,
}

pub async fn run(options: &Options) -> Outcome {
    let client = AdminClient::new(&options.remote)?;
    let mut open = OpenOptions::new();
    open.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
    let problem = |error: &std::io::Error| Failure::file(&options.output, "written", error);
    let mut file = BufWriter::new(open.open(&options.output).map_err(|error| problem(&error))?);
    let mut written = 0;
    let mut next: Option<String> = None;
    while written < options.limit {
        let wanted = PAGE.min(options.limit - written);
        let mut query = vec![("limit", wanted.to_string())];
        query.extend(options.after_ms.map(|ms| ("after_ms", ms.to_string())));
        query.extend(options.chain.clone().map(|chain| ("chain", chain)));
        query.extend(next.take().map(|next| ("after", next)));
        let answer = client.get(&["turns"], &query).await?;
        for row in answer["turns"].as_array().into_iter().flatten() {
            writeln!(file, "{row}").map_err(|error| problem(&error))?;
            written += 1;
        }
        match answer["next_after"].as_str() {
            Some(after) => next = Some(after.to_owned()),
            None => break,
        }
    }
    file.flush().map_err(|error| problem(&error))?;
    let text = format!(
        "{} written to {}. They hold customers' words: keep them as such.",
        words::count(written, "record", "records"),
        options.output.display()
    );
    Report::new(
        text,
        json!({ "output": options.output, "records": written, "next_after": next.map(Value::from) }),
        Verdict::Well,
    )
}
