//! Signed deliveries to a host that runs already, at a rate.
//!
//! A delivery's time counts from the moment it was due: a host that falls behind shows it in the percentiles. Afterwards the host is
//! asked, over its admin API, whether it holds every message that it acknowledged; without an admin token it is not asked, and
//! the report says so.

use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::generator::{self, Outcome, Plan};

/// Message ids in one question to the host: they fit its limit on a body.
const ASKED_AT_ONCE: usize = 300;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The host's address.
    #[arg(long, default_value = "127.0.0.1:8080")]
    address: String,
    /// Deliveries a second; 0: as fast as they are answered.
    #[arg(long, default_value_t = 100.0, value_parser = rate)]
    rate: f64,
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Messages in one delivery.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    batch: u16,
    /// Connections that deliver at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    connections: u16,
    /// The Page that the host answers for.
    #[arg(long)]
    page: String,
    /// File with the app secret.
    #[arg(long, value_name = "FILE")]
    app_secret_file: PathBuf,
    /// File with the admin token: losses are looked for.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("expected a number from 0 to 1000000".to_owned()),
    }
}

/// False: something was lost.
pub async fn run(options: &Options) -> Result<bool> {
    let address =
        options.address.to_socket_addrs().with_context(|| format!("{} is no address", options.address))?.next();
    let plan = Plan {
        address: address.with_context(|| format!("{} has no address", options.address))?,
        connections: options.connections.into(),
        duration: Duration::from_secs(options.seconds),
        events: options.batch.into(),
        run: format!("load{:x}", chrono::Utc::now().timestamp_micros()),
        page: options.page.clone(),
        secret: read_secret(&options.app_secret_file)?,
        rate: (options.rate > 0.0).then_some(options.rate),
        first_ms: u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap_or_default(),
    };
    let main = plan.clone();
    let outcome = tokio::task::spawn_blocking(move || generator::run(&main)).await??;
    report(options, &outcome);
    ensure!(!outcome.acked.is_empty(), "nothing was acknowledged");
    let Some(file) = &options.admin_token_file else {
        println!("lost                 not looked for: no --admin-token-file");
        return Ok(true);
    };
    let lost = lost(&plan, &outcome, &read_secret(file)?).await?;
    println!("lost                 {lost} of {} acknowledged messages", outcome.acked.len() * plan.events);
    Ok(lost == 0)
}

fn read_secret(file: &Path) -> Result<SecretString> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} could not be read", file.display()))?;
    Ok(SecretString::from(text.trim().to_owned()))
}

fn report(options: &Options, outcome: &Outcome) {
    let wanted = if options.rate > 0.0 { format!("{} a second", options.rate) } else { "any number".to_owned() };
    println!("deliveries           {wanted} for {} s, {} messages in each", options.seconds, options.batch);
    println!("acknowledged         {} ({:.0} a second)", outcome.acked.len(), outcome.acks_per_second());
    for (status, count) in &outcome.refused {
        println!("answered {status}         {count}");
    }
    for (share, name) in [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "max")] {
        println!("time to the 200 {name:>5} {:.2} ms", outcome.times.quantile_us(share) / 1_000.0);
    }
}

/// Messages that were acknowledged and that the host does not know.
async fn lost(plan: &Plan, outcome: &Outcome, admin_token: &SecretString) -> Result<u64> {
    let mids: Vec<String> = outcome
        .acked
        .iter()
        .flat_map(|number| (0..plan.events).map(|index| generator::mid(&plan.run, *number, index)))
        .collect();
    let client = reqwest::Client::new();
    let mut lost = 0;
    for mids in mids.chunks(ASKED_AT_ONCE) {
        let answer = client
            .post(format!("http://{}/admin/inbox/missing", plan.address))
            .bearer_auth(admin_token.expose_secret())
            .json(&json!({ "page_id": plan.page, "mids": mids }))
            .send()
            .await?;
        if !answer.status().is_success() {
            bail!("the host did not say what it holds: HTTP {}", answer.status().as_u16());
        }
        let answer: Value = answer.json().await?;
        let missing = answer.pointer("/missing").and_then(Value::as_array).context("an answer without `missing`")?;
        lost += u64::try_from(missing.len())?;
    }
    Ok(lost)
}
