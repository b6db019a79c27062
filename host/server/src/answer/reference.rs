//! Words that point back: "how much is *it*?", "wie lange dauert *das*?".

use crate::knowledge::terms::words;

/// Words that stand for something said before, folded.
const POINTERS: &[&str] = &[
    "it", "that", "this", "they", "them", "those", "these", "its", "their", "one", "ones", "das", "dies", "dieses",
    "dort", "davon", "dafur", "damit", "dazu", "darin", "eso", "esto", "ese", "esa", "ellos", "ellas", "alli", "cela",
    "ceci", "ils", "elles", "celui", "celle", "questo", "quello", "quella", "isso", "isto", "ele", "ela", "eles",
    "dat", "deze", "daar",
];

/// Whether a text leans on something said before. Its first word does not count: "That is all" and "Das ist alles" point at nothing.
pub(crate) fn points_back(text: &str) -> bool {
    words(text).iter().skip(1).any(|word| POINTERS.contains(&word.as_str()))
}
