//! What a measure stands on: a database and a stream of its own, and hosts started on them in this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use frontdesk_server::app::{App, Roles, Server};
use frontdesk_server::knowledge::{ExtractionSettings, Extractor};
use frontdesk_server::secrets::Secrets;
use frontdesk_server::settings::{PageSettings, Settings};
use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub const PAGE: &str = "106000000000001";
pub const APP_ID: &str = "1234567890";
pub const APP_SECRET: &str = "an app secret of the benchmark";
const PAGE_TOKEN: &str = "a page token of the benchmark";
const ADMIN_TOKEN: &str = "an admin token of the benchmark";
const VERIFY_TOKEN: &str = "a verify token of the benchmark";

/// Longest wait for the policies of a host that starts.
const POLICIES_MAX: Duration = Duration::from_secs(120);

/// A database of its own on the server that `DATABASE_URL` names; it goes when this is dropped.
#[derive(Debug)]
pub struct Ground {
    pub pool: PgPool,
    pub url: String,
    /// Prefix of this measure's keys in Redis.
    pub namespace: String,
    redis_url: String,
    name: String,
    admin: PgConnectOptions,
}

impl Ground {
    pub async fn new() -> Result<Self> {
        let url = variable("DATABASE_URL")?;
        let redis_url = variable("REDIS_URL")?;
        let admin: PgConnectOptions = url.parse().context("DATABASE_URL is not a Postgres address")?;
        let name = format!("frontdesk_bench_{}", Uuid::now_v7().simple());
        let mut connection =
            PgConnection::connect_with(&admin).await.context("DATABASE_URL names no server that answers")?;
        sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(&mut connection).await?;
        connection.close().await?;
        let url = with_database(&url, &name);
        let pool = PgPoolOptions::new().max_connections(4).connect_with(admin.clone().database(&name)).await?;
        frontdesk_server::db::MIGRATOR.run(&pool).await?;
        Ok(Self { pool, url, namespace: name.clone(), redis_url, name, admin })
    }

    /// Options of a connection to this database.
    pub fn options(&self) -> PgConnectOptions {
        self.admin.clone().database(&self.name)
    }

    /// The shipped settings, with this ground under them. Times and limits stay as a user gets them.
    pub fn settings(&self, graph: &str, policies: &Path) -> Result<Settings> {
        let mut settings = Settings::load(None)?;
        settings.server.listen = "127.0.0.1:0".to_owned();
        settings.graph.base_url = graph.to_owned();
        settings.graph.app_id = APP_ID.to_owned();
        settings.queue.namespace.clone_from(&self.namespace);
        settings.policies.dir = policies.to_owned();
        settings.engines.data_dir = self.data_dir();
        // Beside this program: it is no Frontdesk that could be asked to read a file.
        settings.extraction.program = std::env::current_exe()?.with_file_name("frontdesk");
        // The stub knows the Send API alone, and nothing of what is measured asks about tokens.
        settings.page_health.every_s = 86_400;
        settings.pages = vec![PageSettings {
            id: PAGE.to_owned(),
            name: "Alpenrad".to_owned(),
            chain: "default".to_owned(),
            time_zone: "Europe/Vienna".to_owned(),
            language: "en".to_owned(),
            token_file: None,
            token_env: None,
            public_contacts: Vec::new(),
        }];
        Ok(settings)
    }

    /// A folder of its own, so that nothing compiled by an earlier run is found.
    fn data_dir(&self) -> PathBuf {
        std::env::temp_dir().join(&self.name)
    }

    fn secrets(&self) -> Secrets {
        Secrets {
            app_secrets: vec![SecretString::from(APP_SECRET)],
            verify_token: SecretString::from(VERIFY_TOKEN),
            admin_token: SecretString::from(ADMIN_TOKEN),
            page_tokens: [(PAGE.to_owned(), SecretString::from(PAGE_TOKEN))].into(),
            ticket_webhook: None,
            reveal_token: None,
            s3: None,
            keys: Some(SecretString::from("bench-1:dGhpcnR5LXR3byBieXRlcyBmb3IgdGhlIHRlc3RzISE=")),
            database_url: Some(SecretString::from(self.url.clone())),
            redis_url: Some(SecretString::from(self.redis_url.clone())),
        }
    }

    /// Starts a host in this process.
    pub async fn start(&self, settings: Settings, roles: Roles) -> Result<Host> {
        let server = Server::build(settings, self.secrets(), roles).await?;
        let (app, address, stop) = (Arc::clone(&server.app), server.address, server.stopper());
        let host = Host { app, address, stop, task: tokio::spawn(server.run_until_stopped()) };
        // Compiling policies takes a core for seconds, which is no part of what is measured.
        let began = Instant::now();
        while host.app.policies.current("default").is_none() {
            if host.task.is_finished() {
                host.stop().await?;
                anyhow::bail!("the host stopped at its start");
            }
            anyhow::ensure!(began.elapsed() < POLICIES_MAX, "no revision serves {POLICIES_MAX:?} after the start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(host)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        let (redis_url, stream) = (self.redis_url.clone(), format!("{}:wakeups", self.namespace));
        // A thread of its own: the runtime around may be on its way down.
        let dropping = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                if let Ok(mut connection) = PgConnection::connect_with(&admin).await {
                    let statement = format!("drop database if exists {name} with (force)");
                    let _ = sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await;
                }
                let _: redis::RedisResult<()> = async {
                    let mut connection = redis::Client::open(redis_url)?.get_multiplexed_async_connection().await?;
                    redis::cmd("DEL").arg(stream).query_async(&mut connection).await
                }
                .await;
            });
        });
        let _ = dropping.join();
        let _ = std::fs::remove_dir_all(self.data_dir());
    }
}

/// A running host.
#[derive(Debug)]
pub struct Host {
    pub app: Arc<App>,
    pub address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Host {
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.task.await?
    }
}

/// Reads a page of a few words, so that a build whose reader does not work under its limits is seen whatever is measured.
pub async fn probe_reader() -> Result<()> {
    let program = std::env::current_exe()?.with_file_name("frontdesk");
    anyhow::ensure!(program.is_file(), "{} is missing: build it beside the benchmark", program.display());
    let extractor = Extractor::new(ExtractionSettings { program, ..ExtractionSettings::default() });
    extractor.probe().await.context("this build of frontdesk cannot read files")
}

/// The chains that the repository ships.
pub fn policies() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies").canonicalize()?;
    let component = folder.join("components/classify-rules.wasm");
    anyhow::ensure!(component.is_file(), "{} is missing: run `cargo xtask components`", component.display());
    Ok(folder)
}

pub fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run `cargo xtask bench`, which provides it"))
}

/// The same server address with another database.
fn with_database(url: &str, name: &str) -> String {
    let (address, query) = url.split_once('?').map_or((url, None), |(address, query)| (address, Some(query)));
    let start = address.find("://").map_or(0, |at| at + 3);
    let server = match address.get(start..).and_then(|rest| rest.find('/')) {
        Some(at) => address.get(..start + at).unwrap_or(address),
        None => address,
    };
    match query {
        Some(query) => format!("{server}/{name}?{query}"),
        None => format!("{server}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_database() {
        assert_eq!(with_database("postgres://u:p@h:5/postgres?a=b", "x"), "postgres://u:p@h:5/x?a=b");
        assert_eq!(with_database("postgres://u@h", "x"), "postgres://u@h/x");
    }
}
