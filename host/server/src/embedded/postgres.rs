//! Postgres: how its cluster is made, what it is told, how it is asked whether it is there.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection};

use super::Durability;
use super::error::EnginesError;
use super::folder::{Folder, folder_error, percent_encode, remove_if_there, require_traversable};
use super::os::{Signal, as_child, memory_bytes, pid_in_file, processes_working_in};
use super::supervisor::Spec;

pub(super) const NAME: &str = "postgres";
/// The database that the host uses.
pub(super) const DATABASE: &str = "frontdesk";
const SUPERUSER: &str = "postgres";
/// Names the socket only (`.s.PGSQL.5432`): nothing listens on TCP.
const PORT: u16 = 5432;
/// The oldest Postgres that pgvector and the migrations are used with.
const VERSION_MIN: u32 = 15;
/// Since 17 the C.UTF-8 locale is built in and the same on every system.
const VERSION_WITH_BUILTIN_LOCALE: u32 = 17;
/// Fast shutdown; then immediate, with recovery at the next start.
const STOP: &[(Signal, Duration)] =
    &[(Signal::Interrupt, Duration::from_secs(10)), (Signal::Quit, Duration::from_secs(5))];
const INITDB_DEADLINE: Duration = Duration::from_secs(120);

/// How to reach the server.
#[derive(Debug, Clone)]
pub(super) struct Access {
    run_dir: PathBuf,
    password: SecretString,
}

impl Access {
    /// The port is written out because sqlx would otherwise take `PGPORT` from the environment.
    pub(super) fn url(&self, database: &str) -> SecretString {
        let password = percent_encode(self.password.expose_secret(), false);
        let host = percent_encode(&self.run_dir.to_string_lossy(), false);
        SecretString::from(format!("postgres://{SUPERUSER}:{password}@localhost:{PORT}/{database}?host={host}"))
    }
}

/// What the supervisor needs, and how to connect afterwards.
pub(super) fn spec(
    binaries: &Path,
    folder: &Arc<Folder>,
    durability: Durability,
) -> Result<(Spec, Access), EnginesError> {
    let program = find_program(binaries, "postgres")?;
    let initdb = find_program(binaries, "initdb")?;
    let version = version_of(&program)?;
    let home = folder.path("postgres");
    let password = folder.password("postgres.password", Some(&home))?;
    let access = Access { run_dir: folder.run_dir().to_owned(), password: password.clone() };

    let socket = folder.run_dir().join(format!(".s.PGSQL.{PORT}"));
    let (prepare_folder, prepare_home) = (Arc::clone(folder), home.clone());
    let pid_file = home.join("postmaster.pid");
    let (start_home, start_pid_file) = (home.clone(), pid_file.clone());
    let spec = Spec {
        name: NAME,
        program,
        arguments: arguments(&home, folder.run_dir(), durability, &Memory::of(memory_bytes(), durability)),
        home,
        pid_file,
        log: folder.log("postgres.log"),
        on_parent_death: Signal::Interrupt,
        stop: STOP,
        prepare: Box::new(move || {
            make_cluster(&initdb, version, &prepare_folder, &password, durability)?;
            check_cluster_version(&prepare_home, version)
        }),
        before_start: Box::new(move || remove_misleading_pid_file(&start_home, &start_pid_file)),
        probe: Box::new(move || probe(&socket)),
        is_transient,
    };
    Ok((spec, access))
}

pub(super) fn find_program(binaries: &Path, name: &str) -> Result<PathBuf, EnginesError> {
    let path = binaries.join("bin").join(name);
    let found = path.canonicalize().map_err(|source| EnginesError::ProgramMissing { path: path.clone(), source })?;
    require_traversable(&found)?;
    // The link's own name is run, not its target's: `redis-server` may stand behind `valkey-server`.
    std::path::absolute(&path).map_err(|source| EnginesError::ProgramMissing { path, source })
}

/// The major version of the program, from `postgres (PostgreSQL) 18.6`.
fn version_of(program: &Path) -> Result<u32, EnginesError> {
    let name = program.display().to_string();
    let mut command = Command::new(program);
    as_child(&mut command, Signal::Kill);
    let output = command
        .arg("--version")
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| EnginesError::Spawn { program: name.clone(), source })?;
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words).trim().to_owned();
    let major = words.split_once("(PostgreSQL) ").and_then(|(_, number)| {
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    match major {
        Some(major) if major >= VERSION_MIN => Ok(major),
        _ => {
            let found = words.chars().take(300).collect();
            Err(EnginesError::ProgramVersion { program: name, found, minimum: VERSION_MIN })
        }
    }
}

/// What Postgres may use of this machine's memory, in MiB.
#[derive(Debug, PartialEq, Eq)]
struct Memory {
    /// A search in 100,000 passages walks through 400 MiB of index and table. What is not in here is copied from the
    /// kernel page by page, which makes such a search twice as slow. Only pages that are used take memory.
    shared_buffers: u64,
    /// Taken while a vector index is built, by one session: an index that does not fit is built many times slower.
    maintenance_work_mem: u64,
    effective_cache_size: u64,
}

impl Memory {
    /// Of a machine with so much memory; `None`: not known, which is taken for a small one. Test engines are many at a
    /// time and hold little.
    fn of(bytes: Option<u64>, durability: Durability) -> Self {
        let mib = match durability {
            Durability::Durable => bytes.unwrap_or_default() >> 20,
            Durability::Fast => 0,
        };
        Self {
            shared_buffers: (mib / 8).clamp(128, 1_024),
            maintenance_work_mem: (mib / 16).clamp(128, 1_024),
            effective_cache_size: (mib / 2).clamp(512, 16_384),
        }
    }
}

fn arguments(home: &Path, run_dir: &Path, durability: Durability, memory: &Memory) -> Vec<String> {
    let mut settings = vec![
        // Reached through the socket alone.
        "listen_addresses=".to_owned(),
        format!("unix_socket_directories={}", quote_list_item(run_dir)),
        "unix_socket_permissions=0700".to_owned(),
        format!("port={PORT}"),
        "password_encryption=scram-sha-256".to_owned(),
        "timezone=UTC".to_owned(),
        "log_timezone=UTC".to_owned(),
        format!("shared_buffers={}MB", memory.shared_buffers),
        format!("maintenance_work_mem={}MB", memory.maintenance_work_mem),
        format!("effective_cache_size={}MB", memory.effective_cache_size),
        "max_wal_size=512MB".to_owned(),
        // Customers' words stay out of the log: no statements, no values of violated keys.
        "log_min_error_statement=panic".to_owned(),
        "log_error_verbosity=terse".to_owned(),
        "log_min_duration_statement=-1".to_owned(),
        "log_checkpoints=off".to_owned(),
        "log_line_prefix=%m [%p] ".to_owned(),
    ];
    if cfg!(target_os = "linux") {
        // One call for the file system before recovery, in the place of one fsync per file.
        settings.push("recovery_init_sync_method=syncfs".to_owned());
    }
    match durability {
        Durability::Durable => settings.extend(["fsync=on", "max_connections=100"].map(str::to_owned)),
        // Commits still reach the kernel before they return, so a killed process loses nothing: no synchronous_commit=off here.
        // Tests run side by side, each with a database and a pool of its own.
        Durability::Fast => settings.extend(["fsync=off", "max_connections=300"].map(str::to_owned)),
    }
    let mut arguments = vec!["-D".to_owned(), home.display().to_string()];
    for setting in settings {
        arguments.extend(["-c".to_owned(), setting]);
    }
    arguments
}

/// An item of a comma-separated setting, quoted as an identifier.
fn quote_list_item(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('"', "\"\""))
}

/// Makes the cluster beside its place and renames it there when it is complete.
fn make_cluster(
    initdb: &Path,
    version: u32,
    folder: &Folder,
    password: &SecretString,
    durability: Durability,
) -> Result<(), EnginesError> {
    let unfinished = folder.path("postgres.init");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(|source| folder_error("removed", &unfinished, source))?;
    }
    let home = folder.path("postgres");
    if home.exists() {
        return Ok(());
    }
    tracing::info!(engine = NAME, "making a new cluster");
    let unfinished = folder.child_dir("postgres.init")?;
    let password_file = folder.child_file("postgres.init.pwfile", password.expose_secret())?;
    let outcome = run_initdb(initdb, version, folder, &unfinished, &password_file, durability);
    remove_if_there(&password_file)?;
    outcome?;
    fs::rename(&unfinished, &home).map_err(|source| folder_error("put in place", &home, source))?;
    // The rename must not be lost when the commits that follow it are not.
    let data_dir = fs::File::open(folder.data_dir()).and_then(|dir| dir.sync_all());
    data_dir.map_err(|source| folder_error("synced", folder.data_dir(), source))
}

fn run_initdb(
    initdb: &Path,
    version: u32,
    folder: &Folder,
    target: &Path,
    password_file: &Path,
    durability: Durability,
) -> Result<(), EnginesError> {
    let spawn_failed = |source| EnginesError::Spawn { program: initdb.display().to_string(), source };
    let log = folder.log("initdb.log");
    let (output, log_begin) = log.open().map_err(spawn_failed)?;
    let errors = output.try_clone().map_err(spawn_failed)?;
    let mut command = Command::new(initdb);
    as_child(&mut command, Signal::Terminate);
    command.arg("-D").arg(target).arg("--pwfile").arg(password_file).args(["-U", SUPERUSER, "--encoding=UTF8"]);
    command.args(["--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--data-checksums"]);
    if version >= VERSION_WITH_BUILTIN_LOCALE {
        command.args(["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]);
    } else {
        command.args(["--locale=C.UTF-8"]);
    }
    if durability == Durability::Fast {
        command.arg("--no-sync");
    }
    command.current_dir(target).env("HOME", target).stdin(Stdio::null()).stdout(output).stderr(errors);
    let mut child = command.spawn().map_err(spawn_failed)?;
    let begin = Instant::now();
    let status = loop {
        match child.try_wait().map_err(spawn_failed)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => break status.to_string(),
            None if begin.elapsed() >= INITDB_DEADLINE => {
                child.kill().and_then(|()| child.wait()).map_err(spawn_failed)?;
                break format!("not done after {} s", INITDB_DEADLINE.as_secs());
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    Err(EnginesError::Initdb { status, log: log.path().to_owned(), log_end: log.end_since(log_begin) })
}

fn check_cluster_version(home: &Path, expected: u32) -> Result<(), EnginesError> {
    let path = home.join("PG_VERSION");
    let found = fs::read_to_string(&path).map_err(|source| folder_error("read", &path, source))?;
    let found = found.trim().to_owned();
    if found == expected.to_string() {
        return Ok(());
    }
    Err(EnginesError::ClusterVersion { cluster: home.to_owned(), found, expected })
}

/// Postgres refuses to start when the pid in `postmaster.pid` is alive and of the same user. After a machine or a container was
/// started anew, that number may be another process's, Valkey's for one. When no Postgres works in the folder, neither a postmaster
/// nor a backend that survived it, the file misleads and goes; in every other case Postgres judges for itself.
fn remove_misleading_pid_file(home: &Path, pid_file: &Path) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let Some(pid) = pid_in_file(pid_file) else { return };
    if Path::new("/proc").join(pid.to_string()).exists() && processes_working_in(home, pid_file, NAME).is_empty() {
        tracing::info!(engine = NAME, pid, "removing postmaster.pid: its number now belongs to another process");
        if let Err(error) = remove_if_there(pid_file) {
            tracing::warn!(engine = NAME, %error, "postmaster.pid stays, and Postgres may refuse to start");
        }
    }
}

/// Asks for a connection and goes away: the answer `R` (an authentication request) means that the server takes connections, `E` that
/// it is still starting or recovering. See "Start-up" in the chapter "Message Flow" of Postgres' manual.
fn probe(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let body = format!("user\0{SUPERUSER}\0database\0postgres\0\0");
    let length = u32::try_from(body.len() + 8).map_err(io::Error::other)?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend(196_608_u32.to_be_bytes()); // protocol 3.0
    message.extend(body.bytes());
    stream.write_all(&message)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    if kind == *b"R" { Ok(()) } else { Err(io::Error::other("not yet")) }
}

/// What Postgres says while the remains of a killed predecessor are still going away: its unreaped pid, its backends' shared memory,
/// its socket's lock file.
fn is_transient(log_end: &str) -> bool {
    ["lock file \"", "pre-existing shared memory block", "is another postmaster"]
        .iter()
        .any(|words| log_end.contains(words))
}

/// Makes the host's database when the cluster is new. Its schema is made by the migrations.
pub(super) async fn create_database(access: &Access) -> Result<(), EnginesError> {
    let failed = |source| EnginesError::CreateDatabase { database: DATABASE, source };
    let mut connection = PgConnection::connect(access.url("postgres").expose_secret()).await.map_err(failed)?;
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(DATABASE)
        .fetch_one(&mut connection)
        .await
        .map_err(failed)?;
    if !exists {
        sqlx::query("create database frontdesk").execute(&mut connection).await.map_err(failed)?;
    }
    connection.close().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_holds_the_socket_folder_and_names_the_port() {
        let access = Access { run_dir: "/run/a b".into(), password: "ab12".to_owned().into() };
        assert_eq!(
            access.url("frontdesk").expose_secret(),
            "postgres://postgres:ab12@localhost:5432/frontdesk?host=%2Frun%2Fa%20b"
        );
    }

    #[test]
    fn only_the_remains_of_a_predecessor_are_worth_another_try() {
        for (words, transient) in [
            ("FATAL:  lock file \"postmaster.pid\" already exists", true),
            ("FATAL:  pre-existing shared memory block (key 1, ID 2) is still in use", true),
            ("FATAL:  lock file \"/run/.s.PGSQL.5432.lock\" already exists", true),
            ("FATAL:  could not access file \"vector\": No such file or directory", false),
            ("FATAL:  database files are incompatible with server", false),
            ("", false),
        ] {
            assert_eq!(is_transient(words), transient, "{words}");
        }
    }

    #[test]
    fn arguments_carry_no_password_and_listen_nowhere() {
        for durability in [Durability::Durable, Durability::Fast] {
            let memory = Memory::of(None, durability);
            let arguments = arguments(Path::new("/d/postgres"), Path::new("/d/run \"x\""), durability, &memory);
            assert!(arguments.contains(&"listen_addresses=".to_owned()));
            assert!(arguments.contains(&"unix_socket_directories=\"/d/run \"\"x\"\"\"".to_owned()));
            assert_eq!(arguments.contains(&"fsync=off".to_owned()), durability == Durability::Fast);
        }
    }

    #[test]
    fn memory_grows_with_the_machine_within_bounds() {
        let of = |gib: Option<u64>, durability| {
            let memory = Memory::of(gib.map(|gib| gib << 30), durability);
            (memory.shared_buffers, memory.maintenance_work_mem, memory.effective_cache_size)
        };
        assert_eq!(of(None, Durability::Durable), (128, 128, 512));
        assert_eq!(of(Some(1), Durability::Durable), (128, 128, 512));
        assert_eq!(of(Some(4), Durability::Durable), (512, 256, 2_048));
        assert_eq!(of(Some(256), Durability::Durable), (1_024, 1_024, 16_384));
        assert_eq!(of(Some(256), Durability::Fast), (128, 128, 512));
    }
}
