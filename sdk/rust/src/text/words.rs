//! A text as words: folded, with their places, in sentences and clauses.
//!
//! A word is a run of letters and digits. Apostrophes inside a word are dropped (`don't` is `dont`, as people type it),
//! except after a French elision (`l'avocat` is `l` and `avocat`). An emoji is a word of its own. Zero-width characters
//! inside a word do not end it but mark it as obfuscated, as do look-alike letters beside Latin ones, and `@` or `$`
//! used as letters. Letters written apart (`f r e e`) are kept a second time as one [`Joined`] string.

use super::fold::{self, Folded};

/// No more words than this are looked at; a Messenger message has at most 2,000 characters.
pub const WORDS_MAX: usize = 2_000;

/// Letters that French elides before an apostrophe.
const ELISIONS: [&str; 11] = ["l", "d", "j", "m", "t", "s", "n", "c", "qu", "jusqu", "lorsqu"];

/// One word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// Byte range in the text.
    pub start: u32,
    pub end: u32,
    folded_start: u32,
    folded_end: u32,
    /// Number of the sentence, from 0.
    pub sentence: u16,
    /// Number of the clause (a sentence's part between commas), from 0 through the whole text.
    pub clause: u16,
    /// More than one letter, all of them upper case.
    pub shouted: bool,
    /// Contains a digit beside letters.
    pub mixed_digits: bool,
    /// Written so that a machine reads it otherwise than a person does.
    pub obfuscated: bool,
    /// A letter stands three times or more in a row; the folded form has it twice.
    pub elongated: bool,
    /// One emoji or pictograph.
    pub emoji: bool,
}

/// Letters written apart, read together: `f r e e` as `free`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Index of the first and the last word.
    pub first: u32,
    pub last: u32,
    /// The letters.
    pub text: String,
}

/// The words of a text.
#[derive(Debug, Clone, Default)]
pub struct Words {
    folded: String,
    items: Vec<Word>,
    joined: Vec<Joined>,
    /// How many question marks there are.
    pub questions: u32,
    /// How many exclamation marks there are.
    pub exclamations: u32,
}

impl Words {
    /// Reads a text, at most [`WORDS_MAX`] words of it.
    #[must_use]
    pub fn scan(text: &str) -> Self {
        let mut scanner = Scanner::new(text);
        scanner.run(text);
        scanner.words.join_spaced_letters();
        scanner.words
    }

    /// The words in order.
    #[must_use]
    pub fn items(&self) -> &[Word] {
        &self.items
    }

    /// The folded form of word `index`.
    #[must_use]
    pub fn folded(&self, index: usize) -> &str {
        self.items.get(index).map_or("", |word| &self.folded[word.folded_start as usize..word.folded_end as usize])
    }

    /// The folded forms in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.items.len()).map(|index| self.folded(index))
    }

    /// Strings of letters that were written apart.
    #[must_use]
    pub fn joined(&self) -> &[Joined] {
        &self.joined
    }

    /// How many words there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no word.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn join_spaced_letters(&mut self) {
        let mut at = 0;
        while at < self.items.len() {
            let mut end = at;
            while end < self.items.len() && self.is_spaced_letter(end, at) {
                end += 1;
            }
            if end - at >= 4 {
                let text: String = (at..end).map(|index| self.folded(index)).collect();
                self.joined.push(Joined { first: at as u32, last: end as u32 - 1, text });
            }
            at = end.max(at + 1);
        }
    }

    fn is_spaced_letter(&self, index: usize, first: usize) -> bool {
        let word = &self.items[index];
        let near = index == first || word.start - self.items[index - 1].end <= 3;
        near && !word.emoji && word.folded_end - word.folded_start == 1
    }
}

struct Scanner {
    words: Words,
    sentence: u16,
    clause: u16,
    /// A boundary counts once there is a word before it.
    open: Option<Open>,
    latin: bool,
    look_alike: bool,
    letters: u32,
    upper: u32,
    digits: u32,
}

struct Open {
    start: usize,
    folded_start: usize,
    obfuscated: bool,
    elongated: bool,
}

impl Scanner {
    fn new(text: &str) -> Self {
        let words = Words {
            folded: String::with_capacity(text.len() + 8),
            items: Vec::with_capacity(text.len() / 5 + 4),
            ..Words::default()
        };
        Self {
            words,
            sentence: 0,
            clause: 0,
            open: None,
            latin: false,
            look_alike: false,
            letters: 0,
            upper: 0,
            digits: 0,
        }
    }

    fn run(&mut self, text: &str) {
        let mut at = 0;
        while let Some(&byte) = text.as_bytes().get(at) {
            // Most of most texts.
            if byte.is_ascii_alphanumeric() {
                self.ascii_letter(at, byte);
                at += 1;
                continue;
            }
            if byte == b' ' {
                self.close(at);
                at += 1;
            } else {
                let mut chars = text[at..].chars();
                let Some(c) = chars.next() else { break };
                self.unusual(at, c, chars.as_str());
                at += c.len_utf8();
            }
            if self.words.items.len() >= WORDS_MAX {
                self.open = None;
                return;
            }
        }
        self.close(text.len());
    }

    fn ascii_letter(&mut self, at: usize, byte: u8) {
        let before = self.words.folded.len();
        self.words.folded.push(char::from(byte.to_ascii_lowercase()));
        let digit = byte.is_ascii_digit();
        self.latin |= !digit;
        self.letters += u32::from(!digit);
        self.upper += u32::from(byte.is_ascii_uppercase());
        self.digits += u32::from(digit);
        self.open_at(at, before);
        self.shorten_run();
    }

    /// Everything but ASCII letters, digits and spaces.
    fn unusual(&mut self, at: usize, c: char, rest: &str) {
        let next = rest.chars().next();
        if self.open.is_some() && matches!(c, '\'' | '’' | 'ʼ' | '`' | '´') {
            self.apostrophe(at, next);
        } else if let Some(letter) = self.stands_for_letter(c, next, rest) {
            self.push_raw(at, letter);
        } else if is_emoji(c) {
            self.close(at);
            self.emoji(at, c);
        } else {
            self.other(at, c, next);
        }
    }

    /// A letter, a mark or a separator.
    fn other(&mut self, at: usize, c: char, next: Option<char>) {
        let before = self.words.folded.len();
        match fold::push(c, &mut self.words.folded) {
            Folded::Separator => {
                self.close(at);
                self.boundary(c, next);
            }
            Folded::Mark => {}
            Folded::Invisible => {
                if next.is_some_and(char::is_alphanumeric)
                    && let Some(open) = &mut self.open
                {
                    open.obfuscated = true;
                }
            }
            kind @ (Folded::Letter | Folded::LookAlike) => {
                self.look_alike |= kind == Folded::LookAlike;
                self.latin |= c.is_ascii_alphabetic();
                self.letters += u32::from(c.is_alphabetic());
                self.upper += u32::from(c.is_uppercase());
                self.digits += u32::from(c.is_numeric());
                self.open_at(at, before);
                self.shorten_run();
            }
        }
    }

    fn open_at(&mut self, start: usize, folded_start: usize) {
        if self.open.is_none() {
            self.open = Some(Open { start, folded_start, obfuscated: false, elongated: false });
        }
    }

    /// Three equal letters in a row become two.
    fn shorten_run(&mut self) {
        let Some(open) = &mut self.open else { return };
        let word = &self.words.folded.as_bytes()[open.folded_start..];
        if let [.., a, b, c] = word
            && a == b
            && b == c
            && c.is_ascii_alphabetic()
        {
            self.words.folded.pop();
            open.elongated = true;
        }
    }

    fn push_raw(&mut self, at: usize, letter: char) {
        let before = self.words.folded.len();
        self.words.folded.push(letter);
        self.letters += 1;
        self.open_at(at, before);
        if let Some(open) = &mut self.open {
            open.obfuscated = true;
        }
    }

    fn apostrophe(&mut self, at: usize, next: Option<char>) {
        let goes_on = next.is_some_and(char::is_alphanumeric);
        let elided = self.open.as_ref().is_some_and(|open| ELISIONS.contains(&&self.words.folded[open.folded_start..]));
        if elided || !goes_on {
            self.close(at);
        }
    }

    /// `@` and `$` inside a word, and `$` at its beginning, are used as `a` and `s`; but not in an e-mail address.
    fn stands_for_letter(&self, c: char, next: Option<char>, rest: &str) -> Option<char> {
        let before_letter = next.is_some_and(char::is_alphabetic);
        match c {
            '@' if self.open.is_some() && before_letter => {
                let run = rest.trim_start_matches(|c: char| c.is_alphanumeric());
                let address = run.starts_with(['.', '-', '_', '@']) && run[1..].starts_with(char::is_alphanumeric);
                (!address).then_some('a')
            }
            '$' if before_letter => Some('s'),
            _ => None,
        }
    }

    fn emoji(&mut self, at: usize, c: char) {
        let folded_start = self.words.folded.len();
        self.words.folded.push(c);
        self.open = Some(Open { start: at, folded_start, obfuscated: false, elongated: false });
        self.close(at + c.len_utf8());
        if let Some(word) = self.words.items.last_mut() {
            word.emoji = true;
        }
    }

    fn boundary(&mut self, c: char, next: Option<char>) {
        self.words.questions += u32::from(matches!(c, '?' | '？'));
        self.words.exclamations += u32::from(matches!(c, '!' | '！'));
        let inside = next.is_some_and(char::is_alphanumeric);
        let ends_sentence = match c {
            // `3.50`, `f.r.e.e`, `z.B.`
            '.' => !inside,
            '!' | '?' | '…' | '\n' | ';' | '¿' | '¡' | '。' | '！' | '？' => true,
            _ => false,
        };
        let ends_clause = ends_sentence || matches!(c, ',' | ':' | '(' | ')' | '–' | '—' | '"' | '|') && !inside;
        if let Some(last) = self.words.items.last() {
            if ends_sentence && last.sentence == self.sentence {
                self.sentence = self.sentence.saturating_add(1);
            }
            if ends_clause && last.clause == self.clause {
                self.clause = self.clause.saturating_add(1);
            }
        }
    }

    fn close(&mut self, end: usize) {
        if let Some(open) = self.open.take() {
            self.words.items.push(Word {
                start: open.start as u32,
                end: end as u32,
                folded_start: open.folded_start as u32,
                folded_end: self.words.folded.len() as u32,
                sentence: self.sentence,
                clause: self.clause,
                shouted: self.letters > 1 && self.upper == self.letters,
                mixed_digits: self.digits > 0 && self.letters > 0,
                obfuscated: open.obfuscated || self.look_alike && self.latin,
                elongated: open.elongated,
                emoji: false,
            });
        }
        (self.latin, self.look_alike) = (false, false);
        (self.letters, self.upper, self.digits) = (0, 0, 0);
    }
}

/// Pictographs that people send as a word. Skin tones and variation selectors are no words.
fn is_emoji(c: char) -> bool {
    matches!(c, '\u{2600}'..='\u{27bf}' | '\u{2b05}'..='\u{2b55}' | '\u{1f000}'..='\u{1f3fa}' | '\u{1f400}'..='\u{1faff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> Vec<String> {
        Words::scan(text).iter().map(str::to_owned).collect()
    }

    #[test]
    fn words_as_people_mean_them() {
        let table: [(&str, &[&str]); 13] = [
            ("I don't want", &["i", "dont", "want"]),
            ("I don’t", &["i", "dont"]),
            ("l'avocat d’Anna", &["l", "avocat", "d", "anna"]),
            ("qu'est-ce que", &["qu", "est", "ce", "que"]),
            ("Möchte Größe", &["mochte", "grosse"]),
            ("heeeelp", &["heelp"]),
            ("ok👍🏽👍", &["ok", "👍", "👍"]),
            ("fr\u{200b}ee c@sh $ave $500", &["free", "cash", "save", "500"]),
            ("mail anna@example.com", &["mail", "anna", "example", "com"]),
            ("thanks❤️", &["thanks", "❤"]),
            ("", &[]),
            (" .,! ", &[]),
            ("'quoted'", &["quoted"]),
        ];
        for (text, expected) in table {
            assert_eq!(folded(text), expected, "{text}");
        }
    }

    #[test]
    fn places_are_byte_ranges_of_the_text() {
        let text = "¿Dónde está mi «pedido»? 👍 l'ami";
        for (word, place) in ["Dónde", "está", "mi", "pedido", "👍", "l", "ami"].iter().zip(Words::scan(text).items())
        {
            assert_eq!(&text[place.start as usize..place.end as usize], *word);
        }
    }

    #[test]
    fn sentences_and_clauses() {
        let words = Words::scan("No, I want it. It costs 3.50 and works!! Ok?\nbye");
        let sentences: Vec<_> = words.items().iter().map(|word| word.sentence).collect();
        let clauses: Vec<_> = words.items().iter().map(|word| word.clause).collect();
        assert_eq!(sentences, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 3]);
        assert_eq!(clauses, [0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 4]);
        assert_eq!((words.questions, words.exclamations), (1, 2));
    }

    #[test]
    fn letters_written_apart_are_joined() {
        let words = Words::scan("get f r e e  m.o.n.e.y now");
        assert_eq!(words.joined(), [Joined { first: 1, last: 9, text: "freemoney".to_owned() }]);
        assert!(Words::scan("a b c").joined().is_empty());
    }

    #[test]
    fn obfuscation_and_shouting_are_seen() {
        let words = Words::scan("FREE fr33 bitсoin Привет bit\u{200b}coin sooo");
        let seen: Vec<_> =
            words.items().iter().map(|w| (w.shouted, w.mixed_digits, w.obfuscated, w.elongated)).collect();
        assert_eq!(
            seen,
            [
                (true, false, false, false),
                (false, true, false, false),
                (false, false, true, false),
                (false, false, false, false),
                (false, false, true, false),
                (false, false, false, true)
            ]
        );
    }

    #[test]
    fn a_flood_of_words_is_bounded() {
        assert_eq!(Words::scan(&"a ".repeat(10_000)).len(), WORDS_MAX);
    }
}
