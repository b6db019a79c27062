//! The record of a decision: everything that led to it, so that a person can see why, and a later policy can be tried on
//! the same turn.
//!
//! The JSON form is versioned. Fields are added within a version; one that changes its meaning makes a new version.

use std::sync::LazyLock;

use frontdesk_policy_engine::types as policy;
use frontdesk_policy_engine::{Called, FaultKind, FilterRun, Manifest, TurnCalls, TurnCount};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::answer::{CitedSentence, DraftOutcome};
use crate::policies::Serving;

/// Version of [`DecisionRecord`]'s JSON form.
pub const RECORD_VERSION: i32 = 1;

/// The contract that this host offers, file by file.
const WIT: [(&str, &str); 6] = [
    ("hooks.wit", include_str!("../../../../wit/policy/0.1.0/hooks.wit")),
    ("host.wit", include_str!("../../../../wit/policy/0.1.0/host.wit")),
    ("lifecycle.wit", include_str!("../../../../wit/policy/0.1.0/lifecycle.wit")),
    ("package.wit", include_str!("../../../../wit/policy/0.1.0/package.wit")),
    ("types.wit", include_str!("../../../../wit/policy/0.1.0/types.wit")),
    ("worlds.wit", include_str!("../../../../wit/policy/0.1.0/worlds.wit")),
];

/// SHA-256 over names and contents of the contract's files, in hex.
pub fn wit_digest() -> &'static str {
    static DIGEST: LazyLock<String> = LazyLock::new(|| {
        let mut hash = Sha256::new();
        for (name, text) in WIT {
            hash.update(name.as_bytes());
            hash.update([0]);
            hash.update(Sha256::digest(text.as_bytes()));
        }
        hex::encode(hash.finalize())
    });
    &DIGEST
}

/// A sentence of the answer and the passages that carry it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Citation {
    pub sentence: String,
    pub passages: Vec<String>,
    /// How much of the sentence they carry, 0 to 1.
    pub support: f32,
}

impl Citation {
    pub fn of(sentence: &CitedSentence) -> Self {
        Self { sentence: sentence.text.clone(), passages: sentence.passage_ids.clone(), support: sentence.support }
    }
}

/// How long each step took, in microseconds; 0 when it was not taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTimes {
    pub classify_us: u64,
    pub retrieve_us: u64,
    pub tone_us: u64,
    pub draft_us: u64,
    pub filter_us: u64,
    pub escalate_us: u64,
}

/// Everything about one turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Version of the host that decided.
    pub host_version: String,
    /// SHA-256 over the contract (WIT) that the host offered, in hex; empty in records of before.
    #[serde(default)]
    pub wit_digest: String,
    pub chain: String,
    /// The revision's manifest: component and settings digests, limits, grants.
    pub manifest: Option<Manifest>,
    /// The input of every hook.
    pub turn: policy::Turn,
    pub classify: Option<Called<policy::Classification>>,
    pub labels: Vec<String>,
    pub passages: Vec<policy::Passage>,
    /// The curated question of each passage, where it has one.
    pub questions: Vec<Option<String>>,
    pub tone: Option<Called<policy::Plan>>,
    /// The plan that was used: the tone policy's, or the host's own when that failed.
    pub plan: Option<policy::Plan>,
    pub draft: Option<DraftOutcome>,
    pub no_draft_reason: Option<String>,
    /// The drafted text before preamble, closing and filters.
    pub answer: Option<String>,
    pub citations: Vec<Citation>,
    pub evidence: policy::Evidence,
    pub filter: Option<FilterRun>,
    pub escalate: Option<Called<policy::EscalationVerdict>>,
    /// What the customer is sent, in parts.
    pub replies: Vec<String>,
    pub times: StepTimes,
}

impl DecisionRecord {
    pub fn new(turn: policy::Turn, chain: &str, serving: Option<&Serving>) -> Self {
        Self {
            host_version: env!("CARGO_PKG_VERSION").to_owned(),
            wit_digest: wit_digest().to_owned(),
            chain: chain.to_owned(),
            manifest: serving.map(|serving| serving.revision.manifest().clone()),
            turn,
            classify: None,
            labels: Vec::new(),
            passages: Vec::new(),
            questions: Vec::new(),
            tone: None,
            plan: None,
            draft: None,
            no_draft_reason: None,
            answer: None,
            citations: Vec::new(),
            evidence: policy::Evidence::default(),
            filter: None,
            escalate: None,
            replies: Vec::new(),
            times: StepTimes::default(),
        }
    }

    /// What tripwires count of the turn.
    pub fn count(&self, outcome: &str) -> TurnCount {
        let calls = TurnCalls {
            classify: self.classify.as_ref(),
            tone: self.tone.as_ref(),
            filter: self.filter.as_ref(),
            escalate: self.escalate.as_ref(),
        };
        TurnCount {
            fault: calls.faults().next().map(ToString::to_string),
            missed_deadline: calls.faults().any(|fault| matches!(fault.kind, FaultKind::Deadline { .. })),
            is_escalated: outcome == "ticket",
            fuel: calls.fuel_used(),
        }
    }
}
