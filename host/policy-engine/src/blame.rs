//! Turns what wasmtime reports into one of the five faults.
//!
//! The order of the questions matters: a refused growth and a spent budget both surface as traps, and an over-long
//! result as a plain error; each is recognised by its type before the general cases are considered.

use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::fault::FaultKind;
use crate::limits::Limits;
use crate::state::MemoryRefused;

/// Longest `detail` of a fault, in bytes.
pub(crate) const DETAIL_BYTES_MAX: usize = 2_048;
/// Most guest functions that a fault names.
const FRAMES_MAX: usize = 16;
/// Longest name of a guest function, in bytes.
const FRAME_BYTES_MAX: usize = 200;

/// Why a call ended without a result.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// wasmtime ended it.
    Error(wasmtime::Error),
    /// The time-out around it ended it: the component slept, or waited for the host.
    TimedOut,
    /// The component answered with `err`.
    GaveUp(String),
    /// No instance was free in time.
    NoInstance,
    /// The result breaks a rule.
    Bad(FaultKind),
    /// The result is fine and the fuel is not: the last stretch of code was not checked by the component itself.
    Overspent,
}

/// The kind, what happened in words, and the guest's functions.
pub(crate) struct Blame {
    pub kind: FaultKind,
    pub detail: String,
    pub guest_frames: Vec<String>,
}

/// Finds the kind of fault. `printed` is the end of what the component wrote to standard output and error.
pub(crate) fn blame(stopped: Stopped, limits: &Limits, used_ms: u32, printed: &str) -> Blame {
    let deadline = FaultKind::Deadline { limit_ms: limits.deadline_ms, used_ms };
    let out_of_fuel = FaultKind::OutOfFuel { limit: limits.fuel, used: limits.fuel };
    let mut guest_frames = Vec::new();
    let (kind, mut detail) = match stopped {
        Stopped::Error(error) => {
            guest_frames = frames(&error);
            let (kind, mut detail) = error_kind(&error, limits, deadline, out_of_fuel);
            if error.downcast_ref::<Trap>() == Some(&Trap::MemoryOutOfBounds) && is_recursion(&guest_frames) {
                detail.push_str("; the same functions fill the stack: most likely too deep a recursion");
            }
            (kind, detail)
        }
        Stopped::TimedOut => (
            deadline,
            "the component waited for something that did not come in time; clocks stand still during a call, so that a \
             sleep never ends"
                .to_owned(),
        ),
        Stopped::GaveUp(text) => (FaultKind::Trap, format!("the component gave up: {}", text.trim())),
        Stopped::NoInstance => (
            FaultKind::Deadline { limit_ms: limits.deadline_ms, used_ms },
            "no instance was free in time: more calls arrive than the engine may run at once".to_owned(),
        ),
        Stopped::Bad(kind) => {
            let detail = kind.to_string();
            (kind, detail)
        }
        Stopped::Overspent => (out_of_fuel, "the component finished, but used more fuel than it may".to_owned()),
    };
    if !printed.is_empty() {
        detail.push_str("; it printed: ");
        detail.push_str(printed);
    }
    detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
    Blame { kind, detail, guest_frames }
}

fn error_kind(
    error: &wasmtime::Error,
    limits: &Limits,
    deadline: FaultKind,
    out_of_fuel: FaultKind,
) -> (FaultKind, String) {
    if let Some(&MemoryRefused { limit_bytes, wanted_bytes }) = error.downcast_ref() {
        let kind = FaultKind::Memory { limit_bytes, wanted_bytes };
        return (kind, "the component asked for more memory than it may have".to_owned());
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match trap {
            Trap::OutOfFuel => (out_of_fuel, "the component used up its fuel".to_owned()),
            Trap::Interrupt => (deadline, "the component ran past its deadline".to_owned()),
            Trap::StackOverflow => {
                (FaultKind::Trap, "the component overflowed its stack (too deep a recursion)".to_owned())
            }
            Trap::UnreachableCodeReached => {
                (FaultKind::Trap, "the component panicked or aborted (`unreachable` was executed)".to_owned())
            }
            other => (FaultKind::Trap, other.to_string()),
        };
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return (FaultKind::Trap, format!("the component called exit({})", exit.0));
    }
    let cause = error.root_cause().to_string();
    // wasmtime has no type for this one; the text is pinned with the version, and a test holds it.
    if cause.contains("fuel allocated for hostcalls") {
        let problem = format!("more than {} KiB were handed to the host at once", limits.output_kib);
        return (FaultKind::BadOutput { field: "result".to_owned(), problem: problem.clone() }, problem);
    }
    if error.downcast_ref::<WasmBacktrace>().is_some() {
        return (FaultKind::Trap, format!("a function of the host refused: {cause}"));
    }
    if cause.starts_with("realloc return") {
        // The allocator that the component exports gave a place outside of its memory.
        return (FaultKind::Trap, format!("the component has no room for its arguments: {cause}"));
    }
    let problem = "not a value of its type".to_owned();
    (FaultKind::BadOutput { field: "result".to_owned(), problem }, format!("the result could not be read: {cause}"))
}

/// Whether a few functions call each other all over the trace. Compilers keep a second stack inside the linear memory, and
/// when that one overflows WebAssembly sees no more than a wrong address.
fn is_recursion(frames: &[String]) -> bool {
    let distinct: std::collections::BTreeSet<_> = frames.iter().collect();
    frames.len() == FRAMES_MAX && distinct.len() <= FRAMES_MAX / 4
}

fn frames(error: &wasmtime::Error) -> Vec<String> {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    trace
        .frames()
        .iter()
        .take(FRAMES_MAX)
        .map(|frame| match frame.func_name() {
            Some(name) => {
                // A name section holds whatever bytes its maker liked, and these names go into logs.
                let mut name = format!("{:#}", rustc_demangle::demangle(name)).replace(char::is_control, "?");
                name.truncate(name.floor_char_boundary(FRAME_BYTES_MAX));
                name
            }
            None => format!("function {}", frame.func_index()),
        })
        .collect()
}
