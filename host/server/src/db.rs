//! All SQL of the host, one file per table (or family of tables). No other module writes a query.
//!
//! Everything is an ordinary statement on Postgres, prepared and cached by sqlx. The integration tests run every one
//! of them on a real server.
//!
//! # A server that falls silent
//! A connection whose other end vanished without a word (a firewall that forgot it, a host that lost power) looks like one that
//! takes long, for a quarter of an hour or for ever. So:
//! - whoever would wait in a loop waits [`in_time`], and what it waited with is dropped;
//! - a connection is tested for at most [`TEST_MAX`] when it comes back to its pool, and again when it has lain there for a
//!   while, and thrown away when it does not answer. Dropping work in the middle of a statement is therefore safe;
//! - the server in turn ends sessions of ours that hold a transaction open and do nothing, so that a frozen process does not
//!   keep a conversation locked.

pub mod audit;
pub mod conversations;
pub mod decisions;
pub mod documents;
pub mod embedding_models;
pub mod erasures;
pub mod golden;
pub mod inbox;
pub mod jobs;
pub mod keys;
pub mod knowledge;
pub mod learning;
pub mod leases;
pub mod lent;
pub mod messages;
pub mod objects;
pub mod outbox;
pub mod page_health;
pub mod page_tokens;
pub mod pages;
pub mod provenance;
pub mod replicas;
pub mod revisions;
pub mod rollouts;
pub mod shadow;
pub mod spending;
pub mod staging;
pub mod tickets;
pub mod turn_windows;
pub mod turns;
pub mod words;

use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, PgConnection};

/// The schema's history; expand first, contract in a later release.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("DATABASE_URL is not a Postgres address (postgres://user:password@host/database): {source}")]
    Url {
        #[source]
        source: sqlx::Error,
    },
    #[error("the database cannot be reached: {source}; check that Postgres runs and that DATABASE_URL is right")]
    Unreachable {
        #[source]
        source: sqlx::Error,
    },
    #[error(
        "the database was set up by another build of Frontdesk: its migration {version} differs from this one's; use \
         the build that made it, or an empty database"
    )]
    OtherSchema { version: i64 },
    #[error("the schema cannot be brought up to date: {source}; Postgres needs the extension pgvector 0.8 or newer")]
    Migrate {
        #[source]
        source: sqlx::migrate::MigrateError,
    },
}

/// Longest wait for a short statement or transaction, with the time to get a connection for it.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long the first connection is waited for: the server may be starting, or its machine busy.
const FIRST_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a sign of life of a connection.
const TEST_MAX: Duration = Duration::from_secs(2);
/// A connection that was tested so lately is taken without another test.
const FRESH: Duration = Duration::from_millis(100);
/// What each session asks of the server: an end to transactions that do nothing, and to clients that vanished. No compiling of
/// plans, which takes longer than any statement of the host. And one plan for each statement, by an index where there is one: the
/// host's statements are made for that, planning one anew takes longer than most of them, and a plan that was made while a table
/// was empty, or its statistics old, must not read it whole later.
const SESSION: &str = "select set_config('idle_in_transaction_session_timeout', '15s', false), \
    set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false), \
    set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '30s', false), \
    set_config('jit', 'off', false), set_config('plan_cache_mode', 'force_generic_plan', false), \
    set_config('enable_seqscan', 'off', false)";

/// Gives up after [`ANSWER_MAX`]: then nobody knows whether the work was done, as with a connection that breaks.
pub async fn in_time<T>(work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    tokio::time::timeout(ANSWER_MAX, work).await.unwrap_or_else(|_| Err(silent(ANSWER_MAX)))
}

/// The error of a server that did not answer for so long.
pub fn silent(waited: Duration) -> sqlx::Error {
    let text = format!("the database gave no answer within {} ms", waited.as_millis());
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}

/// Whether a connection answers within [`TEST_MAX`].
pub async fn test(connection: &mut PgConnection) -> sqlx::Result<bool> {
    match tokio::time::timeout(TEST_MAX, connection.ping()).await {
        Ok(answered) => answered.map(|()| true),
        // An error, not `false`: a silent server does not take a polite farewell either.
        Err(_) => Err(silent(TEST_MAX)),
    }
}

async fn pool(url: &SecretString, connections_max: u32, name: &str) -> Result<PgPool, ConnectError> {
    let options: PgConnectOptions = url.expose_secret().parse().map_err(|source| ConnectError::Url { source })?;
    let pool = PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(Duration::from_secs(5))
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move { if meta.idle_for < FRESH { Ok(true) } else { test(connection).await } })
        })
        .after_release(|connection, _| Box::pin(test(connection)))
        .after_connect(|connection, _| {
            Box::pin(async move { sqlx::query(SESSION).execute(connection).await.map(drop) })
        })
        .connect_lazy_with(options.application_name(name));
    let begin = Instant::now();
    loop {
        match pool.acquire().await {
            Ok(_) => return Ok(pool),
            Err(sqlx::Error::PoolTimedOut) if begin.elapsed() < FIRST_MAX => {
                tracing::warn!(waited_s = begin.elapsed().as_secs(), "the database does not answer yet");
            }
            Err(source) => return Err(ConnectError::Unreachable { source }),
        }
    }
}

/// A pool beside the main one, for those who must not wait for it. The schema is up to date already.
pub async fn connect_more(url: &SecretString, connections_max: usize) -> Result<PgPool, ConnectError> {
    pool(url, u32::try_from(connections_max).unwrap_or(u32::MAX), "frontdesk-inbox").await
}

/// Connects and brings the schema up to date. Safe to run from many replicas at once: sqlx takes an advisory lock.
pub async fn connect(url: &SecretString, connections_max: u32) -> Result<PgPool, ConnectError> {
    let pool = pool(url, connections_max, "frontdesk").await?;
    MIGRATOR.run(&pool).await.map_err(|source| match source {
        sqlx::migrate::MigrateError::VersionMismatch(version)
        | sqlx::migrate::MigrateError::VersionMissing(version) => ConnectError::OtherSchema { version },
        source => ConnectError::Migrate { source },
    })?;
    Ok(pool)
}
