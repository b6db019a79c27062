//! Finds personal data in one line.
//!
//! The line is folded first: digits of any script become ASCII digits, spaces and hyphens of any kind plain ones, and
//! characters that take no room vanish. Positions are carried along, so what is found is found in the original.

use std::sync::LazyLock;

use regex::Regex;

use super::ids;
use super::{Kind, RedactionSettings};

/// A piece of the line, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

/// What was found, in order, without overlaps. Of two that overlap the one that proves itself by check digits is taken.
pub(super) fn find(line: &str, settings: &RedactionSettings) -> Vec<Found> {
    if !line.contains('@') && !line.chars().any(char::is_numeric) {
        return Vec::new();
    }
    let folded = Folded::new(line);
    let mut spans: Vec<(Kind, usize, usize)> = Vec::new();
    for kind in Kind::ALL {
        if !settings.kinds.contains(&kind) {
            continue;
        }
        let found = match kind {
            Kind::Card => cards(&folded.text),
            Kind::Iban => ibans(&folded.text),
            Kind::NationalId => ids::find(&folded.text, &settings.regions),
            Kind::Email => emails(&folded.text),
            Kind::Phone => phones(&folded.text),
            Kind::Number => long_numbers(&folded.text),
        };
        for (start, end) in found {
            if spans.iter().all(|(_, from, to)| end <= *from || start >= *to) {
                spans.push((kind, start, end));
            }
        }
    }
    spans.sort_unstable_by_key(|(_, start, _)| *start);
    spans.into_iter().map(|(kind, start, end)| Found { kind, start: folded.at(start), end: folded.end(end) }).collect()
}

struct Folded {
    text: String,
    /// Of each byte of `text`: where the character it came from begins and ends in the line.
    origin: Vec<(usize, usize)>,
    length: usize,
}

impl Folded {
    fn new(line: &str) -> Self {
        let mut text = String::with_capacity(line.len());
        let mut origin = Vec::with_capacity(line.len());
        for (at, c) in line.char_indices() {
            let Some(folded) = fold(c) else { continue };
            text.push(folded);
            origin.extend(std::iter::repeat_n((at, at + c.len_utf8()), folded.len_utf8()));
        }
        Self { text, origin, length: line.len() }
    }

    fn at(&self, offset: usize) -> usize {
        self.origin.get(offset).map_or(self.length, |(start, _)| *start)
    }

    /// Where a piece ends that ends before `offset`.
    fn end(&self, offset: usize) -> usize {
        offset.checked_sub(1).and_then(|last| self.origin.get(last)).map_or(0, |(_, end)| *end)
    }
}

/// `None`: a character that takes no room.
fn fold(c: char) -> Option<char> {
    // First digits of the decimal systems that people write numbers in.
    const ZEROS: [u32; 12] =
        [0x0660, 0x06f0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0e50, 0xff10, 0x1d7ce];
    match c {
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}' => None,
        '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' | '\t' => Some(' '),
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe63}' | '\u{ff0d}' => Some('-'),
        '\u{ff0b}' => Some('+'),
        '\u{ff20}' | '\u{fe6b}' => Some('@'),
        '\u{ff0e}' => Some('.'),
        _ => {
            let digit = ZEROS.iter().find_map(|zero| u32::from(c).checked_sub(*zero).filter(|digit| *digit < 10));
            Some(digit.and_then(|digit| char::from_digit(digit, 10)).unwrap_or(c))
        }
    }
}

#[expect(clippy::expect_used, reason = "the patterns are constants, and every test of this module compiles them")]
pub(super) fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern")
}

pub(super) fn digits_of(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

/// Whether what stands around is no further letter or digit.
pub(super) fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let before = text.get(..start).and_then(|before| before.chars().next_back());
    let after = text.get(end..).and_then(|after| after.chars().next());
    !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
}

/// The Luhn check (ISO/IEC 7812-1).
pub(super) fn luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            1 => (digit * 2) % 10 + digit * 2 / 10,
            _ => *digit,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Runs of 13 to 19 digits in groups, of an issuer's prefix and length, with a right check digit.
fn cards(text: &str) -> Vec<(usize, usize)> {
    static CARD: LazyLock<Regex> = LazyLock::new(|| pattern(r"[2-6][0-9](?:[ -]?[0-9]){11,17}"));
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(run) = CARD.find_at(text, from) {
        let digits = digits_of(run.as_str());
        // A number may follow: of a longer run, the longest beginning that is a card.
        let positions = run.as_str().char_indices().filter(|(_, c)| c.is_ascii_digit());
        let ends: Vec<usize> = positions.map(|(at, _)| run.start() + at + 1).collect();
        let fits = (13..=digits.len()).rev().find_map(|length| {
            let end = *ends.get(length - 1)?;
            let card = digits.get(..length)?;
            (stands_alone(text, run.start(), end) && is_card(card)).then_some(end)
        });
        match fits {
            Some(end) => {
                found.push((run.start(), end));
                from = end;
            }
            None => from = run.start() + 1,
        }
    }
    found
}

fn is_card(digits: &[u32]) -> bool {
    let prefix = |length: usize| digits.iter().take(length).fold(0, |number, digit| number * 10 + digit);
    let (two, three, four) = (prefix(2), prefix(3), prefix(4));
    let lengths: &[usize] = match (two, three, four) {
        (40..=49, ..) => &[13, 16, 19],
        (51..=55, ..) | (_, _, 2221..=2720) => &[16],
        (34 | 37, ..) => &[15],
        (36 | 38 | 39, ..) | (_, 300..=305, _) => &[14, 16],
        (_, _, 3528..=3589) | (60 | 62 | 64 | 65, ..) => &[16, 17, 18, 19],
        (50 | 56..=59 | 61 | 63 | 66..=69, ..) => &[16, 18, 19],
        _ => &[],
    };
    lengths.contains(&digits.len()) && luhn(digits)
}

/// Length of the country's IBAN (ISO 13616 registry).
fn iban_length(country: &str) -> Option<usize> {
    const LENGTHS: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 \
        DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 \
        JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 \
        PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 \
        VA22 VG24 XK20 YE30";
    let entry = LENGTHS.split_whitespace().find(|entry| entry.get(..2) == Some(country))?;
    entry.get(2..)?.parse().ok()
}

fn ibans(text: &str) -> Vec<(usize, usize)> {
    static START: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)[a-z]{2}[ ]?[0-9]{2}"));
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = START.find_at(text, from) {
        from = start.start() + 1;
        let country = start.as_str().get(..2).unwrap_or_default().to_ascii_uppercase();
        let Some(length) = iban_length(&country) else { continue };
        let mut characters = String::new();
        let mut end = start.start();
        let mut gap = false;
        for (at, c) in text.get(start.start()..).unwrap_or_default().char_indices() {
            if c.is_ascii_alphanumeric() {
                characters.push(c.to_ascii_uppercase());
                end = start.start() + at + 1;
                gap = false;
            } else if matches!(c, ' ' | '-' | '.') && !gap {
                gap = true;
            } else {
                break;
            }
            if characters.len() == length {
                break;
            }
        }
        if characters.len() == length && stands_alone(text, start.start(), end) && mod_97_is_1(&characters) {
            found.push((start.start(), end));
            from = end;
        }
    }
    found
}

fn mod_97_is_1(iban: &str) -> bool {
    let (head, rest) = iban.split_at(4);
    let remainder = rest.chars().chain(head.chars()).try_fold(0_u32, |remainder, c| {
        let value = c.to_digit(36)?;
        Some(if value < 10 { (remainder * 10 + value) % 97 } else { (remainder * 100 + value) % 97 })
    });
    remainder == Some(1)
}

/// Longest part before the @, and longest name after it (RFC 5321, section 4.5.3.1).
const LOCAL_BYTES_MAX: usize = 64;
const DOMAIN_BYTES_MAX: usize = 255;

/// Addresses, found from their @ in both directions.
fn emails(text: &str) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (at, _) in text.match_indices('@') {
        let is_local = |c: char| c.is_alphanumeric() || "._%+-'".contains(c);
        let before = text.get(..at).unwrap_or_default();
        let local = before.len() - before.trim_end_matches(is_local).len();
        let local = before.get(at - local..).unwrap_or_default().trim_start_matches(|c: char| !c.is_alphanumeric());
        let after = text.get(at + 1..).unwrap_or_default();
        let is_domain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-');
        let domain = after.len() - after.trim_start_matches(is_domain).len();
        let domain = after.get(..domain).unwrap_or_default().trim_end_matches(['.', '-']);
        let labels: Vec<&str> = domain.split('.').collect();
        let top = labels.last().copied().unwrap_or_default();
        let is_address = !local.is_empty()
            && local.len() <= LOCAL_BYTES_MAX
            && domain.len() <= DOMAIN_BYTES_MAX
            && labels.len() >= 2
            && labels.iter().all(|label| !label.is_empty())
            && top.chars().count() >= 2
            && top.chars().all(char::is_alphabetic);
        let (start, end) = (at - local.len(), at + 1 + domain.len());
        if is_address && found.last().is_none_or(|(_, last)| start >= *last) {
            found.push((start, end));
        }
    }
    found
}

/// Telephone numbers: international ones, national ones in a form that only they have, and others that are introduced.
fn phones(text: &str) -> Vec<(usize, usize)> {
    static INTERNATIONAL: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r"(?:\+|\b00[ ]?)[ ]?\(?[1-9][0-9]{0,3}\)?(?:[ ./-]{0,2}(?:\([0-9]{1,5}\)|[0-9]{1,14})){1,9}")
    });
    static NATIONAL: LazyLock<Regex> = LazyLock::new(|| {
        let forms = [
            // (030) 901820-12, 0512 / 555 01 42, 0664 1234567
            r"\(0[1-9][0-9]{1,4}\)[ ]?[0-9]{2,}(?:[ -][0-9]{2,}){0,4}",
            r"\b0[1-9][0-9]{1,4}(?: ?/ ?|[ -])[0-9]{2,8}(?:[ -][0-9]{2,6}){0,4}",
            // 01 02 03 04 05, 01.02.03.04.05
            r"\b0[1-9](?:[ .-][0-9]{2}){4}\b",
            // (415) 555-2671, 415-555-2671, 1-415-555-2671
            r"(?:\b1[ .-])?\([2-9][0-9]{2}\)[ ]?[2-9][0-9]{2}[ .-][0-9]{4}\b",
            r"\b(?:1[ .-])?[2-9][0-9]{2}[.-][2-9][0-9]{2}[.-][0-9]{4}\b",
        ];
        pattern(&forms.join("|"))
    });
    // After a word that says so, nearly any row of digits is a number.
    static INTRODUCED: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r"(?i)(?:\b(?:tele?(?:ph?one?|fono|fon|foon)?|t[ée]l(?:[ée]phone|[ée]fono)?|phone|ph|mob(?:ile|il|iel|iltelefon)?|cell|cellulare|celular|handy|m[óo]vil|fax|whatsapp|viber|call|ring|tfn|tlf|telefonnummer|telefoonnummer|rufnummer|natel|gsm|тел|телефон|моб|τηλ|電話|电话|手机|전화|هاتف|جوال)\b|☎|📞)[^0-9+\n]{0,12}(\(?[0-9][0-9 ()./-]{5,22}[0-9])",
        )
    });
    let mut found: Vec<(usize, usize)> = Vec::new();
    let mut add = |start: usize, end: usize| {
        if found.iter().all(|(from, to)| end <= *from || start >= *to) {
            found.push((start, end));
        }
    };
    for number in INTERNATIONAL.find_iter(text) {
        let digits = digits_of(number.as_str()).len();
        let is_bare = number.as_str().starts_with('0');
        if (8..=17).contains(&digits)
            && stands_alone(text, number.start(), number.end())
            && !(is_bare && follows_a_number(text, number.start()))
        {
            add(number.start(), number.end());
        }
    }
    for number in NATIONAL.find_iter(text) {
        let digits = digits_of(number.as_str()).len();
        if (9..=14).contains(&digits)
            && stands_alone(text, number.start(), number.end())
            && !follows_a_number(text, number.start())
        {
            add(number.start(), number.end());
        }
    }
    for number in INTRODUCED.captures_iter(text).filter_map(|captures| captures.get(1)) {
        let digits = digits_of(number.as_str()).len();
        if (7..=15).contains(&digits) && !is_a_date_or_time(number.as_str()) {
            add(number.start(), number.end());
        }
    }
    found
}

/// Digits of a number that may be somebody's order or account.
const LONG_DIGITS_MIN: usize = 6;

/// Rows of many digits, also in groups, that are neither a date nor a price.
fn long_numbers(text: &str) -> Vec<(usize, usize)> {
    static ROW: LazyLock<Regex> = LazyLock::new(|| pattern(r"[0-9](?:[ ./-]?[0-9]|,[0-9]{3}\b)+"));
    static PRICE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[0-9]{1,3}(?:[.,' ][0-9]{3})+(?:[.,][0-9]{1,2})?$"));
    let rows = ROW.find_iter(text).filter(|row| {
        let is_long = digits_of(row.as_str()).len() >= LONG_DIGITS_MIN;
        is_long && !is_a_date_or_time(row.as_str()) && !PRICE.is_match(row.as_str())
    });
    rows.map(|row| (row.start(), row.end())).collect()
}

/// `3704 0044 0532`, `10.00 15.30`: the middle of a row of digits begins no telephone number.
fn follows_a_number(text: &str, start: usize) -> bool {
    let before = text.get(..start).unwrap_or_default();
    let trimmed = before.trim_end_matches([' ', '.', ':', ',', '-', '/']);
    trimmed.len() < before.len() && trimmed.ends_with(|c: char| c.is_ascii_digit())
}

fn is_a_date_or_time(text: &str) -> bool {
    static DATE: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r"^(?:[0-3]?[0-9][./-][01]?[0-9][./-](?:19|20)?[0-9]{2}|(?:19|20)[0-9]{2}[./-][01][0-9][./-][0-3][0-9])",
        )
    });
    DATE.is_match(text)
}
