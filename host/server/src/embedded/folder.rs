//! The private folder: who may enter it, who holds it, and the small files that outlive a run.
//!
//! When the host is root, the folder and the small files stay root's, because a folder that the children own is one where they could
//! put a link in the place of a file that the host is about to write. Only `postgres/`, `valkey/` and `run/` are the children's.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngCore;
use secrecy::{ExposeSecret, SecretString};

use super::error::EnginesError;
use super::logfile::LogFile;
use super::os::{UNPRIVILEGED_ID, effective_uid, is_root};

/// Longest folder that still leaves room for `/.s.PGSQL.5432` in a socket's address: `sun_path` has 108 bytes with its NUL on Linux
/// and 104 on macOS and the BSDs.
const RUN_DIR_BYTES_MAX: usize = 103 - "/.s.PGSQL.5432".len();
/// Random bytes of a password; the file holds them as twice as many hexadecimal digits.
const PASSWORD_BYTES: usize = 32;
/// Largest small file that is read back, in bytes.
const SMALL_FILE_BYTES_MAX: u64 = 16 << 10;
/// Another process may hold the lock for an instant, to see whether a host runs: try this often, 50 ms apart.
const LOCK_TRIES: u32 = 6;

/// Where the engines answer. The text form never shows the passwords.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    /// `postgres://` URL of the database `frontdesk`.
    pub database_url: Option<SecretString>,
    /// `redis+unix://` URL.
    pub redis_url: Option<SecretString>,
}

impl Endpoints {
    /// `DATABASE_URL=…` and `REDIS_URL=…`, a line each. The URLs hold no character that a shell would read as its own.
    pub(super) fn to_env_file(&self) -> String {
        let line = |name: &str, url: &Option<SecretString>| {
            url.as_ref().map(|url| format!("{name}={}\n", url.expose_secret())).unwrap_or_default()
        };
        line("DATABASE_URL", &self.database_url) + &line("REDIS_URL", &self.redis_url)
    }

    fn from_env_file(text: &str) -> Endpoints {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(|url| SecretString::from(url.to_owned()))
        };
        Endpoints { database_url: value("DATABASE_URL"), redis_url: value("REDIS_URL") }
    }
}

/// The endpoints of the engines that another process runs on `data_dir`: for a command such as `frontdesk knowledge add` beside a
/// running `frontdesk serve`.
///
/// # Errors
/// [`EnginesError::NotRunning`] when no host holds the folder, or it is still starting.
pub fn running_endpoints(data_dir: &Path) -> Result<Endpoints, EnginesError> {
    let not_running = || EnginesError::NotRunning { data_dir: data_dir.to_owned() };
    let lock = File::open(data_dir.join("lock")).map_err(|_| not_running())?;
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) | Err(TryLockError::Error(_)) => return Err(not_running()),
    }
    let endpoints = Endpoints::from_env_file(&read_small(&data_dir.join("endpoints.env")).map_err(|_| not_running())?);
    if endpoints.database_url.is_none() && endpoints.redis_url.is_none() { Err(not_running()) } else { Ok(endpoints) }
}

/// The folder while this process holds it.
#[derive(Debug)]
pub(super) struct Folder {
    data_dir: PathBuf,
    run_dir: PathBuf,
    /// Closing it gives the folder back; children do not inherit it.
    _lock: File,
}

impl Folder {
    /// Creates the folder when missing, takes its lock, and puts every part into its place.
    pub(super) fn open(data_dir: &Path) -> Result<Folder, EnginesError> {
        let at = |action| move |source| folder_error(action, data_dir, source);
        let missing = !data_dir.exists();
        DirBuilder::new().recursive(true).mode(own_mode()).create(data_dir).map_err(at("created"))?;
        if missing {
            fs::set_permissions(data_dir, Permissions::from_mode(own_mode())).map_err(at("protected"))?;
        }
        let data_dir = data_dir.canonicalize().map_err(at("found"))?;
        require_plain(&data_dir)?;
        require_traversable(&data_dir)?;
        let lock = take_lock(&data_dir)?;
        remove_if_there(&data_dir.join("endpoints.env"))?;
        private_dir(&data_dir.join("log"), false)?;
        let run_dir = run_dir(&data_dir)?;
        Ok(Folder { data_dir, run_dir, _lock: lock })
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.data_dir.join(name)
    }

    /// Folder of the unix sockets: short enough, and closed to every other user.
    pub(super) fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    pub(super) fn log(&self, name: &str) -> LogFile {
        LogFile::new(self.data_dir.join("log").join(name))
    }

    /// A folder in here that the children own.
    pub(super) fn child_dir(&self, name: &str) -> Result<PathBuf, EnginesError> {
        let path = self.path(name);
        private_dir(&path, true)?;
        Ok(path)
    }

    /// A 0600 file in here that the children own, replaced as a whole.
    pub(super) fn child_file(&self, name: &str, content: &str) -> Result<PathBuf, EnginesError> {
        let path = self.path(name);
        write_private(&path, content, true)?;
        Ok(path)
    }

    /// The password in the file `name`, made when missing. `needed_by` is data that only the old password opens: when that exists, a
    /// missing or damaged file is an error and not a reason to make a new one.
    pub(super) fn password(&self, name: &str, needed_by: Option<&Path>) -> Result<SecretString, EnginesError> {
        let path = self.path(name);
        let found = match read_small(&path) {
            Ok(text) => {
                let text = text.trim();
                if text.len() == PASSWORD_BYTES * 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Ok(SecretString::from(text.to_owned()));
                }
                "is damaged"
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => "is missing",
            Err(source) => return Err(folder_error("read", &path, source)),
        };
        if let Some(belongs_to) = needed_by.filter(|data| data.exists()) {
            return Err(EnginesError::Password { path, found, belongs_to: belongs_to.to_owned() });
        }
        let mut bytes = [0; PASSWORD_BYTES];
        rand::rng().fill_bytes(&mut bytes);
        let password = hex::encode(bytes);
        write_private(&path, &password, false)?;
        Ok(SecretString::from(password))
    }

    pub(super) fn write_endpoints(&self, endpoints: &Endpoints) -> Result<(), EnginesError> {
        write_private(&self.path("endpoints.env"), &endpoints.to_env_file(), false)
    }

    /// Takes the endpoints away before the engines stop. Best effort: the lock says the same.
    pub(super) fn remove_endpoints(&self) {
        let _ = fs::remove_file(self.path("endpoints.env"));
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder outside the data folder is not left lying about; a killed host's is used again by the next one.
        if !self.run_dir.starts_with(&self.data_dir) {
            let _ = fs::remove_dir_all(&self.run_dir);
            let _ = fs::remove_file(self.path("run.path"));
        }
    }
}

fn own_mode() -> u32 {
    if is_root() { 0o711 } else { 0o700 }
}

fn take_lock(data_dir: &Path) -> Result<File, EnginesError> {
    let path = data_dir.join("lock");
    let at = |action| move |source| folder_error(action, &data_dir.join("lock"), source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(at("opened"))?;
    for attempt in 1..=LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(source)) => return Err(folder_error("locked", &path, source)),
            Err(TryLockError::WouldBlock) if attempt < LOCK_TRIES => std::thread::sleep(Duration::from_millis(50)),
            Err(TryLockError::WouldBlock) => {
                let pid = read_small(&path).unwrap_or_default().trim().to_owned();
                let pid = if pid.is_empty() { "unknown".to_owned() } else { pid };
                return Err(EnginesError::InUse { data_dir: data_dir.to_owned(), pid });
            }
        }
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(at("written"))?;
    writeln!(file, "{}", std::process::id()).map_err(at("written"))?;
    Ok(file)
}

/// `<data_dir>/run` when a socket in it has a short enough address; otherwise a folder of our own in a short place.
fn run_dir(data_dir: &Path) -> Result<PathBuf, EnginesError> {
    let inside = data_dir.join("run");
    if fits(&inside) {
        private_dir(&inside, true)?;
        return Ok(inside);
    }
    let note = data_dir.join("run.path");
    if let Ok(text) = read_small(&note) {
        let earlier = PathBuf::from(text.trim());
        if fits(&earlier) && is_private_dir(&earlier) {
            return Ok(earlier);
        }
    }
    let mut name = [0; 8];
    rand::rng().fill_bytes(&mut name);
    let name = format!("frontdesk-{}", hex::encode(name));
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !is_root()).map(PathBuf::from);
    let places = [runtime, Some(std::env::temp_dir()), Some(PathBuf::from("/tmp"))];
    let place = places.into_iter().flatten().find(|place| {
        place.is_absolute() && place.is_dir() && fits(&place.join(&name)) && require_traversable(place).is_ok()
    });
    let Some(place) = place else {
        let reason =
            "it is too long for a unix socket, and neither XDG_RUNTIME_DIR, TMPDIR nor /tmp offers a shorter place";
        return Err(EnginesError::UnusablePath { path: data_dir.to_owned(), reason });
    };
    let path = place.join(name);
    // Not recursive: it fails when the name exists, so nobody can have prepared it.
    DirBuilder::new().mode(0o700).create(&path).map_err(|source| folder_error("created", &path, source))?;
    give_to_children(&path)?;
    write_private(&note, &path.to_string_lossy(), false)?;
    Ok(path)
}

fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= RUN_DIR_BYTES_MAX
}

/// Whether `path` is a real folder of the children's user that nobody else may enter.
fn is_private_dir(path: &Path) -> bool {
    let owner = if is_root() { UNPRIVILEGED_ID } else { effective_uid() };
    fs::symlink_metadata(path).is_ok_and(|data| data.is_dir() && data.mode() & 0o077 == 0 && data.uid() == owner)
}

/// The paths go into Valkey's line-based settings and into URLs.
fn require_plain(path: &Path) -> Result<(), EnginesError> {
    let reason = match path.to_str() {
        None => "it is not UTF-8",
        Some(text) if text.chars().any(char::is_control) => "it has a control character",
        Some(_) => return Ok(()),
    };
    Err(EnginesError::UnusablePath { path: path.to_owned(), reason })
}

/// When the host is root, checks that the children's user can reach `path`, by the permission bits of every folder on the way.
pub(super) fn require_traversable(path: &Path) -> Result<(), EnginesError> {
    if !is_root() {
        return Ok(());
    }
    for folder in path.ancestors().filter(|folder| folder.is_dir()) {
        let data = folder.metadata().map_err(|source| folder_error("inspected", folder, source))?;
        let needed = match (data.uid(), data.gid()) {
            (UNPRIVILEGED_ID, _) => 0o100,
            (_, UNPRIVILEGED_ID) => 0o010,
            _ => 0o001,
        };
        if data.mode() & needed == 0 {
            return Err(EnginesError::NotTraversable { folder: folder.to_owned(), uid: UNPRIVILEGED_ID });
        }
    }
    Ok(())
}

/// A folder with mode 0700, the host's own or the children's. One that exists is put right, unless it is a link.
fn private_dir(path: &Path, for_children: bool) -> Result<(), EnginesError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let data = fs::symlink_metadata(path).map_err(|source| folder_error("inspected", path, source))?;
            if !data.is_dir() {
                return Err(EnginesError::UnusablePath { path: path.to_owned(), reason: "it is not a folder" });
            }
        }
        Err(source) => return Err(folder_error("created", path, source)),
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .map_err(|source| folder_error("protected", path, source))?;
    if for_children { give_to_children(path) } else { Ok(()) }
}

fn give_to_children(path: &Path) -> Result<(), EnginesError> {
    if !is_root() {
        return Ok(());
    }
    std::os::unix::fs::chown(path, Some(UNPRIVILEGED_ID), Some(UNPRIVILEGED_ID))
        .map_err(|source| folder_error("given to the engines' user", path, source))
}

/// Writes a 0600 file beside the target and renames it over it, so that a reader sees the old or the new and never a half.
pub(super) fn write_private(path: &Path, content: &str, for_children: bool) -> Result<(), EnginesError> {
    let mut fresh = path.to_owned().into_os_string();
    fresh.push(format!(".{}.new", std::process::id()));
    let fresh = PathBuf::from(fresh);
    remove_if_there(&fresh)?;
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| folder_error("written", &fresh, source))?;
    if for_children {
        give_to_children(&fresh)?;
    }
    fs::rename(&fresh, path).map_err(|source| folder_error("put in place", path, source))
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), EnginesError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(folder_error("removed", path, error)),
        _ => Ok(()),
    }
}

pub(super) fn folder_error(action: &'static str, path: &Path, source: io::Error) -> EnginesError {
    EnginesError::Folder { action, path: path.to_owned(), source }
}

fn read_small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(SMALL_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Percent-encodes everything but letters, digits and `-._~` (RFC 3986 unreserved), and `/` when `keep_slash`.
pub(super) fn percent_encode(text: &str, keep_slash: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            b'/' if keep_slash => encoded.push('/'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_survive_their_file_form() {
        let endpoints = Endpoints {
            database_url: Some("postgres://postgres:ab@localhost:5432/frontdesk?host=%2Frun%2Fx".to_owned().into()),
            redis_url: Some("redis+unix:///run/x/valkey.sock?pass=ab".to_owned().into()),
        };
        let back = Endpoints::from_env_file(&endpoints.to_env_file());
        let texts = [&endpoints, &back].map(|value| {
            [&value.database_url, &value.redis_url].map(|url| url.as_ref().unwrap().expose_secret().to_owned())
        });
        assert_eq!(texts[0], texts[1]);
        assert!(!format!("{endpoints:?}").contains("ab@"), "the debug form must not show a password");
        let none = Endpoints::from_env_file("DATABASE_URLX=a\n#REDIS_URL=b\n");
        assert!(none.database_url.is_none() && none.redis_url.is_none());
    }

    #[test]
    fn paths_are_encoded_for_urls() {
        assert_eq!(percent_encode("/a b/ü?&", true), "/a%20b/%C3%BC%3F%26");
        assert_eq!(percent_encode("/a-._~", false), "%2Fa-._~");
    }

    #[test]
    fn a_password_is_made_once_and_a_lost_one_is_not_replaced_under_data_that_needs_it() {
        let base = std::env::temp_dir().join(format!("frontdesk-folder-{}", std::process::id()));
        let folder = Folder::open(&base).unwrap();
        let cluster = base.join("postgres");
        let first = folder.password("postgres.password", Some(&cluster)).unwrap();
        let again = folder.password("postgres.password", Some(&cluster)).unwrap();
        assert_eq!(first.expose_secret(), again.expose_secret());
        let file = base.join("postgres.password");
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);

        for (damage, found) in [("short", "is damaged"), ("", "is damaged")] {
            fs::write(&file, damage).unwrap();
            fs::create_dir_all(&cluster).unwrap();
            let error = folder.password("postgres.password", Some(&cluster)).unwrap_err();
            assert!(matches!(error, EnginesError::Password { found: said, .. } if said == found), "{error}");
        }
        fs::remove_file(&file).unwrap();
        assert!(folder.password("postgres.password", Some(&cluster)).is_err());
        fs::remove_dir(&cluster).unwrap();
        let fresh = folder.password("postgres.password", Some(&cluster)).unwrap();
        assert_ne!(first.expose_secret(), fresh.expose_secret());

        let second = Folder::open(&base).unwrap_err();
        let own_pid = std::process::id().to_string();
        assert!(matches!(&second, EnginesError::InUse { pid, .. } if *pid == own_pid), "{second}");
        drop(folder);
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn a_deep_folder_gets_its_sockets_in_a_short_place_which_goes_with_it() {
        let base = std::env::temp_dir().join(format!("frontdesk-deep-{}", std::process::id()));
        let deep = base.join("d".repeat(60)).join("e".repeat(60));
        let folder = Folder::open(&deep).unwrap();
        let run = folder.run_dir().to_owned();
        assert!(fits(&run) && !run.starts_with(&deep) && is_private_dir(&run), "{}", run.display());
        assert_eq!(fs::read_to_string(deep.join("run.path")).unwrap(), run.to_str().unwrap());
        drop(folder);
        assert!(!run.exists());
        fs::remove_dir_all(&base).unwrap();
    }
}
