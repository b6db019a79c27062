//! One call to a website: only to the site that was asked for, only to public addresses, and only so many bytes.
//!
//! A host that fetches what people (or sitemaps) tell it to can be made to fetch what only it can reach: a cloud's
//! metadata, a database's admin page. So:
//! - names are resolved by [`PublicOnly`], which gives the connection public addresses alone. The connection goes to
//!   the very address that was judged, so a name that changes its mind in between gains nothing;
//! - addresses written as numbers never reach a resolver and are judged where they stand;
//! - redirects are followed here, one by one, and each is judged like the first address;
//! - no proxy is used, because a proxy would resolve by itself;
//! - no credentials are sent, and addresses that hold some are refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use frontdesk_messenger::usage::retry_after_ms;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use url::{Host, Url};

use super::{SiteError, WebsiteSettings};

const REDIRECTS_MAX: usize = 5;
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A busy server is asked again so often.
const RETRIES: u32 = 2;
const RETRY_AFTER_MAX: Duration = Duration::from_secs(20);

/// Makes calls to one site.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client,
    site: Site,
    allow_private: bool,
}

/// Scheme aside, what an address must have to belong to a site: its host (with or without `www.`) and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    host: String,
    port: Option<u16>,
}

impl Site {
    pub fn of(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let host = host.strip_prefix("www.").map_or(host.clone(), str::to_owned);
        // The schemes' own ports count as one: sites move from http to https.
        Self { host, port: url.port() }
    }

    pub fn holds(&self, url: &Url) -> bool {
        matches!(url.scheme(), "http" | "https") && Self::of(url) == *self
    }
}

/// What the last visit learnt, to ask whether anything has changed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    pub etag: Option<&'a str>,
    pub last_modified: Option<&'a str>,
}

#[derive(Debug)]
pub enum Answer {
    Page(Box<Page>),
    NotModified,
    /// 404 or 410.
    Gone,
}

#[derive(Debug)]
pub struct Page {
    /// After redirects.
    pub url: Url,
    pub bytes: Vec<u8>,
    /// Without parameters, in lower case.
    pub content_type: String,
    pub charset: Option<String>,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    /// The server asks not to index it.
    pub is_noindex: bool,
}

/// Why one address could not be had. None of these ends a job.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{url} leads away from the site, to {host}")]
    OtherSite { url: String, host: String },
    #[error("{url} is not reached over http or https, or holds a password")]
    Scheme { url: String },
    #[error("{host} is a private address; set website.allow_private if that is meant")]
    Private { host: String },
    #[error("{url} redirects more than {REDIRECTS_MAX} times")]
    Redirects { url: String },
    #[error("{url} has more than {max} bytes")]
    TooLarge { url: String, max: usize },
    #[error("{url} answers {status}")]
    Status { url: String, status: u16 },
    #[error("{url} cannot be had: {reason}")]
    Unreachable { url: String, reason: String },
}

impl FetchError {
    /// The server's failure rather than its answer.
    pub fn is_the_servers(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            Self::Unreachable { .. } => true,
            _ => false,
        }
    }
}

impl Fetcher {
    pub fn new(url: &Url, settings: &WebsiteSettings) -> Result<Self, SiteError> {
        let mut builder = Client::builder()
            .user_agent(&settings.user_agent)
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_MAX)
            .timeout(Duration::from_millis(settings.timeout_ms));
        if !settings.allow_private {
            builder = builder.dns_resolver(PublicOnly);
        }
        let client = builder.build().map_err(|error| SiteError::Client { reason: error.to_string() })?;
        Ok(Self { client, site: Site::of(url), allow_private: settings.allow_private })
    }

    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Gets an address of the site, following redirects within it.
    pub async fn get(&self, url: &Url, conditions: Conditions<'_>, bytes_max: usize) -> Result<Answer, FetchError> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            self.judge(&url)?;
            let response = self.ask(&url, conditions).await?;
            let status = response.status();
            match status {
                StatusCode::NOT_MODIFIED => return Ok(Answer::NotModified),
                StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(Answer::Gone),
                _ if status.is_redirection() => url = target(&url, &response)?,
                _ if status.is_success() => {
                    return read(url, response, bytes_max).await.map(|page| Answer::Page(Box::new(page)));
                }
                _ => return Err(FetchError::Status { url: url.into(), status: status.as_u16() }),
            }
        }
        Err(FetchError::Redirects { url: url.into() })
    }

    /// Refuses what is not to be reached, before anything is sent.
    pub fn judge(&self, url: &Url) -> Result<(), FetchError> {
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            let mut url = url.clone();
            let _ = url.set_password(None);
            return Err(FetchError::Scheme { url: url.into() });
        }
        if !self.site.holds(url) {
            let host = url.host_str().unwrap_or_default().to_owned();
            return Err(FetchError::OtherSite { url: url.to_string(), host });
        }
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        match literal.filter(|address| !self.allow_private && !is_public(*address)) {
            Some(address) => Err(FetchError::Private { host: address.to_string() }),
            None => Ok(()),
        }
    }

    async fn ask(&self, url: &Url, conditions: Conditions<'_>) -> Result<Response, FetchError> {
        let mut headers = HeaderMap::new();
        let given = [(header::IF_NONE_MATCH, conditions.etag), (header::IF_MODIFIED_SINCE, conditions.last_modified)];
        for (name, value) in given {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(name, value);
            }
        }
        let mut tries = 0;
        loop {
            let sent = self.client.get(url.clone()).headers(headers.clone()).send().await;
            let response = sent.map_err(|error| unreachable(url, error))?;
            let is_busy = matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
            if !is_busy || tries >= RETRIES {
                return Ok(response);
            }
            tries += 1;
            let after = retry_after_ms(response.headers());
            tokio::time::sleep(after.map_or(Duration::from_secs(1), Duration::from_millis).min(RETRY_AFTER_MAX)).await;
        }
    }
}

fn unreachable(url: &Url, error: reqwest::Error) -> FetchError {
    use std::error::Error;
    let mut cause: Option<&dyn Error> = error.source();
    let mut reason = if error.is_timeout() { "it takes too long".to_owned() } else { String::new() };
    while let Some(error) = cause {
        if let Some(private) = error.downcast_ref::<NoPublicAddress>() {
            return FetchError::Private { host: private.host.clone() };
        }
        reason = if reason.is_empty() { error.to_string() } else { reason };
        cause = error.source();
    }
    FetchError::Unreachable { url: url.to_string(), reason }
}

fn target(url: &Url, response: &Response) -> Result<Url, FetchError> {
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let target = location.and_then(|location| url.join(location).ok());
    target.ok_or_else(|| FetchError::Status { url: url.to_string(), status: response.status().as_u16() })
}

async fn read(url: Url, mut response: Response, max: usize) -> Result<Page, FetchError> {
    let text = |name: header::HeaderName| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).filter(|value| value.len() <= 1_000)
    };
    let content_type = text(header::CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    let mut parts = content_type.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_owned();
    let charset = parts.find_map(|part| part.strip_prefix("charset=")).map(|name| name.trim_matches('"').to_owned());
    let (etag, last_modified) = (text(header::ETAG).map(str::to_owned), text(header::LAST_MODIFIED).map(str::to_owned));
    let robots = response.headers().get_all("x-robots-tag").iter().filter_map(|value| value.to_str().ok());
    let is_noindex = robots.flat_map(|value| value.split(',')).any(|word| is_noindex(word.trim()));
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > max => {
                return Err(FetchError::TooLarge { url: url.into(), max });
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return Err(unreachable(&url, error)),
        }
    }
    Ok(Page { url, bytes, content_type: kind, charset, etag, last_modified, is_noindex })
}

pub fn is_noindex(word: &str) -> bool {
    word.eq_ignore_ascii_case("noindex") || word.eq_ignore_ascii_case("none")
}

/// Resolves names to public addresses.
#[derive(Debug, Clone, Copy)]
struct PublicOnly;

#[derive(Debug, thiserror::Error)]
#[error("{host} has no public address")]
struct NoPublicAddress {
    host: String,
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let public: Vec<SocketAddr> = found.into_iter().filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(NoPublicAddress { host }.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the internet at large (the IANA registries of special-purpose addresses).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        || a >= 224
        // shared address space, protocol assignments, benchmarking, 6to4 relays
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 192 && b == 88 && c == 99);
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, third, ..] = address.segments();
    let [.., a, b, c, d] = address.octets();
    let embedded = Ipv4Addr::new(a, b, c, d);
    if address.to_ipv4_mapped().is_some() || (first == 0x64 && second == 0xff9b && third == 0) {
        return is_public_v4(embedded);
    }
    if first == 0x2002 {
        let [high, low] = [second.to_be_bytes(), third.to_be_bytes()];
        return is_public_v4(Ipv4Addr::new(high[0], high[1], low[0], low[1]));
    }
    // Global unicast is 2000::/3; within it Teredo, benchmarking, ORCHID and documentation are not.
    let is_global = first & 0xe000 == 0x2000;
    let is_special = matches!((first, second), (0x2001, 0..0x0200 | 0x0db8) | (0x3fff, _));
    is_global && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for public in ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn a_site_is_its_host_with_or_without_www() {
        let site = Site::of(&Url::parse("https://shop.example/").unwrap());
        for (url, expected) in [
            ("https://shop.example/a", true),
            ("http://www.shop.example/a", true),
            ("https://SHOP.example./", true),
            ("https://shop.example:8443/", false),
            ("https://shop.example.evil.test/", false),
            ("https://eshop.example/", false),
            ("ftp://shop.example/", false),
            ("https://blog.shop.example/", false),
        ] {
            assert_eq!(site.holds(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn numbers_that_mean_this_machine_are_refused_in_any_notation() {
        let settings = WebsiteSettings::default();
        for url in
            ["http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://[::1]/", "http://[::ffff:10.0.0.1]/"]
        {
            let url = Url::parse(url).unwrap();
            let fetcher = Fetcher::new(&url, &settings).unwrap();
            assert!(matches!(fetcher.judge(&url), Err(FetchError::Private { .. })), "{url}");
        }
        let url = Url::parse("http://user:secret@shop.example/").unwrap();
        let error = Fetcher::new(&url, &settings).unwrap().judge(&url).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
