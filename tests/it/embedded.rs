//! The embedded engines: they start, keep their data, come back, go with their host, and let nobody else in.
//!
//! `FRONTDESK_ENGINES_DIR` names the engines' programs; `cargo xtask test` sets it. The engines of each test are its own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use frontdesk_server::embedded::{Durability, Engines, EnginesConfig, EnginesError, Which, running_endpoints};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection};

const PATIENCE: Duration = Duration::from_secs(60);
const NOBODY: u32 = 65534;

fn binaries() -> PathBuf {
    let folder = std::env::var_os("FRONTDESK_ENGINES_DIR");
    PathBuf::from(folder.expect(
        "FRONTDESK_ENGINES_DIR is not set: run `cargo xtask test`, or set it to what `cargo xtask fetch` prints",
    ))
}

/// A folder that the engines' user can reach, also when the tests run as root.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("frontdesk-it-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    folder
}

fn config(data_dir: &Path) -> EnginesConfig {
    EnginesConfig { binaries_dir: binaries(), data_dir: data_dir.to_owned(), durability: Durability::Fast }
}

async fn connect(url: &SecretString) -> PgConnection {
    PgConnection::connect(url.expose_secret()).await.unwrap()
}

async fn redis_connection(url: &SecretString) -> redis::aio::MultiplexedConnection {
    redis::Client::open(url.expose_secret()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Waits for what another process does; the condition decides, the time is only the limit.
async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < PATIENCE, "{what} did not happen within {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn kill_9(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

/// A dead process that nobody has reaped counts as gone.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    state != Some(Some('Z'))
}

#[tokio::test]
async fn data_outlives_the_host_and_the_children_do_not() {
    let folder = folder();
    let data = folder.path().join("data");
    let engines = Engines::start(config(&data), Which::Both).await.unwrap();
    let mut database = connect(&engines.database_url().unwrap()).await;
    sqlx::query("create extension vector").execute(&mut database).await.unwrap();
    sqlx::query("create table kept (id int primary key, place vector(3))").execute(&mut database).await.unwrap();
    sqlx::query("insert into kept values (1, '[1,2,3]')").execute(&mut database).await.unwrap();
    let mut queue = redis_connection(&engines.redis_url().unwrap()).await;
    let _: String = redis::cmd("XADD").arg("kept").arg("*").arg("k").arg("v").query_async(&mut queue).await.unwrap();
    let endpoints = running_endpoints(&data).unwrap();
    assert_eq!(
        endpoints.database_url.unwrap().expose_secret(),
        engines.database_url().unwrap().expose_secret(),
        "a command beside the host finds its engines"
    );
    let status = engines.status();
    assert!(status.is_up());
    let pids = [status.postgres.unwrap().pid.unwrap(), status.valkey.unwrap().pid.unwrap()];
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    engines.shutdown().await;
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "the children outlived shutdown");
    assert!(matches!(running_endpoints(&data), Err(EnginesError::NotRunning { .. })));

    let engines = Engines::start(config(&data), Which::Both).await.unwrap();
    let mut database = connect(&engines.database_url().unwrap()).await;
    let distance: f64 =
        sqlx::query_scalar("select place <-> '[1,2,5]' from kept").fetch_one(&mut database).await.unwrap();
    assert!((distance - 2.0).abs() < 1e-6);
    let mut queue = redis_connection(&engines.redis_url().unwrap()).await;
    let length: i64 = redis::cmd("XLEN").arg("kept").query_async(&mut queue).await.unwrap();
    assert_eq!(length, 1);
    engines.shutdown().await;
}

#[tokio::test]
async fn a_killed_child_is_started_again_with_its_data() {
    let folder = folder();
    let durable = EnginesConfig { durability: Durability::Durable, ..config(&folder.path().join("data")) };
    let engines = Engines::start(durable, Which::Both).await.unwrap();
    let (database_url, redis_url) = (engines.database_url().unwrap(), engines.redis_url().unwrap());
    let mut database = connect(&database_url).await;
    sqlx::query("create table kept (id int)").execute(&mut database).await.unwrap();
    for round in 1..=3_u64 {
        let id = i32::try_from(round).unwrap();
        let mut database = connect(&database_url).await;
        sqlx::query("insert into kept values ($1)").bind(id).execute(&mut database).await.unwrap();
        let mut queue = redis_connection(&redis_url).await;
        let _: i64 = redis::cmd("INCR").arg("kept").query_async(&mut queue).await.unwrap();

        let before = engines.status();
        kill_9(before.postgres.unwrap().pid.unwrap());
        kill_9(before.valkey.unwrap().pid.unwrap());
        eventually("the restart of both", async || {
            let status = engines.status();
            let again = [&status.postgres, &status.valkey].iter().all(|e| e.as_ref().unwrap().restarts >= round);
            again && status.is_up()
        })
        .await;
        let failure = engines.status().postgres.unwrap().last_failure.unwrap();
        assert!(failure.contains("signal: 9"), "{failure}");

        let mut database = connect(&database_url).await;
        let rows: i64 = sqlx::query_scalar("select count(*) from kept").fetch_one(&mut database).await.unwrap();
        assert_eq!(rows.unsigned_abs(), round, "a committed row was lost");
        let mut queue = redis_connection(&redis_url).await;
        let kept: u64 = redis::cmd("GET").arg("kept").query_async(&mut queue).await.unwrap();
        assert_eq!(kept, round);
    }
    engines.shutdown().await;
}

/// The `frontdesk` program of the same build: this test is `<target>/<profile>/deps/it-…`.
fn frontdesk() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("frontdesk");
    assert!(program.is_file(), "{} is missing: run `cargo build -p frontdesk-server`", program.display());
    program
}

/// A host that does nothing but run engines.
struct Host {
    process: Child,
    children: BTreeSet<u32>,
}

impl Host {
    async fn start(data: &Path, env_file: &Path) -> Host {
        let mut command = Command::new(frontdesk());
        command.arg("engines").arg("--binaries").arg(binaries()).arg("--data").arg(data).arg("--fast");
        command.arg("--print-env").arg(env_file).stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = command.spawn().unwrap();
        eventually("the start of `frontdesk engines`", async || {
            assert_eq!(process.try_wait().unwrap(), None, "it ended while starting");
            env_file.exists()
        })
        .await;
        let children = descendants(process.id());
        assert!(children.len() > 2, "two engines, one of many processes: {children:?}");
        Host { process, children }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn descendants(root: u32) -> BTreeSet<u32> {
    let parent_of = |pid: u32| -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
    };
    let pids = || fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let mut found = BTreeSet::from([root]);
    loop {
        let more: Vec<u32> =
            pids().filter(|pid| !found.contains(pid) && parent_of(*pid).is_some_and(|p| found.contains(&p))).collect();
        if more.is_empty() {
            found.remove(&root);
            return found;
        }
        found.extend(more);
    }
}

#[tokio::test]
async fn a_killed_host_takes_its_children_along_and_the_next_one_finds_the_data() {
    let folder = folder();
    let (data, env_file) = (folder.path().join("data"), folder.path().join("env"));
    let mut host = Host::start(&data, &env_file).await;
    assert_eq!(env_file.metadata().unwrap().mode() & 0o777, 0o600);
    let url = running_endpoints(&data).unwrap().database_url.unwrap();
    let mut database = connect(&url).await;
    sqlx::query("create table kept (id int)").execute(&mut database).await.unwrap();
    sqlx::query("insert into kept values (1)").execute(&mut database).await.unwrap();

    kill_9(host.process.id());
    host.process.wait().unwrap();
    // At once, while the old children may still be on their way out.
    let engines = Engines::start(config(&data), Which::Both).await.unwrap();
    let left: Vec<_> = host.children.iter().filter(|pid| is_alive(**pid)).collect();
    assert!(left.is_empty(), "children outlived their host: {left:?}");
    let mut database = connect(&engines.database_url().unwrap()).await;
    let rows: i64 = sqlx::query_scalar("select count(*) from kept").fetch_one(&mut database).await.unwrap();
    assert_eq!(rows, 1);
    engines.shutdown().await;

    // And without anybody's help: the kernel alone ends them.
    fs::remove_file(&env_file).unwrap();
    let mut host = Host::start(&data, &env_file).await;
    kill_9(host.process.id());
    host.process.wait().unwrap();
    eventually("the children's end", async || !host.children.iter().any(|pid| is_alive(*pid))).await;
}

#[tokio::test]
async fn a_second_host_on_the_folder_is_refused_and_told_who_holds_it() {
    let folder = folder();
    let (data, env_file) = (folder.path().join("data"), folder.path().join("env"));
    let host = Host::start(&data, &env_file).await;
    let error = Engines::start(config(&data), Which::Both).await.unwrap_err();
    assert!(matches!(&error, EnginesError::InUse { pid, .. } if *pid == host.process.id().to_string()), "{error}");
    // The first one is none the worse for it.
    connect(&running_endpoints(&data).unwrap().database_url.unwrap()).await;
}

/// Sockets that a process has open and that listen on TCP.
fn tcp_listeners(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let open: BTreeSet<String> =
        links.filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
    const LISTEN: &str = "0A";
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines());
    let fields = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = fields.filter(|f| f.len() > 9 && f[3] == LISTEN && open.contains(f[9]));
    ours.map(|f| f[1].to_owned()).collect()
}

#[tokio::test]
async fn the_children_are_nobody_listen_nowhere_and_carry_no_password() {
    // Proof that the check below sees a listener at all.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!(":{:04X}", listener.local_addr().unwrap().port());
    assert!(tcp_listeners(std::process::id()).iter().any(|address| address.ends_with(&port)));
    drop(listener);

    let folder = folder();
    let data = folder.path().join("data");
    let engines = Engines::start(config(&data), Which::Both).await.unwrap();
    let status = engines.status();
    let own_uid = fs::metadata("/proc/self").unwrap().uid();
    let expected = if own_uid == 0 { NOBODY } else { own_uid };
    let passwords = ["postgres.password", "valkey.password"].map(|name| fs::read_to_string(data.join(name)).unwrap());
    for pid in [status.postgres.unwrap().pid.unwrap(), status.valkey.unwrap().pid.unwrap()] {
        let process = descendants(pid).into_iter().chain([pid]);
        for pid in process {
            // An autovacuum worker may come and go meanwhile.
            let Ok(about) = fs::metadata(format!("/proc/{pid}")) else { continue };
            assert_eq!(about.uid(), expected, "process {pid} runs as the wrong user");
            assert_eq!(tcp_listeners(pid), Vec::<String>::new());
            for source in ["cmdline", "environ"] {
                let words = fs::read(format!("/proc/{pid}/{source}")).unwrap_or_default();
                let words = String::from_utf8_lossy(&words);
                assert!(!passwords.iter().any(|password| words.contains(password)), "{source} of {pid} has a password");
            }
        }
    }
    for name in ["postgres", "valkey", "run", "log"] {
        assert_eq!(data.join(name).metadata().unwrap().mode() & 0o777, 0o700, "{name}");
    }

    // The socket alone is not enough.
    let url = engines.database_url().unwrap();
    let wrong = url.expose_secret().replace(&passwords[0], &"0".repeat(64));
    let refused = PgConnection::connect(&wrong).await.unwrap_err();
    assert!(refused.to_string().contains("password authentication failed"), "{refused}");
    let bare = engines.redis_url().unwrap().expose_secret().split_once('?').unwrap().0.to_owned();
    let mut queue = redis_connection(&SecretString::from(bare)).await;
    let refused = redis::cmd("PING").query_async::<String>(&mut queue).await.unwrap_err();
    assert_eq!(refused.code(), Some("NOAUTH"), "{refused}");
    engines.shutdown().await;
}

#[tokio::test]
async fn an_initdb_that_was_killed_leaves_nothing_that_hinders_the_next_start() {
    let folder = folder();
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("postgres.init/base")).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o711)).unwrap();
    fs::write(data.join("postgres.init/PG_VERSION"), "18\n").unwrap();
    fs::write(data.join("postgres.init.pwfile"), "left over").unwrap();
    let engines = Engines::start(config(&data), Which::Postgres).await.unwrap();
    assert!(engines.redis_url().is_none());
    connect(&engines.database_url().unwrap()).await;
    assert!(!data.join("postgres.init").exists() && !data.join("postgres.init.pwfile").exists());
    engines.shutdown().await;
}

#[tokio::test]
async fn a_pid_file_whose_number_is_now_another_process_does_not_hinder_the_start() {
    let folder = folder();
    let data = folder.path().join("data");
    let engines = Engines::start(config(&data), Which::Both).await.unwrap();
    let postgres = engines.status().postgres.unwrap().pid.unwrap();
    let pid_file = data.join("postgres/postmaster.pid");
    let text = fs::read_to_string(&pid_file).unwrap();
    engines.shutdown().await;
    // As after a power failure, in a container where the number was given out again.
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(&pid_file, text.replacen(&postgres.to_string(), &other.id().to_string(), 1)).unwrap();
    fs::set_permissions(&pid_file, fs::Permissions::from_mode(0o644)).unwrap();
    let started = Engines::start(config(&data), Which::Postgres).await;
    assert!(is_alive(other.id()), "a bystander was stopped");
    other.kill().unwrap();
    other.wait().unwrap();
    started.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_deep_folder_works_although_socket_addresses_are_short() {
    let folder = folder();
    let data = folder.path().join("d".repeat(100)).join("e".repeat(100));
    let engines = Engines::start(config(&data), Which::Both).await.unwrap();
    connect(&engines.database_url().unwrap()).await;
    redis_connection(&engines.redis_url().unwrap()).await;
    engines.shutdown().await;
}

#[tokio::test]
async fn what_stands_in_the_way_is_named_with_what_to_do() {
    let folder = folder();
    let nowhere = EnginesConfig { binaries_dir: folder.path().join("no"), ..config(&folder.path().join("data")) };
    let error = Engines::start(nowhere, Which::Both).await.unwrap_err();
    assert!(
        matches!(error, EnginesError::ProgramMissing { .. }) && error.to_string().contains("cargo xtask fetch"),
        "{error}"
    );

    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        let closed = folder.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let error = Engines::start(config(&closed.join("data")), Which::Postgres).await.unwrap_err();
        assert!(
            matches!(&error, EnginesError::NotTraversable { folder, uid: NOBODY } if folder.ends_with("closed")),
            "{error}"
        );
        assert!(error.to_string().contains("chmod o+x"), "{error}");
    }

    // A cluster of another version, and one whose password is gone.
    let data = folder.path().join("data");
    Engines::start(config(&data), Which::Postgres).await.unwrap().shutdown().await;
    let version = fs::read_to_string(data.join("postgres/PG_VERSION")).unwrap();
    fs::write(data.join("postgres/PG_VERSION"), "14\n").unwrap();
    let error = Engines::start(config(&data), Which::Postgres).await.unwrap_err();
    assert!(matches!(&error, EnginesError::ClusterVersion { found, .. } if found == "14"), "{error}");
    fs::write(data.join("postgres/PG_VERSION"), version).unwrap();
    fs::remove_file(data.join("postgres.password")).unwrap();
    let error = Engines::start(config(&data), Which::Postgres).await.unwrap_err();
    assert!(matches!(error, EnginesError::Password { found: "is missing", .. }), "{error}");
}
