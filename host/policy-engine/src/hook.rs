//! The four places at which a policy judges, and what may happen when it cannot.

use serde::{Deserialize, Serialize};

/// One of the four hooks of the contract, in the order in which a turn meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// World `classifier`, `classify-hook.classify`.
    Classify,
    /// World `tone`, `tone-hook.compose`.
    Tone,
    /// World `filter`, `filter-hook.apply`.
    Filter,
    /// World `escalation`, `escalation-hook.decide`.
    Escalate,
}

impl Hook {
    /// All hooks, in the order of a turn.
    pub const ALL: [Self; 4] = [Self::Classify, Self::Tone, Self::Filter, Self::Escalate];

    /// The word in `chain.toml`, in metric labels and in decision records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::Tone => "tone",
            Self::Filter => "filter",
            Self::Escalate => "escalate",
        }
    }

    /// Name of the world in the WIT package.
    #[must_use]
    pub const fn world(self) -> &'static str {
        match self {
            Self::Classify => "classifier",
            Self::Tone => "tone",
            Self::Filter => "filter",
            Self::Escalate => "escalation",
        }
    }

    /// Name of the interface that the world exports beside `lifecycle`.
    #[must_use]
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Classify => "classify-hook",
            Self::Tone => "tone-hook",
            Self::Filter => "filter-hook",
            Self::Escalate => "escalation-hook",
        }
    }

    /// Name of the hook's function.
    #[must_use]
    pub const fn function(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::Tone => "compose",
            Self::Filter => "apply",
            Self::Escalate => "decide",
        }
    }

    /// What `on_fault` may say for a policy on this hook: in this version of the chain format one word each.
    #[must_use]
    pub const fn fault_action(self) -> FaultAction {
        match self {
            Self::Classify | Self::Escalate => FaultAction::Human,
            Self::Tone => FaultAction::DefaultPrompt,
            Self::Filter => FaultAction::Hold,
        }
    }
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a fault of a policy means for the turn; written in `chain.toml`, never implied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultAction {
    /// The turn goes to a person.
    Human,
    /// The answer is drafted with the host's own prompt.
    DefaultPrompt,
    /// The text is not sent; the escalation hook is told.
    Hold,
}

impl FaultAction {
    /// The word in `chain.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::DefaultPrompt => "default-prompt",
            Self::Hold => "hold",
        }
    }
}

impl std::fmt::Display for FaultAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
