//! `frontdesk keys`: the keys under which the database's data keys and tokens are wrapped.

use clap::Subcommand;
use secrecy::ExposeSecret;
use sqlx::PgPool;

use super::{Config, Failure, Outcome, say};
use crate::db;
use crate::embedded::running_endpoints;
use crate::keys::{self, KeyRing, Keys};
use crate::secrets;
use crate::settings::Settings;

const CONNECTIONS: u32 = 2;

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Print a new key, as a line for FRONTDESK_KEYS. The first line there wraps; the others only unwrap.
    New,
    /// Wrap every data key and token under the first key of FRONTDESK_KEYS. May be stopped and repeated.
    Rotate {
        #[command(flatten)]
        config: Config,
    },
    /// Which keys are held, and how much each one wraps.
    Status {
        #[command(flatten)]
        config: Config,
    },
}

pub async fn run(command: KeysCommand) -> Outcome {
    match command {
        KeysCommand::New => {
            let line = KeyRing::new_line(chrono::Utc::now().date_naive()).map_err(Failure::failed)?;
            say(line.expose_secret())
        }
        KeysCommand::Rotate { config } => {
            let (keys, pool) = open(&config).await?;
            let current = keys.ring().current().to_owned();
            let done = keys::rotate(&keys, &pool, |done| tracing::info!(done, "wrapped again")).await;
            let done = done.map_err(Failure::failed)?;
            say(&format!("{done} values wrapped again; all are under {current}"))?;
            status(&keys, &pool).await
        }
        KeysCommand::Status { config } => {
            let (keys, pool) = open(&config).await?;
            status(&keys, &pool).await
        }
    }
}

async fn status(keys: &Keys, pool: &PgPool) -> Outcome {
    let held = keys.ring().ids();
    for (id, wraps) in db::keys::usage(pool).await.map_err(Failure::failed)? {
        let role = match held.iter().position(|held| *held == id) {
            Some(0) => "wraps",
            Some(_) => "unwraps",
            None if wraps == 0 => "gone",
            None => "missing",
        };
        say(&format!("{id}  {role:<7}  {wraps}"))?;
    }
    Ok(())
}

/// The keys and the database of the settings: one's own, or that of a host that runs here.
async fn open(config: &Config) -> Result<(Keys, PgPool), Failure> {
    let settings = config.load().map_err(Failure::usage)?;
    let ring = ring(&settings)?;
    let url = secrets::optional("DATABASE_URL", "the address of a Postgres database").map_err(Failure::usage)?;
    let url = match url {
        Some(url) => url,
        None => {
            let running = running_endpoints(&settings.engines.data_dir).map_err(Failure::failed)?;
            running.database_url.ok_or_else(|| Failure::failed("the running host supervises no database"))?
        }
    };
    let pool = db::connect(&url, CONNECTIONS).await.map_err(Failure::failed)?;
    let keys = Keys::open(ring, &pool).await.map_err(Failure::failed)?;
    Ok((keys, pool))
}

fn ring(settings: &Settings) -> Result<KeyRing, Failure> {
    let given =
        secrets::optional(secrets::KEYS, "lines as `frontdesk keys new` prints them").map_err(Failure::usage)?;
    keys::obtain(settings, given.as_ref()).map_err(Failure::usage)
}
