//! The child's side: binds itself, reads a file on standard input, reports on standard output.

use std::io::{Read, Write};

use super::{Extracted, REPORT_VERSION, Report, Unreadable, formats};
use crate::knowledge::document::{FILE_BYTES_MAX, Format};

/// Stack of the thread that parses: recursion over deeply nested input ends here, and with it this process alone.
const STACK_BYTES: usize = 64 << 20;
/// Descriptors: the three standard ones, and what the runtime opens.
const DESCRIPTORS_MAX: u64 = 32;

/// What the parent allows, as the command line brings it.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Limits {
    #[arg(long)]
    pub memory_mib: u64,
    #[arg(long)]
    pub cpu_seconds: u64,
    #[arg(long)]
    pub pages_max: u32,
    #[arg(long)]
    pub output_bytes_max: usize,
}

/// Reads, reports, and says whether the report could be written.
pub fn run(format: Format, limits: Limits) -> std::io::Result<()> {
    let outcome = match bind(limits) {
        Ok(()) => read_and_extract(format, limits),
        Err(error) => Err(Unreadable::NotLimited { reason: error.to_string() }),
    };
    let report = serde_json::to_vec(&Report { version: REPORT_VERSION, outcome })?;
    let mut out = std::io::stdout().lock();
    out.write_all(&report)?;
    out.flush()
}

/// Limits of this process, which nothing in it can raise again.
fn bind(limits: Limits) -> std::io::Result<()> {
    let resources = [
        (libc::RLIMIT_AS, limits.memory_mib << 20),
        (libc::RLIMIT_CPU, limits.cpu_seconds),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_NOFILE, DESCRIPTORS_MAX),
    ];
    for (resource, value) in resources {
        crate::embedded::os::limit_this_process(resource, value)?;
    }
    crate::embedded::os::become_unprivileged()
}

fn read_and_extract(format: Format, limits: Limits) -> Result<Extracted, Unreadable> {
    let damaged = |reason: String| Unreadable::Damaged { reason };
    // Memory, a thread, the pipe: of these the file knows nothing.
    let failed = |error: std::io::Error| Unreadable::ReaderFailed { reason: error.to_string() };
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(failed)?;
    let parse = move || formats::extract(format, &bytes, limits.pages_max);
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(parse);
    let extracted = match thread.map_err(failed)?.join() {
        Ok(outcome) => outcome?,
        // The library's own words may quote the document.
        Err(_) => return Err(damaged("its structure contradicts itself".to_owned())),
    };
    if extracted.markdown.len() > limits.output_bytes_max {
        return Err(Unreadable::TooMuchText { max: limits.output_bytes_max });
    }
    if !extracted.markdown.chars().any(char::is_alphanumeric) {
        return Err(Unreadable::NoText);
    }
    Ok(extracted)
}
