//! Bundles: everything that a chain consists of, read as a whole from its folder or from a document.
//!
//! The host and the command line read chains with this crate, so that what one takes the other takes.
//!
//! - [`folder`]: `chain.toml`, every file it names, and its golden cases, from inside the folder that holds all chains.
//! - [`document`]: the same as one JSON document, for publishing and fetching.
//! - [`artifacts`]: compiled components in a folder (on Unix).
//!
//! A component that a chain names by its digest alone, or in a registry, is not in the folder; [`Read::missing`] says
//! which, and the caller finds it where it keeps components.

#[cfg(unix)]
pub mod artifacts;
pub mod document;
pub mod folder;

use std::collections::BTreeMap;
use std::path::PathBuf;

use frontdesk_policy_engine::load::{COMPONENT_BYTES_MAX, SETTINGS_BYTES_MAX};
use frontdesk_policy_engine::{Bundle, ChainError, FileKind, sha256_hex};

#[cfg(unix)]
pub use artifacts::FolderCache;
pub use document::Document;
pub use folder::{read, read_file};

/// Most files of golden cases.
pub const CASE_FILES_MAX: usize = 200;
/// Largest file of golden cases, in bytes.
pub const CASE_BYTES_MAX: usize = 4 << 20;
/// All golden cases of a chain together, in bytes.
pub const CASES_BYTES_MAX: usize = 16 << 20;

/// What was read, and what the caller still has to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub bundle: Bundle,
    /// Components that no file holds: keys of [`Bundle::files`], `sha256:<digest>` or `oci://…`.
    pub missing: Vec<String>,
    /// Components that a document left out because the host has them: their SHA-256 digests in lower-case hex, by their key
    /// in [`Bundle::files`].
    pub known: BTreeMap<String, String>,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("{path} cannot be read: {source}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is no regular file, and only those are read")]
    NotAFile { path: PathBuf },
    #[error("{path} has {found} bytes, expected at most {limit}")]
    TooLarge { path: PathBuf, found: u64, limit: usize },
    #[error("{path} is not UTF-8")]
    NotText { path: PathBuf },
    #[error(
        "{chain_toml} names {path:?}, which leads out of the folder that holds the chains; keep components and settings \
         inside it"
    )]
    Outside { chain_toml: PathBuf, path: String },
    #[error("{path}: {source}")]
    Chain {
        path: PathBuf,
        #[source]
        source: ChainError,
    },
    #[error("{path} holds too many golden cases: {problem}")]
    TooManyCases { path: PathBuf, problem: String },
    #[error("the document's {field}: {problem}")]
    Document { field: String, problem: String },
}

/// The hash that names a bundle's content, golden cases included: two equal hashes mean that nothing was written in
/// between. A revision's id is another thing: it leaves out what does not change a turn.
#[must_use]
pub fn content_sha256(bundle: &Bundle) -> String {
    // Lengths keep neighbouring fields from running into each other.
    let mut content = format!("{}\n{}", bundle.chain_toml.len(), bundle.chain_toml);
    let files = bundle.files.iter().map(|(path, bytes)| (path, bytes.as_slice()));
    for (path, bytes) in files.chain(bundle.cases.iter().map(|(path, text)| (path, text.as_bytes()))) {
        content.push_str(&format!("\n{}\n{path}\n{}", path.len(), sha256_hex(bytes)));
    }
    sha256_hex(content.as_bytes())
}

fn limit_of(kind: FileKind) -> usize {
    match kind {
        FileKind::Component => COMPONENT_BYTES_MAX,
        FileKind::Settings => SETTINGS_BYTES_MAX,
    }
}

/// Largest document of a bundle, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 96 << 20;
