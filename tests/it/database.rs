//! A database for every test: cloned from a template that holds the schema, dropped when the test ends.
//!
//! The template's name holds a hash of the migrations, so a changed migration makes a new template and never meets an
//! old one. It is built under another name and renamed when complete: whoever sees it sees it whole.

use std::time::{Duration, SystemTime};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// Key of the advisory lock under which the template is built.
const TEMPLATE_LOCK: i64 = 0x6674_6573_7401;
/// A test database older than this was left by a killed run.
const STALE_AFTER: Duration = Duration::from_secs(3_600);
/// How long the end of a test waits for its database to go.
const DROP_WAIT: Duration = Duration::from_millis(500);

/// A test's own database. Dropping it drops the database.
#[derive(Debug)]
pub struct TestDb {
    pub pool: PgPool,
    pub url: String,
    name: String,
    admin: PgConnectOptions,
}

/// Makes a database with the current schema on the server that `DATABASE_URL` names (as a superuser).
///
/// # Panics
/// When `DATABASE_URL` is not set or the server refuses: a test cannot go on without its database.
pub async fn fresh_database() -> TestDb {
    let url = std::env::var("DATABASE_URL")
        .expect("DATABASE_URL must name a Postgres server for the tests (cargo xtask test sets it)");
    let admin: PgConnectOptions = url.parse().expect("DATABASE_URL must be a Postgres address");
    let mut connection = connect(&admin).await;
    let template = ensure_template(&mut connection, &admin).await;
    // A version 7 id holds its time, by which a later run knows a stale database.
    let name = format!("t_{}", Uuid::now_v7().simple());
    run(&mut connection, format!("create database {name} template {template}")).await;
    connection.close().await.expect("closing the administrative connection");
    let options = admin.clone().database(&name);
    let pool =
        PgPoolOptions::new().max_connections(8).connect_with(options).await.expect("connecting to the test database");
    TestDb { pool, url: with_database(&url, &name), name, admin }
}

async fn connect(options: &PgConnectOptions) -> PgConnection {
    PgConnection::connect_with(options).await.expect("connecting to the server that DATABASE_URL names")
}

async fn run(connection: &mut PgConnection, statement: String) {
    let shown = statement.clone();
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await.unwrap_or_else(|error| panic!("{shown}: {error}"));
}

async fn ensure_template(connection: &mut PgConnection, admin: &PgConnectOptions) -> String {
    let name = template_name();
    if exists(connection, &name).await {
        return name;
    }
    sqlx::query("select pg_advisory_lock($1)").bind(TEMPLATE_LOCK).execute(&mut *connection).await.expect("locking");
    if !exists(connection, &name).await {
        drop_stale(connection).await;
        let unfinished = format!("{name}_new");
        run(connection, format!("drop database if exists {unfinished} with (force)")).await;
        run(connection, format!("create database {unfinished}")).await;
        let mut inside = connect(&admin.clone().database(&unfinished)).await;
        MIGRATOR.run(&mut inside).await.expect("migrating the template");
        inside.close().await.expect("closing the template");
        run(connection, format!("alter database {unfinished} rename to {name}")).await;
    }
    sqlx::query("select pg_advisory_unlock($1)").bind(TEMPLATE_LOCK).execute(connection).await.expect("unlocking");
    name
}

fn template_name() -> String {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    MIGRATOR.iter().for_each(|migration| hasher.update(&migration.checksum));
    format!("frontdesk_template_{}", hex::encode(&hasher.finalize()[..8]))
}

async fn exists(connection: &mut PgConnection, name: &str) -> bool {
    let found = sqlx::query_scalar("select exists (select from pg_database where datname = $1)");
    found.bind(name).fetch_one(connection).await.expect("reading pg_database")
}

/// Drops test databases that a killed run left behind. One that another run is using is younger, and stays.
async fn drop_stale(connection: &mut PgConnection) {
    let names: Vec<String> = sqlx::query_scalar("select datname from pg_database where datname like 't\\_%'")
        .fetch_all(&mut *connection)
        .await
        .expect("reading pg_database");
    for name in names {
        let made = name.strip_prefix("t_").and_then(|id| Uuid::try_parse(id).ok()).and_then(|id| id.get_timestamp());
        let Some((seconds, _)) = made.map(|made| made.to_unix()) else { continue };
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        if age.is_ok_and(|age| age > STALE_AFTER) {
            run(connection, format!("drop database if exists {name} with (force)")).await;
        }
    }
}

/// The same server address with another database.
fn with_database(url: &str, name: &str) -> String {
    let (address, query) = url.split_once('?').map_or((url, None), |(address, query)| (address, Some(query)));
    let start = address.find("://").map_or(0, |at| at + 3);
    let server = address[start..].find('/').map_or(address, |at| &address[..start + at]);
    match query {
        Some(query) => format!("{server}/{name}?{query}"),
        None => format!("{server}/{name}"),
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        // A thread of its own: the test's runtime may be on its way down, and may have one thread only.
        let (done, dropped) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                let Ok(mut connection) = PgConnection::connect_with(&admin).await else { return };
                let statement = format!("drop database if exists {name} with (force)");
                // What cannot be dropped now is dropped as stale by a later run.
                let _ = sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await;
            });
            let _ = done.send(());
        });
        // Not longer: Postgres waits for connections of this test that are still being made, and they only end when the
        // test's runtime goes on from here.
        let _ = dropped.recv_timeout(DROP_WAIT);
    }
}

#[test]
fn an_address_gets_its_database() {
    assert_eq!(
        with_database("postgres://u:p@h:5/postgres?sslmode=disable", "t"),
        "postgres://u:p@h:5/t?sslmode=disable"
    );
    assert_eq!(with_database("postgres://u@h", "t"), "postgres://u@h/t");
}
