//! All SQL of the host, one file per table (or family of tables). No other module writes a query.
//!
//! Everything is an ordinary statement on Postgres, prepared and cached by sqlx. The integration tests run every one
//! of them on a real server.

pub mod audit;
pub mod conversations;
pub mod decisions;
pub mod inbox;
pub mod knowledge;
pub mod messages;
pub mod outbox;
pub mod pages;
pub mod replicas;
pub mod revisions;
pub mod rollouts;
pub mod tickets;

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

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

/// A pool beside the main one, for those who must not wait for it. The schema is up to date already.
pub async fn connect_more(url: &SecretString, connections_max: usize) -> Result<PgPool, ConnectError> {
    let options: PgConnectOptions = url.expose_secret().parse().map_err(|source| ConnectError::Url { source })?;
    PgPoolOptions::new()
        .max_connections(u32::try_from(connections_max).unwrap_or(u32::MAX))
        .acquire_timeout(Duration::from_secs(5))
        .connect_with(options.application_name("frontdesk-inbox"))
        .await
        .map_err(|source| ConnectError::Unreachable { source })
}

/// Connects and brings the schema up to date. Safe to run from many replicas at once: sqlx takes an advisory lock.
pub async fn connect(url: &SecretString, connections_max: u32) -> Result<PgPool, ConnectError> {
    let options: PgConnectOptions = url.expose_secret().parse().map_err(|source| ConnectError::Url { source })?;
    let pool = PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(Duration::from_secs(5))
        .connect_with(options.application_name("frontdesk"))
        .await
        .map_err(|source| ConnectError::Unreachable { source })?;
    MIGRATOR.run(&pool).await.map_err(|source| match source {
        sqlx::migrate::MigrateError::VersionMismatch(version)
        | sqlx::migrate::MigrateError::VersionMissing(version) => ConnectError::OtherSchema { version },
        source => ConnectError::Migrate { source },
    })?;
    Ok(pool)
}
