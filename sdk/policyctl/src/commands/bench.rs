//! `policyctl bench`: what calls cost. Every call starts a fresh instance, as in the host.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

use frontdesk_policy_engine::cases::judge::{self, Judged};
use frontdesk_policy_engine::cases::{Call, Case};
use serde::Serialize;
use serde_json::json;

use crate::cli::{Failure, Outcome, Report, SubjectOptions, Verdict};
use crate::subject::{self, Subject};
use crate::words;

#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub subject: SubjectOptions,
    /// How many calls are measured, after a tenth of them to warm up.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub calls: u32,
    /// What the customer wrote.
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
}

/// Costs of one hook, or of the whole chain.
#[derive(Serialize)]
struct Costs {
    hook: &'static str,
    policy: String,
    calls: u32,
    median_us: f64,
    p99_us: f64,
    max_us: f64,
    /// The same in every call, because a call depends on nothing but its input.
    fuel: u64,
    memory_bytes: u64,
}

pub fn run(runtime: &tokio::runtime::Runtime, options: &Options) -> Outcome {
    let engine = subject::engine()?;
    let subject = Subject::open(&engine, &options.subject)?;
    let case = Case { text: options.text.clone(), ..Case::default() };
    let mut costs = Vec::new();
    for call in Call::ALL {
        let is_served = match call.hook() {
            Some(hook) => !subject.serving(hook).is_empty(),
            None => subject.revision().is_some(),
        };
        if !is_served {
            continue;
        }
        match runtime.block_on(measure(&subject, call, &case, options.calls))? {
            Ok(cost) => costs.push(cost),
            Err(fault) => {
                let text = format!("{} faults: {fault}", call.as_str());
                let json = json!({ "hook": call.as_str(), "fault": *fault });
                return Report::new(text, json, Verdict::Faulted);
            }
        }
    }
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<9} {:<24} {:>10} {:>10} {:>12} {:>12}",
        "hook", "policy", "median µs", "p99 µs", "fuel", "memory"
    );
    for cost in &costs {
        let (fuel, memory) = (words::number(cost.fuel), words::bytes(cost.memory_bytes));
        let Costs { hook, policy, median_us, p99_us, .. } = cost;
        let _ = writeln!(out, "{hook:<9} {policy:<24} {median_us:>10.1} {p99_us:>10.1} {fuel:>12} {memory:>12}");
    }
    let is_optimised = !cfg!(debug_assertions);
    let _ = writeln!(out, "\n{} calls each, a fresh instance for every call.", words::number(options.calls.into()));
    if !is_optimised {
        out.push_str(
            "This policyctl was built without optimisation: its times are longer than the host's; fuel is the same.\n",
        );
    }
    let json = json!({ "subject": PathBuf::from(subject.path()), "is_optimised": is_optimised, "costs": costs });
    Report::new(out, json, Verdict::Well)
}

type Measured = Result<Costs, Box<frontdesk_policy_engine::Fault>>;

async fn measure(subject: &Subject, call: Call, case: &Case, calls: u32) -> Result<Measured, Failure> {
    let mut times = Vec::with_capacity(calls as usize);
    let mut last = Judged::default();
    for i in 0..calls + calls / 10 {
        let started = Instant::now();
        last = judge::judge(subject.for_cases(), call, case).await.map_err(Failure::input)?;
        let elapsed = started.elapsed();
        if let Some(fault) = last.fault {
            return Ok(Err(Box::new(fault)));
        }
        if i >= calls / 10 {
            times.push(elapsed.as_secs_f64() * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    let names: Vec<&str> = last.calls.iter().map(|call| call.policy.as_str()).collect();
    Ok(Ok(Costs {
        hook: call.as_str(),
        policy: if call == Call::Chain { words::count(names.len(), "call", "calls") } else { names.join(" + ") },
        calls,
        median_us: at(50),
        p99_us: at(99),
        max_us: at(100),
        fuel: last.calls.iter().map(|call| call.fuel_used).sum(),
        memory_bytes: last.calls.iter().map(|call| call.memory_bytes).max().unwrap_or_default(),
    }))
}
