//! Addresses in a text: links with and without a scheme, markdown links, e-mail addresses, and the tricks that hide
//! where a link leads.
//!
//! A browser takes the host from between `//` (and a possible `user@`) and the next `/`, `?`, `#`, and treats `\` as `/`
//! (WHATWG URL standard); mail programs and chat windows also make a link of a bare `example.com`. Where readings differ,
//! [`Trick`] says so, and a caller with an allow-list should refuse the link.

use super::fold;

/// No text is searched for more addresses than this.
pub const LINKS_MAX: usize = 64;

/// What kind of address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A web address.
    Web,
    /// An e-mail address.
    Email,
    /// A scheme that runs code or carries its own content (`javascript:`, `data:`, `vbscript:`, `file:`).
    Dangerous,
}

/// Why a link may lead elsewhere than it seems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trick {
    /// `https://bank.example@evil.example`: what stands before `@` is no host.
    UserInfo,
    /// The host has letters outside ASCII, or is punycode (`xn--`).
    International,
    /// The host is a number: an IP address in some notation.
    Number,
    /// Invisible characters, `[.]`, `(dot)`, or full-width dots in the host.
    Disguised,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Byte range of the whole address in the text; of a markdown link, with its brackets.
    pub start: usize,
    pub end: usize,
    pub kind: Kind,
    /// The host in lower case, without `www.` and the port; of an e-mail address, its domain.
    pub host: String,
    /// The path with query, as written; empty when there is none.
    pub path: String,
    pub trick: Option<Trick>,
    /// The text of a markdown link.
    pub label: Option<String>,
    /// Byte range of the address itself.
    pub address: (usize, usize),
}

/// All addresses of `text` in order, at most [`LINKS_MAX`].
#[must_use]
pub fn find(text: &str) -> Vec<Link> {
    let mut links = Vec::new();
    // Every address contains a dot, a colon or a disguise of a dot; most texts have few.
    if !text.contains(['.', ':', '。', '．', '｡']) && !text.contains("dot") {
        return links;
    }
    let mut at = 0;
    while at < text.len() && links.len() < LINKS_MAX {
        let Some(from) = text[at..].find(|c: char| !is_outside(c)) else { break };
        let start = at + from;
        let end = start + text[start..].find(is_outside).unwrap_or(text.len() - start);
        let chunk = (start, end);
        at = end;
        read_chunk(text, chunk, &mut links, &mut at);
    }
    attach_labels(text, &mut links);
    links
}

/// Characters that never belong to an address.
fn is_outside(c: char) -> bool {
    c.is_whitespace() || matches!(c, '<' | '>' | '"' | '“' | '”' | '„' | '«' | '»' | '|' | ',' | ';' | '`' | '{' | '}')
}

fn read_chunk(text: &str, (start, end): (usize, usize), links: &mut Vec<Link>, at: &mut usize) {
    let whole = &text[start..end];
    // Most words: no mark that an address could have, and no `dot` behind.
    let plain = whole.bytes().all(|byte| byte.is_ascii() && !matches!(byte, b'.' | b':' | b'@' | b'(' | b'[' | b'/'));
    let before_dot = || matches!(text[end..].trim_start().as_bytes(), [b'd' | b'D' | b'(' | b'[', ..]);
    if plain && !before_dot() {
        return;
    }
    // `[label](address)`, `(address)`: begin behind the last bracket that is not part of a disguise.
    let skip = whole.rfind("](").map_or_else(|| whole.len() - whole.trim_start_matches(is_opening).len(), |at| at + 2);
    let (start, chunk) = (start + skip, &whole[skip..]);
    let chunk = trim_end(chunk);
    if chunk.is_empty() {
        return;
    }
    let link = if let Some((scheme, rest)) = split_scheme(chunk) {
        with_scheme(scheme, rest)
    } else if let Some(found) = dangerous(chunk) {
        Some(found)
    } else if let Some(found) = email(chunk) {
        Some(found)
    } else {
        bare(text, start, chunk, at)
    };
    if let Some(mut link) = link {
        link.start = start;
        link.end = if link.end == 0 { start + chunk.len() } else { link.end };
        link.address = (link.start, link.end);
        *at = (*at).max(link.end);
        links.push(link);
    }
}

fn is_opening(c: char) -> bool {
    matches!(c, '(' | '[' | '\'' | '*' | '_' | '‘' | '¿' | '¡' | '!' | '~')
}

/// Without the punctuation of the sentence around it.
fn trim_end(chunk: &str) -> &str {
    let mut chunk = chunk;
    loop {
        let shorter = chunk.trim_end_matches(['.', '!', '?', ':', '\'', '*', '’', '…', '_', '~']);
        let shorter = match shorter.chars().last() {
            Some(')') if shorter.matches(')').count() > shorter.matches('(').count() => &shorter[..shorter.len() - 1],
            Some(']') if shorter.matches(']').count() > shorter.matches('[').count() => &shorter[..shorter.len() - 1],
            _ => shorter,
        };
        if shorter.len() == chunk.len() {
            return chunk;
        }
        chunk = shorter;
    }
}

/// `https://…`, also with backslashes and with letters of other alphabets in the scheme.
fn split_scheme(chunk: &str) -> Option<(&str, &str)> {
    let colon = chunk.find(':')?;
    let (scheme, rest) = (&chunk[..colon], &chunk[colon + 1..]);
    let slashes = rest.len() - rest.trim_start_matches(['/', '\\']).len();
    let word = !scheme.is_empty() && scheme.len() <= 12 && scheme.chars().all(|c| c.is_alphanumeric() || c == '+');
    let web = matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https" | "hxxp" | "hxxps" | "ftp");
    (word && (slashes >= 2 || web && slashes == 1)).then(|| (scheme, &rest[slashes..]))
}

fn with_scheme(scheme: &str, rest: &str) -> Option<Link> {
    let authority_end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let backslash = rest[authority_end..].starts_with('\\');
    let authority = &rest[..authority_end];
    if authority.is_empty() {
        return None;
    }
    // With a backslash, readings differ: what follows may be taken for the host.
    let user_info = authority.contains('@') || backslash && rest.contains('@');
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let mut link = web(host, &rest[authority_end..]);
    if user_info || backslash {
        link.trick = Some(Trick::UserInfo);
    }
    if matches!(scheme.to_ascii_lowercase().as_str(), "javascript" | "data" | "vbscript" | "file") {
        link.kind = Kind::Dangerous;
    }
    Some(link)
}

fn web(host: &str, path: &str) -> Link {
    let (host, disguised) = plain_host(host);
    let bracketed = host.starts_with('[');
    let host = if bracketed { host.as_str() } else { host.split(':').next().unwrap_or("") };
    let host = host.trim_end_matches('.').to_lowercase();
    let host = host.strip_prefix("www.").unwrap_or(&host).to_owned();
    let trick = if bracketed || is_number(&host) {
        Some(Trick::Number)
    } else if disguised || host.contains('%') {
        Some(Trick::Disguised)
    } else if !host.is_ascii() || host.split('.').any(|label| label.starts_with("xn--")) {
        Some(Trick::International)
    } else {
        None
    };
    Link { start: 0, end: 0, kind: Kind::Web, host, path: path.to_owned(), trick, label: None, address: (0, 0) }
}

/// The host with its disguises removed, and whether there were any.
fn plain_host(host: &str) -> (String, bool) {
    let mut plain: String = host
        .chars()
        .filter(|c| !fold::is_invisible(*c))
        .map(|c| if matches!(c, '。' | '．' | '｡' | '․') { '.' } else { c })
        .collect();
    for dot in ["[.]", "(.)", "[dot]", "(dot)", "[DOT]", "(DOT)"] {
        if plain.contains(dot) {
            plain = plain.replace(dot, ".");
        }
    }
    let changed = plain != host;
    (plain, changed)
}

/// `192.168.0.1`, `3232235521`, `0x7f.1`.
fn is_number(host: &str) -> bool {
    !host.is_empty()
        && host.split('.').all(|part| {
            let hex = part.strip_prefix("0x").is_some_and(|hex| hex.chars().all(|c| c.is_ascii_hexdigit()));
            hex || !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
        })
}

fn dangerous(chunk: &str) -> Option<Link> {
    let lower = chunk.get(..chunk.floor_char_boundary(12))?.to_ascii_lowercase();
    ["javascript:", "vbscript:", "data:text", "data:image"]
        .iter()
        .any(|scheme| lower.starts_with(scheme))
        .then(|| Link { kind: Kind::Dangerous, trick: Some(Trick::Disguised), host: String::new(), ..web("", "") })
}

fn email(chunk: &str) -> Option<Link> {
    let chunk = chunk.strip_prefix("mailto:").unwrap_or(chunk);
    let (user, domain) = chunk.split_once('@')?;
    let domain = domain.split(['?', '/']).next().unwrap_or(domain);
    let user_fits = !user.is_empty() && user.chars().all(|c| c.is_alphanumeric() || "._%+-'".contains(c));
    // What stands behind an `@` is a domain, whatever its ending.
    let ending = domain.rsplit_once('.').map_or("", |(_, ending)| ending);
    let domain_fits = has_host_shape(domain) && ending.chars().count() >= 2 && ending.chars().all(char::is_alphabetic);
    (user_fits && (domain_fits || has_known_ending(domain))).then(|| Link { kind: Kind::Email, ..web(domain, "") })
}

/// `example.com/path` without a scheme, also as `example . com` or `example dot com` over several words.
fn bare(text: &str, start: usize, chunk: &str, at: &mut usize) -> Option<Link> {
    let host_end = chunk.find(['/', '?', '#', '\\']).unwrap_or(chunk.len());
    let (host, path) = chunk.split_at(host_end);
    let (plain, _) = plain_host(host);
    let named = plain.split(':').next().unwrap_or("");
    let www =
        named.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("www.")) && named.matches('.').count() > 1;
    let number = is_number(named) && named.split('.').count() == 4 && named.split('.').all(|n| n.parse::<u8>().is_ok());
    if www || number || has_known_ending(named) || (!path.is_empty() && has_host_shape(named) && named.contains('.')) {
        return Some(web(host, path));
    }
    spelled(text, start, chunk, at)
}

/// `example dot com`: three words.
fn spelled(text: &str, start: usize, chunk: &str, at: &mut usize) -> Option<Link> {
    let rest = &text[start + chunk.len()..];
    let after = rest.trim_start();
    let dot = ["dot ", "(dot) ", "[dot] ", "DOT "].iter().find(|dot| after.starts_with(**dot))?;
    let ending = after[dot.len()..].trim_start();
    let length = ending.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(ending.len());
    let tail = &ending[length..];
    let spelled_ending =
        matches!(ending[..length].to_ascii_lowercase().as_str(), "com" | "net" | "org" | "info" | "io");
    if !spelled_ending || !chunk.chars().all(|c| c.is_alphanumeric() || c == '-') {
        return None;
    }
    let end = text.len() - tail.len();
    *at = end;
    let mut link = web(&format!("{chunk}.{}", &ending[..length]), "");
    link.trick = Some(Trick::Disguised);
    link.end = end;
    Some(link)
}

fn has_host_shape(host: &str) -> bool {
    host.split('.').all(|label| {
        !label.is_empty() && label.len() <= 63 && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
    }) && host.chars().any(char::is_alphabetic)
}

/// Whether this is a host name with a known top-level domain, and not the end of one sentence and the beginning of the
/// next (`soon.It`).
fn has_known_ending(host: &str) -> bool {
    let Some((rest, ending)) = host.rsplit_once('.') else { return false };
    // `z.B`, `e.g`, `a.m`: abbreviations
    let name = rest.rsplit('.').next().unwrap_or(rest);
    if !has_host_shape(host) || name.chars().count() < 2 || name.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let capital = ending.starts_with(|c: char| c.is_uppercase()) && !name.chars().all(|c| !c.is_lowercase());
    if capital {
        return false;
    }
    let ending = ending.to_ascii_lowercase();
    ending.starts_with("xn--") || ENDINGS.binary_search(&ending.as_str()).is_ok()
}

/// Markdown links: takes in the brackets around an address and the label before it.
fn attach_labels(text: &str, links: &mut [Link]) {
    for link in links {
        let before = &text[..link.start];
        let closes = text[link.end..].starts_with(')');
        let Some(head) = before.strip_suffix("](").filter(|_| closes) else { continue };
        let Some(open) = head.rfind('[') else { continue };
        let image = head[..open].ends_with('!');
        link.label = Some(head[open + 1..].to_owned());
        link.start = open - usize::from(image);
        link.end += 1;
    }
}

/// Top-level domains that make a bare word with a dot a link: those that shops and swindlers use, sorted.
const ENDINGS: [&str; 237] = [
    "ac", "ad", "ae", "africa", "ag", "ai", "al", "am", "app", "ar", "art", "asia", "at", "au", "az", "ba", "be",
    "beauty", "best", "bet", "bg", "bid", "bio", "biz", "blog", "bo", "br", "buzz", "by", "ca", "cam", "cash",
    "casino", "cat", "cc", "cf", "cfd", "ch", "chat", "cl", "click", "cloud", "club", "cn", "co", "codes", "com",
    "company", "cr", "crypto", "cx", "cy", "cyou", "cz", "day", "de", "deals", "dev", "digital", "direct", "dk", "do",
    "ec", "edu", "ee", "email", "es", "eu", "expert", "fi", "finance", "fit", "fm", "fr", "fun", "fund", "ga", "games",
    "gd", "ge", "gg", "gift", "gl", "global", "gold", "gov", "gq", "gr", "gs", "gt", "gy", "help", "hk", "hn", "host",
    "hr", "hu", "icu", "id", "ie", "il", "in", "inc", "info", "ink", "int", "io", "ir", "is", "it", "jp", "ke", "kr",
    "la", "land", "lat", "li", "life", "link", "live", "lk", "loan", "lol", "lt", "lu", "lv", "ly", "ma", "market",
    "mc", "md", "me", "media", "mk", "ml", "mobi", "mom", "money", "monster", "mx", "my", "name", "net", "network",
    "news", "ng", "ni", "nl", "no", "nu", "nz", "one", "online", "org", "page", "pe", "ph", "pk", "pl", "plus", "pm",
    "pro", "promo", "ps", "pt", "pw", "py", "qa", "quest", "re", "rest", "ro", "rocks", "rs", "ru", "run", "sale",
    "sbs", "sc", "se", "services", "sg", "sh", "shop", "si", "site", "sk", "skin", "so", "social", "software", "space",
    "st", "store", "su", "sv", "swiss", "team", "tech", "tel", "th", "tk", "tn", "to", "today", "tokyo", "tools",
    "top", "tr", "trade", "tt", "tv", "tw", "ua", "uk", "us", "uy", "uz", "vc", "ve", "vg", "vip", "vn", "wang",
    "website", "wien", "wiki", "win", "work", "world", "ws", "wtf", "xin", "xyz", "za", "zip", "zone",
];

#[cfg(test)]
mod tests;
