//! What each format's library gives, as Markdown. Runs in the child only.

use pdf_extract::{Document, PlainTextOutput, output_doc_page};
use undoc::render::{RenderOptions, to_markdown};
use undoc::{FormatType, detect_format_from_bytes, parse_bytes};

use super::{Extracted, Unreadable};
use crate::knowledge::document::Format;

/// Elements of HTML that carry no knowledge of their own.
const HTML_SKIPPED: &[&str] =
    &["script", "style", "noscript", "template", "svg", "iframe", "head", "nav", "form", "button"];
/// Longest line of a PDF that may be a heading, in characters.
const HEADING_CHARACTERS_MAX: usize = 90;

pub(super) fn extract(format: Format, bytes: &[u8], pages_max: u32) -> Result<Extracted, Unreadable> {
    match format {
        Format::Pdf => pdf(bytes, pages_max),
        Format::Docx => office(bytes, FormatType::Docx, "Word"),
        Format::Xlsx => office(bytes, FormatType::Xlsx, "Excel"),
        Format::Pptx => office(bytes, FormatType::Pptx, "PowerPoint"),
        Format::Html => html(bytes),
        Format::Text | Format::Markdown | Format::CsvFaq => Err(damaged("it is text already")),
    }
}

/// Libraries' messages may quote the document, so reasons are our own words.
fn damaged(reason: &str) -> Unreadable {
    Unreadable::Damaged { reason: reason.to_owned() }
}

fn pdf(bytes: &[u8], pages_max: u32) -> Result<Extracted, Unreadable> {
    if !bytes.iter().take(1_024).collect::<Vec<_>>().windows(5).any(|five| five.iter().map(|b| **b).eq(*b"%PDF-")) {
        return Err(damaged("a PDF begins with %PDF-"));
    }
    let locked = contains(bytes, b"/Encrypt");
    let unreadable = |reason| if locked { Unreadable::Encrypted } else { damaged(reason) };
    let mut document = Document::load_mem(bytes).map_err(|_| unreadable("its table of objects cannot be read"))?;
    if document.is_encrypted() {
        // Many files are locked against changes only and open without a password.
        document.decrypt("").map_err(|_| Unreadable::Encrypted)?;
    }
    let pages = u32::try_from(document.get_pages().len()).unwrap_or(u32::MAX);
    if pages > pages_max {
        return Err(Unreadable::TooManyPages { pages, max: pages_max });
    }
    let mut extracted = Extracted { pages, title: pdf_title(&document), ..Extracted::default() };
    let mut failed = 0;
    for page in 1..=pages {
        let mut text = String::new();
        failed += u32::from(output_doc_page(&document, &mut PlainTextOutput::new(&mut text), page).is_err());
        if text.chars().any(char::is_alphanumeric) {
            extracted.markdown.push_str(&paragraphs(&text));
        } else {
            extracted.pages_without_text += 1;
        }
    }
    match extracted.pages_without_text == pages {
        true if pages == 0 || failed == pages => Err(unreadable("none of its pages can be read")),
        true => Err(Unreadable::Scanned { pages }),
        false => Ok(extracted),
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// The title in the document's information, if it is one in plain letters.
fn pdf_title(document: &Document) -> Option<String> {
    let information = document.trailer.get(b"Info").ok()?.as_reference().ok()?;
    let title = document.get_dictionary(information).ok()?.get(b"Title").ok()?.as_str().ok()?;
    let title = match title {
        [0xfe, 0xff, utf16 @ ..] => {
            let units = utf16.chunks_exact(2).map(|two| u16::from_be_bytes(two.try_into().unwrap_or_default()));
            String::from_utf16_lossy(&units.collect::<Vec<_>>())
        }
        bytes => String::from_utf8_lossy(bytes).into_owned(),
    };
    let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
    (title.chars().any(char::is_alphabetic) && !title.contains(char::REPLACEMENT_CHARACTER)).then_some(title)
}

/// The lines of a page as Markdown. Lines of one paragraph are joined; a short line that stands alone above others and does
/// not end like a sentence is taken for a heading, which is all that a PDF tells of its structure.
fn paragraphs(page: &str) -> String {
    let mut markdown = String::with_capacity(page.len() + 64);
    let blocks: Vec<Vec<&str>> = page
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .split(|line| line.is_empty())
        .filter(|block| !block.is_empty())
        .map(<[&str]>::to_vec)
        .collect();
    for (at, block) in blocks.iter().enumerate() {
        let alone = if let [line] = block.as_slice() { Some(*line) } else { None };
        let above_others = at + 1 < blocks.len();
        match alone.filter(|line| above_others && is_heading(line)) {
            Some(line) => markdown.push_str(&format!("## {line}")),
            None => markdown.push_str(&joined(block)),
        }
        markdown.push_str("\n\n");
    }
    markdown
}

fn is_heading(line: &str) -> bool {
    let short = line.chars().count() <= HEADING_CHARACTERS_MAX;
    let starts = line.chars().next().is_some_and(|c| c.is_uppercase() || c.is_numeric());
    let letters = line.chars().filter(|c| c.is_alphabetic()).count();
    short && starts && letters >= 3 && !line.ends_with(['.', ',', ';', ':', '!', '-'])
}

/// Lines joined to a paragraph; a word that was broken at the end of a line is whole again. Marks that Markdown would read
/// at the beginning of a line lose their meaning.
fn joined(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        if text.ends_with('-') && text.chars().rev().nth(1).is_some_and(char::is_alphabetic) {
            if line.chars().next().is_some_and(char::is_lowercase) {
                text.pop();
            }
        } else if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(line);
    }
    if text.starts_with(['#', '>', '|']) { format!("\\{text}") } else { text }
}

fn office(bytes: &[u8], expected: FormatType, program: &str) -> Result<Extracted, Unreadable> {
    // What Office encrypts is no archive but a compound file, as its formats before 2007 are.
    if bytes.starts_with(&[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1]) {
        // The stream's name is there in UTF-16.
        let name: Vec<u8> = "EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes).collect();
        return Err(match contains(bytes, &name) {
            true => Unreadable::Encrypted,
            false => damaged("it is in the format of Office before 2007: save it in the present one and try again"),
        });
    }
    let found = detect_format_from_bytes(bytes).map_err(|_| damaged("it is no Office file"))?;
    if found != expected {
        return Err(damaged(&format!("it is no {program} file")));
    }
    let document = parse_bytes(bytes).map_err(|error| match error {
        undoc::Error::Encrypted => Unreadable::Encrypted,
        _ => damaged("its parts cannot be read"),
    })?;
    let markdown = to_markdown(&document, &RenderOptions::default());
    let markdown = markdown.map_err(|_| damaged("its text cannot be put together"))?;
    let title = document.metadata.title.filter(|title| title.chars().any(char::is_alphabetic));
    Ok(Extracted { markdown, title, ..Extracted::default() })
}

fn html(bytes: &[u8]) -> Result<Extracted, Unreadable> {
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not UTF-8"))?;
    let converter = htmd::HtmlToMarkdown::builder().skip_tags(HTML_SKIPPED.to_vec()).build();
    let markdown = converter.convert(text).map_err(|_| damaged("its HTML cannot be read"))?;
    // The head is skipped, so its title is read on its own, through the same parser (entities, odd nesting).
    let title = html_title(text)
        .and_then(|inner| htmd::HtmlToMarkdown::new().convert(inner).ok())
        .map(|title| title.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|title| !title.is_empty());
    Ok(Extracted { markdown, title, ..Extracted::default() })
}

fn html_title(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let open = lower.find("<title")?;
    let start = open + lower.get(open..)?.find('>')? + 1;
    let end = start + lower.get(start..)?.find("</title")?;
    text.get(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_page_become_headings_and_paragraphs() {
        let page =
            "3.2 Shipping\n\nWe ship to Austria and Ger-\nmany within three\nworking days.\n\n# not a heading\n\n12\n";
        assert_eq!(
            paragraphs(page),
            "## 3.2 Shipping\n\nWe ship to Austria and Germany within three working days.\n\n\\# not a heading\n\n12\n\n"
        );
    }

    #[test]
    fn what_is_not_the_format_is_named() {
        for (format, bytes, words) in [
            (Format::Pdf, b"hello".as_slice(), "begins with %PDF-"),
            (Format::Pdf, b"%PDF-1.7\ngarbage", "table of objects"),
            (Format::Docx, b"PK\x03\x04 not really", "no Office file"),
            (Format::Docx, &[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1, 0, 0], "before 2007"),
            (Format::Html, &[0xff], "UTF-8"),
        ] {
            let message = extract(format, bytes, 10).unwrap_err().to_string();
            assert!(message.contains(words), "{format}: {message}");
        }
    }
}
