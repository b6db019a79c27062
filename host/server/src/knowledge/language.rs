//! Languages: detecting one, and what Postgres and the stemmer call it.
//!
//! # How a language is detected
//! Other scripts than the Latin tell it themselves, or nearly. For Latin ones two witnesses are heard: the words that only
//! some languages have ([`telltales`]), and the statistics of letter triples (`whatlang`). In a text of two to five words the
//! second guesses, so the first decides as soon as it is clear. Where neither is, what is [`Likely`] decides between those
//! that something speaks for: the language of the conversation so far, then the Page's.

mod telltales;

use std::sync::LazyLock;

use rust_stemmers::Algorithm;
use whatlang::{Lang, Script};

use super::KnowledgeError;
use telltales::Telltales;

/// One language in the four namings this crate meets.
#[derive(Debug)]
struct Language {
    /// ISO 639-1.
    code: &'static str,
    lang: Lang,
    /// Text search configuration of an ordinary Postgres installation.
    ts_config: &'static str,
    stemmer: Option<Algorithm>,
}

impl Language {
    fn is_cyrillic(&self) -> bool {
        matches!(self.code, "bg" | "ru" | "uk")
    }
}

const fn language(code: &'static str, lang: Lang, ts_config: &'static str, stemmer: Option<Algorithm>) -> Language {
    Language { code, lang, ts_config, stemmer }
}

static LANGUAGES: &[Language] = &[
    language("ar", Lang::Ara, "arabic", Some(Algorithm::Arabic)),
    language("bg", Lang::Bul, "simple", None),
    language("cs", Lang::Ces, "simple", None),
    language("da", Lang::Dan, "danish", Some(Algorithm::Danish)),
    language("de", Lang::Deu, "german", Some(Algorithm::German)),
    language("el", Lang::Ell, "greek", Some(Algorithm::Greek)),
    language("en", Lang::Eng, "english", Some(Algorithm::English)),
    language("es", Lang::Spa, "spanish", Some(Algorithm::Spanish)),
    language("fi", Lang::Fin, "finnish", Some(Algorithm::Finnish)),
    language("fr", Lang::Fra, "french", Some(Algorithm::French)),
    language("he", Lang::Heb, "simple", None),
    language("hi", Lang::Hin, "hindi", None),
    language("hr", Lang::Hrv, "simple", None),
    language("hu", Lang::Hun, "hungarian", Some(Algorithm::Hungarian)),
    language("id", Lang::Ind, "indonesian", None),
    language("it", Lang::Ita, "italian", Some(Algorithm::Italian)),
    language("ja", Lang::Jpn, "simple", None),
    language("ko", Lang::Kor, "simple", None),
    language("nb", Lang::Nob, "norwegian", Some(Algorithm::Norwegian)),
    language("nl", Lang::Nld, "dutch", Some(Algorithm::Dutch)),
    language("pl", Lang::Pol, "simple", None),
    language("pt", Lang::Por, "portuguese", Some(Algorithm::Portuguese)),
    language("ro", Lang::Ron, "romanian", Some(Algorithm::Romanian)),
    language("ru", Lang::Rus, "russian", Some(Algorithm::Russian)),
    language("sk", Lang::Slk, "simple", None),
    language("sv", Lang::Swe, "swedish", Some(Algorithm::Swedish)),
    language("th", Lang::Tha, "simple", None),
    language("tr", Lang::Tur, "turkish", Some(Algorithm::Turkish)),
    language("uk", Lang::Ukr, "simple", None),
    language("vi", Lang::Vie, "simple", None),
    language("zh", Lang::Cmn, "simple", None),
];

fn by_code(code: &str) -> Option<&'static Language> {
    let primary = code.split(['-', '_']).next().unwrap_or(code).to_ascii_lowercase();
    LANGUAGES.iter().find(|language| language.code == primary)
}

/// The codes that documents, settings and requests may name.
pub fn known_languages() -> impl Iterator<Item = &'static str> {
    LANGUAGES.iter().map(|language| language.code)
}

/// `de`, `de-AT` and `DE_de` become `de`; `None` for a language that is not known here.
pub(crate) fn canonical(code: &str) -> Option<&'static str> {
    by_code(code).map(|language| language.code)
}

/// Text search configuration of a language; `simple` when it is unknown or Postgres has none for it.
pub(super) fn ts_config(code: Option<&str>) -> &'static str {
    code.and_then(by_code).map_or("simple", |language| language.ts_config)
}

/// Whether words stand apart in a language's writing. Where they do not, full text compares whole phrases, which tells nothing.
/// The language of a text search configuration; `None` for `simple`, which serves several.
pub(super) fn of_ts_config(ts_config: &str) -> Option<&'static str> {
    LANGUAGES.iter().find(|language| language.ts_config == ts_config && ts_config != "simple").map(|known| known.code)
}

pub(super) fn separates_words(code: Option<&str>) -> bool {
    !matches!(code, Some("ja" | "th" | "zh"))
}

/// Snowball algorithm of a language.
pub(crate) fn stemmer(code: Option<&str>) -> Option<Algorithm> {
    code.and_then(by_code).and_then(|language| language.stemmer)
}

/// What a text is likely to be in, before it is looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Likely<'a> {
    /// The language that the customer wrote in before.
    pub conversation: Option<&'a str>,
    /// That of most of the Page's customers, or of the rest of a document.
    pub page: Option<&'a str>,
}

/// A language, and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detected {
    /// ISO 639-1.
    pub code: &'static str,
    /// 1: the text says so. [`Detected::LIKELY`]: of several that it may be, this one is likely. [`Detected::CARRIED_ON`]: it
    /// says nothing, but the conversation so far was in it.
    pub confidence: f32,
}

impl Detected {
    /// Confidence of what the text itself does not speak for: too little to compare its words by that language's rules.
    pub const CARRIED_ON: f32 = 0.5;
    /// Confidence of one among several that the text may be in.
    const LIKELY: f32 = 0.7;
}

/// Detects among the languages that the settings allow.
#[derive(Debug)]
pub(super) struct Detector {
    detector: whatlang::Detector,
    allowed: Vec<&'static str>,
}

/// Texts with fewer letters than this are not judged by themselves.
const LETTERS_MIN: usize = 4;
/// The same for scripts whose letters are syllables or words.
const SIGNS_MIN: usize = 2;
/// Below this confidence of the letters' statistics the answer is "not sure", which full text treats as "may be any".
const CONFIDENCE_MIN: f64 = 0.35;
/// What words must say for a language, beside and beyond the next one, to decide.
const WORDS_MIN: f32 = 0.9;
const WORDS_LEAD_MIN: f32 = 0.4;
/// Least share of a text's words that must be the language's own; what is less is met by chance.
const WORDS_SHARE_MIN: f32 = 0.2;
/// What the letters' statistics add to the words.
const LETTERS_WEIGHT: f32 = 0.5;

impl Detector {
    pub fn new(codes: &[String]) -> Result<Self, KnowledgeError> {
        let expected = "ISO 639-1 codes of known languages, at least one (see knowledge::known_languages)";
        let wrong = |found: String| KnowledgeError::Settings { field: "retrieval.languages", found, expected };
        if codes.is_empty() {
            return Err(wrong("an empty list".to_owned()));
        }
        let allowed = codes
            .iter()
            .map(|code| by_code(code).ok_or_else(|| wrong(format!("\"{code}\""))))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            detector: whatlang::Detector::with_allowlist(allowed.iter().map(|language| language.lang).collect()),
            allowed: allowed.iter().map(|language| language.code).collect(),
        })
    }

    /// Of all known languages.
    pub fn of_all() -> Self {
        let all = LANGUAGES.iter();
        Self {
            detector: whatlang::Detector::with_allowlist(all.clone().map(|language| language.lang).collect()),
            allowed: all.map(|language| language.code).collect(),
        }
    }

    /// ISO 639-1 code of the text's language, or `None` when that is not sure enough.
    pub fn detect(&self, text: &str) -> Option<&'static str> {
        self.detect_likely(text, Likely::default()).map(|detected| detected.code)
    }

    /// See the module's documentation.
    pub fn detect_likely(&self, text: &str, likely: Likely<'_>) -> Option<Detected> {
        let letters = text.chars().filter(|c| c.is_alphabetic()).count();
        if letters == 0 {
            return None;
        }
        let allowed = |code: Option<&str>| code.and_then(canonical).filter(|code| self.allowed.contains(code));
        let (before, page) = (allowed(likely.conversation), allowed(likely.page));
        let carried_on = before.map(|code| Detected { code, confidence: Detected::CARRIED_ON });
        let guess = self.detector.detect(text).and_then(|info| Guess::of(&info));
        if let Some(guess) = guess.filter(|guess| guess.script != Script::Latin) {
            // Of scripts that several languages share, the likely one.
            let likely = before.or(page).filter(|code| by_code(code).is_some_and(|one| one.is_cyrillic()));
            let unsure = likely.filter(|_| guess.script == Script::Cyrillic).unwrap_or(guess.code);
            let found = match guess.code_if_sure() {
                Some(code) => Detected { code, confidence: 1.0 },
                None => Detected { code: unsure, confidence: Detected::LIKELY },
            };
            return if letters >= SIGNS_MIN { Some(found) } else { carried_on };
        }
        if letters < LETTERS_MIN {
            return carried_on;
        }
        let words = Telltales::of(text);
        let value = |code: &str| {
            let letters = guess.filter(|guess| guess.code == code).map_or(0.0, |guess| guess.confidence as f32);
            words.of_language(code) + LETTERS_WEIGHT * letters
        };
        let spoken = words.best_first().into_iter().map(|(code, _)| code);
        let mut known: Vec<(&'static str, f32)> =
            spoken.filter(|code| self.allowed.contains(code)).map(|code| (code, value(code))).collect();
        known.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        let best = known.first().copied().unwrap_or(("", 0.0));
        let second = known.get(1).map_or(0.0, |(_, value)| *value);
        let share = words.share(best.1);
        let reliable = guess.filter(|guess| guess.is_reliable).map(|guess| guess.code);
        let is_contradicted = reliable.is_some_and(|code| code != best.0) && share < 2.0 * WORDS_SHARE_MIN;
        let leads = best.1 >= WORDS_MIN && best.1 - second >= WORDS_LEAD_MIN && share >= WORDS_SHARE_MIN;
        if leads && !is_contradicted {
            return Some(Detected { code: best.0, confidence: 1.0 });
        }
        // Something speaks for what is likely, and nothing speaks clearly more for another language.
        let may_be = |code: &&'static str| words.of_language(code) > 0.0 && best.1 - value(code) < WORDS_LEAD_MIN;
        if let Some(code) = before.filter(may_be).or_else(|| page.filter(may_be))
            && reliable.is_none_or(|sure| sure == code || share >= WORDS_SHARE_MIN)
        {
            return Some(Detected { code, confidence: Detected::LIKELY });
        }
        if let Some(code) = guess.and_then(Guess::code_if_sure)
            && (reliable.is_some() || words.of_language(code) > 0.0 || (best.1 < WORDS_LEAD_MIN && words.are_many()))
        {
            return Some(Detected { code, confidence: 1.0 });
        }
        if best.1 >= WORDS_LEAD_MIN && best.1 >= 1.5 * second {
            return Some(Detected { code: best.0, confidence: Detected::LIKELY });
        }
        carried_on
    }
}

/// What the letters' statistics say.
#[derive(Debug, Clone, Copy)]
struct Guess {
    code: &'static str,
    script: Script,
    confidence: f64,
    is_reliable: bool,
}

impl Guess {
    fn of(info: &whatlang::Info) -> Option<Self> {
        let language = LANGUAGES.iter().find(|language| language.lang == info.lang())?;
        Some(Self {
            code: language.code,
            script: info.script(),
            confidence: info.confidence(),
            is_reliable: info.is_reliable(),
        })
    }

    fn code_if_sure(self) -> Option<&'static str> {
        (self.is_reliable || self.confidence >= CONFIDENCE_MIN).then_some(self.code)
    }
}

static OF_ALL: LazyLock<Detector> = LazyLock::new(Detector::of_all);

/// Detects among all known languages; for callers without settings at hand.
pub fn detect(text: &str) -> Option<&'static str> {
    OF_ALL.detect(text)
}

/// As [`detect`], in the light of what is likely.
pub fn detect_likely(text: &str, likely: Likely<'_>) -> Option<Detected> {
    OF_ALL.detect_likely(text, likely)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_recognised_and_short_texts_are_not_guessed() {
        let codes: Vec<String> = ["en", "de", "es", "fr"].map(str::to_owned).to_vec();
        let detector = Detector::new(&codes).unwrap();
        assert_eq!(detector.detect("How long does the delivery to Austria usually take?"), Some("en"));
        assert_eq!(detector.detect("Wie lange dauert die Lieferung nach Österreich normalerweise?"), Some("de"));
        assert_eq!(detector.detect("¿Cuánto tarda normalmente el envío a Austria?"), Some("es"));
        assert_eq!(detector.detect("Combien de temps prend la livraison en Autriche ?"), Some("fr"));
        assert_eq!(detector.detect("ok"), None);
        assert_eq!(detector.detect("12345 !!"), None);
    }

    #[test]
    fn short_questions_tell_their_language() {
        for (text, code) in [
            ("Where are you located?", "en"),
            ("shipping costs?", "en"),
            ("Are you open today?", "en"),
            ("phone number", "en"),
            ("Wie lange dauert der Versand?", "de"),
            ("Wo ist der Laden?", "de"),
            ("Was kostet das?", "de"),
            ("Habt ihr Helme?", "de"),
            ("Öffnungszeiten?", "de"),
            ("¿Dónde están?", "es"),
            ("donde estan ubicados", "es"),
            ("cuanto cuesta el envio", "es"),
            ("¿Abren los domingos?", "es"),
            ("Combien ça coûte ?", "fr"),
            ("Où êtes-vous ?", "fr"),
            ("vos horaires svp", "fr"),
            ("Livrez-vous en Suisse ?", "fr"),
            ("Quanto costa la spedizione?", "it"),
            ("Dove siete?", "it"),
            ("Spedite in Svizzera?", "it"),
            ("Quanto custa o envio?", "pt"),
            ("Onde fica a loja?", "pt"),
            ("Vocês entregam em Portugal?", "pt"),
            ("Hoe lang duurt de levering?", "nl"),
            ("Wat kost het?", "nl"),
            ("Hur mycket kostar frakten?", "sv"),
            ("Ile kosztuje wysyłka?", "pl"),
            ("Kolik stojí doprava?", "cs"),
            ("Kargo ne kadar sürer?", "tr"),
            ("Сколько стоит доставка?", "ru"),
            ("営業時間は何時ですか", "ja"),
            ("배송비는 얼마예요?", "ko"),
        ] {
            assert_eq!(detect(text), Some(code), "{text}");
        }
        for text in ["Fernweh?", "iPhone 12", "Alpenrad Innsbruck", "ok", "12345 !!", "!!", ""] {
            assert_eq!(detect(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_likely_decides_where_the_text_does_not() {
        let likely = |conversation, page| Likely { conversation, page };
        let code = |text, likely| {
            detect_likely(text, likely).map(|found| (found.code, found.confidence > Detected::CARRIED_ON))
        };
        // The same letters in both: the Page's customers write Portuguese, or Spanish.
        assert_eq!(code("envio gratis?", likely(None, Some("pt"))), Some(("pt", true)));
        assert_eq!(code("envio gratis?", likely(None, Some("es"))), Some(("es", true)));
        // A name says nothing: the conversation goes on in its language, and a Page's language alone is no witness.
        assert_eq!(code("Fernweh?", likely(Some("de"), Some("en"))), Some(("de", false)));
        assert_eq!(code("Fernweh?", likely(None, Some("en"))), None);
        // What speaks for itself is not overruled.
        assert_eq!(code("Wie lange dauert der Versand?", likely(Some("en"), Some("fr"))), Some(("de", true)));
        assert_eq!(code("Where are you located?", likely(Some("de"), Some("de"))), Some(("en", true)));
    }

    #[test]
    fn settings_with_an_unknown_language_say_which() {
        let error = Detector::new(&["xx".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("\"xx\""), "{error}");
        assert!(Detector::new(&[]).is_err());
    }

    #[test]
    fn locales_are_reduced_to_their_language() {
        assert_eq!(canonical("de_AT"), Some("de"));
        assert_eq!(canonical("PT-br"), Some("pt"));
        assert_eq!(canonical("tlh"), None);
        assert_eq!(ts_config(Some("de-CH")), "german");
        assert_eq!(ts_config(Some("ja")), "simple");
        assert_eq!(ts_config(None), "simple");
    }
}
