//! Compiled components on disk, so that a restart does not compile again.
//!
//! What is read back is executed as machine code. So the folder is made with mode 0700 and used only when it belongs to
//! this process's user and nobody else may write to it; otherwise components are compiled at every start.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use frontdesk_policy_engine::ArtifactCache;

/// Most artefacts kept; the oldest go first.
const ENTRIES_MAX: usize = 64;

#[derive(Debug)]
pub struct FolderCache {
    dir: PathBuf,
}

impl FolderCache {
    /// Opens the folder, made when it is missing. `None`: it cannot be trusted, and the log says why.
    pub fn open(dir: &Path) -> Option<Self> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        let checked = made.and_then(|()| std::fs::symlink_metadata(dir));
        match checked {
            Ok(meta) if meta.is_dir() && meta.permissions().mode() & 0o077 == 0 && is_ours(&meta) => {
                Some(Self { dir: dir.to_owned() })
            }
            Ok(_) => {
                tracing::warn!(
                    dir = %dir.display(),
                    "compiled policies are not kept: the folder must be ours alone (mode 0700)"
                );
                None
            }
            Err(error) => {
                tracing::warn!(%error, dir = %dir.display(), "compiled policies are not kept");
                None
            }
        }
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        let plain = !key.is_empty() && key.len() <= 200 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        plain.then(|| self.dir.join(key))
    }

    fn trim(&self) -> std::io::Result<()> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            entries.push((entry.metadata()?.modified()?, entry.path()));
        }
        entries.sort();
        for (_, path) in entries.iter().take(entries.len().saturating_sub(ENTRIES_MAX)) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// Whether the folder belongs to the user that this process runs as: the owner of a file it has just opened itself.
fn is_ours(meta: &std::fs::Metadata) -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == meta.uid())
}

impl ArtifactCache for FolderCache {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path(key)?).ok()
    }

    fn put(&self, key: &str, artifact: &[u8]) {
        let Some(path) = self.path(key) else { return };
        // Written beside and renamed: a reader sees all of it or nothing.
        let beside = self.dir.join(format!("{}.tmp", uuid::Uuid::new_v4().simple()));
        let kept =
            std::fs::write(&beside, artifact).and_then(|()| std::fs::rename(&beside, path)).and_then(|()| self.trim());
        if let Err(error) = kept {
            let _ = std::fs::remove_file(&beside);
            tracing::warn!(%error, "a compiled policy could not be kept");
        }
    }
}
