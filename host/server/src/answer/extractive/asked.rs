//! What kind of answer a question asks for, and which of its words an answer must not lack.
//!
//! "How long does shipping take?" is answered by a sentence with a length of time, "how much is it?" by one with a sum, whatever
//! else they hold. And a quotation may lack a verb or an adverb of the question, but not what it is about: the opening hours of
//! the shop do not answer what those of the warehouse are. What a question is about stands behind an article or a preposition
//! ("of your warehouse", "un coche"), or is a name, a number, a weekday or a country.

use std::sync::LazyLock;

use unicode_segmentation::UnicodeSegmentation;

use crate::answer::evidence::number_word;
use crate::knowledge::terms::{Stems, fold, is_filler, words};

/// Ways of asking, folded.
const WHERE: &[&str] = &["where", "wheres", "wo", "donde", "ou", "dove", "onde", "waar"];
const HOW_LONG: &[&str] = &[
    "lange",
    "wielange",
    "lang",
    "dauert",
    "dauern",
    "lieferzeit",
    "lieferzeiten",
    "tarda",
    "tardan",
    "tardar",
    "dura",
    "longtemps",
    "dure",
    "delai",
    "delais",
    "durata",
    "demora",
    "demoram",
    "duurt",
    "levertijd",
];

/// Of what kind the answer must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    pub place: bool,
    pub duration: bool,
    pub amount: bool,
    /// A day or an hour. Not every answer names one: "when your order leaves our warehouse".
    pub time: bool,
}

/// Ways to ask for a day or an hour, folded.
const WHEN: &[&str] = &["when", "whens", "wann", "cuando", "quand", "quando", "wanneer"];
const HOURS: &[(&str, &[&str])] =
    &[("what", &["time"]), ("que", &["hora"]), ("quelle", &["heure"]), ("che", &["ora"]), ("hoe", &["laat"])];

const EXPENSIVE: &[&str] = &["expensive", "teuer", "caro", "cara", "cher", "chere", "duur"];

impl Kinds {
    pub fn of(question: &str, stems: &Stems) -> Self {
        let asked = words(question);
        let asks = |names: &[&str]| asked.iter().any(|word| names.contains(&word.as_str()));
        let pair = |first: &str, second: &[&str]| {
            asked.windows(2).any(|pair| matches!(pair, [a, b] if a == first && second.contains(&b.as_str())))
        };
        let time = pair("quanto", &["tempo"]) || pair("cuanto", &["tiempo"]) || pair("de", &["temps"]);
        let costs = asked.iter().any(|word| stems.concept(&stems.stem(word)).is_some_and(|one| Some(one) == *COST));
        Self {
            place: asks(WHERE),
            duration: pair("how", &["long"])
                || pair("how", &["fast", "quickly", "soon"])
                || pair("much", &["time"])
                || names_a_time(&asked)
                || time
                || asks(HOW_LONG),
            time: asks(WHEN) || HOURS.iter().any(|(first, second)| pair(first, second)),
            amount: costs
                || asks(EXPENSIVE)
                || pair("much", &["is", "are", "for", "to"])
                || how_much_is_charged(&asked),
        }
    }
}

/// "Delivery time", "waiting time": a length of time by its name. "What time", "this time" and "next time" are none.
fn names_a_time(asked: &[String]) -> bool {
    let names = |pair: &[String]| matches!(pair, [thing, time] if matches!(time.as_str(), "time" | "times") && !is_filler(thing, Some("en")) && !NO_LENGTHS.contains(&thing.as_str()));
    asked.windows(2).any(names)
}

const NO_LENGTHS: &[&str] =
    &["next", "last", "first", "second", "third", "opening", "closing", "every", "each", "same"];

/// "How much do you charge for it?"
fn how_much_is_charged(asked: &[String]) -> bool {
    const CHARGING: &[&str] = &["charge", "charged", "pay", "spend"];
    asked.windows(2).any(|pair| matches!(pair, [how, much] if how == "how" && much == "much"))
        && asked.iter().any(|word| CHARGING.contains(&word.as_str()))
}

static COST: LazyLock<Option<u16>> = LazyLock::new(|| english("price"));
/// The concept of being somewhere.
pub(super) static PLACE: LazyLock<Option<u16>> = LazyLock::new(|| english("where"));

/// Being open, which answers when something closes.
pub(super) static OPENING: LazyLock<Option<u16>> = LazyLock::new(|| english("open"));
pub(super) static CLOSING: LazyLock<Option<u16>> = LazyLock::new(|| english("close"));
/// What is sold, by no name: it says nothing beside anything else.
pub(super) static GOODS: LazyLock<Option<u16>> = LazyLock::new(|| english("item"));

/// The concept of an English word.
pub(super) fn english(word: &str) -> Option<u16> {
    let stems = Stems::new(Some("en"));
    stems.concept(&stems.stem(word))
}

/// Sending something back, in two words.
pub(super) static RETURNING: LazyLock<Option<u16>> = LazyLock::new(|| english("return"));
const BACK: &[&str] = &["back", "zuruck", "terug", "vuelta", "indietro"];
const HANDING: &[&str] = &[
    "send",
    "sending",
    "give",
    "bring",
    "take",
    "hand",
    "schicke",
    "schicken",
    "senden",
    "sende",
    "geben",
    "gebe",
    "bringen",
    "bringe",
    "mandar",
    "enviar",
    "sturen",
    "mandare",
    "rimandare",
];

/// Whether a word of the question is one of two that say "return".
pub(super) fn hands_back(word: &str, question: &[String]) -> bool {
    HANDING.contains(&word) && question.iter().any(|word| BACK.contains(&word.as_str()))
}

/// Whether a concept is what something costs.
pub(super) fn is_cost(concept: Option<u16>) -> bool {
    concept.is_some() && concept == *COST
}

/// Units of time, folded.
const TIMES: &[&str] = &[
    "minute",
    "minutes",
    "min",
    "hour",
    "hours",
    "day",
    "days",
    "week",
    "weeks",
    "month",
    "months",
    "year",
    "years",
    "overnight",
    "immediately",
    "minuten",
    "stunde",
    "stunden",
    "tag",
    "tage",
    "tagen",
    "werktag",
    "werktage",
    "werktagen",
    "arbeitstage",
    "arbeitstagen",
    "woche",
    "wochen",
    "monat",
    "monate",
    "monaten",
    "jahr",
    "jahre",
    "jahren",
    "uhr",
    "sofort",
    "minuto",
    "minutos",
    "hora",
    "horas",
    "dia",
    "dias",
    "semana",
    "semanas",
    "mes",
    "meses",
    "ano",
    "anos",
    "heure",
    "heures",
    "jour",
    "jours",
    "semaine",
    "semaines",
    "mois",
    "an",
    "ans",
    "annee",
    "annees",
    "minuti",
    "ora",
    "ore",
    "giorno",
    "giorni",
    "settimana",
    "settimane",
    "mese",
    "mesi",
    "anno",
    "anni",
    "uur",
    "dag",
    "dagen",
    "werkdag",
    "werkdagen",
    "weken",
    "maand",
    "maanden",
    "jaar",
];

/// Currencies, and ways to say that something costs nothing, folded.
const SUMS: &[&str] = &[
    "eur", "euro", "euros", "usd", "dollar", "dollars", "chf", "franc", "francs", "franken", "pound", "pounds", "gbp",
    "cent", "cents", "yen", "rupees", "pesos", "reais", "kronor", "kroner", "zloty", "lira",
];
const FREE: &[&str] = &[
    "free",
    "gratis",
    "kostenlos",
    "kostenfrei",
    "gratuit",
    "gratuite",
    "gratuits",
    "gratuites",
    "gratuito",
    "gratuita",
    "gratuitos",
    "gratuitas",
];

pub(super) fn has_number(text: &str) -> bool {
    text.chars().any(char::is_numeric) || words(text).iter().any(|word| number_word(word).is_some())
}

/// Whether a text of a language says how long something takes, or until when. Where the units are not known any number may.
pub(super) fn has_duration(text: &str, language: Option<&str>) -> bool {
    static CLOCK: LazyLock<Option<regex::Regex>> =
        LazyLock::new(|| regex::Regex::new(r"\b[0-9]{1,2}[:h][0-9]{2}\b").ok());
    let knows_units = language.is_none_or(is_known);
    let has_unit = || words(text).iter().any(|word| TIMES.contains(&word.as_str()));
    let has_clock = || CLOCK.as_ref().is_some_and(|clock| clock.is_match(text));
    if knows_units { has_unit() || has_clock() } else { has_number(text) }
}

/// Whether a text says where something is by street and number: "at Uferweg 4", "12 High Street".
pub(super) fn has_address(text: &str) -> bool {
    static STREET: LazyLock<Option<regex::Regex>> = LazyLock::new(|| {
        let before = r"\b(?:at|in|an|am|im|der|en|à|au|rue|la|calle|via|aan|op|de|het|na|no|rua)";
        let name_and_number =
            format!(r"{before} \p{{Lu}}[\p{{L}}'’.-]{{2,}}(?: [\p{{L}}'’.-]{{2,}})?,? \d{{1,4}}[a-z]?\b");
        let street = r"(?:Street|Road|Avenue|Lane|Square|Drive|Boulevard|rue|avenue|place|boulevard|quai)";
        regex::Regex::new(&format!(r"{name_and_number}|\b\d{{1,4}},? (?:\p{{Lu}}\p{{L}}+ ){{0,2}}{street}\b")).ok()
    });
    STREET.as_ref().is_some_and(|street| street.is_match(text))
}

/// Whether a text of a language says what something costs.
pub(super) fn has_amount(text: &str, stems: &Stems) -> bool {
    has_sum(text, stems) || words(text).iter().any(|word| FREE.contains(&word.as_str()))
}

/// Whether a text of a language names a sum of money.
pub(super) fn has_sum(text: &str, stems: &Stems) -> bool {
    let words = words(text);
    let names_money = || words.iter().any(|word| SUMS.contains(&word.as_str()));
    let is_sign = |c: char| matches!(c, '€' | '$' | '£' | '¥' | '₹' | '₺' | '₽' | '₩');
    let speaks_of_costs = || words.iter().any(|word| is_cost(stems.concept(&stems.stem(word))));
    let knows_units = stems.language().is_none_or(is_known);
    has_number(text)
        && (names_money()
            || text.contains(is_sign)
            || (speaks_of_costs() && has_bare_number(text, stems))
            || !knows_units)
}

/// Whether a number stands alone: "the price is 25" names a sum, "40 percent off the price within three years" does not.
fn has_bare_number(text: &str, stems: &Stems) -> bool {
    let is_number = |word: &str| word.chars().any(char::is_numeric) || number_word(word).is_some();
    text.split(['.', ',', ';', ':', '(', ')']).any(|part| {
        // A percentage is a share of a price.
        let words = words(&part.replace('%', " percent"));
        words.iter().enumerate().any(|(at, word)| {
            is_number(word) && words.get(at + 1).is_none_or(|next| is_number(next) || is_filler(next, stems.language()))
        })
    })
}

/// What may be done with a thing besides buying it, each at its own price.
static DEALINGS: LazyLock<Vec<Option<u16>>> =
    LazyLock::new(|| ["rent", "return", "refund", "repair", "cancel", "warranty", "discount"].map(english).to_vec());

pub(super) fn is_dealing(concept: Option<u16>) -> bool {
    concept.is_some() && DEALINGS.contains(&concept)
}

/// Languages whose units and function words stand here.
fn is_known(language: &str) -> bool {
    matches!(language, "en" | "de" | "es" | "fr" | "it" | "pt" | "nl")
}

/// Articles, possessives and prepositions, folded: behind them stands what a question is about. English "to" also begins verbs.
const OPENERS: &[(&str, &[&str])] = &[
    (
        "en",
        &[
            "a", "an", "the", "your", "my", "our", "this", "these", "any", "each", "every", "of", "for", "on", "from",
            "with", "without", "in", "at", "by", "into", "near", "during",
        ],
    ),
    (
        "de",
        &[
            "der", "die", "das", "den", "dem", "des", "ein", "eine", "einen", "einem", "einer", "eines", "mein",
            "meine", "meinen", "meinem", "meiner", "dein", "deine", "deinen", "euer", "eure", "euren", "eurem",
            "eurer", "ihr", "ihre", "ihren", "ihrem", "ihrer", "kein", "keine", "von", "vom", "fur", "auf", "aus",
            "mit", "ohne", "in", "im", "ins", "bei", "beim", "nach", "zu", "zum", "zur", "am", "an", "uber", "bis",
        ],
    ),
    (
        "es",
        &[
            "el", "la", "los", "las", "un", "una", "unos", "unas", "mi", "su", "sus", "tu", "al", "del", "de", "para",
            "con", "sin", "en", "desde", "sobre", "a",
        ],
    ),
    (
        "fr",
        &[
            "le", "la", "les", "l", "un", "une", "des", "du", "de", "d", "mon", "ma", "mes", "votre", "vos", "notre",
            "au", "aux", "a", "pour", "avec", "sans", "en", "sur", "chez", "vers", "dans",
        ],
    ),
    (
        "it",
        &[
            "il", "lo", "la", "i", "gli", "le", "l", "un", "uno", "una", "del", "della", "dei", "delle", "di", "d",
            "da", "dal", "per", "con", "senza", "in", "nel", "nella", "su", "sul", "a", "al", "alla", "vostro",
            "vostra", "mio", "mia",
        ],
    ),
    (
        "pt",
        &[
            "o", "a", "os", "as", "um", "uma", "do", "da", "dos", "das", "de", "para", "pra", "com", "sem", "em", "no",
            "na", "nos", "nas", "ao", "seu", "sua", "meu", "minha", "sobre",
        ],
    ),
    (
        "nl",
        &[
            "de", "het", "een", "mijn", "jullie", "uw", "van", "voor", "op", "met", "zonder", "in", "bij", "naar",
            "uit", "aan", "tot",
        ],
    ),
];

/// A word as it is written.
struct Token {
    word: String,
    has_capital: bool,
    /// Of its sentence.
    is_first: bool,
    /// Of its part between commas.
    begins: bool,
}

/// As `terms::words` folds them, but with the articles that it drops (`l'envoi`).
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    for sentence in text.unicode_sentences() {
        let mut is_first = true;
        for part in sentence.split([',', ';', ':', '(', ')']) {
            let mut begins = true;
            for written in part.unicode_words() {
                let folded = fold(written);
                if let Some((head, tail)) = folded.split_once('\'')
                    && head.chars().count() <= 2
                    && tail.chars().count() >= 3
                {
                    tokens.push(Token { word: head.to_owned(), has_capital: false, is_first, begins });
                    begins = false;
                }
                let word = words(written).into_iter().next().unwrap_or_default();
                let has_capital = written.chars().any(char::is_uppercase);
                tokens.push(Token { word, has_capital, is_first, begins });
                (is_first, begins) = (false, false);
            }
        }
    }
    tokens
}

/// Folded words of a question that an answer must not lack.
pub(super) fn essentials(question: &str, language: Option<&str>) -> Vec<String> {
    let openers = OPENERS.iter().find(|(code, _)| Some(*code) == language).map_or(&[][..], |(_, openers)| openers);
    // Whoever writes everything in capitals says nothing with them.
    let shouts = !question.chars().any(char::is_lowercase);
    let mut essentials = Vec::new();
    let mut is_open = false;
    for token in tokens(question) {
        let Token { word, has_capital, is_first, begins } = token;
        is_open &= !begins;
        let is_name = has_capital && !is_first && !shouts;
        if openers.contains(&word.as_str()) {
            is_open = true;
        } else if is_filler(&word, language) && !is_name {
            is_open = false;
        } else if is_open || is_name || word.chars().any(char::is_numeric) {
            essentials.push(word);
        }
    }
    essentials
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_question_is_about_is_essential() {
        for (language, question, expected) in [
            ("en", "What are the opening hours of your warehouse?", "opening hours warehouse"),
            ("en", "Can you ship bicycles to Sweden?", "sweden"),
            ("en", "How much is the Flaneur in red?", "flaneur red"),
            ("en", "What does it cost to rent a car for a day?", "car day"),
            ("en", "do you deliver on 24 december", "24 december"),
            ("de", "Was kostet ein Paket nach Frankreich?", "paket frankreich"),
            ("de", "habt ihr einen kochkurs", "kochkurs"),
            ("es", "¿Cuánto cuesta alquilar un coche?", "coche"),
            ("fr", "Combien coûte l'envoi en Belgique ?", "envoi belgique"),
            ("it", "Quanto costa la spedizione in Francia?", "spedizione francia"),
            ("en", "HOW LONG DOES SHIPPING TAKE", ""),
        ] {
            assert_eq!(essentials(question, Some(language)).join(" "), expected, "{question}");
        }
    }

    #[test]
    fn a_kind_of_answer_is_asked_for() {
        let kinds = |question: &str, language: &str| {
            let Kinds { place, duration, amount, .. } = Kinds::of(question, &Stems::new(Some(language)));
            (place, duration, amount)
        };
        for (question, language, expected) in [
            ("Where are you?", "en", (true, false, false)),
            ("How long does shipping take?", "en", (false, true, false)),
            ("How much is the Flaneur?", "en", (false, false, true)),
            ("How much does the bike weigh?", "en", (false, false, false)),
            ("How much do you charge for a repair?", "en", (false, false, true)),
            ("delivery time for a bike", "en", (false, true, false)),
            ("what time do you close", "en", (false, false, false)),
            ("Wie lange dauert der Versand?", "de", (false, true, false)),
            ("Was kostet das?", "de", (false, false, true)),
            ("¿Cuánto tiempo tarda el envío?", "es", (false, true, false)),
            ("Combien de temps prend la livraison ?", "fr", (false, true, false)),
            ("Quel est le prix ?", "fr", (false, false, true)),
        ] {
            assert_eq!(kinds(question, language), expected, "{question}");
        }
    }

    #[test]
    fn addresses_are_told_from_other_numbers() {
        for (text, expected) in [
            ("We are at Uferweg 4 in Bregenz.", true),
            ("The shop is at Flussgasse 12 in Innsbruck.", true),
            ("Unser Laden ist in der Langen Gasse 7.", true),
            ("Nous sommes au 12 rue Victor Hugo.", true),
            ("Find us at 221 Baker Street.", true),
            ("Murmel 16 costs 349 euros.", false),
            ("On 24 December we are open from 9:00.", false),
            ("We take bus 12 to Strandbad.", false),
        ] {
            assert_eq!(has_address(text), expected, "{text}");
        }
    }

    #[test]
    fn times_and_sums_are_told_from_other_numbers() {
        let english = Stems::new(Some("en"));
        for (text, duration, amount) in [
            ("It takes 1 to 3 working days.", true, false),
            ("The warranty lasts five years.", true, false),
            ("It lasts 70 to 130 kilometres.", false, false),
            ("Open from 9:00.", true, false),
            ("It costs 4.90 euros.", false, true),
            ("The price is 25.", false, true),
            ("Returns are free.", false, true),
            ("The wheels have 20 inches.", false, false),
            ("You get a new one at 40 percent off the price.", false, false),
        ] {
            assert_eq!((has_duration(text, Some("en")), has_amount(text, &english)), (duration, amount), "{text}");
        }
    }
}
