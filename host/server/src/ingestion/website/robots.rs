//! What a site's robots.txt allows (RFC 9309).
//!
//! Own rules rather than a library: those there are have had no release for years, and the standard fits on a page. The
//! group with our name counts, else that of `*`; several groups of one name are one. Of the rules that match a path the
//! longest counts, and of two as long the one that allows. `*` stands for anything, `$` at the end for the path's end.

use std::time::Duration;

/// Bytes that are read; the standard asks for at least 500 KiB.
pub const ROBOTS_BYTES_MAX: usize = 512 * 1024;
/// Rules that are kept.
const RULES_MAX: usize = 10_000;
/// Longest pause between two calls that a site can ask for.
const CRAWL_DELAY_MAX: Duration = Duration::from_secs(10);

/// The rules for us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Robots {
    /// Pattern, and whether it allows.
    rules: Vec<(String, bool)>,
    pub crawl_delay: Option<Duration>,
    /// Addresses of sitemaps, which hold for everybody.
    pub sitemaps: Vec<String>,
}

impl Robots {
    /// Nothing may be read: what the standard asks for when the file cannot be had because of the server.
    pub fn nothing() -> Self {
        Self { rules: vec![("/".to_owned(), false)], ..Self::default() }
    }

    /// Reads a file; `agent` is our product name without version. Lines that are not understood are passed over.
    pub fn parse(text: &str, agent: &str) -> Self {
        let mut named = Group::default();
        let mut everybody = Group::default();
        let mut robots = Self::default();
        // The group's names stand before its rules.
        let (mut for_us, mut for_all, mut in_rules) = (false, false, false);
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.split('#').next().unwrap_or_default();
            let Some((field, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match field.trim().to_ascii_lowercase().as_str() {
                "user-agent" => {
                    if in_rules {
                        (for_us, for_all, in_rules) = (false, false, false);
                    }
                    let name: String =
                        value.chars().take_while(|c| c.is_ascii_alphabetic() || matches!(c, '-' | '_')).collect();
                    for_us |= name.eq_ignore_ascii_case(agent);
                    for_all |= value == "*";
                    named.is_there |= for_us;
                }
                "sitemap" if robots.sitemaps.len() < 100 => robots.sitemaps.push(value.to_owned()),
                field @ ("allow" | "disallow" | "crawl-delay") => {
                    in_rules = true;
                    for (group, is_meant) in [(&mut named, for_us), (&mut everybody, for_all)] {
                        if is_meant {
                            group.take(field, value);
                        }
                    }
                }
                _ => {}
            }
        }
        let group = if named.is_there { named } else { everybody };
        (robots.rules, robots.crawl_delay) = (group.rules, group.crawl_delay);
        robots
    }

    /// Whether a path with its query may be read.
    pub fn allows(&self, path: &str) -> bool {
        if path == "/robots.txt" {
            return true;
        }
        let path = normalised(path);
        let matching = self.rules.iter().filter(|(pattern, _)| matches(pattern, &path));
        matching.max_by_key(|(pattern, allows)| (pattern.len(), *allows)).is_none_or(|(_, allows)| *allows)
    }
}

#[derive(Debug, Default)]
struct Group {
    is_there: bool,
    rules: Vec<(String, bool)>,
    crawl_delay: Option<Duration>,
}

impl Group {
    fn take(&mut self, field: &str, value: &str) {
        if field == "crawl-delay" {
            let seconds: Option<f64> = value.parse().ok().filter(|seconds: &f64| (0.0..=86_400.0).contains(seconds));
            self.crawl_delay = seconds.map(|seconds| Duration::from_secs_f64(seconds).min(CRAWL_DELAY_MAX));
        } else if value.starts_with(['/', '*', '$']) && self.rules.len() < RULES_MAX {
            self.rules.push((normalised(value), field == "allow"));
        }
    }
}

/// Percent-encoded characters that need not be so are compared as themselves, and others in capital hexadecimals.
fn normalised(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut result = String::with_capacity(path.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at).copied() {
        let hex =
            (byte == b'%').then(|| path.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok())).flatten();
        match hex {
            Some(decoded) => {
                at += 3;
                if decoded.is_ascii_alphanumeric() || matches!(decoded, b'-' | b'.' | b'_' | b'~') {
                    result.push(char::from(decoded));
                } else {
                    result.push_str(&format!("%{decoded:02X}"));
                }
            }
            None => {
                at += 1;
                if byte.is_ascii() {
                    result.push(char::from(byte));
                } else {
                    result.push_str(&format!("%{byte:02X}"));
                }
            }
        }
    }
    result
}

/// In time proportional to the product of the lengths, whatever the pattern.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, to_the_end) = match pattern.strip_suffix('$') {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| path.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (at, part) in parts.iter().enumerate() {
        let is_last = at + 1 == parts.len();
        if is_last && to_the_end {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(found) => rest = rest.get(found + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    !to_the_end || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_rule_of_our_group_counts() {
        let text = "\u{feff}# a shop\nUser-agent: other\nDisallow: /\n\nUser-Agent: Frontdesk/1.0\nUser-agent: third\n\
            Disallow: /private\nAllow: /private/faq\nDisallow: /*.pdf$\nDisallow: /caf%c3%a9\nCrawl-delay: 2.5\n\n\
            User-agent: *\nDisallow: /all\nSitemap: https://shop.example/map.xml\nfrontdesk\nDisallow:\n";
        let robots = Robots::parse(text, "frontdesk");
        for (path, expected) in [
            ("/", true),
            ("/private", false),
            ("/private/x", false),
            ("/private/faq", true),
            ("/a.pdf", false),
            ("/a.pdf?x=1", true),
            ("/café", false),
            ("/all", true),
            ("/robots.txt", true),
        ] {
            assert_eq!(robots.allows(path), expected, "{path}");
        }
        assert_eq!(robots.crawl_delay, Some(Duration::from_millis(2_500)));
        assert_eq!(robots.sitemaps, ["https://shop.example/map.xml"]);
        assert!(!Robots::parse(text, "someone").allows("/all"), "others have the group of everybody");
        assert!(Robots::parse("", "frontdesk").allows("/x"));
        assert!(Robots::parse("User-agent: *\nDisallow:\n", "frontdesk").allows("/x"), "an empty rule says nothing");
        assert!(!Robots::nothing().allows("/x"));
    }

    #[test]
    fn of_two_rules_as_long_the_one_that_allows_counts() {
        let robots = Robots::parse("User-agent: *\nDisallow: /page\nAllow: /page\n", "frontdesk");
        assert!(robots.allows("/page"));
        let robots = Robots::parse("User-agent: *\nAllow: /$\nDisallow: /\n", "frontdesk");
        assert!(robots.allows("/") && !robots.allows("/x"));
    }

    #[test]
    fn hostile_patterns_take_no_time() {
        let pattern = format!("/{}b", "*a".repeat(5_000));
        let robots = Robots::parse(&format!("User-agent: *\nDisallow: {pattern}\n"), "frontdesk");
        let began = std::time::Instant::now();
        assert!(robots.allows(&format!("/{}", "a".repeat(20_000))));
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
