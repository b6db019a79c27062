//! From a saved settings file to the revision that serves, in a copy of the shipped policies.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use frontdesk_server::app::{App, Roles};

use crate::Options;
use crate::ground::{self, Ground};
use crate::table::{Aim, Figure, Findings, Row, Times};

const MEASURE: &str = "swap";
const CHAIN: &str = "default";
const ROUNDS: usize = 20;
const ROUND_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// The setting that changes, as the shipped file has it.
const SETTING: &str = "other-language-factor = 0.6";
const NO_GRAPH: &str = "http://127.0.0.1:9";

pub async fn measure(options: &Options) -> Result<Findings> {
    let copy = Copy::make()?;
    let ground = Ground::new().await?;
    let host = ground.start(ground.settings(NO_GRAPH, &copy.folder)?, Roles { serve: true, work: true }).await?;
    let rounds = if options.quick { ROUNDS / 4 } else { ROUNDS };
    let times = swaps(&host.app, &copy.folder.join(CHAIN).join("classify-rules.toml"), rounds).await;
    host.stop().await?;
    let times = times?;
    let mut findings = Findings::default();
    findings.rows.push(
        Row::new(MEASURE, format!("settings file saved to active, median of {rounds}"), times.median_ms())
            .aim(Aim::AtMost(1_000.0)),
    );
    let slowest = Figure::Millis(times.quantile_us(1.0) / 1_000.0);
    findings.rows.push(Row::new(MEASURE, "settings file saved to active, slowest", slowest));
    Ok(findings)
}

async fn swaps(app: &App, file: &Path, rounds: usize) -> Result<Times> {
    let shipped = std::fs::read_to_string(file)?;
    let mut micros = Vec::with_capacity(rounds);
    let mut serving = active(app).context("the copied chain does not serve")?;
    for round in 0..rounds {
        let changed = shipped.replacen(SETTING, &format!("other-language-factor = 0.{}", 300 + round), 1);
        if changed == shipped {
            bail!("{} no longer has `{SETTING}`; the benchmark changes that line", file.display());
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
