//! The settings as types. The schema beside the crate says the same to people.

use std::collections::BTreeMap;

use frontdesk_policy_sdk::text::Localized;
use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Name of the chosen tone.
    pub tone: String,
    pub tones: BTreeMap<String, ToneOf>,
    pub languages: Vec<String>,
    #[serde(default)]
    pub about: String,
    /// By language: how to address the customer.
    #[serde(default)]
    pub address: BTreeMap<String, Address>,
    #[serde(default = "default_max_characters")]
    pub max_characters: u32,
    #[serde(default)]
    pub use_name: bool,
    #[serde(default)]
    pub disclosure: Disclosure,
    #[serde(default)]
    pub signature: Localized,
    #[serde(default)]
    pub words: Words,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ToneOf {
    pub voice: String,
    #[serde(default)]
    pub reading_level: ReadingLevel,
    /// Overrules the address by language.
    #[serde(default)]
    pub address: Option<Address>,
    #[serde(default)]
    pub max_characters: Option<u32>,
    #[serde(default)]
    pub temperature: Option<f32>,
    /// What to do beyond the voice when the customer complains.
    #[serde(default)]
    pub complaint: String,
    #[serde(default)]
    pub examples: Vec<ExamplePair>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExamplePair {
    pub language: String,
    pub customer: String,
    pub reply: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Address {
    Formal,
    Informal,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadingLevel {
    Simple,
    #[default]
    Everyday,
    Expert,
}

impl ReadingLevel {
    pub(crate) fn instruction(self) -> &'static str {
        match self {
            Self::Simple => {
                "Write so that a twelve-year-old understands every sentence: common words, one thought a sentence, at \
                 most twelve words a sentence, no foreign words and no abbreviations."
            }
            Self::Everyday => {
                "Write everyday language: short sentences, and explain a technical word when you need one."
            }
            Self::Expert => "The reader knows the field: use its technical words without explaining them.",
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Disclosure {
    #[serde(default)]
    pub enabled: bool,
    #[serde(default)]
    pub text: Localized,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Words {
    /// By language, or `all`.
    #[serde(default)]
    pub forbidden: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub preferred: BTreeMap<String, Vec<String>>,
}

fn default_max_characters() -> u32 {
    700
}
