//! A chain that was loaded as a whole: immutable, shared, named by its content.
//!
//! A revision's id is the SHA-256 of its [`Manifest`]: which components (by digest), which settings (by digest), in which
//! order, with which limits, grants and meaning of faults, for which contract. Two folders with the same content give the
//! same id on every machine; one changed byte of a component gives another. Descriptions, file names and the gate's
//! thresholds do not change what a turn would see and are not part of it.
//!
//! Whoever holds the revision (an `Arc`) can finish a turn on it; when the last holder drops it, its code is freed.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::chain::{Bundle, ChainError, ChainSpec, ComponentRef, PolicySpec, SettingsSource, settings_from_file};
use crate::engine::Engine;
use crate::fault::{Called, Fault};
use crate::hook::{FaultAction, Hook};
use crate::host::{PACKAGE, VERSION};
use crate::limits::Limits;
use crate::load::{Grants, LoadError, LoadRequest, SETTINGS_BYTES_MAX, canonical_json, sha256_hex};
use crate::lookup::CallContext;
use crate::policy::Policy;
use crate::types::{
    Classification, Dossier, Draft, EscalationVerdict, FilterOutcome, FilterVerdict, Outcome, Passage, Plan, Turn,
};

/// The version of the manifest's form.
const MANIFEST_VERSION: u32 = 1;

/// Name of a revision: 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RevisionId(String);

impl RevisionId {
    /// Reads an id back from where it was stored.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        fits.then(|| Self(text.to_owned()))
    }

    /// All 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl TryFrom<String> for RevisionId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
            .ok_or_else(|| format!("`{}` is no revision id: 64 hexadecimal digits are expected", text.escape_debug()))
    }
}

impl From<RevisionId> for String {
    fn from(id: RevisionId) -> Self {
        id.0
    }
}

impl std::fmt::Display for RevisionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a revision consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form.
    pub manifest_version: u32,
    /// The contract, such as `frontdesk:policy@0.1.0`.
    pub contract: String,
    /// The policies, in the order in which a turn meets them.
    pub policies: Vec<PolicyManifest>,
}

impl Manifest {
    /// The id that follows from the content.
    ///
    /// # Errors
    /// Never for a manifest that this crate made; a number that JSON cannot hold would be one.
    pub fn id(&self) -> Result<RevisionId, serde_json::Error> {
        let value = serde_json::to_value(self)?;
        Ok(RevisionId(sha256_hex(canonical_json(&value).as_bytes())))
    }
}

/// One policy of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyManifest {
    /// The hook.
    pub hook: Hook,
    /// Name from the component's description.
    pub name: String,
    /// Version from the component's description.
    pub version: String,
    /// SHA-256 of the component.
    pub component_sha256: String,
    /// SHA-256 of the canonical settings.
    pub settings_sha256: String,
    /// What a fault means.
    pub on_fault: FaultAction,
    /// Limits of each call.
    pub limits: Limits,
    /// What it is granted.
    pub grants: Grants,
}

/// A policy in its place in a chain.
#[derive(Clone, Debug)]
pub struct StagedPolicy {
    /// The policy.
    pub policy: Policy,
    /// What a fault of it means.
    pub on_fault: FaultAction,
    /// What the chain grants it.
    pub grants: Grants,
}

/// A chain that was loaded as a whole.
#[derive(Debug)]
pub struct Revision {
    id: RevisionId,
    manifest: Manifest,
    spec: ChainSpec,
    classify: StagedPolicy,
    tone: StagedPolicy,
    filters: Vec<StagedPolicy>,
    escalate: StagedPolicy,
}

/// Why a chain was not staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// `chain.toml` itself is wrong.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// One of its policies is.
    #[error("policy {number} (hook `{hook}`, component `{component}`): {problem}")]
    Policy {
        /// Its place in the file, from 1.
        number: usize,
        /// Its hook.
        hook: Hook,
        /// Its component, as written in the chain.
        component: String,
        /// What is wrong with it.
        #[source]
        problem: Box<StageProblem>,
    },
    /// The manifest could not be written; not expected.
    #[error("the revision's manifest cannot be written as JSON")]
    Manifest(#[from] serde_json::Error),
}

impl StageError {
    /// The reason's name; see [`LoadError::code`].
    #[must_use]
    pub fn code(&self) -> Cow<'static, str> {
        match self {
            Self::Chain(_) => Cow::Borrowed("chain-toml"),
            Self::Manifest(_) => Cow::Borrowed("manifest"),
            Self::Policy { problem, .. } => match problem.as_ref() {
                StageProblem::MissingFile { .. } => Cow::Borrowed("file-missing"),
                StageProblem::Digest { .. } => Cow::Borrowed("other-digest"),
                StageProblem::Settings { .. } => Cow::Borrowed("settings-unreadable"),
                StageProblem::Load(error) => error.code(),
            },
        }
    }
}

/// What is wrong with a policy of a chain.
#[derive(Debug, thiserror::Error)]
pub enum StageProblem {
    /// A file that is not there.
    #[error("the file `{path}` is missing; the path is relative to the folder of chain.toml")]
    MissingFile {
        /// The key in the bundle.
        path: String,
    },
    /// Another component than the chain names.
    #[error("the component has the digest sha256:{found}, and the chain asks for sha256:{expected}")]
    Digest {
        /// The digest of what was given.
        found: String,
        /// The digest in the chain.
        expected: String,
    },
    /// Settings that cannot be read.
    #[error("settings `{path}`: {reason}")]
    Settings {
        /// The file.
        path: String,
        /// What is wrong, with line and column where there are any.
        reason: String,
    },
    /// The component was refused.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl Engine {
    /// Loads a whole chain. Blocks like [`Engine::load`].
    ///
    /// # Errors
    /// The first policy that cannot be used, and why. Nothing is kept of a chain that fails.
    pub fn stage(&self, bundle: &Bundle) -> Result<Revision, StageError> {
        let spec = ChainSpec::parse(&bundle.chain_toml)?;
        let (mut classify, mut tone, mut filters, mut escalate) = (None, None, Vec::new(), None);
        let mut policies = Vec::with_capacity(spec.policies.len());
        for wanted in &spec.policies {
            let staged = self.stage_policy(bundle, wanted).map_err(|problem| StageError::Policy {
                number: wanted.number,
                hook: wanted.hook,
                component: wanted.component.file_key(),
                problem: Box::new(problem),
            })?;
            policies.push(staged.manifest());
            match wanted.hook {
                Hook::Classify => classify = Some(staged),
                Hook::Tone => tone = Some(staged),
                Hook::Filter => filters.push(staged),
                Hook::Escalate => escalate = Some(staged),
            }
        }
        let one = |hook: Hook, staged: Option<StagedPolicy>| {
            staged.ok_or(ChainError::Count { hook, found: 0, expected: "exactly one" })
        };
        let manifest =
            Manifest { manifest_version: MANIFEST_VERSION, contract: format!("{PACKAGE}@{VERSION}"), policies };
        Ok(Revision {
            id: manifest.id()?,
            classify: one(Hook::Classify, classify)?,
            tone: one(Hook::Tone, tone)?,
            filters,
            escalate: one(Hook::Escalate, escalate)?,
            manifest,
            spec,
        })
    }

    fn stage_policy(&self, bundle: &Bundle, wanted: &PolicySpec) -> Result<StagedPolicy, StageProblem> {
        let file =
            |path: &str| bundle.files.get(path).ok_or_else(|| StageProblem::MissingFile { path: path.to_owned() });
        let wasm = file(&wanted.component.file_key())?;
        if let ComponentRef::Sha256(expected) = &wanted.component {
            let found = sha256_hex(wasm);
            if found != *expected {
                return Err(StageProblem::Digest { found, expected: expected.clone() });
            }
        }
        let settings = match &wanted.settings {
            SettingsSource::Empty => serde_json::json!({}),
            SettingsSource::Inline(value) => value.clone(),
            SettingsSource::File(path) => {
                let bytes = file(path)?;
                let problem = |reason: String| StageProblem::Settings { path: path.clone(), reason };
                if bytes.len() > SETTINGS_BYTES_MAX {
                    return Err(problem(format!("{} bytes; at most {SETTINGS_BYTES_MAX} are read", bytes.len())));
                }
                settings_from_file(path, bytes).map_err(problem)?
            }
        };
        let policy = self.load(LoadRequest {
            hook: wanted.hook,
            wasm,
            settings: &settings,
            limits: wanted.limits.clone(),
            grants: wanted.grants,
        })?;
        Ok(StagedPolicy { policy, on_fault: wanted.on_fault, grants: wanted.grants })
    }
}

impl StagedPolicy {
    fn manifest(&self) -> PolicyManifest {
        let policy = &self.policy;
        PolicyManifest {
            hook: policy.hook(),
            name: policy.description().name.clone(),
            version: policy.description().version.clone(),
            component_sha256: policy.component_sha256().to_owned(),
            settings_sha256: policy.settings_sha256().to_owned(),
            on_fault: self.on_fault,
            limits: policy.limits().clone(),
            grants: self.grants,
        }
    }
}

impl Revision {
    /// The revision's name.
    #[must_use]
    pub fn id(&self) -> &RevisionId {
        &self.id
    }

    /// What it consists of.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The chain as it was written.
    #[must_use]
    pub fn spec(&self) -> &ChainSpec {
        &self.spec
    }

    /// Its policies, in the order in which a turn meets them.
    pub fn policies(&self) -> impl Iterator<Item = &StagedPolicy> {
        [&self.classify, &self.tone].into_iter().chain(&self.filters).chain([&self.escalate])
    }

    /// The policy that classifies.
    #[must_use]
    pub fn classifier(&self) -> &StagedPolicy {
        &self.classify
    }

    /// Calls the classifier.
    pub async fn classify(&self, context: &CallContext, turn: &Turn) -> Called<Classification> {
        self.classify.policy.classify(context, turn).await
    }

    /// Calls the tone policy.
    pub async fn compose(
        &self,
        context: &CallContext,
        turn: &Turn,
        classification: &Classification,
        passages: &[Passage],
    ) -> Called<Plan> {
        self.tone.policy.compose(context, turn, classification, passages).await
    }

    /// Calls the filters in order, each on the text the one before let through, until one blocks or faults.
    pub async fn filter(&self, context: &CallContext, turn: &Turn, draft: &Draft, passages: &[Passage]) -> FilterRun {
        let mut draft = draft.clone();
        let mut steps = Vec::with_capacity(self.filters.len());
        let mut split_hints = Vec::new();
        for staged in &self.filters {
            let called = staged.policy.apply(context, turn, &draft, passages).await;
            let description = staged.policy.description();
            let next = match &called.result {
                Err(_) => Some(FilterResult::Held { policy: description.name.clone() }),
                Ok(FilterVerdict { outcome: Outcome::Block(blocked), .. }) => {
                    Some(FilterResult::Blocked { policy: description.name.clone(), reason: blocked.reason.clone() })
                }
                Ok(FilterVerdict { outcome: Outcome::Rewrite(rewritten), split_hints: hints, .. }) => {
                    draft.text.clone_from(&rewritten.text);
                    // Offsets in a text that is no more mean nothing.
                    split_hints.clone_from(hints);
                    None
                }
                Ok(FilterVerdict { outcome: Outcome::Pass, split_hints: hints, .. }) => {
                    if !hints.is_empty() {
                        split_hints.clone_from(hints);
                    }
                    None
                }
            };
            steps.push(FilterStep { policy: description.name.clone(), version: description.version.clone(), called });
            if let Some(result) = next {
                return FilterRun { result, steps };
            }
        }
        FilterRun { result: FilterResult::Passed { text: draft.text, split_hints }, steps }
    }

    /// Calls the escalation policy.
    pub async fn decide(&self, context: &CallContext, turn: &Turn, dossier: &Dossier) -> Called<EscalationVerdict> {
        self.escalate.policy.decide(context, turn, dossier).await
    }
}

/// What the filters of a chain made of a draft.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilterRun {
    /// What becomes of the text.
    pub result: FilterResult,
    /// The filters that were called, in order.
    pub steps: Vec<FilterStep>,
}

/// What becomes of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FilterResult {
    /// It may go out, in this form.
    Passed {
        /// The text after all changes.
        text: String,
        /// Byte offsets at which it may be cut, ascending; may be empty.
        split_hints: Vec<u32>,
    },
    /// A filter refused it.
    Blocked {
        /// The filter's name.
        policy: String,
        /// The filter's reason.
        reason: String,
    },
    /// A filter faulted: the text is not sent. The fault is in the last step.
    Held {
        /// The filter's name.
        policy: String,
    },
}

/// One filter's call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilterStep {
    /// The filter's name.
    pub policy: String,
    /// The filter's version.
    pub version: String,
    /// What came of it.
    pub called: Called<FilterVerdict>,
}

impl FilterRun {
    /// The text that may go out, if any may.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.result {
            FilterResult::Passed { text, .. } => Some(text),
            FilterResult::Blocked { .. } | FilterResult::Held { .. } => None,
        }
    }

    /// The fault that ended the run, if one did.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.steps.last().and_then(|step| step.called.result.as_ref().err())
    }

    /// What the escalation hook is told. A filter that faulted counts as one that blocked: the contract has three words,
    /// and the text does not go out.
    #[must_use]
    pub fn outcomes(&self) -> Vec<FilterOutcome> {
        let outcome = |step: &FilterStep| match &step.called.result {
            Ok(verdict) => FilterOutcome {
                policy: step.policy.clone(),
                outcome: verdict.outcome.as_str().to_owned(),
                reason: verdict.outcome.reason().to_owned(),
                findings: verdict.findings.clone(),
            },
            Err(fault) => FilterOutcome {
                policy: step.policy.clone(),
                outcome: "block".to_owned(),
                reason: format!("the filter failed: {}", fault.kind.as_str()),
                findings: Vec::new(),
            },
        };
        self.steps.iter().map(outcome).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored revisions are known by their ids, so a release that named the same content otherwise would find none of them:
    /// when this fails, keep the old form for what it can say, and raise `manifest_version` for the rest.
    #[test]
    fn the_same_content_has_the_same_id_in_every_release() {
        let policy = PolicyManifest {
            hook: Hook::Classify,
            name: "classify-rules".to_owned(),
            version: "1.0.0".to_owned(),
            component_sha256: "ab".repeat(32),
            settings_sha256: "cd".repeat(32),
            on_fault: FaultAction::Human,
            limits: Limits::default(),
            grants: Grants::default(),
        };
        let manifest =
            Manifest { manifest_version: 1, contract: "frontdesk:policy@0.1.0".to_owned(), policies: vec![policy] };
        assert_eq!(manifest.id().unwrap().as_str(), "59d591f9eeabc5063ab4c2fe427093c77baad85090c2ea0c934fb5d32f9af9b2");
    }
}
