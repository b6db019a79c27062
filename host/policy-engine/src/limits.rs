//! What one call of a policy may use at most.
//!
//! Every limit has a default, which suits a rule-driven policy, and a hard range. A value outside the range is refused
//! when the chain is read, with the field's name: a limit is never silently changed.

use serde::{Deserialize, Serialize};

/// Limits of one call. Each is enforced by the engine, none by the component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Units of work: about one per WebAssembly instruction, plus [`Limits::HOST_CALL_FUEL`] and one per byte for each
    /// call of a host function. Deterministic: the same call uses the same fuel on every machine. Default 50,000,000
    /// (some 50 ms); 10,000 to 5,000,000,000.
    pub fuel: u64,
    /// Wall-clock time of one call in milliseconds, look-ups included. The backstop behind `fuel`, and what ends a
    /// component that sleeps. Checked about every 5 ms. Default 500; 10 to 10,000.
    pub deadline_ms: u32,
    /// Linear memory of all the component's memories together, in MiB (2^20 bytes). Default 32; 1 to 128.
    pub memory_mib: u32,
    /// What a component may hand to the host in one result or one host call, in KiB (2^10 bytes): the bytes of all
    /// texts plus the size of list elements. Default 256; 1 to 4,096.
    pub output_kib: u32,
    /// Log lines that are kept; what exceeds them is counted. Default 50; 0 to 1,000.
    pub log_lines: u32,
    /// Knowledge look-ups in one call; one more is answered with `limit-reached`. Default 4; 0 to 32.
    pub lookups: u32,
    /// Time of one look-up in milliseconds; a slower one is answered with `limit-reached`. Default 200; 1 to 5,000.
    pub lookup_timeout_ms: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 50_000_000,
            deadline_ms: 500,
            memory_mib: 32,
            output_kib: 256,
            log_lines: 50,
            lookups: 4,
            lookup_timeout_ms: 200,
        }
    }
}

/// A limit outside its hard range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limits.{field} is {found}; it must be between {least} and {most}")]
pub struct LimitError {
    /// The field's name.
    pub field: &'static str,
    /// What was found.
    pub found: u64,
    /// The smallest value allowed.
    pub least: u64,
    /// The largest value allowed.
    pub most: u64,
}

impl Limits {
    /// Fuel that each call of a host function costs, beside one unit for each byte handed over: a component cannot
    /// make the host work for nothing.
    pub const HOST_CALL_FUEL: u64 = 500;
    /// Longest log line that is kept, in bytes; the contract's own limit.
    pub const LOG_LINE_BYTES_MAX: usize = 1_024;
    /// Most passages that one look-up returns; the contract's own limit.
    pub const LOOKUP_PASSAGES_MAX: u32 = 20;
    /// Longest query of a look-up, in bytes.
    pub const LOOKUP_QUERY_BYTES_MAX: usize = 2_000;

    /// Checks every field against its hard range.
    ///
    /// # Errors
    /// The first field outside its range.
    pub fn checked(self) -> Result<Self, LimitError> {
        let ranges: [(&'static str, u64, u64, u64); 7] = [
            ("fuel", self.fuel, 10_000, 5_000_000_000),
            ("deadline_ms", self.deadline_ms.into(), 10, 10_000),
            ("memory_mib", self.memory_mib.into(), 1, 128),
            ("output_kib", self.output_kib.into(), 1, 4_096),
            ("log_lines", self.log_lines.into(), 0, 1_000),
            ("lookups", self.lookups.into(), 0, 32),
            ("lookup_timeout_ms", self.lookup_timeout_ms.into(), 1, 5_000),
        ];
        for (field, found, least, most) in ranges {
            if found < least || found > most {
                return Err(LimitError { field, found, least, most });
            }
        }
        Ok(self)
    }

    /// `memory_mib` in bytes.
    #[must_use]
    pub const fn memory_bytes(&self) -> u64 {
        (self.memory_mib as u64) << 20
    }

    /// `output_kib` in bytes.
    #[must_use]
    pub const fn output_bytes(&self) -> usize {
        (self.output_kib as usize) << 10
    }
}
