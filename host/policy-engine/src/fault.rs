//! What comes back from a call: the result or a fault, and what the call used.
//!
//! Five kinds of fault, told apart by the type, the metric label and the text: a component that *traps*, runs *out of
//! fuel*, misses its *deadline*, asks for too much *memory*, or returns *bad output*. A fault is a value, not a panic:
//! the next call of the same policy starts on a fresh instance and knows nothing of it.
//!
//! [`Fault`]'s `Display` holds no words of the guest's, so that it can be logged; `detail` may hold some (a panic message can
//! quote the text that was being judged) and belongs in the decision record only.

use serde::{Deserialize, Serialize};

use crate::hook::Hook;
use crate::types::{LogLevel, LookupError, Passage};

/// Why a call of a policy gave no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The hook that was called.
    pub hook: Hook,
    /// Name of the policy, from its description; empty while it has not described itself.
    pub policy: String,
    /// Version of the policy, from its description.
    pub version: String,
    /// The function that was called: `classify`, `compose`, `apply`, `decide`, `describe`, `configure`, `instantiate`.
    pub function: String,
    /// Which of the five.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// What happened, for the people who read the decision; at most 2 KiB. May quote what the component printed.
    pub detail: String,
    /// Functions of the guest on the stack, innermost first, as its name section calls them; at most 16.
    pub guest_frames: Vec<String>,
}

/// The five kinds of fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum FaultKind {
    /// The component panicked, overflowed its stack, returned an `err`, or broke the rules of WebAssembly.
    Trap,
    /// The component used up its fuel.
    OutOfFuel {
        /// The limit, in units of fuel.
        limit: u64,
        /// What it had used when it was ended: all that it may. Absent in records of before.
        #[serde(default)]
        used: u64,
    },
    /// The call took too long, or waited too long for a free instance.
    Deadline {
        /// The limit in milliseconds.
        limit_ms: u32,
        /// What had passed when the call was ended, in milliseconds.
        used_ms: u32,
    },
    /// The component asked for more memory than it may have.
    Memory {
        /// The limit in bytes.
        limit_bytes: u64,
        /// What the component would have had, in bytes.
        wanted_bytes: u64,
    },
    /// The result breaks a rule of the contract.
    BadOutput {
        /// The field, as a path such as `labels[3]`; `result` for the whole.
        field: String,
        /// What is wrong with it; free of the guest's words.
        problem: String,
    },
}

impl FaultKind {
    /// The kind's name: the label of metrics and the word in records.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::OutOfFuel { .. } => "out-of-fuel",
            Self::Deadline { .. } => "deadline",
            Self::Memory { .. } => "memory",
            Self::BadOutput { .. } => "bad-output",
        }
    }
}

impl std::fmt::Display for FaultKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Trap => f.write_str("trap"),
            Self::OutOfFuel { limit, used } => write!(f, "out of fuel: {used} units were used, the limit is {limit}"),
            Self::Deadline { limit_ms, used_ms } => {
                write!(f, "deadline missed: ended after {used_ms} ms, the limit is {limit_ms} ms")
            }
            Self::Memory { limit_bytes, wanted_bytes } => {
                write!(f, "too much memory: wanted {wanted_bytes} bytes, the limit is {limit_bytes}")
            }
            Self::BadOutput { field, problem } => write!(f, "bad output: {field}: {problem}"),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.policy.is_empty() {
            write!(f, "a {} policy", self.hook)?;
        } else {
            write!(f, "{} {} ({})", self.policy, self.version, self.hook)?;
        }
        write!(f, ", {}: {}", self.function, self.kind)?;
        if let Some(frame) = self.guest_frames.first() {
            write!(f, "; in {frame}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// One line that a component logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// How grave.
    pub level: LogLevel,
    /// The line, at most 1,024 bytes, line breaks escaped.
    pub message: String,
}

/// One answer that the host gave to a component, recorded so that a replay gives the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "function")]
pub enum HostAnswer {
    /// `knowledge.search`.
    #[serde(rename = "knowledge.search")]
    Search {
        /// What was looked for.
        query: String,
        /// How many passages were asked for, at most 20.
        limit: u32,
        /// What the component was told.
        answer: SearchAnswer,
    },
}

/// What `knowledge.search` answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchAnswer {
    /// The passages, best first.
    Passages(Vec<Passage>),
    /// No answer, and why.
    Failed(LookupError),
}

/// What became of a call, and what it used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Called<T> {
    /// The verdict, or why there is none.
    pub result: Result<T, Fault>,
    /// Fuel of the hook's function alone: instantiation and settings are not charged to a call.
    pub fuel_used: u64,
    /// Wall-clock time in microseconds, from the moment an instance was free.
    pub elapsed_us: u64,
    /// Linear memory that the instance had at the end, in bytes.
    pub memory_bytes: u64,
    /// Log lines, in order, at most as many as the limit says.
    pub logs: Vec<LogLine>,
    /// How many more were logged and dropped.
    pub logs_dropped: u32,
    /// What the host answered, in order.
    pub host_answers: Vec<HostAnswer>,
}

impl<T> Called<T> {
    /// The same call with another result.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Called<U> {
        Called {
            result: self.result.map(change),
            fuel_used: self.fuel_used,
            elapsed_us: self.elapsed_us,
            memory_bytes: self.memory_bytes,
            logs: self.logs,
            logs_dropped: self.logs_dropped,
            host_answers: self.host_answers,
        }
    }
}
