//! How many deliveries a second are answered with 200 after a durable commit, and what a bare server, bare SQL and a
//! FastAPI service do with the same deliveries.
//!
//! All contenders get the same generator, the same number of connections to Postgres and the same table, emptied between
//! them. After each run the table is compared with the acknowledgements: what was acknowledged and is not in it is lost.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use frontdesk_messenger::event::message_key;
use frontdesk_messenger::{Channel, signature};
use frontdesk_server::app::Roles;
use secrecy::SecretString;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::generator::{self, Outcome, Plan};
use crate::ground::{self, APP_SECRET, Ground, PAGE};
use crate::machine::{Cores, CoresUsed};
use crate::peer::{self, Peer, Python};
use crate::table::{Aim, Figure, Findings, Row, Times};

const MEASURE: &str = "ack";
/// Messages in one delivery: what Meta mostly sends, and what it sends under load.
const BATCHES: [usize; 2] = [1, 10];
const WARM_UP: Duration = Duration::from_secs(1);
/// Tasks of the concurrent floor.
const SQL_TASKS: usize = 64;
/// Nothing listens there: acknowledgement never calls Meta.
const NO_GRAPH: &str = "http://127.0.0.1:9";

/// One contender's run.
struct Run {
    outcome: Outcome,
    cores: CoresUsed,
}

pub async fn measure(options: &Options) -> Result<Findings> {
    let ground = Ground::new().await?;
    let python = Python::find(options.peer_python.as_deref())?;
    let mut findings = Findings::default();
    if python.is_none() {
        findings.notes.push(format!("FastAPI + SQLAlchemy was not measured; install it with: {}", peer::INSTALL));
    }
    for events in BATCHES {
        let bare = bare_server(options, events).await?;
        let ours = frontdesk(options, &ground, events, &mut findings).await?;
        let peer = match &python {
            Some(python) => fastapi(options, &ground, python, events, &mut findings).await.map_err(|error| {
                findings.failures.push(format!("FastAPI could not be measured: {error:#}"));
            }),
            None => Err(()),
        };
        report(options, events, &ours, &bare, peer.as_ref().ok().zip(python.as_ref()), &mut findings);
    }
    sql(options, &ground, &mut findings).await?;
    Ok(findings)
}

fn report(
    options: &Options,
    events: usize,
    ours: &Run,
    bare: &Run,
    peer: Option<(&Run, &Python)>,
    findings: &mut Findings,
) {
    let messages = if events == 1 { "1 message".to_owned() } else { format!("{events} messages") };
    let deliveries = format!("{messages} per delivery on {} connections", options.connections);
    let figure = |run: &Run| Figure::PerSecond(run.outcome.acks_per_second());
    let mut against = |name: &str, run: &Run, ratio: f64| {
        let row = Row::new(MEASURE, format!("{deliveries}: durable acks"), figure(ours)).against(name, figure(run));
        // The aims are for what Meta mostly sends; in larger deliveries the rows weigh more than the acknowledgement.
        findings.rows.push(if events == 1 { row.aim(Aim::RatioAtLeast(ratio)) } else { row });
    };
    against("bare axum, signature and 200", bare, 1.0 / 3.0);
    let mut lines = vec![("Frontdesk", ours), ("bare axum", bare)];
    if let Some((peer, python)) = peer {
        against(&python.versions, peer, 20.0);
        lines.push(("FastAPI", peer));
    }
    for (name, run) in lines.iter().take(1).chain(lines.iter().skip(2)) {
        let times = &run.outcome.times;
        for (share, label) in [(0.5, "median"), (0.99, "p99")] {
            let what = format!("{deliveries}: {name}, {label} to the 200");
            findings.rows.push(Row::new(MEASURE, what, Figure::Millis(times.quantile_us(share) / 1_000.0)));
        }
    }
    for (name, run) in lines {
        findings.notes.push(format!(
            "{deliveries}, {name}: {} acks, cores busy {:.2} of the machine, {:.2} of them the load generator, {:.2} this \
             process without it; refused {:?}",
            run.outcome.acked.len(),
            run.cores.machine,
            run.outcome.generator_cores,
            (run.cores.process - run.outcome.generator_cores).max(0.0),
            run.outcome.refused,
        ));
    }
}

async fn frontdesk(options: &Options, ground: &Ground, events: usize, findings: &mut Findings) -> Result<Run> {
    empty_inbox(&ground.pool).await?;
    let settings = ground.settings(NO_GRAPH, &ground::policies()?)?;
    let host = ground.start(settings, Roles { serve: true, work: false }).await?;
    let run = load(options, host.address, events, Some((&ground.pool, "Frontdesk", findings))).await;
    host.stop().await?;
    run
}

async fn fastapi(
    options: &Options,
    ground: &Ground,
    python: &Python,
    events: usize,
    findings: &mut Findings,
) -> Result<Run> {
    empty_inbox(&ground.pool).await?;
    let connections = ground.settings(NO_GRAPH, &ground::policies()?)?.database.connections_max;
    let peer = Peer::start(python, ground, connections).await?;
    let run = load(options, peer.address, events, Some((&ground.pool, "FastAPI", findings))).await;
    findings.notes.push(format!("FastAPI ran with {} worker processes", peer.workers));
    tokio::task::spawn_blocking(move || drop(peer)).await?;
    run
}

/// The server that does nothing but check the signature.
async fn bare_server(options: &Options, events: usize) -> Result<Run> {
    let secrets = Arc::new(vec![SecretString::from(APP_SECRET)]);
    let router = Router::new().route("/meta/webhook", post(check)).with_state(secrets);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let server = tokio::spawn(async move {
        axum::serve(listener, router).with_graceful_shutdown(async move { stopped.cancelled().await }).await
    });
    let run = load(options, address, events, None).await;
    stop.cancel();
    server.await??;
    run
}

async fn check(
    State(secrets): State<Arc<Vec<SecretString>>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    match signature::verify_headers(&headers, &secrets, &body) {
        Ok(_) => (StatusCode::OK, "EVENT_RECEIVED"),
        Err(_) => (StatusCode::FORBIDDEN, "refused"),
    }
}

/// Warms a server up, loads it, and compares its table with its acknowledgements if it has one.
async fn load(
    options: &Options,
    address: SocketAddr,
    events: usize,
    table: Option<(&PgPool, &str, &mut Findings)>,
) -> Result<Run> {
    let plan = |run: &str, duration| Plan {
        address,
        connections: options.connections.into(),
        duration,
        events,
        run: run.to_owned(),
        page: PAGE.to_owned(),
        secret: SecretString::from(APP_SECRET),
        rate: None,
        first_ms: 1_767_000_000_000,
    };
    let warm_up = plan("warm", WARM_UP);
    tokio::task::spawn_blocking(move || generator::run(&warm_up)).await??;
    let main = plan("main", options.duration());
    let cores = Cores::watch();
    let outcome = tokio::task::spawn_blocking(move || generator::run(&main)).await??;
    let run = Run { outcome, cores: cores.used() };
    if let Some((pool, name, findings)) = table {
        let lost = lost(pool, &run.outcome.acked, events).await?;
        if lost > 0 {
            findings.failures.push(format!("{name}: {lost} messages were acknowledged and are not in the database"));
        }
        findings.rows.push(Row::new(
            MEASURE,
            format!("{name}: acknowledged and lost, of {} messages", run.outcome.acked.len() * events),
            Figure::Count(lost),
        ));
    }
    Ok(run)
}

/// Messages of acknowledged deliveries that are not in the table. What is in it without an acknowledgement is none: its
/// sender repeats it and the repetition is recognised.
async fn lost(pool: &PgPool, acked: &[u64], events: usize) -> Result<u64> {
    let stored: Vec<(i64, i64)> = sqlx::query_as(
        "select split_part(mid, '.', 2)::bigint, count(*) from inbox where mid like 'm\\_main.%' group by 1",
    )
    .fetch_all(pool)
    .await?;
    let stored: HashMap<u64, u64> =
        stored.into_iter().map(|(number, count)| (number.unsigned_abs(), count.unsigned_abs())).collect();
    let expected = u64::try_from(events)?;
    Ok(acked.iter().map(|number| expected.saturating_sub(stored.get(number).copied().unwrap_or(0))).sum())
}

async fn empty_inbox(pool: &PgPool) -> Result<()> {
    sqlx::query("truncate inbox").execute(pool).await?;
    sqlx::query("checkpoint").execute(pool).await.context("the benchmark's user must be a superuser")?;
    Ok(())
}

/// What the database alone does: one row per commit, with as many connections as the host has.
async fn sql(options: &Options, ground: &Ground, findings: &mut Findings) -> Result<()> {
    let settings = ground.settings(NO_GRAPH, &ground::policies()?)?;
    let connections = settings.database.connections_max;
    let pool = PgPoolOptions::new().max_connections(connections).connect_with(ground.options()).await?;
    for tasks in [1, SQL_TASKS] {
        empty_inbox(&ground.pool).await?;
        let (per_second, times) = insert_rows(options, &pool, tasks).await?;
        let what = if tasks == 1 {
            "bare SQL: one row per commit, one after another".to_owned()
        } else {
            format!("bare SQL: one row per commit, {tasks} at once on {connections} connections")
        };
        findings.rows.push(Row::new(MEASURE, what, Figure::PerSecond(per_second)));
        findings.notes.push(format!("bare SQL, {tasks} at once: median {}, p99 {}", times.median_ms(), times.p99_ms()));
    }
    pool.close().await;
    Ok(())
}

async fn insert_rows(options: &Options, pool: &PgPool, tasks: usize) -> Result<(f64, Times)> {
    let (next, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let began = Instant::now();
    let running = (0..tasks).map(|_| {
        let (pool, next, stop) = (pool.clone(), Arc::clone(&next), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut micros = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let started = Instant::now();
                insert_row(&pool, number).await?;
                micros.push(started.elapsed().as_secs_f64() * 1e6);
            }
            Ok::<_, sqlx::Error>(micros)
        })
    });
    let running: Vec<_> = running.collect();
    tokio::time::sleep(options.duration() / 2).await;
    stop.store(true, Ordering::Relaxed);
    let mut micros = Vec::new();
    for task in running {
        micros.extend(task.await??);
    }
    let elapsed = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
    let per_second = micros.len() as f64 / elapsed;
    Ok((per_second, Times::new(micros)))
}

async fn insert_row(pool: &PgPool, number: u64) -> sqlx::Result<()> {
    let mid = generator::mid("sql", number, 0);
    sqlx::query(
        "insert into inbox (page_id, psid, channel, kind, dedupe_key, mid, is_takeover, event_at, payload)
         values ($1, $2, 'messaging', 'message', $3, $4, false, $5, $6) on conflict (dedupe_key) do nothing",
    )
    .bind(PAGE)
    .bind((7_000_000_000_000_000 + number % 5_000).to_string())
    .bind(message_key(PAGE, Channel::Messaging, &mid))
    .bind(&mid)
    .bind(chrono::DateTime::from_timestamp_millis(1_767_000_000_000))
    .bind(serde_json::json!({ "message": { "mid": mid, "text": "Do you ship to Austria, and how long does a parcel take?" } }))
    .execute(pool)
    .await?;
    Ok(())
}
