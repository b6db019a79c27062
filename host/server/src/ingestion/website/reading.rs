//! What a page says of itself: its format, character set, and whether it wishes to be read.

use super::AGENT;
use super::fetch::{self, Page};
use crate::knowledge::{Format, format_from_name};

/// Where a page's own character set and wish not to be indexed are looked for.
const HEAD_BYTES: usize = 8 * 1_024;

/// By what the server says, else by the address.
pub(super) fn format_of(page: &Page) -> Option<Format> {
    match page.content_type.as_str() {
        "text/html" | "application/xhtml+xml" => Some(Format::Html),
        "text/markdown" => Some(Format::Markdown),
        "text/plain" => format_from_name(page.url.path()).filter(|f| f.is_text()).or(Some(Format::Text)),
        "application/pdf" => Some(Format::Pdf),
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => Some(Format::Docx),
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" => Some(Format::Xlsx),
        "application/vnd.openxmlformats-officedocument.presentationml.presentation" => Some(Format::Pptx),
        "" | "application/octet-stream" | "binary/octet-stream" => format_from_name(page.url.path()),
        _ => None,
    }
}

/// Text as UTF-8, by the character set that the server or the page names; files as they are.
pub(super) fn decoded(page: &Page, format: Format) -> Vec<u8> {
    if !format.is_text() {
        return page.bytes.clone();
    }
    let named = page.charset.clone().or_else(|| charset_in(&page.bytes));
    let encoding = named.and_then(|name| encoding_rs::Encoding::for_label(name.as_bytes()));
    let encoding = encoding.unwrap_or(encoding_rs::UTF_8);
    let (text, _, _) = encoding.decode(&page.bytes);
    // What stands for unreadable bytes is kept; a NUL has no place in any page.
    text.replace('\0', "").into_bytes()
}

fn head_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..HEAD_BYTES).unwrap_or(bytes)).to_ascii_lowercase()
}

fn charset_in(bytes: &[u8]) -> Option<String> {
    let head = head_of(bytes);
    let at = head.find("charset=")? + "charset=".len();
    let name = head.get(at..)?.trim_start_matches(['"', '\'']);
    Some(name.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect())
}

/// `<meta name="robots" content="noindex">`, in any order and notation.
pub(super) fn wishes_no_index(page: &Page) -> bool {
    let head = head_of(&page.bytes);
    head.split("<meta").skip(1).any(|rest| {
        let tag = rest.split('>').next().unwrap_or_default();
        let names_us = tag.contains("robots") || tag.contains(AGENT);
        names_us && tag.split(['"', '\'', ',', ' ', '=']).any(fetch::is_noindex)
    })
}
