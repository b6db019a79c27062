//! Edits of the draft, collected by the checks and done once.

/// Replacements of byte ranges. Where two overlap, the wider one wins, else the earlier made.
#[derive(Debug, Default)]
pub(crate) struct Edits(Vec<Edit>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Edit {
    start: usize,
    end: usize,
    with: String,
    rule: String,
}

impl Edits {
    pub(crate) fn replace(&mut self, start: usize, end: usize, with: &str, rule: &str) {
        self.0.push(Edit { start, end, with: with.to_owned(), rule: rule.to_owned() });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules that asked for an edit, each once.
    pub(crate) fn rules(&self) -> Vec<String> {
        let mut rules: Vec<String> = Vec::new();
        for edit in &self.0 {
            if !rules.contains(&edit.rule) {
                rules.push(edit.rule.clone());
            }
        }
        rules
    }

    pub(crate) fn apply(&self, text: &str) -> String {
        let mut chosen: Vec<&Edit> = Vec::new();
        let mut by_width: Vec<&Edit> = self.0.iter().collect();
        by_width.sort_by_key(|edit| std::cmp::Reverse(edit.end - edit.start));
        for edit in by_width {
            if !chosen.iter().any(|other| edit.start < other.end && other.start < edit.end || *other == edit) {
                chosen.push(edit);
            }
        }
        chosen.sort_by_key(|edit| edit.start);
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for edit in chosen {
            out.push_str(&text[at..edit.start]);
            out.push_str(&edit.with);
            at = edit.end;
        }
        out.push_str(&text[at..]);
        tidy(&out)
    }
}

/// Repairs what taking something out leaves: double spaces, spaces before punctuation, empty brackets and lines.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.replace("()", "").replace("[]", "").chars() {
        match c {
            ' ' if out.ends_with([' ', '\n']) || out.is_empty() => {}
            '.' | ',' | ';' | '!' | '?' if out.ends_with(' ') => {
                out.truncate(out.trim_end_matches(' ').len());
                out.push(c);
            }
            '\n' => {
                out.truncate(out.trim_end_matches(' ').len());
                if !out.ends_with("\n\n") && !out.is_empty() {
                    out.push('\n');
                }
            }
            _ => out.push(c),
        }
    }
    out.truncate(out.trim_end().len());
    out
}
