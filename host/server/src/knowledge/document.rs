//! A document on its way in: its format, its limits, its decoding, and everything that can be wrong with it.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{EmbedError, KnowledgeError, chunk, faq};

/// Largest document that is taken, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 8 * 1024 * 1024;
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
}

impl Format {
    /// As stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Markdown => "markdown",
            Self::Html => "html",
            Self::CsvFaq => "csv-faq",
        }
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
        [Self::Text, Self::Markdown, Self::Html, Self::CsvFaq]
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
        "the format of \"{source_name}\" is not known: expected a name that ends in .txt, .md, .html or .csv, or a \
         format of text, markdown, html, csv-faq"
    )]
    UnknownFormat { source_name: String },
    #[error("\"{source_name}\" is empty: expected text")]
    Empty { source_name: String },
    #[error("\"{source_name}\" has {found} bytes, at most {DOCUMENT_BYTES_MAX} are taken: split it")]
    TooLarge { source_name: String, found: usize },
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
    #[error("the HTML of \"{source_name}\" cannot be read: {reason}")]
    Html { source_name: String, reason: String },
    #[error("the passages cannot be embedded: {0}")]
    Embed(#[from] EmbedError),
    #[error("the document cannot be stored: {source}")]
    Database {
        #[from]
        source: sqlx::Error,
    },
    #[error("reading the document stopped unexpectedly: {reason}")]
    Interrupted { reason: String },
}

impl IngestError {
    /// Whether the uploader can mend it (a 4xx answer), as opposed to the host or its services.
    pub fn is_callers_fault(&self) -> bool {
        !matches!(self, Self::Embed(_) | Self::Database { .. } | Self::Interrupted { .. })
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
}

/// Reads a document into passages. Takes time in proportion to its size: run it off the async threads.
pub(super) fn parse(document: &NewDocument, passage_characters: usize) -> Result<Parsed, IngestError> {
    check_names(document)?;
    let source = document.source.as_str();
    let format = match document.format {
        Some(format) => format,
        None => {
            format_from_name(source).ok_or_else(|| IngestError::UnknownFormat { source_name: source.to_owned() })?
        }
    };
    let text = decode(source, &document.bytes)?;
    let (units, heading) = match format {
        Format::CsvFaq => (faq::read(source, text)?, None),
        Format::Text => (chunk::text(text, passage_characters), None),
        Format::Markdown => (chunk::markdown(text, passage_characters), chunk::first_heading(text)),
        Format::Html => {
            let page = html(source, text)?;
            let heading = page.title.or_else(|| chunk::first_heading(&page.markdown));
            (chunk::markdown(&page.markdown, passage_characters), heading)
        }
    };
    if units.is_empty() {
        return Err(IngestError::Empty { source_name: source.to_owned() });
    }
    if units.len() > PASSAGES_PER_DOCUMENT_MAX {
        return Err(IngestError::TooManyPassages { source_name: source.to_owned(), found: units.len() });
    }
    let given = document.title.as_deref().map(str::trim).filter(|title| !title.is_empty()).map(str::to_owned);
    let title = given.or(heading).unwrap_or_else(|| title_from_source(source));
    Ok(Parsed { format, title: title.chars().take(NAME_CHARACTERS_MAX).collect(), units })
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
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(IngestError::TooLarge { source_name: source.to_owned(), found: bytes.len() });
    }
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

struct HtmlPage {
    markdown: String,
    title: Option<String>,
}

/// Elements that carry no knowledge of their own.
const HTML_SKIPPED: &[&str] =
    &["script", "style", "noscript", "template", "svg", "iframe", "head", "nav", "form", "button"];

fn html(source: &str, text: &str) -> Result<HtmlPage, IngestError> {
    let converter = htmd::HtmlToMarkdown::builder().skip_tags(HTML_SKIPPED.to_vec()).build();
    let markdown = converter
        .convert(text)
        .map_err(|error| IngestError::Html { source_name: source.to_owned(), reason: error.to_string() })?;
    // The head is skipped, so its title is read on its own, through the same parser (entities, odd nesting).
    let title = html_title(text)
        .and_then(|inner| htmd::HtmlToMarkdown::new().convert(inner).ok())
        .map(|title| title.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|title| !title.is_empty());
    Ok(HtmlPage { markdown, title })
}

fn html_title(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let open = lower.find("<title")?;
    let start = open + lower.get(open..)?.find('>')? + 1;
    let end = start + lower.get(start..)?.find("</title")?;
    text.get(start..end)
}

/// The file name without folders, for documents that carry no title.
fn title_from_source(source: &str) -> String {
    let name = source.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or(source);
    match name.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() && format_from_name(name).is_some() => stem.to_owned(),
        _ => name.to_owned(),
    }
}
