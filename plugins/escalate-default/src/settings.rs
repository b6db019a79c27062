//! The settings as types. The schema beside the crate says the same to people.

use std::collections::BTreeMap;

use frontdesk_policy_sdk::text::Localized;
use frontdesk_policy_sdk::types;
use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    pub evidence: Evidence,
    pub ask_back: AskBack,
    pub repeated: Repeated,
    pub anger: Anger,
    pub max_automated_turns: u32,
    pub labels: Vec<LabelPriority>,
    pub ticket_labels: Vec<String>,
    pub hours: Hours,
    pub notice: Notice,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Evidence {
    pub min_confidence: f32,
    pub min_best_score: f32,
    pub min_supported: f32,
}

impl Default for Evidence {
    fn default() -> Self {
        Self { min_confidence: 0.5, min_best_score: 0.25, min_supported: 0.75 }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AskBack {
    pub enabled: bool,
    /// A turn with more words is not vague.
    pub max_words: usize,
    pub text: Localized,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Repeated {
    pub enabled: bool,
    /// How alike two questions are: shared words in relation to all words.
    pub similarity: f32,
    /// How often the same must have been asked before.
    pub times: usize,
}

impl Default for Repeated {
    fn default() -> Self {
        Self { enabled: true, similarity: 0.8, times: 1 }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Anger {
    pub enabled: bool,
    pub threshold: f32,
    pub phrases: BTreeMap<String, Vec<String>>,
}

impl Default for Anger {
    fn default() -> Self {
        Self { enabled: true, threshold: 1.0, phrases: BTreeMap::new() }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LabelPriority {
    pub label: String,
    pub priority: PriorityName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PriorityName {
    Low,
    Normal,
    High,
    Urgent,
}

impl From<PriorityName> for types::Priority {
    fn from(name: PriorityName) -> Self {
        match name {
            PriorityName::Low => Self::Low,
            PriorityName::Normal => Self::Normal,
            PriorityName::High => Self::High,
            PriorityName::Urgent => Self::Urgent,
        }
    }
}

/// When people answer. Without a day, they always do.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Hours {
    /// By weekday in English: ranges such as `09:00-17:30`.
    pub week: BTreeMap<String, Vec<String>>,
    /// Dates such as `2026-12-25`, or `12-25` for every year.
    pub holidays: Vec<String>,
}

/// What the customer is told when a person takes over.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Notice {
    pub open: Localized,
    pub closed: Localized,
    /// By label: said instead, at any time.
    pub labels: BTreeMap<String, Localized>,
}
