//! Arguments, exit codes, and how reports and failures are printed.
//!
//! A command returns a [`Report`]: the same content as text for people and as JSON for programs. Reports go to standard
//! output, failures to standard error; with `--json` a failure is a document on standard output, too.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use crate::admin::Remote;
use crate::commands;

/// Write, check, test and measure Frontdesk policies; replay what was decided; publish, promote and roll back; ask a host why.
#[derive(Debug, Parser)]
#[command(name = "policyctl", version, max_term_width = 120)]
#[command(after_help = "Exit codes:\n  \
    0  done, and all is well\n  \
    1  cases failed, or differences were found\n  \
    2  the arguments, or a file that was given, are wrong\n  \
    3  a component faulted, or the host or its gate refuses it\n  \
    4  the host cannot be reached, or cannot answer now\n\n\
The way of a policy, from a template to customers and back:\n  \
    policyctl new my-policy --hook classify && cd my-policy      (its README tells every step)\n  \
    policyctl build\n  \
    policyctl check my-policy.wasm --settings settings.toml\n  \
    policyctl test my-policy.wasm --settings settings.toml\n  \
    policyctl run my-policy.wasm --settings settings.toml --text \"Do you ship to Austria?\"\n  \
    policyctl test CHAIN_DIR                                     (in a chain: step 5 of its README)\n  \
    policyctl publish CHAIN_DIR --shadow --reason \"why\"         (the host: --url, FRONTDESK_ADMIN_TOKEN)\n  \
    policyctl shadow-report CHAIN\n  \
    policyctl promote CHAIN --reason \"why\"\n  \
    policyctl rollback CHAIN --reason \"why\"")]
struct Cli {
    /// Print one JSON document instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a new policy: a crate with settings, a unit test, cases, and a README that goes on from there.
    New(commands::new::Options),
    /// Compile a policy to a component.
    Build(commands::build::Options),
    /// Put a component into an OCI registry, and print the reference that a chain takes.
    Push(commands::push::Options),
    /// Make a pair of keys for signatures.
    Keygen(commands::keygen::Options),
    /// Sign a component, in a file or in a registry.
    Sign(commands::sign::Options),
    /// Say what a component is, in a file or in a registry: name, hooks, imports, settings, resources, signatures.
    Inspect(commands::inspect::Options),
    /// Load a component or a chain as the host would, and say what it is or what is wrong.
    Check(commands::check::Options),
    /// Make one call, and show the verdict and what it used.
    Run(commands::run::Options),
    /// Judge tables of cases, and say which verdicts are not the expected ones.
    Test(commands::test::Options),
    /// Measure calls: median, p99, fuel, memory; a fresh instance each.
    Bench(commands::bench::Options),
    /// Judge recorded decisions again with a chain, and say what differs from the record.
    Replay(commands::replay::Options),
    /// Judge recorded decisions with two chains, and say what changes from one to the other.
    Diff(commands::diff::Options),
    /// Take a chain's folder to a host: stage it, judge it at the gate, and put it where you say.
    Publish(commands::moves::Publish),
    /// Let a revision serve everybody: the canary, the shadow, or what was staged last.
    Promote(commands::moves::Promote),
    /// Let a revision serve a share of the customers, or some Pages.
    Canary(commands::moves::Canary),
    /// Let a revision judge beside the active one.
    Shadow(commands::moves::Shadow),
    /// End the canary or shadow, or go back to the revision before.
    Rollback(commands::moves::Rollback),
    /// Let a revision be used again that a tripwire has taken out.
    Unquarantine(commands::moves::Unquarantine),
    /// What each chain and replica of a host runs, what was refused, and why.
    Status(commands::status::Options),
    /// What a chain's shadow would have changed for the turns that customers wrote.
    ShadowReport(commands::shadow_report::Options),
    /// Why a customer got this answer: one page about one turn.
    Explain(commands::explain::Options),
    /// Fetch decision records from a host, one JSON document a line, for `replay` and `diff`.
    Export(commands::export::Options),
}

/// What a command found out.
#[derive(Debug)]
pub struct Report {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Value,
    /// Whether cases failed or differences were found (exit code 1), or a component faulted (3).
    pub verdict: Verdict,
}

/// How a command that did its work ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Well,
    Different,
    Faulted,
}

impl Report {
    pub fn new(text: String, json: impl Serialize, verdict: Verdict) -> Result<Self, Failure> {
        let json = serde_json::to_value(json).map_err(|error| Failure::input(format!("no report: {error}")))?;
        Ok(Self { text, json, verdict })
    }
}

/// How a command ends without doing its work.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The arguments or a file are wrong.
    pub fn input(message: impl std::fmt::Display) -> Self {
        Self { code: 2, message: message.to_string() }
    }

    /// A component faulted or was refused, or does not compile.
    pub fn refused(message: impl std::fmt::Display) -> Self {
        Self { code: 3, message: message.to_string() }
    }

    /// The host cannot be reached.
    pub fn unreachable(message: impl std::fmt::Display) -> Self {
        Self { code: 4, message: message.to_string() }
    }

    /// A file that cannot be read or written.
    pub fn file(path: &std::path::Path, what: &str, error: &std::io::Error) -> Self {
        Self::input(format!("{} cannot be {what}: {error}", path.display()))
    }
}

pub type Outcome = Result<Report, Failure>;

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => run(&runtime, cli.command),
        Err(error) => Err(Failure::input(format!("the runtime cannot be started: {error}"))),
    };
    let (text, json, code) = match outcome {
        Ok(report) => {
            let code = match report.verdict {
                Verdict::Well => 0,
                Verdict::Different => 1,
                Verdict::Faulted => 3,
            };
            (report.text, report.json, code)
        }
        Err(failure) => {
            // When even standard error is closed, the exit code has to do.
            let _ = writeln!(std::io::stderr().lock(), "policyctl: {}", failure.message.trim_end());
            let json = json!({ "error": { "exit_code": failure.code, "message": failure.message } });
            (String::new(), json, failure.code)
        }
    };
    let printed = if cli.json { format!("{json:#}") } else { text };
    let mut out = std::io::stdout().lock();
    if !printed.is_empty() {
        // A reader that went away, such as `head`, changes nothing about the result.
        let _ = writeln!(out, "{}", printed.trim_end()).and_then(|()| out.flush());
    }
    ExitCode::from(code)
}

fn run(runtime: &tokio::runtime::Runtime, command: Command) -> Outcome {
    match command {
        Command::New(options) => commands::new::run(&options),
        Command::Build(options) => commands::build::run(&options),
        Command::Push(options) => commands::push::run(runtime, &options),
        Command::Keygen(options) => commands::keygen::run(&options),
        Command::Sign(options) => commands::sign::run(runtime, &options),
        Command::Inspect(options) => commands::inspect::run(runtime, &options),
        Command::Check(options) => commands::check::run(&options),
        Command::Run(options) => commands::run::run(runtime, &options),
        Command::Test(options) => commands::test::run(runtime, &options),
        Command::Bench(options) => commands::bench::run(runtime, &options),
        Command::Replay(options) => commands::replay::run(runtime, &options),
        Command::Diff(options) => commands::diff::run(runtime, &options),
        Command::Publish(options) => runtime.block_on(commands::moves::publish(&options)),
        Command::Promote(options) => runtime.block_on(commands::moves::promote(&options)),
        Command::Canary(options) => runtime.block_on(commands::moves::canary(&options)),
        Command::Shadow(options) => runtime.block_on(commands::moves::shadow(&options)),
        Command::Rollback(options) => runtime.block_on(commands::moves::rollback(&options)),
        Command::Unquarantine(options) => runtime.block_on(commands::moves::unquarantine(&options)),
        Command::Status(options) => runtime.block_on(commands::status::run(&options)),
        Command::ShadowReport(options) => runtime.block_on(commands::shadow_report::run(&options)),
        Command::Explain(options) => runtime.block_on(commands::explain::run(&options)),
        Command::Export(options) => runtime.block_on(commands::export::run(&options)),
    }
}

/// The subject of most commands.
#[derive(Debug, Clone, clap::Args)]
pub struct SubjectOptions {
    /// A component (a .wasm file), or a chain's folder (with its chain.toml).
    #[arg(value_name = "FILE.wasm|CHAIN_DIR")]
    pub subject: PathBuf,
    /// Settings of the component, TOML or JSON; a chain names its own.
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
}

/// How a remote command finds its host; re-exported for the commands.
pub type RemoteOptions = Remote;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documented_forms_are_taken() {
        let forms = [
            "policyctl new my-policy --hook classify --lang rust --sdk-path ../sdk/rust",
            "policyctl build",
            "policyctl build dir --output x.wasm",
            "policyctl inspect x.wasm --json",
            "policyctl inspect oci://127.0.0.1:5000/acme/rules:1.0 --key release.pub",
            "policyctl push x.wasm oci://127.0.0.1:5000/acme/rules:1.0 --auth-file config.json",
            "policyctl keygen release --algorithm ed25519",
            "policyctl sign x.wasm --key release.key",
            "policyctl check policies/default",
            "policyctl check x.wasm --settings s.toml",
            "policyctl run x.wasm --hook classify --input -",
            "policyctl run x.wasm --text hello",
            "policyctl test policies/default",
            "policyctl test x.wasm cases/a.toml cases/b.yaml --settings s.toml",
            "policyctl bench x.wasm --calls 10",
            "policyctl replay --records r.jsonl --with policies/default",
            "policyctl diff a b --records r.jsonl --json",
            "policyctl replay m_1 --with policies/default",
            "policyctl replay m_1 --with policies/default --redraft --as ada",
            "policyctl diff a b --file r.jsonl",
            "policyctl replay m_1 --with 0123456789ab --url http://127.0.0.1:8080",
            "policyctl replay --last 7d --with 0123456789ab",
            "policyctl diff 0123456789ab policies/default --last 7d --chain shop",
            "policyctl publish policies/default --reason new-words",
            "policyctl publish policies/default --shadow --reason new-words --as ada",
            "policyctl publish policies/default --canary --percent 0.1 --page 42 --reason new-words",
            "policyctl publish policies/default --canary --step 1:30 --step 10:60 --reason new-words",
            "policyctl publish policies/default --activate --force --reason new-words",
            "policyctl promote default --reason well",
            "policyctl promote default 0123456789ab --reason well",
            "policyctl canary default --percent 10 --reason try",
            "policyctl shadow default 0123456789ab --reason try",
            "policyctl rollback default --reason bad",
            "policyctl rollback default --slot canary --reason bad",
            "policyctl rollback default --to 0123456789ab --reason bad",
            "policyctl unquarantine default 0123456789ab --reason mended",
            "policyctl status --url http://127.0.0.1:8080",
            "policyctl shadow-report default --samples 5",
            "policyctl explain m_1 --page 42",
            "policyctl export --output r.jsonl --limit 10 --after-ms 1",
        ];
        for form in forms {
            Cli::try_parse_from(form.split(' ')).unwrap_or_else(|error| panic!("{form}: {error}"));
        }
        for wrong in [
            "policyctl",
            "policyctl new",
            "policyctl new x",
            "policyctl replay --records r",
            "policyctl replay m_1 --records r --with x",
            "policyctl replay --with x",
            "policyctl diff a",
            "policyctl diff a b",
            "policyctl diff a b --last 7d --records r",
            "policyctl publish policies/default",
            "policyctl publish policies/default --shadow --activate --reason x",
            "policyctl promote default",
            "policyctl rollback default --slot canary --to 0123456789ab --reason x",
        ] {
            assert!(Cli::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
    }
}
