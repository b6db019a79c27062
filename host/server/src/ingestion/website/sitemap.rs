//! Sitemaps (sitemaps.org): lists of pages, lists of lists, plain text lists; each may be packed by gzip.

use std::io::Read;

use quick_xml::Reader;
use quick_xml::events::Event;

/// Addresses in one sitemap, by the protocol.
pub const URLS_MAX: usize = 50_000;
/// Bytes of one sitemap when unpacked, by the protocol.
pub const SITEMAP_BYTES_MAX: usize = 50 << 20;
/// Longest address, by the protocol.
const URL_BYTES_MAX: usize = 2_048;
/// Deeper nesting than any sitemap has.
const DEPTH_MAX: usize = 64;

/// What a sitemap lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sitemap {
    pub pages: Vec<String>,
    pub sitemaps: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SitemapError {
    #[error("it is packed wrongly, or unpacks to more than {SITEMAP_BYTES_MAX} bytes")]
    Packed,
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it is neither a sitemap's XML nor a list of addresses")]
    NoSitemap,
    #[error("its XML is broken near byte {at}")]
    Broken { at: u64 },
    #[error("it lists more than {URLS_MAX} addresses")]
    TooLong,
}

/// Reads a sitemap of any of its forms.
pub fn read(bytes: &[u8]) -> Result<Sitemap, SitemapError> {
    let unpacked;
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        unpacked = unpack(bytes)?;
        unpacked.as_slice()
    } else {
        bytes
    };
    let text = std::str::from_utf8(bytes).map_err(|_| SitemapError::NotUtf8)?;
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with('<') { xml(text) } else { lines(text) }
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, SitemapError> {
    let mut unpacked = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(bytes).take(SITEMAP_BYTES_MAX as u64 + 1);
    reader.read_to_end(&mut unpacked).map_err(|_| SitemapError::Packed)?;
    if unpacked.len() > SITEMAP_BYTES_MAX { Err(SitemapError::Packed) } else { Ok(unpacked) }
}

fn lines(text: &str) -> Result<Sitemap, SitemapError> {
    let mut sitemap = Sitemap::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !line.starts_with("http://") && !line.starts_with("https://") {
            return Err(SitemapError::NoSitemap);
        }
        push(&mut sitemap.pages, line)?;
    }
    if sitemap.pages.is_empty() { Err(SitemapError::NoSitemap) } else { Ok(sitemap) }
}

/// No entity but XML's own five is resolved, so nothing in the file can grow or read another one.
fn xml(text: &str) -> Result<Sitemap, SitemapError> {
    let mut reader = Reader::from_str(text);
    let mut sitemap = Sitemap::default();
    let mut path: Vec<String> = Vec::new();
    let mut location = String::new();
    let mut is_sitemap = false;
    loop {
        let at = reader.buffer_position();
        let broken = move || SitemapError::Broken { at };
        let in_location = path.last().is_some_and(|name| name == "loc");
        match reader.read_event().map_err(|_| broken())? {
            Event::Start(start) => {
                if path.len() >= DEPTH_MAX {
                    return Err(broken());
                }
                path.push(start.local_name().as_ref().to_ascii_lowercase());
                is_sitemap |= path.len() == 1 && path.iter().any(|name| name == "urlset" || name == "sitemapindex");
            }
            Event::End(_) => {
                let address = location.trim();
                let names: Vec<&str> = path.iter().map(String::as_str).collect();
                match names.as_slice() {
                    ["urlset", "url", "loc"] if !address.is_empty() => push(&mut sitemap.pages, address)?,
                    ["sitemapindex", "sitemap", "loc"] if !address.is_empty() => push(&mut sitemap.sitemaps, address)?,
                    _ => {}
                }
                location.clear();
                path.pop();
            }
            Event::Text(text) if in_location => append(&mut location, &text),
            Event::CData(text) if in_location => append(&mut location, &text),
            Event::GeneralRef(reference) if in_location => {
                let resolved = match reference.resolve_char_ref() {
                    Ok(Some(character)) => character.to_string(),
                    _ => quick_xml::escape::resolve_predefined_entity(&reference).ok_or_else(broken)?.to_owned(),
                };
                append(&mut location, &resolved);
            }
            Event::Eof => break,
            _ => {}
        }
    }
    if is_sitemap && path.is_empty() { Ok(sitemap) } else { Err(SitemapError::NoSitemap) }
}

fn append(location: &mut String, text: &str) {
    if location.len() + text.len() <= 2 * URL_BYTES_MAX {
        location.push_str(text);
    }
}

/// Longer addresses than the protocol has are passed over.
fn push(list: &mut Vec<String>, address: &str) -> Result<(), SitemapError> {
    if list.len() >= URLS_MAX {
        return Err(SitemapError::TooLong);
    }
    if address.len() <= URL_BYTES_MAX {
        list.push(address.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const URLSET: &str = "<?xml version=\"1.0\"?>\n<urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\" \
        xmlns:image=\"x\">\n<url><loc> https://shop.example/?a=1&amp;b=2 </loc><lastmod>2026-01-01</lastmod>\
        <image:image><image:loc>https://shop.example/x.jpg</image:loc></image:image></url>\
        <url><loc><![CDATA[https://shop.example/b]]></loc></url><url><loc></loc></url></urlset>";

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_form_is_read() {
        let pages = vec!["https://shop.example/?a=1&b=2".to_owned(), "https://shop.example/b".to_owned()];
        let expected = Sitemap { pages, sitemaps: Vec::new() };
        assert_eq!(read(URLSET.as_bytes()), Ok(expected.clone()));
        assert_eq!(read(&packed(URLSET.as_bytes())), Ok(expected.clone()));
        assert_eq!(read("\u{feff}https://shop.example/?a=1&b=2\n\nhttps://shop.example/b\n".as_bytes()), Ok(expected));
        let index = "<sitemapindex><sitemap><loc>https://shop.example/s.xml.gz</loc></sitemap></sitemapindex>";
        assert_eq!(read(index.as_bytes()).unwrap().sitemaps, ["https://shop.example/s.xml.gz"]);
    }

    #[test]
    fn what_is_no_sitemap_says_so() {
        for (bytes, error) in [
            (b"<html><body>404</body></html>".to_vec(), SitemapError::NoSitemap),
            (b"<urlset><url><loc>https://a.example/</loc></url>".to_vec(), SitemapError::NoSitemap),
            (b"not found".to_vec(), SitemapError::NoSitemap),
            (b"".to_vec(), SitemapError::NoSitemap),
            (vec![0xff, 0xfe, 0x00], SitemapError::NotUtf8),
            (vec![0x1f, 0x8b, 0x08, 0x00, 0x00], SitemapError::Packed),
            (packed(&vec![b' '; SITEMAP_BYTES_MAX + 1]), SitemapError::Packed),
        ] {
            assert_eq!(read(&bytes), Err(error));
        }
        let entities = "<!DOCTYPE x [<!ENTITY a \"b\">]><urlset><url><loc>https://a.example/&a;</loc></url></urlset>";
        assert!(matches!(read(entities.as_bytes()), Err(SitemapError::Broken { .. })));
        let deep = "<a>".repeat(100_000);
        assert!(matches!(read(deep.as_bytes()), Err(SitemapError::Broken { .. })));
        let long = "<url><loc>https://a.example/</loc></url>".repeat(URLS_MAX + 1);
        assert_eq!(read(format!("<urlset>{long}</urlset>").as_bytes()), Err(SitemapError::TooLong));
    }
}
