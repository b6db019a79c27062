//! What must stand in a passage exactly: numbers and addresses, in a form in which different notations are the same.

use std::collections::HashSet;

use super::vocabulary::number_word;
use crate::knowledge::terms::{fold, words};

/// Numbers and addresses in a comparable form: `4,90 €` and `4.90 EUR` give `4.9`; `1.000` gives `1000`.
pub(super) fn exacts(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for token in
        text.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '<' | '>' | '"' | '|' | '*' | '[' | ']'))
    {
        let token = token.trim_matches(|c: char| !c.is_alphanumeric());
        if let Some(address) = address(token) {
            found.push(address);
            continue;
        }
        found.extend(words(token).iter().filter_map(|word| number_word(word)).map(str::to_owned));
        let digits = |c: char| c.is_numeric() || matches!(c, '.' | ',' | '\'' | '’');
        found.extend(token.split(|c: char| !digits(c)).filter_map(number));
    }
    found
}

/// Whether two texts, perhaps in two languages, hold the same numbers and addresses. Full hours are written with minutes in one
/// and without in the other.
pub(in crate::answer) fn same_exacts(a: &str, b: &str) -> bool {
    let of = |text: &str| exacts(text).into_iter().filter(|exact| exact != "0").collect::<HashSet<String>>();
    of(a) == of(b)
}

/// A web or mail address without scheme, `www.` and final slash, in lower case.
fn address(token: &str) -> Option<String> {
    let lower = fold(token);
    let is_mail = lower.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'));
    let bare = lower.split_once("://").map_or(lower.as_str(), |(_, rest)| rest);
    let bare = bare.strip_prefix("www.").unwrap_or(bare).trim_end_matches('/');
    let had_scheme = lower.contains("://") || lower.starts_with("www.");
    let host = bare.split(['/', '?', '#']).next().unwrap_or_default();
    let is_host = host.rsplit_once('.').is_some_and(|(name, top)| {
        let letters = |part: &str| part.len() >= 2 && part.chars().all(|c| c.is_ascii_alphabetic());
        letters(top) && name.chars().any(char::is_alphabetic) && name.chars().count() >= 2
    });
    (is_mail || had_scheme || is_host).then(|| bare.to_owned())
}

/// A number without grouping, with a dot, without trailing zeros: `1.000,50` and `1,000.5` are the same.
fn number(token: &str) -> Option<String> {
    let token = token.trim_matches(['.', ',', '\'', '’']);
    if !token.chars().any(char::is_numeric) {
        return None;
    }
    let plain: String = token.chars().filter(|c| !matches!(c, '\'' | '’')).collect();
    let last = plain.rfind(['.', ',']);
    let (whole, fraction) = match last.map(|at| (plain.get(..at), plain.get(at + 1..))) {
        // Three digits after a single kind of separator group thousands; anything else is a fraction.
        Some((Some(whole), Some(fraction))) if fraction.chars().count() != 3 || mixed(&plain) => (whole, fraction),
        _ => (plain.as_str(), ""),
    };
    let whole: String = whole.chars().filter(|c| c.is_numeric()).collect();
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") })
}

fn mixed(number: &str) -> bool {
    number.contains('.') && number.contains(',')
}
