//! What policies say: verdicts, descriptions, and what the escalation hook is told of the verdicts before its own.

use serde::{Deserialize, Serialize};
use wasmtime::component::{ComponentType, Lift, Lower};

use super::Passage;

/// What becomes of the turn.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ComponentType, Lift, Lower,
)]
#[component(enum)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Route {
    /// The machine may answer from the knowledge.
    #[component(name = "answer")]
    Answer,
    /// A person must answer.
    #[component(name = "human")]
    Human,
    /// Recorded, not answered.
    #[component(name = "spam")]
    Spam,
    /// Needs no answer.
    #[component(name = "ignore")]
    Ignore,
}

impl Route {
    /// The WIT's word for the route; for metric labels and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Human => "human",
            Self::Spam => "spam",
            Self::Ignore => "ignore",
        }
    }
}

/// The classifier's verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Classification {
    /// Where the turn goes.
    pub route: Route,
    /// How sure the classifier is, 0 to 1.
    pub confidence: f32,
    /// Machine-readable findings; at most 32 of 64 bytes.
    pub labels: Vec<String>,
    /// One sentence; at most 500 bytes.
    pub reason: String,
}

/// How urgent a ticket is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ComponentType, Lift, Lower,
)]
#[component(enum)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Priority {
    /// Whenever somebody has time.
    #[component(name = "low")]
    Low,
    /// In the order of arrival.
    #[component(name = "normal")]
    Normal,
    /// Before the others.
    #[component(name = "high")]
    High,
    /// Now.
    #[component(name = "urgent")]
    Urgent,
}

impl Priority {
    /// The WIT's word for the priority.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }
}

/// A finding about a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Finding {
    /// Machine-readable name of the rule.
    pub rule: String,
    /// One sentence.
    pub detail: String,
    /// Byte range in the text that was judged.
    pub at: Option<(u32, u32)>,
}

/// What a component says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Description {
    /// Name of the policy, such as `classify-rules`.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// One or two sentences.
    pub summary: String,
    /// JSON Schema (draft 2020-12) of the settings, as text.
    #[component(name = "settings-schema")]
    pub settings_schema: String,
}

/// What is wrong with one field of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct SettingError {
    /// JSON Pointer (RFC 6901); empty for the whole document.
    pub path: String,
    /// One sentence for the person who edits the settings.
    pub message: String,
}

/// One part of the instructions to the drafting model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Instruction {
    /// Short heading.
    pub title: String,
    /// The instruction.
    pub text: String,
}

/// A pair that shows how a good reply sounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Example {
    /// What a customer wrote.
    pub customer: String,
    /// What was a good reply.
    pub reply: String,
}

/// How the answer is to be drafted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Plan {
    /// Parts of the instructions, in order.
    pub instructions: Vec<Instruction>,
    /// Few-shot pairs.
    pub examples: Vec<Example>,
    /// BCP 47 tag of the language to answer in; absent: the customer's.
    pub language: Option<String>,
    /// Longest reply wanted, in Unicode scalar values; at most 8,000.
    #[component(name = "max-characters")]
    pub max_characters: u32,
    /// Sampling temperature, 0 to 2.
    pub temperature: Option<f32>,
    /// Said before the answer, word for word.
    pub preamble: Option<String>,
    /// Said after the answer, word for word.
    pub closing: Option<String>,
}

/// The text that is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Draft {
    /// The text.
    pub text: String,
    /// BCP 47 tag of its language, when known.
    pub language: Option<String>,
    /// Ids of the passages that it cites.
    pub cited: Vec<String>,
    /// The instructions that the model was given.
    pub instructions: Vec<String>,
}

/// A changed text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Rewritten {
    /// The text that goes out instead.
    pub text: String,
    /// What was changed and why.
    pub reason: String,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Blocked {
    /// Why.
    pub reason: String,
}

/// What a filter wants done with a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(variant)]
#[serde(tag = "kind", content = "value", rename_all = "kebab-case")]
pub enum Outcome {
    /// It may go out as it is.
    #[component(name = "pass")]
    Pass,
    /// It may go out with this change.
    #[component(name = "rewrite")]
    Rewrite(Rewritten),
    /// It must not go out.
    #[component(name = "block")]
    Block(Blocked),
}

impl Outcome {
    /// `pass`, `rewrite` or `block`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Rewrite(_) => "rewrite",
            Self::Block(_) => "block",
        }
    }

    /// The reason that the filter gave; empty for `pass`.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Pass => "",
            Self::Rewrite(rewritten) => &rewritten.reason,
            Self::Block(blocked) => &blocked.reason,
        }
    }
}

/// A filter's verdict (WIT: `filter-hook.verdict`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct FilterVerdict {
    /// What is to be done.
    pub outcome: Outcome,
    /// What was found.
    pub findings: Vec<Finding>,
    /// Byte offsets in the outgoing text at which it may be cut; ascending.
    #[component(name = "split-hints")]
    pub split_hints: Vec<u32>,
}

/// What one filter said, as the escalation hook is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct FilterOutcome {
    /// Name of the policy.
    pub policy: String,
    /// `pass`, `rewrite` or `block`.
    pub outcome: String,
    /// The filter's reason.
    pub reason: String,
    /// The filter's findings.
    pub findings: Vec<Finding>,
}

/// How well the passages carry the draft.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Evidence {
    /// Sentences that state something.
    pub sentences: u32,
    /// How many of them a passage carries.
    pub supported: u32,
    /// The best passage's score.
    #[component(name = "best-score")]
    pub best_score: f32,
    /// Overall confidence in the draft, 0 to 1.
    pub confidence: f32,
}

/// What the host has found out in this turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Dossier {
    /// The classifier's verdict.
    pub classification: Classification,
    /// What retrieval found.
    pub passages: Vec<Passage>,
    /// The text as the filters left it; absent when nothing was drafted.
    pub draft: Option<String>,
    /// `route`, `declined`, `model-unavailable`, `budget`.
    #[component(name = "no-draft-reason")]
    pub no_draft_reason: Option<String>,
    /// The evidence.
    pub evidence: Evidence,
    /// What the filters said, in order.
    pub filters: Vec<FilterOutcome>,
}

/// A matter for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Ticket {
    /// How urgent.
    pub priority: Priority,
    /// Machine-readable reason; at most 64 bytes.
    pub reason: String,
    /// For the person who takes it; at most 2,000 bytes.
    pub summary: String,
    /// Tags.
    pub tags: Vec<String>,
    /// What the customer is told meanwhile; absent: nothing.
    pub notice: Option<String>,
}

/// The escalation hook's verdict (WIT: `escalation-hook.verdict`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(variant)]
#[serde(tag = "kind", content = "value", rename_all = "kebab-case")]
pub enum EscalationVerdict {
    /// Send the draft.
    #[component(name = "send")]
    Send,
    /// Send this question instead.
    #[component(name = "ask-back")]
    AskBack(String),
    /// Hand the conversation to a person.
    #[component(name = "hand-over")]
    HandOver(Ticket),
    /// Send the draft and open a ticket all the same.
    #[component(name = "send-and-ticket")]
    SendAndTicket(Ticket),
}

impl EscalationVerdict {
    /// The WIT's word for the verdict.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::AskBack(_) => "ask-back",
            Self::HandOver(_) => "hand-over",
            Self::SendAndTicket(_) => "send-and-ticket",
        }
    }
}

/// Why a knowledge look-up gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(variant)]
#[serde(tag = "kind", content = "value", rename_all = "kebab-case")]
pub enum LookupError {
    /// The call's limit of look-ups or of time is used up.
    #[component(name = "limit-reached")]
    LimitReached,
    /// The host could not search just now.
    #[component(name = "unavailable")]
    Unavailable(String),
}

/// How grave a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(enum)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum LogLevel {
    /// For the author of the policy.
    #[component(name = "debug")]
    Debug,
    /// Worth knowing.
    #[component(name = "info")]
    Info,
    /// Looks wrong.
    #[component(name = "warn")]
    Warn,
    /// Is wrong.
    #[component(name = "error")]
    Error,
}
