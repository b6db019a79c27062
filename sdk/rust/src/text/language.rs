//! Language tags (BCP 47), and texts by language.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::types::Turn;

/// Below this confidence the host's detection is not believed: short texts are often mistaken.
const BELIEVED: f32 = 0.5;

/// The primary subtag in lower case: `de` of `de-AT`, `es` of `es_ES`.
#[must_use]
pub fn primary(tag: &str) -> &str {
    let end = tag.find(['-', '_']).unwrap_or(tag.len());
    &tag[..end]
}

/// Whether two tags name the same language, whatever the region: `de-AT` and `DE`.
#[must_use]
pub fn same(left: &str, right: &str) -> bool {
    primary(left).eq_ignore_ascii_case(primary(right))
}

/// The customer's language, when the host detected it with some confidence.
#[must_use]
pub fn detected(turn: &Turn) -> Option<&str> {
    match &turn.detected_language {
        Some((tag, confidence)) if *confidence >= BELIEVED => Some(tag),
        _ => None,
    }
}

/// The best guess at the customer's language: detected, else the locale that Meta reported, else the page's.
#[must_use]
pub fn of_turn(turn: &Turn) -> &str {
    detected(turn).or(turn.customer.locale.as_deref()).unwrap_or(&turn.page.language)
}

/// A text in several languages, by BCP 47 tag: `{ "en": "Hello", "de": "Hallo" }`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Localized(pub BTreeMap<String, String>);

impl Localized {
    /// The text in the first of `wanted` that there is, regions disregarded; else English; else any.
    #[must_use]
    pub fn pick(&self, wanted: &[&str]) -> Option<&str> {
        let find = |tag: &str| self.0.iter().find(|(key, _)| same(key, tag)).map(|(_, text)| text.as_str());
        wanted
            .iter()
            .find_map(|tag| self.0.get(*tag).map(String::as_str).or_else(|| find(tag)))
            .or_else(|| find("en"))
            .or_else(|| self.0.values().next().map(String::as_str))
            .filter(|text| !text.trim().is_empty())
    }

    /// The text for the turn's customer, else in the page's language, else English, else any; `None` when there is no
    /// text at all or the chosen one is blank.
    #[must_use]
    pub fn for_turn(&self, turn: &Turn) -> Option<&str> {
        self.pick(&[of_turn(turn), &turn.page.language])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{turn, turn_in};

    fn hello() -> Localized {
        Localized([("de", "Hallo"), ("en", "Hello"), ("pt-BR", "Oi")].map(|(k, v)| (k.into(), v.into())).into())
    }

    #[test]
    fn picks_by_customer_then_page_then_english() {
        assert_eq!(hello().for_turn(&turn_in("de-AT", "x")), Some("Hallo"));
        assert_eq!(hello().for_turn(&turn_in("pt", "x")), Some("Oi"));
        let mut japanese = turn_in("ja", "x");
        japanese.page.language = "de".to_owned();
        assert_eq!(hello().for_turn(&japanese), Some("Hallo"));
        assert_eq!(hello().for_turn(&turn_in("ja", "x")), Some("Hello"));
    }

    #[test]
    fn a_doubtful_detection_is_not_believed() {
        let mut doubtful = turn("x");
        doubtful.detected_language = Some(("nl".to_owned(), 0.2));
        doubtful.customer.locale = Some("de_DE".to_owned());
        assert_eq!(of_turn(&doubtful), "de_DE");
        assert_eq!(hello().for_turn(&doubtful), Some("Hallo"));
    }
}
