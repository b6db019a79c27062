//! A component that wakes up configured.

use crate::engine::Shared;
use crate::hook::Hook;
use crate::limits::Limits;
use crate::policy::Program;

pub(crate) fn take(
    shared: &Shared,
    _wasm: &[u8],
    _settings: &str,
    _hook: Hook,
    _limits: &Limits,
) -> Result<Program, String> {
    if !shared.options.snapshots {
        return Err("snapshots are switched off".to_owned());
    }
    Err("not attempted".to_owned())
}
