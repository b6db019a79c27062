//! Compiled components in the user's cache folder, so that the second command on the same component does not compile it
//! again.
//!
//! What is read back is executed as machine code. So the folder is made with mode 0700 and used only when it belongs to
//! this process's user and nobody else may write to it; otherwise every command compiles.

use std::fs::Metadata;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use frontdesk_policy_engine::ArtifactCache;

/// Most artefacts kept; the oldest go first.
const ENTRIES_MAX: usize = 128;

#[derive(Debug)]
pub struct FolderCache {
    dir: PathBuf,
}

impl FolderCache {
    /// The folder `frontdesk/policyctl` in XDG_CACHE_HOME or ~/.cache; none when it cannot be trusted.
    pub fn of_user() -> Option<Self> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
        Self::open(&base.join("frontdesk/policyctl"))
    }

    fn open(dir: &Path) -> Option<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).ok()?;
        let meta = std::fs::symlink_metadata(dir).ok()?;
        let is_ours_alone = meta.is_dir() && meta.permissions().mode() & 0o077 == 0 && is_ours(&meta);
        is_ours_alone.then(|| Self { dir: dir.to_owned() })
    }

    fn trim(&self) -> std::io::Result<()> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            entries.push((entry.metadata()?.modified()?, entry.path()));
        }
        entries.sort();
        let surplus = entries.len().saturating_sub(ENTRIES_MAX);
        entries.iter().take(surplus).try_for_each(|(_, path)| std::fs::remove_file(path))
    }
}

/// Whether the user that this process runs as owns it.
fn is_ours(meta: &Metadata) -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == meta.uid())
}

impl ArtifactCache for FolderCache {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.dir.join(key)).ok()
    }

    fn put(&self, key: &str, artifact: &[u8]) {
        // Written beside and renamed: a reader sees all of it or nothing. Without it, the next command compiles again.
        let beside = self.dir.join(format!("{key}.{}.tmp", std::process::id()));
        let kept = std::fs::write(&beside, artifact).and_then(|()| std::fs::rename(&beside, self.dir.join(key)));
        if kept.and_then(|()| self.trim()).is_err() {
            let _ = std::fs::remove_file(&beside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_others_may_use_is_not_trusted() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        let cache = FolderCache::open(&dir).unwrap();
        cache.put("component-1", b"code");
        assert_eq!(cache.get("component-1").as_deref(), Some(&b"code"[..]));
        assert_eq!(cache.get("component-2"), None);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o770)).unwrap();
        assert!(FolderCache::open(&dir).is_none());
    }

    #[test]
    fn the_folder_does_not_grow_without_end() {
        let root = tempfile::tempdir().unwrap();
        let cache = FolderCache::open(&root.path().join("c")).unwrap();
        for n in 0..=ENTRIES_MAX {
            cache.put(&format!("component-{n}"), b"code");
        }
        assert_eq!(std::fs::read_dir(&cache.dir).unwrap().count(), ENTRIES_MAX);
    }
}
