//! Personal data that the draft cannot know from the passages: an invented or foreign number is worse than none.
//!
//! - Card numbers: 13 to 19 digits that pass the Luhn check (ISO/IEC 7812-1), beginning with 2 to 6.
//! - IBANs: country, check digits and the remainder 1 modulo 97 (ISO 13616).
//! - Phone numbers: E.164 (`+` or `00`), national numbers beginning with 0, and 3-3-4 groups.
//! - E-mail addresses.

use frontdesk_policy_sdk::text::links::{Kind, find};

use crate::Review;
use crate::settings::{Action, Pii};

/// A run of characters that may be a number: digits with the separators people write between them.
struct Run {
    start: usize,
    end: usize,
    digits: String,
}

pub(crate) fn review(settings: &Pii, review: &mut Review) {
    if settings.emails != Action::Off && review.text.contains('@') {
        emails(settings, review);
    }
    let mut ibans = Vec::new();
    if settings.ibans != Action::Off {
        for (start, end) in find_ibans(review.text) {
            ibans.push((start, end));
            if !is_known(settings, review, &compact(&review.text[start..end]), compact) {
                let detail = "The draft contains a bank account number that is in no passage.";
                review.found(settings.ibans, "pii:iban", detail, (start, end), &settings.replacement);
            }
        }
    }
    if !review.text.bytes().any(|byte| byte.is_ascii_digit()) {
        return;
    }
    for run in runs(review.text) {
        if ibans.iter().any(|(start, end)| run.start < *end && *start < run.end) {
            continue;
        }
        let written = &review.text[run.start..run.end];
        let (action, rule, detail) = if is_card(&run.digits, written) {
            (settings.cards, "pii:card", "The draft contains a card number that is in no passage.")
        } else if is_phone(&run.digits, written) {
            (settings.phones, "pii:phone", "The draft contains a phone number that is in no passage.")
        } else {
            continue;
        };
        let known = |text: &str| significant(text);
        if action != Action::Off && !is_known(settings, review, &significant(&run.digits), known) {
            review.found(action, rule, detail, (run.start, run.end), &settings.replacement);
        }
    }
}

fn emails(settings: &Pii, review: &mut Review) {
    for link in find(review.text).into_iter().filter(|link| link.kind == Kind::Email) {
        let written = review.text[link.address.0..link.address.1].trim_start_matches("mailto:").to_lowercase();
        if !is_known(settings, review, &written, str::to_lowercase) {
            let detail = "The draft contains an e-mail address that is in no passage.";
            review.found(settings.emails, "pii:email", detail, (link.start, link.end), &settings.replacement);
        }
    }
}

/// Whether the page, a passage or the customer in this turn has said the same, in the same `form`.
fn is_known(settings: &Pii, review: &Review, value: &str, form: impl Fn(&str) -> String) -> bool {
    settings.allowed.iter().any(|own| form(own) == value)
        || review.passages.iter().any(|passage| form(&passage.text).contains(value))
        || review.turn.messages.iter().any(|message| form(&message.text).contains(value))
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

/// Digits without the international and national prefixes, so that `+43 1 234` and `0043 1 234` are the same.
fn significant(text: &str) -> String {
    digits(text).trim_start_matches('0').to_owned()
}

fn compact(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_uppercase()).collect()
}

fn runs(text: &str) -> Vec<Run> {
    let bytes = text.as_bytes();
    let mut runs = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let begins = bytes[at].is_ascii_digit() || matches!(bytes[at], b'+' | b'(');
        let inside_word =
            at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || matches!(bytes[at - 1], b'#' | b'_' | b'/'));
        if !begins || inside_word {
            at += 1;
            continue;
        }
        let (mut end, mut last_digit, mut separators) = (at, None, 0);
        while end < bytes.len() && separators <= 2 {
            match bytes[end] {
                byte if byte.is_ascii_digit() => (last_digit, separators) = (Some(end), 0),
                b' ' | b'-' | b'.' | b'/' | b'(' | b')' => separators += 1,
                b'+' if end == at || bytes[end - 1] == b'(' => {}
                _ => break,
            }
            end += 1;
        }
        if let Some(last) = last_digit {
            let ends_in_word = bytes.get(last + 1).is_some_and(u8::is_ascii_alphabetic);
            let start = at;
            if !ends_in_word {
                runs.push(Run { start, end: last + 1, digits: digits(&text[start..=last]) });
            }
            at = last + 1;
        } else {
            at += 1;
        }
    }
    runs
}

fn is_card(digits: &str, written: &str) -> bool {
    let shape = (13..=19).contains(&digits.len())
        && matches!(digits.as_bytes()[0], b'2'..=b'6')
        && written.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b' ' | b'-'));
    shape && luhn(digits)
}

fn luhn(digits: &str) -> bool {
    let sum: u32 = (digits.bytes().rev().enumerate())
        .map(|(index, byte)| {
            let digit = u32::from(byte - b'0');
            match (index % 2, digit * 2) {
                (0, _) => digit,
                (_, doubled) if doubled > 9 => doubled - 9,
                (_, doubled) => doubled,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

fn is_phone(digits: &str, written: &str) -> bool {
    let groups: Vec<usize> =
        written.split(|c: char| !c.is_ascii_digit()).filter(|group| !group.is_empty()).map(str::len).collect();
    let count = digits.len();
    if written.starts_with('+') || written.starts_with("(+") || digits.starts_with("00") {
        return (8..=17).contains(&count);
    }
    // `2026-11-22`, `22.11.2026`, `03/04/2026` are dates.
    if matches!(groups.as_slice(), [4, 2, 2] | [1 | 2, 1 | 2, 4 | 2]) {
        return false;
    }
    if written.starts_with('0') || written.starts_with("(0") {
        return (7..=15).contains(&count) && (groups.len() > 1 || count >= 9) && !written.starts_with("0.");
    }
    groups == [3, 3, 4]
}

/// Byte ranges of IBANs, written together or in groups.
fn find_ibans(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at + 15 <= bytes.len() {
        let begins = bytes[at].is_ascii_alphabetic()
            && bytes[at + 1].is_ascii_alphabetic()
            && bytes[at + 2].is_ascii_digit()
            && bytes[at + 3].is_ascii_digit()
            && (at == 0 || !bytes[at - 1].is_ascii_alphanumeric());
        match begins.then(|| iban_end(bytes, at)).flatten() {
            Some(end) => {
                found.push((at, end));
                at = end;
            }
            None => at += 1,
        }
    }
    found
}

/// The longest run from `start` that is an IBAN of 15 to 34 letters and digits with single spaces or dashes.
fn iban_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut compact = Vec::with_capacity(34);
    let mut longest = None;
    let mut separated = false;
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            byte if byte.is_ascii_alphanumeric() => {
                compact.push(byte.to_ascii_uppercase());
                separated = false;
            }
            b' ' | b'-' if !separated => {
                separated = true;
                continue;
            }
            _ => break,
        }
        if compact.len() > 34 {
            break;
        }
        let ends = bytes.get(at + 1).is_none_or(|next| !next.is_ascii_alphanumeric());
        if compact.len() >= 15 && ends && mod_97(&compact) == 1 {
            longest = Some(at + 1);
        }
    }
    longest
}

/// The first four characters go to the end, letters count 10 to 35.
fn mod_97(compact: &[u8]) -> u32 {
    compact[4..].iter().chain(&compact[..4]).fold(0, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
    })
}
