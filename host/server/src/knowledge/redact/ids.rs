//! National identity, tax and social security numbers: a pattern, a check, and words for those that have no good check.
//!
//! | region | number | check |
//! |---|---|---|
//! | AT | social insurance | weights mod 11 |
//! | BE | national register | mod 97 |
//! | BR | CPF | two digits mod 11 |
//! | CA | SIN | Luhn, and a word |
//! | CH | AHV | EAN-13 |
//! | CN | resident identity card | mod 11-2 |
//! | CZ, SK | birth number | mod 11 |
//! | DE | tax id | mod 11, 10 |
//! | DK | CPR | a date, grouped, and a word |
//! | ES | DNI, NIE | letter mod 23 |
//! | FI | HETU | letter mod 31 |
//! | FR | NIR | mod 97 |
//! | GB | National Insurance | its letters |
//! | IN | Aadhaar | Verhoeff |
//! | IT | codice fiscale | control letter |
//! | KR | resident registration | weights mod 11 |
//! | NL | BSN | eleven-test, and a word |
//! | NO | birth number | two digits mod 11 |
//! | PL | PESEL | weights mod 10 |
//! | PT | NIF | mod 11, and a word |
//! | RO | CNP | weights mod 11 |
//! | SE | personal identity number | Luhn |
//! | TR | T.C. kimlik | two digits |
//! | US | social security | ranges; ungrouped only with a word |
//! | ZA | identity number | Luhn |

use std::sync::LazyLock;

use regex::Regex;

use super::find::{digits_of, luhn, pattern, stands_alone};

struct Rule {
    region: &'static str,
    pattern: Regex,
    is_right: fn(&str) -> bool,
    /// One of these must stand on the line.
    words: Option<Regex>,
}

/// The regions that have a rule.
pub(super) fn regions() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|rule| rule.region)
}

/// Where identity numbers of these regions stand (of all, when none is named).
pub(super) fn find(text: &str, regions: &[String]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for rule in RULES.iter().filter(|rule| regions.is_empty() || regions.iter().any(|region| region == rule.region)) {
        for number in rule.pattern.find_iter(text) {
            if stands_alone(text, number.start(), number.end())
                && !is_part_of_a_longer_number(text, number.start(), number.end())
                && (rule.is_right)(number.as_str())
                && rule.words.as_ref().is_none_or(|words| words.is_match(text))
            {
                found.push((number.start(), number.end()));
            }
        }
    }
    found
}

/// `12-123456789-3`, `+49 301 234 567`: a piece of something else.
fn is_part_of_a_longer_number(text: &str, start: usize, end: usize) -> bool {
    let before = text.get(..start).unwrap_or_default();
    let after = text.get(end..).unwrap_or_default();
    let joins = |c: char| matches!(c, '-' | '/' | '+');
    before.ends_with('+')
        || before.ends_with(joins) && before.trim_end_matches(joins).ends_with(|c: char| c.is_ascii_digit())
        || after.starts_with(joins) && after.trim_start_matches(joins).starts_with(|c: char| c.is_ascii_digit())
}

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rule = |region, form: &str, is_right| Rule { region, pattern: pattern(form), is_right, words: None };
    let with = |region, form: &str, is_right, words: &str| Rule {
        region,
        pattern: pattern(form),
        is_right,
        words: Some(pattern(words)),
    };
    vec![
        rule("AT", r"\b[1-9][0-9]{3}[ /-]?[0-3][0-9][01][0-9][0-9]{2}\b", austria),
        rule("BE", r"\b[0-9]{2}[.]?[0-9]{2}[.]?[0-9]{2}[ -]?[0-9]{3}[.]?[0-9]{2}\b", belgium),
        rule("BR", r"\b[0-9]{3}[.]?[0-9]{3}[.]?[0-9]{3}-?[0-9]{2}\b", brazil),
        with(
            "CA",
            r"\b[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3}\b",
            |text| luhn(&digits_of(text)),
            r"(?i)\bs\.?i\.?n\b|social insurance|assurance sociale",
        ),
        rule("CH", r"\b756[.]?[0-9]{4}[.]?[0-9]{4}[.]?[0-9]{2}\b", switzerland),
        rule("CN", r"(?i)\b[1-9][0-9]{5}(?:19|20)[0-9]{2}[01][0-9][0-3][0-9]{4}[0-9x]\b", china),
        rule("CZ", r"\b[0-9]{6}/[0-9]{4}\b", |text| number(&digits_of(text)).is_multiple_of(11)),
        rule("SK", r"\b[0-9]{6}/[0-9]{4}\b", |text| number(&digits_of(text)).is_multiple_of(11)),
        rule("DE", r"\b[1-9][0-9](?: ?[0-9]{3}){3}\b", germany),
        with("DK", r"\b[0-3][0-9][01][0-9]{3}-?[0-9]{4}\b", |_| true, r"(?i)\bcpr\b|personnummer"),
        rule("ES", r"(?i)\b(?:[0-9]{8}|[xyz]-?[0-9]{7})[ -]?[a-z]\b", spain),
        rule("FI", r"(?i)\b[0-3][0-9][01][0-9]{3}[-+a-fu-y][0-9]{3}[0-9a-y]\b", finland),
        rule("FR", r"(?i)\b[12] ?[0-9]{2} ?[0-9]{2} ?(?:[0-9]{2}|2[ab]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}\b", france),
        rule("GB", r"(?i)\b[a-ceghj-prstw-z][a-ceghj-nprstw-z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[a-d]\b", britain),
        rule("IN", r"\b[2-9][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}\b", |text| verhoeff(&digits_of(text))),
        rule("IT", r"(?i)\b[a-z]{6}[0-9lmnp-v]{2}[a-ehlmprst][0-9lmnp-v]{2}[a-z][0-9lmnp-v]{3}[a-z]\b", italy),
        rule("KR", r"\b[0-9]{2}[01][0-9][0-3][0-9]-[1-8][0-9]{6}\b", korea),
        with("NL", r"\b[0-9]{9}\b", netherlands, r"(?i)\bbsn\b|burgerservice|sofinummer"),
        rule("NO", r"\b[0-7][0-9][014589][0-9]{3} ?[0-9]{5}\b", norway),
        rule("PL", r"\b[0-9]{2}[0-389][0-9][0-3][0-9]{6}\b", poland),
        with("PT", r"\b[1-3][0-9]{2} ?[0-9]{3} ?[0-9]{3}\b", portugal, r"(?i)\bnif\b|contribuinte|\bnic\b"),
        rule("RO", r"\b[1-9][0-9]{2}[01][0-9][0-3][0-9]{7}\b", romania),
        rule("SE", r"\b(?:19|20)?[0-9]{2}[01][0-9][0-9]{2}[-+][0-9]{4}\b", sweden),
        rule("TR", r"\b[1-9][0-9]{10}\b", turkey),
        rule("US", r"\b[0-8][0-9]{2}[ -][0-9]{2}[ -][0-9]{4}\b", america),
        with("US", r"\b[0-8][0-9]{8}\b", america, r"(?i)\bssn\b|social security"),
        rule("ZA", r"\b[0-9]{2}[01][0-9][0-3][0-9]{5}[01][0-9]{2}\b", |text| {
            is_month_day(&digits_of(text), 2) && luhn(&digits_of(text))
        }),
    ]
});

fn number(digits: &[u32]) -> u64 {
    digits.iter().fold(0, |number, digit| number * 10 + u64::from(*digit))
}

/// Sum of digits times weights, as far as there are both.
fn weighted(digits: &[u32], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(digit, weight)| digit * weight).sum()
}

fn digit(digits: &[u32], at: usize) -> u32 {
    digits.get(at).copied().unwrap_or_default()
}

/// Whether month and day stand at this place.
fn is_month_day(digits: &[u32], at: usize) -> bool {
    let two = |at| digit(digits, at) * 10 + digit(digits, at + 1);
    (1..=12).contains(&two(at)) && (1..=31).contains(&two(at + 2))
}

fn austria(text: &str) -> bool {
    let digits = digits_of(text);
    let day = digit(&digits, 4) * 10 + digit(&digits, 5);
    let month = digit(&digits, 6) * 10 + digit(&digits, 7);
    let sum = weighted(&digits, &[3, 7, 9, 0, 5, 8, 4, 2, 1, 6]);
    (1..=31).contains(&day) && (1..=15).contains(&month) && sum % 11 == digit(&digits, 3)
}

fn belgium(text: &str) -> bool {
    let digits = digits_of(text);
    let (head, check) = digits.split_at(digits.len().min(9));
    let check = number(check);
    let plain = number(head);
    is_month_day(&digits, 2) && (97 - plain % 97 == check || 97 - (plain + 2_000_000_000) % 97 == check)
}

fn brazil(text: &str) -> bool {
    let digits = digits_of(text);
    let is_grouped = text.contains(['.', '-']);
    let varied = digits.iter().any(|other| *other != digit(&digits, 0));
    let check = |length: usize| {
        let weights: Vec<u32> = (2..=u32::try_from(length).unwrap_or_default() + 1).rev().collect();
        weighted(digits.get(..length).unwrap_or_default(), &weights) * 10 % 11 % 10 == digit(&digits, length)
    };
    is_grouped && varied && check(9) && check(10)
}

fn switzerland(text: &str) -> bool {
    let digits = digits_of(text);
    weighted(&digits, &[1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1]).is_multiple_of(10)
}

fn china(text: &str) -> bool {
    let values: Vec<u32> =
        text.chars().filter_map(|c| if c.eq_ignore_ascii_case(&'x') { Some(10) } else { c.to_digit(10) }).collect();
    is_month_day(&values, 10) && weighted(&values, &[7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2, 1]) % 11 == 1
}

/// ISO 7064 mod 11, 10; and among the first ten digits one comes twice or three times.
fn germany(text: &str) -> bool {
    let digits = digits_of(text);
    let (head, _) = digits.split_at(digits.len().min(10));
    let most = (0..10).map(|wanted| head.iter().filter(|digit| **digit == wanted).count()).max();
    let product = head.iter().fold(10, |product, digit| {
        let sum = (digit + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    matches!(most, Some(2 | 3)) && (11 - product) % 10 == digit(&digits, 10)
}

fn spain(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    let first = match text.chars().next() {
        Some('X') => "0",
        Some('Y') => "1",
        Some('Z') => "2",
        _ => "",
    };
    let letter = text.chars().next_back();
    let value = number(&digits_of(&format!("{first}{text}")));
    "TRWAGMYFPDXBNJZSQVHLCKE".chars().nth(usize::try_from(value % 23).unwrap_or_default()) == letter
}

fn finland(text: &str) -> bool {
    let digits = digits_of(text.get(..text.len() - 1).unwrap_or_default());
    let letter = text.to_ascii_uppercase().chars().next_back();
    let value = usize::try_from(number(&digits) % 31).unwrap_or_default();
    digits.len() == 9 && "0123456789ABCDEFHJKLMNPRSTUVWXY".chars().nth(value) == letter
}

fn france(text: &str) -> bool {
    // Corsica: 2A counts as 19, 2B as 18.
    let plain: String = text.chars().filter(|c| *c != ' ').collect::<String>().to_ascii_uppercase();
    let plain = plain.replace("2A", "19").replace("2B", "18");
    let digits = digits_of(&plain);
    let (head, check) = digits.split_at(digits.len().min(13));
    digits.len() == 15 && 97 - number(head) % 97 == number(check)
}

fn britain(text: &str) -> bool {
    let prefix = text.get(..2).unwrap_or_default().to_ascii_uppercase();
    !["BG", "GB", "KN", "NK", "NT", "TN", "ZZ"].contains(&prefix.as_str())
}

/// The dihedral group of order ten, as Verhoeff's check uses it.
fn verhoeff(digits: &[u32]) -> bool {
    const PERMUTATION: [u32; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    fn times(a: u32, b: u32) -> u32 {
        match (a < 5, b < 5) {
            (true, true) => (a + b) % 5,
            (true, false) => (a + b - 5) % 5 + 5,
            (false, true) => (a - 5 + 5 - b) % 5 + 5,
            (false, false) => (a + 5 - b) % 5,
        }
    }
    fn permuted(digit: u32, rounds: usize) -> u32 {
        (0..rounds).fold(digit, |digit, _| PERMUTATION.get(digit as usize).copied().unwrap_or_default())
    }
    digits.iter().rev().enumerate().fold(0, |check, (at, digit)| times(check, permuted(*digit, at % 8))) == 0
}

fn italy(text: &str) -> bool {
    // Values of characters at odd places (counted from one); digits and the letters A to J share theirs.
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let text = text.to_ascii_uppercase();
    let value = |c: char| c.to_digit(10).or_else(|| u32::from(c).checked_sub(u32::from('A')));
    let sum: Option<u32> = text
        .chars()
        .take(15)
        .enumerate()
        .map(|(at, c)| {
            let value = value(c)?;
            if at % 2 == 0 { ODD.get(value as usize).copied() } else { Some(value) }
        })
        .sum();
    sum.and_then(|sum| char::from_u32(u32::from('A') + sum % 26)) == text.chars().nth(15)
}

fn korea(text: &str) -> bool {
    let digits = digits_of(text);
    let sum = weighted(digits.get(..12).unwrap_or_default(), &[2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]);
    is_month_day(&digits, 2) && (11 - sum % 11) % 10 == digit(&digits, 12)
}

fn netherlands(text: &str) -> bool {
    let digits = digits_of(text);
    let sum = weighted(&digits, &[9, 8, 7, 6, 5, 4, 3, 2]);
    sum > 0 && sum % 11 == digit(&digits, 8)
}

fn norway(text: &str) -> bool {
    let digits = digits_of(text);
    weighted(&digits, &[3, 7, 6, 1, 8, 9, 4, 5, 2, 1]).is_multiple_of(11)
        && weighted(&digits, &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1]).is_multiple_of(11)
}

fn poland(text: &str) -> bool {
    let digits = digits_of(text);
    let month = (digit(&digits, 2) * 10 + digit(&digits, 3)) % 20;
    let day = digit(&digits, 4) * 10 + digit(&digits, 5);
    let sum = weighted(&digits, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1]);
    (1..=12).contains(&month) && (1..=31).contains(&day) && sum.is_multiple_of(10)
}

fn portugal(text: &str) -> bool {
    let digits = digits_of(text);
    let check = 11 - weighted(&digits, &[9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    digit(&digits, 8) == if check >= 10 { 0 } else { check }
}

fn romania(text: &str) -> bool {
    let digits = digits_of(text);
    let check = weighted(&digits, &[2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9]) % 11;
    is_month_day(&digits, 3) && digit(&digits, 12) == if check == 10 { 1 } else { check }
}

fn sweden(text: &str) -> bool {
    let digits = digits_of(text);
    let short = digits.get(digits.len().saturating_sub(10)..).unwrap_or_default();
    let month = digit(short, 2) * 10 + digit(short, 3);
    (1..=12).contains(&month) && luhn(short)
}

fn turkey(text: &str) -> bool {
    let digits = digits_of(text);
    let odd: u32 = (0..9).step_by(2).map(|at| digit(&digits, at)).sum();
    let even: u32 = (1..8).step_by(2).map(|at| digit(&digits, at)).sum();
    let tenth = (odd * 7 + 100 - even) % 10;
    let eleventh = digits.iter().take(10).sum::<u32>() % 10;
    tenth == digit(&digits, 9) && eleventh == digit(&digits, 10)
}

fn america(text: &str) -> bool {
    let digits = digits_of(text);
    let area = number(digits.get(..3).unwrap_or_default());
    let group = number(digits.get(3..5).unwrap_or_default());
    let serial = number(digits.get(5..).unwrap_or_default());
    area != 0 && area != 666 && group != 0 && serial != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_the_authorities_give_as_examples_are_found_and_wrong_ones_are_not() {
        // Examples from the authorities' own documents, or computed by their rules; none is a living person's.
        let cases = [
            ("AT", "1237 010180", "1238 010180"),
            ("BE", "85.07.30-033.28", "85.07.30-033.29"),
            ("BR", "111.444.777-35", "111.444.777-36"),
            ("CH", "756.9217.0769.85", "756.9217.0769.84"),
            ("CN", "11010519491231002X", "110105194912310021"),
            ("CZ", "736028/5163", "736028/5164"),
            ("DE", "86095742719", "86095742718"),
            ("ES", "12345678Z", "12345678A"),
            ("ES", "X1234567L", "X1234567A"),
            ("FI", "131052-308T", "131052-308U"),
            ("FR", "2 55 08 14 168 025 38", "2 55 08 14 168 025 39"),
            ("GB", "AB 12 34 56 C", "GB 12 34 56 C"),
            ("IN", "2341 2341 2346", "2341 2341 2347"),
            ("IT", "RSSMRA85T10A562S", "RSSMRA85T10A562T"),
            ("PL", "44051401359", "44051401358"),
            ("RO", "1800101221144", "1800101221145"),
            ("SE", "811228-9874", "811228-9875"),
            ("TR", "10000000146", "10000000145"),
            ("US", "123-45-6789", "666-45-6789"),
            ("ZA", "8001015009087", "8001015009088"),
        ];
        for (region, right, wrong) in cases {
            let only = [region.to_owned()];
            let text = format!("Number {right} in a file.");
            assert_eq!(find(&text, &only), [(7, 7 + right.len())], "{region} {right}");
            assert_eq!(find(&format!("Number {wrong} in a file."), &only), [], "{region} {wrong}");
        }
    }

    #[test]
    fn numbers_without_a_good_check_need_a_word() {
        for (region, text, is_found) in [
            ("NL", "BSN 111222333", true),
            ("NL", "order 111222333", false),
            ("DK", "CPR 010180-1234", true),
            ("DK", "010180-1234", false),
            ("CA", "SIN 046 454 286", true),
            ("CA", "SIN 046 454 287", false),
            ("CA", "tel. 612 345 678", false),
            ("DE", "+86 095 742 719", false),
            ("PT", "NIF 123456789", true),
            ("PT", "order 123456789", false),
            ("US", "social security 123456789", true),
            ("US", "order 123456789", false),
        ] {
            assert_eq!(!find(text, &[region.to_owned()]).is_empty(), is_found, "{text}");
        }
    }
}
