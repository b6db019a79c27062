//! An answer in a language that none of its passages is in.
//!
//! Across languages the evidence gate compares by an embedding model, which misses small inventions and is not there at all
//! where words are hashed. So the order is turned round: the model answers in the *passages'* language, the gate judges that
//! answer word by word, and only what it kept is translated, a line for each sentence. The translation is believed when
//! - it has a line for every line, in the language that was asked for;
//! - each line holds the numbers and addresses of its original, all of them and no others;
//! - translated back by a call that sees nothing but the translation, a line has hardly a word that its original has not, no
//!   name, and says as much.
//!
//! A line that fails is cut as any other unsupported sentence; when no fact is left, a person answers. It costs three calls, which
//! the budget of a turn counts together.

use super::evidence::{DraftedSentence, EvidenceSettings, Gated, gate, same_exacts, tally};
use super::{CitedSentence, DraftError, DraftRequest, PassageRef};
use crate::knowledge::detect_language;

/// How many of a line's words its original must have once it is translated back. Translators choose other words now and then.
const THERE_AND_BACK_MIN: f32 = 0.7;
/// The same the other way round: what was left out.
const KEPT_MIN: f32 = 0.6;

/// The language to answer in first, when none of the passages is in the customer's.
pub(super) fn source(request: &DraftRequest) -> Option<&str> {
    let wanted = request.language.as_deref()?;
    let is_other = |passage: &PassageRef| passage.language.as_deref().is_some_and(|language| language != wanted);
    let best = request.passages.iter().max_by(|a, b| a.score.total_cmp(&b.score))?;
    request.passages.iter().all(is_other).then_some(best.language.as_deref()).flatten()
}

/// The same question, to be answered in the passages' language. How the answer sounds is said to the translator.
pub(super) fn in_source(request: &DraftRequest, source: &str) -> DraftRequest {
    DraftRequest {
        language: Some(source.to_owned()),
        instructions: Vec::new(),
        examples: Vec::new(),
        temperature: Some(0.0),
        ..request.clone()
    }
}

/// The kept sentences in their translation, without those that do not say the same.
pub(super) async fn checked(
    gated: Gated,
    there: &[String],
    back: &[String],
    source: &str,
    wanted: &str,
) -> Result<Gated, DraftError> {
    let Gated { kept, mut cut, evidence } = gated;
    let is_wanted = detect_language(&there.join("\n")).is_none_or(|language| language == wanted);
    let mut translated = Vec::with_capacity(kept.len());
    for ((sentence, there), back) in kept.into_iter().zip(there).zip(back) {
        let problem = match (is_wanted, sentence.factual) {
            (false, _) => Some("it is not in the customer's language".to_owned()),
            (true, false) => differs_as_courtesy(there),
            (true, true) => differs(&sentence.text, there, back, source).await?,
        };
        let one = CitedSentence { text: there.clone(), problem, ..sentence };
        match one.problem.is_some() {
            true if one.factual => cut.push(CitedSentence { support: 0.0, ..one }),
            // A courtesy is no loss.
            true => {}
            false => translated.push(one),
        }
    }
    let best_score = evidence.best_score;
    let evidence = tally(&translated, &cut, best_score);
    Ok(Gated { kept: translated, cut, evidence })
}

/// A greeting must stay one: nothing that states a fact.
fn differs_as_courtesy(there: &str) -> Option<String> {
    super::sentences::is_factual(there).then(|| "it states more than its original".to_owned())
}

async fn differs(original: &str, there: &str, back: &str, source: &str) -> Result<Option<String>, DraftError> {
    if !same_exacts(original, there) || !same_exacts(original, back) {
        return Ok(Some("its numbers or addresses are not those of its original".to_owned()));
    }
    let says = |text: &str, of: &str, support_min: f32| {
        let passage = PassageRef {
            id: "original".to_owned(),
            text: of.to_owned(),
            language: Some(source.to_owned()),
            ..PassageRef::default()
        };
        let sentence = DraftedSentence { text: text.to_owned(), passage_ids: Vec::new() };
        async move { gate(vec![sentence], &[passage], None, EvidenceSettings { support_min }).await }
    };
    if says(back, original, THERE_AND_BACK_MIN).await?.cut.is_empty()
        && says(original, back, KEPT_MIN).await?.cut.is_empty()
    {
        return Ok(None);
    }
    Ok(Some("translated back, it does not say the same".to_owned()))
}
