//! Languages: detecting one, and what Postgres and the stemmer call it.

use rust_stemmers::Algorithm;
use whatlang::Lang;

use super::KnowledgeError;

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
pub(super) fn separates_words(code: Option<&str>) -> bool {
    !matches!(code, Some("ja" | "th" | "zh"))
}

/// Snowball algorithm of a language.
pub(crate) fn stemmer(code: Option<&str>) -> Option<Algorithm> {
    code.and_then(by_code).and_then(|language| language.stemmer)
}

/// Detects among the languages that the settings allow.
#[derive(Debug)]
pub(super) struct Detector {
    detector: whatlang::Detector,
}

/// Texts with fewer letters than this are not judged at all.
const LETTERS_MIN: usize = 4;
/// Below this confidence the answer is "not sure", which full text treats as "may be any".
const CONFIDENCE_MIN: f64 = 0.35;

impl Detector {
    pub fn new(codes: &[String]) -> Result<Self, KnowledgeError> {
        let expected = "ISO 639-1 codes of known languages, at least one (see knowledge::known_languages)";
        let wrong = |found: String| KnowledgeError::Settings { field: "retrieval.languages", found, expected };
        if codes.is_empty() {
            return Err(wrong("an empty list".to_owned()));
        }
        let allowed = codes
            .iter()
            .map(|code| by_code(code).map(|language| language.lang).ok_or_else(|| wrong(format!("\"{code}\""))))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { detector: whatlang::Detector::with_allowlist(allowed) })
    }

    /// ISO 639-1 code of the text's language, or `None` when that is not sure enough.
    pub fn detect(&self, text: &str) -> Option<&'static str> {
        confident(self.detector.detect(text), text)
    }
}

/// Detects among all known languages; for callers without settings at hand.
pub fn detect(text: &str) -> Option<&'static str> {
    let all = LANGUAGES.iter().map(|language| language.lang).collect();
    confident(whatlang::Detector::with_allowlist(all).detect(text), text)
}

fn confident(info: Option<whatlang::Info>, text: &str) -> Option<&'static str> {
    let info = info?;
    let letters = text.chars().filter(|c| c.is_alphabetic()).count();
    if letters < LETTERS_MIN || !(info.is_reliable() || info.confidence() >= CONFIDENCE_MIN) {
        return None;
    }
    LANGUAGES.iter().find(|language| language.lang == info.lang()).map(|language| language.code)
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
