//! What `/readyz`, the metrics and the status page say about the engines.

use std::time::SystemTime;

use serde::Serialize;

/// The state of both engines at one moment; `None` for one that was not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnginesStatus {
    pub postgres: Option<EngineStatus>,
    pub valkey: Option<EngineStatus>,
}

impl EnginesStatus {
    /// Whether every engine that was asked for answers.
    pub fn is_up(&self) -> bool {
        [&self.postgres, &self.valkey].into_iter().flatten().all(|engine| engine.up_since.is_some())
    }
}

/// The state of one engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EngineStatus {
    /// Process id of the child; `None` between a crash and the next start.
    pub pid: Option<u32>,
    /// How often the child was started again since the host began.
    pub restarts: u64,
    /// When the child first answered; `None` while it does not run or recovers.
    pub up_since: Option<SystemTime>,
    /// Why the last child ended, or why the last start failed; kept until the host ends.
    pub last_failure: Option<String>,
}
