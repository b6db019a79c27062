//! What a question is about, and whether a text holds it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{DraftError, DraftRequest, PassageRef};
use crate::answer::alignment::align;
use crate::answer::evidence::number_word;
use crate::answer::reference::points_back;
use crate::knowledge::terms::{Stems, words};
use crate::knowledge::{Embedder, detect_language, focus};

/// The words of the question that carry its topic.
pub(super) struct Topic {
    /// Of the passage's language.
    stems: Stems,
    wanted: Vec<Wanted>,
    /// The passage is in another language than the question.
    pub is_foreign: bool,
    pub asks_where: bool,
    pub asks_how_long: bool,
}

struct Wanted {
    stem: String,
    /// The folded word that it was made of.
    word: String,
    concept: Option<u16>,
    /// Words of the passage that may translate it.
    translations: HashSet<String>,
    /// It stands in what is asked now, not only in what that follows up.
    is_new: bool,
    /// Counts when it is met, and is not missed otherwise.
    is_generic: bool,
}

impl Topic {
    pub fn new(request: &DraftRequest, passage: &PassageRef) -> Self {
        let asked = request.asked_in.as_deref().or_else(|| detect_language(&request.question));
        let is_foreign = matches!((asked, passage.language.as_deref()), (Some(a), Some(b)) if a != b);
        let stems = Stems::new(passage.language.as_deref().or(request.language.as_deref()));
        let theirs = if is_foreign { Stems::new(asked) } else { stems.again() };
        let mut wanted: Vec<Wanted> = Vec::new();
        let context = request.context.as_deref().unwrap_or_default();
        let asked_words = words(&focus(&request.question));
        let asks = |names: &[&str]| asked_words.iter().any(|word| names.contains(&word.as_str()));
        let how_long = asked_words.windows(2).any(|pair| matches!(pair, [how, long] if how == "how" && long == "long"));
        let (asks_where, asks_how_long) = (asks(WHERE), how_long || asks(HOW_LONG));
        let own = theirs.content(&focus(&request.question));
        let keeps_things = own.is_empty() || points_back(&request.question);
        for (text, is_new) in [(focus(&request.question), true), (focus(context), false)] {
            for (stem, word) in theirs.content_words(&text) {
                if wanted.iter().any(|known| known.stem == stem) {
                    continue;
                }
                let concept = theirs.concept(&stem);
                // "And to Germany?" puts another thing in the place of the one before: only what was asked about it goes on.
                // "How much is it?" means the thing itself.
                if is_new || keeps_things || concept.is_some() {
                    wanted.push(Wanted {
                        stem,
                        word,
                        concept,
                        translations: HashSet::new(),
                        is_new,
                        is_generic: false,
                    });
                }
            }
        }
        mark_generic(&mut wanted);
        Self { stems, wanted, is_foreign, asks_where, asks_how_long }
    }

    /// Looks for translations of the wanted words among the passage's.
    pub async fn translate(
        &mut self,
        passage: &PassageRef,
        embedder: Option<&Arc<dyn Embedder>>,
    ) -> Result<(), DraftError> {
        let asked: Vec<String> = self.wanted.iter().map(|wanted| wanted.word.clone()).collect();
        let question = passage.question.as_deref().unwrap_or_default();
        let texts = [passage.title.as_str(), question, passage.text.as_str()];
        let given: Vec<String> =
            texts.iter().flat_map(|text| self.stems.content_words(text)).map(|(_, word)| word).collect();
        let mut found = align(embedder, &asked, &given).await?;
        for wanted in &mut self.wanted {
            wanted.translations = found.remove(&wanted.word).unwrap_or_default();
        }
        Ok(())
    }

    /// Share of the topic words that the texts hold.
    pub fn coverage(&self, more: &[&str], sentences: &[&str]) -> f32 {
        let held = Held::new(&self.stems, more.iter().chain(sentences));
        let (mut count, mut all) = (0_u16, 0_u16);
        for wanted in &self.wanted {
            let is_held = held.holds(wanted, self.is_foreign);
            count += u16::from(is_held);
            all += u16::from(is_held || !wanted.is_generic);
        }
        f32::from(count) / f32::from(all.max(1))
    }

    /// How much of the topic is what a heading or curated question is about. "Where" is answered under "Directions", too.
    pub fn about(&self, heading: &str) -> f32 {
        let english = Stems::new(Some("en"));
        let location = english.concept(&english.stem("where"));
        let held = Held::new(&self.stems, [&heading].into_iter());
        let is_there = self.asks_where && location.is_some_and(|concept| held.concepts.contains(&concept));
        self.coverage(&[heading], &[]).max(if is_there { 0.5 } else { 0.0 })
    }

    /// Whether one of the words stands there itself, or its translation.
    pub fn is_met_word_for_word(&self, sentences: &[&str]) -> bool {
        let held = Held::new(&self.stems, sentences.iter());
        self.wanted.iter().any(|wanted| held.holds_itself(wanted, self.is_foreign))
    }

    /// Whether one sentence (with the heading) holds every word that only what is asked now says, and one of the concepts that
    /// were asked about before; always so without a question before it.
    pub fn says_what_is_new(&self, more: &[&str], sentences: &[&str]) -> bool {
        if self.wanted.iter().all(|wanted| wanted.is_new) {
            return true;
        }
        sentences.iter().any(|sentence| {
            let held = Held::new(&self.stems, more.iter().chain([sentence]));
            let holds = |wanted: &&Wanted| held.holds(wanted, self.is_foreign);
            self.wanted.iter().filter(|wanted| wanted.is_new && !wanted.is_generic).all(|wanted| holds(&wanted))
                && self.wanted.iter().filter(|wanted| !wanted.is_new).any(|wanted| holds(&wanted))
        })
    }

    /// Whether a curated question speaks of the same things, no more and no less. A "yes" or "no" is only an answer to the
    /// very question that it was written for.
    pub fn equals(&self, question: &str) -> bool {
        if self.wanted.is_empty() || self.coverage(&[question], &[]) < 1.0 {
            return false;
        }
        // The other way round: whatever the curated question says must be wanted.
        self.stems.content_words(question).into_iter().all(|(stem, word)| {
            let concept = self.stems.concept(&stem);
            self.wanted.iter().any(|wanted| {
                wanted.translations.contains(&word)
                    || wanted.word == word
                    || (wanted.concept.is_some() && wanted.concept == concept)
                    || (!self.is_foreign && wanted.stem == stem && is_same_word(&wanted.word, &word))
            })
        })
    }
}

/// Words by which people ask where something is, and how long it takes, folded.
const WHERE: &[&str] = &["where", "wo", "donde", "ou", "dove", "onde", "waar"];
const HOW_LONG: &[&str] = &["lange", "dauert", "tarda", "tardan", "dure", "durata", "demora", "duurt"];

/// Words that tell nothing of the topic beside others, folded: ways of asking, and "number" beside "phone".
const GENERIC: &[&str] = &[
    "long", "take", "takes", "happen", "happens", "back", "near", "lange", "dauert", "dauern", "tarda", "tardan",
    "prend", "dure", "demora", "duurt", "finde", "find", "kommt", "puedo", "puede", "puis", "posso",
];
const OF_CONTACTS: &[&str] =
    &["number", "address", "nummer", "adresse", "numero", "direccion", "indirizzo", "endereco"];

/// Marks generic words, as long as others are left.
fn mark_generic(wanted: &mut [Wanted]) {
    const CONTACTS: [&str; 2] = ["phone", "email"];
    let english = Stems::new(Some("en"));
    let contacts = CONTACTS.map(|word| english.concept(&english.stem(word)));
    let names_contact = wanted.iter().any(|one| one.concept.is_some() && contacts.contains(&one.concept));
    let is_generic = |one: &Wanted| {
        GENERIC.contains(&one.word.as_str()) || (names_contact && OF_CONTACTS.contains(&one.word.as_str()))
    };
    if wanted.iter().any(|one| one.is_new && !is_generic(one)) {
        for one in wanted {
            one.is_generic = is_generic(one);
        }
    }
}

pub(super) fn has_number(sentence: &str) -> bool {
    sentence.chars().any(char::is_numeric) || words(sentence).iter().any(|word| number_word(word).is_some())
}

/// What some texts hold, by stem and concept.
struct Held {
    forms: HashMap<String, Vec<String>>,
    words: HashSet<String>,
    concepts: HashSet<u16>,
}

impl Held {
    fn new<'a>(stems: &Stems, texts: impl Iterator<Item = &'a &'a str>) -> Self {
        let (mut forms, mut all) = (HashMap::<String, Vec<String>>::new(), HashSet::new());
        for word in texts.flat_map(|text| words(text)) {
            forms.entry(stems.stem(&word)).or_default().push(word.clone());
            all.insert(word);
        }
        let concepts = forms.keys().filter_map(|stem| stems.concept(stem)).collect();
        Self { forms, words: all, concepts }
    }

    fn holds(&self, wanted: &Wanted, is_foreign: bool) -> bool {
        if wanted.concept.is_some_and(|concept| self.concepts.contains(&concept)) {
            return true;
        }
        self.holds_itself(wanted, is_foreign)
    }

    fn holds_itself(&self, wanted: &Wanted, is_foreign: bool) -> bool {
        if is_foreign {
            // Names and numbers are written alike; anything else must be a translation.
            return self.words.contains(&wanted.word)
                || wanted.translations.iter().any(|word| self.words.contains(word));
        }
        self.forms.get(&wanted.stem).is_some_and(|forms| forms.iter().any(|form| is_same_word(&wanted.word, form)))
    }
}

/// Whether two words of one stem are one word. Stemmers make `france` and `francs` one; no language inflects so.
fn is_same_word(a: &str, b: &str) -> bool {
    let common = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let rests = (a.get(common..).unwrap_or_default(), b.get(common..).unwrap_or_default());
    !matches!(rests, ("e", "s") | ("s", "e"))
}
