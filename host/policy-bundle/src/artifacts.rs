//! Compiled components in a folder, so that a restart, or the next command, does not compile again.
//!
//! What is read back is executed as machine code. So the folder is made with mode 0700 and used only when it belongs to
//! this process's user and nobody else may write to it. An artefact is a file that begins with the SHA-256 of its key and
//! its bytes: what a full disk, a power cut or a wrong name made of it is not run, but compiled again.
//!
//! Several processes may share a folder. A file is written beside, synced and renamed, so a reader sees all of it or
//! nothing; what another process is writing is left alone for [`WRITING_MAX`].

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use frontdesk_policy_engine::{ArtifactCache, sha256_hex};

/// Longest key, in characters.
const KEY_CHARACTERS_MAX: usize = 200;
/// Largest file that is read, in bytes: the largest component's machine code is some times its size.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Digits of the SHA-256 at the beginning of a file.
const DIGEST_BYTES: usize = 64;
/// Ends the name of a file that is being written; no key holds a dot.
const WRITING: &str = "tmp";
/// Longest time that writing a file may take; one that is older was given up.
const WRITING_MAX: Duration = Duration::from_secs(3_600);

/// Artefacts in a folder.
#[derive(Debug)]
pub struct FolderCache {
    dir: PathBuf,
    entries_max: usize,
    /// Tells this process's files from each other while they are written.
    written: AtomicU64,
}

impl FolderCache {
    /// Opens the folder, made when it is missing. Beyond `entries_max` artefacts, the oldest go.
    ///
    /// # Errors
    /// The folder cannot be made, or others may use it.
    pub fn open(dir: &Path, entries_max: usize) -> Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let meta = std::fs::symlink_metadata(dir)?;
        if meta.is_dir() && meta.permissions().mode() & 0o077 == 0 && is_ours(&meta) {
            return Ok(Self { dir: dir.to_owned(), entries_max, written: AtomicU64::new(0) });
        }
        Err(Error::new(ErrorKind::PermissionDenied, "the folder must be this user's alone (mode 0700)"))
    }

    fn read(&self, key: &str) -> Result<Vec<u8>> {
        let mut file = File::open(self.path(key)?)?;
        let mut digest = [0; DIGEST_BYTES];
        file.read_exact(&mut digest)?;
        let mut artifact = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut artifact)?;
        if digest == *digest_of(key, &artifact).as_bytes() {
            return Ok(artifact);
        }
        Err(Error::new(ErrorKind::InvalidData, "its bytes are not the ones that were kept"))
    }

    fn write(&self, key: &str, artifact: &[u8]) -> Result<()> {
        let path = self.path(key)?;
        let beside = self.beside(key);
        let written = self.write_beside(&beside, key, artifact).and_then(|()| std::fs::rename(&beside, path));
        if written.is_err() {
            // It may not even have been made; the first failure is the one to report.
            let _ = std::fs::remove_file(&beside);
        }
        written?;
        // The name, too, is to survive a power cut; without it, only a compilation is lost.
        File::open(&self.dir).and_then(|dir| dir.sync_all())?;
        self.trim()
    }

    fn write_beside(&self, beside: &Path, key: &str, artifact: &[u8]) -> Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(beside)?;
        file.write_all(digest_of(key, artifact).as_bytes())?;
        file.write_all(artifact)?;
        file.sync_all()
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        let is_plain = !key.is_empty()
            && key.len() <= KEY_CHARACTERS_MAX
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let not_plain = || Error::new(ErrorKind::InvalidInput, "a key that is no plain name");
        is_plain.then(|| self.dir.join(key)).ok_or_else(not_plain)
    }

    /// A name that nobody else writes at: processes of several containers may have one id, hence the time. Should two be
    /// equal all the same, the second fails to make its file.
    fn beside(&self, key: &str) -> PathBuf {
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let (process, n) = (std::process::id(), self.written.fetch_add(1, Ordering::Relaxed));
        self.dir.join(format!("{key}.{process}-{nanos}-{n}.{WRITING}"))
    }

    /// Removes the oldest artefacts, and what was never finished.
    fn trim(&self) -> Result<()> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            // Another process trims at the same time.
            let Some(meta) = unless_gone(entry.metadata())? else { continue };
            let (changed, path) = (meta.modified()?, entry.path());
            if path.extension().is_some_and(|extension| extension == WRITING) {
                if changed.elapsed().is_ok_and(|age| age > WRITING_MAX) {
                    unless_gone(std::fs::remove_file(path))?;
                }
                continue;
            }
            entries.push((changed, path));
        }
        entries.sort();
        let surplus = entries.len().saturating_sub(self.entries_max);
        for (_, path) in entries.into_iter().take(surplus) {
            unless_gone(std::fs::remove_file(path))?;
        }
        Ok(())
    }
}

/// The digest that a file begins with, in hexadecimal.
fn digest_of(key: &str, artifact: &[u8]) -> String {
    sha256_hex(format!("{key}\n{}", sha256_hex(artifact)).as_bytes())
}

/// `None`: there is no such file any more.
fn unless_gone<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Whether the user that this process runs as owns it.
fn is_ours(meta: &Metadata) -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == meta.uid())
}

impl ArtifactCache for FolderCache {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        match self.read(key) {
            Ok(artifact) => Some(artifact),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, key, "a compiled policy that was kept cannot be used, and is compiled again");
                None
            }
        }
    }

    fn put(&self, key: &str, artifact: &[u8]) {
        if let Err(error) = self.write(key, artifact) {
            tracing::warn!(%error, key, "a compiled policy could not be kept");
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
        let cache = FolderCache::open(&dir, 8).unwrap();
        cache.put("component-1", b"code");
        assert_eq!(cache.get("component-1").as_deref(), Some(&b"code"[..]));
        assert_eq!(cache.get("component-2"), None);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o770)).unwrap();
        assert_eq!(FolderCache::open(&dir, 8).unwrap_err().kind(), ErrorKind::PermissionDenied);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert!(FolderCache::open(&link, 8).is_err(), "somebody else may turn a link");
    }

    #[test]
    fn what_was_damaged_is_not_run() {
        let root = tempfile::tempdir().unwrap();
        let cache = FolderCache::open(&root.path().join("c"), 8).unwrap();
        let path = cache.dir.join("component-1");
        cache.put("component-1", b"machine code");
        let whole = std::fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(cache.get("component-1"), None, "{place}");
        }
        for length in [0, 10, DIGEST_BYTES, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(cache.get("component-1"), None, "{length}");
        }
        std::fs::write(cache.dir.join("component-2"), &whole).unwrap();
        assert_eq!(cache.get("component-2"), None, "what was made from something else");
        cache.put("component-1", b"machine code");
        assert_eq!(cache.get("component-1").as_deref(), Some(&b"machine code"[..]), "it is replaced");
    }

    #[test]
    fn a_key_leads_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let cache = FolderCache::open(&root.path().join("c"), 8).unwrap();
        for key in ["", "../x", "a/b", "a.tmp", &"k".repeat(KEY_CHARACTERS_MAX + 1)] {
            cache.put(key, b"code");
            assert_eq!(cache.get(key), None, "{key}");
        }
        assert_eq!(std::fs::read_dir(&cache.dir).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_folder_does_not_grow_without_end_and_leaves_what_others_write() {
        let root = tempfile::tempdir().unwrap();
        let cache = FolderCache::open(&root.path().join("c"), 4).unwrap();
        let (fresh, given_up) = (cache.beside("component-x"), cache.beside("component-y"));
        for path in [&fresh, &given_up] {
            std::fs::write(path, b"half").unwrap();
        }
        let old = SystemTime::now() - WRITING_MAX - Duration::from_secs(60);
        OpenOptions::new().write(true).open(&given_up).unwrap().set_modified(old).unwrap();
        for n in 0..8 {
            let key = format!("component-{n}");
            cache.put(&key, b"code");
            // The order of age is what is tested, and files of one tick have none.
            let at = SystemTime::now() - Duration::from_secs(100 - n);
            OpenOptions::new().write(true).open(cache.dir.join(&key)).unwrap().set_modified(at).unwrap();
        }
        let names =
            std::fs::read_dir(&cache.dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.ends_with(WRITING)).collect();
        names.sort();
        assert_eq!(names, ["component-4", "component-5", "component-6", "component-7"]);
        assert!(fresh.exists() && !given_up.exists());
    }

    #[test]
    fn many_may_write_at_once() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("c");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    // One cache each, as processes have.
                    let cache = FolderCache::open(&dir, 3).unwrap();
                    for n in 0..10 {
                        cache.write(&format!("component-{n}"), b"code").unwrap();
                    }
                });
            }
        });
        let left: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.len() <= 3 && left.iter().all(|path| path.extension().is_none()), "{left:?}");
    }
}
