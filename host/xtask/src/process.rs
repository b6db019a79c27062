//! Programs that run beside this one, and the signals that end them.
//!
//! A background program gets its own process group, so that a Ctrl-C reaches this process alone, which then stops each in order; and on
//! Linux the kernel ends it when this process dies. The signal comes when the spawning *thread* ends: everything here is spawned
//! from the main thread.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a program may take to stop before it is killed. The server drains its turns and stops its engines in this time.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// How much of a log's end is shown after a failure.
const LOG_LINES_SHOWN: usize = 30;
const LOG_BYTES_READ: u64 = 64 << 10;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_interrupt(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Whether SIGINT or SIGTERM came.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// From here on SIGINT and SIGTERM set a flag, so that what was started is stopped in order.
pub fn listen_for_signals() -> Result<()> {
    let handler: extern "C" fn(libc::c_int) = note_interrupt;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        #[expect(unsafe_code, reason = "the handler only stores to an atomic, which is async-signal-safe")]
        let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        if before == libc::SIG_ERR {
            return Err(io::Error::last_os_error()).context("signals could not be listened for");
        }
    }
    Ok(())
}

fn send(pid: u32, signal: libc::c_int) {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return };
    if pid > 1 {
        #[expect(unsafe_code, reason = "kill takes two integers; the pid is of a child that was not reaped yet")]
        // A failure means that it is gone, which the wait after this sees.
        let _ = unsafe { libc::kill(pid, signal) };
    }
}

/// Asks a process to end.
pub fn terminate(pid: u32) {
    send(pid, libc::SIGTERM);
}

/// Whether a process with this id exists, whoever owns it.
pub fn is_alive(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    #[expect(unsafe_code, reason = "kill with signal 0 only asks")]
    let outcome = unsafe { libc::kill(pid, 0) };
    outcome == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// A program in the background. Dropping it stops it.
#[derive(Debug)]
pub struct Background {
    name: &'static str,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Background {
    /// Starts `command` with its output in the file `log`, which begins anew.
    pub fn start(name: &'static str, mut command: Command, log: &Path) -> Result<Background> {
        let output = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(log)
            .with_context(|| format!("the log {} could not be written", log.display()))?;
        let errors = output.try_clone()?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        die_with_parent(&mut command);
        let child = command
            .spawn()
            .with_context(|| format!("{name} could not be started ({})", command.get_program().to_string_lossy()))?;
        Ok(Background { name, child, log: log.to_owned(), ended: None })
    }

    /// Fails with the end of its log when the program has ended.
    pub fn require_alive(&mut self) -> Result<()> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        match self.ended {
            None => Ok(()),
            Some(status) => {
                bail!("{} ended with {status}. The end of {}:\n{}", self.name, self.log.display(), log_end(&self.log))
            }
        }
    }

    /// Polls `condition` until it holds, the program ends, Ctrl-C comes, or `deadline` passes.
    pub fn wait_until(&mut self, deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
        let begin = Instant::now();
        while !condition() {
            if interrupted() {
                bail!("interrupted");
            }
            self.require_alive()?;
            if begin.elapsed() >= deadline {
                let log = self.log.display();
                bail!(
                    "{} did not {what} within {} s. The end of {log}:\n{}",
                    self.name,
                    deadline.as_secs(),
                    log_end(&self.log)
                );
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn stop(&mut self) {
        if self.ended.is_some() {
            return;
        }
        terminate(self.child.id());
        let begin = Instant::now();
        while begin.elapsed() < STOP_PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(POLL);
        }
        eprintln!(
            "{} did not stop within {} s and is killed; see {}",
            self.name,
            STOP_PATIENCE.as_secs(),
            self.log.display()
        );
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let tie = move || {
        #[expect(unsafe_code, reason = "prctl with PR_SET_PDEATHSIG takes an integer; it is async-signal-safe")]
        let outcome = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
        if outcome == -1 {
            return Err(io::Error::last_os_error());
        }
        #[expect(unsafe_code, reason = "getppid takes nothing and always succeeds")]
        let now = unsafe { libc::getppid() };
        // The parent may have died before prctl: then no signal will come, so do not begin at all.
        if u32::try_from(now) == Ok(parent) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    };
    #[expect(
        unsafe_code,
        reason = "between fork and exec only async-signal-safe calls are made and nothing is allocated"
    )]
    unsafe {
        command.pre_exec(tie);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}

/// The last lines of a log.
pub fn log_end(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_READ)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES_READ).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_else(|error| format!("(it could not be read: {error})"));
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}
