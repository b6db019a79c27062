//! Reads one phrase. The grammar is in the parent module's documentation.
//!
//! Alternatives of one word each stay one [`Element`]. Whatever a single element cannot say (an alternative of several
//! words, an optional word at the beginning or the end) multiplies the phrase into variants, which all have its number.

use super::PhraseError;
use crate::text::words::Words;

/// No phrase has more elements; a longer one is a mistake, such as a paragraph pasted into the list.
const ELEMENTS_MAX: usize = 24;
/// No phrase multiplies into more variants.
const VARIANTS_MAX: usize = 64;

/// One part of a phrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Element {
    /// One of these words.
    Words { ids: Box<[u16]>, optional: bool },
    /// Any one word.
    Any,
    /// Up to three words.
    Gap,
}

type Variant = Vec<Element>;

impl Element {
    pub(super) fn ids(&self) -> &[u16] {
        match self {
            Self::Words { ids, .. } => ids,
            Self::Any | Self::Gap => &[],
        }
    }

    fn is_concrete(&self) -> bool {
        matches!(self, Self::Words { optional: false, .. })
    }
}

/// Parses `phrase`; `number` gives each word (folded; and whether it stands for all words that begin so) its number.
pub(super) fn parse(
    phrase: &str,
    mut number: impl FnMut(String, bool) -> Result<u16, PhraseError>,
) -> Result<Vec<Variant>, PhraseError> {
    let parts = parts(phrase)?;
    let mut variants: Vec<Variant> = vec![Vec::new()];
    for (index, part) in parts.iter().enumerate() {
        let all_optional = |parts: &[&str]| parts.iter().all(|part| part.ends_with('?'));
        let at_edge = all_optional(&parts[..index]) || all_optional(&parts[index + 1..]);
        let choices = choices(part, phrase, at_edge, &mut number)?;
        if variants.len() * choices.len() > VARIANTS_MAX {
            return Err(PhraseError(format!(
                "the phrase `{phrase}` stands for more than {VARIANTS_MAX} variants; write it as several phrases"
            )));
        }
        variants = (variants.iter())
            .flat_map(|before| choices.iter().map(|choice| [before.as_slice(), choice].concat()))
            .collect();
    }
    variants.retain(|variant| !variant.is_empty());
    let whole = |variant: &Variant| {
        variant.first().is_some_and(Element::is_concrete) && variant.last().is_some_and(Element::is_concrete)
    };
    if variants.is_empty() || !variants.iter().all(whole) {
        return Err(PhraseError(format!(
            "the phrase `{phrase}` must begin and end with a word, with or without its optional parts"
        )));
    }
    if let Some(longest) = variants.iter().map(Vec::len).max().filter(|longest| *longest > ELEMENTS_MAX) {
        return Err(PhraseError(format!(
            "the phrase `{phrase}` has {longest} words, more than {ELEMENTS_MAX}; shorten it"
        )));
    }
    Ok(variants)
}

/// Splits at spaces outside brackets.
fn parts(phrase: &str) -> Result<Vec<&str>, PhraseError> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, c) in phrase.char_indices() {
        match c {
            '(' if !inside => inside = true,
            ')' if inside => inside = false,
            '(' | ')' => {
                return Err(PhraseError(format!("the phrase `{phrase}` has a bracket without its partner; remove it")));
            }
            ' ' | '\t' if !inside => {
                parts.push(&phrase[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(PhraseError(format!("the phrase `{phrase}` opens a bracket and does not close it; add `)`")));
    }
    parts.push(&phrase[start..]);
    parts.retain(|part| !part.is_empty());
    Ok(parts)
}

/// The variants of one part.
fn choices(
    part: &str,
    phrase: &str,
    at_edge: bool,
    number: &mut impl FnMut(String, bool) -> Result<u16, PhraseError>,
) -> Result<Vec<Variant>, PhraseError> {
    match part {
        "_" => return Ok(vec![vec![Element::Any]]),
        "_?" => return Ok(vec![vec![Element::Any], Vec::new()]),
        "..." | "…" => return Ok(vec![vec![Element::Gap]]),
        _ => {}
    }
    let (body, optional) = part.strip_suffix('?').map_or((part, false), |body| (body, true));
    let group = body.strip_prefix('(').and_then(|body| body.strip_suffix(')')).unwrap_or(body);
    let mut single: Vec<u16> = Vec::new();
    let mut several: Vec<Variant> = Vec::new();
    for alternative in group.split('|') {
        read_alternative(alternative.trim(), phrase, number, &mut single, &mut several)?;
    }
    let multiplied = optional && (at_edge || !several.is_empty());
    let mut choices = several;
    if !single.is_empty() {
        choices.push(vec![Element::Words { ids: single.into_boxed_slice(), optional: optional && !multiplied }]);
    }
    if multiplied {
        choices.push(Vec::new());
    }
    Ok(choices)
}

fn read_alternative(
    alternative: &str,
    phrase: &str,
    number: &mut impl FnMut(String, bool) -> Result<u16, PhraseError>,
    single: &mut Vec<u16>,
    several: &mut Vec<Variant>,
) -> Result<(), PhraseError> {
    for spelling in spellings(alternative) {
        let mut elements = Vec::new();
        for written in spelling.split_whitespace() {
            let (written, is_prefix) = written.strip_suffix('*').map_or((written, false), |written| (written, true));
            // `l'avocat` and `e-mail` are two words, here as in texts.
            let words: Vec<String> = Words::scan(written).iter().map(str::to_owned).collect();
            let count = words.len();
            for (index, word) in words.into_iter().enumerate() {
                let id = number(word, is_prefix && index + 1 == count)?;
                elements.push(Element::Words { ids: Box::new([id]), optional: false });
            }
        }
        match elements.as_slice() {
            [] => {
                return Err(PhraseError(format!(
                    "`{alternative}` in the phrase `{phrase}` has no letter, digit or emoji; write a word there"
                )));
            }
            [one] => {
                for id in one.ids().iter().filter(|id| !single.contains(id)).copied().collect::<Vec<_>>() {
                    single.push(id);
                }
            }
            _ => several.push(elements),
        }
    }
    Ok(())
}

/// The words, and with their umlauts transliterated.
fn spellings(words: &str) -> Vec<String> {
    let lower = words.to_lowercase();
    let long = lower.replace('ä', "ae").replace('ö', "oe").replace('ü', "ue");
    if long == lower { vec![lower] } else { vec![lower, long] }
}
