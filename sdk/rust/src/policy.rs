//! The traits that an author implements: [`Policy`] for every component, and one of [`Classifier`], [`Tone`],
//! [`Filter`], [`Escalation`] for its hook.
//!
//! A hook gets `&self`, never `&mut self`: the host gives every call a fresh instance whose memory is what `configure`
//! left, so whatever a call wrote would be gone. Build every table in [`Policy::configure`].

use serde::de::DeserializeOwned;

use crate::types::{Classification, Passage, Turn};
use crate::{escalation, filter, tone};

/// What a component says about itself (`lifecycle.description`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Lower-case letters, digits and dashes, such as `classify-rules`.
    pub name: String,
    /// Semantic version, such as `1.4.2`; usually `env!("CARGO_PKG_VERSION")`.
    pub version: String,
    /// One or two sentences: what it judges, for whom it is.
    pub summary: String,
    /// JSON Schema (draft 2020-12) of the settings.
    pub settings_schema: String,
}

impl Description {
    /// A description from string slices.
    #[must_use]
    pub fn new(name: &str, version: &str, summary: &str, settings_schema: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            summary: summary.to_owned(),
            settings_schema: settings_schema.to_owned(),
        }
    }
}

/// What is wrong with one field of the settings (`lifecycle.setting-error`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    /// JSON Pointer (RFC 6901) to the field, such as `/rules/3/phrases/0`; empty for the whole document.
    pub path: String,
    /// What was found, what was expected, and what to do: one sentence.
    pub message: String,
}

impl SettingError {
    /// An error at `path`, a JSON Pointer.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// What every component does, whichever hook it serves.
///
/// The host calls [`describe`](Policy::describe) on load, then [`configure`](Policy::configure) once, then the hook.
pub trait Policy: Sized + Send + Sync + 'static {
    /// The settings as a type. Put `#[serde(deny_unknown_fields)]` on it and defaults where there are any; the schema
    /// in the description says the same to people.
    type Settings: DeserializeOwned;

    /// Describes the component; must not depend on the settings.
    fn describe() -> Description;

    /// Takes the settings and builds whatever the hook needs.
    ///
    /// # Errors
    /// Every mistake in the settings, each with the JSON Pointer of its field. What the schema can say (types, ranges,
    /// unknown and missing fields) has been checked already.
    fn configure(settings: Self::Settings) -> Result<Self, Vec<SettingError>>;
}

/// First hook: what becomes of the turn?
pub trait Classifier: Policy {
    /// Judges the turn.
    ///
    /// # Errors
    /// One sentence why the component cannot judge; the host treats it as a fault.
    fn classify(&self, turn: &Turn) -> Result<Classification, String>;
}

/// Second hook: how shall the answer sound?
pub trait Tone: Policy {
    /// Composes the plan for the draft.
    ///
    /// # Errors
    /// One sentence why the component cannot compose; the host treats it as a fault.
    fn compose(&self, turn: &Turn, classification: &Classification, passages: &[Passage])
    -> Result<tone::Plan, String>;
}

/// Third hook: may this text go out?
pub trait Filter: Policy {
    /// Judges a draft.
    ///
    /// # Errors
    /// One sentence why the component cannot judge; the host treats it as a fault.
    fn apply(&self, turn: &Turn, draft: &filter::Draft, passages: &[Passage]) -> Result<filter::Verdict, String>;
}

/// Fourth hook: with all the evidence, what is done?
pub trait Escalation: Policy {
    /// Decides.
    ///
    /// # Errors
    /// One sentence why the component cannot decide; the host treats it as a fault.
    fn decide(&self, turn: &Turn, dossier: &escalation::Dossier) -> Result<escalation::Verdict, String>;
}
