//! The settings as types. The schema beside the crate says the same to people.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[derive(Default)]
pub struct Settings {
    pub length: Length,
    pub links: Links,
    pub pii: Pii,
    pub toxicity: Lexicon,
    pub promises: Promises,
    pub leakage: Leakage,
    pub markdown: MarkdownAction,
}

/// What is done about a finding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The check is switched off.
    Off,
    Note,
    #[default]
    Rewrite,
    Block,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MarkdownAction {
    Off,
    Note,
    #[default]
    Rewrite,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Length {
    /// `rewrite` shortens at a sentence.
    pub action: Action,
    /// Characters of one message.
    pub characters_per_message: usize,
    pub messages: usize,
}

impl Default for Length {
    fn default() -> Self {
        // Messenger takes fewer than 2,000 characters a message.
        Self { action: Action::Rewrite, characters_per_message: 1_999, messages: 2 }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Links {
    pub action: Action,
    pub allowed_hosts: Vec<String>,
    /// A link that stands in a passage, with the same host and no trick, is allowed too.
    pub allow_from_passages: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Pii {
    pub cards: Action,
    pub ibans: Action,
    pub emails: Action,
    pub phones: Action,
    pub replacement: String,
    /// The page's own addresses and numbers.
    pub allowed: Vec<String>,
}

impl Default for Pii {
    fn default() -> Self {
        Self {
            cards: Action::Block,
            ibans: Action::Block,
            emails: Action::Rewrite,
            phones: Action::Rewrite,
            replacement: "[removed]".to_owned(),
            allowed: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Lexicon {
    pub action: Action,
    /// Phrases by language; all languages are looked for, because a draft may mix them.
    pub phrases: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Promises {
    pub action: Action,
    /// By the name of the promise, such as `refund`: phrases by language.
    pub kinds: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// A sentence that contains one of these makes no promise ("we cannot guarantee").
    pub unless: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Leakage {
    pub action: Action,
    pub phrases: BTreeMap<String, Vec<String>>,
    /// So many words in a row that are also in the instructions are a leak.
    pub repeated_words: usize,
}

impl Default for Leakage {
    fn default() -> Self {
        Self { action: Action::Block, phrases: BTreeMap::new(), repeated_words: 10 }
    }
}
