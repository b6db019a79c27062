//! Third hook: may this text go out?
//!
//! # The checks, in order
//!
//! 1. [`links`]: web addresses whose host is not on the list, or that hide their host.
//! 2. [`pii`]: card numbers, IBANs, e-mail addresses and phone numbers that are neither in the passages, nor in what the
//!    customer wrote in this turn, nor on the list of the page's own.
//! 3. [`phrases`]: toxic words, promises the page does not make, and signs that the draft talks about its instructions.
//! 4. [`leak`]: the draft repeats a run of words of its instructions.
//! 5. [`markdown`]: Messenger shows asterisks and hashes as they are.
//! 6. [`length`]: too long for the allowed number of messages.
//!
//! Every check can be switched off and has an action: `block` refuses the draft, `rewrite` changes it (a link and personal
//! data are replaced, a sentence with a promise is taken out), `note` only records the finding. Findings are places in the
//! draft as it came; a rewrite is done once, from all edits together ([`edits`]). A rewrite that leaves nothing is a block.

mod edits;
mod leak;
mod length;
mod links;
mod markdown;
mod phrases;
mod pii;
mod settings;

use frontdesk_policy_sdk::filter::{Blocked, Draft, Outcome, Rewritten, Verdict};
use frontdesk_policy_sdk::prelude::*;
use frontdesk_policy_sdk::text::Words;

use edits::Edits;
use phrases::Phrases;
pub use settings::{Action, Settings};

/// No verdict lists more findings.
const FINDINGS_MAX: usize = 64;

/// The configured filter.
#[derive(Debug)]
pub struct FilterSafety {
    settings: Settings,
    phrases: Phrases,
}

impl Policy for FilterSafety {
    type Settings = Settings;

    fn describe() -> Description {
        Description::new(
            "filter-safety",
            env!("CARGO_PKG_VERSION"),
            "Keeps drafts safe: length, links, personal data, toxic words, promises, repeated instructions, markdown.",
            include_str!("../settings.schema.json"),
        )
    }

    fn configure(mut settings: Settings) -> Result<Self, Vec<SettingError>> {
        let mut errors = frontdesk_policy_sdk::settings::Errors::new();
        links::check(&mut settings, &mut errors);
        let phrases = Phrases::build(&mut settings, &mut errors);
        errors.or(Self { settings, phrases })
    }
}

/// What the checks work on, and what they found.
pub(crate) struct Review<'a> {
    pub turn: &'a Turn,
    pub draft: &'a Draft,
    pub passages: &'a [Passage],
    pub text: &'a str,
    pub words: Words,
    pub findings: Vec<Finding>,
    pub edits: Edits,
    /// Why the draft must not go out; the first reason counts.
    pub blocked: Option<String>,
}

impl Review<'_> {
    /// Records a finding at a byte range and does what its action says; `replacement` is for `rewrite`.
    pub(crate) fn found(&mut self, action: Action, rule: &str, detail: &str, at: (usize, usize), replacement: &str) {
        if self.findings.len() < FINDINGS_MAX {
            let place = Some((at.0 as u32, at.1 as u32));
            self.findings.push(Finding { rule: rule.to_owned(), detail: detail.to_owned(), at: place });
        }
        match action {
            Action::Block if self.blocked.is_none() => self.blocked = Some(detail.to_owned()),
            Action::Rewrite => self.edits.replace(at.0, at.1, replacement, rule),
            Action::Block | Action::Note | Action::Off => {}
        }
    }

    /// The byte range of the sentence in which a word stands, with the punctuation and spaces behind it.
    pub(crate) fn sentence_around(&self, word: usize) -> (usize, usize) {
        let items = self.words.items();
        let number = items[word].sentence;
        let first = items[..word].iter().rposition(|word| word.sentence != number);
        let start =
            first.map_or(0, |index| self.end_of_sentence(items[index].end as usize, items[index + 1].start as usize));
        let next = items[word..].iter().find(|word| word.sentence != number);
        let end = next.map_or(self.text.len(), |next| {
            let last = items.iter().rev().find(|word| word.sentence == number).map_or(0, |word| word.end as usize);
            self.end_of_sentence(last, next.start as usize)
        });
        (start, end)
    }

    /// Where the sentence that ends between two words ends: behind its punctuation and spaces, before an opening mark.
    fn end_of_sentence(&self, from: usize, to: usize) -> usize {
        let between = &self.text[from..to];
        let mark = between.find(['.', '!', '?', '…', ';', '\n', '。']).unwrap_or(0);
        let rest = &between[mark..];
        let skipped =
            rest.find(|c: char| !(c.is_whitespace() || matches!(c, '.' | '!' | '?' | '…' | ';' | '"' | ')' | '。')));
        from + mark + skipped.unwrap_or(rest.len())
    }
}

impl Filter for FilterSafety {
    fn apply(&self, turn: &Turn, draft: &Draft, passages: &[Passage]) -> Result<Verdict, String> {
        let mut review = Review {
            turn,
            draft,
            passages,
            text: &draft.text,
            words: Words::scan(&draft.text),
            findings: Vec::new(),
            edits: Edits::default(),
            blocked: None,
        };
        links::review(&self.settings.links, &mut review);
        pii::review(&self.settings.pii, &mut review);
        self.phrases.review(&self.settings, &mut review);
        leak::review(&self.settings.leakage, &mut review);
        markdown::review(self.settings.markdown, &mut review);
        Ok(self.verdict(review))
    }
}

impl FilterSafety {
    fn verdict(&self, mut review: Review) -> Verdict {
        let blocked = review.blocked.take();
        let edited = (!review.edits.is_empty()).then(|| review.edits.apply(review.text));
        let mut text = edited.unwrap_or_else(|| review.text.to_owned());
        let mut reasons = review.edits.rules();
        let mut findings = review.findings;
        let mut refusal = blocked;
        match length::fit(&self.settings.length, &text) {
            length::Fit::Fits => {}
            length::Fit::Shortened(shorter) => {
                text = shorter;
                reasons.push("length:shortened".to_owned());
                findings.push(length::finding(&self.settings.length));
            }
            length::Fit::TooLong => {
                findings.push(length::finding(&self.settings.length));
                refusal.get_or_insert_with(|| "The draft is longer than the allowed number of messages.".to_owned());
            }
        }
        if text.trim().is_empty() {
            refusal.get_or_insert_with(|| {
                "Nothing is left of the draft after what must not be sent is taken out.".to_owned()
            });
        }
        if let Some(reason) = refusal {
            return Verdict { outcome: Outcome::Block(Blocked { reason }), findings, split_hints: Vec::new() };
        }
        let split_hints = length::split_hints(&self.settings.length, &text);
        let outcome = if text == review.draft.text {
            Outcome::Pass
        } else {
            let reason = format!("Changed for: {}.", reasons.join(", "));
            Outcome::Rewrite(Rewritten { text, reason })
        };
        Verdict { outcome, findings, split_hints }
    }
}

frontdesk_policy_sdk::export_filter!(FilterSafety);

#[cfg(test)]
mod tests;
