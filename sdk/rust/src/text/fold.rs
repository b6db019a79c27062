//! One spelling for many: lower case, no accents, no decorated or look-alike letters.
//!
//! The order for each character: zero-width and combining characters vanish; look-alikes from Cyrillic and Greek become
//! the Latin letter they imitate; what Unicode calls a compatibility form (full-width, mathematical, circled letters)
//! is decomposed (NFKD); what has no decomposition but a plain spelling (`ß`, `ø`, `æ`) gets it.

use unicode_normalization::char::{decompose_compatible, is_combining_mark};

/// What [`push`] did with a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// Letters or digits were appended.
    Letter,
    /// Letters were appended for a character that imitates a Latin letter.
    LookAlike,
    /// An accent or a zero-width character: nothing appended, the word goes on.
    Mark,
    /// An invisible character such as a zero-width space: nothing appended, the word goes on.
    Invisible,
    /// No part of a word; nothing appended.
    Separator,
}

/// Appends the folded form of `c` to `out`.
pub fn push(c: char, out: &mut String) -> Folded {
    if c.is_ascii() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
            return Folded::Letter;
        }
        return Folded::Separator;
    }
    if is_invisible(c) {
        return Folded::Invisible;
    }
    if let Some(latin) = look_alike(c) {
        out.push(latin);
        return Folded::LookAlike;
    }
    if let Some(plain) = plain_spelling(c) {
        out.push_str(plain);
        return Folded::Letter;
    }
    if is_combining_mark(c) {
        return Folded::Mark;
    }
    let before = out.len();
    let mut decorated = false;
    decompose_compatible(c, |part| {
        if part.is_alphanumeric() && !is_combining_mark(part) {
            decorated |= part.is_ascii() && (c as u32) > 0x2000;
            match (look_alike(part), plain_spelling(part)) {
                (Some(latin), _) => out.push(latin),
                (None, Some(plain)) => out.push_str(plain),
                (None, None) => out.extend(part.to_lowercase()),
            }
        }
    });
    match (out.len() > before, decorated) {
        (true, true) => Folded::LookAlike,
        (true, false) => Folded::Letter,
        (false, _) => Folded::Separator,
    }
}

/// The folded text: words keep their separators.
#[must_use]
pub fn text(input: &str) -> String {
    let mut out = String::with_capacity(input.len());
    for c in input.chars() {
        if push(c, &mut out) == Folded::Separator {
            out.push(c);
        }
    }
    out
}

/// Characters that take no place on the screen: zero-width spaces and joiners, soft hyphens, direction marks, tags.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// The Latin letter that a Cyrillic or Greek letter is used to imitate.
#[must_use]
pub fn look_alike(c: char) -> Option<char> {
    Some(match c {
        'а' | 'А' | 'α' | 'Α' => 'a',
        'в' | 'В' | 'Β' => 'b',
        'с' | 'С' | 'ϲ' => 'c',
        'ԁ' => 'd',
        'е' | 'Е' | 'Ε' => 'e',
        'һ' | 'Н' | 'Η' => 'h',
        'і' | 'І' | 'Ι' | 'ι' => 'i',
        'ј' | 'Ј' => 'j',
        'к' | 'К' | 'Κ' | 'κ' => 'k',
        'ӏ' | 'Ӏ' => 'l',
        'м' | 'М' | 'Μ' => 'm',
        'Ν' => 'n',
        'о' | 'О' | 'ο' | 'Ο' => 'o',
        'р' | 'Р' | 'ρ' | 'Ρ' => 'p',
        'ԛ' => 'q',
        'ѕ' | 'Ѕ' => 's',
        'т' | 'Т' | 'Τ' => 't',
        'υ' => 'u',
        'ν' => 'v',
        'ԝ' => 'w',
        'х' | 'Х' | 'Χ' | 'χ' => 'x',
        'у' | 'У' | 'Υ' => 'y',
        'Ζ' => 'z',
        _ => return None,
    })
}

fn plain_spelling(c: char) -> Option<&'static str> {
    Some(match c {
        // The commonest accents, so that usual texts need no decomposition table.
        'ä' | 'á' | 'à' | 'â' | 'ã' | 'å' | 'Ä' | 'Á' | 'À' | 'Â' | 'Ã' | 'Å' => "a",
        'é' | 'è' | 'ê' | 'ë' | 'É' | 'È' | 'Ê' | 'Ë' => "e",
        'í' | 'ì' | 'î' | 'ï' | 'Í' | 'Ì' | 'Î' | 'Ï' | 'ı' => "i",
        'ö' | 'ó' | 'ò' | 'ô' | 'õ' | 'ø' | 'Ö' | 'Ó' | 'Ò' | 'Ô' | 'Õ' | 'Ø' => "o",
        'ü' | 'ú' | 'ù' | 'û' | 'Ü' | 'Ú' | 'Ù' | 'Û' => "u",
        'ñ' | 'Ñ' => "n",
        'ç' | 'Ç' => "c",
        'ß' | 'ẞ' => "ss",
        'æ' | 'Æ' => "ae",
        'œ' | 'Œ' => "oe",
        'ł' | 'Ł' => "l",
        'đ' | 'Đ' | 'ð' => "d",
        'þ' => "th",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_for_many() {
        let table = [
            ("Möchte ich STRASSE", "mochte ich strasse"),
            ("Straße", "strasse"),
            ("e\u{301}te\u{301}", "ete"),
            ("ｆｒｅｅ", "free"),
            ("𝐅𝐫𝐞𝐞 𝓶𝓸𝓷𝓮𝔂", "free money"),
            ("fr\u{200b}ee", "free"),
            ("ВІТСОІN", "bitcoin"),
            ("Œuvre", "oeuvre"),
            ("日本", "日本"),
            ("ﬁn", "fin"),
        ];
        for (input, expected) in table {
            assert_eq!(text(input), expected, "{input}");
        }
    }

    #[test]
    fn folding_twice_changes_nothing() {
        for input in ["Čeština Ğ İ ẞ", "ǅ ﷺ ½ ㎏", "Ελλάδα Привет"] {
            assert_eq!(text(&text(input)), text(input), "{input}");
        }
    }
}
