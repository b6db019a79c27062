//! A document on its way in: its format, its limits, its decoding, and everything that can be wrong with it.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::extract::ExtractError;
use super::extract::Extracted;
use super::redact::{Originals, Redaction};
use super::{ArchiveError, EmbedError, KnowledgeError, chunk, faq};

/// Largest document that is text by itself, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest document of a format that packs text with other things, in bytes.
pub const FILE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most passages that one document may become.
pub const PASSAGES_PER_DOCUMENT_MAX: usize = 20_000;
/// Longest source, title or label, in characters.
pub const NAME_CHARACTERS_MAX: usize = 512;
/// Most labels on a document or FAQ entry.
pub const LABELS_MAX: usize = 32;

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    Text,
    Markdown,
    Html,
    /// Rows of question and answer; the header names the columns.
    CsvFaq,
    Pdf,
    /// Word.
    Docx,
    /// Excel. A sheet with the columns of a FAQ is one.
    Xlsx,
    /// PowerPoint.
    Pptx,
}

impl Format {
    const ALL: [Self; 8] =
        [Self::Text, Self::Markdown, Self::Html, Self::CsvFaq, Self::Pdf, Self::Docx, Self::Xlsx, Self::Pptx];

    /// As stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Markdown => "markdown",
            Self::Html => "html",
            Self::CsvFaq => "csv-faq",
            Self::Pdf => "pdf",
            Self::Docx => "docx",
            Self::Xlsx => "xlsx",
            Self::Pptx => "pptx",
        }
    }

    /// Whether the bytes are UTF-8 text.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Markdown | Self::Html | Self::CsvFaq)
    }

    /// Whether reading it takes a parser that is trusted only in a process of its own.
    pub fn needs_extraction(self) -> bool {
        self == Self::Html || !self.is_text()
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Format {
    type Err = IngestError;

    fn from_str(name: &str) -> Result<Self, IngestError> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == name)
            .ok_or_else(|| IngestError::UnknownFormat { source_name: name.to_owned() })
    }
}

/// The format that a file name's ending stands for; `None` for an ending that is not supported.
pub fn format_from_name(name: &str) -> Option<Format> {
    let ending = name.rsplit(['/', '\\']).next()?.rsplit_once('.')?.1.to_ascii_lowercase();
    match ending.as_str() {
        "txt" | "text" => Some(Format::Text),
        "md" | "markdown" => Some(Format::Markdown),
        "html" | "htm" | "xhtml" => Some(Format::Html),
        "csv" | "tsv" => Some(Format::CsvFaq),
        "pdf" => Some(Format::Pdf),
        "docx" => Some(Format::Docx),
        "xlsx" => Some(Format::Xlsx),
        "pptx" => Some(Format::Pptx),
        _ => None,
    }
}

/// A document to add or to replace.
#[derive(Debug, Clone, Default)]
pub struct NewDocument {
    /// `None`: for every Page of this host.
    pub page_id: Option<String>,
    /// Where it came from; a document with the same source and Page scope is replaced.
    pub source: String,
    /// `None`: the first heading, or the source's file name.
    pub title: Option<String>,
    /// `None`: by the ending of `source`.
    pub format: Option<Format>,
    pub bytes: Vec<u8>,
    /// ISO 639-1; `None`: detected per passage.
    pub language: Option<String>,
    pub labels: Vec<String>,
    pub valid_from: Option<DateTime<Utc>>,
    pub valid_until: Option<DateTime<Utc>>,
}

/// Why a document was not taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error(
        "the format of \"{source_name}\" is not known: expected a name that ends in .txt, .md, .html, .csv, .pdf, .docx, \
         .xlsx or .pptx, or a format of text, markdown, html, csv-faq, pdf, docx, xlsx, pptx"
    )]
    UnknownFormat { source_name: String },
    #[error("\"{source_name}\" is empty: expected text")]
    Empty { source_name: String },
    #[error("\"{source_name}\" has {found} bytes, at most {max} are taken: split it")]
    TooLarge { source_name: String, found: usize, max: usize },
    #[error("\"{source_name}\" becomes {found} passages, at most {PASSAGES_PER_DOCUMENT_MAX} are taken: split it")]
    TooManyPassages { source_name: String, found: usize },
    #[error(
        "\"{source_name}\" is not UTF-8: byte 0x{byte:02x} at offset {offset} (line {line}); save it as UTF-8 and try again"
    )]
    NotUtf8 { source_name: String, byte: u8, offset: usize, line: usize },
    #[error("\"{source_name}\" holds a NUL character at offset {offset} (line {line}); is it a text file?")]
    Nul { source_name: String, offset: usize, line: usize },
    #[error("{field} has {found} characters, expected 1 to {NAME_CHARACTERS_MAX}")]
    Name { field: &'static str, found: usize },
    #[error("there are {found} labels, at most {LABELS_MAX} are taken")]
    Labels { found: usize },
    #[error("language \"{found}\" is not known: expected one of {expected}")]
    Language { found: String, expected: String },
    #[error("valid_until ({until}) is not after valid_from ({from})")]
    Validity { from: DateTime<Utc>, until: DateTime<Utc> },
    #[error(
        "\"{source_name}\" has no column \"{missing}\" in its header ({found}): expected question,answer[,labels,language]"
    )]
    FaqHeader { source_name: String, missing: &'static str, found: String },
    #[error("\"{source_name}\", line {line}: {reason}")]
    FaqRow { source_name: String, line: u64, reason: String },
    #[error("\"{source_name}\" cannot be read: {source}")]
    Extract {
        source_name: String,
        #[source]
        source: ExtractError,
    },
    #[error("the passages cannot be embedded: {0}")]
    Embed(#[from] EmbedError),
    #[error("the document cannot be stored: {source}")]
    Database {
        #[from]
        source: sqlx::Error,
    },
    #[error("the document's file cannot be kept: {0}")]
    Archive(#[from] ArchiveError),
    #[error("the document's file was deleted before the document was stored: it took too long; try again")]
    TooSlow,
    #[error("reading the document stopped unexpectedly: {reason}")]
    Interrupted { reason: String },
}

impl IngestError {
    /// Whether the uploader can mend it (a 4xx answer), as opposed to the host or its services.
    pub fn is_callers_fault(&self) -> bool {
        match self {
            Self::Embed(_) | Self::Database { .. } | Self::Archive(_) | Self::TooSlow | Self::Interrupted { .. } => {
                false
            }
            Self::Extract { source, .. } => source.is_the_files(),
            _ => true,
        }
    }
}

impl From<KnowledgeError> for IngestError {
    fn from(error: KnowledgeError) -> Self {
        match error {
            KnowledgeError::Database { source } => Self::Database { source },
            KnowledgeError::Embed(source) => Self::Embed(source),
            other => Self::Interrupted { reason: other.to_string() },
        }
    }
}

/// One passage before it has a vector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Unit {
    /// Path of headings above the text, joined by ` > `.
    pub heading: String,
    pub text: String,
    pub question: Option<String>,
    pub labels: Vec<String>,
    pub language: Option<String>,
}

/// A document after reading.
#[derive(Debug, Clone)]
pub(super) struct Parsed {
    pub format: Format,
    pub title: String,
    pub units: Vec<Unit>,
    /// What was taken out of all of it.
    pub originals: Originals,
}

/// What can be said of a document before it is read: its format. Refuses names, sizes and formats that are not taken.
pub(super) fn check(document: &NewDocument) -> Result<Format, IngestError> {
    check_names(document)?;
    let source = document.source.as_str();
    let known = document.format.or_else(|| format_from_name(source));
    let format = known.ok_or_else(|| IngestError::UnknownFormat { source_name: source.to_owned() })?;
    let (found, max) = (document.bytes.len(), if format.is_text() { DOCUMENT_BYTES_MAX } else { FILE_BYTES_MAX });
    if found > max {
        return Err(IngestError::TooLarge { source_name: source.to_owned(), found, max });
    }
    if format.is_text() {
        decode(source, &document.bytes)?;
    } else if document.bytes.is_empty() {
        return Err(IngestError::Empty { source_name: source.to_owned() });
    }
    Ok(format)
}

/// Takes personal data out of a document, then cuts it into passages. `extracted` is there for formats that need extraction. Takes time in proportion to the
/// document's size: run it off the async threads.
pub(super) fn parse(
    document: &NewDocument,
    format: Format,
    extracted: Option<Extracted>,
    passage_characters: usize,
    mut redaction: Redaction<'_>,
) -> Result<Parsed, IngestError> {
    let source = document.source.as_str();
    let (units, heading) = match (format, extracted) {
        (Format::Xlsx, Some(book)) => {
            let units = match faq::from_tables(source, &book.markdown)? {
                Some(units) => redacted(units, &mut redaction),
                None => chunk::markdown(&redaction.text(&book.markdown), passage_characters),
            };
            (units, book.title)
        }
        (_, Some(Extracted { markdown, title, .. })) => {
            let markdown = redaction.text(&markdown);
            let heading = title.or_else(|| chunk::first_heading(&markdown));
            (chunk::markdown(&markdown, passage_characters), heading)
        }
        (Format::CsvFaq, None) => {
            (redacted(faq::read(source, decode(source, &document.bytes)?)?, &mut redaction), None)
        }
        (Format::Markdown, None) => {
            let text = redaction.text(decode(source, &document.bytes)?);
            (chunk::markdown(&text, passage_characters), chunk::first_heading(&text))
        }
        (_, None) => (chunk::text(&redaction.text(decode(source, &document.bytes)?), passage_characters), None),
    };
    if units.is_empty() {
        return Err(IngestError::Empty { source_name: source.to_owned() });
    }
    if units.len() > PASSAGES_PER_DOCUMENT_MAX {
        return Err(IngestError::TooManyPassages { source_name: source.to_owned(), found: units.len() });
    }
    let given = document.title.as_deref().map(str::trim).filter(|title| !title.is_empty()).map(str::to_owned);
    let title = redaction.text(&given.or(heading).unwrap_or_else(|| title_from_source(source)));
    let title = title.chars().take(NAME_CHARACTERS_MAX).collect();
    Ok(Parsed { format, title, units, originals: redaction.into_originals() })
}

/// Entries of a FAQ: the answer is read in the light of its question.
fn redacted(mut units: Vec<Unit>, redaction: &mut Redaction<'_>) -> Vec<Unit> {
    for unit in &mut units {
        let question = unit.question.clone().unwrap_or_default();
        unit.text = redaction.text_beside(&unit.text, &question);
        unit.question = unit.question.as_deref().map(|question| redaction.text_beside(question, ""));
    }
    units
}

fn check_names(document: &NewDocument) -> Result<(), IngestError> {
    let named = [("source", Some(document.source.as_str())), ("title", document.title.as_deref())];
    let labels = document.labels.iter().map(|label| ("label", Some(label.as_str())));
    for (field, value) in named.into_iter().chain(labels) {
        let Some(value) = value else { continue };
        let found = value.trim().chars().count();
        let empty_title = field == "title" && found == 0;
        if (found == 0 && !empty_title) || value.chars().count() > NAME_CHARACTERS_MAX || value.contains('\0') {
            return Err(IngestError::Name { field, found });
        }
    }
    if document.labels.len() > LABELS_MAX {
        return Err(IngestError::Labels { found: document.labels.len() });
    }
    match (document.valid_from, document.valid_until) {
        (Some(from), Some(until)) if until <= from => Err(IngestError::Validity { from, until }),
        _ => Ok(()),
    }
}

/// The text of `bytes`, without a byte order mark.
fn decode<'a>(source: &str, bytes: &'a [u8]) -> Result<&'a str, IngestError> {
    let line_of = |offset: usize| 1 + bytes.iter().take(offset).filter(|byte| **byte == b'\n').count();
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let offset = error.valid_up_to();
        let byte = bytes.get(offset).copied().unwrap_or_default();
        IngestError::NotUtf8 { source_name: source.to_owned(), byte, offset, line: line_of(offset) }
    })?;
    if let Some(offset) = text.find('\0') {
        return Err(IngestError::Nul { source_name: source.to_owned(), offset, line: line_of(offset) });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(IngestError::Empty { source_name: source.to_owned() });
    }
    Ok(text)
}

/// The file name without folders, for documents that carry no title.
fn title_from_source(source: &str) -> String {
    let name = source.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or(source);
    match name.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() && format_from_name(name).is_some() => stem.to_owned(),
        _ => name.to_owned(),
    }
}
