//! Files of cases, and other files that are given: read within bounds, mistakes named by their place.

use std::path::Path;

use frontdesk_policy_bundle::read_file;
use frontdesk_policy_engine::cases::{self, CaseFile, FILE_BYTES_MAX};

use crate::cli::Failure;

/// Reads a text of at most `limit` bytes.
pub fn read_text(path: &Path, limit: usize) -> Result<String, Failure> {
    let bytes = read_file(path, limit).map_err(Failure::input)?;
    String::from_utf8(bytes).map_err(|error| Failure::input(format!("{} is not UTF-8: {error}", path.display())))
}

/// Reads a file of cases.
pub fn read_cases(path: &Path) -> Result<CaseFile, Failure> {
    let text = read_text(path, FILE_BYTES_MAX)?;
    cases::parse(&path.display().to_string(), &text).map_err(Failure::input)
}
