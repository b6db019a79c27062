//! CSV files of curated questions and answers.
//!
//! The header must name `question` and `answer`; `labels` (separated by `,`, `;` or `|`) and `language` (ISO 639-1) are
//! optional, other columns are ignored. Case and order do not matter. The delimiter is the one of comma, semicolon and
//! tab that splits the header into these names.

use csv::{ReaderBuilder, StringRecord, Trim};

use super::document::{IngestError, LABELS_MAX, NAME_CHARACTERS_MAX, Unit};
use super::{PASSAGES_PER_DOCUMENT_MAX, language};

/// Longest question, in characters. Longer texts belong into the answer.
const QUESTION_CHARACTERS_MAX: usize = 1_000;
/// Longest answer, in characters: it is kept whole, never cut into passages.
const ANSWER_CHARACTERS_MAX: usize = 8_000;

struct Columns {
    question: usize,
    answer: usize,
    labels: Option<usize>,
    language: Option<usize>,
}

/// One unit per row. Rows without any text are skipped; a row with only a question or only an answer is an error.
pub(super) fn read(source: &str, text: &str) -> Result<Vec<Unit>, IngestError> {
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter(text))
        .trim(Trim::All)
        .flexible(true)
        .has_headers(true)
        .from_reader(text.as_bytes());
    let malformed = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        IngestError::FaqRow { source_name: source.to_owned(), line, reason: error.to_string() }
    };
    let columns = columns(source, reader.headers().map_err(malformed)?)?;
    let mut units = Vec::new();
    for record in reader.records() {
        let record = record.map_err(malformed)?;
        let line = record.position().map_or(0, csv::Position::line);
        let row = |reason: String| IngestError::FaqRow { source_name: source.to_owned(), line, reason };
        if let Some(unit) = unit(&columns, &record).map_err(row)? {
            units.push(unit);
        }
        if units.len() > PASSAGES_PER_DOCUMENT_MAX {
            return Err(IngestError::TooManyPassages { source_name: source.to_owned(), found: units.len() });
        }
    }
    Ok(units)
}

/// The entries of a spreadsheet that is a FAQ: the rows of its pipe tables whose header names `question` and `answer`.
/// `None`: no table does.
pub(super) fn from_tables(source: &str, markdown: &str) -> Result<Option<Vec<Unit>>, IngestError> {
    let mut units: Option<Vec<Unit>> = None;
    let mut header: Option<Columns> = None;
    let mut in_table = false;
    for (at, line) in markdown.lines().enumerate() {
        let Some(cells) = cells(line) else {
            (header, in_table) = (None, false);
            continue;
        };
        if !in_table {
            in_table = true;
            header = columns(source, &cells).ok();
            continue;
        }
        let is_rule = cells.iter().all(|cell| cell.contains('-') && cell.chars().all(|c| matches!(c, '-' | ':' | ' ')));
        let Some(columns) = header.as_ref().filter(|_| !is_rule) else { continue };
        let line = at as u64 + 1;
        let row = |reason: String| IngestError::FaqRow { source_name: source.to_owned(), line, reason };
        let found = units.get_or_insert_default();
        found.extend(unit(columns, &cells).map_err(row)?);
        if found.len() > PASSAGES_PER_DOCUMENT_MAX {
            return Err(IngestError::TooManyPassages { source_name: source.to_owned(), found: found.len() });
        }
    }
    Ok(units)
}

/// The cells of a line of a pipe table; `None`: it is none. `\|` is a bar inside a cell, `<br>` a line break.
fn cells(line: &str) -> Option<StringRecord> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let mut cells = vec![String::new()];
    let mut characters = inner.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' if characters.peek().is_some_and(char::is_ascii_punctuation) => {
                if let (Some(cell), Some(escaped)) = (cells.last_mut(), characters.next()) {
                    cell.push(escaped);
                }
            }
            '|' => cells.push(String::new()),
            c => {
                if let Some(cell) = cells.last_mut() {
                    cell.push(c);
                }
            }
        }
    }
    Some(cells.iter().map(|cell| cell.trim().replace("<br>", "\n")).collect())
}

/// The candidate that splits the first line into the most known names; comma when none does.
fn delimiter(text: &str) -> u8 {
    let header = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let known = |delimiter: u8| {
        let names = header.split(char::from(delimiter)).map(|name| name.trim().trim_matches('"').to_ascii_lowercase());
        names.filter(|name| ["question", "answer", "labels", "language"].contains(&name.as_str())).count()
    };
    // The last of equals wins in max_by_key, hence comma last.
    [b'\t', b';', b','].into_iter().max_by_key(|delimiter| known(*delimiter)).unwrap_or(b',')
}

fn columns(source: &str, header: &StringRecord) -> Result<Columns, IngestError> {
    let find = |name: &str| header.iter().position(|column| column.eq_ignore_ascii_case(name));
    let found: String = header.iter().collect::<Vec<_>>().join(", ").chars().take(200).collect();
    let require = |name: &'static str| {
        let missing = || IngestError::FaqHeader { source_name: source.to_owned(), missing: name, found: found.clone() };
        find(name).ok_or_else(missing)
    };
    Ok(Columns {
        question: require("question")?,
        answer: require("answer")?,
        labels: find("labels"),
        language: find("language"),
    })
}

fn unit(columns: &Columns, record: &StringRecord) -> Result<Option<Unit>, String> {
    let cell = |column: usize| record.get(column).unwrap_or_default();
    let (question, answer) = (cell(columns.question), cell(columns.answer));
    match (question.is_empty(), answer.is_empty()) {
        (true, true) => return Ok(None),
        (true, false) => return Err("the answer has no question".to_owned()),
        (false, true) => return Err("the question has no answer".to_owned()),
        (false, false) => {}
    }
    let limits = [("question", question, QUESTION_CHARACTERS_MAX), ("answer", answer, ANSWER_CHARACTERS_MAX)];
    for (name, text, max) in limits {
        let found = text.chars().count();
        if found > max {
            return Err(format!("the {name} has {found} characters, at most {max} are taken"));
        }
    }
    Ok(Some(Unit {
        heading: String::new(),
        text: answer.to_owned(),
        question: Some(question.to_owned()),
        labels: labels(columns.labels.map(cell).unwrap_or_default())?,
        language: match columns.language.map(cell).unwrap_or_default() {
            "" => None,
            code => {
                Some(language::canonical(code).ok_or_else(|| format!("language \"{code}\" is not known"))?.to_owned())
            }
        },
    }))
}

fn labels(cell: &str) -> Result<Vec<String>, String> {
    let labels: Vec<String> =
        cell.split([',', ';', '|']).map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned).collect();
    if labels.len() > LABELS_MAX {
        return Err(format!("{} labels, at most {LABELS_MAX} are taken", labels.len()));
    }
    match labels.iter().find(|label| label.chars().count() > NAME_CHARACTERS_MAX) {
        Some(_) => Err(format!("a label is longer than {NAME_CHARACTERS_MAX} characters")),
        None => Ok(labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        read("faq.csv", text).unwrap().into_iter().map(|unit| (unit.question.unwrap(), unit.text)).collect()
    }

    #[test]
    fn delimiters_case_order_and_quotes() {
        let expected = [("Do you ship?".to_owned(), "Yes, to Austria; and \"more\".".to_owned())];
        for text in [
            "question,answer\nDo you ship?,\"Yes, to Austria; and \"\"more\"\".\"\n",
            "Answer;QUESTION\n\"Yes, to Austria; and \"\"more\"\".\";Do you ship?\n",
            "Question\tOther\tAnswer\nDo you ship?\tx\t\"Yes, to Austria; and \"\"more\"\".\"\n",
            "\"question\",\"answer\"\r\nDo you ship?,\"Yes, to Austria; and \"\"more\"\".\"\r\n\r\n",
        ] {
            assert_eq!(pairs(text), expected, "{text}");
        }
    }

    #[test]
    fn a_spreadsheet_with_the_columns_of_a_faq_is_one() {
        let book = "## FAQ\n\n| Question | Answer |\n|---|---|\n| A \\| B? | Yes.<br>Both. |\n\n## Other\n\n| Tea | Price |\n|---|---|\n| Sencha | 12 |\n";
        let units = from_tables("faq.xlsx", book).unwrap().unwrap();
        assert_eq!(units.len(), 1);
        assert_eq!((units[0].question.as_deref(), units[0].text.as_str()), (Some("A | B?"), "Yes.\nBoth."));
        assert!(from_tables("prices.xlsx", "| Tea | Price |\n|---|---|\n| Sencha | 12 |\n").unwrap().is_none());
        let error = from_tables("faq.xlsx", "| question | answer |\n|---|---|\n| Why? |  |\n").unwrap_err();
        assert!(error.to_string().contains("line 3: the question has no answer"), "{error}");
    }

    #[test]
    fn labels_and_languages_are_read() {
        let units = read("faq.csv", "question,answer,labels,language\nWo?,Hier.,shop|visit,de-AT\n").unwrap();
        assert_eq!(units[0].labels, ["shop", "visit"]);
        assert_eq!(units[0].language.as_deref(), Some("de"));
    }

    #[test]
    fn errors_name_the_line_or_the_column() {
        let message = |text: &str| read("faq.csv", text).unwrap_err().to_string();
        assert!(message("frage,antwort\na,b\n").contains("no column \"question\" in its header (frage, antwort)"));
        assert!(message("question,answer\na,b\nonly a question,\n").contains("line 3: the question has no answer"));
        assert!(message("question,answer,language\na,b,klingon\n").contains("language \"klingon\""));
        let long = format!("question,answer\nq,{}\n", "a".repeat(ANSWER_CHARACTERS_MAX + 1));
        assert!(message(&long).contains("at most 8000"));
        let fits = format!("question,answer\nq,{}\n", "a".repeat(ANSWER_CHARACTERS_MAX));
        assert_eq!(pairs(&fits).len(), 1);
    }
}
