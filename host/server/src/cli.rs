//! The `frontdesk` command: the host's roles, and what people do to a running host.
//!
//! `serve`, `work` and `engines` run until SIGTERM or SIGINT; a second signal ends them at once. `knowledge` and `page` speak to
//! the admin API of a running host, so they work from any machine that has its address and token, and whatever database the
//! host uses. Answers go to standard output, everything else (logs, mistakes) to standard error.
//!
//! | exit code | meaning |
//! |-----------|---------|
//! | 0 | done |
//! | 1 | it was tried and failed, wholly or in part |
//! | 2 | it was not tried: the arguments, settings or secrets do not fit |

mod check;
mod client;
mod golden;
mod host;
mod jobs;
mod keys;
mod knowledge;
mod learn;
mod multipart;
mod page;
mod person;

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::embedded::{EnginesCommand, run_engines_command};
use crate::knowledge::extract::child::{self as extract, Limits};
use crate::settings::{DEFAULTS, Settings, SettingsError};
use client::AdminClient;

/// Answers a Facebook Page's Messenger inquiries from the Page's own knowledge.
#[derive(Debug, Parser)]
#[command(name = "frontdesk", version, max_term_width = 120)]
#[command(after_help = "Secrets come from environment variables or files; `frontdesk settings` lists them.\n\
Exit codes: 0 done, 1 failed, 2 arguments or settings do not fit.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the host: webhook, admin API, health and metrics; and the workers, unless told not to.
    Serve {
        #[command(flatten)]
        config: Config,
        /// Take messages and serve the admin API only; other processes run `frontdesk work`.
        #[arg(long)]
        no_work: bool,
    },
    /// Run turns and deliveries only, beside a host that serves.
    Work {
        #[command(flatten)]
        config: Config,
    },
    /// Run the embedded Postgres and Valkey alone.
    Engines(EnginesCommand),
    /// What the Page knows: add, list, delete, search.
    #[command(subcommand)]
    Knowledge(knowledge::KnowledgeCommand),
    /// Show what a question finds, and why: `frontdesk knowledge search`, for short.
    Search(knowledge::Search),
    /// Golden questions: what the Page should answer, asked of a running host.
    #[command(subcommand)]
    Golden(golden::GoldenCommand),
    /// What people's answers propose for the knowledge: list, approve, reject.
    #[command(subcommand)]
    Learn(learn::LearnCommand),
    /// The Pages of a running host: list them, let one send again.
    #[command(subcommand)]
    Page(page::PageCommand),
    /// The people who wrote: forget one.
    #[command(subcommand)]
    Person(person::PersonCommand),
    /// The keys that protect what the database holds: make, rotate, look.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Read one file on standard input; the host starts this for each file that needs a parser.
    #[command(hide = true)]
    Extract {
        #[arg(long)]
        format: crate::knowledge::Format,
        #[command(flatten)]
        limits: Limits,
    },
    /// Print every setting with its default.
    Settings,
    /// Load settings and secrets, and say what is wrong with them.
    Check {
        #[command(flatten)]
        config: Config,
    },
}

/// Where the settings are.
#[derive(Debug, Clone, Args)]
struct Config {
    /// Settings file (TOML); what it leaves out has its default.
    #[arg(long, value_name = "FILE", env = "FRONTDESK_CONFIG")]
    config: Option<PathBuf>,
}

impl Config {
    fn load(&self) -> Result<Settings, SettingsError> {
        Settings::load(self.config.as_deref())
    }

    fn path(&self) -> Option<&Path> {
        self.config.as_deref()
    }
}

/// Which running host to speak to.
#[derive(Debug, Clone, Args)]
struct Remote {
    /// Address of the host; by default that of server.listen in the settings.
    #[arg(long, value_name = "URL", env = "FRONTDESK_URL")]
    url: Option<String>,
    #[command(flatten)]
    config: Config,
}

/// How a command ended without doing its work.
#[derive(Debug)]
enum Failure {
    /// Tried and failed: exit code 1.
    Failed(String),
    /// Not tried: exit code 2.
    Usage(String),
    /// The message was shown already, line by line.
    Shown,
}

impl Failure {
    fn failed(message: impl Display) -> Self {
        Self::Failed(message.to_string())
    }

    fn usage(message: impl Display) -> Self {
        Self::Usage(message.to_string())
    }
}

type Outcome = Result<(), Failure>;

/// Reads the arguments, runs the command, and says how it ended.
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Shown) => ExitCode::from(1),
        Err(Failure::Failed(message)) => {
            complain(&message);
            ExitCode::from(1)
        }
        Err(Failure::Usage(message)) => {
            complain(&message);
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> Outcome {
    host::start_logging()?;
    match cli.command {
        Command::Settings => say(DEFAULTS.trim_end()),
        Command::Check { config } => check::run(&config),
        // Without a runtime: the process binds itself while it is one thread.
        Command::Extract { format, limits } => extract::run(format, limits).map_err(Failure::failed),
        command => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::failed(format!("the runtime cannot be started: {error}")))?;
            runtime.block_on(run_async(command))
        }
    }
}

async fn run_async(command: Command) -> Outcome {
    match command {
        Command::Serve { config, no_work } => host::run(&config, true, !no_work).await,
        Command::Work { config } => host::run(&config, false, true).await,
        Command::Engines(options) => run_engines_command(options).await.map_err(Failure::failed),
        Command::Search(options) => knowledge::search(&options).await,
        Command::Knowledge(command) => knowledge::run(command).await,
        Command::Golden(command) => golden::run(command).await,
        Command::Learn(command) => learn::run(command).await,
        Command::Page(command) => page::run(command).await,
        Command::Person(command) => person::run(command).await,
        Command::Keys(command) => keys::run(command).await,
        Command::Settings | Command::Check { .. } | Command::Extract { .. } => Ok(()),
    }
}

/// A line (or several) on standard output. A reader that went away, such as `head`, ends the command quietly.
fn say(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::Shown),
        Err(error) => Err(Failure::failed(format!("standard output cannot be written: {error}"))),
    }
}

/// A line on standard error. When even that is closed, the exit code has to do.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "frontdesk: {text}");
}

/// Text from elsewhere, made harmless for a terminal and short enough for a line.
fn one_line(text: &str, characters_max: usize) -> String {
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.retain(|c| !c.is_control());
    if line.chars().count() > characters_max {
        line = line.chars().take(characters_max.saturating_sub(1)).collect();
        line.push('…');
    }
    line
}

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
            "frontdesk serve",
            "frontdesk serve --config f.toml --no-work",
            "frontdesk work --config f.toml",
            "frontdesk engines --binaries b --data d --fast --print-env e",
            "frontdesk knowledge add a.md b --page 42 --label x --label y --language de --url http://h:1",
            "frontdesk knowledge list --json",
            "frontdesk knowledge add a.pdf --no-wait",
            "frontdesk knowledge website https://shop.example --page 42 --pages-max 100 --prune",
            "frontdesk knowledge jobs",
            "frontdesk knowledge jobs 00000000-0000-0000-0000-000000000001 --json",
            "frontdesk knowledge cancel 00000000-0000-0000-0000-000000000001",
            "frontdesk knowledge delete 00000000-0000-0000-0000-000000000001",
            "frontdesk knowledge search where is it --page 42 --limit 3",
            "frontdesk golden run g.toml --page 42 --json a.json --html a.html --all",
            "frontdesk golden list --page 42",
            "frontdesk learn list",
            "frontdesk learn approve 00000000-0000-0000-0000-000000000001 --answer No.",
            "frontdesk learn goldens --page 42",
            "frontdesk page list",
            "frontdesk page resume 42",
            "frontdesk page connect --page 42 --chain default --url http://h:1",
            "frontdesk page disconnect 42",
            "frontdesk page check 42",
            "frontdesk person erase --page 42 --psid 7",
            "frontdesk keys new",
            "frontdesk keys rotate --config f.toml",
            "frontdesk keys status",
            "frontdesk settings",
            "frontdesk check --config f.toml",
        ];
        for form in forms {
            Cli::try_parse_from(form.split(' ')).unwrap_or_else(|error| panic!("{form}: {error}"));
        }
        for wrong in ["frontdesk", "frontdesk knowledge add", "frontdesk knowledge delete x", "frontdesk serve x"] {
            assert!(Cli::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_stays_a_line() {
        assert_eq!(one_line("a\n b\u{1b}[31mc", 80), "a b[31mc");
        assert_eq!(one_line("äöüß", 4), "äöüß");
        assert_eq!(one_line("äöüßx", 4), "äöü…");
    }
}
