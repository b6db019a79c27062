//! The embedded storage engines: Postgres 18 with pgvector, and Valkey 9, as supervised child processes.
//!
//! They are the same engines that a larger installation runs elsewhere, so there is one SQL dialect and one queue. Without
//! `DATABASE_URL` or `REDIS_URL` the host starts its own on a private folder:
//!
//! ```text
//! <data_dir>/              0700 (0711 when the host is root, so that the children's user can pass through)
//!   lock                   flock held for as long as a child may live; holds the host's pid
//!   endpoints.env          0600, DATABASE_URL= and REDIS_URL= of the running engines, for the CLI beside a running host
//!   postgres.password      0600, made once, 256 random bits
//!   valkey.password        0600, likewise
//!   postgres/              0700, the cluster; appears by one rename when initdb is complete
//!   valkey.conf            0600, the child's; carries the password, written anew at each start
//!   valkey/                0700, the append-only file
//!   run/                   0700, the unix sockets; or, when that path is too long for a socket, a folder named in run.path
//!   log/                   postgres.log, valkey.log, initdb.log; each at most 10 MiB, plus one predecessor
//! ```
//!
//! # What holds
//! - **Nothing listens on TCP.** Both engines are reached through a unix socket in a 0700 folder *and* a random password. No
//!   password stands in an argument list or in the environment of a child.
//! - **Never as root.** Postgres refuses to; when the host is root, both children run as uid and gid 65534 (`nobody`), which owns
//!   `postgres/`, `valkey/` and `run/` and nothing else here.
//! - **One host per folder.** The lock is taken first and given back last; the kernel releases it when the host dies.
//! - **A child never outlives the host** (Linux): each is spawned with `PR_SET_PDEATHSIG`. The kernel sends that signal when the
//!   spawning *thread* ends, so every child has one thread that spawns it, watches it, and lives as long as the handle. What a killed
//!   host left behind is waited for, then stopped, before the next start touches the data. Other systems have only the latter.
//! - **A crashed child is started again** with its data, after 0.2 s, then twice as long each time up to 5 s, for as long as it takes.
//!   The first start is different: it fails, with the end of the child's log.
//! - **No half-made cluster.** initdb works on `postgres.init/`, renamed when complete; what a kill leaves there is removed.
//!
//! # What the children may write down
//! Postgres' log would quote failing statements and the values of violated keys, which are customers' words: both are turned off.

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;

mod command;
mod error;
mod folder;
mod logfile;
pub(crate) mod os;
mod postgres;
mod status;
mod supervisor;
mod valkey;

pub use command::{EnginesCommand, run_engines_command};
pub use error::EnginesError;
pub use folder::{Endpoints, running_endpoints};
pub use status::{EngineStatus, EnginesStatus};

use folder::Folder;
use supervisor::Supervised;

/// Where the engines' programs and data are, and how hard they try not to lose a commit.
#[derive(Debug, Clone)]
pub struct EnginesConfig {
    /// Folder with `bin/postgres`, `bin/initdb` and `bin/valkey-server` (links are followed). `cargo xtask fetch` makes one.
    pub binaries_dir: PathBuf,
    /// The private folder; created when missing. See the module's page for what is in it.
    pub data_dir: PathBuf,
    /// What a power failure may take.
    pub durability: Durability,
}

/// What a power failure may take. A killed process loses nothing that was acknowledged in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Postgres: every commit is on disk when it returns. Valkey: at most the last second of the append-only file.
    Durable,
    /// No fsync at all. For tests: a power failure may leave an unreadable folder.
    Fast,
}

/// Which engines to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Which {
    Postgres,
    Valkey,
    #[default]
    Both,
}

impl Which {
    fn postgres(self) -> bool {
        matches!(self, Which::Postgres | Which::Both)
    }

    fn valkey(self) -> bool {
        matches!(self, Which::Valkey | Which::Both)
    }
}

/// The running engines. Dropping it stops them, which blocks the calling thread until they are gone (tens of milliseconds as a
/// rule, 20 s at most); prefer [`Engines::shutdown`] inside a runtime.
#[derive(Debug)]
pub struct Engines {
    // The order matters when this is dropped: the children first, the folder (and with it the lock) last.
    postgres: Option<Supervised>,
    valkey: Option<Supervised>,
    endpoints: Endpoints,
    folder: Arc<Folder>,
}

impl Engines {
    /// Starts the chosen engines and returns when each has answered. The first start of a folder makes the Postgres cluster and
    /// takes a few seconds; later ones take about 0.1 s. The database `frontdesk` exists afterwards; its schema is the migrations'
    /// affair.
    ///
    /// # Errors
    /// See [`EnginesError`]: each names what to do. Nothing keeps running when this fails.
    pub async fn start(config: EnginesConfig, which: Which) -> Result<Engines, EnginesError> {
        let EnginesConfig { binaries_dir, data_dir, durability } = config;
        let (folder, postgres_spec, valkey_spec) = blocking(move || {
            let folder = Arc::new(Folder::open(&data_dir)?);
            let postgres = which.postgres().then(|| postgres::spec(&binaries_dir, &folder, durability)).transpose()?;
            let valkey = which.valkey().then(|| valkey::spec(&binaries_dir, &folder, durability)).transpose()?;
            Ok((folder, postgres, valkey))
        })
        .await?;

        // Both start at the same time; each is awaited after both were told to begin.
        let mut endpoints = Endpoints::default();
        let postgres = match postgres_spec {
            Some((spec, access)) => Some((Supervised::spawn(spec, Arc::clone(&folder))?, access)),
            None => None,
        };
        let valkey = match valkey_spec {
            Some((spec, url)) => Some((Supervised::spawn(spec, Arc::clone(&folder))?, url)),
            None => None,
        };
        let postgres = match postgres {
            Some(((child, ready), access)) => {
                supervisor::wait_until_ready(postgres::NAME, ready).await?;
                postgres::create_database(&access).await?;
                endpoints.database_url = Some(access.url(postgres::DATABASE));
                Some(child)
            }
            None => None,
        };
        let valkey = match valkey {
            Some(((child, ready), url)) => {
                supervisor::wait_until_ready(valkey::NAME, ready).await?;
                endpoints.redis_url = Some(url);
                Some(child)
            }
            None => None,
        };

        let written = (Arc::clone(&folder), endpoints.clone());
        blocking(move || written.0.write_endpoints(&written.1)).await?;
        Ok(Engines { postgres, valkey, endpoints, folder })
    }

    /// `postgres://` URL of the database `frontdesk`, for sqlx; `None` when Postgres was not asked for. It stays the same for the
    /// life of the handle, also when the child is restarted.
    pub fn database_url(&self) -> Option<SecretString> {
        self.endpoints.database_url.clone()
    }

    /// `redis+unix://` URL, for the redis crate; `None` when Valkey was not asked for.
    pub fn redis_url(&self) -> Option<SecretString> {
        self.endpoints.redis_url.clone()
    }

    /// Both URLs in one value.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// What `/readyz` and the metrics show: process ids, restarts, since when each is up, the last failure.
    pub fn status(&self) -> EnginesStatus {
        EnginesStatus {
            postgres: self.postgres.as_ref().map(Supervised::status),
            valkey: self.valkey.as_ref().map(Supervised::status),
        }
    }

    /// Stops the engines in order and returns when they are gone. Close pools before: Postgres cuts off whoever is still connected.
    pub async fn shutdown(self) {
        // A join error means that the runtime is going away; dropping `self` there stops the children all the same.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        self.folder.remove_endpoints();
        // Tell both before waiting for either.
        for child in [&mut self.postgres, &mut self.valkey].into_iter().flatten() {
            child.ask_to_stop();
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EnginesError> + Send + 'static,
) -> Result<T, EnginesError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(EnginesError::Interrupted),
    }
}
