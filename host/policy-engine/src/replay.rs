//! A recorded turn, judged again by another revision.
//!
//! A decision record holds everything that the policies were told: the turn, the passages, what the host answered to
//! look-ups, and the draft. [`replay`] calls the hooks of a revision with the same, asks nobody, and says where the
//! verdicts differ. What it cannot know is what a drafting model would have written; so every replay has a [`Level`]:
//!
//! ```text
//!                             candidate: answer                     candidate: another route
//! record: answer, same plan   exact                                 exact (no draft is needed)
//! record: answer, other plan  draft-would-differ: the recorded      exact
//!                             draft is judged in its place
//! record: another route       no-draft-recorded: only the           exact
//!                             classifier is replayed
//! ```
//!
//! On the revision that made the record, a replay gives the same bytes. Faults that depend on the clock of the machine
//! (`deadline`) are compared by their kind only.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::assembly::{self, Conclusion, Verdicts};
use crate::fault::{Called, Fault, HostAnswer};
use crate::hook::Hook;
use crate::load::{canonical_json, sha256_hex};
use crate::lookup::{CallContext, RecordedLookup};
use crate::revision::{FilterRun, Revision};
use crate::types::{Classification, Dossier, EscalationVerdict, Evidence, Passage, Plan, Route, Turn};

/// Most places at which one verdict is said to differ.
pub const DIFFERENCES_MAX: usize = 50;

/// The part of a decision record that a replay needs. Reads records of every version 1: fields that it does not know
/// are passed over, fields that were not recorded are empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedTurn {
    /// Version of the host that decided.
    #[serde(default)]
    pub host_version: String,
    /// Name of the chain.
    #[serde(default)]
    pub chain: String,
    /// The manifest of the revision that decided, as it was written.
    #[serde(default)]
    pub manifest: Option<Value>,
    /// The input of every hook.
    pub turn: Turn,
    /// The classifier's call.
    #[serde(default)]
    pub classify: Option<Called<Classification>>,
    /// What retrieval found.
    #[serde(default)]
    pub passages: Vec<Passage>,
    /// The tone policy's call.
    #[serde(default)]
    pub tone: Option<Called<Plan>>,
    /// The plan that was used.
    #[serde(default)]
    pub plan: Option<Plan>,
    /// `route`, `declined`, `model-unavailable`, `budget`.
    #[serde(default)]
    pub no_draft_reason: Option<String>,
    /// The drafted text before preamble, closing and filters.
    #[serde(default)]
    pub answer: Option<String>,
    /// What the answer's sentences cite.
    #[serde(default)]
    pub citations: Vec<RecordedCitation>,
    /// What the host found about the draft.
    #[serde(default)]
    pub evidence: Evidence,
    /// The filters' calls.
    #[serde(default)]
    pub filter: Option<FilterRun>,
    /// The escalation policy's call.
    #[serde(default)]
    pub escalate: Option<Called<EscalationVerdict>>,
    /// What the customer was sent, in parts.
    #[serde(default)]
    pub replies: Vec<String>,
}

/// A sentence's citations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedCitation {
    /// Ids of passages.
    #[serde(default)]
    pub passages: Vec<String>,
}

impl RecordedTurn {
    /// The id of the revision that decided: the digest of its manifest.
    #[must_use]
    pub fn revision_id(&self) -> Option<String> {
        self.manifest.as_ref().map(|manifest| sha256_hex(canonical_json(manifest).as_bytes()))
    }

    /// How the turn ended.
    #[must_use]
    pub fn conclusion(&self) -> Conclusion {
        let verdicts = Verdicts {
            classify: self.classify.as_ref(),
            filter: self.filter.as_ref(),
            escalate: self.escalate.as_ref(),
        };
        assembly::conclude(&self.turn, verdicts, self.plan.as_ref(), &self.evidence)
    }

    /// Fuel of all recorded calls.
    #[must_use]
    pub fn fuel_used(&self) -> u64 {
        self.turn_calls().fuel_used()
    }

    /// The recorded calls.
    #[must_use]
    pub fn turn_calls(&self) -> TurnCalls<'_> {
        TurnCalls {
            classify: self.classify.as_ref(),
            tone: self.tone.as_ref(),
            filter: self.filter.as_ref(),
            escalate: self.escalate.as_ref(),
        }
    }

    /// Whether any of the recorded calls faulted.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        self.classify.as_ref().is_some_and(|called| called.result.is_err())
            || self.tone.as_ref().is_some_and(|called| called.result.is_err())
            || self.filter.as_ref().is_some_and(|run| run.fault().is_some())
            || self.escalate.as_ref().is_some_and(|called| called.result.is_err())
    }

    /// Whether drafting was tried, so that the record says what came of it.
    fn holds_drafting(&self) -> bool {
        self.answer.is_some() || self.no_draft_reason.as_deref().is_some_and(|reason| reason != "route")
    }
}

/// How far a replay can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Every verdict is what the revision would have given.
    Exact,
    /// The tone policy would have told the drafting model something else. Filters and escalation judged the recorded draft.
    DraftWouldDiffer,
    /// The revision would have answered where the record holds neither passages nor a draft. Only the classifier was asked.
    NoDraftRecorded,
}

impl Level {
    /// The word in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::DraftWouldDiffer => "draft-would-differ",
            Self::NoDraftRecorded => "no-draft-recorded",
        }
    }
}

/// A recorded turn as another revision judges it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replayed {
    /// How far it can be trusted.
    pub level: Level,
    /// The classifier's call.
    pub classify: Called<Classification>,
    /// The tone policy's call.
    pub tone: Option<Called<Plan>>,
    /// The plan in force.
    pub plan: Option<Plan>,
    /// The filters' calls.
    pub filter: Option<FilterRun>,
    /// The escalation policy's call.
    pub escalate: Option<Called<EscalationVerdict>>,
    /// How the turn would have ended; with [`Level::NoDraftRecorded`] only its route and reason mean something.
    pub conclusion: Conclusion,
}

/// One place at which a verdict is another than the recorded one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The hook.
    pub hook: Hook,
    /// The filter's place in the chain, from 0; absent for the other hooks.
    pub filter: Option<usize>,
    /// JSON Pointer into the verdict; empty for the whole of it.
    pub path: String,
    /// What the record has; null when the policy was not called.
    pub recorded: Value,
    /// What the replay gave.
    pub replayed: Value,
}

impl Replayed {
    /// Where the verdicts differ from the recorded ones; empty when all are equal to the byte. Verdicts that this level
    /// does not replay are not compared.
    #[must_use]
    pub fn differences(&self, recorded: &RecordedTurn) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut compare = |hook: Hook, filter: Option<usize>, recorded: Value, replayed: Value| {
            let mut places = Vec::new();
            differing(&recorded, &replayed, &mut String::new(), &mut places);
            found.extend(places.into_iter().map(|(path, recorded, replayed)| Difference {
                hook,
                filter,
                path,
                recorded,
                replayed,
            }));
        };
        compare(Hook::Classify, None, verdict(recorded.classify.as_ref()), verdict(Some(&self.classify)));
        if self.level == Level::NoDraftRecorded {
            return found;
        }
        compare(Hook::Tone, None, verdict(recorded.tone.as_ref()), verdict(self.tone.as_ref()));
        let steps = |run: Option<&FilterRun>| run.map(|run| run.steps.clone()).unwrap_or_default();
        let (old, new) = (steps(recorded.filter.as_ref()), steps(self.filter.as_ref()));
        for i in 0..old.len().max(new.len()) {
            let step = |steps: &[crate::revision::FilterStep]| verdict(steps.get(i).map(|step| &step.called));
            compare(Hook::Filter, Some(i), step(&old), step(&new));
        }
        compare(Hook::Escalate, None, verdict(recorded.escalate.as_ref()), verdict(self.escalate.as_ref()));
        found
    }

    /// All the calls that were made, with their hooks: fuel used, and whether it ended in a fault.
    #[must_use]
    pub fn calls(&self) -> Vec<(Hook, u64, bool)> {
        self.turn_calls().each().map(|(hook, fuel, fault)| (hook, fuel, fault.is_some())).collect()
    }

    /// All the calls that were made.
    #[must_use]
    pub fn turn_calls(&self) -> TurnCalls<'_> {
        TurnCalls {
            classify: Some(&self.classify),
            tone: self.tone.as_ref(),
            filter: self.filter.as_ref(),
            escalate: self.escalate.as_ref(),
        }
    }
}

/// The calls of one turn, as far as they were made.
#[derive(Clone, Copy, Debug)]
pub struct TurnCalls<'a> {
    /// The classifier's.
    pub classify: Option<&'a Called<Classification>>,
    /// The tone policy's.
    pub tone: Option<&'a Called<Plan>>,
    /// The filters'.
    pub filter: Option<&'a FilterRun>,
    /// The escalation policy's.
    pub escalate: Option<&'a Called<EscalationVerdict>>,
}

impl<'a> TurnCalls<'a> {
    /// All the calls, in order: their hooks, fuel used, and the faults in which they ended.
    pub fn each(self) -> impl Iterator<Item = (Hook, u64, Option<&'a Fault>)> {
        fn one<T>(hook: Hook, called: &Called<T>) -> (Hook, u64, Option<&Fault>) {
            (hook, called.fuel_used, called.result.as_ref().err())
        }
        let steps = self.filter.into_iter().flat_map(|run| &run.steps);
        let classify = self.classify.map(|called| one(Hook::Classify, called));
        let tone = self.tone.map(|called| one(Hook::Tone, called));
        let filters = steps.map(|step| one(Hook::Filter, &step.called));
        let escalate = self.escalate.map(|called| one(Hook::Escalate, called));
        classify.into_iter().chain(tone).chain(filters).chain(escalate)
    }

    /// The faults, in order.
    pub fn faults(self) -> impl Iterator<Item = &'a Fault> {
        self.each().filter_map(|(_, _, fault)| fault)
    }

    /// Fuel of all calls.
    #[must_use]
    pub fn fuel_used(self) -> u64 {
        self.each().map(|(_, fuel, _)| fuel).sum()
    }
}

/// Judges a recorded turn with a revision. Needs a tokio runtime with time enabled, like every call.
pub async fn replay(revision: &Revision, recorded: &RecordedTurn) -> Replayed {
    let context = answering(recorded.classify.as_ref());
    let classify = revision.classify(&context, &recorded.turn).await;
    let mut replayed = Replayed {
        level: Level::Exact,
        plan: None,
        tone: None,
        filter: None,
        escalate: None,
        conclusion: assembly::conclude(
            &recorded.turn,
            Verdicts { classify: Some(&classify), filter: None, escalate: None },
            None,
            &Evidence::default(),
        ),
        classify,
    };
    let Ok(classification) = replayed.classify.result.clone() else { return replayed };
    let dossier = match classification.route {
        Route::Spam | Route::Ignore => return replayed,
        Route::Human => assembly::dossier(&classification, &[], None, Some("route"), &Evidence::default()),
        Route::Answer if !recorded.holds_drafting() => {
            replayed.level = Level::NoDraftRecorded;
            return replayed;
        }
        Route::Answer => answer(revision, recorded, &classification, &mut replayed).await,
    };
    let context = answering(recorded.escalate.as_ref());
    replayed.escalate = Some(revision.decide(&context, &recorded.turn, &dossier).await);
    let verdicts = Verdicts {
        classify: Some(&replayed.classify),
        filter: replayed.filter.as_ref(),
        escalate: replayed.escalate.as_ref(),
    };
    replayed.conclusion = assembly::conclude(&recorded.turn, verdicts, replayed.plan.as_ref(), &dossier.evidence);
    replayed
}

/// Tone and filters, on the recorded draft.
async fn answer(
    revision: &Revision,
    recorded: &RecordedTurn,
    classification: &Classification,
    replayed: &mut Replayed,
) -> Dossier {
    let context = answering(recorded.tone.as_ref());
    let tone = revision.compose(&context, &recorded.turn, classification, &recorded.passages).await;
    let plan = tone.result.clone().unwrap_or_else(|_fault| assembly::default_plan(&recorded.turn));
    if !recorded.plan.as_ref().is_none_or(|used| assembly::drafts_alike(used, &plan)) {
        replayed.level = Level::DraftWouldDiffer;
    }
    replayed.tone = Some(tone);
    if let Some(text) = &recorded.answer {
        let cited = recorded.citations.iter().flat_map(|citation| &citation.passages);
        let draft = assembly::draft_for_filters(&plan, text, cited);
        let steps = recorded.filter.iter().flat_map(|run| &run.steps);
        let answers = steps.flat_map(|step| step.called.host_answers.clone()).collect();
        let context = recorded_lookup(answers);
        replayed.filter = Some(revision.filter(&context, &recorded.turn, &draft, &recorded.passages).await);
    }
    replayed.plan = Some(plan);
    let reason = recorded.no_draft_reason.as_deref();
    assembly::dossier(classification, &recorded.passages, replayed.filter.as_ref(), reason, &recorded.evidence)
}

fn answering<T>(called: Option<&Called<T>>) -> CallContext {
    recorded_lookup(called.map(|called| called.host_answers.clone()).unwrap_or_default())
}

fn recorded_lookup(answers: Vec<HostAnswer>) -> CallContext {
    CallContext::with_lookup(Arc::new(RecordedLookup::new(answers)))
}

/// A verdict as JSON; a fault by what does not depend on the machine.
fn verdict<T: Serialize>(called: Option<&Called<T>>) -> Value {
    match called.map(|called| &called.result) {
        None => Value::Null,
        Some(Ok(result)) => serde_json::to_value(result).unwrap_or_default(),
        Some(Err(fault)) => json!({ "fault": fault.kind.as_str() }),
    }
}

/// The places at which two documents differ, at most [`DIFFERENCES_MAX`].
fn differing(one: &Value, other: &Value, path: &mut String, found: &mut Vec<(String, Value, Value)>) {
    if one == other || found.len() >= DIFFERENCES_MAX {
        return;
    }
    let length = path.len();
    let mut inner = |segment: &str, one: &Value, other: &Value, found: &mut Vec<(String, Value, Value)>| {
        path.push('/');
        path.push_str(&segment.replace('~', "~0").replace('/', "~1"));
        differing(one, other, path, found);
        path.truncate(length);
    };
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                inner(key, value, b.get(key).unwrap_or(&Value::Null), found);
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                inner(key, &Value::Null, value, found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (one, other)) in a.iter().zip(b).enumerate() {
                inner(&i.to_string(), one, other, found);
            }
        }
        _ => found.push((path.clone(), one.clone(), other.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named_by_their_place() {
        let one = json!({"route": "answer", "labels": ["a", "b"], "deep": {"x/y": 1}, "gone": true});
        let other = json!({"route": "human", "labels": ["a", "c"], "deep": {"x/y": 2}, "new": 1});
        let mut found = Vec::new();
        differing(&one, &other, &mut String::new(), &mut found);
        let paths: Vec<&str> = found.iter().map(|(path, _, _)| path.as_str()).collect();
        assert_eq!(paths, ["/route", "/labels/1", "/deep/x~1y", "/gone", "/new"]);
        let mut none = Vec::new();
        differing(&one, &one, &mut String::new(), &mut none);
        assert!(none.is_empty());
        let (many, others): (Vec<u32>, Vec<u32>) = (0..200).map(|n| (n, n + 1)).unzip();
        let mut bounded = Vec::new();
        differing(&json!(many), &json!(others), &mut String::new(), &mut bounded);
        assert_eq!(bounded.len(), DIFFERENCES_MAX);
    }

    #[test]
    fn a_record_with_little_in_it_and_one_with_more_are_both_read() {
        let turn = serde_json::to_value(crate::sample::turn()).unwrap();
        let recorded: RecordedTurn =
            serde_json::from_value(json!({ "turn": turn, "times": {"x": 1}, "of_a_later_host": [1, 2] })).unwrap();
        assert_eq!(recorded.conclusion().outcome, "ticket");
        assert_eq!(recorded.revision_id(), None);
        assert!(!recorded.holds_drafting());
        let declined = RecordedTurn { no_draft_reason: Some("declined".to_owned()), ..recorded };
        assert!(declined.holds_drafting());
    }
}
