//! One child process and the thread that starts it, watches it, starts it again, and stops it.
//!
//! The thread exists because Linux sends the parent-death signal when the *thread* that spawned a child ends, whatever the process
//! does: a thread from a runtime's pool may end at any time. It ends when the handle is dropped (the channel closes), after the child.
//! It also holds the folder, so the lock is given back only when no child is left.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use super::error::EnginesError;
use super::folder::Folder;
use super::logfile::LogFile;
use super::os::{Signal, as_child, processes_working_in, send_signal};
use super::status::EngineStatus;

/// How often a running child is looked after. A crash is noticed within this time.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);
/// How often a starting child is asked whether it is ready.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
/// A child that runs but does not answer may be replaying its log after a crash: this long is waited.
const READY_DEADLINE: Duration = Duration::from_secs(120);
/// A child that could not start because of what a killed predecessor left is started again for this long.
const TRANSIENT_DEADLINE: Duration = Duration::from_secs(20);
const TRANSIENT_PAUSE: Duration = Duration::from_millis(200);
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A child that was up for this long starts the backoff anew.
const STABLE_AFTER: Duration = Duration::from_secs(60);
const LOG_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// What a killed host left behind has already been told to end by the kernel: wait this long, then tell it, and wait again.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(10);

pub(super) type Readiness = oneshot::Receiver<Result<(), EnginesError>>;

/// What the supervisor must know about an engine.
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    /// The engine's data folder, also its working folder.
    pub(super) home: PathBuf,
    /// File in which the engine notes its pid, and the program's name: for systems without `/proc`.
    pub(super) pid_file: PathBuf,
    pub(super) log: LogFile,
    pub(super) on_parent_death: Signal,
    /// How to stop it: each signal, and how long to wait before the next.
    pub(super) stop: &'static [(Signal, Duration)],
    /// Runs in the supervising thread before the first start.
    pub(super) prepare: Box<dyn FnOnce() -> Result<(), EnginesError> + Send>,
    /// Runs before every start.
    pub(super) before_start: Box<dyn Fn() + Send>,
    /// Whether the child answers. It must return within a second or so.
    pub(super) probe: Box<dyn Fn() -> io::Result<()> + Send>,
    /// Whether the words of a child that ended while starting mean "try again in a moment".
    pub(super) is_transient: fn(&str) -> bool,
}

/// A child under supervision. Dropping it stops the child and waits until it is gone.
#[derive(Debug)]
pub(super) struct Supervised {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    status: Arc<Mutex<EngineStatus>>,
}

impl Supervised {
    /// Starts the thread, and with it the child. The receiver tells how the first start went.
    pub(super) fn spawn(spec: Spec, folder: Arc<Folder>) -> Result<(Supervised, Readiness), EnginesError> {
        let (stop, stopped) = channel();
        let (ready, readiness) = oneshot::channel();
        let status = Arc::new(Mutex::new(EngineStatus::default()));
        let name = spec.name;
        let watcher = Watcher { name, log: spec.log.clone(), stopped, status: Arc::clone(&status) };
        let thread = std::thread::Builder::new()
            .name(format!("frontdesk-{name}"))
            .spawn(move || {
                watcher.run(spec, &folder, ready);
                drop(folder);
            })
            .map_err(|source| EnginesError::Thread { engine: name, source })?;
        Ok((Supervised { stop: Some(stop), thread: Some(thread), status }, readiness))
    }

    pub(super) fn status(&self) -> EngineStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins the stop without waiting for it.
    pub(super) fn ask_to_stop(&mut self) {
        self.stop = None;
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.ask_to_stop();
        if let Some(thread) = self.thread.take() {
            // The thread does not panic; if it did, the child would have got its signal with the thread's end.
            let _ = thread.join();
        }
    }
}

/// Waits for the first start.
pub(super) async fn wait_until_ready(engine: &'static str, readiness: Readiness) -> Result<(), EnginesError> {
    readiness.await.unwrap_or_else(|_| {
        tracing::error!(engine, "the engine's thread ended before the engine was ready");
        Err(EnginesError::Interrupted)
    })
}

/// The thread's own state.
struct Watcher {
    name: &'static str,
    log: LogFile,
    stopped: Receiver<()>,
    status: Arc<Mutex<EngineStatus>>,
}

/// What came of an attempt to start.
enum Launch {
    Ready(Child),
    Failed(EnginesError),
    Stopped,
}

impl Watcher {
    fn run(self, spec: Spec, folder: &Folder, ready: oneshot::Sender<Result<(), EnginesError>>) {
        let mut ready = Some(ready);
        let Spec { prepare, .. } = spec;
        let spec = Spec { prepare: Box::new(|| Ok(())), ..spec };
        if let Err(error) = self.clear_leftovers(&spec, folder).and_then(|()| prepare()) {
            self.report(&mut ready, Err(error));
            return;
        }
        let mut backoff = BACKOFF_FIRST;
        loop {
            match self.launch(&spec) {
                Launch::Stopped => return,
                Launch::Ready(child) => {
                    self.report(&mut ready, Ok(()));
                    let up = Instant::now();
                    let Some(status) = self.watch(&spec, child) else { return };
                    if up.elapsed() >= STABLE_AFTER {
                        backoff = BACKOFF_FIRST;
                    }
                    self.note_failure(format!("ended unexpectedly: {status}"));
                }
                Launch::Failed(error) if ready.is_some() => {
                    self.report(&mut ready, Err(error));
                    return;
                }
                Launch::Failed(error) => self.note_failure(error.to_string()),
            }
            if self.stop_asked_within(backoff) {
                return;
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
            self.update(|status| status.restarts += 1);
        }
    }

    fn report(&self, ready: &mut Option<oneshot::Sender<Result<(), EnginesError>>>, outcome: Result<(), EnginesError>) {
        if let Some(ready) = ready.take() {
            // Nobody listens when the start was given up; the channel's end stops this thread then.
            let _ = ready.send(outcome);
        }
    }

    fn update(&self, change: impl FnOnce(&mut EngineStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn note_failure(&self, reason: String) {
        tracing::warn!(engine = self.name, reason, "the engine is down; it will be started again");
        self.update(|status| {
            status.pid = None;
            status.up_since = None;
            status.last_failure = Some(reason);
        });
    }

    /// Waits up to `time` for the order to stop.
    fn stop_asked_within(&self, time: Duration) -> bool {
        !matches!(self.stopped.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }

    /// Waits for, then stops, what a killed host left working on the data. The lock is ours, so it can belong to no living host.
    fn clear_leftovers(&self, spec: &Spec, folder: &Folder) -> Result<(), EnginesError> {
        let find = || processes_working_in(&spec.home, &spec.pid_file, spec.name);
        for signal in [None, Some(spec.on_parent_death), Some(Signal::Kill)] {
            if let Some(signal) = signal {
                for pid in find() {
                    tracing::warn!(engine = self.name, pid, ?signal, "stopping an engine that an earlier host left");
                    // Gone already is what is wanted; a refusal shows in the next look.
                    let _ = send_signal(pid, signal);
                }
            }
            let begin = Instant::now();
            while begin.elapsed() < LEFTOVER_PATIENCE {
                if find().is_empty() {
                    return Ok(());
                }
                if self.stop_asked_within(WATCH_INTERVAL) {
                    return Err(EnginesError::Interrupted);
                }
            }
        }
        match find().first() {
            None => Ok(()),
            Some(pid) => Err(EnginesError::Leftover {
                engine: self.name,
                pid: *pid,
                data_dir: folder.data_dir().to_owned(),
                waited_s: LEFTOVER_PATIENCE.as_secs() * 3,
            }),
        }
    }

    /// Starts the child and waits until it answers; again, while the reason for a failure is one that passes.
    fn launch(&self, spec: &Spec) -> Launch {
        let begin = Instant::now();
        loop {
            (spec.before_start)();
            let (mut child, log_begin) = match self.spawn(spec) {
                Ok(started) => started,
                Err(error) => return Launch::Failed(error),
            };
            self.update(|status| status.pid = Some(child.id()));
            match self.await_readiness(spec, &mut child, log_begin) {
                Some(Ok(())) => {
                    self.update(|status| status.up_since = Some(SystemTime::now()));
                    tracing::info!(engine = self.name, pid = child.id(), "the engine is ready");
                    return Launch::Ready(child);
                }
                None => {
                    self.stop(spec, child);
                    return Launch::Stopped;
                }
                Some(Err(EnginesError::Exited { log_end, .. }))
                    if (spec.is_transient)(&log_end) && begin.elapsed() < TRANSIENT_DEADLINE =>
                {
                    if self.stop_asked_within(TRANSIENT_PAUSE) {
                        return Launch::Stopped;
                    }
                }
                Some(Err(error)) => {
                    self.stop(spec, child);
                    return Launch::Failed(error);
                }
            }
        }
    }

    fn spawn(&self, spec: &Spec) -> Result<(Child, u64), EnginesError> {
        let failed = |source| EnginesError::Spawn { program: spec.program.display().to_string(), source };
        let (log, log_begin) = self.log.open().map_err(failed)?;
        let second = log.try_clone().map_err(failed)?;
        let mut command = Command::new(&spec.program);
        as_child(&mut command, spec.on_parent_death);
        command.args(&spec.arguments).current_dir(&spec.home).env("HOME", &spec.home);
        command.stdin(Stdio::null()).stdout(log).stderr(second);
        Ok((command.spawn().map_err(failed)?, log_begin))
    }

    /// `None` when the order to stop came first.
    fn await_readiness(&self, spec: &Spec, child: &mut Child, log_begin: u64) -> Option<Result<(), EnginesError>> {
        let begin = Instant::now();
        let log_end = || self.log.end_since(log_begin);
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                let log = self.log.path().to_owned();
                return Some(Err(EnginesError::Exited { engine: self.name, status, log, log_end: log_end() }));
            }
            if (spec.probe)().is_ok() {
                return Some(Ok(()));
            }
            if begin.elapsed() >= READY_DEADLINE {
                let log = self.log.path().to_owned();
                let waited_s = READY_DEADLINE.as_secs();
                return Some(Err(EnginesError::NotReady { engine: self.name, waited_s, log, log_end: log_end() }));
            }
            if self.stop_asked_within(PROBE_INTERVAL) {
                return None;
            }
        }
    }

    /// Watches a running child until it ends by itself (its status), or until the order to stop, which is carried out (`None`).
    fn watch(&self, spec: &Spec, mut child: Child) -> Option<ExitStatus> {
        let mut log_checked = Instant::now();
        loop {
            if self.stop_asked_within(WATCH_INTERVAL) {
                self.stop(spec, child);
                return None;
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Some(status);
            }
            if log_checked.elapsed() >= LOG_CHECK_INTERVAL {
                log_checked = Instant::now();
                if let Err(error) = self.log.keep_small() {
                    tracing::warn!(engine = self.name, %error, "the engine's log could not be kept small");
                }
            }
        }
    }

    /// Stops the child: politely, then less so. Returns when it is gone and reaped.
    fn stop(&self, spec: &Spec, mut child: Child) {
        for (signal, patience) in spec.stop {
            // Gone already: the wait below sees it.
            let _ = send_signal(child.id(), *signal);
            let begin = Instant::now();
            while begin.elapsed() < *patience {
                if !matches!(child.try_wait(), Ok(None)) {
                    self.update(|status| {
                        status.pid = None;
                        status.up_since = None;
                    });
                    return;
                }
                std::thread::sleep(PROBE_INTERVAL);
            }
            tracing::warn!(engine = self.name, ?signal, "the engine did not stop in time");
        }
        // SIGKILL cannot be refused; this ends unless the kernel itself hangs on the disk.
        let _ = child.kill();
        let _ = child.wait();
    }
}
