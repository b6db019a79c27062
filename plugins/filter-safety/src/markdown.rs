//! Markdown to plain text: Messenger shows asterisks, hashes and backticks as they are.
//!
//! Only what is surely markup is taken: pairs of `**`, `__`, `~~`, backticks, single `*` and `_` around words, `#` headings,
//! `>` quotes, rules, and `*`/`+` bullets, which become `-`. Addresses are left alone.

use frontdesk_policy_sdk::text::links::find;

use crate::Review;
use crate::settings::{Action, MarkdownAction};

pub(crate) fn review(action: MarkdownAction, review: &mut Review) {
    let action = match action {
        MarkdownAction::Off => return,
        MarkdownAction::Note => Action::Note,
        MarkdownAction::Rewrite => Action::Rewrite,
    };
    if !review.text.contains(['*', '_', '#', '`', '~', '>']) && !review.text.contains("---") {
        return;
    }
    let links: Vec<(usize, usize)> = find(review.text).iter().map(|link| link.address).collect();
    let mut marks = Vec::new();
    line_marks(review.text, &mut marks);
    for mark in ["**", "__", "~~", "```", "`", "*", "_"] {
        pairs(review.text, mark, &mut marks);
    }
    for (start, end, with) in marks {
        if !links.iter().any(|link| start < link.1 && link.0 < end) {
            let detail = "The draft contains markdown, which Messenger shows as it is.";
            review.found(action, "markdown", detail, (start, end), with);
        }
    }
}

/// Headings, quotes, rules and bullets.
fn line_marks(text: &str, marks: &mut Vec<(usize, usize, &'static str)>) {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let body = line.trim_start();
        let at = start + line.len() - body.len();
        let hashes = body.len() - body.trim_start_matches('#').len();
        let rule = body.trim_end();
        if (1..=6).contains(&hashes) && body[hashes..].starts_with(' ') {
            marks.push((at, at + hashes + 1, ""));
        } else if body.starts_with("> ") {
            marks.push((at, at + 2, ""));
        } else if rule.len() >= 3 && ['*', '-', '_'].iter().any(|c| rule.trim_matches(*c).is_empty()) {
            marks.push((at, at + rule.len(), ""));
        } else if body.starts_with("* ") || body.starts_with("+ ") {
            marks.push((at, at + 1, "-"));
        }
        start += line.len();
    }
}

/// Pairs of `mark` on one line that embrace text, not touching marks that are taken already.
fn pairs(text: &str, mark: &str, marks: &mut Vec<(usize, usize, &'static str)>) {
    let mut at = 0;
    while let Some(open) = text[at..].find(mark).map(|found| found + at) {
        let inner = open + mark.len();
        let close = text[inner..].find(mark).map(|found| found + inner);
        let Some(close) = close else { return };
        let (body, end) = (&text[inner..close], close + mark.len());
        let single = mark.len() == 1 && mark != "`";
        let before = text[..open].chars().next_back().is_none_or(|c| !single || !c.is_alphanumeric());
        let after = text[end..].chars().next().is_none_or(|c| !single || !c.is_alphanumeric());
        let embraces = !body.is_empty()
            && !body.starts_with(' ')
            && !body.ends_with(' ')
            && (mark == "```" || !body.contains('\n'));
        let free = |start: usize, end: usize| !marks.iter().any(|taken| start < taken.1 && taken.0 < end);
        if embraces && before && after && free(open, inner) && free(close, end) {
            marks.push((open, inner, ""));
            marks.push((close, end, ""));
            at = end;
        } else {
            at = inner;
        }
    }
}
