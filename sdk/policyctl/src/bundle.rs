//! A chain's folder, read by the host's rules: `chain.toml`, and every file it names, from inside the folder that holds
//! all chains.
//!
//! A component that the chain names by its digest is looked for in the folder `components` beside the chain, where the
//! host would ask its store.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use frontdesk_policy_engine::chain::CHAIN_BYTES_MAX;
use frontdesk_policy_engine::load::{COMPONENT_BYTES_MAX, SETTINGS_BYTES_MAX};
use frontdesk_policy_engine::{Bundle, ChainError, ChainSpec, FileKind, WantedFile, sha256_hex};

/// Most files that are looked at for a digest.
const COMPONENTS_MAX: usize = 1_000;

/// Why a chain's folder gives no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("{path} cannot be read: {source}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
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
    #[error("{chain_toml} names the component {wanted}, and no .wasm file in {folder} has that digest")]
    UnknownDigest { chain_toml: PathBuf, wanted: String, folder: PathBuf },
}

/// Reads all of a chain.
pub fn read(folder: &Path) -> Result<Bundle, BundleError> {
    let chain_toml = folder.join("chain.toml");
    let text = String::from_utf8(read_file(&chain_toml, CHAIN_BYTES_MAX)?)
        .map_err(|_| BundleError::NotText { path: chain_toml.clone() })?;
    let spec = ChainSpec::parse(&text).map_err(|source| BundleError::Chain { path: chain_toml.clone(), source })?;
    let mut files = BTreeMap::new();
    for WantedFile { path, kind } in spec.wanted_files() {
        let bytes = if path.starts_with("sha256:") {
            by_digest(&chain_toml, folder, &path)?
        } else if stays_inside(&path) {
            let limit = match kind {
                FileKind::Component => COMPONENT_BYTES_MAX,
                FileKind::Settings => SETTINGS_BYTES_MAX,
            };
            read_file(&folder.join(&path), limit)?
        } else {
            return Err(BundleError::Outside { chain_toml, path });
        };
        files.insert(path, bytes);
    }
    Ok(Bundle { chain_toml: text, files })
}

/// Whether a path relative to the chain's folder stays in the folder above it.
fn stays_inside(path: &str) -> bool {
    let mut depth = 1_i32;
    for part in Path::new(path).components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth -= 1,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
        if depth < 0 {
            return false;
        }
    }
    true
}

fn by_digest(chain_toml: &Path, folder: &Path, wanted: &str) -> Result<Vec<u8>, BundleError> {
    let components = folder.join("../components");
    let digest = wanted.trim_start_matches("sha256:");
    let entries = std::fs::read_dir(&components).into_iter().flatten().flatten().take(COMPONENTS_MAX);
    for path in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "wasm")) {
        let bytes = read_file(&path, COMPONENT_BYTES_MAX)?;
        if sha256_hex(&bytes) == digest {
            return Ok(bytes);
        }
    }
    let chain_toml = chain_toml.to_owned();
    Err(BundleError::UnknownDigest { chain_toml, wanted: wanted.to_owned(), folder: components })
}

/// Reads a file of at most `limit` bytes.
pub fn read_file(path: &Path, limit: usize) -> Result<Vec<u8>, BundleError> {
    let problem = |source| BundleError::Read { path: path.to_owned(), source };
    let found = std::fs::metadata(path).map_err(problem)?.len();
    if usize::try_from(found).is_ok_and(|found| found <= limit) {
        return std::fs::read(path).map_err(problem);
    }
    Err(BundleError::TooLarge { path: path.to_owned(), found, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_may_leave_the_chain_but_not_the_folder_of_chains() {
        let cases = [
            ("classify.toml", true),
            ("../components/classify.wasm", true),
            ("../../etc/passwd", false),
            ("a/../../..", false),
            ("../components/../../x", false),
            ("/etc/passwd", false),
        ];
        for (path, inside) in cases {
            assert_eq!(stays_inside(path), inside, "{path}");
        }
    }

    #[test]
    fn a_chain_is_read_as_a_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let chain = root.path().join("shop");
        std::fs::create_dir_all(&chain).unwrap();
        let missing = read(&chain).unwrap_err().to_string();
        assert!(missing.contains("chain.toml cannot be read"), "{missing}");
        let digest = sha256_hex(b"wasm");
        let text = |component: &str| {
            let policy = |hook: &str, on_fault: &str| {
                format!("[[policy]]\nhook = \"{hook}\"\ncomponent = \"{component}\"\non_fault = \"{on_fault}\"\n")
            };
            let (classify, tone, escalate) =
                (policy("classify", "human"), policy("tone", "default-prompt"), policy("escalate", "human"));
            format!("version = 1\n{classify}{tone}{escalate}")
        };
        std::fs::write(chain.join("chain.toml"), text(&format!("sha256:{digest}"))).unwrap();
        assert!(read(&chain).unwrap_err().to_string().contains("no .wasm file"));
        std::fs::create_dir_all(root.path().join("components")).unwrap();
        std::fs::write(root.path().join("components/any.wasm"), "wasm").unwrap();
        assert_eq!(read(&chain).unwrap().files.len(), 1);
        std::fs::write(chain.join("chain.toml"), text("../../outside.wasm")).unwrap();
        assert!(matches!(read(&chain), Err(BundleError::Outside { .. })));
    }
}
