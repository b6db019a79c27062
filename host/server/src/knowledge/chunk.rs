//! Cutting texts into passages: along headings first, then by length, with the path of headings kept beside each.

use std::collections::HashSet;

use text_splitter::{MarkdownSplitter, TextSplitter};
use unicode_segmentation::UnicodeSegmentation;

use super::document::Unit;

/// Longest heading that is kept, in characters.
const HEADING_CHARACTERS_MAX: usize = 200;

/// A text of up to so many pieces is cut evenly; of a longer one the last is the remainder.
const EVEN_PIECES_MAX: usize = 8;
/// Lengths that are tried for even pieces.
const EVEN_TRIALS: usize = 6;

/// Plain text: by paragraphs and sentences.
pub(super) fn text(text: &str, characters_max: usize) -> Vec<Unit> {
    evenly(text, characters_max, |most| TextSplitter::new(most).chunk_indices(text).collect())
        .into_iter()
        .filter(|chunk| has_words(chunk))
        .map(|chunk| Unit { text: chunk.to_owned(), ..Unit::default() })
        .collect()
}

/// Markdown: a passage never crosses a heading, and a table that must be cut repeats its header rows.
pub(super) fn markdown(markdown: &str, characters_max: usize) -> Vec<Unit> {
    let mut units = Vec::new();
    for section in sections(markdown) {
        let heading = section.path.join(" > ");
        for block in blocks(section.body) {
            match block {
                Block::Prose(prose) => {
                    let cut = |most| MarkdownSplitter::new(most).chunk_indices(prose).collect();
                    let chunks = evenly(prose, characters_max, cut).into_iter();
                    units.extend(chunks.filter(|chunk| has_words(chunk)).map(|chunk| Unit {
                        heading: heading.clone(),
                        text: chunk.to_owned(),
                        ..Unit::default()
                    }));
                }
                Block::Table(rows) => units.extend(table(&rows, characters_max).into_iter().map(|text| Unit {
                    heading: heading.clone(),
                    text,
                    ..Unit::default()
                })),
            }
        }
    }
    units
}

/// The outermost of the first headings, for a document's title.
pub(super) fn first_heading(markdown: &str) -> Option<String> {
    sections(markdown).into_iter().find_map(|section| section.path.first().cloned())
}

/// As few pieces as `characters_max` needs, of about the same length. Filling one after the other leaves a last piece of a few
/// words, which tells little, and whose vector is near to everything. `cut` gives pieces of at most so many characters with
/// where they begin; no more sentences are broken for evenness than for want of room.
fn evenly<'a>(text: &str, characters_max: usize, cut: impl Fn(usize) -> Vec<(usize, &'a str)>) -> Vec<&'a str> {
    let mut pieces = cut(characters_max);
    if (2..=EVEN_PIECES_MAX).contains(&pieces.len()) {
        let beginnings = sentences(text);
        let broken = |pieces: &[(usize, &str)]| pieces.iter().filter(|(at, _)| !beginnings.contains(at)).count();
        let (most, broken_most) = (pieces.len(), broken(&pieces));
        let least = text.chars().count().div_ceil(most).max(1);
        let step = characters_max.saturating_sub(least).div_ceil(EVEN_TRIALS).max(1);
        let mut trials = (least..characters_max).step_by(step).map(&cut);
        if let Some(even) = trials.find(|even| even.len() <= most && broken(even) <= broken_most) {
            pieces = even;
        }
    }
    pieces.into_iter().map(|(_, piece)| piece).collect()
}

/// Where sentences begin, in bytes.
fn sentences(text: &str) -> HashSet<usize> {
    let bounds = text.split_sentence_bound_indices();
    bounds.map(|(at, sentence)| at + sentence.len() - sentence.trim_start().len()).collect()
}

fn has_words(text: &str) -> bool {
    text.chars().any(char::is_alphanumeric)
}

struct Section<'a> {
    /// Headings above, outermost first.
    path: Vec<String>,
    body: &'a str,
}

/// Splits at ATX (`## Shipping`) and setext (`Shipping` over `---`) headings outside of code fences.
fn sections(markdown: &str) -> Vec<Section<'_>> {
    let mut sections = Vec::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut start = 0;
    let mut fence: Option<&str> = None;
    let mut previous: Option<(usize, &str)> = None;
    let mut offset = 0;
    let mut close = |path: &[(usize, String)], start: usize, end: usize| {
        let body = markdown.get(start..end).unwrap_or_default();
        if has_words(body) {
            sections.push(Section { path: path.iter().map(|(_, title)| title.clone()).collect(), body });
        }
    };
    for line in markdown.split_inclusive('\n') {
        let here = offset;
        offset += line.len();
        let trimmed = line.trim();
        if let Some(mark) = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark)) {
            fence = match fence {
                None => Some(mark),
                Some(open) if open == mark => None,
                other => other,
            };
        }
        if fence.is_some() {
            previous = None;
            continue;
        }
        let setext = previous.and_then(|(at, text)| setext_level(trimmed).map(|level| (at, level, text.to_owned())));
        let found = setext.or_else(|| atx(line).map(|(level, title)| (here, level, title)));
        if let Some((at, level, title)) = found {
            close(&path, start, at);
            path.retain(|(above, _)| *above < level);
            path.push((level, shorten(&title)));
            start = offset;
            previous = None;
        } else {
            previous = paragraph_start(trimmed, previous).then_some((here, trimmed));
        }
    }
    close(&path, start, markdown.len());
    sections
}

/// A line that a following `---` would make a heading of: one line of prose after a blank one.
fn paragraph_start(trimmed: &str, previous: Option<(usize, &str)>) -> bool {
    let marks = ['|', '>', '-', '*', '+', '#'];
    previous.is_none() && has_words(trimmed) && !trimmed.starts_with(marks)
}

fn setext_level(trimmed: &str) -> Option<usize> {
    let all = |mark: char| trimmed.len() >= 3 && trimmed.chars().all(|c| c == mark);
    if all('=') { Some(1) } else { all('-').then_some(2) }
}

fn atx(line: &str) -> Option<(usize, String)> {
    if line.len() - line.trim_start_matches(' ').len() > 3 {
        return None;
    }
    let trimmed = line.trim();
    let level = trimmed.chars().take_while(|c| *c == '#').count();
    let title = trimmed.get(level..)?;
    if !(1..=6).contains(&level) || !title.starts_with([' ', '\t']) {
        return None;
    }
    let title = title.trim().trim_end_matches('#').trim();
    has_words(title).then(|| (level, title.replace(['*', '`'], "")))
}

fn shorten(title: &str) -> String {
    title.chars().take(HEADING_CHARACTERS_MAX).collect()
}

enum Block<'a> {
    Prose(&'a str),
    Table(Vec<&'a str>),
}

/// Takes pipe tables (a header, a row of dashes, rows) out of the prose around them.
fn blocks(body: &str) -> Vec<Block<'_>> {
    let lines: Vec<(usize, &str)> = body
        .split_inclusive('\n')
        .scan(0, |offset, line| {
            let here = *offset;
            *offset += line.len();
            Some((here, line))
        })
        .collect();
    let mut blocks = Vec::new();
    let mut prose_start = 0;
    let mut index = 0;
    while let Some((at, line)) = lines.get(index).copied() {
        let is_table = line.contains('|') && lines.get(index + 1).is_some_and(|(_, next)| is_table_rule(next));
        if !is_table {
            index += 1;
            continue;
        }
        blocks.push(Block::Prose(body.get(prose_start..at).unwrap_or_default()));
        let rows: Vec<&str> =
            lines.iter().skip(index).map(|(_, row)| *row).take_while(|row| row.contains('|')).collect();
        index += rows.len();
        prose_start = lines.get(index).map_or(body.len(), |(offset, _)| *offset);
        blocks.push(Block::Table(rows.into_iter().map(str::trim).collect()));
    }
    blocks.push(Block::Prose(body.get(prose_start..).unwrap_or_default()));
    blocks
}

fn is_table_rule(line: &str) -> bool {
    let trimmed = line.trim();
    trimmed.contains("--") && trimmed.contains('|') && trimmed.chars().all(|c| matches!(c, '|' | '-' | ':' | ' '))
}

fn table(rows: &[&str], characters_max: usize) -> Vec<String> {
    let (head, body) = rows.split_at(rows.len().min(2));
    let head = head.join("\n");
    let mut pieces = vec![head.clone()];
    for row in body {
        let Some(piece) = pieces.last_mut() else { break };
        let full = piece.chars().count() + row.chars().count() >= characters_max;
        if full && piece.len() > head.len() {
            pieces.push(format!("{head}\n{row}"));
        } else {
            piece.push('\n');
            piece.push_str(row);
        }
    }
    // A single row may be longer than a passage; it is then cut like prose.
    let splitter = TextSplitter::new(characters_max);
    pieces
        .into_iter()
        .flat_map(|piece| {
            if piece.chars().count() <= characters_max {
                return vec![piece];
            }
            splitter.chunks(&piece).map(str::to_owned).collect()
        })
        .filter(|piece| has_words(piece))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_carry_the_path_of_their_headings() {
        let source = "Intro words.\n\n# Shop\n\n## Shipping ##\n\nWe ship to Austria.\n\n### Costs\n\n4.90 EUR\n\n## Returns\n\n30 days.\n";
        let units: Vec<(String, String)> = markdown(source, 400).into_iter().map(|u| (u.heading, u.text)).collect();
        let expected = [
            ("", "Intro words."),
            ("Shop > Shipping", "We ship to Austria."),
            ("Shop > Shipping > Costs", "4.90 EUR"),
            ("Shop > Returns", "30 days."),
        ];
        assert_eq!(units, expected.map(|(heading, text)| (heading.to_owned(), text.to_owned())));
        assert_eq!(first_heading(source).as_deref(), Some("Shop"));
    }

    #[test]
    fn headings_in_code_fences_are_code_and_setext_headings_are_headings() {
        let source = "Title\n=====\n\n```\n# not a heading\n```\n\nPart\n---\n\ntext\n";
        let headings: Vec<String> = markdown(source, 400).into_iter().map(|unit| unit.heading).collect();
        assert_eq!(headings, ["Title", "Title > Part"]);
    }

    #[test]
    fn long_tables_repeat_their_header() {
        let rows: String = (0..40).map(|n| format!("| tea number {n} | {n} EUR |\n")).collect();
        let source = format!("# Prices\n\nAll prices.\n\n| Tea | Price |\n|---|---:|\n{rows}\nEnd.\n");
        let units = markdown(&source, 300);
        let tables: Vec<_> = units.iter().filter(|unit| unit.text.contains('|')).collect();
        assert!(tables.len() > 2);
        for table in &tables {
            assert!(table.text.starts_with("| Tea | Price |\n|---|---:|\n| tea"), "{}", table.text);
            assert!(table.text.chars().count() <= 300);
            assert_eq!(table.heading, "Prices");
        }
        assert_eq!(tables.iter().map(|t| t.text.matches("tea number").count()).sum::<usize>(), 40);
        assert_eq!(units.last().map(|unit| unit.text.as_str()), Some("End."));
    }

    #[test]
    fn no_passage_is_longer_than_asked_and_no_word_is_lost() {
        let source: String = (0..300).map(|n| format!("Sentence number{n} is here. ")).collect();
        for units in [text(&source, 250), markdown(&source, 250)] {
            assert!(units.iter().all(|unit| unit.text.chars().count() <= 250));
            let joined: String = units.iter().map(|unit| format!("{} ", unit.text)).collect();
            assert!((0..300).all(|n| joined.contains(&format!("number{n} "))));
        }
    }

    #[test]
    fn a_text_is_cut_evenly() {
        let sentences: String = (0..11).map(|n| format!("This is the sentence number {n} of a text. ")).collect();
        let lengths = |source: &str, most| -> Vec<usize> {
            text(source, most).iter().map(|unit| unit.text.chars().count()).collect()
        };
        // Filled to the brim, the last piece would be one sentence.
        let cut = lengths(&sentences, 430);
        assert!(cut.len() == 2 && cut.iter().all(|length| *length > 200), "{cut:?}");
        assert_eq!(lengths("One. Two.", 430), [9]);
        // No sentence is broken for it.
        let uneven = format!("{} ends. A few words.", "word ".repeat(80).trim_end());
        assert_eq!(lengths(&uneven, 410), [405, 12]);
        let longer = sentences.repeat(20);
        assert!(lengths(&longer, 430).iter().all(|length| *length <= 430));
    }

    #[test]
    fn a_table_row_longer_than_a_passage_is_cut() {
        let source = format!("| A |\n|---|\n| {} |\n", "word ".repeat(200));
        assert!(markdown(&source, 250).iter().all(|unit| unit.text.chars().count() <= 250));
    }
}
