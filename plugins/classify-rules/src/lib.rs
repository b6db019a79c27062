//! First hook: may the machine answer, or is the turn for a person, spam, or to be ignored?
//!
//! Everything this component knows about words is in its settings; the code only counts.
//!
//! # How a turn is judged
//!
//! 1. The customer's messages of the turn are read as one text, one message a sentence or more ([`scan`]).
//! 2. Every rule's phrases are looked for. A hit counts with the rule's weight unless a phrase of the rule's `unless` is
//!    in the same sentence, or a negation stands up to six words before it in the same clause (`negation` says whether a
//!    negation cancels the hit, is needed for it, or does not matter). A rule of another language than the one the host
//!    detected counts less.
//! 3. A label's score is `1 - Π(1 - weight)` over its hits with different phrases and words, so that two weak signs make a strong
//!    one and no score passes 1 ([`score`]).
//! 4. The first label of the list whose score reaches its threshold decides the route; all others that reach theirs are
//!    reported too. A label that counts only when *alone* (a thank-you, a greeting) needs a turn with nothing else in it.
//! 5. No label: the route is `answer`.
//!
//! # Confidence
//!
//! Of a label's route: the label's score. Of `answer` without a label: `1 - s`, where `s` is the highest score of any
//! label with another route that stayed below its threshold. Of a turn judged by what it is made of (only a sticker, an
//! unknown payload): 1, because there is nothing to guess.

mod rules;
mod scan;
mod score;
mod settings;

use frontdesk_policy_sdk::prelude::*;
use frontdesk_policy_sdk::text::clip;

use rules::Rules;
use scan::Scan;
use score::Scores;
pub use settings::Settings;

/// The contract's limit for `classification.reason`.
const REASON_MAX_BYTES: usize = 500;
/// The contract's limit for `classification.labels`.
const LABELS_MAX: usize = 32;

/// The configured classifier.
#[derive(Debug)]
pub struct ClassifyRules {
    rules: Rules,
}

impl Policy for ClassifyRules {
    type Settings = Settings;

    fn describe() -> Description {
        Description::new(
            "classify-rules",
            env!("CARGO_PKG_VERSION"),
            "Sorts inquiries by lists of phrases in several languages: what a person must take, what is spam, what \
             needs no answer; everything else may be answered by the machine.",
            include_str!("../settings.schema.json"),
        )
    }

    fn configure(settings: Settings) -> Result<Self, Vec<SettingError>> {
        Ok(Self { rules: Rules::build(settings)? })
    }
}

impl Classifier for ClassifyRules {
    fn classify(&self, turn: &Turn) -> Result<Classification, String> {
        let scan = Scan::of(turn);
        if let Some(classification) = self.rules.judge_wordless(turn, &scan) {
            return Ok(classification);
        }
        let scores = Scores::of(&self.rules, turn, &scan);
        Ok(self.verdict(turn, &scan, &scores))
    }
}

impl ClassifyRules {
    fn verdict(&self, turn: &Turn, scan: &Scan, scores: &Scores) -> Classification {
        let mut labels: Vec<String> = Vec::new();
        let mut deciding = None;
        let mut nearly = 0.0_f32;
        for (index, label) in self.rules.labels.iter().enumerate() {
            let score = scores.of_label(index);
            let reached = score >= label.threshold && (!label.alone || scores.alone());
            if !reached {
                // A label that has been ruled out because there is more in the turn is no doubt about the route.
                if label.route != Route::Answer && !label.alone {
                    nearly = nearly.max(score);
                }
                continue;
            }
            // "ok" after "shall I look for another one?" is an answer, not a farewell.
            if label.route == Route::Ignore && Rules::answers_a_question(turn) {
                continue;
            }
            labels.push(label.name.clone());
            deciding = deciding.or(Some((index, score)));
        }
        if scan.words.questions > 0 {
            labels.push("question".to_owned());
        }
        labels.truncate(LABELS_MAX);
        match deciding {
            Some((index, score)) => {
                let label = &self.rules.labels[index];
                let reason = format!("{} (score {score:.2}, needed {:.2})", label.reason, label.threshold);
                classification(label.route, score, labels, &reason)
            }
            None => classification(Route::Answer, 1.0 - nearly, labels, "No rule asks for anything but an answer."),
        }
    }
}

fn classification(route: Route, confidence: f32, labels: Vec<String>, reason: &str) -> Classification {
    Classification {
        route,
        confidence: confidence.clamp(0.0, 1.0),
        labels,
        reason: clip(reason, REASON_MAX_BYTES).to_owned(),
    }
}

frontdesk_policy_sdk::export_classifier!(ClassifyRules);

#[cfg(test)]
mod tests;
