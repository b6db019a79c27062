//! Reads a chain's folder as one bundle, and stores and restores bundles.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use frontdesk_policy_engine::{Bundle, ChainSpec, FileKind, Revision, WantedFile, sha256_hex};
use sqlx::PgPool;

use crate::db;
use crate::db::revisions::StoredRevision;

const CHAIN_BYTES_MAX: u64 = 256 << 10;
const SETTINGS_BYTES_MAX: u64 = 1 << 20;
const COMPONENT_BYTES_MAX: u64 = 64 << 20;

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
    TooLarge { path: PathBuf, found: u64, limit: u64 },
    #[error("{path} is not UTF-8")]
    NotText { path: PathBuf },
    #[error("chain.toml names {path:?}, which leads out of the policy folder; keep components and settings inside it")]
    Outside { path: String },
    #[error("{source}")]
    Chain {
        #[from]
        source: frontdesk_policy_engine::ChainError,
    },
    #[error("component sha256:{digest} is not stored here; publish it first, or name a file")]
    UnknownDigest { digest: String },
    #[error("the folder of chain {chain} keeps changing while it is read")]
    Unsettled { chain: String },
    #[error("the stored revision cannot be read: {source}")]
    Stored {
        #[from]
        source: sqlx::Error,
    },
}

/// Reads all of a chain; the hash names its content, so two equal hashes mean that nobody wrote in between.
pub async fn read(pool: &PgPool, dir: &Path, chain: &str) -> Result<(Bundle, String), BundleError> {
    let (root, name) = (dir.to_owned(), chain.to_owned());
    let (mut bundle, by_digest) = tokio::task::spawn_blocking(move || read_files(&root, &name))
        .await
        .map_err(|_| BundleError::Unsettled { chain: chain.to_owned() })??;
    for wanted in by_digest {
        let digest = wanted.trim_start_matches("sha256:");
        let wasm = db::revisions::component(pool, digest)
            .await?
            .ok_or_else(|| BundleError::UnknownDigest { digest: digest.to_owned() })?;
        bundle.files.insert(wanted.clone(), wasm);
    }
    let hash = content_hash(&bundle);
    Ok((bundle, hash))
}

fn read_files(dir: &Path, chain: &str) -> Result<(Bundle, Vec<String>), BundleError> {
    let folder = dir.join(chain);
    let chain_toml = read_text(&folder.join("chain.toml"), CHAIN_BYTES_MAX)?;
    let spec = ChainSpec::parse(&chain_toml)?;
    let mut bundle = Bundle { chain_toml, files: BTreeMap::new() };
    let mut by_digest = Vec::new();
    for WantedFile { path, kind } in spec.wanted_files() {
        if path.starts_with("sha256:") {
            by_digest.push(path);
            continue;
        }
        if !stays_inside(chain, &path) {
            return Err(BundleError::Outside { path });
        }
        let limit = match kind {
            FileKind::Component => COMPONENT_BYTES_MAX,
            FileKind::Settings => SETTINGS_BYTES_MAX,
        };
        let bytes = read_bytes(&folder.join(&path), limit)?;
        bundle.files.insert(path, bytes);
    }
    Ok((bundle, by_digest))
}

/// Whether a path relative to the chain's folder stays in the folder of all chains.
fn stays_inside(chain: &str, path: &str) -> bool {
    let mut depth = i32::try_from(Path::new(chain).components().count()).unwrap_or(i32::MAX);
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

fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, BundleError> {
    let problem = |source| BundleError::Read { path: path.to_owned(), source };
    let found = std::fs::metadata(path).map_err(problem)?.len();
    if found > limit {
        return Err(BundleError::TooLarge { path: path.to_owned(), found, limit });
    }
    std::fs::read(path).map_err(problem)
}

fn read_text(path: &Path, limit: u64) -> Result<String, BundleError> {
    String::from_utf8(read_bytes(path, limit)?).map_err(|_| BundleError::NotText { path: path.to_owned() })
}

fn content_hash(bundle: &Bundle) -> String {
    // Lengths keep neighbouring fields from running into each other.
    let mut content = format!("{}\n{}", bundle.chain_toml.len(), bundle.chain_toml);
    for (path, bytes) in &bundle.files {
        content.push_str(&format!("\n{}\n{path}\n{}", path.len(), sha256_hex(bytes)));
    }
    sha256_hex(content.as_bytes())
}

/// Stores a staged bundle and makes it the chain's serving revision in the database.
pub async fn store(pool: &PgPool, chain: &str, bundle: &Bundle, revision: &Revision, reason: &str) -> sqlx::Result<()> {
    let wanted = revision.spec().wanted_files();
    let (mut settings, mut components) = (serde_json::Map::new(), serde_json::Map::new());
    let mut wasm = Vec::new();
    for WantedFile { path, kind } in wanted {
        let Some(bytes) = bundle.files.get(&path) else { continue };
        match kind {
            FileKind::Component => {
                let digest = sha256_hex(bytes);
                components.insert(path, digest.clone().into());
                wasm.push((digest, bytes.as_slice()));
            }
            FileKind::Settings => {
                settings.insert(path, String::from_utf8_lossy(bytes).into_owned().into());
            }
        }
    }
    let stored = StoredRevision {
        revision: revision.id().to_string(),
        chain_toml: bundle.chain_toml.clone(),
        files: settings.into(),
        components: components.into(),
    };
    let manifest = serde_json::to_value(revision.manifest()).unwrap_or_default();
    db::revisions::activate(pool, chain, &stored, &wasm, &manifest, "host", reason).await
}

/// The bundle of the revision that last served a chain.
pub async fn last_good(pool: &PgPool, chain: &str) -> Result<Option<Bundle>, BundleError> {
    let Some(stored) = db::revisions::last_good(pool, chain).await? else { return Ok(None) };
    let mut bundle = Bundle { chain_toml: stored.chain_toml, files: BTreeMap::new() };
    for (path, text) in stored.files.as_object().into_iter().flatten() {
        bundle.files.insert(path.clone(), text.as_str().unwrap_or_default().as_bytes().to_vec());
    }
    for (path, digest) in stored.components.as_object().into_iter().flatten() {
        let digest = digest.as_str().unwrap_or_default();
        let wasm = db::revisions::component(pool, digest)
            .await?
            .ok_or_else(|| BundleError::UnknownDigest { digest: digest.to_owned() })?;
        bundle.files.insert(path.clone(), wasm);
    }
    Ok(Some(bundle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_may_leave_the_chain_but_not_the_policy_folder() {
        let cases = [
            ("default", "classify.toml", true),
            ("default", "../components/classify.wasm", true),
            ("default", "../../etc/passwd", false),
            ("default", "a/../../..", false),
            ("default", "../components/../../x", false),
            ("default", "/etc/passwd", false),
        ];
        for (chain, path, inside) in cases {
            assert_eq!(stays_inside(chain, path), inside, "{path}");
        }
    }
}
