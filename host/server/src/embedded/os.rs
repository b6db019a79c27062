//! The few calls that the standard library has no safe form of: who we are, signals, and tying a child's life to ours.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The user and group that the children run as when the host is root: `nobody` on every Unix that Postgres runs on.
pub(super) const UNPRIVILEGED_ID: u32 = 65534;

/// Signals by what the engines make of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// Postgres: fast shutdown (roll back what is open, write a checkpoint).
    Interrupt,
    /// Valkey: flush the append-only file and exit. initdb: clean up and exit.
    Terminate,
    /// Postgres: immediate shutdown; recovery at the next start.
    Quit,
    Kill,
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Signal::Interrupt => libc::SIGINT,
            Signal::Terminate => libc::SIGTERM,
            Signal::Quit => libc::SIGQUIT,
            Signal::Kill => libc::SIGKILL,
        }
    }
}

pub(super) fn effective_uid() -> u32 {
    #[expect(unsafe_code, reason = "geteuid takes nothing, always succeeds, and has no form in std")]
    let uid = unsafe { libc::geteuid() };
    uid
}

pub(super) fn is_root() -> bool {
    effective_uid() == 0
}

/// Memory that this process may hope for: the machine's, or what its control group is allowed if that is less. `None`
/// where the system does not tell (it is read from Linux' own files).
pub(super) fn memory_bytes() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let machine = read("/proc/meminfo").lines().find_map(|line| {
        let kib: u64 = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1_024)
    });
    // "max" stands for no limit, and does not parse.
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let group = group.iter().find_map(|path| read(path).trim().parse().ok());
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

/// Sends `signal` to one process. `Err` with `NotFound` when it is gone.
pub(super) fn send_signal(pid: u32, signal: Signal) -> io::Result<()> {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return Err(io::Error::from(io::ErrorKind::InvalidInput)) };
    if pid <= 1 {
        // 0 and -1 mean groups of processes, 1 is init: never a child of ours.
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    #[expect(unsafe_code, reason = "kill takes two integers; the pid was checked to name one process")]
    let outcome = unsafe { libc::kill(pid, signal.number()) };
    if outcome == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) { Err(io::Error::from(io::ErrorKind::NotFound)) } else { Err(error) }
}

/// Prepares `command` as a child of this host: an empty environment, its own process group (a Ctrl-C at the terminal is for the host,
/// which then stops its children in order), the unprivileged user when the host is root, and `signal` when the spawning thread ends.
pub(super) fn as_child(command: &mut Command, signal: Signal) {
    command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").env("PATH", "/usr/bin:/bin").process_group(0);
    if is_root() {
        // The standard library drops the supplementary groups with the uid.
        command.uid(UNPRIVILEGED_ID).gid(UNPRIVILEGED_ID);
    }
    die_with_parent(command, signal);
}

/// As [`as_child`], but keeps the user, which may be the only one that can execute the program: the child gives up its
/// rights itself, by [`become_unprivileged`]. It is killed with its parent.
pub(crate) fn as_bound_child(command: &mut Command) {
    command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").process_group(0);
    die_with_parent(command, Signal::Kill);
}

/// Limits this process, for good: both the limit and its ceiling.
pub(crate) fn limit_this_process(resource: Resource, value: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    #[expect(unsafe_code, reason = "setrlimit reads one struct, which lives here")]
    let outcome = unsafe { libc::setrlimit(resource, &limit) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(target_os = "linux")]
pub(crate) type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_os = "linux"))]
pub(crate) type Resource = libc::c_int;

/// When this process is root, it becomes `nobody` in no group. Call it before there are threads.
pub(crate) fn become_unprivileged() -> io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    #[expect(unsafe_code, reason = "the calls take integers and an empty list; each is checked")]
    let dropped = unsafe {
        libc::setgroups(0, std::ptr::null()) == 0
            && libc::setgid(UNPRIVILEGED_ID) == 0
            && libc::setuid(UNPRIVILEGED_ID) == 0
    };
    if !dropped {
        return Err(io::Error::last_os_error());
    }
    tie_to_parent()
}

/// A change of user takes away what [`die_with_parent`] had set (prctl(2)); this sets it again.
#[cfg(target_os = "linux")]
fn tie_to_parent() -> io::Result<()> {
    #[expect(unsafe_code, reason = "prctl with PR_SET_PDEATHSIG takes an integer")]
    let outcome = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn tie_to_parent() -> io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = std::process::id();
    let number = signal.number();
    let tie = move || {
        // This runs after the change of user, which would clear the setting (prctl(2)), and before exec.
        #[expect(unsafe_code, reason = "prctl with PR_SET_PDEATHSIG takes an integer; it is async-signal-safe")]
        let outcome = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, number) };
        if outcome == -1 {
            return Err(io::Error::last_os_error());
        }
        #[expect(unsafe_code, reason = "getppid takes nothing and always succeeds")]
        let now = unsafe { libc::getppid() };
        // The parent may have died between fork and prctl: then no signal will come, so do not begin at all.
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
fn die_with_parent(_command: &mut Command, _signal: Signal) {
    // No equivalent: what a killed host leaves behind is found and stopped at the next start.
}

/// Process ids of an engine's leftovers: the processes called `program…` that work in `folder`. Each engine changes into its data
/// folder, Postgres' backends too; a person's shell may stand there as well, hence the name. `pid_file` serves systems without
/// `/proc`.
#[cfg(target_os = "linux")]
pub(super) fn processes_working_in(folder: &Path, _pid_file: &Path, program: &str) -> Vec<u32> {
    let Ok(folder) = folder.canonicalize() else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())))
        .filter(|(_, path)| std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == folder))
        .filter(|(_, path)| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with(program)))
        .map(|(pid, _)| pid)
        .collect()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn processes_working_in(_folder: &Path, pid_file: &Path, program: &str) -> Vec<u32> {
    let Some(pid) = pid_in_file(pid_file) else { return Vec::new() };
    let Ok(output) = Command::new("ps").args(["-o", "comm=", "-p", &pid.to_string()]).output() else {
        return Vec::new();
    };
    if String::from_utf8_lossy(&output.stdout).contains(program) { vec![pid] } else { Vec::new() }
}

/// The number on the first line of a pid file.
pub(super) fn pid_in_file(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.lines().next()?.trim().parse().ok()
}
