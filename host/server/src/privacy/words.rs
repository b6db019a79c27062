//! Texts without what identifies a person: for words that are kept beyond their conversation.
//!
//! Addresses, and everything with many digits (telephone, card, account and order numbers), are replaced by what they were. Prices,
//! dates and opening hours have few digits and stay.

/// Digits of a number that may be somebody's.
const DIGITS_MIN: usize = 6;

/// The text with placeholders.
pub fn without_personal_data(text: &str) -> String {
    let mut kept: Vec<String> = Vec::new();
    let mut run: Vec<&str> = Vec::new();
    for token in text.split_inclusive(char::is_whitespace) {
        // Telephone and card numbers are written in groups.
        let is_group = token.chars().any(|c| c.is_ascii_digit())
            && token.trim().chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '/' | '(' | ')' | '.' | ','));
        if is_group {
            run.push(token);
            continue;
        }
        close(&mut run, &mut kept);
        kept.push(word(token));
    }
    close(&mut run, &mut kept);
    kept.concat()
}

fn digits(text: &str) -> usize {
    text.chars().filter(char::is_ascii_digit).count()
}

/// A run of groups of digits: one number when it has many of them, several short ones otherwise.
fn close(run: &mut Vec<&str>, kept: &mut Vec<String>) {
    let joined = run.concat();
    let is_number = digits(&joined) >= DIGITS_MIN && !joined.contains(':');
    match is_number {
        true => {
            let end: String =
                joined.chars().rev().take_while(|c| c.is_whitespace() || matches!(c, '.' | ',')).collect();
            kept.push(format!("[number]{}", end.chars().rev().collect::<String>()));
        }
        false => kept.extend(run.iter().map(|token| (*token).to_owned())),
    }
    run.clear();
}

fn word(token: &str) -> String {
    let bare = token.trim();
    let core = bare.trim_matches(|c: char| !c.is_alphanumeric());
    let is_mail = core.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'));
    let replacement = if is_mail {
        "[e-mail]"
    } else if digits(core) >= DIGITS_MIN && !core.contains("://") {
        "[number]"
    } else {
        return token.to_owned();
    };
    token.replacen(core, replacement, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_identifies_somebody_goes_and_prices_and_times_stay() {
        for (text, expected) in [
            ("My order 4711-889900 is late, mail anna.b@mail.example!", "My order [number] is late, mail [e-mail]!"),
            ("Call +43 660 123 45 67.", "Call [number]."),
            ("Card 4111 1111 1111 1111 expires", "Card [number] expires"),
            ("IBAN AT611904300234573201, please", "IBAN [number], please"),
            (
                "It costs 4.90 euros, open 9:00 to 12:30, free from 60.",
                "It costs 4.90 euros, open 9:00 to 12:30, free from 60.",
            ),
            ("", ""),
        ] {
            assert_eq!(without_personal_data(text), expected);
        }
    }
}
