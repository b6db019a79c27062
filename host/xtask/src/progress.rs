//! What the person at the terminal sees: steps with their names and times, and a sign of life while a long one runs.

use std::io::{IsTerminal, stderr};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{self, interrupted};

/// Where nobody watches Cargo's own progress bar, a line this often says that a step still runs.
const HEARTBEAT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Progress {
    begin: Instant,
}

impl Progress {
    pub fn begin() -> Progress {
        Progress { begin: Instant::now() }
    }

    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    pub fn say(&self, words: &str) {
        eprintln!("[{:>6.1} s] {words}", self.begin.elapsed().as_secs_f64());
    }

    /// Does one step; a failure names the step and how to run it alone.
    pub fn step<T>(&self, name: &str, alone: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.say(&format!("{name} …"));
        let begin = Instant::now();
        match work() {
            Ok(value) => {
                self.say(&format!("{name}: done in {:.1} s", begin.elapsed().as_secs_f64()));
                Ok(value)
            }
            Err(error) if interrupted() => Err(error),
            Err(error) => {
                self.say(&format!(
                    "{name}: FAILED after {:.1} s; to run it alone: {alone}",
                    begin.elapsed().as_secs_f64()
                ));
                Err(error.context(format!("{name} failed")))
            }
        }
    }
}

/// Runs a program to its end with this terminal as its own, and fails when it does.
pub fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = run_for_status(command)?;
    if status.success() { Ok(()) } else { bail!("`{}` ended with {status}", display(command, &program)) }
}

fn run_for_status(command: &mut Command) -> Result<ExitStatus> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("`{program}` could not be started"))?;
    let begin = Instant::now();
    let mut said = Duration::ZERO;
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("`{program}` could not be waited for"))? {
            if interrupted() {
                bail!("interrupted");
            }
            return Ok(status);
        }
        if interrupted() && !told {
            // A Ctrl-C reached the child as well; a SIGTERM was for this process alone.
            told = true;
            process::terminate(child.id());
        }
        if !stderr().is_terminal() && begin.elapsed() >= said + HEARTBEAT {
            said = begin.elapsed();
            eprintln!("           … `{}` still runs ({} s)", display(command, &program), said.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

fn display(command: &Command, program: &str) -> String {
    let name = program.rsplit('/').next().unwrap_or(program);
    let words: Vec<_> = command.get_args().take(4).map(|word| word.to_string_lossy()).collect();
    format!("{name} {}", words.join(" ")).trim().to_owned()
}
