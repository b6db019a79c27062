//! From a saved settings file to the revision that serves, in a copy of the shipped policies: on an idle host, and while
//! customers write. The second shows, too, what customers notice of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use frontdesk_server::app::{App, Roles};
use sqlx::PgPool;

use crate::Options;
use crate::graph_stub::GraphStub;
use crate::ground::{self, Ground};
use crate::table::{Aim, Figure, Findings, Row, Times};
use crate::turn::{self, Crowd};

const MEASURE: &str = "swap";
const CHAIN: &str = "default";
const ROUNDS: usize = 20;
/// Swaps while customers write.
const LOADED_ROUNDS: usize = 200;
/// Pause after a swap while customers write: somebody who changes a setting, sees what it does, and changes it again.
const PAUSE: Duration = Duration::from_secs(1);
/// Everything that is counted in the log and the metrics of a swap, in order.
const STAGES: [&str; 6] = ["read", "settle", "stage", "gate", "store", "activate"];
const ROUND_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// The setting that changes.
const SETTING: &str = "other-language-factor = ";
const NO_GRAPH: &str = "http://127.0.0.1:9";

pub async fn measure(options: &Options) -> Result<Findings> {
    let copy = Copy::make()?;
    let ground = Ground::new().await?;
    let host = ground.start(ground.settings(NO_GRAPH, &copy.folder)?, Roles { serve: true, work: true }).await?;
    let rounds = if options.quick { ROUNDS / 4 } else { ROUNDS };
    let times = swaps(&host.app, &copy.folder.join(CHAIN).join("classify-rules.toml"), rounds, Duration::ZERO).await;
    host.stop().await?;
    let times = times?;
    let mut findings = Findings::default();
    findings.rows.push(
        Row::new(MEASURE, format!("settings file saved to active, median of {rounds}"), times.median_ms())
            .aim(Aim::AtMost(1_000.0)),
    );
    let slowest = Figure::Millis(times.quantile_us(1.0) / 1_000.0);
    findings.rows.push(Row::new(MEASURE, "settings file saved to active, slowest", slowest));
    loaded(options, &mut findings).await?;
    Ok(findings)
}

/// Swaps while customers write.
async fn loaded(options: &Options, findings: &mut Findings) -> Result<()> {
    let copy = Copy::make()?;
    let ground = Ground::new().await?;
    let graph = Arc::new(GraphStub::start().await?);
    let settings = ground.settings(&graph.base_url, &copy.folder)?;
    let host = ground.start(settings, Roles { serve: true, work: true }).await?;
    graph.echo_to(&host.app);
    let file = copy.folder.join(CHAIN).join("classify-rules.toml");
    let measured = swaps_under_load(options, &ground.pool, &host.app, &graph, &file, findings).await;
    host.stop().await?;
    measured
}

async fn swaps_under_load(
    options: &Options,
    pool: &PgPool,
    app: &Arc<App>,
    graph: &Arc<GraphStub>,
    file: &Path,
    findings: &mut Findings,
) -> Result<()> {
    let (crowd, _) = Crowd::gather(pool, app, graph).await?;
    let crowd = Arc::new(crowd);
    // The first second fills caches and pools.
    let turns_per_s = options.turns_per_s;
    arrivals(&crowd, turns_per_s, Until::Passed(Duration::from_secs(1))).await?;
    let quiet = arrivals(&crowd, turns_per_s, Until::Passed(options.duration())).await?;

    let rounds = if options.quick { LOADED_ROUNDS / 20 } else { LOADED_ROUNDS };
    let is_over = Arc::new(AtomicBool::new(false));
    let customers = tokio::spawn({
        let (crowd, is_over) = (Arc::clone(&crowd), Arc::clone(&is_over));
        async move { arrivals(&crowd, turns_per_s, Until::Set(is_over)).await }
    });
    let swapped = swaps(app, file, rounds, PAUSE).await;
    is_over.store(true, Ordering::Relaxed);
    let (swapped, busy) = (swapped?, customers.await??);

    let what = |when: &str, share: &str| format!("stored to Send API call at {turns_per_s} turns/s, {when}: {share}");
    findings.rows.push(Row::new(MEASURE, what("no swaps", "median"), quiet.median_ms()));
    findings.rows.push(Row::new(MEASURE, what("no swaps", "p99"), quiet.p99_ms()));
    findings.rows.push(
        Row::new(MEASURE, what(&format!("during {rounds} swaps"), "median"), busy.median_ms())
            .against("the same without swaps", quiet.median_ms()),
    );
    findings.rows.push(
        Row::new(MEASURE, what(&format!("during {rounds} swaps"), "p99"), busy.p99_ms())
            .against("the same without swaps", quiet.p99_ms())
            .aim(Aim::RatioAtMost(1.5)),
    );
    findings.rows.push(
        Row::new(MEASURE, format!("settings file saved to active under load, median of {rounds}"), swapped.median_ms())
            .aim(Aim::AtMost(1_000.0)),
    );
    findings.notes.push(format!(
        "{} turns without swaps, {} during {rounds} swaps; medians of the stages: {}",
        quiet.len(),
        busy.len(),
        stages(app)
    ));
    turn::check(pool, &crowd, findings).await?;
    answered_once(pool, findings).await
}

/// When customers stop to come.
enum Until {
    Passed(Duration),
    Set(Arc<AtomicBool>),
}

/// New customers at a steady pace, whether or not those before them have their answer.
async fn arrivals(crowd: &Arc<Crowd>, per_s: u32, until: Until) -> Result<Times> {
    let began = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / per_s);
    let mut waiting = tokio::task::JoinSet::new();
    let mut micros = Vec::new();
    let goes_on = || match &until {
        Until::Passed(duration) => began.elapsed() < *duration,
        Until::Set(is_over) => !is_over.load(Ordering::Relaxed),
    };
    while goes_on() {
        pace.tick().await;
        let crowd = Arc::clone(crowd);
        waiting.spawn(async move { crowd.ask_once().await });
        while let Some(asked) = waiting.try_join_next() {
            micros.push(asked??.as_secs_f64() * 1e6);
        }
    }
    while let Some(asked) = waiting.join_next().await {
        micros.push(asked??.as_secs_f64() * 1e6);
    }
    Ok(Times::new(micros))
}

/// Nobody who asked once was answered twice, and no message was decided twice.
async fn answered_once(pool: &PgPool, findings: &mut Findings) -> Result<()> {
    let twice: i64 = sqlx::query_scalar(
        "select (select count(*) from (select 1 from decisions cross join unnest(mids) mid group by mid having count(*) > 1) d)
              + (select count(*) from (select 1 from outbox group by conversation_id having count(distinct turn_id) > 1) o)",
    )
    .fetch_one(pool)
    .await?;
    if twice > 0 {
        findings.failures.push(format!("{twice} inquiries were decided or answered twice"));
    }
    let revisions: i64 = sqlx::query_scalar("select count(distinct revision) from decisions").fetch_one(pool).await?;
    findings.notes.push(format!("{revisions} revisions judged turns"));
    Ok(())
}

/// The medians of a swap's stages, as the host counts them.
fn stages(app: &App) -> String {
    let text = app.metrics.render();
    let median = |stage: &str| {
        let mut lines = text.lines().filter(|line| line.starts_with("frontdesk_policy_swap_seconds{"));
        let found =
            lines.find(|line| line.contains(&format!("stage=\"{stage}\"")) && line.contains("quantile=\"0.5\""))?;
        found.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let stage = |stage: &&str| match median(stage) {
        Some(seconds) => format!("{stage} {:.1} ms", seconds * 1_000.0),
        None => format!("{stage} unknown"),
    };
    STAGES.iter().map(stage).collect::<Vec<_>>().join(", ")
}

async fn swaps(app: &App, file: &Path, rounds: usize, pause: Duration) -> Result<Times> {
    let shipped = std::fs::read_to_string(file)?;
    let mut micros = Vec::with_capacity(rounds);
    let mut serving = active(app).context("the copied chain does not serve")?;
    for round in 0..rounds {
        let set = |line: &str| match line.starts_with(SETTING) {
            true => format!("{SETTING}0.{}", 300 + round % 600),
            false => line.to_owned(),
        };
        let changed = shipped.lines().map(set).collect::<Vec<_>>().join("\n");
        if !shipped.contains(SETTING) {
            bail!("{} no longer has a line `{SETTING}…`; the benchmark changes that line", file.display());
        }
        // As an editor saves: half of them write in place, half write beside and rename.
        let saved = if round % 2 == 0 {
            let fresh = file.with_extension("toml.new");
            std::fs::write(&fresh, changed)?;
            let saved = Instant::now();
            std::fs::rename(&fresh, file)?;
            saved
        } else {
            let saved = Instant::now();
            std::fs::write(file, changed)?;
            saved
        };
        serving = next(app, &serving, saved).await?;
        micros.push(saved.elapsed().as_secs_f64() * 1e6);
        tokio::time::sleep(pause).await;
    }
    Ok(Times::new(micros))
}

async fn next(app: &App, before: &str, saved: Instant) -> Result<String> {
    loop {
        if let Some(now) = active(app).filter(|now| now != before) {
            return Ok(now);
        }
        if saved.elapsed() > ROUND_MAX {
            let rejected = app.policies.status().into_iter().find_map(|chain| chain.rejected);
            bail!("the saved settings were not active after {} s; rejected: {rejected:?}", ROUND_MAX.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn active(app: &App) -> Option<String> {
    app.policies.current(CHAIN).map(|serving| serving.revision.id().to_string())
}

/// A copy of the shipped chain and its components; it goes when this is dropped.
struct Copy {
    folder: std::path::PathBuf,
}

impl Copy {
    fn make() -> Result<Self> {
        let shipped = ground::policies()?;
        let copy =
            Self { folder: std::env::temp_dir().join(format!("frontdesk-bench-policies-{}", std::process::id())) };
        for folder in [CHAIN, "default/cases", "components"] {
            let to = copy.folder.join(folder);
            std::fs::create_dir_all(&to)?;
            for entry in std::fs::read_dir(shipped.join(folder))? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    std::fs::copy(entry.path(), to.join(entry.file_name()))?;
                }
            }
        }
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
