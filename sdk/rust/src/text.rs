//! Text, for policies that look at words: written for a fresh instance per call, so nothing here needs a regular
//! expression, a hash map with random keys, or a table built at the first use.
//!
//! - [`fold`]: one spelling for many (case, accents, look-alikes, full-width and decorated letters).
//! - [`words`]: a text as folded words with their places, sentences and clauses.
//! - [`phrases`]: finds thousands of phrases in the words of a text in one pass, typing errors included.
//! - [`links`]: addresses in a text, with the tricks that hide where they lead.
//! - [`language`]: language tags, and texts by language.

pub mod fold;
pub mod language;
pub mod links;
pub mod phrases;
pub mod words;

pub use language::Localized;
pub use phrases::{Hit, PhraseSet, PhraseSetBuilder};
pub use words::Words;

/// The longest prefix of `text` with at most `limit_bytes` bytes that ends on a character boundary.
#[must_use]
pub fn clip(text: &str, limit_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(limit_bytes)]
}
