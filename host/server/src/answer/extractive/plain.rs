//! A quotation as Messenger can show it: without Markdown's marks, tables as lines.

use super::quoting::Quotation;
use super::{FIT_BY_WORDS, MODEL};
use crate::answer::evidence::confidence;
use crate::answer::{CitedSentence, Drafted, Evidence};

/// Lines that are headings or table rules: structure, not words to send.
pub(super) fn is_markup(sentence: &str) -> bool {
    sentence.starts_with('#') || !sentence.chars().any(char::is_alphanumeric)
}

pub(super) fn drafted(quotation: &Quotation<'_>) -> Drafted {
    let passage = quotation.passage;
    let header = table_header(&passage.text);
    let heading = quotation.heading.map(|heading| format!("{}:", plain_line(heading)));
    let plain: Vec<String> = quotation.sentences.iter().map(|sentence| plain(sentence, &header)).collect();
    let sentences: Vec<CitedSentence> = heading
        .iter()
        .chain(&plain)
        .map(|text| CitedSentence {
            text: text.clone(),
            passage_ids: vec![passage.id.clone()],
            support: 1.0,
            factual: true,
            problem: None,
        })
        .collect();
    let count = u32::try_from(sentences.len()).unwrap_or(u32::MAX);
    // A short question fits badly by nearness, and is answered all the same by a passage that is about just this.
    let best_score = passage.score.max(FIT_BY_WORDS * quotation.coverage * quotation.about);
    let evidence = Evidence { sentences: count, supported: count, best_score, confidence: 0.0 };
    let supports = vec![1.0; sentences.len()];
    let evidence = Evidence { confidence: confidence(&evidence, &supports), ..evidence };
    // A FAQ's answer keeps its own lines; a quotation of prose is one paragraph.
    let text = match passage.question {
        Some(_) => passage.text.trim().lines().map(plain_line).collect::<Vec<_>>().join("\n"),
        None => joined(&quotation.sentences, &plain),
    };
    let text = match heading {
        Some(heading) => format!("{heading}{}{text}", if text.contains('\n') { '\n' } else { ' ' }),
        None => text,
    };
    let (model, prompt) = (MODEL.to_owned(), String::new());
    Drafted { text, sentences, evidence, model, prompt_tokens: 0, completion_tokens: 0, prompt, cut: Vec::new() }
}

pub(super) fn is_item(line: &str) -> bool {
    line.starts_with('|') || without_marker(line) != line
}

/// Sentences in a row, items of lists and tables on lines of their own.
fn joined(sentences: &[&str], plain: &[String]) -> String {
    let mut text = String::new();
    for (sentence, plain) in sentences.iter().zip(plain) {
        if !text.is_empty() {
            text.push(if is_item(sentence) { '\n' } else { ' ' });
        }
        text.push_str(plain);
    }
    text
}

/// A list's item without its bullet or number.
fn without_marker(line: &str) -> &str {
    if let Some(item) = ["- ", "* ", "+ "].iter().find_map(|mark| line.strip_prefix(mark)) {
        return item.trim_start();
    }
    match line.split_once(". ") {
        Some((number, item)) if (1..=2).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()) => {
            item.trim_start()
        }
        _ => line,
    }
}

/// The cells of the passage's first table row, if it is a table.
pub(super) fn table_header(text: &str) -> Vec<String> {
    let mut lines = text.lines().map(str::trim).filter(|line| line.starts_with('|'));
    match (lines.next(), lines.next()) {
        (Some(header), Some(rule)) if rule.contains("--") => cells(header),
        _ => Vec::new(),
    }
}

fn cells(row: &str) -> Vec<String> {
    row.trim().trim_matches('|').split('|').map(|cell| plain_line(cell.trim())).collect()
}

/// A sentence as Messenger can show it. A table's row becomes `Tea: Sencha, 100 g: 12.50 EUR`.
fn plain(sentence: &str, header: &[String]) -> String {
    if !sentence.starts_with('|') {
        return plain_line(sentence);
    }
    let pairs = cells(sentence).into_iter().enumerate().filter(|(_, cell)| !cell.is_empty());
    let pairs = pairs.map(|(at, cell)| match header.get(at) {
        Some(name) if !name.is_empty() && *name != cell => format!("{name}: {cell}"),
        _ => cell,
    });
    pairs.collect::<Vec<_>>().join(", ")
}

/// Without emphasis, code marks and quote marks; a link `[text](address)` becomes `text (address)`.
fn plain_line(line: &str) -> String {
    let line = without_marker(line.trim_start_matches("> ")).replace("**", "").replace("__", "").replace('`', "");
    let mut text = String::with_capacity(line.len());
    let mut rest = line.as_str();
    while let Some((before, after)) = rest.split_once('[') {
        let link = after.split_once("](").and_then(|(label, tail)| Some((label, tail.split_once(')')?)));
        match link {
            Some((label, (address, tail))) if !label.contains(['[', ']']) => {
                text.push_str(before);
                text.push_str(label);
                if label != address {
                    text.push_str(&format!(" ({address})"));
                }
                rest = tail;
            }
            _ => {
                text.push_str(before);
                text.push('[');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text.replace("\\", "")
}
