//! Files of formats that programs write (PDF, Office, HTML), read into Markdown by a process that may die.
//!
//! A parser of such a format is large, and its input comes from anywhere: it may loop, recurse until the stack ends, or ask
//! for all memory there is. So each file is read by a process of its own: this program's `extract` command, which takes
//! the bytes on standard input, gives one JSON object ([`Report`]) on standard output, and exists for this one file.
//!
//! # What holds
//! - The child binds itself before it reads a byte ([`child`]): memory, processor time, no files written, no core dump, few
//!   descriptors, and as root it becomes `nobody`. Its environment is empty; it knows no secret and no address.
//! - The parent bounds what the child cannot: time on the clock, bytes of output, and how many children there are at once.
//!   A child that exceeds them is killed; so is one whose parent dies or gives up.
//! - Whatever the child does, the parent gets either Markdown or an [`ExtractError`] that says what is wrong: with the file, or
//!   with the reader ([`ExtractError::is_the_files`]). What the reader lacked may be there the next time.

pub mod child;
mod formats;

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::document::Format;
use super::settings::ExtractionSettings;

/// What is read of a child's standard error, which holds nothing that it was not told to write.
const COMPLAINT_BYTES_MAX: u64 = 64 * 1024;

/// What the child says. The version is that of this form; both ends are the same program as a rule, but a new program may
/// stand in the place of the running one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub version: u32,
    pub outcome: Result<Extracted, Unreadable>,
}

/// Version of [`Report`].
pub const REPORT_VERSION: u32 = 1;

/// The text of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extracted {
    pub markdown: String,
    /// The title that the file gives itself.
    pub title: Option<String>,
    /// Pages (PDF) that hold no text, such as scanned ones.
    pub pages_without_text: u32,
    pub pages: u32,
}

/// Why a file has no text, as the child found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Unreadable {
    #[error("it is encrypted: save it without a password and try again")]
    Encrypted,
    #[error("none of its {pages} pages holds text: it looks scanned; run text recognition (OCR) over it and try again")]
    Scanned { pages: u32 },
    #[error("it has {pages} pages, at most {max} are read: split it")]
    TooManyPages { pages: u32, max: u32 },
    #[error("it becomes more than {max} bytes of text: split it")]
    TooMuchText { max: usize },
    #[error("it holds no text")]
    NoText,
    #[error("it is damaged or not what its name says: {reason}")]
    Damaged { reason: String },
    #[error("the process that reads files could not be limited: {reason}")]
    NotLimited { reason: String },
    #[error(
        "the process that reads files lacked what it needs itself: {reason}; the file is not to blame: try again, and if it stays so give \
         extraction.memory_mib more"
    )]
    ReaderFailed { reason: String },
}

impl Unreadable {
    /// Whether the file is to blame, and not what reads it.
    pub fn is_the_files(&self) -> bool {
        !matches!(self, Self::NotLimited { .. } | Self::ReaderFailed { .. })
    }
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("reading it took longer than {timeout:?}: it is damaged, hostile, or too large; split it")]
    TimedOut { timeout: Duration },
    #[error("reading it made its reader fail ({how}): it is damaged or hostile, or needs more than {memory_mib} MiB")]
    Crashed { how: String, memory_mib: u64 },
    #[error("the program {program} that reads files cannot be started: {source}; check extraction.program", program = program.display())]
    NotStarted {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the program that reads files gave an answer that this host does not understand; is it of another version?"
    )]
    NotUnderstood,
}

impl ExtractError {
    /// Whether the uploader can mend it.
    pub fn is_the_files(&self) -> bool {
        match self {
            Self::Unreadable(reason) => reason.is_the_files(),
            Self::NotStarted { .. } | Self::NotUnderstood => false,
            Self::TimedOut { .. } | Self::Crashed { .. } => true,
        }
    }
}

/// Starts the processes that read files.
#[derive(Debug, Clone)]
pub struct Extractor {
    program: PathBuf,
    settings: ExtractionSettings,
    slots: Arc<Semaphore>,
}

impl Extractor {
    /// `settings.program` or, when it names none, the program that runs now.
    pub fn new(settings: ExtractionSettings) -> Self {
        let program = match settings.program.as_os_str().is_empty() {
            // Where the system does not tell, starting fails with a message that names the setting.
            true => std::env::current_exe().unwrap_or_default(),
            false => settings.program.clone(),
        };
        let slots = Arc::new(Semaphore::new(settings.at_once));
        Self { program, settings, slots }
    }

    /// Reads a page of a few words: whether this program, on this machine, under these limits, reads anything at all.
    pub async fn probe(&self) -> Result<(), ExtractError> {
        const PAGE: &[u8] = b"<html><body><h1>Shop</h1><p>We open at nine.</p></body></html>";
        let extracted = self.extract(Format::Html, PAGE).await?;
        if extracted.markdown.contains("We open at nine.") { Ok(()) } else { Err(ExtractError::NotUnderstood) }
    }

    /// The Markdown of a file. Waits for its turn when many are read already.
    pub async fn extract(&self, format: Format, bytes: &[u8]) -> Result<Extracted, ExtractError> {
        let _slot = self.slots.acquire().await;
        let settings = &self.settings;
        let timeout = Duration::from_millis(settings.timeout_ms);
        let mut command = std::process::Command::new(&self.program);
        command.arg("extract").args(["--format", format.as_str()]);
        let limits = [
            ("--memory-mib", settings.memory_mib),
            ("--cpu-seconds", settings.cpu_seconds),
            ("--pages-max", u64::from(settings.pages_max)),
            ("--output-bytes-max", settings.output_bytes_max as u64),
        ];
        for (name, value) in limits {
            command.args([name, &value.to_string()]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/");
        crate::embedded::os::as_bound_child(&mut command);
        let child = Command::from(command).kill_on_drop(true).spawn();
        let mut child = child.map_err(|source| ExtractError::NotStarted { program: self.program.clone(), source })?;
        let crashed = |how: String| ExtractError::Crashed { how, memory_mib: settings.memory_mib };
        // JSON may write six bytes for one (`\u0000`).
        let output_max = settings.output_bytes_max as u64 * 6 + COMPLAINT_BYTES_MAX;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A child that has seen enough closes its end; what it says then is in its report.
                let _ = stdin.write_all(bytes).await;
            }
        };
        let read = async {
            let mut output = Vec::new();
            if let Some(stdout) = stdout {
                let _ = stdout.take(output_max).read_to_end(&mut output).await;
            }
            output
        };
        let complaint = async {
            if let Some(stderr) = stderr {
                let mut ignored = Vec::new();
                let _ = stderr.take(COMPLAINT_BYTES_MAX).read_to_end(&mut ignored).await;
            }
        };
        let run = async {
            let ((), output, ()) = tokio::join!(write, read, complaint);
            (output, child.wait().await)
        };
        let Ok((output, status)) = tokio::time::timeout(timeout, run).await else {
            return Err(ExtractError::TimedOut { timeout });
        };
        let status = status.map_err(|error| crashed(error.to_string()))?;
        if !status.success() {
            return Err(crashed(ending(status)));
        }
        let report: Report = serde_json::from_slice(&output).map_err(|_| ExtractError::NotUnderstood)?;
        if report.version != REPORT_VERSION {
            return Err(ExtractError::NotUnderstood);
        }
        Ok(report.outcome?)
    }
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.signal(), status.code()) {
        (Some(libc::SIGXCPU | libc::SIGKILL), _) => "it used up its time or memory".to_owned(),
        (Some(libc::SIGSEGV | libc::SIGABRT | libc::SIGBUS), _) => "it ran out of memory or stack".to_owned(),
        (Some(signal), _) => format!("signal {signal}"),
        (None, code) => format!("exit code {}", code.unwrap_or(-1)),
    }
}
