//! The settings made ready: labels by number, all phrases in one set.

use frontdesk_policy_sdk::SettingError;
use frontdesk_policy_sdk::settings::Errors;
use frontdesk_policy_sdk::text::{PhraseSet, PhraseSetBuilder};
use frontdesk_policy_sdk::types::{Author, Classification, MessageSource, Route, Turn};

use crate::scan::Scan;
use crate::settings::{self, Negation, Settings};
use crate::{LABELS_MAX, classification};

#[derive(Debug)]
pub(crate) struct Label {
    pub name: String,
    pub route: Route,
    pub threshold: f32,
    pub reason: String,
    pub alone: bool,
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub label: u16,
    /// Number of the language, counted from 1; 0 for every language.
    pub language: u8,
    pub negation: Negation,
    pub obfuscated_only: bool,
    pub weight: f32,
}

/// What a phrase of the set is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A sign for a rule's label.
    Sign(u16),
    /// Takes back the rule's hits in the same sentence.
    Unless(u16),
    /// Negates what follows, in this language.
    Negation(u8),
    /// Takes back a negation in the same sentence.
    NotNegation(u8),
}

#[derive(Debug)]
pub(crate) struct Rules {
    pub labels: Vec<Label>,
    pub rules: Vec<Rule>,
    pub phrases: PhraseSet,
    /// By the phrase's number.
    pub roles: Vec<Role>,
    pub languages: Vec<String>,
    pub other_language_factor: f32,
    pub spare_words: usize,
    pub links: Links,
    payloads: Vec<(String, usize)>,
    stickers: Route,
    attachments: Route,
}

#[derive(Debug)]
pub(crate) struct Links {
    pub label: Option<usize>,
    pub suspicious_hosts: Vec<String>,
    pub suspicious_weight: f32,
    pub any_weight: f32,
}

impl Rules {
    pub(crate) fn build(settings: Settings) -> Result<Self, Vec<SettingError>> {
        let mut builder = Builder::new(&settings);
        builder.check_labels(&settings);
        let rules = settings.rules.iter().enumerate().map(|(index, rule)| builder.rule(index, rule)).collect();
        builder.negations(&settings);
        let links = builder.links(&settings.links);
        let payloads = (settings.payloads.iter().enumerate())
            .map(|(index, it)| (it.payload.clone(), builder.label(&it.label, &format!("/payloads/{index}/label"))))
            .collect();
        let built = Self {
            labels: settings.labels.into_iter().map(Label::from).collect(),
            rules,
            phrases: builder.phrases.build(),
            roles: builder.roles,
            languages: builder.languages,
            other_language_factor: settings.other_language_factor,
            spare_words: settings.spare_words,
            links,
            payloads,
            stickers: settings.stickers.into(),
            attachments: settings.attachments.into(),
        };
        builder.errors.or(built)
    }

    /// Judges a turn by what it is made of, when that is enough: a payload that stands for a label, or no words at all.
    pub(crate) fn judge_wordless(&self, turn: &Turn, scan: &Scan) -> Option<Classification> {
        for payload in turn.messages.iter().rev().filter_map(|message| message.payload.as_deref()) {
            if let Some((_, label)) = self.payloads.iter().find(|(known, _)| known == payload) {
                let label = &self.labels[*label];
                return Some(classification(
                    label.route,
                    1.0,
                    vec![label.name.clone()],
                    "The customer tapped a button for this.",
                ));
            }
        }
        if turn.messages.iter().any(|message| message.source == MessageSource::Lead) {
            let labels = vec!["lead".to_owned()];
            return Some(classification(Route::Human, 1.0, labels, "A lead form was sent; a person follows it up."));
        }
        if scan.only_stickers {
            let labels = vec!["sticker".to_owned()];
            return Some(classification(self.stickers, 1.0, labels, "The customer sent nothing but stickers."));
        }
        if scan.only_attachments {
            let labels = vec!["attachment".to_owned()];
            return Some(classification(
                self.attachments,
                1.0,
                labels,
                "The customer sent attachments without a word.",
            ));
        }
        if scan.words.is_empty() {
            let labels = vec!["wordless".to_owned()];
            // A lone "???" wants attention; the escalation hook asks back.
            let route = if scan.text.contains('?') { Route::Answer } else { Route::Ignore };
            return Some(classification(route, 1.0, labels, "There is no word in the message."));
        }
        None
    }

    /// Whether the last thing said to the customer was a question.
    pub(crate) fn answers_a_question(turn: &Turn) -> bool {
        let last = turn.history.iter().rev().find(|message| !message.text.trim().is_empty());
        last.is_some_and(|message| message.author != Author::Customer && message.text.trim_end().ends_with(['?', '？']))
    }
}

impl From<settings::Label> for Label {
    fn from(label: settings::Label) -> Self {
        Self {
            name: label.name,
            route: label.route.into(),
            threshold: label.threshold,
            reason: label.reason,
            alone: label.alone,
        }
    }
}

struct Builder {
    names: Vec<String>,
    phrases: PhraseSetBuilder,
    roles: Vec<Role>,
    languages: Vec<String>,
    errors: Errors,
}

impl Builder {
    fn new(settings: &Settings) -> Self {
        Self {
            names: settings.labels.iter().map(|label| label.name.clone()).collect(),
            phrases: PhraseSetBuilder::new(),
            roles: Vec::new(),
            languages: Vec::new(),
            errors: Errors::new(),
        }
    }

    fn check_labels(&mut self, settings: &Settings) {
        for (index, label) in settings.labels.iter().enumerate() {
            let path = format!("/labels/{index}/name");
            if settings.labels[..index].iter().any(|other| other.name == label.name) {
                self.errors.push(&path, format!("the label `{}` is in the list twice; remove one", label.name));
            }
            let plain =
                label.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b':');
            if !plain || label.name.len() > 64 {
                let message = "a label has at most 64 lower-case letters, digits, dashes and colons";
                self.errors.push(&path, format!("{message}; found `{}`", label.name));
            }
        }
        if settings.labels.len() > LABELS_MAX {
            self.errors.push("/labels", format!("at most {LABELS_MAX} labels are possible; remove some"));
        }
    }

    fn rule(&mut self, index: usize, rule: &settings::Rule) -> Rule {
        let label = self.label(&rule.label, &format!("/rules/{index}/label")) as u16;
        self.add_all(&rule.phrases, &format!("/rules/{index}/phrases"), Role::Sign(index as u16));
        self.add_all(&rule.unless, &format!("/rules/{index}/unless"), Role::Unless(index as u16));
        let language = rule.language.as_deref().map_or(0, |language| self.language(language));
        Rule { label, language, negation: rule.negation, obfuscated_only: rule.obfuscated_only, weight: rule.weight }
    }

    fn negations(&mut self, settings: &Settings) {
        for (index, negations) in settings.negations.iter().enumerate() {
            let language = self.language(&negations.language);
            self.add_all(&negations.words, &format!("/negations/{index}/words"), Role::Negation(language));
            self.add_all(&negations.unless, &format!("/negations/{index}/unless"), Role::NotNegation(language));
        }
    }

    fn links(&mut self, links: &settings::Links) -> Links {
        Links {
            label: links.label.as_deref().map(|name| self.label(name, "/links/label")),
            suspicious_hosts: links.suspicious_hosts.iter().map(|host| host.to_lowercase()).collect(),
            suspicious_weight: links.suspicious_weight,
            any_weight: links.any_weight,
        }
    }

    fn label(&mut self, name: &str, path: &str) -> usize {
        self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            let known = self.names.join(", ");
            self.errors.push(path, format!("there is no label `{name}`; choose one of {known}, or add it to `labels`"));
            0
        })
    }

    fn language(&mut self, tag: &str) -> u8 {
        let known = self.languages.iter().position(|known| known == tag).unwrap_or_else(|| {
            self.languages.push(tag.to_owned());
            self.languages.len() - 1
        });
        known as u8 + 1
    }

    fn add_all(&mut self, phrases: &[String], path: &str, role: Role) {
        for (index, phrase) in phrases.iter().enumerate() {
            match self.phrases.add(phrase) {
                Ok(_) => self.roles.push(role),
                Err(error) => self.errors.push(format!("{path}/{index}"), error.to_string()),
            }
        }
    }
}
