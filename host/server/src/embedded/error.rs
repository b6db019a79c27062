//! Why the engines could not be started. Every message says what was found, what was expected, and what to do; none carries a
//! password, because the children never print one.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why the embedded engines could not be started or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnginesError {
    #[error(
        "the program {} is missing: {source}. Point the engines' binaries folder at one that has bin/postgres, bin/initdb and \
         bin/valkey-server (`cargo xtask fetch` makes one and prints its path), or set DATABASE_URL and REDIS_URL to use your own \
         servers",
        path.display()
    )]
    ProgramMissing {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error(
        "{} cannot be entered by the engines' user (uid {uid}): the host runs as root, and Postgres never does, so its programs \
         and its data must lie where another user may go. Run `chmod o+x {}`, choose a folder such as /var/lib/frontdesk, or run \
         the host as an ordinary user",
        folder.display(), folder.display()
    )]
    NotTraversable { folder: PathBuf, uid: u32 },

    #[error(
        "the data folder {} is in use by another host (pid {pid}). Stop that one first, or choose another folder",
        data_dir.display()
    )]
    InUse { data_dir: PathBuf, pid: String },

    #[error("no host has engines running on {}: start one, or set DATABASE_URL", data_dir.display())]
    NotRunning { data_dir: PathBuf },

    #[error("{} could not be {action}: {source}. Check the folder's owner, permissions and free space", path.display())]
    Folder {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error(
        "the path {} cannot be used: {reason}. Choose another data folder",
        path.display()
    )]
    UnusablePath { path: PathBuf, reason: &'static str },

    #[error(
        "the password file {} {found}, but a cluster exists that needs it. Restore the file from a backup; or, if the data may \
         go, remove the folder {}",
        path.display(), belongs_to.display()
    )]
    Password { path: PathBuf, found: &'static str, belongs_to: PathBuf },

    #[error(
        "the cluster in {} was made by Postgres {found}, but the programs are Postgres {expected}. Use programs of version \
         {found}, or dump and restore into a new folder",
        cluster.display()
    )]
    ClusterVersion { cluster: PathBuf, found: String, expected: u32 },

    #[error(
        "`{program} --version` said {found:?}; expected a Postgres of version {minimum} or later. Use other programs"
    )]
    ProgramVersion { program: String, found: String, minimum: u32 },

    #[error("{program} could not be run: {source}. Check that it is executable and made for this machine")]
    Spawn {
        program: String,
        #[source]
        source: io::Error,
    },

    #[error("initdb did not make the cluster ({status}). Its last words, from {}:\n{log_end}", log.display())]
    Initdb { status: String, log: PathBuf, log_end: String },

    #[error("{engine} ended while it started ({status}). Its last words, from {}:\n{log_end}", log.display())]
    Exited { engine: &'static str, status: ExitStatus, log: PathBuf, log_end: String },

    #[error(
        "{engine} runs but did not answer within {waited_s} s. It may still be recovering; see {}. Its last words:\n{log_end}",
        log.display()
    )]
    NotReady { engine: &'static str, waited_s: u64, log: PathBuf, log_end: String },

    #[error(
        "an earlier {engine} (pid {pid}) still runs on {} and did not stop within {waited_s} s. Stop it by hand",
        data_dir.display()
    )]
    Leftover { engine: &'static str, pid: u32, data_dir: PathBuf, waited_s: u64 },

    #[error("the database {database} could not be made: {source}")]
    CreateDatabase {
        database: &'static str,
        #[source]
        source: sqlx::Error,
    },

    #[error(
        "a thread for {engine} could not be started: {source}. The machine is short of memory or at its limit of processes"
    )]
    Thread {
        engine: &'static str,
        #[source]
        source: io::Error,
    },

    #[error("the start was interrupted")]
    Interrupted,
}
