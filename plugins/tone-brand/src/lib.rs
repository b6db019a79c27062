//! Second hook: how shall the answer sound?
//!
//! The settings name several tones; one is chosen. The plan is put together from parts, each an instruction with a title,
//! in this order: voice, reading level, language and address, length, words, names. The host adds its own part about
//! evidence and citations afterwards, which no setting can remove.
//!
//! # The language of the answer
//!
//! The customer's language when the host detected it and it is in `languages`; else the page's if it is there; else the
//! first of `languages`. The locale that Meta reports is not asked: people write to a page in its language from anywhere.
//!
//! # Disclosure
//!
//! When the host says that it is due (`turn.disclosure-due`) and `disclosure.enabled` is on, the text in the answer's
//! language is the plan's preamble, which the host sends word for word.

mod settings;

use frontdesk_policy_sdk::prelude::*;
use frontdesk_policy_sdk::settings::{Errors, push_segment};
use frontdesk_policy_sdk::text::language::{detected, same};
use frontdesk_policy_sdk::tone::{Example, Instruction, Plan};

pub use settings::Settings;
use settings::{Address, ToneOf};

/// The contract's limit for `plan.max-characters`.
const CHARACTERS_MAX: u32 = 8_000;

/// The configured tone.
#[derive(Debug)]
pub struct ToneBrand {
    settings: Settings,
    /// One of `settings.tones`.
    tone: ToneOf,
}

impl Policy for ToneBrand {
    type Settings = Settings;

    fn describe() -> Description {
        Description::new(
            "tone-brand",
            env!("CARGO_PKG_VERSION"),
            "Composes the instructions for the drafting model from a named tone: voice, reading level, address, words to \
             use and to avoid, examples, disclosure and signature.",
            include_str!("../settings.schema.json"),
        )
    }

    fn configure(settings: Settings) -> Result<Self, Vec<SettingError>> {
        let mut errors = Errors::new();
        let tone = settings.tones.get(&settings.tone).cloned();
        if tone.is_none() {
            let known: Vec<&str> = settings.tones.keys().map(String::as_str).collect();
            let message = format!("there is no tone `{}`; choose one of {}", settings.tone, known.join(", "));
            errors.push("/tone", message);
        }
        check_languages(&settings, &mut errors);
        let tone = tone.unwrap_or_default();
        errors.or(Self { settings, tone })
    }
}

/// Every language that can be chosen needs the texts that are sent word for word.
fn check_languages(settings: &Settings, errors: &mut Errors) {
    for (index, language) in settings.languages.iter().enumerate() {
        if settings.languages[..index].iter().any(|other| same(other, language)) {
            errors.push(format!("/languages/{index}"), format!("`{language}` is in the list twice; remove one"));
        }
        if settings.disclosure.enabled && !settings.disclosure.text.0.keys().any(|known| same(known, language)) {
            let message =
                format!("the disclosure has no text for `{language}`; add it, or take the language from the list");
            errors.push("/disclosure/text", message);
        }
    }
    for (name, tone) in &settings.tones {
        for (index, example) in tone.examples.iter().enumerate() {
            if !settings.languages.iter().any(|language| same(language, &example.language)) {
                let mut path = "/tones".to_owned();
                push_segment(&mut path, name);
                let message = format!("`{}` is not in `languages`, so this example is never used", example.language);
                errors.push(format!("{path}/examples/{index}/language"), message);
            }
        }
    }
}

impl Tone for ToneBrand {
    fn compose(&self, turn: &Turn, classification: &Classification, _passages: &[Passage]) -> Result<Plan, String> {
        let language = self.language(turn);
        let texts = [language];
        let disclosure = &self.settings.disclosure;
        let preamble = (turn.disclosure_due && disclosure.enabled).then(|| disclosure.text.pick(&texts)).flatten();
        Ok(Plan {
            instructions: self.instructions(turn, classification, language),
            examples: self.examples(language),
            language: Some(language.to_owned()),
            max_characters: self.max_characters(),
            temperature: self.tone.temperature,
            preamble: preamble.map(|text| fill(text, turn)),
            closing: self.settings.signature.pick(&texts).map(|text| fill(text, turn)),
        })
    }
}

impl ToneBrand {
    fn language<'a>(&'a self, turn: &'a Turn) -> &'a str {
        let supported = |wanted: &str| self.settings.languages.iter().find(|known| same(known, wanted));
        detected(turn)
            .and_then(supported)
            .or_else(|| supported(&turn.page.language))
            .or_else(|| self.settings.languages.first())
            .map_or(&turn.page.language, |language| language)
    }

    fn max_characters(&self) -> u32 {
        self.tone.max_characters.unwrap_or(self.settings.max_characters).min(CHARACTERS_MAX)
    }

    fn instructions(&self, turn: &Turn, classification: &Classification, language: &str) -> Vec<Instruction> {
        let mut parts = Vec::with_capacity(8);
        let mut add = |title: &str, text: String| {
            if !text.is_empty() {
                parts.push(Instruction { title: title.to_owned(), text });
            }
        };
        add("Voice", fill(&self.tone.voice, turn));
        add("About the page", fill(&self.settings.about, turn));
        add("Reading level", self.tone.reading_level.instruction().to_owned());
        add("Language", self.language_instruction(language));
        add("Length", format!("Answer in at most {} characters; shorter is better.", self.max_characters()));
        add(
            "Format",
            "Write plain text for a chat window: no headings, no tables, no markdown, at most one emoji.".to_owned(),
        );
        add("Words", self.words_instruction(language));
        if self.settings.use_name
            && let Some(name) = turn.customer.name.as_deref().and_then(plain_name)
        {
            add("Name", format!("The customer's first name is {name}; use it at most once."));
        }
        if classification.labels.iter().any(|label| label == "complaint") {
            add("Complaint", self.tone.complaint.clone());
        }
        parts
    }

    fn language_instruction(&self, language: &str) -> String {
        let mut text =
            format!("Answer in the language with the tag `{language}`, whatever language the passages are in.");
        let address = self.settings.address.iter().find(|(tag, _)| same(tag, language));
        let address = self.tone.address.or(address.map(|(_, address)| *address));
        if let Some(rule) = address.and_then(|address| address.rule(language)) {
            text.push(' ');
            text.push_str(rule);
        }
        text
    }

    fn words_instruction(&self, language: &str) -> String {
        let mut text = String::new();
        let words = &self.settings.words;
        for (intro, lists) in [("Never write", &words.forbidden), ("Where they fit, prefer", &words.preferred)] {
            let listed: Vec<String> = (lists.iter())
                .filter(|(tag, _)| tag.as_str() == "all" || same(tag, language))
                .flat_map(|(_, phrases)| phrases.iter().map(|phrase| format!("“{phrase}”")))
                .collect();
            if !listed.is_empty() {
                let space = if text.is_empty() { "" } else { " " };
                text.push_str(&format!("{space}{intro}: {}.", listed.join(", ")));
            }
        }
        text
    }

    fn examples(&self, language: &str) -> Vec<Example> {
        let fits = self.tone.examples.iter().filter(|example| same(&example.language, language));
        fits.map(|example| Example { customer: example.customer.clone(), reply: example.reply.clone() }).collect()
    }
}

/// Puts the page's name in the place of `{page}`.
fn fill(text: &str, turn: &Turn) -> String {
    text.replace("{page}", &turn.page.name)
}

/// The name as far as it is one: what a customer calls themself must not instruct the model.
fn plain_name(name: &str) -> Option<&str> {
    let first = name.split_whitespace().next()?;
    let plain =
        first.chars().count() <= 30 && first.chars().all(|c| c.is_alphabetic() || matches!(c, '-' | '\'' | '’'));
    plain.then_some(first)
}

impl Address {
    /// How to address the customer, for languages that have the choice.
    fn rule(self, language: &str) -> Option<&'static str> {
        let pairs: [(&str, &str, &str); 6] = [
            ("de", "Address the customer formally, with “Sie”.", "Address the customer informally, with “du”."),
            ("es", "Address the customer formally, with “usted”.", "Address the customer informally, with “tú”."),
            ("fr", "Address the customer formally, with “vous”.", "Address the customer informally, with “tu”."),
            ("it", "Address the customer formally, with “Lei”.", "Address the customer informally, with “tu”."),
            (
                "pt",
                "Address the customer formally, with “o senhor / a senhora”.",
                "Address the customer informally, with “você”.",
            ),
            ("nl", "Address the customer formally, with “u”.", "Address the customer informally, with “je”."),
        ];
        let (_, formal, informal) = pairs.into_iter().find(|(tag, ..)| same(tag, language))?;
        Some(if self == Self::Formal { formal } else { informal })
    }
}

frontdesk_policy_sdk::export_tone!(ToneBrand);

#[cfg(test)]
mod tests;
