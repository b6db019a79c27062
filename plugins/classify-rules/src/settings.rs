//! The settings as types. The schema beside the crate says the same to people.

use frontdesk_policy_sdk::types;
use serde::Deserialize;

/// Everything the classifier knows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    pub labels: Vec<Label>,
    #[serde(default)]
    pub rules: Vec<Rule>,
    #[serde(default)]
    pub negations: Vec<Negations>,
    #[serde(default)]
    pub payloads: Vec<Payload>,
    #[serde(default)]
    pub links: Links,
    #[serde(default = "ignore")]
    pub stickers: RouteName,
    #[serde(default = "human")]
    pub attachments: RouteName,
    #[serde(default = "default_other_language_factor")]
    pub other_language_factor: f32,
    #[serde(default)]
    pub spare_words: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Label {
    pub name: String,
    pub route: RouteName,
    pub threshold: f32,
    pub reason: String,
    #[serde(default)]
    pub alone: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    pub label: String,
    #[serde(default)]
    pub language: Option<String>,
    pub weight: f32,
    pub phrases: Vec<String>,
    #[serde(default)]
    pub unless: Vec<String>,
    #[serde(default)]
    pub negation: Negation,
    #[serde(default)]
    pub obfuscated_only: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Negation {
    /// A negation before the phrase cancels the hit.
    #[default]
    Cancels,
    /// Only a negated phrase is a hit.
    Required,
    /// Negations do not matter.
    Ignored,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Negations {
    pub language: String,
    pub words: Vec<String>,
    #[serde(default)]
    pub unless: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Payload {
    pub payload: String,
    pub label: String,
}

/// What links in a message say.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Links {
    #[serde(default)]
    pub label: Option<String>,
    #[serde(default)]
    pub suspicious_hosts: Vec<String>,
    #[serde(default)]
    pub suspicious_weight: f32,
    #[serde(default)]
    pub any_weight: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteName {
    Answer,
    Human,
    Spam,
    Ignore,
}

impl From<RouteName> for types::Route {
    fn from(name: RouteName) -> Self {
        match name {
            RouteName::Answer => Self::Answer,
            RouteName::Human => Self::Human,
            RouteName::Spam => Self::Spam,
            RouteName::Ignore => Self::Ignore,
        }
    }
}

fn ignore() -> RouteName {
    RouteName::Ignore
}

fn human() -> RouteName {
    RouteName::Human
}

fn default_other_language_factor() -> f32 {
    0.6
}
