//! Decision records from a file: one JSON document a line, as `policyctl export` writes them.
//!
//! A line is either a row of the admin API (`{"turn_id": …, "record": {…}}`) or the record alone. The file is read line
//! by line, so it may be larger than memory; a line may not.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use frontdesk_policy_engine::RecordedTurn;
use serde_json::Value;

use crate::cli::Failure;

/// Longest line, in bytes: a long conversation with its passages and the prompt has some hundred thousand.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Newest version of records that is read.
const RECORD_VERSION_MAX: i64 = 1;

/// A record and where it stands.
#[derive(Debug)]
pub struct Record {
    pub line: usize,
    /// The turn's id.
    pub turn_id: String,
    pub recorded: RecordedTurn,
}

/// The records of a file, in order.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    reader: BufReader<File>,
    line: usize,
    left: usize,
}

impl Records {
    /// At most `limit` records are read.
    pub fn open(path: &Path, limit: usize) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| Failure::file(path, "read", &error))?;
        Ok(Self { path: path.to_owned(), reader: BufReader::new(file), line: 0, left: limit })
    }

    fn read(&mut self) -> Result<Option<Record>, Failure> {
        loop {
            let mut line = Vec::new();
            let mut bounded = (&mut self.reader).take(LINE_BYTES_MAX);
            let read =
                bounded.read_until(b'\n', &mut line).map_err(|error| Failure::file(&self.path, "read", &error))?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            if read as u64 == LINE_BYTES_MAX {
                return Err(self.problem(&format!("longer than {LINE_BYTES_MAX} bytes, which no record is")));
            }
            if !line.trim_ascii().is_empty() {
                return self.parse(&line).map(Some).map_err(|problem| self.problem(&problem));
            }
        }
    }

    fn parse(&self, line: &[u8]) -> Result<Record, String> {
        let document: Value = serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"))?;
        let recorded = recorded(document)?;
        Ok(Record { line: self.line, turn_id: recorded.turn.id.clone(), recorded })
    }

    fn problem(&self, problem: &str) -> Failure {
        Failure::input(format!("{}, line {}: {problem}", self.path.display(), self.line))
    }
}

/// A record from its document: a row of the admin API, or the record alone.
pub fn recorded(mut document: Value) -> Result<RecordedTurn, String> {
    if let Some(version) = document["record_version"].as_i64().filter(|version| *version > RECORD_VERSION_MAX) {
        return Err(format!(
            "a record of version {version}; this policyctl reads up to {RECORD_VERSION_MAX}: use that of the host"
        ));
    }
    let (record, place) = match document.get_mut("record") {
        Some(record) => (record.take(), "record."),
        None => (document, ""),
    };
    serde_path_to_error::deserialize(record)
        .map_err(|error| format!("no decision record: {place}{}: {}", error.path(), error.inner()))
}

impl Iterator for Records {
    type Item = Result<Record, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_line_and_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.jsonl");
        for (text, expected) in [
            ("\n\n{", "line 3: not JSON"),
            ("{}", "line 1: no decision record"),
            (r#"{"record": {"turn": {"id": 7}}}"#, "record.turn.id"),
            (r#"{"record_version": 2, "record": {}}"#, "version 2"),
        ] {
            std::fs::write(&path, text).unwrap();
            let found = format!("{:?}", Records::open(&path, 10).unwrap().next().unwrap().unwrap_err());
            assert!(found.contains(expected), "{text}: {found}");
        }
        std::fs::write(&path, "{}\n{}").unwrap();
        assert_eq!(Records::open(&path, 1).unwrap().count(), 1);
    }
}
