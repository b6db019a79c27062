//! Stores bundles as revisions, and restores them.

use std::collections::BTreeMap;
use std::path::Path;

use frontdesk_policy_bundle::{Read, content_sha256};
use frontdesk_policy_engine::{Bundle, FileKind, Revision, WantedFile, sha256_hex};
use sqlx::PgPool;

use super::PolicyError;
use super::provenance::Provenance;
use crate::db;
use crate::db::revisions::StoredRevision;

/// Reads all of a chain's folder; the hash names its content, so two equal hashes mean that nobody wrote in between.
pub async fn read(
    pool: &PgPool,
    provenance: &Provenance,
    dir: &Path,
    chain: &str,
) -> Result<(Bundle, String), PolicyError> {
    let folder = dir.join(chain);
    let read = tokio::task::spawn_blocking(move || frontdesk_policy_bundle::read(&folder)).await??;
    // As the folder has it: what the database adds is named by digests, and signatures that arrive elsewhere are no change.
    let hash = content_sha256(&read.bundle);
    let bundle = complete(pool, provenance, chain, read).await?;
    Ok((bundle, hash))
}

/// Finds the components that are named by their digest alone or in a registry, and the signatures that are stored.
pub async fn complete(pool: &PgPool, provenance: &Provenance, chain: &str, read: Read) -> Result<Bundle, PolicyError> {
    let Read { mut bundle, missing, known } = read;
    let named = missing.into_iter().filter_map(|wanted| {
        let digest = wanted.strip_prefix("sha256:")?.to_owned();
        Some((wanted, digest))
    });
    for (wanted, digest) in named.chain(known) {
        let wasm = db::revisions::component(pool, &digest).await?.ok_or(PolicyError::UnknownDigest { digest })?;
        bundle.files.insert(wanted, wasm);
    }
    provenance.complete(chain, &mut bundle).await?;
    Ok(bundle)
}

/// A staged bundle as it is stored, and the components' bytes by their digests.
pub fn stored_form<'a>(bundle: &'a Bundle, revision: &Revision) -> (StoredRevision, Vec<(String, &'a [u8])>) {
    let (mut settings, mut components) = (serde_json::Map::new(), serde_json::Map::new());
    let mut wasm = Vec::new();
    for WantedFile { path, kind } in revision.spec().wanted_files() {
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
        cases: serde_json::to_value(&bundle.cases).unwrap_or_default(),
    };
    (stored, wasm)
}

/// Stores a staged bundle as a revision.
pub async fn store(
    pool: &PgPool,
    chain: &str,
    bundle: &Bundle,
    revision: &Revision,
    actor: &str,
    reason: &str,
) -> sqlx::Result<()> {
    let (stored, wasm) = stored_form(bundle, revision);
    let manifest = serde_json::to_value(revision.manifest()).unwrap_or_default();
    db::revisions::store(pool, chain, &stored, &wasm, &manifest, actor, reason).await
}

/// The bundle of a stored revision, with the signatures that are stored.
pub async fn restore(
    pool: &PgPool,
    provenance: &Provenance,
    chain: &str,
    revision: &str,
) -> Result<Bundle, PolicyError> {
    let stored = db::revisions::stored(pool, chain, revision).await?;
    let stored = stored.ok_or_else(|| PolicyError::UnknownRevision { revision: revision.to_owned() })?;
    let cases = serde_json::from_value(stored.cases).unwrap_or_default();
    let mut bundle = Bundle { chain_toml: stored.chain_toml, files: BTreeMap::new(), cases };
    for (path, text) in stored.files.as_object().into_iter().flatten() {
        bundle.files.insert(path.clone(), text.as_str().unwrap_or_default().as_bytes().to_vec());
    }
    for (path, digest) in stored.components.as_object().into_iter().flatten() {
        let digest = digest.as_str().unwrap_or_default().to_owned();
        let wasm = db::revisions::component(pool, &digest).await?.ok_or(PolicyError::UnknownDigest { digest })?;
        bundle.files.insert(path.clone(), wasm);
    }
    provenance.recall(&mut bundle).await?;
    Ok(bundle)
}
