//! Numbers and texts as people read them.

/// Text from elsewhere on one line of at most `characters_max`, harmless for a terminal.
pub fn one_line(text: &str, characters_max: usize) -> String {
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.retain(|c| !c.is_control());
    if line.chars().count() > characters_max {
        line = line.chars().take(characters_max.saturating_sub(1)).collect();
        line.push('…');
    }
    line
}

/// Text from elsewhere with its line breaks, harmless for a terminal, each line indented.
pub fn indented(text: &str, indent: &str) -> String {
    let harmless = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
    text.lines().map(|line| format!("{indent}{}", harmless(line))).collect::<Vec<_>>().join("\n")
}

/// `12,345,678`.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A size in bytes, KiB or MiB.
pub fn bytes(n: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let in_units = |unit: u64| n as f64 / unit as f64;
    match n {
        0..=9_999 => format!("{} bytes", number(n)),
        10_000..=1_048_575 => format!("{:.1} KiB", in_units(1 << 10)),
        _ => format!("{:.1} MiB", in_units(1 << 20)),
    }
}

/// How much of a limit was used, such as `0.4 %`.
pub fn share(used: u64, limit: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let percent = if limit == 0 { 0.0 } else { used as f64 / limit as f64 * 100.0 };
    format!("{percent:.1} %")
}

/// A count and its noun.
pub fn count(n: usize, one: &str, many: &str) -> String {
    format!("{} {}", number(n as u64), if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (n, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (50_000_000, "50,000,000")] {
            assert_eq!(number(n), expected);
        }
        assert_eq!(bytes(9_999), "9,999 bytes");
        assert_eq!(bytes(1 << 20), "1.0 MiB");
        assert_eq!(share(1, 200), "0.5 %");
        assert_eq!(count(1, "case", "cases"), "1 case");
    }

    #[test]
    fn text_stays_harmless() {
        assert_eq!(one_line("a\n b\u{1b}[31mc", 80), "a b[31mc");
        assert_eq!(one_line("äöüßx", 4), "äöü…");
        assert_eq!(indented("a\nb\u{7}", "  "), "  a\n  b");
    }
}
