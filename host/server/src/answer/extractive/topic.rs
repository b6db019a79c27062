//! What a question is about, and whether a text holds it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::{DraftError, DraftRequest, PassageRef};
use crate::answer::alignment::align;
use crate::answer::naming::{is_weekday, named};
use crate::answer::reference::points_back;
use crate::knowledge::terms::{Stems, is_name, words};
use crate::knowledge::{Embedder, detect_language, focus, spelling};

use super::asked::{self, Kinds, has_address, has_amount, has_duration, has_sum, is_cost, is_dealing};
use super::wording::{names_of_kind, parted, rejoined, with_whole_verbs};

/// The words of the question that carry its topic.
pub(super) struct Topic {
    /// Of the passage's language.
    stems: Stems,
    wanted: Vec<Wanted>,
    /// The passage is in another language than the question.
    pub is_foreign: bool,
    /// Of what kind the answer must be.
    pub asks: Kinds,
    language: Option<String>,
    /// All words of the question.
    said: HashSet<String>,
    texts: Arc<Texts>,
}

/// What was read of passages' sentences, in the words of a language: each is looked at in many runs, and in many turns. Shared.
#[derive(Debug, Default)]
pub(super) struct Texts(Mutex<HashMap<Option<String>, ByText>>);

type ByText = HashMap<String, Arc<Told>>;

/// Sentences of a language that are kept; then all of it are read again.
const TEXTS_MAX: usize = 4_096;

impl Texts {
    fn told(&self, stems: &Stems, text: &str) -> Arc<Told> {
        let language = stems.language().map(str::to_owned);
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = known().get(&language).and_then(|known| known.get(text)) {
            return Arc::clone(told);
        }
        let told = Arc::new(Told::by(stems, text));
        let mut all = known();
        let known = all.entry(language).or_default();
        if known.len() >= TEXTS_MAX {
            known.clear();
        }
        known.insert(text.to_owned(), Arc::clone(&told));
        told
    }
}

struct Wanted {
    stem: String,
    /// The folded word that it was made of.
    word: String,
    concept: Option<u16>,
    /// Words of the passage that may translate it.
    translations: HashSet<String>,
    /// Names of which each says it, too.
    names: &'static [&'static str],
    /// It stands in what is asked now, not only in what that follows up.
    is_new: bool,
    /// Counts when it is met, and is not missed otherwise.
    is_generic: bool,
    /// An answer must not lack it.
    is_essential: bool,
}

impl Wanted {
    fn of(stem: String, word: String, concept: Option<u16>) -> Self {
        let (translations, names) = (HashSet::new(), &[][..]);
        Self { stem, word, concept, translations, names, is_new: false, is_generic: false, is_essential: false }
    }
}

impl Topic {
    pub fn new(request: &DraftRequest, passage: &PassageRef, texts: Arc<Texts>) -> Self {
        let asked = request.asked_in.as_deref().or_else(|| detect_language(&request.question));
        let is_foreign = matches!((asked, passage.language.as_deref()), (Some(a), Some(b)) if a != b);
        let stems = Stems::new(passage.language.as_deref().or(request.language.as_deref()));
        let theirs = if is_foreign { Stems::new(asked) } else { stems.again() };
        let mut wanted: Vec<Wanted> = Vec::new();
        let meant = |text: String| {
            let is_used = |word: &str| request.passages.iter().any(|passage| says(&passage.text, word));
            spelling::corrected(&text, theirs.language(), is_used).unwrap_or(text)
        };
        let is_verb = |word: &str| {
            let stem = theirs.stem(word);
            let is_told = || !is_foreign && theirs.all(&passage.text).contains(&stem);
            theirs.concept(&stem).is_some() || GENERIC.contains(&word) || is_told()
        };
        let context = meant(request.context.clone().unwrap_or_default());
        let question = with_whole_verbs(&meant(focus(&request.question)), &theirs, is_verb);
        let mut asks = Kinds::of(&question, &theirs);
        let has_own_kind = Kinds { time: false, ..asks } != Kinds::default();
        if !has_own_kind && !context.is_empty() {
            // "And to Germany?" asks for what the question before did.
            asks = Kinds::of(&focus(&context), &theirs);
        }
        let essentials = asked::essentials(&question, theirs.language());
        let own = theirs.content(&question);
        let keeps_things = own.is_empty() || points_back(&request.question);
        for (text, is_new) in [(question.as_str(), true), (&focus(&context), false)] {
            let said = words(text);
            for (stem, word) in theirs.content_words(text).into_iter().flat_map(|pair| parted(pair, &theirs)) {
                if wanted.iter().any(|known| known.stem == stem) {
                    continue;
                }
                let hands_back = asked::hands_back(&word, &said);
                let concept = if hands_back { *asked::RETURNING } else { theirs.concept(&stem) };
                // "And to Germany?" puts another thing in the place of the one before: only what was asked about it goes on.
                // "How much is it?" means the thing itself.
                // A new question for a time or a price puts away the one before.
                let is_put_away = has_own_kind && is_cost(concept);
                let goes_on = (keeps_things || concept.is_some_and(|concept| !is_name(concept))) && !is_put_away;
                if is_new || goes_on {
                    let is_essential = is_new && (essentials.contains(&word) || concept.is_some_and(is_name));
                    let names = names_of_kind(&word, &said);
                    wanted.push(Wanted { names, is_new, is_essential, ..Wanted::of(stem, word, concept) });
                }
            }
        }
        let is_place = |one: &Wanted| one.concept.is_some() && one.concept == *asked::PLACE;
        let implies_place = asks.place && !wanted.iter().any(is_place);
        if implies_place {
            wanted.push(Wanted { is_new: true, ..Wanted::of(String::new(), String::new(), *asked::PLACE) });
        }
        mark_generic(&mut wanted);
        if implies_place && wanted.iter().any(|one| !one.is_generic && !is_place(one)) {
            // "Where is the workshop?" is about the workshop; "where do I find you?" about the place alone.
            wanted.iter_mut().filter(|one| is_place(one)).for_each(|one| one.is_generic = true);
        }
        let said = words(&question).into_iter().collect();
        Self { language: passage.language.clone(), stems, wanted, is_foreign, asks, said, texts }
    }

    /// Looks for translations of the wanted words among the passage's.
    pub async fn translate(
        &mut self,
        passage: &PassageRef,
        embedder: Option<&Arc<dyn Embedder>>,
    ) -> Result<(), DraftError> {
        let words = self.wanted.iter().map(|wanted| wanted.word.clone());
        let asked: Vec<String> = words.filter(|word| !word.is_empty()).collect();
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
        let held = self.held(more.iter().chain(sentences));
        let (mut count, mut all) = (0_u16, 0_u16);
        for wanted in &self.wanted {
            let is_held = held.holds(wanted, self.is_foreign);
            count += u16::from(is_held);
            all += u16::from(is_held || !wanted.is_generic);
        }
        f32::from(count) / f32::from(all.max(1))
    }

    fn held<'a>(&self, texts: impl Iterator<Item = &'a &'a str>) -> Held {
        Held(texts.map(|text| self.texts.told(&self.stems, text)).collect())
    }

    /// How much of the topic is what a heading or curated question is about. "Where" is answered under "Directions", too.
    pub fn about(&self, heading: &str) -> f32 {
        let held = self.held([&heading].into_iter());
        let is_there = self.asks.place && asked::PLACE.is_some_and(|concept| held.means(concept));
        self.coverage(&[heading], &[]).max(if is_there { 0.5 } else { 0.0 })
    }

    /// Whether nothing particular is asked about: "how long does shipping take?", to wherever.
    pub fn is_general(&self) -> bool {
        let mut wanted = self.wanted.iter().filter(|wanted| !wanted.is_generic);
        (self.asks.duration || self.asks.amount)
            && wanted.all(|one| one.concept.is_some_and(|concept| !is_name(concept)))
    }

    /// Whether the texts hold everything that an answer must not lack; names and numbers in one sentence (with the heading), which
    /// is an answer of the kind that is asked for. Where a price or a length of time is asked and nothing is named, so are all words
    /// that it is of.
    pub fn holds_essentials(&self, more: &[&str], sentences: &[&str]) -> bool {
        let held = self.held(more.iter().chain(sentences));
        let essential = || self.wanted.iter().filter(|wanted| wanted.is_essential && !wanted.is_generic);
        let is_named = |one: &Wanted| one.concept.is_some_and(is_name) || one.word.chars().any(char::is_numeric);
        // Behind a name, "it costs" may stand for what the sentence before has called a parcel.
        let of_one_sentence: Vec<&Wanted> = if essential().any(is_named) {
            essential().filter(|one| is_named(one)).collect()
        } else if (self.asks.duration || self.asks.amount) && self.asks.time {
            // Two questions in one: their words belong to different sentences.
            essential().collect()
        } else if self.asks.duration || self.asks.amount {
            let wanted = self.wanted.iter().filter(|one| !one.is_generic && !is_cost(one.concept));
            wanted.filter(|one| held.holds(one, self.is_foreign)).collect()
        } else {
            Vec::new()
        };
        essential().all(|wanted| held.holds(wanted, self.is_foreign))
            && (of_one_sentence.is_empty()
                || sentences.iter().any(|sentence| {
                    let held = self.held(more.iter().chain([sentence]));
                    self.is_of_the_kind(&[sentence])
                        && of_one_sentence.iter().all(|wanted| held.holds(wanted, self.is_foreign))
                }))
    }

    /// Whether a sentence speaks of other countries or weekdays than the question, and of none of those that it names.
    pub fn is_elsewhere(&self, sentence: &str) -> bool {
        let told = self.texts.told(&self.stems, sentence);
        [true, false].into_iter().any(|weekdays| {
            let of_kind = |concept: &u16| is_name(*concept) && is_weekday(*concept) == weekdays;
            let mut asked =
                self.wanted.iter().filter(|one| one.is_new).filter_map(|one| one.concept).filter(of_kind).peekable();
            asked.peek().is_some()
                && told.names.iter().any(of_kind)
                && !asked.any(|concept| told.names.contains(&concept))
        })
    }

    /// Whether a heading is about another dealing than the one whose price is asked: what it costs to rent a thing is not what
    /// the thing costs.
    pub fn is_another_dealing(&self, heading: &str) -> bool {
        let dealings = self.stems.all(heading).into_iter().filter_map(|stem| self.stems.concept(&stem));
        self.asks.amount
            && dealings
                .filter(|dealing| is_dealing(Some(*dealing)))
                .any(|dealing| !self.wanted.iter().any(|one| one.concept == Some(dealing)))
    }

    /// Whether the question has more than a lone word that may be met anywhere, or asks for what the sentences give: a price, a
    /// place, a time.
    pub fn says_enough(&self, sentences: &[&str]) -> bool {
        let mut wanted = self.wanted.iter().filter(|wanted| !wanted.is_generic);
        let Some(first) = wanted.next() else { return false };
        let language = self.language.as_deref();
        let is_given = || {
            let is_timed = self.asks.time && sentences.iter().any(|sentence| has_duration(sentence, language));
            self.asks.amount || self.asks.duration || is_timed || self.is_placed(sentences)
        };
        first.is_essential || wanted.next().is_some() || is_given()
    }

    /// How much a heading or curated question echoes this one, fillers and all: 1 when it is the same words.
    pub fn echo(&self, heading: &str) -> f32 {
        let theirs: HashSet<String> = words(heading).into_iter().collect();
        let shared = self.said.intersection(&theirs).count();
        shared as f32 / (self.said.len() + theirs.len() - shared).max(1) as f32
    }

    /// Whether one of the sentences is an answer of the kind that is asked for.
    pub fn is_of_the_kind(&self, sentences: &[&str]) -> bool {
        let language = self.language.as_deref();
        (!self.asks.duration || sentences.iter().any(|sentence| has_duration(sentence, language)))
            && (!self.asks.amount || sentences.iter().any(|sentence| has_amount(sentence, &self.stems)))
    }

    /// Whether a place is asked for, and a sentence names a street and number.
    fn is_placed(&self, sentences: &[&str]) -> bool {
        self.asks.place && sentences.iter().any(|sentence| has_address(sentence))
    }

    /// Whether one of the words stands there itself, or its translation, or what is asked for is given as an address.
    pub fn is_met_word_for_word(&self, sentences: &[&str]) -> bool {
        let held = self.held(sentences.iter());
        self.is_placed(sentences) || self.wanted.iter().any(|wanted| held.holds_itself(wanted, self.is_foreign))
    }

    /// Whether one sentence (with the heading) holds every word that only what is asked now says, and one of the concepts that
    /// were asked about before; always so without a question before it.
    pub fn says_what_is_new(&self, more: &[&str], sentences: &[&str]) -> bool {
        if self.wanted.iter().all(|wanted| wanted.is_new) {
            return true;
        }
        sentences.iter().any(|sentence| {
            let held = self.held(more.iter().chain([sentence]));
            let holds = |wanted: &&Wanted| held.holds(wanted, self.is_foreign);
            self.wanted.iter().filter(|wanted| wanted.is_new && !wanted.is_generic).all(|wanted| holds(&wanted))
                && self.wanted.iter().filter(|wanted| !wanted.is_new).any(|wanted| holds(&wanted))
        })
    }

    /// Whether a curated question speaks of the same things: what it says is wanted, and what is wanted stands there, or for a
    /// smaller part in its answer, which is given whole. A "yes" or "no" is only an answer to the very question that it was
    /// written for.
    pub fn equals(&self, question: &str, answer: &[&str]) -> bool {
        if self.wanted.is_empty()
            || self.coverage(&[question], &[]) < POLAR_COVERAGE_MIN
            || self.coverage(&[question], answer) < 1.0
        {
            return false;
        }
        // The other way round.
        self.stems.content_words(question).into_iter().all(|(stem, word)| {
            let concept = self.stems.concept(&stem);
            let says_little = GENERIC.contains(&word.as_str()) || concept.is_some() && concept == *asked::GOODS;
            says_little
                || self.wanted.iter().any(|wanted| {
                    wanted.translations.contains(&word)
                        || wanted.word == word
                        || (wanted.concept.is_some() && wanted.concept == concept)
                        || (!self.is_foreign && wanted.stem == stem && is_same_word(&wanted.word, &word))
                })
        })
    }
}

fn says(text: &str, word: &str) -> bool {
    words(text).iter().any(|said| said == word)
}

/// Share of the wanted words that a curated question must hold by itself when its answer begins with yes or no.
const POLAR_COVERAGE_MIN: f32 = 0.5;

/// Words that tell nothing of the topic beside others, folded: ways of asking, and "number" beside "phone".
const GENERIC: &[&str] = &[
    "long",
    "take",
    "takes",
    "happen",
    "happens",
    "back",
    "near",
    "work",
    "works",
    "get",
    "receive",
    "arrive",
    "arrives",
    "last",
    "lasts",
    "valid",
    "charge",
    "serve",
    "serves",
    "served",
    "offered",
    "available",
    "servieren",
    "serviert",
    "anbieten",
    "anbietet",
    "servir",
    "sirven",
    "ofrecen",
    "servez",
    "proposez",
    "servite",
    "offrite",
    "servem",
    "serveren",
    "put",
    "bring",
    "come",
    "time",
    "dura",
    "komme",
    "kommen",
    "mitkommen",
    "mitbringen",
    "mitnehmen",
    "bringen",
    "mit",
    "venir",
    "amener",
    "apporter",
    "traer",
    "llevar",
    "portare",
    "venire",
    "trazer",
    "meebrengen",
    "lange",
    "lang",
    "wielange",
    "zeit",
    "gilt",
    "gelten",
    "gultig",
    "ankommt",
    "arriver",
    "arrive",
    "llega",
    "llegar",
    "arriva",
    "arrivare",
    "chega",
    "aankomt",
    "geldig",
    "vale",
    "valido",
    "dauert",
    "dauern",
    "finde",
    "find",
    "kommt",
    "bekomme",
    "bekommen",
    "erhalte",
    "zuruck",
    "funktioniert",
    "darf",
    "durfen",
    "geht",
    "tarda",
    "tardan",
    "recibir",
    "recibo",
    "funciona",
    "puedo",
    "puede",
    "prend",
    "dure",
    "recevoir",
    "recois",
    "marche",
    "fonctionne",
    "temps",
    "longtemps",
    "puis",
    "tiempo",
    "tempo",
    "ricevo",
    "funziona",
    "posso",
    "demora",
    "recebo",
    "duurt",
    "krijg",
    "werkt",
];
const OF_CONTACTS: &[&str] =
    &["number", "address", "nummer", "adresse", "numero", "direccion", "indirizzo", "endereco"];

/// Marks generic words, as long as others are left.
fn mark_generic(wanted: &mut [Wanted]) {
    const CONTACTS: [&str; 2] = ["phone", "email"];
    let contacts = CONTACTS.map(asked::english);
    let names_contact = wanted.iter().any(|one| one.concept.is_some() && contacts.contains(&one.concept));
    let is_generic = |one: &Wanted| {
        GENERIC.contains(&one.word.as_str())
            || (one.concept.is_some() && one.concept == *asked::GOODS)
            || (names_contact && OF_CONTACTS.contains(&one.word.as_str()))
    };
    if wanted.iter().any(|one| !is_generic(one)) {
        for one in wanted {
            one.is_generic = is_generic(one);
        }
    }
}

/// Words with a hyphen as one, folded: "Wi-Fi" is "wifi".
fn joined(text: &str) -> impl Iterator<Item = String> {
    let hyphenated = text.split_whitespace().filter(|token| token.contains('-'));
    hyphenated.flat_map(|token| words(&token.replace('-', "")))
}

/// What one text tells, by stem and concept.
#[derive(Debug)]
struct Told {
    forms: HashMap<String, Vec<String>>,
    words: HashSet<String>,
    concepts: HashSet<u16>,
    /// The weekdays and countries among them.
    names: HashSet<u16>,
    /// It names a sum of money.
    has_sum: bool,
}

impl Told {
    fn by(stems: &Stems, text: &str) -> Self {
        let (mut forms, mut all) = (HashMap::<String, Vec<String>>::new(), HashSet::new());
        for word in words(text).into_iter().chain(joined(text)).chain(rejoined(text, stems)) {
            forms.entry(stems.stem(&word)).or_default().push(word.clone());
            all.insert(word);
        }
        let names = named(text, stems);
        let mut concepts = names.clone();
        concepts.extend(forms.keys().filter_map(|stem| stems.concept(stem)));
        if has_address(text) {
            concepts.extend(*asked::PLACE);
        }
        Self { forms, words: all, concepts, names, has_sum: has_sum(text, stems) }
    }
}

/// What some texts hold together.
struct Held(Vec<Arc<Told>>);

impl Held {
    fn means(&self, concept: u16) -> bool {
        self.0.iter().any(|told| told.concepts.contains(&concept))
    }

    fn says(&self, word: &str) -> bool {
        self.0.iter().any(|told| told.words.contains(word))
    }

    fn holds(&self, wanted: &Wanted, is_foreign: bool) -> bool {
        if wanted.concept.is_some_and(|concept| self.means(concept)) {
            return true;
        }
        // A price need not be called one, and when something closes is said by when it is open.
        if is_cost(wanted.concept) && self.0.iter().any(|told| told.has_sum) {
            return true;
        }
        let asks_closing = wanted.concept.is_some() && wanted.concept == *asked::CLOSING;
        if asks_closing && asked::OPENING.is_some_and(|concept| self.means(concept)) {
            return true;
        }
        self.holds_itself(wanted, is_foreign)
    }

    fn holds_itself(&self, wanted: &Wanted, is_foreign: bool) -> bool {
        if wanted.names.iter().any(|name| self.says(name)) {
            return true;
        }
        if is_foreign {
            // Names and numbers are written alike; anything else must be a translation.
            return self.says(&wanted.word) || wanted.translations.iter().any(|word| self.says(word));
        }
        let mut forms = self.0.iter().filter_map(|told| told.forms.get(&wanted.stem)).flatten();
        forms.any(|form| is_same_word(&wanted.word, form))
    }
}

/// Whether two words of one stem are one word. Stemmers make `france` and `francs` one; no language inflects so.
fn is_same_word(a: &str, b: &str) -> bool {
    let common = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let rests = (a.get(common..).unwrap_or_default(), b.get(common..).unwrap_or_default());
    !matches!(rests, ("e", "s") | ("s", "e"))
}
