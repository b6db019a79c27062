//! Fourth hook: with all the evidence, is the draft sent, does the machine ask back, or does a person take over?
//!
//! # The reasons, in order; the first that holds decides
//!
//! 1. The classifier sent the turn to a person: its label is the reason.
//! 2. A filter blocked the draft, or there is no draft: `filter-blocked`, `no-draft`.
//! 3. The customer is angry ([`mood`]): `angry`.
//! 4. The machine has answered too many turns in a row: `too-many-automated-turns`.
//! 5. The customer asks the same again ([`repeat`]): `repeated-question`.
//! 6. The evidence is too thin: `no-knowledge`, `low-score`, `unsupported`, `low-confidence`.
//!
//! A turn with too few words to be understood gets a question back instead of a person for the reasons of 2 and 6, once:
//! not when the machine has just asked back. A turn whose label is in `ticket-labels` is answered and gets a ticket too.
//!
//! # The ticket
//!
//! The label's priority, raised by anger; the notice for the customer depends on the opening hours and is absent when the
//! setting says so. The summary quotes the last question and says what was found and why a person is needed.

mod hours;
mod mood;
mod reasons;
mod repeat;
mod settings;
mod ticket;

use frontdesk_policy_sdk::escalation::{Dossier, Verdict};
use frontdesk_policy_sdk::prelude::*;
use frontdesk_policy_sdk::settings::{Errors, push_segment};
use frontdesk_policy_sdk::text::Words;

use mood::Lexicon;
pub use settings::Settings;

/// The configured escalation.
#[derive(Debug)]
pub struct EscalateDefault {
    settings: Settings,
    lexicon: Lexicon,
}

/// The turn as the checks see it.
pub(crate) struct Case<'a> {
    pub turn: &'a Turn,
    pub dossier: &'a Dossier,
    /// The last message of the customer that has text.
    pub question: &'a str,
    /// All the customer's messages of the turn.
    pub words: Words,
    pub angry: bool,
}

impl Policy for EscalateDefault {
    type Settings = Settings;

    fn describe() -> Description {
        Description::new(
            "escalate-default",
            env!("CARGO_PKG_VERSION"),
            "Decides whether an answer is good enough to be sent, the machine asks back, or a person takes over; writes \
             the ticket and what the customer is told.",
            include_str!("../settings.schema.json"),
        )
    }

    fn configure(mut settings: Settings) -> Result<Self, Vec<SettingError>> {
        let mut errors = Errors::new();
        hours::check(&settings.hours, &mut errors);
        let lexicon = Lexicon::build(&std::mem::take(&mut settings.anger.phrases), &mut errors);
        for (index, label) in settings.labels.iter().enumerate() {
            if settings.labels[..index].iter().any(|other| other.label == label.label) {
                let message = format!("the label `{}` is in the list twice; remove one", label.label);
                errors.push(format!("/labels/{index}/label"), message);
            }
        }
        check_texts(&settings, &mut errors);
        errors.or(Self { settings, lexicon })
    }
}

/// Where a question is to be asked back, there must be one.
fn check_texts(settings: &Settings, errors: &mut Errors) {
    if settings.ask_back.enabled && settings.ask_back.text.0.is_empty() {
        errors.push("/ask-back/text", "asking back is switched on without a text; add one, or switch it off");
    }
    for (name, text) in &settings.ask_back.text.0 {
        if text.chars().count() > 1_900 {
            let mut path = "/ask-back/text".to_owned();
            push_segment(&mut path, name);
            errors.push(path, "the text is longer than a Messenger message (2,000 characters); shorten it");
        }
    }
}

impl Escalation for EscalateDefault {
    fn decide(&self, turn: &Turn, dossier: &Dossier) -> Result<Verdict, String> {
        let case = self.case(turn, dossier);
        if let Some(reason) = reasons::first(&self.settings, &case) {
            if reason.may_ask_back
                && let Some(question) = self.question_back(&case)
            {
                return Ok(Verdict::AskBack(question));
            }
            return Ok(Verdict::HandOver(ticket::write(&self.settings, &case, &reason.code, reason.why, true)));
        }
        let noteworthy = dossier.classification.labels.iter().find(|label| self.settings.ticket_labels.contains(label));
        Ok(match noteworthy {
            Some(label) => {
                let why = "the answer was sent, but a person should know";
                Verdict::SendAndTicket(ticket::write(&self.settings, &case, label, why, false))
            }
            None => Verdict::Send,
        })
    }
}

impl EscalateDefault {
    fn case<'a>(&self, turn: &'a Turn, dossier: &'a Dossier) -> Case<'a> {
        let mut text = String::new();
        for message in &turn.messages {
            text.push_str(&message.text);
            text.push('\n');
        }
        let words = Words::scan(&text);
        let angry = self.settings.anger.enabled && mood::is_angry(&self.settings.anger, &self.lexicon, &words);
        let question = turn.messages.iter().rev().map(|message| message.text.trim()).find(|text| !text.is_empty());
        Case { turn, dossier, question: question.unwrap_or(""), words, angry }
    }

    /// The question to ask back, when the turn is vague and the machine has not just asked.
    fn question_back(&self, case: &Case) -> Option<String> {
        let ask_back = &self.settings.ask_back;
        let text = ask_back.text.for_turn(case.turn)?;
        let vague = case.words.len() <= ask_back.max_words && !case.angry;
        let asked = case.turn.history.iter().rev().find(|message| message.author != Author::Customer);
        let just_asked = asked.is_some_and(|message| {
            message.author == Author::Bot && ask_back.text.0.values().any(|known| message.text.contains(known.trim()))
        });
        (ask_back.enabled && vague && !just_asked).then(|| text.to_owned())
    }
}

frontdesk_policy_sdk::export_escalation!(EscalateDefault);

#[cfg(test)]
mod tests;
