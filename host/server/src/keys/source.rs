//! Where the key-encryption keys come from: the environment, a file that it names, or a file that the host makes once.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::{KeyError, KeyRing};
use crate::settings::Settings;

/// Name of the file that the host makes in `engines.data_dir`.
pub const KEYS_FILE: &str = "encryption.keys";
/// Largest key file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The keys that were given; or those of the private folder, made when there are none and `keys.generate` allows it.
///
/// # Errors
/// See [`KeyError`].
pub fn obtain(settings: &Settings, given: Option<&SecretString>) -> Result<KeyRing, KeyError> {
    if let Some(keys) = given {
        return KeyRing::parse(keys);
    }
    let path = settings.engines.data_dir.join(KEYS_FILE);
    if let Some(text) = read(&path)? {
        return KeyRing::parse(&text);
    }
    if !settings.keys.generate {
        return Err(KeyError::None);
    }
    let line = KeyRing::new_line(chrono::Utc::now().date_naive())?;
    let text = match make(&path, &line)? {
        true => {
            tracing::warn!(
                path = %path.display(),
                "an encryption key was made; keep a copy apart from the database's backups, because without it the records \
                 and the Page tokens in the database cannot be read. Several replicas need one FRONTDESK_KEYS"
            );
            line
        }
        // Another process was faster.
        false => read(&path)?.ok_or(KeyError::None)?,
    };
    KeyRing::parse(&text)
}

/// The file's text; `None` when there is none. A file that others may read is refused.
fn read(path: &Path) -> Result<Option<SecretString>, KeyError> {
    let failed = |action, source| KeyError::File { path: path.to_owned(), action, source };
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("opened", error)),
    };
    let mode = file.metadata().map_err(|error| failed("looked at", error))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| failed("read", error))?;
    Ok(Some(SecretString::from(text)))
}

/// Writes a key file that was not there, whole or not at all. False: it is there now.
fn make(path: &Path, line: &SecretString) -> Result<bool, KeyError> {
    let failed = |action| move |source| KeyError::File { path: path.to_owned(), action, source };
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("placed"))?;
    }
    let unfinished = path.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_file(&unfinished);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        writeln!(file, "{}", line.expose_secret())?;
        file.sync_all()?;
        // Unlike a rename, a link does not replace what another process has put there meanwhile.
        fs::hard_link(&unfinished, path)
    };
    let written = write();
    let _ = fs::remove_file(&unfinished);
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed("written")(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_privately_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data").join(KEYS_FILE);
        assert!(read(&path).unwrap().is_none());
        let day = chrono::NaiveDate::from_ymd_opt(2027, 1, 15).unwrap();
        let line = KeyRing::new_line(day).unwrap();
        assert!(make(&path, &line).unwrap());
        assert!(!make(&path, &KeyRing::new_line(day).unwrap()).unwrap(), "a key that is there was replaced");
        let found = KeyRing::parse(&read(&path).unwrap().unwrap()).unwrap();
        assert_eq!(found.ids(), KeyRing::parse(&line).unwrap().ids());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "an unfinished file was left");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEYS_FILE);
        fs::write(&path, "a:b").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains("mode 640") && message.contains("chmod 600"), "{message}");
    }
}
