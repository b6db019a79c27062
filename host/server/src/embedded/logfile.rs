//! The children's log files: appended to by the child itself, kept small by the host.
//!
//! A pipe through the host would tie the child's log to the host's life and speed; a file does not. The file is opened for
//! appending, so cutting it to nothing is safe while the child writes: the next line lands at the start.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A log is moved aside when it is larger than this many bytes.
const LIMIT_BYTES: u64 = 10 << 20;
/// How much of a log's end an error message quotes, in bytes.
const QUOTE_BYTES: u64 = 2_000;

#[derive(Debug, Clone)]
pub(super) struct LogFile {
    path: PathBuf,
}

impl LogFile {
    pub(super) fn new(path: PathBuf) -> LogFile {
        LogFile { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file for a child's output and says where that output will begin.
    pub(super) fn open(&self) -> io::Result<(File, u64)> {
        self.keep_small()?;
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        let begin = file.metadata()?.len();
        Ok((file, begin))
    }

    /// Copies a log that has grown past the limit to `<name>.1` and empties it. Called at each start and now and then after.
    pub(super) fn keep_small(&self) -> io::Result<()> {
        match self.path.metadata() {
            Ok(data) if data.len() > LIMIT_BYTES => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut previous = self.path.clone().into_os_string();
        previous.push(".1");
        std::fs::copy(&self.path, previous)?;
        OpenOptions::new().write(true).open(&self.path)?.set_len(0)
    }

    /// The end of what was written after `begin`, for an error message; empty when it cannot be read.
    pub(super) fn end_since(&self, begin: u64) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(begin.max(length.saturating_sub(QUOTE_BYTES)).min(length)))?;
            let mut bytes = Vec::new();
            file.take(QUOTE_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        read().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_past_the_limit_is_moved_aside_and_appending_goes_on_at_the_start() {
        let folder = std::env::temp_dir().join(format!("frontdesk-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let log = LogFile::new(folder.join("x.log"));
        let (child_side, begin) = log.open().unwrap();
        assert_eq!(begin, 0);
        child_side.set_len(LIMIT_BYTES).unwrap();
        log.keep_small().unwrap();
        assert_eq!(log.path().metadata().unwrap().len(), LIMIT_BYTES, "a log at the limit stays");
        child_side.set_len(LIMIT_BYTES + 1).unwrap();
        log.keep_small().unwrap();
        assert_eq!(folder.join("x.log.1").metadata().unwrap().len(), LIMIT_BYTES + 1);
        io::Write::write_all(&mut &child_side, b"after\n").unwrap();
        assert_eq!(std::fs::read(log.path()).unwrap(), b"after\n");
        assert_eq!(log.end_since(0), "after");
        assert_eq!(log.end_since(99), "");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
