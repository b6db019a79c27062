//! Where revisions and records come from: folders and files of one's own, or a running host.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{TimeDelta, Utc};
use frontdesk_policy_bundle::{Document, Read};
use frontdesk_policy_engine::{Bundle, Engine, Revision, sha256_hex};
use serde_json::Value;

use crate::admin::AdminClient;
use crate::cli::{Failure, RemoteOptions};
use crate::records::{Record, Records, recorded};
use crate::subject;

/// Records asked for at once; the API gives no more.
pub const PAGE: usize = 100;
/// Fewest digits that name a revision.
const DIGITS_MIN: usize = 6;
/// Longest time back.
const DAYS_MAX: i64 = 3_650;

/// A chain to judge with: a folder, or a revision that the host has stored.
pub async fn bundle(given: &str, chain: &str, remote: &RemoteOptions) -> Result<Bundle, Failure> {
    let folder = Path::new(given);
    if folder.is_dir() {
        return subject::bundle(folder);
    }
    let is_id = (DIGITS_MIN..=64).contains(&given.len()) && given.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id {
        return Err(Failure::input(format!(
            "{given:?} is neither a chain's folder nor a revision's id (at least {DIGITS_MIN} of its first digits)"
        )));
    }
    let client = AdminClient::new(remote)?;
    let mut answer = client.get(&["policies", chain, "revisions", given], &[]).await?;
    let document: Document = serde_path_to_error::deserialize(answer["bundle"].take())
        .map_err(|error| Failure::unreachable(format!("the host's bundle cannot be read: {error}")))?;
    let Read { bundle, missing, known } = document.into_bundle().map_err(Failure::input)?;
    match missing.first().or_else(|| known.values().next()) {
        None => Ok(bundle),
        Some(digest) => Err(Failure::unreachable(format!("the host's bundle lacks the component {digest}"))),
    }
}

/// A component that the host has stored, by its SHA-256 digest.
pub async fn component(digest: &str, remote: &RemoteOptions) -> Result<Vec<u8>, Failure> {
    let client = AdminClient::new(remote)?;
    let answer = client.find(&["components", digest], &[]).await?;
    let answer = answer.ok_or_else(|| {
        Failure::input(format!(
            "the host has no component sha256:{digest}; `policyctl status --json` lists what it runs"
        ))
    })?;
    let wasm = STANDARD.decode(answer["wasm"].as_str().unwrap_or_default()).unwrap_or_default();
    if sha256_hex(&wasm) == digest {
        Ok(wasm)
    } else {
        Err(Failure::unreachable(format!("the host's component sha256:{digest} arrived damaged")))
    }
}

/// As [`bundle`], loaded.
pub async fn revision(engine: &Engine, given: &str, chain: &str, remote: &RemoteOptions) -> Result<Revision, Failure> {
    if Path::new(given).is_dir() {
        return subject::stage(engine, Path::new(given));
    }
    let bundle = bundle(given, chain, remote).await?;
    engine.stage(&bundle).map_err(|error| Failure::refused(format!("revision {given}: {error}")))
}

/// Where records are read.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub struct RecordOptions {
    /// Decision records, one JSON document a line, as `policyctl export` writes them.
    #[arg(long, visible_alias = "file", value_name = "FILE.jsonl")]
    pub records: Option<PathBuf>,
    /// The host's decisions of so long, such as 7d, 12h or 30m.
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub last: Option<TimeDelta>,
}

pub fn span(text: &str) -> Result<TimeDelta, String> {
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).unwrap_or_default();
    let number: Option<i64> = number.parse().ok().filter(|number| *number > 0);
    let span = number.and_then(|number| match unit {
        "d" => TimeDelta::try_days(number),
        "h" => TimeDelta::try_hours(number),
        "m" => TimeDelta::try_minutes(number),
        _ => None,
    });
    span.filter(|span| *span <= TimeDelta::days(DAYS_MAX))
        .ok_or_else(|| format!("{text:?} was given, expected a number and d, h or m, such as 7d"))
}

/// Records, one after the other.
#[derive(Debug)]
pub enum RecordSource {
    File(Records),
    Host(Box<HostRecords>),
}

impl RecordSource {
    /// At most `limit` records are read.
    pub fn open(options: &RecordOptions, chain: &str, limit: usize, remote: &RemoteOptions) -> Result<Self, Failure> {
        match (&options.records, options.last) {
            (Some(path), _) => Ok(Self::File(Records::open(path, limit)?)),
            (None, Some(span)) => Ok(Self::Host(Box::new(HostRecords {
                client: AdminClient::new(remote)?,
                chain: chain.to_owned(),
                after: After::Time((Utc::now() - span).timestamp_millis()),
                rows: VecDeque::new(),
                line: 0,
                left: limit,
            }))),
            (None, None) => Err(Failure::input("give --records FILE or --last TIME")),
        }
    }

    /// The next record; none at the end.
    pub async fn next(&mut self) -> Result<Option<Record>, Failure> {
        match self {
            Self::File(records) => records.next().transpose(),
            Self::Host(records) => records.next().await,
        }
    }
}

/// Where the next page begins.
#[derive(Debug)]
enum After {
    Time(i64),
    Cursor(String),
    End,
}

/// The records of a host, page by page.
#[derive(Debug)]
pub struct HostRecords {
    client: AdminClient,
    chain: String,
    after: After,
    rows: VecDeque<Value>,
    line: usize,
    left: usize,
}

impl HostRecords {
    async fn next(&mut self) -> Result<Option<Record>, Failure> {
        while self.left > 0 {
            let Some(row) = self.rows.pop_front() else {
                if !self.fetch().await? {
                    return Ok(None);
                }
                continue;
            };
            self.left -= 1;
            self.line += 1;
            // What a customer withdrew is erased; there is nothing to judge.
            if row["record"]["erased"] == true {
                continue;
            }
            let recorded = recorded(row).map_err(|problem| Failure::unreachable(format!("the host: {problem}")))?;
            return Ok(Some(Record { line: self.line, turn_id: recorded.turn.id.clone(), recorded }));
        }
        Ok(None)
    }

    async fn fetch(&mut self) -> Result<bool, Failure> {
        let mut query = vec![("limit", PAGE.min(self.left).to_string()), ("chain", self.chain.clone())];
        match std::mem::replace(&mut self.after, After::End) {
            After::Time(ms) => query.push(("after_ms", ms.to_string())),
            After::Cursor(cursor) => query.push(("after", cursor)),
            After::End => return Ok(false),
        }
        let mut answer = self.client.get(&["turns"], &query).await?;
        if let Some(cursor) = answer["next_after"].as_str() {
            self.after = After::Cursor(cursor.to_owned());
        }
        if let Value::Array(rows) = answer["turns"].take() {
            self.rows = rows.into();
        }
        Ok(!self.rows.is_empty())
    }
}

/// One record of a host, by the turn's id, or by a customer's or the machine's message.
pub async fn record_of(client: &AdminClient, id: &str, page: Option<&str>) -> Result<Record, Failure> {
    let found = crate::commands::explain::find_turn(client, id, page).await?;
    let problem = |problem| Failure::unreachable(format!("the host: {problem}"));
    let recorded = recorded(found).map_err(problem)?;
    Ok(Record { line: 1, turn_id: recorded.turn.id.clone(), recorded })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_at_their_limits() {
        assert_eq!(span("7d").unwrap(), TimeDelta::days(7));
        assert_eq!(span("3650d").unwrap(), TimeDelta::days(3_650));
        assert_eq!(span("90m").unwrap(), TimeDelta::minutes(90));
        for wrong in ["", "d", "0d", "-1d", "7", "7w", "3651d", "99999999999999999999d", "ü"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
