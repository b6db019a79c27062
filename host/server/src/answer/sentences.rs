//! Sentences: where they end, and which of them state a fact.

use unicode_segmentation::UnicodeSegmentation;

use crate::knowledge::terms::words;

/// Abbreviations after which a sentence goes on, folded, without their dots.
const ABBREVIATIONS: &[&str] = &[
    "approx", "bzw", "ca", "dr", "eg", "etc", "evtl", "ggf", "inkl", "incl", "max", "min", "mr", "mrs", "ms", "mwst",
    "no", "nr", "prof", "sr", "sra", "st", "str", "tel", "usw", "vs", "zb", "z", "b", "p", "e", "g", "u", "a",
];

/// Openings of sentences that greet, thank, offer help or lead in, folded. Such a sentence states no fact when it is
/// short and holds no number.
const COURTESIES: &[&str] = &[
    // English
    "hi",
    "hello",
    "hey",
    "dear",
    "good morning",
    "good afternoon",
    "good evening",
    "thank you",
    "thanks",
    "youre welcome",
    "you are welcome",
    "sure",
    "of course",
    "certainly",
    "happy to help",
    "glad to help",
    "great question",
    "sorry",
    "i am sorry",
    "im sorry",
    "we are sorry",
    "were sorry",
    "let me know",
    "let us know",
    "feel free",
    "please let",
    "best regards",
    "kind regards",
    "have a nice",
    "have a great",
    "i hope this helps",
    "hope this helps",
    "hope that helps",
    "is there anything else",
    "here is what i found",
    "no problem",
    "my pleasure",
    "welcome",
    // German
    "hallo",
    "guten tag",
    "guten morgen",
    "guten abend",
    "liebe",
    "lieber",
    "danke",
    "vielen dank",
    "gerne",
    "gern geschehen",
    "entschuldigung",
    "es tut mir leid",
    "tut mir leid",
    "tut uns leid",
    "melden sie sich",
    "melde dich",
    "viele grusse",
    "beste grusse",
    "mit freundlichen grussen",
    "schonen tag",
    "einen schonen tag",
    "naturlich",
    "selbstverstandlich",
    "kein problem",
    "ich hoffe das hilft",
    // Spanish
    "hola",
    "buenos dias",
    "buenas tardes",
    "buenas noches",
    "gracias",
    "muchas gracias",
    "de nada",
    "claro",
    "por supuesto",
    "lo siento",
    "lo sentimos",
    "disculpa",
    "disculpe",
    "no dude",
    "no dudes",
    "un saludo",
    "saludos",
    "que tenga",
    "con gusto",
    "espero que",
    // French
    "bonjour",
    "bonsoir",
    "salut",
    "merci",
    "merci beaucoup",
    "de rien",
    "bien sur",
    "avec plaisir",
    "desole",
    "desolee",
    "nous sommes desoles",
    "je suis desole",
    "je suis desolee",
    "nhesitez pas",
    "cordialement",
    "bonne journee",
    "bonne soiree",
    "jespere que",
    // Italian, Portuguese, Dutch
    "ciao",
    "buongiorno",
    "buonasera",
    "grazie",
    "prego",
    "certo",
    "certamente",
    "mi dispiace",
    "ci dispiace",
    "cordiali saluti",
    "buona giornata",
    "ola",
    "bom dia",
    "boa tarde",
    "boa noite",
    "obrigado",
    "obrigada",
    "com certeza",
    "claro que sim",
    "lamento",
    "lamentamos",
    "fico feliz",
    "atenciosamente",
    "goedendag",
    "goedemorgen",
    "goedemiddag",
    "bedankt",
    "dank je",
    "dank u",
    "graag gedaan",
    "natuurlijk",
    "het spijt",
    "sorry",
    "met vriendelijke groet",
    "fijne dag",
];

/// A courtesy longer than this says something besides.
const COURTESY_WORDS_MAX: usize = 9;

/// Splits a text into sentences, whose pieces joined together are the text without its blank lines. Bullet points and
/// lines are sentences of their own; abbreviations, numbers, web and mail addresses are not torn apart.
pub fn split(text: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut start = 0;
        let mut bounds = line.split_sentence_bound_indices().peekable();
        while let Some((at, piece)) = bounds.next() {
            let end = at + piece.len();
            let sentence = line.get(start..end).unwrap_or_default();
            let goes_on = bounds.peek().is_some_and(|(_, next)| continues(sentence, next));
            if goes_on {
                continue;
            }
            if !sentence.trim().is_empty() {
                sentences.push(sentence.trim());
            }
            start = end;
        }
    }
    sentences
}

/// Whether what looks like the end of a sentence is none.
fn continues(sentence: &str, next: &str) -> bool {
    let trimmed = sentence.trim_end();
    // Citations that follow the full stop belong to the sentence before it.
    if next.trim_start().starts_with('[') && !next.trim_start().starts_with("[](") {
        return true;
    }
    let Some(body) = trimmed.strip_suffix('.') else { return false };
    if sentence.len() == trimmed.len() {
        // No space after the dot: an address, a version, an abbreviation.
        return true;
    }
    let last = body.rsplit([' ', '(', '\u{a0}']).next().unwrap_or_default();
    let folded = words(last).join("");
    let ordinal = !last.is_empty() && last.chars().all(|c| c.is_ascii_digit()) && last.len() <= 2;
    let starts_list = ordinal && body == last;
    ABBREVIATIONS.contains(&folded.as_str())
        || last.contains('.') && last.len() <= 6
        || starts_list
        || ordinal && next.chars().next().is_some_and(char::is_uppercase) && is_month(next)
}

/// German and other dates: `24. Dezember`.
fn is_month(next: &str) -> bool {
    const MONTHS: &[&str] = &[
        "januar",
        "januar",
        "februar",
        "marz",
        "april",
        "mai",
        "juni",
        "juli",
        "august",
        "september",
        "oktober",
        "november",
        "dezember",
        "jan",
        "feb",
        "apr",
        "jun",
        "jul",
        "aug",
        "sep",
        "okt",
        "nov",
        "dez",
        "oct",
        "dec",
    ];
    words(next).first().is_some_and(|word| MONTHS.contains(&word.as_str()))
}

/// Whether a sentence states something that a passage must carry. Questions, greetings, thanks and offers do not;
/// anything that is not surely one of these does.
pub fn is_factual(sentence: &str) -> bool {
    let words = words(sentence);
    if words.is_empty() {
        return false;
    }
    let has_number = sentence.chars().any(|c| c.is_numeric());
    let has_address = sentence.contains('@') || sentence.contains("://") || sentence.contains("www.");
    if has_number || has_address {
        return true;
    }
    if sentence.trim_end().ends_with(['?', '？', '؟', ';']) && words.len() <= 2 * COURTESY_WORDS_MAX {
        // Only a plain question: "We ship worldwide, did you know?" asserts before it asks.
        return sentence.contains([',', ':', '—', '–']) && !opens_with_courtesy(&words);
    }
    !(words.len() <= COURTESY_WORDS_MAX && opens_with_courtesy(&words) && !asserts_after_courtesy(sentence))
}

fn opens_with_courtesy(words: &[String]) -> bool {
    let joined = words.join(" ");
    COURTESIES
        .iter()
        .any(|opening| joined.strip_prefix(opening).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')))
}

/// "Sure, we ship worldwide." opens with a courtesy and then states a fact.
fn asserts_after_courtesy(sentence: &str) -> bool {
    let Some((_, rest)) = sentence.split_once([',', ':', '—', '–', ';', '!']) else {
        return states(&words(sentence));
    };
    let rest = words(rest);
    // A name or another courtesy may follow: "Hi, Anna", "Hello, thanks for asking".
    rest.len() > 2 && !opens_with_courtesy(&rest)
}

/// Verbs and pronouns by which "of course we ship abroad" (no comma) gives itself away.
fn states(words: &[String]) -> bool {
    const SUBJECTS: &[&str] =
        &["we", "it", "they", "wir", "nous", "noi", "nosotros", "nos", "wij", "our", "unser", "unsere"];
    let subject = words.iter().skip(1).any(|word| SUBJECTS.contains(&word.as_str()));
    subject
        && words.first().is_some_and(|first| {
            [
                "sure",
                "of",
                "certainly",
                "naturlich",
                "claro",
                "certo",
                "natuurlijk",
                "selbstverstandlich",
                "bien",
                "com",
            ]
            .contains(&first.as_str())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_where_people_would_say_so() {
        for (text, expected) in [
            ("We ship to Austria. It takes 3 days.", vec!["We ship to Austria.", "It takes 3 days."]),
            ("It costs 4.90 EUR. Free from 50 EUR!", vec!["It costs 4.90 EUR.", "Free from 50 EUR!"]),
            (
                "Ask Dr. Smith or mail a.b@shop.example. Thanks.",
                vec!["Ask Dr. Smith or mail a.b@shop.example.", "Thanks."],
            ),
            ("Wir haben am 24. Dezember zu. Danke!", vec!["Wir haben am 24. Dezember zu.", "Danke!"]),
            ("Z.B. grüner Tee. Ja.", vec!["Z.B. grüner Tee.", "Ja."]),
            ("- one\n- two\n\nthree", vec!["- one", "- two", "three"]),
            ("Returns are free. [1] Refunds take a week [2].", vec!["Returns are free. [1] Refunds take a week [2]."]),
            ("", vec![]),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
    }

    #[test]
    fn courtesies_and_questions_are_not_facts() {
        for text in [
            "Hello Anna!",
            "Thanks for your message.",
            "Gerne!",
            "¡Hola!",
            "Bonjour Marie,",
            "Is there anything else I can help with?",
            "Happy to help!",
            "Which tea did you buy?",
            "Vielen Dank für Ihre Nachricht.",
            "…",
        ] {
            assert!(!is_factual(text), "{text}");
        }
    }

    #[test]
    fn facts_behind_courtesies_are_facts() {
        for text in [
            "We ship to Austria.",
            "Sure, we ship worldwide.",
            "Of course we also repair bicycles.",
            "Hello, the shop opens at 9.",
            "Thanks to our partner in Vienna we deliver every order on the same day.",
            "We ship worldwide, did you know?",
            "Write to help@shop.example",
            "Gerne, wir liefern auch nach Japan.",
            "Free returns",
        ] {
            assert!(is_factual(text), "{text}");
        }
    }
}
