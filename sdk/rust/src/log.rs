//! The host's log. Lines are recorded with the decision and bounded in number and length; do not log what a customer
//! wrote.
//!
//! Natively (in unit tests) lines are kept per thread; [`take`] returns them.

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

#[cfg(target_family = "wasm")]
fn write(level: Level, message: &str) {
    use crate::bindings::host::frontdesk::policy::log;
    let level = match level {
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    };
    log::write(level, message);
}

#[cfg(not(target_family = "wasm"))]
thread_local! {
    static LINES: std::cell::RefCell<Vec<(Level, String)>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[cfg(not(target_family = "wasm"))]
fn write(level: Level, message: &str) {
    LINES.with_borrow_mut(|lines| lines.push((level, message.to_owned())));
}

/// The lines logged by this thread since the last call, for unit tests.
#[cfg(not(target_family = "wasm"))]
#[must_use]
pub fn take() -> Vec<(Level, String)> {
    LINES.take()
}

/// Logs what only the author wants to know.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// Logs what an operator may want to know.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Logs what somebody should look at.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Logs what is broken.
pub fn error(message: &str) {
    write(Level::Error, message);
}
