//! Questions that only make sense after an earlier one: "and to Germany?", "how much is it?", "und wie lange dauert das?".
//!
//! Such a question is searched together with the one that it follows up. What is said must still speak of what is asked now:
//! drafters get both, apart (`answer::DraftRequest::context`), so that an answer to the earlier question never passes for
//! one to this.
//!
//! A question follows up when it is short and says so: it begins with a connective ("and", "what about"), or leans on a word
//! that points back ("it", "that", "dort"), or has at most one word of its own.

use frontdesk_policy_engine::types as policy;

use crate::answer::points_back;
use crate::knowledge::detect_language;
use crate::knowledge::terms::{Stems, words};

/// A question with more words of its own than this says what it is about.
const OWN_WORDS_MAX: usize = 4;
/// Earlier messages that are looked at for the question before.
const MESSAGES_MAX: usize = 8;
const CONTEXT_CHARACTERS_MAX: usize = 500;

/// Beginnings that join on to what was said, folded; of the languages whose fillers are known.
const CONNECTIVES: &[&str] = &[
    "and",
    "what about",
    "how about",
    "or",
    "but",
    "also",
    "then",
    "in that case",
    "what if",
    "und",
    "oder",
    "aber",
    "auch",
    "dann",
    "wie sieht es",
    "wie ist es",
    "was ist mit",
    "y",
    "o",
    "pero",
    "tambien",
    "entonces",
    "que tal",
    "et",
    "ou",
    "mais",
    "aussi",
    "alors",
    "e",
    "ma",
    "anche",
    "allora",
    "mas",
    "tambem",
    "entao",
    "en",
    "of",
    "maar",
    "ook",
    "dan",
    "hoe zit het",
];

/// The customer's question before this one, when this one leans on it.
pub(super) fn context(turn: &policy::Turn) -> Option<String> {
    let asked = turn.messages.iter().map(|message| message.text.as_str()).collect::<Vec<_>>().join("\n");
    let language = turn.detected_language.as_ref().map(|(tag, _)| tag.as_str());
    if !leans(&asked, language) {
        return None;
    }
    let earlier = turn.history.iter().rev().take(MESSAGES_MAX);
    let mut earlier = earlier.filter(|message| matches!(message.author, policy::Author::Customer));
    let before = earlier.find(|message| {
        let text = message.text.trim();
        let language = detect_language(text).or(language);
        !text.is_empty() && own_words(text, language) > 0 && !leans(text, language)
    })?;
    Some(before.text.chars().take(CONTEXT_CHARACTERS_MAX).collect())
}

fn own_words(text: &str, language: Option<&str>) -> usize {
    Stems::new(language).content(text).len()
}

fn leans(text: &str, language: Option<&str>) -> bool {
    let folded = words(text);
    let own = own_words(text, language);
    if folded.is_empty() || own > OWN_WORDS_MAX {
        return false;
    }
    let joined = folded.join(" ");
    let connects = CONNECTIVES
        .iter()
        .any(|opening| joined.strip_prefix(opening).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')));
    // "How much is that?" points back; "Is there parking?" does not, so a pointer counts only beside few words of one's own.
    let points = own <= 2 && points_back(text);
    connects || points || (own <= 1 && folded.len() <= 3 && asks(&folded))
}

/// Words that begin a question, folded.
const QUESTION_WORDS: &[&str] = &[
    "how", "what", "when", "where", "why", "which", "wie", "was", "wann", "wo", "warum", "welche", "como", "cuanto",
    "cuando", "donde", "cual", "comment", "combien", "quand", "quel", "quelle", "quanto", "quando", "dove", "quale",
    "qual", "onde", "hoe", "wat", "wanneer", "waar",
];

/// Whether nothing but asking is there: "how long?", "wie viel?". A greeting does not ask.
fn asks(folded: &[String]) -> bool {
    folded.first().is_some_and(|word| QUESTION_WORDS.contains(&word.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_that_lean_on_another_are_told_from_those_that_stand() {
        for text in [
            "and to Germany?",
            "What about Switzerland?",
            "How much is it?",
            "How long does that take?",
            "und wie lange dauert das?",
            "Und nach Deutschland?",
            "¿Y cuánto cuesta eso?",
            "Et pour la Suisse ?",
            "how long?",
        ] {
            assert!(leans(text, detect_language(text)), "{text}");
        }
        for text in [
            "Do you ship parcels to Austria and how much does that cost?",
            "How long does delivery to Germany take?",
            "Can I return an item after 30 days?",
            "Which helmet size do I need for my son?",
            "Is there parking?",
            "Was kostet die Lieferung?",
            "Hello?",
            "",
        ] {
            assert!(!leans(text, detect_language(text)), "{text}");
        }
    }
}
