//! `policyctl run`: one call.

use std::fmt::Write;
use std::io::Read;
use std::path::PathBuf;

use frontdesk_policy_bundle::read_file;
use frontdesk_policy_engine::cases::judge::{self, Judged};
use frontdesk_policy_engine::cases::{Call, Case, parse_json};
use serde_json::json;

use crate::cli::{Failure, Outcome, Report, SubjectOptions, Verdict};
use crate::subject::{self, Subject};
use crate::words;

/// Largest input, in bytes.
const INPUT_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub subject: SubjectOptions,
    /// What to call; by default the component's hook, or the whole chain.
    #[arg(long, value_name = "HOOK")]
    pub hook: Option<Call>,
    /// The input as JSON, `-` for standard input: the fields of a case (see the README), for example
    /// {"text": "hello", "language": "en"}, or {"turn": …} with a whole turn. What is missing is that of a sample turn.
    #[arg(long, value_name = "FILE.json|-", conflicts_with = "text")]
    pub input: Option<PathBuf>,
    /// What the customer wrote, in place of an input.
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
}

pub fn run(runtime: &tokio::runtime::Runtime, options: &Options) -> Outcome {
    let case = match (&options.input, &options.text) {
        (Some(path), _) => read_input(path)?,
        (None, Some(text)) => Case { text: Some(text.clone()), ..Case::default() },
        (None, None) => Case::default(),
    };
    let engine = subject::engine()?;
    let subject = Subject::open(&engine, &options.subject)?;
    let call = match options.hook.or(case.hook) {
        Some(call) => call,
        None => subject.default_call()?,
    };
    let judged = runtime.block_on(judge::judge(subject.for_cases(), call, &case)).map_err(Failure::input)?;
    let verdict = if judged.fault.is_some() { Verdict::Faulted } else { Verdict::Well };
    let json = json!({
        "hook": call.as_str(), "verdict": judged.verdict, "fault": judged.fault, "calls": judged.calls,
    });
    Report::new(text(&judged), json, verdict)
}

fn read_input(path: &std::path::Path) -> Result<Case, Failure> {
    let (bytes, name) = if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().take(INPUT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| Failure::input(format!("standard input cannot be read: {error}")))?;
        if bytes.len() > INPUT_BYTES_MAX {
            return Err(Failure::input(format!("standard input has more than {INPUT_BYTES_MAX} bytes")));
        }
        (bytes, "standard input".to_owned())
    } else {
        (read_file(path, INPUT_BYTES_MAX).map_err(Failure::input)?, path.display().to_string())
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| Failure::input(format!("{name} is not UTF-8: {error}")))?;
    parse_json(text).map_err(|problem| Failure::input(format!("{name}: {problem}")))
}

fn text(judged: &Judged) -> String {
    let mut out = String::new();
    if let Some(fault) = &judged.fault {
        let _ = writeln!(out, "FAULT: {fault}");
        let _ = writeln!(out, "  kind      {}", fault.kind.as_str());
        let _ = writeln!(out, "  hook      {}, function {}", fault.hook, fault.function);
        let _ = writeln!(out, "  policy    {} {}", fault.policy, fault.version);
        let _ = writeln!(out, "  detail    {}", words::indented(&fault.detail, "            ").trim_start());
        for frame in &fault.guest_frames {
            let _ = writeln!(out, "  in        {frame}");
        }
    }
    if !judged.verdict.is_null() {
        let _ = writeln!(out, "{:#}", judged.verdict);
    }
    for call in &judged.calls {
        let _ = writeln!(
            out,
            "\n{} {} {}: fuel {} of {} ({}), {} µs, memory {} of {}",
            call.hook,
            call.policy,
            call.version,
            words::number(call.fuel_used),
            words::number(call.fuel_limit),
            words::share(call.fuel_used, call.fuel_limit),
            words::number(call.elapsed_us),
            words::bytes(call.memory_bytes),
            words::bytes(call.memory_limit_bytes),
        );
        for line in &call.logs {
            let level = format!("{:?}", line.level).to_lowercase();
            let _ = writeln!(out, "  log {level}: {}", words::one_line(&line.message, 1_024));
        }
        if call.logs_dropped > 0 {
            let _ = writeln!(out, "  log lines dropped: {}", call.logs_dropped);
        }
    }
    out
}
